"""The callbacks of skorch: right numbers, or an error that says what to use instead."""

import warnings

import numpy as np
import pytest
import sklearn
import torch
from conftest import imbalanced
from sklearn.metrics import (
    accuracy_score,
    balanced_accuracy_score,
    f1_score,
    log_loss,
    make_scorer,
    precision_score,
    roc_auc_score,
)
from skorch import callbacks as skorch_callbacks
from skorch.utils import unfreeze_parameter

from skfocal import BertFocalClassifier

EpochScoring, BatchScoring = skorch_callbacks.EpochScoring, skorch_callbacks.BatchScoring

needs_classifiers = pytest.mark.skipif(
    sklearn.__version__ < "1.8", reason="EpochScoring's cache is no classifier"
)


@pytest.fixture(scope="module")
def parts():
    """Training documents and others, shuffled labels among them, so that no score is perfect."""
    X, y = imbalanced(50, 22)
    y[::7] = y[::-7]
    return (X[:48], y[:48]), (X[48:], y[48:])


@pytest.fixture
def fit(few_words, parts):
    """Return a function that fits with callbacks, scored on the other documents."""

    def fit(*callbacks, held_out=True, y=None, **parameters):
        settings = {"max_epochs": 3, "lr": 3e-3, "batch_size": 8, "random_state": 0}
        clf = BertFocalClassifier(few_words, callbacks=list(callbacks), **settings | parameters)
        (X, own), (X_val, y_val) = parts
        if y is not None:
            own, y_val = y(own), y(y_val)
        return clf.fit(X, own, eval_set=(X_val, y_val) if held_out else None)

    return fit


SCORES = {
    "accuracy": lambda y, clf, X: accuracy_score(y, clf.predict(X)),
    "balanced_accuracy": lambda y, clf, X: balanced_accuracy_score(y, clf.predict(X)),
    "f1_macro": lambda y, clf, X: f1_score(y, clf.predict(X), average="macro"),
    "neg_log_loss": lambda y, clf, X: -log_loss(y, clf.predict_proba(X)),
    "roc_auc": lambda y, clf, X: roc_auc_score(y, clf.predict_proba(X)[:, 1]),
}


@needs_classifiers
@pytest.mark.parametrize("loss", ["focal", "cross_entropy", torch.nn.CrossEntropyLoss])
@pytest.mark.parametrize("name", SCORES)
def test_epoch_scoring_has_the_score_of_the_held_out_documents(fit, parts, name, loss):
    X, y = parts[1]
    clf = fit(EpochScoring(name, name="also"), loss=loss, proba="softmax")
    assert clf.history_[-1, "also"] == pytest.approx(SCORES[name](y, clf, X), rel=1e-5)


@needs_classifiers
def test_epoch_scoring_of_several_labels(fit, parts):
    def rows(y):
        return np.stack([y == "ham", y != "ham", np.arange(len(y)) % 3 == 0], 1).astype(int)

    X, y = parts[1]
    clf = fit(EpochScoring("f1_macro", name="also"), EpochScoring("f1_micro", name="more"), y=rows)
    for name, average in (("also", "macro"), ("more", "micro")):
        expected = f1_score(rows(y), clf.predict(X), average=average, zero_division=0)
        assert clf.history_[-1, name] == pytest.approx(expected)


@needs_classifiers
def test_scores_of_training_batches_agree_by_epoch_and_by_batch(fit):
    epoch = EpochScoring("accuracy", name="by_epoch", on_train=True)
    batch = BatchScoring("accuracy", name="by_batch", on_train=True)
    clf = fit(("epoch", epoch), ("batch", batch))
    by_epoch, by_batch = clf.history_[:, "by_epoch"], clf.history_[:, "by_batch"]
    np.testing.assert_allclose(by_epoch, by_batch)
    assert 0.5 < by_epoch[-1] < 1


def test_passthrough_scoring_takes_the_mean_of_the_batches(fit):
    class Doubled(skorch_callbacks.Callback):
        def on_batch_end(self, net, batch, training, loss, **kwargs):
            if not training:
                net.history.record_batch("doubled", 2 * float(loss))

    clf = fit(Doubled(), skorch_callbacks.PassthroughScoring("doubled"))
    np.testing.assert_allclose(
        clf.history_[:, "doubled"], [2 * x for x in clf.history_[:, "valid_loss"]], rtol=1e-5
    )


@needs_classifiers
def test_early_stopping_of_skorch_stops_by_what_it_watches(fit):
    stop = skorch_callbacks.EarlyStopping(
        "valid_score", patience=2, lower_is_better=False, threshold=9.0, sink=lambda line: None
    )
    assert len(fit(stop, max_epochs=6).history_) == 3
    own = EpochScoring("accuracy", name="valid_acc", lower_is_better=False)
    stop = skorch_callbacks.EarlyStopping(
        "valid_acc", patience=1, lower_is_better=False, threshold=9.0, sink=lambda line: None
    )
    assert len(fit(own, stop, max_epochs=6).history_) == 2


def test_a_checkpoint_of_skorch_holds_the_weights_of_its_epoch(fit, tmp_path):
    class Kept(skorch_callbacks.Callback):
        def on_epoch_end(self, net, **kwargs):
            if net.history[-1]["epoch"] == 2:
                self.bias = net.module_.state_dict()["model.classifier.bias"].clone()

    second = skorch_callbacks.Checkpoint(
        monitor=lambda net: net.history[-1]["epoch"] == 2, dirname=tmp_path, f_pickle=None
    )
    clf = fit(("kept", Kept()), ("checkpoint", second))
    kept = dict(clf.net_.callbacks_)["kept"].bias
    stored = torch.load(tmp_path / "params.pt", weights_only=True)["model.classifier.bias"]
    assert torch.equal(stored, kept)


def test_a_scheduler_works_with_a_constant_rate_and_is_refused_with_another(fit):
    def halved():
        return skorch_callbacks.LRScheduler("StepLR", step_size=1, gamma=0.5)

    clf = fit(halved(), schedule="constant", warmup=0.0, lr=1e-3)
    rates = [row["event_lr"] for row in clf.history_]
    np.testing.assert_allclose(rates, [1e-3, 5e-4, 2.5e-4])
    for schedule in ("linear", "cosine"):
        with pytest.raises(ValueError, match="LRScheduler needs schedule='constant'"):
            fit(halved(), schedule=schedule)


def test_the_scheduled_rates_are_those_of_the_updates(fit):
    """Half the rate from the second epoch on is what half the rate there does."""

    class Halved(skorch_callbacks.Callback):
        def on_epoch_end(self, net, **kwargs):
            for group in net.optimizer_.param_groups:
                group["lr"] *= 0.5

    scheduler = skorch_callbacks.LRScheduler("StepLR", step_size=1, gamma=0.5)
    one, other = (fit(c, schedule="constant", warmup=0.0) for c in (scheduler, Halved()))
    plain = fit(schedule="constant", warmup=0.0)
    assert one.history_[:, "train_loss"] == other.history_[:, "train_loss"]
    assert one.history_[-1, "train_loss"] != plain.history_[-1, "train_loss"]


def test_frozen_parameters_are_not_trained(fit):
    clf = fit(skorch_callbacks.Freezer("*embeddings*"))
    plain = fit(max_epochs=0, refit_head="balanced", held_out=False)
    pairs = zip(
        clf.net_.module_.named_parameters(), plain.net_.module_.named_parameters(), strict=True
    )
    for (name, a), (_, b) in pairs:
        if "embeddings" in name:
            assert torch.equal(a, b), name


def test_a_clipped_gradient_is_a_smaller_step(fit):
    """AdamW divides by the size of the gradient, so that only its epsilon tells them apart."""
    clipped = fit(skorch_callbacks.GradientNormClipping(1e-9), gradient_clip=None)
    assert clipped.history_[0, "train_loss"] > fit(gradient_clip=None).history_[0, "train_loss"]


def test_timers_and_bars_do_not_disturb(fit, capsys):
    clf = fit(skorch_callbacks.EpochTimer(), skorch_callbacks.ProgressBar())
    assert all(row["dur"] > 0 for row in clf.history_)
    assert clf.history_[:, "train_loss"] == fit().history_[:, "train_loss"]


# -- what cannot work --------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["EarlyStopping", "Checkpoint"])
def test_what_watches_held_out_documents_that_there_are_not_is_refused(fit, name):
    callback = getattr(skorch_callbacks, name)()
    with pytest.raises(ValueError, match=f"{name} watches 'valid_loss.*eval_set"):
        fit(callback, held_out=False)
    watching = getattr(skorch_callbacks, name)(monitor="valid_score_best")
    with pytest.raises(ValueError, match="with early_stopping only"):
        fit(watching)


@pytest.mark.parametrize("callback", [EpochScoring("accuracy"), BatchScoring("accuracy")])
def test_scores_of_held_out_documents_that_there_are_not_are_refused(fit, callback):
    with pytest.raises(ValueError, match="scores held-out documents, and none are held out"):
        fit(callback, held_out=False)


def test_an_early_stop_by_a_score_must_not_wait_for_it_to_fall(fit):
    for watched, scoring in (
        ("valid_score", "f1_macro"),
        ("valid_accuracy", ["f1_macro", "accuracy"]),
    ):
        with pytest.raises(
            ValueError, match=f"watches '{watched}', which is better if it is larger"
        ):
            fit(skorch_callbacks.EarlyStopping(watched), scoring=scoring)


def test_classes_of_callbacks_are_checked_as_their_objects(fit):
    with pytest.raises(ValueError, match="LRScheduler needs schedule='constant'"):
        fit(skorch_callbacks.LRScheduler)
    with pytest.raises(ValueError, match="EarlyStopping watches 'valid_loss'"):
        fit(skorch_callbacks.EarlyStopping, held_out=False)


@pytest.mark.parametrize("kind", [EpochScoring, BatchScoring])
def test_scores_without_a_cache_are_refused(fit, kind):
    with pytest.raises(ValueError, match=f"{kind.__name__} must have use_caching=True.*scoring"):
        fit(kind("accuracy", use_caching=False))


def test_a_setter_of_the_input_shape_is_refused(fit):
    with pytest.raises(ValueError, match="callbacks must not hold InputShapeSetter"):
        fit(skorch_callbacks.InputShapeSetter())


def test_a_schedule_that_ends_before_the_training_is_told(fit):
    with pytest.warns(UserWarning, match="n_updates=10 ends before the 18 updates of this train"):
        clf = fit(n_updates=10)
    assert clf.net_.optimizer_.param_groups[0]["lr"] == 0
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fit(n_updates=18)
        fit(n_updates=10, schedule="constant")


def test_what_is_frozen_cannot_be_thawed_and_the_rest_can(fit):
    for callback in (
        skorch_callbacks.Unfreezer("*", at=2),
        skorch_callbacks.ParamMapper(["*.layer.0.*"], at=2, fn=unfreeze_parameter),
    ):
        with pytest.raises(ValueError, match="cannot thaw 'model.bert.* which freeze=1 leaves"):
            fit(callback, freeze=1)
    above = "*.layer.1.*"
    clf = fit(
        skorch_callbacks.Freezer(above, at=1), skorch_callbacks.Unfreezer(above, at=2), freeze=1
    )
    learns = {name: p.requires_grad for name, p in clf.net_.module_.named_parameters()}
    assert any(learns[name] for name in learns if ".layer.1." in name)
    assert not any(learns[name] for name in learns if ".layer.0." in name)


def test_a_score_may_be_undefined_for_answers_that_are_all_alike(fit):
    scorer = make_scorer(precision_score, pos_label="spam", zero_division=np.nan)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".* is NaN for the held-out documents")  # in an epoch
        clf = fit(early_stopping=9, scoring=scorer)
    assert len(clf.history_) == 3
