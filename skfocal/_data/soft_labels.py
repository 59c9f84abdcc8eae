"""Probabilities as targets: a document stands once for each class that it may have."""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.utils import check_array, check_consistent_length, column_or_1d

from skfocal._data.texts import Documents, as_texts
from skfocal._utils.messages import excerpt, excerpts


def expand_soft_labels(
    X: Documents, proba: ArrayLike, classes: ArrayLike
) -> tuple[list[Any], NDArray[Any], NDArray[np.float64], NDArray[np.int64]]:
    """Turn a probability of each class per document into labels with sample weights.

    Use it for the answers of several annotators, or of another model (distillation). A document
    stands once for each class of positive probability, with that as its weight ``w``. The
    cross-entropy of the result is that of the soft targets, since::

        sum_c w_c * CE(logits, c) = -sum_c w_c log p_c

    and other losses are the mean over the classes that a document may have. Training takes as many
    times longer as a document has classes, so round tiny probabilities to 0.

    Parameters
    ----------
    X : as in :meth:`BertFocalClassifier.fit`
        One string per document, or a pair of strings.
    proba : array-like of shape (n, n_classes)
        Probabilities; each row sums to 1.
    classes : array-like of shape (n_classes,)
        Labels of the columns.

    Returns
    -------
    X : list of length m
    y : ndarray of shape (m,)
        Labels.
    sample_weight : ndarray of shape (m,)
        Probabilities.
    groups : ndarray of shape (m,)
        Number of the document, for a splitter that must not tear its copies apart.

    Raises
    ------
    ValueError
        If the shapes do not match, or a row holds no probabilities; the message names it.

    Examples
    --------
    >>> from skfocal import expand_soft_labels
    >>> X, y, weight, groups = expand_soft_labels(
    ...     ["all agree", "two of three"], [[1, 0], [1 / 3, 2 / 3]], ["ham", "spam"]
    ... )
    >>> X
    ['all agree', 'two of three', 'two of three']
    >>> y.tolist(), weight.round(2).tolist(), groups.tolist()
    (['ham', 'ham', 'spam'], [1.0, 0.33, 0.67], [0, 1, 1])
    """
    texts, labels = as_texts(X), column_or_1d(classes)
    p: NDArray[np.float64] = check_array(proba, dtype=np.float64)
    check_consistent_length(texts, p)
    if len(labels) != p.shape[1] or len(np.unique(labels)) < len(labels):
        raise ValueError(
            f"classes must name each of the {p.shape[1]} columns of proba once. "
            f"Got {excerpts(labels.tolist())}."
        )
    wrong = np.flatnonzero((p.min(axis=1) < 0) | (np.abs(p.sum(axis=1) - 1) > 1e-3))
    if len(wrong):
        raise ValueError(
            "proba must hold probabilities of classes, which sum to 1 in each row. "
            f"Got {excerpt(p[wrong[0]].tolist())} in row {wrong[0]}."
        )
    rows, columns = np.nonzero(p)
    return [texts[row] for row in rows], labels[columns], p[rows, columns], rows
