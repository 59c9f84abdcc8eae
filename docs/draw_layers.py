"""Draw the picture of the layers from the table of who may import whom.

    python docs/draw_layers.py

The build of the site calls it; the picture is not committed. Each room stands on the lowest floor
that lies above all that it imports, so that every arrow leads down. An arrow that follows from
others is left out. Between floors, arrows to the same room are joined.
"""

from itertools import combinations, pairwise
from pathlib import Path
from statistics import fmean

from layers import LAYERS
from sklearn.isotonic import isotonic_regression

HEIGHT, FLOOR, GAP, MARGIN = 30, 70, 14, 10  # pixels: of a room, of a floor, between, around


def floors_of(layers):
    """Return the floor of each room: the length of the longest way down from it."""
    floors = {}
    for room, imported in layers.items():
        floors[room] = 1 + max((floors[other] for other in imported), default=-1)
    return floors


def arrows_of(layers):
    """Return the arrows, without those that others imply."""
    below = {}
    for room, imported in layers.items():
        below[room] = set(imported).union(*(below[other] for other in imported))
    return [
        (room, other)
        for room, imported in layers.items()
        for other in imported
        if not any(other in below[between] for between in imported)
    ]


def lines_of(layers):
    """Return the nodes on each floor, and the lines from a floor to the next one.

    A node is a room, or ``(room, floor)`` where an arrow to the room passes through a floor.
    """
    floors = floors_of(layers)
    rows = [[room for room in layers if floors[room] == i] for i in range(max(floors.values()) + 1)]
    lines = [set() for _ in rows]  # those that start on each floor
    for start, end in arrows_of(layers):
        passed = [(end, i) for i in range(floors[start] - 1, floors[end], -1)]
        for i, line in enumerate(pairwise([start, *passed, end])):
            lines[floors[start] - i].add(line)
        for node in passed:
            if node not in rows[node[1]]:
                rows[node[1]].append(node)
    return rows, lines


def crossings(rows, lines):
    """Return how often lines cross."""
    place = {node: i for row in rows for i, node in enumerate(row)}
    return sum(
        (place[a] - place[c]) * (place[b] - place[d]) < 0
        for between in lines
        for (a, b), (c, d) in combinations(between, 2)
    )


def untangle(rows, lines):
    """Swap neighbours for as long as that takes crossings away."""
    best, found = crossings(rows, lines), True
    while found:
        found = False
        for row in rows:
            for i, j in combinations(range(len(row)), 2):
                row.insert(j, row.pop(i))
                now = crossings(rows, lines)
                if now < best:
                    best, found = now, True
                else:
                    row.insert(i, row.pop(j))


def width_of(node):
    """Return the width of a room, by its name, or of a line that passes."""
    return 8 * len(node) + 20 if isinstance(node, str) else 2


def columns_of(rows, lines):
    """Return the middle of each node: as near to those that it is joined to as the row allows."""
    joined = {node: [] for row in rows for node in row}
    for a, b in set().union(*lines):
        joined[a].append(b)
        joined[b].append(a)
    for row in rows:
        for node in row:  # what nothing is joined to stands beside the others of its floor
            joined[node] = joined[node] or [other for other in row if other != node]
    steps = {}  # from the middle of a row's first node
    for row in rows:
        steps[row[0]] = 0
        for a, b in pairwise(row):
            steps[b] = steps[a] + (width_of(a) + width_of(b)) / 2 + GAP
    x = {node: steps[node] - steps[row[-1]] / 2 for row in rows for node in row}
    for _ in range(30):
        for row in [*rows, *reversed(rows)]:
            wanted = [fmean(x[other] for other in joined[a]) - steps[a] for a in row]
            weights = [1 if isinstance(a, str) else 5 for a in row]  # lines that pass are straight
            offsets = isotonic_regression(wanted, sample_weight=weights)
            for node, offset in zip(row, offsets, strict=True):
                x[node] = float(offset) + steps[node]
    left = min(x[node] - width_of(node) / 2 for node in x)
    return {node: x[node] - left + MARGIN for node in x}


def draw(layers):
    """Return the picture as SVG, whose colours the style sheet of the site chooses."""
    rows, lines = lines_of(layers)
    untangle(rows, lines)
    x = columns_of(rows, lines)
    y = {node: MARGIN + FLOOR * (len(rows) - 1 - i) for i, row in enumerate(rows) for node in row}
    width = max(x[node] + width_of(node) / 2 for node in x) + MARGIN
    height = FLOOR * (len(rows) - 1) + HEIGHT + 2 * MARGIN
    parts = [
        f'<svg class="layers" viewBox="0 0 {width:.0f} {height}" role="img" '
        'aria-labelledby="layers-title" xmlns="http://www.w3.org/2000/svg">',
        '<title id="layers-title">The rooms of skfocal. Arrows lead from each room down to those '
        "that it imports.</title>",
        '<marker id="layers-tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" '
        'markerHeight="7" orient="auto"><path d="M0 0 8 4 0 8z"/></marker>',
    ]
    for a, b in sorted(set().union(*lines), key=str):
        top, bottom = y[a] + HEIGHT, y[b]
        middle = (top + bottom) / 2
        path = f"M{x[a]:.1f} {top}C{x[a]:.1f} {middle:.1f} {x[b]:.1f} {middle:.1f} {x[b]:.1f} "
        end = 'marker-end="url(#layers-tip)"' if isinstance(b, str) else ""
        through = "" if isinstance(b, str) else f"v{HEIGHT}"
        parts.append(f'<path class="arrow" d="{path}{bottom}{through}" {end}/>')
    for room, imported in layers.items():
        kind = "private" if room.startswith("_") else "public"
        parts.append(
            f'<g class="{kind}"><title>{room} imports {", ".join(imported) or "no other"}</title>'
            f'<rect x="{x[room] - width_of(room) / 2:.1f}" y="{y[room]}" '
            f'width="{width_of(room)}" height="{HEIGHT}" rx="6"/>'
            f'<text x="{x[room]:.1f}" y="{y[room] + HEIGHT / 2 + 5:.0f}">{room}</text></g>'
        )
    return "\n".join([*parts, "</svg>", ""])


def main(file):
    """Write the picture."""
    Path(file).write_text(draw(LAYERS), encoding="utf-8")


if __name__ == "__main__":
    main(Path(__file__).parent / "layers.svg")
