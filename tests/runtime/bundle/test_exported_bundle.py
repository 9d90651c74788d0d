"""Bundles as the exporter writes them, against the PyTorch reference on requests that their golden data do not hold."""

import json

import numpy as np
import pytest
from PIL import Image

from mgcc_ref.config import get_profile
from mgcc_ref.model import load_model
from mgcc_ref.parts import STAGE_PARTS, load_parts
from mgcc_ref.pipeline import GroundedObject, ReferencePipeline
from mgcc_runtime import Pipeline
from mgcc_runtime.bundle.folder import Bundle
from mgcc_runtime.cli import main
from mgcc_runtime.contract import DType, stages
from mgcc_runtime.engines import EngineOptions, open_session
from mgcc_runtime.measure.golden import stage_golden
from mgcc_runtime.measure.similarity import psnr_db, relative_l2
from tests.exported import PROFILES, exported_bundle
from tests.runtime.golden_data import gradient
from tests.tolerances import FP32_IMAGE_PSNR_DB

REQUESTS = [
    (["A Cat sits under a tree."], {"seed": 0, "steps": 4, "words": 6}),
    (["This is my friend.", gradient(32, 32), "My über-cool friend is here."], {"seed": 5, "steps": 4, "words": 2}),
    ([gradient(70, 40), gradient(20, 90)], {"seed": 2, "steps": 4, "words": 0}),
]
#: An input that nothing depends on moves no output; the weakest real one moves one by 1e-3.
INERT = 1e-4


@pytest.fixture(scope="module", params=PROFILES)
def path(request, tmp_path_factory):
    return exported_bundle(request.param, tmp_path_factory)


@pytest.fixture(scope="module")
def exported(path):
    with Pipeline.load(path, threads=1) as pipeline:
        yield pipeline


@pytest.fixture(scope="module")
def reference(exported):
    profile = get_profile(exported.bundle.manifest.profile)
    if not profile.llm.streamed:
        return ReferencePipeline(load_model(profile))
    parts = load_parts(profile)
    parts.hold(list(STAGE_PARTS))
    return ReferencePipeline(parts.model)


@pytest.mark.parametrize(("parts", "options"), REQUESTS)
def test_same_as_the_reference(exported, reference, parts, options):
    found, expected = exported.generate(parts, **options), reference.generate(parts, **options)
    assert psnr_db(np.asarray(found.image), np.asarray(expected.image)) >= FP32_IMAGE_PSNR_DB
    assert found.text_tokens == expected.text.token_ids
    assert found.text == expected.text.text
    assert [box.label for box in found.boxes] == [item.label for item in expected.layout.objects]
    size = found.image.width
    for box, item in zip(found.boxes, expected.layout.objects, strict=True):
        np.testing.assert_allclose(np.array(box.xyxy) / size, np.clip(item.box, 0, 1), atol=1e-4)


def test_without_a_label_list_things_are_called_by_the_users_words(exported, reference):
    if exported.labels.names:
        assert {box.label for box in exported.generate(["a"], steps=4).boxes} <= {*exported.labels.names}
        return
    told = "A Zebra, a red-haired O'Neill and the Über-Elephant."
    words = {"A", "Zebra", "a", "red-haired", "O'Neill", "and", "the", "Über-Elephant"}
    found = exported.generate([told], steps=4)
    assert found.boxes and {box.label for box in found.boxes} <= words
    pictures = exported.generate([gradient(20, 20)], steps=4).boxes
    assert {box.label for box in pictures} == {"object"}  # nothing was said


@pytest.fixture(scope="module")
def steps(exported):
    """Enough that a stage with gates has its part in the picture."""
    return 20 if exported.bundle.manifest.dimensions.gated else 4


def test_same_boxes_of_the_user(exported, reference, steps):
    size = exported.bundle.manifest.dimensions.image_px
    label = exported.labels.names[2] if exported.labels.names else "grey lighthouse keeper"
    left, top, right, bottom = box = (size / 8, size / 4, size * 5 / 8, float(size))
    place = (left / size, top / size, right / size, bottom / size)
    found = exported.generate(["a"], steps=steps, boxes=[{"label": label, "xyxy": box}])
    expected = reference.generate(["a"], steps=steps, boxes=[GroundedObject(label, place, 1.0)])
    moved = exported.generate(["a"], steps=steps, boxes=[{"label": label, "xyxy": (0, 0, size / 4, size / 4)}])
    same = psnr_db(np.asarray(found.image), np.asarray(expected.image))
    assert same >= FP32_IMAGE_PSNR_DB
    assert same >= psnr_db(np.asarray(found.image), np.asarray(moved.image)) + 10  # so that a wrong place would show


def test_what_is_in_a_box_is_seen(exported, steps):
    size = exported.bundle.manifest.dimensions.image_px
    names = exported.labels.names[:2] if exported.labels.names else ("zebra", "unicorn")
    first, second = (
        np.asarray(
            exported.generate(["a"], steps=steps, boxes=[{"label": name, "xyxy": (1, 1, size - 1, size - 1)}]).image
        )
        for name in names
    )
    assert not np.array_equal(first, second)


def test_no_boxes(exported, reference):
    found = exported.generate(["a"], steps=4, boxes="none")
    expected = reference.generate(["a"], steps=4, boxes=())
    assert psnr_db(np.asarray(found.image), np.asarray(expected.image)) >= FP32_IMAGE_PSNR_DB


def test_gates_are_on_for_the_first_part_of_the_steps_alone(exported):
    """The stage without gates takes over where the schedule says, and is another network."""
    dimensions = exported.bundle.manifest.dimensions
    if not dimensions.gated:
        assert "unet_plain" not in exported.stages.sessions
        return
    calls = {name: _counted(exported, name) for name in ("unet", "unet_plain")}
    exported.generate(["a"], steps=20)
    table = exported.schedule.table(20)
    gated = exported.schedule.gated_evaluations(table)
    assert 0 < gated < table.evaluations
    assert {name: len(count) for name, count in calls.items()} == {
        "unet": gated, "unet_plain": table.evaluations - gated
    }  # fmt: skip


def _counted(pipeline, name):
    session, calls = pipeline.stages.sessions[name], []
    run = session.run
    session.run = lambda *feeds, **options: calls.append(name) or run(*feeds, **options)
    return calls


def test_every_input_of_every_stage_matters(path):
    """Weights of noise that leave an input without effect would make every comparison of it worthless."""
    bundle = Bundle.open(path)
    inert = [
        f"{spec.name}: {name}"
        for spec in stages(bundle.manifest.dimensions)
        for name, moved in _moved_by_inputs(bundle, spec)
        if moved < INERT
    ]
    assert inert == []


def _moved_by_inputs(bundle, spec):
    golden, entry = stage_golden(bundle, spec.name), bundle.manifest.stages[spec.name]
    session = open_session(entry.engine, bundle.file(entry.file), spec, EngineOptions(1))
    rng = np.random.default_rng(0)
    before = session.run(golden.inputs).arrays
    for tensor in spec.inputs:
        after = session.run({**golden.inputs, tensor.name: _other(tensor, golden.inputs[tensor.name], rng)}).arrays
        yield (
            tensor.name,
            max(relative_l2(after[n].astype(np.float64), v.astype(np.float64)) for n, v in before.items()),
        )
    session.close()


def _other(tensor, value, rng):
    """Values of the input that are as good as `value`, and others."""
    if tensor.dtype is DType.BOOL:
        return np.where(np.arange(value.shape[-1]) == 0, True, ~value)
    if tensor.dtype is DType.INT64:
        return (value + 1) % 60
    if tensor.name == "box_mask":
        return 1 - value
    if tensor.name == "boxes":
        return value / 2
    if tensor.name == "timestep":
        return np.full_like(value, 3)
    return (value + 0.3 * rng.standard_normal(value.shape)).astype(np.float32)


def test_a_chat_reads_each_turn_once_and_draws_what_a_request_does(exported):
    read = _lengths_read(exported)
    chat = exported.chat()
    first = chat.send("A fox in the snow.", seed=3, steps=4)
    turn, *_ = read
    again = exported.generate(["A fox in the snow."], seed=3, steps=4)
    assert psnr_db(np.asarray(first.image), np.asarray(again.image)) >= FP32_IMAGE_PSNR_DB
    read.clear()
    chat.send("It wakes.", steps=4)
    assert 0 < read[0] < turn  # the first turn is in the cache
    assert len(chat.turns) == 2


def _lengths_read(pipeline):
    """How many positions each call of the language model reads, from now on."""
    session, lengths = pipeline.stages.sessions["llm"], []
    run = session.run
    session.run = lambda feeds, *rest, **more: (
        lengths.append(feeds["inputs_embeds"].shape[1]) or run(feeds, *rest, **more)
    )
    return lengths


def test_the_command_line_plays_it(path, tmp_path, capsys):
    assert main(["verify", "--bundle", str(path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["passed"]
    assert main(["info", "--bundle", str(path)]) == 0
    out = tmp_path / "turn.png"
    assert (
        main(["generate", "--bundle", str(path), "--text", "a cat", "--steps", "4", "--out", str(out), "--json"]) == 0
    )
    assert Image.open(out).size == (json.loads(capsys.readouterr().out.splitlines()[-1])["images"][0]["width"],) * 2
    told = ["bench", "--bundle", str(path), "--runs", "1", "--warm-up", "0", "--words", "1", "--steps", "4", "--json"]
    assert main([*told, "--parts", "latency"]) == 0
    assert json.loads(capsys.readouterr().out)["total_ms"]["mean"] > 0
