"""The layout of sentence-transformers, for an encoder whose tokens are pooled.

transformers has no class for such a head. Where it found a config.json it would draw a head of its
own instead, with no more than a warning: so the folder has none at its top.
"""

import json
from typing import Any

from skfocal._encoder.model_files import POOLING_MODES, POOLINGS

WEIGHTS = "model.safetensors"
ENCODER, _POOLING, _NORM, _HEAD = "encoder", "1_Pooling", "2_LayerNorm", "3_Dense"
# Each file of weights, with what its names begin with there and in our module.
_BEGINNINGS = {
    f"{ENCODER}/{WEIGHTS}": ("", "encoder."),
    f"{_NORM}/{WEIGHTS}": ("norm.", "norm."),
    f"{_HEAD}/{WEIGHTS}": ("linear.", "classifier."),
}
WEIGHT_FILES = [*_BEGINNINGS]
OTHERS = [
    "modules.json",
    f"{ENCODER}/sentence_bert_config.json",
    f"{_POOLING}/config.json",
    f"{_NORM}/config.json",
    f"{_HEAD}/config.json",
]


def settings_files(
    pooling: str, n_classes: int, width: int, max_length: int, has_bias: bool
) -> dict[str, str]:
    """Return the contents of the files in `OTHERS`.

    Parameters
    ----------
    pooling : {"mean", "first", "last"}
    n_classes, width : int
        Outputs and inputs of the linear layer.
    max_length : int
        Number of tokens that are read.
    has_bias : bool
        Whether the linear layer adds one.
    """
    kinds = {"": "Transformer", _POOLING: "Pooling", _NORM: "LayerNorm", _HEAD: "Dense"}
    modules = [
        {
            "idx": i,
            "name": str(i),
            "path": path or ENCODER,
            "type": f"sentence_transformers.models.{kind}",
        }
        for i, (path, kind) in enumerate(kinds.items())
    ]
    pooled = {name: POOLINGS.get(way) == pooling for name, way in POOLING_MODES.items()}
    dense = {
        "in_features": width,
        "out_features": n_classes,
        "bias": has_bias,
        "activation_function": "torch.nn.modules.linear.Identity",
    }
    contents = (
        modules,
        {"max_seq_length": max_length},
        {"word_embedding_dimension": width, **pooled},
        {"dimension": width},
        dense,
    )
    return {
        name: json.dumps(content, indent=2) for name, content in zip(OTHERS, contents, strict=True)
    }


def split_weights(weights: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the weights of each file by their names there."""
    files: dict[str, dict[str, Any]] = {}
    for file, (theirs, ours) in _BEGINNINGS.items():
        mine = {name: value for name, value in weights.items() if name.startswith(ours)}
        files[file] = {theirs + name.removeprefix(ours): value for name, value in mine.items()}
    return files


def our_name(file: str, name: str) -> str:
    """Return the name in our module of a weight of a file.

    Raises
    ------
    ValueError
        If such a file has no such weight.
    """
    theirs, ours = _BEGINNINGS[file]
    if not name.startswith(theirs):
        raise ValueError(f"{file} must hold weights named {theirs}... Got {name!r:.60}.")
    return ours + name.removeprefix(theirs)
