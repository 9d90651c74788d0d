"""`python -m mgcc_runtime` is the same as `mgcc`."""

from __future__ import annotations

import sys

from mgcc_runtime.cli import main

sys.exit(main())
