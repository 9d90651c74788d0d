"""Draw docs/stages.png, the stages and what flows between them: `python tools/stage_diagram.py`.

What is drawn is declared here and held against the tensor contract: a flow names an output or input that its stage has.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch

from mgcc_runtime.commands.console import command, note
from mgcc_runtime.contract import StageSpec, stages
from mgcc_runtime.errors import EXIT_DONE, InputError
from tools.stage_table import symbolic_dimensions

PICTURE = Path(__file__).parents[1] / "docs" / "stages.png"

_WIDTH, _HEIGHT = 1.9, 0.8
_STAGE, _HOST = "#dce8f5", "#f4f1e6"


@dataclass(frozen=True)
class Box:
    """A stage of the contract, or what the runtime itself does (`stage` False); x and y of its centre."""

    text: str
    x: float
    y: float
    stage: bool = True


BOXES = {
    "images": Box("images", 0.0, 3.0, stage=False),
    "texts": Box("texts", 0.0, 1.5, stage=False),
    "vision_encoder": Box("vision_encoder\nCLIP's vision tower", 3.1, 3.0),
    "prompt": Box("prompt\ntokens, [IMG]", 3.1, 1.5, stage=False),
    "llm": Box("llm\nfrozen language model", 6.3, 1.5),
    "text": Box("text", 6.3, 0.0, stage=False),
    "refiner": Box("refiner\nCMRM and mapper", 9.5, 2.5),
    "grounder": Box("grounder\nCOGM: boxes", 9.5, 0.5),
    "unet": Box("unet\none denoising step", 12.8, 1.5),
    "solver": Box("solver\nnext latents", 12.8, 3.2),
    "vae_decoder": Box("vae_decoder\nlatents to pixels", 16.0, 3.2),
    "picture": Box("picture", 16.0, 1.5, stage=False),
}


@dataclass(frozen=True)
class Flow:
    """An arrow; `tensor` is an output of `source` or an input of `target`, as the contract names it."""

    source: str
    target: str
    tensor: str = ""
    bend: float = 0.0


FLOWS = (
    Flow("images", "vision_encoder"),
    Flow("vision_encoder", "prompt", "visual_tokens"),
    Flow("texts", "prompt"),
    Flow("prompt", "llm", "inputs_embeds"),
    Flow("llm", "text", "logits"),
    Flow("llm", "refiner", "hidden_states"),
    Flow("llm", "grounder", "hidden_states"),
    Flow("refiner", "unet", "conditioning"),
    Flow("grounder", "unet", "boxes"),
    Flow("unet", "solver", "prediction", bend=-0.25),
    Flow("solver", "unet", "next_latents", bend=-0.25),
    Flow("solver", "vae_decoder", "latents"),
    Flow("vae_decoder", "picture", "image"),
)


def unknown_flows(specs: dict[str, StageSpec], flows: tuple[Flow, ...] = FLOWS) -> list[Flow]:
    """Flows with a stage that the contract lacks, or a tensor that neither end has."""
    strange = []
    for flow in flows:
        ends = [name for name in (flow.source, flow.target) if BOXES[name].stage]
        out = {t.name for t in specs[flow.source].outputs} if flow.source in specs else set()
        into = {t.name for t in specs[flow.target].inputs} if flow.target in specs else set()
        if not specs.keys() >= set(ends) or (flow.tensor and flow.tensor not in out | into):
            strange.append(flow)
    return strange


def draw() -> Figure:
    """The whole picture."""
    figure = Figure(figsize=(12, 3.6), layout="constrained")
    ax = figure.subplots()
    patches: dict[str, FancyBboxPatch] = {}
    for key, box in BOXES.items():
        corner = (box.x - _WIDTH / 2, box.y - _HEIGHT / 2)
        style = {"facecolor": _STAGE if box.stage else _HOST, "edgecolor": "#444444", "linewidth": 1}
        patches[key] = FancyBboxPatch(corner, _WIDTH, _HEIGHT, boxstyle="round,pad=0.05", **style)
        ax.add_patch(patches[key])
        name, _, what = box.text.partition("\n")
        ax.text(box.x, box.y + (0.14 if what else 0), name, ha="center", va="center", fontsize=9, weight="bold")
        ax.text(box.x, box.y - 0.2, what, ha="center", va="center", fontsize=7)
    for flow in FLOWS:
        _arrow(ax, flow, patches[flow.source], patches[flow.target])
    ax.set_xlim(-1.2, 17.3)
    ax.set_ylim(-0.6, 3.8)
    ax.set_axis_off()
    return figure


def _arrow(ax: Axes, flow: Flow, source: FancyBboxPatch, target: FancyBboxPatch) -> None:
    start, end = BOXES[flow.source], BOXES[flow.target]
    ax.annotate(
        "",
        (end.x, end.y),
        (start.x, start.y),
        arrowprops={
            "arrowstyle": "-|>",
            "color": "#444444",
            "patchA": source,
            "patchB": target,
            "shrinkA": 2,
            "shrinkB": 2,
            "connectionstyle": f"arc3,rad={flow.bend}",
        },
    )
    across, up = end.x - start.x, end.y - start.y
    # beside an upright arrow, on the side that it bends to; else above its middle
    beside = not across
    x = (start.x + end.x) / 2 + ((0.1 + abs(flow.bend)) * (1 if flow.bend * up >= 0 else -1) if beside else 0.0)
    y = (start.y + end.y) / 2 + (0.0 if beside else 0.13)
    side = "center" if not beside else "left" if flow.bend * up >= 0 else "right"
    ax.text(x, y, flow.tensor, ha=side, va="center" if beside else "bottom", fontsize=6.5, color="#226622")


@command("stage_diagram.py")
def main(arguments: Sequence[str] | None = None) -> int:
    """Write the picture; returns the exit code."""
    parser = argparse.ArgumentParser(prog="stage_diagram.py", description=__doc__)
    parser.add_argument("--out", type=Path, default=PICTURE, metavar="FILE.png")
    out = parser.parse_args(arguments).out
    specs = {spec.name: spec for spec in stages(symbolic_dimensions()[0])}
    if strange := unknown_flows(specs):
        raise InputError(f"the contract has nothing like {strange}; correct FLOWS")
    draw().savefig(out, dpi=110)
    note(str(out))
    return EXIT_DONE


if __name__ == "__main__":
    sys.exit(main())
