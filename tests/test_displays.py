"""The drawn data of each display, without a screen."""

import matplotlib
import numpy as np
import pytest
from conftest import imbalanced
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score, confusion_matrix, precision_recall_curve
from sklearn.pipeline import make_pipeline

from skfocal import (
    ClassLossDisplay,
    ClassPrecisionRecallDisplay,
    FrequencyConfusionMatrixDisplay,
    ReliabilityDisplay,
    TrainingHistoryDisplay,
    expected_calibration_error,
)

matplotlib.use("Agg")
import matplotlib.pyplot as plt  # noqa: E402


@pytest.fixture(autouse=True)
def close():
    yield
    plt.close("all")


@pytest.fixture(scope="module")
def linear():
    """A fitted linear model, documents with some wrong labels, and their labels."""
    X, y = imbalanced(60, 30)
    y = y.copy()
    y[::7] = np.where(y[::7] == "ham", "spam", "ham")
    y[::11] = "eggs"
    return make_pipeline(TfidfVectorizer(), LogisticRegression()).fit(X, y), X, y


def test_reliability_draws_the_bins_that_have_documents(linear):
    model, X, y = linear
    display = ReliabilityDisplay.from_estimator(model, X, y, n_bins=10)
    proba = model.predict_proba(X)
    assert display.ece == pytest.approx(expected_calibration_error(y, proba, n_bins=10))
    confidence = proba.max(1)
    right = model.classes_[proba.argmax(1)] == y
    x, height = display.line_.get_data()
    filled = [b for b in range(10) if (np.floor(confidence * 10) == b).any()]
    assert len(x) == len(filled) > 1
    for k, b in enumerate(filled):
        rows = np.floor(confidence * 10) == b
        assert (x[k], height[k]) == pytest.approx((confidence[rows].mean(), right[rows].mean()))
    assert f"Pipeline ECE {display.ece:.3f}" == display.line_.get_label()
    assert len(display.gap_.get_segments()) == len(filled)


def test_reliability_draws_several_on_one_axes(linear):
    model, X, y = linear
    first = ReliabilityDisplay.from_estimator(model, X, y, name="a")
    second = ReliabilityDisplay.from_predictions(y, model.predict_proba(X), ax=first.ax_)
    assert second.ax_ is first.ax_ and second.figure_ is first.figure_
    assert second.line_.get_label() == f"ECE {first.ece:.3f}"


def test_precision_recall_of_each_class_most_frequent_first(linear):
    model, X, y = linear
    display = ClassPrecisionRecallDisplay.from_estimator(model, X, y)
    counts = {label: (y == label).sum() for label in model.classes_}
    assert list(display.lines_) == sorted(counts, key=lambda label: -counts[label])
    for j, label in enumerate(model.classes_):
        scores = model.predict_proba(X)[:, j]
        precision, recall, _ = precision_recall_curve(y == label, scores)
        drawn = display.lines_[label].get_data()
        np.testing.assert_array_equal(drawn[0], recall)
        np.testing.assert_array_equal(drawn[1], precision)
        expected = average_precision_score(y == label, scores)
        assert display.average_precision[label] == pytest.approx(expected)
        assert f"{label} ({counts[label]}) AP {expected:.2f}" == display.lines_[label].get_label()


def test_a_class_without_documents_has_no_curve(linear):
    model, X, y = linear
    rows = np.flatnonzero(y != "eggs")
    display = ClassPrecisionRecallDisplay.from_estimator(model, [X[i] for i in rows], y[rows])
    assert set(display.lines_) == {"ham", "spam"}
    with pytest.raises(ValueError, match="proba must have one column for each"):
        ClassPrecisionRecallDisplay.from_predictions(y, np.ones((len(y), 2)))


def test_confusion_matrix_is_ordered_by_frequency(linear):
    model, X, y = linear
    display = FrequencyConfusionMatrixDisplay.from_estimator(model, X, y)
    labels, counts = np.unique(y, return_counts=True)
    order = labels[np.argsort(-counts)]
    assert list(display.display_labels) == list(order)
    expected = confusion_matrix(y, model.predict(X), labels=order)
    np.testing.assert_array_equal(display.confusion_matrix, expected)
    np.testing.assert_array_equal(display.im_.get_array(), expected)
    given = FrequencyConfusionMatrixDisplay.from_predictions(y, y, labels=labels)
    assert list(given.display_labels) == list(labels)


def test_history_draws_losses_and_score(make, data):
    clf = make(train_split=0.3, max_epochs=3).fit(*data)
    display = TrainingHistoryDisplay.from_estimator(clf)
    assert set(display.lines_) == {"train_loss", "valid_loss", "f1_macro"}
    for name, key in [("train_loss",) * 2, ("valid_loss",) * 2, ("f1_macro", "valid_score")]:
        x, height = display.lines_[name].get_data()
        np.testing.assert_array_equal(x, [1, 2, 3])
        np.testing.assert_array_equal(height, [row[key] for row in clf.history_])
    plain = TrainingHistoryDisplay.from_estimator(make().fit(*data))
    assert set(plain.lines_) == {"train_loss"} and plain.score_ax_ is None


def test_class_loss_draws_documents_and_the_loss_of_each_epoch(make, data):
    X, y = data
    clf = make(max_epochs=3, alpha="balanced").fit(X, y)
    display = ClassLossDisplay.from_estimator(clf)
    assert display.labels == ["ham", "spam"] and display.losses.shape == (3, 2)
    heights = {c: [bar.get_height() for bar in bars] for c, bars in display.bars_.items()}
    np.testing.assert_allclose(heights["ham"], [0.75, *clf.class_loss_[:, 0]])
    np.testing.assert_allclose(heights["spam"], [0.25, *clf.class_loss_[:, 1]])
    bottoms = [bar.get_y() for bar in display.bars_["spam"]]
    np.testing.assert_allclose(bottoms, heights["ham"])
    _, ax = plt.subplots()
    assert display.plot(ax=ax).ax_ is ax


def test_rare_classes_share_a_bar(make):
    X = [f"word{c} text" for c in range(6) for _ in range(8 - c)]
    y = np.repeat([f"c{c}" for c in range(6)], 8 - np.arange(6))
    clf = make(max_epochs=1).fit(X, y)
    display = ClassLossDisplay.from_estimator(clf, top=3)
    assert display.labels == ["c0", "c1", "c2", "3 others"]
    np.testing.assert_allclose(display.losses[:, 3], clf.class_loss_[:, 3:].sum(1))
    np.testing.assert_allclose(display.documents, np.array([8, 7, 6, 5 + 4 + 3]) / 33)
    assert ClassLossDisplay.from_estimator(clf, top=5).labels[-1] == "c5"
