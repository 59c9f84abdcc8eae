"""Draw the figures of the benchmarks from the committed lines of JSON.

    python docs/draw_benchmarks.py

The build of the site runs this; the figures are not committed.
"""

import json
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

BENCHMARKS = Path(__file__).parent / "benchmarks"
BLUE, ORANGE, GREEN = "#0072B2", "#E69F00", "#009E73"
STYLE = {"font.size": 11, "axes.spines.top": False, "axes.spines.right": False}
STYLE |= {"axes.grid": True, "grid.color": "#dddddd", "axes.axisbelow": True}
WIDTH = 4.8  # inches, so that the letters stay legible on a phone


def read(name):
    """Return the runs of a benchmark, one dict per line."""
    return [json.loads(line) for line in (BENCHMARKS / f"{name}.jsonl").open()]


def values(rows, column, **wanted):
    """Return a column of the rows that have the wanted values."""
    found = [row[column] for row in rows if all(row[k] == v for k, v in wanted.items())]
    assert found, wanted
    return np.array(found)


def dots(ax, position, numbers, colour, marker="o", label=None):
    """Draw each run as a small dot, and their mean as a large one."""
    ax.plot(numbers, [position] * len(numbers), ".", color=colour, alpha=0.45, zorder=2)
    ax.plot(numbers.mean(), position, marker, color=colour, markersize=8, zorder=3, label=label)


def rows_of(ax, names):
    """Label the rows of a plot, the first at the top."""
    ax.set_yticks(range(len(names)), names)
    ax.set_ylim(len(names) - 0.5, -0.5)


def legend_below(figure, ax, n_columns):
    """Put the legend below the axes, where it hides nothing."""
    handles, labels = ax.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=n_columns, frameon=False)


def losses_r52():
    """Macro-F1 and accuracy of losses and samplers on R52."""
    rows = read("quality-r52-short")
    names = list(dict.fromkeys(row["name"] for row in rows))
    names = sorted(names, key=lambda name: values(rows, "f1_macro", name=name).mean())
    figure, axes = plt.subplots(1, 2, figsize=(WIDTH, 3.6), sharey=True, layout="constrained")
    for ax, column, title in zip(
        axes, ("f1_macro", "accuracy"), ("macro-F1 in %", "accuracy in %"), strict=True
    ):
        for i, name in enumerate(reversed(names)):
            linear = name.startswith("TF-IDF")
            numbers = 100 * values(rows, column, name=name)
            dots(ax, i, numbers, ORANGE if linear else BLUE, "s" if linear else "o")
        ax.set_xlabel(title)
    rows_of(axes[0], [name.replace("TF-IDF + ", "TF-IDF, ") for name in reversed(names)])
    return figure


def probabilities():
    """Calibration error of softmax and inverse, by gamma."""
    gammas = (0, 1, 2, 5)
    data = {"R8": "r8", "20 Newsgroups": "20ng", "R52": "r52"}
    figure, axes = plt.subplots(1, 3, figsize=(WIDTH, 3.2), sharey=True, layout="constrained")
    for ax, (title, name) in zip(axes, data.items(), strict=True):
        rows = [row for row in read(f"probabilities-{name}") if not row["tempered"]]
        for proba, colour, style, label in (
            ("softmax", ORANGE, "s--", "softmax"),
            ("reweighted", BLUE, "o-", "inverse (the default)"),
        ):
            names = ["cross-entropy", *(f"focal, gamma {gamma}" for gamma in gammas[1:])]
            errors = [100 * values(rows, "ece", name=n, proba=proba) for n in names]
            ax.plot(gammas, [e.mean() for e in errors], style, color=colour, label=label)
            for gamma, error in zip(gammas, errors, strict=True):
                ax.plot([gamma] * len(error), error, ".", color=colour, alpha=0.45)
        ax.set(title=title, xlabel="gamma", xticks=gammas)
    axes[0].set(ylabel="calibration error (ECE) in %", ylim=(0, 28))
    legend_below(figure, axes[0], 2)
    return figure


def decisions_r52():
    """Macro-F1 of three decisions."""
    rows = read("decisions-r52")
    names = list(dict.fromkeys(row["name"] for row in rows))
    figure, ax = plt.subplots(figsize=(WIDTH, 5.0), layout="constrained")
    kinds = {"argmax": (BLUE, "o"), "prior": (ORANGE, "s"), "tuned": (GREEN, "^")}
    for shift, (decision, (colour, marker)) in zip((-0.22, 0, 0.22), kinds.items(), strict=True):
        for i, name in enumerate(names):
            numbers = 100 * values(rows, "f1_macro", name=name, decision=decision)
            dots(ax, i + shift, numbers, colour, marker, None if i else f'"{decision}"')
    rows_of(ax, [name.replace(", balanced alpha", ",\nbalanced alpha") for name in names])
    ax.set_xlabel("macro-F1 in %")
    legend_below(figure, ax, 3)
    return figure


def multilabel():
    """F1 of frequent and rare labels."""
    rows = read("multilabel")
    names = list(dict.fromkeys(row["name"] for row in rows))
    figure, ax = plt.subplots(figsize=(WIDTH, 3.2), layout="constrained")
    scores = {
        "micro-F1": (BLUE, "o", "f1_micro"),
        "F1 of the rarest labels": (ORANGE, "s", "f1_tail"),
    }
    for shift, (label, (colour, marker, column)) in zip((-0.13, 0.13), scores.items(), strict=True):
        for i, name in enumerate(names):
            numbers = 100 * values(rows, column, name=name, decision="threshold on the sigmoid")
            dots(ax, i + shift, numbers, colour, marker, None if i else label)
    rows_of(ax, names)
    ax.set(xlabel="F1 in %", xlim=(-3, 80))
    legend_below(figure, ax, 2)
    return figure


def speed():
    """Documents per second, as a multiple of a bare loop."""
    rows = read("speed")
    names = list(dict.fromkeys(row["name"] for row in rows))
    figure, axes = plt.subplots(1, 2, figsize=(WIDTH, 3.8), sharey=True, layout="constrained")
    for ax, work, title in zip(axes, ("fit", "predict"), ("training", "prediction"), strict=True):
        base = {row["repeat"]: row["seconds"] for row in rows
                if row["name"] == "bare loop" and row["work"] == work}  # fmt: skip
        for i, name in enumerate(names):
            found = [row for row in rows if row["name"] == name and row["work"] == work]
            if not found:
                continue
            ratios = np.array([base[row["repeat"]] / row["seconds"] for row in found])
            own = name.startswith("skfocal")
            ax.barh(i, np.median(ratios), color=BLUE if own else "#bbbbbb", height=0.65)
            ax.plot([ratios.min(), ratios.max()], [i, i], color="black", linewidth=1.5)
        ax.axvline(1, color="black", linewidth=1, linestyle=":")
        ax.set(title=title, xlabel="× bare loop")
        ax.grid(axis="y", visible=False)
    rows_of(axes[0], [name.replace(", grouped", ",\ngrouped") for name in names])
    return figure


def search():
    """Minutes of a grid over gamma and alpha."""
    rows = read("search")
    settings = list(dict.fromkeys(row["setting"] for row in rows))
    figure, ax = plt.subplots(figsize=(WIDTH, 2.6), layout="constrained")
    for shift, side, colour in ((-0.19, "skfocal", BLUE), (0.19, "skorch recipe", "#bbbbbb")):
        for i, setting in enumerate(settings):
            (seconds,) = values(rows, "seconds", setting=setting, side=side)
            ax.barh(i + shift, seconds / 60, 0.36, color=colour, label=None if i else side)
    rows_of(ax, [setting.replace(" of 6 layers", "\nof 6 layers") for setting in settings])
    ax.set_xlabel("minutes for the whole search")
    ax.grid(axis="y", visible=False)
    legend_below(figure, ax, 2)
    return figure


def scale():
    """Time per document, from a thousand documents to a million."""
    rows = read("scale")
    n = np.array([row["documents"] for row in rows])
    figure, ax = plt.subplots(figsize=(WIDTH, 3.0), layout="constrained")
    for column, colour, style, label in (
        ("predict", BLUE, "o-", "predict"),
        ("tokenize", ORANGE, "s--", "tokenise"),
    ):
        times = 1e6 * np.array([row[column] for row in rows]) / n
        ax.plot(n, times, style, color=colour, label=label)
    ax.set(xscale="log", xlabel="documents", ylabel="µs per document", ylim=(0, None))
    legend_below(figure, ax, 2)
    return figure


FIGURES = (losses_r52, probabilities, decisions_r52, multilabel, speed, search, scale)


def main(folder):
    """Draw all figures into a folder."""
    folder.mkdir(exist_ok=True)
    for draw in FIGURES:
        with plt.rc_context({"svg.hashsalt": draw.__name__, **STYLE}):
            figure: Figure = draw()
            figure.savefig(folder / f"{draw.__name__}.svg", metadata={"Date": None})
            plt.close(figure)


if __name__ == "__main__":
    main(BENCHMARKS / "figures")
