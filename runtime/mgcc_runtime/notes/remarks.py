"""The notes of a request, from its texts, the bundle's labels and the layout that was found."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from mgcc_runtime.notes.counting import asked_numbers
from mgcc_runtime.notes.learned import Question, asks_too_much, wanted_things
from mgcc_runtime.notes.lexicon import Lexicon, lexicon_of, plural_of, sentences_of, words_of
from mgcc_runtime.notes.places import contradicted
from mgcc_runtime.results import Note, NoteCode, Result

_NAMED = 6  # labels that a sentence lists


def notes_on_words(texts: Sequence[str], labels: Sequence[str], most: int) -> tuple[Note, ...]:
    """What the texts ask for and a picture of at most `most` things of `labels` cannot have.

    Unknown things, each once; more things than fit, once; and things of which one text names places that exclude each
    other. Empty for a bundle without a list of labels, which draws whatever a word names.
    """
    if not labels:
        return ()
    lexicon = lexicon_of(tuple(labels))
    read = [sentences_of(text) for text in texts]
    names = {name for text in read for s in text for name in _names(s)}
    strange = dict.fromkeys(thing for text in read for thing in wanted_things(text, lexicon))
    found = [_unknown(thing, labels) for thing in strange if thing not in names]
    excess = [asks_too_much(text, lexicon, most) for text in read]
    if any(Question.TOO_MANY in questions for questions in excess):
        asked = max(sum(asked_numbers(text, lexicon).values()) for text in read)
        told = f"{_many(asked)} things were asked for, and a picture holds {most}"
        if asked <= most:  # a crowd that no number tells
            told = f"more things were asked for than the {most} that a picture holds"
        found.append(Note(NoteCode.TOO_MANY, told))
    twice = [text for text, questions in zip(read, excess, strict=True) if Question.CONTRADICTION in questions]
    for label in dict.fromkeys(label for text in twice for label in _contradicted(text, lexicon)):
        told = f"the places that are told of the {label} exclude each other, so one of them cannot hold"
        found.append(Note(NoteCode.CONTRADICTION, told, label))
    return tuple(found)


def _contradicted(text: Sequence[Sequence[str]], lexicon: Lexicon) -> list[str]:
    """Labels of things at two places: as far as rules find them, or the one that is named most often."""
    named = Counter(m.label for sentence in text for m in lexicon.mentions(sentence) if m.label)
    return contradicted(text, lexicon) or [label for label, _ in named.most_common(1)]


def _names(sentence: Sequence[str]) -> Iterator[str]:
    """What somebody is called: "Our puppy is called Tiger." asks for no tiger, nor does what follows."""
    for before, word, name in zip(["", *sentence], sentence, sentence[1:], strict=False):
        if word in ("called", "named", "nicknamed") or (before, word) == ("name", "is"):
            yield name


def notes_on_request(texts: Sequence[str], result: Result, labels: Sequence[str], most: int) -> tuple[Note, ...]:
    """The notes of a picture that was drawn for `texts`: of their words, and of what of the last text it lacks."""
    drawn = [box.label for box in result.boxes]
    return (*notes_on_words(texts, labels, most), *notes_on_layout(texts[-1] if texts else "", labels, drawn, most))


def notes_on_layout(text: str, labels: Sequence[str], drawn: Sequence[str], most: int) -> tuple[Note, ...]:
    """Where the last text gives a number that a picture could hold, and the picture has fewer of that label."""
    sentences = sentences_of(text)
    if not labels or any(word in words_of("departures") for sentence in sentences for word in sentence):
        return ()  # how many are left, is not told by how many there were
    asked, there = asked_numbers(sentences, lexicon_of(tuple(labels))), Counter(drawn)
    return tuple(
        Note(NoteCode.TOO_MANY, f"{count} {plural_of(label)} were asked for, and {there[label]} could be placed", label)
        for label, count in asked.items()
        if 1 < count <= most and there[label] < count
    )


def _unknown(thing: str, labels: Sequence[str]) -> Note:
    shown = ", ".join(labels[:_NAMED]) + (", ..." if len(labels) > _NAMED else "")
    return Note(NoteCode.UNKNOWN_THING, f"{thing!r} is nothing that this bundle can draw; it has {shown}", thing)


def _many(count: int) -> str:
    return str(count) if count < 100 else "a hundred or more"
