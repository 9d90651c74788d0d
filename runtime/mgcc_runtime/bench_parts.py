"""The parts of `mgcc bench` beside the plain request: a dialogue, and more text, objects, images and threads."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
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
    """Milliseconds over all runs; percentiles interpolate linearly between the ordered runs (numpy's default)."""

    mean: float
    p50: float
    p90: float
    p99: float

    @classmethod
    def of(cls, milliseconds: Sequence[float]) -> Summary:
        p50, p90, p99 = np.percentile(milliseconds, (50, 90, 99), method="linear")
        return cls(*(round(float(v), 3) for v in (np.mean(milliseconds), p50, p90, p99)))


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
    rows = []
    for number, results in enumerate(zip(*measured, strict=False), 1):
        row = {"turn": number, "total_ms": asdict(Summary.of([r.timings["total"] for r in results]))}
        rows.append({**row, "reading_ms": asdict(Summary.of([_reading_ms(r) for r in results]))})
    found: dict[str, Any] = {"rounds": rounds, "asked_turns": TURNS, "turns": len(rows), "by_turn": rows}
    if len(rows) >= 10:
        p50 = [row["total_ms"]["p50"] for row in rows]  # type: ignore[index]
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

    "reading_grows_as": with t(n) = c n^a, the exponent a of reading's time over positions of text, by least squares;
    1 is as fast as the work, attention's share of which grows faster.
    """
    positions = list(_by_positions(pipeline, workload, runs, say))
    return {
        "runs_a_point": runs,
        "positions": positions,
        "reading_grows_as": growth([(row["positions"], row["reading_ms"]["p50"]) for row in positions]),
        "objects": list(_by_objects(pipeline, workload, runs, say)),
        "images": list(_by_images(pipeline, workload, runs, say)),
        "threads": [_by_threads(pipeline, workload, count, runs, say) for count in THREADS],
    }


def growth(points: Sequence[tuple[float, float]]) -> float | None:
    """The exponent a of the power law c n^a through points (n, time), on logarithms; None for fewer than 3."""
    if len(points) < 3:
        return None
    n, times = np.log(np.array(points)).T
    return round(float(np.polyfit(n, times, 1)[0]), 3)


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


def _total(results: Sequence[Result]) -> dict[str, float]:
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
