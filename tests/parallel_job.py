"""What two processes do under torchrun or accelerate, for test_parallel.py.

The first argument is a folder with the tiny encoder in it, where results go; the others name the
functions to call, one after the other.
"""

import pickle
import sys
import time
import warnings
from pathlib import Path

import numpy as np
import torch
from skorch.callbacks import Callback
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV

from skfocal import BertFocalClassifier

torch.set_num_threads(1)
WORDS = {"spam": "win money prize cash now", "ham": "meeting lunch project report team"}

# Each is a fit that one process has to repeat with a batch of twice the size.
FITS = {
    "plain": {},
    "balanced": {"sampler": "balanced", "alpha": "balanced", "normalize": "weights"},
    "sqrt": {"sampler": "sqrt", "normalize": "sum", "lr": 3e-4},
    "progressive": {"sampler": "progressive", "accumulate": 2},
    "scored": {"train_split": 0.3, "early_stopping": True, "decision": "tuned"},
    "pruned": {"prune": 0.5, "alpha": {"ham": 1.0, "spam": 3.0}},
    "chunked": {"long_documents": "chunk", "max_length": 8},
    "frozen": {"freeze": 1, "layer_decay": 0.9},
    "skipping": {"nonfinite": "skip", "gradient_clip": 0.1},
}


def documents(n=113, seed=0):
    """Return texts of two classes, one three times as frequent, and their labels."""
    rng = np.random.RandomState(seed)
    y = np.where(np.arange(n) % 4 == 0, "spam", "ham")
    X = [" ".join(rng.choice(WORDS[c].split(), rng.randint(2, 14))) for c in y]
    return X, y


def classifier(folder, batch_size=8, **settings):
    """Return a small, fast classifier; 113 documents are 7 updates of 16 and one of 1."""
    basis = {"max_epochs": 3, "lr": 3e-3, "batch_size": batch_size, "random_state": 0}
    return BertFocalClassifier(str(folder / "tiny"), **{**basis, **settings})


def weights(clf):
    """Return the weights as arrays by name."""
    return {k: v.numpy() for k, v in clf.net_.plain_module().state_dict().items()}


def report(folder, name, rank, **values):
    """Write a process's results."""
    (folder / f"{name}-{rank}.pickle").write_bytes(pickle.dumps(values))


def fits(folder, rank):
    """Fit with each of FITS and predict an odd number of documents."""
    X, y = documents()
    for name, settings in FITS.items():
        clf = classifier(folder, **settings).fit(X, y)
        report(
            folder,
            name,
            rank,
            weights=weights(clf),
            history=[{k: v for k, v in row.items() if k != "batches"} for row in clf.history_],
            sizes=[row.get("train_batch_size") for row in clf.history_[0, "batches"]],
            proba=clf.predict_proba(X[:11]),
            one=clf.predict_proba(X[:1]),
            class_loss=clf.class_loss_,
            clf=pickle.dumps(clf),
            cloned=repr(clone(clf)),
        )


if __name__ == "__main__":
    import os

    warnings.simplefilter("ignore")
    folder, rank = Path(sys.argv[1]), int(os.environ["RANK"])
    for function in sys.argv[2:]:
        globals()[function](folder, rank)
