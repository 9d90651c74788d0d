"""The reference in eager PyTorch, with its cache, and its UNet through torch.compile."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from mgcc_benchmarks.peers.reference_model import open_reference
from mgcc_benchmarks.peers.sides.llm import DecodeSide, Logits, PrefillSide
from mgcc_benchmarks.peers.worker import Outputs, WorkerSpec
from mgcc_ref.model import MgccModel
from mgcc_ref.pipeline import GroundedObject, ReferencePipeline, ReferenceResult
from mgcc_ref.prompting import Part
from mgcc_runtime.contract import stage
from mgcc_runtime.story import read_story


def open_model(spec: WorkerSpec) -> MgccModel:
    """The model of the bundle's profile, with as many threads as the other side has."""
    torch.set_num_threads(spec.threads)
    return open_reference(spec.profile, spec.weights)


def torch_versions() -> dict[str, str]:
    return {"torch": torch.__version__}


class ReferenceTurn:
    """One warm request, as `OurTurn`."""

    def __init__(self, spec: WorkerSpec) -> None:
        self.pipeline, self.versions = ReferencePipeline(open_model(spec)), torch_versions()
        told = read_story(Path(spec.work) / "story.json")
        self.parts: list[Part] = [p if isinstance(p, str) else _picture(Path(str(p))) for p in told]
        self.options = json.loads((Path(spec.work) / "options.json").read_text(encoding="utf-8"))

    def _draw(self) -> ReferenceResult:
        return self.pipeline.generate(self.parts, seed=int(self.options["seed"]), words=int(self.options["words"]))

    def outputs(self) -> Outputs:
        result, side = self._draw(), self.pipeline.model.profile.image_px
        boxes = [
            GroundedObject(box["label"], tuple(np.divide(box["xyxy"], side).tolist()), 1.0)
            for box in self.options["boxes"]
        ]
        given = self.pipeline.generate(self.parts, seed=int(self.options["seed"]), boxes=boxes)
        return {
            "image": np.asarray(given.image),
            "tokens": np.array(result.text.token_ids, np.int64),
            "labels": np.array([found.label for found in result.layout.objects], np.str_),
            "boxes": np.array([found.box for found in result.layout.objects], np.float64).reshape(-1, 4) * side,
        }

    def run_ms(self) -> float:
        start_s = time.perf_counter()
        self._draw()
        return (time.perf_counter() - start_s) * 1e3


def _picture(path: Path) -> Image.Image:
    with Image.open(path) as image:
        return image.convert("RGB")


class ReferenceUnet:
    """One denoising step of the reference's stage `unet`."""

    def __init__(self, spec: WorkerSpec) -> None:
        model = open_model(spec)
        arrays, inputs = spec.arrays("unet"), stage(model.dimensions, "unet").inputs
        self.inputs = [torch.from_numpy(arrays[tensor.name]) for tensor in inputs]
        self.call: Callable[..., Tensor] = self.prepared(model.stage("unet"))
        self.versions = torch_versions()

    def prepared(self, module: torch.nn.Module) -> Callable[..., Tensor]:
        return module

    @torch.inference_mode()
    def outputs(self) -> Outputs:
        return {"prediction": self.call(*self.inputs).numpy()}

    @torch.inference_mode()
    def run_ms(self) -> float:
        start_s = time.perf_counter()
        self.call(*self.inputs).numpy()
        return (time.perf_counter() - start_s) * 1e3


class CompiledUnet(ReferenceUnet):
    """The same through torch.compile with its default backend; compiled at the first call, which is not timed."""

    def prepared(self, module: torch.nn.Module) -> Callable[..., Tensor]:
        compiled: Callable[..., Tensor] = torch.compile(module, dynamic=False)
        return compiled


class ReferenceLlm:
    """The reference's language model with its functional cache."""

    def __init__(self, spec: WorkerSpec) -> None:
        self.llm, self.versions = open_model(spec).llm, torch_versions()
        self.table = self.llm.token_table().detach()
        self.start = self.now = self.llm.empty_cache()

    @torch.inference_mode()
    def _read(self, ids: NDArray[np.int64], cache: tuple[Tensor, ...]) -> Logits:
        logits, _, *present = self.llm(self.table[torch.from_numpy(ids)].unsqueeze(0), *cache)
        self.now = tuple(present)
        found: Logits = logits[0, 0].numpy()
        return found

    def prefill(self, ids: NDArray[np.int64]) -> Logits:
        logits = self._read(ids, self.llm.empty_cache())
        self.start = self.now
        return logits

    def rewind(self) -> None:
        self.now = self.start

    def step(self, token: int) -> Logits:
        return self._read(np.array([token], np.int64), self.now)


class ReferencePrefill(PrefillSide):
    def __init__(self, spec: WorkerSpec) -> None:
        super().__init__(spec, ReferenceLlm(spec))


class ReferenceDecode(DecodeSide):
    def __init__(self, spec: WorkerSpec) -> None:
        super().__init__(spec, ReferenceLlm(spec))
