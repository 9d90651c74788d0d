"""LoRA files in both forms, fused: the layer's output is what the adapter beside it gives."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from mgcc_ref.published.lora import fuse_lora
from mgcc_ref.weights import WeightsError
from tests.published import gligen_unet

RANK = 3


def made(unet: Any, form: str) -> dict[str, torch.Tensor]:
    """Adapters of one linear layer of attention and of one convolution, as the two forms name them."""
    torch.manual_seed(4)
    state = {}
    for name in ("down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q", "down_blocks.1.resnets.0.conv1"):
        weight = unet.get_submodule(name).weight
        down = torch.randn(RANK, *weight.shape[1:])
        up = torch.randn(len(weight), RANK, *[1] * (weight.ndim - 2))
        if form == "kohya":
            base = "lora_unet_" + name.replace(".", "_")
            state |= {
                f"{base}.lora_down.weight": down,
                f"{base}.lora_up.weight": up,
                f"{base}.alpha": torch.tensor(1.5),
            }
        else:
            state |= {f"unet.{name}.lora_A.weight": down, f"unet.{name}.lora_B.weight": up}
    return state


def adapted(layer: Any, down: torch.Tensor, up: torch.Tensor, scale: float, x: torch.Tensor) -> torch.Tensor:
    """The layer with the adapter beside it, as it is trained."""
    if isinstance(layer, nn.Linear):
        return layer(x) + scale * nn.functional.linear(nn.functional.linear(x, down), up)
    inner = nn.functional.conv2d(x, down, stride=layer.stride, padding=layer.padding)
    return layer(x) + scale * nn.functional.conv2d(inner, up)


@pytest.mark.parametrize(("form", "scale"), [("kohya", 1.0), ("kohya", 0.4), ("peft", 1.0)])
@torch.no_grad()
def test_fused_is_what_the_adapter_gives(tmp_path: Path, form: str, scale: float) -> None:
    before, after = gligen_unet(), gligen_unet()
    state = made(before, form)
    save_file(state, tmp_path / "a.safetensors")
    assert fuse_lora(after, "unet", tmp_path / "a.safetensors", scale) == 2
    relative = scale * (1.5 / RANK if form == "kohya" else 1.0)
    for name, shape in (
        ("down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q", (2, 5, 32)),
        ("down_blocks.1.resnets.0.conv1", (2, 32, 6, 6)),
    ):
        base = "lora_unet_" + name.replace(".", "_") if form == "kohya" else f"unet.{name}"
        ends = (".lora_down.weight", ".lora_up.weight") if form == "kohya" else (".lora_A.weight", ".lora_B.weight")
        down, up = (state[base + end] for end in ends)
        x = torch.randn(shape)
        wanted = adapted(before.get_submodule(name), down, up, relative, x)
        torch.testing.assert_close(after.get_submodule(name)(x), wanted, atol=1e-4, rtol=1e-4)
    changed = [n for n, v in after.state_dict().items() if not torch.equal(v, before.state_dict()[n])]
    assert len(changed) == 2


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda s: s.update({"lora_unet_input_blocks_9_1_to_q.lora_down.weight": torch.zeros(3, 8),
                             "lora_unet_input_blocks_9_1_to_q.lora_up.weight": torch.zeros(8, 3)}),
         "changes input_blocks_9_1_to_q, which the profile's unet does not have"),
        (lambda s: s.update({"conv.hada_w1_a": torch.zeros(2)}), r"holds conv\.hada_w1_a, expected names"),  # LoHa
        (lambda s: s.pop("lora_unet_down_blocks_1_resnets_0_conv1.lora_up.weight"), "and not its other half"),
        (lambda s: s.update({"lora_unet_down_blocks_1_resnets_0_conv1.lora_down.weight": torch.zeros(3, 5)}),
         r"expected an update of \(64, 32, 3, 3\)"),
    ],
)  # fmt: skip
def test_what_was_made_for_another_model_is_refused_by_name(
    tmp_path: Path, change: Callable[[dict[str, torch.Tensor]], Any], said: str
) -> None:
    unet = gligen_unet()
    state = made(unet, "kohya")
    change(state)
    save_file(state, tmp_path / "a.safetensors")
    with pytest.raises(WeightsError, match=said):
        fuse_lora(unet, "unet", tmp_path / "a.safetensors")


def test_the_text_towers_layers_are_not_the_unets(tmp_path: Path) -> None:
    unet = gligen_unet()
    state = made(unet, "kohya")
    base = "lora_te_text_model_encoder_layers_0_mlp_fc1"
    state |= {f"{base}.lora_down.weight": torch.zeros(3, 64), f"{base}.lora_up.weight": torch.zeros(256, 3)}
    save_file(state, tmp_path / "a.safetensors")
    assert fuse_lora(unet, "unet", tmp_path / "a.safetensors") == 2
