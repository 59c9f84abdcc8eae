"""Two classifiers compared: statistics against other ways to compute them, then the edges."""

import math
import re
import warnings

import matplotlib
import numpy as np
import pandas as pd
import pytest
from conftest import imbalanced
from sklearn.dummy import DummyClassifier
from sklearn.exceptions import NotFittedError
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import (
    accuracy_score,
    balanced_accuracy_score,
    f1_score,
    hamming_loss,
    precision_recall_fscore_support,
)
from sklearn.model_selection import GridSearchCV
from sklearn.multiclass import OneVsRestClassifier
from sklearn.naive_bayes import MultinomialNB
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MultiLabelBinarizer
from sklearn.svm import LinearSVC
from test_report import EVIL, check_page

from skfocal import BertFocalClassifier, OnnxClassifier, Report, compare_classifiers
from skfocal.report import _paired
from skfocal.report._comparison import ClassifierComparison
from skfocal.report._paired import Outcomes, compared, mcnemar

matplotlib.use("Agg")


def answers(n=300, n_classes=4, seed=0, wrong=(0.3, 0.2)):
    """Return codes of true classes of falling frequency, and of two classifiers' answers."""
    rng = np.random.RandomState(seed)
    share = 1 / np.arange(1, n_classes + 1) ** 1.5
    draw = lambda: rng.choice(n_classes, n, p=share / share.sum())  # noqa: E731
    y, other = draw(), draw()
    return y, *(np.where(rng.rand(n) < share_wrong, other, y) for share_wrong in wrong)


class Says:
    """Whatever answers document i with the label i of a list; it is no estimator."""

    def __init__(self, labels, classes=None):
        self.labels = labels
        if classes is not None:
            self.classes_ = np.asarray(classes)

    def predict(self, X):
        return np.asarray(self.labels)[[int(x) for x in X]]


def comparison_of(y, a, b, **settings):
    """Compare classifiers that give these answers."""
    classes = settings.pop("classes", np.unique(np.concatenate([y, a, b])))
    X = [str(i) for i in range(len(y))]
    return compare_classifiers(Says(a, classes), Says(b, classes), X, y, **settings)


# -- McNemar's test ------------------------------------------------------------------------


@pytest.mark.parametrize("only_a, only_b", [(0, 1), (0, 5), (3, 3), (2, 9), (30, 12), (7, 40)])
def test_mcnemar_sums_the_binomial_probabilities_of_what_is_as_uneven(only_a, only_b):
    n = only_a + only_b
    ways = sum(math.comb(n, k) for k in range(n + 1) if abs(2 * k - n) >= abs(only_a - only_b))
    assert mcnemar(only_a, only_b) == pytest.approx(ways / 2**n, rel=1e-12)
    assert mcnemar(only_b, only_a) == mcnemar(only_a, only_b)


def test_mcnemar_of_no_difference_is_1():
    assert mcnemar(0, 0) == 1.0


def test_documents_are_counted_by_who_is_right():
    y, a, b = answers()
    comparison = comparison_of(y, a, b)
    expected = {
        "only_a": ((a == y) & (b != y)).sum(),
        "only_b": ((a != y) & (b == y)).sum(),
        "both": ((a == y) & (b == y)).sum(),
        "neither": ((a != y) & (b != y)).sum(),
    }
    expected["p_value"] = mcnemar(expected["only_a"], expected["only_b"])
    assert comparison.mcnemar == expected


# -- scores and intervals --------------------------------------------------------------------


def scores_of(y, predicted):
    """Return scores over all classes, by scikit-learn."""
    return {
        "accuracy": accuracy_score(y, predicted),
        "balanced accuracy": np.mean([(predicted[y == c] == c).mean() for c in np.unique(y)]),
        "F1, macro": f1_score(y, predicted, average="macro", zero_division=0),
    }


def each_of(y, predicted, n_classes):
    settings = {"labels": np.arange(n_classes), "zero_division": np.nan}
    values = precision_recall_fscore_support(y, predicted, **settings)
    return dict(zip(("precision", "recall", "f1"), values, strict=False))


@pytest.mark.parametrize("n_classes", [2, 4, 30])
def test_scores_are_those_of_scikit_learn(n_classes):
    y, a, b = answers(n_classes=n_classes)
    comparison = comparison_of(y, a, b, classes=np.arange(n_classes))
    for key, predicted in (("a", a), ("b", b)):
        expected = scores_of(y, predicted)
        found = dict(zip(comparison.overall["score"], comparison.overall[key], strict=True))
        assert found == pytest.approx(expected, rel=1e-12)
        for name, values in each_of(y, predicted, n_classes).items():
            column = comparison.per_class[f"{name}_{key}"]
            np.testing.assert_allclose(column, values[comparison.labels], rtol=1e-12)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # classes that are only predicted
        assert balanced_accuracy_score(y, b) == pytest.approx(comparison.overall["b"][1])
    assert (np.diff(comparison.per_class["support"]) <= 0).all()


@pytest.mark.parametrize("n_classes", [2, 4, 12])
def test_intervals_are_percentiles_of_scores_of_the_documents_that_are_drawn(n_classes):
    """The same draws, document by document, and scored by scikit-learn."""
    truth = answers(120, n_classes)
    kinds, number = np.unique(np.stack(truth, axis=1), axis=0, return_counts=True)
    outcomes = Outcomes.of(*truth, n_classes)
    overall, each = compared(outcomes, 100, 0.9, np.random.RandomState(3))
    drawn = np.random.RandomState(3).multinomial(number.sum(), number / number.sum(), size=100)
    differences = {name: [] for name in (*overall, *each)}
    for counts in drawn:
        y, a, b = np.repeat(kinds, counts, axis=0).T
        one, other = (scores_of(y, p) | each_of(y, p, n_classes) for p in (a, b))
        for name, values in differences.items():
            values.append(other[name] - one[name])
    n_intervals = 0
    for name, found in (overall | each).items():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # classes without a score
            low, high = np.nanquantile(differences[name], [0.05, 0.95], axis=0)
        known = ~np.isnan(found.low)
        n_intervals += known.sum()
        for end, expected in ((found.low, low), (found.high, high)):
            np.testing.assert_allclose(
                np.asarray(end)[known], expected[known], rtol=1e-9, atol=1e-12
            )
    assert n_intervals >= 5


def test_intervals_are_those_of_resampled_rows():
    """Other draws, of rows, so the ends differ by chance; the analytical interval beside them."""
    y, a, b = answers(600, 3, seed=1)
    overall, _ = compared(Outcomes.of(y, a, b, 3), 4000, 0.95, np.random.RandomState(0))
    rng = np.random.RandomState(1)
    difference = (b == y).astype(float) - (a == y)
    naive = difference[rng.randint(len(y), size=(4000, len(y)))].mean(axis=1)
    found = [overall["accuracy"].low, overall["accuracy"].high]
    np.testing.assert_allclose(found, np.quantile(naive, [0.025, 0.975]), atol=0.004)
    error = 1.96 * difference.std() / np.sqrt(len(y))
    mean = difference.mean()
    np.testing.assert_allclose(found, [mean - error, mean + error], atol=0.004)


def test_resamples_in_slices_are_those_of_one(monkeypatch):
    outcomes = Outcomes.of(*answers(200, 6), 6)
    whole = compared(outcomes, 150, 0.95, np.random.RandomState(0))
    monkeypatch.setattr(_paired, "_VALUES", 700)
    sliced = compared(outcomes, 150, 0.95, np.random.RandomState(0))
    for one, other in zip(whole, sliced, strict=True):
        for name in one:
            np.testing.assert_array_equal(one[name], other[name])


@pytest.mark.slow
@pytest.mark.parametrize("n_classes, n", [(2, 200), (8, 500), (40, 2000)])
def test_intervals_hold_the_truth_about_as_often_as_they_say(n_classes, n):
    _, truth = compared(
        Outcomes.of(*answers(1_000_000, n_classes, 99, (0.35, 0.25)), n_classes),
        100,
        0.95,
        np.random.RandomState(0),
    )
    share = 1 / np.arange(1, n_classes + 1) ** 1.5
    # A wrong answer is drawn from all classes, so it may be right.
    accuracy = (0.35 - 0.25) * (1 - ((share / share.sum()) ** 2).sum())
    within, within_each, n_each = 0, 0, 0
    for seed in range(300):
        sample = answers(n, n_classes, seed, (0.35, 0.25))
        outcomes = Outcomes.of(*sample, n_classes)
        overall, each = compared(outcomes, 400, 0.95, np.random.RandomState(seed))
        within += overall["accuracy"].low <= accuracy <= overall["accuracy"].high
        known = ~np.isnan(each["f1"].low)
        held = (each["f1"].low <= truth["f1"].difference) & (
            truth["f1"].difference <= each["f1"].high
        )
        within_each, n_each = within_each + held[known].sum(), n_each + known.sum()
    assert 0.91 <= within / 300 <= 0.98
    assert 0.89 <= within_each / n_each <= 0.98 and n_each > 300


def test_classifiers_that_answer_the_same_do_not_differ():
    y, a, _ = answers()
    comparison = comparison_of(y, a, a)
    assert comparison.overall["difference"] == [0.0] * 3
    assert np.isnan(comparison.overall["low"]).all()  # [0, 0] would claim too much
    assert (comparison.per_class["f1_difference"] == 0).all()
    assert comparison.mcnemar["p_value"] == 1.0 and comparison.changed["row"] == []
    assert comparison.params == {} and not any(comparison.unknown)
    page = check_page(comparison)
    assert "Both answer the same for every document." in page.texts
    assert "No document is right for one and wrong for the other." in page.texts


def test_few_documents_give_no_interval():
    y = np.repeat([0, 1, 2], [40, 9, 12])
    a = y.copy()
    a[:8], a[40:46], a[49:53] = 1, 2, 0  # of class 2, four differ
    columns = comparison_of(y, a, y).per_class
    assert columns["label"].tolist() == [0, 2, 1] and columns["only_b"].tolist() == [8, 4, 6]
    assert np.isnan(columns["recall_low"]).tolist() == [False, True, True]
    assert np.isnan(columns["f1_low"]).tolist() == [False, False, True]
    nine = comparison_of(y[:9], a[:9], y[:9])
    assert np.isnan(nine.overall["low"]).all() and nine.mcnemar["p_value"] == 2 / 2**8


def test_the_same_seed_gives_the_same_intervals():
    y, a, b = answers()
    first, again = (comparison_of(y, a, b).overall for _ in range(2))
    assert first == again
    other = comparison_of(y, a, b, random_state=1).overall
    assert other["difference"] == first["difference"] and other["low"] != first["low"]


# -- documents ---------------------------------------------------------------------------------


def test_changed_documents_are_those_with_other_answers_rare_classes_first():
    y, a, b = answers()
    table = comparison_of(y, a, b).changed
    assert sorted(table["row"]) == np.flatnonzero(a != b).tolist()
    support = np.bincount(y)[table["true"]]
    assert (np.diff(support) >= 0).all()
    columns = (table[k] for k in ("row", "true", "a", "b", "right"))
    for row, true, one, other, right in zip(*columns, strict=True):
        assert (true, one, other) == (y[row], a[row], b[row])
        assert right == ("a" if one == true else "b" if other == true else "neither")
    assert table["document"] == [str(row) for row in table["row"]]


# -- whatever is compared ------------------------------------------------------------------------


def test_searches_pipelines_and_frozen_classifiers_are_unwrapped(make_of_few_words):
    X, y = imbalanced()
    y = y.copy()
    y[::6] = "spam"
    ours = make_of_few_words(max_epochs=1).fit(X, y)
    words = make_pipeline(TfidfVectorizer(), LogisticRegression())
    search = GridSearchCV(words, {"logisticregression__C": [0.1, 1]}, cv=2).fit(X, y)
    comparison = compare_classifiers(FrozenEstimator(ours), search, X, y)
    assert comparison.kinds == (
        "FrozenEstimator, BertFocalClassifier",
        "GridSearchCV, Pipeline, LogisticRegression",
    )
    for key, model in (("a", ours), ("b", search)):
        found = dict(zip(comparison.overall["score"], comparison.overall[key], strict=True))
        assert found["F1, macro"] == Report.from_estimator(model, X, y).overall["F1, macro"]
        assert found["accuracy"] == model.score(X, y)
    svm = make_pipeline(TfidfVectorizer(), LinearSVC()).fit(X, y)  # without probabilities
    assert compare_classifiers(svm, svm, X, y).overall["a"][0] == svm.score(X, y)


def test_an_exported_graph_is_compared_with_the_estimator(onnx_folder, tiny):
    X, y = imbalanced()
    served = OnnxClassifier(onnx_folder)
    settings = {"max_epochs": 1, "lr": 3e-3, "batch_size": 8, "random_state": 0}
    clf = BertFocalClassifier(tiny, **settings).fit(X, y)
    comparison = compare_classifiers(clf, served, X, y)
    assert comparison.changed["row"] == [] and comparison.overall["a"] == comparison.overall["b"]
    assert comparison.kinds[1] == "OnnxClassifier"


def test_parameters_that_differ_are_listed(make_of_few_words):
    X, y = imbalanced()
    one = make_of_few_words(max_epochs=1).fit(X, y)
    other = make_of_few_words(max_epochs=1, gamma=0.5, alpha="balanced").fit(X, y)
    comparison = compare_classifiers(one, other, X, y, names=("plain", "focal & more"))
    assert comparison.params == {"alpha": (None, "balanced"), "gamma": (2.0, 0.5)}
    page = check_page(comparison)
    assert (
        "focal & more compared with plain" in page.texts and "Parameters that differ" in page.texts
    )


def test_a_class_that_one_does_not_know_is_wrong_for_it_and_named():
    y = np.array(["a", "b", "c"] * 20)
    few = np.where(y == "c", "a", y)
    X = [str(i) for i in range(60)]
    comparison = compare_classifiers(Says(few, ["a", "b"]), Says(y, ["a", "b", "c", "d"]), X, y)
    assert comparison.unknown == ({"c": 20}, {}) and comparison.mcnemar["only_b"] == 20
    assert comparison.labels.tolist() == ["a", "b", "c", "d"]
    assert "20 documents have a label that" in check_page(comparison).text
    message = (
        r"y must hold only labels that a or b was fitted with, \['a', 'b', 'c', 'd'\]. Got \['e"
    )
    with pytest.raises(ValueError, match=message):
        compare_classifiers(Says(few, ["a", "b"]), Says(y, ["c", "d"]), X[:1], ["e"])


def test_several_labels_are_compared_label_by_label(make_of_few_words):
    X, y = imbalanced(40, 20)
    labels = [{c} | ({"long"} if len(x) > 30 else set()) for x, c in zip(X, y, strict=True)]
    one = make_of_few_words(max_epochs=1).fit(X, labels)
    other = make_of_few_words(max_epochs=6, lr=1e-2).fit(X, labels)
    comparison = compare_classifiers(one, other, X, labels)
    truth = MultiLabelBinarizer().fit_transform(labels)
    for key, model in (("a", one), ("b", other)):
        predicted = model.predict(X)
        expected = {
            "all labels right": accuracy_score(truth, predicted),
            "F1, macro": f1_score(truth, predicted, average="macro", zero_division=0),
            "F1, micro": f1_score(truth, predicted, average="micro"),
            "Hamming loss": hamming_loss(truth, predicted),
        }
        found = dict(zip(comparison.overall["score"], comparison.overall[key], strict=True))
        assert found == pytest.approx(expected)
    right = [(model.predict(X) == truth).all(axis=1) for model in (one, other)]
    assert comparison.mcnemar["only_b"] == (right[1] & ~right[0]).sum() > 0
    hits = [(model.predict(X) > 0) & (truth > 0) for model in (one, other)]
    order = [one.classes_.tolist().index(label) for label in comparison.labels]
    assert comparison.per_class["only_b"].tolist() == (hits[1] & ~hits[0]).sum(0)[order].tolist()
    row = comparison.changed["row"].index(comparison.changed["row"][-1])
    assert comparison.changed["true"][row] == sorted(labels[comparison.changed["row"][row]])
    assert "only B right" in check_page(comparison).texts
    again = compare_classifiers(one, other, X, truth)
    assert again.overall == comparison.overall


def test_labels_in_another_order_need_their_names(make_of_few_words):
    X, y = imbalanced()
    table = pd.DataFrame({"spam": y == "spam", "ham": y == "ham", "long": [len(x) > 30 for x in X]})
    one = make_of_few_words(max_epochs=1).fit(X, table.astype(int))
    other = make_of_few_words(max_epochs=1).fit(X, table[["long", "ham", "spam"]].astype(int))
    named = compare_classifiers(one, other, X, table.astype(int))
    predicted = other.predict(X)[:, [2, 1, 0]]
    assert named.overall["b"][0] == accuracy_score(table.astype(int), predicted)
    with pytest.raises(
        ValueError, match="y must name its labels, as a DataFrame or .* Got ndarray"
    ):
        compare_classifiers(one, other, X, table.to_numpy().astype(int))
    single = make_of_few_words(max_epochs=1).fit(X, y)
    with pytest.raises(ValueError, match="both several. Got several labels from a and one label"):
        compare_classifiers(one, single, X, y)
    rest = OneVsRestClassifier(make_pipeline(TfidfVectorizer(), MultinomialNB()))
    rest.fit(X, table.to_numpy().astype(int))
    with pytest.raises(ValueError, match="labels of one kind. Got str from a and numbers from b"):
        compare_classifiers(one, rest, X, table.astype(int))
    assert compare_classifiers(rest, rest, X, table.to_numpy().astype(int)).multilabel


def test_collections_in_lists_name_the_labels_of_classifiers_with_different_ones(make_of_few_words):
    X, y = imbalanced(40, 20)
    long = [{"long"} if len(x) > 30 else set() for x in X]
    few = [{c} for c in y.tolist()]
    every = [own | more for own, more in zip(few, long, strict=True)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # one label each
        one = make_of_few_words(max_epochs=1).fit(X, few)
    other = make_of_few_words(max_epochs=1).fit(X, every)
    expected = compare_classifiers(one, other, X, every)
    as_lists = [sorted(row) for row in every]
    assert len({*map(len, as_lists)}) == 2  # ragged
    for form in (as_lists, [*map(tuple, as_lists)], pd.Series(as_lists)):
        found = compare_classifiers(one, other, X, form)
        assert found.overall == expected.overall and found.unknown == expected.unknown
    assert expected.unknown == ({"long": sum(map(len, long))}, {})
    names = ["ham", "long", "spam"]
    truth = MultiLabelBinarizer(classes=names).fit_transform(every)
    predicted = np.column_stack([one.predict(X), np.zeros(len(X), int)])[:, [0, 2, 1]]
    assert expected.overall["a"][3] == hamming_loss(truth, predicted)
    assert expected.overall["b"][3] == hamming_loss(truth, other.predict(X))


def test_a_classifier_without_a_list_of_classes_knows_all_labels():
    y = np.array(["common"] * 8 + ["rare"] * 2 + ["other"] * 10)
    X = [str(i) for i in range(20)]
    service = Says(np.where(y == "rare", "common", y))
    both = compare_classifiers(service, service, X, y)
    assert both.labels.tolist() == ["other", "common", "rare"] and both.unknown == ({}, {})
    assert both.overall["a"][0] == 0.9 and both.mcnemar["neither"] == 2
    one = compare_classifiers(Says(y, ["common", "other", "rare"]), service, X, y)
    assert one.unknown == ({}, {}) and "was not fitted with" not in check_page(one).text
    assert one.mcnemar["only_a"] == 2
    few = compare_classifiers(Says(service.labels, ["common", "other"]), Says(y), X, y)
    assert few.unknown == ({"rare": 2}, {})  # the one with a list does not know it
    numbers = np.arange(20) % 2
    with pytest.raises(ValueError, match=r"y must hold only labels that .* Got \[0, 1\] as well"):
        compare_classifiers(service, service, X, numbers)


def test_indicators_of_classifiers_without_a_list_of_classes_are_those_of_y():
    rng = np.random.RandomState(0)
    y, a, b = ((rng.rand(30, 3) < 0.5).astype(int) for _ in range(3))
    X = [str(i) for i in range(30)]
    frame = pd.DataFrame(y, columns=["tea", "sea", "bee"])
    for known in (None, frame.columns):
        comparison = compare_classifiers(Says(a), Says(b, known), X, frame)
        assert comparison.overall["a"][0] == accuracy_score(y, a)
        assert comparison.overall["b"][3] == hamming_loss(y, b)
        assert {*comparison.labels} == {"tea", "sea", "bee"} and comparison.unknown == ({}, {})
    with pytest.raises(ValueError, match="a column for each label, 3, .* Got 2 columns"):
        compare_classifiers(Says(a[:, :2]), Says(b), X, frame)


# -- the page ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def evil():
    """A comparison whose labels, documents and names are markup."""
    labels = [EVIL, "$\\frac", "_a", "</style><img src=//x.org onerror=alert(1)>", "\u4e2d\n\t", ""]
    y = np.array([labels[i % 6] for i in range(60)], dtype=object)
    X = [f"{EVIL} $x^2$ & {i} \x1b[31m \ud800 \u202e" for i in range(60)]
    rng = np.random.RandomState(0)
    a, b = (np.where(rng.rand(60) < share, rng.permutation(y), y) for share in (0.5, 0.2))

    class Fixed(Says):
        def predict(self, X):
            return self.labels

    names = ("<b>A</b> $x$", "_B\x1b")
    return compare_classifiers(Fixed(a, labels), Fixed(b, labels), X, y, names=names)


def test_everything_is_escaped(evil):
    page = check_page(evil)
    html = evil._repr_html_()
    assert EVIL in page.text and "<script" not in html and "<img" not in html
    assert "\x1b" not in html and "\ud800" not in html and "<b>A</b>" not in html
    assert html.count("</style>") == 1


@pytest.mark.parametrize("names", [("true", "row"), ("long " * 9 + "a", "long " * 9 + "b")])
def test_names_of_any_kind_are_told_apart(names):
    y, a, b = answers(50)
    comparison = comparison_of(y, a, b, names=names)
    texts = check_page(comparison).texts
    facts = ("true:", "row:") if names[0] == "true" else ("first:", "second:")
    assert texts.count(facts[0]) == texts.count(facts[1]) > 3


def test_the_page_tells_no_folders():
    comparison = comparison_of(*answers(400, 5))
    comparison.params = {"model": ("/home/alice/private/minilm", "/home/alice/private/mpnet")}
    html = comparison._repr_html_()
    assert "private" not in html and "…/minilm" in html and "…/mpnet" in html


def test_the_page_has_the_numbers(tmp_path):
    y, a, b = answers(400, 5)
    comparison = comparison_of(y, a, b)
    page = check_page(comparison)
    for value in (comparison.overall["a"][0], comparison.per_class["f1_b"][2]):
        assert f"{value:.3f}" in page.texts
    low, high = comparison.overall["low"][0], comparison.overall["high"][0]
    ends = " to ".join(f"{end:+.3f}".replace("-", "\N{MINUS SIGN}") for end in (low, high))
    assert ends in page.texts
    (figure,) = [a["aria-label"] for tag, a in page.elements if tag == "svg"]
    n = np.count_nonzero(~np.isnan(comparison.per_class["f1_low"]))
    assert f"minus A. {n} of 5 have an interval." in figure
    above = np.flatnonzero(comparison.per_class["f1_low"] > 0)[0]
    difference = comparison.per_class["f1_difference"][above]
    assert f"Above 0: {comparison.labels[above]} {difference:+.3f}" in figure
    comparison.save(tmp_path / "compare.html")
    assert comparison._repr_html_() in (tmp_path / "compare.html").read_text(encoding="utf-8")


def test_the_figure_has_a_line_for_each_interval():
    y, a, b = answers(3000, 60)
    comparison = comparison_of(y, a, b, classes=np.arange(60))
    ax = comparison.plot(score="recall")
    n = min(np.count_nonzero(comparison.per_class["support"]), 40)
    known = ~np.isnan(comparison.per_class["recall_low"][:n])
    lines, filled, hollow = ax.collections
    assert len(lines.get_segments()) == known.sum() == len(filled.get_offsets())
    assert len(hollow.get_offsets()) == n - known.sum()
    assert ax.get_yticklabels()[0].get_text() == f"0 ({(y == 0).sum()})"
    with pytest.raises(ValueError, match="score must be 'f1', .* Got 'accuracy'"):
        comparison.plot(score="accuracy")
    assert ("The 40 most" in check_page(comparison).text) == (len(np.unique(y)) > 40)


def test_it_prints_as_a_table():
    y, a, b = answers()
    text = str(comparison_of(y, a, b, names=("old model", "new"))).splitlines()
    assert text[2] == "300 documents, 4 classes" and text[0] == "old model: Says"
    assert re.fullmatch(r"score +old model +new +new - old model  interval \(95 %\)", text[4])
    assert re.fullmatch(r"accuracy +0\.\d{3} +0\.\d{3} +\+0\.\d{3}  .*", text[5])
    assert len({line.index("  ", 60) for line in text[5:8]} if len(text[5]) > 70 else {0}) == 1
    assert text[-1].startswith("McNemar's exact test: p = ")


# -- edges ---------------------------------------------------------------------------------------


def test_a_single_document_is_enough():
    comparison = comparison_of(np.array(["a"]), np.array(["b"]), np.array(["a"]))
    assert comparison.mcnemar["p_value"] == 1.0 and comparison.changed["right"] == ["b"]
    assert "1 document, 2 classes" in check_page(comparison).text


def test_five_thousand_classes():
    y, a, b = answers(3000, 5000)
    comparison = comparison_of(y, a, b, classes=np.arange(5000), n_resamples=100)
    assert comparison.per_class["support"].sum() == 3000
    assert len(comparison._repr_html_()) < 3_000_000
    assert str(comparison).splitlines()[2] == "3000 documents, 5000 classes"


def test_what_is_wrong_is_said_before_the_documents_are_read():
    y = np.array(["a", "b"] * 10)
    for settings, message in (
        ({"names": ("A", "A")}, r"names must be two different strings .* Got \('A', 'A'\)"),
        ({"names": "AB"}, "names must be two different strings .* Got 'AB'"),
        ({"n_resamples": 10}, "n_resamples must be an int of at least 100. Got 10"),
        ({"names": None}, "names must be two different strings .* Got None"),
        ({"names": (["A"], ["B"])}, "names must be two different strings .* Got "),
        ({"confidence": "0.9"}, r"confidence must be in \(0, 1\). Got '0.9'"),
        ({"confidence": 95}, r"confidence must be in \(0, 1\). Got 95"),
    ):
        with pytest.raises(ValueError, match=message):
            comparison_of(y, y, y, **settings)
    good = Says(y, ["a", "b"])
    X = [str(i) for i in range(20)]
    with pytest.raises(TypeError, match="b must be a classifier with predict. Got TfidfVectorizer"):
        compare_classifiers(good, TfidfVectorizer(), X, y)
    with pytest.raises(NotFittedError):
        compare_classifiers(good, LogisticRegression(), X, y)
    numbers = DummyClassifier().fit(X, np.arange(20) % 2)
    with pytest.raises(ValueError, match="labels of one kind. Got str from a and numbers from b"):
        compare_classifiers(good, numbers, X, y)
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        compare_classifiers(good, good, X, y[1:])
    with pytest.raises(ValueError, match="only labels of their classes_, .* Got 'z'"):
        compare_classifiers(good, Says(["z"] * 20, ["a", "b"]), X, y)


def test_a_classifier_without_a_list_of_classes_is_known_by_its_answers():
    y = np.array(["a", "b"] * 10)
    X = [str(i) for i in range(20)]
    comparison = compare_classifiers(Says(y), Says(["c"] * 20), X, y)
    assert comparison.labels.tolist() == ["a", "b", "c"] and comparison.overall["b"][0] == 0


def test_classes_of_objects_and_of_strings_are_the_same():
    y = np.array(["a", "bcd"] * 10)
    X = [str(i) for i in range(20)]
    objects = Says(y.astype(object), np.array(["a", "bcd"], dtype=object))
    comparison = compare_classifiers(objects, Says(y, ["a", "bcd"]), X, pd.Series(y))
    assert comparison.overall["a"][0] == comparison.overall["b"][0] == 1
    assert isinstance(comparison, ClassifierComparison)
