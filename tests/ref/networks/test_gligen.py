"""Our denoising with GLIGEN gates against diffusers' StableDiffusionGLIGENPipeline: same weights, same noise."""

from __future__ import annotations

import copy
import json
import math

import pytest
import torch
from diffusers import StableDiffusionGLIGENPipeline
from transformers import CLIPTokenizer

from mgcc_ref.model import MgccModel
from mgcc_ref.pipeline import GroundedObject, Layout, ReferencePipeline
from mgcc_ref.schedule import build_scheduler, compile_schedule

STEPS, GUIDANCE = 5, 3.0
#: 6 network evaluations in float32; the compiled schedule sums in another order than the stepping scheduler.
RELATIVE = 2e-5

BOXES = [(0.1, 0.2, 0.5, 0.7), (0.55, 0.3, 0.9, 0.95)]
WORDS = ["fox", "house"]


@pytest.fixture(scope="module")
def clip_tokenizer(tmp_path_factory: pytest.TempPathFactory, gated: MgccModel) -> CLIPTokenizer:
    """CLIP's kind of tokenizer whose ids for our two words are those of the model's own tokenizer."""
    folder = tmp_path_factory.mktemp("tokenizer")
    words = {word: gated.text_tokenizer.token_to_id(word) for word in WORDS}
    letters = sorted({c for word in WORDS for c in word})
    vocabulary = {"[PAD]": 0, "<|startoftext|>": 1, "[UNK]": 2, "<|endoftext|>": 3}
    vocabulary |= {f"{word}</w>": i for word, i in words.items()}
    free = (i for i in range(1000, 9999))
    merges: list[str] = []
    for letter in letters:
        vocabulary[letter] = next(free)
        vocabulary[f"{letter}</w>"] = next(free)
    for word in WORDS:
        left = word[0]
        for position, letter in enumerate(word[1:], start=1):
            right = letter + ("</w>" if position == len(word) - 1 else "")
            merges.append(f"{left} {right}")
            left += right
            vocabulary.setdefault(left, next(free))
    (folder / "vocab.json").write_text(json.dumps(vocabulary))
    (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(merges) + "\n")
    return CLIPTokenizer(
        vocab=str(folder / "vocab.json"),
        merges=str(folder / "merges.txt"),
        pad_token="[PAD]",
        unk_token="[UNK]",
        model_max_length=gated.profile.clip.text_positions,
    )


def their_latents(model: MgccModel, tokenizer: CLIPTokenizer, conditioning: torch.Tensor, tau: float) -> torch.Tensor:
    pipeline = StableDiffusionGLIGENPipeline(
        vae=model.autoencoder,
        text_encoder=model.text_encoder.tower,
        tokenizer=tokenizer,
        unet=copy.deepcopy(model.unet.unet),  # the pipeline shuts the gates for good when it is done
        scheduler=build_scheduler(model.profile.sampler, "epsilon"),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.set_progress_bar_config(disable=True)
    noise = ReferencePipeline(model).initial_noise(0)
    return pipeline(
        prompt_embeds=conditioning,
        negative_prompt_embeds=model.unet.null_conditioning,
        gligen_phrases=WORDS,
        gligen_boxes=[list(box) for box in BOXES],
        gligen_scheduled_sampling_beta=tau,
        num_inference_steps=STEPS,
        guidance_scale=GUIDANCE,
        latents=noise,
        height=32,
        width=32,
        output_type="latent",
    ).images


def our_latents(model: MgccModel, conditioning: torch.Tensor, layout: Layout | None = None) -> torch.Tensor:
    pipeline = ReferencePipeline(model)
    table = compile_schedule(model.profile.sampler, "epsilon", STEPS)
    objects = [GroundedObject(word, box, 1.0) for word, box in zip(WORDS, BOXES, strict=True)]
    layout = layout or pipeline.layout_of(objects)
    *_, last = pipeline.denoise(pipeline.initial_noise(0), table, conditioning, layout, GUIDANCE)
    return last


def relative(a: torch.Tensor, b: torch.Tensor) -> float:
    return float((a - b).norm() / b.norm())


@torch.no_grad()
def test_scheduled_sampling_gives_the_latents_of_diffusers(gated: MgccModel, clip_tokenizer: CLIPTokenizer) -> None:
    conditioning = gated.encode_captions(["night , large fox left , small house right"])
    evaluations = len(compile_schedule(gated.profile.sampler, "epsilon", STEPS).timesteps)
    gated_steps = int(gated.profile.unet.gate_fraction * evaluations)
    assert 0 < gated_steps < evaluations, "both the gated and the plain graph must take part"
    expected = their_latents(gated, clip_tokenizer, conditioning, gated.profile.unet.gate_fraction)
    assert relative(our_latents(gated, conditioning), expected) < RELATIVE


@torch.no_grad()
def test_known_mistakes_do_not_match(gated: MgccModel, clip_tokenizer: CLIPTokenizer) -> None:
    conditioning = gated.encode_captions(["night , large fox left , small house right"])
    expected = their_latents(gated, clip_tokenizer, conditioning, gated.profile.unet.gate_fraction)
    always_on = their_latents(gated, clip_tokenizer, conditioning, 1.0)
    assert relative(always_on, expected) > 100 * RELATIVE  # the schedule of the gates matters
    no_boxes = ReferencePipeline(gated).layout_of([])
    assert relative(our_latents(gated, conditioning, no_boxes), expected) > 10 * RELATIVE


@torch.no_grad()
def test_the_plain_unet_is_the_gated_one_with_its_gates_at_zero(gated: MgccModel) -> None:
    x = ReferencePipeline(gated).initial_noise(1)
    t, scale = torch.tensor([500.0]), torch.tensor([2.0])
    conditioning = gated.encode_captions(["snow , small fox top"])
    layout = ReferencePipeline(gated).layout_of([GroundedObject("fox", BOXES[0], 1.0)])
    where = (layout.boxes, layout.box_mask, layout.phrase_embeddings)
    plain = gated.unet_plain(x, t, scale, conditioning)
    assert relative(gated.unet(x, t, scale, conditioning, *where), plain) > 1e-3
    gates = {n: p for n, p in gated.unet.named_parameters() if n.endswith(("alpha_attn", "alpha_dense"))}
    saved = {n: p.clone() for n, p in gates.items()}
    try:
        for parameter in gates.values():
            parameter.zero_()
        assert math.isclose(relative(gated.unet(x, t, scale, conditioning, *where), plain), 0.0, abs_tol=1e-6)
    finally:
        for name, parameter in gates.items():
            parameter.copy_(saved[name])


def test_vocabulary_of_the_test_tokenizer_agrees(gated: MgccModel, clip_tokenizer: CLIPTokenizer) -> None:
    ours = gated.text_tokenizer.encode("fox").ids
    theirs = clip_tokenizer("fox", padding="max_length", max_length=len(ours)).input_ids
    assert ours == theirs
