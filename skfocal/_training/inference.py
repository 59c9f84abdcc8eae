"""Compute the logits or features of documents with a fitted net, also in another precision."""

import contextlib
import functools

import numpy as np
import torch

from skfocal._data.batches import Collator, TokenDataset, sorted_batches
from skfocal._encoder.known_mask import to_device
from skfocal._encoder.pooling import pool_all
from skfocal._encoder.quantization import reduced_copy
from skfocal._runtime.allocator import kept_memory
from skfocal._runtime.threads import mind_fork

_TOKENS_AT_ONCE = 1024  # of a batch in prediction on a CPU; docs/benchmarks/ways.md


def compute_logits(net, tokens, precision):
    """Return float32 logits of shape (n, n_classes) for :class:`Tokens`, in order.

    `precision` is one of the module quantization; None predicts as the net was trained.
    """
    step = _step(net, precision, net.evaluation_step, "__call__")
    with _weights_kept(net, precision):
        return _compute(net, tokens, step, net.pooling)


def compute_features(net, tokens, precision):
    """Return what the logits are computed from, float32 of shape (n, width), in order.

    That of a document in windows is the mean of theirs.
    """
    step = _step(net, precision, net.feature_step, "features")
    with _weights_kept(net, precision):
        return _compute(net, tokens, step, "mean")


def _weights_kept(net, precision):
    """Let autocast round the weights once for all batches, not once for each."""
    return net.autocast() if precision is None else contextlib.nullcontext()


def _step(net, precision, step, method):
    """Return the step of a batch: the given one, or a method of the module's reduced copy."""
    mind_fork()
    if precision is None:
        net.reduced_ = None, None
        return step
    module = _reduced(net, precision)
    if module.training:
        module.eval()
    reduced = functools.partial(_reduced_step, getattr(module, method), net.device)
    return functools.partial(net.predict_microbatches_.run, reduced)


def _compute(net, tokens, step, pooling):
    """Return the output of a step for each document, pooled over its windows, in order."""
    rows, counts = tokens.windows()
    dataset = TokenDataset(rows)
    batches = prediction_batches(net, dataset)
    step = _watched(net.watch, step, len(tokens) / len(rows))
    if len(batches) == 1:  # a loader would take as long as a small model
        outputs = [step(Collator(net.pad_id)(dataset.__getitems__(batches[0])))]
    else:
        with kept_memory():
            outputs = [step(batch) for batch in net.loader(dataset, batches, "valid")]
    return pool_all(in_order(outputs, batches, net.processes), counts, pooling)


def _watched(watch, step, share):
    """Report the documents of each step; a row is a `share` of a document."""
    if watch is None:
        return step

    def watched(batch):
        output = step(batch)
        watch(len(output) * share)
        return output

    return watched


def _reduced(net, precision):
    """Return the module in another precision, converted once for the present weights.

    A change of weights that torch does not count, through their ``.data``, goes unseen.
    """
    found, reduced = net.reduced_
    if found == _key(net.plain_module(), precision):
        return reduced
    with net.module_at_rest() as module:
        key = _key(module, precision)
        found, reduced = net.reduced_  # another thread may have made it, or may forget it now
        if found != key:
            net.reduced_, reduced = (None, None), None  # free the old copy first
            reduced = reduced_copy(module, precision)
            net.reduced_ = key, reduced
        return reduced


def _key(module, precision):
    versions = [0 if p.is_inference() else p._version for p in module.parameters()]
    return precision, versions, [p.data_ptr() for p in module.parameters()]


def prediction_batches(net, dataset):
    """Return batches of a number of tokens on a CPU, for its caches, else of documents."""
    if torch.device(net.device).type == "cpu":
        return sorted_batches(dataset.tokens.lengths, None, _TOKENS_AT_ONCE)
    # Four times as many as in training, because no gradients are kept.
    return sorted_batches(dataset.tokens.lengths, 4 * net.batch_size)


def in_order(outputs, batches, processes):
    """Return the rows of all batches and processes in order."""
    result = torch.cat(outputs).float().cpu().numpy()
    rows = [row for batch in batches for row in batch]
    parts = processes.all_gather((rows, result))
    ordered = np.empty((1 + max(max(rows) for rows, _ in parts), *result.shape[1:]), np.float32)
    for rows, part in parts:
        ordered[rows] = part
    return ordered


def _reduced_step(forward, device, batch):
    with torch.inference_mode():
        return forward(**to_device(batch[0], device))
