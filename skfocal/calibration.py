"""Turn logits into calibrated probabilities and decisions."""

import copy
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import minimize_scalar
from scipy.special import expit, log_expit, logit
from sklearn.base import BaseEstimator, ClassifierMixin
from torch import Tensor

from skfocal._runtime.warnings import warn
from skfocal._utils.arrays import values_by_label
from skfocal._utils.messages import excerpt, excerpts
from skfocal._utils.offset_search import (
    ClassCounts,
    ClassDecisions,
    LabelCounts,
    LabelDecisions,
)
from skfocal.losses import Loss

if TYPE_CHECKING:
    import pandas as pd

Proba: TypeAlias = Literal["softmax", "reweighted", "natural"]
Decision: TypeAlias = Literal["argmax", "prior", "tuned"]
PROBAS = ("softmax", "reweighted", "natural")
DECISIONS = ("argmax", "prior", "tuned")
# A class with this many held-out documents gets half of the offset that scores best.
_HALF_TRUST = 20
# Standard deviation of the logarithm of a temperature, as expected before any document is seen.
_TEMPERATURE_SPREAD = 0.25
_AT_ONCE = 2**20  # scores that are computed together
_OFFSETS: list[float] = sorted(np.linspace(-3, 3, 25), key=abs)
_TAUS: list[float] = sorted(np.linspace(-1, 1.5, 11), key=abs)


def resolve_proba(proba: Proba | Literal["auto"], loss: Loss) -> Proba:
    """Return the `proba` that "auto" stands for with a loss; any other value as it is.

    It is "reweighted" if that changes no decision, else "softmax". The benchmarks show how much
    this improves the calibration.

    Parameters
    ----------
    proba : {"auto", "softmax", "reweighted", "natural"}
    loss : skfocal.losses.Loss

    Returns
    -------
    str
    """
    if proba != "auto":
        return proba
    return "reweighted" if loss.keeps_decision else "softmax"


class FixedPredictions(ClassifierMixin, BaseEstimator):
    """A fitted classifier with fixed answers, to be passed to the scorers of scikit-learn.

    Parameters
    ----------
    classes : ndarray of shape (n_classes,)
        Labels.
    scores : ndarray of shape (n, n_classes)
        Log-probabilities of classes, or log-odds of labels.
    multilabel : bool
        Whether the scores are log-odds of labels.
    decision_scores : ndarray of shape (n, n_classes), default=None
        The scores that `predict` decides by: it returns the class with the largest, or the labels
        with one above 0. None: `scores`.
    decided : ndarray of shape (n,) or (n, n_classes), default=None
        The decisions, as class codes or an indicator of labels. None: by `decision_scores`.

    Attributes
    ----------
    has_decided_ : bool
        Whether `predict` has been called.
    """

    def __init__(
        self,
        classes: NDArray[Any],
        scores: NDArray[np.float64],
        multilabel: bool,
        decision_scores: NDArray[np.float64] | None = None,
        decided: NDArray[Any] | None = None,
    ) -> None:
        self.classes = self.classes_ = classes
        self.scores = scores
        self.multilabel = multilabel
        self.decision_scores = scores if decision_scores is None else decision_scores
        self.decided = decided
        self.has_decided_ = False

    def __sklearn_is_fitted__(self) -> bool:
        """Say that it is fitted: there is nothing to fit."""
        return True

    def decision_function(self, X: object = None) -> NDArray[np.float64]:
        """Return the scores, or for two classes the log-odds of the second.

        Parameters
        ----------
        X : ignored, default=None
        """
        if len(self.classes_) == 2 and not self.multilabel:
            return self.scores[:, 1] - self.scores[:, 0]
        return self.scores

    def predict_proba(self, X: object = None) -> NDArray[np.float64]:
        """Return the probabilities.

        Parameters
        ----------
        X : ignored, default=None
        """
        proba: NDArray[np.float64] = expit(self.scores) if self.multilabel else np.exp(self.scores)
        return proba

    def predict(self, X: object = None) -> NDArray[Any]:
        """Return the most probable class, or an indicator of the labels that apply.

        Parameters
        ----------
        X : ignored, default=None
        """
        self.has_decided_ = True
        decided = self.decided
        if self.multilabel:
            applies = self.decision_scores > 0 if decided is None else decided
            return applies.astype(np.int64)
        if decided is None:
            decided = self.decision_scores.argmax(axis=1)
        predicted: NDArray[Any] = self.classes_[decided]
        return predicted


class _Scored:
    """The score of decisions by a scorer, which may ask for probabilities, too."""

    def __init__(
        self, scorer: Callable[[FixedPredictions], float], answers: FixedPredictions
    ) -> None:
        self.scorer = scorer
        self.answers = answers
        self.has_decided = False

    def decide(self, decided: NDArray[Any], only: int | None = None) -> None:
        """Take new decisions and score them."""
        self.decided = decided
        self.score = self._score_of(decided)

    def after(self, c: int, rows: NDArray[np.int64], decisions: NDArray[Any]) -> float:
        """Return the score if some documents were decided otherwise about class `c`."""
        decided = self.decided.copy()
        decided[(rows, c) if self.answers.multilabel else rows] = decisions
        return self._score_of(decided)

    def _score_of(self, decided: NDArray[Any]) -> float:
        answers = copy.copy(self.answers)
        answers.decided = decided
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # from the scorer, once per trial
            score = self.scorer(answers)
        self.has_decided |= answers.has_decided_
        return score


@dataclass(frozen=True)
class Calibration:
    """The settings that turn logits into probabilities and decisions.

    Attributes
    ----------
    loss : skfocal.losses.Loss
        The loss that the logits minimize.
    classes : ndarray of shape (n_classes,)
        Labels.
    class_weight : ndarray of shape (n_classes,), or (n_labels, 2) with several labels per document
        How much more each class counted in training than in the data, by alpha, sampler and loss.
        With several labels per document, the same for the absence and the presence of each label.
    shift : ndarray of the same shape
        The sampler's part of `class_weight`.
    proba : {"softmax", "reweighted", "natural"}, default="softmax"
        "softmax": the softmax of the logits, or their sigmoid for labels. "natural": the posterior
        in the data. "reweighted": the posterior in a population where each class counts as much
        as it did in training.
    temperature : float, default=1.0
        Divisor of the scores.
    decision : {"argmax", "prior", "tuned"}, default="argmax"
        The scores that decide. "argmax": those of `proba`. "prior": the "natural" ones plus the
        offset. "tuned": the softmax of the logits plus the offset.
    offset : ndarray of shape (n_classes,), default=None
        Added to the log-probabilities, or to the log-odds of the labels.
    """

    loss: Loss
    classes: NDArray[Any]
    class_weight: NDArray[np.float64]
    shift: NDArray[np.float64]
    proba: Proba = "softmax"
    temperature: float = 1.0
    decision: Decision = "argmax"
    offset: NDArray[np.float64] | None = None

    @property
    def multilabel(self) -> bool:
        """Whether a document has several labels."""
        return self.class_weight.ndim == 2

    def answers(self, logits: ArrayLike) -> FixedPredictions:
        """Return the :class:`FixedPredictions` of logits.

        The computation is in log space and float64, so that a probability of 1e-40 is accurate.

        Parameters
        ----------
        logits : array-like of shape (n, n_classes)

        Returns
        -------
        FixedPredictions
        """
        with torch.no_grad():
            scores = self.scores(torch.from_numpy(np.asarray(logits, dtype=np.float64)))
        return FixedPredictions(self.classes, scores[0].numpy(), self.multilabel, scores[1].numpy())

    def scores(self, logits: Tensor) -> tuple[Tensor, Tensor]:
        """Return the scores of logits, and the scores that decide.

        Parameters
        ----------
        logits : Tensor of shape (n, n_classes), float64

        Returns
        -------
        scores, decision_scores : Tensors of shape (n, n_classes)
            Log-probabilities of classes, or log-odds of labels.
        """
        scores = self._scaled(self._scores(logits, self.proba), self.temperature)
        if self.decision == "argmax":
            return scores, scores
        proba: Proba = "natural" if self.decision == "prior" else "softmax"
        deciding = self._scaled(self._scores(logits, proba), 1.0)
        return scores, deciding + torch.tensor(self.offset)

    def _scaled(self, scores: Tensor, temperature: float) -> Tensor:
        scores = scores / temperature
        return scores if self.multilabel else scores.log_softmax(1)

    def _scores(self, logits: Tensor, proba: Proba) -> Tensor:
        if proba == "softmax":
            return logits
        natural = self.loss.log_posterior(logits) - self._log_ratio(self.shift)
        return natural if proba == "natural" else natural + self._log_ratio(self.class_weight)

    def _log_ratio(self, weight: NDArray[np.float64]) -> Tensor:
        return torch.from_numpy(
            np.log(weight[:, 1] / weight[:, 0]) if self.multilabel else np.log(weight)
        )

    def fit_temperature(
        self, logits: NDArray[Any], codes: NDArray[np.int64], sample_weight: ArrayLike
    ) -> float:
        """Return the most probable temperature, given held-out documents.

        It minimises the log-loss, summed over the documents (of labels, their mean), plus
        ``log(T)**2 / (2 * 0.25**2)``. This prior keeps a few documents, which may all be right by
        chance, from moving it far. Documents are not weighted by class, whatever `proba` is. The
        logarithm is searched in [-3, 3].

        Parameters
        ----------
        logits : ndarray of shape (n, n_classes)
        codes : ndarray of shape (n,), or (n, n_labels)
            Class codes, or an indicator of labels.
        sample_weight : array-like of shape (n,)

        Returns
        -------
        float

        References
        ----------
        Guo et al.: On Calibration of Modern Neural Networks, ICML 2017 (arXiv:1706.04599).
        """
        weight = np.asarray(sample_weight, dtype=np.float64)
        if self.multilabel:  # a document counts once, however many labels there are
            weight = weight[:, None] / len(self.classes)
        rows = max(_AT_ONCE // len(self.classes), 1)

        def log_likelihood(temperature: float, some: slice) -> float:
            with torch.no_grad():
                scores = self._scores(torch.from_numpy(logits[some].astype(np.float64)), self.proba)
                scaled = self._scaled(scores, temperature).numpy()
            if self.multilabel:
                own = log_expit(np.where(codes[some] > 0, scaled, -scaled))
            else:
                own = scaled[np.arange(len(scaled)), codes[some]]
            total: float = (weight[some] * own).sum()
            return total

        def penalised_log_loss(log_temperature: float) -> float:
            temperature = float(np.exp(log_temperature))
            total = sum(
                log_likelihood(temperature, slice(start, start + rows))
                for start in range(0, len(logits), rows)
            )
            return (log_temperature / _TEMPERATURE_SPREAD) ** 2 / 2 - total

        return float(
            np.exp(minimize_scalar(penalised_log_loss, bounds=(-3, 3), method="bounded").x)
        )

    def fit_offset(
        self,
        logits: NDArray[Any],
        score: Callable[[FixedPredictions], float],
        n_documents: NDArray[np.int64],
        n_all: int,
        direction: NDArray[np.float64],
        counts: ClassCounts | LabelCounts | None = None,
    ) -> NDArray[np.float64]:
        """Return the offsets for ``decision="tuned"`` with the best score on held-out documents.

        The search starts from the best multiple of `direction`, of 11 factors in [-1, 1.5]. Then
        each class in turn, from the most frequent to the rarest and twice over, tries 25 steps
        in [-3, 3]. Both factor and step are multiplied by ``n / (n + 20)``, where ``n`` is the
        number of held-out documents, of all classes or of this one, so that a few documents move
        the decision only a little. Of equal scores, the smallest factor or step is taken.

        Parameters
        ----------
        logits : ndarray of shape (n, n_classes)
        score : callable ``(fitted classifier) -> float``
            The score to maximize.
        n_documents : ndarray of shape (n_classes,)
            Number of held-out documents of each class.
        n_all : int
            Number of held-out documents.
        direction : ndarray of shape (n_classes,)
            The offsets of `prior_offset` for "uniform".
        counts : ClassCounts or LabelCounts, default=None
            The same score computed from counts, in place of `score`, which is much faster.

        Returns
        -------
        ndarray of shape (n_classes,)

        Warns
        -----
        UserWarning
            If the score does not depend on predictions, so that there is nothing to tune.
        """
        kind = LabelDecisions if self.multilabel else ClassDecisions
        found = _Scored(score, self.answers(logits)) if counts is None else counts
        best, start = -np.inf, np.zeros(len(self.classes))
        for tau in _TAUS:
            common = tau * n_all / (n_all + _HALF_TRUST) * direction
            found.decide(kind(logits, common).decided)
            if found.score > best + 1e-12:
                best, start = found.score, common + 0.0  # without -0
        if isinstance(found, _Scored) and not found.has_decided:
            warn(
                "decision='tuned' has no effect: the score depends on probabilities alone, which "
                "the decision does not change. Set scoring to a score of predictions, such as "
                "'f1_macro'."
            )
            return start
        decisions = kind(logits, start)
        found.decide(decisions.decided)
        trust = n_documents / (n_documents + _HALF_TRUST)
        order = np.argsort(-n_documents, kind="stable")
        for c in [*order[n_documents[order] > 0]] * 2:
            values, chosen = start[c] + trust[c] * np.array(_OFFSETS), None
            for value, (rows, decided) in zip(values, decisions.trials(c, values), strict=True):
                after = found.after(c, rows, decided) if len(rows) else best
                if after > best + 1e-12:
                    best, chosen = after, value
            if chosen is not None:
                decisions.move(c, chosen)
                found.decide(decisions.decided, only=c)
        return decisions.offset


def prior_offset(
    prior: "Literal['uniform'] | Mapping[Any, float] | pd.Series[Any] | ArrayLike",
    classes: NDArray[Any],
    class_prior: NDArray[np.float64],
    multilabel: bool,
) -> NDArray[np.float64]:
    """Return the offsets that adapt the decision from the class shares in the data to `prior`.

    Parameters
    ----------
    prior : "uniform", dict or Series by label, or array-like of shape (n_classes,)
        Shares of the classes in the documents to predict, which are scaled to sum to 1. With
        several labels per document: the share of the documents that have each label, where
        "uniform" means one half.
    classes, class_prior : ndarrays of shape (n_classes,)
        Labels and their shares in the data. A class without documents counts as one with a share
        of 1 / n_classes, a label that no or every document has as one with a share of one half.
        Their weights are set by the same rule: the model has learned nothing about them that an
        offset could adapt.
    multilabel : bool
        Whether a document has several labels.

    Returns
    -------
    ndarray of shape (n_classes,)

    Raises
    ------
    ValueError
        If prior is none of these, or if a share is not positive or, for a label, not below 1.

    References
    ----------
    Menon et al.: Long-Tail Learning via Logit Adjustment, ICLR 2021 (arXiv:2007.07314), section 4.

    Examples
    --------
    >>> import numpy as np
    >>> prior_offset("uniform", np.array(["ham", "spam"]), np.array([0.9, 0.1]), False).round(3)
    array([-0.588,  1.609])
    """
    n = len(classes)
    if multilabel:
        class_prior = np.where((class_prior > 0) & (class_prior < 1), class_prior, 0.5)
    else:
        class_prior = np.where(class_prior > 0, class_prior, 1 / n)
    if isinstance(prior, str) and prior == "uniform":
        shares = np.full(n, 0.5 if multilabel else 1 / n)
    else:
        shares = _given_shares(prior, classes.tolist(), multilabel)
    if multilabel:
        log_odds: NDArray[np.float64] = logit(shares) - logit(class_prior)
        return log_odds
    log_ratio: NDArray[np.float64] = np.log(shares / shares.sum()) - np.log(class_prior)
    return log_ratio


def _given_shares(prior: Any, labels: list[Any], multilabel: bool) -> NDArray[np.float64]:
    """Return the shares in the order of the labels, from a dict or Series by label or an array."""
    by_label = values_by_label(prior, labels, "prior")
    try:
        shares = np.asarray(prior if by_label is None else by_label, dtype=np.float64)
    except (TypeError, ValueError):
        shares = np.zeros(0)
    top = 1 if multilabel else np.inf
    if shares.shape != (len(labels),) or not ((shares > 0) & (shares < top)).all():
        raise ValueError(
            "prior must be 'uniform' or give each of the classes a positive share"
            f"{' below 1' * multilabel}, as a dict or in the order of {excerpts(labels)}. "
            f"Got {excerpt(prior, 200)}."
        )
    return shares
