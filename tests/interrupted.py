"""Fits that are killed again and again, beside one that is left alone; run as a script.

python tests/interrupted.py <configuration> <folder of a model> <folder to work in>

Prints as JSON how often the fit was killed and in what the results differ. The attempts are forked
from this process, which has the libraries loaded and has never used a thread of theirs.
"""

import json
import os
import pickle
import random
import signal
import sys
import time
import warnings
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"

import numpy as np
import safetensors.torch
import torch
from skorch.callbacks import Callback, EarlyStopping
from torch.utils.data import Sampler

from skfocal import BertFocalClassifier, Checkpoint
from skfocal._training.checkpoints import describe
from skfocal._training.net import FocalNet

WORDS = {"ham": "meeting lunch project report team", "spam": "win money prize cash now"}


class Draws(Sampler):
    """Draws from a generator of its own, and from torch's."""

    def __init__(self, n):
        self.n = n
        self.generator = torch.Generator().manual_seed(3)

    def __len__(self):
        return self.n

    def __iter__(self):
        own = torch.randint(self.n, (self.n // 2,), generator=self.generator)
        return iter(own.tolist() + torch.randint(self.n, (self.n - self.n // 2,)).tolist())


def draws(labels):
    return Draws(len(labels))


class Remembers(Callback):
    """Sums losses, and uses the global generators."""

    def on_train_begin(self, net, **kwargs):
        self.sum_ = 0.0

    def on_batch_end(self, net, y_pred=None, training=False, **kwargs):
        if training:
            self.sum_ += float(y_pred.sum()) + random.random() + np.random.rand()

    def on_epoch_end(self, net, **kwargs):
        net.history.record("remembered", self.sum_)


CONFIGURATIONS = {
    "plain": {},
    "stops": {
        "dropout": 0.1, "early_stopping": 4, "accumulate": 2, "max_epochs": 7,
        "alpha": "balanced", "sampler": "sqrt", "temperature": "auto",
    },
    "defers": {"defer": 0.5, "alpha": "effective", "freeze": 1, "max_epochs": 6},
    "samples": {
        "sampler": draws, "callbacks": [Remembers(), EarlyStopping("train_loss", patience=4)],
        "random_state": None, "schedule": "cosine", "nonfinite": "skip",
    },
    "progressive": {"sampler": "progressive", "dropout": None, "normalize": "weights"},
}  # fmt: skip


def documents(n=70):
    rng = np.random.RandomState(0)
    y = np.where(np.arange(n) % 4, "ham", "spam")
    return [" ".join(rng.choice(WORDS[c].split(), rng.randint(2, 12))) for c in y], y


def fit(model, name, out, **params):
    """Fit and keep all that may be compared."""
    settings = {"lr": 3e-3, "batch_size": 8, "random_state": 0, "max_epochs": 5, "max_length": 24}
    random.seed(1)
    np.random.seed(2)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        clf = BertFocalClassifier(model, **settings | CONFIGURATIONS[name] | params)
        X, y = documents()
        clf.fit(X, y)
    result = {
        "weights": {k: v.numpy() for k, v in clf.net_.module_.state_dict().items()},
        "history": [{k: v for k, v in row.items() if k != "dur"} for row in clf.history_],
        "probabilities": clf.predict_proba(X),
        "class losses": clf.class_loss_,
        "temperature": clf.temperature_,
        "generators": (random.random(), np.random.rand()),
    }
    Path(out).write_bytes(pickle.dumps(result))


def kill():
    os.kill(os.getpid(), signal.SIGKILL)


def kill_at_step(n):
    """Let a training be killed just before or after its n-th update."""
    notify, seen = FocalNet.notify, [0]
    moment = random.choice(["on_grad_computed", "on_batch_end", "on_batch_begin"])

    def counted(net, method, **kwargs):
        notify(net, method, **kwargs)
        seen[0] += method == moment
        if seen[0] == n:
            kill()

    FocalNet.notify = counted


def kill_in_write(n):
    """Let the process be killed somewhere in its n-th write of a checkpoint."""
    save, fsync, rename, seen = safetensors.torch.save_file, os.fsync, Path.rename, [0]
    place = random.choice(["half a file", "file", "disk", "name", "named"])

    def save_file(tensors, path):
        seen[0] += 1
        save(tensors, path)
        if seen[0] == n and place == "half a file":
            os.truncate(path, os.path.getsize(path) // 2)
        if seen[0] == n and "file" in place:
            kill()

    def to_disk(descriptor):
        fsync(descriptor)
        if seen[0] == n and place == "disk":
            kill()

    def give_name(path, target):
        if seen[0] == n and place == "name":
            kill()
        renamed = rename(path, target)
        if seen[0] == n and place == "named":
            kill()
        return renamed

    safetensors.torch.save_file, os.fsync, Path.rename = save_file, to_disk, give_name


def attempt(function, *args, injury=None, seconds=None, **params):
    """Call a function in a process of its own; return whether it came to its end."""
    pid = os.fork()
    if pid == 0:
        try:
            if injury:
                injury[0](injury[1])
            function(*args, **params)
            os._exit(0)
        except BaseException as error:
            sys.stderr.write(f"{error!r}\n")
            os._exit(1)
    if seconds is not None:
        time.sleep(seconds)
        os.kill(pid, signal.SIGKILL)
    status = os.waitpid(pid, 0)[1]
    if os.WIFEXITED(status) and os.WEXITSTATUS(status):
        sys.exit("an attempt failed")
    return not os.WIFSIGNALED(status)


def differences(left, right):
    """Return the names of the results that are not the same to the bit."""
    return [name for name in left if describe(left[name]) != describe(right[name])]


def main(name, model, folder, seed=0):
    """Print what the killed fits and the one left alone differ in."""
    alone, killed = Path(folder, "alone"), Path(folder, "killed")
    assert attempt(fit, model, name, alone)
    random.seed(seed)
    params = {"checkpoint": Checkpoint(str(Path(folder, "checkpoints")), steps=1)}
    # The first kill comes late enough that there is a checkpoint: random_state=None begins anew
    # without one.
    injuries = [(kill_at_step, random.randint(1, 4)) for _ in range(3)]
    injuries += [(kill_in_write, random.randint(1, 2)) for _ in range(4)]
    random.shuffle(injuries)
    n_killed = 0
    for injury in [(kill_at_step, 3), *injuries]:
        n_killed += not attempt(fit, model, name, killed, injury=injury, **params)
    for _ in range(2):
        n_killed += not attempt(fit, model, name, killed, seconds=0.3 * random.random(), **params)
    assert attempt(fit, model, name, killed, **params)
    results = [pickle.loads(path.read_bytes()) for path in (alone, killed)]
    assert attempt(fit, model, name, killed, **params)  # from the checkpoint of its end
    results.append(pickle.loads(killed.read_bytes()))
    found = {"killed": n_killed, "differ": differences(*results[:2])}
    # A fit that has ended draws nothing more from the global generators.
    at_end = set(differences(*results[1:])) - {"generators"}
    found |= {"differ at the end": sorted(at_end)}
    found |= {"epochs": len(results[0]["history"])}
    print(json.dumps(found))  # noqa: T201


if __name__ == "__main__":
    main(*sys.argv[1:])
