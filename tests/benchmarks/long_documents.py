"""Compare ways to read long documents, on 20 Newsgroups: truncate, keep both ends, or use windows.

    OMP_NUM_THREADS=1 python tests/benchmarks/long_documents.py

The groups are thinned to a long tail, in another order for each seed. Writes
docs/benchmarks/long-documents.jsonl and the table of long-documents.md.
"""

import argparse
import os
import warnings

import numpy as np
import torch
from sklearn.metrics import accuracy_score, f1_score, log_loss

from common import DOCS, device_name, write_block
from corpora import long_tail
from probabilities import append, cell, missing, read
from quality import encoder
from skfocal import Windows, fetch_20newsgroups_cachopo
from skfocal._data.tokens import tokenize
from skfocal._estimator.fitted_model import present_truncation

SETTING = {"freeze": 4, "lr": 5e-4, "max_epochs": 5, "alpha": "balanced"}
LARGEST, SMALLEST, N_TEST = 60, 6, 600  # training documents per group; test documents
LENGTH = 64


def windows(length=LENGTH, **settings):
    """Return the parameters that read documents in windows."""
    return {"max_length": length, "long_documents": Windows(**settings)}


WAYS = {
    "truncate": {"max_length": LENGTH},
    "head_tail": {"max_length": LENGTH, "long_documents": "head_tail"},
    "windows, mean": windows(pooling="mean"),
    "windows, max": windows(pooling="max"),
    "windows, logsumexp": windows(),
    "windows, mean, stride 16": windows(pooling="mean", stride=16),
    "windows, logsumexp, stride 16": windows(stride=16),
    "truncate at 256": {"max_length": 256},
    "windows of 128, mean": windows(128, pooling="mean"),
}
METRICS = {
    "accuracy": ("accuracy %", 1, 100),
    "accuracy_long": ("accuracy %, cut by 64", 1, 100),
    "f1_macro": ("macro-F1 %", 1, 100),
    "log_loss": ("log-loss", 3, 1),
    "tokens": ("tokens read per document", 0, 1),
}


def measure(name, seed, jobs):
    """Train one model; return its row."""
    torch.set_num_threads(max(len(os.sched_getaffinity(0)) // jobs, 1))
    warnings.simplefilter("ignore")  # truncation is part of the comparison
    rng = np.random.RandomState(seed)
    X, y = fetch_20newsgroups_cachopo(subset="train", return_X_y=True)
    rows = long_tail(y, rng, LARGEST, SMALLEST)
    X_test, y_test = fetch_20newsgroups_cachopo(subset="test", return_X_y=True)
    chosen = rng.permutation(len(X_test))[:N_TEST]
    X_test, y_test = [X_test[i] for i in chosen], y_test[chosen]
    clf = encoder({**SETTING, **WAYS[name]}, seed).fit([X[i] for i in rows], y[rows])
    proba = clf.predict_proba(X_test)
    predicted = clf.classes_[proba.argmax(1)]
    full = np.array([len(ids) for ids in clf.tokenizer_(X_test)["input_ids"]])
    long = full > LENGTH
    return {
        "name": name,
        "seed": seed,
        "accuracy": accuracy_score(y_test, predicted),
        "accuracy_long": accuracy_score(y_test[long], predicted[long]),
        "f1_macro": f1_score(y_test, predicted, average="macro", zero_division=0),
        "log_loss": log_loss(y_test, proba, labels=clf.classes_),
        "tokens": tokens_read(clf, X_test),
        "documents": len(rows),
        "long": long.mean(),
        "device": device_name(),
    }


def tokens_read(clf, X):
    """Return how many tokens the encoder reads per document, special tokens included."""
    tokens = tokenize(clf.tokenizer_, X, present_truncation(clf))
    return float(tokens.lengths.mean())


def table(rows):
    """Return the Markdown table: mean and standard deviation over seeds."""
    titles = " | ".join(title for title, _, _ in METRICS.values())
    lines = [f"| | seeds | {titles} |", "|---|---:|" + "---:|" * len(METRICS)]
    for name in WAYS:
        mine = [row for row in rows if row["name"] == name]
        if mine:
            cells = " | ".join(cell(mine, *metric) for metric in METRICS.items())
            lines.append(f"| {name} | {len(mine)} | {cells} |")
    return "\n".join(lines)


def main():
    """Run what the file does not have yet and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--jobs", type=int, default=1, help="processes")
    options = parser.parse_args()
    path = DOCS / "long-documents.jsonl"
    rows = read(path)
    for row in missing(rows, WAYS, options, measure, options.jobs):
        rows.append(row)
        append(path, [row])
        print(row["name"], row["seed"], flush=True)
    shown = ", ".join(f"`{key}={value!r}`" for key, value in SETTING.items())
    write_block(
        path.with_suffix(".md"),
        "Long documents on 20 Newsgroups, MiniLM",
        f"{shown}, `max_length=64` unless the row names another. {rows[0]['documents']} training "
        f"messages, with the groups thinned to between {LARGEST} and {SMALLEST}, and {N_TEST} of "
        "the published test split, different ones for each seed; "
        f"{np.mean([r['long'] for r in rows]):.0%} of these have more than 64 tokens. Mean ± "
        f"standard deviation over seeds, {device_name()}.\n\n{table(rows)}",
    )


if __name__ == "__main__":
    main()
