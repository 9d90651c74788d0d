"""Whether the peers are there, and how each is set up by one command."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import venv
from collections.abc import Callable, Mapping, Sequence

from mgcc_benchmarks.peers.checkpoint import FORM, check_export, write_checkpoint
from mgcc_benchmarks.peers.client import PeerError
from mgcc_benchmarks.peers.install import install, requirements
from mgcc_benchmarks.peers.plan import Peer
from mgcc_benchmarks.peers.workspace import GRAPH_PEERS, Place, command, run_command
from mgcc_runtime.errors import InputError
from mgcc_runtime.files import write_atomically
from mgcc_runtime.reading import read_json

_STAMP = "ready.json"  # written last, with what was installed
#: The versions are pinned: another version is another peer. optimum-onnx limits the version of transformers itself.
_LLAMACPP = ("llama-cpp-python==0.3.36",)
_OPTIMUM = ("optimum-onnx[onnxruntime]==0.1.0", "torch")
_PACKAGES = {
    Peer.REFERENCE: ("torch",), Peer.COMPILE: ("torch",), Peer.ONNXRUNTIME: ("onnxruntime",),
    Peer.OPENVINO: ("openvino",), Peer.OPENVINO_DEFAULT: ("openvino",), Peer.DIFFUSERS: ("diffusers", "onnxruntime"),
}  # fmt: skip
_COMPILERS = ("c++", "g++", "clang++")


def absence(peer: Peer, place: Place) -> str:
    """Why the peer cannot take part, with the command that mends it, as one sentence; empty if it can."""
    missing = [name for name in _PACKAGES.get(peer, ()) if importlib.util.find_spec(name) is None]
    if missing:
        return f"{peer.value} is absent: {', '.join(missing)} is not installed here; run `make setup`"
    if peer is Peer.COMPILE:
        return _no_compiler(peer)
    if peer in (Peer.LLAMACPP, Peer.OPTIMUM):
        try:
            place.gguf()
        except PeerError as error:
            return f"{peer.value} has nothing to run: {error}"
    wanted = {**dict.fromkeys(GRAPH_PEERS, place.graphs), Peer.DIFFUSERS: place.gligen}.get(peer)
    if wanted is not None and not wanted.is_dir():
        return f"{peer.value} is absent: its plain graphs {wanted} are not there; run `{command(peer, place)}`"
    if peer in (Peer.LLAMACPP, Peer.OPTIMUM, Peer.RUNTIME) and _stamped(place, peer) != _stamp(place, peer):
        return f"{peer.value} is absent: {place.folder(peer)} is not set up; run `{command(peer, place)}`"
    return ""


def _no_compiler(peer: Peer) -> str:
    if any(map(shutil.which, _COMPILERS)):
        return ""
    return (
        f"{peer.value} needs a C++ compiler, none of {', '.join(_COMPILERS)} was found; "
        "run `sudo apt-get install build-essential cmake`"
    )


def set_up(peer: Peer, place: Place, say: Callable[[str], None]) -> str:
    """Set a peer up and return where it is; PeerError says what hinders it. Takes minutes for llama.cpp and optimum."""
    if peer in (Peer.REFERENCE, Peer.COMPILE):
        if reason := absence(peer, place):
            raise PeerError(reason)
        return f"{peer.value} comes with `make setup`; nothing is to be done"
    if peer in (*GRAPH_PEERS, Peer.DIFFUSERS):
        from mgcc_benchmarks.peers.plain_graphs import write_gligen, write_graphs

        say("writing plain graphs")
        if peer is Peer.DIFFUSERS:
            write_gligen(place.gligen)
            return f"{peer.value} is ready: {place.gligen}"
        write_graphs(place)
        return f"{peer.value} is ready: {place.graphs}"
    folder, old, new = place.folder(peer), _stamped(place, peer), _stamp(place, peer)
    (folder / _STAMP).unlink(missing_ok=True)
    folder.mkdir(parents=True, exist_ok=True)
    if peer is Peer.RUNTIME:
        say(f"installing {' and '.join(requirements(place.bundle.manifest))}, each by itself")
        install(folder, place.bundle.manifest)
    elif peer is Peer.LLAMACPP:
        _set_up_llamacpp(place, say)
    else:
        # where only the checkpoint has expired, its environment stays
        _set_up_optimum(place, say, fresh=old == new or old.get("packages") != new["packages"])
    write_atomically(folder / _STAMP, (json.dumps(new) + "\n").encode())
    return f"{peer.value} is ready: {folder}"


def _set_up_llamacpp(place: Place, say: Callable[[str], None]) -> None:
    if reason := _no_compiler(Peer.LLAMACPP):
        raise PeerError(reason)
    place.gguf()
    say("building llama.cpp for this machine, some minutes")
    # from source: a ready-made package is built for any processor, and slower. The worker needs numpy.
    _install(place, Peer.LLAMACPP, ("--no-binary", "llama-cpp-python", *_LLAMACPP, "numpy"))


def _set_up_optimum(place: Place, say: Callable[[str], None], *, fresh: bool) -> None:
    """Install it into a new environment if `fresh`, and let it export the language model."""
    folder, gguf = place.folder(Peer.OPTIMUM), place.gguf()
    if fresh:
        say("installing optimum-onnx, some minutes")
        _install(place, Peer.OPTIMUM, _OPTIMUM)
    say("writing the language model for it")
    model, exported = folder / "llm", folder / "onnx"
    for old in (model, exported):
        shutil.rmtree(old, ignore_errors=True)
    write_checkpoint(gguf, model)
    say("exporting with optimum-onnx")
    options = ("--task", "text-generation-with-past", "--model", model)
    run_command((place.python(Peer.OPTIMUM).with_name("optimum-cli"), "export", "onnx", *options, exported))
    check_export(model, exported)


def _install(place: Place, peer: Peer, packages: Sequence[str]) -> None:
    python = place.python(peer)
    venv.create(python.parent.parent, with_pip=True, clear=True, symlinks=os.name != "nt")
    run_command((python, "-m", "pip", "install", "--quiet", *packages))


def _stamp(place: Place, peer: Peer) -> Mapping[str, object]:
    """The identity of a set-up: the versions of its packages, and the form of the files that are made for it."""
    if peer is Peer.RUNTIME:
        return {"packages": list(requirements(place.bundle.manifest))}
    if peer is Peer.OPTIMUM:
        return {"packages": list(_OPTIMUM), "checkpoint": FORM}
    return {"packages": list(_LLAMACPP)}


def _stamped(place: Place, peer: Peer) -> Mapping[str, object]:
    """The stamp of the set-up that is there; empty if none is."""
    try:
        found: object = read_json(place.folder(peer) / _STAMP, "stamp of a set-up")
    except InputError:
        return {}
    return found if isinstance(found, dict) else {}
