"""Which callbacks of skorch cannot work here, or not with these settings, and what to use."""

from skorch import callbacks as skorch_callbacks
from skorch.utils import unfreeze_parameter

from skfocal._estimator.parameters import as_callbacks, named_scoring

_HOLD_OUT = "Give fit(X, y, eval_set=(X_val, y_val)), or train_split=0.1."
# What the history has with held-out documents.
_HELD_OUT = ("valid_loss", "valid_loss_best", "valid_score")


def check_callbacks(parameters, has_held_out):
    """Raise ValueError for a callback of skorch that would fail in an epoch, or do nothing.

    Parameters
    ----------
    parameters : SimpleNamespace
        Those of the estimator.
    has_held_out : bool
        Whether documents are held out.
    """
    callbacks = _given(parameters)
    for callback in callbacks:
        name = type(callback).__name__
        own = type(callback).__module__.startswith("skorch.")
        if isinstance(callback, skorch_callbacks.LRScheduler) and parameters.schedule != "constant":
            raise ValueError(
                f"{name} needs schedule='constant', which leaves the learning rate alone after the "
                f"warm-up. Got schedule={parameters.schedule!r}, which sets it at every update."
            )
        if isinstance(callback, skorch_callbacks.InputShapeSetter):
            raise ValueError("callbacks must not hold InputShapeSetter: an encoder has its sizes.")
        scores = isinstance(callback, skorch_callbacks.EpochScoring | skorch_callbacks.BatchScoring)
        if scores and not callback.use_caching:
            raise ValueError(
                f"{name} must have use_caching=True: without it, it would predict the documents "
                "again, which come sorted by length. Give a list of scorers as scoring instead."
            )
        if scores and not callback.on_train and not has_held_out:
            raise ValueError(
                f"{name} scores held-out documents, and none are held out. {_HOLD_OUT}"
            )
        saves = isinstance(callback, skorch_callbacks.WandbLogger) and callback.save_model
        if saves and not has_held_out:
            raise ValueError(
                f"{name} saves the weights of the best 'valid_loss', and no documents are held "
                f"out. Set save_model=False to log alone. {_HOLD_OUT}"
            )
        watched = getattr(callback, "monitor", None)
        if own and isinstance(watched, str):
            _check_watched(callback, callbacks, parameters, has_held_out)


def _given(parameters):
    callbacks = [c[-1] if isinstance(c, tuple) else c for c in as_callbacks(parameters.callbacks)]
    return [c() if isinstance(c, type) else c for c in callbacks]  # skorch takes classes, too


def check_unfreezers(parameters, module):
    """Raise ValueError for a callback that thaws what the parameter `freeze` leaves out.

    Parameters
    ----------
    parameters : SimpleNamespace
        Those of the estimator.
    module : torch.nn.Module
        With these weights frozen.
    """
    frozen = [(name, p) for name, p in module.named_parameters() if not p.requires_grad]
    for callback in _given(parameters):
        thaws = getattr(callback, "fn", None) is unfreeze_parameter
        if thaws and isinstance(callback, skorch_callbacks.ParamMapper):
            patterns = callback.patterns
            patterns = patterns if isinstance(patterns, list | tuple) else [patterns]
            for name, _ in callback.filter_parameters(patterns, frozen):
                raise ValueError(
                    f"{type(callback).__name__} cannot thaw {name!r}, which freeze="
                    f"{parameters.freeze} leaves out: its layer is computed once, and it is not in "
                    "the optimizer. Set freeze=0 and freeze by skorch's Freezer instead."
                )


def _check_watched(callback, callbacks, parameters, has_held_out):
    name, watched = type(callback).__name__, callback.monitor
    own = ["score", *named_scoring(parameters.scoring)]
    rising = watched.removeprefix("valid_") in own and watched.startswith("valid_")
    stops = isinstance(callback, skorch_callbacks.EarlyStopping)
    if stops and rising and callback.lower_is_better:
        raise ValueError(
            f"EarlyStopping watches {watched!r}, which is better if it is larger: set "
            "lower_is_better=False, or use early_stopping."
        )
    if watched in (_HELD_OUT if has_held_out else ()) or not watched.startswith("valid_"):
        return
    others = {getattr(callback, "name", None) or "" for callback in callbacks}
    if watched.removesuffix("_best") in others:
        return
    if not has_held_out:
        raise ValueError(f"{name} watches {watched!r}, but no documents are held out. {_HOLD_OUT}")
    if watched == "valid_score_best" and not parameters.early_stopping:
        raise ValueError(
            f"{name} watches 'valid_score_best', which the history has with early_stopping only. "
            "Set early_stopping, which keeps the best weights by itself."
        )
