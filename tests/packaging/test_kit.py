"""A device kit: made here, installed and played by its own README's commands with the network cut off."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from mgcc_runtime.bundle.folder import Bundle
from mgcc_runtime.kit.make import _extras
from mgcc_runtime.kit.own_wheel import checkout
from mgcc_runtime.kit.readme import KitText
from mgcc_runtime.kit.target import Processor, Target, Use
from mgcc_runtime.kit.wheels import closure, fetch
from mgcc_runtime.names import PLAN

from .conftest import OWN_PYTHON, ROOT, wheelhouse
from .test_pythons import find_python

HERE = Target(OWN_PYTHON, Processor(os.uname().machine))
WANTED = ("numpy", "tokenizers", "onnxruntime", "pip")


@pytest.fixture
def offline_pip(monkeypatch: pytest.MonkeyPatch) -> None:
    """pip has the wheels that set-up fetched, and no index."""
    serve(monkeypatch, wheelhouse(OWN_PYTHON))


def serve(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))


def mgcc_kit(bundle: Path, out: Path, *more: str | Path, python: str = HERE.python) -> subprocess.CompletedProcess[str]:
    target = ("--python", python, "--platform", HERE.processor.value)
    command = [sys.executable, "-m", "mgcc_runtime", "kit", "--bundle", bundle, *target, "--out", out, *more]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def commands_of(kit: Path) -> list[str]:
    """The README's commands, a line each."""
    (block,) = re.findall(r"^```bash\n(.*?)^```", (kit / "README.md").read_text(encoding="utf-8"), re.M | re.S)
    return str(block).splitlines()


def cut_off() -> Sequence[str]:
    """What runs a command with no network but a loopback that is down; skips where this is not allowed."""
    for way in (("unshare", "--net"), ("unshare", "--map-root-user", "--net")):
        if shutil.which("unshare") and subprocess.run([*way, "true"], capture_output=True, check=False).returncode == 0:
            return way
    pytest.skip("no network namespace can be made here; as root, or where user namespaces are allowed, this runs")


@pytest.mark.parametrize("python", [OWN_PYTHON, pytest.param("3.10", marks=pytest.mark.slow)])
def test_its_own_five_commands_install_and_draw_without_a_network(
    python: str, tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On JetPack 6's Python too, for which the kit is made by another."""
    interpreter = Path(sys.executable) if python == OWN_PYTHON else find_python(python)
    if interpreter is None:
        pytest.skip(f"no Python {python} on PATH or in pyenv; `pyenv install {python}` makes this run")
    with monkeypatch.context() as patch:
        serve(patch, wheelhouse(python))
        made = mgcc_kit(tiny_bundle, tmp_path / "made", "--json", python=python)
    assert made.returncode == 0, made.stderr
    told = json.loads(made.stdout)
    assert told["wheels"] == len([*(tmp_path / "made" / "wheels").iterdir()]) and told["extras"] == ["cpu"]
    kit = (tmp_path / "made").rename(tmp_path / "carried")  # nothing in it knows where it was made
    (tmp_path / "programs").mkdir()
    (tmp_path / "programs" / f"python{python}").symlink_to(interpreter)
    monkeypatch.setenv("PATH", str(tmp_path / "programs"), prepend=os.pathsep)
    monkeypatch.setenv("PIP_NO_COMPILE", "1")  # to save the tests' time

    commands, without_network = commands_of(kit), cut_off()
    told_by = [*without_network, "cat", "/proc/net/dev"]
    reached = subprocess.run(told_by, capture_output=True, text=True, check=True).stdout
    for command in commands:
        typed = [*without_network, "bash", "-ec", command]
        done = subprocess.run(typed, cwd=kit, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"

    assert len(commands) == 5
    assert re.findall(r"^\s*(\w+):", reached, re.M) == ["lo"]
    assert (kit / "venv" / "lib" / f"python{python}").is_dir()
    with Image.open(kit / "first.png") as picture:
        assert picture.size == (32, 32)


@pytest.fixture(scope="module")
def kit(tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A kit for this Python; tests only read it."""
    with pytest.MonkeyPatch.context() as patch:
        serve(patch, wheelhouse(OWN_PYTHON))
        out = tmp_path_factory.mktemp("kit") / "kit"
        made = mgcc_kit(tiny_bundle, out)
    assert made.returncode == 0, made.stderr
    return out


def test_every_file_has_its_hash(kit: Path) -> None:
    listed = dict(
        reversed(line.split("  ", 1)) for line in (kit / "SHA256SUMS").read_text(encoding="utf-8").splitlines()
    )
    files = {path.relative_to(kit).as_posix(): path for path in kit.rglob("*") if path.is_file()}
    assert set(listed) == set(files) - {"SHA256SUMS"}
    assert all(hashlib.sha256(files[name].read_bytes()).hexdigest() == digest for name, digest in listed.items())
    assert {"README.md", "bundle/manifest.json"} <= set(listed)


def test_the_first_command_finds_an_altered_file(kit: Path, tmp_path: Path) -> None:
    carried = shutil.copytree(kit, tmp_path / "carried")
    (carried / "README.md").write_text("other", encoding="utf-8")
    done = subprocess.run(["bash", "-ec", commands_of(kit)[0]], cwd=carried, capture_output=True, check=False)
    assert done.returncode != 0


@pytest.mark.slow
def test_what_another_python_needs_is_fetched_too(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """pip of Python 3.11 leaves out what only `python_version < "3.11"` asks for."""
    serve(monkeypatch, wheelhouse("3.10"))
    got = {path.name.split("-")[0] for path in fetch(WANTED, Target("3.10", HERE.processor), tmp_path / "wheels")}
    assert {"exceptiongroup", "tomli", "numpy", "pip"} <= got


def test_what_is_lacking_is_told_by_the_target_s_python() -> None:
    wheels = [path for path in wheelhouse("3.10").iterdir() if not path.name.startswith(("exceptiongroup", "tomli-"))]

    assert closure(WANTED, wheels, Target("3.10", HERE.processor))[1] == ["exceptiongroup>=1.0.2", "tomli>=1.1.0"]
    needed, lacking = closure(WANTED, wheels, Target("3.13", HERE.processor))
    assert lacking == []
    assert {path.name.split("-")[0] for path in needed} >= {"numpy", "huggingface_hub", "pip"}


def test_wheels_that_nothing_asks_for_stay_out() -> None:
    needed, lacking = closure(["numpy"], [*wheelhouse(OWN_PYTHON).iterdir()], HERE)
    assert [path.name.split("-")[0] for path in needed] == ["numpy"] and lacking == []


@pytest.mark.parametrize(
    ("engine", "extras"),
    [("onnxruntime", ("cpu",)), ("openvino", ("cpu", "openvino")), ("onnxruntime_gpu", ("cpu", "gpu"))],
)
def test_extras_are_those_of_the_bundle_s_engines(tiny_bundle: Path, engine: str, extras: tuple[str, ...]) -> None:
    bundle = Bundle.open(tiny_bundle)
    stages = {**bundle.manifest.stages, "unet": replace(bundle.manifest.stages["unet"], engine=engine)}
    assert _extras(Bundle(bundle.root, replace(bundle.manifest, stages=stages)), Use.RUNTIME) == extras


def test_a_bundle_whose_engines_are_built_on_the_device_needs_no_onnxruntime(tiny_bundle: Path) -> None:
    bundle = Bundle.open(tiny_bundle)
    planned = replace(bundle.manifest, files={**bundle.manifest.files, PLAN: bundle.manifest.files["tokenizer.json"]})
    assert _extras(Bundle(bundle.root, planned), Use.RUNTIME) == ("jetson",)


def test_the_readme_of_such_a_bundle_builds_engines_and_sees_the_system_s_tensorrt() -> None:
    text = KitText(
        Target("3.10", Processor.AARCH64), Use.RUNTIME, "story", "jetson", ("jetson",), "pip-26-none-any.whl",
        tensorrt=True, gpu=True, builds_engines=True,
    )  # fmt: skip
    assert text.commands[1:] == (
        "python3.10 -m venv --without-pip --system-site-packages venv",
        "venv/bin/python wheels/pip-26-none-any.whl/pip install --no-index --find-links wheels 'mgcc-edge[jetson]'",
        "venv/bin/python -m mgcc_export.device_build --bundle bundle --out engines",
        "venv/bin/mgcc verify --bundle engines",
    )
    assert "python3-libnvinfer" in str(text)


def test_a_wheel_is_built_from_a_checkout_only() -> None:
    assert checkout() == ROOT


@pytest.mark.slow
def test_an_installation_asks_for_the_wheel(device: Path, tiny_bundle: Path, tmp_path: Path) -> None:
    out = tmp_path / "kit"
    asked = ("kit", "--bundle", tiny_bundle, "--python", "3.12", "--platform", "aarch64", "--out", out)
    done = subprocess.run([device / "mgcc", *asked], capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 1
    assert re.fullmatch(r"mgcc: .* expected a checkout .*; give --wheel FILE\.whl, .*", done.stderr.splitlines()[-1])
    assert [*tmp_path.iterdir()] == []


REFUSED = {
    "python": (("--python", "3.9"), "argument --python: invalid choice: '3.9'"),
    "platform": (("--platform", "riscv64"), "argument --platform: invalid choice: 'riscv64'"),
    "bundle": (("--bundle", "nowhere"), "bundle nowhere is not a folder"),
    "wheel": (("--wheel", "mgcc_edge-9.9-py3-none-any.whl"), "is no wheel of mgcc-edge"),
    "out": (("--out", "full"), "full exists and is no kit, so it is not replaced"),
    "a file": (("--out", "file"), "kit file cannot be a folder (Not a directory)"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_bad_input_is_one_sentence(name: str, tiny_bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine").touch()
    (tmp_path / "file").touch()
    before = sorted(tmp_path.rglob("*"))
    given = {"--bundle": tiny_bundle, "--python": "3.12", "--platform": "x86_64", "--out": "kit"}
    more, sentence = REFUSED[name]
    words = [word for pair in {**given, more[0]: more[1]}.items() for word in pair]

    done = subprocess.run(
        [sys.executable, "-m", "mgcc_runtime", "kit", *words], cwd=tmp_path, capture_output=True, text=True, check=False
    )

    assert done.returncode == (1 if name in {"out", "a file"} else 2)
    assert sentence in done.stderr.splitlines()[-1] and "Traceback" not in done.stderr
    assert sorted(tmp_path.rglob("*")) == before


def test_a_kit_that_fails_leaves_the_older_one(
    kit: Path, tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    older = shutil.copytree(kit, tmp_path / "kit")
    serve(monkeypatch, tmp_path)  # no wheels here

    done = mgcc_kit(tiny_bundle, older)

    assert done.returncode == 1
    last = done.stderr.splitlines()[-1]
    assert last.startswith(f"mgcc: wheels for {HERE} cannot be fetched (") and "No matching distribution" in last
    assert [path.name for path in tmp_path.iterdir()] == ["kit"]
    assert (older / "SHA256SUMS").read_bytes() == (kit / "SHA256SUMS").read_bytes()


@pytest.mark.slow
def test_an_older_kit_is_replaced_whole(offline_pip: None, kit: Path, tiny_bundle: Path, tmp_path: Path) -> None:
    older = shutil.copytree(kit, tmp_path / "kit")
    (older / "wheels" / "stale-1.0-py3-none-any.whl").touch()

    done = mgcc_kit(tiny_bundle, older)

    assert done.returncode == 0, done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["kit"]
    assert sorted(p.name for p in (older / "wheels").iterdir()) == sorted(p.name for p in (kit / "wheels").iterdir())


def test_an_altered_bundle_gets_no_kit(tiny_bundle: Path, tmp_path: Path) -> None:
    altered = shutil.copytree(tiny_bundle, tmp_path / "bundle")
    (altered / "tokenizer.json").write_text("{}", encoding="utf-8")
    done = mgcc_kit(altered, tmp_path / "kit")
    assert done.returncode == 2 and "tokenizer.json is truncated" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]


def test_a_kit_does_not_lie_in_its_bundle(tiny_bundle: Path, tmp_path: Path) -> None:
    done = mgcc_kit(tiny_bundle, tiny_bundle / "kit")
    assert done.returncode == 1 and "lie in each other" in done.stderr
    assert not (tiny_bundle / "kit").exists()
