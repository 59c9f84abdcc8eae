"""A split and a first grid that suit the documents, with the reason for each."""

import warnings
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.model_selection import (
    GroupKFold,
    KFold,
    StratifiedGroupKFold,
    StratifiedKFold,
)

from skfocal._data.labels import strata
from skfocal._utils.messages import excerpts
from skfocal.data_audit._findings import many, share, times
from skfocal.data_audit._measure import Lengths, Likeness
from skfocal.data_audit._read import Data

_FOLDS, _MANY = 5, 10_000  # with more documents, three folds are as steady and cheaper
_EVEN = 1.5  # imbalance ratio up to which there is nothing to correct
_ENOUGH, _FEW = 2000, 1000  # documents; docs/which-loss.md
_COVERED = 0.95  # of the documents, by the suggested max_length
_NOISY = 0.01  # share of documents whose duplicates have other labels


@dataclass
class Advice:
    """A suggested split and grid.

    Attributes
    ----------
    splits : list of (int ndarray, int ndarray)
        Rows to train on and rows to test on, of each fold; empty if there is no split.
    splitter : str
        The code of the splitter; empty if there is none.
    groups : int64 ndarray of shape (n,)
        The group of duplicates of each training document.
    grid : dict of str -> list
        Parameters of BertFocalClassifier and their values.
    reasons : dict of str -> str
        The reason for the split, under "split", and for each parameter.
    """

    groups: NDArray[np.int64]
    splits: list[tuple[NDArray[np.int64], NDArray[np.int64]]] = field(default_factory=list)
    splitter: str = ""
    grid: dict[str, list[Any]] = field(default_factory=dict)
    reasons: dict[str, str] = field(default_factory=dict)


def advise(
    data: Data, lengths: Lengths, likeness: Likeness, table: dict[str, Any], n_differ: int
) -> Advice:
    """Return a split and a first grid.

    Parameters
    ----------
    data : Data
    lengths : Lengths
    likeness : Likeness
    table : dict of str -> ndarray
        The numbers of each class.
    n_differ : int
        Number of training documents that have a duplicate of another label.
    """
    advice = Advice(likeness.groups)
    _split(advice, data)
    support = table["documents"][table["documents"] > 0]
    _losses(advice, n_differ, data.n)
    _balance(advice, support, data)
    _length(advice, lengths, data.n)
    if data.n < _FEW and lengths.n_layers > 1:
        half = lengths.n_layers // 2
        advice.grid["freeze"] = [half]
        advice.reasons["freeze"] = (
            f"With fewer than {_FEW:,} documents, half of the {lengths.n_layers} layers may stay "
            "as they are: that was as good within the noise, and twice as fast."
        )
    return advice


# -- the split -----------------------------------------------------------------------------


def _split(advice: Advice, data: Data) -> None:
    """Choose folds that each class can be in, and that no duplicate crosses."""
    n, groups = data.n, advice.groups
    by = strata(data.codes[:n])
    grouped = len(np.unique(groups)) < n
    # A class of three duplicates can be in one fold only.
    in_class = np.array([len(np.unique(groups[by == c])) for c in np.unique(by)])
    able = in_class[in_class > 1]
    if not len(able):
        advice.reasons["split"] = (
            "No class has two documents that are not duplicates, so nothing can be trained on and "
            "tested on. Collect more documents, or merge classes."
        )
        return
    most = _FOLDS if n < _MANY else 3
    k = int(min(most, able.min()))
    settings: dict[str, Any] = {"n_splits": k, "shuffle": True, "random_state": 0}
    kinds = (StratifiedKFold, StratifiedGroupKFold)
    if data.multilabel:
        kinds = (KFold, GroupKFold)
    splitter = kinds[grouped](**settings)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*least populated class")  # said in the reason
        splits = list(splitter.split(np.zeros(n), by, groups if grouped else None))
    advice.splits, advice.splitter = splits, str(splitter)
    advice.reasons["split"] = _why(data, in_class, k, most, grouped)


def _why(data: Data, in_class: NDArray[np.int64], k: int, most: int, grouped: bool) -> str:
    n = data.n
    if k < most:
        kind = "label" if data.multilabel else "class"
        parts = [f"{k} folds: the smallest {kind} of several documents can be in no more."]
    else:
        why = "all classes" if in_class.min() >= k else "all classes of more than one document"
        parts = [f"{k} folds: {why} have enough documents for each."]
        if most < _FOLDS:
            parts = [f"{k} folds: with {n:,} documents, more would cost time and tell little."]
    if data.multilabel:
        parts.append("scikit-learn does not stratify several labels, so a fold may lack some.")
    else:
        parts.append("Stratified, so that each fold has its share of each class.")
    if grouped:
        parts.append("Grouped, so that no duplicate is trained on and tested on.")
    alone = _alone(data)
    if alone:
        nouns = ("label has", "labels have") if data.multilabel else ("class has", "classes have")
        kind = nouns[len(alone) > 1]
        parts.append(
            f"{len(alone)} {kind} a single document, which is either trained on or tested on: "
            f"{excerpts(alone)}. Name all classes in classes=, merge these, or leave them out."
        )
    return " ".join(parts)


def _alone(data: Data) -> list[Any]:
    counts = data.has[: data.n].sum(axis=0)
    alone: list[Any] = data.classes[np.asarray(counts).ravel() == 1].tolist()
    return alone


# -- the grid ------------------------------------------------------------------------------


def _losses(advice: Advice, n_differ: int, n: int) -> None:
    grid, reasons = advice.grid, advice.reasons
    if n_differ < _NOISY * n:
        grid["gamma"] = [0.0, 2.0]
        reasons["gamma"] = (
            "0 is plain cross-entropy, and 2 is usual. Gamma changes which documents the model "
            "learns from, not the balance of the classes, and no rule says which is better."
        )
        return
    grid["gamma"], grid["label_smoothing"] = [0.0], [0.0, 0.1]
    reasons["gamma"] = (
        "With gamma, the model learns most from documents that look wrong, and those with a wrong "
        "label do. 0 is plain cross-entropy."
    )
    reasons["label_smoothing"] = (
        f"{many(n_differ, 'document')} have a duplicate of another label, so some labels are "
        "wrong. Smoothing keeps the model from learning them by heart."
    )


def _balance(advice: Advice, support: NDArray[np.int64], data: Data) -> None:
    """Choose what corrects the imbalance; docs/which-loss.md and docs/benchmarks have the why."""
    grid, reasons = advice.grid, advice.reasons
    ratio = support.max() / support.min()
    if ratio <= _EVEN:
        reasons["gamma"] += (
            f" Classes differ in size by a factor of {times(ratio)} at most: no weights are needed."
        )
        return
    most = f"The most frequent {'label' if data.multilabel else 'class'} has {times(ratio)} times"
    if data.multilabel:
        grid["alpha"], grid["refit_head"] = [None, "effective"], [None, "effective"]
        reasons["alpha"] = f"{most} as many documents as the rarest."
        reasons["refit_head"] = (
            "With several labels, the second fit of the last layer found more of the rare ones "
            "than weights in the training, for seconds of work."
        )
        return
    grid["alpha"], grid["refit_head"] = [None, "balanced"], [None, "balanced"]
    reasons["alpha"] = f"{most} as many documents as the rarest. Weights make up for it."
    reasons["refit_head"] = (
        "The last layer is fitted once more with class weights: on five corpora, that had the "
        "best macro-F1 together with alpha, for seconds of work."
    )
    if data.n >= _ENOUGH:
        grid["sampler"] = [None, "sqrt"]
        reasons["sampler"] = (
            f"With {data.n:,} documents and few epochs, drawing rare classes more often did better "
            "than weights alone."
        )


def _length(advice: Advice, lengths: Lengths, n: int) -> None:
    """Let `max_length` cover most of the documents, if it does not."""
    whole, reads = lengths.whole[:n], lengths.max_length
    cut = float((whole > reads).mean())
    if cut <= 1 - _COVERED:
        return
    covering = int(np.quantile(whole, _COVERED, method="higher"))
    covering = -(-covering // 8) * 8
    reason = f"{share(cut)} of the documents are longer than {reads} tokens."
    if reads == lengths.limit:
        advice.reasons["long documents"] = (
            f"{reason} The model reads no more: long_documents='windows' reads the rest in pieces."
        )
        return
    longer = min(covering, lengths.limit)
    advice.grid["max_length"] = [longer]
    reached = float((whole <= longer).mean())
    advice.reasons["max_length"] = (
        f"{reason} {longer} tokens cover {share(reached)} of them whole, and take longer."
    )
