"""Whether a classifier that is trained and used in bfloat16 is as good as one in float32.

    OMP_NUM_THREADS=1 python tests/benchmarks/precision.py --jobs 2 --paths ohsumed=FILE

Ten minutes a seed on one core with fast instructions for bfloat16. Both precisions get the
same documents, head and order. Each result is a line of docs/benchmarks/precision.jsonl; a run that
is already there is not repeated. Writes docs/benchmarks/precision.md.
"""

import argparse
import itertools
import warnings

import numpy as np
import torch
from joblib import Parallel, delayed

import corpora
from common import DOCS, device_name, write_block
from contest import scores_single
from heads import documents_of
from probabilities import append, cell, read
from skfocal import BertFocalClassifier, __version__, clear_cache, fetch_minilm

RESULTS = DOCS / "precision.jsonl"
DOCUMENTS, TESTED = 300, 1000
CORPORA = ("r8", "r52", "ohsumed", "20ng-lt")
PRECISIONS = ("float32", "bfloat16")
SETTINGS = {"alpha": "balanced", "refit_head": "balanced", "max_length": 64}
COLUMNS = {
    "accuracy": ("accuracy %", 1, 100),
    "f1_macro": ("macro-F1 %", 1, 100),
    "log_loss": ("log-loss", 3, 1),
    "ece": ("ECE %", 1, 100),
}
DIFFERENCES = {
    "accuracy": ("accuracy, points", 2, 100),
    "f1_macro": ("macro-F1, points", 2, 100),
    "log_loss": ("log-loss", 4, 1),
    "ece": ("ECE, points", 2, 100),
}


def compare(data, seed, paths):
    """Return the row of each precision."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")  # truncation and missing classes are part of the protocol
    X, y, X_test, y_test = documents_of(data, seed, paths)
    X, y, X_test, y_test = X[:DOCUMENTS], y[:DOCUMENTS], X_test[:TESTED], y_test[:TESTED]
    rows, predicted = [], {}
    for precision in PRECISIONS:
        clear_cache()
        clf = BertFocalClassifier(fetch_minilm(), random_state=seed, **SETTINGS)
        clf.set_params(precision=precision)
        clf.fit(X, y)
        proba = clf.predict_proba(X_test)
        predicted[precision] = proba.argmax(1)
        rows.append(
            {
                "data": data,
                "precision": precision,
                "seed": seed,
                **scores_single(y_test, {"classes": clf.classes_, "proba": proba}),
                "agrees": float(np.mean(predicted[precision] == predicted["float32"])),
                "device": device_name(),
                "version": __version__,
            }
        )
    return rows


def differences(rows):
    """Return, for each seed, the scores in bfloat16 minus those in float32."""
    found = {(row["precision"], row["seed"]): row for row in rows}
    seeds = sorted({row["seed"] for row in rows})  # both rows of a seed are written together
    return [
        {key: found["bfloat16", seed][key] - found["float32", seed][key] for key in DIFFERENCES}
        for seed in seeds
    ]


def page(rows):
    """Return the text of the page."""
    shown = ", ".join(f"`{key}={value!r}`" for key, value in SETTINGS.items())
    titles = " | ".join(title for title, _, _ in COLUMNS.values())
    lines = [f"| corpus | precision | seeds | {titles} |"]
    lines.append("|---|---|---:|" + "---:|" * len(COLUMNS))
    titles = " | ".join(title for title, _, _ in DIFFERENCES.values())
    pairs = [f"| corpus | seeds | {titles} | same answers % |"]
    pairs.append("|---|---:|" + "---:|" * (len(DIFFERENCES) + 1))
    for data in CORPORA:
        mine = [row for row in rows if row["data"] == data]
        for precision in PRECISIONS:
            part = [row for row in mine if row["precision"] == precision]
            if part:
                first = [corpora.TITLES[data], precision, str(len(part))]
                lines.append(
                    f"| {' | '.join([*first, *(cell(part, *c) for c in COLUMNS.items())])} |"
                )
        found = differences(mine)
        if found:
            half = [row for row in mine if row["precision"] == "bfloat16"]
            first = [corpora.TITLES[data], str(len(found))]
            cells = [cell(found, *column) for column in DIFFERENCES.items()]
            cells.append(cell(half, "agrees", ("", 1, 100)))
            pairs.append(f"| {' | '.join([*first, *cells])} |")
    devices = " and ".join(sorted({row["device"] for row in rows}))
    return (
        f"MiniLM, {shown}, otherwise the defaults. "
        f"{DOCUMENTS} training documents, others for each seed, and {TESTED} test documents "
        "(log-loss without those of classes that no training document has), mean ± standard "
        f"deviation over the seeds. On {devices}, one thread for each fit, beside other work.\n\n"
        + "\n".join(lines)
        + "\n\nbfloat16 minus float32, for the same seed:\n\n"
        + "\n".join(pairs)
    )


def main():
    """Run what is missing and write the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--corpora", nargs="+", default=CORPORA, choices=CORPORA)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2, 3, 4])
    parser.add_argument(
        "--paths", nargs="+", default=[], type=corpora.named_path, metavar="CORPUS=PATH"
    )
    parser.add_argument("--jobs", type=int, default=1)
    options = parser.parse_args()
    rows = read(RESULTS)
    done = {(row["data"], row["seed"]) for row in rows}
    todo = [
        delayed(compare)(data, seed, dict(options.paths))
        for seed, data in itertools.product(options.seeds, options.corpora)
        if (data, seed) not in done
    ]
    for found in Parallel(options.jobs, return_as="generator_unordered")(todo):
        append(RESULTS, found)
        rows += found
        for row in found:
            print(*(row[key] for key in ("data", "seed", "precision", "f1_macro")),
                  flush=True)  # fmt: skip
    write_block(RESULTS.with_suffix(".md"), "bfloat16 on a CPU", page(rows))


if __name__ == "__main__":
    main()
