"""Types of the estimator's parameters, for editors and type checkers."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from os import PathLike
from typing import Any, Literal, Protocol, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from skorch.callbacks import Callback

from skfocal.balance import EffectiveNumber
from skfocal.options import Checkpoint, Windows


class Splitter(Protocol):
    """A cross-validation splitter of scikit-learn."""

    def split(
        self, X: Any, y: Any = None, groups: Any = None
    ) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
        """Yield the row numbers to train on and those to hold out."""
        ...


class Resampler(Protocol):
    """A sampler of imbalanced-learn."""

    def fit_resample(self, X: Any, y: Any) -> Any:
        """Draw rows of X and y."""
        ...


class Array(Protocol):
    """An array, Series or tensor: unlike numpy's ArrayLike, a str is none."""

    def __array__(self) -> NDArray[Any]:
        """Return the values."""
        ...


Path: TypeAlias = str | PathLike[str]
LongDocuments: TypeAlias = Literal["truncate", "head_tail", "windows"] | Windows
LossFunction: TypeAlias = (
    Literal[
        "focal",
        "cross_entropy",
        "poly1",
        "poly1_focal",
        "logit_adjusted",
        "balanced_softmax",
        "ldam",
        "dice",
        "asymmetric",
        "distribution_balanced",
    ]
    | torch.nn.Module
    | type[torch.nn.Module]
    | Callable[..., torch.Tensor]
)
ClassWeights: TypeAlias = (
    Literal["balanced", "sqrt", "effective"]
    | EffectiveNumber
    | Mapping[Any, float]
    | Sequence[float]
    | Array
    | float
    | None
)
Sampler: TypeAlias = (
    Literal["balanced", "sqrt", "progressive"]
    | float
    | Resampler
    | Callable[[NDArray[Any]], torch.utils.data.Sampler[int]]
    | None
)
Callbacks: TypeAlias = Sequence[Callback | tuple[str, Callback]]
Prior: TypeAlias = Literal["uniform"] | Mapping[Any, float] | Sequence[float] | Array | None
CheckpointFolder: TypeAlias = str | PathLike[str] | Checkpoint | None
