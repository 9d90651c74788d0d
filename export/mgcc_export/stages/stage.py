"""From a loaded model: each stage's module, its spec, and inputs like those it meets in use."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from mgcc_export.errors import UnavailableError
from mgcc_export.graphs.to_onnx import trace_lengths
from mgcc_ref.model import MgccModel
from mgcc_runtime.contract import Axis, Dimensions, DType, StageSpec, TensorSpec, past_names, stages

#: Prompts of the language model are compared up to this many positions: longer ones take long on the same axes.
LLM_VALUE_POSITIONS = 512
#: One decode step at the very end of the context is compared, too (positions may have tables that end there), but not
#: of a model so large that reading the context before it takes minutes.
LARGE_PARAMETERS = 400_000_000

#: Lengths of the golden data: small files, and no length that could be mistaken for another.
GOLDEN_LENGTHS: Mapping[str, int] = {"B": 2, "S": 6, "P": 5, "T": 11}

#: A denoising step is compared at the schedule's noisy end, in the middle and at its clean end: what a time embedding
#: or a gate gets wrong may show at one of them alone.
COMPARED_TIMESTEPS = (999, 417, 1)
_SCALARS = {"timestep": float(COMPARED_TIMESTEPS[1]), "guidance": 2.0}


@dataclass(frozen=True)
class Stage:
    """A stage to be exported."""

    spec: StageSpec
    module: nn.Module
    axes: Mapping[str, Axis]

    @property
    def name(self) -> str:
        return self.spec.name


def collect_stages(model: MgccModel, names: Sequence[str] = ()) -> list[Stage]:
    """The model's stages in the pipeline's order, only those named if any are; UnavailableError for an unknown name."""
    specs = choose_specs(model.profile.name, model.dimensions, names)
    return [Stage(spec, model.stage(spec.name).eval(), model.dimensions.axes) for spec in specs]


def choose_specs(profile: str, dimensions: Dimensions, names: Sequence[str]) -> list[StageSpec]:
    """The profile's stages of these names, all of them if none is given; UnavailableError for an unknown name."""
    every = {s.name: s for s in stages(dimensions)}
    if unknown := [n for n in names if n not in every]:
        raise UnavailableError(f"profile {profile} has no stage {', '.join(unknown)}; choose from {', '.join(every)}")
    return [spec for name, spec in every.items() if not names or name in names]


def input_axes(spec: StageSpec) -> list[str]:
    """Names of the dynamic axes of the stage's inputs, in order of appearance."""
    return list(dict.fromkeys(e for t in spec.inputs for e in t.shape if isinstance(e, str)))


def value_cases(stage: Stage) -> list[dict[str, int]]:
    """Axis lengths at which values are compared: minimum, middle and maximum of each dynamic axis.

    Where the shapes are fixed and there is a timestep, its value takes their place. With a cache (P) the maximum is
    reached in two ways, one long prefill (P = 0) and one decode step (S = 1), since P + S may not exceed the context.
    """
    names = input_axes(stage.spec)
    if not names:
        timed = any(t.name == "timestep" for t in stage.spec.inputs)
        return [{"timestep": t} for t in COMPARED_TIMESTEPS] if timed else [{}]
    if "P" not in names:
        ends = [{n: getattr(stage.axes[n], end) for n in names} for end in ("minimum", "optimum", "maximum")]
        return [dict(case) for case in dict.fromkeys(tuple(sorted(e.items())) for e in ends)]
    longest = min(stage.axes["T"].maximum, LLM_VALUE_POSITIONS)
    usual = min(stage.axes["S"].optimum, longest // 2)
    least = stage.axes["S"].minimum
    pairs = [(least, 0), (least, 1), (usual, usual)]
    if sum(p.numel() for p in stage.module.parameters()) <= LARGE_PARAMETERS:
        pairs.append((least, stage.axes["T"].maximum - least))
    pairs += [(longest, 0), (least, longest - least)]
    return [{"S": s, "P": p, "T": s + p} for s, p in dict.fromkeys(pairs)]


def cases_note(stage: Stage, compared: Iterable[Mapping[str, int]]) -> str:
    """How far the lengths at which values were `compared` stay behind the longest, in words; empty if they do not."""
    lengths, inputs = list(compared), input_axes(stage.spec)
    units = {"B": "images", "T" if "P" in inputs else "S": "positions"}
    notes = []
    for axis, unit in units.items():
        if axis not in inputs and axis != "T":
            continue
        longest = max((one[axis] for one in lengths if axis in one), default=stage.axes[axis].maximum)
        if longest < stage.axes[axis].maximum:
            notes.append(f"values compared up to {longest} of {stage.axes[axis].maximum} {unit}")
    prompt = max((one["S"] for one in lengths if "P" in one), default=stage.axes["S"].maximum)
    if prompt < stage.axes["S"].maximum and not notes:  # decode steps went on to the end
        notes.append(f"values of prompts compared up to {prompt} of {stage.axes['S'].maximum} positions")
    return "; ".join(notes)


class ExampleMaker:
    """Seeded inputs for any stage, with the statistics of real ones.

    Caches and features come from the language model itself on random tokens: its first position carries
    activations a thousand times the rest, which plain noise would never show.
    """

    def __init__(self, model: MgccModel, seed: int = 0) -> None:
        self.model, self.seed = model, seed
        self._features: dict[int, Tensor] = {}

    def trace_inputs(self, stage: Stage) -> list[Tensor]:
        """Inputs to trace the stage with."""
        return self.inputs(stage.spec, trace_lengths(stage.spec, stage.axes))

    def inputs(self, spec: StageSpec, lengths: Mapping[str, int]) -> list[Tensor]:
        """One tensor an input, in the contract's order, at these axis lengths (and timestep, where one is given)."""
        generator = torch.Generator().manual_seed(self.seed)
        cache = self._cache(lengths["P"]) if "P" in input_axes(spec) else {}
        found = []
        for tensor in spec.inputs:
            shape = tuple(lengths[e] if isinstance(e, str) else e for e in tensor.shape)
            if tensor.name in _SCALARS:
                value = torch.full(shape, float(lengths.get(tensor.name, _SCALARS[tensor.name])))
            else:
                value = cache[tensor.name] if tensor.name in cache else self._value(tensor, shape, generator)
            found.append(value.reshape(shape))
        return found

    def _value(self, tensor: TensorSpec, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
        model, name = self.model, tensor.name
        if tensor.dtype is DType.BOOL:
            return torch.arange(shape[-1]).expand(shape) < max(1, shape[-1] * 3 // 4)  # the tail is padding
        if tensor.dtype is DType.INT64:
            return torch.randint(0, model.profile.clip.text_vocabulary, shape, generator=generator)
        if name == "inputs_embeds":
            return self._embeddings(shape[1], generator)
        if name in ("context_features", "image_features"):
            return self._features_of(shape[1])
        if name == "boxes":
            corners = torch.rand((*shape[:-1], 2, 2), generator=generator)
            return corners.sort(dim=-2).values.flatten(-2)  # x1 <= x2, y1 <= y2
        if name == "box_mask":
            return (torch.arange(shape[-1]) < (shape[-1] + 1) // 2).float().expand(shape).clone()
        if name == "phrase_embeddings" and model.labels:
            rows = torch.randint(0, len(model.labels), shape[:-1], generator=generator)
            return model.label_embeddings[rows]
        return torch.randn(shape, generator=generator)

    def _embeddings(self, count: int, generator: torch.Generator) -> Tensor:
        """Rows of the embedding table of random tokens: (1, count, D)."""
        ids = torch.randint(0, self.model.dimensions.vocabulary, (1, count), generator=generator)
        return self.model.embed_tokens[ids]

    def _cache(self, length: int) -> dict[str, Tensor]:
        """The language model's cache after `length` random tokens, by input name."""
        past = self.model.llm.empty_cache()
        if length:
            generator = torch.Generator().manual_seed(self.seed + 1)
            with torch.inference_mode():
                past = self.model.llm(self._embeddings(length, generator), *past)[2:]
        return dict(zip(past_names(len(past) // 2), past, strict=True))

    def _features_of(self, length: int) -> Tensor:
        """The language model's hidden states on `length` random tokens: (1, length, D_f)."""
        if length not in self._features:
            generator = torch.Generator().manual_seed(self.seed + 2)
            with torch.inference_mode():
                embeddings = self._embeddings(length, generator)
                self._features[length] = self.model.llm(embeddings, *self.model.llm.empty_cache())[1]
        return self._features[length].clone()
