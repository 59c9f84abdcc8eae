"""Which probabilities to trust: softmax, inverse, temperature and both, over losses and seeds.

    python tests/benchmarks/probabilities.py                  # R8, 1500 documents, two seeds

Each model is trained once, with a tenth of the documents held out for the temperature; all
variants are read from its logits. Writes docs/benchmarks/probabilities-<data>.jsonl and .md.
"""

import argparse
import json
import os
import warnings
from dataclasses import replace

import numpy as np
import torch
from joblib import Parallel, delayed
from sklearn.metrics import accuracy_score, f1_score, log_loss

from common import DOCS, device_name
from quality import SETTINGS, encoder
from skfocal import expected_calibration_error, fetch_reuters
from skfocal.calibration import Calibration

LOSSES = {
    f"{name}{', balanced alpha' if alpha else ''}": {**loss, "alpha": alpha}
    for alpha in (None, "balanced")
    for name, loss in {
        "cross-entropy": {"loss": "cross_entropy"},
        **{f"focal, gamma {gamma}": {"loss": "focal", "gamma": gamma} for gamma in (1, 2, 5)},
    }.items()
}
VARIANTS = [
    (proba, tempered) for proba in ("softmax", "reweighted", "natural") for tempered in (0, 1)
]
METRICS = {
    "log_loss": ("log-loss", 3, 1),
    "brier": ("Brier", 3, 1),
    "ece": ("ECE %", 1, 100),
    "accuracy": ("accuracy %", 1, 100),
    "f1_macro": ("macro-F1 %", 1, 100),
}


def measure(name, seed, options):
    """Train one model; return a row for each variant of its probabilities."""
    torch.set_num_threads(max(os.cpu_count() // options.jobs, 1))
    warnings.simplefilter("ignore")  # truncation and missing classes are part of the protocol
    X, y = fetch_reuters(options.data, subset="train", return_X_y=True)
    rows = np.random.RandomState(seed).permutation(len(X))[: options.documents]
    X_test, y_test = fetch_reuters(options.data, subset="test", return_X_y=True)
    clf = encoder({**SETTINGS["short"], **LOSSES[name], "temperature": "auto"}, seed)
    clf.set_params(classes=np.unique(y))
    clf.fit([X[i] for i in rows], y[rows])
    logits = clf._logits(X_test)
    plain = Calibration(clf.loss_, clf.classes_, clf.effective_class_weight_, clf._shift)
    one_hot = np.asarray(y_test)[:, None] == clf.classes_
    result = []
    for proba, tempered in VARIANTS:
        temperature = clf.set_params(proba=proba).temperature_ if tempered else 1.0
        answers = replace(plain, proba=proba, temperature=temperature).answers(logits)
        p, predicted = answers.predict_proba(), answers.predict()
        result.append(
            {
                "name": name,
                "seed": seed,
                "proba": proba,
                "tempered": tempered,
                "temperature": temperature,
                "log_loss": log_loss(y_test, p, labels=clf.classes_),
                "brier": ((p - one_hot) ** 2).sum(1).mean(),
                "ece": expected_calibration_error(y_test, p, classes=clf.classes_),
                "accuracy": accuracy_score(y_test, predicted),
                "f1_macro": f1_score(y_test, predicted, average="macro", zero_division=0),
                "documents": options.documents,
                "device": device_name(),
            }
        )
    return result


def table(rows):
    """Return the Markdown table: mean over the seeds, and the spread of the log-loss."""
    heads = [head for head, _, _ in METRICS.values()]
    lines = ["| | probabilities | seeds | " + " | ".join(heads) + " |"]
    lines.append("|---|---|---:|" + "---:|" * len(METRICS))
    for name in LOSSES:
        for proba, tempered in VARIANTS:
            mine = [
                row
                for row in rows
                if (row["name"], row["proba"], row["tempered"]) == (name, proba, tempered)
            ]
            if mine:
                cells = []
                for metric, (_, digits, scale) in METRICS.items():
                    values = scale * np.array([row[metric] for row in mine])
                    cells.append(f"{values.mean():.{digits}f}")
                variant = proba + " + temperature" * tempered
                lines.append(f"| {name} | {variant} | {len(mine)} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main():
    """Run what is not in the file yet and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default="r8", choices=["r8", "r52"])
    parser.add_argument("--documents", type=int, default=1500)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1])
    parser.add_argument("--jobs", type=int, default=2, help="processes; 1 on a GPU")
    options = parser.parse_args()
    path = DOCS / f"probabilities-{options.data}.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    done = {(row["name"], row["seed"]) for row in rows}
    todo = [(n, s) for s in options.seeds for n in LOSSES if (n, s) not in done]
    work = Parallel(options.jobs, return_as="generator_unordered")
    for found in work(delayed(measure)(name, seed, options) for name, seed in todo):
        rows += found
        with path.open("a") as file:
            file.writelines(json.dumps(row) + "\n" for row in found)
        print(found[0]["name"], found[0]["seed"], flush=True)
    shown = ", ".join(f"`{key}={value}`" for key, value in SETTINGS["short"].items())
    path.with_suffix(".md").write_text(
        f"# Probabilities on Reuters {options.data.upper()}, MiniLM: {shown}\n\n"
        f"{options.documents} random training documents, a tenth of them for the temperature; the "
        f"published test split; mean over seeds, {device_name()}. ECE: 15 bins of equal width.\n\n"
        + table(rows)
        + "\n"
    )


if __name__ == "__main__":
    main()
