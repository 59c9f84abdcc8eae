"""An evaluation of a fitted classifier on labelled documents, as tables and as one page."""

import dataclasses
import platform
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from numbers import Integral
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.metrics import (
    accuracy_score,
    average_precision_score,
    confusion_matrix,
    f1_score,
    hamming_loss,
    precision_recall_fscore_support,
)

from skfocal._data import labels as _targets
from skfocal._data.labels import Labels, check_order, encode_known
from skfocal._data.texts import Documents, as_shown, as_texts, take
from skfocal._pages.page import Page
from skfocal._utils.messages import excerpts
from skfocal._utils.optional import import_optional
from skfocal._utils.wrapped import check_fitted, innermost
from skfocal._version import __version__
from skfocal.displays import (
    ClassLossDisplay,
    ConfusedPairsDisplay,
    ReliabilityDisplay,
    TrainingHistoryDisplay,
)
from skfocal.displays._drawing import pyplot
from skfocal.metrics import confidence_bins
from skfocal.report._answers import (
    Answers,
    answers_from,
    answers_of,
    classes_of,
    is_ours,
    own_proba,
    row_slices,
)

if TYPE_CHECKING:
    from skfocal.explanation import Explanation

_PACKAGES = ("skfocal", "scikit-learn", "torch", "transformers", "skorch", "numpy")

_Bins = tuple[NDArray[Any], NDArray[Any], NDArray[Any]]  # counts, confidence, accuracy


class Report(Page):
    """Scores, figures and the hardest documents of a fitted classifier, on one HTML page.

    Use :meth:`BertFocalClassifier.report` or :meth:`from_estimator`. A notebook shows the page;
    :meth:`save` writes it into one file that needs no network and no script. Tables are dicts of
    columns, which ``pandas.DataFrame`` accepts. Rows and columns of classes are sorted by
    frequency in the documents, the most frequent class first.

    Parameters
    ----------
    name : str
        Name of the classifier.
    classes : ndarray of shape (n_classes,)
        Class labels.
    codes : int ndarray of shape (n,) or indicator of shape (n, n_classes)
        The documents' true labels as codes.
    answers : dict
        The classifier's answers for the documents: "predicted", "proba", "judged", "focal_proba",
        "gamma" and "class_prior".
    documents : list of str
        The documents.
    n_hardest : int, default=20
        Number of the hardest documents to show.

    Attributes
    ----------
    labels : ndarray of shape (n_classes,)
        Class labels, the most frequent first.
    overall : dict of str -> float
        Accuracy, F1 and other scores over all documents.
    per_class : dict of str -> ndarray of shape (n_classes,)
        "label"; "train_share", if the classifier knows it; "support", the number of documents;
        "test_share"; "predicted", the number of documents predicted as the class; "precision",
        "recall", "f1" and "average_precision". Scores with a division by zero are NaN.
    confusion_matrix : ndarray of shape (n_classes, n_classes), or None with several labels
        Number of documents by true (row) and predicted (column) class.
    confusions : dict of str -> list
        The ten most frequent errors: "true", "predicted", "documents" and "share", their share
        of the documents of the true class.
    confused_pairs : ConfusedPairsDisplay or None
        The five pairs of classes that are most often confused, not drawn yet; None with several
        labels.
    hardest : dict of str -> list
        The documents with the highest focal weight, in falling order: "row" in X, from 0;
        "document"; "true"; "predicted"; "label", the one that is judged; "probability" of the
        truth about it; and "focal_weight".
    explanation : Explanation or None
        With ``explain=True``, of the hardest documents in their order, each for the class that is
        predicted; with several labels per document, for the label that is judged.
    gamma : float
        Exponent of the focal weight.
    history : dict of str -> list
        "epoch", "train_loss" and, with held-out documents, "valid_loss" and "valid_score". Empty
        for other classifiers.
    params : dict of str -> object
        Parameters of the classifier.
    versions : dict of str -> str
        Versions of Python and of the packages.

    Examples
    --------
    >>> from sklearn.feature_extraction.text import TfidfVectorizer
    >>> from sklearn.linear_model import LogisticRegression
    >>> from sklearn.pipeline import make_pipeline
    >>> from skfocal import Report
    >>> X, y = ["win cash", "win a prize", "lunch", "team lunch"], ["spam", "spam", "ham", "ham"]
    >>> model = make_pipeline(TfidfVectorizer(), LogisticRegression()).fit(X, y)
    >>> report = Report.from_estimator(model, X, y)
    >>> report.overall["accuracy"]
    1.0
    >>> report
    <Report of Pipeline, LogisticRegression: 4 documents, 2 classes>
    """

    def __init__(
        self,
        name: str,
        classes: NDArray[Any],
        codes: NDArray[Any],
        answers: Answers,
        documents: Sequence[str],
        *,
        n_hardest: int = 20,
    ) -> None:
        self.name = name
        self.created = datetime.now(UTC)
        self.multilabel = codes.ndim == 2
        self.gamma = answers["gamma"]
        n = len(classes)
        self._codes, self._predicted, self._proba = codes, answers["predicted"], answers["proba"]
        prior = answers["class_prior"]
        support = _targets.positives(codes, n).astype(np.int64)
        self._order = np.lexsort((np.zeros(n) if prior is None else -prior, -support))
        self.labels = classes[self._order]
        self._reliability = ReliabilityDisplay(*self._bins())
        self.overall = self._overall()
        self.per_class = self._per_class(support, prior)
        self.confusion_matrix: NDArray[np.int64] | None = None
        if not self.multilabel:
            self.confusion_matrix = confusion_matrix(codes, self._predicted, labels=self._order)
        self.confusions = self._confusions()
        self.hardest = self._hardest(classes, documents, answers, n_hardest)
        self.confused_pairs: ConfusedPairsDisplay | None = None
        self.explanation: Explanation | None = None
        self.history: dict[str, list[Any]] = {}
        self.params: dict[str, Any] = {}
        self._defaults: dict[str, Any] = {}
        # Not drawn yet.
        self._training: tuple[TrainingHistoryDisplay, ClassLossDisplay] | None = None
        self.versions = _versions()

    @classmethod
    def from_estimator(
        cls,
        estimator: Any,
        X: Documents,
        y: Labels,
        *,
        n_hardest: int = 20,
        explain: bool = False,
    ) -> Self:
        """Evaluate a fitted classifier.

        The report of a search is that of its best estimator. The report of a pipeline is that of
        its last step, on documents transformed by the other steps. A :class:`BertFocalClassifier`
        reads the documents once, other classifiers for `predict_proba` and again for `predict`. At
        most 100 documents of each class in `confused_pairs` are read once more, for their features.

        Parameters
        ----------
        estimator : fitted classifier with predict_proba
        X, y : documents and their labels
            As the estimator's `predict` and `fit` accept them. Classes may be missing from `y`.
        n_hardest : int, default=20
            Number of the hardest documents to show.
        explain : bool, default=False
            Whether to mark the words of the hardest documents that speak for and against the
            predicted class, as :meth:`BertFocalClassifier.explain` finds them; with several labels,
            the label that the document is judged by.

        Returns
        -------
        Report

        Raises
        ------
        ValueError
            If `y` has a label that the classifier does not know, or `n_hardest` is negative.
        TypeError
            If the classifier has no `predict_proba`, or with ``explain=True`` is not a
            :class:`BertFocalClassifier`.
        ImportError
            If matplotlib is not installed or, with ``explain=True``, captum.
        """
        _check(cls, n_hardest)
        check_fitted(estimator)
        check_order(X, y=y)
        documents = as_shown(X)
        kinds, final, X = innermost(estimator, X)
        if explain and not is_ours(final):
            raise TypeError(
                "explain must be False for other classifiers than BertFocalClassifier. "
                f"Got True for {kinds[-1]}."
            )
        if explain:
            import_optional("captum.attr", "explain", "explain")  # fails before the work
        classes, several = classes_of(final)
        _, codes = encode_known(y, documents, classes, several)
        answers = answers_of(final, X, codes)
        report = cls(", ".join(kinds), classes, codes, answers, documents, n_hardest=n_hardest)
        report._find_confused(final, X, answers, classes, documents)
        if explain and report.hardest["row"]:
            report.explanation = report._explained(final, X)
        if hasattr(final, "get_params"):
            report.params = final.get_params(deep=False)
            report._defaults = _defaults(final)
        if is_ours(final) and len(final.history_):
            report.history = _columns(final.history_)
            report._training = TrainingHistoryDisplay._of(final), ClassLossDisplay._of(final, 9)
        return report

    @classmethod
    def from_predictions(
        cls,
        X: Documents,
        y: Labels,
        proba: ArrayLike,
        *,
        classes: ArrayLike | None = None,
        name: str = "predictions",
        n_hardest: int = 20,
    ) -> Self:
        """Evaluate given probabilities, such as those of a cross-validation.

        In a report on out-of-fold probabilities of the training documents, the hardest documents
        are those with the most doubtful labels.

        Parameters
        ----------
        X, y : documents and their labels
            As :meth:`BertFocalClassifier.fit` accepts them.
        proba : array-like of shape (n, n_classes)
            Probabilities. A document is assigned the class with the highest one or, with several
            labels per document, those above one half.
        classes : array-like of shape (n_classes,), default=None
            Labels of the columns, sorted. None: the sorted labels in `y`.
        name : str, default="predictions"
            Name on the page.
        n_hardest : int, default=20
            Number of the hardest documents to show, those with the smallest probability of the
            truth.

        Returns
        -------
        Report

        Raises
        ------
        ValueError
            If `proba` is not in [0, 1] or has another shape, `y` has a label that is not in
            `classes`, `classes` is not sorted, or `n_hardest` is negative.
        ImportError
            If matplotlib is not installed.

        Examples
        --------
        >>> from sklearn.feature_extraction.text import TfidfVectorizer
        >>> from sklearn.linear_model import LogisticRegression
        >>> from sklearn.model_selection import cross_val_predict
        >>> from sklearn.pipeline import make_pipeline
        >>> from skfocal import Report
        >>> X = ["win cash", "win a prize", "cash prize", "lunch", "team lunch", "win a lunch"]
        >>> y = ["spam", "spam", "spam", "ham", "ham", "ham"]
        >>> model = make_pipeline(TfidfVectorizer(), LogisticRegression())
        >>> proba = cross_val_predict(model, X, y, cv=3, method="predict_proba")
        >>> report = Report.from_predictions(X, y, proba)
        >>> report.hardest["document"][0]
        'win a lunch'
        """
        _check(cls, n_hardest)
        check_order(X, y=y)
        documents = as_shown(X)
        declared = None if classes is None else np.asarray(classes)
        found, codes = encode_known(y, documents, declared, None, "are in classes")
        if declared is not None and not np.array_equal(found, declared):
            raise ValueError(
                "classes must be sorted, each label once, as classes_ of a classifier is. Got "
                f"{excerpts(declared.tolist())}."
            )
        answers = answers_from(proba, codes, len(found))
        report = cls(name, found, codes, answers, documents, n_hardest=n_hardest)
        report._find_confused(None, X, answers, found, documents)
        return report

    # -- tables ----------------------------------------------------------------------------

    def _overall(self) -> dict[str, float]:
        y, predicted, proba = self._codes, self._predicted, self._proba
        accuracy = float(accuracy_score(y, predicted))
        settings: dict[str, Any] = {"zero_division": 0.0}

        def f1(average: str) -> float:
            return float(f1_score(y, predicted, average=average, **settings))

        if self.multilabel:
            losses = [
                -np.log(np.maximum(own, np.finfo(own.dtype).tiny)).sum()
                for rows in row_slices(y)
                for own in [own_proba(y[rows], proba[rows])]
            ]
            return {
                "all labels right": accuracy,
                "F1, macro": f1("macro"),
                "F1, micro": f1("micro"),
                "Hamming loss": float(hamming_loss(y, predicted)),
                "log-loss": float(np.sum(losses) / y.size),
                "calibration error": self._reliability.ece,
            }
        recall = [(predicted[y == c] == c).mean() for c in np.unique(y)]
        # As log_loss has it, which makes a matrix of documents by classes.
        least = np.finfo(proba.dtype).eps
        own = np.clip(own_proba(y, proba), least, 1 - least)
        return {
            "accuracy": accuracy,
            "balanced accuracy": float(np.mean(recall)),
            "F1, macro": f1("macro"),
            "F1, weighted": f1("weighted"),
            "log-loss": float(-np.log(own).mean()),
            "calibration error": self._reliability.ece,
            "always the most frequent class": float(np.bincount(y).max() / len(y)),
        }

    def _bins(self) -> _Bins:
        """Return the bins of a reliability diagram; with several labels, each is a decision."""
        every = np.arange(self._proba.shape[1])
        bins: _Bins = confidence_bins(self._codes, self._proba, classes=every)
        return bins

    def _has(self, c: int) -> NDArray[np.bool_]:
        """Return which documents have the class of a code."""
        has: NDArray[np.bool_] = self._codes[:, c] > 0 if self.multilabel else self._codes == c
        return has

    def _per_class(
        self, support: NDArray[np.int64], prior: NDArray[np.float64] | None
    ) -> dict[str, NDArray[Any]]:
        order = self._order
        settings: dict[str, Any] = {"zero_division": np.nan}
        scores = precision_recall_fscore_support(
            self._codes, self._predicted, labels=np.arange(len(order)), **settings
        )[:3]
        predicted = _targets.positives(self._predicted, len(order))
        average = [
            average_precision_score(self._has(c), self._proba[:, c]) if support[c] else np.nan
            for c in range(len(order))
        ]
        columns: dict[str, NDArray[Any]] = {} if prior is None else {"train_share": prior}
        columns |= {"support": support, "test_share": support / len(self._codes)}
        columns |= {"predicted": predicted.astype(int)}
        columns |= dict(zip(("precision", "recall", "f1"), scores, strict=True))
        columns |= {"average_precision": np.array(average)}
        return {"label": self.labels} | {name: column[order] for name, column in columns.items()}

    def _confusions(self, most: int = 10) -> dict[str, list[Any]]:
        names = ("true", "predicted", "documents", "share")
        if self.confusion_matrix is None:
            return {name: [] for name in names}
        true, predicted = np.nonzero(self.confusion_matrix)  # in the order of the table
        wrong = true != predicted
        true, predicted = true[wrong], predicted[wrong]
        counts, support = self.confusion_matrix[true, predicted], self.per_class["support"]
        rows = [
            (self.labels[i], self.labels[j], int(n), float(n / support[i]))
            for cell in np.argsort(-counts, kind="stable")[:most]
            for i, j, n in [(true[cell], predicted[cell], counts[cell])]
        ]
        return {name: [row[k] for row in rows] for k, name in enumerate(names)}

    def _hardest(
        self,
        classes: NDArray[Any],
        documents: Sequence[str],
        answers: Answers,
        n_hardest: int,
    ) -> dict[str, list[Any]]:
        """Return the documents of the highest focal weight, that of their worst label."""
        focal_proba = answers["focal_proba"]
        # Sorted by the probability: the weight falls with it, but has ties near 1.
        rows = np.argsort(focal_proba, kind="stable")[:n_hardest]
        judged = answers["judged"][rows]
        own = own_proba(self._codes[rows], self._proba[rows])
        if self.multilabel:
            own = own[np.arange(len(rows)), judged]

        def named(codes: NDArray[Any]) -> list[Any]:
            if not self.multilabel:
                return [*classes[codes[rows]].tolist()]
            return [classes[row > 0].tolist() for row in codes[rows]]

        return {
            "row": rows.tolist(),
            "document": [documents[row] for row in rows],
            "true": named(self._codes),
            "predicted": named(self._predicted),
            "label": classes[judged].tolist(),
            "probability": own.tolist(),
            "focal_weight": ((1 - focal_proba[rows]) ** self.gamma).tolist(),
        }

    def _find_confused(
        self,
        estimator: Any,
        X: Documents,
        answers: Answers,
        classes: NDArray[Any],
        documents: Sequence[str],
    ) -> None:
        """Keep the pairs of classes that are confused; without an estimator, by TF-IDF."""
        if not self.multilabel:
            predicted = answers["predicted"]
            self.confused_pairs = ConfusedPairsDisplay._of(
                estimator, X, self._codes, predicted, classes, documents
            )

    def _explained(self, estimator: Any, X: Documents) -> "Explanation":
        """Return an explanation of the hardest documents, with their rows in X."""
        from skfocal.explanation import Explanation

        rows = self.hardest["row"]
        target = self.hardest["label" if self.multilabel else "predicted"]
        found = estimator.explain([*take(as_texts(X), rows)], target)
        documents = [
            dataclasses.replace(document, row=row)
            for document, row in zip(found, rows, strict=True)
        ]
        return Explanation(documents, n_steps=found.n_steps, baseline=found.baseline)

    # -- the page --------------------------------------------------------------------------

    def _title(self) -> str:
        return f"Report of {self.name}"

    def _content(self) -> str:
        from skfocal.report._page import content

        return content(self)

    def __repr__(self) -> str:
        kind = "labels" if self.multilabel else "classes"
        counts = f"{len(self._codes)} documents, {len(self.labels)} {kind}"
        return f"<Report of {self.name}: {counts}>"


def _check(kind: type[Report], n_hardest: int) -> None:
    if not isinstance(n_hardest, Integral) or n_hardest < 0:
        raise ValueError(f"n_hardest must be an int of at least 0. Got {n_hardest!r}.")
    pyplot(kind)


def _defaults(estimator: Any) -> dict[str, Any]:
    try:
        return dict(type(estimator)().get_params(deep=False))
    except TypeError:  # it needs an argument
        return {}


def _columns(history: Iterable[Mapping[str, Any]]) -> dict[str, list[Any]]:
    rows = [dict(row) for row in history]
    names = ("epoch", "train_loss", "valid_loss", "valid_score")
    return {
        name: [row.get(name) for row in rows] for name in names if any(name in row for row in rows)
    }


def _versions() -> dict[str, str]:
    found = {"Python": platform.python_version()}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:  # run from a folder that is not installed
            found[name] = __version__ if name == "skfocal" else "unknown"
    return found
