"""The contextual object grounding module (COGM) as a learned head: `LayoutHead`, stage `grounder`.

The paper has the LLM write boxes in context (`in_context/layout.py`). A small LLM cannot, so this head reads
the frozen LLM's features with object queries and predicts boxes and phrases in one pass.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mgcc_ref.config import GrounderConfig, QuerySource
from mgcc_ref.networks.attention import Attention, DistanceFromEnd, FeedForward, LayerwiseNorm
from mgcc_ref.networks.rotary import rotary_tables

_ROTARY_THETA = 1000.0  # contexts are a few hundred positions long


class ContextEncoder(nn.Module):
    """f_mm, projected to (B, S, width) -> (B, S, width): blocks of bidirectional attention with rotary positions.

    The frozen model is causal: these blocks bind words to an object named after them ("on the left stands the fox").
    Each position's distance from the end is added, since of two statements the later one holds. There is no dropout:
    with it, drawing all of the head's masks took an eighth of a training step.
    """

    def __init__(self, config: GrounderConfig) -> None:
        super().__init__()
        width = config.hidden
        self.head_dim = width // config.heads
        self.from_end = DistanceFromEnd(width)
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(2 * config.encoder_layers))
        self.among = nn.ModuleList(Attention(width, width, width, config.heads) for _ in range(config.encoder_layers))
        self.feed_forward = nn.ModuleList(FeedForward(width, config.feed_forward) for _ in range(config.encoder_layers))
        self.out_norm = nn.LayerNorm(width)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        x = self.from_end(x)
        rotary = rotary_tables(torch.arange(x.shape[1], device=x.device), self.head_dim, _ROTARY_THETA)
        for i, (among, feed_forward) in enumerate(zip(self.among, self.feed_forward, strict=True)):
            normed = self.norms[2 * i](x)
            x = x + among(normed, normed, mask, rotary)
            x = x + feed_forward(self.norms[2 * i + 1](x))
        return self.out_norm(x)


class QueryBlock(nn.Module):
    """Pre-norm decoder block: self-attention of the queries, attention to the context, feed-forward."""

    def __init__(self, config: GrounderConfig, dropout: float) -> None:
        super().__init__()
        width = config.hidden
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(3))
        self.among = Attention(width, width, width, config.heads)
        self.across = Attention(width, width, width, config.heads)
        self.feed_forward = FeedForward(width, config.feed_forward, dropout)
        self.dropout = nn.Dropout(dropout)

    def remember(self, context: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values of a context (B, S, width) for `forward`, the same in every round."""
        return self.across.remember(context)

    def forward(self, queries: Tensor, context: tuple[Tensor, Tensor], mask: Tensor) -> Tensor:
        normed = self.norms[0](queries)
        queries = queries + self.dropout(self.among(normed, normed))
        queries = queries + self.dropout(self.across(self.norms[1](queries), context, mask))
        return queries + self.dropout(self.feed_forward(self.norms[2](queries)))


CENTRE_BINS = 24
_NEAR_BINS = 6  # the centre is the mean over so many bins on either side of the best one
_SMOOTH_BINS = 3.0  # sigma of the smoothing before the best bin is chosen: the likeliest neighbourhood, not bin


class BoxHead(nn.Module):
    """Box of a query: a distribution over bins for each coordinate of the centre, and the size.

    A regressed centre settles between the places that a text leaves open ("next to": left or right). A
    distribution keeps them apart, and the mean around its mode is one of them. Of 602 objects in unseen
    conversations, 0.729 stood where the text puts them with the likeliest neighbourhood, 0.708 with the likeliest
    bin and two neighbours on either side, 0.718 with the mean of all bins.
    """

    bin_centres: Tensor
    smoothing: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(width, width), nn.GELU(), nn.Linear(width, 2 * CENTRE_BINS + 2))
        centres = (torch.arange(CENTRE_BINS) + 0.5) / CENTRE_BINS
        self.register_buffer("bin_centres", centres, persistent=False)
        apart = CENTRE_BINS * (centres.unsqueeze(1) - centres)
        # in float64: in float32 the last bit, and so the exported graph, depended on the number of threads
        weights = (-0.5 * (apart.double() / _SMOOTH_BINS).square()).softmax(dim=0)
        self.register_buffer("smoothing", weights.float(), persistent=False)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(..., width) -> boxes cxcywh (..., 4) in [0, 1] and bin logits (..., 2, CENTRE_BINS)."""
        out = self.layers(x)
        logits = out[..., : 2 * CENTRE_BINS].unflatten(-1, (2, CENTRE_BINS))
        index = torch.arange(CENTRE_BINS, device=x.device)
        best = (logits.softmax(dim=-1) @ self.smoothing).argmax(dim=-1, keepdim=True)
        around = logits.masked_fill((index - best).abs() > _NEAR_BINS, -1e4)
        centre = (around.softmax(dim=-1) * self.bin_centres).sum(dim=-1)
        return torch.cat([centre, out[..., 2 * CENTRE_BINS :].sigmoid()], dim=-1), logits


def make_decisive(head: BoxHead) -> None:
    """Scale fresh weights of a head so that its bins differ as clearly as a trained head's.

    To a fresh head all bins are about equally likely: fp16 arithmetic moved 370 of 4,000 boxes to another bin, and 7
    after this.
    """
    last = head.layers[-1]
    assert isinstance(last, nn.Linear)
    with torch.no_grad():
        for values in (last.weight, last.bias):
            values[: 2 * CENTRE_BINS] *= 30


@dataclass(frozen=True)
class QueryAnswers:
    """The predictions of all Q queries after one round."""

    boxes: Tensor  # (B, Q, 4) cxcywh in [0, 1]
    bins: Tensor  # (B, Q, 2, CENTRE_BINS) logits of the centre
    presence: Tensor  # (B, Q) logits


class LayoutHead(nn.Module):
    """(f_mm (B, S, D_f), mask (B, S)) -> boxes (B, N, 4), presence (B, N), phrases (B, N, D_p), pointers (B, N, S).

    Boxes are xyxy in [0, 1]. With LABELS, each phrase embedding of the label list has `slots_per_label` queries, and
    the N of highest presence are returned. With LEARNED, N free queries regress the phrase embedding, and the
    label is the word that the pointer selects in the text.

    The query blocks run in rounds with the same weights. Each round's predictions are added to the next round's
    queries, which attend to each other: a box "left of the house" can follow from the house's predicted box, and
    boxes can avoid each other.
    """

    query_phrases: Tensor

    def __init__(
        self,
        config: GrounderConfig,
        features: int,
        layer_width: int,
        objects: int,
        label_embeddings: Tensor,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        width, phrase = config.hidden, label_embeddings.shape[-1]
        self.objects, self.query_source = objects, config.query_source
        self.norm = LayerwiseNorm(features, layer_width)
        self.project = nn.Sequential(nn.Linear(features, width), nn.LayerNorm(width))
        self.encoder = ContextEncoder(config)
        self.rounds = config.rounds
        self.blocks = nn.ModuleList(QueryBlock(config, dropout) for _ in range(config.layers))
        self.out_norm = nn.LayerNorm(width)
        self.presence = nn.Linear(width, 1)
        self.box = BoxHead(width)
        self.answered = nn.Linear(2 * CENTRE_BINS + 3, width)
        self.pointer_query = nn.Linear(width, width)
        self.pointer_key = nn.Linear(width, width)
        if config.query_source is QuerySource.LABELS:
            slots = config.slots_per_label
            self.register_buffer("query_phrases", label_embeddings.repeat_interleave(slots, dim=0))  # (Q, D_p)
            self.phrase_to_query = nn.Linear(phrase, width)
            self.queries = nn.Parameter(0.5 * torch.randn(label_embeddings.shape[0] * slots, width))
        else:
            self.queries = nn.Parameter(0.5 * torch.randn(objects, width))
            self.phrase = nn.Linear(width, phrase)

    def all_queries(self, features: Tensor, mask: Tensor) -> tuple[list[QueryAnswers], Tensor, Tensor]:
        """Before selection: each round's predictions (the last are the result), phrases (B, Q, D_p), and pointer
        logits (B, Q, S)."""
        context = self.encoder(self.project(self.norm(features)), mask)
        blocks = [block for block in self.blocks if isinstance(block, QueryBlock)]
        remembered = [block.remember(context) for block in blocks]
        queries = self.queries
        if self.query_source is QuerySource.LABELS:
            queries = queries + self.phrase_to_query(self.query_phrases)
        x = queries.unsqueeze(0).expand(features.shape[0], -1, -1)
        answers: list[QueryAnswers] = []
        for _ in range(self.rounds):
            if answers:
                x = x + self.answered(as_told(answers[-1]))
            for block, memory in zip(blocks, remembered, strict=True):
                x = block(x, memory, mask)
            normed = self.out_norm(x)
            boxes, bins = self.box(normed)
            answers.append(QueryAnswers(boxes, bins, self.presence(normed).squeeze(-1)))
        x = self.out_norm(x)
        if self.query_source is QuerySource.LABELS:
            phrases = self.query_phrases.unsqueeze(0).expand(features.shape[0], -1, -1)
        else:
            phrases = self.phrase(x)
        scale = x.shape[-1] ** -0.5
        pointers = scale * self.pointer_query(x) @ self.pointer_key(context).transpose(1, 2)  # (B, Q, S)
        pointers = pointers.masked_fill(~mask.unsqueeze(1), -1e4)  # finite, and within fp16
        return answers, phrases, pointers

    def forward(self, context_features: Tensor, context_mask: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        answers, phrases, pointers = self.all_queries(context_features, context_mask)
        presence, order = answers[-1].presence.sigmoid().topk(self.objects, dim=1)  # (B, N), most present first

        def pick(values: Tensor) -> Tensor:
            return values.gather(1, order.unsqueeze(-1).expand(-1, -1, values.shape[-1]))

        boxes = cxcywh_to_xyxy(pick(answers[-1].boxes))
        return boxes, presence, pick(phrases), F.softmax(pick(pointers), dim=-1)


def as_told(answers: QueryAnswers) -> Tensor:
    """A round's predictions as the next round's input: (B, Q, 2 CENTRE_BINS + 3), without gradient."""
    where = answers.bins.softmax(dim=-1).flatten(-2)
    return torch.cat([where, answers.boxes[..., 2:], answers.presence.sigmoid().unsqueeze(-1)], dim=-1).detach()


def cxcywh_to_xyxy(boxes: Tensor) -> Tensor:
    """(…, 4) centre and size -> corners, clipped to the picture."""
    centre, half = boxes[..., :2], boxes[..., 2:] / 2
    return torch.cat([centre - half, centre + half], dim=-1).clamp(0.0, 1.0)
