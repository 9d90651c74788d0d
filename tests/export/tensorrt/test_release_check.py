"""What TensorRT's ONNX parser does not take is said at export: every rule has a graph that breaks it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from mgcc_export.errors import EngineRefusedError
from mgcc_export.options import BuildOptions
from mgcc_export.report.table import BuildReport
from mgcc_export.stages import builder as stage_build
from mgcc_export.stages.answers import ModelAnswers
from mgcc_export.stages.builder import StageBuilder
from mgcc_export.stages.cache import stage_cache
from mgcc_export.stages.stage import ExampleMaker, collect_stages
from mgcc_export.targets import Target, choose_recipe
from mgcc_export.tensorrt.parser_facts import BEFORE, LATER_OPERATORS, OLDEST, OPERATORS, last_opset
from mgcc_export.tensorrt.parser_rules import RULES
from mgcc_export.tensorrt.release_check import check_release, refusals
from mgcc_ref.config import get_profile
from mgcc_ref.model import MgccModel
from mgcc_ref.precision import Precision

Built = tuple[BuildReport, BuildOptions]
NEWEST = (BEFORE[0], BEFORE[1] - 1)
Arrays = dict[str, np.ndarray]
FLOAT, INT64 = TensorProto.FLOAT, TensorProto.INT64


def graph(
    path: Path, nodes: Sequence[onnx.NodeProto], constants: Arrays | None = None, opset: int = 18,
    inputs: dict[str, tuple[int, list[int | str]]] | None = None,
) -> Path:  # fmt: skip
    """A graph x (1, 4, 8, 8) -> y, and what else it reads; nothing but the check has to take it."""
    given = {"x": (FLOAT, [1, 4, 8, 8]), **(inputs or {})}
    ends = [helper.make_tensor_value_info(n, kind, shape) for n, (kind, shape) in given.items()]
    out = helper.make_tensor_value_info("y", FLOAT, None)
    weights = [numpy_helper.from_array(v, n) for n, v in (constants or {}).items()]
    made = helper.make_graph(list(nodes), "g", ends, [out], weights)
    onnx.save(helper.make_model(made, opset_imports=[helper.make_opsetid("", opset)], ir_version=10), path)
    return path


def node(kind: str, *inputs: str, out: Sequence[str] = ("y",), **attributes: object) -> list[onnx.NodeProto]:
    return [helper.make_node(kind, list(inputs), list(out), name="it", **attributes)]


AXES = {"axes": (INT64, [1])}
SCALE = {"codes": np.ones((4, 8), np.int8), "scale": np.ones(4, np.float32), "zero": np.zeros(4, np.int8)}
_FOUR = {"codes": np.ones((4, 7)).astype(helper.tensor_dtype_to_np_dtype(TensorProto.INT4))}

#: (what the sentence says, how to make the graph): at least one for each rule, in the order of the rules.
BROKEN: list[tuple[str, Callable[[Path], Path]]] = [
    ("Squeeze it has axes that are computed", lambda p: graph(p, node("Squeeze", "x", "axes"), inputs=AXES)),
    ("Unsqueeze it has axes that are computed", lambda p: graph(p, node("Unsqueeze", "x", "axes"), inputs=AXES)),
    ("Pad it has axes that are computed",
     lambda p: graph(p, node("Pad", "x", "pads", "", "axes"), {"pads": np.zeros(2, np.int64)}, inputs=AXES)),
    ("CumSum it has an axis that is computed", lambda p: graph(p, node("CumSum", "x", "axes"), inputs=AXES)),
    ("ReduceMean it has axes that are computed", lambda p: graph(p, node("ReduceMean", "x", "axes"), inputs=AXES)),
    ("Squeeze it has no axes, and a shape that is not stated",
     lambda p: graph(p, node("Squeeze", "long"), inputs={"long": (FLOAT, [1, "S"])})),
    ("GroupNormalization it has scales and shifts by channel",
     lambda p: graph(p, node("GroupNormalization", "x", "s", "s"), {"s": np.ones(4, np.float32)}, opset=21)),
    ("ScatterND it has the attribute reduction,",
     lambda p: graph(p, node("ScatterND", "x", "i", "u", reduction="none"))),
    ("ScatterND it has a reduction other than none",
     lambda p: graph(p, node("ScatterND", "x", "i", "u", reduction="add"))),
    ("Pow it has integers for a base", lambda p: graph(p, node("Pow", "axes", "x"), inputs=AXES)),
    ("Pow it has an exponent of integers", lambda p: graph(p, node("Pow", "x", "two"), {"two": np.array([2])})),
    ("BatchNormalization it has tensors of several types",
     lambda p: graph(p, node("BatchNormalization", "x", *"sbmv"), {n: np.ones(4, np.float16) for n in "sbmv"})),
    ("DequantizeLinear it has uint8 values",
     lambda p: graph(p, node("DequantizeLinear", "codes", "scale"), SCALE | {"codes": np.ones((4, 8), np.uint8)})),
    ("QuantizeLinear it has uint8 values",
     lambda p: graph(p, node("QuantizeLinear", "x", "scale", "zero"), SCALE | {"zero": np.zeros(4, np.uint8)})),
    ("DequantizeLinear it has a zero point other than 0",
     lambda p: graph(p, node("DequantizeLinear", "codes", "scale", "zero"), SCALE | {"zero": np.ones(4, np.int8)})),
    ("DequantizeLinear it has a scale that is not above 0",
     lambda p: graph(p, node("DequantizeLinear", "codes", "scale"), SCALE | {"scale": np.zeros(4, np.float16)})),
    ("DequantizeLinear it has 4-bit weights with an odd last length",
     lambda p: graph(p, node("DequantizeLinear", "codes", "scale"), SCALE | _FOUR, opset=21)),
    ("TopK it has results that are not sorted",
     lambda p: graph(p, node("TopK", "x", "k", out=("y", "i"), sorted=0), {"k": np.array([3])})),
    ("TopK it has 3840 results or more",
     lambda p: graph(p, node("TopK", "x", "k", out=("y", "i")), {"k": np.array([4000])})),
    ("Resize it has antialiasing", lambda p: graph(p, node("Resize", "x", "", "s", antialias=1, mode="linear"))),
    ("LayerNormalization it has more than one result",
     lambda p: graph(p, node("LayerNormalization", "x", "s", out=("y", "mean")))),
    ("MaxPool it has dilations", lambda p: graph(p, node("MaxPool", "x", kernel_shape=[2, 2], dilations=[2, 2]))),
]  # fmt: skip


@pytest.mark.parametrize(("sentence", "make"), BROKEN, ids=[sentence for sentence, _ in BROKEN])
def test_each_rule_is_broken_by_a_graph_and_by_no_other(
    tmp_path: Path, sentence: str, make: Callable[[Path], Path]
) -> None:
    """The sentence is among the refusals of the oldest release, and of the newest where no release takes it."""
    path = make(tmp_path / "broken.onnx")
    assert any(sentence in found for found in refusals(path, OLDEST)), [*refusals(path, OLDEST)]
    operator, told = sentence.split(maxsplit=1)[0], sentence.split("has ", 1)[1].rstrip(",")
    (rule,) = [r for r in RULES if operator in r.operators and r.told.startswith(told)]
    assert any(f"has {rule.told}" in found for found in refusals(path, NEWEST)) is (rule.since is None)
    if rule.since is not None:
        assert not any(f"has {rule.told}" in found for found in refusals(path, rule.since))


def test_every_rule_has_its_graph() -> None:
    told = [sentence.split("has ", 1)[1].rstrip(",") for sentence, _ in BROKEN]
    assert [r.told for r in RULES if not any(r.told.startswith(t) for t in told)] == []


@pytest.mark.parametrize(
    ("name", "attributes", "sentence"),
    [
        ("Attention", {}, "is an operator that TensorRT's parser has from 10.14 on"),
        ("RMSNormalization", {}, "from 10.15 on"),
        ("Unique", {}, "is an operator that TensorRT's parser has not"),
        ("FusedMatMul", {"domain": "com.microsoft"}, "is of the domain com.microsoft"),
    ],
)
def test_operators_of_later_releases_are_named(
    tmp_path: Path, name: str, attributes: dict[str, str], sentence: str
) -> None:
    path = graph(tmp_path / "later.onnx", node(name, "x", **attributes))
    with pytest.raises(EngineRefusedError, match=rf"stage unet: {name} it .*{sentence}.* TensorRT 10\.3, too; take"):
        check_release(path, "unet", OLDEST)
    if name in LATER_OPERATORS:
        assert not list(refusals(path, NEWEST))


def test_opsets_and_types_have_their_releases(tmp_path: Path) -> None:
    assert [last_opset(r) for r in (OLDEST, (10, 7), (10, 13), (10, 16), (11, 4))] == [21, 22, 23, 24, 25]
    path = graph(tmp_path / "new.onnx", node("Relu", "x"), opset=24)
    assert list(refusals(path, OLDEST)) == ["the graph has opset 24, expected 9 to 21"] and not [
        *refusals(path, NEWEST)
    ]
    path = graph(tmp_path / "wide.onnx", node("Relu", "d"), inputs={"d": (TensorProto.UINT16, [1])})
    assert list(refusals(path, NEWEST)) == ["d has the type uint16, which TensorRT's parser refuses"]


def test_what_stands_within_a_branch_is_found(tmp_path: Path) -> None:
    out = [helper.make_tensor_value_info("z", FLOAT, None)]
    branch = helper.make_graph([helper.make_node("Unique", ["x"], ["z"], name="inner")], "branch", [], out)
    path = graph(tmp_path / "if.onnx", node("If", "c", then_branch=branch, else_branch=branch))
    assert [found.split(" is ")[0] for found in refusals(path, OLDEST)] == ["Unique inner"] * 2


def test_the_operators_are_onnx_ones_and_each_is_there_once() -> None:
    known = {s.name for s in onnx.defs.get_all_schemas_with_history()}
    assert OPERATORS - known == {"ImageScaler", "ParametricSoftplus", "ScaledTanh"}  # of ONNX's first experiments
    assert {*LATER_OPERATORS} <= known and not OPERATORS & {*LATER_OPERATORS}


def test_a_graph_that_the_oldest_release_does_not_read_gets_the_next_precision(
    tiny: MgccModel, tiny_build: Built, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As with a graph that a compiler refuses, and in fp32, the last, it ends the build."""
    asked: list[tuple[str, tuple[int, int]]] = []

    def refuse(path: Path, stage: str, release: tuple[int, int]) -> None:
        asked.append((stage, release))
        if len(asked) == 1:
            raise EngineRefusedError(f"stage {stage}: a node has something")

    monkeypatch.setattr(stage_build, "check_release", refuse)
    (stage,) = collect_stages(tiny, ("refiner",))
    source, target = tiny_build[1].out / "refiner.onnx", tmp_path / "refiner.onnx"
    recipe, cache = choose_recipe(Target.TENSORRT, Precision.FP16), stage_cache(tmp_path / "cache")
    builder = StageBuilder(get_profile("tiny"), recipe, ModelAnswers(ExampleMaker(tiny)), cache, lambda *_: None)
    lowered, report, _, _ = builder._lowest_that_builds(stage, source, target, "refiner")
    assert asked == [("refiner", OLDEST)] * 2
    assert (lowered.precision, report.reasons) == (Precision.FP32, ("fp16: stage refiner: a node has something",))


def test_graphs_for_others_are_not_held_against_it() -> None:
    held = {t for t in Target if choose_recipe(t, Precision.FP16).oldest_release is not None}
    assert held == {Target.JETSON, Target.TENSORRT}
