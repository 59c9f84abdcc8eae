"""
Quickstart: focal loss against cross-entropy
============================================

This example compares focal loss with balanced class weights to plain cross-entropy. Both use the
same real newswire (Reuters), the same encoder (all-MiniLM-L6-v2) and the same settings. They differ
in which classes they find.

Run it from a shell to set options::

    python examples/quickstart.py                 # part of Reuters R8, a minute or two on a CPU
    python examples/quickstart.py --full          # all of it
    python examples/quickstart.py --data r52      # 52 classes, the rarest with one document
    python examples/quickstart.py --model google-bert/bert-base-uncased
"""

import argparse
import time

import matplotlib.pyplot as plt
import numpy as np
from imblearn.metrics import classification_report_imbalanced
from sklearn.base import clone
from sklearn.metrics import accuracy_score, balanced_accuracy_score, f1_score, log_loss

from skfocal import BertFocalClassifier, fetch_minilm, fetch_reuters
from skfocal.balance import stratified_holdout


def parse():
    """Return the options of the command line."""
    parser = argparse.ArgumentParser(description="Focal loss against cross-entropy")
    parser.add_argument("--data", default="r8", choices=["r8", "r52"])
    parser.add_argument("--full", action="store_true", help="train and test on all documents")
    parser.add_argument(
        "--part",
        type=int,
        default=500,
        help="documents without --full; the test has two times as many",
    )
    parser.add_argument("--model", help="hub name or folder; default: all-MiniLM-L6-v2")
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--max-length", type=int, default=64, help="tokens of a document")
    parser.add_argument("--figure", default="quickstart.png")
    parser.add_argument("--seed", type=int, default=0)
    options, unknown = parser.parse_known_args()  # a notebook has arguments of its own
    if unknown:
        print(f"Left alone: {' '.join(unknown)}")
    return options


def load(options):
    """Return training and test documents, only stratified parts of them unless --full."""
    sizes = {"train": options.part, "test": 2 * options.part}
    return [load_part(options, subset, size) for subset, size in sizes.items()]


def load_part(options, subset, size):
    """Return `size` documents of a subset, all with --full; each class keeps at least one."""
    X, y = fetch_reuters(options.data, subset=subset, return_X_y=True)
    if options.full or size >= len(X):
        return X, y
    codes = np.unique(y, return_inverse=True)[1]
    rows, _ = stratified_holdout(codes, 1 - size / len(X), np.random.RandomState(options.seed))
    return [X[i] for i in rows], y[rows]


def make_classifier(options):
    """Return the classifier whose losses are compared."""
    settings = {
        "max_epochs": options.epochs,
        "max_length": options.max_length,
        "random_state": options.seed,
        "verbose": 1,
    }
    if options.model:
        return BertFocalClassifier(options.model, **settings)
    # docs/benchmarks: with MiniLM, training only the upper half at a higher rate is faster. The
    # head is that of BERT, so that the losses are compared on what every tutorial trains.
    return BertFocalClassifier(fetch_minilm(), pooling="head", freeze=3, lr=5e-4, **settings)


def evaluate(name, clf, train, test):
    """Fit, print a report by class, and return the overall scores and the F1 of each class."""
    print(f"\n== {name} ==", flush=True)
    start = time.perf_counter()
    clf.fit(*train)
    print(f"trained in {time.perf_counter() - start:.0f} s; predicting {len(test[0])} documents")
    proba = clf.predict_proba(test[0])
    predicted = clf.classes_[proba.argmax(axis=1)]
    print(classification_report_imbalanced(test[1], predicted, zero_division=0))
    summary = {
        "accuracy": accuracy_score(test[1], predicted),
        "macro-F1": f1_score(test[1], predicted, average="macro", zero_division=0),
        "balanced accuracy": balanced_accuracy_score(test[1], predicted),
        "log-loss": log_loss(test[1], proba, labels=clf.classes_),
    }
    by_class = f1_score(test[1], predicted, average=None, labels=clf.classes_, zero_division=0)
    return summary, by_class


def draw(path, classes, counts, scores):
    """Save a figure with the F1 of each class, from the most to the least frequent."""
    order = np.argsort(-counts, kind="stable")
    height = 0.38
    figure, axes = plt.subplots(figsize=(6.4, 2 + 0.32 * len(classes)), layout="constrained")
    colours = ["#0072B2", "#E69F00"]  # colour-blind readers can tell these apart, too
    for i, (name, values) in enumerate(scores.items()):
        position = np.arange(len(classes)) + (i - 0.5) * height
        axes.barh(position, values[order], height, label=name, color=colours[i])
    axes.set_yticks(np.arange(len(classes)), [f"{classes[i]} ({counts[i]})" for i in order])
    axes.invert_yaxis()
    axes.set(xlim=(0, 1), xlabel="F1 on the test documents", ylabel="class (training documents)")
    figure.legend(loc="outside upper center", ncols=2)
    figure.savefig(path, dpi=120)


def main():
    """Run the comparison."""
    options = parse()
    print("Getting the data and the model ...", flush=True)
    train, test = load(options)
    classes, counts = np.unique(train[1], return_counts=True)
    print(
        f"{len(train[0])} training documents of {len(classes)} classes, from "
        f"{counts.max()} down to {counts.min()} documents; {len(test[0])} test documents"
    )
    base = make_classifier(options)
    rivals = {
        "focal + balanced": clone(base).set_params(loss="focal", gamma=2.0, alpha="balanced"),
        "cross-entropy": clone(base).set_params(loss="cross_entropy"),
    }
    results = {name: evaluate(name, clf, train, test) for name, clf in rivals.items()}

    print("\n== side by side ==")
    print(f"{'':20s}" + "".join(f"{name:>20s}" for name in results))
    for metric in next(iter(results.values()))[0]:
        values = "".join(f"{summary[metric]:20.4f}" for summary, _ in results.values())
        print(f"{metric:20s}{values}")
    draw(options.figure, classes, counts, {name: f1 for name, (_, f1) in results.items()})
    print(f"\nF1 of each class saved to {options.figure}")


if __name__ == "__main__":
    main()
