"""Everything public is in the reference, with every parameter; pages and pictures are whole."""

import importlib
import inspect
import pkgutil
import re
import sys
import typing
import xml.etree.ElementTree
from pathlib import Path

import pytest
from test_layers import LAYERS

import skfocal

DOCS = Path(__file__).parents[1] / "docs"
sys.path.insert(0, str(DOCS))
import draw_layers  # noqa: E402

LISTED = (DOCS / "api" / "index.rst").read_text()


def entries():
    """Yield the full names in the tables of the reference."""
    module = None
    for line in LISTED.splitlines():
        if match := re.match(r"\.\. currentmodule:: (\S+)", line):
            module = match[1]
        elif match := re.fullmatch(r"   (\w+)", line):
            yield f"{module}.{match[1]}"


def look_up(name):
    module, _, attribute = name.rpartition(".")
    return getattr(importlib.import_module(module), attribute)


REFERENCE = {name: look_up(name) for name in entries()}


def public_objects():
    """Yield names and objects of all public modules, and of ``skfocal.__all__``."""
    modules = [m.name for m in pkgutil.iter_modules(skfocal.__path__) if m.name[0] != "_"]
    for name in modules:
        module = importlib.import_module(f"skfocal.{name}")
        for attribute, value in vars(module).items():
            own = getattr(value, "__module__", "").startswith(f"skfocal.{name}")
            is_public = attribute in getattr(module, "__all__", [attribute])
            if attribute[0] == "_" or not is_public:
                continue
            if own and callable(value) and hasattr(value, "__name__"):
                yield f"{module.__name__}.{attribute}", value
    for name in set(skfocal.__all__) - {"__version__"}:
        yield f"skfocal.{name}", getattr(skfocal, name)


def documented():
    """Yield what the reference shows: functions, classes and their public methods."""
    for name, value in REFERENCE.items():
        yield name, value
        if inspect.isclass(value):
            for attribute, member in vars(value).items():
                member = getattr(member, "__func__", member)
                if attribute[0] != "_" and inspect.isfunction(member):
                    yield f"{name}.{attribute}", member


DOCUMENTED = dict(documented())


def fields_of(docstring):
    """Yield names and type of what a numpydoc docstring has as parameters (or attributes)."""
    text = inspect.cleandoc(docstring or "")
    section = r"^(?:Parameters|Attributes)\n-+\n(.*?)(?=^\w[\w ]*\n-+$|\Z)"
    for line in re.findall(r"^\S.*$", "\n".join(re.findall(section, text, re.M | re.S)), re.M):
        names, _, kind = line.partition(" : ")
        yield [name.strip(" *") for name in names.split(",")], kind


def parameters_of(docstring):
    """Return the names in the parameters (of dataclasses: attributes) of a numpydoc docstring."""
    return {name for names, _ in fields_of(docstring) for name in names}


def test_the_reference_is_read():
    assert len(REFERENCE) > 60 and len(DOCUMENTED) > 90


def test_every_public_name_is_in_the_reference():
    shown = [id(value) for value in REFERENCE.values()]
    missing = [name for name, value in public_objects() if id(value) not in shown]
    assert not missing
    assert [n for n in skfocal.losses.__all__ if not re.search(rf"\b{n}$", LISTED, re.M)] == []


def is_hook(name):
    """Say whether it is a hook of skorch's, whose arguments are always the same."""
    return ".callbacks." in name and ".on_" in name


@pytest.mark.parametrize("name", [name for name in DOCUMENTED if not is_hook(name)])
def test_every_parameter_is_documented(name):
    value = DOCUMENTED[name]
    if name.startswith("skfocal.cli."):
        hints = {k: hint for k, hint in value.__annotations__.items() if k != "return"}
        assert all(typing.get_args(hint)[1].help for hint in hints.values())
        return
    wanted = {p for p in inspect.signature(value).parameters if p not in ("self", "cls")}
    docstrings = [value.__doc__, *(base.__doc__ for base in ancestors(name, value))]
    assert any(wanted <= parameters_of(text) for text in docstrings), wanted


@pytest.mark.parametrize("name", DOCUMENTED)
def test_documented_defaults_are_those_of_the_signature(name):
    signature = inspect.signature(DOCUMENTED[name]).parameters
    for names, kind in fields_of(DOCUMENTED[name].__doc__):
        defaults = [signature[n].default for n in names if n in signature]
        wanted = [repr(value) for value in defaults if value is not inspect.Parameter.empty]
        written = [repr(value) for value in eval(f"[{kind.partition('default=')[2]}]")]
        assert written * (len(names) if len(written) == 1 else 1) == wanted, names


def ancestors(name, value):
    """Return what a class or a method overrides, whose docstring may have the parameters."""
    if inspect.isclass(value):
        return inspect.getmro(value)[1:]
    owner = REFERENCE.get(name.rpartition(".")[0])
    bases = inspect.getmro(owner)[1:] if inspect.isclass(owner) else ()
    return [getattr(base, value.__name__) for base in bases if hasattr(base, value.__name__)]


def toctrees():
    """Yield the documents that the tables of contents name."""
    for page in [*DOCS.rglob("*.md"), DOCS / "api" / "index.rst"]:
        for block in re.findall(r"^```\{toctree\}\n(.*?)^```", page.read_text(), re.M | re.S):
            for line in block.splitlines():
                if line and not line.startswith(":"):
                    target = re.sub(r".*<(.+)>", r"\1", line)
                    yield (page.parent / target).relative_to(DOCS).as_posix()


def test_every_page_is_in_a_table_of_contents_once():
    built = {"_build", "auto_examples", "generated"}
    pages = {p for p in DOCS.rglob("*.md") if not built & set(p.relative_to(DOCS).parts)}
    names = {page.relative_to(DOCS).with_suffix("").as_posix() for page in pages}
    named = list(toctrees())
    assert names - {"index"} == set(named) - {"auto_examples/index", "api/index"}
    assert len(named) == len(set(named))


def picture():
    """Return where arrows lead from each room of the picture of the layers, read off its lines."""
    drawn = xml.etree.ElementTree.fromstring(draw_layers.draw(LAYERS))
    space = "{http://www.w3.org/2000/svg}"
    tops, bottoms = {}, {}  # rooms by the point where arrows end, or start
    for group in drawn.iter(f"{space}g"):
        name, box = group.find(f"{space}text"), group.find(f"{space}rect")
        x, y, width, height = (float(box.get(key)) for key in ("x", "y", "width", "height"))
        tops[round(x + width / 2), y] = bottoms[round(x + width / 2), y + height] = name.text
    lines = {}
    for path in drawn.iter(f"{space}path"):
        if path.get("class") == "arrow":
            line = r"M(\S+) (\S+)C\S+ \S+ \S+ \S+ (\S+) ([\d.]+)v?(\d*)"
            numbers = re.fullmatch(line, path.get("d")).groups()
            x, top, end_x, bottom, further = (float(number or 0) for number in numbers)
            assert bottom > top, "an arrow runs up"
            lines.setdefault((round(x), top), []).append((round(end_x), bottom + further))

    def ends(point):
        for end in lines.get(point, []):
            yield from [tops[end]] if end in tops else ends(end)

    return {room: set(ends(point)) for point, room in bottoms.items()}


def test_the_picture_of_the_layers_is_that_of_the_table():
    arrows = picture()
    assert arrows.keys() == LAYERS.keys()
    below = {}
    for room, imported in LAYERS.items():
        assert arrows[room] <= set(imported)
        below[room] = arrows[room].union(*(below[other] for other in arrows[room]))
        assert below[room] >= set(imported)


def test_the_page_of_the_architecture_has_every_room():
    rows = re.findall(r"^\| (`.+?`) \|", (DOCS / "architecture.md").read_text(), re.M)
    assert sorted(re.findall(r"`(\w+)`", " ".join(rows))) == sorted(LAYERS)


def test_the_files_that_contributors_are_sent_to_exist():
    text = (DOCS.parent / "CONTRIBUTING.md").read_text().partition("## Where to change what")[2]
    files = re.findall(r"^\| .*$", text, re.M)
    names = re.findall(r"`([\w/]+\.(?:py|css))`", " ".join(files))
    assert len(names) > 20
    for name in names:
        root = DOCS.parent if name.startswith(("docs/", "tests/")) else DOCS.parent / "skfocal"
        assert (root / name).exists(), name
