"""The results of a run so far, written to disk after every part, so that no later failure loses them."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

from mgcc_benchmarks.peers.report import chart, markdown
from mgcc_runtime.files import write_atomically
from mgcc_runtime.measure.machine_load import MOST_OTHERS_CORES

_TIMED = ("s", "x")  # units of figures that a busy machine changes


class Results:
    """The report of a running comparison. `head`: fields known before; `others_cores`: measured before the start."""

    def __init__(self, path: Path, head: dict[str, Any], others_cores: float | None) -> None:
        self.path, self._head, self._others_cores = path, head, others_cores
        self.ratios: dict[str, Any] = {}
        self.figures: dict[str, Any] = {}
        self.skipped: dict[str, str] = {}
        self.failed: dict[str, str] = {}
        self.begun = self.complete = self._written = False

    def begin(self, request: dict[str, Any]) -> None:
        """`request`: the inputs of both sides."""
        self._head["request"] = request
        self.begun = True

    def to_json(self) -> dict[str, Any]:
        reasons = self._why_not_quotable()
        return {
            **self._head, "complete": self.complete, "quotable": not reasons, "why_not_quotable": reasons,
            "ratios": self.ratios, "figures": self.figures, "skipped": self.skipped, "failed": self.failed,
        }  # fmt: skip

    def write(self) -> None:
        """Write the JSON object, and beside it the table and the picture; each file is whole at any time."""
        found, picture = self.to_json(), io.BytesIO()
        chart(found).savefig(picture, format="png", dpi=110)
        write_atomically(self.path, (json.dumps(found, indent=2) + "\n").encode())
        write_atomically(self.path.with_suffix(".md"), markdown(found).encode())
        write_atomically(self.path.with_suffix(".png"), picture.getvalue())
        self._written = True

    def kept(self) -> str:
        """The results on disk of a run that did not finish, as one sentence."""
        names = [*self.ratios, *self.figures]
        if not self._written or not names:
            return "nothing was measured to the end, so nothing is kept"
        return f"kept in {self.path}, .md and .png: {', '.join(names)}"

    def _why_not_quotable(self) -> list[str]:
        rows = {**self.ratios, **{name: row for name, row in self.figures.items() if row["unit"] in _TIMED}}
        loads = {
            "before the start": self._others_cores,
            **{f"during {name}": row["others_cores"] for name, row in rows.items()},
        }
        reasons = [f"nobody knows whether the machine was quiet {when}" for when, load in loads.items() if load is None]
        busy = {when: load for when, load in loads.items() if load is not None and load > MOST_OTHERS_CORES}
        return reasons + [f"other programs used {load:.2f} cores {when}" for when, load in busy.items()]
