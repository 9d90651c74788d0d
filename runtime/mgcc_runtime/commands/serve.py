"""`mgcc serve`: a package of its own, whose dependencies a device without a server does not have."""

from __future__ import annotations

import argparse
import importlib

from mgcc_runtime.errors import InputError

_OPTIONS, _COMMAND = "mgcc_kiosk.options", "mgcc_kiosk.cli"  # by name: the runtime imports no other package of ours


def add_serve(parser: argparse.ArgumentParser) -> None:
    importlib.import_module(_OPTIONS).add_options(parser)


def serve(options: argparse.Namespace) -> int:
    """Run it; InputError where the extra is not installed."""
    try:
        command = importlib.import_module(_COMMAND)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.startswith("mgcc_"):  # ours: a mistake of the code, not of the set-up
            raise
        raise InputError(
            f"mgcc serve needs the package {error.name}, which is not installed; pip install 'mgcc-edge[serve]'"
        ) from None
    code: int = command.run(options)
    return code
