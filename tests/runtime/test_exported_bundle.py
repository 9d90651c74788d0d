"""A bundle made by the exporter, against the PyTorch reference on requests that its golden data do not hold."""

import json

import numpy as np
import pytest

from mgcc_ref.model import load_model
from mgcc_ref.pipeline import GroundedObject, ReferencePipeline
from mgcc_runtime import Pipeline
from mgcc_runtime.cli import main
from mgcc_runtime.closeness import psnr_db
from tests.runtime.golden_data import gradient
from tests.tolerances import FP32_IMAGE_PSNR_DB

pytestmark = pytest.mark.slow

REQUESTS = [
    (["A cat sits under a tree."], {"seed": 0, "steps": 4, "words": 6}),
    (["This is my friend.", gradient(32, 32), "My friend is here."], {"seed": 5, "steps": 3, "guidance": 4.0}),
    ([gradient(70, 40), gradient(20, 90)], {"seed": 2, "steps": 1, "words": 2}),
]


@pytest.fixture(scope="module")
def reference():
    return ReferencePipeline(load_model("tiny"))


@pytest.fixture(scope="module")
def exported(tiny_bundle):
    with Pipeline.load(tiny_bundle, threads=1) as pipeline:
        yield pipeline


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


def test_same_boxes_of_the_user(exported, reference):
    label = exported.labels.names[2]
    found = exported.generate(["a"], boxes=[{"label": label, "xyxy": [4, 8, 20, 32]}])
    expected = reference.generate(["a"], boxes=[GroundedObject(label, (4 / 32, 8 / 32, 20 / 32, 1.0), 1.0)])
    assert psnr_db(np.asarray(found.image), np.asarray(expected.image)) >= FP32_IMAGE_PSNR_DB


def test_no_boxes(exported, reference):
    found, expected = exported.generate(["a"], boxes="none"), reference.generate(["a"], boxes=())
    assert psnr_db(np.asarray(found.image), np.asarray(expected.image)) >= FP32_IMAGE_PSNR_DB


def test_verify_and_bench(tiny_bundle, capsys):
    assert main(["verify", "--bundle", str(tiny_bundle), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["passed"]
    assert main(["bench", "--bundle", str(tiny_bundle), "--runs", "2", "--warm-up", "0", "--words", "1", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["total_ms"]["mean"] > 0
