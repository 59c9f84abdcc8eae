"""Adapters of the peft package in the layers of an encoder during training.

All of the head is trained, but only the adapters of the layers. After training, the adapters are
merged, so that predictions, pickles, folders and graphs use plain weights.
"""

import contextlib
import copy
import enum
import warnings

import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from skfocal._encoder.structure import layers_of, parameter_depths
from skfocal._utils.messages import excerpt
from skfocal._utils.optional import import_optional

_NAME = "adapter"
_SETTINGS = "peft settings"  # key of a configuration in a pickle
_TASKS = {None, "SEQ_CLS"}
# Fields that depend on the installation.
_NOT_SETTINGS = {"peft_version", "auto_mapping", "base_model_name_or_path", "revision"}


# -- settings ------------------------------------------------------------------------------


def resolve_config(setting):
    """Return a copy of the PeftConfig that the parameter `peft` stands for.

    Parameters
    ----------
    setting : peft.PeftConfig or dict
        A dict names its ``peft_type``.

    Returns
    -------
    peft.PeftConfig

    Raises
    ------
    ImportError
        If peft is not installed.
    TypeError, ValueError
        If `setting` is not a configuration of adapters that can be merged into the weights.
    """
    peft = _peft()
    if isinstance(setting, dict):
        config = _from_settings(peft, setting)
    elif isinstance(setting, peft.PeftConfig):
        config = copy.deepcopy(setting)
    else:
        raise TypeError(
            "peft must be None, a PeftConfig such as peft.LoraConfig(r=8), or a dict of its "
            f"settings with 'peft_type'. Got {excerpt(setting)}."
        )
    _check_kind(peft, config)
    config.inference_mode = False
    return config


def _peft():
    return import_optional("peft", "peft=...", "peft")


def _from_settings(peft, settings):
    try:
        return peft.get_peft_config(settings)
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(
            "peft must have the settings of a PeftConfig, such as {'peft_type': 'LORA', 'r': 8}. "
            f"Got {excerpt(settings)}: {error!r:.200}."
        ) from error


def _check_kind(peft, config):
    """Raise ValueError if adapters cannot be merged or need another training loop."""
    kind = _plain(config.peft_type)
    tuner = peft.PEFT_TYPE_TO_TUNER_MAPPING.get(config.peft_type)
    if config.is_prompt_learning or config.is_adaption_prompt or tuner is None:
        raise ValueError(
            f"peft must be a kind of adapter that can be merged into the weights, such as "
            f"peft.LoraConfig. Got {type(config).__name__}, which adds to the input instead."
        )
    # AdaLoRA must be notified of each update; others train parameters outside the encoder.
    if kind == "ADALORA" or getattr(tuner, "uses_shared_state", False):
        raise ValueError(
            f"peft must be a kind of adapter that learns as any other weight does, such as "
            f"peft.LoraConfig. Got {type(config).__name__}."
        )
    if getattr(config, "layer_replication", None):
        raise ValueError(
            "layer_replication of peft must be None: layers that share weights cannot have "
            f"adapters of their own merged into them. Got {excerpt(config.layer_replication)}."
        )
    if _plain(config.task_type) not in _TASKS:
        raise ValueError(
            f"task_type of peft must be None or 'SEQ_CLS'. Got {_plain(config.task_type)!r}."
        )


def settings_of(setting):
    """Return the parameter `peft` as plain data, equal for equal settings; None for None."""
    if setting is None:
        return None
    config = resolve_config(setting)
    return {k: _plain(v) for k, v in config.to_dict().items() if k not in _NOT_SETTINGS}


def _plain(value):
    if isinstance(value, enum.Enum):
        return value.value
    if isinstance(value, set | frozenset):
        return sorted(value)
    if isinstance(value, dict):
        return {_plain(key): _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list) else value


def config_to_plain(setting):
    """Return the parameter `peft` for a pickle that opens without peft, too."""
    if setting is None or isinstance(setting, dict):
        return setting
    try:
        plain = {k: _plain(v) for k, v in setting.to_dict().items() if v is not None}
        plain.pop("peft_version", None)
        same = _peft().get_peft_config(plain) == setting
    except Exception:  # not a configuration, or not one that its settings can reproduce
        return setting
    return {_SETTINGS: plain} if same else setting


def config_from_plain(plain):
    """Return what :func:`config_to_plain` was given; without peft a dict of the settings."""
    if not isinstance(plain, dict) or set(plain) != {_SETTINGS}:
        return plain
    try:
        return _peft().get_peft_config(plain[_SETTINGS])
    except ImportError:
        return plain[_SETTINGS]


# -- in the encoder ------------------------------------------------------------------------


class Adapters:
    """Adapters in an encoder, from now until they are merged into its weights.

    Below the head, only adapters are trained. Frozen layers and embeddings get no adapters. The
    head, and any pooler above the layers, are trained without adapters.

    Parameters
    ----------
    encoder : transformers.PreTrainedModel
        Changed in place.
    setting : peft.PeftConfig or dict
        The parameter `peft`.
    n_frozen : int
        Layers that do not learn.
    kept : dict, default=None
        Result of :meth:`keep` after an earlier training, whose adapters are trained further if the
        settings are the same.

    Attributes
    ----------
    moments : dict or None
        Moments of the optimizer in `kept`, if its adapters are trained further.

    Raises
    ------
    ImportError, TypeError, ValueError
        If peft is missing, or `setting` does not fit the encoder.
    """

    def __init__(self, encoder, setting, n_frozen, kept=None):
        self.encoder = encoder
        self.settings = {"peft": settings_of(setting), "freeze": n_frozen}
        self.names = set(encoder.state_dict())
        if n_frozen and n_frozen >= len(layers_of(encoder)):
            raise ValueError(
                f"freeze must leave a layer for the adapters of peft. Got freeze={n_frozen} of "
                f"{len(layers_of(encoder))} layers."
            )
        self.tuner = _inject(encoder, resolve_config(setting), n_frozen)
        self._try_to_merge()
        self.moments = None
        if kept is not None and kept["settings"] == self.settings:
            encoder.load_state_dict(_as_tensors(kept["weights"]), strict=False)
            self.moments = {name: _as_tensors(state) for name, state in kept["moments"].items()}

    def _try_to_merge(self):
        """Raise ValueError before training if merging would fail after it."""
        from peft.tuners.tuners_utils import BaseTunerLayer

        layers = [m for m in self.encoder.modules() if isinstance(m, BaseTunerLayer)]
        for layer in {type(layer): layer for layer in layers}.values():
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")  # they come again with the real one
                    copy.deepcopy(layer).merge()
            except Exception as error:  # of many kinds
                raise ValueError(
                    "peft must be a kind of adapter that can be merged into the weights. Got "
                    f"{type(layer).__name__} of {self.settings['peft']['peft_type']}: "
                    f"{error!r:.200}"
                ) from error

    def keep(self, moments):
        """Return the state that merging loses, as plain data, for a later training.

        Parameters
        ----------
        moments : dict
            The optimizer's state by the names of the weights.

        Returns
        -------
        dict
        """
        weights = self.encoder.state_dict().items()
        return {
            "settings": self.settings,
            # The adapters, and the weights below them as they are without.
            "weights": _as_arrays({k: v for k, v in weights if k not in self.names}),
            "moments": {name: _as_arrays(state) for name, state in moments.items()},
        }

    def merge(self):
        """Add the adapters to the weights and take them out of the encoder."""
        self.tuner.merge_and_unload()
        vars(self.encoder).pop("peft_config", None)


def _inject(encoder, config, n_frozen):
    """Put adapters into an encoder; return the object that can merge them."""
    import peft

    tuner = peft.PEFT_TYPE_TO_TUNER_MAPPING[config.peft_type]
    known = getattr(tuner, "target_module_mapping", {})
    if getattr(config, "target_modules", "") is None and encoder.config.model_type not in known:
        config.target_modules = "all-linear"
    whole = getattr(config, "modules_to_save", None) or []
    if whole:
        config.modules_to_save = None  # they learn as they are, a copy is not needed
    if hasattr(config, "fan_in_fan_out") and any(isinstance(m, Conv1D) for m in encoder.modules()):
        config.fan_in_fan_out = True  # GPT-2 keeps its weights transposed
    example = _example(encoder)
    with _hidden(list(_not_to_adapt(encoder, n_frozen, tuple(whole)))):
        try:
            return tuner(encoder, config, adapter_name=_NAME)
        except (TypeError, ValueError, NotImplementedError, AttributeError) as error:
            raise ValueError(
                f"peft does not fit {type(encoder).__name__}: {error} Adapters go into layers "
                f"that learn, with modules named like {example!r}; the head learns as it is."
            ) from error


def _not_to_adapt(encoder, n_frozen, whole):
    """Yield ``(parent, name)`` of the largest modules that are frozen or learn in full."""
    depths = {id(p): depth for p, depth in parameter_depths(encoder)}
    top = len(layers_of(encoder)) + 1
    lowest = n_frozen + 1 if n_frozen else 0

    def visit(parent, path):
        for name, child in parent.named_children():
            inside = {depths[id(p)] for p in child.parameters()}
            full = f"{path}{name}".endswith(whole) if whole else False
            if full or (inside and not any(lowest <= depth < top for depth in inside)):
                yield parent, name
            else:
                yield from visit(child, f"{path}{name}.")

    return visit(encoder, "")


@contextlib.contextmanager
def _hidden(places):
    """Replace modules by empty ones, which get no adapter, inside the block."""
    modules = [getattr(parent, name) for parent, name in places]
    for parent, name in places:
        setattr(parent, name, nn.Identity())
    try:
        yield
    finally:
        for (parent, name), module in zip(places, modules, strict=True):
            setattr(parent, name, module)


def _example(encoder):
    top = [*layers_of(encoder), encoder.base_model][:1][0]
    inside = [name for name, m in top.named_modules() if isinstance(m, nn.Linear)]
    return inside[0] if inside else ""


def _as_arrays(tensors):
    return {
        k: v.detach().cpu().numpy().copy() if torch.is_tensor(v) else v for k, v in tensors.items()
    }


def _as_tensors(arrays):
    return {k: torch.tensor(v) if hasattr(v, "dtype") else v for k, v in arrays.items()}
