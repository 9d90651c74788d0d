"""Writing: whole files or none, where links lead, at any length of a name; and copies that share nothing."""

import os
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from mgcc_runtime import files
from mgcc_runtime.cli import main
from mgcc_runtime.errors import EXIT_BAD_INPUT, EXIT_DONE, EXIT_FAILED, OutputError
from mgcc_runtime.files import check_output, check_writable, copy_file, hidden_beside, write_atomically

LONGEST = 255  # bytes of a name


def named(length, suffix=".png"):
    return "ä" * ((length - len(suffix)) // 2) + "x" * ((length - len(suffix)) % 2) + suffix


@pytest.mark.parametrize("length", [5, 200, 248, 249, 254, 255])
def test_names_of_any_length(tmp_path, length):
    path = tmp_path / named(length)
    assert len(os.fsencode(path.name)) == length
    for content in (b"one", b"two"):
        check_output(path, ".png")
        write_atomically(path, content)
        assert path.read_bytes() == content
    assert list(tmp_path.iterdir()) == [path]


WRONG = {
    "too long": named(256),
    "a folder": "folder.png",
    "below a file": "file/x.png",
    "a link to itself": "loop.png",
    "a link to a folder": "to-folder.png",
    "a pipe": "pipe.png",
    "a link to a device": "null.png",
    "a zero": "a\0b.png",
    "below a link to nothing": "nowhere/x.png",
}


@pytest.mark.parametrize("kind", WRONG)
def test_what_cannot_be_written_is_known_before(tmp_path, kind):
    """By the check as by the writing, and nothing is changed or left."""
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "file").write_bytes(b"a file")
    (tmp_path / "loop.png").symlink_to(tmp_path / "loop.png")
    (tmp_path / "to-folder.png").symlink_to(tmp_path / "folder.png")
    (tmp_path / "nowhere").symlink_to(tmp_path / "loop.png")
    (tmp_path / "null.png").symlink_to("/dev/null")
    os.mkfifo(tmp_path / "pipe.png")
    before = sorted(tmp_path.rglob("*"))
    for refuse in (lambda p: check_output(p, ".png"), check_writable, lambda p: write_atomically(p, b"x")):
        with pytest.raises(OutputError) as caught:
            refuse(tmp_path / WRONG[kind])
        assert "\n" not in str(caught.value)
        assert sorted(tmp_path.rglob("*")) == before
    assert (tmp_path / "null.png").is_char_device()


@pytest.mark.parametrize("kind", WRONG)
def test_a_command_says_so_before_it_opens_the_bundle(tmp_path, kind, capsys):
    test_what_cannot_be_written_is_known_before(tmp_path, kind)
    out = str(tmp_path / WRONG[kind])
    assert main(["generate", "--bundle", str(tmp_path / "none"), "--text", "A cat.", "--out", out]) == EXIT_FAILED
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "none" not in said.replace(out, "")


def test_a_read_only_folder(tmp_path, monkeypatch):
    """Found by writing, not by what the permissions say: an administrator may write to all but a read-only disk."""

    def refuse(*_):
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(files.os, "open", refuse)
    for act in (check_writable, lambda p: write_atomically(p, b"x")):
        with pytest.raises(OutputError, match="Read-only file system"):
            act(tmp_path / "x.png")


@pytest.mark.parametrize("absolute", [True, False])
@pytest.mark.parametrize("there", [True, False])
def test_a_link_stays_and_leads_to_the_new_file(tmp_path, absolute, there):
    (tmp_path / "elsewhere").mkdir()
    target = tmp_path / "elsewhere" / "picture.png"
    if there:
        target.write_bytes(b"old")
        target.chmod(0o640)
    link = tmp_path / "link.png"
    link.symlink_to(target if absolute else "elsewhere/picture.png")
    second = tmp_path / "second.png"
    second.symlink_to("link.png")
    check_output(second, ".png")
    write_atomically(second, b"new")
    assert second.is_symlink() and link.is_symlink()
    assert target.read_bytes() == b"new"
    assert not there or target.stat().st_mode & 0o777 == 0o640
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["elsewhere", "link.png", "picture.png", "second.png"]


def test_a_picture_through_a_link(bundle_path, tmp_path):
    (tmp_path / "kept").mkdir()
    (tmp_path / "x.png").symlink_to(tmp_path / "kept" / named(LONGEST))
    command = ["generate", "--bundle", str(bundle_path), "--text", "A cat.", "--steps", "1"]
    assert main([*command, "--out", str(tmp_path / "x.png")]) == EXIT_DONE
    assert (tmp_path / "x.png").is_symlink()
    assert (tmp_path / "kept" / named(LONGEST)).read_bytes().startswith(b"\x89PNG")


def test_a_new_file_has_the_permissions_of_one(tmp_path):
    before = os.umask(0o027)
    try:
        write_atomically(tmp_path / "x.png", b"x")
    finally:
        os.umask(before)
    assert (tmp_path / "x.png").stat().st_mode & 0o777 == 0o640


def test_threads_that_write_leave_the_mask_of_permissions(tmp_path):
    """It is the whole process's: a thread that sets it opens what others write meanwhile to everybody."""
    before = os.umask(0o077)
    seen = set()
    stop = threading.Event()

    def watch():
        while not stop.is_set():
            path = tmp_path / "watch"
            path.unlink(missing_ok=True)
            path.touch()
            seen.add(path.stat().st_mode & 0o777)

    watcher = threading.Thread(target=watch)
    try:
        watcher.start()
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(lambda i: write_atomically(tmp_path / f"{i}.png", b"x"), range(200)))
    finally:
        stop.set()
        watcher.join()
        mask = os.umask(before)
    assert (mask, seen) == (0o077, {0o600})


def test_a_failed_writing_leaves_the_old_file(tmp_path, monkeypatch):
    (tmp_path / "x.png").write_bytes(b"old")

    def refuse(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files.os, "replace", refuse)
    with pytest.raises(OutputError, match="No space left on device"):
        write_atomically(tmp_path / "x.png", b"new")
    assert [(p.name, p.read_bytes()) for p in tmp_path.iterdir()] == [("x.png", b"old")]


@pytest.mark.parametrize("by_system", [True, False])
def test_a_copy_shares_nothing(tmp_path, by_system, monkeypatch):
    if not by_system:
        monkeypatch.setattr(files, "_copied_by_system", lambda *_: False)
    source, target = tmp_path / "a" / "x.onnx", tmp_path / "b" / "deep" / "x.onnx"
    source.parent.mkdir()
    content = os.urandom(3 * 2**20 + 17)
    source.write_bytes(content)
    copy_file(source, target)
    assert target.read_bytes() == content
    assert (source.stat().st_nlink, target.stat().st_nlink) == (1, 1)
    with target.open("r+b") as file:
        file.write(b"damage")
    assert source.read_bytes() == content


@pytest.mark.parametrize("kind", ["symbolic link", "hard link"])
def test_a_copy_takes_the_place_of_a_link(tmp_path, kind):
    """Of a bundle that an earlier version has made of links: what it shares stays as it is."""
    (tmp_path / "new").write_bytes(b"new")
    (tmp_path / "shared").write_bytes(b"shared")
    if kind == "hard link":
        os.link(tmp_path / "shared", tmp_path / "x")
    else:
        (tmp_path / "x").symlink_to("shared")
    copy_file(tmp_path / "new", tmp_path / "x")
    assert (tmp_path / "shared").read_bytes() == b"shared"
    assert (tmp_path / "x").read_bytes() == b"new" and not (tmp_path / "x").is_symlink()


def test_an_empty_file_and_one_of_a_system_that_copies_nothing(tmp_path, monkeypatch):
    (tmp_path / "empty").touch()
    copy_file(tmp_path / "empty", tmp_path / "e")
    assert (tmp_path / "e").read_bytes() == b""
    monkeypatch.setattr(files.os, "copy_file_range", lambda *_: 0, raising=False)
    (tmp_path / "full").write_bytes(b"full")
    copy_file(tmp_path / "full", tmp_path / "f")
    assert (tmp_path / "f").read_bytes() == b"full"


def test_companions_of_any_name(tmp_path):
    for length in (3, 240, 250, LONGEST):
        for kind in ("partial", "lock", "candidates"):
            hidden = hidden_beside(tmp_path / named(length, ""), kind)
            hidden.touch()
            assert hidden == hidden_beside(tmp_path / named(length, ""), kind)
    assert hidden_beside(tmp_path / "b", "lock").name == ".b.lock"
    assert hidden_beside(tmp_path / ("x" * 255), "lock") != hidden_beside(tmp_path / ("y" * 255), "lock")


def test_a_bundle_of_too_long_a_name(tmp_path, capsys):
    assert main(["info", "--bundle", str(tmp_path / ("x" * 300))]) == EXIT_BAD_INPUT
    assert "is not a folder" in capsys.readouterr().err
