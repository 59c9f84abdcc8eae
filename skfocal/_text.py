"""Text containers to lists of str."""

import numpy as np

from skfocal._excerpt import excerpt


def as_texts(X):
    """Return the documents in `X` as a list of str, or of pairs of str where it has two columns.

    Parameters
    ----------
    X : list, tuple, ndarray of shape (n,), (n, 1) or (n, 2), pandas or polars Series or DataFrame \
            of one or two columns, pyarrow array or table
        One str a document, or two.

    Returns
    -------
    list of str or of (str, str)

    Raises
    ------
    TypeError
        If X is no such container or a row is not a str; the row is named.
    ValueError
        If X has no rows or more than two columns.
    """
    rows = _rows(X)
    if len(rows) == 0:
        raise ValueError(
            "Found array with 0 sample(s) while a minimum of 1 is required: X holds no document."
        )
    if isinstance(rows[0], list | tuple):
        return [_pair(i, row) for i, row in enumerate(rows)]
    return [_text(i, row) for i, row in enumerate(rows)]


def _text(i, row):
    if not isinstance(row, str):
        raise TypeError(_bad_row(i, row))
    return row if type(row) is str else str(row)


def _pair(i, row):
    if not isinstance(row, list | tuple) or len(row) != 2:
        raise TypeError(
            "X must hold one str a document, or a pair of str in each row. Got "
            f"{type(row).__name__} in row {i}: {excerpt(row)}."
        )
    for j, text in enumerate(row):
        if not isinstance(text, str):
            raise TypeError(_bad_row(i, text, f", column {j}"))
    return tuple(map(str, row))


def check_kind(texts, pairs):
    """Refuse pairs where the fit had single texts, and the other way round."""
    kinds = "one text a document", "pairs of texts"
    found = isinstance(texts[0], tuple)
    if found != pairs:
        raise ValueError(f"X must hold {kinds[pairs]}, as in fit. Got {kinds[found]}.")


def joined(texts, between):
    """Return one str a document, the two texts of a pair joined."""
    return [text if isinstance(text, str) else between.join(text) for text in texts]


def a_document(pairs):
    """Return something to try an estimator with."""
    return ("A document,", "to try it.") if pairs else "A document, to try it."


def as_column(X):
    """Return the documents in `X` as an array with columns, as imbalanced-learn takes them.

    Its samplers refuse lists, one-dimensional arrays and Series. As the first step of a pipeline
    this lets them in.

    Parameters
    ----------
    X : list, tuple, ndarray of shape (n,), (n, 1) or (n, 2), pandas or polars Series or DataFrame \
            of one or two columns, pyarrow array or table
        One str a document, or two.

    Returns
    -------
    ndarray of shape (n, 1) or (n, 2), dtype object

    Raises
    ------
    TypeError, ValueError
        If X is no container of texts; the row is named.

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
    texts = np.array(as_texts(X), dtype=object)
    return texts if texts.ndim == 2 else texts[:, None]


def _rows(X):
    if isinstance(X, str | bytes):
        raise TypeError(
            f"X must be a list of str, one a document, not a single {type(X).__name__}. "
            f"Got {excerpt(X)}; for one document give [document]."
        )
    if isinstance(X, list | tuple):
        return X
    shape = getattr(X, "shape", None)
    if shape is None and hasattr(X, "to_pylist"):  # pyarrow arrays have no shape
        return X.to_pylist()
    if shape is None or not hasattr(X, "__array__") and not hasattr(X, "to_pylist"):
        raise TypeError(
            "X must be a list, tuple, 1-D array, Series, one-column DataFrame or pyarrow array "
            f"of str. Got {type(X).__name__}."
        )
    if len(shape) not in (1, 2) or (len(shape) == 2 and shape[1] not in (1, 2)):
        raise ValueError(
            "X must have one column, the text, or two for pairs of texts: select it first, for "
            f"example with X['text'] or a ColumnTransformer. Got shape {tuple(shape)}."
        )
    if hasattr(X, "columns") and hasattr(X, "iloc") and not X.columns.is_unique:
        raise ValueError(
            f"X must have columns of different names. Got {X.columns.tolist()}: rename one."
        )
    if len(shape) == 2 and shape[1] == 2:
        return list(zip(*(_column(X, j) for j in (0, 1)), strict=True))
    return _column(X, 0)


def _column(X, j):
    """Return a column of something with a shape, or all of what has only one, as a list."""
    if hasattr(X, "iloc"):
        return (X if len(X.shape) == 1 else X.iloc[:, j]).tolist()
    if hasattr(X, "to_pylist"):  # a pyarrow table
        return X.column(j).to_pylist()
    if not isinstance(X, np.ma.MaskedArray):  # which has None in the rows that are masked
        X = np.asarray(X, dtype=object)
    return (X if X.ndim == 1 else X[:, j]).tolist()


def is_missing(value):
    """Say whether a value is None, NaN or pandas' NA or NaT."""
    is_nan = isinstance(value, float) and value != value
    return value is None or is_nan or type(value).__name__ in ("NAType", "NaTType")


def _bad_row(i, row, column=""):
    message = f"X must hold str only. Got {type(row).__name__} in row {i}{column}: {excerpt(row)}."
    if is_missing(row):
        return message + " Fill or drop missing texts first, for example X.fillna('')."
    if isinstance(row, bytes):
        return message + " Decode it first, for example row.decode('utf-8')."
    return message
