"""The confusion matrix, most frequent class first."""

from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.metrics import ConfusionMatrixDisplay
from sklearn.utils import column_or_1d

from skfocal._data.labels import check_order
from skfocal.displays._drawing import pyplot


class FrequencyConfusionMatrixDisplay(ConfusionMatrixDisplay):
    """scikit-learn's confusion matrix with the most frequent true class first.

    Use ``from_estimator`` or ``from_predictions``. If `labels` is given, it sets the order instead.
    With more than 15 classes, the figure grows and the cells have no numbers unless
    ``include_values=True``.
    """

    @classmethod
    def from_estimator(
        cls,
        estimator: Any,
        X: Any,
        y: Any,
        *,
        include_values: bool | None = None,
        xticks_rotation: Any = None,
        **kwargs: Any,
    ) -> Self:
        """Draw the predictions of a classifier.

        Parameters
        ----------
        estimator : fitted classifier with predict
        X, y : array-like of shape (n,)
            Documents and their labels.
        include_values : bool, default=None
            Whether to write the numbers into the cells. None: with up to 15 classes.
        xticks_rotation : {"vertical", "horizontal"} or float, default=None
            Direction of the names below, in degrees if it is a number. None: vertical with more
            than 15 classes.
        **kwargs
            As in :meth:`from_predictions`.

        Returns
        -------
        FrequencyConfusionMatrixDisplay
        """
        check_order(X, y=y)
        display: Self = super().from_estimator(
            estimator,
            X,
            y,
            include_values=include_values,
            xticks_rotation=xticks_rotation,
            **kwargs,
        )
        return display

    @classmethod
    def from_predictions(
        cls,
        y_true: Any,
        y_pred: Any,
        *,
        labels: Any = None,
        sample_weight: ArrayLike | None = None,
        display_labels: ArrayLike | None = None,
        include_values: bool | None = None,
        xticks_rotation: Any = None,
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
        display_labels : array-like, default=None
            Names to show. They belong to `labels` or, without them, to the sorted labels, as the
            ``target_names`` of a data set do. None: the labels.
        include_values : bool, default=None
            Whether to write the numbers into the cells. None: with up to 15 classes.
        xticks_rotation : {"vertical", "horizontal"} or float, default=None
            Direction of the names below, in degrees if it is a number. None: vertical with more
            than 15 classes.
        **kwargs
            As in scikit-learn.

        Returns
        -------
        FrequencyConfusionMatrixDisplay

        Raises
        ------
        ValueError
            If there is not one display label for each class.

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
            order = np.argsort(-counts, kind="stable")
            labels = known[order]
            if display_labels is not None:
                display_labels = _in_order(display_labels, order)
        many = len(labels) > 15
        if many and kwargs.get("ax") is None:
            figure, ax = pyplot(cls).subplots(layout="constrained")
            figure.set_size_inches(2 * [3 + 0.16 * len(labels)])
            kwargs["ax"] = ax
            ax.tick_params(labelsize="x-small")
        turned = "vertical" if many else "horizontal"
        display: Self = super().from_predictions(
            y_true,
            y_pred,
            labels=labels,
            sample_weight=sample_weight,
            display_labels=display_labels,
            include_values=not many if include_values is None else include_values,
            xticks_rotation=turned if xticks_rotation is None else xticks_rotation,
            **kwargs,
        )
        return display


def _in_order(names: ArrayLike, order: NDArray[np.int64]) -> NDArray[Any]:
    """Return the names of the sorted labels in another order."""
    named = np.asarray(names)
    if named.shape != order.shape:
        raise ValueError(
            f"display_labels must have one name for each of the {len(order)} classes. "
            f"Got shape {named.shape}."
        )
    return named[order]
