"""What a temperature gains and costs whose documents are held out of the training, or of folds.

    OMP_NUM_THREADS=1 python tests/benchmarks/held_out.py --paths ohsumed=FILE

A quarter of an hour a seed on one core. Each result is a line of docs/benchmarks/held-out.jsonl; a
run that is already there is not repeated. Writes docs/benchmarks/held-out.md.
"""

import argparse
import itertools
import time
import warnings

import numpy as np
import torch
from joblib import Parallel, delayed
from scipy.optimize import minimize_scalar
from scipy.special import softmax
from sklearn.calibration import CalibratedClassifierCV
from sklearn.metrics import log_loss
from sklearn.model_selection import KFold

import corpora
from common import DOCS, device_name, write_block
from contest import scores_single
from heads import DOCUMENTS, documents_of
from probabilities import append, cell, read
from skfocal import (
    BertFocalClassifier,
    __version__,
    clear_cache,
    fetch_minilm,
)

RESULTS = DOCS / "held-out.jsonl"
CORPORA = ("r8", "r52", "ohsumed", "20ng-lt")
FOLDS = "two folds"  # a training on each, then one on all documents
TEMPERATURES = (None, "auto", FOLDS)
SETTINGS = {
    "alpha": "balanced",
    "refit_head": "balanced",
    "max_length": 64,
    "freeze": 3,
    "lr": 4e-4,
}
COLUMNS = {
    "temperature_": ("fitted", 2, 1),
    "best_temperature": ("best for the test", 2, 1),
    "f1_macro": ("macro-F1 %", 1, 100),
    "accuracy": ("accuracy %", 1, 100),
    "log_loss": ("log-loss", 3, 1),
    "ece": ("ECE %", 1, 100),
    "seconds": ("fit s", 0, 1),
}


def train(data, temperature, seed, precision, paths):
    """Return the row of a training."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")  # truncation and missing classes are part of the protocol
    X, y, X_test, y_test = documents_of(data, seed, paths)
    clear_cache()
    classes, codes = np.unique(y, return_inverse=True)  # cross_val_predict encodes labels, too
    clf = BertFocalClassifier(fetch_minilm(), random_state=seed, **SETTINGS)
    clf.set_params(precision=precision, classes=np.arange(len(classes)))
    start = time.perf_counter()
    if temperature == FOLDS:
        folds = list(KFold(2, shuffle=True, random_state=seed).split(X))
        clf = CalibratedClassifierCV(clf, method="temperature", cv=folds, ensemble=False)
        clf.fit(X, codes)
        fitted = 1 / clf.calibrated_classifiers_[0].calibrators[0].beta_
    else:
        fitted = clf.set_params(temperature=temperature).fit(X, codes).temperature_
    seconds = time.perf_counter() - start
    proba = clf.predict_proba(X_test)
    trained = np.isin(y_test, classes)  # the others have no probability
    best = best_temperature(y_test[trained], proba[trained], classes)
    return {
        "data": data,
        "temperature": temperature,
        "seed": seed,
        "temperature_": float(fitted),
        "best_temperature": float(fitted) * best,
        "seconds": seconds,
        **scores_single(y_test, {"classes": classes, "proba": proba}),
        "precision": precision,
        "device": device_name(),
        "version": __version__,
    }


def best_temperature(y, proba, classes):
    """Return the temperature of the probabilities with the least log-loss."""
    logits = np.log(np.maximum(proba, 1e-12))

    def loss(log_temperature):
        return log_loss(y, softmax(logits / np.exp(log_temperature), axis=1), labels=classes)

    return float(np.exp(minimize_scalar(loss, bounds=(-2, 2), method="bounded").x))


def page(rows):
    """Return the text of the page."""
    shown = ", ".join(f"`{key}={value!r}`" for key, value in SETTINGS.items())
    titles = " | ".join(title for title, _, _ in COLUMNS.values())
    lines = [f"| corpus | documents | `temperature` | seeds | {titles} |"]
    lines.append("|---|---:|---|---:|" + "---:|" * len(COLUMNS))
    for data, temperature in itertools.product(CORPORA, TEMPERATURES):
        mine = [r for r in rows if (r["data"], r["temperature"]) == (data, temperature)]
        if mine:
            how = temperature if temperature == FOLDS else f"`{temperature!r}`"
            first = [corpora.TITLES[data], str(DOCUMENTS[data]), how]
            cells = [cell(mine, *column) for column in COLUMNS.items()]
            lines.append(f"| {' | '.join([*first, str(len(mine)), *cells])} |")
    devices = " and ".join(sorted({f"{row['device']} in {row['precision']}" for row in rows}))
    return (
        f"MiniLM, {shown}, otherwise the defaults. `'auto'` holds a tenth of the documents out of "
        "the training. Two folds: scikit-learn's `CalibratedClassifierCV` with "
        "`method='temperature'` and `ensemble=False`, which trains on all of them. Published test "
        "split (2000 documents of it for Ohsumed and 20 Newsgroups; log-loss without those of "
        "classes that no training document has), "
        f"mean ± standard deviation over the seeds. On {devices}.\n\n" + "\n".join(lines)
    )


def main():
    """Run what is missing and write the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--corpora", nargs="+", default=CORPORA, choices=CORPORA)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1])
    parser.add_argument("--precision", default="float32", choices=("float32", "bfloat16"))
    parser.add_argument(
        "--paths", nargs="+", default=[], type=corpora.named_path, metavar="CORPUS=PATH"
    )
    parser.add_argument("--jobs", type=int, default=1)
    options = parser.parse_args()
    rows = read(RESULTS)
    done = {(row["data"], row["temperature"], row["seed"]) for row in rows}
    wanted = itertools.product(options.seeds, options.corpora, TEMPERATURES)
    todo = [
        delayed(train)(data, temperature, seed, options.precision, dict(options.paths))
        for seed, data, temperature in wanted
        if (data, temperature, seed) not in done
    ]
    for row in Parallel(options.jobs, return_as="generator_unordered")(todo):
        append(RESULTS, [row])
        rows.append(row)
        print(*(row[key] for key in ("data", "temperature", "seed", "f1_macro", "ece")), flush=True)
    write_block(RESULTS.with_suffix(".md"), "What a temperature costs", page(rows))


if __name__ == "__main__":
    main()
