"""Text containers to lists of str, token ids kept across fits, batches of near-equal length."""

import math
import weakref
from dataclasses import dataclass

import numpy as np
import torch
from torch.utils.data import Dataset, Sampler

from skfocal._store import FileStore, MemoryStore, digest, is_worker, shared_folder

# -- containers ----------------------------------------------------------------------------


def as_texts(X):
    """Return the documents in `X` as a list of str.

    Parameters
    ----------
    X : list, tuple, ndarray of shape (n,) or (n, 1), pandas or polars Series or one-column \
            DataFrame, pyarrow array or one-column table
        One str a document.

    Returns
    -------
    list of str

    Raises
    ------
    TypeError
        If X is no such container or a row is not a str; the row is named.
    ValueError
        If X has no rows or more than one column.
    """
    rows = _rows(X)
    if len(rows) == 0:
        raise ValueError(
            "Found array with 0 sample(s) while a minimum of 1 is required: X holds no document."
        )
    for i, row in enumerate(rows):
        if not isinstance(row, str):
            raise TypeError(_bad_row(i, row))
    return [row if type(row) is str else str(row) for row in rows]


def as_column(X):
    """Return the documents in `X` as an array of shape (n, 1), as imbalanced-learn takes them.

    Its samplers refuse lists, one-dimensional arrays and Series. As the first step of a pipeline
    this lets them in.

    Parameters
    ----------
    X : list, tuple, ndarray of shape (n,) or (n, 1), pandas or polars Series or one-column \
            DataFrame, pyarrow array or one-column table
        One str a document.

    Returns
    -------
    ndarray of shape (n, 1), dtype object

    Raises
    ------
    TypeError, ValueError
        If X is no container of texts; the row is named.

    Examples
    --------
    >>> from imblearn.over_sampling import RandomOverSampler
    >>> from imblearn.pipeline import make_pipeline
    >>> from sklearn.preprocessing import FunctionTransformer
    >>> from skfocal import BertFocalClassifier, as_column
    >>> pipeline = make_pipeline(
    ...     FunctionTransformer(as_column), RandomOverSampler(), BertFocalClassifier("some/folder")
    ... )
    >>> as_column(["one text", "another"]).shape
    (2, 1)
    """
    return np.array(as_texts(X), dtype=object)[:, None]


def _rows(X):
    if isinstance(X, str | bytes):
        raise TypeError(
            f"X must be a list of str, one a document, not a single {type(X).__name__}. "
            f"Got {_short(X)}; for one document give [document]."
        )
    if isinstance(X, list | tuple):
        return X
    shape = getattr(X, "shape", None)
    if shape is None and hasattr(X, "to_pylist"):  # pyarrow arrays have no shape
        return X.to_pylist()
    if shape is None or not hasattr(X, "__array__") and not hasattr(X, "to_pylist"):
        raise TypeError(
            "X must be a list, tuple, 1-D array, Series, one-column DataFrame or pyarrow array "
            f"of str. Got {type(X).__name__}."
        )
    if len(shape) not in (1, 2) or (len(shape) == 2 and shape[1] != 1):
        raise ValueError(
            "X must have one column, the text: select it first, for example with X['text'] or a "
            f"ColumnTransformer. Got shape {tuple(shape)}."
        )
    if hasattr(X, "iloc"):
        return (X if len(shape) == 1 else X.iloc[:, 0]).tolist()
    if hasattr(X, "to_pylist"):  # a pyarrow table
        return X.column(0).to_pylist()
    return np.asarray(X, dtype=object).ravel().tolist()


def is_missing(value):
    """Say whether a value is None, NaN or pandas' NA."""
    is_nan = isinstance(value, float) and value != value
    return value is None or is_nan or type(value).__name__ == "NAType"


def _bad_row(i, row):
    message = f"X must hold str only. Got {type(row).__name__} in row {i}: {_short(row)}."
    if is_missing(row):
        return message + " Fill or drop missing texts first, for example X.fillna('')."
    if isinstance(row, bytes):
        return message + " Decode it first, for example row.decode('utf-8')."
    return message


def _short(value, limit=60):
    text = repr(value[:limit] if isinstance(value, str | bytes) else value)
    return text if len(text) <= limit else text[:limit] + "..."


# -- tokens --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Tokens:
    """Token ids of documents.

    Attributes
    ----------
    ids : list of int32 ndarrays
        Special tokens included, at most max_length each.
    full_lengths : int64 ndarray of shape (n,)
        What the lengths would have been without truncation.
    """

    ids: list
    full_lengths: np.ndarray

    @property
    def lengths(self):
        """Number of tokens kept of each document."""
        return np.fromiter((len(row) for row in self.ids), np.int64, len(self.ids))

    def truncation_message(self, max_length):
        """Return one sentence on what truncation cost, or None where it cost nothing."""
        cut = self.full_lengths > max_length
        if not cut.any():
            return None
        lost = 1 - self.lengths.sum() / self.full_lengths.sum()
        return (
            f"{cut.sum()} of {len(cut)} documents have more than max_length={max_length} tokens "
            f"and lose their end, {lost:.1%} of all tokens; the longest has "
            f"{self.full_lengths.max()}."
        )


_MEMORY = MemoryStore(limit=1_000_000_000)
_SHARED: dict = {}  # folder -> FileStore
_FINGERPRINTS: weakref.WeakKeyDictionary = weakref.WeakKeyDictionary()


def tokenize(tokenizer, texts, max_length):
    """Return the :class:`Tokens` of `texts`.

    Each distinct text is tokenised once a process, and once for all worker processes together:
    those keep token ids in files. Neither is ever part of a pickle.
    """
    key = digest(_fingerprint(tokenizer), max_length)
    keys = [digest(key, text) for text in texts]
    entries = _token_store(key).fetch(
        keys, lambda rows: _encode(tokenizer, [texts[i] for i in rows], max_length)
    )
    return Tokens([ids for ids, _ in entries], np.array([full for _, full in entries]))


def _token_store(key):
    if not is_worker():
        return _MEMORY
    folder = shared_folder() / f"tokens-{key.hex()}"
    if folder not in _SHARED:
        _SHARED[folder] = FileStore(folder, np.int32)
    return _SHARED[folder]


def token_cache_info():
    """Return how many texts this process has tokenised."""
    return {"texts_tokenized": _MEMORY.n_made + sum(s.n_made for s in _SHARED.values())}


def clear_token_cache():
    """Forget the token ids kept from earlier calls in this process."""
    _MEMORY.clear()
    _SHARED.clear()


def _fingerprint(tokenizer):
    """Return what tells this tokenizer from others: a hash of all that it does."""
    if tokenizer not in _FINGERPRINTS:
        backend = tokenizer.backend_tokenizer
        backend.no_truncation()  # truncation and padding are state that its calls leave behind
        backend.no_padding()
        _FINGERPRINTS[tokenizer] = digest(backend.to_str())
    return _FINGERPRINTS[tokenizer]


def _encode(tokenizer, texts, max_length):
    """Return ``(ids, length without truncation)`` of each text."""
    if not texts:
        return []
    clean = [_encodable(text) for text in texts]
    whole = tokenizer(clean, truncation=False, verbose=False)["input_ids"]
    long = [i for i, ids in enumerate(whole) if len(ids) > max_length]
    lengths = [len(ids) for ids in whole]
    if long:
        cut = tokenizer([clean[i] for i in long], truncation=True, max_length=max_length)
        for i, ids in zip(long, cut["input_ids"], strict=True):
            whole[i] = ids
    return [(np.array(ids, np.int32), n) for ids, n in zip(whole, lengths, strict=True)]


def _encodable(text):
    """Replace lone surrogates, which no tokenizer takes, by U+FFFD."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


# -- batches -------------------------------------------------------------------------------


class TokenDataset(Dataset):
    """Documents as skorch and torch see them: token ids, class code, sample weight.

    Parameters
    ----------
    ids : list of int ndarrays
        Token ids of each document.
    codes : int64 ndarray of shape (n,) or float32 of shape (n, n_labels), default=None
        Class codes or indicators; None for prediction.
    sample_weight : float ndarray of shape (n,), default=None
        Weights of mean 1; None for ones.
    """

    def __init__(self, ids, codes=None, sample_weight=None):
        self.ids = ids
        self.codes = np.zeros(len(ids), np.int64) if codes is None else codes
        self.sample_weight = np.ones(len(ids)) if sample_weight is None else sample_weight

    def __len__(self):
        return len(self.ids)

    def __getitem__(self, i):
        return self.ids[i], self.codes[i], self.sample_weight[i]


class Collate:
    """Pad documents to the longest of their batch: ``(inputs, codes)`` as skorch wants them."""

    def __init__(self, pad_id):
        self.pad_id = pad_id

    def __call__(self, rows):
        """Return ``({input_ids, attention_mask, sample_weight}, codes)`` of a list of rows."""
        ids, codes, weights = zip(*rows, strict=True)
        lengths = np.array([len(row) for row in ids])
        inside = np.arange(lengths.max()) < lengths[:, None]
        input_ids = np.full(inside.shape, self.pad_id, np.int64)
        input_ids[inside] = np.concatenate(ids)
        inputs = {
            "input_ids": torch.from_numpy(input_ids),
            "attention_mask": torch.from_numpy(inside.astype(np.int64)),
            "sample_weight": torch.tensor(np.array(weights), dtype=torch.float32),
        }
        return inputs, torch.from_numpy(np.array(codes))


class LengthBatches(Sampler):
    """Batches of near-equal length, drawn and shuffled anew each time they are iterated.

    The epoch's rows are shuffled, cut into pools of `pool` batches, sorted by length within each
    pool, cut into batches, and the batches shuffled. Padding is a few percent instead of the
    two thirds of random batches, and which documents meet still changes from epoch to epoch.

    Parameters
    ----------
    lengths : int ndarray of shape (n,)
        Tokens of each row.
    batch_size : int
        Documents in a batch; the last one of an epoch's cut may be smaller.
    draw : callable ``(epoch, random_state) -> row numbers``
        The rows of an epoch.
    n_draws : int
        How many rows `draw` returns.
    random_state : numpy.random.RandomState
        Source of all randomness.
    pool : int, default=50
        Batches sorted together.
    """

    def __init__(self, lengths, batch_size, draw, n_draws, random_state, pool=50):
        self.lengths = lengths
        self.batch_size = batch_size
        self.draw = draw
        self.n_draws = n_draws
        self.random_state = random_state
        self.pool = pool
        self.epoch = 0

    def __len__(self):
        return math.ceil(self.n_draws / self.batch_size)

    def __iter__(self):
        rows = self.random_state.permutation(self.draw(self.epoch, self.random_state))
        self.epoch += 1
        batches = []
        for start in range(0, len(rows), self.batch_size * self.pool):
            some = rows[start : start + self.batch_size * self.pool]
            some = some[np.argsort(self.lengths[some], kind="stable")]
            batches += [some[i : i + self.batch_size] for i in range(0, len(some), self.batch_size)]
        for i in self.random_state.permutation(len(batches)):
            yield batches[i].tolist()


def sorted_batches(lengths, batch_size):
    """Return batches of row numbers in order of length, longest first, for prediction."""
    order = np.argsort(-np.asarray(lengths), kind="stable").tolist()
    return [order[i : i + batch_size] for i in range(0, len(order), batch_size)]
