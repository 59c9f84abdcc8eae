"""Convert nested settings and states to JSON and tensors, and back without running code.

A file that comes from elsewhere may hold wrong values but can never do anything: there is no name
of a class or function in it that reading would look up.
"""

import numpy as np
import torch

_NUMBERS = "biuf"  # numpy's kinds of dtypes that safetensors has


def split(value, where=""):
    """Return `value` as JSON data, and the tensors that the data refer to by name.

    Parameters
    ----------
    value : None, bool, int, float, str, numpy scalar, array or torch tensor, or a list, tuple or \
            dict of these
    where : str
        What the value is called; the names of the tensors begin with it.

    Returns
    -------
    plain, tensors : JSON value, dict of str -> torch.Tensor

    Raises
    ------
    TypeError
        If something in it is none of these; its place is named.

    Examples
    --------
    >>> plain, tensors = split({"alpha": {0: 1.0}, "loss": np.ones(2)}, "state")
    >>> plain
    {'alpha': {'$dict': [[0, 1.0]]}, 'loss': {'$array': 'state.loss'}}
    >>> join(plain, tensors)
    {'alpha': {0: 1.0}, 'loss': array([1., 1.])}
    """
    tensors: dict = {}
    return _split(value, where, tensors), tensors


def _split(value, where, tensors):
    if value is None or type(value) in (bool, int, str):
        return value
    if type(value) is float:
        return value if abs(value) < float("inf") else {"$float": repr(value)}
    if type(value) in (list, tuple):
        items = [_split(item, f"{where}.{i}", tensors) for i, item in enumerate(value)]
        return items if type(value) is list else {"$tuple": items}
    if isinstance(value, dict):
        return _split_dict(value, where, tensors)
    if isinstance(value, np.ndarray | np.generic):
        return _split_array(np.asarray(value), where, tensors, isinstance(value, np.generic))
    if torch.is_tensor(value):
        tensors[where] = value.detach().cpu().contiguous()
        return {"$tensor": where}
    raise TypeError(f"{where} must be plain data to be stored. Got {type(value).__name__}.")


def _split_dict(value, where, tensors):
    if all(type(key) is str and key[:1] != "$" for key in value):
        return {key: _split(item, f"{where}.{key}", tensors) for key, item in value.items()}
    pairs = [
        [_split(key, f"{where}.{i}.key", tensors), _split(item, f"{where}.{i}", tensors)]
        for i, (key, item) in enumerate(value.items())
    ]
    return {"$dict": pairs}


def _split_array(array, where, tensors, is_scalar):
    if is_scalar:
        if array.dtype.kind not in _NUMBERS + "U":
            raise TypeError(f"{where} must be plain data to be stored. Got {array.dtype}.")
        return {"$scalar": _split(array.item(), where, tensors), "dtype": array.dtype.str}
    if array.dtype.kind in _NUMBERS:
        tensors[where] = torch.from_numpy(np.array(array, array.dtype.newbyteorder("="), order="C"))
        return {"$array": where}
    if array.dtype.kind not in "OU":
        raise TypeError(f"{where} must be plain data to be stored. Got an array of {array.dtype}.")
    items = _split(array.ravel().tolist(), where, tensors)
    return {"$items": items, "shape": list(array.shape), "kind": array.dtype.kind}


def is_plain(value):
    """Say whether :func:`split` accepts a value."""
    try:
        split(value)
    except TypeError:
        return False
    return True


def plain_attributes(part):
    """Return the public attributes of an object that are plain data."""
    return {k: v for k, v in vars(part).items() if k[:1] != "_" and is_plain(v)}


def join(plain, tensors):
    """Return the value that :func:`split` converted.

    Raises
    ------
    ValueError
        If these are not what it gave.
    """
    if isinstance(plain, list):
        return [join(item, tensors) for item in plain]
    if not isinstance(plain, dict):
        return plain
    tags = [key for key in plain if key[:1] == "$"]
    if not tags:
        return {key: join(item, tensors) for key, item in plain.items()}
    try:
        return _JOIN[tags[0]](plain, tensors)
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise ValueError(f"{str(plain)[:60]!r} is not stored data: {error!r:.200}.") from error


def _join_scalar(plain, tensors):
    if np.dtype(plain["dtype"]).kind == "U":
        return np.str_(plain["$scalar"])
    if np.dtype(plain["dtype"]).kind not in _NUMBERS:
        raise ValueError(f"no scalar of {plain['dtype']!r:.20} is stored")
    return np.array(join(plain["$scalar"], tensors), plain["dtype"])[()]


def _join_items(plain, tensors):
    items = join(plain["$items"], tensors)
    array = np.empty(len(items), object)
    array[:] = items
    # As wide as the longest str: a width from the file could ask for any amount of memory.
    return array.astype({"O": object, "U": str}[plain["kind"]]).reshape(plain["shape"])


_JOIN = {
    "$float": lambda plain, tensors: {"nan": np.nan, "inf": np.inf, "-inf": -np.inf}[
        plain["$float"]
    ],
    "$tuple": lambda plain, tensors: tuple(join(plain["$tuple"], tensors)),
    "$dict": lambda plain, tensors: {
        join(key, tensors): join(item, tensors) for key, item in plain["$dict"]
    },
    "$tensor": lambda plain, tensors: tensors[plain["$tensor"]],
    "$array": lambda plain, tensors: tensors[plain["$array"]].numpy(),
    "$scalar": _join_scalar,
    "$items": _join_items,
}
