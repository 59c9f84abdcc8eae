"""What users call is what they called before."""

import difflib
import runpy
from pathlib import Path

import pytest

GOLDEN = Path(__file__).parent / "golden"


def test_public_signatures_are_those_recorded():
    pytest.importorskip("typer")  # of skfocal.cli
    recorded = (GOLDEN / "signatures.txt").read_text().splitlines()
    found = runpy.run_path(str(GOLDEN / "signatures.py"))["lines"]()
    changes = list(difflib.unified_diff(recorded, found, "recorded", "found", n=0, lineterm=""))
    if changes:
        pytest.fail(
            "Public signatures have changed. If that is meant, tell users in CHANGELOG.md and run\n"
            "    python tests/golden/signatures.py > tests/golden/signatures.txt\n\n"
            + "\n".join(changes),
            pytrace=False,
        )
