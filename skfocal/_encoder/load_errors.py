"""What it means when a pretrained model cannot be loaded, and what to do."""

import contextlib
import os

from huggingface_hub import errors, is_offline_mode

from skfocal._encoder.model_files import ModelFileError
from skfocal._utils.messages import excerpt

_FOLDER = (
    "A folder needs config.json, model.safetensors or pytorch_model.bin, and the tokenizer's "
    "files, of an architecture that AutoModelForSequenceClassification knows."
)
# What transformers says, and what it means.
_CAUSES = {
    "trust_remote_code": (
        "it brings Python code of its own, which runs only with trust_remote_code=True. Read the "
        "code first."
    ),
    "Should have a `model_type` key": (
        "its config.json has no model_type, as those of 2019. In a copy of its folder, add the "
        'name of the architecture: "model_type": "bert".'
    ),
    "does not recognize this architecture": (
        "the installed transformers has no architecture of the model_type in its config.json. "
        "Update transformers, or check the spelling."
    ),
    "for this kind of AutoModel": (
        "its architecture has no form for sequence classification. Take an encoder, or a decoder "
        "that has one."
    ),
}
SAVE_TOKENIZER = (
    "Save the tokenizer of the model it was made from beside it: "
    "AutoTokenizer.from_pretrained(original).save_pretrained(folder). From the hub, try again "
    "later: a busy one may have answered without these files."
)
_WITHOUT_HUB = "Without the hub, skfocal.datasets.fetch_minilm() returns the folder of a model."


class CannotLoadError(OSError):
    """A model cannot be loaded; the message says why and what to do."""


@contextlib.contextmanager
def named(model):
    """Turn the errors of a failed look-up into one that names the model and the cause."""
    try:
        yield
    except CannotLoadError:
        raise
    except ModelFileError as error:
        raise cannot_load(model, error) from error.__cause__
    except Exception as error:  # a wrong config.json may raise anything
        said = " ".join(repr(str(error))[1:400].split())
        cause = _cause(str(model), _chain(error))
        raise cannot_load(model, f"{cause} transformers said: {said}") from (
            error if len(str(model)) < 1000 else None
        )


def cannot_load(model, cause):
    """Return the error that a model cannot be loaded, with cause and cure."""
    return CannotLoadError(f"model={excerpt(str(model), 200)} cannot be loaded: {cause}")


def _chain(error):
    chain = []
    while error is not None and error not in chain:
        chain.append(error)
        error = error.__cause__ or error.__context__
    return chain


def _cause(model, chain):
    """Return a sentence on the cause and one on the cure."""
    path = os.path.expanduser(model)
    files = sorted(os.listdir(path)) if os.path.isdir(path) else []
    if "adapter_config.json" in files and "config.json" not in files:
        return (
            "it is an adapter without its encoder. Merge the two first: "
            "peft.AutoPeftModelForSequenceClassification.from_pretrained(folder)"
            ".merge_and_unload().save_pretrained(other), and the tokenizer beside it."
        )
    is_folder, text = os.path.isdir(path), " ".join(map(str, chain))
    causes = [cause for words, cause in _CAUSES.items() if words in text]
    if causes and not (is_folder and "config.json" not in files):
        return causes[0]
    return f"the folder {path!r} holds {files[:12]}. {_FOLDER}" if is_folder else _hub_cause(chain)


def _hub_cause(chain):
    kinds = tuple(type(error) for error in chain)

    def has(*wanted):
        return any(issubclass(kind, wanted) for kind in kinds)

    if has(errors.GatedRepoError):
        return (
            "its owner lets only those in who have asked. Accept the terms on its page on the hub, "
            "then run `hf auth login`."
        )
    if is_offline_mode():
        return (
            "no folder of that name exists, and HF_HUB_OFFLINE=1 keeps transformers from asking "
            "the hub for what its cache lacks. Check the spelling, unset the variable once, or "
            f"give the path of a folder. {_FOLDER} {_WITHOUT_HUB}"
        )
    if has(errors.RepositoryNotFoundError):
        return (
            "no folder of that name exists and the Hugging Face hub has no such model, or it is "
            "private. Check the spelling, run `hf auth login`, or give the path of a folder. "
            f"{_FOLDER} {_WITHOUT_HUB}"
        )
    return (
        "no folder of that name exists and the Hugging Face hub did not give it. Check the "
        "spelling and the connection, or give the path of a folder. "
        f"{_FOLDER} {_WITHOUT_HUB} HF_HUB_OFFLINE=1 in the environment keeps transformers from "
        "asking the hub."
    )
