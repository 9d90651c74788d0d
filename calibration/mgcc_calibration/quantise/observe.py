"""Run a graph over calibration samples and look at its activations: limits first, then histograms within them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from mgcc_calibration.data.samples import Feeds
from mgcc_calibration.errors import CalibrationError
from mgcc_calibration.graphs.edit import Array
from mgcc_calibration.graphs.graph import Graph
from mgcc_calibration.quantise.activation_ranges import Histogram

#: Samples as often as they are needed: each call starts again.
Samples = Callable[[], Iterator[Feeds]]

_ROWS = 256  # of an activation's last axis, kept to try things on


@dataclass
class Limits:
    """What one pass over the samples tells of an activation."""

    shapes: set[tuple[int, ...]] = field(default_factory=set)
    magnitude: float = 0.0
    channels: Array | None = None  # (K,) largest magnitude by place on the last axis
    rows: list[Array] = field(default_factory=list)  # each (n, K) float32


def run_over(
    graph: Graph, tensors: Sequence[str], samples: Iterable[Feeds], threads: int = 1
) -> Iterator[tuple[Feeds, dict[str, Array]]]:
    """For each sample its feeds and the values of `tensors`."""
    session = graph.session(tensors, threads)
    for feeds in samples:
        yield feeds, dict(zip(tensors, session.run(list(tensors), feeds), strict=True))


def measure_limits(
    graph: Graph, tensors: Sequence[str], linear_inputs: Iterable[str], samples: Samples, threads: int = 1
) -> dict[str, Limits]:
    """Limits of each tensor; for `linear_inputs` also by channel, with some rows. CalibrationError for NaN.

    Which rows are kept depends on the samples alone, so that the same data gives the same graph.
    """
    by_channel = set(linear_inputs)
    found = {name: Limits() for name in tensors}
    count = sum(1 for _ in samples()) if by_channel else 1
    wanted = max(1, _ROWS // max(count, 1))
    for _, values in run_over(graph, tensors, samples(), threads):
        for name, value in values.items():
            _add(found[name], name, value, wanted if name in by_channel else 0)
    return found


def _add(limits: Limits, name: str, value: Array, rows: int) -> None:
    limits.shapes.add(value.shape)
    if not value.size:
        return
    magnitude = float(np.abs(value).max())
    if not np.isfinite(magnitude):
        raise CalibrationError(
            f"activation {name} holds NaN or infinity, expected finite numbers; find the stage's fault with "
            "`mgcc verify` before it is quantised"
        )
    limits.magnitude = max(limits.magnitude, magnitude)
    if rows:
        flat = value.reshape(-1, value.shape[-1])
        largest = np.abs(flat).max(axis=0)
        limits.channels = largest if limits.channels is None else np.maximum(limits.channels, largest)
        stride = max(1, len(flat) // rows)
        limits.rows.append(flat[::stride][:rows].astype(np.float32))


def timestep_groups(samples: Samples, groups: int) -> Callable[[Feeds], int]:
    """Which group of denoising steps a sample belongs to; one group for a stage without timesteps.

    Groups hold about as many different timesteps each.
    """
    times = sorted({float(feeds["timestep"][0]) for feeds in samples() if "timestep" in feeds})
    if not times:
        return lambda _: 0
    count = min(groups, len(times))
    place = {time: i * count // len(times) for i, time in enumerate(times)}
    return lambda feeds: place[float(feeds["timestep"][0])]


def measure_histograms(
    graph: Graph, limits: Mapping[str, float], samples: Samples, group_of: Callable[[Feeds], int], threads: int = 1
) -> dict[str, list[Histogram]]:
    """Histograms of each tensor of `limits`, one for each group that was met, in the groups' order."""
    found: dict[str, dict[int, Histogram]] = {name: {} for name in limits}
    for feeds, values in run_over(graph, list(limits), samples(), threads):
        group = group_of(feeds)
        for name, value in values.items():
            histogram = found[name].setdefault(group, Histogram.empty(limits[name]))
            histogram.add(value)
    return {name: [groups[g] for g in sorted(groups)] for name, groups in found.items()}
