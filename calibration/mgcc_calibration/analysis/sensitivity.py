"""What each layer's quantisation costs in the stage's output and in the image, and which layers to spare."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from types import TracebackType

import numpy as np

from mgcc_calibration.data.requests import Request, fitting_parts
from mgcc_calibration.errors import BudgetError
from mgcc_calibration.graphs.edit import Array
from mgcc_calibration.graphs.graph import Graph
from mgcc_calibration.quantise.observe import Samples
from mgcc_calibration.quantise.plan import Plan
from mgcc_calibration.quantise.qdq import write_qdq
from mgcc_runtime.bundle.folder import Bundle
from mgcc_runtime.contract import StageSpec
from mgcc_runtime.engines import EngineOptions, open_session
from mgcc_runtime.measure.similarity import psnr_db, relative_l2
from mgcc_runtime.names import PRESENT_PREFIX, EngineName, graph_file
from mgcc_runtime.pipeline import Pipeline

#: Quality of a stage's graph, higher is better: PSNR of images against fp32, or a StoryBench score.
Quality = Callable[[Graph], float]
#: Called with (layers done, layers in all).
Progress = Callable[[int, int], None]

#: Seeds of the stories drawn for comparison are this far from those that ranges were captured from.
OTHER_STORIES = 1_000_000
SAME_IMAGE_DB = 99.0  # stands for an infinite PSNR in figures and averages


@dataclass(frozen=True)
class LayerError:
    """One layer in int8 and all others exact. `error`: relative L2 of the stage's worst output."""

    layer: str
    kind: str
    error: float
    image_psnr_db: float | None = None


def main_outputs(spec: StageSpec) -> list[str]:
    """Outputs that count: a language model's new cache shows in its hidden states."""
    return [t.name for t in spec.outputs if not t.name.startswith(PRESENT_PREFIX)]


def stage_error(found: Graph, exact: Graph, outputs: Sequence[str], samples: Iterable[dict[str, Array]]) -> float:
    """Relative L2 of the worst of `outputs`, over all samples together."""
    sessions = found.session(), exact.session()
    pairs: dict[str, list[tuple[Array, Array]]] = {name: [] for name in outputs}
    for feeds in samples:
        ours, theirs = (session.run(list(outputs), feeds) for session in sessions)
        for name, a, b in zip(outputs, ours, theirs, strict=True):
            pairs[name].append((a.ravel(), b.ravel()))
    joined = [tuple(np.concatenate(side) for side in zip(*values, strict=True)) for values in pairs.values()]
    return max(relative_l2(a, b) for a, b in joined)


def worst_error(spec: StageSpec, found: Sequence[Mapping[str, Array]], exact: Sequence[Mapping[str, Array]]) -> float:
    """Relative L2 of the worst of a stage's main outputs, over all samples together.

    Hidden states by position and feature layer, each of which is normed before it is used: all together the first
    position, hundreds of times as large as the others, hides their errors (44 dB where the positions have 28).
    """
    width = {t.name: t.shape[-1] for t in spec.inputs}.get("inputs_embeds")
    errors = []
    for name in main_outputs(spec):
        pairs = [(a[name], b[name]) for a, b in zip(found, exact, strict=True)]
        if name == "hidden_states" and isinstance(width, int):
            errors.append(_position_error(pairs, width))
        else:
            errors.append(
                relative_l2(*(np.concatenate([x.ravel() for x in side]) for side in zip(*pairs, strict=True)))
            )
    return max(errors)


def _position_error(pairs: Sequence[tuple[Array, Array]], width: int) -> float:
    """Root mean square of the positions' relative L2 errors, of the worst feature layer of `width`."""
    a, b = (  # (positions, layers, width)
        np.concatenate([x.reshape(-1, x.shape[-1] // width, width) for x in side]) for side in zip(*pairs, strict=True)
    )
    apart = np.linalg.norm(a - b, axis=-1) / np.maximum(np.linalg.norm(b, axis=-1), 1e-12)
    return float(np.sqrt(np.square(apart).mean(axis=0)).max())


def signal_to_noise_db(error: float) -> float:
    """A relative L2 error in decibels: 20 dB is a tenth, 40 dB a hundredth."""
    return min(-20 * math.log10(error), SAME_IMAGE_DB) if error > 0 else SAME_IMAGE_DB


def layer_errors(
    plan: Plan,
    spec: StageSpec,
    samples: Samples,
    *,
    count: int = 6,
    quality: Quality | None = None,
    progress: Progress = lambda *_: None,
) -> list[LayerError]:
    """Each planned layer quantised alone, compared over `count` samples spread over all; worst first.

    With `quality` (PSNR of images) the whole image is made with each of the graphs, too.
    """
    chosen = spread(samples, count)
    outputs = main_outputs(spec)
    found = []
    for number, layer in enumerate(plan.layers, 1):
        graph = write_qdq(plan.only({layer.name}))
        error = stage_error(graph, plan.graph, outputs, chosen)
        found.append(LayerError(layer.name, layer.kind.value, error, quality(graph) if quality else None))
        progress(number, len(plan.layers))
    return sorted(found, key=lambda e: (-e.error, e.layer))


def output_quality(plan: Plan, spec: StageSpec, samples: Samples, count: int) -> Quality:
    """A measure of graphs, in dB: the stage's outputs against those of the plan's own graph, over `count` samples."""
    chosen, outputs = spread(samples, count), main_outputs(spec)
    return lambda graph: signal_to_noise_db(stage_error(graph, plan.graph, outputs, chosen))


def spread(samples: Samples, count: int) -> list[dict[str, Array]]:
    """`count` samples, evenly over all of them."""
    total = sum(1 for _ in samples())
    return list(islice(samples(), 0, None, max(1, total // count)))[:count]


@dataclass(frozen=True)
class Trial:
    """A graph with the `kept` most sensitive layers in higher precision, and its quality."""

    kept: int
    quality: float


@dataclass(frozen=True)
class SearchResult:
    """The plan with the fewest layers kept that meets the budget, and all that was tried."""

    plan: Plan
    trials: tuple[Trial, ...]
    least: float


def keep_worst(plan: Plan, errors: Collection[LayerError], quality: Quality, least: float) -> SearchResult:
    """Keep the most sensitive layers in higher precision until `quality` is `least` or more.

    Bisection over how many: each trial measures the real graph, and the answer is one that was measured; `plan` itself
    where that passes. BudgetError if the budget is missed with all layers kept.
    """
    order = [e.layer for e in sorted(errors, key=lambda e: (-e.error, e.layer))]
    trials: dict[int, float] = {}

    def tried(kept: int) -> float:
        if kept not in trials:
            trials[kept] = quality(write_qdq(plan.without(set(order[:kept]), "")))
        return trials[kept]

    if tried(0) >= least:  # bisection would look at other numbers first, and quality need not rise with each
        return SearchResult(plan, (Trial(0, tried(0)),), least)
    low, high = 1, len(order)
    if tried(high) < least:
        raise BudgetError(
            f"with all {high} layers in higher precision the quality is {tried(high):.4g}, expected at least "
            f"{least:g}; the budget is too tight for this measure, or the measure is not of this stage"
        )
    while low < high:
        middle = (low + high) // 2
        if tried(middle) >= least:
            high = middle
        else:
            low = middle + 1
    reason = f"among the {high} most sensitive, kept for a quality of {least:g} or more"
    kept = plan.without(set(order[:high]), reason)
    return SearchResult(kept, tuple(Trial(k, q) for k, q in sorted(trials.items())), least)


def draw(pipeline: Pipeline, requests: Sequence[Request], steps: int | None) -> list[Array]:
    """The requests' pictures: (H, W, 3) uint8 each."""
    return [
        np.asarray(pipeline.generate(fitting_parts(pipeline, r.parts, 0), seed=r.seed, steps=steps).image)
        for r in requests
    ]


def mean_psnr_db(found: Sequence[Array], exact: Sequence[Array]) -> float:
    """Mean PSNR of pairs of images, SAME_IMAGE_DB where they are equal."""
    return float(np.mean([min(psnr_db(a, b), SAME_IMAGE_DB) for a, b in zip(found, exact, strict=True)]))


class ImageQuality:
    """PSNR of whole images against the bundle's own, with one stage's graph in its place. Use as a context manager.

    The mean over the requests, in dB; the same noise, text and boxes' source each time.
    """

    def __init__(
        self, bundle: Bundle, stage: str, requests: Sequence[Request], *, steps: int | None = None, threads: int = 1
    ) -> None:
        self.stage, self.requests, self.steps = stage, requests, steps
        self._options = EngineOptions(threads)
        self._pipeline = Pipeline(bundle, self._options)
        self._own = self._pipeline.stages.sessions[stage]
        self._exact = self.images()

    def images(self) -> list[Array]:
        """The requests' pictures with the stage as it is now: (H, W, 3) uint8 each."""
        return draw(self._pipeline, self.requests, self.steps)

    def images_with(self, graph: Graph) -> list[Array]:
        """The requests' pictures with `graph` as the stage."""
        with tempfile.TemporaryDirectory(prefix="mgcc-calibration-") as folder:
            path = graph.save(Path(folder) / graph_file(self.stage))
            session = open_session(EngineName.ONNXRUNTIME, path, self._own.spec, self._options)
            self._pipeline.stages.sessions[self.stage] = session
            try:
                return self.images()
            finally:
                self._pipeline.stages.sessions[self.stage] = self._own
                session.close()

    def __call__(self, graph: Graph) -> float:
        return mean_psnr_db(self.images_with(graph), self._exact)

    @property
    def exact(self) -> list[Array]:
        """The bundle's own images."""
        return self._exact

    def close(self) -> None:
        self._pipeline.close()

    def __enter__(self) -> ImageQuality:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
