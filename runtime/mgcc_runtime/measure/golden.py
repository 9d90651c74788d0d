"""A bundle's golden data: the reference's own inputs and outputs, to compare a device with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mgcc_runtime.bundle.folder import REBUILD, Bundle
from mgcc_runtime.engines import Session
from mgcc_runtime.errors import BundleError, InputError
from mgcc_runtime.names import GOLDEN_REQUEST, GOLDEN_REQUEST_ARRAYS, PAST_PREFIX, PRESENT_PREFIX, golden_file
from mgcc_runtime.prompt import Part
from mgcc_runtime.reading import read_json, read_npz
from mgcc_runtime.story import parse_story, story_json

Array = NDArray[Any]
#: Of the names of inputs and outputs in a stage's .npz file.
INPUT, OUTPUT = "in.", "out."
#: The picture in the request's .npz file.
IMAGE = "image"


@dataclass(frozen=True)
class StageGolden:
    """One stage's inputs and the reference's outputs, by name."""

    inputs: Mapping[str, Array]
    outputs: Mapping[str, Array]

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, Array]) -> StageGolden:
        """Rebuild from `arrays`."""
        return cls(*({n[len(p) :]: v for n, v in arrays.items() if n.startswith(p)} for p in (INPUT, OUTPUT)))

    def arrays(self) -> dict[str, Array]:
        """Under their names in the .npz file."""
        inputs = {f"{INPUT}{name}": value for name, value in self.inputs.items()}
        return inputs | {f"{OUTPUT}{name}": value for name, value in self.outputs.items()}


@dataclass(frozen=True)
class RequestGolden:
    """One whole request and what the reference made of it."""

    parts: tuple[Part, ...]
    seed: int
    steps: int
    guidance: float | None
    words: int
    text: str
    token_ids: tuple[int, ...]
    labels: tuple[str, ...]
    scores: tuple[float, ...]  # presence of each object
    boxes: NDArray[np.float64]  # (objects, 4) xyxy in pixels of the output image
    image: NDArray[np.uint8]  # (H, W, 3)
    given: bool = False  # the boxes are part of the request: nothing in the bundle proposes them in a fixed time

    def to_json(self) -> dict[str, Any]:
        """request.json; images are paths in its folder."""
        objects = zip(self.labels, self.boxes.tolist(), self.scores, strict=True)
        return {
            **story_json(self.parts),
            "seed": self.seed,
            "steps": self.steps,
            "guidance": self.guidance,
            "words": self.words,
            "text": self.text,
            "token_ids": list(self.token_ids),
            "boxes": [{"label": label, "xyxy": xyxy, "score": score} for label, xyxy, score in objects],
            **({"given": True} if self.given else {}),
        }

    @classmethod
    def from_json(cls, values: Any, image: NDArray[np.uint8], path: Path) -> RequestGolden:
        """Rebuild from `to_json` of the file `path`; KeyError, TypeError or ValueError for another form."""
        return cls(
            parts=tuple(parse_story({"parts": values["parts"]}, path.parent, str(path))),
            seed=int(values["seed"]),
            steps=int(values["steps"]),
            guidance=None if values["guidance"] is None else float(values["guidance"]),
            words=int(values["words"]),
            text=str(values["text"]),
            token_ids=tuple(map(int, values["token_ids"])),
            labels=tuple(str(box["label"]) for box in values["boxes"]),
            scores=tuple(float(box["score"]) for box in values["boxes"]),
            boxes=np.array([box["xyxy"] for box in values["boxes"]], np.float64).reshape(-1, 4),
            image=image,
            given=bool(values.get("given", False)),
        )


def stage_golden(bundle: Bundle, stage: str) -> StageGolden:
    """BundleError if the bundle has none for this stage."""
    return StageGolden.from_arrays(_load(bundle, golden_file(stage)))


def at_once(session: Session, inputs: Mapping[str, Array]) -> Mapping[str, Array]:
    """A stage's outputs on its golden inputs."""
    return session.run(inputs).arrays


def one_by_one(session: Session, inputs: Mapping[str, Array]) -> Mapping[str, Array]:
    """The language model's outputs as its graph for decoding gives them: position after position, with its own cache.

    Reading in pieces is reading at once, so these are the outputs of all S positions together.
    """
    past = {name: value for name, value in inputs.items() if name != "inputs_embeds"}
    features, found = [], dict[str, Array]()
    for position in range(inputs["inputs_embeds"].shape[1]):
        one = inputs["inputs_embeds"][:, position : position + 1]
        found = dict(session.run({"inputs_embeds": one, **past}).arrays)
        features.append(found["hidden_states"])
        past = {name: found[f"{PRESENT_PREFIX}{name.removeprefix(PAST_PREFIX)}"] for name in past}
    return found | {"hidden_states": np.concatenate(features, axis=1)}


def request_golden(bundle: Bundle) -> RequestGolden:
    """BundleError if the bundle has none or it is of another form."""
    path = bundle.file(GOLDEN_REQUEST)
    values = read_json(path, "golden request")
    arrays = _load(bundle, GOLDEN_REQUEST_ARRAYS)
    try:
        return RequestGolden.from_json(values, arrays[IMAGE], path)
    except (KeyError, TypeError, ValueError) as error:
        raise BundleError(f"golden request {path} is not of the expected form ({error!r}); {REBUILD}") from None


def _load(bundle: Bundle, name: str) -> dict[str, Array]:
    try:
        return read_npz(bundle.file(name), "golden data")
    except InputError as error:
        raise BundleError(f"bundle {bundle.root} is damaged: {error}, or {REBUILD}") from None
