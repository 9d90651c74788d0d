"""Step `grounder`: `LayoutHead` on stored context features, matched to the scene's objects (DETR, arXiv 2005.12872).

The language model takes most of the time (0.13 to 0.45 s a conversation on a core). If its features begin with the
embeddings, two fifths of each batch are conversations with the embeddings alone and the other layers zero. They cost
a fifth, so there can be so many that the head does not memorise them. A quarter of each batch are written stories
(`written_conversation`); the others are made and reworded (`fresh_conversation`), except the held-back ones.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw
from scipy.optimize import linear_sum_assignment
from torch import Tensor, nn

from mgcc_ref.box_placement import settle
from mgcc_ref.config import Profile, QuerySource
from mgcc_ref.model import MgccModel
from mgcc_ref.networks.grounder import CENTRE_BINS, LayoutHead, QueryAnswers
from mgcc_ref.pipeline import PRESENCE_THRESHOLD
from mgcc_ref.prompting import closing_ids
from mgcc_ref.story.wording.phrases import Split
from mgcc_ref.story.world.scene import Box, Scene, render
from mgcc_ref.train.features import (
    FeatureStore,
    Reading,
    embed_conversation,
    pad_features,
    point_ends,
    read_conversation,
)
from mgcc_ref.train.fresh_conversations import fresh_conversation
from mgcc_ref.train.grounder_targets import TARGETS, Targets, scene_targets
from mgcc_ref.train.layout_score import LayoutScore, score_layout, total
from mgcc_ref.train.loop import Batch, TrainingPrecision, on_device_of
from mgcc_ref.train.requests import Conversation, Request, training_conversation
from mgcc_ref.train.steps.align import load_frozen
from mgcc_ref.train.written_conversations import written_conversation
from mgcc_ref.weights import load_module, save_module

log = logging.getLogger("mgcc.train")

BATCH_SIZE = 32
TRAINING_CONVERSATIONS, EMBEDDED_CONVERSATIONS, HELD_BACK_CONVERSATIONS = 5_000, 12_000, 200
WRITTEN_CONVERSATIONS, EMBEDDED_WRITTEN_CONVERSATIONS = 3_000, 8_000
#: Of an example from the conversations with embeddings alone, and from the written ones.
EMBEDDED_CHANCE, WRITTEN_CHANCE = 0.4, 0.25
SEED, EMBEDDED_SEED, HELD_BACK_SEED, WRITTEN_SEED = 8_000_003, 8_500_003, 9_000_003, 9_500_003
SET_STRIDE = 100_000  # between the seeds of two sets of conversations: five fit below EMBEDDED_SEED
LAST_POINT_CHANCE = 0.4
CHUNKS = 4  # batches drawn together and sorted by length; one is used: less padding, the same distribution
PHRASE_COST, BOX_COST = 100.0, 2.0
BIN_SIGMA = 0.8  # of the Gaussian target over the bins of the centre, in bins
SIZE_LOSS, ASPECT_LOSS, EARLY_LOSS = 5.0, 5.0, 0.4


def match(boxes: Tensor, logits: Tensor, phrases: Tensor, targets: Targets) -> tuple[np.ndarray, np.ndarray]:
    """Hungarian matching of Q queries to K objects by presence, box and phrase: (query indices, object indices).

    Phrases are compared by distance, not by angle: cat and lion, at cosine 0.99, must not be exchanged.
    """
    phrase_distance = torch.cdist(phrases, targets.phrases)  # (Q, K)
    box_distance = torch.cdist(boxes, targets.boxes, p=1)
    cost = PHRASE_COST * phrase_distance + BOX_COST * box_distance - logits.sigmoid()[:, None]
    return linear_sum_assignment(cost.detach().cpu().numpy())


class GrounderObjective(nn.Module):
    """Presence and centre (cross-entropies), size (L1), pointer, and phrase (LEARNED only) losses.

    The matching is the last round's; earlier rounds have the same losses at a smaller weight.
    """

    def __init__(self, head: LayoutHead) -> None:
        super().__init__()
        self.head = head

    def forward(self, batch: Batch, step: int) -> tuple[Tensor, dict[str, Tensor]]:
        answers, phrases, pointers = self.head.all_queries(batch["features"], batch["mask"])
        last, device = answers[-1], batch["features"].device
        # on the CPU: matching needs Python objects, and a hundred small transfers would be slow on a GPU
        every = Targets.unpacked({name: batch[name].cpu() for name in TARGETS})
        given = [values.detach().float().cpu() for values in (last.boxes, last.presence, phrases)]
        picked: list[tuple[int, int, int]] = []
        for b, targets in enumerate(every):
            queries, objects = match(given[0][b], given[1][b], given[2][b], targets)
            picked += [(b, int(q), int(k)) for q, k in zip(queries, objects, strict=True)]
        rows, asked, meant = torch.tensor(picked, device=device).unbind(dim=1)
        present = torch.zeros_like(last.presence)
        present[rows, asked] = 1.0
        wanted, regions = batch["boxes"][rows, meant], batch["regions"][rows, meant]
        losses = [answer_loss(answer, present, rows, asked, wanted, regions) for answer in answers]
        pointed = _pointer_loss(pointers[rows, asked], batch["mentions"][rows, meant])
        loss = losses[-1] + EARLY_LOSS * sum(losses[:-1]) + 0.1 * pointed
        if self.head.query_source is QuerySource.LEARNED:
            loss = loss + phrase_loss(phrases[rows, asked], batch["phrases"][rows, meant])
        error = (last.boxes[rows, asked] - wanted).abs().detach()
        third = (place_cell(last.boxes[rows, asked]) == place_cell(wanted)).all(dim=1).float().mean()
        return loss, {"centre_l1": error[:, :2].mean(), "cell": third, "last": losses[-1].detach()}


def phrase_loss(given: Tensor, wanted: Tensor) -> Tensor:
    """Loss of phrase embeddings (M, D_p): 1 - cosine, plus the squared error relative to the target's square.

    The UNet reads the embedding without normalising it, so its length counts too, which a cosine ignores.
    """
    apart = (given - wanted).square().sum(dim=-1) / wanted.square().sum(dim=-1).clamp_min(1e-6)
    return (1 - F.cosine_similarity(given, wanted)).mean() + apart.mean()


def _pointer_loss(pointers: Tensor, mentions: Tensor) -> Tensor:
    """Loss of the matched queries' logits (M, S) for positions from the end (M, K), 0 for none."""
    told = (mentions != 0).any(dim=1)
    if not told.any():
        return pointers.new_zeros(())
    pointers, mentions = pointers[told], mentions[told]
    likelihood = F.log_softmax(pointers, dim=-1).gather(1, mentions % pointers.shape[1])
    return -likelihood.masked_fill(mentions == 0, -torch.inf).logsumexp(dim=1).mean()


def place_cell(boxes: Tensor) -> Tensor:
    """Column and row of the 3 x 3 grid that hold the centre of boxes cxcywh (..., 4): (..., 2)."""
    return (boxes[..., :2] * 3).floor().clamp(0, 2)


def answer_loss(
    answer: QueryAnswers, present: Tensor, rows: Tensor, asked: Tensor, wanted: Tensor, regions: Tensor
) -> Tensor:
    """One round's loss; `wanted` (M, 4) cxcywh are the boxes of the queries `asked` of the requests `rows`.

    Of an object with one of `regions` (M, 4), the loss is the centre's negative log-likelihood of being in it: nothing
    tells its size, and the centre in its box is only one of many.

    The aspect has a loss of its own: in a box of another aspect, an object is drawn distorted. Without this loss, half
    of the aspects were off by 2.8 % and a tenth by 7.5 %, and sprite PSNR was 2 dB below that with true boxes.
    """
    presence = F.binary_cross_entropy_with_logits(answer.presence, present, reduction="none").sum(dim=1).mean() / 3
    index = torch.arange(CENTRE_BINS, device=wanted.device)
    offset = index - (wanted[:, :2, None] * CENTRE_BINS - 0.5)  # (M, 2, CENTRE_BINS), in bins
    bell = (-0.5 * (offset / BIN_SIGMA).square()).softmax(dim=-1)
    likelihood = answer.bins[rows, asked].log_softmax(dim=-1)
    exact = (regions[:, 2] <= regions[:, 0]).unsqueeze(1)  # (M, 1)
    at = (index + 0.5) / CENTRE_BINS
    within = (at >= regions[:, :2, None]) & (at <= regions[:, 2:, None])
    loosely = likelihood.masked_fill(~(within | exact.unsqueeze(2)), -1e4).logsumexp(dim=-1)
    centre = -torch.where(exact, (bell * likelihood).sum(dim=-1), loosely).mean()
    given, true = answer.boxes[rows, asked, 2:].float().clamp_min(1e-3), wanted[:, 2:]
    size = (exact * (given - true).abs()).mean()
    log_aspects = [(sides[:, :1] / sides[:, 1:]).log() for sides in (given, true)]
    aspect = ASPECT_LOSS * (log_aspects[0] - log_aspects[1]).abs().mean()
    return presence + centre + SIZE_LOSS * size + aspect


def found_layouts(model: MgccModel, table: Tensor, answers: Sequence[Tensor]) -> list[list[tuple[str, Box]]]:
    """Label, by the nearest of `table` (L, D_p), and box xyxy of all objects that the head's `answers` contain."""
    every_boxes, every_presence, every_phrases, _ = (out.float().cpu() for out in answers)
    found = []
    for boxes, presence, phrases in zip(every_boxes, every_presence, every_phrases, strict=True):
        labels = torch.cdist(phrases, table).argmin(dim=1).tolist()
        present = presence >= PRESENCE_THRESHOLD
        if (limit := model.profile.max_overlap) is not None:
            boxes = settle(boxes, present, limit)
        kept = torch.nonzero(present).flatten().tolist()
        found.append([(model.labels[labels[i]], tuple(boxes[i].tolist())) for i in kept])
    return found


def picture_of_layouts(scenes: Sequence[Scene], layouts: Sequence[Sequence[tuple[str, Box]]], path: Path) -> None:
    """The scenes in a row, with boxes in white."""
    tiles = []
    for scene, layout in zip(scenes, layouts, strict=True):
        tile = Image.fromarray(render(scene)).resize((256, 256), Image.Resampling.NEAREST)
        draw = ImageDraw.Draw(tile)
        for label, box in layout:
            corners = [256 * v for v in box]
            draw.rectangle(corners, outline="white", width=2)
            draw.text((corners[0] + 3, corners[1] + 1), label, fill="white")
        tiles.append(np.asarray(tile))
    Image.fromarray(np.concatenate(tiles, axis=1)).save(path)


@dataclass(frozen=True)
class Example:
    """The training example of one point of a conversation."""

    reading: Reading
    point: int
    request: Request
    targets: Targets

    @property
    def length(self) -> int:
        return self.reading.ends[self.point] + self.reading.closing


class GrounderStep:
    """Trains on set `conversations` (0 to 4); all sets have the same held-back conversations."""

    def __init__(
        self,
        profile: Profile,
        weights: Path,
        run_folder: Path,
        precision: TrainingPrecision = TrainingPrecision.FP32,
        conversations: int = 0,
    ) -> None:
        self._precision = precision  # of the frozen model
        self.model = load_frozen(profile, weights, run_folder.parent)
        self.head = self.model.grounder.requires_grad_(True)
        self.objective = GrounderObjective(self.head)
        # beside the run: runs of other seeds share them
        features = run_folder.parent / (f"features-{conversations}" if conversations else "features")
        seed, embedded, written = (s + SET_STRIDE * conversations for s in (SEED, EMBEDDED_SEED, WRITTEN_SEED))
        self.examples = self._read(
            features / "train", TRAINING_CONVERSATIONS, partial(fresh_conversation, seed), read_conversation
        )
        self.written = self._read(
            features / "written",
            WRITTEN_CONVERSATIONS,
            partial(written_conversation, written),
            read_conversation,
        )
        self.embedded: list[list[Example]] = []
        self.written_embedded: list[list[Example]] = []
        if profile.llm.feature_layers[0] == 0:
            self.embedded = self._read(
                features / "embedded",
                EMBEDDED_CONVERSATIONS,
                partial(fresh_conversation, embedded),
                embed_conversation,
            )
            self.written_embedded = self._read(
                features / "written-embedded",
                EMBEDDED_WRITTEN_CONVERSATIONS,
                partial(written_conversation, written + SET_STRIDE // 2),
                embed_conversation,
            )
        held_back = self._read(
            features / "held-back",
            HELD_BACK_CONVERSATIONS,
            partial(training_conversation, HELD_BACK_SEED, split=Split.VALIDATION),
            read_conversation,
        )
        self.held_back = [points[-1] for points in held_back]

    def _read(
        self,
        folder: Path,
        count: int,
        conversation_of: Callable[[int], Conversation],
        read: Callable[[MgccModel, Conversation], np.ndarray],
    ) -> list[list[Example]]:
        """The examples of each conversation, in the order of its points."""
        store = FeatureStore(folder, count)
        store.build(lambda i: read(self.model, conversation_of(i)), self._precision)
        log.info("preparing the targets of %d conversations", count)
        closing, phrases = len(closing_ids(self.model)), self.model.label_embeddings
        found = []
        for i, rows in enumerate(store.load()):
            conversation = conversation_of(i)
            reading = Reading(rows, point_ends(self.model, conversation), closing)
            found.append([self._example(reading, p, conversation, phrases) for p in range(len(reading.ends))])
        return found

    def _example(self, reading: Reading, point: int, conversation: Conversation, phrases: Tensor) -> Example:
        request = conversation.request(point)
        targets = scene_targets(self.model, request, reading.ends[point] + reading.closing, phrases)
        return Example(reading, point, replace(request, parts=()), targets)  # pictures would fill the memory

    def _batch(self, examples: list[Example]) -> Batch:
        padded, mask = pad_features([e.reading.context(e.point) for e in examples], self.model.profile.llm.feature_dim)
        return {"features": padded, "mask": mask, **Targets.packed([e.targets for e in examples])}

    def batch(self, rng: np.random.Generator) -> Batch:
        drawn = []
        for _ in range(CHUNKS * BATCH_SIZE):
            embedded = self.embedded and rng.random() < EMBEDDED_CHANCE
            if rng.random() < WRITTEN_CHANCE:
                conversations = self.written_embedded if embedded else self.written
            else:
                conversations = self.embedded if embedded else self.examples
            points = conversations[int(rng.integers(len(conversations)))]
            drawn.append(points[-1] if rng.random() < LAST_POINT_CHANCE else points[rng.integers(len(points))])
        drawn.sort(key=lambda e: e.length)
        start = BATCH_SIZE * int(rng.integers(CHUNKS))
        return self._batch(drawn[start : start + BATCH_SIZE])

    def layouts(self, examples: list[Example]) -> list[list[tuple[str, Box]]]:
        """Label and box xyxy of all objects that the head finds in each request."""
        batch = on_device_of(self.head, self._batch(examples))
        return found_layouts(self.model, self.model.label_embeddings, self.head(batch["features"], batch["mask"]))

    def evaluate(self) -> dict[str, float]:
        """Object recall, precision, right places and whole layouts of held-back requests, with images and without."""
        scores: dict[str, list[LayoutScore]] = {"": [], "texts_": []}
        for start in range(0, len(self.held_back), 50):
            examples = self.held_back[start : start + 50]
            for example, layout in zip(examples, self.layouts(examples), strict=True):
                kind = "" if example.request.image_scenes else "texts_"
                scores[kind].append(score_layout(layout, example.request))
        return {kind + k: v for kind, values in scores.items() if values for k, v in total(values).items()}

    def picture(self, path: Path) -> None:
        """Eight held-back target scenes with the predicted boxes drawn in white."""
        examples = self.held_back[:8]
        picture_of_layouts([e.request.target for e in examples], self.layouts(examples), path)

    def save_weights(self, folder: Path) -> list[Path]:
        return [save_module(self.head, folder / "grounder.safetensors")]

    def load_weights(self, folder: Path) -> None:
        load_module(self.head, folder / "grounder.safetensors")
