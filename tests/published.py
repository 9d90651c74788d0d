"""Weights as others publish them, at toy width: written by the libraries that publish them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from diffusers import AutoencoderKL, PNDMScheduler, UNet2DConditionModel
from tokenizers import pre_tokenizers
from transformers import (
    CLIPConfig,
    CLIPImageProcessorPil,
    CLIPModel,
    CLIPTokenizerFast,
    GPT2TokenizerFast,
    LlamaConfig,
    LlamaForCausalLM,
    OPTConfig,
    OPTForCausalLM,
)

WIDTH, CLIP_VOCABULARY, OPT_ROWS = 64, 514, 280
MEAN, STD = [0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711]


def byte_vocabulary(first: tuple[str, ...]) -> dict[str, int]:
    return {token: i for i, token in enumerate([*first, *sorted(pre_tokenizers.ByteLevel.alphabet())])}


def publish_opt(folder: Path, hidden: int = 128) -> OPTForCausalLM:
    """facebook/opt-*, whose table has more rows than the tokenizer has tokens."""
    torch.manual_seed(11)
    vocabulary = byte_vocabulary(("<s>", "<pad>", "</s>", "<unk>"))
    GPT2TokenizerFast(
        vocab=vocabulary, merges=[], bos_token="</s>", eos_token="</s>", unk_token="</s>", pad_token="<pad>"
    ).save_pretrained(folder)
    model = OPTForCausalLM(
        OPTConfig(
            vocab_size=OPT_ROWS, hidden_size=hidden, num_hidden_layers=2, num_attention_heads=4, ffn_dim=4 * hidden,
            max_position_embeddings=1024, word_embed_proj_dim=hidden, dropout=0.0,
        )
    )  # fmt: skip
    model.eval().save_pretrained(folder)
    return model


def publish_llama(folder: Path) -> LlamaForCausalLM:
    """TinyLlama: fewer heads of keys, an untied head."""
    torch.manual_seed(12)
    vocabulary = byte_vocabulary(("<unk>", "<s>", "</s>"))
    GPT2TokenizerFast(
        vocab=vocabulary, merges=[], bos_token="<s>", eos_token="</s>", unk_token="<unk>"
    ).save_pretrained(folder)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(vocabulary), hidden_size=128, num_hidden_layers=2, num_attention_heads=4,
            num_key_value_heads=2, intermediate_size=160, max_position_embeddings=512, tie_word_embeddings=False,
        )
    )  # fmt: skip
    model.eval().save_pretrained(folder)
    return model


def publish_clip(folder: Path) -> CLIPModel:
    """openai/clip-vit-large-patch14, whose config.json says 2 for the end token, and whose real one is the last id."""
    torch.manual_seed(13)
    tower = {"hidden_size": WIDTH, "intermediate_size": 4 * WIDTH, "num_hidden_layers": 2, "num_attention_heads": 2,
             "hidden_act": "quick_gelu", "projection_dim": WIDTH}  # fmt: skip
    text = {**tower, "vocab_size": CLIP_VOCABULARY, "max_position_embeddings": 77, "eos_token_id": 2, "bos_token_id": 0}
    vision = {**tower, "image_size": 56, "patch_size": 14}
    model = CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=WIDTH)).eval()
    model.save_pretrained(folder)
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokens = [*letters, *(f"{letter}</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    CLIPTokenizerFast(vocab={token: i for i, token in enumerate(tokens)}, merges=[]).save_pretrained(folder)
    side = vision["image_size"]
    CLIPImageProcessorPil(
        image_mean=MEAN, image_std=STD, size={"shortest_edge": side}, crop_size={"height": side, "width": side}
    ).save_pretrained(folder)
    return model


def gligen_unet(attention_type: str = "gated", **changes: object) -> UNet2DConditionModel:
    torch.manual_seed(14)
    settings: dict[str, object] = {
        "sample_size": 8, "in_channels": 4, "out_channels": 4, "block_out_channels": (32, 64), "layers_per_block": 1,
        "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
        "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
        "cross_attention_dim": WIDTH, "attention_head_dim": 2, "norm_num_groups": 8, "attention_type": attention_type,
    }  # fmt: skip
    unet = UNet2DConditionModel(**(settings | changes)).eval()
    with torch.no_grad():
        for name, parameter in unet.named_parameters():
            if name.endswith(("alpha_attn", "alpha_dense")):  # shut in fresh weights
                parameter.fill_(0.9)
            elif name.endswith(("attn2.to_out.0.weight", "attn.to_out.0.weight", "fuser.linear.weight")):
                parameter.mul_(12.0)  # so that words and boxes are seen in a picture of untrained weights
    return unet


def kl_autoencoder(**changes: object) -> AutoencoderKL:
    torch.manual_seed(15)
    settings: dict[str, object] = {
        "latent_channels": 4, "block_out_channels": (32, 32, 32, 32), "layers_per_block": 2,
        "down_block_types": ("DownEncoderBlock2D",) * 4, "up_block_types": ("UpDecoderBlock2D",) * 4,
    }  # fmt: skip
    return AutoencoderKL(**(settings | changes)).eval()


def publish_diffusion(folder: Path) -> tuple[UNet2DConditionModel, AutoencoderKL]:
    """A GLIGEN pipeline's folder: unet, vae, scheduler."""
    unet, vae = gligen_unet(), kl_autoencoder()
    unet.save_pretrained(folder / "unet")
    vae.save_pretrained(folder / "vae")
    PNDMScheduler(
        beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012, skip_prk_steps=True, steps_offset=1
    ).save_pretrained(folder / "scheduler")
    return unet, vae


def publish_all(folder: Path) -> Path:
    """`llm`, `clip`, `unet`, `vae` and `scheduler`, as a user has downloaded them."""
    publish_opt(folder / "llm")
    publish_clip(folder / "clip")
    publish_diffusion(folder)
    return folder


def gills_state(
    hidden: int, mapper: Mapping[str, int], image_tokens: int = 8, visual_tokens: int = 4
) -> dict[str, torch.Tensor]:
    """Names as GILL's code gives them (`TextFcLayer` in mode gill_mapper, several GPUs), with its retrieval parts.

    `mapper`: hidden, heads, layers, feed_forward, out (the width of the conditioning), queries, vision.
    """
    torch.manual_seed(1)
    layer = torch.nn.Module()
    layer.fc = torch.nn.Linear(hidden, mapper["hidden"])
    layer.tfm = torch.nn.Transformer(
        d_model=mapper["hidden"], nhead=mapper["heads"], num_encoder_layers=mapper["layers"],
        num_decoder_layers=mapper["layers"], dim_feedforward=mapper["feed_forward"], norm_first=True, batch_first=True,
    )  # fmt: skip
    layer.model = torch.nn.Linear(mapper["hidden"], mapper["out"])
    layer.query_embs = torch.nn.Parameter(torch.randn(1, mapper["queries"], mapper["hidden"]))
    names = {f"model.gen_text_hidden_fcs.0.{name}": value for name, value in layer.state_dict().items()}
    names["model.visual_embeddings.weight"] = torch.randn(visual_tokens * hidden, mapper["vision"])
    names["model.visual_embeddings.bias"] = torch.randn(visual_tokens * hidden)
    names["model.input_embeddings.weight"] = torch.randn(image_tokens, hidden)
    names["model.ret_text_hidden_fcs.0.model.weight"] = torch.randn(256, hidden)
    names["model.visual_fc.weight"] = torch.randn(256, mapper["vision"])
    names["model.logit_scale"] = torch.tensor(2.6)
    return {f"module.{name}": value.bfloat16() for name, value in names.items()}


def publish_gill(folder: Path, like: str = "gill-tiny") -> tuple[Path, dict[str, torch.Tensor]]:
    """A weights folder as a user of GILL and GLIGEN makes it by the tools: published parts, the derived profile, GILL's
    checkpoint converted. The grounder, which nobody publishes, is untrained."""
    from mgcc_ref.config import get_profile
    from mgcc_ref.parts import load_parts
    from mgcc_ref.weights import save_module
    from tools import convert_gill, derive_profile

    publish_all(folder)
    assert derive_profile.main(["--like", like, "--weights", str(folder), "--name", "mine"]) == 0
    profile = get_profile(str(folder / "profile.json"))
    refiner, clip = profile.refiner, profile.clip
    mapper = {
        "hidden": refiner.mapper_hidden, "heads": refiner.mapper_heads, "layers": refiner.mapper_layers,
        "feed_forward": refiner.mapper_feed_forward, "out": clip.text_hidden, "queries": clip.text_positions,
        "vision": clip.vision_hidden,
    }  # fmt: skip
    state = gills_state(profile.llm.hidden, mapper)
    torch.save({"state_dict": state}, folder / "pretrained_ckpt.pth.tar")
    arguments = ["--checkpoint", str(folder / "pretrained_ckpt.pth.tar"), "--profile", str(folder / "profile.json")]
    assert convert_gill.main([*arguments, "--out", str(folder)]) == 0
    random = load_parts(profile, "random")
    random.hold(["grounder"])
    save_module(random.model.grounder, folder / "grounder.safetensors")
    return folder, state


def gill_of(folder: Path) -> dict[str, torch.Tensor]:
    """GILL's checkpoint of `publish_gill`, by its own names, rounded as the converted one is."""
    state = torch.load(folder / "pretrained_ckpt.pth.tar", weights_only=True)["state_dict"]
    return {name: value.half().float() for name, value in state.items()}
