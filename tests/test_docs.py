"""The code blocks of the documentation run as they are written."""

import re
from pathlib import Path

import numpy as np
import pytest

import skfocal

DOCS = Path(__file__).parents[1] / "docs"


def blocks_of(page):
    return re.findall(r"^```python\n(.*?)^```", (DOCS / page).read_text(), re.M | re.S)


@pytest.fixture
def four_classes():
    words = {"crop": "wheat corn", "earn": "profit dividend", "ship": "port vessel", "tea": "leaf"}
    counts = {"crop": 8, "earn": 20, "ship": 6, "tea": 4}
    X = [f"{words[c]} the of {i}" for c in words for i in range(counts[c])]
    return X, np.repeat(list(counts), list(counts.values()))


def test_answers_to_the_three_questions_run(four_classes, tiny, monkeypatch):
    monkeypatch.setattr(skfocal, "fetch_minilm", lambda: tiny, raising=False)
    X, y = four_classes
    scope = {"X": X, "y": y}
    blocks = blocks_of("questions.md")
    assert len(blocks) == 11
    for block in blocks:
        exec(compile(block, "questions.md", "exec"), scope)
    assert scope["natural"].shape == (len(X), 4)


def test_links_between_the_pages_lead_somewhere():
    root = DOCS.parent
    pages = [*DOCS.rglob("*.md"), root / "README.md", root / "CONTRIBUTING.md"]
    for page in pages:
        for target in re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"
