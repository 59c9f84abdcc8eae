"""torch's threads sleep while they wait, unless the user has said something else."""

import os
import subprocess
import sys

import pytest

NAMES = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")
BY_DEFAULT = "300000"  # turns that a thread of libgomp spins
SHOW = f"; import os; print([name for name in {NAMES!r} if name in os.environ])"


def spins(code, **environment):
    """Return how long the threads of each copy of libgomp spin, and what the program printed."""
    env = {name: value for name, value in os.environ.items() if name not in NAMES}
    run = subprocess.run(
        [sys.executable, "-c", code + SHOW],
        env={**env, "OMP_DISPLAY_ENV": "VERBOSE", **environment},
        capture_output=True,
        text=True,
        check=True,
    )
    lines = [line for line in run.stderr.splitlines() if "GOMP_SPINCOUNT" in line]
    return [line.split("'")[1] for line in lines], run.stdout.strip()


@pytest.mark.parametrize(
    "first",
    [
        "from skfocal import BertFocalClassifier",
        "import skfocal.classifier",  # as a pickle does
        "import skfocal.data_audit._neighbours",
    ],
)
def test_threads_sleep_and_the_environment_is_as_before(first):
    alone, _ = spins("import torch")
    if BY_DEFAULT not in alone:
        pytest.skip("another OpenMP library, or other defaults")
    found, left = spins(first)
    assert "0" in found and found.count(BY_DEFAULT) < len(found)
    assert left == "[]"


@pytest.mark.parametrize(
    "first, environment",
    [
        ("import torch; from skfocal import BertFocalClassifier", {}),
        ("from skfocal import BertFocalClassifier", {"GOMP_SPINCOUNT": BY_DEFAULT}),
    ],
)
def test_what_was_there_before_stays(first, environment):
    found, left = spins(first, **environment)
    assert "0" not in found and left == str([*environment])
