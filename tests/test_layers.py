"""Rooms import only what the table of layers names; what a newcomer imports is light."""

import ast
import os
import pkgutil
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

import skfocal

LAYERS = runpy.run_path(str(Path(__file__).parents[1] / "docs" / "layers.py"))["LAYERS"]
FOLDER = Path(skfocal.__file__).parent
PUBLIC = {name for name in LAYERS if not name.startswith("_")}

# Each of these is imported by a process that must end without torch: what reads an exported
# graph, and the losses' neighbours that need numpy alone.
TORCH_FREE = [
    "skfocal",
    "skfocal._version",
    "skfocal._utils.arrays",
    "skfocal._utils.files",
    "skfocal._utils.hashing",
    "skfocal._utils.messages",
    "skfocal._utils.optional",
    "skfocal._runtime.allocator",
    "skfocal._runtime.array_store",
    "skfocal._runtime.process_settings",
    "skfocal._runtime.processors",
    "skfocal._runtime.shared_payload",
    "skfocal._runtime.signals",
    "skfocal._runtime.warnings",
    "skfocal._runtime.workers",
    "skfocal._data.document_streams",
    "skfocal._storage.format_head",
    "skfocal._data.labels",
    "skfocal._data.texts",
    "skfocal._data.tokenization",
    "skfocal.balance",
    "skfocal.cli",
    "skfocal.comparison",
    "skfocal.data_audit",
    "skfocal.datasets",
    "skfocal.displays",
    "skfocal.metrics",
    "skfocal.report",
    "skfocal.serving",
]


def modules():
    """Yield the package of each module, and its file."""
    for path in FOLDER.rglob("*.py"):
        parts = path.relative_to(FOLDER).with_suffix("").parts
        if parts != ("__init__",):
            yield parts[0], path


def imports_of(path):
    """Yield the packages and modules of skfocal that a file imports, its functions included."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.name} has a relative import"
            names = [node.module]
            if node.module == "skfocal":
                names = [f"skfocal.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        else:
            continue
        for name in names:
            if name == "skfocal" or name.startswith("skfocal."):
                yield name.split(".")[1] if "." in name else "__init__"


def printed_by(code, *args):
    command = [sys.executable, "-c", code, *args]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_the_table_has_every_room_and_no_arrow_that_runs_back_up():
    assert {package for package, _ in modules()} == set(LAYERS)
    rooms = list(LAYERS)
    for room, imported in LAYERS.items():
        assert all(rooms.index(other) < rooms.index(room) for other in imported), room


def test_each_room_imports_just_what_the_table_names():
    found = {room: set() for room in LAYERS}
    for room, path in modules():
        found[room] |= set(imports_of(path)) - {room}
    assert found == {room: set(imported) for room, imported in LAYERS.items()}


def test_packages_of_what_is_private_are_empty():
    for room in LAYERS:
        init = FOLDER / room / "__init__.py"
        if room.startswith("_") and init.exists():
            assert init.read_text() == "", f"{room}/__init__.py would import for everybody"


def test_only_what_is_public_stands_at_the_root():
    private = [name for name, path in modules() if path.parent == FOLDER and name[0] == "_"]
    assert sorted(private) == ["__main__", "_version"]


# The packages that need no torch are imported once, and each module in a fork of that process.
IN_FORKS = """
import importlib, os, sys
import numpy, pandas, scipy, sklearn.metrics, sklearn.model_selection

def heavy():
    return [m for m in ("torch", "transformers", "skorch") if m in sys.modules]

def of_skfocal():
    return [m for m in sys.modules if m.partition(".")[0] == "skfocal"]

assert not heavy() and not of_skfocal()
for module in sys.argv[1:]:
    if os.fork() == 0:
        try:
            importlib.import_module(module)
            print(module, *heavy(), flush=True)
        except BaseException as error:
            print(module, repr(error), flush=True)
        os._exit(0)
    os.wait()
"""


@pytest.fixture(scope="module")
def imported_by_each():
    """What each of the modules has imported of torch, transformers and skorch."""
    lines = printed_by(IN_FORKS, *TORCH_FREE).splitlines()
    return dict(line.split(" ", 1) if " " in line else (line, "") for line in lines)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize("module", TORCH_FREE)
def test_a_bare_process_needs_no_torch(imported_by_each, module):
    assert imported_by_each[module] == ""


def test_import_needs_neither_torch_nor_transformers():
    code = (
        "import sys, skfocal; dir(skfocal); skfocal.__version__; "
        "print([m for m in ('torch', 'transformers', 'sklearn') if m in sys.modules])"
    )
    assert printed_by(code) == "[]"


def test_losses_need_no_transformers():
    code = (
        "import sys; from skfocal.losses import focal_loss; "
        "print([m for m in ('transformers', 'sklearn', 'skorch') if m in sys.modules])"
    )
    assert printed_by(code) == "[]"


def test_every_public_name_is_there():
    assert set(skfocal.__all__) == {*skfocal._HOME, "__version__"}
    for name in skfocal.__all__:
        assert getattr(skfocal, name) is not None
    with pytest.raises(AttributeError, match="no_such_name"):
        skfocal.no_such_name  # noqa: B018


def test_public_modules_are_those_of_the_table():
    found = {module.name for module in pkgutil.iter_modules(skfocal.__path__)}
    assert {name for name in found if not name.startswith("_")} == PUBLIC
