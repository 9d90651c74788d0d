"""The parts of `mgcc bench` beside the plain request: a dialogue, and more text, objects, images and threads."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mgcc_runtime.errors import ContextLimitError
from mgcc_runtime.layout import Box
from mgcc_runtime.pipeline import Pipeline
from mgcc_runtime.prompt import Part
from mgcc_runtime.results import Result

Say = Callable[[str], None]

TURNS = 20
MOST_OBJECTS = MOST_IMAGES = 8
THREADS = (1, 2, 4)
SHORTEST_POSITIONS = 64
#: Runs of which one at least is slower than the percentile.
LEAST_RUNS = {"p90": 10, "p99": 100}
NO_BATCH = "the runtime has no batch: several requests at once are threads on one pipeline"
_TURN_TEXTS = (
    "There is a {} in the picture.",
    "Now a {} comes in from the left.",
    "Move the {} to the upper right.",
    "Please make the {} larger.",
)
_THINGS = ("cat", "dog", "tree", "car", "ball")  # for a bundle of open vocabulary


@dataclass(frozen=True)
class Workload:
    """The request that is timed; the same seed each time, so that each run does the same work."""

    parts: tuple[Part, ...]
    steps: int
    words: int
    seed: int = 0


@dataclass(frozen=True)
class Summary:
    """Milliseconds over all runs; percentiles interpolate linearly between the ordered runs (numpy's default).

    A percentile that so few runs cannot carry (`LEAST_RUNS`) is the slowest run, and named in `as_max`.
    """

    runs: int
    mean: float
    p50: float
    p90: float
    p99: float
    max: float
    as_max: tuple[str, ...]

    @classmethod
    def of(cls, milliseconds: Sequence[float]) -> Summary:
        runs = len(milliseconds)
        as_max = tuple(name for name, least in LEAST_RUNS.items() if runs < least)
        wanted = (50, 100 if "p90" in as_max else 90, 100 if "p99" in as_max else 99, 100)
        p50, p90, p99, most = (round(float(v), 3) for v in np.percentile(milliseconds, wanted, method="linear"))
        return cls(runs, round(float(np.mean(milliseconds)), 3), p50, p90, p99, most, as_max)


def draw(pipeline: Pipeline, workload: Workload) -> Result:
    """One request of a workload."""
    return pipeline.generate(workload.parts, seed=workload.seed, steps=workload.steps, words=workload.words)


def things(pipeline: Pipeline) -> tuple[str, ...]:
    """Labels that this bundle can draw."""
    return pipeline.labels.names or _THINGS


def turn_texts(pipeline: Pipeline, turns: int) -> Iterator[str]:
    """What is said in each turn of the dialogue."""
    names = things(pipeline)
    for i in range(turns):
        yield _TURN_TEXTS[i % len(_TURN_TEXTS)].format(names[i // len(_TURN_TEXTS) % len(names)])


def measure_dialogue(pipeline: Pipeline, workload: Workload, rounds: int, say: Say) -> dict[str, Any]:
    """Cost of each turn of a chat with its cache kept, over several dialogues after one that is not counted.

    "reading_ms" is what grows where a cache is not kept: vision and prefill. A dialogue that no longer fits the
    context ends early; "turns" says how many were measured.
    """
    whole: list[list[Result]] = []
    for i in range(rounds + 1):
        say(f"dialogue {i} of {rounds}" if i else "dialogue, warm-up")
        whole.append(_hold_dialogue(pipeline, workload))
    measured = whole[1:]
    rows: list[dict[str, Any]] = []
    for number, results in enumerate(zip(*measured, strict=False), 1):
        row = {"turn": number, "total_ms": asdict(Summary.of([r.timings["total"] for r in results]))}
        rows.append({**row, "reading_ms": asdict(Summary.of([_reading_ms(r) for r in results]))})
    found: dict[str, Any] = {"rounds": rounds, "asked_turns": TURNS, "turns": len(rows), "by_turn": rows}
    found["grows_as"] = {"turns": _growth_of(rows, "turn"), "turns_reading": _growth_of(rows, "turn", "reading_ms")}
    if len(rows) >= 10:
        p50 = [row["total_ms"]["p50"] for row in rows]
        found["turn_10_against_2"] = round(p50[9] / p50[1], 3)
    return found


def _hold_dialogue(pipeline: Pipeline, workload: Workload) -> list[Result]:
    chat, results = pipeline.chat(), []
    for text in turn_texts(pipeline, TURNS):
        try:
            result = chat.send(text, seed=workload.seed, steps=workload.steps, words=workload.words)
        except ContextLimitError:
            break
        results.append(result)
    return results


def _reading_ms(result: Result) -> float:
    return result.timings.get("vision_encoder", 0.0) + result.timings["llm_prefill"]


def measure_scale(pipeline: Pipeline, workload: Workload, runs: int, say: Say) -> dict[str, Any]:
    """Requests of more and more text, of 1 to 8 objects, of 1 to 8 images, and from several threads at once.

    "grows_as": `growth` of the median time over each of them, and over text and images of reading's alone.
    """
    positions = list(_by_positions(pipeline, workload, runs, say))
    objects = list(_by_objects(pipeline, workload, runs, say))
    images = list(_by_images(pipeline, workload, runs, say))
    threads = [_by_threads(pipeline, workload, count, runs, say) for count in THREADS]
    return {
        "runs_a_point": runs,
        "positions": positions,
        "objects": objects,
        "images": images,
        "threads": threads,
        "batch": NO_BATCH,
        "grows_as": {
            "text": _growth_of(positions, "positions"),
            "text_reading": _growth_of(positions, "positions", "reading_ms"),
            "objects": _growth_of(objects, "objects"),
            "images": _growth_of(images, "images"),
            "images_reading": _growth_of(images, "images", "reading_ms"),
            "concurrency": _growth_of(threads, "threads"),
        },
    }


def growth(points: Sequence[tuple[float, float]]) -> dict[str, float] | None:
    """How a time grows: the exponent a of the power law c n^a through points (n, time), by least squares on logarithms.

    1 is as fast as n. Returns {"exponent", "least", "most", "from", "to"}: `least` and `most` are the exponents found
    with any one point left out, `from` and `to` the n between which it holds. None for fewer than 3 points.
    """
    if len(points) < 3:
        return None
    logs = np.log(np.array(points, np.float64))
    without = [_slope(np.delete(logs, i, axis=0)) for i in range(len(logs))]
    counts = [n for n, _ in points]
    return {
        "exponent": _slope(logs), "least": min(without), "most": max(without), "from": min(counts), "to": max(counts),
    }  # fmt: skip


def _slope(logs: NDArray[np.float64]) -> float:
    """Of the line through points (x, y), given as (N, 2)."""
    return round(float(np.polyfit(logs[:, 0], logs[:, 1], 1)[0]), 3)


def _growth_of(rows: Sequence[Mapping[str, Any]], over: str, time_name: str = "total_ms") -> dict[str, float] | None:
    return growth([(row[over], row[time_name]["p50"]) for row in rows])


def _by_positions(pipeline: Pipeline, workload: Workload, runs: int, say: Say) -> Iterator[dict[str, Any]]:
    """Twice as much text each time, from 64 positions on, as far as the context reaches."""
    texts: list[str] = []
    more = itertools.cycle(turn_texts(pipeline, TURNS))
    for wanted in (SHORTEST_POSITIONS << i for i in itertools.count()):
        while (length := pipeline.prompts.build([*texts, "The end."]).length) < wanted:
            texts.append(next(more))
        say(f"{length} positions")
        parts = [*texts, "The end."]
        try:
            results = [pipeline.generate(parts, seed=workload.seed, steps=workload.steps) for _ in range(runs + 1)][1:]
        except ContextLimitError:
            return
        reading = asdict(Summary.of([_reading_ms(r) for r in results]))
        yield {"positions": length, "reading_ms": reading, "total_ms": _total(results)}


def _by_objects(pipeline: Pipeline, workload: Workload, runs: int, say: Say) -> Iterator[dict[str, Any]]:
    d, names = pipeline.bundle.manifest.dimensions, things(pipeline)
    for count in range(1, min(MOST_OBJECTS, d.objects) + 1):
        say(f"{count} objects")
        boxes = [Box(names[i % len(names)], _place(i, d.image_px)) for i in range(count)]
        results = [
            pipeline.generate(workload.parts, seed=workload.seed, steps=workload.steps, boxes=boxes)
            for _ in range(runs + 1)
        ]
        yield {"objects": count, "total_ms": _total(results[1:])}


def _place(number: int, size: int) -> tuple[float, float, float, float]:
    """One of eight places, two rows of four, a little apart."""
    left, top, side = number % 4 * size / 4, number // 4 * size / 2, size / 5
    return (left, top, left + side, top + side)


def _by_images(pipeline: Pipeline, workload: Workload, runs: int, say: Say) -> Iterator[dict[str, Any]]:
    size = pipeline.bundle.manifest.dimensions.image_px
    shades = np.linspace(0, 255, size * size * 3).astype(np.uint8).reshape(size, size, 3)
    for count in range(1, MOST_IMAGES + 1):
        say(f"{count} images")
        parts: list[Part] = [
            "Here is what was seen.",
            *[Image.fromarray(np.roll(shades, i, axis=2)) for i in range(count)],
        ]
        try:
            results = [pipeline.generate(parts, seed=workload.seed, steps=workload.steps) for _ in range(runs + 1)][1:]
        except ContextLimitError:
            return  # so many do not fit this bundle's context
        reading = asdict(Summary.of([_reading_ms(r) for r in results]))
        yield {"images": count, "reading_ms": reading, "total_ms": _total(results)}


def _total(results: Sequence[Result]) -> dict[str, Any]:
    return asdict(Summary.of([r.timings["total"] for r in results]))


def _by_threads(pipeline: Pipeline, workload: Workload, count: int, runs: int, say: Say) -> dict[str, Any]:
    """`count` threads with `runs` requests each, all at once; the engines' own threads come on top."""
    say(f"{count} threads")
    with ThreadPoolExecutor(count) as pool:
        list(pool.map(lambda _: draw(pipeline, workload), range(count)))  # each thread's first request
        start_s = time.perf_counter()
        results = list(pool.map(lambda _: draw(pipeline, workload), range(count * runs)))
        spent_s = time.perf_counter() - start_s
    images_per_s = round(len(results) / spent_s, 4)
    return {"threads": count, "requests": len(results), "images_per_s": images_per_s, "total_ms": _total(results)}
