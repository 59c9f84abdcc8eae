"""Fits of one process take turns on a CPU; CUDA devices go one to a job."""

import threading
import time

import numpy as np
import pytest
import torch
from joblib import Parallel, delayed
from sklearn.base import clone

from skfocal._encoder.promises import best_precision
from skfocal._runtime import devices as _devices
from skfocal._runtime.devices import _first_free, generator_kept, hold_device, resolve_device


def test_threads_take_turns_on_a_cpu():
    inside, most = [], []

    def work(i):
        with hold_device("cpu") as name:
            inside.append(i)
            most.append(len(inside))
            time.sleep(0.01)
            inside.remove(i)
        return name

    assert Parallel(4, backend="threading")(delayed(work)(i) for i in range(8)) == ["cpu"] * 8
    assert max(most) == 1


def test_a_fit_within_a_fit_does_not_wait_for_itself():
    with hold_device("cpu"), hold_device("cpu") as name:
        assert name == "cpu"


def test_the_check_of_parameters_waits_for_fits_that_draw_from_the_generator():
    drawn = []

    def check():
        with generator_kept():
            drawn.append(float(torch.rand(())))

    with torch.random.fork_rng():
        torch.manual_seed(0)
        expected = torch.rand(4).tolist()
        torch.manual_seed(0)
        with hold_device("cpu"):
            found = torch.rand(2).tolist()
            thread = threading.Thread(target=check)
            thread.start()
            thread.join(0.2)
            assert thread.is_alive() and not drawn
            found += torch.rand(2).tolist()
        thread.join()
    assert found == expected and len(drawn) == 1


def test_fits_in_threads_are_those_of_a_sequence(make, data):
    X, y = data
    classifiers = [make(dropout=0.1, gamma=gamma) for gamma in (0, 1, 2, 3)]
    sequence = [clone(clf).fit(X, y).predict_proba(X) for clf in classifiers]
    threads = Parallel(4, backend="threading")(delayed(clf.fit)(X, y) for clf in classifiers)
    for clf, expected in zip(threads, sequence, strict=True):
        assert np.array_equal(clf.predict_proba(X), expected)


def test_jobs_get_different_devices_and_more_jobs_wait_with_a_warning(tmp_path):
    first, lock_1 = _first_free(tmp_path, ["a", "b"])
    second, lock_2 = _first_free(tmp_path, ["a", "b"])
    assert (first, second) == (0, 1)
    threading.Timer(0.3, lock_2.release).start()
    with pytest.warns(UserWarning, match=r"More jobs than the 2 CUDA devices.*n_jobs=2"):
        third, lock_3 = _first_free(tmp_path, ["a", "b"], poll=0.02)
    assert third == 1
    lock_1.release(), lock_3.release()
    assert _first_free(tmp_path, ["a", "b"])[0] == 0


def test_auto_on_cuda_holds_a_device_of_its_own(tmp_path, monkeypatch):
    """Two devices are pretended: which is chosen needs no CUDA."""

    class Properties:
        def __init__(self, i):
            self.uuid = f"uuid-{i}"

    monkeypatch.setattr(_devices.torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(_devices.torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(_devices.torch.cuda, "get_device_properties", Properties)
    monkeypatch.setattr(_devices, "shared_folder", lambda: tmp_path)
    with hold_device("auto") as outer:
        with hold_device("auto") as inner:  # the same thread: a fit within a fit
            assert outer == inner == "cuda:0"
        other = []
        thread = threading.Thread(target=lambda: other.append(hold_device("auto").__enter__()))
        thread.start(), thread.join()
        assert other == ["cuda:1"]


def test_auto_prefers_cuda_then_a_mac_then_the_cpu(monkeypatch):
    found = {"cuda": False, "mps": False}
    monkeypatch.setattr(_devices.torch.cuda, "is_available", lambda: found["cuda"])
    monkeypatch.setattr(_devices.torch.backends.mps, "is_available", lambda: found["mps"])
    assert resolve_device("auto") == "cpu"
    found["mps"] = True
    assert resolve_device("auto") == "mps"
    with hold_device("auto") as outer, hold_device("auto") as inner:  # a fit within a fit
        assert outer == inner == "mps"
    found["cuda"] = True
    assert resolve_device("auto") == "cuda"


def test_a_mac_trains_in_float32():
    assert best_precision(None, 0, "mps") == "float32"
