"""A model with only the needed parts in memory: for the paper's scale, whose parts together are 30 GB in fp32.

All parts are on PyTorch's meta device, shapes without storage, until a stage needs them.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from mgcc_ref.config import Profile
from mgcc_ref.llm_layers import RandomLayers, StreamedLm, open_layers
from mgcc_ref.model import (
    Alignment,
    MgccModel,
    Weights,
    is_random,
    llm_tokenizer,
    load_published,
    local_sources,
    text_tokenizer,
    weight_files,
)
from mgcc_ref.networks.clip import build_clip
from mgcc_ref.networks.grounder import LayoutHead, make_decisive
from mgcc_ref.networks.llm import CausalLm, ImageTokens
from mgcc_ref.networks.refiner import Refiner
from mgcc_ref.networks.unet import GroundedUNet, open_gates
from mgcc_ref.networks.vae import build_autoencoder
from mgcc_ref.networks.visual_projection import build_projection
from mgcc_ref.weights import load_module, require_file

#: The parts of each stage's module. The UNet also holds CLIP's output for the empty caption.
STAGE_PARTS: dict[str, frozenset[str]] = {
    "vision_encoder": frozenset({"clip", "projection"}),
    "llm": frozenset(),  # streamed
    "refiner": frozenset({"refiner"}),
    "grounder": frozenset({"grounder"}),
    "unet": frozenset({"clip", "unet"}),
    "unet_plain": frozenset({"clip", "unet"}),
    "solver": frozenset(),  # no weights
    "vae_decoder": frozenset({"vae"}),
    "phrase_encoder": frozenset({"clip"}),
}


@dataclass(frozen=True)
class PartedModel:
    """A model and the source of its parts. `model.llm` is a `StreamedLm`, which is always usable."""

    model: MgccModel
    folder: Path
    random: bool
    seed: int = 0

    def hold(self, stages: Collection[str]) -> None:
        """Load the parts of these stages and drop all others. WeightsError if a part cannot be loaded."""
        needed = {part for stage in stages for part in STAGE_PARTS[stage]}
        if self.model.labels and needed & {"grounder", "unet"}:
            needed.add("clip")  # it embeds the labels for them
        modules = self._modules()
        for part, module in modules.items():
            if part not in needed:
                module.to("meta")
        for part in modules:
            if part in needed and next(modules[part].parameters()).is_meta:
                self._fill(part, modules[part])
        self.model.eval().requires_grad_(False)
        if "unet" in needed:
            self.model.unet.null_conditioning.copy_(self.model.encode_captions([""]))
        if "refiner" in needed:
            self.model.refiner.take(self.model.llm.image_tokens.embeddings)
        if "grounder" in needed and self.model.labels:
            self.model.settle_queries()
        if stages and not self.model.labels and set(stages) <= {"unet", "unet_plain"}:
            self.model.clip.to("meta")  # it was needed for the null conditioning alone

    def start(self, parts: Collection[str]) -> None:
        """Load these parts as training starts with them: published weights, or else fresh ones."""
        modules = self._modules()
        for part in parts:
            bare = self.model.unet.unet if part == "unet" else modules[part]
            if self.random or not load_published(bare, self.model.profile, part):
                self._renew(part)
        self.model.eval().requires_grad_(False)

    def release(self) -> None:
        """Drop all parts; the language model, which holds none of its blocks, stays usable."""
        self.hold(())

    def _modules(self) -> dict[str, nn.Module]:
        m = self.model
        return {
            "clip": m.clip,
            "projection": m.vision_encoder.projection,
            "refiner": m.refiner,
            "grounder": m.grounder,
            "unet": m.unet,
            "vae": m.autoencoder,
        }

    def _fill(self, part: str, module: nn.Module) -> None:
        profile = self.model.profile
        bare = self.model.unet.unet if part == "unet" else module
        if not self.random and load_published(bare, profile, part):
            if part == "unet":
                self.model.unet.null_conditioning = torch.zeros(self.model.unet.null_conditioning.shape)
            return
        self._renew(part)
        if self.random:
            if part == "unet":
                open_gates(module, self.seed)
            if part == "grounder":
                make_decisive(self.model.grounder.box)
            return
        if part in ("projection", "refiner"):  # one file holds what step `align` trains
            other = "refiner" if part == "projection" else "projection"
            if next(self._modules()[other].parameters()).is_meta:
                self._renew(other)
            load_module(Alignment(self.model), self.folder / "alignment.safetensors")
        else:
            load_module(
                module, profile.unet_file(self.folder) if part == "unet" else self.folder / f"{part}.safetensors"
            )

    def _renew(self, part: str) -> None:
        """Fill a part with fresh weights, which depend on the seed and the part alone."""
        modules = self._modules()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(101 * self.seed + list(modules).index(part))
            adopt(modules[part], self._fresh(part))

    def _fresh(self, part: str) -> nn.Module:
        """The part's module with fresh weights, in memory."""
        p = self.model.profile
        width, positions, features = p.clip.text_hidden, p.clip.text_positions, p.llm.feature_dim
        if part == "clip":
            return build_clip(p.clip)
        if part == "projection":
            return build_projection(p.clip, p.visual_pooling, p.visual_tokens, p.llm.hidden)
        if part == "refiner":
            return Refiner(p.refiner, features, p.llm.hidden, positions, width, p.image_tokens)
        if part == "grounder":
            return LayoutHead(p.grounder, features, p.llm.hidden, p.max_objects, torch.zeros(len(p.labels), width))
        if part == "unet":
            return GroundedUNet(p.unet, width, positions, width)
        return build_autoencoder(p.vae, p.unet.latent_channels)


def adopt(module: nn.Module, filled: nn.Module) -> None:
    """Move all tensors of `filled` into `module`, of the same build, including buffers that no file holds."""
    theirs = dict(filled.named_modules())
    for name, part in module.named_modules():
        for tensors, found in ((part._parameters, theirs[name]._parameters), (part._buffers, theirs[name]._buffers)):
            tensors.update(found)


def load_parts(profile: Profile, weights: Weights = None, seed: int = 0) -> PartedModel:
    """Open a profile's model with no part in memory. WeightsError if one of our own files or a shard is missing."""
    random = is_random(profile, weights)
    folder = weights if isinstance(weights, Path) else profile.weights_folder
    profile = profile if random else local_sources(profile, folder)
    if not random:
        for path in weight_files(profile, folder):
            require_file(path, profile.argument)
    found = open_parts(profile, folder, random=random, seed=seed)
    if not random:  # the trained [IMG] tokens
        found.hold(("refiner",))
        found.hold(())
    return found


def open_parts(profile: Profile, folder: Path, *, random: bool, seed: int = 0) -> PartedModel:
    """A model with only its language model's tables in memory, from the sources that the profile names."""
    layers = RandomLayers(profile.llm, seed) if random else open_layers(profile.llm)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        image_tokens = ImageTokens(profile.image_tokens, profile.llm.hidden)
    tokenizers = llm_tokenizer(profile, random=random), text_tokenizer(profile, random=random)
    with torch.device("meta"):
        llm = CausalLm(profile.llm, ImageTokens(profile.image_tokens, profile.llm.hidden))
        model = MgccModel(profile, llm, *tokenizers)
    model.llm = StreamedLm(profile.llm, image_tokens, layers)
    return PartedModel(model.eval().requires_grad_(False), folder, random, seed)
