"""Embeddings of an encoder as it was pretrained, and the nearest neighbours of documents."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.neighbors import NearestNeighbors
from sklearn.preprocessing import normalize

from skfocal._data.batches import Collator, TokenDataset, sorted_batches
from skfocal._data.tokenization import TruncationSpec
from skfocal._data.tokens import Tokens, tokenize
from skfocal._encoder.known_mask import to_device
from skfocal._encoder.module import EncoderClassifier, load_module
from skfocal._encoder.pooled import pooling_of
from skfocal._encoder.pretrained import has_decoder, load_tokenizer
from skfocal._encoder.promises import best_precision
from skfocal._encoder.structure import layers_of, length_limit
from skfocal._estimator.build import check_ids, chosen_truncation
from skfocal._runtime.allocator import kept_memory
from skfocal._runtime.devices import generator_kept, hold_device

# Tokens of each document that are embedded. They tell which documents are alike, and a long
# document takes a multiple of the time; docs/benchmarks/audit.md.
_EMBEDDED = 128
_TOKENS_AT_ONCE, _DOCUMENTS_AT_ONCE = 1024, 128  # on a CPU, on other devices


@dataclass(frozen=True, eq=False)
class Encoder:
    """A pretrained encoder and its tokenizer.

    Attributes
    ----------
    module : skfocal._encoder.module.EncoderClassifier
    tokenizer : transformers.PreTrainedTokenizerFast
    truncation : TruncationSpec
        How a classifier of this `max_length` would read documents.
    """

    module: EncoderClassifier
    tokenizer: Any
    truncation: TruncationSpec

    @classmethod
    def load(
        cls, model: Any, max_length: int | None, pairs: bool, trust_remote_code: bool
    ) -> "Encoder":
        """Load an encoder that pools its tokens as it was trained to, or else takes their mean."""
        tokenizer = load_tokenizer(model, trust_remote_code=trust_remote_code)
        settings = {
            "pad_token_id": tokenizer.pad_token_id,
            "trust_remote_code": trust_remote_code,
        }
        with generator_kept():  # a head is drawn, which nothing reads
            module = load_module(model, [0, 1], **settings)
            if pooling_of(module.model) == "head" and not has_decoder(model, trust_remote_code):
                module = load_module(model, [0, 1], pooling="mean", **settings)
        as_asked = SimpleNamespace(max_length=max_length, long_documents="truncate")
        return cls(module, tokenizer, chosen_truncation(as_asked, module, tokenizer, pairs))

    @property
    def length_limit(self) -> int:
        """The largest `max_length` of this model."""
        return int(length_limit(self.module.model, self.tokenizer))

    @property
    def n_layers(self) -> int:
        """Number of layers that `freeze` can count."""
        return len(layers_of(self.module.model))

    def tokens(self, documents: Sequence[Any]) -> Tokens:
        """Return the tokens of documents as a fit would read them, and keep them for it."""
        tokens: Tokens = tokenize(self.tokenizer, documents, self.truncation)
        check_ids(self.module, tokens, documents)
        return tokens

    def embed(
        self, documents: Sequence[Any], watch: Callable[[int], object]
    ) -> NDArray[np.float32]:
        """Return a vector of length 1 for each document, from its first tokens.

        Parameters
        ----------
        documents : sequence of str or of (str, str)
        watch : callable ``(n) -> None``
            Called with the number of documents of each batch that is done.

        Returns
        -------
        float32 ndarray of shape (n, width)
        """
        spec = replace(self.truncation, max_length=min(_EMBEDDED, self.truncation.max_length))
        tokens = tokenize(self.tokenizer, documents, spec, keep=False)
        with hold_device("auto") as device, kept_memory():
            return normalize(self._embedded(tokens, device, watch), copy=False)  # type: ignore[no-any-return]

    def _embedded(
        self, tokens: Tokens, device: str, watch: Callable[[int], object]
    ) -> NDArray[np.float32]:
        pad_id = self.tokenizer.pad_token_id
        precision = best_precision(self.module.model, pad_id, device)
        kind = torch.device(device).type
        autocast = torch.autocast(kind, torch.bfloat16, enabled=precision == "bfloat16")
        module = self.module.to(device).eval()
        data, collate = TokenDataset(tokens), Collator(pad_id)
        limits = (None, _TOKENS_AT_ONCE) if kind == "cpu" else (_DOCUMENTS_AT_ONCE,)
        vectors: NDArray[np.float32] | None = None
        with torch.inference_mode(), autocast:
            for rows in sorted_batches(tokens.lengths, *limits):
                inputs, _ = collate(data.__getitems__(rows))
                batch = module.features(**to_device(inputs, device)).float().cpu().numpy()
                if vectors is None:
                    vectors = np.empty((len(tokens), batch.shape[1]), np.float32)
                vectors[rows] = batch
                watch(len(rows))
        assert vectors is not None
        return np.nan_to_num(vectors, copy=False)


def nearest(
    vectors: NDArray[np.float32], others: NDArray[np.float32], n: int, same: bool
) -> NDArray[np.int64]:
    """Return the numbers of the nearest others of each vector, by cosine, the nearest first.

    Parameters
    ----------
    vectors : float32 ndarray of shape (n_vectors, width)
        Of length 1 each.
    others : float32 ndarray of shape (n_others, width)
    n : int
        How many neighbours; there are fewer if there are fewer others.
    same : bool
        Whether `others` are the vectors, none of which is its own neighbour.

    Returns
    -------
    int64 ndarray of shape (n_vectors, n)
    """
    n = min(n, len(others) - same)
    if n < 1 or not len(vectors):
        return np.zeros((len(vectors), 0), np.int64)
    # Of vectors of length 1, the order by cosine is that by distance, which scikit-learn finds in
    # slices, without a matrix of all distances.
    search = NearestNeighbors(n_neighbors=n + same, algorithm="brute").fit(others)
    found: NDArray[np.int64] = search.kneighbors(vectors, return_distance=False)
    if not same:
        return found.astype(np.int64, copy=False)
    # A document may come after copies of it, or be crowded out by them.
    own = found == np.arange(len(vectors))[:, None]
    own[~own.any(axis=1), -1] = True
    others_of: NDArray[np.int64] = found[~own].reshape(len(vectors), n)
    return others_of
