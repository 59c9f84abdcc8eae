"""The audit of labelled text: the recipe, and the tables that it leaves."""

import contextlib
import os
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from numbers import Integral
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from skfocal._data.labels import Labels
from skfocal._data.texts import Documents
from skfocal._pages.page import Page
from skfocal._utils.messages import excerpt
from skfocal._utils.optional import import_optional
from skfocal._version import __version__
from skfocal.data_audit import _tables
from skfocal.data_audit._advice import Advice, advise
from skfocal.data_audit._findings import sentences, summary
from skfocal.data_audit._measure import (
    Lengths,
    Likeness,
    measure_lengths,
    measure_likeness,
)
from skfocal.data_audit._read import Data, read


def audit(
    X: Documents,
    y: Labels,
    X_test: Documents = None,
    y_test: Labels = None,
    *,
    model: str | os.PathLike[str] = "google-bert/bert-base-uncased",
    max_length: int | None = None,
    trust_remote_code: bool = False,
) -> "Audit":
    r"""Look at labelled documents before training on them.

    Nothing is trained. Documents are tokenised as `fit` would, which then need not do it again, and
    compared by the embeddings of the pretrained encoder. If standard error is a terminal, a bar
    shows the progress.

    Parameters
    ----------
    X, y : documents and their labels
        As :meth:`BertFocalClassifier.fit` accepts them: one text or a pair of texts per document,
        one label or several.
    X_test, y_test : documents and their labels, default=None
        Those to test on. `y_test` may be left out. It may have labels that `y` does not have.
    model : str or path, default="google-bert/bert-base-uncased"
        The encoder, a name on the Hugging Face hub or a folder.
    max_length : int, default=None
        Number of tokens to which a classifier would cut the documents, special tokens included.
        None: as :class:`BertFocalClassifier` has it, at most 512.
    trust_remote_code : bool, default=False
        Whether Python code that comes with the model may run.

    Returns
    -------
    Audit

    Raises
    ------
    ValueError
        If the documents, the labels or `max_length` cannot be used, there is one class only, or
        there is `y_test` without `X_test`.
    TypeError
        If a document is not a text.
    OSError
        If there is no such model.

    See Also
    --------
    Report : An evaluation of a fitted classifier.

    Examples
    --------
    >>> from skfocal import audit, fetch_minilm
    >>> X = ["oil prices rose", "Oil prices rose ", "the team won", "a late goal"]
    >>> found = audit(X, ["oil", "Oil", "sport", "sport"], model=fetch_minilm())
    >>> print(found.findings[0].partition(":")[0])
    2 documents have a duplicate of another label
    >>> print(found.findings[1])
    The labels ['Oil', 'oil'] differ only in case or blanks.
    """
    _check(model, max_length, trust_remote_code)
    data = read(X, y, X_test, y_test)
    from skfocal.data_audit._neighbours import Encoder  # which needs torch

    encoder = Encoder.load(model, max_length, data.pairs, trust_remote_code)
    lengths = measure_lengths(encoder, data.documents)
    likeness = measure_likeness(encoder, data, lengths, _bar)
    return Audit(data, lengths, likeness, os.path.basename(os.path.normpath(model)))


def _check(model: Any, max_length: Any, trust_remote_code: Any) -> None:
    """Raise an error for parameters that are wrong by themselves."""
    if not isinstance(model, str | os.PathLike):
        raise TypeError(f"model must be a name or a folder. Got {excerpt(model)}.")
    is_int = isinstance(max_length, Integral) and not isinstance(max_length, bool)
    if max_length is not None and not (is_int and max_length >= 3):
        raise ValueError(
            f"max_length must be None or an int of at least 3. Got {excerpt(max_length)}."
        )
    if not isinstance(trust_remote_code, bool):
        raise ValueError(f"trust_remote_code must be a bool. Got {excerpt(trust_remote_code)}.")


@contextlib.contextmanager
def _bar(total: int) -> Iterator[Callable[[int], object]]:
    """Yield what moves a progress bar of embedded documents, if standard error is a terminal."""
    with tqdm(total=total, unit=" documents", leave=False, disable=None) as bar:
        yield bar.update


class Audit(Page):
    """What is known of labelled documents before any training, as tables and on one HTML page.

    Made by :func:`audit`. ``print`` shows a summary, a notebook shows the page, and :meth:`save`
    writes it into one file that needs no network and no script. Tables are dicts of columns, which
    ``pandas.DataFrame`` accepts. Rows are counted from 0, those of the test documents apart. Two
    documents are exact duplicates if they differ in nothing but case, blanks and compatible forms
    of characters (Unicode NFKC), and near duplicates if they share most pairs of neighbouring words
    (a Jaccard index of at least 0.6).

    Parameters
    ----------
    data : Data
        Documents and labels.
    lengths : Lengths
        Their tokens.
    likeness : Likeness
        Their duplicates and neighbours.
    model_name : str
        Name of the encoder.

    Attributes
    ----------
    overall : dict of str -> float
        Numbers of documents, classes, empty texts and duplicates; the imbalance ratio, which is the
        size of the most frequent class over that of the rarest; shares of documents that are cut
        and of unknown tokens. Of the training documents, unless the name says otherwise.
    findings : list of str
        What to look at, the most serious first.
    labels : ndarray of shape (n_classes,)
        Labels, the most frequent in training first.
    per_class : dict of str -> ndarray of shape (n_classes,)
        "label", "documents", "share"; with test labels "test_documents", "test_share"; the median
        and the 95th percentile of tokens, special tokens included, "median_tokens" and
        "long_tokens"; "cut_share" of documents longer than `max_length`; "unknown_share" of tokens;
        "short", the number of documents of at most three tokens; "duplicated", the number of
        documents with a duplicate; among the five nearest neighbours of the documents,
        "own_neighbours", the share of the class itself, of as many as it has other documents;
        "nearest_class", the most frequent other class, and "nearest_share". Shares of nothing are
        NaN.
    duplicates : dict of str -> list
        Pairs of duplicates: those of different labels first, then those across training and test.
        "set" ("training" or "test"), "row", "label" and "document" of one, "other_set",
        "other_row", "other_label" and "other_document" of the other; "exact"; "overlap", the
        Jaccard index; "same_label", None if a label is not known. A text with several copies is in
        one pair with each of them.
    doubtful_labels : dict of str -> list
        Training documents that a classifier which has not seen them decides otherwise, those first
        whose label it finds least probable: "row", "label", "suggested", "probability" of the
        label, "document". With several labels, the worst one decides, and "suggested" are the
        labels with that one changed. The classifier is a balanced logistic regression on the
        embeddings, in five folds, fitted to some documents of the frequent classes if there are
        very many.
    n_judged : int
        Number of documents whose labels were judged. The only document of its class cannot be.
    doubts_left_out : str
        Why no label was judged; empty if some were.
    hidden_classes : dict of str -> list
        Classes of at least two documents, all of whose nearest neighbours belong to one larger
        class: "label",
        "documents", "other", "other_documents".
    label_variants : dict of str -> list
        Groups of labels that differ only in case or blanks: "labels", "documents",
        "test_documents".
    short_documents : dict of str -> list
        Documents of at most three tokens of text: "set", "row", "label", "tokens", "document".
    groups : ndarray of shape (n,)
        The group of each training document: duplicates are in the same one. For the `groups` of
        scikit-learn's splitters.
    splits : list of (ndarray, ndarray)
        The suggested split, rows to train on and to test on, for the `cv` of scikit-learn. Empty if
        no class can be split.
    splitter : str
        The code of the splitter that made them.
    grid : dict of str -> list
        The suggested first grid, for GridSearchCV with a :class:`BertFocalClassifier`.
    reasons : dict of str -> str
        Why: of the split under "split", of each parameter of the grid under its name.
    max_length : int
        Number of tokens of a document that are read.
    multilabel : bool
        Whether a document may have several labels.
    """

    def __init__(self, data: Data, lengths: Lengths, likeness: Likeness, model_name: str) -> None:
        self.created, self.version = datetime.now(UTC), __version__
        self.model_name, self.max_length = model_name, lengths.max_length
        self.multilabel = data.multilabel
        train, test = _tables.counts_of(data)
        order = np.lexsort((-test, -train))
        self.labels: NDArray[Any] = data.classes[order]
        self.per_class = _tables.per_class(data, lengths, likeness, order)
        self.overall = _tables.overall(data, lengths, likeness, self.per_class)
        self.duplicates = _tables.duplicates(data, likeness.pairs)
        self.doubtful_labels = _tables.doubtful_labels(data, likeness.doubts)
        self.n_judged = len(likeness.doubts.rows)
        self.doubts_left_out = likeness.doubts.left_out
        self.hidden_classes = _tables.hidden_classes(self.per_class)
        self.label_variants = _tables.label_variants(data)
        self.short_documents = _tables.short_documents(data, lengths)
        self._lengths = lengths.whole[: data.n]
        n_differ = int(self.overall["with a duplicate of another label"])
        advice: Advice = advise(data, lengths, likeness, self.per_class, n_differ)
        self.groups, self.splits, self.splitter = advice.groups, advice.splits, advice.splitter
        self.grid, self.reasons = advice.grid, advice.reasons
        self.findings = sentences(self)

    def _title(self) -> str:
        return "Audit of labelled text"

    def _content(self) -> str:
        import_optional("matplotlib", "The page of an audit", "examples")
        from skfocal.data_audit._page import content

        return content(self)

    def __str__(self) -> str:
        return summary(self)

    def __repr__(self) -> str:
        kind = "labels" if self.multilabel else "classes"
        n = int(self.overall["documents"])
        n_classes = int(self.overall[kind])
        return f"<Audit: {n} documents, {n_classes} {kind}, {len(self.findings)} findings>"
