"""Vectors of documents, in which a classifier's classes lie near each other or apart."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.metrics.pairwise import cosine_similarity
from sklearn.utils import _safe_indexing

from skfocal._data.texts import Documents, as_shown, as_texts, take
from skfocal._utils.wrapped import innermost


def features_of(estimator: Any, X: Documents) -> tuple[Any, str]:
    """Return one vector per document, dense or sparse, and what they are.

    They are what the classifier's `transform` returns, as that of a BertFocalClassifier does, else
    the numbers that it gets from the other steps of its pipeline, else TF-IDF of the texts.
    """
    _, final, X = innermost(estimator, X)
    if hasattr(final, "transform"):
        return _matrix(final.transform(X)), f"the features of {type(final).__name__}"
    kind = getattr(getattr(X, "dtype", None), "kind", "O")
    if sparse.issparse(X) or (kind in "biuf" and np.ndim(X) == 2):
        return _matrix(X), f"the vectors that {type(final).__name__} is given"
    try:
        return TfidfVectorizer(sublinear_tf=True).fit_transform(as_shown(X)), "TF-IDF of the words"
    except ValueError:  # no words
        return np.zeros((len(X), 1)), "nothing, as the texts have no words"


def _matrix(values: Any) -> Any:
    return sparse.csr_array(values) if sparse.issparse(values) else np.asarray(values)


def rows_of(X: Documents, rows: NDArray[np.int64]) -> Documents:
    """Return some rows of documents, in the container that they came in if it can be indexed."""
    known = isinstance(X, list | np.ndarray) or hasattr(X, "iloc") or sparse.issparse(X)
    if known or type(X).__module__.startswith("polars"):
        return _safe_indexing(X, rows)
    return take(as_texts(X), rows.tolist())


def similarity_to_mean(vectors: Any) -> NDArray[np.float64]:
    """Return the cosine of the angle between each vector and the mean of all."""
    mean = np.asarray(vectors.mean(axis=0)).reshape(1, -1)
    similarity: NDArray[np.float64] = cosine_similarity(vectors, mean)[:, 0]
    return similarity
