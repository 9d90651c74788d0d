"""Plain fp32 graphs for the peers: the reference as torch.onnx.export writes it, unchanged.

They are not taken from a bundle, so that our exporter's changes to its graphs do not speed up the other side.
"""

from __future__ import annotations

import contextlib
import io
import json
import logging
import os
import shutil
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from mgcc_benchmarks.peers.client import PeerError
from mgcc_benchmarks.peers.gligen_unet import GUIDANCE, STEPS, gligen_inputs, gligen_model
from mgcc_benchmarks.peers.reference_model import open_reference
from mgcc_benchmarks.peers.workspace import Place
from mgcc_ref.model import MgccModel
from mgcc_ref.schedule import compile_schedule, step_coefficients
from mgcc_runtime.bundle.folder import Bundle
from mgcc_runtime.contract import StageSpec, past_names, stage
from mgcc_runtime.denoise import ScheduleTable
from mgcc_runtime.measure.golden import StageGolden, stage_golden
from mgcc_runtime.measure.similarity import relative_l2
from mgcc_runtime.names import EMBEDDINGS, graph_file

#: Lengths to trace at; torch takes 0 and 1 for constants.
_TRACED = {"S": 5, "P": 3}
#: PyTorch against the bundle's golden data, which PyTorch made: the same weights agree to rounding.
_SAME_WEIGHTS = 1e-4


class _Positional(nn.Module):
    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        outputs = self.module(*tensors)
        return (outputs,) if isinstance(outputs, Tensor) else tuple(outputs)


def export_plain(module: nn.Module, spec: StageSpec, example: Sequence[Tensor], path: Path) -> None:
    """Trace a stage with `example` and write it as it comes; axes named in the contract stay dynamic."""
    named = {e: torch.export.Dim(e) for t in spec.inputs for e in t.shape if isinstance(e, str)}
    shapes = tuple({i: named[e] for i, e in enumerate(t.shape) if isinstance(e, str)} for t in spec.inputs)
    with _quiet(), torch.no_grad():
        torch.onnx.export(
            _Positional(module).eval(),
            tuple(tensor.clone() for tensor in example),  # inputs traced with the same tensor would be merged
            path,
            dynamo=True,
            input_names=[t.name for t in spec.inputs],
            output_names=[t.name for t in spec.outputs],
            dynamic_shapes=(shapes,) if named else None,
            verbose=False,
        )


def write_graphs(place: Place) -> None:
    """unet.onnx, llm.onnx and embed_tokens.npy of the bundle's profile; PeerError if the weights are not its own."""
    bundle, model = place.bundle, open_reference(place.profile, place.weights)
    with _replacing(place.graphs) as new:
        for name in ("unet", "llm"):
            spec, module = stage(model.dimensions, name), model.stage(name).eval()
            golden = stage_golden(bundle, name)
            _check_weights(bundle, module, spec, golden)
            known = [torch.from_numpy(golden.inputs[tensor.name]) for tensor in spec.inputs]
            export_plain(module, spec, _llm_example(model) if name == "llm" else known, new / graph_file(name))
        np.save(new / EMBEDDINGS, model.embed_tokens.numpy())


def write_gligen(folder: Path) -> None:
    """The graphs and inputs of `gligen_unet`, for our side."""
    model = gligen_model()
    inputs = gligen_inputs(model)
    unet, profile = model.profile.unet, model.profile
    compiled = compile_schedule(profile.sampler, unet.prediction, STEPS)
    coefficients = np.array(step_coefficients(compiled, profile.sampler.order), np.float32)
    schedule = ScheduleTable(compiled.timesteps, compiled.init_scale, coefficients)
    told = {
        "dimensions": asdict(model.dimensions), "schedule": schedule.to_json(),
        "guidance": GUIDANCE, "gate_fraction": unet.gate_fraction,
    }  # fmt: skip
    named = {**inputs, "latents": inputs["noise"], "timestep": torch.tensor([417.0]), "guidance": torch.tensor([2.0])}
    with _replacing(folder) as new:
        for name in ("unet", "unet_plain"):
            spec = stage(model.dimensions, name)
            export_plain(model.stage(name), spec, [named[t.name] for t in spec.inputs], new / graph_file(name))
        spec = stage(model.dimensions, "solver")
        example = [*(inputs["noise"] for _ in spec.inputs[:-1]), torch.ones(len(spec.inputs) - 1)]
        export_plain(model.stage("solver"), spec, example, new / graph_file("solver"))
        np.savez(new / "inputs.npz", allow_pickle=False, **{name: value.numpy() for name, value in inputs.items()})
        (new / "gligen.json").write_text(json.dumps(told) + "\n", encoding="utf-8")


def _llm_example(model: MgccModel) -> list[Tensor]:
    d, embeddings = model.dimensions, model.embed_tokens
    ids = torch.arange(_TRACED["S"]) % d.vocabulary
    past = torch.zeros((1, d.kv_heads, _TRACED["P"], d.head_dim))
    return [embeddings[ids].unsqueeze(0), *(past for _ in past_names(d.layers))]


@torch.no_grad()
def _check_weights(bundle: Bundle, module: nn.Module, spec: StageSpec, golden: StageGolden) -> None:
    found = _Positional(module)(*(torch.from_numpy(golden.inputs[t.name]) for t in spec.inputs))
    off = relative_l2(found[0].numpy(), golden.outputs[spec.outputs[0].name])
    if off > _SAME_WEIGHTS:
        raise PeerError(
            f"stage {spec.name} of bundle {bundle.root} is off by {off:.1e} from the weights of this tree, expected "
            "the same weights; build the bundle again"
        )


@contextlib.contextmanager
def _replacing(folder: Path) -> Iterator[Path]:
    """A new folder that takes the place of `folder` when it is complete, so that no incomplete one is found."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    new = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}."))
    try:
        yield new
        shutil.rmtree(folder, ignore_errors=True)
        os.replace(new, folder)
    finally:
        shutil.rmtree(new, ignore_errors=True)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without torch's progress and its loggers' notes on absent packages."""
    names = ("torch.onnx", "torch.export", "onnxscript", "onnx_ir")
    levels = {name: logging.getLogger(name).level for name in names}
    for name in levels:
        logging.getLogger(name).setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)
