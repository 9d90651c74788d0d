"""A bundle made by hand whose language model can be asked for layouts, beside the exporter's own `paper-tiny`."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from mgcc_ref.in_context.layout_grammar import LayoutGrammar
from mgcc_ref.in_context.token_masks import compile_masks
from mgcc_ref.in_context.token_trie import TokenTrie, token_texts
from mgcc_runtime import Pipeline
from mgcc_runtime.bundle.folder import read_manifest, write_manifest
from mgcc_runtime.bundle.manifest import InContextRules
from mgcc_runtime.in_context.files import pack_masks
from mgcc_runtime.layout_text import DEFAULT_PROMPT
from mgcc_runtime.names import LAYOUT_EXAMPLES, LAYOUT_MASKS
from tests.runtime.tiny_bundle import DIMENSIONS, LABELS, make_bundle, make_tokenizer, reseal


@pytest.fixture(scope="session")
def layout_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One token a byte, a closed list of labels, both grounders; read only."""
    root = make_bundle(tmp_path_factory.mktemp("layout") / "made", replace(DIMENSIONS, context=2048))
    grammar = LayoutGrammar(DIMENSIONS.objects, LABELS)
    (root / LAYOUT_MASKS).write_bytes(pack_masks(compile_masks(grammar, TokenTrie(token_texts(make_tokenizer())))))
    (root / LAYOUT_EXAMPLES).write_text(json.dumps(DEFAULT_PROMPT.to_json()))
    write_manifest(root, replace(read_manifest(root), in_context=InContextRules(grammar.longest_line)))
    return reseal(root)


@pytest.fixture
def own_layout_bundle(layout_bundle: Path, tmp_path: Path) -> Path:
    """A copy to spoil."""
    return shutil.copytree(layout_bundle, tmp_path / "own")


@pytest.fixture
def layout_pipe(layout_bundle: Path) -> Iterator[Pipeline]:
    with Pipeline.load(layout_bundle) as pipeline:
        yield pipeline
