"""The output of frozen lower layers, computed once for each distinct document.

Kept are the documents of a training, and those that are predicted a second time, as the fits of a
search predict those they are scored on.
"""

import contextlib
import glob
import itertools
import math
import os
import shutil
import threading
from typing import Any

import numpy as np
import torch
from torch import nn

from skfocal._data.tokenization import encoder_inputs, laid_out, stored_ids
from skfocal._encoder.structure import (
    example_ids,
    layers_of,
    n_positions,
    needs_equal_lengths,
    parameter_depths,
)
from skfocal._runtime.array_store import FileStore
from skfocal._runtime.devices import AUTOCAST
from skfocal._runtime.warnings import warn
from skfocal._runtime.workers import remove_shared, shared_folder
from skfocal._utils.hashing import digest

_STORES: dict = {}  # folder -> FileStore
_LISTING = threading.Lock()  # of the stores, their count and the predicted documents
_n_forgotten = 0  # documents of stores that were cleared
_LIMIT = 16_000_000_000  # bytes in files
_REPEATED_LIMIT = _LIMIT // 4  # bytes of one store, above which predictions add nothing
_PREDICTED: set = set()  # folder and key of documents that were predicted
_MOST_PREDICTED = 100_000
_WIDTH = 7  # tokens of the longer of two rows that try a replay
_AT_ONCE = 256  # documents between two writes
# Rows computed together, and the multiple of tokens they are padded to. Documents of one padded
# length are always computed in the same shape, so that the output of one does not depend on those
# it meets, and keeping it changes no bit. On a CPU four short ones at once take half the time of
# one by one; a longer one is computed alone.
_SHAPES = {"cpu": (4, 16), "cuda": (32, 32)}
_SHORT = {"cpu": 64}


class FrozenLayers:
    """Compute, keep and replay the output of the lowest layers of an encoder.

    The layers run without dropout. Computing and replaying temporarily change the encoder: where
    several threads use it, the caller lets them take turns.

    Parameters
    ----------
    encoder : transformers.PreTrainedModel
        Its lowest `n_layers` layers and what lies below them do not learn.
    n_layers : int
        At least 1.
    precision : {"float32", "bfloat16", "float16"}
        As in :class:`~skfocal._training.net.FocalNet`.
    """

    def __init__(self, encoder, n_layers, precision):
        self.encoder = encoder
        self.layers = layers_of(encoder)[:n_layers]
        self.precision = precision
        self.device = next(encoder.parameters()).device
        self.shape = _SHAPES.get(self.device.type, _SHAPES["cuda"])
        self.longest_together = _SHORT.get(self.device.type, math.inf)
        self.limit = n_positions(encoder) or math.inf
        self.parameters = [p for p, depth in parameter_depths(encoder) if depth <= n_layers]
        self.versions = self._versions()
        self.store: Any = None
        with torch.enable_grad():
            probe = self._run([np.zeros(2, np.int32)], 2)
        self.dtype, self.width = probe.dtype, probe.shape[-1]
        # In some architectures a trained weight affects the lower layers, or they hand more than
        # their output to those above: then nothing can be kept.
        self.is_constant = not probe.requires_grad and self._can_be_replayed()

    def is_current(self):
        """Say whether the frozen weights are unchanged."""
        return self.versions == self._versions()

    def _versions(self):
        return [(p.data_ptr(), p._version) for p in self.parameters]

    def _open_store(self):
        config = self.encoder.config.to_dict()
        for name in ("id2label", "label2id", "_name_or_path", "use_cache"):
            config.pop(name, None)
        weights = [memoryview(p.detach().cpu().numpy().reshape(-1)) for p in self.parameters]
        kind = type(self.encoder).__name__, len(self.layers), self.precision, self.device.type
        folder = shared_folder() / f"frozen-{digest(*kind, sorted(config.items()), *weights).hex()}"
        with _LISTING:
            if folder not in _STORES:
                _STORES[folder] = FileStore(folder, np.float32, self.width)
            return _STORES[folder]

    def _can_be_replayed(self):
        """Say whether two rows have the same logits when the output of the layers is replayed."""
        if needs_equal_lengths(self.encoder):
            return False
        inputs = self._inputs(
            [np.array(example_ids(self.encoder, n), np.int32) for n in (_WIDTH, 3)], _WIDTH
        )
        try:
            with torch.no_grad(), self._in_precision():
                whole = self.encoder(**inputs).logits
                hidden = self._output(inputs)[:, :_WIDTH]  # what is kept: no padding
                with self.replay(hidden * inputs["attention_mask"][..., None]):
                    replayed = self.encoder(**inputs).logits
        except Exception:  # layers above may miss anything
            return False
        tolerance = torch.finfo(whole.dtype).eps ** 0.5 * whole.abs().max()
        return bool(((whole - replayed).abs() <= tolerance).all())

    # -- compute ---------------------------------------------------------------------------

    def _inputs(self, rows, width):
        flat, starts, lengths = laid_out(rows)
        inputs = encoder_inputs(flat, starts, lengths, pad_id=0, width=width).items()
        return {name: torch.from_numpy(value).to(self.device) for name, value in inputs}

    @contextlib.contextmanager
    def _in_precision(self):
        """Compute without dropout, under the autocast of the precision."""
        half = AUTOCAST.get(self.precision)
        was_training = self.encoder.training
        self.encoder.eval()
        try:
            with torch.autocast(self.device.type, half, enabled=half is not None):
                yield
        finally:
            self.encoder.train(was_training)

    def _run(self, rows, width):
        """Return the output of the last frozen layer for padded rows."""
        with self._in_precision():
            return self._output(self._inputs(rows, width))

    def _output(self, inputs):
        """Return the output of the last frozen layer; the layers above do not run."""
        caught = []

        def catch(module, args, output):
            # The rest of a tuple are attention weights, None unless asked for.
            self.rest = (None,) * (len(output) - 1) if isinstance(output, tuple) else None
            caught.append(output if self.rest is None else output[0])
            raise _Caught

        handle = self.layers[-1].register_forward_hook(catch)
        try:
            self.encoder(**inputs)
        except _Caught:
            pass
        finally:
            handle.remove()
        return caught[0]

    def compute(self, ids):
        """Return the output of each document, float32 of shape (n_tokens, width)."""
        while True:
            try:
                return self._compute(ids)
            except torch.OutOfMemoryError:
                if self.shape[0] == 1:
                    raise torch.OutOfMemoryError(
                        "The device has too little memory for the frozen layers and a single "
                        f"document of {max(map(len, ids))} tokens. Lower max_length or take a "
                        "smaller model."
                    ) from None
            self.shape = self.shape[0] // 2, self.shape[1]

    def _compute(self, ids):
        result: list = [None] * len(ids)
        with torch.no_grad(), self._half_weights():
            for rows, (n_rows, length) in self._groups([len(row) for row in ids]):
                filling = [np.zeros(1, np.int32)] * (n_rows - len(rows))
                batch = [ids[i] for i in rows] + filling
                hidden = self._run(batch, length).float().cpu().numpy()
                for row, i in enumerate(rows):
                    result[i] = hidden[row, : len(ids[i])].copy()
        return result

    def _groups(self, lengths):
        """Yield the numbers of documents that are computed together, and their common shape."""
        shapes = [self._shape_of(n) for n in lengths]
        order = sorted(range(len(lengths)), key=shapes.__getitem__)
        for shape, same in itertools.groupby(order, key=shapes.__getitem__):
            documents = list(same)
            for start in range(0, len(documents), shape[0]):
                yield documents[start : start + shape[0]], shape

    def _shape_of(self, n_tokens):
        """Return rows and tokens of the shape in which a document of this length is computed."""
        n_rows, multiple = self.shape
        if n_tokens > self.longest_together:
            return 1, n_tokens
        return n_rows, max(n_tokens, min(-(-n_tokens // multiple) * multiple, self.limit))

    @contextlib.contextmanager
    def _half_weights(self):
        """Round the weights once for many documents; autocast would do it for each."""
        linear = [m for layer in self.layers for m in layer.modules() if isinstance(m, nn.Linear)]
        whole = [module.weight for module in linear]
        if half := AUTOCAST.get(self.precision):
            for module in linear:
                module.weight = nn.Parameter(module.weight.to(half), requires_grad=False)
        try:
            yield
        finally:
            for module, weight in zip(linear, whole, strict=True):
                module.weight = weight

    # -- keep and replay -------------------------------------------------------------------

    def start_keeping(self):
        """Keep outputs from now on, and take those that are kept.

        A process that only predicts does not.
        """
        if self.store is None:
            self.store = self._open_store()

    def prepare(self, tokens):
        """Compute and keep the output of each document that no process has kept yet."""
        self.start_keeping()
        tokens, _ = tokens.windows()
        for start in range(0, len(tokens), _AT_ONCE):
            some = [tokens[i] for i in range(start, min(start + _AT_ONCE, len(tokens)))]
            if not self._has_room(sum(map(len, some))):
                return self._warn_of_no_room()
            self.store.fetch(
                [_key(row) for row in some],
                lambda rows, some=some: [(x, 0) for x in self.compute([some[i] for i in rows])],
            )

    def _has_room(self, n_tokens):
        n_bytes = n_tokens * self.width * 4
        free = shutil.disk_usage(shared_folder()).free
        return self._used() + n_bytes <= _LIMIT and 2 * n_bytes < free

    def _used(self):
        # Unlike a path's, this glob does not mind folders that are cleared meanwhile.
        folder = glob.escape(str(shared_folder()))
        return sum(map(_size, glob.glob(f"{folder}/frozen-*/files-*/*.data")))

    def _warn_of_no_room(self):
        warn(
            f"The kept outputs of frozen layers fill {self._used() / 1e9:.1f} GB in "
            f"{str(self.store.folder.parent)!r} and no more are kept: the others are computed in "
            "each epoch. skfocal.clear_cache() empties it."
        )

    def batch(self, **inputs):
        """Return the outputs of a padded batch, (n, length, width), kept or computed now."""
        ids = stored_ids(**{name: x.numpy() for name, x in inputs.items()})
        lengths, keys = [len(row) for row in ids], [_key(row) for row in ids]
        kept: Any = self.store.find(keys) if self.store else [None] * len(keys)
        missing = [i for i, entry in enumerate(kept) if entry is None]
        computed = self.compute([ids[i] for i in missing]) if missing else []
        hidden = np.zeros((*inputs["input_ids"].shape, self.width), np.float32)
        for i, output in zip(missing, computed, strict=True):
            hidden[i, : lengths[i]] = output
        for i in set(range(len(kept))).difference(missing):
            hidden[i, : lengths[i]] = kept[i][0]
        if missing and self.store and not self.encoder.training:
            with contextlib.suppress(OSError):  # no prediction fails because it cannot be kept
                self._keep_repeated([keys[i] for i in missing], computed)
        return torch.from_numpy(hidden).to(self.device, self.dtype)

    def _keep_repeated(self, keys, outputs):
        """Keep those of predicted documents that were predicted before."""
        documents = [(self.store.folder, key) for key in keys]
        with _LISTING:
            if self.store not in _STORES.values():
                return  # it was cleared, and stays empty
            repeated = [i for i, document in enumerate(documents) if document in _PREDICTED]
            if len(_PREDICTED) > _MOST_PREDICTED:
                _PREDICTED.clear()
            _PREDICTED.update(documents)
        n_tokens = sum(len(outputs[i]) for i in repeated)
        n_bytes = self.store.n_bytes + n_tokens * self.width * 4
        if repeated and n_bytes <= _REPEATED_LIMIT and self._has_room(n_tokens):
            self.store.fetch(
                [keys[i] for i in repeated],
                lambda rows: [(outputs[repeated[row]], 0) for row in rows],
            )

    @contextlib.contextmanager
    def replay(self, hidden):
        """Let the frozen layers return `hidden` instead of computing."""
        output = hidden if self.rest is None else (hidden, *self.rest)
        own = [layer.__dict__.get("forward") for layer in self.layers]
        for layer in self.layers:
            layer.forward = lambda *args, **kwargs: output
        try:
            yield
        finally:
            for layer, forward in zip(self.layers, own, strict=True):
                del layer.forward
                if forward is not None:
                    layer.forward = forward


class _Caught(Exception):
    """Ends a forward pass at the last frozen layer."""


def _key(ids):
    return digest(ids.astype(np.int32).tobytes())


def _size(path):
    try:
        return os.path.getsize(path)
    except FileNotFoundError:  # cleared by another thread or process meanwhile
        return 0


def frozen_cache_info():
    """Return how many documents this process has sent through frozen layers to keep."""
    with _LISTING:
        return {"documents_frozen": _n_forgotten + sum(s.n_made for s in _STORES.values())}


def clear_frozen_cache():
    """Forget the outputs of frozen layers and remove their files."""
    global _n_forgotten
    with _LISTING:
        stores = list(_STORES.values())
        _n_forgotten += sum(store.n_made for store in stores)
        _STORES.clear()
        _PREDICTED.clear()
    for store in stores:  # a fit in another thread may go on with one
        store.clear()
    remove_shared("frozen-*")  # of workers, too
