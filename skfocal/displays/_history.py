"""Losses and the validation score by epoch."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray

from skfocal.displays._drawing import axes_of, check_epochs, some

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, SubFigure
    from matplotlib.lines import Line2D


class TrainingHistoryDisplay:
    """Losses and the validation score by epoch. Use :meth:`from_estimator`.

    Parameters
    ----------
    epochs : ndarray of shape (n_epochs,)
    losses : dict of str to ndarray of shape (n_epochs,)
        "train_loss" and, with held-out documents, "valid_loss".
    score : ndarray of shape (n_epochs,), default=None
        Validation score.
    score_name : str, default="score"
        Name of the score in the legend and on its axis.

    Attributes
    ----------
    lines_ : dict of str to matplotlib Line2D
    score_ax_ : matplotlib Axes or None
        The second axes, for the score.
    figure_, ax_ : matplotlib Figure and Axes
    """

    ax_: "Axes"
    figure_: "Figure | SubFigure"
    lines_: "dict[str, Line2D]"
    score_ax_: "Axes | None"

    def __init__(
        self,
        epochs: NDArray[np.int64],
        losses: Mapping[str, NDArray[np.float64]],
        score: NDArray[np.float64] | None = None,
        score_name: str = "score",
    ) -> None:
        self.epochs = epochs
        self.losses = losses
        self.score = score
        self.score_name = score_name

    @classmethod
    def from_estimator(cls, estimator: Any, *, ax: "Axes | None" = None) -> Self:
        """Draw the history of a fitted BertFocalClassifier.

        Parameters
        ----------
        estimator : fitted BertFocalClassifier
        ax : matplotlib Axes, default=None
            Axes to draw into. None: those of a new figure.

        Returns
        -------
        TrainingHistoryDisplay
        """
        return cls._of(estimator).plot(ax=ax)

    @classmethod
    def _of(cls, estimator: Any) -> Self:
        """Return the display of an estimator without drawing it."""
        check_epochs(estimator)
        rows = [dict(row) for row in estimator.history_]

        def column(name: str) -> NDArray[np.float64]:
            return np.array([row.get(name, np.nan) for row in rows], dtype=float)

        names = [n for n in ("train_loss", "valid_loss") if not np.isnan(column(n)).all()]
        score = None if np.isnan(column("valid_score")).all() else column("valid_score")
        return cls(
            column("epoch").astype(int),
            {name: column(name) for name in names},
            score,
            _score_name(estimator),
        )

    def plot(self, ax: "Axes | None" = None) -> Self:
        """Draw the history; the score has its own axis on the right.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Axes to draw into. None: those of a new figure.

        Returns
        -------
        TrainingHistoryDisplay
        """
        self.ax_ = ax = axes_of(self, ax)
        self.figure_ = ax.figure
        self.lines_, self.score_ax_ = {}, None
        for name, values in self.losses.items():
            (self.lines_[name],) = ax.plot(self.epochs, values, marker="o", label=name)
        ax.set(xlabel="epoch", ylabel="loss", xticks=some(self.epochs))
        handles = list(self.lines_.values())
        if self.score is not None:
            self.score_ax_ = ax.twinx()
            (line,) = self.score_ax_.plot(
                self.epochs, self.score, "s--", color="black", label=self.score_name
            )
            self.score_ax_.set_ylabel(self.score_name)
            self.lines_[self.score_name] = line
            handles.append(line)
        # On the axes that are drawn last; otherwise the line of the score would cross the legend.
        (self.score_ax_ or ax).legend(
            handles=handles, loc="lower center", bbox_to_anchor=(0.5, 1), ncols=len(handles)
        )
        return self


def _score_name(estimator: Any) -> str:
    """Return the name of the score that was computed.

    An unpickled estimator has no callbacks left; its parameter `scoring` then gives the name.
    """
    score = dict(estimator.net_.callbacks_).get("score")
    name = estimator.scoring if score is None else score.name
    if isinstance(name, list | tuple | dict):
        name = next(iter(name))
    return name if isinstance(name, str) else "score"
