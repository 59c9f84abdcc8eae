"""skorch callbacks: learning-rate schedule, deferred weights, losses, scores and progress."""

import contextlib
import copy
import inspect
import math
import sys
import time
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from skorch.callbacks import Callback
from tqdm.auto import tqdm

from skfocal._runtime.warnings import warn
from skfocal._utils.messages import excerpts

Net: TypeAlias = Any  # a FocalNet, which is made with these callbacks

# What the history calls otherwise with "valid_" before it.
RESERVED_SCORES = {"loss", "loss_best", "score", "score_best", "batch_count", "batch_size"}
SCHEDULES = ("linear", "cosine", "constant")


class WarmupSchedule(Callback):
    """Let the learning rate of every parameter group rise from zero and then fall.

    Parameters
    ----------
    schedule : {"linear", "cosine", "constant"}, default="linear"
        How the rate falls from its peak to zero, which it reaches after the last update.
        "constant": it stays at its peak, and other callbacks may change it after the warm-up.
    warmup : float, default=0.1
        Fraction of all updates, in [0, 1), over which the rate rises to its peak.
    n_updates : int, default=None
        Number of updates in the schedule; after them the rate does not change. None: the number
        of updates of this training.
    first_update : int, default=0
        Number of updates that earlier trainings made on the same schedule.
    """

    def __init__(
        self,
        schedule: str = "linear",
        warmup: float = 0.1,
        n_updates: int | None = None,
        first_update: int = 0,
    ) -> None:
        self.schedule = schedule
        self.warmup = warmup
        self.n_updates = n_updates
        self.first_update = first_update

    def factor(self, step: float, n_steps: int) -> float:
        """Return the learning rate of an update as a multiple of the peak rate.

        Parameters
        ----------
        step : float
            Number of the update, from 0.
        n_steps : int
            Number of updates in the schedule.

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

    def on_train_begin(self, net: Net, X: Any = None, y: Any = None, **kwargs: Any) -> None:
        """Store the peak rates."""
        self.peaks_ = [group["lr"] for group in net.optimizer_.param_groups]
        self.step_ = self.first_update
        n_updates = net.updates_per_epoch() * net.max_epochs
        self.n_steps_ = self.n_updates or n_updates
        ends = self.schedule != "constant" and net.max_epochs > 1  # a chunk is one epoch
        if ends and self.n_steps_ < n_updates:
            warn(
                f"The schedule of n_updates={self.n_updates} ends before the {n_updates} updates "
                "of this training: the learning rate is then 0, and the rest teaches nothing. Set "
                "n_updates=None."
            )

    def on_grad_computed(self, net: Net, named_parameters: Any, **kwargs: Any) -> None:
        """Set the learning rate of the next update."""
        step, self.step_ = self.step_, self.step_ + 1
        if self.schedule == "constant" and step > math.ceil(self.warmup * self.n_steps_):
            return
        factor = self.factor(step, self.n_steps_)
        for group, peak in zip(net.optimizer_.param_groups, self.peaks_, strict=True):
            group["lr"] = factor * peak


class DeferredWeight(Callback):
    """Train the first epochs without the class weights of the criterion.

    Parameters
    ----------
    n_epochs : int
        Number of epochs without class weights.

    References
    ----------
    Cao et al.: Learning Imbalanced Datasets with Label-Distribution-Aware Margin Loss, NeurIPS
    2019 (arXiv:1906.07413), deferred re-weighting.
    """

    def __init__(self, n_epochs: int) -> None:
        self.n_epochs = n_epochs

    def on_train_begin(self, net: Net, X: Any = None, y: Any = None, **kwargs: Any) -> None:
        """Store the weights and replace them with ones."""
        self.weight_ = net.criterion_.weight.clone()
        if self.n_epochs:
            net.criterion_.weight.fill_(1.0)

    def on_epoch_begin(self, net: Net, **kwargs: Any) -> None:
        """Restore the weights once the epochs without them are over."""
        if len(net.history) > self.n_epochs:
            net.criterion_.weight.copy_(self.weight_)

    def on_train_end(self, net: Net, X: Any = None, y: Any = None, **kwargs: Any) -> None:
        """Restore the weights; warn if training ended before they were used."""
        net.criterion_.weight.copy_(self.weight_)
        if len(net.history) <= self.n_epochs:
            warn(
                f"Training ended after {len(net.history)} epochs, before the {self.n_epochs} "
                "epochs without alpha were over: alpha had no effect."
            )


class KeepOnInterrupt(Callback):
    """Let Ctrl-C end the training in good order, and keep what was learned.

    Without this callback, an interrupted fit raises KeyboardInterrupt and leaves the estimator as
    it was. With it, the epoch ends after the present update; the held-out documents are scored,
    early stopping restores the best epoch, and `fit` returns with a warning. "interrupted" is True
    in the last row of the history. A second Ctrl-C raises KeyboardInterrupt at once, as does any
    in several processes, before the first batch or after the last epoch.

    Examples
    --------
    >>> from skfocal import BertFocalClassifier
    >>> from skfocal.callbacks import KeepOnInterrupt
    >>> clf = BertFocalClassifier("some/folder", callbacks=[KeepOnInterrupt()])
    """

    def interrupted(self, net: Net) -> None:
        """Record and warn that the epoch ends early.

        Parameters
        ----------
        net : FocalNet
        """
        rows = net.history[-1]
        net.history.record("interrupted", True)
        warn(
            f"fit was interrupted in epoch {rows['epoch']}, after {net.loop_.n_batches} of "
            f"{len(net.loop_.batches)} batches, and keeps what was learned until then."
        )


class SkippedUpdates(Callback):
    """Count the skipped updates of each epoch, and leave their batches out of its loss."""

    def on_epoch_begin(self, net: Net, **kwargs: Any) -> None:
        """Store the number of earlier skipped updates."""
        self.before_ = net.loop_.updates.n_skipped

    def on_epoch_end(self, net: Net, **kwargs: Any) -> None:
        """Record the number of skipped updates and the mean of the finite losses."""
        net.history.record("n_skipped", net.loop_.updates.n_skipped - self.before_)
        for kind in ("train", "valid"):
            rows = [row for row in net.history[-1]["batches"] if f"{kind}_loss" in row]
            rows = [row for row in rows if math.isfinite(row[f"{kind}_loss"])]
            if rows:
                losses = [row[f"{kind}_loss"] for row in rows]
                sizes = [row[f"{kind}_batch_size"] for row in rows]
                net.history.record(f"{kind}_loss", float(np.average(losses, weights=sizes)))


class ClassLoss(Callback):
    """Compute the share of each class in the training loss of each epoch.

    Attributes
    ----------
    shares_ : list of ndarray of shape (n_classes,)
        Shares in each epoch, which sum to 1.
    """

    _N_KEPT = 64  # batches that are summed together, to wait less often for the device

    def on_train_begin(self, net: Net, X: Any = None, y: Any = None, **kwargs: Any) -> None:
        """Forget an earlier training."""
        self.shares_: list[NDArray[np.float64]] = []

    def on_epoch_begin(self, net: Net, **kwargs: Any) -> None:
        """Set the sums to zero."""
        self.kept_: list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]] = []
        self.sum_ = torch.zeros(())

    def on_batch_end(
        self, net: Net, batch: Any = None, training: bool = False, y_pred: Any = None, **kwargs: Any
    ) -> None:
        """Keep the tensors from which the loss of each class is computed."""
        if training:
            inputs, codes = batch
            self.kept_.append((y_pred.detach(), codes, inputs["sample_weight"]))
            if len(self.kept_) == self._N_KEPT:
                self.settle(net)

    def settle(self, net: Net) -> None:
        """Add the kept batches of all processes to the sums.

        Parameters
        ----------
        net : FocalNet
            The net in training.
        """
        if not self.kept_:
            return
        kept, codes, weight = zip(*self.kept_, strict=True)
        # After a restart from a checkpoint, earlier logits and sums are on the CPU.
        logits = torch.cat([each.to(net.device) for each in kept])
        self.kept_ = []
        with torch.no_grad():
            each = net.criterion_.per_class(logits, torch.cat(codes).to(logits.device))
            each = each.nan_to_num(0, 0, 0)  # skipped updates
            wide = torch.float32 if logits.device.type == "mps" else torch.float64  # it has none
            own = (torch.cat(weight).to(logits.device)[:, None] * each).sum(0, dtype=wide)
            self.sum_ = self.sum_.to(own) + net.processes.all_reduce_sum(own)

    def on_epoch_end(self, net: Net, **kwargs: Any) -> None:
        """Turn the sums into shares."""
        self.settle(net)
        total = self.sum_.cpu().numpy()
        self.shares_.append(total / (total.sum() or 1.0))


class ValidationScore(Callback):
    """Score the held-out documents after each epoch; stop early and keep the best weights.

    Parameters
    ----------
    scorers : dict of str -> callable ``(estimator, X, y) -> float``
        scikit-learn scorers by name; larger is better. The first one decides, and its score is
        ``valid_score`` in the history. With several, each is ``valid_`` and its name, too. A
        single one may return a dict of scores by name.
    classes, X, y : ndarray, list of str, ndarray
        Class labels in the order of the logits; the held-out documents and their labels.
    weight : ndarray of shape (n,) or None
        Sample weights of the documents, for scorers that accept them.
    answers : callable ``(logits) -> fitted classifier``
        Makes a classifier that answers for the held-out documents from their logits.
    patience : int, default=None
        Stop after this many scores without a better one, and restore the weights of the best.
        None: only score.
    steps : int, default=None
        Score after every so many updates, too. None: after each epoch only.
    """

    def __init__(
        self,
        scorers: Mapping[str, Callable[..., Any]],
        classes: NDArray[Any],
        X: Sequence[Any],
        y: NDArray[Any],
        weight: NDArray[np.float64] | None,
        answers: Callable[[NDArray[np.float32]], Any],
        patience: int | None = None,
        steps: int | None = None,
    ) -> None:
        self.scorers = scorers
        self.classes = classes
        self.X = X
        self.y = y
        self.weight = weight
        self.answers = answers
        self.patience = patience
        self.steps = steps

    def on_train_begin(self, net: Net, X: Any = None, y: Any = None, **kwargs: Any) -> None:
        """Forget an earlier training."""
        self.n_updates_ = self.n_misses_ = 0
        self.best_score_ = -np.inf
        self.best_epoch_: int | None = None
        self.best_step_: int | None = None
        self.best_state_: dict[str, torch.Tensor] | None = None

    @property
    def name(self) -> str:
        """Name of the score that decides."""
        return next(iter(self.scorers))

    def score(self, answers: Any) -> float:
        """Return the score that decides.

        Parameters
        ----------
        answers : fitted classifier
            It answers for the held-out documents, whatever X it is given.

        Returns
        -------
        float
        """
        return next(iter(self._named(self.name, answers).values()))

    def scores(self, answers: Any) -> dict[str, float]:
        """Return all scores by name, the one that decides first.

        Parameters
        ----------
        answers : fitted classifier
            As in `score`.

        Returns
        -------
        dict of str -> float
        """
        named: dict[str, float] = {}
        for name in self.scorers:
            named |= self._named(name, answers)
        return named

    def check(self, given: Mapping[str, Any]) -> None:
        """Raise the errors of scikit-learn's scorers, by answers that are all alike.

        Parameters
        ----------
        given : dict
            Scorers by name, as the user gave them. A function of the user's own may count its calls
            and is not called.

        Raises
        ------
        ValueError
            If a scorer cannot score the held-out documents, or the score that early stopping goes
            by is NaN.
        """
        answers = self.answers(np.zeros((len(self.X), len(self.classes)), np.float32))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for name, scorer in self.scorers.items():
                by_name = isinstance(given[name], str)
                function = getattr(scorer, "_score_func", None)
                if not (by_name or getattr(function, "__module__", "").startswith("sklearn.")):
                    continue
                score = next(iter(self._named(name, answers).values()))
                # Others may be NaN for answers that are all alike, as ratios of likelihoods are.
                is_defined = not by_name or "likelihood" in given[name] or not np.isnan(score)
                if not is_defined and self.patience is not None and name == self.name:
                    raise ValueError(
                        f"scoring={name!r} is NaN for the held-out documents, so early_stopping "
                        "cannot tell which epoch is best. Hold out documents of each class, or "
                        "use scoring='f1_macro'."
                    )

    def _named(self, name: str, answers: Any) -> dict[str, float]:
        scorer = self.scorers[name]
        weighted = {}
        if self.weight is not None and takes_weight(scorer):
            weighted = {"sample_weight": self.weight}
        try:
            score = scorer(answers, self.X, self.y, **weighted)
        except ValueError as error:
            several = np.ndim(self.y) == 2
            absent = self.classes[~self.y.any(0)] if several else np.setdiff1d(self.classes, self.y)
            if not (len(absent) or hasattr(scorer, "_score_func")):
                raise  # by a callable of the user's own
            hint = (
                f" If the reason is that they have no document of the classes "
                f"{excerpts(absent.tolist())}, hold out more, or use scoring='f1_macro'."
            )
            raise ValueError(
                f"scoring={name!r} cannot score the held-out documents: {error}"
                + (hint if len(absent) else "")
            ) from error
        if not isinstance(score, Mapping):
            return {name: score}
        if not score or RESERVED_SCORES & set(score):
            raise ValueError(
                "scoring must return a number, or scores by names other than "
                f"{excerpts(sorted(RESERVED_SCORES))}. Got {excerpts(score)}."
            )
        return dict(score)

    def on_batch_end(self, net: Net, training: bool = False, **kwargs: Any) -> None:
        """Count the updates, and score after every `steps` of them."""
        if not training or not net.loop_.is_update:
            return
        self.n_updates_ += 1
        is_last = net.loop_.n_batches == len(net.loop_.batches)  # which the epoch's end scores
        if self.steps and self.n_updates_ % self.steps == 0 and not is_last:
            self._score(net, net.loop_.held_out_logits(), net.history.record_batch)

    def on_epoch_end(self, net: Net, **kwargs: Any) -> None:
        """Score the logits that the validation pass left in the net."""
        self._score(net, net.loop_.valid_logits, net.history.record)
        if self.patience is not None:
            net.history.record("best_epoch", self.best_epoch_)
            net.history.record("best_step", self.best_step_)

    def _score(self, net: Net, logits: Any, record: Callable[[str, Any], None]) -> None:
        # In one process only: a scorer may draw random numbers.
        scores = net.processes.first(self.scores, self.answers(logits))
        self.names_ = list(scores)
        score = next(iter(scores.values()))
        record("valid_score", float(score))
        if len(scores) > 1:
            for name, value in scores.items():
                record(f"valid_{name}", float(value))
        if self.patience is None:
            return
        if np.isnan(score):
            warn(
                f"scoring={self.name!r} is NaN for the held-out documents. Early stopping counts "
                "that as no better than the score before."
            )
        is_best = not score <= self.best_score_ and not np.isnan(score)
        is_best = is_best or self.best_epoch_ is None
        record("valid_score_best", bool(is_best))
        self.n_misses_ = 0 if is_best else self.n_misses_ + 1
        if is_best:
            self.best_score_, self.best_step_ = score, self.n_updates_
            self.best_epoch_ = net.history[-1]["epoch"]
            self.best_state_ = {k: v.detach().cpu().clone() for k, v in net.state().items()}
        elif self.n_misses_ >= self.patience:
            net.loop_.stop = net.loop_.stop_at_once = True

    def on_train_end(self, net: Net, X: Any = None, y: Any = None, **kwargs: Any) -> None:
        """Restore the weights of the best epoch."""
        if self.best_state_ is not None:
            net.set_state(self.best_state_)
            self.best_state_ = None


def takes_weight(scorer: Callable[..., float]) -> bool:
    """Return whether a scorer accepts sample weights.

    Parameters
    ----------
    scorer : callable ``(estimator, X, y) -> float``

    Returns
    -------
    bool
    """
    return "sample_weight" in inspect.signature(getattr(scorer, "_score_func", scorer)).parameters


class Progress(Callback):
    """Show a progress bar within each epoch and print a line after it.

    Parameters
    ----------
    score_name : str, default=None
        Name of the score of the held-out documents.
    sink : callable, default=print
        Function that receives the line.
    """

    def __init__(
        self, score_name: str | None = None, sink: Callable[[str], object] = print
    ) -> None:
        self.score_name = score_name
        self.sink = sink

    def on_train_begin(self, net: Net, X: Any = None, y: Any = None, **kwargs: Any) -> None:
        """Begin without a bar, which a training without epochs never opens."""
        self.bar_ = tqdm(disable=True)

    def on_epoch_begin(self, net: Net, dataset_train: Any = None, **kwargs: Any) -> None:
        """Open the bar."""
        self.start_ = time.perf_counter()
        self.n_documents_, self.seconds_ = 0, 0.0
        self.bar_ = tqdm(
            total=net.loop_.batches.n_draws,
            desc=f"epoch {len(net.history)}/{net.max_epochs}",
            unit=" documents",
            leave=False,
            mininterval=0.2 if sys.stderr.isatty() else 15,
        )

    def on_batch_end(
        self, net: Net, batch: Any = None, training: bool = False, **kwargs: Any
    ) -> None:
        """Move the bar by the documents of the batch."""
        if training:
            self.n_documents_ += len(net.loop_.batch_rows)
            self.seconds_ = time.perf_counter() - self.start_
            self.bar_.update(len(net.loop_.batch_rows))

    def on_epoch_end(self, net: Net, **kwargs: Any) -> None:
        """Close the bar and print the line."""
        self.bar_.close()
        row = net.history[-1]
        parts = [f"epoch {row['epoch']}/{net.max_epochs}", f"loss {row['train_loss']:.4f}"]
        if "valid_score" in row:
            parts.append(f"{self.score_name} {row['valid_score']:.4f}")
            others = getattr(dict(net.callbacks_).get("score"), "names_", [])[1:]
            parts += [f"{name} {row[f'valid_{name}']:.4f}" for name in others]
        if self.n_documents_:  # none are left of an epoch that goes on from its last update
            parts.append(f"{self.n_documents_ / self.seconds_:.1f} documents/s")
        parts.append(f"{time.perf_counter() - self.start_:.0f} s")
        self.sink("  ".join(parts))

    def on_train_end(self, net: Net, **kwargs: Any) -> None:
        """Close a bar that is open because the epoch did not end."""
        self.bar_.close()


def copies(callbacks: Iterable[Any]) -> list[Any]:
    """Copy callbacks, or pairs of a name and a callback.

    Parts that cannot be copied are shared, such as the open file or connection of a tracker.

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


def _copy(callback: Any) -> Any:
    try:
        return copy.deepcopy(callback)
    except Exception:  # objects refuse to be copied with errors of many kinds
        copied = copy.copy(callback)
    for name, value in vars(callback).items():
        with contextlib.suppress(Exception):
            setattr(copied, name, copy.deepcopy(value))
    return copied
