"""What `mgcc bench` measured, as lines for a person."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

_COLUMNS = ("mean", "p50", "p90", "p99", "max")
#: What stands behind the number of a row of "scale".
SCALES = {"positions": "positions", "objects": "objects", "images": "images", "threads": "at once"}
#: Keys of "grows_as", in words.
GROWTHS = {
    "text": "a request over positions of text", "text_reading": "reading over positions of text",
    "objects": "a request over objects", "images": "a request over images", "images_reading": "reading over images",
    "concurrency": "a request over how many at once",
    "turns": "a turn over its number", "turns_reading": "reading over a turn's number",
}  # fmt: skip


def bench_table(found: Mapping[str, Any]) -> Iterator[str]:
    """The object of `bench` in lines; parts that were not measured are left out."""
    machine, bundle = found["machine"], found["bundle"]
    yield f"{machine['cpu']}, {machine['threads']} threads; {found['runs']} runs after {found['warmup']}"
    yield f"{bundle['profile']} for {bundle['target']} ({bundle['weights']} weights), {found['request']['steps']} steps"
    yield f"{'milliseconds':22} " + " ".join(f"{name:>9}" for name in _COLUMNS)
    for name, summary in _rows(found):
        yield f"{name:22} " + " ".join(_cell(summary, column) for column in _COLUMNS)
    yield "-: fewer runs than 10 for p90, than 100 for p99"
    yield from _lines(found)


def loads_of(found: Mapping[str, Any]) -> dict[str, float | None]:
    """Cores that others used, by the part that was measured meanwhile; `found` as `bench` returns it."""
    parts = {"cold": found.get("cold_start"), "latency": found if "total_ms" in found else None}
    parts |= {name: found.get(name) for name in ("dialogue", "scale")}
    return {name: part["others_cores"] for name, part in parts.items() if part is not None}


def growth_text(growth: Mapping[str, float]) -> str:
    """An exponent with its range, the exponents without any one point, and where it was measured."""
    return (
        f"n^{growth['exponent']:.2f} ({growth['least']:.2f} to {growth['most']:.2f} without one of the points), "
        f"n from {growth['from']:g} to {growth['to']:g}"
    )


def _cell(summary: Mapping[str, Any], column: str) -> str:
    return f"{'-':>9}" if column in summary["as_max"] else f"{summary[column]:9.2f}"


def _rows(found: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    if cold := found.get("cold_start"):
        yield from ((f"cold {name}", summary) for name, summary in cold["phases_ms"].items())
        yield "cold total", cold["total_ms"]
    if "total_ms" in found:
        yield from {**found["stages_ms"], "total": found["total_ms"], **found["per_call_ms"]}.items()
    if dialogue := found.get("dialogue"):
        yield from ((f"turn {row['turn']}", row["total_ms"]) for row in dialogue["by_turn"])
    if scale := found.get("scale"):
        for kind, words in SCALES.items():
            yield from ((f"{row[kind]} {words}", row["total_ms"]) for row in scale[kind])


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
    for part in ("dialogue", "scale"):
        for name, growth in found.get(part, {}).get("grows_as", {}).items():
            if growth is not None:
                yield f"{GROWTHS[name]} grows as {growth_text(growth)}"
    if scale := found.get("scale"):
        rates = ", ".join(f"{row['threads']} at once: {row['images_per_s']} images/s" for row in scale["threads"])
        yield f"{scale['batch']}; {rates}"
    loads = ", ".join(f"{name} {'unknown' if load is None else load}" for name, load in loads_of(found).items())
    yield f"cores that other programs used: {loads}"
