"""Step `draw`: the decision to draw. It fits the output row of `[IMG1]` for the frozen language model.

The frozen model's last hidden state h after a turn decides between `[IMG1]` and all words together:
z = head(h) - logsumexp(words), and P(draw) = sigmoid(z), its probability in a softmax over `[IMG1]` and the words. One
row of D weights and a bias is trained on dialogues' turns; nothing else changes.
"""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw
from torch import Tensor, nn

from mgcc_ref.config import Profile
from mgcc_ref.model import Alignment, MgccModel, load_untrained
from mgcc_ref.prompting import build_prompt
from mgcc_ref.story.draw_turns import DrawTurn, after_rounds, make_draw_turn, written_lines
from mgcc_ref.story.wording.phrases import Split
from mgcc_ref.train.loop import Batch, TrainingPrecision, frozen_arithmetic, on_device_of
from mgcc_ref.weights import load_module, save_module

log = logging.getLogger("mgcc.train")

BATCH_SIZE = 128
TURNS, HELD_BACK_TURNS = 2800, 240
SEED, HELD_BACK_SEED = 12_000_017, 13_000_027
FEATURE_NOISE = 0.05  # in standard deviations of a feature, against overfitting: few phrasings, many dimensions


def draw_turn(seed: int, index: int, split: Split) -> DrawTurn:
    """Turn `index` of the endless set `seed`. Training's begins with the written lines, and goes on with templates."""
    rng = np.random.default_rng([seed, index])
    if split is Split.TRAIN and index < len(written_lines()):
        return after_rounds(written_lines()[index], rng)
    return make_draw_turn(rng, split)


class DrawObjective(nn.Module):
    """Cross-entropy of [IMG1] against all words."""

    mean: Tensor
    spread: Tensor

    def __init__(self, states: Tensor, words: Tensor) -> None:
        super().__init__()
        self.row = nn.Linear(states.shape[1], 1)
        nn.init.zeros_(self.row.weight)
        with torch.no_grad():
            self.row.bias.fill_(words.mean())  # at first as likely as all words together
        # states are standardised: the residual stream's few huge dimensions would dominate every step
        self.register_buffer("mean", states.mean(dim=0))
        self.register_buffer("spread", states.std(dim=0).clamp_min(1e-4))

    def forward(self, batch: Batch, step: int) -> tuple[Tensor, dict[str, Tensor]]:
        states = (batch["states"] - self.mean) / self.spread
        if self.training:
            states = states + FEATURE_NOISE * torch.randn_like(states)
        margin = self.row(states).squeeze(-1) - batch["words"]
        loss = F.binary_cross_entropy_with_logits(margin, batch["draws"])
        return loss, {"accuracy": ((margin > 0) == (batch["draws"] > 0.5)).float().mean().detach()}

    def as_head_row(self) -> tuple[Tensor, Tensor]:
        """The same function of unscaled states: weight (D,) and bias ()."""
        weight = self.row.weight[0] / self.spread
        return weight, self.row.bias[0] - (weight * self.mean).sum()


class DrawStep:
    """Needs `alignment.safetensors` of the weights folder, and writes it again."""

    def __init__(
        self, profile: Profile, weights: Path, run_folder: Path, precision: TrainingPrecision = TrainingPrecision.FP32
    ) -> None:
        self._precision = precision  # of the frozen model
        self.model = load_untrained(profile)  # turns are texts, which only the language model reads
        self.alignment = Alignment(self.model)
        load_module(self.alignment, weights / "alignment.safetensors")
        self._turns = self._read(run_folder / "train.npz", SEED, TURNS, Split.TRAIN)
        self._held_back = self._read(run_folder / "held-back.npz", HELD_BACK_SEED, HELD_BACK_TURNS, Split.VALIDATION)
        self.objective = DrawObjective(self._turns["states"], self._turns["words"])

    def _read(self, path: Path, seed: int, count: int, split: Split) -> Batch:
        """Last states (N, D), logsumexp of the words' logits (N,) and whether to draw (N,); read once, cached."""
        if not path.exists():
            rows = []
            for index in range(count):
                turn = draw_turn(seed, index, split)
                with frozen_arithmetic(self._precision):
                    state, words = last_state(self.model, turn)
                rows.append((state.numpy(), words, float(turn.draws)))
                if index % 100 == 99:
                    log.info("read %d of %d turns", index + 1, count)
            columns = [np.array(column, np.float32) for column in zip(*rows, strict=True)]
            path.parent.mkdir(parents=True, exist_ok=True)
            temporary = path.with_suffix(".tmp.npz")
            np.savez(temporary, states=columns[0], words=columns[1], draws=columns[2])
            temporary.replace(path)
        with np.load(path) as stored:
            return {name: torch.from_numpy(stored[name]) for name in ("states", "words", "draws")}

    def batch(self, rng: np.random.Generator) -> Batch:
        chosen = torch.from_numpy(rng.integers(len(self._turns["draws"]), size=BATCH_SIZE))
        return {name: values[chosen] for name, values in self._turns.items()}

    def evaluate(self) -> dict[str, float]:
        """Shares for held-back phrasings: right decisions, drawn when asked, and not drawn when not asked."""
        decided = self._margins() > 0
        wanted = self._held_back["draws"] > 0.5
        return {
            "accuracy": float((decided == wanted).float().mean()),
            "drawn_when_asked": float(decided[wanted].float().mean()),
            "silent_when_not": float((~decided[~wanted]).float().mean()),
        }

    def _margins(self) -> Tensor:
        weight, bias = self.objective.as_head_row()
        batch = on_device_of(self.objective, self._held_back)
        return (batch["states"] @ weight + bias - batch["words"]).cpu()

    def picture(self, path: Path) -> None:
        """The held-back turns with the most wrong decisions, and their margins."""
        margins, draws = self._margins(), self._held_back["draws"]
        wrongness = torch.where(draws > 0.5, -margins, margins)
        image = Image.new("RGB", (900, 20 * 12 + 10), "white")
        canvas = ImageDraw.Draw(image)
        for row, index in enumerate(wrongness.argsort(descending=True)[:12].tolist()):
            line = draw_turn(HELD_BACK_SEED, index, Split.VALIDATION).parts[-1]
            wanted = "draw" if draws[index] > 0.5 else "talk"
            canvas.text((8, 5 + 20 * row), f"{float(margins[index]):+7.2f}  {wanted}: {line[:110]}", fill="black")
        image.save(path)

    def save_weights(self, folder: Path) -> list[Path]:
        weight, bias = self.objective.as_head_row()
        head = self.alignment.image_tokens.head
        with torch.no_grad():
            head.weight[0], head.bias[0] = weight.cpu(), bias.cpu()
        return [save_module(self.alignment, folder / "alignment.safetensors")]

    def load_weights(self, folder: Path) -> None:
        load_module(self.alignment, folder / "alignment.safetensors")
        head = self.alignment.image_tokens.head
        with torch.no_grad():
            self.objective.row.weight[0] = head.weight[0] * self.objective.spread
            self.objective.row.bias[0] = head.bias[0] + (head.weight[0] * self.objective.mean).sum()


def last_state(model: MgccModel, turn: DrawTurn) -> tuple[Tensor, float]:
    """Normed last hidden state (D,) after the turn, and the logsumexp of the words' logits there."""
    embeddings = build_prompt(model, turn.parts).embeddings
    _, last, _ = model.llm.features(embeddings, model.llm.empty_cache())
    state = last[0, -1].float()
    return state, float(torch.logsumexp(F.linear(state, model.llm.embed_tokens.weight.float()), dim=-1))
