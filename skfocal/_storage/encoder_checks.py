"""Check the files of an encoder before memory of the size that they claim is allocated."""

import contextlib
import math

import torch
from safetensors import safe_open
from torch.nn.modules import module as torch_module
from transformers.models.auto.modeling_auto import MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES

from skfocal._encoder.load_checks import largest_id
from skfocal._storage.encoder_state import encoder_of

_FLOATS = {"F64", "F32", "F16", "BF16"}
# Some numbers in a configuration are no sizes of weights: windows, positions that are computed.
_LEAST_BOUND = 2**21
_BUFFER_BYTES = 2**28  # of what an encoder computes for itself and no file holds
# Names of code, or of kernels and quantisers that transformers would fetch.
_CODE = {"auto_map", "attn_implementation", "experts_implementation", "quantization_config",
         "compression_config", "custom_pipelines", "backbone", "use_timm_backbone",
         "transformers_weights", "adapter_kwargs"}  # fmt: skip


def read_sizes(path):
    """Return the shapes of the tensors in a safetensors file, which are not read yet."""
    with safe_open(path, "pt") as file:
        parts = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118
        kinds = {name: part.get_dtype() for name, part in parts.items()}
        wrong = {name: kind for name, kind in kinds.items() if kind not in _FLOATS | {"I64"}}
        if wrong or not _FLOATS & set(kinds.values()):
            raise ValueError(f"model.safetensors must hold floats. Got {str(wrong):.80}.")
        return {name: tuple(part.get_shape()) for name, part in parts.items()}


def read_weights(path):
    """Return the tensors of a safetensors file as numpy arrays, all floats in float32."""
    with safe_open(path, "pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    return {
        name: (tensor.float() if tensor.is_floating_point() else tensor).numpy()
        for name, tensor in tensors.items()
    }


def check_encoder(config, sizes, n_classes, cosine_scale=None):
    """Refuse a configuration that does not belong to the weights and classes.

    Parameters
    ----------
    config : dict
        What config.json holds.
    sizes : dict of str -> tuple of int
        Shapes of the weights by their names in the encoder.
    n_classes : int
    cosine_scale : float, default=None
        Of a head of cosines.

    Raises
    ------
    ValueError
        If it names code, an unknown architecture or sizes that the weights do not have.
    """
    kind = config.get("model_type")
    if not isinstance(kind, str) or kind not in MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES:
        raise ValueError(f"model_type in config.json must be a classifier's. Got {kind!r:.60}.")
    if config.get("dtype") not in (None, "float32"):
        raise ValueError(f"dtype in config.json must be 'float32'. Got {config['dtype']!r:.60}.")
    if not isinstance(config.get("id2label"), dict) or len(config["id2label"]) != n_classes:
        raise ValueError(f"id2label in config.json must name the {n_classes} classes.")
    largest = max((size for shape in sizes.values() for size in shape), default=0)
    _check_values(config, max(largest, _LEAST_BOUND))
    _check_sinusoids(config, sum(map(math.prod, sizes.values())))
    _check_shapes(config, sizes, cosine_scale)


def _check_values(value, bound, name="config.json"):
    """Raise ValueError for names of code, or numbers larger than any size of the weights."""
    if isinstance(value, dict):
        for key, item in value.items():
            if key in _CODE and item or (key[:1] == "_" and key != "_name_or_path"):
                raise ValueError(f"config.json must not name code to load. Got {key!r:.60}.")
            _check_values(item, bound, key)
    elif isinstance(value, list):
        for item in value:
            _check_values(item, bound, name)
    elif isinstance(value, int) and not -bound <= value <= bound and "theta" not in name:
        raise ValueError(
            f"{name!r:.60} in config.json must be at most {bound}, for these weights. "
            f"Got {value!r:.60}."
        )


def _check_sinusoids(config, n_numbers):
    """Raise ValueError for position tables that would be computed element by element."""
    if any("sinusoid" in key and value for key, value in config.items()):
        width = max(config.get(key) or 0 for key in ("dim", "emb_dim", "hidden_size", "d_model"))
        if config.get("max_position_embeddings", 0) * width > n_numbers:
            raise ValueError("config.json asks for a table of positions larger than the weights.")


def _check_shapes(config, sizes, cosine_scale):
    """Build the encoder without memory for its weights, and compare their shapes."""
    with torch.device("meta"), _at_most(len(sizes)):
        encoder = encoder_of(config, cosine_scale)
    expected = {name: tuple(value.shape) for name, value in encoder.state_dict().items()}
    for name in sorted({*expected, *sizes}):
        if expected.get(name) != sizes.get(name):
            raise ValueError(
                f"{name!r:.80} must have shape {expected.get(name, 'None, it is unknown')} in "
                f"model.safetensors, by config.json. Got {sizes.get(name, 'no such tensor')}."
            )
    if sum(buffer.nbytes for buffer in encoder.buffers()) > _BUFFER_BYTES:
        raise ValueError("config.json asks for larger tables than any encoder has.")


@contextlib.contextmanager
def _at_most(n_tensors):
    """Raise when a module has far more parts than the file has tensors."""
    left = 16 * n_tensors + 1000

    def count(module, name, part):
        nonlocal left
        left -= 1
        if left < 0:
            raise ValueError("config.json asks for far more layers than model.safetensors has.")

    hooks = [
        torch_module.register_module_module_registration_hook(count),
        torch_module.register_module_parameter_registration_hook(count),
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def check_vocabulary(encoder, tokenizer):
    """Raise ValueError if the tokenizer has tokens without an embedding."""
    n_rows = encoder.get_input_embeddings().num_embeddings
    largest = largest_id(tokenizer)
    if not 0 <= largest < n_rows or tokenizer.pad_token_id is None:
        raise ValueError(
            f"tokenizer.json must have a padding token and ids below {n_rows}, the number of "
            f"embeddings. Got ids up to {largest} and padding token {tokenizer.pad_token!r:.40}."
        )
