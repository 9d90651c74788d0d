"""Where the peers live, whether they are there, and how each is set up by one command."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import venv
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from mgcc_benchmarks.peers_client import ROOT, PeerError
from mgcc_benchmarks.peers_plan import Peer
from mgcc_runtime.bundle import Bundle
from mgcc_runtime.errors import BundleError
from mgcc_runtime.files import write_atomically

FOLDER = ROOT / "build" / "peers"
_STAMP = "ready.json"  # written last, with what was installed
#: Another version of a peer is another peer, so it is named. optimum-onnx holds transformers back by itself.
_LLAMACPP = ("llama-cpp-python==0.3.36",)
_OPTIMUM = ("optimum-onnx[onnxruntime]==0.1.0", "torch")
_PACKAGES = {
    Peer.REFERENCE: ("torch",), Peer.COMPILE: ("torch",), Peer.ONNXRUNTIME: ("onnxruntime",),
    Peer.OPENVINO: ("openvino",), Peer.DIFFUSERS: ("diffusers", "onnxruntime"),
}  # fmt: skip
_COMPILERS = ("c++", "g++", "clang++")


@dataclass(frozen=True)
class Place:
    """The folder of all peers, and the bundle that they are compared with."""

    root: Path
    bundle: Bundle

    def folder(self, peer: Peer) -> Path:
        return self.root / peer.value

    def python(self, peer: Peer) -> Path:
        """The interpreter that runs the peer: its own environment's, or this one."""
        own = self.folder(peer) / "venv" / ("Scripts" if os.name == "nt" else "bin") / "python"
        return own if peer in (Peer.LLAMACPP, Peer.OPTIMUM) else Path(sys.executable)

    @property
    def graphs(self) -> Path:
        """Plain graphs of the bundle's weights. The golden data, which PyTorch made of them, stands for the weights."""
        files = self.bundle.manifest.files
        try:
            told = "".join(files[f"golden/{name}.npz"].sha256 for name in ("unet", "llm"))
        except KeyError as error:
            raise BundleError(f"bundle {self.bundle.root} has no {error}; build it again, without --stages") from None
        key = hashlib.sha256(told.encode()).hexdigest()[:12]
        return self.root / "graphs" / f"{self.bundle.manifest.profile}-{key}"

    @property
    def gligen(self) -> Path:
        return self.root / "graphs" / "gligen"

    def files(self, peer: Peer) -> dict[str, str]:
        """What the peer's worker is given."""
        if peer in (Peer.ONNXRUNTIME, Peer.OPENVINO):
            return {"graphs": str(self.graphs)}
        if peer is Peer.LLAMACPP:
            return {"gguf": str(self.gguf())}
        if peer is Peer.OPTIMUM:
            return {"model": str(self.folder(peer) / "onnx")}
        return {}

    def gguf(self) -> Path:
        """The file that the profile's language model comes from; PeerError if it comes from none."""
        from mgcc_ref.config import get_profile
        from mgcc_ref.weights import WeightsError, find_llm

        profile = get_profile(self.bundle.manifest.profile)
        if self.bundle.manifest.weights == "random" or not profile.llm.source:
            raise PeerError(
                f"the language model of bundle {self.bundle.root} has random weights, expected those of a GGUF file; "
                "give a bundle of the profile story"
            )
        try:
            path = find_llm(profile.llm.source)
        except WeightsError as error:
            raise PeerError(str(error)) from None
        if path.suffix != ".gguf":
            raise PeerError(f"{path} is no GGUF file, which llama.cpp reads; give a bundle of the profile story")
        return path


def command(peer: Peer, place: Place) -> str:
    """What sets the peer up, for people to copy."""
    return f"python benchmarks/peers.py --set-up {peer.value} --bundle {place.bundle.root}"


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
    wanted = {
        Peer.ONNXRUNTIME: place.graphs, Peer.OPENVINO: place.graphs, Peer.DIFFUSERS: place.gligen,
    }.get(peer)  # fmt: skip
    if wanted is not None and not wanted.is_dir():
        return f"{peer.value} is absent: its plain graphs {wanted} are not there; run `{command(peer, place)}`"
    if peer in (Peer.LLAMACPP, Peer.OPTIMUM, Peer.RUNTIME) and not _is_ready(place.folder(peer), _stamp(peer)):
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
    if peer in (Peer.ONNXRUNTIME, Peer.OPENVINO, Peer.DIFFUSERS):
        from mgcc_benchmarks.peers_graphs import write_gligen, write_graphs

        say("writing plain graphs")
        if peer is Peer.DIFFUSERS:
            write_gligen(place.gligen)
            return f"{peer.value} is ready: {place.gligen}"
        write_graphs(place.bundle, place.graphs)
        return f"{peer.value} is ready: {place.graphs}"
    folder = place.folder(peer)
    (folder / _STAMP).unlink(missing_ok=True)
    folder.mkdir(parents=True, exist_ok=True)
    {Peer.LLAMACPP: _set_up_llamacpp, Peer.OPTIMUM: _set_up_optimum, Peer.RUNTIME: _set_up_runtime}[peer](place, say)
    write_atomically(folder / _STAMP, (json.dumps(_stamp(peer)) + "\n").encode())
    return f"{peer.value} is ready: {folder}"


def _set_up_llamacpp(place: Place, say: Callable[[str], None]) -> None:
    if reason := _no_compiler(Peer.LLAMACPP):
        raise PeerError(reason)
    place.gguf()
    say("building llama.cpp for this machine, some minutes")
    # from source: a ready-made package is built for any processor, and slower. numpy is what the worker speaks in.
    _install(place, Peer.LLAMACPP, ("--no-binary", "llama-cpp-python", *_LLAMACPP, "numpy"))


def _set_up_optimum(place: Place, say: Callable[[str], None]) -> None:
    folder, gguf = place.folder(Peer.OPTIMUM), place.gguf()
    say("installing optimum-onnx, some minutes")
    _install(place, Peer.OPTIMUM, _OPTIMUM)
    say("writing the language model for it")
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype="float32")
    model.hf_quantizer = None  # the weights are plain numbers now, which transformers would refuse to save
    model.config.__dict__.pop("quantization_config", None)
    model.save_pretrained(folder / "llm")
    AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name).save_pretrained(folder / "llm")
    say("exporting with optimum-onnx")
    options = ("--task", "text-generation-with-past", "--model", folder / "llm")
    _run((place.python(Peer.OPTIMUM).with_name("optimum-cli"), "export", "onnx", *options, folder / "onnx"))


def _set_up_runtime(place: Place, say: Callable[[str], None]) -> None:
    say("installing mgcc-edge[cpu] by itself")
    target = place.folder(Peer.RUNTIME) / "site"
    shutil.rmtree(target, ignore_errors=True)
    _run((sys.executable, "-m", "pip", "install", "--quiet", "--target", target, f"{ROOT}[cpu]"))


def _install(place: Place, peer: Peer, packages: Sequence[str]) -> None:
    python = place.python(peer)
    venv.create(python.parent.parent, with_pip=True, clear=True, symlinks=os.name != "nt")
    _run((python, "-m", "pip", "install", "--quiet", *packages))


def _run(arguments: Sequence[str | Path]) -> None:
    """A command whose own words go to standard error; PeerError if it fails."""
    done = subprocess.run([str(a) for a in arguments], stdout=sys.stderr, check=False)
    if done.returncode:
        text = " ".join(map(str, arguments))
        raise PeerError(f"`{text}` ended with {done.returncode}, expected 0; see what it said above")


def _stamp(peer: Peer) -> dict[str, Sequence[str]]:
    return {"packages": list({Peer.LLAMACPP: _LLAMACPP, Peer.OPTIMUM: _OPTIMUM}.get(peer, ()))}


def _is_ready(folder: Path, wanted: Mapping[str, Sequence[str]]) -> bool:
    try:
        found: object = json.loads((folder / _STAMP).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return found == wanted


def installed_mb(place: Place) -> float:
    """What the runtime's installation weighs, in MB of 10^6 bytes: every file, the bundle not among them."""
    site = place.folder(Peer.RUNTIME) / "site"
    return sum(path.stat().st_size for path in site.rglob("*") if path.is_file()) / 1e6
