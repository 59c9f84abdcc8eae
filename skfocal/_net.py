"""The skorch net: token batches in, logits out, one training step."""

import contextlib
import functools
import math
import threading
from typing import Any

import torch
from skorch import NeuralNet

from skfocal._devices import mind_fork
from skfocal._dropout import FastDropout
from skfocal._frozen import FrozenLayers
from skfocal._memory import kept_memory
from skfocal._module import has_dropout, parameter_groups
from skfocal._reduced import reduced_copy
from skfocal._text import Collate, TokenDataset, sorted_batches

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
        An :class:`~skfocal._module.EncoderClassifier` and a loss module of
        :mod:`skfocal.losses`.
    train_batches : LengthBatches
        Batch sampler of the training rows.
    pad_id : int
        The tokenizer's padding token.
    precision : {"float32", "bfloat16"}
        "bfloat16" runs the encoder under autocast.
    freeze : int
        Lower layers that do not learn; their outputs are computed once for each document.
    accumulate : int
        Batches whose gradients are added before each update.
    weight_decay, layer_decay : float
        See :func:`~skfocal._module.parameter_groups`.
    **kwargs
        Everything else that skorch takes.
    """

    reduced_: Any = (None, None)  # what it was made of, and the module

    def __init__(
        self,
        module,
        criterion,
        *,
        train_batches=None,
        pad_id=0,
        precision="float32",
        freeze=0,
        accumulate=1,
        weight_decay=0.01,
        layer_decay=1.0,
        **kwargs,
    ):
        self.train_batches = train_batches
        self.pad_id = pad_id
        self.precision = precision
        self.freeze = freeze
        self.accumulate = accumulate
        self.weight_decay = weight_decay
        self.layer_decay = layer_decay
        super().__init__(module, criterion, **kwargs)

    # -- training --------------------------------------------------------------------------

    def train(self, dataset, moments=None, keep_moments=False):
        """Train on a :class:`TokenDataset` from the module's present weights; return self.

        `moments` are what :meth:`moments` gave after an earlier training of the same module.
        """
        mind_fork()
        self.initialize()
        self.set_moments(moments or {})
        self.stop_ = False
        self.notify("on_train_begin", X=dataset, y=None)
        self.drops_ = self._drops_fast()
        super()._set_training(True)  # a pretrained encoder comes in evaluation mode
        if frozen := self._frozen_layers():
            frozen.prepare(dataset.tokens)
        with kept_memory():
            try:
                self.fit_loop(dataset)
            except StopTraining:
                pass
        self.notify("on_train_end", X=dataset, y=None)
        if not all(p.isfinite().all() for p in self.module_.parameters()):
            raise FloatingPointError(_advice("the last update left weights that are not finite"))
        # Gradients and moments are three times the weights: nobody predicts with them.
        self.module_.zero_grad(set_to_none=True)
        if not keep_moments:
            self.optimizer_.state.clear()
        self.module_.eval()
        # Nor with the documents, which share one array of tokens.
        self.train_split = None
        self.train_batches.batches = []
        return self

    def _drops_fast(self):
        """Say whether training drops anything and may do so the short way.

        CUDA's own is fast, a compiled graph keeps it, and checkpointed layers, which run again in
        the backward pass, have to drop the same in both.
        """
        model = self.plain_module().model
        on_cpu = torch.device(self.device).type == "cpu"
        checkpointed = any(getattr(m, "gradient_checkpointing", False) for m in model.modules())
        return on_cpu and not self.compile and not checkpointed and has_dropout(model)

    def plain_module(self) -> Any:
        """Return the module behind torch.compile's wrapper, if there is one."""
        return getattr(self.module_, "_orig_mod", self.module_)

    def updates_per_epoch(self):
        """Return how often an epoch updates the weights."""
        return math.ceil(len(self.train_batches) / self.accumulate)

    def moments(self):
        """Return the optimizer's state by the names of the weights."""
        state = self.optimizer_.state
        return {name: state[p] for name, p in self.module_.named_parameters() if p in state}

    def set_moments(self, moments):
        """Give the optimizer the state that :meth:`moments` returned."""
        for name, parameter in self.module_.named_parameters():
            if name in moments:
                self.optimizer_.state[parameter] = {
                    key: value.to(parameter.device) if torch.is_tensor(value) else value
                    for key, value in moments[name].items()
                }

    def notify(self, method_name, **cb_kwargs):
        """Call the callbacks, then stop if one of them asked for it at the end of an epoch.

        skorch's callbacks ask by KeyboardInterrupt, ours by ``net.stop_``. At any other moment
        the interrupt is the user's Ctrl-C and goes through.
        """
        try:
            super().notify(method_name, **cb_kwargs)
        except KeyboardInterrupt:
            if method_name != "on_epoch_end":
                raise
            self.stop_ = True
        if method_name == "on_epoch_end" and self.stop_:
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
        loader = self.iterator_train if kind == "train" else self.iterator_valid
        return loader(dataset, batch_sampler=batches, collate_fn=Collate(self.pad_id), **kwargs)

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
        losses, outputs = [], []
        for i, (batch, is_last) in enumerate(_marked(iterator), start=1):
            self.notify("on_batch_begin", batch=batch, training=training)
            self.updates_ = i % self.accumulate == 0 or is_last
            step = step_fn(batch, **fit_params)
            self.history.record_batch(f"{prefix}_batch_size", len(batch[1]))
            losses.append(step["loss"].detach())
            if len(losses) == every or is_last:
                self._record_losses(prefix, losses, i)
                losses = []
            if not training:
                outputs.append(step["y_pred"])
            self.notify("on_batch_end", batch=batch, training=training, **step)
        self.history.record(f"{prefix}_batch_count", i)
        if not training:
            self.valid_logits_ = self._in_order(outputs, iterator.batch_sampler)

    def _record_losses(self, prefix, losses, i):
        values = torch.stack(losses).tolist()
        rows = self.history[-1]["batches"][-len(values) :]
        for back, (row, value) in enumerate(zip(rows, values, strict=True)):
            row[f"{prefix}_loss"] = value
            if not abs(value) < float("inf"):
                number = i - len(values) + back + 1
                where = f"epoch {len(self.history)}, {prefix} batch {number}"
                raise FloatingPointError(_advice(f"the loss is {value} in {where}"))

    def _set_training(self, training=True):
        """Set the mode of module and criterion, which is a walk over all parts of the module."""
        if self.module_.training != training or self.criterion_.training != training:
            super()._set_training(training)

    def train_step(self, batch, **fit_params):
        """Add the gradient of a batch; update the weights where its turn has come."""
        step = self.train_step_single(batch, **fit_params)
        if self.updates_:
            self.notify(
                "on_grad_computed",
                named_parameters=list(self.get_all_learnable_params()),
                batch=batch,
                training=True,
            )
            self.optimizer_.step()
            self.optimizer_.zero_grad(set_to_none=True)
        return step

    def train_step_single(self, batch, **fit_params):
        """Compute the loss of a batch and add its part of the update's gradient."""
        self._set_training(True)
        inputs, codes = batch
        with FastDropout() if self.drops_ else contextlib.nullcontext():
            logits = self.infer(inputs, **fit_params)
        loss = self.get_loss(logits, codes, X=inputs, training=True)
        (loss * self._share_of_update(len(codes))).backward()
        return {"loss": loss, "y_pred": logits}

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
        return self.criterion_(y_pred, y_true.to(device), X["sample_weight"].to(device))

    # -- inference -------------------------------------------------------------------------

    def infer(self, x, **fit_params):
        """Return the logits of a batch of inputs."""
        x = {name: value for name, value in x.items() if name != "sample_weight"}
        kind = torch.device(self.device).type
        with contextlib.ExitStack() as stack:
            if frozen := self._frozen_layers():
                stack.enter_context(frozen.lock)
                stack.enter_context(frozen.replay(frozen.batch(**x)))
            half = self.precision == "bfloat16"
            stack.enter_context(torch.autocast(kind, torch.bfloat16, enabled=half))
            x = {name: value.to(self.device) for name, value in x.items()}
            return self.module_(**x, **fit_params)

    def _frozen_layers(self):
        """Return the :class:`FrozenLayers`, or None where all layers have to run."""
        if not self.freeze or self.compile:
            return None
        with _MAKING:
            frozen = getattr(self, "frozen_", None)
            if frozen is None or not frozen.is_current():
                frozen = FrozenLayers(self.module_.model, self.freeze, self.precision)
                self.frozen_ = frozen
        return frozen if frozen.is_constant else None

    def logits(self, tokens, precision=None):
        """Return float32 logits of shape (n, n_classes) for :class:`Tokens`, in their order.

        `precision` is one of :mod:`skfocal._reduced`; None predicts as the net was trained.
        """
        mind_fork()
        step = self.evaluation_step
        if precision is None:
            self.reduced_ = None, None
        else:
            step = functools.partial(_plain_step, self._reduced(precision), self.device)
        dataset = TokenDataset(tokens)
        batches = self._prediction_batches(dataset)
        if len(batches) == 1:  # a loader would take as long as a small model
            outputs = [step(Collate(self.pad_id)(dataset.__getitems__(batches[0])))]
        else:
            with kept_memory():
                outputs = [step(batch) for batch in self._loader(dataset, batches, "valid")]
        return self._in_order(outputs, batches)

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
        result = torch.cat(outputs).float().cpu().numpy()
        rows = [row for batch in batches for row in batch]
        ordered = result.copy()
        ordered[rows] = result
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
    inputs = {name: batch[0][name].to(device) for name in ("input_ids", "attention_mask")}
    if module.training:
        module.eval()
    with torch.inference_mode():
        return module(**inputs)


def _advice(problem):
    return (
        f"Training stopped: {problem}. Try a smaller lr or gradient_clip, a longer warmup, or "
        "precision='float32' if it was 'bfloat16'."
    )
