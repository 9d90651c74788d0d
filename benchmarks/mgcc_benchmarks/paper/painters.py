"""The painters: a bundle through the runtime, or the PyTorch reference; both draw from texts and pictures in order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Literal, Protocol

from PIL import Image

from mgcc_benchmarks.storybench.painters import Oracle, bundle_identity, weights_digest
from mgcc_runtime import BoxMode, Pipeline
from mgcc_runtime.errors import PromptError

Parts = Sequence[str | Image.Image]


@dataclass(frozen=True)
class Asked:
    """How each picture is drawn; None stands for the value of the bundle or profile."""

    steps: int | None = None
    guidance: float | None = None
    boxes: BoxMode = BoxMode.AUTO  # GILL knows no boxes

    def numbers(self, steps: int, guidance: float | None) -> dict[str, float | None]:
        """The numbers in force, given the model's own."""
        asked = self.guidance if self.guidance is not None else guidance
        return {"steps": self.steps or steps, "guidance": asked}

    def __str__(self) -> str:
        guidance = "" if self.guidance is None else f", guidance {self.guidance:g}"
        return f"{guidance}, boxes {self.boxes.value}"


class Painter(Protocol):
    @property
    def identity(self) -> str:
        """All that the pictures depend on, so that those of two painters are never mixed."""

    @property
    def numbers(self) -> dict[str, float | None]:
        """Steps and guidance, those asked for or the model's own."""

    def draw(self, parts: Parts, seed: int) -> Image.Image:
        """The next picture; InputError if these parts cannot be read, such as too long a prompt."""

    def __enter__(self) -> Painter: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class BundlePainter:
    """A bundle, through the public API."""

    def __init__(self, root: Path, asked: Asked, threads: int) -> None:
        """BundleError or EngineError if the bundle cannot be used."""
        self._pipeline, self._asked = Pipeline.load(root, threads=threads), asked
        manifest = self._pipeline.bundle.manifest
        self.identity = bundle_identity(manifest, Oracle.NOTHING, asked.steps) + str(asked)
        self.numbers = asked.numbers(manifest.default_steps, manifest.default_guidance)

    def draw(self, parts: Parts, seed: int) -> Image.Image:
        asked = self._asked
        return self._pipeline.generate(
            list(parts), seed=seed, steps=asked.steps, guidance=asked.guidance, words=0, boxes=asked.boxes
        ).image

    def __enter__(self) -> BundlePainter:
        return self

    def __exit__(self, *_: object) -> None:
        self._pipeline.close()


class ReferencePainter:
    """`mgcc_ref` in eager PyTorch."""

    def __init__(self, profile: str, weights: Path | Literal["random"] | None, asked: Asked) -> None:
        """WeightsError if weights are missing or not the profile's."""
        from mgcc_ref.model import load_model
        from mgcc_ref.pipeline import ReferencePipeline

        model = load_model(profile, weights)
        self._pipeline, self._asked = ReferencePipeline(model), asked
        sampler = model.profile.sampler
        self.numbers = asked.numbers(sampler.default_steps, sampler.default_guidance)
        steps = f", {asked.steps} steps" if asked.steps else ""
        self.identity = f"reference {model.profile.name} {weights_digest(model)}{steps}{asked}"

    def draw(self, parts: Parts, seed: int) -> Image.Image:
        asked = self._asked
        try:
            return self._pipeline.generate(
                list(parts), seed=seed, steps=asked.steps, guidance=asked.guidance, words=0,
                boxes=() if asked.boxes is BoxMode.NONE else None,
            ).image  # fmt: skip
        except ValueError as error:  # too long a prompt
            raise PromptError(str(error)) from None

    def __enter__(self) -> ReferencePainter:
        return self

    def __exit__(self, *_: object) -> None:
        pass
