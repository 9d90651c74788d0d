"""CMRM and mapper: shapes of GILL's published configuration, GILL as the case of zero blocks, masking."""

from __future__ import annotations

from dataclasses import replace

import torch

from mgcc_ref.config import RefinerConfig, get_profile
from mgcc_ref.mapper import Mapper
from mgcc_ref.refiner import Refiner

SMALL = get_profile("tiny").refiner
GILL = RefinerConfig(0, 0, 1, 0, mapper_hidden=512, mapper_layers=4, mapper_heads=4, mapper_feed_forward=2048)


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


def test_zero_blocks_is_gill_and_reads_no_context() -> None:
    torch.manual_seed(0)
    refiner = Refiner(replace(SMALL, cmrm_blocks=0), 128, 64, 16, 32).eval()
    image, context = torch.randn(1, 8, 128), torch.randn(1, 20, 128)
    mask = torch.ones(1, 20, dtype=torch.bool)
    with torch.no_grad():
        alone = refiner.mapper(refiner.norm(image))
        torch.testing.assert_close(refiner(image, context, mask), alone)


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
