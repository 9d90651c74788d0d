"""A kiosk on the Python API, `kiosk.py BUNDLE PICTURE.png`: each line typed is drawn as the dialogue's next picture.

PICTURE is replaced whole, previews too, so any viewer may watch it. `again` draws the last turn with another seed,
`move LABEL RIGHT DOWN` moves a thing by pixels, `undo` takes back, `restart` forgets. Ctrl-C cancels a drawing.
"""

import itertools
import os
import signal
import sys
from dataclasses import replace
from pathlib import Path

from mgcc_runtime import Box, Cancel, Chat, ImageReady, MgccError, Pipeline, StepPreview, Stream

SEEDS = itertools.count(1)
Boxes = tuple[Box, ...]


def begin(chat: Chat, line: str, boxes: Boxes, cancel: Cancel) -> Stream:
    match line.split():
        case ["again"]:
            return chat.stream_redraw(seed=next(SEEDS), preview_every=1, cancel=cancel)
        case ["move", label, right, down]:
            x, y = float(right), float(down)
            edges = {b: (b.xyxy[0] + x, b.xyxy[1] + y, b.xyxy[2] + x, b.xyxy[3] + y) for b in boxes if b.label == label}
            moved = [replace(b, xyxy=edges.get(b, b.xyxy)) for b in boxes]
            return chat.stream_redraw(boxes=moved, preview_every=1, cancel=cancel)
    return chat.stream(line, preview_every=1, cancel=cancel)


def draw(stream: Stream, place: Path) -> Boxes:
    for event in stream:
        picture = event.image if isinstance(event, StepPreview) else None
        if isinstance(event, ImageReady):
            picture, boxes = event.result.image, event.result.boxes
            print(*(note.text for note in event.result.notes), *(f"a {box.label}" for box in boxes), sep="\n")
        if picture:
            picture.save(place.with_suffix(".part"), "PNG")
            os.replace(place.with_suffix(".part"), place)
    return boxes


with Pipeline.load(sys.argv[1]) as pipeline:
    chat, drawn = pipeline.chat(), [()]
    for line in filter(None, map(str.strip, sys.stdin)):
        try:
            if line == "restart":
                chat, drawn = pipeline.chat(), [()]
            elif line == "undo":
                chat.undo()
                drawn.pop()
            else:
                cancel = Cancel()
                signal.signal(signal.SIGINT, lambda *_, cancel=cancel: cancel.cancel())
                drawn.append(draw(begin(chat, line, drawn[-1], cancel), Path(sys.argv[2])))
        except (MgccError, ValueError) as error:
            print(error)
