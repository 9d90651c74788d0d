"""Golden data: what the reference gives for each stage and for one whole request, so that a device can compare.

Made by PyTorch alone, never by the exported graph.
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor

from mgcc_export.stages import GOLDEN_LENGTHS, ExampleMaker, Stage
from mgcc_export.to_onnx import Positional
from mgcc_ref.model import MgccModel
from mgcc_ref.pipeline import ReferencePipeline, ReferenceResult

Array = np.ndarray[Any, Any]
SEED, WORDS = 7, 8
MOST_STEPS = 20  # the paper's 50 would take a device minutes and check nothing more
_IMAGE_SIZES = ((0, 0), (150, 110))  # the vision tower's own size, and one that must be resized and cropped


def stage_golden(stage: Stage, maker: ExampleMaker) -> bytes:
    """One stage's inputs and outputs as .npz: keys in.NAME and out.NAME."""
    inputs = maker.inputs(stage.spec, GOLDEN_LENGTHS)
    with torch.inference_mode():
        outputs = Positional(stage.module)(*inputs)
    feeds = {t.name: _array(v) for t, v in zip(stage.spec.inputs, inputs, strict=True)}
    return npz(golden_arrays(feeds, {t.name: _array(v) for t, v in zip(stage.spec.outputs, outputs, strict=True)}))


def golden_arrays(feeds: Mapping[str, Array], outputs: Mapping[str, Array]) -> dict[str, Array]:
    """A stage's inputs and outputs under their names in the file."""
    return {f"in.{name}": value for name, value in feeds.items()} | {f"out.{n}": v for n, v in outputs.items()}


def request_golden(model: MgccModel, most_steps: int = MOST_STEPS, words: int = WORDS) -> dict[str, bytes]:
    """One whole request of texts and images: golden/request.json, request.npz and its images, by bundle path."""
    images = [_picture(model, size, i) for i, size in enumerate(_IMAGE_SIZES)]
    parts: list[str | Image.Image] = [
        "This is my friend.",
        images[0],
        "My friend is on the beach with a red ball.",
        images[1],
        "My friend sits under a tree.",
    ]
    steps = min(model.profile.sampler.default_steps, most_steps)
    guidance = model.profile.sampler.default_guidance
    result = ReferencePipeline(model).generate(parts, seed=SEED, steps=steps, guidance=guidance, words=words)
    files = {f"golden/image-{i}.png": _png(image) for i, image in enumerate(images)}
    request = {
        "parts": _parts_json(parts),
        "seed": SEED,
        "steps": steps,
        "guidance": guidance,
        "words": words,
        "text": result.text.text,
        "token_ids": list(result.text.token_ids),
        "boxes": _boxes_json(result),
    }
    files["golden/request.json"] = (json.dumps(request, indent=1) + "\n").encode()
    files["golden/request.npz"] = npz(
        {
            "image": np.asarray(result.image),
            "context_features": _array(result.context_features),
            "conditioning": _array(result.conditioning),
            "latents": _array(result.latents),
        }
    )
    return files


def npz(arrays: dict[str, np.ndarray[Any, Any]]) -> bytes:
    """The arrays as an .npz file without any pickled object."""
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **arrays)
    return buffer.getvalue()


def _parts_json(parts: Sequence[str | Image.Image]) -> list[dict[str, str]]:
    """As `--story` reads them; image paths are relative to the file."""
    found: list[dict[str, str]] = []
    images = 0
    for part in parts:
        if isinstance(part, str):
            found.append({"text": part})
        else:
            found.append({"image": f"image-{images}.png"})
            images += 1
    return found


def _boxes_json(result: ReferenceResult) -> list[dict[str, Any]]:
    """Label, xyxy in pixels of the output image, and score of each object."""
    width, height = result.image.size
    scale = (width, height, width, height)
    return [
        {"label": o.label, "xyxy": [c * s for c, s in zip(o.box, scale, strict=True)], "score": o.score}
        for o in result.layout.objects
    ]


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
