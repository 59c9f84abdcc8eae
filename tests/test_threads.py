"""torch computes with as many threads as the process has processors, unless the user says."""

import os
import subprocess
import sys

import pytest

SCRIPT = """
import sys
import joblib, torch
torch.set_num_threads(7)  # as if the machine had as many processors
joblib.cpu_count = lambda: int(sys.argv[2])
from skfocal import BertFocalClassifier
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
        ("torch.set_num_threads(6)", 3, {}, [6, 6, 6]),
    ],
)
def test_threads_of_fit_and_predict(few_words, after, allowed, environment, expected):
    env = {k: v for k, v in os.environ.items() if k not in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")}
    run = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", SCRIPT.format(after=after), few_words, str(allowed)],
        env=env | environment | {"OMP_WAIT_POLICY": "PASSIVE"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert [int(n) for n in run.stdout.split()] == expected
