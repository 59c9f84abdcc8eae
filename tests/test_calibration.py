"""Probabilities and temperature: on known posteriors, and through the estimator."""

import pickle
import warnings
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from conftest import imbalanced, logits_of
from scipy.special import log_softmax, softmax
from sklearn.metrics import f1_score, get_scorer, log_loss, precision_score
from sklearn.model_selection import PredefinedSplit
from skorch.callbacks import EarlyStopping
from torch import nn
from torch.utils.data import SubsetRandomSampler

from skfocal.balance import class_weight
from skfocal.calibration import PROBAS, Calibration, FixedPredictions, prior_offset
from skfocal.losses import (
    CrossEntropyLoss,
    CustomLoss,
    FocalLoss,
    LogitAdjustedLoss,
    SigmoidFocalLoss,
    make_loss,
)

ONES = np.ones(3)
CLASSES = np.array(["ham", "spam"])


@pytest.fixture(scope="module")
def make(make_of_few_words):
    """Return a function that makes classifiers of few words and of four updates.

    What is made of logits is compared with formulas, so that these need not be good ones.
    """
    return make_of_few_words


@pytest.fixture(scope="module")
def fitted(make):
    """Return a function that gives a fitted classifier other parameters, and shares the rest."""
    clf = make().fit(*imbalanced())

    def with_parameters(**params):
        other = object.__new__(type(clf))
        vars(other).update(vars(clf))
        return other.set_params(**params)

    return with_parameters


def kl(posterior, log_proba):
    return float((posterior * (np.log(posterior) - log_proba)).sum(1).mean())


def log_proba(loss, logits, proba, weight, shift):
    answers = Calibration(loss, np.arange(len(weight)), weight, shift, proba).answers(logits)
    return np.log(answers.predict_proba())


# -- a small network on data of a known posterior ----------------------------------------------


def known_data(n, seed):
    """Points of a line, their posterior over three uneven classes, and labels drawn from it."""
    rng = np.random.RandomState(seed)
    x = rng.uniform(-2, 2, size=n)
    posterior = softmax(np.stack([0 * x + 2.5, 2 * x + 0.5, -1.5 * x - 1.0], 1), axis=1)
    codes = (posterior.cumsum(1) < rng.uniform(size=(n, 1))).sum(1)
    return torch.tensor(x[:, None]).float(), posterior, codes


def train_small(loss, x, codes):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(1, 32), nn.Tanh(), nn.Linear(32, 3))
    optimizer = torch.optim.LBFGS(net.parameters(), max_iter=40, line_search_fn="strong_wolfe")
    target = torch.from_numpy(codes)

    def step():
        optimizer.zero_grad()
        value = loss(net(x), target)
        value.backward()
        return value

    optimizer.step(step)
    return net.eval()


@pytest.mark.parametrize("name", ["focal", "poly1_focal", "balanced_softmax"])
@pytest.mark.parametrize("alpha", [None, "balanced"])
@pytest.mark.parametrize("sampled", [False, True])
def test_a_trained_network_is_ten_times_nearer_to_the_posterior(name, alpha, sampled):
    with torch.random.fork_rng():
        x, _, codes = known_data(8_000, seed=0)
        raw = np.bincount(codes, minlength=3)
        drawn = raw
        if sampled:  # the square-root sampler
            p = (raw**-0.5)[codes]
            rows = np.random.RandomState(1).choice(len(codes), len(codes), p=p / p.sum())
            x, codes = x[rows], codes[rows]
            drawn = np.bincount(codes, minlength=3)
        alpha_c = class_weight(alpha, np.arange(3), drawn)
        loss = make_loss(
            name, gamma=2.0, label_smoothing=0.0, normalize="samples", weight=alpha_c, counts=drawn
        )
        net = train_small(loss, x, codes)
        x_test, posterior, _ = known_data(2000, seed=2)
        with torch.no_grad():
            logits = net(x_test).numpy()
    shift = drawn / raw
    implied = loss.implied_class_weight()
    weight = alpha_c * shift * (1 if implied is None else implied.numpy())
    found = {
        proba: kl(posterior, log_proba(loss, logits, proba, weight, shift)) for proba in PROBAS
    }
    assert found["natural"] < 0.005
    assert found["softmax"] > 10 * found["natural"]
    # The reweighted posterior is that of the classes at their training weights.
    there = posterior * weight
    there /= there.sum(1, keepdims=True)
    reweighted = log_proba(loss, logits, "reweighted", weight, shift)
    assert kl(there, reweighted) < 0.02


# -- temperature -------------------------------------------------------------------------------


def test_temperature_is_recovered_and_lowers_the_log_loss():
    rng = np.random.RandomState(0)
    scores = log_softmax(rng.normal(scale=2, size=(4000, 3)), axis=1)
    codes = (np.exp(scores).cumsum(1) < rng.uniform(size=(4000, 1))).sum(1)
    calibration = Calibration(CrossEntropyLoss(), np.arange(3), ONES, ONES)
    temperature = calibration.fit_temperature(3 * scores, codes, np.ones(4000))
    assert temperature == pytest.approx(3, rel=0.05)
    scaled = Calibration(CrossEntropyLoss(), np.arange(3), ONES, ONES, "softmax", temperature)
    before, after = (
        log_loss(codes, c.answers(3 * scores).predict_proba()) for c in (calibration, scaled)
    )
    assert after < before
    np.testing.assert_array_equal(scaled.answers(3 * scores).predict(), scores.argmax(1))


def test_temperature_weighs_documents_as_repetition_would():
    rng = np.random.RandomState(0)
    logits, codes = rng.normal(size=(50, 3)), rng.randint(3, size=50)
    times = rng.randint(1, 4, size=50)
    for proba in PROBAS:
        calibration = Calibration(FocalLoss(), np.arange(3), np.array([0.5, 1, 3]), ONES, proba)
        weighted = calibration.fit_temperature(logits, codes, times)
        rows = np.repeat(np.arange(50), times)
        repeated = calibration.fit_temperature(logits[rows], codes[rows], np.ones(len(rows)))
        assert weighted == pytest.approx(repeated, rel=1e-4)


def test_a_few_documents_move_the_temperature_only_a_little():
    """All of them may be right by chance; only many are a reason to trust the network more."""
    calibration = Calibration(CrossEntropyLoss(), np.arange(3), ONES, ONES)

    def temperature(n, right):
        logits, codes = np.tile([3.0, 0, 0], (n, 1)), np.full(n, 0 if right else 1)
        return calibration.fit_temperature(logits, codes, np.ones(n))

    few, some, many = (temperature(n, right=True) for n in (5, 100, 100_000))
    assert 0.9 < few < 1 and many < 0.3 < some < 0.7
    few, some, many = (temperature(n, right=False) for n in (1, 10, 100_000))
    assert 1 < few < 1.3 and 1.5 < some < 4
    assert 10 < many <= np.exp(3)


# -- through the estimator ---------------------------------------------------------------------


@pytest.mark.parametrize("proba", PROBAS)
@pytest.mark.parametrize("gamma", [0.0, 2.0])
def test_two_logits_and_one_give_the_same_probabilities_and_decisions(gamma, proba):
    weight, shift = np.array([0.4, 2.8]), np.array([0.7, 2.0])
    two = np.random.RandomState(0).normal(scale=3, size=(500, 2))
    effective = weight * shift
    softmax = Calibration(FocalLoss(gamma, weight=weight), CLASSES, effective, shift, proba)
    sigmoid = Calibration(
        SigmoidFocalLoss(gamma, weight=weight[None]),
        CLASSES[1:],
        effective[None],
        shift[None],
        proba,
    )
    ours, theirs = softmax.answers(two), sigmoid.answers(two[:, 1:] - two[:, :1])
    np.testing.assert_allclose(ours.predict_proba()[:, 1], theirs.predict_proba()[:, 0], rtol=1e-9)
    np.testing.assert_array_equal(ours.predict() == "spam", theirs.predict()[:, 0] == 1)


def test_natural_undoes_alpha(make, data):
    X, y = data
    clf = make(alpha="balanced", gamma=0.0).fit(X, y)
    softmax_proba = clf.predict_proba(X)
    np.testing.assert_allclose(softmax_proba, softmax(logits_of(clf, X).astype(float), axis=1))
    np.testing.assert_allclose(
        clf.set_params(proba="reweighted").predict_proba(X), softmax_proba, rtol=1e-6
    )
    natural = clf.set_params(proba="natural").predict_proba(X)
    expected = softmax_proba / clf.class_weight_
    np.testing.assert_allclose(natural, expected / expected.sum(1, keepdims=True), rtol=1e-6)
    np.testing.assert_array_equal(clf.predict(X), clf.classes_[natural.argmax(1)])
    odds = clf.decision_function(X)
    np.testing.assert_allclose(odds, np.log(natural[:, 1] / natural[:, 0]))


@pytest.mark.parametrize(
    ("params", "meant"),
    [
        ({}, "reweighted"),
        ({"alpha": "balanced", "normalize": "weights"}, "reweighted"),
        ({"loss": "poly1"}, "reweighted"),
        ({"label_smoothing": 0.1}, "softmax"),
        ({"loss": "ldam"}, "softmax"),
        ({"loss": "dice"}, "softmax"),
    ],
)
def test_auto_takes_the_inverse_where_it_can_be_trusted(make, data, params, meant):
    X, y = data
    clf = make(gamma=3.0, temperature="auto", train_split=0.3, **params).fit(X, y)
    assert clf.proba_ == meant
    automatic, predicted = clf.predict_proba(X), clf.predict(X)
    clf.set_params(proba=meant)
    np.testing.assert_array_equal(clf.predict_proba(X), automatic)
    np.testing.assert_array_equal(clf.set_params(proba="softmax").predict(X), predicted)


def test_natural_undoes_a_sampler_and_a_logit_adjustment_too(make, data):
    X, y = data
    sampled = make(sampler=0.5, gamma=0.0, proba="natural").fit(X, y)
    expected = (
        softmax(logits_of(sampled, X).astype(float), axis=1) / sampled.effective_class_weight_
    )
    np.testing.assert_allclose(sampled.predict_proba(X), expected / expected.sum(1, keepdims=True))

    adjusted = make(loss="balanced_softmax", proba="natural").fit(X, y)
    np.testing.assert_allclose(adjusted.effective_class_weight_, [40 / 60, 40 / 20], rtol=1e-6)
    shares = np.array([0.75, 0.25])
    expected = softmax(logits_of(adjusted, X) + np.log(shares), axis=1)
    np.testing.assert_allclose(adjusted.predict_proba(X), expected, rtol=1e-5)
    adjusted.set_params(proba="reweighted")
    expected = softmax(logits_of(adjusted, X).astype(float), axis=1)
    np.testing.assert_allclose(adjusted.predict_proba(X), expected, rtol=1e-5)


def test_gamma_alone_changes_no_decision(make, data):
    X, y = data
    clf = make(gamma=5.0, proba="softmax").fit(X, y)
    predicted = clf.predict(X)
    raw = clf.predict_proba(X).max(1)
    for proba in ("reweighted", "natural"):
        clf.set_params(proba=proba)
        np.testing.assert_array_equal(clf.predict(X), predicted)
        assert (clf.predict_proba(X).max(1) > raw).all()  # gamma leaves the softmax too even


def test_temperature_auto_is_fitted_for_each_proba_and_survives_a_pickle(make):
    X, y = imbalanced(60, 30)
    clf = make(temperature="auto", train_split=0.3).fit(X, y)
    for proba in PROBAS:
        clf.set_params(proba=proba)
        assert clf.temperature_ == clf._temperatures[proba] != 1
    again = pickle.loads(pickle.dumps(clf))
    np.testing.assert_array_equal(again.predict_proba(X), clf.predict_proba(X))
    scores = clf.set_params(temperature=2.0).decision_function(X)
    np.testing.assert_allclose(2 * scores, clf.set_params(temperature=None).decision_function(X))
    assert clf.temperature_ == 1


def test_temperature_auto_holds_documents_out_by_itself(make, data):
    clf = make(temperature="auto", max_epochs=1, batch_size=8).fit(*data)
    sizes = [batch["train_batch_size"] for batch in clf.history_[0]["batches"][:5]]
    assert sum(sizes) == 36 and "valid_score" in clf.history_[0]
    with pytest.raises(ValueError, match="temperature='auto' needs held-out documents"):
        make(temperature="auto").partial_fit(*data, classes=["ham", "spam"])


def test_the_validation_score_sees_the_same_probabilities(make, data):
    X, y = data
    clf = make(
        alpha={"ham": 1, "spam": 9},
        proba="natural",
        train_split=0.5,
        scoring="neg_log_loss",
    )
    scores = []

    def scorer(estimator, X, y):
        scores.append((X, y, estimator.predict_proba(X), estimator.predict(X)))
        return 0.0

    clf.set_params(scoring=scorer).fit(X, y)
    X_valid, _, proba, predicted = scores[-1]
    np.testing.assert_allclose(clf.predict_proba(X_valid), proba, rtol=1e-5)
    np.testing.assert_array_equal(clf.predict(X_valid), predicted)


def hinge(logits, target):
    return F.multi_margin_loss(logits, target, reduction="none")


@pytest.mark.parametrize(
    ("loss", "params"),
    [
        ("poly1", {"epsilon": 2.0}),
        ("poly1_focal", None),
        ("logit_adjusted", {"tau": 0.5}),
        ("balanced_softmax", None),
        ("ldam", {"max_margin": 0.3, "scale": 20.0}),
        ("dice", {"smooth": 0.5}),
        (hinge, None),
        (nn.CrossEntropyLoss, {"label_smoothing": 0.1}),
        (FocalLoss(3.0), None),
    ],
)
def test_every_loss_learns_through_the_estimator(make, data, loss, params):
    X, y = data
    settings = {"lr": 1e-2, "batch_size": 8, "max_epochs": 6}
    if loss == "dice":  # of each document, it does not help the rare class by itself
        settings["alpha"] = "balanced"
    clf = make(loss=loss, loss_params=params, **settings).fit(X, y)
    assert clf.score(X, y) > 0.9
    if params and not isinstance(loss, type):
        (name, value), *_ = params.items()
        assert getattr(clf.loss_, name) == value
    again = pickle.loads(pickle.dumps(clf))
    np.testing.assert_array_equal(again.predict_proba(X), clf.predict_proba(X))


def test_a_loss_without_an_inverse_gives_the_softmax_only(make, data):
    with pytest.raises(ValueError, match="proba='natural' needs a loss with an inverse.*Dice"):
        make(loss="dice", proba="natural").fit(*data)
    clf = make(loss=hinge, temperature="auto").fit(*data)
    assert isinstance(clf.loss_, CustomLoss) and clf.temperature_ != 1
    expected = softmax(logits_of(clf, data[0]) / clf.temperature_, axis=1)
    np.testing.assert_allclose(clf.predict_proba(data[0]), expected, rtol=1e-5)


# -- guards ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"gamma": 6}, "gamma=6 leaves a document"),
        ({"loss": "balanced_softmax", "alpha": "balanced"}, "all correct the imbalance"),
        ({"defer": 0.8, "max_epochs": 2}, "defer=0.8 has no effect without alpha"),
        (
            {"loss": "ldam", "defer": 0.5, "alpha": "effective", "sampler": "sqrt"},
            "sampler='sqrt' balances them from the first epoch",
        ),
        ({"loss": "logit_adjusted", "sampler": "balanced"}, "logit adjustment has no effect"),
        (
            {"early_stopping": True, "scoring": "neg_log_loss", "alpha": "balanced"},
            "early_stopping watches scoring='neg_log_loss', but",
        ),
        (
            {"proba": "natural", "normalize": "weights", "alpha": "balanced"},
            "proba='natural' is exact for a mean over samples",
        ),
        ({"proba": "natural", "sampler": "progressive"}, "the last epoch.*approximate"),
        ({"proba": "natural", "alpha": "sqrt", "defer": 0.5}, "with defer=0.5 it is approximate"),
        ({"alpha": [1, 3], "sampler": "balanced"}, "alpha and sampler all correct the imbalance"),
        ({"alpha": "balanced", "sampler": "balanced"}, "alpha='balanced' has no effect"),
        (
            {"loss": FocalLoss(weight=[1.0, 3.0]), "sampler": "balanced"},
            "alpha and sampler all correct",
        ),
        (
            {"alpha": "balanced", "sampler": "progressive", "max_epochs": 4},
            "alpha and sampler all correct the imbalance",
        ),
        ({"defer": 0.1, "alpha": "balanced"}, "defer=0.1 has no effect: it is less than half"),
        (
            {
                "early_stopping": True,
                "scoring": get_scorer("neg_log_loss"),
                "alpha": "balanced",
                "proba": "softmax",
            },
            "early_stopping watches scoring=",
        ),
        (
            {"decision": "prior", "prior": "uniform", "normalize": "weights", "alpha": "balanced"},
            "decision='prior' is exact for a mean over samples",
        ),
        ({"decision": "tuned", "scoring": "roc_auc"}, "decision='tuned' has no effect: the score"),
        (
            {"callbacks": [EarlyStopping()], "alpha": "balanced", "train_split": 0.3},
            "EarlyStopping watches 'valid_loss', which is weighted",
        ),
        (
            {"callbacks": [("x", EarlyStopping())], "loss": "balanced_softmax", "train_split": 0.3},
            "EarlyStopping watches 'valid_loss', which is weighted",
        ),
    ],
)
def test_settings_that_are_seldom_meant_warn(make, data, params, message):
    with pytest.warns(UserWarning, match=message):
        make(**params).fit(*data)


@pytest.mark.parametrize(
    "params",
    [
        {"gamma": 5},
        {"loss": "cross_entropy", "gamma": 6},
        {"loss": "balanced_softmax"},
        {"loss": "ldam", "defer": 0.5, "alpha": "effective", "max_epochs": 2},
        {"early_stopping": True, "scoring": "neg_log_loss"},
        {"early_stopping": True, "scoring": "neg_log_loss", "alpha": "sqrt", "proba": "natural"},
        {"proba": "natural", "normalize": "weights"},
        {"alpha": [1, 1], "sampler": "balanced"},
        {"alpha": [3, 1], "sampler": "balanced"},
        {"alpha": [1, 1.1], "sampler": "sqrt"},
        {"alpha": "sqrt", "sampler": "sqrt"},
        {"loss": "logit_adjusted", "loss_params": {"tau": 0.0}},
        {"loss": "logit_adjusted", "loss_params": {"tau": 0.5}, "alpha": "sqrt"},
        {"temperature": "auto", "alpha": "balanced"},
        {"alpha": "balanced", "sampler": 1.0, "defer": 0.5},
        {"gamma": 5.0},
        {"proba": "reweighted", "alpha": "balanced"},
        {"sampler": "progressive"},
        {"callbacks": [EarlyStopping()], "train_split": 0.3, "sampler": "sqrt"},
        {"callbacks": [EarlyStopping("train_loss")], "train_split": 0.3, "alpha": "balanced"},
    ],
)
def test_settings_that_are_fine_do_not_warn(make, params):
    # Twice as many of one class as of the other: what is double has to show against that.
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        make(**params).fit(*imbalanced(60, 30))


def test_logit_adjustment_counts_a_class_without_documents_as_one_document(make, data):
    X, y = data
    with pytest.warns(UserWarning, match="no document"):
        clf = make(loss="balanced_softmax", classes=["eggs", "ham", "spam"], proba="natural").fit(
            X, y
        )
    expected = LogitAdjustedLoss([1, 30, 10]).log_prior
    torch.testing.assert_close(clf.loss_.log_prior, expected)
    reweighted = softmax(logits_of(clf, X).astype(float), axis=1)
    natural = reweighted / clf.effective_class_weight_
    natural /= natural.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(clf.predict_proba(X), natural, rtol=1e-5)


def test_a_loss_of_balanced_classes_has_nothing_to_warn_of(make):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        make(loss="logit_adjusted").fit(*imbalanced(30, 30))
        make(alpha="balanced", sampler="sqrt").fit(*imbalanced(30, 30))
        callbacks = [EarlyStopping()]
        make(alpha="balanced", train_split=0.3, callbacks=callbacks).fit(*imbalanced(30, 30))


def test_the_weight_of_an_instance_is_known(make, data):
    X, y = data
    clf = make(loss=FocalLoss(2.0, weight=[1.0, 50.0])).fit(X, y)
    np.testing.assert_array_equal(clf.class_weight_, [1, 50])
    np.testing.assert_array_equal(clf.effective_class_weight_, [1, 50])
    assert clf.proba_ == "reweighted"
    np.testing.assert_array_equal(clf.predict(X), clf.classes_[logits_of(clf, X).argmax(1)])
    same = make(gamma=2.0, alpha=[1.0, 50.0]).fit(X, y)
    for proba in PROBAS:
        np.testing.assert_allclose(
            clf.set_params(proba=proba).predict_proba(X),
            same.set_params(proba=proba).predict_proba(X),
        )
    with pytest.raises(ValueError, match=r"the weight of the loss must have shape \(2,\)"):
        make(loss=FocalLoss(weight=[1.0, 2.0, 3.0])).fit(X, y)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"proba": "naturel"}, "The 'proba' parameter of BertFocalClassifier must be"),
        ({"temperature": -1.0}, "The 'temperature' parameter"),
        ({"temperature": 0.0}, "The 'temperature' parameter"),
        ({"temperature": 1e-310}, "The 'temperature' parameter"),
        ({"temperature": "foo"}, "The 'temperature' parameter"),
        ({"decision": "bogus"}, "The 'decision' parameter"),
        ({"decision": "prior", "prior": [1, 0]}, "prior must be 'uniform' or"),
    ],
)
def test_parameters_set_after_fit_are_checked(fitted, data, params, message):
    clf = fitted(**params)
    for answer in (clf.predict, clf.predict_proba, clf.decision_function):
        with pytest.raises(ValueError, match=message):
            answer(data[0])


def test_what_the_loss_does_not_allow_is_refused_after_fit_too(make, data):
    clf = make(loss="dice").fit(*data)
    with pytest.raises(ValueError, match="proba='natural' needs a loss with an inverse"):
        clf.set_params(proba="natural").predict(data[0])
    clf = make(sampler="progressive").fit(*data).set_params(proba="natural")
    with pytest.warns(UserWarning, match="proba='natural' undoes the distribution of the last"):
        clf.predict(data[0])
    clf.predict(data[0])  # once is enough


# -- decisions ---------------------------------------------------------------------------------


def test_prior_moves_the_decision_from_the_data_to_the_stated_shares(make, data):
    X, y = data
    clf = make(alpha="balanced", gamma=1.0, decision="prior", prior="uniform").fit(X, y)
    np.testing.assert_allclose(clf.class_prior_, [0.75, 0.25])
    natural = clf.set_params(proba="natural").predict_proba(X)
    expected = (natural * [1 / 0.75, 1 / 0.25]).argmax(1)
    np.testing.assert_array_equal(clf.predict(X), clf.classes_[expected])
    for prior in ({"ham": 1, "spam": 99}, [0.01, 0.99], np.array([1.0, 99.0])):
        clf.set_params(prior=prior)
        expected = (natural * [1 / 0.75, 99 / 0.25]).argmax(1)
        np.testing.assert_array_equal(clf.predict(X), clf.classes_[expected])
    # The data's own shares are the natural decision.
    clf.set_params(prior=[3, 1])
    np.testing.assert_array_equal(clf.predict(X), clf.classes_[natural.argmax(1)])
    np.testing.assert_array_equal(clf.predict_proba(X), natural)


def test_a_class_without_documents_wins_nothing_by_the_prior(make):
    """With balanced weights the uniform prior decides as the softmax does."""
    X, y = imbalanced(40, 8)
    clf = make(alpha="balanced", classes=["eggs", "ham", "spam"], max_epochs=1)
    with pytest.warns(UserWarning, match="no document"):
        clf.fit(X, y)
    np.testing.assert_allclose(clf.class_prior_, [0, 40 / 48, 8 / 48])
    softmax = clf.predict(X)
    np.testing.assert_array_equal(
        clf.set_params(decision="prior", prior="uniform").predict(X), softmax
    )
    several = prior_offset("uniform", np.arange(3), np.array([0.0, 1.0, 0.2]), True)
    np.testing.assert_allclose(several, [0, 0, np.log(4)])


@pytest.mark.parametrize(
    "prior",
    [
        [1],
        [1, 0],
        {"ham": 1, "spam": 0},
        {"ham": 1, "spam": "much"},
        [1, np.nan],
        [[1, 2]],
        [-1, 2],
        ["a", "b"],
    ],
)
def test_a_wrong_prior_is_named(make, data, prior):
    clf = make(decision="prior", prior=prior)
    with pytest.raises(ValueError, match="prior must be 'uniform' or give each of the classes"):
        clf.fit(*data)


@pytest.mark.parametrize(
    ("prior", "found"),
    [
        ({"ham": 1}, r"missing: \['spam'\]"),
        (pd.Series({"ham": 1, "spam": 1, "eggs": 1}), r"unknown: \['eggs'\]"),
    ],
)
def test_labels_of_a_prior_that_are_not_those_of_the_classes_are_named(prior, found):
    message = f"prior as a dict must give one number for each class and nothing else.*{found}"
    with pytest.raises(ValueError, match=message):
        prior_offset(prior, np.array(["ham", "spam"]), np.array([0.9, 0.1]), False)


def test_decisions_that_need_something_say_so(make, fitted, data):
    with pytest.raises(ValueError, match="decision='prior' needs prior='uniform' or shares"):
        make(decision="prior").fit(*data)
    with pytest.raises(ValueError, match="decision='prior' needs a loss with an inverse"):
        make(decision="prior", prior="uniform", loss="dice").fit(*data)
    with pytest.raises(ValueError, match="decision='tuned' needs held-out documents"):
        make(decision="tuned").partial_fit(*data, classes=["ham", "spam"])
    with pytest.raises(ValueError, match="decision='tuned' must be set before fit"):
        fitted(decision="tuned").predict(data[0])
    with pytest.raises(ValueError, match="temperature='auto' must be set before fit"):
        fitted(temperature="auto").predict(data[0])


def test_prior_of_a_series_goes_by_label_as_a_dict_does(make, data):
    shares = {"spam": 0.99, "ham": 0.01}
    clf = make(decision="prior", prior=shares, sampler="balanced").fit(*data)
    # Of the data, not of what the sampler drew.
    expected = np.log([0.01, 0.99]) - np.log([0.75, 0.25])
    np.testing.assert_allclose(clf.decision_offset_, expected)
    np.testing.assert_allclose(clf.set_params(prior=pd.Series(shares)).decision_offset_, expected)


def test_an_absent_class_is_taken_for_one_of_average_share():
    offset = prior_offset([1, 1, 2], np.arange(3), np.array([0.0, 0.5, 0.5]), False)
    np.testing.assert_allclose(offset, np.log([0.25 * 3, 0.5, 1]))


def test_the_temperature_of_reweighted_probabilities_is_fitted_to_the_documents_as_they_are():
    """A weight for each class would leave it to the few documents of the rare ones."""
    rng = np.random.RandomState(0)
    logits, codes = rng.normal(size=(200, 2)) * 3, (rng.uniform(size=200) < 0.2).astype(int)
    weight = np.array([1.0, 4.0])
    logits[:, 1] += 4 * codes
    loss = CrossEntropyLoss(weight=weight)
    calibration = Calibration(loss, np.arange(2), weight, np.ones(2), "reweighted")
    found = calibration.fit_temperature(logits, codes, np.ones(200))
    assert found > 2  # the logits are too large
    even = Calibration(CrossEntropyLoss(), np.arange(2), np.ones(2), np.ones(2))
    assert found == pytest.approx(even.fit_temperature(logits, codes, np.ones(200)), rel=1e-4)
    # Of labels, too.
    target = codes[:, None].astype(float)
    pair = np.array([[1.0, 4.0]])
    loss = SigmoidFocalLoss(0.0, weight=pair)
    several = Calibration(loss, np.arange(1), pair, np.ones((1, 2)), "reweighted")
    odds = logits[:, 1:] - logits[:, :1]
    assert several.fit_temperature(odds, target, np.ones(200)) == pytest.approx(found, rel=1e-4)


def test_the_temperature_is_not_in_the_decision():
    logits = np.array([[0.0, 1.0]])
    for decision in ("prior", "tuned"):
        answers = Calibration(
            CrossEntropyLoss(),
            np.arange(2),
            np.ones(2),
            np.ones(2),
            temperature=10.0,
            decision=decision,
            offset=np.array([0.9, 0.0]),
        ).answers(logits)
        assert answers.predict().tolist() == [1]


def test_three_documents_move_the_common_part_little():
    logits = np.array([[1.0, 0.0]] * 3)
    calibration = Calibration(CrossEntropyLoss(), np.arange(2), np.ones(2), np.ones(2))

    def score(answers):
        return answers.predict().mean()

    offset = calibration.fit_offset(logits, score, np.array([0, 0]), 3, np.array([0.0, 5.0]))
    assert abs(offset).max() <= 1.5 * 5 * 3 / 23
    many = calibration.fit_offset(logits, score, np.array([0, 0]), 3000, np.array([0.0, 5.0]))
    assert many[1] > 1


def test_documents_of_no_weight_have_no_say(make, data):
    """Held-out documents with the wrong label and weight 0: as if they were not there."""
    X, y = data
    fold = np.full(40, -1)
    fold[-16:] = 0
    wrong = y.copy()
    wrong[-8:] = np.where(y[-8:] == "ham", "spam", "ham")
    weight = np.ones(40)
    weight[-8:] = 0
    settings = {
        "decision": "tuned",
        "temperature": "auto",
        "scoring": "f1_macro",
        "lr": 1e-3,
    }
    with_them = make(**settings, train_split=PredefinedSplit(fold)).fit(X, wrong, weight)
    without = make(**settings, train_split=PredefinedSplit(fold[:-8])).fit(X[:-8], y[:-8])
    np.testing.assert_allclose(with_them.decision_offset_, without.decision_offset_)
    assert with_them.temperature_ == pytest.approx(without.temperature_, rel=1e-3)
    assert with_them.history_[-1]["valid_score"] == without.history_[-1]["valid_score"]
    with pytest.raises(ValueError, match="sample_weight must have a positive weight among the he"):
        make(train_split=PredefinedSplit(fold)).fit(X, y, (fold < 0).astype(float))


def test_a_score_that_is_no_number_is_not_the_best(make, data):
    scores = iter([np.nan, 0.2, 0.9, 0.5])
    clf = make(early_stopping=2, scoring=lambda *args: next(scores), max_epochs=4)
    with pytest.warns(UserWarning, match="scoring='score' is NaN for the held-out documents"):
        clf.fit(*data)
    assert [row["valid_score_best"] for row in clf.history_] == [True, True, True, False]


def test_of_equal_scores_the_first_epoch_is_the_best(make, data):
    clf = make(early_stopping=1, scoring=lambda *args: 0.5, max_epochs=3)
    assert [row["valid_score_best"] for row in clf.fit(*data).history_] == [True, False]


def test_a_scorer_that_cannot_is_quoted(make):
    X, y = imbalanced(20, 8)
    several = np.stack([y == "ham", y == "spam", y == "eggs"], 1).astype(int)
    several[0] = 0
    clf = make(scoring="balanced_accuracy", train_split=0.3)
    with (
        pytest.raises(ValueError, match="'balanced_accuracy' cannot .* multilabel-indicator .* If"),
        pytest.warns(UserWarning, match="no document"),
    ):
        clf.fit(X, several)


def noisy_scores(counts, seed):
    """Logits that lean to the frequent classes, and codes."""
    rng = np.random.RandomState(seed)
    codes = np.repeat(np.arange(len(counts)), counts)
    logits = rng.normal(scale=1.5, size=(len(codes), len(counts))) + 2 * np.log(counts)
    logits[np.arange(len(codes)), codes] += 4
    return logits, codes


def test_tuned_offsets_raise_the_score_they_are_tuned_for_on_new_documents():
    counts = np.array([400, 100, 30])
    ones = np.ones(3)
    calibration = Calibration(CrossEntropyLoss(), np.arange(3), ones, ones)
    logits, codes = noisy_scores(counts, seed=0)

    def score(answers):
        return f1_score(codes, answers.predict(), average="macro")

    offset = calibration.fit_offset(
        logits, score, counts, counts.sum(), -np.log(counts / counts.mean())
    )
    tuned = replace(calibration, decision="tuned", offset=offset)
    logits, codes = noisy_scores(counts, seed=1)
    assert score(tuned.answers(logits)) > score(calibration.answers(logits)) + 0.05
    assert offset[0] < offset[2]
    plain, with_offset = calibration.answers(logits), tuned.answers(logits)
    np.testing.assert_array_equal(with_offset.predict_proba(), plain.predict_proba())


def test_a_class_of_few_documents_gets_a_small_offset():
    counts = np.array([200, 2])
    calibration = Calibration(CrossEntropyLoss(), np.arange(2), np.ones(2), np.ones(2))
    logits, codes = noisy_scores(counts, seed=0)

    def score(answers):
        return (answers.predict()[codes == 1] == 1).mean()

    offset = calibration.fit_offset(logits, score, counts, 202, np.zeros(2))
    assert abs(offset[1]) <= 3 * 2 / 22
    constant = calibration.fit_offset(
        logits, lambda answers: float(len(answers.predict())), counts, 202, np.ones(2)
    )
    np.testing.assert_array_equal(constant, 0)


def test_classes_without_held_out_documents_get_the_common_part_only():
    counts = np.array([200, 50, 5])
    calibration = Calibration(CrossEntropyLoss(), np.arange(3), np.ones(3), np.ones(3))
    logits, codes = noisy_scores(counts, seed=0)

    def score(answers):
        return f1_score(codes, answers.predict(), average="macro")

    direction = -np.log(counts / counts.mean())
    offset = calibration.fit_offset(logits, score, np.array([200, 50, 0]), 250, direction)
    tau = offset[2] / direction[2] / (250 / 270)
    assert 0 < tau < 1.6 and tau == pytest.approx(round(4 * tau) / 4)
    steps = (offset - tau * 250 / 270 * direction)[:2] / (np.array([200, 50]) / np.array([220, 70]))
    np.testing.assert_allclose(steps, np.round(4 * steps) / 4, atol=1e-9)


def test_a_scorer_that_warns_at_each_trial_is_not_heard():
    scores = np.zeros((4, 2))
    calibration = Calibration(CrossEntropyLoss(), np.arange(2), np.ones(2), np.ones(2))

    def score(answers):
        return precision_score([0, 0, 1, 1], answers.predict())

    offset = calibration.fit_offset(scores, score, np.array([2, 2]), 4, np.zeros(2))
    assert offset[1] > offset[0]


def test_tuned_through_the_estimator(make):
    X, y = imbalanced(60, 30)
    clf = make(decision="tuned", train_split=0.3).fit(X, y)
    scores = log_softmax(logits_of(clf, X).astype(float), axis=1) + clf.decision_offset_
    np.testing.assert_array_equal(clf.predict(X), clf.classes_[scores.argmax(1)])
    again = pickle.loads(pickle.dumps(clf))
    np.testing.assert_array_equal(again.predict(X), clf.predict(X))
    held_out = make(decision="tuned").fit(X, y)
    assert "valid_score" in held_out.history_[-1]


def test_the_offsets_are_tuned_to_the_held_out_documents(make):
    """As by hand: their logits, labels and counts, the direction of the training's shares."""
    X, y = imbalanced(60, 20)
    y = np.random.RandomState(0).permutation(y)  # nothing can be learned, only the shares
    fold = np.where(np.arange(80) < 30, 0, -1)
    params = {"decision": "tuned", "train_split": PredefinedSplit(fold), "lr": 1e-4}
    codes = (y[:30] == "spam").astype(int)

    def score(answers, *args):  # recall of the rare class
        return (answers.predict()[codes == 1] == "spam").mean()

    clf = make(**params, scoring=score).fit(X, y)
    shares = (y[30:] == np.array([["ham"], ["spam"]])).mean(1)
    plain = Calibration(clf.loss_, CLASSES, np.ones(2), np.ones(2))
    logits = logits_of(clf, X[:30])
    direction = prior_offset("uniform", CLASSES, shares, False)
    expected = plain.fit_offset(logits, score, np.bincount(codes), 30, direction)
    assert np.abs(expected).max() > 0.1
    np.testing.assert_allclose(clf.decision_offset_, expected)


def test_decisions_of_several_labels(make):
    rng = np.random.RandomState(0)
    y = (rng.uniform(size=(80, 2)) < [0.2, 0.6]).astype(int)
    words = [("soup bread", "of the"), ("goal team", "and a")]
    X = [" ".join(pair[1 - on] for pair, on in zip(words, row, strict=True)) for row in y]
    clf = make(decision="tuned", train_split=0.4).fit(X, y)
    np.testing.assert_array_equal(clf.predict(X), logits_of(clf, X) + clf.decision_offset_ > 0)
    clf = make(decision="prior", prior="uniform", proba="natural").fit(X, y)
    np.testing.assert_allclose(clf.class_prior_, y.mean(0))
    odds = clf.decision_function(X) - np.log(y.mean(0) / (1 - y.mean(0)))
    np.testing.assert_array_equal(clf.predict(X), odds > 0)
    with pytest.raises(ValueError, match="a positive share below 1"):
        clf.set_params(prior=[1, 2]).predict(X)


@pytest.mark.filterwarnings("ignore:alpha='balanced' has no effect")
@pytest.mark.parametrize("alpha", [None, "balanced"])
@pytest.mark.parametrize("proba", ["auto", "natural", "reweighted"])
def test_a_class_that_the_sampler_misses_has_probabilities_all_the_same(make, data, alpha, proba):
    X, y = data

    def only_ham(y):
        return SubsetRandomSampler(np.flatnonzero(y == "ham"))

    clf = make(alpha=alpha, sampler=only_ham, proba=proba, max_epochs=1)
    with pytest.warns(UserWarning, match=r"sampler drew no document of the classes \['spam'\]"):
        clf.fit(X, y)
    p = clf.predict_proba(X)
    assert np.isfinite(p).all() and np.isfinite(clf.effective_class_weight_).all()
    np.testing.assert_allclose(p.sum(axis=1), 1, rtol=1e-6)


def test_fixed_answers_can_be_printed_and_asked_for_their_parameters():
    answers = FixedPredictions(np.array(["a", "b"]), np.zeros((3, 2)), False)
    assert answers.get_params()["classes"].tolist() == ["a", "b"]
    assert repr(answers).startswith("FixedPredictions(classes=array(['a', 'b']")
