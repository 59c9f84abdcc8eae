"""Scores that scikit-learn does not have."""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.utils import check_array, check_consistent_length, column_or_1d

from skfocal._utils.messages import excerpts


def expected_calibration_error(
    y_true: ArrayLike,
    proba: ArrayLike,
    *,
    classes: ArrayLike | None = None,
    n_bins: int = 15,
) -> float:
    """Return the mean gap between confidence and accuracy, over bins of equal width.

    The confidence of a document is its largest probability. With ``B_b`` the documents whose
    confidence falls into bin ``b``, of ``n`` in all::

        ECE = sum_b |B_b| / n * |accuracy(B_b) - mean confidence(B_b)|

    Parameters
    ----------
    y_true : array-like of shape (n,)
        Labels.
    proba : array-like of shape (n, n_classes)
        Probabilities.
    classes : array-like of shape (n_classes,), default=None
        Labels of the columns. None: the sorted labels in `y_true`.
    n_bins : int, default=15
        Number of bins, at least 1.

    Returns
    -------
    float
        In [0, 1]; 0 is perfect.

    Raises
    ------
    ValueError
        If the shapes do not match, a label has no column, or `proba` or `n_bins` is out of range.

    References
    ----------
    Guo, Pleiss, Sun, Weinberger: On Calibration of Modern Neural Networks, ICML 2017
    (arXiv:1706.04599).

    Examples
    --------
    >>> from skfocal.metrics import expected_calibration_error
    >>> expected_calibration_error(["a", "b"], [[0.9, 0.1], [0.6, 0.4]])
    0.35
    """
    counts, confidence, accuracy = confidence_bins(y_true, proba, classes=classes, n_bins=n_bins)
    return float((counts * np.abs(accuracy - confidence)).sum() / counts.sum())


def confidence_bins(
    y_true: ArrayLike,
    proba: ArrayLike,
    *,
    classes: ArrayLike | None = None,
    n_bins: int = 15,
) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]:
    """Return the number of documents, the mean confidence and the accuracy of each bin.

    Parameters
    ----------
    y_true, proba : array-like
    classes, n_bins : array-like and int, default=None, 15
        As in :func:`expected_calibration_error`.

    Returns
    -------
    counts, confidence, accuracy : ndarrays of shape (n_bins,)
        Mean confidence and accuracy are 0 in an empty bin.

    Raises
    ------
    ValueError
        If the shapes do not match, a label has no column, or `proba` or `n_bins` is out of range.

    Examples
    --------
    >>> proba = [[0.9, 0.1], [0.6, 0.4]]
    >>> counts, confidence, accuracy = confidence_bins(["a", "b"], proba, n_bins=2)
    >>> counts.tolist(), confidence.tolist(), accuracy.tolist()
    ([0, 2], [0.0, 0.75], [0.0, 0.5])
    """
    labels: NDArray[Any] = column_or_1d(y_true)
    p: NDArray[np.float64] = check_array(proba)
    check_consistent_length(labels, p)
    columns = np.unique(labels) if classes is None else np.asarray(classes)
    if len(columns) != p.shape[1]:
        raise ValueError(
            f"classes must name the {p.shape[1]} columns of proba. Got {len(columns)}: "
            f"{excerpts(columns.tolist())}."
        )
    unknown = np.setdiff1d(labels, columns).tolist()
    if unknown:
        raise ValueError(f"y_true must hold labels of classes only. Got {excerpts(unknown)}.")
    if p.min() < 0 or p.max() > 1 + 1e-6:
        raise ValueError(f"proba must be in [0, 1]. Got values from {p.min():g} to {p.max():g}.")
    if n_bins < 1:
        raise ValueError(f"n_bins must be at least 1. Got {n_bins}.")
    confidence = p.max(axis=1)
    right = columns[p.argmax(axis=1)] == labels
    bins = np.minimum((confidence * n_bins).astype(int), n_bins - 1)
    counts = np.bincount(bins, minlength=n_bins)
    mean_confidence, accuracy = (
        np.bincount(bins, weights=values, minlength=n_bins) / np.maximum(counts, 1)
        for values in (confidence, right)
    )
    return counts, mean_confidence, accuracy
