"""OpenVINO in bfloat16: integers where a graph has Q/DQ pairs, bf16 for the rest.

An engine of its own, since what a stage computes in is measured and chosen when a bundle is built, on a CPU that
computes in bf16, and a runtime must not decide it by itself. On a CPU that does not, such a bundle was not tried.
"""

from __future__ import annotations

from pathlib import Path

from mgcc_runtime.contract import StageSpec
from mgcc_runtime.engines import EngineOptions
from mgcc_runtime.engines.openvino import cpu
from mgcc_runtime.engines.unreported import unreported

with unreported():
    import openvino as ov


def computes_in_bf16() -> bool:
    """Whether this machine's CPU has bf16 arithmetic that OpenVINO uses."""
    return "BF16" in ov.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


def open_session(path: Path, spec: StageSpec, options: EngineOptions) -> cpu.OpenVinoSession:
    """Open an ONNX file on the CPU; ContractError if its inputs and outputs are not the stage's."""
    return cpu.open_session(path, spec, options, arithmetic=cpu.Arithmetic.BF16)
