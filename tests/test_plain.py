"""What is written as JSON and tensors comes back as it was, and nothing else comes back."""

import json
import math

import numpy as np
import pytest
import torch
from safetensors.torch import load, save

from skfocal._storage.plain_data import is_plain, join, split

VALUES = {
    "none": None,
    "numbers": [True, 3, 2**70, 0.1, -0.0, 1e-320],
    "not finite": [math.inf, -math.inf],
    "text": 'a "quoted" \ud800 line\n',
    "tuple": (1, ("a", [2.5])),
    "keys": {1: "int", ("a", 2): "tuple", None: 3, "$array": "no tag"},
    "scalar": [np.float32(0.1), np.int64(-3), np.bool_(True), np.str_("ham")],
    "array": np.arange(6, dtype=np.uint32).reshape(2, 3)[:, ::-1],
    "big-endian": np.arange(3, dtype=">f8"),
    "empty": np.zeros((0, 3), np.float32),
    "strings": np.array([["ham", "spam"]]),
    "objects": np.array(["a", None, 3], dtype=object),
    "tensors": {"half": torch.ones(2, dtype=torch.bfloat16), "view": torch.eye(3)[1:].T},
    "generator": np.random.RandomState(0).get_state(),
}


def through_file(value):
    plain, tensors = split(value, "value")
    return join(json.loads(json.dumps(plain)), load(save(tensors)) if tensors else {})


def assert_same(left, right):
    assert type(left) is type(right)
    if isinstance(left, dict):
        assert list(left) == list(right)
        left, right = list(left.values()), list(right.values())
    if isinstance(left, list | tuple):
        assert len(left) == len(right)
        for a, b in zip(left, right, strict=True):
            assert_same(a, b)
    elif isinstance(left, np.ndarray | torch.Tensor):
        assert left.shape == right.shape
        assert left.dtype == right.dtype or left.dtype == right.dtype.newbyteorder()
        assert (left == right).all()
    else:
        assert left == right
        assert math.copysign(1, left) == math.copysign(1, right) if type(left) is float else True


@pytest.mark.parametrize("name", VALUES)
def test_values_come_back_with_their_types(name):
    assert_same(through_file(VALUES[name]), VALUES[name])


def test_nan_comes_back():
    assert math.isnan(through_file({"score": math.nan})["score"])


@pytest.mark.parametrize(
    "value", [object(), print, {1, 2}, [b"bytes"], np.array(["2020"], "M8[D]"), np.complex64(1)]
)
def test_what_is_not_plain_is_refused_by_its_place(value):
    assert not is_plain(value)
    with pytest.raises(TypeError, match=r"state\.inner(\.0)? must be plain data to be stored\."):
        split({"inner": value}, "state")


@pytest.mark.parametrize(
    "plain",
    [
        {"$unknown": 1},
        {"$array": "absent"},
        {"$tensor": ["a"]},
        {"$float": "1e400"},
        {"$tuple": None},
        {"$dict": [[[], 1]]},
        {"$dict": [1]},
        {"$scalar": "x", "dtype": "<i8"},
        {"$scalar": 1, "dtype": "O"},
        {"$scalar": 1, "dtype": "i8,i8"},
        {"$items": ["a"], "shape": [2], "kind": "U"},
        {"$items": [1], "shape": [1], "kind": "i"},
        {"$items": 3, "shape": [1], "kind": "O"},
    ],
)
def test_other_data_are_refused(plain):
    with pytest.raises(ValueError, match="is not stored data"):
        join(plain, {})
