"""skorch callbacks: the learning-rate schedule, the validation score, the progress line."""

import contextlib
import copy
import inspect
import math
import sys
import time

import numpy as np
import torch
from skorch.callbacks import Callback
from tqdm.auto import tqdm

from skfocal._runtime.warnings import warn
from skfocal._utils.messages import excerpts

SCHEDULES = ("linear", "cosine", "constant")


class WarmupSchedule(Callback):
    """Scale every group's learning rate: up from zero, then down by the schedule.

    Parameters
    ----------
    schedule : {"linear", "cosine", "constant"}, default="linear"
        How the rate goes from its peak to zero after the last update ("constant": it stays).
    warmup : float, default=0.1
        Fraction of all updates over which the rate rises to its peak, in [0, 1).
    n_updates : int, default=None
        All updates; the rate stays as it is after them. None: those of this training.
    first_update : int, default=0
        Updates of earlier trainings on the same schedule.
    """

    def __init__(self, schedule="linear", warmup=0.1, n_updates=None, first_update=0):
        self.schedule = schedule
        self.warmup = warmup
        self.n_updates = n_updates
        self.first_update = first_update

    def factor(self, step, n_steps):
        """Return the multiple of the peak rate at an update.

        Parameters
        ----------
        step : float
            Number of the update, from 0.
        n_steps : int
            All updates.

        Returns
        -------
        float
        """
        n_warmup = math.ceil(self.warmup * n_steps)
        if step < n_warmup:
            return min((step + 1) / n_warmup, 1.0)
        if self.schedule == "constant":
            return 1.0
        done = min((step - n_warmup) / max(n_steps - n_warmup, 1), 1.0)
        return 1 - done if self.schedule == "linear" else (1 + math.cos(math.pi * done)) / 2

    def on_train_begin(self, net, X=None, y=None, **kwargs):
        """Remember the peak rates."""
        self.peaks_ = [group["lr"] for group in net.optimizer_.param_groups]
        self.step_ = self.first_update
        self.n_steps_ = self.n_updates or net.updates_per_epoch() * net.max_epochs

    def on_grad_computed(self, net, named_parameters, **kwargs):
        """Set the rate of the coming update."""
        factor = self.factor(self.step_, self.n_steps_)
        for group, peak in zip(net.optimizer_.param_groups, self.peaks_, strict=True):
            group["lr"] = factor * peak
        self.step_ += 1


class DeferredWeight(Callback):
    """Train the first epochs without the class weights of the criterion.

    Parameters
    ----------
    n_epochs : int
        How many.

    References
    ----------
    Cao et al.: Learning Imbalanced Datasets with Label-Distribution-Aware Margin Loss, NeurIPS
    2019 (arXiv:1906.07413), deferred re-weighting.
    """

    def __init__(self, n_epochs):
        self.n_epochs = n_epochs

    def on_train_begin(self, net, X=None, y=None, **kwargs):
        """Keep the weights and put ones in their place."""
        self.weight_ = net.criterion_.weight.clone()
        if self.n_epochs:
            net.criterion_.weight.fill_(1.0)

    def on_epoch_begin(self, net, **kwargs):
        """Put them back when their epoch has come."""
        if len(net.history) > self.n_epochs:
            net.criterion_.weight.copy_(self.weight_)

    def on_train_end(self, net, X=None, y=None, **kwargs):
        """Put them back also if training ended before, and say so."""
        net.criterion_.weight.copy_(self.weight_)
        if len(net.history) <= self.n_epochs:
            warn(
                f"Training ended after {len(net.history)} epochs, before the {self.n_epochs} "
                "epochs without alpha were over: alpha had no effect."
            )


class SkippedUpdates(Callback):
    """Count the updates of each epoch that were skipped; leave them out of its loss."""

    def on_epoch_begin(self, net, **kwargs):
        """Begin an epoch."""
        self.before_ = net.loop_.updates.n_skipped

    def on_epoch_end(self, net, **kwargs):
        """Record the number, and the mean over the batches that have a finite loss."""
        net.history.record("n_skipped", net.loop_.updates.n_skipped - self.before_)
        for kind in ("train", "valid"):
            rows = [row for row in net.history[-1]["batches"] if f"{kind}_loss" in row]
            rows = [row for row in rows if math.isfinite(row[f"{kind}_loss"])]
            if rows:
                losses = [row[f"{kind}_loss"] for row in rows]
                sizes = [row[f"{kind}_batch_size"] for row in rows]
                net.history.record(f"{kind}_loss", float(np.average(losses, weights=sizes)))


class ClassLoss(Callback):
    """Add up how much of an epoch's training loss each class carries.

    Attributes
    ----------
    shares_ : list of ndarray of shape (n_classes,)
        Of each epoch; they sum to 1.
    """

    _N_KEPT = 64  # batches between two sums, so that the device is not asked for each

    def on_train_begin(self, net, X=None, y=None, **kwargs):
        """Begin."""
        self.shares_ = []

    def on_epoch_begin(self, net, **kwargs):
        """Begin an epoch."""
        self.kept_, self.sum_ = [], torch.zeros(())

    def on_batch_end(self, net, batch=None, training=False, y_pred=None, **kwargs):
        """Keep what the losses of the batch are computed from."""
        if training:
            inputs, codes = batch
            self.kept_.append((y_pred.detach(), codes, inputs["sample_weight"]))
            if len(self.kept_) == self._N_KEPT:
                self.settle(net)

    def settle(self, net):
        """Add up what is kept, of all processes.

        Parameters
        ----------
        net : FocalNet
            In training.
        """
        if not self.kept_:
            return
        logits, codes, weight = map(torch.cat, zip(*self.kept_, strict=True))
        self.kept_ = []
        with torch.no_grad():
            each = net.criterion_.per_class(logits, codes.to(logits.device))
            each = each.nan_to_num(0, 0, 0)  # of skipped updates
            own = (weight.to(logits.device)[:, None] * each).double().sum(0)
            self.sum_ = self.sum_ + net.processes.all_reduce_sum(own)

    def on_epoch_end(self, net, **kwargs):
        """Turn the sums into shares."""
        self.settle(net)
        total = self.sum_.cpu().numpy()
        self.shares_.append(total / (total.sum() or 1.0))


class ValidationScore(Callback):
    """Score the validation documents after each epoch; stop early and keep the best weights.

    Parameters
    ----------
    scorer : callable ``(estimator, X, y) -> float``
        A scikit-learn scorer, larger is better.
    name : str
        Its name in the history and in the progress line.
    classes, X, y : ndarray, list of str, ndarray
        Labels in the order of the logits; the validation documents and their labels.
    weight : ndarray of shape (n,) or None
        Their weights, for a scorer that takes them.
    answers : callable ``(logits) -> fitted classifier``
        Answers for the validation documents' logits.
    patience : int, default=None
        Stop after so many epochs without a better score, and go back to the best epoch's
        weights. None: only score.
    """

    def __init__(self, scorer, name, classes, X, y, weight, answers, patience=None):
        self.scorer = scorer
        self.name = name
        self.classes = classes
        self.X = X
        self.y = y
        self.weight = weight
        self.answers = answers
        self.patience = patience

    def on_train_begin(self, net, X=None, y=None, **kwargs):
        """Forget an earlier training."""
        self.best_score_, self.best_epoch_, self.best_state_ = -np.inf, None, None

    def score(self, answers):
        """Return the score of a classifier for the validation documents.

        Parameters
        ----------
        answers : fitted classifier
            Its answers are those for the validation documents, whatever it is asked.

        Returns
        -------
        float
        """
        weighted = {} if self.weight is None else {"sample_weight": self.weight}
        try:
            return self.scorer(answers, self.X, self.y, **weighted)
        except ValueError as error:
            several = np.ndim(self.y) == 2
            absent = self.classes[~self.y.any(0)] if several else np.setdiff1d(self.classes, self.y)
            if not len(absent):  # then it is the scorer's own affair
                raise
            raise ValueError(
                f"scoring={self.name!r} cannot score the held-out documents: {error} If it is "
                f"because they have none of the classes {excerpts(absent.tolist())}, hold out "
                "more, or score with 'f1_macro'."
            ) from error

    def on_epoch_end(self, net, **kwargs):
        """Score the logits that the validation pass left in the net."""
        # By one process: a scorer may draw.
        score = net.processes.first(self.score, self.answers(net.loop_.valid_logits))
        epoch = net.history[-1]["epoch"]
        net.history.record("valid_score", float(score))
        if self.patience is None:
            return
        is_best = not score <= self.best_score_ and not np.isnan(score)
        is_best = is_best or self.best_epoch_ is None
        net.history.record("valid_score_best", bool(is_best))
        if is_best:
            self.best_score_, self.best_epoch_ = score, epoch
            self.best_state_ = {k: v.detach().cpu().clone() for k, v in net.state().items()}
        elif epoch - self.best_epoch_ >= self.patience:
            net.loop_.stop = True

    def on_train_end(self, net, X=None, y=None, **kwargs):
        """Go back to the best weights."""
        if self.best_state_ is not None:
            net.set_state(self.best_state_)
            self.best_state_ = None


def takes_weight(scorer):
    """Say whether a scorer can weigh documents.

    Parameters
    ----------
    scorer : callable ``(estimator, X, y) -> float``

    Returns
    -------
    bool
    """
    return "sample_weight" in inspect.signature(getattr(scorer, "_score_func", scorer)).parameters


class Progress(Callback):
    """One line an epoch and a bar within it.

    Parameters
    ----------
    score_name : str, default=None
        What the validation score is called.
    sink : callable, default=print
        Receives the line.
    """

    def __init__(self, score_name=None, sink=print):
        self.score_name = score_name
        self.sink = sink

    def on_epoch_begin(self, net, dataset_train=None, **kwargs):
        """Open the bar."""
        self.start_ = time.perf_counter()
        self.n_documents_ = 0
        self.bar_ = tqdm(
            total=net.loop_.batches.n_draws,
            desc=f"epoch {len(net.history)}/{net.max_epochs}",
            unit=" documents",
            leave=False,
            mininterval=0.2 if sys.stderr.isatty() else 15,
        )

    def on_batch_end(self, net, batch=None, training=False, **kwargs):
        """Move the bar by the documents of the batch."""
        if training:
            self.n_documents_ += len(net.loop_.batch_rows)
            self.seconds_ = time.perf_counter() - self.start_
            self.bar_.update(len(net.loop_.batch_rows))

    def on_epoch_end(self, net, **kwargs):
        """Close the bar and give the line."""
        self.bar_.close()
        row = net.history[-1]
        parts = [f"epoch {row['epoch']}/{net.max_epochs}", f"loss {row['train_loss']:.4f}"]
        if "valid_score" in row:
            parts.append(f"{self.score_name} {row['valid_score']:.4f}")
        parts.append(f"{self.n_documents_ / self.seconds_:.1f} documents/s")
        parts.append(f"{time.perf_counter() - self.start_:.0f} s")
        self.sink("  ".join(parts))

    def on_train_end(self, net, **kwargs):
        """Close a bar that an early end left open."""
        self.bar_.close()


def copies(callbacks):
    """Copy callbacks, or pairs of a name and a callback.

    What of them cannot be copied is shared: the open file or connection of a tracker.

    Parameters
    ----------
    callbacks : list of callback or of (str, callback)

    Returns
    -------
    list
    """
    return [
        (item[0], _copy(item[1])) if isinstance(item, tuple) else _copy(item) for item in callbacks
    ]


def _copy(callback):
    try:
        return copy.deepcopy(callback)
    except Exception:  # objects refuse with errors of many kinds
        copied = copy.copy(callback)
    for name, value in vars(callback).items():
        with contextlib.suppress(Exception):
            setattr(copied, name, copy.deepcopy(value))
    return copied
