"""Scores for imbalanced classes: of each class, of all of them, and of the probabilities.

Each class counts as much as any other in the macro scores, and a class that the scored documents
lack is left out of them: 0 / 0 is neither a good score nor a bad one.
"""

import numpy as np
from sklearn.metrics import (
    accuracy_score,
    average_precision_score,
    log_loss,
    precision_recall_fscore_support,
)
from sklearn.utils import Bunch, check_array, check_consistent_length
from sklearn.utils.validation import column_or_1d


def expected_calibration_error(y_true, proba, *, classes=None, n_bins=15) -> float:
    """Return the expected calibration error of the most probable class.

    Documents are put into bins of equal width by their confidence, the largest probability:
    ``sum_b n_b / n * |accuracy_b - confidence_b|``. 0 is perfect. Few documents make it larger
    than it is: within a bin the accuracy is off by chance, and the gaps cannot cancel.

    Parameters
    ----------
    y_true : array-like of shape (n,)
        Labels. One that `classes` lacks counts as wrong.
    proba : array-like of shape (n, n_classes)
        Probabilities.
    classes : array-like of shape (n_classes,), default=None
        Labels of the columns, a classifier's ``classes_``. None: the sorted labels in `y_true`.
    n_bins : int, default=15
        Number of bins. A confidence between two bins belongs to the upper one.

    Returns
    -------
    float, in [0, 1]

    Raises
    ------
    ValueError
        If the shapes do not fit or `proba` holds anything but numbers from 0 to 1.

    References
    ----------
    Guo, Pleiss, Sun, Weinberger: On Calibration of Modern Neural Networks, ICML 2017
    (arXiv:1706.04599), equation 3.

    Examples
    --------
    >>> from skfocal import expected_calibration_error
    >>> proba = [[0.75, 0.25], [0.75, 0.25], [0.25, 0.75], [0.25, 0.75]]
    >>> expected_calibration_error(["ham", "ham", "spam", "spam"], proba)
    0.25
    """
    y_true = column_or_1d(y_true)
    proba = check_array(proba, dtype=np.float64, input_name="proba")
    check_consistent_length(y_true, proba)
    classes = _check_classes(classes, y_true)
    if proba.shape[1] != len(classes):
        raise ValueError(
            f"proba must have a column for each of the {len(classes)} classes: name all of them "
            f"in classes=. Got {proba.shape[1]} columns."
        )
    if proba.min() < 0 or proba.max() > 1:
        raise ValueError(
            f"proba must lie in [0, 1]. Got values from {proba.min():g} to {proba.max():g}."
        )
    if n_bins < 1 or n_bins != int(n_bins):
        raise ValueError(f"n_bins must be a whole number of at least 1. Got {n_bins!r}.")
    confidence = proba.max(axis=1)
    right = classes[proba.argmax(axis=1)] == y_true
    bins = np.minimum((confidence * n_bins).astype(int), n_bins - 1)
    gaps = np.bincount(bins, weights=right - confidence)
    return float(np.abs(gaps).sum() / len(y_true))


def per_class_scores(y_true, y_pred, *, classes=None) -> Bunch:
    """Return precision, recall and F1 of each class.

    Parameters
    ----------
    y_true : array-like of shape (n,)
        Labels.
    y_pred : array-like of shape (n,)
        Predicted labels.
    classes : array-like of shape (n_classes,), default=None
        Labels to score. None: the sorted labels in `y_true`.

    Returns
    -------
    Bunch
        With ``classes``, ``precision``, ``recall``, ``f1`` and ``support``, the number of
        documents, each of shape (n_classes,). A class without documents in `y_true` has nan; a
        class that is never predicted has precision 0, as scikit-learn's ``zero_division=0``.

    Raises
    ------
    ValueError
        If the lengths differ.

    Examples
    --------
    >>> from skfocal import per_class_scores
    >>> scores = per_class_scores(["ham", "ham", "ham", "spam"], ["ham", "ham", "spam", "spam"])
    >>> scores.classes.tolist(), scores.recall.round(2).tolist(), scores.precision.tolist()
    (['ham', 'spam'], [0.67, 1.0], [1.0, 0.5])
    """
    y_true, y_pred = column_or_1d(y_true), column_or_1d(y_pred)
    check_consistent_length(y_true, y_pred)
    classes = _check_classes(classes, y_true)
    precision, recall, f1, _ = precision_recall_fscore_support(
        y_true, y_pred, labels=classes, zero_division=0
    )
    support = (y_true[:, None] == classes).sum(axis=0)
    scores = {"precision": precision, "recall": recall, "f1": f1}
    scores = {name: np.where(support, values, np.nan) for name, values in scores.items()}
    return Bunch(classes=classes, support=support, **scores)


def overall_scores(y_true, y_pred, proba, *, classes) -> dict[str, float]:
    """Return the scores over all classes.

    Macro-F1, balanced accuracy and average precision are means over the classes that `y_true`
    has. If it has all of them, these are ``f1_score(average="macro")``,
    ``balanced_accuracy_score`` and ``average_precision_score(average="macro")`` of one class
    against the rest (for two classes too: the mean of both).

    Parameters
    ----------
    y_true : array-like of shape (n,)
        Labels.
    y_pred : array-like of shape (n,)
        Predicted labels.
    proba : array-like of shape (n, n_classes) or None
        Probabilities. None gives nan for the scores that need them.
    classes : array-like of shape (n_classes,)
        Sorted labels of the columns, all labels of `y_true` among them.

    Returns
    -------
    dict from {"f1_macro", "average_precision", "balanced_accuracy", "accuracy", "log_loss", \
            "ece"} to float
        `log_loss` is in nats. Probabilities are clipped at 2.2e-16, so that a class that the
        classifier does not know costs 36 a document, not infinity.
    """
    y_true, classes = column_or_1d(y_true), np.asarray(classes)
    by_class = per_class_scores(y_true, y_pred, classes=classes)
    scores = {
        "f1_macro": float(np.nanmean(by_class.f1)),
        "average_precision": np.nan,
        "balanced_accuracy": float(np.nanmean(by_class.recall)),
        "accuracy": float(accuracy_score(y_true, y_pred)),
        "log_loss": np.nan,
        "ece": np.nan,
    }
    if proba is None:
        return scores
    proba = np.asarray(proba, dtype=np.float64)
    proba = proba / proba.sum(axis=1, keepdims=True)  # float32 rows are off by 1e-7
    precisions = [
        average_precision_score(y_true == classes[i], proba[:, i])
        for i in np.flatnonzero(by_class.support)
    ]
    scores["average_precision"] = float(np.mean(precisions))
    scores["log_loss"] = float(log_loss(y_true, proba, labels=classes))
    scores["ece"] = expected_calibration_error(y_true, proba, classes=classes)
    return scores


def align_proba(proba, known, classes) -> np.ndarray:
    """Return probabilities with a column for each of `classes`, zeros for those not known.

    Parameters
    ----------
    proba : array-like of shape (n, n_known)
        Probabilities.
    known : array-like of shape (n_known,)
        Labels of its columns, in any order.
    classes : array-like of shape (n_classes,)
        Sorted labels, all of `known` among them.

    Returns
    -------
    ndarray of shape (n, n_classes)

    Raises
    ------
    ValueError
        If a known label is not among `classes`.

    Examples
    --------
    >>> from skfocal.metrics import align_proba
    >>> align_proba([[0.25, 0.75]], ["a", "c"], ["a", "b", "c"])
    array([[0.25, 0.  , 0.75]])
    """
    proba, known, classes = np.asarray(proba), np.asarray(known), np.asarray(classes)
    unknown = np.setdiff1d(known, classes)
    if len(unknown):
        raise ValueError(
            f"classes must have all labels of the classifier. Got none of {unknown.tolist()}."
        )
    aligned = np.zeros((len(proba), len(classes)), dtype=proba.dtype)
    aligned[:, np.searchsorted(classes, known)] = proba
    return aligned


def _check_classes(classes, y_true):
    if classes is None:
        return np.unique(y_true)
    classes = column_or_1d(classes)
    if len(np.unique(classes)) < len(classes):
        raise ValueError(f"classes must be distinct. Got {classes.tolist()}.")
    return classes
