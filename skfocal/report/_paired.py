"""Two classifiers on the same documents: scores, bootstrap intervals and a test, from counts."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.stats import binomtest
from sklearn.utils import gen_batches

# An interval needs so many documents of a class, and so many on which the classifiers differ about
# it. Resamples hold no other outcomes than the documents do: without a differing one, an interval
# would always be [0, 0]. What that is worth: docs/benchmarks/comparisons.md.
FEW, FEW_DIFFERENT = 10, 5
_VALUES = 2**21  # of resamples by documents or classes, as many as are held at once

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
ClassScores = dict[str, Floats]  # "precision", "recall" and "f1" of each class


def mcnemar(only_a: int, only_b: int) -> float:
    """Return the p-value of McNemar's exact test.

    Of the documents that just one of two classifiers gets right, each is as likely to be either's
    if the two are equally good: the numbers are those of a fair coin, and the p-value is that of
    the two-sided binomial test. Without such a document it is 1.

    References
    ----------
    McNemar: Note on the sampling error of the difference between correlated proportions,
    Psychometrika 12, 1947.

    Examples
    --------
    >>> mcnemar(0, 5)
    0.0625
    """
    n = only_a + only_b
    return float(binomtest(only_a, n).pvalue) if n else 1.0


class Counts(NamedTuple):
    """What the scores of a classifier are computed from, of one set of documents or of several.

    Attributes
    ----------
    n_documents : int
    right : ndarray of shape (n_sets,)
        Documents whose class, or labels, are all right.
    support, predicted, hits : ndarray of shape (n_sets, n_classes)
        Documents that have each class, that are predicted to, and both.
    """

    n_documents: int
    right: Ints
    support: Ints
    predicted: Ints
    hits: Ints


def class_scores(counts: Counts) -> ClassScores:
    """Return the precision, recall and F1 of each class; NaN for a division by zero."""
    _, _, support, predicted, hits = counts
    with np.errstate(invalid="ignore"):
        return {
            "precision": hits / predicted,
            "recall": hits / support,
            "f1": 2 * hits / (support + predicted),
        }


def overall_scores(counts: Counts, several: bool) -> ClassScores:
    """Return the scores over all classes of each set, as scikit-learn computes them."""
    n, right, support, predicted, hits = counts
    f1 = class_scores(counts)["f1"]
    if several:
        wrong = (support + predicted - 2 * hits).sum(-1)
        return {
            "all labels right": right / n,
            "F1, macro": np.nan_to_num(f1).mean(-1),  # 0/0 counts as 0
            "F1, micro": 2 * hits.sum(-1) / np.maximum((support + predicted).sum(-1), 1),
            "Hamming loss": wrong / (n * support.shape[-1]),
        }
    recall = np.where(support > 0, hits / np.maximum(support, 1), 0)
    return {
        "accuracy": right / n,
        "balanced accuracy": recall.sum(-1) / (support > 0).sum(-1),
        # Over the classes that documents have or are predicted to have.
        "F1, macro": np.nan_to_num(f1).sum(-1) / (support + predicted > 0).sum(-1),
    }


@dataclass(frozen=True, eq=False)
class Outcomes:
    """What two classifiers answered: each kind of document, and how many there are of it.

    With one class per document, documents of the same class and the same two answers are of one
    kind. With several labels, each document is a kind of its own.

    Attributes
    ----------
    number : ndarray of shape (n_kinds,)
    truth, answers : sparse array, and two, of shape (n_kinds, n_classes)
        Indicators of the true labels, and of those that each classifier predicts.
    several : bool
        Whether documents have several labels.
    """

    number: Ints
    truth: Any
    answers: tuple[Any, Any]
    several: bool

    @classmethod
    def of(cls, truth: NDArray[Any], a: NDArray[Any], b: NDArray[Any], n_classes: int) -> Self:
        """Return the outcomes of codes of shape (n,), or of indicators."""
        if truth.ndim == 2:
            first, second, third = (sparse.csr_array(x.astype(np.int64)) for x in (truth, a, b))
            return cls(np.ones(len(truth), np.int64), first, (second, third), several=True)
        codes = np.stack([truth, a, b], axis=1)
        kinds, number = np.unique(codes, axis=0, return_counts=True)

        def indicator(column: Ints) -> Any:
            shape, starts = (len(column), n_classes), np.arange(len(column) + 1)
            return sparse.csr_array((np.ones(len(column), np.int64), column, starts), shape=shape)

        first, second, third = map(indicator, kinds.T)
        return cls(number, first, (second, third), several=False)

    def counts(self, number: Ints) -> tuple[Counts, Counts]:
        """Return the counts of both classifiers in sets of documents.

        Parameters
        ----------
        number : ndarray of shape (n_sets, n_kinds)
            How many documents of each kind a set has.
        """

        def total(indicator: Any) -> Ints:
            counted: Ints = (indicator.T @ number.T).T
            return counted

        support = total(self.truth)
        n = int(number[0].sum())
        one, other = (
            Counts(
                n,
                number @ self.is_right(answer),
                support,
                total(answer),
                total(answer.multiply(self.truth)),
            )
            for answer in self.answers
        )
        return one, other

    def n_different(self) -> int:
        """Return the number of documents that the classifiers answer differently."""
        a, b = self.answers
        return int(self.number @ (abs(a - b).sum(axis=1) > 0))

    def is_right(self, answer: Any) -> Ints:
        """Return 1 for each kind of document whose labels are all right, else 0."""
        wrong = abs(answer - self.truth).sum(axis=1)
        return np.asarray(wrong == 0).ravel().astype(np.int64)

    def resamples(self, n_resamples: int, random: np.random.RandomState) -> Iterator[Ints]:
        """Yield how often each kind is in resamples of the documents, drawn with replacement.

        To draw documents one by one would give the same distribution.
        """
        n = int(self.number.sum())
        size = max(_VALUES // max(self.truth.shape), 1)
        for some in gen_batches(n_resamples, size):
            drawn: Ints = random.multinomial(n, self.number / n, size=some.stop - some.start)
            yield drawn


class Compared(NamedTuple):
    """A score of two classifiers, the second minus the first, and the ends of an interval of that.

    All are arrays, with an element for each class, or floats.
    """

    a: Any
    b: Any
    difference: Any
    low: Any
    high: Any


def compared(
    outcomes: Outcomes, n_resamples: int, confidence: float, random: np.random.RandomState
) -> tuple[dict[str, Compared], dict[str, Compared]]:
    """Return the scores over all classes, and of each class, with paired bootstrap intervals.

    The ends of an interval are percentiles of the difference in resamples of the documents, the
    same for both classifiers. They are NaN if less than :data:`FEW` documents have the class, if
    the classifiers differ on less than :data:`FEW_DIFFERENT`, or if all resamples agree.
    """
    first, second = outcomes.counts(outcomes.number[None])
    enough = _enough(outcomes)
    any_enough = np.flatnonzero(np.any([*enough.values()], axis=0))
    overall: dict[str, list[Floats]] = {}
    by_class: dict[str, list[Floats]] = {}
    for number in outcomes.resamples(n_resamples, random):
        both = outcomes.counts(number)
        _extend(overall, *(overall_scores(counts, outcomes.several) for counts in both))
        _extend(by_class, *(class_scores(_only(counts, any_enough)) for counts in both))
    tails = [(1 - confidence) / 2, (1 + confidence) / 2]
    few = first.n_documents < FEW or outcomes.n_different() < FEW_DIFFERENT
    total = _compared(
        overall_scores(first, outcomes.several),
        overall_scores(second, outcomes.several),
        {
            name: _percentiles(parts, tails) * (np.nan if few else 1)
            for name, parts in overall.items()
        },
    )
    ends = {}
    for name, parts in by_class.items():
        ends[name] = np.full((2, outcomes.truth.shape[1]), np.nan)
        known = [part[:, enough[name][any_enough]] for part in parts]
        ends[name][:, enough[name]] = _percentiles(known, tails)
    total = {name: Compared(*map(float, values)) for name, values in total.items()}
    return total, _compared(class_scores(first), class_scores(second), ends)


def _enough(outcomes: Outcomes) -> dict[str, NDArray[np.bool_]]:
    """Return, for each score, which classes have enough documents for an interval."""
    a, b = outcomes.answers
    differs = abs(a - b)
    support, differing, found_by_one, of_a, of_b = (
        indicator.T @ outcomes.number
        for indicator in (outcomes.truth, differs, differs.multiply(outcomes.truth), a, b)
    )
    has, differ = support >= FEW, differing >= FEW_DIFFERENT
    return {
        "precision": has & differ & (of_a > 0) & (of_b > 0),
        "recall": has & (found_by_one >= FEW_DIFFERENT),
        "f1": has & differ,
    }


def _only(counts: Counts, classes: Ints) -> Counts:
    tables = (counts.support, counts.predicted, counts.hits)
    return Counts(counts.n_documents, counts.right, *(table[:, classes] for table in tables))


def _extend(differences: dict[str, list[Floats]], a: ClassScores, b: ClassScores) -> None:
    for name in a:
        differences.setdefault(name, []).append(b[name] - a[name])


def _percentiles(parts: list[Floats], shares: list[float]) -> Floats:
    """Return percentiles over the resamples, without those that lack the class.

    They are NaN if they are equal: without an error, the precision of both is 1 in every resample.
    """
    values = np.concatenate(parts)
    if not values.shape[-1]:
        return values[:2]
    ends: Floats = np.nanquantile(values, shares, axis=0)
    return np.where(ends[0] < ends[1], ends, np.nan)


def _compared(a: ClassScores, b: ClassScores, ends: dict[str, Floats]) -> dict[str, Compared]:
    return {
        name: Compared(a[name][0], b[name][0], b[name][0] - a[name][0], *ends[name]) for name in a
    }
