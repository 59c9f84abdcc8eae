"""Build the parts of a training from parameters, a plan and an encoder."""

import copy
import functools
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from skfocal._data import labels
from skfocal._data.texts import take
from skfocal._data.tokenization import TruncationSpec
from skfocal._encoder.dropout import set_attention_dropout, set_dropout
from skfocal._encoder.head import cosine_scale, give_cosine_head, head_of
from skfocal._encoder.module import load_module
from skfocal._encoder.pretrained import load_tokenizer
from skfocal._encoder.promises import best_precision
from skfocal._encoder.structure import default_length, has_token_types, layers_of, length_limit
from skfocal._estimator import advice
from skfocal._estimator.parameters import (
    as_callbacks,
    n_deferred_epochs,
    parameters_of,
    renewed_descriptions,
    scorers_of,
    validate,
)
from skfocal._runtime.devices import generator_kept
from skfocal._runtime.warnings import warn
from skfocal._training.checkpoints import Checkpoints
from skfocal._training.net import FocalNet
from skfocal._utils.messages import excerpt, excerpts
from skfocal.calibration import resolve_proba
from skfocal.callbacks import (
    ClassLoss,
    DeferredWeight,
    Progress,
    SkippedUpdates,
    ValidationScore,
    WarmupSchedule,
    copies,
)
from skfocal.options import Windows

# Of lr="auto" without adapters, and where the head alone learns.
_HIGHEST_LR, _HIGHEST_HEAD_LR = 1e-3, 5e-3

# -- the encoder ---------------------------------------------------------------------------


def check_earlier(parameters, data, earlier, call="warm_start=True"):
    """Raise ValueError if the weights to go on from have other classes, model or pooling."""
    classes, was_multilabel = data.classes, np.ndim(earlier.class_weight_) == 2
    if data.multilabel != was_multilabel:
        kinds = ("one label per document", "several labels per document")
        raise ValueError(
            f"{call} goes on from the weights of the last fit, with {kinds[was_multilabel]}. "
            f"Got {kinds[data.multilabel]}."
        )
    if not np.array_equal(classes, earlier.classes_):
        raise ValueError(
            f"{call} needs the classes of the last fit, "
            f"{excerpts(earlier.classes_.tolist())}. Got {excerpts(classes.tolist())}."
        )
    if str(parameters.model) != earlier._fitted_model:
        raise ValueError(
            f"{call} goes on from the weights of the last fit, of model="
            f"{earlier._fitted_model!r}. Got model={str(parameters.model)!r}."
        )
    if parameters.pooling not in ("auto", earlier.pooling_):
        raise ValueError(
            f"{call} goes on from the weights of the last fit, with pooling="
            f"{earlier.pooling_!r}. Got {parameters.pooling!r}."
        )


def check_optimizer(parameters, earlier):
    """Raise ValueError if the moments to go on from are those of another optimizer."""
    net_params = parameters.net_params or {}
    wanted = net_params.get("optimizer", torch.optim.AdamW)
    had, moments = type(earlier.net_.optimizer_), earlier.net_.optimizer_.state.values()
    if moments and wanted is not had:
        raise ValueError(
            f"partial_fit goes on with the moments of the last call's optimizer, {had.__name__}. "
            f"Got {wanted.__name__}: keep the optimizer in net_params, or start anew with fit."
        )
    keeps_largest = wanted is torch.optim.AdamW and net_params.get("optimizer__amsgrad")
    if keeps_largest and not all("max_exp_avg_sq" in moment for moment in moments):
        raise ValueError(
            "partial_fit goes on with the moments of the last call's optimizer, which had no "
            "optimizer__amsgrad. Got True: leave it out of net_params, or start anew with fit."
        )


def load_encoder(parameters, classes, multilabel=False):
    """Return the pretrained encoder with a new head, as a module, and its tokenizer."""
    tokenizer = load_tokenizer(parameters.model, trust_remote_code=parameters.trust_remote_code)
    module = load_module(
        parameters.model,
        classes.tolist(),
        pad_token_id=tokenizer.pad_token_id,
        pooling=parameters.pooling,
        multilabel=multilabel,
        dropout=parameters.dropout,
        attention_dropout=parameters.attention_dropout,
        trust_remote_code=parameters.trust_remote_code,
    )
    return module, tokenizer


def copied_encoder(earlier, parameters):
    """Return a copy of the module that was trained, with the present dropout, and its tokenizer.

    A copy, since what ends a training early must not leave the weights half way.
    """
    with earlier.net_.module_at_rest() as module:
        module = copy.deepcopy(module)
    module.head = None  # what there was to say of it has been said
    if parameters.dropout is not None:
        set_dropout(module.model, parameters.dropout)
    if parameters.attention_dropout is not None:
        set_attention_dropout(module.model, parameters.attention_dropout)
    return module, earlier.tokenizer_


def fit_head(encoder, loss, name):
    """Give the encoder the kind of head that the loss requires."""
    present = cosine_scale(encoder)
    if loss.cosine_scale not in (None, present):
        give_cosine_head(encoder, loss.cosine_scale)
    elif loss.cosine_scale != present:
        raise ValueError(
            f"loss={name!r} needs a linear head, and the model to go on from has the "
            "cosines of loss='ldam': keep that loss, or start anew in a new estimator."
        )


def start_at_prior(encoder, log_odds):
    """Let the head of several labels begin with their log-odds (Lin et al., 2017, section 4.1).

    Else the many absent labels are the first thing that it has to learn, and a rare one is lost.
    """
    bias = getattr(*head_of(encoder)).bias
    if bias is not None:
        with torch.no_grad():
            bias.copy_(torch.from_numpy(log_odds))


def checkpoints_of(checkpoint, processes) -> Checkpoints:
    """Return the :class:`Checkpoints` of a fit."""
    settings = {"folder": None} if checkpoint is None else checkpoint.get_params()
    return Checkpoints(**settings, processes=processes, renewed=renewed_descriptions)


# -- tokens --------------------------------------------------------------------------------


def check_pairs(parameters, pairs):
    """Raise ValueError if long pairs of texts are not to be truncated."""
    if pairs and parameters.long_documents != "truncate":
        raise ValueError(
            "long_documents must be 'truncate' for pairs of texts. Got "
            f"{parameters.long_documents!r}."
        )


def long_document_settings(long_documents):
    """Return the stored settings of `long_documents`, and the pooling of windows."""
    windows = long_documents if isinstance(long_documents, Windows) else Windows()
    most = windows.max_windows
    settings = {
        "long_documents": "windows" if windows is long_documents else long_documents,
        "stride": int(windows.stride),
        "max_windows": None if most is None else int(most),
    }
    return settings, windows.pooling


def chosen_truncation(parameters, module, tokenizer, pairs) -> TruncationSpec:
    """Return the :class:`TruncationSpec` of a fit.

    Raises
    ------
    ValueError
        If `max_length` exceeds the limit of the model, or windows have no room for text.
    """
    limit = length_limit(module.model, tokenizer)
    if parameters.max_length is not None and parameters.max_length > limit:
        raise ValueError(
            f"max_length must be at most {limit}, the limit of the model. "
            f"Got {parameters.max_length}."
        )
    settings, _ = long_document_settings(parameters.long_documents)
    max_length = int(parameters.max_length or default_length(module.model, limit))
    spec = truncation(module, tokenizer, max_length, pairs, settings)
    spec.check()
    return spec


def check_ids(module, tokens, texts):
    """Raise ValueError if a text spells out a special token that has no embedding."""
    n_rows = getattr(module.model.config.get_text_config(), "vocab_size", None)
    # The ids of second texts are stored as their complements.
    if n_rows is None or not len(tokens.flat):
        return
    if max(tokens.flat.max(), ~tokens.flat.min()) < n_rows:
        return
    beyond = (tokens.flat >= n_rows) | (~tokens.flat >= n_rows)
    row = int(np.searchsorted(tokens.starts, beyond.argmax(), side="right")) - 1
    raise ValueError(
        f"X must have no token beyond the {n_rows} embeddings of the model. Row {row} spells out "
        f"one of its special tokens: {excerpt(texts[row])}. Remove it."
    )


def tokenizer_and_truncation(estimator, texts):
    """Return the tokenizer and the truncation that the fit of an estimator would use."""
    validate(estimator)
    parameters, pairs = parameters_of(estimator), isinstance(texts[0], tuple)
    check_pairs(parameters, pairs)
    with generator_kept():
        module, tokenizer = load_encoder(parameters, np.arange(2))
    return tokenizer, chosen_truncation(parameters, module, tokenizer, pairs)


def truncation(module, tokenizer, max_length, pairs, settings) -> TruncationSpec:
    """Return the :class:`TruncationSpec` from the stored settings of a fit."""
    return TruncationSpec(
        max_length,
        side=tokenizer.truncation_side,
        n_special=tokenizer.backend_tokenizer.num_special_tokens_to_add(pairs),
        marks_second=pairs and has_token_types(module.model, tokenizer),
        **settings,
    )


# -- the net -------------------------------------------------------------------------------


def learning_rate(parameters, module, freeze):
    """Return the peak learning rate of an encoder whose lowest `freeze` layers are frozen."""
    if parameters.lr != "auto":
        return parameters.lr
    lr = min(2e-4 * (384 / module.model.config.hidden_size) ** 2, _HIGHEST_LR)
    if parameters.peft is not None:
        return 10 * lr
    if freeze and freeze >= len(layers_of(module.model)):
        return min(25 * lr, _HIGHEST_HEAD_LR)  # docs/benchmarks/frozen-rate.md
    return lr


def _precision(parameters, module, pad_id, device):
    if parameters.precision == "auto":
        return best_precision(module.model, pad_id, device)
    advice.warn_bfloat16("precision", parameters.precision, device)
    return parameters.precision


def make_net(parameters, module, loss, *, pad_id, device, freeze, pooling, **kwargs) -> FocalNet:
    """Return the net of a training, or of a fitted model that is restored."""
    settings = {
        "pad_id": pad_id,
        "precision": _precision(parameters, module, pad_id, device),
        "freeze": freeze,
        "pooling": pooling,
        "accumulate": parameters.accumulate,
        "gradient_clip": parameters.gradient_clip,
        "nonfinite": parameters.nonfinite,
        "weight_decay": parameters.weight_decay,
        "layer_decay": parameters.layer_decay,
        "optimizer": torch.optim.AdamW,
        "lr": learning_rate(parameters, module, freeze),
        "max_epochs": parameters.max_epochs,
        "batch_size": parameters.batch_size,
        "train_split": None,
        "device": device,
        "verbose": 0,
        "predict_nonlinearity": functools.partial(torch.softmax, dim=-1),
        "callbacks__print_log": None,
    }
    settings |= kwargs | (parameters.net_params or {})
    if settings["optimizer"] is torch.optim.AdamW:
        settings.setdefault("optimizer__fused", True)
    return FocalNet(module, loss, **settings)


def make_callbacks(parameters, loss, score, chunks, is_first) -> list[Any]:
    """Return the callbacks of a training: ours by name, then the user's.

    A checkpoint stores their state under these names.
    """
    callbacks: list[Any] = [
        ("schedule", _schedule(parameters, chunks)),
        ("class_loss", ClassLoss()),
    ]
    if parameters.nonfinite == "skip" or parameters.precision == "float16":
        callbacks.append(("skipped", SkippedUpdates()))
    if parameters.defer and loss.weight is not None:
        callbacks.append(("defer", DeferredWeight(n_deferred_epochs(parameters))))
    if score is not None:
        callbacks.append(("score", score))
    if parameters.verbose and is_first:
        callbacks.append(("progress", Progress(score and score.name)))
    # The user's last: skorch's way to stop, an interrupt, must not keep the others from
    # seeing the end of the epoch.
    return callbacks + copies(as_callbacks(parameters.callbacks))


def _schedule(parameters, chunks):
    schedule, warmup, n_updates = parameters.schedule, parameters.warmup, parameters.n_updates
    if chunks is None:
        return WarmupSchedule(schedule, warmup, n_updates)
    if n_updates is None:
        return WarmupSchedule("constant", warmup, chunks.n_first, chunks.n_updates)
    if chunks.n_updates >= n_updates and schedule != "constant":
        warn(
            f"The schedule of n_updates={n_updates} has ended: the learning rate is 0 "
            "and this call of partial_fit teaches nothing."
        )
    return WarmupSchedule(schedule, warmup, n_updates, chunks.n_updates)


def make_score(parameters, data, calibration) -> ValidationScore | None:
    """Return the callback that scores held-out documents after each epoch, or None."""
    if data.held_out is None:
        return None
    weight = data.weight[data.held_out]
    even = np.allclose(weight, weight[0])
    proba = resolve_proba(parameters.proba, calibration.loss)
    if not calibration.loss.has_posterior:  # only that of refit_head may have one
        proba = "softmax"
    loss = calibration.loss
    if parameters.defer:  # as the classifier decides if it ends now: epochs change these weights
        loss = copy.deepcopy(loss)
    return ValidationScore(
        scorers_of(parameters.scoring),
        calibration.classes,
        take(data.texts, data.held_out),
        labels.decode(calibration.classes, data.codes[data.held_out]),
        None if even else weight,
        replace(calibration, proba=proba, loss=loss).answers,
        parameters.early_stopping or None,
        parameters.eval_steps,
    )
