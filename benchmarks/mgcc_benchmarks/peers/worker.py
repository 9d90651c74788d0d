"""One side of a comparison, in a process of its own: it loads, waits, and does the work when asked.

So no two sides share a thread pool, an allocator or an environment. The side that waits uses no processor once its
idle threads have stopped spinning, for which `comparison` waits. Only numpy and the standard library are imported until
the side is known, since this module runs in the peers' environments, too.

The parent writes one JSON object a line, the worker answers each with one.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO, Any, Protocol

import numpy as np
from numpy.typing import NDArray

Outputs = dict[str, NDArray[Any]]

#: "peer.work" -> (module, class); each class is called with the `WorkerSpec`.
SIDES = {
    "ours.turn": ("ours", "OurTurn"),
    "ours.dialogue": ("ours", "OurDialogue"),
    "ours.unet": ("ours", "OurUnet"),
    "ours.prefill": ("ours", "OurPrefill"),
    "ours.decode": ("ours", "OurDecode"),
    "ours.gligen": ("ours", "OurGligen"),
    "mgcc_ref.turn": ("torch", "ReferenceTurn"),
    "mgcc_ref.unet": ("torch", "ReferenceUnet"),
    "mgcc_ref.prefill": ("torch", "ReferencePrefill"),
    "mgcc_ref.decode": ("torch", "ReferenceDecode"),
    "torch.compile.unet": ("torch", "CompiledUnet"),
    "diffusers.gligen": ("diffusers", "DiffusersGligen"),
    "onnxruntime.unet": ("onnxruntime", "OrtUnet"),
    "onnxruntime.prefill": ("onnxruntime", "OrtPrefill"),
    "onnxruntime.decode": ("onnxruntime", "OrtDecode"),
    "openvino.unet": ("openvino", "OpenVinoUnet"),
    "openvino-default.unet": ("openvino", "OpenVinoUnet"),
    "openvino.prefill": ("openvino", "OpenVinoPrefill"),
    "openvino.decode": ("openvino", "OpenVinoDecode"),
    "llama.cpp.prefill": ("llamacpp", "LlamaCppPrefill"),
    "llama.cpp.decode": ("llamacpp", "LlamaCppDecode"),
    "optimum-onnx.prefill": ("optimum", "OptimumPrefill"),
    "optimum-onnx.decode": ("optimum", "OptimumDecode"),
}


@dataclass(frozen=True)
class WorkerSpec:
    """The files and settings that a side loads. `work` holds the inputs, which both sides read from the same files."""

    side: str  # a key of SIDES
    work: str
    threads: int
    files: dict[str, str] = field(default_factory=dict)  # the peer's data, by the key bundle, graphs, gguf or model
    profile: str = ""
    weights: str = ""  # a folder, "random", or "" for the profile's own

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> WorkerSpec:
        return cls(**json.loads(text))

    def arrays(self, name: str) -> Outputs:
        """The inputs `name`.npz of the work."""
        return read_arrays(Path(self.work) / f"{name}.npz")


class Side(Protocol):
    """The interface of the classes in SIDES."""

    versions: dict[str, str]  # of the packages that do the work

    def outputs(self) -> Outputs:
        """The outputs of the work; compared with the other side before anything is timed."""
        ...

    def run_ms(self) -> float:
        """Do the work once; milliseconds of the work alone."""
        ...


def read_arrays(path: Path) -> Outputs:
    """All arrays of an .npz file."""
    with np.load(path, allow_pickle=False) as file:
        return {key: file[key] for key in file.files}


def open_side(spec: WorkerSpec) -> Side:
    """Load what the spec names."""
    module, name = SIDES[spec.side]
    side: Side = getattr(importlib.import_module(f"mgcc_benchmarks.peers.sides.{module}"), name)(spec)
    return side


def answer(side: Side, request: dict[str, Any]) -> dict[str, Any]:
    """{"do": "outputs", "path"} writes an .npz; {"do": "run", "least_ms"} gives the mean "ms" of as many runs as fill
    that time; {"do": "memory"} gives "peak_rss_mb"."""
    if request["do"] == "outputs":
        np.savez(Path(request["path"]), allow_pickle=False, **side.outputs())
        return {"path": request["path"]}
    if request["do"] == "memory":
        from mgcc_runtime.machine import peak_rss_mb

        return {"peak_rss_mb": peak_rss_mb()}
    told_ms, runs, started_s = 0.0, 0, time.perf_counter()  # a run may give its time per token or per step
    while not runs or (time.perf_counter() - started_s) * 1e3 < request["least_ms"]:
        told_ms += side.run_ms()
        runs += 1
    return {"ms": told_ms / runs, "runs": runs}


def serve(requests: IO[str], replies: IO[str]) -> int:
    """Answer until the parent closes the pipe; 1 after the first error, which is sent as {"error"}."""

    def say(reply: dict[str, Any]) -> None:
        replies.write(json.dumps(reply) + "\n")
        replies.flush()

    try:
        side = open_side(WorkerSpec.from_json(requests.readline()))
        say({"versions": side.versions})
        for line in requests:
            say(answer(side, json.loads(line)))
    except Exception as error:  # noqa: BLE001 (whatever it is, the parent must hear of it)
        text = (str(error).strip().splitlines() or [""])[0][:400]
        say({"error": f"{type(error).__name__}: {text}"})
        return 1
    return 0


if __name__ == "__main__":
    # what libraries print must not get between the replies
    pipe = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    sys.exit(serve(sys.stdin, pipe))
