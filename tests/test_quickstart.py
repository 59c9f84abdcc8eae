"""README's first command, on a small part: real weights, real text, from download to figure."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "examples" / "quickstart.py"


@pytest.mark.slow
def test_quickstart_prints_both_and_saves_a_figure(tmp_path):
    options = ["--part", "90", "--epochs", "1", "--max-length", "24"]
    figure = tmp_path / "f1.png"
    done = subprocess.run(
        [sys.executable, str(SCRIPT), *options, "--figure", str(figure)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    out = done.stdout
    assert "90 training documents of 8 classes" in out
    assert out.count("epoch 1/1  loss ") == 2
    assert out.count("avg / total") == 2
    for metric in ("accuracy", "macro-F1", "balanced accuracy", "log-loss"):
        both = re.search(rf"^{metric} +([\d.]+) +([\d.]+)$", out, flags=re.MULTILINE)
        assert both and both[1] != both[2]
    assert f"saved to {figure}" in out
    assert figure.read_bytes().startswith(b"\x89PNG") and figure.stat().st_size > 10_000
