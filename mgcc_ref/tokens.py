"""Tokenizers: word-level ones for the small text tower and the tiny profile, and how prompts are cut into ids."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers
from tokenizers.processors import TemplateProcessing
from torch import Tensor

PAD, BOS, UNKNOWN, EOS = "[PAD]", "[BOS]", "[UNK]", "[EOS]"
SPECIAL_WORDS = (PAD, BOS, UNKNOWN, EOS)  # ids 0 to 3; CLIP's pooling reads the state at EOS


def caption_tokenizer(words: Sequence[str], length: int) -> Tokenizer:
    """Word-level tokenizer of the story profile's text tower: [BOS] words [EOS], padded or cut to `length`."""
    tokenizer = word_tokenizer(words)
    tokenizer.post_processor = TemplateProcessing(single=f"{BOS} $A {EOS}", special_tokens=[(BOS, 1), (EOS, 3)])
    tokenizer.enable_truncation(length)
    tokenizer.enable_padding(length=length, pad_id=0, pad_token=PAD)
    return tokenizer


def word_tokenizer(words: Sequence[str], special: Sequence[str] = ()) -> Tokenizer:
    """Lower-case word-level tokenizer; `special` follows the four special words, then `words` in order."""
    vocabulary = {word: i for i, word in enumerate(dict.fromkeys([*SPECIAL_WORDS, *special, *words]))}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token=UNKNOWN))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.WhitespaceSplit(),
            pre_tokenizers.Split(",", behavior="isolated"),
            pre_tokenizers.Split("|", behavior="isolated"),
        ]
    )
    tokenizer.add_special_tokens([*SPECIAL_WORDS, *special])
    return tokenizer


def encode_captions(tokenizer: Tokenizer, captions: Sequence[str]) -> Tensor:
    """Captions -> ids (B, N_c) int64, padded as the tokenizer says."""
    return torch.tensor([e.ids for e in tokenizer.encode_batch(list(captions))], dtype=torch.int64)


def encode_template(tokenizer: Tokenizer, text: str) -> list[int]:
    """Ids of a piece of the prompt template: special tokens in it are recognised."""
    tokenizer.encode_special_tokens = False
    return tokenizer.encode(text, add_special_tokens=False).ids


def encode_user_text(tokenizer: Tokenizer, text: str) -> list[int]:
    """Ids of a user's text: what looks like a special token stays plain text, so that nobody can forge a turn."""
    tokenizer.encode_special_tokens = True
    try:
        return tokenizer.encode(text, add_special_tokens=False).ids
    finally:
        tokenizer.encode_special_tokens = False
