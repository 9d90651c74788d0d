"""Step `draw`: the decision to draw (`DrawDecision`), a logistic regression on the frozen language model's features."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw
from torch import Tensor, nn

from mgcc_ref.config import Profile
from mgcc_ref.model import DECISION_FILE, MgccModel, load_untrained
from mgcc_ref.networks.draw_decision import DrawDecision, turn_summary
from mgcc_ref.prompting import last_text
from mgcc_ref.story.draw_turns import DrawTurn, after_rounds, make_draw_turn, written_lines
from mgcc_ref.story.wording.phrases import Split
from mgcc_ref.train.context_store import ContextStore, grouped_by_length
from mgcc_ref.train.features import read_requests
from mgcc_ref.train.loop import Batch, TrainingPrecision, frozen_arithmetic, on_device_of
from mgcc_ref.weights import load_module, save_module

log = logging.getLogger("mgcc.train")

BATCH_SIZE = 512
GROUPS, HELD_BACK_GROUPS = 440, 15  # of GROUP_SIZE turns
SEED, HELD_BACK_SEED = 12_000_017, 13_000_027
#: Of the weights' squares in the loss. With 0.002 to 0.06, lines of authors that a fit had not seen were 0.946 to 0.948
#: right.
PENALTY = 0.008


def draw_turn(seed: int, split: Split, index: int) -> DrawTurn:
    """Turn `index` of the endless set `seed`. Training's begins with the written lines, and goes on with templates."""
    rng = np.random.default_rng([seed, index])
    if split is Split.TRAIN and index < len(written_lines()):
        return after_rounds(written_lines()[index], rng)
    return make_draw_turn(rng, split)


class DrawObjective(nn.Module):
    """Cross-entropy of drawing, and the penalty."""

    def __init__(self, decision: DrawDecision) -> None:
        super().__init__()
        self.decision = decision

    def forward(self, batch: Batch, step: int) -> tuple[Tensor, dict[str, Tensor]]:
        logits = self.decision(batch["summary"])
        loss = F.binary_cross_entropy_with_logits(logits, batch["draws"])
        right = ((logits > 0) == (batch["draws"] > 0.5)).float().mean().detach()
        return loss + 0.5 * PENALTY * self.decision.row.weight.square().sum(), {"accuracy": right}


class DrawStep:
    """Writes `decision.safetensors`. Turns are texts, so it needs nothing but the language model."""

    def __init__(
        self, profile: Profile, weights: Path, run_folder: Path, precision: TrainingPrecision = TrainingPrecision.FP32
    ) -> None:
        self._precision = precision  # of the frozen model
        self.model = load_untrained(profile)
        self._turns = self._read(run_folder / "train", GROUPS, partial(draw_turn, SEED, Split.TRAIN))
        held_back = partial(draw_turn, HELD_BACK_SEED, Split.VALIDATION)
        self._held_back = self._read(run_folder / "held-back", HELD_BACK_GROUPS, held_back)
        self.objective = DrawObjective(DrawDecision(profile.llm.feature_dim).requires_grad_(True))
        self.objective.decision.standardise(self._turns["summary"])

    def _read(self, folder: Path, groups: int, turn_of: Callable[[int], DrawTurn]) -> Batch:
        """Of each turn `summary` (N, 2 D_f) and `draws` (N,), in the order of `grouped_by_length`."""
        store = ContextStore(folder, groups)
        store.build(turn_of, partial(summaries, self.model, self._precision))
        read = [store[i] for i in range(groups)]
        return {name: torch.cat([group[name] for group in read]).float() for name in ("summary", "draws")}

    def batch(self, rng: np.random.Generator) -> Batch:
        chosen = torch.from_numpy(rng.integers(len(self._turns["draws"]), size=BATCH_SIZE))
        return {name: values[chosen] for name, values in self._turns.items()}

    def evaluate(self) -> dict[str, float]:
        """Shares for held-back phrasings: right decisions, drawn when asked, and not drawn when not asked."""
        decided = self._logits() > 0
        wanted = self._held_back["draws"] > 0.5
        return {
            "accuracy": float((decided == wanted).float().mean()),
            "drawn_when_asked": float(decided[wanted].float().mean()),
            "silent_when_not": float((~decided[~wanted]).float().mean()),
        }

    def _logits(self) -> Tensor:
        batch = on_device_of(self.objective, self._held_back)
        logits: Tensor = self.objective.decision(batch["summary"]).cpu()
        return logits

    def picture(self, path: Path) -> None:
        """The held-back turns with the most wrong decisions, and their logits."""
        count = len(self._held_back["draws"])
        grouped = grouped_by_length([draw_turn(HELD_BACK_SEED, Split.VALIDATION, i) for i in range(count)])
        lines = [turn.parts[-1] for group in grouped for turn in group]
        logits, draws = self._logits(), self._held_back["draws"]
        wrongness = torch.where(draws > 0.5, -logits, logits)
        image = Image.new("RGB", (900, 20 * 12 + 10), "white")
        canvas = ImageDraw.Draw(image)
        for row, index in enumerate(wrongness.argsort(descending=True)[:12].tolist()):
            wanted = "draw" if draws[index] > 0.5 else "talk"
            told = f"{float(logits[index]):+7.2f}  {wanted}: {lines[index][:110]}"
            canvas.text((8, 5 + 20 * row), told, fill="black")
        image.save(path)

    def save_weights(self, folder: Path) -> list[Path]:
        return [save_module(self.objective.decision, folder / DECISION_FILE)]

    def load_weights(self, folder: Path) -> None:
        load_module(self.objective.decision, folder / DECISION_FILE)


@torch.no_grad()
def summaries(model: MgccModel, precision: TrainingPrecision, turns: list[DrawTurn]) -> dict[str, Tensor]:
    """`summary` (N, 2 D_f) float16 and `draws` (N,) of dialogues, the last text of each being its turn."""
    with frozen_arithmetic(precision):
        features = read_requests(model, [turn.parts for turn in turns]).features.float().clamp(-6e4, 6e4)
    # padding is on the left, and positions are counted from the end
    read = [turn_summary(rows, last_text(model, turn.parts[-1])) for rows, turn in zip(features, turns, strict=True)]
    return {"summary": torch.stack(read).half(), "draws": torch.tensor([float(turn.draws) for turn in turns])}
