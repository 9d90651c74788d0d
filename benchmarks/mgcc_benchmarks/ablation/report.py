"""The ablation's tables and figure: scores of each arm, and what each module adds, with intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure

from mgcc_benchmarks.ablation.arms import LONGER_TIMES, Arm, Variant
from mgcc_benchmarks.bootstrap import Tally, bootstrap, bootstrap_runs, difference_runs
from mgcc_runtime.commands.tables import markdown_table

SHOWN = (
    "object_recall",
    "object_precision",
    "position_accuracy",
    "background_accuracy",
    "whole_scene",
    "clip_similarity",
)
#: The paper's CLIP similarities (arXiv 2405.18304) on VIST and VisDial. Only their order compares with StoryBench's.
PUBLISHED = {"stories": {"GILL": 0.641, "MGCC": 0.652}, "dialogues": {"GILL": 0.645, "MGCC": 0.660}}

ItemTallies = Mapping[Variant, Mapping[str, Tally]]

#: Which arms are compared with which, and why.
AGAINST: Mapping[str, tuple[Arm, tuple[Arm, ...]]] = {
    "against_gill": (
        Arm.GILL,
        (Arm.GILL_LONGER, Arm.CMRM_UNORDERED, Arm.CMRM, Arm.COGM, Arm.COGM_LONGER, Arm.BOTH_UNORDERED, Arm.BOTH),
    ),
    "against_cogm": (Arm.COGM, (Arm.COGM_LONGER, Arm.BOTH)),  # the gain of CMRM with boxes, and that of time
    "against_longer_cogm": (Arm.COGM_LONGER, (Arm.BOTH,)),  # the gain of CMRM over a longer-trained GILL
    "against_unordered": (Arm.BOTH_UNORDERED, (Arm.BOTH,)),  # the gain of the distance from the end
}
INTERVALS = (
    "Intervals are 95 %, percentile bootstrap. Items are resampled, and so are the seeds of an arm that has several: "
    "such an interval covers other items and another training, the latter roughly, for few seeds tell little of how "
    "far trainings differ. Intervals of an arm of one seed, of each seed alone and of the true captions cover other "
    "items only. A difference is over the items, noise and seeds that both arms share: an arm of one seed is compared "
    "with that seed of the other."
)


def runs_of(items: Sequence[ItemTallies], arm: Arm, score: str) -> dict[int | None, list[Tally]]:
    """One tally an item for each seed of the arm (None: it has no seed); empty if no item was drawn with it."""
    variants = [variant for variant in (items[0] if items else ()) if variant.arm is arm]
    return {variant.seed: [item[variant][score] for item in items] for variant in variants}


def gain(items: Sequence[ItemTallies], arm: Arm, base: Arm, score: str, *, seed: int) -> dict[str, Any]:
    """The arm's score minus the base's, over the seeds that both have: pairs of the same items, noise and seed."""
    ours, theirs = runs_of(items, arm, score), runs_of(items, base, score)
    shared = [s for s in ours if s in theirs]
    return difference_runs([ours[s] for s in shared], [theirs[s] for s in shared], seed=seed).to_json()


def summarise_arms(items: Sequence[ItemTallies], *, seed: int = 0) -> dict[str, Any]:
    """Scores of every arm over all its seeds and by seed, and the differences between arms (see AGAINST)."""
    scores, by_seed = {}, {}
    for arm in Arm:
        runs = {score: runs_of(items, arm, score) for score in SHOWN}
        scores[arm.value] = {s: bootstrap_runs([*runs[s].values()], seed=seed).to_json() for s in SHOWN}
        seeds = [s for s in runs[SHOWN[0]] if s is not None]
        if seeds:
            by_seed[arm.value] = {str(n): {s: bootstrap(runs[s][n], seed=seed).to_json() for s in SHOWN} for n in seeds}
    gains = {
        name: {arm.value: {s: gain(items, arm, base, s, seed=seed) for s in SHOWN} for arm in arms}
        for name, (base, arms) in AGAINST.items()
    }
    shares = {arm.value: share_of_ceiling(items, arm, seed=seed) for arm in Arm if arm is not arm.ceiling}
    return {"scores": scores, "by_seed": by_seed, "of_ceiling": shares, **gains, "intervals": INTERVALS}


def share_of_ceiling(items: Sequence[ItemTallies], arm: Arm, *, seed: int) -> dict[str, Any]:
    """The arm's CLIP similarity as a share of that of the same UNet with the truth, over the same items and noise.

    Without boxes hardly any object is drawn, so objects tell nothing of such an arm; this does.
    """
    best = runs_of(items, arm.ceiling, "clip_similarity").get(None, [])
    runs = runs_of(items, arm, "clip_similarity").values() if best else ()
    pairs = [[Tally(o.right, c.right) for o, c in zip(ours, best, strict=True)] for ours in runs]
    return bootstrap_runs(pairs, seed=seed).to_json()


def markdown_report(summary: Mapping[str, Any]) -> str:
    """Scores of the arms, their differences, the scores of each seed, and what the intervals cover."""
    gains = {
        f"{arm} minus {base.value}": scores
        for name, (base, _) in AGAINST.items()
        for arm, scores in summary[name].items()
    }
    seeds = {f"{arm}, seed {n}": s for arm, found in summary["by_seed"].items() for n, s in found.items()}
    tables = [
        _table("arm", summary["scores"], ".3f"),
        _table("difference", gains, "+.3f"),
        _table("one seed", seeds, ".3f"),
        _ceiling_table(summary["of_ceiling"]),
    ]
    return "\n".join([*tables, summary["intervals"]]) + "\n"


def _ceiling_table(shares: Mapping[str, Mapping[str, Any]]) -> str:
    rows = ([arm, _cell(share["value"], share["ci95"], ".3f")] for arm, share in shares.items())
    heading = "clip similarity as a share of the same UNet's with the true caption, and true boxes if it takes boxes"
    return "\n".join(markdown_table(["arm", heading], rows)) + "\n"


def training_report(result: Mapping[str, Any]) -> str:
    """What each arm's own modules are and were trained with, and the paper's scores; below the tables."""
    steps = result["training_steps"]
    rows = ([arm, f"{count:,}"] for arm, count in result["trained_parameters"].items())
    told = (
        f"Trained with {steps['align']:,} steps of tokens, refiner and mapper, {LONGER_TIMES} times as many in the "
        f"longer arms, and {steps['grounder']:,} of the grounder. All have the same data and the same weight of the "
        "background's token."
    )
    paper = ", ".join(f"{name} {value:.3f}" for name, value in result["paper_clip_similarity"].items())
    published = f"CLIP similarity in the paper, of another CLIP on other data: {paper}."
    return "\n".join([*markdown_table(["arm", "trained parameters"], rows), "", told, published]) + "\n"


def _table(heading: str, rows: Mapping[str, Mapping[str, Any]], form: str) -> str:
    """Rows against scores, each value with its interval, in the format `form`."""
    cells = (
        [name, *(_cell(scores[score]["value"], scores[score]["ci95"], form) for score in SHOWN)]
        for name, scores in rows.items()
    )
    return "\n".join(markdown_table([heading, *(score.replace("_", " ") for score in SHOWN)], cells)) + "\n"


def _cell(value: float | None, interval: Sequence[float], form: str) -> str:
    if value is None:
        return "not measured"
    low, high = interval
    return f"{value:{form}} [{low:{form}}, {high:{form}}]"


_COLOURS = (
    "#969696", "#b0a0be", "#9cc3e6", "#5696d2", "#eca050", "#c4786e", "#8fc79a", "#46965a", "#e1e1e1", "#cdcdcd",
)  # fmt: skip


def chart(summary: Mapping[str, Any], title: str) -> Figure:
    """A group of bars a score, a bar an arm, whiskers for the 95 % interval."""
    arms = list(summary["scores"])
    figure = Figure(figsize=(12, 5), layout="constrained")
    ax = figure.subplots()
    for a, arm in enumerate(arms):
        found = {g: summary["scores"][arm][score] for g, score in enumerate(SHOWN)}
        known = {g: (s["value"], *s["ci95"]) for g, s in found.items() if s["value"] is not None}
        places = [g + (a - (len(arms) - 1) / 2) / (len(arms) + 1) for g in known]
        values = [value for value, _, _ in known.values()]
        below = [max(0.0, value - low) for value, low, _ in known.values()]
        above = [max(0.0, high - value) for value, _, high in known.values()]
        style = {"color": _COLOURS[a % len(_COLOURS)], "edgecolor": "black", "linewidth": 0.5, "label": arm}
        ax.bar(places, values, width=1 / (len(arms) + 1), yerr=(below, above), error_kw={"lw": 1}, **style)
    ax.set_xticks(range(len(SHOWN)), [score.replace("_", " ") for score in SHOWN])
    ax.set_ylim(0, 1.02)
    ax.grid(axis="y", alpha=0.4)
    ax.set_axisbelow(True)
    ax.spines[["top", "right"]].set_visible(False)
    ax.set_title(title, loc="left")
    figure.legend(loc="outside lower center", ncols=4, fontsize=9)
    return figure
