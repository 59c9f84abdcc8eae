"""The share of each class in the loss."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray
from sklearn.utils.validation import check_is_fitted

from skfocal._pages.figures import names as names_in_figure
from skfocal.displays._drawing import COLOURS, HATCHES, axes_of, check_epochs, some

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.container import BarContainer
    from matplotlib.figure import Figure, SubFigure


class ClassLossDisplay:
    """The share of each class in the loss: a bar for the documents, then one for each epoch.

    Each bar is divided among the classes, most frequent first. The first bar shows the shares of
    the classes in the training documents, the others their shares in the loss that was minimized.
    The figure shows the effect of gamma and alpha on each class. Use :meth:`from_estimator`.

    Parameters
    ----------
    labels : list of str
        Labels, most frequent first. The last one may stand for all other classes.
    documents : ndarray of shape (n_labels,)
        Shares of the training documents.
    losses : ndarray of shape (n_epochs, n_labels)
        Shares of the training loss.

    Attributes
    ----------
    bars_ : dict of label to matplotlib BarContainer
    figure_, ax_ : matplotlib Figure and Axes
    """

    ax_: "Axes"
    figure_: "Figure | SubFigure"
    bars_: "dict[str, BarContainer]"

    def __init__(
        self,
        labels: Sequence[str],
        documents: NDArray[np.float64],
        losses: NDArray[np.float64],
    ) -> None:
        self.labels = labels
        self.documents = documents
        self.losses = losses

    @classmethod
    def from_estimator(cls, estimator: Any, *, top: int = 9, ax: "Axes | None" = None) -> Self:
        """Draw the loss shares of a fitted BertFocalClassifier.

        Parameters
        ----------
        estimator : fitted BertFocalClassifier
        top : int, default=9
            Number of classes, the most frequent ones, with a colour each; the others share one.
        ax : matplotlib Axes, default=None
            Axes to draw into. None: those of a new figure.

        Returns
        -------
        ClassLossDisplay
        """
        return cls._of(estimator, top).plot(ax=ax)

    @classmethod
    def _of(cls, estimator: Any, top: int) -> Self:
        """Return the display of an estimator without drawing it."""
        check_is_fitted(estimator)
        check_epochs(estimator)
        order = np.argsort(-estimator.class_prior_, kind="stable")
        labels = [str(label) for label in estimator.classes_[order]]
        shares = np.vstack([estimator.class_prior_, estimator.class_loss_])[:, order]
        if len(labels) > top + 1:
            labels = [*labels[:top], f"{len(labels) - top} others"]
            shares = np.hstack([shares[:, :top], shares[:, top:].sum(1, keepdims=True)])
        shares = shares / shares.sum(1, keepdims=True)
        return cls(labels, shares[0], shares[1:])

    def plot(self, ax: "Axes | None" = None) -> Self:
        """Draw the bars.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Axes to draw into. None: those of a new figure.

        Returns
        -------
        ClassLossDisplay
        """
        self.ax_ = ax = axes_of(self, ax)
        self.figure_ = ax.figure
        shares = np.vstack([self.documents, self.losses])
        x = np.arange(len(shares))
        below = np.zeros(len(shares))
        self.bars_ = {}
        names = names_in_figure(self.labels)
        for i, (label, height) in enumerate(zip(self.labels, shares.T, strict=True)):
            style: dict[str, Any] = {
                "color": COLOURS[i % len(COLOURS)],
                "edgecolor": "white",
                "linewidth": 0.6,
            }
            style["hatch"] = HATCHES[i // len(COLOURS) % len(HATCHES)]
            self.bars_[label] = ax.bar(x, height, 0.8, below, label=names[i], **style)
            below = below + height
        shown = some(x[1:])
        ax.set_xticks([0, *shown], ["documents", *map(str, shown)])
        if len(x) > 8:
            ax.tick_params(axis="x", labelrotation=90)
        ax.set(xlabel="epoch", ylabel="share", ylim=(0, 1))
        handles, texts = ax.get_legend_handles_labels()
        ax.legend(handles[::-1], texts[::-1], loc="center left", bbox_to_anchor=(1, 0.5))
        return self
