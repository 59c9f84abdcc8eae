"""The snapshot of a training: the complete state, captured from a net and restored into one."""

import random

import numpy as np
import torch
from skorch.callbacks import EpochTimer
from skorch.history import History

from skfocal._runtime.devices import seed_generators
from skfocal._storage.plain_data import is_plain, plain_attributes
from skfocal.callbacks import Progress

_CLOCKS = (EpochTimer, Progress)  # they time this process


def capture(net, n_batches, complete=False):
    """Return the state of a :class:`~skfocal._training.net.FocalNet` between two updates.

    Parameters
    ----------
    net : FocalNet
        In training.
    n_batches : int
        Completed batches of the present epoch.
    complete : bool
        Whether the training has ended, so that nothing is needed to continue.

    Returns
    -------
    dict
        For :func:`skfocal._storage.plain_data.split`.
    """
    if net.processes.size > 1:  # merge what each process has collected
        for _, callback in net.callbacks_:
            if hasattr(callback, "settle"):
                callback.settle(net)
    state = {
        "complete": complete,
        "n_batches": n_batches,
        "module": net.state(),
        "criterion": net.criterion_.state_dict(),
        "history": _rows(net.history, n_batches),
        "callbacks": net.loop_.before_validation or of_callbacks(net),
        # The settings of a user's loss may change during training.
        "settings": {name: plain_attributes(part) for name, part in net.criterion_.named_modules()},
        "learns": [name for name, p in net.module_.named_parameters() if p.requires_grad],
        "random_state": net.loop_.batches.random_state.get_state(),
    }
    if complete:
        return state
    state["globals"] = _globals(net.loop_.globals_at_begin)
    return state | {
        "moments": net.moments(),
        "groups": [_settings(group) for group in net.optimizer_.param_groups],
        "updates": net.loop_.updates.state_dict(),
        "batches": net.loop_.batches.state(),
        "torch": torch.get_rng_state(),
        "cuda": _cuda_state(net),
        "generators": net.processes.all_gather([torch.get_rng_state(), _cuda_state(net)]),
    }


def of_callbacks(net):
    """Return the state of each callback."""
    return {name: _kept(callback) for name, callback in net.callbacks_}


def restore(net, state):
    """Restore the state that :func:`capture` returned.

    Raises
    ------
    ValueError
        If the callbacks differ: one of them would begin anew, or its state would be lost.
    """
    # Only in the first process, whose callbacks are stored: the others may have different ones.
    net.processes.first(_check_callbacks, state["callbacks"], dict(net.callbacks_))
    net.set_state(state["module"])
    net.criterion_.load_state_dict(state["criterion"])
    net.history = History(state["history"])
    for name, callback in net.callbacks_:
        _put_back(callback, state["callbacks"].get(name, {}))
    for name, part in net.criterion_.named_modules():
        vars(part).update(state["settings"][name])
    for name, parameter in net.module_.named_parameters():
        parameter.requires_grad_(name in state["learns"])
    if not state["complete"]:
        _restore_position(net, state)
    net.loop_.batches.random_state.set_state(state["random_state"])


def _check_callbacks(stored, present):
    """Refuse a checkpoint whose callbacks differ, except for the progress bar."""
    unknown, missing = (
        sorted(one.keys() - other.keys() - {"progress"})
        for one, other in ((stored, present), (present, stored))
    )
    if unknown or missing:
        problems = [f"lacks {missing}"] * bool(missing) + [f"has the unknown {unknown}"] * bool(
            unknown
        )
        raise ValueError(
            "checkpoint must hold the state of the callbacks of this fit: give another folder, or "
            f"remove this one to train from the beginning. Got one that {' and '.join(problems)}."
        )


def _restore_position(net, state):
    """Restore everything that the next update depends on."""
    net.set_moments(state["moments"])
    for group, settings in zip(net.optimizer_.param_groups, state["groups"], strict=True):
        group.update(settings)
    net.loop_.updates.load_state_dict(state["updates"])
    net.loop_.batches.set_state(state["batches"], state["n_batches"])
    # After the batches, which are drawn again to find the position in the epoch.
    if state["globals"]:
        random.setstate(state["globals"]["python"])
        np.random.set_state(state["globals"]["numpy"])
    rank = net.processes.rank
    everyone = state.get("generators") or [[state["torch"], state["cuda"]]]
    of_torch, of_cuda = everyone[min(rank, len(everyone) - 1)]
    torch.set_rng_state(of_torch)
    if of_cuda is not None and torch.device(net.device).type == "cuda":
        torch.cuda.set_rng_state(of_cuda, net.device)
    if rank >= len(everyone):  # there were fewer processes
        seed_generators(net.device, torch.initial_seed() + rank)


def _rows(history, n_batches):
    """Return the rows of the history; the present epoch without the entries of validation."""
    # Records of callbacks that are not plain data do not belong to the training.
    rows = [{name: value for name, value in row.items() if is_plain(value)} for row in history]
    if n_batches:
        rows[-1]["batches"] = rows[-1]["batches"][:n_batches]
    return rows


def _settings(group):
    return {name: value for name, value in group.items() if name != "params"}


def _kept(callback):
    """Return the state of a callback.

    That is its `state_dict`, if it has one; else its attributes that end in an underscore, as
    scikit-learn and skorch name what is not a parameter, where these are plain data or have a
    `state_dict` of their own.
    """
    if isinstance(callback, _CLOCKS):
        return {}
    if hasattr(callback, "state_dict"):
        return {"": callback.state_dict()}
    kept = {}
    for name, value in vars(callback).items():
        if name.endswith("_") and not name.startswith("_"):
            if is_plain(value):
                kept[name] = value
            elif hasattr(value, "state_dict") and not isinstance(value, type):
                kept[name] = {"": value.state_dict()}
    return kept


def _put_back(callback, kept):
    if "" in kept:
        callback.load_state_dict(kept[""])
        return
    for name, value in kept.items():
        if isinstance(value, dict) and "" in value:
            getattr(callback, name).load_state_dict(value[""])
        else:
            setattr(callback, name, value)


def global_states():
    """Return the states of Python's and NumPy's global generators, which only callbacks use."""
    return {"python": random.getstate(), "numpy": np.random.get_state()}


def _globals(begin):
    """Return the states of the global generators if the fit has used them."""
    now = global_states()
    same = now["python"] == begin["python"] and all(
        map(np.array_equal, now["numpy"], begin["numpy"])
    )
    return None if same else now


def _cuda_state(net):
    device = torch.device(net.device)
    return torch.cuda.get_rng_state(device) if device.type == "cuda" else None
