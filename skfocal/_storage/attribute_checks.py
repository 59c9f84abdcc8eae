"""Check that the attributes in skfocal.json are those of a fitted estimator."""

import re
from numbers import Real

import numpy as np

from skfocal._data.tokenization import checked_truncation
from skfocal._encoder.pooled import POOLINGS as TOKEN_POOLINGS
from skfocal._encoder.pooling import POOLINGS
from skfocal.losses import Loss
from skfocal.losses._state import loss_from_plain

# The attributes of a fitted estimator that are stored, with the version that brought each; `net_`
# and `tokenizer_` are built from plain data. To rename one is to change the format.
STORED = {
    "classes_": "0.1.0",
    "class_weight_": "0.1.0",
    "effective_class_weight_": "0.1.0",
    "class_prior_": "0.1.0",
    "class_loss_": "0.1.0",
    "loss_": "0.1.0",
    "lr_": "0.1.0",
    "max_length_": "0.1.0",
    "n_truncated_": "0.1.0",
    "pretrained_head_": "0.1.0",
    "pooling_": "0.1.0",
    "_shift": "0.1.0",
    "_n_frozen": "0.1.0",
    "_pairs": "0.1.0",
    "_cutting": "0.1.0",
    "_pooling": "0.1.0",
    "_temperatures": "0.1.0",
    "_tuned_offset": "0.1.0",
    "_fitted_model": "0.1.0",
    "_warned_for": "0.1.0",
}
# Those that only some fits leave.
OPTIONAL = {
    "n_features_in_": "0.1.0",  # of X with columns
    "feature_names_in_": "0.1.0",  # of X with named columns
    "_chunks": "0.1.0",  # of partial_fit
}
# What the first versions did not store.
BEFORE = {
    "_pairs": False,
    "_cutting": {},
    "_pooling": "mean",
    "pretrained_head_": False,
    "pooling_": "head",
}
_BUILT = {"net_", "tokenizer_"}
# What scikit-learn notes on an estimator for this session: set_output and set_fit_request.
_OF_SESSION = {"_sklearn_output_config", "_metadata_request"}


def is_stored(kind, name):
    """Say whether folders keep an attribute; a class made from ours may have others."""
    if kind.__module__ != "skfocal.classifier":
        return name not in _OF_SESSION
    return name in STORED or name in OPTIONAL


def check_complete(attributes):
    """Raise ValueError if attributes of a fit are missing, so that none is half restored."""
    missing = sorted(set(STORED) - set(attributes))
    if missing:
        raise ValueError(
            f"A fitted classifier must have the attributes {sorted(STORED)}. Got none named "
            f"{missing}: it was stored by another version of skfocal or changed since."
        )


def checked_dropouts(dropouts):
    for _, _, probability in dropouts:
        if not 0 <= probability <= 1:
            raise ValueError(f"dropouts must be probabilities. Got {dropouts!r:.80}.")
    return dropouts


def number(value, name, low=0.0, optional=False):
    if optional and value is None:
        return None
    if not isinstance(value, Real) or isinstance(value, bool) or not low < value < np.inf:
        raise ValueError(f"{name} must be a number above {low:g}. Got {value!r:.60}.")
    return value


def check_attributes(kind, attributes, params):
    """Raise ValueError if attributes are not those that `fit` sets."""
    for name in attributes:
        is_name = re.fullmatch(r"[a-z_][a-z0-9_]*", name) and not name.startswith("__")
        if not is_name or name in _BUILT or name in params or hasattr(kind, name):
            raise ValueError(f"attributes must be those of a fit. Got {name!r:.60}.")
        if not is_stored(kind, name):
            raise ValueError(
                f"attributes must be those that this version stores. Got {name!r:.60}: was it "
                "saved by a newer skfocal?"
            )
    check_complete({**BEFORE, **attributes})
    classes = attributes["classes_"]
    n = len(classes)
    labels = str | Real | np.generic
    if not isinstance(classes, np.ndarray) or classes.ndim != 1 or not n:
        raise ValueError("classes_ must be an array of labels.")
    if not all(isinstance(label, labels) for label in classes):
        raise ValueError(f"classes_ must hold str or numbers. Got {classes!r:.80}.")
    several = np.ndim(attributes["class_weight_"]) == 2
    shape = (n, 2) if several else (n,)
    for name in ("class_weight_", "effective_class_weight_", "_shift"):
        _check_floats(name, attributes[name], shape, low=0)
    _check_floats("class_prior_", attributes["class_prior_"], (n,))
    _check_floats("class_loss_", attributes["class_loss_"], (None, n))
    if attributes["_tuned_offset"] is not None:
        _check_floats("_tuned_offset", attributes["_tuned_offset"], (n,))
    for name, value in attributes["_temperatures"].items():
        number(value, f"temperature {name!r:.20}")
    for name, low in (("max_length_", 0), ("n_truncated_", -1), ("_n_frozen", -1)):
        if type(attributes[name]) is not int:
            raise ValueError(f"{name} must be an int. Got {attributes[name]!r:.60}.")
        number(attributes[name], name, low)
    number(attributes["lr_"], "lr_", -1)
    if type(attributes.get("pretrained_head_", False)) is not bool:
        raise ValueError("pretrained_head_ must be a bool.")
    if attributes.get("pooling_", "head") not in ("head", *TOKEN_POOLINGS):
        raise ValueError(f"pooling_ must be a pooling. Got {attributes['pooling_']!r:.60}.")
    if not isinstance(attributes["_fitted_model"], str):
        raise ValueError("_fitted_model must be a name.")
    _check_loss(loss_from_plain(attributes["loss_"]), shape)
    _check_cutting(attributes)
    if "_chunks" in attributes:
        _check_chunks(attributes["_chunks"], shape)


def _check_cutting(attributes):
    """Raise ValueError for an invalid truncation; earlier versions stored none."""
    cutting = attributes.get("_cutting", {})
    pairs, pooling = attributes.get("_pairs", False), attributes.get("_pooling", "mean")
    if type(pairs) is not bool or pooling not in POOLINGS or not isinstance(cutting, dict):
        raise ValueError(f"_pairs, _pooling and _cutting must be those of a fit. Got {cutting!r}.")
    if pairs and cutting.get("long_documents", "truncate") != "truncate":
        raise ValueError(f"_cutting must be 'truncate' for pairs of texts. Got {cutting!r}.")
    checked_truncation(attributes["max_length_"], **cutting)


def _check_floats(name, value, shape, low=None):
    """Raise ValueError if a value is not an array of floats of a shape; None is any size."""
    if isinstance(value, np.ndarray) and value.dtype.kind == "f" and value.ndim == len(shape):
        is_right = all(size in (None, got) for size, got in zip(shape, value.shape, strict=True))
        if is_right and (low is None or ((value > low) & np.isfinite(value)).all()):
            return
    least = "" if low is None else f" finite and above {low:g}"
    raise ValueError(f"{name} must be floats of shape {shape}{least}.")


def _check_loss(loss, shape):
    if not isinstance(loss, Loss) or loss.multilabel not in (None, len(shape) == 2):
        raise ValueError(f"loss_ must be a loss for the classes. Got {loss!r:.60}.")
    for name, value in loss.named_buffers():
        expected = shape if name in ("weight", "support") else shape[:1]
        if value.shape != expected:
            raise ValueError(f"{name} of loss_ must have shape {expected}.")


def _check_chunks(chunks, shape):
    """Raise ValueError if `partial_fit` could not continue; stricter than numpy's own checks."""
    _check_floats("raw", chunks["raw"], shape)
    _check_floats("drawn", chunks["drawn"], shape)
    if set(chunks) != {"rng", "raw", "drawn", "n_first", "n_updates"}:
        raise ValueError(f"_chunks must be those of partial_fit. Got {sorted(chunks)!r:.80}.")
    if type(chunks["n_first"]) is not int or type(chunks["n_updates"]) is not int:
        raise ValueError("_chunks must count its updates.")
    state = chunks["rng"]["state"]
    key, position = state["key"], state["pos"]
    is_key = isinstance(key, np.ndarray) and key.dtype == np.uint32 and key.shape == (624,)
    if not is_key or type(position) is not int or not 0 <= position <= 624:
        raise ValueError("rng of _chunks must be a state of MT19937.")


def check_moments(moments, weights):
    """Raise ValueError if moments of the optimizer do not belong to these weights."""
    for name, state in moments.items():
        for key, value in state.items():
            shape = getattr(value, "shape", ())
            if not isinstance(value, np.ndarray | Real) or shape not in (weights[name].shape, ()):
                raise ValueError(f"{key!r:.40} of {name!r:.80} must have its weight's shape.")
