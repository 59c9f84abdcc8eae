"""Several labels per document on real text: losses and decisions over seeds.

    python tests/benchmarks/multilabel.py

Each message of 20 Newsgroups has two labels, its group and the group's first word ("comp", "rec",
...). The groups are thinned to a long tail, in another order for each seed. Writes
docs/benchmarks/multilabel.jsonl and .md.
"""

import argparse
import os
import warnings
from dataclasses import replace

import numpy as np
import torch
from sklearn.metrics import average_precision_score, f1_score
from sklearn.preprocessing import MultiLabelBinarizer

from common import DOCS, device_name
from corpora import LARGEST, SMALLEST, long_tail
from probabilities import append, missing, read, table
from quality import encoder
from skfocal import fetch_20newsgroups_cachopo
from skfocal._estimator.fitted_model import FittedModel
from skfocal.calibration import Calibration

SETTING = {"max_length": 64, "freeze": 3, "lr": 5e-4, "max_epochs": 10}
TAIL = 30  # training documents of a label in the tail, at most
LOSSES = {
    "binary cross-entropy": {"loss": "cross_entropy"},
    "focal, gamma 2": {"loss": "focal"},
    "asymmetric": {"loss": "asymmetric"},
    "class-balanced cross-entropy": {"loss": "cross_entropy", "alpha": "effective"},
    "class-balanced focal": {"loss": "focal", "alpha": "effective"},
}
DECISIONS = {
    "threshold on the sigmoid": {"proba": "softmax"},
    "threshold on the natural probability": {"proba": "natural"},
    "tuned": {"decision": "tuned"},
}
METRICS = {
    "f1_micro": ("micro-F1 %", 1, 100),
    "f1_macro": ("macro-F1 %", 1, 100),
    "f1_tail": ("tail F1 %", 1, 100),
    "average_precision": ("mean AP %", 1, 100),
}


def labels_of(y):
    """Return the two labels of each message."""
    return [{label, label.split(".")[0]} for label in y]


def measure(name, seed, jobs):
    """Train one model; return a row for each decision."""
    torch.set_num_threads(max(len(os.sched_getaffinity(0)) // jobs, 1))
    warnings.simplefilter("ignore")  # truncation is part of the protocol
    X, y = fetch_20newsgroups_cachopo(subset="train", return_X_y=True)
    rows = long_tail(y, np.random.RandomState(seed))
    X_test, y_test = fetch_20newsgroups_cachopo(subset="test", return_X_y=True)
    binarizer = MultiLabelBinarizer().fit(labels_of(y))
    targets, truth = (binarizer.transform(labels_of(some)) for some in (y[rows], y_test))
    tail = targets.sum(0) <= TAIL
    clf = encoder({**SETTING, **LOSSES[name], "decision": "tuned"}, seed)
    clf.fit([X[i] for i in rows], targets)
    logits = FittedModel.of(clf).logits(X_test)
    plain = Calibration(clf.loss_, clf.classes_, clf.effective_class_weight_, clf._shift)
    result = []
    for decision, settings in DECISIONS.items():
        answers = replace(plain, offset=clf.decision_offset_, **settings).answers(logits)
        predicted = answers.predict()
        each = f1_score(truth, predicted, average=None, zero_division=0)
        result.append(
            {
                "name": name,
                "seed": seed,
                "decision": decision,
                "f1_micro": f1_score(truth, predicted, average="micro"),
                "f1_macro": each.mean(),
                "f1_tail": each[tail].mean(),
                "average_precision": average_precision_score(truth, answers.predict_proba()),
                "documents": len(rows),
                "labels": len(tail),
                "tail": int(tail.sum()),
                "device": device_name(),
            }
        )
    return result


def main():
    """Run what the file does not have yet and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--jobs", type=int, default=2, help="processes; 1 on a GPU")
    options = parser.parse_args()
    path = DOCS / "multilabel.jsonl"
    rows = read(path)
    for found in missing(rows, LOSSES, options, measure, options.jobs):
        rows += found
        append(path, found)
        print(found[0]["name"], found[0]["seed"], flush=True)
    shown = ", ".join(f"`{key}={value}`" for key, value in SETTING.items())
    path.with_suffix(".md").write_text(
        f"# Group and super-group of 20 Newsgroups, MiniLM: {shown}\n\n"
        f"{rows[0]['labels']} labels, two per message. {rows[0]['documents']} training messages, "
        f"with the groups thinned to between {LARGEST} and {SMALLEST}, in another order for each "
        "seed. A tenth of them is held out for the tuned thresholds. Tail: the "
        f"{rows[0]['tail']} labels with at most {TAIL}. The published test split; mean ± "
        f"standard deviation over seeds, {device_name()}.\n\n"
        + table(rows, METRICS, "decision", tuple(LOSSES))
        + "\n"
    )


if __name__ == "__main__":
    main()
