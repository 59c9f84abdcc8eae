"""Labels in doubt: those that are improbable by a classifier that has not seen them."""

import warnings
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, softmax
from sklearn.model_selection import GroupKFold, StratifiedGroupKFold

from skfocal._data.labels import amounts
from skfocal.balance import class_weight, label_weight

FOLDS = 5
# Documents times classes of a fit; more would take longer than the rest of the audit. Frequent
# classes are thinned to it.
MOST = 2_000_000
FEW, MANY = "there are too few documents", "there are too many classes for so few documents"
_SEED = 0
_TOL = 1e-3  # doubts the same labels as 1e-4, in a third of the time


@dataclass(frozen=True, eq=False)
class Doubts:
    """How probable the labels of documents are.

    Attributes
    ----------
    rows : int64 ndarray of shape (n_judged,)
        The documents that could be judged, those with the most doubtful labels first.
    probability : float64 ndarray of shape (n_judged,)
        Of the label or, with several, of the truth about the worst of them.
    worst : int64 ndarray of shape (n_judged,)
        The class that is judged: the label, or the label that is wrongly there or missing.
    suggested : int64 ndarray of shape (n_judged,)
        The most probable class; with several labels, the one judged.
    left_out : str, default=""
        Why nothing was judged.
    """

    rows: NDArray[np.int64]
    probability: NDArray[np.float64]
    worst: NDArray[np.int64]
    suggested: NDArray[np.int64]
    left_out: str = ""

    def at(self, rows: NDArray[np.int64]) -> Self:
        """Return the same of documents whose numbers are others."""
        return replace(self, rows=rows[self.rows])


def judge(
    vectors: NDArray[np.float32], codes: NDArray[Any], groups: NDArray[Any], n_classes: int
) -> Doubts:
    """Judge each label by a logistic regression on the vectors of the other folds' documents.

    The classes have equal weights in it, as for `refit_head="balanced"`. Documents of one group are
    in one fold, since a duplicate would confirm a wrong label. What has no other document with its
    label cannot be judged.

    Parameters
    ----------
    vectors : float32 ndarray of shape (n, width)
    codes : int64 ndarray of shape (n,), or indicator of shape (n, n_classes)
    groups : ndarray of shape (n,)
    n_classes : int

    Returns
    -------
    Doubts
        Of no document if there are too many classes, or too few groups for two folds.
    """
    most_rows = MOST // n_classes  # to fit to
    if most_rows < 2 * n_classes or (codes.ndim == 2 and len(codes) > most_rows):
        return nothing(MANY)
    has = codes > 0 if codes.ndim == 2 else codes[:, None] == np.arange(n_classes)
    most = int(has.sum(axis=0).max()) if codes.ndim == 1 else len(codes)
    n_folds = min(FOLDS, most, len(np.unique(groups)))
    if n_folds < 2:
        return nothing(FEW)
    own, suggested = np.full(len(codes), np.nan), np.zeros(len(codes), np.int64)
    worst = suggested.copy()
    known = _in_several_groups(has, groups)
    for rows, held_out in _folds(codes, groups, n_folds):
        if codes.ndim == 1:
            rows = _thinned(rows, codes, most_rows)
            if len(np.unique(codes[rows])) < 2:
                continue  # nothing to tell apart
        seen = amounts(codes[rows], np.ones(len(rows)), n_classes)
        proba = _probabilities(vectors, codes, rows, held_out, n_classes)
        truth = np.where(has[held_out], proba, 1 - proba)
        if codes.ndim == 2:
            told_apart = known & (seen > 0).all(axis=1)  # by the documents of `rows`
            truth[:, ~told_apart] = np.inf
            worst[held_out] = suggested[held_out] = truth.argmin(axis=1)
        else:
            told_apart = known & (seen > 0)
            truth[~told_apart[codes[held_out]]] = np.inf
            worst[held_out], suggested[held_out] = codes[held_out], proba.argmax(axis=1)
        own[held_out] = truth[np.arange(len(held_out)), worst[held_out]]
    judged = np.flatnonzero(np.isfinite(own))
    order = judged[np.argsort(own[judged], kind="stable")]
    return Doubts(order, own[order], worst[order], suggested[order])


def nothing(why: str) -> Doubts:
    """Return the doubts of no document."""
    none = np.zeros(0, np.int64)
    return Doubts(none, np.zeros(0), none, none, why)


def _thinned(rows: NDArray[np.int64], codes: NDArray[Any], most: int) -> NDArray[np.int64]:
    """Return at most so many rows, as many of each class as there are, or an equal number."""
    if len(rows) <= most:
        return rows
    rows = np.random.RandomState(_SEED).permutation(rows)
    classes = codes[rows]
    order = np.argsort(classes, kind="stable")
    starts = np.searchsorted(classes[order], classes[order])
    place = np.empty(len(rows), np.int64)  # of each row among those of its class
    place[order] = np.arange(len(rows)) - starts
    return np.sort(rows[np.argsort(place, kind="stable")[:most]])


def _in_several_groups(has: NDArray[np.bool_], groups: NDArray[Any]) -> NDArray[np.bool_]:
    """Return which classes have documents of more than one group."""
    several = [len(np.unique(groups[column])) > 1 for column in has.T]
    return np.array(several, bool)


def _folds(codes: NDArray[Any], groups: NDArray[Any], n: int) -> Iterator[tuple[Any, Any]]:
    kind = GroupKFold if codes.ndim == 2 else StratifiedGroupKFold
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # rare classes are missing from some folds
        yield from kind(n, shuffle=True, random_state=_SEED).split(codes, codes, groups)


def _probabilities(
    vectors: NDArray[np.float32],
    codes: NDArray[Any],
    rows: NDArray[np.int64],
    held_out: NDArray[np.int64],
    n_classes: int,
) -> NDArray[np.float64]:
    """Return the probabilities of held-out documents by a layer that is fitted to other rows."""
    from skfocal._estimator.refit import fit_linear  # which needs torch

    several, ones = codes.ndim == 2, np.ones(len(rows))
    balanced = label_weight if several else class_weight
    weight = balanced("balanced", np.arange(n_classes), amounts(codes[rows], ones, n_classes))
    layer = fit_linear(vectors[rows], codes[rows], ones, weight, tol=_TOL)
    logits = vectors[held_out] @ layer[0].T + layer[1]
    proba: NDArray[np.float64] = expit(logits) if several else softmax(logits, axis=1)
    return proba
