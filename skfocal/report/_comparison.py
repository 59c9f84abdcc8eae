"""Two fitted classifiers on the same labelled documents, as tables and as one page."""

from collections.abc import Sequence
from datetime import UTC, datetime
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray
from sklearn.utils import check_random_state

from skfocal._data import labels as _targets
from skfocal._data.labels import (
    Labels,
    UnknownLabels,
    check_order,
    encode,
    encode_known,
    has_names,
    is_indicator,
)
from skfocal._data.texts import Documents, as_shown
from skfocal._pages.page import Page
from skfocal._utils.messages import excerpt, excerpts
from skfocal._utils.wrapped import check_fitted, layers
from skfocal._version import __version__
from skfocal.report._answers import predictions
from skfocal.report._paired import Compared, Outcomes, compared, mcnemar

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_LEAST_RESAMPLES = 100  # whose percentiles are worth the name


def compare_classifiers(
    a: Any,
    b: Any,
    X: Documents,
    y: Labels,
    *,
    names: Sequence[str] = ("A", "B"),
    n_resamples: int = 1000,
    confidence: float = 0.95,
    random_state: int | np.random.RandomState | None = 0,
) -> "ClassifierComparison":
    """Compare two fitted classifiers on the same labelled documents.

    Both may be anything with `predict`: a :class:`BertFocalClassifier`, a search, a pipeline, an
    :class:`OnnxClassifier`. All differences are those of `b` minus `a`.

    Intervals are percentiles of the difference in resamples of the documents, drawn with
    replacement and the same for both classifiers (paired bootstrap). The draws are not stratified
    by class: in another sample of documents, the number of documents of each class would vary, too.

    Parameters
    ----------
    a, b : fitted classifiers
        They need not have been fitted with the same labels. A document whose label one of them does
        not know counts as wrong for that one. One without `classes_` is taken to know all labels.
    X, y : documents and their labels
        As both classifiers' `predict` and `fit` accept them. Documents may have several labels.
    names : sequence of two str, default=("A", "B")
        What the classifiers are called in the tables and on the page.
    n_resamples : int, default=1000
        Number of resamples, at least 100.
    confidence : float, default=0.95
        Confidence level of the intervals, in (0, 1).
    random_state : int, RandomState or None, default=0
        Determines the resamples.

    Returns
    -------
    ClassifierComparison

    Raises
    ------
    ValueError
        If `y` has a label that neither classifier knows, the classifiers have labels of different
        kinds, or a parameter is invalid.
    TypeError
        If `a` or `b` has no `predict`.

    References
    ----------
    Efron and Tibshirani: An Introduction to the Bootstrap, Chapman & Hall, 1993.

    Berg-Kirkpatrick, Burkett and Klein: An Empirical Investigation of Statistical Significance in
    NLP, EMNLP 2012.

    Dietterich: Approximate Statistical Tests for Comparing Supervised Classification Learning
    Algorithms, Neural Computation 10, 1998.

    Examples
    --------
    >>> from sklearn.dummy import DummyClassifier
    >>> from sklearn.feature_extraction.text import TfidfVectorizer
    >>> from sklearn.naive_bayes import MultinomialNB
    >>> from sklearn.pipeline import make_pipeline
    >>> from skfocal import compare_classifiers
    >>> X = ["good film", "fine film", "bad film"] * 5
    >>> y = ["+", "+", "-"] * 4 + ["-", "-", "+"]  # the last three are wrong
    >>> words = make_pipeline(TfidfVectorizer(), MultinomialNB()).fit(X, y)
    >>> comparison = compare_classifiers(DummyClassifier().fit(X, y), words, X, y)
    >>> print(comparison)
    A: DummyClassifier
    B: Pipeline, MultinomialNB
    15 documents, 2 classes
    <BLANKLINE>
    score                 A      B  B - A  interval (95 %)
    accuracy          0.600  0.800 +0.200  -0.067 to +0.467
    balanced accuracy 0.500  0.778 +0.278  +0.028 to +0.500
    F1, macro         0.375  0.785 +0.410  +0.116 to +0.615
    <BLANKLINE>
    right: only A 1, only B 4, both 8, neither 2
    McNemar's exact test: p = 0.375
    """
    _check(names, n_resamples, confidence)
    random = check_random_state(random_state)
    for name, estimator in (("a", a), ("b", b)):
        if not hasattr(estimator, "predict"):
            raise TypeError(
                f"{name} must be a classifier with predict. Got {type(estimator).__name__}."
            )
        check_fitted(estimator)
    check_order(X, y=y)
    stacks = layers(a), layers(b)
    several = _several(*(stack[-1] for stack in stacks))
    documents = as_shown(X)
    known: Any = [_classes_of(stack) for stack in stacks]
    answers: Any = [None, None]
    for i, estimator in enumerate((a, b)):
        if known[i] is None:  # it has no list of its classes
            answers[i] = predictions(estimator, X)
            known[i] = _answered(answers[i], known[1 - i], y, documents)
    classes = _shared(known, several or is_indicator(y), y)
    knows_all = [answer is not None and answer.ndim == 1 for answer in answers]
    if any(knows_all):
        classes = _with_those_of(y, documents, classes, several)
    # Before the predictions, which take long.
    classes, codes = encode_known(y, documents, classes, several, "a or b was fitted with")
    known = [classes if every else own for every, own in zip(knows_all, known, strict=True)]
    for i, estimator in enumerate((a, b)):
        found = predictions(estimator, X) if answers[i] is None else answers[i]
        answers[i] = _codes(found, known[i], classes, codes.ndim == 2)
    comparison = ClassifierComparison(
        classes,
        codes,
        answers,
        documents,
        names=names,
        n_resamples=n_resamples,
        confidence=confidence,
        random_state=random,
    )
    return comparison._described(stacks, known)


class ClassifierComparison(Page):
    """Two classifiers on the same documents: scores, their differences, and who is right where.

    Use :func:`compare_classifiers`. It prints as a table, a notebook shows the page, and
    :meth:`save` writes that into one file that needs no network and no script. Tables are dicts of
    columns, which ``pandas.DataFrame`` accepts. Differences are those of the second classifier
    minus the first. The ends of an interval are NaN where the documents are too few for one: less
    than 10, of the class if it is a score of one, or less than 5 on which the classifiers differ.

    Parameters
    ----------
    classes : ndarray of shape (n_classes,)
        All classes that one of the classifiers knows.
    codes : int ndarray of shape (n,) or indicator of shape (n, n_classes)
        The documents' true labels as codes.
    answers : pair of ndarray
        The same of what each classifier predicts.
    documents : list of str
        The documents.
    names : sequence of two str, default=("A", "B")
        Names of the classifiers.
    n_resamples : int, default=1000
        Number of resamples of the documents.
    confidence : float, default=0.95
        Confidence level of the intervals.
    random_state : int, RandomState or None, default=0
        Determines the resamples.

    Attributes
    ----------
    labels : ndarray of shape (n_classes,)
        Classes, the most frequent in the documents first.
    overall : dict of str -> list
        Scores over all classes: "score", its name; "a" and "b"; "difference", "low" and "high".
        They are accuracy, balanced accuracy and macro-F1 or, with several labels per document,
        the share of documents with all labels right, F1 (macro and micro) and Hamming loss.
    per_class : dict of str -> ndarray of shape (n_classes,)
        "label"; "support", its number of documents; "only_a" and "only_b", those of them that just
        one classifier predicts to have it; and, for "precision", "recall" and "f1", columns such as
        "f1_a", "f1_b", "f1_difference", "f1_low" and "f1_high". Divisions by zero are NaN.
    mcnemar : dict of str -> number
        "only_a" and "only_b", the documents that just one classifier gets right; "both" and
        "neither"; and "p_value" of McNemar's exact test. A document with several labels is right if
        all of them are.
    changed : dict of str -> list
        The documents that the classifiers answer differently, those of rare classes first: "row" in
        X, from 0; "document"; "true"; "a" and "b", what they predict; and "right": "a", "b" or
        "neither".
    unknown : tuple of dict of label -> int
        For each classifier, the labels in the documents that it was not fitted with, and the number
        of their documents.
    params : dict of str -> (object, object)
        Parameters in which the classifiers differ; empty if they are of different types.
    """

    def __init__(
        self,
        classes: NDArray[Any],
        codes: NDArray[Any],
        answers: Sequence[NDArray[Any]],
        documents: Sequence[str],
        *,
        names: Sequence[str] = ("A", "B"),
        n_resamples: int = 1000,
        confidence: float = 0.95,
        random_state: int | np.random.RandomState | None = 0,
    ) -> None:
        self.names = tuple(names)
        self.n_resamples, self.confidence = n_resamples, confidence
        self.created, self.version = datetime.now(UTC), __version__
        self.n_documents = len(codes)
        self.multilabel = codes.ndim == 2
        a, b = answers
        n = len(classes)
        support = _targets.positives(codes, n).astype(np.int64)
        order = np.argsort(-support, kind="stable")
        self.labels = classes[order]
        outcomes = Outcomes.of(codes, a, b, n)
        random = check_random_state(random_state)
        overall, by_class = compared(outcomes, n_resamples, confidence, random)
        self.overall = _rows_of(overall)
        columns = {"support": support} | _found_by_one(codes, a, b, n)
        columns |= {f"{name}_{key}": column for name, key, column in _columns_of(by_class)}
        self.per_class = {"label": self.labels}
        self.per_class |= {name: column[order] for name, column in columns.items()}
        right = [np.all(_rows(codes == answer), axis=1) for answer in (a, b)]
        self.mcnemar = _tested(*right)
        self.changed = _changed(classes, codes, a, b, documents, right, support)
        self.kinds: tuple[str, ...] = ("", "")
        self.unknown: tuple[dict[Any, int], ...] = ({}, {})
        self.params: dict[str, tuple[Any, Any]] = {}

    def _described(self, stacks: Sequence[list[Any]], known: Sequence[NDArray[Any]]) -> Self:
        """Note what the classifiers are, and what they do not know."""
        self.kinds = tuple(", ".join(type(layer).__name__ for layer in s) for s in stacks)
        present = self.per_class["support"] > 0
        counts = zip(self.labels[present].tolist(), self.per_class["support"][present], strict=True)
        found = {label: int(n) for label, n in counts}
        self.unknown = tuple(
            {label: n for label, n in found.items() if label not in set(own.tolist())}
            for own in known
        )
        one, other = (stack[-1] for stack in stacks)
        if type(one) is type(other) and hasattr(one, "get_params"):
            of_one, of_other = one.get_params(deep=False), other.get_params(deep=False)
            self.params = {
                name: (value, of_other.get(name))
                for name, value in of_one.items()
                if excerpt(value, 500) != excerpt(of_other.get(name), 500)
            }
        return self

    # -- shown -----------------------------------------------------------------------------

    def plot(self, ax: "Axes | None" = None, *, score: str = "f1") -> "Axes":
        """Draw the difference in a score of each class, with its interval.

        A point without a line is of a class with too few documents for an interval. Classes
        without documents are left out, and of more than 40, the most frequent are drawn.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Axes to draw into. None: those of a new figure.
        score : {"f1", "precision", "recall"}, default="f1"
            The score.

        Returns
        -------
        matplotlib Axes
        """
        from skfocal.report._comparison_page import draw_differences

        if score not in ("f1", "precision", "recall"):
            raise ValueError(f"score must be 'f1', 'precision' or 'recall'. Got {score!r}.")
        return draw_differences(self, ax, score)

    def _title(self) -> str:
        return f"{self.names[1]} compared with {self.names[0]}"

    def _content(self) -> str:
        from skfocal.report._comparison_page import content

        return content(self)

    def __str__(self) -> str:
        a, b = self.names
        lines = [f"{name}: {kind}" for name, kind in zip(self.names, self.kinds, strict=True)]
        lines += [self._counted(), ""]
        head = ("score", a, b, f"{b} - {a}", f"interval ({100 * self.confidence:g} %)")
        rows = [head]
        for name, one, other, difference, low, high in zip(*self.overall.values(), strict=True):
            ends = "-" if np.isnan(low) else f"{low:+.3f} to {high:+.3f}"
            rows.append((name, f"{one:.3f}", f"{other:.3f}", f"{difference:+.3f}", ends))
        first, *widths = (max(map(len, column)) for column in zip(*rows, strict=True))
        for name, *cells, ends in rows:
            columns = (f"{cell:>{max(w, 6)}}" for cell, w in zip(cells, widths, strict=False))
            lines.append(f"{name:{first}}{' '.join(columns)}  {ends}")
        return "\n".join([*lines, "", *self._tested()])

    def _counted(self) -> str:
        n, k = self.n_documents, len(self.labels)
        kind = "labels" if self.multilabel else "classes"
        return f"{n} document{'s' * (n != 1)}, {k} {kind}"

    def _tested(self) -> list[str]:
        a, b = self.names
        test = self.mcnemar
        return [
            f"right: only {a} {test['only_a']}, only {b} {test['only_b']}, both {test['both']}, "
            f"neither {test['neither']}",
            f"McNemar's exact test: p = {test['p_value']:.3g}",
        ]

    def __repr__(self) -> str:
        return f"<ClassifierComparison of {' and '.join(self.names)}: {self._counted()}>"


# -- what is compared ----------------------------------------------------------------------


def _check(names: Any, n_resamples: Any, confidence: Any) -> None:
    two = isinstance(names, Sequence | np.ndarray) and len(names) == 2
    right = two and all(isinstance(name, str) and name.strip() for name in names)
    if isinstance(names, str) or not right or names[0] == names[1]:
        raise ValueError(f"names must be two different strings that are not empty. Got {names!r}.")
    if not isinstance(n_resamples, Integral) or n_resamples < _LEAST_RESAMPLES:
        raise ValueError(
            f"n_resamples must be an int of at least {_LEAST_RESAMPLES}. Got {n_resamples!r}."
        )
    if not isinstance(confidence, Real) or not 0 < float(confidence) < 1:
        raise ValueError(f"confidence must be in (0, 1). Got {confidence!r}.")


def _several(a: Any, b: Any) -> bool | None:
    """Return whether documents have several labels; None: y decides."""
    kinds = [getattr(x, "multilabel_", None) for x in (a, b)]
    if None not in kinds and kinds[0] != kinds[1]:
        one, other = ("several labels" if kind else "one label" for kind in kinds)
        raise ValueError(
            "a and b must both predict one label per document, or both several. "
            f"Got {one} from a and {other} from b."
        )
    return kinds[1] if kinds[0] is None else kinds[0]


def _classes_of(stack: Sequence[Any]) -> NDArray[Any] | None:
    """Return the classes of the outermost layer that has them, or None."""
    for layer in stack:
        classes = getattr(layer, "classes_", None)
        if classes is not None:
            if isinstance(classes, list) and len(classes) and np.ndim(classes[0]):
                raise TypeError(
                    "a and b must each have one array of classes. Got a list of arrays from "
                    f"{type(layer).__name__}: compare its estimators one by one."
                )
            return np.asarray(classes)
    return None


def _answered(
    answers: NDArray[Any], of_other: NDArray[Any] | None, y: Labels, documents: Sequence[str]
) -> NDArray[Any]:
    """Return the classes that answers are of, where a classifier has no list of them."""
    if answers.ndim == 1:
        return np.unique(answers)
    classes: NDArray[Any] = encode(y, documents, None, True)[0] if of_other is None else of_other
    if len(classes) != answers.shape[1]:
        raise ValueError(
            f"a and b must predict an indicator with a column for each label, {len(classes)}, if "
            f"they have no classes_. Got {answers.shape[1]} columns from one of them."
        )
    return classes


def _with_those_of(
    y: Labels, documents: Sequence[str], classes: NDArray[Any], several: bool | None
) -> NDArray[Any]:
    """Return the classes and those of y, if these are of the same kind."""
    try:
        encode(y, documents, classes, several)
    except UnknownLabels as error:
        unknown = np.asarray(error.unknown)
        if len(unknown) and _kind(unknown) == _kind(classes):
            return np.unique(np.concatenate([classes, unknown]))
    return classes


def _kind(classes: NDArray[Any]) -> str:
    first = classes.ravel()[0]
    if isinstance(first, bool | np.bool_):
        return "bool"
    return "str" if isinstance(first, str) else "numbers"


def _shared(known: Sequence[NDArray[Any]], several: bool, y: Labels) -> NDArray[Any]:
    """Return all classes; those of several labels in the order of the first classifier."""
    one, other = known
    kinds = _kind(one), _kind(other)
    if kinds[0] != kinds[1]:
        raise ValueError(
            f"a and b must have labels of one kind. Got {kinds[0]} from a and {kinds[1]} from b."
        )
    if not several:
        return np.unique(np.concatenate([one, other]))
    unnamed = is_indicator(y) and not has_names(y)
    if one.tolist() != other.tolist() and unnamed:
        raise ValueError(
            "y must name its labels, as a DataFrame or as a collection of labels for each "
            "document, because the labels of a and b are not the same in the same order. "
            f"Got {type(y).__name__}."
        )
    return np.concatenate([one, other[~np.isin(other, one)]])


def _codes(
    predicted: NDArray[Any], own: NDArray[Any], classes: NDArray[Any], several: bool
) -> NDArray[Any]:
    """Return predictions in the codes of all classes."""
    if (predicted.ndim == 2) != several:
        kinds = ("one label", "several labels")
        raise ValueError(
            f"a and b must predict what y has, {kinds[several]} per document. "
            f"Got {kinds[predicted.ndim == 2]} from one of them."
        )
    if not several:
        codes: NDArray[Any] = np.searchsorted(classes, predicted)
        codes = np.minimum(codes, len(classes) - 1)
        if (strange := predicted[classes[codes] != predicted]).size:
            raise ValueError(
                f"a and b must predict only labels of their classes_, {excerpts(own.tolist())}. "
                f"Got {excerpt(strange.tolist()[0])}."
            )
        return codes
    place = {label: i for i, label in enumerate(classes.tolist())}
    indicator = np.zeros((len(predicted), len(classes)), np.int8)
    indicator[:, [place[label] for label in own.tolist()]] = predicted
    return indicator


# -- tables ----------------------------------------------------------------------------------


def _rows_of(scores: dict[str, Compared]) -> dict[str, list[Any]]:
    columns = zip(*scores.values(), strict=True)
    return {"score": [*scores]} | dict(zip(Compared._fields, map(list, columns), strict=True))


def _columns_of(scores: dict[str, Compared]) -> list[tuple[str, str, NDArray[np.float64]]]:
    return [
        (name, key, column)
        for name, values in scores.items()
        for key, column in zip(Compared._fields, values, strict=True)
    ]


def _rows(values: NDArray[np.bool_]) -> NDArray[np.bool_]:
    return values.reshape(len(values), -1)


def _found_by_one(
    codes: NDArray[Any], a: NDArray[Any], b: NDArray[Any], n: int
) -> dict[str, NDArray[np.int64]]:
    """Return how many documents of each class just one classifier predicts to have it."""
    if codes.ndim == 2:
        hits = (codes > 0) & (a > 0), (codes > 0) & (b > 0)
        one, other = (hits[0] & ~hits[1]).sum(0), (hits[1] & ~hits[0]).sum(0)
    else:
        right = a == codes, b == codes
        one, other = (
            np.bincount(codes[mine & ~others], minlength=n) for mine, others in (right, right[::-1])
        )
    return {"only_a": one, "only_b": other}


def _tested(a: NDArray[np.bool_], b: NDArray[np.bool_]) -> dict[str, Any]:
    only_a, only_b = int((a & ~b).sum()), int((b & ~a).sum())
    return {
        "only_a": only_a,
        "only_b": only_b,
        "both": int((a & b).sum()),
        "neither": int((~a & ~b).sum()),
        "p_value": mcnemar(only_a, only_b),
    }


def _changed(
    classes: NDArray[Any],
    codes: NDArray[Any],
    a: NDArray[Any],
    b: NDArray[Any],
    documents: Sequence[str],
    right: Sequence[NDArray[np.bool_]],
    support: NDArray[np.int64],
) -> dict[str, list[Any]]:
    """Return the documents that are answered differently, those of rare classes first."""
    rows = np.flatnonzero(_rows(a != b).any(axis=1))
    if codes.ndim == 2:
        has = np.where(codes[rows] > 0, support, len(codes) + 1)
        frequency = has.min(axis=1)
    else:
        frequency = support[codes[rows]]
    rows = rows[np.argsort(frequency, kind="stable")]

    def named(of: NDArray[Any]) -> list[Any]:
        if of.ndim == 1:
            return [*classes[of[rows]].tolist()]
        return [classes[row > 0].tolist() for row in of[rows]]

    sides = np.where(right[0][rows], "a", np.where(right[1][rows], "b", "neither"))
    return {
        "row": rows.tolist(),
        "document": [documents[row] for row in rows.tolist()],
        "true": named(codes),
        "a": named(a),
        "b": named(b),
        "right": sides.tolist(),
    }
