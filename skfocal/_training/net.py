"""The skorch net: token batches in, logits out."""

import contextlib
import functools
import math
import threading
from typing import Any

import numpy as np
import torch
from sklearn.utils import ClassifierTags
from skorch import NeuralNet

from skfocal._data.batches import Collator, Shards
from skfocal._encoder.frozen_layers import FrozenLayers
from skfocal._encoder.known_mask import to_device
from skfocal._encoder.pooling import pool
from skfocal._runtime.devices import AUTOCAST
from skfocal._runtime.process_group import ALONE, full, like, load
from skfocal._runtime.threads import mind_fork
from skfocal._training.checkpoints import Checkpoints
from skfocal._training.inference import compute_features, compute_logits, prediction_batches
from skfocal._training.loop import StopTraining, TrainingLoop
from skfocal._training.microbatches import MicroBatches
from skfocal._training.optimization import parameter_groups
from skfocal._training.snapshot import global_states


class FocalNet(NeuralNet):
    """A skorch net over token ids, integer codes and logits; it knows no words and no labels.

    Parameters
    ----------
    module, criterion : as in skorch
        An :class:`~skfocal._encoder.module.EncoderClassifier` and a loss module of
        :mod:`skfocal.losses`.
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
        See :func:`~skfocal._training.optimization.parameter_groups`.
    **kwargs
        Everything else that skorch takes.

    Attributes
    ----------
    loop_ : TrainingLoop or None
        What there is only while the net trains.
    """

    loop_: Any = None
    reduced_: Any = (None, None)  # what it was made of, and the module
    watch = None  # is called with the number of documents of each batch that is predicted

    def __init__(
        self,
        module,
        criterion,
        *,
        pad_id=0,
        precision="float32",
        freeze=0,
        pooling="mean",
        accumulate=1,
        gradient_clip=None,
        nonfinite="raise",
        weight_decay=0.01,
        layer_decay=1.0,
        **kwargs,
    ):
        self.pad_id = pad_id
        self.precision = precision
        self.freeze = freeze
        self.pooling = pooling
        self.accumulate = accumulate
        self.gradient_clip = gradient_clip
        self.nonfinite = nonfinite
        self.weight_decay = weight_decay
        self.layer_decay = layer_decay
        self.predict_microbatches_ = MicroBatches("prediction")
        self.lock_ = threading.RLock()  # held while something changes the module for a while
        super().__init__(module, criterion, **kwargs)

    # -- training --------------------------------------------------------------------------

    def train(
        self,
        dataset,
        batches,
        *,
        processes=ALONE,
        checkpoints=None,
        moments=None,
        keep_moments=False,
    ):
        """Train from the module's present weights; return self.

        Parameters
        ----------
        dataset : TokenDataset
            The documents to train on.
        batches : BucketBatchSampler
            Batches of their rows.
        processes : Processes, default=ALONE
            Those that train together.
        checkpoints : Checkpoints, default=None
            The training goes on from what they have found, and writes others.
        moments : dict, default=None
            What :meth:`moments` gave after an earlier training of the same module.
        keep_moments : bool, default=False
            Whether a later training goes on from the optimizer's state.
        """
        mind_fork()
        at_begin = global_states()
        self.initialize()
        super()._set_training(True)  # a pretrained encoder comes in evaluation mode
        checkpoints = checkpoints or Checkpoints(None)
        self.loop_ = TrainingLoop(self, dataset, batches, processes, checkpoints, at_begin)
        try:
            self.loop_.run(moments or {}, keep_moments)
        finally:
            self.loop_ = None
            self.predict_microbatches_.may_shrink = True
        # Gradients and moments are three times the weights: nobody predicts with them.
        self.module_.zero_grad(set_to_none=True)
        if not keep_moments:
            self.optimizer_.state.clear()
        self.module_.eval()
        self.train_split = None  # it holds documents, which share one array of tokens
        return self

    @property
    def processes(self):
        """Those that train together; outside of a training this one is alone."""
        return ALONE if self.loop_ is None else self.loop_.processes

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
        """Return how often an epoch of the present training updates the weights."""
        return math.ceil(len(self.loop_.batches) / self.accumulate)

    def _named_parameters(self):
        return self.plain_module().named_parameters()

    def moments(self):
        """Return the optimizer's state by the names of the weights."""
        state = self.optimizer_.state
        moments = {name: state[p] for name, p in self._named_parameters() if p in state}
        return full(moments)

    def set_moments(self, moments):
        """Give the optimizer the state that :meth:`moments` returned."""
        for name, parameter in self._named_parameters():
            if name in moments:
                self.optimizer_.state[parameter] = {
                    # A copy: the optimizer writes into it.
                    key: like(value, parameter) if torch.is_tensor(value) else value
                    for key, value in moments[name].items()
                }

    def __getstate__(self):
        """Leave out the documents of a training that goes on, and what a copy has of its own."""
        with self.lock_:
            state = {**super().__getstate__(), "loop_": None}
        return {name: x for name, x in state.items() if name not in ("lock_", "frozen_")}

    def __setstate__(self, state):
        """Give the copy a lock."""
        super().__setstate__(state)
        self.lock_ = threading.RLock()

    # -- what skorch's loop calls ----------------------------------------------------------

    def notify(self, method_name, **cb_kwargs):
        """Call the callbacks, then stop if one of them asked for it at the end of an epoch.

        skorch's callbacks ask by KeyboardInterrupt, ours by ``net.loop_.stop``; in one process for
        all. The user's Ctrl-C, and the interrupt at any other moment, goes through.
        """
        loop = self.loop_
        try:
            super().notify(method_name, **cb_kwargs)
        except KeyboardInterrupt:
            if method_name != "on_epoch_end" or loop.signals.raised:
                raise
            loop.stop = True
        if method_name == "on_epoch_end" and loop.end_epoch():
            raise StopTraining

    def get_iterator(self, dataset, training=False):
        """Return a DataLoader over batches of near-equal length."""
        if training:
            return self.loader(dataset, self.loop_.batches, "train")
        return self.loader(dataset, prediction_batches(self, dataset), "valid")

    def loader(self, dataset, batches, kind):
        """Return a DataLoader over this process's share; `kind` is "train" or "valid"."""
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
        """Run one epoch in the training loop."""
        if iterator is not None:
            self.loop_.run_epoch(iterator, training, prefix, step_fn, **fit_params)

    def train_step(self, batch, **fit_params):
        """Add the gradient of a batch; update the weights where its turn has come."""
        return self.loop_.train_step(batch, **fit_params)

    def validation_step(self, batch, **fit_params):
        """Return loss and logits of a held-out batch."""
        return self.loop_.validation_step(batch, **fit_params)

    def _set_training(self, training=True):
        """Set the mode of module and criterion, which is a walk over all parts of the module."""
        if self.module_.training != training or self.criterion_.training != training:
            super()._set_training(training)

    def get_loss(self, y_pred, y_true, X=None, training=False):
        """Return the criterion's loss with the batch's sample weights."""
        device = y_pred.device
        weight = X["sample_weight"].to(device, non_blocking=True)
        return self.criterion_(y_pred, y_true.to(device, non_blocking=True), weight)

    # -- inference -------------------------------------------------------------------------

    def infer(self, x, forward=None, **fit_params):
        """Return the logits of a batch of inputs, one row per document.

        `forward` computes something else of them than the logits.
        """
        x = {name: value for name, value in x.items() if name != "sample_weight"}
        windows = x.pop("pieces", None)
        with contextlib.ExitStack() as stack:
            if frozen := self.frozen_layers():
                stack.enter_context(self.lock_)
                stack.enter_context(frozen.replay(frozen.batch(**x)))
            stack.enter_context(self.autocast())
            x = to_device(x, self.device)
            strategy = self.loop_ and self.loop_.strategy
            if forward is None:
                forward = self.module_ if strategy is None else strategy.forward
            logits = forward(**x, **fit_params)
        return logits if windows is None else pool(logits, windows.to(self.device), self.pooling)

    def autocast(self):
        """Return the context in which the encoder computes."""
        dtype = AUTOCAST.get(self.precision)
        return torch.autocast(torch.device(self.device).type, dtype, enabled=dtype is not None)

    def evaluation_step(self, batch, training=False):
        """Return the logits of a batch, computed in parts where its whole does not fit."""
        step = functools.partial(super().evaluation_step, training=training)
        return self.predict_microbatches_.run(step, batch)

    def feature_step(self, batch):
        """Return what the logits of a batch are computed from, as :meth:`evaluation_step` does."""
        return self.predict_microbatches_.run(self._feature_step, batch)

    def _feature_step(self, batch):
        self._set_training(False)
        with torch.no_grad():
            return self.infer(batch[0], self.plain_module().features)

    # -- what skorch's scoring callbacks ask -----------------------------------------------

    def __sklearn_tags__(self):
        """Return the tags of a classifier, so that scorers ask for classes and probabilities."""
        tags = super().__sklearn_tags__()
        tags.estimator_type = "classifier"
        tags.classifier_tags = ClassifierTags(multi_label=True)
        return tags

    @property
    def classes_(self):
        """The codes of the classes."""
        return np.arange(self.plain_module().model.config.num_labels)

    @property
    def _is_multilabel(self):
        if self.loop_ is not None:  # a loss of the user's own may be for either
            return self.loop_.dataset.codes.ndim == 2
        return bool(self.criterion_.multilabel)

    def _get_predict_nonlinearity(self):
        """Return the softmax of the logits, or their sigmoid for labels."""
        return self._nonlinearity

    def _nonlinearity(self, logits):
        logits = logits.float()
        return logits.sigmoid() if self._is_multilabel else logits.softmax(1)

    def predict(self, X):
        """Return the codes of the classes, or an indicator of labels."""
        proba = self.predict_proba(X)
        return (proba > 0.5).astype(int) if self._is_multilabel else proba.argmax(axis=1)

    def frozen_layers(self):
        """Return the :class:`FrozenLayers`, or None where all layers have to run."""
        strategy = self.loop_ and self.loop_.strategy
        if not self.freeze or self.compile or not getattr(strategy, "in_parts", True):
            return None
        with self.lock_:
            frozen = getattr(self, "frozen_", None)
            if frozen is None or not frozen.is_current():
                keeps = frozen is not None and frozen.store is not None
                frozen = FrozenLayers(self.module_.model, self.freeze, self.precision)
                if keeps and frozen.is_constant:
                    frozen.start_keeping()
                self.frozen_ = frozen
        return frozen if frozen.is_constant else None

    @contextlib.contextmanager
    def module_at_rest(self):
        """Yield the plain module to copy, read or change it; threads that change it wait.

        It changes while its frozen layers compute or are replayed, and while it is explained.
        """
        with self.lock_:
            yield self.plain_module()

    def logits(self, tokens, precision=None):
        """Return float32 logits of shape (n, n_classes) for :class:`Tokens`, in their order.

        `precision` is one of the module quantization; None predicts as the net was trained.
        """
        return compute_logits(self, tokens, precision)

    def features(self, tokens, precision=None):
        """Return what the logits of :class:`Tokens` are computed from, of shape (n, width)."""
        return compute_features(self, tokens, precision)
