"""Compare losses and class weights on the same folds, with confidence intervals."""

import html
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from numbers import Integral
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats
from sklearn.base import clone, is_classifier
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import (
    accuracy_score,
    average_precision_score,
    balanced_accuracy_score,
    f1_score,
    log_loss,
    precision_recall_fscore_support,
)
from sklearn.model_selection import check_cv, cross_validate
from sklearn.multiclass import OneVsRestClassifier
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.utils import column_or_1d
from sklearn.utils.multiclass import type_of_target
from tqdm.auto import tqdm

from skfocal._data.labels import check_plain, encode, strata
from skfocal._data.texts import as_texts, is_missing, join_pairs
from skfocal._storage.renamed import OLD
from skfocal._utils.optional import import_optional
from skfocal.metrics import expected_calibration_error

if TYPE_CHECKING:
    import pandas as pd

Parameters: TypeAlias = Mapping[str, Any]
PER_CLASS = ("precision", "recall", "f1")
BASELINE = "cross-entropy"
FROZEN = "frozen encoder, balanced"


def compare_losses(
    estimator: Any,
    X: Any,
    y: ArrayLike,
    settings: Mapping[str, Parameters] | Iterable[Parameters],
    *,
    cv: Any = 5,
    groups: ArrayLike | None = None,
    random_states: Sequence[int] = (0,),
    baselines: bool | Mapping[str, Any] = True,
    confidence: float = 0.95,
    n_jobs: int | None = None,
    verbose: int = 1,
) -> "LossComparison":
    """Cross-validate each setting on the same folds; return all scores with their intervals.

    Parameters
    ----------
    estimator : BertFocalClassifier or Pipeline that ends in one
        The estimator to which the settings apply.
    X, y : as in ``estimator.fit``
        Documents and their labels, one or several per document.
    settings : dict of str to dict, or iterable of dict
        The parameters of each candidate, written as for GridSearchCV. The keys are the names in
        the table. Without names (a list, a ``ParameterGrid``), the parameters serve as the name.
    cv : int or cross-validation splitter, default=5
        It splits once, so that all settings and random states use the same folds. An int stands
        for folds that are stratified by class or, of several labels, by the rarest.
    groups : array-like of shape (n,), default=None
        Groups for `cv`.
    random_states : sequence of int, default=(0,)
        Each setting is fitted once per random state on each fold.
    baselines : bool or dict of str to estimator, default=True
        Estimators to compare with. True: plain cross-entropy (no class weights, sampler or
        second fit of the head; other parameters are those of the estimator), the
        mean of the pretrained encoder's tokens with a balanced linear layer (``max_epochs=0,
        refit_head="balanced"``), and TF-IDF with logistic regression, once without and once with
        balanced class weights.
    confidence : float, default=0.95
        Confidence level of the intervals, in (0, 1).
    n_jobs : int, default=None
        As in ``cross_validate``.
    verbose : int, default=1
        0 hides the progress bar.

    Returns
    -------
    LossComparison

    Raises
    ------
    ValueError
        If there is no setting, a setting has an unknown parameter or an invalid value, two settings
        have the same name, the estimator is not a classifier, or `random_states` or `confidence` is
        invalid.
    TypeError
        If an estimator has no ``predict_proba``.

    Examples
    --------
    >>> from sklearn.feature_extraction.text import TfidfVectorizer
    >>> from sklearn.linear_model import LogisticRegression
    >>> from sklearn.pipeline import make_pipeline
    >>> from skfocal import compare_losses
    >>> X = ["good film", "fine film", "bad film", "awful film"] * 5
    >>> y = ["+", "+", "-", "-"] * 5
    >>> linear = make_pipeline(TfidfVectorizer(), LogisticRegression())
    >>> comparison = compare_losses(
    ...     linear, X, y, [{"logisticregression__C": 1}], baselines=False, cv=2, verbose=0
    ... )
    >>> comparison.interval("logisticregression__C=1", "accuracy")
    (1.0, 1.0, 1.0)
    """
    if not is_classifier(estimator):
        raise ValueError(f"estimator must be a classifier. Got {type(estimator).__name__}.")
    if np.ndim(random_states) != 1 or len(random_states) == 0:
        raise ValueError(
            f"random_states must be a sequence of at least one int. Got {random_states!r}."
        )
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must be in (0, 1). Got {confidence!r}.")
    candidates = _candidates(estimator, settings)
    several = _has_several(y)
    for name, baseline in _baselines(estimator, baselines, several).items():
        candidates.setdefault(name, clone(baseline))
    _check_candidates(candidates)
    classes, y, counts = (_labels if several else _classes)(candidates.values(), X, y)
    by = strata(y) if several and isinstance(cv, Integral | None) else y
    folds = list(check_cv(cv, by, classifier=True).split(X, by, groups))
    scorer = _Scores(classes, several)
    scores_of = _cross_validated(candidates, X, y, folds, scorer, random_states, n_jobs, verbose)
    means = {
        name: {metric: np.array(rows).mean(axis=0) for metric, rows in metrics.items()}
        for name, metrics in scores_of.items()
    }
    ratio = float(np.mean([len(test) / len(train) for train, test in folds]))
    return LossComparison(means, classes, counts, ratio, confidence)


def _cross_validated(
    candidates: Mapping[str, Any],
    X: Any,
    y: Any,
    folds: Any,
    scorer: "_Scores",
    random_states: Sequence[int],
    n_jobs: int | None,
    verbose: int,
) -> dict[str, dict[str, list[NDArray[np.float64]]]]:
    """Return for each candidate and metric the scores of the folds, an array per random state.

    What takes seconds is fitted first: it shows what is wrong with the folds or the labels.
    """
    scores_of: dict[str, dict[str, list[NDArray[np.float64]]]] = {name: {} for name in candidates}
    quick_first = sorted(candidates, key=lambda name: _ours(candidates[name]) is not None)
    jobs = [(name, seed) for name in quick_first for seed in random_states]
    for name, seed in tqdm(jobs, disable=not verbose, desc="settings", unit="fit"):
        model = clone(candidates[name])
        model.set_params(**dict.fromkeys(_ending(model, "random_state"), seed))
        scores = cross_validate(
            model, X, y, cv=folds, scoring=scorer, n_jobs=n_jobs, error_score="raise"
        )
        for key, values in scores.items():  # the others are times
            if key.startswith("test_"):
                scores_of[name].setdefault(key.removeprefix("test_"), []).append(values)
    return scores_of


def _candidates(
    estimator: Any, settings: Mapping[str, Parameters] | Iterable[Parameters]
) -> dict[str, Any]:
    """Return an estimator with each of the settings, by name."""
    if isinstance(settings, Mapping):
        items = list(settings.items())
    else:
        items = [
            (", ".join(f"{k}={v!r}" for k, v in setting.items()), setting) for setting in settings
        ]
    if not items:
        raise ValueError("settings must hold at least one setting. Got none.")
    names = [name for name, _ in items]
    if len(set(names)) < len(names):
        twice = sorted({name for name in names if names.count(name) > 1})
        raise ValueError(f"settings must have different names. Got {twice} more than once.")
    known = set(estimator.get_params())
    for name, setting in items:
        # set_params judges old names, and nested settings of a value in its short form.
        unknown = sorted(n for n in set(setting) - known if not _may_be(n, known))
        if unknown:
            raise ValueError(f"settings: {name!r} has unknown parameters {unknown}.")
    return {name: clone(estimator).set_params(**setting) for name, setting in items}


def _may_be(name: str, known: set[str]) -> bool:
    """Say whether a name that `get_params` does not list may be a parameter all the same."""
    owner, _, last = name.rpartition("__")
    return owner in known or last in OLD


def _ending(model: Any, *names: str) -> list[str]:
    """Return the parameters with one of these names, of the model or of its steps."""
    return [
        key for key in model.get_params() if any(key == n or key.endswith(f"__{n}") for n in names)
    ]


def _baselines(
    estimator: Any, baselines: bool | Mapping[str, Any], several: bool
) -> Mapping[str, Any]:
    if isinstance(baselines, Mapping):
        return baselines
    if not baselines:
        return {}
    plain: dict[str, Any] = dict.fromkeys(_ending(estimator, "alpha", "sampler", "loss_params"))
    if all(estimator.get_params()[name] for name in _ending(estimator, "max_epochs")):
        plain |= dict.fromkeys(_ending(estimator, "refit_head"))
    plain |= dict.fromkeys(_ending(estimator, "loss"), "cross_entropy")
    plain |= dict.fromkeys(_ending(estimator, "defer"), 0.0)
    return {
        BASELINE: clone(estimator).set_params(**plain),
        **_frozen(estimator),
        "TF-IDF": _tfidf(several, class_weight=None),
        "TF-IDF, balanced": _tfidf(several, class_weight="balanced"),
    }


def _last(model: Any) -> Any:
    """Return the last step of a pipeline, and any other estimator as it is."""
    return model.steps[-1][1] if isinstance(model, Pipeline) else model


def _ours(model: Any) -> Any:
    """Return the BertFocalClassifier that a model is or ends in, or None."""
    last = _last(model)
    return last if "refit_head" in last.get_params() else None


def _check_candidates(candidates: Mapping[str, Any]) -> None:
    """Raise before the first fit what the last one would raise."""
    for name, model in candidates.items():
        # A stack of an estimator that it has not chosen yet has the method once it is fitted.
        is_open = getattr(_last(model), "final_estimator", 0) is None
        if not (hasattr(model, "predict_proba") or is_open):
            raise TypeError(
                f"{name!r} must have predict_proba, which the scores are computed from. "
                f"Got {type(model).__name__} without it."
            )
        if (own := _ours(model)) is not None:
            from skfocal._estimator.parameters import validate  # which needs torch

            validate(own)


def _classes(models: Iterable[Any], X: Any, y: Any) -> tuple[Any, Any, Any]:
    """Return the classes, of y or declared by one of the models, y and their counts."""
    y = column_or_1d(y, warn=True) if np.ndim(y) == 2 else y
    labels = np.asarray(y)
    if isinstance(y, list | tuple) or labels.dtype.kind == "O":
        check_plain(y)
    if labels.dtype.kind == "O":
        y = np.array(labels.tolist())  # scikit-learn reads no numbers among objects
    found, n = np.unique(y, return_counts=True)
    classes = np.unique([*found, *_declared(models)])
    counts = np.zeros(len(classes), dtype=np.int64)
    counts[np.searchsorted(classes, found)] = n
    return classes, y, counts


def _labels(models: Iterable[Any], X: Any, y: Any) -> tuple[Any, Any, Any]:
    """Return the labels, an indicator and their counts; name its columns to the models."""
    models = list(models)
    labels, codes = encode(y, X, _declared(models) or None)
    y = codes.astype(np.int64)  # a form that all of scikit-learn reads, but without names
    for own in filter(None, map(_ours, models)):
        own.set_params(classes=labels)
    return labels, y, y.sum(axis=0)


def _declared(models: Iterable[Any]) -> list[Any]:
    given = [own.classes for own in map(_ours, models) if own is not None]
    return list(dict.fromkeys(c for classes in given if classes is not None for c in classes))


def _has_several(y: Any) -> bool:
    """Say whether documents have several labels: an indicator, or collections of labels.

    True also where labels are missing, for which :func:`encode` then names the row.
    """
    try:
        kind = type_of_target(y)
    except (TypeError, ValueError):  # it refuses lists of lists, and labels that are missing
        return True
    if kind == "unknown":  # objects, which may be numbers
        return any(np.ndim(row) or isinstance(row, Set) or is_missing(row) for row in y)
    return bool(kind == "multilabel-indicator")


def _frozen(estimator: Any) -> dict[str, Any]:
    """Return the pretrained encoder with nothing but a balanced linear layer fitted to it."""
    frozen = clone(estimator)
    encoder = _ours(frozen)
    if encoder is None:
        return {}
    from skfocal._encoder.pretrained import has_decoder

    settings: dict[str, Any] = {"max_epochs": 0, "refit_head": "balanced", "loss": "cross_entropy"}
    settings |= dict.fromkeys(
        ("alpha", "sampler", "loss_params", "peft", "checkpoint", "eval_steps", "callbacks")
    )
    settings |= {"defer": 0.0, "early_stopping": False, "long_documents": "truncate"}
    # Code of the model's own may hide its tokens.
    if not (encoder.trust_remote_code or has_decoder(encoder.model)):
        settings["pooling"] = "mean"
    encoder.set_params(**settings)
    return {FROZEN: frozen}


def _documents(X: Any) -> Any:
    """Return one string per document, of a pair of texts too."""
    return join_pairs(as_texts(X), "\n")


def _tfidf(several: bool, class_weight: Literal["balanced"] | None) -> Any:
    linear = LogisticRegression(class_weight=class_weight, max_iter=1000)
    return make_pipeline(
        FunctionTransformer(_documents),
        TfidfVectorizer(),
        OneVsRestClassifier(linear) if several else linear,
    )


class _Scores:
    """A scorer that computes all metrics at once.

    A class that is absent from the training fold gets probability 0, so that every score is
    finite.
    """

    def __init__(self, classes: NDArray[Any], several: bool) -> None:
        self.classes = classes
        self.several = several

    def __call__(self, estimator: Any, X: Any, y: Any) -> dict[str, float]:
        found = estimator.predict_proba(X)
        if isinstance(found, list):
            raise TypeError(
                "predict_proba must return one array. Got a list of arrays, one for each label: "
                f"wrap {type(estimator).__name__} in OneVsRestClassifier."
            )
        predicted = estimator.predict(X)  # a tuned decision may differ from the largest probability
        if self.several:
            return _scores_of_labels(y, predicted, found)
        proba = np.zeros((len(y), len(self.classes)))
        proba[:, np.searchsorted(self.classes, estimator.classes_)] = found
        return _scores_of_classes(y, predicted, proba, self.classes)


def _scores_of_classes(y: Any, predicted: Any, proba: Any, classes: Any) -> dict[str, float]:
    each = precision_recall_fscore_support(y, predicted, labels=classes, zero_division=0)
    return {
        **_macro(each, np.asarray(y)[:, None] == classes, proba),
        "balanced_accuracy": balanced_accuracy_score(y, predicted),
        "accuracy": accuracy_score(y, predicted),
        "log_loss": log_loss(y, proba, labels=classes),
        "ece": expected_calibration_error(y, proba, classes=classes),
        **_by_class(each),
    }


def _scores_of_labels(y: Any, predicted: Any, proba: Any) -> dict[str, float]:
    each = precision_recall_fscore_support(y, predicted, zero_division=0)
    losses = [log_loss(*columns, labels=[0, 1]) for columns in zip(y.T, proba.T, strict=True)]
    return {
        **_macro(each, y > 0, proba),
        "f1_micro": f1_score(y, predicted, average="micro", zero_division=0),
        "accuracy": accuracy_score(y, predicted),
        "log_loss": np.mean(losses),
        "ece": expected_calibration_error(y, proba),
        **_by_class(each),
    }


def _macro(each: Any, truth: Any, proba: Any) -> dict[str, float]:
    """Return the means over the classes that the fold has."""
    present = truth.any(axis=0)
    precision = average_precision_score(truth[:, present], proba[:, present])
    return {"f1_macro": each[2][present].mean(), "average_precision": precision}


def _by_class(each: Any) -> dict[str, float]:
    rows = zip(PER_CLASS, each, strict=False)
    return {f"{metric}:{i}": value for metric, row in rows for i, value in enumerate(row)}


class LossComparison:
    """Scores of each setting on each fold; it prints as a table, best macro-F1 first.

    Attributes
    ----------
    values : dict of str to dict of str to ndarray of shape (n_folds,)
        Scores by setting and metric, averaged over the random states. The metrics are "f1_macro"
        (over the classes in the fold), "average_precision" (macro, one against the rest),
        "balanced_accuracy", "accuracy", "log_loss", "ece" and, for each class in the order of
        `classes`, "precision:0", "recall:0", "f1:0" and so on. With several labels per document,
        "f1_micro" takes the place of "balanced_accuracy", "accuracy" is the share of documents
        whose labels are all right, and "log_loss" is the mean over the labels.
    classes : ndarray of shape (n_classes,)
        Labels.
    counts : ndarray of shape (n_classes,)
        Number of documents of each class.
    test_ratio : float
        Number of test documents divided by the number of training documents, averaged over the
        folds.
    confidence : float
        Confidence level of the intervals.
    """

    def __init__(
        self,
        values: dict[str, dict[str, NDArray[np.float64]]],
        classes: NDArray[Any],
        counts: NDArray[np.int64],
        test_ratio: float,
        confidence: float,
    ) -> None:
        self.values = values
        self.classes = classes
        self.counts = counts
        self.test_ratio = test_ratio
        self.confidence = confidence

    def interval(
        self, name: str, metric: str, baseline: str | None = None
    ) -> tuple[float, float, float]:
        """Return the mean and both ends of the interval of a metric, or of a difference in it.

        Folds share training documents, so their scores are not independent. With ``k`` folds, the
        variance of the mean is taken as ``(1 / k + n_test / n_train) s**2`` instead of
        ``s**2 / k``, with Student's t of ``k - 1`` degrees of freedom. Scores are first averaged
        over the random states within each fold: another random state makes the score of a fold
        less noisy but does not count as another fold.

        Parameters
        ----------
        name, metric : str
            A setting and a metric, as in `values`.
        baseline : str, default=None
            Another setting, whose score is subtracted fold by fold.

        Returns
        -------
        mean, lower, upper : float
            With a single fold, the ends are NaN.

        Raises
        ------
        ValueError
            If there is no such setting or metric.

        References
        ----------
        Nadeau and Bengio: Inference for the Generalization Error, Machine Learning 52, 2003.
        """
        for setting in (name,) if baseline is None else (name, baseline):
            if setting not in self.values:
                raise ValueError(f"settings are {list(self.values)}. Got {setting!r}.")
        if metric not in self.values[name]:
            raise ValueError(f"metric must be one of {list(self.values[name])}. Got {metric!r}.")
        scores = self.values[name][metric]
        if baseline is not None:
            scores = scores - self.values[baseline][metric]
        k = len(scores)
        mean = float(scores.mean())
        if k < 2:
            return mean, float("nan"), float("nan")
        error = np.sqrt((1 / k + self.test_ratio) * scores.var(ddof=1))
        half = float(stats.t.ppf((1 + self.confidence) / 2, k - 1) * error)
        return mean, mean - half, mean + half

    def rows(self) -> list[dict[str, Any]]:
        """Return a dict per setting and metric: mean, ends, difference to plain cross-entropy."""
        result = []
        for name in self._order():
            for metric in self.values[name]:
                kind, _, i = metric.partition(":")
                row: dict[str, Any] = {"setting": name, "metric": kind}
                row["class"] = self.classes[int(i)] if i else None
                row |= dict(
                    zip(("mean", "lower", "upper"), self.interval(name, metric), strict=True)
                )
                if BASELINE in self.values:
                    ends = self.interval(name, metric, BASELINE)
                    names = ("difference", "difference_lower", "difference_upper")
                    row |= dict(zip(names, ends, strict=True))
                result.append(row)
        return result

    def _order(self) -> list[str]:
        return sorted(self.values, key=lambda name: float(-self.values[name]["f1_macro"].mean()))

    def _cells(self) -> Iterator[list[str]]:
        """Yield the rows of the table, the header first."""
        metrics = [metric for metric in next(iter(self.values.values())) if ":" not in metric]
        yield ["setting", *metrics] + (
            ["f1_macro - " + BASELINE] if BASELINE in self.values else []
        )
        for name in self._order():
            row = [name, *(_cell(self.interval(name, metric)) for metric in metrics)]
            if BASELINE in self.values:
                row.append(
                    "" if name == BASELINE else _cell(self.interval(name, "f1_macro", BASELINE))
                )
            yield row

    def __str__(self) -> str:
        cells = list(self._cells())
        widths = [max(len(row[i]) for row in cells) for i in range(len(cells[0]))]
        lines = [
            "| " + " | ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)) + " |"
            for row in cells
        ]
        lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        head, *body = [[html.escape(cell) for cell in row] for row in self._cells()]
        rows = "".join("<tr><td>" + "</td><td>".join(row) + "</td></tr>" for row in body)
        return f"<table><tr><th>{'</th><th>'.join(head)}</th></tr>{rows}</table>"

    def to_frame(self) -> "pd.DataFrame":
        """Return :meth:`rows` as a pandas DataFrame."""
        frame: pd.DataFrame = import_optional("pandas", "to_frame").DataFrame(self.rows())
        return frame


def _cell(interval: tuple[float, float, float]) -> str:
    mean, lower, _ = interval
    return f"{mean:.3f}" if np.isnan(lower) else f"{mean:.3f} ± {mean - lower:.3f}"
