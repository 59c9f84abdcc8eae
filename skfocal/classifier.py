"""BertFocalClassifier: words and labels in, a fine-tuned encoder out."""

import contextlib
import copy
import functools
import os
from dataclasses import dataclass, replace
from numbers import Integral, Real
from typing import Self

import numpy as np
import torch
from sklearn.base import BaseEstimator, ClassifierMixin, _fit_context
from sklearn.metrics import check_scoring, get_scorer_names
from sklearn.utils import check_random_state
from sklearn.utils._param_validation import (
    HasMethods,
    Interval,
    StrOptions,
    validate_parameter_constraints,
)
from sklearn.utils.validation import (
    _check_feature_names,
    _check_n_features,
    _check_sample_weight,
    _num_samples,
    check_consistent_length,
    check_is_fitted,
)
from skorch.helper import predefined_split
from skorch.history import History

from skfocal import balance
from skfocal._data import labels as _targets
from skfocal._data.batches import LengthBatches, TokenDataset
from skfocal._data.document_streams import joined, parts
from skfocal._data.texts import as_texts, check_kind, columns_named, is_stream, take
from skfocal._data.tokenization import Cutting
from skfocal._data.tokens import CACHED_DOCUMENTS, tokenize
from skfocal._encoder import adapters as _adapters
from skfocal._encoder.dropout import set_attention_dropout, set_dropout
from skfocal._encoder.head import cosine_scale, give_cosine_head
from skfocal._encoder.module import load_module
from skfocal._encoder.pooling import POOLINGS
from skfocal._encoder.pretrained import load_tokenizer
from skfocal._encoder.quantization import PRECISIONS
from skfocal._encoder.structure import (
    freeze_layers,
    has_token_types,
    length_limit,
    recomputed_layers,
)
from skfocal._estimator import advice
from skfocal._runtime import process_group
from skfocal._runtime.devices import deterministic_algorithms, hold_device, resolve_device
from skfocal._runtime.warnings import warn
from skfocal._storage.encoder_state import module_from_plain, module_to_plain
from skfocal._training.checkpoints import Checkpoints, describe
from skfocal._training.net import FocalNet
from skfocal._utils.hashing import digest
from skfocal._utils.messages import excerpt, excerpts, short_errors
from skfocal.calibration import (
    DECISIONS,
    PROBAS,
    Calibration,
    FixedPredictions,
    prior_offset,
    resolve_proba,
)
from skfocal.callbacks import (
    SCHEDULES,
    ClassLoss,
    DeferredWeight,
    Progress,
    Pruning,
    SkippedUpdates,
    ValidationScore,
    WarmupSchedule,
    copies,
    takes_weight,
)
from skfocal.losses import LOSSES, MULTILABEL_LOSSES, make_loss
from skfocal.losses._state import loss_from_plain, loss_to_plain

# Parameters that a fit may be continued with another value of.
_NOT_OF_A_FIT = {
    "model",  # its weights are compared
    "verbose",
    "predict_precision",
    "checkpoint",
    "checkpoint_steps",
    "checkpoint_minutes",
    "gradient_checkpointing",
}
# Parameters that may be others in each of several processes.
_OF_A_PROCESS = {"device", "random_state", "callbacks", "net_params", "verbose"}
_NOT_CUT = {"_pairs": False, "_cutting": {}, "_pooling": "mean"}  # fitted by an older version
_LOSSES = {"loss", "loss_"}  # what of the estimator may be a loss module
_CHUNK = 32_768  # documents that are tokenised and sorted together for prediction


@dataclass
class _Chunks:
    """What `partial_fit` remembers from chunk to chunk."""

    rng: np.random.RandomState
    raw: np.ndarray  # amount of each class in the data
    drawn: np.ndarray  # and in what was drawn of it
    n_first: int | None = None  # updates of the first chunk
    n_updates: int = 0
    adapters: dict | None = None  # what merging them into the weights has lost

    def count(self, raw, drawn):
        """Add a chunk's amounts of each class; return the sums."""
        self.raw, self.drawn = self.raw + raw, self.drawn + drawn
        return self.raw, self.drawn

    def to_plain(self):
        """Return plain data, but for a generator that is not numpy's usual one."""
        state = self.rng.get_state(legacy=False)
        usual = state["bit_generator"] == "MT19937"
        return {**vars(self), "rng": state if usual else self.rng}

    @classmethod
    def from_plain(cls, plain):
        """Return what :meth:`to_plain` took apart."""
        rng = plain["rng"]
        if isinstance(rng, dict):
            rng = np.random.RandomState(np.random.MT19937())
            rng.set_state(plain["rng"])
        return cls(**{**plain, "rng": rng})


class BertFocalClassifier(ClassifierMixin, BaseEstimator):
    """Fine-tune a BERT-like encoder on texts whose classes are imbalanced.

    Parameters
    ----------
    model : str or path, default="google-bert/bert-base-uncased"
        A name on the Hugging Face hub or a folder: any encoder that transformers'
        ``AutoModelForSequenceClassification`` accepts, with safetensors weights and a fast
        tokenizer. :func:`skfocal.datasets.fetch_minilm` returns a folder without a hub.

    loss : {"focal", "cross_entropy", "poly1", "poly1_focal", "logit_adjusted", \
            "balanced_softmax", "ldam", "dice", "asymmetric"}, module, class or callable, \
            default="focal"
        See :mod:`skfocal.losses`. With several labels a document "focal" and "cross_entropy" are
        those of each label's sigmoid, beside "asymmetric". "ldam" gives the encoder a head of
        cosines. A torch module, its class or a function
        is called with logits and codes and returns one value a document
        (``reduction="none"``); it is copied. A class or function gets `gamma` and
        `label_smoothing` if it has arguments of these names that no partial has bound; an
        instance keeps its own settings, its class weights included.

    gamma : float, default=2.0
        Focusing parameter of the focal losses, at least 0; 0 is cross-entropy. The factor
        ``(1 - p)**gamma`` turns down the documents that the model already gets right. It does
        not correct the imbalance: that is `alpha` and `sampler`.

    alpha : None, {"balanced", "sqrt", "effective"}, dict, array-like or float, default=None
        Class weights. The named ones are computed from what the sampler draws and have mean 1
        over it: ``1 / n``, ``1 / sqrt(n)``, and the effective number of samples with `beta`. A
        dict or pandas Series by label and an array in the order of `classes_` are taken as they
        are. A float in (0, 1), for two classes, is the weight of ``classes_[1]``; the other gets
        1 - alpha.

    sampler : None, {"balanced", "sqrt", "progressive"}, float, imbalanced-learn sampler or \
            callable, default=None
        Which documents an epoch draws. None: each one once. A number ``q`` in [0, 1]: with
        replacement, a class with probability proportional to ``n_c**q``; "balanced" is 0,
        "sqrt" is 0.5. "progressive" goes from the data's distribution to the balanced one over
        the epochs. An imbalanced-learn sampler with ``sample_indices_`` runs once on the row
        numbers. A callable gets the labels and returns a torch Sampler of row numbers.

    beta : float, default=0.999
        In (0, 1), for ``alpha="effective"``.

    defer : float, default=0.0
        In [0, 1): the part of the epochs, rounded to whole ones, that train without `alpha` before
        it sets in. Deferred re-weighting (Cao et al., 2019) is 0.8 with ``alpha="effective"``,
        ``beta=0.9999`` and no sampler, there with ``loss="ldam"``.

    normalize : {"samples", "weights", "sum"}, default="samples"
        What a batch's summed loss is divided by: its number of documents, the sum of their
        class weights (as ``torch.nn.CrossEntropyLoss(weight=...)``; it takes away much of
        alpha's effect in small batches), or nothing.

    label_smoothing : float, default=0.0
        In [0, 1).

    loss_params : dict, default=None
        Other settings of `loss`: ``{"epsilon": 1.0}`` of the Poly-1 losses, ``{"tau": 1.0}`` of
        the logit adjustment, ``{"max_margin": 0.5, "scale": 30.0}`` of LDAM, ``{"power": 0.1,
        "smooth": 1.0}`` of the dice loss, or the arguments of a class or function.

    proba : {"auto", "softmax", "reweighted", "natural"}, default="auto"
        What `predict_proba` returns. "softmax" of the logits, which gamma leaves too close to
        uniform. "natural": the probabilities in the data, with gamma, alpha, the sampler, the
        loss's adjustment and label smoothing undone. "reweighted": where each class counts as
        much as it did in training. `predict` takes the largest. May be set after `fit`.

    temperature : None, "auto" or float, default=None
        Divides the log-probabilities of `proba`, which are normalised again; in [0.001, 1000].
        May be a number set after `fit`. "auto" fits it on
        the held-out documents (0.1 of them if `train_split` is None).

    decision : {"argmax", "prior", "tuned"}, default="argmax"
        How `predict` decides. "argmax": the largest probability. "prior": as the natural
        probabilities would in a population whose shares are `prior`. "tuned": offsets of the
        classes (thresholds of labels) that maximise `scoring` on the held-out documents (0.1 of
        them if `train_split` is None): a common part of what "prior" adds for "uniform", and of
        each class's own what its held-out documents can tell.

    prior : None, "uniform", dict or array-like of shape (n_classes,), default=None
        Shares of the classes where predictions will be used, for ``decision="prior"``; "uniform"
        aims at balanced accuracy.

    classes : array-like, default=None
        All labels that there are, for a training fold that lacks some. None: those in y.

    max_length : int, default=None
        Tokens kept of a document, or of each piece of one, special tokens included. None: the
        model's own limit.

    long_documents : {"truncate", "head_tail", "chunk"}, default="truncate"
        What happens to documents of more tokens than `max_length`. "truncate": they lose their
        end. "head_tail": they keep a quarter of the tokens from the beginning and three quarters
        from the end (Sun et al., 2019). "chunk": they become pieces, and `pooling` makes one row
        of logits of theirs, in training too. Takes as much longer as there are more tokens:
        :doc:`measured </benchmarks/long-documents>`. Pairs of texts are truncated, the longer
        text first.

    stride : int, default=0
        Tokens that neighbouring pieces of a document share, for ``long_documents="chunk"``.

    pooling : {"mean", "max", "logsumexp"}, default="logsumexp"
        What pieces' logits become the document's by: their mean, the largest of each class, or
        the logarithm of the mean of their exponentials, the best of the three in the benchmark.

    max_chunks : int or None, default=16
        Most pieces of a document; what comes after is lost. None: no limit; then
        nothing bounds the memory that one document takes in training.

    max_epochs : int, default=4
        Passes over the documents.

    batch_size : int, default=16
        Documents in a batch, of each process where several train together
        (:doc:`/several-processes`). Prediction takes four times as many, on a CPU as many as
        have 1024 tokens together.

    lr : float or "auto", default="auto"
        Peak learning rate of AdamW. "auto" is ``2e-4 * (384 / width)**2``, at most 1e-3, with
        the width of the encoder's hidden layer: 2e-4 for MiniLM, 5e-5 for BERT-base, 3e-5 for
        BERT-large. With `peft` ten times that, at most 1e-2.

    weight_decay : float, default=0.01
        Of AdamW; not applied to biases and norms.

    warmup : float, default=0.1
        Fraction of all updates over which the rate rises, in [0, 1).

    schedule : {"linear", "cosine", "constant"}, default="linear"
        How the rate goes down to zero after the warm-up.

    n_updates : int, default=None
        Updates over which the warm-up and the schedule run. None: all those of a `fit`. For
        `partial_fit`, which cannot know how many will come, None warms up over `warmup` of the
        first chunk and keeps the rate then.

    gradient_clip : float or None, default=1.0
        Largest norm of the gradient.

    accumulate : int, default=1
        Batches whose gradients are added before an update.

    gradient_checkpointing : bool, default=False
        Whether training keeps of each layer only its input and computes the rest again in the
        backward pass. The weights come out the same, from less memory, a third to a half slower:
        :doc:`measured </benchmarks/adapters>`.

    dropout : float or None, default=0.0
        Probability of every dropout in the encoder. None: as its configuration says.

    attention_dropout : float or None, default=None
        Probability of the dropout of attention weights. None: as `dropout`. The dearest of all
        dropouts: there are as many weights as pairs of tokens.

    prune : float, default=0.0
        In [0, 1): probability with which an epoch leaves out a document whose last loss was
        below the mean; one that stays counts ``1 / (1 - prune)`` times, so that the expected
        gradient is that of all documents (InfoBatch). The first of `max_epochs` and the last
        have all. Not with ``normalize="weights"``. It changes the result:
        :doc:`measured </benchmarks/prune>`.

    train_split : None, float or cross-validation splitter, default=None
        Documents held out to score each epoch: a fraction in (0, 1), stratified, where a class
        always keeps a document to train on; or the first split of a splitter. None holds out
        none, or 0.1 with `early_stopping`, ``temperature="auto"`` or ``decision="tuned"``.

    early_stopping : bool, default=False
        Stop after `patience` epochs without a better score, and keep the best epoch's weights.

    patience : int, default=3
        For `early_stopping`.

    scoring : str or callable, default="f1_macro"
        scikit-learn scorer of the held-out documents.

    freeze : int, default=0
        Number of lower layers, and with them the embeddings, that stay as they are.

    layer_decay : float, default=1.0
        In (0, 1]: the learning rate shrinks by this factor a layer from the head down.

    peft : None, peft.PeftConfig or dict, default=None
        Adapters that learn in place of the layers, such as ``peft.LoraConfig(r=8)``, or a dict of
        its settings, ``{"peft_type": "LORA", "r": 8}``; the head learns in full. After the
        training they are merged into the weights, so that nothing else needs peft.
        `partial_fit` goes on with the same adapters, `warm_start` begins others on the merged
        weights. See :doc:`/large-encoders`.

    precision : {"auto", "float32", "bfloat16", "float16"}, default="auto"
        "bfloat16" runs the encoder under autocast, weights stay float32. "float16" is for devices
        without bfloat16: the loss is scaled so that small gradients are not lost, and updates
        that overflow meanwhile are skipped. "auto" is bfloat16 on CUDA and float32 elsewhere.

    predict_precision : None, {"float32", "bfloat16", "int8"}, default=None
        What `predict` and its like compute in. None: as in training. "bfloat16" pays on
        processors with instructions for it, and on CUDA. "int8" quantises the matrix products of
        the encoder's layers, on a CPU. May be set after `fit`. How much faster, and what it
        costs: :doc:`measured </benchmarks/speed>`.

    nonfinite : {"raise", "skip"}, default="raise"
        What happens when a loss or a gradient is NaN or infinite. "raise": `fit` ends with a
        FloatingPointError that names the batch. "skip": the update is left out, which warns once
        and is counted as ``n_skipped`` in `history_`; after 20 in a row `fit` ends all the same.

    checkpoint : None, str or path, default=None
        A folder for checkpoints of `fit`. After a crash the same call goes on from the last one
        and ends, on a CPU, with the very same weights, history and predictions as without the
        interruption; with other data or parameters it is refused. A fit that has ended leaves its
        last checkpoint, from which the same call returns at once. SIGTERM waits until one is
        written. Of your callbacks, attributes that end in an underscore are kept, or their
        `state_dict`.

    checkpoint_steps : int, default=None
        Updates from one checkpoint to the next. None: by time alone.

    checkpoint_minutes : float, default=10.0
        Minutes from one checkpoint to the next. None: by `checkpoint_steps` alone.

    device : str, default="auto"
        A torch device. "auto" is CUDA where there is one, else the CPU; of several processes
        that train together each takes the CUDA device of its own number.

    compile : bool, default=False
        Whether ``torch.compile`` the module.

    deterministic : bool, default=False
        Whether `fit` may only use operations that give the same bits in every run with the same
        `random_state`, as on a CPU it does anyway. For CUDA: some are slower, and one that has
        no such form raises an error that names it. torch is set so for the time of the fit, for
        other threads too.

    trust_remote_code : bool, default=False
        Whether Python code that comes with the model may run.

    warm_start : bool, default=False
        Whether another `fit` goes on from the weights of the last one.

    callbacks : list of skorch callbacks, default=None
        Copied before use, but for what cannot be copied, such as the open file of a tracker; the
        copies are in ``net_.callbacks_``.

    net_params : dict, default=None
        Any other argument of skorch's ``NeuralNet``; wins over what this class would give it.

    random_state : int, RandomState instance or None, default=None
        Governs the new head and adapters, dropout, the order and the drawing of documents and the
        split. The global generators are left as found.

    verbose : int, default=0
        0 is silent; 1 shows a bar within each epoch and a line after it.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        Sorted labels.
    class_weight_ : ndarray of shape (n_classes,)
        What `fit` made of `alpha`.
    effective_class_weight_ : ndarray of shape (n_classes,)
        `class_weight_` times the sampler's shift times the loss's own adjustment: how much more
        a class counts in training than in the data.
    loss_ : torch.nn.Module
        The loss that was minimised.
    class_prior_ : ndarray of shape (n_classes,)
        Share of each class in the training documents, or of those that have the label.
    proba_ : str
        `proba`, with "auto" resolved.
    decision_offset_ : ndarray of shape (n_classes,) or None
        What the decision adds to log-probabilities (to log-odds of labels), None for "argmax".
    temperature_ : float
        The temperature of the present `proba`.
    lr_ : float
        The peak learning rate.
    max_length_ : int
        Tokens kept of a document.
    n_truncated_ : int
        Training documents that lost tokens.
    net_ : FocalNet
        The trained skorch net.
    tokenizer_ : transformers.PreTrainedTokenizerFast
        The model's tokenizer.
    history_ : skorch.history.History
        Losses and scores of each epoch.
    class_loss_ : ndarray of shape (n_epochs, n_classes)
        Share of each epoch's training loss that the documents of each class carried; of several
        labels, each label. Drawn by :class:`~skfocal.ClassLossDisplay`.
    n_features_in_ : int
        1, or 2 for pairs of texts, only if X was two-dimensional in `fit`.
    feature_names_in_ : ndarray of shape (1,) or (2,)
        The columns' names, only if X was a DataFrame, Dataset or Arrow table in `fit`.

    References
    ----------
    Lin, Goyal, Girshick, He, Dollar: Focal Loss for Dense Object Detection, ICCV 2017
    (arXiv:1708.02002).

    Examples
    --------
    >>> from skfocal import BertFocalClassifier
    >>> clf = BertFocalClassifier("some/folder", gamma=2.0, alpha="balanced")
    >>> clf
    BertFocalClassifier(alpha='balanced', model='some/folder')
    """

    net_: FocalNet
    class_loss_: np.ndarray
    _pairs: bool
    _cutting: dict
    _pooling: str

    _parameter_constraints: dict = {
        "model": [str, os.PathLike],
        "loss": [StrOptions({*LOSSES, *MULTILABEL_LOSSES}), callable],
        "gamma": [Interval(Real, 0, None, closed="left")],
        "alpha": "no_validation",  # balance.class_weight knows the classes
        "sampler": "no_validation",  # balance.resolve_sampling
        "beta": [Interval(Real, 0, 1, closed="neither")],
        "defer": [Interval(Real, 0, 1, closed="left")],
        "normalize": [StrOptions({"samples", "weights", "sum"})],
        "label_smoothing": [Interval(Real, 0, 1, closed="left")],
        "loss_params": [None, dict],
        "proba": [StrOptions({"auto", *PROBAS})],
        "temperature": [None, StrOptions({"auto"}), Interval(Real, 1e-3, 1e3, closed="both")],
        "decision": [StrOptions(set(DECISIONS))],
        "prior": [None, StrOptions({"uniform"}), dict, "array-like"],
        "classes": [None, "array-like"],
        "max_length": [None, Interval(Integral, 3, None, closed="left")],
        "long_documents": [StrOptions({"truncate", "head_tail", "chunk"})],
        "stride": [Interval(Integral, 0, None, closed="left")],
        "pooling": [StrOptions(set(POOLINGS))],
        "max_chunks": [None, Interval(Integral, 1, None, closed="left")],
        "max_epochs": [Interval(Integral, 1, None, closed="left")],
        "batch_size": [Interval(Integral, 1, None, closed="left")],
        "lr": [StrOptions({"auto"}), Interval(Real, 0, None, closed="neither")],
        "weight_decay": [Interval(Real, 0, None, closed="left")],
        "warmup": [Interval(Real, 0, 1, closed="left")],
        "schedule": [StrOptions(set(SCHEDULES))],
        "n_updates": [None, Interval(Integral, 1, None, closed="left")],
        "gradient_clip": [None, Interval(Real, 0, None, closed="neither")],
        "accumulate": [Interval(Integral, 1, None, closed="left")],
        "gradient_checkpointing": ["boolean"],
        "dropout": [None, Interval(Real, 0, 1, closed="left")],
        "attention_dropout": [None, Interval(Real, 0, 1, closed="left")],
        "prune": [Interval(Real, 0, 1, closed="left")],
        "train_split": [None, Interval(Real, 0, 1, closed="neither"), HasMethods("split")],
        "early_stopping": ["boolean"],
        "patience": [Interval(Integral, 1, None, closed="left")],
        "scoring": [StrOptions(set(get_scorer_names())), callable],
        "freeze": [Interval(Integral, 0, None, closed="left")],
        "layer_decay": [Interval(Real, 0, 1, closed="right")],
        "peft": "no_validation",  # _adapters.resolve_config knows what peft has
        "precision": [StrOptions({"auto", "float32", "bfloat16", "float16"})],
        "predict_precision": [None, StrOptions(set(PRECISIONS))],
        "nonfinite": [StrOptions({"raise", "skip"})],
        "checkpoint": [None, str, os.PathLike],
        "checkpoint_steps": [None, Interval(Integral, 1, None, closed="left")],
        "checkpoint_minutes": [None, Interval(Real, 0, None, closed="neither")],
        "device": [str, torch.device],
        "compile": ["boolean"],
        "deterministic": ["boolean"],
        "trust_remote_code": ["boolean"],
        "warm_start": ["boolean"],
        "callbacks": [None, list, tuple],
        "net_params": [None, dict],
        "random_state": ["random_state"],
        "verbose": ["verbose"],
    }

    def __init__(
        self,
        model="google-bert/bert-base-uncased",
        *,
        loss="focal",
        gamma=2.0,
        alpha=None,
        sampler=None,
        beta=0.999,
        defer=0.0,
        normalize="samples",
        label_smoothing=0.0,
        loss_params=None,
        proba="auto",
        temperature=None,
        decision="argmax",
        prior=None,
        classes=None,
        max_length=None,
        long_documents="truncate",
        stride=0,
        pooling="logsumexp",
        max_chunks=16,
        max_epochs=4,
        batch_size=16,
        lr="auto",
        weight_decay=0.01,
        warmup=0.1,
        schedule="linear",
        n_updates=None,
        gradient_clip=1.0,
        accumulate=1,
        gradient_checkpointing=False,
        dropout=0.0,
        attention_dropout=None,
        prune=0.0,
        train_split=None,
        early_stopping=False,
        patience=3,
        scoring="f1_macro",
        freeze=0,
        layer_decay=1.0,
        peft=None,
        precision="auto",
        predict_precision=None,
        nonfinite="raise",
        checkpoint=None,
        checkpoint_steps=None,
        checkpoint_minutes=10.0,
        device="auto",
        compile=False,
        deterministic=False,
        trust_remote_code=False,
        warm_start=False,
        callbacks=None,
        net_params=None,
        random_state=None,
        verbose=0,
    ):
        self.model = model
        self.loss = loss
        self.gamma = gamma
        self.alpha = alpha
        self.sampler = sampler
        self.beta = beta
        self.defer = defer
        self.normalize = normalize
        self.label_smoothing = label_smoothing
        self.loss_params = loss_params
        self.proba = proba
        self.temperature = temperature
        self.decision = decision
        self.prior = prior
        self.classes = classes
        self.max_length = max_length
        self.long_documents = long_documents
        self.stride = stride
        self.pooling = pooling
        self.max_chunks = max_chunks
        self.max_epochs = max_epochs
        self.batch_size = batch_size
        self.lr = lr
        self.weight_decay = weight_decay
        self.warmup = warmup
        self.schedule = schedule
        self.n_updates = n_updates
        self.gradient_clip = gradient_clip
        self.accumulate = accumulate
        self.gradient_checkpointing = gradient_checkpointing
        self.dropout = dropout
        self.attention_dropout = attention_dropout
        self.prune = prune
        self.train_split = train_split
        self.early_stopping = early_stopping
        self.patience = patience
        self.scoring = scoring
        self.freeze = freeze
        self.layer_decay = layer_decay
        self.peft = peft
        self.precision = precision
        self.predict_precision = predict_precision
        self.nonfinite = nonfinite
        self.checkpoint = checkpoint
        self.checkpoint_steps = checkpoint_steps
        self.checkpoint_minutes = checkpoint_minutes
        self.device = device
        self.compile = compile
        self.deterministic = deterministic
        self.trust_remote_code = trust_remote_code
        self.warm_start = warm_start
        self.callbacks = callbacks
        self.net_params = net_params
        self.random_state = random_state
        self.verbose = verbose

    # -- fitting ---------------------------------------------------------------------------

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, X, y, sample_weight=None, groups=None) -> Self:
        """Fine-tune the encoder on texts and labels.

        Parameters
        ----------
        X : list, tuple, ndarray of shape (n,), (n, 1) or (n, 2), pandas or polars Series or \
                DataFrame of one or two columns, pyarrow array or table, or datasets.Dataset or \
                a column of one
            One str a document, or two: a pair of texts, such as a question and an answer.
            Arrow's and `datasets`' are read some at a time.
        y : array-like of shape (n,), or several labels a document
            Labels of any kind that scikit-learn accepts. Several labels: an indicator of 0 and 1
            of shape (n, n_labels), dense, sparse or a DataFrame, or for each document a
            collection of its labels.
        sample_weight : array-like of shape (n,), default=None
            Weights of at least 0, scaled to mean 1. A document of weight 2 counts as two: in
            the loss, in the class counts of `alpha` and for the sampler.
        groups : array-like of shape (n,), default=None
            Groups of documents for the splitter in `train_split`.

        Returns
        -------
        self : BertFocalClassifier

        Raises
        ------
        TypeError, ValueError
            If X, y or a parameter cannot be used; the message names it.
        OSError
            If the model cannot be loaded.
        ImportError
            If `peft` is given and peft is not installed: ``pip install 'skfocal[peft]'``.
        FloatingPointError
            If the loss, the gradient or the weights stop being finite; the batch is named.
        torch.OutOfMemoryError
            If the device's memory does not suffice for a single document. Batches that do not
            fit are computed in parts.
        RuntimeError
            If an operation has no form that `deterministic` allows; it is named.
        """
        processes = process_group.join()
        checkpoints = Checkpoints(
            self.checkpoint, self.checkpoint_steps, self.checkpoint_minutes, processes
        )
        with self._all_or_nothing(), processes.together(), checkpoints:
            texts = self._check_texts(X, reset=True)
            classes, codes = _targets.encode(y, texts, self.classes)
            _warn_absent(classes, codes)
            self._check_same(processes, texts, classes, codes)
            rng = checkpoints.random_state(self.random_state)
            # By one process: a splitter may have a generator of its own.
            train, valid = processes.first(self._split, codes, texts, groups, rng)
            processes.agree_on(rng)
            weight = self._check_weights(sample_weight, texts, train, valid)
            self._train(texts, classes, codes, weight, train, valid, rng, checkpoints=checkpoints)
            self.__dict__.pop("_chunks", None)
        return self

    @contextlib.contextmanager
    def _all_or_nothing(self):
        """Leave the estimator as it was if a fit does not come to its end."""
        before = vars(self).copy()
        try:
            yield
        except BaseException:
            self.__dict__.clear()
            self.__dict__.update(before)
            raise

    @_fit_context(prefer_skip_nested_validation=True)
    def partial_fit(self, X, y, classes=None, sample_weight=None) -> Self:
        """Train one epoch on a chunk of documents, from where the last call ended.

        Weights, AdamW's moments, class counts, random numbers and the place in the schedule go
        on from call to call, also through a pickle; with `n_updates` the calls together follow
        one schedule. `alpha` is computed from the classes of all chunks so far. After a `fit`
        the first call goes on from its weights.

        Parameters
        ----------
        X : as in :meth:`fit`
            One str a document, or two.
        y : array-like of shape (n,)
            Labels.
        classes : array-like, default=None
            All labels that any chunk has; needed in the first call unless the parameter
            `classes` names them. Each chunk may miss some.
        sample_weight : array-like of shape (n,), default=None
            As in :meth:`fit`.

        Returns
        -------
        self : BertFocalClassifier

        Raises
        ------
        TypeError, ValueError, OSError, FloatingPointError
            As :meth:`fit`; ValueError also for settings that need all epochs to be known:
            `early_stopping`, `train_split`, `defer`, `prune`, `checkpoint` and
            ``sampler="progressive"``.
        """
        processes = process_group.join()
        with self._all_or_nothing(), processes.together():
            self._check_partial()
            fitted = hasattr(self, "net_")
            texts = self._check_texts(X, reset=not fitted)
            declared = self._declared_classes(classes)
            several = self.class_weight_.ndim == 2 if fitted else None
            if several and classes is not None and list(classes) != list(declared):
                raise ValueError(
                    "classes must come in the order of the earlier calls, which is that of y's "
                    f"columns, {excerpts(declared)}. Got {excerpts(classes)}."
                )
            classes, codes = _targets.encode(y, texts, declared, several)
            self._check_same(processes, texts, classes, codes)
            chunks = copy.deepcopy(getattr(self, "_chunks", None)) or _Chunks(
                check_random_state(self.random_state), np.zeros(()), np.zeros(())
            )
            processes.agree_on(chunks.rng)
            rows = np.arange(len(codes))
            weight = self._check_weights(sample_weight, texts, rows)
            self._train(texts, classes, codes, weight, rows, None, chunks.rng, chunks)
            self._chunks = chunks
        return self

    def _check_partial(self):
        all_epochs = {"early_stopping": False, "train_split": None, "defer": 0, "prune": 0}
        all_epochs["checkpoint"] = None
        for name, needless in all_epochs.items():
            if getattr(self, name) != needless:
                raise ValueError(
                    f"partial_fit needs {name}={needless}: it sees one chunk at a time. "
                    f"Got {getattr(self, name)!r}."
                )
        for name, value in (("temperature", "auto"), ("decision", "tuned")):
            if getattr(self, name) == value:
                raise ValueError(
                    f"{name}={value!r} needs held-out documents, which partial_fit has not."
                )
        if isinstance(self.sampler, str) and self.sampler == "progressive":
            raise ValueError(
                "sampler='progressive' needs to know how many epochs come, which partial_fit "
                "does not: give a number or 'balanced'."
            )

    def _declared_classes(self, classes):
        """Return the labels of all chunks; a later call may repeat them."""
        known = getattr(self, "classes_", self.classes)
        if known is None and classes is None:
            raise ValueError(
                "classes must name all labels in the first call of partial_fit. Got None."
            )
        if known is None:
            return classes
        if classes is not None and not np.array_equal(np.unique(classes), np.unique(known)):
            raise ValueError(
                "classes must be those of the earlier calls, "
                f"{excerpts(np.unique(known).tolist())}. "
                f"Got {excerpts(np.unique(classes).tolist())}."
            )
        return known

    def _validate_params(self):
        with process_group.join().together(), short_errors():
            super()._validate_params()

    def _train(
        self, texts, classes, codes, weight, train, valid, rng, chunks=None, checkpoints=None
    ):
        """Train a net on the rows `train` and keep it with all that was resolved on the way."""
        processes = process_group.join()
        processes.check_same(sample_weight=functools.partial(digest, weight.tobytes()))
        seed = rng.randint(np.iinfo(np.int32).max)
        steady = deterministic_algorithms() if self.deterministic else contextlib.nullcontext()
        with hold_device(processes.device(self.device)) as device, _seeded(seed, device), steady:
            module, tokenizer = self._load(classes, goes_on=chunks is not None)
            self._n_frozen = int(self.freeze)
            freeze_layers(module.model, self._n_frozen)
            self._pooling = self.pooling
            cutting = self._resolve_cutting(module, tokenizer, isinstance(texts[0], tuple))
            tokens = tokenize(tokenizer, texts, cutting, processes=processes)
            _tell_loss(tokens)

            sampling, class_weight, drawn, shift = self._resolve_balance(
                classes, codes[train], weight[train], rng, chunks
            )
            raw = _targets.amounts(codes[train], weight[train], len(classes))
            support = raw if chunks is None else chunks.raw
            loss = self._resolve_loss(class_weight, drawn, support)
            class_weight = self._weight_at_work(class_weight, loss)
            self._fit_head(module.model, loss)
            adapters = self._give_adapters(module.model, chunks)
            effective = class_weight * shift * _implied(loss)
            calibration = Calibration(loss, classes, effective, shift)
            class_prior = _targets.shares(support)
            self._check_answers(calibration, class_prior)
            self._warn(loss, support, class_weight, shift, effective)
            score = self._make_score(texts, codes, weight, valid, calibration)
            pruning = self._make_pruning(len(train))
            batches = LengthBatches(
                tokens.lengths[train],
                self.batch_size * processes.size,
                sampling.draw,
                sampling.n_draws,
                rng,
                keep=pruning and pruning.keep,
                processes=processes,
            )
            net = self._make_net(
                module,
                loss,
                tokenizer,
                device,
                max_epochs=self.max_epochs if chunks is None else 1,
                callbacks=self._make_callbacks(score, chunks, loss, pruning),
                train_split=score and predefined_split(_dataset(tokens, codes, weight, valid)),
                train_batches=batches,
                processes=processes,
            )
            if self.checkpoint is not None:
                self._check_checkpoint(checkpoints, module, tokens, codes, weight, train, valid)
            if processes.rank:  # each drops others; the new head was the same for all
                torch.manual_seed(seed + processes.rank)
            saving = self.gradient_checkpointing and recomputed_layers(module.model)
            with saving or contextlib.nullcontext():
                net.train(
                    _dataset(tokens, codes, weight, train),
                    moments=self._present_moments(chunks, adapters),
                    keep_moments=chunks is not None,
                    checkpoints=checkpoints,
                )
            self._merge(adapters, net, chunks)
            self._temperatures, self._tuned_offset = {}, None
            if self._needs_held_out():
                logits = processes.spread(
                    len(valid), lambda rows: net.logits(tokens.take(valid[rows]))
                )
                held_out = logits, codes[valid], weight[valid], score, class_prior
                self._temperatures, self._tuned_offset = processes.first(
                    self._calibrate, calibration, *held_out
                )
        if chunks is not None:
            chunks.n_updates += net.updates_per_epoch()
            chunks.n_first = chunks.n_first or chunks.n_updates
        class_loss = np.array(dict(net.callbacks_)["class_loss"].shares_)
        if chunks is not None and hasattr(self, "net_"):
            net.history = _joined(self.net_.history, net.history)
            class_loss = np.concatenate([self.class_loss_, class_loss])

        self.classes_ = classes
        self.class_weight_ = class_weight
        self.effective_class_weight_ = effective
        self._shift = shift
        self.class_prior_ = class_prior
        self.class_loss_ = class_loss
        self.loss_ = loss
        self.lr_ = self._resolve_lr(module)
        self.max_length_ = cutting.max_length
        self.n_truncated_ = int(tokens.is_cut.sum())
        self.tokenizer_ = tokenizer
        self.net_ = net
        self._fitted_model = str(self.model)
        self._warned_for = (self.proba_, self.decision, None)

    def _check_same(self, processes, texts, classes, codes):
        """Refuse documents or parameters that are others in another process."""
        parameters = self.get_params(deep=False).items()
        processes.check_same(
            X=functools.partial(_fingerprint, texts),
            y=functools.partial(digest, *classes.tolist(), codes.tobytes()),
            **{
                name: functools.partial(describe, value)
                for name, value in parameters
                if name not in _OF_A_PROCESS
            },
        )

    def _check_checkpoint(self, checkpoints, module, tokens, codes, weight, train, valid):
        """Refuse to go on from the checkpoint of another fit."""
        parameters = {k: v for k, v in self.get_params(False).items() if k not in _NOT_OF_A_FIT}
        parameters["batch_size"] *= checkpoints.processes.size
        parameters["peft"] = _adapters.settings_of(self.peft)
        if not isinstance(self.random_state, Integral):
            del parameters["random_state"]  # a generator is part of the state
        checkpoints.check(
            parameters,
            labels=[codes],
            documents=[tokens.flat, tokens.lengths],
            sample_weights=[weight],
            held_out_documents=[train, [] if valid is None else valid],
            initial_weights=module.state_dict().values(),
        )

    def _calibrate(self, plain, logits, codes, weight, score, class_prior):
        """Return the temperature of each `proba` and the tuned offset by held-out documents."""
        temperatures, offset = {}, None
        if self.temperature == "auto":
            temperatures = {
                kind: replace(plain, proba=kind).fit_temperature(logits, codes, weight)
                for kind in (PROBAS if plain.loss.has_posterior else ["softmax"])
            }
        if self.decision == "tuned":
            offset = plain.fit_offset(
                logits,
                score.score,
                _targets.positives(codes[weight > 0], len(plain.classes)),
                int((weight > 0).sum()),
                prior_offset("uniform", plain.classes, class_prior, plain.multilabel),
            )
        return temperatures, offset

    def _check_texts(self, X, *, reset):
        texts = as_texts(X)
        if len(getattr(X, "shape", ())) == 2:
            if reset or hasattr(self, "n_features_in_"):
                columns = columns_named(X)
                _check_feature_names(self, columns, reset=reset)
                _check_n_features(self, columns, reset=reset)
        elif reset:
            for name in ("n_features_in_", "feature_names_in_"):
                self.__dict__.pop(name, None)
        if not reset:
            check_kind(texts, self._pairs)
        return texts

    def _check_weights(self, sample_weight, texts, train, valid=None):
        """Return the weights, of mean 1 over the rows to train on."""
        try:
            weight = _check_sample_weight(
                sample_weight, texts, dtype=np.float64, ensure_non_negative=True
            )
        except (TypeError, ValueError):
            if np.asarray(sample_weight).dtype.kind in "biuf":
                raise
            raise ValueError(
                f"sample_weight must be an array of numbers. Got {excerpt(sample_weight)}."
            ) from None
        if not weight[train].any():
            raise ValueError(
                "sample_weight must have a positive weight among the documents to train on. "
                "Got zeros only."
            )
        if valid is not None and not weight[valid].any():
            raise ValueError(
                "sample_weight must have a positive weight among the held-out documents. "
                "Got zeros only."
            )
        return weight / weight[train].mean()

    def _load(self, classes, goes_on):
        """Return the module to train and its tokenizer; `goes_on` trains the one there is."""
        if goes_on and hasattr(self, "net_"):
            # A copy: what ends this call early must not leave the weights half way.
            return copy.deepcopy(self.net_.plain_module()), self.tokenizer_
        if self.warm_start and hasattr(self, "net_"):
            if not np.array_equal(classes, self.classes_):
                raise ValueError(
                    "warm_start=True needs the classes of the last fit, "
                    f"{excerpts(self.classes_.tolist())}. Got {excerpts(classes.tolist())}."
                )
            if str(self.model) != self._fitted_model:
                raise ValueError(
                    "warm_start=True goes on from the weights of the last fit, of model="
                    f"{self._fitted_model!r}. Got model={str(self.model)!r}."
                )
            module = copy.deepcopy(self.net_.plain_module())
            if self.dropout is not None:
                set_dropout(module.model, self.dropout)
            if self.attention_dropout is not None:
                set_attention_dropout(module.model, self.attention_dropout)
            return module, self.tokenizer_
        tokenizer = load_tokenizer(self.model, trust_remote_code=self.trust_remote_code)
        module = load_module(
            self.model,
            classes.tolist(),
            pad_token_id=tokenizer.pad_token_id,
            dropout=self.dropout,
            attention_dropout=self.attention_dropout,
            trust_remote_code=self.trust_remote_code,
        )
        return module, tokenizer

    def _tokenizer_and_cutting(self, texts):
        """Return what a fit would make tokens with."""
        self._validate_params()
        with torch.random.fork_rng(devices=[]):
            module, tokenizer = self._load(np.arange(2), goes_on=False)
        return tokenizer, self._resolve_cutting(module, tokenizer, isinstance(texts[0], tuple))

    def _resolve_cutting(self, module, tokenizer, pairs):
        """Return how documents become tokens, and remember it."""
        limit = length_limit(module.model, tokenizer)
        if self.max_length is not None and self.max_length > limit:
            raise ValueError(
                f"max_length must be at most {limit}, the limit of the model. "
                f"Got {self.max_length}."
            )
        if pairs and self.long_documents != "truncate":
            raise ValueError(
                "long_documents must be 'truncate' for pairs of texts. Got "
                f"{self.long_documents!r}."
            )
        self._pairs = pairs
        self._cutting = {
            "long_documents": self.long_documents,
            "stride": int(self.stride),
            "max_chunks": None if self.max_chunks is None else int(self.max_chunks),
        }
        cutting = self._make_cutting(module, tokenizer, int(self.max_length or limit))
        cutting.check()
        return cutting

    def _make_cutting(self, module, tokenizer, max_length):
        return Cutting(
            max_length,
            side=tokenizer.truncation_side,
            n_special=tokenizer.backend_tokenizer.num_special_tokens_to_add(self._pairs),
            marks_second=self._pairs and has_token_types(module.model, tokenizer),
            **self._cutting,
        )

    def _split(self, codes, texts, groups, rng):
        """Return the rows to train on and the rows to score, or None for the latter."""
        if groups is not None and not hasattr(self.train_split, "split"):
            raise ValueError(
                "groups are for a splitter in train_split, for example "
                f"GroupShuffleSplit(1, test_size=0.1). Got train_split={self.train_split!r}."
            )
        holds_out = self.early_stopping or self._needs_held_out()
        split = 0.1 if self.train_split is None and holds_out else self.train_split
        if split is None:
            return np.arange(len(codes)), None
        if hasattr(split, "split"):
            check_consistent_length(texts, groups)
            return next(split.split(np.zeros(len(texts)), codes, groups))
        train, valid = balance.stratified_holdout(_targets.strata(codes), split, rng)
        if len(valid) == 0:
            raise ValueError(
                f"train_split={split} of {len(codes)} documents leaves none to score: give more "
                "documents or a larger fraction."
            )
        return train, valid

    def _needs_held_out(self):
        return self.temperature == "auto" or self.decision == "tuned"

    def _resolve_balance(self, classes, codes, weight, rng, chunks):
        """Return the sampling, the class weights, the amounts drawn and the sampler's shift."""
        raw = _targets.amounts(codes, weight, len(classes))
        if codes.ndim == 2:
            return self._resolve_label_balance(classes, raw, chunks)
        sampling = balance.resolve_sampling(
            self.sampler,
            codes,
            classes[codes],
            n_classes=len(classes),
            n_epochs=self.max_epochs if chunks is None else 1,
            sample_weight=weight,
            random_state=rng,
        )
        # Of one process, as the draws: counted where the sampler has a generator of its own.
        n_draws, drawn, drawn_last = process_group.join().share(
            (sampling.n_draws, sampling.drawn, sampling.drawn_last)
        )
        sampling = replace(sampling, n_draws=n_draws)
        if chunks is not None:
            raw, drawn = chunks.count(raw, drawn)
            drawn_last = drawn
        alpha = balance.class_weight(self.alpha, classes, drawn, beta=self.beta)
        shift = balance.effective_class_weight(np.ones(len(classes)), raw, drawn_last)
        return sampling, alpha, drawn, shift

    def _resolve_label_balance(self, classes, raw, chunks):
        """Return the same for several labels a document: pairs of absence and presence."""
        if self.sampler is not None:
            raise ValueError(
                "sampler must be None for multi-label y: a document drawn for its rare label "
                "brings its frequent ones along, so no drawing balances them. Use alpha. Got "
                f"{self.sampler!r}."
            )
        n = int(raw[0].sum().round())
        if chunks is not None:
            raw, _ = chunks.count(raw, raw)
        alpha = balance.label_weight(self.alpha, classes, raw, beta=self.beta)
        return balance.each_once(n, raw), alpha, raw, np.ones_like(raw)

    def _resolve_loss(self, class_weight, drawn, support):
        loss = make_loss(
            self.loss,
            gamma=self.gamma,
            label_smoothing=self.label_smoothing,
            normalize=self.normalize,
            weight=None if self.alpha is None else class_weight.astype(np.float32),
            counts=drawn,
            support=support,
            params=self.loss_params,
            multilabel=class_weight.ndim == 2,
        )
        return loss

    def _weight_at_work(self, class_weight, loss):
        """Return the class weights of `alpha`, or those that an instance in `loss` came with."""
        if self.alpha is not None or loss.weight is None:
            return class_weight
        weight = loss.weight.detach().cpu().double().numpy()
        if weight.shape != class_weight.shape:
            raise ValueError(
                f"the weight of the loss must have shape {class_weight.shape}, for the classes of "
                f"y. Got {weight.shape}."
            )
        return weight

    def _fit_head(self, encoder, loss):
        """Give the encoder the head that the loss is made for."""
        present = cosine_scale(encoder)
        if loss.cosine_scale not in (None, present):
            give_cosine_head(encoder, loss.cosine_scale)
        elif loss.cosine_scale != present:
            raise ValueError(
                f"loss={self.loss!r} needs a linear head, and the model to go on from has the "
                "cosines of loss='ldam': keep that loss, or start anew in a new estimator."
            )

    def _give_adapters(self, encoder, chunks):
        """Return the adapters that are to learn in the encoder, or None."""
        if self.peft is None:
            return None
        kept = None if chunks is None else chunks.adapters
        return _adapters.Adapters(encoder, self.peft, self._n_frozen, kept)

    def _present_moments(self, chunks, adapters):
        """Return the optimizer's state after the last chunk, or None."""
        if not chunks or not chunks.n_updates:
            return None
        return (adapters and adapters.moments) or self.net_.moments()

    def _merge(self, adapters, net, chunks):
        """Make plain weights of the trained adapters; a next chunk needs more than these."""
        if chunks is not None:
            chunks.adapters = adapters and adapters.keep(net.moments())
        if adapters is not None:
            adapters.merge()
            freeze_layers(net.plain_module().model, self._n_frozen)

    def _check_answers(self, calibration, class_prior):
        """Refuse a `proba` or `decision` that the loss does not allow, and a wrong `prior`."""
        loss, proba = calibration.loss, resolve_proba(self.proba, calibration.loss)
        if proba != "softmax" and not loss.has_posterior:
            raise ValueError(
                f"proba={proba!r} needs a loss with an inverse to the posterior, which "
                f"{loss} has not: use proba='softmax', with temperature='auto' for calibration."
            )
        if self.decision == "prior":
            if self.prior is None:
                raise ValueError("decision='prior' needs prior='uniform' or shares. Got None.")
            if not loss.has_posterior:
                raise ValueError(
                    "decision='prior' needs a loss with an inverse to the posterior, which "
                    f"{loss} has not: use decision='tuned'."
                )
            prior_offset(self.prior, calibration.classes, class_prior, calibration.multilabel)
        if self.early_stopping and self.defer:
            raise ValueError(
                f"defer={self.defer} and early_stopping=True cannot be combined: the best "
                "epoch may be one before alpha set in. Leave one of the two out."
            )

    def _warn(self, loss, raw, class_weight, shift, effective):
        """Warn about settings that are allowed and seldom meant."""
        advice.warn_gamma(loss)
        implied = loss.implied_class_weight()
        if raw.ndim == 1:
            adjustment = _implied(loss)
            advice.warn_corrected_twice(raw, class_weight, shift, adjustment)
            advice.warn_no_effect(
                self.alpha, class_weight, shift, None if implied is None else adjustment
            )
        weighted = loss.weight is not None
        if self.defer:
            n_epochs = self._n_deferred()
            advice.warn_deferred(self.defer, n_epochs, weighted, self.sampler, shift)
        proba = resolve_proba(self.proba, loss)
        advice.warn_temperature(self.temperature, proba, effective)
        advice.warn_reweighted_loss(self.callbacks, class_weight * _implied(loss))
        if self.early_stopping:
            advice.warn_reweighted_score(self.scoring, proba, effective)
        self._warn_inexact(proba, loss)

    def _warn_inexact(self, proba, loss):
        weighted = loss.weight is not None
        advice.warn_inexact(
            proba, self.decision, loss.normalize, weighted, self.sampler, self.defer
        )

    def _n_deferred(self):
        """Return how many epochs train without `alpha`; it gets one at least."""
        return min(round(self.defer * self.max_epochs), self.max_epochs - 1)

    def _resolve_lr(self, module):
        if self.lr != "auto":
            return self.lr
        lr = min(2e-4 * (384 / module.model.config.hidden_size) ** 2, 1e-3)
        return lr if self.peft is None else 10 * lr

    def _resolve_precision(self, device):
        if self.precision == "auto":
            return "bfloat16" if device.startswith("cuda") else "float32"
        _warn_bfloat16("precision", self.precision, device)
        return self.precision

    def _make_schedule(self, chunks):
        if chunks is None:
            return WarmupSchedule(self.schedule, self.warmup, self.n_updates)
        if self.n_updates is None:
            return WarmupSchedule("constant", self.warmup, chunks.n_first, chunks.n_updates)
        if chunks.n_updates >= self.n_updates and self.schedule != "constant":
            warn(
                f"The schedule of n_updates={self.n_updates} has ended: the learning rate is 0 "
                "and this call of partial_fit teaches nothing."
            )
        return WarmupSchedule(self.schedule, self.warmup, self.n_updates, chunks.n_updates)

    def _make_pruning(self, n_documents):
        if not self.prune:
            return None
        if self.normalize == "weights":
            raise ValueError(
                "prune needs normalize='samples' or 'sum': 'weights' would divide by what the "
                "documents that stay weigh more. Got normalize='weights'."
            )
        if self.max_epochs < 3:
            warn(
                f"prune={self.prune} has no effect with max_epochs={self.max_epochs}: the first "
                "and the last epoch have all documents."
            )
        return Pruning(self.prune, n_documents, self.max_epochs)

    def _make_callbacks(self, score, chunks, loss, pruning):
        callbacks = [("schedule", self._make_schedule(chunks)), ("class_loss", ClassLoss())]
        if self.nonfinite == "skip" or self.precision == "float16":
            callbacks.append(("skipped", SkippedUpdates()))
        if self.defer and loss.weight is not None:
            callbacks.append(("defer", DeferredWeight(self._n_deferred())))
        if pruning is not None:
            callbacks.append(("pruning", pruning))
        if score is not None:
            callbacks.append(("score", score))
        if self.verbose and process_group.join().is_first:
            callbacks.append(("progress", Progress(score and score.name)))
        # The user's last: skorch's way to stop, an interrupt, must not keep the others from
        # seeing the end of the epoch.
        return callbacks + copies(_as_callbacks(self.callbacks))

    def _make_score(self, texts, codes, weight, valid, calibration):
        if valid is None:
            return None
        scorer = check_scoring(self, scoring=self.scoring)
        even = np.allclose(weight[valid], weight[valid[0]])
        return ValidationScore(
            scorer,
            self.scoring if isinstance(self.scoring, str) else "score",
            calibration.classes,
            take(texts, valid),
            _targets.decode(calibration.classes, codes[valid]),
            None if even or not takes_weight(scorer) else weight[valid],
            replace(calibration, proba=resolve_proba(self.proba, calibration.loss)).answers,
            self.patience if self.early_stopping else None,
        )

    def _make_net(self, module, loss, tokenizer, device, **kwargs):
        if "callbacks" in (self.net_params or {}):
            raise ValueError("net_params must not hold 'callbacks': give them as callbacks=.")
        settings = {
            "pad_id": tokenizer.pad_token_id,
            "precision": self._resolve_precision(device),
            "freeze": self._n_frozen,
            "pooling": self._pooling,
            "accumulate": self.accumulate,
            "gradient_clip": self.gradient_clip,
            "nonfinite": self.nonfinite,
            "weight_decay": self.weight_decay,
            "layer_decay": self.layer_decay,
            "optimizer": torch.optim.AdamW,
            "lr": self._resolve_lr(module),
            "max_epochs": self.max_epochs,
            "batch_size": self.batch_size,
            "train_split": None,
            "compile": self.compile,
            "device": device,
            "verbose": 0,
            "predict_nonlinearity": functools.partial(torch.softmax, dim=-1),
            "callbacks__print_log": None,
        }
        settings |= kwargs | (self.net_params or {})
        if settings["optimizer"] is torch.optim.AdamW:
            settings.setdefault("optimizer__fused", True)
        return FocalNet(module, loss, **settings)

    # -- predicting ------------------------------------------------------------------------

    def predict(self, X) -> np.ndarray:
        """Return the label of each document, decided as `decision` says.

        Parameters
        ----------
        X : as in :meth:`fit`, or an iterator of such chunks
            One str a document, or two.

        Returns
        -------
        ndarray of shape (n,), of the dtype of `classes_`, or an int indicator of shape \
                (n, n_labels)
        """
        return self._answer(X, FixedPredictions.predict)

    def predict_proba(self, X) -> np.ndarray:
        """Return the probabilities that `proba` names.

        The softmax of the logits leans towards uniform with ``gamma > 0``, and with class weights
        or a sampler it belongs to the reweighted classes, not to the frequencies of the data.

        Parameters
        ----------
        X : as in :meth:`fit`, or an iterator of such chunks
            One str a document, or two.

        Returns
        -------
        ndarray of shape (n, n_classes), float64, columns in the order of `classes_`
        """
        return self._answer(X, FixedPredictions.predict_proba)

    def score(self, X, y, sample_weight=None) -> float:
        """Return the accuracy; with several labels the share of documents with all of them right.

        Parameters
        ----------
        X : as in :meth:`fit`
            One str a document, or two.
        y : as in :meth:`fit`
            Labels.
        sample_weight : array-like of shape (n,), default=None
            Weights of at least 0.

        Returns
        -------
        float
            In [0, 1].
        """
        check_is_fitted(self)
        if self.class_weight_.ndim == 2:
            y = _targets.decode(*_targets.encode(y, as_texts(X), self.classes_, True))
        return super().score(X, y, sample_weight)

    def decision_function(self, X) -> np.ndarray:
        """Return the logarithm of :meth:`predict_proba`; for two classes or labels the log-odds.

        With a `decision` other than "argmax", `predict` takes the largest of other numbers.

        Parameters
        ----------
        X : as in :meth:`fit`, or an iterator of such chunks
            One str a document, or two.

        Returns
        -------
        ndarray of shape (n, n_classes), or (n,) for two classes
        """
        return self._answer(X, FixedPredictions.decision_function)

    def report(self, X, y, *, n_hardest=20):
        """Return scores, figures and the hardest documents, for a notebook or an HTML file.

        Parameters
        ----------
        X : as in :meth:`fit`
            Documents that were not trained on.
        y : as in :meth:`fit`
            Their labels; classes may be missing.
        n_hardest : int, default=20
            How many of the documents with the highest focal weight ``(1 - p)**gamma`` are shown.

        Returns
        -------
        skfocal.Report
            ``report.save("report.html")`` writes one file.
        """
        from skfocal.report import Report

        return Report.from_estimator(self, X, y, n_hardest=n_hardest)

    @contextlib.contextmanager
    def _predicting(self):
        """Let all processes predict together; first check what may be set after `fit`."""
        with process_group.join().together():
            check_is_fitted(self)
            self._check_settings()
            yield

    def _answer(self, X, answer):
        """Return what a method of the answers gives, made of some documents at a time."""
        with self._predicting():
            calibration = self._present_calibration()
            return joined([answer(calibration.answers(logits)) for logits in self._some_logits(X)])

    def _answers(self, X):
        return self._logits_and_answers(X)[1]

    def _logits_and_answers(self, X):
        with self._predicting():
            logits = self._logits(X)
            return logits, self._present_calibration().answers(logits)

    def _present_calibration(self):
        return self._calibration(
            proba=self.proba_,
            temperature=self.temperature_,
            decision=self.decision,
            offset=self.decision_offset_,
        )

    def _calibration(self, **settings):
        return Calibration(
            self.loss_, self.classes_, self.effective_class_weight_, self._shift, **settings
        )

    def _check_settings(self):
        """Check the parameters that may be set after `fit`."""
        names = "proba", "temperature", "decision", "prior", "predict_precision"
        with short_errors():
            validate_parameter_constraints(
                {name: self._parameter_constraints[name] for name in names},
                {name: getattr(self, name) for name in names},
                caller_name=type(self).__name__,
            )
        self._check_answers(self._calibration(), self.class_prior_)
        present = (self.proba_, self.decision, self.predict_precision)
        if present != self._warned_for:
            self._warned_for = present
            _warn_bfloat16("predict_precision", self.predict_precision, str(self.net_.device))
            self._warn_inexact(self.proba_, self.loss_)

    def _logits(self, X):
        return joined(list(self._some_logits(X)))

    def _some_logits(self, X):
        """Yield the logits of some documents at a time: all else that grows with X is its own."""
        processes = process_group.join()
        for texts in parts(X, functools.partial(self._check_texts, reset=False), _CHUNK):
            processes.check_same(X=functools.partial(_fingerprint, texts))
            keep = not is_stream(X) and _num_samples(X) <= CACHED_DOCUMENTS
            compute = functools.partial(self._logits_of, texts, keep)
            yield processes.spread(len(texts), compute)
            del texts, compute  # before the next are read
        processes.check_same(X=lambda: "its end")

    def _logits_of(self, texts, keep, rows):
        tokens = tokenize(self.tokenizer_, texts[rows], self._present_cutting(), keep)
        return self.net_.logits(tokens, self.predict_precision)

    def _present_cutting(self):
        return self._make_cutting(self.net_.plain_module(), self.tokenizer_, self.max_length_)

    @property
    def decision_offset_(self):
        """What the present `decision` adds to log-probabilities."""
        check_is_fitted(self)
        if self.decision == "argmax":
            return None
        if self.decision == "tuned":
            if self._tuned_offset is None:
                raise ValueError("decision='tuned' must be set before fit: it holds documents out.")
            return self._tuned_offset
        return prior_offset(
            self.prior, self.classes_, self.class_prior_, self.class_weight_.ndim == 2
        )

    @property
    def proba_(self):
        """What the present `proba` is for the loss."""
        check_is_fitted(self)
        return resolve_proba(self.proba, self.loss_)

    @property
    def temperature_(self):
        """The temperature of the present `proba`."""
        check_is_fitted(self)
        if self.temperature == "auto":
            if self.proba_ not in self._temperatures:
                raise ValueError(
                    "temperature='auto' must be set before fit: it holds documents out."
                )
            return self._temperatures[self.proba_]
        return 1.0 if self.temperature is None else float(self.temperature)

    @property
    def history_(self):
        """Losses and scores of each epoch."""
        check_is_fitted(self)
        return self.net_.history

    # -- files ------------------------------------------------------------------------------

    def save_pretrained(self, folder, metrics=None):
        """Write the fitted classifier into a folder that transformers can read as well.

        ``transformers.pipeline("text-classification", folder)`` gives the same labels, with the
        softmax of the logits as scores, of several labels the sigmoid. Parameters that are no
        plain data (callbacks, sampler objects, generators), and `net_params`, `checkpoint`, `peft`
        and `trust_remote_code`, are left out: predictions do not need them. A loss of your own is
        left out, too, where predictions do not need it.

        Parameters
        ----------
        folder : str or path
            New, empty, or written by this method before; that one is replaced as a whole. What
            is there stays as it is if anything goes wrong.
        metrics : dict of str -> float, default=None
            Scores for the model card, README.md.

        Raises
        ------
        FileExistsError
            If the folder holds files that this method did not write.
        OSError
            If it cannot be written.
        TypeError
            If `proba` or `decision` need a loss of your own.
        """
        from skfocal import persistence

        if process_group.speaks():
            persistence.save(self, folder, metrics)

    @classmethod
    def from_pretrained(cls, folder) -> Self:
        """Return the classifier that :meth:`save_pretrained` wrote.

        No code from the folder runs, so it may come from anywhere. Predictions are the same to
        the bit on the same kind of machine with the same versions.

        Parameters
        ----------
        folder : str or path
            For a model on the Hugging Face hub, what ``huggingface_hub.snapshot_download``
            returns.

        Returns
        -------
        BertFocalClassifier

        Raises
        ------
        ValueError
            If a file is not as :meth:`save_pretrained` writes it, or is of a newer format.
        OSError
            If a file is missing or cannot be read.
        """
        from skfocal import persistence

        return persistence.load(cls, folder)

    def to_onnx(self, folder):
        """Write an ONNX graph with its tokenizer, to predict without torch.

        :class:`~skfocal.OnnxClassifier` reads the folder with numpy, onnxruntime and tokenizers
        alone. The present `proba`, `temperature` and `decision` are part of the graph, whose
        outputs are "logits", "scores" (what `decision_function` makes its values of), "proba"
        and "decision_scores". Batch and length are free.

        Parameters
        ----------
        folder : str or path
            New, empty, or written by this method before; that one is replaced as a whole.

        Raises
        ------
        FileExistsError
            If the folder holds files that this method did not write.
        ImportError
            If onnx or onnxscript is not installed: ``pip install skfocal[onnx]``.
        """
        from skfocal.serving import _export

        check_is_fitted(self)
        self._check_settings()
        if process_group.speaks():
            _export.export(self, copy.deepcopy(self._present_calibration()), folder)

    def push_to_hub(
        self, repo_id, *, metrics=None, private=None, token=None, commit_message=None
    ) -> str:
        """Upload what :meth:`save_pretrained` writes to the Hugging Face hub.

        Parameters
        ----------
        repo_id : str
            Made if it is not there.
        metrics : dict of str -> float, default=None
            Scores for the model card.
        private : bool, default=None
            Whether a new repository is private. None: as the account says.
        token : str, default=None
            None: the one that is logged in.
        commit_message : str, default=None
            Of the upload.

        Returns
        -------
        str
            Address of the repository.
        """
        from skfocal import persistence

        return persistence.push(
            self,
            repo_id,
            metrics=metrics,
            private=private,
            token=token,
            commit_message=commit_message,
        )

    # -- scikit-learn and pickle -----------------------------------------------------------

    def __sklearn_is_fitted__(self):
        """Say whether there is a trained net."""
        return hasattr(self, "net_")

    def __sklearn_tags__(self):
        """Take texts, one-dimensional or in one column."""
        tags = super().__sklearn_tags__()
        tags.input_tags.string = True
        tags.input_tags.one_d_array = True
        tags.input_tags.two_d_array = False
        tags.classifier_tags.multi_label = True
        return tags

    def __sklearn_clone__(self):
        """Clone; what cannot be copied of the callbacks is shared, as in a fit."""
        try:
            return super().__sklearn_clone__()
        except Exception:  # objects refuse to be copied with errors of many kinds
            if self.callbacks is None:
                raise
            bare = object.__new__(type(self))
            bare.__dict__.update(vars(self), callbacks=None)
            cloned = BaseEstimator.__sklearn_clone__(bare)
            cloned.callbacks = copies(_as_callbacks(self.callbacks))
            return cloned

    def __getstate__(self):
        """Return plain data: arrays and text in place of the net, without any device."""
        state = super().__getstate__().copy()
        net, tokenizer = state.pop("net_", None), state.pop("tokenizer_", None)
        if net is not None:
            state["_plain"] = {
                **module_to_plain(net.plain_module(), tokenizer),
                "history": [dict(row) for row in net.history],
                "moments": _as_arrays(net.moments()),
            }
            state["loss_"] = copy.deepcopy(self.loss_).cpu()
        if "_chunks" in state:
            state["_chunks"] = state["_chunks"].to_plain()
        state["peft"] = _adapters.config_to_plain(state["peft"])
        return state | {name: loss_to_plain(state[name]) for name in _LOSSES & set(state)}

    def __setstate__(self, state):
        """Rebuild the net, on the device that there is now."""
        # An older version had fewer parameters, and objects where there are plain data now.
        state = {**BertFocalClassifier().get_params(deep=False), **state}
        plain = state.pop("_plain", None)
        state["peft"] = _adapters.config_from_plain(state["peft"])
        state |= {name: loss_from_plain(state[name]) for name in _LOSSES & set(state)}
        if isinstance(state.get("_chunks"), dict):
            state["_chunks"] = _Chunks.from_plain(state["_chunks"])
        super().__setstate__((_NOT_CUT if plain else {}) | state)
        if plain is None:
            return
        module, self.tokenizer_ = module_from_plain(plain, trust_remote_code=self.trust_remote_code)
        freeze_layers(module.model, self._n_frozen)
        net = self._make_net(module, self.loss_, self.tokenizer_, self._device_at_hand())
        self.net_ = net.initialize()
        self.net_.module_.eval()
        self.net_.history.extend(plain["history"])
        self.net_.set_moments(_as_tensors(plain.get("moments", {})))

    def _device_at_hand(self):
        try:
            return resolve_device(self.device)
        except ValueError:
            return "cpu"


def _as_callbacks(callbacks):
    callbacks = list(callbacks or [])
    for i, item in enumerate(callbacks):
        callback = item[-1] if isinstance(item, tuple) and item else item
        if not hasattr(callback, "on_epoch_end"):
            raise TypeError(
                "callbacks must hold skorch callbacks or pairs of a name and a callback. "
                f"Got {excerpt(item)} in place {i}."
            )
    return callbacks


def _fingerprint(texts):
    """Return what tells these documents from others, reading some at a time."""
    key = b""
    for start in range(0, len(texts), _CHUNK):
        key = digest(key, *texts[start : start + _CHUNK])
    return key


def _warn_absent(classes, codes):
    absent = _targets.absent(classes, codes).tolist()
    if absent:
        warn(
            f"y has no document of {len(absent)} declared classes: {excerpts(absent)}. They get "
            "class weight 1 and a column in predict_proba, but nothing can be learned of them."
        )


def _implied(loss):
    implied = loss.implied_class_weight()
    return 1.0 if implied is None else implied.cpu().numpy()


def _joined(earlier, later):
    """Return one history; the epochs are counted through."""
    joined = History(copy.deepcopy(earlier))
    joined.extend({**row, "epoch": len(earlier) + row["epoch"]} for row in later)
    return joined


def _dataset(tokens, codes, weight, rows):
    return TokenDataset(tokens.take(rows), codes[rows], weight[rows])


def _as_arrays(moments):
    return {
        name: {k: v.cpu().numpy() if torch.is_tensor(v) else v for k, v in state.items()}
        for name, state in moments.items()
    }


def _as_tensors(moments):
    return {
        name: {k: torch.tensor(v) if isinstance(v, np.ndarray) else v for k, v in state.items()}
        for name, state in moments.items()
    }


def _tell_loss(tokens):
    message = tokens.loss_message()
    if message:
        warn(message)


def _warn_bfloat16(name, precision, device):
    if precision == "bfloat16" and device == "cpu" and not _cpu_has_bfloat16():
        warn(
            f"{name}='bfloat16' is slower than 'float32' on this processor, which has no "
            "instructions for it."
        )


def _cpu_has_bfloat16():
    flags = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    return flags.get("amx_bf16", False) or flags.get("avx512_bf16", False)


@contextlib.contextmanager
def _seeded(seed, device):
    """Seed torch's generators for a while and put them back as they were."""
    cuda = [torch.device(device)] if device.startswith("cuda") else []
    with torch.random.fork_rng(devices=cuda):
        torch.manual_seed(seed)
        yield
