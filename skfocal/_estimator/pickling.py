"""Convert a fitted estimator to plain data and back, for pickles, skops files and folders."""

import copy
from typing import Any

import numpy as np
import torch

from skfocal._encoder import adapters
from skfocal._encoder.structure import freeze_layers
from skfocal._estimator import build, parameters
from skfocal._estimator.partial_fit import Chunks
from skfocal._runtime.devices import resolve_device
from skfocal._storage import renamed
from skfocal._storage.attribute_checks import BEFORE, check_complete
from skfocal._storage.encoder_state import module_from_plain, module_to_plain
from skfocal.losses._state import loss_from_plain, loss_to_plain

_LOSSES = {"loss", "loss_"}  # what of the estimator may be a loss module


def to_plain(estimator: Any, state: dict[str, Any]) -> dict[str, Any]:
    """Return the state of an estimator as plain data, with arrays and text instead of the net.

    Parameters
    ----------
    estimator : BertFocalClassifier
    state : dict
        What scikit-learn would pickle.
    """
    state = state.copy()
    net, tokenizer = state.pop("net_", None), state.pop("tokenizer_", None)
    if net is not None:
        with net.module_at_rest() as module:
            plain = module_to_plain(module, tokenizer)
        state["_plain"] = {
            **plain,
            "history": [dict(row) for row in net.history],
            "moments": _as_arrays(net.moments()),
        }
        state["loss_"] = copy.deepcopy(estimator.loss_).cpu()
        check_complete(state)
    if "_chunks" in state:
        state["_chunks"] = state["_chunks"].to_plain()
    state["peft"] = adapters.config_to_plain(state["peft"])
    state = {name: parameters.to_plain(name, value) for name, value in state.items()}
    return state | {name: loss_to_plain(state[name]) for name in _LOSSES & set(state)}


def from_plain(state, defaults):
    """Return the attributes and, for a fitted estimator, the data to build its net from.

    Parameters
    ----------
    state : dict
        What :func:`to_plain` returned, in this version or an earlier one.
    defaults : dict
        Parameters for those that an earlier version did not have.

    Returns
    -------
    attributes : dict
    plain : dict or None
        For :func:`build_net`.
    """
    state = {**defaults, **renamed.renewed(state)}
    state.pop("_may_run_code", None)  # which only a pickle can say
    state = {name: parameters.from_plain(name, value) for name, value in state.items()}
    plain = state.pop("_plain", None)
    state["peft"] = adapters.config_from_plain(state["peft"])
    state |= {name: loss_from_plain(state[name]) for name in _LOSSES & set(state)}
    if isinstance(state.get("_chunks"), dict):
        state["_chunks"] = Chunks.from_plain(state["_chunks"])
    if "_cutting" in state:
        state["_cutting"] = renamed.renewed_cutting(state["_cutting"])
    if plain is not None:
        state = {**BEFORE, **state}
        check_complete(state)
    return state, plain


def reduced(estimator: Any, plain: str | tuple[Any, ...]) -> str | tuple[Any, ...]:
    """Return what a pickle keeps of an estimator, for :meth:`object.__reduce_ex__`.

    Parameters
    ----------
    estimator : BertFocalClassifier
    plain : tuple
        What it keeps of other objects.
    """
    net = vars(estimator).get("net_")
    if net is None or not hasattr(net.plain_module().model.config, "auto_map"):
        return plain
    return _of_pickle, (type(estimator),), plain[2]


def _of_pickle(kind):
    """Return an estimator to be given a state, whose model may run code of its own.

    Only a pickle can call this, and whoever opens one runs its code already. A state alone, as in a
    skops file, cannot ask for it.
    """
    estimator = kind.__new__(kind)
    estimator._may_run_code = True
    return estimator


def _with_code(kind, state):
    """Return what :func:`_of_pickle` does, with its state; pickles of 0.1.0.dev0 call it."""
    estimator = _of_pickle(kind)
    estimator.__setstate__(state)
    return estimator


def may_run_code(estimator):
    """Say whether a pickle made an estimator, to be asked once, before it is given a state."""
    return vars(estimator).pop("_may_run_code", False)


def build_net(estimator, plain, trust_remote_code):
    """Set the stored tokenizer and net of an estimator, on a device that is available."""
    module, estimator.tokenizer_ = module_from_plain(plain, trust_remote_code=trust_remote_code)
    freeze_layers(module.model, estimator._n_frozen)
    net = build.make_net(
        parameters.parameters_of(estimator),
        module,
        estimator.loss_,
        pad_id=estimator.tokenizer_.pad_token_id,
        device=_device_at_hand(estimator.device),
        freeze=estimator._n_frozen,
        pooling=estimator._pooling,
    )
    estimator.net_ = net.initialize()
    net.module_.eval()
    net.history.extend(plain["history"])
    net.set_moments(_as_tensors(plain.get("moments", {})))


def _device_at_hand(device):
    try:
        return resolve_device(device)
    except ValueError:
        return "cpu"


def _as_arrays(moments):
    return {
        name: {k: v.cpu().numpy() if torch.is_tensor(v) else v for k, v in state.items()}
        for name, state in moments.items()
    }


def _as_tensors(moments):
    return {
        name: {k: torch.tensor(v) if isinstance(v, np.ndarray) else v for k, v in state.items()}
        for name, state in moments.items()
    }
