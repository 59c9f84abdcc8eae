"""Vectors of documents, in which a classifier's classes lie near each other or apart."""

from numbers import Number
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.metrics.pairwise import cosine_similarity
from sklearn.utils import _safe_indexing
from sklearn.utils.validation import _num_samples

from skfocal._data.texts import Documents, as_shown, as_texts, take
from skfocal._utils.wrapped import innermost

_NUMBERS = "biuf"  # kinds of NumPy's types


def features_of(estimator: Any, X: Documents) -> tuple[Any, str]:
    """Return one vector per document, dense or sparse, and what they are.

    They are what the classifier's `transform` returns, as that of a BertFocalClassifier does, else
    the numbers that it gets from the other steps of its pipeline, else TF-IDF of the texts.
    """
    _, final, X = innermost(estimator, X)
    name, why = type(final).__name__, ""
    if hasattr(final, "transform"):
        try:
            vectors = _usable(_numbers(final.transform(X)), X)
        except Exception:  # some have it, and cannot do it with all settings
            vectors = None
        if vectors is not None:
            return vectors, f"the features of {name}"
        why = f", as {name}.transform gives no vectors"
    numbers = _numbers(X)
    if numbers is not None:
        vectors = _usable(numbers, X)
        if vectors is None:
            return np.zeros((_num_samples(X), 1)), f"nothing, as {name} is given missing values"
        return vectors, f"the vectors that {name} is given{why}"
    try:
        vectors = TfidfVectorizer(sublinear_tf=True).fit_transform(as_shown(X))
    except ValueError:  # no words
        return np.zeros((_num_samples(X), 1)), "nothing, as the texts have no words"
    return vectors, f"TF-IDF of the words{why}"


def _numbers(X: Any) -> Any:
    """Return a matrix, a frame or rows of numbers as an array, sparse or dense; None of others."""
    if sparse.issparse(X):
        return sparse.csr_array(X)
    if isinstance(X, list | tuple) or (isinstance(X, np.ndarray) and X.dtype.kind == "O"):
        # By the first row, as an array of texts would be as wide as the longest.
        if np.ndim(X[0]) != 1 or not all(isinstance(value, Number | np.bool_) for value in X[0]):
            return None
        try:
            return np.asarray(X, dtype=float)
        except (TypeError, ValueError):  # other rows hold something else
            return None
    if not hasattr(X, "__array__") or np.ndim(getattr(X, "shape", 0)) != 1 or len(X.shape) != 2:
        return None
    if hasattr(X, "iloc"):  # nullable columns would become objects
        has_numbers = all(dtype.kind in _NUMBERS for dtype in X.dtypes)
        return X.to_numpy(dtype=float, na_value=np.nan) if has_numbers else None
    values = np.asarray(X)  # of a frame of polars, too
    return values if values.dtype.kind in _NUMBERS else None


def _usable(values: Any, X: Documents) -> Any:
    """Return values that are one finite vector per document, else None."""
    if values is None or values.ndim != 2 or values.shape[0] != _num_samples(X):
        return None
    return values if np.isfinite(values.data if sparse.issparse(values) else values).all() else None


def rows_of(X: Documents, rows: NDArray[np.int64]) -> Documents:
    """Return some rows of documents, in the container that they came in if it can be indexed."""
    if sparse.issparse(X):
        return X.tocsr()[rows]  # not all formats can be indexed
    known = isinstance(X, list | np.ndarray) or hasattr(X, "iloc")
    if known or type(X).__module__.startswith("polars"):
        return _safe_indexing(X, rows)
    return take(as_texts(X), rows.tolist())


def similarity_to_mean(vectors: Any) -> NDArray[np.float64]:
    """Return the cosine of the angle between each vector and the mean of all."""
    mean = np.asarray(vectors.mean(axis=0)).reshape(1, -1)
    similarity: NDArray[np.float64] = cosine_similarity(vectors, mean)[:, 0]
    return similarity
