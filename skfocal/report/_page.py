"""The HTML page of a report: escaped text, inline figures, no script and nothing from outside."""

from __future__ import annotations

import copy
import functools
import importlib.resources
import io
import math
import re
import string
import warnings
from collections.abc import Callable, Iterable, Mapping
from html import escape
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from skfocal._utils.messages import excerpt
from skfocal.displays import (
    ClassPrecisionRecallDisplay,
    FrequencyConfusionMatrixDisplay,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from skfocal.report._report import Report

_INK = "#010203"  # becomes the colour of the surrounding text, light or dark
_BLUE, _ORANGE = "#0072b2", "#e69f00"
_STYLE = {
    "svg.fonttype": "none",
    "font.size": 10,
    "legend.frameon": False,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": False,
    "lines.linewidth": 1.8,
    "axes.prop_cycle": "cycler('color', ['0072b2', 'd55e00', '009e73', 'cc79a7'])",
    **dict.fromkeys(
        ("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color"), _INK
    ),
}
_FEW_NAMES, _FEW_CELLS = 12, 6  # classes up to which figures stand side by side
_MOST_CURVES = 100  # of precision and recall: more are neither legible nor cheap
_MOST_CELLS = 60  # rows of the confusion matrix; further classes share the last one
_LONGEST_NAME, _LONGEST_TEXT = 28, 400
_LONG_TABLE = 12  # rows; longer tables can be folded

_HERE = importlib.resources.files("skfocal.report")
_CSS = (_HERE / "page.css").read_text(encoding="utf-8")
_PAGE = string.Template((_HERE / "page.html").read_text(encoding="utf-8"))


def page(body: str, name: str) -> str:
    """Return an HTML document around a fragment; its policy forbids scripts and the network."""
    return _PAGE.substitute(title=_text(f"Report of {name}"), body=body)


def fragment(report: Report) -> str:
    """Return the report as one element, with its own styles."""
    parts = [
        _part("Classes", _classes(report)),
        _part("Errors", _errors(report)),
        _part("Probabilities", _probabilities(report)),
        _part("Hardest documents", _hardest(report)),
        _part("Training", _training(report)),
        _part("Parameters and versions", _settings(report), is_open=False),
    ]
    # The CSS classes keep a notebook's MathJax from reading $ in documents as formulas.
    return (
        f'<div class="skfocal-report tex2jax_ignore mathjax_ignore"><style>\n{_CSS}</style>'
        f"{_head(report)}{''.join(parts)}</div>"
    )


# -- parts -----------------------------------------------------------------------------------


def _part(title: str, content: str, is_open: bool = True) -> str:
    if not content:
        return ""
    summary = f"<summary><h2>{title}</h2></summary>"
    return f'<details class="part"{" open" * is_open}>{summary}{content}</details>'


def _head(report: Report) -> str:
    n = len(report._codes)
    kind = "labels, any number per document" if report.multilabel else "classes"
    what = f"{n} document{'s' * (n != 1)}, {len(report.labels)} {kind}"
    when = report.created.strftime("%Y-%m-%d %H:%M UTC")
    scores = [
        f"<div><dt>{_text(name)}</dt><dd>{_number(value)}</dd></div>"
        for name, value in report.overall.items()
    ]
    return (
        f"<header><h1>Report of {_text(report.name)}</h1><p>{what}; {when}; "
        f"skfocal {_text(report.versions['skfocal'])}</p></header>"
        f'<dl class="scores">{"".join(scores)}</dl>'
    )


_CLASS_HEADS = {
    "label": "class",
    "support": "documents",
    "precision": "precision",
    "recall": "recall",
    "f1": "F1",
    "average_precision": "average precision",
    "predicted": "predicted",
    "test_share": "share",
    "train_share": "share in training",
}
_WORDS = {"label", "true", "predicted"}
_SHARES = {"share", "test_share", "train_share"}
_BARS = {"precision", "recall", "f1", "average_precision"}


def _classes(report: Report) -> str:
    table = report.per_class
    known = "train_share" in table
    heads = {name: text for name, text in _CLASS_HEADS.items() if name in table}
    rows = _folded(_table(table, heads), len(report.labels), "Scores of each class")
    training = " and in the training documents" if known else ""
    caption = f"Share of each class in these documents{training}."
    many = len(report.labels) > _FEW_NAMES
    figures = [_figure("Class balance", caption, _balance(report), wide=many)]
    if table["support"].any():
        curves = (
            "Each class against the rest, with its number of documents and average precision (AP)."
        )
        if np.count_nonzero(table["support"]) > _MOST_CURVES:
            curves += f" The {_MOST_CURVES} most frequent classes are shown."
        drawn = _precision_recall(report)
        figures.append(_figure("Precision and recall", curves, drawn, wide=many))
    return (
        "<p>Sorted by frequency in these documents. A dash stands for a division by zero.</p>"
        f"{rows}{_grid(*figures)}"
    )


_ERROR_HEADS = {
    "true": "true class",
    "predicted": "predicted as",
    "documents": "documents",
    "share": "of the true class",
}


def _errors(report: Report) -> str:
    if report.multilabel:
        return ""
    few = len(report.labels) <= _FEW_CELLS
    caption = "Numbers count documents. Shades show the share of the true class."
    matrix = _figure("Confusion matrix", caption, _confusion(report), wide=not few)
    if not report.confusions["true"]:
        return f"<p>There are no errors.</p>{_grid(matrix)}"
    table = _table(report.confusions, _ERROR_HEADS)
    table = f"<div><h3>The most frequent errors</h3>{table}</div>"
    return _grid(matrix, table) if few else table + _grid(matrix)


def _probabilities(report: Report) -> str:
    reliability = (
        "Share of right decisions against confidence; each label of a document is a decision"
        if report.multilabel
        else "Accuracy against confidence, which is the highest probability"
    )
    caption = f"{reliability}. On the diagonal the two are equal, as is ideal."
    counts = (
        f"Number of {_unit(report)} by confidence. Where there are few, the reliability is mostly "
        "chance."
    )
    return _grid(
        _figure("Reliability", caption, _reliability(report)),
        _figure("Confidence", counts, _confidence(report)),
    )


def _unit(report: Report) -> str:
    return "decisions" if report.multilabel else "documents"


def _hardest(report: Report) -> str:
    table = report.hardest
    if not table["row"]:
        return ""
    gamma = f"{report.gamma:g}"
    weight = f"(1 − p)<sup>{gamma}</sup>" if gamma != "1" else "1 − p"
    truth = "the truth about the label" if report.multilabel else "the true class"
    about = (
        f"Documents with the highest focal weight {weight}: on them the classifier is most "
        "confidently wrong. Look here first for wrong labels. Rows are counted from 0; p is the "
        f"probability of {truth}."
    )
    if report.gamma != 1:
        function = "sigmoid" if report.multilabel else "softmax"
        about += f" As in training, the weight is computed with the {function} of the logits."
    rows = zip(*table.values(), strict=True)
    items = [_document(dict(zip(table, row, strict=True)), report.multilabel) for row in rows]
    return f"<p>{about}</p><ol>{''.join(items)}</ol>"


def _document(row: dict[str, Any], several: bool) -> str:
    names = {"true": row["true"], "predicted": row["predicted"]}
    if several:
        names = {key: ", ".join(map(str, labels)) or "none" for key, labels in names.items()}
    facts = [f"{key} <b>{_label(name)}</b>" for key, name in names.items()]
    if several:
        facts.append(f"judged by <b>{_label(row['label'])}</b>")
    facts.append(f"p <b>{_small(row['probability'])}</b>")
    facts.append(f"weight <b>{_number(row['focal_weight'])}</b>")
    spans = "".join(f"<span>{fact}</span>" for fact in [f"row <b>{row['row']}</b>", *facts])
    right = row["true"] == row["predicted"]
    text = _text(_cut(row["document"], _LONGEST_TEXT)) or "(empty)"
    return (
        f'<li{" class=right" * right}><div class="facts">{spans}</div>'
        f'<div class="text" dir="auto">{text}</div></li>'
    )


def _training(report: Report) -> str:
    if report._training is None:
        return ""
    history, class_loss = report._training
    history, class_loss = copy.copy(history), copy.copy(class_loss)
    names = {"epoch": "epoch", "train_loss": "training loss"}
    names |= {"valid_loss": "held-out loss", "valid_score": f"held-out {history.score_name}"}
    table = _table(report.history, {name: names[name] for name in report.history})
    figures = [
        _figure(
            "Losses",
            "Losses of the training documents and, if there are any, the held-out documents.",
            _draw(history.plot, "Losses by epoch"),
        )
    ]
    class_loss.labels = _names(class_loss.labels)
    if len(class_loss.losses):
        caption = (
            "Share of each class in the training documents, and in the training loss of each epoch."
        )
        drawn = _draw(class_loss.plot, "Shares of the classes in the training loss by epoch")
        figures.append(_figure("Loss of each class", caption, drawn))
    rows = _folded(table, len(report.history["epoch"]), "Table")
    return _grid(*figures) + rows


def _settings(report: Report) -> str:
    changed = {
        name: value
        for name, value in report.params.items()
        if excerpt(value, 500) != excerpt(report._defaults.get(name), 500)
    }
    others = {name: value for name, value in report.params.items() if name not in changed}
    content = "<h3>Parameters that differ from their defaults</h3>" + _pairs(changed)
    if others:
        content += f"<details><summary>All other parameters</summary>{_pairs(others)}</details>"
    return f"{content}<h3>Versions</h3>{_pairs(report.versions, str)}"


# -- tables and texts ------------------------------------------------------------------------


def _text(value: object) -> str:
    """Return text for HTML, without control characters or lone surrogates."""
    text = "".join(c if c.isprintable() or c in " \n\t" else " " for c in str(value))
    return escape(text)


def _label(value: object) -> str:
    return f"<bdi>{_text(_cut(value, 80))}</bdi>"


def _cut(value: object, most: int) -> str:
    text = " ".join(str(value).split())
    return text if len(text) <= most else text[:most].rstrip() + "…"


def _number(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:.3f}"


def _small(value: float) -> str:
    """Return a probability; of a small one, the first digit and the exponent."""
    return f"{value:.3f}" if value >= 0.001 or value == 0 else f"{value:.0e}"


def _words(value: object, tag: str = "td", scope: str = "") -> str:
    kind = "words long" if len(str(value)) > _LONGEST_NAME else "words"
    return f'<{tag}{scope} class="{kind}">{_label(value)}</{tag}>'


def _cell(name: str, value: float) -> str:
    if math.isnan(value):
        return "<td>–</td>"
    if name in _SHARES:
        return f"<td>{100 * value:.3g} %</td>"
    if name in _BARS:
        return f'<td class="bar" style="--v:{100 * value:.1f}%">{value:.3f}</td>'
    return f"<td>{value:.3f}</td>" if isinstance(value, float) else f"<td>{value}</td>"


def _table(columns: Mapping[str, Iterable[Any]], heads: dict[str, str]) -> str:
    """Return a table of some columns; labels are set as words, whatever their type."""
    words = _WORDS & set(heads) - ({"predicted"} if "support" in columns else set())
    head = "".join(
        f'<th scope="col"{" class=words" * (name in words)}>{_text(text)}</th>'
        for name, text in heads.items()
    )
    lines = []
    for values in zip(*(columns[name] for name in heads), strict=True):
        cells = [
            _words(value) if name in words else _cell(name, _plain(value))
            for name, value in zip(heads, values, strict=True)
        ]
        lines.append(f"<tr>{''.join(cells)}</tr>")
    return (
        f'<div class="scroll"><table><thead><tr>{head}</tr></thead>'
        f"<tbody>{''.join(lines)}</tbody></table></div>"
    )


def _plain(value: Any) -> float:
    """Return a number as Python's own, and a missing value as NaN."""
    return math.nan if value is None else value.item() if hasattr(value, "item") else value


def _folded(table: str, n_rows: int, title: str) -> str:
    if n_rows <= _LONG_TABLE:
        return table
    return f"<details open><summary>{title}</summary>{table}</details>"


def _value(value: Any) -> str:
    """Return an excerpt of a parameter; of a path only its name, as pages are passed on."""
    path = PurePath(value) if isinstance(value, str | PurePath) else PurePath()
    if path.is_absolute() or path.parts[:1] in (("..",), ("~",)):
        value = f"…/{PurePath(value).name}"
    return excerpt(value, 200)


def _pairs(values: Mapping[str, Any], show: Callable[[Any], str] = _value) -> str:
    rows = [
        f'<tr><th scope="row" class="words"><code>{_text(name)}</code></th>'
        f'<td class="words long"><code>{_text(show(value))}</code></td></tr>'
        for name, value in values.items()
    ]
    return f'<div class="scroll"><table><tbody>{"".join(rows)}</tbody></table></div>'


# -- figures ---------------------------------------------------------------------------------


def _grid(*figures: str) -> str:
    return f'<div class="figures">{"".join(figures)}</div>'


def _figure(title: str, caption: str, svg: str, wide: bool = False) -> str:
    kind = ' class="wide"' if wide else ""
    return (
        f'<figure{kind}><h3>{title}</h3><div class="scroll">{svg}</div>'
        f"<figcaption>{caption}</figcaption></figure>"
    )


def _names(labels: Iterable[Any]) -> list[str]:
    """Return short and distinct names for a figure, without mark-up."""
    names: dict[str, None] = {}
    for label in labels:
        name = "".join(c if c.isprintable() else " " for c in str(label))
        name = _cut(name, _LONGEST_NAME).replace("$", r"\$") or "(empty)"
        if name.startswith("_"):  # which matplotlib hides from a legend
            name = f"\u200b{name}"
        i = 2
        while name in names:
            name = f"{name.rsplit(' #', 1)[0]} #{i}"
            i += 1
        names[name] = None
    return list(names)


_SIDE, _WIDE = (4.4, 3.3), (9.5, 4)  # inches


def _draw(plot: Callable[..., object], alt: str, size: tuple[float, float] = _SIDE) -> str:
    """Return the figure that ``plot(ax=...)`` draws, as SVG in the colours of the page."""
    import matplotlib.style
    from matplotlib.figure import Figure

    with matplotlib.style.context(["default", _STYLE]), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # glyphs missing in its font: the browser has other fonts
        figure = Figure(figsize=size, layout="constrained")
        plot(ax=figure.subplots())
        file = io.StringIO()
        # The salt gives shared shapes the same names in every run.
        with matplotlib.rc_context({"svg.hashsalt": alt}):
            figure.savefig(file, format="svg", transparent=True)
    return _inline(file.getvalue(), alt, size)


def _inline(svg: str, alt: str, size: tuple[float, float]) -> str:
    """Return an SVG file as an element with a text, without styles or ids for the whole page."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<(metadata|style)\b.*?</\1>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'<g id="[^"]*"', "<g", svg)
    # Only within tags: text stands between them.
    svg = re.sub(r"(fill|stroke): #(?:010203|000000)\b(?=[^<>]*>)", r"\1: currentColor", svg)
    svg = svg.replace("stroke: #bfbfbf", "stroke: var(--faint)")  # curves without a name
    box = re.search(r'viewBox="[^"]*"', svg).group()  # type: ignore[union-attr]
    width = round(96 * size[0])
    # As wide as its container, within limits that keep the letters legible.
    style = f"width:100%;min-width:{round(0.72 * width)}px;max-width:{round(1.25 * width)}px"
    start = (
        f'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
        f'{box} role="img" aria-label="{escape(alt)}" style="{style}">'
    )
    return start + svg[svg.index(">") + 1 :].strip()


def _balance(report: Report) -> str:
    table = report.per_class
    x = np.arange(len(report.labels))
    many = len(x) > _FEW_NAMES

    def plot(ax: Axes) -> None:
        from matplotlib.ticker import LogLocator, NullLocator

        tested = np.where(table["test_share"] > 0, table["test_share"], np.nan)
        if "train_share" in table:
            known = np.where(table["train_share"] > 0, table["train_share"], np.nan)
            ax.vlines(x, known, tested, color="0.6", linewidth=1)
            ax.plot(x, known, "o", color=_ORANGE, label="training", markersize=4 if many else 7)
        ax.plot(x, tested, "s", color=_BLUE, label="these documents", markersize=3 if many else 5)
        ax.set(yscale="log", ylabel="share of documents", xlabel="class, most frequent first")
        ax.set_xlim(-0.6, len(x) - 0.4)
        style = {"rotation": 90, "fontsize": 7.5, "va": "center"} if many else {"rotation": 25}
        if len(x) <= _MOST_CELLS:
            ax.set_xticks(x, _names(report.labels), rotation_mode="anchor", ha="right", **style)
            ax.tick_params(axis="x", length=0)
        else:
            ax.set_xticks([])
        ax.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        ax.yaxis.set_minor_locator(NullLocator())
        ax.yaxis.set_major_formatter(lambda value, _: f"{100 * value:.3g} %")
        ax.legend(loc="upper right")

    return _draw(plot, "Shares of the classes", _WIDE if many else _SIDE)


def _confusion(report: Report) -> str:
    matrix, labels = report.confusion_matrix, list(report.labels)
    assert matrix is not None
    codes, predicted = (_ranks(report, codes) for codes in (report._codes, report._predicted))
    used = np.flatnonzero(matrix.any(0) | matrix.any(1))
    if len(used) > _MOST_CELLS:
        codes, predicted = (np.minimum(c, _MOST_CELLS - 1) for c in (codes, predicted))
        labels = [*labels[: _MOST_CELLS - 1], f"{len(labels) - _MOST_CELLS + 1} others"]
        used = np.arange(_MOST_CELLS)
    names = _names([labels[i] for i in used])
    n = len(used)
    side = 1.6 + (0.75 * n if n <= 6 else 0.42 * n if n <= 20 else 0.225 * n)
    letters = 10 if n <= 6 else 8 if n <= 20 else 5.5

    def plot(ax: Axes) -> None:
        from matplotlib.colors import LinearSegmentedColormap

        clear, full = (0, 0x72 / 255, 0xB2 / 255, 0), (0, 0x72 / 255, 0xB2 / 255, 1)
        display = FrequencyConfusionMatrixDisplay.from_predictions(
            codes,
            predicted,
            labels=used,
            display_labels=names,
            normalize="true",
            include_values=False,
            xticks_rotation="vertical" if n > 3 else "horizontal",
            cmap=LinearSegmentedColormap.from_list("ink", [clear, full]),
            colorbar=False,
            ax=ax,
            im_kw={"vmin": 0, "vmax": 1, "interpolation": "nearest"},
        )
        counts = np.zeros((n, n), int)
        np.add.at(counts, (np.searchsorted(used, codes), np.searchsorted(used, predicted)), 1)
        for i, j in zip(*counts.nonzero(), strict=True):
            # At nine tenths of the full colour, both have the same contrast with it.
            colour = "white" if display.confusion_matrix[i, j] > 0.9 else _INK
            style: dict[str, Any] = {"ha": "center", "va": "center", "fontsize": letters}
            ax.text(j, i, counts[i, j], color=colour, **style)
        ax.tick_params(labelsize=9 if n <= 20 else 6.5)
        ax.set(xlabel="predicted class", ylabel="true class")
        ax.spines[:].set_visible(True)
        ax.set_xticks(np.arange(n + 1) - 0.5, minor=True)
        ax.set_yticks(np.arange(n + 1) - 0.5, minor=True)
        ax.grid(which="minor", color="0.6", linewidth=0.3, alpha=0.6)
        ax.tick_params(which="minor", length=0)

    return _draw(plot, "Confusion matrix, most frequent class first", (side + 0.8, side))


def _ranks(report: Report, codes: NDArray[Any]) -> NDArray[np.int64]:
    """Return the frequency rank of the class of each code."""
    places = np.empty(len(report.labels), int)
    places[report._order] = np.arange(len(report.labels))
    ranks: NDArray[np.int64] = places[codes]
    return ranks


def _reliability(report: Report) -> str:
    display = copy.copy(report._reliability)
    return _draw(functools.partial(display.plot, color=_BLUE), "Accuracy against confidence")


def _confidence(report: Report) -> str:
    counts = report._reliability.counts
    right = counts * report._reliability.accuracy
    edges = np.linspace(0, 1, len(counts) + 1)

    def plot(ax: Axes) -> None:
        width = edges[1]
        settings = {"width": 0.9 * width, "align": "edge"}
        ax.bar(edges[:-1], right, **settings, color=_BLUE, label="right")
        ax.bar(edges[:-1], counts - right, **settings, bottom=right, color=_ORANGE, label="wrong")
        ax.set(xlabel="confidence", ylabel=_unit(report), xlim=(0, 1))
        ax.legend(loc="upper left")

    return _draw(plot, "Right and wrong decisions by confidence")


def _precision_recall(report: Report) -> str:
    from sklearn.metrics import precision_recall_curve

    table, has, proba = report.per_class, report._has, report._proba
    names = _names(report.labels)
    shown = np.flatnonzero(table["support"])[:_MOST_CURVES].tolist()
    columns = {names[k]: report._order[k] for k in shown}
    display = ClassPrecisionRecallDisplay(
        {
            name: precision_recall_curve(has(column), proba[:, column])[:2]
            for name, column in columns.items()
        },
        {names[k]: float(table["average_precision"][k]) for k in shown},
        {names[k]: int(table["support"][k]) for k in shown},
    )

    many = len(names) > _FEW_NAMES

    def plot(ax: Axes) -> None:
        display.plot(ax=ax, top=6)
        if not many:
            ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.18), fontsize=8)

    height = 3.3 + 0.17 * min(len(shown), 7)
    return _draw(plot, "Precision and recall of each class", _WIDE if many else (4.4, height))
