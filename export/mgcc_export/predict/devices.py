"""What `--estimate` says of the devices of a target: a turn's time and whether it fits, predicted by the planner."""

from __future__ import annotations

from collections.abc import Iterator

from mgcc_export.targets import Recipe, Target
from mgcc_ref.config import Profile
from mgcc_ref.planner.counts import count_profile, usual_lengths
from mgcc_ref.planner.devices import PLANNED, DeviceClass
from mgcc_ref.planner.prediction import NOTICE, predict_device
from mgcc_ref.precision import Precision

_DEVICES = {
    Target.RTX: (DeviceClass.RTX,), Target.JETSON: (DeviceClass.ORIN,), Target.ORT_GPU: (DeviceClass.RTX,),
    Target.TENSORRT: (DeviceClass.ORIN, DeviceClass.RTX),
}  # fmt: skip
_ARITHMETIC = {
    Precision.FP16: Precision.FP16, Precision.INT8: Precision.INT8_WEIGHTS, Precision.INT4: Precision.INT4_WEIGHTS,
}  # fmt: skip
_LLM_CALLS = ("llm_prefill", "llm_decode", "llm_image_tokens")


def device_lines(profile: Profile, recipe: Recipe, *, ranges: bool) -> Iterator[str]:
    """One line a device of the recipe's target, none for the CPU. `ranges`: the build gets ranges of activations."""
    if recipe.target is Target.CPU:
        return
    lengths = usual_lengths(profile.sampler.default_steps)
    yield (
        f"{NOTICE} A turn of {lengths.context} positions read, {lengths.text_tokens} written, {lengths.images} images "
        f"and {lengths.steps} steps, all stages:"
    )
    # the planner has no peaks for fp32, which no device is fastest in
    arithmetic = _ARITHMETIC.get(recipe.precision, Precision.FP16)
    otherwise: dict[str, Precision] = {}
    if recipe.on_device and recipe.precision is Precision.INT8 and ranges:
        arithmetic, otherwise = Precision.INT8, dict.fromkeys(_LLM_CALLS, Precision.INT8_WEIGHTS)
    network = count_profile(profile, lengths)
    for device in (device for device in PLANNED if device.kind in _DEVICES[recipe.target]):
        found = predict_device(device, network, arithmetic, otherwise)
        memory = found["memory_gb"]
        yield (
            f"predicted for {device.title}, {found['precision']}: about {found['total_ms'] / 1e3:.2f} s a turn, "
            f"{memory['total']:.2f} GB of {memory['usable']:g} usable: {'fits' if found['fits'] else 'DOES NOT FIT'}"
        )
    if recipe.precision is Precision.FP32:
        yield "predicted for fp16, since no peaks of fp32 are planned with: fp32 takes longer and twice the memory"
