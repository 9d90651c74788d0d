"""A small stage with a cache like the language model's, and the tiny profile's bundle with its report."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import pytest
import torch
from filelock import FileLock
from torch import Tensor, nn

from mgcc_export.build import BuildOptions, build
from mgcc_export.graphs.to_onnx import export_stage, trace_lengths
from mgcc_export.report.table import BuildReport
from mgcc_export.targets import Target, choose_recipe
from mgcc_ref.model import MgccModel, load_model
from mgcc_ref.precision import Precision
from mgcc_runtime.contract import Axis, DType, StageSpec, TensorSpec
from tests.exported import shared_folder

WIDTH = 8


class CachedLayer(nn.Module):
    """(x (1, S, 8), past (1, P, 8), mask (1, S)) -> (mixed (1, S, 8), present (1, S + P, 8))."""

    def __init__(self) -> None:
        super().__init__()
        self.project = nn.Linear(WIDTH, WIDTH)
        self.attention = nn.MultiheadAttention(WIDTH, 2, batch_first=True)

    def forward(self, x: Tensor, past: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        present = torch.cat([past, self.project(x)], dim=1)
        mixed, _ = self.attention(x, present, present, need_weights=False)
        return mixed * mask.unsqueeze(-1), present


class Toy:
    """The layer, its spec, and inputs for it."""

    axes: ClassVar = {"S": Axis("S", 1, 4, 16), "P": Axis("P", 0, 4, 16), "T": Axis("T", 1, 8, 16)}
    spec = StageSpec(
        "toy",
        (
            TensorSpec("x", DType.FLOAT32, (1, "S", WIDTH), ""),
            TensorSpec("past", DType.FLOAT32, (1, "P", WIDTH), ""),
            TensorSpec("mask", DType.BOOL, (1, "S"), ""),
        ),
        (
            TensorSpec("mixed", DType.FLOAT32, (1, "S", WIDTH), ""),
            TensorSpec("present", DType.FLOAT32, (1, "T", WIDTH), ""),
        ),
        "",
    )
    cases: ClassVar = [{"S": s, "P": p, "T": s + p} for s, p in ((1, 0), (4, 4), (16, 0), (1, 15))]

    def __init__(self) -> None:
        torch.manual_seed(0)
        self.module = CachedLayer().eval()

    def inputs(self, lengths: dict[str, int]) -> list[Tensor]:
        generator = torch.Generator().manual_seed(1)
        shapes = [[lengths[e] if isinstance(e, str) else e for e in t.shape] for t in self.spec.inputs]
        floats = [torch.randn(shape, generator=generator) for shape in shapes[:2]]
        return [*floats, torch.ones(shapes[2], dtype=torch.bool)]

    def export(self, path: Path, **options: int) -> Path:
        example = self.inputs(trace_lengths(self.spec, self.axes))
        return export_stage(self.module, self.spec, self.axes, example, path, **options).files[0]


@pytest.fixture(scope="session")
def toy() -> Toy:
    return Toy()


@pytest.fixture(scope="session")
def toy_graph(toy: Toy, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return toy.export(tmp_path_factory.mktemp("toy") / "toy.onnx")


@pytest.fixture(scope="session")
def tiny() -> MgccModel:
    return load_model("tiny")


@pytest.fixture(scope="session")
def tiny_build(tmp_path_factory: pytest.TempPathFactory) -> tuple[BuildReport, BuildOptions]:
    """A whole build of the tiny profile: about 30 s, so one worker exports and the others take its stages."""
    root, shared = tmp_path_factory.mktemp("tiny"), shared_folder(tmp_path_factory)
    recipe = choose_recipe(Target.CPU, Precision.FP32)
    options = BuildOptions("tiny", recipe, root / "bundle", shared / "export-cache")
    with FileLock(shared / "export-cache.lock"):
        return build(options, lambda stage, step: None), options
