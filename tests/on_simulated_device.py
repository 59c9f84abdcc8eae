"""Fit and predict on the simulated device and on the CPU; print what differs, as JSON.

    python tests/on_simulated_device.py PART

PART is one of the functions in `PARTS`.
"""

import contextlib
import json
import pickle
import sys
import tempfile
import warnings
from pathlib import Path
from unittest import mock

import numpy as np
import torch
from conftest import imbalanced
from simulated_device import NAME, Device, register, register_autocast
from skorch.callbacks import Callback
from tiny_encoders import FAMILIES

from skfocal import BertFocalClassifier, Checkpoint, clear_cache
from skfocal._encoder.promises import _agrees_in_bfloat16
from skfocal.callbacks import ClassLoss
from skfocal.explanation import _gradients

X, Y = imbalanced()
SEVERAL = np.column_stack([Y == "spam", np.arange(len(Y)) % 3 == 0]).astype(int)
NEW = imbalanced(seed=1)


DTYPES = (torch.float32, torch.bfloat16, torch.float16)


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


def resumed(folder, device, **params):
    few = mock.patch.object(ClassLoss, "_N_KEPT", 2)  # so that sums are stored, too
    with tempfile.TemporaryDirectory() as home, few:
        checkpoint = Checkpoint(str(Path(home) / "checkpoint"), steps=1)
        settings = {"checkpoint": checkpoint, "callbacks": [("ends", Interrupt())]}
        Interrupt.has_ended = False
        with contextlib.suppress(Stop):
            fitted(folder, device, **settings, **params)
        return fitted(folder, device, **settings, **params)


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
HALF = {
    "bfloat16": lambda *a: fitted(*a, precision="bfloat16"),
    "bfloat16, several labels": lambda *a: fitted(*a, y=SEVERAL, precision="bfloat16"),
    "bfloat16, frozen": lambda *a: fitted(*a, freeze=1, precision="bfloat16"),
    "bfloat16, mean": lambda *a: fitted(*a, pooling="mean", precision="bfloat16"),
    "bfloat16, ldam": lambda *a: fitted(*a, loss="ldam", alpha="sqrt", precision="bfloat16"),
    "bfloat16, adapters": lambda *a: fitted(
        *a, peft={"peft_type": "LORA", "r": 2}, precision="bfloat16"
    ),
    "bfloat16, layers again": lambda *a: fitted(
        *a, gradient_checkpointing=True, precision="bfloat16"
    ),
    "float16": lambda *a: fitted(*a, precision="float16"),
    "float16, accumulated": lambda *a: fitted(*a, precision="float16", accumulate=2),
    "float16, resumed": lambda *a: resumed(*a, precision="float16"),
    "predicted in bfloat16": lambda *a: fitted(*a, predict_precision="bfloat16"),
}


def compared(way, folder):
    """Return how far the predictions on the two devices are apart."""
    expected = way(folder, "cpu")
    with Device() as device:
        clf = way(folder, NAME)
        kinds = {p.device.type for p in clf.net_.module_.parameters()}
        return {
            "devices": sorted(kinds),
            "proba": float(np.abs(clf.predict_proba(X) - expected.predict_proba(X)).max()),
            "features": float(np.abs(clf.transform(X) - expected.transform(X)).max()),
            "spread": float(np.ptp(expected.predict_proba(X)[:, 0])),
            "products": {str(dtype)[6:]: device.calls[dtype] for dtype in DTYPES},
            "fused": device.calls["_fused_adamw_"],
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


def explained(folder):
    """Return the attributions of both devices, with parts of few tokens computed again."""
    few = mock.patch.dict(_gradients._AT_ONCE, {"cpu": 10, "cuda": 10})
    with Device(), few:
        return [
            [document.attributions.tolist() for document in fitted(folder, device).explain(X[:2])]
            for device in ("cpu", NAME)
        ]


def refused(folder):
    """Return the error of a fit whose loss mixes tensors of two devices."""
    try:
        with Device():
            fitted(folder, NAME, loss=own_loss_on_the_cpu, loss_params={})
    except RuntimeError as error:
        return str(error)


# -- too little memory -----------------------------------------------------------------------

LONG = [f"{x} {'win money prize cash now ' * 8}" if i % 5 == 0 else x for i, x in enumerate(X)]
BIG = {"batch_size": 40, "max_epochs": 2, "lr": 1e-3, "random_state": 0}


class Begin(Callback):
    """Keeps what the device holds when a training begins."""

    def on_train_begin(self, net, **kwargs):
        Begin.used = Device.current.used()


def weights(clf):
    """Return all weights of a fitted model in one array."""
    return torch.cat([p.detach().cpu().flatten() for p in clf.net_.module_.parameters()]).numpy()


def n_bytes(clf):
    """Return the bytes of a fitted model on the device."""
    module = clf.net_.module_
    parts = [*module.parameters(), *module.buffers(), *clf.net_.criterion_.buffers()]
    return sum(part.numel() * part.element_size() for part in parts)


def attempted(call):
    """Return the warnings and the error of a call as text, and its result."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            result, error = call(), None
        except torch.OutOfMemoryError as raised:
            result, error = None, str(raised)
    return [str(w.message) for w in caught if "memory" in str(w.message)], error, result


def fit_in_parts(folder, share, backward_only=False, **params):
    """Compare a fit with a share of the memory that the batches of another take."""

    def make():
        clf = BertFocalClassifier(folder, device=NAME, callbacks=[Begin()], **{**BIG, **params})
        return clf.fit(LONG, Y)

    with Device(memory=10**12) as device:
        whole = make()
        expected, kept = weights(whole), n_bytes(whole)
        found = {"kept": kept, "used": device.used()}
        # Gradients and two moments are there besides, however small the batches are.
        n_weights = sum(p.numel() for _, p in whole.net_.get_all_learnable_params())
        least = Begin.used + 3 * 4 * n_weights
        memory = int(least + share * (device.peak - least))
        del whole
    clear_cache()  # of frozen layers
    with Device(memory, backward_only) as device:
        messages, error, parts = attempted(make)
        found |= {"messages": messages, "error": error, "n_refused": device.n_refused}
        found["n_in_backward"] = device.n_in_backward
        if parts is not None:
            found["difference"] = float(np.abs(weights(parts) - expected).max())
            found["used in parts"] = device.used()
        del parts
        found["left"] = device.used()
    return found


def predict_in_parts(folder, n_documents, share, **params):
    """Compare a prediction with a share of the memory that the batches of another take."""
    X = LONG[:n_documents]
    with Device(memory=10**12) as device:
        clf = BertFocalClassifier(folder, device=NAME, **{**BIG, **params}).fit(LONG, Y)
        clf.predict_proba(X)  # in another precision, a copy stays
        used, device.peak = device.used(), 0
        whole = clf.predict_proba(X)
        device.memory = int(used + share * (device.peak - used))
        messages, error, parts = attempted(lambda: clf.predict_proba(X))
        found = {"messages": messages, "error": error, "n_refused": device.n_refused}
        if parts is not None:
            found["difference"] = float(np.abs(parts - whole).max())
        return found | {"used": used, "used in parts": device.used()}


# -- the same bits in every run --------------------------------------------------------------


class Look(Callback):
    """Keeps whether torch is deterministic within the fit."""

    seen = None

    def on_batch_end(self, net, **kwargs):
        Look.seen = torch.are_deterministic_algorithms_enabled()


def summed_in_order(logits, target):
    """Cross-entropy by way of an operation that has a deterministic form on the CPU alone."""
    loss = torch.nn.functional.cross_entropy(logits, target, reduction="none")
    return loss.cumsum(0).diff(prepend=loss[:1].detach() * 0)


def put(logits, target):
    """Cross-entropy by way of an operation that has a deterministic form nowhere."""
    loss = torch.nn.functional.cross_entropy(logits, target, reduction="none")
    return torch.zeros_like(loss).put_(torch.arange(len(loss), device=loss.device), loss)


def looked_at(folder, device, **params):
    Look.seen = None
    with Device():
        fitted(folder, device, callbacks=[Look()], **params)
    return [Look.seen, torch.are_deterministic_algorithms_enabled()]


def named(folder, device, loss, deterministic=True):
    """Return the error of a fit, and what torch is set to after it."""
    error = None
    with Device():
        try:
            settings = {"loss": loss, "proba": "softmax", "max_epochs": 1}
            fitted(folder, device, deterministic=deterministic, **settings)
        except RuntimeError as raised:
            error = str(raised)
    return [error, torch.are_deterministic_algorithms_enabled()]


# -- the parts of the tests ------------------------------------------------------------------


def ways(folder):
    found = {name: compared(way, folder) for name, way in WAYS.items()}
    return {"ways": found, "refused": refused(folder), "explained": explained(folder)}


def half(folder):
    found = {name: compared(way, folder) for name, way in HALF.items()}
    with Device():
        model = fitted(folder, NAME).net_.module_.model
        return {"ways": found, "bears bfloat16": _agrees_in_bfloat16(model, 0)}


def counts(folder):
    found = {p: counted(folder, 1, precision=p) for p in ("bfloat16", "float16")}
    return found | {"float32": [counted(folder, n) for n in (1, 3, 7)]}


def memory(folder):
    return {
        "training": fit_in_parts(folder, 0.5),
        "training, backward": fit_in_parts(folder, 0.5, backward_only=True),
        "training, accumulated": fit_in_parts(folder, 0.5, batch_size=20, accumulate=2),
        "training, frozen": fit_in_parts(folder, 0.5, freeze=1),
        "training, bfloat16": fit_in_parts(folder, 0.5, precision="bfloat16"),
        "training, nothing fits": fit_in_parts(folder, 0.001),
        "prediction": predict_in_parts(folder, 40, 0.5),
        "prediction, bfloat16": predict_in_parts(folder, 40, 0.5, predict_precision="bfloat16"),
        "prediction, nothing fits": predict_in_parts(folder, 1, 0.5),
    }


def deterministic(folder):
    same = {
        name: compared(lambda *a, params=params: fitted(*a, deterministic=True, **params), folder)
        for name, params in {
            "plain": {},
            "mean": {"pooling": "mean", "alpha": "sqrt"},
            "windows": {"long_documents": "windows", "max_length": 6},
            "ldam": {"loss": "ldam", "alpha": "effective", "normalize": "weights"},
            "several labels, bfloat16": {"y": SEVERAL, "precision": "bfloat16"},
        }.items()
    }
    return {
        "same": same,
        "seen": [looked_at(folder, NAME, deterministic=on) for on in (True, False)],
        "cumsum": named(folder, NAME, summed_in_order),
        "cumsum on the cpu": named(folder, "cpu", summed_in_order),
        "cumsum, not asked for": named(folder, NAME, summed_in_order, False),
        "put_": named(folder, NAME, put),
    }


PARTS = {part.__name__: part for part in (ways, half, counts, memory, deterministic)}


def main():
    register()
    kept = register_autocast()
    with tempfile.TemporaryDirectory() as folder:
        FAMILIES["bert"](Path(folder))
        result = PARTS[sys.argv[1]](folder)
    del kept
    json.dump(result, sys.stdout)


if __name__ == "__main__":
    main()
