"""Text containers to lists of str, token ids kept across fits, batches of near-equal length."""

import itertools
import math
import tempfile
import threading
import weakref
from dataclasses import dataclass

import numpy as np
import torch
from torch.utils.data import Dataset, Sampler

from skfocal._excerpt import excerpt
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
            f"Got {excerpt(X)}; for one document give [document]."
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
    if isinstance(X, np.ma.MaskedArray):  # None in the rows that are masked
        return X.ravel().tolist()
    return np.asarray(X, dtype=object).ravel().tolist()


def is_missing(value):
    """Say whether a value is None, NaN or pandas' NA or NaT."""
    is_nan = isinstance(value, float) and value != value
    return value is None or is_nan or type(value).__name__ in ("NAType", "NaTType")


def _bad_row(i, row):
    message = f"X must hold str only. Got {type(row).__name__} in row {i}: {excerpt(row)}."
    if is_missing(row):
        return message + " Fill or drop missing texts first, for example X.fillna('')."
    if isinstance(row, bytes):
        return message + " Decode it first, for example row.decode('utf-8')."
    return message


# -- tokens --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Tokens:
    """Token ids of documents, one behind the other: 4 bytes a token and 16 a document.

    Attributes
    ----------
    flat : int32 ndarray of shape (n_tokens,)
        Token ids, special tokens included; in a memory-mapped file where they are very many.
    starts : int64 ndarray of shape (n,)
        Where each document begins in `flat`.
    lengths : int32 ndarray of shape (n,)
        Number of tokens kept of each document, at most max_length.
    full_lengths : int32 ndarray of shape (n,)
        What the lengths would have been without truncation.
    """

    flat: np.ndarray
    starts: np.ndarray
    lengths: np.ndarray
    full_lengths: np.ndarray

    def __len__(self):
        return len(self.starts)

    def __getitem__(self, i):
        start = self.starts[i]
        return self.flat[start : start + self.lengths[i]]

    def take(self, rows):
        """Return some of the documents; the token ids are shared."""
        return Tokens(self.flat, self.starts[rows], self.lengths[rows], self.full_lengths[rows])

    def truncation_message(self, max_length):
        """Return one sentence on what truncation cost, or None where it cost nothing."""
        cut = self.full_lengths > max_length
        if not cut.any():
            return None
        lost = 1 - self.lengths.sum(dtype=np.int64) / self.full_lengths.sum(dtype=np.int64)
        return (
            f"{cut.sum()} of {len(cut)} documents have more than max_length={max_length} tokens "
            f"and lose their end, {lost:.1%} of all tokens; the longest has "
            f"{self.full_lengths.max()}."
        )


class _TokenWriter:
    """Take up token ids chunk by chunk; beyond `limit` bytes they go to a file."""

    def __init__(self, limit):
        self.limit = limit
        self.n_bytes = 0
        self.file = None
        self.chunks: list = []
        self.lengths: list = []
        self.full_lengths: list = []

    def write(self, entries):
        """Add ``(ids, length without truncation)`` of some documents."""
        rows, full_lengths = zip(*entries, strict=True)
        self.lengths.append(np.fromiter(map(len, rows), np.int32, len(rows)))
        self.full_lengths.append(np.array(full_lengths, np.int32))
        self.chunks.append(np.concatenate(rows))
        self.n_bytes += self.chunks[-1].nbytes
        if self.n_bytes > self.limit:
            if self.file is None:
                self.file = tempfile.TemporaryFile(prefix="tokens-", dir=shared_folder())
            while self.chunks:
                self.chunks.pop(0).tofile(self.file)

    def _joined(self):
        """Return the chunks as one array, letting go of each as it is copied."""
        if len(self.chunks) == 1:
            return self.chunks[0]
        flat, start = np.empty(self.n_bytes // 4, np.int32), 0
        self.chunks.reverse()
        while self.chunks:
            chunk = self.chunks.pop()
            flat[start : start + len(chunk)] = chunk
            start += len(chunk)
        return flat

    def tokens(self):
        """Return the :class:`Tokens`; the file goes away with them."""
        lengths = np.concatenate(self.lengths)
        if self.file is None:
            flat = self._joined()
        else:
            with self.file:
                self.file.flush()
                flat = np.memmap(self.file, np.int32, "r")
        starts = np.zeros(len(lengths), np.int64)
        np.cumsum(lengths[:-1], out=starts[1:])
        return Tokens(flat, starts, lengths, np.concatenate(self.full_lengths))


_ENCODING = threading.Lock()
_MEMORY = MemoryStore(limit=1_000_000_000)
_SHARED: dict = {}  # folder -> FileStore
_FINGERPRINTS: weakref.WeakKeyDictionary = weakref.WeakKeyDictionary()


# Documents of one call up to which their ids are kept for later calls: to tokenise more again
# takes less than a hundredth of what it takes to train on them.
CACHED_DOCUMENTS = 50_000
_MAPPED_BYTES = 1_000_000_000  # of token ids, beyond which they lie in a file
_AT_ONCE = 1024  # texts given to the tokenizer together


def tokenize(tokenizer, texts, max_length, keep=True):
    """Return the :class:`Tokens` of `texts`.

    Each distinct text is tokenised once a process, and once for all worker processes together:
    those keep token ids in files. Neither is ever part of a pickle. The ids of more than 50,000
    texts, or without `keep`, are not kept; more than 1 GB of them lie in a temporary file.
    """
    writer = _TokenWriter(_MAPPED_BYTES)
    if keep and len(texts) <= CACHED_DOCUMENTS:
        writer.write(_kept_entries(tokenizer, texts, max_length))
    else:
        for entries in _encode_in_parts(tokenizer, texts, max_length):
            writer.write(entries)
    return writer.tokens()


def _kept_entries(tokenizer, texts, max_length):
    key = digest(_fingerprint(tokenizer), max_length)
    keys = [digest(key, text) for text in texts]

    def make(rows):
        parts = _encode_in_parts(tokenizer, [texts[i] for i in rows], max_length)
        return list(itertools.chain.from_iterable(parts))

    return _token_store(key).fetch(keys, make)


def _token_store(key):
    if not is_worker():
        return _MEMORY
    folder = shared_folder() / f"tokens-{key.hex()}"
    with _ENCODING:
        if folder not in _SHARED:
            _SHARED[folder] = FileStore(folder, np.int32)
        return _SHARED[folder]


def token_cache_info():
    """Return how many texts this process has tokenised."""
    return {"texts_tokenized": _MEMORY.n_made + sum(s.n_made for s in _SHARED.values())}


def clear_token_cache():
    """Forget the token ids kept from earlier calls in this process."""
    _MEMORY.clear()
    with _ENCODING:
        _SHARED.clear()


def _fingerprint(tokenizer):
    """Return what tells this tokenizer from others: a hash of all that it does."""
    with _ENCODING:
        if tokenizer not in _FINGERPRINTS:
            backend = tokenizer.backend_tokenizer
            backend.no_truncation()  # truncation and padding are state that its calls leave behind
            backend.no_padding()
            _FINGERPRINTS[tokenizer] = digest(backend.to_str())
        return _FINGERPRINTS[tokenizer]


def _encode_in_parts(tokenizer, texts, max_length):
    """Yield what :func:`_encode` returns for some texts at a time: its work space is large."""
    for start in range(0, len(texts), _AT_ONCE):
        yield _encode(tokenizer, texts[start : start + _AT_ONCE], max_length)


def _encode(tokenizer, texts, max_length):
    """Return ``(ids, length without truncation)`` of each text."""
    clean = [_encodable(text) for text in texts]
    with _ENCODING:  # truncation is a state of the tokenizer, which threads share
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
    tokens : Tokens
        Token ids of each document.
    codes : int64 ndarray of shape (n,) or float32 of shape (n, n_labels), default=None
        Class codes or indicators; None for prediction.
    sample_weight : float ndarray of shape (n,), default=None
        Weights of mean 1; None for ones.
    """

    def __init__(self, tokens, codes=None, sample_weight=None):
        self.tokens = tokens
        self.codes = np.zeros(len(tokens), np.int64) if codes is None else codes
        weight = np.ones(len(tokens)) if sample_weight is None else sample_weight
        self.sample_weight = weight.astype(np.float32)

    def __len__(self):
        return len(self.tokens)

    def __getitem__(self, i):
        return self.tokens[i], self.codes[i], self.sample_weight[i]

    def __getitems__(self, rows):
        """Return the documents of a batch; torch's loaders ask for all of them at once."""
        return self.tokens.take(rows), self.codes[rows], self.sample_weight[rows]


class Collate:
    """Pad documents to the longest of their batch: ``(inputs, codes)`` as skorch wants them."""

    def __init__(self, pad_id):
        self.pad_id = pad_id

    def __call__(self, batch):
        """Return ``({input_ids, attention_mask, sample_weight}, codes)`` of a dataset's rows."""
        tokens, codes, weight = batch
        columns = np.arange(tokens.lengths.max())
        inside = columns < tokens.lengths[:, None]
        places = np.minimum(tokens.starts[:, None] + columns, len(tokens.flat) - 1)
        input_ids = tokens.flat[places].astype(np.int64)
        input_ids[~inside] = self.pad_id
        inputs = {
            "input_ids": torch.from_numpy(input_ids),
            "attention_mask": torch.from_numpy(inside.astype(np.int64)),
            "sample_weight": torch.from_numpy(weight),
        }
        return inputs, torch.from_numpy(codes)


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
    keep : callable ``(rows, epoch, random_state) -> rows``, default=None
        Which of the rows drawn stay in the epoch; None for all.
    pool : int, default=50
        Batches sorted together.

    Attributes
    ----------
    batches : list of list of int
        Row numbers of the batches of the present epoch, in their order.
    share : float
        Part of the rows drawn that stayed in it.
    """

    def __init__(self, lengths, batch_size, draw, n_draws, random_state, keep=None, pool=50):
        self.lengths = lengths
        self.batch_size = batch_size
        self.draw = draw
        self.n_draws = n_draws
        self.random_state = random_state
        self.keep = keep
        self.pool = pool
        self.epoch = 0
        self.batches: list = []
        self.share = 1.0
        self._begins: list = []  # of the epochs: states of the generators that `draw` can use
        self._n_done: int | None = None

    def __len__(self):
        return math.ceil(self.n_draws / self.batch_size)

    def __iter__(self):
        if self._n_done is None:
            self._begin_epoch()
        first, self._n_done = self._n_done or 0, None
        yield from self.batches[first:]

    def _begin_epoch(self):
        self._begins.append((self.random_state.get_state(), torch.get_rng_state()))
        rows = self.random_state.permutation(self.draw(self.epoch, self.random_state))
        if self.keep is not None:
            rows = self.keep(rows, self.epoch, self.random_state)
            self.share = len(rows) / self.n_draws
        self.epoch += 1
        batches = []
        for start in range(0, len(rows), self.batch_size * self.pool):
            some = rows[start : start + self.batch_size * self.pool]
            some = some[np.argsort(self.lengths[some], kind="stable")]
            batches += [some[i : i + self.batch_size] for i in range(0, len(some), self.batch_size)]
        order = self.random_state.permutation(len(batches))
        self.batches = [batches[i].tolist() for i in order]

    def forget(self):
        """Let go of all that grew with the training."""
        self.batches, self._begins = [], []

    def state(self):
        """Return where in the training the batches are."""
        return {
            "begins": self._begins,
            "rows": np.array(list(itertools.chain.from_iterable(self.batches)), np.int64),
            "sizes": np.array(list(map(len, self.batches)), np.int64),
            "share": self.share,
        }

    def set_state(self, state, n_done):
        """Go on from what :meth:`state` returned, after `n_done` batches of that epoch.

        The states of the generators are the caller's to put back afterwards.
        """
        # A torch sampler has a state of its own that only drawing brings forward.
        for epoch, (own, of_torch) in enumerate(state["begins"]):
            self.random_state.set_state(own)
            torch.set_rng_state(of_torch)
            self.draw(epoch, self.random_state)
        self._begins = state["begins"]
        self.epoch = len(self._begins)
        ends = np.cumsum(state["sizes"])[:-1]
        self.batches = [rows.tolist() for rows in np.split(state["rows"], ends)]
        self.share = state["share"]
        self._n_done = n_done


def sorted_batches(lengths, batch_size, n_tokens=None):
    """Return batches of row numbers in order of length, longest first, for prediction.

    A batch has at most `batch_size` documents, or `n_tokens` tokens with its padding where that
    is given; one document at least.
    """
    order = np.argsort(-np.asarray(lengths), kind="stable")
    batches, start = [], 0
    while start < len(order):
        size = batch_size or max(n_tokens // max(lengths[order[start]], 1), 1)
        batches.append(order[start : start + size].tolist())
        start += size
    return batches
