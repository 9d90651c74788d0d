"""Give a UNet that was trained without `ObjectPainter` its input channels, with weights of zero: it computes as before.

    python -m mgcc_ref.train --step unet --steps 0 --weights elsewhere
    python tools/grow_unet.py --weights mgcc_ref/weights/story --painter runs/story/unet/painter.safetensors

The first command trains the painter; `python -m mgcc_ref.train --step unet --go-on` then teaches the UNet to use it.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from mgcc_ref.layout_map import PAINTED_CHANNELS
from mgcc_ref.unet import POSITION_CHANNELS

CONV_IN = "unet.conv_in.weight"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--weights", type=Path, required=True, help="folder with unet.safetensors, which is rewritten")
    parser.add_argument("--painter", type=Path, required=True, help="the painter that a run of step unet has trained")
    options = parser.parse_args()
    path = options.weights / "unet.safetensors"
    state = load_file(path)
    if any(name.startswith("layout_map.painter.") for name in state):
        print(f"{path} has the painter's channels already")
        return 0
    painter = load_file(options.painter)
    state |= {f"layout_map.{name}": value for name, value in painter.items() if name.startswith("painter.")}
    old = state[CONV_IN]
    before = state["unet.conv_out.weight"].shape[0] + POSITION_CHANNELS
    new = old.new_zeros(len(old), PAINTED_CHANNELS, 3, 3)
    state[CONV_IN] = torch.cat([old[:, :before], new, old[:, before:]], dim=1)
    save_file({name: value.contiguous() for name, value in state.items()}, path)
    print(f"wrote {path} with {PAINTED_CHANNELS} more input channels")
    return 0


if __name__ == "__main__":
    sys.exit(main())
