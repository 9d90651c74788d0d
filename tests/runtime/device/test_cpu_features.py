"""A CPU's features by Linux's own words: x86 with and without VNNI, arm64, and systems that do not tell."""

from __future__ import annotations

import onnxruntime as ort
import pytest

from mgcc_runtime.device import cpu_features as module
from mgcc_runtime.device.cpu_features import cpu_features, parse_features, sums_bytes_in_16_bits
from mgcc_runtime.engines.onnxruntime import cpu as engine
from mgcc_runtime.machine import describe_machine

EPYC = "processor\t: 0\nmodel name\t: AMD EPYC\nflags\t\t: fpu sse4_1 avx f16c fma avx2 sha_ni\n"
XEON = "processor\t: 0\nflags\t\t: avx avx2 fma avx512f avx512bw avx512_bf16 avx512_vnni\nvmx flags\t: vnmi\n"
ALDER_LAKE = "flags\t\t: avx avx2 fma avx_vnni\n"
ORIN = "processor\t: 0\nFeatures\t: fp asimd evtstrm aes asimdhp cpuid asimddp\nCPU part\t: 0xd42\n"


@pytest.mark.parametrize(
    ("text", "machine", "saturates"),
    [
        (EPYC, "x86_64", True),
        (XEON, "x86_64", False),
        (ALDER_LAKE, "AMD64", False),
        (ORIN, "aarch64", False),
        ("", "x86_64", True),  # it does not tell
        ("", "arm64", False),
    ],
)
def test_which_cpus_sum_bytes_in_16_bits(text, machine, saturates):
    assert sums_bytes_in_16_bits(parse_features(text), machine) is saturates


def test_features_are_those_of_all_cores():
    assert parse_features(EPYC) == ("avx", "avx2", "f16c", "fma", "sse4_1")
    assert parse_features(ORIN) == ("asimd", "asimddp", "asimdhp")
    little = "Features\t: fp asimd\n"
    assert parse_features(f"{ORIN}\n{little}") == ("asimd",)
    assert parse_features("processor\t: 0\nno such line\n") == ()


def test_a_system_without_the_file_tells_nothing(monkeypatch, tmp_path):
    monkeypatch.setattr(module, "CPUINFO", tmp_path / "none")
    cpu_features.cache_clear()
    assert cpu_features() == ()
    cpu_features.cache_clear()


def test_the_machines_description_has_them():
    assert describe_machine()["cpu_features"] == list(cpu_features())


@pytest.mark.parametrize("saturates", [True, False])
def test_onnxruntime_is_told_where_the_cpu_saturates_and_only_there(monkeypatch, saturates):
    monkeypatch.setattr(engine, "sums_bytes_in_16_bits", lambda: saturates)
    told = []
    plain = ort.SessionOptions.add_session_config_entry
    monkeypatch.setattr(
        ort.SessionOptions,
        "add_session_config_entry",
        lambda self, *entry: (told.append(entry), plain(self, *entry))[1],
    )
    engine.cpu_settings(1)
    assert (("session.x64quantprecision", "1") in told) is saturates
