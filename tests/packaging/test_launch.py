"""The repository's commands, started with an interpreter that lacks their packages."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from mgcc_runtime.commands.launch import launch

ROOT = Path(__file__).parents[2]
SCRIPTS = sorted([*(ROOT / "benchmarks").glob("*.py"), ROOT / "export" / "build_engines.py"])


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_a_missing_package_is_one_sentence_that_says_what_to_do(script: Path) -> None:
    asked = ["--bundle", "nowhere"] if script.name in ("latency.py", "serve.py") else []  # read first
    bare = [sys.executable, "-I", "-S", str(script), *asked]  # -S: no site-packages, as beside the project's own

    done = subprocess.run(bare, capture_output=True, text=True, check=False, cwd=ROOT)

    assert done.returncode == 1
    assert re.search("does not have the package (numpy|torch|PIL); run `make setup` once", done.stderr.splitlines()[-1])
    assert "Traceback" not in done.stderr


def test_a_missing_module_of_the_project_is_no_matter_of_set_up() -> None:
    with pytest.raises(ModuleNotFoundError):
        launch("mgcc_runtime.nothing_of_this_name")


def test_the_exit_code_is_the_command_s() -> None:
    """`mgcc --version` ends with 0 here, and an unknown option with 2."""
    code = "from mgcc_runtime.commands.launch import launch; launch('mgcc_runtime.cli')"  # sys.argv is ["-c", option]

    codes = [
        subprocess.run([sys.executable, "-c", code, option], capture_output=True, check=False).returncode
        for option in ("--version", "--nothing")
    ]

    assert codes == [0, 2]
