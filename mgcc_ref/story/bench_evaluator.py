"""The evaluator: a small CLIP that StoryBench compares pictures with; no picture is drawn with it.

It shares nothing with the profile story's CLIP: plain convolutions instead of a vision transformer, another text tower,
seed, data and augmentation. Training: `python -m mgcc_ref.train --step evaluator`.
"""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mgcc_ref.story.captions import CAPTION_WORDS
from mgcc_ref.story.world.scene import IMAGE_PX
from mgcc_ref.tokens import caption_tokenizer
from mgcc_ref.weights import load_module

EVALUATOR_FILE = Path(__file__).parents[1] / "weights" / "evaluator" / "evaluator.safetensors"
TEXT_POSITIONS = 32
EMBEDDING = 128
_WIDTHS = (24, 48, 96, 160)  # at 64, 32, 16 and 8 cells a side
_TEXT_WIDTH, _TEXT_LAYERS, _TEXT_HEADS = 128, 2, 4
_POOL_QUERIES = 4
PAD_ID = 0


class Residual(nn.Module):
    """x + Conv(SiLU(Norm(Conv(SiLU(Norm(x))))))."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.GroupNorm(8, channels), nn.GroupNorm(8, channels)
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv2(F.silu(self.norm2(self.conv1(F.silu(self.norm1(x))))))


class ImageTower(nn.Module):
    """Pixels (B, 3, 128, 128) in [-1, 1] -> cells (B, 64, 160) of an 8x8 grid and the whole (B, E)."""

    def __init__(self) -> None:
        super().__init__()
        c1, c2, c3, c4 = _WIDTHS
        self.grid = nn.Sequential(
            nn.PixelUnshuffle(2),
            nn.Conv2d(12, c1, 3, padding=1),
            nn.SiLU(),
            nn.Conv2d(c1, c2, 3, stride=2, padding=1),
            Residual(c2),
            nn.Conv2d(c2, c3, 3, stride=2, padding=1),
            Residual(c3),
            nn.Conv2d(c3, c4, 3, stride=2, padding=1),
            Residual(c4),
            nn.GroupNorm(8, c4),
        )
        cells = (IMAGE_PX // 16) ** 2
        self.positions = nn.Parameter(0.02 * torch.randn(1, cells, c4))
        self.queries = nn.Parameter(0.02 * torch.randn(1, _POOL_QUERIES, c4))
        self.pool = nn.MultiheadAttention(c4, 4, batch_first=True)
        self.project = nn.Linear(_POOL_QUERIES * c4, EMBEDDING)

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        cells = self.grid(pixels).flatten(2).transpose(1, 2)
        placed = cells + self.positions
        pooled, _ = self.pool(self.queries.expand(len(cells), -1, -1), placed, placed, need_weights=False)
        return cells, self.project(pooled.flatten(1))


class TextTower(nn.Module):
    """Caption ids (B, 32) int64 -> (B, E): the mean over words of a small transformer."""

    def __init__(self, words: int) -> None:
        super().__init__()
        self.embed = nn.Embedding(words, _TEXT_WIDTH)
        self.positions = nn.Parameter(0.02 * torch.randn(1, TEXT_POSITIONS, _TEXT_WIDTH))
        block = nn.TransformerEncoderLayer(
            _TEXT_WIDTH, _TEXT_HEADS, 2 * _TEXT_WIDTH, 0.0, "gelu", batch_first=True, norm_first=True
        )
        self.blocks = nn.TransformerEncoder(block, _TEXT_LAYERS, enable_nested_tensor=False)
        self.norm = nn.LayerNorm(_TEXT_WIDTH)
        self.project = nn.Linear(_TEXT_WIDTH, EMBEDDING)

    def forward(self, ids: Tensor) -> Tensor:
        present = ids != PAD_ID
        x = self.blocks(self.embed(ids) + self.positions, src_key_padding_mask=~present)
        mask = present.unsqueeze(-1).to(x.dtype)
        return self.project((self.norm(x) * mask).sum(dim=1) / mask.sum(dim=1))


class Evaluator(nn.Module):
    """Image and text tower with one embedding space; embeddings have unit length."""

    def __init__(self) -> None:
        super().__init__()
        tokenizer = caption_tokenizer(CAPTION_WORDS, TEXT_POSITIONS)
        self.images = ImageTower()
        self.texts = TextTower(tokenizer.get_vocab_size())
        self.cells = nn.Linear(_WIDTHS[-1], EMBEDDING)
        self.logit_scale = nn.Parameter(torch.tensor(2.66))  # log(1 / 0.07), CLIP's initial value

    def embed_images(self, pixels: Tensor) -> Tensor:
        """(B, 3, 128, 128) in [-1, 1] -> (B, E)."""
        return F.normalize(self.images(pixels)[1], dim=-1)

    def embed_images_and_cells(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """The whole images (B, E) and their 8x8 cells (B, 64, E)."""
        cells, whole = self.images(pixels)
        return F.normalize(whole, dim=-1), F.normalize(self.cells(cells), dim=-1)

    def embed_texts(self, ids: Tensor) -> Tensor:
        return F.normalize(self.texts(ids), dim=-1)


def load_evaluator(path: Path = EVALUATOR_FILE) -> Evaluator:
    """The trained evaluator in eval mode; WeightsError if its file is missing or does not fit."""
    evaluator = Evaluator()
    load_module(evaluator, path)
    return evaluator.eval().requires_grad_(False)
