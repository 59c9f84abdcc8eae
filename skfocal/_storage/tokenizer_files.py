"""Convert a fast tokenizer to two JSON files, and back without looking up any class."""

import copy
import json

from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerFast

FILES = ("tokenizer.json", "tokenizer_config.json")
_TOKENS = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token",
           "mask_token")  # fmt: skip
_SIDES = ("padding_side", "truncation_side")
_SETTINGS = (*_TOKENS, *_SIDES, "model_max_length", "model_input_names")
# A copy of a tokenizer takes memory for all ids up to the largest, whether they are used or not.
_MOST_IDS = 2**24


def tokenizer_to_plain(tokenizer):
    """Return the contents of the two files, which ``AutoTokenizer`` can read too.

    Parameters
    ----------
    tokenizer : transformers.PreTrainedTokenizerFast

    Returns
    -------
    dict of str -> bytes
    """
    backend = copy.deepcopy(tokenizer.backend_tokenizer)
    backend.no_truncation()  # both are left behind by calls
    backend.no_padding()
    settings = {name: getattr(tokenizer, name) for name in _SETTINGS}
    # The class that takes tokenizer.json as it is; others build parts of it anew.
    settings["tokenizer_class"] = "PreTrainedTokenizerFast"
    files = backend.to_str(), json.dumps(settings, indent=2)
    return {name: text.encode() for name, text in zip(FILES, files, strict=True)}


def tokenizer_from_plain(files):
    """Return the tokenizer that :func:`tokenizer_to_plain` converted.

    Of the settings only names of tokens, sides, lengths and inputs are read: none of them is a
    path or a name of code.
    """
    settings = json.loads(files["tokenizer_config.json"])
    kept = {name: settings[name] for name in _SETTINGS if settings.get(name) is not None}
    for name in set(_TOKENS) & set(kept):  # some files have a token's properties beside it
        kept[name] = kept[name]["content"] if isinstance(kept[name], dict) else kept[name]
    backend = Tokenizer.from_str(files["tokenizer.json"].decode())
    if max(backend.get_vocab().values(), default=0) >= _MOST_IDS:
        raise ValueError(f"tokenizer.json must have token ids below {_MOST_IDS}. Got others.")
    backend.no_truncation()
    backend.no_padding()
    return PreTrainedTokenizerFast(tokenizer_object=backend, **kept)
