"""The words of a text, and which of its tokens belong to them."""

import functools
import re
import unicodedata

import numpy as np

# Scripts that are written without spaces between words, by how Unicode names their characters.
_UNSPACED = ("CJK", "HIRAGANA", "KATAKANA", "BOPOMOFO", "THAI", "LAO", "KHMER", "MYANMAR")
_JOINERS = "'’.-_"  # as in don't, U.S and e-mail
# What characters are ("w" in a word, "u" unspaced, "x" part of the one before, "j" a joiner, "p"
# other punctuation or a symbol), and the words that they form.
_WORD = re.compile(r"[wx]+(?:j[wx]+)*|ux*|[jp]x*(?:[jp]x*)*")


def word_spans(text):
    """Return where the words of a text start and stop, an int64 ndarray of shape (n_words, 2).

    A word is a run of letters and digits, which may have apostrophes, hyphens or full stops within.
    Punctuation marks and symbols next to each other are one word. In scripts without spaces, each
    character is a word.

    Examples
    --------
    >>> text = "I don't, said Zoë."
    >>> [text[start:stop] for start, stop in word_spans(text)]
    ['I', "don't", ',', 'said', 'Zoë', '.']
    """
    spans = [match.span() for match in _WORD.finditer("".join(map(_kind, text)))]
    return np.array(spans, np.int64).reshape(-1, 2)


@functools.lru_cache(4096)
def _kind(character):
    """Return what a character is, as a letter of the pattern of words."""
    category = unicodedata.category(character)
    if character.isspace() or category in ("Cc", "Zs", "Zl", "Zp"):
        return " "
    if category[0] == "M" or category == "Cf":  # accents; what joins emoji
        return "x"
    if character in _JOINERS:
        return "j"
    if category[0] in "PS":
        return "p"
    return "u" if unicodedata.name(character, "").startswith(_UNSPACED) else "w"


def words_of_tokens(text, starts, stops):
    """Return the words of a text, and the word of each of its tokens.

    Words that share a token become one: a token is never divided.

    Parameters
    ----------
    text : str
    starts, stops : int64 ndarrays of shape (n_tokens,)
        The characters of each token, in the order of the text; blanks around them do not count.

    Returns
    -------
    spans : int64 ndarray of shape (n_words, 2)
    words : int64 ndarray of shape (n_tokens,)
        The word that each token belongs to. One of blanks alone belongs to the word after it, or
        to the last. -1 if there are no words.
    """
    spans = word_spans(text)
    if not len(spans):
        return spans, np.full(len(starts), -1)
    # A token overlaps the words from the first that stops after its start, to the last that
    # starts before its stop.
    first = np.searchsorted(spans[:, 1], starts, side="right")
    last = np.searchsorted(spans[:, 0], stops, side="left") - 1
    joined = np.zeros(len(spans) + 1, np.int64)  # how many tokens reach from a word to the next
    for i, j in zip(first, last, strict=True):
        if i < j:
            joined[i] += 1
            joined[j] -= 1
    begins = np.concatenate([[True], np.cumsum(joined[: len(spans) - 1]) == 0])
    word = np.cumsum(begins) - 1  # the merged word of each word
    heads = np.flatnonzero(begins)
    tails = np.concatenate([heads[1:], [len(spans)]]) - 1
    merged = np.column_stack([spans[heads, 0], spans[tails, 1]])
    return merged, word[np.minimum(first, len(spans) - 1)]
