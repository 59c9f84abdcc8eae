"""Decisions by scores plus an offset for each class, and what they score, trial after trial.

A trial changes the offset of one class. It looks only at the documents that it decides otherwise,
so that a search over all classes takes the time of a few passes over the scores, and little memory
beside them.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

_AT_ONCE = 2**20  # scores that are read together


class ClassDecisions:
    """The class with the largest sum of score and offset, for each of many documents.

    Parameters
    ----------
    scores : ndarray of shape (n, n_classes)
    offset : ndarray of shape (n_classes,)

    Attributes
    ----------
    decided : int64 ndarray of shape (n,)
        Of equal sums, the first counts.
    """

    def __init__(self, scores, offset):
        self.scores = scores
        self.offset = np.array(offset, dtype=np.float64)
        n = len(scores)
        self.decided, self.second = np.empty(n, np.int64), np.empty(n, np.int64)
        self.sum, self.second_sum = np.empty(n), np.empty(n)
        self._rank(np.arange(n))

    def _rank(self, rows):
        """Find the best two classes of some documents."""
        step = max(_AT_ONCE // self.scores.shape[1], 1)
        for start in range(0, len(rows), step):
            some = rows[start : start + step]
            sums, each = self.scores[some] + self.offset, np.arange(len(some))
            best = sums.argmax(axis=1)
            self.decided[some], self.sum[some] = best, sums[each, best]
            sums[each, best] = -np.inf
            best = sums.argmax(axis=1)
            self.second[some], self.second_sum[some] = best, sums[each, best]

    def trials(self, c, values):
        """Yield for each offset of class `c` the documents decided otherwise, and the decisions."""
        own = self.decided == c
        others = np.where(own, self.second, self.decided)
        to_beat = np.where(own, self.second_sum, self.sum)
        scores = self.scores[:, c].astype(np.float64)

        def takes(value, rows=slice(None)):
            sums = scores[rows] + value
            is_first = (sums == to_beat[rows]) & (c < others[rows])
            return (sums > to_beat[rows]) | is_first

        fewest, most = takes(min(values)), takes(max(values))
        rows = np.flatnonzero((fewest != own) | (most != own))  # all others stay as they are
        for value in values:
            taken = takes(value, rows)
            changed = taken != own[rows]
            yield rows[changed], np.where(taken, c, others[rows])[changed]

    def move(self, c, value):
        """Set the offset of a class and decide anew."""
        in_front = (self.decided == c) | (self.second == c)
        self.offset[c] = value
        sums = self.scores[:, c].astype(np.float64) + value
        in_front |= (sums > self.second_sum) | ((sums == self.second_sum) & (c < self.second))
        self._rank(np.flatnonzero(in_front))


class LabelDecisions:
    """The labels whose sum of score and offset is above 0, for each of many documents.

    Parameters
    ----------
    scores : ndarray of shape (n, n_labels)
    offset : ndarray of shape (n_labels,)

    Attributes
    ----------
    decided : bool ndarray of shape (n, n_labels)
    """

    def __init__(self, scores, offset):
        self.scores = scores
        self.offset = np.array(offset, dtype=np.float64)
        self.decided = np.empty(scores.shape, dtype=bool)
        for c in range(scores.shape[1]):
            self.move(c, self.offset[c])

    def trials(self, c, values):
        """Yield for each offset of label `c` the documents decided otherwise, and the decisions."""
        scores, own = self.scores[:, c].astype(np.float64), self.decided[:, c].copy()
        fewest, most = scores + min(values) > 0, scores + max(values) > 0
        rows = np.flatnonzero((fewest != own) | (most != own))  # all others stay as they are
        scores, own = scores[rows], own[rows]
        for value in values:
            applies = scores + value > 0
            changed = applies != own
            yield rows[changed], applies[changed]

    def move(self, c, value):
        """Set the offset of a label and decide anew."""
        self.offset[c] = value
        self.decided[:, c] = self.scores[:, c].astype(np.float64) + value > 0


# -- scores ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Mean:
    """A score that is a mean over classes of what has been counted for each.

    Attributes
    ----------
    value : callable ``(hits, support, predicted) -> ndarray``
        The score of each class, given the weights of the documents that are rightly decided for
        it, that belong to it, and that are decided for it.
    over : {"documents", "classes", "occurring", "all"}
        What a class counts in the mean: the weight of its documents; 1 if it has some; 1 if it
        has some or is a decision; 1.
    """

    value: Callable
    over: str


def _ratio(a, b):
    return np.divide(a, b, out=np.zeros(np.shape(b)), where=b > 0)


def _recall(hits, support, predicted):
    return _ratio(hits, support)


def _precision(hits, support, predicted):
    return _ratio(hits, predicted)


def _f1(hits, support, predicted):
    return _ratio(2 * hits, support + predicted)


# By the names of scikit-learn's scorers.
CLASS_SCORES = {
    "accuracy": Mean(_recall, "documents"),
    "balanced_accuracy": Mean(_recall, "classes"),
    "f1_macro": Mean(_f1, "occurring"),
    "f1_micro": Mean(_recall, "documents"),
    "f1_weighted": Mean(_f1, "documents"),
    "precision_macro": Mean(_precision, "occurring"),
    "recall_macro": Mean(_recall, "occurring"),
}
LABEL_SCORES = {
    "f1_macro": Mean(_f1, "all"),
    "f1_weighted": Mean(_f1, "documents"),
    "precision_macro": Mean(_precision, "all"),
    "recall_macro": Mean(_recall, "all"),
}


def counted(name, codes, weight, n_classes):
    """Return the score of that name, to be counted, or None if it is none of those here.

    Parameters
    ----------
    name : str or callable
        Scorer of scikit-learn.
    codes : int64 ndarray of shape (n,), or indicator of shape (n, n_classes)
        Classes of the documents, or their labels.
    weight : ndarray of shape (n,) or None
        Sample weights.
    n_classes : int
    """
    scores = LABEL_SCORES if codes.ndim == 2 else CLASS_SCORES
    if not isinstance(name, str) or name not in scores:
        return None
    weight = np.ones(len(codes)) if weight is None else weight
    if codes.ndim == 2:
        return LabelCounts(scores[name], codes, weight)
    return ClassCounts(scores[name], codes, weight, n_classes)


class _Counts:
    """The mean, and the mean after a trial, from the counts of those classes that it changes."""

    def __init__(self, mean, support):
        self.mean, self.support = mean, support

    def hold(self, hits, predicted, weights):
        """Take new counts of all classes, and what each counts in the mean."""
        self.hits, self.predicted, self.weights = hits, predicted, weights
        self.sum = (self.mean.value(hits, self.support, predicted) * weights).sum()
        self.weight = weights.sum()

    @property
    def score(self):
        """The mean over the present decisions."""
        return self.sum / self.weight if self.weight else np.nan

    def score_with(self, classes, hits, predicted, weights):
        """Return the mean if these classes had other counts."""
        value, support, before = self.mean.value, self.support[classes], self.weights[classes]
        gained = value(hits, support, predicted) * weights
        gained -= value(self.hits[classes], support, self.predicted[classes]) * before
        weight = self.weight + (weights - before).sum()
        return (self.sum + gained.sum()) / weight if weight else np.nan


class ClassCounts(_Counts):
    """A score of decisions for one class each.

    Parameters
    ----------
    mean : Mean
    codes : int64 ndarray of shape (n,)
        The classes of the documents.
    weight : ndarray of shape (n,)
    n_classes : int
    """

    def __init__(self, mean, codes, weight, n_classes):
        super().__init__(mean, np.bincount(codes, weight, n_classes))
        self.codes, self.weights_of_rows = codes, weight
        self.occurs = np.bincount(codes, minlength=n_classes) > 0

    def decide(self, decided, only=None):
        """Count the decisions."""
        n, weight, right = len(self.support), self.weights_of_rows, decided == self.codes
        self.decided, self.n_decided = decided, np.bincount(decided, minlength=n)
        self.hold(
            np.bincount(decided[right], weight[right], n),
            np.bincount(decided, weight, n),
            self._weights(slice(None), self.n_decided),
        )

    def _weights(self, classes, n_decided):
        if self.mean.over == "documents":
            return self.support[classes]
        if self.mean.over == "classes":
            return (self.support[classes] > 0).astype(np.float64)
        return (self.occurs[classes] | (n_decided > 0)).astype(np.float64)

    def after(self, c, rows, decisions):
        """Return the score after a trial."""
        moves = np.stack([self.decided[rows], decisions])
        classes, place = np.unique(moves, return_inverse=True)
        place, n = place.reshape(2, -1), len(classes)
        weight = self.weights_of_rows[rows]

        def gained(amounts):
            left, entered = (
                np.bincount(place[i], amounts(moves[i]).astype(np.float64), n) for i in (0, 1)
            )
            return entered - left

        return self.score_with(
            classes,
            self.hits[classes] + gained(lambda decided: weight * (decided == self.codes[rows])),
            self.predicted[classes] + gained(lambda decided: weight),
            self._weights(classes, self.n_decided[classes] + gained(np.ones_like)),
        )


class LabelCounts(_Counts):
    """A score of decisions on several labels.

    Parameters
    ----------
    mean : Mean
    codes : ndarray of shape (n, n_labels)
        The labels of the documents.
    weight : ndarray of shape (n,)
    """

    def __init__(self, mean, codes, weight):
        super().__init__(mean, weight @ codes)
        self.codes, self.weights_of_rows = codes, weight

    def decide(self, decided, only=None):
        """Count the decisions, or those on one label, where no others have changed."""
        if only is None:
            n_labels = decided.shape[1]
            weights = self.support if self.mean.over == "documents" else np.ones(n_labels)
            self.hits, self.predicted = np.empty(n_labels), np.empty(n_labels)
            self.n_decided = np.empty(n_labels, np.int64)
            self._count(decided, range(n_labels))
            self.hold(self.hits, self.predicted, weights)
        else:
            self._count(decided, [only])
            self.hold(self.hits, self.predicted, self.weights)

    def _count(self, decided, columns):
        for c in columns:
            self.hits[c] = self.weights_of_rows @ (decided[:, c] * self.codes[:, c])
            self.predicted[c] = self.weights_of_rows @ decided[:, c]
            self.n_decided[c] = np.count_nonzero(decided[:, c] & (self.weights_of_rows > 0))

    def after(self, c, rows, decisions):
        """Return the score after a trial."""
        sign, weight = np.where(decisions, 1, -1), self.weights_of_rows[rows]
        change = sign * weight
        # Where no document gets the label, sums and differences leave a trace of rounding.
        some = float(self.n_decided[c] + sign[weight > 0].sum() > 0)
        return self.score_with(
            [c],
            some * (self.hits[c] + change @ self.codes[rows, c])[None],
            some * (self.predicted[c] + change.sum())[None],
            self.weights[[c]],
        )
