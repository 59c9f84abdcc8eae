"""The last layer fitted once more: a logistic regression, and what follows from it."""

import pickle
from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import imbalanced
from scipy.special import expit, log_softmax
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV, PredefinedSplit
from sklearn.preprocessing import MultiLabelBinarizer
from tiny_encoders import FAMILIES

from skfocal import (
    BertFocalClassifier,
    ClassLossDisplay,
    EffectiveNumber,
    TrainingHistoryDisplay,
    Windows,
)
from skfocal._encoder import module
from skfocal._encoder.head import head_of
from skfocal._estimator import build, refit
from skfocal._estimator.fitted_model import FittedModel, plain_calibration
from skfocal._estimator.refit import fit_linear


@pytest.fixture
def features():
    """Sixty vectors in three classes of 40, 15 and 5."""
    rng = np.random.RandomState(0)
    codes = np.repeat([0, 1, 2], [40, 15, 5])
    centres = rng.normal(size=(3, 8))
    return (centres[codes] + rng.normal(size=(60, 8))).astype(np.float32), codes


def gradient_of(features, codes, weight, weights, biases):
    """Return the gradient of the weighted log-loss plus the penalty, at float64."""
    scale = np.sqrt(np.mean(features.astype(float) ** 2))
    weight = weight / weight.mean()
    W = torch.tensor(weights * scale, requires_grad=True)
    b = torch.tensor(biases, requires_grad=True)
    logits = torch.from_numpy(features / scale).double() @ W.T + b
    each = torch.nn.functional.cross_entropy(logits, torch.from_numpy(codes), reduction="none")
    loss = refit._C * (torch.from_numpy(weight) * each).sum() + (W**2).sum() / 2
    loss.backward()
    return W.grad.numpy(), b.grad.numpy()


@pytest.mark.parametrize("class_weight", [np.ones(3), np.array([0.5, 4 / 3, 4.0])], ids=str)
def test_the_layer_is_where_the_weighted_loss_is_least(features, class_weight):
    X, codes = features
    weight = np.random.RandomState(1).uniform(0.5, 2, size=60)
    weights, biases = fit_linear(X, codes, weight, class_weight)
    inner, bias = gradient_of(X, codes, weight * class_weight[codes], weights, biases)
    total = refit._C * 60
    assert abs(inner).max() < 1e-3 * total and abs(bias).max() < 1e-3 * total


def test_two_classes_share_the_log_odds(features):
    X, codes = features
    codes = np.minimum(codes, 1)
    weights, biases = fit_linear(X, codes, np.ones(60), np.ones(2))
    assert np.array_equal(weights[0], -weights[1]) and biases[0] == -biases[1]
    # With free biases, the mean probability of a class is its share.
    proba = np.exp(log_softmax(X @ weights.T + biases, axis=1))
    np.testing.assert_allclose(proba.mean(0), [40 / 60, 20 / 60], atol=1e-3)
    assert proba[codes == 1, 1].mean() > proba[codes == 0, 1].mean() + 0.05


def test_the_scale_of_the_features_does_not_matter(features):
    X, codes = features
    weights, biases = fit_linear(X, codes, np.ones(60), np.ones(3))
    larger = fit_linear(64 * X, codes, np.ones(60), np.ones(3))
    np.testing.assert_allclose(64 * larger[0], weights, atol=1e-4)
    np.testing.assert_allclose(larger[1], biases, atol=1e-4)


def test_a_document_without_weight_is_not_there(features):
    X, codes = features
    weight = (np.arange(60) % 3 > 0).astype(float)
    expected = fit_linear(X[weight > 0], codes[weight > 0], np.ones(40), np.ones(3))
    found = fit_linear(X, codes, weight, np.ones(3))
    # The scale of the features is that of all.
    np.testing.assert_allclose(found[0], expected[0], atol=0.02)


@pytest.mark.parametrize("frequent", [0, 3], ids=["two present", "three present"])
def test_a_class_without_documents_is_as_rare_as_half_a_document(features, frequent):
    X, codes = features
    codes = np.where(codes == 1, 4, np.where(codes == 0, np.arange(60) % 2 * frequent, codes))
    weights, biases = fit_linear(X, codes, np.ones(60), np.ones(5))
    assert not weights[1].any()
    # Also of a document that is like none.
    unlike = np.vstack([X, 0 * X[:1], 1e3 * X])
    proba = np.exp(log_softmax(unlike @ weights.T + biases, axis=1))[:, 1]
    assert 0 < proba[:60].max() and proba.max() <= 0.5 / 60 * (1 + 1e-4)
    assert proba[60] > 0.25 / 60


def test_labels_are_fitted_one_by_one(features):
    X, codes = features
    indicator = np.eye(3, dtype=int)[codes]
    class_weight = np.array([[1.0, 1.0], [0.7, 2.0], [0.5, 6.0]])
    weights, biases = fit_linear(X, indicator, np.ones(60), class_weight)
    for j in range(3):
        alone = fit_linear(X, indicator[:, j], np.ones(60), class_weight[j])
        np.testing.assert_allclose(weights[j], alone[0][1] - alone[0][0], atol=1e-6)


def test_a_label_of_all_or_no_documents_has_its_log_odds(features):
    X, codes = features
    indicator = np.stack([np.ones(60), np.zeros(60), codes == 1], axis=1).astype(int)
    weights, biases = fit_linear(X, indicator, np.ones(60), np.ones((3, 2)))
    assert not weights[:2].any() and weights[2].any()
    np.testing.assert_allclose(expit(biases[:2]), [60.5 / 61, 0.5 / 61])


# -- in the estimator ----------------------------------------------------------------------


def test_the_encoder_and_the_history_are_those_of_the_training(make_of_few_words):
    X, y = imbalanced()
    plain = make_of_few_words().fit(X, y)
    again = make_of_few_words(refit_head="balanced").fit(X, y)
    assert np.array_equal(plain.transform(X), again.transform(X))
    assert again.history_[:, "train_loss"] == plain.history_[:, "train_loss"]
    linear = getattr(*head_of(again.net_.plain_module().model))
    codes = np.searchsorted(again.classes_, y)
    expected = fit_linear(again.transform(X), codes, np.ones(40), np.array([40 / 60, 40 / 20]))
    np.testing.assert_allclose(linear.weight.detach(), expected[0], atol=1e-5)
    np.testing.assert_allclose(linear.bias.detach(), expected[1], atol=1e-5)


@pytest.mark.parametrize("params", [{}, {"loss": "ldam"}, {"loss": "dice", "alpha": "balanced"}])
def test_probabilities_undo_the_weights_of_the_refit(make_of_few_words, params):
    """Whatever the loss of the training was, and even if it has no inverse."""
    X, y = imbalanced()
    clf = make_of_few_words(refit_head="balanced", sampler="sqrt", **params).fit(X, y)
    np.testing.assert_allclose(clf.class_weight_, [40 / 60, 40 / 20])
    np.testing.assert_allclose(clf.effective_class_weight_, clf.class_weight_)
    logits = FittedModel.of(clf).logits(X).astype(float)
    np.testing.assert_allclose(np.log(clf.predict_proba(X)), log_softmax(logits, axis=1), atol=1e-6)
    natural = clone(clf)
    natural = pickle.loads(pickle.dumps(clf)).set_params(proba="natural")
    shifted = log_softmax(logits - np.log(clf.class_weight_), axis=1)
    np.testing.assert_allclose(np.log(natural.predict_proba(X)), shifted, atol=1e-6)


@pytest.mark.parametrize("weights", ["sqrt", EffectiveNumber(0.9), {"ham": 1.0, "spam": 2.5}])
def test_weights_are_given_as_alpha_is(make_of_few_words, weights):
    X, y = imbalanced()
    clf = make_of_few_words(max_epochs=1, refit_head=weights).fit(X, y)
    as_alpha = make_of_few_words(max_epochs=1, alpha=weights).fit(X, y)
    np.testing.assert_allclose(clf.class_weight_, as_alpha.class_weight_)


def test_files_have_the_same_bits(make_of_few_words, tmp_path):
    X, y = imbalanced()
    clf = make_of_few_words(refit_head=EffectiveNumber(0.9), loss="ldam").fit(X, y)
    clf.save_pretrained(tmp_path / "model")
    again = BertFocalClassifier.from_pretrained(tmp_path / "model")
    assert again.refit_head.beta == 0.9
    assert np.array_equal(again.predict_proba(X), clf.predict_proba(X))
    assert np.array_equal(pickle.loads(pickle.dumps(clf)).predict_proba(X), clf.predict_proba(X))


def test_a_grid_tunes_it(make_of_few_words):
    X, y = imbalanced()
    grid = {"refit_head": [None, "balanced", "effective"]}
    search = GridSearchCV(make_of_few_words(max_epochs=1), grid, cv=2).fit(X, y)
    assert len(search.cv_results_["params"]) == 3
    nested = make_of_few_words(refit_head="effective").set_params(refit_head__beta=0.5)
    assert nested.refit_head == EffectiveNumber(0.5)


def test_several_labels(make_of_few_words):
    X, y = imbalanced()
    y = [["mail"] if label == "ham" else ["mail", "spam"] for label in y]
    clf = make_of_few_words(refit_head="balanced", max_epochs=4).fit(X, y)
    truth = MultiLabelBinarizer().fit_transform(y)
    assert (clf.predict(X) == truth).mean() > 0.9
    np.testing.assert_allclose(clf.class_weight_, [[1, 1], [40 / 60, 40 / 20]])


def test_it_is_fitted_to_the_training_documents_with_their_weights(make_of_few_words):
    X, y = imbalanced(60, 20)
    weight = np.random.RandomState(0).uniform(0.5, 2, size=80)
    halves = PredefinedSplit(np.where(np.arange(80) < 60, -1, 0))
    calibrated = {"train_split": halves, "temperature": "auto", "proba": "natural"}
    clf = make_of_few_words(refit_head="balanced", **calibrated)
    clf.fit(X, y, sample_weight=weight)
    codes = np.searchsorted(clf.classes_, y)
    expected = fit_linear(clf.transform(X[:60]), codes[:60], weight[:60], clf.class_weight_)
    linear = getattr(*head_of(clf.net_.plain_module().model))
    np.testing.assert_allclose(linear.weight.detach(), expected[0], atol=1e-5)
    # The rest calibrates the new layer.
    calibration = plain_calibration(clf)
    held_out = FittedModel.of(clf).logits(X[60:])
    for proba in ("softmax", "natural"):
        found = replace(calibration, proba=proba).fit_temperature(
            held_out, codes[60:], weight[60:] / weight[:60].mean()
        )
        assert clf._temperatures[proba] == pytest.approx(found, rel=1e-3)


def test_adapters_are_merged_before(make_of_few_words):
    X, y = imbalanced()
    peft = {"peft_type": "LORA", "r": 4}
    clf = make_of_few_words(refit_head="balanced", peft=peft, max_epochs=4).fit(X, y)
    codes = np.searchsorted(clf.classes_, y)
    expected = fit_linear(clf.transform(X), codes, np.ones(40), clf.class_weight_)
    linear = getattr(*head_of(clf.net_.plain_module().model))
    np.testing.assert_allclose(linear.weight.detach(), expected[0], atol=1e-5)


@pytest.mark.parametrize("family", ["bart", "t5"])
def test_encoders_with_a_decoder_are_fitted(family, tmp_path):
    FAMILIES[family](tmp_path)
    X, y = imbalanced(6, 4)
    clf = BertFocalClassifier(tmp_path, max_epochs=1, refit_head="balanced", random_state=0)
    assert np.isfinite(clf.fit(X, y).predict_proba(X)).all()


def test_second_texts_are_fitted(make_of_few_words):
    X, y = imbalanced()
    clf = make_of_few_words(max_epochs=1, refit_head="balanced").fit([("az", x) for x in X], y)
    assert clf.predict([("az", "win money")]).shape == (1,)


def test_only_the_proportions_of_weights_matter(features):
    X, codes = features
    weights, biases = fit_linear(X, codes, np.ones(60), np.array([0.5, 1.0, 4.0]))
    larger = fit_linear(X, codes, np.ones(60), np.array([50.0, 100.0, 400.0]))
    np.testing.assert_allclose(larger[0], weights, atol=1e-4)


def test_answers_that_only_the_second_fit_allows_may_be_asked_for(make_of_few_words):
    X, y = imbalanced(60, 20)
    settings = {"loss": "dice", "alpha": "balanced", "refit_head": "balanced"}
    clf = make_of_few_words(proba="natural", train_split=0.25, **settings).fit(X, y)
    clf.predict_proba(X)
    make_of_few_words(decision="prior", prior="uniform", **settings).fit(X, y).predict(X)


def test_warnings_are_about_the_second_fit(make_of_few_words):
    X, y = imbalanced(60, 20)
    # Inexact, if it were not for the second fit.
    first = {"alpha": "balanced", "normalize": "weights", "defer": 0.5}
    clf = make_of_few_words(refit_head="sqrt", proba="natural", **first).fit(X, y)
    clf.set_params(proba="reweighted").predict_proba(X)
    clf.set_params(proba="natural").predict_proba(X)
    with pytest.warns(UserWarning) as warned:  # without the second fit
        make_of_few_words(proba="natural", **first).fit(X, y)
    messages = " ".join(str(each.message) for each in warned)
    assert "exact for a mean over samples" in messages and "with defer=0.5" in messages


def test_set_output_and_reports_of_no_epochs(make_of_few_words, tmp_path):
    X, y = imbalanced()
    clf = make_of_few_words(max_epochs=0, refit_head="balanced").set_output(transform="pandas")
    clf.fit(X, y).report(X, y).save(tmp_path / "report.html")
    for display in (TrainingHistoryDisplay, ClassLossDisplay):
        with pytest.raises(ValueError, match="no epochs to draw"):
            display.from_estimator(clf)
    clf.save_pretrained(tmp_path / "model")
    again = BertFocalClassifier.from_pretrained(tmp_path / "model")
    assert np.array_equal(again.transform(X), clf.transform(X).to_numpy())
    assert "refit_head='balanced'" in (tmp_path / "model" / "README.md").read_text()


def test_windows_are_fitted_by_their_mean(make_of_few_words):
    X, y = imbalanced()
    X = [f"{text} {text} {text}" for text in X]
    windows = Windows(stride=0, pooling="mean")
    clf = make_of_few_words(max_length=8, long_documents=windows, refit_head="balanced").fit(X, y)
    linear = getattr(*head_of(clf.net_.plain_module().model))
    with torch.no_grad():
        expected = linear(torch.from_numpy(clf.transform(X)))
    np.testing.assert_allclose(FittedModel.of(clf).logits(X), expected, atol=1e-5)


@pytest.fixture
def without_biases(monkeypatch):
    """Let heads have no biases, as those of some models."""

    def load_module(*args, **kwargs):
        loaded = module.load_module(*args, **kwargs)
        getattr(*head_of(loaded.model)).bias = None
        return loaded

    monkeypatch.setattr(build, "load_module", load_module)


def test_a_layer_without_biases_is_fitted_without(make_of_few_words, without_biases):
    X, y = imbalanced()
    clf = make_of_few_words(refit_head="balanced").fit(X, y)
    codes, features = np.searchsorted(clf.classes_, y), clf.transform(X)
    expected = fit_linear(features, codes, np.ones(40), clf.class_weight_, bias=False)
    linear = getattr(*head_of(clf.net_.plain_module().model))
    np.testing.assert_allclose(linear.weight.detach(), expected[0], atol=1e-5)
    assert linear.bias is None and not expected[1].any()


@pytest.mark.filterwarnings("ignore:y has no document of 1 declared")
@pytest.mark.parametrize("several", [False, True], ids=["classes", "labels"])
def test_a_layer_without_biases_needs_each_class(make_of_few_words, without_biases, several):
    X, y = imbalanced()
    if several:
        y = [["mail"] if label == "ham" else ["mail", "spam"] for label in y]
    clf = make_of_few_words(
        refit_head="balanced", classes=None if several else ["ham", "spam", "x"]
    )
    with pytest.raises(ValueError, match="refit_head needs documents of each class"):
        clf.fit(X, y)


# -- the encoder as it is ------------------------------------------------------------------


def test_without_epochs_the_encoder_stays_as_it_was(make_of_few_words, few_words, tmp_path):
    X, y = imbalanced()
    clf = make_of_few_words(pooling="mean", max_epochs=0, refit_head="balanced").fit(X, y)
    assert clf.history_ == [] and clf.class_loss_.shape == (0, 2)
    assert clf.score(X, y) > 0.9
    other = make_of_few_words(pooling="mean", max_epochs=1, lr=1e-30, refit_head="balanced")
    np.testing.assert_allclose(clf.transform(X), other.fit(X, y).transform(X), atol=1e-6)
    clf.save_pretrained(tmp_path / "model")
    again = BertFocalClassifier.from_pretrained(tmp_path / "model")
    assert np.array_equal(again.predict_proba(X), clf.predict_proba(X))


def test_without_epochs_no_document_is_kept_and_all_is_told(make_of_few_words, capsys):
    X, y = imbalanced()
    held_out = {"train_split": 0.25, "temperature": "auto", "proba": "natural"}
    clf = make_of_few_words(max_epochs=0, refit_head="balanced", verbose=1, **held_out).fit(X, y)
    assert clf.net_.train_split is None  # it holds the documents
    assert capsys.readouterr().out == "The head of the model is new.\n"


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"refit_head": None}, "max_epochs must be at least 1, or 0 with refit_head"),
        ({"early_stopping": True}, "early_stopping needs epochs, and max_epochs is 0"),
        ({"defer": 0.5}, "defer needs epochs, and max_epochs is 0"),
    ],
)
def test_no_epochs_are_refused_where_they_are_needed(make_of_few_words, params, message):
    clf = make_of_few_words(**{"max_epochs": 0, "refit_head": "balanced", **params})
    with pytest.raises(ValueError, match=message):
        clf.fit(*imbalanced())


# -- refused -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"refit_head": "balance"}, "refit_head takes what alpha takes: alpha must be"),
        ({"refit_head": True}, "refit_head takes what alpha takes"),
        (
            {"refit_head": "balanced", "long_documents": "windows"},
            r"set long_documents=Windows\(pooling='mean'\). Got pooling='logsumexp'",
        ),
    ],
)
def test_what_cannot_be_fitted_is_refused_before_the_model_is_read(params, message):
    clf = BertFocalClassifier("no such model", **params)
    with pytest.raises(ValueError, match=message):
        clf.fit(*imbalanced())


def test_a_head_on_every_token_is_refused_before_the_training(tmp_path):
    FAMILIES["gpt2"](tmp_path)
    seen = []
    callback = type("Seen", (pytest.importorskip("skorch").callbacks.Callback,), {})()
    callback.on_train_begin = lambda net, **kwargs: seen.append(net)
    clf = BertFocalClassifier(tmp_path, refit_head="balanced", callbacks=[callback])
    with pytest.raises(ValueError, match="set pooling='mean' or 'last'"):
        clf.fit(*imbalanced(6, 4))
    assert not seen


@pytest.mark.filterwarnings("ignore:y has no document of 1 declared")
def test_a_single_class_is_refused(make_of_few_words):
    clf = make_of_few_words(refit_head="balanced", classes=["ham", "spam"])
    with pytest.raises(ValueError, match="refit_head needs documents of at least two classes"):
        clf.fit(["lunch"] * 4, ["ham"] * 4)


def test_chunks_are_refused(make_of_few_words):
    clf = make_of_few_words(refit_head=np.array([1.0, 2.0]))
    with pytest.raises(ValueError, match="partial_fit needs refit_head=None"):
        clf.partial_fit(*imbalanced(), classes=["ham", "spam"])


def test_documents_without_weight_leave_the_head_as_it_is(make, data):
    X, y = data
    settings = {"refit_head": "balanced", "max_epochs": 0, "classes": ["ham", "spam", "zoo"]}
    settings["proba"] = "softmax"
    with pytest.warns(UserWarning, match="no document of 1 declared"):
        clf = make(**settings).fit(X, y)
        weight = np.repeat([1.0, 0.0], [len(y), 5 * len(y)])
        other = make(**settings).fit(X * 6, np.tile(y, 6), sample_weight=weight)
    np.testing.assert_allclose(other.predict_proba(X), clf.predict_proba(X), rtol=1e-4)
