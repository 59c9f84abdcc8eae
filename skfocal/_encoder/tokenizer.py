"""The fast tokenizer of a pretrained model."""

import importlib.util

from transformers import AutoTokenizer, PreTrainedTokenizerFast

from skfocal._encoder.load_errors import SAVE_TOKENIZER, cannot_load

_FAST = "tokenizer.json"
_SENTENCEPIECE_FILES = ("spm.model", "sentencepiece.bpe.model", "spiece.model", "tokenizer.model")
_OTHER_FILES = ("vocab.txt", "vocab.json", "bpe.codes")
# Slow tokenizers, which transformers has in Python only, by the packages they ask for first.
_SLOW_PACKAGES = ("fugashi", "ipadic", "unidic", "sacremoses", "sudachi", "rhoknp", "emoji")


def fast_tokenizer(files, trust_remote_code=False):
    """Return the fast tokenizer of a model; one without a padding token pads with its end token.

    Parameters
    ----------
    files : skfocal._encoder.model_files.ModelFiles
    trust_remote_code : bool, default=False

    Returns
    -------
    transformers.PreTrainedTokenizerFast

    Raises
    ------
    OSError
        If the model has only a slow tokenizer, or one that can pad with no token.
    """
    fast = files.find(_FAST)
    if fast is None and not trust_remote_code:  # code of its own may read other files
        _check_files(files)
    where = {"subfolder": files.subfolder, "trust_remote_code": trust_remote_code}
    try:
        tokenizer = AutoTokenizer.from_pretrained(files.place, **where)
    except ImportError as error:
        if not any(package in str(error) for package in _SLOW_PACKAGES):
            raise
        tokenizer = None
    if tokenizer is None or not tokenizer.is_fast:
        if fast is None:
            kind = "one in Python" if tokenizer is None else type(tokenizer).__name__
            raise cannot_load(files.name, _without_fast(kind))
        tokenizer = _beside(files, tokenizer)
    if tokenizer.pad_token_id is None and tokenizer.eos_token_id is not None:
        tokenizer.pad_token = tokenizer.eos_token  # the attention mask hides it
    if tokenizer.pad_token_id is None:
        raise cannot_load(
            files.name,
            "its tokenizer has no token to pad with. Set tokenizer.pad_token to one of its tokens "
            "and save the tokenizer to a folder together with the model.",
        )
    return tokenizer


def _check_files(files):
    """Raise OSError if a model has no file of a tokenizer, or one that is read by a package."""
    if any(files.find(name) for name in _SENTENCEPIECE_FILES):
        missing = [name for name in ("sentencepiece", "google.protobuf") if not _is_there(name)]
        if missing:
            raise cannot_load(
                files.name,
                "its tokenizer has no tokenizer.json, only a file that sentencepiece reads: "
                "pip install 'skfocal[sentencepiece]'.",
            )
    elif not any(files.find(name) for name in _OTHER_FILES):
        raise cannot_load(
            files.name,
            f"its tokenizer has no vocabulary: it lacks {_FAST} and {', '.join(_OTHER_FILES)}, one "
            f"of which most models have. {SAVE_TOKENIZER}",
        )


def _is_there(package):
    try:
        return importlib.util.find_spec(package) is not None
    except ImportError:  # its parent is not there
        return False


def _beside(files, slow):
    """Return the fast tokenizer beside a slow one, with the special tokens that this names."""
    fast = PreTrainedTokenizerFast.from_pretrained(files.place, subfolder=files.subfolder)
    known = fast.get_vocab()
    for name, token in ({} if slow is None else slow.special_tokens_map).items():
        if isinstance(token, str) and getattr(fast, name) is None and token in known:
            setattr(fast, name, token)
    return fast


def _without_fast(kind):
    return (
        f"its tokenizer is slow ({kind}), without the tokenizer.json that skfocal reads. Take a "
        "model that has one: for Japanese and Vietnamese, for example, "
        "'FacebookAI/xlm-roberta-base'; for English tweets 'cardiffnlp/twitter-roberta-base'."
    )
