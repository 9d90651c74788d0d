"""diffusers' own StableDiffusionGLIGENPipeline around the same UNet."""

from __future__ import annotations

import time
from typing import Any

import diffusers
import numpy as np
import torch
from diffusers import StableDiffusionGLIGENPipeline

from mgcc_benchmarks.peers.gligen_unet import (
    BOXES,
    GUIDANCE,
    PHRASES,
    STEPS,
    gligen_inputs,
    gligen_model,
    gligen_tokenizer,
)
from mgcc_benchmarks.peers.worker import Outputs, WorkerSpec
from mgcc_ref.schedule import build_scheduler


class DiffusersGligen:
    """The pipeline as its users call it, up to the latents; eager PyTorch."""

    def __init__(self, spec: WorkerSpec) -> None:
        torch.set_num_threads(spec.threads)
        self.model = gligen_model()
        self.inputs = gligen_inputs(self.model)
        self.versions = {"diffusers": diffusers.__version__, "torch": torch.__version__}
        self.pipeline: Any = StableDiffusionGLIGENPipeline(
            vae=self.model.autoencoder,
            text_encoder=self.model.text_encoder.tower,
            tokenizer=gligen_tokenizer(self.model),
            unet=self.model.unet.unet,
            scheduler=build_scheduler(self.model.profile.sampler, self.model.profile.unet.prediction),
            safety_checker=None,
            feature_extractor=None,
            requires_safety_checker=False,
        )
        self.pipeline.set_progress_bar_config(disable=True)

    def _draw(self) -> tuple[torch.Tensor, list[float]]:
        """Latents, and when each step ended."""
        ends_s: list[float] = []
        size = 8 * self.model.profile.unet.latent_px
        latents = self.pipeline(
            prompt_embeds=self.inputs["conditioning"],
            negative_prompt_embeds=self.model.unet.null_conditioning,
            gligen_phrases=list(PHRASES),
            gligen_boxes=[list(box) for box in BOXES],
            gligen_scheduled_sampling_beta=self.model.profile.unet.gate_fraction,
            num_inference_steps=STEPS,
            guidance_scale=GUIDANCE,
            latents=self.inputs["noise"],
            height=size,
            width=size,
            output_type="latent",
            callback=lambda *_: ends_s.append(time.perf_counter()),
        ).images
        return latents, ends_s

    def outputs(self) -> Outputs:
        return {"latents": np.asarray(self._draw()[0])}

    def run_ms(self) -> float:
        """Milliseconds a step, from the end of the second (the callback skips the first) to the end of the last.

        Work around the steps, such as encoding the phrases, is left out on both sides.
        """
        ends_s = self._draw()[1]
        return (ends_s[-1] - ends_s[0]) * 1e3 / (len(ends_s) - 1)
