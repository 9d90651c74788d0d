"""Counting a network's work: every matrix product and convolution, with the elements that it reads and writes.

The modules run on PyTorch's meta device: shapes without storage, so the paper's scale costs no memory. Operations
between two products (norms, activations) count as fused into them, and attention as one kernel that does not store
its scores, as in the engines.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from tokenizers import Tokenizer, models
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from mgcc_ref.config import Profile
from mgcc_ref.model import MgccModel, build_llm
from mgcc_ref.networks.unet import PlainUNet
from mgcc_runtime.contract import Dimensions, DType, StageSpec, stages


@dataclass(frozen=True)
class Work:
    """One product: floating-point operations, elements of weights, and other elements read and written."""

    flops: int
    weights: int
    activations: int
    narrow: int = 0  # elements of the weights that an INT4 build stores in 4 bits; the others take 8


#: The smallest block of inputs that share a 4-bit scale, and the fewest channels of a weight in 4 bits.
BLOCK, LEAST_CHANNELS = 64, 16


def narrow_elements(inputs: int, outputs: int) -> int:
    """Elements of a matrix that an INT4 build of this project stores in 4 bits: all or none."""
    return inputs * outputs if inputs % BLOCK == 0 and min(inputs, outputs) >= LEAST_CHANNELS else 0


#: Parameters that `held` leaves out, by the beginning or a part of their names.
_ENCODER = ("autoencoder.encoder.", "autoencoder.quant_conv.")
_GATES = (".fuser.", ".position_net.")


class _Recorder(TorchDispatchMode):
    """Records each product that runs while it is active."""

    def __init__(self, parameters: set[int]) -> None:
        super().__init__()
        self._parameters = parameters
        self.works: list[Work] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        count = flop_registry.get(func._overloadpacket)
        if count is not None:
            flops = count(*args, **(kwargs or {}), out_val=result)
            inputs = [value for value in args if isinstance(value, Tensor)]
            weights = [v for v in inputs if _storage(v) in self._parameters]
            # a linear layer's weight is [inputs, outputs] here; filters of convolutions have more axes
            narrow = sum(narrow_elements(*v.shape) for v in weights if v.dim() == 2)
            outputs = result if isinstance(result, tuple) else (result,)
            others = [v for v in (*inputs, *outputs) if isinstance(v, Tensor) and _storage(v) not in self._parameters]
            elements = sum(v.numel() for v in others)
            self.works.append(Work(int(flops), sum(v.numel() for v in weights), elements, narrow))
        return result


class _FusedAttention(TorchFunctionMode):
    """Counts a whole attention as one product; the meta device would split it into several."""

    def __init__(self, recorder: _Recorder) -> None:
        super().__init__()
        self._recorder = recorder

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is not torch.nn.functional.scaled_dot_product_attention:
            return func(*args, **(kwargs or {}))
        given = {**dict(zip(("query", "key", "value"), args, strict=False)), **(kwargs or {})}
        query, key, value = given["query"], given["key"], given["value"]
        result = query.new_empty((*query.shape[:-1], value.shape[-1]))
        flops = 2 * query[..., 0].numel() * key.shape[-2] * (query.shape[-1] + value.shape[-1])
        elements = sum(t.numel() for t in (query, key, value, result))
        self._recorder.works.append(Work(flops, 0, elements))
        return result


def _storage(tensor: Tensor) -> int:
    """The identity of the storage that a tensor shares with its views."""
    return int(tensor.untyped_storage()._cdata)


def count_work(module: nn.Module, run: Callable[[], Any]) -> tuple[Work, ...]:
    """The products of `run`, a call of `module` on the meta device."""
    parameters = {_storage(t) for t in (*module.parameters(), *module.buffers())}
    with torch.no_grad(), torch.device("meta"), _Recorder(parameters) as recorder, _FusedAttention(recorder):
        run()
    return tuple(recorder.works)


@dataclass(frozen=True)
class Lengths:
    """A request's lengths: context positions, written text tokens, images read, denoising steps."""

    context: int
    text_tokens: int
    images: int
    steps: int


def usual_lengths(steps: int) -> Lengths:
    """The default request for predictions: a turn of some texts and images."""
    return Lengths(context=160, text_tokens=32, images=4, steps=steps)


@dataclass(frozen=True)
class StageWork:
    """One kind of call of a stage, and how often a request makes it."""

    name: str
    calls: int
    works: tuple[Work, ...]


@dataclass(frozen=True)
class NetworkWork:
    """A profile's calls, and the sizes that its memory follows from."""

    calls: tuple[StageWork, ...]
    weights: int  # elements of all stages, shared weights counted in each: neither engines nor sessions share them
    narrow: int  # those of them that an INT4 build stores in 4 bits
    table_bytes: int  # the token embedding table, fp32
    cache_elements: int  # keys and values at the longest context


def count_profile(profile: Profile, lengths: Lengths) -> NetworkWork:
    """The work of a profile's request of these lengths."""
    model = without_weights(profile)
    d = model.dimensions
    specs = {spec.name: spec for spec in stages(d)}
    calls = tuple(
        StageWork(name, times, count_work(model.stage(stage), _call(model.stage(stage), specs[stage], axes)))
        for name, stage, times, axes in request_calls(d, lengths, profile.unet.gate_fraction)
    )
    modules = [model.stage(name) for name in specs]
    weights = sum(t.numel() for module in modules for t in held(module))
    narrow = sum(narrow_parameters(module) for module in modules)
    cache = 2 * d.layers * d.kv_heads * d.head_dim * d.context
    return NetworkWork(calls, weights, narrow, 4 * d.vocabulary * d.hidden, cache)


def request_calls(
    d: Dimensions, lengths: Lengths, gate_fraction: float
) -> list[tuple[str, str, int, Mapping[str, int]]]:
    """A request's calls: name, stage, count and axes of each. The context leaves room for the answer."""
    context = min(lengths.context, d.context - max(lengths.text_tokens, d.image_tokens))
    gated = int(gate_fraction * lengths.steps) if d.gated else lengths.steps
    wanted: list[tuple[str, str, int, Mapping[str, int]]] = [
        ("vision_encoder", "vision_encoder", 1 if lengths.images else 0, {"B": lengths.images}),
        ("llm_prefill", "llm", 1, {"S": context, "P": 0}),
        ("llm_decode", "llm", lengths.text_tokens, {"S": 1, "P": context}),
        ("llm_image_tokens", "llm", 1, {"S": d.image_tokens, "P": context}),
        ("grounder", "grounder", 1, {"S": context}),
        ("refiner", "refiner", 1, {"S": context}),
        ("unet", "unet", gated, {}),
        ("unet_plain", "unet_plain", lengths.steps - gated, {}),
        ("vae_decoder", "vae_decoder", 1, {}),
    ]
    return [call for call in wanted if call[2]]


def held(module: nn.Module) -> list[Tensor]:
    """The parameters in a stage's graph: not the encoder in a VAE decoder's module, nor the gates in a plain UNet's."""
    plain = isinstance(module, PlainUNet)
    return [
        t for name, t in module.named_parameters()
        if not name.startswith(_ENCODER) and not (plain and any(part in name for part in _GATES))
    ]  # fmt: skip


def narrow_parameters(module: nn.Module) -> int:
    """Elements that an INT4 build stores in 4 bits: of a stage's linear layers, and of the token table as its head."""
    found = {id(t) for t in held(module)}
    layers = [
        m.weight for name, m in module.named_modules() if isinstance(m, nn.Linear) or name.endswith("embed_tokens")
    ]
    return sum(narrow_elements(*t.shape[::-1]) for t in {id(t): t for t in layers}.values() if id(t) in found)


def _call(module: nn.Module, spec: StageSpec, axes: Mapping[str, int]) -> Callable[[], Any]:
    types = {DType.FLOAT32: torch.float32, DType.INT64: torch.int64, DType.BOOL: torch.bool}

    def run() -> Any:
        inputs = [torch.empty(_shape(t.shape, axes), dtype=types[t.dtype], device="meta") for t in spec.inputs]
        return module(*inputs)

    return run


def _shape(shape: Sequence[int | str], axes: Mapping[str, int]) -> list[int]:
    return [axes[entry] if isinstance(entry, str) else entry for entry in shape]


def without_weights(profile: Profile) -> MgccModel:
    """The profile's modules on the meta device: shapes without storage."""
    unused = Tokenizer(models.WordLevel({"[UNK]": 0}, unk_token="[UNK]"))
    with torch.device("meta"):
        return MgccModel(profile, build_llm(profile, filled=False), unused, unused).eval()
