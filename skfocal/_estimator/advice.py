"""Warnings about settings that are allowed but rarely intended."""

from numbers import Real

import numpy as np
from sklearn.metrics import get_scorer
from skorch.callbacks import EarlyStopping

from skfocal._data.tokens import count_equal, rows_with, unknown_characters
from skfocal._estimator.parameters import deciding_scoring, n_deferred_epochs
from skfocal._estimator.plan import implied_weight
from skfocal._runtime.devices import cpu_has_bfloat16
from skfocal._runtime.warnings import warn
from skfocal._utils.messages import excerpt, excerpts
from skfocal._utils.settings import Settings
from skfocal.calibration import resolve_proba

_UNKNOWN_SHARE = 0.05  # English and emojis: below 0.01 with BERT; another script: 0.3 to 1
_PROBABILITY_SCORES = ("log_loss", "brier_score_loss", "d2_log_loss_score", "d2_brier_score")


def advise(parameters, plan, answering):
    """Warn about questionable settings, which the training uses nevertheless.

    Parameters
    ----------
    parameters : SimpleNamespace
        Those of the estimator.
    plan : skfocal._estimator.plan.Plan
    answering : skfocal._estimator.plan.Plan
        That of the last fit of the head, which probabilities and decisions follow from.
    """
    loss, weight, shift = plan.loss, plan.class_weight, plan.shift
    adjustment = implied_weight(loss)
    warn_gamma(loss)
    if not isinstance(parameters.alpha, str | Settings | Real | None):
        warn_counts_as_weights(plan.support, weight)
    if plan.support.ndim == 1:
        warn_never_drawn(plan)
        warn_corrected_twice(plan.support, weight, shift, adjustment)
        is_adjusted = loss.implied_class_weight() is not None
        warn_no_effect(parameters.alpha, weight, shift, adjustment if is_adjusted else None)
    if parameters.defer:
        n_epochs, weighted = n_deferred_epochs(parameters), loss.weight is not None
        warn_deferred(parameters.defer, n_epochs, weighted, parameters.sampler, shift)
    warn_reweighted_loss(parameters.callbacks, weight * adjustment)
    if parameters.early_stopping:
        proba = resolve_proba(parameters.proba, loss)
        warn_reweighted_score(
            deciding_scoring(parameters.scoring), proba, plan.effective_class_weight
        )
    proba = resolve_proba(parameters.proba, answering.loss)
    advise_answers(parameters, proba, answering.loss)


def warn_never_drawn(plan):
    """Warn if the sampler drew no document of a class in the pass that counts what it draws."""
    never = (plan.support > 0) & (plan.drawn == 0)
    if never.any():
        absent = plan.calibration.classes[never].tolist()
        warn(
            f"sampler drew no document of the classes {excerpts(absent)} in the pass that counts "
            "what it draws. An epoch may not show them to the model, and their probabilities are "
            "not corrected for the sampler."
        )


def advise_answers(parameters, proba, loss):
    """Warn if `proba` or `decision` cannot fully undo the reweighting of the head's last fit."""
    weighted, sampler, defer = loss.weight is not None, parameters.sampler, parameters.defer
    if (
        parameters.refit_head is not None
    ):  # takes each document once, with the weights from the start
        sampler, defer = None, 0.0
    warn_inexact(proba, parameters.decision, loss.normalize, weighted, sampler, defer)


def advise_model(parameters, module, tokenizer, texts, tokens, is_first):
    """Warn if the model does not suit the documents, and about what was lost.

    Parameters
    ----------
    parameters : SimpleNamespace
    module : skfocal._encoder.module.EncoderClassifier
        As it was loaded.
    tokenizer : transformers.PreTrainedTokenizerFast
    texts : list of str or of (str, str)
    tokens : skfocal._data.tokens.Tokens
        Of all documents.
    is_first : bool
        Whether this is the first of the processes that train together.
    """
    if parameters.verbose and is_first and module.head is not None:
        kept = module.head == "published"
        which = "is that of the published classifier" if kept else "is new"
        print(f"The head of the model {which}.")  # noqa: T201
        if tokenizer.pad_token == tokenizer.eos_token:
            print("The end token of the tokenizer also pads.")  # noqa: T201
    if module.head == "discarded":
        warn(
            f"The head of model={str(parameters.model)!r} has as many classes as y, but other "
            "labels, so a new head was drawn. To keep it, give y the labels of the model's "
            "id2label."
        )
    if module.head == "replaced":
        warn(
            f"model={str(parameters.model)!r} has a classifier of these labels, which "
            f"pooling={parameters.pooling!r} replaces by a new head. pooling='head' keeps it."
        )
    if module.head == "left":
        warn(
            f"model={str(parameters.model)!r} is a classifier that skfocal saved, whose head on "
            "pooled tokens is not kept: a new one was drawn. To train it further, use "
            "from_pretrained with warm_start=True or partial_fit."
        )
    warn_unknown_tokens(tokenizer, texts, tokens)
    if message := tokens.loss_message():
        warn(message)


def warn_unknown_tokens(tokenizer, texts, tokens):
    """Warn if the tokenizer does not know more than a few of the tokens."""
    unknown = tokenizer.unk_token_id
    if unknown is None or unknown in (tokenizer.eos_token_id, tokenizer.pad_token_id):
        return  # such tokenizers fall back to bytes
    values = unknown, ~unknown  # of a first and of a second text
    share = count_equal(tokens.flat, values) / len(tokens.flat)
    if share > _UNKNOWN_SHARE:
        sample = [texts[row] for row in rows_with(tokens, values)]
        characters = unknown_characters(tokenizer, sample)
        warn(
            f"{share:.0%} of all tokens are unknown to the model's tokenizer, mostly those of the "
            f"characters {excerpt(characters)}: nothing of such words is learned. Choose a model "
            "of their language, or a multilingual one."
        )


def warn_bfloat16(name, precision, device):
    """Warn if the processor is slower in bfloat16 than in float32."""
    if precision == "bfloat16" and device == "cpu" and not cpu_has_bfloat16():
        warn(
            f"{name}='bfloat16' is slower than 'float32' on this processor, which has no "
            "fast instructions for it."
        )


def warn_gamma(loss):
    """Warn if gamma is larger than any value known to be useful."""
    gamma = max(getattr(loss, name, 0) for name in ("gamma", "gamma_pos", "gamma_neg"))
    if gamma > 5:
        warn(
            f"gamma={gamma} leaves a document of p = 0.5 less than {0.5**gamma:.1g} of its loss: "
            "training is slow and the softmax close to uniform. Values from 0.5 to 5 are usual."
        )


def warn_counts_as_weights(support, weight):
    """Warn if weights that were given by hand are the counts of the classes, or their shares.

    Parameters
    ----------
    support, weight : ndarrays of shape (n_classes,) or (n_labels, 2)
        Amount and weight of each class, or of the absence and presence of each label.
    """
    if support.ndim == 2:
        if not (weight[:, 0] == 1).all():
            return
        support, weight = support[:, 1], weight[:, 1]
    share, weight = support / support.sum(), weight / weight.sum()
    uneven = share.min() > 0 and share.max() > 1.5 * share.min()
    # They may be rounded to two digits. Of small shares, a tenth is left, or any weight would do.
    tolerance = np.maximum(0.02 * share, np.minimum(0.005, 0.1 * share))
    if uneven and (np.abs(weight - share) <= tolerance).all():
        warn(
            "alpha holds the counts or shares of the classes: the most frequent one weighs "
            f"{share.max() / share.min():.3g} times as much as the rarest, although there are "
            "more documents of it already. Weights against the imbalance are their inverse, as in "
            "alpha='balanced'."
        )


def warn_corrected_twice(raw, weight, shift, implied):
    """Warn if alpha, sampler and loss together correct more than the imbalance of the data.

    Parameters
    ----------
    raw : ndarray of shape (n_classes,)
        Amount of each class in the data.
    weight, shift, implied : ndarrays of shape (n_classes,)
        What alpha, sampler and loss multiply a class by.
    """
    parts = {"alpha": weight, "sampler": shift, "the loss's logit adjustment": implied}
    active = [name for name, part in parts.items() if not np.allclose(part, 1, rtol=0.05)]
    present = raw > 0
    effective = (weight * shift * implied)[present]
    spread, needed = effective.max() / effective.min(), raw[present].max() / raw[present].min()
    if len(active) > 1 and spread > 1.5 * needed:
        warn(
            f"{' and '.join(active)} all correct the imbalance: together they weigh some class "
            f"{spread:.3g} times as much as another, where the data have {needed:.3g} times as "
            "many documents. If that is too much, leave one out, or use a named alpha, which is "
            "computed from what the sampler draws."
        )


def warn_no_effect(alpha, weight, shift, implied):
    """Warn if the sampler leaves nothing to correct for a named alpha or the loss's adjustment."""
    if np.allclose(shift, 1, rtol=0.05):
        return
    idle = [f"alpha={alpha!r}"] * (isinstance(alpha, str | Settings) and np.allclose(weight, 1))
    adjusts = implied is not None
    idle += ["The loss's logit adjustment"] * (adjusts and np.allclose(implied, 1, rtol=0.05))
    for name in idle:
        warn(
            f"{name} has no effect: it is computed from what the sampler draws, which is "
            "balanced already. Leave one of the two out."
        )


def warn_deferred(defer, n_epochs, weighted, sampler, shift):
    """Warn if there is nothing to defer, or if the sampler balances from the first epoch on."""
    if not weighted:
        warn(
            f"defer={defer} has no effect without alpha: deferred re-weighting is "
            "alpha=EffectiveNumber(beta=0.9999)."
        )
    elif n_epochs == 0:
        warn(f"defer={defer} has no effect: it is less than half of one epoch of max_epochs.")
    elif not np.allclose(shift, 1, rtol=0.05):
        warn(
            f"defer={defer} lets the classes wait for their weights, but sampler={sampler!r} "
            "balances them from the first epoch on: leave one of the two out."
        )


def warn_reweighted_score(scoring, proba, class_weight):
    """Warn if early stopping scores probabilities that belong to reweighted classes."""
    scorer = get_scorer(scoring) if isinstance(scoring, str) else scoring
    function = getattr(getattr(scorer, "_score_func", None), "__name__", None)
    if function in _PROBABILITY_SCORES and proba != "natural" and _uneven(class_weight):
        warn(
            f"early_stopping watches scoring={scoring!r}, but alpha, sampler or loss reweight the "
            f"classes and proba={proba!r} leaves it so: the score does not tell when to stop. "
            "Use proba='natural' or scoring='f1_macro'."
        )


def warn_reweighted_loss(callbacks, class_weight):
    """Warn if a callback of skorch stops by a validation loss that includes class weights."""
    for callback in callbacks or ():
        callback = callback[-1] if isinstance(callback, tuple) else callback
        watched = getattr(callback, "monitor", None)
        stops = isinstance(callback, EarlyStopping) and watched == "valid_loss"
        if stops and _uneven(class_weight):
            warn(
                "EarlyStopping watches 'valid_loss', which is weighted by class as the training "
                "is: a few rare documents decide it. Use early_stopping=True, or "
                "monitor='valid_score'."
            )


def _uneven(class_weight):
    return not np.allclose(class_weight, 1, rtol=0.05)


def warn_inexact(proba, decision, normalize, weighted, sampler, defer):
    """Warn if the inverse does not use exactly the weights of the training."""
    if proba != "natural" and decision != "prior":
        return
    name = "proba='natural'" if proba == "natural" else "decision='prior'"
    if weighted and normalize == "weights":
        warn(
            f"{name} is exact for a mean over samples: with normalize='weights' a batch's "
            "divisor takes away a part of alpha that depends on the batch."
        )
    if isinstance(sampler, str) and sampler == "progressive":
        warn(
            f"{name} undoes the distribution of the last epoch: with "
            "sampler='progressive' the earlier ones drew others, so it is approximate."
        )
    if weighted and defer:
        warn(
            f"{name} undoes alpha as if it had been there from the first epoch: with "
            f"defer={defer} it is approximate."
        )
