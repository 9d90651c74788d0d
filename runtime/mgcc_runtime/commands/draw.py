"""`mgcc generate` and `mgcc chat`: pictures in files, and what is said with them."""

from __future__ import annotations

import argparse
import codecs
import io
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mgcc_runtime.commands.console import Progress, give, give_json, is_terminal, note, say, say_error
from mgcc_runtime.errors import EXIT_DONE, EXIT_FAILED, InputError, MgccError, PromptError
from mgcc_runtime.options import GUIDANCE, SEED, STEPS, TEMPERATURE, THREADS, TOP_P, WORDS

if TYPE_CHECKING:
    from mgcc_runtime.pipeline import Pipeline
    from mgcc_runtime.prompt import Part
    from mgcc_runtime.request import Boxes, RequestOptions
    from mgcc_runtime.results import Reply, Result


class _AppendPart(argparse.Action):
    """Collects --text and --image into one list, so that their order on the command line is kept."""

    def __call__(
        self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, values: Any, option: str | None = None
    ) -> None:
        namespace.parts = [*(namespace.parts or []), values]


def _text(given: str) -> str:
    """An argument as UTF-8: what a locale without it could not read, Python keeps as half characters."""
    try:
        return os.fsencode(given).decode()
    except UnicodeError:
        return given  # the prompt refuses it


def add_generate(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--text", action=_AppendPart, dest="parts", type=_text, metavar="T", help="a text; may be repeated"
    )
    parser.add_argument(
        "--image", action=_AppendPart, dest="parts", type=Path, metavar="FILE",
        help="an image; may be repeated; texts and images count in the order given",
    )  # fmt: skip
    parser.add_argument("--story", type=Path, metavar="FILE.json", help="the parts from a file instead")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE.png", help="where the image goes")
    parser.add_argument(
        "--boxes", default="auto", metavar="auto|none|FILE.json",
        help='where objects stand: proposed, nowhere, or a list of {"label", "xyxy"} in pixels (default: auto)',
    )  # fmt: skip
    _add_request_options(parser, words=0)


def add_chat(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder for turn-1.png, turn-2.png ...")
    parser.add_argument(
        "--draw", default="always", metavar="always|auto", help="auto: the model decides (default: always)"
    )
    parser.add_argument("--drop-oldest", action="store_true", help="when the context is full, forget the oldest turns")
    _add_request_options(parser, words=16)


def _add_request_options(parser: argparse.ArgumentParser, *, words: int) -> None:
    SEED.add_to(parser, 0, "of the noise and of sampled text (default: 0)")
    STEPS.add_to(parser, None, "denoising steps (default: the bundle's)")
    GUIDANCE.add_to(parser, None, "guidance scale (default: the bundle's)")
    WORDS.add_to(parser, words, f"the most words of text (default: {words})")
    TEMPERATURE.add_to(parser, 0.0, "of the text; 0: greedy (default)")
    TOP_P.add_to(parser, 1.0, "of the text (default: 1)")
    parser.add_argument(
        "--grounder", metavar="layout-head|in-context",
        help="what proposes boxes, where the bundle has both (default: the bundle's)",
    )  # fmt: skip
    add_threads(parser)


def add_threads(parser: argparse.ArgumentParser) -> None:
    THREADS.add_to(parser, 0, "of one stage; 0: one each core (default)")


def _request_options(options: argparse.Namespace) -> RequestOptions:
    """What `generate` and `chat` have in common, for `Pipeline.stream` and `Chat.stream`."""
    from mgcc_runtime.decoding import TextOptions

    text = TextOptions(temperature=options.temperature, top_p=options.top_p)
    return {
        "seed": options.seed, "steps": options.steps, "guidance": options.guidance, "words": options.words,
        "grounder": options.grounder, "text": text,
    }  # fmt: skip


def generate(options: argparse.Namespace) -> int:
    from mgcc_runtime.files import check_output
    from mgcc_runtime.pipeline import Pipeline

    parts, boxes = _parts(options), _boxes(options.boxes)
    check_output(options.out, ".png")
    with Pipeline.load(options.bundle, threads=options.threads) as pipeline:
        result = _run_request(pipeline, parts, boxes, options)
    _save_and_tell(result, options.out, as_json=options.json)
    return EXIT_DONE


def _run_request(pipeline: Pipeline, parts: Sequence[Part], boxes: Boxes, options: argparse.Namespace) -> Result:
    from mgcc_runtime.results import ImageReady, StepPreview, TextDelta

    progress = Progress()
    asked = _request_options(options)
    asked["boxes"] = boxes
    events = pipeline.stream(parts, **asked)
    progress.show("reading")
    for event in events:
        if isinstance(event, TextDelta):
            progress.show("writing")
        elif isinstance(event, StepPreview):
            progress.show(f"drawing, step {event.step} of {event.steps}")
        elif isinstance(event, ImageReady):
            progress.clear()
            return event.result
    raise AssertionError("a stream ends with ImageReady")


def _parts(options: argparse.Namespace) -> list[Part]:
    from mgcc_runtime.story import read_story

    if options.story and options.parts:
        raise PromptError("both --story and --text or --image were given, expected one of them; drop one")
    if options.story:
        return read_story(options.story)
    if not options.parts:
        raise PromptError("the prompt is empty, expected --text, --image or --story; add one")
    return list(options.parts)


def _boxes(value: str) -> Boxes:
    from mgcc_runtime.layout import BoxMode
    from mgcc_runtime.reading import read_json

    if value in {mode.value for mode in BoxMode}:
        return BoxMode(value)
    found: Boxes = read_json(Path(value), "box list")
    return found


def chat(options: argparse.Namespace) -> int:
    """Turns until the input ends. A turn that is refused or fails is said and forgotten; the dialogue goes on.

    The exit code is that of the worst turn: 1 where one failed, else 2 where one could not be used.
    """
    from mgcc_runtime.conversation.chat import Overflow
    from mgcc_runtime.files import check_output
    from mgcc_runtime.options import check_word
    from mgcc_runtime.pipeline import Pipeline
    from mgcc_runtime.request import Draw

    draw, asked = check_word("draw", Draw, options.draw), _request_options(options)
    check_output(options.out / "turn-1.png", ".png")
    codes: set[int] = set()
    images: list[Path] = []
    turn = 0
    with Pipeline.load(options.bundle, threads=options.threads) as pipeline:
        pipeline.request(**asked)  # what this bundle refuses would be refused at each turn
        dialogue = pipeline.chat(Overflow.DROP_OLDEST if options.drop_oldest else Overflow.REFUSE)
        for line in filter(None, map(str.strip, _lines())):
            try:
                if line.split()[0] == "/image":
                    images.append(_image_of(line))
                    continue
                given, images = images, []
                answer = dialogue.send if draw is Draw.ALWAYS else dialogue.answer
                result = answer(*given, line, **asked)
                turn += 1
                _tell_turn(result, options.out / f"turn-{turn}.png", as_json=options.json)
            except MgccError as error:
                codes.add(say_error("mgcc", error))
    if images:
        codes.add(say_error("mgcc", _unused(images)))
    return EXIT_FAILED if EXIT_FAILED in codes else max(codes, default=EXIT_DONE)


def _lines() -> Iterator[str]:
    """Lines of standard input, with a prompt where somebody types them."""
    from mgcc_runtime.reading import read_line

    if sys.stdin is None:
        raise InputError("standard input is closed, expected a turn in each of its lines; send it some")
    if isinstance(sys.stdin, io.TextIOWrapper) and codecs.lookup(sys.stdin.encoding).name == "ascii":
        sys.stdin.reconfigure(encoding="utf-8", errors="strict")  # of a locale without any other characters
    asking = is_terminal(sys.stdin)
    while True:
        if asking:
            say("> ", end="")
        if not (line := read_line(sys.stdin, "standard input")):
            return
        yield line


def _image_of(line: str) -> Path:
    """The file of a line `/image FILE`; PromptError if it names none."""
    _, *name = line.split(maxsplit=1)
    if not name:
        raise PromptError("/image has no file, expected `/image FILE`; give the path of a picture")
    return Path(name[0])


def _unused(images: Sequence[Path]) -> PromptError:
    number = "1 image was" if len(images) == 1 else f"{len(images)} images were"
    return PromptError(
        f"{number} given after the last text and not read, expected a text after {images[-1]}; "
        "end with a line that says what to draw"
    )


def _tell_turn(result: Result | Reply, path: Path, *, as_json: bool) -> None:
    """Print a turn's answer, and write its picture to `path`; OutputError if that fails."""
    from mgcc_runtime.results import Reply

    if isinstance(result, Reply):
        give_json(_reply_json(result)) if as_json else give(result.text)
    else:
        _save_and_tell(result, path, as_json=as_json)


def _save_and_tell(result: Result, path: Path, *, as_json: bool) -> None:
    from mgcc_runtime.images.conversion import save_png

    save_png(result.image, path)
    if as_json:
        give_json(_result_json(result, path))
        return
    if result.text:
        give(result.text)
    note(f"{path} ({result.image.width}x{result.image.height}, {result.timings['total'] / 1e3:.1f} s)")
    for remark in result.notes:
        note(f"  {remark.text}")
    for box in result.boxes:
        left, top, right, bottom = (round(v) for v in box.xyxy)
        note(f"  {box.label}: {left}, {top} to {right}, {bottom} (score {box.score:.2f})")


def _result_json(result: Result, path: Path) -> dict[str, Any]:
    from mgcc_runtime.machine import peak_rss_mb

    image = {
        "path": str(path),
        "width": result.image.width,
        "height": result.image.height,
        "boxes": [box.to_json() for box in result.boxes],
    }
    return {
        "text": result.text,
        "images": [image],
        "seed": result.seed,
        "timings_ms": result.timings,
        "peak_rss_mb": peak_rss_mb(),
        **({"notes": [remark.to_json() for remark in result.notes]} if result.notes else {}),
    }


def _reply_json(reply: Reply) -> dict[str, Any]:
    """A turn that was not drawn: the object of a drawn one, without an image."""
    from mgcc_runtime.machine import peak_rss_mb

    return {
        "text": reply.text,
        "images": [],
        "seed": reply.seed,
        "timings_ms": reply.timings,
        "peak_rss_mb": peak_rss_mb(),
    }
