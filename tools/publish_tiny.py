"""Folders such as a user of the paper's scale downloads, at toy width: `python tools/publish_tiny.py --out DIR`.

DIR/weights holds `llm`, `clip`, `unet`, `vae` and `scheduler` of a profile, seeded noise that the libraries which
publish such weights have written; DIR/coco holds StoryWorld's pictures in COCO's layout. Every command then takes them
as it takes full-sized ones.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from diffusers import PNDMScheduler
from PIL import Image
from tokenizers import pre_tokenizers
from transformers import CLIPImageProcessorPil, CLIPTokenizerFast, OPTConfig, OPTForCausalLM, PreTrainedTokenizerFast

from mgcc_ref.config import Profile, get_profile
from mgcc_ref.model import llm_tokenizer
from mgcc_ref.networks.clip import build_clip
from mgcc_ref.networks.unet import build_unet, open_gates
from mgcc_ref.networks.vae import build_autoencoder
from mgcc_ref.story.captions import canonical_caption
from mgcc_ref.story.world.scene import random_scene, render
from mgcc_ref.train.data.coco import SPLIT
from mgcc_runtime.commands.console import command, note
from mgcc_runtime.errors import EXIT_DONE

PROFILES = ("paper-tiny", "gill-tiny")


def publish_weights(profile: Profile, folder: Path) -> None:
    """The profile's frozen parts, each as its own library saves it."""
    torch.manual_seed(0)
    llm, clip = profile.llm, profile.clip
    built = OPTConfig(
        vocab_size=llm.vocabulary, hidden_size=llm.hidden, num_hidden_layers=llm.layers, num_attention_heads=llm.heads,
        ffn_dim=llm.intermediate, max_position_embeddings=llm.max_positions, word_embed_proj_dim=llm.hidden,
    )  # fmt: skip
    OPTForCausalLM(built).save_pretrained(folder / "llm")
    PreTrainedTokenizerFast(tokenizer_object=llm_tokenizer(profile, random=True)).save_pretrained(folder / "llm")
    build_clip(clip).save_pretrained(folder / "clip")
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokens = {token: i for i, token in enumerate([*letters, *(f"{letter}</w>" for letter in letters)])}
    tokens |= {"<|startoftext|>": clip.text_vocabulary - 2, "<|endoftext|>": clip.text_vocabulary - 1}
    CLIPTokenizerFast(vocab=tokens, merges=[]).save_pretrained(folder / "clip")
    pixels = CLIPImageProcessorPil(image_mean=list(clip.pixel_mean), image_std=list(clip.pixel_std))
    pixels.save_pretrained(folder / "clip")
    unet = build_unet(profile.unet, clip.text_hidden)
    open_gates(unet)
    unet.save_pretrained(folder / "unet")
    build_autoencoder(profile.vae, profile.unet.latent_channels).save_pretrained(folder / "vae")
    noise = profile.sampler
    PNDMScheduler(
        beta_schedule=noise.beta_schedule, beta_start=noise.beta_start, beta_end=noise.beta_end, skip_prk_steps=True,
        steps_offset=1,
    ).save_pretrained(folder / "scheduler")  # fmt: skip


def publish_pictures(count: int, folder: Path) -> None:
    """Scenes of StoryWorld with captions and boxes, as COCO 2017 has its own."""
    (folder / "annotations").mkdir(parents=True, exist_ok=True)
    (folder / SPLIT).mkdir(exist_ok=True)
    images, captions, things, labels = [], [], [], dict[str, int]()
    for number in range(count):
        scene = random_scene(np.random.default_rng([0, number]))
        pixels = render(scene)
        height, width = pixels.shape[:2]
        name = f"{number:012d}.jpg"
        Image.fromarray(pixels).save(folder / SPLIT / name, quality=95)
        images.append({"id": number, "file_name": name, "width": width, "height": height})
        captions.append({"id": number, "image_id": number, "caption": canonical_caption(scene)})
        for item in scene.objects:
            x0, y0, x1, y1 = (float(v) for v in np.array(item.box) * (width, height, width, height))
            category = labels.setdefault(item.label, len(labels) + 1)
            box = [x0, y0, x1 - x0, y1 - y0]
            things.append(
                {"id": len(things), "image_id": number, "category_id": category, "bbox": box, "iscrowd": 0}
            )  # fmt: skip
    categories = [{"id": number, "name": label} for label, number in labels.items()]
    lists = {
        "captions": {"images": images, "annotations": captions},
        "instances": {"images": images, "annotations": things, "categories": categories},
    }
    for name, content in lists.items():
        (folder / "annotations" / f"{name}_{SPLIT}.json").write_text(json.dumps(content), encoding="utf-8")


@command("publish_tiny.py")
def main(arguments: Sequence[str] | None = None) -> int:
    """Write the folders; returns the exit code."""
    parser = argparse.ArgumentParser(prog="publish_tiny.py", description="Published folders at toy width.")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR")
    parser.add_argument("--profile", default="paper-tiny", choices=PROFILES, help="(default: %(default)s)")
    parser.add_argument("--count", type=int, default=64, choices=range(2, 10_001), metavar="N",
                        help="pictures, 2 to 10000 (default: %(default)s)")  # fmt: skip
    options = parser.parse_args(arguments)
    publish_weights(get_profile(options.profile), options.out / "weights")
    publish_pictures(options.count, options.out / "coco")
    note(f"{options.out}: the parts of {options.profile} in weights, {options.count} pictures in coco")
    return EXIT_DONE


if __name__ == "__main__":
    sys.exit(main())
