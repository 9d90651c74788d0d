"""Step `align`: visual projection, [IMG] tokens, CMRM and mapper, around the frozen language model.

The visual projection comes from `visual_projection.py`, trained once for all steps. Then the [IMG] embeddings, the
CMRM and the mapper learn to predict the text tower's output for the target's canonical caption (L2, as in GILL). The
contexts are read once, and their caches are kept on disk. So a training step passes only the eight [IMG] tokens through
the language model, with gradient.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from mgcc_ref.config import Profile, Refinement
from mgcc_ref.model import Alignment, MgccModel, load_untrained
from mgcc_ref.story.captions import canonical_caption
from mgcc_ref.story.wording.phrases import Split
from mgcc_ref.story.world.scene import Background
from mgcc_ref.train.context_store import ContextStore
from mgcc_ref.train.features import left_padding_mask, read_requests
from mgcc_ref.train.loop import Batch, TrainingPrecision, frozen_arithmetic, on_device_of
from mgcc_ref.train.requests import Request, training_request
from mgcc_ref.train.setting_conversations import setting_request
from mgcc_ref.train.visual_projection import fit_visual_projection, word_embedding
from mgcc_ref.weights import load_module, save_module

log = logging.getLogger("mgcc.train")

GROUPS, HELD_BACK_GROUPS = 300, 6
BACKGROUND_TOKEN = 1  # the background is a caption's first word, and determines the whole picture
BACKGROUND_WEIGHT = 12.0  # of that token in the loss
SEED, HELD_BACK_SEED = 5_000_003, 6_000_003


def gill_loss(given: Tensor, wanted: Tensor) -> Tensor:
    """GILL's loss (arXiv 2305.17216, as in its code): the mean over tokens of the error's Euclidean norm, not squared.

    Both conditionings are (B, N_c, D_c).
    """
    return (given - wanted).norm(dim=-1).mean()


@torch.no_grad()
def rescale_rows(rows: Tensor, table: Tensor) -> None:
    """Scale each of `rows` (r, D) to the mean norm of the rows of `table` (V, D), as GILL does after each step."""
    rows.mul_(table.norm(dim=-1).mean() / rows.norm(dim=-1, keepdim=True).clamp_min(1e-12))


class AlignObjective(nn.Module):
    """L2 between the refiner's conditioning and the text tower's, over all tokens; for GILL, GILL's own loss.

    The text tower is causal, so the background's token encodes the background alone.
    """

    backgrounds: Tensor
    token_weights: Tensor

    def __init__(self, model: MgccModel) -> None:
        super().__init__()
        self.alignment = Alignment(model)
        self.alignment.image_tokens.embeddings.requires_grad_(True)
        self.alignment.refiner.requires_grad_(True)
        wanted = model.encode_captions([background.value for background in Background])
        self.register_buffer("backgrounds", wanted[:, BACKGROUND_TOKEN], persistent=False)  # (6, D_c)
        weights = torch.ones(wanted.shape[1])
        weights[BACKGROUND_TOKEN] = BACKGROUND_WEIGHT
        self.register_buffer("token_weights", (weights / weights.mean()).unsqueeze(-1), persistent=False)
        self._llm = [model.llm]  # in a list, to keep the frozen model out of this module's state

    def _apply(self, fn: Callable[[Tensor], Tensor], *args: Any, **kwargs: Any) -> AlignObjective:
        self._llm[0]._apply(fn, *args, **kwargs)  # the frozen model has to be on the same device
        return super()._apply(fn, *args, **kwargs)

    def conditioning(self, batch: Batch) -> Tensor:
        """Pass the [IMG] tokens with a group's kept caches, then CMRM and mapper: (B, N_c, D_c)."""
        cache = tuple(batch["cache"].float().unbind(0))
        tokens = self.alignment.image_tokens.embeddings.expand(len(batch["target"]), -1, -1)
        mask = F.pad(batch["mask"], (0, tokens.shape[1]), value=True)
        image_features, _ = self._llm[0].context_features(tokens, cache, left_padding_mask(mask, tokens.shape[1]))
        given: Tensor = self.alignment.refiner(image_features, batch["features"].float(), batch["mask"], tokens)
        return given

    def forward(self, batch: Batch, step: int) -> tuple[Tensor, dict[str, Tensor]]:
        gill = self.alignment.refiner.refinement is Refinement.GILL
        if gill and self.training:  # here, since the loop has no call after a step
            rescale_rows(self.alignment.image_tokens.embeddings, self._llm[0].embed_tokens.weight)
        given = self.conditioning(batch)
        error = (given - batch["target"]).square()
        loss = gill_loss(given, batch["target"]) if gill else (error * self.token_weights).mean()
        explained = 1 - error.detach().mean() / batch["target"].var(dim=0, unbiased=False).mean().clamp_min(1e-6)
        nearest = torch.cdist(given[:, BACKGROUND_TOKEN].detach(), self.backgrounds).argmin(dim=1)
        return loss, {"explained": explained, "background": (nearest == batch["background"]).float().mean()}


class AlignStep:
    def __init__(
        self, profile: Profile, weights: Path, run_folder: Path, precision: TrainingPrecision = TrainingPrecision.FP32
    ) -> None:
        self._precision = precision  # of the frozen model
        self.model = load_frozen(profile, weights, run_folder.parent)
        with torch.no_grad():
            draw = self.model.llm.image_tokens.embeddings
            draw.add_(word_embedding(self.model, "picture") - draw.mean(dim=0))
        self.objective = AlignObjective(self.model)
        contexts = run_folder.parent / "contexts"  # beside the run: other seeds and arms share them
        self._groups = self._stored(contexts / "train", GROUPS, partial(setting_request, SEED))
        held_back = partial(training_request, HELD_BACK_SEED, split=Split.VALIDATION)
        self._held_back = self._stored(contexts / "held-back", HELD_BACK_GROUPS, held_back)

    def _stored(self, folder: Path, groups: int, request_of: Callable[[int], Request]) -> ContextStore:
        store = ContextStore(folder, groups)
        store.build(request_of, self._read_group)
        return store

    @torch.no_grad()
    def _read_group(self, requests: list[Request]) -> dict[str, Tensor]:
        with frozen_arithmetic(self._precision):
            contexts = read_requests(self.model, [r.parts for r in requests])
        return {
            "cache": torch.stack(contexts.cache).half(),
            "features": contexts.features.clamp(-6e4, 6e4).half(),
            "mask": contexts.mask,
            "target": self.model.encode_captions([canonical_caption(r.target) for r in requests]),
            "background": torch.tensor([list(Background).index(r.target.background) for r in requests]),
        }

    def batch(self, rng: np.random.Generator) -> Batch:
        return self._groups[int(rng.integers(len(self._groups)))]

    def evaluate(self) -> dict[str, float]:
        """For held-back phrasings: the conditioning's variance explained, and the share of right backgrounds."""
        groups = [on_device_of(self.objective, self._held_back[i]) for i in range(len(self._held_back))]
        metrics = [self.objective(group, 0)[1] for group in groups]
        return {name: float(np.mean([m[name] for m in metrics])) for name in ("explained", "background")}

    def picture(self, path: Path) -> None:
        """Wanted (left) and predicted (right) conditioning of one held-back group, as grey maps."""
        group = on_device_of(self.objective, self._held_back[len(self._held_back) - 1])
        both = torch.cat([group["target"], self.objective.conditioning(group)], dim=-1)[:6].flatten(0, 1).cpu()
        grey = (both.clamp(-3, 3).add(3).div(6) * 255).byte().numpy()
        Image.fromarray(grey).resize((grey.shape[1] * 3, grey.shape[0] * 3), Image.Resampling.NEAREST).save(path)

    def save_weights(self, folder: Path) -> list[Path]:
        return [save_module(self.objective.alignment, folder / "alignment.safetensors")]

    def load_weights(self, folder: Path) -> None:
        load_module(self.objective.alignment, folder / "alignment.safetensors")


def load_frozen(profile: Profile, weights: Path, shared: Path) -> MgccModel:
    """The basis of `align` and `grounder`: the language model, the trained CLIP and the projection between them.

    The projection is the one of the alignment in `weights`, as a grounder trained on another would misread this one's
    tokens. Without an alignment there, it is trained once and kept in the folder `shared` for all runs beside it.
    """
    model = load_untrained(profile)
    load_module(model.clip, weights / "clip.safetensors")
    model.settle()
    alignment = weights / "alignment.safetensors"
    if alignment.exists():
        load_module(model.vision_encoder.projection, alignment, prefix="visual_projection.")
    else:
        fit_visual_projection(model, shared / "visual-projection.safetensors")
    return model
