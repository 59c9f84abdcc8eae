"""Explain the decisions of a fitted classifier: from texts to attributions of words."""

import contextlib
import functools
from collections.abc import Iterator, Mapping, Sequence, Set
from numbers import Integral
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from skfocal._data.labels import encode_known
from skfocal._data.texts import Documents
from skfocal._data.tokenization import encode_with_places
from skfocal._data.tokens import ENCODING, tokenize
from skfocal._data.words import words_of_tokens
from skfocal._estimator import build
from skfocal._estimator.fitted_model import FittedModel, predicting
from skfocal._runtime.warnings import warn
from skfocal._utils.messages import excerpt, excerpts
from skfocal._utils.optional import import_optional
from skfocal.explanation._explanation import DocumentExplanation, Explanation
from skfocal.explanation._gradients import (
    Document,
    Embeddings,
    differentiable,
    integrated_gradients,
)
from skfocal.losses._margin import target_margin

# Of the sum of absolute attributions. A larger error could change the order of the weaker words.
_LARGE_ERROR = 0.05
_Text = str | tuple[str, str]


def explain(estimator: Any, X: Documents, target: Any, n_steps: int) -> Explanation:
    """Return the attributions of words; see :meth:`BertFocalClassifier.explain`."""
    if not isinstance(n_steps, Integral) or isinstance(n_steps, bool) or n_steps < 1:
        raise ValueError(f"n_steps must be an int of at least 1. Got {excerpt(n_steps)}.")
    with predicting(estimator) as model:
        texts = model.read(X)[:]
        wanted = None if target is None else _wanted(model, target, len(texts))
        import_optional("captum.attr", "explain", "explain")
        with _explaining(model) as embeddings:
            tokens = tokenize(model.tokenizer, texts, model.truncation)
            build.check_ids(embeddings.module, tokens, texts)
            embeddings.check(_document(model, embeddings, tokens[0]))
        wanted = _decided(model, texts) if wanted is None else wanted
        with _explaining(model) as embeddings:
            explained = [
                _explained(model, embeddings, row, texts[row], code, int(n_steps))
                for row, codes in enumerate(wanted)
                for code in codes
            ]
    _warn_of_errors(explained, n_steps)
    baseline = model.tokenizer.convert_ids_to_tokens(_baseline_id(model.tokenizer))
    return Explanation(explained, n_steps=int(n_steps), baseline=baseline)


@contextlib.contextmanager
def _explaining(model: FittedModel) -> Iterator[Embeddings]:
    """Yield the embeddings of a model whose logits can be differentiated."""
    with model.net.module_at_rest() as module:
        embeddings = Embeddings(module)
        with differentiable(module), embeddings.replaced():
            yield embeddings


def _baseline_id(tokenizer: Any) -> int:
    """Return the token that stands for a missing word.

    The mask token does as well (docs/benchmarks/explain.md), but not every tokenizer has one.
    """
    return int(tokenizer.pad_token_id)


# -- what is explained -----------------------------------------------------------------------


def _decided(model: FittedModel, texts: Sequence[_Text]) -> list[list[int]]:
    """Return the codes of what is decided for each document.

    With several labels and none decided for a document, the one that comes closest.
    """
    codes: list[list[int]] = []
    for _, answers in model.each_answer(texts):
        closest = answers.decision_scores.argmax(1)
        if model.calibration.multilabel:
            rows = [np.flatnonzero(row).tolist() for row in answers.predict()]
            codes += [row or [int(c)] for row, c in zip(rows, closest, strict=True)]
        else:
            codes += [[int(c)] for c in closest]
    return codes


def _wanted(model: FittedModel, target: Any, n: int) -> list[list[int]]:
    """Return the codes of the labels that a user asks for, of each document."""
    labels = model.calibration.classes.tolist()
    several = model.calibration.multilabel
    codes = {label: code for code, label in enumerate(labels)}
    if isinstance(target, Mapping | Set):
        raise ValueError(
            "target must be None, one label, or a sequence with an entry for each document. "
            f"Got {type(target).__name__}."
        )
    if isinstance(target, str | bytes) or not hasattr(target, "__len__") or _ndim(target) == 0:
        rows = [target.item() if hasattr(target, "item") else target] * n
    elif several and _ndim(target) == 2:
        return _from_indicator(target, model, n)
    else:  # arrays and Series have the first, Arrow the second
        as_list = getattr(target, "tolist", getattr(target, "to_pylist", None))
        rows = list(target) if as_list is None else as_list()
    if len(rows) != n:
        raise ValueError(
            f"target must be None, one label, or one {'or more ' * several}per document, "
            f"{n} in all. Got {len(rows)}."
        )
    found = []
    for i, row in enumerate(rows):
        wanted = row if several and isinstance(row, list | tuple | set | frozenset) else [row]
        try:
            found.append([codes[label] for label in wanted])
        except (KeyError, TypeError):  # TypeError: what cannot be a label
            raise ValueError(
                f"target must have only labels of the fit, {excerpts(labels)}. "
                f"Got {excerpt(row)} for row {i}."
            ) from None
    return found


def _ndim(values: Any) -> int:
    return len(getattr(values, "shape", (0,)))


def _from_indicator(target: Any, model: FittedModel, n: int) -> list[list[int]]:
    """Return the codes of an indicator, whose columns may have names."""
    classes = model.calibration.classes
    try:
        _, codes = encode_known(target, [""] * n, classes, True)
    except (TypeError, ValueError) as error:
        columns = getattr(target, "columns", None)
        found = f"the shape {target.shape}" if columns is None else excerpts([*columns])
        raise ValueError(
            "target with several columns must be an indicator of 0 and 1, with a row per document "
            f"and a column for each label, {excerpts(classes.tolist())}. Got {found}."
        ) from error
    return [np.flatnonzero(row).tolist() for row in codes]


def _score(logits: Tensor, *, code: int, multilabel: bool) -> Tensor:
    """Return the log-odds of a class, or of a label, of shape (n,)."""
    if multilabel:
        return logits[:, code]
    codes = torch.full((len(logits),), code, device=logits.device)
    return -target_margin(logits, codes)


# -- one document ----------------------------------------------------------------------------


def _document(model: FittedModel, embeddings: Embeddings, ids: NDArray[np.int32]) -> Document:
    return Document(embeddings, ids, model.truncation.max_length, model.net.pooling)


def _explained(
    model: FittedModel, embeddings: Embeddings, row: int, text: _Text, code: int, n_steps: int
) -> DocumentExplanation:
    with ENCODING:  # threads share the tokenizer
        ids, rows, places = encode_with_places(
            model.tokenizer.backend_tokenizer, text, model.truncation
        )
    calibration = model.calibration
    score = functools.partial(_score, code=code, multilabel=calibration.multilabel)
    texts, spans, word_of = _words(text, places)
    is_word = word_of[rows] >= 0  # not so special tokens, and those of a blank text
    by_token, log_odds, baseline = integrated_gradients(
        _document(model, embeddings, ids), is_word, _baseline_id(model.tokenizer), score, n_steps
    )
    words = word_of[rows[is_word]]
    is_read = np.zeros(len(spans), bool)
    is_read[words] = True
    sums = np.bincount(words, by_token[is_word], minlength=len(spans)).astype(np.float64)
    parts = (text,) if isinstance(text, str) else text
    texts, spans = texts[is_read], spans[is_read]
    return DocumentExplanation(
        row=row,
        text=text,
        target=calibration.classes.tolist()[code],
        words=[parts[i][start:stop] for i, (start, stop) in zip(texts, spans, strict=True)],
        spans=spans,
        texts=texts,
        attributions=sums[is_read],
        log_odds=log_odds,
        baseline_log_odds=baseline,
        n_unread=int((~is_read).sum()),
    )


def _words(
    text: _Text, places: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Return the texts and spans of all words, and the word of each token or -1."""
    word_of = np.full(len(places), -1)
    texts: list[int] = []
    spans = [np.zeros((0, 2), np.int64)]
    for i, part in enumerate((text,) if isinstance(text, str) else text):
        own = places[:, 0] == i
        found, words = words_of_tokens(part, places[own, 1], places[own, 2])
        word_of[own] = np.where(words < 0, -1, words + len(texts))
        texts += [i] * len(found)
        spans.append(found)
    return np.array(texts, np.int64), np.concatenate(spans), word_of


def _warn_of_errors(explained: list[DocumentExplanation], n_steps: int) -> None:
    shares = [abs(document.completeness_error) / _size(document) for document in explained]
    n_large = sum(share > _LARGE_ERROR for share in shares)
    if n_large:
        warn(
            f"n_steps={n_steps} is too few for {n_large} of {len(shares)} explanations: what their "
            f"attributions add up to misses the change of the log-odds by up to {max(shares):.0%} "
            "of what words add for and against the class. Raise n_steps."
        )


def _size(document: DocumentExplanation) -> float:
    """Return what an error is compared with: the sum of absolute attributions, or the change."""
    change = abs(document.log_odds - document.baseline_log_odds)
    return max(float(np.abs(document.attributions).sum()), change, 1e-2)
