"""Every container of texts and every bad row."""

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

from skfocal._data.texts import as_texts

TEXTS = ["first text", "", "third \U0001f600"]
CONTAINERS = {
    "list": TEXTS,
    "tuple": tuple(TEXTS),
    "object array": np.array(TEXTS, dtype=object),
    "unicode array": np.array(TEXTS),
    "column array": np.array(TEXTS, dtype=object)[:, None],
    "unicode column": np.array(TEXTS)[:, None],
    "pandas Series": pd.Series(TEXTS, index=[7, 8, 9]),
    "pandas string": pd.Series(TEXTS, dtype="string"),
    "pandas categorical": pd.Series(TEXTS, dtype="category"),
    "pandas DataFrame": pd.DataFrame({"text": TEXTS}),
    "polars Series": pl.Series(TEXTS),
    "polars DataFrame": pl.DataFrame({"text": TEXTS}),
    "pyarrow array": pa.array(TEXTS),
    "pyarrow large": pa.array(TEXTS, type=pa.large_string()),
    "pyarrow chunked": pa.chunked_array([TEXTS[:1], TEXTS[1:]]),
    "pyarrow table": pa.table({"text": TEXTS}),
    "numpy str": [np.str_(text) for text in TEXTS],
}


@pytest.mark.parametrize("name", CONTAINERS)
def test_every_container_gives_the_same_list(name):
    texts = list(as_texts(CONTAINERS[name]))
    assert texts == TEXTS
    assert all(type(text) is str for text in texts)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (["a", None], r"X must hold str only\. Got NoneType in row 1: None\. Fill or drop"),
        (["a", float("nan")], "Got float in row 1: nan.*fillna"),
        (["a", "b", 3], r"Got int in row 2: 3\."),
        ([b"bytes"], r"Got bytes in row 0: b'bytes'\. Decode it"),
        (["a", ["b", "c"]], r"Got list in row 1: \['b', 'c'\]"),
        (np.array([1.5, 2.5]), "Got float in row 0: 1.5"),
        (np.array([["a"], [None]], dtype=object), "row 1"),
        (pd.Series(["a", None]), "row 1"),
        (pd.Series(["a", pd.NA], dtype="string"), "row 1"),
        (pd.DataFrame({"text": ["a", np.nan]}), "row 1"),
        (pl.Series(["a", None]), "row 1"),
        (pa.array(["a", None]), "row 1"),
    ],
)
def test_bad_row_is_named(rows, message):
    with pytest.raises(TypeError, match=message):
        list(as_texts(rows))


@pytest.mark.parametrize(
    ("X", "error", "message"),
    [
        ("one text", TypeError, r"not a single str.*give \[document\]"),
        (b"one text", TypeError, "not a single bytes"),
        (None, TypeError, "Got NoneType"),
        (3, TypeError, "Got int"),
        ({"a": "b"}, TypeError, "Got dict"),
        (iter(["a"]), TypeError, "Got list_iterator"),
        (np.array([["a", "b", "c"]]), ValueError, r"or two.*Got shape \(1, 3\)"),
        (pd.DataFrame({"a": ["x"], "b": ["y"], "c": ["z"]}), ValueError, "one column"),
        (pa.table({"a": ["x"], "b": ["y"], "c": ["z"]}), ValueError, "one column"),
        (np.array("text"), ValueError, r"Got shape \(\)"),
        ([], ValueError, "0 sample"),
        (pd.Series([], dtype=object), ValueError, "0 sample"),
    ],
)
def test_what_holds_no_texts_is_refused(X, error, message):
    with pytest.raises(error, match=message):
        as_texts(X)
