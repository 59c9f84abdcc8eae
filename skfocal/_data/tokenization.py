"""Turn texts or pairs of texts into token ids; truncate long ones or divide them into windows."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from skfocal._utils.messages import excerpt

# The fraction of kept tokens that "head_tail" takes from the beginning of a long document; the
# rest are from its end: 128 of 510 (Sun et al., 2019, arXiv:1905.05583).
_HEAD = 0.25


LONG_DOCUMENTS = ("truncate", "head_tail", "windows")


@dataclass(frozen=True)
class TruncationSpec:
    """How documents become token ids.

    Attributes
    ----------
    max_length : int
        Maximum number of tokens in a window, including special tokens.
    long_documents : {"truncate", "head_tail", "windows"}
        What happens to a longer document: it loses its end, or its middle, or is divided into
        windows, each of `max_length` tokens except the last one.
    stride : int
        Number of tokens that neighbouring windows share.
    max_windows : int or None
        Maximum number of windows per document; None for no limit.
    side : {"right", "left"}
        The side on which a text is truncated, or towards which windows advance.
    n_special : int
        Number of special tokens around a text, or around and between two texts.
    marks_second : bool
        Whether the encoder has token types, which mark the second text of a pair.
    """

    max_length: int
    long_documents: str = "truncate"
    stride: int = 0
    max_windows: int | None = None
    side: Any = "right"
    n_special: int = 2
    marks_second: bool = False

    def check(self):
        """Raise ValueError if windows have no room for text or do not advance."""
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
        """Number of tokens of the longest document that loses none."""
        if self.long_documents != "windows":
            return self.max_length
        if self.max_windows is None:
            return np.inf
        step = self.max_length - self.n_special - self.stride
        return self.max_length + (self.max_windows - 1) * step

    def describe(self):
        """Return the settings that determine the reach, for messages."""
        if self.long_documents != "windows":
            return f"max_length={self.max_length}"
        return f"the {self.reach} of max_windows={self.max_windows} windows of {self.max_length}"

    @property
    def lost_part(self):
        """The part that a longer document loses, for messages."""
        if self.long_documents == "head_tail":
            return "middle"
        return "end" if self.side == "right" else "beginning"


def checked_truncation(
    max_length, *, long_documents="truncate", stride=0, max_windows=None, **others
):
    """Return a :class:`TruncationSpec` from the values in a file; the caller runs `check`."""
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
    """Return ``(ids, length before truncation)`` of each text or pair of texts.

    The windows of a document are concatenated. If the encoder has token types, each id of a pair's
    second text is stored as its complement, a negative number.

    Parameters
    ----------
    backend : tokenizers.Tokenizer
        Its truncation and padding are turned off, so threads must take turns.
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
        _check_not_empty(ids, text)
        entries.append(_kept(ids, encoding, truncation))
    return list(zip(entries, map(len, encodings), strict=True))


def encode_with_places(backend, text, truncation):
    """Return the ids of a text or pair as :func:`encode` does, and where they are in the text.

    Parameters
    ----------
    backend : tokenizers.Tokenizer
        As in :func:`encode`.
    text : str or (str, str)
    truncation : TruncationSpec

    Returns
    -------
    ids : int32 ndarray of shape (n_tokens,)
    rows : int64 ndarray of shape (n_tokens,)
        For each id its row in `places`. A token that several windows share has one row.
    places : int64 ndarray of shape (n_all, 3)
        For each token before truncation: the text that it belongs to, 0 or 1, or -1 for a special
        token; and the characters of that text, from start to stop.
    """
    backend.no_truncation()
    backend.no_padding()
    (encoding,) = backend.encode_batch([encodable(text)])
    ids = _ids(encoding, truncation)
    _check_not_empty(ids, text)
    places = np.zeros((len(ids), 3), np.int64)
    places[:, 0] = [-1 if i is None else i for i in encoding.sequence_ids]
    places[:, 1:] = encoding.offsets
    for i, part in enumerate([text] if isinstance(text, str) else text):
        own = places[:, 0] == i
        places[own, 1:] = _characters(part)[places[own, 1:]]
    rows = _kept(np.arange(len(ids)), encoding, truncation)
    return ids[rows], rows, places


def _check_not_empty(ids, text):
    if len(ids) == 0:
        raise ValueError(
            "X must have a token in each document, since the model's tokenizer adds none of "
            f"its own: leave this document out. Got {excerpt(text)}."
        )


def _kept(ids, encoding, truncation):
    """Return what is kept of an encoding's ids, or of other values for its tokens."""
    if len(ids) <= truncation.max_length:
        return ids
    # The tokenizer could truncate, too, but it also builds everything that it cuts off: for a
    # pair, every window of one text with every window of the other.
    return _CUTS[truncation.long_documents](ids, encoding, truncation)


def _characters(text):
    """Return where each character of ``encodable(text)``, and its end, is in the text."""
    kept = encodable(text)
    if len(kept) == len(text):
        return np.arange(len(text) + 1)
    # Two surrogates have become the one character that they stand for.
    widths = np.ones(len(kept) + 1, np.int64)
    place = 0
    for i, character in enumerate(kept):
        widths[i] = 1 + (character > "\uffff" and text[place] <= "\uffff")
        place += widths[i]
    return np.cumsum(widths) - widths


def _ids(encoding, truncation):
    ids = np.array(encoding.ids, np.int32)
    if not truncation.marks_second:
        return ids
    return np.where(np.array(encoding.type_ids) == 1, ~ids, ids)


def _places(encoding):
    """Return the positions of the tokens of each text; all others are special tokens."""
    owner = np.array([-1 if i is None else i for i in encoding.sequence_ids])
    return [np.flatnonzero(owner == i) for i in range(encoding.n_sequences)]


def _truncated(ids, encoding, truncation):
    """Return the special tokens and the beginning, or end, of the text.

    The longer text of a pair is cut first. These are the tokens that transformers keeps.
    """
    places = _places(encoding)
    room = truncation.max_length - (len(ids) - sum(map(len, places)))
    keep = np.ones(len(ids), bool)
    for place, n in zip(places, _shares([len(place) for place in places], room), strict=True):
        keep[place[n:] if truncation.side == "right" else place[: len(place) - n]] = False
    return ids[keep]


def _shares(lengths, room):
    """Return how many tokens of each text are kept; a pair's longer text loses them first."""
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
    """Return the concatenated windows of `max_length` ids; only the last may be shorter."""
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


# -- windows -------------------------------------------------------------------------------


def n_windows(lengths, max_length):
    """Return the number of windows of each document."""
    return np.maximum(-(-np.asarray(lengths, np.int64) // max_length), 1)


def window_table(counts):
    """Return the rows of each document's windows, of shape (n, most windows).

    The windows of all documents are concatenated. Documents with fewer windows are filled with -1.
    """
    counts = np.asarray(counts)
    columns = np.arange(counts.max())
    rows = (np.cumsum(counts) - counts)[:, None] + columns
    return np.where(columns < counts[:, None], rows, -1)


def windows_of(starts, lengths, max_length):
    """Return where the windows start, their lengths, and their number per document.

    Parameters
    ----------
    starts, lengths : int ndarrays of shape (n,)
        Position and number of the ids of each document, as :func:`laid_out` returns them.
    max_length : int
        Maximum number of tokens in a window.

    Returns
    -------
    starts, lengths : int ndarrays of shape (n_windows,)
    counts : int64 ndarray of shape (n,)
    """
    counts = n_windows(lengths, max_length)
    documents = np.repeat(np.arange(len(counts)), counts)
    begins = max_length * (np.arange(len(documents)) - (np.cumsum(counts) - counts)[documents])
    return starts[documents] + begins, np.minimum(lengths[documents] - begins, max_length), counts


# -- inputs of the encoder -----------------------------------------------------------------


def laid_out(rows):
    """Return the concatenated ids of a list of rows, and the start and length of each row."""
    lengths = np.fromiter(map(len, rows), np.int64, len(rows))
    return np.concatenate(rows), np.cumsum(lengths) - lengths, lengths


def encoder_inputs(flat, starts, lengths, pad_id, width=None):
    """Return the encoder's inputs from ids made by :func:`encode`, one row per window.

    Parameters
    ----------
    flat : int32 ndarray
        Ids of all rows; it may contain more.
    starts, lengths : int ndarrays of shape (n,)
        Position and length of each row in `flat`.
    pad_id : int
        Fills rows that are shorter than the others.
    width : int, default=None
        Length of each row with padding; None for the length of the longest.

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
    """Undo :func:`encoder_inputs`: return the rows without padding."""
    ids = input_ids.astype(np.int32)
    if token_type_ids is not None:
        ids = np.where(token_type_ids == 1, ~ids, ids)
    return [row[:n] for row, n in zip(ids, attention_mask.sum(1).tolist(), strict=True)]
