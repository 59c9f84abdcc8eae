"""Check that a pretrained model is whole before it is trained."""

import re

from skfocal._encoder.load_errors import SAVE_TOKENIZER, cannot_load
from skfocal._encoder.published_head import head_names

# A vocabulary that came from a file has more; one that did not has a few special tokens.
_FEWEST_TOKENS = 10


def check_tokenizer(files, tokenizer, config):
    """Raise OSError if a tokenizer has no words of its own, or more than the encoder.

    transformers builds a tokenizer of special tokens alone where its files are missing.
    """
    words = tokenizer.backend_tokenizer.get_vocab(with_added_tokens=False)
    if len(set(words) - set(tokenizer.all_special_tokens)) < _FEWEST_TOKENS:
        names = sorted(set(tokenizer.vocab_files_names.values()))
        missing = [name for name in names if files.find(name) is None]
        raise cannot_load(
            files.name,
            f"its tokenizer has no vocabulary, only {len(tokenizer)} added tokens: it lacks "
            f"{' and '.join(missing) or 'words in ' + ' and '.join(names)}. {SAVE_TOKENIZER}",
        )
    n_rows = getattr(config.get_text_config(), "vocab_size", None)
    if n_rows is not None and (largest := largest_id(tokenizer)) >= n_rows:
        raise cannot_load(
            files.name,
            f"its tokenizer has ids up to {largest}, and its encoder has {n_rows} embeddings. "
            "Where tokens were added to the tokenizer, call "
            "model.resize_token_embeddings(len(tokenizer)) and save both to a folder.",
        )


def largest_id(tokenizer):
    """Return the largest id that a text or the tokenizer itself may bring.

    Special tokens without a role are left out: Gemma has some for images, without embeddings.
    """
    vocabulary = tokenizer.get_vocab()
    special = {str(token) for token in tokenizer.added_tokens_decoder.values() if token.special}
    idle = special.difference(tokenizer.all_special_tokens)
    return max((i for token, i in vocabulary.items() if token not in idle), default=-1)


def check_loaded(model, encoder, info):
    """Raise OSError if a weight of the encoder, apart from pooler and head, was not in the file.

    Parameters
    ----------
    model : str or path
    encoder : transformers.PreTrainedModel
    info : dict
        What ``from_pretrained`` says of the keys.
    """
    prefix = encoder.base_model_prefix + "."
    names = [*encoder.state_dict()]
    inside = [name for name in names if name.startswith(prefix)]
    inside = inside or sorted(set(names).difference(head_names(encoder)))
    missing = sorted(_within(info["missing_keys"], inside))
    if missing and all("decoder" in name for name in missing):
        raise cannot_load(
            model,
            f"its weights hold an encoder alone, and {type(encoder).__name__} classifies with a "
            "decoder, too. Take the whole model.",
        )
    if missing and len(missing) > len(inside) // 2:
        raise cannot_load(
            model,
            f"it has weights for another architecture: {len(missing)} of the {len(inside)} tensors "
            f"of {type(encoder).__name__} are not in them, for example {missing[0]!r}.",
        )
    if missing:
        raise cannot_load(
            model,
            f"its weights lack {len(missing)} of the encoder's {len(inside)} tensors, for example "
            f"{missing[0]!r}. Is config.json that of these weights?",
        )
    for name, found, expected in info["mismatched_keys"]:
        if _within([name], inside):
            raise cannot_load(
                model,
                f"{name!r} has shape {tuple(found)} in its weights, and {tuple(expected)} by "
                "config.json. Is config.json that of these weights?",
            )
    if left := _left_over(info["unexpected_keys"], inside, prefix):
        raise cannot_load(
            model,
            f"its weights have {len(left)} tensors more than config.json has layers for, for "
            f"example {left[0]!r}. Is config.json that of these weights?",
        )


def _within(names, inside):
    return {name for name in names if name in inside and "pooler" not in name}


def _left_over(unexpected, inside, prefix):
    """Return the names that differ from the encoder's in a number only: of higher layers."""
    known = {_shape_of(name, prefix) for name in inside if "pooler" not in name}
    return sorted(name for name in unexpected if _shape_of(name, prefix) in known)


def _shape_of(name, prefix):
    return re.sub(r"\.\d+\.", ".#.", name.removeprefix(prefix))
