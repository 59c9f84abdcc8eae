"""Everything on a device that is not the CPU, with what would be dear on CUDA counted."""

import functools
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
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
HALF = (
    "bfloat16",
    "bfloat16, several labels",
    "bfloat16, frozen",
    "bfloat16, mean",
    "bfloat16, ldam",
    "bfloat16, adapters",
    "bfloat16, layers again",
    "float16",
    "float16, accumulated",
    "float16, resumed",
    "predicted in bfloat16",
)


@pytest.fixture(scope="session")
def find(tmp_path_factory):
    """Return what a part of the script found, each in a process of its own.

    torch knows one further device in a process, and forgets it no more.
    """

    def find(part):
        def make(folder):
            folder.mkdir(parents=True)
            path = os.pathsep.join([str(HERE.parent), str(HERE)])
            run = subprocess.run(
                [sys.executable, HERE / "on_simulated_device.py", part],
                env={**os.environ, "PYTHONPATH": path},
                capture_output=True,
                text=True,
                check=False,
            )
            assert run.returncode == 0, run.stderr[-3000:]
            (folder / "found.json").write_text(run.stdout)
            return folder

        folder = made_once(tmp_path_factory, f"simulated-device-{part}", make)
        return json.loads((folder / "found.json").read_text())

    return functools.cache(find)


def test_all_ways_were_run(find):
    assert tuple(find("ways")["ways"]) == WAYS


@pytest.mark.parametrize("way", WAYS)
def test_results_are_those_of_the_cpu(find, way):
    result = find("ways")["ways"][way]
    assert result["devices"] == ["simulated"]  # of the weights
    assert result["proba"] < 5e-6 and result["features"] < 1e-5
    assert result["spread"] > 100 * result["proba"]  # the documents are told apart
    assert result["products"]["bfloat16"] == result["products"]["float16"] == 0
    assert result["fused"] >= 10 or way in ("accumulated", "partial_fit")  # updates by AdamW


def test_a_tensor_left_on_the_cpu_fails(find):
    assert "tensors of the CPU and of the device" in find("ways")["refused"]


def test_an_explanation_is_that_of_the_cpu(find):
    expected, found = find("ways")["explained"]
    assert np.abs(np.concatenate(expected)).max() > 1e-4
    np.testing.assert_allclose(np.concatenate(found), np.concatenate(expected), atol=1e-6)


# -- transfers -------------------------------------------------------------------------------


def test_no_training_step_waits_for_the_device(find):
    of_5_batches, of_15, of_35 = find("counts")["float32"]
    # An epoch reads its losses every 32 batches, and the loss of each class once.
    assert of_5_batches["read"] == of_15["read"] == of_35["read"] == 0
    assert of_5_batches["from device"] == of_15["from device"] == 2
    assert of_35["from device"] == 3
    # Token ids, attention mask, codes and weights; beside that, what does not grow.
    assert of_15["to device"] - of_5_batches["to device"] == 10 * 4
    assert of_5_batches["to device"] <= 5 * 4 + 3


def test_autocast_needs_no_further_transfers(find):
    assert find("counts")["bfloat16"] == find("counts")["float32"][0]


def test_float16_reads_once_an_update_whether_to_skip_it(find):
    assert find("counts")["float16"] == {**find("counts")["float32"][0], "read": 5}


# -- half precision --------------------------------------------------------------------------


def test_all_of_half_precision_was_run(find):
    assert tuple(find("half")["ways"]) == HALF


def test_an_encoder_that_is_there_already_is_tried_in_bfloat16(find):
    assert find("half")["bears bfloat16"] is True


@pytest.mark.parametrize("way", HALF)
def test_half_precision_agrees_with_the_cpu_but_for_rounding(find, way):
    """What autocast computes in float32 differs between CUDA, as simulated here, and the CPU."""
    result, half = find("half")["ways"][way], "bfloat16" if "bfloat16" in way else "float16"
    rounding = torch.finfo(getattr(torch, half)).eps
    # A cosine counts thirty times in the logits of LDAM.
    assert result["proba"] < rounding / 2 * (30 if "ldam" in way else 1)
    assert result["features"] < 2 * rounding * (4 if "ldam" in way else 1)
    assert result["devices"] == ["simulated"]
    products = result["products"]
    if way == "predicted in bfloat16":  # after a training in float32
        assert products["bfloat16"] >= 50 and products["float16"] == 0
    else:  # the head alone computes in float32
        assert products[half] > 3 * products["float32"]
        assert products[{"bfloat16": "float16", "float16": "bfloat16"}[half]] == 0
    assert result["fused"] >= 10


# -- too little memory -----------------------------------------------------------------------


@pytest.mark.parametrize(
    "case, documents, tolerance",
    [
        ("training", "40 documents of 53 tokens at once in training", 1e-5),
        ("training, backward", "40 documents of 53 tokens at once in training", 1e-5),
        ("training, accumulated", "20 documents of 53 tokens at once in training", 1e-5),
        ("training, frozen", None, 1e-5),
        ("training, bfloat16", "40 documents of 53 tokens at once in training", 2e-3),
        ("prediction", "40 documents of 53 tokens at once in prediction", 1e-6),
        ("prediction, bfloat16", "40 documents of 53 tokens at once in prediction", 1e-3),
    ],
)
def test_less_memory_gives_the_same_result_in_parts(find, case, documents, tolerance):
    found = find("memory")[case]
    assert found["error"] is None and found["n_refused"] >= 1
    assert found["difference"] <= tolerance  # of weights of about 0.1, or of probabilities
    if documents is None:  # only the frozen layers, which tell nobody, were too large
        assert found["messages"] == []
    else:
        assert len(found["messages"]) == 1
        assert f"too little memory for {documents}: they are" in found["messages"][0]
    assert found["used"] == found["used in parts"]


def test_the_memory_runs_out_in_either_pass(find):
    """Where it does in the backward pass, there are gradients to discard."""
    found = find("memory")
    assert found["training"]["n_refused"] > found["training"]["n_in_backward"]
    assert found["training, backward"]["n_in_backward"] >= 1


@pytest.mark.parametrize("case", ["training", "training, frozen", "training, nothing fits"])
def test_nothing_but_the_model_stays_on_the_device(find, case):
    found = find("memory")[case]
    assert found["used"] - found["kept"] == 16  # class_loss: a float64 for each of two classes
    assert found["left"] == 0  # without the model; after an error there is none


@pytest.mark.parametrize(
    "case, message",
    [
        ("training, nothing fits", r"single document of \d+ tokens in training. Lower max_l"),
        ("prediction, nothing fits", "single document of 47 tokens in prediction. Lower max_l"),
    ],
)
def test_a_document_that_does_not_fit_names_what_to_lower(find, case, message):
    assert re.search(message, find("memory")[case]["error"])


# -- the same bits in every run --------------------------------------------------------------


def test_deterministic_is_on_within_the_fit_alone(find):
    assert find("deterministic")["seen"] == [[True, False], [False, False]]


def test_no_fit_needs_what_has_no_deterministic_form_on_cuda(find):
    found = find("deterministic")["same"]
    assert len(found) == 5
    for way, result in found.items():
        assert result["proba"] < (4e-3 if "bfloat16" in way else 5e-6), way
        assert result["devices"] == ["simulated"]


@pytest.mark.parametrize("name", ["cumsum", "put_"])
def test_an_operation_without_a_deterministic_form_is_named(find, name):
    error, is_on = find("deterministic")[name]
    assert error.startswith(f"deterministic=True cannot be had: {name} does not have a determin")
    assert not is_on


@pytest.mark.parametrize("case", ["cumsum on the cpu", "cumsum, not asked for"])
def test_the_operation_is_allowed_elsewhere(find, case):
    assert find("deterministic")[case] == [None, False]
