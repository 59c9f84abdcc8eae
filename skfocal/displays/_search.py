"""Heat map of a search over two parameters."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray
from sklearn.utils.validation import check_is_fitted

from skfocal.displays._drawing import pyplot

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, SubFigure
    from matplotlib.image import AxesImage
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
    best : tuple (row, column), default=None
        The pair with a frame. None: the one with the highest mean.

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
        best: tuple[int, int] | None = None,
    ) -> None:
        self.mean = mean
        self.std = std
        self.x_values = x_values
        self.y_values = y_values
        self.x_name = x_name
        self.y_name = y_name
        self.metric = metric
        self.best = best

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
            varied other parameters, too, a cell shows the best score over them. In a halving
            search, it shows that of the last iteration the pair came to, and the best pair is one
            of the last iteration of all, where the search chooses.
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
        known = [key[10:] for key in results if key.startswith("mean_test_")]
        if metric is None:
            metric = search.refit if isinstance(search.refit, str) else "score"
            metric = known[0] if len(known) == 1 else metric
        if metric not in known:
            raise ValueError(f"metric must be one of {known}. Got {metric!r}.")
        columns = [results[_column(results, name)] for name in (x, y)]
        x_values, y_values = (sorted(dict.fromkeys(map(_Value, c)), key=_order) for c in columns)
        mean = np.full((len(y_values), len(x_values)), np.nan)
        std = mean.copy()
        scores, spreads = (results[f"{kind}_test_{metric}"] for kind in ("mean", "std"))
        iterations = results.get("iter", np.zeros(len(scores), int))
        best: tuple[int, int] | None = None
        # What is written last to a cell stays: of equal scores the first one, which a search takes.
        for i in np.lexsort((-np.arange(len(scores)), scores, iterations)):
            if not np.isnan(scores[i]):
                a, b = (column[i] for column in columns)
                best = cell = y_values.index(_Value(b)), x_values.index(_Value(a))
                mean[cell], std[cell] = scores[i], spreads[i]
        named = metric == "score" and isinstance(search.scoring, str)
        display = cls(
            mean,
            std,
            x_values=[value.value for value in x_values],
            y_values=[value.value for value in y_values],
            x_name=x,
            y_name=y,
            metric=search.scoring if named else metric,
            best=best,
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
        plt = pyplot(self)
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
            best = np.unravel_index(np.nanargmax(self.mean), self.mean.shape)
            row, column = best if self.best is None else self.best
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


class _Value:
    """A parameter's value as the key of a dict, whether it is hashable or not."""

    def __init__(self, value: Any) -> None:
        self.value = value = value.item() if isinstance(value, np.generic) else value
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
