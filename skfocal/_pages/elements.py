"""Elements of a page: escaped text, tables and figures, no script and nothing from outside."""

import importlib.resources
import math
import string
from collections.abc import Callable, Iterable, Mapping
from html import escape
from pathlib import PurePath
from typing import Any, Literal, TypeAlias

from skfocal._utils.messages import excerpt
from skfocal._utils.settings import Settings

Kind: TypeAlias = Literal["words", "share", "bar", "signed", "interval", "number"]

LONGEST_NAME = 28  # characters of a label in a figure
_LONG_TABLE = 12  # rows; longer tables can be folded

_HERE = importlib.resources.files("skfocal._pages")
_CSS = (_HERE / "page.css").read_text(encoding="utf-8")
_PAGE = string.Template((_HERE / "page.html").read_text(encoding="utf-8"))


def page(body: str, title: str) -> str:
    """Return an HTML document around a fragment; its policy forbids scripts and the network."""
    return _PAGE.substitute(title=text(title), body=body)


def fragment(*contents: str) -> str:
    """Return contents as one element, with its own styles, for a page or a notebook."""
    # The CSS classes keep a notebook's MathJax from reading $ in documents as formulas.
    return (
        f'<div class="skfocal-page tex2jax_ignore mathjax_ignore"><style>\n{_CSS}</style>'
        f"{''.join(contents)}</div>"
    )


def header(title: str, facts: str, scores: Mapping[str, str]) -> str:
    """Return the top of a page: its title, a line of facts and some numbers in large type."""
    cards = [
        f"<div><dt>{text(name)}</dt><dd>{text(score)}</dd></div>" for name, score in scores.items()
    ]
    return (
        f"<header><h1>{text(title)}</h1><p>{text(facts)}</p></header>"
        f'<dl class="scores">{"".join(cards)}</dl>'
    )


def part(title: str, content: str, is_open: bool = True) -> str:
    """Return a part of a page that can be folded, or nothing if it has no content."""
    if not content:
        return ""
    summary = f"<summary><h2>{title}</h2></summary>"
    return f'<details class="part"{" open" * is_open}>{summary}{content}</details>'


# -- texts and numbers -----------------------------------------------------------------------


def text(value: object) -> str:
    """Return text for HTML, without control characters or lone surrogates."""
    return escape("".join(c if c.isprintable() or c in " \n\t" else " " for c in str(value)))


def label(value: object) -> str:
    """Return a label, whatever the direction of its script."""
    return f"<bdi>{text(cut(value, 80))}</bdi>"


def cut(value: object, most: int) -> str:
    """Return the beginning of a text, with single spaces."""
    words = " ".join(str(value).split())
    return words if len(words) <= most else words[:most].rstrip() + "…"


def number(value: float) -> str:
    """Return a number with three digits, and a dash for NaN."""
    return "–" if math.isnan(value) else f"{value:.3f}"


def signed(value: float) -> str:
    """Return a difference with its sign, and a dash for NaN."""
    if math.isnan(value):
        return "–"
    return f"{value:+.3f}".replace("-", "\N{MINUS SIGN}") if round(value, 3) else "0.000"


def interval(low: float, high: float) -> str:
    """Return the ends of an interval of a difference, and a dash for NaN."""
    return "–" if math.isnan(low) else f"{signed(low)} to {signed(high)}"


def small(value: float) -> str:
    """Return a probability; of a small one, the first digit and the exponent."""
    return f"{value:.3f}" if value >= 0.001 or value == 0 else f"{value:.0e}"


# -- tables ----------------------------------------------------------------------------------


def table(
    columns: Mapping[str, Iterable[Any]], heads: Mapping[str, str], kinds: Mapping[str, Kind]
) -> str:
    """Return a table.

    Parameters
    ----------
    columns : dict of name to values
    heads : dict of name to text
        The columns to show, in order, and what stands above them.
    kinds : dict of name to {"words", "share", "bar", "signed", "interval", "number"}
        "words": set as text, whatever its type. "share": in per cent. "bar": a number in [0, 1]
        with a bar behind it. "signed": a difference, with its sign. "interval": a pair of such.
        "number", which is the default: as it is.
    """
    head = "".join(
        f'<th scope="col"{" class=words" * (kinds.get(name) == "words")}>{text(above)}</th>'
        for name, above in heads.items()
    )
    lines = []
    for values in zip(*(columns[name] for name in heads), strict=True):
        cells = [
            _cell(kinds.get(name, "number"), value)
            for name, value in zip(heads, values, strict=True)
        ]
        lines.append(f"<tr>{''.join(cells)}</tr>")
    return (
        f'<div class="scroll"><table><thead><tr>{head}</tr></thead>'
        f"<tbody>{''.join(lines)}</tbody></table></div>"
    )


def _cell(kind: Kind, value: Any) -> str:
    if kind == "words":
        style = "words long" if len(str(value)) > LONGEST_NAME else "words"
        return f'<td class="{style}">{label(value)}</td>'
    if kind == "interval":
        return f"<td>{interval(*value)}</td>"
    value = value.item() if hasattr(value, "item") else value  # numpy's numbers
    if value is None or math.isnan(value):
        return "<td>–</td>"
    if kind == "share":
        return f"<td>{100 * value:.3g} %</td>"
    if kind == "signed":
        return f"<td>{signed(value)}</td>"
    if kind == "bar":
        return f'<td class="bar" style="--v:{100 * value:.1f}%">{value:.3f}</td>'
    return f"<td>{value:.3f}</td>" if isinstance(value, float) else f"<td>{value}</td>"


def folded(table: str, n_rows: int, title: str) -> str:
    """Return a table that can be folded if it is long."""
    if n_rows <= _LONG_TABLE:
        return table
    return f"<details open><summary>{title}</summary>{table}</details>"


def pairs(values: Mapping[str, Any], show: Callable[[Any], str] | None = None) -> str:
    """Return a table of names and values, by default excerpts of them."""
    rows = [
        f'<tr><th scope="row" class="words"><code>{text(name)}</code></th>'
        f'<td class="words long"><code>{text((show or excerpt_of_value)(value))}</code></td></tr>'
        for name, value in values.items()
    ]
    return f'<div class="scroll"><table><tbody>{"".join(rows)}</tbody></table></div>'


def excerpt_of_value(value: Any) -> str:
    """Return an excerpt of a parameter; of a path only its name, as pages are passed on.

    Parameters
    ----------
    value : object

    Returns
    -------
    str
    """
    if isinstance(value, Settings):
        parts = value.get_params(deep=False).items()
        value = type(value)(**{name: _without_folders(part) for name, part in parts})
    return excerpt(_without_folders(value), 200)


def _without_folders(value: Any) -> Any:
    path = PurePath(value) if isinstance(value, str | PurePath) else PurePath()
    outside = path.is_absolute() or path.parts[:1] in (("..",), ("~",))
    return f"…/{path.name}" if outside else value


# -- documents -------------------------------------------------------------------------------


def document(facts: Mapping[str, str], content: str, *, right: bool | None = False) -> str:
    """Return a document as an item of a list, under a line of facts, all of it HTML.

    Parameters
    ----------
    facts : dict of name to HTML
    content : HTML
        The text.
    right : bool or None, default=False
        Whether it is marked in the colour of what is right; None for no colour.
    """
    spans = "".join(f"<span>{name} <b>{fact}</b></span>" for name, fact in facts.items())
    kind = {True: " class=right", False: "", None: " class=plain"}[right]
    return (
        f'<li{kind}><div class="facts">{spans}</div>'
        f'<div class="text" dir="auto">{content}</div></li>'
    )


def excerpt_of(document: object, most: int = 400) -> str:
    """Return the beginning of a document as HTML."""
    return text(cut(document, most)) or "(empty)"


# -- figures ---------------------------------------------------------------------------------


def grid(*contents: str) -> str:
    """Return figures side by side where there is room."""
    return f'<div class="figures">{"".join(contents)}</div>'


def figure(title: str, caption: str, svg: str, wide: bool = False) -> str:
    """Return a figure with its title above and its caption below."""
    kind = ' class="wide"' if wide else ""
    return (
        f'<figure{kind}><h3>{title}</h3><div class="scroll">{svg}</div>'
        f"<figcaption>{caption}</figcaption></figure>"
    )
