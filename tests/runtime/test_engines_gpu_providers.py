"""Which of ONNX Runtime's providers a GPU bundle runs on, and what is said when it is the CPU."""

import logging

import onnx
import pytest

from mgcc_runtime.contract import stage
from mgcc_runtime.engines import EngineOptions, open_session
from mgcc_runtime.engines.onnxruntime_gpu import CPU, _warn, choose_providers
from tests.runtime.golden_data import example_inputs
from tests.runtime.tiny_bundle import DIMENSIONS, make_stage


@pytest.mark.parametrize(
    ("installed", "chosen"),
    [
        ((CPU,), (CPU,)),
        (("CUDAExecutionProvider", CPU), ("CUDAExecutionProvider", CPU)),
        (
            ("TensorrtExecutionProvider", "CUDAExecutionProvider", CPU),
            ("TensorrtExecutionProvider", "CUDAExecutionProvider", CPU),
        ),
        (
            (CPU, "CUDAExecutionProvider", "NvTensorRTRTXExecutionProvider", "AzureExecutionProvider"),
            ("NvTensorRTRTXExecutionProvider", "CUDAExecutionProvider", CPU),
        ),
    ],
)
def test_the_fastest_comes_first_and_the_cpu_last(installed, chosen):
    assert choose_providers(installed) == chosen


def test_without_a_gpu_it_runs_on_the_cpu_and_says_so_once(tmp_path, caplog, monkeypatch):
    monkeypatch.setattr("onnxruntime.get_available_providers", lambda: ["AzureExecutionProvider", CPU])
    _warn.cache_clear()
    spec = stage(DIMENSIONS, "vae_decoder")
    onnx.save(make_stage(spec, DIMENSIONS), tmp_path / "vae_decoder.onnx")
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            session = open_session("onnxruntime_gpu", tmp_path / "vae_decoder.onnx", spec, EngineOptions())
            assert session.run(example_inputs(spec.inputs))["image"].shape == (1, 3, 32, 32)
            session.close()
    (record,) = caplog.records
    assert "has no GPU provider here and runs it on the CPU" in record.getMessage()
    assert "mgcc-edge[gpu]" in record.getMessage()
