"""The result of lowering a stage, as its cache entry and the build's report hold it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mgcc_export.tensorrt.builder import EngineBuild
from mgcc_runtime.bundle.manifest import Tolerance


@dataclass(frozen=True)
class LowReport:
    """One stage below plain fp32."""

    precision: str  # in effect
    reasons: tuple[str, ...]  # why it is not the one asked for
    node_types: Mapping[str, int]  # element type -> nodes of the graph
    scanned: int  # inputs that the scan ran
    largest: float  # activation, and where it was
    largest_value: str
    kept: tuple[str, ...]  # nodes in fp32 because of the scan: name, operator and magnitude
    half_cache: bool
    engine: EngineBuild | None = None
    layers: Mapping[str, Mapping[str, int]] | None = None  # kind of layer -> type -> how many
    command: str = ""  # the same engine by NVIDIA's tool
    wider: tuple[str, ...] = ()  # weights with more bits than the precision says
    remarks: tuple[str, ...] = ()  # what else was kept wider so that the precision holds, and why
    tolerance: Tolerance | None = None  # that it was held to; None for its precision's

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> LowReport:
        """Rebuild from `dataclasses.asdict`."""
        engine = EngineBuild(**values["engine"]) if values["engine"] else None
        tolerance = Tolerance(**values["tolerance"]) if values["tolerance"] else None
        lists = {name: tuple(values[name]) for name in ("reasons", "kept", "wider", "remarks")}
        return cls(**{**values, **lists, "engine": engine, "tolerance": tolerance})

    @property
    def note(self) -> str:
        """What a reader of the report should know, in a few words."""
        parts = list(self.remarks)
        if self.reasons:
            parts.append("not lower: " + "; ".join(self.reasons))
        if self.kept and self.precision != "fp32":
            parts.append(f"{len(self.kept)} nodes in fp32 by scan (largest {self.largest:.3g})")
        return "; ".join(parts)
