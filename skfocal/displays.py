"""Figures in the style of scikit-learn's Displays; drawing one imports matplotlib."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.metrics import (
    ConfusionMatrixDisplay,
    average_precision_score,
    precision_recall_curve,
)
from sklearn.utils import column_or_1d
from sklearn.utils.validation import check_is_fitted

from skfocal._utils.messages import excerpts
from skfocal._utils.optional import import_optional
from skfocal.metrics import confidence_bins

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.collections import LineCollection
    from matplotlib.container import BarContainer
    from matplotlib.figure import Figure, SubFigure
    from matplotlib.image import AxesImage
    from matplotlib.lines import Line2D
    from matplotlib.text import Text


class GridSearchDisplay:
    """Heat map of a search over two parameters.

    Use :meth:`from_estimator`.

    Parameters
    ----------
    mean, std : ndarray of shape (n_y, n_x)
        Score of each pair of values and its standard deviation over the folds; NaN if the search
        has no score for the pair.
    x_values, y_values : list
        Values of the two parameters.
    x_name, y_name : str
        Labels of the axes.
    metric : str, default="score"
        Label of the colour bar.

    Attributes
    ----------
    figure_, ax_, im_ : matplotlib Figure, Axes and AxesImage
    text_ : ndarray of shape (n_y, n_x) of matplotlib Text, or None
        The text in each cell; None for a cell without a score.
    """

    ax_: "Axes"
    figure_: "Figure | SubFigure"
    im_: "AxesImage"
    text_: NDArray[np.object_] | None

    def __init__(
        self,
        mean: NDArray[np.float64],
        std: NDArray[np.float64],
        *,
        x_values: Sequence[Any],
        y_values: Sequence[Any],
        x_name: str,
        y_name: str,
        metric: str = "score",
    ) -> None:
        self.mean = mean
        self.std = std
        self.x_values = x_values
        self.y_values = y_values
        self.x_name = x_name
        self.y_name = y_name
        self.metric = metric

    @classmethod
    def from_estimator(
        cls,
        search: Any,
        *,
        x: str = "gamma",
        y: str = "alpha",
        metric: str | None = None,
        ax: "Axes | None" = None,
        cmap: str = "viridis",
    ) -> Self:
        """Draw a fitted GridSearchCV, RandomizedSearchCV or halving search.

        Parameters
        ----------
        search : fitted search
        x, y : str, default="gamma", "alpha"
            The two parameters. The prefix of a pipeline's step may be left out. If the search
            varied other parameters, too, a cell shows the best score over them.
        metric : str, default=None
            The score to show, if the search has several. None: that of `refit`, or the only one.
        ax : matplotlib Axes, default=None
            Axes to draw into. None: those of a new figure.
        cmap : str, default="viridis"
            Name of a matplotlib colormap.

        Returns
        -------
        GridSearchDisplay

        Raises
        ------
        ValueError
            If the search has no such parameter or score.
        NotFittedError
            If the search is not fitted.

        Examples
        --------
        >>> from sklearn.datasets import load_iris
        >>> from sklearn.model_selection import GridSearchCV
        >>> from sklearn.svm import SVC
        >>> from skfocal import GridSearchDisplay
        >>> grid = {"C": [0.1, 1], "gamma": [0.1, 1, 10]}
        >>> search = GridSearchCV(SVC(), grid).fit(*load_iris(return_X_y=True))
        >>> GridSearchDisplay.from_estimator(search, y="C").mean.shape
        (2, 3)
        """
        check_is_fitted(search, "cv_results_")
        results = search.cv_results_
        metric = metric or (search.refit if isinstance(search.refit, str) else "score")
        if f"mean_test_{metric}" not in results:
            known = [key[10:] for key in results if key.startswith("mean_test_")]
            raise ValueError(f"metric must be one of {known}. Got {metric!r}.")
        columns = [results[_column(results, name)] for name in (x, y)]
        x_values, y_values = (sorted(dict.fromkeys(map(_Value, c)), key=_order) for c in columns)
        mean = np.full((len(y_values), len(x_values)), np.nan)
        std = mean.copy()
        scores = zip(results[f"mean_test_{metric}"], results[f"std_test_{metric}"], strict=True)
        for a, b, (score, spread) in zip(*columns, scores, strict=True):
            cell = y_values.index(_Value(b)), x_values.index(_Value(a))
            if not mean[cell] >= score:
                mean[cell], std[cell] = score, spread
        named = metric == "score" and isinstance(search.scoring, str)
        display = cls(
            mean,
            std,
            x_values=[value.value for value in x_values],
            y_values=[value.value for value in y_values],
            x_name=x,
            y_name=y,
            metric=search.scoring if named else metric,
        )
        return display.plot(ax=ax, cmap=cmap)

    def plot(self, ax: "Axes | None" = None, *, cmap: str = "viridis", text: bool = True) -> Self:
        """Draw the heat map, with a frame around the best cell.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Axes to draw into. None: those of a new figure.
        cmap : str, default="viridis"
            Name of a matplotlib colormap.
        text : bool, default=True
            Whether to write the mean and the standard deviation into each cell.

        Returns
        -------
        GridSearchDisplay
        """
        plt = _pyplot(self)
        if ax is None:
            _, ax = plt.subplots(
                figsize=(1.6 + 1.3 * len(self.x_values), 1.6 + 0.7 * len(self.y_values)),
                layout="constrained",
            )
        self.ax_, self.figure_ = ax, ax.figure
        self.im_ = ax.imshow(self.mean, cmap=cmap, aspect="auto")
        ax.set_xticks(range(len(self.x_values)), map(str, self.x_values))
        ax.set_yticks(range(len(self.y_values)), map(str, self.y_values))
        ax.set(xlabel=self.x_name, ylabel=self.y_name)
        self.figure_.colorbar(self.im_, ax=ax, label=self.metric)
        if not np.isnan(self.mean).all():
            row, column = np.unravel_index(np.nanargmax(self.mean), self.mean.shape)
            corner = column - 0.48, row - 0.46
            ax.add_patch(
                plt.Rectangle(corner, 0.96, 0.92, fill=False, edgecolor="red", linewidth=2)
            )
        self.text_ = (
            np.vectorize(self._write, otypes=[object])(*np.indices(self.mean.shape))
            if text
            else None
        )
        return self

    def _write(self, row: int, column: int) -> "Text | None":
        """Write the numbers of a cell in a colour that is legible on that of the cell."""
        mean, std = self.mean[row, column], self.std[row, column]
        if np.isnan(mean):
            return None
        red, green, blue, _ = self.im_.cmap(self.im_.norm(mean))
        dark = 0.299 * red + 0.587 * green + 0.114 * blue < 0.5
        return self.ax_.text(
            column,
            row,
            f"{mean:.3f}\n± {std:.3f}",
            ha="center",
            va="center",
            color="white" if dark else "black",
        )


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
        self.ax_ = ax = _axes(self, ax)
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
        p = np.asarray(proba)
        several = np.ndim(y_true) == 2 and np.shape(y_true)[1] > 1
        y = np.asarray(y_true) if several else column_or_1d(y_true)
        found = np.arange(y.shape[1]) if several else np.unique(y)
        labels = found if classes is None else np.asarray(classes)
        unknown = [] if several else np.setdiff1d(y, labels).tolist()
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
        self.ax_ = ax = _axes(self, ax)
        self.figure_ = ax.figure
        self.lines_ = {}
        n_others = len(self.curves) - top
        for i, (label, (precision, recall)) in enumerate(self.curves.items()):
            text = f"{label} ({self.counts[label]}) AP {self.average_precision[label]:.2f}"
            style: dict[str, Any] = {
                "color": _COLOURS[i % len(_COLOURS)],
                "label": text,
                "zorder": 3,
            }
            if i >= top:
                style = {"color": "0.75", "linewidth": 0.8}
                style["label"] = f"{n_others} others" if i == top else f"_{text}"
            style = {"drawstyle": "steps-post", "linestyle": _STYLES[i % len(_STYLES)]} | style
            (self.lines_[label],) = ax.plot(recall, precision, **style | kwargs)
        ax.set(xlabel="recall", ylabel="precision", xlim=(0, 1.01), ylim=(0, 1.01))
        ax.legend(loc="center left", bbox_to_anchor=(1, 0.5), fontsize="small")
        return self


class FrequencyConfusionMatrixDisplay(ConfusionMatrixDisplay):
    """scikit-learn's confusion matrix with the most frequent true class first.

    Use ``from_estimator`` or ``from_predictions``. If `labels` is given, it sets the order instead.
    With more than 15 classes, the figure grows and the cells have no numbers unless
    ``include_values=True``.
    """

    @classmethod
    def from_predictions(
        cls,
        y_true: Any,
        y_pred: Any,
        *,
        labels: Any = None,
        sample_weight: ArrayLike | None = None,
        **kwargs: Any,
    ) -> Self:
        """Draw from given predictions; see :class:`sklearn.metrics.ConfusionMatrixDisplay`.

        Parameters
        ----------
        y_true, y_pred : array-like of shape (n,)
            True and predicted labels.
        labels : array-like, default=None
            Labels in the order to show them. None: by their frequency in `y_true`, with those that
            were only predicted last.
        sample_weight : array-like of shape (n,), default=None
            Weights of the documents. They apply to the frequency, too.
        **kwargs
            As in scikit-learn.

        Returns
        -------
        FrequencyConfusionMatrixDisplay

        Examples
        --------
        >>> from skfocal.displays import FrequencyConfusionMatrixDisplay
        >>> y = ["a", "b", "b"]
        >>> FrequencyConfusionMatrixDisplay.from_predictions(y, y).display_labels.tolist()
        ['b', 'a']
        """
        if labels is None:
            known = np.unique(np.concatenate([column_or_1d(y_true), column_or_1d(y_pred)]))
            each = np.ones(len(y_true)) if sample_weight is None else np.asarray(sample_weight)
            counts = each @ (np.asarray(y_true)[:, None] == known)
            labels = known[np.argsort(-counts, kind="stable")]
        if len(labels) > 15:
            kwargs = {"include_values": False, "xticks_rotation": "vertical", **kwargs}
            if kwargs.get("ax") is None:
                figure, ax = _pyplot(cls).subplots(layout="constrained")
                figure.set_size_inches(2 * [3 + 0.16 * len(labels)])
                kwargs["ax"] = ax
                ax.tick_params(labelsize="x-small")
        display: Self = super().from_predictions(
            y_true, y_pred, labels=labels, sample_weight=sample_weight, **kwargs
        )
        return display


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
        _check_epochs(estimator)
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
        self.ax_ = ax = _axes(self, ax)
        self.figure_ = ax.figure
        self.lines_, self.score_ax_ = {}, None
        for name, values in self.losses.items():
            (self.lines_[name],) = ax.plot(self.epochs, values, marker="o", label=name)
        ax.set(xlabel="epoch", ylabel="loss", xticks=_some(self.epochs))
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
        _check_epochs(estimator)
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
        self.ax_ = ax = _axes(self, ax)
        self.figure_ = ax.figure
        shares = np.vstack([self.documents, self.losses])
        x = np.arange(len(shares))
        below = np.zeros(len(shares))
        self.bars_ = {}
        for i, (label, height) in enumerate(zip(self.labels, shares.T, strict=True)):
            style: dict[str, Any] = {
                "color": _COLOURS[i % len(_COLOURS)],
                "edgecolor": "white",
                "linewidth": 0.6,
            }
            style["hatch"] = _HATCHES[i // len(_COLOURS) % len(_HATCHES)]
            self.bars_[label] = ax.bar(x, height, 0.8, below, label=label, **style)
            below = below + height
        shown = _some(x[1:])
        ax.set_xticks([0, *shown], ["documents", *map(str, shown)])
        if len(x) > 8:
            ax.tick_params(axis="x", labelrotation=90)
        ax.set(xlabel="epoch", ylabel="share", ylim=(0, 1))
        handles, names = ax.get_legend_handles_labels()
        ax.legend(handles[::-1], names[::-1], loc="center left", bbox_to_anchor=(1, 0.5))
        return self


# The colours of Okabe and Ito, which colour-blind people can tell apart.
_COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442", "#000000")
_STYLES = ("-", "--", "-.", ":")
_HATCHES = (None, "///", "...", "xxx")


def _some(epochs: NDArray[np.int64], most: int = 15) -> NDArray[np.int64]:
    """Return at most `most` of the epochs, evenly spaced, so that their numbers fit."""
    return epochs[:: -(-len(epochs) // most)]


def _check_epochs(estimator: Any) -> None:
    """Raise ValueError if nothing was trained that could be drawn."""
    if not len(estimator.history_):
        raise ValueError("estimator was fitted with max_epochs=0, so it has no epochs to draw.")


def _score_name(estimator: Any) -> str:
    """Return the name of the score that was computed.

    An unpickled estimator has no callbacks left; its parameter `scoring` then gives the name.
    """
    score = dict(estimator.net_.callbacks_).get("score")
    name = estimator.scoring if score is None else score.name
    if isinstance(name, list | tuple | dict):
        name = next(iter(name))
    return name if isinstance(name, str) else "score"


def _pyplot(display: object) -> Any:
    """Return matplotlib's pyplot for a display or its class."""
    name = display.__name__ if isinstance(display, type) else type(display).__name__
    return import_optional("matplotlib.pyplot", name, "examples")


def _axes(display: object, ax: "Axes | None") -> "Axes":
    """Return the given axes, or those of a new figure."""
    plt = _pyplot(display)
    if ax is not None:
        return ax
    new: Axes = plt.subplots(layout="constrained")[1]
    return new


class _Value:
    """A parameter's value as the key of a dict, whether it is hashable or not."""

    def __init__(self, value: Any) -> None:
        self.value = value
        self.key = value if isinstance(value, int | float | str | None) else repr(value)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Value) and self.key == other.key

    def __hash__(self) -> int:
        return hash(self.key)


def _order(value: _Value) -> tuple[bool, bool, float, str]:
    """Return the sort key of a value: None first, then numbers, then the rest by name."""
    key = value.key
    number = key if isinstance(key, int | float) else None
    return key is not None, number is None, number or 0, str(key)


def _column(results: Mapping[str, Any], name: str) -> str:
    """Return the key of a parameter in `cv_results_`; the prefix of its step may be left out."""
    known = [key[6:] for key in results if key.startswith("param_")]
    found = [key for key in known if key == name or key.endswith(f"__{name}")]
    if len(found) != 1:
        raise ValueError(f"x and y must each name one of the parameters {known}. Got {name!r}.")
    return f"param_{found[0]}"
