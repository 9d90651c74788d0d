"""Each format's official layout is read, and what is not in it is refused in one sentence."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from mgcc_ref.train.data.coco import named
from mgcc_ref.train.data.flickr30k import read_sentence
from mgcc_ref.train.data.sample import DataError, PictureError, Sample
from mgcc_ref.train.data.source import DataFormat, DataSource, data_argument, open_samples
from tests.captioned import SCENES, SIZE, write_cc3m, write_coco, write_flickr30k, write_webdataset

WRITERS: dict[DataFormat, Callable[[Path], Path]] = {
    DataFormat.CC3M: write_cc3m,
    DataFormat.WEBDATASET: write_webdataset,
    DataFormat.COCO: write_coco,
    DataFormat.FLICKR30K: write_flickr30k,
}


def samples(kind: DataFormat, folder: Path) -> list[Sample]:
    found = open_samples(DataSource(kind, WRITERS[kind](folder / "data")))
    return [found[i] for i in range(len(found))]


@pytest.mark.parametrize("kind", DataFormat)
def test_each_format_gives_its_captions_and_pictures(kind: DataFormat, tmp_path: Path) -> None:
    found = samples(kind, tmp_path)
    assert len(found) == len(SCENES) * (5 if kind is DataFormat.FLICKR30K else 1)
    every = found[:: len(found) // len(SCENES)]
    for sample, (caption, _, _, box) in zip(every, SCENES, strict=True):
        assert sample.caption.lower().startswith(caption)
        image = sample.picture()
        assert (image.mode, image.size) == ("RGB", SIZE)
        inside = image.getpixel(((box[0] + box[2]) // 2, (box[1] + box[3]) // 2))
        assert max(inside) > 60, "the picture is the caption's own"


@pytest.mark.parametrize("kind", [DataFormat.COCO, DataFormat.FLICKR30K])
def test_boxes_are_of_the_picture_and_spans_of_the_caption(kind: DataFormat, tmp_path: Path) -> None:
    found = samples(kind, tmp_path)
    for sample, (_, label, _, box) in zip(found[:: len(found) // len(SCENES)], SCENES, strict=True):
        (phrase,) = sample.phrases  # a crowd is none, nor a scene, nor what is not to be seen
        np.testing.assert_allclose(phrase.box, np.array(box) / (*SIZE, *SIZE), atol=1e-6)
        assert phrase.span is not None
        assert sample.caption[slice(*phrase.span)].endswith(label)
        assert phrase.text.endswith(label)


def test_a_sentences_marks_go_and_its_words_stay() -> None:
    line = "[/EN#5/people Two men] , [/EN#0/notvisual one] in [/EN#6/clothing/other a red shirt] ."
    found = read_sentence(line, "x")
    assert found.text == "Two men , one in a red shirt ."
    assert [(e, found.text[a:b]) for e, (a, b) in found.entities] == [
        ("5", "Two men"), ("0", "one"), ("6", "a red shirt")
    ]  # fmt: skip


def test_a_category_is_named_by_its_whole_word() -> None:
    assert named("cat", "A category of Cats") == (14, 18)
    assert named("cat", "a category") is None
    assert named("hot dog", "two hot dogs here") == (4, 12)


def test_gills_targets_are_read_and_checked(tmp_path: Path) -> None:
    table = write_cc3m(tmp_path, target=(77, 8))
    sample = open_samples(DataSource(DataFormat.CC3M, table))[2]
    wanted = np.random.default_rng(2).normal(size=(77, 8)).astype(np.float32)
    np.testing.assert_array_equal(sample.conditioning((77, 8)), wanted)
    np.testing.assert_array_equal(sample.conditioning((5, 8)), wanted[:5])
    with pytest.raises(DataError, match=r"target of 0000002_2\.jpg has shape \(77, 8\), expected \(77, 768\)"):
        sample.conditioning((77, 768))
    np.save(tmp_path / "training" / "clip_embs" / "0000002_2.jpg.npy", np.array([{"a": 1}], dtype=object))
    with pytest.raises(PictureError, match="cannot be read"):  # a pickle
        sample.conditioning((77, 8))


def test_a_picture_that_is_missing_or_cut_off_is_named(tmp_path: Path) -> None:
    table = write_cc3m(tmp_path)
    found = open_samples(DataSource(DataFormat.CC3M, table))
    (tmp_path / "training" / "0000000_0.jpg").unlink()
    whole = (tmp_path / "training" / "0000001_1.jpg").read_bytes()
    (tmp_path / "training" / "0000001_1.jpg").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "training" / "0000002_2.jpg").write_text("<html>not found</html>")
    for i, reason in enumerate(("No such file", "damaged", "damaged")):
        with pytest.raises(PictureError, match=rf"picture 000000{i}_{i}\.jpg cannot be read \(.*{reason}"):
            found[i].picture()


def cc3m(change: Callable[[str], str]) -> Callable[[Path], DataSource]:
    def broken(folder: Path) -> DataSource:
        table = write_cc3m(folder)
        table.write_bytes(change(table.read_text()).encode("latin-1"))
        return DataSource(DataFormat.CC3M, table)

    return broken


def coco(name: str, change: Callable[[dict], object]) -> Callable[[Path], DataSource]:
    def broken(folder: Path) -> DataSource:
        place = write_coco(folder) / "annotations" / f"{name}_train2017.json"
        found = json.loads(place.read_text())
        place.write_text(json.dumps(changed if (changed := change(found)) is not None else found))
        return DataSource(DataFormat.COCO, folder)

    return broken


def flickr(name: str, text: str) -> Callable[[Path], DataSource]:
    def broken(folder: Path) -> DataSource:
        (write_flickr30k(folder) / name).write_text(text)
        return DataSource(DataFormat.FLICKR30K, folder)

    return broken


def shard(change: Callable[[Path], None]) -> Callable[[Path], DataSource]:
    def broken(folder: Path) -> DataSource:
        change(write_webdataset(folder))
        return DataSource(DataFormat.WEBDATASET, folder)

    return broken


def cut_off(folder: Path) -> None:
    whole = (folder / "00001.tar").read_bytes()
    (folder / "00001.tar").write_bytes(whole[:700])


def without_captions(folder: Path) -> None:
    with tarfile.open(folder / "00002.tar", "w") as file:
        entry = tarfile.TarInfo("7.jpg")
        entry.size = 3
        file.addfile(entry, io.BytesIO(b"abc"))


BROKEN: dict[str, tuple[Callable[[Path], DataSource], str]] = {
    "no header": (cc3m(lambda t: t.partition("\n")[2]), "expected a header with the columns caption and image"),
    "a tab in a caption": (cc3m(lambda t: t.replace("blue ball", "blue\tball")), "line 3 of .* has 3 fields, expected"),
    "commas for tabs": (cc3m(lambda t: t.replace("\t", ",")), "expected a header with the columns"),
    "latin-1": (cc3m(lambda t: t.replace("a red dog", "a réd dog")), "row 1 of .* is not UTF-8"),
    "no rows": (cc3m(lambda t: "caption\timage\n"), "has a header and no rows"),
    "an empty caption": (cc3m(lambda t: t.replace("a red dog on grass", " ")), "row 1 of .* lacks a caption"),
    "no table": (lambda f: DataSource(DataFormat.CC3M, write_cc3m(f).with_name("x.tsv")), "table .* cannot be read"),
    "no pictures": (lambda f: DataSource(DataFormat.CC3M, write_cc3m(f), f / "no"), "no folder; give it as --pictures"),
    "a split of a table": (lambda f: DataSource(DataFormat.CC3M, write_cc3m(f), split="val"), "--split is val, and"),
    "no JSON": (lambda f: DataSource(DataFormat.COCO, _spoilt(f)), "captions_train2017.json is not valid JSON"),
    "a JSON list": (coco("captions", lambda d: []), "lacks the list images and annotations, expected COCO's form"),
    "an image it lacks": (coco("captions", lambda d: d["images"].pop(0) and None), "a caption of image 9, which it"),
    "a caption without text": (
        coco("captions", lambda d: d["annotations"][0].pop("caption") and None),
        "a record without 'caption'",
    ),
    "three numbers": (coco("instances", lambda d: d["annotations"][0]["bbox"].pop() and None), "has a box .* expected"),
    "an unknown category": (coco("instances", lambda d: d.update(categories=[])), "expected four numbers of one it"),
    "another split": (lambda f: DataSource(DataFormat.COCO, write_coco(f), split="val2017"), "list .* cannot be read"),
    "half a mark": (flickr("Sentences/1000.txt", "[/EN#7/people a man walks ."), "a mark that is not of the form"),
    "no sentences": (flickr("Sentences/1000.txt", "\n"), "is empty, expected the picture's sentences"),
    "no XML": (flickr("Annotations/1000.xml", "{}"), "is not valid XML"),
    "another XML": (flickr("Annotations/1000.xml", "<html></html>"), "is a <html>, expected an <annotation>"),
    "entities of XML": (
        flickr("Annotations/1000.xml", "<!DOCTYPE a [<!ENTITY b 'c'>]><annotation/>"),
        "declares a document type",
    ),
    "no size": (flickr("Annotations/1000.xml", "<annotation></annotation>"), "lacks a number in its size"),
    "an empty split": (flickr("train.txt", ""), "names no picture"),
    "half a shard": (shard(cut_off), r"shard .*00001\.tar cannot be read as an uncompressed \.tar"),
    "no captions": (shard(without_captions), r"sample 7 of .*00002\.tar has no caption"),
    "no shards": (lambda f: DataSource(DataFormat.WEBDATASET, write_coco(f)), r"holds no \.tar but annotations"),
}


def _spoilt(folder: Path) -> Path:
    (write_coco(folder) / "annotations" / "captions_train2017.json").write_text("{")
    return folder


@pytest.mark.parametrize("name", BROKEN)
def test_what_is_not_in_the_format_is_refused_in_one_sentence(name: str, tmp_path: Path) -> None:
    make, message = BROKEN[name]
    source = make(tmp_path / "data")
    with pytest.raises(DataError, match=message) as refused:
        _ = open_samples(source)[0]
    assert "\n" not in str(refused.value) and ";" in str(refused.value), "it says what to do"


def test_a_download_that_failed_is_no_sample(tmp_path: Path) -> None:
    """img2dataset leaves the record of what it could not get."""
    folder = write_webdataset(tmp_path)
    with tarfile.open(folder / "00000.tar", "a") as file:
        data = json.dumps({"caption": "gone", "status": "failed_to_download"}).encode()
        entry = tarfile.TarInfo("000000099.json")
        entry.size = len(data)
        file.addfile(entry, io.BytesIO(data))
    assert len(open_samples(DataSource(DataFormat.WEBDATASET, folder))) == len(SCENES)


def test_the_option_names_format_and_place() -> None:
    assert data_argument("coco=a=b") == DataSource(DataFormat.COCO, Path("a=b"))
    for wrong in ("coco", "laion=x", "coco="):
        with pytest.raises(Exception, match="is not FORMAT=PLACE"):
            data_argument(wrong)
