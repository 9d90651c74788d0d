"""Many visitors at once: no error but a stated limit, and no growth of memory."""

from __future__ import annotations

import threading
import time
from collections import Counter
from typing import Any

from mgcc_benchmarks.serving.client import Client, Refused, Server
from mgcc_benchmarks.serving.figures import Figure
from mgcc_benchmarks.serving.single import TEXT

STATED = ("queue_full", "too_many_jobs")  # limits whose answer states how long to wait
_FLAT_AFTER, _FLAT_MB = 20, 8.0  # requests until allocators stop growing; MB, less than a full chat's cache


class Load:
    """`requests` by `clients`, each a visitor of its own: pictures, chats with redrawings, and streams in turn."""

    def __init__(self, server: Server, requests: int, clients: int) -> None:
        self._server, self._requests, self._clients = server, requests, clients
        self._lock, self._begun, self._done = threading.Lock(), 0, 0
        self.ends: Counter[str] = Counter()
        self.rss_mb: list[float] = []  # after each request

    def run(self) -> list[Figure]:
        threads = [threading.Thread(target=self._visit) for _ in range(self._clients)]
        began_s = time.perf_counter()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        took_s = time.perf_counter() - began_s
        errors = sum(count for end, count in self.ends.items() if end not in ("done", *STATED))
        after = self.rss_mb[min(_FLAT_AFTER, len(self.rss_mb) - 1) :]
        of = f"{self._requests} requests by {self._clients} clients in {took_s:.0f} s: {dict(self.ends)}"
        grown_mb = max(0.0, sum(after[-5:]) / len(after[-5:]) - after[0])
        told = f"from {after[0]:.0f} MB after {_FLAT_AFTER} to {after[-1]:.0f} MB, at most {max(after):.0f}"
        return [
            Figure("errors but stated limits", float(errors), 0, "", of),
            Figure("memory after the first 20", grown_mb, _FLAT_MB, "MB", told),
        ]

    def _visit(self) -> None:
        client = Client(self._server.url)
        while (number := self._next()) is not None:
            try:
                end = self._one(client, number)
            except Refused as refused:
                end = str(refused.code)
                time.sleep(refused.retry_after_s if end in STATED else 0)
            except (OSError, ValueError, KeyError) as error:
                end = type(error).__name__
            rss_mb = client.ask("GET", "/health")["rss_mb"]
            with self._lock:
                self.ends[end] += 1
                self.rss_mb.append(rss_mb)
        client.ask("DELETE", "/api/session")
        client.close()

    def _next(self) -> int | None:
        with self._lock:
            self._begun += 1
            return self._begun if self._begun <= self._requests else None

    def _one(self, client: Client, number: int) -> str:
        if number % 3 == 0:
            client.ask("POST", "/v1/images/generations", {"prompt": TEXT, "seed": number})
            return "done"
        if number % 3 == 1:
            return self._chat(client, number)
        body: dict[str, Any] = {"prompt": TEXT, "stream": True, "partial_images": 2, "seed": number}
        with client.stream("POST", "/v1/images/generations", body) as answer:
            text = answer.read()
        return "done" if b"image_generation.completed" in text else "no picture"

    def _chat(self, client: Client, number: int) -> str:
        chat = client.chat()
        try:
            end = client.turn(chat, TEXT, seed=number)["end"]
            if end == "done":
                job = client.ask("POST", f"{chat}/turns/0/redraw", {"seed": number + 1})
                end = client.end(job["id"])["end"]
            return end
        finally:
            client.ask("DELETE", chat)
