"""Whatever a file says comes in through `mgcc_runtime.reading`, which takes or refuses every oddity of bytes."""

import ast
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGES = ("runtime", "export", "calibration", "benchmarks", "examples")
_CALLS = {"json.load", "json.loads", "np.load"}

#: Files that read by themselves, with the reason.
OTHERS = {
    "runtime/mgcc_runtime/reading.py": "the reader",
    "runtime/mgcc_runtime/__init__.py": "the stub beside it, which is of this package",
    "runtime/mgcc_runtime/measure/cold_start.py": "what its own child process says",
    "export/mgcc_export/tensorrt/process.py": "what its own child process says",
    "export/mgcc_export/tensorrt/builder.py": "the job that its parent process wrote for it",
    "export/mgcc_export/large/chain.py": "a stage of the cache, whose hashes were checked",
    "benchmarks/mgcc_benchmarks/peers/sides/ours.py": "work that its parent process wrote for it",
    "benchmarks/mgcc_benchmarks/peers/sides/torch.py": "work that its parent process wrote for it",
    "runtime/mgcc_runtime/kit/kiosk_files.py": "templates of this package",
    "runtime/mgcc_kiosk/page_watch.py": "what the server of this package says",
    "benchmarks/mgcc_benchmarks/serving/client.py": "what the server in its own child process says",
    "benchmarks/mgcc_benchmarks/serving/installed.py": "pyproject.toml of this checkout",
    "benchmarks/mgcc_benchmarks/peers/client.py": "what its own child process says",
    "benchmarks/mgcc_benchmarks/peers/worker.py": "what its parent process says; peers lack our packages",
    "benchmarks/mgcc_benchmarks/peers/checkpoint.py": "files that transformers wrote for it a moment ago",
    "benchmarks/mgcc_benchmarks/peers/sides/onnxruntime.py": "the bundle's graphs, exported for it a moment ago",
    "benchmarks/mgcc_benchmarks/peers/sides/openvino.py": "the bundle's graphs, exported for it a moment ago",
}
#: Files of the system, which hold ASCII; what they hold else is caught where they are read.
_SYSTEM = ("jetson.py", "power.py", "machine_load.py", "table.py")


def readers(path):
    """Calls that read JSON, arrays, or text that may be of any encoding."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
            continue
        name = ast.unparse(node.func)
        options = {option.arg for option in node.keywords}
        if name in _CALLS or (name.endswith(".read_text") and "errors" not in options):
            yield f"{name} in line {node.lineno}"


def test_there_is_one_reader():
    found = {}
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            if calls := list(readers(path)):
                found[path.relative_to(ROOT).as_posix()] = calls
    system = {name for name in found if name.rpartition("/")[2] in _SYSTEM}
    assert set(found) - system == set(OTHERS), found
    for name in system:
        assert all("read_text" in call for call in found[name]), found[name]


def test_the_search_finds_what_it_looks_for(tmp_path):
    (tmp_path / "a.py").write_text(
        "import json\nx = json.loads('1')\ny = Path('a').read_text()\nz = p.read_text(errors='x')"
    )
    assert list(readers(tmp_path / "a.py")) == ["json.loads in line 2", "Path('a').read_text in line 3"]
