"""What can be built: targets, precisions, and how far each precision may be from the reference."""

from __future__ import annotations

import enum
from dataclasses import dataclass, replace

from mgcc_export.tensorrt.parser_facts import OLDEST, Version
from mgcc_ref.precision import Precision
from mgcc_runtime.bundle.manifest import RequestTolerance, Tolerance
from mgcc_runtime.contract import WITHOUT_WEIGHTS, Grounder
from mgcc_runtime.names import EngineName, TargetName


class Target(enum.StrEnum):
    CPU = TargetName.CPU
    RTX = TargetName.RTX
    JETSON = TargetName.JETSON
    TENSORRT = TargetName.TENSORRT  # as a Jetson, for any GPU with full TensorRT
    ORT_GPU = TargetName.ORT_GPU


#: What a build may be asked for.
ASKED = (Precision.AUTO, Precision.FP32, Precision.FP16, Precision.INT8, Precision.INT4)


class Form(enum.Enum):
    """What a stage is in the bundle."""

    ONNX = "onnx"
    ENGINE = "engine"  # a TensorRT plan and its record


@dataclass(frozen=True)
class Recipe:
    """How a target's stages are built: the precision asked for and the engine that will run them."""

    target: Target
    precision: Precision
    engine: str  # as the runtime calls it; `engine_of` says which stages have another
    form: Form = Form.ONNX
    note: str = ""

    @property
    def calibrated(self) -> bool:
        """Whether the calibration makes the stages, with engine and precision chosen by measurement on this machine."""
        return self.target is Target.CPU and self.precision not in (Precision.FP32, Precision.FP16)

    def engine_of(self, stage: str) -> str:
        """The engine of a stage. On the CPU numpy does what has no weights in less time than any other is called in."""
        return EngineName.HOST if stage in WITHOUT_WEIGHTS and self.target is Target.CPU else self.engine

    @property
    def on_device(self) -> bool:
        """Whether the engines are built by TensorRT where they will run, from checked graphs and a plan."""
        return self.target in (Target.JETSON, Target.TENSORRT)

    @property
    def oldest_release(self) -> Version | None:
        """The oldest TensorRT whose ONNX parser has to take the graphs; None where no parser of its kind reads them."""
        return OLDEST if self.on_device else None

    @property
    def library(self) -> str:
        """The Python module that builds the engines."""
        return EngineName.TENSORRT_RTX if self.target is Target.RTX else EngineName.TENSORRT


_ENGINES = {
    Target.CPU: (EngineName.ONNXRUNTIME, Form.ONNX),
    Target.RTX: (EngineName.TENSORRT_RTX, Form.ENGINE),
    Target.JETSON: (EngineName.ONNXRUNTIME, Form.ONNX),  # until the device has built the engines: device_build.py
    Target.TENSORRT: (EngineName.ONNXRUNTIME, Form.ONNX),
    Target.ORT_GPU: (EngineName.ONNXRUNTIME_GPU, Form.ONNX),
}
#: What a stage falls back to where a precision is out of its tolerance, in this order.
LADDER = (Precision.INT4, Precision.INT8, Precision.FP16, Precision.FP32)

#: fp32 against fp32 differs by the order of sums. One rounding to fp16 is 5e-4, and a stage has hundreds that
#: partly cancel; 8 bits a weight are 0.5 % of its channel's largest, 4 bits 7 % of its block's.
TOLERANCES = {
    Precision.FP32: Tolerance(cosine=0.99999, relative_l2=1e-3),
    Precision.FP16: Tolerance(cosine=0.9999, relative_l2=1e-2),
    Precision.INT8: Tolerance(cosine=0.999, relative_l2=4e-2),
    Precision.INT4: Tolerance(cosine=0.98, relative_l2=0.2),
}
#: What the vision tower gives stands among the words, and boxes are read from it to a pixel: W8A8 at 2.5e-2 moved
#: something in a fifth of the story's pictures, where the language model at 4e-2 moved nothing in 30.
_VISION = Tolerance(cosine=0.9999, relative_l2=1.2e-2)
#: With 8-bit activations, too. The story's pictures stay what they are with a UNet at 27 dB (a relative L2 of 4.5e-2)
#: and at 25.5, so that 25 is asked for; the whole bundle's score is to be measured.
_EIGHT_BIT_ACTIVATIONS = Tolerance(cosine=0.998, relative_l2=5.6e-2)
#: Of a whole request. A greedy choice between two words that are equally likely may fall the other way, and the
#: text after it with it: below fp32 only most of the tokens are asked for, with 4-bit weights none.
REQUEST_TOLERANCES = {
    Precision.FP32: RequestTolerance(),
    Precision.FP16: RequestTolerance(psnr_db=30.0, token_match=0.5),
    Precision.INT8: RequestTolerance(psnr_db=22.0, token_match=0.25),
    Precision.INT4: RequestTolerance(psnr_db=12.0, token_match=0.0, boxes_equal=False),
}


def tolerance_of(stage: str, precision: Precision) -> Tolerance:
    """What a stage's outputs have to keep to, against PyTorch in fp32."""
    lowest = precision in (Precision.INT8, Precision.INT4)
    return _VISION if lowest and stage == "vision_encoder" else TOLERANCES[precision]


def calibrated_tolerance(stage: str) -> Tolerance:
    """The same for 8-bit weights and activations, whose ranges were calibrated."""
    return _VISION if stage == "vision_encoder" else _EIGHT_BIT_ACTIVATIONS


def request_tolerance(precision: Precision, *, random_weights: bool) -> RequestTolerance:
    """What a whole request has to keep to. To a model with random weights all words are about equally likely, so
    that below fp32 rounding picks even the first: no token is asked for.
    """
    tolerance = REQUEST_TOLERANCES[precision]
    if random_weights and precision is not Precision.FP32:
        return replace(tolerance, token_match=0.0)
    return tolerance


#: What `--grounder` takes: which grounders a bundle has, the usual one first.
GROUNDERS: dict[str, tuple[Grounder, ...]] = {
    **{one.value: (one,) for one in Grounder}, "both": (Grounder.LAYOUT_HEAD, Grounder.IN_CONTEXT),
}  # fmt: skip


def asked_grounder(grounders: tuple[Grounder, ...]) -> str:
    """The word of GROUNDERS."""
    return next(word for word, has in GROUNDERS.items() if has == grounders)


def choose_recipe(target: Target, precision: Precision) -> Recipe:
    """The recipe of a target and precision; every target is built in every precision."""
    engine, form = _ENGINES[target]
    if precision is Precision.AUTO and target is not Target.CPU:
        note = f"precision auto is {Precision.FP16} for every stage of {target} in this version"
        return Recipe(target, Precision.FP16, engine, form, note)
    note = ""
    if (target, precision) == (Target.CPU, Precision.FP16):
        note = "fp16 halves the file on the CPU, not the time: ONNX Runtime computes most of it in fp32 there"
    return Recipe(target, precision, engine, form, note)


def fallbacks(precision: Precision) -> tuple[Precision, ...]:
    """The precision itself and what a stage may fall back to."""
    return LADDER[LADDER.index(precision) :]


def available() -> str:
    """All that can be built, in words."""
    precisions = " or ".join(p for p in ASKED if p is not Precision.AUTO)
    return f"{', '.join(Target)}, each with {precisions}; auto measures on the CPU and is fp16 elsewhere"
