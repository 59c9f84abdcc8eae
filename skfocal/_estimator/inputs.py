"""Turn X, y and weights into the documents and labels of one training."""

import contextlib
import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.utils.validation import (
    _check_feature_names,
    _check_n_features,
    _check_sample_weight,
    check_consistent_length,
)

from skfocal import balance
from skfocal._data import labels
from skfocal._data.texts import as_texts, check_kind, columns_named, joined, names_of_columns
from skfocal._estimator.parameters import needs_held_out
from skfocal._runtime.warnings import warn
from skfocal._training.checkpoints import describe
from skfocal._utils.arrays import is_reordered
from skfocal._utils.hashing import digest
from skfocal._utils.messages import excerpt, excerpts

_AT_ONCE = 32_768  # documents read together to compute a fingerprint
_LOOKED_AT = 1000  # documents that are enough to see labels among the texts
# Parameters that may differ between the processes that train together.
_OF_A_PROCESS = {"device", "random_state", "callbacks", "net_params", "verbose"}


@dataclass(frozen=True, eq=False)
class TrainingData:
    """Documents and labels of one training.

    Attributes
    ----------
    texts : list of str or of (str, str), or skfocal._data.texts.Texts
        All documents, or pairs.
    classes : ndarray of shape (n_classes,)
        Labels.
    codes : int64 ndarray of shape (n,), or float32 of shape (n, n_classes)
        Class codes of the documents, or indicators of their labels.
    weight : float64 ndarray of shape (n,)
        Weights of mean 1 over the rows to train on.
    train : int64 ndarray
        Rows to train on.
    held_out : int64 ndarray or None
        Rows that score each epoch.
    """

    texts: Sequence
    classes: np.ndarray
    codes: np.ndarray
    weight: np.ndarray
    train: np.ndarray
    held_out: np.ndarray | None = None

    @property
    def pairs(self) -> bool:
        """Whether the documents are pairs of texts."""
        return isinstance(self.texts[0], tuple)

    @property
    def multilabel(self) -> bool:
        """Whether a document may have several labels."""
        return self.codes.ndim == 2


def read_documents(estimator, X, *, reset, pairs=None):
    """Return the documents of X; record or check the names and number of its columns.

    Parameters
    ----------
    estimator : BertFocalClassifier
        Gets `n_features_in_` and `feature_names_in_` with `reset`.
    X : container of texts
    reset : bool
        Whether to record the columns of this X, which later ones must match.
    pairs : bool, default=None
        Whether documents must be pairs of texts; None for either.
    """
    texts = as_texts(X)
    if len(getattr(X, "shape", ())) == 2:
        if reset or hasattr(estimator, "n_features_in_"):
            columns = columns_named(X)
            _check_feature_names(estimator, columns, reset=reset)
            _check_n_features(estimator, columns, reset=reset)
    elif reset:
        for name in ("n_features_in_", "feature_names_in_"):
            vars(estimator).pop(name, None)
    if pairs is not None:
        check_kind(texts, pairs)
    return texts


def check_frames(X, y, data, **others):
    """Refuse labels that came along as a column of X, or whose rows have another order than X's.

    And other arguments, by their names, in another order.

    Labels are looked for if there is one per document.

    Raises
    ------
    ValueError
        If a column of X is y itself, or the index of y is that of X in another order.

    Warns
    -----
    UserWarning
        If a column of X has one text for each class of y.
    """
    labels.check_order(X, y=y, **others)
    if data.pairs and not data.multilabel:
        names = names_of_columns(X) or range(2)
        seen = [str(label) for label in data.classes[data.codes[:_LOOKED_AT]]]
        for name, column in zip(names, zip(*data.texts[:_LOOKED_AT], strict=True), strict=True):
            _check_no_labels(name, list(column), seen)


def _check_no_labels(name, column, seen):
    if column == seen:
        raise ValueError(
            f"X must not hold the labels. Its column {name!r} is y itself, and would be read as a "
            "second text of each document: give the column of the texts alone, for example "
            "X['text']."
        )
    pairs = set(zip(column, seen, strict=True))
    if len(set(column)) == len(set(seen)) == len(pairs) < len(seen) / 2:
        warn(
            f"Column {name!r} of X has one text for each class of y, so the labels may have been "
            "left in X. If they were, give the column of the texts alone, for example X['text']."
        )


@dataclass(frozen=True, eq=False)
class EvalSet:
    """Documents of the user's own to score each epoch on.

    Attributes
    ----------
    texts : as in :class:`TrainingData`
    y : array-like
        Their labels.
    sample_weight : array-like or None
        Their weights.
    """

    texts: Sequence
    y: Any
    sample_weight: Any = None


def read_eval_set(estimator, eval_set, pairs) -> EvalSet | None:
    """Return the documents of the argument `eval_set`.

    Raises
    ------
    TypeError, ValueError
        If it is no pair of documents and labels, or the documents are not of the same kind as X.
    """
    if eval_set is None:
        return None
    if isinstance(eval_set, list) and len(eval_set) == 1:  # the form of LightGBM and XGBoost
        (eval_set,) = eval_set
    if not isinstance(eval_set, tuple) or len(eval_set) not in (2, 3):
        raise TypeError(
            "eval_set must be one pair (X, y) of documents and labels, or (X, y, sample_weight). "
            f"Got {excerpt(eval_set)}."
        )
    X, *rest = eval_set
    with _of_eval_set():
        labels.check_order(X, **dict(zip(("y", "sample_weight"), rest, strict=False)))
        return EvalSet(read_documents(estimator, X, reset=False, pairs=pairs), *rest)


@contextlib.contextmanager
def _of_eval_set():
    """Say of errors that they are about the documents of `eval_set`."""
    try:
        yield
    except labels.UnknownLabels as error:
        raise ValueError(
            f"eval_set has labels that y does not have: {excerpts(error.unknown)}. Name all "
            "classes in classes=, or leave these documents out."
        ) from error
    except (TypeError, ValueError) as error:
        kind = TypeError if isinstance(error, TypeError) else ValueError
        raise kind(f"In eval_set: {error}") from error


def training_data(
    parameters, texts, y, sample_weight, groups, rng, processes, eval_set=None
) -> TrainingData:
    """Return what `fit` trains on: labels as codes, some documents held out, weights of mean 1.

    Raises
    ------
    TypeError, ValueError
        If y, `sample_weight`, `groups` or `eval_set` cannot be used; the message names a row.
    """
    _check_columns(y, parameters.classes)
    classes, codes = labels.encode(y, texts, parameters.classes)
    _warn_absent(classes, codes)
    _check_groups(groups, parameters.train_split)
    if eval_set is not None:
        return _with_eval_set(parameters, texts, classes, codes, sample_weight, eval_set, processes)
    check_same(parameters, texts, classes, codes, processes)
    weight = _valid_weight(sample_weight, texts)
    # Only one process splits: a splitter may have a generator of its own.
    train, held_out = processes.first(_split, parameters, codes, weight, texts, groups, rng)
    processes.sync_rng(rng)
    weight = _scaled_weight(weight, train, held_out)
    _warn_weightless(classes, codes, weight, train)
    return TrainingData(texts, classes, codes, weight, train, held_out)


def _check_columns(y, declared):
    """Raise ValueError if the columns of y have another order than `classes`."""
    if declared is None or not labels.has_names(y):
        return
    columns, names = names_of_columns(y), np.asarray(declared).tolist()
    if is_reordered(columns, names):
        raise ValueError(
            f"classes must name the columns of y in their order, {excerpts(columns)}. Got "
            f"{excerpts(names)}. The scorers of scikit-learn compare columns by position, so give "
            "y[list(classes)], or leave classes out."
        )


def _with_eval_set(parameters, texts, classes, codes, sample_weight, eval_set, processes):
    """Return all documents of X to train on, and those of `eval_set` after them, held out."""
    if parameters.train_split is not None:
        raise ValueError(
            "eval_set holds the documents to score, so train_split must be None. Got "
            f"train_split={parameters.train_split!r}."
        )
    n, n_more = len(texts), len(eval_set.texts)
    with _of_eval_set():
        more = labels.encode(eval_set.y, eval_set.texts, classes, codes.ndim == 2)[1]
        weight_of_more = checked_weight(eval_set.sample_weight, eval_set.texts, np.arange(n_more))
    weight = checked_weight(sample_weight, range(n), np.arange(n))
    _warn_weightless(classes, codes, weight, np.arange(n))
    texts, codes = joined(texts, eval_set.texts), np.concatenate([codes, more])
    check_same(parameters, texts, classes, codes, processes)
    weight = np.concatenate([weight, weight_of_more])
    return TrainingData(texts, classes, codes, weight, np.arange(n), np.arange(n, n + n_more))


def check_same(parameters, texts, classes, codes, processes):
    """Raise ValueError if documents or parameters differ between processes."""
    processes.check_same(
        X=functools.partial(fingerprint, texts),
        y=functools.partial(digest, *classes.tolist(), codes.tobytes()),
        **{
            name: functools.partial(describe, value)
            for name, value in vars(parameters).items()
            if name not in _OF_A_PROCESS
        },
    )


def fingerprint(texts):
    """Return a fingerprint of the documents, reading some at a time."""
    key = b""
    for start in range(0, len(texts), _AT_ONCE):
        key = digest(key, *texts[start : start + _AT_ONCE])
    return key


def checked_weight(sample_weight, texts, train):
    """Return the weights, of mean 1 over the rows to train on."""
    return _scaled_weight(_valid_weight(sample_weight, texts), train)


def _valid_weight(sample_weight, texts):
    try:
        return _check_sample_weight(
            sample_weight, texts, dtype=np.float64, ensure_non_negative=True
        )
    except (TypeError, ValueError):
        if np.asarray(sample_weight).dtype.kind in "biuf":
            raise
        raise ValueError(
            f"sample_weight must be an array of numbers. Got {excerpt(sample_weight)}."
        ) from None


def _scaled_weight(weight, train, held_out=None):
    for rows, which in ((train, "documents to train on"), (held_out, "held-out documents")):
        if rows is not None and not weight[rows].any():
            raise ValueError(
                f"sample_weight must have a positive weight among the {which}. Got zeros only."
            )
    return weight / weight[train].mean()


def _check_groups(groups, split):
    if groups is not None and not hasattr(split, "split"):
        raise ValueError(
            "groups are for a splitter in train_split, for example "
            f"GroupShuffleSplit(1, test_size=0.1). Got train_split={split!r}."
        )


def _split(parameters, codes, weight, texts, groups, rng):
    """Return the rows to train on and the rows to score, or None for the latter."""
    split = parameters.train_split
    if split is None and (parameters.early_stopping or needs_held_out(parameters)):
        split = 0.1
    if split is None:
        return np.arange(len(codes)), None
    if hasattr(split, "split"):
        check_consistent_length(texts, groups)
        parts = next(iter(split.split(np.zeros(len(texts)), codes, groups)), ((), ()))
        return _checked_rows(parts, len(texts))
    some = np.flatnonzero(weight > 0)  # the others say nothing about the classes
    counted = codes if weight.all() else codes[some]
    held_out = some[balance.stratified_holdout(labels.strata(counted), split, rng)[1]]
    train = np.setdiff1d(np.arange(len(codes)), held_out)
    if len(held_out) == 0:
        which = "documents" if weight.all() else "documents with a positive weight"
        raise ValueError(
            f"train_split={split} of {len(some)} {which} leaves none to score: give more "
            "documents or a larger fraction."
        )
    return train, held_out


def _checked_rows(split, n):
    """Return the rows to train on and to score of a splitter, if they can be those of X."""
    train, held_out = map(_as_rows, split)
    if min(train.min(initial=0), held_out.min(initial=0)) < 0:
        raise ValueError("train_split must give numbers of rows from 0. Got a negative one.")
    last = max(train.max(initial=-1), held_out.max(initial=-1))
    if last >= n:
        raise ValueError(
            f"train_split must split the {n} documents of X. Got row {last}: a split that was made "
            "for other documents, as in a search, where X is a fold. Give documents of your own "
            "as fit(X, y, eval_set=(X_val, y_val))."
        )
    if not len(train) or not len(held_out) or len(np.intersect1d(train, held_out)):
        raise ValueError(
            "train_split must leave documents to train on and others to score. Got "
            f"{len(train)} and {len(held_out)}, {len(np.intersect1d(train, held_out))} of them "
            "in both."
        )
    return train, held_out


def _as_rows(rows):
    """Return numbers of rows, which may come as a mask."""
    rows = np.asarray(rows)
    return np.flatnonzero(rows) if rows.dtype == bool else rows.astype(np.int64)


def _warn_weightless(classes, codes, weight, train):
    """Warn of classes of which all documents to train on have a weight of 0."""
    if weight[train].all():
        return
    without = labels.absent(classes, codes[train[weight[train] > 0]])
    without = without[~np.isin(without, labels.absent(classes, codes[train]))].tolist()
    if without:
        warn(
            f"sample_weight is 0 for all documents of the classes {excerpts(without)} to train on, "
            "so nothing can be learned about them."
        )


def _warn_absent(classes, codes):
    absent = labels.absent(classes, codes).tolist()
    if absent:
        warn(
            f"y has no document of {len(absent)} declared classes: {excerpts(absent)}. They get "
            "class weight 1 and a column in predict_proba, but nothing can be learned about them."
        )
