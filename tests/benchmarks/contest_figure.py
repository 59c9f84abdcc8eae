"""The figure of contest.py: macro-F1 against the seconds of training, a panel per corpus."""

import itertools

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, MaxNLocator, NullFormatter, NullLocator

STYLE = {
    "font.size": 9.5,
    "axes.edgecolor": "#888888",
    "axes.labelcolor": "#333333",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e8e8e8",
    "xtick.color": "#555555",
    "ytick.color": "#555555",
    "svg.hashsalt": "contest",
}
# Beginning of the name: colour, marker and what the legend says; the last fits all others.
FAMILIES = {
    "skfocal": ("#0072B2", "o", "skfocal"),
    "TF-IDF": ("#B8860B", "s", "linear model on word counts"),
    "frozen": ("#00806A", "D", "embeddings of MiniLM, frozen or static"),
    "model2vec": ("#00806A", "D", "embeddings of MiniLM, frozen or static"),
    "": ("#8A4F7D", "^", "other ways to fine-tune MiniLM"),
}
TICKS = {
    0.01: "10 ms",
    0.1: "0.1 s",
    1: "1 s",
    10: "10 s",
    60: "1 min",
    600: "10 min",
    3600: "1 h",
    36000: "10 h",
}
COLUMNS = 2
ANGLES = (0, 180, 90, 270, 35, -35, 145, -145)  # where a label may lie, best first
DISTANCES = (9, 16, 24, 34, 46, 60)  # in points
SOLID, LINE, FAR = 10, 1, 0.02  # what it costs to cover names and points, or lines; per point away


def draw(rows, titles, path):
    """Draw the mean over the seeds of each contender, with its standard deviation."""
    names = [corpus for corpus in titles if any(row["corpus"] == corpus for row in rows)]
    columns = min(COLUMNS, len(names))
    n_rows = -(-len(names) // columns)
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(
            n_rows,
            columns,
            figsize=(5.0 * columns, 3.3 * n_rows + 0.4),
            squeeze=False,
            layout="constrained",
        )
        panels = dict(zip(names, axes.flat, strict=False))
        means = {
            corpus: panel(ax, titles[corpus], [row for row in rows if row["corpus"] == corpus])
            for corpus, ax in panels.items()
        }
        for ax in axes.flat[len(names) :]:
            ax.set_axis_off()
        legend(figure, {name for mean in means.values() for name in mean})
        figure.draw_without_rendering()  # the labels need to know where the axes are
        for corpus, ax in panels.items():
            label_points(ax, means[corpus])
        path.parent.mkdir(parents=True, exist_ok=True)
        undated = {"Date": None} if path.suffix == ".svg" else None
        figure.savefig(path, metadata=undated, dpi=160, facecolor="white")
        plt.close(figure)


def family(name):
    """Return colour, marker and description of a contender."""
    return next(style for start, style in FAMILIES.items() if name.startswith(start))


def panel(ax, title, rows):
    """Draw the points of a corpus; return the mean seconds and score of each contender."""
    means = {}
    for name in dict.fromkeys(row["name"] for row in rows):
        mine = [row for row in rows if row["name"] == name]
        x = np.array([row["fit_seconds"] for row in mine])
        y = 100 * np.array([row["f1_macro"] for row in mine])
        colour, marker, _ = family(name)
        several = len(mine) > 1
        ax.errorbar(
            x.mean(),
            y.mean(),
            xerr=x.std(ddof=1) if several else None,
            yerr=y.std(ddof=1) if several else None,
            fmt=marker,
            color=colour,
            ecolor=colour + "77",
            elinewidth=1.3,
            markersize=7,
            markeredgecolor="white",
            markeredgewidth=0.8,
        )
        means[name] = (x.mean(), y.mean())
    ax.step(*frontier(means), where="post", color="#bbbbbb", linewidth=1.2, zorder=1.5)
    scales(ax, means)
    documents, classes = (max(row[key] for row in rows) for key in ("documents", "classes"))
    kind = "classes" if rows[0]["kind"] == "single" else "labels, several per document"
    about = f"{documents:,} training documents, {classes} {kind}"
    ax.set_title(title, loc="left", fontsize=11.5, fontweight="bold", color="#222222", pad=18)
    ax.text(0, 1.03, about, transform=ax.transAxes, fontsize=9, color="#666666")
    return means


def scales(ax, means):
    """Give the axes their scales, with room for the labels."""
    x, y = np.array(list(means.values())).T
    ax.set_xscale("log")
    decades = max(np.log10(x.max() / x.min()), 1)
    ax.set_xlim(x.min() / 10 ** (0.15 * decades), x.max() * 10 ** (0.38 * decades))
    low, high = ax.get_ylim()
    ax.set_ylim(low - 0.06 * (high - low), high + 0.06 * (high - low))
    ax.yaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))
    ax.xaxis.set_major_locator(FixedLocator(list(TICKS)))
    ax.xaxis.set_major_formatter(lambda seconds, _: TICKS.get(seconds, ""))
    ax.xaxis.set_minor_locator(NullLocator())
    ax.xaxis.set_minor_formatter(NullFormatter())
    ax.set(xlabel="training time", ylabel="macro-F1 in %")


def frontier(means):
    """Return the seconds and scores of the contenders that are better than all faster ones.

    The last point is the best of them once more, at the time of the slowest contender.
    """
    points = sorted(means.values())
    best = points[:1]
    for x, y in points:
        if y > best[-1][1]:
            best.append((x, y))
    return np.array([*best, (points[-1][0], best[-1][1])]).T


def legend(figure, names):
    """Say below the panels what the colours are."""
    present = {family(name) for name in names}
    handles = [
        Line2D([], [], color=colour, marker=marker, linestyle="", markersize=7, label=text)
        for colour, marker, text in dict.fromkeys(FAMILIES.values())
        if (colour, marker, text) in present
    ]
    handles.append(Line2D([], [], color="#bbbbbb", label="best score for the time"))
    figure.legend(
        handles=handles,
        loc="outside lower center",
        ncols=3,
        frameon=False,
        fontsize=9.5,
        labelcolor="#333333",
    )


# -- labels ------------------------------------------------------------------------------------


def label_points(ax, means):
    """Write each name next to its point, where it covers little else."""
    scale = ax.figure.dpi / 72
    centres = {name: ax.transData.transform(point) for name, point in means.items()}
    taken = [(around(centre, 5 * scale, 5 * scale), SOLID) for centre in centres.values()]
    corners = ax.transData.transform(np.column_stack(frontier(means)))
    taken += [(box, LINE) for box in steps(corners, scale)]
    inside = ax.get_window_extent().padded(-4 * scale)
    frame = (inside.x0, inside.y0, inside.x1, inside.y1)
    for name in sorted(means, key=lambda name: -means[name][1]):
        text = ax.annotate(
            name.removeprefix("skfocal, "),  # the colour says it
            means[name],
            xytext=(0, 0),
            textcoords="offset points",
            ha="center",
            va="center",
            fontsize=8.5,
            color=family(name)[0],
            fontweight="bold" if name.startswith("skfocal") else "normal",
            bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.75, "pad": 0.5},
        )
        extent = text.get_window_extent()
        half = np.array([extent.width, extent.height]) / 2
        places = list(offsets(half / scale))
        boxes = [around(centres[name] + np.array(place) * scale, *half) for place, _ in places]
        costs = [
            covered(box, taken, frame) + FAR * distance + 1e-3 * i
            for i, (box, (_, distance)) in enumerate(zip(boxes, places, strict=True))
        ]
        best = int(np.argmin(costs))
        taken.append((boxes[best], SOLID))
        text.set_position(places[best][0])
        if places[best][1] > DISTANCES[0]:
            leader(ax, means[name], places[best][0], half / scale, family(name)[0])


def steps(points, width):
    """Return the boxes of the lines between the points, each first to the right, then up."""
    corners = [(points[i + 1][0], points[i][1]) for i in range(len(points) - 1)]
    path = [*itertools.chain(*zip(points, corners, strict=False)), points[-1]]
    return [
        (min(a[0], b[0]) - width, min(a[1], b[1]) - width, max(a[0], b[0]), max(a[1], b[1]))
        for a, b in itertools.pairwise(path)
    ]


def offsets(half):
    """Yield where the centre of a label may be, in points from its point, and the distance."""
    for distance, angle in itertools.product(DISTANCES, np.radians(ANGLES)):
        direction = np.array([np.cos(angle), np.sin(angle)])
        yield tuple(direction * distance + np.sign(direction.round(6)) * half), distance


def around(centre, half_width, half_height):
    """Return the box around a centre: left, bottom, right, top."""
    (x, y) = centre
    return x - half_width, y - half_height, x + half_width, y + half_height


def covered(box, taken, frame):
    """Return the weighted share of a box that covers others, or lies outside the frame."""
    area = (box[2] - box[0]) * (box[3] - box[1])
    others = sum(weight * shared(box, other) for other, weight in taken)
    return (others + SOLID * (area - shared(box, frame))) / area


def shared(box, other):
    """Return the area that two boxes share."""
    width = min(box[2], other[2]) - max(box[0], other[0])
    height = min(box[3], other[3]) - max(box[1], other[1])
    return max(width, 0) * max(height, 0)


def leader(ax, point, place, half, colour):
    """Draw a thin line from a point to its label, which is not next to it."""
    end = np.clip((0, 0), np.array(place) - half, np.array(place) + half)
    ax.annotate(
        "",
        point,
        xytext=tuple(end),
        textcoords="offset points",
        arrowprops={"arrowstyle": "-", "color": colour, "alpha": 0.6, "linewidth": 0.8},
    )
