"""BertFocalClassifier: from texts and labels to a fine-tuned encoder."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, Self, SupportsIndex

import numpy as np
from sklearn.base import (
    BaseEstimator,
    ClassifierMixin,
    ClassNamePrefixFeaturesOutMixin,
    TransformerMixin,
)
from sklearn.utils.validation import check_is_fitted

from skfocal._data import labels
from skfocal._data.texts import as_texts
from skfocal._estimator import fitted_model, inputs, parameters, partial_fit, pickling
from skfocal._estimator.build import checkpoints_of
from skfocal._estimator.fit import Fit, Training, all_or_nothing
from skfocal._estimator.fitted_model import FittedModel, predicting
from skfocal._runtime import process_group
from skfocal._storage import renamed
from skfocal._training.net import FocalNet
from skfocal.calibration import FixedPredictions, resolve_proba
from skfocal.callbacks import copies

if TYPE_CHECKING:
    import torch
    from numpy.typing import ArrayLike, NDArray
    from peft import PeftConfig
    from sklearn.utils import Tags
    from skorch.history import History
    from transformers import PreTrainedTokenizerFast

    from skfocal._data.labels import Labels
    from skfocal._data.texts import Documents
    from skfocal._estimator.typing import (
        Callbacks,
        CheckpointFolder,
        ClassWeights,
        LongDocuments,
        LossFunction,
        Path,
        Prior,
        Sampler,
        Splitter,
    )
    from skfocal.explanation import Explanation
    from skfocal.losses import Loss
    from skfocal.report import Report


class BertFocalClassifier(
    ClassNamePrefixFeaturesOutMixin, TransformerMixin, ClassifierMixin, BaseEstimator
):
    """Fine-tune a BERT-like encoder on texts whose classes are imbalanced.

    Parameters
    ----------
    model : str or path, default="google-bert/bert-base-uncased"
        **Model.**

        A model name on the Hugging Face hub, or a folder: any encoder that transformers'
        ``AutoModelForSequenceClassification`` loads, with a fast tokenizer. The head of a
        published classifier is kept if its labels are those of y. See :doc:`/model`.
        :func:`skfocal.datasets.fetch_minilm` returns a folder and needs no hub.

    pooling : {"auto", "head", "mean", "first", "last"}, default="auto"
        What the logits are computed from. "head": the architecture's own classification head; of
        BERT, the first token through the pretrained pooler. "mean", "first", "last": the mean of
        the tokens' last hidden states, or that of the first or the last token, through a
        LayerNorm and a linear layer. "auto": how sentence-transformers pooled the tokens, if the
        model comes with ``1_Pooling/config.json``, and has neither a decoder nor a published head
        for these labels; else "head". See :doc:`/model`.

    freeze : int, default=0
        Number of lower layers that are not trained. If it is above 0, the embeddings are not
        trained either.

    peft : None, peft.PeftConfig or dict, default=None
        Adapters to train in place of the encoder's layers: a config such as
        ``peft.LoraConfig(r=8)``, or a dict of its settings, ``{"peft_type": "LORA", "r": 8}``. The
        head is still trained in full. After training, the adapters are merged into the weights,
        so only training needs peft. `partial_fit` continues with the same adapters; a `fit` with
        `warm_start` adds new ones to the merged weights. See :doc:`/large-encoders`.

    dropout : float or None, default=0.0
        Probability of every dropout in the encoder. None keeps the values in the model's
        configuration or, of a fit that goes on from another, what they were.

    attention_dropout : float or None, default=None
        Dropout probability of the attention weights. None: the same as `dropout`. This is the
        slowest dropout, because there is one attention weight for every pair of tokens.

    trust_remote_code : bool, default=False
        Whether Python code that comes with the model may run.

    warm_start : bool, default=False
        Whether `fit` continues from the weights of the previous fit, which must have had the same
        classes, `model` and `pooling`.

    max_length : int, default=None
        **Text.**

        Maximum number of tokens per document, or per window, special tokens included. None: 512,
        or the model's own limit if that is lower.

    long_documents : {"truncate", "head_tail", "windows"} or Windows, default="truncate"
        How documents with more than `max_length` tokens are handled. "truncate": their end is
        dropped. "head_tail": tokens from both ends are kept, a quarter from the beginning and
        three quarters from the end (Sun et al., 2019). "windows": documents are read in windows
        whose logits are pooled, in training too;
        :class:`Windows(stride=64, pooling="mean") <skfocal.Windows>` changes the settings. The
        running time grows with the number of tokens: :doc:`measured </benchmarks/long-documents>`.
        Pairs of texts can only be truncated, the longer text first.

    loss : {"focal", "cross_entropy", "poly1", "poly1_focal", "logit_adjusted", \
            "balanced_softmax", "ldam", "dice", "asymmetric", "distribution_balanced"}, module, \
            class or callable, default="focal"
        **Loss and balance.**

        The loss to minimise; see :mod:`skfocal.losses`. With several labels per document, the
        named losses are "focal" and "cross_entropy", computed from the sigmoid of each label,
        "asymmetric" and "distribution_balanced". "ldam" gives the encoder a cosine head. A torch
        module, module class or function is called with logits and class codes and returns one
        value per document (``reduction="none"``). A module is copied and keeps its own settings,
        including its class weights. A class or function also receives `gamma` and
        `label_smoothing`, and as `counts` and `support` the documents of each class that are drawn
        and that there are, if it has arguments with these names that no ``functools.partial`` has
        bound.

    gamma : float, default=2.0
        Focusing parameter of the focal losses, at least 0; 0 gives cross-entropy. The factor
        ``(1 - p)**gamma`` gives less weight to documents that the model already gets right. It
        does not correct class imbalance; use `alpha` or `sampler` for that.

    alpha : None, {"balanced", "sqrt", "effective"}, EffectiveNumber, dict, array-like or float, \
            default=None
        Class weights. The named ones are computed from the number of documents ``n`` that the
        sampler draws of each class, and scaled to a mean of 1 over the drawn documents:
        ``1 / n`` for "balanced", ``1 / sqrt(n)`` for "sqrt", and
        :class:`~skfocal.EffectiveNumber`, which also takes a `beta`, for "effective". A dict or
        pandas Series by label, or an array in the order of `classes_`, is used as it is. A float
        in (0, 1), for two classes only, is the weight of ``classes_[1]``; the other class gets
        ``1 - alpha``.

    sampler : None, {"balanced", "sqrt", "progressive"}, float, imbalanced-learn sampler or \
            callable, default=None
        Which documents are drawn in an epoch. None: every document once. A number ``q`` in
        [0, 1]: documents are drawn with replacement, each class with probability proportional to
        ``n_c**q``, where ``n_c`` is its number of documents; "balanced" is 0, "sqrt" is 0.5.
        "progressive": the epochs move from the distribution of the data to a balanced one. An
        imbalanced-learn sampler with ``sample_indices_`` is run once, on the row numbers. A
        callable receives the labels and returns a torch Sampler of row numbers.

    refit_head : None or as `alpha`, default=None
        Class weights with which the last layer is fitted once more after the training, by a
        logistic regression on the features (:meth:`transform`) of the training documents, each
        once. It takes seconds and often finds more of the rare classes than weights in the
        training do (Kang et al., 2020): :doc:`/refit-head`. None: the layer stays as it was
        trained. Otherwise the attributes `loss_`, `class_weight_` and `effective_class_weight_`
        are those of this second fit, since probabilities and decisions come from it. With
        ``max_epochs=0``, the head is fitted to the pretrained encoder as it is.

    defer : float, default=0.0
        Fraction of the epochs, in [0, 1) and rounded to whole epochs, that train without `alpha`
        before it takes effect. For the deferred re-weighting of Cao et al. (2019), use 0.8 with
        ``loss="ldam"``, ``alpha=EffectiveNumber(beta=0.9999)`` and no sampler.

    normalize : {"samples", "weights", "sum"}, default="samples"
        What the summed loss of a batch is divided by. "samples": its number of documents.
        "weights": the sum of their class weights, as in ``torch.nn.CrossEntropyLoss(weight=...)``;
        in small batches this removes much of the effect of `alpha`. "sum": nothing.

    label_smoothing : float, default=0.0
        Amount of label smoothing, in [0, 1). 0 only for "ldam", "dice", "asymmetric" and
        "distribution_balanced".

    loss_params : dict, default=None
        Further settings of `loss`: ``{"epsilon": 1.0}`` for the Poly-1 losses, ``{"tau": 1.0}``
        for logit adjustment, ``{"max_margin": 0.5, "scale": 30.0}`` for LDAM, ``{"power": 0.1,
        "smooth": 1.0}`` for the dice loss, those of :class:`~skfocal.losses.AsymmetricLoss` and
        :class:`~skfocal.losses.DistributionBalancedLoss` for several labels per document, or the
        arguments of a class or function.

    classes : array-like, default=None
        All class labels, in case some are missing from y, for example in a training fold. Several
        labels per document keep this order in `classes_`. None: the labels in y.

    max_epochs : int, default=4
        **Optimisation.**

        Number of passes over the documents. 0 only with `refit_head`, and without `early_stopping`,
        `checkpoint` and `defer`.

    batch_size : int, default=16
        Documents per batch, or per batch of each process when several train together
        (:doc:`/several-processes`). Prediction uses batches four times as large or, on a CPU,
        batches of 1024 tokens.

    accumulate : int, default=1
        Number of batches whose gradients are added up before each update.

    lr : float or "auto", default="auto"
        Peak learning rate of AdamW. "auto": ``2e-4 * (384 / width)**2``, at most 1e-3, where
        ``width`` is the hidden size of the encoder. That is 2e-4 for MiniLM, 5e-5 for BERT-base
        and 3e-5 for BERT-large. If `freeze` leaves only the head to learn, it is 25 times as
        high, at most 5e-3. With `peft`, it is ten times as high.

    layer_decay : float, default=1.0
        Factor in (0, 1] by which the learning rate shrinks with each layer from the head down.

    weight_decay : float, default=0.01
        Weight decay of AdamW. It does not apply to biases and normalisation layers.

    warmup : float, default=0.1
        Fraction of all updates, in [0, 1), over which the learning rate rises to its peak.

    schedule : {"linear", "cosine", "constant"}, default="linear"
        How the learning rate falls to zero after the warm-up; "constant" keeps it at its peak.

    n_updates : int, default=None
        Number of updates that the warm-up and the schedule span. None: all updates of a `fit`.
        `partial_fit` cannot know how many will follow, so with None its learning rate rises
        over the fraction `warmup` of the first chunk and then stays constant.

    gradient_clip : float or None, default=1.0
        Maximum norm of the gradient. None: no clipping.

    nonfinite : {"raise", "skip"}, default="raise"
        What happens when a loss or gradient is NaN or infinite. "raise": `fit` raises a
        FloatingPointError that names the batch. "skip": the update is skipped and counted as
        ``n_skipped`` in `history_`, with one warning; after 20 skipped updates in a row, `fit`
        raises the error as well.

    callbacks : list of skorch callbacks, default=None
        Callbacks, or pairs of a name and a callback. They are copied before use, except for
        parts that cannot be copied, such as the open file of a tracker. The copies are in
        ``net_.callbacks_``.

    net_params : dict, default=None
        Any other arguments of skorch's ``NeuralNet``, such as ``{"compile": True}``. They override
        the arguments that this class sets. `callbacks`, `train_split`, `batch_size` and `device`
        must be given by the parameters of that name.

    train_split : None, float or cross-validation splitter, default=None
        **Validation.**

        Documents to hold out, on which each epoch is scored. A fraction in (0, 1): a stratified
        split that leaves every class at least one document to train on. A splitter: its first
        split. None: no documents are held out, or 0.1 of them with `early_stopping`,
        ``temperature="auto"`` or ``decision="tuned"``.

    early_stopping : bool or int, default=False
        Stop after this many epochs without a better score, and keep the weights of the best
        epoch. True means 3. With `eval_steps`, scores count in place of epochs.

    eval_steps : int, default=None
        Score the held-out documents after every so many updates, too, not only after each epoch.
        Each time takes a prediction of these documents.

    scoring : str, callable, list of str or dict of str or callable by name, default="f1_macro"
        scikit-learn scorer, applied to the held-out documents after each epoch. Of several, the
        first decides for `early_stopping` and ``decision="tuned"``; all are in `history_`, the
        first as ``valid_score``, each as ``valid_`` and its name.

    proba : {"auto", "softmax", "reweighted", "natural"}, default="auto"
        **Answers.**

        Which probabilities `predict_proba` returns. "softmax": the softmax of the logits, which
        is too close to uniform if gamma is positive. "natural": the probabilities in the data,
        with the effects of gamma, alpha, the sampler, the loss's own adjustment and label
        smoothing undone. "reweighted": the probabilities if each class were as frequent as it
        counted in training. "auto": "reweighted" for losses where it leads to the same decisions
        as "softmax", else "softmax". `predict` returns the class with the highest probability.
        Can be changed after `fit`.

    temperature : None, "auto" or float, default=None
        Number in [0.001, 1000] by which the log-probabilities of `proba` are divided before they
        are normalised again. None: 1. "auto": fitted to the held-out documents (0.1 of
        them if `train_split` is None) by their log-loss, without class weights, and with a prior
        that keeps a few documents from moving it far. It changes no decision. Can be set to a
        number after `fit`.

    decision : {"argmax", "prior", "tuned"}, default="argmax"
        How `predict` decides. "argmax": by the highest probability. "prior": by the natural
        probabilities, carried over to a population with the class shares in `prior`. "tuned":
        with an offset for each class (a threshold for each label) that maximises `scoring` on
        the held-out documents (0.1 of them if `train_split` is None). The tuned offsets are a
        multiple of those that "prior" adds for "uniform", plus a correction for each class that
        is smaller the fewer held-out documents it has. "argmax" and "prior" can be set after `fit`.

    prior : None, "uniform", dict or array-like of shape (n_classes,), default=None
        Shares of the classes in the population to predict for, used by ``decision="prior"``.
        "uniform" aims at balanced accuracy. Can be changed after `fit`.

    checkpoint : None, str, path or Checkpoint, default=None
        **Checkpoint.**

        Folder in which `fit` writes a checkpoint every ten minutes;
        :class:`Checkpoint(folder, steps=100) <skfocal.Checkpoint>` changes the interval. After a
        crash, the same call resumes from the last checkpoint. On a CPU, the weights, history and
        predictions are then exactly those of an uninterrupted fit. A checkpoint of a fit with
        other data or parameters is refused. A finished fit leaves its last checkpoint, from which
        the same call returns at once, unless `warm_start` continues. SIGTERM takes effect once a
        checkpoint has been written. Of your callbacks, the attributes that end in an underscore
        are stored, or their `state_dict`.

    device : str, default="auto"
        **Machine.**

        A torch device. "auto": CUDA if there is one, else the GPU of a Mac ("mps"), else the CPU.
        If several processes train together, each takes the CUDA device with its own local rank.

    precision : {"auto", "float32", "bfloat16", "float16"}, default="auto"
        Precision of training. "bfloat16": the encoder runs under autocast, with weights in
        float32. "float16": for devices without bfloat16; the loss is scaled up so that small
        gradients are not lost, and updates that overflow are skipped. "auto": bfloat16 on CUDA
        devices and processors with fast instructions for it (NVIDIA's since Ampere), unless two
        short texts show that the encoder needs more; float32 elsewhere. Results then differ a
        little between processors, see :doc:`the measurements </benchmarks/precision>`.

    predict_precision : None, {"float32", "bfloat16", "int8"}, default=None
        Precision of `predict` and the other methods that answer. None: as in training.
        "bfloat16" also rounds the weights and all that the layers pass on. "int8" quantises the
        matrix products of the encoder's layers, on a CPU. Can be changed after `fit`. For speed
        and accuracy see the :doc:`measurements </benchmarks/speed>`.

    gradient_checkpointing : bool, default=False
        Whether training keeps only the input of each layer and recomputes the rest in the
        backward pass. The weights are the same in float32, and equal up to rounding in
        bfloat16; training needs less memory and takes a third to a half longer:
        :doc:`measured </benchmarks/adapters>`.

    deterministic : bool, default=False
        Whether `fit` uses only operations that give the same bits in every run with the same
        `random_state`, which on a CPU is always the case. On CUDA some of them are slower, and an
        operation that has no deterministic form raises an error that names it. During the fit,
        torch's global setting is changed, which affects other threads too.

    random_state : int, RandomState instance or None, default=None
        Controls the initial weights of the head and adapters, dropout, the sampling and order of
        documents, and the split. The global random generators are not changed, but for numpy's
        with None.

    verbose : int, default=0
        0: no output. 1: a progress bar in each epoch and a line after it.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        Class labels, sorted; for an indicator y in the order of its columns, for collections in
        that of `classes`, if given.
    class_weight_ : ndarray of shape (n_classes,), or (n_classes, 2) with several labels
        Class weights computed from `alpha`; with several labels per document, the weights of a
        label's absence and presence.
    effective_class_weight_ : ndarray of the same shape
        How much more a class counts in training than in the data: `class_weight_` times the
        effect of the sampler times the loss's own adjustment.
    loss_ : torch.nn.Module
        The loss that was minimised.
    class_prior_ : ndarray of shape (n_classes,)
        Share of each class in the training documents, or of the documents with each label.
    proba_ : str
        `proba`, with "auto" resolved.
    decision_offset_ : ndarray of shape (n_classes,) or None
        What the decision adds to log-probabilities (to the log-odds of labels); None for
        "argmax".
    temperature_ : float
        Temperature of the present `proba`.
    lr_ : float
        Peak learning rate.
    max_length_ : int
        Maximum number of tokens per document or window.
    n_truncated_ : int
        Number of documents that lost tokens, held-out ones included.
    pretrained_head_ : bool
        Whether `model` is a published classifier of the same labels, whose head was trained
        further. Else the head is new.
    pooling_ : str
        `pooling`, with "auto" resolved.
    net_ : FocalNet
        The trained skorch net.
    tokenizer_ : transformers.PreTrainedTokenizerFast
        The model's tokenizer.
    history_ : skorch.history.History
        Losses and scores of each epoch.
    best_epoch_ : int
        The epoch whose weights are kept: with `early_stopping` the best, else the last.
    best_step_ : int
        Number of the update after which the kept weights were taken, counted from the first of
        the training.
    class_loss_ : ndarray of shape (n_epochs, n_classes)
        Share of each epoch's training loss that comes from each class, or from each label.
        :class:`~skfocal.ClassLossDisplay` draws it.
    n_features_in_ : int
        1, or 2 for pairs of texts. Defined only if X was two-dimensional in `fit`.
    feature_names_in_ : ndarray of shape (1,) or (2,)
        Column names. Defined only if X was a DataFrame, Dataset or Arrow table in `fit`.

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

    classes_: NDArray[Any]
    class_weight_: NDArray[np.float64]
    effective_class_weight_: NDArray[np.float64]
    loss_: Loss
    class_prior_: NDArray[np.float64]
    lr_: float
    max_length_: int
    n_truncated_: int
    pretrained_head_: bool
    pooling_: str
    net_: FocalNet
    tokenizer_: PreTrainedTokenizerFast
    class_loss_: NDArray[np.float64]
    n_features_in_: int
    feature_names_in_: NDArray[np.object_]
    _pairs: bool
    _cutting: dict[str, Any]
    _pooling: str

    _parameter_constraints: dict[str, Any] = parameters.CONSTRAINTS

    @renamed.refusing
    def __init__(
        self,
        # model
        model: Path = "google-bert/bert-base-uncased",
        *,
        pooling: Literal["auto", "head", "mean", "first", "last"] = "auto",
        freeze: int = 0,
        peft: PeftConfig | dict[str, Any] | None = None,
        dropout: float | None = 0.0,
        attention_dropout: float | None = None,
        trust_remote_code: bool = False,
        warm_start: bool = False,
        # text
        max_length: int | None = None,
        long_documents: LongDocuments = "truncate",
        # loss and balance
        loss: LossFunction = "focal",
        gamma: float = 2.0,
        alpha: ClassWeights = None,
        sampler: Sampler = None,
        refit_head: ClassWeights = None,
        defer: float = 0.0,
        normalize: Literal["samples", "weights", "sum"] = "samples",
        label_smoothing: float = 0.0,
        loss_params: dict[str, Any] | None = None,
        classes: ArrayLike | None = None,
        # optimisation
        max_epochs: int = 4,
        batch_size: int = 16,
        accumulate: int = 1,
        lr: float | Literal["auto"] = "auto",
        layer_decay: float = 1.0,
        weight_decay: float = 0.01,
        warmup: float = 0.1,
        schedule: Literal["linear", "cosine", "constant"] = "linear",
        n_updates: int | None = None,
        gradient_clip: float | None = 1.0,
        nonfinite: Literal["raise", "skip"] = "raise",
        callbacks: Callbacks | None = None,
        net_params: dict[str, Any] | None = None,
        # validation
        train_split: float | Splitter | None = None,
        early_stopping: bool | int = False,
        eval_steps: int | None = None,
        scoring: str
        | Callable[..., float]
        | Sequence[str]
        | Mapping[str, str | Callable[..., float]] = "f1_macro",
        # answers
        proba: Literal["auto", "softmax", "reweighted", "natural"] = "auto",
        temperature: float | Literal["auto"] | None = None,
        decision: Literal["argmax", "prior", "tuned"] = "argmax",
        prior: Prior = None,
        # checkpoint
        checkpoint: CheckpointFolder = None,
        # machine
        device: str | torch.device = "auto",
        precision: Literal["auto", "float32", "bfloat16", "float16"] = "auto",
        predict_precision: Literal["float32", "bfloat16", "int8"] | None = None,
        gradient_checkpointing: bool = False,
        deterministic: bool = False,
        random_state: int | np.random.RandomState | None = None,
        verbose: int = 0,
    ) -> None:
        # model
        self.model = model
        self.pooling = pooling
        self.freeze = freeze
        self.peft = peft
        self.dropout = dropout
        self.attention_dropout = attention_dropout
        self.trust_remote_code = trust_remote_code
        self.warm_start = warm_start
        # text
        self.max_length = max_length
        self.long_documents = long_documents
        # loss and balance
        self.loss = loss
        self.gamma = gamma
        self.alpha = alpha
        self.sampler = sampler
        self.refit_head = refit_head
        self.defer = defer
        self.normalize = normalize
        self.label_smoothing = label_smoothing
        self.loss_params = loss_params
        self.classes = classes
        # optimisation
        self.max_epochs = max_epochs
        self.batch_size = batch_size
        self.accumulate = accumulate
        self.lr = lr
        self.layer_decay = layer_decay
        self.weight_decay = weight_decay
        self.warmup = warmup
        self.schedule = schedule
        self.n_updates = n_updates
        self.gradient_clip = gradient_clip
        self.nonfinite = nonfinite
        self.callbacks = callbacks
        self.net_params = net_params
        # validation
        self.train_split = train_split
        self.early_stopping = early_stopping
        self.eval_steps = eval_steps
        self.scoring = scoring
        # answers
        self.proba = proba
        self.temperature = temperature
        self.decision = decision
        self.prior = prior
        # checkpoint
        self.checkpoint = checkpoint
        # machine
        self.device = device
        self.precision = precision
        self.predict_precision = predict_precision
        self.gradient_checkpointing = gradient_checkpointing
        self.deterministic = deterministic
        self.random_state = random_state
        self.verbose = verbose

    # -- fitting ---------------------------------------------------------------------------

    @parameters.validated
    def fit(
        self,
        X: Documents,
        y: Labels,
        sample_weight: ArrayLike | None = None,
        groups: ArrayLike | None = None,
        eval_set: tuple[Documents, Labels] | tuple[Documents, Labels, ArrayLike] | None = None,
    ) -> Self:
        """Fine-tune the encoder on texts and labels.

        Parameters
        ----------
        X : list, tuple, ndarray of shape (n,), (n, 1) or (n, 2), pandas or polars Series or \
                DataFrame of one or two columns, pyarrow array or table, or datasets.Dataset or \
                a column of one
            One string per document, or a pair of strings, such as a question and an answer.
            Columns of pyarrow and `datasets` are read a part at a time.
        y : array-like of shape (n,), or several labels per document
            Labels of any kind that scikit-learn accepts. Several labels per document: a 0-1
            indicator of shape (n, n_labels), dense, sparse or a DataFrame; or a collection of
            labels for each document.
        sample_weight : array-like of shape (n,), default=None
            Non-negative weights; they are scaled to mean 1. A document of weight 2 counts twice:
            in the loss, in the class counts behind `alpha` and for the sampler.
        groups : array-like of shape (n,), default=None
            Group of each document, for a splitter in `train_split`.
        eval_set : tuple (X, y) or (X, y, sample_weight), default=None
            Documents of your own to score each epoch on, in place of those that `train_split`
            holds out: for the scores in `history_`, `early_stopping`, ``temperature="auto"`` and
            ``decision="tuned"``. Nothing is trained on them. A pipeline does not transform them.

        Returns
        -------
        self : BertFocalClassifier

        Raises
        ------
        TypeError, ValueError
            If X, y or a parameter is invalid; the message names it.
        OSError
            If the model cannot be loaded.
        ImportError
            If `peft` is given and peft is not installed: ``pip install 'skfocal[peft]'``.
        FloatingPointError
            If the loss, the gradient or the weights become NaN or infinite; the message names
            the batch.
        torch.OutOfMemoryError
            If the device has too little memory for a single document. Batches that do not fit
            are computed in parts.
        RuntimeError
            If ``deterministic=True`` and an operation has no deterministic form; the message
            names it.
        """
        given, processes = parameters.parameters_of(self), process_group.current()
        checkpoints = checkpoints_of(given.checkpoint, processes)
        with all_or_nothing(self), processes.together(), checkpoints:
            rng = checkpoints.random_state(given.random_state)
            texts = inputs.read_documents(self, X, reset=True)
            own = inputs.read_eval_set(self, eval_set, isinstance(texts[0], tuple))
            data = inputs.training_data(given, texts, y, sample_weight, groups, rng, processes, own)
            inputs.check_frames(X, y, data, sample_weight=sample_weight, groups=groups)
            training = Training(given, data, rng, processes, checkpoints, earlier=Fit.of(self))
            training.run().keep_in(self)
        return self

    @parameters.validated
    def partial_fit(
        self,
        X: Documents,
        y: Labels,
        classes: ArrayLike | None = None,
        sample_weight: ArrayLike | None = None,
    ) -> Self:
        """Train for one epoch on a chunk of documents, continuing from the previous call.

        Each call continues with the weights, AdamW's moments, class counts, random state and
        position in the schedule of the previous one, also after pickling. With `n_updates`, all
        calls follow one schedule. `alpha` is computed from all chunks so far. After a `fit`, the
        first call continues from its weights.

        Parameters
        ----------
        X : as in :meth:`fit`
            One string per document, or a pair of strings.
        y : as in :meth:`fit`
            Labels.
        classes : array-like, default=None
            All labels that occur in any chunk; required in the first call unless the parameter
            `classes` names them. A chunk need not contain all of them.
        sample_weight : array-like of shape (n,), default=None
            As in :meth:`fit`. The weights of each chunk are scaled to mean 1, so they compare the
            documents of one chunk, not chunks.

        Returns
        -------
        self : BertFocalClassifier

        Raises
        ------
        TypeError, ValueError, OSError, FloatingPointError
            As in :meth:`fit`. ValueError also for settings that need several epochs or held-out
            documents: `early_stopping`, `train_split`, `eval_steps`, `defer`, `refit_head`,
            `checkpoint`, ``sampler="progressive"``, ``temperature="auto"`` and
            ``decision="tuned"``.
        """
        given, processes = parameters.parameters_of(self), process_group.current()
        with all_or_nothing(self), processes.together():
            partial_fit.check_parameters(given)
            earlier = Fit.of(self)
            pairs = None if earlier is None else earlier._pairs
            texts = inputs.read_documents(self, X, reset=earlier is None, pairs=pairs)
            chunks = partial_fit.chunks_so_far(given, earlier, processes)
            data = partial_fit.chunk_data(
                given, texts, y, classes, sample_weight, earlier, processes
            )
            inputs.check_frames(X, y, data, sample_weight=sample_weight)
            training = Training(given, data, chunks.rng, processes, earlier=earlier, chunks=chunks)
            training.run().keep_in(self)
        return self

    def _validate_params(self) -> None:
        with process_group.current().together():
            parameters.validate(self)

    # -- predicting ------------------------------------------------------------------------

    def predict(self, X: Documents) -> NDArray[Any]:
        """Return the label of each document, as `decision` says.

        Parameters
        ----------
        X : as in :meth:`fit`, or an iterator of such chunks
            One string per document, or a pair of strings.

        Returns
        -------
        ndarray of shape (n,) with the dtype of `classes_`, or an int indicator of shape \
                (n, n_labels)
        """
        return self._answer(X, FixedPredictions.predict)

    def predict_proba(self, X: Documents) -> NDArray[np.float64]:
        """Return the probabilities of the classes, as `proba` says.

        The softmax of the logits is too close to uniform with ``gamma > 0``. With class weights or
        a sampler, it refers to the reweighted classes, not to the class frequencies in the data.

        Parameters
        ----------
        X : as in :meth:`fit`, or an iterator of such chunks
            One string per document, or a pair of strings.

        Returns
        -------
        ndarray of shape (n, n_classes), float64, columns in the order of `classes_`
        """
        return self._answer(X, FixedPredictions.predict_proba)

    def score(self, X: Documents, y: Labels, sample_weight: ArrayLike | None = None) -> float:
        """Return the accuracy; with several labels, the share of documents with all labels right.

        Parameters
        ----------
        X : as in :meth:`fit`
            One string per document, or a pair of strings.
        y : as in :meth:`fit`
            Labels.
        sample_weight : array-like of shape (n,), default=None
            Non-negative weights.

        Returns
        -------
        float
            In [0, 1].
        """
        check_is_fitted(self)
        labels.check_order(X, y=y, sample_weight=sample_weight)
        if self.multilabel_:
            y = labels.decode(*labels.encode(y, as_texts(X), self.classes_, True))
        accuracy: float = super().score(X, y, sample_weight)
        return accuracy

    def decision_function(self, X: Documents) -> NDArray[np.float64]:
        """Return the logarithm of :meth:`predict_proba`; for two classes or labels, the log-odds.

        With a `decision` other than "argmax", `predict` does not decide by these scores.

        Parameters
        ----------
        X : as in :meth:`fit`, or an iterator of such chunks
            One string per document, or a pair of strings.

        Returns
        -------
        ndarray of shape (n, n_classes), or (n,) for two classes
        """
        return self._answer(X, FixedPredictions.decision_function)

    def transform(self, X: Documents) -> NDArray[np.float32]:
        """Return the vector that the logits of each document are computed from.

        It is the input of the last linear layer: with `pooling` "mean", "first" or "last", the
        pooled and normalised last hidden states; with "head", what the architecture makes of them.
        The vector of a document read in windows is the mean of those of its windows.

        Parameters
        ----------
        X : as in :meth:`fit`, or an iterator of such chunks
            One string per document, or a pair of strings.

        Returns
        -------
        ndarray of shape (n, width), float32
            Or a DataFrame, if :meth:`set_output` says so.

        Raises
        ------
        ValueError
            If the head computes the logits of a document from more than one vector.
        """
        with predicting(self) as model:
            return model.features(X)

    def set_output(
        self, *, transform: Literal["default", "pandas", "polars"] | None = None
    ) -> Self:
        """Set what :meth:`transform` returns.

        Parameters
        ----------
        transform : {"default", "pandas", "polars"}, default=None
            "default": an array; else a DataFrame. None: what was set before.

        Returns
        -------
        self : BertFocalClassifier
        """
        super().set_output(transform=transform)
        return self

    @property
    def _n_features_out(self) -> int:
        """Width of :meth:`transform`, for the names of its columns."""
        return fitted_model.feature_width(self)

    def report(
        self, X: Documents, y: Labels, *, n_hardest: int = 20, explain: bool = False
    ) -> Report:
        """Return scores, figures and the hardest documents, for a notebook or an HTML file.

        Parameters
        ----------
        X : as in :meth:`fit`
            Documents that were not used in training.
        y : as in :meth:`fit`
            Their labels. Some classes may be missing.
        n_hardest : int, default=20
            Number of documents to show with the highest focal weight ``(1 - p)**gamma``; without a
            gamma in the head's last fit, ``1 - p``.
        explain : bool, default=False
            Whether to mark the words in them that speak for and against the predicted class, by
            :meth:`explain`; with several labels, the label that the document is judged by.

        Returns
        -------
        skfocal.Report
            A notebook shows it; ``report.save("report.html")`` writes one file.
        """
        from skfocal.report import Report

        return Report.from_estimator(self, X, y, n_hardest=n_hardest, explain=explain)

    def explain(self, X: Documents, target: Any = None, *, n_steps: int = 32) -> Explanation:
        """Return what each word of a document adds to the log-odds of a class.

        The attributions are integrated gradients of the token embeddings, summed over the tokens
        of a word, by Gauss-Legendre quadrature::

            (e - e0) * integral from 0 to 1 of gradient f(e0 + t * (e - e0)) dt

        Here ``f`` is the log-odds of the class, which is its logit minus the logarithm of the
        summed exponentials of the others or, with several labels per document, the logit of the
        label. ``e`` are the embeddings of the document, and ``e0`` those of the baseline, the same
        document with padding in place of each token but the special ones. The attributions of a
        document add up to ``f(e) - f(e0)`` but for an error of the integral, which is returned.
        Windows of a long document are pooled as in `predict`, and a word that several of them
        share gets the sum.

        With ``proba="softmax"`` and no temperature, ``f`` is the log-odds of `predict_proba`.
        Other settings undo what the loss and the weights did to the same logits, so their numbers
        differ. The computation is in float32, also where predictions are in a lower precision.

        Parameters
        ----------
        X : as in :meth:`fit`
            One string per document, or a pair of strings.
        target : label, or array-like of shape (n,), default=None
            The class to explain, of all documents or of each. None: the one that `predict` decides
            for. With several labels per document, a row may be a collection of labels, `target`
            may be an indicator, and None means each label that is decided for the document or, if
            there is none, the one that comes closest.
        n_steps : int, default=32
            Number of points of the integral. Time is proportional to it: with 32, a document takes
            about as long as in 100 predictions.

        Returns
        -------
        skfocal.Explanation
            A sequence with one :class:`~skfocal.explanation.DocumentExplanation` per document, or
            with several labels one per document and label. A notebook shows it, ``print`` lists
            the strongest words, and ``explanation.save("page.html")`` writes one file.

        Raises
        ------
        ValueError
            If `target` has another length than X or a label that the fit did not know, or if the
            logits of the encoder cannot be differentiated by its token embeddings, as with those
            that have a decoder, too.
        ImportError
            If captum is not installed: ``pip install 'skfocal[explain]'``.

        Warns
        -----
        UserWarning
            If the error of a document is more than 5 % of the sum of its absolute attributions, or
            of the change of the log-odds if that is larger.

        References
        ----------
        Sundararajan, Taly and Yan: Axiomatic Attribution for Deep Networks, ICML 2017
        (arXiv:1703.01365).
        """
        from skfocal.explanation._explain import explain

        return explain(self, X, target, n_steps)

    def _answer(
        self, X: Documents, method: Callable[[FixedPredictions], NDArray[Any]]
    ) -> NDArray[Any]:
        with predicting(self) as model:
            return model.answer(X, method)

    @property
    def multilabel_(self) -> bool:
        """Whether a document may have several labels."""
        check_is_fitted(self)
        return self.class_weight_.ndim == 2

    @property
    def decision_offset_(self) -> NDArray[np.float64] | None:
        """What the present `decision` adds to log-probabilities, or to log-odds of labels."""
        check_is_fitted(self)
        return fitted_model.present_offset(self)

    @property
    def proba_(self) -> str:
        """The present `proba`, with "auto" resolved."""
        check_is_fitted(self)
        return resolve_proba(self.proba, self.loss_)

    @property
    def temperature_(self) -> float:
        """The temperature of the present `proba`."""
        check_is_fitted(self)
        return fitted_model.present_temperature(self)

    @property
    def best_epoch_(self) -> int:
        """The epoch whose weights are kept: with `early_stopping` the best, else the last.

        Callbacks that restore other weights are not looked at.
        """
        rows = self.history_
        if not rows or "valid_score_best" not in rows[-1]:  # or a partial_fit came last
            return len(rows)
        best = [row["epoch"] for row in rows if row.get("valid_score_best")]
        return int(rows[-1]["best_epoch"] if "best_epoch" in rows[-1] else best[-1])

    @property
    def best_step_(self) -> int:
        """Number of the update after which the kept weights were taken, from 1."""
        rows = self.history_
        accumulate = self.net_.accumulate
        n_updates = sum(math.ceil(row["train_batch_count"] / accumulate) for row in rows)
        return int(rows[-1].get("best_step", n_updates) if rows else 0)

    @property
    def history_(self) -> History:
        """Losses and scores of each epoch."""
        check_is_fitted(self)
        return self.net_.history

    # -- files ------------------------------------------------------------------------------

    def save_pretrained(self, folder: Path, metrics: Mapping[str, float] | None = None) -> None:
        """Write the fitted classifier into a folder that another library can read, too.

        If `pooling_` is "head", ``transformers.pipeline("text-classification", folder)`` reads it.
        Of documents that are cut at the end, it gives the labels of ``decision="argmax"`` with
        ``proba="softmax"``. Its scores are the softmax of the logits or, with several labels, the
        sigmoid.
        Otherwise, ``sentence_transformers.SentenceTransformer(folder).encode(texts)`` gives the
        logits, and the pipeline refuses the folder. Some parameters are not
        stored, because predictions do not need them: those that are not plain data (callbacks,
        sampler objects, random generators), and `net_params`, `checkpoint`, `peft` and
        `trust_remote_code`. A loss of your own is not stored either; if predictions need it,
        saving raises an error.

        Parameters
        ----------
        folder : str or path
            Must be new, empty or written by this method. An earlier model is replaced as a whole,
            and stays as it is if anything goes wrong.
        metrics : dict of str -> float, default=None
            Scores to show on the model card, README.md.

        Raises
        ------
        FileExistsError
            If the folder holds files that this method did not write.
        OSError
            If the folder cannot be written.
        TypeError
            If `proba` or `decision` needs a loss of your own.
        """
        from skfocal import persistence

        if process_group.speaks():
            persistence.save(self, folder, metrics)

    @classmethod
    def from_pretrained(cls, folder: Path) -> Self:
        """Load a classifier that :meth:`save_pretrained` wrote.

        No code from the folder runs, so it may come from an untrusted source. With the same
        versions on the same kind of machine, predictions are the same to the bit.

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
            If a file is not as :meth:`save_pretrained` writes it, or has a newer format.
        OSError
            If a file is missing or cannot be read.
        """
        from skfocal import persistence

        return persistence.load(cls, folder)

    def to_onnx(self, folder: Path) -> None:
        """Write an ONNX graph and the tokenizer, for predictions without torch.

        :class:`~skfocal.OnnxClassifier` reads the folder and needs only numpy, onnxruntime and
        tokenizers. The present `proba`, `temperature` and `decision` are part of the graph. Its
        outputs are "logits", "scores" (from which `decision_function` is computed), "proba" and
        "decision_scores". Batch size and length are dynamic.

        Parameters
        ----------
        folder : str or path
            Must be new, empty or written by this method. An earlier export is replaced as a whole.

        Raises
        ------
        FileExistsError
            If the folder holds files that this method did not write.
        ValueError
            If torch cannot write the encoder as a graph (ConvBERT, Longformer), or its weights take
            more than 2 GB.
        ImportError
            If onnx or onnxscript is not installed: ``pip install 'skfocal[onnx]'``.
        """
        from skfocal.serving import _export

        model = FittedModel.of(self)
        if process_group.speaks():
            _export.export(self, model, folder)

    def push_to_hub(
        self,
        repo_id: str,
        *,
        metrics: Mapping[str, float] | None = None,
        private: bool | None = None,
        token: str | None = None,
        commit_message: str | None = None,
    ) -> str | None:
        """Upload what :meth:`save_pretrained` writes to the Hugging Face hub.

        Parameters
        ----------
        repo_id : str
            Repository, such as "user/name". It is created if it does not exist.
        metrics : dict of str -> float, default=None
            Scores to show on the model card.
        private : bool, default=None
            Whether a new repository is private. None: the default of the account.
        token : str, default=None
            Access token. None: the token of the current login.
        commit_message : str, default=None
            Message of the commit. None: "Upload a skfocal classifier".

        Returns
        -------
        str or None
            URL of the repository. Of several processes that train together, the first uploads, and
            the others return None.
        """
        from skfocal import persistence

        if not process_group.speaks():
            return None
        return persistence.push(
            self,
            repo_id,
            metrics=metrics,
            private=private,
            token=token,
            commit_message=commit_message,
        )

    # -- scikit-learn and pickle -----------------------------------------------------------

    def set_params(self, **params: Any) -> Self:
        """Set parameters, including nested ones such as ``long_documents__pooling="max"``.

        Parameters
        ----------
        **params : dict
            Values by name. A nested name also works where its parameter has a short form:
            ``"windows"``, ``"effective"`` or the folder of `checkpoint`.

        Returns
        -------
        self : BertFocalClassifier

        Raises
        ------
        ValueError
            If there is no such parameter. For a parameter of an earlier version, the message says
            how to write it now.
        """
        renamed.refuse(self._without_own(params), ValueError)
        nested = {name: value for name, value in params.items() if "__" in name}
        super().set_params(**{n: value for n, value in params.items() if n not in nested})
        parameters.spell_out_nested(self, nested)
        super().set_params(**nested)
        return self

    def _without_own(self, params: dict[str, Any]) -> dict[str, Any]:
        """Leave out parameters of a subclass that have an old name for their own use."""
        own = set(self._get_param_names()) & renamed.OLD - set(renamed.AGAIN)
        return {name: value for name, value in params.items() if name not in own}

    def __sklearn_is_fitted__(self) -> bool:
        """Return whether there is a trained net."""
        return hasattr(self, "net_")

    def __sklearn_tags__(self) -> Tags:
        """Return the tags of a classifier of one-dimensional texts."""
        tags = super().__sklearn_tags__()
        tags.input_tags.string = True
        tags.input_tags.one_d_array = True
        tags.input_tags.two_d_array = False
        tags.classifier_tags.multi_label = True
        tags.transformer_tags.preserves_dtype = []  # texts have none
        return tags

    def __sklearn_clone__(self) -> Self:
        """Return a clone that shares only the parts of callbacks that cannot be copied."""
        try:
            cloned: Self = super().__sklearn_clone__()
        except Exception:  # objects refuse to be copied with errors of many kinds
            if self.callbacks is None:
                raise
            bare = object.__new__(type(self))
            bare.__dict__.update(vars(self), callbacks=None)
            cloned = BaseEstimator.__sklearn_clone__(bare)
            cloned.callbacks = copies(parameters.as_callbacks(self.callbacks))
        return cloned

    def __reduce_ex__(self, protocol: SupportsIndex) -> str | tuple[Any, ...]:
        """Let pickles, which run code anyway, open models that bring code of their own."""
        return pickling.reduced(self, super().__reduce_ex__(protocol))

    def __getstate__(self) -> dict[str, Any]:
        """Return plain data: arrays and text instead of the net, without a device."""
        return pickling.to_plain(self, super().__getstate__())

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Rebuild the net on a device that is present."""
        may_run_code = pickling.may_run_code(self)
        defaults = BertFocalClassifier().get_params(deep=False)
        old = self._without_own(state)
        own = {name: value for name, value in state.items() if name not in old}
        state, plain = pickling.from_plain(old, defaults)
        super().__setstate__({**state, **own})
        if plain is not None:
            pickling.build_net(self, plain, may_run_code)
