"""Hub ids: a hub of this machine serves a repository as OPT's is, with pickled weights alone."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch

from mgcc_ref.published.hub import find_folder
from mgcc_ref.weights import WeightsError
from tests.published import publish_opt

ROOT = Path(__file__).parents[3]
COMMIT = "0123456789abcdef0123456789abcdef01234567"
REPOSITORY = "facebook/opt-toy"


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("opt")
    model = publish_opt(folder)
    (folder / "model.safetensors").unlink()
    torch.save(model.state_dict(), folder / "pytorch_model.bin")
    return folder


@pytest.fixture(scope="module")
def hub(repository: Path) -> Iterator[dict[str, str]]:
    """The environment of a process that asks this hub."""

    class Hub(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.answer(b"", body=False)

        def do_GET(self) -> None:
            self.answer(b"", body=True)

        def answer(self, data: bytes, *, body: bool) -> None:
            path = self.path.partition("?")[0]
            file = repository / path.rpartition("/")[2]
            if path.startswith(f"/api/models/{REPOSITORY}/tree/"):
                files = [{"type": "file", "path": f.name, "size": f.stat().st_size, "oid": COMMIT}
                         for f in sorted(repository.iterdir())]  # fmt: skip
                data = json.dumps(files).encode()
            elif path.startswith(f"/api/models/{REPOSITORY}"):
                names = [{"rfilename": f.name} for f in sorted(repository.iterdir())]
                data = json.dumps({"id": REPOSITORY, "sha": COMMIT, "siblings": names, "tags": []}).encode()
            elif path.startswith(f"/{REPOSITORY}/resolve/") and file.is_file():
                data = file.read_bytes()
            else:
                self.send_error(404)
                return
            self.send_response(200)
            self.send_header("Content-Length", str(len(data)))
            self.send_header("ETag", f'"{hashlib.sha256(data).hexdigest()}"')
            self.send_header("X-Repo-Commit", COMMIT)
            self.end_headers()
            if body:
                self.wfile.write(data)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield {"HF_ENDPOINT": f"http://127.0.0.1:{server.server_port}", "HF_HUB_DISABLE_XET": "1", "no_proxy": "127.0.0.1"}
    server.shutdown()
    thread.join()


def run(arguments: list[str], hub: dict[str, str], home: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, **hub, "HF_HOME": str(home), "HF_HUB_OFFLINE": "0"}
    return subprocess.run(
        [sys.executable, *arguments], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )


@pytest.mark.slow
def test_pickled_weights_of_a_hub_id_are_refused_with_the_command_that_converts_them(
    hub: dict[str, str], repository: Path, tmp_path: Path
) -> None:
    code = (
        "from dataclasses import replace; from pathlib import Path; from mgcc_ref.llm_layers import open_layers;"
        "from mgcc_ref.published.llm import llm_config; from mgcc_ref.published.settings import read_settings;"
        f"at = Path({str(repository)!r}); found = llm_config(at, read_settings(at));"
        f"open_layers(replace(found, source={REPOSITORY!r}))"
    )
    refused = run(["-c", code], hub, tmp_path / "home").stderr.splitlines()[-1]
    command = f"python tools/convert_checkpoint.py --source {REPOSITORY} --out DIR"
    assert "holds no *.safetensors; pickled weights are not read" in refused and f"`{command}`" in refused
    words = command.replace("DIR", str(tmp_path / "llm")).split()[1:]
    done = run(words, hub, tmp_path / "home")
    assert done.returncode == 0, done.stderr
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= {f.name for f in (tmp_path / "llm").iterdir()}


def test_what_is_neither_a_path_nor_an_id_is_not_asked_for(tmp_path: Path) -> None:
    for source in (str(tmp_path / "nothing" / "here"), "none", "./llm"):
        with pytest.raises(WeightsError, match="is neither a local path nor a hub id such as"):
            find_folder(source, "language model")
