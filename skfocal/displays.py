"""Figures in the style of scikit-learn's Displays; matplotlib is imported when one is drawn."""

import numpy as np
from sklearn.utils.validation import check_is_fitted


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
    x_name, y_name, metric : str
        For the axes and the colour bar.

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
        try:
            import matplotlib.pyplot as plt
        except ImportError as error:
            raise ImportError(
                "GridSearchDisplay needs matplotlib: pip install skfocal[examples]"
            ) from error
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
