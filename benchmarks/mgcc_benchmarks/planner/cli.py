"""`python benchmarks/planner.py`: predicts latency and memory on devices that are not here."""

from __future__ import annotations

import argparse
import json
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from mgcc_benchmarks.planner.published_times import FIGURES
from mgcc_ref.config import PROFILE_NAMES, get_profile, profile_argument
from mgcc_ref.planner.counts import Lengths, count_profile, usual_lengths
from mgcc_ref.planner.devices import DEVICES, PLANNED
from mgcc_ref.planner.prediction import NOTICE, predict_device
from mgcc_ref.planner.roofline import FACTORS, WEIGHT_BITS
from mgcc_ref.precision import Precision
from mgcc_runtime.bundle.folder import read_manifest
from mgcc_runtime.commands.console import Parser, command, give, give_json, note
from mgcc_runtime.errors import EXIT_DONE
from mgcc_runtime.files import check_output, write_atomically


@command("planner.py")
def main(arguments: Sequence[str] | None = None) -> int:
    """Predict and print; returns the exit code (see `mgcc_runtime.commands.console`)."""
    options = _parse(arguments)
    warnings.filterwarnings("ignore", message="enable_nested_tensor")  # from modules of which only the shapes are used
    if options.out is not None:
        check_output(options.out, ".json")
    found = plan(options)
    if options.out is not None:
        write_atomically(options.out, (json.dumps(found, indent=2) + "\n").encode())
    give_json(found) if options.json else (note if options.out else give)("\n".join(table(found)))
    return EXIT_DONE


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = Parser(prog="planner.py", description="Predicts a profile's latency and memory on GPUs.")
    parser.add_argument("--profile", default="story", type=profile_argument, metavar="NAME|FILE.json",
                        help=f"(default: %(default)s): {', '.join(PROFILE_NAMES)}, or your own")  # fmt: skip
    parser.add_argument(
        "--precision", type=Precision, choices=list(WEIGHT_BITS), default=Precision.FP16, metavar="|".join(WEIGHT_BITS),
        help="of all stages (default: fp16)",
    )  # fmt: skip
    parser.add_argument("--bundle", type=Path, metavar="DIR", help="count this fp32 bundle's graphs instead")
    names, usual = [device.name for device in PLANNED], usual_lengths(steps=1)
    parser.add_argument("--devices", nargs="+", choices=names, default=names, metavar="NAME", help="(default: all)")
    for option, default, told in (
        ("--context", usual.context, "positions read"), ("--text-tokens", usual.text_tokens, "positions written"),
        ("--images", usual.images, "images read, 0 to 8"),
    ):  # fmt: skip
        parser.add_argument(option, type=int, default=default, metavar="N", help=f"{told} (default: {default})")
    parser.add_argument("--steps", type=int, metavar="N", help="denoising steps (default: the profile's)")
    parser.add_argument("--back-test", action="store_true", help="hold the method against published figures instead")
    parser.add_argument("--out", type=Path, metavar="FILE.json", help="also write the JSON object there")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args(arguments)
    if options.context < 1 or options.text_tokens < 0 or not 0 <= options.images <= 8:
        parser.error("--context must be at least 1, --text-tokens at least 0, --images 0 to 8")
    if options.steps is not None and options.steps < 1:
        parser.error(f"--steps is {options.steps}, expected at least 1")
    return options


def plan(options: argparse.Namespace) -> dict[str, Any]:
    """The whole object: devices with their stages and memory, or the back-test."""
    factors = {kind.value: asdict(f) for kind, f in FACTORS.items()}
    head = {"prediction": True, "notice": NOTICE, "factors": factors}
    if options.back_test:
        return {**head, "back_test": back_test()}
    lengths = Lengths(options.context, options.text_tokens, options.images, options.steps or _default_steps(options))
    if options.bundle is not None:
        from mgcc_benchmarks.planner.graph_counts import count_bundle

        network, name = count_bundle(options.bundle, lengths), read_manifest(options.bundle).profile
    else:
        network, name = count_profile(get_profile(options.profile), lengths), options.profile
    told = {"profile": name, "precision": options.precision.value, "request": asdict(lengths)}
    devices = [predict_device(DEVICES[name], network, options.precision) for name in options.devices]
    return {**head, **told, "devices": devices}


def _default_steps(options: argparse.Namespace) -> int:
    if options.bundle is not None:
        return read_manifest(options.bundle).default_steps
    return get_profile(options.profile).sampler.default_steps


def back_test() -> list[dict[str, Any]]:
    """Every published figure with its prediction; `error` is predicted over published time, minus one."""
    return [
        {
            "name": figure.name, "device": figure.device, "role": figure.role.value,
            "published_s": round(figure.seconds, 5), "predicted_s": round(figure.predicted_s(), 5),
            "error": round(figure.error(), 3), "source": figure.source, "note": figure.note,
        }
        for figure in FIGURES
    ]  # fmt: skip


def table(found: dict[str, Any]) -> Iterator[str]:
    """The object in lines for a person."""
    yield found["notice"]
    for kind, f in found["factors"].items():
        yield f"{kind}: {f['compute']:g} of peak, {f['memory']:g} of bandwidth, {f['overhead_us']:g} us a product"
    if "back_test" in found:
        yield from _back_test_table(found["back_test"])
        return
    request = ", ".join(f"{key} {value}" for key, value in found["request"].items())
    yield f"{found['profile']}, {found['precision']}; {request}"
    for device in found["devices"]:
        memory = device["memory_gb"]
        word = "fits" if device["fits"] else "DOES NOT FIT"
        yield f"\n{device['title']}, {device['precision']}: about {device['total_ms'] / 1e3:.2f} s a request"
        yield f"  memory about {memory['total']:.2f} GB of {memory['usable']:g} usable: {word}"
        for name, stage in device["stages"].items():
            yield f"  {name:18} {stage['ms_per_call']:10.2f} ms x {stage['calls']:3} {stage['bound']:>9}"


def _back_test_table(rows: Sequence[dict[str, Any]]) -> Iterator[str]:
    yield f"{'role':5} {'device':20} {'figure':40} {'published':>10} {'predicted':>10} {'error':>6}"
    for row in rows:
        times = f"{row['published_s']:8.4f} s {row['predicted_s']:8.4f} s"
        yield f"{row['role']:5} {row['device']:20} {row['name']:40} {times} {row['error']:+6.0%}  {row['note']}"
