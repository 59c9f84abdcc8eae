"""The audit finds what was planted in real text, and nothing else."""

import io
import pickle
import re
import sys
import warnings

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
import torch
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import pairwise_distances
from sklearn.model_selection import (
    GridSearchCV,
    ParameterGrid,
    StratifiedGroupKFold,
    cross_val_predict,
)
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, normalize
from test_report import Page, check_page
from transformers import AutoTokenizer

import skfocal
import skfocal.data_audit
from skfocal import Audit, BertFocalClassifier, audit, cache_info, fetch_reuters
from skfocal.data_audit import _doubts, _duplicates, _tables
from skfocal.data_audit._findings import sentences
from skfocal.data_audit._neighbours import Encoder, nearest

EVIL = "<script>alert('x')</script>"


@pytest.fixture(scope="module")
def reuters():
    """The beginnings of twelve documents of each of four classes of R8."""
    X, y = fetch_reuters("r8", subset="train", return_X_y=True)
    texts, labels = [], []
    for label in ("acq", "crude", "ship", "trade"):
        rows = [i for i in np.flatnonzero(y == label) if len(X[i].split()) >= 40]
        rows = [*rows[:10], *rows[11:13]] if label == "trade" else rows[:12]  # one tells it again
        texts += [" ".join(X[i].split()[:36]) for i in rows]
        labels += [label] * len(rows)
    assert len(texts) == 48
    return texts, labels


def changed(text, rows):
    """Return a text with other words in some places."""
    words = text.split()
    for k in rows:
        words[k] = f"other{k}"
    return " ".join(words)


@pytest.fixture(scope="module")
def planted(reuters):
    """Documents with one of each kind of trouble, and the rows where they are."""
    X, y = list(reuters[0]), list(reuters[1])
    rows = {}

    def plant(name, text, label):
        rows[name] = len(X)
        X.append(text)
        y.append(label)

    plant("copy", f"  {X[0].upper()}\n", y[0])
    plant("other label", X[13], "trade")
    plant("near", changed(X[20], [10, 30]), y[20])
    plant("near, other label", changed(X[30], [20]), "acq")
    plant("blank", " \t\n", "acq")
    plant("nothing", "", "crude")
    plant("one word", "oil", "crude")
    plant("long", " ".join(reuters[0][40:44]), "trade")
    plant("variant", "a new ship of the navy left the old port on monday morning", "Ship ")
    plant("variant, too", "ducks and geese are in the garden of my old grandmother", "ship")
    X_test = [X[0], changed(X[5], [12]), "nobody has ever written this sentence about whales"]
    y_test = ["acq", "crude", "whales"]
    return X, y, X_test, y_test, rows


@pytest.fixture(scope="module")
def found(planted, tiny):
    return audit(*planted[:4], model=tiny)


def rows_of(table, **wanted):
    """Return the rows of a table with these values, as dicts."""
    rows = [dict(zip(table, row, strict=True)) for row in zip(*table.values(), strict=True)]
    return [row for row in rows if all(row[name] == value for name, value in wanted.items())]


# -- what is found -------------------------------------------------------------------------


def test_planted_duplicates_are_found_and_no_others(found, planted):
    X, y, X_test, y_test, at = planted
    pairs = {
        (row["set"], row["row"], row["other_set"], row["other_row"]): (
            row["exact"],
            row["same_label"],
        )
        for row in rows_of(found.duplicates)
    }
    assert pairs == {
        ("training", 0, "training", at["copy"]): (True, True),
        ("training", 13, "training", at["other label"]): (True, False),
        ("training", 20, "training", at["near"]): (False, True),
        ("training", 30, "training", at["near, other label"]): (False, False),
        ("training", 0, "test", 0): (True, True),
        ("training", 5, "test", 1): (False, False),
    }
    assert found.duplicates["same_label"][:3] == 3 * [False]
    for row in rows_of(found.duplicates):
        documents = {"training": (X, y), "test": (X_test, y_test)}
        for side in ("", "other_"):
            texts, labels = documents[row[f"{side}set"]]
            assert texts[row[f"{side}row"]] == row[f"{side}document"]
            assert labels[row[f"{side}row"]] == row[f"{side}label"]
    assert found.overall["with a duplicate"] == 8
    assert found.overall["with a duplicate of another label"] == 4
    assert found.overall["test documents with a duplicate in training"] == 2


def test_overlap_is_the_jaccard_index_of_pairs_of_words(found):
    near = rows_of(found.duplicates, exact=False)
    assert len(near) == 3
    for row in near:
        both = [row["document"], row["other_document"]]
        counter = CountVectorizer(ngram_range=(2, 2), binary=True, token_pattern=r"\w+")
        counts = counter.fit_transform(both).toarray().astype(bool)
        distance = pairwise_distances(counts, metric="jaccard")[0, 1]
        assert row["overlap"] == pytest.approx(1 - distance)


def test_empty_and_nearly_empty_documents_are_found(found, planted):
    at = planted[4]
    assert [row["row"] for row in rows_of(found.short_documents)] == [
        at["blank"],
        at["nothing"],
        at["one word"],
    ]
    assert found.short_documents["tokens"] == [0, 0, 1]
    assert found.overall["empty"] == 2 and found.overall["nearly empty"] == 1


def test_labels_that_differ_in_case_and_blanks_are_found(found):
    assert found.label_variants == {
        "labels": [["Ship ", "ship"]],
        "documents": [[1, 13]],
        "test_documents": [[0, 0]],
    }


def test_labels_of_the_test_alone_are_a_finding(found):
    assert found.labels[-1] == "whales"
    assert found.per_class["documents"][-1] == 0 and found.per_class["test_documents"][-1] == 1
    assert np.isnan(found.per_class["cut_share"][-1])
    assert "Only test documents have the class 'whales'." in found.findings
    assert "No test document has the classes 'trade', 'ship', 'Ship '." in found.findings


def test_tokens_are_those_of_the_tokenizer(found, planted, tiny):
    X, y = planted[0], np.array(planted[1])
    tokenizer = AutoTokenizer.from_pretrained(tiny)
    ids = tokenizer(X, verbose=False)["input_ids"]
    lengths = np.array(list(map(len, ids)))
    assert found.max_length == 64
    assert found.overall["cut share"] == (lengths > 64).mean()
    for row in rows_of(found.per_class):
        own = lengths[y == row["label"]]
        if len(own):
            assert row["median_tokens"] == np.quantile(own, 0.5, method="higher")
            assert row["long_tokens"] == np.quantile(own, 0.95, method="higher")
            assert row["cut_share"] == (own > 64).mean()
    long = planted[4]["long"]
    assert lengths[long] > 64 and y[long] == "trade"


def test_unknown_tokens_are_counted_for_each_class(tiny):
    X = ["one two", "two three", "\U0001f996 four", "five \U0001f996"]
    table = audit(X, ["a", "a", "b", "b"], model=tiny).per_class
    assert dict(zip(table["label"], table["unknown_share"], strict=True)) == {"a": 0, "b": 0.5}
    found = audit(X, ["a", "a", "b", "b"], model=tiny)
    assert any("25 % of all tokens are unknown" in line for line in found.findings)


def test_a_class_inside_another_is_found(minilm, reuters):
    X = [x for x, label in zip(*reuters, strict=True) if label in ("acq", "ship")]
    y = np.array(["acq"] * 12 + ["ship"] * 12 + ["sport"] * 2, dtype="U6")
    X += ["a goal in the last minute won the football match for the home team"]
    X += ["the football team won the match by two goals, the coach said"]
    vectors = Encoder.load(minilm, None, False, False).embed(X, lambda n: None)
    cosines = vectors @ vectors.T
    np.fill_diagonal(cosines, -1)
    near = np.argsort(-cosines)[:, :5]
    inside = np.flatnonzero((y[near] == y[:, None]).all(axis=1))
    two, other = next(
        ([i, j], y[i])
        for i in inside
        for j in inside
        if i < j and y[i] == y[j] and i not in near[j] and j not in near[i]
    )
    y[two] = "hidden"
    y[24] = "alone"  # whose neighbours may agree, too
    found = audit(X, y, model=minilm)
    assert found.hidden_classes == {
        "label": ["hidden"],
        "documents": [2],
        "other": [other],
        "other_documents": [10],
    }
    (line,) = [line for line in found.findings if "lie among" in line]
    assert "'hidden'" in line and f"'{other}'" in line
    labels = y[near]
    own = {
        label: (labels[y == label] == label).sum() / (n * min(5, n - 1)) if n > 1 else np.nan
        for label, n in zip(*np.unique(y, return_counts=True), strict=True)
    }
    table = found.per_class
    shares = dict(zip(table["label"].tolist(), table["own_neighbours"].tolist(), strict=True))
    assert shares == pytest.approx(own, nan_ok=True)


def test_a_class_hides_in_larger_ones_only():
    classes = {
        "label": np.array(["small", "large", "single"]),
        "documents": np.array([3, 9, 1]),
        "nearest_class": np.array(["large", "small", "large"], object),
        "nearest_share": np.array([1.0, 1.0, 1.0]),
    }
    assert _tables.hidden_classes(classes)["label"] == ["small"]


def test_numbers_at_the_top_are_those_of_the_labels(found, planted):
    counts = pd.Series(planted[1]).value_counts()
    assert found.overall["documents"] == len(planted[0])
    assert found.overall["classes"] == len(counts)
    assert found.overall["imbalance ratio"] == counts.max() / counts.min()
    table = pd.DataFrame(found.per_class).set_index("label")["documents"]
    assert table.drop("whales").to_dict() == counts.to_dict()
    assert table.is_monotonic_decreasing


# -- neighbours ----------------------------------------------------------------------------


def test_neighbours_are_those_of_all_distances():
    rng = np.random.RandomState(0)
    vectors = normalize(rng.randn(300, 16).astype(np.float32))
    cosines = (vectors.astype(np.float64) @ vectors.T.astype(np.float64)).copy()
    np.fill_diagonal(cosines, -np.inf)
    np.testing.assert_array_equal(nearest(vectors, vectors, 7, True), np.argsort(-cosines)[:, :7])
    others = vectors[:50]
    expected = np.argsort(-(vectors[50:] @ others.T))[:, :3]
    np.testing.assert_array_equal(nearest(vectors[50:], others, 3, False), expected)


def test_no_document_is_its_own_neighbour_among_many_copies():
    vectors = normalize(np.ones((40, 8), np.float32))
    found = nearest(vectors, vectors, 5, True)
    assert found.shape == (40, 5)
    assert not (found == np.arange(40)[:, None]).any()
    assert all(len(set(row)) == 5 for row in found.tolist())


@pytest.mark.parametrize("n, shape", [(1, (1, 0)), (2, (2, 1)), (4, (4, 3))])
def test_few_documents_have_fewer_neighbours(n, shape):
    vectors = normalize(np.eye(4, 8, dtype=np.float32)[:n] + 0.1)
    assert nearest(vectors, vectors, 5, True).shape == shape


def test_embeddings_are_the_features_of_the_encoder_as_it_was(minilm, reuters):
    X, y = reuters[0][::4], reuters[1][::4]
    encoder = Encoder.load(minilm, None, False, False)
    vectors = encoder.embed(X, lambda n: None)
    clf = BertFocalClassifier(minilm, pooling="mean", max_epochs=0, refit_head="balanced")
    features = normalize(clf.set_params(verbose=0).fit(X, y).transform(X))
    assert ((vectors * features).sum(1) > 0.999).all()
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, rtol=1e-5)


def test_words_decide_whatever_the_order_of_the_candidates(reuters):
    X = [*reuters[0][:20], changed(reuters[0][3], [4])]
    every = np.array([(i, j) for i in range(21) for j in range(21) if i != j])
    pairs, overlap = _duplicates.near_pairs(X, every)
    assert pairs.tolist() == [[3, 20]] and overlap[0] > 0.8
    again, _ = _duplicates.near_pairs(X, every[::-1])
    assert again.tolist() == pairs.tolist()


def test_scripts_without_blanks_have_words():
    a = "東京の株式市場は月曜日に大きく上昇した。投資家は新しい政策を歓迎している。"
    b = a.replace("月曜日", "火曜日")
    assert _duplicates.near_pairs([a, b], np.array([(0, 1)]))[0].tolist() == [[0, 1]]


@pytest.mark.parametrize(
    "one, other, same",
    [
        ("Oil  prices\n", "oil PRICES", True),
        ("ｏｉｌ", "oil", True),
        ("STRASSE", "straße", True),
        ("oil.", "oil", False),
        (("a", "b"), ("A", "b "), True),
        (("a", "b"), ("b", "a"), False),
    ],
)
def test_what_makes_no_other_document(one, other, same):
    assert (_duplicates.first_copies([one, other])[1] == 0) == same


def test_copies_of_a_test_document_near_training_are_near_it_too(tiny, reuters):
    X, y = reuters
    near = changed(X[7], [9])
    found = audit(X, y, [near, near.upper(), near], [y[7]] * 3, model=tiny)
    across = rows_of(found.duplicates, set="training", other_set="test")
    assert [(row["row"], row["other_row"]) for row in across] == [(7, 0), (7, 1), (7, 2)]
    assert found.overall["test documents with a duplicate in training"] == 3


def test_other_documents_of_reuters_are_no_duplicates(tiny, reuters):
    found = audit(*reuters, model=tiny)
    assert found.duplicates["row"] == [] and len(np.unique(found.groups)) == 48
    assert found.splitter.startswith("StratifiedKFold(n_splits=5")


# -- advice --------------------------------------------------------------------------------


def test_no_duplicate_crosses_the_suggested_split(tiny, reuters):
    X, y = list(reuters[0]), list(reuters[1])
    copies = [X[i] for i in range(0, 48, 3)]
    X, y = X + copies, y + [y[i] for i in range(0, 48, 3)]
    found = audit(X, y, model=tiny)
    assert found.splitter == "StratifiedGroupKFold(n_splits=5, random_state=0, shuffle=True)"
    expected = StratifiedGroupKFold(5, shuffle=True, random_state=0).split(X, y, found.groups)
    for (train, test), (other_train, other_test) in zip(found.splits, expected, strict=True):
        assert not set(found.groups[train]) & set(found.groups[test])
        assert set(np.array(y)[test]) == set(y)
        np.testing.assert_array_equal(train, other_train)
        np.testing.assert_array_equal(test, other_test)
    assert all(found.groups[i] == found.groups[48 + k] for k, i in enumerate(range(0, 48, 3)))


@pytest.mark.parametrize("n, folds", [(1, 5), (2, 2), (3, 3), (9, 5)])
def test_folds_are_at_most_as_many_as_the_rarest_class_can_be_in(n, folds, tiny, reuters):
    X, y = reuters
    rare = [f"a rare text that speaks of subject {i} alone {i} times {i}" for i in range(n)]
    found = audit([*X, *rare], [*y, *["rare"] * n], model=tiny)
    assert len(found.splits) == folds
    assert ("'rare'" in found.reasons["split"]) == (n == 1)


def test_where_no_class_can_be_split_there_is_no_split(tiny):
    found = audit(["one text", "another one"], ["a", "b"], model=tiny)
    assert found.splits == [] and found.splitter == ""
    assert "No class has two documents" in found.reasons["split"] and str(found)


def test_grid_and_split_go_into_a_search(tiny, reuters):
    X, y = list(reuters[0]) + [reuters[0][0]], list(reuters[1]) + ["acq"]
    X, y = X[:30], y[:30]
    found = audit(X, y, model=tiny, max_length=32)
    assert set(found.reasons) == {"split", *found.grid}
    clf = BertFocalClassifier(tiny, max_epochs=1, random_state=0, verbose=0)
    for candidate in ParameterGrid(found.grid):
        clf.set_params(**candidate)
    few = {name: values[:1] for name, values in found.grid.items()}
    search = GridSearchCV(clf, few, cv=found.splits[:2], scoring="f1_macro", error_score="raise")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        search.fit(X, y)
    assert search.best_params_ == {name: values[0] for name, values in few.items()}


def test_max_length_is_suggested_if_it_covers_more(tiny, reuters):
    X, y = reuters
    lengths = [len(ids) for ids in AutoTokenizer.from_pretrained(tiny)(X)["input_ids"]]
    found = audit(X, y, model=tiny, max_length=16)
    wanted = -(-int(np.quantile(lengths, 0.95, method="higher")) // 8) * 8
    assert found.grid["max_length"] == [min(wanted, 64)]
    assert "longer than 16 tokens" in found.reasons["max_length"]
    at_limit = audit([f"{x} {x}" for x in X], y, model=tiny)
    assert "max_length" not in at_limit.grid
    assert "windows" in at_limit.reasons["long documents"] and "windows" in str(at_limit)


def test_even_classes_need_no_weights(tiny, reuters):
    even = audit(*reuters, model=tiny)
    assert "alpha" not in even.grid and "no weights are needed" in even.reasons["gamma"]
    uneven = audit(reuters[0][:18], reuters[1][:18], model=tiny)
    assert uneven.grid["alpha"] == uneven.grid["refit_head"] == [None, "balanced"]
    assert "has 2 times as many documents" in uneven.reasons["alpha"]


def test_duplicates_of_other_labels_suggest_smoothing(found):
    assert found.grid["label_smoothing"] == [0.0, 0.1] and found.grid["gamma"] == [0.0]
    assert len(ParameterGrid(found.grid)) <= 16


# -- inputs --------------------------------------------------------------------------------


def tables_of(found):
    names = (
        "overall",
        "findings",
        "duplicates",
        "hidden_classes",
        "label_variants",
        "short_documents",
        "grid",
        "reasons",
    )
    return {name: getattr(found, name) for name in names} | {
        "per_class": {k: v.tolist() for k, v in found.per_class.items()},
        "groups": found.groups.tolist(),
    }


@pytest.mark.parametrize(
    "as_X, as_y",
    [
        (tuple, tuple),
        (lambda X: np.array(X, object), np.array),
        (pd.Series, lambda y: pd.Series(y, index=range(100, 100 + len(y)))),
        (lambda X: pl.DataFrame({"text": X}), pl.Series),
        (pa.array, np.array),
    ],
)
def test_containers_give_the_same_audit(as_X, as_y, found, planted, tiny):
    X, y, X_test, y_test, _ = planted
    other = audit(as_X(X), as_y(y), as_X(X_test), as_y(y_test), model=tiny)
    np.testing.assert_equal(tables_of(other), tables_of(found))


def test_the_same_documents_give_the_same_audit(found, planted, tiny):
    state = torch.get_rng_state()
    again = audit(*planted[:4], model=tiny)
    np.testing.assert_equal(tables_of(again), tables_of(found))
    assert str(again) == str(found)
    assert torch.equal(state, torch.get_rng_state())


def test_test_documents_may_have_no_labels(planted, tiny):
    X, y, X_test, _, _ = planted
    found = audit(X, y, X_test, model=tiny)
    across = rows_of(found.duplicates, other_set="test")
    assert [(row["row"], row["other_row"]) for row in across] == [(0, 0), (5, 1)]
    assert all(row["same_label"] is None and row["other_label"] is None for row in across)
    assert "test_documents" not in found.per_class and "whales" not in found.labels
    page = check_page(found)
    assert "Test documents that are in training" in page.texts


def test_several_labels_are_counted_one_by_one(tiny, reuters):
    X = list(reuters[0])
    y = [{label, "news"} if i % 2 else {label} for i, label in enumerate(reuters[1])]
    X, y = [*X, X[0], X[1]], [*y, {"acq"}, {"acq"}]
    found = audit(X, y, [X[2], "nothing like it"], [{"acq"}, {"new"}], model=tiny)
    counts = dict(zip(found.labels.tolist(), found.per_class["documents"].tolist(), strict=True))
    assert counts == {"news": 24, "acq": 14, "crude": 12, "ship": 12, "trade": 12, "new": 0}
    assert found.multilabel and found.overall["labels"] == 5
    (differ,) = rows_of(found.duplicates, same_label=False)
    assert differ["label"] == ["acq", "news"] and differ["other_label"] == ["acq"]
    (same,) = rows_of(found.duplicates, same_label=True, other_set="training")
    assert (same["row"], same["other_row"]) == (0, 48)
    assert found.splitter.startswith("GroupKFold") and found.grid["refit_head"] == [
        None,
        "effective",
    ]
    assert "Only test documents have the label 'new'." in found.findings
    check_page(found)


def test_indicators_and_their_names(tiny, reuters):
    y = pd.DataFrame({"a": [1, 0] * 24, "b": [0, 1] * 24, "empty": [0] * 48})
    y.loc[0, "b"] = 1
    found = audit(reuters[0], y, model=tiny)
    assert found.labels.tolist() == ["b", "a", "empty"]
    assert "No document has the label 'empty'." in found.findings
    assert found.overall["imbalance ratio"] == 25 / 24


def test_pairs_of_texts_are_one_document(tiny, reuters):
    X = [(text, other) for text, other in zip(reuters[0][:20], reuters[0][20:40], strict=True)]
    X += [(X[0][0].upper(), X[0][1]), (X[1][1], X[1][0]), (changed(X[4][0], [3]), X[4][1])]
    y = ["a", "b"] * 11 + ["a"]
    found = audit(X, y, model=tiny)
    pairs = list(zip(found.duplicates["row"], found.duplicates["other_row"], strict=True))
    assert (0, 20) in pairs and (4, 22) in pairs
    assert found.duplicates["document"][0].count(" | ") == 1


def test_a_later_fit_tokenises_nothing_again(tiny):
    X = [f"a text that no other test has, number {i}" for i in range(20)]
    audit(X, ["a", "b"] * 10, model=tiny)
    before = cache_info()["texts_tokenized"]
    BertFocalClassifier(tiny, max_epochs=1, verbose=0, random_state=0).fit(X, ["a", "b"] * 10)
    assert cache_info()["texts_tokenized"] == before


X, Y = ["one text", "two texts", "three more"], ["a", "b", "a"]
WRONG = {
    "labels that are missing": ((X, ["a", None, "b"]), {}, "Got None in row 1"),
    "NaN labels": ((X, [1.0, np.nan, 2.0]), {}, "Got nan in row 1"),
    "other numbers of texts and labels": ((X, Y[:2]), {}, "inconsistent numbers of samples"),
    "one class": ((X, ["a"] * 3), {}, "at least two classes. Got one class only: 'a'."),
    "one label": (
        (X, [["a"], [], ["a"]], X, [["a"], ["b"], []]),
        {},
        "y must hold at least two labels. Got one label only: 'a'.",
    ),
    "no label anywhere": ((X, np.zeros((3, 2))), {}, "an indicator of zeros only"),
    "test labels in other columns": (
        (X, [[1, 0, 1], [0, 1, 1], [1, 0, 0]], X, np.eye(3, 2)),
        {},
        "In X_test and y_test: classes must name the 2 columns",
    ),
    "no document": (([], []), {}, "X holds no document"),
    "no text": (([*X, None], [*Y, "a"]), {}, "Got NoneType in row 3"),
    "a single text": (("text", ["a"]), {}, "not a single str"),
    "labels of no test": ((X, Y, None, Y), {}, "y_test needs X_test"),
    "test labels missing": ((X, Y, X, ["a", None, "b"]), {}, "In X_test and y_test: y must"),
    "test of another length": ((X, Y, X, Y[:2]), {}, "In X_test and y_test"),
    "test that is no text": ((X, Y, [1, 2]), {}, "In X_test and y_test: X must hold str"),
    "rows in another order": (
        (pd.Series(X), pd.Series(Y)[::-1]),
        {},
        "X and y must have their rows in the same order",
    ),
    "test rows in another order": (
        (X, Y, pd.Series(X), pd.Series(Y)[::-1]),
        {},
        "In X_test and y_test: X and y must have their rows in the same order",
    ),
    "test columns in another order": (
        (pd.DataFrame({"title": X, "body": X}), Y, pd.DataFrame({"body": X, "title": X}), Y),
        {},
        "X_test must have the columns of X in their order, ['title', 'body']",
    ),
    "collections of another kind": (
        (X, [["a"], ["b"], []], X, [[1], [2], []]),
        {},
        "of the kind of the training",
    ),
    "test of pairs": ((X, Y, [("a", "b")]), {}, "X_test must hold one text per document"),
    "test labels of another kind": ((X, Y, X, [1, 2, 1]), {}, "of the kind of the training"),
    "several labels in the test": ((X, Y, X, [{"a"}, {"b"}, set()]), {}, "In X_test and y_test"),
    "a short max_length": ((X, Y), {"max_length": 2}, "max_length must be None or an int"),
    "a max_length that is no number": ((X, Y), {"max_length": "64"}, "Got '64'"),
    "a max_length beyond the model": ((X, Y), {"max_length": 65}, "at most 64"),
    "no model": ((X, Y), {"model": 3}, "model must be a name or a folder"),
    "a model that is not there": ((X, Y), {"model": "no/where"}, "no/where"),
}


@pytest.mark.parametrize("arguments, settings, message", WRONG.values(), ids=WRONG)
def test_wrong_input_is_refused_by_its_name(arguments, settings, message, tiny):
    with pytest.raises((ValueError, TypeError, OSError), match=re.escape(message)):
        audit(*arguments, **{"model": tiny, **settings})


HOSTILE = {
    "equal documents": (["the same text"] * 10, ["a", "b"] * 5),
    "empty documents": (["", " "], ["a", "b"]),
    "two documents": (["one", "two"], ["a", "b"]),
    "numbers": (["one text", "two texts", "some text"], [1, 2, 1]),
    "truth values": (["one text", "two texts", "some text"], [True, False, True]),
    "markup": ([EVIL, f"{EVIL} again", "text"], [EVIL, "<b>", EVIL]),
    "formulas": (["$x$ and $y$", "$z", "_a_"], ["$a$", "_b", "$a$"]),
    "emoji": (["\U0001f600", "\U0001f600\U0001f3fd", "❤️ ❤️"], ["\U0001f600", "❤", "❤"]),
    "lone surrogates": (["\ud800 text", "text \udfff", "\ud800"], ["a", "b", "a"]),
    "control characters": (["\x00", "\u200b", "a\x1bb"], ["a\x1b[31m", "b\n", "b\n"]),
    "a megabyte": (["word " * 200_000, "x" * 1_000_000, "short"], ["a", "b", "a"]),
}


@pytest.mark.parametrize("X, y", HOSTILE.values(), ids=HOSTILE)
def test_hostile_input_becomes_a_page(X, y, tiny):
    found = audit(X, y, X[:1], y[:1], model=tiny)
    page = check_page(found)
    assert "script" not in {tag for tag, _ in page.elements}
    printed = str(found)
    assert all(c.isprintable() or c == "\n" for c in printed)
    found._repr_html_().encode()
    if y[0] == EVIL:
        assert EVIL in page.text


def test_copies_alone_are_one_group(tiny):
    found = audit(["the same text"] * 10, ["a"] * 9 + ["b"], model=tiny)
    assert set(found.groups) == {0} and found.splits == []
    assert found.overall["with a duplicate of another label"] == 10


@pytest.mark.filterwarnings("ignore:The number of unique classes")
def test_five_thousand_classes(tiny):
    n = 5000
    found = audit(
        [f"number {i} of the list" for i in range(n)] + ["number one"],
        [f"class {i}" for i in range(n)] + ["class 0"],
        model=tiny,
    )
    assert len(found.per_class["label"]) == n and found.labels[0] == "class 0"
    assert len(str(found)) < 10_000
    assert len(found._repr_html_()) < 12_000_000


# -- doubtful labels -----------------------------------------------------------------------


@pytest.fixture(scope="module")
def wrongly_labelled(minilm):
    """Documents of R8 of which every tenth has a wrong label, and the audit of them."""
    X, y = fetch_reuters("r8", subset="train", return_X_y=True)
    rows = np.flatnonzero(np.isin(y, ["crude", "trade", "acq", "ship"]))[:300]
    X, right = [" ".join(X[i].split()[:60]) for i in rows], y[rows]
    given, wrong = right.copy(), np.arange(0, 300, 10)
    given[wrong] = np.roll(np.unique(right), 1)[np.unique(right, return_inverse=True)[1][wrong]]
    return X, right, given, wrong, audit(X, given, model=minilm)


def test_wrong_labels_are_doubted_first_and_the_right_ones_suggested(wrongly_labelled):
    _, right, given, wrong, found = wrongly_labelled
    table = found.doubtful_labels
    first = np.array(table["row"][: len(wrong)])
    assert np.isin(first, wrong).mean() > 0.6  # of as many, a tenth by chance
    hits = [i for i, row in enumerate(first) if row in wrong]
    assert np.mean([table["suggested"][i] == right[table["row"][i]] for i in hits]) > 0.8
    assert [table["label"][i] for i in hits] == given[first[hits]].tolist()
    assert table["probability"] == sorted(table["probability"]) and found.n_judged == 300
    (line,) = [line for line in found.findings if "improbable" in line]
    assert line.startswith(f"{sum(p < 0.1 for p in table['probability'])} documents")
    page = check_page(found)
    assert "Doubtful labels" in page.texts and f"training {first[0]}" in page.texts


def test_probabilities_are_those_of_a_balanced_logistic_regression(wrongly_labelled, minilm):
    X, _, given, _, found = wrongly_labelled
    codes = np.unique(given, return_inverse=True)[1]
    F = Encoder.load(minilm, None, False, False).embed(X, lambda n: None)
    cv = StratifiedGroupKFold(5, shuffle=True, random_state=0)
    scale = FunctionTransformer(lambda F: F / F.std())  # their mean is close to 0
    logistic = LogisticRegression(C=0.1, class_weight="balanced", tol=1e-3, max_iter=1000)
    settings = {"cv": cv, "groups": found.groups, "method": "predict_proba"}
    proba = cross_val_predict(make_pipeline(scale, logistic), F, codes, **settings)
    own = proba[np.arange(len(codes)), codes]
    rows = found.doubtful_labels["row"]
    np.testing.assert_allclose(found.doubtful_labels["probability"], own[rows], atol=0.01)
    order = np.argsort(own, kind="stable")
    wrong = order[proba.argmax(1)[order] != codes[order]]
    assert set(rows) == set(wrong.tolist())


def test_copies_do_not_confirm_a_wrong_label(wrongly_labelled, minilm):
    X, right, given, wrong, found = wrongly_labelled
    row = next(row for row in found.doubtful_labels["row"] if row in wrong)
    X, given = [*X, X[row], f"{X[row]} "], [*given, given[row], given[row]]
    table = audit(X, given, model=minilm).doubtful_labels
    rows = table["row"]
    places = [rows.index(i) for i in (row, 300, 301)]
    assert max(places) < 10 and {table["suggested"][i] for i in places} == {right[row]}


def test_a_document_alone_in_its_class_is_not_judged(tiny, reuters):
    X, y = [*reuters[0], "the only one of its kind", ""], [*reuters[1], "alone", "acq"]
    found = audit(X, y, model=tiny)
    assert found.n_judged == 48 and not {48, 49} & set(found.doubtful_labels["row"])
    assert any("2 documents could not be judged" in text for text in check_page(found).texts)


def test_a_label_too_many_and_one_too_few_are_doubted(wrongly_labelled, minilm):
    X, right = wrongly_labelled[:2]
    oil = np.isin(right, ["crude"])
    y = [["oil", "news"] if is_oil else ["money", "news"] for is_oil in oil]
    more, fewer = np.flatnonzero(~oil)[5], np.flatnonzero(oil)[5]
    y[more], y[fewer] = ["money", "news", "oil"], ["news"]
    table = audit(X, y, model=minilm).doubtful_labels
    found = dict(zip(table["row"], table["suggested"], strict=True))
    assert found[more] == ["money", "news"] and found[fewer] == ["news", "oil"]
    assert set(table["row"][:6]) >= {more, fewer}


@pytest.mark.parametrize("most, is_judged", [(4 * 7, False), (4 * 8, True), (4 * 20, True)])
def test_labels_of_too_many_classes_are_not_judged(most, is_judged, tiny, reuters, monkeypatch):
    monkeypatch.setattr(_doubts, "MOST", most)
    found = audit(*reuters, model=tiny)
    assert found.n_judged == 48 * is_judged
    assert bool(found.doubtful_labels["row"]) == is_judged
    line = "Labels were not judged: there are too many classes for so few documents."
    assert (line in found.findings) != is_judged
    assert (line in check_page(found).texts) != is_judged


def test_frequent_classes_are_thinned_to_what_a_fit_may_take():
    codes = np.repeat([0, 1, 2, 3], [50, 3, 20, 1])
    rows = np.arange(0, 74, 1)
    for most in (74, 100):
        assert _doubts._thinned(rows, codes, most) is rows
    found = _doubts._thinned(rows, codes, 24)
    assert np.bincount(codes[found]).tolist() == [10, 3, 10, 1]
    assert found.tolist() == sorted(set(found.tolist()))


def test_a_label_of_one_document_says_nothing_about_others(tiny, reuters):
    y = [[label, "news"] for label in reuters[1]]
    y[5] = [*y[5], "odd"]
    table = audit(reuters[0], y, model=tiny).doubtful_labels
    changed = [set(a) ^ set(b) for a, b in zip(table["label"], table["suggested"], strict=True)]
    assert changed and {"odd"} not in changed


@pytest.mark.parametrize("is_there", [True, False])
def test_a_label_whose_documents_lie_in_one_fold_is_not_judged(is_there):
    rng = np.random.RandomState(0)
    n = 60
    codes = (rng.uniform(size=(n, 3)) < [0.5, 0.4, 0]).astype(np.float32)
    (_, held_out), *_ = _doubts._folds(codes, np.arange(n), 4)
    _, other = [*_doubts._folds(codes, np.arange(n), 4)][1]
    vectors = rng.normal(size=(n, 8)).astype(np.float32)
    for rows, is_judged in ((held_out[:2], False), ([held_out[0], *other[:2]], True)):
        codes[:, 2], vectors[:, 7] = not is_there, 0
        codes[rows, 2], vectors[[*rows, held_out[1]], 7] = is_there, 9
        found = _doubts.judge(vectors, codes, np.arange(n), 3)
        assert len(found.rows) == n  # the other labels are judged everywhere
        worst = dict(zip(found.rows.tolist(), found.worst.tolist(), strict=True))
        # The one beside it looks like those with the label, if another fold has any.
        assert (worst[held_out[1]] == 2) == is_judged
        assert is_judged or not any(worst[row] == 2 for row in held_out)


@pytest.mark.parametrize("labels, n", [("BAAAAA", 6), ("AAAAAB", 6), ("AAAAAA", 0)])
def test_documents_with_a_copy_of_another_label_are_counted_in_any_order(labels, n, tiny, reuters):
    X = [*reuters[0], *["oil prices rose in the gulf on monday"] * 6]
    found = audit(X, [*reuters[1], *labels], model=tiny)
    assert found.overall["with a duplicate of another label"] == n


@pytest.mark.parametrize("comes_first", [False, True])
def test_a_near_duplicate_of_a_copy_counts(comes_first, tiny, reuters):
    X, y = reuters
    near, copy = changed(X[0], [20]), X[0]
    # The copy has another label, and the near duplicate that of the first.
    X = [near, *X, copy] if comes_first else [*X, copy, near]
    y = [y[0], *y, "trade"] if comes_first else [*y, "trade", y[0]]
    assert audit(X, y, model=tiny).overall["with a duplicate of another label"] == 3


@pytest.mark.parametrize("forms", [("frame", "lists"), ("lists", "frame"), ("lists", "lists")])
def test_forms_of_several_labels_may_be_mixed(forms, tiny, reuters):
    X, labels = reuters
    y = [[label, "news"] for label in labels]
    test = [["news", "ship"], ["new"], []]
    given = [pd.get_dummies(pd.Series(rows).explode()).groupby(level=0).max() for rows in (y, test)]
    given[1].loc[2] = False
    as_lists = (y, test)
    y, test = (
        frame if form == "frame" else lists
        for form, frame, lists in zip(forms, given, as_lists, strict=True)
    )
    found = audit(X, y, X[:3], test, model=tiny)
    expected = audit(X, as_lists[0], X[:3], as_lists[1], model=tiny)
    assert dict(zip(found.per_class["label"], found.per_class["test_documents"], strict=True)) == {
        **dict.fromkeys(set(labels) - {"ship"}, 0),
        **dict.fromkeys(["news", "ship", "new"], 1),
    }
    np.testing.assert_equal(tables_of(found), tables_of(expected))


@pytest.mark.parametrize("test", [[["a"], ["a"], []], [[], [], []], [["b"], ["c"], []]])
@pytest.mark.parametrize("form", ["frame", "lists"])
def test_test_documents_may_have_few_labels_or_none(test, form, tiny):
    X, y = ["one text", "two texts", "three more"], [["a", "b"], ["a"], ["b"]]
    if form == "frame":
        y = pd.DataFrame({"b": [1, 0, 1], "a": [1, 1, 0]})
    found = audit(X, y, ["ein text", "zwei", "drei"], test, model=tiny)
    counts = dict(zip(found.per_class["label"], found.per_class["test_documents"], strict=True))
    expected = {label: sum(label in row for row in test) for label in "abc"}
    assert counts == {label: n for label, n in expected.items() if n or label != "c"}


def test_test_pairs_may_have_other_names(tiny):
    X = pd.DataFrame({"title": ["one", "two", "three"], "body": ["x", "y", "z"]})
    for columns in (["headline", "text"], [0, 1]):
        test = X.set_axis(columns, axis=1)
        found = audit(X, ["a", "b", "a"], test, ["a", "b", "a"], model=tiny)
        assert found.overall["test documents with a duplicate in training"] == 3


def test_a_test_frame_may_have_a_column_of_its_own(tiny, reuters):
    X, labels = reuters
    y = pd.DataFrame({"ship": [x == "ship" for x in labels], "news": True}).astype(int)
    test = pd.DataFrame({"news": [1, 0], "new": [0, 1], "ship": [1, 0]})
    found = audit(X, y, X[:2], test, model=tiny)
    counts = dict(zip(found.per_class["label"], found.per_class["test_documents"], strict=True))
    assert counts == {"ship": 1, "news": 1, "new": 1}
    assert any("Only test documents have the label 'new'" in line for line in found.findings)


@pytest.mark.parametrize(
    "y", [list("aabb"), list("aaab"), list("abab"), list("abcd"), list("aaaab")]
)
def test_few_documents_are_judged_as_far_as_possible(y, tiny):
    X = ["win money", "win cash now", "team lunch", "lunch meeting", "win a prize"][: len(y)]
    found = audit(X, y, model=tiny)
    singles = sum(y.count(label) == 1 for label in y)
    assert found.n_judged <= len(y) - singles and check_page(found)


# -- the page and the class ----------------------------------------------------------------


def test_the_page_shows_what_was_found(found, tmp_path):
    page = check_page(found)
    for line in found.findings:
        assert line in page.texts
    titles = [
        "What to look at",
        "Classes",
        "Lengths",
        "Duplicates with different labels",
        "Doubtful labels",
        "Test documents that are in training",
        "Other duplicates",
        "Labels that differ only in case or blanks",
        "Empty and nearly empty documents",
        "What to try first",
    ]
    assert [text for text in page.texts if text in titles] == titles
    for name in found.grid:
        assert name in page.texts and found.reasons[name] in page.texts
    found.save(tmp_path / "audit.html")
    whole = (tmp_path / "audit.html").read_text()
    assert "Content-Security-Policy" in whole and Page(whole)


def test_figures_say_their_main_numbers(found):
    page = Page(found._repr_html_())
    balance, lengths = [a["aria-label"] for tag, a in page.elements if tag == "svg"]
    assert f"{found.per_class['documents'][0]} of {found.labels[0]}" in balance
    assert "1 of Ship" in balance
    assert f"the longest has {found._lengths.max()}" in lengths and "longer than 64" in lengths


def test_the_summary_has_the_findings_the_split_and_the_grid(found):
    printed = str(found)
    for line in [*found.findings, found.splitter, *found.reasons.values()]:
        assert line in printed
    assert printed.startswith("58 documents of 5 classes, and 3 test documents\n")
    assert repr(found) == f"<Audit: 58 documents, 5 classes, {len(found.findings)} findings>"
    assert sentences(found) == found.findings


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.mark.parametrize("stream, shown", [(Terminal, True), (io.StringIO, False)])
def test_a_bar_counts_the_distinct_documents_on_a_terminal(stream, shown, tiny, monkeypatch):
    monkeypatch.setattr(sys, "stderr", stream())
    audit(["one text", "One text", "two texts", ""], ["a", "a", "b", "b"], model=tiny)
    assert ("0/2 [" in sys.stderr.getvalue()) == shown


def test_the_name_is_always_the_function(found):
    assert skfocal.audit is audit and callable(skfocal.audit)
    assert pickle.loads(pickle.dumps(audit)) is audit
    other = pickle.loads(pickle.dumps(found))
    assert type(other) is Audit and str(other) == str(found)
    assert skfocal.data_audit.audit is audit


def test_clean_documents_have_no_findings(tiny, reuters):
    found = audit(*reuters, model=tiny, max_length=64)
    # An encoder of random weights knows no classes.
    about = ("max_length", "lie among", "improbable")
    assert [line for line in found.findings if not any(part in line for part in about)] == []
