"""A map of documents in the plane, coloured by class."""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import sparse
from sklearn.decomposition import PCA
from sklearn.utils.validation import check_consistent_length, column_or_1d

from skfocal._data.labels import check_order
from skfocal._data.texts import Documents, as_shown, is_missing
from skfocal._pages.figures import names as names_in_figure
from skfocal._utils.messages import excerpt, excerpts
from skfocal._utils.optional import import_optional
from skfocal._utils.wrapped import check_fitted
from skfocal.displays._drawing import COLOURS, axes_of, pyplot
from skfocal.displays._features import features_of, rows_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.collections import PathCollection
    from matplotlib.figure import Figure, SubFigure

_MANY = 50  # documents of a class whose points overlap: a dark edge would hide the colour
_MARKERS = "osD^vP*X"
_LEAST = 3  # documents, or there is no plane
_ENOUGH = 5  # documents of a rare class that gets a colour: fewer do not show where it lies


class FeatureMapDisplay:
    """Documents in the plane, by the features of a fitted classifier, coloured by class.

    Rare classes are drawn last, and larger. Use :meth:`from_estimator`.

    Parameters
    ----------
    points : ndarray of shape (n, 2)
        Coordinates of the documents.
    y : ndarray of shape (n,)
        Their labels.
    rows : ndarray of shape (n,)
        Their rows in X, from 0.
    method : {"pca", "umap"}, default="pca"
        How the points were found.
    explained_variance_ratio : ndarray of shape (2,), default=None
        Shares of the variance of the features along each axis, with "pca".

    Attributes
    ----------
    points_ : dict of label to matplotlib PathCollection
        The points of each class with a colour; the key None has those of all others, in grey.
    figure_, ax_ : matplotlib Figure and Axes
    """

    ax_: "Axes"
    figure_: "Figure | SubFigure"
    points_: "dict[Any, PathCollection]"

    def __init__(
        self,
        points: NDArray[np.float64],
        y: NDArray[Any],
        rows: NDArray[np.int64],
        *,
        method: Literal["pca", "umap"] = "pca",
        explained_variance_ratio: NDArray[np.float64] | None = None,
    ) -> None:
        self.points = points
        self.y = y
        self.rows = rows
        self.method = method
        self.explained_variance_ratio = explained_variance_ratio

    @classmethod
    def from_estimator(
        cls,
        estimator: Any,
        X: Documents,
        y: ArrayLike,
        *,
        method: Literal["pca", "umap"] = "pca",
        labels: Sequence[Any] | None = None,
        max_documents: int = 5000,
        ax: "Axes | None" = None,
    ) -> Self:
        """Draw a map of the features that a fitted classifier computes.

        The features are those that `transform` returns. Without a `transform` that works, they are
        what the other steps of a pipeline make of the documents or, for a classifier of texts,
        TF-IDF.

        Parameters
        ----------
        estimator : fitted classifier
            A search or pipeline is looked into.
        X, y : documents and their labels
            One label per document. They may be labels that the classifier does not know.
        method : {"pca", "umap"}, default="pca"
            "pca": the plane in which the features vary most; distances in it are real, but two axes
            may show little. "umap": neighbours stay together; distances between groups and their
            sizes mean little (``pip install 'skfocal[umap]'``). Both give the same map each time.
        labels : sequence of labels, default=None
            The classes with a colour, eight at most; all others are grey. None: all if there are no
            more than eight, else the three most frequent and the five rarest that have at least 5
            documents.
        max_documents : int, default=5000
            Number of documents to draw, at least 3. If there are more, frequent classes are thinned
            out, and rare ones stay whole.
        ax : matplotlib Axes, default=None
            Axes to draw into. None: those of a new figure.

        Returns
        -------
        FeatureMapDisplay

        Raises
        ------
        ValueError
            If there are fewer than 3 documents, `y` does not have one label for each, or a
            parameter is invalid.
        ImportError
            If matplotlib or, with "umap", umap-learn is not installed.

        References
        ----------
        McInnes, Healy and Melville: UMAP: Uniform Manifold Approximation and Projection for
        Dimension Reduction, arXiv:1802.03426, 2018.
        """
        if method not in ("pca", "umap"):
            raise ValueError(f"method must be 'pca' or 'umap'. Got {method!r}.")
        if not isinstance(max_documents, int | np.integer) or max_documents < _LEAST:
            raise ValueError(f"max_documents must be an int of at least 3. Got {max_documents!r}.")
        if method == "umap":
            _umap()  # the import fails before the work
        pyplot(cls)
        check_fitted(estimator)
        check_order(X, y=y)
        y = _one_label_each(y, as_shown(X))
        _check_labels(labels, y)
        rows = _thinned(y, max_documents)
        vectors, _ = features_of(estimator, rows_of(X, rows))
        points, ratio = _by_umap(vectors) if method == "umap" else _by_pca(vectors)
        display = cls(points, y[rows], rows, method=method, explained_variance_ratio=ratio)
        return display.plot(ax=ax, labels=labels)

    def plot(self, ax: "Axes | None" = None, *, labels: Sequence[Any] | None = None) -> Self:
        """Draw the points, those of rare classes last.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Axes to draw into. None: those of a new figure.
        labels : sequence of labels, default=None
            The classes with a colour, as in :meth:`from_estimator`.

        Returns
        -------
        FeatureMapDisplay
        """
        _check_labels(labels, self.y)
        self.ax_ = ax = axes_of(self, ax)
        self.figure_ = ax.figure
        found, counts = np.unique(self.y, return_counts=True)
        number = dict(zip(found.tolist(), counts.tolist(), strict=True))
        shown = _chosen(number) if labels is None else [*labels]
        shown.sort(key=lambda label: -number[label])
        self.points_ = {}
        others = ~np.isin(self.y, np.array(shown, dtype=self.y.dtype))
        if others.any():
            n = len(number) - len(shown)
            text = f"{n} other{'s' * (n != 1)} ({np.count_nonzero(others)})"
            self._scatter(None, others, text, {"color": "0.75", "s": 8, "linewidth": 0})
        names = names_in_figure(shown)
        for i, label in enumerate(shown):
            style = {
                "color": COLOURS[i],
                "marker": _MARKERS[i],
                "s": float(np.clip(300 / np.sqrt(number[label]), 8, 60)),
                "edgecolor": "white" if number[label] > _MANY else "0.2",
                "linewidth": 0.4,
                "zorder": 3 + i,
            }
            self._scatter(label, self.y == label, f"{names[i]} ({number[label]})", style)
        self._name_axes()
        legend = ax.legend(loc="center left", bbox_to_anchor=(1, 0.5), fontsize="small")
        for handle in legend.legend_handles:
            handle.set_sizes([30])  # type: ignore[union-attr]
        return self

    def _scatter(self, key: Any, of: NDArray[np.bool_], text: str, style: dict[str, Any]) -> None:
        self.points_[key] = self.ax_.scatter(*self.points[of].T, label=text, **style)

    def _name_axes(self) -> None:
        if self.explained_variance_ratio is None:
            self.ax_.set(xlabel="UMAP 1", ylabel="UMAP 2", xticks=[], yticks=[])
            return
        first, second = (f"{100 * share:.0f} %" for share in self.explained_variance_ratio)
        self.ax_.set(
            xlabel=f"first component, {first} of the variance",
            ylabel=f"second component, {second} of the variance",
        )


def _one_label_each(y: Any, documents: Sequence[str]) -> NDArray[Any]:
    shape: tuple[int, ...] = getattr(y, "shape", ())
    if sparse.issparse(y) or (len(shape) == 2 and shape[1] > 1):
        raise ValueError(f"y must have one label per document. Got shape {shape}.")
    if len(shape) < 2 and isinstance(y, Iterable):
        _check_each(y.to_pylist() if hasattr(y, "to_pylist") else y)
    labels = column_or_1d(y)
    check_consistent_length(documents, labels)
    if len(labels) < _LEAST:
        raise ValueError(f"X must hold at least 3 documents for a map. Got {len(labels)}.")
    return np.array(labels.tolist()) if labels.dtype.kind == "O" else labels


def _check_each(y: Iterable[Any]) -> None:
    for i, label in enumerate(y):
        if isinstance(label, set | frozenset | list | tuple | np.ndarray):
            raise ValueError(
                f"y must have one label per document. Got {excerpt(label)} in row {i}."
            )
        if is_missing(label):
            raise ValueError(f"y must have a label for each document. Got {label} in row {i}.")


def _check_labels(labels: Sequence[Any] | None, y: NDArray[Any]) -> None:
    if labels is None:
        return
    unknown = [label for label in labels if label not in set(y.tolist())]
    if isinstance(labels, str) or not 1 <= len(labels) <= len(COLOURS) or unknown:
        raise ValueError(
            f"labels must be one to {len(COLOURS)} labels that documents have. "
            f"Got {excerpts(labels)}."
        )


def _chosen(number: dict[Any, int]) -> list[Any]:
    """Return the classes with a colour: frequent ones to find the way by, and rare ones."""
    order = sorted(number, key=lambda label: -number[label])
    if len(order) <= len(COLOURS):
        return order
    frequent = order[:3]
    rare = [label for label in order[3:] if number[label] >= _ENOUGH][-5:]
    return frequent + rare


def _thinned(y: NDArray[Any], most: int) -> NDArray[np.int64]:
    """Return rows, at most so many, with as many of each class as the rarer ones leave room for."""
    if len(y) <= most:
        return np.arange(len(y))
    _, codes, counts = np.unique(y, return_inverse=True, return_counts=True)
    left = most
    for i, n in enumerate(np.sort(counts)):
        cap = max(left // (len(counts) - i), 1)
        if n > cap:
            break
        left -= int(n)
    random = np.random.RandomState(0)
    order = random.permutation(len(y))
    place = np.empty(len(y), int)  # of each document among those of its class
    for c in range(len(counts)):
        of = order[codes[order] == c]
        place[of] = np.arange(len(of))
    rows: NDArray[np.int64] = np.flatnonzero(place < cap)[:most]
    return rows


def _by_pca(vectors: Any) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return coordinates along the two directions of the largest variance, and its shares."""
    n, width = vectors.shape
    if sparse.issparse(vectors) and min(n, width) <= 3:
        vectors = vectors.toarray()  # too small for the solver of sparse ones
    elif sparse.issparse(vectors) and (vectors.max(axis=0) != vectors.min(axis=0)).nnz == 0:
        return np.zeros((n, 2)), np.zeros(2)  # all are the same, which that solver cannot do
    if width < 2:
        vectors = np.column_stack([vectors, np.zeros(n)])
    solver = "arpack" if sparse.issparse(vectors) else "auto"
    pca = PCA(2, svd_solver=solver, random_state=0)
    with np.errstate(invalid="ignore"):  # all vectors are the same
        points = pca.fit_transform(vectors)
    return points, np.nan_to_num(pca.explained_variance_ratio_)


def _umap() -> Any:
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ImportWarning)  # of tensorflow, which is not needed
        return import_optional("umap", "method='umap'", "umap")


def _by_umap(vectors: Any) -> tuple[NDArray[np.float64], None]:
    """Return coordinates that keep neighbours, by the angle between vectors, together."""
    n = vectors.shape[0]
    settings = {"metric": "cosine", "random_state": 0, "n_jobs": 1}
    # Its start from a graph's spectrum needs more documents than dimensions.
    settings |= {"n_neighbors": min(15, n - 1), "init": "spectral" if n > 10 else "random"}
    return np.asarray(_umap().UMAP(**settings).fit_transform(vectors), dtype=float), None
