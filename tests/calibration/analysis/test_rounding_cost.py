"""What rounding costs: the order of the corrections, on weights that a correction can help."""

import json

import pytest

from mgcc_calibration.analysis.perplexity import Wording, story_texts
from mgcc_calibration.analysis.rounding_cost import Rounding, compare_roundings
from mgcc_calibration.cli import main
from mgcc_calibration.errors import DataError
from mgcc_calibration.quantise.matmul_nbits import Correction
from mgcc_runtime.device.cpu_features import cpu_features
from mgcc_runtime.errors import EXIT_BAD_INPUT, EXIT_DONE


def test_fewer_bits_cost_more_and_eight_nearly_nothing(bundle, data):
    roundings = [Rounding(8, Correction.NONE), Rounding(4, Correction.NONE), Rounding(4, Correction.GPTQ)]

    exact, eight, nearest, gptq = compare_roundings(
        bundle, data, Wording(story_texts(1, seed=5), most=60), lambda _: None, roundings
    )

    assert (exact.name, exact.agreement, exact.tokens) == ("fp32", 1.0, 60)
    assert eight.perplexity == pytest.approx(exact.perplexity, rel=0.05) and eight.agreement > 0.9
    assert eight.weight_error < nearest.weight_error / 8
    assert nearest.weight_bytes < eight.weight_bytes < sum(f.bytes for f in bundle.manifest.files.values())
    # GPTQ moves weights away from their nearest codes, to make up for the others' errors
    assert gptq.weight_error > nearest.weight_error


def test_the_command_writes_a_table_and_json(bundle, data, tmp_path, capsys):
    out = tmp_path / "roundings.json"
    command = ["roundings", "--bundle", bundle.root, "--data", data.root, "--stories", "1", "--tokens", "20"]

    assert main([str(c) for c in [*command, "--out", out]]) == EXIT_DONE

    shown = capsys.readouterr().out
    written = json.loads(out.read_text())
    assert written["machine"]["cpu_features"] == list(cpu_features())
    rows = written["roundings"]
    assert [row["name"] for row in rows] == ["fp32", "8 bits, rtn", *(f"4 bits, {c}" for c in Correction)]
    assert all(f"| {row['name']} | {row['perplexity']:.3f} |" in shown for row in rows)


def test_what_cannot_be_compared_is_refused(bundle, data, tmp_path):
    with pytest.raises(DataError, match="no two tokens"):
        next(compare_roundings(bundle, data, Wording(["a"]), lambda _: None))
    command = ["roundings", "--bundle", str(bundle.root), "--data", str(tmp_path)]
    assert main(command) == EXIT_BAD_INPUT
