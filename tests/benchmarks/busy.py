"""A busy machine: with threads that soon sleep while they wait, and with threads that spin.

    python tests/benchmarks/busy.py            # 20 minutes on two cores that do nothing else

Each fit is a process of its own: 200 documents of R8, MiniLM, 64 tokens, one epoch. "Spin" is what
torch does by default. Under a quota, a process may use one of the cores, but torch has counted all
of them, as in a container. The threads of other fits spin for some turns before they sleep. Then
processes with an OnnxClassifier answer texts for a few seconds. Writes docs/benchmarks/busy.jsonl
and .md.
"""

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time

import numpy as np

from common import DOCS, device_name, write_block
from serve import documents, export

RESULTS = DOCS / "busy.jsonl"
FIT = """
import os, sys, time, warnings
from skfocal import BertFocalClassifier, fetch_minilm, fetch_reuters  # before torch
from skfocal._runtime.threads import available_threads
import torch
warnings.simplefilter("ignore")
X, y = fetch_reuters("r8", subset="train", return_X_y=True)
clf = BertFocalClassifier(fetch_minilm(), max_epochs=1, max_length=64, random_state=0)
if sys.argv[1] == "quota":  # after torch has counted
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
start = time.perf_counter()
clf.fit(X[:200], y[:200])
seconds = time.perf_counter() - start
with available_threads():
    print(seconds, torch.get_num_threads())
"""
SERVE = """
import json, sys, time
import numpy as np
from skfocal import OnnxClassifier
folder, file, start = sys.argv[1:]
clf, times, idle = OnnxClassifier(folder), [], []
calls = json.load(open(file))
time.sleep(max(float(start) - time.time(), 0))  # all processes begin at once
end = time.perf_counter() + 4
while time.perf_counter() < end:
    for texts in calls:
        begin = time.perf_counter()
        clf.predict(texts)
        times.append(time.perf_counter() - begin)
for _ in range(3):
    clf.predict(calls[0])
    begin = time.process_time()
    time.sleep(1)
    idle.append(time.process_time() - begin)
print(json.dumps({"ms": 1000 * float(np.mean(times)), "idle": float(np.median(idle))}))
"""
BUSY = "while True: pass"
WAITS = {"sleep": {}, "spin": {"GOMP_SPINCOUNT": "300000"}}
TURNS = (0, 1000, 2000, 4000, 300000)  # of spinning before a thread sleeps
CASES = {
    "alone": "alone",
    "two": "two at once",
    "beside": "beside a busy process",
    "quota": "with the time of one core, as many threads as skfocal takes",
    "quota, all threads": "with the time of one core, a thread for each of the machine's",
}
SERVED = {"words": "a text of a dozen words", "documents": "eight documents"}
SERVED_WAITS = {"sleep": {}, "spin": {"OMP_WAIT_POLICY": "ACTIVE"}}
LOADING = 8  # seconds in which a process is ready to answer


def start(script, environment, *args):
    """Start a script."""
    said = ("OMP_", "GOMP_", "KMP_", "MKL_")  # of threads, by whoever runs this
    env = {name: value for name, value in os.environ.items() if not name.startswith(said)}
    command = [sys.executable, "-c", script, *map(str, args)]
    return subprocess.Popen(
        command, env={**env, **environment}, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )


def start_fit(environment, cores="all"):
    """Start a fit."""
    return start(FIT, environment, cores)


def taken(process):
    """Return the seconds of a fit and the number of its threads."""
    seconds, threads = process.communicate()[0].split()
    return {"seconds": float(seconds), "threads": int(threads)}


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


def measured(case, waits):
    """Return what the fits of a case took, with these variables of how threads wait."""
    if case == "alone":
        return [taken(start_fit(waits))]
    if case == "two":
        return [taken(fit) for fit in [start_fit(waits) for _ in range(2)]]
    if case == "beside":
        with busy():
            return [taken(start_fit(waits))]
    said = {} if case == "quota" else {"OMP_NUM_THREADS": str(len(os.sched_getaffinity(0)))}
    return [taken(start_fit({**waits, **said}, "quota"))]


def fits(repeats):
    """Yield a row per fit."""
    for _ in range(repeats):
        for case in CASES:
            for waits in WAITS:
                for values in measured(case, WAITS[waits]):
                    yield {"case": case, "waits": waits, **values}


def turns(repeats):
    """Yield a row per fit whose threads spin for a number of turns before they sleep."""
    for _ in range(repeats):
        for case in ("alone", "two"):
            for n in TURNS:
                for values in measured(case, {"GOMP_SPINCOUNT": str(n)}):
                    yield {"case": case, "turns": n, "took": values["seconds"]}


def answers(case, waits, folder, texts):
    """Return what each process of a case says of its answers."""
    with busy() if case == "beside" else contextlib.nullcontext():
        at = time.time() + LOADING
        both = [
            start(SERVE, SERVED_WAITS[waits], folder, texts, at)
            for _ in range(2 if case == "two" else 1)
        ]
        return [json.loads(process.communicate()[0]) for process in both]


def served(repeats):
    """Yield a row per process with an OnnxClassifier."""
    with tempfile.TemporaryDirectory() as work:
        folder = f"{work}/onnx"
        export(folder, 128)
        whole = documents(None, 80)
        calls = {
            "words": [[text] for text in documents(12, 80)],
            "documents": [whole[i : i + 8] for i in range(0, 80, 8)],
        }
        for name, found in calls.items():
            with open(f"{work}/{name}", "w") as file:
                json.dump(found, file)
        for _ in range(repeats):
            for case in ("alone", "two", "beside"):
                for name in SERVED:
                    for waits in SERVED_WAITS:
                        for found in answers(case, waits, folder, f"{work}/{name}"):
                            yield {"case": case, "texts": name, "waits": waits, **found}


def middle(values, digits):
    """Return the median and the range."""
    return f"{np.median(values):.{digits}f} ({min(values):.{digits}f} to {max(values):.{digits}f})"


def cells(values, digits):
    """Return the median and the range of each kind of waiting, and their ratio."""
    texts = [middle(v, digits) for v in values.values()]
    ratio = np.median(values["spin"]) / np.median(values["sleep"])
    return f"{' | '.join(texts)} | {ratio:.2f}"


def by_waits(rows, key, **which):
    """Return the values of the rows that are asked for, by how threads wait."""
    mine = [row for row in rows if key in row and which.items() <= row.items()]
    return {waits: [row[key] for row in mine if row["waits"] == waits] for waits in WAITS}


def write_page(rows):
    """Write the tables."""
    device = ", ".join(dict.fromkeys(row["device"] for row in rows))
    lines = [
        "200 documents of R8, MiniLM, 64 tokens, one epoch, without the import: medians, and the "
        f"range, on {device}.",
        "",
        "| a fit | threads | if they soon sleep, s | if they spin, s | ratio |",
        "|---|---:|---:|---:|---:|",
    ]
    for case, title in CASES.items():
        found = by_waits(rows, "seconds", case=case)
        if all(found.values()):
            n = {row["threads"] for row in rows if row["case"] == case and "threads" in row}
            lines.append(f"| {title} | {' or '.join(map(str, n))} | {cells(found, 1)} |")
    lines += [
        "",
        "| turns before a thread sleeps | a fit alone, s | two at once, s |",
        "|---:|---:|---:|",
    ]
    for n in TURNS:
        mine = [row for row in rows if row.get("turns") == n]
        found = [[row["took"] for row in mine if row["case"] == case] for case in ("alone", "two")]
        if all(found):
            lines.append(f"| {n:,} | {' | '.join(middle(values, 1) for values in found)} |")
    lines += [
        "",
        "Calls of an `OnnxClassifier`, of R8's test documents, cut at 128 tokens:",
        "",
        "| a call | threads that sleep, ms | threads that spin, ms | ratio |",
        "|---|---:|---:|---:|",
    ]
    for name, title in SERVED.items():
        for case in ("alone", "two", "beside"):
            found = by_waits(rows, "ms", case=case, texts=name)
            if all(found.values()):
                lines.append(f"| {title}, {CASES[case]} | {cells(found, 1)} |")
    found = by_waits(rows, "idle", case="alone")
    if all(found.values()):
        sleep, spin = (np.median(values) for values in found.values())
        lines += [
            "",
            f"In the second after a call, while nothing is asked, a process takes {sleep:.2f} s of "
            f"processor time if its threads sleep, and {spin:.2f} s if they spin.",
        ]
    write_block(DOCS / "busy.md", "A busy machine", "\n".join(lines))


def main():
    """Measure and write the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=[*PARTS])
    options = parser.parse_args()
    rows = [json.loads(line) for line in RESULTS.read_text().splitlines()]
    for part in options.parts:
        make, key = PARTS[part]
        rows = [row for row in rows if key not in row]
        for row in make(options.repeats):
            rows.append({**row, "device": device_name()})
            print(row, flush=True)
    RESULTS.write_text("".join(json.dumps(row) + "\n" for row in rows))
    write_page(rows)


PARTS = {"fits": (fits, "seconds"), "turns": (turns, "took"), "served": (served, "ms")}  # rows' key

if __name__ == "__main__":
    main()
