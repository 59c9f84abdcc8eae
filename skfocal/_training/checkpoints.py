"""Checkpoints of a fit in a folder: written completely or not at all, and verified."""

import functools
import json
import os
import shutil
import time
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from filelock import FileLock, Timeout
from sklearn.utils import check_random_state
from torch import nn

from skfocal._runtime.process_group import ALONE
from skfocal._runtime.warnings import warn
from skfocal._storage.encoder_state import unshared
from skfocal._storage.format_head import check_head, format_head
from skfocal._storage.plain_data import is_plain, join, plain_attributes, split
from skfocal._utils.files import UNFINISHED, sha256_of_file, whole_folder
from skfocal._utils.hashing import digest

_FORMAT = "skfocal.checkpoint"
_VERSION = 3  # 2: no pooling; 1: other parameter names
_PACKAGES = ("numpy", "torch", "transformers")
_KEPT = 2
_STATE, _TENSORS, _SUMS = "state.json", "state.safetensors", "sha256.txt"


class Checkpoints:
    """The checkpoints of one fit, a context manager that locks their folder.

    Each is a folder ``checkpoint-<number>`` of a JSON file, a safetensors file and their
    checksums, in the format of ``sha256sum --check``. It gets its name once all of it is on the
    disk. The last two are kept.

    Parameters
    ----------
    folder : str, path or None
        Created if it does not exist. None: no checkpoints.
    steps : int or None
        Updates between two checkpoints.
    minutes : float or None
        Minutes between two checkpoints.
    processes : Processes, default=ALONE
        The processes that train together; the first one reads and writes for all.
    renewed : callable ``(dict) -> dict``, default=dict
        Updates the descriptions of parameters that an earlier version stored.

    Attributes
    ----------
    found : dict or None
        State of the newest complete checkpoint.
    """

    def __init__(self, folder, steps=None, minutes=None, processes=ALONE, renewed=dict):
        self.folder: Any = None if folder is None else Path(folder).expanduser().absolute()
        self.steps = steps
        self.minutes = minutes
        self.processes = processes
        self.renewed = renewed
        self.found = None
        self.identity: dict = {}
        self.n_steps = 0

    def __enter__(self):
        if self.folder is not None:
            self.found = self.processes.first(self._open)
            self.last = time.monotonic()
        return self

    def _open(self):
        """Lock the folder; return the state of the newest complete checkpoint."""
        self._check_folder()
        self.lock = FileLock(self.folder / ".lock", timeout=0)
        try:
            self.lock.acquire()
        except Timeout as error:
            raise RuntimeError(
                f"checkpoint={str(self.folder)!r} is in use by another fit: give each its own."
            ) from error
        try:
            for left_over in self.folder.glob(f"{UNFINISHED}*"):
                shutil.rmtree(left_over)
            return self._newest()
        except BaseException:
            self.lock.release()
            raise

    def _check_folder(self):
        """Create the folder; refuse one that holds other files, which might get lost."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            others = sorted(path.name for path in self.folder.iterdir())
        except OSError as error:
            raise OSError(
                f"checkpoint must be a folder. Got {str(self.folder)!r}: {error}."
            ) from error
        if others and ".lock" not in others:
            raise ValueError(
                "checkpoint must be a new or an empty folder, or one with checkpoints of an "
                f"earlier call. Got {str(self.folder)!r} with {others[:3]} in it."
            )

    def __exit__(self, *exception):
        if self.folder is not None and self.processes.is_first:
            self.lock.release()

    def random_state(self, seed):
        """Return the generator of the fit, in its state when the continued fit began."""
        rng = check_random_state(seed)
        if self.found is not None:
            if seed is None and self.found["complete"]:
                rng = np.random.RandomState()  # draws nothing; numpy's own stays as it is
            rng.set_state(self.found["begin"])
        if self.folder is not None:
            self.begin = rng.get_state()
        return rng

    # -- writing ---------------------------------------------------------------------------

    def is_due(self):
        """Count an update; say whether a checkpoint is due after it."""
        if self.folder is None:
            return False
        self.n_steps += 1
        by_steps = self.steps is not None and self.n_steps >= self.steps
        return by_steps or (
            self.minutes is not None and time.monotonic() - self.last >= 60 * self.minutes
        )

    def write(self, state):
        """Write a checkpoint completely or not at all; delete all but the last two."""
        self.processes.first(self._write, state)
        self.n_steps, self.last = 0, time.monotonic()

    def _write(self, state):
        plain, tensors = split({**state, "begin": self.begin}, "state")
        head = format_head(_FORMAT, _VERSION, _PACKAGES)
        content = {**head, "fit": self.identity, "state": plain}
        numbers = [number for number, _ in self._all()]
        used = [number for number, _ in self._all("broken-checkpoint-")] + numbers
        name = f"checkpoint-{max(used, default=0) + 1:06d}"
        try:
            with whole_folder(self.folder / name) as work:
                (work / _STATE).write_text(json.dumps(content))
                safetensors.torch.save_file(unshared(tensors), work / _TENSORS)
                sums = [f"{sha256_of_file(work / file)}  {file}\n" for file in (_STATE, _TENSORS)]
                (work / _SUMS).write_text("".join(sums))
        except (OSError, safetensors.SafetensorError) as error:
            before = f"{numbers[0]:06d} is" if numbers else "There is none before it that is"
            raise OSError(
                f"A checkpoint cannot be written to {str(self.folder)!r}: {error}. "
                f"{'checkpoint-' * bool(numbers)}{before} whole: make room and call fit again to "
                "go on from it."
            ) from error
        for _, old in self._all()[_KEPT:]:
            self._remove(old)

    def _remove(self, folder):
        # Renamed first: a half-deleted checkpoint must not look like a complete one.
        shutil.rmtree(folder.rename(self.folder / f"{UNFINISHED}{folder.name}"))

    def _all(self, prefix="checkpoint-"):
        """Return ``(number, folder)`` of the checkpoints, newest first."""
        found = [(f.name.removeprefix(prefix), f) for f in self.folder.glob(f"{prefix}*")]
        return sorted(((int(n), f) for n, f in found if n.isdigit()), reverse=True)

    # -- reading ---------------------------------------------------------------------------

    def _newest(self):
        for _, folder in self._all():
            try:
                content, tensors = _read(folder)
            except (OSError, ValueError, safetensors.SafetensorError) as error:
                warn(
                    f"{str(folder)!r} is not whole and is not used: {error} The one before it is "
                    "taken, if there is one."
                )
                folder.rename(self.folder / f"broken-{folder.name}")
                continue
            self.identity = content["fit"]
            if content["format_version"] < 3:
                self.identity["parameters"] = self.renewed(self.identity["parameters"])
            return join(content["state"], tensors)
        return None

    def check(self, parameters, **data):
        """Raise ValueError if the checkpoint belongs to a different fit; else store the identity.

        Parameters
        ----------
        parameters : dict
            The parameters of the estimator that the result depends on.
        **data : dict of lists of arrays
            The data that the fit begins with, by their names in messages.
        """
        if self.folder is not None:
            self.processes.first(self._check, parameters, data)

    def _check(self, parameters, data):
        identity = {
            "parameters": {name: describe(value) for name, value in parameters.items()},
            "data": {name: _hash(arrays) for name, arrays in data.items()},
        }
        if self.found is not None and self.identity != identity:
            raise ValueError(
                f"checkpoint={str(self.folder)!r} is of another fit: "
                f"{_difference(self.identity, identity)}. Give another folder, or remove this one "
                "to train from the beginning."
            )
        self.identity = identity


def _read(folder):
    if not (folder / _SUMS).exists():
        raise OSError(f"{_SUMS} is missing.")
    sums = dict(reversed(line.split()) for line in (folder / _SUMS).read_text().splitlines())
    for file in (_STATE, _TENSORS):
        if sums.get(file) != sha256_of_file(folder / file):
            raise ValueError(f"{file} does not have the checksum in {_SUMS}.")
    content = json.loads((folder / _STATE).read_text())
    if content.get("format") == 1:
        content |= {"format": _FORMAT, "format_version": 1}
    check_head(content, _STATE, _FORMAT, _VERSION)
    return content, safetensors.torch.load_file(folder / _TENSORS)


def _difference(before, now):
    was, is_ = before["parameters"], now["parameters"]
    parts = [
        f"{name} was {_short(was.get(name))} and is {_short(is_.get(name))}"
        for name in {**is_, **was}
        if was.get(name) != is_.get(name)
    ]
    # Different parameters may be the reason why the data differ.
    changed = [name for name, value in now["data"].items() if before["data"].get(name) != value]
    return "; ".join(parts or [f"{name.replace('_', ' ')} differ" for name in changed])


def _short(text, limit=60):
    return text if text is None or len(text) <= limit else text[:limit] + "..."


def describe(value):
    """Return a text that is equal for equal settings, also between processes."""
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(describe, value))}]"
    if isinstance(value, set | frozenset):
        return f"{{{', '.join(sorted(map(describe, value)))}}}"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{k!r}: {describe(v)}" for k, v in value.items()) + "}"
    if is_plain(value):
        plain, tensors = split(value, "value")
        hashes = [_hash([tensor]) for tensor in tensors.values()]
        return json.dumps(plain) + "".join(f" {h[:16]}" for h in hashes)
    if isinstance(value, functools.partial):
        return f"partial({describe([value.func, value.args, value.keywords])})"
    if isinstance(value, type) or hasattr(value, "__qualname__"):
        return f"{value.__module__}.{value.__qualname__}{_describe_code(value)}"
    name = describe(type(value))
    if isinstance(value, os.PathLike):
        return json.dumps(os.fspath(value))
    if isinstance(value, nn.Module):
        own = describe(plain_attributes(value))
        return f"{name} {value} {own} {_hash(value.state_dict().values())[:16]}"
    if hasattr(value, "get_params"):
        return f"{name}{describe(value.get_params(deep=False))}"
    if hasattr(value, "to_dict"):  # a Series
        return f"{name}{describe(value.to_dict())}"
    text = repr(value)
    return name if " at 0x" in text else f"{name} {text}"


def _describe_code(function):
    """Return a hash of the code of a function, and its plain bound data."""
    code = getattr(function, "__code__", None)
    if code is None:
        return ""
    cells = [cell.cell_contents for cell in function.__closure__ or ()]
    bound = [*cells, *(function.__defaults__ or ()), *(c for c in code.co_consts if is_plain(c))]
    return f" {digest(code.co_code).hex()[:16]} {describe([v for v in bound if is_plain(v)])}"


def _hash(arrays):
    parts = []
    for array in arrays:
        if torch.is_tensor(array):
            # numpy has no bfloat16.
            array = array.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
        parts.append(np.ascontiguousarray(array).tobytes())
    return digest(*parts).hex()
