"""What a bundle says of the CPU that it was measured on, and what the runtime says on another one."""

from __future__ import annotations

import json
import logging
import shutil
from dataclasses import replace

import pytest

from mgcc_runtime import Pipeline
from mgcc_runtime.bundle.cpu_remark import cpu_lines, cpu_remark
from mgcc_runtime.bundle.folder import read_manifest, write_manifest
from mgcc_runtime.bundle.manifest import Manifest, MeasuredOn
from mgcc_runtime.cli import main
from mgcc_runtime.device.cpu_features import cpu_features
from mgcc_runtime.measure.verify import verify

PLAIN = ("avx", "avx2", "fma")
XEON = ("avx", "avx2", "avx512_bf16", "avx512_vnni", "avx512f", "fma")
ORIN = ("asimd", "asimddp")


@pytest.fixture(scope="module")
def root(bundle_path, tmp_path_factory):
    """A copy whose manifest is changed."""
    return shutil.copytree(bundle_path, tmp_path_factory.mktemp("cpu") / "bundle")


@pytest.fixture
def lowered(root) -> Manifest:
    manifest = read_manifest(root)
    return replace(manifest, precision={**manifest.precision, "unet": "int8"})


def on_openvino(manifest: Manifest) -> Manifest:
    stages = {**manifest.stages, "unet": replace(manifest.stages["unet"], engine="openvino")}
    return replace(manifest, stages=stages)


def test_fp32_and_other_targets_have_nothing_to_say(root, lowered):
    assert cpu_remark(read_manifest(root), PLAIN, "x86_64") == ""
    measured = replace(lowered, target="jetson", measured_on=MeasuredOn("Xeon", 2, XEON))
    assert cpu_remark(measured, PLAIN, "x86_64") == ""


def test_another_cpu_is_named_with_what_it_lacks_and_the_command(lowered):
    told = cpu_remark(replace(lowered, measured_on=MeasuredOn("A Xeon", 2, XEON)), PLAIN, "x86_64")
    assert "measured on A Xeon (avx2, avx512, vnni, bf16), and this CPU has avx2: it gives the same here" in told
    assert "--target cpu --precision auto --weights random`" in told and "\n" not in told
    assert "this CPU has neon, dotprod" in cpu_remark(
        replace(lowered, measured_on=MeasuredOn("A Xeon", 2, XEON)), ORIN, "aarch64"
    )


def test_a_profile_in_a_file_is_not_called_by_its_name(lowered):
    """`--profile mine` is no profile; and what such a bundle's weights are only the user knows."""
    mine = replace(lowered, profile="mine", profile_in_file=True, measured_on=MeasuredOn("A Xeon", 2, XEON))
    told = cpu_remark(replace(mine, weights="trained"), PLAIN, "x86_64")
    assert "--profile FILE.json --target cpu --precision auto --weights DIR`" in told and "mine" not in told
    assert "--profile FILE.json --target cpu --precision auto --weights random`" in cpu_remark(mine, PLAIN, "x86_64")
    assert Manifest.from_json(json.loads(json.dumps(mine.to_json()))) == mine


def test_the_same_arithmetic_needs_no_word(lowered):
    measured = replace(lowered, measured_on=MeasuredOn("Another", 8, (*PLAIN, "f16c")))
    assert cpu_remark(measured, PLAIN, "x86_64") == "" and cpu_remark(measured, (), "x86_64") == ""
    assert cpu_lines(measured)[0] == "measured on Another, 8 cores (avx2)"


def test_an_older_bundle_with_openvinos_int8_is_doubted_where_bytes_saturate(lowered):
    old = on_openvino(lowered)
    told = cpu_remark(old, PLAIN, "x86_64")
    assert "stages unet of this bundle" in told and "no VNNI" in told and told.endswith("--weights random`")
    assert cpu_remark(old, XEON, "x86_64") == cpu_remark(old, ORIN, "aarch64") == ""
    assert cpu_remark(lowered, PLAIN, "x86_64") == ""  # ONNX Runtime's products are exact


def test_a_manifest_without_the_field_is_read_as_unknown(lowered):
    values = json.loads(json.dumps(lowered.to_json()))
    assert values.pop("measured_on") is None
    assert Manifest.from_json(values).measured_on is None
    measured = replace(lowered, measured_on=MeasuredOn("A Xeon", 2, XEON))
    assert Manifest.from_json(json.loads(json.dumps(measured.to_json()))) == measured


def test_load_info_and_verify_say_it(root, lowered, caplog, capsys):
    """With the features of another CPU than this one, whatever this is."""
    before = read_manifest(root)
    other = ORIN if "avx2" in cpu_features() else XEON
    write_manifest(root, replace(lowered, measured_on=MeasuredOn("Elsewhere", 4, other)))
    try:
        with caplog.at_level(logging.WARNING):
            Pipeline.load(root, threads=1).close()
        assert [r.message for r in caplog.records if "measured on Elsewhere" in r.message]
        assert main(["info", "--bundle", str(root)]) == 0
        printed = capsys.readouterr().out
        assert "measured on Elsewhere, 4 cores" in printed and "note: engines and precisions" in printed
        assert main(["info", "--bundle", str(root), "--json"]) == 0
        told = json.loads(capsys.readouterr().out)
        assert told["measured_on"]["features"] == list(other) and "measured on Elsewhere" in told["cpu_remark"]
        findings = {f.name: f for f in verify(root, threads=1)}
        assert findings["cpu"].passed and "measured on Elsewhere" in findings["cpu"].detail
    finally:
        write_manifest(root, before)
    assert "cpu" not in {f.name for f in verify(root, threads=1)}
