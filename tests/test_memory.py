"""The C allocator keeps memory while it is told to, and no longer."""

import os
import subprocess
import sys

import pytest

COUNT = """
import contextlib, resource, torch
from skfocal._runtime.allocator import kept_memory, _glibc
torch.set_num_threads(1)

def faults(n=20):
    start = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for i in range(n):
        torch.zeros(10_000_000 + 100_000 * i).add_(1)
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


def run(**environment):
    own = {k: v for k, v in os.environ.items() if not k.startswith(("MALLOC_", "GLIBC_T", "LD_P"))}
    done = subprocess.run(
        [sys.executable, "-c", COUNT], capture_output=True, text=True, env=own | environment
    )
    assert done.returncode == 0, done.stderr
    glibc, *counts = done.stdout.split()
    return glibc == "True", *map(int, counts)


def test_tensors_of_changing_size_cause_few_page_faults():
    glibc, before, inside, still = run()
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
