"""Prediction with a fitted estimator: from texts to logits to predictions."""

import contextlib
import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from sklearn.utils import gen_batches
from sklearn.utils.validation import _num_samples, check_is_fitted

from skfocal._data.document_streams import concatenated, slices
from skfocal._data.texts import Documents, is_stream
from skfocal._data.tokenization import TruncationSpec
from skfocal._data.tokens import CACHED_DOCUMENTS, tokenize
from skfocal._encoder.head import head_of
from skfocal._estimator import advice, build
from skfocal._estimator.inputs import fingerprint, read_documents
from skfocal._estimator.parameters import check_settable
from skfocal._estimator.plan import check_answers
from skfocal._runtime import process_group
from skfocal._runtime.threads import available_threads
from skfocal._training.net import FocalNet
from skfocal.calibration import Calibration, FixedPredictions, prior_offset

_SLICE = 32_768  # documents that are tokenised and sorted together for prediction
_LOGITS = 2**22  # as many as are held at once; with many classes, a slice has fewer documents
_ANSWERS = 2**20  # as many as are computed at once, in float64 and in several steps


@dataclass(frozen=True, eq=False)
class FittedModel:
    """View of a fitted estimator with its current `proba` and `decision`, for prediction.

    Attributes
    ----------
    net : FocalNet
    tokenizer : transformers.PreTrainedTokenizerFast
    truncation : skfocal._data.tokenization.TruncationSpec
        How documents become tokens.
    calibration : skfocal.calibration.Calibration
        How logits become answers.
    precision : {None, "float32", "bfloat16", "int8"}
        Precision of the computation; None: as in training.
    read : callable ``(X) -> texts``
        Returns the documents of X, checked to be of the same kind as in `fit`.
    """

    net: FocalNet
    tokenizer: Any
    truncation: TruncationSpec
    calibration: Calibration
    precision: str | None
    read: Any

    @classmethod
    def of(cls, estimator: Any) -> Self:
        """Return the view of an estimator, checking the parameters that may be set after `fit`.

        Raises
        ------
        sklearn.exceptions.NotFittedError
        ValueError
            If `proba`, `temperature`, `decision`, `prior` or `predict_precision` is wrong.
        """
        check_is_fitted(estimator)
        _check_settings(estimator)
        calibration = present_calibration(estimator)
        return cls(
            estimator.net_,
            estimator.tokenizer_,
            present_truncation(estimator),
            calibration,
            estimator.predict_precision,
            functools.partial(read_documents, estimator, reset=False, pairs=estimator._pairs),
        )

    def answer(self, X: Documents, method: Callable[[FixedPredictions], np.ndarray]) -> np.ndarray:
        """Return the result of a method of the answers, computed slice by slice.

        Parameters
        ----------
        X : container of texts, or iterator of such
        method : callable ``(FixedPredictions) -> ndarray``
        """
        return concatenated([method(answers) for _, answers in self.each_answer(X)])

    def each_answer(self, X: Documents) -> Iterator[tuple[np.ndarray, FixedPredictions]]:
        """Yield the logits of one slice of documents after another, and what they answer."""
        size = max(_ANSWERS // self.n_classes, 1)
        for logits in self._slices(X):
            for rows in gen_batches(len(logits), size):
                yield logits[rows], self.calibration.answers(logits[rows])

    @property
    def n_classes(self) -> int:
        """Number of classes or labels."""
        return len(self.calibration.classes)

    def logits(self, X: Documents) -> np.ndarray:
        """Return the logits of documents, float32 of shape (n, n_classes)."""
        return concatenated(list(self._slices(X)))

    def features(self, X: Documents) -> np.ndarray:
        """Return what the logits of documents are computed from, float32 of shape (n, width)."""
        return concatenated(list(self._slices(X, self.net.features)))

    def _slices(self, X, compute=None):
        """Yield the logits of one slice of documents after another, to bound the memory.

        `compute` gives something else of tokens than the logits.
        """
        processes = process_group.current()
        size = min(_SLICE, max(_LOGITS // self.n_classes, 1))
        for texts in slices(X, self.read, size):
            processes.check_same(X=functools.partial(fingerprint, texts))
            keep = not is_stream(X) and _num_samples(X) <= CACHED_DOCUMENTS
            part = functools.partial(self._part, compute or self.net.logits, texts, keep)
            yield processes.map_rows(len(texts), part)
            del texts, part  # before the next slice is read
        processes.check_same(X=lambda: "its end")

    def _part(self, compute, texts, keep, rows):
        tokens = tokenize(self.tokenizer, texts[rows], self.truncation, keep)
        build.check_ids(self.net.plain_module(), tokens, texts[rows])
        return compute(tokens, self.precision)


@contextlib.contextmanager
def predicting(estimator: Any) -> Iterator[FittedModel]:
    """Let all processes predict together; yield the :class:`FittedModel` of an estimator."""
    with process_group.current().together(), available_threads():
        yield FittedModel.of(estimator)


# -- the current settings for prediction ---------------------------------------------------


def plain_calibration(estimator) -> Calibration:
    """Return how logits become their softmax, and what else could be made of them."""
    return Calibration(
        estimator.loss_, estimator.classes_, estimator.effective_class_weight_, estimator._shift
    )


def present_calibration(estimator) -> Calibration:
    """Return how logits become answers with the present parameters."""
    return Calibration(
        estimator.loss_,
        estimator.classes_,
        estimator.effective_class_weight_,
        estimator._shift,
        proba=estimator.proba_,
        temperature=estimator.temperature_,
        decision=estimator.decision,
        offset=estimator.decision_offset_,
    )


def feature_width(estimator) -> int:
    """Return the number of features of a document."""
    return getattr(*head_of(estimator.net_.plain_module().model)).in_features


def present_truncation(estimator) -> TruncationSpec:
    """Return how documents become tokens in prediction, as in the fit."""
    return build.truncation(
        estimator.net_.plain_module(),
        estimator.tokenizer_,
        estimator.max_length_,
        estimator._pairs,
        estimator._cutting,
    )


def present_offset(estimator) -> np.ndarray | None:
    """Return what the present `decision` adds to log-probabilities."""
    if estimator.decision == "argmax":
        return None
    if estimator.decision == "tuned":
        if estimator._tuned_offset is None:
            raise ValueError("decision='tuned' must be set before fit: it holds documents out.")
        return estimator._tuned_offset
    multilabel = estimator.class_weight_.ndim == 2
    return prior_offset(estimator.prior, estimator.classes_, estimator.class_prior_, multilabel)


def present_temperature(estimator) -> float:
    """Return the temperature of the present `proba`."""
    if estimator.temperature == "auto":
        if estimator.proba_ not in estimator._temperatures:
            raise ValueError("temperature='auto' must be set before fit: it holds documents out.")
        return estimator._temperatures[estimator.proba_]
    return 1.0 if estimator.temperature is None else float(estimator.temperature)


def _check_settings(estimator):
    """Check the parameters that may be set after `fit`; give advice on them once."""
    check_settable(estimator)
    check_answers(estimator, plain_calibration(estimator), estimator.class_prior_)
    present = (estimator.proba_, estimator.decision, estimator.predict_precision)
    if present != estimator._warned_for:
        estimator._warned_for = present
        device = str(estimator.net_.device)
        advice.warn_bfloat16("predict_precision", estimator.predict_precision, device)
        advice.advise_answers(estimator, estimator.proba_, estimator.loss_)
