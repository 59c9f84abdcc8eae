"""torch's threads sleep while they wait, unless the user has said something else."""

import os
import pickle
import subprocess
import sys
from pathlib import Path

import joblib
import pytest

import skfocal

NAMES = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")
SAID = (*NAMES, "OMP_NUM_THREADS", "MKL_NUM_THREADS")
BY_DEFAULT = "300000"  # turns that a thread of libgomp spins
FEW = "1000"
SHOW = f"\nimport os; print([name for name in {NAMES!r} if name in os.environ])"


def spins(code, *args, **environment):
    """Return how long the threads of each copy of libgomp spin, and what the program printed."""
    env = {name: value for name, value in os.environ.items() if name not in SAID}
    run = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code + SHOW, *args],
        env={**env, "OMP_DISPLAY_ENV": "VERBOSE", **environment},
        capture_output=True,
        text=True,
        check=True,
    )
    lines = [line for line in run.stderr.splitlines() if "GOMP_SPINCOUNT" in line]
    return [line.split("'")[1] for line in lines], run.stdout.strip()


@pytest.mark.parametrize(
    "first",
    [
        "from skfocal import BertFocalClassifier",
        "import skfocal.classifier",
        "import skfocal.data_audit._neighbours",
    ],
)
def test_threads_sleep_here_and_in_the_processes_that_this_one_starts(first):
    alone, _ = spins("import torch")
    if BY_DEFAULT not in alone:
        pytest.skip("another OpenMP library, or other defaults")
    found, left = spins(first)
    assert FEW in found and found.count(BY_DEFAULT) < len(found)
    assert left == "['OMP_WAIT_POLICY', 'GOMP_SPINCOUNT']"


@pytest.mark.parametrize(
    "first, environment, sleeps",
    [
        ("import torch; from skfocal import BertFocalClassifier", {}, False),
        ("from skfocal import BertFocalClassifier", {"GOMP_SPINCOUNT": BY_DEFAULT}, False),
        ("from skfocal import BertFocalClassifier", {"OMP_WAIT_POLICY": "PASSIVE"}, True),
    ],
)
def test_what_was_there_before_stays(first, environment, sleeps):
    found, left = spins(first, **environment)
    if not found:
        pytest.skip("another OpenMP library")
    assert ("0" in found) == sleeps and FEW not in found
    assert left == str([*environment])


# Ends the process that imports it, and says what OpenMP would have been told.
TORCH = """
import os
print("torch:", os.environ.get("OMP_WAIT_POLICY"), flush=True)
os._exit(0)
"""


def told_to_torch(tmp_path, *command):
    """Return what a command prints up to the first import of torch, which ends it."""
    (tmp_path / "torch.py").write_text(TORCH)
    path = os.pathsep.join([str(tmp_path), *filter(None, [os.getenv("PYTHONPATH")])])
    env = {name: value for name, value in os.environ.items() if name not in NAMES}
    run = subprocess.run(
        [sys.executable, *map(str, command)],
        env={**env, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=True,
    )
    return run.stdout.splitlines()


ONE_OF_EACH = {home: name for name, home in skfocal._HOME.items()}
NEED_TORCH = {"_runtime.process_group", "caches", "classifier", "losses", "options", "sharing"}


@pytest.mark.parametrize(
    "first",
    [
        "import skfocal, torch",
        *(f"from skfocal import {ONE_OF_EACH[home]}" for home in sorted(NEED_TORCH)),
        *(f"import skfocal.{name}" for name in ("losses", "callbacks", "options", "persistence")),
    ],
)
def test_whatever_is_imported_first_loads_torch_with_threads_that_sleep(tmp_path, first):
    assert told_to_torch(tmp_path, "-c", first) == ["torch: PASSIVE"]


def test_pickles_load_torch_with_threads_that_sleep(tmp_path):
    (tmp_path / "clf.pkl").write_bytes(pickle.dumps(skfocal.BertFocalClassifier("a model")))
    code = "import pickle, sys; pickle.load(open(sys.argv[1], 'rb'))"
    assert told_to_torch(tmp_path, "-c", code, tmp_path / "clf.pkl") == ["torch: PASSIVE"]


def test_all_others_load_no_torch(tmp_path):
    others = ", ".join(name for home, name in ONE_OF_EACH.items() if home not in NEED_TORCH)
    code = f"from skfocal import {others}; print('no torch')"
    assert told_to_torch(tmp_path, "-c", code) == ["no torch"]


@pytest.mark.parametrize(
    "arguments",
    [
        ["audit", "data.csv"],
        ["fit", "data.csv", "--output", "new"],
        ["predict", "model", "data.csv"],
        ["evaluate", "model", "data.csv"],
        ["report", "model", "data.csv", "--output", "page.html"],
        ["compare", "model", "model", "data.csv"],
    ],
    ids=lambda arguments: arguments[0],
)
def test_the_command_loads_torch_with_threads_that_sleep(tmp_path, monkeypatch, arguments):
    pytest.importorskip("typer")
    monkeypatch.chdir(tmp_path)
    texts = [f"text {i},{label}" for i in range(12) for label in "ab"]
    (tmp_path / "data.csv").write_text("\n".join(["text,label", *texts]))
    (tmp_path / "model").mkdir()
    assert told_to_torch(tmp_path, "-m", "skfocal", *arguments)[-1] == "torch: PASSIVE"


def test_the_server_needs_no_torch(tmp_path, onnx_folder):
    pytest.importorskip("fastapi")
    pytest.importorskip("uvicorn")
    examples = Path(__file__).parents[1] / "examples"
    code = f"""
import os, sys
os.environ["SERVE_FOLDER"] = {str(onnx_folder)!r}
sys.path.insert(0, {str(examples)!r})
import serve
print(serve.make_app().title)
"""
    assert told_to_torch(tmp_path, "-c", code) == ["skfocal"]


SEARCH = """
import os, sys
from skfocal import BertFocalClassifier
from sklearn.model_selection import cross_validate

def threads(clf, X, y):
    import os, torch
    return {"threads": torch.get_num_threads(), "process": os.getpid()}

clf = BertFocalClassifier(sys.argv[1], max_epochs=1)
X, y = ["win money", "team lunch"] * 8, [1, 0] * 8
found = cross_validate(clf, X, y, cv=2, n_jobs=2, scoring=threads, error_score="raise")
print(os.getpid() not in found["test_process"], *found["test_threads"])
"""


def test_workers_of_a_search_sleep_and_share_the_threads(few_words):
    alone, _ = spins("import torch")
    if BY_DEFAULT not in alone:
        pytest.skip("another OpenMP library, or other defaults")
    found, printed = spins(SEARCH, few_words)
    assert set(found) == {FEW} and len(found) >= 3  # in this process and two workers
    n = max(joblib.cpu_count() // 2, 1)
    assert printed == f"True {n} {n}\n['OMP_WAIT_POLICY', 'GOMP_SPINCOUNT']"
