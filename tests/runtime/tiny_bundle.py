"""Makes a small but real bundle with the `onnx` package: every stage is an ONNX graph that the engine runs.

The networks compute nothing useful, but each output depends on each input, the language model is causal and
its cache counts (reading in pieces = reading at once), so that mistakes in the runtime show.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from mgcc_runtime.bundle import folder as b
from mgcc_runtime.contract import (
    Dimensions,
    DType,
    PromptTemplate,
    StageSpec,
    past_names,
    present_names,
    stage,
    stages,
)
from mgcc_runtime.names import MANIFEST

DIMENSIONS = Dimensions(
    images=2, vision_px=8, visual_tokens=4, image_tokens=8, hidden=16, features=16, layers=2, kv_heads=2, head_dim=8,
    vocabulary=268, context=160, conditioning_tokens=6, conditioning=12, objects=3, phrase=10, latent_channels=2,
    latent_px=4, image_px=32, gated=False, distilled=False, phrase_encoder=False,
    solver_order=2,
)  # fmt: skip
TEMPLATE = PromptTemplate(
    opening="<|start|>", user_open="<|start|>u ", user_close="<|end|>", assistant_open="<|start|>a ",
    assistant_close="<|end|>", separator=" ", image_open="<", image_close=">",
)  # fmt: skip
LABELS = ("cat", "dog", "sailboat", "tree")
STEPS = (1, 2, 4)
_ENGINES = {"solver": "host"}  # of stages that another plays than ONNX Runtime
_ELEMENTS = {DType.FLOAT32: TensorProto.FLOAT, DType.INT64: TensorProto.INT64, DType.BOOL: TensorProto.BOOL}


@dataclass
class Graph:
    """Collects nodes and seeded constants; each method returns the name of its output."""

    rng: np.random.Generator
    nodes: list[Any] = field(default_factory=list)
    constants: list[Any] = field(default_factory=list)

    def op(self, kind: str, *inputs: str, out: str = "", **attributes: Any) -> str:
        out = out or f"n{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, list(inputs), [out], **attributes))
        return out

    def const(self, value: Any, dtype: Any = np.float32) -> str:
        name = f"c{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.asarray(value, dtype), name))
        return name

    def ints(self, *values: int) -> str:
        return self.const(values, np.int64)

    def linear(self, x: str, inner: int, outer: int) -> str:
        return self.op("MatMul", x, self.const(self.rng.normal(0, inner**-0.5, (inner, outer))))

    def pooled(self) -> str:
        """Mean of context_features (1, S, D_f) where context_mask counts: (1, D_f)."""
        weight = self.op("Unsqueeze", self.op("Cast", "context_mask", to=TensorProto.FLOAT), self.ints(2))
        total = self.op("ReduceSum", self.op("Mul", "context_features", weight), self.ints(1), keepdims=0)
        return self.op("Div", total, self.op("ReduceSum", weight, self.ints(1), keepdims=0))


def vision_encoder(g: Graph, d: Dimensions) -> None:
    flat = g.op("Reshape", "pixel_values", g.ints(-1, 3 * d.vision_px**2))
    tokens = g.linear(flat, 3 * d.vision_px**2, d.visual_tokens * d.hidden)
    g.op("Reshape", tokens, g.ints(-1, d.visual_tokens, d.hidden), out="visual_tokens")


def llm(g: Graph, d: Dimensions) -> None:
    x, inner = "inputs_embeds", d.kv_heads * d.head_dim
    for i in range(d.layers):
        news = {}
        for part in ("key", "value"):
            split = g.op("Reshape", g.linear(x, d.hidden, inner), g.ints(1, -1, d.kv_heads, d.head_dim))
            new = g.op("Transpose", split, perm=[0, 2, 1, 3])
            news[part] = new
            g.op("Concat", f"past_key_values.{i}.{part}", new, out=f"present.{i}.{part}", axis=2)
        # a causal mixture: the sum of all values so far, the cache's included, gated by the own key
        before = g.op("ReduceSum", f"past_key_values.{i}.value", g.ints(2), keepdims=1)
        mixed = g.op("Add", g.op("CumSum", news["value"], g.const(2, np.int64)), before)
        mixed = g.op("Mul", mixed, g.op("Tanh", news["key"]))
        joined = g.op("Reshape", g.op("Transpose", mixed, perm=[0, 2, 1, 3]), g.ints(1, -1, inner))
        x = g.op("Tanh", g.op("Add", x, g.linear(joined, inner, d.hidden)))
    g.op("Identity", x, out="hidden_states")
    last = g.op("Slice", x, g.ints(-1), g.ints(2**62), g.ints(1))
    g.op("MatMul", last, g.const(g.rng.normal(0, 1, (d.hidden, d.vocabulary))), out="logits")


def refiner(g: Graph, d: Dimensions) -> None:
    mixed = g.op("Add", "image_features", g.op("Unsqueeze", g.pooled(), g.ints(1)))
    queries = g.op("MatMul", g.const(g.rng.normal(0, 1, (1, d.conditioning_tokens, d.image_tokens))), mixed)
    g.op("Tanh", g.linear(queries, d.features, d.conditioning), out="conditioning")


def grounder(g: Graph, d: Dimensions) -> None:
    pooled = g.pooled()
    corners = []
    for offset in (0.0, 0.5):  # the first corner in the upper left quarter, the second in the lower right one
        half = g.op("Mul", g.op("Sigmoid", g.linear(pooled, d.features, 2 * d.objects)), g.const(0.5))
        corners.append(g.op("Reshape", g.op("Add", half, g.const(offset)), g.ints(1, d.objects, 2)))
    g.op("Concat", *corners, out="boxes", axis=2)
    steps = g.op("Softplus", g.linear(pooled, d.features, d.objects))
    falling = g.op("CumSum", g.op("Neg", steps), g.const(1, np.int64))
    # 0.9, then less with each object: the first is always there, the later ones now and then
    g.op("Mul", g.op("Exp", g.op("Mul", falling, g.const(0.3))), g.const(0.9), out="presence0")
    first = np.eye(1, d.objects, dtype=np.float32)
    g.op("Max", "presence0", g.const(first * 0.8), out="presence")
    phrases = g.linear(pooled, d.features, d.objects * d.phrase)
    g.op("Reshape", phrases, g.ints(1, d.objects, d.phrase), out="phrase_embeddings")
    scores = g.linear("context_features", d.features, d.objects)
    g.op("Softmax", g.op("Transpose", scores, perm=[0, 2, 1]), out="pointers", axis=2)


def unet(g: Graph, d: Dimensions, *, grounded: bool = True) -> None:
    size = d.latent_channels * d.latent_px**2
    x = g.linear(g.op("Reshape", "latents", g.ints(1, size)), size, size)
    names = [("conditioning", d.conditioning_tokens * d.conditioning)]
    if grounded:
        names += [("boxes", 4 * d.objects), ("box_mask", d.objects), ("phrase_embeddings", d.objects * d.phrase)]
    for name, length in names:
        x = g.op("Add", x, g.linear(g.op("Reshape", name, g.ints(1, length)), length, size))
    x = g.op("Add", x, g.op("Mul", "timestep", g.const(1e-3)))
    x = g.op("Tanh", g.op("Add", x, g.op("Mul", "guidance", g.const(0.1))))
    g.op("Reshape", x, g.ints(1, d.latent_channels, d.latent_px, d.latent_px), out="prediction")


def solver(g: Graph, d: Dimensions) -> None:
    *names, _ = (t.name for t in stage(d, "solver").inputs)
    split = [f"coefficient.{i}" for i in range(len(names))]
    g.nodes.append(helper.make_node("Split", ["coefficients"], split, axis=0, num_outputs=len(names)))
    terms = [g.op("Mul", name, factor) for name, factor in zip(names, split, strict=True)]
    g.op("Sum", *terms, out="next_latents")
    size = g.op("Reshape", g.op("ReduceL1", "next_latents", keepdims=0), g.ints(1))
    g.op("Less", size, g.const(1e38), out="finite")


def vae_decoder(g: Graph, d: Dimensions) -> None:
    scale = d.image_px // d.latent_px
    kernel = g.const(g.rng.normal(0, 0.5, (d.latent_channels, 3, scale, scale)))
    g.op("ConvTranspose", "latents", kernel, out="image", strides=[scale, scale])


def phrase_encoder(g: Graph, d: Dimensions) -> None:
    table = g.const(g.rng.normal(0, 1, (d.vocabulary, d.phrase)))
    g.op("ReduceMean", g.op("Gather", table, "input_ids"), g.ints(1), out="phrase_embedding", keepdims=0)


_MAKERS = {f.__name__: f for f in (vision_encoder, llm, refiner, grounder, unet, solver, vae_decoder, phrase_encoder)}
_MAKERS["unet_plain"] = lambda g, d: unet(g, d, grounded=False)


def make_stage(spec: StageSpec, d: Dimensions, seed: int = 0) -> onnx.ModelProto:
    """The stage's graph with its contract's names, types and axes; checked by onnx."""
    g = Graph(np.random.default_rng([seed, len(spec.name)]))
    _MAKERS[spec.name](g, d)
    return assemble(spec, g)


def assemble(spec: StageSpec, g: Graph) -> onnx.ModelProto:
    values = [
        [helper.make_tensor_value_info(t.name, _ELEMENTS[t.dtype], list(t.shape)) for t in tensors]
        for tensors in (spec.inputs, spec.outputs)
    ]
    graph = helper.make_graph(g.nodes, spec.name, *values, initializer=g.constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.checker.check_model(model)
    return model


def make_tokenizer() -> Tokenizer:
    """One token a byte, so that any text can be said and a character may take several tokens."""
    alphabet = {c: i for i, c in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    tokenizer = Tokenizer(models.BPE(alphabet, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(["<|start|>", "<|end|>"])  # ids 256 and 257
    return tokenizer


def make_schedule() -> dict[str, Any]:
    """Euler steps of dx = -prediction."""
    tables = {
        str(n): {
            "timesteps": [1000 * (1 - i / n) for i in range(n)],
            "init_scale": 1.0,
            "coefficients": [[1.0, 0.0, -1 / n, 0.0]] * n,
        }
        for n in STEPS
    }
    return {
        "schema": 2, "prediction": "epsilon", "scheduler": "Euler", "default_steps": 4, "gate_fraction": 0.3,
        "tables": tables,
    }  # fmt: skip


def make_manifest(d: Dimensions) -> b.Manifest:
    return b.Manifest(
        schema=b.SCHEMA, profile="test", target="cpu", precision={s.name: "fp32" for s in stages(d)},
        weights="random", dimensions=d, prompt=TEMPLATE, tokens=b.Tokens((257,), tuple(range(258, 266))),
        vision=b.Vision((0.5, 0.5, 0.5), (0.25, 0.25, 0.25)), layout=b.LayoutRules(0.5, 0.12), default_steps=4,
        default_guidance=2.0,
        stages={
            s.name: b.StageEntry(f"{s.name}.onnx", _ENGINES.get(s.name, "onnxruntime"), s.inputs, s.outputs)
            for s in stages(d)
        },
        files={}, built_with={"onnx": onnx.__version__}, built_at="2026-01-01T00:00:00+00:00",
        requires={"runtime": ">=0.1"}, memory_estimate_bytes=10_000_000,
        tolerances={s.name: b.Tolerance(0.99999, 1e-3) for s in stages(d)},
    )  # fmt: skip


def make_bundle(root: Path, d: Dimensions = DIMENSIONS, labels: tuple[str, ...] = LABELS) -> Path:
    """Write a whole bundle without golden data; see `seal` and `golden`."""
    rng = np.random.default_rng(5)
    root.mkdir(parents=True)
    for spec in stages(d):
        onnx.save(make_stage(spec, d), root / f"{spec.name}.onnx")
    make_tokenizer().save(str(root / "tokenizer.json"))
    np.save(root / "embed_tokens.npy", rng.normal(0, 1, (d.vocabulary, d.hidden)).astype(np.float32))
    if labels:
        (root / "labels.json").write_text(json.dumps({"labels": labels}))
        np.save(root / "label_embeddings.npy", rng.normal(0, 1, (len(labels), d.phrase)).astype(np.float32))
    if d.phrase_encoder:
        tokenizer = make_tokenizer()
        tokenizer.enable_truncation(d.conditioning_tokens)
        tokenizer.enable_padding(length=d.conditioning_tokens, pad_id=257)
        tokenizer.save(str(root / "phrase_tokenizer.json"))
    (root / "schedule.json").write_text(json.dumps(make_schedule()))
    return seal(root, make_manifest(d))


def seal(root: Path, manifest: b.Manifest) -> Path:
    """Write the manifest with the sizes and hashes of the files as they are now."""
    files = {
        path.relative_to(root).as_posix(): b.FileEntry(path.stat().st_size, b.sha256_of(path))
        for path in sorted(root.rglob("*"))
        if path.is_file() and path.name != MANIFEST
    }
    b.write_manifest(root, replace(manifest, files=files))
    return root


def reseal(root: Path) -> Path:
    """After a change of files on purpose."""
    return seal(root, b.read_manifest(root))


def cache_names(d: Dimensions) -> list[tuple[str, str]]:
    """Pairs of a past's name and the present's that follows it."""
    return list(zip(past_names(d.layers), present_names(d.layers), strict=True))
