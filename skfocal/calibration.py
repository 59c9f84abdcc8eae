"""From logits to probabilities that one can name: whose, and how sharp."""

import warnings
from dataclasses import dataclass, replace

import numpy as np
import torch
from scipy.optimize import minimize_scalar
from scipy.special import expit, log_expit, logit
from sklearn.base import BaseEstimator, ClassifierMixin

from skfocal._runtime.warnings import warn
from skfocal._utils.arrays import values_by_label
from skfocal._utils.messages import excerpt, excerpts
from skfocal.losses import Loss

PROBAS = ("softmax", "reweighted", "natural")
DECISIONS = ("argmax", "prior", "tuned")
# A class of so many held-out documents gets half of the offset that would score best.
_HALF_TRUST = 20
_OFFSETS = sorted(np.linspace(-3, 3, 25), key=abs)
_TAUS = sorted(np.linspace(-1, 1.5, 11), key=abs)


def resolve_proba(proba: str, loss: Loss) -> str:
    """Return the `proba` that is meant by "auto" for a loss, any other as it is.

    "reweighted" where that changes no decision: the benchmarks have what it does for calibration.

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
    """A fitted classifier whose answers are known: what scikit-learn's scorers ask for.

    Parameters
    ----------
    classes : ndarray of shape (n_classes,)
        Labels.
    scores : ndarray of shape (n, n_classes)
        Log-probabilities of classes, or log-odds of labels.
    multilabel : bool
        Which of the two.
    decision_scores : ndarray of shape (n, n_classes), default=None
        What `predict` takes the largest of, or those above 0; None: the scores.
    """

    def __init__(self, classes, scores, multilabel, decision_scores=None):
        self.classes_ = classes
        self.scores = scores
        self.multilabel = multilabel
        self.decision_scores = scores if decision_scores is None else decision_scores
        self.has_decided_ = False

    def __sklearn_is_fitted__(self):
        """Say that there is nothing to fit."""
        return True

    def decision_function(self, X=None):
        """Return the scores; for two classes the log-odds of the second.

        Parameters
        ----------
        X : ignored, default=None
        """
        if len(self.classes_) == 2 and not self.multilabel:
            return self.scores[:, 1] - self.scores[:, 0]
        return self.scores

    def predict_proba(self, X=None):
        """Return the probabilities.

        Parameters
        ----------
        X : ignored, default=None
        """
        return expit(self.scores) if self.multilabel else np.exp(self.scores)

    def predict(self, X=None):
        """Return the most probable label, or an indicator of those more likely than not.

        Parameters
        ----------
        X : ignored, default=None
        """
        self.has_decided_ = True
        if self.multilabel:
            return (self.decision_scores > 0).astype(np.int64)
        return self.classes_[self.decision_scores.argmax(axis=1)]


@dataclass(frozen=True)
class Calibration:
    """How logits become answers.

    Attributes
    ----------
    loss : skfocal.losses.Loss
        What the logits minimise.
    classes : ndarray of shape (n_classes,)
        Labels.
    class_weight : ndarray of shape (n_classes,), or (n_labels, 2) with several labels a document
        How much more a class counted in training than in the data, by alpha, sampler and loss;
        or a label's absence and its presence.
    shift : ndarray of the same shape
        The sampler's part of it.
    proba : {"softmax", "reweighted", "natural"}, default="softmax"
        The "softmax" of the logits (of labels, their sigmoid); the posterior in the data
        ("natural"); the posterior where each class counts as much as it did in training
        ("reweighted").
    temperature : float, default=1.0
        Divides the scores.
    decision : {"argmax", "prior", "tuned"}, default="argmax"
        What the decision is made of: these probabilities, the "natural" ones with the offset, or
        the softmax of the logits with the offset.
    offset : ndarray of shape (n_classes,), default=None
        Added to the log-probabilities, or to a label's log-odds.
    """

    loss: Loss
    classes: np.ndarray
    class_weight: np.ndarray
    shift: np.ndarray
    proba: str = "softmax"
    temperature: float = 1.0
    decision: str = "argmax"
    offset: np.ndarray | None = None

    @property
    def multilabel(self):
        """Whether a document has several labels."""
        return self.class_weight.ndim == 2

    def answers(self, logits):
        """Return the :class:`FixedPredictions` of logits.

        All of it is in log space and float64: a class of probability 1e-40 keeps its digits.

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

    def scores(self, logits):
        """Return the scores of logits, and those that decide.

        Parameters
        ----------
        logits : Tensor of shape (n, n_classes), float64

        Returns
        -------
        pair of Tensors of shape (n, n_classes)
        """
        scores = self._scaled(self._scores(logits, self.proba), self.temperature)
        if self.decision == "argmax":
            return scores, scores
        proba = "natural" if self.decision == "prior" else "softmax"
        deciding = self._scaled(self._scores(logits, proba), 1.0)
        return scores, deciding + torch.tensor(self.offset)

    def _scaled(self, scores, temperature):
        scores = scores / temperature
        return scores if self.multilabel else scores.log_softmax(1)

    def _scores(self, logits, proba):
        if proba == "softmax":
            return logits
        natural = self.loss.log_posterior(logits) - self._log_ratio(self.shift)
        return natural if proba == "natural" else natural + self._log_ratio(self.class_weight)

    def _log_ratio(self, weight):
        return torch.from_numpy(
            np.log(weight[:, 1] / weight[:, 0]) if self.multilabel else np.log(weight)
        )

    def fit_temperature(self, logits, codes, sample_weight):
        """Return the temperature of least log-loss on held-out documents.

        For "reweighted" probabilities each document, or label of it, weighs what its class counts
        in training. The logarithm of the temperature is searched in [-3, 3]; Guo et al., ICML
        2017 (arXiv:1706.04599).

        Parameters
        ----------
        logits : ndarray of shape (n, n_classes)
        codes : ndarray of shape (n,), or (n, n_labels)
            Class codes, or an indicator of labels.
        sample_weight : array-like of shape (n,)

        Returns
        -------
        float
        """
        with torch.no_grad():
            scores = self._scores(torch.from_numpy(logits.astype(np.float64)), self.proba)
        weight = np.asarray(sample_weight, dtype=np.float64)
        if self.multilabel:
            weight = np.repeat(weight[:, None], scores.shape[1], axis=1)
            sides = (1 - codes) * self.class_weight[:, 0] + codes * self.class_weight[:, 1]
        else:
            sides = self.class_weight[codes]
        if self.proba == "reweighted":
            weight = weight * sides

        def log_loss(log_temperature):
            scaled = self._scaled(scores, np.exp(log_temperature)).numpy()
            if self.multilabel:
                own = log_expit(np.where(codes > 0, scaled, -scaled))
            else:
                own = scaled[np.arange(len(codes)), codes]
            return -(weight * own).sum()

        return float(np.exp(minimize_scalar(log_loss, bounds=(-3, 3), method="bounded").x))

    def fit_offset(self, logits, score, n_documents, n_all, direction):
        """Return the offsets for ``decision="tuned"`` that score best on held-out documents.

        First one number for all classes: of 11 values in [-1, 1.5], the best multiple of
        `direction`. From there one class after the other, the most frequent first, twice over,
        tries 25 steps in [-3, 3]. Either is taken times ``n / (n + 20)``, with ``n`` all held-out
        documents or those of the class: what two documents say moves the decision little. Of
        equal scores the smallest stays.

        Parameters
        ----------
        logits : ndarray of shape (n, n_classes)
        score : callable ``(fitted classifier) -> float``
            Larger is better.
        n_documents : ndarray of shape (n_classes,)
            Held-out documents of each class.
        n_all : int
            Held-out documents.
        direction : ndarray of shape (n_classes,)
            What `prior_offset` gives for "uniform".
        """
        trials = []

        def score_of(offset):
            trials.append(replace(self, decision="tuned", offset=offset).answers(logits))
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", UserWarning)  # the scorer's, at each of many trials
                return score(trials[-1])

        best, start = -np.inf, np.zeros(len(self.classes))
        for tau in _TAUS:
            common = tau * n_all / (n_all + _HALF_TRUST) * direction
            found = score_of(common)
            if found > best + 1e-12:
                best, start = found, common + 0.0  # without -0
        if not any(trial.has_decided_ for trial in trials):
            warn(
                "decision='tuned' has no effect: scoring asks for no predictions, only for "
                "probabilities, which the decision does not change. Tune for a score like "
                "'f1_macro'."
            )
            return start
        offset = start
        trust = n_documents / (n_documents + _HALF_TRUST)
        order = np.argsort(-n_documents, kind="stable")
        for c in [*order[n_documents[order] > 0]] * 2:
            for value in _OFFSETS:
                trial = offset.copy()
                trial[c] = start[c] + trust[c] * value
                found = score_of(trial)
                if found > best + 1e-12:
                    best, offset = found, trial
        return offset


def prior_offset(prior, classes, class_prior, multilabel):
    """Return the offsets that carry the decision from the data's shares to those of `prior`.

    Parameters
    ----------
    prior : "uniform", dict by label or array-like of shape (n_classes,)
        Shares of the classes where the predictions will be used, scaled to sum 1; of several
        labels the share of documents that have each, "uniform" being one half.
    classes, class_prior : ndarrays of shape (n_classes,)
        Labels, and the shares in the data. A class without documents, or a label that none or all
        have, is taken for one of average share (1 / n_classes, one half), as for its weight:
        nothing was learned of it that an offset could carry anywhere.
    multilabel : bool

    Returns
    -------
    ndarray of shape (n_classes,)

    Raises
    ------
    ValueError
        If prior is none of these or a share is not positive.

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
        return logit(shares) - logit(class_prior)
    return np.log(shares / shares.sum()) - np.log(class_prior)


def _given_shares(prior, labels, multilabel):
    """Return the shares that a dict or Series gives by label, any other in their order."""
    shares = values_by_label(prior, labels, "prior")
    try:
        shares = np.asarray(prior if shares is None else shares, dtype=np.float64)
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
