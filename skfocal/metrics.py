"""Scores that scikit-learn does not have."""

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.metrics import average_precision_score, log_loss, roc_auc_score
from sklearn.preprocessing import MultiLabelBinarizer
from sklearn.utils import check_array, check_consistent_length, column_or_1d, gen_batches

from skfocal._utils.arrays import check_range, columns_in_order, not_among
from skfocal._utils.messages import excerpts

_COLLECTIONS = (set, frozenset, list, tuple)
_DECISIONS = 2**20  # Decisions on labels that are put into bins at once.


def expected_calibration_error(
    y_true: ArrayLike,
    proba: ArrayLike,
    *,
    classes: ArrayLike | None = None,
    n_bins: int = 15,
    sample_weight: ArrayLike | None = None,
) -> float:
    """Return the mean gap between confidence and accuracy, over bins of equal width.

    The confidence of a document is its largest probability. With ``B_b`` the documents whose
    confidence falls into bin ``b``, of ``n`` in all::

        ECE = sum_b |B_b| / n * |accuracy(B_b) - mean confidence(B_b)|

    Parameters
    ----------
    y_true : array-like of shape (n,), or an indicator of shape (n, n_labels)
        Labels. Of several labels per document, each decision on one of them counts, with the
        larger of ``p`` and ``1 - p`` as its confidence.
    proba : array-like of shape (n, n_classes)
        Probabilities.
    classes : array-like of shape (n_classes,), default=None
        Labels of the columns. None: the sorted labels in `y_true`.
    n_bins : int, default=15
        Number of bins, at least 1.
    sample_weight : array-like of shape (n,), default=None
        Weights of the documents.

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
    counts, confidence, accuracy = confidence_bins(
        y_true, proba, classes=classes, n_bins=n_bins, sample_weight=sample_weight
    )
    return float((counts * np.abs(accuracy - confidence)).sum() / counts.sum())


def confidence_bins(
    y_true: ArrayLike,
    proba: ArrayLike,
    *,
    classes: ArrayLike | None = None,
    n_bins: int = 15,
    sample_weight: ArrayLike | None = None,
) -> tuple[NDArray[Any], NDArray[np.float64], NDArray[np.float64]]:
    """Return the number of documents, the mean confidence and the accuracy of each bin.

    Parameters
    ----------
    y_true, proba : array-like
    classes, n_bins, sample_weight : array-like, int and array-like, default=None, 15, None
        As in :func:`expected_calibration_error`. The number of documents is the sum of their
        weights.

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
    y_true = columns_in_order(y_true, classes)
    if np.ndim(y_true) == 2 and np.shape(y_true)[1] > 1:
        return _bins_of_decisions(y_true, proba, n_bins, sample_weight)
    labels: NDArray[Any] = column_or_1d(y_true)
    p: NDArray[np.float64] = check_array(proba)
    check_consistent_length(labels, p, sample_weight)
    columns = np.unique(labels) if classes is None else np.asarray(classes)
    if len(columns) != p.shape[1]:
        raise ValueError(
            f"classes must name the {p.shape[1]} columns of proba. Got {len(columns)}: "
            f"{excerpts(columns.tolist())}."
        )
    unknown = not_among(labels, columns).tolist()
    if unknown:
        raise ValueError(f"y_true must hold labels of classes only. Got {excerpts(unknown)}.")
    check_range(p)
    if n_bins < 1:
        raise ValueError(f"n_bins must be at least 1. Got {n_bins}.")
    confidence = p.max(axis=1)
    right = columns[p.argmax(axis=1)] == labels
    bins = np.minimum((confidence * n_bins).astype(int), n_bins - 1)
    weight = 1 if sample_weight is None else np.asarray(sample_weight, dtype=np.float64)
    counts = np.bincount(bins, None if sample_weight is None else weight, minlength=n_bins)
    mean_confidence, accuracy = (
        np.bincount(bins, weights=weight * values, minlength=n_bins)
        / np.where(counts > 0, counts, 1)
        for values in (confidence, right)
    )
    return counts, mean_confidence, accuracy


def _bins_of_decisions(
    y_true: Any, proba: ArrayLike, n_bins: int, sample_weight: ArrayLike | None
) -> tuple[NDArray[Any], NDArray[np.float64], NDArray[np.float64]]:
    """Return the bins of the decisions on each label, computed from some documents at a time."""
    truth, p = np.asarray(y_true), check_array(proba)
    if truth.shape != p.shape:
        raise ValueError(
            "proba must have the shape of the indicator y_true, one column for each label. Got "
            f"{p.shape} and {truth.shape}."
        )
    weight = None if sample_weight is None else np.asarray(sample_weight)
    check_consistent_length(truth, weight)
    parts = []
    for rows in gen_batches(len(truth), max(_DECISIONS // truth.shape[1], 1)):
        labels, ones = (truth[rows].ravel() > 0).astype(int), p[rows].ravel()
        each = None if weight is None else np.repeat(weight[rows], truth.shape[1])
        two = np.stack([1 - ones, ones], axis=1)
        parts.append(
            confidence_bins(labels, two, classes=[0, 1], n_bins=n_bins, sample_weight=each)
        )
    counts = np.sum([n for n, _, _ in parts], axis=0)
    confidence, accuracy = (
        np.sum([part[0] * part[k] for part in parts], axis=0) / np.where(counts > 0, counts, 1)
        for k in (1, 2)
    )
    return counts, confidence, accuracy


# -- scorers -----------------------------------------------------------------------------------


def neg_log_loss_scorer(
    estimator: Any, X: Any, y: Any, sample_weight: ArrayLike | None = None
) -> float:
    """Return the negative log-loss of a fitted classifier, also on a fold that lacks classes.

    scikit-learn's scorer "neg_log_loss" takes the classes from y, so the score of a fold that
    lacks one is NaN. This one takes those of the estimator. A label that the estimator does not
    know gets probability 0, which counts as the smallest float64 above 1, less 1: a loss of 36.

    Parameters
    ----------
    estimator : fitted classifier with ``predict_proba``
    X : documents
    y : array-like of shape (n,), or an indicator of shape (n, n_labels)
        Labels. With several labels per document, the mean over the labels counts.
    sample_weight : array-like of shape (n,), default=None

    Returns
    -------
    float
        At most 0; larger is better.

    Examples
    --------
    >>> from sklearn.dummy import DummyClassifier
    >>> from sklearn.model_selection import cross_val_score
    >>> X, y = [[0]] * 6, ["a", "a", "a", "a", "a", "b"]
    >>> clf, folds = DummyClassifier(strategy="prior"), [([0, 1, 2, 5], [3, 4])]
    >>> cross_val_score(clf, X, y, cv=folds, scoring=neg_log_loss_scorer).round(3)
    array([-0.288])
    """
    proba, truth, several = _proba_and_truth(estimator, X, y)
    if several:
        loss = functools.partial(log_loss, labels=[0, 1])
        return -_mean_over_classes(loss, np.ones(truth.shape[1]), proba, truth, sample_weight)
    codes, every = truth.argmax(axis=1), range(truth.shape[1])
    return -float(log_loss(codes, proba, sample_weight=sample_weight, labels=every))


def roc_auc_scorer(estimator: Any, X: Any, y: Any, sample_weight: ArrayLike | None = None) -> float:
    """Return the area under the ROC curve of each class against the others, as the mean.

    Only classes count that some but not all documents have. scikit-learn's scorer
    "roc_auc_ovr" is NaN on a fold that lacks a class.

    Parameters
    ----------
    estimator, X, y
        As in :func:`neg_log_loss_scorer`.
    sample_weight : array-like of shape (n,), default=None

    Returns
    -------
    float
        In [0, 1]; NaN only if all documents have the same labels.
    """
    proba, truth, _ = _proba_and_truth(estimator, X, y)
    proba, truth, sample_weight = _that_count(proba, truth, sample_weight)
    mixed = truth.any(axis=0) & ~truth.all(axis=0)
    return _mean_over_classes(roc_auc_score, mixed, proba, truth, sample_weight)


def average_precision_scorer(
    estimator: Any, X: Any, y: Any, sample_weight: ArrayLike | None = None
) -> float:
    """Return the average precision of each class against the others, as the mean.

    Only classes that occur in y count. If there are two classes, both count.

    Parameters
    ----------
    estimator, X, y
        As in :func:`neg_log_loss_scorer`.
    sample_weight : array-like of shape (n,), default=None

    Returns
    -------
    float
        In [0, 1]; NaN only if no document has a label.
    """
    proba, truth, _ = _proba_and_truth(estimator, X, y)
    proba, truth, sample_weight = _that_count(proba, truth, sample_weight)
    present = truth.any(axis=0)
    return _mean_over_classes(average_precision_score, present, proba, truth, sample_weight)


def _that_count(
    proba: NDArray[np.float64], truth: NDArray[np.int64], sample_weight: ArrayLike | None
) -> tuple[NDArray[np.float64], NDArray[np.int64], ArrayLike | None]:
    """Return the documents whose weight is not 0: the classes of others are not there."""
    if sample_weight is None:
        return proba, truth, None
    weight = np.asarray(sample_weight)
    check_consistent_length(proba, weight)
    rows = weight != 0
    return proba[rows], truth[rows], weight[rows]


def _mean_over_classes(
    score: Callable[..., float],
    scored: ArrayLike,
    proba: NDArray[np.float64],
    truth: NDArray[np.int64],
    sample_weight: ArrayLike | None,
) -> float:
    """Return the mean score of the classes to be scored, or NaN if there are none."""
    scores = [
        score(truth[:, c], proba[:, c], sample_weight=sample_weight) for c in np.flatnonzero(scored)
    ]
    return float(np.mean(scores)) if scores else float("nan")


def _proba_and_truth(
    estimator: Any, X: Any, y: Any
) -> tuple[NDArray[np.float64], NDArray[np.int64], bool]:
    """Return the probabilities and an indicator of y, with a column for each class of either.

    And whether a document may have several labels.
    """
    proba = np.asarray(estimator.predict_proba(X), dtype=np.float64)
    known = np.asarray(estimator.classes_)
    indicator = _indicator(y, known)
    if indicator is not None:
        return proba, indicator, True
    labels = column_or_1d(y)
    if labels.dtype.kind == "O" and not any(isinstance(label, str) for label in labels):
        labels = np.array(labels.tolist())  # whole numbers, or truth values
    missing = [i for i, label in enumerate(labels) if label is None or label != label]
    kinds = {kind in "OUST" for kind in (labels.dtype.kind, known.dtype.kind)}
    if missing or len(kinds) > 1:
        found = f"none in row {missing[0]}" if missing else f"labels of type {labels.dtype}"
        raise ValueError(
            f"y must have a label for each document, of the kind of {excerpts(known.tolist())}. "
            f"Got {found}."
        )
    classes = np.union1d(known, labels)
    wide = np.zeros((len(proba), len(classes)))
    wide[:, np.searchsorted(classes, known)] = proba
    return wide, (labels[:, None] == classes).astype(np.int64), False


def _indicator(y: Any, classes: NDArray[Any]) -> NDArray[np.int64] | None:
    """Return y as an indicator of several labels, or None if there is one per document."""
    y = columns_in_order(y, classes)
    rows = y if isinstance(y, list | tuple) else []
    collections = [row for row in rows if isinstance(row, _COLLECTIONS)]
    names = any(isinstance(label, str) for row in collections for label in row)
    sets = any(isinstance(row, set | frozenset) for row in collections)
    if names or sets or len({len(row) for row in collections}) > 1:
        found: NDArray[np.int64] = MultiLabelBinarizer(classes=classes.tolist()).fit_transform(y)
        return found
    if np.ndim(y) != 2 or np.shape(y)[1] == 1:
        return None
    if np.shape(y)[1] != len(classes):
        raise ValueError(
            f"y must have a column for each of the labels {excerpts(classes.tolist())}. "
            f"Got {np.shape(y)[1]} columns."
        )
    return np.asarray(y).astype(np.int64)
