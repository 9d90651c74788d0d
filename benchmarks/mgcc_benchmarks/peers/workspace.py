"""The folders of the peers, and the files that each reads."""

from __future__ import annotations

import hashlib
import os
import shlex
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mgcc_benchmarks.peers.client import ROOT, PeerError
from mgcc_benchmarks.peers.plan import Peer
from mgcc_ref.config import ProfileError, get_profile
from mgcc_runtime.bundle.folder import Bundle
from mgcc_runtime.errors import BundleError
from mgcc_runtime.names import golden_file

FOLDER = ROOT / "build" / "peers"
GRAPH_PEERS = (Peer.ONNXRUNTIME, Peer.OPENVINO, Peer.OPENVINO_DEFAULT)  # they run the plain graphs


@dataclass(frozen=True)
class Place:
    """The folder of all peers, and the bundle that they are compared with.

    `given_profile` and `given_weights`: where the bundle comes from, if the project alone cannot tell; "" if it can.
    """

    root: Path
    bundle: Bundle
    given_profile: str = ""
    given_weights: str = ""

    @property
    def profile(self) -> str:
        """The bundle's profile as `--profile` takes it. PeerError if its file was not given or is another profile's."""
        manifest, root = self.bundle.manifest, self.bundle.root
        told = self.given_profile or manifest.profile
        try:
            found = None if manifest.profile_in_file and not self.given_profile else get_profile(told)
        except ProfileError:
            found = None
        if found is None:
            raise PeerError(
                f"bundle {root} is of profile {manifest.profile}, which is none of this project's; give the file that "
                "it was built by with --profile FILE.json"
            )
        if found.name != manifest.profile:
            raise PeerError(
                f"profile {told} is called {found.name}, expected {manifest.profile}, which bundle {root} is of; "
                "give the file that it was built by"
            )
        return told

    @property
    def weights(self) -> str:
        """A folder, "random", or "" for the profile's own."""
        return "random" if self.bundle.manifest.weights == "random" else self.given_weights

    def folder(self, peer: Peer) -> Path:
        return self.root / peer.value

    def python(self, peer: Peer) -> Path:
        """The interpreter that runs the peer: its own environment's, or this one."""
        own = self.folder(peer) / "venv" / ("Scripts" if os.name == "nt" else "bin") / "python"
        return own if peer in (Peer.LLAMACPP, Peer.OPTIMUM) else Path(sys.executable)

    @property
    def graphs(self) -> Path:
        """The folder of plain graphs of the bundle's weights, named by the golden data that PyTorch made of them."""
        files = self.bundle.manifest.files
        try:
            told = "".join(files[golden_file(name)].sha256 for name in ("unet", "llm"))
        except KeyError as error:
            raise BundleError(f"bundle {self.bundle.root} has no {error}; build it again, without --stages") from None
        key = hashlib.sha256(told.encode()).hexdigest()[:12]
        return self.root / "graphs" / f"{self.bundle.manifest.profile}-{key}"

    @property
    def gligen(self) -> Path:
        return self.root / "graphs" / "gligen"

    def files(self, peer: Peer) -> dict[str, str]:
        """The files that the peer's worker reads."""
        if peer in GRAPH_PEERS:
            return {"graphs": str(self.graphs)}
        if peer is Peer.LLAMACPP:
            return {"gguf": str(self.gguf())}
        if peer is Peer.OPTIMUM:
            return {"model": str(self.folder(peer) / "onnx")}
        return {}

    def gguf(self) -> Path:
        """The file that the profile's language model comes from; PeerError if it comes from none."""
        from mgcc_ref.published.hub import find_llm
        from mgcc_ref.weights import WeightsError

        profile = get_profile(self.profile)
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
    """The command that sets the peer up, for people to copy."""
    told = (("--profile", place.given_profile), ("--weights", place.given_weights))
    given = "".join(f" {option} {shlex.quote(value)}" for option, value in told if value)
    return f"python benchmarks/peers.py --set-up {peer.value} --bundle {place.bundle.root}{given}"


def run_command(arguments: Sequence[str | Path]) -> None:
    """Run a command, its output on standard error; PeerError if it fails."""
    done = subprocess.run([str(a) for a in arguments], stdout=sys.stderr, check=False)
    if done.returncode:
        text = " ".join(map(str, arguments))
        raise PeerError(f"`{text}` ended with {done.returncode}, expected 0; see what it said above")
