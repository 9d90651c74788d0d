"""Golden data for the small test bundle, by onnx's own reference evaluator (numpy), not by the engine under test."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
from onnx.reference import ReferenceEvaluator
from PIL import Image

from mgcc_runtime import Pipeline
from mgcc_runtime.bundle.folder import read_manifest
from mgcc_runtime.contract import Dimensions, DType, stages
from tests.runtime.tiny_bundle import reseal

LENGTHS = {"B": 2, "S": 5, "P": 3, "T": 8}
REQUEST = {"seed": 3, "steps": 4, "guidance": 2.0, "words": 3}


def add_golden(root: Path) -> Path:
    """Write golden/ into the bundle: each stage by onnx's evaluator, the request as this machine draws it."""
    manifest = read_manifest(root)
    (root / "golden").mkdir()
    for spec in stages(manifest.dimensions):
        inputs = example_inputs(spec.inputs)
        outputs = ReferenceEvaluator(onnx.load(root / f"{spec.name}.onnx")).run(None, inputs)
        arrays = {f"in.{name}": value for name, value in inputs.items()}
        arrays |= {f"out.{t.name}": value for t, value in zip(spec.outputs, outputs, strict=True)}
        np.savez(root / "golden" / f"{spec.name}.npz", **arrays)
    gradient(11, 9).save(root / "golden" / "image-0.png")
    with Pipeline.load(root) as pipe:
        result = pipe.generate(["A cat.", root / "golden" / "image-0.png"], **REQUEST)
    request = {
        "parts": [{"text": "A cat."}, {"image": "image-0.png"}],
        **REQUEST,
        "text": result.text,
        "token_ids": list(result.text_tokens),
        "boxes": [box.to_json() for box in result.boxes],
    }
    (root / "golden" / "request.json").write_text(json.dumps(request))
    np.savez(root / "golden" / "request.npz", image=np.asarray(result.image))
    return reseal(root)


def example_inputs(specs, seed: int = 1, lengths: dict[str, int] | None = None) -> dict[str, np.ndarray]:
    """Random inputs of the shapes that the contract names."""
    rng = np.random.default_rng(seed)
    lengths = lengths or LENGTHS
    found = {}
    for spec in specs:
        shape = tuple(lengths[n] if isinstance(n, str) else n for n in spec.shape)
        if spec.dtype is DType.BOOL:
            found[spec.name] = np.ones(shape, np.bool_)
        elif spec.dtype is DType.INT64:
            found[spec.name] = rng.integers(0, 200, shape)
        else:
            found[spec.name] = rng.normal(0, 1, shape).astype(np.float32)
    return found


def gradient(width: int, height: int) -> Image.Image:
    """A picture in which every pixel differs."""
    y, x = np.mgrid[0:height, 0:width]
    pixels = np.stack([x * 255 / width, y * 255 / height, (x + y) * 255 / (width + height)], -1)
    return Image.fromarray(pixels.astype(np.uint8))


def dimensions_of(root: Path) -> Dimensions:
    return read_manifest(root).dimensions
