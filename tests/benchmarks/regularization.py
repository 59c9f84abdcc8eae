"""Weight averages, dropout, R-Drop, mixup and linear probing first, beside what we recommend.

    OMP_NUM_THREADS=1 python tests/benchmarks/regularization.py --paths ohsumed=FILE

About half an hour a seed on two cores. Each result is a line of
docs/benchmarks/regularization.jsonl; a run that is already there is not repeated. Writes
docs/benchmarks/regularization.md.
"""

import argparse
import functools
import time
import warnings
from typing import NamedTuple
from unittest import mock

import numpy as np
import torch
from joblib import Parallel, delayed
from sklearn.metrics import log_loss
from skorch.callbacks import Callback
from torch.nn.functional import kl_div, log_softmax

import corpora
from common import DOCS, METRICS, device_name, scores_of, table, write_block
from heads import DOCUMENTS, documents_of
from probabilities import append, read
from skfocal import (
    BertFocalClassifier,
    __version__,
    clear_cache,
    expected_calibration_error,
    fetch_minilm,
)
from skfocal._estimator import build
from skfocal._training.net import FocalNet

RESULTS = DOCS / "regularization.jsonl"
CORPORA = ("r8", "ohsumed")
COLUMNS = ("accuracy", "f1_macro", "balanced_accuracy", "log_loss", "ece", "fit_seconds")
SETTINGS = {
    "alpha": "balanced",
    "refit_head": "balanced",
    "pooling": "mean",
    "max_length": 64,
    "precision": "float32",
}


# -- weight averages ---------------------------------------------------------------------------


class Average(Callback):
    """Give the network an average of its weights when the training ends.

    Parameters
    ----------
    decay : float, default=None
        That of an exponential moving average over updates; None: the mean over the epochs.
    first_epoch : int, default=1
        The average begins with the end of this epoch.
    """

    def __init__(self, decay=None, first_epoch=1):
        self.decay = decay
        self.first_epoch = first_epoch

    def on_train_begin(self, net, **kwargs):
        """Begin without an average."""
        self.n_, self.average_ = 0, None

    def on_batch_end(self, net, training=False, **kwargs):
        """Count the weights after an update."""
        if self.decay and training:
            self._count(net, min(self.decay, self.n_ / (self.n_ + 10)))

    def on_epoch_end(self, net, **kwargs):
        """Count the weights after an epoch."""
        if not self.decay and len(net.history) >= self.first_epoch:
            self._count(net, self.n_ / (self.n_ + 1))

    def on_train_end(self, net, **kwargs):
        """Hand the average over."""
        with torch.no_grad():
            for weight, average in zip(net.module_.parameters(), self.average_, strict=True):
                weight.copy_(average)

    def _count(self, net, share):
        weights = [weight.detach() for weight in net.module_.parameters()]
        if self.average_ is None:
            self.average_ = [weight.clone() for weight in weights]
        torch._foreach_lerp_(self.average_, weights, 1 - share)
        self.n_ += 1


# -- other losses of the same network ----------------------------------------------------------


class RDropNet(FocalNet):
    """R-Drop (Liang et al. 2021): two passes with dropout must agree, too."""

    alpha = 1.0

    def infer(self, x, forward=None, **fit_params):
        """Return the mean logits of two passes in training; remember both."""
        if forward is not None or not self.module_.training:
            return super().infer(x, forward, **fit_params)
        self.passes = [super(RDropNet, self).infer(x, **fit_params) for _ in range(2)]
        return sum(self.passes) / 2

    def get_loss(self, y_pred, y_true, X=None, training=False):
        """Return the mean loss of both passes plus the divergence between them."""
        if not training:
            return super().get_loss(y_pred, y_true, X=X)
        loss = sum(super(RDropNet, self).get_loss(each, y_true, X=X) for each in self.passes) / 2
        p, q = (log_softmax(each, 1) for each in self.passes)
        options = {"reduction": "batchmean", "log_target": True}
        return loss + self.alpha * (kl_div(p, q, **options) + kl_div(q, p, **options)) / 2


class MixupNet(FocalNet):
    """Mixup (Zhang et al. 2018) of what the last linear layer reads."""

    concentration = 0.2

    def initialize(self):
        """Mix in training what enters the last layer."""
        super().initialize()
        self.module_.model.classifier.register_forward_pre_hook(self.mix)
        return self

    def mix(self, layer, inputs):
        """Return each vector mixed with that of another document."""
        if not layer.training:
            return None
        (x,) = inputs
        self.share = float(np.random.beta(self.concentration, self.concentration))
        self.other = torch.randperm(len(x))
        return (self.share * x + (1 - self.share) * x[self.other],)

    def get_loss(self, y_pred, y_true, X=None, training=False):
        """Return the loss, mixed in the same way."""
        loss = functools.partial(super().get_loss, y_pred, X=X)
        if not training:
            return loss(y_true)
        return self.share * loss(y_true) + (1 - self.share) * loss(y_true[self.other])


class Training(NamedTuple):
    """Parameters, the net in place of the usual one, and whether linear probing comes before."""

    params: dict
    net: type = FocalNet
    probing: bool = False


TRAININGS = {
    "4 epochs (the default)": Training({}),
    "linear probing, then 4 epochs": Training({"warm_start": True}, probing=True),
    "mean of the weights after epochs 3 and 4": Training({"callbacks": [Average(first_epoch=3)]}),
    "EMA of the weights, decay 0.95": Training({"callbacks": [Average(decay=0.95)]}),
    "EMA, decay 0.95, constant rate": Training(
        {"callbacks": [Average(decay=0.95)], "schedule": "constant"}
    ),
    "mixup of features": Training({}, MixupNet),
    "`dropout=0.1`": Training({"dropout": 0.1}),
    "R-Drop, `dropout=0.1`": Training({"dropout": 0.1}, RDropNet),
    "8 epochs": Training({"max_epochs": 8}),
}


# -- runs --------------------------------------------------------------------------------------


def train(data, name, seed, paths):
    """Return the row of a training."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")  # truncation and missing classes are part of the protocol
    X, y, X_test, y_test = documents_of(data, seed, paths)
    params, net, probing = TRAININGS[name]
    np.random.seed(seed)
    clear_cache()
    classes = np.unique([*y, *y_test])
    clf = BertFocalClassifier(
        fetch_minilm(), classes=classes, random_state=seed, **SETTINGS | params
    )
    with mock.patch.object(build, "FocalNet", net):
        start = time.perf_counter()
        if probing:
            clf.set_params(max_epochs=0).fit(X, y).set_params(max_epochs=4)
        clf.fit(X, y)
        seconds = time.perf_counter() - start
    proba = clf.predict_proba(X_test)
    return {
        "data": data,
        "name": name,
        "seed": seed,
        **scores_of(y_test, clf.predict(X_test)),
        "log_loss": log_loss(y_test, proba, labels=classes),
        "ece": expected_calibration_error(y_test, proba, classes=classes),
        "fit_seconds": seconds,
        "device": device_name(),
        "version": __version__,
    }


def page(rows):
    """Return the text of the page."""
    blocks = [
        "MiniLM, 64 tokens, "
        + ", ".join(f"`{key}={SETTINGS[key]!r}`" for key in ("alpha", "refit_head", "pooling"))
        + ", otherwise the defaults; other documents for each seed, published test split (2000 "
        "documents of it for Ohsumed), mean ± standard deviation over the seeds, with other work "
        "on the other core."
    ]
    for data in dict.fromkeys(row["data"] for row in rows):
        mine = [row for row in rows if row["data"] == data]
        columns = {metric: METRICS[metric] for metric in COLUMNS}
        devices = " and ".join(sorted({row["device"] for row in mine}))
        title = f"## {corpora.TITLES[data]}, {DOCUMENTS[data]} documents\n\nOn {devices}."
        blocks.append(f"{title}\n\n{table(TRAININGS, mine, columns)}")
    return "\n\n".join(blocks)


def main():
    """Run what is missing and write the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--corpora", nargs="+", default=CORPORA, choices=CORPORA)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1])
    parser.add_argument(
        "--trainings", nargs="+", choices=TRAININGS, default=list(TRAININGS), metavar="NAME"
    )
    parser.add_argument(
        "--paths", nargs="+", default=[], type=corpora.named_path, metavar="CORPUS=PATH"
    )
    parser.add_argument("--jobs", type=int, default=2)
    options = parser.parse_args()
    rows = read(RESULTS)
    done = {(row["data"], row["name"], row["seed"]) for row in rows}
    wanted = [
        (data, name, seed)
        for seed in options.seeds
        for data in options.corpora
        for name in options.trainings
    ]
    todo = [delayed(train)(*run, dict(options.paths)) for run in wanted if run not in done]
    for row in Parallel(options.jobs, return_as="generator_unordered")(todo):
        append(RESULTS, [row])
        rows.append(row)
        print(row["data"], row["name"], row["seed"], f"{row['f1_macro']:.4f}", flush=True)
    title = "Weight averages, dropout, R-Drop, mixup and linear probing first"
    write_block(RESULTS.with_suffix(".md"), title, page(rows))


if __name__ == "__main__":
    main()
