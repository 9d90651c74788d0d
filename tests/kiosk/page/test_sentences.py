"""Every sentence that can be tapped together is one that the model is meant for; languages and art are complete."""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree
from pathlib import Path
from typing import Any

import pytest

from mgcc_ref.story.world.layout_words import PLACES, RELATIONS
from mgcc_ref.story.world.scene import Background
from mgcc_ref.story.world.sprites import LABELS
from mgcc_runtime.notes.remarks import notes_on_words
from tests.kiosk.page.browsing import Visitor
from tools.copy_page_art import MOST_BYTES, PAGE, file_name, pictogram

LANGUAGES = ("en", "de")
_SENTENCES = """async (language) => {
  const { textOf } = await import("/js/sentence.js");
  const words = await (await fetch(`/i18n/${language}.json`)).json();
  const { things, places, cells, relations } = await (await fetch("/world.json")).json();
  const labels = Object.keys(things);
  const thing = (label, more) => ({ kind: "thing", label, known: false, action: "appear", where: null, ...more });
  const found = {};
  const add = (name, clause, there = []) => { found[name] = textOf([clause], there, words); };
  labels.forEach((label, k) => {
    const others = [labels[(k + 1) % labels.length], labels[(k + 2) % labels.length]];
    add(`${label} there`, thing(label));
    for (const cell of cells) {
      add(`${label} ${cell}`, thing(label, { where: { cell } }));
      add(`${label} moves ${cell}`, thing(label, { known: true, action: "move", where: { cell } }), [label]);
    }
    for (const relation of relations) {
      const where = { relation, anchors: relation === "between" ? others : others.slice(0, 1) };
      add(`${label} ${relation}`, thing(label, { where }));
      add(`another ${label} ${relation}`, thing(label, { where }), [label, ...others]);
    }
    add(`${label} leaves`, thing(label, { known: true, action: "leave" }), [label]);
    add(`${label} swaps`, thing(label, { known: true, action: "swap", other: others[0] }), [label]);
  });
  for (const place of places) {
    for (const travel of [true, false]) add(`${place} ${travel}`, { kind: "setting", place, travel });
  }
  return found;
}"""


def words_of(language: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((PAGE / "i18n" / f"{language}.json").read_text(encoding="utf-8"))
    return found


@pytest.fixture(scope="module")
def world() -> dict[str, Any]:
    found: dict[str, Any] = json.loads((PAGE / "world.json").read_text(encoding="utf-8"))
    return found


def test_english_sentences_are_understood(visitor: Visitor):
    sentences = visitor.come().page.evaluate(_SENTENCES, "en")
    assert len(sentences) > 32 * 30
    noted = {text: notes_on_words([text], LABELS, 5) for text in sentences.values()}
    assert {text: notes for text, notes in noted.items() if notes} == {}
    assert sentences["cat left of"] == "A cat sits left of a dog."
    assert sentences["another cat left of"] == "Another cat sits left of the dog."
    assert sentences["apple there"] == "There is an apple."
    assert sentences["sun moves top"] == "The sun moves and is now at the top."


def test_german_sentences_have_their_cases(visitor: Visitor):
    sentences = visitor.come().page.evaluate(_SENTENCES, "de")
    assert not [text for text in sentences.values() if "{" in text or "undefined" in text]
    assert sentences["cat left of"] == "Eine Katze sitzt links von einem Hund."
    assert sentences["another fox under"] == "Noch ein Fuchs sitzt unter dem Löwen."
    assert sentences["bicycle between"] == "Ein Fahrrad steht zwischen einem Ball und einem Luftballon."
    assert sentences["cat swaps"] == "Die Katze und der Hund tauschen die Plätze."


def test_the_page_knows_the_world(world):
    assert tuple(world["things"]) == LABELS
    assert set(world["places"]) == set(Background)
    assert tuple(world["cells"]) == PLACES
    assert set(world["relations"]) < set(RELATIONS)


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_language_is_whole(world, language):
    words, english = words_of(language), words_of("en")
    for part, names in (("things", world["things"]), ("places", world["places"]), ("cells", world["cells"])):
        assert list(words[part]) == list(names) or set(words[part]) == set(names)
    assert set(words["relations"]) == set(world["relations"])
    assert {entry[0] for entry in words["things"].values()} <= set(words["articles"])
    for part in ("clauses", "ui"):
        slots = {key: set(re.findall(r"\{(\w+)\}", text)) for key, text in words[part].items()}
        assert slots == {key: set(re.findall(r"\{(\w+)\}", text)) for key, text in english[part].items()}


def test_every_text_of_the_page_is_in_the_languages():
    scripts = "\n".join(path.read_text(encoding="utf-8") for path in (PAGE / "js").glob("*.js"))
    markup = (PAGE / "index.html").read_text(encoding="utf-8")
    asked = set(re.findall(r'\bt\("(\w+)"', scripts)) | set(re.findall(r'data-(?:text|label)="(\w+)"', markup))
    texts = set(words_of("en")["ui"])
    assert asked <= texts
    quoted = set(re.findall(r'"(\w+)"', scripts)) | asked
    assert texts <= quoted, "texts that nothing shows"


def test_icons_and_art_are_there(world):
    scripts = "\n".join(path.read_text(encoding="utf-8") for path in (PAGE / "js").glob("*.js"))
    symbols = xml.etree.ElementTree.parse(PAGE / "icons.svg").getroot()  # noqa: S314 (our own file)
    icons = {symbol.attrib["id"] for symbol in symbols}
    assert set(re.findall(r'(?:iconName: |icon\()"([\w-]+)"', scripts)) <= icons
    assert {f"rel-{relation.replace(' ', '-')}" for relation in world["relations"]} <= icons
    for label, name in world["things"].items():
        assert file_name(label) == f"{name}.svg"
        assert (PAGE / "art" / file_name(label)).read_text(encoding="utf-8") == pictogram(label), (
            "run tools/copy_page_art.py"
        )
    assert (PAGE / "art" / "LICENSE.txt").read_text(encoding="utf-8").startswith("Attribution-ShareAlike 4.0")
    art = [path for folder in ("art", "places") for path in (PAGE / folder).iterdir()]
    assert sum(path.stat().st_size for path in art) <= MOST_BYTES


def test_no_file_names_another_machine():
    allowed = {"http://www.w3.org/2000/svg", "https://creativecommons.org/licenses/by-sa/4.0/"}
    for path in PAGE.rglob("*"):
        if path.suffix in (".js", ".css", ".html", ".json", ".svg"):
            found = re.findall(r"(?:https?:)?//[\w.-]+\.[a-z]{2,}[\w./-]*", path.read_text(encoding="utf-8"))
            assert set(found) <= allowed, path


def test_files_are_short():
    long = {path.name: path.read_text(encoding="utf-8").count("\n") for path in _sources()}
    assert {name: lines for name, lines in long.items() if lines > 400} == {}


def _sources() -> list[Path]:
    return [*(PAGE / "js").glob("*.js"), *(PAGE / "style").glob("*.css"), PAGE / "index.html"]
