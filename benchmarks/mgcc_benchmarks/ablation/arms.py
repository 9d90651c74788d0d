"""The arms of the ablation: GILL alone, with CMRM, with COGM, with both; and two ceilings that are given the truth.

Two arms have a CMRM that does not read a position's distance from the end: the paper does not say that its does.

All arms share the frozen language model, the vision tower and the noise of an item. Arms with boxes share the UNet;
arms without boxes share one that is trained without them (`mgcc_ref/networks/caption_unet.py`). The other modules are
trained with equal data and steps, once per seed: `[IMG]` tokens and mapper with or without CMRM blocks, and the
grounder. GILL learns more slowly than the others, so two more arms train it for three times the steps with the first
seed: alone, and with that seed's grounder. They separate the gain of CMRM from that of training time.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor, nn

from mgcc_benchmarks.storybench.painters import Drawn, true_boxes
from mgcc_ref.config import Refinement, RefinerConfig
from mgcc_ref.model import Alignment, load_model
from mgcc_ref.networks.caption_unet import CaptionUNet
from mgcc_ref.networks.grounder import LayoutHead
from mgcc_ref.networks.llm import ImageTokens
from mgcc_ref.networks.refiner import Refiner
from mgcc_ref.networks.unet import GroundedUNet
from mgcc_ref.pipeline import Context, GroundedObject, Layout, ReferencePipeline, to_image
from mgcc_ref.sampling import Told, sample_guided
from mgcc_ref.schedule import compile_schedule
from mgcc_ref.story.bench import BenchItem
from mgcc_ref.story.captions import canonical_caption
from mgcc_ref.weights import load_module, require_file

LONGER_TIMES = 3  # the steps of the longer arms, in those of the others


class Arm(enum.Enum):
    """One way to draw an item. The last two are given the truth: no arm with their UNet can do better."""

    GILL = "GILL"
    GILL_LONGER = f"GILL, {LONGER_TIMES} times the steps"
    CMRM_UNORDERED = "GILL + CMRM without the distance"
    CMRM = "GILL + CMRM"
    COGM = "GILL + COGM"
    COGM_LONGER = f"GILL, {LONGER_TIMES} times the steps + COGM"
    BOTH_UNORDERED = "GILL + CMRM without the distance + COGM"
    BOTH = "GILL + CMRM + COGM"
    TRUE_CAPTION = "true caption, no boxes"
    TRUE_LAYOUT = "true caption, true boxes"

    @property
    def refined(self) -> bool:
        return self.ordered or self in (Arm.CMRM_UNORDERED, Arm.BOTH_UNORDERED)

    @property
    def ordered(self) -> bool:
        """Whether its CMRM reads the distance from the end."""
        return self in (Arm.CMRM, Arm.BOTH)

    def refiner(self, config: RefinerConfig) -> RefinerConfig:
        """Its refiner: `config`, or that without blocks or without the distance."""
        if not self.refined:
            return replace(config, cmrm_blocks=0)
        return config if self.ordered else replace(config, refinement=Refinement.UNORDERED)

    @property
    def boxed(self) -> bool:
        """Whether its UNet takes boxes."""
        return self.grounded or self is Arm.TRUE_LAYOUT

    @property
    def grounded(self) -> bool:
        return self in (Arm.COGM, Arm.COGM_LONGER, Arm.BOTH_UNORDERED, Arm.BOTH)

    @property
    def ceiling(self) -> Arm:
        """The same UNet, told the truth."""
        return Arm.TRUE_LAYOUT if self.boxed else Arm.TRUE_CAPTION

    @property
    def longer(self) -> bool:
        return self in LONGER_ARMS


TRAINED_ARMS = (Arm.GILL, Arm.CMRM_UNORDERED, Arm.CMRM, Arm.COGM, Arm.BOTH_UNORDERED, Arm.BOTH)
LONGER_ARMS = (Arm.GILL_LONGER, Arm.COGM_LONGER)
CEILINGS = (Arm.TRUE_CAPTION, Arm.TRUE_LAYOUT)

ALIGNMENT_FILE, GROUNDER_FILE = "alignment.safetensors", "grounder.safetensors"
CAPTION_UNET_FILE = "caption_unet.safetensors"


@dataclass(frozen=True)
class Variant:
    """One arm with one seed's modules; ceilings have no seed."""

    arm: Arm
    seed: int | None

    @property
    def name(self) -> str:
        return self.arm.name.lower() if self.seed is None else f"{self.arm.name.lower()}-{self.seed}"


def variants(seeds: Sequence[int]) -> tuple[Variant, ...]:
    trained = [Variant(arm, seed) for seed in seeds for arm in TRAINED_ARMS]
    longer = [Variant(arm, seeds[0]) for arm in LONGER_ARMS]  # one seed is enough to show the gain of more steps
    return (*trained, *longer, *(Variant(arm, None) for arm in CEILINGS))


def alignment_folder(folder: Path, arm: Arm, seed: int) -> Path:
    """Weights folder of the alignment run of an arm; arms that differ in the grounder alone share it."""
    refined = "cmrm" if arm.ordered else "cmrm-unordered"
    kind = refined if arm.refined else "gill-longer" if arm.longer else "gill"
    return folder / f"weights-{kind}-{seed}"


def grounder_folder(folder: Path, seed: int) -> Path:
    """Weights folder of one grounder run."""
    return folder / f"weights-grounder-{seed}"


def caption_unet_folder(folder: Path) -> Path:
    """Weights folder of the UNet that draws without boxes; all arms without a grounder share it."""
    return folder / "weights-caption-unet"


@dataclass(frozen=True)
class _Imagination:
    """The modules that turn a context into conditioning: `[IMG]` tokens, CMRM (or none) and mapper."""

    tokens: ImageTokens
    refiner: Refiner


class ArmsPainter:
    """Draws an item with every variant in one batch: the language model reads it once.

    `folder` holds the weights folders of all arms; WeightsError names a missing file. `steps` counts denoising steps.
    """

    def __init__(self, folder: Path, seeds: Sequence[int], *, profile: str = "story", steps: int = 20) -> None:
        self.folder, self.steps = folder, steps
        self.model = load_model(profile)
        self.variants = variants(seeds)
        self.pipeline = ReferencePipeline(self.model)
        aligned = [(v, alignment_folder(folder, v.arm, v.seed)) for v in self.variants if v.seed is not None]
        self._aligned = dict(aligned)
        # several variants share a folder, and its modules
        arms = {path: variant.arm for variant, path in aligned}
        self._imaginations = {path: self._imagination(path, arm) for path, arm in arms.items()}
        self._grounders = {seed: self._grounder(folder, seed) for seed in seeds}
        self._unets = {True: self.model.unet, False: self._caption_unet(folder)}  # by whether there are boxes
        sampler = self.model.profile.sampler
        assert sampler.default_guidance is not None, "arms are compared with the teacher"
        self.guidance = sampler.default_guidance
        self._table = compile_schedule(sampler, self.model.profile.unet.prediction, steps)

    @property
    def trained_files(self) -> list[Path]:
        """Every file of weights that was trained for an arm."""
        aligned = [path / ALIGNMENT_FILE for path in self._imaginations]
        grounders = [grounder_folder(self.folder, seed) / GROUNDER_FILE for seed in self._grounders]
        return [*aligned, *grounders, caption_unet_folder(self.folder) / CAPTION_UNET_FILE]

    def parameters(self) -> dict[str, int]:
        """The trained parameters of each arm that has any: `[IMG]` tokens, refiner and grounder."""
        found = {}
        for variant, path in self._aligned.items():
            modules: list[nn.Module] = [self._imaginations[path].tokens, self._imaginations[path].refiner]
            modules += [self._grounders[variant.seed]] if variant.arm.grounded and variant.seed is not None else []
            found[variant.arm.value] = sum(p.numel() for module in modules for p in module.parameters())
        return found

    def _imagination(self, folder: Path, arm: Arm) -> _Imagination:
        model, profile = self.model, self.model.profile
        config = arm.refiner(profile.refiner)
        tokens = ImageTokens(profile.image_tokens, profile.llm.hidden)
        features, width = profile.llm.feature_dim, profile.clip.text_hidden
        refiner = Refiner(config, features, profile.llm.hidden, profile.clip.text_positions, width)
        path = folder / ALIGNMENT_FILE
        require_file(path)
        kept = model.llm.image_tokens, model.refiner
        model.llm.image_tokens, model.refiner = tokens, refiner
        load_module(Alignment(model), path)  # the visual projection is the same in all: it is solved, not trained
        model.llm.image_tokens, model.refiner = kept
        return _Imagination(tokens.eval(), refiner.eval())

    def _grounder(self, folder: Path, seed: int) -> LayoutHead:
        profile = self.model.profile
        head = LayoutHead(
            profile.grounder,
            profile.llm.feature_dim,
            profile.llm.hidden,
            profile.max_objects,
            self.model.label_embeddings,
        )
        path = grounder_folder(folder, seed) / GROUNDER_FILE
        require_file(path)
        load_module(head, path)
        return head.eval()

    def _caption_unet(self, folder: Path) -> CaptionUNet:
        profile, clip = self.model.profile, self.model.profile.clip
        width, labels = clip.text_hidden, len(self.model.labels)
        unet = CaptionUNet(profile.unet, width, clip.text_positions, width, labels)
        path = caption_unet_folder(folder) / CAPTION_UNET_FILE
        require_file(path)
        load_module(unet, path)
        return unet.eval()

    @torch.no_grad()
    def draw(self, item: BenchItem, seed: int, chosen: Sequence[Variant] | None = None) -> dict[Variant, Drawn]:
        """The item's picture by each of the `chosen` variants (default: all), all from the same noise."""
        chosen = self.variants if chosen is None else chosen
        context = self.pipeline.read(item.inputs())
        paths = dict.fromkeys(self._aligned[v] for v in chosen if v in self._aligned)
        imagined = {path: self._imagine(context, self._imaginations[path]) for path in paths}
        seeds = dict.fromkeys(v.seed for v in chosen if v.arm.grounded and v.seed is not None)
        grounded = {seed: self._ground(context, self._grounders[seed]) for seed in seeds}
        truth = self.model.encode_captions([canonical_caption(item.target)])
        nothing = self.pipeline.layout_of(())
        right = self.pipeline.layout_of([GroundedObject(label, box, 1.0) for label, box in true_boxes(item.target)])
        told: dict[Variant, tuple[Tensor, Layout]] = {}
        for variant in chosen:
            if variant.seed is None:
                told[variant] = truth, right if variant.arm is Arm.TRUE_LAYOUT else nothing
            else:
                layout = grounded[variant.seed] if variant.arm.grounded else nothing
                told[variant] = imagined[self._aligned[variant]], layout
        images = self._images(self.pipeline.initial_noise(seed), told)
        return {
            variant: Drawn(images[variant], tuple((thing.label, thing.box) for thing in layout.objects), None)
            for variant, (_, layout) in told.items()
        }

    def _images(self, noise: Tensor, told: Mapping[Variant, tuple[Tensor, Layout]]) -> dict[Variant, Image.Image]:
        """The picture of each variant, by the UNet of its kind."""
        found: dict[Variant, Image.Image] = {}
        for boxed, unet in self._unets.items():
            ours = [variant for variant in told if variant.arm.boxed is boxed]
            if ours:
                images = self._denoise(unet, noise, [told[variant] for variant in ours])
                found |= dict(zip(ours, images, strict=True))
        return found

    def _imagine(self, context: Context, imagination: _Imagination) -> Tensor:
        kept = self.model.llm.image_tokens, self.model.refiner
        self.model.llm.image_tokens, self.model.refiner = imagination.tokens, imagination.refiner
        try:
            return self.pipeline.refine(context)
        finally:
            self.model.llm.image_tokens, self.model.refiner = kept

    def _ground(self, context: Context, head: LayoutHead) -> Layout:
        kept, self.model.grounder = self.model.grounder, head
        try:
            return self.pipeline.ground(context)
        finally:
            self.model.grounder = kept

    def _denoise(self, unet: GroundedUNet, noise: Tensor, told: Sequence[tuple[Tensor, Layout]]) -> list[Image.Image]:
        """Guided denoising of several variants at once, by the compiled schedule."""
        layouts = [layout for _, layout in told]
        x_T = (noise * self._table.init_scale).expand(len(told), -1, -1, -1)
        every = Told(
            torch.cat([conditioning for conditioning, _ in told]),
            *(torch.cat(of_one) for of_one in zip(*(layout.told() for layout in layouts), strict=True)),
        )
        *_, latents = sample_guided(unet, self._table, x_T, every, guidance=self.guidance)
        return [to_image(self.model.vae_decoder(x.unsqueeze(0))) for x in latents]
