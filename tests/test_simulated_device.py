"""Everything on a device that is not the CPU, with what would be dear on CUDA counted."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import made_once

HERE = Path(__file__).parent
WAYS = (
    "plain",
    "weights and a sampler",
    "mean",
    "windows",
    "frozen",
    "ldam",
    "accumulated",
    "early stopping",
    "several labels",
    "adapters",
    "checkpointed layers",
    "partial_fit",
    "resumed",
    "pickled",
)


@pytest.fixture(scope="session")
def found(tmp_path_factory):
    """What the script found, in a process of its own, since torch knows one further device."""

    def make(folder):
        folder.mkdir(parents=True)
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(HERE.parent), str(HERE)])}
        run = subprocess.run(
            [sys.executable, HERE / "on_simulated_device.py"],
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert run.returncode == 0, run.stderr[-3000:]
        (folder / "found.json").write_text(run.stdout)
        return folder

    folder = made_once(tmp_path_factory, "simulated-device", make)
    return json.loads((folder / "found.json").read_text())


def test_all_ways_were_run(found):
    assert tuple(found["ways"]) == WAYS


@pytest.mark.parametrize("way", WAYS)
def test_results_are_those_of_the_cpu(found, way):
    result = found["ways"][way]
    assert result["devices"] == ["simulated"]  # of the weights
    assert result["proba"] < 5e-6 and result["features"] < 1e-5
    assert result["spread"] > 100 * result["proba"]  # the documents are told apart


def test_no_training_step_waits_for_the_device(found):
    of_5_batches, of_15 = found["counts"]
    # An epoch reads its losses, and the loss of each class, once each.
    assert of_5_batches["read"] == of_15["read"] == 0
    assert of_5_batches["from device"] == of_15["from device"] == 2
    # Token ids, attention mask, codes and weights; beside that, what does not grow.
    assert of_15["to device"] - of_5_batches["to device"] == 10 * 4
    assert of_5_batches["to device"] <= 5 * 4 + 3


def test_autocast_needs_no_further_transfers(found):
    assert found["bfloat16"] == found["counts"][0]


def test_a_tensor_left_on_the_cpu_fails(found):
    assert "tensors of the CPU and of the device" in found["refused"]
