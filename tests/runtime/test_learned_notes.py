"""The notes' regressions: what they learned is what the command gives, and what they look at is bounded."""

from __future__ import annotations

import importlib

import pytest

from mgcc_ref.story.note_requests import Half, note_requests
from mgcc_runtime.notes.features import candidates, text_features
from mgcc_runtime.notes.learned import Question, Regression, regressions
from mgcc_runtime.notes.lexicon import lexicon_of, sentences_of, singular_of

LEXICON = lexicon_of(("cat", "tree"))


def test_probability_and_answer() -> None:
    regression = Regression(bias=-1.0, weights={"a": 250, "b": -100}, threshold=0.5)
    assert regression.probability({}) == pytest.approx(0.2689, abs=1e-4)
    assert regression.says({"a": 1.0, "unheard of": 1.0})
    assert not regression.says({"a": 1.0, "b": 2.0})


def test_candidates_are_the_nouns_that_no_label_names() -> None:
    found = {c.noun: c for c in candidates(sentences_of("Two samovars and a cat stand by a cement mixer."), LEXICON)}
    assert found["samovar"].listed and "plural" in found["samovar"].features
    assert found["cement mixer"].listed
    assert "cat" not in found


@pytest.mark.parametrize(
    ("many", "one"), [("gizmos", "gizmo"), ("pies", "pie"), ("finches", "finch"), ("abacus", "abacus")]
)
def test_singular(many: str, one: str) -> None:
    assert singular_of(many) == one


def test_the_number_that_fits_is_the_bundles() -> None:
    text = sentences_of("Six cats.")
    assert "#big" in text_features(text, LEXICON, most=5)
    assert "#small" in text_features(text, LEXICON, most=6)


@pytest.mark.slow
def test_the_committed_weights_are_the_commands() -> None:
    """But for the last digit, which the CPU's order of summing moves."""
    tool = importlib.import_module("tools.fit_notes")
    requests = [*note_requests(Half.DEV), *note_requests(Half.TRAIN), *tool.stories()]
    assert not {r.text for r in requests} & {r.text for r in note_requests(Half.TEST)}
    fitted = tool.fit_all(list(tool.examples(requests)))
    for question in Question:
        ours, committed = fitted[question], regressions()[question]
        assert ours.threshold == committed.threshold
        assert ours.bias == pytest.approx(committed.bias, abs=0.02)
        names = {*ours.weights, *committed.weights}
        off = {n: (ours.weights.get(n, 0), committed.weights.get(n, 0)) for n in names}
        assert {n: pair for n, pair in off.items() if abs(pair[0] - pair[1]) > 2} == {}
    shuffled = tool.fit(
        Question.TOO_MANY, [e for e in tool.examples(requests[:400]) if e.question is Question.TOO_MANY]
    )
    assert shuffled.weights != regressions()[Question.TOO_MANY].weights, "fewer requests give other weights"
