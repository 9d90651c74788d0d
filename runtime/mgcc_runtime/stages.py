"""The stages of an opened bundle as typed calls; every tensor in and out is as `contract.py` says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mgcc_runtime.bundle.folder import Bundle
from mgcc_runtime.contract import DECODE, present_names, stages
from mgcc_runtime.denoise import solver_feeds
from mgcc_runtime.device.heap import return_freed_memory
from mgcc_runtime.engines import Array, EngineOptions, Feed, KeptTensor, Session, host_array, open_session
from mgcc_runtime.engines.checks import check_finite
from mgcc_runtime.errors import StageValueError
from mgcc_runtime.kv_cache import KvCache
from mgcc_runtime.layout import Layout

Floats = NDArray[np.float32]

_PREDICTION = ("prediction",)


@dataclass(frozen=True)
class LlmStep:
    """What the language model gave for S new positions."""

    logits: Floats  # (V,) of the last position
    features: Floats  # (1, S, D_f)
    cache: KvCache


class Stages:
    """Opens every stage of a bundle with the engine that its manifest names."""

    def __init__(self, bundle: Bundle, options: EngineOptions) -> None:
        self.dimensions = d = bundle.manifest.dimensions
        self.sessions: dict[str, Session] = {}
        self._present = present_names(d.layers)
        try:
            for spec in stages(d):
                entry = bundle.manifest.stages[spec.name]
                self.sessions[spec.name] = open_session(entry.engine, bundle.file(entry.file), spec, options)
                if (one := entry.decode) is not None:
                    self.sessions[DECODE] = open_session(one.engine, bundle.file(one.file), spec, options)
        except BaseException:
            self.close()
            raise
        return_freed_memory()

    def close(self) -> None:
        with ExitStack() as closing:  # each of them, whatever another raises
            for session in self.sessions.values():
                closing.callback(session.close)

    @property
    def images_at_once(self) -> int:
        """The most images that `see` takes."""
        return min(self.dimensions.images, self.sessions["vision_encoder"].at_once.images)

    @property
    def positions_at_once(self) -> int:
        """The most positions that `read` should be given, so that a request can be cancelled in time."""
        return self.sessions["llm"].at_once.positions

    def see(self, pixels: Floats) -> Floats:
        """pixel_values (B, 3, H_v, W_v), B up to `images_at_once` -> visual tokens (B, k, D)."""
        found: Floats = self.sessions["vision_encoder"].run({"pixel_values": pixels})["visual_tokens"]
        return found

    def read(self, embeddings: Floats, cache: KvCache) -> LlmStep:
        """Pass embeddings (1, S, D) through the language model, going on from `cache`.

        One position alone takes the graph for decoding, where the bundle has one; both read each other's caches.
        """
        feeds: dict[str, Feed] = {"inputs_embeds": embeddings, **cache.feeds()}
        name = DECODE if embeddings.shape[1] == 1 and DECODE in self.sessions else "llm"
        outputs = self.sessions[name].run(feeds, keep=self._present)
        return LlmStep(outputs["logits"][0, 0], outputs["hidden_states"], cache.extended(outputs, embeddings.shape[1]))

    def refine(self, image_features: Floats, context_features: Floats) -> Floats:
        """Features at the [IMG] positions and of the whole context -> conditioning (1, N_c, D_c)."""
        feeds = {"image_features": image_features, **_context(context_features)}
        return self.sessions["refiner"].run(feeds)["conditioning"]

    def ground(self, context_features: Floats) -> Mapping[str, Array]:
        """Features of the whole context -> the grounder's outputs by name."""
        return self.sessions["grounder"].run(_context(context_features)).arrays

    def predict(
        self, latents: Feed, timestep: float, guidance: float | None, conditioning: Floats, layout: Layout | None
    ) -> KeptTensor:
        """One evaluation of the UNet, left in its engine; no layout: the UNet without grounding, which only gated
        bundles have.

        `guidance` is None for a distilled UNet, which has it in its weights.
        """
        feeds: dict[str, Feed] = {
            "latents": latents,
            "timestep": np.array([timestep], np.float32),
            "conditioning": conditioning,
        }
        if guidance is not None:
            feeds["guidance"] = np.array([guidance], np.float32)
        if layout is None:
            return self.sessions["unet_plain"].run(feeds, keep=_PREDICTION).kept["prediction"]
        feeds |= {
            "boxes": layout.boxes,
            "box_mask": layout.box_mask,
            "phrase_embeddings": layout.phrase_embeddings,
        }
        return self.sessions["unet"].run(feeds, keep=_PREDICTION).kept["prediction"]

    def advance(self, coefficients: Floats, latents: Sequence[Feed], predictions: Sequence[Feed]) -> KeptTensor:
        """One step of the solver, left in its engine; StageValueError if the UNet gave NaN or infinity."""
        session = self.sessions["solver"]
        outputs = session.run(solver_feeds(session.spec, coefficients, latents, predictions), keep=("next_latents",))
        if not outputs["finite"][0]:
            unet = "unet or unet_plain" if self.dimensions.gated else "unet"
            check_finite(unet, "prediction", host_array(predictions[0]))
            raise StageValueError(
                "stage solver gave NaN or infinity of finite predictions, expected finite latents; run `mgcc verify`"
            )
        return outputs.kept["next_latents"]

    def decode(self, latents: Feed) -> Floats:
        """x_0 -> (1, 3, H, W) in about [-1, 1]."""
        return self.sessions["vae_decoder"].run({"latents": latents})["image"]

    def encode_phrase(self, input_ids: NDArray[np.int64]) -> Floats:
        """input_ids (1, N_c) -> phrase embedding (D_p,)."""
        found: Floats = self.sessions["phrase_encoder"].run({"input_ids": input_ids})["phrase_embedding"][0]
        return found


def _context(features: Floats) -> dict[str, Array]:
    return {"context_features": features, "context_mask": np.ones(features.shape[:2], np.bool_)}
