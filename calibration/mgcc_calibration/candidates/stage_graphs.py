"""The graphs that compete for a stage on the CPU: engine and precision, each made from the fp32 graph."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import onnx_ir as ir

from mgcc_calibration.analysis.sensitivity import (
    keep_worst,
    layer_errors,
    main_outputs,
    output_quality,
    spread,
    worst_error,
)
from mgcc_calibration.candidates.candidate import Candidate, CandidateOptions, Engine
from mgcc_calibration.candidates.llm_graphs import FusedLlm, reading
from mgcc_calibration.data.samples import Feeds
from mgcc_calibration.errors import BudgetError, CalibrationError, DataError, FusionError
from mgcc_calibration.graphs.edit import Array
from mgcc_calibration.graphs.graph import Graph
from mgcc_calibration.graphs.layers import Kind, find_layers
from mgcc_calibration.quantise.dynamic_int8 import WeightBytes
from mgcc_calibration.quantise.matmul_nbits import WeightResult, head_layers, of_bits, write_weight_only
from mgcc_calibration.quantise.observe import Samples
from mgcc_calibration.quantise.plan import Placement, Plan, WeightCodes, make_plan
from mgcc_calibration.quantise.qdq import write_qdq
from mgcc_ref.precision import Precision
from mgcc_runtime.contract import StageSpec
from mgcc_runtime.engines import EngineOptions, open_session
from mgcc_runtime.names import EngineName, graph_file

_LOG = logging.getLogger(__name__)


#: What is tried. OpenVINO takes Q/DQ pairs at inputs; ONNX Runtime needs them at outputs too for its integer kernels.
FORMS: tuple[tuple[Engine, Precision], ...] = (
    (Engine.ONNXRUNTIME, Precision.FP32),
    (Engine.OPENVINO, Precision.FP32),
    (Engine.ONNXRUNTIME, Precision.INT8_DYNAMIC),
    (Engine.ONNXRUNTIME, Precision.INT8_WEIGHTS),
    (Engine.ONNXRUNTIME, Precision.INT4_WEIGHTS),
    (Engine.ONNXRUNTIME, Precision.INT8),
    (Engine.OPENVINO, Precision.INT8),
    (Engine.OPENVINO_BF16, Precision.BF16),
    (Engine.OPENVINO_BF16, Precision.INT8),
)

#: Of graphs with Q/DQ pairs: where these stand, and how large a weight's code may get.
_STATIC: dict[Engine, tuple[Placement, WeightCodes]] = {
    Engine.ONNXRUNTIME: (Placement.INPUTS_OUTPUTS, WeightCodes.FULL),
    Engine.OPENVINO: (Placement.INPUTS, WeightCodes.REDUCED),
    Engine.OPENVINO_BF16: (Placement.INPUTS, WeightCodes.REDUCED),
}

_DEFAULTS = CandidateOptions()


@dataclass(frozen=True)
class StageJob:
    """The stage that candidates are made of."""

    spec: StageSpec
    source: Path  # its graph in fp32
    samples: Samples
    folder: Path  # of the graphs that are made


def make_candidates(
    job: StageJob,
    precisions: Sequence[Precision],
    options: CandidateOptions = _DEFAULTS,
    progress: Callable[[str], None] = lambda _: None,
) -> list[Candidate]:
    """Every form of `precisions` as a file FOLDER/ENGINE-PRECISION/STAGE.onnx; one that cannot be made says why.

    DataError (unusable calibration data) is raised: it is the caller's to mend, whatever the form.
    """
    maker = _Maker(job, options)
    found = []
    for engine, precision in FORMS:
        if precision not in precisions or not options.engines.has(engine):
            continue
        progress(f"{engine} {precision}")
        try:
            found.append(maker.make(engine, precision))
        except DataError:
            raise
        except CalibrationError as error:
            found.append(Candidate(engine, precision, None, note=str(error)))
    if Precision.FP32 in precisions and maker.fused is not None:
        progress("onnxruntime fp32, fused")
        found.append(maker.fused.make(Precision.FP32))
    return found


class _Maker:
    """Makes one stage's candidates; the plan of W8A8 is found once for all engines."""

    def __init__(self, job: StageJob, options: CandidateOptions) -> None:
        self.spec, self.source, self.samples, self.folder = job.spec, job.source, job.samples, job.folder
        self.options = options
        self._plan: Plan | None = None
        self._exact: list[dict[str, Array]] | None = None  # of the language model in fp32
        self.fused = self._fusing() if job.spec.name == "llm" and options.context else None

    def _fusing(self) -> FusedLlm | None:
        """The maker of fused graphs; None, with a warning in the log, for a graph of another structure."""
        maker = FusedLlm(self.source, self.samples, self.folder, self.options, self._packed, self._llm_error)
        try:
            maker.check()
        except FusionError as error:
            _LOG.warning("the language model's graph is used as it was exported: %s", error)
            return None
        return maker

    def make(self, engine: Engine, precision: Precision) -> Candidate:
        if engine is Engine.OPENVINO_BF16 and not _computes_in_bf16():
            raise CalibrationError("this machine's CPU has no bf16 arithmetic, or OpenVINO is not installed")
        if precision in (Precision.FP32, Precision.BF16):
            return Candidate(engine, precision, self.source, note="as exported")
        if precision is Precision.INT8:
            return self._static(engine)
        if self.fused is not None and engine is Engine.ONNXRUNTIME:
            return self.fused.make(precision)
        path = self.folder / f"{engine}-{precision}" / graph_file(self.spec.name)
        graph = Graph.load(self.source)
        linear = [layer for layer in find_layers(graph) if layer.kind is Kind.LINEAR]
        if not linear:
            raise CalibrationError(f"stage {self.spec.name} has no linear layers, which {precision} is for")
        if precision is Precision.INT8_DYNAMIC:
            write_dynamic(self.source, path)
            return Candidate(engine, precision, path, quantised=len(linear), note="onnxruntime.quantize_dynamic")
        return self._weight_only(engine, precision, graph, path)

    def _weight_only(self, engine: Engine, precision: Precision, graph: Graph, path: Path) -> Candidate:
        result = self._packed(graph, 8 if precision is Precision.INT8_WEIGHTS else 4)
        result.graph.save(path)
        options = self.options.weights
        note = f"{options.correction}, blocks of {options.grid.block}"
        if precision is Precision.INT4_WEIGHTS and (heads := head_layers(graph)):
            note += f", 8 bits in {', '.join(heads)}"
        return Candidate(engine, precision, path, result.kept, len(result.layers), note)

    def _packed(self, graph: Graph, bits: int) -> WeightResult:
        """Weights in so many bits, as the options ask for it."""
        return write_weight_only(graph, of_bits(self.options.weights, graph, bits), self.samples)

    def _llm_error(self, path: Path) -> float:
        """Relative L2 of the worst output against fp32, with several new positions."""
        chosen = spread(reading(self.samples), self.options.compared)
        if self._exact is None:
            self._exact = self._llm_outputs(self.source, chosen)
        return worst_error(self.spec, self._llm_outputs(path, chosen), self._exact)

    def _llm_outputs(self, path: Path, chosen: Sequence[Feeds]) -> list[dict[str, Array]]:
        """What counts of a graph's outputs, for each of the samples."""
        session = open_session(EngineName.ONNXRUNTIME, path, self.spec, EngineOptions(self.options.weights.threads))
        try:
            found = [session.run(feeds).arrays for feeds in chosen]
        finally:
            session.close()
        return [{name: arrays[name] for name in main_outputs(self.spec)} for arrays in found]

    def _static(self, engine: Engine) -> Candidate:
        placement, codes = _STATIC[engine]
        plan = replace(self._found_plan(), codes=codes)
        path = self.folder / f"{engine}-int8" / graph_file(self.spec.name)
        write_qdq(plan, placement).save(path)
        settings = self.options.plan
        note = f"ranges by {settings.method}, smoothing {settings.smoothing}, Q/DQ at {placement}, codes to {codes:d}"
        return Candidate(engine, Precision.INT8, path, plan.kept, len(plan.layers), note)

    def _found_plan(self) -> Plan:
        """The plan, with the most sensitive layers given back until the output is near enough.

        With the least codes of all engines that compete: one plan does for them all.
        """
        if self._plan is None:
            codes = min(codes for engine, (_, codes) in _STATIC.items() if self.options.engines.has(engine))
            plan = replace(make_plan(Graph.load(self.source), self.samples, self.options.plan), codes=codes)
            quality = output_quality(plan, self.spec, self.samples, self.options.compared)
            if quality(write_qdq(plan)) < self.options.least_db:
                _LOG.info("stage %s is below %g dB in int8: looking for the layers to spare", self.spec.name,
                          self.options.least_db)  # fmt: skip
                errors = layer_errors(plan, self.spec, self.samples, count=self.options.compared)
                plan = keep_worst(plan, errors, quality, self.options.least_db).plan
                if not plan.layers:
                    raise BudgetError(
                        f"stage {self.spec.name} reaches {self.options.least_db:g} dB only with all layers in higher "
                        "precision, expected some in int8; lower the budget or leave this stage as it is"
                    )
            self._plan = plan
        return self._plan


def _computes_in_bf16() -> bool:
    try:
        from mgcc_runtime.engines.openvino.bf16 import computes_in_bf16
    except ImportError:
        return False
    return computes_in_bf16()


def write_dynamic(source: Path, path: Path) -> Path:
    """8-bit weights a channel, activations in 8 bits with ranges of the moment; linear layers alone.

    The weights are unsigned where it is built on a CPU that multiplies these alone exactly (see `WeightBytes`).
    """
    from onnxruntime.quantization import QuantType, quantize_dynamic

    path.parent.mkdir(parents=True, exist_ok=True)
    kind = QuantType.QUInt8 if WeightBytes.of_this_cpu() is WeightBytes.UNSIGNED else QuantType.QInt8
    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.ERROR)  # it advises everybody to pre-process, which the exporter's graphs do not need
    try:
        quantize_dynamic(
            source, path, op_types_to_quantize=["MatMul", "Gemm"], per_channel=True, weight_type=kind,
            extra_options={"MatMulConstBOnly": True, "DefaultTensorType": int(ir.DataType.FLOAT)},
        )  # fmt: skip
    finally:
        root.setLevel(level)
    # written again with sorted maps, so that the same graph gives the same bytes
    return Graph.load(path).save(path)
