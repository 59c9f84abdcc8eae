"""Measure documents: their tokens, their duplicates, the classes of their neighbours."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from skfocal.data_audit._doubts import FEW, Doubts, judge, nothing
from skfocal.data_audit._duplicates import (
    Pairs,
    all_pairs,
    first_copies,
    groups_of,
    near_pairs,
    parts_of,
)
from skfocal.data_audit._read import Data

if TYPE_CHECKING:
    from skfocal.data_audit._neighbours import Encoder

_CANDIDATES = 10  # nearest documents that may be near duplicates; docs/benchmarks/audit.md
NEIGHBOURS = 5  # nearest documents whose classes are looked at


@dataclass(frozen=True, eq=False)
class Lengths:
    """The tokens of documents, special tokens of the encoder not counted unless said so.

    Attributes
    ----------
    whole : int64 ndarray of shape (n,)
        Tokens of each document before it is cut, special tokens included.
    text, unknown : int64 ndarrays of shape (n,)
        Tokens of text that the encoder reads, and those among them that its tokenizer does not
        know.
    max_length, limit : int
        Tokens that are read, special tokens included, and the most that the model could read.
    n_layers : int
        Layers of the encoder.
    """

    whole: NDArray[np.int64]
    text: NDArray[np.int64]
    unknown: NDArray[np.int64]
    max_length: int
    limit: int
    n_layers: int

    @property
    def is_cut(self) -> NDArray[np.bool_]:
        """Whether each document is longer than `max_length`."""
        return self.whole > self.max_length


def measure_lengths(encoder: "Encoder", documents: list[Any]) -> Lengths:
    """Return how many tokens documents have; blank ones are not shown to the tokenizer."""
    special = encoder.truncation.n_special
    whole, text, unknown = np.full(len(documents), special), *np.zeros((2, len(documents)), int)
    rows = [i for i, document in enumerate(documents) if any(map(str.strip, parts_of(document)))]
    if rows:
        tokens = encoder.tokens([documents[i] for i in rows])
        whole[rows] = tokens.full_lengths
        text[rows] = tokens.lengths - special
        unknown[rows] = _count_unknown(encoder.tokenizer, tokens)
    spec = encoder.truncation
    return Lengths(whole, text, unknown, spec.max_length, encoder.length_limit, encoder.n_layers)


def _count_unknown(tokenizer: Any, tokens: Any) -> NDArray[np.int64]:
    """Return the number of unknown tokens of each document."""
    unknown = tokenizer.unk_token_id
    if unknown is None or unknown in (tokenizer.eos_token_id, tokenizer.pad_token_id):
        return np.zeros(len(tokens), np.int64)  # such tokenizers fall back to bytes
    # The ids of second texts are stored as their complements.
    seen = np.concatenate([[0], np.cumsum(np.isin(tokens.flat, (unknown, ~unknown)))])
    counts: NDArray[np.int64] = seen[tokens.starts + tokens.lengths] - seen[tokens.starts]
    return counts


@dataclass(frozen=True, eq=False)
class Likeness:
    """Which documents are alike.

    Attributes
    ----------
    pairs : Pairs
        Duplicates.
    groups : int64 ndarray of shape (n_train,)
        The group of each training document: duplicates are in the same one.
    neighbours : sparse array of shape (n_train, n_train)
        Ones where a training document (column) is among the nearest of another (row).
    doubts : Doubts
        How probable the labels of the training documents are.
    """

    pairs: Pairs
    groups: NDArray[np.int64]
    neighbours: sparse.csr_array
    doubts: Doubts


def measure_likeness(
    encoder: "Encoder",
    data: Data,
    lengths: Lengths,
    bar: Callable[[int], AbstractContextManager[Callable[[int], object]]],
) -> Likeness:
    """Embed the documents that have text, each distinct one once, and compare them.

    Within ``bar(n)``, the number of documents that are done is given to what it yields.
    """
    documents, n = data.documents, data.n
    first = first_copies(documents)
    empty = lengths.text == 0
    first[empty] = np.flatnonzero(empty)  # which are a finding of their own
    distinct = np.flatnonzero((first == np.arange(len(first))) & ~empty)
    if not len(distinct):
        none = all_pairs(first, np.zeros((0, 2), np.int64), np.zeros(0), n)
        return Likeness(
            none, groups_of(n, none), sparse.csr_array((n, n), dtype=np.int64), nothing(FEW)
        )
    with bar(len(distinct)) as watch:
        vectors = encoder.embed([documents[i] for i in distinct], watch)
    candidates = _candidates(vectors, distinct, n)
    pairs = all_pairs(first, *near_pairs(documents, candidates), n)
    rows = np.flatnonzero(~empty[:n])
    of_each = vectors[np.searchsorted(distinct, first[rows])]
    groups = groups_of(n, pairs)
    doubts = judge(of_each, data.codes[rows], groups[rows], len(data.classes))
    return Likeness(pairs, groups, _neighbours(of_each, rows, n), doubts.at(rows))


def _candidates(
    vectors: NDArray[np.float32], distinct: NDArray[np.int64], n: int
) -> NDArray[np.int64]:
    """Return the nearest training and test documents of each document, as pairs of numbers."""
    from skfocal.data_audit._neighbours import nearest

    cut = int(np.searchsorted(distinct, n))
    train, test = slice(0, cut), slice(cut, None)
    found = [np.zeros((0, 2), np.int64)]
    for rows, others, same in ((train, train, True), (test, train, False), (test, test, True)):
        near = nearest(vectors[rows], vectors[others], _CANDIDATES, same)
        left = np.repeat(distinct[rows], near.shape[1])
        found.append(np.column_stack([left, distinct[others][near.ravel()]]))
    return np.concatenate(found)


def _neighbours(vectors: NDArray[np.float32], rows: NDArray[np.int64], n: int) -> sparse.csr_array:
    """Return which of `n` training documents are nearest to each of some `rows` of them."""
    from skfocal.data_audit._neighbours import nearest

    found = nearest(vectors, vectors, NEIGHBOURS, True)
    left, right = np.repeat(rows, found.shape[1]), rows[found.ravel()]
    return sparse.csr_array((np.ones(len(left), np.int64), (left, right)), shape=(n, n))
