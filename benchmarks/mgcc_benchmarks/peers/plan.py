"""The comparisons, the figures, and the aim of the project for each."""

from __future__ import annotations

import enum
from dataclasses import dataclass


class Peer(enum.StrEnum):
    """The software that we are compared with, by the name that --set-up takes."""

    REFERENCE = "mgcc_ref"
    COMPILE = "torch.compile"
    ONNXRUNTIME = "onnxruntime"
    OPENVINO = "openvino"
    OPENVINO_DEFAULT = "openvino-default"  # in the arithmetic that it chooses by itself
    LLAMACPP = "llama.cpp"
    OPTIMUM = "optimum-onnx"
    DIFFUSERS = "diffusers"
    RUNTIME = "runtime"  # this runtime as a device has it: the size of an installation


class Work(enum.StrEnum):
    """The work of both sides."""

    TURN = "turn"  # a warm request of 5 texts and 4 images: words and a picture
    PREFILL = "prefill"  # the language model reads a prompt in one pass
    DECODE = "decode"  # and then one token after the other
    UNET = "unet"  # one denoising step
    GLIGEN = "gligen"  # one denoising step of a small UNet in the paper's form


class Ours(enum.Enum):
    """Which of our bundles takes part."""

    BUNDLE = "--bundle"
    FEW_STEPS = "--fast-bundle"  # the student of the UNet
    GRAPHS = "graphs of random weights"  # no bundle: `gligen_unet`


@dataclass(frozen=True)
class Comparison:
    """A ratio of the report: theirs / ours, so above 1 ours is faster. `aim`: the least wanted, or None."""

    name: str
    work: Work
    theirs: Peer
    aim: float | None = None
    ours: Ours = Ours.BUNDLE


COMPARISONS = (
    Comparison("turn_vs_reference", Work.TURN, Peer.REFERENCE, 4.0),
    Comparison("turn_few_steps_vs_reference", Work.TURN, Peer.REFERENCE, 6.0, Ours.FEW_STEPS),
    Comparison("llm_decode_vs_llamacpp", Work.DECODE, Peer.LLAMACPP, 1.2),
    Comparison("llm_prefill_vs_llamacpp", Work.PREFILL, Peer.LLAMACPP, 5.0),
    Comparison("llm_decode_vs_onnxruntime_fp32", Work.DECODE, Peer.ONNXRUNTIME),
    Comparison("llm_prefill_vs_onnxruntime_fp32", Work.PREFILL, Peer.ONNXRUNTIME),
    Comparison("llm_decode_vs_openvino_fp32", Work.DECODE, Peer.OPENVINO),
    Comparison("llm_prefill_vs_openvino_fp32", Work.PREFILL, Peer.OPENVINO),
    Comparison("llm_decode_vs_optimum_onnx", Work.DECODE, Peer.OPTIMUM),
    Comparison("llm_prefill_vs_optimum_onnx", Work.PREFILL, Peer.OPTIMUM),
    Comparison("llm_decode_vs_reference", Work.DECODE, Peer.REFERENCE),
    Comparison("llm_prefill_vs_reference", Work.PREFILL, Peer.REFERENCE),
    Comparison("unet_vs_reference", Work.UNET, Peer.REFERENCE),
    Comparison("unet_vs_torch_compile", Work.UNET, Peer.COMPILE, 2.5),
    Comparison("unet_vs_onnxruntime_fp32", Work.UNET, Peer.ONNXRUNTIME, 1.9),
    Comparison("unet_vs_openvino_fp32", Work.UNET, Peer.OPENVINO, 1.6),
    Comparison("unet_vs_openvino_default", Work.UNET, Peer.OPENVINO_DEFAULT),
    Comparison("gligen_step_vs_diffusers", Work.GLIGEN, Peer.DIFFUSERS, ours=Ours.GRAPHS),
)


@dataclass(frozen=True)
class Figure:
    """A figure of one side alone, ours or the reference's. `aim`: the most wanted, or None."""

    name: str
    unit: str
    aim: float | None
    theirs: Peer | None = None


FIGURES = (
    Figure("dialogue_turn_10_against_2", "x", 1.3),
    Figure("cold_start_s", "s", 4.0),
    Figure("cold_start_reference_s", "s", None, Peer.REFERENCE),
    Figure("import_s", "s", 0.3),
    Figure("peak_memory_mb", "MB", 700.0),
    Figure("peak_memory_reference_mb", "MB", None, Peer.REFERENCE),
    Figure("runtime_install_mb", "MB", 250.0, Peer.RUNTIME),  # with all engines that the bundle needs
    Figure("runtime_install_onnxruntime_mb", "MB", None, Peer.RUNTIME),
)
NAMES = (*(c.name for c in COMPARISONS), *(f.name for f in FIGURES))
