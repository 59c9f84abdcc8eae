"""The documents and words of confused pairs of classes, in HTML."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from skfocal._pages import elements

if TYPE_CHECKING:
    from skfocal.displays._pairs import ConfusedPairsDisplay


def content(display: ConfusedPairsDisplay) -> str:
    """Return the pairs one below the other, with both classes side by side."""
    if not display.pairs["first"]:
        return "<p>No class is confused with another.</p>"
    pairs = _rows(display.pairs)
    documents = _rows(display.documents)
    about = (
        "A document is typical of its class if it is near to the mean of those documents of the "
        f"class that are predicted right, by the cosine of {elements.text(display.space)}. The "
        "words of a class are those whose mean TF-IDF exceeds that in the other class the most. "
        "Rows are counted from 0."
    )
    shown = (
        _pair(pair, [row for row in documents if row["pair"] == number])
        for number, pair in enumerate(pairs)
    )
    return f"<p>{about}</p>{''.join(shown)}"


def alt(display: ConfusedPairsDisplay) -> str:
    """Return what the figure shows, with its numbers."""
    pairs = [
        f"{_short(pair['first'])} taken for {_short(pair['second'])} {pair['first_as_second']}, "
        f"the reverse {pair['second_as_first']}"
        for pair in _rows(display.pairs)
    ]
    return f"Documents of classes that are taken for each other: {'; '.join(pairs) or 'none'}."


def _pair(pair: Mapping[str, Any], documents: Sequence[Mapping[str, Any]]) -> str:
    labels = {side: elements.label(pair[side]) for side in ("first", "second")}
    one, other = pair["first_as_second"], pair["second_as_first"]
    sides = [_side(pair[side], pair[f"{side}_words"], documents) for side in ("first", "second")]
    return (
        f"<h3>{labels['first']} and {labels['second']}</h3>"
        f"<p>{labels['first']} taken for {labels['second']}: {one}. "
        f"{labels['second']} taken for {labels['first']}: {other}.</p>{elements.grid(*sides)}"
    )


def _side(label: Any, words: Sequence[str], documents: Sequence[Mapping[str, Any]]) -> str:
    items = []
    for row in documents:
        if row["label"] != label:
            continue
        facts = {"row": str(row["row"]), "similarity": elements.number(row["similarity"])}
        right = row["predicted"] == label
        if not right:
            facts["predicted"] = elements.label(row["predicted"])
        items.append(elements.document(facts, elements.excerpt_of(row["document"]), right=right))
    listed = f"<ol>{''.join(items)}</ol>" if items else "<p>It has no document.</p>"
    found = (
        ", ".join(
            f"<b>{elements.text(elements.cut(word, elements.LONGEST_NAME))}</b>" for word in words
        )
        or "none"
    )
    return f"<div><p>Words of {elements.label(label)}: {found}</p>{listed}</div>"


def _rows(columns: Mapping[str, Sequence[Any]]) -> list[dict[str, Any]]:
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def _short(label: Any) -> str:
    return elements.cut(label, elements.LONGEST_NAME) or "(empty)"
