"""The gallery: every example is whole, uses what is public, and runs from the user's shell."""

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import skfocal

ROOT = Path(__file__).parents[1]
EXAMPLES = sorted(
    [*ROOT.glob("examples/plot_*.py"), ROOT / "examples" / "quickstart.py"], key=lambda p: p.stem
)
# Scripts that are no pages of the gallery: their tests are in a file of their own.
APART = {"serve.py": "test_serve_example.py"}
SCRIPTS = [*EXAMPLES, *(ROOT / "examples" / name for name in APART)]
HEADER = ROOT / "examples" / "GALLERY_HEADER.rst"

# What an example prints: numbers differ from machine to machine, words do not.
PRINTS = {
    "plot_compare_classifiers": [
        r"^accuracy +0\.\d+ +0\.\d+ +[+-]0\.\d+  ",
        r"^McNemar's exact test: p = ",
        r"^only MiniLM is right: \d+$",
    ],
    "plot_compare_losses": [r"\| cross-entropy ", r"\| TF-IDF ", r"f1_macro - cross-entropy"],
    "plot_decisions": [
        r"^argmax +0\.\d+ +0\.\d+ +0\.\d+$",
        r"^tuned +0\.\d+ +0\.\d+ +0\.\d+$",
        r"^threshold 0\.\d+$",
        r"^tuned +missed \d+ of \d+, false alarms \d+",
    ],
    "plot_explain_a_decision": [
        r"^row 2, trade: log-odds \+\d",
        r"^ +\+\d\.\d+  \++ +crude$",
        r"^without the named words, log-odds fall by [1-9]",
    ],
    "plot_features": [
        r"^fine-tuned, beside a number +0\.\d+ +0\.\d+$",
        r"^  0\.\d+  \S+: .+",
    ],
    "plot_grid_search_gamma_alpha": [
        r"'alpha': 'balanced', 'gamma': 5\} +macro-F1 0\.\d+",
        r"'weights_read': 1\b",
        r"'documents_frozen': 400\b",
    ],
    "plot_imblearn_pipeline": [
        r"^RandomOverSampler +macro-F1 0\.\d+",
        r"^gamma=2, RandomOverSampler",
    ],
    "plot_long_documents": [
        r"^tokens: \d+ in the median, \d+% over 64",
        r"^truncate +macro-F1 0\.\d+, 2\d\d of 290 ",
        r"^windows +macro-F1 0\.\d+, \d\d of 290 ",
    ],
    "plot_look_at_your_data": [
        r"^1,500 documents of 4\d classes, and 500 test documents$",
        r"^interest \| money-fx: ",
        r"^largest group of duplicates: \d+ documents",
        r"^StratifiedGroupKFold\(",
    ],
    "plot_multilabel": [
        r"^focal, weighted +0\.\d+ +0\.\d+ +0\.\d+ +\d",
        r"^true \[.*\], predicted",
    ],
    "plot_optuna_search": [
        r"^search +macro-F1 0\.\d+ +\{'gamma': ",
        r"^[1-9]\d* of 12 trials ended early$",
    ],
    "plot_probabilities": [
        r"^focal, softmax +0\.\d+ +\d\.\d+ +0\.\d+ +0\.\d+$",
        r"^natural +0\.\d+.* \d\.\d+$",
    ],
    "plot_save_and_serve": [
        r"^the same bits: True$",
        r"^the same labels: True$",
        r"^largest difference of a probability: \d\.\de-0[4-9]$",
    ],
    "plot_stacking": [r"^both, stacked +0\.\d+ +0\.\d+ +\d\.\d+$", r"^comp\.\S+ +words +-?\d"],
    "plot_where_classes_meet": [
        r"^accuracy 0\.\d+$",
        r"^\S+ and \S+: \d+ documents? confused \(",
        r"^  words of \S+: \w+",
        r"^  typical of \S+: row \d+: .+",
        r"^shown: \d+ % of the variance$",
    ],
    "quickstart": [r"^accuracy +0\.\d+ +0\.\d+$", r"^F1 of each class saved to "],
}


def tree_of(path):
    return ast.parse(path.read_text())


@pytest.fixture(params=EXAMPLES, ids=lambda path: path.stem)
def example(request):
    return request.param


@pytest.fixture(params=SCRIPTS, ids=lambda path: path.stem)
def script(request):
    return request.param


def test_there_are_at_least_eight():
    assert len(EXAMPLES) >= 8


def test_example_has_a_title_and_says_what_it_shows(script):
    title, line, *prose = ast.get_docstring(tree_of(script)).splitlines()
    assert line == "=" * len(title)
    assert len(" ".join(prose)) > 100
    assert f"examples/{script.name}" in " ".join(prose)


def test_example_is_in_the_guide(example):
    link = f":ref:`{example.name} <sphx_glr_auto_examples_{example.name}>`"
    assert link in HEADER.read_text()


@pytest.mark.parametrize("name", APART)
def test_script_that_is_no_page_is_in_the_guide_and_has_tests(name):
    (page,) = re.findall(rf":doc:`{name} </(\w+)>`", HEADER.read_text())
    assert f"examples/{name}" in (ROOT / "docs" / f"{page}.md").read_text()
    assert name in (ROOT / "tests" / APART[name]).read_text()


def test_guide_names_no_example_that_is_missing():
    named = re.findall(r":ref:`(\w+\.py) <", HEADER.read_text())
    assert sorted(named) == sorted(path.name for path in EXAMPLES)


def imports_of(tree):
    """Return ``(module, name)`` of everything that is imported from the package."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module.split(".")[0] == "skfocal":
            yield from ((node.module, alias.name) for alias in node.names)
        if isinstance(node, ast.Import):
            yield from ((a.name, "") for a in node.names if a.name.split(".")[0] == "skfocal")


def test_example_uses_only_what_is_public(script):
    tree = tree_of(script)
    imported = list(imports_of(tree))
    assert imported
    for module, name in imported:
        if module == "skfocal":
            assert name in skfocal.__all__
        assert not any(part.startswith("_") for part in [*module.split("."), name])
    private = [
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and re.match(r"_(?!_)", node.attr)
    ]
    assert private == []


def test_example_goes_into_a_notebook(example):
    """A notebook has arguments of its own, no __file__, and no docstring of the script."""
    names = {node.attr for node in ast.walk(tree_of(example)) if isinstance(node, ast.Attribute)}
    names |= {node.id for node in ast.walk(tree_of(example)) if isinstance(node, ast.Name)}
    assert "parse_args" not in names and not names & {"__file__", "__doc__"}


def run(path, *options, cwd):
    """Run an example as a user's shell does; return what it printed."""
    done = subprocess.run(
        [sys.executable, str(path), *options],
        capture_output=True,
        text=True,
        check=False,
        cwd=cwd,
        env={**os.environ, "MPLBACKEND": "Agg"},
    )
    assert done.returncode == 0, done.stderr
    # Only the quickstart lets the classifier say what its --max-length has cut.
    warned = [line for line in done.stderr.splitlines() if "Warning: " in line]
    assert [line for line in warned if "lose their end" not in line] == []
    assert not warned or path.stem == "quickstart"
    return done.stdout


def share_of_ink(path):
    """Return the share of the picture's points that are not as its corner, and its size."""
    from matplotlib.image import imread

    picture = imread(path)[..., :3]
    return (picture != picture[0, 0]).any(axis=-1).mean(), picture.shape


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_example_runs_and_draws(example, tmp_path):
    figure = tmp_path / "figure.png"
    printed = run(example, "--figure", str(figure), cwd=tmp_path)
    for pattern in PRINTS[example.stem]:
        assert re.search(pattern, printed, flags=re.MULTILINE), (pattern, printed)
    ink, (height, width, _) = share_of_ink(figure)
    assert 0.02 < ink < 0.95
    assert height > 300 and width > 500
    assert [path.name for path in tmp_path.iterdir()] == ["figure.png"]
