"""What `mgcc info` says of a bundle."""

from __future__ import annotations

from typing import Any

from mgcc_runtime.bundle.cpu_remark import cpu_lines, cpu_remark
from mgcc_runtime.bundle.folder import Bundle
from mgcc_runtime.engines.tensorrt.origin import bundle_remark
from mgcc_runtime.names import weights_file


def info_json(bundle: Bundle) -> dict[str, Any]:
    """The manifest, where the bundle is, its size, and the remarks on this CPU and GPU (empty: none)."""
    return {
        **bundle.manifest.to_json(), "path": str(bundle.root), "bytes": _size(bundle),
        "cpu_remark": cpu_remark(bundle.manifest), "engine_remark": bundle_remark(bundle),
    }  # fmt: skip


def info_lines(bundle: Bundle) -> list[str]:
    """The same for a reader, in short."""
    manifest, d = bundle.manifest, bundle.manifest.dimensions
    in_use = manifest.memory_estimate_bytes / 1e6
    lines = [
        f"{bundle.root}: profile {manifest.profile} ({manifest.weights} weights) for {manifest.target}",
        f"  built {manifest.built_at}, {_size(bundle) / 1e6:.1f} MB, about {in_use:.0f} MB in use",
        f"  image {d.image_px}x{d.image_px}, context {d.context} tokens, up to {d.objects} objects",
    ]
    if manifest.default_guidance is None:
        lines.append(f"  {manifest.default_steps} steps by a distilled UNet, guidance in its weights")
    else:
        lines.append(f"  defaults: {manifest.default_steps} steps, guidance {manifest.default_guidance:g}")
    lines += [f"  needs {name} {wanted}" for name, wanted in manifest.requires.items()]
    lines += [f"  {line}" for line in cpu_lines(manifest)]
    if remark := bundle_remark(bundle):
        lines.append(f"  note: {remark}")
    for name, graph in manifest.graphs().items():
        own = (graph.file, weights_file(graph.file))  # what a stage shares of another's weights is shown there
        megabytes = sum(manifest.files[file].bytes for file in own if file in manifest.files) / 1e6
        lines.append(f"  {name:15} {graph.precision:6} {graph.engine:12} {megabytes:9.1f} MB")
    return lines


def _size(bundle: Bundle) -> int:
    return sum(file.bytes for file in bundle.manifest.files.values())
