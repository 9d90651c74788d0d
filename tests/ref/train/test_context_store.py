"""Stored contexts: grouped by length, read once, gone on with after a kill."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from mgcc_ref.story.world.scene import Background, Scene
from mgcc_ref.train.context_store import GROUP_SIZE, ContextStore, grouped_by_length
from mgcc_ref.train.requests import Request


def request_of(words: int) -> Request:
    return Request(("word " * words,), (), Scene(Background.MEADOW, ()), ())


def described(group: list[Request]) -> dict[str, Tensor]:
    return {"lengths": torch.tensor([len(str(r.parts[0])) for r in group])}


def test_groups_are_of_like_length() -> None:
    groups = grouped_by_length([request_of(1 + (7 * i) % (3 * GROUP_SIZE)) for i in range(3 * GROUP_SIZE)])
    assert [len(group) for group in groups] == [GROUP_SIZE] * 3
    longest = [max(len(str(r.parts[0])) for r in group) for group in groups]
    shortest = [min(len(str(r.parts[0])) for r in group) for group in groups]
    assert all(a < b for a, b in zip(longest, shortest[1:], strict=False))


def test_a_stopped_reading_goes_on_and_a_finished_one_reads_nothing(tmp_path: Path) -> None:
    requests = [request_of(i + 1) for i in range(3 * GROUP_SIZE)]
    read: list[int] = []

    def killed_at_the_third(group: list[Request]) -> dict[str, Tensor]:
        if len(read) == 2:
            raise KeyboardInterrupt
        read.append(len(group))
        return described(group)

    with pytest.raises(KeyboardInterrupt):
        ContextStore(tmp_path, 3).build(lambda: requests, killed_at_the_third)
    again: list[int] = []

    def read_on(group: list[Request]) -> dict[str, Tensor]:
        again.append(len(group))
        return described(group)

    store = ContextStore(tmp_path, 3)
    store.build(lambda: requests, read_on)
    assert (len(read), len(again)) == (2, 1)
    lengths = torch.cat([store[i]["lengths"] for i in range(len(store))])
    assert lengths.tolist() == [5 * (i + 1) for i in range(3 * GROUP_SIZE)]

    def forbidden() -> list[Request]:
        raise AssertionError("nothing is missing")

    store.build(forbidden, read_on)
