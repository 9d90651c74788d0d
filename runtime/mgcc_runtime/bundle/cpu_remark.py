"""What there is to say of a CPU bundle of lower precision on a CPU other than the one that it was measured on."""

from __future__ import annotations

from mgcc_runtime.bundle.manifest import Manifest
from mgcc_runtime.device.cpu_features import arithmetic, cpu_features, sums_bytes_in_16_bits
from mgcc_runtime.names import EngineName, TargetName

_OPENVINO = (EngineName.OPENVINO, EngineName.OPENVINO_BF16)


def cpu_remark(manifest: Manifest, features: tuple[str, ...] | None = None, machine: str = "") -> str:
    """One sentence; empty where there is nothing to say. `features` and `machine`: of another CPU than this one.

    The graphs that are made now give the same on every CPU, so it is about speed. Those of bundles from before the
    manifest said what they were measured on may hold OpenVINO's int8 weights of the full range, which overflow where
    the CPU sums byte products in 16 bits.
    """
    here = cpu_features() if features is None else features
    if manifest.target != TargetName.CPU or set(manifest.precision.values()) <= {"fp32"}:
        return ""
    if manifest.measured_on is None:
        graphs = manifest.graphs().items()
        named = [name for name, graph in graphs if graph.engine in _OPENVINO and graph.precision == "int8"]
        if not named or not sums_bytes_in_16_bits(here, machine):
            return ""
        return (
            f"this CPU sums 8-bit products in 16 bits (it has no VNNI), and stages {', '.join(named)} of this bundle, "
            "which does not say what it was measured on, may lose quality by it; rebuild it with "
            f"`{_rebuild(manifest)}`"
        )
    there = arithmetic(manifest.measured_on.features)
    if not here or not there or arithmetic(here) == there:
        return ""
    return (
        f"engines and precisions of this bundle were measured on {manifest.measured_on.cpu} ({', '.join(there)}), and "
        f"this CPU has {', '.join(arithmetic(here)) or 'none of these'}: it gives the same here, but others may be "
        f"faster; to measure again, `{_rebuild(manifest)}`"
    )


def cpu_lines(manifest: Manifest) -> list[str]:
    """For `mgcc info`: what was measured where, and the remark."""
    measured, remark = manifest.measured_on, cpu_remark(manifest)
    lines = [f"note: {remark}"] if remark else []
    if measured is None:
        return lines
    kinds = ", ".join(arithmetic(measured.features)) or "of unknown arithmetic"
    return [f"measured on {measured.cpu}, {measured.cores} cores ({kinds})", *lines]


def _rebuild(manifest: Manifest) -> str:
    """The command; where the profile has a file, that stands for it, and its weights are the user's own."""
    weights = " --weights random" if manifest.weights == "random" else ""
    profile = manifest.profile
    if manifest.profile_in_file:
        profile = "FILE.json"
        weights = weights or " --weights DIR"
    return f"python export/build_engines.py --profile {profile} --target cpu --precision auto{weights}"
