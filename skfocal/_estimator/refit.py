"""Fit the head once more to the features of a trained encoder.

Kang et al. (2020) call this classifier re-training: what the encoder has learned from the data as
they are serves the rare classes, too, if only the last layer is balanced.
"""

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression

from skfocal._data import labels
from skfocal._data.tokenization import encoder_inputs
from skfocal._encoder.head import has_bias
from skfocal.options import Windows

# Of features that have a root mean square of 1; docs/benchmarks/heads.md.
_C = 0.1
_MAX_ITER = 1000


def check_refit(parameters, data):
    """Raise ValueError if the last layer cannot be fitted to the features of the documents."""
    windows = parameters.long_documents
    if isinstance(windows, Windows) and windows.pooling != "mean":
        raise ValueError(
            "refit_head needs one vector per document, and so the mean of its windows: set "
            f"long_documents=Windows(pooling='mean'). Got pooling={windows.pooling!r}."
        )
    codes = data.codes[data.train][data.weight[data.train] > 0]
    if not data.multilabel and len(np.unique(codes)) < 2:
        raise ValueError("refit_head needs documents of at least two classes. Got one.")


def check_head(module, tokens, pad_id, support):
    """Raise ValueError if the head of an encoder cannot be fitted to features.

    It must compute the logits from one vector per document, which the first document shows, and
    have biases if a class has no documents.
    """
    if not has_bias(module.model) and support.min() == 0:
        raise ValueError(
            "refit_head needs documents of each class, and with and without each label, because "
            "the head of this model has no biases: leave the others out of classes, or set "
            "pooling='mean'."
        )
    first = tokens.take([0]).windows()[0]
    inputs = encoder_inputs(first.flat, first.starts, first.lengths, pad_id)
    device = next(module.parameters()).device
    with torch.no_grad():
        module.features(**{name: torch.from_numpy(x).to(device) for name, x in inputs.items()})


def fit_linear(features, codes, weight, class_weight, bias=True, tol=1e-4):
    """Return the weights and biases of a linear layer with the least weighted log-loss.

    Parameters
    ----------
    features : float32 ndarray of shape (n, width)
    codes : int ndarray of shape (n,), or a 0-1 indicator of shape (n, n_labels)
        Classes, or several labels.
    weight : ndarray of shape (n,)
        Sample weights.
    class_weight : ndarray of shape (n_classes,), or (n_labels, 2) with several labels
        Only their proportions matter, those of each label apart.
    bias : bool, default=True
        Whether the layer has biases.
    tol : float, default=1e-4
        Largest gradient at the end, as scikit-learn has it.

    Returns
    -------
    weights : ndarray of shape (n_classes, width)
    biases : ndarray of shape (n_classes,)
    """
    used = weight > 0  # the others are as if they were not there
    features, codes, weight = features[used], codes[used], weight[used]
    scale = 1 / max(float(np.sqrt(np.mean(features**2))), 1e-12)
    fit = _fit_labels if class_weight.ndim == 2 else _fit_classes
    weights, biases = fit(features * scale, codes, weight, class_weight, bias, tol)
    return weights * scale, biases


def _fit_classes(features, codes, weight, class_weight, bias, tol):
    n_classes = len(class_weight)
    present, index = np.unique(codes, return_inverse=True)
    model = _logistic(features, index, weight * class_weight[codes], bias, tol)
    weights, biases = np.zeros((n_classes, features.shape[1])), np.zeros(n_classes)
    if len(present) == 2:  # scikit-learn has a single row of log-odds
        weights[present] = np.outer([-0.5, 0.5], model.coef_[0])
        biases[present] = np.multiply([-0.5, 0.5], model.intercept_)
    else:
        weights[present], biases[present] = model.coef_, model.intercept_
    if len(present) < n_classes:
        # A class without documents is at most as probable as if it had half a document: weights
        # of classes sum to zero, so no document has a smaller logarithm of summed exponentials.
        least = np.log(len(present)) + biases[present].mean()
        absent = np.setdiff1d(np.arange(n_classes), present)
        biases[absent] = least - np.log(2 * len(features))
    return weights, biases


def _fit_labels(features, codes, weight, class_weight, bias, tol):
    n_labels = len(class_weight)
    weights, biases = np.zeros((n_labels, features.shape[1])), np.zeros(n_labels)
    for j, has_label in enumerate(codes.T.astype(np.int64)):
        each = weight * class_weight[j][has_label]
        amounts = labels.amounts(has_label, each, 2)
        if amounts.min() > 0:
            model = _logistic(features, has_label, each, bias, tol)
            weights[j], biases[j] = model.coef_[0], model.intercept_[0]
        else:  # all documents have the label, or none
            absent, present = amounts + 0.5
            biases[j] = np.log(present / absent)
    return weights, biases


def _logistic(features, codes, weight, bias, tol):
    model = LogisticRegression(C=_C, fit_intercept=bias, tol=tol, max_iter=_MAX_ITER)
    return model.fit(features, codes, sample_weight=weight / weight.mean())
