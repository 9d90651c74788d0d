"""Pickled weights of a language model to safetensors: `python tools/convert_llm.py --source DIR --out DIR`.

The project reads safetensors alone. OPT is published as `pytorch_model*.bin`; PyTorch reads these here with
`weights_only=True`, which unpickles tensors and nothing else, and one file at a time.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors.torch import save_file

from mgcc_ref.llm_layers import INDEX


def convert(source: Path, out: Path) -> list[Path]:
    """Write `source`'s weights to `out`, a shard for each file, with their index, settings and tokenizer.

    ValueError if there is nothing to convert, or `out` holds something.
    """
    files = sorted(source.glob("pytorch_model*.bin"))
    if not files:
        raise ValueError(f"{source} holds no pytorch_model*.bin; give the folder of the downloaded model with --source")
    if out.exists() and any(out.iterdir()):
        raise ValueError(f"{out} exists and is not empty; give a new folder with --out")
    out.mkdir(parents=True, exist_ok=True)
    shards, weight_map = [], {}
    for number, file in enumerate(files, 1):
        state = torch.load(file, map_location="cpu", weights_only=True, mmap=True)
        shard = out / f"model-{number:05}-of-{len(files):05}.safetensors"
        # a tied tensor is stored once for each of its names: safetensors holds no shared memory
        save_file({name: tensor.clone() for name, tensor in state.items()}, shard, metadata={"format": "pt"})
        weight_map |= dict.fromkeys(state, shard.name)
        shards.append(shard)
    (out / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": weight_map}, indent=1) + "\n", encoding="utf-8")
    for path in [*source.glob("*.json"), *source.glob("*.txt")]:
        if not path.name.endswith(".index.json"):
            shutil.copyfile(path, out / path.name)
    return shards


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns the exit code: 0 done, 2 nothing to do or no place for it."""
    parser = argparse.ArgumentParser(description="Pickled weights of a language model to safetensors.")
    parser.add_argument("--source", type=Path, required=True, metavar="DIR", help="holds pytorch_model*.bin")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="new folder")
    options = parser.parse_args(arguments)
    try:
        shards = convert(options.source, options.out)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"{options.out}: {len(shards)} shards; build with --weights on the folder above it if it is named llm")
    return 0


if __name__ == "__main__":
    sys.exit(main())
