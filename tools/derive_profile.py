"""A profile for weights of your own: `python tools/derive_profile.py --like gill --weights DIR`.

Sizes come from the folders `llm`, `clip`, `unet` and `vae` below DIR, or from hub ids; everything else is as in the
profile that it is like. It becomes DIR/profile.json, which `--profile` takes and which may be edited.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from mgcc_ref.config import PROFILE_NAMES, get_profile, profile_argument
from mgcc_ref.published.derive import PARTS, Sources, derive_profile
from mgcc_ref.typed_json import to_json
from mgcc_ref.weights import WeightsError
from mgcc_runtime.commands.console import command, note
from mgcc_runtime.errors import EXIT_DONE, InputError
from mgcc_runtime.files import write_atomically


@command("derive_profile.py")
def main(arguments: Sequence[str] | None = None) -> int:
    """Write a profile; returns the exit code: 0 done, 2 a part is missing or does not go with the others."""
    parser = argparse.ArgumentParser(prog="derive_profile.py", description="A profile for weights of your own.")
    parser.add_argument("--like", default="paper", type=profile_argument, metavar="NAME|FILE.json",
                        help=f"(default: %(default)s): {', '.join(PROFILE_NAMES)}")  # fmt: skip
    parser.add_argument("--weights", type=Path, required=True, metavar="DIR", help="holds llm, clip, unet and vae")
    for part in PARTS:
        parser.add_argument(f"--{part}", metavar="DIR|ID", help=f"another place of {part}: a folder, or a hub id")
    parser.add_argument("--few-steps", type=int, metavar="N", choices=range(1, 51),
                        help="what the LoRA in DIR/lora was distilled for: DDIM, guidance in its weights")  # fmt: skip
    parser.add_argument("--name", help="the profile's (unset: that of DIR)")
    parser.add_argument("--out", type=Path, metavar="FILE.json", help="(unset: DIR/profile.json)")
    options = parser.parse_args(arguments)
    like, name = get_profile(options.like), options.name or options.weights.resolve().name
    sources = Sources.of(options.weights, like, {part: getattr(options, part) for part in PARTS})
    try:
        profile = derive_profile(like, name, sources, options.few_steps)
    except WeightsError as error:
        raise InputError(str(error)) from None
    out = options.out or options.weights / "profile.json"
    write_atomically(out, to_json(profile).encode())
    llm, unet = profile.llm, profile.unet
    note(
        f"{out}: {llm.family} of {llm.layers} blocks of width {llm.hidden}, pictures of {profile.image_px} pixels, "
        f"conditioned on {profile.clip.text_hidden} values, channels {', '.join(map(str, unet.block_channels))}"
    )
    return EXIT_DONE


if __name__ == "__main__":
    sys.exit(main())
