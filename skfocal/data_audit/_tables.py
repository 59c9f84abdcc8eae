"""Tables of an audit, dicts of columns, from what was measured of the documents."""

from collections import defaultdict
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from skfocal._data.labels import positives
from skfocal.data_audit._doubts import Doubts
from skfocal.data_audit._duplicates import Pairs, normal_form, parts_of
from skfocal.data_audit._measure import Lengths, Likeness
from skfocal.data_audit._read import Data

Table: TypeAlias = dict[str, Any]

SHORT = 3  # tokens of text up to which a document is nearly empty


def counts_of(data: Data) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the number of training and of labelled test documents with each label."""
    n_classes = len(data.classes)
    train = positives(data.codes[: data.n], n_classes).astype(np.int64)
    return train, positives(data.codes[data.n :], n_classes).astype(np.int64)


def per_class(
    data: Data, lengths: Lengths, likeness: Likeness, order: NDArray[np.int64]
) -> dict[str, NDArray[Any]]:
    """Return numbers for each class, of its training documents, the most frequent class first."""
    n, has = data.n, data.has[: data.n]
    support, in_test = counts_of(data)
    columns: dict[str, NDArray[Any]] = {"documents": support, "share": support / n}
    if data.labelled_test:
        columns |= {"test_documents": in_test, "test_share": in_test / data.n_test}
    inside = likeness.pairs.second < n
    doubled = np.zeros(n, bool)
    doubled[likeness.pairs.first[inside]] = doubled[likeness.pairs.second[inside]] = True
    by_class = has.tocsc()
    rows = [by_class.indices[a:b] for a, b in np.c_[by_class.indptr[:-1], by_class.indptr[1:]]]
    text = lengths.text[:n]
    with np.errstate(invalid="ignore", divide="ignore"):
        columns |= {
            "median_tokens": np.array([_quantile(lengths.whole[each], 0.5) for each in rows]),
            "long_tokens": np.array([_quantile(lengths.whole[each], 0.95) for each in rows]),
            "cut_share": has.T @ lengths.is_cut[:n].astype(np.int64) / support,
            "unknown_share": (has.T @ lengths.unknown[:n]) / (has.T @ text),
            "short": has.T @ (text <= SHORT).astype(np.int64),
            "duplicated": has.T @ doubled.astype(np.int64),
        }
    columns |= _neighbours(data, likeness)
    return {"label": data.classes[order]} | {k: column[order] for k, column in columns.items()}


def _quantile(values: NDArray[np.int64], share: float) -> float:
    return float(np.quantile(values, share, method="higher")) if len(values) else np.nan


def _neighbours(data: Data, likeness: Likeness) -> dict[str, NDArray[Any]]:
    """Return for each class which classes the neighbours of its documents have.

    "own_neighbours" is the share that has the class itself: of a class of three documents, two
    neighbours can. "nearest_class" is the most frequent other class and "nearest_share" its share.
    With several labels, only labels that never come together with it are others.
    """
    has = data.has[: data.n]
    each = np.asarray(likeness.neighbours.sum(axis=1)).ravel()
    n_neighbours = has.T @ each
    most_own = np.minimum(each.max(), np.asarray(has.sum(axis=0)).ravel() - 1)
    possible = np.maximum(has.T @ (each > 0).astype(np.int64) * most_own, 0)
    counts = (has.T @ likeness.neighbours @ has).tolil()
    own = counts.diagonal()
    for i, j in zip(*(has.T @ has).nonzero(), strict=True):
        counts[i, j] = 0
    counts = counts.tocsr()
    counts.eliminate_zeros()
    most = np.zeros(len(own), np.int64)
    nearest = np.full(len(own), None, object)
    for c in np.flatnonzero(np.diff(counts.indptr)).tolist():
        row = slice(counts.indptr[c], counts.indptr[c + 1])
        best = int(np.argmax(counts.data[row]))
        most[c] = counts.data[row][best]
        nearest[c] = data.names[counts.indices[row][best]]
    with np.errstate(invalid="ignore"):
        return {
            "own_neighbours": own / possible,
            "nearest_class": nearest,
            "nearest_share": most / n_neighbours,
        }


def hidden_classes(classes: Table) -> Table:
    """Return the classes, of several documents, whose neighbours belong to one larger class."""
    documents = dict(zip(classes["label"].tolist(), classes["documents"].tolist(), strict=True))
    names = ("label", "documents", "nearest_class", "nearest_share")
    rows = [
        (label, n, other, documents[other])
        for label, n, other, share in zip(*(classes[name] for name in names), strict=True)
        if share == 1 and 1 < n < documents[other]  # a single document says little
    ]
    heads = ("label", "documents", "other", "other_documents")
    return {head: [_plain(row[k]) for row in rows] for k, head in enumerate(heads)}


def _plain(value: Any) -> Any:
    return value.item() if hasattr(value, "item") else value


def label_variants(data: Data) -> Table:
    """Return labels that differ in nothing but case and blanks, with their documents."""
    found: defaultdict[str, list[int]] = defaultdict(list)
    for code, label in enumerate(data.classes.tolist()):
        if isinstance(label, str):
            found[normal_form(label)].append(code)
    train, test = counts_of(data)
    groups = [codes for codes in found.values() if len(codes) > 1]
    return {
        "labels": [data.classes[codes].tolist() for codes in groups],
        "documents": [train[codes].tolist() for codes in groups],
        "test_documents": [test[codes].tolist() for codes in groups],
    }


def short_documents(data: Data, lengths: Lengths) -> Table:
    """Return the documents of hardly any text, the emptiest first."""
    rows = np.flatnonzero(lengths.text <= SHORT)
    rows = rows[np.argsort(lengths.text[rows], kind="stable")].tolist()
    return {
        "set": [data.place(i)[0] for i in rows],
        "row": [data.place(i)[1] for i in rows],
        "label": [data.label(i) for i in rows],
        "tokens": lengths.text[rows].tolist(),
        "document": [shown(data.documents[i]) for i in rows],
    }


def doubtful_labels(data: Data, doubts: Doubts) -> Table:
    """Return the documents that are judged to have other labels, the most doubtful first."""
    rows: list[tuple[Any, ...]] = []
    columns = (doubts.rows, doubts.probability, doubts.worst, doubts.suggested)
    for i, p, worst, code in zip(*(column.tolist() for column in columns), strict=True):
        label, name = data.label(i), data.names[worst]
        if data.multilabel and p < 0.5:
            other = sorted(set(label) ^ {name}, key=data.names.index)
            rows.append((i, label, other, p, shown(data.documents[i])))
        elif not data.multilabel and code != worst:
            rows.append((i, label, data.names[code], p, shown(data.documents[i])))
    heads = ("row", "label", "suggested", "probability", "document")
    return {head: [row[k] for row in rows] for k, head in enumerate(heads)}


def duplicates(data: Data, pairs: Pairs) -> Table:
    """Return all pairs of duplicates: of different labels first, then training beside test."""
    across = (pairs.first < data.n) & (pairs.second >= data.n)
    labels = [(data.label(i), data.label(j)) for i, j in _numbers(pairs)]
    same = np.array([None if None in both else both[0] == both[1] for both in labels], object)
    differ = np.array([value is False for value in same], bool)
    order = np.lexsort((pairs.second, pairs.first, -pairs.overlap, ~(across | differ), ~differ))
    first, second = pairs.first[order].tolist(), pairs.second[order].tolist()
    return {
        "set": [data.place(i)[0] for i in first],
        "row": [data.place(i)[1] for i in first],
        "label": [labels[k][0] for k in order],
        "other_set": [data.place(i)[0] for i in second],
        "other_row": [data.place(i)[1] for i in second],
        "other_label": [labels[k][1] for k in order],
        "exact": pairs.exact[order].tolist(),
        "overlap": pairs.overlap[order].tolist(),
        "same_label": same[order].tolist(),
        "document": [shown(data.documents[i]) for i in first],
        "other_document": [shown(data.documents[i]) for i in second],
    }


def _numbers(pairs: Pairs) -> list[tuple[int, int]]:
    return list(zip(pairs.first.tolist(), pairs.second.tolist(), strict=True))


def shown(document: Any) -> str:
    """Return a document as one string, with a bar between the texts of a pair."""
    return " | ".join(parts_of(document))


def overall(data: Data, lengths: Lengths, likeness: Likeness, table: Table) -> dict[str, float]:
    """Return the numbers at the top of an audit."""
    n, pairs = data.n, likeness.pairs
    support = table["documents"][table["documents"] > 0]
    text = int(lengths.text[:n].sum())
    inside, across = pairs.second < n, (pairs.first < n) & (pairs.second >= n)
    numbers = {
        "documents": n,
        "labels" if data.multilabel else "classes": len(support),
        "imbalance ratio": float(support.max() / support.min()),
        "cut share": float(lengths.is_cut[:n].mean()),
        "unknown token share": int(lengths.unknown[:n].sum()) / text if text else 0.0,
        "empty": int((lengths.text[:n] == 0).sum()),
        "nearly empty": int(((lengths.text[:n] > 0) & (lengths.text[:n] <= SHORT)).sum()),
        "with a duplicate": _n_in(pairs, inside),
        "with a duplicate of another label": int(has_other_label(data, pairs).sum()),
    }
    if data.n_test:
        numbers["test documents"] = data.n_test
        numbers["test documents with a duplicate in training"] = len(
            np.unique(pairs.second[across])
        )
    return numbers


def has_other_label(data: Data, pairs: Pairs) -> NDArray[np.bool_]:
    """Return which training documents have a duplicate in training with another label.

    Copies stand beside the first of them only, which is also the one that near duplicates stand
    beside: what a document is a duplicate of is found through it.
    """
    n = data.n
    inside = pairs.second < n
    copies, near = inside & pairs.exact, inside & ~pairs.exact
    first = np.arange(n)
    first[pairs.second[copies]] = pairs.first[copies]
    labels = [_key(data.label(i)) for i in range(n)]
    own: defaultdict[int, set[Any]] = defaultdict(set)
    for i, label in zip(first.tolist(), labels, strict=True):
        own[i].add(label)
    around = {i: set(found) for i, found in own.items()}
    for i, j in zip(
        first[pairs.first[near]].tolist(), first[pairs.second[near]].tolist(), strict=True
    ):
        around[i] |= own[j]
        around[j] |= own[i]
    return np.array([len(around[i]) > 1 for i in first.tolist()], bool)


def _key(label: Any) -> Any:
    return tuple(label) if isinstance(label, list) else label


def _n_in(pairs: Pairs, chosen: NDArray[np.bool_]) -> int:
    """Return the number of documents in some of the pairs."""
    return len(np.union1d(pairs.first[chosen], pairs.second[chosen]))
