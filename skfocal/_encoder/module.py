"""The encoder as a torch module that maps token ids to logits."""

import torch
from torch import nn

from skfocal._encoder.dropout import set_attention_dropout
from skfocal._encoder.first_token import give_first_token_layer
from skfocal._encoder.head import head_inputs
from skfocal._encoder.pooled import pooling_of
from skfocal._encoder.pretrained import load_encoder
from skfocal._encoder.structure import layers_of, needs_equal_lengths
from skfocal._runtime.threads import mind_fork


class EncoderClassifier(nn.Module):
    """A Hugging Face sequence classifier that returns plain logits.

    Where the architecture allows it, the last layer computes the first token only, which is all
    that the head reads.

    Parameters
    ----------
    model : transformers.PreTrainedModel or PooledEncoder
        What ``AutoModelForSequenceClassification`` returns, or an encoder with a head of ours.

    Raises
    ------
    ValueError
        If its head reads the last position (XLNet).

    Attributes
    ----------
    head : {"new", "discarded", "replaced", "left", "published"} or None
        See `load_encoder`; None for one that was trained before.
    """

    def __init__(self, model):
        super().__init__()
        if getattr(model.config, "summary_type", None) == "last":
            raise ValueError(
                f"model must not be a {type(model).__name__} with summary_type='last', whose head "
                "reads the last position: batches are padded there. Take a BERT-like encoder."
            )
        self.model = model
        reads_first = pooling_of(model) in ("head", "first")
        short = reads_first and give_first_token_layer(model, layers_of(model))
        self.extra = {"first_token_only": True} if short else {}
        self.head = None

    def forward(self, input_ids, attention_mask, token_type_ids=None):
        """Return logits of shape (n_samples, n_classes)."""
        return self._run(self._logits, input_ids, attention_mask, token_type_ids)

    def features(self, input_ids, attention_mask, token_type_ids=None):
        """Return what the last linear layer computes the logits from, of shape (n_samples, width).

        Raises
        ------
        ValueError
            If that is not one vector for each document.
        """
        return self._run(self._features, input_ids, attention_mask, token_type_ids)

    def _logits(self, inputs):
        return self.model(**inputs, **self.extra).logits

    def _features(self, inputs):
        return head_inputs(self.model, inputs | self.extra)

    def _run(self, compute, input_ids, attention_mask, token_type_ids):
        inputs = {"input_ids": input_ids, "attention_mask": attention_mask}
        if token_type_ids is not None:  # not all encoders know the word
            inputs["token_type_ids"] = token_type_ids
        if needs_equal_lengths(self.model):
            return _by_length(compute, inputs)
        return compute(inputs)


def _by_length(compute, inputs):
    """Compute documents of one length at a time, without padding."""
    lengths = inputs["attention_mask"].sum(1)
    groups = [(lengths == length).nonzero()[:, 0] for length in lengths.unique()]
    parts = []
    for rows in groups:
        width = int(lengths[rows[0]])
        parts.append(compute({k: x[rows, :width] for k, x in inputs.items()}))
    return torch.cat(parts)[torch.cat(groups).argsort()]


def load_module(
    model,
    classes,
    *,
    pad_token_id,
    pooling="auto",
    multilabel=False,
    dropout=None,
    attention_dropout=None,
    trust_remote_code=False,
):
    """Return the pretrained encoder with a head; see `load_encoder`.

    Parameters
    ----------
    pooling : {"auto", "head", "mean", "first", "last"}, default="auto"
        What the logits are computed from.
    multilabel : bool, default=False
        Whether a document may have several labels.
    dropout : float, default=None
        Probability of every dropout in the model; None keeps the configuration's.
    attention_dropout : float, default=None
        Probability of the dropout of attention weights, if it is to be another.

    Returns
    -------
    EncoderClassifier
    """
    mind_fork()  # what is loaded is tried
    encoder, head = load_encoder(
        model,
        classes,
        pad_token_id=pad_token_id,
        pooling=pooling,
        multilabel=multilabel,
        dropout=dropout,
        trust_remote_code=trust_remote_code,
    )
    if attention_dropout is not None:
        set_attention_dropout(encoder, attention_dropout)
    module = EncoderClassifier(encoder)
    module.head = head
    return module
