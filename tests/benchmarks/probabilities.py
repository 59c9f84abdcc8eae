"""Compare probabilities and decisions over losses and seeds.

    python tests/benchmarks/probabilities.py                      # R8, 1500 documents, three seeds
    python tests/benchmarks/probabilities.py --data r52 --documents 3000 --decisions
    python tests/benchmarks/probabilities.py --data 20ng

Each model is trained once, with a tenth of the documents held out for temperature and offsets.
All probabilities (softmax and inverse, with and without temperature) and all decisions are then
computed from its logits. Writes
docs/benchmarks/probabilities-<data>.jsonl and .md, and decisions-<data>.jsonl and .md.
"""

import argparse
import json
import os
import warnings
from dataclasses import replace
from functools import partial

import numpy as np
import torch
from joblib import Parallel, delayed
from sklearn.metrics import accuracy_score, balanced_accuracy_score, f1_score, log_loss

import corpora
from common import DOCS, device_name
from quality import SETTINGS, encoder
from skfocal import expected_calibration_error
from skfocal._estimator.fitted_model import FittedModel
from skfocal.calibration import DECISIONS, Calibration

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
DATA = ("r8", "r52", "20ng")
METRICS = {
    "log_loss": ("log-loss", 3, 1),
    "brier": ("Brier", 3, 1),
    "ece": ("ECE %", 1, 100),
    "accuracy": ("accuracy %", 1, 100),
    "f1_macro": ("macro-F1 %", 1, 100),
}


DECISION_METRICS = {
    "accuracy": ("accuracy %", 1, 100),
    "balanced_accuracy": ("balanced acc. %", 1, 100),
    "f1_macro": ("macro-F1 %", 1, 100),
    "f1_macro_5": ("macro-F1 (5+) %", 1, 100),
}


def measure(name, seed, options):
    """Train one model; return rows of its probabilities and rows of its decisions."""
    torch.set_num_threads(max(len(os.sched_getaffinity(0)) // options.jobs, 1))
    warnings.simplefilter("ignore")  # truncation and missing classes are part of the protocol
    X, y, X_test, y_test, _ = corpora.load(options.data)
    rows = np.random.RandomState(seed).permutation(len(X))[: options.documents]
    clf = encoder({**SETTINGS["short"], **LOSSES[name], "temperature": "auto"}, seed)
    clf.set_params(classes=np.unique(y), decision="tuned" if options.decisions else "argmax")
    clf.fit([X[i] for i in rows], y[rows])
    logits = FittedModel.of(clf).logits(X_test)
    about = {"name": name, "seed": seed, "documents": options.documents, "device": device_name()}
    probabilities = [about | row for row in probabilities_of(clf, logits, np.asarray(y_test))]
    decisions = [about | row for row in decisions_of(clf, logits, np.asarray(y_test))]
    return {"probabilities": probabilities, "decisions": decisions if options.decisions else []}


def probabilities_of(clf, logits, y_test):
    """Return a row of scores per variant of the probabilities."""
    plain = Calibration(clf.loss_, clf.classes_, clf.effective_class_weight_, clf._shift)
    one_hot = y_test[:, None] == clf.classes_
    for proba, tempered in VARIANTS:
        temperature = clf.set_params(proba=proba).temperature_ if tempered else 1.0
        answers = replace(plain, proba=proba, temperature=temperature).answers(logits)
        p, predicted = answers.predict_proba(), answers.predict()
        yield {
            "proba": proba,
            "tempered": tempered,
            "temperature": temperature,
            "log_loss": log_loss(y_test, p, labels=clf.classes_),
            "brier": ((p - one_hot) ** 2).sum(1).mean(),
            "ece": expected_calibration_error(y_test, p, classes=clf.classes_),
            "accuracy": accuracy_score(y_test, predicted),
            "f1_macro": f1_score(y_test, predicted, average="macro", zero_division=0),
        }


def decisions_of(clf, logits, y_test):
    """Return a row of scores per decision; "prior" assumes equally frequent classes."""
    plain = Calibration(clf.loss_, clf.classes_, clf.effective_class_weight_, clf._shift)
    labels, counts = np.unique(y_test, return_counts=True)
    for decision in DECISIONS if clf.decision == "tuned" else ():
        clf.set_params(decision=decision, prior="uniform")
        answers = replace(plain, decision=decision, offset=clf.decision_offset_).answers(logits)
        predicted = answers.predict()
        macro = partial(f1_score, y_test, predicted, average="macro", zero_division=0)
        yield {
            "decision": decision,
            "accuracy": accuracy_score(y_test, predicted),
            "balanced_accuracy": balanced_accuracy_score(y_test, predicted),
            "f1_macro": macro(),
            "f1_macro_5": macro(labels=labels[counts >= 5]),
        }


def variant_of(row):
    """Return the name of a row of the table, without the loss."""
    return row.get("decision") or row["proba"] + " + temperature" * row["tempered"]


def table(rows, metrics, head, names=tuple(LOSSES)):
    """Return the Markdown table of names and variants: mean and standard deviation over seeds."""
    lines = [
        f"| | {head} | seeds | " + " | ".join(title for title, _, _ in metrics.values()) + " |"
    ]
    lines.append("|---|---|---:|" + "---:|" * len(metrics))
    for name in names:
        for variant in dict.fromkeys(variant_of(row) for row in rows):
            mine = [row for row in rows if (row["name"], variant_of(row)) == (name, variant)]
            if mine:
                cells = [cell(mine, *metric) for metric in metrics.items()]
                lines.append(f"| {name} | {variant} | {len(mine)} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def cell(rows, metric, shown):
    """Return mean and standard deviation of a metric as text."""
    _, digits, scale = shown
    values = scale * np.array([row[metric] for row in rows])
    spread = f" ± {values.std(ddof=1):.{digits}f}" if len(values) > 1 else ""
    return f"{values.mean():.{digits}f}{spread}"


def read(path):
    """Return the rows of a JSON-lines file; none if it does not exist."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def append(path, rows):
    """Add rows to a JSON-lines file, which is not touched if there are none."""
    if rows:
        with path.open("a") as file:
            file.writelines(json.dumps(row) + "\n" for row in rows)


def missing(rows, names, options, measure, *args):
    """Yield the result of `measure` for each name and seed that has no row yet."""
    done = {(row["name"], row["seed"]) for row in rows}
    todo = [(n, s) for s in options.seeds for n in names if (n, s) not in done]
    work = Parallel(options.jobs, return_as="generator_unordered")
    yield from work(delayed(measure)(name, seed, *args) for name, seed in todo)


def main():
    """Run what the files do not have yet and write the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default="r8", choices=DATA)
    parser.add_argument("--documents", type=int, default=1500)
    parser.add_argument("--decisions", action="store_true", help="measure the decisions, too")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--jobs", type=int, default=2, help="processes; 1 on a GPU")
    options = parser.parse_args()
    paths = {kind: DOCS / f"{kind}-{options.data}.jsonl" for kind in ("probabilities", "decisions")}
    rows = {kind: read(path) for kind, path in paths.items()}
    kind = "decisions" if options.decisions else "probabilities"
    for found in missing(rows[kind], LOSSES, options, measure, options):
        for kind in found:
            rows[kind] += found[kind]
            append(paths[kind], found[kind])
        print(found["probabilities"][0]["name"], found["probabilities"][0]["seed"], flush=True)
    for kind, metrics in (("probabilities", METRICS), ("decisions", DECISION_METRICS)):
        if rows[kind]:
            paths[kind].with_suffix(".md").write_text(page(kind, rows[kind], metrics, options))


def page(kind, rows, metrics, options):
    """Return the page of a table."""
    shown = ", ".join(f"`{key}={value}`" for key, value in SETTINGS["short"].items())
    return (
        f"# {kind.capitalize()} on {corpora.TITLES[options.data]}, MiniLM: {shown}\n\n"
        f"{options.documents} random training documents, of which a tenth is held out for "
        "temperature and offsets; the published test split; mean ± standard deviation over seeds, "
        f"{device_name()}. ECE: 15 bins of equal width. (5+): classes with at least 5 test "
        "documents.\n\n" + table(rows, metrics, kind) + "\n"
    )


if __name__ == "__main__":
    main()
