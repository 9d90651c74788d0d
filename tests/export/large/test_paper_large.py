"""A language model block by block: the graph of the whole model, marked, resumed, and refused where a shard is gone."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
import torch
from numpy.typing import NDArray

from mgcc_export.build import build
from mgcc_export.debug_stage import write_debug
from mgcc_export.errors import UnavailableError
from mgcc_export.graphs.to_onnx import export_stage, trace_lengths
from mgcc_export.large import chain
from mgcc_export.large.answers import PartAnswers, PartExamples
from mgcc_export.large.builder import SCAN_UNUSED, LargeStageBuilder
from mgcc_export.large.chain import STATE, CacheTooLargeError, ChainState, SegmentPrecision, first_state, lower_segment
from mgcc_export.large.merge import merge_segments
from mgcc_export.large.segments import LlmSegments
from mgcc_export.options import BuildOptions
from mgcc_export.precision.activation_scan import RangeScan
from mgcc_export.precision.emulate_fp16 import write_emulated
from mgcc_export.precision.fp16 import write_half
from mgcc_export.precision.ladder import types_by_operator
from mgcc_export.precision.weight_widths import Bits, write_quantised
from mgcc_export.predict.estimate import estimate_build
from mgcc_export.report.markdown import report_markdown
from mgcc_export.report.table import BuildReport
from mgcc_export.stages.builder import StageBuilder
from mgcc_export.stages.cache import BuiltStage, stage_cache
from mgcc_export.stages.stage import Stage
from mgcc_export.targets import ASKED, Target, choose_recipe
from mgcc_ref.config import get_profile
from mgcc_ref.llm_layers import StreamedLm, whole_llm
from mgcc_ref.parts import load_parts
from mgcc_ref.precision import Precision
from mgcc_runtime.bundle.folder import read_manifest
from mgcc_runtime.bundle.manifest import Manifest
from mgcc_runtime.contract import past_names, present_names, stage
from mgcc_runtime.errors import MgccError

NAME = "paper-tiny"  # read, exported and lowered block by block, as `paper` is
LAYERS = get_profile(NAME).llm.layers
#: Two graphs of the same operations; ONNX Runtime may fuse them differently.
SAME = {"rtol": 1e-4, "atol": 1e-5}


@dataclass(frozen=True)
class Interrupted:
    """A build that was killed at its third part of four and started again."""

    report: BuildReport
    manifest: Manifest
    out: Path
    cache: Path
    first: list[tuple[str, str]]
    second: list[tuple[str, str]]
    graph: Path  # of the language model, as the engine's builder saw it
    half: frozenset[str]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Interrupted:
    root = tmp_path_factory.mktemp("large")
    options = BuildOptions(
        NAME, choose_recipe(Target.JETSON, Precision.INT4), root / "b", root / "cache", "random", ("llm",)
    )
    first, second = list[tuple[str, str]](), list[tuple[str, str]]()

    def killed(stage: str, step: str) -> None:
        first.append((stage, step))
        if step == "part 3 of 4: exporting":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build(options, killed)
    assert not options.out.exists()
    report = build(options, lambda stage, step: second.append((stage, step)))
    (folder,) = options.cache.glob(f"{NAME}-llm-jetson-int4-*")
    half = frozenset((*past_names(LAYERS), *present_names(LAYERS)))
    manifest = read_manifest(options.out)
    return Interrupted(report, manifest, options.out, options.cache, first, second, folder / "llm.onnx", half)


@pytest.fixture(scope="module")
def one_piece(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same model exported as every smaller one is: whole, in fp32."""
    model = load_parts(get_profile(NAME), "random").model
    llm = whole_llm(model.profile.llm, model.llm.image_tokens, model.llm.layers)
    spec, axes = stage(model.dimensions, "llm"), model.dimensions.axes
    lengths = trace_lengths(spec, axes)
    example = [torch.randn([lengths[n] if isinstance(n, str) else n for n in t.shape]) for t in spec.inputs]
    return export_stage(llm, spec, axes, example, tmp_path_factory.mktemp("whole") / "llm.onnx").files[0]


def feeds_of(half: frozenset[str], new: int = 3, past: int = 7) -> dict[str, NDArray[np.generic]]:
    rng = np.random.default_rng(3)
    found: dict[str, NDArray[np.generic]] = {"inputs_embeds": rng.standard_normal((1, new, 128), np.float32)}
    for name in past_names(LAYERS):
        value = rng.standard_normal((1, 4, past, 32), np.float32)
        found[name] = value.astype(np.float16) if name in half else value
    return found


def outputs_of(path: Path, half: frozenset[str]) -> list[NDArray[np.float32]]:
    session = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
    return [v.astype(np.float32) for v in session.run(None, feeds_of(half))]


def emulated(graph: Path, folder: Path) -> Path:
    write_emulated(graph, folder / "emulated.onnx")
    return folder / "emulated.onnx"


@pytest.mark.slow
def test_fp32_is_the_one_piece_export(one_piece: Path, tmp_path: Path) -> None:
    segments = segments_of()
    state, paths = first_state(segments), []
    for number in range(len(segments)):
        folder = tmp_path / str(number)
        folder.mkdir()
        lower_segment(
            segments, number, state, SegmentPrecision(Precision.FP32, half_cache=True), folder, lambda _: None
        )
        state, _ = ChainState.load(folder / STATE)
        paths.append(folder / f"llm.{number:03}.onnx")
    merge_segments(paths, segments.spec, tmp_path / "llm.onnx")
    nothing = frozenset[str]()
    for ours, theirs in zip(outputs_of(tmp_path / "llm.onnx", nothing), outputs_of(one_piece, nothing), strict=True):
        np.testing.assert_allclose(ours, theirs, **SAME)
    with pytest.raises(MgccError, match=r"llm.001.onnx reads hidden.0, which no segment before it gives"):
        merge_segments([paths[1]], segments.spec, tmp_path / "wrong.onnx")


@pytest.mark.slow
def test_int4_is_the_one_piece_int4(built: Interrupted, one_piece: Path, tmp_path: Path) -> None:
    """The same roundings at the same places: equal but for the order of sums, where int4 itself is off by a tenth."""
    half, low = tmp_path / "half.onnx", tmp_path / "low.onnx"
    write_half(one_piece, half, (), built.half)
    write_quantised(half, low, Bits.FOUR)
    ours = outputs_of(emulated(built.graph, tmp_path), built.half)
    theirs = outputs_of(emulated(low, tmp_path), built.half)
    exact = outputs_of(one_piece, frozenset())
    for values in (ours, theirs, exact):
        values[0] = values[0][..., :-8]  # an untrained [IMG] head says -30, beside which all else is small
    for a, b, c in zip(ours, theirs, exact, strict=True):
        norm = np.linalg.norm(b)
        assert np.linalg.norm(a - b) < 2e-3 * norm  # fp16
        assert np.linalg.norm(a - c) > 1e-2 * norm  # so that comparing with fp32 in its place would fail


@pytest.mark.slow
def test_a_killed_build_goes_on_with_the_block_it_was_at(built: Interrupted) -> None:
    assert ("llm", "part 1 of 4: exporting") in built.first
    steps = [step for name, step in built.second if name == "llm"]
    kept = [step for step in steps if step.endswith("kept from an earlier build")]
    assert kept == ["part 1 of 4: kept from an earlier build", "part 2 of 4: kept from an earlier build"]
    assert "part 2 of 4: exporting" not in steps and "part 3 of 4: exporting" in steps
    assert not list(built.cache.glob(f"{NAME}-llm.0*-*")), "the parts are in the whole, twice the disk for nothing"


@pytest.mark.slow
def test_random_weights_cannot_be_mistaken(built: Interrupted) -> None:
    assert built.manifest.weights == built.report.weights == "random"
    assert built.manifest.precision == {"llm": "int4"}


@pytest.mark.slow
def test_the_report_says_time_memory_and_size(built: Interrupted) -> None:
    (entry,) = json.loads(json.dumps(built.report.to_json()))["stages"]
    assert entry["peak_memory_bytes"] > 100 * 2**20
    assert entry["export_s"] > 0 and entry["validate_s"] > 0
    assert entry["bytes"] >= entry["weight_bytes"] > 0
    assert entry["lowered"]["half_cache"] is True
    assert entry["lowered"]["node_types"]["int4"] == 6 * LAYERS + 1  # four of attention, two of the MLP, the logits


@pytest.mark.slow
def test_the_report_says_precision_by_layer_type(built: Interrupted) -> None:
    (stage,) = built.report.stages
    assert stage.lowered is not None and stage.lowered.layers == types_by_operator(built.graph)
    assert stage.lowered.layers["DequantizeLinear"] == {"int4": 6 * LAYERS + 1}
    assert "| `llm` | DequantizeLinear | 13 int4 |" in report_markdown(built.report)


@pytest.mark.slow
def test_calibration_data_changes_nothing_and_the_report_says_so(built: Interrupted, tmp_path: Path) -> None:
    """The finished stage is taken from the cache, and what is kept there says nothing of it."""
    (tmp_path / "calibration.json").write_text("{}")
    out = tmp_path / "b"
    options = BuildOptions(
        NAME, choose_recipe(Target.JETSON, Precision.INT4), out, built.cache, "random", ("llm",), tmp_path
    )
    told = list[tuple[str, str]]()
    report = build(options, lambda stage, step: told.append((stage, step)))
    assert ("llm", "kept from an earlier build") in told and ("llm", SCAN_UNUSED) in told
    assert SCAN_UNUSED in report.stages[0].note and SCAN_UNUSED not in built.report.stages[0].note
    again = build(dataclasses.replace(options, captured=None), lambda *_: None)
    assert again.stages[0].from_cache and SCAN_UNUSED not in again.stages[0].note


@pytest.mark.slow
def test_golden_data_is_the_references(built: Interrupted) -> None:
    with np.load(built.out / "golden" / "llm.npz", allow_pickle=False) as file:
        golden = {name: torch.from_numpy(file[name]) for name in file.files}
    model = load_parts(get_profile(NAME), "random").model
    expected = model.llm(golden["in.inputs_embeds"], *(golden[f"in.{n}"] for n in past_names(LAYERS)))
    for name, value in zip(("logits", "hidden_states", *present_names(LAYERS)), expected, strict=True):
        torch.testing.assert_close(golden[f"out.{name}"], value)


def test_what_passes_between_blocks_is_fp16_while_it_fits() -> None:
    spec = LlmSegments.spec_of(segments_of(), 1)
    cache = frozenset(n for n in (*past_names(1), *present_names(1)))
    fits = RangeScan(1, 16000.0, {"hidden.1": 10.0, "present.0.key": 3.0}, 10.0, "hidden.1", ())
    assert chain._half(spec, fits, frozenset({"hidden.0"}), half_cache=True) == {*cache, "hidden.0", "hidden.1"}
    wide = replace(fits, outputs={"hidden.1": 20000.0})
    assert chain._half(spec, wide, frozenset(), half_cache=False) == frozenset()
    with pytest.raises(CacheTooLargeError):
        chain._half(spec, replace(fits, outputs={"present.0.key": 20000.0}), frozenset(), half_cache=True)


def test_a_cache_beyond_fp16_makes_all_of_it_fp32(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Found at the second part, it holds for the first too."""
    asked = []

    def made(
        builder: LargeStageBuilder,
        segments: LlmSegments,
        number: int,
        state: object,
        wanted: SegmentPrecision,
        key: str,
    ) -> BuiltStage:
        asked.append((number, wanted.half_cache))
        if wanted.half_cache and number == 1:
            raise CacheTooLargeError
        first_state(segments).save(tmp_path / STATE, {})
        return BuiltStage(tmp_path, {}, 0, 0, 0.0, 0.0, [])

    monkeypatch.setattr(LargeStageBuilder, "_segment", made)
    parts, recipe = load_parts(get_profile(NAME), "random"), choose_recipe(Target.JETSON, Precision.FP16)
    answers = PartAnswers(PartExamples(parts), parts)
    steps = StageBuilder(parts.model.profile, recipe, answers, stage_cache(tmp_path), lambda *_: None)
    LargeStageBuilder.of(steps, parts)._chain(segments_of(), Precision.FP16, "key")
    assert asked == [(0, True), (1, True), (0, False), (1, False), (2, False), (3, False)]


def test_captured_inputs_are_answered_by_a_stage_that_was_let_go() -> None:
    """With --scan, PyTorch is asked a second time, after its first answers have left the memory to others."""
    parts = load_parts(get_profile(NAME), "random")
    answers = PartAnswers(PartExamples(parts), parts)
    d = parts.model.dimensions
    spec = stage(d, "refiner")
    parts.hold(["refiner"])
    one = Stage(spec, parts.model.stage("refiner").eval(), d.axes)
    first = answers.cases(one)
    assert next(one.module.parameters()).is_meta
    captured = [case.feeds for case in first[:1]]
    (real,) = answers.real(one, captured)
    for name, value in first[0].outputs.items():
        np.testing.assert_array_equal(real.outputs[name], value)
    assert next(one.module.parameters()).is_meta
    assert answers.real(one, captured)[0] is real


def test_debugging_it_whole_is_refused(tmp_path: Path) -> None:
    options = BuildOptions(NAME, choose_recipe(Target.RTX, Precision.FP16), tmp_path / "b", tmp_path / "c", "random")
    with pytest.raises(UnavailableError, match=r"llm of profile paper-tiny is built block by block .* --profile story"):
        write_debug(options, "llm", lambda *_: None)


@pytest.mark.parametrize("target", [Target.RTX, Target.JETSON])
def test_the_real_one_fits_24_gb_in_int4(target: Target) -> None:
    """OPT-6.7B in fp32 alone is 27 GB, and in fp16 its engine's builder wants 41."""
    need = {p: estimate_build(get_profile("paper"), ("llm",), choose_recipe(target, p)) for p in ASKED[2:]}
    assert need[Precision.INT4].peak_memory_bytes < 23 * 2**30
    assert (need[Precision.FP16].peak_memory_bytes > 40 * 2**30) is (target is Target.RTX)
    calibrated = estimate_build(get_profile("paper"), (), choose_recipe(Target.CPU, Precision.INT4))
    assert calibrated.peak_memory_bytes > 27e9, "the calibration runs all stages together, in fp32 first"


@pytest.mark.parametrize(
    ("profile", "target", "precision", "names", "seconds", "gib"),
    [
        ("paper", Target.RTX, Precision.INT4, ("llm",), 1315, 14.1),  # GiB of the engine's builder, which has most
        ("paper", Target.RTX, Precision.FP16, ("unet",), 400, 14.2),
        # the first UNet's fp32 graph came from the cache, which cost the build before this one about 130 s
        ("paper", Target.JETSON, Precision.FP16, ("unet", "unet_plain"), 378 + 130, 14.5),
    ],
)
def test_estimates_are_what_was_measured_and_some_more(
    profile: str, target: Target, precision: Precision, names: tuple[str, ...], seconds: float, gib: float
) -> None:
    found = estimate_build(get_profile(profile), names, choose_recipe(target, precision))
    assert 1.15 * seconds < found.seconds < 1.5 * seconds
    assert 1.15 * gib < found.peak_memory_bytes / 2**30 < 1.35 * gib


@pytest.mark.parametrize(
    ("name", "precision", "mib"),
    [
        ("llm", Precision.INT4, 3302), ("unet", Precision.FP16, 2069), ("unet_plain", Precision.FP16, 1662),
        ("vision_encoder", Precision.FP16, 616), ("phrase_encoder", Precision.FP16, 238),
        ("refiner", Precision.FP16, 164), ("vae_decoder", Precision.FP16, 99),
    ],
)  # fmt: skip
def test_estimates_of_engines_are_within_a_twelfth_of_their_files(name: str, precision: Precision, mib: float) -> None:
    """Measured, see docs/weights.md. A device holds as much, and as much again of a Jetson's ONNX files' weights."""
    profile = get_profile("paper")
    table = profile.llm.vocabulary * profile.llm.hidden * 4
    found = estimate_build(profile, (name,), choose_recipe(Target.RTX, precision))
    assert (found.bundle_bytes - table) / 2**20 == pytest.approx(mib, rel=1 / 12)
    assert found.device_memory_bytes / 2**20 > mib
    theirs = estimate_build(profile, (name,), choose_recipe(Target.JETSON, precision))
    assert theirs.device_memory_bytes == found.device_memory_bytes


def test_a_language_model_by_parts_needs_its_files_in_memory_at_the_end() -> None:
    """OPT-6.7B in int4 took 10.1 GiB of the exporter's own process, most of it while its parts were put together."""
    found = estimate_build(get_profile("paper"), ("llm",), choose_recipe(Target.JETSON, Precision.INT4))
    assert 1.15 * 10.1 < found.peak_memory_bytes / 2**30 < 1.35 * 10.1


def segments_of() -> LlmSegments:
    model = load_parts(get_profile(NAME), "random").model
    assert isinstance(model.llm, StreamedLm)
    return LlmSegments(model.llm, stage(model.dimensions, "llm"), model.dimensions.axes)
