"""The shipped story model as TensorRT-RTX engines, built ahead of time as for a user's GPU."""

from __future__ import annotations

from pathlib import Path

import pytest

from mgcc_export.build import build
from mgcc_export.options import BuildOptions
from mgcc_export.report.markdown import report_markdown
from mgcc_export.report.table import BuildReport, StageReport
from mgcc_export.targets import Target, choose_recipe, tolerance_of
from mgcc_ref.precision import Precision
from mgcc_runtime.bundle.folder import Bundle
from mgcc_runtime.contract import WITHOUT_WEIGHTS, stages
from mgcc_runtime.engines.tensorrt.record import read_record
from tests.packages import needs

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
#: Shared with `make demo` and the tests of the fp32 bundle: the fp32 stages, which take longest, are exported once.
CACHE = ROOT / "build" / ".cache"
MIB = 2**20

Reports = dict[Precision, BuildReport]


@pytest.fixture(scope="module")
def reports() -> Reports:
    needs("tensorrt_rtx")
    found = {}
    for precision in (Precision.FP16, Precision.INT8):
        out = ROOT / "build" / f"story-rtx-{precision}"
        options = BuildOptions("story", choose_recipe(Target.RTX, precision), out, CACHE)
        found[precision] = build(options, lambda *_: None)
    return found


def _by_name(report: BuildReport) -> dict[str, StageReport]:
    return {s.stage: s for s in report.stages}


@pytest.mark.parametrize("precision", [Precision.FP16, Precision.INT8])
def test_every_stage_is_an_engine_with_its_record(reports: Reports, precision: Precision) -> None:
    bundle = Bundle.open(Path(reports[precision].bundle))
    assert list(_by_name(reports[precision])) == [s.name for s in stages(bundle.manifest.dimensions)]
    for name, entry in bundle.manifest.stages.items():
        record = read_record(bundle.file(entry.file))
        assert entry.engine == "tensorrt_rtx"
        assert record.rebuild == f"python export/build_engines.py --profile story --target rtx --precision {precision}"
        assert sum(count for types in record.precision_by_layer().values() for count in types.values()) > 0, name
    assert not list(bundle.root.glob("*.onnx*"))  # the engines hold the weights


@pytest.mark.parametrize("precision", [Precision.FP16, Precision.INT8])
def test_the_graphs_that_engines_were_built_from_keep_to_the_tolerance(reports: Reports, precision: Precision) -> None:
    """Of the precision in effect, against PyTorch in fp32; a stage that went back to a higher one says why."""
    for name, stage in _by_name(reports[precision]).items():
        tolerance = tolerance_of(stage.stage, Precision(stage.precision))
        assert stage.worst.relative_l2 <= tolerance.relative_l2, name
        assert min(p.cosine for p in stage.parity) >= tolerance.cosine, name
        asked = Precision.FP32 if name in WITHOUT_WEIGHTS else precision
        assert stage.precision == asked or "not lower" in stage.note, name
    assert "What could not be checked here" in report_markdown(reports[precision])


@pytest.mark.parametrize("name", ["llm", "unet", "refiner"])
def test_8_bit_weights_make_smaller_engines(reports: Reports, name: str) -> None:
    half, eight = (_by_name(reports[p])[name] for p in (Precision.FP16, Precision.INT8))
    assert (half.precision, eight.precision) == ("fp16", "int8")
    saved = half.weight_bytes - eight.weight_bytes
    assert saved > 0.3 * half.weight_bytes
    assert half.bytes - eight.bytes > 0.5 * saved, f"{half.bytes / MIB:.0f} MiB, then {eight.bytes / MIB:.0f}"


def test_few_of_the_language_models_weights_keep_fp16(reports: Reports) -> None:
    """Rounded like the others, those few would miss the tolerance at the first position."""
    lowered = _by_name(reports[Precision.INT8])["llm"].lowered
    assert lowered is not None and lowered.reasons == ()
    assert lowered.node_types["int8"] > 2 * len(lowered.wider)


@pytest.mark.parametrize("precision", [Precision.FP16, Precision.INT8])
def test_the_grounder_decides_as_in_fp32(reports: Reports, precision: Precision) -> None:
    """fp16 where it does not decide; what a rounding could turn over (which objects, which of two places) in fp32."""
    grounder = _by_name(reports[precision])["grounder"]
    assert grounder.precision in ("fp16", precision)
    assert grounder.lowered is not None and grounder.lowered.node_types["float16"] > 0
