"""BertFocalClassifier: words and labels in, a fine-tuned encoder out."""

from typing import Self

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin, _fit_context
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


class BertFocalClassifier(ClassifierMixin, BaseEstimator):
    """Fine-tune a BERT-like encoder on texts whose classes are imbalanced.

    Parameters
    ----------
    model : str or path, default="google-bert/bert-base-uncased"
        **Model.**

        A name on the Hugging Face hub or a folder: any encoder that transformers'
        ``AutoModelForSequenceClassification`` accepts, with safetensors weights and a fast
        tokenizer. :func:`skfocal.datasets.fetch_minilm` returns a folder without a hub.

    freeze : int, default=0
        Number of lower layers, and with them the embeddings, that stay as they are.

    peft : None, peft.PeftConfig or dict, default=None
        Adapters that learn in place of the layers, such as ``peft.LoraConfig(r=8)``, or a dict of
        its settings, ``{"peft_type": "LORA", "r": 8}``; the head learns in full. After the
        training they are merged into the weights, so that nothing else needs peft.
        `partial_fit` goes on with the same adapters, `warm_start` begins others on the merged
        weights. See :doc:`/large-encoders`.

    dropout : float or None, default=0.0
        Probability of every dropout in the encoder. None: as its configuration says.

    attention_dropout : float or None, default=None
        Probability of the dropout of attention weights. None: as `dropout`. The dearest of all
        dropouts: there are as many weights as pairs of tokens.

    trust_remote_code : bool, default=False
        Whether Python code that comes with the model may run.

    warm_start : bool, default=False
        Whether another `fit` goes on from the weights of the last one.

    max_length : int, default=None
        **Text.**

        Tokens kept of a document, or of each window of one, special tokens included. None: the
        model's own limit.

    long_documents : {"truncate", "head_tail", "windows"} or Windows, default="truncate"
        What happens to documents of more tokens than `max_length`. "truncate": they lose their
        end. "head_tail": they keep a quarter of the tokens from the beginning and three quarters
        from the end (Sun et al., 2019). "windows": they are read in windows whose logits are
        pooled, in training too; :class:`Windows(stride=64, pooling="mean") <skfocal.Windows>` says
        how. Takes as much longer as there are more tokens:
        :doc:`measured </benchmarks/long-documents>`. Pairs of texts are truncated, the longer
        text first.

    loss : {"focal", "cross_entropy", "poly1", "poly1_focal", "logit_adjusted", \
            "balanced_softmax", "ldam", "dice", "asymmetric"}, module, class or callable, \
            default="focal"
        **Loss and balance.**

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

    alpha : None, {"balanced", "sqrt", "effective"}, EffectiveNumber, dict, array-like or float, \
            default=None
        Class weights. The named ones are computed from what the sampler draws and have mean 1
        over it: ``1 / n``, ``1 / sqrt(n)``, and :class:`~skfocal.EffectiveNumber`, whose `beta`
        can be set. A dict or pandas Series by label and an array in the order of `classes_` are
        taken as they are. A float in (0, 1), for two classes, is the weight of ``classes_[1]``;
        the other gets 1 - alpha.

    sampler : None, {"balanced", "sqrt", "progressive"}, float, imbalanced-learn sampler or \
            callable, default=None
        Which documents an epoch draws. None: each one once. A number ``q`` in [0, 1]: with
        replacement, a class with probability proportional to ``n_c**q``; "balanced" is 0,
        "sqrt" is 0.5. "progressive" goes from the data's distribution to the balanced one over
        the epochs. An imbalanced-learn sampler with ``sample_indices_`` runs once on the row
        numbers. A callable gets the labels and returns a torch Sampler of row numbers.

    defer : float, default=0.0
        In [0, 1): the part of the epochs, rounded to whole ones, that train without `alpha` before
        it sets in. Deferred re-weighting (Cao et al., 2019) is 0.8 with ``loss="ldam"``,
        ``alpha=EffectiveNumber(beta=0.9999)`` and no sampler.

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

    classes : array-like, default=None
        All labels that there are, for a training fold that lacks some. None: those in y.

    max_epochs : int, default=4
        **Optimisation.**

        Passes over the documents.

    batch_size : int, default=16
        Documents in a batch, of each process where several train together
        (:doc:`/several-processes`). Prediction takes four times as many, on a CPU as many as
        have 1024 tokens together.

    accumulate : int, default=1
        Batches whose gradients are added before an update.

    lr : float or "auto", default="auto"
        Peak learning rate of AdamW. "auto" is ``2e-4 * (384 / width)**2``, at most 1e-3, with
        the width of the encoder's hidden layer: 2e-4 for MiniLM, 5e-5 for BERT-base, 3e-5 for
        BERT-large. With `peft` ten times that, at most 1e-2.

    layer_decay : float, default=1.0
        In (0, 1]: the learning rate shrinks by this factor a layer from the head down.

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

    nonfinite : {"raise", "skip"}, default="raise"
        What happens when a loss or a gradient is NaN or infinite. "raise": `fit` ends with a
        FloatingPointError that names the batch. "skip": the update is left out, which warns once
        and is counted as ``n_skipped`` in `history_`; after 20 in a row `fit` ends all the same.

    callbacks : list of skorch callbacks, default=None
        Copied before use, but for what cannot be copied, such as the open file of a tracker; the
        copies are in ``net_.callbacks_``.

    net_params : dict, default=None
        Any other argument of skorch's ``NeuralNet``, such as ``{"compile": True}``; wins over what
        this class would give it.

    train_split : None, float or cross-validation splitter, default=None
        **Validation.**

        Documents held out to score each epoch: a fraction in (0, 1), stratified, where a class
        always keeps a document to train on; or the first split of a splitter. None holds out
        none, or 0.1 with `early_stopping`, ``temperature="auto"`` or ``decision="tuned"``.

    early_stopping : bool or int, default=False
        Stop after this many epochs without a better score (True: 3), and keep the best epoch's
        weights.

    scoring : str or callable, default="f1_macro"
        scikit-learn scorer of the held-out documents.

    proba : {"auto", "softmax", "reweighted", "natural"}, default="auto"
        **Answers.**

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

    checkpoint : None, str, path or Checkpoint, default=None
        **Checkpoint.**

        A folder for checkpoints of `fit`, one every ten minutes;
        :class:`Checkpoint(folder, steps=100) <skfocal.Checkpoint>` says how often. After a crash
        the same call goes on from the last one and ends, on a CPU, with the very same weights,
        history and predictions as without the interruption; with other data or parameters it is
        refused. A fit that has ended leaves its last checkpoint, from which the same call returns
        at once. SIGTERM waits until one is written. Of your callbacks, attributes that end in an
        underscore are kept, or their `state_dict`.

    device : str, default="auto"
        **Machine.**

        A torch device. "auto" is CUDA where there is one, else the CPU; of several processes
        that train together each takes the CUDA device of its own number.

    precision : {"auto", "float32", "bfloat16", "float16"}, default="auto"
        "bfloat16" runs the encoder under autocast, weights stay float32. "float16" is for devices
        without bfloat16: the loss is scaled so that small gradients are not lost, and updates
        that overflow meanwhile are skipped. "auto" is bfloat16 on CUDA and float32 elsewhere.

    predict_precision : None, {"float32", "bfloat16", "int8"}, default=None
        What `predict` and its like compute in. None: as in training. "bfloat16" pays on
        processors with instructions for it, and on CUDA. "int8" quantises the matrix products of
        the encoder's layers, on a CPU. May be set after `fit`. How much faster, and what it
        costs: :doc:`measured </benchmarks/speed>`.

    gradient_checkpointing : bool, default=False
        Whether training keeps of each layer only its input and computes the rest again in the
        backward pass. The weights come out the same, from less memory, a third to a half slower:
        :doc:`measured </benchmarks/adapters>`.

    deterministic : bool, default=False
        Whether `fit` may only use operations that give the same bits in every run with the same
        `random_state`, as on a CPU it does anyway. For CUDA: some are slower, and one that has
        no such form raises an error that names it. torch is set so for the time of the fit, for
        other threads too.

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

    _parameter_constraints: dict = parameters.CONSTRAINTS

    @renamed.refusing
    def __init__(
        self,
        # model
        model="google-bert/bert-base-uncased",
        *,
        freeze=0,
        peft=None,
        dropout=0.0,
        attention_dropout=None,
        trust_remote_code=False,
        warm_start=False,
        # text
        max_length=None,
        long_documents="truncate",
        # loss and balance
        loss="focal",
        gamma=2.0,
        alpha=None,
        sampler=None,
        defer=0.0,
        normalize="samples",
        label_smoothing=0.0,
        loss_params=None,
        classes=None,
        # optimisation
        max_epochs=4,
        batch_size=16,
        accumulate=1,
        lr="auto",
        layer_decay=1.0,
        weight_decay=0.01,
        warmup=0.1,
        schedule="linear",
        n_updates=None,
        gradient_clip=1.0,
        nonfinite="raise",
        callbacks=None,
        net_params=None,
        # validation
        train_split=None,
        early_stopping=False,
        scoring="f1_macro",
        # answers
        proba="auto",
        temperature=None,
        decision="argmax",
        prior=None,
        # checkpoint
        checkpoint=None,
        # machine
        device="auto",
        precision="auto",
        predict_precision=None,
        gradient_checkpointing=False,
        deterministic=False,
        random_state=None,
        verbose=0,
    ):
        # model
        self.model = model
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
        given, processes = parameters.parameters_of(self), process_group.current()
        checkpoints = checkpoints_of(given.checkpoint, processes)
        with all_or_nothing(self), processes.together(), checkpoints:
            rng = checkpoints.random_state(given.random_state)
            texts = inputs.read_documents(self, X, reset=True)
            data = inputs.training_data(given, texts, y, sample_weight, groups, rng, processes)
            training = Training(given, data, rng, processes, checkpoints, earlier=Fit.of(self))
            training.run().keep_in(self)
        return self

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
            `early_stopping`, `train_split`, `defer`, `checkpoint` and
            ``sampler="progressive"``.
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
            training = Training(given, data, chunks.rng, processes, earlier=earlier, chunks=chunks)
            training.run().keep_in(self)
        return self

    def _validate_params(self):
        with process_group.current().together():
            parameters.validate(self)

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
        if self.multilabel_:
            y = labels.decode(*labels.encode(y, as_texts(X), self.classes_, True))
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

    def _answer(self, X, method):
        with predicting(self) as model:
            return model.answer(X, method)

    @property
    def multilabel_(self) -> bool:
        """Whether a document may have several labels."""
        check_is_fitted(self)
        return self.class_weight_.ndim == 2

    @property
    def decision_offset_(self) -> np.ndarray | None:
        """What the present `decision` adds to log-probabilities."""
        check_is_fitted(self)
        return fitted_model.present_offset(self)

    @property
    def proba_(self) -> str:
        """What the present `proba` is for the loss."""
        check_is_fitted(self)
        return resolve_proba(self.proba, self.loss_)

    @property
    def temperature_(self) -> float:
        """The temperature of the present `proba`."""
        check_is_fitted(self)
        return fitted_model.present_temperature(self)

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
            If onnx or onnxscript is not installed: ``pip install 'skfocal[onnx]'``.
        """
        from skfocal.serving import _export

        model = FittedModel.of(self)
        if process_group.speaks():
            _export.export(self, model, folder)

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

    def set_params(self, **params) -> Self:
        """Set parameters, also single settings: ``long_documents__pooling="max"``.

        Parameters
        ----------
        **params : dict
            By name. With a setting, the short form of its parameter is spelled out:
            ``"windows"``, ``"effective"`` or the folder of `checkpoint`.

        Returns
        -------
        self : BertFocalClassifier

        Raises
        ------
        ValueError
            If there is no such parameter; of an earlier version's the message says how it is
            written now.
        """
        renamed.refuse(params, ValueError)
        nested = {name: value for name, value in params.items() if "__" in name}
        super().set_params(**{n: value for n, value in params.items() if n not in nested})
        parameters.spell_out_nested(self, nested)
        return super().set_params(**nested)

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
            cloned.callbacks = copies(parameters.as_callbacks(self.callbacks))
            return cloned

    def __getstate__(self):
        """Return plain data: arrays and text in place of the net, without any device."""
        return pickling.to_plain(self, super().__getstate__())

    def __setstate__(self, state):
        """Rebuild the net, on the device that there is now."""
        defaults = BertFocalClassifier().get_params(deep=False)
        state, plain = pickling.from_plain(state, defaults)
        super().__setstate__(state)
        if plain is not None:
            pickling.build_net(self, plain)
