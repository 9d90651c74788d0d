"""The command that builds a bundle again, as its engines' records and its report say it.

A finished engine in the cache serves every bundle with the same content, of all stages or of a few, so its record is
given the command when it is put into a bundle and not before.
"""

from __future__ import annotations

import json
import shlex
from dataclasses import replace

from mgcc_export.options import BuildOptions
from mgcc_export.stages.cache import BuiltStage
from mgcc_export.targets import asked_grounder
from mgcc_runtime.engines.tensorrt.record import read_record, record_path
from mgcc_runtime.names import ENGINE_SUFFIX


def rebuild_command(options: BuildOptions) -> str:
    """The command line of the same build: every option that decides what the bundle holds, quoted for a shell.

    Paths are as they were given. Left out is what decides only where and how it is built (--out, --cache, --report).
    """
    recipe = options.recipe
    words = ["python", "export/build_engines.py", "--profile", options.profile]
    words += ["--target", recipe.target, "--precision", recipe.precision]
    if options.weights is not None:
        words += ["--weights", str(options.weights)]
    if options.stages:
        words += ["--stages", ",".join(options.stages)]
    if options.grounders:
        words += ["--grounder", asked_grounder(options.grounders)]
    if options.layout_examples is not None:
        words += ["--layout-examples", str(options.layout_examples)]
    if options.captured is not None:
        words += ["--scan", str(options.captured)]
    return shlex.join(words)


def records_with(built: BuiltStage, command: str) -> dict[str, bytes]:
    """The records among a finished stage's files, by name, with `command` in them; none for a stage without engine."""
    found = {}
    for name in built.files:
        path = built.folder / name
        if path.suffix == ENGINE_SUFFIX:
            record = replace(read_record(path), rebuild=command)
            found[record_path(path).name] = (json.dumps(record.to_json()) + "\n").encode()
    return found
