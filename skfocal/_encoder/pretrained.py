"""Pretrained weights and tokenizers by name or folder, read once per process."""

import contextlib
import copy
import logging
import os
import threading
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from huggingface_hub.utils.tqdm import progress_bar_states
from transformers import AutoConfig, AutoModelForSequenceClassification

from skfocal._encoder.dropout import set_dropout
from skfocal._encoder.load_checks import check_loaded, check_tokenizer
from skfocal._encoder.load_errors import cannot_load, named
from skfocal._encoder.model_files import model_files, read_tensors
from skfocal._encoder.pooled import with_pooling
from skfocal._encoder.promises import ignores_padding, is_steady
from skfocal._encoder.published_head import head_names, matching_rows
from skfocal._encoder.structure import note_by_length
from skfocal._encoder.tokenizer import fast_tokenizer
from skfocal._runtime import shared_payload

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
    with quiet_transformers(), named(model):
        files = _files_of(model)
        config = _read_config(files, trust_remote_code)
        tokenizer = fast_tokenizer(files, trust_remote_code)
    check_tokenizer(files, tokenizer, config)
    return tokenizer


def _files_of(model):
    return _kept(("files", str(model), _stamp(model)), lambda: model_files(model))


def _read_config(files, trust_remote_code):
    return AutoConfig.from_pretrained(
        files.place, subfolder=files.subfolder, trust_remote_code=trust_remote_code
    )


@dataclass(frozen=True, eq=False)
class Pretrained:
    """An encoder as it was read.

    Attributes
    ----------
    kind : type
        Its class, for sequence classification.
    config : transformers.PretrainedConfig
    weights : dict of str -> ndarray
        Without those that the files lack.
    head : list of str
        The names of the weights of a published head; empty if there is none.
    is_steady : bool
        Whether training without dropout leaves nothing to chance.
    pooling : {"mean", "first", "last"} or None
        How its tokens were pooled when it was trained, where the files say so.
    is_pooled_classifier : bool
        Whether skfocal saved it with a head on pooled tokens, which is not read.
    """

    kind: type
    config: Any
    weights: dict
    head: list
    is_steady: bool
    pooling: str | None
    is_pooled_classifier: bool


def load_encoder(
    model,
    classes,
    *,
    pad_token_id,
    pooling="auto",
    multilabel=False,
    dropout=None,
    trust_remote_code=False,
):
    """Return the pretrained encoder with a head of one logit per label.

    The file is read at the first call of a process and mapped into memory: other processes that
    read it share its pages. Each encoder is a copy.

    Parameters
    ----------
    model : str or path
        A hub name or a folder with config.json and weights.
    classes : sequence
        Labels of the classes. A published head whose labels are the same is kept, its rows in
        this order; else a new one is drawn.
    pad_token_id : int
        The tokenizer's padding token.
    pooling : {"auto", "head", "mean", "first", "last"}, default="auto"
        "head": the architecture's own head. "auto": the way the encoder was trained with, or else
        "head".
    multilabel : bool, default=False
        Whether a document may have several labels. A head of the other kind is not kept.
    dropout : float, default=None
        Probability of every dropout; None keeps the configuration's.
    trust_remote_code : bool, default=False
        Whether Python code that comes with the model may run.

    Returns
    -------
    encoder : transformers.PreTrainedModel
        Its sequence-classification form.
    head : {"new", "discarded", "replaced", "left", "published"}
        Whether the head is new, new although there was one of the same size, of the same labels,
        or on pooled tokens, or the published one.

    Raises
    ------
    OSError
        If there is no such model, or some of its weights are missing.
    ValueError
        If dropout cannot be turned off.
    """
    found = _load_weights(model, trust_remote_code)
    weights, head = _with_head(found, classes, multilabel)
    if pooling == "auto":
        by_decoder = has_decoder(model, trust_remote_code)
        pooling = "head" if head == "published" or by_decoder else found.pooling or "head"
    elif pooling != "head" and head == "published":
        head = "replaced"
    config = copy.deepcopy(found.config)
    config.id2label = {i: str(label) for i, label in enumerate(classes)}
    config.label2id = {str(label): i for i, label in enumerate(classes)}
    config.pad_token_id = pad_token_id
    config.problem_type = "single_label_classification"
    with quiet_transformers():
        encoder = found.kind.from_pretrained(
            None,
            config=config,
            state_dict={name: torch.from_numpy(value.copy()) for name, value in weights.items()},
            dtype=torch.float32,
        )
    _draw_what_is_missing(encoder)
    if pooling != "head":
        head = "left" if head == "new" and found.is_pooled_classifier else head
        encoder = _pooled(model, encoder, pooling, trust_remote_code)
    if dropout is not None:
        set_dropout(encoder, dropout)
    if dropout == 0 and not found.is_steady:
        raise ValueError(
            f"dropout must be None for {found.kind.__name__}, which leaves something to chance in "
            f"training whatever the probabilities of its dropouts are. Got {dropout}."
        )
    return encoder, head


def has_decoder(model, trust_remote_code=False) -> bool:
    """Say whether a model classifies by its decoder, so that its tokens cannot be pooled."""
    return bool(
        getattr(_load_weights(model, trust_remote_code).config, "is_encoder_decoder", False)
    )


def _pooled(model, encoder, pooling, trust_remote_code):
    """Return an encoder with a new head on pooled tokens, which padding may change as well."""
    encoder = with_pooling(encoder, pooling)
    key = "padding", str(model), trust_remote_code, _stamp(model), pooling
    tokenizer = load_tokenizer(model, trust_remote_code=trust_remote_code)
    if not _kept(key, lambda: _tried(model, encoder, tokenizer, ignores_padding)):
        note_by_length(encoder)
    return encoder


def _with_head(found, classes, multilabel):
    """Return the weights with a head for these classes, or without one, and which it is."""
    if not found.head:
        return found.weights, "new"
    rows = matching_rows(found.config.id2label, classes)
    kinds = {False: "single_label_classification", True: "multi_label_classification"}
    if found.config.problem_type == kinds[not multilabel]:
        rows = None
    if rows is not None:
        return found.weights | {name: found.weights[name][rows] for name in found.head}, "published"
    weights = {k: v for k, v in found.weights.items() if k not in found.head}
    same_size = len(found.config.id2label) == len(classes)
    return weights, "discarded" if same_size else "new"


def _load_weights(model, trust_remote_code):
    key = "weights", str(model), trust_remote_code, _stamp(model)
    return _kept(key, lambda: _read_weights(model, trust_remote_code))


def _read_weights(model, trust_remote_code):
    # A new head is drawn here too, and dropped: not from the caller's random numbers.
    with quiet_transformers(), named(model), torch.random.fork_rng(devices=[]):
        files = _files_of(model)
        config = _prepared(_read_config(files, trust_remote_code), files, trust_remote_code)
        with torch.device("meta"):
            kind = type(
                AutoModelForSequenceClassification.from_config(
                    config, trust_remote_code=trust_remote_code
                )
            )
        encoder, info = kind.from_pretrained(
            None,
            config=config,
            state_dict=read_tensors(files.weights()),
            dtype=torch.float32,
            ignore_mismatched_sizes=True,
            output_loading_info=True,
        )
    check_loaded(model, encoder, info)
    new = {*info["missing_keys"], *(name for name, *_ in info["mismatched_keys"])}
    _check_finite(model, {k: v for k, v in encoder.named_parameters() if k not in new})
    weights = {
        name: value.numpy() for name, value in encoder.state_dict().items() if name not in new
    }
    head = head_names(encoder)
    if any(_is_above_layers(name, encoder) for name in new):  # half a head is none
        weights = {name: value for name, value in weights.items() if name not in head}
        head = []
    steady = _check_promises(
        model, encoder, load_tokenizer(model, trust_remote_code=trust_remote_code)
    )
    return Pretrained(
        kind, encoder.config, weights, head, steady, files.pooling, files.is_pooled_classifier
    )


def _check_finite(model, parameters):
    """Raise if a weight is not finite: those that stay frozen would not show it in training."""
    for name, weight in parameters.items():
        if weight.numel() and not torch.stack(weight.detach().aminmax()).isfinite().all():
            raise cannot_load(
                model,
                f"its weight {name!r} is not finite everywhere. The file is damaged, or was "
                "written after a training that failed: get it again, or take another one.",
            )


def _draw_what_is_missing(encoder):
    """Give each weight without memory some numbers.

    With FSDP only the first process has a new head, which the others get when they train.
    """
    with torch.random.fork_rng(devices=[]):
        for module in encoder.modules():
            for name, weight in [*module.named_parameters(recurse=False)]:
                if weight.is_meta:
                    setattr(module, name, torch.nn.Parameter(0.02 * torch.randn(weight.shape)))


def _is_above_layers(name, encoder):
    return "pooler" in name or not name.startswith(encoder.base_model_prefix + ".")


def _check_promises(model, encoder, tokenizer):
    """Note in the configuration if padding changes an answer; say if dropout can be off."""
    encoder.config.pad_token_id = tokenizer.pad_token_id
    _draw_what_is_missing(encoder)
    if not _tried(model, encoder, tokenizer, ignores_padding):
        note_by_length(encoder)
    return _tried(model, encoder, tokenizer, is_steady)


def _tried(model, encoder, tokenizer, check):
    """Return the result of a check, or raise the error of an encoder that cannot be computed."""
    try:
        with quiet_transformers(), torch.random.fork_rng(devices=[]):
            return check(encoder, tokenizer)
    except Exception as error:  # an architecture may fail in any way
        raise cannot_load(
            model,
            f"{type(encoder).__name__} cannot be computed for two short texts: {error!r:.300}",
        ) from error


def _prepared(config, files, trust_remote_code):
    """Return the configuration without code that is not run, and with what is ours."""
    found = {}
    if getattr(config, "auto_map", None) and trust_remote_code:
        found["code"] = files.place  # found again by whoever opens a pickle
    elif hasattr(config, "auto_map"):
        del config.auto_map  # beside an architecture that transformers has
    if config.model_type == "big_bird":
        # transformers switches to it for short texts, and never back.
        config.attention_type = "original_full"
    if files.max_seq_length is not None:
        found["max_seq_length"] = files.max_seq_length
    if found or hasattr(config, "skfocal"):
        config.skfocal = found
    return config


# -- kept for the folds and candidates of a search ------------------------------------------

_KEPT: OrderedDict = OrderedDict()
_N_KEPT = 16
_N_READ = {"tokenizer": 0, "weights": 0}


def _kept(key, read):
    """Return the value of this key from a payload or an earlier call, or read it.

    The sixteen most recently used values are kept, at most four of a model.
    """
    handed = shared_payload.find_pretrained(key)
    if handed is not None:
        return handed
    with _LOADING:
        if key not in _KEPT:
            _KEPT[key] = read()
            _N_READ[key[0]] = _N_READ.get(key[0], 0) + 1
            if len(_KEPT) > _N_KEPT:
                _KEPT.popitem(last=False)
        _KEPT.move_to_end(key)
        return _KEPT[key]


def _stamp(model):
    """Return a value that changes when the files of a folder change; empty for a hub name."""
    place = os.path.expanduser(model)
    if not os.path.isdir(place):  # pathlib raises for a name that is too long
        return ()
    # Sentence-transformers may have the encoder in a subfolder.
    folders = [Path(place), *(path.parent for path in Path(place).glob("*/config.json"))]
    stamps = []
    for path in sorted(path for folder in folders for path in folder.iterdir()):
        with contextlib.suppress(OSError):  # links to nowhere, files that go
            stat = path.stat()
            stamps.append((str(path), stat.st_size, stat.st_mtime_ns))
    return tuple(stamps)


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
