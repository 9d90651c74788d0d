"""Stored contexts: grouped by length, read once, gone on with after a kill."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest
import torch
from torch import Tensor

from mgcc_ref.story.world.scene import Background, Scene
from mgcc_ref.train.context_store import GROUP_SIZE, ContextStore, grouped_by_length
from mgcc_ref.train.errors import TrainingError
from mgcc_ref.train.requests import Request


def request_of(index: int, word: str = "word") -> Request:
    return Request((f"{word} " * (index + 1),), (), Scene(Background.MEADOW, ()), ())


def described(group: list[Request]) -> dict[str, Tensor]:
    return {"lengths": torch.tensor([len(str(r.parts[0])) for r in group])}


def test_groups_are_of_like_length() -> None:
    groups = grouped_by_length([request_of((7 * i) % (3 * GROUP_SIZE)) for i in range(3 * GROUP_SIZE)])
    assert [len(group) for group in groups] == [GROUP_SIZE] * 3
    longest = [max(len(str(r.parts[0])) for r in group) for group in groups]
    shortest = [min(len(str(r.parts[0])) for r in group) for group in groups]
    assert all(a < b for a, b in zip(longest, shortest[1:], strict=False))


def test_a_stopped_reading_goes_on_and_a_finished_one_reads_nothing(tmp_path: Path) -> None:
    read: list[int] = []

    def killed_at_the_third(group: list[Request]) -> dict[str, Tensor]:
        if len(read) == 2:
            raise KeyboardInterrupt
        read.append(len(group))
        return described(group)

    with pytest.raises(KeyboardInterrupt):
        ContextStore(tmp_path, 3).build(request_of, killed_at_the_third)
    again: list[int] = []

    def read_on(group: list[Request]) -> dict[str, Tensor]:
        again.append(len(group))
        return described(group)

    store = ContextStore(tmp_path, 3)
    store.build(request_of, read_on)
    assert (len(read), len(again)) == (2, 1)
    lengths = torch.cat([store[i]["lengths"] for i in range(len(store))])
    assert lengths.tolist() == [5 * (i + 1) for i in range(3 * GROUP_SIZE)]

    def first_ones(index: int) -> Request:
        assert index < GROUP_SIZE, "nothing is missing"
        return request_of(index)

    store.build(first_ones, read_on)
    assert len(again) == 1


def test_contexts_of_other_texts_are_refused(tmp_path: Path) -> None:
    """Also those of which nobody knows, from before this was kept; nothing is lost."""
    store = ContextStore(tmp_path, 1)
    store.build(request_of, described)
    with pytest.raises(TrainingError, match="of other texts than this run's; move the folder away"):
        store.build(partial(request_of, word="sentence"), described)
    (tmp_path / "texts.sha256").unlink()
    with pytest.raises(TrainingError, match="of other texts"):
        store.build(request_of, described)
    assert store[0]["lengths"].tolist() == [5 * (i + 1) for i in range(GROUP_SIZE)]
