"""Values of parameters that consist of several settings.

Their settings are parameters of the estimator, too: ``long_documents__pooling`` in a grid, in
`set_params` or after ``--set``.
"""

import os
from numbers import Integral, Real

from sklearn.utils._param_validation import Interval, StrOptions

from skfocal._encoder.pooling import POOLINGS
from skfocal._utils.settings import Settings


class Windows(Settings):
    """Read a long document in windows of `max_length` tokens: a value of `long_documents`.

    The encoder gives each window its logits, and `pooling` makes one row of logits out of them, in
    training as in prediction. ``long_documents="windows"`` is short for ``Windows()``.

    Parameters
    ----------
    stride : int, default=0
        Tokens that neighbouring windows of a document share.

    pooling : {"mean", "max", "logsumexp"}, default="logsumexp"
        How the windows' logits become the document's: their mean, the largest of each class, or
        the logarithm of the mean of their exponentials, the best of the three in the
        :doc:`benchmark </benchmarks/long-documents>`.

    max_windows : int or None, default=16
        The most windows of a document; what comes after them is lost. None: no limit; then nothing
        bounds the memory that one document takes in training.

    Examples
    --------
    >>> from skfocal import BertFocalClassifier, Windows
    >>> clf = BertFocalClassifier("some/folder", long_documents=Windows(stride=64))
    >>> clf.set_params(long_documents__pooling="max").long_documents
    Windows(pooling='max', stride=64)
    """

    _parameter_constraints: dict = {
        "stride": [Interval(Integral, 0, None, closed="left")],
        "pooling": [StrOptions(set(POOLINGS))],
        "max_windows": [None, Interval(Integral, 1, None, closed="left")],
    }

    def __init__(self, stride=0, pooling="logsumexp", max_windows=16):
        self.stride = stride
        self.pooling = pooling
        self.max_windows = max_windows


class Checkpoint(Settings):
    """Write checkpoints of a fit into a folder: a value of `checkpoint`.

    A checkpoint is due after `steps` updates or after `minutes`, whichever comes first. The folder
    alone, ``checkpoint="run"``, is short for ``Checkpoint("run")``.

    Parameters
    ----------
    folder : str or path
        New, empty, or with checkpoints of the same fit.

    steps : int or None, default=None
        Updates from one checkpoint to the next. None: by time alone.

    minutes : float or None, default=10.0
        Minutes from one checkpoint to the next. None: by `steps` alone.

    Examples
    --------
    >>> from skfocal import BertFocalClassifier, Checkpoint
    >>> clf = BertFocalClassifier("some/folder", checkpoint="run")
    >>> clf.set_params(checkpoint__steps=100).checkpoint
    Checkpoint(folder='run', steps=100)
    """

    _parameter_constraints: dict = {
        "folder": [str, os.PathLike],
        "steps": [None, Interval(Integral, 1, None, closed="left")],
        "minutes": [None, Interval(Real, 0, None, closed="neither")],
    }

    def __init__(self, folder, steps=None, minutes=10.0):
        self.folder = folder
        self.steps = steps
        self.minutes = minutes
