"""Fits on a busy machine: with threads that sleep while they wait, and with threads that spin.

    python tests/benchmarks/busy.py            # ten minutes on two cores that do nothing else

Each fit is a process of its own: 200 documents of R8, MiniLM, 64 tokens, one epoch. "Spin" is what
torch does by default. Under a quota, a process may use one of the cores, but is told that it has
all of them, as in a container. Writes docs/benchmarks/busy.jsonl and .md.
"""

import argparse
import contextlib
import json
import os
import subprocess
import sys
import time

import numpy as np

from common import DOCS, device_name, write_block

RESULTS = DOCS / "busy.jsonl"
FIT = """
import time, warnings
from skfocal import BertFocalClassifier, fetch_minilm, fetch_reuters
warnings.simplefilter("ignore")
X, y = fetch_reuters("r8", subset="train", return_X_y=True)
clf = BertFocalClassifier(fetch_minilm(), max_epochs=1, max_length=64, random_state=0)
start = time.perf_counter()
clf.fit(X[:200], y[:200])
print(time.perf_counter() - start)
"""
BUSY = "while True: pass"
WAITS = {"sleep": {}, "spin": {"GOMP_SPINCOUNT": "300000"}}
CASES = {
    "alone": "alone",
    "two": "two at once",
    "beside": "beside a busy process",
    "quota": "with the time of one core, threads as joblib counts",
    "quota, all threads": "with the time of one core, a thread for each of the machine's",
}


def start_fit(environment):
    """Start a fit."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("OMP_")}
    command = [sys.executable, "-c", FIT]
    return subprocess.Popen(
        command, env={**env, **environment}, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )


def seconds(process):
    """Return what a fit took."""
    return float(process.communicate()[0])


@contextlib.contextmanager
def busy():
    """Let a process be busy."""
    process = subprocess.Popen([sys.executable, "-c", BUSY])
    try:
        time.sleep(0.5)
        yield
    finally:
        process.kill()
        process.wait()


@contextlib.contextmanager
def one_core():
    """Give this process, and those that it starts, one of its cores."""
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(cores)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, cores)


def measured(case, waits):
    """Return the seconds of the fits of a case."""
    if case == "alone":
        return [seconds(start_fit(WAITS[waits]))]
    if case == "two":
        return [seconds(fit) for fit in [start_fit(WAITS[waits]) for _ in range(2)]]
    if case == "beside":
        with busy():
            return [seconds(start_fit(WAITS[waits]))]
    n = 1 if case == "quota" else len(os.sched_getaffinity(0))
    with one_core():
        return [seconds(start_fit({**WAITS[waits], "OMP_NUM_THREADS": str(n)}))]


def write_page(rows):
    """Write the table."""
    lines = [
        "| a fit | threads that sleep, s | threads that spin, s | ratio |",
        "|---|---:|---:|---:|",
    ]
    for case, title in CASES.items():
        found = {
            waits: [row["seconds"] for row in rows if (row["case"], row["waits"]) == (case, waits)]
            for waits in WAITS
        }
        if all(found.values()):
            cells = [f"{np.median(v):.1f} ({min(v):.1f} to {max(v):.1f})" for v in found.values()]
            ratio = np.median(found["spin"]) / np.median(found["sleep"])
            lines.append(f"| {title} | {' | '.join(cells)} | {ratio:.2f} |")
    device = ", ".join(dict.fromkeys(row["device"] for row in rows))
    about = (
        "200 documents of R8, MiniLM, 64 tokens, one epoch, without the import: medians, and the "
        f"range, on {device}.\n\n"
    )
    write_block(DOCS / "busy.md", "Fits on a busy machine", about + "\n".join(lines))


def main():
    """Measure and write the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    rows = []
    for _ in range(options.repeats):
        for case in CASES:
            for waits in WAITS:
                for value in measured(case, waits):
                    rows.append(
                        {"case": case, "waits": waits, "seconds": value, "device": device_name()}
                    )
                print(case, waits, f"{value:.1f}", flush=True)
    RESULTS.write_text("".join(json.dumps(row) + "\n" for row in rows))
    write_page(rows)


if __name__ == "__main__":
    main()
