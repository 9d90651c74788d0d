#!/usr/bin/env python3
"""How long does a picture take on this machine? Works from any directory of a bare clone; see --help."""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / folder) for folder in ("benchmarks", "runtime", ".")]

if __name__ == "__main__":
    from mgcc_runtime.commands.launch import launch

    launch("mgcc_benchmarks.latency.cli")
