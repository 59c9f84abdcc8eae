"""All documents of Reuters with 90 labels: the training, and second fits of the head.

    OMP_NUM_THREADS=1 python tests/benchmarks/reuters90.py --path FILE --keep FOLDER

Half an hour for each training on one core. Its features go into the folder of --keep, and a
training that is there is not repeated. The scores of all heads, one in a line, are in
docs/benchmarks/reuters90.jsonl. Writes docs/benchmarks/reuters90.md.
"""

import argparse
import json
import time
import warnings
from pathlib import Path

import numpy as np
import torch
from scipy.special import expit
from sklearn.metrics import f1_score
from sklearn.preprocessing import MultiLabelBinarizer

import corpora
from common import DOCS, device_name, write_block
from probabilities import read
from skfocal import BertFocalClassifier, __version__, fetch_minilm
from skfocal._estimator.refit import fit_linear
from skfocal.balance import label_weight

RESULTS = DOCS / "reuters90.jsonl"
HALF_FROZEN = {"freeze": 3, "max_length": 128}
TRAININGS = {
    "focal": {"loss": "focal", "max_length": 64},
    "distribution_balanced": {"loss": "distribution_balanced", "max_length": 64},
    "focal, half frozen": {"loss": "focal", **HALF_FROZEN},
    "distribution_balanced, half frozen": {"loss": "distribution_balanced", **HALF_FROZEN},
}
WEIGHTS = (None, "sqrt", "effective", "balanced")
SCORES = ("micro-F1 %", "macro-F1 %", "tail micro-F1 %", "tail macro-F1 %")
TAIL = 8  # a label of the tail has at most this many training documents, as in Huang et al. (2021)
# Of Huang et al. (2021), with BERT-base: micro-F1, macro-F1, and both in the tail.
PUBLISHED = {
    "BERT-base, binary cross-entropy": (89.1, 47.3, 0.0, 0.0),
    "BERT-base, focal loss": (90.0, 56.8, 27.4, 15.4),
    "BERT-base, distribution-balanced loss": (90.6, 64.5, 48.9, 31.4),
}


def train(name, precision, path, file):
    """Train on all documents; keep the features of training and test."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")  # truncation
    X, y, X_test, y_test, _ = corpora.load("reuters90", path=path)
    binarizer = MultiLabelBinarizer().fit(y)
    y, y_test = binarizer.transform(y), binarizer.transform(y_test)
    rows = np.random.RandomState(0).permutation(len(X))
    X, y = [X[i] for i in rows], y[rows]
    clf = BertFocalClassifier(fetch_minilm(), device="cpu", random_state=0, verbose=1)
    clf.set_params(pooling="mean", precision=precision, **TRAININGS[name])
    start = time.perf_counter()
    clf.fit(X, y)
    seconds = time.perf_counter() - start
    np.savez(
        file,
        F=clf.transform(X),
        Ft=clf.transform(X_test),
        y=y,
        yt=y_test,
        classes=binarizer.classes_,
        proba_t=clf.predict_proba(X_test),
        seconds=seconds,
        precision=precision,
        device=device_name(),
    )


def rows_of(kept):
    """Return by head the scores on the test documents, in percent."""
    y, truth = kept["y"], kept["yt"]
    tail = y.sum(0) <= TAIL

    def scores(proba):
        predicted = (proba > 0.5).astype(int)
        parts = ((truth, predicted), (truth[:, tail], predicted[:, tail]))
        return [
            100 * f1_score(*part, average=average, zero_division=0)
            for part in parts
            for average in ("micro", "macro")
        ]

    found = {"as trained": scores(kept["proba_t"])}
    counts = np.stack([len(y) - y.sum(0), y.sum(0)], axis=1)
    for alpha in WEIGHTS:
        weight = label_weight(alpha, kept["classes"], counts)
        weights, biases = fit_linear(kept["F"], y, np.ones(len(y)), weight)
        found[f"fitted again, weights {alpha!r}"] = scores(expit(kept["Ft"] @ weights.T + biases))
    return found


def page(rows):
    """Return the text of the page."""
    lines = [f"| training | head | {' | '.join(SCORES)} | fit min |"]
    lines.append("|---|---|" + "---:|" * (len(SCORES) + 1))
    for row in rows:
        cells = " | ".join(f"{score:.1f}" for score in row["scores"])
        lines.append(f"| {row['training']} | {row['head']} | {cells} | {row['seconds'] / 60:.0f} |")
    for name, scores in PUBLISHED.items():
        lines.append(f"| {name} | published | {' | '.join(f'{x:.1f}' for x in scores)} | |")
    first = rows[0]
    half = ""
    if any("half frozen" in row["training"] for row in rows):
        half = ", or half frozen with " + ", ".join(f"`{k}={v!r}`" for k, v in HALF_FROZEN.items())
    devices = " and ".join(sorted({f"{row['device']} in {row['precision']}" for row in rows}))
    return (
        f"MiniLM, `pooling='mean'`, 64 tokens{half}, otherwise the defaults; {first['documents']} "
        f"documents, {first['labels']} labels, of which {first['tail']} are in the tail with at "
        f"most {TAIL} training documents; published test split, one seed, one core. On {devices}. "
        "The published rows are those of Huang et al. (EMNLP 2021, arXiv:2109.04712).\n\n"
        + "\n".join(lines)
    )


def main():
    """Train what is missing and write the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--path", help="file or folder of the corpus")
    parser.add_argument("--trainings", nargs="+", default=list(TRAININGS), choices=TRAININGS)
    parser.add_argument("--precision", default="float32", choices=("float32", "bfloat16"))
    parser.add_argument("--keep", type=Path, required=True, help="folder for the features")
    options = parser.parse_args()
    options.keep.mkdir(parents=True, exist_ok=True)
    rows = [row for row in read(RESULTS) if row["training"] not in options.trainings]
    for name in options.trainings:
        file = options.keep / f"reuters90_{name.replace(', ', '-').replace(' ', '_')}.npz"
        if not file.exists():
            train(name, options.precision, options.path, file)
        kept = dict(np.load(file, allow_pickle=True))
        n, n_labels = kept["y"].shape
        common = {
            "training": name,
            "seconds": float(kept["seconds"]),
            "precision": str(kept["precision"]),
            "documents": n,
            "labels": n_labels,
            "tail": int((kept["y"].sum(0) <= TAIL).sum()),
            "device": str(kept["device"]),
            "version": __version__,
        }
        rows += [{**common, "head": head, "scores": s} for head, s in rows_of(kept).items()]
    rows.sort(key=lambda row: list(TRAININGS).index(row["training"]))
    RESULTS.write_text("".join(json.dumps(row) + "\n" for row in rows))
    title = "All documents of Reuters with 90 labels"
    write_block(RESULTS.with_suffix(".md"), title, page(rows))


if __name__ == "__main__":
    main()
