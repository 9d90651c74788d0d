"""The building side of the TensorRT of host_tensorrt.py: an ONNX graph is checked, and is the engine."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import onnx

#: TensorRT's names of the types that graphs have at their boundary.
_TYPES = {"FLOAT": "FLOAT", "FLOAT16": "HALF", "BOOL": "BOOL", "INT64": "INT64", "INT32": "INT32"}


class HostNetwork:
    """A network: the graph that a parser read into it."""

    def __init__(self, module: ModuleType, flags: int) -> None:
        self.module, self.flags = module, flags
        self.model: onnx.ModelProto | None = None

    @property
    def num_layers(self) -> int:
        return len(self._graph.node)

    @property
    def num_inputs(self) -> int:
        return len(self._graph.input)

    @property
    def num_outputs(self) -> int:
        return len(self._graph.output)

    def get_layer(self, index: int) -> Any:
        node = self._graph.node[index]
        kind = self.module.LayerType.MATRIX_MULTIPLY if node.op_type == "MatMul" else self.module.LayerType.ELEMENTWISE
        outputs = [SimpleNamespace(name=name, dtype=self.module.DataType.HALF) for name in node.output]
        return SimpleNamespace(
            name=node.name, type=kind, num_outputs=len(outputs), get_output=lambda index: outputs[index]
        )

    def get_input(self, index: int) -> Any:
        return self._tensor(self._graph.input[index])

    def get_output(self, index: int) -> Any:
        return self._tensor(self._graph.output[index])

    @property
    def _graph(self) -> onnx.GraphProto:
        return onnx.GraphProto() if self.model is None else self.model.graph

    def _tensor(self, value: onnx.ValueInfoProto) -> Any:
        told = value.type.tensor_type
        kind = _TYPES[onnx.TensorProto.DataType.Name(told.elem_type)]
        shape = tuple(-1 if d.dim_param else d.dim_value for d in told.shape.dim)
        return SimpleNamespace(name=value.name, dtype=getattr(self.module.DataType, kind), shape=shape)


class HostBuilder:
    """Builds an engine of a network: the plan that `host_tensorrt.HostRuntime` loads."""

    def __init__(self, module: ModuleType, logger: Any) -> None:
        self._module = module

    def create_network(self, flags: int = 0) -> HostNetwork:
        return HostNetwork(self._module, flags)

    def create_builder_config(self) -> HostBuilderConfig:
        return HostBuilderConfig(self._module)

    def create_optimization_profile(self) -> HostProfile:
        return HostProfile()

    def build_serialized_network(self, network: HostNetwork, config: HostBuilderConfig) -> bytes | None:
        from tests.runtime.host_tensorrt import plan_of

        if config.timing_cache is not None:
            config.timing_cache.add()
        dynamic = [v.name for v in network._graph.input if any(d.dim_param for d in v.type.tensor_type.shape.dim)]
        if network.model is None or any(name not in p.shapes for p in config.profiles for name in dynamic):
            return None
        return None if dynamic and not config.profiles else plan_of(network.model.SerializeToString())


class HostBuilderConfig:
    """Flags, limits and profiles; the defaults are the library's."""

    def __init__(self, module: ModuleType) -> None:
        self._module = module
        self.flags = 1 << int(module.BuilderFlag.TF32)
        self.profiles: list[HostProfile] = []
        self.limits: dict[Any, int] = {}
        self.timing_cache: HostTimingCache | None = None
        self.builder_optimization_level = 3
        self.progress_monitor: Any = None
        self.profiling_verbosity: Any = module.ProfilingVerbosity.LAYER_NAMES_ONLY

    def set_flag(self, flag: Any) -> None:
        self.flags |= 1 << int(flag)

    def clear_flag(self, flag: Any) -> None:
        self.flags &= ~(1 << int(flag))

    def get_flag(self, flag: Any) -> bool:
        return bool(self.flags >> int(flag) & 1)

    def add_optimization_profile(self, profile: HostProfile) -> int:
        self.profiles.append(profile)
        return len(self.profiles) - 1

    def set_memory_pool_limit(self, pool: Any, pool_size: int) -> None:
        self.limits[pool] = pool_size

    def get_memory_pool_limit(self, pool: Any) -> int:
        return self.limits.get(pool, 1 << 40)

    def create_timing_cache(self, serialized_timing_cache: Any) -> HostTimingCache:
        return HostTimingCache(bytes(serialized_timing_cache), self._module.__version__)

    def set_timing_cache(self, cache: HostTimingCache, ignore_mismatch: bool) -> bool:  # noqa: FBT001 - theirs
        """Refused where it is of another version, as the library's documentation has it."""
        if cache.blob and cache.version != self._module.__version__ and not ignore_mismatch:
            return False
        self.timing_cache = cache
        return True

    def get_timing_cache(self) -> HostTimingCache | None:
        return self.timing_cache


class HostTimingCache:
    """How long kernels took: the version, and an entry more for each engine that was built with it."""

    def __init__(self, blob: bytes, version: str) -> None:
        self.blob = blob
        self.version = blob.split(b"\n")[0].decode(errors="replace") if blob else version

    def add(self) -> None:
        self.blob = (self.blob or f"{self.version}\n".encode()) + b"timing\n"

    def serialize(self) -> bytes:
        return self.blob


class HostProfile:
    """Least, usual and largest shapes by input."""

    def __init__(self) -> None:
        self.shapes: dict[str, tuple[Any, Any, Any]] = {}

    def set_shape(self, input: str, min: Any, opt: Any, max: Any) -> None:  # noqa: A002 - the bindings' names
        self.shapes[input] = (tuple(min), tuple(opt), tuple(max))

    def get_shape(self, input: str) -> list[Any]:  # noqa: A002
        return list(self.shapes[input])


class HostParser:
    """Reads a graph into a network; says what is wrong with one that is none."""

    def __init__(self, module: ModuleType, network: HostNetwork, logger: Any) -> None:
        self._network, self._errors = network, []  # type: ignore[var-annotated]

    def parse_from_file(self, model: str) -> bool:
        try:
            self._network.model = onnx.load(Path(model))
            onnx.checker.check_model(self._network.model)
        except Exception as error:  # noqa: BLE001 - whatever protobuf and the checker say
            self._errors.append(str(error).splitlines()[0])
        return not self._errors

    @property
    def num_errors(self) -> int:
        return len(self._errors)

    def get_error(self, index: int) -> Any:
        return SimpleNamespace(desc=lambda: self._errors[index])


#: Classes that callers make, with what plays them.
BUILDERS: Mapping[str, Callable[..., Any]] = {"Builder": HostBuilder, "OnnxParser": HostParser}
