"""One visitor: what HTTP adds to a picture, the share of a redrawing in a turn, the delay of a cancel, a kill."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

from mgcc_benchmarks.serving.client import Client, Server, serving
from mgcc_benchmarks.serving.figures import Figure, median, percentile
from mgcc_runtime.pipeline import Pipeline

TEXT = "A cat sits under a tree. A balloon floats above the cat."
_LONG_WORDS, _SHARE_OF_CONTEXT = 900, 0.8  # of a text whose time is nearly all reading
_WARM_UP = 3
_POLL_S = 0.001


def overhead(server: Server, pipeline: Pipeline, pairs: int) -> Figure:
    """The same picture by HTTP and by the runtime in turn: the median of the difference in time."""
    client, more_ms = Client(server.url), []
    body = {"prompt": TEXT, "seed": 1}
    for number in range(_WARM_UP + pairs):
        by_http_ms = _took_ms(lambda: client.ask("POST", "/v1/images/generations", body))
        by_hand_ms = _took_ms(lambda: pipeline.generate([TEXT], seed=1))
        if number >= _WARM_UP:
            more_ms.append(by_http_ms - by_hand_ms)
    return Figure("HTTP over the runtime, a picture", median(more_ms), 15, "ms", f"median of {pairs} pairs")


def redraw(server: Server, rounds: int) -> Figure:
    """A moved box, as a share of the turn that it belongs to, both without previews."""
    client = Client(server.url)
    label = client.ask("GET", "/api/info")["labels"][0]
    shares = [_redrawn_share(client, [{"label": label, "xyxy": [1, 1, 16, 16]}]) for _ in range(rounds + 1)][1:]
    return Figure("redraw of a moved box, of a turn", median(shares), 0.6, "", f"median of {rounds}")


def _redrawn_share(client: Client, otherwise: list[dict[str, Any]]) -> float:
    """`otherwise`: boxes for a picture that has none."""
    chat = client.chat()
    began_s = time.perf_counter()
    turn = client.turn(chat, TEXT, preview="none")
    turned_s = time.perf_counter()
    boxes = turn["result"]["pictures"][0]["boxes"] or otherwise
    boxes[0]["xyxy"] = [edge * 0.9 for edge in boxes[0]["xyxy"]]
    redrawn = client.end(client.ask("POST", f"{chat}/turns/0/redraw", {"boxes": boxes, "preview": "none"})["id"])
    ended_s = time.perf_counter()
    client.ask("DELETE", chat)
    assert turn["end"] == redrawn["end"] == "done"
    return (ended_s - turned_s) / (turned_s - began_s)


def cancel(server: Server, rounds: int) -> list[Figure]:
    """From `DELETE` to the job's last event, and from a client's leaving to a free worker; at random moments."""
    client, pick = Client(server.url), random.Random(0)
    words = min(_LONG_WORDS, int(client.ask("GET", "/api/info")["context"] * _SHARE_OF_CONTEXT))
    texts = (TEXT, " ".join(["cat"] * words))
    whole_s = [_turn_s(client, text) for text in texts]
    asked, left = [], []
    for number in range(rounds):
        text, most_s = texts[number % 2], whole_s[number % 2]
        wait_s = pick.uniform(0, 0.9 * most_s)
        asked.append(_cancelled_ms(client, text, wait_s))
        left.append(_left_ms(client, text, wait_s))
    of = f"99th percentile of {rounds}, half of them with {words} words"
    return [
        Figure("cancel by DELETE", percentile(asked, 0.99), 150, "ms", of),
        Figure("cancel by a client that leaves", percentile(left, 0.99), 150, "ms", of),
    ]


def _turn_s(client: Client, text: str) -> float:
    chat = client.chat()
    began_s = time.perf_counter()
    client.turn(chat, text)
    took_s = time.perf_counter() - began_s
    client.ask("DELETE", chat)
    return took_s


def _cancelled_ms(client: Client, text: str, wait_s: float) -> float:
    chat = client.chat()
    job = client.ask("POST", f"{chat}/turns", {"text": text})["id"]
    with closing(client.events(job)) as events:
        next(events)
        time.sleep(wait_s)
        took_ms = _took_ms(lambda: (client.ask("DELETE", f"/api/jobs/{job}"), [*events]))
    client.ask("DELETE", chat)
    return took_ms


def _left_ms(client: Client, text: str, wait_s: float) -> float:
    body = {"prompt": text, "stream": True, "partial_images": 3}
    with client.stream("POST", "/v1/images/generations", body):
        time.sleep(wait_s)
        began_s = time.perf_counter()
    while client.ask("GET", "/health")["running"]:
        time.sleep(_POLL_S)
    return (time.perf_counter() - began_s) * 1e3


def start(server: Server, bundle: Path, threads: int) -> Figure:
    """The time until the server and its page answer, less that of loading the same bundle without a server."""
    code = f"from mgcc_runtime.pipeline import Pipeline; Pipeline.load({str(bundle)!r}, threads={threads})"
    roots = f"import sys; sys.path[:0] = {sys.path[:3]!r}; "
    took_s = _took_ms(lambda: subprocess.run([sys.executable, "-c", roots + code], check=True)) / 1e3
    more_s = max(server.ready_s - took_s, server.ready_s - server.loaded_s)
    return Figure("server and page, beyond loading", more_s, 1, "s", f"ready after {server.ready_s:.2f} s")


def killed(bundle: Path, threads: int) -> Figure:
    """`kill -9` during a turn, then another server: the visitor's chat continues as it would have, bit for bit."""
    with serving(bundle, threads) as first:
        client = Client(first.url)
        chat = client.chat()
        client.turn(chat, TEXT, seed=3)
        recipe = client.ask("GET", f"{chat}/recipe")
        expected = client.turn(chat, "A dog comes.", seed=4)["result"]["pictures"]
        client.ask("POST", f"{chat}/undo", {})
        client.ask("POST", f"{chat}/turns", {"text": "A bird comes.", "n": 4})
        first.kill()
    with serving(bundle, threads) as second:
        client = Client(second.url)
        chat = f"/api/chats/{client.ask('POST', '/api/chats', {'recipe': recipe})['id']}"
        found = client.turn(chat, "A dog comes.", seed=4)["result"]["pictures"]
    return Figure("pictures lost by kill -9 and restart", float(found != expected), 0, "", "but the one in flight")


def _took_ms(work: Callable[[], Any]) -> float:
    began_s = time.perf_counter()
    work()
    return (time.perf_counter() - began_s) * 1e3
