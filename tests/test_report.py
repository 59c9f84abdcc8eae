"""The report: its numbers against scikit-learn's, and the page as a browser would read it."""

import os
import pickle
import re
import sys
import warnings
from html.parser import HTMLParser

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch
from conftest import imbalanced
from imblearn.over_sampling import RandomOverSampler
from imblearn.pipeline import make_pipeline as make_imblearn_pipeline
from sklearn.base import clone
from sklearn.compose import make_column_transformer
from sklearn.dummy import DummyClassifier
from sklearn.exceptions import NotFittedError
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import (
    accuracy_score,
    average_precision_score,
    balanced_accuracy_score,
    confusion_matrix,
    f1_score,
    hamming_loss,
    log_loss,
    precision_recall_fscore_support,
)
from sklearn.model_selection import FixedThresholdClassifier, GridSearchCV
from sklearn.multiclass import OneVsRestClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.svm import LinearSVC
from skorch import NeuralNetClassifier

from skfocal import Checkpoint, Report, as_column, expected_calibration_error, metrics
from skfocal._estimator import fitted_model
from skfocal._estimator.fitted_model import FittedModel
from skfocal.report import _answers, _page

EVIL = '<script>alert("x")</script>'
VOID = {"meta", "link", "br", "img", "path", "use", "image", "rect"}


class Page(HTMLParser):
    """Read a page; remember its elements, their attributes and the text within each kind."""

    def __init__(self, html):
        super().__init__()
        self.elements, self.open, self.texts = [], [], []
        self.feed(html)
        self.close()
        assert not [tag for tag in self.open if tag not in VOID]

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        while self.open[-1] in VOID and self.open[-1] != tag:
            self.open.pop()
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "style" not in self.open and data.strip():
            self.texts.append(data.strip())

    @property
    def text(self):
        return " ".join(self.texts)

    def titles(self):
        return [self.texts[i] for i, text in enumerate(self.texts) if text in PARTS]


PARTS = (
    "Classes",
    "Errors",
    "Where the classes meet",
    "Probabilities",
    "Hardest documents",
    "Training",
)


@pytest.fixture(scope="module")
def make(make_of_few_words):
    """Return a function that makes classifiers of few words, which fit fast."""
    return make_of_few_words


def settings_of_matplotlib():
    return dict(matplotlib.rcParams), plt.get_fignums()


@pytest.fixture(scope="module")
def drawn(make):
    """A report with its page, and matplotlib's settings before and after that was drawn."""
    X, y = imbalanced()
    report = make(max_epochs=1).fit(X, y).report([EVIL, *X], ["ham", *y])
    before = settings_of_matplotlib()
    report._repr_html_()
    return report, before, settings_of_matplotlib()


@pytest.fixture
def mistaken():
    """Texts of three classes of which some have a wrong label."""
    X, y = imbalanced(24, 12)
    X, y = X + [f"eggs bacon number {i}" for i in range(8)], np.append(y, 8 * ["eggs"])
    y[::9] = "spam"
    return X, y


class Linear(torch.nn.Module):
    """Two probabilities of a vector."""

    def __init__(self, width):
        super().__init__()
        self.linear = torch.nn.Linear(width, 2)

    def forward(self, X):
        return self.linear(X).softmax(1)


def tfidf():
    return make_pipeline(TfidfVectorizer(), LogisticRegression())


def check_page(report):
    """Check what holds for every page; return it."""
    html = report._repr_html_()
    page = Page(html)
    assert "script" not in {tag for tag, _ in page.elements}
    for tag, attributes in page.elements:
        for name, value in attributes.items():
            assert not name.startswith("on"), (tag, name)
            if name in ("src", "href", "xlink:href", "data", "action"):
                assert value.startswith(("#", "data:")), value
    outside = set(re.findall(r"https?://[^\s\"'<>)]+", html))
    assert outside <= {"http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"}
    assert "@import" not in html and not re.search(r"url\((?!#)", html)
    figures = [attributes for tag, attributes in page.elements if tag == "svg"]
    assert figures and all(a["role"] == "img" and a["aria-label"] for a in figures)
    names = [a["id"] for _, a in page.elements if "id" in a]
    used = re.findall(r"(?:url\(#|href=\"#)([^\")]+)", html)
    assert set(used) <= set(names)
    return page


def rows_of(page):
    """Return, for each text, whether it follows the word "row", and the text."""
    return [i > 0 and page.texts[i - 1] == "row" for i in range(len(page.texts))], page.texts


def test_numbers_are_those_of_scikit_learn(make, mistaken):
    X, y = mistaken
    clf = make(alpha="balanced", proba="natural", decision="prior", prior="uniform").fit(X, y)
    report = clf.report(X, y)
    predicted, proba, classes = clf.predict(X), clf.predict_proba(X), clf.classes_
    counts = {label: (y == label).sum() for label in classes}
    order = sorted(classes, key=lambda label: -counts[label])
    assert report.labels.tolist() == report.per_class["label"].tolist() == order
    expected = precision_recall_fscore_support(y, predicted, labels=order, zero_division=np.nan)
    found = [report.per_class[name] for name in ("precision", "recall", "f1", "support")]
    np.testing.assert_allclose(found, expected)
    np.testing.assert_array_equal(
        report.confusion_matrix, confusion_matrix(y, predicted, labels=order)
    )
    columns = [classes.tolist().index(label) for label in order]
    np.testing.assert_allclose(
        report.per_class["average_precision"],
        [average_precision_score(y == classes[c], proba[:, c]) for c in columns],
    )
    np.testing.assert_allclose(report.per_class["train_share"], clf.class_prior_[columns])
    np.testing.assert_allclose(report.per_class["test_share"], [counts[c] / len(y) for c in order])
    assert report.per_class["predicted"].tolist() == [(predicted == c).sum() for c in order]
    assert report.overall == {
        "accuracy": accuracy_score(y, predicted),
        "balanced accuracy": pytest.approx(balanced_accuracy_score(y, predicted)),
        "F1, macro": f1_score(y, predicted, average="macro"),
        "F1, weighted": f1_score(y, predicted, average="weighted"),
        "log-loss": pytest.approx(log_loss(y, proba)),
        "calibration error": pytest.approx(expected_calibration_error(y, proba)),
        "always the most frequent class": max(counts.values()) / len(y),
    }
    page = check_page(report)
    for value in report.overall.values():
        assert f"{value:.3f}" in page.texts
    assert page.titles() == list(PARTS)
    assert len(pd.DataFrame(report.per_class)) == 3 and len(pd.DataFrame(report.hardest)) == 20
    items = [text for is_row, text in zip(*rows_of(page), strict=True) if is_row]
    meeting = report.confused_pairs.documents["row"]
    assert items == [str(row) for row in (*meeting, *report.hardest["row"])]
    assert report.versions["scikit-learn"] in page.texts
    assert "balanced" in page.text and report.params["alpha"] == "balanced"
    assert report.history["epoch"] == [1, 2]
    assert f"{clf.history_[1, 'train_loss']:.3f}" in page.texts


def test_most_frequent_errors_are_those_of_the_confusion_matrix(make, mistaken):
    X, y = mistaken
    clf = make(max_epochs=6, batch_size=8).fit(X, y)
    report = clf.report(X, y)
    pairs = [(t, p) for t, p in zip(y, clf.predict(X), strict=True) if t != p]
    found = list(zip(report.confusions["true"], report.confusions["predicted"], strict=True))
    numbers = [pairs.count(pair) for pair in found]
    assert set(found) == set(pairs) and numbers == report.confusions["documents"]
    assert numbers == sorted(numbers, reverse=True) and len(pairs) > 2
    shares = [n / (y == true).sum() for n, (true, _) in zip(numbers, found, strict=True)]
    np.testing.assert_allclose(report.confusions["share"], shares)


@pytest.mark.parametrize("loss", ["focal", "cross_entropy"])
def test_hardest_documents_have_the_highest_focal_weights(make, mistaken, loss):
    X, y = mistaken
    clf = make(loss=loss, gamma=3.0, alpha="balanced", proba="natural").fit(X, y)
    report = clf.report(X, y, n_hardest=7)
    codes = np.searchsorted(clf.classes_, y)
    own, predicted = clf.predict_proba(X)[range(len(y)), codes], clf.predict(X)
    weight = 1 - own
    if loss == "focal":
        weight = (1 - clf.set_params(proba="softmax").predict_proba(X)[range(len(y)), codes]) ** 3
    order = np.argsort(-weight, kind="stable")[:7]
    assert report.hardest["row"] == order.tolist()
    np.testing.assert_allclose(report.hardest["focal_weight"], weight[order])
    np.testing.assert_allclose(report.hardest["probability"], own[order])
    assert report.hardest["document"] == [X[i] for i in order]
    assert report.hardest["true"] == y[order].tolist()
    assert report.hardest["predicted"] == predicted[order].tolist()
    assert report.gamma == (3.0 if loss == "focal" else 1)
    assert clf.report(X, y, n_hardest=0).hardest["row"] == []
    assert len(clf.report(X, y, n_hardest=99).hardest["row"]) == len(y)


def alternatives(report):
    """Return the text alternatives of the figures of a page."""
    return [a["aria-label"] for tag, a in check_page(report).elements if tag == "svg"]


def test_each_figure_says_its_main_numbers(make, mistaken):
    X, y = mistaken
    report = make(max_epochs=2, train_split=0.3).fit(X, y).report(X, y)
    said = alternatives(report)
    label, share = report.labels[0], report.per_class["test_share"][0]
    trained = report.per_class["train_share"][0]
    losses, held_out = (report.history[name] for name in ("train_loss", "valid_loss"))
    right = round(report.overall["accuracy"] * len(y))
    average = report.per_class["average_precision"][0]
    for expected in (
        f"Shares of the classes in these documents: {label} {100 * share:.3g} % "
        f"({100 * trained:.3g} % in training), ",
        f"Average precision: {label} {average:.2f}, ",
        f"class first: {right} of {len(y)} documents are on the diagonal. Most frequent errors: "
        f"{report.confusions['true'][0]} as {report.confusions['predicted'][0]} "
        f"{report.confusions['documents'][0]}",
        f"accuracy {right / len(y):.3f}, expected calibration error "
        f"{report.overall['calibration error']:.3f}.",
        f"Right and wrong decisions by confidence: {right} of {len(y)} documents right.",
        f"2 epochs: training loss {losses[0]:.3f} in the first, {losses[-1]:.3f} in the last; "
        f"held-out loss {held_out[0]:.3f} in the first",
        f"{label} {100 * trained:.3g} % of the documents and ",
    ):
        assert sum(expected in text for text in said) == 1, (expected, said)


def test_of_many_classes_the_first_and_the_last_are_said():
    y = np.repeat([f"class {c:02}" for c in range(9)], range(18, 0, -2))
    model = DummyClassifier().fit(y[:, None], y)
    said = alternatives(Report.from_estimator(model, y[:, None], y))
    assert "class 04 11.1 %; last of 9: class 08 2.22 %." in said[0]
    assert "lowest of 9: class 08 0.02." in said[1]
    said = alternatives(Report.from_estimator(model, y[:18, None], y[:18]))
    assert said[0].endswith("8 without a document.")


def test_one_pass_over_the_documents(make, data, monkeypatch):
    clf = make().fit(*data)
    seen = []
    each_answer = FittedModel.each_answer
    monkeypatch.setattr(
        FittedModel, "each_answer", lambda self, X: seen.append(len(X)) or each_answer(self, X)
    )
    clf.report(*data)
    assert seen == [len(data[0])]


def test_everything_is_escaped(make, tiny):
    X = [f"{EVIL} $x^2$ & {i} \x1b[31m \ud800 \u202e" for i in range(8)] + ["plain"] * 8
    labels = [EVIL, "$\\frac", "_a", "</style><img src=//x.org onerror=alert(1)>", "\u4e2d\n\t", ""]
    y = np.array([labels[i % 6] for i in range(16)], dtype=object)
    clf = make(model=tiny, max_epochs=1).fit(X, y)  # few words would be warned of
    clf.set_params(model='"><script>alert(1)</script>')
    report = clf.report(X, y)
    page = check_page(report)
    html = report._repr_html_()
    assert EVIL in page.text and "<script" not in html and "<img" not in html
    assert "\x1b" not in html and "\ud800" not in html
    assert html.count("</style>") == 1
    assert "tex2jax_ignore" in page.elements[0][1]["class"]


def test_labels_with_a_lone_surrogate_make_a_page(tmp_path):
    X, y = ["win cash", "win a prize", "lunch", "team lunch"] * 3, ["sp\ud800am", "ham", "ham"] * 4
    model = make_pipeline(TfidfVectorizer(), LogisticRegression()).fit(X, y)
    report = Report.from_estimator(model, X, y)
    report.save(tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "sp am" in Page(page).text and page.count("<svg") >= 3
    other = Report.from_estimator(model, X, y)
    ids = [re.findall(r'id="(\w+)"', r._repr_html_()) for r in (report, other)]
    assert ids[0] == ids[1]  # the same names in every run


def test_the_file_is_whole_and_forbids_scripts_and_the_network(drawn, tmp_path):
    report = drawn[0]
    report.save(tmp_path / "report.html")
    html = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert html.startswith("<!DOCTYPE html>")
    page = Page(html)
    policy = [a for tag, a in page.elements if a.get("http-equiv") == "Content-Security-Policy"]
    assert policy[0]["content"].startswith("default-src 'none';")
    assert page.texts[0] == "Report of BertFocalClassifier"
    assert report._repr_html_() in html


def test_styles_reach_nothing_else_in_a_notebook(drawn):
    html = drawn[0]._repr_html_()
    (styles,) = re.findall(r"<style[^>]*>(.*?)</style>", html, re.DOTALL)
    plain = re.sub(r"@media[^{]*{(.*?})\s*}", r"\1", styles, flags=re.DOTALL)
    selectors = [part for rule in re.findall(r"([^{}]+){", plain) for part in rule.split(",")]
    assert len(selectors) > 20
    assert all(selector.strip().startswith(".skfocal-page") for selector in selectors)
    assert "<html" not in html and "<body" not in html


def test_several_labels_a_document(make, mistaken):
    X, y = mistaken
    labels = [{c} | ({"long"} if len(x) > 30 else set()) for x, c in zip(X, y, strict=True)]
    clf = make(max_epochs=4).fit(X, labels)
    report = clf.report(X, labels)
    truth = np.array([[c in row for c in clf.classes_] for row in labels]).astype(int)
    predicted, proba = clf.predict(X), clf.predict_proba(X)
    assert report.overall["all labels right"] == clf.score(X, labels)
    assert report.overall["Hamming loss"] == pytest.approx(hamming_loss(truth, predicted))
    losses = [log_loss(truth[:, c], proba[:, c]) for c in range(4)]
    assert report.overall["log-loss"] == pytest.approx(np.mean(losses))
    order = [clf.classes_.tolist().index(label) for label in report.labels]
    assert (np.diff(truth.sum(0)[order]) <= 0).all()
    expected = precision_recall_fscore_support(truth, predicted, zero_division=np.nan)
    found = [report.per_class[name] for name in ("precision", "recall", "f1", "support")]
    np.testing.assert_allclose(found, np.array(expected)[:, order])
    plain = clf.set_params(proba="softmax").predict_proba(X)
    weight = (1 - np.where(truth, plain, 1 - plain)) ** 2
    assert report.hardest["row"] == np.argsort(-weight.max(1), kind="stable")[:20].tolist()
    worst = clf.classes_[weight.argmax(1)[report.hardest["row"]]]
    assert report.hardest["label"] == worst.tolist()
    assert report.confusion_matrix is None
    page = check_page(report)
    left_out = ("Errors", "Where the classes meet")
    assert page.titles() == [part for part in PARTS if part not in left_out]
    again = clf.set_params(proba="auto").report(X, truth)
    assert again.overall == report.overall


@pytest.mark.parametrize("kind", [bool, int, str])
def test_binary_labels_of_any_kind(make, data, kind):
    X, y = data
    y = (y == "spam") if kind is bool else (y == "spam").astype(int).astype(kind)
    report = make(max_epochs=1).fit(X, y).report(X, pd.Series(y))
    assert report.labels.tolist() == [kind(0), kind(1)]
    if kind is bool:  # the other pages are of str, and a lone 1 is in each
        assert str(kind(1)) in check_page(report).texts


def test_a_single_document_and_absent_classes(make, mistaken):
    X, y = mistaken
    clf = make(max_epochs=1).fit(X, y)
    report = clf.report(X[:1], y[:1])
    assert report.per_class["support"].tolist() == [1, 0, 0]
    assert np.isnan(report.per_class["recall"]).tolist() == [False, True, True]
    assert "1 document, 3 classes" in check_page(report).text
    few = y != "eggs"
    report = clf.report([x for x, keep in zip(X, few, strict=True) if keep], y[few])
    assert report.labels[-1] == "eggs" and np.isnan(report.per_class["average_precision"][-1])
    check_page(report)


def test_labels_that_fit_has_not_seen_are_named(make, data):
    X, y = data
    clf = make(max_epochs=1).fit(X, y)
    message = (
        r"y must hold only labels that the classifier was fitted with, \['ham', 'spam'\]. Got \['"
    )
    with pytest.raises(ValueError, match=message + r"eggs'\] as well"):
        clf.report(X, ["eggs", *y[1:]])
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        clf.report(X, y[1:])
    with pytest.raises(ValueError) as caught:
        clf.report(X, ["eggs", *y[1:]])
    assert pickle.loads(pickle.dumps(caught.value.__cause__)).unknown == ["eggs"]
    with pytest.raises(TypeError, match="row 0"):
        clf.report([None, *X[1:]], y)
    with pytest.raises(ValueError, match="n_hardest must be an int of at least 0"):
        clf.report(X, y, n_hardest=-1)
    with pytest.raises(NotFittedError):
        clone(clf).report(X, y)


def test_whatever_is_around_the_classifier(make, data):
    X, y = data
    expected = make().fit(X, y).report(X, y)
    search = GridSearchCV(make(), {"gamma": [2.0]}, cv=2).fit(X, y)
    pipeline = make_pipeline(FunctionTransformer(as_column), "passthrough", make()).fit(X, y)
    frozen = FrozenEstimator(search.best_estimator_)
    for model in (search, pipeline, frozen):
        report = Report.from_estimator(model, X, y)
        assert report.overall == expected.overall and report.hardest == expected.hardest
        assert report.history["train_loss"] == expected.history["train_loss"]
    assert Report.from_estimator(pipeline, X, y).name == "Pipeline, BertFocalClassifier"
    over = RandomOverSampler(random_state=0)
    resampled = make_imblearn_pipeline(FunctionTransformer(as_column), over, make()).fit(X, y)
    report = Report.from_estimator(resampled, X, y)
    assert report.overall["accuracy"] == resampled.score(X, y)
    np.testing.assert_allclose(report.per_class["train_share"], 0.5)


def test_any_classifier_with_probabilities(mistaken):
    X, y = mistaken
    model = tfidf().fit(X, y)
    report = Report.from_estimator(model, X, y)
    assert report.overall["accuracy"] == model.score(X, y) and report.gamma == 1
    own = model.predict_proba(X)[range(len(y)), np.searchsorted(model.classes_, y)]
    assert report.hardest["row"] == np.argsort(own, kind="stable")[:20].tolist()
    page = check_page(report)
    assert "Training" not in page.titles() and "train_share" not in report.per_class
    two = y != "eggs"
    X, y = [x for x, keep in zip(X, two, strict=True) if keep], y[two]
    never = FixedThresholdClassifier(tfidf(), threshold=1.1, pos_label="spam").fit(X, y)
    report = Report.from_estimator(never, X, y)
    assert report.per_class["predicted"].tolist()[report.labels.tolist().index("spam")] == 0
    rest = OneVsRestClassifier(tfidf()).fit(X, np.c_[y == "ham", y == "spam"].astype(int))
    labels = np.c_[y == "ham", y == "spam"].astype(int)
    assert Report.from_estimator(rest, X, labels).overall["all labels right"] > 0.5
    with pytest.raises(TypeError, match="must have predict_proba"):
        Report.from_estimator(make_pipeline(TfidfVectorizer(), LinearSVC()).fit(X, y), X, y)


def test_given_probabilities_make_the_report_of_the_classifier(mistaken):
    X, y = mistaken
    words = make_pipeline(TfidfVectorizer(), LogisticRegression()).fit(X, y)
    expected = Report.from_estimator(words, X, y)
    proba = words.predict_proba(X)
    report = Report.from_predictions(X, y, proba, name="out of fold")
    assert report.overall == expected.overall and report.hardest == expected.hardest
    np.testing.assert_array_equal(report.confusion_matrix, expected.confusion_matrix)
    for name, column in expected.per_class.items():
        np.testing.assert_array_equal(report.per_class[name], column)
    page = check_page(report)
    assert "Report of out of fold" in page.texts
    assert page.titles() == [part for part in PARTS if part != "Training"]
    wider = np.c_[proba, np.zeros(len(X))]
    absent = Report.from_predictions(X, y, wider, classes=[*words.classes_, "zz"])
    assert absent.labels.tolist() == [*expected.labels, "zz"]
    assert absent.overall == expected.overall


def test_given_probabilities_of_several_labels():
    X, y = ["one", "two", "three"], np.array([[1, 0], [1, 1], [0, 0]])
    proba = np.array([[0.9, 0.2], [0.6, 0.1], [0.7, 0.3]])
    report = Report.from_predictions(X, y, proba, classes=["b", "a"])
    assert report.hardest["row"] == [1, 2, 0]
    assert report.hardest["label"] == ["a", "b", "a"]
    np.testing.assert_allclose(report.hardest["probability"], [0.1, 0.3, 0.8])
    assert report.overall["all labels right"] == 1 / 3


def test_probabilities_that_cannot_be_those_of_the_documents():
    X, y, proba = ["one", "two"], ["a", "b"], np.array([[0.9, 0.1], [0.5, 0.5]])
    with pytest.raises(ValueError, match=r"shape \(documents, classes\), \(2, 2\). Got \(2, 3\)"):
        Report.from_predictions(X, y, np.c_[proba, [0, 0]])
    with pytest.raises(ValueError, match="in \\[0, 1\\]. Got values from -0.1"):
        Report.from_predictions(X, y, proba - 0.2)
    with pytest.raises(ValueError, match="Input proba contains NaN"):
        Report.from_predictions(X, y, proba * np.nan)
    with pytest.raises(ValueError, match="classes must be sorted"):
        Report.from_predictions(X, y, proba, classes=["b", "a"])
    with pytest.raises(
        ValueError, match=r"labels that are in classes, \['a', 'c'\]. Got \['b'\] as well"
    ):
        Report.from_predictions(X, y, proba, classes=["a", "c"])
    with pytest.raises(ValueError, match="n_hardest must be"):
        Report.from_predictions(X, y, proba, n_hardest=-1)


def test_rows_of_several_columns_are_shown_together(data):
    X, y = data
    table = pd.DataFrame({"title": [f"title {i}" for i in range(len(X))], "text": X})
    columns = make_column_transformer((TfidfVectorizer(), "title"), (TfidfVectorizer(), "text"))
    model = make_pipeline(columns, LogisticRegression()).fit(table, y)
    report = Report.from_estimator(model, table, y)
    row = report.hardest["row"][0]
    assert report.hardest["document"][0] == f"title {row} | {X[row]}"


@pytest.mark.parametrize("n_classes", [8, 24, 62])
def test_many_classes_are_all_named(n_classes):
    rng = np.random.RandomState(0)
    y = np.repeat([f"class {c:02}" for c in range(n_classes)], rng.randint(2, 4, n_classes))
    model = DummyClassifier(strategy="stratified", random_state=0).fit(y[:, None], y)
    report = Report.from_estimator(model, y[:, None], y)
    page = check_page(report)
    html = report._repr_html_()
    matrix = html[html.index("Confusion matrix, most") : html.index(">Where the classes meet<")]
    n_named = n_classes if n_classes <= 60 else 59
    for label in report.labels[:n_named]:
        assert matrix.count(f">{label}<") == 2  # on both axes
    assert ("3 others" in matrix) == (n_classes == 62)
    assert all(label in page.texts for label in report.labels)


def test_long_names_that_begin_alike_stay_apart():
    y = np.array(["the same beginning of a very long name, " + end for end in "aabbbc"])
    model = DummyClassifier().fit(y[:, None], y)
    html = Report.from_estimator(model, y[:, None], y)._repr_html_()
    name = "the same beginning of a very…"
    # In the balance and on both axes of the matrix; the second also in a pair, after the first.
    assert html.count(f">{name}<") == 3 and html.count(f">{name} #2<") == 4
    assert f">{name},<" in html


def message_without_matplotlib():
    """Return what a report says to who has no matplotlib; only in a process of its own."""
    for name in [*sys.modules]:
        if name.partition(".")[0] in ("matplotlib", "skfocal"):
            del sys.modules[name]
    sys.modules["matplotlib"] = None
    import skfocal

    try:
        skfocal.Report.from_estimator(DummyClassifier().fit([["a"]], ["b"]), [["a"]], ["b"])
    except ImportError as error:
        return str(error)


def test_without_matplotlib_the_error_names_the_extra():
    reading, writing = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of threads beside a fork
        child = os.fork()
    if not child:
        try:
            os.write(writing, str(message_without_matplotlib()).encode())
        finally:
            os._exit(0)
    os.close(writing)
    with open(reading) as pipe:
        said = pipe.read()
    os.waitpid(child, 0)
    assert said == "Report needs matplotlib: pip install 'skfocal[examples]'"


def test_figures_leave_the_styles_of_matplotlib_alone(drawn):
    _, before, after = drawn
    assert after == before


def test_the_page_is_that_of_the_moment_when_it_was_made(make, data):
    X, y = data
    clf = make(max_epochs=1, gamma=1.5).fit(X, y)
    report = clf.report(X, y)
    loss = clf.history_[0, "train_loss"]
    clf.set_params(gamma=0.5, max_epochs=3).fit(X, y)
    assert report.history["epoch"] == [1] and report.params["gamma"] == 1.5
    texts = check_page(report).texts
    assert texts[texts.index("gamma") + 1] == "1.5" and f"{loss:.3f}" in texts
    assert f"{clf.history_[2, 'train_loss']:.3f}" not in texts


def test_a_history_of_another_kind_is_left_alone(data):
    X, y = data
    codes = (y == "spam").astype(np.int64)
    dense = FunctionTransformer(lambda X: X.toarray().astype(np.float32))
    width = len(TfidfVectorizer().fit(X).vocabulary_)
    net = NeuralNetClassifier(
        Linear, module__width=width, max_epochs=1, train_split=None, verbose=0
    )
    model = make_pipeline(TfidfVectorizer(), dense, net).fit(X, codes)
    assert len(model[-1].history_) == 1
    assert Report.from_estimator(model, X, codes).history == {}


def test_labels_and_paths_that_look_like_something_else(make, data):
    X, y = data
    labels = np.where(y == "spam", "fill: #000000", "stroke: #010203")
    clf = make(max_epochs=1).fit(X, labels).set_params(checkpoint="~/private/run")
    report = clf.report(X, labels)
    html = report._repr_html_()
    assert "fill: currentColor<" not in html and ">fill: #000000" in html
    assert "private" not in html and "…/run" in html
    clf.set_params(checkpoint=Checkpoint("/home/alice/private/run", steps=7))
    html = clf.report(X, labels)._repr_html_()
    assert "private" not in html and "…/run" in html and "steps=7" in html
    with pytest.raises(ValueError, match="n_hardest must be an int .* Got 2.5"):
        clf.report(X, labels, n_hardest=2.5)


@pytest.mark.parametrize("several", [False, True])
def test_a_report_in_slices_is_that_of_the_whole(make, data, several, monkeypatch):
    X, y = data
    if several:
        y = np.stack([y == "ham", y == "spam", np.arange(len(y)) % 3 == 0], axis=1).astype(int)
    clf = make(alpha="balanced").fit(X, y)
    whole = clf.report(X, y)
    monkeypatch.setattr(fitted_model, "_ANSWERS", 15)
    monkeypatch.setattr(_answers, "_VALUES", 15)
    monkeypatch.setattr(metrics, "_DECISIONS", 15)
    sliced = clf.report(X, y)
    assert sliced.hardest == whole.hardest and sliced.confusions == whole.confusions
    assert sliced.overall == pytest.approx(whole.overall, rel=1e-12)
    for name, column in whole.per_class.items():
        np.testing.assert_array_equal(sliced.per_class[name], column)


def test_curves_are_drawn_of_so_many_classes(monkeypatch):
    rng = np.random.RandomState(0)
    y = np.repeat(np.arange(12), np.arange(12, 0, -1))
    X = rng.normal(size=(len(y), 3))
    clf = DummyClassifier(strategy="prior").fit(X, y)
    assert "most frequent classes are shown" not in Report.from_estimator(clf, X, y)._repr_html_()
    drawn = []
    monkeypatch.setattr(_page, "_MOST_CURVES", 5)
    display = _page.ClassPrecisionRecallDisplay
    monkeypatch.setattr(
        _page, "ClassPrecisionRecallDisplay", lambda *a: drawn.append(list(a[0])) or display(*a)
    )
    page = Report.from_estimator(clf, X, y)._repr_html_()
    assert drawn == [[0, 1, 2, 3, 4]]
    assert "The 5 most frequent classes are shown." in page
