"""Every reader of the runtime against every oddity of bytes: taken, or one sentence and exit code 2."""

import io
import json
import subprocess
import sys

import numpy as np
import pytest

from mgcc_runtime.bundle.folder import Bundle, read_manifest
from mgcc_runtime.cli import main
from mgcc_runtime.denoise import Schedule
from mgcc_runtime.engines.tensorrt.record import EngineRecord, LayerRecord, TensorRecord, read_record
from mgcc_runtime.errors import EXIT_BAD_INPUT, EXIT_DONE, BundleError, InputError
from mgcc_runtime.measure.golden import request_golden, stage_golden
from mgcc_runtime.reading import MAX_DIGITS, Numbers, map_npy, parse_json, read_json, read_line, read_npz, read_text
from mgcc_runtime.story import read_story
from tests.oddities import BY_NAME, ODDITIES, check_reader, check_sentence, spoiled_arrays
from tests.runtime.tiny_bundle import make_schedule

STORY = {"parts": [{"text": "Ein Fuchs saß: 狐."}, {"text": "It sits."}]}
BOX = {"label": "cat", "xyxy": [1, 2, 20, 21.5]}


@BY_NAME
def test_story(tmp_path, oddity):
    check_reader(oddity, tmp_path / "s.json", STORY, lambda: read_story(tmp_path / "s.json"))


@BY_NAME
def test_schedule(tmp_path, oddity):
    check_reader(oddity, tmp_path / "s.json", make_schedule(), lambda: Schedule.load(tmp_path / "s.json"))


@BY_NAME
def test_engine_record(tmp_path, oddity):
    tensors = (TensorRecord("x", "float", (1, 2)),)
    layers = (LayerRecord("l", "conv", ("float",)),)
    record = EngineRecord("tensorrt", "10.3", "linux-x86_64", "8.7", "0" * 64, tensors, tensors, (), layers, "a", "b")
    engine = tmp_path / "unet.engine"
    check_reader(oddity, tmp_path / "unet.engine.json", record.to_json(), lambda: read_record(engine))


@pytest.fixture(scope="module")
def spoilt_bundle(bundle_path, tmp_path_factory):
    """A bundle of links, of which a test replaces one; its hashes are not looked at."""
    root = tmp_path_factory.mktemp("spoilt")
    for path in bundle_path.rglob("*"):
        if path.is_file():
            (root / path.relative_to(bundle_path)).parent.mkdir(exist_ok=True)
            (root / path.relative_to(bundle_path)).symlink_to(path)
    return root


@pytest.fixture
def spoilt(spoilt_bundle, bundle_path):
    """The bundle with a file of its own, and that file's content; afterwards it is as before."""
    owned = []

    def own(name):
        path = spoilt_bundle / name
        path.unlink()
        owned.append(name)
        return path, json.loads((bundle_path / name).read_text())

    yield own
    for name in owned:
        (spoilt_bundle / name).unlink()
        (spoilt_bundle / name).symlink_to(bundle_path / name)


@BY_NAME
def test_manifest(spoilt, oddity):
    path, values = spoilt("manifest.json")
    check_reader(oddity, path, values, lambda: read_manifest(path.parent), BundleError)


@BY_NAME
def test_labels(spoilt, oddity):
    path, values = spoilt("labels.json")
    bundle = Bundle(path.parent, read_manifest(path.parent))
    check_reader(oddity, path, values, bundle.labels)


@BY_NAME
def test_golden_request(spoilt, oddity):
    path, values = spoilt("golden/request.json")
    bundle = Bundle(path.parents[1], read_manifest(path.parents[1]))
    check_reader(oddity, path, values, lambda: request_golden(bundle))


def test_arrays(tmp_path, spoilt, bundle_path):
    bundle = Bundle(bundle_path, read_manifest(bundle_path))
    for name, data in spoiled_arrays(tmp_path).items():
        (tmp_path / "a.npz").write_bytes(data)
        (tmp_path / "a.npy").write_bytes(data)
        for read in (
            lambda: read_npz(tmp_path / "a.npz", "array"), lambda: map_npy(tmp_path / "a.npy", "array", (None,)),
        ):  # fmt: skip
            with pytest.raises(InputError, match=r"is not a plain|holds") as caught:
                read()
            check_sentence(caught.value)
        assert name
    with pytest.raises(BundleError, match=r"lists no golden/none\.npz"):
        stage_golden(bundle, "none")
    np.save(tmp_path / "b.npy", np.zeros((2, 3), np.float32))
    assert map_npy(tmp_path / "b.npy", "array", (2, None)).shape == (2, 3)
    with pytest.raises(InputError, match=r"b\.npy holds float32 \(2, 3\), expected float32 \(any, 4\)"):
        map_npy(tmp_path / "b.npy", "array", (None, 4))


@BY_NAME
def test_files_of_the_command_line(bundle_path, tmp_path, capsys, oddity):
    """A story and boxes: drawn, or a sentence and exit code 2 before anything is opened."""
    story, out = tmp_path / "s.json", tmp_path / "x.png"
    story.write_bytes(oddity.spoil({"parts": [{"text": "A cat."}]}))
    command = ["generate", "--bundle", str(bundle_path), "--steps", "1", "--out", str(out)]
    assert main([*command, "--story", str(story)]) == (EXIT_DONE if oddity.taken else EXIT_BAD_INPUT)
    assert out.exists() == oddity.taken
    said = capsys.readouterr()
    if not oddity.taken:
        assert said.err.startswith(f"mgcc: story {story} ") and said.err.count("\n") == 1, said.err
        story.write_bytes(oddity.spoil({"parts": [BOX]}))
        assert main([*command, "--text", "A cat.", "--boxes", str(story)]) == EXIT_BAD_INPUT
        said = capsys.readouterr()
        assert said.err.startswith("mgcc: ") and said.err.count("\n") == 1, said.err


def test_a_box_list_with_a_mark(bundle_path, tmp_path):
    (tmp_path / "b.json").write_bytes(json.dumps([BOX]).encode("utf-16"))
    command = ["generate", "--bundle", str(bundle_path), "--steps", "1", "--text", "A cat."]
    assert main([*command, "--boxes", str(tmp_path / "b.json"), "--out", str(tmp_path / "x.png")]) == EXIT_DONE


@pytest.mark.parametrize("spot", ["a folder", "none", "a\0b", "\ud800", "x" * 300, "a device without an end"])
def test_paths_that_are_no_file(tmp_path, spot):
    path = tmp_path / spot
    if spot == "a folder":
        path.mkdir()
    if spot.startswith("a device"):
        from pathlib import Path

        path = Path("/dev/zero")
        if not path.exists():
            pytest.skip("this system has no /dev/zero; on Linux or macOS this runs")
    for read in (read_text, read_json):
        with pytest.raises(InputError, match=r"cannot be read|does not exist|is more than") as caught:
            read(path, "story")
        check_sentence(caught.value)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
def test_text(tmp_path, encoding):
    (tmp_path / "a.txt").write_text("Ein Fuchs saß.\r\nÜber", encoding=encoding, newline="")
    assert read_text(tmp_path / "a.txt", "story") == "Ein Fuchs saß.\r\nÜber"


def test_text_of_another_encoding(tmp_path):
    (tmp_path / "a.txt").write_text("Ein Fuchs saß.", encoding="latin-1")
    with pytest.raises(
        InputError, match=r"story .*a\.txt is not UTF-8 text \(invalid .* at byte 12\); give a text file"
    ):
        read_text(tmp_path / "a.txt", "story")


def test_numbers_of_our_own_records():
    text = '{"a": NaN, "b": [Infinity, -Infinity], "c": 1e999}'
    assert repr(parse_json(text, "it", Numbers.ANY)) == "{'a': nan, 'b': [inf, -inf], 'c': inf}"
    with pytest.raises(InputError, match=r"^it is not valid JSON \(NaN in it is no number of JSON\); correct it$"):
        parse_json(text, "it")
    assert parse_json("[" + "1" * MAX_DIGITS + ", 1.5, -2]", "it") == [int("1" * MAX_DIGITS), 1.5, -2]


def test_pairs_of_halves_are_a_character():
    assert parse_json('"\\ud83e\\udd8a"', "it") == "🦊"


CHAT = {
    "a byte-order mark": ("\ufeffA cat.\n".encode(), EXIT_DONE, 1),
    "a mark before a command": ("\ufeff/image none.png\n".encode(), EXIT_BAD_INPUT, 0),
    "lines that end in CRLF": (b"A cat.\r\nIt sits.\r\n", EXIT_DONE, 2),
    "no end of line": (b"A cat.", EXIT_DONE, 1),
    "nothing": (b"", EXIT_DONE, 0),
    "empty lines": (b"\n\n \r\n", EXIT_DONE, 0),
    "a zero": (b"A c\0at.\n", EXIT_DONE, 1),
    "a zero in a path": (b"/image a\0b.png\nA cat.\n", EXIT_BAD_INPUT, 0),
    "no UTF-8": (b"A cat.\n\xff\xfe\xfd\n", EXIT_BAD_INPUT, 0),
    "UTF-16": ("A cat.\n".encode("utf-16"), EXIT_BAD_INPUT, 0),
    "a long line": (b"A cat. " * 200_000 + b"\nA cat.\n", EXIT_BAD_INPUT, 1),
}


@pytest.mark.parametrize("name", CHAT)
def test_chat(bundle_path, tmp_path, name, monkeypatch, capsys):
    data, code, drawn = CHAT[name]
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data), encoding="utf-8"))
    command = ["chat", "--bundle", str(bundle_path), "--out", str(tmp_path), "--steps", "1", "--words", "0"]
    assert main(command) == code
    assert len(list(tmp_path.glob("turn-*.png"))) == drawn
    said = capsys.readouterr().err
    assert (said == "") == (code == EXIT_DONE)
    assert all(line.startswith("mgcc: ") for line in said.splitlines())


def test_a_line_without_an_end(monkeypatch):
    from mgcc_runtime import reading

    monkeypatch.setattr(reading, "MAX_TEXT_BYTES", 100)
    with pytest.raises(InputError, match="standard input has a line of more than 100 characters"):
        read_line(io.StringIO("x" * 1000), "standard input")


def test_no_reader_goes_its_own_way():
    """A sound story of the shell's: through a pipe that has no size."""
    if not sys.platform.startswith("linux"):
        pytest.skip("this system may have no /dev/stdin; on Linux this runs")
    code = "import sys; from pathlib import Path; from mgcc_runtime.story import read_story; "
    code += "print(read_story(Path('/dev/stdin')))"
    done = subprocess.run(
        [sys.executable, "-c", code],
        input=b'\xef\xbb\xbf{"parts": [{"text": "A fox."}]}',
        capture_output=True,
        check=True,
    )
    assert done.stdout.decode().strip() == "['A fox.']"


def test_the_list_of_oddities_has_both_kinds():
    assert len(ODDITIES) > 35
    assert sum(oddity.taken for oddity in ODDITIES) >= 8
