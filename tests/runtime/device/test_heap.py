"""Freed memory goes back to the system: tried on blocks of the C library that one block in use holds down."""

from __future__ import annotations

import subprocess
import sys

import pytest

_BLOCKS = """
import ctypes
from mgcc_runtime.device.heap import return_freed_memory

libc = ctypes.CDLL(None)
libc.malloc.restype, libc.free.argtypes = ctypes.c_void_p, [ctypes.c_void_p]

def resident_mib():
    return int(open("/proc/self/statm").read().split()[1]) / 256

blocks = [libc.malloc(60_000) for _ in range(1_000)]  # each too small to be mapped by itself
for block in blocks:
    ctypes.memset(block, 1, 60_000)
for block in blocks[:-1]:  # the last one stays on top of the heap
    libc.free(block)
before = resident_mib()
assert return_freed_memory()
print(before - resident_mib())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's heap; run it on Linux")
def test_freed_blocks_below_one_in_use_go_back_to_the_system():
    done = subprocess.run([sys.executable, "-c", _BLOCKS], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) > 50
