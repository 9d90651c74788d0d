"""Give a UNet that was trained without `ObjectPainter` its input channels, with weights of zero: it computes as before.

    python -m mgcc_ref.train --step unet --steps 0 --weights elsewhere
    python tools/grow_unet.py --weights mgcc_ref/weights/story --painter runs/story/unet/painter.safetensors

The first command trains the painter; `python -m mgcc_ref.train --step unet --go-on` then teaches the UNet to use it.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors.torch import save_file

from mgcc_ref.networks.layout_map import PAINTED_CHANNELS
from mgcc_ref.networks.unet import POSITION_CHANNELS
from mgcc_ref.weights import WeightsError, read_tensors
from mgcc_runtime.commands.console import command, note
from mgcc_runtime.errors import EXIT_DONE, InputError

CONV_IN = "unet.conv_in.weight"


@command("grow_unet.py")
def main(arguments: Sequence[str] | None = None) -> int:
    """Rewrite a UNet's weights; returns the exit code."""
    parser = argparse.ArgumentParser(prog="grow_unet.py", description=__doc__.splitlines()[0])
    parser.add_argument("--weights", type=Path, required=True, help="folder with unet.safetensors, which is rewritten")
    parser.add_argument("--painter", type=Path, required=True, help="the painter that a run of step unet has trained")
    options = parser.parse_args(arguments)
    path = options.weights / "unet.safetensors"
    try:
        state, painter = read_tensors(path), read_tensors(options.painter)
    except WeightsError as error:
        raise InputError(str(error)) from error
    if CONV_IN not in state:
        raise InputError(f"{path} has no {CONV_IN}, so it is no UNet; give the folder of its weights with --weights")
    if any(name.startswith("layout_map.painter.") for name in state):
        note(f"{path} has the painter's channels already")
        return EXIT_DONE
    state |= {f"layout_map.{name}": value for name, value in painter.items() if name.startswith("painter.")}
    old = state[CONV_IN]
    before = state["unet.conv_out.weight"].shape[0] + POSITION_CHANNELS
    new = old.new_zeros(len(old), PAINTED_CHANNELS, 3, 3)
    state[CONV_IN] = torch.cat([old[:, :before], new, old[:, before:]], dim=1)
    save_file({name: value.contiguous() for name, value in state.items()}, path)
    note(f"wrote {path} with {PAINTED_CHANNELS} more input channels")
    return EXIT_DONE


if __name__ == "__main__":
    sys.exit(main())
