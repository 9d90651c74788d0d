#!/usr/bin/env python3
"""How fast are we beside others, on the same machine with the same weights? Works from any directory; see --help."""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / folder) for folder in ("benchmarks", "runtime", ".")]

if __name__ == "__main__":
    from mgcc_runtime.commands.launch import launch

    launch("mgcc_benchmarks.peers.cli")
