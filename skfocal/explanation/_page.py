"""Documents as HTML, with marks on words: solid and blue for a class, dashed and orange against."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from skfocal._pages import elements

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from skfocal.explanation._explanation import DocumentExplanation, Explanation

_MOST_DOCUMENTS = 100
_MOST_CHARACTERS = 3000  # of a text
_MOST_UNREAD = 60  # characters of a passage that is not read
_LEVELS = np.array([0.1, 0.35, 0.7])  # of the strongest word's attribution
_LISTED = 8  # words below a document


def content(explanation: Explanation) -> str:
    """Return the page as one element, with its own styles."""
    documents = explanation.documents[:_MOST_DOCUMENTS]
    worst = max((abs(document.completeness_error) for document in documents), default=0.0)
    scores = {
        "documents": str(len({document.row for document in explanation.documents})),
        "steps": str(explanation.n_steps),
        "largest completeness error": elements.number(worst),
    }
    about = (
        f"Integrated gradients of the token embeddings, from {explanation.baseline} in place of "
        "each word. Attributions are added to the log-odds of the class."
    )
    items = "".join(_item(document) for document in documents)
    more = len(explanation) - len(documents)
    return elements.fragment(
        elements.header(explanation._title(), about, scores),
        legend(),
        f"<ol>{items}</ol>",
        f"<p>and {more} more</p>" if more else "",
    )


def _item(document: DocumentExplanation) -> str:
    facts = {
        "row": str(document.row),
        "class": elements.label(document.target),
        "log-odds": _signed(document.log_odds),
        "without its words": _signed(document.baseline_log_odds),
        "completeness error": _signed(document.completeness_error, 3),
    }
    return elements.document(facts, marked(document), right=None)


def legend(what: str = "the class") -> str:
    """Return a line that says what the marks mean; `what` they speak for is HTML."""
    return (
        f'<p class="legend"><mark class="for3">Solid and blue</mark> words speak for {what}, '
        '<mark class="against3">dashed and orange</mark> ones against it. The thicker the line, '
        "the more they add, compared with the strongest word of the document: from "
        + ", ".join(
            f'<mark class="for{level}">{share:.0%}</mark>' for level, share in enumerate(_LEVELS, 1)
        )
        + ' of it. <span class="unread">Grey italics</span> are not read.</p>'
    )


def marked(document: DocumentExplanation, most: int = _MOST_CHARACTERS) -> str:
    """Return the text of a document with its words marked, and a list of the strongest.

    Parameters
    ----------
    document : DocumentExplanation
    most : int
        Number of characters of each text that are shown.
    """
    parts = (document.text,) if isinstance(document.text, str) else document.text
    largest = float(np.abs(document.attributions).max(initial=0.0))
    texts = []
    for i, part in enumerate(parts):
        own = document.texts == i
        shares = document.attributions[own] / (largest or 1.0)
        shown = _text(part, document.spans[own], document.attributions[own], shares, most)
        texts.append(shown or "(empty)")
    if len(texts) > 1:
        texts = [f'<div class="part" dir="auto">{shown}</div>' for shown in texts]
    return "".join(texts) + _strongest(document)


def _text(
    text: str,
    spans: NDArray[np.int64],
    values: NDArray[np.float64],
    shares: NDArray[np.float64],
    most: int,
) -> str:
    pieces, end, shown = [], 0, 0
    levels = np.searchsorted(_LEVELS, np.abs(shares) + 1e-12, side="right")
    for (start, stop), value, level in zip(
        spans.tolist(), values.tolist(), levels.tolist(), strict=True
    ):
        pieces.append(_unread(text[end:start]))
        word = elements.text(text[start:stop])
        kind = f"for{level}" if value > 0 else f"against{level}"
        pieces.append(
            f'<mark class="{kind}" title="{_signed(value, 3)}">{word}</mark>' if level else word
        )
        shown += stop - end
        end = stop
        if shown > most:
            return "".join(pieces) + " …"
    return "".join(pieces) + _unread(text[end:])


def _unread(passage: str) -> str:
    """Return what stands between words that are read: blanks, or words that are not."""
    if not passage.strip():
        return elements.text(passage)
    if len(passage) > _MOST_UNREAD:
        half = _MOST_UNREAD // 2
        passage = f"{passage[:half]} … {passage[-half:]}"
    return f'<span class="unread">{elements.text(passage)}</span>'


def _strongest(document: DocumentExplanation) -> str:
    words = [
        f"<span><bdi>{elements.text(elements.cut(word, 40))}</bdi> <b>{_signed(value)}</b></span>"
        for word, value in document.strongest(_LISTED).items()
    ]
    if not words:
        return ""
    n = document.n_unread
    more = f"<span>{n} word{'s' * (n != 1)} not read</span>" if n else ""
    return f'<div class="facts strongest" dir="ltr">{"".join(words)}{more}</div>'


def _signed(value: float, digits: int = 2) -> str:
    """Return a number with a typographic sign."""
    return f"{value:+.{digits}f}".replace("-", "−")
