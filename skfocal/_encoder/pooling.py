"""Pool the logits of a document's windows."""

import numpy as np
import torch

POOLINGS = ("mean", "max", "logsumexp")


def pool(logits, table, pooling):
    """Return the logits of documents, pooled over their windows.

    Parameters
    ----------
    logits : tensor of shape (n_windows, n_classes)
    table : int64 tensor of shape (n, most windows)
        Rows of each document's windows, filled with -1 for documents that have fewer.
    pooling : {"mean", "max", "logsumexp"}
        The mean of a class's logits, the largest, or the logarithm of the mean of their
        exponentials, which lies between the two. A document of one window keeps its logits.

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
    """Pool the logits of many documents, as arrays, without a table of all windows.

    Parameters
    ----------
    logits : float32 ndarray of shape (n_windows, n_classes)
        Logits of the concatenated windows of all documents.
    counts : int ndarray of shape (n,)
        Number of windows of each document.
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
