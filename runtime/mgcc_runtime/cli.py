"""The command line: `mgcc generate | chat | info | verify | bench | kit`. Modules of this name alone print."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from mgcc_runtime.errors import (
    EXIT_BAD_INPUT,
    EXIT_DONE,
    EXIT_FAILED,
    MgccError,
    PromptError,
)
from mgcc_runtime.kit import cli as kit
from mgcc_runtime.options import GUIDANCE, RUNS, SEED, STEPS, TEMPERATURE, THREADS, TOP_P, WARM_UP, WORDS
from mgcc_runtime.version import VERSION

if TYPE_CHECKING:
    from mgcc_runtime.pipeline import Pipeline
    from mgcc_runtime.prompt import Part
    from mgcc_runtime.request import Boxes, RequestOptions
    from mgcc_runtime.results import Reply, Result


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code: 0 done, 1 failed, 2 bad arguments or input."""
    try:
        options = _parser().parse_args(arguments)
        code: int = options.run(options)
        return code
    except MgccError as error:
        return _say(error)
    except KeyboardInterrupt:
        print("mgcc: interrupted", file=sys.stderr)
        return EXIT_FAILED


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        print(f"{self.prog}: {message}; see `{self.prog} --help`", file=sys.stderr)
        raise SystemExit(EXIT_BAD_INPUT)


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


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="mgcc", description="Draws the next image of a story of texts and images.")
    parser.add_argument("--version", action="version", version=f"mgcc-edge {VERSION}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True, parser_class=_Parser)
    _add_generate(commands)
    _add_chat(commands)
    _add_command(commands, "info", _info, "say what a bundle is and what it needs")
    verify = _add_command(commands, "verify", _verify, "compare this device with the bundle's reference data")
    _add_threads(verify)
    verify.add_argument("--out", type=Path, metavar="FILE.json", help="also write the findings, to send them back")
    bench = _add_command(commands, "bench", _bench, "measure how long requests take on this machine")
    RUNS.add_to(bench, 30, "timed requests (default: 30)")
    WARM_UP.add_to(bench, 3, "requests before them (default: 3)")
    bench.add_argument(
        "--parts", default="cold,latency,dialogue,scale", metavar="LIST", help="what is measured (default: %(default)s)"
    )
    STEPS.add_to(bench, None, "denoising steps (default: the bundle's)")
    WORDS.add_to(bench, None, "words of text (default: those of the golden request)")
    bench.add_argument("--story", type=Path, metavar="FILE.json", help="time this request (default: the golden one)")
    _add_threads(bench)
    kit.add_options(_add_command(commands, "kit", kit.run, "make a folder that a device installs from offline"))
    return parser


def _add_command(
    commands: Any, name: str, run: Callable[[argparse.Namespace], int], summary: str
) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(name, help=summary, description=summary)
    parser.add_argument("--bundle", type=Path, required=True, metavar="DIR", help="the bundle's folder")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.set_defaults(run=run)
    return parser


def _add_generate(commands: Any) -> None:
    parser = _add_command(commands, "generate", _generate, "draw the next image")
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


def _add_chat(commands: Any) -> None:
    parser = _add_command(
        commands, "chat", _chat, "a dialogue on standard input: each line is a turn, and draws; /image FILE adds one"
    )
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
    _add_threads(parser)


def _add_threads(parser: argparse.ArgumentParser) -> None:
    THREADS.add_to(parser, 0, "of one stage; 0: one each core (default)")


def _request_options(options: argparse.Namespace) -> RequestOptions:
    """What `generate` and `chat` have in common, for `Pipeline.stream` and `Chat.stream`."""
    from mgcc_runtime.decoding import TextOptions

    text = TextOptions(temperature=options.temperature, top_p=options.top_p)
    return {
        "seed": options.seed, "steps": options.steps, "guidance": options.guidance, "words": options.words,
        "text": text,
    }  # fmt: skip


def _chat(options: argparse.Namespace) -> int:
    """Turns until the input ends. A turn that is refused or fails is said and forgotten; the dialogue goes on.

    The exit code is that of the worst turn: 1 where one failed, else 2 where one could not be used.
    """
    from mgcc_runtime.chat import Overflow
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
        chat = pipeline.chat(Overflow.DROP_OLDEST if options.drop_oldest else Overflow.REFUSE)
        for line in filter(None, map(str.strip, _lines())):
            try:
                if line.split()[0] == "/image":
                    images.append(_image_of(line))
                    continue
                given, images = images, []
                answer = chat.send if draw is Draw.ALWAYS else chat.answer
                result = answer(*given, line, **asked)
                turn += 1
                _tell_turn(result, options.out / f"turn-{turn}.png", as_json=options.json)
            except MgccError as error:
                codes.add(_say(error))
    if images:
        codes.add(_say(_unused(images)))
    return EXIT_FAILED if EXIT_FAILED in codes else max(codes, default=EXIT_DONE)


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
        print(json.dumps(_reply_json(result), ensure_ascii=False) if as_json else result.text, flush=True)
    else:
        _save_and_tell(result, path, as_json=as_json)


def _save_and_tell(result: Result, path: Path, *, as_json: bool) -> None:
    from mgcc_runtime.images import save_png

    save_png(result.image, path)
    if as_json:
        print(json.dumps(_result_json(result, path), ensure_ascii=False), flush=True)
        return
    if result.text:
        print(result.text)
    print(f"{path} ({result.image.width}x{result.image.height}, {result.timings['total'] / 1e3:.1f} s)", flush=True)
    for note in result.notes:
        print(f"  {note.text}", flush=True)
    for box in result.boxes:
        left, top, right, bottom = (round(v) for v in box.xyxy)
        print(f"  {box.label}: {left}, {top} to {right}, {bottom} (score {box.score:.2f})", flush=True)


def _say(error: MgccError) -> int:
    """Print one error; returns its exit code."""
    print(f"mgcc: {error}", file=sys.stderr, flush=True)
    return error.exit_code


def _lines() -> Iterator[str]:
    """Lines of standard input, with a prompt where somebody types them."""
    from mgcc_runtime.reading import read_line

    asking = sys.stdin.isatty()
    while True:
        if asking:
            print("> ", end="", file=sys.stderr, flush=True)
        if not (line := read_line(sys.stdin, "standard input")):
            return
        yield line


def _generate(options: argparse.Namespace) -> int:
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

    progress = _Progress()
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
        **({"notes": [note.to_json() for note in result.notes]} if result.notes else {}),
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


def _info(options: argparse.Namespace) -> int:
    from mgcc_runtime.bundle import Bundle, Check
    from mgcc_runtime.info import info_json, info_lines

    bundle = Bundle.open(options.bundle, Check.SIZES)
    print(json.dumps(info_json(bundle)) if options.json else "\n".join(info_lines(bundle)))
    return EXIT_DONE


def _verify(options: argparse.Namespace) -> int:
    from mgcc_runtime.files import check_output, write_atomically
    from mgcc_runtime.verify import Finding, Report, verify

    if options.out:
        check_output(options.out, ".json")
    findings: list[Finding] = []
    for finding in verify(options.bundle, options.threads):
        findings.append(finding)
        if not options.json:
            word = "PASS" if finding.passed else "FAIL"
            print(f"{word}  {finding.name:22} {finding.seconds:6.2f} s  {finding.detail}", flush=True)
    report = Report(str(options.bundle), tuple(findings))
    if options.out:
        write_atomically(options.out, (json.dumps(report.for_sending(), indent=1) + "\n").encode())
    if options.json:
        print(json.dumps(report.to_json()))
    else:
        failed = sum(not f.passed for f in findings)
        print(f"{len(findings) - failed} passed, {failed} failed")
    return EXIT_DONE if report.passed else EXIT_FAILED


def _bench(options: argparse.Namespace) -> int:
    from mgcc_runtime.bench import bench, parse_measures
    from mgcc_runtime.bench_table import bench_table
    from mgcc_runtime.story import read_story

    progress = _Progress()
    found = bench(
        options.bundle, runs=options.runs, warmup=options.warm_up, threads=options.threads, steps=options.steps,
        words=options.words, parts=read_story(options.story) if options.story else None,
        measures=parse_measures(options.parts), progress=progress.show,
    )  # fmt: skip
    progress.clear()
    print(json.dumps(found) if options.json else "\n".join(bench_table(found)))
    return EXIT_DONE


class _Progress:
    """One line on a terminal: elapsed time and what is being done. Silent where standard error is no terminal."""

    def __init__(self) -> None:
        self._start_s = time.perf_counter()
        self._shown = sys.stderr.isatty()

    def show(self, doing: str) -> None:
        if self._shown:
            elapsed_s = time.perf_counter() - self._start_s
            print(f"\r\033[K[{elapsed_s:6.1f} s] {doing}", end="", file=sys.stderr, flush=True)

    def clear(self) -> None:
        if self._shown:
            print("\r\033[K", end="", file=sys.stderr, flush=True)
