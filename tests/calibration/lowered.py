"""Bundles of lower precision, written as a build writes them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from mgcc_calibration.build import PrecisionOptions, build_low
from mgcc_calibration.bundle.replace_stages import StageChange, replace_stages
from mgcc_calibration.bundle.writer import BundleWriter
from mgcc_calibration.data.samples import CalibrationData
from mgcc_calibration.report import Report
from mgcc_runtime.bundle.folder import Bundle


def write_replaced(source: Bundle, changes: Mapping[str, StageChange], out: Path) -> Bundle:
    """The bundle `out`: `source` with the graphs of `changes`."""
    with BundleWriter(out) as writer:
        return Bundle.open(writer.commit(replace_stages(source, changes, writer, threads=1).manifest))


def write_low(bundle: Bundle, data: CalibrationData, out: Path, options: PrecisionOptions) -> Report:
    """The bundle `out` of lower precision; its report."""
    with BundleWriter(out) as writer:
        return build_low(bundle, data, writer, options)
