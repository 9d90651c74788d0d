"""Which samples a run draws: training samples stay apart from the held-back ones, broken pictures or not."""

from __future__ import annotations

import pytest

from mgcc_ref.train.data.sample import DataError, PictureError, Sample
from mgcc_ref.train.published.draws import Draws

COUNT = 40


def _draws(held_back: int = 4) -> Draws:
    samples = [Sample(str(i), "a cat", read=bytes) for i in range(COUNT)]
    return Draws(samples, seed=1, held_back=held_back)


def test_an_epoch_has_every_training_sample_once() -> None:
    draws = _draws()
    for epoch in (0, 1):
        names = [draws.at(epoch * draws.count + i, lambda sample: sample.name) for i in range(draws.count)]
        assert sorted(map(int, names)) == list(range(COUNT - 4))


def test_a_broken_held_back_sample_is_replaced_by_a_held_back_one() -> None:
    """The last one by the first of them: the trainer has seen all others."""
    draws = _draws()

    def made(sample: Sample) -> str:
        if sample.name == str(COUNT - 1):
            raise PictureError("gone")
        return sample.name

    assert [draws.held(i, made) for i in draws.held_back] == ["36", "37", "38", "36"]


def test_a_broken_training_sample_is_replaced_by_a_training_one() -> None:
    draws = _draws()
    found = {draws.at(i, lambda sample: sample.name if int(sample.name) < 3 else None) for i in range(draws.count)}
    assert found == {"0", "1", "2"}


def test_data_without_a_picture_is_refused() -> None:
    with pytest.raises(DataError, match="samples in a row are of no use"):
        _draws().held(COUNT - 1, lambda _: None)
