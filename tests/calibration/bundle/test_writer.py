"""The output folder: one build at a time, replaced whole or not at all."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from mgcc_calibration.bundle.writer import BundleWriter
from mgcc_runtime.bundle.folder import Bundle, read_manifest
from mgcc_runtime.bundle.output_folder import BusyError, OutputFolderError
from mgcc_runtime.errors import BundleError, OutputError
from mgcc_runtime.files import replace_folder


@pytest.fixture
def bundle(tiny_bundle: Path, tmp_path: Path) -> Path:
    """A copy of the tiny bundle."""
    return Path(shutil.copytree(tiny_bundle, tmp_path / "bundle"))


def test_a_second_build_into_the_folder_is_refused_at_once(tmp_path: Path) -> None:
    out = tmp_path / "bundle"
    with BundleWriter(out), pytest.raises(BusyError, match=r"another build writes into .*bundle now; wait"):
        BundleWriter(out).__enter__()
    with BundleWriter(out), BundleWriter(tmp_path / "elsewhere"):
        pass


def test_a_build_that_fails_leaves_the_bundle_before_it(bundle: Path) -> None:
    before = (bundle / "manifest.json").read_bytes()
    writer = BundleWriter(bundle)
    with pytest.raises(BusyError), writer:
        _write_half(writer)
    assert (bundle / "manifest.json").read_bytes() == before
    Bundle.open(bundle)
    assert not list(bundle.parent.glob("*.partial"))


def _write_half(writer: BundleWriter) -> None:
    writer.add_bytes("tokenizer.json", b"{}")
    raise BusyError("stopped")


def test_what_a_killed_build_left_does_not_load_and_is_cleared(tmp_path: Path) -> None:
    out = tmp_path / "bundle"
    left = tmp_path / ".bundle.partial"
    left.mkdir()
    (left / "unet.onnx").write_bytes(b"half")
    for folder in (left, out):
        with pytest.raises(BundleError):
            Bundle.open(folder)
    with BundleWriter(out) as writer:
        assert not list(writer.staging.iterdir())


def test_names_of_any_length(bundle: Path) -> None:
    for length in (248, 255):
        out = bundle.with_name("x" * length)
        with BundleWriter(out) as writer:
            shutil.copytree(bundle, writer.staging, dirs_exist_ok=True)
            replace_folder(writer.staging, out)
        Bundle.open(out)
    with pytest.raises(OutputError, match=r"cannot be made .*too long"):
        BundleWriter(bundle.with_name("x" * 256)).__enter__()


def test_a_link_to_the_folder_stays_one(bundle: Path, tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(bundle)
    with BundleWriter(link) as writer:
        shutil.copytree(bundle, writer.staging, dirs_exist_ok=True)
        replace_folder(writer.staging, writer.out)
    assert link.is_symlink()
    Bundle.open(link)


def test_killed_between_the_two_renames_the_old_bundle_comes_back(bundle: Path) -> None:
    bundle.rename(bundle.parent / ".bundle.old")
    with BundleWriter(bundle):
        Bundle.open(bundle)


def test_a_folder_that_is_no_bundle_is_not_replaced(tmp_path: Path) -> None:
    out = tmp_path / "photos"
    out.mkdir()
    (out / "holiday.png").write_bytes(b"x")
    with BundleWriter(out) as writer, pytest.raises(OutputFolderError, match="exists and is no bundle"):
        writer.check_replaceable(["unet"])
    assert (out / "holiday.png").exists()


def test_a_file_in_the_place_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x")
    with BundleWriter(tmp_path / "file") as writer, pytest.raises(OutputFolderError, match="exists and is no bundle"):
        writer.check_replaceable(["unet"])


def test_some_stages_do_not_replace_a_whole_bundle(bundle: Path) -> None:
    with BundleWriter(bundle) as writer:
        with pytest.raises(OutputFolderError, match="which --stages leaves out"):
            writer.check_replaceable(["unet"])
        writer.check_replaceable(read_manifest(bundle).stages)
