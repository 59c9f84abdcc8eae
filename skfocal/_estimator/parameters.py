"""The parameters of the estimator: allowed values, short forms and checks."""

import contextlib
import json
import os
from collections.abc import Callable
from difflib import get_close_matches
from numbers import Integral, Real
from types import SimpleNamespace
from typing import Any, TypeVar

import numpy as np
import torch
from sklearn.base import _fit_context
from sklearn.metrics import check_scoring, get_scorer_names
from sklearn.utils._param_validation import (
    HasMethods,
    Interval,
    StrOptions,
    validate_parameter_constraints,
)
from skorch import NeuralNet
from torch import nn

from skfocal._encoder import adapters
from skfocal._encoder.pooled import POOLINGS
from skfocal._encoder.quantization import PRECISIONS
from skfocal._runtime.devices import OwnGenerator
from skfocal._storage.renamed import OLD, renewed
from skfocal._training.checkpoints import describe
from skfocal._utils.messages import excerpt, short_errors
from skfocal._utils.settings import Settings
from skfocal.balance import EffectiveNumber
from skfocal.calibration import DECISIONS, PROBAS
from skfocal.callbacks import RESERVED_SCORES, SCHEDULES
from skfocal.losses import LOSSES, MULTILABEL_LOSSES
from skfocal.options import Checkpoint, Windows

_Function = TypeVar("_Function", bound=Callable[..., Any])

_PATIENCE = 3  # epochs, of early_stopping=True
_KINDS = {
    "long_documents": Windows,
    "alpha": EffectiveNumber,
    "refit_head": EffectiveNumber,
    "checkpoint": Checkpoint,
}
_SHORT = {Windows: "'windows'", EffectiveNumber: "'effective'", Checkpoint: "a folder"}
_SETTABLE = ("proba", "temperature", "decision", "prior", "predict_precision")
# Parameters that FocalNet adds to those of skorch.
_OF_OUR_NET = {
    "accumulate",
    "freeze",
    "gradient_clip",
    "layer_decay",
    "nonfinite",
    "pad_id",
    "pooling",
    "precision",
    "weight_decay",
}

# Grouped as in the constructor.
CONSTRAINTS: dict = {
    # model
    "model": [str, os.PathLike],
    "pooling": [StrOptions({"auto", "head", *POOLINGS})],
    "freeze": [Interval(Integral, 0, None, closed="left")],
    "peft": "no_validation",  # checked by peft
    "dropout": [None, Interval(Real, 0, 1, closed="left")],
    "attention_dropout": [None, Interval(Real, 0, 1, closed="left")],
    "trust_remote_code": ["boolean"],
    "warm_start": ["boolean"],
    # text
    "max_length": [None, Interval(Integral, 3, None, closed="left")],
    "long_documents": [StrOptions({"truncate", "head_tail", "windows"}), Windows],
    # loss and balance
    "loss": [StrOptions({*LOSSES, *MULTILABEL_LOSSES}), callable],
    "gamma": [Interval(Real, 0, None, closed="left")],
    "alpha": "no_validation",  # plan.check knows the classes
    "sampler": "no_validation",  # plan.check knows the classes
    "refit_head": "no_validation",  # plan.check knows the classes
    "defer": [Interval(Real, 0, 1, closed="left")],
    "normalize": [StrOptions({"samples", "weights", "sum"})],
    "label_smoothing": [Interval(Real, 0, 1, closed="left")],
    "loss_params": [None, dict],
    "classes": [None, "array-like"],
    # optimisation
    "max_epochs": [Interval(Integral, 0, None, closed="left")],
    "batch_size": [Interval(Integral, 1, None, closed="left")],
    "accumulate": [Interval(Integral, 1, None, closed="left")],
    "lr": [StrOptions({"auto"}), Interval(Real, 0, None, closed="neither")],
    "layer_decay": [Interval(Real, 0, 1, closed="right")],
    "weight_decay": [Interval(Real, 0, None, closed="left")],
    "warmup": [Interval(Real, 0, 1, closed="left")],
    "schedule": [StrOptions(set(SCHEDULES))],
    "n_updates": [None, Interval(Integral, 1, None, closed="left")],
    "gradient_clip": [None, Interval(Real, 0, None, closed="neither")],
    "nonfinite": [StrOptions({"raise", "skip"})],
    "callbacks": [None, list, tuple],
    "net_params": [None, dict],
    # validation
    "train_split": [None, Interval(Real, 0, 1, closed="neither"), HasMethods("split")],
    "early_stopping": ["boolean", Interval(Integral, 1, None, closed="left")],
    "eval_steps": [None, Interval(Integral, 1, None, closed="left")],
    "scoring": [StrOptions(set(get_scorer_names())), callable, list, tuple, dict],
    # answers
    "proba": [StrOptions({"auto", *PROBAS})],
    "temperature": [None, StrOptions({"auto"}), Interval(Real, 1e-3, 1e3, closed="both")],
    "decision": [StrOptions(set(DECISIONS))],
    "prior": [None, StrOptions({"uniform"}), dict, "array-like"],
    # checkpoint
    "checkpoint": [None, str, os.PathLike, Checkpoint],
    # machine
    "device": [str, torch.device],
    "precision": [StrOptions({"auto", "float32", "bfloat16", "float16"})],
    "predict_precision": [None, StrOptions(set(PRECISIONS))],
    "gradient_checkpointing": ["boolean"],
    "deterministic": ["boolean"],
    "random_state": ["random_state"],
    "verbose": ["verbose"],
}


def parameters_of(estimator) -> SimpleNamespace:
    """Return the parameters, short forms spelled out: all that a training reads of an estimator."""
    # By our names: a class made from ours may have a shorter constructor.
    given = {name: getattr(estimator, name) for name in CONSTRAINTS}
    given |= estimator.get_params(deep=False)  # others of its own
    return SimpleNamespace(**{name: spelled_out(name, value) for name, value in given.items()})


# -- checks --------------------------------------------------------------------------------


def validated(fit: _Function) -> _Function:
    """Let a method of the estimator check the parameters first; keep its type for editors."""
    checked: _Function = _fit_context(prefer_skip_nested_validation=True)(fit)
    return checked


def validate(estimator, names=None):
    """Raise if a parameter is invalid, whatever the documents are.

    Parameters
    ----------
    estimator : BertFocalClassifier
    names : collection of str, default=None
        The parameters to check; None for all.

    Raises
    ------
    TypeError, ValueError
        The message gives the parameter, the allowed values and the actual value.
    ImportError
        If `peft` is given and peft is not installed.
    """
    if names is None:
        chosen = estimator.get_params(deep=False)
    else:  # get_params takes longer than a small model for one document
        chosen = {name: getattr(estimator, name) for name in names}
    with short_errors():
        validate_parameter_constraints(
            estimator._parameter_constraints, chosen, caller_name=type(estimator).__name__
        )
    for value in chosen.values():
        if isinstance(value, Settings):
            value.check()
    if names is None:
        check_together(parameters_of(estimator), estimator)


def check_settable(estimator):
    """Raise if a parameter that may be set after `fit` is invalid."""
    validate(estimator, _SETTABLE)


def check_together(parameters, given):
    """Raise if another library rejects an object of its own, or parameters conflict."""
    scorers_of(parameters.scoring)
    as_callbacks(parameters.callbacks)
    _check_net_params(parameters.net_params)
    if parameters.peft is not None:
        adapters.resolve_config(parameters.peft)
    if (parameters.defer or is_progressive(parameters)) and "max_epochs" in (
        parameters.net_params or {}
    ):
        raise ValueError(
            "net_params must not hold 'max_epochs' with defer or sampler='progressive', which go "
            "by the number of epochs: give it as max_epochs=."
        )
    if parameters.early_stopping and parameters.defer:
        raise ValueError(
            f"defer={given.defer} and early_stopping={given.early_stopping} cannot be "
            "combined: the best epoch may be one before alpha set in. Leave one of the two out."
        )
    if parameters.early_stopping and is_progressive(parameters):
        raise ValueError(
            f"sampler='progressive' and early_stopping={given.early_stopping} cannot be combined: "
            "the best epoch may be one before the classes were balanced. Leave one of the two out."
        )
    if parameters.max_epochs == 0:
        _check_untrained(parameters)
    windows, max_length = parameters.long_documents, parameters.max_length
    if isinstance(windows, Windows) and max_length is not None and windows.stride >= max_length:
        raise ValueError(
            f"stride must be less than the tokens of a window, max_length={max_length}. "
            f"Got {windows.stride}."
        )


def _check_untrained(parameters):
    if parameters.refit_head is None:
        raise ValueError(
            "max_epochs must be at least 1, or 0 with refit_head, which then fits the last layer "
            "to the pretrained encoder. Got 0."
        )
    for name in ("early_stopping", "checkpoint", "defer"):
        if getattr(parameters, name):
            raise ValueError(
                f"{name} needs epochs, and max_epochs is 0. Got {getattr(parameters, name)!r}."
            )


class _Probe(NeuralNet):
    """A net with one weight, whose optimizer gets its groups as that of FocalNet does."""

    def get_params_for_optimizer(self, prefix, named_parameters):
        _, kwargs = super().get_params_for_optimizer(prefix, named_parameters)
        group = {"params": list(self.module_.parameters()), "weight_decay": 0.0}
        return ([{**group, "lr": kwargs.pop("lr", self.lr)}],), kwargs


def _check_net_params(net_params):
    """Refuse what skorch's net has no argument for, by way of a net with one weight."""
    if not net_params:
        return
    for name in ("callbacks", "train_split", "batch_size", "device"):
        if name in net_params:
            raise ValueError(f"net_params must not hold {name!r}: give it as {name}=.")
    settings = {"optimizer": torch.optim.AdamW, "lr": 1e-3, **net_params}
    settings |= {"device": "cpu", "verbose": 0, "callbacks": None, "compile": False}
    # The module and the loss are others, so skorch cannot be asked about their arguments.
    settings = {
        name: value
        for name, value in settings.items()
        if name not in _OF_OUR_NET and not name.startswith(("module__", "criterion__"))
    }
    try:
        with OwnGenerator():  # the weight of the probe is drawn
            _Probe(nn.Linear(1, 1), nn.MSELoss(), **settings).initialize()
    except (TypeError, ValueError) as error:
        raise type(error)(
            f"net_params must hold arguments of skorch's NeuralNet. Got {excerpt(net_params)}: "
            f"{error}"
        ) from error


def as_callbacks(callbacks):
    """Return the parameter `callbacks` as a list.

    Raises
    ------
    TypeError
        If an item is not a skorch callback.
    """
    callbacks = list(callbacks or [])
    for i, item in enumerate(callbacks):
        callback = item[-1] if isinstance(item, tuple) and item else item
        if not hasattr(callback, "on_epoch_end"):
            raise TypeError(
                "callbacks must hold skorch callbacks or pairs of a name and a callback. "
                f"Got {excerpt(item)} in place {i}."
            )
    return callbacks


# -- derived values ------------------------------------------------------------------------


def scorers_of(scoring) -> dict[str, Any]:
    """Return the scorers of the parameter `scoring` by name; the first one decides.

    Raises
    ------
    TypeError, ValueError
        If a scorer is unknown, or a name is taken by another column of the history.
    """
    given = named_scoring(scoring)
    taken = RESERVED_SCORES & set(given) if len(given) > 1 else set()
    if not given or taken or not all(isinstance(name, str) for name in given):
        raise ValueError(
            "scoring must be a scorer, a list of names of scorers, or a dict of scorers by names "
            f"other than 'loss' and 'score'. Got {excerpt(scoring)}."
        )
    for scorer in given.values():
        if isinstance(scorer, str) and scorer not in get_scorer_names():
            near = get_close_matches(scorer, get_scorer_names())
            raise ValueError(
                f"scoring must name scorers of scikit-learn. Got {scorer!r}"
                + (f": did you mean {near[0]!r}?" if near else ".")
            )
    return {name: check_scoring(scoring=scorer) for name, scorer in given.items()}


def named_scoring(scoring) -> dict[str, Any]:
    """Return what `scoring` has given by name: names of scorers, or callables."""
    if isinstance(scoring, dict):
        return scoring
    if isinstance(scoring, list | tuple):
        if not all(isinstance(name, str) for name in scoring):
            raise ValueError(
                "scoring must hold names, if it is a list. For others, give a dict by name. "
                f"Got {excerpt(scoring)}."
            )
        return {name: name for name in scoring}
    return {scoring if isinstance(scoring, str) else "score": scoring}


def deciding_scoring(scoring):
    """Return the name of a scorer, or the callable, that early stopping and decisions go by."""
    return next(iter(named_scoring(scoring).values()))


def needs_held_out(parameters) -> bool:
    """Say whether something is fitted to held-out documents after the training."""
    return parameters.temperature == "auto" or parameters.decision == "tuned"


def is_progressive(parameters) -> bool:
    """Say whether the sampler moves to balanced classes from epoch to epoch."""
    return isinstance(parameters.sampler, str) and parameters.sampler == "progressive"


def n_deferred_epochs(parameters) -> int:
    """Return how many epochs train without `alpha`; it gets one at least."""
    return min(round(parameters.defer * parameters.max_epochs), parameters.max_epochs - 1)


# -- short forms ---------------------------------------------------------------------------


def spelled_out(name, value):
    """Return what the short form of a parameter stands for, and any other value as it is.

    Examples
    --------
    >>> spelled_out("long_documents", "windows")
    Windows()
    >>> spelled_out("early_stopping", True), spelled_out("early_stopping", 5)
    (3, 5)
    """
    if name == "early_stopping" and isinstance(value, bool | np.bool_):
        return _PATIENCE if value else False
    if name == "checkpoint" and isinstance(value, str | os.PathLike):
        return Checkpoint(value)
    if isinstance(value, str) and (name, value) == ("long_documents", "windows"):
        return Windows()
    if isinstance(value, str) and value == "effective" and name in ("alpha", "refit_head"):
        return EffectiveNumber()
    return value


def spell_out_nested(estimator, names):
    """Spell out the parameters of an estimator that settings such as ``alpha__beta`` belong to."""
    for nested in names:
        name = nested.partition("__")[0]
        if name not in _KINDS:
            value = getattr(estimator, name, None)
            if name in estimator.get_params(deep=False) and not hasattr(value, "set_params"):
                raise ValueError(
                    f"{nested}: {name} has no parameters of its own; set it as a whole. "
                    f"Got {name}={excerpt(value)}."
                )
            continue
        value = spelled_out(name, getattr(estimator, name))
        if not isinstance(value, Settings):
            kind = _KINDS[name]
            raise ValueError(
                f"{nested} needs {name} to be {_SHORT[kind]} or {kind.__name__}(...). "
                f"Got {name}={excerpt(value)}."
            )
        setattr(estimator, name, value)


def to_plain(name: str, value: Any) -> Any:
    """Return settings as ``{"Windows": {"stride": 64, ...}}``, and any other value as it is."""
    kind = _KINDS.get(name)
    if kind is None or type(value) is not kind:
        return value
    settings: Any = value
    return {kind.__name__: settings.get_params(deep=False)}


def from_plain(name, value):
    """Return what :func:`to_plain` made plain data of; a parameter takes its own kind only."""
    kind = _KINDS.get(name)
    if kind is None or not isinstance(value, dict) or list(value) != [kind.__name__]:
        return value
    return kind(**value[kind.__name__])


def renewed_descriptions(described):
    """Return the parameter descriptions of an earlier version in the form of this one.

    What has been removed and was at work stays, and so the checkpoint is refused by its name.
    """
    kept, values = dict(described), {}
    for name in described.keys() & {"long_documents", "alpha", "early_stopping", *OLD}:
        with contextlib.suppress(ValueError):  # what is no JSON has no short form either
            value = json.loads(described[name])
            if name in ("prune", "compile") and value:
                continue
            values[name] = value
            del kept[name]
    values = {name: from_plain(name, value) for name, value in renewed(values).items()}
    described = {name: describe(spelled_out(name, value)) for name, value in values.items()}
    # A fit of those versions had no other; what "auto" stands for now shows in the weights.
    since = {"pooling": describe("auto")}
    since |= {name: describe(None) for name in ("refit_head", "eval_steps")}
    if kept.get("precision") == describe("auto"):  # on a CPU
        kept["precision"] = describe("float32")
    return {**since, **kept, **described}
