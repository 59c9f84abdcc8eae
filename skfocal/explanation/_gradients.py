"""Attributions of the tokens of one document, by integrated gradients of their embeddings."""

import contextlib
import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from skfocal._encoder.module import EncoderClassifier
from skfocal._encoder.pooling import pool
from skfocal._utils.messages import excerpt
from skfocal._utils.optional import import_optional

# Tokens that are computed with gradients at once; a single window may be longer.
_AT_ONCE = {"cpu": 4096, "cuda": 32_768}
_TOLERANCE = 1e-4  # of the largest logit, between two ways to compute the same in float32


class Embeddings:
    """The embeddings of an encoder's tokens, which can be replaced by others.

    Parameters
    ----------
    module : EncoderClassifier

    Raises
    ------
    ValueError
        If the encoder does not say where its embeddings are.
    """

    def __init__(self, module: EncoderClassifier) -> None:
        self.module = module
        self.kind = type(module.model.base_model).__name__
        try:
            self.table = module.model.get_input_embeddings()
        except NotImplementedError:
            self.table = None
        if not isinstance(self.table, torch.nn.Module):
            raise ValueError(
                "explain needs an encoder whose get_input_embeddings() returns a module. "
                f"Got {excerpt(self.table)} from {self.kind}."
            )
        # What this thread replaces the embeddings by: others may predict at the same time, and
        # what is computed again for a gradient may be so by a thread of torch's.
        self.own = threading.local()

    def of(self, ids: Tensor) -> Tensor:
        """Return the embeddings of ids, of shape (length, width)."""
        with torch.no_grad():
            values: Tensor = self.table(ids[None])[0]
        return values

    def logits(self, values: Tensor | None, **inputs: Tensor) -> Tensor:
        """Return the logits of rows without padding, with the embeddings replaced by `values`.

        `values` has the shape (n, length, width). None replaces nothing.
        """
        self.own.values, self.own.n_calls = values, 0
        try:
            logits: Tensor = self.module(**inputs)
        finally:
            self.own.values = None
        return logits

    @contextlib.contextmanager
    def replaced(self) -> Iterator[None]:
        """Let :meth:`logits` replace the embeddings within the block."""
        handle = self.table.register_forward_hook(self._replace)
        try:
            yield
        finally:
            handle.remove()

    def _replace(self, module: Any, args: Any, output: Tensor) -> Tensor:
        values = getattr(self.own, "values", None)
        if values is None:
            return output
        self.own.n_calls += 1
        if output.shape == values.shape:
            return values
        # Encoders that attend in blocks fill up the last one.
        return torch.cat([values.to(output), output[:, values.shape[1] :]], 1)

    def check(self, document: "Document") -> None:
        """Raise ValueError if the logits of a document do not follow from its embeddings."""
        group = document.groups[0][:1]
        inputs = document.inputs(group)
        with torch.no_grad():
            logits = self.logits(None, **inputs)
            try:
                again = self.logits(document.values[group], **inputs)
                why = "are read more than once" if self.own.n_calls > 1 else "are not read"
            except (RuntimeError, IndexError) as error:  # whatever a replaced output may break
                again, why = None, f"cannot be replaced ({error!r:.100})"
        if again is not None and self.own.n_calls == 1:
            scale = _TOLERANCE * max(float(logits.abs().max()), 1e-3)
            if bool((logits - again).abs().max() <= scale) or not logits.isfinite().all():
                return
            why = "do not determine its logits"
        raise ValueError(
            "explain needs an encoder that computes the logits from the embeddings of its tokens. "
            f"Got {self.kind}, whose embeddings {why}."
        )


class Document:
    """The windows of one document, and its logits as a function of its embeddings.

    Parameters
    ----------
    embeddings : Embeddings
    ids : int32 ndarray of shape (n_tokens,)
        The concatenated windows, as :func:`skfocal._data.tokenization.encode` returns them.
    max_length : int
        Tokens of a window; the last may be shorter.
    pooling : {"mean", "max", "logsumexp"}
        How the logits of windows become those of the document.
    """

    def __init__(
        self, embeddings: Embeddings, ids: NDArray[np.int32], max_length: int, pooling: str
    ) -> None:
        self.embeddings, self.pooling = embeddings, pooling
        self.device = next(embeddings.module.parameters()).device
        own = np.where(ids < 0, ~ids, ids).astype(np.int64)
        self.ids = torch.from_numpy(own).to(self.device)
        self.second = torch.from_numpy((ids < 0).astype(np.int64)).to(self.device)
        self.values = embeddings.of(self.ids)
        # Windows of one length are computed together, so that there is no padding.
        places = torch.arange(len(ids), device=self.device)
        n_whole = len(ids) // max_length
        whole = places[: n_whole * max_length].view(n_whole, max_length)
        rest = places[None, n_whole * max_length :]
        self.groups = [group for group in (whole, rest) if group.numel()]

    def inputs(self, group: Tensor) -> dict[str, Tensor]:
        """Return the encoder's inputs for windows, given by the places of their tokens."""
        ids = self.ids[group]
        inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
        if self.second.any():
            inputs["token_type_ids"] = self.second[group]
        return inputs

    def logits(self, values: Tensor) -> Tensor:
        """Return the pooled logits, (n, n_classes), for embeddings of shape (n, n_tokens, width).

        Gradients need the memory of a limited number of tokens: if there are more, all but their
        embeddings is computed again for the gradient.
        """
        limit = _AT_ONCE.get(self.device.type, _AT_ONCE["cuda"])
        again = values.requires_grad and values.shape[0] * values.shape[1] > limit
        parts = [self._of_group(values, group, limit, again) for group in self.groups]
        logits = torch.cat(parts, 1)  # (n, n_windows, n_classes)
        table = torch.arange(logits.shape[:2].numel(), device=self.device).view(logits.shape[:2])
        return pool(logits.flatten(0, 1), table, self.pooling)

    def _of_group(self, values: Tensor, group: Tensor, limit: int, again: bool) -> Tensor:
        n, (n_windows, length) = len(values), group.shape
        rows = values[:, group].flatten(0, 1)
        inputs = {name: x.repeat(n, 1) for name, x in self.inputs(group).items()}

        def compute(some: Tensor, inputs: dict[str, Tensor]) -> Tensor:
            return self.embeddings.logits(some, **inputs)

        parts = []
        for start in range(0, len(rows), size := max(limit // length, 1)):
            some = rows[start : start + size]
            own = {name: x[start : start + size] for name, x in inputs.items()}
            if again:
                parts.append(
                    checkpoint(compute, some, own, use_reentrant=False, preserve_rng_state=False)
                )
            else:
                parts.append(compute(some, own))
        return torch.cat(parts).view(n, n_windows, -1)


@contextlib.contextmanager
def differentiable(module: EncoderClassifier) -> Iterator[None]:
    """Allow gradients within the block, in float32 and without dropout; then undo all of it."""
    device = next(module.parameters()).device.type
    learning = [part for part in module.modules() if part.training]
    try:
        for part in learning:
            part.training = False
        with torch.inference_mode(False), torch.enable_grad():
            with torch.autocast(device, enabled=False):
                yield
    finally:
        for part in learning:
            part.training = True


def integrated_gradients(
    document: Document,
    is_text: NDArray[np.bool_],
    baseline_id: int,
    score: Callable[[Tensor], Tensor],
    n_steps: int,
) -> tuple[NDArray[np.float64], float, float]:
    """Return the attribution of each token, the score, and the score of the baseline.

    Parameters
    ----------
    document : Document
    is_text : bool ndarray of shape (n_tokens,)
        Which tokens the baseline replaces; special tokens stay.
    baseline_id : int
        The token that replaces them.
    score : callable ``(logits) -> Tensor of shape (n,)``
    n_steps : int
        Number of points of the Gauss-Legendre quadrature.
    """
    captum = import_optional("captum.attr", "explain", "explain")
    text = torch.from_numpy(is_text).to(document.device)
    baseline = document.embeddings.of(document.ids.where(~text, baseline_id))[None]

    def function(values: Tensor) -> Tensor:
        return score(document.logits(values).double())

    n_at_once = max(_AT_ONCE.get(document.device.type, _AT_ONCE["cuda"]) // len(document.ids), 1)
    # What captum's LayerIntegratedGradients computes for the layer of embeddings; here they are the
    # input, so that windows can be pooled and nothing changes for predictions in other threads.
    values = captum.IntegratedGradients(function).attribute(
        document.values[None], baseline, n_steps=n_steps, internal_batch_size=n_at_once
    )
    with torch.no_grad():
        ends = function(torch.cat([document.values[None], baseline])).tolist()
    tokens: NDArray[np.float64] = values[0].double().sum(-1).cpu().numpy()
    return tokens, ends[0], ends[1]
