"""`python benchmarks/notes.py`: precision and recall of the notes on what a picture cannot have, from words alone.

No bundle is needed: labels and the largest number of objects are the story profile's. Notes on objects that the layout
lacks are not judged here.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

from mgcc_benchmarks.bootstrap import Tally, bootstrap
from mgcc_ref.config import get_profile
from mgcc_ref.story.note_requests import Half, NoteRequest, note_requests
from mgcc_ref.story.world.sprites import LABELS
from mgcc_runtime.commands.console import Parser, command, give_json
from mgcc_runtime.errors import EXIT_DONE
from mgcc_runtime.notes.remarks import notes_on_words
from mgcc_runtime.results import NoteCode


def noted(text: str) -> frozenset[tuple[str, str]]:
    """Code of each note on a text, and the thing that it calls unknown."""
    most = get_profile("story").max_objects
    notes = notes_on_words([text], LABELS, most)
    return frozenset((n.code.value, n.thing if n.code is NoteCode.UNKNOWN_THING else "") for n in notes)


def score_notes(requests: Sequence[NoteRequest]) -> dict[str, Any]:
    """{"precision" | "recall": {"value", "ci95"}}: shares of the given notes and of the wanted ones."""
    given, wanted = [], []
    for request in requests:
        found = noted(request.text)
        right = float(len(found & request.notes))
        given.append(Tally(right, float(len(found))))
        wanted.append(Tally(right, float(len(request.notes))))
    return {"precision": bootstrap(given).to_json(), "recall": bootstrap(wanted).to_json()}


@command("notes.py")
def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print; returns the exit code (see `mgcc_runtime.commands.console`)."""
    options = _parse(arguments)
    requests = note_requests(options.half)
    scores = score_notes(requests)
    if options.json:
        give_json({"half": options.half.value, "requests": len(requests), "scores": scores})
        return EXIT_DONE
    for name, score in scores.items():
        print(f"{name:10} {score['value']:.3f}  [{score['ci95'][0]:.3f}, {score['ci95'][1]:.3f}]")
    for request in requests if options.wrong else ():
        if (found := noted(request.text)) != request.notes:
            print(f"{request.text}\n  noted {sorted(found)}, wanted {sorted(request.notes)}")
    return EXIT_DONE


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = Parser(prog="notes.py", description="Do notes name what a picture cannot have?")
    parser.add_argument(
        "--half", type=Half, choices=list(Half), default=Half.TEST, metavar="|".join(Half), help="(test)"
    )
    parser.add_argument("--wrong", action="store_true", help="of --half dev: print the requests that are noted wrongly")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args(arguments)
    if options.wrong and options.half is Half.TEST:
        parser.error("--wrong shows requests to mend by, and the half test judges; give --half dev")
    return options
