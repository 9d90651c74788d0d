"""What of a denoising step goes to the GPU and comes back, and what lies there already."""

from __future__ import annotations

import numpy as np
import pytest

from mgcc_runtime.engines.tensorrt import cuda_stream
from mgcc_runtime.errors import EngineError
from tests.runtime.engine_makers import open_it, write_plan
from tests.runtime.golden_data import example_inputs


def test_latents_stay_on_the_gpu(host, tmp_path, release):
    """Of a denoising step only the timestep and the coefficients come from the host, and a single yes or no goes to it:
    the rest is the same all through a request, and lies there already.
    """
    unet, solver = (open_it(write_plan(tmp_path, n, release), release, n) for n in ("unet", "solver"))
    given = example_inputs(unet.spec.inputs)
    coefficients = np.array([0.9, -0.2, 0.4, 0.1], np.float32)
    latents = before = prediction = given["latents"]
    for step in range(6):
        host.calls.clear()
        earlier = prediction
        feeds = given | {"latents": latents, "timestep": np.array([step], np.float32)}
        prediction = unet.run(feeds, keep=["prediction"]).kept["prediction"]
        terms = {"latents.0": latents, "latents.1": before, "prediction.0": prediction, "prediction.1": earlier}
        found = solver.run({**terms, "coefficients": coefficients}, keep=["next_latents"])
        latents, before = found.kept["next_latents"], latents
        if step > 1:
            assert host.calls.count("cuMemcpyHtoDAsync_v2") == 2
            assert host.calls.count("cuMemcpyDtoHAsync_v2") == 1
            assert host.calls.count("cuGraphLaunch") == 2
    assert host.calls.count("cuMemAlloc_v2") == 0  # slabs are used again
    del latents, before, earlier, prediction, found, terms, feeds
    for session in (unet, solver):
        session.close()
    assert not host.blocks


def test_another_requests_conditioning_is_copied(host, tmp_path, release):
    session = open_it(write_plan(tmp_path, "unet", release), release, "unet")
    feeds, other = example_inputs(session.spec.inputs), example_inputs(session.spec.inputs, seed=2)
    expected = session.run(feeds)["prediction"]
    changed = feeds | {"conditioning": other["conditioning"]}
    assert not np.array_equal(session.run(changed)["prediction"], expected)
    np.testing.assert_array_equal(session.run(feeds)["prediction"], expected)
    feeds["conditioning"][0, 0, 0] += 1.0  # in the caller's own array
    assert not np.array_equal(session.run(feeds)["prediction"], expected)
    session.close()


@pytest.mark.parametrize("name", ["conditioning", "boxes"])
def test_a_copy_that_failed_is_made_again(host, tmp_path, release, monkeypatch, name):
    """What was to be copied when it failed does not count as lying there."""
    session = open_it(write_plan(tmp_path, "unet", release), release, "unet")
    feeds, other = example_inputs(session.spec.inputs), example_inputs(session.spec.inputs, seed=2)
    before, changed = session.run(feeds)["prediction"], feeds | {name: other[name]}
    upload = cuda_stream.Stream.upload

    def failing(stream, address, source, size):
        if size == changed[name].nbytes:
            raise EngineError("out of order")
        upload(stream, address, source, size)

    with monkeypatch.context() as patch:
        patch.setattr(cuda_stream.Stream, "upload", failing)
        with pytest.raises(EngineError, match="out of order"):
            session.run(changed)
    found = session.run(changed)["prediction"]
    session.close()
    fresh = open_it(write_plan(tmp_path, "unet", release), release, "unet")
    np.testing.assert_array_equal(found, fresh.run(changed)["prediction"])
    assert not np.array_equal(found, before)
    fresh.close()
