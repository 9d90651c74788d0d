"""The training loop: a run that is killed and resumed ends with the very weights of one that was not."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from mgcc_ref.train.loop import Batch, LoopOptions, Trainer
from mgcc_ref.weights import load_module, save_module


class Line(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 1)

    def forward(self, batch: Batch, step: int) -> tuple[Tensor, dict[str, Tensor]]:
        noise = 0.01 * torch.randn(())  # the loop must seed torch's own generator, too
        loss = (self.layer(batch["x"]).squeeze(-1) - batch["x"].sum(-1) + noise).square().mean()
        return loss, {"loss_again": loss.detach()}


class LineStep:
    def __init__(self, die_at: int | None = None) -> None:
        torch.manual_seed(0)
        self.objective = Line()
        self.die_at, self.drawn = die_at, 0

    def batch(self, rng: np.random.Generator) -> Batch:
        self.drawn += 1
        if self.drawn == self.die_at:
            raise KeyboardInterrupt
        return {"x": torch.from_numpy(rng.standard_normal((8, 3), dtype=np.float32))}

    def evaluate(self) -> dict[str, float]:
        return {"weight": float(self.objective.layer.weight.mean())}

    def picture(self, path: Path) -> None:
        path.write_bytes(b"a picture")

    def save_weights(self, folder: Path) -> list[Path]:
        return [save_module(self.objective, folder / "line.safetensors")]


OPTIONS = LoopOptions(
    total_steps=30,
    learning_rate=0.05,
    warmup_steps=3,
    checkpoint_every_s=0.0,
    evaluate_every_steps=10,
    log_every_steps=5,
)


def test_killed_and_resumed_equals_uninterrupted(tmp_path: Path) -> None:
    whole = LineStep()
    Trainer(whole, OPTIONS, tmp_path / "whole").run()
    with pytest.raises(KeyboardInterrupt):
        Trainer(LineStep(die_at=14), OPTIONS, tmp_path / "killed").run()
    resumed = LineStep()
    trainer = Trainer(resumed, OPTIONS, tmp_path / "killed")
    trainer.run()
    assert resumed.drawn == 30 - 13, "the steps before the kill are not repeated"
    assert torch.equal(whole.objective.layer.weight, resumed.objective.layer.weight)
    assert (tmp_path / "killed" / "step-000020.png").exists()
    metrics = [json.loads(line) for line in (tmp_path / "killed" / "metrics.jsonl").read_text().splitlines()]
    assert {"step", "loss", "steps_per_s"} <= set(metrics[0])
    assert any("eval_weight" in m for m in metrics)


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_batches_that_workers_draw_are_the_same(tmp_path: Path, workers: int) -> None:
    """In a process of its own, as training is: a fork of one that has other engines' threads ended the test worker."""
    alone = LineStep()
    Trainer(alone, OPTIONS, tmp_path / "alone").run()
    command = [sys.executable, "-c", _FED.format(workers=workers), str(tmp_path)]
    subprocess.run(command, check=True, cwd=Path(__file__).parents[3], timeout=120)
    fed = torch.load(tmp_path / "fed.pt", weights_only=True)
    assert torch.equal(alone.objective.layer.weight, fed)


_FED = """
import sys
from dataclasses import replace
from pathlib import Path
import torch
from mgcc_ref.train.loop import Trainer
from tests.ref.train.test_loop import OPTIONS, LineStep
step, folder = LineStep(), Path(sys.argv[1])
Trainer(step, replace(OPTIONS, workers={workers}), folder / "fed").run()
assert step.drawn == 0, "the workers drew, in processes of their own"
torch.save(step.objective.layer.weight.detach(), folder / "fed.pt")
"""


def test_saved_weights_are_the_averaged_ones(tmp_path: Path) -> None:
    step = LineStep()
    trainer = Trainer(step, OPTIONS, tmp_path)
    trainer.run()
    raw = step.objective.layer.weight.detach().clone()
    trainer.save_weights(tmp_path)
    assert torch.equal(step.objective.layer.weight, raw), "saving must put the trained weights back"
    loaded = Line()
    load_module(loaded, tmp_path / "line.safetensors")
    average = trainer.ema.shadow["layer.weight"]
    torch.testing.assert_close(loaded.layer.weight, average, atol=1e-3, rtol=1e-3)  # stored as fp16
    assert not torch.equal(average, raw)


def test_another_seed_may_not_continue_a_run(tmp_path: Path) -> None:
    Trainer(LineStep(), replace(OPTIONS, total_steps=5), tmp_path).run()
    with pytest.raises(ValueError, match="was trained with seed 0, not 1"):
        Trainer(LineStep(), replace(OPTIONS, seed=1), tmp_path).run()


def test_a_loss_that_is_not_finite_stops_the_run(tmp_path: Path) -> None:
    step = LineStep()
    with torch.no_grad():
        step.objective.layer.weight.fill_(float("nan"))
    with pytest.raises(FloatingPointError, match="loss is nan at step 0"):
        Trainer(step, OPTIONS, tmp_path).run()


def test_learning_rate_warms_up_holds_and_decays() -> None:
    rates = [OPTIONS.learning_rate_at(i) for i in range(30)]
    assert rates[0] < rates[1] < rates[2] == pytest.approx(0.05)
    assert rates[10] == pytest.approx(0.05)
    assert rates[-1] < 0.05 * 0.1
