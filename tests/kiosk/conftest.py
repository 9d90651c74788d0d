"""One server for most tests; those that change it or end it start their own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kiosk.serving import Served, serving


@pytest.fixture(scope="session")
def server(tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """With the usual limits."""
    with serving(tiny_bundle, tmp_path_factory.mktemp("server")) as served:
        yield served
        assert served.errors.read_text(encoding="utf-8") == ""  # a server that works says nothing


@pytest.fixture(autouse=True)
def _forgotten(request: pytest.FixtureRequest) -> Iterator[None]:
    """A test leaves nothing in the shared server."""
    yield
    if "server" in request.fixturenames:
        request.getfixturevalue("server").http.delete("/api/session")
