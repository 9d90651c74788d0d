"""What `mgcc bench` measured, as lines for a person."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

_COLUMNS = ("mean", "p50", "p90", "p99")


def bench_table(found: Mapping[str, Any]) -> Iterator[str]:
    """The object of `bench` in lines; parts that were not measured are left out."""
    machine, bundle = found["machine"], found["bundle"]
    yield f"{machine['cpu']}, {machine['threads']} threads; {found['runs']} runs after {found['warmup']}"
    yield f"{bundle['profile']} for {bundle['target']} ({bundle['weights']} weights), {found['request']['steps']} steps"
    yield f"{'milliseconds':22} " + " ".join(f"{name:>9}" for name in _COLUMNS)
    for name, summary in _rows(found):
        yield f"{name:22} " + " ".join(f"{summary[column]:9.2f}" for column in _COLUMNS)
    yield from _lines(found)


def _rows(found: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, float]]]:
    if cold := found.get("cold_start"):
        yield from ((f"cold {name}", summary) for name, summary in cold["phases_ms"].items())
        yield "cold total", cold["total_ms"]
    if "total_ms" in found:
        yield from {**found["stages_ms"], "total": found["total_ms"], **found["per_call_ms"]}.items()
    if dialogue := found.get("dialogue"):
        yield from ((f"turn {row['turn']}", row["total_ms"]) for row in dialogue["by_turn"])
    if scale := found.get("scale"):
        for kind in ("positions", "objects", "images", "threads"):
            yield from ((f"{row[kind]} {kind}", row["total_ms"]) for row in scale[kind])


def _lines(found: Mapping[str, Any]) -> Iterator[str]:
    if "total_ms" in found:
        rates = ", ".join(f"{name} {rate:g} tokens/s" for name, rate in found["tokens_per_s"].items())
        yield f"{rates}; load {found['load_ms']:.0f} ms, peak memory {found['peak_rss_mb']} MB"
        if power := found["power"]:
            heat = max(power["hottest_c"].values(), default=float("nan"))
            throttled = "throttled" if power["throttled"] else "not throttled"
            yield f"{power['energy_per_image_j']} J an image, {power['mean_power_w']} W, {heat} C, {throttled}"
    if "dialogue" in found and "turn_10_against_2" in found["dialogue"]:
        yield f"turn 10 takes {found['dialogue']['turn_10_against_2']} times turn 2"
    if scale := found.get("scale"):
        if (exponent := scale["reading_grows_as"]) is not None:
            yield f"reading n positions of text grows as n^{exponent:g}"
        yield "; ".join(f"{row['threads']} threads: {row['images_per_s']} images/s" for row in scale["threads"])
