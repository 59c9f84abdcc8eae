"""Token ids of documents, kept across fits."""

import collections
import itertools
import tempfile
import threading
import weakref
from dataclasses import dataclass, replace

import numpy as np

from skfocal._data.document_streams import concatenated
from skfocal._data.tokenization import TruncationSpec, encodable, encode, windows_of
from skfocal._runtime import shared_payload
from skfocal._runtime.array_store import FileStore, MemoryStore, PackedStore
from skfocal._runtime.process_group import ALONE
from skfocal._runtime.workers import has_siblings, remove_shared, shared_folder
from skfocal._utils.hashing import digest


@dataclass(frozen=True)
class Tokens:
    """Concatenated token ids of documents: 4 bytes per token and 16 per document.

    Attributes
    ----------
    flat : int32 ndarray of shape (n_tokens,)
        Token ids, special tokens included, as :func:`~skfocal._data.tokenization.encode` makes
        them. Very many ids are kept in a memory-mapped file.
    starts : int64 ndarray of shape (n,)
        Where each document begins in `flat`.
    lengths : int32 ndarray of shape (n,)
        Number of tokens kept of each document.
    full_lengths : int32 ndarray of shape (n,)
        Number of tokens of each document before truncation.
    truncation : skfocal._data.tokenization.TruncationSpec
        How the tokens were made. A document longer than its `max_length` has several windows.
    """

    flat: np.ndarray
    starts: np.ndarray
    lengths: np.ndarray
    full_lengths: np.ndarray
    truncation: TruncationSpec

    def __len__(self):
        return len(self.starts)

    def __getitem__(self, i):
        start = self.starts[i]
        return self.flat[start : start + self.lengths[i]]

    def take(self, rows):
        """Return some of the documents; the token ids are shared."""
        return replace(
            self,
            starts=self.starts[rows],
            lengths=self.lengths[rows],
            full_lengths=self.full_lengths[rows],
        )

    def windows(self):
        """Return the :class:`Tokens` of all windows, in order, and their number per document."""
        size = self.truncation.max_length
        if not len(self) or self.lengths.max() <= size:
            return self, np.ones(len(self), np.int64)
        starts, lengths, counts = windows_of(self.starts, self.lengths, size)
        lengths = lengths.astype(np.int32)
        return replace(self, starts=starts, lengths=lengths, full_lengths=lengths), counts

    @property
    def is_cut(self):
        """Whether each document lost tokens, of shape (n,)."""
        return self.full_lengths > self.truncation.reach

    def loss_message(self):
        """Return a sentence on the tokens that long documents lost, or None if none did."""
        cut = self.is_cut
        if not cut.any():
            return None
        lost = (self.full_lengths[cut] - self.truncation.reach).sum(dtype=np.float64)
        n_all = self.full_lengths.sum(dtype=np.float64)
        return (
            f"{cut.sum()} of {len(cut)} documents have more than {self.truncation.describe()} "
            f"tokens and lose their {self.truncation.lost_part}, {lost / n_all:.1%} of all tokens; "
            f"the longest has {self.full_lengths.max()}. To read them whole would take at least "
            f"{n_all / (n_all - lost):.2f} times as long."
        )


def count_equal(ids, values):
    """Return how many ids are one of a few values, without a copy of very many ids."""
    at_once = 2**24
    parts = (ids[start : start + at_once] for start in range(0, len(ids), at_once))
    return sum(int(np.isin(part, values).sum()) for part in parts)


def rows_with(tokens, values, n_most=100):
    """Return the first documents that have one of a few ids, in the order of the texts."""
    at_once, rows = 2**24, np.zeros(0, int)
    for start in range(0, len(tokens.flat), at_once):
        places = start + np.flatnonzero(np.isin(tokens.flat[start : start + at_once], values))
        found = np.searchsorted(tokens.starts, places, side="right") - 1
        rows = np.union1d(rows, found)
        if len(rows) >= n_most:
            break
    return rows[:n_most].tolist()


def unknown_characters(tokenizer, texts, n_most=8):
    """Return the most frequent characters of the texts that became unknown tokens, as a str."""
    parts = [part for text in texts for part in ([text] if isinstance(text, str) else text)]
    with ENCODING:
        backend = tokenizer.backend_tokenizer
        backend.no_truncation()
        backend.no_padding()
        encodings = backend.encode_batch([encodable(part) for part in parts])
    counts: collections.Counter = collections.Counter()
    for part, encoding in zip(parts, encodings, strict=True):
        for id_, (start, stop) in zip(encoding.ids, encoding.offsets, strict=True):
            if id_ == tokenizer.unk_token_id:
                counts.update(encodable(part)[start:stop])
    return "".join(character for character, _ in counts.most_common(n_most))


class _TokenWriter:
    """Collect token ids batch by batch, in a file once they exceed `limit` bytes."""

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

    def tokens(self, truncation):
        """Return the :class:`Tokens`; the file is deleted together with them."""
        lengths = np.concatenate(self.lengths)
        if self.file is None:
            flat = concatenated(self.chunks)
        else:
            with self.file:
                self.file.flush()
                flat = np.memmap(self.file, np.int32, "r")
        starts = np.zeros(len(lengths), np.int64)
        np.cumsum(lengths[:-1], out=starts[1:])
        return Tokens(flat, starts, lengths, np.concatenate(self.full_lengths), truncation)


ENCODING = threading.Lock()  # held while a tokenizer, which threads share, works
_LIMIT = 1_000_000_000  # bytes of kept token ids
_MEMORY = MemoryStore(_LIMIT)
_SHARED: dict = {}  # folder -> FileStore
_FINGERPRINTS: weakref.WeakKeyDictionary = weakref.WeakKeyDictionary()


# Ids are kept for later calls only if one call has at most this many documents: to tokenise more
# of them again takes less than a hundredth of the time that training on them takes.
CACHED_DOCUMENTS = 50_000
_MAPPED_BYTES = 1_000_000_000  # token ids beyond this size are written to a file
_AT_ONCE = 1024  # texts passed to the tokenizer together


def tokenize(tokenizer, texts, truncation, keep=True, processes=ALONE):
    """Return the :class:`Tokens` of texts or pairs of texts.

    Each distinct text is tokenised once per process. Worker processes keep token ids in files, so
    that they tokenise each text only once together. Kept ids are never part of a pickle. The ids
    of more than 50,000 texts are not kept, nor any ids without `keep`; more than 1 GB of ids go
    to a temporary file.

    Parameters
    ----------
    tokenizer : transformers.PreTrainedTokenizerFast
    texts : list of str or of (str, str), or skfocal._data.texts.Texts
    truncation : skfocal._data.tokenization.TruncationSpec
    keep : bool, default=True
    processes : Processes, default=ALONE
        Each process tokenises a part of many texts, and receives the parts of the others.
    """
    writer = _TokenWriter(_MAPPED_BYTES)
    if keep and len(texts) <= CACHED_DOCUMENTS:
        writer.write(_found_entries(tokenizer, texts[:], truncation, keep=True))
    else:
        n_at_once = _AT_ONCE * processes.size
        for start in range(0, len(texts), n_at_once):
            own = texts[start : start + n_at_once][processes.rank :: processes.size]
            entries = _found_entries(tokenizer, own, truncation, keep=False)
            writer.write(processes.dealt_back(entries))
    return writer.tokens(truncation)


def _found_entries(tokenizer, texts, truncation, keep):
    """Return ``(ids, length)`` of texts, from a payload or a store, or newly made."""

    def make(rows):
        parts = _encode_in_parts(tokenizer, [texts[i] for i in rows], truncation)
        return list(itertools.chain.from_iterable(parts))

    if not keep and not shared_payload.any_tokens():
        return make(range(len(texts)))
    key, keys = _keys(tokenizer, texts, truncation)
    entries = shared_payload.find_tokens(keys)
    missing = [i for i, entry in enumerate(entries) if entry is None]
    if missing:
        found = _token_store(key).fetch if keep else lambda keys, make: make(range(len(keys)))
        made = found([keys[i] for i in missing], lambda rows: make([missing[i] for i in rows]))
        for i, entry in zip(missing, made, strict=True):
            entries[i] = entry
    return entries


def _keys(tokenizer, texts, truncation):
    """Return a key of the tokenizer and the truncation, and a key of each text."""
    key = digest(_fingerprint(tokenizer), truncation)
    return key, [digest(key, *([text] if isinstance(text, str) else text)) for text in texts]


def packed_tokens(tokenizer, texts, truncation):
    """Return the token ids of texts as a store for other processes."""
    tokens = tokenize(tokenizer, texts, truncation)
    entries = list(zip(tokens, tokens.full_lengths.tolist(), strict=True))
    return PackedStore(_keys(tokenizer, texts, truncation)[1], entries)


def _token_store(key):
    if not has_siblings():
        return _MEMORY
    folder = shared_folder() / f"tokens-{key.hex()}"
    with ENCODING:
        if folder not in _SHARED:
            _SHARED[folder] = FileStore(folder, np.int32, limit=_LIMIT)
        return _SHARED[folder]


def token_cache_info():
    """Return how many texts this process has tokenised."""
    return {"texts_tokenized": _MEMORY.n_made + sum(s.n_made for s in _SHARED.values())}


def clear_token_cache():
    """Forget the token ids kept from earlier calls, and remove the files that processes share."""
    _MEMORY.clear()
    with ENCODING:
        stores = list(_SHARED.values())
    for store in stores:  # a call in another thread may go on with one
        store.clear()
    remove_shared("tokens-*")


def _fingerprint(tokenizer):
    """Return a hash of everything that determines what a tokenizer does."""
    with ENCODING:
        if tokenizer not in _FINGERPRINTS:
            backend = tokenizer.backend_tokenizer
            backend.no_truncation()  # calls change its truncation and padding
            backend.no_padding()
            _FINGERPRINTS[tokenizer] = digest(backend.to_str())
        return _FINGERPRINTS[tokenizer]


def _encode_in_parts(tokenizer, texts, truncation):
    """Yield the entries of some texts at a time, since encoding needs much memory."""
    for start in range(0, len(texts), _AT_ONCE):
        with ENCODING:  # threads share the tokenizer, whose truncation is set
            entries = encode(
                tokenizer.backend_tokenizer, texts[start : start + _AT_ONCE], truncation
            )
        yield entries
