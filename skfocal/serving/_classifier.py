"""Predictions of an exported classifier, with only numpy, onnxruntime and tokenizers."""

import os
import re
import threading
from collections.abc import Iterator, Sequence
from dataclasses import replace
from numbers import Integral
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skfocal._data.document_streams import concatenated, slices
from skfocal._data.texts import Documents, a_document, as_texts, check_kind
from skfocal._data.tokenization import (
    TruncationSpec,
    checked_truncation,
    encode,
    encoder_inputs,
    laid_out,
    window_table,
    windows_of,
)
from skfocal._runtime.processors import available_processors, said_threads
from skfocal._storage.format_head import check_head
from skfocal._storage.renamed import renewed_cutting
from skfocal._utils import files
from skfocal._utils.messages import excerpt
from skfocal._utils.optional import import_optional
from skfocal.serving._format import FORMAT, FORMAT_VERSION, GRAPH, HEAD, LIMIT, OUTPUTS, TOKENIZER

_LIMITS = {HEAD: 2**24, GRAPH: 2**31, TOKENIZER: 2**28}
_TOKENS_AT_ONCE = 1024  # per batch, padding included
# A document shorter than this share of the longest in a batch starts the next batch. On one core,
# eight documents of R8, padded to the longest of them, took 1.4 times as long.
_LENGTH_AT_LEAST = 0.75
_TEXTS_AT_ONCE = 8192  # tokenised and sorted together; a tokenizer's output takes much memory


class OnnxClassifier:
    """A classifier that :meth:`skfocal.BertFocalClassifier.to_onnx` wrote.

    It gives the answers of the estimator at the time of the export, with its `proba`,
    `temperature` and `decision`, from logits that are computed in float32. It imports neither torch
    nor transformers nor scikit-learn.

    The graph has no gradients, so there is no `explain`: load what
    :meth:`~skfocal.BertFocalClassifier.save_pretrained` wrote for that, or use LIME with
    `predict_proba`.

    Parameters
    ----------
    folder : str or path
        Folder that ``to_onnx`` wrote.
    providers : sequence of str, default=("CPUExecutionProvider",)
        Execution providers of onnxruntime.
    n_threads : int, default=None
        Number of threads on a CPU. None: OMP_NUM_THREADS if it is set, else the number of cores,
        as far as affinity and the quota of a container allow.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        Class labels.
    max_length_ : int
        Maximum number of tokens per document or window.
    pairs_ : bool
        Whether a document is a pair of texts.

    Raises
    ------
    ValueError
        If a file is not as ``to_onnx`` wrote it, or has a newer format, or if `n_threads` is not
        positive.
    OSError
        If a file is missing or cannot be read.
    ImportError
        If onnxruntime or tokenizers is not installed.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        *,
        providers: Sequence[str] = ("CPUExecutionProvider",),
        n_threads: int | None = None,
    ) -> None:
        if n_threads is not None and not (isinstance(n_threads, Integral) and n_threads > 0):
            raise ValueError(
                f"n_threads must be a positive integer or None. Got {n_threads!r:.60}."
            )
        tokenizers, onnxruntime = (
            import_optional(name, "OnnxClassifier", "onnx")
            for name in ("tokenizers", "onnxruntime")
        )
        path = Path(folder).expanduser()
        options = _options(onnxruntime, n_threads)  # a mistake there is not the folder's
        with files.refusing(path, "to_onnx"):
            head = _read_head(path)
            contents = {name: _checked(path, name, head) for name in (GRAPH, TOKENIZER)}
            self.classes_: NDArray[Any] = np.array(head["classes"], dtype=_dtype(head["dtype"]))
            self.max_length_: int = head["max_length"]
            self._multilabel = head["multilabel"]
            self._pad_id = head["pad_id"]
            self.pairs_: bool = head["pairs"]
            tokenizer = tokenizers.Tokenizer.from_str(contents[TOKENIZER].decode())
            self._tokenizer = _checked_tokenizer(tokenizer, head)
            self._vocab_size = head["vocab_size"]
            self._has_idle = max(tokenizer.get_vocab().values()) >= self._vocab_size
            n_special = tokenizer.num_special_tokens_to_add(self.pairs_)
            self._may_refuse = self._has_idle or not n_special
            self._truncation = replace(head["truncation"], n_special=n_special)
            self._truncation.check()
            self._encoding = threading.Lock()
            self._session = onnxruntime.InferenceSession(
                contents[GRAPH], options, providers=list(providers)
            )
            self._inputs = {value.name for value in self._session.get_inputs()}
            _check_length(self.max_length_, self._session.get_modelmeta().custom_metadata_map)
            self._check_answer(self.outputs([a_document(self.pairs_)]))

    def _check_answer(self, outputs: dict[str, NDArray[Any]]) -> None:
        for name, value in outputs.items():
            if value.shape != (1, len(self.classes_)):
                raise ValueError(
                    f"{name} of {GRAPH} must have a column for each of the {len(self.classes_)} "
                    f"classes. Got shape {value.shape}."
                )

    def predict(self, X: Documents) -> NDArray[Any]:
        """Return the label of each document, or an indicator of its labels.

        Parameters
        ----------
        X : list, tuple, ndarray of shape (n,), (n, 1) or (n, 2), Series, DataFrame, pyarrow \
                array or table, datasets.Dataset or a column of one, or an iterator of such chunks
            One string per document, or a pair of strings, as in the fit.

        Returns
        -------
        ndarray of shape (n,) or (n, n_labels)
        """
        return concatenated([self.decide(part) for part in self._slices(X)])

    def predict_proba(self, X: Documents) -> NDArray[np.float64]:
        """Return the probabilities of the classes.

        Parameters
        ----------
        X : as in :meth:`predict`
            One string per document, or a pair of strings.

        Returns
        -------
        ndarray of shape (n, n_classes), float64
        """
        return concatenated([part["proba"] for part in self._slices(X)])

    def decision_function(self, X: Documents) -> NDArray[np.float64]:
        """Return log-probabilities; for two classes or labels, log-odds.

        Parameters
        ----------
        X : as in :meth:`predict`
            One string per document, or a pair of strings.

        Returns
        -------
        ndarray of shape (n, n_classes), or (n,) for two classes
        """
        scores: NDArray[np.float64] = concatenated([part["scores"] for part in self._slices(X)])
        if len(self.classes_) == 2 and not self._multilabel:
            log_odds: NDArray[np.float64] = scores[:, 1] - scores[:, 0]
            return log_odds
        return scores

    def outputs(self, X: Documents) -> dict[str, NDArray[Any]]:
        """Return all outputs of the graph by name, each of shape (n, n_classes).

        Parameters
        ----------
        X : as in :meth:`predict`
            One string per document, or a pair of strings.

        Returns
        -------
        dict of str -> ndarray
            "logits" in float32; "scores", "proba" and "decision_scores" in float64.
        """
        found = list(self._slices(X))
        return {name: concatenated([part[name] for part in found]) for name in OUTPUTS}

    def _slices(self, X: Documents) -> Iterator[dict[str, NDArray[Any]]]:
        """Yield the outputs for a part of the documents at a time."""
        return map(self._outputs, slices(X, self._checked_texts, _TEXTS_AT_ONCE))

    def _checked_texts(self, X: Documents) -> Any:
        texts = as_texts(X)
        check_kind(texts, self.pairs_)
        return texts

    def decide(self, outputs: dict[str, NDArray[Any]]) -> NDArray[Any]:
        """Return the labels that :meth:`predict` gives for documents with these outputs.

        With :meth:`outputs`, one call gives labels and probabilities.

        Parameters
        ----------
        outputs : dict
            Result of :meth:`outputs`.

        Returns
        -------
        ndarray of shape (n,) or (n, n_labels)
        """
        scores = outputs["decision_scores"]
        if self._multilabel:
            return (scores > 0).astype(np.int64)
        labels: NDArray[Any] = self.classes_[scores.argmax(axis=1)]
        return labels

    def _outputs(self, texts: Any) -> dict[str, NDArray[Any]]:
        ids = self._encoded(texts)
        lengths = np.array([len(row) for row in ids])
        order = np.argsort(-lengths, kind="stable")
        parts, start = [], 0
        while start < len(order):
            longest = max(lengths[order[start]], 1)
            rows = order[start : start + max(_TOKENS_AT_ONCE // longest, 1)]
            rows = rows[lengths[rows] >= _LENGTH_AT_LEAST * lengths[rows[0]]]
            parts.append(self._run([ids[row] for row in rows]))
            start += len(rows)
        back = np.argsort(order, kind="stable")
        return {
            name: np.concatenate([part[i] for part in parts])[back]
            for i, name in enumerate(OUTPUTS)
        }

    def _check_tokens(self, texts: Any) -> None:
        """Raise ValueError if a text has no token, or one that the encoder has no embedding for.

        A tokenizer that adds tokens of its own, and has none without embedding, needs no look.
        """
        if self._may_refuse:
            self._encoded(texts)

    def _encoded(self, texts: Any) -> list[NDArray[np.int32]]:
        """Return the token ids of each text; second texts have the complements of theirs."""
        with self._encoding:
            ids = [row for row, _ in encode(self._tokenizer, texts, self._truncation)]
        for i, row in enumerate(ids if self._has_idle else ()):
            if np.maximum(row, ~row).max() >= self._vocab_size:
                raise ValueError(
                    "X must not spell out special tokens that the encoder has no embedding for. "
                    f"Row {i} does: {excerpt(texts[i])}."
                )
        return ids

    def _run(self, documents: list[NDArray[np.int32]]) -> list[NDArray[Any]]:
        flat, starts, lengths = laid_out(documents)
        starts, lengths, counts = windows_of(starts, lengths, self._truncation.max_length)
        inputs = encoder_inputs(flat, starts, lengths, self._pad_id)
        inputs.setdefault("token_type_ids", np.zeros_like(inputs["input_ids"]))
        inputs["pieces"] = window_table(counts)
        fed = {name: inputs[name] for name in self._inputs}
        outputs: list[NDArray[Any]] = self._session.run(list(OUTPUTS), fed)
        return outputs


def _options(onnxruntime: Any, n_threads: int | None) -> Any:
    """Return the options of a session whose threads leave room for others on the machine."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors only, which are raised
    options.intra_op_num_threads = int(n_threads or said_threads() or _fewer_than_the_machine_has())
    # Threads that spin take the processor from others (docs/benchmarks/busy.md). torch's sleep,
    # too, unless this variable says otherwise.
    spins = os.environ.get("OMP_WAIT_POLICY", "").upper() == "ACTIVE"
    options.add_session_config_entry("session.intra_op.allow_spinning", str(int(spins)))
    return options


def _fewer_than_the_machine_has() -> int:
    """Return the number of processors if not all are available, else 0: onnxruntime counts."""
    n = available_processors()
    return n if n < (os.cpu_count() or 1) else 0


# -- reading -------------------------------------------------------------------------------


def _read_head(folder: Path) -> dict[str, Any]:
    head: dict[str, Any] = files.as_json(files.read_bytes(folder, HEAD, _LIMITS[HEAD]), HEAD)
    version = check_head(head, HEAD, FORMAT, FORMAT_VERSION)
    for name, most in (("max_length", 2**20), ("vocab_size", 2**24), ("pad_id", 2**24)):
        if type(head[name]) is not int or not 0 <= head[name] < most:
            raise ValueError(f"{name} in {HEAD} must be a count. Got {head[name]!r:.60}.")
    if head["truncation_side"] not in ("left", "right") or type(head["multilabel"]) is not bool:
        got = {name: head[name] for name in ("truncation_side", "multilabel")}
        raise ValueError(
            f"{HEAD} must have a truncation_side of 'left' or 'right', and a multilabel of true or "
            f"false. Got {got!r:.120}."
        )
    head["pairs"], head["truncation"] = _read_truncation(head, version)
    classes = head["classes"]
    if not isinstance(classes, list) or not all(isinstance(c, str | int | float) for c in classes):
        raise ValueError(f"classes in {HEAD} must be labels. Got {classes!r:.60}.")
    return head


def _read_truncation(head: dict[str, Any], version: int) -> tuple[bool, TruncationSpec]:
    """Return whether documents are pairs of texts, and how they become token ids."""
    pairs: bool = False
    settings: dict[str, Any] = {}
    if version > 1:
        most = "max_windows" if version > 2 else "max_chunks"
        names = "long_documents", "stride", most, "marks_second"
        pairs, settings = head["pairs"], {name: head[name] for name in names}
    if version == 2:
        settings = renewed_cutting(settings)
    if type(pairs) is not bool:
        raise ValueError(f"pairs in {HEAD} must be true or false. Got {pairs!r:.60}.")
    side = head["truncation_side"]
    truncation: TruncationSpec = checked_truncation(head["max_length"], side=side, **settings)
    return pairs, truncation


def _check_length(max_length: int, metadata: dict[str, str]) -> None:
    """Refuse more tokens than the graph has positions, which it says if it is new enough."""
    limit = metadata.get(LIMIT, "")
    if limit.isdecimal() and max_length > int(limit):
        raise ValueError(
            f"max_length in {HEAD} must be at most {limit}, the limit of the encoder in {GRAPH}. "
            f"Got {max_length}."
        )


def _dtype(name: Any) -> str:
    if not re.fullmatch(r"U|[<>|=]?(O|b1|[iu][1248]|f[248])", str(name)):
        raise ValueError(f"dtype in {HEAD} must be one that labels can have. Got {name!r:.60}.")
    return "O" if str(name).endswith("O") else str(name)


def _checked(folder: Path, name: str, head: dict[str, Any]) -> bytes:
    """Return a file's content if it is the exported one; others can crash onnxruntime."""
    content: bytes = files.read_bytes(folder, name, _LIMITS[name])
    expected = head["sha256"][name]
    found = files.sha256_of_bytes(content)
    if found != expected:
        raise ValueError(
            f"{name} must be the file that was exported. Got a different one: its SHA-256 is "
            f"{found}, not {expected!r:.80}."
        )
    return content


def _checked_tokenizer(tokenizer: Any, head: dict[str, Any]) -> Any:
    # A special token without a role may have no embedding: a text that spells it is refused.
    idle = {i for i, token in tokenizer.get_added_tokens_decoder().items() if token.special}
    ids = [*({*tokenizer.get_vocab().values()} - idle), head["pad_id"]]
    if max(ids) >= head["vocab_size"]:
        raise ValueError(
            f"{TOKENIZER} must have ids below {head['vocab_size']}, the number of embeddings in "
            f"the graph. Got {max(ids)}."
        )
    return tokenizer
