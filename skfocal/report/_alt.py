"""What the figures of a report show, in words: their text alternatives, with the main numbers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from skfocal._pages.elements import LONGEST_NAME, cut
from skfocal.displays import ClassLossDisplay, TrainingHistoryDisplay

if TYPE_CHECKING:
    from skfocal.report._report import Report

_MOST = 6  # classes that are named


def balance(report: Report) -> str:
    """Return the shares of the most frequent classes, and of the rarest."""
    table = report.per_class
    known = "train_share" in table

    def share(k: int) -> str:
        also = f" ({_percent(table['train_share'][k])} in training)" if known else ""
        return f"{_name(table['label'][k])} {_percent(table['test_share'][k])}{also}"

    shares = [share(k) for k in _ends(len(table["label"]))]
    absent = np.count_nonzero(table["support"] == 0)
    without = f" {absent} without a document." if absent else ""
    return f"Shares of the classes in these documents: {_listed(shares, report)}.{without}"


def precision_recall(report: Report) -> str:
    """Return the average precision of the most frequent classes, and the lowest."""
    table = report.per_class
    shown = np.flatnonzero(table["support"])
    average = table["average_precision"]
    named = [f"{_name(table['label'][k])} {average[k]:.2f}" for k in shown[:_MOST]]
    text = f"Precision and recall of each class. Average precision: {', '.join(named)}"
    if len(shown) > _MOST:
        worst = shown[np.argmin(average[shown])]
        text += f"; lowest of {len(shown)}: {_name(table['label'][worst])} {average[worst]:.2f}"
    return f"{text}."


def confusion(report: Report) -> str:
    """Return how many documents are right, and the most frequent errors."""
    matrix = report.confusion_matrix
    assert matrix is not None
    text = (
        "Confusion matrix, most frequent class first: "
        f"{np.trace(matrix)} of {matrix.sum()} documents are on the diagonal."
    )
    columns = (report.confusions[name][:3] for name in ("true", "predicted", "documents"))
    errors = [f"{_name(a)} as {_name(b)} {n}" for a, b, n in zip(*columns, strict=True)]
    return f"{text} Most frequent errors: {', '.join(errors)}." if errors else text


def reliability(report: Report) -> str:
    """Return the mean confidence, the accuracy and the calibration error."""
    display = report._reliability
    confidence, accuracy = (
        np.average(values[display.counts > 0], weights=display.counts[display.counts > 0])
        for values in (display.confidence, display.accuracy)
    )
    return (
        f"Accuracy against confidence in {len(display.counts)} bins: mean confidence "
        f"{confidence:.3f}, accuracy {accuracy:.3f}, expected calibration error {display.ece:.3f}."
    )


def confidence(report: Report, unit: str) -> str:
    """Return how many decisions are right, and how many of the wrong ones are confident."""
    display = report._reliability
    counts = display.counts
    filled = counts > 0
    right = np.round(counts[filled] * display.accuracy[filled])
    wrong = np.zeros(len(counts))
    wrong[filled] = counts[filled] - right
    edge = 1 - 1 / len(counts)
    return (
        f"Right and wrong decisions by confidence: {right.sum():.0f} of {counts.sum():.0f} {unit} "
        f"right. {wrong[-1]:.0f} of the {wrong.sum():.0f} wrong ones have a confidence of at least "
        f"{edge:.2f}."
    )


def history(display: TrainingHistoryDisplay) -> str:
    """Return the first and the last loss and score."""
    curves = {"training loss": display.losses.get("train_loss")}
    curves |= {"held-out loss": display.losses.get("valid_loss")}
    curves |= {f"held-out {display.score_name}": display.score}
    known = {name: v[~np.isnan(v)] for name, v in curves.items() if v is not None}
    ends = [
        f"{name} {values[0]:.3f} in the first, {values[-1]:.3f} in the last"
        for name, values in known.items()
        if len(values)
    ]
    n = len(display.epochs)
    return f"Losses by epoch, {n} epoch{'s' * (n != 1)}: {'; '.join(ends)}."


def class_loss(display: ClassLossDisplay) -> str:
    """Return the shares of classes in the documents, and in the loss of the last epoch."""
    shares = [
        f"{_name(label)} {_percent(documents)} of the documents and {_percent(loss)} of the loss"
        for label, documents, loss in zip(
            display.labels, display.documents, display.losses[-1], strict=True
        )
    ]
    return f"Shares of the classes in the training loss, in the last epoch: {', '.join(shares)}."


def _ends(n: int) -> list[int]:
    """Return the places of the first classes, and of the last."""
    return [*range(n)] if n <= _MOST else [*range(_MOST - 1), n - 1]


def _listed(texts: Sequence[str], report: Report) -> str:
    n = len(report.labels)
    if n <= _MOST:
        return ", ".join(texts)
    return f"{', '.join(texts[:-1])}; last of {n}: {texts[-1]}"


def _name(label: Any) -> str:
    return cut(label, LONGEST_NAME) or "(empty)"


def _percent(share: float) -> str:
    return f"{100 * share:.3g} %"
