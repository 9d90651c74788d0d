"""Opening a TensorRT engine: what is refused before a byte of it is read, how it is read, and what is kept."""

from __future__ import annotations

import json
import sys
import tracemalloc

import numpy as np
import pytest

from mgcc_runtime.contract import stages
from mgcc_runtime.device import cuda_driver
from mgcc_runtime.engines.tensorrt import kernel_cache, loading
from mgcc_runtime.engines.tensorrt.features import Feature, features
from mgcc_runtime.engines.tensorrt.loading import specialisation
from mgcc_runtime.engines.tensorrt.record import ProfileRecord, read_record, record_path
from mgcc_runtime.engines.tensorrt.validity import RTX_LEAVES_OUT
from mgcc_runtime.errors import BundleError, ContractError, EngineError
from tests.runtime import host_tensorrt
from tests.runtime.engine_makers import open_it, write_plan
from tests.runtime.golden_data import example_inputs
from tests.runtime.releases import RELEASES, TENSORRT, TENSORRT_RTX
from tests.runtime.shaped import played
from tests.runtime.tiny_bundle import DIMENSIONS, cache_names

LIBRARIES = ("tensorrt", "tensorrt_rtx")
NAMES = {"tensorrt": "TensorRT", "tensorrt_rtx": "TensorRT-RTX"}
NEWEST = (TENSORRT[-1], TENSORRT_RTX[-1])


def test_another_version_is_refused_before_loading(host, tmp_path, release):
    path = write_plan(tmp_path, "vae_decoder", release, version="9.8.6")
    told = rf"built by {NAMES[release.library]} 9\.8\.6, this machine has {release.version}.*build_engines\.py"
    with pytest.raises(BundleError, match=told):
        open_it(path, release)
    assert not host.blocks


def test_another_platform_is_refused(host, tmp_path, release):
    path = write_plan(tmp_path, "vae_decoder", release, platform="linux-riscv64")
    with pytest.raises(BundleError, match="built for linux-riscv64, this machine is"):
        open_it(path, release)


@pytest.mark.parametrize(
    ("release", "capability", "message"),
    [
        *((r, "8.7", r"compute capability 8\.7, .* has 8\.9; rebuild it on this device") for r in TENSORRT),
        *((r, "12.0", r"from compute capability 12\.0 on, .* has 8\.9; use a newer GPU") for r in TENSORRT_RTX),
    ],
    ids=str,
    indirect=["release"],
)
def test_another_gpu_is_refused(host, tmp_path, release, capability, message):
    path = write_plan(tmp_path, "vae_decoder", release, compute_capability=capability)
    with pytest.raises(BundleError, match=message):
        open_it(path, release)


@pytest.mark.parametrize("release", TENSORRT_RTX, ids=str, indirect=True)
@pytest.mark.parametrize("capability", sorted(RTX_LEAVES_OUT))
def test_a_gpu_that_tensorrt_rtx_leaves_out_is_named(host, tmp_path, release, capability):
    """An H200 is newer than what the record asks for, and rebuilding helps nothing."""
    host.capability = tuple(int(n) for n in capability.split("."))
    message = (
        rf"compiles no kernels for the compute capability {capability} of .* --target tensorrt or --target ort-gpu"
    )
    with pytest.raises(BundleError, match=message):
        open_it(write_plan(tmp_path, "vae_decoder", release), release)
    assert not release.has(f"ComputeCapability.SM{capability.replace('.', '')}")
    assert release.has("ComputeCapability.SM89")


@pytest.mark.parametrize("release", TENSORRT_RTX, ids=str, indirect=True)
def test_compute_capabilities_are_numbers_not_texts(host, tmp_path, release):
    """12.0 is newer than 8.9, though the text comes before."""
    host.capability = (12, 0)
    open_it(write_plan(tmp_path, "vae_decoder", release, compute_capability="8.9"), release).close()


@pytest.mark.parametrize("release", TENSORRT_RTX, ids=str, indirect=True)
def test_the_header_is_asked_about(host, tmp_path, release, monkeypatch):
    kinds = sys.modules[release.library].EngineInvalidityDiagnostics
    bad = int(kinds.VERSION_MISMATCH) | int(kinds.OLD_CUDA_DRIVER)
    monkeypatch.setattr(host_tensorrt.HostRuntime, "diagnosis", bad)
    with pytest.raises(BundleError, match="another TensorRT-RTX version and the CUDA driver is too old"):
        open_it(write_plan(tmp_path, "vae_decoder", release), release)


def test_an_engine_without_its_record_is_refused(host, tmp_path, release):
    path = write_plan(tmp_path, "vae_decoder", release)
    record_path(path).unlink()
    with pytest.raises(BundleError, match=r"has no record vae_decoder\.engine\.json"):
        open_it(path, release)


@pytest.mark.parametrize("change", [{"schema": 2}, {"profiles": 3}, {"inputs": [{"name": "x"}]}])
def test_a_record_of_another_form_is_refused(host, tmp_path, release, change):
    path = write_plan(tmp_path, "vae_decoder", release)
    values = json.loads(record_path(path).read_text()) | change
    record_path(path).write_text(json.dumps(values))
    with pytest.raises(BundleError, match="engine record"):
        open_it(path, release)


@pytest.mark.parametrize(
    ("release", "way_out"),
    [(NEWEST[0], r"comes with JetPack .*python3-libnvinfer"), (NEWEST[1], r"pip install 'mgcc-edge\[rtx\]'")],
    ids=str,
    indirect=["release"],
)
def test_a_missing_library_is_named_with_the_way_to_get_it(host, tmp_path, monkeypatch, release, way_out):
    library = release.library
    monkeypatch.setitem(sys.modules, library, None)
    needs = rf"stage vae_decoder needs the engine {library}, whose package {library} cannot be imported .*{way_out}"
    with pytest.raises(EngineError, match=needs) as caught:
        open_it(write_plan(tmp_path, "vae_decoder", release), release)
    assert "\n" not in str(caught.value) and "mgcc verify" not in str(caught.value)


@pytest.mark.parametrize(
    ("release", "named"),
    [(a, b) for a in NEWEST for b in ("a_module_of_the_bundle", *LIBRARIES) if a.library != b],
    ids=str,
    indirect=["release"],
)
def test_only_the_library_that_the_manifest_names_is_imported(host, tmp_path, monkeypatch, release, named):
    library = release.library
    (tmp_path / "a_module_of_the_bundle.py").write_text("raise SystemExit('imported')")
    monkeypatch.syspath_prepend(tmp_path)
    path = write_plan(tmp_path, "vae_decoder", release)
    record_path(path).write_text(json.dumps(json.loads(record_path(path).read_text()) | {"library": named}))
    monkeypatch.setitem(sys.modules, library, None)  # neither is that one, before the record fits
    with pytest.raises(BundleError, match=rf"built by '{named}' as its record says, the manifest names {library};"):
        open_it(path, release)


@pytest.mark.parametrize("release", TENSORRT[-1:], ids=str, indirect=True)
def test_a_container_without_the_dla_compiler_says_what_to_do(host, tmp_path, monkeypatch, release):
    """JetPack 7.2's containers: the library is there, and one that it is linked to is not."""
    (tmp_path / "tensorrt.py").write_text(
        "raise ImportError('libnvdla_compiler.so: cannot open shared object file: No such file or directory')"
    )
    monkeypatch.delitem(sys.modules, "tensorrt")
    monkeypatch.syspath_prepend(tmp_path)
    path = write_plan(tmp_path, "vae_decoder", release)
    with pytest.raises(EngineError, match=r"libnvdla_compiler\.so.*apt install nvidia-l4t-dla-compiler.*L4T R39"):
        open_it(path, release)


def test_no_driver_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setattr(cuda_driver, "_LIBRARIES", ("libno-such-driver.so",))
    cuda_driver.driver.cache_clear()
    with pytest.raises(EngineError, match="has no CUDA driver"):
        cuda_driver.driver()


def test_the_narrowest_profile_is_taken(host, tmp_path, release):
    session = open_it(write_plan(tmp_path, "llm", release), release, "llm")
    engine, feeds = session._engine, example_inputs(session.spec.inputs)
    assert engine._profile_for(feeds) == 0
    assert engine._profile_for(feeds | {"inputs_embeds": feeds["inputs_embeds"][:, :1]}) == 1
    contexts = [context._context for context in engine._engine.contexts]
    assert [context.active_optimization_profile for context in contexts] == [0, 1]
    session.close()


def test_a_shape_outside_of_every_profile_is_refused(host, tmp_path, release):
    session = open_it(write_plan(tmp_path, "grounder", release), release, "grounder")
    long = DIMENSIONS.axes["S"].maximum + 1
    feeds = {
        "context_features": np.zeros((1, long, DIMENSIONS.features), np.float32),
        "context_mask": np.ones((1, long), np.bool_),
    }
    with pytest.raises(ContractError, match=r"context_features \(1, \d+, \d+\).*outside of every profile"):
        session.run(feeds)
    session.close()


@pytest.mark.parametrize("release", TENSORRT_RTX, ids=str, indirect=True)
class TestKernels:
    """Kernels that were compiled on the device."""

    def kept(self, tmp_path):
        folder = tmp_path / "cache" / "kernels"
        return [p.read_bytes()[32:] for p in folder.iterdir()] if folder.exists() else []

    def test_they_are_kept_after_first_use(self, host, tmp_path, release):
        """A kiosk's power is cut: nothing is ever closed."""
        session = open_it(write_plan(tmp_path, "vae_decoder", release), release)
        assert self.kept(tmp_path) == []
        session.run(example_inputs(session.spec.inputs))
        assert self.kept(tmp_path) == [b"kernel"]
        session.close()

    def test_those_of_the_last_start_are_used(self, host, tmp_path, release, monkeypatch):
        path, added = write_plan(tmp_path, "vae_decoder", release), []
        for _ in range(2):
            session = open_it(path, release)
            cache = played(session._engine._engine.kernels._cache)
            session.run(example_inputs(session.spec.inputs))
            added.append(cache.compiled)
            session.close()
        assert added == [1, 0] and self.kept(tmp_path) == [b"kernel"]

    def test_nothing_is_written_while_nothing_is_new(self, host, tmp_path, release, monkeypatch):
        written = []
        monkeypatch.setattr(kernel_cache, "write_atomically", lambda path, data: written.append(data[32:]))
        session = open_it(write_plan(tmp_path, "vae_decoder", release), release)
        for _ in range(100):
            session.run(example_inputs(session.spec.inputs))
        session.close()
        assert written == [b"kernel"]

    def test_what_comes_in_the_background_is_kept_too(self, host, tmp_path, release):
        session = open_it(write_plan(tmp_path, "vae_decoder", release), release)
        feeds = example_inputs(session.spec.inputs)
        session.run(feeds)
        played(session._engine._engine.kernels._cache).kernels.append(b"specialised")
        for _ in range(8):
            session.run(feeds)
        assert self.kept(tmp_path) == [b"kernel|specialised"]
        session.close()

    def test_a_decode_steps_kernels_are_kept(self, host, tmp_path, release):
        """They are those of another profile, which the reading of a prompt does not use."""
        session = open_it(write_plan(tmp_path, "llm", release), release, "llm")
        names, runs = cache_names(DIMENSIONS), []
        session._engine._engine.kernels.used = lambda: runs.append(1)
        feeds = example_inputs(session.spec.inputs)
        kept = session.run(feeds, keep=[p for _, p in names]).kept
        step = {"inputs_embeds": feeds["inputs_embeds"][:, :1]}
        session.run(step | {past: kept[p] for past, p in names}, keep=[p for _, p in names])
        assert len(runs) == 2
        session.close()

    @pytest.mark.parametrize("damage", [lambda b: b[:-1], lambda b: b"", lambda b: bytes(32) + b[32:]])
    def test_half_a_file_is_not_given_to_native_code(self, host, tmp_path, release, damage, monkeypatch):
        path = write_plan(tmp_path, "vae_decoder", release)
        session = open_it(path, release)
        session.run(example_inputs(session.spec.inputs))
        session.close()
        (file,) = (tmp_path / "cache" / "kernels").iterdir()
        file.write_bytes(damage(file.read_bytes()))
        monkeypatch.setattr(host_tensorrt.HostRuntimeCache, "deserialize", lambda self, blob: pytest.fail("given"))
        session = open_it(path, release)
        session.run(example_inputs(session.spec.inputs))
        session.close()
        assert self.kept(tmp_path) == [b"kernel"]


def test_an_engine_is_not_in_memory_twice(host, tmp_path, release, monkeypatch):
    """On a Jetson the file's copy would be in the one memory that the GPU has too."""
    path = write_plan(tmp_path, "vae_decoder", release)
    size = 32 * 2**20
    with path.open("ab") as file:
        file.write(bytes(size))
    peaks = []

    def load(self, serialized_engine=None, stream_reader=None, stream_reader_v2=None):
        if stream_reader_v2 is not None:
            stream_reader_v2.seek(0, sys.modules[release.library].SeekPosition.SET)
            for _ in range(2):
                assert len(memoryview(stream_reader_v2.read(size // 2, 0))) == size // 2
        else:
            assert len(memoryview(serialized_engine)) > size
        peaks.append(tracemalloc.get_traced_memory()[1])

    load_plan = loading._load

    def measured(*given):
        tracemalloc.reset_peak()  # reading the record is another matter
        return load_plan(*given)

    monkeypatch.setattr(loading, "_load", measured)
    monkeypatch.setattr(host_tensorrt.HostRuntime, "deserialize_cuda_engine", load)
    tracemalloc.start()
    try:
        with pytest.raises(BundleError, match="cannot be loaded by"):
            open_it(path, release)
    finally:
        tracemalloc.stop()
    assert peaks[0] < size / 8


@pytest.mark.parametrize(
    "release", [r for r in RELEASES if Feature.STREAM_READER in features(r.library, r.version)], ids=str, indirect=True
)
def test_an_engine_is_read_as_a_stream_where_the_release_can(host, tmp_path, release, monkeypatch):
    seen = []
    load = host_tensorrt.HostRuntime.deserialize_cuda_engine

    def watched(self, **given):
        seen.extend(given)
        return load(self, **given)

    monkeypatch.setattr(host_tensorrt.HostRuntime, "deserialize_cuda_engine", watched)
    open_it(write_plan(tmp_path, "vae_decoder", release), release).close()
    assert seen == ["stream_reader_v2"]


def test_an_empty_file_is_refused(host, tmp_path, release):
    path = write_plan(tmp_path, "vae_decoder", release)
    path.write_bytes(b"")
    with pytest.raises(BundleError, match=r"engine .*vae_decoder\.engine is empty"):
        open_it(path, release)


def test_no_token_waits_for_kernels_of_its_own_shape():
    """EAGER, the strategy of graphs, compiles in a blocking way for every new shape, and a cache has one each token."""
    found = {s.name: specialisation(s) for s in stages(DIMENSIONS)}
    assert found["llm"] == "NONE"
    assert {found[name] for name in ("unet", "vae_decoder")} == {"EAGER"}
    assert {found[name] for name in ("grounder", "refiner", "vision_encoder")} == {"LAZY"}


def test_profiles_know_their_lengths():
    profile = ProfileRecord({"x": ((1, 1, 4), (1, 8, 4), (1, 16, 4))})
    assert profile.holds("x", (1, 16, 4)) and not profile.holds("x", (1, 17, 4)) and profile.holds("y", (9,))
    assert profile.spread == 16


def test_records_survive_json(host, tmp_path, release):
    record = read_record(write_plan(tmp_path, "llm", release))
    assert record == type(record).from_json(json.loads(json.dumps(record.to_json())))
