"""Texts, or pairs of texts, to token ids: what is kept of long ones, and in which windows."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from skfocal._utils.messages import excerpt

# Of a document that is too long "head_tail" keeps this part of the tokens from its beginning and
# the others from its end: 128 of 510 (Sun et al., 2019, arXiv:1905.05583).
_HEAD = 0.25


LONG_DOCUMENTS = ("truncate", "head_tail", "windows")


@dataclass(frozen=True)
class TruncationSpec:
    """How documents become token ids.

    Attributes
    ----------
    max_length : int
        Most tokens of a window, special tokens included.
    long_documents : {"truncate", "head_tail", "windows"}
        What happens to a longer document: its end is lost, or its middle, or it becomes several
        windows, all but the last one of `max_length` tokens.
    stride : int
        Tokens that neighbouring windows share.
    max_windows : int or None
        Most windows of a document.
    side : {"right", "left"}
        Where a text is truncated, and where windows end.
    n_special : int
        Special tokens around a text, or around and between two.
    marks_second : bool
        Whether the encoder has token types, which tell the second text of a pair from the first.
    """

    max_length: int
    long_documents: str = "truncate"
    stride: int = 0
    max_windows: int | None = None
    side: Any = "right"
    n_special: int = 2
    marks_second: bool = False

    def check(self):
        """Refuse windows without text, or that bring nothing new."""
        if self.max_length <= self.n_special:
            raise ValueError(
                f"max_length must be more than the {self.n_special} special tokens that the "
                f"tokenizer puts around the text. Got {self.max_length}."
            )
        if self.long_documents == "windows" and self.stride >= self.max_length - self.n_special:
            raise ValueError(
                f"stride must be less than the {self.max_length - self.n_special} tokens of text "
                f"in a window of max_length={self.max_length}. Got {self.stride}."
            )

    @property
    def reach(self):
        """Tokens of the longest document of which nothing is lost."""
        if self.long_documents != "windows":
            return self.max_length
        if self.max_windows is None:
            return np.inf
        step = self.max_length - self.n_special - self.stride
        return self.max_length + (self.max_windows - 1) * step

    def describe(self):
        """Return what the reach comes from, for messages."""
        if self.long_documents != "windows":
            return f"max_length={self.max_length}"
        return f"the {self.reach} of max_windows={self.max_windows} windows of {self.max_length}"

    @property
    def lost_part(self):
        """What of a longer document is lost, for messages."""
        if self.long_documents == "head_tail":
            return "middle"
        return "end" if self.side == "right" else "beginning"


def checked_truncation(
    max_length, *, long_documents="truncate", stride=0, max_windows=None, **others
):
    """Return a :class:`TruncationSpec` from a file's values; `check` is left to the caller."""
    counts = stride, 0 if max_windows is None else max_windows - 1
    if (
        long_documents not in LONG_DOCUMENTS
        or any(type(count) is not int or not 0 <= count < 2**31 for count in counts)
        or others.get("side", "right") not in ("right", "left")
        or type(others.get("marks_second", False)) is not bool
    ):
        values = {"long_documents": long_documents, "stride": stride, "max_windows": max_windows}
        raise ValueError(f"what becomes of long documents cannot be {values | others!r:.200}.")
    return TruncationSpec(max_length, long_documents, stride, max_windows, **others)


def encode(backend, texts, truncation):
    """Return ``(ids, length without any cut)`` of each text or pair of texts.

    Windows of a document lie one behind the other. Ids of a pair's second text are stored as their
    complement, a negative number, if the encoder tells them apart.

    Parameters
    ----------
    backend : tokenizers.Tokenizer
        Its truncation and padding are turned off: threads must take turns.
    texts : list of str or of (str, str)
    truncation : TruncationSpec

    Returns
    -------
    list of (int32 ndarray of shape (n_tokens,), int)

    Raises
    ------
    ValueError
        If a text has no token.
    """
    backend.no_truncation()
    backend.no_padding()
    encodings = backend.encode_batch_fast([encodable(text) for text in texts])
    entries = []
    for text, encoding in zip(texts, encodings, strict=True):
        ids = _ids(encoding, truncation)
        if len(ids) == 0:
            raise ValueError(
                "X must have a token in each document, as the model's tokenizer adds none of its "
                f"own. Got {excerpt(text)}: leave such documents out."
            )
        fits = len(ids) <= truncation.max_length
        # The tokenizer would cut, too, but builds all that is cut off: of a pair, every piece of
        # one text with every piece of the other.
        entries.append(ids if fits else _CUTS[truncation.long_documents](ids, encoding, truncation))
    return list(zip(entries, map(len, encodings), strict=True))


def _ids(encoding, truncation):
    ids = np.array(encoding.ids, np.int32)
    if not truncation.marks_second:
        return ids
    return np.where(np.array(encoding.type_ids) == 1, ~ids, ids)


def _places(encoding):
    """Return where the tokens of each text are; those between and around them are special."""
    owner = np.array([-1 if i is None else i for i in encoding.sequence_ids])
    return [np.flatnonzero(owner == i) for i in range(encoding.n_sequences)]


def _truncated(ids, encoding, truncation):
    """Return special tokens and the beginning of the text, or its end; a pair's longer text first.

    These are the tokens that transformers keeps.
    """
    places = _places(encoding)
    room = truncation.max_length - (len(ids) - sum(map(len, places)))
    keep = np.ones(len(ids), bool)
    for place, n in zip(places, _shares([len(place) for place in places], room), strict=True):
        keep[place[n:] if truncation.side == "right" else place[: len(place) - n]] = False
    return ids[keep]


def _shares(lengths, room):
    """Return how many tokens of each text are kept: of a pair the longer loses them first."""
    if len(lengths) == 1:
        return [room]
    shorter = min(*lengths, room // 2)
    shares = [shorter, room - shorter]
    return shares if lengths[0] <= lengths[1] else shares[::-1]


def _head_and_tail(ids, encoding, truncation):
    """Return the ids without the middle of the text; special tokens stay around it."""
    (text,) = _places(encoding)
    n_text = truncation.max_length - (len(ids) - len(text))
    n_head = text[0] + int(_HEAD * n_text)
    return np.concatenate([ids[:n_head], ids[len(ids) - (truncation.max_length - n_head) :]])


def _in_windows(ids, encoding, truncation):
    """Return windows of `max_length` ids one behind the other; only the last one may be shorter."""
    (text,) = _places(encoding)
    before, after = ids[: text[0]], ids[text[-1] + 1 :]
    size = truncation.max_length - len(before) - len(after)
    step = size - truncation.stride
    count = 1 + -(-(len(text) - size) // step)
    parts = []
    for i in range(count if truncation.max_windows is None else min(count, truncation.max_windows)):
        if truncation.side == "right":
            rows = text[i * step : i * step + size]
        else:
            stop = len(text) - i * step
            rows = text[max(stop - size, 0) : stop]
        parts += [before, ids[rows], after]
    return np.concatenate(parts)


_CUTS = {"truncate": _truncated, "head_tail": _head_and_tail, "windows": _in_windows}


def encodable(text):
    """Replace lone surrogates, which no tokenizer takes, by U+FFFD."""
    if not isinstance(text, str):
        return tuple(encodable(part) for part in text)
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


# -- pieces --------------------------------------------------------------------------------


def n_windows(lengths, max_length):
    """Return of how many pieces each document is."""
    return np.maximum(-(-np.asarray(lengths, np.int64) // max_length), 1)


def window_table(counts):
    """Return the rows of each document's pieces, of shape (n, most pieces), -1 where it has less.

    The pieces of all documents lie one behind the other.
    """
    counts = np.asarray(counts)
    columns = np.arange(counts.max())
    rows = (np.cumsum(counts) - counts)[:, None] + columns
    return np.where(columns < counts[:, None], rows, -1)


def windows_of(starts, lengths, max_length):
    """Return where the pieces of documents start, their lengths, and how many a document has.

    Parameters
    ----------
    starts, lengths : int ndarrays of shape (n,)
        Where the ids of each document are, as :func:`laid_out` gives them.
    max_length : int
        Of a piece.

    Returns
    -------
    starts, lengths : int ndarrays of shape (n_windows,)
    counts : int64 ndarray of shape (n,)
    """
    counts = n_windows(lengths, max_length)
    documents = np.repeat(np.arange(len(counts)), counts)
    begins = max_length * (np.arange(len(documents)) - (np.cumsum(counts) - counts)[documents])
    return starts[documents] + begins, np.minimum(lengths[documents] - begins, max_length), counts


# -- what an encoder takes -----------------------------------------------------------------


def laid_out(rows):
    """Return the ids of a list of rows one behind the other, where each starts and its length."""
    lengths = np.fromiter(map(len, rows), np.int64, len(rows))
    return np.concatenate(rows), np.cumsum(lengths) - lengths, lengths


def encoder_inputs(flat, starts, lengths, pad_id, width=None):
    """Return what an encoder takes, from ids as :func:`encode` makes them, one row a piece.

    Parameters
    ----------
    flat : int32 ndarray
        Ids of all rows, and maybe of others.
    starts, lengths : int ndarrays of shape (n,)
        Where each row is in `flat`.
    pad_id : int
        Stands behind the ids of a row that is shorter than others.
    width : int, default=None
        Ids and padding of each row; None: the length of the longest.

    Returns
    -------
    dict of str -> int64 ndarray of shape (n, width)
        "input_ids" and "attention_mask"; "token_type_ids" if there are second texts.
    """
    columns = np.arange(lengths.max() if width is None else width)
    inside = columns < lengths[:, None]
    places = np.minimum(starts[:, None] + columns, len(flat) - 1)
    ids = flat[places].astype(np.int64)
    ids[~inside] = pad_id
    second = ids < 0
    inputs = {"input_ids": ids, "attention_mask": inside.astype(np.int64)}
    if second.any():
        inputs["input_ids"] = np.where(second, ~ids, ids)
        inputs["token_type_ids"] = second.astype(np.int64)
    return inputs


def stored_ids(input_ids, attention_mask, token_type_ids=None):
    """Return the rows that :func:`encoder_inputs` was given, without padding."""
    ids = input_ids.astype(np.int32)
    if token_type_ids is not None:
        ids = np.where(token_type_ids == 1, ~ids, ids)
    return [row[:n] for row, n in zip(ids, attention_mask.sum(1).tolist(), strict=True)]
