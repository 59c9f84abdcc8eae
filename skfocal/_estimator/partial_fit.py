"""The state of `partial_fit` between chunks, and the settings that it does not support."""

import copy
from dataclasses import dataclass, field, replace
from typing import Any, Self

import numpy as np
from sklearn.utils import check_random_state

from skfocal._data import labels
from skfocal._estimator.inputs import TrainingData, check_same, checked_weight
from skfocal._estimator.parameters import is_progressive
from skfocal._utils.messages import excerpts

# Parameters that require all epochs to be known, and the value that turns each of them off.
_NEED_ALL_EPOCHS = {
    "early_stopping": False,
    "train_split": None,
    "eval_steps": None,
    "defer": 0,
    "checkpoint": None,
    "refit_head": None,
}


@dataclass(frozen=True, eq=False)
class Chunks:
    """State after the chunks so far.

    Attributes
    ----------
    rng : numpy.random.RandomState
        Goes on from chunk to chunk.
    support, drawn : ndarrays of shape (n_classes,), or (n_labels, 2)
        Amount of each class in the data, and among the documents that the sampler drew.
    n_first : int or None
        Updates of the first chunk.
    n_updates : int
        Updates of all chunks.
    adapters : dict or None
        What merging them into the weights has lost.
    """

    rng: np.random.RandomState
    support: np.ndarray = field(default_factory=lambda: np.zeros(()))
    drawn: np.ndarray = field(default_factory=lambda: np.zeros(()))
    n_first: int | None = None
    n_updates: int = 0
    adapters: dict | None = None

    def after(self, plan, n_updates, adapters) -> Self:
        """Return the state after another chunk."""
        return replace(
            self,
            support=plan.support,
            drawn=plan.drawn,
            n_first=self.n_first or n_updates,
            n_updates=self.n_updates + n_updates,
            adapters=adapters,
        )

    def to_plain(self) -> dict[str, Any]:
        """Return plain data, except for a generator that is not numpy's usual one."""
        state = self.rng.get_state(legacy=False)
        usual = state["bit_generator"] == "MT19937"
        plain = {**vars(self), "rng": state if usual else self.rng}
        plain["raw"] = plain.pop("support")  # the name in files
        return plain

    @classmethod
    def from_plain(cls, plain) -> Self:
        """Return the object that :meth:`to_plain` converted."""
        rng = plain["rng"]
        if isinstance(rng, dict):
            rng = np.random.RandomState(np.random.MT19937())
            rng.set_state(plain["rng"])
        plain = {**plain, "rng": rng, "support": plain["raw"]}
        del plain["raw"]
        return cls(**plain)


def check_parameters(parameters):
    """Raise ValueError for settings that do not work with one chunk at a time."""
    for name, needless in _NEED_ALL_EPOCHS.items():
        value = getattr(parameters, name)
        if value is not None if needless is None else value != needless:  # it may be an array
            raise ValueError(
                f"partial_fit needs {name}={needless}: it sees one chunk at a time. Got {value!r}."
            )
    for name, value in (("temperature", "auto"), ("decision", "tuned")):
        if getattr(parameters, name) == value:
            raise ValueError(
                f"{name}={value!r} needs held-out documents, which partial_fit does not have."
            )
    if is_progressive(parameters):
        raise ValueError(
            "sampler='progressive' needs the number of epochs, which partial_fit does not know: "
            "give a number or 'balanced'."
        )


def chunks_so_far(parameters, earlier, processes) -> Chunks:
    """Return a copy of the state after the earlier calls; a copy, since this call may fail."""
    chunks = None if earlier is None else copy.deepcopy(earlier._chunks)
    if chunks is None:
        chunks = Chunks(check_random_state(parameters.random_state))
    processes.sync_rng(chunks.rng)
    return chunks


def chunk_data(parameters, texts, y, classes, sample_weight, earlier, processes) -> TrainingData:
    """Return what a call of `partial_fit` trains on: all of its documents.

    Parameters
    ----------
    classes : array-like or None
        All labels that any chunk has.
    earlier : Fit or None
        The training before this one.
    """
    known = parameters.classes if earlier is None else earlier.classes_
    multilabel = None if earlier is None else earlier.class_weight_.ndim == 2
    declared = _declared_classes(known, classes, multilabel)
    classes, codes = labels.encode(y, texts, declared, multilabel)
    check_same(parameters, texts, classes, codes, processes)
    rows = np.arange(len(codes))
    return TrainingData(texts, classes, codes, checked_weight(sample_weight, texts, rows), rows)


def _declared_classes(known, classes, multilabel):
    """Return the labels of all chunks; a later call may repeat them."""
    if known is None and classes is None:
        raise ValueError("classes must name all labels in the first call of partial_fit. Got None.")
    if known is None:
        return classes
    if classes is not None and not np.array_equal(np.unique(classes), np.unique(known)):
        raise ValueError(
            "classes must be those of the earlier calls, "
            f"{excerpts(np.unique(known).tolist())}. "
            f"Got {excerpts(np.unique(classes).tolist())}."
        )
    if multilabel and classes is not None and list(classes) != list(known):
        raise ValueError(
            "classes must come in the order of the earlier calls, "
            f"{excerpts(known)}. Got {excerpts(classes)}."
        )
    return known
