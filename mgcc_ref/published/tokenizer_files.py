"""Published tokenizers, read from `tokenizer.json` or converted by `transformers`."""

from __future__ import annotations

from pathlib import Path

from tokenizers import Tokenizer

from mgcc_ref.tokens import pad_captions
from mgcc_ref.weights import WeightsError

#: Each of these sets is a whole tokenizer. Without one, `transformers` makes an empty tokenizer without an error.
_FILES = (("tokenizer.json",), ("vocab.json", "merges.txt"), ("tokenizer.model",))


def load_llm_tokenizer(path: Path) -> Tokenizer:
    """The language model's own tokenizer, from the path of its weights."""
    from transformers import AutoTokenizer

    if path.suffix == ".gguf":
        loaded = AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name)
        return Tokenizer.from_str(loaded.backend_tokenizer.to_str())
    if (path / "tokenizer.json").is_file():
        return Tokenizer.from_file(str(path / "tokenizer.json"))
    _require_files(path, "language model")
    try:
        return Tokenizer.from_str(AutoTokenizer.from_pretrained(path).backend_tokenizer.to_str())
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise _unread(path, "language model", error) from error


def load_clip_tokenizer(folder: Path, length: int) -> Tokenizer:
    """CLIP's own tokenizer from a folder, padded to `length` as Stable Diffusion does."""
    from transformers import CLIPTokenizerFast

    _require_files(folder, "CLIP")
    try:
        loaded = Tokenizer.from_str(CLIPTokenizerFast.from_pretrained(folder).backend_tokenizer.to_str())
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise _unread(folder, "CLIP", error) from error
    return pad_captions(loaded, length)


def _require_files(folder: Path, what: str) -> None:
    if not any(all((folder / name).is_file() for name in names) for names in _FILES):
        raise WeightsError(
            f"{folder} holds no tokenizer of the {what}; copy tokenizer.json, or vocab.json and merges.txt, from where "
            "the weights are from"
        )


def _unread(folder: Path, what: str, error: Exception) -> WeightsError:
    reason = (str(error) or type(error).__name__).splitlines()[0]
    return WeightsError(f"the {what}'s tokenizer in {folder} cannot be read ({reason}); copy its files again")
