"""Confused pairs and maps: planted facts found again, other ways to compute them, the edges."""

import collections

import matplotlib
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from conftest import imbalanced
from scipy import sparse
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA, TruncatedSVD
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.dummy import DummyClassifier
from sklearn.ensemble import HistGradientBoostingClassifier, VotingClassifier
from sklearn.exceptions import NotFittedError
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.manifold import trustworthiness
from sklearn.metrics.pairwise import cosine_similarity
from sklearn.model_selection import GridSearchCV
from sklearn.naive_bayes import GaussianNB
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from test_report import EVIL, Page

from skfocal import (
    BertFocalClassifier,
    ConfusedPairsDisplay,
    FeatureMapDisplay,
    OnnxClassifier,
    Report,
    as_column,
    fetch_reuters,
)
from skfocal._estimator.fitted_model import FittedModel
from skfocal.displays import _features, _pairs_html
from skfocal.displays._map import _thinned
from skfocal.displays._pairs import _telling_words

matplotlib.use("Agg")
import matplotlib.pyplot as plt  # noqa: E402


@pytest.fixture(autouse=True)
def close():
    yield
    plt.close("all")


WORDS = {"tea": "leaf green cup brew", "coffee": "bean roast cup brew", "ship": "port sail deck"}


def planted(n=(40, 12, 20), seed=0):
    """Texts of three classes of which tea and coffee share words, and their labels."""
    rng = np.random.RandomState(seed)
    y = np.repeat([*WORDS], n)
    X = [" ".join(rng.choice(WORDS[c].split(), 6)) + f" number{i}" for i, c in enumerate(y)]
    return X, y


@pytest.fixture(scope="module")
def linear():
    """A pipeline that confuses, texts and their labels."""
    X, y = planted()
    learned = y.copy()
    learned[:6], learned[40:43], learned[50] = "coffee", "tea", "ship"
    return make_pipeline(TfidfVectorizer(), LogisticRegression(C=30)).fit(X, learned), X, y


def test_pairs_are_counted_in_both_directions(linear):
    model, X, y = linear
    display = ConfusedPairsDisplay.from_estimator(model, X, y)
    predicted = model.predict(X)
    counts = collections.Counter(
        frozenset(pair)
        for pair in zip(y.tolist(), predicted.tolist(), strict=True)
        if len(set(pair)) > 1
    )
    pairs = display.pairs
    found = dict(
        zip(map(frozenset, zip(pairs["first"], pairs["second"], strict=True)),
            np.add(pairs["first_as_second"], pairs["second_as_first"]).tolist(), strict=True)
    )  # fmt: skip
    assert found == counts and [*found.values()] == sorted(found.values(), reverse=True)
    assert (pairs["first"][0], pairs["second"][0]) == ("tea", "coffee")  # the frequent one first
    assert pairs["first_as_second"][0] == ((y == "tea") & (predicted == "coffee")).sum() > 0
    one, other = display.bars_
    assert [bar.get_width() for bar in one] == pairs["first_as_second"]
    assert [bar.get_x() for bar in other] == pairs["first_as_second"]
    assert [bar.get_width() for bar in other] == pairs["second_as_first"]
    names = [label.get_text() for label in display.ax_.get_yticklabels()]
    assert names[0] == "tea, coffee" and len(names) == len(found)
    only = ConfusedPairsDisplay.from_estimator(model, X, y, n_pairs=1).pairs
    assert only["first"] == ["tea"] and len(only["second_words"]) == 1


def typical_of(vectors, rows, n=2):
    """Return the rows nearest to the mean of their vectors, and the cosines, by brute force."""
    own = vectors[rows]
    mean = own.mean(axis=0)
    cosines = [v @ mean / np.linalg.norm(v) / np.linalg.norm(mean) for v in own]
    best = np.argsort(-np.round(cosines, 6), kind="stable")[:n]
    return [int(rows[i]) for i in best], [float(cosines[i]) for i in best]


def test_typical_documents_are_nearest_to_the_mean_of_those_that_are_right(make):
    X, y = planted()
    clf = make(max_epochs=1).fit(X, y)
    display = ConfusedPairsDisplay.from_estimator(clf, X, y)
    assert display.space == "the features of BertFocalClassifier"
    predicted, vectors = clf.predict(X), clf.transform(X).astype(float)
    assert display.documents["row"]
    for number, (first, second) in enumerate(
        zip(display.pairs["first"], display.pairs["second"], strict=True)
    ):
        for label in (first, second):
            at = [
                i
                for i, (p, c) in enumerate(
                    zip(display.documents["pair"], display.documents["label"], strict=True)
                )
                if (p, c) == (number, label)
            ]
            right = np.flatnonzero((y == label) & (predicted == label))
            of = right if len(right) else np.flatnonzero(y == label)
            rows, cosines = typical_of(vectors, of)
            assert [display.documents["row"][i] for i in at] == rows
            found = [display.documents["similarity"][i] for i in at]
            np.testing.assert_allclose(found, cosines, rtol=1e-4)
            assert [display.documents["document"][i] for i in at] == [X[row] for row in rows]


def test_pipelines_without_transform_are_looked_into(linear):
    model, X, y = linear
    display = ConfusedPairsDisplay.from_estimator(model, X, y)
    assert display.space == "the vectors that LogisticRegression is given"
    vectors = model[:-1].transform(X).toarray()
    right = np.flatnonzero((y == "tea") & (model.predict(X) == "tea"))
    rows, _ = typical_of(vectors, right)
    assert display.documents["row"][:2] == rows
    search = GridSearchCV(model, {"logisticregression__C": [30]}, cv=2).fit(X, y)
    inside = search.best_estimator_
    found = ConfusedPairsDisplay.from_estimator(search, X, y)
    assert found.documents == ConfusedPairsDisplay.from_estimator(inside, X, y).documents
    plain = DummyClassifier(strategy="stratified", random_state=0).fit(X, y)
    of_words = ConfusedPairsDisplay.from_estimator(plain, X, y)
    assert of_words.space == "TF-IDF of the words" and of_words.documents["row"]


def test_telling_words_are_those_that_were_planted(linear):
    model, X, y = linear
    pairs = ConfusedPairsDisplay.from_estimator(model, X, y).pairs
    assert set(pairs["first_words"][0]) >= {"leaf", "green"}
    assert set(pairs["second_words"][0]) >= {"bean", "roast"}
    both = {*pairs["first_words"][0]} & {*pairs["second_words"][0]}
    assert not both and not any("number" in word for word in sum(pairs["first_words"], []))


def test_telling_words_of_real_text_come_back_on_other_documents():
    """Halves of the documents of rare classes agree on as many words as chance never would."""
    X, y = fetch_reuters("r52", subset="train", return_X_y=True)
    X = np.array(X, dtype=object)
    shares = []
    for rare in ("nat-gas", "cocoa", "alum", "rubber"):
        own, oil = np.flatnonzero(y == rare), np.flatnonzero(y == "crude")
        halves = (own[::2], oil[::2]), (own[1::2], oil[1::2])
        found = [_telling_words(X[b].tolist(), X[a].tolist())[1] for a, b in halves]
        shares.append(len({*found[0]} & {*found[1]}) / 8)
    assert np.mean(shares) >= 0.5, shares


def test_documents_go_through_the_model_once_and_a_hundred_of_a_class_again(make, monkeypatch):
    X, y = imbalanced(220, 60)
    clf = make(max_epochs=1).fit(X[:40], y[:40])
    codes = y.copy()
    codes[::4] = np.where(codes[::4] == "ham", "spam", "ham")
    passes = []
    features = FittedModel.features
    monkeypatch.setattr(
        FittedModel, "features", lambda self, X: passes.append(len(X)) or features(self, X)
    )
    report = clf.report(X, codes)
    assert report.confused_pairs.documents["row"] and len(passes) == 1
    predicted = clf.predict(X)
    right = [((codes == c) & (predicted == c)).sum() or (codes == c).sum() for c in clf.classes_]
    assert passes == [sum(min(n, 100) for n in right)] and max(right) > 100


@pytest.mark.parametrize(
    "container",
    [list, np.array, as_column, pd.Series, pl.Series, pa.array, lambda X: pd.DataFrame({"t": X})],
)
def test_containers_of_texts_give_the_same(make, container):
    X, y = planted()
    clf = make(max_epochs=1).fit(X, y)
    expected = ConfusedPairsDisplay.from_estimator(clf, X, y)
    found = ConfusedPairsDisplay.from_estimator(clf, container(X), y)
    assert found.pairs == expected.pairs and found.documents == expected.documents
    points = FeatureMapDisplay.from_estimator(clf, container(X), y).points
    np.testing.assert_allclose(points, FeatureMapDisplay.from_estimator(clf, X, y).points)


def test_a_classifier_at_the_end_of_a_pipeline_gives_its_features(make):
    X, y = planted()
    clf = make(max_epochs=1).fit(X, y)
    steps = make_pipeline(FunctionTransformer(as_column), FrozenEstimator(clf))
    found = ConfusedPairsDisplay.from_estimator(steps, X, y)
    assert found.documents == ConfusedPairsDisplay.from_estimator(clf, X, y).documents
    assert found.space == "the features of BertFocalClassifier"


def test_copies_of_a_document_are_shown_once():
    X = ["same words here"] * 5 + ["other words here", "third words there"] * 2
    y = ["a"] * 7 + ["b"] * 2
    model = DummyClassifier().fit(X, y)
    table = ConfusedPairsDisplay.from_estimator(model, X, y).documents
    shown = [d for d, label in zip(table["document"], table["label"], strict=True) if label == "a"]
    assert len(shown) == len(set(shown)) == 2


@pytest.mark.filterwarnings("ignore:Glyph")
def test_pairs_are_shown_and_printed_escaped():
    labels = [EVIL, "$\\frac", "_a", "</style><img src=//x.org onerror=alert(1)>", "\u4e2d\n\t", ""]
    y = np.array([labels[i % 6] for i in range(30)], dtype=object)
    X = [f"{EVIL} $x^2$ & {i} \x1b[31m \ud800 \u202e words" for i in range(30)]
    model = DummyClassifier(strategy="stratified", random_state=0).fit(X, y)
    display = ConfusedPairsDisplay.from_estimator(model, X, y)
    html = display._repr_html_()
    assert "<script" not in html and "<img" not in html and "\x1b" not in html
    assert "\ud800" not in html and EVIL in Page(html).text and html.count("</style>") == 1
    lines = str(display).split("\n")
    assert "documents confused (" in lines[0] and len(lines) > 10
    assert all(line.isprintable() and line.encode() for line in lines if line)
    display.figure_.canvas.draw()
    FeatureMapDisplay.from_estimator(model, X, y).figure_.canvas.draw()


def test_the_alternative_says_the_numbers(linear):
    model, X, y = linear
    display = ConfusedPairsDisplay.from_estimator(model, X, y)
    one, other = (display.pairs[k][0] for k in ("first_as_second", "second_as_first"))
    expected = f"taken for each other: tea taken for coffee {one}, the reverse {other}; "
    assert expected in _pairs_html.alt(display)


def test_without_errors_there_is_no_pair():
    X, y = ["a", "b"] * 5, ["a", "b"] * 5
    model = make_pipeline(TfidfVectorizer(token_pattern="."), LogisticRegression(C=100)).fit(X, y)
    display = ConfusedPairsDisplay.from_estimator(model, X, y)
    assert display.pairs["first"] == [] and str(display) == "no class is confused with another"
    assert "No class is confused with another." in display._repr_html_()
    display.figure_.canvas.draw()


def test_a_single_document_and_texts_without_words():
    X, y = ["!", "?", "...", "--"], ["a", "a", "a", "b"]
    model = DummyClassifier().fit(X, y)
    display = ConfusedPairsDisplay.from_estimator(model, X[-1:], y[-1:])
    assert display.pairs["first"] == ["b"] and display.pairs["first_words"] == [[]]
    assert display.documents["row"] == [0] and "It has no document." in display._repr_html_()
    assert ConfusedPairsDisplay.from_estimator(model, X, y).documents["row"] == [0, 1, 3]


def test_what_cannot_be_shown_is_refused(linear, make):
    model, X, y = linear
    with pytest.raises(ValueError, match="n_pairs must be an int of at least 1. Got 0"):
        ConfusedPairsDisplay.from_estimator(model, X, y, n_pairs=0)
    message = r"y must hold only labels that the classifier was fitted with, .* Got \['z'\] as well"
    with pytest.raises(ValueError, match=message):
        ConfusedPairsDisplay.from_estimator(model, X, np.where(y == "tea", "z", y))
    with pytest.raises(NotFittedError):
        ConfusedPairsDisplay.from_estimator(LogisticRegression(), X, y)
    one = DummyClassifier().fit(X, ["tea"] * len(X))
    with pytest.raises(ValueError, match=r"must know at least two classes. Got \['tea'\]"):
        ConfusedPairsDisplay.from_estimator(one, X, ["tea"] * len(X))
    with pytest.raises(TypeError, match="must be a classifier with predict .* Got KMeans"):
        ConfusedPairsDisplay.from_estimator(KMeans(2).fit(np.eye(4)), np.eye(4), [0, 1, 0, 1])
    several = make(max_epochs=1).fit(X, [{c, "all"} for c in y])
    with pytest.raises(ValueError, match="one label per document. Got a classifier of several"):
        ConfusedPairsDisplay.from_estimator(several, X, y)
    assert several.report(X, [{c} for c in y]).confused_pairs is None


def wrong_on_purpose(model, X, y):
    """Fit a pipeline to labels with errors, so that classes are confused with the true ones."""
    learned = y.copy()
    learned[:6], learned[40:43] = "coffee", "tea"
    return model.fit(X, learned)


DENSE = FunctionTransformer(lambda X: X.toarray())


@pytest.mark.parametrize(
    "classifier, name",
    [
        (LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto"), "LinearDiscriminantAnalysis"),
        (
            VotingClassifier(
                [("a", LogisticRegression(C=30)), ("b", GaussianNB())],
                voting="soft",
                flatten_transform=False,
            ),
            "VotingClassifier",
        ),
    ],
)
def test_a_transform_that_gives_no_vectors_is_left_out_and_named(classifier, name):
    X, y = planted()
    model = wrong_on_purpose(make_pipeline(TfidfVectorizer(), DENSE, classifier), X, y)
    found = Report.from_estimator(model, X, y).confused_pairs
    expected = f"the vectors that {name} is given, as {name}.transform gives no vectors"
    assert found.space == expected and expected in found._repr_html_()
    vectors = model[:-1].transform(X)
    right = np.flatnonzero((y == "tea") & (model.predict(X) == "tea"))
    assert found.documents["row"][:2] == typical_of(vectors, right)[0]
    assert FeatureMapDisplay.from_estimator(model, X, y).points.shape == (len(X), 2)


@pytest.mark.parametrize("form", ["coo", "csc", "lil", "bsr"])
def test_sparse_vectors_of_every_format_are_those_of_csr(form):
    X, y = planted()
    convert = FunctionTransformer(lambda X: X.asformat(form), accept_sparse=True)
    classifier = LogisticRegression(C=30)
    model = wrong_on_purpose(make_pipeline(TfidfVectorizer(), convert, classifier), X, y)
    plain = wrong_on_purpose(make_pipeline(TfidfVectorizer(), classifier), X, y)
    found = Report.from_estimator(model, X, y).confused_pairs
    assert found.documents == Report.from_estimator(plain, X, y).confused_pairs.documents
    assert found.documents["row"]


@pytest.mark.parametrize("container", ["pandas", "polars", "nullable", "list", "object"])
def test_numbers_in_any_container_are_vectors_and_not_words(container):
    X, y = planted()
    svd = TruncatedSVD(4, random_state=0)
    steps = [TfidfVectorizer(), svd]
    if container in ("pandas", "polars"):
        svd.set_output(transform=container)
    else:
        convert = {
            "nullable": lambda X: pd.DataFrame(X).astype("Float64"),
            "list": lambda X: X.tolist(),
            "object": lambda X: X.astype(object),
        }[container]
        steps.append(FunctionTransformer(convert))
    model = wrong_on_purpose(make_pipeline(*steps, LogisticRegression(C=30)), X, y)
    found = ConfusedPairsDisplay.from_estimator(model, X, y)
    assert found.space == "the vectors that LogisticRegression is given"
    vectors = np.asarray(model[:-1].transform(X), dtype=float)
    right = np.flatnonzero((y == "tea") & (model.predict(X) == "tea"))
    rows, cosines = typical_of(vectors, right)
    assert found.documents["row"][:2] == rows
    np.testing.assert_allclose(found.documents["similarity"][:2], cosines)
    points = FeatureMapDisplay.from_estimator(model, X, y).points
    expected = PCA(2, random_state=0).fit_transform(vectors)
    np.testing.assert_allclose(np.abs(points), np.abs(expected), atol=1e-8)


def test_texts_of_digits_in_a_frame_are_words():
    X = pd.DataFrame({"a": ["12", "12 7", "7", "3"], "b": ["1", "2", "3", "4"]})
    y = ["a", "a", "a", "b"]
    display = ConfusedPairsDisplay.from_estimator(DummyClassifier().fit(X, y), X, y)
    assert display.space == "TF-IDF of the words"


def test_missing_numbers_leave_nothing_to_compare():
    X = np.array([[0, np.nan], [1, 2], [np.nan, 3], [1, 1]] * 10)
    y = np.array(["a", "a", "a", "b"] * 10)
    model = HistGradientBoostingClassifier(max_iter=1, min_samples_leaf=30).fit(X, y)
    display = Report.from_estimator(model, X, y).confused_pairs
    assert display.space.startswith("nothing, as HistGradientBoostingClassifier is given missing")
    assert np.isfinite(FeatureMapDisplay.from_estimator(model, X, y).points).all()


def test_documents_that_are_predicted_wrong_do_not_move_the_mean():
    """Five of seven are wrong and lie elsewhere: near to the mean of all seven."""
    angles = np.radians([0, 4, 60, 61, 62, 63, 64, 90, 88, 86])
    X = np.column_stack([np.cos(angles), np.sin(angles)])
    y = np.array(["a"] * 7 + ["b"] * 3)
    decided = np.where(angles > 0.5, "b", "a")
    model = LogisticRegression(C=1000).fit(X, decided)
    assert model.predict(X).tolist() == decided.tolist()
    table = ConfusedPairsDisplay.from_estimator(model, X, y).documents
    assert table["row"][:2] == [0, 1] and table["label"][:2] == ["a", "a"]
    np.testing.assert_allclose(table["similarity"][:2], np.cos(np.radians(2)))


def test_a_word_that_only_one_document_has_does_not_count():
    assert _telling_words(["leaf green", "cup"], ["bean", "roast"]) == ([], [])
    assert _telling_words(["leaf green", "leaf"], ["bean", "roast"]) == (["leaf"], [])


def test_an_exported_graph_is_shown_as_the_estimator(onnx_folder, tiny):
    X, y = imbalanced()
    served = OnnxClassifier(onnx_folder)
    settings = {"max_epochs": 1, "lr": 3e-3, "batch_size": 8, "random_state": 0}
    clf = BertFocalClassifier(tiny, **settings).fit(X, y)
    truth = y.copy()
    truth[::5] = np.where(truth[::5] == "ham", "spam", "ham")
    report, expected = (Report.from_estimator(model, X, truth) for model in (served, clf))
    assert report.overall == pytest.approx(expected.overall, rel=1e-3)
    assert report.params == {} and report.name == "OnnxClassifier"
    assert "OnnxClassifier" in Page(report._repr_html_()).text
    pairs = ConfusedPairsDisplay.from_estimator(served, X, truth)
    assert pairs.pairs == expected.confused_pairs.pairs and pairs.space == "TF-IDF of the words"
    assert len(FeatureMapDisplay.from_estimator(served, X, truth).points) == len(X)
    with pytest.raises(
        TypeError, match="estimator must be a fitted classifier. Got str, which has"
    ):
        FeatureMapDisplay.from_estimator("model", X, y)


def test_a_graph_of_several_labels_has_no_pairs(tiny, tmp_path):
    X, y = imbalanced()
    clf = BertFocalClassifier(tiny, max_epochs=1, batch_size=8, random_state=0)
    clf.fit(X, [{c, "all"} for c in y]).to_onnx(tmp_path / "graph")
    served = OnnxClassifier(tmp_path / "graph")
    with pytest.raises(ValueError, match="one label per document. Got a classifier of several"):
        ConfusedPairsDisplay.from_estimator(served, X, y)
    with pytest.raises(ValueError, match="several labels per document, as OnnxClassifier predicts"):
        Report.from_estimator(served, X, y)


# -- the map -----------------------------------------------------------------------------------


def test_the_map_is_the_principal_plane_of_the_features(make):
    X, y = planted()
    clf = make(max_epochs=1).fit(X, y)
    display = FeatureMapDisplay.from_estimator(clf, X, y)
    vectors = clf.transform(X).astype(float)
    centred = vectors - vectors.mean(axis=0)
    _, values, axes = np.linalg.svd(centred, full_matrices=False)
    np.testing.assert_allclose(np.abs(display.points), np.abs(centred @ axes[:2].T), atol=1e-4)
    ratio = values[:2] ** 2 / (values**2).sum()
    np.testing.assert_allclose(display.explained_variance_ratio, ratio, rtol=1e-4)
    assert display.ax_.get_xlabel() == f"first component, {100 * ratio[0]:.0f} % of the variance"
    assert display.rows.tolist() == [*range(len(X))] and display.y.tolist() == y.tolist()


def test_the_map_of_sparse_vectors_is_that_of_dense_ones(linear):
    model, X, y = linear
    vectors = model[:-1].transform(X)
    assert sparse.issparse(vectors)
    expected = PCA(2, random_state=0).fit_transform(vectors.toarray())
    points = FeatureMapDisplay.from_estimator(model, X, y).points
    np.testing.assert_allclose(np.abs(points), np.abs(expected), atol=1e-8)


def test_rare_classes_are_drawn_last_and_larger(linear):
    model, X, y = linear
    points = FeatureMapDisplay.from_estimator(model, X, y).points_
    assert [*points] == ["tea", "ship", "coffee"]
    sizes = [points[c].get_sizes()[0] for c in points]
    order = [points[c].get_zorder() for c in points]
    assert sizes == sorted(sizes) and order == sorted(order) and len(set(order)) == 3
    shapes = {tuple(points[c].get_paths()[0].vertices.ravel().round(3)) for c in points}
    colours = {tuple(points[c].get_facecolor()[0]) for c in points}
    assert len(shapes) == len(colours) == 3  # either tells them apart


def test_of_many_classes_the_frequent_and_the_rare_have_colours():
    counts = [60, 50, 40, 30, 20, 15, 12, 10, 9, 8, 7, 6, 5, 4, 1]
    y = np.repeat([f"c{i:02}" for i in range(15)], counts)
    X = np.random.RandomState(0).normal(size=(len(y), 4))
    model = LogisticRegression().fit(X, y)
    display = FeatureMapDisplay.from_estimator(model, X, y)
    named = ["c00", "c01", "c02", "c08", "c09", "c10", "c11", "c12"]
    assert [*display.points_] == [None, *named]
    texts = [text.get_text() for text in display.ax_.get_legend().get_texts()]
    assert texts[0] == "7 others (92)" and texts[-1] == "c12 (5)"
    assert sum(len(p.get_offsets()) for p in display.points_.values()) == len(y)
    chosen = FeatureMapDisplay.from_estimator(model, X, y, labels=["c14", "c03"])
    assert [*chosen.points_] == [None, "c03", "c14"]
    for labels in ([], ["z"], "c03", [f"c{i:02}" for i in range(9)]):
        with pytest.raises(ValueError, match="labels must be one to 8 labels that documents have"):
            FeatureMapDisplay.from_estimator(model, X, y, labels=labels)


def test_frequent_classes_are_thinned_out_first():
    y = np.repeat([0, 1, 2, 3], [1000, 500, 10, 3])
    rows = _thinned(y, 100)
    assert np.bincount(y[rows]).tolist() == [43, 43, 10, 3]
    assert (np.diff(rows) > 0).all() and rows.tolist() == _thinned(y, 100).tolist()
    assert len(_thinned(np.arange(50), 20)) == 20
    X = np.random.RandomState(0).normal(size=(len(y), 3))
    display = FeatureMapDisplay.from_estimator(
        LogisticRegression().fit(X, y), X, y, max_documents=50
    )
    assert len(display.points) == len(display.rows) <= 50
    assert display.y.tolist() == y[display.rows].tolist()


def test_umap_keeps_neighbours_and_is_the_same_each_time():
    rng = np.random.RandomState(0)
    y = np.repeat([0, 1, 2], [40, 20, 10])
    X = 6 * np.eye(8)[y] + rng.normal(size=(70, 8))
    model = LogisticRegression().fit(X, y)
    first, again = (FeatureMapDisplay.from_estimator(model, X, y, method="umap") for _ in range(2))
    np.testing.assert_array_equal(first.points, again.points)
    assert trustworthiness(X, first.points, n_neighbors=10, metric="cosine") > 0.8
    assert first.explained_variance_ratio is None and first.ax_.get_xlabel() == "UMAP 1"
    few = FeatureMapDisplay.from_estimator(model, X[::20], y[::20], method="umap")
    assert np.isfinite(few.points).all() and len(few.points) == 4


def test_maps_of_little():
    X, y = np.ones((3, 1)), ["a", "b", "b"]
    display = FeatureMapDisplay.from_estimator(DummyClassifier().fit(X, y), X, y)
    assert (display.points == 0).all() and (display.explained_variance_ratio == 0).all()
    texts = ["a word", "a word", "!"]
    model = make_pipeline(TfidfVectorizer(), LogisticRegression()).fit(texts, y)
    assert np.isfinite(FeatureMapDisplay.from_estimator(model, texts, y).points).all()


@pytest.mark.parametrize("last", ["? ! .", "one word"])
def test_sparse_vectors_that_are_all_the_same_or_nearly_lie_on_a_point(last):
    """The solver of sparse matrices fails without any variance."""
    texts = ["one word and another"] * 20
    model = make_pipeline(TfidfVectorizer(token_pattern=r"\w+"), LogisticRegression())
    y = np.array(["a", "b"] * 10)
    model.fit([*texts[:18], "third thing", last], y)
    for documents in (["!"] * 20, texts):
        display = FeatureMapDisplay.from_estimator(model, documents, y)
        assert (display.points == 0).all() and (display.explained_variance_ratio == 0).all()
    display = FeatureMapDisplay.from_estimator(model, [*texts[:19], last], y)
    vectors = model[:-1].transform([*texts[:19], last]).toarray()
    expected = PCA(2, random_state=0).fit_transform(vectors)[:, 0]
    np.testing.assert_allclose(np.abs(display.points[:, 0]), np.abs(expected), atol=1e-8)


def test_a_label_that_is_none_is_named_by_its_row(linear):
    model, X, y = linear
    for missing in (None, np.nan, pd.NA):
        labels = [*y.tolist()[:5], missing, *y.tolist()[6:]]
        for container in (list, lambda v: pd.Series(v, dtype=object)):
            with pytest.raises(ValueError, match=r"label for each document. Got .* in row 5"):
                FeatureMapDisplay.from_estimator(model, X, container(labels))
    with pytest.raises(ValueError, match="a label for each document. Got None in row 5"):
        FeatureMapDisplay.from_estimator(model, X, pa.array([*y[:5], None, *y[6:]]))
    ragged = [[c] for c in y.tolist()]
    ragged[3] = ["tea", "ship"]
    with pytest.raises(ValueError, match=r"y must have one label .* Got \['tea'\] in row 0"):
        FeatureMapDisplay.from_estimator(model, X, ragged)
    mixed = [*y.tolist()[:5], ["tea", "ship"], *y.tolist()[6:]]
    with pytest.raises(
        ValueError, match=r"y must have one label .* Got \['tea', 'ship'\] in row 5"
    ):
        FeatureMapDisplay.from_estimator(model, X, mixed)
    for container in (list, pd.Series, pl.Series, pa.array):
        assert FeatureMapDisplay.from_estimator(model, X, container(y.tolist())).y.tolist() == [*y]


def test_maps_that_cannot_be_drawn_are_refused(linear, monkeypatch):
    model, X, y = linear
    for settings, message in (
        ({"method": "tsne"}, "method must be 'pca' or 'umap'. Got 'tsne'"),
        ({"max_documents": 2}, "max_documents must be an int of at least 3. Got 2"),
    ):
        with pytest.raises(ValueError, match=message):
            FeatureMapDisplay.from_estimator(model, X, y, **settings)
    with pytest.raises(ValueError, match="at least 3 documents for a map. Got 2"):
        FeatureMapDisplay.from_estimator(model, X[:2], y[:2])
    with pytest.raises(
        ValueError, match=r"y must have one label per document. Got shape \(72, 2\)"
    ):
        FeatureMapDisplay.from_estimator(model, X, np.ones((72, 2), int))
    with pytest.raises(
        ValueError, match="y must have one label per document. Got {'tea'} in row 0"
    ):
        FeatureMapDisplay.from_estimator(model, X, pd.Series([{c} for c in y.tolist()]))
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        FeatureMapDisplay.from_estimator(model, X, y[1:])
    monkeypatch.setitem(__import__("sys").modules, "umap", None)
    with pytest.raises(
        ImportError, match=r"method='umap' needs umap: pip install 'skfocal\[umap\]'"
    ):
        FeatureMapDisplay.from_estimator(model, X, y, method="umap")


def test_similarity_is_the_cosine_with_the_mean():
    vectors = np.random.RandomState(0).normal(size=(5, 3))
    expected = cosine_similarity(vectors, vectors.mean(0, keepdims=True))[:, 0]
    for form in (vectors, sparse.csr_array(vectors)):
        np.testing.assert_allclose(_features.similarity_to_mean(form), expected)
