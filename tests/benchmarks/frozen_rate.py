"""The learning rate that suits an encoder with frozen layers.

    OMP_NUM_THREADS=1 python tests/benchmarks/frozen_rate.py --paths ohsumed=FILE

Half an hour a seed on two cores. Each result is a line of docs/benchmarks/frozen-rate.jsonl; a run
that is already there is not repeated. Writes docs/benchmarks/frozen-rate.md.
"""

import argparse
import itertools
import os
import time
import warnings

import numpy as np
import torch
from joblib import Parallel, delayed
from scipy.special import softmax
from sklearn.metrics import f1_score, log_loss

import corpora
from common import DOCS, device_name, write_block
from heads import documents_of, last_layer
from probabilities import append, cell, read
from skfocal import BertFocalClassifier, __version__, clear_cache, fetch_minilm
from skfocal._estimator.refit import fit_linear
from skfocal.balance import class_weight

RESULTS = DOCS / "frozen-rate.jsonl"
CORPORA = ("r8", "r52", "ohsumed")
RATES = {
    0: (2e-4, 4e-4),
    3: (2e-4, 4e-4, 8e-4),
    5: (2e-4, 5e-4, 1e-3, 2e-3),
    6: (2e-4, 1e-3, 5e-3, 2e-2),
}
COLUMNS = {
    "f1_trained": ("macro-F1 % as trained", 1, 100),
    "loss_trained": ("log-loss as trained", 3, 1),
    "f1": ("macro-F1 %", 1, 100),
    "loss": ("log-loss", 3, 1),
    "seconds": ("fit s", 0, 1),
}
DOCUMENTS = 500
SETTINGS = {"alpha": "balanced", "pooling": "mean", "max_length": 64, "device": "cpu"}


def train(data, freeze, lr, seed, precision, paths):
    """Return the row of a training, as trained and after a second fit of the head."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")  # truncation and missing classes are part of the protocol
    X, y, X_test, y_test = documents_of(data, seed, paths)
    X, y = X[:DOCUMENTS], y[:DOCUMENTS]
    clear_cache()
    classes = np.unique([*y, *y_test])
    clf = BertFocalClassifier(fetch_minilm(), classes=classes, random_state=seed, **SETTINGS)
    clf.set_params(freeze=freeze, lr=lr, precision=precision)
    start = time.perf_counter()
    clf.fit(X, y)
    row = {"data": data, "freeze": freeze, "lr": lr, "seed": seed, "precision": precision}
    row["seconds"] = time.perf_counter() - start
    features, tested = clf.transform(X), clf.transform(X_test)
    model, weights, biases = last_layer(clf)
    proba = model.calibration.answers(tested @ weights.T + biases).predict_proba()
    row["f1_trained"], row["loss_trained"] = scores(y_test, proba, classes)
    codes = np.searchsorted(classes, y)
    weight = class_weight("balanced", classes, np.bincount(codes, minlength=len(classes)))
    weights, biases = fit_linear(features, codes, np.ones(len(y)), weight)
    row["f1"], row["loss"] = scores(y_test, softmax(tested @ weights.T + biases, 1), classes)
    return row | {"device": device_name(), "version": __version__}


def scores(y, proba, classes):
    """Return macro-F1 and log-loss."""
    predicted = classes[proba.argmax(1)]
    return f1_score(y, predicted, average="macro"), log_loss(y, proba, labels=classes)


def page(rows):
    """Return the text of the page."""
    blocks = [
        "MiniLM, 64 tokens, `alpha='balanced'`, otherwise the defaults; 500 documents of each "
        "corpus, others for each seed, published test split (2000 documents of it for Ohsumed). "
        "Last columns of scores: after `refit_head='balanced'`. Of MiniLM's 6 layers, `freeze` "
        "are not trained; `lr` is 2e-4 by default without frozen layers. On "
        + " and ".join(sorted({row["device"] for row in rows}))
        + ", one fit for each core at a time."
    ]
    titles = " | ".join(title for title, _, _ in COLUMNS.values())
    for data in CORPORA:
        lines = [f"| `freeze` | `lr` | seeds | {titles} |"]
        lines.append("|---:|---:|---:|" + "---:|" * len(COLUMNS))
        for freeze, lr in ((freeze, lr) for freeze, rates in RATES.items() for lr in rates):
            mine = [r for r in rows if (r["data"], r["freeze"], r["lr"]) == (data, freeze, lr)]
            if mine:
                cells = [cell(mine, *column) for column in COLUMNS.items()]
                lines.append(f"| {freeze} | {lr:g} | {len(mine)} | {' | '.join(cells)} |")
        blocks += [f"## {corpora.TITLES[data]}", "\n".join(lines)]
    return "\n\n".join(blocks)


def main():
    """Run what is missing and write the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--corpora", nargs="+", default=CORPORA, choices=CORPORA)
    parser.add_argument("--freeze", nargs="+", type=int, default=list(RATES), choices=RATES)
    parser.add_argument("--lr", nargs="+", type=float, help="some of the rates; by default all")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1])
    parser.add_argument("--precision", default="float32", choices=("float32", "bfloat16"))
    parser.add_argument(
        "--paths", nargs="+", default=[], type=corpora.named_path, metavar="CORPUS=PATH"
    )
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    options = parser.parse_args()
    rows = read(RESULTS)
    done = {(row["data"], row["freeze"], row["lr"], row["seed"]) for row in rows}
    todo = [
        delayed(train)(data, freeze, lr, seed, options.precision, dict(options.paths))
        for seed, data, freeze in itertools.product(options.seeds, options.corpora, options.freeze)
        for lr in RATES[freeze]
        if (data, freeze, lr, seed) not in done and (not options.lr or lr in options.lr)
    ]
    for row in Parallel(options.jobs, return_as="generator_unordered")(todo):
        append(RESULTS, [row])
        rows.append(row)
        shown = ("data", "freeze", "lr", "seed", "f1_trained", "f1", "seconds")
        print(*(row[key] for key in shown), flush=True)
    write_block(RESULTS.with_suffix(".md"), "Learning rates for frozen layers", page(rows))


if __name__ == "__main__":
    main()
