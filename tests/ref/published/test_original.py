"""Checkpoints in the original layout, pickled as they are published: converted, they predict what theirs predict."""

from __future__ import annotations

import sys
import types
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from mgcc_ref.config import get_profile
from mgcc_ref.published.diffusion import unet_config
from mgcc_ref.published.pickles import read_pickle
from mgcc_ref.weights import WeightsError
from mgcc_runtime.errors import EXIT_BAD_INPUT, EXIT_DONE
from tests.original_layout import averages, original_unet, original_vae, stable_diffusion
from tests.published import gligen_unet, kl_autoencoder
from tests.ref.published.test_diffusion import loaded, loaded_vae, predicted
from tools.convert_checkpoint import main

same = partial(torch.testing.assert_close, atol=2e-6, rtol=2e-6)
GROUPS = 32  # the original code knows no others
UNET = get_profile("paper-tiny").unet


def toys(**changes: object) -> tuple[Any, Any]:
    return gligen_unet(norm_num_groups=GROUPS, **changes), kl_autoencoder()


@torch.no_grad()
def check(out: Path, unet: Any, vae: Any) -> None:
    config = unet_config(out / "unet").config
    ours, latents = loaded(out / "unet", config), torch.randn(1, 4, 4, 4)
    same(predicted(ours), predicted(unet))
    same(loaded_vae(out / "vae").decode(latents).sample, vae.decode(latents).sample)


def omegaconf() -> types.ModuleType:
    """OmegaConf's two classes, for pickling alone: where the file is read they are not to be had."""
    module = types.ModuleType("omegaconf.dictconfig")
    for name in ("DictConfig", "AnyNode"):
        setattr(module, name, type(name, (), {"__module__": "omegaconf.dictconfig"}))
    return module


def gligens_settings(module: Any, heads: int) -> dict[str, Any]:
    """`vars()` of a DictConfig, as GLIGEN's trainer saves it."""

    def node(value: Any) -> Any:
        made = module.DictConfig() if isinstance(value, dict) else module.AnyNode()
        content = {key: node(inner) for key, inner in value.items()} if isinstance(value, dict) else value
        made.__dict__.update({"_content": content} if isinstance(value, dict) else {"_val": content})
        return made

    return {"_metadata": Any, "_content": {"model": node({"params": {"num_heads": heads, "image_size": 64}})}}


@pytest.mark.parametrize("name", ["checkpoint_generation_text.pth", "diffusion_pytorch_model.bin"])
def test_gligens_checkpoint_under_either_name(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    unet, vae = toys(attention_head_dim=2)
    module = omegaconf()
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "omegaconf", types.ModuleType("omegaconf"))
        patch.setitem(sys.modules, "omegaconf.dictconfig", module)
        checkpoint = {
            "model": original_unet(unet),
            "autoencoder": {f"first_stage_model.{k}": v for k, v in original_vae(vae).items()},
            "text_encoder": {"transformer.text_model.final_layer_norm.weight": torch.ones(4)},
            "diffusion": {"betas": torch.zeros(1000)},
            "config_dict": gligens_settings(module, heads=2),
        }
        torch.save(checkpoint, tmp_path / name)
    out = tmp_path / "out"
    assert main(["--source", str(tmp_path / name), "--out", str(out)]) == EXIT_DONE
    assert "left out: text_encoder, diffusion" in capsys.readouterr().out
    assert unet_config(out / "unet").config.heads == 2 and unet_config(out / "unet").gated
    check(out, unet, vae)


def test_gligens_settings_are_read_without_their_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = omegaconf()
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "omegaconf", types.ModuleType("omegaconf"))
        patch.setitem(sys.modules, "omegaconf.dictconfig", module)
        torch.save({"config_dict": gligens_settings(module, 5), "model": {}}, tmp_path / "a.pth")
    from mgcc_ref.published.original import take_apart

    assert take_apart(read_pickle(tmp_path / "a.pth")).heads == 5


@pytest.mark.parametrize("kind", ["safetensors", "ckpt", "averaged"])
def test_stable_diffusions_checkpoint_with_its_averages(tmp_path: Path, kind: str) -> None:
    unet, vae = toys(attention_head_dim=8, attention_type="default")
    state = stable_diffusion(unet, vae)
    if kind == "safetensors":
        save_file({name: value.contiguous() for name, value in state.items()}, tmp_path / "v1-5.safetensors")
    else:
        wrong = {**state, **dict(averages(state, 0.0))}
        if kind == "averaged":  # the averages draw better: the weights themselves are not those of `unet`
            wrong |= {n: torch.zeros_like(v) for n, v in state.items() if n.startswith("model.diffusion_model.")}
        torch.save({"state_dict": wrong, "epoch": 3}, tmp_path / "v1-5.ckpt")
    source = next(tmp_path.glob("v1-5.*"))
    assert main(["--source", str(source), "--out", str(tmp_path / "out")]) == EXIT_DONE
    found, wanted = load_file(tmp_path / "out/unet/diffusion_pytorch_model.safetensors"), unet.state_dict()
    assert found.keys() == wanted.keys() and all(torch.equal(found[k], wanted[k]) for k in wanted)
    assert not unet_config(tmp_path / "out" / "unet").gated
    with pytest.raises(WeightsError, match="is a plain one"):
        loaded(tmp_path / "out" / "unet", UNET)
    latents = torch.randn(1, 4, 4, 4)
    with torch.no_grad():
        same(loaded_vae(tmp_path / "out" / "vae").decode(latents).sample, vae.decode(latents).sample)


def test_pickled_folders_of_the_libraries_are_converted(tmp_path: Path) -> None:
    unet = gligen_unet()
    unet.save_pretrained(tmp_path / "unet", safe_serialization=False)
    assert main(["--source", str(tmp_path / "unet"), "--out", str(tmp_path / "out")]) == EXIT_DONE
    same(predicted(loaded(tmp_path / "out")), predicted(unet))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda s: s.pop("input_blocks.1.0.in_layers.2.bias"), "it lacks down_blocks.0.resnets.0.conv1.bias; give"),
        (lambda s: s.pop("out.2.weight"), "UNet is not of Stable Diffusion 1.x's form"),
        (lambda s: s.update({"label_emb.0.0.weight": torch.zeros(2)}), "it holds label_emb.0.0.weight beside; give"),
    ],
)
def test_a_checkpoint_of_another_form_is_refused_by_name(
    tmp_path: Path, change: Any, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    state = original_unet(toys()[0])
    change(state)
    torch.save(state, tmp_path / "a.pth")
    assert main(["--source", str(tmp_path / "a.pth"), "--out", str(tmp_path / "out")]) == EXIT_BAD_INPUT
    assert said in capsys.readouterr().err


class Runs:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return print, ("this code ran",)


def test_a_pickle_that_would_run_code_is_refused_by_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save({"state_dict": {"model.diffusion_model.a": Runs()}}, tmp_path / "a.ckpt")
    assert main(["--source", str(tmp_path / "a.ckpt"), "--out", str(tmp_path / "out")]) == EXIT_BAD_INPUT
    streams = capsys.readouterr()
    assert "would run builtins.print when it is read, expected tensors and settings alone" in streams.err
    assert "this code ran" not in streams.out
    torch.save({"state_dict": {"a": torch.zeros(300)}}, tmp_path / "a.ckpt")
    whole = (tmp_path / "a.ckpt").read_bytes()
    (tmp_path / "a.ckpt").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(WeightsError, match=r"cannot be read as pickled tensors .*; copy it again"):
        read_pickle(tmp_path / "a.ckpt")


def test_what_is_no_checkpoint_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save_file({"lora_unet_a.lora_down.weight": torch.zeros(2)}, tmp_path / "lora.safetensors")
    (tmp_path / "empty").mkdir()
    for source, said in (
        ("lora.safetensors", "holds neither a UNet"),
        ("empty", "holds no pytorch_model*.bin"),
    ):
        assert main(["--source", str(tmp_path / source), "--out", str(tmp_path / "out")]) == EXIT_BAD_INPUT
        assert said in capsys.readouterr().err
