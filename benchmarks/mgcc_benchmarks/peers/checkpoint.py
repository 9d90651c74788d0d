"""The language model as a checkpoint for a peer whose transformers is older than ours."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mgcc_benchmarks.peers.client import PeerError
from mgcc_runtime.files import write_atomically

#: The form of the checkpoint; change it with every change here, so that older set-ups expire.
FORM = "rope_theta at the top"


def write_checkpoint(gguf: Path, folder: Path) -> None:
    """Write the model of a GGUF file and its tokeniser, in fp32, to `folder`."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype="float32")
    model.hf_quantizer = None  # the weights are plain numbers now, which transformers would refuse to save
    model.config.__dict__.pop("quantization_config", None)
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name).save_pretrained(folder)
    path = folder / "config.json"
    config = older_config(json.loads(path.read_text(encoding="utf-8")))
    write_atomically(path, (json.dumps(config, indent=2) + "\n").encode())


def older_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """The config of a checkpoint, with the rotary embedding in the form of transformers 4, too.

    Version 5 keeps it in `rope_parameters`, which 4.57 ignores: theta would be 10000, whatever the model's is.
    PeerError for a model whose layers differ in it, which version 4 cannot express in general.
    """
    rope = dict(config.get("rope_parameters") or {})
    if not rope:
        return dict(config)
    if "rope_theta" not in rope:
        raise PeerError(
            f"rope_parameters of the language model has {', '.join(rope)}, expected one rope_theta for all layers; "
            "leave optimum-onnx out with --only"
        )
    older = {name: rope.pop(name) for name in ("rope_theta", "partial_rotary_factor") if name in rope}
    scaled = rope.get("rope_type", "default") != "default"
    return {**config, **older, "rope_scaling": rope if scaled else None}


def check_export(folder: Path, exported: Path) -> None:
    """PeerError if the exporter read another rotary embedding than the checkpoint in `folder` has."""
    configs = [json.loads((place / "config.json").read_text(encoding="utf-8")) for place in (folder, exported)]
    wanted, found = (config.get("rope_theta") for config in configs)
    if found != wanted:
        raise PeerError(
            f"{exported} has rope_theta {found}, expected {wanted} as in {folder}; the exporter's transformers reads "
            "another form of config.json"
        )
