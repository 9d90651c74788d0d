"""Average two weights of a step, tensor by tensor: what one has learned and what the other has not forgotten.

    python tools/average_weights.py --first old/grounder.safetensors --second new/grounder.safetensors --share 0.7 \
        --out grounder.safetensors

The second must have gone on from the first (`--go-on`). Weights along the way between them are often better than both
then (arXiv 2109.01903), and those between two unrelated runs are not; so score several shares.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from safetensors.torch import save_file

from mgcc_ref.weights import WeightsError, read_tensors
from mgcc_runtime.commands.console import command, note
from mgcc_runtime.errors import EXIT_DONE, InputError


@command("average_weights.py")
def main(arguments: Sequence[str] | None = None) -> int:
    """Write the average; returns the exit code."""
    parser = argparse.ArgumentParser(prog="average_weights.py", description=__doc__.splitlines()[0])
    parser.add_argument("--first", type=Path, required=True, metavar="FILE", help="safetensors of a step")
    parser.add_argument("--second", type=Path, required=True, metavar="FILE", help="of the same step, trained further")
    parser.add_argument("--share", type=float, default=0.5, metavar="S", help="of the second, 0 to 1 (default: 0.5)")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE.safetensors")
    options = parser.parse_args(arguments)
    if not 0 <= options.share <= 1:
        parser.error(f"--share is {options.share}, expected 0 to 1")
    try:
        first, second = read_tensors(options.first), read_tensors(options.second)
    except WeightsError as error:
        raise InputError(str(error)) from error
    if {k: v.shape for k, v in first.items()} != {k: v.shape for k, v in second.items()}:
        raise InputError(f"{options.second} has other tensors than {options.first}; give two weights of the same step")
    mixed = {k: first[k].float().lerp(v.float(), options.share).to(v.dtype).contiguous() for k, v in second.items()}
    options.out.parent.mkdir(parents=True, exist_ok=True)
    save_file(mixed, options.out)
    note(f"wrote {options.out}")
    return EXIT_DONE


if __name__ == "__main__":
    sys.exit(main())
