"""What competes for a stage on the CPU: engine, precision and form of the graph."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from mgcc_calibration.quantise.matmul_nbits import WeightOptions
from mgcc_calibration.quantise.plan import PlanOptions
from mgcc_ref.precision import Precision
from mgcc_runtime.names import EngineName

#: Those that compete on the CPU.
COMPETING = (
    Precision.FP32, Precision.BF16, Precision.INT8_DYNAMIC, Precision.INT8_WEIGHTS, Precision.INT4_WEIGHTS,
    Precision.INT8,
)  # fmt: skip


class Engine(enum.StrEnum):
    """Engines of the CPU target, as the runtime calls them."""

    ONNXRUNTIME = EngineName.ONNXRUNTIME
    OPENVINO = EngineName.OPENVINO
    OPENVINO_BF16 = EngineName.OPENVINO_BF16  # what is not in integers is computed in bfloat16


class GraphForm(enum.StrEnum):
    """What a candidate's graph was made from."""

    EXPORTED = "exported"
    FUSED = "fused"  # the language model's, with ONNX Runtime's own kernels and a cache that is written in place


@dataclass(frozen=True)
class Candidate:
    """One graph that could be the stage. `kept`: layers in higher precision and why; `note`: how it was made."""

    engine: Engine
    precision: Precision
    path: Path | None  # None: it could not be made
    kept: Mapping[str, str] = field(default_factory=dict)
    quantised: int = 0  # layers
    note: str = ""
    form: GraphForm = GraphForm.EXPORTED


class Engines(enum.StrEnum):
    """What a device will have installed. OpenVINO's packages take nearly as much room as all others together."""

    ALL = "all"
    ONNXRUNTIME = EngineName.ONNXRUNTIME

    def has(self, engine: Engine) -> bool:
        """Whether stages may run in `engine`."""
        return self is Engines.ALL or engine is Engine.ONNXRUNTIME


@dataclass(frozen=True)
class CandidateOptions:
    """How candidates are made. `least_db`: signal to noise below which W8A8 gives layers back to fp32."""

    plan: PlanOptions = field(default_factory=PlanOptions)
    weights: WeightOptions = field(default_factory=WeightOptions)
    least_db: float = 25.0
    compared: int = 6  # samples that errors are measured on
    context: int = 0  # the most positions of the language model, its cache's capacity; 0: its graph is not fused
    engines: Engines = Engines.ALL
