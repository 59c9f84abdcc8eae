"""Figures in the style of scikit-learn's Displays; matplotlib is imported when one is drawn."""

import numpy as np
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


class GridSearchDisplay:
    """Heat map of a search over two parameters.

    Use :meth:`from_estimator`.

    Parameters
    ----------
    mean, std : ndarray of shape (n_y, n_x)
        Score of each pair of values and its standard deviation over the folds; NaN where the
        search has none.
    x_values, y_values : list
        Values of the parameters.
    x_name, y_name : str
        For the axes.
    metric : str, default="score"
        For the colour bar.

    Attributes
    ----------
    figure_, ax_, im_ : matplotlib Figure, Axes and AxesImage
    text_ : ndarray of shape (n_y, n_x) of matplotlib Text, or None
        One for each cell.
    """

    def __init__(self, mean, std, *, x_values, y_values, x_name, y_name, metric="score"):
        self.mean = mean
        self.std = std
        self.x_values = x_values
        self.y_values = y_values
        self.x_name = x_name
        self.y_name = y_name
        self.metric = metric

    @classmethod
    def from_estimator(cls, search, *, x="gamma", y="alpha", metric=None, ax=None, cmap="viridis"):
        """Draw a fitted GridSearchCV, RandomizedSearchCV or halving search.

        Parameters
        ----------
        search : fitted search
        x, y : str, default="gamma", "alpha"
            Parameters; the prefix of a pipeline's step may be left out. Where the search had
            others too, a cell is the best over them.
        metric : str, default=None
            Which of several scores; None: that of `refit`, or the only one.
        ax : matplotlib Axes, default=None
        cmap : str, default="viridis"

        Returns
        -------
        GridSearchDisplay

        Raises
        ------
        ValueError
            If the search has no such parameter or score.
        NotFittedError
            If it has not run.

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

    def plot(self, ax=None, *, cmap="viridis", text=True):
        """Draw; a frame marks the best cell.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
        cmap : str, default="viridis"
        text : bool, default=True
            Whether to write mean and standard deviation into the cells.

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

    def _write(self, row, column):
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
    """Accuracy against confidence over bins, with the expected calibration error.

    The confidence of a document is its largest probability, whatever the number of classes. Use
    :meth:`from_estimator` or :meth:`from_predictions`.

    Parameters
    ----------
    counts, confidence, accuracy : ndarray of shape (n_bins,)
        Documents of each bin, their mean confidence and accuracy.
    name : str, default=None
        For the legend.

    Attributes
    ----------
    ece : float
        Expected calibration error.
    line_, ref_line_ : matplotlib Line2D
        Of the bins that have documents; of perfect calibration.
    gap_ : matplotlib LineCollection
        From each point to the diagonal.
    figure_, ax_ : matplotlib Figure and Axes
    """

    def __init__(self, counts, confidence, accuracy, *, name=None):
        self.counts = counts
        self.confidence = confidence
        self.accuracy = accuracy
        self.name = name
        self.ece = float((counts * np.abs(accuracy - confidence)).sum() / counts.sum())

    @classmethod
    def from_estimator(cls, estimator, X, y, *, n_bins=15, name=None, ax=None, **kwargs):
        """Draw a fitted classifier's probabilities of documents.

        Parameters
        ----------
        estimator : fitted classifier with predict_proba
        X, y : documents and their labels
        n_bins : int, default=15
        name : str, default=None
            None: the estimator's class.
        ax : matplotlib Axes, default=None
        **kwargs
            For the line.

        Returns
        -------
        ReliabilityDisplay
        """
        return cls.from_predictions(
            y,
            estimator.predict_proba(X),
            classes=estimator.classes_,
            n_bins=n_bins,
            name=name or type(estimator).__name__,
            ax=ax,
            **kwargs,
        )

    @classmethod
    def from_predictions(
        cls, y_true, proba, *, classes=None, n_bins=15, name=None, ax=None, **kwargs
    ):
        """Draw probabilities.

        Parameters
        ----------
        y_true : array-like of shape (n,)
        proba : array-like of shape (n, n_classes)
        classes : array-like of shape (n_classes,), default=None
            Labels of the columns; None: the sorted labels of `y_true`.
        n_bins : int, default=15
        name : str, default=None
        ax : matplotlib Axes, default=None
        **kwargs
            For the line.

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
        bins = confidence_bins(y_true, proba, classes=classes, n_bins=n_bins)
        return cls(*bins, name=name).plot(ax=ax, **kwargs)

    def plot(self, ax=None, **kwargs):
        """Draw.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
        **kwargs
            For the line.

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
        (self.line_,) = ax.plot(x, y, **{"marker": "s", "label": label, "clip_on": False} | kwargs)
        self.gap_ = ax.vlines(x, x, y, color=self.line_.get_color(), alpha=0.4, linewidth=3)
        ax.set(xlabel="confidence", ylabel="accuracy", xlim=(0, 1), ylim=(0, 1))
        ax.legend(loc="best")
        return self


class ClassPrecisionRecallDisplay:
    """A precision-recall curve for each class against the rest, most frequent first.

    Use :meth:`from_estimator` or :meth:`from_predictions`. Classes that `y_true` lacks have no
    curve.

    Parameters
    ----------
    curves : dict of label to (precision, recall)
    average_precision : dict of label to float
    counts : dict of label to int
        Documents.

    Attributes
    ----------
    lines_ : dict of label to matplotlib Line2D
    figure_, ax_ : matplotlib Figure and Axes
    """

    def __init__(self, curves, average_precision, counts):
        self.curves = curves
        self.average_precision = average_precision
        self.counts = counts

    @classmethod
    def from_estimator(cls, estimator, X, y, *, sample_weight=None, top=8, ax=None, **kwargs):
        """Draw a fitted classifier's probabilities of documents.

        Parameters
        ----------
        estimator : fitted classifier with predict_proba
        X, y : documents and their labels
        sample_weight : array-like of shape (n,), default=None
        top : int, default=8
            Classes that get a colour and a name; the others are grey.
        ax : matplotlib Axes, default=None
        **kwargs
            For each line.

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
        cls, y_true, proba, *, classes=None, sample_weight=None, top=8, ax=None, **kwargs
    ):
        """Draw probabilities.

        Parameters
        ----------
        y_true : array-like of shape (n,)
        proba : array-like of shape (n, n_classes)
        classes : array-like of shape (n_classes,), default=None
            Labels of the columns; None: the sorted labels of `y_true`.
        sample_weight : array-like of shape (n,), default=None
        top : int, default=8
            Classes that get a colour and a name; the others are grey.
        ax : matplotlib Axes, default=None
        **kwargs
            For each line.

        Returns
        -------
        ClassPrecisionRecallDisplay

        Raises
        ------
        ValueError
            If a label has no column, or there is no document.

        Examples
        --------
        >>> from skfocal.displays import ClassPrecisionRecallDisplay
        >>> proba = [[0.9, 0.1], [0.6, 0.4], [0.2, 0.8]]
        >>> ClassPrecisionRecallDisplay.from_predictions(["a", "a", "b"], proba).average_precision
        {'a': 1.0, 'b': 1.0}
        """
        y_true, proba = column_or_1d(y_true), np.asarray(proba)
        classes = np.unique(y_true) if classes is None else np.asarray(classes)
        unknown = np.setdiff1d(y_true, classes).tolist()
        if proba.ndim != 2 or len(classes) != proba.shape[1] or unknown or not len(y_true):
            raise ValueError(
                "proba must have a row for each of at least one document and one column for each "
                f"of the classes {excerpts(classes.tolist())}. Got shape {proba.shape} for "
                f"{len(y_true)} documents, with labels {excerpts(unknown)} besides."
            )
        counts = {label: int((y_true == label).sum()) for label in classes.tolist()}
        order = sorted((c for c in counts if counts[c]), key=lambda c: -counts[c])
        columns = {label: proba[:, classes.tolist().index(label)] for label in order}
        weighted = {"sample_weight": sample_weight}
        return cls(
            {c: precision_recall_curve(y_true == c, columns[c], **weighted)[:2] for c in order},
            {c: float(average_precision_score(y_true == c, columns[c], **weighted)) for c in order},
            {c: counts[c] for c in order},
        ).plot(ax=ax, top=top, **kwargs)

    def plot(self, ax=None, *, top=8, **kwargs):
        """Draw.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
        top : int, default=8
            Classes that get a colour and a name; the others are grey.
        **kwargs
            For each line.

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
            style = {"color": _COLOURS[i % len(_COLOURS)], "label": text, "zorder": 3}
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

    Use ``from_estimator`` or ``from_predictions``; `labels`, if given, wins. Beyond 15 classes the
    cells have no numbers unless ``include_values=True``, and the figure grows.
    """

    @classmethod
    def from_predictions(cls, y_true, y_pred, *, labels=None, sample_weight=None, **kwargs):
        """Draw predictions; see :class:`sklearn.metrics.ConfusionMatrixDisplay`.

        Parameters
        ----------
        y_true, y_pred : array-like of shape (n,)
        labels : array-like, default=None
            None: by their frequency in `y_true`, then those that were only predicted.
        sample_weight : array-like of shape (n,), default=None
            Weighs the frequency, too.
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
                kwargs["ax"] = ax = _axes(cls, None)
                ax.figure.set_size_inches(2 * [3 + 0.16 * len(labels)])
                ax.tick_params(labelsize="x-small")
        return super().from_predictions(
            y_true, y_pred, labels=labels, sample_weight=sample_weight, **kwargs
        )


class TrainingHistoryDisplay:
    """Losses and the validation score by epoch. Use :meth:`from_estimator`.

    Parameters
    ----------
    epochs : ndarray of shape (n_epochs,)
    losses : dict of str to ndarray of shape (n_epochs,)
        "train_loss" and, with held-out documents, "valid_loss".
    score : ndarray of shape (n_epochs,), default=None
    score_name : str, default="score"

    Attributes
    ----------
    lines_ : dict of str to matplotlib Line2D
    score_ax_ : matplotlib Axes or None
        The second axis, of the score.
    figure_, ax_ : matplotlib Figure and Axes
    """

    def __init__(self, epochs, losses, score=None, score_name="score"):
        self.epochs = epochs
        self.losses = losses
        self.score = score
        self.score_name = score_name

    @classmethod
    def from_estimator(cls, estimator, *, ax=None):
        """Draw the history of a fitted BertFocalClassifier.

        Parameters
        ----------
        estimator : fitted BertFocalClassifier
        ax : matplotlib Axes, default=None

        Returns
        -------
        TrainingHistoryDisplay
        """
        return cls._of(estimator).plot(ax=ax)

    @classmethod
    def _of(cls, estimator):
        """Return the display of an estimator, not drawn yet."""
        rows = [dict(row) for row in estimator.history_]

        def column(name):
            return np.array([row.get(name, np.nan) for row in rows], dtype=float)

        names = [n for n in ("train_loss", "valid_loss") if not np.isnan(column(n)).all()]
        score = None if np.isnan(column("valid_score")).all() else column("valid_score")
        return cls(
            column("epoch").astype(int),
            {name: column(name) for name in names},
            score,
            _score_name(estimator),
        )

    def plot(self, ax=None):
        """Draw; the score has an axis of its own on the right.

        Parameters
        ----------
        ax : matplotlib Axes, default=None

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
        # On the upper axes, whose line would run over it.
        (self.score_ax_ or ax).legend(
            handles=handles, loc="lower center", bbox_to_anchor=(0.5, 1), ncols=len(handles)
        )
        return self


class ClassLossDisplay:
    """Who carries the loss: a bar for the training documents, then one for each epoch.

    Each is divided among the classes, most frequent first: the documents by their number, the
    epochs by the loss that was minimised. It shows what gamma and alpha do, class by class. Use
    :meth:`from_estimator`.

    Parameters
    ----------
    labels : list of str
        Most frequent first, perhaps with a last one for the others.
    documents : ndarray of shape (n_labels,)
        Shares of the training documents.
    losses : ndarray of shape (n_epochs, n_labels)
        Shares of the training loss.

    Attributes
    ----------
    bars_ : dict of label to matplotlib BarContainer
    figure_, ax_ : matplotlib Figure and Axes
    """

    def __init__(self, labels, documents, losses):
        self.labels = labels
        self.documents = documents
        self.losses = losses

    @classmethod
    def from_estimator(cls, estimator, *, top=9, ax=None):
        """Draw the training of a fitted BertFocalClassifier.

        Parameters
        ----------
        estimator : fitted BertFocalClassifier
        top : int, default=9
            Classes that get a colour, the most frequent ones; the others share one.
        ax : matplotlib Axes, default=None

        Returns
        -------
        ClassLossDisplay
        """
        return cls._of(estimator, top).plot(ax=ax)

    @classmethod
    def _of(cls, estimator, top):
        """Return the display of an estimator, not drawn yet."""
        check_is_fitted(estimator)
        order = np.argsort(-estimator.class_prior_, kind="stable")
        labels = [str(label) for label in estimator.classes_[order]]
        shares = np.vstack([estimator.class_prior_, estimator.class_loss_])[:, order]
        if len(labels) > top + 1:
            labels = [*labels[:top], f"{len(labels) - top} others"]
            shares = np.hstack([shares[:, :top], shares[:, top:].sum(1, keepdims=True)])
        shares = shares / shares.sum(1, keepdims=True)
        return cls(labels, shares[0], shares[1:])

    def plot(self, ax=None):
        """Draw.

        Parameters
        ----------
        ax : matplotlib Axes, default=None

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
            style = {"color": _COLOURS[i % len(_COLOURS)], "edgecolor": "white", "linewidth": 0.6}
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


# Okabe and Ito's colours, told apart by colour-blind eyes too.
_COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442", "#000000")
_STYLES = ("-", "--", "-.", ":")
_HATCHES = (None, "///", "...", "xxx")


def _some(epochs, most=15):
    """Return evenly spaced ones of the epochs that leave room for their numbers."""
    return epochs[:: -(-len(epochs) // most)]


def _score_name(estimator):
    """Return the name of the score that was computed; a pickle has only the present parameter."""
    score = dict(estimator.net_.callbacks_).get("score")
    name = estimator.scoring if score is None else score.name
    return name if isinstance(name, str) else "score"


def _pyplot(display):
    """Return matplotlib's pyplot for a display or its class."""
    name = display.__name__ if isinstance(display, type) else type(display).__name__
    return import_optional("matplotlib.pyplot", name, "examples")


def _axes(display, ax):
    plt = _pyplot(display)
    return plt.subplots(layout="constrained")[1] if ax is None else ax


class _Value:
    """A parameter's value that can be a key, whatever it is."""

    def __init__(self, value):
        self.value = value
        self.key = value if isinstance(value, int | float | str | None) else repr(value)

    def __eq__(self, other):
        return self.key == other.key

    def __hash__(self):
        return hash(self.key)


def _order(value):
    """None first, then numbers, then the rest by name."""
    key = value.key
    is_number = isinstance(key, int | float)
    return key is not None, not is_number, key if is_number else 0, str(key)


def _column(results, name):
    """Return the column of a parameter, with or without its step's prefix."""
    known = [key[6:] for key in results if key.startswith("param_")]
    found = [key for key in known if key == name or key.endswith(f"__{name}")]
    if len(found) != 1:
        raise ValueError(f"x and y must each name one of the parameters {known}. Got {name!r}.")
    return f"param_{found[0]}"
