"""Pairs of classes that are confused: how often, their typical documents, and their words."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.feature_extraction.text import TfidfVectorizer

from skfocal._data.labels import check_order, encode_known
from skfocal._data.texts import Documents, as_shown
from skfocal._pages.figures import names as names_in_figure
from skfocal._utils.messages import excerpts
from skfocal._utils.wrapped import check_fitted
from skfocal.displays._drawing import COLOURS, axes_of, pyplot
from skfocal.displays._features import features_of, rows_of, similarity_to_mean

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.container import BarContainer
    from matplotlib.figure import Figure, SubFigure

_TYPICAL = 2  # documents of each side
_WORDS = 8  # of each side
_MOST_VECTORS = 100  # documents of a class that its mean is computed from
_MOST_READ = 500  # documents of a class whose words are compared


class ConfusedPairsDisplay:
    """Pairs of classes that are most often confused, with typical documents and telling words.

    Of each pair, `first` is the more frequent class. A notebook shows the documents and words;
    ``print`` writes them as text. Use :meth:`from_estimator`.

    Parameters
    ----------
    pairs : dict of str -> list
        One entry for each pair, the most often confused first: "first" and "second", the classes;
        "first_as_second" and "second_as_first", numbers of documents; "first_words" and
        "second_words", lists of the words that tell a class from the other.
    documents : dict of str -> list
        Typical documents: "pair", the number of the pair, from 0; "label"; "row" in X, from 0;
        "document"; "predicted"; and "similarity".
    space : str, default="the features"
        What the similarity is computed from.

    Attributes
    ----------
    bars_ : pair of matplotlib BarContainer
        Documents of the first class predicted as the second, and the reverse.
    figure_, ax_ : matplotlib Figure and Axes
    """

    ax_: "Axes"
    figure_: "Figure | SubFigure"
    bars_: "tuple[BarContainer, BarContainer]"

    def __init__(
        self,
        pairs: Mapping[str, Sequence[Any]],
        documents: Mapping[str, Sequence[Any]],
        *,
        space: str = "the features",
    ) -> None:
        self.pairs = pairs
        self.documents = documents
        self.space = space

    @classmethod
    def from_estimator(
        cls,
        estimator: Any,
        X: Documents,
        y: ArrayLike,
        *,
        n_pairs: int = 5,
        ax: "Axes | None" = None,
    ) -> Self:
        """Find and draw the pairs of classes that a fitted classifier confuses most often.

        A document is typical of its class if its vector is near to the mean of those documents of
        the class that are predicted right, of at most 100 of them, by the cosine of the angle. The
        vectors are those that `transform` returns. Without a `transform` that works, they are what
        the other steps of a pipeline make of the documents or, for a classifier of texts, TF-IDF.
        All documents are read for the predictions, and at most 100 of each class shown for the
        vectors.

        The words of a class are those whose mean TF-IDF exceeds that in the other class the most.
        Nothing is fitted, and a word that only one document has does not count. So they depend
        little on chance, even if a class has few documents.

        Parameters
        ----------
        estimator : fitted classifier
            A search or pipeline is looked into.
        X, y : documents and their labels
            One label per document.
        n_pairs : int, default=5
            Number of pairs, at least 1.
        ax : matplotlib Axes, default=None
            Axes to draw into. None: those of a new figure.

        Returns
        -------
        ConfusedPairsDisplay

        Raises
        ------
        ValueError
            If documents have several labels, `y` has a label that the classifier does not know, or
            `n_pairs` is less than 1.
        TypeError
            If the estimator is no classifier.

        Examples
        --------
        >>> from sklearn.feature_extraction.text import TfidfVectorizer
        >>> from sklearn.naive_bayes import MultinomialNB
        >>> from sklearn.pipeline import make_pipeline
        >>> from skfocal import ConfusedPairsDisplay
        >>> X = ["green tea", "black tea", "tea leaf", "black coffee", "coffee bean", "ship"]
        >>> y = ["tea", "tea", "tea", "coffee", "coffee", "sea"]
        >>> model = make_pipeline(TfidfVectorizer(), MultinomialNB()).fit(X, y)
        >>> display = ConfusedPairsDisplay.from_estimator(model, X, y)
        >>> print(display)
        tea and sea: 1 document confused (tea as sea 0, sea as tea 1)
          words of tea: tea
          words of sea: none
          typical of tea: row 1: black tea
          typical of tea: row 0: green tea
          typical of sea: row 5: ship
        """
        if not isinstance(n_pairs, int | np.integer) or n_pairs < 1:
            raise ValueError(f"n_pairs must be an int of at least 1. Got {n_pairs!r}.")
        pyplot(cls)  # an import that fails does so before the work
        check_fitted(estimator)
        check_order(X, y=y)
        documents = as_shown(X)
        classes = getattr(estimator, "classes_", None)
        if classes is None or np.ndim(classes) != 1:
            raise TypeError(
                "estimator must be a classifier with predict and one array of classes. "
                f"Got {type(estimator).__name__}."
            )
        classes = np.asarray(classes)
        several = ValueError(
            "ConfusedPairsDisplay needs one label per document. Got a classifier of several: "
            "their errors are not those of one label in place of another."
        )
        if getattr(estimator, "multilabel_", False):
            raise several
        _, codes = encode_known(y, documents, classes, False)
        answers = np.asarray(estimator.predict(X))
        if answers.ndim != 1:
            raise several
        predicted = np.searchsorted(classes, answers)
        display = cls._of(estimator, X, codes, predicted, classes, documents, n_pairs)
        return display.plot(ax=ax)

    @classmethod
    def _of(
        cls,
        estimator: Any,
        X: Documents,
        codes: NDArray[np.int64],
        predicted: NDArray[np.int64],
        classes: NDArray[Any],
        documents: Sequence[str],
        n_pairs: int = 5,
    ) -> Self:
        """Return the display of an estimator without drawing it."""
        support = np.bincount(codes, minlength=len(classes))
        confused = _confused(codes, predicted, support)[:n_pairs]
        shown = list(dict.fromkeys(c for pair, _ in confused for c in pair))
        typical, space = _typical(estimator, X, codes, predicted, documents, shown)
        pairs: dict[str, list[Any]] = {name: [] for name in _PAIR}
        found: dict[str, list[Any]] = {name: [] for name in _DOCUMENT}
        for number, (pair, counts) in enumerate(confused):
            words = _telling_words(*(_texts_of(c, codes, documents) for c in pair))
            _append(pairs, [*classes[list(pair)].tolist(), *counts, *words])
            for c in pair:
                for row, similarity in typical[c]:
                    labels = classes[c : c + 1].tolist(), classes[[predicted[row]]].tolist()
                    (label,), (said,) = labels
                    _append(found, [number, label, row, documents[row], said, similarity])
        return cls(pairs, found, space=space)

    def plot(self, ax: "Axes | None" = None) -> Self:
        """Draw a bar for each pair: how many documents of each class are taken for the other.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Axes to draw into. None: those of a new figure.

        Returns
        -------
        ConfusedPairsDisplay
        """
        self.ax_ = ax = axes_of(self, ax)
        self.figure_ = ax.figure
        columns = (_by_label(self.pairs[name], self.pairs) for name in ("first", "second"))
        y = np.arange(len(self.pairs["first"]))
        one, other = (
            np.array(self.pairs[name], dtype=int) for name in ("first_as_second", "second_as_first")
        )
        style: dict[str, Any] = {"height": 0.6, "edgecolor": "white", "linewidth": 0.6}
        self.bars_ = (
            ax.barh(y, one, color=COLOURS[0], label="first taken for second", **style),
            ax.barh(
                y,
                other,
                left=one,
                color=COLOURS[1],
                hatch="///",
                label="second taken for first",
                **style,
            ),
        )
        ax.set_yticks(y, [_beside(a, b) for a, b in zip(*columns, strict=True)])
        ax.set_ylim(max(len(y), 1) - 0.4, -0.6)
        ax.set(xlabel="documents")
        ax.xaxis.get_major_locator().set_params(integer=True)  # type: ignore[call-arg]
        if len(y):
            ax.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=2, fontsize="small")
        else:
            ax.text(0.5, 0.5, "no errors", ha="center", transform=ax.transAxes)
        return self

    def _repr_html_(self) -> str:
        from skfocal._pages.elements import fragment
        from skfocal.displays._pairs_html import content

        return fragment(content(self))

    def __str__(self) -> str:
        if not self.pairs["first"]:
            return "no class is confused with another"
        lines = []
        rows = [*zip(*self.documents.values(), strict=True)]
        for number, pair in enumerate(zip(*self.pairs.values(), strict=True)):
            first, second, one, other, *words = pair
            n = one + other
            lines.append(
                f"{first} and {second}: {n} document{'s' * (n != 1)} confused "
                f"({first} as {second} {one}, {second} as {first} {other})"
            )
            for label, of in zip((first, second), words, strict=True):
                lines.append(f"  words of {label}: {', '.join(of) or 'none'}")
            for place, label, row, document, _, _ in rows:
                if place == number:
                    text = " ".join(str(document)[:300].split())[:70]
                    lines.append(f"  typical of {label}: row {row}: {text}")
        return "\n".join("".join(c for c in line if c.isprintable()) for line in lines)

    def __repr__(self) -> str:
        found = [*zip(self.pairs["first"], self.pairs["second"], strict=True)]
        return f"<ConfusedPairsDisplay of {excerpts(found)}>"


_PAIR = ("first", "second", "first_as_second", "second_as_first", "first_words", "second_words")
_DOCUMENT = ("pair", "label", "row", "document", "predicted", "similarity")


def _append(columns: dict[str, list[Any]], row: Sequence[Any]) -> None:
    for column, value in zip(columns.values(), row, strict=True):
        column.append(value)


def _beside(a: str, b: str) -> str:
    """Return two names, on two lines if they are long."""
    return f"{a}, {b}" if len(a) + len(b) <= 24 else f"{a},\n{b}"


def _by_label(labels: Sequence[Any], pairs: Mapping[str, Sequence[Any]]) -> list[str]:
    """Return the names of labels in the figure, the same for a label that occurs twice."""
    every = list(dict.fromkeys([*pairs["first"], *pairs["second"]]))
    names = dict(zip(every, names_in_figure(every), strict=True))
    return [names[label] for label in labels]


def _confused(
    codes: NDArray[np.int64], predicted: NDArray[np.int64], support: NDArray[np.int64]
) -> list[tuple[tuple[int, int], tuple[int, int]]]:
    """Return pairs of codes, the more frequent first, and the errors in both directions."""
    wrong = codes != predicted
    errors, counts = np.unique(
        np.stack([codes[wrong], predicted[wrong]], axis=1), axis=0, return_counts=True
    )
    number = {(a, b): n for (a, b), n in zip(errors.tolist(), counts.tolist(), strict=True)}
    pairs = {tuple(sorted(pair, key=lambda c: (-support[c], c))) for pair in number}
    found = [((a, b), (number.get((a, b), 0), number.get((b, a), 0))) for a, b in pairs]

    def order(item: tuple[tuple[int, int], tuple[int, int]]) -> tuple[float, ...]:
        (a, b), of = item
        return -sum(of), int(support[a] + support[b]), a, b  # rare ones first where these are equal

    return sorted(found, key=order)


def _sample(rows: NDArray[np.int64], most: int) -> NDArray[np.int64]:
    """Return at most so many rows, always the same."""
    if len(rows) <= most:
        return rows
    return np.sort(np.random.RandomState(0).choice(rows, most, replace=False))


def _typical(
    estimator: Any,
    X: Documents,
    codes: NDArray[np.int64],
    predicted: NDArray[np.int64],
    documents: Sequence[str],
    shown: Sequence[int],
) -> tuple[dict[int, list[tuple[int, float]]], str]:
    """Return the rows of typical documents of classes, with similarities, and what these are of."""
    rows_by_class = {}
    for c in shown:
        own = np.flatnonzero(codes == c)
        right = own[predicted[own] == c]
        rows_by_class[c] = _sample(right if len(right) else own, _MOST_VECTORS)
    parts = [*rows_by_class.values()]
    rows = np.concatenate(parts) if parts else np.array([], int)
    if not len(rows):
        return {c: [] for c in shown}, ""
    vectors, space = features_of(estimator, rows_of(X, rows))
    typical, start = {}, 0
    for c, of_class in rows_by_class.items():
        own_vectors = vectors[start : (start := start + len(of_class))]
        typical[c] = _nearest(own_vectors, of_class, documents) if len(of_class) else []
    return typical, space


def _nearest(
    vectors: Any, rows: NDArray[np.int64], documents: Sequence[str]
) -> list[tuple[int, float]]:
    """Return the rows of the vectors nearest to their mean, without copies of a document."""
    similarity = similarity_to_mean(vectors)
    found: dict[str, tuple[int, float]] = {}
    for i in np.argsort(-similarity.round(6), kind="stable").tolist():
        found.setdefault(documents[int(rows[i])], (int(rows[i]), float(similarity[i])))
        if len(found) == _TYPICAL:
            break
    return list(found.values())


def _texts_of(c: int, codes: NDArray[np.int64], documents: Sequence[str]) -> list[str]:
    rows = _sample(np.flatnonzero(codes == c), _MOST_READ)
    return [documents[row] for row in rows.tolist()]


def _telling_words(first: Sequence[str], second: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return the words whose mean TF-IDF differs most between two classes, of each of them.

    Other documents of rare classes give the same words more often than with chi-squared or the
    weights of a logistic regression: docs/benchmarks/comparisons.md.
    """
    if not first or not second:
        return [], []
    vectorizer = TfidfVectorizer(sublinear_tf=True, min_df=2)
    try:
        vectors = vectorizer.fit_transform([*first, *second])
    except ValueError:  # no word is in two documents
        return [], []
    parts = vectors[: len(first)], vectors[len(first) :]
    one, other = (np.asarray(part.mean(axis=0)).ravel() for part in parts)
    return _highest(vectorizer, one - other), _highest(vectorizer, other - one)


def _highest(vectorizer: Any, scores: NDArray[np.float64]) -> list[str]:
    words = vectorizer.get_feature_names_out()
    order = np.argsort(-scores.round(9), kind="stable")[:_WORDS]
    return [str(words[i]) for i in order if scores[i] > 0]
