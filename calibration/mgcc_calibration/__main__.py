"""`python -m mgcc_calibration`: see cli.py."""

from __future__ import annotations

import sys

from mgcc_calibration.cli import main

sys.exit(main())
