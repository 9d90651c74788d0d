"""Notes name what a text asks for in vain, and nothing that it only speaks of."""

from __future__ import annotations

import json
import subprocess
import sys
import time

import pytest

from mgcc_runtime import NoteCode
from mgcc_runtime.cli import main
from mgcc_runtime.notes.lexicon import plural_of
from mgcc_runtime.notes.remarks import notes_on_layout, notes_on_words

LABELS = ("cat", "dog", "fox", "palm tree", "tree", "bus", "apple", "moon")


def noted(*texts: str, most: int = 8) -> list[tuple[NoteCode, str]]:
    return [(note.code, note.thing) for note in notes_on_words(texts, LABELS, most)]


@pytest.mark.parametrize(
    ("text", "thing"),
    [
        ("A giraffe stands next to the cat.", "giraffe"),
        ("Two mice sit below a palm tree.", "mouse"),
        ("I'd like a treasure chest on the left.", "treasure chest"),
        ("A cat and an axolotl: the cat on the left. An axolotl sits at the top.", "axolotl"),
        ("There's a lion at the bottom.", "lion"),  # a label of other bundles
        ("You forgot the donkey!", "donkey"),
        ("Two lizards cat-nap left of the moon.", "lizard"),
        ("How about a witch?", "witch"),
        ("Left: lamp. Right: dog.", "lamp"),
        ("And a clown.", "clown"),
        ("I wish to see one scorpion.", "scorpion"),
        ("What if a koala held on to the tree?", "koala"),
    ],
)
def test_a_thing_without_a_label_is_named(text: str, thing: str) -> None:
    assert noted(text) == [(NoteCode.UNKNOWN_THING, thing)]


def test_every_thing_without_a_label_is_named_once() -> None:
    found = noted("An aye-aye, a cat and an axolotl: the cat on the left. An axolotl sits at the top.")
    assert found == [(NoteCode.UNKNOWN_THING, "aye-aye"), (NoteCode.UNKNOWN_THING, "axolotl")]


@pytest.mark.parametrize(
    "text",
    [
        "A kitten naps under an oak.",  # synonyms
        "There's no giraffe here, just a cat.",
        "We don't want an elephant.",
        "The cat is as slow as a snail and looks like a tiger.",
        "The dog dreams of a zebra.",
        "I read a book about dragons.",
        "Take the elephant away.",
        "The teacher laughs, a clock strikes twelve, and the curtain falls.",
        "a kiten in the top left corner, a buss at the bottom",  # slips of the pen
        "What a lovely surprise at the bottom: a picture of everyone.",
        "Hold your horses, the bus isn't here yet.",
        "The elephant in the room is that nobody fed the dog.",
        "The cat wanted to be a tiger.",
        "I forgot my elephant at home.",
        "Please leave out the monster.",
        "We had planned a bonfire, but it was cancelled.",
        "Is that a bear? No, that's the cat.",
        "I'd rather not have a snake. Or a spider.",
        "Last week's picture had a castle with a dragon.",
        "I could eat a horse, said the dog.",
        "Yesterday there was a lorry here. A fir tree, please.",
    ],
)
def test_what_is_only_spoken_of_is_not(text: str) -> None:
    assert noted(text) == []


def test_more_things_than_a_picture_holds() -> None:
    assert noted("A hundred cats.") == noted("Five dogs, two cats and three foxes.") == [(NoteCode.TOO_MANY, "")]
    assert noted("Eight cats.") == noted("The cat meets a dog. The cat likes the dog.", most=2) == []
    assert noted("Three cats.", most=2) == [(NoteCode.TOO_MANY, "")]
    assert noted("I counted nine bananas yesterday.") == []
    assert noted("One hundred and one dogs.") == noted("Fill it with cats. A thousand.") == [(NoteCode.TOO_MANY, "")]
    assert noted("Twenty-four foxs.") == noted("ninety-nine dogs!") == [(NoteCode.TOO_MANY, "")]


def test_a_crowd_without_a_number() -> None:
    (note,) = notes_on_words(
        ["I want so many cats that you cannot count them, fifty or sixty or a million."], LABELS, 8
    )
    assert note.code is NoteCode.TOO_MANY
    assert note.text == "more things were asked for than the 8 that a picture holds"


@pytest.mark.parametrize(
    "text",
    [
        "one cat only. it sits left of the bus and it sits right of the bus, at the same time",
        "Draw what both say: 'The fox goes above the tree.' 'The fox goes below the tree.' One fox, both true.",
    ],
)
def test_one_thing_at_two_places_at_once(text: str) -> None:
    assert [code for code, _ in noted(text)] == [NoteCode.CONTRADICTION]


def test_fewer_in_the_layout_than_the_number_that_was_asked_for() -> None:
    found = notes_on_layout("Three palm trees and a cat.", LABELS, ["palm tree", "cat"], 8)
    assert [(n.code, n.thing) for n in found] == [(NoteCode.TOO_MANY, "palm tree")]
    assert "3 palm trees" in found[0].text
    assert notes_on_layout("Two palm trees.", LABELS, ["palm tree", "palm tree"], 8) == ()
    assert notes_on_layout("Two palm trees. Then one leaves.", LABELS, ["palm tree"], 8) == ()
    assert notes_on_layout("A palm tree.", LABELS, [], 8) == (), "one that is missing is not told by its number"


@pytest.mark.parametrize(
    "text",
    [
        "The cat is on the left. The cat is on the right.",
        "The cat is left of the dog, and the dog is left of the cat.",
        "The fox is above the tree, which is at the top. The fox is at the bottom.",
        "A moon at the top left, at the bottom right.",
        "The fox is higher than the moon, and the moon is higher than the fox.",
        "The cat is left from the dog. The dog is left from the fox. The fox is left from the cat.",
    ],
)
def test_places_that_exclude_each_other(text: str) -> None:
    codes = [code for code, _ in noted(text)]
    assert codes == [NoteCode.CONTRADICTION]


@pytest.mark.parametrize(
    "text",
    [
        "A cat is on the left, and a cat is on the right.",
        "The cat is on the left and the dog on the right.",
        "The cat was on the left, and now it is on the right.",
        "The cat is on the left. No, wait, on the right.",
        "On the left a cat, on the right a dog.",
        "The fox is left of the tree and the dog is left of the fox.",
        "The fox is higher than the tree and lower than the moon.",
    ],
)
def test_places_that_fit(text: str) -> None:
    assert noted(text) == []


def test_parts_are_read_apart_and_an_open_vocabulary_has_no_notes() -> None:
    assert noted("The cat is on the left.", "The cat is on the right.") == []
    assert notes_on_words(["A giraffe."], (), 8) == ()


@pytest.mark.parametrize(("noun", "many"), [("mouse", "mice"), ("palm tree", "palm trees"), ("cherry", "cherries")])
def test_plurals(noun: str, many: str) -> None:
    assert plural_of(noun) == many


def test_a_result_carries_them_and_given_boxes_silence_them(pipe) -> None:  # type: ignore[no-untyped-def]
    text = "A giraffe stands next to the dragon."
    found = pipe.generate([text], steps=1)
    assert {n.thing for n in found.notes if n.code is NoteCode.UNKNOWN_THING} == {"giraffe", "dragon"}
    assert pipe.generate([text], steps=1, boxes="none").notes == ()
    assert [r.notes for r in pipe.generate_several([text], 2, steps=1)] == [found.notes] * 2
    turn = pipe.chat().send(text, steps=1)
    assert [n.code for n in turn.notes] == [n.code for n in found.notes]


def test_the_command_line_says_them(pipe, tmp_path, capsys) -> None:  # type: ignore[no-untyped-def]
    command = ["generate", "--bundle", str(pipe.bundle.root), "--text", "A giraffe.", "--steps", "1"]
    assert main([*command, "--out", str(tmp_path / "x.png"), "--json"]) == 0
    notes = json.loads(capsys.readouterr().out)["notes"]
    assert [(n["code"], n["thing"]) for n in notes if "thing" in n] == [("unknown-thing", "giraffe")]


def test_they_cost_no_import_of_anything_new() -> None:
    code = "import sys; import mgcc_runtime.notes.remarks; print({'torch', 'nltk', 'spacy'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "set()\n"


@pytest.mark.parametrize("words", ["cat", "as a cat", "like a cat", "a mouse on the left", "an okapi waits"])
def test_a_text_without_marks_is_read_once(words: str) -> None:
    """Eight times the words take eight times as long or so, not 64 times: nothing can cancel a request meanwhile."""

    def took_s(count: int) -> float:
        text, tries = " ".join([words] * count), []
        for _ in range(3):
            began_s = time.thread_time()
            noted(text)
            tries.append(time.thread_time() - began_s)
        return min(tries)

    assert took_s(1600) < 20 * took_s(200)
