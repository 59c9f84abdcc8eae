"""Documents some at a time, of X or of one chunk of it after another; answers put together."""

import contextlib

import numpy as np

from skfocal._data.texts import NO_DOCUMENT, is_stream
from skfocal._utils.messages import excerpt


def slices(X, check, size):
    """Yield lists of at most `size` documents, in their order.

    Parameters
    ----------
    X : container of texts, or iterator of such
        What has no length is one of chunks, each of which may be what X may be; empty ones are
        passed over. A streamed data set of the package `datasets` is read `size` rows at a time.
    check : callable ``(X) -> sequence``
        Makes documents of a container: `as_texts` and what else is checked.
    size : int

    Raises
    ------
    TypeError, ValueError
        As `check`; of a chunk, with its number. Also if no chunk has a document.
    """
    if not is_stream(X):
        yield from _in_slices(check(X), size)
        return
    found, i = False, 0  # enumerate would hold a chunk while the next is read
    for chunk in _chunks(X, size):
        with _of_chunk(i):
            _check_chunk(chunk)
            if not hasattr(chunk, "__len__") or len(chunk):
                found = True
                yield from _in_slices(check(chunk), size)
        del chunk
        i += 1
    if not found:
        raise ValueError(NO_DOCUMENT)


def _in_slices(texts, size):
    return (texts[start : start + size] for start in range(0, len(texts), size))


def _chunks(X, size):
    if hasattr(X, "select_columns"):  # datasets.IterableDataset, whose rows are dicts
        return X.with_format("arrow").iter(size)
    return X


def _check_chunk(chunk):
    if isinstance(chunk, str | bytes):
        raise TypeError(
            "an iterator must yield chunks of documents, such as lists of str, not one document "
            f"at a time. Got {excerpt(chunk)}: iter(lambda: list(itertools.islice(X, 10_000)), []) "
            "makes chunks of an iterator X."
        )


@contextlib.contextmanager
def _of_chunk(i):
    """Name the chunk in errors."""
    try:
        yield
    except (TypeError, ValueError) as error:
        kind = TypeError if isinstance(error, TypeError) else ValueError
        raise kind(f"Chunk {i} of X: {error}") from error


def concatenated(arrays):
    """Return arrays one behind the other, letting go of each as it is copied.

    Parameters
    ----------
    arrays : list of ndarrays, one at least
        Alike but for their lengths; it is emptied.
    """
    if len(arrays) == 1:
        return arrays.pop()
    n = sum(map(len, arrays))
    whole, start = np.empty((n, *arrays[0].shape[1:]), arrays[0].dtype), 0
    arrays.reverse()
    while arrays:
        array = arrays.pop()
        whole[start : start + len(array)] = array
        start += len(array)
    return whole
