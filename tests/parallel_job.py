"""What two processes do under torchrun or accelerate, for test_parallel.py.

The first argument is a folder with the tiny encoder in it, where results go; the others name the
functions to call, one after the other.
"""

import multiprocessing
import os
import pickle
import signal
import sys
import threading
import time
import warnings
from pathlib import Path
from unittest import mock

import numpy as np
import torch
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV, ShuffleSplit
from skorch.callbacks import Callback

import skfocal
from skfocal import BertFocalClassifier, Checkpoint
from skfocal._data.tokenization import encode
from skfocal._encoder.pretrained import load_encoder
from skfocal._training.checkpoints import Checkpoints

torch.set_num_threads(1)
WORDS = {"spam": "win money prize cash now", "ham": "meeting lunch project report team"}

# Each is a fit that one process has to repeat with a batch of twice the size.


def repeated(y):
    """Return a torch sampler, which draws from torch's generator."""
    weight = np.where(np.asarray(y) == "spam", 3.0, 1.0)
    return torch.utils.data.WeightedRandomSampler(weight, len(y))


FITS = {
    "plain": {},
    "drawn": {"sampler": repeated},
    "balanced": {"sampler": "balanced", "alpha": "balanced", "normalize": "weights"},
    "sqrt": {"sampler": "sqrt", "normalize": "sum", "lr": 3e-4},
    "progressive": {"sampler": "progressive", "accumulate": 3},
    "scored": {"train_split": 0.3, "early_stopping": True, "decision": "tuned"},
    "weighted": {"alpha": {"ham": 1.0, "spam": 3.0}},
    "windows": {"long_documents": "windows", "max_length": 8},
    "frozen": {"freeze": 1, "layer_decay": 0.9},
    "pooled": {"pooling": "mean", "freeze": 1},
    "refitted": {"pooling": "mean", "refit_head": "balanced"},
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
    basis = {"max_epochs": 4, "lr": 1e-3, "batch_size": batch_size, "random_state": 0}
    return BertFocalClassifier(str(folder / "tiny"), **{**basis, **settings})


def weights(clf):
    """Return the weights as arrays by name."""
    return {k: v.cpu().numpy() for k, v in clf.net_.state().items()}


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
            features=clf.transform(X[:11]),
            class_loss=clf.class_loss_,
            clf=pickle.dumps(clf),
            cloned=repr(clone(clf)),
        )


class SingleProcess(Callback):
    """A callback that reports, in the middle of a training, how much this process holds."""

    def on_grad_computed(self, net, named_parameters, **kwargs):
        """Count the numbers in this process."""
        self.own_, self.all_ = 0, 0
        for p in net.module_.parameters():
            self.own_ += (p.to_local() if hasattr(p, "to_local") else p).numel()
            self.all_ += p.numel()

    def on_train_end(self, net, **kwargs):
        """Hand them on."""
        net.numbers = self.own_, self.all_
        net.moments_kept = sum(
            (v.to_local() if hasattr(v, "to_local") else v).numel()
            for state in net.optimizer_.state.values()
            for v in state.values()
        )


def sharded(folder, rank):
    """Fit with a part of the weights in each process."""
    X, y = documents()
    settings = {"accumulate": 2, "train_split": 0.3, "early_stopping": True, "freeze": 1}
    clf = classifier(folder, callbacks=[SingleProcess()], **settings).fit(X, y)
    report(
        folder,
        "sharded",
        rank,
        weights=weights(clf),
        numbers=clf.net_.numbers,
        moments=clf.net_.moments_kept,
        score=clf.history_[-1, "valid_score"],
        proba=clf.predict_proba(X[:11]),
        clf=pickle.dumps(clf.set_params(callbacks=None)),
    )
    long = classifier(folder, long_documents="windows", max_length=8).fit(X, y)
    report(folder, "sharded-windows", rank, weights=weights(long))
    checkpoints(folder, rank)
    partly(folder, rank)


class Fails(Callback):
    """Raise in some processes once so many updates are made."""

    def __init__(self, ranks, n_updates):
        self.ranks = ranks
        self.n_updates = n_updates

    def note(self):
        """Write down when it was."""
        Path(sys.argv[1], "failed").write_text(str(time.time()))

    def on_train_begin(self, net, **kwargs):
        """Begin to count."""
        self.n_ = 0

    def on_batch_end(self, net, training=False, **kwargs):
        """Count an update, and raise after the last."""
        self.n_ += training
        if self.n_ == self.n_updates and int(os.environ.get("RANK", 0)) in self.ranks:
            self.fail()

    def fail(self):
        """Raise."""
        self.note()
        raise ValueError("made to fail")


class Dies(Fails):
    """Be killed instead, as by the kernel when memory is short."""

    def fail(self):
        """Go without a word."""
        self.note()
        os.kill(os.getpid(), signal.SIGKILL)


def interrupted(folder, name, batch_size, **settings):
    """Return a classifier whose fit failed after its second checkpoint, which is of update 10."""
    clf = classifier(
        folder, batch_size, checkpoint=Checkpoint(str(folder / name), steps=5), **settings
    )
    write = Checkpoints.write

    def write_and_fail(self, state):
        write(self, state)
        if (self.folder / "checkpoint-000002").exists():
            raise ValueError("made to fail")

    with mock.patch.object(Checkpoints, "write", write_and_fail):
        error = error_of(clf.fit, *documents())
    assert error == "ValueError: made to fail", error
    return clf


def checkpoints(folder, rank):
    """Go on with a fit of two processes and of one, and leave one for a single process."""
    dropping = {"dropout": 0.1, "sampler": "balanced"}
    whole = classifier(folder, checkpoint=Checkpoint(str(folder / "whole"), steps=5), **dropping)
    again = interrupted(folder, "again", 8, **dropping)
    report(
        folder,
        "checkpoints",
        rank,
        whole=weights(whole.fit(*documents())),
        again=weights(again.fit(*documents())),
        class_loss=[whole.class_loss_, again.class_loss_],
        of_one=weights(
            classifier(
                folder, checkpoint=Checkpoint(str(folder / "of-one"), steps=5), train_split=0.2
            ).fit(*documents())
        ),
        refused=error_of(
            classifier(folder, 16, checkpoint=str(folder / "again"), **dropping).fit, *documents()
        ),
    )
    interrupted(folder, "of-two", 8, train_split=0.2)


def error_of(function, *args):
    """Return the message of the error that a call raises."""
    try:
        function(*args)
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return None


def partly(folder, rank):
    """Fit in two chunks."""
    X, y = documents()
    clf = classifier(folder)
    for part in (slice(0, 50), slice(50, None)):
        clf.partial_fit(X[part], y[part], classes=["ham", "spam"])
    report(folder, "partly", rank, weights=weights(clf))


def many(folder, rank):
    """Fit documents that are too many to keep their token ids."""
    encoded = []

    def counted(backend, texts, truncation):
        encoded.extend(texts)
        return encode(backend, texts, truncation)

    with (
        mock.patch("skfocal._data.tokens.CACHED_DOCUMENTS", 10),
        mock.patch("skfocal._data.tokens.encode", counted),
    ):
        clf = classifier(folder).fit(*documents())
    report(folder, "many", rank, encoded=encoded, weights=weights(clf))


def labels(folder, rank):
    """Fit several labels a document."""
    X, y = documents()
    Y = np.stack([y == "spam", np.arange(len(y)) % 3 == 0], axis=1).astype(int)
    clf = classifier(folder, alpha="balanced", normalize="weights").fit(X, Y)
    report(folder, "labels", rank, weights=weights(clf))


def with_idle_weight(*args, **kwargs):
    """Load an encoder that has a weight which does nothing."""
    encoder, head = load_encoder(*args, **kwargs)
    encoder.idle = torch.nn.Parameter(torch.ones(3))
    return encoder, head


def others(folder, rank):
    """Do what has no counterpart in one process, or is not to be divided."""
    X, y = documents()
    unseeded = [classifier(folder, random_state=None).fit(X, y) for _ in range(2)]
    one = classifier(folder).fit(X, y)
    with skfocal.alone():
        by_itself = classifier(folder, 16).fit(X, y) if rank else None
        proba = one.predict_proba(X) if rank == 0 else None
    one.save_pretrained(folder / "saved")
    with mock.patch("skfocal._encoder.module.load_encoder", with_idle_weight):
        idle = classifier(folder).fit(X, y)
    report(
        folder,
        "others",
        rank,
        unseeded=[weights(clf) for clf in unseeded],
        by_itself=by_itself and weights(by_itself),
        one=weights(one),
        idle=weights(idle),
        proba=[proba, one.predict_proba(X)],
        differs=error_of(classifier(folder).fit, [f"{rank} {text}" for text in X], y),
        settings=error_of(classifier(folder, lr=1e-3 * (rank + 1)).fit, X, y),
        alike=error_of(classifier(folder, callbacks=[Fails((0, 1), 3)]).fit, X, y),
        asked=error_of(one.predict, X[rank:]),
    )


class Refused(Exception):
    """An error that cannot be sent."""

    def __init__(self, message, lock):
        super().__init__(message)
        self.lock = lock


def of_its_own(labels):
    """Return a torch sampler that draws otherwise, and another number, in each process."""
    rank = int(os.environ["RANK"])
    generator = torch.Generator().manual_seed(rank)
    return torch.utils.data.RandomSampler(
        range(len(labels)), True, 100 + 10 * rank, generator=generator
    )


def refusing(labels):
    """Return a torch sampler that fails when it draws the first epoch."""

    class Refuses(torch.utils.data.SequentialSampler):
        n = 0

        def __iter__(self):
            self.n += 1
            if self.n > 1:
                raise Refused("made to fail", threading.Lock())
            return super().__iter__()

    return Refuses(labels)


def at_random(estimator, X, y):
    """Score otherwise in each process."""
    return np.random.RandomState().rand()


class Decides(Callback):
    """Does another thing in each process."""

    def on_train_end(self, net, **kwargs):
        with torch.no_grad():
            next(net.module_.parameters()).add_(torch.distributed.get_rank())


class Draws(Callback):
    """Keeps a random number of torch, as dropout draws them."""

    drawn = None

    def on_epoch_end(self, net, **kwargs):
        type(self).drawn = float(torch.rand(1))


def in_a_fork(folder, queue):
    """Fit in a process that a process has forked."""
    queue.put(weights(classifier(folder, 16).fit(*documents())))


def unlike(folder, rank):
    """Fit with what is another in each process, and beside the others."""
    X, y = documents()
    stops = {"train_split": 0.3, "early_stopping": 2}
    split = classifier(folder, train_split=ShuffleSplit(1, test_size=0.3), temperature="auto")
    drawn = classifier(folder, sampler=of_its_own, alpha="balanced").fit(X, y)
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    process = context.Process(target=in_a_fork, args=(folder, queue))
    process.start()
    forked = queue.get()
    process.join()
    classifier(folder, callbacks=[Draws()]).fit(X, y)
    report(
        folder,
        "unlike",
        rank,
        draws=Draws.drawn,
        decided=error_of(classifier(folder, callbacks=[Decides()]).fit, X, y),
        split=weights(split.fit(X, y)),
        temperature=split.temperature_,
        scored=weights(classifier(folder, scoring=at_random, **stops).fit(X, y)),
        drawn=weights(drawn),
        class_weight=drawn.class_weight_,
        forked=forked,
        refused=error_of(classifier(folder, sampler=refusing).fit, X, y),
        fewer=error_of(classifier(folder, train_split=0.3).fit, X[rank:], y[rank:]),
        named=error_of(classifier(folder).fit, X, np.char.add(y, str(rank))),
        weighted=error_of(classifier(folder).fit, X, y, np.arange(len(X)) + rank),
    )
    torch.distributed.destroy_process_group()
    report(folder, "ended", rank, error=error_of(drawn.predict, X))


def searches(folder, rank):
    """Search a grid."""
    X, y = documents()
    search = GridSearchCV(classifier(folder), {"gamma": [0.0, 2.0]}, cv=2, scoring="neg_log_loss")
    search.fit(X, y)
    report(
        folder,
        "searches",
        rank,
        scores=search.cv_results_["mean_test_score"],
        weights=weights(search.best_estimator_),
    )


def on_devices(folder, rank):
    """Fit with NCCL between CUDA devices."""
    clf = classifier(folder, precision="float32").fit(*documents())
    report(folder, "on_devices", rank, device=str(clf.net_.device), weights=weights(clf))


def raises(folder, rank):
    """Fail in one process, where the caller catches the error."""
    try:
        classifier(folder, max_epochs=100, callbacks=[Fails((1,), 12)]).fit(*documents())
    except ValueError:
        sys.stderr.write("caught, and the process goes on")
        time.sleep(1000)


def mistaken(folder, rank):
    """Give one process a parameter that is refused, where the caller catches the error."""
    Fails((1,), 0).note()
    try:
        classifier(folder, lr=-1.0 if rank else 1e-3).fit(*documents())
    except ValueError:
        sys.stderr.write("caught, and the process goes on")
        time.sleep(1000)


def dies(folder, rank):
    """Lose one process."""
    classifier(folder, max_epochs=1000, callbacks=[Dies((1,), 12)]).fit(*documents())


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    folder, rank = Path(sys.argv[1]), int(os.environ["RANK"])
    for function in sys.argv[2:]:
        globals()[function](folder, rank)
