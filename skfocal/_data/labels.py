"""Turn y into codes: one class per document, or an indicator of labels."""

import functools
from collections import Counter
from collections.abc import Mapping, Sequence, Set
from numbers import Number
from typing import Any, TypeAlias

import numpy as np
from scipy import sparse
from sklearn.preprocessing import MultiLabelBinarizer
from sklearn.utils import assert_all_finite
from sklearn.utils.multiclass import check_classification_targets, type_of_target
from sklearn.utils.validation import check_consistent_length, column_or_1d

from skfocal._data.texts import is_dataset, is_missing, names_of_columns
from skfocal._runtime.warnings import warn
from skfocal._utils.arrays import columns_in_order, not_among
from skfocal._utils.messages import excerpt, excerpts

# What `encode` takes as y.
Labels: TypeAlias = Any

_MARKS = (-1, -100)  # of documents without a label: scikit-learn's and torch's
_LEAVE_OUT = "Leave such documents out."
_NOT_PROBABILITIES = "Probabilities cannot be labels."


def encode(y, texts, declared=None, multilabel=None):
    """Return ``(classes, codes)``.

    Parameters
    ----------
    y : array-like of shape (n,) or (n, n_labels), sparse matrix, DataFrame, column of a \
            ``datasets.Dataset`` or sequence of collections of labels
        One label per document, or an indicator or a collection of the labels of each document.
    texts : sequence of length n
        The documents.
    declared : array-like, default=None
        All classes or, for an indicator, the names of its columns; the columns of a DataFrame are
        reordered accordingly. None: the classes found in y.
    multilabel : bool, default=None
        Whether y must have several labels per document; None: decided by the form of y.

    Returns
    -------
    classes : ndarray of shape (n_classes,)
        Sorted; for an indicator in the order of its columns, for collections in that of
        `declared`, if given.
    codes : int64 ndarray of shape (n,), or float32 ndarray of 0 and 1 of shape (n, n_classes)

    Raises
    ------
    ValueError
        If y cannot be used or has a label that is not declared.
    """
    if y is None:
        raise ValueError("BertFocalClassifier requires y to be passed, but the target y is None.")
    sized = hasattr(y, "__len__") or hasattr(y, "__array__")
    if isinstance(y, str | bytes | Set | Mapping) or not sized:
        raise TypeError(
            "y must be a list, array or Series of labels, one per document, or an indicator of "
            f"labels. Got {type(y).__name__}."
        )
    y = _lists_as_objects(_whole_column(y))
    _check_not_masked(y)
    if _holds_rows_of_an_indicator(y):
        y = np.array([list(row) for row in y])
    as_collections = _holds_collections(y)
    if as_collections:
        classes, codes = _encode_collections(y, texts, declared)
    else:
        if sparse.issparse(y):
            y = y.toarray()
        shape = _shape(y)
        several = len(shape) == 2 and shape[1] > 1
        classes, codes = (_encode_indicator if several else _encode_classes)(y, texts, declared)
    if multilabel is None and codes.ndim == 2 and (codes.sum(1) == 1).all():
        _warn_one_each(as_collections)
    if multilabel not in (None, codes.ndim == 2):
        kinds = ["one label", "several labels"]
        raise ValueError(
            f"y must have {kinds[multilabel]} per document, as in the earlier calls. "
            f"Got {kinds[not multilabel]}."
        )
    return classes, codes


def is_indicator(y):
    """Say whether :func:`encode` reads y as an indicator, not as collections of labels."""
    y = _lists_as_objects(_whole_column(y))
    if _holds_rows_of_an_indicator(y):
        return True
    shape = y.shape if sparse.issparse(y) else _shape(y)
    return len(shape) == 2 and shape[1] > 1 and not _holds_collections(y)


def has_names(y):
    """Say whether the columns of an indicator have names."""
    columns = names_of_columns(y)
    return len(columns) > 1 and isinstance(columns[0], str)


def _whole_column(y):
    """Read a column of a ``datasets.Dataset`` at once: reading its elements singly is slow."""
    if is_dataset(y):
        raise TypeError(
            "y must be a column, for example y['label']. Got a data set of the columns "
            f"{excerpts(y.column_names)}."
        )
    if isinstance(y, list | tuple) or not isinstance(y, Sequence):
        return y
    labels = y[:]
    has_lists = isinstance(labels, list) and any(isinstance(row, list) for row in labels)
    return _as_objects(labels) if has_lists else labels


def _lists_as_objects(y):
    """Return rows of lists as an array of lists, in whatever they came.

    In a list, rows of numbers that are all of one length above 1 are those of a table.
    """
    if isinstance(y, list | tuple):
        if not y or not all(map(_is_collection, y)):
            return y
        has_names = any(isinstance(label, str) for row in y for label in row)
        has_sets = any(isinstance(row, set | frozenset) for row in y)
        return _as_objects(y) if has_names or has_sets or not _is_table(y) else np.asarray(y)
    if not str(getattr(y, "type", getattr(y, "dtype", ""))).lower().startswith(("list", "large_l")):
        return y
    return _as_objects(y.to_pylist() if hasattr(y, "to_pylist") else y.to_list())


def _as_objects(rows):
    objects = np.empty(len(rows), dtype=object)
    for i, row in enumerate(rows):
        objects[i] = row
    return objects


def _shape(rows):
    try:
        return np.asarray(rows).shape
    except ValueError:  # rows of different lengths that are not collections of labels
        return (len(rows),)


_COLLECTIONS = (list, tuple, set, frozenset, np.ndarray)


def _is_table(rows):
    """Say whether rows are all of one length above 1."""
    lengths = {len(row) for row in rows}
    return len(lengths) == 1 and min(lengths) > 1


def _is_collection(row):
    return isinstance(row, _COLLECTIONS) and getattr(row, "ndim", 1) == 1


def _holds_collections(y):
    """Say whether the elements are collections of labels."""
    if sparse.issparse(y) or getattr(y, "ndim", 1) != 1:
        return False
    rows = list(y) if isinstance(y, list | tuple) or hasattr(y, "dtype") else []
    found = list(map(_is_collection, rows))
    if not any(found):
        return False
    if not all(found):
        i = found.index(False)
        raise ValueError(
            "y must have a collection of labels for each document. "
            f"Got {excerpt(rows[i])} in row {i}."
        )
    return True


def _holds_rows_of_an_indicator(y):
    """Say whether the elements of a Series or an array of objects are rows of 0 and 1.

    They cannot be collections of the labels 0 and 1: in collections of one length above 1, each
    document would have both labels.
    """
    if str(getattr(y, "dtype", "")) != "object" or getattr(y, "ndim", 1) != 1 or len(y) == 0:
        return False
    if not all(isinstance(row, list | tuple | np.ndarray) for row in y):
        return False
    if not _is_table(y):
        return False
    return all(isinstance(v, Number | np.bool_) and v in (0, 1) for row in y for v in row)


def _encode_collections(y, texts, declared):
    rows = list(y)
    check_consistent_length(texts, rows)
    for i, row in enumerate(rows):
        for label in row:
            _check_in_collection(label, i)
        if len(set(row)) < len(row) and not any(isinstance(label, str) for label in row):
            raise ValueError(
                "y must hold collections without repeated labels, or rows of 0 and 1 that are all "
                f"of one length. Got {excerpt(row)} in row {i}."
            )
    try:
        found = sorted({label for row in rows for label in row})
    except TypeError as error:
        kinds = sorted({type(label).__name__ for row in rows for label in row})
        raise ValueError(f"y must have labels of one kind. Got {' and '.join(kinds)}.") from error
    if not found and declared is None:
        raise ValueError("y must have a label somewhere. Got empty collections only.")
    if len(found) == 1 and declared is None:
        raise OneClass(
            f"y must hold at least two labels. Got one label only: {excerpt(found[0])}. If there "
            "are more, name them all in classes=."
        )
    classes = np.array(found) if declared is None else _in_their_order(declared)
    _check_known(not_among(found, classes), classes)
    binarizer = MultiLabelBinarizer(classes=classes.tolist())
    return classes, binarizer.fit_transform(rows).astype(np.float32)


def _check_in_collection(label, row):
    if is_missing(label) or isinstance(label, _COLLECTIONS):
        raise ValueError(
            "y must hold collections of labels that are str or numbers. "
            f"Got {excerpt(label)} in row {row}."
        )
    if isinstance(label, float | np.floating) and not float(label).is_integer():
        raise ValueError(
            "y must hold collections of labels that are str or whole numbers. "
            f"Got {label} in row {row}. {_NOT_PROBABILITIES}"
        )


def _encode_indicator(y, texts, declared):
    columns = getattr(y, "column_names", getattr(y, "columns", None))  # of pyarrow, or of others
    declared = None if declared is None else column_or_1d(declared)
    names = columns if declared is None else declared
    if names is not None and len(set(names)) < len(names):
        raise ValueError(f"classes must name each column of y once. Got {excerpts(names)}.")
    if declared is not None and columns is not None and isinstance(columns[0], str):
        if set(columns) != set(declared.tolist()):
            raise ValueError(
                f"classes must name the columns of y, {excerpts(columns)}. "
                f"Got {excerpts(declared.tolist())}."
            )
        y = columns_in_order(y, declared)
    y = _as_numbers(y)
    check_consistent_length(texts, y)
    _check_indicator_is_whole(y)
    # type_of_target also accepts indicators of two other integers, or columns of one value.
    if not _is_one_of(y, (0, 1)).all():
        kind = type_of_target(y, input_name="y")
        if kind == "multilabel-indicator":
            kind = f"{np.unique(y)[:5].tolist()} in"
        raise ValueError(
            "y with several columns must be an indicator of 0 and 1, one column per label. If "
            "these are labels, give a set of them for each document, or an indicator made by "
            f"sklearn.preprocessing.MultiLabelBinarizer. Got {kind} data of shape {y.shape}."
            f"{' ' + _NOT_PROBABILITIES if kind.startswith('continuous') else ''}"
        )
    classes = np.arange(y.shape[1]) if columns is None else np.asarray(columns)
    if declared is not None:
        classes = declared
        if len(classes) != y.shape[1]:
            raise ValueError(
                f"classes must name the {y.shape[1]} columns of y. "
                f"Got {excerpts(classes.tolist())}."
            )
    return classes, y.astype(np.float32)


def _is_one_of(y, values):
    """Return what np.isin does, in an eighth of its memory."""
    return functools.reduce(np.logical_or, [y == value for value in values])


def _as_numbers(y):
    """Return an array; objects, which nullable columns become, are converted to floats."""
    y = np.asarray(y)
    if y.dtype.kind != "O":
        return y
    for i, row in enumerate(y):
        if any(is_missing(value) for value in row):
            raise ValueError(
                f"y must have 0 or 1 for each label. Got a missing value in row {i}. {_LEAVE_OUT}"
            )
    try:
        return y.astype(np.float64)
    except (TypeError, ValueError):
        return y


def _check_indicator_is_whole(y):
    """Raise ValueError, naming a row, if 0 or 1 stands open for a label of a document."""
    if y.dtype.kind not in "if":
        return
    is_open = np.isnan(y)
    if (y == 0).any():  # else -1 may be the other value
        is_open |= _is_one_of(y, _MARKS)
    if is_open.any():
        row, column = np.argwhere(is_open)[0].tolist()
        raise ValueError(
            f"y must have 0 or 1 for each label. Got {y[row, column]:g} in row {row}, column "
            f"{column}. {_LEAVE_OUT}"
        )
    if y.dtype.kind == "f":
        assert_all_finite(y, input_name="y")


def _encode_classes(y, texts, declared):
    if hasattr(getattr(y, "dtype", None), "numpy_dtype"):  # a nullable type of pandas
        if y.isna().any():
            _check_no_missing(y)  # names the row
        y = y.to_numpy(y.dtype.numpy_dtype)  # Int64 and boolean would become floats
    if isinstance(y, list | tuple) and any(isinstance(label, str) for label in y):
        check_plain(y)  # an array of str would make labels "nan" and "1" of what is not str
    y = column_or_1d(y, warn=True)
    check_consistent_length(texts, y)
    if y.dtype.kind == "O":
        _check_no_missing(y)
        y = _from_objects(y)
    elif y.dtype.kind == "f":
        if np.isnan(y).any():
            _check_no_missing(y)
        assert_all_finite(y, input_name="y")
    elif y.dtype.kind in "Mm":
        raise ValueError(
            f"y must have labels that are str, bool or numbers. Got {y.dtype}: use y.astype(str)."
        )
    _check_marks(y, declared)
    check_classification_targets(y)
    present, codes = np.unique(y, return_inverse=True)
    if declared is None:
        if len(present) < 2:
            raise OneClass(
                "y must have documents of at least two classes. Got one class only: "
                f"{excerpt(present.tolist()[0])}. If there are more, name them all in classes=."
            )
        return present, codes
    classes = _unique(declared)
    _check_known(not_among(present, classes), classes)
    return classes, np.searchsorted(classes, y)


def _unique(declared):
    return np.unique(column_or_1d(declared))


def _in_their_order(declared):
    declared = column_or_1d(declared)
    return declared[np.sort(np.unique(declared, return_index=True)[1])]


class OneClass(ValueError):
    """Error for a y whose documents are all of one class, where no others are declared."""


class UnknownLabels(ValueError):
    """Error for labels of y that are not declared; `unknown` lists them."""

    unknown: list = []


def _check_known(unknown, classes):
    if len(unknown) or len(classes) < 2:
        hint = ""
        if len(unknown) and unknown.dtype.kind in "iu" and classes.dtype.kind in "OUS":
            hint = (
                " cross_val_predict and CalibratedClassifierCV(ensemble=False) replace labels by "
                "0, 1, ...: name these codes in classes, or leave it out."
            )
        error = UnknownLabels(
            "classes must name at least two labels, all of those in y among them. Got "
            f"{excerpts(classes.tolist())}, without {excerpts(unknown.tolist())} of y.{hint}"
        )
        error.unknown = unknown.tolist()
        raise error


def _check_not_masked(y):
    if np.ma.isMaskedArray(y) and np.ma.getmaskarray(y).any():
        row = int(np.argwhere(np.ma.getmaskarray(y))[0][0])
        raise ValueError(
            f"y must have a label for each document. Row {row} is masked. {_LEAVE_OUT}"
        )


def _check_no_missing(y):
    for i, label in enumerate(y):
        if is_missing(label):
            raise ValueError(
                f"y must have a label for each document. Got {label} in row {i}. {_LEAVE_OUT}"
            )


def _check_marks(y, declared):
    """Refuse -100, and warn of -1, among labels of 0 and above, unless `classes` has them."""
    if y.dtype.kind not in "if" or not len(y):
        return
    known = () if declared is None else np.unique(declared)
    for mark in _MARKS:
        rows = np.flatnonzero(y == mark)
        if not len(rows) or mark in known or (np.delete(y, rows) < 0).any():
            continue
        found = f"Got {mark} in {len(rows)} rows, the first of them row {rows[0]}"
        if mark == -100:
            raise ValueError(
                f"y must have a label for each document. {found}: in torch, it marks what has no "
                f"label. {_LEAVE_OUT} If it is a class, name all classes in classes=."
            )
        if len(np.unique(y)) > 2:  # of two labels, both are classes
            warn(
                f"y has -1 beside labels of 0 and above, and it becomes a class. {found}. If it "
                "stands for 'no label', leave those documents out; if it is a class, name all "
                "classes in classes=, and this warning is gone."
            )


def _warn_one_each(as_collections):
    how = "[label for (label,) in y]" if as_collections else "y.argmax(axis=1)"
    warn(
        "y has exactly one label in each row. As it is given, it means several labels per "
        "document: each gets a probability of its own, and they do not sum to 1. If a document "
        f"can have one label only, give an array of shape (n,), for example {how}."
    )


def _check_one_kind(labels):
    if len({"str" if isinstance(label, str) else "number" for label in labels}) > 1:
        kinds = sorted({type(label).__name__ for label in labels})
        raise ValueError(f"y must have labels of one kind. Got {' and '.join(kinds)}.")


def check_plain(y):
    """Raise ValueError if a label is missing, or is a str beside numbers."""
    _check_no_missing(y)
    _check_one_kind(y)


def _from_objects(y):
    """Return an array of str, or of the type that the objects have in common."""
    _check_one_kind(y)
    plain = y if isinstance(y[0], str) else np.array(y.tolist())
    if plain.dtype.kind not in "biuf" and plain is not y:
        raise ValueError(
            "y must have labels that are str, bool or whole numbers of 64 bits. "
            f"Got {type(y[0]).__name__} in row 0: {excerpt(y[0])}."
        )
    return plain


def check_order(X, **others):
    """Raise ValueError if the index of an argument, y for one, is that of X in another order."""
    index: Any = getattr(X, "index", None)
    for name, value in others.items():
        other: Any = getattr(value, "index", None)
        if not (hasattr(index, "sort_values") and hasattr(other, "sort_values")):
            continue
        if not index.equals(other) and Counter(index) == Counter(other):
            in_order = f"{name}.loc[X.index], or " if index.is_unique else ""
            raise ValueError(
                f"X and {name} must have their rows in the same order. They have one index in two "
                f"orders: give {in_order}{name}.to_numpy() if the order is right as it is."
            )


def encode_known(y, documents, classes, several, knows="the classifier was fitted with"):
    """Return classes and codes of labels that are known; of several labels zeros and ones.

    Parameters
    ----------
    y, documents, classes, several
        As in :func:`encode`.
    knows : str, default="the classifier was fitted with"
        Says in the error what is known of the labels.

    Raises
    ------
    ValueError
        If there are others.
    """
    try:
        found, codes = encode(y, documents, classes, several)
    except UnknownLabels as error:
        if not len(error.unknown):
            raise ValueError(
                f"the classifier must know at least two classes. Got {excerpts(classes.tolist())}."
            ) from error
        raise ValueError(
            f"y must hold only labels that {knows}, "
            f"{excerpts(classes.tolist())}. Got {excerpts(error.unknown)} as well."
        ) from error
    return found, codes.astype(np.int8) if codes.ndim == 2 else codes


def decode(classes, codes):
    """Return labels of shape (n,), or an int indicator of shape (n, n_classes)."""
    return classes[codes] if codes.ndim == 1 else codes.astype(np.int64)


def amounts(codes, weight, n_classes):
    """Return the total weight of each class, of shape (n_classes,).

    For an indicator the shape is (n_labels, 2): documents without the label, and with it.
    """
    if codes.ndim == 1:
        return np.bincount(codes, weights=weight, minlength=n_classes)
    has_label = codes.astype(np.float64)
    positive = weight @ has_label
    # Not the sum of all less the positive: rounding would leave a trace of a label that all have.
    negative = weight @ np.subtract(1, has_label, out=has_label)
    return np.stack([negative, positive], axis=1)


def absent(classes, codes):
    """Return the classes that no document has."""
    return classes[(codes.sum(0) == 0) if codes.ndim == 2 else ~np.isin(range(len(classes)), codes)]


def strata(codes):
    """Return one code per document to stratify by: its class, or the rarest of its labels."""
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
