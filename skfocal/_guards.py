"""Warnings about settings that are allowed and seldom meant."""

import warnings

import numpy as np
from skorch.callbacks import EarlyStopping

_PROBABILITY_SCORES = ("neg_log_loss", "neg_brier_score", "d2_log_loss_score", "d2_brier_score")


def warn_gamma(gamma):
    """Warn beyond the gammas that anybody has found useful."""
    if gamma > 5:
        warnings.warn(
            f"gamma={gamma} leaves a document of p = 0.5 less than {0.5**gamma:.1g} of its loss: "
            "training is slow and the softmax close to uniform. Values from 0.5 to 5 are usual.",
            stacklevel=3,
        )


def warn_adjusted_twice(implied, alpha):
    """Warn when a loss that adjusts for the counts meets class weights, or has nothing to do."""
    if implied is None:
        return
    if alpha is not None:
        warnings.warn(
            f"alpha={alpha!r} and the loss's logit adjustment both correct the imbalance: leave "
            "one of the two out.",
            stacklevel=3,
        )
    elif np.allclose(implied, 1, rtol=0.05):
        warnings.warn(
            "The loss's logit adjustment has no effect: it is computed from what the sampler "
            "draws, which is balanced already.",
            stacklevel=3,
        )


def warn_deferred(defer, weighted, sampler):
    """Warn when there is nothing to defer, or the sampler does not wait."""
    if not weighted:
        warnings.warn(
            f"defer={defer} has no effect without alpha: deferred re-weighting is "
            "alpha='effective' with beta=0.9999.",
            stacklevel=3,
        )
    elif sampler is not None:
        warnings.warn(
            f"defer={defer} lets the classes wait for their weights, but sampler={sampler!r} "
            "balances them from the first epoch on: leave one of the two out.",
            stacklevel=3,
        )


def warn_reweighted_score(scoring, proba, class_weight):
    """Warn when early stopping compares the data with probabilities of reweighted classes."""
    if scoring in _PROBABILITY_SCORES and proba != "natural" and not np.allclose(class_weight, 1):
        warnings.warn(
            f"early_stopping watches scoring={scoring!r}, but alpha, sampler or loss reweight the "
            f"classes and proba={proba!r} leaves it so: the score does not tell when to stop. "
            "Use proba='natural' or scoring='f1_macro'.",
            stacklevel=3,
        )


def warn_reweighted_loss(callbacks, weighted):
    """Warn when a callback of skorch's stops by a validation loss with class weights in it."""
    for callback in callbacks or ():
        callback = callback[-1] if isinstance(callback, tuple) else callback
        watched = getattr(callback, "monitor", None)
        if weighted and isinstance(callback, EarlyStopping) and watched == "valid_loss":
            warnings.warn(
                "EarlyStopping watches 'valid_loss', which is weighted by class as the training "
                "is: a few rare documents decide it. Use early_stopping=True, or "
                "monitor='valid_score'.",
                stacklevel=3,
            )


def warn_inexact(proba, normalize, weighted, sampler, defer):
    """Warn when the inverse does not know the weights that were really at work."""
    if proba != "natural":
        return
    if weighted and normalize == "weights":
        warnings.warn(
            "proba='natural' is exact for a mean over samples: with normalize='weights' a batch's "
            "divisor takes away a part of alpha that depends on the batch.",
            stacklevel=3,
        )
    if isinstance(sampler, str) and sampler == "progressive":
        warnings.warn(
            "proba='natural' undoes the distribution of the last epoch: with "
            "sampler='progressive' the earlier ones drew others, so it is approximate.",
            stacklevel=3,
        )
    if weighted and defer:
        warnings.warn(
            f"proba='natural' undoes alpha as if it had been there from the first epoch: with "
            f"defer={defer} it is approximate.",
            stacklevel=3,
        )
