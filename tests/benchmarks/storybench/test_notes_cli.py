"""The notes' precision and recall on requests that no rule was written by."""

from __future__ import annotations

import json
from collections import Counter

import pytest

from mgcc_benchmarks.storybench.notes_cli import main, score_notes
from mgcc_ref.story.free_english import free_items
from mgcc_ref.story.note_requests import Half, NoteRequest, note_requests
from mgcc_ref.story.stories import make_story
from mgcc_ref.story.wording.phrases import Split
from mgcc_ref.story.world.sprites import LABELS
from mgcc_runtime.notes.remarks import notes_on_words


@pytest.mark.parametrize(("half", "count"), [(Half.DEV, 500), (Half.SEEN, 200), (Half.TEST, 199)])
def test_every_second_request_asks_for_what_cannot_be(half: Half, count: int) -> None:
    requests = note_requests(half)
    assert len(requests) == count
    assert sum(bool(r.notes) for r in requests) == (count + 1) // 2
    codes = {code for r in requests for code, _ in r.notes}
    assert codes == {"unknown-thing", "too-many", "contradiction"}
    every = [r.text for each in Half for r in note_requests(each)]
    assert len(set(every)) == len(every)


def test_the_half_to_learn_from_is_of_sixteen_authors() -> None:
    requests = note_requests(Half.TRAIN)
    by_author = Counter(r.author for r in requests)
    assert sorted(by_author) == list(range(7, 23))
    assert min(by_author.values()) >= 98
    assert 0.49 < sum(bool(r.notes) for r in requests) / len(requests) < 0.51
    assert not {r.author for r in requests} & {
        r.author for half in (Half.DEV, Half.SEEN, Half.TEST) for r in note_requests(half)
    }


def test_the_test_half_is_noted_rightly(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["half"], told["requests"]) == ("test", 199)
    assert told["scores"]["precision"]["value"] >= 0.9
    assert told["scores"]["recall"]["value"] >= 0.9
    first = score_notes(note_requests(Half.SEEN)[:100])
    assert first["precision"]["value"] >= 0.9
    assert first["recall"]["value"] >= 0.9


def test_wrong_notes_lower_the_scores() -> None:
    request = NoteRequest(
        "A giraffe and a zebra.", frozenset({("unknown-thing", "giraffe"), ("unknown-thing", "lynx")})
    )
    scores = score_notes([request])
    assert scores["precision"]["value"] == scores["recall"]["value"] == 0.5


def test_the_test_half_is_not_shown(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--half", "dev", "--wrong"]) == 0
    assert main(["--wrong"]) == 2
    assert "give --half dev" in capsys.readouterr().err


def test_texts_that_ask_for_what_there_is_are_hardly_noted() -> None:
    """Of the free items and of a hundred stories, whose distractors name what is not there."""
    texts = [item.texts for item in free_items()] + [make_story(n, Split.VALIDATION).captions for n in range(100)]
    assert sum(bool(notes_on_words(list(parts), LABELS, 8)) for parts in texts) <= 5
