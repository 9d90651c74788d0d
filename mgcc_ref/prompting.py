"""From interleaved parts to the language model's input embeddings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from mgcc_ref.model import MgccModel
from mgcc_ref.tokens import encode_template, encode_user_text

Part = str | Image.Image

#: Pixel normalisation of the vision tower: CLIP's published values for the paper, plain halves for our own.
CLIP_MEAN, CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
HALF = (0.5, 0.5, 0.5)


@dataclass(frozen=True)
class Prompt:
    """A request as the model reads it. Image slots hold -1 in `ids`."""

    ids: tuple[int, ...]
    embeddings: Tensor  # (1, S, D) float32


def vision_statistics(model: MgccModel) -> tuple[tuple[float, float, float], tuple[float, float, float]]:
    """(mean, std) per channel for pixels in [0, 1]."""
    return (CLIP_MEAN, CLIP_STD) if model.profile.clip.source else (HALF, HALF)


def preprocess(image: Image.Image, model: MgccModel) -> Tensor:
    """RGB, short side to the tower's size (bicubic), centre crop, normalise: (1, 3, H_v, W_v) float32."""
    size = model.profile.clip.image_px
    image = image.convert("RGB")
    if image.size != (size, size):
        scale = size / min(image.size)
        width, height = max(size, round(image.width * scale)), max(size, round(image.height * scale))
        image = image.resize((width, height), Image.Resampling.BICUBIC)
        left, top = (width - size) // 2, (height - size) // 2
        image = image.crop((left, top, left + size, top + size))
    mean, std = (np.array(v, dtype=np.float32) for v in vision_statistics(model))
    array = (np.asarray(image, dtype=np.float32) / np.float32(255.0) - mean) / std
    return torch.from_numpy(array).permute(2, 0, 1).unsqueeze(0)


def prompt_ids(model: MgccModel, parts: Sequence[Part]) -> list[int]:
    """Token ids of the whole request, with -1 for each visual token."""
    template, tokenizer = model.template, model.tokenizer
    ids = encode_template(tokenizer, template.opening) + encode_template(tokenizer, template.user_open)
    for i, part in enumerate(parts):
        if i:
            ids += encode_template(tokenizer, template.separator)
        if isinstance(part, str):
            ids += encode_user_text(tokenizer, part)
        else:
            ids += encode_template(tokenizer, template.image_open)
            ids += [-1] * model.profile.visual_tokens
            ids += encode_template(tokenizer, template.image_close)
    return ids + encode_template(tokenizer, template.user_close) + encode_template(tokenizer, template.assistant_open)


def build_prompt(model: MgccModel, parts: Sequence[Part]) -> Prompt:
    """Assemble a request. ValueError if it is empty or longer than the profile's context."""
    if not parts:
        raise ValueError("the prompt is empty; expected at least one text or image")
    ids = prompt_ids(model, parts)
    room = model.profile.max_context - model.profile.image_tokens
    if len(ids) > room:
        raise ValueError(f"the prompt has {len(ids)} tokens, {len(ids) - room} more than fit; shorten it")
    images = [part for part in parts if not isinstance(part, str)]
    visual = None
    if images:
        with torch.no_grad():
            visual = model.vision_encoder(torch.cat([preprocess(image, model) for image in images]))
    return Prompt(tuple(ids), embed_prompt(model, ids, visual))


def embed_prompt(model: MgccModel, ids: Sequence[int], visual_tokens: Tensor | None) -> Tensor:
    """(1, S, D): the table's rows, with the images' visual tokens (images, k, D) in the -1 slots, in order."""
    index = torch.tensor(ids, dtype=torch.int64)
    embeddings = model.llm.embed(index.clamp_min(0)).detach()
    if visual_tokens is not None:
        embeddings[index < 0] = visual_tokens.flatten(0, 1).to(embeddings.dtype)
    return embeddings.unsqueeze(0)
