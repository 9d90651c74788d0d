"""One ONNX graph to one TensorRT or TensorRT-RTX engine, and a record of what is in it.

Runs as a process of its own (`python -m mgcc_export.tensorrt.builder JOB.json`): the builder needs three times the
weights in memory, which torch in the same process would not leave it, and its crash must not be the build's. Imports
no torch, so a Jetson can run it.
"""

from __future__ import annotations

import importlib
import json
import os
import platform
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mgcc_export.errors import EngineRefusedError, ExportError
from mgcc_export.tensorrt.settings import TimingCache
from mgcc_runtime.bundle.folder import sha256_of
from mgcc_runtime.contract import Axis, StageSpec
from mgcc_runtime.device.cuda_driver import Device
from mgcc_runtime.engines.tensorrt.features import Feature, features
from mgcc_runtime.engines.tensorrt.record import EngineRecord, LayerRecord, ProfileRecord, TensorRecord
from mgcc_runtime.machine import peak_rss_bytes
from mgcc_runtime.names import EngineName

#: (minimum, optimum, maximum) shape of each dynamic input.
Profile = Mapping[str, tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]]

#: What a portable TensorRT-RTX engine runs on: from Ampere on, as its documentation says of the default.
RTX_LEAST_SM = "8.0"
_RTX_TOOL = "tensorrt_rtx"  # TensorRT-RTX's own command
REFUSED = 3  # exit code of the builder's process for an EngineRefusedError


@dataclass(frozen=True)
class EngineJob:
    """What the process has to do; all paths absolute."""

    library: str  # the Python module: tensorrt or tensorrt_rtx
    stage: str
    onnx: str
    engine: str
    record: str
    profiles: tuple[Profile, ...]
    rebuild: str  # the command that makes the bundle again; empty: it is filled in with the bundle
    workspace_bytes: int = 0  # the most that a kernel may use for itself while it runs; 0: the library's default
    timing_cache: str = ""  # file of the times that kernels took before; empty: none is read or kept

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> EngineJob:
        profiles = tuple(
            {name: (tuple(a), tuple(b), tuple(c)) for name, (a, b, c) in profile.items()}
            for profile in values["profiles"]
        )
        return cls(**{**values, "profiles": profiles})


@dataclass(frozen=True)
class EngineBuild:
    """How a build went."""

    bytes: int
    seconds: float
    peak_memory_bytes: int
    layers: int


def profiles_of(spec: StageSpec, axes: Mapping[str, Axis]) -> tuple[Profile, ...]:
    """Optimisation profiles of a stage: the contract's lengths, and for a stage with a cache one for single steps.

    Kernels are chosen for the optimum: one chosen for a prompt of 128 positions is slow for the one position of a
    decode step.
    """
    dynamic = [t for t in spec.inputs if any(isinstance(n, str) for n in t.shape)]
    if not dynamic:
        return ()
    ends = ("minimum", "optimum", "maximum")
    lengths = [{name: getattr(axis, end) for name, axis in axes.items()} for end in ends]
    plans = [lengths]
    if any("P" in t.shape for t in dynamic):
        plans.append([{**one, "S": 1} for one in lengths])

    def shapes(plan: list[dict[str, int]]) -> Profile:
        found = {}
        for tensor in dynamic:
            low, usual, high = (tuple(n if isinstance(n, int) else at[n] for n in tensor.shape) for at in plan)
            found[tensor.name] = (low, usual, high)
        return found

    return tuple(shapes(plan) for plan in plans)


def command_of(job: EngineJob, graph: str = "") -> list[str]:
    """The same build with NVIDIA's own command line tool, for those who want to try options of theirs.

    For TensorRT-RTX but for TF32, which its tool does not document an option for. `graph` is where the ONNX file lies,
    as a shell reads it; unset: under its own name. An exporter that builds engines keeps them alone, so its command
    ends with a comment that says how to get that file.
    """
    tool = _RTX_TOOL if job.library == EngineName.TENSORRT_RTX else "trtexec"
    command = [tool, f"--onnx={graph or Path(job.onnx).name}", f"--saveEngine={Path(job.engine).name}"]
    if tool == "trtexec":
        command += ["--stronglyTyped", "--noTF32"]
    if tool == "trtexec" and job.workspace_bytes:
        command.append(f"--memPoolSize=workspace:{job.workspace_bytes // 2**20}M")
    for number, profile in enumerate(job.profiles):
        if len(job.profiles) > 1:
            command.append(f"--profile={number}")
        for option, place in (("min", 0), ("opt", 1), ("max", 2)):
            shapes = ",".join(f"{name}:{'x'.join(map(str, ends[place]))}" for name, ends in profile.items())
            command.append(f"--{option}Shapes={shapes}")
    if tool == _RTX_TOOL and not graph:
        # the graph does not depend on which GPU engine it is for, and that target's bundles have it
        command.append(
            f"# {Path(job.onnx).name} is in DIR of the same build with --target ort-gpu --stages {job.stage} --out DIR"
        )
    return command


def build_engine(job: EngineJob) -> EngineBuild:
    """Build the engine here, in this process; ExportError with the parser's or builder's own words if it cannot."""
    started = time.monotonic()
    trt = importlib.import_module(job.library)
    messages: list[str] = []
    logger = _logger(trt, messages)
    builder = trt.Builder(logger)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, logger)
    if not parser.parse_from_file(job.onnx):
        told = "; ".join(parser.get_error(i).desc() for i in range(parser.num_errors))
        raise ExportError(f"stage {job.stage}: {job.library} cannot read {job.onnx} ({told}); export it again")
    config = builder.create_builder_config()
    # on by default, it multiplies fp32 with the digits of fp16: what the graph keeps in fp32 needs the others
    config.clear_flag(trt.BuilderFlag.TF32)
    if Feature.USER_ALLOCATION in features(job.library, str(trt.__version__)):
        config.set_flag(trt.BuilderFlag.REQUIRE_USER_ALLOCATION)  # a run that allocates no CUDA graph captures
    if job.workspace_bytes:
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, job.workspace_bytes)
    times = TimingCache(config, job.timing_cache) if job.timing_cache else None
    for profile in job.profiles:
        _add_profile(builder, config, profile, job.stage)
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise _refusal(job, messages)
    if times is not None:
        times.keep()
    with Path(job.engine).open("wb") as file:
        file.write(plan)
    record = _record(trt, job, network)
    Path(job.record).write_text(json.dumps(record.to_json()) + "\n", encoding="utf-8")
    spent_s, peak = round(time.monotonic() - started, 2), peak_rss_bytes() or 0
    return EngineBuild(int(plan.nbytes), spent_s, peak, network.num_layers)


def _refusal(job: EngineJob, messages: Sequence[str]) -> ExportError:
    """The error for an engine that was not built; where memory was short, a wider graph would fail as well."""
    told = "; ".join(messages[-3:]) or "no message"
    kind = ExportError if "memory" in told.lower() else EngineRefusedError
    ways = "see --debug-stage"
    if job.workspace_bytes:
        ways += f", or give more than {job.workspace_bytes // 2**20} MiB with --workspace"
    return kind(f"stage {job.stage}: {job.library} cannot build an engine ({told}); {ways}")


def _logger(trt: Any, messages: list[str]) -> Any:
    """A logger that keeps errors for our own message; what the library says besides, no user can act on."""

    class Keeper(trt.ILogger):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)

        def log(self, severity: Any, text: str) -> None:
            if severity <= trt.ILogger.Severity.ERROR:
                messages.append(text.strip().splitlines()[0])

    return Keeper()


def _add_profile(builder: Any, config: Any, profile: Profile, stage: str) -> None:
    made = builder.create_optimization_profile()
    for name, (low, usual, high) in profile.items():
        made.set_shape(name, low, usual, high)
    if config.add_optimization_profile(made) < 0:
        raise ExportError(f"stage {stage}: the shapes {dict(profile)} are refused as a profile; correct the contract")


def _record(trt: Any, job: EngineJob, network: Any) -> EngineRecord:
    """From the network at build time: without a driver the plan cannot be read back."""
    layers = [network.get_layer(i) for i in range(network.num_layers)]
    # a TensorRT engine belongs to the kind of GPU that it was built on, TensorRT-RTX's to none
    device = None if job.library == EngineName.TENSORRT_RTX else Device.first()
    return EngineRecord(
        library=job.library,
        version=str(trt.__version__),
        platform=f"{platform.system().lower()}-{platform.machine().lower()}",
        compute_capability=RTX_LEAST_SM if device is None else device.compute_capability,
        sha256=sha256_of(Path(job.engine)),
        inputs=_tensors([network.get_input(i) for i in range(network.num_inputs)]),
        outputs=_tensors([network.get_output(i) for i in range(network.num_outputs)]),
        profiles=tuple(ProfileRecord(dict(profile)) for profile in job.profiles),
        layers=tuple(
            LayerRecord(layer.name, layer.type.name, tuple(_types(layer))) for layer in layers
        ),
        rebuild=job.rebuild,
        command=" ".join(command_of(job)),
        multiprocessors=0 if device is None else device.multiprocessors,
        gpu_memory_bytes=0 if device is None else device.memory_bytes,
    )  # fmt: skip


def _tensors(tensors: Sequence[Any]) -> tuple[TensorRecord, ...]:
    return tuple(TensorRecord(t.name, t.dtype.name.lower(), tuple(int(n) for n in t.shape)) for t in tensors)


def _types(layer: Any) -> list[str]:
    """Type of each result of a layer. Layers that compute sizes have some that cannot be asked for."""
    outputs = [layer.get_output(i) for i in range(layer.num_outputs)]
    return [o.dtype.name.lower() for o in outputs if o is not None]


def _end_with(pipe: int) -> None:
    """End this process once the other end of `pipe` is closed: TensorRT lets other threads run while it builds."""

    def wait() -> None:
        os.read(pipe, 1)
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


def main(arguments: Sequence[str]) -> int:
    """Run the job of one file; the result goes to standard output as JSON, an error's sentence to standard error.

    With a second argument, the file descriptor of a pipe, the build ends when whoever holds its other end does.
    """
    if len(arguments) > 1:
        _end_with(int(arguments[1]))
    job = EngineJob.from_json(json.loads(Path(arguments[0]).read_text(encoding="utf-8")))
    try:
        done = build_engine(job)
    except (ExportError, ImportError) as error:
        sys.stderr.write(f"{error}\n")
        return REFUSED if isinstance(error, EngineRefusedError) else 1
    sys.stdout.write(f"\n{json.dumps(asdict(done))}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
