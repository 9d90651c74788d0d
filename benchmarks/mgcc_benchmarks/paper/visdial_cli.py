"""`python benchmarks/visdial.py`: the picture that a dialogue of VisDial is about."""

from __future__ import annotations

from collections.abc import Sequence

from mgcc_benchmarks.paper.items import PictureFolder
from mgcc_benchmarks.paper.options import finish, parse
from mgcc_benchmarks.paper.protocol import VISDIAL, Known, with_switches
from mgcc_benchmarks.paper.run import Task
from mgcc_benchmarks.paper.visdial import ID_DIGITS, VisdialSetting, read_visdial, visdial_items
from mgcc_runtime.commands.console import command


@command("visdial.py")
def main(arguments: Sequence[str] | None = None) -> int:
    """Draw, score and print; returns the exit code (see `mgcc_runtime.commands.console`)."""
    options = parse("visdial.py", "VisDial's dialogues", VisdialSetting, VISDIAL, arguments)
    protocol = with_switches(VISDIAL[options.protocol], options.switch)

    def task() -> Task:
        dialogues = read_visdial(options.annotations)
        pictures = PictureFolder.by_digits(options.pictures, ID_DIGITS)
        items = visdial_items(dialogues, pictures, protocol, options.setting)
        whole = options.setting is VisdialSetting.ROUNDS_10
        gill = VISDIAL[Known.GILL]
        return Task("visdial", options.setting.value, protocol, gill, items[: options.items], len(items), whole)

    return finish(options, task)
