"""Weights in other forms to folders of safetensors: `python tools/convert_checkpoint.py --source SOURCE --out DIR`.

The project reads safetensors in the layouts of `transformers` and `diffusers`. SOURCE is one of:

* a folder, or a hub id, with pickled weights in these layouts (OPT's `pytorch_model*.bin`): DIR gets the same folder;
* a file in the original layout, pickled or not: Stable Diffusion 1.x's, or GLIGEN's, whose
  `diffusion_pytorch_model.bin` is in that layout, too: DIR gets `unet` and `vae`.

Pickles are read with `weights_only=True`: tensors and settings, and nothing is run.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import Tensor

from mgcc_ref.published.hub import PICKLED, find_folder
from mgcc_ref.published.original import SD_HEADS, Original, take_apart, unet_to_diffusers, vae_to_diffusers
from mgcc_ref.published.pickles import read_pickle
from mgcc_ref.published.settings import CONFIG
from mgcc_ref.published.tensors import DIFFUSERS, INDEX, TRANSFORMERS
from mgcc_ref.weights import WeightsError, read_tensors
from mgcc_runtime.commands.console import command, note
from mgcc_runtime.errors import EXIT_DONE, InputError

_STEMS = {"pytorch_model": TRANSFORMERS, DIFFUSERS: DIFFUSERS}  # name of pickled files -> of safetensors


def convert_folder(source: Path, out: Path) -> list[Path]:
    """Write `source`'s pickled weights to `out`, a shard for each file, with their index, settings and tokenizer."""
    stem = next((stem for stem in _STEMS if any(source.glob(f"{stem}*.bin"))), None)
    if stem is None:
        raise InputError(
            f"{source} holds no pytorch_model*.bin and no {DIFFUSERS}.bin; give the folder of the downloaded model, "
            "or the file of a checkpoint"
        )
    files = sorted(source.glob(f"{stem}*.bin"))
    shards: list[Path] = []
    weight_map: dict[str, str] = {}
    for number, file in enumerate(files, 1):
        state = _tensors(file)
        few = len(files) == 1
        name = _STEMS[stem] if few else f"{_STEMS[stem]}-{number:05}-of-{len(files):05}"
        shards.append(_save(state, out / f"{name}.safetensors"))
        weight_map |= dict.fromkeys(state, shards[-1].name)
    if len(files) > 1:
        text = json.dumps({"metadata": {}, "weight_map": weight_map}, indent=1) + "\n"
        (out / INDEX.replace(TRANSFORMERS, _STEMS[stem], 1)).write_text(text, encoding="utf-8")
    for path in [*source.glob("*.json"), *source.glob("*.txt")]:
        if not path.name.endswith(".index.json"):
            shutil.copyfile(path, out / path.name)
    return shards


def convert_file(source: Path, out: Path, heads: int | None) -> list[Path]:
    """Write the `unet` and `vae` of a checkpoint in the original layout to `out`."""
    original = open_original(source)
    written = []
    if original.unet:
        settings, state = unet_to_diffusers(original.unet, heads or original.heads or SD_HEADS)
        written.append(_write(settings, state, out / "unet"))
    if original.vae:
        written.append(_write(*vae_to_diffusers(original.vae), out / "vae"))
    if original.left_out:
        note(f"left out: {', '.join(original.left_out[:12])}")
    return written


def open_original(source: Path) -> Original:
    """A checkpoint's parts. InputError if it has neither a UNet nor an autoencoder in the original layout."""
    values: dict[str, Any] = dict(read_tensors(source)) if source.suffix == ".safetensors" else read_pickle(source)
    found = take_apart(values) if isinstance(values, dict) else None
    if found is None or not (found.unet or found.vae):
        raise InputError(
            f"{source} holds neither a UNet (model.diffusion_model.*, input_blocks.*) nor an autoencoder "
            "(first_stage_model.*) in the original layout; give a checkpoint of Stable Diffusion 1.x or GLIGEN, "
            "or the folder around it if it has a config.json"
        )
    return found


def _tensors(file: Path) -> dict[str, Tensor]:
    """The file's tensors. InputError for a pickle in the original layout, which `convert_file` reads."""
    values = read_pickle(file)
    if not isinstance(values, dict) or not all(isinstance(v, Tensor) for v in values.values()):
        raise InputError(
            f"{file} holds more than one model's tensors, as GLIGEN's checkpoint does; give the file itself"
        )
    return values


def _write(settings: dict[str, Any], state: dict[str, Tensor], folder: Path) -> Path:
    folder.mkdir(parents=True)
    (folder / CONFIG).write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
    return _save(state, folder / f"{DIFFUSERS}.safetensors")


def _save(state: dict[str, Tensor], path: Path) -> Path:
    # a tied tensor is stored once for each of its names: safetensors holds no shared memory
    save_file({name: tensor.contiguous().clone() for name, tensor in state.items()}, path, metadata={"format": "pt"})
    return path


def convert(source: str, out: Path, heads: int | None = None) -> list[Path]:
    """The files written. InputError if there is nothing to convert, or `out` holds something."""
    if out.exists() and any(out.iterdir()):
        raise InputError(f"{out} exists and is not empty; give a new folder with --out")
    try:
        path = Path(source) if Path(source).is_file() else find_folder(source, "checkpoint", patterns=PICKLED)
        out.mkdir(parents=True, exist_ok=True)
        return convert_file(path, out, heads) if path.is_file() else convert_folder(path, out)
    except WeightsError as error:
        raise InputError(str(error)) from error


@command("convert_checkpoint.py")
def main(arguments: Sequence[str] | None = None) -> int:
    """Convert; returns the exit code: 0 done, 2 nothing to do or no place for it."""
    parser = argparse.ArgumentParser(
        prog="convert_checkpoint.py", description="Weights in other forms to folders of safetensors."
    )
    parser.add_argument("--source", required=True, metavar="SOURCE", help="folder, hub id, or file of a checkpoint")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="new folder")
    told = f"heads of a UNet in the original layout (unset: what it says itself, or {SD_HEADS})"
    parser.add_argument("--heads", type=int, metavar="N", help=told)
    options = parser.parse_args(arguments)
    for file in convert(options.source, options.out, options.heads):
        note(f"{file}: {file.stat().st_size / 2**20:.1f} MiB")
    return EXIT_DONE


if __name__ == "__main__":
    sys.exit(main())
