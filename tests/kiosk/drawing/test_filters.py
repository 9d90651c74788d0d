"""Content filters: word lists, and a class of the operator's own, before and after."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
from PIL import Image

from mgcc_kiosk.drawing.filters import Filters, WordList, Words, load_filter
from mgcc_kiosk.errors import ApiError, Code
from mgcc_runtime import OptionError
from tests.kiosk.serving import serving
from tests.kiosk.test_security import told

TINY_GIF = "R0lGODlhAQABAAAAACwAAAAAAQABAAA="


class NoDarkPictures:
    """A filter as an operator writes one."""

    def before(self, texts: Sequence[str]) -> str | None:
        return "not at night, please" if any("night" in text for text in texts) else None

    def after(self, image: Image.Image | None, text: str) -> str | None:
        return "that picture is not for here"


def words(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "words.txt"
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("kind", "text", "taken"),
    [(Words.ALLOWED, "A CAT, a tree!", True), (Words.ALLOWED, "A dragon", False), (Words.ALLOWED, "", True),
     (Words.ALLOWED, "a cat’s", True),
     (Words.BLOCKED, "A dog", True), (Words.BLOCKED, "the Cat's tail", False), (Words.BLOCKED, "(TREE)", False),
     (Words.BLOCKED, "Ångström trees", True)],
)  # fmt: skip
def test_word_lists(tmp_path: Path, kind: Words, text: str, taken: bool) -> None:  # noqa: FBT001
    found = WordList.read(words(tmp_path, "# those of the story\ncat tree  # two\nA\n"), kind)
    if kind is Words.BLOCKED:
        found = WordList.read(words(tmp_path, "cat\ntree\n"), kind)
    assert (found.before([text]) is None) is taken


def test_a_list_of_nothing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="has no word"):
        WordList.read(words(tmp_path, "# nothing\n\n"), Words.ALLOWED)


def test_own_filters_are_loaded_by_name() -> None:
    filters = Filters([load_filter(f"{__name__}:NoDarkPictures")])
    assert filters.judge_pictures and not filters.lists_words
    with pytest.raises(ApiError, match="not at night") as caught:
        filters.check_texts(["A cat at night."])
    assert caught.value.code is Code.MODERATION_BLOCKED
    for name in ("nothing:Here", f"{__name__}:words", "json:JSONDecoder", "json", f"{__name__}:None"):
        with pytest.raises(OptionError):
            load_filter(name)


def test_a_server_with_a_word_list(tiny_bundle: Path, tmp_path: Path) -> None:
    allowed = words(tmp_path, "a cat sits under the tree\n")
    with serving(tiny_bundle, tmp_path, "--allowed-words", str(allowed), "--no-pictures") as served:
        told_of = served.get("/api/info")
        assert (told_of["text_taken"], told_of["pictures_taken"]) == ("listed", False)
        chat = served.chat()
        assert served.turn(chat, "A cat sits under the tree.")["state"] == "done"
        refused = served.http.post(f"{chat}/turns", json={"text": "A cat sits under the gallows."})
        assert "gallows" not in told(refused, 400, "moderation_blocked")
        told(served.http.post("/v1/images/generations", json={"prompt": "A gallows."}), 400, "moderation_blocked")
        recipe = served.get(f"{chat}/recipe")
        recipe["turns"][0]["parts"][0]["text"] = "gallows"
        told(served.http.post("/api/chats", json={"recipe": recipe}), 400, "moderation_blocked")
        recipe["turns"][0]["parts"][0] = {"image": TINY_GIF}
        assert "picture" in told(served.http.post("/api/chats", json={"recipe": recipe}), 400, "invalid_request")
        picture = {"parts": [{"text": "A cat"}, {"image": f"data:image/gif;base64,{TINY_GIF}"}]}
        told(served.http.post(f"{chat}/turns", json=picture), 400, "invalid_request")


def test_a_text_that_a_recipe_says_was_written_is_judged(tiny_bundle: Path, tmp_path: Path) -> None:
    blocked = words(tmp_path, "gallows\n")
    with serving(tiny_bundle, tmp_path, "--blocked-words", str(blocked)) as served:
        chat = served.chat()
        served.turn(chat, "A cat.")
        recipe = served.get(f"{chat}/recipe")
        assert served.http.post("/api/chats", json={"recipe": recipe}).is_success
        recipe["turns"][0]["picture"]["written"]["text"] = "gallows"
        told(served.http.post("/api/chats", json={"recipe": recipe}), 400, "moderation_blocked")


def test_a_picture_that_is_refused_is_never_shown(tiny_bundle: Path, tmp_path: Path) -> None:
    """Neither whole nor as a preview, and the chat does not go on from it."""
    with serving(tiny_bundle, tmp_path, "--filter", "tests.kiosk.drawing.test_filters:NoDarkPictures") as served:
        chat = served.chat()
        job = served.post(f"{chat}/turns", {"text": "A cat.", "words": 4})["id"]
        events = list(served.events(job))
        assert events[-1][1] == "error" and events[-1][2]["error"]["code"] == "moderation_blocked"
        assert not any(data.get("image") for _, _, data in events) and "text" not in {name for _, name, _ in events}
        assert served.get(chat)["turns"] == [] and served.get(f"{chat}/recipe")["turns"] == []
        answer = served.http.post("/v1/images/generations", json={"prompt": "A cat."})
        assert "not for here" in told(answer, 400, "moderation_blocked")
        for path, body in (
            ("images/generations", {"prompt": "A cat.", "partial_images": 2}),
            ("chat/completions", {"messages": [{"role": "user", "content": "A cat."}]}),
            ("responses", {"input": "A cat.", "tools": [{"type": "image_generation", "partial_images": 2}]}),
        ):
            streamed = served.http.post(f"/v1/{path}", json={**body, "stream": True}).text
            assert "not for here" in streamed and "b64_json" not in streamed and "data:image" not in streamed
            assert "partial_image_b64" not in streamed
