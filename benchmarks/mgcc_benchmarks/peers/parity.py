"""The check before anything is timed that both sides give the same: their differences, and the limits of these."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mgcc_benchmarks.peers.client import PeerError
from mgcc_benchmarks.peers.plan import Comparison, Ours, Peer, Work
from mgcc_benchmarks.peers.worker import Outputs
from mgcc_runtime.bundle.folder import Manifest, Tolerance
from mgcc_runtime.measure.golden_request import TURNED_BOX_PX
from mgcc_runtime.measure.similarity import common_prefix, cosine, psnr_db, relative_l2

#: A bundle whose stage is not in fp32 states a tolerance: its error on the golden inputs, with slack. The UNet is
#: compared on those. The language model's are 6 positions; on a request of 100 its error may be this many times larger
#: (1.1 times was measured). Another model, such as one with another rotary embedding, is further off.
OTHER_INPUTS = 1.25
#: Between fp32 engines only the order of sums differs.
FP32 = Tolerance(cosine=0.99999, relative_l2=1e-3)
#: Limits for peers that round; all others compute in fp32. llama.cpp rounds activations to 8 bits. OpenVINO chooses
#: bf16 where the CPU has it: its step is eight times that of fp16, and so is the limit (0.036 was measured for the
#: story's UNet).
EIGHT_BIT = Tolerance(cosine=0.99, relative_l2=0.2)
BFLOAT16 = Tolerance(cosine=0.9968, relative_l2=0.08)
ROUNDING = {Peer.LLAMACPP: EIGHT_BIT, Peer.OPENVINO_DEFAULT: BFLOAT16}
#: The share of words that both sides choose alike where one of them rounds; in fp32 all are the same.
LEAST_SAME_CHOICES = 0.8
#: A side that writes more tokens does more work.
MOST_MORE_TOKENS = 0.1


@dataclass(frozen=True)
class Limits:
    """How far apart the two sides of a comparison may be. `psnr_db` None: the pictures are of two models."""

    stage: Tolerance
    same_choices: float
    psnr_db: float | None
    token_match: float
    edge_px: float | None  # None: the bundle does not promise equal boxes


def limits_of(comparison: Comparison, manifest: Manifest) -> Limits:
    """Limits from the bundle's tolerances against the reference and from the peer's own rounding."""
    name = {Work.UNET: "unet", Work.PREFILL: "llm", Work.DECODE: "llm"}.get(comparison.work)
    stage, lowered = FP32, False
    if name is not None and comparison.ours is Ours.BUNDLE:
        stage = _looser(FP32, manifest.tolerances.get(name, FP32))
        lowered = stage != FP32
        if lowered and name == "llm":  # 1 - cosine is a square
            stage = Tolerance(1 - OTHER_INPUTS**2 * (1 - stage.cosine), OTHER_INPUTS * stage.relative_l2)
    if (theirs := ROUNDING.get(comparison.theirs)) is not None:
        stage, lowered = _added(stage, theirs) if lowered else theirs, True
    psnr_db = None if comparison.ours is Ours.FEW_STEPS else manifest.request_tolerance.psnr_db
    edge_px = TURNED_BOX_PX if manifest.request_tolerance.boxes_equal else None
    choices = LEAST_SAME_CHOICES if lowered else 1.0
    return Limits(stage, choices, psnr_db, manifest.request_tolerance.token_match, edge_px)


def _looser(a: Tolerance, b: Tolerance) -> Tolerance:
    return Tolerance(min(a.cosine, b.cosine), max(a.relative_l2, b.relative_l2))


def _added(a: Tolerance, b: Tolerance) -> Tolerance:
    """The tolerance of two sides that each round: unrelated errors add up as squares, and 1 - cosine is a square."""
    return Tolerance(a.cosine + b.cosine - 1, math.hypot(a.relative_l2, b.relative_l2))


def check_parity(comparison: Comparison, ours: Outputs, theirs: Outputs, limits: Limits) -> dict[str, float]:
    """The measured differences by name; PeerError if one is beyond its limit.

    Both sides draw a turn's picture with the same given boxes, and the layouts are compared apart from it: where boxes
    are rounded to whole pixels, a tenth of a pixel can move an edge, and the object is drawn at another place.
    """
    found = _measure(comparison.work, ours, theirs)
    wanted: dict[str, tuple[float, float | None]] = {  # least, most
        "cosine": (limits.stage.cosine, None),
        "relative_l2": (-np.inf, limits.stage.relative_l2),
        "same_choices": (limits.same_choices, None),
        "psnr_db": (-np.inf if limits.psnr_db is None else limits.psnr_db, None),
        "token_match": (limits.token_match, None),
        "edge_px": (-np.inf, limits.edge_px),
        "tokens_more": (-MOST_MORE_TOKENS, MOST_MORE_TOKENS),
    }
    for name, value in found.items():
        least, most = wanted[name]
        if not value >= least or (most is not None and not value <= most):
            bound = f"at least {least:g}" if not value >= least else f"at most {most:g}"
            raise PeerError(
                f"{comparison.name} would compare different work: {name} is {value:.6g}, expected {bound}; "
                "set the peer up again, and build the bundle again if that does not help"
            )
    return {name: round(float(value), 8) for name, value in found.items()}


def _measure(work: Work, ours: Outputs, theirs: Outputs) -> dict[str, float]:
    if work is Work.TURN:
        texts = [tuple(side["tokens"].tolist()) for side in (ours, theirs)]
        edges_px = float(len(ours["image"]))  # for layouts with different objects
        if np.array_equal(ours["labels"], theirs["labels"]):
            edges_px = float(np.abs(ours["boxes"] - theirs["boxes"]).max(initial=0))
        return {
            "edge_px": edges_px,
            "psnr_db": min(psnr_db(ours["image"], theirs["image"]), 999.0),
            "token_match": common_prefix(*texts),
            "tokens_more": (len(texts[0]) - len(texts[1])) / max(1, *map(len, texts)),
        }
    if work in (Work.PREFILL, Work.DECODE):
        return _measure_logits(ours["logits"], theirs["logits"])
    name = "latents" if work is Work.GLIGEN else "prediction"
    return {"cosine": cosine(ours[name], theirs[name]), "relative_l2": relative_l2(ours[name], theirs[name])}


def _measure_logits(ours: NDArray[np.float32], theirs: NDArray[np.float32]) -> dict[str, float]:
    """(N, V) each; a side without the [IMG] tokens has fewer columns. Over all rows at once, as a tolerance is."""
    words = min(ours.shape[1], theirs.shape[1])
    o, t = ours[:, :words], theirs[:, :words]
    return {
        "cosine": cosine(o, t),
        "relative_l2": relative_l2(o, t),
        "same_choices": float(np.mean(o.argmax(axis=1) == t.argmax(axis=1))),
    }
