"""From logits to probabilities that one can name: whose, and how sharp."""

from dataclasses import dataclass

import numpy as np
import torch
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax

from skfocal.losses import Loss

PROBAS = ("softmax", "reweighted", "natural")


@dataclass(frozen=True)
class Calibration:
    """How logits become log-probabilities.

    Attributes
    ----------
    loss : skfocal.losses.Loss
        What the logits minimise.
    proba : {"softmax", "reweighted", "natural"}
        "softmax" of the logits; the posterior in the data ("natural"); the posterior where each
        class counts as much as it did in training ("reweighted").
    class_weight : ndarray of shape (n_classes,)
        How much more a class counted in training than in the data, by alpha, sampler and loss.
    shift : ndarray of shape (n_classes,)
        The sampler's part of it.
    temperature : float, default=1.0
        Divides the log-probabilities, which are normalised again.
    """

    loss: Loss
    proba: str
    class_weight: np.ndarray
    shift: np.ndarray
    temperature: float = 1.0

    def log_proba(self, logits):
        """Return log-probabilities, float64 of shape (n, n_classes).

        All of it is in log space: a class of probability 1e-40 keeps its digits.
        """
        return log_softmax(self._scores(logits) / self.temperature, axis=1)

    def _scores(self, logits):
        logits = np.asarray(logits, dtype=np.float64)
        if self.proba == "softmax":
            return log_softmax(logits, axis=1)
        with torch.no_grad():
            drawn = self.loss.log_posterior(torch.from_numpy(logits)).numpy()
        natural = drawn - np.log(self.shift)
        return natural if self.proba == "natural" else natural + np.log(self.class_weight)

    def fit_temperature(self, logits, codes, sample_weight):
        """Return the temperature of least log-loss on held-out documents.

        For "reweighted" probabilities each document weighs what its class counts in training.
        The logarithm of the temperature is searched in [-3, 3]; Guo et al., ICML 2017
        (arXiv:1706.04599).
        """
        scores = self._scores(logits)
        weight = np.asarray(sample_weight, dtype=np.float64)
        if self.proba == "reweighted":
            weight = weight * self.class_weight[codes]
        rows = np.arange(len(codes))

        def log_loss(log_temperature):
            scaled = log_softmax(scores / np.exp(log_temperature), axis=1)
            return -weight @ scaled[rows, codes]

        return float(np.exp(minimize_scalar(log_loss, bounds=(-3, 3), method="bounded").x))
