"""Write what the present version leaves behind into ``version-<its number>``, beside this file.

    python tests/golden/make_version.py

Fitted classifiers as pickles, some as skops files and folders, too, and the checkpoints of fits
that were interrupted, with what they said or ended with. They are committed once for each version
that is released, and never written again: later versions of the package have to read them.
"""

import json
import os
import pickle
import shutil
import sys
import tempfile
import warnings
from pathlib import Path
from zipfile import ZIP_DEFLATED

os.environ["OMP_NUM_THREADS"] = "1"
sys.path.insert(0, str(Path(__file__).parent))

import numpy as np
import safetensors.torch
import skops.io
import torch
from make import TEXTS, WORDS, answers, write_encoder
from torch.optim.optimizer import register_optimizer_step_post_hook

import skfocal
from skfocal import BertFocalClassifier, FocalLoss

PROTOCOL = 4  # of pickle: the default of Python 3.8 to 3.13
SETTINGS = {
    "max_epochs": 12,
    "lr": 0.02,
    "batch_size": 4,
    "random_state": 0,
    "device": "cpu",
}
WINDOWS = {
    "max_length": 8,
    "long_documents": "chunk",
    "stride": 2,
    "pooling": "mean",
    "max_chunks": 3,
}
EARLY = {
    "alpha": "effective",
    "beta": 0.99,
    "early_stopping": True,
    "patience": 5,
    "train_split": 0.25,
    "max_epochs": 16,
}

# The parameters that are plain data are stored, and those beside them are not.
FITS = {
    "tuned": (
        {"temperature": "auto", "decision": "tuned", "train_split": 0.5},
        {"loss": FocalLoss(gamma=1.0)},
    ),
    "chunks": ({"alpha": "balanced", "dropout": 0.1, "n_updates": 40}, {}),
    "windows": (WINDOWS, {}),
    "early": ({**EARLY, "prune": 0.3}, {}),
    "labels": ({"loss": "asymmetric", "alpha": "balanced", "max_epochs": 30}, {}),
    "cosines": ({"loss": "ldam", "sampler": "sqrt"}, {}),
}
SKOPS = {"chunks", "windows", "early"}
FOLDERS = {"windows", "early"}
# Interrupted early, where the state of warm-up, weights, epochs and generators matters most.
CHECKPOINTS = {
    "plain": {
        "alpha": "balanced",
        "sampler": "sqrt",
        "dropout": 0.1,
        "accumulate": 2,
        "warmup": 0.5,
    },
    "windows": {**WINDOWS, "alpha": "effective", "beta": 0.99, "defer": 0.5, "warmup": 0.5},
    "early": {**EARLY, "dropout": 0.1, "temperature": "auto", "warmup": 0.5},
    "ended": {"gamma": 1.0, "alpha": "sqrt"},
}
N_UPDATES = {"plain": 5, "windows": 9, "early": 11}  # after which a fit is interrupted, if at all


def documents():
    """Return texts and labels, a quarter of them spam."""
    y = ["ham" if i % 4 else "spam" for i in range(24)]
    lengths = np.random.RandomState(0).randint(1, 16, len(y))
    X = [" ".join(WORDS[c][(i + j) % 5] for j in range(lengths[i])) for i, c in enumerate(y)]
    return X, y


def fitted(name, encoder):
    """Return the classifier of that name."""
    plain, others = FITS[name]
    clf = BertFocalClassifier(encoder, **SETTINGS | plain | others)
    X, y = documents()
    if name == "labels":
        return clf.fit(X, [[y[i], "long"] if len(X[i]) > 40 else [y[i]] for i in range(len(y))])
    if name != "chunks":
        return clf.fit(X, y)
    for _ in range(5):
        clf.partial_fit(X, y, classes=["ham", "spam"])
    return clf


def write_fit(name, encoder, folder):
    """Write a fitted classifier and what it says."""
    clf = fitted(name, encoder).set_params(model="encoder")
    clf._fitted_model = "encoder"
    (folder / f"{name}.pickle").write_bytes(pickle.dumps(clf, protocol=PROTOCOL))
    if name in SKOPS:
        skops.io.dump(clf, folder / f"{name}.skops", compression=ZIP_DEFLATED, compresslevel=9)
    if name in FOLDERS:
        clf.save_pretrained(folder / name)
    recorded = {"parameters": SETTINGS | FITS[name][0], "answers": answers(clf)}
    if name == "chunks":
        recorded["answers_after_another_chunk"] = answers(clf.partial_fit(*documents()))
    write_json(folder / f"{name}.json", recorded)


class Interrupted(Exception):
    """What ends a fit early."""


def fit_and_count(encoder, parameters, limit=None):
    """Return a fitted classifier and its number of updates; after `limit` of them stop."""
    count = 0

    def hook(optimizer, args, kwargs):
        nonlocal count
        count += 1
        if count == limit:
            raise Interrupted

    handle = register_optimizer_step_post_hook(hook)
    try:
        return BertFocalClassifier(encoder, **parameters).fit(*documents()), count
    except Interrupted:
        return None, count
    finally:
        handle.remove()


def write_checkpoint(name, encoder, folder):
    """Write the checkpoints of an interrupted fit, and what it ends with uninterrupted."""
    parameters = SETTINGS | CHECKPOINTS[name]
    clf, n_updates = fit_and_count(encoder, parameters)
    n_done = N_UPDATES.get(name, n_updates)
    checkpoint = {"checkpoint": folder / "run", "checkpoint_steps": 1}
    fit_and_count(encoder, parameters | checkpoint, n_done + 1)
    *older, _ = sorted(folder.glob("run/checkpoint-*"))
    for each in older:
        shutil.rmtree(each)
    shutil.make_archive(folder / "run", "zip", folder / "run")
    shutil.rmtree(folder / "run")
    safetensors.torch.save_file(clf.net_.module_.state_dict(), folder / "end.safetensors")
    recorded = {
        "parameters": parameters,
        "updates_left": n_updates - n_done,
        "train_loss": [float(loss) for loss in clf.history_[:, "train_loss"]],
        "answers": answers(clf),
    }
    write_json(folder / "fit.json", recorded)


def write_json(file, recorded):
    """Write a file that people can read, too."""
    X, y = documents()
    content = {"texts": TEXTS, "X": X, "y": y, **recorded}
    file.write_text(json.dumps(content, indent=1) + "\n")


def main():
    """Write all of it."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore", UserWarning)
    home = Path(__file__).parent / f"version-{skfocal.__version__}"
    home.mkdir()
    write_encoder(home / "encoder")
    with tempfile.TemporaryDirectory() as elsewhere:  # nothing depends on where it lay
        encoder = shutil.copytree(home / "encoder", Path(elsewhere, "encoder"))
        (home / "fits").mkdir()
        for name in FITS:
            write_fit(name, str(encoder), home / "fits")
        for name in CHECKPOINTS:
            (home / "checkpoints" / name).mkdir(parents=True)
            write_checkpoint(name, str(encoder), home / "checkpoints" / name)


if __name__ == "__main__":
    main()
