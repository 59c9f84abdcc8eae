"""The same seed gives the same bits, and a process is left as it was found."""

import contextlib
import locale
import logging
import os
import random
import signal
import subprocess
import sys
import threading
import warnings

import numpy as np
import pytest
import torch
import transformers
from huggingface_hub.utils import (
    are_progress_bars_disabled,
    disable_progress_bars,
    enable_progress_bars,
)
from sklearn import get_config
from skorch.callbacks import Callback

from skfocal import clear_cache
from skfocal._encoder.pretrained import quiet_transformers
from skfocal._runtime.devices import deterministic_algorithms

# -- what a process has only once ------------------------------------------------------------


def process_state():
    """Return all that belongs to the process and that a fit could have changed."""
    numpy_state = np.random.get_state()
    loggers = [logging.root, *logging.root.manager.loggerDict.values()]
    return {
        "python random": random.getstate(),
        "numpy random": (numpy_state[0], numpy_state[1].tolist(), *numpy_state[2:]),
        "numpy errors": np.geterr(),
        "torch random": torch.get_rng_state().tolist(),
        "torch threads": (torch.get_num_threads(), torch.get_num_interop_threads()),
        "torch dtype": torch.get_default_dtype(),
        "torch device": str(torch.get_default_device()),
        "torch deterministic": (
            torch.are_deterministic_algorithms_enabled(),
            torch.is_deterministic_algorithms_warn_only_enabled(),
            torch.utils.deterministic.fill_uninitialized_memory,
        ),
        "cudnn": (
            torch.backends.cudnn.benchmark,
            torch.backends.cudnn.deterministic,
            torch.backends.cudnn.enabled,
        ),
        "matmul precision": torch.get_float32_matmul_precision(),
        "gradients": (torch.is_grad_enabled(), torch.is_inference_mode_enabled()),
        "autocast": (torch.is_autocast_enabled("cpu"), torch.is_autocast_cache_enabled()),
        "anomaly detection": torch.is_anomaly_enabled(),
        "environment": dict(os.environ),
        "warning filters": list(warnings.filters),
        "showwarning": warnings.showwarning,
        "log levels": {
            logger.name: (logger.level, logger.disabled, len(logger.handlers))
            for logger in loggers
            if isinstance(logger, logging.Logger)
        },
        "transformers verbosity": transformers.logging.get_verbosity(),
        "progress bars": (
            transformers.logging.is_progress_bar_enabled(),
            are_progress_bars_disabled(),
            are_progress_bars_disabled("a.group"),
        ),
        "signal handlers": {s: signal.getsignal(s) for s in signal.valid_signals()},
        "exception hooks": (sys.excepthook, threading.excepthook),
        "streams": (sys.stdout, sys.stderr),
        "scikit-learn": get_config(),
        "locale": locale.setlocale(locale.LC_ALL),
        "folder": os.getcwd(),
    }


@contextlib.contextmanager
def left_as_found():
    before, threads = process_state(), set(threading.enumerate())
    yield
    after = process_state()
    assert [name for name in before if before[name] != after[name]] == []
    for thread in set(threading.enumerate()) - threads:
        thread.join(20)  # transformers does not wait for those that read the weights
        assert not thread.is_alive()


UNUSUAL = {
    "usual": {},
    "everything": {
        "dropout": 0.1, "freeze": 1, "train_split": 0.2, "early_stopping": True,
        "temperature": "auto", "alpha": "sqrt", "proba": "natural", "predict_precision": "int8",
        "deterministic": True, "max_epochs": 3,
    },
}  # fmt: skip


@pytest.mark.parametrize("settings", UNUSUAL.values(), ids=UNUSUAL)
def test_fit_and_predict_leave_the_process_as_they_found_it(make, data, settings):
    X, y = data
    make(max_epochs=1, batch_size=40).fit(X, y).predict(X)  # what libraries set up at first use
    clear_cache()
    with unusual_settings():
        with left_as_found():
            clf = make(**settings).fit(X, y)
        with left_as_found():
            clf.predict(X)
            clf.predict_proba(X[:1])
            clf.score(X, y)


@pytest.mark.parametrize(
    "broken",
    [
        {"model": "no/such/model"},
        {"freeze": 99},
        {"callbacks": [("raise", type("Raise", (Callback,), {"on_batch_end": 1})())]},
        {"loss": lambda logits, target: 1 / 0},
        {"prior": [1.0], "decision": "prior"},
    ],
    ids=["model", "freeze", "callback", "loss", "prior"],
)
@pytest.mark.parametrize("deterministic", [False, True])
def test_a_fit_that_raises_leaves_the_process_as_it_found_it(make, data, broken, deterministic):
    make(max_epochs=1, batch_size=40).fit(*data)
    clear_cache()
    with unusual_settings(), left_as_found():
        with pytest.raises((TypeError, ValueError, OSError, ZeroDivisionError)):
            make(dropout=0.1, deterministic=deterministic, **broken).fit(*data)


@contextlib.contextmanager
def unusual_settings():
    """Set what a fit might set back to the usual instead of to what it was."""
    logger = transformers.logging.get_logger()
    level = logger.level
    logger.setLevel(logging.NOTSET)
    transformers.logging.enable_progress_bar()
    disable_progress_bars("a.group")
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.set_float32_matmul_precision("high")
    torch.backends.cudnn.benchmark = True
    try:
        yield
    finally:
        logger.setLevel(level)
        enable_progress_bars("a.group")
        torch.use_deterministic_algorithms(False)
        torch.set_float32_matmul_precision("highest")
        torch.backends.cudnn.benchmark = False


@pytest.mark.parametrize("disabled", [False, True])
def test_a_setting_of_the_hubs_bars_causes_no_warning(monkeypatch, disabled):
    hubs_bars = sys.modules["huggingface_hub.utils.tqdm"]
    monkeypatch.setattr(hubs_bars, "HF_HUB_DISABLE_PROGRESS_BARS", disabled)  # read at its import
    with pytest.warns(UserWarning, match="Cannot"):
        (enable_progress_bars if disabled else disable_progress_bars)()
    with warnings.catch_warnings(action="error"), quiet_transformers():
        pass


@pytest.mark.slow
@pytest.mark.parametrize("value", ["0", "1"])
def test_a_setting_of_the_hubs_bars_in_the_environment_causes_no_warning(value):
    code = "from skfocal._encoder.pretrained import quiet_transformers as quiet\nwith quiet(): pass"
    environment = os.environ | {"HF_HUB_DISABLE_PROGRESS_BARS": value}
    command = [sys.executable, "-W", "error::UserWarning", "-c", code]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0 and "Cannot" not in done.stderr


# -- deterministic ---------------------------------------------------------------------------


class Look(Callback):
    """Keep what torch is set to within the fit."""

    def on_batch_end(self, net, **kwargs):
        self.seen_ = (
            torch.are_deterministic_algorithms_enabled(),
            torch.is_deterministic_algorithms_warn_only_enabled(),
            torch.backends.cudnn.benchmark,
            os.environ.get("CUBLAS_WORKSPACE_CONFIG"),
        )


def seen_within(clf):
    return dict(clf.net_.callbacks_)["look"].seen_


@pytest.mark.parametrize(
    ("present", "within"), [(None, ":4096:8"), (":16:8", ":16:8"), ("x", ":4096:8")]
)
def test_torch_is_deterministic_within_the_fit_alone(make, data, monkeypatch, present, within):
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    if present is not None:
        monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", present)
    callbacks = [("look", Look())]
    quick = {"max_epochs": 1, "batch_size": 20, "callbacks": callbacks}
    clf = make(deterministic=True, **quick).fit(*data)
    assert seen_within(clf) == (True, False, False, within)
    assert not torch.are_deterministic_algorithms_enabled()
    assert os.environ.get("CUBLAS_WORKSPACE_CONFIG") == present
    plain = make(**quick).fit(*data)
    assert seen_within(plain) == (False, False, False, present)
    assert np.array_equal(clf.predict_proba(data[0]), plain.predict_proba(data[0]))


def test_partial_fit_is_deterministic_too(make, data):
    clf = make(deterministic=True, callbacks=[("look", Look())])
    clf.partial_fit(*data, classes=["ham", "spam"])
    assert seen_within(clf)[0]


def put_loss(logits, target):
    """Cross-entropy by way of an operation that torch has no deterministic form of."""
    loss = torch.nn.functional.cross_entropy(logits, target, reduction="none")
    return torch.zeros_like(loss).put_(torch.arange(len(loss)), loss)


def test_an_operation_without_a_deterministic_form_is_named(make, data):
    make(max_epochs=1, loss=put_loss, proba="softmax").fit(*data)
    clf = make(max_epochs=1, loss=put_loss, proba="softmax", deterministic=True)
    with pytest.raises(RuntimeError, match="deterministic=True cannot be had: put_ does not have"):
        clf.fit(*data)
    assert not torch.are_deterministic_algorithms_enabled()


def test_the_first_of_two_threads_to_end_does_not_take_it_from_the_other():
    entered, leave = threading.Event(), threading.Event()

    def first():
        with deterministic_algorithms():
            entered.set()
            leave.wait()

    thread = threading.Thread(target=first)
    thread.start()
    entered.wait()
    with deterministic_algorithms():
        leave.set()
        thread.join()
        assert torch.are_deterministic_algorithms_enabled()
    assert not torch.are_deterministic_algorithms_enabled()


def test_anything_but_a_bool_is_refused(make, data):
    with pytest.raises(ValueError, match="'deterministic' parameter .* Got 'yes'"):
        make(deterministic="yes").fit(*data)


@pytest.mark.gpu
@pytest.mark.parametrize(
    "settings", [{}, {"dropout": 0.1}, {"freeze": 1}, {"precision": "float32"}]
)
def test_two_runs_on_cuda_are_identical(make, data, settings):
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    X, y = data
    runs = [make(device="cuda", deterministic=True, **settings).fit(X, y) for _ in range(2)]
    weights = [run.net_.module_.state_dict() for run in runs]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    assert np.array_equal(runs[0].predict_proba(X), runs[1].predict_proba(X))
