"""From logits to probabilities that one can name: whose, and how sharp."""

from dataclasses import dataclass

import numpy as np
import torch
from scipy.optimize import minimize_scalar
from scipy.special import expit, log_expit, log_softmax
from sklearn.base import BaseEstimator, ClassifierMixin

from skfocal.losses import Loss

PROBAS = ("softmax", "reweighted", "natural")


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
    """

    def __init__(self, classes, scores, multilabel):
        self.classes_ = classes
        self.scores = scores
        self.multilabel = multilabel

    def __sklearn_is_fitted__(self):
        """Say that there is nothing to fit."""
        return True

    def decision_function(self, X=None):
        """Return the scores; for two classes the log-odds of the second."""
        if len(self.classes_) == 2 and not self.multilabel:
            return self.scores[:, 1] - self.scores[:, 0]
        return self.scores

    def predict_proba(self, X=None):
        """Return the probabilities."""
        return expit(self.scores) if self.multilabel else np.exp(self.scores)

    def predict(self, X=None):
        """Return the most probable label, or an indicator of those more likely than not."""
        if self.multilabel:
            return (self.scores > 0).astype(np.int64)
        return self.classes_[self.scores.argmax(axis=1)]


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
    proba : {"softmax", "reweighted", "natural"}
        The "softmax" of the logits (of labels, their sigmoid); the posterior in the data
        ("natural"); the posterior where each class counts as much as it did in training
        ("reweighted").
    temperature : float, default=1.0
        Divides the scores.
    """

    loss: Loss
    classes: np.ndarray
    class_weight: np.ndarray
    shift: np.ndarray
    proba: str = "softmax"
    temperature: float = 1.0

    @property
    def multilabel(self):
        """Whether a document has several labels."""
        return self.class_weight.ndim == 2

    def answers(self, logits):
        """Return the :class:`FixedPredictions` of logits of shape (n, n_classes).

        All of it is in log space and float64: a class of probability 1e-40 keeps its digits.
        """
        scores = self._scaled(self._scores(logits), self.temperature)
        return FixedPredictions(self.classes, scores, self.multilabel)

    def _scaled(self, scores, temperature):
        return (
            scores / temperature if self.multilabel else log_softmax(scores / temperature, axis=1)
        )

    def _scores(self, logits):
        logits = np.asarray(logits, dtype=np.float64)
        if self.proba == "softmax":
            return logits
        with torch.no_grad():
            drawn = self.loss.log_posterior(torch.from_numpy(logits)).numpy()
        natural = drawn - self._log_ratio(self.shift)
        return natural if self.proba == "natural" else natural + self._log_ratio(self.class_weight)

    def _log_ratio(self, weight):
        return np.log(weight[:, 1] / weight[:, 0]) if self.multilabel else np.log(weight)

    def fit_temperature(self, logits, codes, sample_weight):
        """Return the temperature of least log-loss on held-out documents.

        For "reweighted" probabilities each document, or label of it, weighs what its class counts
        in training. The logarithm of the temperature is searched in [-3, 3]; Guo et al., ICML
        2017 (arXiv:1706.04599).
        """
        scores = self._scores(logits)
        weight = np.asarray(sample_weight, dtype=np.float64)
        if self.multilabel:
            weight = np.repeat(weight[:, None], scores.shape[1], axis=1)
            sides = (1 - codes) * self.class_weight[:, 0] + codes * self.class_weight[:, 1]
        else:
            sides = self.class_weight[codes]
        if self.proba == "reweighted":
            weight = weight * sides

        def log_loss(log_temperature):
            scaled = self._scaled(scores, np.exp(log_temperature))
            if self.multilabel:
                own = log_expit(np.where(codes > 0, scaled, -scaled))
            else:
                own = scaled[np.arange(len(codes)), codes]
            return -(weight * own).sum()

        return float(np.exp(minimize_scalar(log_loss, bounds=(-3, 3), method="bounded").x))
