"""What a machine says of its GPU: nvidia-smi's and a Jetson's own text, and the CUDA driver where that is silent."""

from __future__ import annotations

import os
import sys

import pytest

from mgcc_runtime import machine
from mgcc_runtime.device import cuda_driver
from mgcc_runtime.errors import EngineError
from mgcc_runtime.machine import describe_machine, parse_cuda, parse_gpus, parse_l4t
from tests.runtime.host_gpu import HostDriver

#: --query-gpu=name,compute_cap,driver_version,memory.total --format=csv,noheader,nounits
TWO_CARDS = "NVIDIA GeForce RTX 4090, 8.9, 570.195.03, 24564\nNVIDIA RTX A6000, 8.6, 570.195.03, 49140\n"
ORIN = "Orin (nvgpu), [N/A], 540.4.0, [N/A]\n"
#: The head of the table, of drivers of 2025, of 2026 and of a Jetson.
TABLES = {
    "12.8": """Thu May 21 05:30:38 2026
+-----------------------------------------------------------------------------------------+
| NVIDIA-SMI 570.195.03             Driver Version: 570.195.03     CUDA Version: 12.8     |
|-----------------------------------------+------------------------+----------------------+
""",
    "13.3": """Wed Sep 30 21:53:38 2026
+-----------------------------------------------------------------------------------------+
| NVIDIA-SMI 610.57.04              KMD Version: 610.57.04     CUDA UMD Version: 13.3     |
+-----------------------------------------+------------------------+----------------------+
""",
    "12.6": """+---------------------------------------------------------------------------------------+
| NVIDIA-SMI 540.4.0                Driver Version: 540.4.0      CUDA Version: 12.6     |
|-----------------------------------------+----------------------+----------------------+
|   0  Orin (nvgpu)                  N/A  | N/A              N/A |                  N/A |
""",
}
L4T = (
    "# R36 (release), REVISION: 4.7, GCID: 42132812, BOARD: generic, EABI: aarch64, DATE: Thu Sep 18 22:54:44 UTC "
    "2025\n# KERNEL_VARIANT: oot\nTARGET_USERSPACE_LIB_DIR=nvidia\n"
)


@pytest.fixture(autouse=True)
def _asked_anew():
    machine.describe_gpus.cache_clear()
    yield
    machine.describe_gpus.cache_clear()


@pytest.fixture
def smi(tmp_path, monkeypatch):
    """A program nvidia-smi that prints the recorded texts; called with what it prints and whether it fails."""

    def install(query: str, table: str, code: int = 0) -> None:
        (tmp_path / "nvidia-smi").write_text(
            f"#!{sys.executable}\nimport sys\n"
            f"query = any(a.startswith('--query-gpu=name,compute_cap,driver_version,memory.total') for a in sys.argv)\n"
            f"print({query!r} if query else {table!r}, end='')\nsys.exit({code} if query else 0)\n"
        )
        (tmp_path / "nvidia-smi").chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")

    return install


@pytest.fixture
def no_driver(monkeypatch):
    def absent():
        raise EngineError("this machine has no CUDA driver")

    monkeypatch.setattr(cuda_driver, "driver", absent)


def test_cards():
    first, second = parse_gpus(TWO_CARDS)
    assert first == {
        "name": "NVIDIA GeForce RTX 4090", "compute_capability": "8.9", "driver": "570.195.03", "memory_mib": "24564",
    }  # fmt: skip
    assert second["compute_capability"] == "8.6"
    assert parse_gpus(ORIN) == [
        {"name": "Orin (nvgpu)", "compute_capability": None, "driver": "540.4.0", "memory_mib": None}
    ]


@pytest.mark.parametrize(
    "text", ["", "No devices were found\n", 'Field "compute_cap" is not a valid field to query.\n']
)
def test_no_cards(text):
    assert parse_gpus(text) == []
    assert parse_cuda(text) is None and parse_l4t(text) is None


@pytest.mark.parametrize("version", TABLES)
def test_cuda_version(version):
    assert parse_cuda(TABLES[version]) == version


def test_jetson_linux():
    assert parse_l4t(L4T) == "36.4.7"


def test_cards_are_described(smi, no_driver):
    smi(TWO_CARDS, TABLES["12.8"])
    found = describe_machine()
    assert [gpu["name"] for gpu in found["gpus"]] == ["NVIDIA GeForce RTX 4090", "NVIDIA RTX A6000"]
    assert found["cuda"] == "12.8" and "jetson" not in found


def test_the_driver_fills_in_what_nvidia_smi_does_not_say(smi, monkeypatch):
    api = HostDriver(capability=(8, 7)).driver()
    monkeypatch.setattr(cuda_driver, "driver", lambda: api)
    smi(ORIN, "")
    found = describe_machine()
    assert found["gpus"] == [
        {"name": "Orin (nvgpu)", "compute_capability": "8.7", "driver": "540.4.0", "memory_mib": None}
    ]
    assert found["cuda"] == "13.0"


def test_the_driver_alone_without_a_context(smi, monkeypatch):
    """A context would take a few hundred MB of the GPU's memory, for a description."""
    host = HostDriver(capability=(8, 7))
    api = host.driver()
    monkeypatch.setattr(cuda_driver, "driver", lambda: api)
    smi('Field "compute_cap" is not a valid field to query.\n', "", code=2)
    found = describe_machine()
    assert found["gpus"][0]["compute_capability"] == "8.7" and found["cuda"] == "13.0"
    assert "cuDevicePrimaryCtxRetain" not in host.calls


def test_no_gpu(monkeypatch, tmp_path, no_driver):
    monkeypatch.setenv("PATH", str(tmp_path))
    found = describe_machine()
    assert found["gpus"] == [] and found["cuda"] is None


def test_a_jetson_is_named(monkeypatch, tmp_path, no_driver):
    texts = {"/etc/nv_tegra_release": L4T, "/proc/device-tree/model": "NVIDIA Jetson AGX Orin Developer Kit\0"}
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(machine, "_text", lambda path: texts[str(path)])
    assert describe_machine()["jetson"] == {"model": "NVIDIA Jetson AGX Orin Developer Kit", "l4t": "36.4.7"}
