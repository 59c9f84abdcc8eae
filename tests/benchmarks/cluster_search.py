"""A grid over gamma and alpha in sequence and on clusters of two nodes, with and without `share`.

Each node has its own folder for temporary files and one thread. All nodes are on one machine, so
the benchmark says nothing about a network. The clusters are started before the clock. The start of
Ray's worker processes and the imports of Dask's workers are included in the time.

    OMP_NUM_THREADS=1 python tests/benchmarks/cluster_search.py
"""

import argparse
import os
import sys
import tempfile
import time
import warnings
from contextlib import nullcontext
from pathlib import Path

import joblib
import numpy as np
import torch
from sklearn.model_selection import GridSearchCV, train_test_split

from common import DOCS, device_name, write_block
from skfocal import BertFocalClassifier, cache_info, clear_cache, fetch_minilm, fetch_reuters, share

sys.path.insert(0, str(Path(__file__).parents[1]))
from clusters import TWO_NODES, score_and_tell, told, weighed_tasks  # noqa: E402

GRID = {"gamma": [0.0, 2.0], "alpha": [None, "balanced"]}
COUNTS = "texts_tokenized", "weights_read"


def documents(n):
    X, y = fetch_reuters("r8", subset="train", return_X_y=True)
    X, _, y, _ = train_test_split(X, y, train_size=n, stratify=y, random_state=0)
    return X, y


def run(kind, sharing, X, y, folder):
    """Return seconds, bytes of the largest task, counts over all processes, and the scores."""
    folder.mkdir()
    clear_cache()
    clf = BertFocalClassifier(
        fetch_minilm(),
        pooling="head",
        classes=np.unique(y),
        max_epochs=1,
        max_length=64,
        random_state=0,
    )
    search = GridSearchCV(clf, GRID, cv=2, scoring=score_and_tell, refit=False)
    with TWO_NODES[kind](folder) if kind else nullcontext({}) as settings:
        before = cache_info()
        with joblib.parallel_config(**settings, n_jobs=2 if kind else 1), weighed_tasks() as sizes:
            start = time.perf_counter()
            search.fit(share(clf, X) if sharing else X, y)
            seconds = time.perf_counter() - start
    processes = [cache_info()] + [row for node in told(folder).values() for row in node]
    counts = [sum(row[name] for row in processes) - before[name] for name in COUNTS]
    return seconds, max(sizes, default=0), counts, search.cv_results_["mean_test_score"]


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--documents", type=int, default=400)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    os.environ["RAY_AUTH_MODE"] = "disabled"
    torch.set_num_threads(1)
    X, y = documents(options.documents)
    lines = [
        f"MiniLM, {len(X)} documents of Reuters R8 cut to 64 tokens, four candidates on two folds, "
        f"one epoch each; {device_name()}, one for each node. The seconds of Dask and Ray include "
        "the time in which their workers import torch and transformers. Scores: compared with "
        "those in sequence.",
        "",
        "| | seconds | bytes per task | texts tokenised | weights read | scores |",
        "|---|---:|---:|---:|---:|---|",
    ]
    reference = None
    with tempfile.TemporaryDirectory() as home:
        tempfile.tempdir = home
        for kind in (None, "dask", "ray"):
            for sharing in (False, True) if kind else (False,):
                name = f"{kind.capitalize()}, two nodes" if kind else "in sequence"
                name += ", `share`" if sharing else ""
                folder = Path(home, f"{kind}-{sharing}")
                seconds, size, counts, scores = run(kind, sharing, X, y, folder)
                reference = scores if reference is None else reference
                assert np.isfinite(scores).all()
                same = "the same" if np.array_equal(scores, reference) else "others"
                cells = [f"{seconds:.0f}", f"{size:,}" if size else "–", *map(str, counts), same]
                lines.append(f"| {name} | " + " | ".join(cells) + " |")
                print(lines[-1], flush=True)
    write_block(DOCS / "cluster-search.md", "A grid on clusters of two nodes", "\n".join(lines))


if __name__ == "__main__":
    main()
