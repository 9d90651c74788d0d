"""Tolerances that several tests share, each with its reason. One test's own tolerance stands in that test."""

from __future__ import annotations

from mgcc_runtime.bundle.folder import Tolerance

#: The same fp32 arithmetic in another order of sums; values of order 1. The worst seen is 3e-6.
REORDERED_FP32 = 1e-5

#: A stage in fp32 on another engine against PyTorch: the project's promise (a wrong mask or shift is off by 1e-1).
FP32_STAGE = Tolerance(cosine=0.99999, relative_l2=1e-3)

#: A whole image in fp32 against the reference from the same noise, in dB: no difference that an eye could find.
FP32_IMAGE_PSNR_DB = 45.0

#: Rendered art on another build of the SVG renderer, in steps of 256.
RENDERER_ROUNDING = 2
