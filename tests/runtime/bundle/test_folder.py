"""Opening a bundle: every fault is refused in one sentence, before a file is opened for use."""

import json
import os

import numpy as np
import pytest

from mgcc_ref.config import get_profile
from mgcc_runtime import Pipeline
from mgcc_runtime.bundle.folder import Bundle, Check, Manifest, read_manifest
from mgcc_runtime.errors import EXIT_BAD_INPUT, BundleError, ContractError, EngineError
from tests.runtime.tiny_bundle import DIMENSIONS, make_manifest, reseal


def edit_manifest(root, change):
    path = root / "manifest.json"
    values = json.loads(path.read_text())
    change(values)
    path.write_text(json.dumps(values))


def test_manifest_survives_json():
    values = json.loads(json.dumps(make_manifest(DIMENSIONS).to_json()))
    again = Manifest.from_json(values)
    assert again.to_json() == values
    assert Manifest.from_json(again.to_json()) == again


def test_open_gives_arrays_and_labels(bundle_path, dimensions):
    bundle = Bundle.open(bundle_path)
    embeddings = bundle.array("embed_tokens.npy", (dimensions.vocabulary, dimensions.hidden))
    assert isinstance(embeddings, np.memmap)
    assert bundle.labels() == get_profile("tiny").labels


def test_missing_folder(tmp_path):
    with pytest.raises(BundleError, match="not a folder; give the folder that"):
        Bundle.open(tmp_path / "nowhere")


def test_folder_without_manifest(tmp_path):
    with pytest.raises(BundleError, match=r"is not a bundle, it has no manifest\.json; build one with"):
        Bundle.open(tmp_path)


def test_every_bundle_error_is_bad_input():
    assert BundleError.exit_code == EXIT_BAD_INPUT


def test_truncated_file(own_bundle):
    path = own_bundle / "unet.onnx"
    path.write_bytes(path.read_bytes()[:-7])
    with pytest.raises(BundleError, match=r"unet\.onnx is truncated: \d+ bytes, expected \d+; copy the bundle again"):
        Bundle.open(own_bundle)


def test_altered_file(own_bundle):
    path = own_bundle / "embed_tokens.npy"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(BundleError, match=r"embed_tokens\.npy is altered: SHA-256"):
        Bundle.open(own_bundle)
    assert Bundle.open(own_bundle, Check.SIZES).manifest.profile == "tiny"


def test_missing_file(own_bundle):
    (own_bundle / "tokenizer.json").unlink()
    with pytest.raises(BundleError, match=r"tokenizer\.json is missing"):
        Bundle.open(own_bundle)


def test_newer_schema(own_bundle):
    edit_manifest(own_bundle, lambda m: m.update(schema=3))
    with pytest.raises(BundleError, match=r"schema 3, this runtime \(.*\) reads 2; upgrade mgcc-edge"):
        Bundle.open(own_bundle)


def test_older_schema(own_bundle):
    edit_manifest(own_bundle, lambda m: m.update(schema=1))
    with pytest.raises(
        BundleError, match=r"schema 1, this runtime \(.*\) reads 2; rebuild it with .*build_engines\.py"
    ):
        Bundle.open(own_bundle)


@pytest.mark.parametrize("schema", [0, "1", None])
def test_strange_schema(own_bundle, schema):
    edit_manifest(own_bundle, lambda m: m.update(schema=schema))
    with pytest.raises(BundleError, match="has schema"):
        Bundle.open(own_bundle)


def test_missing_field(own_bundle):
    edit_manifest(own_bundle, lambda m: m.pop("vision"))
    with pytest.raises(BundleError, match="has no field 'vision'"):
        Bundle.open(own_bundle)


@pytest.mark.parametrize("value", [7, "x", [1]])
def test_field_of_wrong_form(own_bundle, value):
    edit_manifest(own_bundle, lambda m: m.update(files=value))
    with pytest.raises(BundleError, match="field of a wrong form"):
        Bundle.open(own_bundle)


@pytest.mark.parametrize("text", ["", "{", "[1, 2]", "\x80\x81"])
def test_manifest_that_is_no_json(own_bundle, text):
    (own_bundle / "manifest.json").write_text(text, encoding="latin-1")
    with pytest.raises(BundleError):
        Bundle.open(own_bundle)


@pytest.mark.parametrize("name", ["/etc/passwd", "../secret.onnx", "a/../../b", "C:\\x", "..\\x", ""])
def test_path_outside(own_bundle, name):
    edit_manifest(own_bundle, lambda m: m["files"].update({name: {"bytes": 1, "sha256": "0"}}))
    with pytest.raises(BundleError, match="expected a path inside the folder"):
        Bundle.open(own_bundle)


def test_link_outside(own_bundle, tmp_path):
    outside = tmp_path / "outside.onnx"
    outside.write_bytes((own_bundle / "unet.onnx").read_bytes())
    (own_bundle / "unet.onnx").unlink()
    (own_bundle / "unet.onnx").symlink_to(outside)
    with pytest.raises(BundleError, match="is a link out of the bundle"):
        Bundle.open(own_bundle)


def test_stage_file_that_is_not_listed(own_bundle):
    edit_manifest(own_bundle, lambda m: m["stages"]["unet"].update(file="../other.onnx"))
    with pytest.raises(BundleError, match=r"lists no \.\./other\.onnx"):
        Bundle.open(own_bundle)


def test_missing_stage(own_bundle):
    edit_manifest(own_bundle, lambda m: m["stages"].pop("refiner"))
    with pytest.raises(BundleError, match="has no stage refiner"):
        Bundle.open(own_bundle)


def test_shape_that_differs_from_the_contract(own_bundle):
    edit_manifest(own_bundle, lambda m: m["stages"]["unet"]["inputs"][0].update(shape=[1, 8, 4, 5]))
    with pytest.raises(ContractError, match=r"latents of stage unet .* \(1, 8, 4, 5\), expected .* \(1, 8, 4, 4\)"):
        Bundle.open(own_bundle)


def test_names_that_differ_from_the_contract(own_bundle):
    edit_manifest(own_bundle, lambda m: m["stages"]["vae_decoder"]["outputs"][0].update(name="pixels"))
    with pytest.raises(ContractError, match="has the outputs pixels, expected image"):
        Bundle.open(own_bundle)


@pytest.mark.parametrize(
    ("requires", "named"), [({"runtime": ">=99.0"}, "runtime >=99.0"), ({"numpy": ">= 77"}, "numpy >= 77")]
)
def test_needs_a_newer_version(own_bundle, requires, named):
    edit_manifest(own_bundle, lambda m: m.update(requires=requires))
    with pytest.raises(BundleError, match=f"needs {named}, this is .*pip install --upgrade"):
        Bundle.open(own_bundle)


def test_nothing_is_unpickled(own_bundle):
    class Trap:
        def __reduce__(self):
            return (os.mkdir, (str(own_bundle / "trapped"),))

    np.save(own_bundle / "embed_tokens.npy", np.array([Trap()], object), allow_pickle=True)
    with pytest.raises(BundleError, match=r"not a plain \.npy array"):
        Pipeline.load(reseal(own_bundle))
    assert not (own_bundle / "trapped").exists()


def test_array_of_another_type(own_bundle):
    np.save(own_bundle / "embed_tokens.npy", np.zeros((268, 16), np.float64))
    with pytest.raises(BundleError, match=r"holds float64 \(268, 16\), expected float32"):
        Pipeline.load(reseal(own_bundle))


def test_tokenizer_that_is_none(own_bundle):
    (own_bundle / "tokenizer.json").write_text("{}")
    with pytest.raises(BundleError, match=r"tokenizer\.json is not a tokenizer"):
        Pipeline.load(reseal(own_bundle))


def test_schedule_of_another_form(own_bundle):
    (own_bundle / "schedule.json").write_text('{"prediction": "epsilon"}')
    with pytest.raises(BundleError, match=r"schedule\.json is not of the expected form"):
        Pipeline.load(reseal(own_bundle))


def test_unknown_engine(own_bundle):
    edit_manifest(own_bundle, lambda m: m["stages"]["unet"].update(engine="abacus"))
    with pytest.raises(EngineError, match="stage unet needs the engine 'abacus', this runtime has host, onnxruntime"):
        Pipeline.load(own_bundle)
    assert read_manifest(own_bundle).stages["unet"].engine == "abacus"
