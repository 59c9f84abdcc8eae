"""Compare one process with two, in training and prediction of the same documents.

``python tests/benchmarks/parallel.py`` starts itself under torchrun, once for each setting in each
round. It adds the times to docs/benchmarks/parallel.jsonl and writes parallel.md. It needs two
cores on which nothing else runs.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist

from common import DOCS, device_name, write_block
from skfocal import BertFocalClassifier, fetch_minilm, fetch_reuters

SETTINGS = {  # processes, threads per process
    "1 process, 1 thread": (1, 1),
    "2 processes, 1 thread each": (2, 1),
    "1 process, 2 threads": (1, 2),
}
WHOLE_BATCH = 32
N_TRAIN, N_PREDICT, N_EPOCHS = 320, 400, 3


def work(file, n_processes):
    """Fit and predict; the first process writes the times."""
    warnings.simplefilter("ignore")
    X, y = fetch_reuters("r8", subset="train", return_X_y=True)
    clf = BertFocalClassifier(
        fetch_minilm(),
        pooling="head",
        batch_size=WHOLE_BATCH // n_processes,
        max_length=128,
        max_epochs=N_EPOCHS,
        random_state=0,
    )
    clf.fit(X[:N_TRAIN], y[:N_TRAIN])
    start = time.perf_counter()
    clf.predict_proba(X[N_TRAIN : N_TRAIN + N_PREDICT])
    predicted = time.perf_counter() - start
    exchange = exchange_seconds(clf.net_.module_) if n_processes > 1 else 0.0
    if int(os.environ.get("RANK", 0)) == 0:
        result = {
            "train": N_TRAIN / float(np.median(clf.history_[1:, "dur"])),
            "predict": N_PREDICT / predicted,
            "loss": clf.history_[-1, "train_loss"],
            "exchange": exchange,
            "updates": len(clf.history_[-1, "batches"]),
        }
        Path(file).write_text(json.dumps(result))


def exchange_seconds(module):
    """Return how long the processes take to add up gradients and do nothing else."""
    gradient = torch.ones(sum(p.numel() for p in module.parameters()))
    seconds = []
    for _ in range(5):
        dist.barrier()
        start = time.perf_counter()
        dist.all_reduce(gradient)
        seconds.append(time.perf_counter() - start)
    return float(np.median(seconds))


def measure(n_processes, n_threads):
    """Run the work in new processes."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "result.json")
        command = [sys.executable]
        if n_processes > 1:
            command += ["-m", "torch.distributed.run", f"--nproc-per-node={n_processes}"]
        command += [__file__, "--work", str(file), "--processes", str(n_processes)]
        environment = {**os.environ, "OMP_NUM_THREADS": str(n_threads)}
        subprocess.run(command, env=environment, check=True)
        return json.loads(file.read_text())


def table(rows):
    """Return the table, with medians over the runs and ratios of medians."""
    lines = [
        f"MiniLM, documents of Reuters R8 cut to 128 tokens, {WHOLE_BATCH} in a whole batch; "
        f"{device_name()}. Medians of documents/s, with the lowest and the highest in brackets; "
        "then the ratio of the median to that of one process with one thread.",
        "",
        "| | runs | training | ratio | prediction | ratio |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    of = {name: [row for row in rows if row["setting"] == name] for name in SETTINGS}
    base = {
        key: np.median([row[key] for row in of["1 process, 1 thread"]])
        for key in ("train", "predict")
    }
    for name, results in of.items():
        cells = [name, str(len(results))]
        for key in ("train", "predict"):
            found = [row[key] for row in results]
            cells.append(f"{np.median(found):.1f} ({min(found):.1f} – {max(found):.1f})")
            cells.append(f"{np.median(found) / base[key]:.2f}")
        lines.append("| " + " | ".join(cells) + " |")
    two = of["2 processes, 1 thread each"]
    exchange = np.median([row["exchange"] for row in two])
    step = WHOLE_BATCH / np.median([row["train"] for row in two])
    lines += [
        "",
        f"Two processes take {exchange * 1000:.0f} ms to add up their gradients over the loopback "
        "interface, if they do nothing else at the time. An update of two processes takes "
        f"{step * 1000:.0f} ms. The losses of the last epoch differ by at most "
        f"{max(_spread(rows)):.0e} between the settings.",
    ]
    return "\n".join(lines)


def _spread(rows):
    """Yield the range of the losses among runs with the same number of updates."""
    for n in {row["updates"] for row in rows}:
        losses = [row["loss"] for row in rows if row["updates"] == n]
        yield max(losses) - min(losses)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--work")
    parser.add_argument("--processes", type=int, default=1)
    options = parser.parse_args()
    if options.work:
        torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
        work(options.work, options.processes)
    else:
        results = DOCS / "parallel.jsonl"
        for _ in range(options.rounds):
            for name, setting in SETTINGS.items():
                row = {"setting": name, **measure(*setting)}
                print(row, flush=True)
                with results.open("a") as file:
                    file.write(json.dumps(row) + "\n")
        rows = [json.loads(line) for line in results.read_text().splitlines()]
        write_block(DOCS / "parallel.md", "From one process to two", table(rows))
