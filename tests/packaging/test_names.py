"""Names that exporter and runtime share are said once: a second spelling of one fails here, not on a device."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import fields
from importlib.util import find_spec
from pathlib import Path

import pytest

from mgcc_export.targets import Target
from mgcc_runtime import engines, names
from mgcc_runtime.bundle.manifest import LayoutRules, Manifest, RequestTolerance
from mgcc_runtime.contract import PromptTemplate
from mgcc_runtime.denoise import Schedule
from mgcc_runtime.engines import extra_of
from mgcc_runtime.engines.tensorrt.record import EngineRecord
from mgcc_runtime.measure.golden import RequestGolden

ROOT = Path(__file__).parents[2]
PACKAGES = {
    "mgcc_runtime": ROOT / "runtime" / "mgcc_runtime",
    "mgcc_export": ROOT / "export" / "mgcc_export",
    "mgcc_calibration": ROOT / "calibration" / "mgcc_calibration",
    "mgcc_benchmarks": ROOT / "benchmarks" / "mgcc_benchmarks",
}
DECLARED = PACKAGES["mgcc_runtime"] / "names.py"

#: Words that are a name of ours and something else besides: packages and their modules, extras, places of the machine.
OTHER_MEANINGS = {
    "onnxruntime", "openvino", "tensorrt", "tensorrt_rtx", "cpu", "rtx", "jetson", "host", "runtime",
}  # fmt: skip


def literals(path: Path) -> Iterator[tuple[int, str]]:
    """Line and text of every string in the code, parts of f-strings too; documentation left out."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    told = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in told:
            yield node.lineno, node.value


def declared() -> set[str]:
    """Every name that `names.py` gives a value."""
    found = set()
    for holder in (names, names.EngineName, names.TargetName):
        found |= {value for key, value in vars(holder).items() if not key.startswith("_") and isinstance(value, str)}
    return found


def repeated(path: Path) -> list[str]:
    """Where a file spells a declared name again, alone or as a file's name in a longer text."""
    wanted = declared() - OTHER_MEANINGS
    files = "|".join(sorted(re.escape(name) for name in wanted if "." in name[1:-1] or "/" in name))
    told = re.compile(rf"({files})(?!\w)")
    put_together = re.compile(r"^\.(onnx|data|engine|engine\.json)$")  # the rest of an f-string
    return [
        f"{path}:{line}: {text!r}"
        for line, text in literals(path)
        if text in wanted or told.search(text) or put_together.match(text) or text.startswith(names.CACHE_PREFIXES)
    ]


@pytest.mark.parametrize("package", PACKAGES)
def test_a_shared_name_is_spelled_in_one_place(package: str) -> None:
    paths = [path for path in sorted(PACKAGES[package].rglob("*.py")) if path != DECLARED]
    assert len(paths) > 5
    assert [one for path in paths for one in repeated(path)] == []


@pytest.mark.parametrize(
    "code",
    [
        'bundle.file("phrase_tokenizer.json")',
        'raise ValueError(f"{root} has no build_plan.json; build it")',
        'path = folder / f"{stage}.onnx"',
        'files[f"golden/{stage}.npz"]',
        'engine = "openvino_bf16"',
        'feeds["past_key_values.0.key"]',
        'name = f"present.{layer}.{part}"',
    ],
)
def test_a_second_spelling_is_found(tmp_path: Path, code: str) -> None:
    path = tmp_path / "module.py"
    path.write_text(f'"""Reads phrase_tokenizer.json."""\n{code}\n')
    assert len(repeated(path)) == 1


def test_fields_of_the_json_files_are_spelled_where_they_are_read() -> None:
    """Those with an underscore, which no other thing is called by chance."""
    forms = (Manifest, LayoutRules, RequestTolerance, PromptTemplate, Schedule, RequestGolden, EngineRecord)
    keys = {"init_scale", *(field.name for form in forms for field in fields(form) if "_" in field.name)}
    assert {"token_ids", "gate_fraction", "compute_capability"} <= keys
    found = [
        f"{path.relative_to(ROOT)}:{line}: {text!r}"
        for package in ("mgcc_export", "mgcc_calibration")
        for path in sorted(PACKAGES[package].rglob("*.py"))
        for line, text in literals(path)
        if text in keys
    ]
    assert found == []


@pytest.mark.parametrize("engine", sorted(v for k, v in vars(names.EngineName).items() if not k.startswith("_")))
def test_the_runtime_has_every_engine(engine: str) -> None:
    assert extra_of(engine)
    assert find_spec(f"{engines.__name__}.{engines._ENGINES[engine].module}") is not None


def test_the_exporter_has_every_target() -> None:
    told = {value for key, value in vars(names.TargetName).items() if not key.startswith("_")}
    assert {target.value for target in Target} == told
