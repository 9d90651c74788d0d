"""Real TensorRT-RTX engines, built without a GPU; reading them back needs one, so their records are checked."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from mgcc_export.errors import ExportError
from mgcc_export.precision.fp16 import write_half
from mgcc_export.precision.weight_widths import OPSETS, Bits, quantise_channels, write_quantised
from mgcc_export.tensorrt import process as engine_process
from mgcc_export.tensorrt.builder import EngineJob, build_engine, command_of, profiles_of
from mgcc_export.tensorrt.process import run_engine_job
from mgcc_runtime.bundle.folder import sha256_of
from mgcc_runtime.contract import stage
from mgcc_runtime.engines.tensorrt.record import read_record, record_path
from tests.export.conftest import Toy
from tests.export.precision.small_graphs import WIDTH, save, shared_projections
from tests.packages import needs
from tests.runtime.tiny_bundle import DIMENSIONS

trt = needs("tensorrt_rtx")


def job_of(graph: Path, name: str, profiles=(), library: str = "tensorrt_rtx") -> EngineJob:
    engine = graph.with_suffix(".engine")
    return EngineJob(library, name, str(graph), str(engine), str(record_path(engine)), profiles, "rebuild it so")


def test_an_engine_with_a_cache_is_built_and_recorded(toy: Toy, toy_graph: Path, tmp_path: Path) -> None:
    graph = tmp_path / "toy.onnx"
    write_half(toy_graph, graph, half_boundary=("past", "present"))
    job = job_of(graph, "toy", profiles_of(toy.spec, toy.axes))
    done = run_engine_job(job)
    engine = Path(job.engine)
    assert done.bytes == engine.stat().st_size > 10_000
    assert 50e6 < done.peak_memory_bytes < 600e6  # the builder's own, not what this process had when it was started
    record = read_record(engine)
    assert (record.library, record.version, record.sha256) == ("tensorrt_rtx", trt.__version__, sha256_of(engine))
    assert {t.name: (t.dtype, t.shape) for t in (*record.inputs, *record.outputs)} == {
        "x": ("float", (1, -1, 8)), "past": ("half", (1, -1, 8)), "mask": ("bool", (1, -1)),
        "mixed": ("float", (1, -1, 8)), "present": ("half", (1, -1, 8)),
    }  # fmt: skip
    assert [p.shapes["x"] for p in record.profiles] == [((1, 1, 8), (1, 4, 8), (1, 16, 8)), ((1, 1, 8),) * 3]
    assert record.profiles[0].shapes["past"][0] == (1, 0, 8)  # an empty cache
    assert len(record.layers) == done.layers
    assert record.precision_by_layer()["MATRIX_MULTIPLY"].keys() == {"half"}
    assert record.rebuild == "rebuild it so"


def test_weights_of_fewer_bits_make_smaller_engines(tmp_path: Path) -> None:
    """2048 x 2048 weights, so that they outweigh the kernels: the engine holds them in 16, 8 and 4 bits."""
    rng = np.random.default_rng(0)
    nodes = [helper.make_node("MatMul", ["x", "a"], ["h"], "one"), helper.make_node("MatMul", ["h", "b"], ["y"], "two")]
    weights = {n: rng.normal(0, 0.02, (2048, 2048)).astype(np.float32) for n in ("a", "b")}
    full = save(tmp_path / "full.onnx", nodes, weights, shape=(1, 4, 2048))
    write_half(full, tmp_path / "half.onnx")
    sizes = {"fp16": run_engine_job(job_of(tmp_path / "half.onnx", "pair")).bytes}
    for bits in Bits:
        graph = tmp_path / f"int{int(bits)}.onnx"
        write_quantised(tmp_path / "half.onnx", graph, bits)
        sizes[graph.stem] = run_engine_job(job_of(graph, "pair")).bytes
    assert sizes["int8"] < 0.6 * sizes["fp16"]
    assert sizes["int4"] < 0.65 * sizes["int8"]


def test_matrices_that_several_nodes_read_are_built(tmp_path: Path) -> None:
    """With 8 bits in them the compiler fails where it multiplies three at once, which is what our writer spares."""
    write_half(shared_projections(tmp_path / "full.onnx"), tmp_path / "half.onnx")
    write_quantised(tmp_path / "half.onnx", tmp_path / "ours.onnx", Bits.EIGHT)
    shapes = ({"x": ((1, 1, WIDTH), (1, 8, WIDTH), (1, 64, WIDTH))},)
    assert run_engine_job(job_of(tmp_path / "ours.onnx", "rounds", shapes)).bytes > 10_000
    with pytest.raises(ExportError, match="stage rounds: "):
        run_engine_job(job_of(with_shared_codes(tmp_path / "half.onnx"), "rounds", shapes))


def with_shared_codes(half: Path) -> Path:
    """Every matrix in 8 bits, by one DequantizeLinear for all that read it."""
    model = onnx.load(half)
    for weight in [w for w in model.graph.initializer if len(w.dims) == 2]:
        codes, scales = quantise_channels(numpy_helper.to_array(weight), 1)
        names = [f"{weight.name}.{part}" for part in ("codes", "scales", "zeros")]
        for name, values in zip(names, (codes, scales, np.zeros(scales.shape, np.int8)), strict=True):
            model.graph.initializer.append(numpy_helper.from_array(values, name))
        for node in model.graph.node:
            for place in [i for i, name in enumerate(node.input) if name == weight.name]:
                node.input[place] = f"{weight.name}.wide"
        model.graph.node.insert(0, helper.make_node("DequantizeLinear", names, [f"{weight.name}.wide"], axis=1))
    model.opset_import[0].version = OPSETS[Bits.EIGHT]
    onnx.save(model, half.with_name("shared.onnx"))
    return half.with_name("shared.onnx")


def test_what_is_fp32_in_the_graph_is_fp32_in_the_engine(
    toy: Toy, toy_graph: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The library's default multiplies fp32 in TF32, with 10 bits behind the point as fp16 has."""
    made = []
    plain = trt.Builder.create_builder_config

    def watched(builder: object) -> object:
        made.append(plain(builder))
        assert made[-1].get_flag(trt.BuilderFlag.TF32)  # else there would be nothing to do
        return made[-1]

    monkeypatch.setattr(trt.Builder, "create_builder_config", watched)
    graph = tmp_path / "toy.onnx"
    graph.write_bytes(toy_graph.read_bytes())
    build_engine(job_of(graph, "toy", profiles_of(toy.spec, toy.axes)))
    assert [config.get_flag(trt.BuilderFlag.TF32) for config in made] == [False]


def test_the_builders_settings_are_taken(toy: Toy, toy_graph: Path, tmp_path: Path) -> None:
    """By the real library, which times nothing without a GPU and writes a cache of its own form all the same."""
    graph = tmp_path / "toy.onnx"
    graph.write_bytes(toy_graph.read_bytes())
    times = tmp_path / "times.bin"
    plain = job_of(graph, "toy", profiles_of(toy.spec, toy.axes))
    for _ in range(2):
        assert run_engine_job(replace(plain, workspace_bytes=1 << 26, timing_cache=str(times))).bytes > 10_000
    assert times.stat().st_size > 0


def test_a_graph_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "broken.onnx").write_bytes(b"no graph")
    with pytest.raises(ExportError, match=r"stage broken: tensorrt_rtx cannot read .*broken\.onnx"):
        run_engine_job(job_of(tmp_path / "broken.onnx", "broken"))
    assert not (tmp_path / "broken.engine").exists()


def test_profiles_of_another_rank_are_refused(toy: Toy, toy_graph: Path, tmp_path: Path) -> None:
    wrong = {"x": ((1, 1), (1, 2), (1, 3))}
    with pytest.raises(ExportError, match="stage toy"):
        run_engine_job(job_of(toy_graph, "toy", (wrong,)))


@pytest.mark.parametrize(("library", "extra"), [("tensorrt", "tensorrt"), ("tensorrt_rtx", "rtx")])
def test_an_absent_library_names_the_extra(
    toy_graph: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, library: str, extra: str
) -> None:
    """Also where this machine has it: the builder's process finds a file of that name that fails as an absent one."""
    (tmp_path / f"{library}.py").write_text(f"raise ModuleNotFoundError(\"No module named '{library}'\")")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ExportError, match=rf"{library} is not installed; .*mgcc-edge\[{extra}\]"):
        run_engine_job(job_of(toy_graph, "toy", library=library))


def test_a_killed_builder_says_that_memory_may_be_short() -> None:
    job = job_of(Path("/tmp/a.onnx"), "llm")  # noqa: S108 - never opened
    assert "most often for want of memory" in engine_process._failure(job, -signal.SIGKILL, "")
    assert "ended with code -11 (boom)" in engine_process._failure(job, -signal.SIGSEGV, "x\nboom\n")


@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGKILL])
def test_a_stopped_build_takes_its_builder_with_it(
    toy: Toy, toy_graph: Path, tmp_path: Path, ending: signal.Signals
) -> None:
    job = tmp_path / "job.json"
    graph = tmp_path / "toy.onnx"
    graph.write_bytes(toy_graph.read_bytes())
    work = job_of(graph, "toy", profiles_of(toy.spec, toy.axes))
    job.write_text(json.dumps(work.to_json()))
    script = (
        # a shell's background jobs ignore interrupts, and what they start does too
        "import json, signal, sys\nsignal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "from mgcc_export.tensorrt.process import run_engine_job\n"
        "from mgcc_export.tensorrt.builder import EngineJob\n"
        f"run_engine_job(EngineJob.from_json(json.load(open({str(job)!r}))))"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    process = subprocess.Popen([sys.executable, "-c", script], env=environment, stderr=subprocess.DEVNULL)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    end = time.monotonic() + 60
    while not (found := children.read_text().split() if children.exists() else []):
        assert time.monotonic() < end and process.poll() is None
        time.sleep(0.02)
    assert all(map(_runs, found))
    process.send_signal(ending)
    process.wait(60)
    end = time.monotonic() + 30
    while any(map(_runs, found)):
        assert time.monotonic() < end, "the builder goes on alone"
        time.sleep(0.05)
    assert not Path(work.engine).exists()  # it was ended, and did not just come to its end


def _runs(pid: str) -> bool:
    """Whether a process does: an orphan that has ended stays listed until the system's first process asks."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_the_builder_imports_no_torch() -> None:
    """A Jetson without torch builds its engines with it, and a large build has no memory to spare."""
    code = (
        "import sys, mgcc_export.device_build; print(*[n for n in ('torch', 'onnx', 'mgcc_ref') if n in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def test_profiles_come_from_the_contract() -> None:
    axes = DIMENSIONS.axes
    assert profiles_of(stage(DIMENSIONS, "unet"), axes) == ()
    (only,) = profiles_of(stage(DIMENSIONS, "grounder"), axes)
    ends = (axes["S"].minimum, axes["S"].optimum, axes["S"].maximum)
    assert only["context_mask"] == tuple((1, n) for n in ends)
    prefill, decode = profiles_of(stage(DIMENSIONS, "llm"), axes)
    assert decode["inputs_embeds"] == ((1, 1, DIMENSIONS.hidden),) * 3
    assert decode["past_key_values.0.key"] == prefill["past_key_values.0.key"]


def test_the_equivalent_command_names_all_shapes() -> None:
    profiles = profiles_of(stage(DIMENSIONS, "grounder"), DIMENSIONS.axes)
    rtx = command_of(job_of(Path("grounder.onnx"), "grounder", profiles))
    width, most = DIMENSIONS.features, DIMENSIONS.axes["S"].maximum
    assert rtx[:3] == ["tensorrt_rtx", "--onnx=grounder.onnx", "--saveEngine=grounder.engine"]
    assert f"--maxShapes=context_features:1x{most}x{width},context_mask:1x{most}" in rtx
    jetson = command_of(
        job_of(Path("llm.onnx"), "llm", profiles_of(stage(DIMENSIONS, "llm"), DIMENSIONS.axes), "tensorrt")
    )
    assert rtx[-1].startswith("# grounder.onnx is in DIR of the same build with --target ort-gpu --stages grounder")
    assert "#" not in " ".join(jetson), "whoever builds on a device has the graphs"
    assert jetson[0] == "trtexec" and {"--stronglyTyped", "--noTF32"} <= {*jetson} and "--profile=1" in jetson
