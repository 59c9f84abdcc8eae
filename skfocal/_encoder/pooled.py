"""A linear head on the pooled tokens of an encoder, in place of the architecture's own head.

Most architectures classify by the first token, through layers that a checkpoint may never have
trained. An encoder that was pretrained to put its meaning elsewhere, in the mean of its tokens for
example, has to unlearn that first.
"""

import inspect

import torch
from torch import nn
from transformers.modeling_outputs import SequenceClassifierOutput

from skfocal._encoder.structure import found_settings

POOLINGS = ("mean", "first", "last")


def pool_tokens(hidden, mask, pooling):
    """Return one vector per document from those of its tokens.

    Parameters
    ----------
    hidden : tensor of shape (n, length, width)
        The last hidden states of the encoder; with "first", those of the first token are enough.
    mask : int tensor of shape (n, length)
        1 for tokens, 0 for padding, which comes last.
    pooling : {"mean", "first", "last"}
        Special tokens count.

    Returns
    -------
    tensor of shape (n, width)
    """
    if pooling == "first":
        return hidden[:, 0]
    if pooling == "last":
        last = (mask.sum(1) - 1).view(-1, 1, 1).expand(-1, 1, hidden.shape[-1])
        return hidden.gather(1, last)[:, 0]
    # A sum of hundreds of tokens has few digits in bfloat16.
    weight = mask.to(torch.float32).unsqueeze(-1)
    mean = (hidden.float() * weight).sum(1) / weight.sum(1)
    return mean.to(hidden.dtype)


class PooledEncoder(nn.Module):
    """An encoder, the pooling of its tokens, and a linear layer on their normalised vector.

    It is used in place of a sequence classifier of transformers and has the attributes of one that
    are read here.

    Parameters
    ----------
    encoder : transformers.PreTrainedModel
        Without a head.
    pooling : {"mean", "first", "last"}
    """

    base_model_prefix = "encoder"

    def __init__(self, encoder, pooling):
        super().__init__()
        self.config = encoder.config
        self.pooling = pooling
        self.encoder = encoder
        width = encoder.config.get_text_config().hidden_size
        self.norm = nn.LayerNorm(width)
        self.classifier = nn.Linear(width, encoder.config.num_labels)

    @property
    def base_model(self):
        """The encoder without the head."""
        return self.encoder

    def get_input_embeddings(self):
        """Return the embeddings of the tokens."""
        return self.encoder.get_input_embeddings()

    def forward(self, input_ids, attention_mask, **inputs):
        """Return the logits, of shape (n, n_classes), as transformers does."""
        pooled = self.pooled(input_ids, attention_mask, **inputs)
        return SequenceClassifierOutput(logits=self.classifier(self.norm(pooled)))

    def pooled(self, input_ids, attention_mask, **inputs):
        """Return the pooled vectors, of shape (n, width)."""
        output = self.encoder(input_ids=input_ids, attention_mask=attention_mask, **inputs)
        hidden = getattr(output, "last_hidden_state", None)
        if hidden is None:
            raise TypeError(
                f"{type(self.encoder).__name__} gives no last_hidden_state, which "
                f"pooling={self.pooling!r} needs: set pooling='head'."
            )
        return pool_tokens(hidden, attention_mask, self.pooling)


def with_pooling(classifier, pooling):
    """Return a sequence classifier of transformers with another head, newly drawn.

    Parameters
    ----------
    classifier : transformers.PreTrainedModel
        Its encoder is taken over, not copied.
    pooling : {"mean", "first", "last"}

    Raises
    ------
    ValueError
        If the pooling is none of these, or the encoder has a decoder, too.
    """
    config = classifier.config
    if pooling not in POOLINGS:
        raise ValueError(f"pooling must be one of {POOLINGS}. Got {pooling!r:.60}.")
    if getattr(config, "is_encoder_decoder", False):
        raise ValueError(
            f"pooling must be 'auto' or 'head' for {type(classifier).__name__}, which classifies "
            f"by its decoder. Got {pooling!r}."
        )
    encoder = classifier.base_model
    if "add_pooling_layer" in inspect.signature(type(encoder).__init__).parameters:
        encoder.pooler = None  # nothing would read it
    config.skfocal = {**found_settings(classifier), "pooling": pooling}
    return PooledEncoder(encoder, pooling).eval()


def pooling_of(encoder):
    """Return how an encoder comes to one vector per document, "head" if by the architecture."""
    return encoder.pooling if isinstance(encoder, PooledEncoder) else "head"
