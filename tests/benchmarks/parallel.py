"""One process, then two: training and prediction of the same documents, side by side.

``python tests/benchmarks/parallel.py`` starts itself under torchrun, round by round, each round all
settings, and writes docs/benchmarks/parallel.md. It wants two cores of its own.
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

SETTINGS = {  # processes, threads of each
    "1 process, 1 thread": (1, 1),
    "2 processes, 1 thread each": (2, 1),
    "1 process, 2 threads": (1, 2),
}
WHOLE_BATCH = 32
N_TRAIN, N_PREDICT, N_EPOCHS = 320, 400, 3


def work(file, n_processes):
    """Fit and predict; the first process writes what it took."""
    warnings.simplefilter("ignore")
    X, y = fetch_reuters("r8", subset="train", return_X_y=True)
    clf = BertFocalClassifier(
        fetch_minilm(),
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
    """Return how long the processes take to add up gradients with nothing beside it."""
    gradient = torch.ones(sum(p.numel() for p in module.parameters()))
    seconds = []
    for _ in range(5):
        dist.barrier()
        start = time.perf_counter()
        dist.all_reduce(gradient)
        seconds.append(time.perf_counter() - start)
    return float(np.median(seconds))


def measure(n_processes, n_threads):
    """Run the work in processes of their own."""
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
    """Return the table, medians over the rounds and ratios of medians."""
    lines = [
        f"MiniLM, {N_TRAIN} documents of Reuters R8 cut to 128 tokens, {WHOLE_BATCH} in a whole "
        f"batch; {device_name()}. Medians of {len(next(iter(rows.values())))} rounds, in brackets "
        "the ratio to one process with one thread.",
        "",
        "| | training, documents/s | prediction, documents/s | loss of the last epoch |",
        "|---|---:|---:|---:|",
    ]
    median = {
        name: {key: float(np.median([row[key] for row in results])) for key in results[0]}
        for name, results in rows.items()
    }
    base = next(iter(median.values()))
    for name, one in median.items():
        train, predict = one["train"] / base["train"], one["predict"] / base["predict"]
        lines.append(
            f"| {name} | {one['train']:.1f} ({train:.2f}) | {one['predict']:.1f} ({predict:.2f}) "
            f"| {one['loss']:.6f} |"
        )
    two = median["2 processes, 1 thread each"]
    step = WHOLE_BATCH / two["train"]
    lines += [
        "",
        f"To add up the gradients of two processes takes {two['exchange'] * 1000:.0f} ms over the "
        f"loopback interface with nothing beside it, an update of two processes {step * 1000:.0f} "
        "ms. DDP exchanges a layer's gradient while the layers below it are computed.",
    ]
    return "\n".join(lines)


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
        rows: dict = {name: [] for name in SETTINGS}
        for _ in range(options.rounds):
            for name, setting in SETTINGS.items():
                rows[name].append(measure(*setting))
                print(name, rows[name][-1], flush=True)
        write_block(DOCS / "parallel.md", "From one process to two", table(rows))
