"""A bundle that the exporter wrote lays out what the reference lays out, token for token."""

from __future__ import annotations

from dataclasses import replace

from mgcc_runtime import Pipeline
from mgcc_runtime.contract import Grounder
from mgcc_runtime.measure.golden_layout import layout_golden, play_layout


def test_the_layout_is_the_references(paper_pipe: Pipeline) -> None:
    """The known mistake, a prompt of other examples, gives another one."""
    assert paper_pipe.bundle.manifest.grounders == (Grounder.LAYOUT_HEAD, Grounder.IN_CONTEXT)
    golden = layout_golden(paper_pipe.bundle)
    written = play_layout(paper_pipe, golden)
    assert (written.tokens, written.text) == (golden.token_ids, golden.text) and len(written.objects()) > 0
    fewer = replace(golden.prompt, examples=golden.prompt.examples[:1])
    assert play_layout(paper_pipe, replace(golden, prompt=fewer)).tokens != golden.token_ids
