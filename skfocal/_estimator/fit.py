"""One training, from parameters and documents to the attributes of a fitted estimator."""

import contextlib
import copy
import functools
import math
from contextlib import nullcontext
from dataclasses import dataclass, fields, replace
from numbers import Integral
from types import SimpleNamespace
from typing import Any, Self

import numpy as np
from skorch.helper import predefined_split
from skorch.history import History

from skfocal._data import labels
from skfocal._data.batches import BucketBatchSampler, TokenDataset
from skfocal._data.tokenization import TruncationSpec
from skfocal._data.tokens import Tokens, tokenize
from skfocal._encoder.adapters import Adapters, settings_of
from skfocal._encoder.head import has_bias, set_linear
from skfocal._encoder.pooled import pooling_of
from skfocal._encoder.structure import freeze_layers, recomputed_layers
from skfocal._estimator import advice, build, plan
from skfocal._estimator.callback_checks import check_callbacks, check_unfreezers
from skfocal._estimator.inputs import TrainingData
from skfocal._estimator.parameters import (
    check_together,
    deciding_scoring,
    named_scoring,
    needs_held_out,
)
from skfocal._estimator.partial_fit import Chunks
from skfocal._estimator.plan import Plan
from skfocal._estimator.refit import check_head, check_refit, fit_linear
from skfocal._runtime.devices import (
    deterministic_algorithms,
    hold_device,
    seed_generators,
    seeded,
)
from skfocal._runtime.process_group import Processes
from skfocal._training.net import FocalNet
from skfocal._utils.hashing import digest
from skfocal._utils.offset_search import counted
from skfocal.calibration import PROBAS, prior_offset, resolve_proba
from skfocal.losses import Loss

# Parameters whose value may change when a fit is continued.
_NOT_OF_A_FIT = {
    "model",  # its weights are compared
    "verbose",
    "predict_precision",
    "checkpoint",
    "gradient_checkpointing",
}


@dataclass(frozen=True, eq=False)
class Fit:
    """The results of a training, named like the attributes of the estimator.

    Attributes without a leading underscore are documented in the estimator.

    Attributes
    ----------
    _shift : ndarray of the shape of class_weight_
        The sampler's part of `effective_class_weight_`.
    _n_frozen : int
        Lower layers that did not learn.
    _pairs : bool
        Whether the documents are pairs of texts.
    _cutting : dict
        How long documents were treated: the settings of a
        :class:`~skfocal._data.tokenization.TruncationSpec`.
    _pooling : str
        How the logits of windows are pooled.
    _temperatures : dict of str -> float
        Fitted temperature of each `proba`.
    _tuned_offset : ndarray of shape (n_classes,) or None
        Offsets of ``decision="tuned"``.
    _fitted_model : str
        The parameter `model`.
    _warned_for : tuple
        The values of `proba`, `decision` and `predict_precision` last warned about.
    _chunks : Chunks or None
        State that the next `partial_fit` goes on from.
    """

    classes_: np.ndarray
    class_weight_: np.ndarray
    effective_class_weight_: np.ndarray
    class_prior_: np.ndarray
    class_loss_: np.ndarray
    loss_: Loss
    lr_: float
    max_length_: int
    n_truncated_: int
    tokenizer_: Any
    net_: FocalNet
    pretrained_head_: bool
    pooling_: str
    _shift: np.ndarray
    _n_frozen: int
    _pairs: bool
    _cutting: dict
    _pooling: str
    _temperatures: dict
    _tuned_offset: np.ndarray | None
    _fitted_model: str
    _warned_for: tuple
    _chunks: Any = None

    @classmethod
    def of(cls, estimator) -> Self | None:
        """Return the results of the estimator's last training, or None before the first."""
        if not hasattr(estimator, "net_"):
            return None
        names = [field.name for field in fields(cls)]
        left: dict[str, Any] = {name: getattr(estimator, name, None) for name in names}
        return cls(**left)

    def keep_in(self, estimator):
        """Set the attributes of a fitted estimator."""
        vars(estimator).update(vars(self))
        if self._chunks is None:
            del estimator._chunks


@contextlib.contextmanager
def all_or_nothing(estimator):
    """Restore the previous state of the estimator if a fit does not finish."""
    before = vars(estimator).copy()
    try:
        yield
    except BaseException:
        vars(estimator).clear()
        vars(estimator).update(before)
        raise


@dataclass(frozen=True, eq=False)
class Prepared:
    """Everything prepared before the net is trained.

    Attributes
    ----------
    module : skfocal._encoder.module.EncoderClassifier
        With its new head, adapters and frozen layers.
    tokenizer : transformers.PreTrainedTokenizerFast
    truncation : skfocal._data.tokenization.TruncationSpec
    plan : skfocal._estimator.plan.Plan
    adapters : skfocal._encoder.adapters.Adapters or None
    tokens : skfocal._data.tokens.Tokens
        Of all documents.
    """

    module: Any
    tokenizer: Any
    truncation: TruncationSpec
    plan: Plan
    adapters: Adapters | None
    tokens: Tokens


@dataclass(frozen=True, eq=False)
class Training:
    """One training: a `fit`, or a call of `partial_fit`.

    Attributes
    ----------
    parameters : SimpleNamespace
        Those of the estimator.
    data : TrainingData
    rng : numpy.random.RandomState
        Goes on through the training.
    processes : Processes
        The processes that train together.
    checkpoints : Checkpoints, default=None
    earlier : Fit, default=None
        The last training of the estimator.
    chunks : Chunks, default=None
        State after the earlier calls of `partial_fit`; None in a `fit`.
    """

    parameters: SimpleNamespace
    data: TrainingData
    rng: np.random.RandomState
    processes: Processes
    checkpoints: Any = None
    earlier: Fit | None = None
    chunks: Chunks | None = None

    def run(self) -> Fit:
        """Train, and return the results.

        The new head, adapters, a callable sampler and dropout draw from torch's generator, in this
        order, and all processes make their collective calls in the same order.
        """
        self.processes.check_same(
            sample_weight=functools.partial(digest, self.data.weight.tobytes())
        )
        self._check()
        seed = self.rng.randint(np.iinfo(np.int32).max)
        with self._on_device(seed) as device:
            prepared = self._prepare()
            score = build.make_score(self.parameters, self.data, prepared.plan.calibration)
            net = self._net(prepared, score, device)
            if self.parameters.checkpoint is not None:
                self._check_checkpoint(prepared, net.precision)
            if self.processes.rank:  # each drops others; the new head was the same for all
                seed_generators(device, seed + self.processes.rank)
            batches = self._batches(prepared)
            self._train(net, prepared, batches)
            chunks = self._merge(net, prepared)
            if self.parameters.refit_head is not None:
                prepared = self._refit(net, prepared)
            temperatures, offset = self._calibrated(net, prepared, score)
        return self._result(net, prepared, chunks, temperatures, offset)

    @property
    def goes_on(self) -> bool:
        """Whether the weights of the last training are trained further."""
        is_chunk = self.chunks is not None
        return self.earlier is not None and (is_chunk or self.parameters.warm_start)

    def _check(self):
        """Check the parameters before any model is looked up or text tokenised."""
        if self.goes_on:
            call = "warm_start=True" if self.chunks is None else "partial_fit"
            build.check_earlier(self.parameters, self.data, self.earlier, call)
            if self.chunks is not None and self.chunks.n_updates:
                build.check_optimizer(self.parameters, self.earlier)
        check_together(self.parameters, self.parameters)
        check_callbacks(self.parameters, self.data.held_out is not None)
        if self.parameters.eval_steps is not None and self.data.held_out is None:
            raise ValueError(
                "eval_steps needs documents to score: give fit(X, y, eval_set=(X_val, y_val)), or "
                f"train_split=0.1. Got eval_steps={self.parameters.eval_steps}."
            )
        build.check_pairs(self.parameters, self.data.pairs)
        if self.parameters.refit_head is not None:
            check_refit(self.parameters, self.data)
        chosen = plan.check(self.parameters, self.data, self.rng, chunks=self.chunks)
        score = build.make_score(self.parameters, self.data, chosen.calibration)
        if score is not None:
            score.check(named_scoring(self.parameters.scoring))

    @contextlib.contextmanager
    def _on_device(self, seed):
        """Hold the device, with torch's generators seeded until the end of the block."""
        parameters = self.parameters
        steady = deterministic_algorithms() if parameters.deterministic else nullcontext()
        with hold_device(self.processes.device(parameters.device)) as device, steady:
            with seeded(device, seed):
                yield device

    def _prepare(self) -> Prepared:
        parameters, data = self.parameters, self.data
        if self.goes_on:
            module, tokenizer = build.copied_encoder(self.earlier, parameters)
        else:
            module, tokenizer = build.load_encoder(parameters, data.classes, data.multilabel)
        freeze_layers(module.model, int(parameters.freeze))
        check_unfreezers(parameters, module)
        truncation = build.chosen_truncation(parameters, module, tokenizer, data.pairs)
        chosen = plan.resolve(
            parameters, data, self.rng, chunks=self.chunks, processes=self.processes
        )
        build.fit_head(module.model, chosen.loss, parameters.loss)
        if data.multilabel and not self.goes_on and module.head != "published":
            build.start_at_prior(module.model, chosen.log_odds)
        adapters = None
        if parameters.peft is not None:
            kept = None if self.chunks is None else self.chunks.adapters
            adapters = Adapters(module.model, parameters.peft, int(parameters.freeze), kept)
        advice.advise(parameters, chosen, plan.answering(parameters, data, chosen))
        tokens = tokenize(tokenizer, data.texts, truncation, processes=self.processes)
        build.check_ids(module, tokens, data.texts)
        advice.advise_model(
            parameters, module, tokenizer, data.texts, tokens, self.processes.is_first
        )
        if parameters.refit_head is not None:
            check_head(module, tokens, tokenizer.pad_token_id, chosen.support)
        return Prepared(module, tokenizer, truncation, chosen, adapters, tokens)

    def _batches(self, prepared) -> BucketBatchSampler:
        sampling = prepared.plan.sampling
        return BucketBatchSampler(
            prepared.tokens.lengths[self.data.train],
            self.parameters.batch_size * self.processes.size,
            sampling.draw,
            sampling.n_draws,
            self.rng,
            processes=self.processes,
        )

    def _net(self, prepared, score, device) -> FocalNet:
        parameters, data, chosen = self.parameters, self.data, prepared.plan
        return build.make_net(
            parameters,
            prepared.module,
            chosen.loss,
            pad_id=prepared.tokenizer.pad_token_id,
            device=device,
            freeze=int(parameters.freeze),
            pooling=build.long_document_settings(parameters.long_documents)[1],
            max_epochs=parameters.max_epochs if self.chunks is None else 1,
            callbacks=build.make_callbacks(
                parameters, chosen.loss, score, self.chunks, self.processes.is_first
            ),
            train_split=score and predefined_split(_dataset(prepared.tokens, data, data.held_out)),
        )

    def _check_checkpoint(self, prepared, precision):
        """Raise ValueError if the checkpoint belongs to another fit."""
        parameters = {k: v for k, v in vars(self.parameters).items() if k not in _NOT_OF_A_FIT}
        parameters["batch_size"] *= self.processes.size
        parameters["precision"] = precision  # "auto" is another on other processors
        parameters["peft"] = settings_of(parameters["peft"])
        if not isinstance(parameters["random_state"], Integral):
            del parameters["random_state"]  # a generator is part of the state
        data, tokens = self.data, prepared.tokens
        self.checkpoints.check(
            parameters,
            labels=[data.codes],
            documents=[tokens.flat, tokens.lengths],
            sample_weights=[data.weight],
            held_out_documents=[data.train, [] if data.held_out is None else data.held_out],
            initial_weights=prepared.module.state_dict().values(),
        )

    def _train(self, net, prepared, batches):
        saving = self.parameters.gradient_checkpointing
        with recomputed_layers(prepared.module.model) if saving else nullcontext():
            net.train(
                _dataset(prepared.tokens, self.data, self.data.train),
                batches,
                processes=self.processes,
                checkpoints=self.checkpoints,
                moments=self._moments(prepared.adapters),
                keep_moments=self.chunks is not None,
            )

    def _moments(self, adapters):
        """Return the optimizer's state after the last chunk, or None."""
        if self.chunks is None or self.earlier is None or not self.chunks.n_updates:
            return None
        return (adapters and adapters.moments) or self.earlier.net_.moments()

    def _merge(self, net, prepared) -> Chunks | None:
        """Merge trained adapters into the weights; return the state for the next chunk."""
        adapters, chunks = prepared.adapters, None
        if self.chunks is not None:
            kept = adapters and adapters.keep(net.moments())
            n_batches = net.history[-1]["train_batch_count"]  # fewer after an interrupt
            n_updates = math.ceil(n_batches / net.accumulate)
            chunks = self.chunks.after(prepared.plan, n_updates, kept)
        if adapters is not None:
            adapters.merge()
            freeze_layers(net.plain_module().model, int(self.parameters.freeze))
        return chunks

    def _refit(self, net, prepared) -> Prepared:
        """Fit the last layer to the features of the training documents; return its plan, too."""
        rows, data = self.data.train, self.data
        features = self.processes.map_rows(
            len(rows), lambda part: net.features(prepared.tokens.take(rows[part]))
        )
        chosen = plan.refitted(self.parameters, data, prepared.plan)
        encoder = net.plain_module().model
        linear = self.processes.first(
            fit_linear,
            features,
            data.codes[rows],
            data.weight[rows],
            chosen.class_weight,
            has_bias(encoder),
        )
        set_linear(encoder, *linear)
        return replace(prepared, plan=chosen)

    def _calibrated(self, net, prepared, score):
        """Return the temperature of each `proba` and the tuned offset, by held-out documents."""
        rows = self.data.held_out
        if rows is None or not needs_held_out(self.parameters):
            return {}, None
        logits = self.processes.map_rows(
            len(rows), lambda part: net.logits(prepared.tokens.take(rows[part]))
        )
        return self.processes.first(self._calibrate, prepared.plan, logits, score)

    def _calibrate(self, chosen, logits, score):
        plain, rows = chosen.calibration, self.data.held_out
        codes, weight = self.data.codes[rows], self.data.weight[rows]
        temperatures, offset = {}, None
        if self.parameters.temperature == "auto":
            temperatures = {
                kind: replace(plain, proba=kind).fit_temperature(logits, codes, weight)
                for kind in (PROBAS if plain.loss.has_posterior else ["softmax"])
            }
        if self.parameters.decision == "tuned":
            offset = plain.fit_offset(
                logits,
                score.score,
                labels.positives(codes[weight > 0], len(plain.classes)),
                int((weight > 0).sum()),
                prior_offset("uniform", plain.classes, chosen.class_prior, plain.multilabel),
                counted(
                    deciding_scoring(self.parameters.scoring),
                    codes,
                    score.weight,
                    len(plain.classes),
                ),
            )
        return temperatures, offset

    def _has_pretrained_head(self, prepared) -> bool:
        if self.goes_on and self.earlier is not None:
            return self.earlier.pretrained_head_
        return prepared.module.head == "published"

    def _result(self, net, prepared, chunks, temperatures, offset) -> Fit:
        parameters, chosen = self.parameters, prepared.plan
        shares = dict(net.callbacks_)["class_loss"].shares_
        class_loss = np.reshape(shares, (len(shares), len(self.data.classes)))
        if self.chunks is not None and self.earlier is not None:
            net.history = _joined(self.earlier.net_.history, net.history)
            class_loss = np.concatenate([self.earlier.class_loss_, class_loss])
        settings, pooling = build.long_document_settings(parameters.long_documents)
        return Fit(
            classes_=self.data.classes,
            class_weight_=chosen.class_weight,
            effective_class_weight_=chosen.effective_class_weight,
            class_prior_=chosen.class_prior,
            class_loss_=class_loss,
            loss_=chosen.loss,
            lr_=net.get_params_for("optimizer").get("lr", net.lr),
            max_length_=prepared.truncation.max_length,
            n_truncated_=int(prepared.tokens.is_cut.sum()),
            tokenizer_=prepared.tokenizer,
            net_=net,
            pretrained_head_=self._has_pretrained_head(prepared),
            pooling_=pooling_of(prepared.module.model),
            _shift=chosen.shift,
            _n_frozen=int(parameters.freeze),
            _pairs=self.data.pairs,
            _cutting=settings,
            _pooling=pooling,
            _temperatures=temperatures,
            _tuned_offset=offset,
            _fitted_model=str(parameters.model),
            _warned_for=(resolve_proba(parameters.proba, chosen.loss), parameters.decision, None),
            _chunks=chunks,
        )


def _dataset(tokens, data, rows):
    return TokenDataset(tokens.take(rows), data.codes[rows], data.weight[rows])


def _joined(earlier, later):
    """Return both histories as one, with epochs numbered consecutively."""
    joined = History(copy.deepcopy(earlier))
    joined.extend({**row, "epoch": len(earlier) + row["epoch"]} for row in later)
    return joined
