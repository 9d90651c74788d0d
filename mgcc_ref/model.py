"""The whole model: every stage's module under one roof, built from a profile, filled from a weights folder."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Literal

import torch
from tokenizers import Tokenizer
from torch import Tensor, nn

from mgcc_ref.config import Grounding, LoraConfig, Profile, get_profile
from mgcc_ref.llm_layers import load_llm
from mgcc_ref.networks.clip import PhraseEncoder, TextEncoder, VisionEncoder, build_clip
from mgcc_ref.networks.draw_decision import DrawDecision
from mgcc_ref.networks.grounder import LayoutHead
from mgcc_ref.networks.llm import CausalLm, ImageTokens
from mgcc_ref.networks.refiner import Refiner
from mgcc_ref.networks.solver import Solver
from mgcc_ref.networks.unet import GroundedUNet, PlainStudentUNet, PlainUNet, StudentUNet, open_gates
from mgcc_ref.networks.vae import VaeDecoder, build_autoencoder
from mgcc_ref.published.clip import load_clip
from mgcc_ref.published.diffusion import load_unet, load_vae
from mgcc_ref.published.hub import find_folder, find_llm
from mgcc_ref.published.lora import PARTS as LORA_PARTS, fuse_lora
from mgcc_ref.published.tokenizer_files import load_llm_tokenizer
from mgcc_ref.tokens import (
    CAPTION_END,
    caption_tokenizer,
    clip_tokenizer,
    encode_captions,
    opt_tokenizer,
    word_tokenizer,
)
from mgcc_ref.weights import load_module, require_file
from mgcc_runtime.contract import Dimensions, Grounder, PromptTemplate

MAX_IMAGES = 8
DECISION_FILE = "decision.safetensors"  # of weights that have a decision to draw; the others go by [IMG1]

Weights = Path | Literal["random"] | None


class MgccModel(nn.Module):
    """All stages as submodules; their inputs and outputs are those of `mgcc_runtime.contract`."""

    def __init__(self, profile: Profile, llm: CausalLm, tokenizer: Tokenizer, text_tokenizer: Tokenizer) -> None:
        super().__init__()
        self.profile, self.tokenizer, self.text_tokenizer = profile, tokenizer, text_tokenizer
        hidden, features = profile.llm.hidden, profile.llm.feature_dim
        clip_config, width = profile.clip, profile.clip.text_hidden
        self.clip = build_clip(clip_config)
        self.text_encoder = TextEncoder(self.clip)
        self.phrase_encoder = PhraseEncoder(self.text_encoder)
        self.vision_encoder = VisionEncoder(
            self.clip, clip_config, profile.visual_pooling, profile.visual_tokens, hidden
        )
        self.llm = llm
        self.refiner = Refiner(
            profile.refiner, features, hidden, clip_config.text_positions, width, profile.image_tokens
        )
        labels = torch.zeros(len(profile.labels), width)
        self.grounder = LayoutHead(profile.grounder, features, hidden, profile.max_objects, labels)
        self.unet = GroundedUNet(profile.unet, width, clip_config.text_positions, width)
        self.solver = Solver()
        self.autoencoder = build_autoencoder(profile.vae, profile.unet.latent_channels)
        self.vae_decoder = VaeDecoder(self.autoencoder, profile.vae)
        self.decision: DrawDecision | None = None

    @property
    def gated(self) -> bool:
        return self.profile.unet.grounding is Grounding.GLIGEN

    @property
    def unet_plain(self) -> PlainUNet:
        """The UNet with GLIGEN's gates off. AttributeError for a profile without gates."""
        if not self.gated:
            raise AttributeError(f"profile {self.profile.name} has no gates, so no unet_plain")
        plain = PlainStudentUNet if self.profile.sampler.distilled else PlainUNet
        return plain(self.unet).eval()

    def stage(self, name: str) -> nn.Module:
        """The module of the contract's stage `name`."""
        if name == "unet" and self.profile.sampler.distilled:
            return StudentUNet(self.unet).eval()
        return getattr(self, name)

    @property
    def embed_tokens(self) -> Tensor:
        """Input embeddings of the whole vocabulary with the [IMG] tokens: (V, D) float32."""
        return self.llm.token_table().detach()

    @property
    def template(self) -> PromptTemplate:
        return self.profile.template

    @property
    def labels(self) -> tuple[str, ...]:
        return self.profile.labels

    @property
    def label_embeddings(self) -> Tensor:
        """Phrase embeddings of the label list: (L, D_p) float32."""
        return self.embed_phrases(self.labels)

    @property
    def end_token_ids(self) -> tuple[int, ...]:
        found = [self.tokenizer.token_to_id(token) for token in self.profile.end_tokens]
        return tuple(i for i in found if i is not None)

    @property
    def image_token_ids(self) -> tuple[int, ...]:
        first = self.profile.llm.vocabulary
        return tuple(range(first, first + self.profile.image_tokens))

    def embed_phrases(self, phrases: tuple[str, ...]) -> Tensor:
        """Phrases -> embeddings (len, D_p) float32 for the UNet's grounding."""
        if not phrases:
            return torch.zeros(0, self.profile.clip.text_hidden)
        with torch.no_grad():
            return self.text_encoder(encode_captions(self.text_tokenizer, phrases))[1]

    def encode_captions(self, captions: list[str]) -> Tensor:
        """Captions -> the text encoder's hidden states (B, N_c, D_c) float32: the mapper's target."""
        with torch.no_grad():
            return self.text_encoder(encode_captions(self.text_tokenizer, captions))[0]

    @property
    def dimensions(self) -> Dimensions:
        p = self.profile
        return Dimensions(
            images=MAX_IMAGES,
            vision_px=p.clip.image_px,
            visual_tokens=p.visual_tokens,
            image_tokens=p.image_tokens,
            hidden=p.llm.hidden,
            features=p.llm.feature_dim,
            layers=p.llm.layers,
            kv_heads=p.llm.kv_heads,
            head_dim=p.llm.head_dim,
            vocabulary=p.llm.vocabulary + p.image_tokens,
            context=p.max_context,
            conditioning_tokens=p.clip.text_positions,
            conditioning=p.clip.text_hidden,
            objects=p.max_objects,
            phrase=p.clip.text_hidden,
            latent_channels=p.unet.latent_channels,
            latent_px=p.unet.latent_px,
            image_px=p.image_px,
            gated=self.gated,
            phrase_encoder=not p.labels,
            distilled=p.sampler.distilled,
            solver_order=p.sampler.order,
            layout_head=Grounder.LAYOUT_HEAD in p.grounders,
        )

    def settle(self) -> None:
        """Recompute the values that derive from other parts: the label queries, the empty caption's conditioning and
        GILL's copy of the [IMG] embeddings."""
        self.settle_queries()
        self.refiner.take(self.llm.image_tokens.embeddings)
        self.unet.null_conditioning.copy_(self.encode_captions([""]))

    def settle_queries(self) -> None:
        """Recompute the grounder's label queries, if it has any."""
        if self.profile.labels and hasattr(self.grounder, "query_phrases"):
            slots = self.profile.grounder.slots_per_label
            self.grounder.query_phrases.copy_(self.label_embeddings.repeat_interleave(slots, dim=0))


def load_model(profile: Profile | str, weights: Weights = None, seed: int = 0) -> MgccModel:
    """Build a profile's model in eval mode.

    `weights`: a folder, "random" for seeded random weights, or None for the profile's own folder (the tiny
    profile has none; it is random then). WeightsError says what is missing and where to get it.
    """
    profile = get_profile(profile) if isinstance(profile, str) else profile
    state = torch.random.get_rng_state()
    torch.manual_seed(seed)
    try:
        random = is_random(profile, weights)
        folder = weights if isinstance(weights, Path) else profile.weights_folder
        if not random:  # before the language model, which takes long to read
            profile = local_sources(profile, folder)
            for path in weight_files(profile, folder):
                require_file(path, profile.argument)
        llm = build_llm(profile, filled=not random)
        model = MgccModel(profile, llm, llm_tokenizer(profile, random=random), text_tokenizer(profile, random=random))
    finally:
        torch.random.set_rng_state(state)
    if random:
        open_gates(model.unet, seed)
    else:
        load_folder(model, folder)
    model.eval().requires_grad_(False).settle()
    return model


def is_random(profile: Profile, weights: Weights) -> bool:
    """Whether these weights are seeded random ones: by `weights`, or because the profile has no others."""
    return weights == "random" or (weights is None and not profile.llm.source)


def local_sources(profile: Profile, folder: Path) -> Profile:
    """The profile with published parts taken from `folder`/llm, /clip, /unet, /vae and /lora where these exist.

    The folders have the hub's layout; without one, a part comes from its hub id. `paper-tiny` and `gill-tiny`, which
    name no source, take such folders too.
    """
    llm, clip, unet, vae = profile.llm, profile.clip, profile.unet, profile.vae
    if (llm.source or vae.kl) and (folder / "llm").is_dir():
        llm = replace(llm, source=str(folder / "llm"))
    if (clip.source or vae.kl) and (folder / "clip").is_dir():
        clip = replace(clip, source=str(folder / "clip"))
    if (unet.source or vae.kl) and (folder / "unet").is_dir():
        unet = replace(unet, source=str(folder))  # the loader appends the part's name
    if (vae.source or vae.kl) and (folder / "vae").is_dir():
        vae = replace(vae, source=str(folder))
    return replace(
        profile, llm=llm, clip=clip, unet=unet, vae=vae, loras=tuple(_local(x, folder) for x in profile.loras)
    )


def _local(lora: LoraConfig, folder: Path) -> LoraConfig:
    here = folder / "lora" / Path(lora.source).name
    return replace(lora, source=str(here)) if here.is_file() else lora


def load_untrained(profile: Profile) -> MgccModel:
    """The model at the start of training: the profile's language model, all else fresh from PyTorch's generator."""
    llm = build_llm(profile, filled=True)
    model = MgccModel(profile, llm, llm_tokenizer(profile), text_tokenizer(profile))
    return model.eval().requires_grad_(False)


def build_llm(profile: Profile, *, filled: bool) -> CausalLm:
    """The language model with its source's weights; random ones if not `filled`, or without a source."""
    image_tokens = ImageTokens(profile.image_tokens, profile.llm.hidden)
    if not filled or not profile.llm.source:
        return CausalLm(profile.llm, image_tokens)
    with torch.device("meta"):  # skips initial weights that the source would replace
        llm = CausalLm(profile.llm, image_tokens)
    llm.image_tokens = image_tokens
    load_llm(llm, find_llm(profile.llm.source))
    return llm


def weight_files(profile: Profile, folder: Path) -> tuple[Path, ...]:
    """The file of each training step, without parts that have a published source."""
    parts = {"clip": profile.clip.source, "vae": profile.vae.source}
    own = [name for name, source in parts.items() if not source]
    head = ["grounder"] if Grounder.LAYOUT_HEAD in profile.grounders else []
    files = [folder / f"{name}.safetensors" for name in (*own, "alignment", *head)]
    return tuple(files) if profile.unet.source else (*files, profile.unet_file(folder))


def load_folder(model: MgccModel, folder: Path) -> None:
    """Fill the model: published parts from their sources, parts that this project trains from `folder`."""
    if not load_published(model.clip, model.profile, "clip"):
        load_module(model.clip, folder / "clip.safetensors")
    if not load_published(model.autoencoder, model.profile, "vae"):
        load_module(model.autoencoder, folder / "vae.safetensors")
    if not load_published(model.unet.unet, model.profile, "unet"):
        load_module(model.unet, model.profile.unet_file(folder))
    load_module(Alignment(model), folder / "alignment.safetensors")
    if Grounder.LAYOUT_HEAD in model.profile.grounders:
        load_module(model.grounder, folder / "grounder.safetensors")
    if (decision := folder / DECISION_FILE).is_file():
        model.decision = DrawDecision(model.profile.llm.feature_dim)
        load_module(model.decision, decision)


def load_published(module: nn.Module, profile: Profile, part: str) -> bool:
    """Fill the clip, vae or bare unet from the profile's source and LoRA files. False if the part has no source."""
    clip, unet, vae = profile.clip, profile.unet, profile.vae
    if part == "clip" and clip.source:
        load_clip(module, clip, find_folder(clip.source, "CLIP"))
    elif part == "unet" and unet.source:
        load_unet(module, unet, clip.text_hidden, find_folder(unet.source, "UNet", "unet"))
    elif part == "vae" and vae.source:
        load_vae(module, vae, unet.latent_channels, find_folder(vae.source, "autoencoder", "vae"))
    else:
        return False
    for lora in profile.loras if part in LORA_PARTS else ():
        fuse_lora(module, part, Path(lora.source), lora.scale)
    return True


class Alignment(nn.Module):
    """The modules that step `align` trains: the visual projection, the [IMG] tokens, the CMRM and the mapper."""

    def __init__(self, model: MgccModel) -> None:
        super().__init__()
        self.visual_projection = model.vision_encoder.projection
        self.image_tokens = model.llm.image_tokens
        self.refiner = model.refiner


def llm_tokenizer(profile: Profile, *, random: bool = False) -> Tokenizer:
    """The language model's tokenizer. With random weights: a small one of its form where the real one is on a hub."""
    if profile.llm.source and not (random and profile.clip.source):
        return load_llm_tokenizer(find_llm(profile.llm.source))
    from mgcc_ref.story.captions import CAPTION_WORDS

    words = ("system", "user", "assistant", "you", "tell", "short", "picture", "stories.", "(a", "of", ")", "a", "the",
             "is", "my", "friend", "sits", "under", "this", "here", "and", "with", ".", *CAPTION_WORDS)  # fmt: skip
    if profile.llm.family == "opt":
        return opt_tokenizer(words, profile.llm.vocabulary)
    return word_tokenizer(words, ("<|im_start|>", "<|im_end|>", "<|endoftext|>"))


def text_tokenizer(profile: Profile, *, random: bool = False) -> Tokenizer:
    """The text tower's tokenizer, chosen as in `llm_tokenizer`."""
    clip = profile.clip
    if clip.source and not random:
        from mgcc_ref.published.tokenizer_files import load_clip_tokenizer

        return load_clip_tokenizer(find_folder(clip.source, "CLIP"), clip.text_positions)
    if clip.eos_token_id != CAPTION_END:
        return clip_tokenizer(clip.text_vocabulary, clip.text_positions)
    from mgcc_ref.story.captions import CAPTION_WORDS

    return caption_tokenizer(CAPTION_WORDS, clip.text_positions)
