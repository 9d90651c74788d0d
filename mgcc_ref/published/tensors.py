"""The tensors of a published folder: their files and names, and whether they fit a module."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from mgcc_ref.published.settings import listed
from mgcc_ref.weights import WeightsError

INDEX = "model.safetensors.index.json"
TRANSFORMERS, DIFFUSERS = "model", "diffusion_pytorch_model"  # the stem of each library's files
VARIANT = "fp16"  # used if the folder holds no wider format
CONVERT = "python tools/convert_checkpoint.py --source {} --out DIR"
PICKLES = ("*.bin", "*.ckpt", "*.pt", "*.pth", "*.pth.tar")

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Tensors:
    """The tensors of some files, by a module's names; only headers have been read."""

    folder: Path
    places: dict[str, tuple[Path, str]]  # name -> (file, its name there)
    shapes: dict[str, Shape]

    def read(self, names: Iterable[str]) -> dict[str, Tensor]:
        """These tensors, in the stored dtype."""
        wanted = list(names)
        found: dict[str, Tensor] = {}
        for file in dict.fromkeys(self.places[name][0] for name in wanted):
            with safe_open(file, "pt") as shard:
                for name in wanted:
                    if self.places[name][0] == file:
                        found[name] = shard.get_tensor(self.places[name][1])
        return found


def open_tensors(folder: Path, stem: str, rename: Callable[[str], str], pickled: Path | str) -> Tensors:
    """The tensors of a folder by `rename`d names, without those renamed to ""; reads headers alone.

    `pickled` is the source of pickled weights for error messages: the folder, or its hub id. WeightsError if a file
    is missing or damaged.
    """
    places: dict[str, tuple[Path, str]] = {}
    shapes: dict[str, Shape] = {}
    for file in tensor_files(folder, stem, pickled):
        try:
            with safe_open(file, "pt") as shard:
                for key in shard.keys():  # noqa: SIM118 - no mapping
                    if name := rename(key):
                        places[name] = file, key
                        shapes[name] = tuple(shard.get_slice(key).get_shape())
        except (SafetensorError, OSError) as error:
            raise WeightsError(f"{file} cannot be read as safetensors ({error}); copy it again") from error
    return Tensors(folder, places, shapes)


def tensor_files(folder: Path, stem: str, pickled: Path | str) -> list[Path]:
    """The safetensors files of a folder's model; WeightsError if there are none, or one is missing.

    In this order: shards with their index, the library's own file name, the same of variant fp16, the folder's only
    file. Other files beside them are copies of the same weights (`consolidated`, `non_ema`).
    """
    for variant in ("", f".{VARIANT}"):
        index = folder / f"{stem}.safetensors.index{variant}.json"
        if index.is_file():
            return _shards(index)
        if (single := folder / f"{stem}{variant}.safetensors").is_file():
            return [single]
    files = sorted(folder.glob("*.safetensors"))
    if len(files) == 1:
        return files
    if files:
        raise WeightsError(
            f"{folder} holds {len(files)} files of weights and no index ({', '.join(f.name for f in files[:4])}), "
            f"expected {stem}.safetensors; leave the one that is meant"
        )
    if not folder.is_dir():
        raise WeightsError(f"{folder} is no folder; give the folder of the downloaded weights")
    pickles = sorted({f.name for pattern in PICKLES for f in folder.glob(pattern)})
    held = f" but {', '.join(pickles[:3])}" if pickles else ""
    raise WeightsError(
        f"{folder} holds no *.safetensors{held}; pickled weights are not read, since a pickle can run code; "
        f"convert them with `{CONVERT.format(pickled)}`"
    )


def _shards(index: Path) -> list[Path]:
    folder = index.parent
    try:
        named = json.loads(index.read_bytes())["weight_map"]  # bytes may begin with a byte-order mark
        files = sorted({folder / str(file) for file in named.values()})
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise WeightsError(f"{index} is no index of shards ({error!r}); copy it again") from error
    if missing := [f.name for f in files if not f.is_file()]:
        raise WeightsError(
            f"{folder} lacks {len(missing)} of {len(files)} shards that its index names "
            f"({', '.join(missing[:4])}); download them too"
        )
    return files


def misfits(found: Mapping[str, Shape], expected: Mapping[str, Shape]) -> list[str]:
    """One phrase for each kind of misfit: tensors missing, unexpected, or of another shape. Empty if all fit."""
    lacking, beside = sorted(expected.keys() - found.keys()), sorted(found.keys() - expected.keys())
    wrong = sorted(name for name in expected.keys() & found.keys() if found[name] != expected[name])
    phrases = [f"lacks {listed(lacking)}"] if lacking else []
    phrases += [f"holds {listed(beside)} beside"] if beside else []
    phrases += [f"has {listed([f'{n} {found[n]}, not {expected[n]}' for n in wrong])}"] if wrong else []
    return phrases


def require_fit(folder: Path, found: Mapping[str, Shape], expected: Mapping[str, Shape], what: str) -> None:
    """WeightsError with the phrases of `misfits`, if there are any."""
    if phrases := misfits(found, expected):
        raise WeightsError(
            f"{folder} does not fit the {what}: it {', '.join(phrases)}; give the weights that go with its settings"
        )


def fill(module: nn.Module, tensors: Tensors, what: str) -> None:
    """Load all tensors of a module, on the meta device or not, as float32. WeightsError if they do not fit."""
    expected = {name: tuple(value.shape) for name, value in module.state_dict().items()}
    require_fit(tensors.folder, tensors.shapes, expected, what)
    state = tensors.read(expected)
    with torch.no_grad():
        module.load_state_dict({k: v.float() if v.is_floating_point() else v for k, v in state.items()}, assign=True)
