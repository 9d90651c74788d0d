"""`python -m mgcc_kiosk.on_ray --bundle DIR --replicas N`, with the options of `mgcc serve`."""

from __future__ import annotations

import sys

from mgcc_kiosk.on_ray.cli import main

sys.exit(main())
