"""The training loop, and the state that a net has only while it trains."""

import contextlib
import copy
import functools
import math
from typing import Any

import torch
from skorch.history import History

from skfocal._data.batches import Collator
from skfocal._encoder.dropout import has_dropout
from skfocal._encoder.fast_dropout import FastDropout
from skfocal._encoder.float32_attention import Float32Attention
from skfocal._runtime.allocator import kept_memory
from skfocal._runtime.devices import AUTOCAST, fork_generators
from skfocal._runtime.process_group import full
from skfocal._runtime.signals import watched_signals
from skfocal._runtime.warnings import warn
from skfocal._training.inference import in_order
from skfocal._training.microbatches import MicroBatches
from skfocal._training.optimization import Updates, advice, make_scaler
from skfocal._training.snapshot import capture, of_callbacks, restore
from skfocal._training.strategies import hold
from skfocal._utils.hashing import digest
from skfocal.callbacks import KeepOnInterrupt

# Losses are read from the device so many batches at a time: each read waits for it to finish.
_BATCHES_PER_READ = {"cpu": 1}
_ELSEWHERE = 32
# Differences of logits, relative to the largest, of documents that an encoder tells apart or not.
_APART, _ALIKE = 0.3, 2e-3


class StopTraining(Exception):
    """Ends the training in good order after an epoch."""


class TrainingLoop:
    """One training of a net.

    Callbacks find it as ``net.loop_``, which is None outside of a training.

    Parameters
    ----------
    net : FocalNet
        Initialised.
    dataset : TokenDataset
        The documents to train on.
    batches : BucketBatchSampler
        Batches of the documents' rows.
    processes : Processes
        The processes that train together; each computes its share of every batch.
    checkpoints : Checkpoints
        The training continues from the newest one and writes new ones.
    globals_at_begin : dict
        States of the global generators before the training.

    Attributes
    ----------
    stop : bool
        Whether the training ends after this epoch; set by callbacks.
    stop_at_once : bool
        Whether the epoch ends after this update; the same in all processes.
    strategy : SingleProcess
        How the processes share the module.
    updates : Updates
        Turns gradients into updates of the weights.
    batch_rows : list of int
        Rows of the present batch, of all processes together.
    valid_logits : ndarray of shape (n_held_out, n_classes)
        Logits of the held-out documents after the present epoch.
    """

    valid_logits: Any = None

    def __init__(self, net, dataset, batches, processes, checkpoints, globals_at_begin=None):
        self.net = net
        self.dataset = dataset
        self.batches = batches
        self.processes = processes
        self.checkpoints = checkpoints
        self.globals_at_begin = globals_at_begin
        self.stop = self.stop_at_once = False
        self.strategy: Any = None
        self.updates: Any = None
        self.signals: Any = None
        self.microbatches: Any = None
        self.fast_ways: Any = ()  # contexts in which a forward pass computes faster
        self.resumed = None  # the state of a checkpoint, until it is restored
        self.before_validation: Any = None  # the state of the callbacks
        self.n_batches = 0  # of training, in the present epoch
        self.batch_rows: Any = ()
        self.is_update = False  # whether the present batch completes an update
        self.norms: dict = {}  # of the gradients by batch, not yet read from the device
        self.pending: list = []  # batches of the present update, and their losses
        self.losses: list = []
        # How much the logits of a batch differ: of the first, and the most in the present epoch.
        self.first_spread: Any = None
        self.spread: Any = None

    def run(self, moments, keep_moments):
        """Train the module, starting from its present weights.

        Parameters
        ----------
        moments : dict
            The optimizer's state after an earlier training of the same module.
        keep_moments : bool
            Whether the optimizer has its state afterwards.
        """
        net = self.net
        self._hold_module()
        net.set_moments(moments)
        net.notify("on_train_begin", X=self.dataset, y=None)
        self.fast_ways = self._fast_ways()
        self.resumed = self.checkpoints.found
        if self.resumed is not None and self.resumed["complete"]:
            restore(net, self.resumed)
            # Callbacks that began again also end again, and what they change is the same once more.
            net.notify("on_train_end", X=self.dataset, y=None)
            restore(net, self.resumed)
        else:
            self._fit_epochs()
        self.strategy.release(net, keep_moments)
        self.strategy = None
        self._check_same_weights()

    def _hold_module(self):
        """Choose how the processes share the module, and make the updates."""
        # Documents with several windows must not take more memory than full single windows.
        most = self.net.batch_size * self.dataset.tokens.truncation.max_length
        self.microbatches = MicroBatches("training", most)

        def probe():
            shortest = [int(self.dataset.tokens.lengths.argmin())]
            inputs, codes = Collator(self.net.pad_id)(self.dataset.__getitems__(shortest))
            with fork_generators(self.net.device):
                self.net.get_loss(self.net.infer(inputs), codes, X=inputs).backward()

        self.strategy = hold(self.net, probe)
        if not self.strategy.in_parts:
            self.microbatches.n_tokens = None
        if not self.strategy.retries:
            self.microbatches.may_shrink = self.net.predict_microbatches_.may_shrink = False
        self.updates = Updates(
            self.net.optimizer_,
            clip=self.net.gradient_clip,
            nonfinite=self.net.nonfinite,
            scaler=make_scaler(self.net.precision, self.net.device),
        )

    def _fit_epochs(self):
        """Train the remaining epochs."""
        if frozen := self.net.frozen_layers():
            frozen.prepare(self.dataset.tokens)
            if self.net.train_split:  # scored in each epoch
                frozen.prepare(self.net.train_split(self.dataset)[1].tokens)
        n_epochs = self.net.max_epochs
        if self.resumed is not None:
            done = self.resumed["history"][:-1]
            self.net.history = History(done)
            n_epochs -= len(done)
        writes, keeps = self.checkpoints.folder is not None, self._keeper() is not None
        with kept_memory(), watched_signals(writes, keeps) as self.signals:
            try:
                self.net.fit_loop(self.dataset, epochs=n_epochs)
            except StopTraining:
                pass
            self.signals.holds_interrupt = False  # from here on, nothing is to be ended early
            self.net.notify("on_train_end", X=self.dataset, y=None)
            learned = [p for p in self.net.module_.parameters() if p.requires_grad]
            finite = [full(p.isfinite().all()) for p in learned]
            if finite and not torch.stack(finite).all():  # one wait for the device
                raise FloatingPointError(advice("the last update left weights that are not finite"))
            self._warn_if_collapsed()
            if writes and not self.signals.interrupted:  # else the same call goes on later
                self.checkpoints.write(capture(self.net, 0, complete=True))

    def _record_spread(self, inputs, logits):
        """Keep how much the logits of different documents differ, relative to the largest one."""
        ids = inputs["input_ids"]
        if len(logits) < 2 or (ids == ids[0]).all():
            return
        logits = logits.detach()
        spread = (logits.amax(0) - logits.amin(0)).max() / logits.abs().max()
        if self.first_spread is None:
            self.first_spread = spread
        self.spread = spread if self.spread is None else torch.maximum(self.spread, spread)

    def _warn_if_collapsed(self):
        """Warn if the encoder told documents apart at first, and does no longer.

        Updates that are too large can leave one that answers the same to everything.
        """
        if self.processes.rank > 0 or self.spread is None:
            return
        first, last = torch.stack([self.first_spread, self.spread]).tolist()
        if first > _APART and last < _ALIKE:
            warn(
                "The training collapsed: in its last epoch the documents of each batch have nearly "
                "the same logits, so that all get the same answer. That comes from updates that "
                f"are too large for the encoder. Fit again with a lower lr than {self.net.lr:g}."
            )

    def _keeper(self):
        """Return the callback that asks to keep what was learned until Ctrl-C, or None."""
        callbacks = [callback for _, callback in self.net.callbacks_]
        found = next((c for c in callbacks if isinstance(c, KeepOnInterrupt)), None)
        return found if self.processes.size == 1 else None

    def _fast_ways(self):
        """Return the contexts in which a forward pass computes faster.

        CUDA's own ways are fast, a compiled graph keeps its own, and checkpointed layers have to do
        the same when they run again in the backward pass, where these contexts have no effect.
        """
        model = self.net.plain_module().model
        on_cpu = torch.device(self.net.device).type == "cpu"
        checkpointed = any(getattr(m, "gradient_checkpointing", False) for m in model.modules())
        if not on_cpu or self.net.compile or checkpointed:
            return []
        # Dropout last: attention without it is passed on to the way before.
        ways = [Float32Attention] if self.net.precision in AUTOCAST else []
        return [*ways, FastDropout] if has_dropout(model) else ways

    def _check_same_weights(self):
        """Raise if the weights differ between processes, which have the same gradients."""
        if self.processes.size == 1:
            return
        key = b""
        # One at a time, so that no copy of all weights is made.
        for parameter in self.net.module_.parameters():
            key = digest(key, parameter.detach().cpu().numpy().tobytes())
        if len(set(self.processes.all_gather(key))) > 1:
            raise RuntimeError(
                f"The {self.processes.size} processes ended with different weights. A callback of "
                "yours sees the documents of its own process only, and what it decides must not "
                "depend on them: take `early_stopping` and `scoring`, or 'valid_score' of the "
                "history, which are the same in all."
            )

    # -- epochs ----------------------------------------------------------------------------

    def run_epoch(self, iterator, training, prefix, step_fn, **fit_params):
        """Run one epoch without waiting for the device at each batch."""
        every = _BATCHES_PER_READ.get(torch.device(self.net.device).type, _ELSEWHERE)
        n_done = self._resume() if training else 0
        if not training and self.checkpoints.folder is not None:
            # A checkpoint restarts the validation, which callbacks must not see twice.
            self.before_validation = copy.deepcopy(of_callbacks(self.net))
        losses, outputs, self.norms, self.pending, self.losses = [], [], {}, [], []
        self.spread = None if training else self.spread
        for batch, is_last in _marked(iterator):
            rows = self.batch_rows = iterator.batch_sampler.whole(n_done)
            if len(rows) <= self.processes.rank:  # none is left for this process
                batch[0]["sample_weight"].zero_()
            n_done += 1
            self.n_batches = n_done if training else self.n_batches
            self.net.notify("on_batch_begin", batch=batch, training=training)
            self.is_update = training and (n_done % self.net.accumulate == 0 or is_last)
            step = step_fn(batch, **fit_params)
            self.net.history.record_batch(f"{prefix}_batch_size", len(rows))
            losses.append(step["loss"].detach())
            writes = self._writes_checkpoint(training)
            if len(losses) == every or is_last or writes:
                self._record_losses(prefix, losses, n_done)
                losses = []
            if not training:
                outputs.append(step["y_pred"])
            self.net.notify("on_batch_end", batch=batch, training=training, **step)
            if writes:
                self._write_checkpoint()
            if training and self.is_update and self._ends_early():
                break
        if losses:
            self._record_losses(prefix, losses, n_done)
        self.before_validation = None
        self.net.history.record(f"{prefix}_batch_count", n_done)
        if not training:
            self.valid_logits = in_order(outputs, iterator.batch_sampler, self.processes)

    def held_out_logits(self):
        """Return the logits of the held-out documents with the present weights.

        Neither the training nor its callbacks notice.
        """
        _, held_out = self.net.get_split_datasets(self.dataset)
        iterator, rows = self.net.get_iterator(held_out), self.batch_rows
        outputs = []
        for i, batch in enumerate(iterator):
            self.batch_rows = iterator.batch_sampler.whole(i)
            outputs.append(self.net.validation_step(batch)["y_pred"])
        self.batch_rows = rows
        return in_order(outputs, iterator.batch_sampler, self.processes)

    def _ends_early(self):
        """Say whether the epoch ends here: a callback stops, or a Ctrl-C was held back."""
        if self.signals.held and not self.stop:
            self._keeper().interrupted(self.net)
            self.stop = self.stop_at_once = True
        return self.stop_at_once

    def end_epoch(self):
        """Say whether the training ends after this epoch, in all processes."""
        self._ends_early()
        return self.processes.any(self.stop)

    def _record_losses(self, prefix, losses, n_done):
        """Read losses and norms from the device; raise if one of them is not finite."""
        norms, self.norms = self.norms, {}
        waiting = self.processes.all_reduce_sum(torch.stack(losses))
        if norms:
            waiting = torch.cat([waiting, torch.stack(list(norms.values())).to(waiting)])
        values = waiting.tolist()
        norms = dict(zip(norms, values[len(losses) :], strict=True))
        rows = self.net.history[-1]["batches"][-len(losses) :]
        first = n_done - len(losses) + 1
        # In order: a bad update spoils all later losses.
        for i, row in enumerate(rows):
            row[f"{prefix}_loss"] = values[i]
            self._check_finite("loss", values[i], prefix, first + i)
            if first + i in norms:
                self._check_finite("norm of the gradient", norms[first + i], prefix, first + i)

    def _check_finite(self, what, value, prefix, number):
        if not math.isfinite(value) and self.net.nonfinite == "raise":
            where = f"epoch {len(self.net.history)}, {prefix} batch {number}"
            raise FloatingPointError(advice(f"the {what} is {value} in {where}"))

    # -- checkpoints -----------------------------------------------------------------------

    def _resume(self):
        """Restore the checkpoint, once; return the number of completed batches."""
        state, self.resumed = self.resumed, None
        if state is not None:
            restore(self.net, state)
        self.n_batches = 0 if state is None else state["n_batches"]
        return self.n_batches

    def _writes_checkpoint(self, training):
        """Say whether to write a checkpoint after this batch, which is possible between updates."""
        if self.checkpoints.folder is None or (training and not self.is_update):
            return False
        is_due = training and self.checkpoints.is_due()
        return self.processes.any(is_due or self.signals.terminated)

    def _write_checkpoint(self):
        self.checkpoints.write(capture(self.net, self.n_batches))
        if self.signals.terminated:
            self.signals.pass_on()

    # -- steps -----------------------------------------------------------------------------

    def train_step(self, batch, **fit_params):
        """Add the gradient of a batch; update the weights if the batch completes an update."""
        step = self.accumulate_step(batch, **fit_params)
        self.losses.append(step["loss"].detach())
        self._record_spread(batch[0], step["y_pred"])
        if self.is_update:
            norm = self.updates.clip_gradients()
            if self.updates.may_skip:  # a loss that is not finite may have a gradient that is
                norm = norm + 0 * self.processes.all_reduce_sum(sum(self.losses))
            self.net.notify(
                "on_grad_computed",
                named_parameters=list(self.net.get_all_learnable_params()),
                batch=batch,
                training=True,
            )
            where = f"epoch {len(self.net.history)}, train batch {self.n_batches}"
            self.updates.step(norm, where)
            if not self.updates.may_skip:
                self.norms[self.n_batches] = norm
            self.pending, self.losses = [], []
        return step

    def accumulate_step(self, batch, **fit_params):
        """Compute the loss of a batch and add its gradient to that of the update."""
        self.net._set_training(True)
        self.pending.append((batch, len(self.batch_rows)))
        step = self._add_gradient(*self.pending[-1], **fit_params)
        while step is None:
            # Gradients of some micro-batches may have been added, so restart the update.
            self.net.optimizer_.zero_grad(set_to_none=True)
            for batch, n_rows in self.pending:
                step = self._add_gradient(batch, n_rows, **fit_params)
                if step is None:
                    break
        return step

    def validation_step(self, batch, **fit_params):
        """Return loss and logits of a held-out batch."""
        self.net._set_training(False)
        with torch.no_grad():
            infer = functools.partial(self.net.infer, **fit_params)
            logits = self.net.predict_microbatches_.run(lambda part: infer(part[0]), batch)
            loss = self.net.get_loss(logits, batch[1], X=batch[0])
            if self.processes.size > 1:
                whole = self._whole_divisor(batch, len(self.batch_rows))
                loss = loss * (self._divisor(batch) / whole)
            return {"loss": loss, "y_pred": logits}

    def _add_gradient(self, batch, n_rows, **fit_params):
        """Return loss and logits of a batch, or None if a micro-batch did not fit into memory.

        The batch may be this process's share of a batch of `n_rows` documents. Its loss is the
        corresponding share of the loss of that batch.
        """
        share = self._share_of_update(n_rows) * self.strategy.factor
        parts = self.microbatches.of(batch)
        divides = len(parts) > 1 or self.processes.size > 1
        whole = self._whole_divisor(batch, n_rows) if divides else None
        losses, logits = [], []
        for part in parts:
            inputs, codes = part
            exchanges = self.is_update and part is parts[-1]
            try:
                with contextlib.nullcontext() if exchanges else self.strategy.adding():
                    with contextlib.ExitStack() as fast:
                        for way in self.fast_ways:
                            fast.enter_context(way())
                        y_pred = self.net.infer(inputs, **fit_params)
                    loss = self.net.get_loss(y_pred, codes, X=inputs, training=True)
                    if divides:
                        loss = loss * (self._divisor(part) / whole)
                    self.updates.backward(loss * share)
            except torch.OutOfMemoryError:
                self.microbatches.shrink(part)
                return None
            losses.append(loss.detach())
            logits.append(y_pred.detach())
        if len(parts) == 1:
            return {"loss": loss, "y_pred": y_pred}
        return {"loss": torch.stack(losses).sum(), "y_pred": torch.cat(logits)}

    def _divisor(self, batch):
        inputs, codes = batch
        return self.net.criterion_.divisor(
            codes.to(self.net.device), inputs["sample_weight"].to(self.net.device)
        )

    def _whole_divisor(self, batch, n_rows):
        """Return the divisor of the summed loss of a batch, over all processes."""
        if self.processes.size == 1 or self.net.criterion_.normalize != "weights":
            return n_rows if self.net.criterion_.normalize == "samples" else self._divisor(batch)
        inputs, codes = batch
        weight = self.net.criterion_.total_weight(
            codes.to(self.net.device), inputs["sample_weight"].to(self.net.device)
        )
        total = self.processes.all_reduce_sum(weight)
        return torch.where(total > 0, total, torch.ones_like(total))

    def _share_of_update(self, n_rows):
        """Return the factor of the loss of a batch in the loss of an update.

        A mean over samples becomes the sum over the size that a whole update has, so that a
        document in an epoch's short last batch pulls no harder than the others.
        """
        if self.net.criterion_.normalize == "samples":
            whole = self.net.accumulate * self.batches.batch_size
            return n_rows / min(whole, self.batches.n_draws)
        return 1 / self.net.accumulate if self.net.criterion_.normalize == "weights" else 1.0


def _marked(iterator):
    """Yield each batch and whether it is the last; their number is not known in advance."""
    batches = iter(iterator)
    batch = next(batches, None)
    while batch is not None:
        following = next(batches, None)
        yield batch, following is None
        batch = following
