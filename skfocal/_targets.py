"""From what a user gives as y to codes: one class a document, or an indicator of labels."""

import numpy as np
from scipy import sparse
from sklearn.preprocessing import MultiLabelBinarizer
from sklearn.utils import assert_all_finite
from sklearn.utils.multiclass import check_classification_targets, type_of_target
from sklearn.utils.validation import check_consistent_length, column_or_1d

from skfocal._text import is_missing


def encode(y, texts, declared=None):
    """Return ``(classes, codes)``.

    Parameters
    ----------
    y : array-like of shape (n,) or (n, n_labels), sparse matrix, DataFrame or sequence of \
            collections of labels
        One label a document; or for each document an indicator of its labels, or their names.
    texts : list of length n
        The documents.
    declared : array-like, default=None
        All classes; with indicators the names of the columns. None: what y has.

    Returns
    -------
    classes : ndarray of shape (n_classes,)
        Sorted; with indicators in the order of the columns.
    codes : int64 ndarray of shape (n,), or float32 ndarray of 0 and 1 of shape (n, n_classes)

    Raises
    ------
    ValueError
        If y cannot be used or has a label that is not declared.
    """
    if y is None:
        raise ValueError("BertFocalClassifier requires y to be passed, but the target y is None.")
    if _holds_collections(y):
        return _encode_collections(y, texts, declared)
    if sparse.issparse(y):
        y = y.toarray()
    shape = np.asarray(y).shape
    if len(shape) == 2 and shape[1] > 1:
        return _encode_indicator(y, texts, declared)
    return _encode_classes(y, texts, declared)


def _holds_collections(y):
    """Say whether the elements are collections of labels, not rows of an array."""
    if sparse.issparse(y) or getattr(y, "ndim", 1) != 1:
        return False
    rows = list(y) if isinstance(y, list | tuple) or hasattr(y, "dtype") else []
    if not rows or not all(isinstance(row, list | tuple | set | frozenset) for row in rows):
        return False
    if any(isinstance(row, set | frozenset) for row in rows):
        return True
    lengths = {len(row) for row in rows}
    names = any(isinstance(label, str) for row in rows for label in row)
    return len(lengths) > 1 or (names and lengths != {1})


def _encode_collections(y, texts, declared):
    check_consistent_length(texts, list(y))
    found = sorted({label for row in y for label in row})
    classes = np.array(found) if declared is None else np.unique(column_or_1d(declared))
    _check_known(np.setdiff1d(found, classes), classes)
    binarizer = MultiLabelBinarizer(classes=classes.tolist())
    return classes, binarizer.fit_transform(y).astype(np.float32)


def _encode_indicator(y, texts, declared):
    columns = getattr(y, "columns", None)
    y = np.asarray(y)
    check_consistent_length(texts, y)
    kind = type_of_target(y, input_name="y")
    # A column of zeros, or all of them: scikit-learn calls it so as long as values are 0 and 1.
    if kind != "multilabel-indicator":
        raise ValueError(
            "y with several columns must be an indicator of 0 and 1, one column a label. "
            f"Got {kind} data of shape {y.shape}."
        )
    classes = np.arange(y.shape[1]) if columns is None else np.asarray(columns)
    if declared is not None:
        classes = column_or_1d(declared)
        if len(classes) != y.shape[1]:
            raise ValueError(
                f"classes must name the {y.shape[1]} columns of y. Got {classes.tolist()}."
            )
    return classes, y.astype(np.float32)


def _encode_classes(y, texts, declared):
    if hasattr(getattr(y, "dtype", None), "numpy_dtype") and not y.isna().any():
        y = y.to_numpy(y.dtype.numpy_dtype)  # pandas' Int64 and boolean would become floats
    y = column_or_1d(y, warn=True)
    check_consistent_length(texts, y)
    _check_no_missing(y)
    check_classification_targets(y)
    present, codes = np.unique(y, return_inverse=True)
    if declared is None:
        if len(present) < 2:
            raise ValueError(
                "y must have documents of at least two classes. Got one class only: "
                f"{present.tolist()[0]!r}. If there are more, name them all in classes=."
            )
        return present, codes
    classes = np.unique(column_or_1d(declared))
    _check_known(np.setdiff1d(present, classes), classes)
    return classes, np.searchsorted(classes, y)


def _check_known(unknown, classes):
    if len(unknown) or len(classes) < 2:
        raise ValueError(
            "classes must name at least two labels, all of those in y among them. Got "
            f"{classes.tolist()}, without {unknown.tolist()} of y."
        )


def _check_no_missing(y):
    if y.dtype.kind == "O":
        for i, label in enumerate(y):
            if is_missing(label):
                raise ValueError(f"y must have a label for each document. Got {label} in row {i}.")
    elif y.dtype.kind == "f":
        assert_all_finite(y, input_name="y")


def decode(classes, codes):
    """Return labels of shape (n,), or an int indicator of shape (n, n_classes)."""
    return classes[codes] if codes.ndim == 1 else codes.astype(np.int64)


def amounts(codes, weight, n_classes):
    """Return the weight of each class, (n_classes,); of labels (n_labels, 2), without and with."""
    if codes.ndim == 1:
        return np.bincount(codes, weights=weight, minlength=n_classes)
    positive = weight @ codes.astype(np.float64)
    return np.stack([weight.sum() - positive, positive], axis=1)


def absent(classes, codes):
    """Return the classes that no document has."""
    return classes[(codes.sum(0) == 0) if codes.ndim == 2 else ~np.isin(range(len(classes)), codes)]


def strata(codes):
    """Return one code a document to stratify by: its class, or the rarest of its labels."""
    if codes.ndim == 1:
        return codes
    rarity = codes / np.maximum(codes.sum(0), 1)
    return np.where(codes.any(1), rarity.argmax(1) + 1, 0)


def positives(codes, n_classes):
    """Return how many documents have each class or label."""
    return codes.sum(0) if codes.ndim == 2 else np.bincount(codes, minlength=n_classes)


def shares(amounts):
    """Return the share of each class, or of the documents with each label."""
    return amounts[:, 1] / amounts.sum(1) if amounts.ndim == 2 else amounts / amounts.sum()
