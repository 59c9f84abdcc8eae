"""The HTML page of an audit: escaped text, inline figures, no script and nothing from outside."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import numpy as np

from skfocal._pages import elements, figures
from skfocal.data_audit._findings import many, share, times

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from skfocal.data_audit._audit import Audit

_FEW_NAMES, _MOST_NAMES = 12, 60  # classes up to which a figure is small; up to which it has names
_SHOWN = 20  # pairs and documents of each kind
_EXCERPT = 300  # characters of each document of a pair


def content(audit: Audit) -> str:
    """Return the audit as one element, with its own styles."""
    return elements.fragment(
        _head(audit),
        elements.part("What to look at", _findings(audit)),
        elements.part("Classes", _classes(audit)),
        elements.part("Lengths", _lengths(audit)),
        elements.part("Duplicates with different labels", _differing(audit)),
        elements.part("Doubtful labels", _doubtful(audit)),
        elements.part("Test documents that are in training", _leaks(audit)),
        elements.part("Other duplicates", _repeated(audit)),
        elements.part("Classes that hide in others", _hidden(audit)),
        elements.part("Labels that differ only in case or blanks", _variants(audit)),
        elements.part("Empty and nearly empty documents", _short(audit)),
        elements.part("What to try first", _advice(audit)),
    )


# -- parts -----------------------------------------------------------------------------------


def _head(audit: Audit) -> str:
    numbers = audit.overall
    n, test = int(numbers["documents"]), int(numbers.get("test documents", 0))
    facts = f"{many(n, 'document')}" + f", {many(test, 'test document')}" * bool(test)
    facts += f"; {audit.created.strftime('%Y-%m-%d %H:%M UTC')}; skfocal {audit.version}; "
    facts += f"tokens of {audit.model_name}"
    kind = "labels" if audit.multilabel else "classes"
    cards = {
        "documents": f"{n:,}",
        kind: f"{int(numbers[kind]):,}",
        "most frequent to rarest": f"{times(numbers['imbalance ratio'])} : 1",
        f"cut at {audit.max_length} tokens": share(numbers["cut share"]),
        "unknown tokens": share(numbers["unknown token share"]),
        "with a duplicate": f"{int(numbers['with a duplicate']):,}",
        "duplicates of another label": f"{int(numbers['with a duplicate of another label']):,}",
    }
    if test:
        leaked = int(numbers["test documents with a duplicate in training"])
        cards["of the test in training"] = f"{leaked:,}"
    return elements.header(audit._title(), facts, cards)


def _findings(audit: Audit) -> str:
    if not audit.findings:
        return "<p>Nothing to mend was found.</p>"
    items = "".join(f"<li>{elements.text(line)}</li>" for line in audit.findings)
    return f"<ol>{items}</ol>"


_CLASS_HEADS = {
    "label": "class",
    "documents": "documents",
    "share": "share",
    "test_documents": "in test",
    "test_share": "share of test",
    "short": "nearly empty",
    "duplicated": "duplicates",
    "own_neighbours": "neighbours of the class",
    "nearest_class": "nearest other",
    "nearest_share": "its neighbours",
}
_LENGTH_HEADS = {
    "label": "class",
    "median_tokens": "tokens, median",
    "long_tokens": "95 % have at most",
    "cut_share": "cut",
    "unknown_share": "unknown tokens",
}
_CLASS_KINDS: dict[str, elements.Kind] = {
    "label": "words",
    "own_neighbours": "bar",
    "nearest_class": "words",
    **dict.fromkeys(
        ("share", "test_share", "cut_share", "unknown_share", "nearest_share"), "share"
    ),
}


def _classes(audit: Audit) -> str:
    about = (
        "Sorted by frequency. Of the five nearest neighbours of each document, by the pretrained "
        "encoder, the table has the share that belongs to the same class (of as many as it has) "
        "and the other class that is found most often: a class without neighbours of its own "
        "will be hard to find."
    )
    caption = "Number of documents of each class, on a logarithmic scale."
    wide = len(audit.labels) > _FEW_NAMES
    shown = elements.figure("Class balance", caption, _balance(audit), wide=wide)
    rows = _rows_of_classes(audit, _CLASS_HEADS, "Documents of each class")
    return f"<p>{about}</p>{rows}{elements.grid(shown)}"


def _rows_of_classes(audit: Audit, heads: dict[str, str], title: str) -> str:
    table: dict[str, Any] = dict(audit.per_class)
    for name in ("median_tokens", "long_tokens"):
        table[name] = [None if value != value else int(value) for value in table[name].tolist()]
    table["nearest_class"] = ["–" if name is None else name for name in table["nearest_class"]]
    heads = {name: head for name, head in heads.items() if name in table}
    return elements.folded(elements.table(table, heads, _CLASS_KINDS), len(audit.labels), title)


def _lengths(audit: Audit) -> str:
    caption = (
        f"Number of documents by their tokens, special tokens included. The line is max_length, "
        f"{audit.max_length} tokens: what is beyond it is not read."
    )
    cut = audit.overall["cut share"]
    about = (
        f"{share(cut)} of the documents are longer than {audit.max_length} tokens and lose their "
        "end."
        if cut
        else f"All documents fit into {audit.max_length} tokens."
    )
    shown = elements.figure("Length of the documents", caption, _histogram(audit))
    rows = _rows_of_classes(audit, _LENGTH_HEADS, "Tokens of each class")
    if len(audit.labels) <= _FEW_NAMES:  # there is room for it beside the figure
        return f"<p>{about}</p>{elements.grid(shown, f'<div>{rows}</div>')}"
    return f"<p>{about}</p>{elements.grid(shown)}{rows}"


def _differing(audit: Audit) -> str:
    return _pairs(
        audit,
        [same is False for same in audit.duplicates["same_label"]],
        "The same text, or nearly, with two labels. At least one label is wrong, or the classes "
        "cannot be told apart by the text.",
    )


def _doubtful(audit: Audit) -> str:
    table, n = audit.doubtful_labels, int(audit.overall["documents"])
    if audit.doubts_left_out:
        return f"<p>Labels were not judged: {audit.doubts_left_out}.</p>"
    about = (
        "A balanced logistic regression on the embeddings, which has not seen these documents, "
        "decides for another label. The first in the list are most often wrong; further down, "
        "rare and mixed documents become more frequent. p is the probability of the label."
    )
    if audit.n_judged < n:
        about += (
            f" {many(n - audit.n_judged, 'document')} could not be judged: empty, or alone in "
            "their class."
        )
    rows = len(table["row"])
    if rows > _SHOWN:
        about += f" {_SHOWN} of {rows:,} are shown; all are in <code>audit.doubtful_labels</code>."
    items = [
        _doubt({name: column[i] for name, column in table.items()})
        for i in range(min(rows, _SHOWN))
    ]
    return (
        f"<p>{about}</p><ol>{''.join(items)}</ol>" if items else f"<p>{about} There are none.</p>"
    )


def _doubt(row: dict[str, Any]) -> str:
    facts = {"row": f"training {row['row']}"}
    facts |= {name: elements.label(_label(row[name])) for name in ("label", "suggested")}
    facts["p"] = elements.small(row["probability"])
    return elements.document(facts, elements.excerpt_of(row["document"], _EXCERPT))


def _leaks(audit: Audit) -> str:
    table = audit.duplicates
    across = [a != b for a, b in zip(table["set"], table["other_set"], strict=True)]
    known = [
        is_across and same is not False
        for is_across, same in zip(across, table["same_label"], strict=True)
    ]
    about = (
        "A classifier can learn these by heart, so scores on them say nothing about new documents. "
        "Leave them out of the test, or out of the training."
    )
    if any(across) and sum(across) > sum(known):
        others = sum(across) - sum(known)
        about += f" {many(others, 'further pair')}, of different labels, can be found above."
    return _pairs(audit, known, about) or (f"<p>{about}</p>" if any(across) else "")


def _repeated(audit: Audit) -> str:
    table = audit.duplicates
    inside = [
        a == b and same is not False
        for a, b, same in zip(table["set"], table["other_set"], table["same_label"], strict=True)
    ]
    about = (
        "Of the same label, within the training or within the test. They count more than once; a "
        "split must keep them on one side. Forms that differ in a few words, such as dates and "
        "amounts, are among them."
    )
    return _pairs(audit, inside, about)


def _pairs(audit: Audit, chosen: list[bool], about: str) -> str:
    """Return some of the duplicates as a list, exact and most alike first."""
    table, rows = audit.duplicates, [i for i, is_chosen in enumerate(chosen) if is_chosen]
    if not rows:
        return ""
    items = [_pair({name: column[i] for name, column in table.items()}) for i in rows[:_SHOWN]]
    n_exact = sum(table["exact"][i] for i in rows)
    count = f"{many(len(rows), 'pair')}, {n_exact:,} word for word."
    if len(rows) > _SHOWN:
        count += f" The {_SHOWN} most alike are shown; all are in <code>audit.duplicates</code>."
    return f"<p>{about} {count}</p><ol>{''.join(items)}</ol>"


def _pair(row: dict[str, Any]) -> str:
    differ = row["same_label"] is False
    places = [f"{row['set']} {row['row']}", f"{row['other_set']} {row['other_row']}"]
    labels = [elements.label(_label(row[name])) for name in ("label", "other_label")]
    facts = {"rows": " and ".join(places)}
    facts["labels" if differ else "label"] = " and ".join(labels) if differ else labels[0]
    facts["words in common"] = "all" if row["exact"] else share(row["overlap"])
    one, other = str(row["document"]), str(row["other_document"])
    text = elements.excerpt_of(one, _EXCERPT)
    if not row["exact"]:
        one, other = _from_difference(one, other)
        text = f"{elements.excerpt_of(one, _EXCERPT)}<br><br>{elements.excerpt_of(other, _EXCERPT)}"
    is_harmless = not differ and row["set"] == row["other_set"]
    return elements.document(facts, text, right=is_harmless)


def _label(label: Any) -> str:
    if label is None:
        return "not given"
    return (", ".join(map(str, label)) or "none") if isinstance(label, list) else str(label)


def _from_difference(one: str, other: str, before: int = 60) -> tuple[str, str]:
    """Return two texts from shortly before their first difference on, if that comes late."""
    one, other = " ".join(one.split()), " ".join(other.split())
    same = next(
        (i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b),
        min(len(one), len(other)),
    )
    if same < _EXCERPT - before:
        return one, other
    start = same - before
    return f"… {_whole_words(one[start:])}", f"… {_whole_words(other[start:])}"


def _whole_words(text: str) -> str:
    return re.sub(r"^\S{1,30}\s", "", text)


def _hidden(audit: Audit) -> str:
    table = audit.hidden_classes
    if not table["label"]:
        return ""
    heads = {
        "label": "class",
        "documents": "documents",
        "other": "all neighbours belong to",
        "other_documents": "documents",
    }
    about = (
        "All nearest neighbours of their documents belong to one larger class. Without training, "
        "nothing tells them apart: look whether the labels mean different things, and whether the "
        "text shows it."
    )
    rows = elements.table(table, heads, {"label": "words", "other": "words"})
    return f"<p>{about}</p>{elements.folded(rows, len(table['label']), 'Classes')}"


def _variants(audit: Audit) -> str:
    table = audit.label_variants
    if not table["labels"]:
        return ""
    rows: dict[str, list[Any]] = {"group": [], "label": [], "documents": [], "test": []}
    for i, labels in enumerate(table["labels"]):
        rows["group"] += [i + 1] * len(labels)
        rows["label"] += [repr(label) for label in labels]  # blanks are seen between quotes
        rows["documents"] += table["documents"][i]
        rows["test"] += table["test_documents"][i]
    heads = {"label": "label", "group": "group", "documents": "documents"}
    if "test_documents" in audit.per_class:
        heads["test"] = "in test"
    about = "A classifier would learn them as different classes. If they are one, write them alike."
    shown = elements.table(rows, heads, {"label": "words"})
    return f"<p>{about}</p>{elements.folded(shown, len(rows['label']), 'Labels')}"


def _short(audit: Audit) -> str:
    table = audit.short_documents
    n = len(table["row"])
    if not n:
        return ""
    empty = sum(count == 0 for count in table["tokens"])
    about = f"{many(n, 'document')} of at most three tokens, {empty:,} of them empty."
    if n > _SHOWN:
        about += f" The {_SHOWN} emptiest are shown; all are in <code>audit.short_documents</code>."
    some = {name: column[:_SHOWN] for name, column in table.items()}
    some["label"] = [_label(label) for label in some["label"]]
    some["document"] = [elements.cut(text, 80) or "(empty)" for text in some["document"]]
    heads = {
        "document": "text",
        "set": "set",
        "row": "row",
        "label": "label",
        "tokens": "tokens",
    }
    kinds: dict[str, elements.Kind] = dict.fromkeys(("document", "set", "label"), "words")
    return f"<p>{about}</p>{elements.table(some, heads, kinds)}"


def _advice(audit: Audit) -> str:
    reasons = audit.reasons
    parts = ["<h3>Split</h3>"]
    if audit.splitter:
        parts.append(f"<p><code>{elements.text(audit.splitter)}</code></p>")
    parts.append(f"<p>{elements.text(reasons['split'])}</p>")
    n = int(np.prod([len(values) for values in audit.grid.values()]))
    parts.append(f"<h3>First grid</h3><p>{many(n, 'candidate')} for GridSearchCV:</p>")
    items = [
        elements.document(
            {elements.text(name): elements.text(", ".join(map(repr, values)))},
            elements.text(reasons[name]),
            right=True,
        )
        for name, values in audit.grid.items()
    ]
    parts.append(f"<ol>{''.join(items)}</ol>")
    if "long documents" in reasons:
        parts.append(f"<p>{elements.text(reasons['long documents'])}</p>")
    return "".join(parts)


# -- figures ---------------------------------------------------------------------------------


def _balance(audit: Audit) -> str:
    table = audit.per_class
    x, many_names = np.arange(len(audit.labels)), len(audit.labels) > _FEW_NAMES
    known, tested = table["documents"], table.get("test_documents")

    def plot(ax: Axes) -> None:
        from matplotlib.ticker import NullLocator

        ax.bar(x, known, color=figures.BLUE, width=0.8, label="training")
        if tested is not None:
            shown = np.where(tested > 0, tested, np.nan)
            size = 3 if many_names else 6
            ax.plot(x, shown, "D", color=figures.ORANGE, label="test", markersize=size)
            ax.legend(loc="upper right")
        ax.set(yscale="log", ylabel="documents", xlabel="class, most frequent first")
        ax.set_ylim(0.7, None)
        ax.set_xlim(-0.6, len(x) - 0.4)
        ax.yaxis.set_minor_locator(NullLocator())
        ax.yaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
        style = (
            {"rotation": 90, "fontsize": 7.5, "va": "center"} if many_names else {"rotation": 25}
        )
        if len(x) <= _MOST_NAMES:
            names = figures.names(audit.labels)
            ax.set_xticks(x, names, rotation_mode="anchor", ha="right", **style)
            ax.tick_params(axis="x", length=0)
        else:
            ax.set_xticks([])

    return figures.draw(plot, _alt_of_balance(audit), figures.WIDE if many_names else figures.SIDE)


def _alt_of_balance(audit: Audit) -> str:
    table = audit.per_class
    used = np.flatnonzero(table["documents"])
    first, last = used[0], used[-1]
    names = [elements.cut(audit.labels[i], 40) for i in (first, last)]
    alt = (
        f"Bars: documents of each of {len(audit.labels)} classes, from "
        f"{table['documents'][first]:,} of {names[0]} down to {table['documents'][last]:,} of "
        f"{names[1]}; the median is {np.median(table['documents'][used]):,.0f}"
    )
    if "test_documents" in table:
        alt += f". Marks: test documents, {int(table['test_documents'].max()):,} at most"
    return alt + "."


def _histogram(audit: Audit) -> str:
    lengths = audit._lengths
    top = max(int(lengths.max()), audit.max_length) + 1
    bottom = max(int(lengths.min()), 1)
    edges = np.unique(np.geomspace(bottom, top, 41).round()).astype(int)

    def plot(ax: Axes) -> None:
        from matplotlib.ticker import MaxNLocator

        ax.hist(lengths, bins=edges.tolist(), color=figures.BLUE)
        ax.axvline(audit.max_length, color=figures.ORANGE, linewidth=2.5)
        ax.set(xscale="log", xlabel="tokens", ylabel="documents")
        ax.yaxis.set_major_locator(MaxNLocator(integer=True))
        ax.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
        ax.xaxis.set_minor_formatter(lambda value, _: "")

    middle, long = np.quantile(lengths, [0.5, 0.95], method="higher")
    alt = (
        f"Histogram of tokens per document: the median is {middle:,}, 95 % have at most {long:,}, "
        f"the longest has {int(lengths.max()):,}; {share(audit.overall['cut share'])} are longer "
        f"than {audit.max_length}."
    )
    return figures.draw(plot, alt, figures.SIDE)
