"""The comparison as a Markdown table and as a picture."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import starmap
from typing import Any

from matplotlib.figure import Figure

from mgcc_runtime.commands.tables import markdown_table

_RATIO_HEAD = ("comparison", "ratio", "95 % interval", "aimed at", "ours, ms", "theirs, ms")
_FIGURE_HEAD = ("figure", "value", "95 % interval", "aimed at")
_FASTER, _SLOWER, _AIM = "tab:green", "tab:orange", "tab:red"


def markdown(found: Mapping[str, Any]) -> str:
    """The whole report as Markdown."""
    return "\n".join(_lines(found)) + "\n"


def _lines(found: Mapping[str, Any]) -> Iterator[str]:
    machine, bundle = found["machine"], found["bundle"]
    yield f"# Ours against others: {bundle['profile']} on {machine['cpu']}, {found['threads']} threads"
    yield ""
    if not found["quotable"]:
        yield f"**Not to be quoted: {'; '.join(found['why_not_quotable'])}.**"
        yield ""
    yield f"Bundle `{bundle['sha256'][:12]}`, {found['runs']} rounds a comparison after {found['warm_up']} that are not"
    yield "counted, both sides in turns, the first to go changing from round to round, with the same threads, weights"
    yield "and inputs, and found to give the same before. Ratios are theirs / ours: above 1 ours is faster. A figure of"
    yield "fewer than 10 measurements has no interval."
    yield ""
    if not found["complete"]:
        yield "**Incomplete: the run did not come to its end.**"
        yield ""
    if found["ratios"]:
        yield from markdown_table(_RATIO_HEAD, starmap(_ratio_row, found["ratios"].items()), text_columns=1)
        yield ""
    if found["figures"]:
        yield from markdown_table(_FIGURE_HEAD, starmap(_figure_row, found["figures"].items()), text_columns=1)
        yield ""
    for kind, heading in (("skipped", "Left out:"), ("failed", "Failed:")):
        if found[kind]:
            yield heading
            yield from (f"- `{name}`: {why}" for name, why in found[kind].items())
            yield ""


def _ratio_row(name: str, row: Mapping[str, Any]) -> Sequence[str]:
    aim = "" if row["aim"] is None else f"≥ {row['aim']:g}"
    return f"`{name}`", f"{row['value']:.2f}", _interval(row), aim, f"{row['ours_ms']:.2f}", f"{row['theirs_ms']:.2f}"


def _figure_row(name: str, row: Mapping[str, Any]) -> Sequence[str]:
    aim = "" if row["aim"] is None else f"≤ {row['aim']:g} {row['unit']}"
    return f"`{name}`", f"{row['value']:.3g} {row['unit']}", _interval(row), aim


def _interval(row: Mapping[str, Any]) -> str:
    low, high = row["ci95"]
    return "" if low is None else f"{low:.3g} to {high:.3g}"


def chart(found: Mapping[str, Any]) -> Figure:
    """A bar from 1 to each ratio on a logarithmic scale, a whisker for its interval, a red mark at the aim."""
    rows: Mapping[str, Mapping[str, Any]] = found["ratios"]
    figure = Figure(figsize=(8.4, 1.4 + 0.26 * max(1, len(rows))), layout="constrained")
    title = f"{found['bundle']['profile']} on {found['machine']['cpu']}, {found['threads']} threads"
    note = "times faster than theirs (right of the line); whisker: 95 % interval; red mark: aimed at"
    busy = "" if found["quotable"] else "\nNOT TO BE QUOTED: the machine was busy"
    figure.suptitle(f"{title}\n{note}{busy}", fontsize=9, color=_AIM if busy else "black")
    ax = figure.subplots()
    for place, row in enumerate(rows.values()):
        value, low, high = row["value"], *(end or row["value"] for end in row["ci95"])
        colour, whisker = _FASTER if value >= 1 else _SLOWER, [[value - low], [high - value]]
        ax.barh(place, value - 1, left=1, color=colour, height=0.6, xerr=whisker, error_kw={"lw": 1, "capsize": 2})
        text = f"{value:.2f}"
        if row["aim"] is not None:
            ax.vlines(row["aim"], place - 0.4, place + 0.4, colors=_AIM, linewidth=2)
            text += f" (aim {row['aim']:g})"
        ax.annotate(text, (1.01, place), xycoords=("axes fraction", "data"), va="center", fontsize=8)
    ax.set_xscale("log")
    ax.axvline(1, color="black", linewidth=1)
    ax.set_yticks(range(len(rows)), list(rows), fontsize=8)
    ax.set_xticks(ticks := [0.5, 1, 2, 3, 4, 5, 6], [f"{tick:g}" for tick in ticks])
    ax.minorticks_off()
    ax.invert_yaxis()
    ax.spines[["top", "right"]].set_visible(False)
    return figure
