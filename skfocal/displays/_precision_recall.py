"""A precision-recall curve for each class."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.metrics import (
    average_precision_score,
    precision_recall_curve,
)
from sklearn.utils import column_or_1d

from skfocal._data.labels import check_order
from skfocal._pages.figures import names as names_in_figure
from skfocal._utils.arrays import columns_in_order, not_among
from skfocal._utils.messages import excerpts
from skfocal.displays._drawing import COLOURS, LINES, axes_of, pyplot

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, SubFigure
    from matplotlib.lines import Line2D


class ClassPrecisionRecallDisplay:
    """A precision-recall curve for each class against the rest, most frequent first.

    Use :meth:`from_estimator` or :meth:`from_predictions`. Classes that are absent from `y_true`
    have no curve.

    Parameters
    ----------
    curves : dict of label to (precision, recall)
    average_precision : dict of label to float
    counts : dict of label to int
        Number of documents of each class.

    Attributes
    ----------
    lines_ : dict of label to matplotlib Line2D
    figure_, ax_ : matplotlib Figure and Axes
    """

    ax_: "Axes"
    figure_: "Figure | SubFigure"
    lines_: "dict[Any, Line2D]"

    def __init__(
        self,
        curves: Mapping[Any, tuple[NDArray[np.float64], NDArray[np.float64]]],
        average_precision: Mapping[Any, float],
        counts: Mapping[Any, int],
    ) -> None:
        self.curves = curves
        self.average_precision = average_precision
        self.counts = counts

    @classmethod
    def from_estimator(
        cls,
        estimator: Any,
        X: Any,
        y: ArrayLike,
        *,
        sample_weight: ArrayLike | None = None,
        top: int = 8,
        ax: "Axes | None" = None,
        **kwargs: Any,
    ) -> Self:
        """Draw from the probabilities that a fitted classifier predicts.

        Parameters
        ----------
        estimator : fitted classifier with predict_proba
        X, y : array-like of shape (n,)
            Documents and their labels; y may be an indicator of several labels.
        sample_weight : array-like of shape (n,), default=None
        top : int, default=8
            Number of classes, the most frequent ones, with a colour and a name; the rest is grey.
        ax : matplotlib Axes, default=None
            Axes to draw into. None: those of a new figure.
        **kwargs
            Passed to matplotlib's ``plot`` for each line.

        Returns
        -------
        ClassPrecisionRecallDisplay
        """
        pyplot(cls)  # an import that fails does so before the work
        check_order(X, y=y)
        return cls.from_predictions(
            y,
            estimator.predict_proba(X),
            classes=estimator.classes_,
            sample_weight=sample_weight,
            top=top,
            ax=ax,
            **kwargs,
        )

    @classmethod
    def from_predictions(
        cls,
        y_true: ArrayLike,
        proba: ArrayLike,
        *,
        classes: ArrayLike | None = None,
        sample_weight: ArrayLike | None = None,
        top: int = 8,
        ax: "Axes | None" = None,
        **kwargs: Any,
    ) -> Self:
        """Draw from given probabilities.

        Parameters
        ----------
        y_true : array-like of shape (n,), or an indicator of shape (n, n_classes)
            Labels.
        proba : array-like of shape (n, n_classes)
            Probabilities.
        classes : array-like of shape (n_classes,), default=None
            Labels of the columns. None: the sorted labels in `y_true`.
        sample_weight : array-like of shape (n,), default=None
        top : int, default=8
            Number of classes, the most frequent ones, with a colour and a name; the rest is grey.
        ax : matplotlib Axes, default=None
            Axes to draw into. None: those of a new figure.
        **kwargs
            Passed to matplotlib's ``plot`` for each line.

        Returns
        -------
        ClassPrecisionRecallDisplay

        Raises
        ------
        ValueError
            If there is no document, the shapes do not match, or a label has no column.

        Examples
        --------
        >>> from skfocal.displays import ClassPrecisionRecallDisplay
        >>> proba = [[0.9, 0.1], [0.6, 0.4], [0.2, 0.8]]
        >>> ClassPrecisionRecallDisplay.from_predictions(["a", "a", "b"], proba).average_precision
        {'a': 1.0, 'b': 1.0}
        """
        p, y_true = np.asarray(proba), columns_in_order(y_true, classes)
        several = np.ndim(y_true) == 2 and np.shape(y_true)[1] > 1
        y = np.asarray(y_true) if several else column_or_1d(y_true)
        found = np.arange(y.shape[1]) if several else np.unique(y)
        labels = found if classes is None else np.asarray(classes)
        unknown = [] if several else not_among(y, labels).tolist()
        right = p.ndim == 2 and len(labels) == p.shape[1] and (not several or y.shape == p.shape)
        if not right or unknown or not len(y):
            raise ValueError(
                "proba must have one row for each document, with at least one document, and one "
                f"column for each of the classes {excerpts(labels.tolist())}. Got shape {p.shape} "
                f"for {len(y)} documents, and labels {excerpts(unknown)} without a column."
            )
        truth = y > 0 if several else y[:, None] == labels
        counts = dict(zip(labels.tolist(), truth.sum(axis=0).tolist(), strict=True))
        order = sorted((c for c in counts if counts[c]), key=lambda c: -counts[c])
        places = {label: labels.tolist().index(label) for label in order}
        columns = {label: (truth[:, j], p[:, j]) for label, j in places.items()}
        weighted = {"sample_weight": sample_weight}
        return cls(
            {c: precision_recall_curve(*columns[c], **weighted)[:2] for c in order},
            {c: float(average_precision_score(*columns[c], **weighted)) for c in order},
            {c: counts[c] for c in order},
        ).plot(ax=ax, top=top, **kwargs)

    def plot(self, ax: "Axes | None" = None, *, top: int = 8, **kwargs: Any) -> Self:
        """Draw the curves.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Axes to draw into. None: those of a new figure.
        top : int, default=8
            Number of classes, the most frequent ones, with a colour and a name; the rest is grey.
        **kwargs
            Passed to matplotlib's ``plot`` for each line.

        Returns
        -------
        ClassPrecisionRecallDisplay
        """
        self.ax_ = ax = axes_of(self, ax)
        self.figure_ = ax.figure
        self.lines_ = {}
        n_others = len(self.curves) - top
        names = names_in_figure(self.curves)
        for i, (label, (precision, recall)) in enumerate(self.curves.items()):
            text = f"{names[i]} ({self.counts[label]}) AP {self.average_precision[label]:.2f}"
            style: dict[str, Any] = {
                "color": COLOURS[i % len(COLOURS)],
                "label": text,
                "zorder": 3,
            }
            if i >= top:
                style = {"color": "0.75", "linewidth": 0.8}
                style["label"] = f"{n_others} others" if i == top else f"_{text}"
            style = {"drawstyle": "steps-post", "linestyle": LINES[i % len(LINES)]} | style
            (self.lines_[label],) = ax.plot(recall, precision, **style | kwargs)
        ax.set(xlabel="recall", ylabel="precision", xlim=(0, 1.01), ylim=(0, 1.01))
        ax.legend(loc="center left", bbox_to_anchor=(1, 0.5), fontsize="small")
        return self
