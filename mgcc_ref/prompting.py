"""From interleaved parts to the language model's input embeddings."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from mgcc_ref.model import MgccModel
from mgcc_ref.tokens import encode_template, encode_user_text
from mgcc_runtime.contract import words_at

Part = str | Image.Image


@dataclass(frozen=True)
class Prompt:
    """The language model's input for a request. Image slots hold -1 in `ids`."""

    ids: tuple[int, ...]
    words: tuple[str, ...]  # the user's word at each position, "" in images and template
    embeddings: Tensor  # (1, S, D) float32


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
    clip = model.profile.clip
    mean, std = (np.array(v, dtype=np.float32) for v in (clip.pixel_mean, clip.pixel_std))
    array = (np.asarray(image, dtype=np.float32) / np.float32(255.0) - mean) / std
    return torch.from_numpy(array).permute(2, 0, 1).unsqueeze(0)


def prompt_ids(model: MgccModel, parts: Sequence[Part]) -> list[int]:
    """Token ids of the whole request, with -1 for each visual token."""
    return [token for token, _ in _positions(model, parts)]


def _positions(model: MgccModel, parts: Sequence[Part]) -> Iterator[tuple[int, str]]:
    """Token id and the user's word at each position of the whole request."""
    template, tokenizer = model.template, model.tokenizer

    def fixed(*texts: str) -> Iterator[tuple[int, str]]:
        return ((token, "") for text in texts for token in encode_template(tokenizer, text))

    yield from fixed(template.opening, template.user_open)
    for i, part in enumerate(parts):
        if i:
            yield from fixed(template.separator)
        if isinstance(part, str):
            encoding = encode_user_text(tokenizer, part)
            yield from zip(encoding.ids, words_at(part, encoding.offsets), strict=True)
        else:
            yield from fixed(template.image_open)
            yield from [(-1, "")] * model.profile.visual_tokens
            yield from fixed(template.image_close)
    yield from fixed(template.user_close, template.assistant_open)


def closing_ids(model: MgccModel) -> list[int]:
    """Ids of the template's closing pieces, which follow the last part of a request."""
    template, tokenizer = model.template, model.tokenizer
    return encode_template(tokenizer, template.user_close) + encode_template(tokenizer, template.assistant_open)


def last_text(model: MgccModel, text: str) -> slice:
    """The positions of `text` in a prompt that it is the last part of, counted from the prompt's end."""
    end = -len(closing_ids(model))
    return slice(end - len(encode_user_text(model.tokenizer, text).ids), end)


def build_prompt(model: MgccModel, parts: Sequence[Part]) -> Prompt:
    """Build a request's prompt. ValueError if it is empty, or too long for the profile's context."""
    if not parts:
        raise ValueError("the prompt is empty; expected at least one text or image")
    positions = list(_positions(model, parts))
    ids = [token for token, _ in positions]
    room = model.profile.max_context - model.profile.image_tokens
    if len(ids) > room:
        raise ValueError(f"the prompt has {len(ids)} tokens, {len(ids) - room} more than fit; shorten it")
    with torch.no_grad():
        visual = see(model, parts)
    return Prompt(tuple(ids), tuple(word for _, word in positions), embed_prompt(model, ids, visual))


def see(model: MgccModel, parts: Sequence[Part]) -> Tensor:
    """Visual tokens (images, k, D) of the images among the parts, in order."""
    images = [part for part in parts if not isinstance(part, str)]
    if not images:
        return torch.zeros(0, model.profile.visual_tokens, model.profile.llm.hidden)
    return model.vision_encoder(torch.cat([preprocess(image, model) for image in images]))


def embed_prompt(model: MgccModel, ids: Sequence[int], visual_tokens: Tensor | None) -> Tensor:
    """Embeddings (1, S, D) of `ids`, with the visual tokens (images, k, D) in the -1 slots, in order."""
    index = torch.tensor(ids, dtype=torch.int64)
    embeddings = model.llm.embed(index.clamp_min(0)).detach()
    if visual_tokens is not None and len(visual_tokens):
        embeddings[index < 0] = visual_tokens.flatten(0, 1).to(embeddings.dtype)
    return embeddings.unsqueeze(0)
