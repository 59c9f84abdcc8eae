"""The skorch net: token batches in, logits out, one training step."""

import contextlib
import copy
import functools
import math
import threading
from typing import Any

import numpy as np
import torch
from skorch import NeuralNet
from skorch.history import History

from skfocal._data.batches import Collator, Shards, TokenDataset, sorted_batches
from skfocal._encoder.dropout import has_dropout
from skfocal._encoder.fast_dropout import FastDropout
from skfocal._encoder.frozen_layers import FrozenLayers
from skfocal._encoder.pooling import pool, pool_all
from skfocal._encoder.quantization import reduced_copy
from skfocal._runtime.allocator import kept_memory
from skfocal._runtime.devices import AUTOCAST, mind_fork
from skfocal._runtime.process_group import ALONE, full, like, load
from skfocal._runtime.signals import watched_signals
from skfocal._training.checkpoints import Checkpoints
from skfocal._training.microbatches import MicroBatches
from skfocal._training.optimization import Updates, advice, make_scaler, parameter_groups
from skfocal._training.snapshot import capture, global_states, of_callbacks, restore
from skfocal._training.strategies import hold
from skfocal._utils.hashing import digest

# Losses are read from the device so many batches at a time: each read waits for it to finish.
_BATCHES_PER_READ = {"cpu": 1, "cuda": 32}
_TOKENS_AT_ONCE = 1024  # of a batch in prediction on a CPU; docs/benchmarks/ways.md
_MAKING = threading.RLock()  # what the first prediction makes and those in other threads wait for


class StopTraining(Exception):
    """Ends the training in good order after an epoch."""


class FocalNet(NeuralNet):
    """A skorch net over token ids, integer codes and logits; it knows no words and no labels.

    Parameters
    ----------
    module, criterion : as in skorch
        An :class:`~skfocal._encoder.module.EncoderClassifier` and a loss module of
        :mod:`skfocal.losses`.
    train_batches : BucketBatchSampler
        Batch sampler of the training rows.
    pad_id : int
        The tokenizer's padding token.
    precision : {"float32", "bfloat16", "float16"}
        Others than "float32" run the encoder under autocast.
    freeze : int
        Lower layers that do not learn; their outputs are computed once for each document.
    pooling : {"mean", "max", "logsumexp"}
        See :func:`~skfocal._encoder.pooling.pool`.
    accumulate : int
        Batches whose gradients are added before each update.
    gradient_clip, nonfinite
        See :class:`~skfocal._training.optimization.Updates`.
    weight_decay, layer_decay : float
        See :func:`~skfocal._encoder.module.parameter_groups`.
    processes : Processes
        Those that train together; each computes its part of every batch.
    **kwargs
        Everything else that skorch takes.
    """

    reduced_: Any = (None, None)  # what it was made of, and the module
    signals_: Any = None
    updates_: Any = None
    before_validation_: Any = None  # what callbacks remembered
    n_batches_ = 0  # of training, in the present epoch
    batch_rows_: Any = ()  # of the present batch, of all processes together
    held_: Any = None  # how the processes hold the module in training

    def __init__(
        self,
        module,
        criterion,
        *,
        train_batches=None,
        pad_id=0,
        precision="float32",
        freeze=0,
        pooling="mean",
        accumulate=1,
        gradient_clip=None,
        nonfinite="raise",
        weight_decay=0.01,
        layer_decay=1.0,
        processes=ALONE,
        **kwargs,
    ):
        self.train_batches = train_batches
        self.pad_id = pad_id
        self.precision = precision
        self.freeze = freeze
        self.pooling = pooling
        self.accumulate = accumulate
        self.gradient_clip = gradient_clip
        self.nonfinite = nonfinite
        self.weight_decay = weight_decay
        self.layer_decay = layer_decay
        self.processes = processes
        self.predict_parts_ = MicroBatches("prediction")
        super().__init__(module, criterion, **kwargs)

    # -- training --------------------------------------------------------------------------

    def train(self, dataset, moments=None, keep_moments=False, checkpoints=None):
        """Train on a :class:`TokenDataset` from the module's present weights; return self.

        `moments` are what :meth:`moments` gave after an earlier training of the same module. The
        training goes on from what `checkpoints` have found, and writes others.
        """
        mind_fork()
        self.checkpoints_ = checkpoints or Checkpoints(None)
        self.globals_at_begin_ = global_states()
        self.initialize()
        super()._set_training(True)  # a pretrained encoder comes in evaluation mode
        self._hold_module(dataset)
        self.set_moments(moments or {})
        self.stop_ = False
        self.notify("on_train_begin", X=dataset, y=None)
        self.drops_ = self._drops_fast()
        self.resumed_ = self.checkpoints_.found
        if self.resumed_ is not None and self.resumed_["complete"]:
            restore(self, self.resumed_)
        else:
            self._fit_epochs(dataset)
        self.held_.release(self, keep_moments)
        self.held_ = None
        self._check_same_weights()
        # Gradients and moments are three times the weights: nobody predicts with them.
        self.module_.zero_grad(set_to_none=True)
        if not keep_moments:
            self.optimizer_.state.clear()
        self.module_.eval()
        # Nor with the documents, which share one array of tokens.
        self.train_split = None
        self.train_batches.forget()
        self.checkpoints_ = self.resumed_ = self.updates_ = self.signals_ = None
        self.processes = ALONE
        return self

    def _hold_module(self, dataset):
        """Let the processes hold the module, and with it the optimizer."""
        # Documents of several windows take no more memory than full ones of a single window.
        most = self.batch_size * dataset.tokens.truncation.max_length
        self.train_parts_ = MicroBatches("training", most)

        def probe():
            shortest = [int(dataset.tokens.lengths.argmin())]
            inputs, codes = Collator(self.pad_id)(dataset.__getitems__(shortest))
            with torch.random.fork_rng():
                self.get_loss(self.infer(inputs), codes, X=inputs).backward()

        self.held_ = hold(self, probe)
        if not self.held_.in_parts:
            self.train_parts_.n_tokens = None
        if not self.held_.retries:
            self.train_parts_.may_shrink = self.predict_parts_.may_shrink = False
        self.updates_ = Updates(
            self.optimizer_,
            clip=self.gradient_clip,
            nonfinite=self.nonfinite,
            scaler=make_scaler(self.precision, self.device),
        )

    def _fit_epochs(self, dataset):
        """Train the epochs that are left, to the end."""
        if frozen := self._frozen_layers():
            frozen.prepare(dataset.tokens)
        n_epochs = self.max_epochs
        if self.resumed_ is not None:
            done = self.resumed_["history"][:-1]
            self.history = History(done)
            n_epochs -= len(done)
        with kept_memory(), watched_signals(self.checkpoints_.folder is not None) as self.signals_:
            try:
                self.fit_loop(dataset, epochs=n_epochs)
            except StopTraining:
                pass
            self.notify("on_train_end", X=dataset, y=None)
            if not all(full(p.isfinite().all()) for p in self.module_.parameters()):
                raise FloatingPointError(advice("the last update left weights that are not finite"))
            if self.checkpoints_.folder is not None:
                self.checkpoints_.write(capture(self, 0, complete=True))

    def _check_same_weights(self):
        """Refuse a model that is another in each process: batches have the same gradients."""
        if self.processes.size == 1:
            return
        key = b""
        for parameter in self.module_.parameters():  # one after the other: none is copied for long
            key = digest(key, parameter.detach().cpu().numpy().tobytes())
        if len(set(self.processes.all_gather(key))) > 1:
            raise RuntimeError(
                f"The {self.processes.size} processes ended with different weights. A callback of "
                "yours sees the documents of its own process only, and what it decides must not "
                "depend on them: take `early_stopping` and `scoring`, or 'valid_score' of the "
                "history, which are the same in all."
            )

    def _drops_fast(self):
        """Say whether training drops anything and may do so the short way.

        CUDA's own is fast, a compiled graph keeps it, and checkpointed layers, which run again in
        the backward pass, have to drop the same in both.
        """
        model = self.plain_module().model
        on_cpu = torch.device(self.device).type == "cpu"
        checkpointed = any(getattr(m, "gradient_checkpointing", False) for m in model.modules())
        return on_cpu and not self.compile and not checkpointed and has_dropout(model)

    def state(self):
        """Return the whole weights and buffers by name."""
        return full(self.plain_module().state_dict())

    def set_state(self, state):
        """Give the module what :meth:`state` returned."""
        load(self.plain_module(), state)

    def plain_module(self) -> Any:
        """Return the module behind torch.compile's wrapper, if there is one."""
        return getattr(self.module_, "_orig_mod", self.module_)

    def updates_per_epoch(self):
        """Return how often an epoch updates the weights."""
        return math.ceil(len(self.train_batches) / self.accumulate)

    def moments(self):
        """Return the optimizer's state by the names of the weights."""
        state = self.optimizer_.state
        moments = {name: state[p] for name, p in self.module_.named_parameters() if p in state}
        return full(moments)

    def set_moments(self, moments):
        """Give the optimizer the state that :meth:`moments` returned."""
        for name, parameter in self.module_.named_parameters():
            if name in moments:
                self.optimizer_.state[parameter] = {
                    # A copy: the optimizer writes into it.
                    key: like(value, parameter) if torch.is_tensor(value) else value
                    for key, value in moments[name].items()
                }

    def notify(self, method_name, **cb_kwargs):
        """Call the callbacks, then stop if one of them asked for it at the end of an epoch.

        skorch's callbacks ask by KeyboardInterrupt, ours by ``net.stop_``; in one process for all.
        The user's Ctrl-C, and the interrupt at any other moment, goes through.
        """
        try:
            super().notify(method_name, **cb_kwargs)
        except KeyboardInterrupt:
            if method_name != "on_epoch_end" or self.signals_.interrupted:
                raise
            self.stop_ = True
        if method_name == "on_epoch_end" and self.processes.any(self.stop_):
            raise StopTraining

    def get_iterator(self, dataset, training=False):
        """Return a DataLoader over batches of near-equal length."""
        if training:
            return self._loader(dataset, self.train_batches, "train")
        return self._loader(dataset, self._prediction_batches(dataset), "valid")

    def _loader(self, dataset, batches, kind):
        kwargs = self.get_params_for(f"iterator_{kind}")
        kwargs.pop("batch_size", None)
        # A loader draws a seed for its workers even without any; not from the global generator.
        kwargs.setdefault("generator", torch.Generator())
        # A copy to CUDA from pinned memory does not wait for the device.
        kwargs.setdefault("pin_memory", torch.device(self.device).type == "cuda")
        loader = self.iterator_train if kind == "train" else self.iterator_valid
        mine = Shards(batches, self.processes)
        return loader(dataset, batch_sampler=mine, collate_fn=Collator(self.pad_id), **kwargs)

    def get_params_for_optimizer(self, prefix, named_parameters):
        """Give the optimizer groups by weight decay and depth."""
        _, kwargs = super().get_params_for_optimizer(prefix, named_parameters)
        groups = parameter_groups(
            self.module_.model,
            lr=kwargs.pop("lr", self.lr),
            weight_decay=self.weight_decay,
            layer_decay=self.layer_decay,
        )
        return (groups,), kwargs

    def run_single_epoch(self, iterator, training, prefix, step_fn, **fit_params):
        """Run one epoch without waiting for the device at each batch."""
        if iterator is None:
            return
        every = _BATCHES_PER_READ.get(torch.device(self.device).type, 1)
        n_done = self._resume() if training else 0
        if not training and self.checkpoints_.folder is not None:
            # A checkpoint during validation begins it again: callbacks must not see it twice.
            self.before_validation_ = copy.deepcopy(of_callbacks(self))
        losses, outputs, self.norms_, self.pending_, self.losses_ = [], [], {}, [], []
        for batch, is_last in _marked(iterator):
            rows = self.batch_rows_ = iterator.batch_sampler.whole(n_done)
            if len(rows) <= self.processes.rank:  # none is left for this process
                batch[0]["sample_weight"].zero_()
            n_done += 1
            self.n_batches_ = n_done if training else self.n_batches_
            self.notify("on_batch_begin", batch=batch, training=training)
            self.is_update_ = training and (n_done % self.accumulate == 0 or is_last)
            step = step_fn(batch, **fit_params)
            self.history.record_batch(f"{prefix}_batch_size", len(rows))
            losses.append(step["loss"].detach())
            writes = self._writes_checkpoint(training)
            if len(losses) == every or is_last or writes:
                self._record_losses(prefix, losses, n_done)
                losses = []
            if not training:
                outputs.append(step["y_pred"])
            self.notify("on_batch_end", batch=batch, training=training, **step)
            if writes:
                self._write_checkpoint()
        self.before_validation_ = None
        self.history.record(f"{prefix}_batch_count", n_done)
        if not training:
            self.valid_logits_ = self._in_order(outputs, iterator.batch_sampler)

    def _record_losses(self, prefix, losses, n_done):
        """Read from the device what waits there, and raise for numbers that are not finite."""
        norms, self.norms_ = self.norms_, {}
        waiting = self.processes.all_reduce_sum(torch.stack(losses))
        if norms:
            waiting = torch.cat([waiting, torch.stack(list(norms.values())).to(waiting)])
        values = waiting.tolist()
        norms = dict(zip(norms, values[len(losses) :], strict=True))
        rows = self.history[-1]["batches"][-len(losses) :]
        first = n_done - len(losses) + 1
        # In their order: a bad update spoils all losses after it.
        for i, row in enumerate(rows):
            row[f"{prefix}_loss"] = values[i]
            self._check_finite("loss", values[i], prefix, first + i)
            if first + i in norms:
                self._check_finite("norm of the gradient", norms[first + i], prefix, first + i)

    def _check_finite(self, what, value, prefix, number):
        if not math.isfinite(value) and self.nonfinite == "raise":
            where = f"epoch {len(self.history)}, {prefix} batch {number}"
            raise FloatingPointError(advice(f"the {what} is {value} in {where}"))

    # -- checkpoints -----------------------------------------------------------------------

    def _resume(self):
        """Put back the state of a checkpoint, once; return how many batches are done."""
        state, self.resumed_ = self.resumed_, None
        if state is not None:
            restore(self, state)
        self.n_batches_ = 0 if state is None else state["n_batches"]
        return self.n_batches_

    def _writes_checkpoint(self, training):
        """Say whether the state after this batch is to be written: only between updates."""
        if self.checkpoints_.folder is None or (training and not self.is_update_):
            return False
        is_due = training and self.checkpoints_.is_due()
        return self.processes.any(is_due or self.signals_.terminated)

    def _write_checkpoint(self):
        self.checkpoints_.write(capture(self, self.n_batches_))
        if self.signals_.terminated:
            self.signals_.pass_on()

    def _set_training(self, training=True):
        """Set the mode of module and criterion, which is a walk over all parts of the module."""
        if self.module_.training != training or self.criterion_.training != training:
            super()._set_training(training)

    def train_step(self, batch, **fit_params):
        """Add the gradient of a batch; update the weights where its turn has come."""
        step = self.train_step_single(batch, **fit_params)
        self.losses_.append(step["loss"].detach())
        if self.is_update_:
            norm = self.updates_.clip_gradients()
            if self.updates_.may_skip:  # a loss that is not finite may have a gradient that is
                norm = norm + 0 * self.processes.all_reduce_sum(sum(self.losses_))
            self.notify(
                "on_grad_computed",
                named_parameters=list(self.get_all_learnable_params()),
                batch=batch,
                training=True,
            )
            where = f"epoch {len(self.history)}, train batch {self.n_batches_}"
            self.updates_.step(norm, where)
            if not self.updates_.may_skip:
                self.norms_[self.n_batches_] = norm
            self.pending_, self.losses_ = [], []
        return step

    def train_step_single(self, batch, **fit_params):
        """Compute the loss of a batch and add its part of the update's gradient."""
        self._set_training(True)
        self.pending_.append((batch, len(self.batch_rows_)))
        step = self._add_gradient(*self.pending_[-1], **fit_params)
        while step is None:
            # Parts of gradients may have been added: begin the update again.
            self.optimizer_.zero_grad(set_to_none=True)
            for batch, n_rows in self.pending_:
                step = self._add_gradient(batch, n_rows, **fit_params)
                if step is None:
                    break
        return step

    def _add_gradient(self, batch, n_rows, **fit_params):
        """Return loss and logits of a batch; None if the memory did not suffice for a part.

        The batch may be this process's part of one of `n_rows` documents. The loss is its part of
        the whole one's.
        """
        share = self._share_of_update(n_rows) * self.held_.factor
        parts = self.train_parts_.of(batch)
        divides = len(parts) > 1 or self.processes.size > 1
        whole = self._whole_divisor(batch, n_rows) if divides else None
        losses, logits = [], []
        for part in parts:
            inputs, codes = part
            exchanges = self.is_update_ and part is parts[-1]
            try:
                with contextlib.nullcontext() if exchanges else self.held_.adding():
                    with FastDropout() if self.drops_ else contextlib.nullcontext():
                        y_pred = self.infer(inputs, **fit_params)
                    loss = self.get_loss(y_pred, codes, X=inputs, training=True)
                    if divides:
                        loss = loss * (self._divisor(part) / whole)
                    self.updates_.backward(loss * share)
            except torch.OutOfMemoryError:
                self.train_parts_.shrink(part)
                return None
            losses.append(loss.detach())
            logits.append(y_pred.detach())
        if len(parts) == 1:
            return {"loss": loss, "y_pred": y_pred}
        return {"loss": torch.stack(losses).sum(), "y_pred": torch.cat(logits)}

    def _divisor(self, batch):
        inputs, codes = batch
        return self.criterion_.divisor(
            codes.to(self.device), inputs["sample_weight"].to(self.device)
        )

    def _whole_divisor(self, batch, n_rows):
        """Return what the summed loss of all processes' parts of a batch is divided by."""
        if self.processes.size == 1 or self.criterion_.normalize != "weights":
            return n_rows if self.criterion_.normalize == "samples" else self._divisor(batch)
        inputs, codes = batch
        weight = self.criterion_.total_weight(
            codes.to(self.device), inputs["sample_weight"].to(self.device)
        )
        total = self.processes.all_reduce_sum(weight)
        return torch.where(total > 0, total, torch.ones_like(total))

    def _share_of_update(self, n_rows):
        """Return what a batch's loss is multiplied by before it is added to the update's.

        A mean over samples becomes the sum over the size that a whole update has, so that a
        document in an epoch's short last batch pulls no harder than the others.
        """
        if self.criterion_.normalize == "samples":
            whole = self.accumulate * self.train_batches.batch_size
            return n_rows / min(whole, self.train_batches.n_draws)
        return 1 / self.accumulate if self.criterion_.normalize == "weights" else 1.0

    def get_loss(self, y_pred, y_true, X=None, training=False):
        """Return the criterion's loss with the batch's sample weights."""
        device = y_pred.device
        weight = X["sample_weight"].to(device, non_blocking=True)
        return self.criterion_(y_pred, y_true.to(device, non_blocking=True), weight)

    # -- inference -------------------------------------------------------------------------

    def infer(self, x, **fit_params):
        """Return the logits of a batch of inputs, one row a document."""
        x = {name: value for name, value in x.items() if name != "sample_weight"}
        windows = x.pop("pieces", None)
        kind = torch.device(self.device).type
        with contextlib.ExitStack() as stack:
            if frozen := self._frozen_layers():
                stack.enter_context(frozen.lock)
                stack.enter_context(frozen.replay(frozen.batch(**x)))
            dtype = AUTOCAST.get(self.precision)
            stack.enter_context(torch.autocast(kind, dtype, enabled=dtype is not None))
            x = {name: value.to(self.device, non_blocking=True) for name, value in x.items()}
            forward = self.module_ if self.held_ is None else self.held_.forward
            logits = forward(**x, **fit_params)
        return logits if windows is None else pool(logits, windows.to(self.device), self.pooling)

    def evaluation_step(self, batch, training=False):
        """Return the logits of a batch, computed in parts where its whole does not fit."""
        step = functools.partial(super().evaluation_step, training=training)
        return self.predict_parts_.run(step, batch)

    def validation_step(self, batch, **fit_params):
        """Return loss and logits of a held-out batch."""
        self._set_training(False)
        with torch.no_grad():
            logits = self.predict_parts_.run(lambda part: self.infer(part[0], **fit_params), batch)
            loss = self.get_loss(logits, batch[1], X=batch[0])
            if self.processes.size > 1:
                whole = self._whole_divisor(batch, len(self.batch_rows_))
                loss = loss * (self._divisor(batch) / whole)
            return {"loss": loss, "y_pred": logits}

    def _frozen_layers(self):
        """Return the :class:`FrozenLayers`, or None where all layers have to run."""
        if not self.freeze or self.compile or not getattr(self.held_, "in_parts", True):
            return None
        with _MAKING:
            frozen = getattr(self, "frozen_", None)
            if frozen is None or not frozen.is_current():
                frozen = FrozenLayers(self.module_.model, self.freeze, self.precision)
                self.frozen_ = frozen
        return frozen if frozen.is_constant else None

    def logits(self, tokens, precision=None):
        """Return float32 logits of shape (n, n_classes) for :class:`Tokens`, in their order.

        `precision` is one of the module quantization; None predicts as the net was trained.
        """
        mind_fork()
        step = self.evaluation_step
        if precision is None:
            self.reduced_ = None, None
        else:
            plain = functools.partial(_plain_step, self._reduced(precision), self.device)
            step = functools.partial(self.predict_parts_.run, plain)
        rows, counts = tokens.windows()
        dataset = TokenDataset(rows)
        batches = self._prediction_batches(dataset)
        step = self._watched(step, len(tokens) / len(rows))
        if len(batches) == 1:  # a loader would take as long as a small model
            outputs = [step(Collator(self.pad_id)(dataset.__getitems__(batches[0])))]
        else:
            with kept_memory():
                outputs = [step(batch) for batch in self._loader(dataset, batches, "valid")]
        return pool_all(self._in_order(outputs, batches), counts, self.pooling)

    watch = None  # is called with the number of documents of each batch that is predicted

    def _watched(self, step, share):
        """Tell what each step has done, as documents of which a row is a `share`."""
        watch = self.watch
        if watch is None:
            return step

        def watched(batch):
            output = step(batch)
            watch(len(output) * share)
            return output

        return watched

    def _reduced(self, precision):
        """Return the module in another precision, made once for the present weights.

        A change of weights that torch does not count, through their ``.data``, goes unseen.
        """
        module = self.plain_module()
        versions = [0 if p.is_inference() else p._version for p in module.parameters()]
        key = precision, versions, [p.data_ptr() for p in module.parameters()]
        with _MAKING:
            if self.reduced_[0] != key:
                self.reduced_ = None, None  # never two copies at a time
                self.reduced_ = key, reduced_copy(module, precision)
            return self.reduced_[1]

    def _prediction_batches(self, dataset):
        """Return batches by tokens on a CPU, whose caches they fit in, by documents elsewhere."""
        if torch.device(self.device).type == "cpu":
            return sorted_batches(dataset.tokens.lengths, None, _TOKENS_AT_ONCE)
        # Four times as many as in training: there are no gradients to keep.
        return sorted_batches(dataset.tokens.lengths, 4 * self.batch_size)

    def _in_order(self, outputs, batches):
        """Return the rows of all batches, and of all processes' parts of them, in their order."""
        result = torch.cat(outputs).float().cpu().numpy()
        rows = [row for batch in batches for row in batch]
        parts = self.processes.all_gather((rows, result))
        ordered = np.empty((1 + max(max(rows) for rows, _ in parts), *result.shape[1:]), np.float32)
        for rows, part in parts:
            ordered[rows] = part
        return ordered


def _marked(iterator):
    """Yield each batch and whether it is the last; how many there will be is not known before."""
    batches = iter(iterator)
    batch = next(batches, None)
    while batch is not None:
        following = next(batches, None)
        yield batch, following is None
        batch = following


def _plain_step(module, device, batch):
    inputs = {name: x.to(device) for name, x in batch[0].items() if name != "sample_weight"}
    if module.training:
        module.eval()
    with torch.inference_mode():
        return module(**inputs)
