"""A profile derived from published folders: sizes and tokens are the folders', other choices a given profile's."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from mgcc_ref.config import (
    CHAT_TEMPLATE,
    LoraConfig,
    Profile,
    Refinement,
    SamplerConfig,
    UNetConfig,
    VaeConfig,
    student_sampler,
)
from mgcc_ref.llm_config import LlmConfig
from mgcc_ref.published.clip import clip_config
from mgcc_ref.published.diffusion import unet_config, vae_config
from mgcc_ref.published.hub import find_folder, find_llm
from mgcc_ref.published.llm import llm_config
from mgcc_ref.published.settings import read_settings
from mgcc_ref.published.tokenizer_files import load_llm_tokenizer
from mgcc_ref.weights import WeightsError

PARTS = ("llm", "clip", "unet", "vae")
SCHEDULER = ("scheduler", "scheduler_config.json")
PIXELS_A_LATENT = 8
_NOISY = ("LCMScheduler", "TCDScheduler", "DDPMScheduler", "EulerAncestralDiscreteScheduler")


@dataclass(frozen=True)
class Sources:
    """Each part's local folder or hub id. For the UNet and the autoencoder, it is the parent folder."""

    llm: str
    clip: str
    unet: str
    vae: str
    loras: tuple[str, ...] = ()  # files

    @classmethod
    def of(cls, weights: Path, like: Profile, given: Mapping[str, str | None]) -> Sources:
        """Each part's given source, else the folder of its name in `weights`, else the source of profile `like`."""
        found = {}
        for part in PARTS:
            if given.get(part):
                found[part] = str(given[part])
            elif (weights / part).is_dir():
                found[part] = str(weights if part in ("unet", "vae") else weights / part)
            else:
                found[part] = getattr(like, part).source
        return cls(**found, loras=tuple(str(file) for file in sorted((weights / "lora").glob("*.safetensors"))))


def derive_profile(like: Profile, name: str, sources: Sources, few_steps: int | None = None) -> Profile:
    """A profile as `like`, over the weights of `sources`. WeightsError if a part is missing or does not fit the
    others.

    `few_steps`: the steps that a LoRA such as Hyper-SD's was distilled for; DDIM, with guidance in its weights.
    """
    for part in PARTS:
        if not getattr(sources, part):
            raise WeightsError(f"there is no folder {part} and profile {like.name} names no other; give it")
    llm, tokenizer = _llm(sources.llm)
    clip = replace(clip_config(find_folder(sources.clip, "CLIP")), source=sources.clip)
    unet, sampler = _unet(like, sources.unet, clip.text_hidden)
    if few_steps is not None:
        if not sources.loras:
            raise WeightsError(
                f"{few_steps} steps were asked for, and there is no LoRA that was distilled for so few; "
                "put it into the folder lora, or leave the number of steps out"
            )
        sampler = replace(student_sampler(sampler), default_steps=few_steps)
    vae = _vae(sources.vae, unet)
    folder = find_llm(sources.llm)
    opening, ends = _special_tokens(folder, tokenizer)
    template = replace(like.template, opening=opening)
    chats = {"<|im_start|>", "<|im_end|>"} <= tokenizer.get_vocab().keys()
    if chats and like.refiner.refinement is not Refinement.GILL:
        template, ends = CHAT_TEMPLATE, tuple(dict.fromkeys(("<|im_end|>", *ends)))
    return replace(
        like, name=name, llm=llm, clip=clip, unet=unet, vae=vae, sampler=sampler, template=template,
        end_tokens=ends or like.end_tokens, max_context=min(like.max_context, llm.max_positions),
        loras=tuple(LoraConfig(file) for file in sources.loras),
    )  # fmt: skip


def _llm(source: str) -> tuple[LlmConfig, Tokenizer]:
    folder = find_llm(source)
    if folder.suffix == ".gguf":
        raise WeightsError(f"{folder} is a GGUF file, expected a folder in the hub's layout; give that")
    found, tokenizer = llm_config(folder, read_settings(folder)), load_llm_tokenizer(folder)
    words = min(found.vocabulary, tokenizer.get_vocab_size(with_added_tokens=True))  # the rest is padding
    return replace(found, source=source, vocabulary=words, by_block=True), tokenizer


def _special_tokens(folder: Path, tokenizer: Tokenizer) -> tuple[str, tuple[str, ...]]:
    """(the token that begins a text or "", the tokens that end one)."""
    settings = read_settings(folder)
    if (folder / "generation_config.json").is_file():  # lists all end tokens if there are several
        settings |= {k: v for k, v in read_settings(folder, "generation_config.json").items() if v is not None}
    ends = settings.get("eos_token_id")
    names = [tokenizer.id_to_token(i) for i in (ends if isinstance(ends, list) else [ends]) if isinstance(i, int)]
    first = settings.get("bos_token_id")
    opening = tokenizer.id_to_token(first) if isinstance(first, int) else None
    if settings.get("model_type") in ("qwen2", "qwen3"):
        opening = None  # their settings name one, but their training texts did not begin with it
    return opening or "", tuple(name for name in names if name)


def _unet(like: Profile, source: str, conditioning: int) -> tuple[UNetConfig, SamplerConfig]:
    folder = find_folder(source, "UNet", "unet")
    found = unet_config(folder)
    if not found.gated:
        raise WeightsError(
            f"the UNet in {folder} is a plain one (attention_type 'default'), and {like.name} places objects by "
            "GLIGEN's gates, which it does not have; give a UNet that was trained with them, such as GLIGEN's own"
        )
    if found.conditioning != conditioning:
        raise WeightsError(
            f"the UNet in {folder} is conditioned on {found.conditioning} values a token, and the CLIP gives "
            f"{conditioning}; give the CLIP that the UNet was trained with"
        )
    unet = replace(found.config, source=source, prediction=like.unet.prediction, gate_fraction=like.unet.gate_fraction)
    place = folder.parent.joinpath(*SCHEDULER)
    if not place.is_file():
        return unet, like.sampler
    said = read_settings(place.parent, place.name)
    return replace(unet, prediction=said.get("prediction_type", "epsilon")), _sampler(like.sampler, said)


def _sampler(like: SamplerConfig, said: Mapping[str, Any]) -> SamplerConfig:
    """The sampler with the weights' noise levels and the profile's number of steps."""
    if (name := said.get("_class_name")) in _NOISY:
        raise WeightsError(
            f"the folder's scheduler is {name}, which adds new noise at each step, expected one without, such as DDIM; "
            "Hyper-SD's LoRAs of several steps are for DDIM"
        )
    return replace(
        like,
        beta_schedule=said.get("beta_schedule", like.beta_schedule),
        beta_start=said.get("beta_start", like.beta_start),
        beta_end=said.get("beta_end", like.beta_end),
    )


def _vae(source: str, unet: UNetConfig) -> VaeConfig:
    folder = find_folder(source, "autoencoder", "vae")
    found, channels = vae_config(folder)
    if channels != unet.latent_channels or 2 ** (len(found.channels) - 1) != PIXELS_A_LATENT:
        raise WeightsError(
            f"the autoencoder in {folder} has {channels} latent channels, each for {2 ** (len(found.channels) - 1)} "
            f"pixels, expected {unet.latent_channels} for {PIXELS_A_LATENT}, as the UNet has; give its own"
        )
    return replace(found, source=source)
