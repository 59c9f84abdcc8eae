"""BertFocalClassifier as a scikit-learn user meets it, on a tiny encoder."""

import copy
import functools
import pickle
import warnings

import joblib
import numpy as np
import pandas as pd
import pytest
import sklearn
import torch
from conftest import imbalanced, logits_of
from imblearn.over_sampling import SMOTE, RandomOverSampler
from imblearn.under_sampling import RandomUnderSampler
from sklearn.base import clone, is_classifier
from sklearn.exceptions import NotFittedError
from sklearn.metrics import balanced_accuracy_score, f1_score, log_loss
from sklearn.model_selection import GridSearchCV, PredefinedSplit, ShuffleSplit
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from skorch.callbacks import Callback, EarlyStopping, EpochScoring
from torch.utils.data import WeightedRandomSampler

from skfocal import BertFocalClassifier, Checkpoint, EffectiveNumber, FocalLoss
from skfocal._data.batches import BucketBatchSampler
from skfocal._data.tokenization import TruncationSpec
from skfocal._data.tokens import tokenize
from skfocal._encoder.module import load_module
from skfocal._estimator import fitted_model
from skfocal._estimator.build import learning_rate
from skfocal._estimator.parameters import parameters_of
from skfocal._runtime.process_group import ALONE
from skfocal._training.loop import TrainingLoop
from skfocal.losses import CrossEntropyLoss


@pytest.fixture(scope="module")
def make(tiny):
    """Return a function that makes a small classifier of two batches an epoch."""
    settings = {"max_epochs": 2, "lr": 3e-3, "batch_size": 20, "random_state": 0}
    return functools.partial(BertFocalClassifier, model=tiny, **settings)


@pytest.fixture(scope="module")
def fitted(make):
    """A classifier fitted to `data` that no test changes."""
    return make().fit(*imbalanced())


def weights_of(clf):
    return {k: v.clone() for k, v in clf.net_.module_.state_dict().items()}


def same(a, b):
    return all(torch.equal(a[k], b[k]) for k in a)


# -- fit and predict -------------------------------------------------------------------------


def test_it_learns_and_its_answers_agree(make, data):
    X, y = data
    clf = make(max_epochs=12, batch_size=8)
    assert clf.fit(X, y) is clf
    assert clf.classes_.tolist() == ["ham", "spam"]
    proba = clf.predict_proba(X)
    assert proba.shape == (40, 2)
    np.testing.assert_allclose(proba.sum(axis=1), 1, rtol=1e-12)
    assert (clf.predict(X) == clf.classes_[proba.argmax(axis=1)]).all()
    scores = clf.decision_function(X)
    assert scores.shape == (40,)
    np.testing.assert_allclose(scores, np.log(proba[:, 1] / proba[:, 0]), rtol=1e-6, atol=1e-6)
    assert clf.score(X, y) == np.mean(clf.predict(X) == y) > 0.95
    assert len(clf.history_) == 12
    assert clf.history_[-1]["train_loss"] < clf.history_[0]["train_loss"]


def test_more_than_two_classes_give_a_column_each(make, data):
    X, y = data
    y = np.where(np.arange(40) % 4 == 0, "other", y)
    clf = make().fit(X, y)
    np.testing.assert_allclose(clf.decision_function(X), np.log(clf.predict_proba(X)), rtol=1e-9)
    assert clf.decision_function(X).shape == (40, 3)


LABELS = {
    "str": np.array(["a", "b", "c"]),
    "object": np.array(["a", "b", "c"], dtype=object),
    "int": np.array([-3, 7, 1000]),
    "small int": np.array([1, 2, 3], dtype=np.int8),
    "bool": np.array([False, True]),
    "whole float": np.array([1.0, 2.0, 4.0]),
}


@pytest.mark.parametrize("kind", LABELS)
def test_labels_come_back_as_they_went_in(make, data, kind):
    labels = LABELS[kind]
    y = labels[np.arange(40) % len(labels)]
    clf = make(max_epochs=1).fit(data[0], y)
    assert clf.classes_.dtype == y.dtype and clf.classes_.tolist() == sorted(set(y.tolist()))
    predicted = clf.predict(data[0])
    assert predicted.dtype == y.dtype and set(predicted.tolist()) <= set(labels.tolist())


@pytest.mark.parametrize(("dtype", "plain"), [("Int64", np.int64), ("boolean", np.bool_)])
def test_nullable_labels_stay_integers_and_booleans(make, data, dtype, plain):
    X, y = data
    clf = make(max_epochs=1).fit(X, pd.Series(y == "spam").astype(dtype))
    assert clf.classes_.dtype == plain
    with pytest.raises(ValueError, match="y"):
        make().fit(X[:3], pd.Series([1, None, 0], dtype="Int64"))


@pytest.mark.parametrize("kind", ["list", "Series", "categorical", "string"])
def test_containers_of_labels_give_the_same_model(make, fitted, data, kind):
    X, y = data
    given = {
        "list": y.tolist(),
        "Series": pd.Series(y, index=range(100, 140)),
        "categorical": pd.Categorical(y),
        "string": pd.Series(y, dtype="string"),
    }[kind]
    assert same(weights_of(make().fit(X, given)), weights_of(fitted))


def test_containers_of_texts_give_the_same_predictions(make, fitted, data):
    X, y = data
    expected = fitted.predict_proba(X)
    for given in (tuple(X), np.array(X), np.array(X, dtype=object)[:, None], pd.Series(X)):
        assert np.array_equal(make().fit(given, y).predict_proba(given), expected)


def test_two_dimensional_texts_have_a_feature(make, data):
    X, y = data
    frame = pd.DataFrame({"text": X})
    clf = make(max_epochs=1).fit(frame, y)
    assert clf.n_features_in_ == 1 and clf.feature_names_in_.tolist() == ["text"]
    with pytest.raises(ValueError, match="feature names"):
        clf.predict(frame.rename(columns={"text": "other"}))
    clf.fit(X, y)
    assert not hasattr(clf, "n_features_in_") and not hasattr(clf, "feature_names_in_")
    assert clf.predict(frame).tolist() == clf.predict(X).tolist()


def test_order_and_batch_mates_do_not_change_an_answer(fitted, data):
    X = data[0]
    proba = fitted.predict_proba(X)
    np.testing.assert_allclose(fitted.predict_proba(X[::-1])[::-1], proba, atol=1e-6)
    np.testing.assert_allclose(fitted.predict_proba(X[3:4]), proba[3:4], atol=1e-6)


# -- the loss is what it says ----------------------------------------------------------------


def test_one_full_batch_step_is_the_plain_loop(make, data, tiny):
    """The estimator against twenty lines of torch: same weights after two updates."""
    X, y = data
    settings = {"lr": 1e-3, "batch_size": 40, "max_epochs": 2, "alpha": "balanced", "warmup": 0.0}
    clf = make(**settings).fit(X, y)

    start = make(**settings, net_params={"max_epochs": 0})
    start.fit(X, y)
    module = start.net_.module_.train()
    decayed = [p for p in module.parameters() if p.ndim > 1]
    others = [p for p in module.parameters() if p.ndim <= 1]
    optimizer = torch.optim.AdamW(
        [{"params": decayed, "weight_decay": 0.01}, {"params": others, "weight_decay": 0.0}],
        lr=1e-3,
    )
    encoded = start.tokenizer_(X, padding=True, return_tensors="pt")
    target = torch.tensor((y == "spam").astype(int))
    weight = torch.tensor([40 / 60, 40 / 20])
    for lr in (1e-3, 0.5e-3):
        p = module(encoded["input_ids"], encoded["attention_mask"]).softmax(1)
        p = p.gather(1, target[:, None])[:, 0]
        loss = (-weight[target] * (1 - p) ** 2 * p.log()).mean()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(module.parameters(), 1.0)
        for group in optimizer.param_groups:
            group["lr"] = lr
        optimizer.step()
    for name, value in module.state_dict().items():
        torch.testing.assert_close(clf.net_.module_.state_dict()[name], value, rtol=1e-4, atol=2e-5)


def test_gamma_zero_is_cross_entropy(make, fitted, data):
    focal = make(gamma=0).fit(*data)
    cross_entropy = make(loss="cross_entropy").fit(*data)
    assert same(weights_of(focal), weights_of(cross_entropy))
    assert type(focal.loss_) is FocalLoss and type(cross_entropy.loss_) is CrossEntropyLoss
    assert fitted.gamma == 2 and not same(weights_of(focal), weights_of(fitted))


def test_accumulating_small_batches_is_one_large_batch(make, data):
    X, y = imbalanced(26, 10)  # a short last batch too
    # Plain gradient steps: Adam would turn rounding of a zero gradient into a whole step.
    settings = {"max_epochs": 1, "lr": 10.0, "alpha": "balanced", "warmup": 0.0}
    settings |= {"net_params": {"optimizer": torch.optim.SGD}}
    start = weights_of(make(batch_size=36, **{**settings, "lr": 1e-12}).fit(X, y))
    large = weights_of(make(batch_size=36, **settings).fit(X, y))
    small = weights_of(make(batch_size=8, accumulate=5, **settings).fit(X, y))
    for name in start:
        step, same_step = large[name] - start[name], small[name] - start[name]
        torch.testing.assert_close(same_step, step, rtol=1e-2, atol=1e-5)
    assert max((large[name] - start[name]).abs().max() for name in start) > 1e-3


def test_a_document_of_the_short_last_batch_pulls_no_harder(make, data):
    net = make(batch_size=16).fit(*data).net_
    batches = BucketBatchSampler(np.ones(40), 16, None, 40, None)
    loop = TrainingLoop(net, None, batches, ALONE, None)
    assert loop._share_of_update(16) == pytest.approx(1)
    assert loop._share_of_update(8) == pytest.approx(0.5)  # 40 documents: 16, 16, 8
    net.criterion_.normalize = "weights"
    assert loop._share_of_update(8) == 1


@pytest.mark.parametrize("sampler", [None, "sqrt"])
def test_sample_weight_is_repetition(make, data, sampler):
    X, y = data
    times = 1 + np.arange(40) % 3
    settings = {"alpha": "balanced", "sampler": sampler, "batch_size": 100, "warmup": 0.0}
    settings |= {"max_epochs": 2, "lr": 1e-3}
    weighted = make(**settings).fit(X, y, sample_weight=2.5 * times)
    repeated = make(**settings).fit(np.repeat(X, times), np.repeat(y, times))
    np.testing.assert_allclose(weighted.class_weight_, repeated.class_weight_, rtol=1e-12)
    np.testing.assert_allclose(
        weighted.effective_class_weight_, repeated.effective_class_weight_, rtol=1e-12
    )
    if sampler is None:
        np.testing.assert_allclose(
            weighted.predict_proba(X), repeated.predict_proba(X), rtol=0, atol=1e-4
        )


def test_weight_zero_is_absence(make, data):
    X, y = data
    settings = {"batch_size": 100, "warmup": 0.0, "lr": 1e-3}
    keep = np.arange(40) % 5 > 0
    weighted = make(**settings).fit(X, y, sample_weight=keep.astype(float))
    without = make(**settings).fit(np.array(X)[keep], y[keep])
    np.testing.assert_allclose(weighted.predict_proba(X), without.predict_proba(X), atol=1e-4)


@pytest.mark.parametrize("normalize", ["samples", "weights", "sum"])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_every_normalisation_trains(make, data, normalize, smoothing):
    clf = make(normalize=normalize, label_smoothing=smoothing, alpha="balanced", max_epochs=4)
    clf.fit(*data)
    assert clf.loss_.normalize == normalize and clf.loss_.label_smoothing == smoothing
    assert clf.history_[-1]["train_loss"] < clf.history_[0]["train_loss"]


# -- alpha and sampler -----------------------------------------------------------------------


def test_class_weights_follow_what_the_sampler_draws(make, data):
    X, y = data
    alone = make(alpha="balanced", max_epochs=1).fit(X, y)
    np.testing.assert_allclose(alone.class_weight_, [40 / 60, 2])
    np.testing.assert_allclose(alone.effective_class_weight_, [40 / 60, 2])
    np.testing.assert_allclose(alone.loss_.weight, [40 / 60, 2])
    drawn = make(sampler="balanced", max_epochs=1).fit(X, y)
    assert drawn.class_weight_.tolist() == [1, 1]
    np.testing.assert_allclose(drawn.effective_class_weight_, [40 / 60, 2])
    with pytest.warns(UserWarning, match="has no effect"):
        both = make(alpha="balanced", sampler="balanced", max_epochs=1).fit(X, y)
    np.testing.assert_allclose(both.class_weight_, [1, 1])
    np.testing.assert_allclose(both.effective_class_weight_, [40 / 60, 2])


def test_explicit_alpha_and_a_sampler_warn_with_the_weights(make, data):
    with pytest.warns(UserWarning, match="alpha and sampler all correct.* 9 times .* 3 times"):
        clf = make(alpha={"ham": 1, "spam": 3}, sampler="balanced", max_epochs=1).fit(*data)
    np.testing.assert_allclose(clf.effective_class_weight_, [2 / 3, 6])


@pytest.mark.parametrize(
    "sampler",
    [
        "balanced",
        "sqrt",
        "progressive",
        0.3,
        RandomOverSampler(random_state=0),
        lambda y: WeightedRandomSampler(np.where(y == "spam", 3.0, 1.0), len(y)),
    ],
)
def test_every_sampler_trains_on_what_it_says(make, data, sampler):
    seen = []

    class Look(Callback):
        def on_batch_end(self, net, batch=None, training=False, **kwargs):
            seen.extend(batch[1].tolist())

    Look.__deepcopy__ = lambda self, memo: self
    clf = make(sampler=sampler, max_epochs=30, batch_size=40, freeze=2, callbacks=[Look()])
    clf.fit(*data)
    share = clf.effective_class_weight_ * np.array([0.75, 0.25])
    if sampler == "progressive":  # the last epoch is balanced, the mean half-way
        np.testing.assert_allclose(share, [0.5, 0.5])
        share = np.array([0.625, 0.375])
    np.testing.assert_allclose(np.bincount(seen) / len(seen), share / share.sum(), atol=0.04)


def test_declared_class_without_documents_has_weight_one_and_a_column(make, data):
    X, y = data
    with pytest.warns(
        UserWarning, match=r"no document of 1 declared classes: \['eggs'\]"
    ) as record:
        clf = make(classes=["spam", "ham", "eggs"], alpha="balanced").fit(X, y)
    assert len(record) == 1
    assert clf.classes_.tolist() == ["eggs", "ham", "spam"]
    np.testing.assert_allclose(clf.class_weight_, [1, 40 / 60, 2])
    np.testing.assert_allclose(clf.effective_class_weight_, [1, 40 / 60, 2])
    proba = clf.predict_proba(X)
    assert proba.shape == (40, 3) and np.isfinite(np.log(proba)).all()


# -- validation, early stopping --------------------------------------------------------------


def test_held_out_documents_are_scored_each_epoch(make, data):
    X, y = data
    split = PredefinedSplit(np.where(np.arange(40) < 8, 0, -1))
    clf = make(train_split=split, max_epochs=3, scoring="balanced_accuracy").fit(X, y)
    assert [row["epoch"] for row in clf.history_ if "valid_score" in row] == [1, 2, 3]
    codes = torch.from_numpy((y[:8] == "spam").astype(int))
    expected = clf.loss_(torch.from_numpy(logits_of(clf, X[:8])), codes)
    assert clf.history_[-1]["valid_loss"] == pytest.approx(expected.item(), rel=1e-5)
    predicted = clf.predict(X[:8])
    assert clf.history_[-1]["valid_score"] == balanced_accuracy_score(y[:8], predicted)
    assert (
        sum(b["train_batch_size"] for b in clf.history_[0]["batches"] if "train_batch_size" in b)
        == 32
    )


def test_score_is_that_of_the_fitted_model_on_those_documents(make, data):
    X, y = data
    split = ShuffleSplit(1, test_size=0.25, random_state=3)
    rows = next(split.split(X))[1]
    clf = make(train_split=split, max_epochs=1).fit(X, y)
    expected = f1_score(y[rows], clf.predict([X[i] for i in rows]), average="macro")
    assert clf.history_[-1]["valid_score"] == pytest.approx(expected)


def test_scorer_may_be_a_function_that_sees_texts_and_labels(make, data):
    X, y = data

    seen = []

    def score(estimator, texts, labels):
        seen.append((texts, labels))
        return float((estimator.predict(texts) == labels).mean())

    clf = make(train_split=0.2, scoring=score, max_epochs=1).fit(X, y)
    [(texts, labels)] = seen
    assert len(texts) == 8 and [dict(zip(X, y, strict=True))[x] for x in texts] == list(labels)
    assert clf.history_[0]["valid_score"] == clf.score(texts, labels)


def test_early_stopping_ends_and_keeps_the_best_weights(make, data):
    X, y = data
    scores = iter([0.1, 0.9, 0.3, 0.2, 0.8, 0.7])
    kept = []

    def score(estimator, texts, labels):
        return next(scores)

    class Keep(Callback):
        def on_epoch_begin(self, net, **kwargs):
            kept.append({k: v.clone() for k, v in net.module_.state_dict().items()})

    keep = Keep()
    Keep.__deepcopy__ = lambda self, memo: self
    clf = make(early_stopping=2, scoring=score, max_epochs=9, callbacks=[keep])
    clf.fit(X, y)
    assert len(clf.history_) == 4  # best in the second, two more without a better one
    assert [row["valid_score_best"] for row in clf.history_] == [True, True, False, False]
    assert same(weights_of(clf), kept[2])  # as the third epoch began


def test_classes_of_one_document_stay_in_training(make):
    X, y = imbalanced()
    X, y = [*X, "a single one"], np.append(y, "rare")
    held_out = []
    settings = {"scoring": lambda clf, texts, labels: held_out.extend(texts) or 0.0}
    clf = make(early_stopping=True, train_split=0.3, max_epochs=1, **settings).fit(X, y)
    assert clf.classes_.tolist() == ["ham", "rare", "spam"]
    assert held_out and "a single one" not in held_out


def test_weights_have_mean_one_over_the_documents_to_train_on(make, data):
    X, y = data
    seen = []

    class Look(Callback):
        def on_batch_end(self, net, batch=None, training=False, **kwargs):
            if training:
                seen.extend(batch[0]["sample_weight"].tolist())

    Look.__deepcopy__ = lambda self, memo: self
    clf = make(train_split=0.25, max_epochs=1, callbacks=[Look()])
    clf.fit(X, y, sample_weight=np.arange(40))
    assert len(seen) == 30 and np.mean(seen) == pytest.approx(1)


def test_too_few_documents_to_hold_any_out(make):
    with pytest.raises(ValueError, match="train_split=0.1 of 2 documents leaves none"):
        make(early_stopping=True).fit(["a", "b"], [0, 1])


# -- other parameters ------------------------------------------------------------------------


def test_freezing_keeps_lower_weights(make, data):
    before = weights_of(make(freeze=1, net_params={"max_epochs": 0}).fit(*data))
    after = weights_of(make(freeze=1).fit(*data))
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert moved and not any("embeddings" in n or "layer.0." in n for n in moved)
    assert any("layer.1." in n for n in moved)


def test_warm_start_thaws_what_the_last_fit_froze(make, data):
    clf = make(freeze=2, warm_start=True).fit(*data)
    before = weights_of(clf)
    after = weights_of(clf.set_params(freeze=0).fit(*data))
    name = "model.bert.encoder.layer.0.output.dense.weight"
    assert not torch.equal(before[name], after[name])


def test_rate_follows_warm_up_and_schedule(make, data):
    rates = []

    class Look(Callback):
        def on_grad_computed(self, net, named_parameters=None, **kwargs):
            rates.append(net.optimizer_.param_groups[0]["lr"])

    Look.__deepcopy__ = lambda self, memo: self
    settings = {"lr": 1.0, "batch_size": 20, "max_epochs": 5, "callbacks": [Look()], "freeze": 2}
    make(**settings, warmup=0.2).fit(*data)
    np.testing.assert_allclose(rates, [0.5, 1, *np.arange(8, 0, -1) / 8])
    rates.clear()
    make(**settings, warmup=0.0, accumulate=2).fit(*data)  # five updates of two batches
    np.testing.assert_allclose(rates, np.arange(5, 0, -1) / 5)
    rates.clear()
    make(**settings, warmup=0.0, schedule="constant").fit(*data)
    assert rates == [1.0] * 10
    rates.clear()
    make(**settings, warmup=0.0, schedule="cosine").fit(*data)
    np.testing.assert_allclose(rates, (1 + np.cos(np.pi * np.arange(10) / 10)) / 2)


def test_auto_rate_goes_with_the_width(make, data, minilm):
    assert make(lr="auto", max_epochs=1).fit(*data).lr_ == 1e-3  # width 32: the cap
    module = load_module(minilm, ["a", "b"], pad_token_id=0)
    given = parameters_of(BertFocalClassifier(minilm))
    assert learning_rate(given, module, freeze=0) == pytest.approx(2e-4)


def test_truncation_is_told_once_with_numbers(make):
    X, y = ["word " * 100, "a b", "c", "d e f"], [0, 1, 0, 1]
    with pytest.warns(UserWarning, match="1 of 4 documents have more than max_length=16") as record:
        clf = make(max_length=16).fit(X, y)
    assert len(record) == 1 and clf.n_truncated_ == 1 and clf.max_length_ == 16
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        clf.predict(X)


def test_model_limit_is_the_default_length(make, fitted, data):
    assert fitted.max_length_ == 64 and fitted.n_truncated_ == 0
    with pytest.raises(ValueError, match="max_length must be at most 64.*Got 65"):
        make(max_length=65).fit(*data)


def test_bfloat16_is_close_to_float32(make, data):
    X, y = data
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # slow on processors without its instructions
        low = make(precision="bfloat16", max_epochs=5).fit(X, y)
    assert next(low.net_.module_.parameters()).dtype == torch.float32
    np.testing.assert_allclose(
        low.predict_proba(X), make(max_epochs=5).fit(X, y).predict_proba(X), atol=0.15
    )


def test_bfloat16_warns_where_the_processor_lacks_it(make, data, monkeypatch):
    monkeypatch.setattr("skfocal._estimator.advice.cpu_has_bfloat16", lambda: False)
    with pytest.warns(UserWarning, match="slower than 'float32' on this processor"):
        make(precision="bfloat16", max_epochs=1).fit(*data)


def test_net_params_reach_skorch(make, data):
    clf = make(net_params={"max_epochs": 1, "optimizer__betas": (0.8, 0.9)}).fit(*data)
    assert len(clf.history_) == 1
    assert clf.net_.optimizer_.defaults["betas"] == (0.8, 0.9)


@pytest.mark.skipif(sklearn.__version__ < "1.8", reason="EpochScoring's cache is no classifier")
def test_other_optimizers_and_scorers_of_skorch_work(make, data):
    X, y = data
    scoring = EpochScoring("neg_log_loss", use_caching=True, name="nll")
    split = PredefinedSplit(np.where(np.arange(40) < 12, 0, -1))
    settings = {"net_params": {"optimizer": torch.optim.RMSprop}, "train_split": split}
    clf = make(callbacks=[scoring], max_epochs=1, proba="softmax", **settings).fit(X, y)
    assert type(clf.net_.optimizer_) is torch.optim.RMSprop
    expected = -log_loss(y[:12], clf.predict_proba(X[:12]))
    assert clf.history_[-1]["nll"] == pytest.approx(expected, rel=1e-5)


def test_scorer_that_needs_every_class_says_so(make):
    X, y = imbalanced()
    clf = make(train_split=0.3, scoring="neg_log_loss", max_epochs=1)
    with pytest.raises(ValueError, match=r"scoring='neg_log_loss' .* classes \['rare'\]"):
        clf.fit([*X, "a single one"], np.append(y, "rare"))


def test_error_of_a_scorer_comes_through_as_it_is(make, data):
    def broken(estimator, texts, labels):
        raise ValueError("my own mistake")

    with pytest.raises(ValueError, match="^my own mistake$"):
        make(train_split=0.3, scoring=broken, max_epochs=1).fit(*data)


def test_skorch_callbacks_are_copied_and_can_stop(make, data):
    stop = EarlyStopping(monitor="train_loss", patience=2, threshold=1e9, sink=lambda line: None)
    clf = make(callbacks=[("stop", stop)], max_epochs=9).fit(*data)
    assert len(clf.history_) == 3
    assert stop.misses_ == 0 and dict(clf.net_.callbacks_)["stop"].misses_ == 2


def test_interrupt_of_the_user_goes_through_and_leaves_it_unfitted(make, data):
    class Interrupt(Callback):
        def on_batch_end(self, net, **kwargs):
            raise KeyboardInterrupt

    clf = make(callbacks=[Interrupt()])
    with pytest.raises(KeyboardInterrupt):
        clf.fit(*data)
    with pytest.raises(NotFittedError):
        clf.predict(data[0])


def test_warm_start_goes_on_from_the_last_weights(make, data):
    X, y = data
    clf = make(warm_start=True, max_epochs=3).fit(X, y)
    first, weights = clf.history_[0]["train_loss"], weights_of(clf)
    assert same(weights, weights_of(clf.set_params(net_params={"max_epochs": 0}).fit(X, y)))
    clf.set_params(net_params=None).fit(X, y)
    assert clf.history_[0]["train_loss"] < first
    with pytest.raises(ValueError, match=r"warm_start=True needs the classes.*Got \['x', 'y'\]"):
        clf.fit(X, np.where(y == "ham", "x", "y"))
    several = np.stack([y == "ham", y == "spam"], axis=1).astype(int)
    with pytest.raises(ValueError, match="one label per document. Got several labels"):
        clf.fit([*X, "x"], [*several, [1, 1]])
    with pytest.raises(ValueError, match="warm_start=True goes on .* Got model='other'"):
        clf.set_params(model="other").fit(X, y)
    cold = make(max_epochs=3).fit(X, y)
    assert cold.fit(X, y).history_[0]["train_loss"] == pytest.approx(first)


@pytest.mark.slow
def test_compiled_module_gives_the_same_answers(make, data):
    X, y = data
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        compiled = make(net_params={"compile": True}, max_epochs=1).fit(X, y)
        again = pickle.loads(pickle.dumps(compiled.set_params(net_params=None)))
    np.testing.assert_allclose(again.predict_proba(X), compiled.predict_proba(X), atol=1e-5)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_a_compiled_module_gives_its_moments_to_one_that_is_not(make_of_few_words, data, tmp_path):
    X, y = data
    traced = {"compile": True, "compile__backend": "aot_eager"}
    plain, compiled = (
        make_of_few_words(net_params=params).partial_fit(X, y, classes=["ham", "spam"])
        for params in (None, traced)
    )
    compiled.save_pretrained(tmp_path / "model")
    loaded = BertFocalClassifier.from_pretrained(tmp_path / "model")
    for clf in (plain, compiled.set_params(net_params=None), loaded):
        clf.partial_fit(X[:20], y[:20])
    expected = plain.predict_proba(X)
    np.testing.assert_allclose(compiled.predict_proba(X), expected, rtol=1e-3)
    np.testing.assert_allclose(loaded.predict_proba(X), expected, rtol=1e-3)


def test_the_learning_rate_is_the_one_that_trained(make_of_few_words, data):
    assert make_of_few_words(net_params={"lr": 1e-3}).fit(*data).lr_ == 1e-3
    assert make_of_few_words(net_params={"optimizer__lr": 1e-3}).fit(*data).lr_ == 1e-3
    assert make_of_few_words(lr=2e-3).fit(*data).lr_ == 2e-3


# -- progress --------------------------------------------------------------------------------


def test_silent_by_default(make, data, capfd):
    make(train_split=0.2).fit(*data)
    assert capfd.readouterr() == ("", "")


def test_verbose_gives_a_line_an_epoch_and_a_bar(make, data, capfd):
    make(verbose=1, train_split=0.2).fit(*data)
    out, err = capfd.readouterr()
    head, *lines = out.strip().splitlines()
    assert head == "The head of the model is new."
    assert len(lines) == 2
    for number, line in enumerate(lines, start=1):
        assert line.startswith(f"epoch {number}/2  loss ")
        assert "f1_macro 0." in line or "f1_macro 1." in line
        assert "documents/s" in line
    assert "epoch 1/2" in err and "documents" in err


# -- randomness ------------------------------------------------------------------------------


@pytest.mark.parametrize("sampler", [None, "balanced"])
def test_random_state_decides_every_bit(make, data, sampler):
    settings = {"dropout": 0.1, "sampler": sampler, "train_split": 0.2, "max_epochs": 1}
    first = weights_of(make(**settings, random_state=7).fit(*data))
    assert same(first, weights_of(make(**settings, random_state=7).fit(*data)))
    assert not same(first, weights_of(make(**settings, random_state=8).fit(*data)))
    generator = np.random.RandomState(7)
    assert same(first, weights_of(make(**settings, random_state=generator).fit(*data)))


def test_global_generators_are_left_as_found(make, data):
    import random

    torch.manual_seed(5), np.random.seed(5), random.seed(5)
    before = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()
    clf = make(dropout=0.1, sampler="sqrt", train_split=0.2).fit(*data)
    clf.predict(data[0])
    assert torch.equal(torch.get_rng_state(), before[0])
    assert np.array_equal(np.random.get_state()[1], before[1])
    assert random.getstate() == before[2]


# -- scikit-learn ----------------------------------------------------------------------------


def test_clone_parameters_and_repr(make):
    clf = make(gamma=1.5, alpha={"a": 1.0})
    assert clone(clf).get_params() == clf.get_params()
    assert "gamma=1.5" in repr(clf)
    html = clf._repr_html_()
    assert "gamma" in html and "1.5" in html and "label_smoothing" in html
    assert is_classifier(clf)
    assert clf.__sklearn_tags__().input_tags.string


def test_fit_changes_no_parameter(make, data):
    class Count(Callback):
        n_epochs = 0

        def on_epoch_end(self, net, **kwargs):
            self.n_epochs += 1

    callbacks, alpha = [Count()], {"ham": 1.0, "spam": 2.0}
    clf = make(callbacks=callbacks, alpha=alpha, net_params={"max_epochs": 1})
    before = {k: (v, copy.deepcopy(v)) for k, v in clf.get_params().items()}
    clf.fit(*data)
    for name, value in clf.get_params().items():
        assert value is before[name][0]
        if name != "callbacks":
            assert value == before[name][1]
    assert callbacks[0].n_epochs == 0 and clf.net_.callbacks_[-1][1].n_epochs == 1


def test_grid_search_and_pipeline(make, data):
    X, y = data
    clean = FunctionTransformer(lambda texts: [text.lower() for text in texts])
    pipeline = make_pipeline(clean, make(max_epochs=5, lr=1e-2, batch_size=8))
    grid = {"bertfocalclassifier__gamma": [0, 2], "bertfocalclassifier__alpha": [None, "balanced"]}
    once = ShuffleSplit(1, test_size=0.5, random_state=0)
    search = GridSearchCV(pipeline, grid, scoring="f1_macro", cv=once, error_score="raise")
    search.fit(X, y)
    assert len(search.cv_results_["params"]) == 4
    assert search.score(X, y) > 0.9


@pytest.mark.parametrize("how", ["pickle", "joblib", "deepcopy"])
def test_copies_of_a_fitted_model_predict_the_same_bits(fitted, data, how, tmp_path):
    (X, y), clf = data, fitted
    if how == "pickle":
        again = pickle.loads(pickle.dumps(clf))
    elif how == "joblib":
        joblib.dump(clf, tmp_path / "clf")
        again = joblib.load(tmp_path / "clf")
    else:
        again = copy.deepcopy(clf)
    assert np.array_equal(again.predict_proba(X), clf.predict_proba(X))
    assert [row["train_loss"] for row in again.history_] == [
        row["train_loss"] for row in clf.history_
    ]
    assert type(again.loss_) is FocalLoss
    again.fit(X, y)
    assert same(weights_of(again), weights_of(clf))


def test_pickle_holds_no_token_cache_and_no_texts(make):
    X, y = imbalanced(20, 20)
    X[0] = "zyxwvut unmistakable"
    assert b"zyxwvut" not in pickle.dumps(make(train_split=0.2).fit(X, y))


# -- bad input -------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["predict", "predict_proba", "decision_function", "score"])
def test_predict_before_fit(make, data, method):
    with pytest.raises(NotFittedError, match="not fitted"):
        getattr(make(), method)(*(data if method == "score" else data[:1]))
    with pytest.raises(AttributeError, match="fit"):
        _ = make().history_


@pytest.mark.parametrize(
    ("X", "y", "message"),
    [
        (["a", "b"], [0], "inconsistent numbers of samples"),
        (["a", "b"], [1, 1], r"at least two classes\. Got one class only: 1"),
        (["a", "b"], [0.5, 1.7], "Unknown label type: continuous"),
        (["a", "b"], [0.0, np.nan], "y must have a label for each document. Got nan in row 1"),
        (["a", "b"], None, "requires y to be passed"),
        (["a", "b"], [[0, 2], [1, 0]], "must be an indicator of 0 and 1"),
        (np.array([["a", "b", "c"], ["d", "e", "f"]]), [0, 1], r"one column.*Got shape \(2, 3\)"),
        ([], [], "0 sample"),
    ],
)
def test_wrong_data_is_named(make, X, y, message):
    with pytest.raises(ValueError, match=message):
        make().fit(X, y)


def test_missing_label_is_refused(make):
    with pytest.raises((ValueError, TypeError), match="y .*row 1|NaN|None"):
        make().fit(["a", "b", "c"], np.array(["x", None, "y"], dtype=object))


def test_wrong_row_is_named(make):
    with pytest.raises(TypeError, match="Got NoneType in row 1"):
        make().fit(["a", None], [0, 1])


def _lists(parameter, got, *valid):
    """Pattern of a message that lists the valid names, in any order."""
    names = "".join(f"(?=.*'{name}')" for name in valid)
    return f"'{parameter}' parameter {names}.* Got '{got}'"


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"gamma": -1}, r"'gamma' parameter .* range \[0.0, inf\)\. Got -1"),
        ({"gamma": np.nan}, "'gamma' parameter .* Got nan"),
        ({"gamma": np.inf}, "'gamma' parameter .* Got inf"),
        ({"gamma": "2"}, "'gamma' parameter .* Got '2'"),
        ({"loss": "focl"}, _lists("loss", "focl", "cross_entropy", "focal")),
        ({"precision": "fp16"}, _lists("precision", "fp16", "auto", "bfloat16", "float32")),
        ({"schedule": "step"}, _lists("schedule", "step", "constant", "cosine", "linear")),
        ({"normalize": "mean"}, _lists("normalize", "mean", "samples", "sum", "weights")),
        ({"scoring": "f1_makro"}, "'scoring' .*'f1_macro'.* Got 'f1_makro'"),
        ({"alpha": "ballanced"}, "alpha must be None, 'balanced', .* Got 'ballanced'"),
        ({"alpha": {"ham": 1}}, r"missing: \['spam'\]"),
        ({"alpha": {"ham": 1, "spam": 1, "eggs": 1}}, r"unknown: \['eggs'\]"),
        ({"alpha": [1, -1]}, "positive finite"),
        ({"alpha": 1.5}, "between 0 and 1"),
        ({"sampler": "ballanced"}, "sampler must be None, 'balanced', .* Got 'ballanced'"),
        ({"sampler": SMOTE()}, "measures distances"),
        ({"classes": ["ham", "eggs"]}, r"classes must name .* without \['spam'\]"),
        ({"device": "cuda:99"}, "device='cuda:99' is not a device"),
        ({"device": "gpu"}, "device='gpu' is not a device"),
        ({"freeze": 3}, "freeze must be at most the 2 layers"),
        ({"max_epochs": -1}, "'max_epochs'"),
        ({"early_stopping": 0}, "'early_stopping'"),
        ({"checkpoint": Checkpoint("run", steps=0)}, "'steps' parameter of Checkpoint"),
        ({"checkpoint": Checkpoint("run", minutes=0)}, "'minutes' parameter of Checkpoint"),
        ({"checkpoint": Checkpoint(None)}, "'folder' parameter of Checkpoint"),
        ({"lr": 0}, "'lr'"),
        ({"train_split": 1.5}, "'train_split'"),
        ({"alpha": EffectiveNumber(beta=1.0)}, "'beta' parameter of EffectiveNumber"),
    ],
)
def test_wrong_parameter_is_named(make, data, params, message):
    with pytest.raises(ValueError, match=message):
        make(**params).fit(*data)


def test_number_as_alpha_for_more_classes_says_why(make, data):
    y = np.where(np.arange(40) % 4 == 0, "other", data[1])
    with pytest.raises(ValueError, match="weight of the second of two classes.* 3 classes"):
        make(alpha=0.25).fit(data[0], y)


def test_unknown_model_says_what_was_looked_for(make, data):
    with pytest.raises(OSError, match="model='no/such' cannot be loaded.*path of a folder"):
        make(model="no/such").fit(*data)


@pytest.mark.parametrize(
    ("weight", "message"),
    [
        (np.ones(3), "sample_weight"),
        (-np.ones(40), "[Nn]egative"),
        (np.full(40, np.nan), "NaN"),
        (np.zeros(40), "sample_weight|zero"),
    ],
)
def test_wrong_sample_weight_is_named(make, data, weight, message):
    with pytest.raises(ValueError, match=message):
        make().fit(*data, sample_weight=weight)


def test_loss_that_is_not_finite_stops_and_names_the_batch(make, data):
    class Spoil(Callback):
        def on_batch_begin(self, net, batch=None, training=False, **kwargs):
            if len(net.history) == 2 and len(net.history[-1]["batches"]) == 2:
                with torch.no_grad():
                    net.module_.model.classifier.bias.fill_(float("nan"))

    clf = make(callbacks=[Spoil()])
    with pytest.raises(
        FloatingPointError, match="loss is nan in epoch 2, train batch 2\\. Try a smaller lr"
    ):
        clf.fit(*data)
    with pytest.raises(NotFittedError):
        clf.predict(data[0])


def test_last_update_that_is_not_finite_is_noticed(make, data):
    class Spoil(Callback):
        def on_train_end(self, net, **kwargs):
            with torch.no_grad():
                net.module_.model.classifier.bias.fill_(float("inf"))

    with pytest.raises(FloatingPointError, match="weights that are not finite"):
        make(callbacks=[Spoil()]).fit(*data)


def test_nothing_of_the_training_stays_in_memory(fitted):
    net = fitted.net_
    assert not net.optimizer_.state
    assert all(p.grad is None for p in net.module_.parameters())
    assert not net.module_.training


def test_tokens_seen_are_those_of_the_tokenizer(fitted, data):
    ids = tokenize(fitted.tokenizer_, data[0], TruncationSpec(fitted.max_length_))
    assert [i.tolist() for i in ids] == fitted.tokenizer_(data[0])["input_ids"]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_cuda_gives_the_answers_of_the_cpu(make, data):
    X, y = data
    torch.cuda.synchronize()
    before = torch.cuda.memory_allocated()
    clf = make(precision="float32", device="cuda").fit(X, y)
    cpu = make(precision="float32", device="cpu").fit(X, y)
    np.testing.assert_allclose(clf.predict_proba(X), cpu.predict_proba(X), atol=0.02)
    assert make(device="cuda").fit(X, y).net_.precision == "bfloat16"
    del clf
    assert torch.cuda.memory_allocated() == before


def test_callbacks_in_net_params_are_refused_before_training(make, data):
    with pytest.raises(ValueError, match="net_params must not hold 'callbacks'"):
        make(net_params={"callbacks": []}).fit(*data)


def test_a_long_list_is_predicted_in_slices_with_the_same_answers(fitted, data, monkeypatch):
    X, clf = data[0], fitted
    whole = clf.predict_proba(X)
    sizes, kept = [], []
    tokenize = fitted_model.tokenize
    monkeypatch.setattr(
        fitted_model,
        "tokenize",
        lambda t, texts, n, keep: (
            sizes.append(len(texts)) or kept.append(keep) or tokenize(t, texts, n, keep)
        ),
    )
    monkeypatch.setattr(fitted_model, "_SLICE", 15)
    np.testing.assert_allclose(clf.predict_proba(X), whole, atol=1e-6)
    monkeypatch.setattr(fitted_model, "CACHED_DOCUMENTS", 39)
    np.testing.assert_allclose(clf.predict_proba(X), whole, atol=1e-6)
    assert sizes == [15, 15, 10] * 2 and kept == [True] * 3 + [False] * 3


def test_a_document_without_weight_is_held_out_for_no_other(make, data):
    X, y = data
    weight = np.ones(len(y))
    weight[np.flatnonzero(y == "spam")[1:]] = 0
    for seed in range(6):
        clf = make(train_split=0.3, random_state=seed, max_epochs=1)
        assert clf.fit(X, y, sample_weight=weight).class_prior_[1] > 0


def test_a_class_without_weight_is_told(make, data):
    X, y = data
    for given in ({}, {"eval_set": data}):
        with pytest.warns(UserWarning, match=r"sample_weight is 0 for all .* \['spam'\] to train"):
            make(max_epochs=1).fit(X, y, sample_weight=(y == "ham") * 1.0, **given)


def test_imbalanced_learn_draws_no_document_without_weight(make, data):
    X, y = data
    weight = np.ones(len(y))
    weight[np.flatnonzero(y == "spam")[2:]] = 0
    some = weight > 0
    sampler = RandomUnderSampler(random_state=0)
    clf = make(sampler=sampler, max_epochs=1).fit(X, y, sample_weight=weight)
    alone = make(sampler=sampler, max_epochs=1).fit([X[i] for i in np.flatnonzero(some)], y[some])
    np.testing.assert_allclose(clf.effective_class_weight_, alone.effective_class_weight_)
    assert clf.effective_class_weight_[1] / clf.effective_class_weight_[0] == pytest.approx(15)


def test_weights_of_a_score_in_another_order_are_refused(make, data):
    X, y = map(pd.Series, data)
    clf = make(max_epochs=1).fit(X, y)
    weight = pd.Series(np.arange(len(y)))
    assert clf.score(X, y, sample_weight=weight) == clf.score([*X], [*y], sample_weight=[*weight])
    with pytest.raises(ValueError, match="X and sample_weight must have their rows in the same"):
        clf.score(X, y, sample_weight=weight[::-1])
    with pytest.raises(ValueError, match="X and y must have their rows in the same"):
        clf.score(X, y[::-1])
