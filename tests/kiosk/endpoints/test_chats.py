"""A visitor's chat through the page's endpoints: the pictures are those of the runtime, bit for bit."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mgcc_runtime import Pipeline, Result
from tests.kiosk.serving import Served, serving
from tests.kiosk.test_security import told
from tests.runtime.golden_data import gradient


@pytest.fixture(scope="module")
def pipe(tiny_bundle: Path) -> Iterator[Pipeline]:
    with Pipeline.load(tiny_bundle, threads=1) as loaded:
        yield loaded


def opened(url: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2])))


def same(picture: dict[str, Any], result: Result) -> bool:
    """The picture that was sent, bit for bit, and its boxes."""
    image = opened(picture["image"])
    assert (image.width, image.height) == (picture["width"], picture["height"])
    boxes = [box.to_json() for box in result.boxes]
    return np.array_equal(np.asarray(image), np.asarray(result.image)) and picture["boxes"] == boxes


def data_url(image: Image.Image) -> str:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def test_turns_are_those_of_the_runtime(server: Served, pipe: Pipeline) -> None:
    chat, own = server.chat(), pipe.chat()
    first = server.turn(chat, "A cat.", seed=3)["result"]
    assert first["turn"] == 0 and same(first["pictures"][0], own.send("A cat.", seed=3))
    parts = [{"text": "A dog sees this."}, {"image": data_url(gradient(20, 15))}, {"text": "It barks."}]
    job = server.done(server.post(f"{chat}/turns", {"parts": parts, "words": 5})["id"])
    result = own.send("A dog sees this.", gradient(20, 15), "It barks.", words=5)
    assert same(job["result"]["pictures"][0], result) and job["result"]["text"] == result.text
    shown = server.get(chat)
    assert shown["turns"][1]["parts"] == [{"text": "A dog sees this."}, {"image": True}, {"text": "It barks."}]
    assert server.http.get(shown["turns"][1]["picture"]["image"]).content == base64.b64decode(
        job["result"]["pictures"][0]["image"].partition(",")[2]
    )


def test_several_pictures_of_one_reading(server: Served, pipe: Pipeline) -> None:
    chat = server.chat()
    found = server.turn(chat, "A cat.", n=3, seed=5)["result"]["pictures"]
    results = pipe.generate_several(["A cat."], 3, seed=5)
    assert [picture["seed"] for picture in found] == [5, 6, 7]
    assert all(same(*pair) for pair in zip(found, results, strict=True))
    assert len(server.get(chat)["turns"]) == 1
    chosen = server.done(server.post(f"{chat}/turns/0/redraw", {"seed": 7})["id"])["result"]["pictures"]
    assert same(chosen[0], results[2]) and server.get(chat)["turns"][0]["picture"]["seed"] == 7


def test_moved_boxes(server: Served, pipe: Pipeline) -> None:
    chat = server.chat()
    boxes = [{"label": "cat", "xyxy": [1, 2, 15, 16]}, {"label": "tree", "xyxy": [16, 8, 30, 31]}]
    first = server.turn(chat, "A cat beside a tree.", boxes=boxes)["result"]["pictures"][0]
    moved = first["boxes"]
    moved[0]["xyxy"] = [10.0, 12.0, 24.0, 26.0]
    again = server.done(server.post(f"{chat}/turns/0/redraw", {"boxes": moved})["id"])["result"]["pictures"][0]
    own = pipe.chat()
    own.send("A cat beside a tree.", boxes=boxes)
    assert same(again, own.redraw(0, boxes=moved)) and again["boxes"][0]["id"] == first["boxes"][0]["id"]
    before = server.get(chat)
    assert before["turns"][0]["picture"]["boxes"] == again["boxes"]
    unknown = [{"label": "dragon", "xyxy": [0, 0, 9, 9]}]
    failed = server.done(server.post(f"{chat}/turns/0/redraw", {"boxes": unknown})["id"])
    assert failed["state"] == "error" and failed["error"]["code"] == "invalid_request"
    assert server.get(chat) == before


def test_undo_and_fork(server: Served, pipe: Pipeline) -> None:
    chat = server.chat()
    told(server.http.post(f"{chat}/undo", json={}), 409, "nothing_to_undo")
    server.turn(chat, "A cat.")
    before = server.get(chat)
    server.done(server.post(f"{chat}/turns/0/redraw", {"seed": 9})["id"])
    server.turn(chat, "A dog.")
    assert len(server.post(f"{chat}/undo")["turns"]) == 1
    assert server.post(f"{chat}/undo")["turns"] == before["turns"]
    fork = f"/api/chats/{server.post(f'{chat}/fork')['id']}"
    own = pipe.chat()
    own.send("A cat.")
    assert same(server.turn(fork, "A bird.")["result"]["pictures"][0], own.send("A bird."))
    assert server.get(chat)["turns"] == before["turns"] and len(server.get(fork)["turns"]) == 2
    assert server.post(f"{chat}/undo")["turns"] == [] and not server.get(chat)["undo"]


def test_a_chat_that_is_deleted_takes_up_no_memory(tiny_bundle: Path, tmp_path: Path) -> None:
    """Though what its jobs have drawn can still be asked for."""
    with serving(tiny_bundle, tmp_path) as server:
        chat = server.chat()
        job = server.turn(chat, "A cat.")
        server.done(server.post(f"{chat}/turns/0/redraw", {"seed": 4})["id"])
        assert server.get("/health")["chat_bytes"] > 10_000
        assert server.http.delete(chat).is_success
        assert server.get("/health")["chat_bytes"] == 0
        assert server.get(f"/api/jobs/{job['id']}")["state"] == "done"


def test_another_server_goes_on_from_a_recipe(server: Served, tiny_bundle: Path, tmp_path: Path) -> None:
    """As after `kill -9`: the page has kept the recipe, and what follows is what would have followed."""
    chat = server.chat()
    server.turn(chat, "A cat.", seed=2)
    server.done(server.post(f"{chat}/turns/0/redraw", {"boxes": "none", "seed": 4})["id"])
    recipe = server.get(f"{chat}/recipe")
    with serving(tiny_bundle, tmp_path) as other:
        back = other.post("/api/chats", {"recipe": recipe})
        place = f"/api/chats/{back['id']}"
        (turn,) = back["turns"]
        assert turn["picture"]["seed"] == 4 and turn["picture"]["image"] is None
        told(other.http.get(f"{place}/turns/0/image"), 410, "picture_dropped")
        pairs = []
        for one, path in ((server, chat), (other, place)):
            redrawn = one.done(one.post(f"{path}/turns/0/redraw", {})["id"])["result"]["pictures"]
            pairs.append((redrawn, one.turn(path, "A dog.")["result"]["pictures"]))
        assert pairs[0] == pairs[1] and other.get(f"{place}/recipe") == server.get(f"{chat}/recipe")
        refused = other.http.post("/api/chats", json={"recipe": {**recipe, "bundle": "0" * 64}})
        assert "bundle" in told(refused, 400, "invalid_request")
        told(other.http.post("/api/chats", json={"recipe": {**recipe, "turns": 5}}), 400, "invalid_request")
        told(other.http.post("/api/chats", json={"recipe": "a chat"}), 400, "invalid_request")


def test_a_refused_or_cancelled_turn_changes_nothing(server: Served) -> None:
    chat = server.chat()
    server.turn(chat, "A cat.")
    before = server.get(chat)
    recipe = server.get(f"{chat}/recipe")
    job = server.post(f"{chat}/turns", {"text": "A dog.", "n": 10, "steps": 50})
    told(server.http.post(f"{chat}/undo", json={}), 409, "chat_busy")
    told(server.http.post(f"{chat}/fork", json={}), 409, "chat_busy")
    for _, name, data in server.events(job["id"]):  # its first picture is drawn and remembered, the second begun
        if name == "boxes" and data["picture"] == 1:
            break
    assert server.http.delete(f"/api/jobs/{job['id']}").is_success
    assert server.done(job["id"])["state"] == "cancelled"
    assert server.get(chat) == before and server.get(f"{chat}/recipe") == recipe


@pytest.mark.parametrize(
    ("body", "param"),
    [({}, "text"), ({"text": "A", "parts": []}, "text"), ({"text": 5}, "text"), ({"txt": "A cat."}, "txt"),
     ({"text": " "}, None), ({"parts": []}, None), ({"parts": [{"picture": "x"}]}, "parts"),
     ({"parts": [{"image": "http://127.0.0.1/x.png"}]}, "part 1"), ({"text": "A", "n": 11}, "n"),
     ({"text": "A", "n": True}, "n"), ({"text": "A", "seed": -1}, None),
     ({"text": "A", "preview": "blurred"}, "preview"), ({"text": "A", "grounder": "head"}, None),
     ({"text": "A", "grounder": "in-context"}, None),
     ({"text": "A", "boxes": [{"label": "cat", "xyxy": [0, 0, 99, 9]}]}, None), ({"text": "x" * 9000}, None)],
)  # fmt: skip
def test_bad_turns_are_refused_at_once(server: Served, body: dict[str, Any], param: str | None) -> None:
    answer = server.http.post(f"{server.chat()}/turns", json=body)
    told(answer, 400, "invalid_request")
    assert answer.json()["error"]["param"] == param


def test_bad_bodies_are_refused(server: Served) -> None:
    chat = server.chat()
    for content, kind, status, code in (
        (b"{", "application/json", 400, "invalid_request"), (b"[]", "application/json", 400, "invalid_request"),
        (b'{"text": "\\ud800"}', "application/json", 400, "invalid_request"),
        (b'{"text": "a", "text": "b"}', "application/json", 400, "invalid_request"),
        (b'{"text": "A cat."}', "text/plain", 415, "unsupported_media_type"),
        (json.dumps({"a": 0}).encode() * 10**7, "application/json", 413, "body_too_large"),
    ):  # fmt: skip
        told(server.http.post(f"{chat}/turns", content=content, headers={"content-type": kind}), status, code)
    told(server.http.post(f"{chat}/turns/5/redraw", json={}), 404, "not_found")
    told(server.http.put(f"{chat}/turns", json={}), 405, "method_not_allowed")
    told(server.http.get("/api/nothing"), 404, "not_found")
