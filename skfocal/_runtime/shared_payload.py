"""Payloads from another process: texts, their token ids and a pretrained model."""

import threading
from collections import OrderedDict
from dataclasses import dataclass

import numpy as np

from skfocal._runtime.array_store import PackedStore


class PackedTexts:
    """Texts or pairs of texts in two arrays, which processes share without a copy.

    Parameters
    ----------
    texts : list of str or of (str, str)
    """

    def __init__(self, texts):
        self.width = 1 if isinstance(texts[0], str) else 2
        rows = texts if self.width == 1 else [text for pair in texts for text in pair]
        # A str may contain lone surrogates.
        raw = [text.encode("utf-8", "surrogatepass") for text in rows]
        self.ends = np.cumsum([len(text) for text in raw], dtype=np.int64)
        self.flat = np.frombuffer(b"".join(raw), np.uint8)

    def __len__(self):
        return len(self.ends) // self.width

    def __getitem__(self, i):
        if self.width == 1:
            return self._text(i)
        return self._text(2 * i), self._text(2 * i + 1)

    def _text(self, i):
        start = self.ends[i - 1] if i else 0
        return self.flat[start : self.ends[i]].tobytes().decode("utf-8", "surrogatepass")


@dataclass(frozen=True, eq=False)
class Payload:
    """Data that is prepared once and sent to all workers of a search.

    Attributes
    ----------
    texts : PackedTexts
    tokens : skfocal._runtime.array_store.PackedStore
        Their token ids, by the keys of :mod:`skfocal._data.tokens`.
    pretrained : dict
        A tokenizer and weights, by the keys of :mod:`skfocal._encoder.pretrained`.
    """

    texts: PackedTexts
    tokens: PackedStore
    pretrained: dict

    @property
    def n_bytes(self):
        """Size of the texts, the token ids and the weights."""
        weights = [value.weights for key, value in self.pretrained.items() if key[0] == "weights"]
        arrays: list = [self.texts.flat, self.texts.ends, self.tokens.flat, self.tokens.keys]
        arrays += [array for of_one in weights for array in of_one.values()]
        return sum(array.nbytes for array in arrays)


_N_KEPT = 2
_ARRIVED: OrderedDict[str, Payload] = OrderedDict()
_LOCK = threading.RLock()


def open_payload(name, fetch):
    """Return the payload of this name, fetched on first use; the last two are kept."""
    with _LOCK:
        if name not in _ARRIVED:
            _ARRIVED[name] = fetch()
            if len(_ARRIVED) > _N_KEPT:
                _ARRIVED.popitem(last=False)
        if next(reversed(_ARRIVED)) != name:
            _ARRIVED.move_to_end(name)
        return _ARRIVED[name]


def clear_payloads():
    """Forget all payloads; they are fetched again when they are needed."""
    with _LOCK:
        _ARRIVED.clear()


def _latest_first():
    with _LOCK:
        return list(reversed(_ARRIVED.values()))


def any_tokens():
    """Say whether there are token ids from another process."""
    return bool(_ARRIVED)


def find_tokens(keys):
    """Return the entry of each key, or None where no payload has it."""
    entries = [None] * len(keys)
    for payload in _latest_first():
        missing = [i for i, entry in enumerate(entries) if entry is None]
        for i, entry in zip(missing, payload.tokens.find([keys[i] for i in missing]), strict=True):
            entries[i] = entry
    return entries


def find_pretrained(key):
    """Return the tokenizer or weights that a payload has under this key, or None.

    The last part of a key identifies the state of the model's folder. It is empty if the folder
    does not exist in this process; then the state in the process that read the folder is accepted.
    A folder that exists here with other files does not match.
    """
    for payload in _latest_first():
        for known, value in payload.pretrained.items():
            if known == key or (known[:-1] == key[:-1] and key[-1] == ()):
                return value
    return None
