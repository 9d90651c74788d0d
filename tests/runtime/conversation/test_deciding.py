"""The decision to draw, by a regression in the bundle: on the turn itself, whatever was read before it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from mgcc_ref.model import load_model
from mgcc_ref.networks.draw_decision import DrawDecision
from mgcc_ref.pipeline import ReferencePipeline
from mgcc_runtime import BundleError, Pipeline
from mgcc_runtime.names import DRAW_DECISION
from mgcc_runtime.results import Reply, Result
from mgcc_runtime.stopwatch import Stopwatch
from tests.runtime.golden_data import gradient
from tests.runtime.tiny_bundle import reseal

TURNS = ("A cat.", "This is my friend.", "Here is a tree, a cat and my friend.", "Under a tree?")


def with_row(bundle: Path, row: np.ndarray) -> Path:
    np.save(bundle / DRAW_DECISION, row.astype(np.float32))
    return reseal(bundle)


@pytest.fixture
def row(dimensions) -> np.ndarray:
    return np.random.default_rng(0).normal(size=2 * dimensions.features + 1)


@pytest.fixture
def deciding(own_bundle: Path, row: np.ndarray) -> Iterator[Pipeline]:
    with Pipeline.load(with_row(own_bundle, row)) as pipeline:
        yield pipeline


def logit(pipeline: Pipeline, parts: tuple[object, ...], turn: int = 1) -> float:
    """Of a dialogue that is read at once, and whose last `turn` parts are the turn."""
    prompts = pipeline.prompts
    context = pipeline.read(prompts.build(parts), Stopwatch())
    return pipeline.decision.logit(context, prompts.finish(prompts.draft(parts[-turn:])), prompts.closing.length)


def test_it_is_the_reference_s(deciding: Pipeline, row: np.ndarray) -> None:
    model = load_model("tiny")
    model.decision = decision = DrawDecision(model.profile.llm.feature_dim)
    with torch.no_grad():
        decision.row.weight[0], decision.row.bias[0] = torch.from_numpy(row[:-1]), float(row[-1])
    reference = ReferencePipeline(model)
    for count in range(1, len(TURNS) + 1):
        expected = reference.draw_logit(TURNS[:count])
        assert logit(deciding, TURNS[:count]) == pytest.approx(expected, abs=1e-3)


def test_a_chat_decides_by_it(deciding: Pipeline, own_bundle: Path, row: np.ndarray) -> None:
    """The bias puts the threshold between the turns, so that some are drawn and others are not."""
    logits = [logit(deciding, TURNS[: n + 1]) for n in range(len(TURNS))]
    row[-1] -= np.median(logits)
    with Pipeline.load(with_row(own_bundle, row)) as pipeline:
        chat = pipeline.chat()
        answers = [chat.answer(turn, words=1, steps=1) for turn in TURNS]
    assert [isinstance(answer, Result) for answer in answers] == [value > np.median(logits) for value in logits]
    assert {type(answer) for answer in answers} == {Result, Reply}


def test_what_was_read_before_the_turn_and_its_pictures_do_not_count_in_the_mean(
    deciding: Pipeline, dimensions, row: np.ndarray, own_bundle: Path
) -> None:
    """The embeddings of a turn's words are the same behind any beginning; the mean of a first layer is theirs alone."""
    first = np.zeros_like(row)
    first[: dimensions.hidden] = row[: dimensions.hidden]  # the mean of the embeddings, layer 0 of f_mm
    with Pipeline.load(with_row(own_bundle, first)) as pipeline:
        alone = logit(pipeline, (TURNS[2],))
        assert logit(pipeline, (*TURNS[:2], TURNS[2])) == pytest.approx(alone, abs=1e-4)
        assert logit(pipeline, (*TURNS[:2], TURNS[0])) != pytest.approx(alone, abs=1e-2)


def test_a_turn_of_pictures_alone_asks_for_none(own_bundle: Path, row: np.ndarray) -> None:
    row[-1] = 1e6
    with Pipeline.load(with_row(own_bundle, row)) as pipeline:
        chat = pipeline.chat()
        assert isinstance(chat.answer(gradient(9, 7), words=1), Reply)
        assert isinstance(chat.answer(gradient(9, 7), "A cat.", words=1, steps=1), Result)


def test_a_row_of_another_width_is_refused(own_bundle: Path, row: np.ndarray) -> None:
    with pytest.raises(BundleError, match=DRAW_DECISION):
        Pipeline.load(with_row(own_bundle, row[:-1]))
