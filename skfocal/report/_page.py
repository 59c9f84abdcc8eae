"""The HTML page of a report: escaped text, inline figures, no script and nothing from outside."""

from __future__ import annotations

import copy
import functools
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from skfocal._pages import elements, figures
from skfocal._utils.messages import excerpt
from skfocal.displays import (
    ClassPrecisionRecallDisplay,
    FrequencyConfusionMatrixDisplay,
    _pairs_html,
)
from skfocal.explanation import _page as marks
from skfocal.report import _alt

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from skfocal.report._report import Report

_FEW_NAMES, _FEW_CELLS = 12, 6  # classes up to which figures stand side by side
_MOST_CURVES = 100  # of precision and recall: more are neither legible nor cheap
_MARKED = 1200  # characters of a document whose words are marked
_MOST_CELLS = 60  # rows of the confusion matrix; further classes share the last one


def content(report: Report) -> str:
    """Return the report as one element, with its own styles."""
    return elements.fragment(
        _head(report),
        elements.part("Classes", _classes(report)),
        elements.part("Errors", _errors(report)),
        elements.part("Where the classes meet", _meeting(report)),
        elements.part("Probabilities", _probabilities(report)),
        elements.part("Hardest documents", _hardest(report)),
        elements.part("Training", _training(report)),
        elements.part("Parameters and versions", _settings(report), is_open=False),
    )


# -- parts -----------------------------------------------------------------------------------


def _head(report: Report) -> str:
    n = len(report._codes)
    kind = "labels, any number per document" if report.multilabel else "classes"
    what = f"{n} document{'s' * (n != 1)}, {len(report.labels)} {kind}"
    when = report.created.strftime("%Y-%m-%d %H:%M UTC")
    scores = {name: elements.number(value) for name, value in report.overall.items()}
    return elements.header(
        report._title(), f"{what}; {when}; skfocal {report.versions['skfocal']}", scores
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
_CLASS_KINDS: dict[str, elements.Kind] = {
    "label": "words",
    **dict.fromkeys(("precision", "recall", "f1", "average_precision"), "bar"),
    **dict.fromkeys(("test_share", "train_share"), "share"),
}


def _classes(report: Report) -> str:
    table = report.per_class
    known = "train_share" in table
    heads = {name: text for name, text in _CLASS_HEADS.items() if name in table}
    rows = elements.table(table, heads, _CLASS_KINDS)
    rows = elements.folded(rows, len(report.labels), "Scores of each class")
    training = " and in the training documents" if known else ""
    caption = f"Share of each class in these documents{training}."
    many = len(report.labels) > _FEW_NAMES
    shown = [elements.figure("Class balance", caption, _balance(report), wide=many)]
    if table["support"].any():
        curves = (
            "Each class against the rest, with its number of documents and average precision (AP)."
        )
        if np.count_nonzero(table["support"]) > _MOST_CURVES:
            curves += f" The {_MOST_CURVES} most frequent classes are shown."
        drawn = _precision_recall(report)
        shown.append(elements.figure("Precision and recall", curves, drawn, wide=many))
    return (
        "<p>Sorted by frequency in these documents. A dash stands for a division by zero.</p>"
        f"{rows}{elements.grid(*shown)}"
    )


_ERROR_HEADS = {
    "true": "true class",
    "predicted": "predicted as",
    "documents": "documents",
    "share": "of the true class",
}
_ERROR_KINDS: dict[str, elements.Kind] = {
    "true": "words",
    "predicted": "words",
    "share": "share",
}


def _errors(report: Report) -> str:
    if report.multilabel:
        return ""
    few = len(report.labels) <= _FEW_CELLS
    caption = "Numbers count documents. Shades show the share of the true class."
    matrix = elements.figure("Confusion matrix", caption, _confusion(report), wide=not few)
    if not report.confusions["true"]:
        return f"<p>There are no errors.</p>{elements.grid(matrix)}"
    table = elements.table(report.confusions, _ERROR_HEADS, _ERROR_KINDS)
    table = f"<div><h3>The most frequent errors</h3>{table}</div>"
    return elements.grid(matrix, table) if few else table + elements.grid(matrix)


def _meeting(report: Report) -> str:
    display = copy.copy(report.confused_pairs)
    if display is None or not display.pairs["first"]:
        return ""
    height = max(1.3 + 0.38 * len(display.pairs["first"]), 2.3)
    drawn = figures.draw(display.plot, _pairs_html.alt(display), (5.0, height))
    caption = "Documents of one class that are taken for the other. Of a pair, the first class is "
    caption += "the more frequent one."
    figure = elements.figure("Pairs of classes that are confused", caption, drawn, wide=True)
    return figure + _pairs_html.content(display)


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
    return elements.grid(
        elements.figure("Reliability", caption, _reliability(report)),
        elements.figure("Confidence", counts, _confidence(report)),
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
    rows = [dict(zip(table, row, strict=True)) for row in zip(*table.values(), strict=True)]
    if report.explanation is None:
        contents = [elements.excerpt_of(row["document"]) for row in rows]
        legend = ""
    else:
        what = "the label that it is judged by" if report.multilabel else "the predicted class"
        contents = [marks.marked(document, _MARKED) for document in report.explanation]
        legend = marks.legend(what)
    items = [
        _document(row, content, report.multilabel)
        for row, content in zip(rows, contents, strict=True)
    ]
    return f"<p>{about}</p>{legend}<ol>{''.join(items)}</ol>"


def _document(row: dict[str, Any], content: str, several: bool) -> str:
    names = {"true": row["true"], "predicted": row["predicted"]}
    if several:
        names = {key: ", ".join(map(str, labels)) or "none" for key, labels in names.items()}
    facts = {"row": str(row["row"])}
    facts |= {key: elements.label(name) for key, name in names.items()}
    if several:
        facts["judged by"] = elements.label(row["label"])
    facts["p"] = elements.small(row["probability"])
    facts["weight"] = elements.number(row["focal_weight"])
    return elements.document(facts, content, right=row["true"] == row["predicted"])


def _training(report: Report) -> str:
    if report._training is None:
        return ""
    history, class_loss = report._training
    history, class_loss = copy.copy(history), copy.copy(class_loss)
    names = {"epoch": "epoch", "train_loss": "training loss"}
    names |= {"valid_loss": "held-out loss", "valid_score": f"held-out {history.score_name}"}
    table = elements.table(report.history, {name: names[name] for name in report.history}, {})
    shown = [
        elements.figure(
            "Losses",
            "Losses of the training documents and, if there are any, the held-out documents.",
            figures.draw(history.plot, _alt.history(history)),
        )
    ]
    if len(class_loss.losses):
        alt = _alt.class_loss(class_loss)
        caption = (
            "Share of each class in the training documents, and in the training loss of each epoch."
        )
        drawn = figures.draw(class_loss.plot, alt)
        shown.append(elements.figure("Loss of each class", caption, drawn))
    rows = elements.folded(table, len(report.history["epoch"]), "Table")
    return elements.grid(*shown) + rows


def _settings(report: Report) -> str:
    changed = {
        name: value
        for name, value in report.params.items()
        if excerpt(value, 500) != excerpt(report._defaults.get(name), 500)
    }
    others = {name: value for name, value in report.params.items() if name not in changed}
    content = ""
    if report.params:
        content = "<h3>Parameters that differ from their defaults</h3>" + elements.pairs(changed)
    if others:
        folded = elements.pairs(others)
        content += f"<details><summary>All other parameters</summary>{folded}</details>"
    return f"{content}<h3>Versions</h3>{elements.pairs(report.versions, str)}"


# -- figures ---------------------------------------------------------------------------------


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
            ax.plot(
                x, known, "o", color=figures.ORANGE, label="training", markersize=4 if many else 7
            )
        ax.plot(
            x, tested, "s", color=figures.BLUE, label="these documents", markersize=3 if many else 5
        )
        ax.set(yscale="log", ylabel="share of documents", xlabel="class, most frequent first")
        ax.set_xlim(-0.6, len(x) - 0.4)
        style = {"rotation": 90, "fontsize": 7.5, "va": "center"} if many else {"rotation": 25}
        if len(x) <= _MOST_CELLS:
            ax.set_xticks(
                x, figures.names(report.labels), rotation_mode="anchor", ha="right", **style
            )
            ax.tick_params(axis="x", length=0)
        else:
            ax.set_xticks([])
        ax.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        ax.yaxis.set_minor_locator(NullLocator())
        ax.yaxis.set_major_formatter(lambda value, _: f"{100 * value:.3g} %")
        ax.legend(loc="upper right")

    return figures.draw(plot, _alt.balance(report), figures.WIDE if many else figures.SIDE)


def _confusion(report: Report) -> str:
    matrix, labels = report.confusion_matrix, list(report.labels)
    assert matrix is not None
    codes, predicted = (_ranks(report, codes) for codes in (report._codes, report._predicted))
    used = np.flatnonzero(matrix.any(0) | matrix.any(1))
    if len(used) > _MOST_CELLS:
        codes, predicted = (np.minimum(c, _MOST_CELLS - 1) for c in (codes, predicted))
        labels = [*labels[: _MOST_CELLS - 1], f"{len(labels) - _MOST_CELLS + 1} others"]
        used = np.arange(_MOST_CELLS)
    names = figures.names([labels[i] for i in used])
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
            colour = "white" if display.confusion_matrix[i, j] > 0.9 else figures.INK
            style: dict[str, Any] = {"ha": "center", "va": "center", "fontsize": letters}
            ax.text(j, i, counts[i, j], color=colour, **style)
        ax.tick_params(labelsize=9 if n <= 20 else 6.5)
        ax.set(xlabel="predicted class", ylabel="true class")
        ax.spines[:].set_visible(True)
        ax.set_xticks(np.arange(n + 1) - 0.5, minor=True)
        ax.set_yticks(np.arange(n + 1) - 0.5, minor=True)
        ax.grid(which="minor", color="0.6", linewidth=0.3, alpha=0.6)
        ax.tick_params(which="minor", length=0)

    return figures.draw(plot, _alt.confusion(report), (side + 0.8, side))


def _ranks(report: Report, codes: NDArray[Any]) -> NDArray[np.int64]:
    """Return the frequency rank of the class of each code."""
    places = np.empty(len(report.labels), int)
    places[report._order] = np.arange(len(report.labels))
    ranks: NDArray[np.int64] = places[codes]
    return ranks


def _reliability(report: Report) -> str:
    display = copy.copy(report._reliability)
    return figures.draw(
        functools.partial(display.plot, color=figures.BLUE), _alt.reliability(report)
    )


def _confidence(report: Report) -> str:
    counts = report._reliability.counts
    right = counts * report._reliability.accuracy
    edges = np.linspace(0, 1, len(counts) + 1)

    def plot(ax: Axes) -> None:
        width = edges[1]
        settings = {"width": 0.9 * width, "align": "edge"}
        ax.bar(edges[:-1], right, **settings, color=figures.BLUE, label="right")
        ax.bar(
            edges[:-1],
            counts - right,
            **settings,
            bottom=right,
            color=figures.ORANGE,
            label="wrong",
        )
        ax.set(xlabel="confidence", ylabel=_unit(report), xlim=(0, 1))
        ax.legend(loc="upper left")

    return figures.draw(plot, _alt.confidence(report, _unit(report)))


def _precision_recall(report: Report) -> str:
    from sklearn.metrics import precision_recall_curve

    table, has, proba = report.per_class, report._has, report._proba
    labels = report.labels.tolist()
    shown = np.flatnonzero(table["support"])[:_MOST_CURVES].tolist()
    columns = {labels[k]: report._order[k] for k in shown}
    display = ClassPrecisionRecallDisplay(
        {
            label: precision_recall_curve(has(column), proba[:, column])[:2]
            for label, column in columns.items()
        },
        {labels[k]: float(table["average_precision"][k]) for k in shown},
        {labels[k]: int(table["support"][k]) for k in shown},
    )

    many = len(labels) > _FEW_NAMES

    def plot(ax: Axes) -> None:
        display.plot(ax=ax, top=6)
        if not many:
            ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.18), fontsize=8)

    height = 3.3 + 0.17 * min(len(shown), 7)
    return figures.draw(
        plot, _alt.precision_recall(report), figures.WIDE if many else (4.4, height)
    )
