"""Fitted estimators in folders that transformers can read, too.

Such a folder holds only JSON and safetensors. Reading it runs no code, looks up no class or
function by a name in the folder and opens no file elsewhere. Everything is checked before any
object of a size given in a file is built. Invalid files raise ValueError; files that are missing
or cannot be read raise OSError.
"""

import json
import os
import tempfile
from collections.abc import Callable, Mapping
from numbers import Real
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import safetensors.torch
import torch
from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_is_fitted
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES,
    MODEL_MAPPING_NAMES,
)

from skfocal._data.texts import a_document
from skfocal._encoder.pooled import pooling_of
from skfocal._encoder.structure import length_limit
from skfocal._estimator import parameters
from skfocal._estimator.fitted_model import present_truncation
from skfocal._runtime.process_group import alone
from skfocal._runtime.processors import available_processors
from skfocal._runtime.warnings import warn
from skfocal._storage import attribute_checks, encoder_checks, portable, tokenizer_files
from skfocal._storage.encoder_state import unshared
from skfocal._storage.format_head import check_head, format_head
from skfocal._storage.model_card import model_card
from skfocal._storage.plain_data import is_plain, join, split
from skfocal._storage.renamed import renewed, renewed_cutting
from skfocal._utils import files as _files
from skfocal.losses._state import forgotten, loss_from_plain, loss_to_plain

FORMAT = "skfocal.BertFocalClassifier"
FORMAT_VERSION = 4  # 3: no pooling; 2: other parameter names; 1: neither pairs nor windows

_Estimator = TypeVar("_Estimator", bound=BaseEstimator)
_Folder = str | os.PathLike[str]

_STATE, _ARRAYS, _MOMENTS = "skfocal.json", "skfocal.safetensors", "moments.safetensors"
_CONFIG, _WEIGHTS = "config.json", "model.safetensors"
_ANY = 2**62
_LIMITS = {  # bytes
    _STATE: 2**26,
    _ARRAYS: 2**26,
    _MOMENTS: _ANY,
    _CONFIG: 2**22,
    _WEIGHTS: _ANY,
    "tokenizer.json": 2**28,
    "tokenizer_config.json": 2**20,
}
# Of an encoder with pooled tokens some lie elsewhere, and there are others beside them.
_OF_ENCODER = (_CONFIG, *tokenizer_files.FILES)
_LIMITS |= {f"{portable.ENCODER}/{name}": _LIMITS[name] for name in _OF_ENCODER}
_LIMITS |= dict.fromkeys(portable.WEIGHT_FILES, _ANY)
_LIMITS |= dict.fromkeys(portable.OTHERS, 2**20)
_FILES = {*_LIMITS, "README.md"}
_PACKAGES = ("numpy", "scikit-learn", "skorch", "torch", "transformers", "tokenizers")
# They belong to a machine, grant trust or configure another package: a folder from elsewhere must
# not set them.
_NOT_RESTORED = {"checkpoint", "net_params", "peft", "trust_remote_code"}
_PARTS = ("params", "attributes", "encoder", "history", "moments")
_HISTORY_ROWS = 100_000  # with more batches than this, only the epochs are stored


# -- saving --------------------------------------------------------------------------------


def check_folder(folder: _Folder) -> None:
    """Raise the error that :func:`save` would raise, before a long training.

    Parameters
    ----------
    folder : str or path

    Raises
    ------
    FileExistsError
        If the folder holds files that :func:`save` did not write.
    OSError
        If no folder can be created there.
    """
    target = _files.check_replaceable(folder, _STATE, _FILES)
    parent = next(parent for parent in target.parents if parent.is_dir())
    with tempfile.TemporaryDirectory(dir=parent):
        pass  # some folders exist but nothing can be created in them


def save(estimator: Any, folder: _Folder, metrics: Mapping[str, float] | None = None) -> None:
    """Write a fitted estimator; see :meth:`skfocal.BertFocalClassifier.save_pretrained`.

    Parameters
    ----------
    estimator : BertFocalClassifier
    folder : str or path
    metrics : dict, default=None
        As in the method.
    """
    check_is_fitted(estimator)
    _check_metrics(metrics)
    encoder_checks.check_vocabulary(estimator.net_.plain_module().model, estimator.tokenizer_)
    state = estimator.__getstate__()
    plain = state.pop("_plain")
    params, left_out = _stored_params(estimator, state)
    if "_chunks" in state:  # new adapters continue from the merged weights
        state["_chunks"].pop("adapters")
    state["loss_"] = _stored_loss(estimator, state["loss_"])
    if plain["cosine_scale"] is not None:
        warn(
            f"loss={estimator.loss!r} has a cosine head, which transformers does not know: "
            "from_pretrained reads the folder, but transformers.pipeline gives other scores."
        )
    config = _stored_config(plain["config"], state)
    weights = {name.removeprefix("model."): v for name, v in plain["weights"].items()}
    sizes = {name: value.shape for name, value in weights.items()}
    # Nothing is written that could not be read again.
    encoder_checks.check_encoder(config, sizes, len(estimator.classes_), plain["cosine_scale"])
    tokenizer, limit = _with_limit(plain["tokenizer"], estimator.max_length_)
    kind, own = type(estimator), estimator.get_params(deep=False)
    of_fit = [n for n in state if n not in own and attribute_checks.is_stored(kind, n)]
    parts = {
        "params": params,
        "attributes": {name: state[name] for name in of_fit},
        "encoder": {
            "cosine_scale": plain["cosine_scale"],
            "dropouts": plain["dropouts"],
            "model_max_length": limit,
        },
        "history": _stored_history(plain["history"]),
        "moments": _stored_moments(estimator, plain["moments"]),
    }
    texts = {_CONFIG: json.dumps(config, indent=2).encode(), **tokenizer}
    with _files.users_folder(folder, _STATE, _FILES) as work:
        tensors = {k: torch.from_numpy(v) for k, v in weights.items()}
        _write_encoder(work, texts, tensors, estimator)
        card = model_card(estimator, left_out, metrics)
        (work / "README.md").write_text(card, encoding="utf-8")
        _write_state(work, parts, left_out)


def _write_encoder(
    work: Path, texts: dict[str, bytes], weights: dict[str, torch.Tensor], estimator: Any
) -> None:
    """Write the files that transformers reads or, for pooled tokens, sentence-transformers."""
    if estimator.pooling_ == "head":
        parts = {_WEIGHTS: weights}
    else:
        n_classes, width = weights["classifier.weight"].shape
        has_bias = "classifier.bias" in weights
        others = portable.settings_files(
            estimator.pooling_, n_classes, width, estimator.max_length_, has_bias
        )
        parts = portable.split_weights(weights)
        texts = {f"{portable.ENCODER}/{name}": content for name, content in texts.items()}
        texts |= {name: content.encode() for name, content in others.items()}
    for name in {*texts, *parts}:
        (work / name).parent.mkdir(exist_ok=True)
    for name, content in texts.items():
        (work / name).write_bytes(content)
    for name, tensors in parts.items():
        _write_tensors(work / name, tensors)


def _check_metrics(metrics: Any) -> None:
    metrics = {} if metrics is None else metrics
    if not isinstance(metrics, Mapping) or not all(
        isinstance(name, str) and isinstance(value, Real) for name, value in metrics.items()
    ):
        raise ValueError(f"metrics must be a dict of names and numbers. Got {metrics!r:.80}.")


def _stored_params(estimator: Any, state: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Return the parameters that are plain data, and the names of those that are not stored."""
    params: dict[str, Any] = {}
    left_out: list[str] = []
    signature = type(estimator)().get_params(deep=False)
    for name, value in estimator.get_params(deep=False).items():
        value = state.get(name, value)
        value = _plainer(name, value) if name != "classes" or value is None else np.asarray(value)
        if name not in _NOT_RESTORED and is_plain(value):
            params[name] = value
        elif value is not signature[name]:
            left_out.append(name)
    return params, left_out


def _plainer(name: str, value: Any) -> Any:
    """Return a path, a device, settings or a Series as equivalent plain data."""
    value = parameters.to_plain(name, value)
    if isinstance(value, os.PathLike | torch.device):
        return str(value)
    if hasattr(value, "to_dict") and hasattr(value, "index"):  # a Series: values by label
        return value.to_dict()
    if hasattr(value, "__array__") and not isinstance(value, np.ndarray | np.generic):
        return np.asarray(value)
    return value


def _stored_loss(estimator: Any, loss: Any) -> Any:
    """Return the loss as plain data, and a user's own loss without its code."""
    if isinstance(loss, dict):
        return loss
    if estimator.proba_ != "softmax" or estimator.decision == "prior":
        raise TypeError(
            f"loss_={type(loss).__name__} is code of your own, which no folder can hold, and "
            f"proba={estimator.proba_!r} with decision={estimator.decision!r} needs it. Set "
            "proba='softmax' before you save, or use pickle."
        )
    return loss_to_plain(forgotten(loss))


def _stored_moments(estimator: Any, moments: dict[str, Any]) -> dict[str, Any]:
    """Return AdamW's moments; those of another optimizer, of net_params, are left out with it."""
    return moments if type(estimator.net_.optimizer_) is torch.optim.AdamW else {}


def _with_limit(files: dict[str, bytes], max_length: int) -> tuple[dict[str, bytes], int]:
    """Return the tokenizer's files with `max_length` as their limit, and their former limit."""
    settings = json.loads(files["tokenizer_config.json"])
    limit, settings["model_max_length"] = settings["model_max_length"], int(max_length)
    return {**files, "tokenizer_config.json": json.dumps(settings, indent=2).encode()}, limit


def _stored_history(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    rows = [{name: value for name, value in row.items() if is_plain(value)} for row in rows]
    n_batches = sum(len(row.get("batches", ())) for row in rows)
    return rows if n_batches <= _HISTORY_ROWS else [{**row, "batches": []} for row in rows]


def _stored_config(text: str, state: dict[str, Any]) -> dict[str, Any]:
    """Return config.json as transformers and sentence-transformers expect it."""
    config = json.loads(text)
    if "auto_map" in config:
        raise ValueError(
            f"A folder holds no code, and model={state['_fitted_model']!r} brings its own. Use "
            "pickle or joblib."
        )
    several = state["class_weight_"].ndim == 2
    config["problem_type"] = f"{'multi' if several else 'single'}_label_classification"
    is_pooled = state["pooling_"] != "head"
    names = MODEL_MAPPING_NAMES if is_pooled else MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES
    config["architectures"] = [names[config["model_type"]]]
    config["dtype"] = "float32"
    return {name: value for name, value in config.items() if name[0] != "_"}


def _write_state(work: Path, parts: dict[str, Any], left_out: list[str]) -> None:
    stored: dict[str, Any] = {}
    tensors: dict[str, torch.Tensor] = {}
    for name, value in parts.items():
        stored[name], of_part = split(value, name)
        tensors |= of_part
    moments = {name: value for name, value in tensors.items() if name.startswith("moments.")}
    if moments:
        _write_tensors(work / _MOMENTS, moments)
    _write_tensors(work / _ARRAYS, {k: v for k, v in tensors.items() if k not in moments})
    found = {path.relative_to(work).as_posix(): path for path in sorted(work.rglob("*"))}
    written = {name: path for name, path in found.items() if name in _LIMITS}
    head = {
        **format_head(FORMAT, FORMAT_VERSION, _PACKAGES),
        "sha256": {name: _files.sha256_of_file(path) for name, path in written.items()},
        "left_out": left_out,
    }
    (work / _STATE).write_text(json.dumps({**head, **stored}, indent=1), encoding="utf-8")


def _write_tensors(path: Path, tensors: dict[str, torch.Tensor]) -> None:
    try:
        safetensors.torch.save_file(unshared(tensors), path, metadata={"format": "pt"})
    except safetensors.SafetensorError as error:
        raise OSError(f"{path.name} cannot be written: {error}") from error


# -- the hub -------------------------------------------------------------------------------


def push(
    estimator: Any,
    repo_id: str,
    *,
    metrics: Mapping[str, float] | None = None,
    private: bool | None = None,
    token: str | None = None,
    commit_message: str | None = None,
) -> str:
    """Upload an estimator; see :meth:`skfocal.BertFocalClassifier.push_to_hub`.

    Parameters
    ----------
    estimator : BertFocalClassifier
    repo_id : str
    metrics, private, token, commit_message : dict, bool, str and str, default=None
        As in the method.

    Returns
    -------
    str
        URL of the repository.
    """
    from huggingface_hub import HfApi

    with tempfile.TemporaryDirectory() as folder:
        save(estimator, Path(folder, "model"), metrics)
        api = HfApi(token=token)
        url = api.create_repo(repo_id, private=private, exist_ok=True)
        api.upload_folder(
            repo_id=url.repo_id,
            folder_path=Path(folder, "model"),
            commit_message=commit_message or "Upload a skfocal classifier",
            # An earlier upload may have had files that the new one has not, or another layout.
            delete_patterns=sorted(_LIMITS),
        )
    return str(url)


# -- loading -------------------------------------------------------------------------------


def load(kind: type[_Estimator], folder: _Folder) -> _Estimator:
    """Return the estimator in a folder as an instance of a class.

    See :meth:`skfocal.BertFocalClassifier.from_pretrained`.

    Parameters
    ----------
    kind : type
        `BertFocalClassifier` or a subclass.
    folder : str or path

    Returns
    -------
    estimator
    """
    path = Path(folder).expanduser()
    available_processors()  # raises for a mistake in the environment, which is not the folder's
    with _files.refusing(path, "save_pretrained"):
        head, stored, files = _read(path)
        if head["format_version"] < 3:
            _renew(stored, head["left_out"])
        estimator = _with_params(kind, stored["params"])
        attributes = stored["attributes"]
        attribute_checks.check_attributes(kind, attributes, estimator.get_params(deep=False))
        plain = _plain_of(files, stored, len(attributes["classes_"]))
        attribute_checks.check_moments(plain["moments"], plain["weights"])
        estimator.__setstate__({**estimator.get_params(deep=False), **attributes, "_plain": plain})
        _check_built(estimator)
    if head["left_out"]:
        warn(
            f"{head['left_out']} of the estimator in {str(path)!r} were not stored and have "
            "their defaults; predictions do not need them. Set them before another fit."
        )
    return estimator


def _read(folder: Path) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """Return the head of skfocal.json, its parts, and the contents of the other files."""
    state = _files.as_json(_files.read_bytes(folder, _STATE, _LIMITS[_STATE]), _STATE)
    head = _checked_head(state)
    for name, expected in head["sha256"].items():
        found = _files.sha256_of_file(_files.checked_path(folder, name, _LIMITS[name]))
        if found != expected:
            raise ValueError(
                f"{name} must be the file that was saved. Got a different one: its SHA-256 is "
                f"{found}, not {expected!r:.80}. If you changed it, take its line out of {_STATE}."
            )
    is_pooled = state.get("attributes", {}).get("pooling_", "head") != "head"
    inside = f"{portable.ENCODER}/" if is_pooled else ""
    files: dict[str, Any] = {
        name: _files.read_bytes(folder, inside + name, _LIMITS[name]) for name in _OF_ENCODER
    }
    files[_CONFIG] = _files.as_json(files[_CONFIG], _CONFIG)
    paths = {
        name: _files.checked_path(folder, name, _LIMITS[name])
        for name in (portable.WEIGHT_FILES if is_pooled else [_WEIGHTS])
    }
    files[_WEIGHTS] = paths
    tensors = safetensors.torch.load(_files.read_bytes(folder, _ARRAYS, _LIMITS[_ARRAYS]))
    if state.get("moments"):
        n_bytes = sum(path.stat().st_size for path in paths.values())
        limit = 8 * n_bytes + 2**20  # two to three numbers per weight
        tensors |= safetensors.torch.load_file(_files.checked_path(folder, _MOMENTS, limit))
    return head, {name: join(state.get(name, {}), tensors) for name in _PARTS}, files


def _checked_head(state: dict[str, Any]) -> dict[str, Any]:
    version = check_head(state, _STATE, FORMAT, FORMAT_VERSION)
    sums, left_out = state.get("sha256", {}), state.get("left_out", [])
    if not isinstance(sums, dict) or not set(sums) <= set(_LIMITS) - {_STATE}:
        raise ValueError(f"sha256 in {_STATE} must list only the other files. Got {sums!r:.80}.")
    if not isinstance(left_out, list) or not all(isinstance(name, str) for name in left_out):
        raise ValueError(f"left_out in {_STATE} must be a list of names. Got {left_out!r:.80}.")
    return {"format_version": version, "sha256": sums, "left_out": left_out}


def _renew(stored: dict[str, Any], left_out: list[str]) -> None:
    """Bring the parts of a folder of an older version up to date, in place."""
    if stored["params"].pop("compile", False):  # part of net_params now
        left_out.append("net_params")
    stored["params"] = renewed(stored["params"])
    attributes = stored["attributes"]
    if "_cutting" in attributes:
        attributes["_cutting"] = renewed_cutting(attributes["_cutting"])


def _with_params(kind: type[_Estimator], params: dict[str, Any]) -> _Estimator:
    """Return an unfitted estimator with the parameters, which must pass the checks of `fit`."""
    known = kind().get_params(deep=False)
    unknown = sorted(set(params) - set(known) | (set(params) & _NOT_RESTORED))
    if unknown:
        raise ValueError(
            f"{_STATE} must hold only parameters that this version stores. Got {unknown!r:.80}: "
            "was it saved by a newer skfocal?"
        )
    if isinstance(params.get("loss"), dict):
        params["loss"] = loss_from_plain(params["loss"])
    estimator: _Estimator = kind(
        **{n: parameters.from_plain(n, value) for n, value in params.items()}
    )
    parameters.validate(estimator)
    return estimator


def _plain_of(files: dict[str, Any], stored: dict[str, Any], n_classes: int) -> dict[str, Any]:
    """Return the plain data that `__setstate__` builds the net from; read the weights last."""
    settings = _files.as_json(files["tokenizer_config.json"], "tokenizer_config.json")
    encoder = stored["encoder"]
    settings["model_max_length"] = encoder["model_max_length"]
    scale = attribute_checks.number(encoder["cosine_scale"], "cosine_scale", optional=True)
    files["tokenizer_config.json"] = json.dumps(settings).encode()
    history = stored["history"] or []
    if not isinstance(history, list) or not all(isinstance(row, dict) for row in history):
        raise ValueError(f"history in {_STATE} must be a list of rows. Got {history!r:.80}.")
    sizes = _of_all(files[_WEIGHTS], encoder_checks.read_sizes)
    encoder_checks.check_encoder(files[_CONFIG], sizes, n_classes, scale)
    weights = _of_all(files[_WEIGHTS], encoder_checks.read_weights)
    return {
        "config": json.dumps(files[_CONFIG]),
        "weights": {f"model.{name}": value for name, value in weights.items()},
        "tokenizer": {name: files[name] for name in tokenizer_files.FILES},
        "cosine_scale": scale,
        "dropouts": attribute_checks.checked_dropouts(encoder["dropouts"]),
        "history": history,
        "moments": stored["moments"],
    }


def _of_all(paths: dict[str, Path], read: Callable[[Path], dict[str, Any]]) -> dict[str, Any]:
    """Return what a function reads from each file of weights, by our names."""
    if _WEIGHTS in paths:
        return read(paths[_WEIGHTS])
    return {
        portable.our_name(file, name): value
        for file, path in paths.items()
        for name, value in read(path).items()
    }


def _check_built(estimator: Any) -> None:
    """Refuse a vocabulary or length that does not fit the encoder, then predict once."""
    encoder = estimator.net_.plain_module().model
    if estimator.pooling_ != pooling_of(encoder):
        raise ValueError(
            f"pooling_ in {_STATE} must be {pooling_of(encoder)!r}, by config.json. "
            f"Got {estimator.pooling_!r:.60}."
        )
    encoder_checks.check_vocabulary(encoder, estimator.tokenizer_)
    limit = length_limit(encoder, estimator.tokenizer_)
    if estimator.max_length_ > limit:
        raise ValueError(
            f"max_length_ in {_STATE} must be at most {limit}, the limit of the encoder. "
            f"Got {estimator.max_length_}."
        )
    present_truncation(estimator).check()
    with alone():  # one of several processes may read a folder by itself
        estimator.predict([a_document(estimator._pairs)])
