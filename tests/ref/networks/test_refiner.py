"""CMRM and mapper, and GILL: shapes of its published configuration, its layer and loss written again here, masking."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import nn

from mgcc_ref.config import Refinement, RefinerConfig, get_profile
from mgcc_ref.model import load_model
from mgcc_ref.networks.mapper import Mapper
from mgcc_ref.networks.refiner import Refiner
from mgcc_ref.prompting import prompt_ids
from mgcc_ref.train.steps.align import gill_loss, rescale_rows

SMALL = get_profile("tiny").refiner
GILL = RefinerConfig(
    0, 0, 1, 0, mapper_hidden=512, mapper_layers=4, mapper_heads=4, mapper_feed_forward=2048,
    refinement=Refinement.GILL,
)  # fmt: skip


def test_mapper_has_the_shapes_of_gills_published_checkpoint() -> None:
    """arXiv 2305.17216 and gill/layers.py: 4096 -> 512, 4 + 4 layers, ff 2048, 77 queries, 512 -> 768."""
    with torch.device("meta"):
        mapper = Mapper(GILL, features=4096, tokens_out=77, width_out=768)
    shapes = {name: tuple(value.shape) for name, value in mapper.state_dict().items()}
    assert shapes["fc.weight"] == (512, 4096)
    assert shapes["query_embs"] == (1, 77, 512)
    assert shapes["model.weight"] == (768, 512)
    assert shapes["tfm.encoder.layers.3.linear1.weight"] == (2048, 512)
    assert shapes["tfm.decoder.layers.3.multihead_attn.in_proj_weight"] == (1536, 512)
    assert "tfm.encoder.layers.4.linear1.weight" not in shapes
    assert mapper.tfm.encoder.layers[0].norm_first
    assert 31e6 < sum(v.numel() for v in mapper.parameters()) < 33e6


class GillsLayer(nn.Module):
    """What GILL's published code does between the language model and the UNet, from its description and key names."""

    def __init__(self, width_in: int, width_out: int, queries: int) -> None:
        super().__init__()
        hidden = 512
        self.fc = nn.Linear(width_in, hidden)
        self.tfm = nn.Transformer(
            batch_first=True, norm_first=True, d_model=hidden, num_encoder_layers=4, num_decoder_layers=4,
            dim_feedforward=hidden * 4, dropout=0.0, nhead=4,
        )  # fmt: skip
        self.model = nn.Linear(hidden, width_out)
        self.query_embs = nn.Parameter(torch.randn(1, queries, hidden))

    def forward(self, x: torch.Tensor, input_embs: torch.Tensor) -> torch.Tensor:
        x = self.fc(x + input_embs)
        return self.model(self.tfm(x, self.query_embs.repeat(x.shape[0], 1, 1)))


def gill_refiner() -> Refiner:
    torch.manual_seed(0)
    return Refiner(GILL, 96, 96, 77, 48, tokens_in=8).eval()


def test_gill_is_its_published_layer_to_the_bit() -> None:
    refiner, theirs = gill_refiner(), GillsLayer(96, 48, 77).eval()
    theirs.load_state_dict(refiner.mapper.state_dict(), strict=True)
    features, embeddings = torch.randn(2, 8, 96), torch.randn(8, 96)
    context, mask = torch.randn(2, 20, 96), torch.ones(2, 20, dtype=torch.bool)
    refiner.take(embeddings)
    with torch.no_grad():
        wanted = theirs(features, embeddings)
        assert torch.equal(refiner(features, context, mask), wanted)
        assert torch.equal(refiner(features, context, mask, embeddings), wanted)  # as training gives them


def test_neither_a_norm_nor_features_alone_are_gill() -> None:
    """What the refiner without blocks does, and what a mapper without the embeddings would."""
    refiner = gill_refiner()
    without_blocks = Refiner(replace(GILL, refinement=Refinement.CMRM), 96, 96, 77, 48).eval()
    without_blocks.mapper.load_state_dict(refiner.mapper.state_dict())
    features, embeddings = 3 * torch.randn(1, 8, 96) + 1, torch.randn(8, 96)
    context, mask = torch.randn(1, 20, 96), torch.ones(1, 20, dtype=torch.bool)
    refiner.take(embeddings)
    with torch.no_grad():
        wanted = refiner(features, context, mask)
        for other in (without_blocks(features, context, mask), refiner.mapper(features)):
            assert (other - wanted).norm() / wanted.norm() > 0.01


def test_only_the_ordered_cmrm_sees_which_statement_came_last() -> None:
    config = RefinerConfig(2, 32, 2, 64, 48, 1, 2, 64)
    context, mask = torch.randn(1, 20, 96), torch.ones(1, 20, dtype=torch.bool)
    features = torch.randn(1, 8, 96)
    for refinement, sees in ((Refinement.CMRM, True), (Refinement.UNORDERED, False)):
        torch.manual_seed(0)
        refiner = Refiner(replace(config, refinement=refinement), 96, 96, 77, 48).eval()
        for parameter in refiner.from_end.parameters():
            torch.nn.init.normal_(parameter)
        with torch.no_grad():
            forth, back = refiner(features, context, mask), refiner(features, context.flip(1), mask)
        assert torch.allclose(forth, back, atol=1e-5) is not sees


def test_gill_has_no_blocks_and_reads_one_layer() -> None:
    with pytest.raises(ValueError, match="has 2 blocks, expected none"):
        replace(GILL, cmrm_blocks=2)
    with pytest.raises(ValueError, match="reads one layer of 96 features, expected no more; got 192"):
        Refiner(GILL, 192, 96, 77, 48)


def test_gills_loss_is_the_norm_of_each_tokens_error() -> None:
    torch.manual_seed(0)
    given, wanted = torch.randn(3, 77, 48), torch.randn(3, 77, 48)
    by_hand = sum(
        math.sqrt(sum((float(a) - float(b)) ** 2 for a, b in zip(x, y, strict=True)))
        for x, y in zip(given.flatten(0, 1), wanted.flatten(0, 1), strict=True)
    )
    assert float(gill_loss(given, wanted)) == pytest.approx(by_hand / (3 * 77), rel=1e-5)
    assert float(gill_loss(given, wanted)) != pytest.approx(float((given - wanted).square().mean()), rel=0.1)


def test_rows_of_the_image_tokens_take_the_vocabularys_mean_norm() -> None:
    torch.manual_seed(0)
    rows, table = torch.randn(8, 16), 5 * torch.randn(40, 16)
    directions = rows / rows.norm(dim=-1, keepdim=True)
    rescale_rows(rows, table)
    torch.testing.assert_close(rows, directions * table.norm(dim=-1).mean())


def test_the_profile_puts_nothing_between_the_parts() -> None:
    model = load_model("gill-tiny", "random")
    ids = prompt_ids(model, ["red fox", "blue sea"])
    words = model.tokenizer.encode("red fox", add_special_tokens=False).ids
    words += model.tokenizer.encode("blue sea", add_special_tokens=False).ids
    assert ids == [model.tokenizer.token_to_id("</s>"), *words]
    assert torch.equal(model.refiner.image_embeddings, model.llm.image_tokens.embeddings)


def test_the_refinement_reads_the_context_but_nothing_behind_the_mask() -> None:
    torch.manual_seed(0)
    refiner = Refiner(SMALL, 128, 64, 16, 32).eval()
    image, context = torch.randn(1, 8, 128), torch.randn(1, 20, 128)
    mask = torch.arange(20).unsqueeze(0) < 12
    other = context.clone()
    other[:, 12:] = torch.randn(8, 128) * 9
    changed = context.clone()
    changed[:, 3] = torch.randn(128)
    with torch.no_grad():
        given = refiner(image, context, mask)
        assert given.shape == (1, 16, 32)
        torch.testing.assert_close(refiner(image, other, mask), given)
        assert (refiner(image, changed, mask) - given).abs().max() > 1e-5
        assert (refiner(image, other, torch.ones_like(mask)) - given).abs().max() > 1e-5  # the mask does the work


def test_layers_of_very_different_scale_are_normed_apart() -> None:
    refiner = Refiner(SMALL, 128, 64, 16, 32)
    features = torch.randn(1, 5, 128)
    features[..., :64] *= 300.0  # what a middle layer's outlier channels look like beside the normed last one
    normed = refiner.norm(features)
    torch.testing.assert_close(normed[..., :64].std(), normed[..., 64:].std(), rtol=0.05, atol=0.0)


def test_of_two_like_statements_the_refinement_can_tell_the_later_one() -> None:
    """Attention alone cannot: swap two positions of the context, and what it gives is the same."""
    torch.manual_seed(0)
    refiner = Refiner(SMALL, 128, 64, 16, 32).eval()
    image, context = torch.randn(1, 8, 128), torch.randn(1, 20, 128)
    swapped = context.clone()
    swapped[:, [3, 15]] = context[:, [15, 3]]
    mask = torch.ones(1, 20, dtype=torch.bool)
    padded = torch.cat([torch.randn(1, 7, 128), context], dim=1)
    padded_mask = torch.arange(27).unsqueeze(0) >= 7
    with torch.no_grad():
        torch.testing.assert_close(refiner(image, swapped, mask), refiner(image, context, mask))
        torch.nn.init.normal_(refiner.from_end.weight)  # zero, as it starts, tells nothing
        given = refiner(image, context, mask)
        assert (refiner(image, swapped, mask) - given).abs().max() > 1e-4
        torch.testing.assert_close(refiner(image, padded, padded_mask), given)  # counted from the end, left padding
