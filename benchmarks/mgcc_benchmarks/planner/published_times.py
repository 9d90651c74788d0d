"""Published figures that the predictions are held against: some fit the factors, the others test them.

Where a source leaves something open, its figure's note has the assumption. Two choices of the method were made with the
figures of role TEST in view, so those test the factors rather than the method: attention counts as one kernel, and the
output head of the 4-bit language models as fp16.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np

from mgcc_benchmarks.planner.published_networks import (
    Llm,
    clip_vision,
    llm_body,
    llm_head,
    stable_diffusion_unet,
    stable_diffusion_vae,
    stable_diffusion_xl_unet,
)
from mgcc_ref.planner.counts import Work
from mgcc_ref.planner.devices import DEVICES, DeviceClass
from mgcc_ref.planner.roofline import FACTORS, Factors, predict
from mgcc_ref.precision import Precision

Parts = tuple[tuple[int, Precision, tuple[Work, ...]], ...]  # calls, precision, products

_LAB = "https://github.com/NVIDIA-AI-IOT/jetson-ai-lab"
_MLPERF = "https://github.com/mlcommons/inference_results_v4.1 closed/NVIDIA/results/Orin_TRT"


class Role(enum.StrEnum):
    FIT = "fit"
    TEST = "test"


@dataclass(frozen=True)
class Figure:
    """One published time and the work that was timed."""

    name: str
    device: str
    seconds: float
    role: Role
    parts: Callable[[], Parts]
    source: str
    note: str = ""

    def predicted_s(self, factors: Factors | None = None) -> float:
        device = DEVICES[self.device]
        return sum(calls * predict(works, device, p, factors).ms for calls, p, works in self.parts()) / 1e3

    def error(self, factors: Factors | None = None) -> float:
        """Predicted over published time, minus one."""
        return self.predicted_s(factors) / self.seconds - 1


_LLAMA_7B = Llm(4096, 32, 11008, 32, 32, 128, 32_000)
_TINYLLAMA = Llm(2048, 22, 5632, 32, 4, 64, 32_000)
_STABLELM = Llm(2048, 24, 5632, 32, 32, 64, 100_352)
_OPENLLAMA = Llm(3200, 26, 8640, 32, 32, 100, 32_000)
_LLAMA_8B = Llm(4096, 32, 14336, 32, 8, 128, 128_256)
_LLAMA_3B = Llm(3072, 28, 8192, 24, 8, 128, 128_256)
_GEMMA_2B = Llm(2304, 26, 9216, 8, 4, 256, 256_000)
_GPT_J = Llm(4096, 28, 16384, 16, 16, 256, 50_400, gated=False)
_PAST = 256  # positions read while decoding; few enough to matter little


def _decode(model: Llm) -> Parts:
    """One token: INT4 weights, the output head in fp16 (the sources do not say; 4-bit schemes often leave it)."""
    return ((1, Precision.INT4_WEIGHTS, llm_body(model, 1, _PAST)), (1, Precision.FP16, llm_head(model, 1)))


def _gpt_j_query() -> Parts:
    prefill, answer, beams = 1000, 69, 4
    return (
        (1, Precision.INT4_WEIGHTS, llm_body(_GPT_J, prefill, prefill)),
        (answer, Precision.INT4_WEIGHTS, llm_body(_GPT_J, beams, prefill, beams)),
        (answer, Precision.FP16, llm_head(_GPT_J, beams)),
    )


def _sd15(steps: int) -> Parts:
    return ((steps, Precision.FP16, stable_diffusion_unet()), (1, Precision.FP16, stable_diffusion_vae(64)))


def _sdxl(steps: int, unet: Precision = Precision.FP16) -> Parts:
    return ((steps, unet, stable_diffusion_xl_unet()), (1, Precision.FP16, stable_diffusion_vae(128)))


def _tokens(name: str, device: str, rate: float, role: Role, model: Llm) -> Figure:
    title = f"{name}, INT4, one token"
    return Figure(title, device, 1 / rate, role, lambda: _decode(model), f"{_LAB} (MLC)", "output head taken as fp16")


_NANO, _SUPER, _AGX = "orin-nano-8gb", "orin-nano-8gb-super", "agx-orin-64gb"
FIGURES = (
    _tokens("Llama2-7B", _NANO, 16, Role.FIT, _LLAMA_7B),
    _tokens("Llama2-7B", _AGX, 47, Role.FIT, _LLAMA_7B),
    _tokens("TinyLlama-1.1B", _NANO, 68, Role.FIT, _TINYLLAMA),
    _tokens("TinyLlama-1.1B", _AGX, 150, Role.FIT, _TINYLLAMA),
    Figure(
        "CLIP ViT-B/16 vision tower", _NANO, 1 / 95, Role.FIT, lambda: ((1, Precision.FP16, clip_vision()),), _LAB,
        "batch 1 and fp16 taken",
    ),
    Figure(
        "SD 1.5 512, one guided step, TensorRT", "rtx-4080", 1 / 52.6, Role.FIT,
        lambda: ((1, Precision.FP16, stable_diffusion_unet()),), "https://github.com/chengzeyi/stable-fast",
    ),
    _tokens("StableLM-1.6B", _NANO, 37, Role.TEST, _STABLELM),
    _tokens("StableLM-1.6B", _AGX, 111, Role.TEST, _STABLELM),
    _tokens("OpenLlama-3B", _NANO, 27, Role.TEST, _OPENLLAMA),
    _tokens("OpenLlama-3B", _AGX, 82, Role.TEST, _OPENLLAMA),
    _tokens("Llama3.1-8B", _NANO, 14, Role.TEST, _LLAMA_8B),
    _tokens("Llama3.1-8B", _SUPER, 19.1, Role.TEST, _LLAMA_8B),
    _tokens("Llama3.2-3B", _NANO, 27.7, Role.TEST, _LLAMA_3B),
    _tokens("Llama3.2-3B", _SUPER, 43.1, Role.TEST, _LLAMA_3B),
    _tokens("Gemma2-2B", _NANO, 21.5, Role.TEST, _GEMMA_2B),
    _tokens("Gemma2-2B", _SUPER, 35.0, Role.TEST, _GEMMA_2B),
    Figure(
        "CLIP ViT-B/16 vision tower", _SUPER, 1 / 161, Role.TEST, lambda: ((1, Precision.FP16, clip_vision()),), _LAB,
        "batch 1 and fp16 taken",
    ),
    Figure(
        "GPT-J-6B, one query, TensorRT", _AGX, 2.82, Role.TEST, _gpt_j_query, f"{_MLPERF}/gptj-99/SingleStream",
        "taken: 1000 tokens read, 69 written, 4 beams, INT4 weights",
    ),
    Figure(
        "SDXL 1024, 20 steps, TensorRT", _AGX, 9.944, Role.TEST, lambda: _sdxl(20, Precision.INT8),
        f"{_MLPERF}/stable-diffusion-xl/SingleStream", "taken: UNet in INT8, VAE in fp16",
    ),
    Figure("SD 1.5 512", _AGX, 2.2, Role.TEST, lambda: _sd15(20), _LAB, "steps not stated: 20 taken"),
    Figure("SDXL 1024", _AGX, 23.1, Role.TEST, lambda: _sdxl(20), _LAB, "steps not stated: 20 taken"),
    Figure(
        "SD 1.5 512, 50 steps, ONNX Runtime", "rtx-3060", 4.7, Role.TEST, lambda: _sd15(50),
        "https://github.com/microsoft/onnxruntime models/stable_diffusion/README.md",
    ),
    Figure(
        "SDXL 1024, 30 steps, TensorRT", "a10", 8.16, Role.TEST, lambda: _sdxl(30),
        "https://huggingface.co/stabilityai/stable-diffusion-xl-1.0-tensorrt",
    ),
)  # fmt: skip


MOST_OF_BANDWIDTH = 0.95  # refresh and turning from reads to writes take the rest of any DRAM's time


@cache
def fit(kind: DeviceClass) -> Factors:
    """Least squares of the logarithm of predicted over published time, over the class's figures of role FIT.

    RTX has one such figure, so only `compute` moves there. `memory` stops at MOST_OF_BANDWIDTH, where the figures
    of the largest model would take it further.
    """
    from scipy.optimize import least_squares

    figures = [f for f in FIGURES if f.role is Role.FIT and DEVICES[f.device].kind is kind]
    start = FACTORS[kind]

    def factors(x: Sequence[float]) -> Factors:
        compute = float(np.exp(x[0]))
        return (
            Factors(compute, *map(float, np.exp(x[1:])))
            if len(x) > 1
            else Factors(compute, start.memory, start.overhead_us)
        )

    first = [0.4, 0.8, 5.0] if len(figures) > 2 else [0.4]
    found = least_squares(
        lambda x: [np.log1p(f.error(factors(x))) for f in figures], np.log(first),
        bounds=([-np.inf] * len(first), [0.0, np.log(MOST_OF_BANDWIDTH), np.inf][: len(first)]),
    )  # fmt: skip
    return factors(found.x)
