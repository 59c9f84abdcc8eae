"""Fit and predict on the simulated device and on the CPU; print what differs, as JSON."""

import contextlib
import json
import pickle
import sys
import tempfile
from pathlib import Path
from unittest import mock

import numpy as np
import torch
from conftest import imbalanced
from simulated_device import NAME, Device, ignore_autocast, register
from skorch.callbacks import Callback
from tiny_encoders import FAMILIES

from skfocal import BertFocalClassifier, Checkpoint
from skfocal.callbacks import ClassLoss

X, Y = imbalanced()
SEVERAL = np.column_stack([Y == "spam", np.arange(len(Y)) % 3 == 0]).astype(int)
NEW = imbalanced(seed=1)


class Stop(Exception):
    """Ends a fit in its middle."""


class Interrupt(Callback):
    """Ends the first fit after three batches."""

    has_ended = False

    def on_batch_end(self, net, training=False, **kwargs):
        if training and len(net.history[-1, "batches"]) == 3 and not Interrupt.has_ended:
            Interrupt.has_ended = True
            raise Stop


def own_loss_on_the_cpu(logits, target):
    """Return a loss with weights that nobody has moved."""
    return torch.nn.functional.cross_entropy(logits, target, torch.ones(2), reduction="none")


def fitted(folder, device, y=Y, **params):
    settings = {"max_epochs": 2, "lr": 3e-3, "batch_size": 8, "random_state": 0}
    clf = BertFocalClassifier(folder, device=device, **{**settings, **params})
    eval_set = NEW if params.get("early_stopping") else None
    return clf.fit(X, y, eval_set=eval_set)


def in_chunks(folder, device):
    clf = BertFocalClassifier(folder, device=device, lr=3e-3, batch_size=8, random_state=0)
    for rows in (slice(0, 20), slice(20, 40)):
        clf.partial_fit(X[rows], Y[rows], classes=["ham", "spam"])
    return clf


def resumed(folder, device):
    few = mock.patch.object(ClassLoss, "_N_KEPT", 2)  # so that sums are stored, too
    with tempfile.TemporaryDirectory() as home, few:
        checkpoint = Checkpoint(str(Path(home) / "checkpoint"), steps=1)
        Interrupt.has_ended = False
        with contextlib.suppress(Stop):
            fitted(folder, device, checkpoint=checkpoint, callbacks=[("ends", Interrupt())])
        return fitted(folder, device, checkpoint=checkpoint, callbacks=[("ends", Interrupt())])


def copied(folder, device):
    return pickle.loads(pickle.dumps(fitted(folder, device)))


WAYS = {
    "plain": fitted,
    "weights and a sampler": lambda *a: fitted(*a, alpha="sqrt", sampler="sqrt"),
    "mean": lambda *a: fitted(*a, pooling="mean", refit_head="balanced"),
    "windows": lambda *a: fitted(*a, long_documents="windows", max_length=6),
    "frozen": lambda *a: fitted(*a, freeze=1),
    "ldam": lambda *a: fitted(*a, loss="ldam", alpha="effective"),
    "accumulated": lambda *a: fitted(*a, accumulate=2, normalize="weights"),
    "early stopping": lambda *a: fitted(*a, early_stopping=1, temperature="auto", decision="tuned"),
    "several labels": lambda *a: fitted(*a, y=SEVERAL),
    "adapters": lambda *a: fitted(*a, peft={"peft_type": "LORA", "r": 2}),
    "checkpointed layers": lambda *a: fitted(*a, gradient_checkpointing=True),
    "partial_fit": in_chunks,
    "resumed": resumed,
    "pickled": copied,
}


def compared(way, folder):
    """Return how far the predictions on the two devices are apart."""
    expected = way(folder, "cpu")
    with Device():
        clf = way(folder, NAME)
        kinds = {p.device.type for p in clf.net_.module_.parameters()}
        return {
            "devices": sorted(kinds),
            "proba": float(np.abs(clf.predict_proba(X) - expected.predict_proba(X)).max()),
            "features": float(np.abs(clf.transform(X) - expected.transform(X)).max()),
            "spread": float(np.ptp(expected.predict_proba(X)[:, 0])),
        }


def counted(folder, n_times, **params):
    """Return what an epoch of so many times 40 documents moves and reads."""
    with Device() as device:
        settings = {"lr": 3e-3, "batch_size": 8, "random_state": 0, **params}
        counts = []
        for n_epochs in (1, 2):
            before = device.counts.copy()
            clf = BertFocalClassifier(folder, device=NAME, max_epochs=n_epochs, **settings)
            clf.fit(X * n_times, np.tile(Y, n_times))
            counts.append({key: device.counts[key] - before[key] for key in device.counts})
        return {key: counts[1][key] - counts[0][key] for key in counts[0]}


def refused(folder):
    """Return the error of a fit whose loss mixes tensors of two devices."""
    try:
        with Device():
            fitted(folder, NAME, loss=own_loss_on_the_cpu, loss_params={})
    except RuntimeError as error:
        return str(error)


def main():
    register()
    kept = ignore_autocast()
    with tempfile.TemporaryDirectory() as folder:
        FAMILIES["bert"](Path(folder))
        result = {"ways": {name: compared(way, folder) for name, way in WAYS.items()}}
        result["counts"] = [counted(folder, n) for n in (1, 3)]
        result["bfloat16"] = counted(folder, 1, precision="bfloat16")
        result["refused"] = refused(folder)
    del kept
    json.dump(result, sys.stdout)


if __name__ == "__main__":
    main()
