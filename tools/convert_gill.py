"""GILL's published checkpoint to our weights: `python tools/convert_gill.py --checkpoint FILE --out DIR`.

`pretrained_ckpt.pth.tar` (arXiv 2305.17216) holds what GILL trained around its frozen OPT and CLIP: the visual
projection, the [IMG] tokens and the mapper. They become `alignment.safetensors` of the profile `gill`. The file is a
pickle; PyTorch reads it with `weights_only=True`, which unpickles tensors and nothing else. Tensors for
retrieval are left out.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from mgcc_ref.config import Profile, Refinement, get_profile, profile_argument
from mgcc_ref.model import Alignment
from mgcc_ref.parts import load_parts
from mgcc_ref.published.pickles import read_pickle
from mgcc_ref.weights import WeightsError
from mgcc_runtime.commands.console import command, note
from mgcc_runtime.errors import InputError

#: GILL's prefix -> ours. `module.` in front, which training on several GPUs adds, is removed first.
_RENAMED = {
    "model.gen_text_hidden_fcs.0.": "refiner.mapper.",
    "model.visual_embeddings.": "visual_projection.",
}
_EMBEDDINGS = "model.input_embeddings.weight"
#: Tensors for retrieval, which this project does not do, and frozen parts that others publish.
_LEFT_OUT = ("model.ret_text_hidden_fcs.", "model.visual_fc.", "model.logit_scale", "model.lm.", "model.visual_model.")


def converted(state: Mapping[str, Tensor], profile: Profile) -> dict[str, Tensor]:
    """GILL's tensors by our names, fp16; InputError names what is missing, unknown or of another shape."""
    count, found = profile.image_tokens, {}
    for key, value in state.items():
        name = key.removeprefix("module.")
        if name.startswith(_LEFT_OUT):
            continue
        if name == _EMBEDDINGS:
            rows = value[-count:].clone()  # alone where the file was pruned, else behind OPT's own
            found |= {"image_tokens.embeddings": rows, "image_tokens.head.weight": rows.clone()}  # OPT ties the two
            found["image_tokens.head.bias"] = torch.zeros(count)
            continue
        ours = next((to + name.removeprefix(old) for old, to in _RENAMED.items() if name.startswith(old)), None)
        if ours is None:
            raise InputError(f"the checkpoint holds {name}, which GILL's does not have; give pretrained_ckpt.pth.tar")
        found[ours] = value
    expected = {name: tuple(v.shape) for name, v in Alignment(load_parts(profile, "random").model).state_dict().items()}
    if missing := sorted(expected.keys() - found.keys()):
        raise InputError(f"the checkpoint lacks {', '.join(missing[:4])}; give GILL's whole pretrained_ckpt.pth.tar")
    for name, value in found.items():
        if name not in expected or tuple(value.shape) != expected[name]:
            raise InputError(
                f"{name} of the checkpoint is {tuple(value.shape)}, profile {profile.name} has "
                f"{expected.get(name, 'no such tensor')}; choose the profile that it was trained with"
            )
    return {name: value.half().contiguous() for name, value in found.items()}


def read_checkpoint(path: Path) -> dict[str, Tensor]:
    """The tensors of a `{"state_dict": ...}` pickle; InputError if it is none, or holds more than tensors."""
    try:
        values = read_pickle(path)
    except WeightsError as error:
        raise InputError(str(error)) from None
    if isinstance(values, dict) and {"1.weight", "1.bias"} == values.keys():
        raise InputError(
            f"checkpoint {path} is GILL's decision model, which chooses between drawing a picture and finding one, and "
            "this project finds none; give pretrained_ckpt.pth.tar alone"
        )
    state = values.get("state_dict") if isinstance(values, dict) else None
    if not isinstance(state, dict) or not all(isinstance(v, Tensor) for v in state.values()):
        raise InputError(f'checkpoint {path} holds no {{"state_dict": tensors}}; give GILL\'s pretrained_ckpt.pth.tar')
    return state


@command("convert_gill.py")
def main(arguments: Sequence[str] | None = None) -> int:
    """Convert; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="convert_gill.py", description="GILL's published checkpoint to alignment.safetensors."
    )
    parser.add_argument("--checkpoint", type=Path, required=True, metavar="FILE", help="pretrained_ckpt.pth.tar")
    parser.add_argument("--profile", default="gill", type=profile_argument, metavar="NAME|FILE.json",
                        help="with GILL's refinement (default: %(default)s)")  # fmt: skip
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="the weights folder")
    options = parser.parse_args(arguments)
    profile = get_profile(options.profile)
    if profile.refiner.refinement is not Refinement.GILL:
        raise InputError(
            f"profile {profile.name} refines by {profile.refiner.refinement.value}, expected gill; "
            "give gill, or a profile that was derived from it"
        )
    found = converted(read_checkpoint(options.checkpoint), profile)
    options.out.mkdir(parents=True, exist_ok=True)
    save_file(found, options.out / "alignment.safetensors")
    note(f"{options.out / 'alignment.safetensors'}: {len(found)} tensors; it lacks a grounder, which GILL has not")
    return 0


if __name__ == "__main__":
    sys.exit(main())
