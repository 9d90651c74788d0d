"""Reading conversations: one pass gives what each request read alone gives."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from mgcc_ref.model import MgccModel, load_model
from mgcc_ref.prompting import build_prompt, closing_ids
from mgcc_ref.story.wording.phrases import Split
from mgcc_ref.train.features import (
    FeatureStore,
    Reading,
    embed_conversation,
    pad_features,
    point_ends,
    read_conversation,
    read_requests,
)
from mgcc_ref.train.loop import TrainingPrecision
from mgcc_ref.train.requests import training_conversation


@pytest.fixture(scope="module")
def tiny() -> MgccModel:
    return load_model("tiny")


@torch.no_grad()
def test_every_point_reads_as_its_own_request_does(tiny: MgccModel) -> None:
    conversations = [training_conversation(5, i, Split.TRAIN) for i in range(6)]
    assert len({len(c.parts) for c in conversations}) > 1, "of different kinds and lengths"
    for conversation in conversations:
        rows = read_conversation(tiny, conversation)
        reading = Reading(rows, point_ends(tiny, conversation), len(closing_ids(tiny)))
        for point in range(len(reading.ends)):
            embeds = build_prompt(tiny, conversation.request(point).parts).embeddings
            alone, _, _ = tiny.llm.features(embeds, tiny.llm.empty_cache())
            np.testing.assert_allclose(reading.context(point), alone[0].numpy(), rtol=2e-3, atol=2e-3)


@torch.no_grad()
def test_what_stands_behind_the_last_point_is_not_read(tiny: MgccModel) -> None:
    """A telling may end with a picture that is shown, and asks for none."""
    whole = training_conversation(5, 1, Split.TRAIN)
    longer = replace(whole, parts=(*whole.parts, "And that is that."), scenes=(*whole.scenes, None))
    for read in (read_conversation, embed_conversation):
        np.testing.assert_array_equal(read(tiny, longer), read(tiny, whole))
        Reading(read(tiny, longer), point_ends(tiny, longer), len(closing_ids(tiny)))


@torch.no_grad()
def test_requests_read_together_read_as_alone(tiny: MgccModel) -> None:
    requests = [training_conversation(5, i, Split.TRAIN).request(0) for i in range(3)]
    contexts = read_requests(tiny, [r.parts for r in requests])
    for row, request in enumerate(requests):
        embeds = build_prompt(tiny, request.parts).embeddings
        alone, _, _ = tiny.llm.features(embeds, tiny.llm.empty_cache())
        own = contexts.features[row, contexts.mask[row]]
        torch.testing.assert_close(own, alone[0], rtol=1e-3, atol=1e-3)
    assert len(contexts.cache) == 2 * tiny.profile.llm.feature_depth


@torch.no_grad()
def test_embeddings_alone_are_the_first_layer_of_a_reading(tiny: MgccModel) -> None:
    conversation, width = training_conversation(5, 1, Split.TRAIN), tiny.profile.llm.hidden
    whole, first = read_conversation(tiny, conversation), embed_conversation(tiny, conversation)
    np.testing.assert_array_equal(first, whole[:, :width])
    assert np.abs(whole[:, width:] - first).max() > 0.1, "the other layer says something else"


def test_what_a_view_lacks_is_zero() -> None:
    views = [np.ones((2, 3), np.float16), np.full((4, 6), 2, np.float16)]
    padded, mask = pad_features(views, 6)
    assert padded.shape == (2, 4, 6)
    assert mask.tolist() == [[False, False, True, True], [True] * 4]
    assert padded[0, 2:, :3].eq(1).all() and padded[0, :2].eq(0).all() and padded[0, :, 3:].eq(0).all()


def test_readings_of_another_run_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FeatureStore, "SHARD", 2)
    rows = np.random.default_rng(0).normal(size=(4, 5, 3)).astype(np.float16)
    store = FeatureStore(tmp_path / "features", 4)
    store.build(lambda i: rows[i], TrainingPrecision.FP32)
    assert [np.array_equal(kept, rows[i]) for i, kept in enumerate(store.load())] == [True] * 4
    store.build(lambda i: rows[i] * np.float16(1.01), TrainingPrecision.FP32)  # as another precision reads
    for other in (rows[:, :4], rows[::-1]):
        with pytest.raises(ValueError, match="other conversations, or by another model"):
            store.build(lambda i, other=other: other[i], TrainingPrecision.FP32)


def test_a_reading_of_another_text_is_refused(tiny: MgccModel) -> None:
    """Where the store's first conversation is the same and a later one is not."""
    first, other = (training_conversation(5, i, Split.TRAIN) for i in (0, 1))
    ends, closing = point_ends(tiny, first), len(closing_ids(tiny))
    Reading(embed_conversation(tiny, first), ends, closing)
    with pytest.raises(ValueError, match="read from another text"):
        Reading(embed_conversation(tiny, other), ends, closing)
