"""A module with exactly the interface of one release of TensorRT, played by classes of Python.

Which members a class has, how they are called, and which values an enumeration has comes from the release's file alone:
a member that the release lacks is an AttributeError, a call that it does not take a TypeError, as with the bindings.
What a member does comes from the class that plays it; one that nothing plays is a NotImplementedError.
"""

from __future__ import annotations

import ctypes
import enum
from collections.abc import Callable, Mapping, Sequence
from types import ModuleType
from typing import Any

from tests.runtime.releases import Overload, Release

_NUMBERS = ("int", "SupportsInt", "SupportsIndex")
_PLAIN = {"str": str, "bool": bool, "tuple": tuple, "list": list}


def shape_module(release: Release, players: Mapping[str, Callable[..., Any]]) -> ModuleType:
    """The module. `players`: what plays an object, by its class; those that callers make are called with the module
    and the constructor's arguments by name.
    """
    module = ModuleType(release.library)
    vars(module)["__version__"] = release.version
    remaining = dict(release.classes)
    while remaining:  # a class after those that it is made from
        for name, facts in list(remaining.items()):
            if not {*facts.get("bases", ())} & {*remaining}:
                setattr(module, name, _shape(module, name, remaining.pop(name), players.get(name)))
    return module


def played(shaped: Any) -> Any:
    """What plays a shaped object."""
    return shaped._played


def _shape(module: ModuleType, name: str, facts: Mapping[str, Any], player: Callable[..., Any] | None) -> type:
    if "enumeration" in facts:
        return _shape_enumeration(name, facts)
    if name == "IHostMemory":  # has a buffer, which only C can give: `host_memory` makes them
        return _HostMemory
    bases = tuple(getattr(module, base) for base in facts["bases"] if hasattr(module, base))
    space: dict[str, Any] = {"__slots__": () if bases else ("__weakref__", "_played")}
    for member, told in facts["members"].items():
        if isinstance(told, list):
            space[member] = _method(module, name, member, [Overload.parse(one) for one in told])
        elif isinstance(told, str) and told.endswith("property"):
            space[member] = _property(module, name, member, told)
        elif isinstance(told, dict):  # an enumeration within, which a class that is made from this one shares
            own = next((getattr(base, member) for base in bases if hasattr(base, member)), None)
            space[member] = own or _shape(module, member, told, None)
    for member, told in facts["members"].items():
        if isinstance(told, str) and not told.endswith("property"):  # a value that is exported into the class
            space[member] = space[told][member]
    space["__init__"] = _constructor(module, name, player, [Overload.parse(one) for one in _made(facts)])
    for special in {*facts["special"]} & {"__getitem__", "__len__"}:
        space[special] = _special(special)
    return type(name, bases or (object,), space)


def _made(facts: Mapping[str, Any]) -> Sequence[str]:
    found: Sequence[str] = facts["members"].get("__init__", ())
    return found


def _shape_enumeration(name: str, facts: Mapping[str, Any]) -> type:
    if facts["ordered"]:
        return enum.IntEnum(name, facts["enumeration"])
    plain = enum.Enum(name, facts["enumeration"])  # type: ignore[misc]
    plain.__int__ = lambda self: self.value  # type: ignore[attr-defined]
    return plain


def _constructor(
    module: ModuleType, name: str, player: Callable[..., Any] | None, overloads: Sequence[Overload]
) -> Callable[..., None]:
    def make(self: Any, *given: Any, **named: Any) -> None:
        if not overloads:
            raise TypeError(f"{name}: No constructor defined!")
        found = _bind(module, f"{name}.__init__", overloads, given, named)[1]
        self._played = player(module, **found) if player else None

    return make


def _method(module: ModuleType, name: str, member: str, overloads: Sequence[Overload]) -> Callable[..., Any]:
    def call(self: Any, *given: Any, **named: Any) -> Any:
        overload, found = _bind(module, f"{name}.{member}", overloads, given, named)
        return _wrapped(module, overload.gives, _of(self, name, member)(**found))

    return call


def _property(module: ModuleType, name: str, member: str, told: str) -> property:
    def read(self: Any) -> Any:
        return _of(self, name, member)

    def write(self: Any, value: Any) -> None:
        _of(self, name, member)
        setattr(self._played, member, value)

    return property(read, write if told == "property" else None)


def _special(name: str) -> Callable[..., Any]:
    return lambda self, *given: getattr(self._played, name)(*given)


def _of(shaped: Any, name: str, member: str) -> Any:
    if not hasattr(shaped._played, member):
        raise NotImplementedError(f"nothing plays {name}.{member}; write it into tests/runtime/host_tensorrt.py")
    return getattr(shaped._played, member)


def _bind(
    module: ModuleType, what: str, overloads: Sequence[Overload], given: Sequence[Any], named: Mapping[str, Any]
) -> tuple[Overload, dict[str, Any]]:
    """The overload that takes these arguments, and what plays them by name; TypeError if there is none."""
    for overload in overloads:
        found = overload.bind(given, named, lambda value, kind: _fits(module, value, kind))
        if found is not None:
            return overload, {name: _player_of(value) for name, value in found.items()}
    raise TypeError(f"{what}(): incompatible function arguments: {given} {dict(named)}, expected one of {overloads}")


def _player_of(value: Any) -> Any:
    """What plays an argument; what callers write themselves, such as a logger, is taken as it is."""
    player = getattr(value, "_played", None)
    return value if player is None else player


def _fits(module: ModuleType, value: Any, kind: str) -> bool:
    """Whether the bindings take a value where they ask for this kind."""
    if kind in _NUMBERS:
        return hasattr(value, "__index__")
    if kind in _PLAIN:
        return isinstance(value, _PLAIN[kind])
    if kind.lower() == "buffer":
        return _is_buffer(value)
    cls: Any = module
    for part in kind.split("."):
        cls = getattr(cls, part, None)
    if not isinstance(cls, type):
        return True  # a class that no file tells of
    if issubclass(cls, enum.Enum):
        return isinstance(value, cls)
    if cls.__name__ == "Dims" and isinstance(value, (tuple, list)):
        return True  # the bindings convert
    return value is None or (isinstance(value, cls) and hasattr(value, "_played"))  # its base's __init__ was called


def _is_buffer(value: Any) -> bool:
    try:
        memoryview(value).release()
    except TypeError:
        return False
    return True


def _wrapped(module: ModuleType, kind: str, value: Any) -> Any:
    """What a call gives, in the release's own class."""
    cls = getattr(module, kind, getattr(module, kind.removeprefix("I"), None))  # get_error: "IParserError"
    if value is None or not isinstance(cls, type) or isinstance(value, cls) or issubclass(cls, enum.Enum):
        return value
    if cls is _HostMemory:
        return host_memory(bytes(value))
    shaped = cls.__new__(cls)
    shaped._played = value
    return shaped


class _HostMemory:
    """IHostMemory: a buffer with its size."""

    __slots__ = ()
    __len__ = None  # type: ignore[assignment]  # the bindings' has none

    def __bool__(self) -> bool:
        return True  # as every object without a length

    @property
    def nbytes(self) -> int:
        return ctypes.sizeof(self)  # type: ignore[arg-type]


def host_memory(data: bytes) -> Any:
    """Bytes as the bindings give them out: `bytes()` and a file's `write` take them."""
    array: Any = type("IHostMemory", (_HostMemory, ctypes.c_ubyte * len(data)), {})
    return array.from_buffer_copy(data)
