"""What is known of TensorRT's releases: the table of features, and the stand-in that is shaped by them."""

from __future__ import annotations

import inspect
import json
import sys
from pathlib import Path

import pytest

from mgcc_runtime.contract import stages
from mgcc_runtime.engines.tensorrt.features import OFFERS, Feature, features, release_of
from mgcc_runtime.engines.tensorrt.loading import specialisation
from mgcc_runtime.engines.tensorrt.validity import _DIAGNOSES
from mgcc_runtime.errors import EngineError
from tests.packages import needs
from tests.runtime import host_builder, host_tensorrt
from tests.runtime.engine_makers import open_it, write_plan
from tests.runtime.releases import RELEASES, TENSORRT, TENSORRT_RTX, Overload
from tests.runtime.tiny_bundle import DIMENSIONS

#: What plays an object of each class.
PLAYERS = {
    "Runtime": host_tensorrt.HostRuntime,
    "ICudaEngine": host_tensorrt.HostEngine,
    "IExecutionContext": host_tensorrt.HostContext,
    "IRuntimeConfig": host_tensorrt.HostRuntimeConfig,
    "IRuntimeCache": host_tensorrt.HostRuntimeCache,
    "Builder": host_builder.HostBuilder,
    "INetworkDefinition": host_builder.HostNetwork,
    "IBuilderConfig": host_builder.HostBuilderConfig,
    "IOptimizationProfile": host_builder.HostProfile,
    "ITimingCache": host_builder.HostTimingCache,
    "OnnxParser": host_builder.HostParser,
}


def test_the_releases_of_every_jetpack_are_known():
    found = [str(r) for r in RELEASES]
    assert found == [
        "tensorrt-10.3.0", "tensorrt-10.7.0", "tensorrt-10.13.3.9", "tensorrt-10.16.1.11", "tensorrt-11.0.0.114",
        "tensorrt-11.4.0.106", "tensorrt_rtx-1.7.1",
    ]  # fmt: skip


@pytest.mark.parametrize("known", RELEASES, ids=str)
@pytest.mark.parametrize("feature", Feature)
def test_a_release_has_a_features_names_where_the_table_says_so(known, feature):
    """All of them: what has half of them (TensorRT's `create_runtime_config`) is what broke every session."""
    has = all(known.has(name) for name in OFFERS[feature].names)
    assert has is (feature in features(known.library, known.version))


def test_a_later_release_keeps_what_is_known():
    assert Feature.STREAM_READER in features("tensorrt", "12.1.0") and not features("tensorrt", "10.4.0.26")
    assert features("tensorrt_rtx", "1.8") == {*Feature} and release_of("10.13.3.9") == (10, 13)


@pytest.mark.parametrize("known", TENSORRT_RTX, ids=str)
def test_the_words_that_are_told_from_data_exist(known):
    assert all(known.has(f"EngineInvalidityDiagnostics.{word}") for word in _DIAGNOSES)
    strategies = {specialisation(s) for s in stages(DIMENSIONS)}
    assert all(known.has(f"DynamicShapesKernelSpecializationStrategy.{word}") for word in strategies)


@pytest.mark.parametrize("known", RELEASES, ids=str)
def test_all_signatures_can_be_read(known):
    """Arguments are counted, and kinds are words: a comma in a default or a type would split one."""
    for facts in known.classes.values():
        for told in facts.get("members", {}).values():
            for text in told if isinstance(told, list) else ():
                arguments = Overload.parse(text).arguments
                assert all(a.name.isidentifier() and a.kind for a in arguments), text


def library(release):
    return sys.modules[release.library]


def test_a_class_has_the_releases_members_and_no_others(host, release):
    for name, facts in release.classes.items():
        cls = getattr(library(release), name)
        if "enumeration" in facts:
            assert {n: int(m) for n, m in cls.__members__.items()} == facts["enumeration"]
        elif name != "IHostMemory":  # has a buffer as well, which only C can give
            inherited = {n for base in cls.__mro__[1:] for n in vars(base)}
            found = {n for n in (*vars(cls), *inherited) if not n.startswith("_")}
            assert found == {n for n in facts["members"] if not n.startswith("_")}, name
    absent = {c for r in RELEASES for c in r.classes} - {*release.classes}
    assert not [c for c in absent if hasattr(library(release), c)]


@pytest.mark.parametrize("name", PLAYERS)
def test_the_stand_in_plays_nothing_that_no_release_has(name):
    known = {member for r in RELEASES for member in r.classes.get(name, {"members": ()})["members"]}
    methods = {n for n, _ in inspect.getmembers(PLAYERS[name], inspect.isroutine) if not n.startswith("_")}
    own = {"compile", "add"}  # what the stand-in's classes do to each other
    assert methods - own <= known, methods - own - known


def make_engine(release, tmp_path):
    trt = library(release)

    class Quiet(trt.ILogger):
        def __init__(self):
            trt.ILogger.__init__(self)

        def log(self, severity, msg):
            pass

    plan = write_plan(tmp_path, "unet", release).read_bytes()
    return trt.Runtime(Quiet()).deserialize_cuda_engine(plan)


def test_what_a_release_lacks_is_an_attribute_error(host, release, tmp_path):
    engine = make_engine(release, tmp_path)
    for name in ("device_memory_size", "create_runtime_config"):
        assert hasattr(engine, name) is release.has(f"ICudaEngine.{name}")
    with pytest.raises(AttributeError):
        engine.get_binding_index  # noqa: B018 - of TensorRT 8
    with pytest.raises(AttributeError):
        engine.a_field_of_ours = 1
    with pytest.raises(AttributeError):
        engine.device_memory_size_v2 = 1  # read only


def test_what_a_release_does_not_take_is_a_type_error(host, release, tmp_path):
    trt, engine = library(release), make_engine(release, tmp_path)
    context = engine.create_execution_context(trt.ExecutionContextAllocationStrategy.USER_MANAGED)
    assert context.set_input_shape(name="timestep", shape=(1,))
    for call in (
        lambda: context.set_input_shape("timestep"),
        lambda: context.set_input_shape("timestep", (1,), 3),
        lambda: context.set_input_shape(name="timestep", dims=(1,)),
        lambda: context.set_tensor_address("timestep", "0x1000"),
        lambda: context.set_tensor_address("timestep", 1.5),
        lambda: engine.create_execution_context("USER_MANAGED"),
        lambda: engine.create_execution_context(3),
        lambda: trt.Runtime(object()),
        trt.ICudaEngine,
    ):
        with pytest.raises(TypeError):
            call()


def test_the_librarys_own_logger_is_one(host, release):
    trt = library(release)
    assert trt.Logger.ERROR is trt.ILogger.Severity.ERROR
    trt.Runtime(trt.Logger(trt.Logger.ERROR))


def test_a_logger_whose_base_was_not_made_is_refused(host, release):
    class Forgetful(library(release).ILogger):
        def __init__(self):
            pass

    with pytest.raises(TypeError):
        library(release).Runtime(Forgetful())


@pytest.mark.parametrize("release", TENSORRT, ids=str, indirect=True)
def test_a_session_that_takes_tensorrt_for_tensorrt_rtx_fails(host, release, tmp_path, monkeypatch):
    """The fault that JetPack 7 showed: told by what an object has, every release from 10.11 on looked like it."""
    path = write_plan(tmp_path, "unet", release)
    open_it(path, release, "unet").close()
    rtx = features(TENSORRT_RTX[-1].library, TENSORRT_RTX[-1].version) - {Feature.HEADER_CHECK}
    for module in ("session", "loading", "decode_steps"):
        monkeypatch.setattr(f"mgcc_runtime.engines.tensorrt.{module}.features_of", lambda record: rtx)
    with pytest.raises(EngineError, match=r"has no attribute"):
        open_it(path, release, "unet")


@pytest.mark.parametrize("library_name", ["tensorrt_rtx_bindings"])
def test_the_file_of_the_installed_release_is_what_its_bindings_say(library_name, monkeypatch):
    needs("tensorrt_rtx")
    monkeypatch.syspath_prepend(Path(__file__).parents[4] / "tools")
    import read_tensorrt_api

    installed = sys.modules["tensorrt_rtx"].__version__
    known = [r for r in TENSORRT_RTX if installed.startswith(r.version)]
    if not known:
        pytest.skip(f"TensorRT-RTX {installed} has no file; run tools/read_tensorrt_api.py for it")
    found = json.loads(json.dumps(read_tensorrt_api.read_bindings(library_name)))
    assert found == known[0].classes
