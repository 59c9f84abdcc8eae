"""Accuracy against confidence."""

from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from skfocal._data.labels import check_order
from skfocal.displays._drawing import axes_of, pyplot
from skfocal.metrics import confidence_bins

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.collections import LineCollection
    from matplotlib.figure import Figure, SubFigure
    from matplotlib.lines import Line2D


class ReliabilityDisplay:
    """Accuracy against confidence in bins, with the expected calibration error.

    The confidence of a document is its largest probability, for any number of classes. Use
    :meth:`from_estimator` or :meth:`from_predictions`.

    Parameters
    ----------
    counts, confidence, accuracy : ndarray of shape (n_bins,)
        Number of documents in each bin, or the sum of their weights, their mean confidence and
        their accuracy.
    name : str, default=None
        Name in the legend.

    Attributes
    ----------
    ece : float
        Expected calibration error.
    line_, ref_line_ : matplotlib Line2D
        The line through the bins that have documents, and the diagonal of perfect calibration.
    gap_ : matplotlib LineCollection
        The gaps between each point and the diagonal.
    figure_, ax_ : matplotlib Figure and Axes
    """

    ax_: "Axes"
    figure_: "Figure | SubFigure"
    gap_: "LineCollection"
    line_: "Line2D"
    ref_line_: "Line2D"

    def __init__(
        self,
        counts: NDArray[Any],
        confidence: NDArray[np.float64],
        accuracy: NDArray[np.float64],
        *,
        name: str | None = None,
    ) -> None:
        self.counts = counts
        self.confidence = confidence
        self.accuracy = accuracy
        self.name = name
        self.ece = float((counts * np.abs(accuracy - confidence)).sum() / counts.sum())

    @classmethod
    def from_estimator(
        cls,
        estimator: Any,
        X: Any,
        y: ArrayLike,
        *,
        sample_weight: ArrayLike | None = None,
        n_bins: int = 15,
        name: str | None = None,
        ax: "Axes | None" = None,
        **kwargs: Any,
    ) -> Self:
        """Draw from the probabilities that a fitted classifier predicts.

        Parameters
        ----------
        estimator : fitted classifier with predict_proba
        X, y : array-like of shape (n,)
            Documents and their labels. With several labels per document, y is an indicator, and
            each decision on a label counts.
        sample_weight : array-like of shape (n,), default=None
        n_bins : int, default=15
            Number of bins of equal width.
        name : str, default=None
            Name in the legend. None: the name of the estimator's class.
        ax : matplotlib Axes, default=None
            Axes to draw into. None: those of a new figure.
        **kwargs
            Passed to matplotlib's ``plot`` for the line.

        Returns
        -------
        ReliabilityDisplay
        """
        pyplot(cls)  # an import that fails does so before the work
        check_order(X, y=y)
        return cls.from_predictions(
            y,
            estimator.predict_proba(X),
            classes=estimator.classes_,
            sample_weight=sample_weight,
            n_bins=n_bins,
            name=name or type(estimator).__name__,
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
        n_bins: int = 15,
        name: str | None = None,
        ax: "Axes | None" = None,
        **kwargs: Any,
    ) -> Self:
        """Draw from given probabilities.

        Parameters
        ----------
        y_true : array-like of shape (n,), or an indicator of shape (n, n_labels)
            Labels.
        proba : array-like of shape (n, n_classes)
            Probabilities.
        classes : array-like of shape (n_classes,), default=None
            Labels of the columns. None: the sorted labels in `y_true`.
        sample_weight : array-like of shape (n,), default=None
        n_bins : int, default=15
            Number of bins of equal width.
        name : str, default=None
            Name in the legend.
        ax : matplotlib Axes, default=None
            Axes to draw into. None: those of a new figure.
        **kwargs
            Passed to matplotlib's ``plot`` for the line.

        Returns
        -------
        ReliabilityDisplay

        Examples
        --------
        >>> from skfocal.displays import ReliabilityDisplay
        >>> display = ReliabilityDisplay.from_predictions(["a", "b"], [[0.9, 0.1], [0.6, 0.4]])
        >>> round(display.ece, 3)
        0.35
        """
        bins = confidence_bins(
            y_true, proba, classes=classes, n_bins=n_bins, sample_weight=sample_weight
        )
        return cls(*bins, name=name).plot(ax=ax, **kwargs)

    def plot(self, ax: "Axes | None" = None, **kwargs: Any) -> Self:
        """Draw the reliability diagram.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Axes to draw into. None: those of a new figure.
        **kwargs
            Passed to matplotlib's ``plot`` for the line.

        Returns
        -------
        ReliabilityDisplay
        """
        self.ax_ = ax = axes_of(self, ax)
        self.figure_ = ax.figure
        full = self.counts > 0
        x, y = self.confidence[full], self.accuracy[full]
        label = f"{self.name or 'ECE'} {'ECE ' * bool(self.name)}{self.ece:.3f}"
        (self.ref_line_,) = ax.plot([0, 1], [0, 1], ":", color="black", label="_perfect")
        style: dict[str, Any] = {"marker": "s", "label": label, "clip_on": False} | kwargs
        (self.line_,) = ax.plot(x, y, **style)
        self.gap_ = ax.vlines(x, x, y, color=self.line_.get_color(), alpha=0.4, linewidth=3)
        ax.set(xlabel="confidence", ylabel="accuracy", xlim=(0, 1), ylim=(0, 1))
        ax.legend(loc="best")
        return self
