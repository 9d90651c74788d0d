"""VIST and VisDial at toy size, in the official files' form, with what really goes wrong in them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image


def noise_picture(seed: int, size: tuple[int, int] = (40, 30)) -> Image.Image:
    """Large patches of colours, so that scaling keeps something."""
    patches = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    return Image.fromarray(patches).resize(size, Image.Resampling.NEAREST)


def vist_annotation(story: str, picture: str, order: int, text: str) -> list[dict[str, Any]]:
    """As in the official files: a list of one."""
    return [{
        "original_text": f"{text.capitalize()}!", "album_id": "44277", "photo_flickr_id": picture,
        "setting": "first-2-pick-and-tell", "worker_id": "FJROI8NWDRIPAM1", "story_id": story,
        "tier": "story-in-sequence", "worker_arranged_photo_order": order, "text": f"{text} .", "storylet_id": "227650",
    }]  # fmt: skip


def vist_file(
    path: Path, annotations: Sequence[list[dict[str, Any]]], pictures: Sequence[str], without_link: Sequence[str] = ()
) -> Path:
    images = [
        {"id": name, "album_id": "44277", "title": "", "tags": "",
         **({} if name in without_link else {"url_o": f"https://farm1.example/{name}_o.jpg"})}
        for name in pictures
    ]  # fmt: skip
    told = {"images": images, "albums": [{"id": "44277"}], "annotations": annotations, "type": "story-in-sequence"}
    path.write_text(json.dumps(told))
    return path


#: The pictures of each story, the last one being the true one.
STORIES = {
    "100": ("1", "2", "3", "4", "5"),
    "101": ("6", "7", "8", "9", "5"),  # ends with the same picture as 100: GILL's file of it is written twice
    "102": ("10", "2", "3", "4", "11"),  # 10 has no link
    "103": ("12", "13", "14", "15", "16"),  # its first two sentences stand the other way round in the file
    "104": ("17", "2", "3", "4", "5"),  # 17 was never downloaded, so it is skipped, and scored by the picture of 101
    "105": ("1", "2", "3", "4", "21"),  # 21, the true one, was never downloaded
}
ABSENT = ("17", "21")


def write_vist(folder: Path) -> tuple[Path, Path]:
    """(the annotations, the pictures' folder) of STORIES; the sentences of 100 and 101 stand in turns in the file."""
    pictures = folder / "val_images"
    pictures.mkdir(parents=True)
    names = sorted({name for story in STORIES.values() for name in story}, key=int)
    for name in names:
        if name not in ABSENT:
            noise_picture(int(name)).save(pictures / f"{name}.{'jpg' if name in ('5', '7') else 'png'}")
    told = {
        story: [vist_annotation(story, name, i, f"story {story} sentence {i}") for i, name in enumerate(shown)]
        for story, shown in STORIES.items()
    }
    told["103"][:2] = told["103"][1::-1]
    in_turns = [one for pair in zip(told.pop("100"), told.pop("101"), strict=True) for one in pair]
    annotations = [*in_turns, *(one for story in told.values() for one in story)]
    return vist_file(folder / "val.story-in-sequence.json", annotations, names, without_link=["10"]), pictures


QUESTIONS = ("is it sunny", "how many people are there", "is there a dog")
ANSWERS = ("yes", "2", "no", "i can't tell")


def write_visdial(folder: Path, rounds: Mapping[int, int] | None = None) -> tuple[Path, Path]:
    """(the dialogues, the pictures' folder); `rounds` by image id. The picture of 185565 is missing."""
    pictures = folder / "VisualDialog_val2018"
    pictures.mkdir(parents=True)
    rounds = {284024: 10, 185565: 10, 7: 10} if rounds is None else rounds
    dialogs = []
    for image_id, count in rounds.items():
        one = [
            {"question": i % 3, "answer": i % 4, "gt_index": 0, "answer_options": [*range(4)] * 25}
            for i in range(count)
        ]
        dialogs.append({"image_id": image_id, "caption": f"a picture of {image_id}", "dialog": one})
        if image_id != 185565:
            noise_picture(image_id).save(pictures / f"VisualDialog_val2018_{image_id:012}.jpg")
    path = folder / "visdial_1.0_val.json"
    data = {"questions": QUESTIONS, "answers": ANSWERS, "dialogs": dialogs}
    path.write_text(json.dumps({"version": "1.0", "split": "val2018", "data": data}))
    return path, pictures
