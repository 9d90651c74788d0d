"""A Jetson's own tools: their printed text, and the whole way through processes that print it."""

from __future__ import annotations

import os
import sys
import time

import pytest

from mgcc_runtime.measure import power
from mgcc_runtime.measure.jetson import (
    PowerMode,
    clocks_locked,
    energy_j,
    parse_clocks,
    parse_power_mode,
    parse_sample,
    summarise_power,
    throttle_counts,
)

#: AGX Orin, JetPack 6: no rail of the whole module.
AGX = (
    "11-12-2025 09:14:03 RAM 12345/62841MB (lfb 11x4MB) SWAP 0/31420MB (cached 0MB) "
    "CPU [3%@729,12%@2201,0%@729,off,off] EMC_FREQ 24%@3199 GR3D_FREQ 99%@[1300,1300] NVENC off NVDEC off VIC off "
    "OFA off NVDLA0 off NVDLA1 off PVA0_FREQ off APE 174 cpu@52.5C tboard@38.5C soc2@47.9C tdiode@41.2C soc0@49.4C "
    "cv1@-256C gpu@48.1C tj@52.5C soc1@49.2C cv2@-256C VDD_GPU_SOC 14012mW/9800mW VDD_CPU_CV 1976mW/1600mW "
    "VIN_SYS_5V0 5443mW/4900mW VDDQ_VDD2_1V8AO 1506mW/1200mW"
)
#: Orin Nano, JetPack 6: VDD_IN is the module.
NANO = (
    "RAM 2840/7620MB (lfb 512x4MB) SWAP 0/3810MB (cached 0MB) CPU [25%@1510,20%@1510,22%@1510,18%@1510,off,off] "
    "EMC_FREQ 13%@2133 GR3D_FREQ 61%@[611] VIC off APE 200 cpu@49.6C soc2@48.5C soc0@48.9C gpu@49.2C tj@49.6C soc1@48C "
    "VDD_IN 5765mW/5400mW VDD_CPU_GPU_CV 1548mW/1400mW VDD_SOC 1497mW/1450mW"
)
CLOCKS = """SOC family:tegra234  Machine:NVIDIA Jetson AGX Orin Developer Kit
Online CPUs: 0-11
cpu0:  Online=1 Governor=schedutil MinFreq=729600 MaxFreq=2201600 CurrentFreq=2112000 IdleStates: WFI=1 c7=1 
cpu10: Online=1 Governor=schedutil MinFreq=729600 MaxFreq=2201600 CurrentFreq=1190400 IdleStates: WFI=1 c7=1 
GPU MinFreq=1300500000 MaxFreq=1300500000 CurrentFreq=1300500000
EMC MinFreq=204000000 MaxFreq=3199000000 CurrentFreq=3199000000 FreqOverride=1
DLA0_CORE:   Online=1 MinFreq=0 MaxFreq=1600000000 CurrentFreq=1600000000
FAN Dynamic Speed Control=nvfancontrol hwmon0_pwm1=60
NV Power Mode: MAXN
"""  # noqa: W291 (the tool itself ends lines with a space)


def test_power_mode():
    assert parse_power_mode("NV Power Mode: MAXN_SUPER\n2\n") == PowerMode("MAXN_SUPER", 2)
    assert parse_power_mode("NVPM WARN: power mode is not set!\nNV Power Mode: 15W\n0\n") == PowerMode("15W", 0)
    assert parse_power_mode(CLOCKS) == PowerMode("MAXN", None)
    assert parse_power_mode("NVPM ERROR: no conf file\n") is None


def test_clocks():
    found = parse_clocks(CLOCKS)
    assert found["cpu10"] == {"min": 729.6, "max": 2201.6, "now": 1190.4}
    assert found["GPU"]["now"] == 1300.5
    assert set(found) == {"cpu0", "cpu10", "GPU", "EMC", "DLA0_CORE"}
    assert clocks_locked(found) is True
    assert clocks_locked(parse_clocks(CLOCKS.replace("GPU MinFreq=1300500000", "GPU MinFreq=306000000"))) is False
    assert clocks_locked({}) is None


def test_line_of_an_agx_orin():
    sample = parse_sample(AGX, 7.0)
    assert sample.rails_mw == {
        "VDD_GPU_SOC": 14012, "VDD_CPU_CV": 1976, "VIN_SYS_5V0": 5443, "VDDQ_VDD2_1V8AO": 1506,
    }  # fmt: skip
    assert sample.module_mw == 14012 + 1976 + 5443
    assert (sample.gpu_percent, sample.gpu_mhz, sample.memory_mhz, sample.ram_mb) == (99, 1300, 3199, 12345)
    assert sample.heat_c["tj"] == 52.5
    assert "cv1" not in sample.heat_c  # off


def test_line_of_an_orin_nano():
    sample = parse_sample(NANO, 0.0)
    assert sample.module_mw == 5765  # the parts of the module are not added to it
    assert (sample.gpu_percent, sample.gpu_mhz) == (61, 611)
    assert sample.heat_c["soc1"] == 48


@pytest.mark.parametrize(
    ("line", "module_mw", "gpu"),
    [
        ("RAM 1/2MB GR3D_FREQ 7% VDD_IN 5336/4970 VDD_SOC 1478/1318", 5336, (7, None)),  # JetPack 4: without units
        ("RAM 1/2MB GR3D_FREQ 40%@612", None, (40, 612)),  # without root: no rails
        ("RAM 1/2MB VDD_GPU_SOC 5mW/5mW VDD_CPU_CV 5mW/5mW", None, (None, None)),  # a rail is missing: no total
    ],
)
def test_other_lines(line, module_mw, gpu):
    sample = parse_sample(line, 0.0)
    assert (sample.module_mw, (sample.gpu_percent, sample.gpu_mhz)) == (module_mw, gpu)


def test_no_line():
    assert parse_sample("tegrastats: permission denied", 0.0) is None


def at(seconds, milliwatts, mhz=1000, percent=99):
    line = f"RAM 100/200MB GR3D_FREQ {percent}%@[{mhz}] tj@50C VDD_IN {milliwatts}mW/1mW"
    return parse_sample(line, seconds)


def test_energy_is_the_area_under_the_power():
    rising = [at(0.0, 1000), at(1.0, 3000), at(2.0, 5000)]
    assert energy_j(rising, 0.0, 2.0) == pytest.approx(6.0)
    assert energy_j(rising, 0.5, 1.5) == pytest.approx(3.0)  # 2 W to 4 W
    assert energy_j([at(5.0, 4000)], 0.0, 2.0) == pytest.approx(8.0)  # one sample, held
    assert energy_j([parse_sample("RAM 1/2MB", 0.0)], 0.0, 1.0) is None


def test_summary_of_power():
    found = summarise_power([at(0.0, 9000), at(1.0, 9000, 940), at(2.0, 9000, 300, 5)], 0.0, 2.0, images=3)
    assert found["energy_per_image_j"] == pytest.approx(6.0)
    assert found["mean_power_w"] == pytest.approx(9.0)
    assert found["busy_gpu_mhz"] == [940, 1000]  # the idle sample's clock says nothing
    assert found["gpu_clock_fell"]
    assert not summarise_power([at(0.0, 1, 990), at(1.0, 1, 1000)], 0.0, 1.0, images=1)["gpu_clock_fell"]


def test_throttle_counts(tmp_path):
    folder = tmp_path / "hwmon3"
    folder.mkdir()
    (folder / "oc1_event_cnt").write_text("0\n")
    (folder / "oc3_event_cnt").write_text("37\n")
    (folder / "oc2_event_cnt").write_text("")
    assert throttle_counts(tmp_path) == {"oc1": 0, "oc3": 37}
    assert throttle_counts(tmp_path / "none") == {}


@pytest.fixture
def tools(tmp_path, monkeypatch):
    """The three tools as programs that print the recorded text; tegrastats goes on until it is ended."""
    texts = {"nvpmodel": "NV Power Mode: MAXN\n0\n", "jetson_clocks": CLOCKS}
    bodies = {name: f"print({text!r}, end='')" for name, text in texts.items()}
    bodies["tegrastats"] = f"import time\nwhile True:\n    print({AGX!r}, flush=True)\n    time.sleep(0.01)"
    for name, body in bodies.items():
        (tmp_path / name).write_text(f"#!{sys.executable}\n{body}\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    return tmp_path


def test_a_jetson_is_described(tools):
    found = power.describe_clocks()["jetson"]
    assert (found["power_mode"], found["power_mode_number"], found["clocks_locked"]) == ("MAXN", 0, True)
    (tools / "jetson_clocks").write_text(f"#!{sys.executable}\nraise SystemExit('Please run as root')\n")
    found = power.describe_clocks()["jetson"]
    assert (found["power_mode"], found["clocks_mhz"], found["clocks_locked"]) == ("MAXN", {}, None)


def test_meter(tools):
    with power.PowerMeter() as meter:
        deadline_s = time.monotonic() + 30
        while not meter._samples and time.monotonic() < deadline_s:
            time.sleep(0.01)
    found = meter.summary(images=2)
    assert found["module_rails"] == ["VDD_GPU_SOC", "VDD_CPU_CV", "VIN_SYS_5V0"]
    assert found["mean_power_w"] == pytest.approx(21.431)
    assert found["hottest_c"]["tj"] == 52.5
    assert meter._process.returncode is not None  # nothing is left behind


def test_no_meter_no_figures(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with power.PowerMeter() as meter:
        pass
    assert meter.summary(images=1) is None
    assert set(power.describe_clocks()) == {"cpu"}
