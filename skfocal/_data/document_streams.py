"""Read documents in slices, from X or from the chunks that X yields; concatenate the results."""

import contextlib

import numpy as np

from skfocal._data.texts import NO_DOCUMENT, is_stream
from skfocal._utils.messages import excerpt


def slices(X, check, size):
    """Yield slices of at most `size` documents, in order.

    Parameters
    ----------
    X : container of texts, or iterator of such containers
        If X has no length, it yields chunks, each a container of texts; empty chunks are skipped.
        A streamed data set of the package `datasets` is read `size` rows at a time.
    check : callable ``(X) -> sequence``
        Returns the documents of a container, checked; calls `as_texts`.
    size : int

    Raises
    ------
    TypeError, ValueError
        As `check` raises them, with the number of the chunk; also if no chunk has a document.
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
    """Prefix errors with the number of the chunk."""
    try:
        yield
    except (TypeError, ValueError) as error:
        kind = TypeError if isinstance(error, TypeError) else ValueError
        raise kind(f"Chunk {i} of X: {error}") from error


def concatenated(arrays: list[np.ndarray]) -> np.ndarray:
    """Return the concatenated arrays, freeing each one as soon as it is copied.

    Parameters
    ----------
    arrays : list of at least one ndarray
        Arrays that differ only in length. The list is emptied.
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
