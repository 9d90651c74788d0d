"""What a bundle can be asked for: options of requests, checked against it and filled in with its defaults."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from mgcc_runtime.bundle.folder import Bundle
from mgcc_runtime.contract import Grounder
from mgcc_runtime.decoding import TextOptions
from mgcc_runtime.denoise import Schedule
from mgcc_runtime.errors import InputError, LayoutError, OptionError
from mgcc_runtime.layout import Box, BoxMode, parse_boxes
from mgcc_runtime.options import check_word
from mgcc_runtime.picture.phrases import PhraseBook
from mgcc_runtime.request import Boxes, Preview, RedrawOptions, Request, RequestOptions, box_mode
from mgcc_runtime.scene import Scene

if TYPE_CHECKING:
    from typing import Unpack  # novm: Python 3.11; checkers alone read it


@dataclass(frozen=True)
class Abilities:
    """Of one bundle; its methods raise an InputError that names what cannot be used."""

    bundle: Bundle
    schedule: Schedule
    phrases: PhraseBook

    def request(self, **options: Unpack[RequestOptions]) -> Request:
        """The options of `Pipeline.stream`."""
        _check_names(options, RequestOptions)
        manifest = self.bundle.manifest
        usual: dict[str, Any] = {
            "steps": manifest.default_steps, "guidance": manifest.default_guidance, "text": TextOptions(),
            "grounder": manifest.grounders[0],
        }  # fmt: skip
        return self._checked(Request(**(usual | self._given(options, usual))))

    def other_request(self, scene: Scene, **options: Unpack[RedrawOptions]) -> Request:
        """The options of `Pipeline.stream_redraw`; None: as the scene's request has it."""
        _check_names(options, RedrawOptions)
        if scene.bundle != self.bundle.digest:
            raise InputError("the scene is another bundle's, expected one that this pipeline drew; draw it here first")
        given = self._given(options, ("seed", "steps", "guidance", "boxes"))
        if given.get("boxes") is BoxMode.AUTO:
            raise LayoutError(
                "boxes is 'auto', which takes a reading, and a picture is drawn again without; give a list or 'none', "
                "or leave them out to keep them as they are"
            )
        unseen = replace(scene.request, preview_every=0, preview=Preview.EXACT)  # of previews nothing is kept
        return self._checked(replace(unseen, **given), scene.labels)

    def _given(self, options: Mapping[str, object], may_be_none: Collection[str]) -> dict[str, Any]:
        """The options that were given, words and boxes as what they stand for."""
        given: dict[str, Any] = {name: o for name, o in options.items() if o is not None or name not in may_be_none}
        self._check_guidance(given.get("guidance"))
        if "boxes" in given:
            given["boxes"] = self._boxes(given["boxes"])
        if "preview" in given:
            given["preview"] = self._preview(given["preview"])
        if "grounder" in given:
            given["grounder"] = self._grounder(given["grounder"])
        return given

    def _checked(self, request: Request, known: Mapping[str, str] = MappingProxyType({})) -> Request:
        """The request, whose steps the schedule has and whose boxes the bundle can draw."""
        self.schedule.table(request.steps)
        if isinstance(request.boxes, tuple):
            self.phrases.check(request.boxes, known)
        return request

    def _check_guidance(self, guidance: float | None) -> None:
        if guidance is not None and self.bundle.manifest.dimensions.distilled:
            raise OptionError(f"guidance is {guidance}, but this bundle's UNet has it in its weights; leave it out")

    def _preview(self, preview: Preview | str) -> Preview:
        kind = check_word("preview", Preview, preview)
        if kind is Preview.LINEAR and self.bundle.manifest.preview is None:
            raise OptionError(
                "preview is 'linear', but this bundle has no map for it; take 'exact', or rebuild the bundle"
            )
        return kind

    def _grounder(self, grounder: object) -> Grounder:
        kind, has = check_word("grounder", Grounder, grounder), self.bundle.manifest.grounders
        if kind not in has:
            raise OptionError(
                f"grounder is {kind.value!r}, but this bundle has {has[0].value} alone; leave it out, or build one "
                "with `--grounder both`"
            )
        return kind

    def _boxes(self, boxes: Boxes) -> BoxMode | tuple[Box, ...]:
        mode = box_mode(boxes)
        return parse_boxes(boxes, self.bundle.manifest.dimensions.image_px) if mode is None else mode


def _check_names(options: Mapping[str, object], known: type) -> None:
    """TypeError for an option that there is none of, as Python raises it for a keyword."""
    if unknown := sorted(options.keys() - known.__annotations__.keys()):
        raise TypeError(f"unexpected option {', '.join(unknown)}, expected some of {', '.join(known.__annotations__)}")
