"""Captioned pictures in the official layouts of four data sets, made small."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

SIZE = (96, 64)
#: caption, colour, and the box in pixels of what it names
SCENES = (
    ("a red dog on grass", "dog", "red", (8, 10, 40, 50)),
    ("a blue ball in snow", "ball", "blue", (50, 20, 80, 50)),
    ("a green tree at night", "tree", "green", (20, 4, 60, 60)),
    ("a yellow sun over hills", "sun", "yellow", (60, 2, 90, 30)),
    ("a pink car on a road", "car", "pink", (10, 30, 70, 60)),
    ("a white cat by a door", "cat", "white", (40, 30, 66, 60)),
)


def picture(scene: int) -> bytes:
    _, _, colour, box = SCENES[scene]
    image = Image.new("RGB", SIZE, "black")
    ImageDraw.Draw(image).rectangle(box, fill=colour)
    out = io.BytesIO()
    image.save(out, "JPEG", quality=95)
    return out.getvalue()


def write_cc3m(folder: Path, target: tuple[int, int] | None = None, ending: str = "") -> Path:
    """GILL's: `cc3m_train.tsv`, `training/` and in it `clip_embs/`, targets of shape `target`; captions end alike."""
    pictures = folder / "training"
    pictures.mkdir(parents=True)
    rows = ["caption\timage"]
    for i, (caption, *_) in enumerate(SCENES):
        rows.append(f"{caption}{ending}\t{i:07d}_{i}.jpg")
        (pictures / f"{i:07d}_{i}.jpg").write_bytes(picture(i))
        if target is not None:
            (pictures / "clip_embs").mkdir(exist_ok=True)
            values = np.random.default_rng(i).normal(size=target).astype(np.float32)
            np.save(pictures / "clip_embs" / f"{i:07d}_{i}.jpg.npy", values)
    (folder / "cc3m_train.tsv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    return folder / "cc3m_train.tsv"


def write_webdataset(folder: Path, scenes: Sequence[int] = range(len(SCENES))) -> Path:
    """As img2dataset has the library write them: jpg, txt and json of each key, two shards."""
    from webdataset import TarWriter

    folder.mkdir(parents=True, exist_ok=True)
    half = len(scenes) // 2
    for number, part in enumerate((scenes[:half], scenes[half:])):
        with TarWriter(str(folder / f"{number:05d}.tar")) as shard:
            for i in part:
                record = {"caption": SCENES[i][0], "status": "success", "width": SIZE[0], "height": SIZE[1]}
                shard.write({"__key__": f"{i:09d}", "jpg": picture(i), "txt": SCENES[i][0], "json": record})
    return folder


def write_coco(folder: Path) -> Path:
    """COCO 2017: annotations/ and train2017/."""
    (folder / "annotations").mkdir(parents=True)
    (folder / "train2017").mkdir()
    images, captions, things, labels = [], [], [], {}
    for i, (caption, label, _, (x0, y0, x1, y1)) in enumerate(SCENES):
        name = f"{i + 9:012d}.jpg"
        (folder / "train2017" / name).write_bytes(picture(i))
        images.append({"id": i + 9, "file_name": name, "width": SIZE[0], "height": SIZE[1], "license": 1})
        captions.append({"image_id": i + 9, "id": 100 + i, "caption": f"{caption.capitalize()}.\n"})
        labels.setdefault(label, len(labels) + 1)
        box = [float(x0), float(y0), float(x1 - x0), float(y1 - y0)]
        shared = {"image_id": i + 9, "category_id": labels[label]}
        things.append({**shared, "id": i, "bbox": box, "iscrowd": 0, "area": box[2] * box[3], "segmentation": [[]]})
        things.append({**shared, "id": 50 + i, "bbox": [0.0, 0.0, 96.0, 64.0], "iscrowd": 1, "area": 1.0})
    categories = [{"id": number, "name": label, "supercategory": "thing"} for label, number in labels.items()]
    shared = {"info": {}, "licenses": [], "images": images}
    annotations = folder / "annotations"
    (annotations / "captions_train2017.json").write_text(json.dumps({**shared, "annotations": captions}))
    instances = {**shared, "annotations": things, "categories": categories}
    (annotations / "instances_train2017.json").write_text(json.dumps(instances))
    return folder


_OBJECT = """ <object>
  <name>{entity}</name>
  <bndbox><xmin>{x0}</xmin><ymin>{y0}</ymin><xmax>{x1}</xmax><ymax>{y1}</ymax></bndbox>
 </object>
"""


def write_flickr30k(folder: Path) -> Path:
    """Flickr30k Entities: Sentences/, Annotations/, train.txt, flickr30k-images/."""
    for name in ("Sentences", "Annotations", "flickr30k-images"):
        (folder / name).mkdir(parents=True)
    ids = []
    for i, (caption, label, _, (x0, y0, x1, y1)) in enumerate(SCENES):
        number, entity = f"{1000 + i}", f"{70 + i}"
        ids.append(number)
        (folder / "flickr30k-images" / f"{number}.jpg").write_bytes(picture(i))
        words = caption.split()
        cut = words.index(label) + 1
        rest = " ".join(words[cut:])
        line = f"[/EN#{entity}/other {' '.join(words[:cut])}] {rest} with [/EN#0/notvisual a view] ."
        (folder / "Sentences" / f"{number}.txt").write_text("\n".join([line] * 5) + "\n", encoding="utf-8")
        box = _OBJECT.format(entity=entity, x0=x0 + 1, y0=y0 + 1, x1=x1 + 1, y1=y1 + 1)
        scene = " <object>\n  <name>9</name>\n  <scene>1</scene>\n  <nobndbox>1</nobndbox>\n </object>\n"
        size = f" <size>\n  <width>{SIZE[0]}</width>\n  <height>{SIZE[1]}</height>\n  <depth>3</depth>\n </size>\n"
        text = f"<annotation>\n <filename>{number}.jpg</filename>\n{size}{box}{scene}</annotation>\n"
        (folder / "Annotations" / f"{number}.xml").write_text(text, encoding="utf-8")
    (folder / "train.txt").write_text("\n".join(ids) + "\n", encoding="utf-8")
    return folder
