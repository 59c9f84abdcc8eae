"""The code blocks of the documentation run as they are written."""

import re
from pathlib import Path

import numpy as np
import pytest

import skfocal

DOCS = Path(__file__).parents[1] / "docs"


ROOT = DOCS.parent


def blocks_of(path):
    return re.findall(r"^```python\n(.*?)^```", path.read_text(), re.M | re.S)


def run(path, scope):
    for block in blocks_of(path):
        exec(compile(block, path.name, "exec"), scope)
    return scope


@pytest.fixture
def four_classes(tiny, monkeypatch):
    """Texts and labels for the blocks, and a tiny encoder in MiniLM's place."""
    monkeypatch.setattr(skfocal, "fetch_minilm", lambda: tiny, raising=False)
    words = {"crop": "wheat corn", "earn": "profit dividend", "ship": "port vessel", "tea": "leaf"}
    counts = {"crop": 8, "earn": 20, "ship": 6, "tea": 5}
    X = [f"{words[c]} the of {i}" for c in words for i in range(counts[c])]
    return X, np.repeat(list(counts), list(counts.values()))


def test_answers_to_the_three_questions_run(four_classes):
    X, y = four_classes
    assert len(blocks_of(DOCS / "questions.md")) == 12
    scope = run(DOCS / "questions.md", {"X": X, "y": y})
    assert scope["natural"].shape == (len(X), 4)


@pytest.mark.parametrize("page", ["multilabel.md", "pipelines.md", "reliability.md", "report.md"])
def test_blocks_of_the_guide_run(page, four_classes, capsys, tmp_path, monkeypatch):
    X, y = four_classes
    monkeypatch.chdir(tmp_path)
    scope = run(DOCS / page, {"X": X, "y": y})
    assert hasattr(scope["clf"], "fit")


def test_blocks_on_saving_run(four_classes, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    X, y = four_classes
    assert len(blocks_of(DOCS / "persistence.md")) == 4
    scope = run(DOCS / "persistence.md", {"X": X, "y": y})
    labels = [row["label"] for row in scope["classify"](X, truncation=True)]
    assert labels == scope["served"].predict(X).tolist() == scope["clf"].predict(X).tolist()


def test_blocks_of_the_readme_run(four_classes, monkeypatch, capsys):
    pytest.importorskip("matplotlib").use("Agg")
    X, y = four_classes
    monkeypatch.setattr(skfocal, "fetch_reuters", lambda *args, **kwargs: (X, y), raising=False)
    scope = run(ROOT / "README.md", {})
    assert scope["search"].best_score_ > 0 and scope["loss"].isfinite()


def anchors_of(path):
    headings = re.findall(r"^#+ (.*)$", path.read_text(), re.M)
    plain = [re.sub(r"[^\w\- ]", "", heading.lower()) for heading in headings]
    return {heading.strip().replace(" ", "-") for heading in plain}


def test_links_between_the_pages_lead_somewhere():
    pages = [*DOCS.rglob("*.md"), ROOT / "README.md", ROOT / "CONTRIBUTING.md"]
    n_anchors = 0
    for page in pages:
        for link in re.findall(r"\]\((?!https?:)([^)]+)\)", page.read_text()):
            name, _, anchor = link.partition("#")
            target = page.parent / name if name else page
            assert target.exists(), f"{page.name} links to {link}"
            if anchor:
                n_anchors += 1
                assert anchor in anchors_of(target), f"{page.name} links to {link}"
    assert n_anchors > 3


def rows_of(path, columns):
    """Return the cells of the rows of all tables in a page, as text without emphasis."""
    for line in path.read_text().splitlines():
        cells = [cell.strip(" *`") for cell in line.strip("|").split("|")]
        if line.startswith("|") and len(cells) == columns:
            yield cells


def test_decisions_quoted_in_the_guide_are_those_measured():
    measured = {}
    for name, decision, *rest in rows_of(DOCS / "benchmarks" / "decisions-r52.md", 7):
        measured[name, decision] = rest[3].split(" ±")[0]
    quoted = [row for row in rows_of(DOCS / "which-loss.md", 4) if row[1][:1].isdigit()]
    assert len(quoted) == 4
    for name, *values in quoted:
        assert values == [measured[name, d] for d in ("argmax", "prior", "tuned")], name


def test_quality_quoted_in_the_readme_is_that_measured():
    measured = {row[0]: row for row in rows_of(DOCS / "benchmarks" / "quality-r52-short.md", 9)}
    values = {tuple(row[2:4]) + (row[5],) for row in measured.values()}
    values |= {tuple(cell.removesuffix(" ± 0.0") for cell in row) for row in values}
    quoted = [row for row in rows_of(ROOT / "README.md", 4) if row[1][:1].isdigit()]
    assert len(quoted) == 8
    for name, *cells in quoted:
        assert tuple(cells) in values, name


def test_speed_quoted_in_the_readme_is_that_measured():
    measured = {row[0]: row for row in rows_of(DOCS / "benchmarks" / "speed.md", 7)}
    quoted = [row for row in rows_of(ROOT / "README.md", 3) if row[-1][:1].isdigit()]
    assert len(quoted) == 7
    for name, training, prediction in quoted:
        assert [training, prediction] == [measured[name][i].split(" (")[0] for i in (2, 4)], name
