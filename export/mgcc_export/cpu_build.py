"""Below fp32 on the CPU: the fp32 bundle, calibration data captured from it, and what the calibration makes of both."""

from __future__ import annotations

import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from mgcc_calibration.build import BuildOptions as LowOptions
from mgcc_calibration.build import build_low
from mgcc_calibration.data import CalibrationData
from mgcc_calibration.one_step import LowerOptions, lower_bundle
from mgcc_calibration.report import Report, markdown, report_paths, write_report
from mgcc_calibration.stage_store import StageStore
from mgcc_export.build import BuildOptions, build
from mgcc_export.bundle_writer import BundleWriter
from mgcc_export.errors import BusyError
from mgcc_export.estimate import estimate_build
from mgcc_export.progress import Progress
from mgcc_export.rebuild import rebuild_command
from mgcc_export.report import BuildReport, aligned
from mgcc_export.report_text import report_markdown
from mgcc_export.targets import Precision, choose_recipe
from mgcc_ref.config import get_profile
from mgcc_runtime.bundle import Bundle
from mgcc_runtime.files import check_writable, copy_file, hidden_beside

_MIB = 2**20
#: What the calibration calls the precisions: on a CPU 4 bits are of weights alone, 8 bits of activations too.
_ASKED = {Precision.AUTO: "auto", Precision.INT8: "int8", Precision.INT4: "int4-weights"}


@dataclass(frozen=True)
class CpuBuildReport:
    """A finished bundle: the calibration's report as JSON values, and the report of the fp32 build under it."""

    bundle: str
    bytes: int
    elapsed_s: float
    lowered: Mapping[str, Any]
    exported: BuildReport

    def to_json(self) -> dict[str, Any]:
        return {**self.lowered, "elapsed_s": self.elapsed_s, "exported": self.exported.to_json()}

    def to_markdown(self) -> str:
        """Both reports for a reader; ends with a newline."""
        return f"{markdown(self.lowered)}\n{report_markdown(self.exported)}"


def build_for_cpu(options: BuildOptions, progress: Progress, low: LowOptions | None = None) -> CpuBuildReport:
    """Build `options.out` below fp32; any MgccError leaves what was there before untouched.

    fp32 stages, calibration data and every stage that is done are kept in the cache by content, so a killed build
    goes on. `options.stages`: only these are lowered, since the calibration runs whole requests. `low`: how it is
    done; unset: the calibration's own choices.
    """
    started = time.monotonic()
    asked = replace(low or LowOptions(), asked=_ASKED[options.recipe.precision], stages=options.stages)
    out = options.out.resolve()
    work = hidden_beside(out, "work")
    with BundleWriter(out) as writer:
        for path in report_paths(out):  # their names are longer than the bundle's
            check_writable(path)
        writer.check_replaceable(estimate_build(get_profile(options.profile)).parameters)
        shutil.rmtree(work, ignore_errors=True)
        try:
            exported = _export(options, work, progress)
            report = _lower(Path(exported.bundle), work / out.name, options, asked, progress)
            made = Bundle.open(work / out.name)
            for name, entry in made.manifest.files.items():
                copy_file(made.root / name, writer.staging / name)
                writer.files[name] = entry
            progress("bundle", "storing once what the stages share")
            writer.share_weights("unet", "unet_plain")
            folder = writer.commit(replace(made.manifest, files=dict(sorted(writer.files.items()))))
        finally:
            shutil.rmtree(work, ignore_errors=True)
        values = {**report.to_json(), "bundle": str(folder)}
        # beside the bundle, where `python -m mgcc_calibration report` looks for it
        progress("report", str(write_report(values, folder)[1]))
        progress("bundle", "done")
    total = sum(f.bytes for f in writer.files.values())
    return CpuBuildReport(str(folder), total, round(time.monotonic() - started, 1), values, exported)


def cpu_table(report: CpuBuildReport) -> str:
    """The bundle, one line a stage, and what it costs in quality."""
    rows = [("stage", "engine", "precision", "size", "signal to noise", "layers", "kept in fp32")]
    for name, stage in report.lowered["stages"].items():
        chosen = stage["choice"]["chosen"]
        size = f"{stage['bytes_before'] / _MIB:.1f} to {stage['bytes_after'] / _MIB:.1f} MiB"
        noise = f"{chosen['signal_to_noise_db']:.1f} dB"
        rows.append(
            (name, chosen["engine"], chosen["precision"], size, noise, str(stage["quantised"]), str(len(stage["kept"])))
        )
    lines = [aligned(rows)]
    if (psnr := report.lowered["image_psnr_db"]) is not None:
        lines.append(f"images against fp32, same noise: {psnr:.1f} dB")
    if text := report.lowered["perplexity"]:
        lines.append(f"perplexity: {text['before']:.3f} in fp32, {text['after']:.3f} now")
    return "\n".join(lines)


def _export(options: BuildOptions, work: Path, progress: Progress) -> BuildReport:
    """The whole profile in fp32, from the cache where it has the stages."""
    fp32 = choose_recipe(options.recipe.target, Precision.FP32)
    out = work / f"{options.profile}-{fp32.target}-{fp32.precision}"
    report = build(replace(options, recipe=fp32, out=out, stages=(), captured=None), progress)
    return replace(report, rebuild=rebuild_command(options))  # nobody wants the fp32 bundle again, which goes


def _lower(source: Path, out: Path, options: BuildOptions, asked: LowOptions, progress: Progress) -> Report:
    """Lower the fp32 bundle with the user's calibration data, or with what is captured into the cache."""

    def tell(stage: str, step: str) -> None:
        if stage != "report":  # it lies in the working folder still
            progress(stage, step)

    store = StageStore(options.cache / f"{options.profile}-cpu-lower")
    lock = FileLock(options.cache / f".{options.profile}-cpu-lower.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise BusyError(
            f"another build calibrates {options.profile} in {options.cache} now; wait for it to end, or give another "
            "folder with --cache"
        ) from None
    try:
        if options.captured:
            data = CalibrationData.open(options.captured)
            return build_low(Bundle.open(source), data, out, asked, progress=tell, store=store)
        folder = options.cache / f"{options.profile}-calibration"
        return lower_bundle(source, out, folder, LowerOptions(asked), tell, store)
    finally:
        lock.release()
