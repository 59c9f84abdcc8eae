"""Functions fit on a screen, the estimator reads as the recipe, and values do not change."""

import ast
import dataclasses
import functools
from pathlib import Path

import pytest

import skfocal
from skfocal._estimator.fit import Fit, Prepared, Training
from skfocal._estimator.fitted_model import FittedModel
from skfocal._estimator.inputs import TrainingData
from skfocal._estimator.plan import Plan

FOLDER = Path(skfocal.__file__).parent
# A constructor names each parameter twice, as scikit-learn wants it.
LONG = {"classifier.py: __init__"}


@functools.cache
def without_prose(source):
    """Return the numbers of the lines that are not blank, comment or docstring."""
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    prose = {
        line
        for part in ast.walk(ast.parse(source))
        if isinstance(part, documented) and ast.get_docstring(part, clean=False) is not None
        for line in range(part.body[0].lineno, part.body[0].end_lineno + 1)
    }
    numbered = enumerate(source.splitlines(), 1)
    return {i for i, line in numbered if line.strip() and line.strip()[0] != "#"} - prose


def code_lines(source, node=None):
    """Return the number of lines of code of a file or of a function."""
    lines = without_prose(source)
    return len(lines) if node is None else sum(node.lineno <= i <= node.end_lineno for i in lines)


def test_lines_of_code_are_counted_without_prose():
    source = '"""Module."""\n\n# why\ndef f():\n    """Return."""\n    # because\n    return 1\n'
    assert code_lines(source) == 2
    assert code_lines(source, ast.parse(source).body[1]) == 2


def test_no_function_is_longer_than_a_screen():
    long = set()
    for path in FOLDER.rglob("*.py"):
        source = path.read_text()
        for node in ast.walk(ast.parse(source)):
            is_function = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
            may_be_long = is_function and node.end_lineno - node.lineno >= 60
            if may_be_long and code_lines(source, node) > 60:
                long.add(f"{path.relative_to(FOLDER)}: {node.name}")
    assert long == LONG


def test_the_estimator_is_short():
    assert code_lines((FOLDER / "classifier.py").read_text()) <= 400


@pytest.mark.parametrize("kind", [TrainingData, Plan, FittedModel, Fit, Training, Prepared])
def test_values_are_frozen_and_typed(kind):
    value = object.__new__(kind)
    for field in dataclasses.fields(kind):
        assert field.name in kind.__annotations__
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(value, field.name, None)
