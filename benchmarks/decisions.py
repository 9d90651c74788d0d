#!/usr/bin/env python3
"""Does the model see by itself which turns of a dialogue ask for a picture? See --help."""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / folder) for folder in ("benchmarks", "runtime", ".")]

if __name__ == "__main__":
    from mgcc_runtime.commands.launch import launch

    launch("mgcc_benchmarks.storybench.decisions_cli")
