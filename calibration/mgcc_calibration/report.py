"""The report of a bundle of lower precision: data, method, what each stage lost and gained. Markdown and JSON."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import starmap
from pathlib import Path
from typing import Any

from mgcc_calibration.candidates.selection import Choice
from mgcc_runtime.commands.tables import markdown_table
from mgcc_runtime.contract import DECODE
from mgcc_runtime.errors import InputError
from mgcc_runtime.files import write_atomically
from mgcc_runtime.measure.machine_load import busy_sentence
from mgcc_runtime.reading import Numbers, read_json

_MIB = 2**20
_NOT_MEASURED = "not measured"
_MEASUREMENT = ("suite", "setting", "items")  # fields of a StoryBench result: scores are compared where these agree
_MEASURE_AGAIN = "measure both bundles with benchmarks/quality.py and the same options, and give the files it writes"
_SHOWN = 80  # characters of a wrong value in a message
_STAGE_HEAD = (
    "stage", "engine", "precision", "signal to noise", "relative L2", "size", "layers quantised", "kept", "method",
)  # fmt: skip
_MEASUREMENT_HEAD = (
    "stage", "engine", "precision", "graph", "time", "signal to noise", "same pictures", "size", "refused because",
)  # fmt: skip


@dataclass(frozen=True)
class StageOutcome:
    """One stage: what was tried, what was taken, and what of it stayed in higher precision."""

    choice: Choice
    method: str
    quantised: int  # layers
    kept: Mapping[str, str]
    bytes_before: int
    bytes_after: int
    others_cores: float | None = None  # what other programs used while it was measured; None: not told


@dataclass(frozen=True)
class Report:
    """A finished build of lower precision."""

    bundle: str
    source: str
    profile: str
    asked: str
    data: Mapping[str, Any]  # the calibration data's manifest, without its list of files
    machine: Mapping[str, Any]
    built_with: Mapping[str, str]
    bytes_before: int
    bytes_after: int
    elapsed_s: float
    stages: Mapping[str, StageOutcome]
    image_psnr_db: float | None = None  # against the fp32 bundle, mean over the requests
    perplexity: Mapping[str, float] = field(default_factory=dict)  # "before", "after", "agreement", "tokens"
    storybench: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)  # "before", "after": as quality.py prints

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def report_paths(bundle: Path) -> tuple[Path, Path]:
    """The JSON and the Markdown file beside a bundle: inside, they would have to be sealed before all is measured."""
    place = bundle.resolve()  # a link's report lies where the bundle does
    return place.with_name(f"{place.name}.calibration.json"), place.with_name(f"{place.name}.calibration.md")


def write_report(values: Mapping[str, Any], bundle: Path) -> tuple[Path, Path]:
    """Write both files from a report's JSON values."""
    as_json, as_text = report_paths(bundle)
    write_atomically(as_json, (json.dumps(values, indent=1) + "\n").encode())
    write_atomically(as_text, markdown(values).encode())
    return as_json, as_text


def add_storybench(bundle: Path, before: Path, after: Path) -> tuple[Path, Path]:
    """Enter StoryBench's scores before and after (JSON of benchmarks/quality.py) into the report beside `bundle`.

    InputError, and the report stays as it is, if one is no such result or the two are not of the same measurement.
    """
    values = read_json(report_paths(bundle)[0], "calibration report", Numbers.ANY)
    scores = {"before": _storybench_result(before), "after": _storybench_result(after)}
    if any(scores["before"][name] != scores["after"][name] for name in _MEASUREMENT):
        told = [", ".join(f"{name} {result[name]}" for name in _MEASUREMENT) for result in scores.values()]
        raise InputError(
            f"the StoryBench results are not of the same measurement: {before} is of {told[0]}, {after} of {told[1]}, "
            f"expected the same {', '.join(_MEASUREMENT)} in both; {_MEASURE_AGAIN}"
        )
    try:
        values = {**values, "storybench": scores}
        markdown(values)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(
            f"calibration report {report_paths(bundle)[0]} is not of the expected form ({error!r}); "
            "make the bundle again"
        ) from None
    return write_report(values, bundle)


def _storybench_result(path: Path) -> dict[str, Any]:
    """The result in the file; InputError with what it holds instead if benchmarks/quality.py did not write it."""
    result = read_json(path, "StoryBench result", Numbers.ANY)  # a score that is none is named below
    if not isinstance(result, dict):
        raise _no_result(path, f"is a {type(result).__name__}", "an object")
    for name, (fits, expected) in _RESULT_FIELDS.items():
        if name not in result:
            raise _no_result(path, f"has no {name}", expected)
        if not fits(result[name]):
            raise _no_result(path, f"has {_short(result[name])} as its {name}", expected)
    for name, score in result["scores"].items():
        if not _is_score(score):
            expected = "an object with a number or null as its value, and two of them as its ci95"
            raise _no_result(path, f"has {_short(score)} as its score {name}", expected)
    return result


def _no_result(path: Path, came: str, expected: str) -> InputError:
    return InputError(f"StoryBench result {path} {came}, expected {expected}; {_MEASURE_AGAIN}")


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= _SHOWN else text[:_SHOWN] + "..."


def _is_text(value: object) -> bool:
    return isinstance(value, str) and bool(value.strip())


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _is_number(value: object) -> bool:
    """Whether a value is a finite number that a float can hold: JSON's integers have no limit."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= sys.float_info.max


def _is_score(score: object) -> bool:
    """Whether a score has the form that quality.py writes; null stands for what was not measured."""
    if not isinstance(score, dict) or "value" not in score:
        return False
    interval = score.get("ci95")
    if interval is None:
        interval = [None, None]
    if not isinstance(interval, list) or len(interval) != 2 or interval.count(None) == 1:
        return False
    return all(number is None or _is_number(number) for number in (score["value"], *interval))


#: What a StoryBench result must hold: field -> (whether a value fits, what is expected).
_RESULT_FIELDS: dict[str, tuple[Callable[[object], bool], str]] = {
    "suite": (_is_text, "a suite's name"),
    "setting": (_is_text, "a setting's name"),
    "items": (_is_count, "how many pictures were scored, at least 1"),
    "scores": (lambda value: isinstance(value, dict) and bool(value), "an object of scores by name"),
}


def markdown(values: Mapping[str, Any]) -> str:
    """The report for a reader."""
    data = values["data"]
    before, after = (values[f"bytes_{when}"] / _MIB for when in ("before", "after"))
    made = (
        f"Profile {values['profile']}, asked for: {values['asked']}. Made from {Path(values['source']).name} "
        f"in {values['elapsed_s']:.0f} s: {before:.1f} MiB before, {after:.1f} MiB after."
    )
    captured = (
        f"Calibration data: {data['source']}, {data['requests']} requests of {data['steps']} denoising steps and up "
        f"to {data['words']} words; {data['bytes'] / _MIB:.1f} MiB, captured in {data['elapsed_s']:.0f} s."
    )
    machine = f"Machine: {values['machine'].get('cpu', '?')}, {values['machine'].get('cores', '?')} cores."
    lines = [f"# Lower precision: {Path(values['bundle']).name}", "", made, "", captured, "", machine, ""]
    lines += ["## Stages", *markdown_table(_STAGE_HEAD, starmap(_stage_row, values["stages"].items()))]
    lines += ["", "## What was measured", *_measurement_table(values["stages"])]
    lines += ["", "## What stayed in higher precision, and why", *_kept_list(values["stages"])]
    lines += ["", "## Quality", *_quality(values)]
    return "\n".join(lines) + "\n"


def _stage_row(name: str, stage: Mapping[str, Any]) -> Sequence[str]:
    chosen = stage["choice"]["chosen"]
    size = f"{stage['bytes_before'] / _MIB:.2f} to {stage['bytes_after'] / _MIB:.2f} MiB"
    return (
        f"`{name}`", chosen["engine"], chosen["precision"], f"{chosen['signal_to_noise_db']:.1f} dB",
        f"{chosen['error']:.1e}", size, str(stage["quantised"]), str(len(stage["kept"])), stage["method"],
    )  # fmt: skip


def _measurement_table(stages: Mapping[str, Any]) -> list[str]:
    lines = [
        "Times: the quickest round of one request's calls, on this machine as it was; they choose, no benchmark.",
        "",
        f"`{DECODE}`: the language model with one new position; its row `llm` is prefill and [IMG] tokens. Where both",
        "chose the same graph the bundle holds it once.",
        "",
        "Same pictures: of other stories, drawn with this stage alone changed, how many keep fp32's picture. Only what",
        "was fastest is judged, and what came next where that was refused.",
        "",
        *_busy(stages),
    ]
    rows = (_measurement_row(name, m) for name, stage in stages.items() for m in stage["choice"]["measurements"])
    return [*lines, *markdown_table(_MEASUREMENT_HEAD, rows)]


def _measurement_row(name: str, m: Mapping[str, Any]) -> Sequence[str]:
    took, noise = m["total_ms"], m["signal_to_noise_db"]
    return (
        f"`{name}`", m["engine"], m["precision"], m["form"], _NOT_MEASURED if took is None else f"{took:.2f} ms",
        _NOT_MEASURED if noise is None else f"{noise:.1f} dB",
        "" if m["same_pictures"] is None else f"{m['same_pictures']:.3f}", f"{m['bytes'] / _MIB:.2f} MiB", m["refused"],
    )  # fmt: skip


def _busy(stages: Mapping[str, Any]) -> list[str]:
    """A warning for the report where other programs used so much of the machine that the times mean little."""
    told = busy_sentence({f"the measuring of `{name}`": stage.get("others_cores") for name, stage in stages.items()})
    return [f"**{told[0].upper()}{told[1:]}.**", ""] if told else []


def _kept_list(stages: Mapping[str, Any]) -> list[str]:
    lines = []
    for name, stage in stages.items():
        by_reason: dict[str, list[str]] = {}
        for layer, reason in stage["kept"].items():
            by_reason.setdefault(reason, []).append(layer)
        lines += [f"- `{name}`: {', '.join(layers)}: {reason}" for reason, layers in by_reason.items()]
        if stage["choice"]["chosen"]["precision"] == "fp32":
            others = [m for m in stage["choice"]["measurements"] if m["precision"] != "fp32"]
            lower = all(m["refused"] for m in others)
            why = "nothing lower kept to the budget" if lower else "nothing lower was faster"
            lines.append(
                f"- `{name}`: the whole stage stays in fp32: {why if others else 'nothing else was asked for'}"
            )
    return lines or ["Nothing."]


def _quality(values: Mapping[str, Any]) -> list[str]:
    image, text, bench = values["image_psnr_db"], values["perplexity"], values["storybench"]
    lines = [f"- image against fp32, same noise: {f'{image:.1f} dB' if image is not None else _NOT_MEASURED}"]
    if text:
        lines.append(
            f"- perplexity on {text['tokens']:.0f} tokens: {text['before']:.3f} before, {text['after']:.3f} after; "
            f"the same likeliest token at {text['agreement']:.1%} of them"
        )
    else:
        lines.append(f"- perplexity: {_NOT_MEASURED}")
    if not bench:
        return [*lines, f"- StoryBench: {_NOT_MEASURED}"]
    before, after = bench["before"]["scores"], bench["after"]["scores"]
    rows = ((name, _score(before[name]), _score(after.get(name))) for name in before)
    return [*lines, "", *markdown_table(("StoryBench", "before", "after"), rows)]


def _score(score: Mapping[str, Any] | None) -> str:
    if not score or score.get("value") is None:
        return _NOT_MEASURED
    low, high = score.get("ci95") or (None, None)
    return f"{score['value']:.3f}" + (f" ({low:.3f} to {high:.3f})" if low is not None else "")
