"""Exact and near duplicates: embeddings propose pairs of documents, their words decide.

How alike two vectors are depends on the encoder: in some, any two documents have a cosine above
0.9. Which other documents are nearest does not, so that the search needs no threshold. The share of
words that two documents have in common means the same whatever the encoder.
"""

import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from skfocal._utils.hashing import digest

# Common pairs of words among all of two documents, from which on they are near duplicates;
# docs/benchmarks/audit.md.
NEAR = 0.6

# Thai, Lao, Burmese, Khmer, Chinese and Japanese have no blanks between words: each of their
# characters counts as a word.
_UNSPACED = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff"
_WORD = re.compile(f"[{_UNSPACED}]|[^\\W{_UNSPACED}]+")


@dataclass(frozen=True, eq=False)
class Pairs:
    """Pairs of duplicates.

    Attributes
    ----------
    first, second : int64 ndarrays of shape (n_pairs,)
        Numbers of the documents; the first is the smaller.
    overlap : float64 ndarray of shape (n_pairs,)
        Share of their pairs of words that both have, 1 for exact duplicates.
    exact : bool ndarray of shape (n_pairs,)
        Whether the texts differ in nothing but case, blanks and forms of characters.
    """

    first: NDArray[np.int64]
    second: NDArray[np.int64]
    overlap: NDArray[np.float64]
    exact: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.first)


def normal_form(text: str) -> str:
    r"""Return a text without what makes no other document: case, blanks, forms of characters.

    Examples
    --------
    >>> normal_form(" Oil\tPRICES\n ")
    'oil prices'
    """
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def first_copies(documents: Iterable[Any]) -> NDArray[np.int64]:
    """Return for each document the number of the first that has the same normal form."""
    seen: dict[bytes, int] = {}
    keys = (digest(*map(normal_form, parts_of(document))) for document in documents)
    return np.array([seen.setdefault(key, i) for i, key in enumerate(keys)], np.int64)


def parts_of(document: Any) -> Sequence[str]:
    """Return the one or two texts of a document."""
    return (document,) if isinstance(document, str) else document


class WordPairs:
    """The pairs of neighbouring words of documents, as sorted numbers."""

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}

    def of(self, document: Any) -> NDArray[np.int64]:
        """Return the distinct pairs of neighbouring words in a document."""
        found = []
        for text in parts_of(document):
            words = _WORD.findall(normal_form(text))
            numbers = [self._numbers.setdefault(word, len(self._numbers)) for word in words]
            row = np.array(numbers, np.int64)
            found.append((row[:-1] << 32) | row[1:])
        return np.unique(np.concatenate(found))


def overlap(a: NDArray[np.int64], b: NDArray[np.int64], least: float = 0.0) -> float:
    """Return the Jaccard index of two sets of numbers; 0 if it is certainly less than `least`."""
    if not len(a) or not len(b) or min(len(a), len(b)) < least * max(len(a), len(b)):
        return 0.0
    common = len(np.intersect1d(a, b, assume_unique=True))
    return common / (len(a) + len(b) - common)


def near_pairs(
    documents: Sequence[Any], candidates: NDArray[np.int64], least: float = NEAR
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return those of the candidates that have most of their words in common.

    Parameters
    ----------
    documents : sequence
    candidates : int64 ndarray of shape (n_candidates, 2)
        Numbers of documents.
    least : float, default=NEAR
        The smallest overlap.

    Returns
    -------
    pairs : int64 ndarray of shape (n_pairs, 2)
        The smaller number first, each pair once, in order.
    overlap : float64 ndarray of shape (n_pairs,)
    """
    if not len(candidates):
        return candidates, np.zeros(0)
    candidates = np.unique(np.sort(candidates, axis=1), axis=0)
    make, sets = WordPairs(), {}
    for i in np.unique(candidates).tolist():
        sets[i] = make.of(documents[i])
    alike = np.array([overlap(sets[i], sets[j], least) for i, j in candidates.tolist()])
    found = alike >= least
    return candidates[found], alike[found]


def all_pairs(
    first: NDArray[np.int64], near: NDArray[np.int64], alike: NDArray[np.float64], n: int
) -> Pairs:
    """Return exact duplicates, each beside its first copy, and then the near ones.

    `near` are pairs of first copies. Copies of a test document that is near one of the `n` training
    documents are near it, too.
    """
    copies = np.flatnonzero(first != np.arange(len(first)))
    copies_of: defaultdict[int, list[int]] = defaultdict(list)
    for copy in copies.tolist():
        copies_of[int(first[copy])].append(copy)
    more = [
        (i, copy, share)
        for (i, j), share in zip(near.tolist(), alike.tolist(), strict=True)
        if i < n <= j
        for copy in copies_of[j]
    ]
    left = np.array([i for i, _, _ in more], np.int64)
    right = np.array([j for _, j, _ in more], np.int64)
    n_exact, shares = len(copies), np.array([share for _, _, share in more])
    return Pairs(
        np.concatenate([first[copies], near[:, 0], left]),
        np.concatenate([copies, near[:, 1], right]),
        np.concatenate([np.ones(n_exact), alike, shares]),
        np.arange(n_exact + len(near) + len(more)) < n_exact,
    )


def groups_of(n: int, pairs: Pairs) -> NDArray[np.int64]:
    """Return the number of the group of each of the first `n` documents.

    Documents that are duplicates of each other, or of a third one, have the same number.
    """
    inside = pairs.second < n
    rows, columns = pairs.first[inside], pairs.second[inside]
    graph = coo_array((np.ones(len(rows), np.int8), (rows, columns)), shape=(n, n))
    numbers: NDArray[np.int64] = connected_components(graph, directed=False)[1].astype(np.int64)
    return numbers
