"""What a fitted classifier answers about labelled documents: what pages are made from."""

from collections.abc import Iterator
from typing import Any, TypedDict

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.utils import check_array, gen_batches

from skfocal._data.texts import Documents
from skfocal._utils.arrays import check_range

_VALUES = 2**20  # of a matrix of documents by classes, as many as are computed with at once


class Answers(TypedDict):
    """The predictions of a classifier, and what else the report is made from."""

    proba: NDArray[np.float64]
    predicted: NDArray[Any]  # codes
    judged: NDArray[np.int64]  # code of the class, or of the worst label, of each document
    focal_proba: NDArray[np.float64]  # of the truth about it, as the loss sees it
    gamma: float
    class_prior: NDArray[np.float64] | None


def answers_from(proba: ArrayLike, codes: NDArray[Any], n_classes: int) -> Answers:
    """Return the answers of given probabilities, decided by the largest, or by one half.

    Raises
    ------
    ValueError
        If they have another shape than documents by classes, or are not in [0, 1].
    """
    p: NDArray[np.float64] = check_array(proba, dtype=np.float64, input_name="proba")
    if p.shape != (len(codes), n_classes):
        raise ValueError(
            f"proba must have the shape (documents, classes), {(len(codes), n_classes)}. "
            f"Got {p.shape}."
        )
    check_range(p)
    several = codes.ndim == 2
    predicted = (p > 0.5).astype(np.int8) if several else p.argmax(axis=1)
    judged, own = _judged_in_slices(codes, p)
    return {
        "proba": p,
        "predicted": predicted,
        "judged": judged,
        "focal_proba": own,
        "gamma": 1,
        "class_prior": None,
    }


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
        found = predictions(estimator, X)
        if found.ndim != codes.ndim:
            kinds = ("one label", "several labels")
            raise ValueError(
                f"y must have {kinds[found.ndim == 2]} per document, as {type(estimator).__name__} "
                f"predicts them. Got {kinds[codes.ndim == 2]}."
            )
        proba = estimator.predict_proba(X)
        predicted = _as_codes(found, estimator.classes_)
        judged, focal_proba = _judged_in_slices(codes, proba)
    return {
        "proba": proba,
        "predicted": predicted,
        "judged": judged,
        "focal_proba": focal_proba,
        "gamma": gamma or 1,  # without a gamma, 1 - p
        "class_prior": prior,
    }


def predictions(estimator: Any, X: Documents) -> NDArray[Any]:
    """Return the predicted labels, or an indicator of them."""
    predicted = np.asarray(estimator.predict(X))
    if predicted.ndim == 0:  # sparse
        return np.asarray(predicted.item().toarray())
    return predicted


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


def _judged_in_slices(
    codes: NDArray[Any], proba: NDArray[np.float64]
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    parts = [_judged(codes[rows], proba[rows]) for rows in row_slices(proba)]
    judged, own = map(np.concatenate, zip(*parts, strict=True))
    return judged, own


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
