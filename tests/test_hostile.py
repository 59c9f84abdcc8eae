"""Any container, any label, and what is no text or no label at all."""

import decimal
import fractions
import logging
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
import torch
from conftest import imbalanced
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy import sparse
from sklearn.model_selection import GridSearchCV

from skfocal import BertFocalClassifier
from skfocal._utils.messages import excerpt

# -- any container, any type of label --------------------------------------------------------

quick = settings(
    deadline=None,
    derandomize=True,
    database=None,
    max_examples=30,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
# Arrow and Polars hold no lone surrogates; arrays of <U cut off NULs at the end.
words = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=30)

TEXTS = {
    "list": list,
    "tuple": tuple,
    "list of numpy str": lambda texts: [np.str_(text) for text in texts],
    "object array": lambda texts: np.array(texts, dtype=object),
    "unicode array": lambda texts: np.array(texts, dtype=str),
    "strided array": lambda texts: np.repeat(np.array(texts, dtype=object), 2)[::2],
    "numpy StringDType": lambda texts: np.array(texts, dtype=np.dtypes.StringDType()),
    "object column": lambda texts: np.array(texts, dtype=object)[:, None],
    "unicode column": lambda texts: np.array(texts, dtype=str)[:, None],
    "pandas object": lambda texts: pd.Series(texts, dtype=object),
    "pandas string": lambda texts: pd.Series(texts, dtype="string"),
    "pandas arrow string": lambda texts: pd.Series(texts, dtype="string[pyarrow]"),
    "pandas categorical": lambda texts: pd.Series(texts, dtype="category"),
    "pandas with other rows": lambda texts: pd.Series(texts, index=range(9, 9 - len(texts), -1)),
    "pandas Index": pd.Index,
    "pandas DataFrame": lambda texts: pd.DataFrame({"text": texts}),
    "polars Series": pl.Series,
    "polars categorical": lambda texts: pl.Series(texts, dtype=pl.Categorical),
    "polars DataFrame": lambda texts: pl.DataFrame({"text": texts}),
    "arrow array": pa.array,
    "arrow large string": lambda texts: pa.array(texts, pa.large_string()),
    "arrow string view": lambda texts: pa.array(texts, pa.string_view()),
    "arrow dictionary": lambda texts: pa.array(texts).dictionary_encode(),
    "arrow chunked": lambda texts: pa.chunked_array([texts[:1], texts[1:]]),
    "arrow table": lambda texts: pa.table({"text": texts}),
    "arrow batch": lambda texts: pa.record_batch({"text": texts}),
}
NAMES = np.array(["ant", "bee", "cat"])
LABELS = {
    "str": lambda codes: NAMES[codes].tolist(),
    "unicode array": lambda codes: NAMES[codes],
    "object array": lambda codes: NAMES[codes].astype(object),
    "int": list,
    "numpy ints": lambda codes: list(np.array(codes, np.int16)),
    "objects of int": lambda codes: np.array(codes, dtype=object),
    "int8": lambda codes: np.array(codes, np.int8),
    "uint64": lambda codes: np.array(codes, np.uint64) + np.uint64(2**63),
    "whole float64": lambda codes: np.array(codes, np.float64),
    "whole float32": lambda codes: np.array(codes, np.float32),
    "bool": lambda codes: [code > 0 for code in codes],
    "bool array": lambda codes: np.array(codes) > 0,
    "pandas objects of int": lambda codes: pd.Series(codes, dtype=object),
    "pandas Int64": lambda codes: pd.Series(codes, dtype="Int64"),
    "pandas UInt8": lambda codes: pd.Series(codes, dtype="UInt8"),
    "pandas Float64": lambda codes: pd.Series(codes, dtype="Float64"),
    "pandas boolean": lambda codes: pd.Series([code > 0 for code in codes], dtype="boolean"),
    "pandas arrow int": lambda codes: pd.Series(codes, dtype="int64[pyarrow]"),
    "pandas string": lambda codes: pd.Series(NAMES[codes], dtype="string"),
    "pandas categorical": lambda codes: pd.Series(NAMES[codes], dtype="category"),
    "pandas Categorical": lambda codes: pd.Categorical(NAMES[codes], categories=NAMES[::-1]),
    "pandas categorical of int": lambda codes: pd.Series(codes, dtype="category"),
    "polars str": lambda codes: pl.Series(NAMES[codes].tolist()),
    "polars categorical": lambda codes: pl.Series(NAMES[codes].tolist(), dtype=pl.Categorical),
    "polars int": lambda codes: pl.Series(codes, dtype=pl.Int16),
    "polars bool": lambda codes: pl.Series([code > 0 for code in codes]),
    "arrow str": lambda codes: pa.array(NAMES[codes].tolist()),
    "arrow int": lambda codes: pa.array(codes, pa.int8()),
    "torch tensor": torch.tensor,
}
SEVERAL = {
    "list of lists": lambda rows: rows,
    "tuple of tuples": lambda rows: tuple(map(tuple, rows)),
    "int8": lambda rows: np.array(rows, np.int8),
    "bool": lambda rows: np.array(rows, bool),
    "float": lambda rows: np.array(rows, float),
    "objects": lambda rows: np.array(rows, dtype=object),
    "sparse matrix": lambda rows: sparse.csr_matrix(rows),
    "sparse array": lambda rows: sparse.csc_array(np.array(rows)),
    "sparse bool": lambda rows: sparse.lil_matrix(np.array(rows, bool)),
    "pandas": lambda rows: pd.DataFrame(rows, columns=NAMES),
    "pandas Int64": lambda rows: pd.DataFrame(rows, columns=NAMES).astype("Int64"),
    "pandas boolean": lambda rows: pd.DataFrame(rows, columns=NAMES).astype("boolean"),
    "polars": lambda rows: pl.DataFrame(np.array(rows), schema=NAMES.tolist()),
    "arrow table": lambda rows: pa.table({n: [r[i] for r in rows] for i, n in enumerate(NAMES)}),
    "sets": lambda rows: [set(names) for names in named(rows)],
    "frozensets": lambda rows: [frozenset(names) for names in named(rows)],
    "tuples in a Series": lambda rows: pd.Series([tuple(names) for names in named(rows)]),
    "polars lists": lambda rows: pl.Series(named(rows), dtype=pl.List(pl.String)),
    "arrow lists": lambda rows: pa.array(named(rows), pa.list_(pa.string())),
    "torch tensor": torch.tensor,
}


def named(rows):
    return [NAMES[np.flatnonzero(row)].tolist() for row in rows]


def fitted_proba(model, texts, y, X=None):
    clf = BertFocalClassifier(model, max_epochs=1, lr=3e-3, batch_size=4, random_state=0)
    clf.fit(texts if X is None else X, y)
    return clf, clf.predict_proba(texts)


@pytest.fixture(scope="module")
def fitted(tiny):
    X, y = imbalanced(12, 6)
    return BertFocalClassifier(tiny, max_epochs=1, lr=3e-3, random_state=0).fit(X, y)


@quick
@given(texts=st.lists(words, min_size=1, max_size=6), container=st.sampled_from(sorted(TEXTS)))
def test_any_container_of_texts_gives_the_same_answers(fitted, texts, container):
    given_texts = TEXTS[container](texts)
    assert np.array_equal(fitted.predict_proba(given_texts), fitted.predict_proba(texts))
    assert np.array_equal(fitted.predict(given_texts), fitted.predict(texts))


def test_every_container_is_among_them(fitted):
    texts = ["one", "", "three \U0001f600\n", "four"]
    expected = fitted.predict_proba(texts)
    for container in TEXTS.values():
        assert np.array_equal(fitted.predict_proba(container(texts)), expected)


@settings(quick, max_examples=15)
@given(text=st.text(max_size=200), other=st.text(max_size=200))
def test_any_text_at_all_has_probabilities_of_its_own(fitted, text, other):
    proba = fitted.predict_proba([text, other])
    assert np.isfinite(proba).all()
    np.testing.assert_allclose(proba.sum(axis=1), 1)
    np.testing.assert_allclose(fitted.predict_proba([other, text])[::-1], proba, atol=1e-6)


@settings(quick, max_examples=12)
@given(
    texts=st.lists(words, min_size=3, max_size=6),
    more=st.lists(st.integers(0, 2), min_size=4, max_size=4),
    container=st.sampled_from(sorted(TEXTS)),
    kind=st.sampled_from(sorted(LABELS)),
)
@pytest.mark.filterwarnings("ignore:.*are unknown to the model")
def test_any_container_and_any_type_of_label_train_the_same_bits(
    tiny, texts, more, container, kind
):
    codes = ([0, 1] + more)[: len(texts)]
    if "bool" in kind:
        codes = [min(code, 1) for code in codes]
    _, expected = fitted_proba(tiny, texts, codes)
    clf, proba = fitted_proba(tiny, texts, LABELS[kind](codes), TEXTS[container](texts))
    assert np.array_equal(proba, expected)
    labels = np.asarray(LABELS[kind](codes))
    assert clf.classes_.tolist() == sorted(set(labels.tolist()))
    assert set(clf.predict(texts)) <= set(labels.tolist())


FOUR = ["one", "two", "three", "four"]
FOUR_CODES = [0, 1, 1, 0]
FOUR_ROWS = [[1, 0, 1], [0, 1, 0], [0, 0, 1], [1, 1, 0]]


@pytest.fixture(scope="module")
def proba_of_codes(tiny):
    return fitted_proba(tiny, FOUR, FOUR_CODES)[1]


@pytest.fixture(scope="module")
def proba_of_rows(tiny):
    return fitted_proba(tiny, FOUR, FOUR_ROWS)[1]


@pytest.mark.parametrize("kind", LABELS)
def test_every_type_of_label_comes_back(tiny, proba_of_codes, kind):
    y = LABELS[kind](FOUR_CODES)
    clf, proba = fitted_proba(tiny, FOUR, y)
    assert np.array_equal(proba, proba_of_codes)
    assert [type(label) for label in clf.classes_.tolist()] == 2 * [type(np.asarray(y).tolist()[0])]


@pytest.mark.parametrize("kind", SEVERAL)
def test_every_form_of_several_labels_trains_the_same_bits(tiny, proba_of_rows, kind):
    clf, proba = fitted_proba(tiny, FOUR, SEVERAL[kind](FOUR_ROWS))
    assert np.array_equal(proba, proba_of_rows)
    assert clf.classes_.tolist() in ([0, 1, 2], NAMES.tolist())


# -- the table -------------------------------------------------------------------------------

X, Y = imbalanced(6, 4)
Y = Y.tolist()
CODES = [int(label == "spam") for label in Y]
PAIRS = np.array([[code, i % 3 > 0] for i, code in enumerate(CODES)], dtype=int)
SECRET = "secret words\n\x1b[31m"
BIG = SECRET * 70_000  # 1.2 MB


def first(value, rest=X):
    """Return the texts or labels with another one in front."""
    return [value, *rest[1:]]


class Same:
    """The outcome is the model that a plain value of the argument gives."""

    def __init__(self, plain):
        self.plain = plain
        self.found = None

    def proba(self, tiny, argument):
        if self.found is None:
            self.found = fit_with(tiny, argument, self.plain).predict_proba(X)
        return self.found


AS_LABELS, AS_CODES = Same(Y), Same(CODES)


SINGLE = "not a single str.*give \\[document\\]"
NO_CONTAINER = "X must be a list, tuple, 1-D array, Series, .* Got "
COLUMNS = "X must have one column"
MISSING = "in row 0.*Fill or drop missing texts"
NO_Y = "y must be a list, array or Series of labels, .* Got "
NO_LABEL = "y must have a label for each document. Got .* in row 0"
NO_KIND = "y must have labels that are str, bool or whole numbers of 64 bits. Got "
INDICATOR = "y with several columns must be an indicator of 0 and 1"

# what, argument, its value, outcome, message
TABLE = [
    # no container of texts
    ("one document", "X", X[0], TypeError, SINGLE),
    ("one document of a megabyte", "X", BIG, TypeError, SINGLE),
    ("bytes", "X", b"text", TypeError, "not a single bytes"),
    ("nothing", "X", None, TypeError, NO_CONTAINER + "NoneType"),
    ("a number", "X", 3.5, TypeError, NO_CONTAINER + "float"),
    ("a set", "X", set(X), TypeError, NO_CONTAINER + "set"),
    ("a dict", "X", dict(enumerate(X)), TypeError, NO_CONTAINER + "dict"),
    ("a generator", "X", (text for text in X), TypeError, NO_CONTAINER + "generator"),
    ("a class", "X", str, TypeError, NO_CONTAINER + "type"),
    ("a module", "X", sys, TypeError, NO_CONTAINER + "module"),
    ("a path", "X", Path("texts.csv"), TypeError, NO_CONTAINER + "PosixPath"),
    ("a lazy frame", "X", pl.LazyFrame({"t": X}), TypeError, NO_CONTAINER + "LazyFrame"),
    ("a sparse matrix", "X", sparse.eye(10), TypeError, NO_CONTAINER + "dia"),
    ("no document", "X", [], ValueError, "0 sample.*X holds no document"),
    ("an empty column", "X", pd.DataFrame({"text": []}), ValueError, "X holds no document"),
    ("a frame without columns", "X", pd.DataFrame(index=range(10)), ValueError, COLUMNS),
    ("a row of texts", "X", np.array([X]), ValueError, COLUMNS + r".*Got shape \(1, 10\)"),
    ("three dimensions", "X", np.array(X).reshape(10, 1, 1), ValueError, COLUMNS),
    ("a scalar array", "X", np.array("text"), ValueError, COLUMNS + r".*Got shape \(\)"),
    ("three columns", "X", pl.DataFrame({"a": X, "b": X, "c": X}), ValueError, COLUMNS),
    # rows that are no texts
    ("None", "X", first(None), TypeError, "Got NoneType " + MISSING),
    ("NaN", "X", pd.Series(first(np.nan)), TypeError, "Got float " + MISSING),
    ("NA", "X", pd.Series(first(pd.NA), dtype="string"), TypeError, "Got NAType " + MISSING),
    ("NaT", "X", first(pd.NaT), TypeError, "Got NaTType " + MISSING),
    ("a null of Polars", "X", pl.Series(first(None)), TypeError, "Got NoneType " + MISSING),
    ("a null of Arrow", "X", pa.array(first(None)), TypeError, "Got NoneType " + MISSING),
    ("a masked row", "X", np.ma.array(X, mask=[1] + 9 * [0]), TypeError, "NoneType " + MISSING),
    ("bytes in a row", "X", first(BIG.encode()), TypeError, "Got bytes in row 0.*Decode it"),
    ("an array of bytes", "X", np.array(X, dtype="S"), TypeError, "Got bytes in row 0"),
    ("lists of texts", "X", [[BIG]] * 10, TypeError, r"Got list in row 0: \['secret"),
    ("records", "X", [{"text": BIG}] * 10, TypeError, "Got dict in row 0"),
    ("structs of Arrow", "X", pa.array([{"a": t} for t in X]), TypeError, "Got dict in row 0"),
    ("numbers", "X", np.ones(10), TypeError, "Got float in row 0: 1.0"),
    ("a tensor", "X", torch.zeros(10), TypeError, "Got float in row 0: 0.0"),
    ("dates", "X", pd.Series(pd.date_range("2020", periods=10)), TypeError, "Got Timestamp"),
    ("paths", "X", [Path(t) for t in X], TypeError, "Got PosixPath in row 0"),
    # odd texts that are texts
    ("control characters", "X", first("\x00\x01\x1b[31m"), Same(first(" [31m")), ""),
    ("a lone surrogate", "X", first("bad \ud800 text"), Same(first("bad \ufffd text")), ""),
    ("a megabyte without a space", "X", first("x" * 10**6), Same(first("y" * 10**3)), ""),
    ("an empty text", "X", first(""), Same(first("\t \n")), ""),
    ("a copy that is another object", "X", tuple("".join(list(t)) for t in X), Same(X), ""),
    # no labels
    ("no y", "y", None, ValueError, "requires y to be passed"),
    ("y of one str", "y", "spam", TypeError, NO_Y + "str"),
    ("y of one number", "y", 3, TypeError, NO_Y + "int"),
    ("a set as y", "y", set(Y), TypeError, NO_Y + "set"),
    ("a dict as y", "y", dict(enumerate(Y)), TypeError, NO_Y + "dict"),
    ("a generator as y", "y", (label for label in Y), TypeError, NO_Y + "generator"),
    ("a label too few", "y", Y[1:], ValueError, r"inconsistent .*\[10, 9\]"),
    ("a label too many", "y", Y + ["ham"], ValueError, r"inconsistent .*\[10, 11\]"),
    ("a row of labels", "y", np.array([Y]), ValueError, r"inconsistent .*\[10, 1\]"),
    ("y of three dimensions", "y", np.zeros((10, 2, 2)), ValueError, "dim"),
    ("one class", "y", 10 * ["a"], ValueError, "at least two classes. Got one class only: 'a'"),
    ("one long label", "y", 10 * [BIG], ValueError, "at least two classes"),
    ("None as label", "y", first(None, Y), ValueError, NO_LABEL),
    ("NaN as label", "y", first(np.nan, Y), ValueError, NO_LABEL),
    ("NaN among numbers", "y", first(np.nan, CODES), ValueError, NO_LABEL),
    ("infinity", "y", first(np.inf, CODES), ValueError, "Input y contains infinity"),
    ("NA as label", "y", pd.Series(first(pd.NA, Y), dtype="string"), ValueError, NO_LABEL),
    ("NA as category", "y", pd.Categorical(first(None, Y)), ValueError, NO_LABEL),
    ("a null label", "y", pl.Series(first(None, Y)), ValueError, NO_LABEL),
    ("str and numbers", "y", first(1, Y), ValueError, "labels of one kind. Got int and str"),
    ("str and objects", "y", np.array(first(1, Y), object), ValueError, "Got int and str"),
    ("fractional numbers", "y", [0.5, 1.5] * 5, ValueError, "Unknown label type: continuous"),
    ("decimals", "y", [decimal.Decimal(c) for c in CODES], ValueError, NO_KIND + "Decimal in"),
    ("fractions", "y", [fractions.Fraction(c) for c in CODES], ValueError, NO_KIND + "Fraction"),
    ("huge integers", "y", [10**30 + c for c in CODES], ValueError, NO_KIND + "int in row 0: 1000"),
    ("bytes as labels", "y", [t.encode() for t in Y], TypeError, "labels represented as bytes"),
    ("dicts as labels", "y", [{"a": BIG}] * 10, ValueError, NO_KIND + "dict in row 0"),
    ("collections but one", "y", [{"a"}] * 9 + [BIG], ValueError, "Got 'secret .*in row 9"),
    ("empty collections", "y", [set()] * 10, ValueError, "Got empty collections only"),
    ("nested collections", "y", [{(BIG,)}] * 10, ValueError, "labels that are str or numbers"),
    ("two columns of counts", "y", PAIRS * 2, ValueError, INDICATOR),
    ("two columns of names", "y", np.array([Y, Y]).T, ValueError, INDICATOR),
    ("negative indicator", "y", -PAIRS, ValueError, "0 or 1 for each label. Got -1 in row"),
    ("NaN in an indicator", "y", np.where(PAIRS, PAIRS, np.nan), ValueError, "Got nan in row 0"),
    # odd labels that are labels
    ("labels of 10,000 characters", "y", [t * 2500 for t in Y], AS_LABELS, ""),
    ("labels with line ends", "y", [t + SECRET for t in Y], AS_LABELS, ""),
    ("labels that read nan and None", "y", [["None", "nan"][c] for c in CODES], AS_CODES, ""),
    ("empty label and blank", "y", [["", " "][c] for c in CODES], AS_CODES, ""),
    ("numbers as str", "y", list(map(str, CODES)), AS_CODES, ""),
    ("labels beyond float64", "y", np.array(CODES) + 2**60, AS_CODES, ""),
    ("unused category", "y", pd.Categorical(Y, ["ham", "eggs", "spam"]), AS_LABELS, ""),
    ("an indicator of Arrow", "y", pa.table({"a": PAIRS[:, 0], "b": PAIRS[:, 1]}), Same(PAIRS), ""),
    # parameters
    ("texts as model", "model", X, ValueError, "'model' parameter.* Got "),
    ("text as model", "model", BIG, OSError, "model='secret.*cannot be loaded"),
    ("NUL in model", "model", "a\x00b", OSError, r"model='a\\x00b' cannot be loaded"),
    ("no model", "model", "", OSError, "model='' cannot be loaded: no folder"),
    ("text as alpha", "alpha", BIG, ValueError, "alpha must be .* Got 'secret"),
    ("text in alpha", "alpha", {BIG: 1}, ValueError, "unknown: .*missing: .'ham', 'spam'"),
    ("too many alphas", "alpha", [1.0] * 10_000, ValueError, "array of 2 weights"),
    ("text as sampler", "sampler", BIG, ValueError, "sampler must be .* Got 'secret"),
    ("texts as classes", "classes", [BIG[:9999]] * 99, ValueError, "must name .*'ham', 'spam'"),
    ("str as classes", "classes", "ham", ValueError, "'classes' parameter.* Got 'ham'"),
    ("text as loss", "loss", BIG, ValueError, "'loss' parameter.* Got 'secret"),
    ("text in loss_params", "loss_params", {BIG: 1}, ValueError, "loss_params must be among"),
    ("text as callback", "callbacks", [BIG], TypeError, "callbacks must hold .* in place 0"),
    ("text as scoring", "scoring", BIG, ValueError, "'scoring' parameter.* Got 'secret"),
    ("text as device", "device", BIG, ValueError, "device='secret.* is not a device"),
    ("text as random_state", "random_state", BIG, ValueError, "'random_state' parameter"),
    ("two tokens", "max_length", 2, ValueError, r"'max_length' parameter .*\[3, inf\).* Got 2"),
    ("too many tokens", "max_length", 65, ValueError, "max_length must be at most 64"),
    ("half an epoch", "max_epochs", 0.5, ValueError, "'max_epochs' parameter.* Got 0.5"),
    ("no documents in a batch", "batch_size", 0, ValueError, "'batch_size' parameter.* Got 0"),
    ("texts as weights", "sample_weight", [BIG] * 10, ValueError, "sample_weight must be an array"),
    ("weights of two columns", "sample_weight", np.ones((10, 2)), ValueError, "weights must be 1D"),
    ("infinite weights", "sample_weight", [np.inf] * 10, ValueError, "sample_weight .*infinity"),
]  # fmt: skip


def fit_with(tiny, argument, value):
    """Return the classifier fitted with one argument of another value."""
    data = {"X": X, "y": Y, "sample_weight": None}
    params = {"model": tiny, "max_epochs": 1, "lr": 3e-3, "random_state": 0}
    (data if argument in data else params)[argument] = value
    return BertFocalClassifier(**params).fit(**data)


@pytest.mark.filterwarnings("ignore:.*lose their end:UserWarning")
@pytest.mark.parametrize(
    ("argument", "value", "outcome", "message"),
    [row[1:] for row in TABLE],
    ids=[row[0] for row in TABLE],
)
def test_hostile_or_odd_input_ends_in_the_right_error_or_answer(
    tiny, argument, value, outcome, message
):
    if isinstance(outcome, Same):
        clf = fit_with(tiny, argument, value)
        assert np.array_equal(clf.predict_proba(X), outcome.proba(tiny, argument))
        return
    with pytest.raises(outcome, match=f"(?s){message}") as caught:
        fit_with(tiny, argument, value)
    text = str(caught.value)
    assert text.count("secret") < 60 and len(text) < 3000  # of 70,000: an excerpt
    assert "\x1b" not in text


def test_the_table_has_sixty_rows_and_no_row_twice():
    assert len({row[0] for row in TABLE}) == len(TABLE) >= 60


@pytest.mark.parametrize(
    "row",
    [r for r in TABLE if r[1] == "X" and r[3] is TypeError and r[0] != "a generator"],
    ids=lambda row: row[0],
)
def test_predict_refuses_what_fit_refuses(fitted, row):
    with pytest.raises(row[3], match=f"(?s){row[4]}"):
        fitted.predict(row[2])


# -- what is said of documents ---------------------------------------------------------------


@pytest.mark.parametrize(
    "value",
    [BIG, BIG.encode(), [BIG] * 99, (BIG,), {BIG: BIG}, {BIG}, np.array([BIG]), [[[BIG]]], 10**999],
    ids=lambda value: type(value).__name__,
)
def test_an_excerpt_is_short_and_on_one_line(value):
    text = excerpt(value)
    assert len(text) <= 63 and text.isprintable()


def test_warnings_name_labels_by_excerpts(make):
    classes = ["ham", "spam", *(f"{SECRET * 9}{i}" for i in range(99))]
    with pytest.warns(UserWarning, match="no document of 99 declared classes") as caught:
        make(classes=classes, max_epochs=1).fit(X, Y)
    text = str(caught[0].message)
    assert len(text) < 900 and "\x1b" not in text


def test_nothing_is_printed_or_logged_of_a_fit_a_search_or_an_answer(make, data, capfd, caplog):
    texts, y = data
    texts = [f"{text} unmistakable {SECRET}" for text in texts]
    with caplog.at_level(logging.DEBUG):
        clf = make(train_split=0.2, early_stopping=True, dropout=0.1).fit(texts, y)
        clf.predict(texts)
        clf.predict_proba(texts)
        clf.score(texts, y)
        clf.set_params(train_split=None, early_stopping=False).partial_fit(texts, y)
        GridSearchCV(make(max_epochs=1), {"gamma": [0, 2]}, cv=2).fit(texts, y)
    assert capfd.readouterr() == ("", "")
    assert "unmistakable" not in caplog.text and "secret" not in caplog.text


@pytest.mark.slow
def test_nothing_is_printed_of_a_search_in_two_processes(make, data, capfd):
    texts = [f"{text} unmistakable" for text in data[0]]
    GridSearchCV(make(max_epochs=1), {"gamma": [0, 2]}, cv=2, n_jobs=2).fit(texts, data[1])
    assert capfd.readouterr() == ("", "")


def test_even_loud_a_fit_shows_no_document(make, data, capfd):
    texts = [f"{text} unmistakable" for text in data[0]]
    make(verbose=3, train_split=0.2).fit(texts, data[1]).predict(texts)
    out = "".join(capfd.readouterr())
    assert "epoch" in out and "unmistakable" not in out
