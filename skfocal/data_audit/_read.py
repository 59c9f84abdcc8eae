"""Labelled documents as they are given: training and test together, labels as codes."""

import contextlib
import functools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from skfocal._data.labels import (
    Labels,
    OneClass,
    UnknownLabels,
    check_order,
    encode,
    has_names,
    is_indicator,
)
from skfocal._data.texts import Documents, as_texts, names_of_columns
from skfocal._utils.arrays import is_reordered
from skfocal._utils.messages import excerpts


@dataclass(frozen=True, eq=False)
class Data:
    """Documents and their labels, those of the training first.

    Attributes
    ----------
    documents : list of str or of (str, str)
    n : int
        Number of training documents; the others are test documents.
    classes : ndarray of shape (n_classes,)
        All labels, also those that only test documents have.
    codes : int64 ndarray of shape (n_labelled,) or float32 indicator of (n_labelled, n_classes)
    """

    documents: list[Any]
    n: int
    classes: NDArray[Any]
    codes: NDArray[Any]

    @property
    def pairs(self) -> bool:
        """Whether documents are pairs of texts."""
        return isinstance(self.documents[0], tuple)

    @property
    def multilabel(self) -> bool:
        """Whether a document may have several labels."""
        return self.codes.ndim == 2

    @functools.cached_property
    def names(self) -> list[Any]:
        """All labels as objects of Python."""
        return [*self.classes.tolist()]

    @property
    def n_test(self) -> int:
        """Number of test documents."""
        return len(self.documents) - self.n

    @property
    def labelled_test(self) -> bool:
        """Whether there are test documents with labels."""
        return len(self.codes) > self.n

    def place(self, i: int) -> tuple[str, int]:
        """Return the set and the row of a document, counted from 0 in each set."""
        return ("training", i) if i < self.n else ("test", i - self.n)

    def label(self, i: int) -> Any:
        """Return the label of a document or the list of its labels; None if it has none given."""
        if i >= len(self.codes):
            return None
        names = self.names
        if self.multilabel:
            return [names[k] for k in np.flatnonzero(self.codes[i])]
        return names[self.codes[i]]

    @functools.cached_property
    def has(self) -> sparse.csr_array:
        """Return which labels each labelled document has, zeros and ones."""
        if self.multilabel:
            return sparse.csr_array(self.codes.astype(np.int64))
        n = len(self.codes)
        ones = np.ones(n, np.int64)
        return sparse.csr_array((ones, (np.arange(n), self.codes)), shape=(n, len(self.classes)))


def read(X: Documents, y: Labels, X_test: Documents, y_test: Labels) -> Data:
    """Return the documents and labels that a user has given, checked.

    Raises
    ------
    TypeError, ValueError
        If they cannot be used; the message names the row.
    """
    if X_test is None and y_test is not None:
        raise ValueError("y_test needs X_test, the documents that have these labels. Got None.")
    check_order(X, y=y)
    train = list(as_texts(X))
    try:
        classes, codes = encode(y, train)
    except OneClass as error:  # whose message speaks of a parameter of the estimator
        raise ValueError(f"{error}".partition(" If there are more")[0]) from error
    if codes.ndim == 2 and not codes.any():
        raise ValueError("y must have a label somewhere. Got an indicator of zeros only.")
    if X_test is None:
        return Data(train, len(train), classes, codes)
    _check_columns(X, X_test)
    with _about_test():
        check_order(X_test, y=y_test)
        test = list(as_texts(X_test))
    if isinstance(test[0], tuple) != isinstance(train[0], tuple):
        kinds = ("one text per document", "pairs of texts")
        raise ValueError(
            f"X_test must hold {kinds[isinstance(train[0], tuple)]}, as X does. "
            f"Got {kinds[isinstance(test[0], tuple)]}."
        )
    if y_test is not None:
        classes, codes = _both(y, train, y_test, test, classes, codes)
    return Data(train + test, len(train), classes, codes)


def _both(
    y: Labels,
    train: list[Any],
    y_test: Labels,
    test: list[Any],
    classes: NDArray[Any],
    codes: NDArray[Any],
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return all classes and the codes of both sets; unknown labels of the test are classes."""
    several = codes.ndim == 2
    with _about_test():
        if several and has_names(y_test) and _says_labels(y):
            others, more = encode(y_test, test, None, True)
            _check_one_kind(classes, others)
            return _by_name(classes, codes, others, more, in_order=not has_names(y))
        try:
            more = encode(y_test, test, classes, several)[1]
        except UnknownLabels as error:
            unknown = np.array(error.unknown)
            _check_one_kind(classes, unknown)
            if several and _says_labels(y):
                others = np.concatenate([classes, unknown])
                more = encode(y_test, test, others, True)[1]
                return _by_name(classes, codes, others, more, in_order=not has_names(y))
            classes = np.unique(np.concatenate([classes, unknown]))
            codes = encode(y, train, classes, several)[1]
            more = encode(y_test, test, classes, several)[1]
    return classes, np.concatenate([codes, more])


def _says_labels(y: Any) -> bool:
    """Return whether y holds the labels themselves, or an indicator whose columns have names."""
    return has_names(y) or not is_indicator(y)


def _by_name(
    classes: NDArray[Any],
    codes: NDArray[Any],
    others: NDArray[Any],
    more: NDArray[Any],
    in_order: bool,
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return all columns of two indicators, which one of them may lack, and both under these."""
    names = list(dict.fromkeys([*classes.tolist(), *others.tolist()]))
    names = sorted(names) if in_order else names
    both: NDArray[Any] = np.zeros((len(codes) + len(more), len(names)), codes.dtype)
    both[: len(codes)][:, [names.index(name) for name in classes.tolist()]] = codes
    both[len(codes) :][:, [names.index(name) for name in others.tolist()]] = more
    return np.asarray(names), both


def _check_one_kind(classes: NDArray[Any], others: NDArray[Any]) -> None:
    are_numbers = [np.array(c.tolist()).dtype.kind in "biuf" for c in (classes, others)]
    if are_numbers[0] != are_numbers[1]:
        raise ValueError(
            f"y must have labels of the kind of the training, {excerpts(classes)}. "
            f"Got {excerpts(others)}."
        )


def _check_columns(X: Any, X_test: Any) -> None:
    """Raise ValueError if X_test has the columns of X in another order."""
    ours, theirs = names_of_columns(X), names_of_columns(X_test)
    if is_reordered(ours, theirs):
        raise ValueError(
            f"X_test must have the columns of X in their order, {excerpts(ours)}. "
            f"Got {excerpts(theirs)}."
        )


@contextlib.contextmanager
def _about_test() -> Iterator[None]:
    """Say of errors that they are about the test documents."""
    try:
        yield
    except UnknownLabels:
        raise
    except (TypeError, ValueError) as error:
        kind = TypeError if isinstance(error, TypeError) else ValueError
        raise kind(f"In X_test and y_test: {error}") from error
