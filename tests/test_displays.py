"""The drawn data of each display, without a screen."""

import matplotlib
import numpy as np
import pandas as pd
import pytest
from conftest import imbalanced
from scipy import sparse
from sklearn.exceptions import DataConversionWarning
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score, confusion_matrix, precision_recall_curve
from sklearn.pipeline import make_pipeline
from sklearn.tree import DecisionTreeClassifier

from skfocal import (
    ClassLossDisplay,
    ClassPrecisionRecallDisplay,
    ConfusedPairsDisplay,
    FeatureMapDisplay,
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
    ends = [segment[:, 1].tolist() for segment in display.gap_.get_segments()]
    np.testing.assert_allclose(ends, np.stack([x, height], 1))  # from the diagonal to the point
    np.testing.assert_array_equal(display.ref_line_.get_data(), [[0, 1], [0, 1]])
    assert display.ax_.get_xlabel() == "confidence" and display.ax_.get_ylabel() == "accuracy"
    assert len(display.ax_.get_legend().get_texts()) == 1


def test_reliability_draws_several_on_one_axes(linear):
    model, X, y = linear
    first = ReliabilityDisplay.from_estimator(model, X, y, name="a")
    second = ReliabilityDisplay.from_predictions(y, model.predict_proba(X), ax=first.ax_)
    assert second.ax_ is first.ax_ and second.figure_ is first.figure_
    assert second.line_.get_label() == f"ECE {first.ece:.3f}"
    third = ReliabilityDisplay.from_estimator(model, X, y, ax=first.ax_, color="red", marker="o")
    assert third.ax_ is first.ax_
    assert (third.line_.get_color(), third.line_.get_marker()) == ("red", "o")


def test_reliability_takes_the_classes_of_the_estimator(linear):
    model, X, y = linear
    rows = np.flatnonzero(y != "eggs")
    display = ReliabilityDisplay.from_estimator(model, [X[i] for i in rows], y[rows])
    assert display.counts.sum() == len(rows)


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
        assert display.lines_[label].get_drawstyle() == "steps-post"
    assert display.ax_.get_xlabel() == "recall" and display.ax_.get_ylabel() == "precision"
    again = ClassPrecisionRecallDisplay.from_estimator(model, X, y, ax=display.ax_, linewidth=5)
    assert again.ax_ is display.ax_
    assert {line.get_linewidth() for line in again.lines_.values()} == {5}


def test_precision_recall_is_weighted(linear):
    model, X, y = linear
    weight = np.arange(len(y)) % 3
    display = ClassPrecisionRecallDisplay.from_estimator(model, X, y, sample_weight=weight)
    expected = average_precision_score(
        y == "spam", model.predict_proba(X)[:, 2], sample_weight=weight
    )
    assert display.average_precision["spam"] == pytest.approx(expected)


def test_of_many_classes_the_frequent_ones_are_named():
    y = np.repeat(np.arange(20), np.arange(20, 0, -1))
    proba = np.random.RandomState(0).dirichlet(np.ones(20), size=len(y))
    display = ClassPrecisionRecallDisplay.from_predictions(y, proba, top=5)
    names = [text.get_text() for text in display.ax_.get_legend().get_texts()]
    assert [name.split()[0] for name in names] == ["0", "1", "2", "3", "4", "15"]
    assert names[-1] == "15 others" and len(display.lines_) == 20
    matrix = FrequencyConfusionMatrixDisplay.from_predictions(y, proba.argmax(1))
    assert matrix.text_ is None and matrix.figure_.get_size_inches()[0] > 6
    assert FrequencyConfusionMatrixDisplay.from_predictions(y % 15, y % 15).text_ is not None


def test_a_class_without_documents_has_no_curve(linear):
    model, X, y = linear
    rows = np.flatnonzero(y != "eggs")
    display = ClassPrecisionRecallDisplay.from_estimator(model, [X[i] for i in rows], y[rows])
    assert set(display.lines_) == {"ham", "spam"}
    with pytest.raises(ValueError, match="and one column for each of the classes"):
        ClassPrecisionRecallDisplay.from_predictions(y, np.ones((len(y), 2)))
    with pytest.raises(ValueError, match=r"labels \['eggs'\] without a column"):
        ClassPrecisionRecallDisplay.from_predictions(
            y, np.ones((len(y), 2)), classes=["ham", "spam"]
        )
    with pytest.raises(ValueError, match="at least one document"):
        ClassPrecisionRecallDisplay.from_predictions([], np.ones((0, 2)), classes=["ham", "spam"])


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
    predicted = np.where(y == "eggs", "toast", y)
    only_predicted = FrequencyConfusionMatrixDisplay.from_predictions(y, predicted)
    assert list(only_predicted.display_labels) == [*order, "toast"]
    weight = np.where(y == "eggs", 100.0, 1.0)
    weighted = FrequencyConfusionMatrixDisplay.from_predictions(y, y, sample_weight=weight)
    assert weighted.display_labels[0] == "eggs"
    assert weighted.confusion_matrix[0, 0] == 100 * (y == "eggs").sum()


def test_history_draws_losses_and_score(make, data):
    clf = make(train_split=0.3, max_epochs=3).fit(*data)
    display = TrainingHistoryDisplay.from_estimator(clf)
    assert set(display.lines_) == {"train_loss", "valid_loss", "f1_macro"}
    for name, key in [("train_loss",) * 2, ("valid_loss",) * 2, ("f1_macro", "valid_score")]:
        x, height = display.lines_[name].get_data()
        np.testing.assert_array_equal(x, [1, 2, 3])
        np.testing.assert_array_equal(height, [row[key] for row in clf.history_])
    assert display.lines_["f1_macro"].axes is display.score_ax_ is not display.ax_
    assert display.lines_["train_loss"].axes is display.ax_
    assert len(display.score_ax_.get_legend().get_texts()) == 3
    clf.set_params(scoring="accuracy")  # not what was computed
    again = TrainingHistoryDisplay.from_estimator(clf, ax=plt.subplots()[1])
    assert again.score_name == "f1_macro" and again.figure_ is not display.figure_
    long = TrainingHistoryDisplay(np.arange(1, 41), {"train_loss": np.ones(40)}).plot()
    assert long.ax_.get_xticks().tolist() == list(range(1, 41, 3))
    plain = TrainingHistoryDisplay.from_estimator(make().fit(*data))
    assert set(plain.lines_) == {"train_loss"} and plain.score_ax_ is None


def test_names_of_classes_stay_with_their_classes(linear):
    y = np.array([0] + [1] * 3 + [2] * 5)
    named = {"display_labels": ["acq", "earn", "trade"]}
    display = FrequencyConfusionMatrixDisplay.from_predictions(y, y, **named)
    assert np.diag(display.confusion_matrix).tolist() == [5, 3, 1]
    assert display.display_labels.tolist() == ["trade", "earn", "acq"]
    given = FrequencyConfusionMatrixDisplay.from_predictions(y, y, labels=[1, 2, 0], **named)
    assert given.display_labels == ["acq", "earn", "trade"]  # as scikit-learn reads them
    with pytest.raises(ValueError, match=r"one name for each of the 3 classes. Got shape \(2,\)"):
        FrequencyConfusionMatrixDisplay.from_predictions(y, y, display_labels=["acq", "earn"])


def test_many_classes_have_no_numbers_whatever_they_are_drawn_from():
    y = np.repeat(np.arange(20), 2)
    model = DecisionTreeClassifier(random_state=0).fit(y[:, None], y)
    kind = FrequencyConfusionMatrixDisplay
    for display in (kind.from_predictions(y, y), kind.from_estimator(model, y[:, None], y)):
        assert display.text_ is None
        assert display.ax_.get_xticklabels()[0].get_rotation() == 90
    asked = kind.from_estimator(model, y[:, None], y, include_values=True, xticks_rotation=45)
    assert asked.text_.shape == (20, 20)
    assert asked.ax_.get_xticklabels()[0].get_rotation() == 45


def test_labels_that_begin_with_an_underscore_are_in_the_legends():
    labels = ["__label__a", "__label__b"]
    p = [[0.9, 0.1], [0.6, 0.4], [0.2, 0.8]]
    y = [labels[0], labels[0], labels[1]]
    curves = ClassPrecisionRecallDisplay.from_predictions(y, p, classes=labels)
    bars = ClassLossDisplay(["__label__a", "$x$"], np.array([0.5, 0.5]), np.array([[0.2, 0.8]]))
    for display, n in ((curves, 2), (bars.plot(), 2)):
        texts = [t.get_text() for t in display.ax_.get_legend().get_texts()]
        assert len(texts) == n and any("__label__a" in text for text in texts)
    assert r"\$x\$" in texts  # no formula
    assert list(curves.lines_) == labels and list(bars.bars_) == ["__label__a", "$x$"]


@pytest.mark.parametrize(
    "kind",
    [
        ClassPrecisionRecallDisplay,
        ReliabilityDisplay,
        FrequencyConfusionMatrixDisplay,
        ConfusedPairsDisplay,
        FeatureMapDisplay,
    ],
)
def test_rows_of_another_order_are_refused(kind, linear):
    model, X, y = linear
    X, y = pd.Series(X), pd.Series(y)
    with pytest.raises(ValueError, match="X and y must have their rows in the same order"):
        kind.from_estimator(model, X, y[::-1])


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
    assert ClassLossDisplay.from_estimator(clf, ax=ax).ax_ is ax
    assert [tick.get_text() for tick in ax.get_xticklabels()] == ["documents", "1", "2", "3"]
    assert [t.get_text() for t in ax.get_legend().get_texts()] == ["spam", "ham"]  # as they lie
    rare_first = make(max_epochs=1).fit(X, np.where(y == "ham", "z", "a"))
    assert ClassLossDisplay.from_estimator(rare_first).labels == ["z", "a"]


def test_rare_classes_share_a_bar(make):
    X = [f"word{c} text" for c in range(6) for _ in range(8 - c)]
    y = np.repeat([f"c{c}" for c in range(6)], 8 - np.arange(6))
    clf = make(max_epochs=1).fit(X, y)
    display = ClassLossDisplay.from_estimator(clf, top=3)
    assert display.labels == ["c0", "c1", "c2", "3 others"]
    np.testing.assert_allclose(display.losses[:, 3], clf.class_loss_[:, 3:].sum(1))
    np.testing.assert_allclose(display.documents, np.array([8, 7, 6, 5 + 4 + 3]) / 33)
    assert ClassLossDisplay.from_estimator(clf, top=5).labels[-1] == "c5"


def test_several_labels_are_drawn_label_by_label():
    rng = np.random.RandomState(0)
    truth = (rng.uniform(size=(60, 3)) < [0.5, 0.2, 0.0]).astype(int)
    p = np.clip(truth * 0.3 + rng.uniform(size=(60, 3)) * 0.7, 0, 1)
    display = ClassPrecisionRecallDisplay.from_predictions(truth, p, classes=["a", "b", "never"])
    assert display.counts == {"a": truth[:, 0].sum(), "b": truth[:, 1].sum()}
    for j, name in enumerate("ab"):
        expected = average_precision_score(truth[:, j], p[:, j])
        assert display.average_precision[name] == pytest.approx(expected)
    reliability = ReliabilityDisplay.from_predictions(truth, p, n_bins=10)
    confidence, right = np.maximum(p, 1 - p).ravel(), ((p > 0.5) == truth).ravel()
    bins = np.minimum((confidence * 10).astype(int), 9)
    gaps = [
        (bins == b).mean() * abs(right[bins == b].mean() - confidence[bins == b].mean())
        for b in np.unique(bins)
    ]
    assert reliability.ece == pytest.approx(sum(gaps))
    with pytest.raises(
        ValueError, match=r"the shape of the indicator .* Got \(60, 2\) and \(60, 3\)"
    ):
        ReliabilityDisplay.from_predictions(truth, p[:, :2])
    with pytest.raises(ValueError, match="one column for each of the classes"):
        ClassPrecisionRecallDisplay.from_predictions(truth, p[:, :2])


def test_columns_of_labels_are_read_by_their_names():
    rng = np.random.RandomState(0)
    frame = pd.DataFrame((rng.uniform(size=(60, 2)) < [0.5, 0.2]).astype(int), columns=["a", "b"])
    p = np.clip(frame.to_numpy() * 0.3 + rng.uniform(size=(60, 2)) * 0.7, 0, 1)
    expected = ClassPrecisionRecallDisplay.from_predictions(frame, p, classes=["a", "b"])
    ece = expected_calibration_error(frame, p, classes=["a", "b"])
    assert expected_calibration_error(frame[["b", "a"]].to_numpy(), p) != ece
    for form in (frame[["b", "a"]], sparse.csr_matrix(frame.to_numpy())):
        found = ClassPrecisionRecallDisplay.from_predictions(form, p, classes=["a", "b"])
        assert found.average_precision == expected.average_precision
        assert found.counts == expected.counts
        assert expected_calibration_error(form, p, classes=["a", "b"]) == ece
        assert ReliabilityDisplay.from_predictions(form, p, classes=["a", "b"]).ece == ece


def test_labels_of_one_column_are_labels(linear):
    model, X, y = linear
    predicted = model.predict(X)
    expected = FrequencyConfusionMatrixDisplay.from_predictions(y, predicted)
    with pytest.warns(DataConversionWarning):
        found = FrequencyConfusionMatrixDisplay.from_predictions(y[:, None], predicted)
    np.testing.assert_array_equal(found.confusion_matrix, expected.confusion_matrix)
    np.testing.assert_array_equal(found.display_labels, expected.display_labels)


def test_weights_of_reliability_are_repeated_documents():
    rng = np.random.RandomState(1)
    y, p = rng.randint(0, 3, 40), rng.dirichlet(np.ones(3), 40)
    weight = rng.randint(0, 4, 40)
    weighted = ReliabilityDisplay.from_predictions(y, p, sample_weight=weight)
    repeated = ReliabilityDisplay.from_predictions(y.repeat(weight), p.repeat(weight, 0))
    np.testing.assert_allclose(weighted.counts, repeated.counts)
    np.testing.assert_allclose(weighted.accuracy, repeated.accuracy)
    assert weighted.ece == pytest.approx(repeated.ece)
    both = {"sample_weight": weight, "classes": [0, 1, 2]}
    assert expected_calibration_error(y, p, **both) == pytest.approx(repeated.ece)
    halves = ReliabilityDisplay.from_predictions(y, p, sample_weight=weight / 2)
    assert halves.ece == pytest.approx(repeated.ece)
