"""Our sides: `mgcc_runtime` on a bundle, by its public calls wherever there is one."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mgcc_benchmarks.peers.sides.llm import CachedLlm, DecodeSide, Logits, PrefillSide
from mgcc_benchmarks.peers.worker import Outputs, WorkerSpec
from mgcc_runtime.bundle.folder import Bundle
from mgcc_runtime.contract import DECODE, Dimensions, present_names, stage
from mgcc_runtime.denoise import Schedule, ScheduleTable, denoise, solver_feeds
from mgcc_runtime.engines import EngineOptions, Feed, Session, host_array, open_session
from mgcc_runtime.kv_cache import KvCache
from mgcc_runtime.machine import installed_version
from mgcc_runtime.measure.bench_parts import turn_texts
from mgcc_runtime.names import SCHEDULE, EngineName, graph_file
from mgcc_runtime.pipeline import Pipeline
from mgcc_runtime.prompt import PromptBuilder
from mgcc_runtime.results import Result
from mgcc_runtime.stages import Floats
from mgcc_runtime.story import read_story
from mgcc_runtime.version import VERSION

LATER_TURN, EARLY_TURN = 10, 2


def our_versions(*engines: str) -> dict[str, str]:
    """The versions of this project and of the engines that do the work."""
    packages = {EngineName.ONNXRUNTIME_GPU: "onnxruntime-gpu"}
    found = {name: installed_version(packages.get(name, name)) for name in engines}
    return {"mgcc-edge": VERSION, **{name: version for name, version in found.items() if version}}


class _Pipelined:
    def __init__(self, spec: WorkerSpec) -> None:
        self.pipeline = Pipeline.load(spec.files["bundle"], threads=spec.threads)
        self.parts = read_story(Path(spec.work) / "story.json")
        self.options = json.loads((Path(spec.work) / "options.json").read_text(encoding="utf-8"))
        self.versions = our_versions(*{s.engine for s in self.pipeline.bundle.manifest.stages.values()})


class OurTurn(_Pipelined):
    """One warm request: texts and images in, words and a picture out."""

    def _draw(self) -> Result:
        seed, words = int(self.options["seed"]), int(self.options["words"])
        return self.pipeline.generate(self.parts, seed=seed, words=words)

    def outputs(self) -> Outputs:
        """The request's words and layout, and a picture with boxes given to both sides: see `check_parity`."""
        result = self._draw()
        given = self.pipeline.generate(self.parts, seed=int(self.options["seed"]), boxes=self.options["boxes"])
        return {
            "image": np.asarray(given.image),
            "tokens": np.array(result.text_tokens, np.int64),
            "labels": np.array([box.label for box in result.boxes], np.str_),
            "boxes": np.array([box.xyxy for box in result.boxes], np.float64).reshape(-1, 4),
        }

    def run_ms(self) -> float:
        start_s = time.perf_counter()
        self._draw()
        return (time.perf_counter() - start_s) * 1e3


class OurDialogue(_Pipelined):
    """Turns of a chat; `outputs` gives the cost of two of them, in several dialogues after one that is not counted."""

    def outputs(self) -> Outputs:
        dialogues = [self._hold() for _ in range(int(self.options["dialogues"]) + 1)][1:]
        return {
            "early_ms": np.array([d[EARLY_TURN - 1] for d in dialogues]),
            "later_ms": np.array([d[-1] for d in dialogues]),
        }

    def run_ms(self) -> float:
        return self._hold()[-1]

    def _hold(self) -> list[float]:
        chat = self.pipeline.chat()
        words = int(self.options["dialogue_words"])
        texts = turn_texts(self.pipeline, LATER_TURN)
        return [chat.send(text, seed=0, words=words).timings["total"] for text in texts]


def _open(bundle: Bundle, name: str, threads: int) -> Session:
    """A graph of the bundle: that of a stage, or as DECODE the language model's second graph."""
    graph = bundle.manifest.graphs()[name]
    spec = stage(bundle.manifest.dimensions, "llm" if name == DECODE else name)
    return open_session(graph.engine, bundle.file(graph.file), spec, EngineOptions(threads))


class OurUnet:
    """A denoising step, with guidance where the UNet has it as an input; its time is the mean over a request's steps.

    Each request has another conditioning, so that work done once per request counts in that mean.
    """

    def __init__(self, spec: WorkerSpec) -> None:
        bundle = Bundle.open(spec.files["bundle"])
        self.session = _open(bundle, "unet", spec.threads)
        self.feeds = spec.arrays("unet")
        schedule = Schedule.load(bundle.file(SCHEDULE))
        self.steps = schedule.table(schedule.default_steps).evaluations
        self.requests = 0
        self.versions = our_versions(bundle.manifest.stages["unet"].engine)

    def outputs(self) -> Outputs:
        return {"prediction": self.session.run(self.feeds)["prediction"]}

    def run_ms(self) -> float:
        self.requests += 1
        other = self.feeds["conditioning"] * np.float32(1 + 1e-4 * self.requests)
        feeds = self.feeds | {"conditioning": other}
        start_s = time.perf_counter()
        for _ in range(self.steps):
            self.session.run(feeds)
        return (time.perf_counter() - start_s) * 1e3 / self.steps


class OurLlm(CachedLlm[KvCache]):
    """The bundle's stage `llm` with the runtime's immutable cache, and its own graph for one position if it has one."""

    def __init__(self, spec: WorkerSpec) -> None:
        bundle = Bundle.open(spec.files["bundle"])
        self.session = _open(bundle, "llm", spec.threads)
        self.one = _open(bundle, DECODE, spec.threads) if DECODE in bundle.manifest.graphs() else self.session
        self.prompts, dimensions = PromptBuilder(bundle), bundle.manifest.dimensions
        self.present = present_names(dimensions.layers)
        self.versions = our_versions(bundle.manifest.stages["llm"].engine)
        super().__init__(KvCache.empty(dimensions))

    def read(self, ids: NDArray[np.int64], cache: KvCache) -> Logits:
        session = self.one if len(ids) == 1 else self.session
        outputs = session.run({"inputs_embeds": self.prompts.embed(ids), **cache.feeds()}, keep=self.present)
        self.now = cache.extended(outputs, len(ids))
        logits: Logits = outputs["logits"][0, 0]
        return logits


class OurPrefill(PrefillSide):
    def __init__(self, spec: WorkerSpec) -> None:
        super().__init__(spec, OurLlm(spec))


class OurDecode(DecodeSide):
    def __init__(self, spec: WorkerSpec) -> None:
        super().__init__(spec, OurLlm(spec))


class OurGligen:
    """The runtime's denoising with GLIGEN's gates, on graphs exported from the same random weights."""

    def __init__(self, spec: WorkerSpec) -> None:
        folder = Path(spec.files["graphs"])
        told = json.loads((folder / "gligen.json").read_text(encoding="utf-8"))
        dimensions, options = Dimensions.from_json(told["dimensions"]), EngineOptions(spec.threads)
        self.sessions = {
            name: open_session(EngineName.ONNXRUNTIME, folder / graph_file(name), stage(dimensions, name), options)
            for name in ("unet", "unet_plain", "solver")
        }
        self.table = ScheduleTable.from_json(told["schedule"])
        self.gated = int(told["gate_fraction"] * self.table.evaluations)
        with np.load(folder / "inputs.npz", allow_pickle=False) as file:
            self.inputs = {key: file[key] for key in file.files}
        self.guidance = np.array([told["guidance"]], np.float32)
        self.versions = our_versions("onnxruntime")

    def _predict(self, i: int, x: Feed, timestep: float) -> Feed:
        feeds: dict[str, Feed] = {
            "latents": x, "timestep": np.array([timestep], np.float32), "guidance": self.guidance,
            "conditioning": self.inputs["conditioning"],
        }  # fmt: skip
        if i >= self.gated:
            return self.sessions["unet_plain"].run(feeds, keep=("prediction",)).kept["prediction"]
        where = {name: self.inputs[name] for name in ("boxes", "box_mask", "phrase_embeddings")}
        return self.sessions["unet"].run({**feeds, **where}, keep=("prediction",)).kept["prediction"]

    def _advance(self, coefficients: Floats, latents: Sequence[Feed], predictions: Sequence[Feed]) -> Feed:
        session = self.sessions["solver"]
        feeds = solver_feeds(session.spec, coefficients, latents, predictions)
        return session.run(feeds, keep=("next_latents",)).kept["next_latents"]

    def _steps(self) -> Iterator[Feed]:
        return denoise(self.table, self.inputs["noise"], self._predict, self._advance)

    def outputs(self) -> Outputs:
        *_, last = self._steps()
        return {"latents": host_array(last)}

    def run_ms(self) -> float:
        """Milliseconds a step, from the end of the second to the end of the last: the other side measures no more."""
        _, *ends_s = [time.perf_counter() for _ in self._steps()]
        return (ends_s[-1] - ends_s[0]) * 1e3 / (len(ends_s) - 1)
