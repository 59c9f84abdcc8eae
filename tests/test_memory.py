"""The C allocator keeps memory while it is told to, and no longer."""

import os
import subprocess
import sys

import pytest

COUNT = """
import contextlib, resource
from skfocal._runtime.allocator import kept_memory, _glibc

def faults(n=20):
    start = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for i in range(n):
        use_memory(40_000_000 + 400_000 * i)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - start

faults()
before = faults()
with kept_memory():
    faults(2)
    with kept_memory():
        inside = faults()
    still = faults()
print(_glibc() is not None, before, inside, still)
"""

OF_TORCH = """
import torch
torch.set_num_threads(1)

def use_memory(size):
    torch.zeros(size // 4).add_(1)
"""

# As torch does it, without the time that torch's import takes.
OF_C = """
import ctypes
libc = ctypes.CDLL(None)

def use_memory(size):
    place = ctypes.c_void_p()
    assert libc.posix_memalign(ctypes.byref(place), ctypes.c_size_t(64), ctypes.c_size_t(size)) == 0
    libc.memset(place, 1, ctypes.c_size_t(size))
    libc.free(place)
"""


def run(use=OF_C, **environment):
    own = {k: v for k, v in os.environ.items() if not k.startswith(("MALLOC_", "GLIBC_T", "LD_P"))}
    done = subprocess.run(
        [sys.executable, "-c", use + COUNT], capture_output=True, text=True, env=own | environment
    )
    assert done.returncode == 0, done.stderr
    glibc, *counts = done.stdout.split()
    return glibc == "True", *map(int, counts)


def test_tensors_of_changing_size_cause_few_page_faults():
    glibc, before, inside, still = run(OF_TORCH)
    if not glibc:
        pytest.skip("needs glibc")
    assert inside < before / 5 and still < before / 5


def test_dasks_setting_of_all_its_workers_counts_for_none():
    glibc, before, inside, still = run(MALLOC_TRIM_THRESHOLD_="65536")
    if not glibc:
        pytest.skip("needs glibc")
    assert inside < before / 5 and still < before / 5


def test_settings_in_the_environment_are_left_alone():
    glibc, before, inside, _ = run(MALLOC_MMAP_THRESHOLD_="1048576")
    assert not glibc
    assert inside > before / 5
