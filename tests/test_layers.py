"""Modules import only from lower levels; what a newcomer imports is light."""

import ast
import subprocess
import sys
from pathlib import Path

import skfocal

LEVELS = {
    "__init__": 6,
    "classifier": 5,
    "_net": 4,
    "callbacks": 2,
    "_frozen": 3,
    "caches": 4,
    "_module": 2,
    "_adapters": 3,
    "_devices": 1,
    "_text": 0.3,
    "_chunks": 0.5,
    "_encoding": 0.5,
    "_parallel": 0.5,
    "_distributed": 2.5,
    "_tokens": 1,
    "_batches": 1,
    "_pooling": 1,
    "_pretrained": 1,
    "_store": 0,
    "_parcels": 0.5,
    "sharing": 5.5,
    "_excerpt": 0,
    "_settings": 0.2,
    "options": 1.1,
    "_parameters": 1.2,
    "_renamed": 0,
    "_first_token": 0,
    "_memory": 0,
    "_plain": 0,
    "_tables": 0,
    "cli": 7,
    "__main__": 8,
    "_tokenizer": 0,
    "_files": 0,
    "_encoder_checks": 3,
    "_estimator_checks": 3,
    "_model_card": 3,
    "persistence": 4,
    "_onnx": 4,
    "serving": 2,
    "batching": 2,
    "_parts": 0,
    "_signals": 0,
    "_updates": 1,
    "_checkpoint": 1.3,
    "_training_state": 3,
    "_dropout": 0,
    "_reduced": 3,
    "losses": 1,
    "losses._state": 0.95,
    "losses._make": 0.9,
    "losses._multi": 0.8,
    "losses._single": 0.8,
    "losses._functional": 0.7,
    "losses._base": 0.6,
    "losses._margin": 0.6,
    "metrics": 1,
    "displays": 2,
    "comparison": 2,
    "_report_page": 3,
    "report": 4,
    "balance": 1,
    "calibration": 2,
    "_guards": 0.3,
    "_targets": 2,
    "datasets": 1,
}
FOLDER = Path(skfocal.__file__).parent


def imports_of(path):
    for node in ast.walk(ast.parse(path.read_text())):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module]
            if node.module == "skfocal":
                names = [f"skfocal.{alias.name}" for alias in node.names]
        for name in names:
            if name.startswith("skfocal."):
                name = name.removeprefix("skfocal.")
                yield name if name in LEVELS else name.split(".")[0]


def printed_by(code):
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_every_module_has_a_level_and_imports_from_lower_ones():
    modules = {}
    for path in FOLDER.rglob("*.py"):
        parts = path.relative_to(FOLDER).with_suffix("").parts
        modules[".".join(parts[:-1] if len(parts) > 1 and parts[-1] == "__init__" else parts)] = (
            path
        )
    assert set(modules) == set(LEVELS)
    for name, path in modules.items():
        for other in imports_of(path):
            assert LEVELS[other] < LEVELS[name], f"{name} imports {other}"


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
    try:
        skfocal.no_such_name  # noqa: B018
    except AttributeError as error:
        assert "no_such_name" in str(error)
    else:
        raise AssertionError("an unknown name must raise AttributeError")
