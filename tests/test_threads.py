"""There are as many threads as the process has processors, unless the user says otherwise."""

import os
import subprocess
import sys

import joblib
import pytest

from skfocal import BertFocalClassifier, OnnxClassifier
from skfocal._runtime.processors import available_processors

SAID = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OMP_WAIT_POLICY", "LOKY_MAX_CPU_COUNT")
SCRIPT = """
import sys
import torch
torch.set_num_threads(7)  # as if the machine had as many processors
from skfocal import BertFocalClassifier
from skfocal._runtime import threads
threads.available_processors = lambda: int(sys.argv[2])
from skorch.callbacks import Callback
{after}
seen = []
class Threads(Callback):
    def on_batch_begin(self, net, **kwargs):
        seen.append(torch.get_num_threads())
clf = BertFocalClassifier(sys.argv[1], max_epochs=1, callbacks=[Threads()])
n = torch.get_num_threads()
clf.fit(["win money", "team lunch"] * 4, [1, 0] * 4)
compute = clf.net_.evaluation_step
clf.net_.evaluation_step = lambda *a, **k: seen.append(torch.get_num_threads()) or compute(*a, **k)
clf.predict(["win money"] * 2)
print(n, *sorted(set(seen)), torch.get_num_threads())
"""


@pytest.mark.parametrize(
    "after, allowed, environment, expected",
    [
        ("", 3, {}, [7, 3, 7]),
        ("", 9, {}, [7, 7, 7]),
        ("", 3, {"OMP_NUM_THREADS": "5"}, [7, 7, 7]),
        ("", 3, {"OMP_NUM_THREADS": "", "MKL_NUM_THREADS": ""}, [7, 3, 7]),
        ("", 3, {"MKL_NUM_THREADS": "5"}, [7, 7, 7]),
        ("torch.set_num_threads(6)", 3, {}, [6, 6, 6]),
    ],
)
def test_threads_of_fit_and_predict(few_words, after, allowed, environment, expected):
    script = SCRIPT.format(after=after)
    assert numbers_of(script, few_words, allowed, **environment) == expected


def numbers_of(script, *args, **environment):
    """Return the numbers that a script prints, in a process where the user has said nothing."""
    env = {name: value for name, value in os.environ.items() if name not in SAID}
    run = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", script, *map(str, args)],
        env=env | environment,
        capture_output=True,
        text=True,
        check=True,
    )
    return [int(n) for n in run.stdout.split()]


@pytest.mark.parametrize(
    "files, expected",
    [
        ({"cpu.max": "150000 100000\n"}, 2),
        ({"cpu.max": "50000 100000\n"}, 1),
        ({"cpu.max": "max 100000\n"}, 9),
        ({"cpu/cpu.cfs_quota_us": "300000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 3),
        ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, 9),
        ({}, 9),
    ],
)
def test_a_quota_counts_in_whole_processors(tmp_path, monkeypatch, files, expected):
    monkeypatch.delenv("LOKY_MAX_CPU_COUNT", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 9)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(9)), raising=False)
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(content)
    assert available_processors(tmp_path) == expected


@pytest.mark.parametrize("limit", [None, "1", "0", "99"])
def test_the_count_is_that_of_joblib(monkeypatch, limit):
    monkeypatch.delenv("LOKY_MAX_CPU_COUNT", raising=False)
    if limit:
        monkeypatch.setenv("LOKY_MAX_CPU_COUNT", limit)
    for n in (2, 1):
        monkeypatch.setattr(os, "sched_getaffinity", lambda pid, n=n: set(range(n)), raising=False)
        assert available_processors() == joblib.cpu_count()


def test_a_limit_of_processors_may_be_empty_but_not_a_word(onnx_folder, tmp_path, monkeypatch):
    for name in ("LOKY_MAX_CPU_COUNT", "OMP_NUM_THREADS"):
        monkeypatch.delenv(name, raising=False)
    without = available_processors()
    monkeypatch.setenv("LOKY_MAX_CPU_COUNT", "")
    assert available_processors() == without
    monkeypatch.setenv("LOKY_MAX_CPU_COUNT", "two")
    for call in (
        available_processors,
        lambda: OnnxClassifier(onnx_folder),
        lambda: BertFocalClassifier.from_pretrained(tmp_path),  # before it looks for the files
    ):
        with pytest.raises(ValueError, match="^LOKY_MAX_CPU_COUNT is 'two'; set it to a whole num"):
            call()


SERVED = """
import os, sys
os.cpu_count = lambda: 7
os.sched_getaffinity = lambda pid: range(int(sys.argv[2]))
from skfocal import OnnxClassifier
clf = OnnxClassifier(sys.argv[1], n_threads=eval(sys.argv[3]))
n = len(os.listdir("/proc/self/task"))
del clf
print(1 + n - len(os.listdir("/proc/self/task")))
"""


@pytest.mark.skipif(not os.path.isdir("/proc/self/task"), reason="counts threads as Linux shows")
@pytest.mark.parametrize(
    "allowed, n_threads, environment, expected",
    [
        (3, None, {}, 3),
        (1, None, {}, 1),
        (3, None, {"OMP_NUM_THREADS": "5"}, 5),
        (3, None, {"OMP_NUM_THREADS": "4,2"}, 4),
        (3, None, {"OMP_NUM_THREADS": "many"}, 3),
        (3, 6, {"OMP_NUM_THREADS": "5"}, 6),
    ],
)
def test_threads_of_an_exported_classifier(onnx_folder, allowed, n_threads, environment, expected):
    assert numbers_of(SERVED, onnx_folder, allowed, n_threads, **environment) == [expected]


def test_onnxruntime_counts_where_nothing_is_restricted(onnx_folder, monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 1)  # as many as are available, or fewer
    clf = OnnxClassifier(onnx_folder)
    assert clf._session.get_session_options().intra_op_num_threads == 0


@pytest.mark.parametrize("policy, spins", [(None, "0"), ("PASSIVE", "0"), ("active", "1")])
def test_threads_of_an_exported_classifier_sleep(onnx_folder, monkeypatch, policy, spins):
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    if policy:
        monkeypatch.setenv("OMP_WAIT_POLICY", policy)
    options = OnnxClassifier(onnx_folder)._session.get_session_options()
    assert options.get_session_config_entry("session.intra_op.allow_spinning") == spins


@pytest.mark.parametrize("n_threads", [0, -1, 1.5, "2"])
def test_threads_that_cannot_be_are_refused(onnx_folder, n_threads):
    with pytest.raises(ValueError, match="n_threads must be a positive integer or None. Got"):
        OnnxClassifier(onnx_folder, n_threads=n_threads)
