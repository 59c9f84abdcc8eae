"""What a fitted classifier answers about labelled documents: what pages are made from."""

from collections.abc import Iterator
from typing import Any, TypedDict

import numpy as np
from numpy.typing import NDArray
from sklearn.frozen import FrozenEstimator
from sklearn.pipeline import Pipeline
from sklearn.utils import gen_batches

from skfocal._data import labels as _targets
from skfocal._data.labels import Labels
from skfocal._data.texts import Documents, as_texts, join_pairs
from skfocal._utils.messages import excerpts

_CELLS = 20  # the most that are shown of a row that is not a text
_VALUES = 2**20  # of a matrix of documents by classes, as many as are computed with at once


class Answers(TypedDict):
    """The predictions of a classifier, and what else the report is made from."""

    proba: NDArray[np.float64]
    predicted: NDArray[Any]  # codes
    judged: NDArray[np.int64]  # code of the class, or of the worst label, of each document
    focal_proba: NDArray[np.float64]  # of the truth about it, as the loss sees it
    gamma: float
    class_prior: NDArray[np.float64] | None


def innermost(estimator: Any, X: Documents) -> tuple[list[str], Any, Any]:
    """Unwrap searches and pipelines: return their names, the classifier, and its documents."""
    kinds = [type(estimator).__name__]
    while True:
        if hasattr(estimator, "best_estimator_"):
            inner = estimator.best_estimator_
        elif isinstance(estimator, FrozenEstimator):
            inner = estimator.estimator
        elif isinstance(estimator, Pipeline):
            for _, step in estimator.steps[:-1]:
                if hasattr(step, "transform"):  # neither "passthrough" nor a sampler
                    X = step.transform(X)
            inner = estimator.steps[-1][1]
        else:
            return kinds, estimator, X
        estimator = inner
        kinds.append(type(estimator).__name__)


def classes_of(estimator: Any) -> tuple[NDArray[Any], bool | None]:
    """Return the classes, and whether a document can have several labels; None: y decides."""
    if not hasattr(estimator, "predict_proba"):
        raise TypeError(
            "estimator must have predict_proba and, if it is a search, refit=True. "
            f"Got {type(estimator).__name__}."
        )
    classes = estimator.classes_
    if isinstance(classes, list) and len(classes) and np.ndim(classes[0]):
        raise TypeError(
            "estimator must have one array of classes. Got a list of arrays from "
            f"{type(estimator).__name__}: make a report of each of its estimators."
        )
    if is_ours(estimator):
        return classes, estimator.multilabel_
    return np.asarray(classes), getattr(estimator, "multilabel_", None)


def is_ours(estimator: Any) -> bool:
    """Return whether this is a BertFocalClassifier, without importing torch for others."""
    return hasattr(estimator, "effective_class_weight_")


def answers_of(estimator: Any, X: Documents, codes: NDArray[Any]) -> Answers:
    """Return a classifier's answers, and what else the report is made from."""
    gamma, prior = 0, None
    if is_ours(estimator):
        gamma, prior = getattr(estimator.loss_, "gamma", 0), estimator.class_prior_
        proba, predicted, judged, focal_proba = _our_answers(estimator, X, codes, gamma)
    else:
        proba, predicted = estimator.predict_proba(X), np.asarray(estimator.predict(X))
        predicted = predicted.item().toarray() if predicted.ndim == 0 else predicted  # sparse
        predicted = _as_codes(predicted, estimator.classes_)
        parts = [_judged(codes[rows], proba[rows]) for rows in row_slices(proba)]
        judged, focal_proba = map(np.concatenate, zip(*parts, strict=True))
    return {
        "proba": proba,
        "predicted": predicted,
        "judged": judged,
        "focal_proba": focal_proba,
        "gamma": gamma or 1,  # without a gamma, 1 - p
        "class_prior": prior,
    }


def _our_answers(
    estimator: Any, X: Documents, codes: NDArray[Any], gamma: float
) -> tuple[NDArray[Any], ...]:
    """Return probabilities, predictions and what is judged, from one pass over the documents."""
    from skfocal._estimator.fitted_model import plain_calibration, predicting

    plain = plain_calibration(estimator)
    proba = np.empty((len(codes), len(estimator.classes_)))
    parts, start = [], 0
    with predicting(estimator) as model:
        for logits, answers in model.each_answer(X):
            rows = slice(start, start := start + len(logits))
            proba[rows] = answers.predict_proba()
            # The loss weights by the softmax of the logits; predict_proba may undo gamma and alpha.
            seen = plain.answers(logits).predict_proba() if gamma else proba[rows]
            predicted = _as_codes(answers.predict(), estimator.classes_)
            parts.append((predicted, *_judged(codes[rows], seen)))
    predicted, judged, focal_proba = map(np.concatenate, zip(*parts, strict=True))
    return proba, predicted, judged, focal_proba


def own_proba(codes: NDArray[Any], proba: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the probability of the class of each document, or of the truth about each label."""
    if codes.ndim == 2:
        return np.where(codes > 0, proba, 1 - proba)
    own: NDArray[np.float64] = proba[np.arange(len(codes)), codes]
    return own


def _judged(
    codes: NDArray[Any], proba: NDArray[np.float64]
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return the class of each document, or its worst label, and the probability of the truth."""
    own = own_proba(codes, proba)
    if codes.ndim == 1:
        return codes, own
    worst = own.argmin(axis=1)
    return worst, own[np.arange(len(worst)), worst]


def _as_codes(predicted: NDArray[Any], classes: NDArray[Any]) -> NDArray[Any]:
    """Return the codes of predicted labels; of several per document, zeros and ones in bytes."""
    if predicted.ndim == 2:
        return predicted.astype(np.int8)
    codes: NDArray[np.int64] = np.searchsorted(classes, predicted)
    return codes


def row_slices(values: NDArray[Any]) -> Iterator[slice]:
    """Yield slices of the rows of a matrix that hold at most so many values."""
    slices: Iterator[slice] = gen_batches(len(values), max(_VALUES // values.shape[1], 1))
    return slices


def as_shown(X: Documents) -> list[str]:
    """Return each document as one string, with a bar between the columns of a row."""
    try:
        return [*join_pairs(as_texts(X), " | ")]
    except (TypeError, ValueError):
        rows = np.asarray(X, dtype=object)
        if rows.ndim == 0 or len(rows) == 0:
            raise
    return [" | ".join(map(str, np.atleast_1d(row)[:_CELLS])) for row in rows]


def codes_of(
    y: Labels, documents: list[str], classes: NDArray[Any], several: bool | None
) -> NDArray[Any]:
    """Return the codes of labels that a classifier knows; of several labels zeros and ones.

    Raises
    ------
    ValueError
        If there are others.
    """
    try:
        _, codes = _targets.encode(y, documents, classes, several)
    except _targets.UnknownLabels as error:
        raise ValueError(
            "y must hold only labels that the classifier was fitted with, "
            f"{excerpts(classes.tolist())}. Got {excerpts(error.unknown)} as well."
        ) from error
    known: NDArray[Any] = codes.astype(np.int8) if codes.ndim == 2 else codes
    return known
