"""Golden data: what the reference gives for each stage and for one whole request, so that a device can compare.

Made by PyTorch alone, never by the exported graph.
"""

from __future__ import annotations

import io
import itertools
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor

from mgcc_export.graphs.to_onnx import Positional
from mgcc_export.stages.stage import GOLDEN_LENGTHS, ExampleMaker, Stage
from mgcc_ref.grounded import GroundedObject
from mgcc_ref.model import MgccModel
from mgcc_ref.pipeline import ReferencePipeline, ReferenceResult
from mgcc_runtime.measure.golden import IMAGE, RequestGolden, StageGolden
from mgcc_runtime.names import GOLDEN_REQUEST, GOLDEN_REQUEST_ARRAYS, golden_picture

Array = np.ndarray[Any, Any]
SEED, WORDS = 7, 8
MOST_STEPS = 20  # the paper's 50 would take a device minutes and check nothing more
_IMAGE_SIZES = ((0, 0), (150, 110))  # the vision tower's own size, and one that must be resized and cropped


def stage_npz(stage: Stage, maker: ExampleMaker) -> bytes:
    """One stage's inputs and outputs as .npz."""
    inputs = maker.inputs(stage.spec, GOLDEN_LENGTHS)
    with torch.inference_mode():
        outputs = Positional(stage.module)(*inputs)
    feeds = {t.name: _array(v) for t, v in zip(stage.spec.inputs, inputs, strict=True)}
    found = {t.name: _array(v) for t, v in zip(stage.spec.outputs, outputs, strict=True)}
    return npz(StageGolden(feeds, found).arrays())


def golden_parts(model: MgccModel) -> list[str | Image.Image]:
    """The texts and images of the request."""
    first, second = (_picture(model, size, i) for i, size in enumerate(_IMAGE_SIZES))
    return [
        "This is my friend.",
        first,
        "My friend is on the beach with a red ball.",
        second,
        "My friend sits under a tree.",
    ]


def named_parts(parts: Sequence[str | Image.Image]) -> tuple[str | Path, ...]:
    """The same with images by their files, as they lie beside the request's."""
    pictures = (Path(golden_picture(i)).name for i in itertools.count())
    return tuple(part if isinstance(part, str) else Path(next(pictures)) for part in parts)


def request_files(
    model: MgccModel, most_steps: int = MOST_STEPS, words: int = WORDS,
    given: Sequence[GroundedObject] | None = None,
) -> dict[str, bytes]:  # fmt: skip
    """One whole request of texts and images and what the reference makes of it: its files, by their names.

    `given`: the request's own boxes; None: the layout head proposes them.
    """
    parts = golden_parts(model)
    images = [part for part in parts if not isinstance(part, str)]
    steps = min(model.profile.sampler.default_steps, most_steps)
    guidance = model.profile.sampler.default_guidance
    result = ReferencePipeline(model).generate(
        parts, seed=SEED, steps=steps, guidance=guidance, words=words, boxes=given
    )
    golden = replace(
        _request(parts, result, steps=steps, guidance=guidance, words=words), given=given is not None
    )  # fmt: skip
    arrays = {
        IMAGE: golden.image,
        "context_features": _array(result.context_features),
        "conditioning": _array(result.conditioning),
        "latents": _array(result.latents),
    }
    return {
        **{golden_picture(i): _png(image) for i, image in enumerate(images)},
        GOLDEN_REQUEST: (json.dumps(golden.to_json(), indent=1) + "\n").encode(),
        GOLDEN_REQUEST_ARRAYS: npz(arrays),
    }


def _request(
    parts: Sequence[str | Image.Image], result: ReferenceResult, *, steps: int, guidance: float | None, words: int
) -> RequestGolden:
    """The request and its outcome as a device reads them: images by their files, boxes in pixels."""
    width, height = result.image.size
    objects = result.layout.objects
    return RequestGolden(
        parts=named_parts(parts),
        seed=SEED,
        steps=steps,
        guidance=guidance,
        words=words,
        text=result.text.text,
        token_ids=tuple(result.text.token_ids),
        labels=tuple(item.label for item in objects),
        scores=tuple(item.score for item in objects),
        boxes=np.array([item.box for item in objects], np.float64).reshape(-1, 4) * (width, height, width, height),
        image=np.asarray(result.image),
    )


def npz(arrays: dict[str, np.ndarray[Any, Any]]) -> bytes:
    """The arrays as an .npz file without any pickled object."""
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **arrays)
    return buffer.getvalue()


def _picture(model: MgccModel, size: tuple[int, int], number: int) -> Image.Image:
    """A small drawing of our own (sky, ground, a ball): golden data must not carry anyone's art."""
    width, height = size if all(size) else (model.profile.clip.image_px,) * 2
    image = Image.new("RGB", (width, height), (150, 205, 240))
    draw = ImageDraw.Draw(image)
    draw.rectangle((0, height * 6 // 10, width, height), fill=(110, 170, 80))
    left, top, side = width * (2 + 3 * number) // 10, height * 4 // 10, min(width, height) * 3 // 10
    draw.ellipse((left, top, left + side, top + side), fill=(210, 50, 50), outline=(60, 20, 20))
    return image


def _png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def _array(tensor: Tensor) -> np.ndarray[Any, Any]:
    return tensor.detach().cpu().contiguous().numpy()
