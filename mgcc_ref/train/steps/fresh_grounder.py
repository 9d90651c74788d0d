"""Step `grounder` on a GPU: every batch has new, reworded conversations, which the language model reads in the step.

Stored readings (`grounder.py`) suit a CPU, where the language model takes most of the time. A GPU reads 256 requests
while the workers write the next ones, so no conversation is seen twice, and none can be memorised.
"""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import torch
from accelerate import PartialState
from torch import Tensor

from mgcc_ref.config import Profile
from mgcc_ref.model import MgccModel, load_model
from mgcc_ref.prompting import preprocess, prompt_ids
from mgcc_ref.story.wording.phrases import Split
from mgcc_ref.train.features import left_padding_mask
from mgcc_ref.train.fresh_conversations import fresh_conversation
from mgcc_ref.train.grounder_targets import Targets, scene_targets
from mgcc_ref.train.layout_score import LayoutScore, score_layout, total
from mgcc_ref.train.loop import Batch, on_device_of
from mgcc_ref.train.requests import Request, training_conversation
from mgcc_ref.train.steps.grounder import (
    HELD_BACK_CONVERSATIONS,
    HELD_BACK_SEED,
    LAST_POINT_CHANCE,
    WRITTEN_CHANCE,
    GrounderObjective,
    found_layouts,
    picture_of_layouts,
)
from mgcc_ref.train.written_conversations import written_conversation
from mgcc_ref.weights import load_module, save_module

log = logging.getLogger("mgcc.train")

BATCH_SIZE = 256
FRESH_SEED = 20_000_003


class ReadingObjective(GrounderObjective):
    """The grounder's losses on requests given as token ids (B, S), -1 for visual tokens, and pictures (M, 3, H, W)."""

    def __init__(self, model: MgccModel) -> None:
        super().__init__(model.grounder.requires_grad_(True))
        device = PartialState().device
        # in a tuple: the frozen parts are not in this module's state, nor in checkpoints
        self._frozen = (model.llm.to(device), model.vision_encoder.to(device))

    def forward(self, batch: Batch, step: int) -> tuple[Tensor, dict[str, Tensor]]:
        return super().forward({**batch, "features": self.read(batch)}, step)

    @torch.no_grad()
    def read(self, batch: Batch) -> Tensor:
        """f_mm of each request, zero in the padding: (B, S, D_f)."""
        llm, vision_encoder = self._frozen
        ids, mask = batch["ids"], batch["mask"]
        embeds = llm.embed(ids.clamp_min(0))
        if len(batch["pixels"]):
            visual = vision_encoder(batch["pixels"]).flatten(0, 1)
            embeds[ids < 0] = visual.to(embeds.dtype)
        allowed = left_padding_mask(mask, ids.shape[1])
        features, _ = llm.context_features(embeds, llm.empty_cache(len(ids)), allowed)
        read: Tensor = features * mask.unsqueeze(-1)
        return read


class FreshGrounderStep:
    """Starts from a weights folder's CLIP and visual projection, and with --go-on from its grounder."""

    def __init__(self, profile: Profile, weights: Path, batch_size: int | None = None) -> None:
        self.model = load_model(profile, weights)
        self._labels = self.model.label_embeddings.clone()  # before the towers move to the GPU
        self.objective = ReadingObjective(self.model)
        self.head = self.objective.head
        self._batch_size = batch_size or BATCH_SIZE
        held_back = (training_conversation(HELD_BACK_SEED, i, Split.VALIDATION) for i in range(HELD_BACK_CONVERSATIONS))
        self.held_back = [c.request(len(c.points) - 1) for c in held_back]

    def batch(self, rng: np.random.Generator) -> Batch:
        drawn: list[Request] = []
        while len(drawn) < self._batch_size:
            make = written_conversation if rng.random() < WRITTEN_CHANCE else fresh_conversation
            conversation = make(FRESH_SEED, int(rng.integers(2**62)))
            last = len(conversation.points) - 1
            drawn.append(
                conversation.request(last if rng.random() < LAST_POINT_CHANCE else int(rng.integers(last + 1)))
            )
        return self._packed(drawn)

    def _packed(self, requests: list[Request]) -> dict[str, Tensor]:
        every = [prompt_ids(self.model, r.parts) for r in requests]
        longest = max(map(len, every))
        ids = torch.zeros(len(every), longest, dtype=torch.int64)
        mask = torch.zeros(len(every), longest, dtype=torch.bool)
        for b, found in enumerate(every):
            ids[b, longest - len(found) :] = torch.tensor(found)
            mask[b, longest - len(found) :] = True
        pictures = [part for r in requests for part in r.parts if not isinstance(part, str)]
        size = self.model.profile.clip.image_px
        pixels = torch.cat([preprocess(p, self.model) for p in pictures]) if pictures else torch.zeros(0, 3, size, size)
        targets = [
            scene_targets(self.model, r, len(found), self._labels) for r, found in zip(requests, every, strict=True)
        ]
        return {"ids": ids, "mask": mask, "pixels": pixels, **Targets.packed(targets)}

    def _layouts(self, requests: list[Request]) -> list[list[tuple[str, tuple[float, float, float, float]]]]:
        batch = on_device_of(self.head, self._packed(requests))
        return found_layouts(self.model, self._labels, self.head(self.objective.read(batch), batch["mask"]))

    def evaluate(self) -> dict[str, float]:
        """The scores of `GrounderStep`, in fp32."""
        scores: dict[str, list[LayoutScore]] = {"": [], "texts_": []}
        for start in range(0, len(self.held_back), 50):
            requests = self.held_back[start : start + 50]
            for request, layout in zip(requests, self._layouts(requests), strict=True):
                scores["" if request.image_scenes else "texts_"].append(score_layout(layout, request))
        return {kind + k: v for kind, values in scores.items() if values for k, v in total(values).items()}

    def picture(self, path: Path) -> None:
        """Eight held-back scenes with the predicted boxes drawn in white."""
        requests = self.held_back[:8]
        picture_of_layouts([r.target for r in requests], self._layouts(requests), path)

    def save_weights(self, folder: Path) -> list[Path]:
        return [save_module(self.head, folder / "grounder.safetensors")]

    def load_weights(self, folder: Path) -> None:
        load_module(self.head, folder / "grounder.safetensors")
