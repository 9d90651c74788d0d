"""Below fp32 on the CPU: the fp32 bundle, calibration data captured from it, and what the calibration makes of both."""

from __future__ import annotations

import shutil
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from filelock import Timeout

from mgcc_calibration.build import PrecisionOptions, build_low
from mgcc_calibration.bundle.chosen_stages import chosen_stages
from mgcc_calibration.bundle.writer import BundleWriter
from mgcc_calibration.data.capture import CaptureOptions
from mgcc_calibration.data.reuse import kept_or_captured
from mgcc_calibration.data.samples import CalibrationData
from mgcc_calibration.report import Report, markdown, report_paths
from mgcc_export.build import build
from mgcc_export.bundle.rebuild import rebuild_command
from mgcc_export.options import BuildOptions
from mgcc_export.predict.estimate import estimate_build
from mgcc_export.progress import Progress
from mgcc_export.report.markdown import report_markdown
from mgcc_export.report.table import BuildReport
from mgcc_export.targets import choose_recipe
from mgcc_ref.precision import Precision
from mgcc_runtime.bundle.folder import Bundle
from mgcc_runtime.bundle.output_folder import BusyError
from mgcc_runtime.commands.tables import aligned
from mgcc_runtime.files import check_writable, hidden_beside

_MIB = 2**20


@dataclass(frozen=True)
class CpuBuildReport:
    """The two halves of a build below fp32, each with its own report: the fp32 build, and the calibration after it."""

    exported: BuildReport
    lowered: Report
    elapsed_s: float  # of both

    @property
    def bundle(self) -> str:
        """The bundle's folder."""
        return self.lowered.bundle

    @property
    def bytes(self) -> int:
        """Of the bundle's stages."""
        return self.lowered.bytes_after

    def to_json(self) -> dict[str, Any]:
        return {**self.lowered.to_json(), "elapsed_s": self.elapsed_s, "exported": self.exported.to_json()}

    def to_markdown(self) -> str:
        """Both reports for a reader; ends with a newline."""
        return f"{markdown(self.lowered.to_json())}\n{report_markdown(self.exported)}"


def build_for_cpu(options: BuildOptions, progress: Progress, low: PrecisionOptions | None = None) -> CpuBuildReport:
    """Build `options.out` below fp32; any MgccError leaves what was there before untouched.

    fp32 stages, calibration data and every stage that is done are kept in the cache by content, so a killed build
    goes on. `options.stages`: only these are lowered, since the calibration runs whole requests. `low`: how it is
    done; unset: the calibration's own choices.
    """
    started = time.monotonic()
    precision = options.recipe.precision
    asked = replace(
        low or PrecisionOptions(), stages=options.stages,
        asked=Precision.INT4_WEIGHTS if precision is Precision.INT4 else precision,  # beside fp32, not fp16
    )  # fmt: skip
    with BundleWriter(options.out) as writer:
        for path in report_paths(writer.out):  # their names are longer than the bundle's
            check_writable(path)
        writer.check_replaceable(estimate_build(options.chosen_profile()).parameters)
        work = hidden_beside(writer.out, "work")
        shutil.rmtree(work, ignore_errors=True)
        try:
            exported = _export(options, work, progress)
            report = _lower(Bundle.open(Path(exported.bundle)), writer, options, asked, progress)
        finally:
            shutil.rmtree(work, ignore_errors=True)
        progress("bundle", "done")
    elapsed_s = round(time.monotonic() - started, 1)
    return CpuBuildReport(exported, report, elapsed_s)


def cpu_table(report: CpuBuildReport) -> str:
    """The bundle, one line a stage, and what it costs in quality."""
    rows = [("stage", "engine", "precision", "size", "signal to noise", "layers", "kept in fp32")]
    for name, stage in report.lowered.stages.items():
        chosen = stage.choice.chosen
        size = f"{stage.bytes_before / _MIB:.1f} to {stage.bytes_after / _MIB:.1f} MiB"
        noise = f"{chosen.signal_to_noise_db:.1f} dB"
        rows.append((name, chosen.engine, chosen.precision, size, noise, str(stage.quantised), str(len(stage.kept))))
    lines = [aligned(rows)]
    if (psnr := report.lowered.image_psnr_db) is not None:
        lines.append(f"images against fp32, same noise: {psnr:.1f} dB")
    if text := report.lowered.perplexity:
        lines.append(f"perplexity: {text['before']:.3f} in fp32, {text['after']:.3f} now")
    return "\n".join(lines)


def _export(options: BuildOptions, work: Path, progress: Progress) -> BuildReport:
    """The whole profile in fp32, from the cache where it has the stages."""
    fp32 = choose_recipe(options.recipe.target, Precision.FP32)
    out = work / f"{options.profile_name}-{fp32.target}-{fp32.precision}"
    report = build(replace(options, recipe=fp32, out=out, stages=(), captured=None), progress)
    return replace(report, rebuild=rebuild_command(options))  # nobody wants the fp32 bundle again, which goes


def _lower(
    source: Bundle, writer: BundleWriter, options: BuildOptions, asked: PrecisionOptions, progress: Progress
) -> Report:
    """Lower the fp32 bundle with the user's calibration data, or with what is captured into the cache."""
    cache = chosen_stages(options.cache / f"{options.profile_name}-cpu-lower")
    lock = cache.lock("build")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise BusyError(
            f"another build calibrates {options.profile_name} in {options.cache}; wait for it to end, or give another "
            "folder with --cache"
        ) from None
    try:
        data = _data(source, options, asked, progress)
        return build_low(source, data, writer, asked, progress, cache)
    finally:
        lock.release()


def _data(source: Bundle, options: BuildOptions, asked: PrecisionOptions, progress: Progress) -> CalibrationData:
    if options.captured:
        return CalibrationData.open(options.captured)
    folder, how = options.cache / f"{options.profile_name}-calibration", CaptureOptions(threads=asked.threads)
    return kept_or_captured(
        source, folder, how, progress=lambda i, n: progress("calibration", f"request {i} of {n}")
    )  # fmt: skip
