"""Turn containers of texts into sequences of str: lists if in memory, otherwise views."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np

from skfocal._utils.messages import excerpt, excerpts

# What `as_texts` takes: containers of many packages, which have no type in common.
Documents: TypeAlias = Any

_AT_ONCE = 1024  # documents read together in a pass over all of them
_CELLS = 20  # the most that are shown of a row that is not a text
NO_DOCUMENT = "Found array with 0 sample(s) while a minimum of 1 is required: X holds no document."


def as_texts(X):
    """Return the documents in `X`: str, or pairs of str if X has two columns.

    Parameters
    ----------
    X : list, tuple, ndarray of shape (n,), (n, 1) or (n, 2), pandas or polars Series or DataFrame \
            of one or two columns, pyarrow array or table, datasets.Dataset of one or two columns \
            or a column of one, or another sequence whose slices are lists of str
        One str per document, or two.

    Returns
    -------
    list of str or of (str, str), or Texts
        :class:`Texts` for data that need not be in memory as str: Arrow, `datasets`, sequences.

    Raises
    ------
    TypeError
        If X is not such a container or a row is not a str; the message names the row. Except for
        the first, rows of :class:`Texts` are checked only when they are read.
    ValueError
        If X has no rows or more than two columns.
    """
    columns = _columns(X)
    if len(columns[0]) == 0:
        raise ValueError(NO_DOCUMENT)
    texts = Texts(columns)
    in_memory = all(isinstance(column, list | tuple) for column in columns)
    return texts[:] if in_memory else texts


class Texts(Sequence):
    """Documents that are read and checked on access.

    A slice is a list of str or of pairs of str.

    Parameters
    ----------
    columns : list of one or two sequences
        Sequences whose slices are lists, arrays or objects with ``to_pylist``.
    rows : int64 ndarray, default=None
        Rows of the columns to use; None for all.
    """

    def __init__(self, columns, rows=None):
        self.columns = columns
        self.rows = range(len(columns[0])) if rows is None else rows
        self.pairs = len(columns) == 2 or isinstance(_listed(columns[0][:1])[0], list | tuple)
        self[0]

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, key):
        if isinstance(key, slice):
            return self._read(self.rows[key])
        row = int(self.rows[key])
        return self._read(range(row, row + 1))[0]

    def __iter__(self):
        for start in range(0, len(self), _AT_ONCE):
            yield from self[start : start + _AT_ONCE]

    def _read(self, rows):
        try:
            columns = [_rows_of(column, rows) for column in self.columns]
        except UnicodeDecodeError as error:
            raise ValueError(
                f"X must hold text in UTF-8. Got {error} in one of the rows {min(rows)} to "
                f"{max(rows)}."
            ) from error
        documents = columns[0] if len(columns) == 1 else zip(*columns, strict=True)
        check = _pair if self.pairs else _text
        return [check(int(row), document) for row, document in zip(rows, documents, strict=True)]


class JoinedTexts(Sequence):
    """The documents of two sequences, one after the other."""

    def __init__(self, first, second):
        self.first, self.second = first, second

    def __len__(self):
        return len(self.first) + len(self.second)

    def __getitem__(self, key):
        n = len(self.first)
        if isinstance(key, slice):
            start, stop, step = key.indices(len(self))
            if step != 1:
                return [self[row] for row in range(start, stop, step)]
            return [*self.first[start:stop], *self.second[max(start - n, 0) : max(stop - n, 0)]]
        row = range(len(self))[key]
        return self.first[row] if row < n else self.second[row - n]

    def __iter__(self):
        yield from self.first
        yield from self.second


def joined(first, second):
    """Return the documents of both, as a list if both are in memory."""
    both = isinstance(first, list) and isinstance(second, list)
    return first + second if both else JoinedTexts(first, second)


def take(texts, rows):
    """Return some of the documents: a list of a list, a view of :class:`Texts`."""
    if isinstance(texts, JoinedTexts) and len(rows) and min(rows) >= len(texts.first):
        return take(texts.second, np.asarray(rows) - len(texts.first))
    if not isinstance(texts, Texts):
        return [texts[row] for row in rows]
    return Texts(texts.columns, np.asarray(texts.rows)[rows])


def _rows_of(column, rows):
    """Return some rows as a list, read all at once if possible, which is much faster."""
    if isinstance(rows, range) and rows.step == 1:
        return _listed(column[rows.start : rows.start + len(rows)])
    if hasattr(column, "take"):  # pyarrow's
        return column.take(np.asarray(rows)).to_pylist()
    if hasattr(column, "source") and hasattr(column, "column_name"):  # of a datasets.Dataset
        return _listed(column[np.asarray(rows).tolist()])
    return [_listed(column[int(row) : int(row) + 1])[0] for row in rows]


def _listed(rows):
    return rows.to_pylist() if hasattr(rows, "to_pylist") else list(rows)


def _text(i, row):
    if not isinstance(row, str):
        raise TypeError(_bad_row(i, row))
    return row if type(row) is str else str(row)


def _pair(i, row):
    if not isinstance(row, list | tuple) or len(row) != 2:
        raise TypeError(
            "X must hold one str per document, or a pair of str in each row. Got "
            f"{type(row).__name__} in row {i}: {excerpt(row)}."
        )
    for j, text in enumerate(row):
        if not isinstance(text, str):
            raise TypeError(_bad_row(i, text, f", column {j}"))
    return tuple(map(str, row))


def check_kind(texts, pairs):
    """Refuse pairs where the fit had single texts, and the other way round."""
    kinds = "one text per document", "pairs of texts"
    found = isinstance(texts[0], tuple)
    if found != pairs:
        raise ValueError(f"X must hold {kinds[pairs]}, as in fit. Got {kinds[found]}.")


def join_pairs(texts, between):
    """Return one str per document, with the two texts of a pair joined by `between`."""
    return [text if isinstance(text, str) else between.join(text) for text in texts]


def as_shown(X):
    """Return each document as one string, with a bar between the columns of a row."""
    try:
        return [*join_pairs(as_texts(X), " | ")]
    except (TypeError, ValueError):
        rows = np.asarray(X, dtype=object)
        if rows.ndim == 0 or len(rows) == 0:
            raise
    return [" | ".join(map(str, np.atleast_1d(row)[:_CELLS])) for row in rows]


def a_document(pairs):
    """Return a document to test an estimator with."""
    return ("A document,", "to try it.") if pairs else "A document, to try it."


def as_column(X):
    """Return the documents in `X` as a two-dimensional array, as imbalanced-learn needs it.

    The samplers of imbalanced-learn refuse lists, one-dimensional arrays and Series. Use this
    function as the first step of a pipeline with a sampler.

    Parameters
    ----------
    X : as in :meth:`BertFocalClassifier.fit`
        One str per document, or two. All documents are read.

    Returns
    -------
    ndarray of shape (n, 1) or (n, 2), dtype object

    Raises
    ------
    TypeError, ValueError
        If X is not a container of texts; the message names the row.

    Examples
    --------
    >>> from imblearn.over_sampling import RandomOverSampler
    >>> from imblearn.pipeline import make_pipeline
    >>> from sklearn.preprocessing import FunctionTransformer
    >>> from skfocal import BertFocalClassifier, as_column
    >>> pipeline = make_pipeline(
    ...     FunctionTransformer(as_column), RandomOverSampler(), BertFocalClassifier("some/folder")
    ... )
    >>> as_column(["one text", "another"]).shape
    (2, 1)
    """
    texts = np.array(list(as_texts(X)), dtype=object)
    return texts if texts.ndim == 2 else texts[:, None]


def _columns(X):
    """Return the one or two columns of X, as lists if X holds Python objects."""
    if isinstance(X, str | bytes):
        raise TypeError(
            f"X must be a list of str, one per document, not a single {type(X).__name__}: for one "
            f"document give [document]. Got {excerpt(X)}."
        )
    if is_dataset(X):
        return [X[name] for name in _one_or_two(X.column_names)]
    shape = getattr(X, "shape", None)
    if shape is None:
        if isinstance(X, Sequence) or hasattr(X, "to_pylist"):  # pyarrow arrays have no shape
            return [X]
        raise TypeError(_no_container(X))
    if not hasattr(X, "__array__") and not hasattr(X, "to_pylist"):
        raise TypeError(_no_container(X))
    if len(shape) not in (1, 2) or (len(shape) == 2 and shape[1] not in (1, 2)):
        names = names_of_columns(X)
        found = f"the columns {excerpts(names)}" if len(names) else f"shape {tuple(shape)}"
        raise ValueError(
            "X must have one column, the text, or two for pairs of texts: select it first, for "
            "example with X['text'], X.select_columns('text') or a ColumnTransformer. "
            f"Got {found}."
        )
    if hasattr(X, "columns") and hasattr(X, "iloc") and not X.columns.is_unique:
        raise ValueError(
            f"X must have columns of different names: rename one. Got {X.columns.tolist()}."
        )
    return [_column(X, j) for j in range(shape[1] if len(shape) == 2 else 1)]


def is_dataset(X):
    """Say whether X is a table of the package `datasets` that allows random access."""
    return hasattr(X, "select_columns") and hasattr(X, "__len__") and not isinstance(X, Mapping)


def names_of_columns(X):
    """Return the names of the columns of a frame or table, and none of anything else."""
    return list(getattr(X, "column_names", getattr(X, "columns", ())))


def columns_named(X):
    """Return X or, if scikit-learn cannot read its column names, an empty table with them."""
    if hasattr(X, "to_struct_array") and not hasattr(X, "to_batches"):  # pyarrow's RecordBatch
        return X.schema.empty_table()
    return X.with_format("arrow")[:0] if is_dataset(X) else X


def _one_or_two(names):
    if len(names) not in (1, 2):
        raise ValueError(
            "X must have one column, the text, or two for pairs of texts: select it first, for "
            f"example with X.select_columns('text'). Got the columns {excerpts(names)}."
        )
    return names


def _no_container(X):
    message = (
        "X must be a list, tuple, 1-D array, Series, one-column DataFrame, pyarrow array or "
        f"datasets.Dataset of str. Got {type(X).__name__}"
    )
    if isinstance(X, Mapping):
        return message + ": give one of its values, for example X['text'] or X['train']."
    if is_stream(X):
        return message + (
            ", which can be read only once, from its beginning: give a list of its items, "
            "or one chunk at a time to partial_fit."
        )
    return message + "."


def is_stream(X):
    """Say whether X is iterable without a length: an iterator or a streamed data set."""
    sized = hasattr(X, "__len__") or hasattr(X, "__array__") or hasattr(X, "to_pylist")
    return isinstance(X, Iterable) and not sized


def _column(X, j):
    """Return column `j` of an object with a shape, or all of a one-dimensional one."""
    if hasattr(X, "iloc"):
        return (X if len(X.shape) == 1 else X.iloc[:, j]).tolist()
    if hasattr(X, "to_pylist"):  # a pyarrow table
        return X.column(j)
    if not isinstance(X, np.ma.MaskedArray):  # a masked array has None in masked rows
        X = np.asarray(X, dtype=object)
    return (X if X.ndim == 1 else X[:, j]).tolist()


def is_missing(value):
    """Say whether a value is None, NaN or pandas' NA or NaT."""
    is_nan = isinstance(value, float | np.floating) and value != value
    return value is None or is_nan or type(value).__name__ in ("NAType", "NaTType")


def _bad_row(i, row, column=""):
    message = f"X must hold str only. Got {type(row).__name__} in row {i}{column}: {excerpt(row)}."
    if column and not is_missing(row):
        return message + " Two columns are pairs of texts; for one text give X['text'] alone."
    if is_missing(row):
        return message + " Fill or drop missing texts first, for example X.fillna('')."
    if isinstance(row, bytes):
        return message + " Decode it first, for example row.decode('utf-8')."
    return message
