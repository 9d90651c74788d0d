"""Who imports whom: read from the source, so that an import inside a function counts too."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FOLDERS = {
    "mgcc_ref": ROOT / "mgcc_ref",
    "mgcc_runtime": ROOT / "runtime" / "mgcc_runtime",
    "mgcc_kiosk": ROOT / "runtime" / "mgcc_kiosk",
    "mgcc_export": ROOT / "export" / "mgcc_export",
    "mgcc_calibration": ROOT / "calibration" / "mgcc_calibration",
    "mgcc_benchmarks": ROOT / "benchmarks" / "mgcc_benchmarks",
}

CONTRACT = {"mgcc_runtime.contract", "mgcc_runtime.layout_text"}
#: package -> what of ours it may import besides itself.
ARROWS = {
    "mgcc_runtime": set(),
    "mgcc_kiosk": {"mgcc_runtime"},
    "mgcc_ref": CONTRACT,
    "mgcc_ref, command lines": CONTRACT | {"mgcc_runtime.commands.console", "mgcc_runtime.errors"},
    "mgcc_calibration": {"mgcc_ref", "mgcc_runtime"},
    "mgcc_export": {"mgcc_calibration", "mgcc_ref", "mgcc_runtime"},
    "mgcc_benchmarks": {"mgcc_ref", "mgcc_runtime"},
}
RUNTIME_ANYWHERE = {"numpy", "PIL", "tokenizers"}
RUNTIME_KIT = {"packaging"}  # in kit/ alone, which no device needs: the extra `kit`
KIOSK = {"PIL", "anyio", "segno", "starlette", "uvicorn"}  # beside the runtime: the extra `serve`
KIOSK_ON_RAY = {"ray"}  # in on_ray/ alone: the extra `scale`
RUNTIME_ENGINES = {"onnxruntime", "openvino", "tensorrt", "tensorrt_rtx", "cuda"}  # in engines/ alone
HEAVY = ("torch", "transformers", "diffusers", "onnx", "onnxscript", "mgcc_ref", "mgcc_export", "mgcc_calibration")


def imports_of(path: Path, package: str) -> Iterator[str]:
    """Full names of all that a file imports, `from a import b` as a.b."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package if node.level else node.module or ""
            yield from (f"{base}.{alias.name}" for alias in node.names)


def sources(package: str) -> list[Path]:
    return sorted(FOLDERS[package].rglob("*.py"))


@pytest.mark.parametrize("package", FOLDERS)
def test_arrows(package):
    wrong = []
    for path in sources(package):
        commands = f"{package}, command lines"
        arrows = ARROWS[commands if path.name == "__main__.py" and commands in ARROWS else package]
        for name in imports_of(path, package):
            top = name.split(".")[0]
            if top == package or not top.startswith("mgcc_"):
                continue
            if not any(name == allowed or name.startswith(f"{allowed}.") for allowed in arrows):
                wrong.append(f"{path.relative_to(ROOT)} imports {name}")
    assert not wrong, "\n".join(wrong)


def test_runtime_imports_little():
    """numpy, Pillow and tokenizers anywhere; other packages only in the folder that is for them."""
    wrong = []
    for path in sources("mgcc_runtime"):
        folder = path.relative_to(FOLDERS["mgcc_runtime"]).parts[0]
        allowed = RUNTIME_ANYWHERE | {"engines": RUNTIME_ENGINES, "kit": RUNTIME_KIT}.get(folder, set())
        for name in imports_of(path, "mgcc_runtime"):
            top = name.split(".")[0]
            if top not in {*sys.stdlib_module_names, *allowed, "mgcc_runtime"}:
                wrong.append(f"{path.relative_to(ROOT)} imports {name}")
    assert not wrong, "\n".join(wrong)


def test_the_kiosk_imports_little_more():
    for path in sources("mgcc_kiosk"):
        on_ray = KIOSK_ON_RAY if "on_ray" in path.parts else set()
        allowed = {*sys.stdlib_module_names, *KIOSK, *on_ray, "mgcc_runtime", "mgcc_kiosk"}
        assert {name.split(".")[0] for name in imports_of(path, "mgcc_kiosk")} <= allowed, path


@pytest.mark.parametrize("package", ["mgcc_export", "mgcc_calibration"])
def test_graphs_are_read_and_changed_by_onnx_ir_alone(package):
    found = {name.split(".")[0] for path in sources(package) for name in imports_of(path, package)}
    assert "onnx_ir" in found and "onnx" not in found


def test_a_forbidden_import_would_be_found(tmp_path):
    hidden = tmp_path / "hidden.py"
    hidden.write_text("def f():\n    from torch import nn\n    import mgcc_ref.model\n", encoding="utf-8")
    assert list(imports_of(hidden, "mgcc_runtime")) == ["torch.nn", "mgcc_ref.model"]


def run_python(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout


def test_whole_runtime_imports_without_anything_heavy():
    """Every module of the runtime, engines too, in a process of its own: nothing of the exporter's world is loaded."""
    modules = [
        ".".join(path.relative_to(FOLDERS["mgcc_runtime"].parent).with_suffix("").parts)
        for path in sources("mgcc_runtime")
        if path.name != "__main__.py"
    ]
    loaded = run_python(
        f"import importlib, sys\nfor name in {modules!r}: importlib.import_module(name)\n"
        f"print(*[name for name in {HEAVY!r} if name in sys.modules])"
    )
    assert loaded.split() == []


def test_importing_the_runtime_is_quick():
    """At most 0.3 s of processor time (that, since the machine may be busy), and no engine."""
    code = "import time; t = time.process_time(); import mgcc_runtime; print(time.process_time() - t)"
    assert min(float(run_python(code)) for _ in range(3)) <= 0.3
    loaded = run_python("import sys, mgcc_runtime; print(*[n for n in ('numpy', 'onnxruntime') if n in sys.modules])")
    assert loaded.split() == []
