"""What ends a fit early comes through as it is and leaves the estimator as it was."""

import signal
import threading
import traceback

import numpy as np
import pytest
import torch
from skorch.callbacks import Callback, EarlyStopping

from skfocal.callbacks import KeepOnInterrupt


@pytest.fixture(autouse=True)
def ctrl_c():
    """Let Ctrl-C interrupt also where the tests were started with it ignored, in the background."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


class Presses(Callback):
    """Presses Ctrl-C at the n-th call of a method."""

    def __init__(self, method="on_batch_begin", n=3):
        self.method = method
        self.n = n

    def _count(self, method):
        if method == self.method:
            self.left_ = getattr(self, "left_", self.n) - 1
            if self.left_ == 0:
                signal.raise_signal(signal.SIGINT)

    def on_train_begin(self, net, **kwargs):
        self._count("on_train_begin")

    def on_batch_begin(self, net, **kwargs):
        self._count("on_batch_begin")

    def on_grad_computed(self, net, named_parameters, **kwargs):
        self._count("on_grad_computed")

    def on_epoch_end(self, net, **kwargs):
        self._count("on_epoch_end")

    def on_train_end(self, net, **kwargs):
        self._count("on_train_end")


MOMENTS = [
    ("on_train_begin", 1),
    ("on_batch_begin", 3),
    ("on_grad_computed", 7),
    ("on_epoch_end", 1),
    ("on_epoch_end", 2),
    ("on_train_end", 1),
]


def state(clf):
    """Return all that a fit sets, as comparable values."""
    found = {k: repr(v) for k, v in vars(clf).items() if k.endswith("_") and k != "net_"}
    if hasattr(clf, "net_"):
        weights = clf.net_.module_.state_dict()
        found |= {name: value.numpy().tobytes() for name, value in weights.items()}
        rows = [{k: v for k, v in row.items() if k != "dur"} for row in clf.history_]
        found["history"] = repr(rows)
    return found


@pytest.mark.parametrize(("method", "n"), MOMENTS)
def test_ctrl_c_leaves_an_unfitted_estimator_unfitted(make, data, method, n):
    clf = make(callbacks=[Presses(method, n)])
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        clf.fit(*data)
    assert state(clf) == {}
    assert signal.getsignal(signal.SIGINT) is before
    assert clf.set_params(callbacks=None).fit(*data).score(*data) > 0.7


@pytest.mark.parametrize("warm_start", [True, False])
@pytest.mark.parametrize(("method", "n"), MOMENTS[1:5:2])
def test_ctrl_c_leaves_a_fitted_estimator_as_it_was(make, data, method, n, warm_start):
    clf = make(warm_start=warm_start).fit(*data)
    before = state(clf)
    clf.set_params(callbacks=[Presses(method, n)])
    with pytest.raises(KeyboardInterrupt):
        clf.fit(*data)
    assert state(clf) == before


@pytest.mark.parametrize("method", ["on_grad_computed", "on_epoch_end"])
def test_an_interrupted_call_of_partial_fit_never_was(make, data, method):
    X, y = data
    clf, other = make(), make()
    for each in (clf, other):
        each.partial_fit(X[:20], y[:20], classes=["ham", "spam"])
    before = state(clf)
    with pytest.raises(KeyboardInterrupt):
        clf.set_params(callbacks=[Presses(method, 1)]).partial_fit(X[20:], y[20:])
    assert state(clf) == before
    clf.set_params(callbacks=None).partial_fit(X[20:], y[20:])
    other.partial_fit(X[20:], y[20:])
    assert state(clf) == state(other)


def test_ctrl_c_in_a_scorer_is_no_early_stop(make, data):
    def scorer(estimator, X, y):
        signal.raise_signal(signal.SIGINT)

    clf = make(scoring=scorer, early_stopping=True)
    with pytest.raises(KeyboardInterrupt):
        clf.fit(*data)
    assert not hasattr(clf, "net_")


def test_a_callback_that_stops_by_an_interrupt_still_stops(make, data):
    stop = EarlyStopping("train_loss", patience=1, threshold=1e9, threshold_mode="abs")
    clf = make(callbacks=[stop], max_epochs=9).fit(*data)
    assert len(clf.history_) < 9


def test_a_program_that_ignores_ctrl_c_goes_on(make, data):
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        clf = make(callbacks=[Presses()]).fit(*data)
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)
    assert len(clf.history_) == 2


def test_a_fit_in_a_thread_sets_no_handlers(make, data):
    done = []
    thread = threading.Thread(target=lambda: done.append(make().fit(*data)))
    thread.start()
    thread.join()
    np.testing.assert_array_equal(
        done[0].predict_proba(data[0]), make().fit(*data).predict_proba(data[0])
    )


class Breaks(Callback):
    def on_batch_end(self, net, **kwargs):
        self.deeper()

    def deeper(self):
        raise LookupError("of the user")


def broken_loss(logits, target):
    raise LookupError("of the user")


@pytest.mark.parametrize(
    ("params", "function"),
    [({"callbacks": [Breaks()]}, "deeper"), ({"loss": broken_loss}, "broken_loss")],
)
def test_errors_of_the_user_come_through_with_their_place(make, data, params, function):
    clf = make(**params)
    with pytest.raises(LookupError, match="^of the user$") as caught:
        clf.fit(*data)
    assert traceback.extract_tb(caught.value.__traceback__)[-1].name == function
    assert caught.value.__cause__ is None
    assert not hasattr(clf, "net_")
    assert torch.is_grad_enabled()


# -- where it is asked for, what was learned is kept -----------------------------------------


KEPT = "fit was interrupted in epoch {}, after {} of {} batches, and keeps what was learned"


@pytest.mark.parametrize("accumulate", [1, 2])
def test_ctrl_c_keeps_the_updates_until_then(make, data, accumulate):
    """As a fit that a callback stops after the same updates, by zero rates from then on."""
    X, y = data
    settings = {"schedule": "constant", "warmup": 0.0, "weight_decay": 0.0}
    settings |= {"accumulate": accumulate, "max_epochs": 3}
    with pytest.warns(UserWarning, match=KEPT.format(1, 2 * accumulate, 5)):
        clf = make(callbacks=[KeepOnInterrupt(), Presses("on_grad_computed", 2)], **settings)
        clf.fit(X, y)

    class Stands(Callback):
        n_updates = 0

        def on_grad_computed(self, net, named_parameters, **kwargs):
            self.n_updates += 1
            if self.n_updates > 2:
                for group in net.optimizer_.param_groups:
                    group["lr"] = 0.0

    plain = make(callbacks=[Stands()], **settings | {"max_epochs": 1}).fit(X, y)
    np.testing.assert_array_equal(clf.predict_proba(X), plain.predict_proba(X))
    assert len(clf.history_) == 1 and clf.history_[-1, "interrupted"]
    assert len(clf.history_[-1]["batches"]) == 2 * accumulate
    assert clf.class_loss_.shape == (1, 2)


def test_after_ctrl_c_the_epoch_is_scored_and_the_best_one_restored(make, data):
    scores = iter([0.9, 0.2])
    clf = make(
        callbacks=[KeepOnInterrupt(), Presses("on_batch_begin", 8)],
        scoring=lambda *args: next(scores),
        early_stopping=5,
        max_epochs=9,
        train_split=0.3,
    )
    with pytest.warns(UserWarning, match="interrupted in epoch 2"):
        clf.fit(*data)
    assert [row["valid_score"] for row in clf.history_] == [0.9, 0.2]
    assert clf.best_epoch_ == 1
    assert [row.get("interrupted") for row in clf.history_] == [None, True]


@pytest.mark.parametrize(("method", "n"), [("on_epoch_end", 1), ("on_epoch_end", 2)])
def test_ctrl_c_at_the_end_of_an_epoch_begins_no_other(make, data, method, n):
    clf = make(callbacks=[KeepOnInterrupt(), Presses(method, n)], max_epochs=2)
    with pytest.warns(UserWarning, match=KEPT.format(n, 5, 5)):
        clf.fit(*data)
    plain = make(max_epochs=2, callbacks=[StopsAfter(n)]).fit(*data)
    np.testing.assert_array_equal(clf.predict_proba(data[0]), plain.predict_proba(data[0]))


class StopsAfter(Callback):
    def __init__(self, n):
        self.n = n

    def on_epoch_end(self, net, **kwargs):
        net.loop_.stop = len(net.history) == self.n


@pytest.mark.parametrize(("method", "n"), [MOMENTS[0], MOMENTS[-1]])
def test_before_and_after_the_training_nothing_is_held(make, data, method, n):
    clf = make(callbacks=[KeepOnInterrupt(), Presses(method, n)])
    with pytest.raises(KeyboardInterrupt):
        clf.fit(*data)
    assert state(clf) == {}


def test_a_second_ctrl_c_interrupts_at_once(make, data):
    callbacks = [
        KeepOnInterrupt(),
        Presses("on_batch_begin", 2),
        ("again", Presses("on_grad_computed", 2)),
    ]
    clf = make(callbacks=callbacks)
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        clf.fit(*data)
    assert state(clf) == {}
    assert signal.getsignal(signal.SIGINT) is before


def test_an_interrupted_fit_with_a_checkpoint_is_kept_and_goes_on_later(make, data, tmp_path):
    settings = {"checkpoint": tmp_path / "run", "max_epochs": 2}
    with pytest.warns(UserWarning, match="interrupted in epoch 2"):
        make(callbacks=[KeepOnInterrupt(), Presses("on_batch_begin", 7)], **settings).fit(*data)
    plain = [KeepOnInterrupt(), Presses("on_batch_begin", 999)]
    again = make(callbacks=plain, **settings).fit(*data)
    whole = make(max_epochs=2).fit(*data)
    np.testing.assert_array_equal(again.predict_proba(data[0]), whole.predict_proba(data[0]))


def test_later_steps_work_on_what_was_kept(make, data):
    callbacks = [KeepOnInterrupt(), Presses("on_batch_begin", 3)]
    clf = make(callbacks=callbacks, refit_head="balanced", temperature="auto", train_split=0.3)
    with pytest.warns(UserWarning, match="interrupted in epoch 1"):
        clf.fit(*data)
    assert clf.temperature_ != 1 and clf.score(*data) > 0.5
