"""The corpora of the benchmarks: training and test documents with their labels.

Reuters R8 and R52 and 20 Newsgroups are downloaded at first use. For Ohsumed and Reuters with 90
labels you name what you have: a file of JSON lines, gzipped or not, or the folder of NLTK's corpus
`reuters`. A line of JSON has the fields `split` ("train" or "test"), `text`, and either `label` or
`labels`.
"""

import argparse
import gzip
import json
from functools import partial
from pathlib import Path

import numpy as np

from skfocal import fetch_20newsgroups_cachopo, fetch_reuters

SINGLE, SEVERAL = "single", "several"  # labels per document
TITLES = {
    "r8": "Reuters R8",
    "r52": "Reuters R52",
    "20ng-lt": "20 Newsgroups, long tail",
    "20ng": "20 Newsgroups",
    "ohsumed": "Ohsumed",
    "reuters90": "Reuters, 90 labels",
}
YOURS = ("ohsumed", "reuters90")  # these need a path
_FETCH = {
    "r8": partial(fetch_reuters, "r8"),
    "r52": partial(fetch_reuters, "r52"),
    "20ng-lt": fetch_20newsgroups_cachopo,
    "20ng": fetch_20newsgroups_cachopo,
}
LARGEST, SMALLEST = 300, 6  # training documents per group of the long tail


def named_path(text):
    """Return corpus and path of ``CORPUS=PATH``, an argument of a command."""
    corpus, _, path = text.partition("=")
    if corpus not in YOURS or not path:
        raise argparse.ArgumentTypeError(f"must be CORPUS=PATH with {' or '.join(YOURS)}: {text!r}")
    return corpus, path


def load(name, *, path=None, seed=0):
    """Return the training and test documents of a corpus by its published split.

    Parameters
    ----------
    name : str
        One of TITLES.
    path : path, default=None
        The file or folder of a corpus in YOURS.
    seed : int, default=0
        Chooses the documents of "20ng-lt", and which groups are rare there.

    Returns
    -------
    X_train : list of str
    y_train : ndarray of str, or list of list of str
    X_test, y_test : the same
    kind : {"single", "several"}
        Whether a document has one label or several.
    """
    if name not in TITLES:
        raise ValueError(f"name must be one of {', '.join(TITLES)}. Got {name!r}.")
    if name in YOURS:
        return _published_split(*read(path, name))
    X, y = _FETCH[name](subset="train", return_X_y=True)
    if name == "20ng-lt":
        rows = long_tail(y, np.random.RandomState(seed))
        X, y = [X[i] for i in rows], y[rows]
    return X, y, *_FETCH[name](subset="test", return_X_y=True), SINGLE


def long_tail(y, rng, largest=LARGEST, smallest=SMALLEST):
    """Return row numbers that leave the classes with `largest` down to `smallest` rows."""
    groups = rng.permutation(np.unique(y))
    sizes = np.geomspace(largest, smallest, len(groups)).round().astype(int)
    rows = [rng.permutation(np.flatnonzero(y == g))[:n] for g, n in zip(groups, sizes, strict=True)]
    return rng.permutation(np.concatenate(rows))


# -- files of yours ----------------------------------------------------------------------------


def read(path, name="the corpus"):
    """Return the documents of a file or folder, ``(split, text, label or labels)``, and the kind.

    The documents come in the order of the file, or of NLTK's cats.txt. White space within a text
    is reduced to single spaces, so that both forms of a corpus give the same documents.
    """
    if path is None:
        raise ValueError(f"{name} comes from a file or folder of yours, and no path was given.")
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"{name}: {str(path)!r} does not exist.")
    rows = list(_nltk_documents(path) if path.is_dir() else _json_documents(path))
    if {split for split, *_ in rows} != {"train", "test"}:
        raise ValueError(f"{path} has no training documents, or no test documents.")
    rows = [(split, " ".join(text.split()), labels) for split, text, labels in rows]
    return rows, SINGLE if isinstance(rows[0][2], str) else SEVERAL


def _json_documents(path):
    with path.open("rb") as file:
        gzipped = file.read(2) == b"\x1f\x8b"
    field = None
    with gzip.open(path) if gzipped else path.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
                if not isinstance(row, dict):
                    raise ValueError(f"a line must be an object. Got {row!r:.60}.")
                field = field or ("labels" if "labels" in row else "label")
                _check(row, field)
            except ValueError as error:  # of json, and of the encoding too
                raise ValueError(f"{path}, line {number}: {error}") from None
            yield row["split"], row["text"], row[field]


def _check(row, field):
    """Raise a ValueError if a field is not as it must be."""
    if row.get("split") not in ("train", "test"):
        raise ValueError(f"split must be 'train' or 'test'. Got {row.get('split')!r:.60}.")
    if not isinstance(row.get("text"), str):
        raise ValueError(f"text must be a string. Got {row.get('text')!r:.60}.")
    labels = row.get(field)
    if field == "label" and not isinstance(labels, str):
        raise ValueError(f"label must be a string. Got {labels!r:.60}.")
    if field == "labels" and not _are_strings(labels):
        raise ValueError(f"labels must be a list of strings. Got {labels!r:.60}.")


def _are_strings(labels):
    return isinstance(labels, list) and all(isinstance(label, str) for label in labels)


def _nltk_documents(folder):
    """Yield the documents that cats.txt names: lines such as ``training/123 grain wheat``."""
    index = folder / "cats.txt"
    if not index.exists():
        raise FileNotFoundError(
            f"{str(folder)!r} has no cats.txt. Name the folder of NLTK's reuters that has it, with "
            "training and test beside it."
        )
    splits = {"training": "train", "test": "test"}
    for number, line in enumerate(index.read_text("latin-1").splitlines(), 1):
        name, *labels = line.split() or [""]
        if not name:
            continue
        split = splits.get(name.partition("/")[0])
        if not split or not labels:
            raise ValueError(
                f"{index}, line {number}: expected a document in training or test, and its "
                f"categories. Got {line!r:.60}."
            )
        if not (folder / name).is_file():
            raise ValueError(f"{index}, line {number}: there is no file {name}.")
        yield split, (folder / name).read_text("latin-1"), labels


def _published_split(rows, kind):
    """Return what `load` does."""
    if kind == SEVERAL:
        rows = _labels_of_both_parts(rows)
    parts = []
    for part in ("train", "test"):
        X, y = zip(*(row[1:] for row in rows if row[0] == part), strict=True)
        parts += [list(X), np.array(y) if kind == SINGLE else list(y)]
    return *parts, kind


def _labels_of_both_parts(rows):
    """Keep the labels that occur in training and in test, and the documents with such a label.

    These are the 90 of ApteMod.
    """
    parts = [
        {label for split, _, labels in rows if split == part for label in labels}
        for part in ("train", "test")
    ]
    common = set.intersection(*parts)
    kept = ((split, text, [x for x in labels if x in common]) for split, text, labels in rows)
    return [row for row in kept if row[2]]
