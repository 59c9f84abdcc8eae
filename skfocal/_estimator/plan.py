"""The plan of a training: parameters resolved for the labels at hand.

It needs neither a model nor tokens, so that errors appear within milliseconds.
"""

import copy
from dataclasses import dataclass, replace
from types import SimpleNamespace

import numpy as np
import torch
from torch import nn

from skfocal import balance
from skfocal._data import labels
from skfocal._runtime.devices import generator_kept
from skfocal._runtime.process_group import ALONE
from skfocal.balance import Sampling
from skfocal.calibration import Calibration, prior_offset, resolve_proba
from skfocal.losses import CustomLoss, Loss, make_loss


@dataclass(frozen=True, eq=False)
class Plan:
    """How much each class counts in one training.

    Attributes
    ----------
    sampling : skfocal.balance.Sampling
        Which rows each epoch draws.
    class_weight : ndarray of shape (n_classes,), or (n_labels, 2) with several labels
        What `alpha` is for these classes, or the weights that an instance in `loss` came with.
    shift : ndarray of the same shape
        How much more often the sampler draws a class than the data have it.
    effective_class_weight : ndarray of the same shape
        `class_weight` times `shift` times the loss's own adjustment.
    loss : skfocal.losses.Loss
        What is minimised.
    support : ndarray of the same shape
        Amount of each class in the data, of all chunks so far.
    drawn : ndarray of the same shape
        Amount of each class in what the sampler drew of them.
    """

    sampling: Sampling
    class_weight: np.ndarray
    shift: np.ndarray
    effective_class_weight: np.ndarray
    loss: Loss
    support: np.ndarray
    drawn: np.ndarray
    calibration: Calibration

    @property
    def class_prior(self) -> np.ndarray:
        """Share of each class in the data."""
        return labels.shares(self.support)

    @property
    def log_odds(self) -> np.ndarray:
        """Log-odds of each of several labels, as it counts in training.

        Half a document more of each side keeps those of a label that all or none have finite.
        """
        absent, present = (self.support * self.effective_class_weight + 0.5).T
        return np.log(present / absent)


def resolve(parameters, data, rng, *, chunks=None, processes=ALONE) -> Plan:
    """Return the plan of a training.

    Parameters
    ----------
    parameters : SimpleNamespace
        Those of the estimator.
    data : TrainingData
    rng : numpy.random.RandomState
        An imbalanced-learn sampler draws its seed from it.
    chunks : Chunks, default=None
        What `partial_fit` remembers of earlier chunks.
    processes : Processes, default=ALONE
        Those that train together: the first one counts what a sampler draws.

    Raises
    ------
    TypeError, ValueError
        If a parameter does not fit the labels or another parameter; the message names it.
    """
    balanced = _balance_labels if data.multilabel else _balance_classes
    sampling, alpha, support, drawn, shift = balanced(parameters, data, rng, chunks, processes)
    loss = make_loss(
        parameters.loss,
        gamma=parameters.gamma,
        label_smoothing=parameters.label_smoothing,
        normalize=parameters.normalize,
        weight=None if parameters.alpha is None else alpha.astype(np.float32),
        counts=drawn,
        support=support,
        params=parameters.loss_params,
        multilabel=data.multilabel,
    )
    weight = _weight_at_work(parameters.alpha, alpha, loss)
    implied = implied_weight(loss)
    if np.ndim(implied) and len(implied) != len(data.classes):
        raise ValueError(
            f"the counts of the loss must be those of the {len(data.classes)} classes of y. "
            f"Got {len(implied)}."
        )
    effective = weight * shift * implied
    calibration = Calibration(loss, data.classes, effective, shift)
    plan = Plan(sampling, weight, shift, effective, loss, support, drawn, calibration)
    check_answers(parameters, answering(parameters, data, plan).calibration, plan.class_prior)
    return plan


def answering(parameters, data, plan) -> Plan:
    """Return the plan that probabilities and decisions follow from: of the last fit of the head."""
    return plan if parameters.refit_head is None else refitted(parameters, data, plan)


def refitted(parameters, data, plan) -> Plan:
    """Return the plan of the last layer's second fit: every document once, `refit_head` as alpha.

    Raises
    ------
    ValueError
        If `refit_head` gives no class weights.
    """
    weigh = balance.label_weight if data.multilabel else balance.class_weight
    try:
        weight = weigh(parameters.refit_head, data.classes, plan.support)
    except (TypeError, ValueError) as error:
        raise type(error)(f"refit_head takes what alpha takes: {error}") from error
    loss = make_loss(
        "cross_entropy",
        gamma=0.0,
        label_smoothing=0.0,
        normalize="samples",
        weight=weight.astype(np.float32),
        counts=plan.support,
        multilabel=data.multilabel,
    )
    ones = np.ones_like(weight)
    return replace(
        plan,
        class_weight=weight,
        shift=ones,
        effective_class_weight=weight,
        loss=loss,
        calibration=Calibration(loss, data.classes, weight, ones),
    )


def check(parameters, data, rng, *, chunks=None):
    """Return a plan as that of :func:`resolve`, before anything is loaded, or raise its errors.

    No number is drawn.

    Neither a sampler of imbalanced-learn nor a callable one runs: it may take long, or draw from
    torch's generator, which the new head has to use first.
    """
    sampler = parameters.sampler
    if not data.multilabel and callable(getattr(sampler, "fit_resample", sampler)):
        balance._check_sampler(sampler)
        parameters = SimpleNamespace(**{**vars(parameters), "sampler": None})
    with generator_kept():
        plan = resolve(parameters, data, copy.deepcopy(rng), chunks=chunks)
        _try_loss(plan.loss, parameters, data)
    return plan


def _try_loss(loss, parameters, data):
    """Apply a loss to as many documents as a batch has, if it will train on the CPU.

    A function may count its calls, and is not called.
    """
    counts_calls = isinstance(loss, CustomLoss) and not isinstance(loss.function, nn.Module)
    on_cpu = str(parameters.device) in ("auto", "cpu") and not torch.cuda.is_available()
    if counts_calls or not on_cpu:
        return
    codes = torch.from_numpy(data.codes[data.train[: parameters.batch_size]])
    logits = torch.zeros(len(codes), len(data.classes), requires_grad=True)
    try:
        loss.per_sample(logits, codes)
    except (RuntimeError, IndexError) as error:
        name = type(getattr(loss, "function", loss)).__name__
        raise ValueError(
            f"loss={name} cannot be computed for {len(codes)} documents of {len(data.classes)} "
            f"classes: {error}"
        ) from error


def _balance_classes(parameters, data, rng, chunks, processes):
    """Return sampling, class weights, amounts in the data, amounts drawn, and the shift."""
    codes, weight = data.codes[data.train], data.weight[data.train]
    n_classes = len(data.classes)
    sampling = balance.resolve_sampling(
        parameters.sampler,
        codes,
        data.classes[codes],
        n_classes=n_classes,
        n_epochs=parameters.max_epochs if chunks is None else 1,
        sample_weight=weight,
        random_state=rng,
    )
    # Of one process, as the draws: counted where the sampler has a generator of its own.
    n_draws, drawn, drawn_last = processes.broadcast(
        (sampling.n_draws, sampling.drawn, sampling.drawn_last)
    )
    sampling = replace(sampling, n_draws=n_draws)
    support = labels.amounts(codes, weight, n_classes)
    if chunks is not None:
        support, drawn = chunks.support + support, chunks.drawn + drawn
        drawn_last = drawn
    alpha = balance.class_weight(parameters.alpha, data.classes, drawn)
    shift = balance.effective_class_weight(np.ones(n_classes), support, drawn_last)
    return sampling, alpha, support, drawn, shift


def _balance_labels(parameters, data, rng, chunks, processes):
    """Return the same for several labels, as pairs for absence and presence."""
    if parameters.sampler is not None:
        raise ValueError(
            "sampler must be None for multi-label y: a document drawn for its rare label "
            "brings its frequent ones along, so no drawing balances them. Use alpha. Got "
            f"{parameters.sampler!r}."
        )
    support = labels.amounts(data.codes[data.train], data.weight[data.train], len(data.classes))
    n = int(support[0].sum().round())
    if chunks is not None:
        support = chunks.support + support
    alpha = balance.label_weight(parameters.alpha, data.classes, support)
    return balance.each_once(n, support), alpha, support, support, np.ones_like(support)


def implied_weight(loss):
    """Return the loss's own factor for each class: 1, or an array of shape (n_classes,)."""
    implied = loss.implied_class_weight()
    return 1.0 if implied is None else implied.cpu().numpy()


def _weight_at_work(alpha, class_weight, loss):
    """Return the class weights of `alpha`, or those of an instance given as `loss`."""
    if alpha is not None or loss.weight is None:
        return class_weight
    weight = loss.weight.detach().cpu().double().numpy()
    if weight.shape != class_weight.shape:
        raise ValueError(
            f"the weight of the loss must have shape {class_weight.shape}, for the classes of "
            f"y. Got {weight.shape}."
        )
    return weight


def check_answers(parameters, calibration, class_prior):
    """Raise ValueError for a wrong `prior`, or a `proba` or `decision` that the loss rules out."""
    loss, proba = calibration.loss, resolve_proba(parameters.proba, calibration.loss)
    if proba != "softmax" and not loss.has_posterior:
        raise ValueError(
            f"proba={proba!r} needs a loss with an inverse to the posterior, which "
            f"{loss} does not have: use proba='softmax', with temperature='auto' for calibration."
        )
    if parameters.decision == "prior":
        if parameters.prior is None:
            raise ValueError("decision='prior' needs prior='uniform' or shares. Got None.")
        if not loss.has_posterior:
            raise ValueError(
                "decision='prior' needs a loss with an inverse to the posterior, which "
                f"{loss} does not have: use decision='tuned'."
            )
        prior_offset(parameters.prior, calibration.classes, class_prior, calibration.multilabel)
