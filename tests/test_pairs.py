"""Two texts per document: containers, token types, and each step from fit to prediction."""

import pickle
import resource

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
import torch
from imblearn.over_sampling import RandomOverSampler
from imblearn.pipeline import make_pipeline
from sklearn.metrics import log_loss
from sklearn.model_selection import StratifiedKFold, cross_val_score
from sklearn.preprocessing import FunctionTransformer
from transformers import AutoTokenizer

from skfocal import BertFocalClassifier, OnnxClassifier, as_column, compare_losses
from skfocal._data.texts import as_texts
from skfocal._data.tokenization import (
    TruncationSpec,
    encode,
    encoder_inputs,
    laid_out,
    stored_ids,
)
from skfocal._estimator.fitted_model import present_truncation

PAIRS = [("first text", "its answer"), ("", "b \U0001f600"), ("third", "")]
FIRST, SECOND = zip(*PAIRS, strict=True)
CONTAINERS = {
    "tuples": PAIRS,
    "lists": [list(pair) for pair in PAIRS],
    "object array": np.array(PAIRS, dtype=object),
    "unicode array": np.array(PAIRS),
    "pandas DataFrame": pd.DataFrame({"a": FIRST, "b": SECOND}, index=[5, 6, 7]),
    "pandas string": pd.DataFrame({"a": FIRST, "b": SECOND}, dtype="string"),
    "polars DataFrame": pl.DataFrame({"a": FIRST, "b": SECOND}),
    "pyarrow table": pa.table({"a": FIRST, "b": SECOND}),
}


@pytest.mark.parametrize("name", CONTAINERS)
def test_every_container_gives_the_same_pairs(name):
    texts = list(as_texts(CONTAINERS[name]))
    assert texts == PAIRS
    assert all(type(pair) is tuple and {type(t) for t in pair} == {str} for pair in texts)
    assert as_column(CONTAINERS[name]).tolist() == [list(pair) for pair in PAIRS]


@pytest.mark.parametrize(
    ("X", "message"),
    [
        ([("a", "b"), ("a", None)], "Got NoneType in row 1, column 1: None. Fill or drop"),
        ([("a", "b"), "a"], "a pair of str in each row. Got str in row 1: 'a'"),
        ([("a", "b"), ("a", "b", "c")], "a pair of str in each row. Got tuple in row 1"),
        ([("a",)], "a pair of str in each row. Got tuple in row 0"),
        (["a", ("a", "b")], "X must hold str only. Got tuple in row 1"),
        (pd.DataFrame({"a": ["x", "y"], "b": ["z", np.nan]}), "row 1, column 1: nan. Fill or drop"),
        (pd.DataFrame({"a": ["x", "y"], "b": [1, 2]}), "Got int in row 0, column 1: 1"),
    ],
)
def test_bad_pairs_are_named(X, message):
    with pytest.raises(TypeError, match=message):
        as_texts(X)


def test_columns_of_one_name_are_refused():
    with pytest.raises(
        ValueError, match=r"columns of different names: rename one. Got \['q', 'q'\]"
    ):
        as_texts(pd.DataFrame(PAIRS, columns=["q", "q"]))


@pytest.fixture
def tokenizer(tiny):
    return AutoTokenizer.from_pretrained(tiny)


LONG = [("a b c", "d e"), ("a " * 30, "b"), ("a", "b " * 30), ("a " * 20, "b " * 20), ("", "")]


@pytest.mark.parametrize("side", ["right", "left"])
def test_ids_and_types_are_those_of_transformers(tokenizer, side):
    tokenizer.truncation_side = side
    first, second = zip(*LONG, strict=True)
    expected = tokenizer(list(first), list(second), truncation=True, max_length=16)
    truncation = TruncationSpec(16, side=side, marks_second=True)
    rows = [ids for ids, _ in encode(tokenizer.backend_tokenizer, LONG, truncation)]
    assert [np.where(ids < 0, ~ids, ids).tolist() for ids in rows] == expected["input_ids"]
    assert [(ids < 0).astype(int).tolist() for ids in rows] == expected["token_type_ids"]


def test_padded_rows_come_back_as_they_were_stored(tokenizer):
    truncation = TruncationSpec(16, marks_second=True)
    rows = [ids for ids, _ in encode(tokenizer.backend_tokenizer, LONG, truncation)]
    inputs = encoder_inputs(*laid_out(rows), pad_id=9)
    inside = inputs["attention_mask"] == 1
    assert inside.sum(1).tolist() == [len(row) for row in rows]
    assert (inputs["input_ids"][~inside] == 9).all()
    assert not inputs["token_type_ids"][~inside].any() and (inputs["input_ids"] >= 0).all()
    back = stored_ids(**inputs)
    assert [row.tolist() for row in back] == [row.tolist() for row in rows]


def test_rows_are_padded_to_the_width_that_is_asked_for():
    rows = [np.array([5, ~6], np.int32), np.array([7], np.int32)]
    inputs = {k: v.tolist() for k, v in encoder_inputs(*laid_out(rows), pad_id=9, width=4).items()}
    assert inputs == {
        "input_ids": [[5, 6, 9, 9], [7, 9, 9, 9]],
        "attention_mask": [[1, 1, 0, 0], [1, 0, 0, 0]],
        "token_type_ids": [[0, 1, 0, 0], [0, 0, 0, 0]],
    }


@pytest.fixture
def pairs(data):
    """Pairs whose first texts say nothing of the class, and their labels."""
    X, y = data
    return [("what is it about", x) for x in X], y


def by_hand(clf, pairs):
    """Return logits from transformers alone, pair by pair."""
    rows = []
    for first, second in pairs:
        inputs = clf.tokenizer_(
            first, second, truncation=True, max_length=clf.max_length_, return_tensors="pt"
        )
        with torch.no_grad():
            rows.append(clf.net_.module_.model(**inputs).logits[0].numpy())
    return np.array(rows)


@pytest.mark.parametrize("settings", [{}, {"freeze": 1}, {"max_length": 9}])
def test_predictions_are_those_of_the_encoder_with_token_types(make, pairs, settings, recwarn):
    X, y = pairs
    clf = make(proba="softmax", alpha="balanced", max_epochs=6, **settings).fit(X, y)
    expected = torch.tensor(by_hand(clf, X)).softmax(1)
    np.testing.assert_allclose(clf.predict_proba(X), expected, atol=1e-5)
    assert clf.score(X, y) > 0.8
    swapped = clf.predict_proba([pair[::-1] for pair in X])
    assert np.abs(swapped - clf.predict_proba(X)).max() > 1e-3
    assert ["max_length=9" in str(w.message) for w in recwarn] == [True] * (
        "max_length" in settings
    )


@pytest.mark.filterwarnings("ignore:The head of model")
def test_encoder_without_token_types_takes_pairs(make, pairs, tiny_copy):
    from conftest import TINY
    from transformers import RobertaConfig, RobertaForSequenceClassification

    RobertaForSequenceClassification(
        RobertaConfig(**{**TINY, "max_position_embeddings": 66}, type_vocab_size=1, pad_token_id=1)
    ).save_pretrained(tiny_copy)
    clf = make(model=str(tiny_copy), max_epochs=1).fit(*pairs)
    assert not present_truncation(clf).marks_second
    X = [*PAIRS[:2], ("word " * 70, "other " * 50)]
    found = clf.set_params(proba="softmax").predict_proba(X)
    clf.tokenizer_.model_input_names = ["input_ids", "attention_mask"]
    expected = torch.tensor(by_hand(clf, X)).softmax(1)
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_all_containers_predict_the_same(make, pairs):
    clf = make(max_epochs=1).fit(*pairs)
    expected = clf.predict_proba(PAIRS)
    for name, container in CONTAINERS.items():
        assert np.array_equal(clf.predict_proba(container), expected), name


def test_names_of_both_columns_are_kept(make, pairs):
    X, y = pairs
    frame = pd.DataFrame(X, columns=["question", "answer"])
    clf = make(max_epochs=1).fit(frame, y)
    assert clf.n_features_in_ == 2 and clf.feature_names_in_.tolist() == ["question", "answer"]
    with pytest.raises(ValueError, match="feature names should match"):
        clf.predict(frame[["answer", "question"]])


@pytest.mark.slow
def test_answers_survive_pickle_folder_and_graph(make, pairs, tmp_path):
    X, y = pairs
    clf = make(alpha="balanced").fit(X, y)
    X = [*X, *PAIRS, ("word " * 100, "other " * 80)]
    expected = clf.predict_proba(X)
    assert np.array_equal(pickle.loads(pickle.dumps(clf)).predict_proba(X), expected)
    clf.save_pretrained(tmp_path / "folder")
    again = BertFocalClassifier.from_pretrained(tmp_path / "folder")
    assert np.array_equal(again.predict_proba(X), expected)
    card = (tmp_path / "folder" / "README.md").read_text()
    assert 'clf.predict([("a text", "another")])' in card and "as in training" in card
    clf.to_onnx(tmp_path / "graph")
    served = OnnxClassifier(tmp_path / "graph")
    np.testing.assert_allclose(served.predict_proba(np.array(X, object)), expected, atol=1e-5)
    with pytest.raises(ValueError, match="X must hold pairs of texts, as in fit. Got one"):
        served.predict(["one text"])


def test_int8_has_token_types_too(make, pairs):
    X, y = pairs
    clf = make().fit(X, y)
    expected = clf.predict_proba(X)
    found = clf.set_params(predict_precision="int8").predict_proba(X)
    assert np.abs(found - expected).max() < 0.05


def test_other_number_of_texts_than_in_fit_is_refused(make, pairs):
    X, y = pairs
    clf = make(max_epochs=1).fit(X, y)
    with pytest.raises(ValueError, match="X must hold pairs of texts, as in fit. Got one text per"):
        clf.predict([second for _, second in X])
    clf.fit([second for _, second in X], y)
    with pytest.raises(ValueError, match="X must hold one text per document, as in fit. Got pairs"):
        clf.predict(X)


def test_pairs_are_truncated_only(make, pairs):
    with pytest.raises(
        ValueError, match=r"long_documents must be 'truncate' for pairs .* Windows\(\)"
    ):
        make(long_documents="windows").fit(*pairs)


def test_oversampling_and_cross_validation_take_pairs(make, pairs):
    X, y = pairs
    pipeline = make_pipeline(
        FunctionTransformer(as_column), RandomOverSampler(random_state=0), make(max_epochs=1)
    )
    scores = cross_val_score(pipeline, X, y, cv=2, scoring="neg_log_loss")
    rows = as_column(X)
    for score, (train, test) in zip(scores, StratifiedKFold(2).split(rows, y), strict=True):
        drawn = RandomOverSampler(random_state=0).fit_resample(rows[train], y[train])
        proba = make(max_epochs=1).fit(*drawn).predict_proba(rows[test])
        assert score == pytest.approx(-log_loss(y[test], proba), rel=1e-12)


def test_comparison_has_its_baselines_on_pairs(make, pairs):
    X, y = pairs
    result = compare_losses(make(max_epochs=1), X, y, {"focal": {}}, cv=2, verbose=0)
    # The words that tell the classes are in the second texts.
    assert (result.values["TF-IDF, balanced"]["f1_macro"] > 0.9).all()


@pytest.mark.parametrize("max_length", [11, 12])  # room for an even and an odd number of tokens
@pytest.mark.parametrize("side", ["right", "left"])
def test_each_length_of_both_texts_is_cut_as_transformers_does(tokenizer, side, max_length):
    tokenizer.truncation_side = side
    lengths = [(n, m) for n in range(1, 12) for m in range(1, 12)]
    pairs = [("a " * n, "b " * m) for n, m in lengths]
    truncation = TruncationSpec(max_length, side=side, marks_second=True)
    rows = [ids for ids, _ in encode(tokenizer.backend_tokenizer, pairs, truncation)]
    first, second = zip(*pairs, strict=True)
    settings = {"truncation": True, "max_length": max_length}
    expected = tokenizer(list(first), list(second), **settings)["input_ids"]
    assert [np.where(ids < 0, ~ids, ids).tolist() for ids in rows] == expected


def test_long_pairs_take_no_more_than_their_tokens(tokenizer):
    """Cut by the tokenizer they take gigabytes: each window of one with each of the other."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    encode(tokenizer.backend_tokenizer, [("a " * 3000, "b " * 3000)], TruncationSpec(16))
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000  # KiB


def test_partial_fit_refuses_windows_of_pairs_and_other_kinds(make, pairs):
    X, y = pairs
    clf = make(max_epochs=1).partial_fit(X, y, classes=["ham", "spam"])
    expected = clf.predict_proba(X)
    with pytest.raises(ValueError, match="long_documents must be 'truncate' for pairs"):
        clf.set_params(long_documents="windows").partial_fit(X, y)
    clf.set_params(long_documents="truncate")
    with pytest.raises(ValueError, match="X must hold pairs of texts, as in fit. Got one text"):
        clf.partial_fit([second for _, second in X], y)
    assert np.array_equal(clf.predict_proba(X), expected)


def test_length_without_room_for_text_is_refused(make, pairs):
    with pytest.raises(ValueError, match="max_length must be more than the 3 special .* Got 3"):
        make(max_length=3).fit(*pairs)
