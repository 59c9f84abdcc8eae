"""One row of logits a document, from those of its pieces."""

import numpy as np
import torch

POOLINGS = ("mean", "max", "logsumexp")


def pool(logits, table, pooling):
    """Return the logits of documents.

    Parameters
    ----------
    logits : tensor of shape (n_windows, n_classes)
    table : int64 tensor of shape (n, most pieces)
        Rows of each document's pieces, -1 where it has less.
    pooling : {"mean", "max", "logsumexp"}
        The mean of a class's logits, the largest, or the logarithm of the mean of their
        exponentials, which lies between the two. A document of one piece keeps its logits.

    Returns
    -------
    tensor of shape (n, n_classes)
    """
    inside = (table >= 0).unsqueeze(-1)
    parts = logits[table.clamp(min=0)]
    if pooling == "mean":
        return torch.where(inside, parts, 0).sum(1) / inside.sum(1)
    parts = torch.where(inside, parts, -torch.inf)
    if pooling == "max":
        return parts.amax(1)
    return parts.logsumexp(1) - inside.sum(1).to(parts.dtype).log()


def pool_all(logits, counts, pooling):
    """Return the same for many documents, as arrays, with no table of all their pieces.

    Parameters
    ----------
    logits : float32 ndarray of shape (n_windows, n_classes)
        The pieces of all documents, one behind the other.
    counts : int ndarray of shape (n,)
        Pieces of each.
    pooling : {"mean", "max", "logsumexp"}

    Returns
    -------
    float32 ndarray of shape (n, n_classes)
    """
    if len(logits) == len(counts):
        return logits
    first = np.cumsum(counts) - counts
    result = np.empty((len(counts), logits.shape[1]), logits.dtype)
    for count in np.unique(counts):
        rows = np.flatnonzero(counts == count)
        table = torch.from_numpy(first[rows, None] + np.arange(count))
        result[rows] = pool(torch.from_numpy(logits), table, pooling).numpy()
    return result
