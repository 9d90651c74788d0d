"""The manifest of a bundle: what manifest.json says, as frozen dataclasses."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from mgcc_runtime.contract import DECODE, BoxEdges, Dimensions, DType, Grounder, PromptTemplate, TensorSpec

SCHEMA = 2


@dataclass(frozen=True)
class FileEntry:
    bytes: int
    sha256: str


@dataclass(frozen=True)
class GraphEntry:
    """One graph of a bundle: that of a stage, or the language model's second."""

    file: str
    engine: str
    precision: str


@dataclass(frozen=True)
class StageEntry:
    """One stage's file, the engine that runs it, and its tensors with this bundle's shapes."""

    file: str
    engine: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    decode: GraphEntry | None = None  # of the stage llm alone; None: one graph does both

    @property
    def files(self) -> tuple[str, ...]:
        """The graphs, that of the stage first."""
        return (self.file, self.decode.file) if self.decode else (self.file,)


@dataclass(frozen=True)
class Tokens:
    """Token ids with a meaning: `end` closes a text, `image` are the r [IMG] ids."""

    end: tuple[int, ...]
    image: tuple[int, ...]


@dataclass(frozen=True)
class Vision:
    """Normalisation of the vision encoder's input, per RGB channel, on values in [0, 1]."""

    mean: tuple[float, ...]
    std: tuple[float, ...]


@dataclass(frozen=True)
class Tolerance:
    """How far a stage may be from the reference: cosine at least, relative L2 at most."""

    cosine: float
    relative_l2: float


@dataclass(frozen=True)
class RequestTolerance:
    """How far one whole request may be from the reference's."""

    psnr_db: float = 45.0  # of the image, at least
    token_match: float = 1.0  # share of the text's tokens, from the first on, that are the same
    boxes_equal: bool = True  # the same objects in the layout, at about the same places


@dataclass(frozen=True)
class LayoutRules:
    """What of the grounder's answers is drawn: objects from `presence_threshold` on, moved off each other where two
    share more than `max_overlap` of the smaller one (None: never), with their edges on `box_edges`."""

    presence_threshold: float
    max_overlap: float | None = None
    box_edges: BoxEdges = BoxEdges.FREE


@dataclass(frozen=True)
class InContextRules:
    """Of a bundle whose language model can write layouts."""

    longest_line: int  # characters of a layout's line, at most: as many tokens in the worst case
    token_match: float = 1.0  # share of the golden layout's tokens, from the first on, that are the same on a device


@dataclass(frozen=True)
class LinearPreview:
    """From the C latents of a place to its colours in about [-1, 1]: a cheap likeness of what the decoder makes."""

    weights: tuple[tuple[float, ...], ...]  # (3, C)
    bias: tuple[float, ...]  # (3,)


@dataclass(frozen=True)
class MeasuredOn:
    """The CPU that engines and precisions were chosen on, by measurement; elsewhere others may be faster."""

    cpu: str
    cores: int
    features: tuple[str, ...]  # by Linux's names; see `cpu_features`


@dataclass(frozen=True)
class Manifest:
    schema: int
    profile: str
    target: str
    precision: Mapping[str, str]
    weights: str  # "trained" or "random"
    dimensions: Dimensions
    prompt: PromptTemplate
    tokens: Tokens
    vision: Vision
    layout: LayoutRules
    default_steps: int
    default_guidance: float | None  # None: in the weights of a distilled UNet
    stages: Mapping[str, StageEntry]
    files: Mapping[str, FileEntry]
    built_with: Mapping[str, str]
    built_at: str
    requires: Mapping[str, str]
    memory_estimate_bytes: int
    tolerances: Mapping[str, Tolerance]
    request_tolerance: RequestTolerance = RequestTolerance()
    measured_on: MeasuredOn | None = None  # nothing was measured, or the bundle is older than this field
    preview: LinearPreview | None = None  # there is no decoder, or the bundle is older than this field
    profile_in_file: bool = False  # whether `--profile` takes a file for it, and not its name
    in_context: InContextRules | None = None  # None: the language model is not asked for layouts

    @property
    def grounders(self) -> tuple[Grounder, ...]:
        """What can be asked where objects stand, the usual one first."""
        head = (Grounder.LAYOUT_HEAD,) if self.dimensions.layout_head else ()
        return head if self.in_context is None else (*head, Grounder.IN_CONTEXT)

    def graphs(self) -> dict[str, GraphEntry]:
        """Every graph by the stage's name, the language model's second one as DECODE."""
        found: dict[str, GraphEntry] = {}
        for name, entry in self.stages.items():
            found[name] = GraphEntry(entry.file, entry.engine, self.precision.get(name, "?"))
            if entry.decode is not None:
                found[DECODE] = entry.decode
        return found

    def to_json(self) -> dict[str, Any]:
        return {
            "schema": self.schema,
            "profile": self.profile,
            "target": self.target,
            "precision": dict(self.precision),
            "weights": self.weights,
            "dimensions": self.dimensions.to_json(),
            "prompt": self.prompt.to_json(),
            "tokens": {"end": list(self.tokens.end), "image": list(self.tokens.image)},
            "vision": {"mean": list(self.vision.mean), "std": list(self.vision.std)},
            "layout": asdict(self.layout),
            "sampling": {"steps": self.default_steps, "guidance": self.default_guidance},
            "stages": {name: _stage_to_json(entry) for name, entry in self.stages.items()},
            "files": {name: {"bytes": f.bytes, "sha256": f.sha256} for name, f in self.files.items()},
            "built_with": dict(self.built_with),
            "built_at": self.built_at,
            "requires": dict(self.requires),
            "memory_estimate_bytes": self.memory_estimate_bytes,
            "tolerances": {n: {"cosine": t.cosine, "relative_l2": t.relative_l2} for n, t in self.tolerances.items()},
            "request_tolerance": asdict(self.request_tolerance),
            "measured_on": None if self.measured_on is None else asdict(self.measured_on),
            "preview": None if self.preview is None else asdict(self.preview),
            "profile_in_file": self.profile_in_file,
            **({} if self.in_context is None else {"in_context": asdict(self.in_context)}),
        }

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Manifest:
        """Rebuild from `to_json`; KeyError, TypeError or ValueError where a field is absent or of a wrong form."""
        return cls(
            schema=int(values["schema"]),
            profile=str(values["profile"]),
            target=str(values["target"]),
            precision={str(k): str(v) for k, v in values["precision"].items()},
            weights=str(values["weights"]),
            dimensions=Dimensions.from_json(values["dimensions"]),
            prompt=PromptTemplate.from_json(values["prompt"]),
            tokens=Tokens(tuple(map(int, values["tokens"]["end"])), tuple(map(int, values["tokens"]["image"]))),
            vision=Vision(tuple(map(float, values["vision"]["mean"])), tuple(map(float, values["vision"]["std"]))),
            layout=_layout_rules(values["layout"]),
            default_steps=int(values["sampling"]["steps"]),
            default_guidance=_optional_float(values["sampling"]["guidance"]),
            stages={str(name): _stage_from_json(entry) for name, entry in values["stages"].items()},
            files={str(n): FileEntry(int(f["bytes"]), str(f["sha256"])) for n, f in values["files"].items()},
            built_with={str(k): str(v) for k, v in values["built_with"].items()},
            built_at=str(values["built_at"]),
            requires={str(k): str(v) for k, v in values["requires"].items()},
            memory_estimate_bytes=int(values["memory_estimate_bytes"]),
            tolerances={
                str(n): Tolerance(float(t["cosine"]), float(t["relative_l2"])) for n, t in values["tolerances"].items()
            },
            request_tolerance=RequestTolerance(**values.get("request_tolerance", {})),
            measured_on=_measured_on(values.get("measured_on")),
            preview=_preview(values.get("preview"), int(values["dimensions"]["latent_channels"])),
            profile_in_file=bool(values.get("profile_in_file", False)),
            in_context=_in_context(values.get("in_context")),
        )


def decoding_graph(manifest: Manifest) -> GraphEntry:
    """What reads one new position: the language model's second graph, or its only one."""
    graphs = manifest.graphs()
    return graphs.get(DECODE, graphs["llm"])


def _preview(values: Mapping[str, Any] | None, channels: int) -> LinearPreview | None:
    if values is None:
        return None
    weights = tuple(tuple(map(float, row)) for row in values["weights"])
    bias = tuple(map(float, values["bias"]))
    if [len(row) for row in weights] != [channels] * 3 or len(bias) != 3:
        raise ValueError(f"the preview has {len(weights)} rows and {len(bias)} offsets, expected 3 of {channels}")
    return LinearPreview(weights, bias)


def _measured_on(values: Mapping[str, Any] | None) -> MeasuredOn | None:
    if values is None:
        return None
    return MeasuredOn(str(values["cpu"]), int(values["cores"]), tuple(map(str, values["features"])))


def _in_context(values: Mapping[str, Any] | None) -> InContextRules | None:
    if values is None:
        return None
    return InContextRules(int(values["longest_line"]), float(values["token_match"]))


def _optional_float(value: Any) -> float | None:
    return None if value is None else float(value)


def _stage_to_json(entry: StageEntry) -> dict[str, Any]:
    def tensors(specs: tuple[TensorSpec, ...]) -> list[dict[str, Any]]:
        return [{"name": s.name, "dtype": s.dtype.value, "shape": list(s.shape)} for s in specs]

    values = {
        "file": entry.file,
        "engine": entry.engine,
        "inputs": tensors(entry.inputs),
        "outputs": tensors(entry.outputs),
    }
    return values | ({"decode": asdict(entry.decode)} if entry.decode else {})


def _stage_from_json(values: Mapping[str, Any]) -> StageEntry:
    def tensors(items: list[Mapping[str, Any]]) -> tuple[TensorSpec, ...]:
        return tuple(TensorSpec(str(t["name"]), DType(t["dtype"]), tuple(t["shape"]), "") for t in items)

    found = values.get("decode")
    decode = GraphEntry(*(str(found[name]) for name in ("file", "engine", "precision"))) if found is not None else None
    inputs, outputs = tensors(values["inputs"]), tensors(values["outputs"])
    return StageEntry(str(values["file"]), str(values["engine"]), inputs, outputs, decode)


def _layout_rules(values: Mapping[str, Any]) -> LayoutRules:
    limit = values.get("max_overlap")
    edges = BoxEdges(values.get("box_edges", BoxEdges.FREE))
    return LayoutRules(float(values["presence_threshold"]), None if limit is None else float(limit), edges)
