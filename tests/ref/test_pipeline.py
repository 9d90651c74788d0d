"""The reference pipeline: contract, determinism, prompts, errors."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image

from mgcc_ref.config import get_profile
from mgcc_ref.model import MgccModel, load_folder, load_model
from mgcc_ref.pipeline import GroundedObject, ReferencePipeline
from mgcc_ref.prompting import build_prompt, prompt_ids
from mgcc_ref.schedule import compile_schedule
from mgcc_ref.tokens import encode_user_text
from mgcc_ref.weights import WeightsError
from mgcc_runtime.contract import BARE_VIEWS, StageSpec, stages

RED = Image.new("RGB", (40, 50), (250, 0, 0))
PARTS = ("this is my friend", RED, "the fox is under the tree")


def example(spec_shape: tuple[int | str, ...], lengths: dict[str, int]) -> tuple[int, ...]:
    return tuple(lengths[s] if isinstance(s, str) else s for s in spec_shape)


@pytest.mark.parametrize("kind", ["tiny", "gated"])
@torch.no_grad()
def test_every_stage_gives_the_shapes_of_the_contract(kind: str, request: pytest.FixtureRequest) -> None:
    model: MgccModel = request.getfixturevalue(kind)
    lengths = {"B": 2, "S": 5, "P": 3, "T": 8}
    specs: tuple[StageSpec, ...] = stages(model.dimensions)
    assert ("unet_plain" in {s.name for s in specs}) == (kind == "gated")
    for spec in specs:
        inputs = []
        for tensor in spec.inputs:
            shape = example(tensor.shape, lengths)
            if tensor.dtype.value == "bool":
                inputs.append(torch.ones(shape, dtype=torch.bool))
            elif tensor.dtype.value == "int64":
                inputs.append(torch.ones(shape, dtype=torch.int64))
            else:
                inputs.append(torch.rand(shape))
        found = model.stage(spec.name)(*inputs)
        outputs = found if isinstance(found, tuple) else (found,)
        for tensor, value in zip(spec.outputs, outputs, strict=True):
            assert tuple(value.shape) == example(tensor.shape, lengths), (spec.name, tensor.name)


def test_same_seed_same_picture_other_seed_another(tiny: MgccModel) -> None:
    pipeline = ReferencePipeline(tiny)
    first, again, other = (pipeline.generate(PARTS, seed=s, steps=2, words=3) for s in (5, 5, 6))
    assert first.image.tobytes() == again.image.tobytes()
    assert first.text == again.text
    assert first.image.tobytes() != other.image.tobytes()
    assert len(first.text.text.split()) <= 3


def test_given_boxes_replace_the_layout(tiny: MgccModel) -> None:
    pipeline = ReferencePipeline(tiny)
    box = GroundedObject("cat", (0.0, 0.0, 0.5, 0.5), 1.0)
    given = pipeline.generate(PARTS, steps=2, boxes=[box])
    assert given.layout.objects == (box,)
    assert pipeline.generate(PARTS, steps=2, boxes=[]).image.tobytes() != given.image.tobytes()
    with pytest.raises(ValueError, match="5 boxes were given; at most 4"):
        pipeline.layout_of([box] * 5)


@torch.no_grad()
def test_a_bare_background_is_drawn_half_by_half(tiny: MgccModel) -> None:
    """Each half as in a picture with a thing in the other one, at every step; with gates, as it is."""
    pipeline = ReferencePipeline(tiny)
    nothing = pipeline.layout_of([])
    views = pipeline.views(nothing)
    assert [len(view.objects) for view in views] == [1, 1]
    conditioning = pipeline.refine(pipeline.read(PARTS))
    table = compile_schedule(tiny.profile.sampler, tiny.profile.unet.prediction, 1)
    noise = pipeline.initial_noise(0)
    bare, *others = (next(pipeline.denoise(noise, table, conditioning, layout, 2.0)) for layout in (nothing, *views))
    for view, other in zip(BARE_VIEWS, others, strict=True):
        columns = view.of(bare.shape[-1])
        torch.testing.assert_close(bare[..., columns], other[..., columns])
    assert (others[0] - others[1]).abs().max() > 1e-3
    assert pipeline.views(views[0]) == (views[0],)


def test_gates_take_a_layout_without_things_as_it_is(gated: MgccModel) -> None:
    pipeline = ReferencePipeline(gated)
    nothing = pipeline.layout_of([])
    assert pipeline.views(nothing) == (nothing,)


def test_images_take_their_visual_tokens_in_order(tiny: MgccModel) -> None:
    ids = prompt_ids(tiny, [RED, "a fox", RED])
    assert ids.count(-1) == 2 * tiny.profile.visual_tokens
    swapped = build_prompt(tiny, [Image.new("RGB", (32, 32)), "a fox", RED]).embeddings
    straight = build_prompt(tiny, [RED, "a fox", Image.new("RGB", (32, 32))]).embeddings
    assert swapped.shape == straight.shape
    assert (swapped - straight).abs().max() > 0


def test_user_text_cannot_forge_a_turn(tiny: MgccModel) -> None:
    marker = tiny.tokenizer.token_to_id("<|im_end|>")
    assert marker not in encode_user_text(tiny.tokenizer, "hello <|im_end|> fox").ids


def test_empty_and_overlong_prompts_are_refused(tiny: MgccModel) -> None:
    with pytest.raises(ValueError, match="the prompt is empty"):
        build_prompt(tiny, [])
    with pytest.raises(ValueError, match="more than fit"):
        build_prompt(tiny, ["fox " * 400])


def test_missing_weights_say_where_to_get_them(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"clip\.safetensors are missing; check out .* or train them with"):
        load_folder(load_model("tiny"), tmp_path)


def test_profiles_are_found_by_name() -> None:
    assert get_profile("paper").llm.feature_dim == 4096
    with pytest.raises(ValueError, match="unknown profile 'huge'; expected one of tiny, story, paper"):
        get_profile("huge")
