"""Ways to a good classifier in less time: does any of them beat fewer epochs?

    OMP_NUM_THREADS=1 python tests/benchmarks/head_starts.py --paths ohsumed=FILE

Each way is one change to `PLAIN`, and is to be compared with plain trainings of as many seconds.
Each result is a line of docs/benchmarks/head-starts.jsonl; a result that is already there is not
measured again. Writes docs/benchmarks/head-starts.md.
"""

import argparse
import itertools
import time
import warnings

import numpy as np
import torch
from joblib import Parallel, delayed
from sklearn.base import clone
from skorch.callbacks import Callback

import corpora
from common import DOCS, device_name, write_block
from contest import scores_single
from probabilities import append, cell, read
from skfocal import BertFocalClassifier, __version__, clear_cache, fetch_minilm
from skfocal._encoder.head import head_of

RESULTS = DOCS / "head-starts.jsonl"
CORPORA = ("r52", "ohsumed", "20ng-lt")
DOCUMENTS, TESTED = 1500, 1500
PLAIN = {
    "alpha": "balanced",
    "refit_head": "balanced",
    "freeze": 3,
    "lr": 4e-4,
    "max_length": 64,
    "max_epochs": 2,
}
HEAD_ALONE = {"freeze": 6, "lr": "auto", "max_epochs": 1, "refit_head": None}
COLUMNS = {
    "seconds": ("processor s", 0, 1),
    "f1_macro": ("macro-F1 %", 1, 100),
    "accuracy": ("accuracy %", 1, 100),
    "log_loss": ("log-loss", 3, 1),
}


class ClassMeans(Callback):
    """Begin with a head whose weights are the means of the classes' features."""

    def on_train_begin(self, net, X=None, **kwargs):
        """Set the weights of the last layer."""
        features = net.features(X.tokens)
        codes = X.codes.numpy() if torch.is_tensor(X.codes) else X.codes
        layer = getattr(*head_of(net.module_.model))
        means = np.stack([
            features[codes == c].mean(0) if (codes == c).any() else np.zeros(features.shape[1])
            for c in range(layer.out_features)
        ])  # fmt: skip
        means -= features.mean(0)
        with torch.no_grad():
            layer.weight.copy_(torch.from_numpy(means / np.sqrt((means**2).sum(1).mean())))
            layer.bias.zero_()


class LargerBatches(Callback):
    """Take batches of four times the size from the second half of the epochs on."""

    def on_epoch_begin(self, net, **kwargs):
        """Change the size of the batches to come."""
        if len(net.history) > net.max_epochs // 2:
            net.loop_.batches.batch_size = 4 * net.batch_size


def one_after_another(*changes):
    """Return how to train with one setting after another, each going on from the last."""

    def train(clf, X, y):
        for i, change in enumerate(changes):
            clf.set_params(**{**PLAIN, **change}, warm_start=i > 0).fit(X, y)
        return clf

    return train


def plain(**changes):
    """Return how to train with one setting."""
    return lambda clf, X, y: clf.set_params(**PLAIN).set_params(**changes).fit(X, y)


def capped(n):
    """Return how to train with at most `n` documents of a class."""

    def train(clf, X, y):
        rng = np.random.RandomState(clf.random_state)
        rows = [rng.permutation(np.flatnonzero(y == label))[:n] for label in np.unique(y)]
        rows = np.sort(np.concatenate(rows))
        return clf.set_params(**PLAIN).fit([X[i] for i in rows], y[rows])

    return train


WAYS = {
    "not trained": plain(max_epochs=0),
    "1 epoch": plain(max_epochs=1),
    "2 epochs": plain(),
    "4 epochs": plain(max_epochs=4),
    "1 epoch, sampler='sqrt'": plain(max_epochs=1, alpha=None, sampler="sqrt"),
    "2 epochs of 32 tokens": plain(max_length=32),
    "1 epoch of 32 tokens, then 1 of 64": one_after_another(
        {"max_length": 32, "max_epochs": 1, "refit_head": None}, {"max_epochs": 1}
    ),
    "1 epoch of the head alone, then 1": one_after_another(HEAD_ALONE, {"max_epochs": 1}),
    "1 epoch, head from the class means": plain(max_epochs=1, callbacks=[ClassMeans()]),
    "2 epochs, batches of 64 in the second": plain(callbacks=[LargerBatches()]),
    "2 epochs, at most 100 of a class": capped(100),
    "1 epoch, all layers, lr 2e-4": plain(max_epochs=1, freeze=0, lr=2e-4),
    "1 epoch, all layers, float32": plain(max_epochs=1, freeze=0, lr=2e-4, precision="float32"),
}


def measure(data, name, seed, paths):
    """Return the row of a way."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")  # truncation and missing classes are part of the protocol
    X, y, X_test, y_test, _ = corpora.load(data, path=paths.get(data), seed=seed)
    rows = np.random.RandomState(seed).permutation(len(X))[:DOCUMENTS]
    tested = np.random.RandomState(99).permutation(len(X_test))[:TESTED]
    clear_cache()
    clf = clone(BertFocalClassifier(fetch_minilm(), random_state=seed))
    start = time.process_time()
    clf = WAYS[name](clf, [X[i] for i in rows], y[rows])
    seconds = time.process_time() - start
    proba = clf.predict_proba([X_test[i] for i in tested])
    return {
        "data": data,
        "name": name,
        "seed": seed,
        "documents": len(rows),
        "seconds": seconds,
        **scores_single(y_test[tested], {"classes": clf.classes_, "proba": proba}),
        "precision": clf.net_.precision,
        "device": device_name(),
        "version": __version__,
    }


def page(rows):
    """Return the text of the page."""
    settings = ", ".join(f"`{key}={value!r}`" for key, value in PLAIN.items())
    titles = " | ".join(title for title, _, _ in COLUMNS.values())
    sections = [
        f"MiniLM, {settings} where the row says nothing else. Seconds of one processor for `fit`, "
        f"the head's second fit included. {TESTED} test documents. On "
        f"{' and '.join(sorted({row['device'] for row in rows}))}."
    ]
    for data in CORPORA:
        mine = [row for row in rows if row["data"] == data]
        if not mine:
            continue
        lines = [f"| | seeds | {titles} |", "|---|---:|" + "---:|" * len(COLUMNS)]
        for name in WAYS:
            part = [row for row in mine if row["name"] == name]
            if part:
                cells = [cell(part, *column) for column in COLUMNS.items()]
                lines.append(f"| {name} | {len(part)} | {' | '.join(cells)} |")
        sections.append(
            f"## {corpora.TITLES[data]}\n\n{mine[0]['documents']} training documents.\n\n"
            + "\n".join(lines)
        )
    return "\n\n".join(sections)


def main():
    """Run what is missing and write the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--corpora", nargs="+", default=CORPORA, choices=CORPORA)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument(
        "--paths", nargs="+", default=[], type=corpora.named_path, metavar="CORPUS=PATH"
    )
    parser.add_argument("--jobs", type=int, default=1)
    options = parser.parse_args()
    rows = read(RESULTS)
    done = {(row["data"], row["name"], row["seed"]) for row in rows}
    todo = [
        delayed(measure)(data, name, seed, dict(options.paths))
        for seed, data, name in itertools.product(options.seeds, options.corpora, WAYS)
        if (data, name, seed) not in done
    ]
    for row in Parallel(options.jobs, return_as="generator_unordered")(todo):
        append(RESULTS, [row])
        rows.append(row)
        print(*(row[key] for key in ("data", "name", "f1_macro", "seconds")), flush=True)
    write_block(RESULTS.with_suffix(".md"), "Ways to train in less time", page(rows))


if __name__ == "__main__":
    main()
