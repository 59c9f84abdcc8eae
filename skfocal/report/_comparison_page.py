"""The HTML page of a comparison of two classifiers."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import numpy as np

from skfocal._pages import elements, figures
from skfocal.displays._drawing import axes_of
from skfocal.report._paired import FEW, FEW_DIFFERENT

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from skfocal.report._comparison import ClassifierComparison

_MOST_ROWS = 40  # classes in the figure
_MOST_DOCUMENTS = 10  # that are shown of each kind
_LONGEST = 20  # characters of a classifier's name above a column
_SCORES = {"f1": "F1", "precision": "precision", "recall": "recall"}


def content(comparison: ClassifierComparison) -> str:
    """Return the comparison as one element, with its own styles."""
    return elements.fragment(
        _head(comparison),
        elements.part("All documents", _overall(comparison)),
        elements.part("Classes", _classes(comparison)),
        elements.part("Documents that changed sides", _documents(comparison)),
        elements.part("Parameters that differ", _parameters(comparison)),
    )


# -- parts -----------------------------------------------------------------------------------


def _head(comparison: ClassifierComparison) -> str:
    a, b = _short(comparison)
    when = comparison.created.strftime("%Y-%m-%d %H:%M UTC")
    facts = f"{comparison._counted()}; {when}; skfocal {comparison.version}"
    table = comparison.overall
    scores = {
        f"{name}, {b} − {a}": elements.signed(difference)
        for name, difference in zip(table["score"], table["difference"], strict=True)
    }
    scores["McNemar's test, p"] = elements.small(comparison.mcnemar["p_value"])
    kinds = "".join(
        f"<p>{_name(name)}: {elements.text(kind)}</p>"
        for name, kind in zip(comparison.names, comparison.kinds, strict=True)
        if kind
    )
    return elements.header(comparison._title(), facts, scores) + kinds + _unknown(comparison)


def _unknown(comparison: ClassifierComparison) -> str:
    """Return what each classifier cannot get right, as it does not know the label."""
    found = []
    for name, labels in zip(comparison.names, comparison.unknown, strict=True):
        if labels:
            n = sum(labels.values())
            documents = "1 document has" if n == 1 else f"{n} documents have"
            shown = ", ".join(map(elements.label, [*labels][:10]))
            more = f" and {len(labels) - 10} more" if len(labels) > 10 else ""
            kind = "a label" if len(labels) == 1 else "labels"
            found.append(
                f"<p>{documents} {kind} that {_name(name)} was not fitted with, and cannot get "
                f"right: {shown}{more}.</p>"
            )
    return "".join(found)


def _overall(comparison: ClassifierComparison) -> str:
    a, b = _short(comparison)
    table: dict[str, Any] = dict(comparison.overall)
    table["interval"] = [*zip(table["low"], table["high"], strict=True)]
    heads = {"score": "score", "a": a, "b": b, "difference": f"{b} − {a}"}
    heads["interval"] = _interval(comparison)
    scores = elements.table(
        table, heads, {"score": "words", "difference": "signed", "interval": "interval"}
    )
    test = comparison.mcnemar
    all_right = " (all labels)" if comparison.multilabel else ""
    counts = {
        "who": [f"both right{all_right}", f"only {a} right", f"only {b} right", "neither right"],
        "documents": [test[key] for key in ("both", "only_a", "only_b", "neither")],
    }
    who = elements.table(counts, {"who": "answers", "documents": "documents"}, {"who": "words"})
    return (
        f"{scores}<p>The intervals are percentiles of {comparison.n_resamples} resamples of the "
        "documents, the same for both. A dash stands for too few documents: an interval needs "
        f"{FEW}, and {FEW_DIFFERENT} on which the answers differ.</p>{who}{_test(comparison)}"
    )


def _test(comparison: ClassifierComparison) -> str:
    test = comparison.mcnemar
    n = test["only_a"] + test["only_b"]
    if not n:
        return "<p>No document is right for one and wrong for the other.</p>"
    return (
        f"<p>If both were equally often right, the {n} document{'s' * (n != 1)} that only one of "
        "them gets right would be split as unevenly as this, or more so, with probability "
        f"{elements.small(test['p_value'])} (McNemar's exact test). The test and the intervals are "
        "about these two classifiers on other documents of the same kind, not about training them "
        "anew.</p>"
    )


def _interval(comparison: ClassifierComparison) -> str:
    return f"{100 * comparison.confidence:g} % interval"


def _classes(comparison: ClassifierComparison) -> str:
    a, b = _short(comparison)
    table: dict[str, Any] = dict(comparison.per_class)
    n, present = len(comparison.labels), int(np.count_nonzero(table["support"]))
    what = "labels" if comparison.multilabel else "classes"
    heads = {"label": "class", "support": "documents"}
    heads |= {"only_a": f"only {a} right", "only_b": f"only {b} right"}
    kinds: dict[str, elements.Kind] = {"label": "words"}
    for score, name in _SCORES.items():
        table[f"{score}_interval"] = [
            *zip(table[f"{score}_low"], table[f"{score}_high"], strict=True)
        ]
        if score == "f1":
            heads |= {"f1_a": f"F1, {a}", "f1_b": f"F1, {b}"}
        heads[f"{score}_difference"] = f"{name}, {b} − {a}"
        heads[f"{score}_interval"] = _interval(comparison)
        kinds[f"{score}_difference"], kinds[f"{score}_interval"] = "signed", "interval"
    rows = elements.folded(elements.table(table, heads, kinds), n, "Differences of each class")
    caption = (
        f"Right of the line, {_name(b)} is better. A point without a line has too few documents "
        f"for an interval.{f' The {_MOST_ROWS} most frequent are shown.' * (present > _MOST_ROWS)}"
    )
    height = 1.1 + 0.24 * min(present, _MOST_ROWS)
    plot = functools.partial(draw_differences, comparison, score="f1")
    drawn = figures.draw(plot, _alt(comparison), (5.0, height))
    chance = (1 - comparison.confidence) * np.count_nonzero(~np.isnan(table["f1_low"]))
    many = (
        f" Of so many intervals, about {chance:.0f} in each column would exclude 0 by chance alone."
        if chance >= 0.5
        else ""
    )
    return (
        f"<p>Sorted by frequency in these documents. Look at the counts of rare {what} first: an "
        f"interval from few documents would say little, and a dash stands in its place.{many}</p>"
        f"{elements.figure('Difference in F1', caption, drawn, wide=True)}{rows}"
    )


_SIDES = {"b": 1, "a": 0, "neither": None}


def _documents(comparison: ClassifierComparison) -> str:
    table = comparison.changed
    rows = [dict(zip(table, row, strict=True)) for row in zip(*table.values(), strict=True)]
    if not rows:
        return "<p>Both answer the same for every document.</p>"
    contents = ["<p>Documents of rare classes come first. Rows are counted from 0.</p>"]
    for side, place in _SIDES.items():
        found = [row for row in rows if row["right"] == side]
        if not found:
            continue
        who = "Both wrong, but differently"
        if place is not None:
            who = f"Only {_name(comparison.names[place])} is right"
        shown = found[:_MOST_DOCUMENTS]
        n = f"{len(shown)} of {len(found)} shown" if len(shown) < len(found) else f"{len(found)}"
        items = "".join(_document(comparison, row) for row in shown)
        contents.append(f"<h3>{who} ({n})</h3><ol>{items}</ol>")
    return "".join(contents)


def _document(comparison: ClassifierComparison, row: dict[str, Any]) -> str:
    facts = {"row": str(row["row"])}
    names = ("true", *(f"{name}:" for name in _short(comparison)))
    if names[1] == names[2]:  # they differ further on
        names = ("true", "first:", "second:")
    for key, name in zip(("true", "a", "b"), names, strict=True):
        shown = row[key]
        if comparison.multilabel:
            shown = ", ".join(map(str, shown)) or "none"
        facts[elements.text(name)] = elements.label(shown)
    return elements.document(facts, elements.excerpt_of(row["document"]), right=row["right"] == "b")


def _parameters(comparison: ClassifierComparison) -> str:
    if not comparison.params:
        return ""
    a, b = _short(comparison)
    values = [[*map(elements.excerpt_of_value, pair)] for pair in comparison.params.values()]
    columns = {"name": [*comparison.params]}
    columns |= {"a": [pair[0] for pair in values], "b": [pair[1] for pair in values]}
    heads = {"name": "parameter", "a": a, "b": b}
    return elements.table(columns, heads, dict.fromkeys(heads, "words"))


def _short(comparison: ClassifierComparison) -> list[str]:
    """Return names that fit above a column."""
    return [elements.cut(name, _LONGEST) for name in comparison.names]


def _name(name: str) -> str:
    return f"<b>{elements.label(name)}</b>"


# -- the figure ------------------------------------------------------------------------------


def draw_differences(comparison: ClassifierComparison, ax: Axes | None, score: str) -> Axes:
    """Draw the difference in a score of each class, with its interval."""
    ax = axes_of(comparison, ax)
    table = comparison.per_class
    shown = slice(min(np.count_nonzero(table["support"]), _MOST_ROWS))
    difference, low, high = (
        table[f"{score}_{key}"][shown] for key in ("difference", "low", "high")
    )
    y = np.arange(len(difference))
    known = ~np.isnan(low)
    colours = np.where(low > 0, figures.BLUE, np.where(high < 0, "#d55e00", "0.5"))
    ax.axvline(0, color="0.5", linewidth=0.8)
    ax.hlines(y[known], low[known], high[known], colors=colours[known], linewidth=2)
    ax.scatter(difference[known], y[known], c=colours[known], s=28, zorder=3)
    ax.scatter(difference[~known], y[~known], facecolors="none", edgecolors="0.5", s=28, zorder=3)
    names = figures.names(comparison.labels[shown])
    support = table["support"][shown]
    ax.set_yticks(y, [f"{name} ({n})" for name, n in zip(names, support, strict=True)])
    ax.tick_params(axis="y", length=0, labelsize=8.5)
    ax.set_ylim(len(y) - 0.4, -0.6)
    a, b = figures.names(_short(comparison))
    ax.set_xlabel(f"{_SCORES[score]}, {b} − {a}", loc="right")  # it may be longer than the axis
    left, right = ax.get_xlim()
    ax.set_xlim(min(left, -0.02), max(right, 0.02))  # where all are alike, without magnifying it
    return ax


def _alt(comparison: ClassifierComparison) -> str:
    """Return what the figure shows, with its main numbers."""
    table = comparison.per_class
    a, b = comparison.names
    labels = comparison.labels

    def named(of: Any) -> str:
        places = np.flatnonzero(of)[:5]
        shown = [f"{labels[k]} {table['f1_difference'][k]:+.3f}" for k in places]
        more = np.count_nonzero(of) - len(places)
        return ", ".join(shown) + f" and {more} more" * bool(more > 0) or "none"

    n = np.count_nonzero(~np.isnan(table["f1_low"]))
    return (
        f"Difference in F1 of each class, {b} minus {a}. {n} of {len(labels)} have an interval. "
        f"Above 0: {named(table['f1_low'] > 0)}. Below 0: {named(table['f1_high'] < 0)}."
    )
