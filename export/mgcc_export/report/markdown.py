"""The build's report for a reader: Markdown, written beside the JSON."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from mgcc_export.report.table import BuildReport, StageReport
from mgcc_export.targets import Target
from mgcc_runtime.commands.tables import markdown_table
from mgcc_runtime.names import PLAN

_MIB = 2**20
_STAGE_COLUMNS = (
    "stage", "precision", "engine", "size MiB", "weights MiB", "made in s", "memory MiB", "rel. L2", "cosine",
    "engine built in s",
)  # fmt: skip
_ON_DEVICE = (
    "The graphs' values were compared with PyTorch on the CPU. Engines are built from them on the device, by this same "
    f"command there or that of `{PLAN}`; `mgcc verify --bundle DIR --out verify.json` then shows what theirs "
    "are."
)
#: What this machine cannot show about a target.
_UNCHECKED = {
    Target.CPU: "Nothing: the bundle was run here.",
    Target.RTX: (
        "No GPU ran these engines. They were built from graphs whose values were compared with PyTorch on the CPU, "
        "with every fp16 result rounded; loading, speed and values of the engines are shown by `mgcc verify --bundle "
        "DIR --out verify.json` on the device."
    ),
    Target.JETSON: _ON_DEVICE,
    Target.TENSORRT: _ON_DEVICE,
    Target.ORT_GPU: (
        "No GPU provider ran these graphs. Their values were compared with PyTorch on the CPU; `mgcc verify --bundle "
        "DIR --out verify.json` on the device shows the rest."
    ),
}


def report_markdown(report: BuildReport) -> str:
    """The whole report; ends with a newline."""
    parts = [
        f"# {report.profile} for {report.target}, {report.precision}",
        f"{report.bytes / _MIB:.1f} MiB, {report.weights} weights, built in {report.elapsed_s:.0f} s; at most "
        f"{report.peak_memory_bytes / _MIB:.0f} MiB of memory in this process"
        + (f". {report.note}." if report.note else "."),
        "## Stages",
        _table(
            _STAGE_COLUMNS,
            (_stage_row(s) for s in report.stages),
        ),
        "Relative L2 and cosine are the worst over all outputs and compared shapes, against PyTorch in fp32.",
    ]
    if notes := [f"- `{s.stage}`: {s.note}" for s in report.stages if s.note]:
        parts += ["## What is not as asked", "\n".join(notes)]
    if lowered := [s for s in report.stages if s.lowered]:
        parts += ["## Precision by stage", _precision_table(lowered)]
    if layered := [s for s in lowered if s.lowered and s.lowered.layers]:
        parts += ["## Precision by layer type", _layer_table(layered)]
    if commands := "\n".join(s.lowered.command for s in lowered if s.lowered and s.lowered.command):
        parts += ["## The same engines with NVIDIA's tool", f"```bash\n{commands}\n```"]
    parts += ["## What could not be checked here", _UNCHECKED[Target(report.target)]]
    built = ", ".join(f"{name} {version}" for name, version in report.built_with.items())
    again = f"## The same bundle again\n\n```bash\n{report.rebuild}\n```"
    return "\n\n".join([*parts, again, f"Built with {built}."]) + "\n"


def _stage_row(s: StageReport) -> tuple[str, ...]:
    engine = s.lowered.engine if s.lowered else None
    return (
        f"`{s.stage}`", s.precision, s.engine, f"{s.bytes / _MIB:.1f}", f"{s.weight_bytes / _MIB:.1f}",
        f"{s.export_s + s.validate_s:.0f}", f"{s.peak_memory_bytes / _MIB:.0f}",
        f"{s.worst.relative_l2:.1e}", f"{min(p.cosine for p in s.parity):.6f}",
        f"{engine.seconds:.0f}, {engine.peak_memory_bytes / _MIB:.0f} MiB" if engine else "",
    )  # fmt: skip


def _precision_table(stages: Sequence[StageReport]) -> str:
    rows = []
    for s in stages:
        assert s.lowered is not None
        types = ", ".join(f"{count} {name}" for name, count in sorted(s.lowered.node_types.items()))
        largest = f"{s.lowered.largest:.3g} (`{s.lowered.largest_value}`, {s.lowered.scanned} inputs)"
        rows.append((f"`{s.stage}`", types, largest, "; ".join(s.lowered.kept) or "none"))
    return _table(("stage", "results by type", "largest activation", "kept in fp32 by the scan"), rows)


def _layer_table(stages: Sequence[StageReport]) -> str:
    rows = []
    for s in stages:
        assert s.lowered is not None and s.lowered.layers is not None
        for kind, types in sorted(s.lowered.layers.items()):
            rows.append((f"`{s.stage}`", kind, ", ".join(f"{n} {t}" for t, n in sorted(types.items()))))
    return _table(("stage", "layer", "type of its result"), rows)


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    return "\n".join(markdown_table(head, rows))
