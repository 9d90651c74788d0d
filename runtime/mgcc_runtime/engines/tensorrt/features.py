"""What each release of TensorRT and TensorRT-RTX offers of what not all of them have: one table, which tests hold
against the releases' own interfaces.

The library and its version come from the engine's record. Never ask an object what it has: TensorRT has had
TensorRT-RTX's `create_runtime_config` since 10.11, with nothing in it that the other one is asked for.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass

from mgcc_runtime.engines.tensorrt.record import EngineRecord
from mgcc_runtime.names import EngineName

Version = tuple[int, int]

TENSORRT, TENSORRT_RTX = EngineName.TENSORRT, EngineName.TENSORRT_RTX


class Feature(enum.Enum):
    """What the runtime, or the exporter, uses where a release has it."""

    DEVICE_COMPILER = "compiles kernels on the device; a runtime configuration says when, and which are kept"
    CAPTURE_QUESTION = "says whether a context's work can be captured as a CUDA graph"
    HEADER_CHECK = "says by the first bytes of an engine whether it runs here"
    STREAM_READER = "reads an engine piece by piece, through calls of ours"
    USER_ALLOCATION = "builds engines that work in memory of ours alone, if it is told to"


@dataclass(frozen=True)
class Offer:
    """The first release of each library that has a feature, and the names that it consists of."""

    since: Mapping[str, Version]
    names: tuple[str, ...]  # "Class.member", of the library's module


#: TensorRT-RTX from the first release that the extra `rtx` takes.
OFFERS: Mapping[Feature, Offer] = {
    Feature.DEVICE_COMPILER: Offer(
        {TENSORRT_RTX: (1, 7)},
        (
            "IRuntimeConfig.create_runtime_cache", "IRuntimeConfig.set_runtime_cache", "IRuntimeCache.serialize",
            "IRuntimeCache.deserialize", "IRuntimeConfig.dynamic_shapes_kernel_specialization_strategy",
            "DynamicShapesKernelSpecializationStrategy.LAZY", "DynamicShapesKernelSpecializationStrategy.EAGER",
            "DynamicShapesKernelSpecializationStrategy.NONE", "IRuntimeConfig.cuda_graph_strategy",
            "CudaGraphStrategy.DISABLED",
        ),
    ),
    Feature.CAPTURE_QUESTION: Offer({TENSORRT_RTX: (1, 7)}, ("IExecutionContext.is_stream_capturable",)),
    Feature.HEADER_CHECK: Offer(
        {TENSORRT_RTX: (1, 7)},
        (
            "Runtime.engine_header_size", "Runtime.get_engine_validity", "EngineValidity.INVALID",
            "EngineInvalidityDiagnostics.VERSION_MISMATCH",
        ),
    ),
    Feature.STREAM_READER: Offer(
        {TENSORRT: (10, 7), TENSORRT_RTX: (1, 7)},
        ("IStreamReaderV2.read", "IStreamReaderV2.seek", "SeekPosition.SET", "SeekPosition.CUR", "SeekPosition.END"),
    ),
    Feature.USER_ALLOCATION: Offer({TENSORRT_RTX: (1, 7)}, ("BuilderFlag.REQUIRE_USER_ALLOCATION",)),
}  # fmt: skip


def features(library: str, version: str) -> frozenset[Feature]:
    """What this release of the library offers; one later than all that are known keeps what they have."""
    number = release_of(version)
    return frozenset(f for f, offer in OFFERS.items() if library in offer.since and number >= offer.since[library])


def features_of(record: EngineRecord) -> frozenset[Feature]:
    """What the release offers that built an engine, the only one that loads it."""
    return features(record.library, record.version)


def release_of(version: str) -> Version:
    """The two numbers that a release's interface goes by: (10, 13) of 10.13.3.9."""
    major, minor, *_ = (*version.split("."), "0")
    return int(major), int(minor)
