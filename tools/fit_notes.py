"""Fit the regressions of the notes: `python tools/fit_notes.py`; `--by-author` writes nothing and scores them.

They learn from halves `dev` and `train` of the requests of `mgcc_ref.story.note_requests`, and from stories for
training, in which nothing is noted; half `test` is never read. The same requests and seeds give the same weights.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize
from scipy.sparse import csr_matrix

from mgcc_ref.config import get_profile
from mgcc_ref.story.note_requests import Half, NoteRequest, note_requests
from mgcc_ref.story.stories import make_story
from mgcc_ref.story.wording.phrases import Split
from mgcc_ref.story.world.sprites import LABELS
from mgcc_runtime.commands.console import command, give, note
from mgcc_runtime.commands.tables import aligned
from mgcc_runtime.errors import EXIT_DONE
from mgcc_runtime.files import write_atomically
from mgcc_runtime.notes.features import Features, candidates, text_features
from mgcc_runtime.notes.learned import WEIGHTS, Question, Regression, asks_too_much, wanted_things
from mgcc_runtime.notes.lexicon import lexicon_of, sentences_of
from mgcc_runtime.results import NoteCode

UNKNOWN_THING = NoteCode.UNKNOWN_THING.value
#: Inverse strength of the L2 penalty; how many examples a feature must have; and, in hundredths, the least weight kept.
STRENGTH = {Question.TOO_MANY: 0.3, Question.CONTRADICTION: 0.3, Question.WANTED: 0.15, Question.COMPOUND: 0.3}
RAREST = {Question.TOO_MANY: 3, Question.CONTRADICTION: 3, Question.WANTED: 2, Question.COMPOUND: 2}
#: Where precision and recall of authors that a fit had not seen were the same. WANTED: of authors 19 to 22 alone,
#: since the list of nouns holds those of the others.
THRESHOLD = {Question.TOO_MANY: 0.4, Question.CONTRADICTION: 0.55, Question.WANTED: 0.6, Question.COMPOUND: 0.5}
SMALLEST = 2
STORIES, STORY_SEED, NOBODY = 300, 7_000_003, -1
MOST = get_profile("story").max_objects
_LEXICON = lexicon_of(tuple(LABELS))


@dataclass(frozen=True)
class Example:
    """One question about a request, its features and the answer."""

    question: Question
    features: Features
    answer: bool
    request: int  # which request


def stories() -> Iterator[NoteRequest]:
    """Stories in the phrasings for training: their distractors name what no picture shows."""
    for seed in range(STORY_SEED, STORY_SEED + STORIES):
        yield NoteRequest(" ".join(make_story(seed, Split.TRAIN).captions), frozenset(), NOBODY)


def examples(requests: Sequence[NoteRequest]) -> Iterator[Example]:
    """Every question about each request."""
    for number, request in enumerate(requests):
        text, codes = sentences_of(request.text), {code for code, _ in request.notes}
        of_text = text_features(text, _LEXICON, MOST)
        for question in (Question.TOO_MANY, Question.CONTRADICTION):
            yield Example(question, of_text, question.value in codes, number)
        wanted = {thing for code, thing in request.notes if code == UNKNOWN_THING}
        for one in candidates(text, _LEXICON):
            longer = not one.listed and one.compound in wanted
            is_wanted = one.noun in wanted or longer
            yield Example(Question.WANTED, one.features, is_wanted, number)
            if is_wanted and not one.listed:
                yield Example(Question.COMPOUND, one.before, longer, number)


def fit(question: Question, given: Sequence[Example]) -> Regression:
    """The regression of one question: logistic loss with an L2 penalty, by L-BFGS."""
    count = Counter(name for example in given for name in example.features)
    names = sorted(name for name, times in count.items() if times >= RAREST[question])
    column = {name: i for i, name in enumerate(names)}
    rows = [[column[name] for name in example.features if name in column] for example in given]
    ends = np.cumsum([0, *map(len, rows)])
    flat = np.fromiter((c for row in rows for c in row), dtype=np.int64)
    table = csr_matrix((np.ones(len(flat)), flat, ends), shape=(len(given), len(names)))
    sign = np.array([1.0 if example.answer else -1.0 for example in given])
    strength = STRENGTH[question]

    def loss(values: np.ndarray) -> tuple[float, np.ndarray]:
        weights, bias = values[:-1], values[-1]
        margin = sign * (table @ weights + bias)
        slope = -strength * sign / (1 + np.exp(np.clip(margin, -50, 50)))
        total = strength * np.logaddexp(0, -margin).sum() + 0.5 * (weights**2).sum()
        return total, np.append(table.T @ slope + weights, slope.sum())

    found = minimize(loss, np.zeros(len(names) + 1), jac=True, method="L-BFGS-B", options={"maxiter": 200}).x
    hundredths = np.rint(100 * found[:-1]).astype(int)
    kept = {name: int(w) for name, w in zip(names, hundredths, strict=True) if abs(w) >= SMALLEST}
    return Regression(round(float(found[-1]), 4), kept, THRESHOLD[question])


def fit_all(given: Sequence[Example]) -> dict[Question, Regression]:
    """The regression of every question."""
    return {question: fit(question, [e for e in given if e.question is question]) for question in Question}


def noted(fitted: dict[Question, Regression], text: str) -> set[tuple[str, str]]:
    """(code, thing) of the notes that the regressions give on a text."""
    read = sentences_of(text)
    found = {(question.value, "") for question in asks_too_much(read, _LEXICON, MOST, fitted)}
    return found | {(UNKNOWN_THING, thing) for thing in wanted_things(read, _LEXICON, fitted)}


def scores_by_author(requests: Sequence[NoteRequest]) -> Iterator[tuple[str, ...]]:
    """Rows of precision and recall: for each author by what was learned from the others, and of all."""
    every, total = list(examples(requests)), np.zeros(3)
    yield "author", "requests", "precision", "recall"
    for author in sorted({request.author for request in requests} - {NOBODY}):
        own = {i for i, request in enumerate(requests) if request.author == author}
        fitted = fit_all([e for e in every if e.request not in own])
        found = {(i, *one) for i in own for one in noted(fitted, requests[i].text)}
        wanted = {(i, *one) for i in own for one in requests[i].notes}
        hits = np.array([len(found & wanted), len(found), len(wanted)])
        total += hits
        yield str(author), str(len(own)), *_shares(hits)
    yield "all", str(sum(request.author != NOBODY for request in requests)), *_shares(total)


def _shares(hits: np.ndarray) -> tuple[str, str]:
    return f"{hits[0] / max(1, hits[1]):.3f}", f"{hits[0] / max(1, hits[2]):.3f}"


@command("fit_notes.py")
def main(arguments: Sequence[str] | None = None) -> int:
    """Fit and write, or score; returns the exit code."""
    parser = argparse.ArgumentParser(prog="fit_notes.py", description=__doc__)
    parser.add_argument("--by-author", action="store_true", help="write nothing; score each author by the others")
    options = parser.parse_args(arguments)
    requests = [*note_requests(Half.DEV), *note_requests(Half.TRAIN), *stories()]
    if options.by_author:
        give(aligned(list(scores_by_author(requests))))
        return EXIT_DONE
    fitted = fit_all(list(examples(requests)))
    values = {question.value: vars(regression) for question, regression in fitted.items()}
    write_atomically(WEIGHTS, (json.dumps(values, indent=0, ensure_ascii=False) + "\n").encode())
    note(f"{WEIGHTS}: {sum(len(r.weights) for r in fitted.values())} weights from {len(requests)} requests")
    return EXIT_DONE


if __name__ == "__main__":
    sys.exit(main())
