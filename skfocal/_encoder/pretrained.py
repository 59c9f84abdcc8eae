"""Pretrained weights and tokenizers by name or folder, read once per process."""

import contextlib
import copy
import logging
import os
import threading
from collections import OrderedDict
from pathlib import Path

import torch
import transformers
from huggingface_hub.utils.tqdm import progress_bar_states
from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer

from skfocal._runtime import shared_payload
from skfocal._utils.messages import excerpt

_LOADING = threading.RLock()


@contextlib.contextmanager
def quiet_transformers():
    """Keep the report on the new head and the loading bar off the user's screen.

    Threads take turns: what is set here is the process's, as is the default dtype that
    transformers sets while it loads.
    """
    log = transformers.utils.logging
    logger = log.get_logger()
    with _LOADING:
        # The switches of both libraries warn where HF_HUB_DISABLE_PROGRESS_BARS is set, and
        # forget the bars that a user has switched one by one.
        level, bars, hub_bars = logger.level, log._tqdm_active, progress_bar_states.copy()
        logger.setLevel(logging.ERROR)
        log._tqdm_active = False
        progress_bar_states.clear()
        progress_bar_states["_global"] = False
        try:
            yield
        finally:
            logger.setLevel(level)
            log._tqdm_active = bars
            progress_bar_states.clear()
            progress_bar_states.update(hub_bars)


def load_tokenizer(model, *, trust_remote_code=False):
    """Return the fast tokenizer of `model`; raise as :func:`load_encoder` does."""
    key = "tokenizer", str(model), trust_remote_code, _stamp(model)
    return _kept(key, lambda: _read_tokenizer(model, trust_remote_code))


def _read_tokenizer(model, trust_remote_code):
    with quiet_transformers(), _named(model):
        tokenizer = AutoTokenizer.from_pretrained(
            os.path.expanduser(model), trust_remote_code=trust_remote_code
        )
    if not tokenizer.is_fast or tokenizer.pad_token_id is None:
        raise ValueError(
            f"model={str(model)!r} must have a fast tokenizer with a padding token. "
            f"Got {type(tokenizer).__name__} with pad_token={tokenizer.pad_token!r}."
        )
    return tokenizer


def load_encoder(model, labels, *, pad_token_id, trust_remote_code=False):
    """Return the pretrained encoder with a new head of one logit per label.

    The file is read at the first call of a process and mapped into memory: other processes that
    read it share its pages. Each encoder is a copy.

    Parameters
    ----------
    model : str or path
        A hub name or a folder with config.json and model.safetensors.
    labels : sequence of str
        Names of the classes, for the configuration's ``id2label``.
    pad_token_id : int
        The tokenizer's padding token.
    trust_remote_code : bool, default=False
        Whether Python code that comes with the model may run.

    Returns
    -------
    transformers.PreTrainedModel
        Its sequence-classification form.

    Raises
    ------
    OSError
        If there is no such model, or it has no safetensors weights.
    ValueError
        If the model has no sequence-classification form.
    """
    kind, config, weights = _load_weights(model, trust_remote_code)
    config = copy.deepcopy(config)
    config.id2label = {i: str(label) for i, label in enumerate(labels)}
    config.label2id = {str(label): i for i, label in enumerate(labels)}
    config.pad_token_id = pad_token_id
    config.problem_type = "single_label_classification"
    with quiet_transformers():
        return kind.from_pretrained(
            None,
            config=config,
            state_dict={name: torch.from_numpy(value.copy()) for name, value in weights.items()},
            dtype=torch.float32,
            ignore_mismatched_sizes=True,  # a head for other classes is replaced
        )


def _load_weights(model, trust_remote_code):
    key = "weights", str(model), trust_remote_code, _stamp(model)
    return _kept(key, lambda: _read_weights(model, trust_remote_code))


def _read_weights(model, trust_remote_code):
    """Return the encoder's class, configuration and weights, as arrays, without a new head."""
    place = os.path.expanduser(model)
    # A new head is drawn here too, and dropped: not from the caller's random numbers.
    with quiet_transformers(), _named(model), torch.random.fork_rng(devices=[]):
        encoder, info = AutoModelForSequenceClassification.from_pretrained(
            place,
            config=AutoConfig.from_pretrained(place, trust_remote_code=trust_remote_code),
            dtype=torch.float32,
            use_safetensors=True,
            ignore_mismatched_sizes=True,
            output_loading_info=True,
            trust_remote_code=trust_remote_code,
        )
    _check_encoder_loaded(model, encoder, info)
    new = {*info["missing_keys"], *(name for name, *_ in info["mismatched_keys"])}
    weights = {
        name: value.numpy() for name, value in encoder.state_dict().items() if name not in new
    }
    return type(encoder), encoder.config, weights


# -- kept for the folds and candidates of a search ------------------------------------------

_KEPT: OrderedDict = OrderedDict()
_N_KEPT = 8
_N_READ = {"tokenizer": 0, "weights": 0}


def _kept(key, read):
    """Return the value of this key from a payload or an earlier call, or read it.

    The eight most recently used values are kept.
    """
    handed = shared_payload.find_pretrained(key)
    if handed is not None:
        return handed
    with _LOADING:
        if key not in _KEPT:
            _KEPT[key] = read()
            _N_READ[key[0]] += 1
            if len(_KEPT) > _N_KEPT:
                _KEPT.popitem(last=False)
        _KEPT.move_to_end(key)
        return _KEPT[key]


def _stamp(model):
    """Return a value that changes when the files of a folder change; empty for a hub name."""
    place = os.path.expanduser(model)
    if not os.path.isdir(place):  # pathlib raises for a name that is too long
        return ()
    files = [(file.name, file.stat()) for file in sorted(Path(place).iterdir())]
    return tuple((name, stat.st_size, stat.st_mtime_ns) for name, stat in files)


def to_share(model):
    """Return the tokenizer and weights of a model for a payload, by key."""
    key = str(model), False, _stamp(model)
    return {
        ("tokenizer", *key): load_tokenizer(model),
        ("weights", *key): _load_weights(model, False),
    }


def pretrained_cache_info():
    """Return how often this process has read weights and tokenizers."""
    return {"weights_read": _N_READ["weights"], "tokenizers_read": _N_READ["tokenizer"]}


def clear_pretrained_cache():
    """Forget the weights and tokenizers that were read."""
    with _LOADING:
        _KEPT.clear()


# -- errors --------------------------------------------------------------------------------


@contextlib.contextmanager
def _named(model):
    """Turn the various errors of a failed look-up into one that names the model."""
    try:
        yield
    except (OSError, ValueError, ImportError) as error:
        path = os.path.expanduser(model)
        if os.path.isdir(path):
            looked = f"the folder {str(path)!r} holds {sorted(os.listdir(path))[:12]}"
            cure = (
                "It needs config.json, model.safetensors (pickled .bin weights are not read) and "
                "the tokenizer's files, of an architecture that has a "
                "AutoModelForSequenceClassification. Code in the folder runs only with "
                "trust_remote_code=True."
            )
        else:
            looked = "no folder of that name exists and the Hugging Face hub did not give it"
            cure = (
                "Check the spelling, or give the path of a folder with config.json, "
                "model.safetensors and the tokenizer's files. Without a hub, "
                "skfocal.datasets.fetch_minilm() returns such a folder; HF_HUB_OFFLINE=1 in the "
                "environment keeps transformers from asking for it."
            )
        raise OSError(
            f"model={excerpt(str(model), 200)} cannot be loaded: {looked}. {cure} "
            f"transformers said: {' '.join(repr(str(error))[1:400].split())}"
        ) from (error if len(str(model)) < 1000 else None)


def _check_encoder_loaded(model, encoder, info):
    """Refuse weights that leave the encoder itself, not only its head, at random values."""
    prefix = encoder.base_model_prefix + "."
    missing = [
        key for key in info["missing_keys"] if key.startswith(prefix) and "pooler" not in key
    ]
    total = sum(key.startswith(prefix) for key in encoder.state_dict())
    if len(missing) > total // 10:
        raise OSError(
            f"model={str(model)!r} has weights for another architecture: {len(missing)} of the "
            f"encoder's {total} tensors are not in it, for example {missing[0]!r}."
        )
