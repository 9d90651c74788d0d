"""The engine runs real graphs; what does not fit the contract is named."""

import subprocess
import sys
import time

import numpy as np
import onnx
import pytest

from mgcc_runtime.contract import stage
from mgcc_runtime.engines import EngineOptions, KeptTensor, open_session, translate
from mgcc_runtime.errors import ClosedError, ContractError, EngineError, StageMemoryError, StageValueError
from tests.runtime.golden_data import example_inputs
from tests.runtime.tiny_bundle import DIMENSIONS, Graph, assemble, cache_names, make_stage

ONE_THREAD = EngineOptions(threads=1)


@pytest.fixture
def open_stage(tmp_path):
    """Opens a stage by name, from its own graph or the one given."""

    def open_it(name, model=None, spec_name=None):
        spec = stage(DIMENSIONS, spec_name or name)
        path = tmp_path / f"{name}.onnx"
        onnx.save(model or make_stage(stage(DIMENSIONS, name), DIMENSIONS), path)
        return open_session("onnxruntime", path, spec, ONE_THREAD)

    return open_it


def vae_graph(change):
    """A vae_decoder whose image passes through `change(graph, name) -> name`."""
    g = Graph(np.random.default_rng(0))
    kernel = g.const(g.rng.normal(0, 1, (2, 3, 8, 8)))
    g.op("Identity", change(g, g.op("ConvTranspose", "latents", kernel, strides=[8, 8])), out="image")
    return assemble(stage(DIMENSIONS, "vae_decoder"), g)


def with_work_for_two(g, name):
    """A product so large that ONNX Runtime shares it among threads."""
    mean = g.op("ReduceMean", name, keepdims=0)
    wide = g.op("Expand", mean, g.const(np.array([512, 512]), np.int64))
    product = g.op("MatMul", wide, wide)
    return g.op("Add", name, g.op("ReduceMean", product, keepdims=0))


def test_agrees_with_onnx_reference(open_stage):
    session = open_stage("unet")
    feeds = example_inputs(session.spec.inputs)
    model = make_stage(session.spec, DIMENSIONS)
    expected = onnx.reference.ReferenceEvaluator(model).run(None, feeds)[0]
    np.testing.assert_allclose(session.run(feeds)["prediction"], expected, rtol=1e-5, atol=1e-5)


def test_kept_outputs_feed_the_next_call(open_stage):
    session = open_stage("llm")
    names = cache_names(DIMENSIONS)
    feeds = example_inputs(session.spec.inputs)
    first = session.run(feeds, keep=[present for _, present in names])
    assert set(first.arrays) == {"logits", "hidden_states"}
    kept = first.kept[names[0][1]]
    assert isinstance(kept, KeptTensor)
    assert kept.shape == (1, 2, 8, 8)
    copied = session.run(feeds)
    np.testing.assert_array_equal(kept.numpy(), copied[names[0][1]])
    grown = {"inputs_embeds": feeds["inputs_embeds"], **{past: first.kept[present] for past, present in names}}
    by_copy = {"inputs_embeds": feeds["inputs_embeds"], **{past: copied[present] for past, present in names}}
    np.testing.assert_array_equal(session.run(grown)["logits"], session.run(by_copy)["logits"])


def test_threads_rest_after_a_run(tmp_path):
    """Left to itself ONNX Runtime's thread spins for 40 ms and more behind each run, and takes a core meanwhile."""
    spec = stage(DIMENSIONS, "vae_decoder")
    onnx.save(vae_graph(with_work_for_two), tmp_path / "vae_decoder.onnx")
    session = open_session("onnxruntime", tmp_path / "vae_decoder.onnx", spec, EngineOptions(threads=2))
    feeds, spent_s = example_inputs(spec.inputs), []
    for _ in range(5):
        time.sleep(0.1)  # for threads of other sessions in this process
        session.run(feeds)
        before_s = time.process_time()
        time.sleep(0.05)
        spent_s.append(time.process_time() - before_s)
    assert min(spent_s) < 0.005


def test_missing_and_unknown_inputs(open_stage):
    session = open_stage("vae_decoder")
    with pytest.raises(ContractError, match="stage vae_decoder got no latents and unknown latent, expected the inputs"):
        session.run({"latent": np.zeros((1, 2, 4, 4), np.float32)})


@pytest.mark.parametrize("value", [np.zeros((1, 2, 4, 5), np.float32), np.zeros((1, 2, 4, 4)), np.zeros(3, np.float32)])
def test_wrong_shape_or_type(open_stage, value):
    with pytest.raises(ContractError, match=r"input latents of stage vae_decoder is .*expected float32 \(1, 2, 4, 4\)"):
        open_stage("vae_decoder").run({"latents": value})


def test_dynamic_axes_must_agree(open_stage):
    session = open_stage("grounder")
    feeds = {"context_features": np.zeros((1, 5, 16), np.float32), "context_mask": np.ones((1, 4), np.bool_)}
    with pytest.raises(ContractError, match=r"context_mask of stage grounder is bool \(1, 4\), .* with S = 5"):
        session.run(feeds)


@pytest.mark.parametrize(("constant", "operation"), [(np.nan, "Add"), (np.inf, "Mul")])
def test_nan_and_infinity_name_the_stage(open_stage, constant, operation):
    session = open_stage("vae_decoder", vae_graph(lambda g, x: g.op(operation, x, g.const(constant))))
    with pytest.raises(StageValueError, match="stage vae_decoder gave 3072 values of NaN or infinity of 3072"):
        session.run(example_inputs(session.spec.inputs))


def test_output_of_another_shape(open_stage):
    def widen(g, x):  # its length is not known before it runs
        width = g.op("Add", g.op("Cast", g.op("ReduceMax", "latents", keepdims=0), to=7), g.const(31, np.int64))
        shape = g.op("Concat", g.ints(1, 3, 32), g.op("Reshape", width, g.ints(1)), axis=0)
        return g.op("Expand", g.op("Slice", x, g.ints(0), g.ints(1), g.ints(3)), shape)

    session = open_stage("vae_decoder", vae_graph(widen))
    assert session.run({"latents": np.full((1, 2, 4, 4), 1.5, np.float32)})["image"].shape == (1, 3, 32, 32)
    with pytest.raises((ContractError, EngineError), match="vae_decoder"):
        session.run({"latents": np.full((1, 2, 4, 4), 3.5, np.float32)})


def test_out_of_memory_while_running(open_stage):
    """A graph that really asks for 3 TB."""

    def expand(g, x):
        return g.op("ReduceMax", g.op("Expand", x, g.ints(2**28, 3, 32, 32)), g.ints(0), keepdims=1)

    session = open_stage("vae_decoder", vae_graph(expand))
    with pytest.raises(StageMemoryError, match="stage vae_decoder ran out of memory"):
        session.run(example_inputs(session.spec.inputs))


def test_out_of_memory_in_other_words():
    for error in (MemoryError(), RuntimeError("std::bad_alloc"), RuntimeError("CUDA error: out of memory")):
        assert isinstance(translate(error, "unet", "run"), StageMemoryError)
    assert not isinstance(translate(RuntimeError("no kernel"), "unet", "run"), StageMemoryError)


def test_file_of_another_stage(open_stage):
    with pytest.raises(ContractError, match=r"has the inputs latents, the stage refiner has image_features"):
        open_stage("vae_decoder", spec_name="refiner")


def test_graph_with_another_width(tmp_path):
    from dataclasses import replace

    other = replace(DIMENSIONS, latent_channels=3)
    onnx.save(make_stage(stage(other, "vae_decoder"), other), tmp_path / "v.onnx")
    with pytest.raises(ContractError, match=r"input latents of .*v\.onnx is tensor\(float\) \(1, 3, 4, 4\)"):
        open_session("onnxruntime", tmp_path / "v.onnx", stage(DIMENSIONS, "vae_decoder"), ONE_THREAD)


def test_file_that_is_no_graph(tmp_path):
    (tmp_path / "x.onnx").write_bytes(b"not a graph")
    with pytest.raises(EngineError, match="stage refiner cannot be opened"):
        open_session("onnxruntime", tmp_path / "x.onnx", stage(DIMENSIONS, "refiner"), ONE_THREAD)


def test_closed_session(open_stage):
    session = open_stage("vae_decoder")
    session.close()
    session.close()
    with pytest.raises(ClosedError, match="stage vae_decoder is closed"):
        session.run(example_inputs(session.spec.inputs))


def test_engine_that_is_not_installed(bundle_path):
    """In a process where onnxruntime cannot be imported."""
    code = (
        "import sys; sys.modules['onnxruntime'] = None\n"
        "from mgcc_runtime import Pipeline, MgccError\n"
        f"try: Pipeline.load({str(bundle_path)!r})\n"
        "except MgccError as e: print(e)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "cannot be imported" in done.stdout
    assert "pip install 'mgcc-edge[cpu]'" in done.stdout
