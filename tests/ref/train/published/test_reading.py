"""What the frozen parts give in training is what they give in use: positions, template, losses, placements."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from transformers import OPTForCausalLM

from mgcc_ref.model import load_model
from mgcc_ref.pipeline import ReferencePipeline
from mgcc_ref.prompting import build_prompt, prompt_ids
from mgcc_ref.train.data.source import DataFormat, DataSource, open_samples
from mgcc_ref.train.features import left_padding_mask, read_requests
from mgcc_ref.train.loop import TrainingPrecision
from mgcc_ref.train.published.align import PublishedAlignStep
from mgcc_ref.train.published.frozen import Placement, choose_placement
from mgcc_ref.train.published.parts import Setup, Start, begin
from mgcc_ref.train.published.recipes import ALIGN
from mgcc_ref.train.published.sequences import SLOT, UNTOLD, Writer, padded
from tests.captioned import write_cc3m

TEXTS = [["A dog."], ["a much longer story of a cat", "and its friend"], ["so"]]


@torch.no_grad()
def test_opts_requests_read_together_read_as_alone() -> None:
    model = load_model("paper-tiny")
    contexts = read_requests(model, TEXTS)
    for row, parts in enumerate(TEXTS):
        alone, _, _ = model.llm.features(build_prompt(model, parts).embeddings, model.llm.empty_cache())
        torch.testing.assert_close(contexts.features[row, contexts.mask[row]], alone[0], rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_padding_shifts_no_position(start: Start) -> None:
    """And the mistake would be seen: with positions counted from the padding on, the features are others."""
    rows = [prompt_ids(start.model, parts) for parts in TEXTS]
    ids = padded(rows, -2)
    embeds, mask = start.llm.embed(ids.clamp_min(0)), ids != -2
    features, last = start.llm.read(embeds, mask)
    for row, own in enumerate(rows):
        alone, normed = start.llm.read(start.llm.embed(torch.tensor([own])), torch.ones(1, len(own), dtype=torch.bool))
        torch.testing.assert_close(features[row, mask[row]], alone[0], rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(last[row, mask[row]], normed[0], rtol=1e-4, atol=1e-4)
    attend = left_padding_mask(mask, ids.shape[1])
    wrong, *_ = start.model.llm.features(embeds, start.model.llm.empty_cache(len(rows)), attend)
    assert not torch.allclose(features[0, mask[0]], wrong[0, mask[0]], rtol=0.05, atol=0.05)


def test_a_caption_is_read_as_the_runtime_reads_it(start: Start) -> None:
    """The template's pieces are where prompting puts them, for OPT's plain one and a chat's."""
    from PIL import Image

    picture = Image.new("RGB", (56, 56))
    for model in (start.model, load_model("tiny")):
        writer = Writer(model)
        first, second = (["a", "dog"], ["the", "cat"])
        captions = [" ".join(first), " ".join(second)]
        told, drawn = writer.told(captions), writer.drawn(captions)
        before = prompt_ids(model, [picture, captions[0], picture])
        assert told.ids[: len(before)] == before and told.ids.count(SLOT) == 2 * model.profile.visual_tokens
        asked = [i for i, label in zip(told.ids, told.labels, strict=True) if label != UNTOLD]
        said = [model.tokenizer.encode(c, add_special_tokens=False).ids for c in captions]
        assert asked == said[0] + said[1] and told.ids[len(before) :] == said[1]
        assert drawn.ids == prompt_ids(model, captions)
        assert drawn.labels[len(drawn.ids) :] == list(model.image_token_ids)
        request, encoding, first_token = writer.request(captions[1], captions[0])
        assert request == prompt_ids(model, [captions[0], picture, captions[1]])
        assert request[first_token : first_token + len(encoding.ids)] == said[1]


@pytest.fixture(scope="module")
def step(setup: Setup, tmp_path_factory: pytest.TempPathFactory) -> PublishedAlignStep:
    table = write_cc3m(tmp_path_factory.mktemp("data"))
    samples = open_samples(DataSource(DataFormat.CC3M, table))
    return PublishedAlignStep(setup, samples, replace(ALIGN, batch=4))


@torch.no_grad()
def test_the_captions_loss_is_transformers(step: PublishedAlignStep, weights: Path) -> None:
    """OPTForCausalLM over the same embeddings, with the rows of the [IMG] tokens beside the vocabulary's."""
    theirs = OPTForCausalLM.from_pretrained(weights / "llm", dtype=torch.float32).eval()
    start, tokens = step._start, step.objective.alignment.image_tokens.embeddings
    batch = step.part_of_batch(0, 0, 1)
    ids, labels = batch["drawn_ids"], batch["drawn_labels"]
    embeds = theirs.get_input_embeddings()(ids.clamp_min(0))
    embeds = torch.cat([embeds, tokens.expand(len(ids), -1, -1)], dim=1)
    mask = F.pad(ids != -2, (0, len(tokens)), value=True)
    out = theirs.model(inputs_embeds=embeds, attention_mask=mask.long()).last_hidden_state
    words = out @ theirs.lm_head.weight[: start.model.profile.llm.vocabulary].T
    logits = torch.cat([words, out @ tokens.T], dim=-1)
    wanted = F.cross_entropy(logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten(), ignore_index=UNTOLD)
    given, _, _ = step.objective.drawn(batch)
    torch.testing.assert_close(given, wanted, rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_the_conditioning_in_training_is_that_in_use(step: PublishedAlignStep) -> None:
    example = step._draws.at(0, step._example)
    _, given, wanted = step.objective.drawn(step._batch_of([example], (False, False)))
    model = step._start.model
    pipeline = ReferencePipeline(model)
    torch.testing.assert_close(given, pipeline.refine(pipeline.read([example.caption])), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(wanted, model.encode_captions([example.caption]), rtol=1e-4, atol=1e-4)


def test_of_a_pair_each_caption_is_drawn_once(step: PublishedAlignStep) -> None:
    examples = [step._draws.at(i, step._example) for i in range(4)]
    apart, joined = step._batch_of(examples, (False, False)), step._batch_of(examples, (True, True))
    assert len(apart["told_ids"]) == 4 and len(joined["told_ids"]) == 2
    assert len(joined["drawn_ids"]) == 4
    words = [(batch["told_labels"] != UNTOLD).sum() for batch in (apart, joined)]
    assert words[0] == words[1], "no caption is lost"
    images = step._start.model.image_token_ids[0]
    assert ((joined["drawn_labels"] == images).sum(dim=1) == 1).all()


def test_kept_targets_take_the_text_towers_place(setup: Setup, tmp_path: Path) -> None:
    clip = setup.profile.clip
    table = write_cc3m(tmp_path, target=(clip.text_positions, clip.text_hidden))
    kept = PublishedAlignStep(setup, open_samples(DataSource(DataFormat.CC3M, table)), replace(ALIGN, batch=2))
    batch = kept.part_of_batch(0, 0, 1)
    assert batch["targets"].shape == (2, clip.text_positions, clip.text_hidden)
    with torch.no_grad():
        assert torch.equal(kept.objective.drawn(batch)[2], batch["targets"])


@pytest.mark.parametrize("placement", Placement)
def test_wherever_the_blocks_are_answer_and_gradient_are_the_same_bits(setup: Setup, placement: Placement) -> None:
    def answer(where: Placement) -> tuple[torch.Tensor, torch.Tensor]:
        llm = begin(replace(setup, placement=where), ()).llm
        embeds = llm.embed(torch.tensor([[5, 9, 30, 31]])).requires_grad_(True)
        features, last = llm.read(embeds, torch.ones(1, 4, dtype=torch.bool))
        (features.square().mean() + llm.word_logits(last[0]).square().mean()).backward()
        assert embeds.grad is not None
        return features.detach(), embeds.grad

    (features, gradient), (usual, through) = answer(placement), answer(Placement.DEVICE)
    assert torch.equal(features, usual) and torch.equal(gradient, through)
    assert gradient.abs().sum() > 0


def test_bf16_is_near_fp32(setup: Setup, start: Start) -> None:
    low = begin(replace(setup, precision=TrainingPrecision.BF16), ()).llm
    ids = torch.tensor([[5, 9, 30, 31, 200]])
    mask = torch.ones_like(ids, dtype=torch.bool)
    with torch.no_grad():
        given, wanted = (llm.read(llm.embed(ids), mask)[0] for llm in (low, start.llm))
    assert given.dtype == torch.float32
    assert 0 < float((given - wanted).norm() / wanted.norm()) < 0.03


def test_the_place_is_where_there_is_room(monkeypatch: pytest.MonkeyPatch) -> None:
    from mgcc_ref.train.published import frozen

    free = {"cuda": 24e9, "cpu": 32e9}
    monkeypatch.setattr(frozen, "free_bytes", lambda device: free[device.type])
    chosen = [choose_placement(int(size), torch.device("cuda")) for size in (13e9, 20e9, 26e9)]
    assert chosen == [Placement.DEVICE, Placement.HOST, Placement.DISK]


def test_published_parts_have_no_seed_and_trained_ones_have(setup: Setup) -> None:
    one, other = begin(setup, ("refiner",)), begin(replace(setup, seed=3), ("refiner",))
    same = [torch.equal(a, b) for a, b in zip(one.model.clip.parameters(), other.model.clip.parameters(), strict=True)]
    assert all(same)
    assert not torch.equal(next(one.model.refiner.mapper.parameters()), next(other.model.refiner.mapper.parameters()))
