"""The tensor contract: every stage's inputs and outputs, declared once, as data.

Export axes, TensorRT profiles, runtime buffers, golden data, tests and the table of docs/method.md derive from
`stages(dimensions)`. A shape entry is an int (fixed) or the name of a dynamic axis of `Dimensions.axes`.
"""

from __future__ import annotations

import enum
import re
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

from mgcc_runtime.names import PAST_PREFIX, PRESENT_PREFIX, SCHEDULE

Shape = tuple["int | str", ...]

#: The one input more than the contract's of an `llm` graph whose cache is a buffer that it writes in place:
#: int64 (1,), how many positions of the buffer count. Engines fill it in; callers never see it.
PAST_LENGTH = "past_length"

#: The language model's second graph, of the same tensors, for calls with one new position; a bundle may have one.
DECODE = "llm_decode"

#: Stages without weights, which nothing would be saved of: in fp32 at every precision.
WITHOUT_WEIGHTS = frozenset({"solver"})

#: How many iterates a step of the solver looks at: the latents, and those before.
SOLVER_LATENTS = 2


class DType(str, enum.Enum):
    """Element type of a tensor at a stage's boundary."""

    FLOAT32 = "float32"
    INT64 = "int64"
    BOOL = "bool"


@dataclass(frozen=True)
class Axis:
    """A dynamic axis: the least, usual and largest length that a stage must take."""

    name: str
    minimum: int
    optimum: int
    maximum: int

    def __post_init__(self) -> None:
        if not 0 <= self.minimum <= self.optimum <= self.maximum:
            raise ValueError(f"axis {self.name}: {self.minimum} <= {self.optimum} <= {self.maximum} does not hold")


@dataclass(frozen=True)
class TensorSpec:
    name: str
    dtype: DType
    shape: Shape
    meaning: str


@dataclass(frozen=True)
class StageSpec:
    name: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    meaning: str
    steady: tuple[str, ...] = ()  # inputs that are the same in all calls of a request


@dataclass(frozen=True)
class Dimensions:
    """All lengths of one profile, under the letters of the contract's table."""

    images: int  # the most images of one vision_encoder call
    vision_px: int  # H_v = W_v
    visual_tokens: int  # k
    image_tokens: int  # r
    hidden: int  # D
    features: int  # D_f
    layers: int
    kv_heads: int  # H_kv
    head_dim: int  # d
    vocabulary: int  # V, the [IMG] tokens included
    context: int  # the most positions of the language model
    conditioning_tokens: int  # N_c
    conditioning: int  # D_c
    objects: int  # N
    phrase: int  # D_p
    latent_channels: int  # C
    latent_px: int  # h = w
    image_px: int  # H = W
    gated: bool  # GLIGEN gates: adds unet_plain
    phrase_encoder: bool
    distilled: bool  # a few-step UNet with guidance in its weights: no guidance input, one branch
    solver_order: int  # how many predictions a step of the solver looks at
    layout_head: bool = True  # there is a stage `grounder`

    @property
    def axes(self) -> dict[str, Axis]:
        """Dynamic axes by name. P + S never exceeds `context`; the runtime checks the sum."""
        usual = min(128, self.context // 2)
        return {
            "B": Axis("B", 1, min(4, self.images), self.images),
            "S": Axis("S", 1, usual, self.context),
            "P": Axis("P", 0, usual, self.context),
            "T": Axis("T", 1, 2 * usual, self.context),  # T = P + S, of the keys and values that come out
        }

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Dimensions:
        """Rebuild from `to_json`; KeyError names the first field that is absent, TypeError one of another form."""
        values = {"layout_head": True, **values}  # bundles from before it could be left out do not say it
        found = {f.name: values[f.name] for f in fields(cls)}
        for f in fields(cls):
            kind = bool if f.type == "bool" else int
            if type(found[f.name]) is not kind or found[f.name] < 0:
                raise TypeError(f"{f.name} is {found[f.name]!r}")
        return cls(**found)


def _float(name: str, shape: Shape, meaning: str) -> TensorSpec:
    return TensorSpec(name, DType.FLOAT32, shape, meaning)


def past_names(layers: int) -> list[str]:
    """Names of the cache inputs, in the order of the stage's inputs."""
    return [f"{PAST_PREFIX}{i}.{part}" for i in range(layers) for part in ("key", "value")]


def present_names(layers: int) -> list[str]:
    """Names of the cache outputs, matching `past_names` one to one."""
    return [f"{PRESENT_PREFIX}{i}.{part}" for i in range(layers) for part in ("key", "value")]


def stages(d: Dimensions) -> tuple[StageSpec, ...]:
    """Every stage of a profile with these dimensions, in the order of the pipeline."""
    found = [_vision_encoder(d), _llm(d), _refiner(d)]
    if d.layout_head:
        found.append(_grounder(d))
    found.append(_unet(d, grounded=True))
    if d.gated:
        found.append(_unet(d, grounded=False))
    found += [_solver(d), _vae_decoder(d)]
    if d.phrase_encoder:
        found.append(_phrase_encoder(d))
    return tuple(found)


def stage(d: Dimensions, name: str) -> StageSpec:
    """The stage called `name`; KeyError if the profile has none of that name."""
    return {s.name: s for s in stages(d)}[name]


def _vision_encoder(d: Dimensions) -> StageSpec:
    return StageSpec(
        "vision_encoder",
        (_float("pixel_values", ("B", 3, d.vision_px, d.vision_px), "RGB, normalised as the manifest says"),),
        (_float("visual_tokens", ("B", d.visual_tokens, d.hidden), "in the language model's embedding space"),),
        "frozen CLIP vision tower and projection",
    )


def _llm(d: Dimensions) -> StageSpec:
    cache = (1, d.kv_heads, "P", d.head_dim)
    grown = (1, d.kv_heads, "T", d.head_dim)
    return StageSpec(
        "llm",
        (
            _float("inputs_embeds", (1, "S", d.hidden), "token embeddings, visual tokens, [IMG] embeddings"),
            *(_float(n, cache, "cache before; positions go on from P") for n in past_names(d.layers)),
        ),
        (
            _float("logits", (1, 1, d.vocabulary), "of the last position"),
            _float("hidden_states", (1, "S", d.features), "the feature layers, concatenated"),
            *(_float(n, grown, "cache after, T = P + S") for n in present_names(d.layers)),
        ),
        "frozen language model, one causal pass over S new positions",
    )


def _context(d: Dimensions) -> tuple[TensorSpec, TensorSpec]:
    return (
        _float("context_features", (1, "S", d.features), "f_mm: hidden states of the whole context"),
        TensorSpec("context_mask", DType.BOOL, (1, "S"), "true where a position counts"),
    )


def _refiner(d: Dimensions) -> StageSpec:
    return StageSpec(
        "refiner",
        (_float("image_features", (1, d.image_tokens, d.features), "f_I: at the [IMG] positions"), *_context(d)),
        (_float("conditioning", (1, d.conditioning_tokens, d.conditioning), "stands for the text encoder's output"),),
        "cross-modal refinement and mapper",
    )


def _grounder(d: Dimensions) -> StageSpec:
    return StageSpec(
        "grounder",
        _context(d),
        (
            _float("boxes", (1, d.objects, 4), "xyxy in [0, 1]"),
            _float("presence", (1, d.objects), "probability, falling"),
            _float("phrase_embeddings", (1, d.objects, d.phrase), "in the phrase encoder's space"),
            _float("pointers", (1, d.objects, "S"), "probability over context positions"),
        ),
        "contextual object grounding",
    )


def _unet(d: Dimensions, *, grounded: bool) -> StageSpec:
    latents = (1, d.latent_channels, d.latent_px, d.latent_px)
    inputs = [_float("latents", latents, "x_t"), _float("timestep", (1,), "of the training schedule")]
    if not d.distilled:
        inputs.append(_float("guidance", (1,), "scale of classifier-free guidance; both branches run inside"))
    inputs.append(_float("conditioning", (1, d.conditioning_tokens, d.conditioning), "from the refiner"))
    if grounded:
        inputs += [
            _float("boxes", (1, d.objects, 4), "xyxy in [0, 1]"),
            _float("box_mask", (1, d.objects), "1 where there is an object, else 0"),
            _float("phrase_embeddings", (1, d.objects, d.phrase), "what is in each box"),
        ]
    outputs = (_float("prediction", latents, "guided prediction (epsilon or v, as the schedule was compiled for)"),)
    name = "unet" if grounded else "unet_plain"
    steady = tuple(t.name for t in inputs[2:])
    return StageSpec(name, tuple(inputs), outputs, "one denoising step" + ("" if grounded else ", gates off"), steady)


def _solver(d: Dimensions) -> StageSpec:
    latents = (1, d.latent_channels, d.latent_px, d.latent_px)
    return StageSpec(
        "solver",
        (
            *(_float(f"latents.{i}", latents, "x_t, newest first") for i in range(SOLVER_LATENTS)),
            *(_float(f"prediction.{i}", latents, "the UNet's, newest first") for i in range(d.solver_order)),
            _float("coefficients", (SOLVER_LATENTS + d.solver_order,), f"of these, from {SCHEDULE}"),
        ),
        (
            _float("next_latents", latents, "x_t of the next step"),
            TensorSpec("finite", DType.BOOL, (1,), "true if all of them are finite numbers"),
        ),
        "one step of a linear multistep method",
    )


def _vae_decoder(d: Dimensions) -> StageSpec:
    return StageSpec(
        "vae_decoder",
        (_float("latents", (1, d.latent_channels, d.latent_px, d.latent_px), "x_0"),),
        (_float("image", (1, 3, d.image_px, d.image_px), "RGB in about [-1, 1]; the caller clips"),),
        "latents to pixels",
    )


def _phrase_encoder(d: Dimensions) -> StageSpec:
    return StageSpec(
        "phrase_encoder",
        (TensorSpec("input_ids", DType.INT64, (1, d.conditioning_tokens), "phrase, padded"),),
        (_float("phrase_embedding", (1, d.phrase), "pooled"),),
        "the UNet's text encoder, on one phrase",
    )


def most_tokens(words: int) -> int:
    """How many tokens a text of up to `words` words may take: a model that writes no spaces still ends."""
    return 4 * words + 8 if words > 0 else 0


_WORD = re.compile(r"\w+(?:[-']\w+)*")


def words_at(text: str, offsets: Sequence[tuple[int, int]]) -> tuple[str, ...]:
    """For each token text[start:end] the whole word that it is a part of; "" for punctuation and spaces."""
    found = list(_WORD.finditer(text))
    ends = [match.end() for match in found]
    words = []
    for start, end in offsets:
        i = bisect_right(ends, start)  # the first word that ends after the token's start
        words.append(found[i][0] if i < len(found) and found[i].start() < end else "")
    return tuple(words)


def pointed_word(pointer: Sequence[float], words: Sequence[str]) -> str:
    """What an object is called where there is no label list: the user's word at the position that `pointer` selects.

    `words` has an entry for each position, "" in images and in the template, which are passed over.
    """
    sayable = (position for position, word in enumerate(words) if word)
    chosen = max(sayable, key=pointer.__getitem__, default=None)
    return "object" if chosen is None else words[chosen]


class Grounder(str, enum.Enum):
    """What says where objects stand."""

    LAYOUT_HEAD = "layout-head"  # a learned head on the context's features: the stage `grounder`
    IN_CONTEXT = "in-context"  # the language model writes the layout after worked examples (the paper's)


class BoxEdges(str, enum.Enum):
    """Where the edges of the grounder's boxes lie when they are drawn. A user's own boxes stay where they are."""

    FREE = "free"
    WHOLE_PIXELS = "whole_pixels"  # of the output image: for a UNet that has seen no others


@dataclass(frozen=True)
class BareView:
    """Of a picture without things: what is taken of it when a thing stands out of the way."""

    box: tuple[float, float, float, float]  # of that thing: xyxy in [0, 1]
    columns: tuple[float, float]  # what is taken, from left to right, in [0, 1]

    def of(self, latent_px: int) -> slice:
        """The same columns of latents of this width."""
        start, end = (round(edge * latent_px) for edge in self.columns)
        return slice(start, end)


#: How a UNet with a layout map draws nothing but the background. In training every picture had things in it, and a map
#: without boxes stood for things that nobody told of, so that it makes some up: a smear of colours (12 to 48 dB from
#: the background, story). Around a thing that it is told of it draws the background alone. So each half is predicted
#: with a thing in the other one (45 to 51 dB), at two evaluations a step.
BARE_VIEWS = (
    BareView((0.75, 0.375, 1.0, 0.625), (0.0, 0.5)),
    BareView((0.0, 0.375, 0.25, 0.625), (0.5, 1.0)),
)

#: What that thing is, of a bundle without a list of labels; with one it is the first of the list.
STAND_IN = "ball"


@dataclass(frozen=True)
class PromptTemplate:
    """The fixed texts around the parts of a prompt; `mgcc_ref` trains with the same ones that the runtime sends.

    A request is `opening + user_open + parts joined by separator + user_close + assistant_open`; an image stands
    as `image_open`, its k visual tokens, `image_close`. The r [IMG] tokens are appended to that, and text is
    decoded from the same place, without them.
    """

    opening: str
    user_open: str
    user_close: str
    assistant_open: str
    assistant_close: str
    separator: str
    image_open: str
    image_close: str

    def to_json(self) -> dict[str, str]:
        return asdict(self)

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> PromptTemplate:
        """Rebuild from `to_json`; KeyError names the first field that is absent, TypeError one that is no text."""
        found = {f.name: values[f.name] for f in fields(cls)}
        for name, text in found.items():
            if not isinstance(text, str):
                raise TypeError(f"{name} of the prompt is {text!r}")
        return cls(**found)
