"""The files of a pretrained model, in a folder or by its name on the hub."""

import json
import os
import pickle
import zipfile
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from huggingface_hub import constants, is_offline_mode
from huggingface_hub.file_download import repo_folder_name
from safetensors import SafetensorError
from safetensors.torch import load_file
from transformers.utils import cached_file

from skfocal._utils.messages import excerpt

SAFE, PICKLED = "model.safetensors", "pytorch_model.bin"
_INDEX = ".index.json"
_POINTER = b"version https://git-lfs"
# The settings of sentence-transformers, of old and new versions; several together are joined.
POOLINGS = {"mean": "mean", "cls": "first", "lasttoken": "last"}
POOLING_MODES = {
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_cls_token": "cls",
    "pooling_mode_lasttoken": "lasttoken",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
}


class ModelFileError(OSError):
    """A file of a model is missing or damaged; the message says which, and what to do."""


@dataclass(frozen=True)
class ModelFiles:
    """Where the files of a model lie.

    Attributes
    ----------
    name : str
        The parameter `model`.
    place : str
        The path of the folder, or the name on the hub.
    subfolder : str
        Of the encoder within `place`; sentence-transformers used to make one.
    max_seq_length : int or None
        Number of tokens that sentence-transformers read.
    pooling : {"mean", "first", "last"} or None
        How it pooled them.
    is_pooled_classifier : bool
        Whether it is a classifier that skfocal saved with a head on pooled tokens.
    """

    name: str
    place: str
    subfolder: str = ""
    max_seq_length: int | None = None
    pooling: str | None = None
    is_pooled_classifier: bool = False

    @property
    def is_folder(self):
        """Whether it is a folder, not a name on the hub."""
        return os.path.isdir(self.place)

    def find(self, name, revision=None):
        """Return the path of a file, downloaded if need be; None if the model has none."""
        return _find(self.place, os.path.join(self.subfolder, name), revision)

    def weights(self):
        """Return the paths of the weights: safetensors if there are any, else pickled tensors.

        Raises
        ------
        ModelFileError
            If there are neither.
        """
        for name in (SAFE, PICKLED):
            if path := self.find(name):
                return [path]
            if index := self.find(name + _INDEX):
                return [self._shard(part) for part in _shards(index)]
        # A conversion that an earlier program took from the hub, to be found offline.
        found = [(r, path) for r in self._pull_requests() if (path := self.find(SAFE, r))]
        if len(found) == 1:
            return [found[0][1]]
        if found:
            raise ModelFileError(
                f"its weights are in the cache only as {len(found)} pull requests, "
                f"{', '.join(revision for revision, _ in found)}, and nothing tells which to "
                "trust. Give the path of one, or unset HF_HUB_OFFLINE once."
            )
        raise ModelFileError(
            f"it has neither {SAFE} nor {PICKLED}, whole or in parts. Other formats of weights are "
            "not read."
        )

    def _shard(self, name):
        path = self.find(name)
        if path is None:
            raise ModelFileError(f"its index of weights names {name!r:.80}, which is not there.")
        return path

    def _pull_requests(self):
        """Return the pull requests of a name on the hub that the cache has."""
        if self.is_folder:
            return []
        name = repo_folder_name(repo_id=self.place, repo_type="model")
        folder = Path(constants.HF_HUB_CACHE, name, "refs", "refs", "pr")
        if not folder.is_dir():
            return []
        return [f"refs/pr/{file.name}" for file in sorted(folder.iterdir())]


def model_files(model):
    """Return the :class:`ModelFiles` of the parameter `model`.

    The layout of sentence-transformers is followed to the encoder.
    """
    place = os.path.expanduser(model)
    modules = _read_json(_find(place, "modules.json"))
    first = modules[0] if isinstance(modules, list) and modules else None
    if not isinstance(first, dict) or not str(first.get("type")).endswith(".Transformer"):
        return ModelFiles(str(model), place)
    subfolder = first.get("path") or ""
    files = ModelFiles(str(model), place, _checked_name(subfolder) if subfolder else "")
    settings = _read_json(files.find("sentence_bert_config.json"))
    length = settings.get("max_seq_length") if isinstance(settings, dict) else None
    pooling = _pooling(place, modules[1:])
    return replace(
        files,
        max_seq_length=length if type(length) is int and length > 0 else None,
        pooling=pooling,
        is_pooled_classifier=pooling is not None and _find(place, "skfocal.json") is not None,
    )


def _pooling(place, modules):
    """Return how sentence-transformers pools tokens, if it is one of our ways."""
    for module in modules:
        if isinstance(module, dict) and str(module.get("type")).endswith(".Pooling"):
            return _pooling_of(place, module.get("path"))
    return None


def _pooling_of(place, folder):
    try:
        settings = _read_json(_find(place, os.path.join(_checked_name(folder), "config.json")))
    except ModelFileError:  # nobody has to use it
        return None
    if not isinstance(settings, dict):
        return None
    old = [way for name, way in POOLING_MODES.items() if settings.get(name) is True]
    ways = settings.get("pooling_mode", old)
    ways = ways if isinstance(ways, list) else [ways]
    return POOLINGS.get(ways[0]) if len(ways) == 1 and isinstance(ways[0], str) else None


def _find(place, name, revision=None):
    if os.path.isdir(place):
        path = os.path.join(place, name)
        return path if os.path.isfile(path) else None
    return cached_file(
        place,
        name,
        revision=revision,
        _raise_exceptions_for_missing_entries=False,
        _raise_exceptions_for_connection_errors=not is_offline_mode(),
    )


def _read_json(path):
    if path is None:
        return None
    try:
        return json.loads(Path(path).read_bytes())
    except ValueError as error:  # a number, or text that is none
        raise ModelFileError(f"{path} must be a JSON file: {_state_of(path, error)}") from error


def _shards(index):
    """Return the names of the files that an index of weights lists."""
    parts = _read_json(index)
    parts = parts.get("weight_map") if isinstance(parts, dict) else None
    if not isinstance(parts, dict) or not parts:
        raise ModelFileError(f"{index} must have a weight_map. Got {excerpt(parts)}.")
    return sorted({_checked_name(part) for part in parts.values()})


def _checked_name(name):
    """Return the name of a file or folder that lies within the model's, or raise an error."""
    if not isinstance(name, str) or os.path.basename(name) != name or name in ("", ".."):
        raise ModelFileError(
            f"a model's files must lie in its folder. Got the name {excerpt(name)}."
        )
    return name


# -- tensors -------------------------------------------------------------------------------


def read_tensors(paths):
    """Return the tensors of all files, by name.

    Pickled files go through torch's restricted unpickler, which builds tensors and plain
    containers and runs nothing else.

    Raises
    ------
    ModelFileError
        If a file is empty, incomplete, a pointer to another, or holds more than tensors.
    """
    tensors: dict[str, torch.Tensor] = {}
    for path in paths:
        tensors |= _read_safe(path) if path.endswith(".safetensors") else _read_pickled(path)
    return tensors


def _read_safe(path):
    try:
        return load_file(path)
    except SafetensorError as error:
        raise ModelFileError(f"{path} cannot be read: {_state_of(path, error)}") from error


def _read_pickled(path):
    is_zip = zipfile.is_zipfile(path)
    try:
        tensors = torch.load(path, map_location="cpu", weights_only=True, mmap=is_zip)
    except pickle.UnpicklingError as error:
        if _state_of(path, None):
            raise ModelFileError(f"{path} cannot be read: {_state_of(path, error)}") from error
        raise ModelFileError(
            f"{path} holds more than tensors, and none of it was run. Take a model with "
            f"{SAFE}, or convert this one where you trust it. "
            f"torch said: {' '.join(str(error).split())[:200]}"
        ) from error
    except Exception as error:  # damaged files fail in many ways
        raise ModelFileError(f"{path} cannot be read: {_state_of(path, error)}") from error
    if not isinstance(tensors, dict) or not all(map(_is_plain_tensor, tensors.items())):
        values = tensors.values() if isinstance(tensors, dict) else [tensors]
        kinds = sorted({type(value).__name__ for value in values})
        raise ModelFileError(f"{path} must hold tensors by name. Got {kinds}.")
    return tensors


def _is_plain_tensor(item):
    name, tensor = item
    return isinstance(name, str) and torch.is_tensor(tensor) and tensor.layout == torch.strided


def _state_of(path, error):
    """Say what is wrong with a file that cannot be read, and what to do."""
    with open(path, "rb") as file:
        head = file.read(len(_POINTER))
    if head == _POINTER:
        return (
            "it is a Git LFS pointer, the place of a large file that was not fetched. Run "
            "`git lfs pull` in the folder."
        )
    size = os.path.getsize(path)
    if size == 0:
        return "it is empty. Download it again."
    if error is None:
        return ""
    return (
        f"its {size} bytes are not those of a whole file ({' '.join(str(error).split())[:200]}). "
        "Download it again."
    )
