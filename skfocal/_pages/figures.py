"""Figures of a page: matplotlib's SVG, inline, in the colours of the page."""

import io
import re
import warnings
from collections.abc import Callable, Iterable
from typing import Any

from skfocal._pages.elements import LONGEST_NAME, cut, text
from skfocal._utils.hashing import digest

INK = "#010203"  # becomes the colour of the surrounding text, light or dark
BLUE, ORANGE = "#0072b2", "#e69f00"
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
        ("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color"), INK
    ),
}


def names(labels: Iterable[Any]) -> list[str]:
    """Return short and distinct names for a figure, without mark-up."""
    found: dict[str, None] = {}
    for label in labels:
        name = "".join(c if c.isprintable() else " " for c in str(label))
        name = cut(name, LONGEST_NAME).replace("$", r"\$") or "(empty)"
        if name.startswith("_"):  # which matplotlib hides from a legend
            name = f"\u200b{name}"
        i = 2
        while name in found:
            name = f"{name.rsplit(' #', 1)[0]} #{i}"
            i += 1
        found[name] = None
    return list(found)


SIDE, WIDE = (4.4, 3.3), (9.5, 4)  # inches


def draw(plot: Callable[..., object], alt: str, size: tuple[float, float] = SIDE) -> str:
    """Return the figure that ``plot(ax=...)`` draws, as SVG in the colours of the page.

    Parameters
    ----------
    plot : callable ``(ax=...)``
    alt : str
        What the figure shows, with its main numbers, for those who cannot see it.
    size : tuple of float
        Width and height in inches.
    """
    import matplotlib.style
    from matplotlib.figure import Figure

    with matplotlib.style.context(["default", _STYLE]), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # glyphs missing in its font: the browser has other fonts
        figure = Figure(figsize=size, layout="constrained")
        plot(ax=figure.subplots())
        file = io.StringIO()
        # The salt gives shared shapes the same names in every run.
        with matplotlib.rc_context({"svg.hashsalt": digest(alt).hex()}):
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
        f'{box} role="img" aria-label="{text(alt)}" style="{style}">'
    )
    return start + svg[svg.index(">") + 1 :].strip()
