"""`python benchmarks/vist.py`: the fifth picture of VIST's stories."""

from __future__ import annotations

from collections.abc import Sequence

from mgcc_benchmarks.paper.items import PictureFolder
from mgcc_benchmarks.paper.options import finish, parse
from mgcc_benchmarks.paper.protocol import VIST, Known, with_switches
from mgcc_benchmarks.paper.run import Task
from mgcc_benchmarks.paper.vist import VistSetting, read_vist, vist_items
from mgcc_runtime.commands.console import command


@command("vist.py")
def main(arguments: Sequence[str] | None = None) -> int:
    """Draw, score and print; returns the exit code (see `mgcc_runtime.commands.console`)."""
    options = parse("vist.py", "VIST's stories", VistSetting, VIST, arguments)
    protocol = with_switches(VIST[options.protocol], options.switch)

    def task() -> Task:
        stories = read_vist(options.annotations)
        items = vist_items(stories, PictureFolder.by_stem(options.pictures), protocol, options.setting)
        whole = options.setting is VistSetting.CAPTIONS_5_IMAGES_4
        return Task(
            "vist", options.setting.value, protocol, VIST[Known.GILL], items[: options.items], len(items), whole
        )

    return finish(options, task)
