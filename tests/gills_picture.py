"""GILL with GLIGEN's boxes, put together of the libraries that publish its parts: nothing of this project is used."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL, DDIMScheduler, PNDMScheduler, StableDiffusionGLIGENPipeline, UNet2DConditionModel
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    CLIPImageProcessorPil,
    CLIPTextModel,
    CLIPTokenizerFast,
    CLIPVisionModel,
)

Part = str | Image.Image


class TextFcLayer(nn.Module):
    """GILL's mapper (arXiv 2305.17216, figure 2), its modules named as its checkpoint names them."""

    def __init__(self, state: Mapping[str, Tensor], heads: int) -> None:
        super().__init__()
        hidden, features = state["fc.weight"].shape
        layers = 1 + max(int(name.split(".")[3]) for name in state if name.startswith("tfm.encoder.layers."))
        self.fc = nn.Linear(features, hidden)
        self.tfm = nn.Transformer(
            hidden, heads, layers, layers, len(state["tfm.encoder.layers.0.linear1.weight"]), 0.0, norm_first=True,
            batch_first=True,
        )  # fmt: skip
        self.model = nn.Linear(hidden, len(state["model.weight"]))
        self.query_embs = nn.Parameter(torch.zeros_like(state["query_embs"]))
        self.load_state_dict(state)

    def forward(self, hidden: Tensor, input_embeddings: Tensor) -> Tensor:
        return self.model(self.tfm(self.fc(hidden + input_embeddings), self.query_embs))


@torch.no_grad()
def gills_conditioning(folder: Path, state: Mapping[str, Tensor], heads: int, parts: Sequence[Part]) -> Tensor:
    """What GILL's mapper makes of a prompt: `</s>`, the parts with nothing between them, [IMG] right behind.

    `state`: GILL's checkpoint, in half precision as the converted one is, back in float32.
    """
    names = {name.removeprefix("module.model."): value for name, value in state.items()}
    llm, tokenizer = AutoModelForCausalLM.from_pretrained(folder / "llm"), AutoTokenizer.from_pretrained(folder / "llm")
    vision, pixels = (build.from_pretrained(folder / "clip") for build in (CLIPVisionModel, CLIPImageProcessorPil))
    table = llm.get_input_embeddings()
    prompt = [table(torch.tensor([[tokenizer.eos_token_id]]))]
    for part in parts:
        if isinstance(part, str):
            prompt.append(table(tokenizer(part, add_special_tokens=False, return_tensors="pt")["input_ids"]))
        else:
            seen = vision(pixels(part, return_tensors="pt", size={"shortest_edge": 56},
                                 crop_size={"height": 56, "width": 56})["pixel_values"]).pooler_output  # fmt: skip
            projected = nn.functional.linear(seen, names["visual_embeddings.weight"], names["visual_embeddings.bias"])
            prompt.append(projected.reshape(1, -1, table.embedding_dim))
    image_tokens = names["input_embeddings.weight"].unsqueeze(0)
    embeddings = torch.cat([*prompt, image_tokens], dim=1)
    hidden = llm(inputs_embeds=embeddings, output_hidden_states=True).hidden_states[-1][:, -image_tokens.shape[1] :]
    mapper = TextFcLayer(
        {n.removeprefix("gen_text_hidden_fcs.0."): v for n, v in names.items() if n.startswith("gen_text")}, heads
    )
    return mapper.eval()(hidden, image_tokens)


@torch.no_grad()
def gligens_picture(
    folder: Path,
    conditioning: Tensor,
    things: Sequence[tuple[str, Sequence[float]]],
    *,
    seed: int,
    steps: int,
    few: bool = False,
) -> tuple[Tensor, NDArray[np.uint8]]:
    """Stable Diffusion with GLIGEN's gates by `diffusers`' pipeline: latents and pixels (H, W, 3).

    `things` are phrases and their boxes. `few`: by DDIM from the last noise level on and without guidance, as
    Hyper-SD's LoRAs are used.
    """
    text = CLIPTextModel.from_pretrained(folder / "clip")
    tokenizer = CLIPTokenizerFast.from_pretrained(folder / "clip", model_max_length=77)
    unet = UNet2DConditionModel.from_pretrained(folder / "unet")
    pipeline = StableDiffusionGLIGENPipeline(
        AutoencoderKL.from_pretrained(folder / "vae"), text, tokenizer, unet,
        PNDMScheduler.from_pretrained(folder / "scheduler"), None, None, requires_safety_checker=False,
    )  # fmt: skip
    if few:
        pipeline.scheduler = DDIMScheduler.from_config(pipeline.scheduler.config, timestep_spacing="trailing",
                                                       clip_sample=False, set_alpha_to_one=True)  # fmt: skip
    pipeline.set_progress_bar_config(disable=True)
    size = unet.config["sample_size"]
    nothing = text(tokenizer([""], padding="max_length", return_tensors="pt")["input_ids"]).last_hidden_state
    noise = np.random.default_rng(seed).standard_normal((1, 4, size, size), dtype=np.float32)
    drawn = pipeline(
        prompt_embeds=conditioning, negative_prompt_embeds=nothing, latents=torch.from_numpy(noise), height=8 * size,
        width=8 * size, num_inference_steps=steps, guidance_scale=0.0 if few else 7.5,
        gligen_phrases=[name for name, _ in things],
        gligen_boxes=[list(box) for _, box in things], gligen_scheduled_sampling_beta=0.3, output_type="latent",
    )  # fmt: skip
    decoded = pipeline.vae.decode(drawn.images / pipeline.vae.config["scaling_factor"]).sample
    return drawn.images, np.asarray(pipeline.image_processor.postprocess(decoded, output_type="pil")[0])
