"""Tokenizers: word-level for the small text tower and the profile tiny, in OPT's and CLIP's form for random weights of
that form; and the encoding of prompts as ids."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from tokenizers import AddedToken, Encoding, Tokenizer, models, normalizers, pre_tokenizers
from tokenizers.processors import TemplateProcessing
from torch import Tensor

PAD, BOS, UNKNOWN, EOS = "[PAD]", "[BOS]", "[UNK]", "[EOS]"
SPECIAL_WORDS = (PAD, BOS, UNKNOWN, EOS)  # ids 0 to 3; CLIP's pooling reads the state at EOS
CAPTION_END = SPECIAL_WORDS.index(EOS)
_OPT_SPECIAL = ("<s>", "<pad>", "</s>", "<unk>")  # OPT's first ids
_CLIP_START, _CLIP_END = "<|startoftext|>", "<|endoftext|>"  # CLIP's last ids


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


def opt_tokenizer(words: Sequence[str], size: int) -> Tokenizer:
    """A byte-level tokenizer in OPT's form with at most `size` tokens: most words take several.

    It can encode any text. As many pairs of letters in `words` are tokens as fit into `size`.
    """
    from transformers import GPT2TokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: i for i, token in enumerate([*_OPT_SPECIAL, *alphabet])}
    merges: list[tuple[str, str]] = []
    for word in words:
        spaced = f"\u0120{word}"  # the byte-level alphabet's space
        for pair in zip(spaced[::2], spaced[1::2], strict=False):
            if "".join(pair) not in vocabulary and set(pair) <= vocabulary.keys() and len(vocabulary) < size:
                vocabulary["".join(pair)] = len(vocabulary)
                merges.append(pair)
    end, pad = (AddedToken(token, special=True) for token in ("</s>", "<pad>"))
    built = GPT2TokenizerFast(
        vocab=vocabulary, merges=merges, bos_token=end, eos_token=end, unk_token=end, pad_token=pad
    )
    return Tokenizer.from_str(built.backend_tokenizer.to_str())


def clip_tokenizer(size: int, length: int) -> Tokenizer:
    """A tokenizer in CLIP's form without merges: one token a byte; the last two of `size` are start and end."""
    from transformers import CLIPTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokens = [*alphabet, *(f"{letter}</w>" for letter in alphabet)]
    vocabulary = {token: i for i, token in enumerate(tokens)} | {_CLIP_START: size - 2, _CLIP_END: size - 1}
    built = CLIPTokenizerFast(vocab=vocabulary, merges=[])
    return pad_captions(Tokenizer.from_str(built.backend_tokenizer.to_str()), length)


def pad_captions(tokenizer: Tokenizer, length: int) -> Tokenizer:
    """Set a tokenizer in CLIP's form to pad and cut to `length` tokens, as Stable Diffusion does; returns it."""
    tokenizer.enable_truncation(length)
    tokenizer.enable_padding(length=length, pad_id=tokenizer.token_to_id(_CLIP_END), pad_token=_CLIP_END)
    return tokenizer


def encode_captions(tokenizer: Tokenizer, captions: Sequence[str]) -> Tensor:
    """Captions -> ids (B, N_c) int64, padded as the tokenizer says."""
    return torch.tensor([e.ids for e in tokenizer.encode_batch(list(captions))], dtype=torch.int64)


def encode_template(tokenizer: Tokenizer, text: str) -> list[int]:
    """Ids of a piece of the prompt template, special tokens recognised."""
    tokenizer.encode_special_tokens = False
    return tokenizer.encode(text, add_special_tokens=False).ids


def encode_user_text(tokenizer: Tokenizer, text: str) -> Encoding:
    """Encode a user's text. Special tokens in it are read as plain text, so that no user can forge a turn."""
    tokenizer.encode_special_tokens = True
    try:
        return tokenizer.encode(text, add_special_tokens=False)
    finally:
        tokenizer.encode_special_tokens = False
