"""How weights and activations are stored and computed, by the names that reports, manifests and command lines have."""

from __future__ import annotations

import enum


class Precision(enum.StrEnum):
    """What a stage is asked for or has; who builds, calibrates or plans says which of them it knows."""

    AUTO = "auto"  # chosen for each stage
    FP32 = "fp32"
    BF16 = "bf16"  # the fp32 graph, computed in bfloat16
    FP16 = "fp16"
    INT8 = "int8"  # weights and activations, these with calibrated ranges; weights alone where an engine has no more
    INT8_DYNAMIC = "int8-dynamic"  # activations in 8 bits with ranges taken at each call
    INT8_WEIGHTS = "int8-weights"
    INT4 = "int4"  # weights; what does not take 4 bits has 8, and activations are fp16
    INT4_WEIGHTS = "int4-weights"
