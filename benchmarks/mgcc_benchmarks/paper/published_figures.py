"""Published figures, and the reasons why a run does not compare with them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mgcc_benchmarks.paper.protocol import Known, Protocol, differences
from mgcc_benchmarks.paper.scoring import CLIP, SCORES, Scored
from mgcc_runtime.commands.tables import markdown_table


@dataclass(frozen=True)
class Figure:
    method: str
    source: str
    values: Mapping[str, float]  # by the score


_MGCC, _GILL = "MGCC", "GILL"
_ABSTRACT = "arXiv 2405.18304, abstract"
#: By the benchmark. The abstract names no setting; GILL's code runs the whole context.
PUBLISHED = {
    "vist": (Figure(_MGCC, _ABSTRACT, {CLIP: 0.652}), Figure(_GILL, _ABSTRACT, {CLIP: 0.641})),
    "visdial": (Figure(_MGCC, _ABSTRACT, {CLIP: 0.660}), Figure(_GILL, _ABSTRACT, {CLIP: 0.645})),
}


def obstacles(protocol: Protocol, gill: Protocol, likenesses: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Why such scores do not quite compare with the published ones, a phrase each."""
    changed = differences(protocol, gill)
    found = [f"switches other than protocol {Known.GILL.value}: {', '.join(changed)}"] if changed else []
    if CLIP in likenesses and not likenesses[CLIP]["vit_l_14"]:
        found.append("the CLIP is no ViT-L/14")
    return [*found, "noise from another generator than GILL's"]


def table(name: str, setting: str, scores: Mapping[str, Scored], against: Sequence[str]) -> str:
    """Markdown: this run above the published figures, and their differences."""
    shown = [score for score in SCORES if score in scores or any(score in f.values for f in PUBLISHED[name])]
    rows = [[f"this run, setting {setting}", *(_cell(scores.get(score)) for score in shown), _pairs(scores)]]
    for figure in PUBLISHED[name]:
        theirs = (f"{figure.values[score]:.3f}" if score in figure.values else "" for score in shown)
        rows.append([figure.method, *theirs, figure.source])
    lines = markdown_table(["", *shown, "source"], rows)
    return "\n".join([*lines, "", f"Compares with the published figures but for: {'; '.join(against)}."])


def _cell(scored: Scored | None) -> str:
    if scored is None or scored.score.value is None or scored.score.ci95 is None:
        return "not measured"
    low, high = scored.score.ci95
    return f"{scored.score.value:.3f} ({low:.3f} to {high:.3f})"


def _pairs(scores: Mapping[str, Scored]) -> str:
    return ", ".join(f"{name}: {scored.pairs} of {scored.items} pairs" for name, scored in scores.items())
