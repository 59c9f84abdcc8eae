"""The confusion matrix, most frequent class first."""

from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import ArrayLike
from sklearn.metrics import (
    ConfusionMatrixDisplay,
)
from sklearn.utils import column_or_1d

from skfocal.displays._drawing import pyplot

if TYPE_CHECKING:
    pass


class FrequencyConfusionMatrixDisplay(ConfusionMatrixDisplay):
    """scikit-learn's confusion matrix with the most frequent true class first.

    Use ``from_estimator`` or ``from_predictions``. If `labels` is given, it sets the order instead.
    With more than 15 classes, the figure grows and the cells have no numbers unless
    ``include_values=True``.
    """

    @classmethod
    def from_predictions(
        cls,
        y_true: Any,
        y_pred: Any,
        *,
        labels: Any = None,
        sample_weight: ArrayLike | None = None,
        **kwargs: Any,
    ) -> Self:
        """Draw from given predictions; see :class:`sklearn.metrics.ConfusionMatrixDisplay`.

        Parameters
        ----------
        y_true, y_pred : array-like of shape (n,)
            True and predicted labels.
        labels : array-like, default=None
            Labels in the order to show them. None: by their frequency in `y_true`, with those that
            were only predicted last.
        sample_weight : array-like of shape (n,), default=None
            Weights of the documents. They apply to the frequency, too.
        **kwargs
            As in scikit-learn.

        Returns
        -------
        FrequencyConfusionMatrixDisplay

        Examples
        --------
        >>> from skfocal.displays import FrequencyConfusionMatrixDisplay
        >>> y = ["a", "b", "b"]
        >>> FrequencyConfusionMatrixDisplay.from_predictions(y, y).display_labels.tolist()
        ['b', 'a']
        """
        y_true, y_pred = (column_or_1d(y, warn=True) for y in (y_true, y_pred))
        if labels is None:
            known = np.unique(np.concatenate([y_true, y_pred]))
            each = np.ones(len(y_true)) if sample_weight is None else np.asarray(sample_weight)
            counts = each @ (y_true[:, None] == known)
            labels = known[np.argsort(-counts, kind="stable")]
        if len(labels) > 15:
            kwargs = {"include_values": False, "xticks_rotation": "vertical", **kwargs}
            if kwargs.get("ax") is None:
                figure, ax = pyplot(cls).subplots(layout="constrained")
                figure.set_size_inches(2 * [3 + 0.16 * len(labels)])
                kwargs["ax"] = ax
                ax.tick_params(labelsize="x-small")
        display: Self = super().from_predictions(
            y_true, y_pred, labels=labels, sample_weight=sample_weight, **kwargs
        )
        return display
