"""Export of a fitted estimator to an ONNX graph of logits, probabilities and decisions."""

import contextlib
import copy
import json
import logging
import os
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from skfocal._data.tokenization import TruncationSpec
from skfocal._encoder.pooling import pool
from skfocal._encoder.structure import length_limit, needs_equal_lengths
from skfocal._runtime.warnings import warn
from skfocal._storage import encoder_checks, tokenizer_files
from skfocal._storage.format_head import format_head
from skfocal._utils import files as _files
from skfocal._utils.messages import excerpt
from skfocal._utils.optional import import_optional
from skfocal.serving._format import (
    FILES,
    FORMAT,
    FORMAT_VERSION,
    GRAPH,
    HEAD,
    LIMIT,
    OUTPUTS,
    TOKENIZER,
)

_MOST_BYTES = 2**31 - 2**26  # of weights: protobuf has 2 GiB for them and the graph
_PACKAGES = ("torch", "transformers", "tokenizers", "onnx", "onnxscript")


class _Graph(nn.Module):
    """From token ids to all outputs of a served model."""

    def __init__(self, module: nn.Module, pooling: str, calibration: Any) -> None:
        super().__init__()
        self.module = module
        self.pooling = pooling
        self.loss = calibration.loss  # its buffers belong to the graph
        self.calibration = calibration

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor,
        token_type_ids: Tensor | None = None,
        pieces: Tensor | None = None,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return logits, scores, probabilities and the scores that decide."""
        logits = self.module(input_ids, attention_mask, token_type_ids).float()
        logits = logits if pieces is None else pool(logits, pieces, self.pooling)
        # In float64, like predict_proba: the inverse of a focal loss needs the digits.
        scores, decision_scores = self.calibration.scores(logits.double())
        proba = torch.sigmoid(scores) if self.calibration.multilabel else scores.exp()
        return logits, scores, proba, decision_scores


def export(estimator: Any, model: Any, folder: str | os.PathLike[str]) -> None:
    """Write an estimator's graph; see :meth:`skfocal.BertFocalClassifier.to_onnx`.

    Parameters
    ----------
    estimator : BertFocalClassifier
        Fitted.
    model : skfocal._estimator.fitted_model.FittedModel
        How its documents become tokens and its logits become answers.
    folder : str or path
    """
    encoder_checks.check_vocabulary(estimator.net_.plain_module().model, estimator.tokenizer_)
    with estimator.net_.module_at_rest() as module:
        module = copy.deepcopy(module).cpu().eval()
    _check_size(module)
    if needs_equal_lengths(module.model):
        raise ValueError(
            f"A graph computes padded batches, and padding changes the answers of "
            f"{type(module.model).__name__}. Serve the pickle."
        )
    if model.truncation.long_documents == "windows" and model.truncation.max_windows is None:
        warn(
            "long_documents=Windows(max_windows=None): a call of the graph computes all windows of "
            "a document at once, in memory that grows with its length. Fit with max_windows, or "
            "limit the length of the texts."
        )
    calibration = copy.deepcopy(model.calibration)
    calibration.loss.cpu()
    tokenizer = tokenizer_files.tokenizer_to_plain(estimator.tokenizer_)[TOKENIZER]
    truncation = model.truncation
    graph = _Graph(module, estimator.net_.pooling, calibration).eval()
    with _files.users_folder(folder, HEAD, FILES) as work:
        try:
            limit = length_limit(module.model, estimator.tokenizer_)
            _write_graph(graph, _example(truncation), limit, work / GRAPH)
        except torch.onnx.OnnxExporterError as error:
            raise ValueError(
                f"{type(module.model).__name__} has computations that torch cannot write as a "
                f"graph of any length. Serve the pickle. torch said: {excerpt(str(error), 200)}"
            ) from error
        (work / TOKENIZER).write_bytes(tokenizer)
        sums = {name: _files.sha256_of_file(work / name) for name in (GRAPH, TOKENIZER)}
        head = _head(estimator, truncation, sums)
        (work / HEAD).write_text(json.dumps(head, indent=1), encoding="utf-8")


def _check_size(module: nn.Module) -> None:
    """Raise ValueError if the weights do not fit into one file."""
    tensors = {id(value): value for value in [*module.parameters(), *module.buffers()]}
    n_bytes = sum(value.nbytes for value in tensors.values())
    if n_bytes > _MOST_BYTES:
        raise ValueError(
            f"The encoder has weights of {n_bytes / 1e9:.2f} GB. An ONNX file holds at most "
            f"{_MOST_BYTES / 1e9:.2f} GB of them. Serve the pickle."
        )


def _head(estimator: Any, truncation: TruncationSpec, sums: dict[str, str]) -> dict[str, Any]:
    classes, encoder = estimator.classes_, estimator.net_.plain_module().model
    return {
        **format_head(FORMAT, FORMAT_VERSION, _PACKAGES),
        "sha256": sums,
        "classes": classes.tolist(),
        "dtype": "U" if classes.dtype.kind == "U" else classes.dtype.str,
        "multilabel": estimator.multilabel_,
        "max_length": int(truncation.max_length),
        "truncation_side": truncation.side,
        "long_documents": truncation.long_documents,
        "stride": truncation.stride,
        "max_windows": truncation.max_windows,
        "pairs": estimator._pairs,
        "marks_second": truncation.marks_second,
        "pad_id": int(estimator.tokenizer_.pad_token_id),
        "vocab_size": int(encoder.get_input_embeddings().num_embeddings),
        "proba": estimator.proba_,
        "temperature": estimator.temperature_,
        "decision": estimator.decision,
    }


def _example(truncation: TruncationSpec) -> tuple[dict[str, Tensor], dict[str, dict[int, str]]]:
    """Return example inputs of the graph, and the names of their dynamic dimensions."""
    tokens = torch.ones((3, 7), dtype=torch.int64)
    mask = tokens.clone()
    mask[1, 4:] = 0
    inputs = {"input_ids": tokens, "attention_mask": mask}
    if truncation.marks_second:
        inputs["token_type_ids"] = 1 - mask
    sizes = dict.fromkeys(inputs, {0: "batch", 1: "length"})
    if truncation.long_documents == "windows":
        inputs["pieces"] = torch.tensor([[0, 1], [2, -1]])
        sizes["pieces"] = {0: "documents", 1: "most_pieces"}
    return inputs, sizes


def _write_graph(
    graph: nn.Module,
    example: tuple[dict[str, Tensor], dict[str, dict[int, str]]],
    limit: int,
    path: Path,
) -> None:
    inputs, sizes = example
    with _quiet(), torch.no_grad():
        program: Any = torch.onnx.export(
            graph,
            kwargs=inputs,
            dynamo=True,
            input_names=list(inputs),
            output_names=list(OUTPUTS),
            dynamic_shapes=sizes,
            custom_translation_table=_translations(),
            verbose=False,
        )
    _forget_sources(program.model)
    program.model.metadata_props[LIMIT] = str(limit)
    # program.save would write large weights into a file of their own, which nothing reads.
    import_optional("onnxscript", "to_onnx", "onnx").ir.save(program.model, path)


def _forget_sources(model: Any) -> None:
    """Remove the source locations of the nodes, which name files of this machine."""
    graph = model.graph
    for part in [model, graph, *graph, *graph.inputs, *graph.outputs, *graph.initializers.values()]:
        part.metadata_props.clear()
        part.doc_string = None
    for node in graph:
        for value in node.outputs:
            value.metadata_props.clear()


def _translations() -> dict[Any, Callable[..., Any]]:
    """Return translations of operations for which the exporter's own lose digits."""
    op = import_optional("onnxscript", "to_onnx", "onnx").opset18

    def log1p(x: Any) -> Any:
        # Exact where 1 + x is rounded: the error of the sum is divided out again (Goldberg 1991).
        one = op.CastLike(op.Constant(value_float=1.0), x)
        above = op.Add(one, x)
        error = op.Sub(above, one)
        is_lost = op.Equal(error, op.CastLike(op.Constant(value_float=0.0), x))
        safe = op.Where(is_lost, one, error)
        return op.Where(is_lost, x, op.Mul(op.Log(above), op.Div(x, safe)))

    def log_sigmoid(x: Any) -> Any:
        zero = op.CastLike(op.Constant(value_float=0.0), x)
        return op.Sub(op.Min(x, zero), log1p(op.Exp(op.Neg(op.Abs(x)))))

    aten = torch.ops.aten
    return {aten.log_sigmoid.default: log_sigmoid, aten.log1p.default: log1p}


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Hide the exporter's notes on packages that it does not need."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
