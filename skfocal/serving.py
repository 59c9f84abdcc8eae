"""Predictions of an exported classifier, by numpy, onnxruntime and tokenizers alone."""

import importlib
import re
from pathlib import Path
from typing import Any

import numpy as np

from skfocal import _files
from skfocal._excerpt import excerpt

FORMAT = "skfocal.onnx"
FORMAT_VERSION = 1
HEAD, GRAPH, TOKENIZER = "skfocal-onnx.json", "model.onnx", "tokenizer.json"
FILES = (HEAD, GRAPH, TOKENIZER)
OUTPUTS = ("logits", "scores", "proba", "decision_scores")

_LIMITS = {HEAD: 2**24, GRAPH: 2**31, TOKENIZER: 2**28}
_TOKENS_AT_ONCE = 1024  # of a batch, with padding
_TEXTS_AT_ONCE = 8192  # tokenised and sorted together: what a tokenizer gives takes much memory


class OnnxClassifier:
    """A classifier that :meth:`skfocal.BertFocalClassifier.to_onnx` wrote.

    It answers as the estimator did when it was exported, with its `proba`, `temperature` and
    `decision`, and imports neither torch nor transformers nor scikit-learn.

    Parameters
    ----------
    folder : str or path
        What ``to_onnx`` wrote.
    providers : sequence of str, default=("CPUExecutionProvider",)
        What onnxruntime computes with.
    n_threads : int, default=None
        Threads on a CPU; None: as many as there are cores.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        Labels.
    max_length_ : int
        Tokens kept of a document.

    Raises
    ------
    ValueError
        If a file is not as ``to_onnx`` wrote it, or is of a newer format.
    OSError
        If a file is missing or cannot be read.
    ImportError
        If onnxruntime or tokenizers are not installed.
    """

    def __init__(
        self,
        folder: Any,
        *,
        providers: Any = ("CPUExecutionProvider",),
        n_threads: int | None = None,
    ) -> None:
        tokenizers, onnxruntime = (_import(name) for name in ("tokenizers", "onnxruntime"))
        folder = Path(folder).expanduser()
        with _files.refusing(folder, "to_onnx"):
            head = _read_head(folder)
            contents = {name: _checked(folder, name, head) for name in (GRAPH, TOKENIZER)}
            self.classes_ = np.array(head["classes"], dtype=_dtype(head["dtype"]))
            self.max_length_ = head["max_length"]
            self._multilabel = head["multilabel"]
            self._pad_id = head["pad_id"]
            tokenizer = tokenizers.Tokenizer.from_str(contents[TOKENIZER].decode())
            self._tokenizer = _checked_tokenizer(tokenizer, head)
            options = onnxruntime.SessionOptions()
            options.log_severity_level = 3  # errors are raised
            options.intra_op_num_threads = n_threads or 0
            self._session = onnxruntime.InferenceSession(
                contents[GRAPH], options, providers=list(providers)
            )
            self._check_answer(self.outputs(["A document, to try it."]))

    def _check_answer(self, outputs):
        for name, value in outputs.items():
            if value.shape != (1, len(self.classes_)):
                raise ValueError(f"{name} of {GRAPH} must have a column for each class.")

    def predict(self, X: Any) -> np.ndarray:
        """Return the label of each document, or an indicator of its labels.

        Parameters
        ----------
        X : list, tuple, ndarray of shape (n,) or (n, 1), or Series
            One str a document.

        Returns
        -------
        ndarray of shape (n,) or (n, n_labels)
        """
        scores = self.outputs(X)["decision_scores"]
        if self._multilabel:
            return (scores > 0).astype(np.int64)
        return self.classes_[scores.argmax(axis=1)]

    def predict_proba(self, X: Any) -> np.ndarray:
        """Return the probabilities.

        Parameters
        ----------
        X : as in :meth:`predict`
            One str a document.

        Returns
        -------
        ndarray of shape (n, n_classes), float64
        """
        return self.outputs(X)["proba"]

    def decision_function(self, X: Any) -> np.ndarray:
        """Return log-probabilities; for two classes and for labels log-odds.

        Parameters
        ----------
        X : as in :meth:`predict`
            One str a document.

        Returns
        -------
        ndarray of shape (n, n_classes), or (n,) for two classes
        """
        scores = self.outputs(X)["scores"]
        if len(self.classes_) == 2 and not self._multilabel:
            return scores[:, 1] - scores[:, 0]
        return scores

    def outputs(self, X: Any) -> dict:
        """Return all outputs of the graph by name, each of shape (n, n_classes).

        Parameters
        ----------
        X : as in :meth:`predict`
            One str a document.

        Returns
        -------
        dict of str -> ndarray
            "logits" in float32; "scores", "proba" and "decision_scores" in float64.
        """
        texts = _texts(X)
        starts = range(0, len(texts), _TEXTS_AT_ONCE)
        parts = [self._outputs(texts[start : start + _TEXTS_AT_ONCE]) for start in starts]
        return {name: np.concatenate([part[name] for part in parts]) for name in OUTPUTS}

    def _outputs(self, texts):
        ids = [encoding.ids for encoding in self._tokenizer.encode_batch(texts)]
        lengths = np.array([len(row) for row in ids])
        order = np.argsort(-lengths, kind="stable")
        parts, start = [], 0
        while start < len(order):
            rows = order[start : start + max(_TOKENS_AT_ONCE // max(lengths[order[start]], 1), 1)]
            parts.append(self._run([ids[row] for row in rows]))
            start += len(rows)
        back = np.argsort(order, kind="stable")
        return {
            name: np.concatenate([part[i] for part in parts])[back]
            for i, name in enumerate(OUTPUTS)
        }

    def _run(self, rows):
        width = max(len(row) for row in rows)
        input_ids = np.full((len(rows), width), self._pad_id, np.int64)
        mask = np.zeros((len(rows), width), np.int64)
        for i, row in enumerate(rows):
            input_ids[i, : len(row)], mask[i, : len(row)] = row, 1
        return self._session.run(list(OUTPUTS), {"input_ids": input_ids, "attention_mask": mask})


def _texts(X):
    """Return a list of str without lone surrogates, which no tokenizer takes."""
    rows = X
    if not isinstance(X, str | list | tuple):
        array = np.asarray(X, dtype=object)
        if array.ndim not in (1, 2) or array.shape[1:] not in ((), (1,)):
            raise ValueError(f"X must have one column, the text. Got shape {array.shape}.")
        rows = array.ravel().tolist()
    if isinstance(X, str) or len(rows) == 0:
        raise ValueError(f"X must be a list of str, one a document. Got {excerpt(X)}.")
    for i, row in enumerate(rows):
        if not isinstance(row, str):
            raise TypeError(f"X must hold str only. Got {type(row).__name__} in row {i}.")
    return [row.encode("utf-16", "surrogatepass").decode("utf-16", "replace") for row in rows]


# -- reading -------------------------------------------------------------------------------


def _read_head(folder):
    head = _files.as_json(_files.read_bytes(folder, HEAD, _LIMITS[HEAD]), HEAD)
    if head.get("format") != FORMAT:
        raise ValueError(f"{HEAD} must have format {FORMAT!r}. Got {head.get('format')!r:.60}.")
    version = head.get("format_version")
    if type(version) is not int or not 1 <= version <= FORMAT_VERSION:
        raise ValueError(
            f"{HEAD} has format_version {version!r:.60}, and this skfocal reads 1 to "
            f"{FORMAT_VERSION}: a newer one may read it."
        )
    for name, most in (("max_length", 2**20), ("vocab_size", 2**24), ("pad_id", 2**24)):
        if type(head[name]) is not int or not 0 <= head[name] < most:
            raise ValueError(f"{name} in {HEAD} must be a count. Got {head[name]!r:.60}.")
    if head["truncation_side"] not in ("left", "right") or type(head["multilabel"]) is not bool:
        raise ValueError(f"{HEAD} must have a truncation_side and say if it is multilabel.")
    classes = head["classes"]
    if not isinstance(classes, list) or not all(isinstance(c, str | int | float) for c in classes):
        raise ValueError(f"classes in {HEAD} must be labels. Got {classes!r:.60}.")
    return head


def _dtype(name):
    if not re.fullmatch(r"U|[<>|=]?(O|b1|[iu][1248]|f[248])", str(name)):
        raise ValueError(f"dtype in {HEAD} must be one of labels. Got {name!r:.60}.")
    return "O" if name.endswith("O") else name


def _checked(folder, name, head):
    """Return a file's content if it is what was exported: onnxruntime ends at some others."""
    content = _files.read_bytes(folder, name, _LIMITS[name])
    expected = head["sha256"][name]
    found = _files.digest(content)
    if found != expected:
        raise ValueError(
            f"{name} must be the file that was exported. Got another: its SHA-256 is {found}, not "
            f"{expected!r:.80}."
        )
    return content


def _checked_tokenizer(tokenizer, head):
    ids = [*tokenizer.get_vocab().values(), head["pad_id"]]
    if max(ids) >= head["vocab_size"]:
        raise ValueError(
            f"{TOKENIZER} must have ids below {head['vocab_size']}, the embeddings of the graph. "
            f"Got {max(ids)}."
        )
    tokenizer.no_padding()
    tokenizer.enable_truncation(head["max_length"], direction=head["truncation_side"])
    return tokenizer


def _import(name):
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ImportError(f"OnnxClassifier needs {name}: pip install skfocal[onnx]") from error
