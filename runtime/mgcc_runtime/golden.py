"""A bundle's golden data: the reference's own inputs and outputs, to compare a device with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mgcc_runtime.bundle import REBUILD, Bundle
from mgcc_runtime.engines import Session
from mgcc_runtime.errors import BundleError, InputError
from mgcc_runtime.prompt import Part
from mgcc_runtime.reading import read_json, read_npz
from mgcc_runtime.story import parse_story

Array = NDArray[Any]


@dataclass(frozen=True)
class StageGolden:
    """One stage's inputs and the reference's outputs, by name."""

    inputs: dict[str, Array]
    outputs: dict[str, Array]


@dataclass(frozen=True)
class RequestGolden:
    """One whole request and what the reference made of it."""

    parts: tuple[Part, ...]
    seed: int
    steps: int
    guidance: float | None
    words: int
    token_ids: tuple[int, ...]
    labels: tuple[str, ...]
    boxes: NDArray[np.float64]  # (objects, 4) xyxy in pixels of the output image
    image: NDArray[np.uint8]  # (H, W, 3)


def stage_golden(bundle: Bundle, stage: str) -> StageGolden:
    """BundleError if the bundle has none for this stage."""
    arrays = _load(bundle, f"golden/{stage}.npz")
    return StageGolden(
        {name[3:]: value for name, value in arrays.items() if name.startswith("in.")},
        {name[4:]: value for name, value in arrays.items() if name.startswith("out.")},
    )


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
        past = {name: found[f"present.{name.removeprefix('past_key_values.')}"] for name in past}
    return found | {"hidden_states": np.concatenate(features, axis=1)}


def request_golden(bundle: Bundle) -> RequestGolden:
    """BundleError if the bundle has none or it is of another form."""
    path = bundle.file("golden/request.json")
    values = read_json(path, "golden request")
    arrays = _load(bundle, "golden/request.npz")
    try:
        return RequestGolden(
            parts=tuple(parse_story({"parts": values["parts"]}, path.parent, str(path))),
            seed=int(values["seed"]),
            steps=int(values["steps"]),
            guidance=None if values["guidance"] is None else float(values["guidance"]),
            words=int(values["words"]),
            token_ids=tuple(map(int, values["token_ids"])),
            labels=tuple(str(box["label"]) for box in values["boxes"]),
            boxes=np.array([box["xyxy"] for box in values["boxes"]], np.float64).reshape(-1, 4),
            image=arrays["image"],
        )
    except (KeyError, TypeError, ValueError) as error:
        raise BundleError(f"golden request {path} is not of the expected form ({error!r}); {REBUILD}") from None


def _load(bundle: Bundle, name: str) -> dict[str, Array]:
    try:
        return read_npz(bundle.file(name), "golden data")
    except InputError as error:
        raise BundleError(f"bundle {bundle.root} is damaged: {error}, or {REBUILD}") from None
