"""Values of parameters that consist of several settings.

The settings can be set through the estimator, as ``long_documents__pooling`` in a grid, in
`set_params` or after ``--set``.
"""

import os
from numbers import Integral, Real
from typing import Any, Literal

from sklearn.utils._param_validation import Interval, StrOptions

from skfocal._encoder.pooling import POOLINGS
from skfocal._utils.settings import Settings


class Windows(Settings):
    """Read a long document in windows of `max_length` tokens: a value of `long_documents`.

    The encoder computes logits for each window, and `pooling` combines them into one row of
    logits, in training as in prediction. ``long_documents="windows"`` is short for ``Windows()``.

    Parameters
    ----------
    stride : int, default=0
        Number of tokens that adjacent windows of a document share.

    pooling : {"mean", "max", "logsumexp"}, default="logsumexp"
        How the logits of the windows are combined: their mean, the largest of each class, or the
        logarithm of the mean of their exponentials. The last is the best of the three in the
        :doc:`benchmark </benchmarks/long-documents>`.

    max_windows : int or None, default=16
        Maximum number of windows per document; the rest of the document is not read. None: no
        limit. The memory that a document needs in training then grows with its length.

    Examples
    --------
    >>> from skfocal import BertFocalClassifier, Windows
    >>> clf = BertFocalClassifier("some/folder", long_documents=Windows(stride=64))
    >>> clf.set_params(long_documents__pooling="max").long_documents
    Windows(pooling='max', stride=64)
    """

    _parameter_constraints: dict[str, list[Any]] = {
        "stride": [Interval(Integral, 0, None, closed="left")],
        "pooling": [StrOptions(set(POOLINGS))],
        "max_windows": [None, Interval(Integral, 1, None, closed="left")],
    }

    def __init__(
        self,
        stride: int = 0,
        pooling: Literal["mean", "max", "logsumexp"] = "logsumexp",
        max_windows: int | None = 16,
    ) -> None:
        self.stride = stride
        self.pooling = pooling
        self.max_windows = max_windows


class Checkpoint(Settings):
    """Write checkpoints of a fit into a folder: a value of `checkpoint`.

    A checkpoint is written after `steps` updates or after `minutes`, whichever comes first.
    ``checkpoint="run"``, the folder alone, is short for ``Checkpoint("run")``.

    Parameters
    ----------
    folder : str or path
        A folder that is new or empty, or that has checkpoints of the same fit.

    steps : int or None, default=None
        Number of updates from one checkpoint to the next. None: only `minutes` counts.

    minutes : float or None, default=10.0
        Time from one checkpoint to the next, in minutes. None: only `steps` counts.

    Examples
    --------
    >>> from skfocal import BertFocalClassifier, Checkpoint
    >>> clf = BertFocalClassifier("some/folder", checkpoint="run")
    >>> clf.set_params(checkpoint__steps=100).checkpoint
    Checkpoint(folder='run', steps=100)
    """

    _parameter_constraints: dict[str, list[Any]] = {
        "folder": [str, os.PathLike],
        "steps": [None, Interval(Integral, 1, None, closed="left")],
        "minutes": [None, Interval(Real, 0, None, closed="neither")],
    }

    def __init__(
        self,
        folder: str | os.PathLike[str],
        steps: int | None = None,
        minutes: float | None = 10.0,
    ) -> None:
        self.folder = folder
        self.steps = steps
        self.minutes = minutes
