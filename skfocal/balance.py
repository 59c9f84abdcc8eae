"""Class weights (alpha) and samplers, computed from the class counts.

Both correct imbalance, so both start from the same number: how much of each class an epoch
actually draws. Together they weigh a class by ``effective = alpha * drawn share / raw share``.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from numbers import Real
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, cast

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import clone
from sklearn.utils import get_tags
from sklearn.utils._param_validation import Interval

from skfocal._utils.arrays import values_by_label
from skfocal._utils.messages import excerpt, excerpts
from skfocal._utils.settings import Settings

if TYPE_CHECKING:
    import pandas as pd

    Alpha: TypeAlias = (
        Literal["balanced", "sqrt", "effective"]
        | "EffectiveNumber"
        | Mapping[Any, float]
        | "pd.Series[Any]"
        | ArrayLike
        | None
    )

ALPHAS = ("balanced", "sqrt", "effective")
SAMPLERS = ("balanced", "sqrt", "progressive")


Draw: TypeAlias = Callable[[int, np.random.RandomState], NDArray[np.int64]]


# -- class weights -------------------------------------------------------------------------


class EffectiveNumber(Settings):
    """Class weights from the effective number of documents, ``(1 - beta) / (1 - beta**n)``.

    A value of `alpha`; ``alpha="effective"`` is short for ``EffectiveNumber()``.

    Parameters
    ----------
    beta : float, default=0.999
        In (0, 1). Above about ``1 / (1 - beta)`` documents, the weight of a class hardly falls
        any further. Near 0 all weights are equal; near 1 they are those of "balanced".

    References
    ----------
    Cui, Jia, Lin, Song, Belongie: Class-Balanced Loss Based on Effective Number of Samples,
    CVPR 2019 (arXiv:1901.05555).

    Examples
    --------
    >>> from skfocal import BertFocalClassifier, EffectiveNumber
    >>> clf = BertFocalClassifier("some/folder", alpha=EffectiveNumber(beta=0.9999))
    >>> clf.set_params(alpha__beta=0.99).alpha
    EffectiveNumber(beta=0.99)
    """

    _parameter_constraints: dict[str, list[Any]] = {
        "beta": [Interval(Real, 0, 1, closed="neither")]
    }

    def __init__(self, beta: float = 0.999) -> None:
        self.beta = beta


def class_weight(alpha: "Alpha", classes: NDArray[Any], counts: ArrayLike) -> NDArray[np.float64]:
    """Return the weight of each class, the alpha of the focal loss.

    A named alpha is a decreasing function of the count ``n`` of the class, scaled so that the mean
    weight of a drawn document is 1:

    ============= ==============================================================
    "balanced"    ``1 / n``, as in scikit-learn (King and Zeng, 2001)
    "sqrt"        ``1 / sqrt(n)``
    "effective"   ``(1 - beta) / (1 - beta**n)``, see :class:`EffectiveNumber`
    ============= ==============================================================

    Parameters
    ----------
    alpha : None, str, EffectiveNumber, dict or Series, array-like of shape (n_classes,) or float
        None gives ones. A dict or a pandas Series maps every label to its weight; an array is in
        the order of `classes`. Neither is scaled. A float in (0, 1), for two classes only, is the
        weight of ``classes[1]``; that of ``classes[0]`` is ``1 - alpha``.
    classes : ndarray of shape (n_classes,)
        Sorted labels.
    counts : ndarray of shape (n_classes,)
        Number of documents of each class that an epoch draws, or their total sample weight. A
        named alpha gives a class without documents the weight 1.

    Returns
    -------
    ndarray of shape (n_classes,), float64

    Raises
    ------
    ValueError
        If alpha is none of these, or if a weight is not a positive finite number.

    References
    ----------
    Cui, Jia, Lin, Song, Belongie: Class-Balanced Loss Based on Effective Number of Samples,
    CVPR 2019 (arXiv:1901.05555).

    Examples
    --------
    >>> import numpy as np
    >>> class_weight("balanced", np.array(["ham", "spam"]), np.array([90, 10]))
    array([0.55555556, 5.        ])
    """
    counts = np.asarray(counts, dtype=np.float64)
    if alpha is None:
        return np.ones(len(classes))
    if isinstance(alpha, str | EffectiveNumber):
        return _named_weight(alpha, counts, len(classes))
    if (weights := values_by_label(alpha, classes.tolist(), "alpha")) is not None:
        return _positive(_numbers(weights), "alpha")
    if isinstance(alpha, Real) and not isinstance(alpha, bool):
        return _two_weights(float(alpha), classes)
    weight = np.asarray(alpha)
    if weight.shape != (len(classes),) or weight.dtype.kind not in "iuf":
        raise ValueError(_alpha_message(alpha, len(classes)))
    return _positive(weight.astype(np.float64), "alpha")


def _named_weight(
    alpha: str | EffectiveNumber, counts: NDArray[np.float64], n_classes: int
) -> NDArray[np.float64]:
    """Return the weights of an alpha that depends on the counts."""
    if alpha == "effective":
        alpha = EffectiveNumber()
    if not isinstance(alpha, EffectiveNumber) and alpha not in ALPHAS:
        raise ValueError(_alpha_message(alpha, n_classes))
    present = counts > 0
    n = counts[present]
    if alpha == "balanced":
        weight = 1 / n
    elif alpha == "sqrt":
        weight = n**-0.5
    else:
        assert isinstance(alpha, EffectiveNumber)
        alpha.check()
        # expm1: for beta near 1, 1 - beta**n as written loses most of its digits.
        weight = 1 / -np.expm1(n * np.log(alpha.beta))
    result = np.ones(len(counts))
    result[present] = weight * n.sum() / (weight @ n)
    return result


def _numbers(weights: Sequence[Any]) -> NDArray[np.float64]:
    if not all(isinstance(weight, Real) for weight in weights):
        raise ValueError(f"alpha must hold positive finite weights only. Got {excerpts(weights)}.")
    return np.array(weights, dtype=np.float64)


def _two_weights(alpha: float, classes: NDArray[Any]) -> NDArray[np.float64]:
    """Return the weights of two classes from that of the second."""
    if len(classes) != 2:
        raise ValueError(
            "alpha as a single number is the weight of the second of two classes and has no "
            f"meaning for {len(classes)} classes: give a dict, an array or one of {ALPHAS}. "
            f"Got {alpha}."
        )
    first, second = classes.tolist()
    if not 0 < alpha < 1:
        raise ValueError(
            f"alpha as a single number must be between 0 and 1, both excluded: {excerpt(second)} "
            f"gets alpha and {excerpt(first)} gets 1 - alpha. Got {alpha}."
        )
    return np.array([1 - alpha, alpha])


def _positive(weight: NDArray[np.float64], name: str) -> NDArray[np.float64]:
    """Return weights; refuse all but positive finite ones."""
    if not (np.isfinite(weight).all() and (weight > 0).all()):
        raise ValueError(
            f"{name} must hold positive finite weights only. Got {excerpts(weight.tolist())}."
        )
    return weight


def _alpha_message(alpha: Any, n_classes: int) -> str:
    return (
        "alpha must be None, 'balanced', 'sqrt', 'effective', an EffectiveNumber, a dict from "
        f"label to weight, an array of {n_classes} weights in the order of classes_ or, for two "
        f"classes, a number in (0, 1). Got {excerpt(alpha)}."
    )


def label_weight(
    alpha: "Alpha", classes: NDArray[Any], counts: NDArray[Any]
) -> NDArray[np.float64]:
    """Return the weights of the absence and of the presence of each label.

    A named alpha balances the two sides of each label as :func:`class_weight` does with two
    classes. A float in (0, 1) is the weight of the presence for all labels; that of the absence is
    ``1 - alpha``. A dict or Series by label, or an array of shape (n_labels,), weighs the presence
    only (the ``pos_weight`` of PyTorch). An array of shape (n_labels, 2) weighs both.

    Parameters
    ----------
    alpha : None, str, EffectiveNumber, dict or Series, array-like or float
        See above. None gives ones.
    classes : ndarray of shape (n_labels,)
        Names of the labels.
    counts : ndarray of shape (n_labels, 2)
        Number of documents without and with each label. If one of the two is 0, a named alpha
        gives both the weight 1.

    Returns
    -------
    ndarray of shape (n_labels, 2), float64

    Raises
    ------
    ValueError
        If alpha is none of these, or if a weight is not a positive finite number.

    Examples
    --------
    >>> import numpy as np
    >>> label_weight("balanced", np.array(["news"]), np.array([[90, 10]]))
    array([[0.55555556, 5.        ]])
    """
    n_labels = len(classes)
    if alpha is None:
        return np.ones((n_labels, 2))
    if isinstance(alpha, str | EffectiveNumber):
        return np.array([_named_weight(alpha, pair, n_labels) for pair in counts])
    if isinstance(alpha, Real) and not isinstance(alpha, bool):
        alpha = float(alpha)
        if not 0 < alpha < 1:
            raise ValueError(
                "alpha as a single number must be between 0 and 1, both excluded: it weighs the "
                f"presence of a label, and 1 - alpha its absence. Got {alpha}."
            )
        return np.tile([1 - alpha, alpha], (n_labels, 1))
    if np.shape(cast(ArrayLike, alpha)) == (n_labels, 2):
        return _positive(np.asarray(alpha, dtype=np.float64), "alpha")
    positive = class_weight(alpha, classes, counts[:, 1])
    return np.stack([np.ones(n_labels), positive], axis=1)


def effective_class_weight(
    weight: NDArray[np.float64], raw: NDArray[Any], drawn: NDArray[Any]
) -> NDArray[np.float64]:
    """Return the weight of each class by alpha and sampler, ``weight * drawn / raw`` in shares.

    This is how much more a class counts in training than in the data. A class that is absent from
    the data, or that no epoch draws, keeps its weight.

    Parameters
    ----------
    weight, raw, drawn : ndarrays of shape (n_classes,)
        Class weights; the amount of each class in the data; the amount that an epoch draws. An
        amount is a number of documents or their total sample weight.

    Returns
    -------
    ndarray of shape (n_classes,), float64

    Examples
    --------
    >>> import numpy as np
    >>> effective_class_weight(np.ones(2), np.array([90, 10]), np.array([50, 50]))
    array([0.55555556, 5.        ])
    """
    raw, drawn = raw / raw.sum(), drawn / drawn.sum()
    both = (raw > 0) & (drawn > 0)
    shift: NDArray[np.float64] = np.divide(drawn, raw, out=np.ones(len(raw)), where=both)
    return weight * shift


# -- samplers ------------------------------------------------------------------------------


@dataclass(frozen=True)
class Sampling:
    """The rows that each epoch trains on.

    Attributes
    ----------
    draw : callable ``(epoch, random_state) -> ndarray of row numbers``
        Returns the rows of one epoch, in no particular order and possibly with repeats.
    n_draws : int
        Number of rows in an epoch.
    drawn : ndarray of shape (n_classes,)
        Expected amount of each class in an epoch, averaged over all epochs.
    drawn_last : ndarray of shape (n_classes,)
        Expected amount of each class in the last epoch. It differs from `drawn` only for
        ``"progressive"``.
    """

    draw: Draw
    n_draws: int
    drawn: NDArray[np.float64]
    drawn_last: NDArray[np.float64]


def each_once(n: int, amounts: NDArray[np.float64]) -> Sampling:
    """Return the :class:`Sampling` that draws each row once.

    Parameters
    ----------
    n : int
        Number of rows.
    amounts : ndarray of shape (n_classes,)
        Amount of each class in these rows.

    Returns
    -------
    Sampling
    """
    return Sampling(lambda epoch, rng: np.arange(n), n, amounts, amounts)


def resolve_sampling(
    sampler: Any,
    codes: NDArray[np.int64],
    labels: NDArray[Any],
    *,
    n_classes: int,
    n_epochs: int,
    sample_weight: NDArray[np.float64],
    random_state: np.random.RandomState,
) -> Sampling:
    """Return the :class:`Sampling` that the parameter `sampler` describes.

    Parameters
    ----------
    sampler : None, str, float, imbalanced-learn sampler or callable
        ``None`` draws each row once. A number ``q`` in [0, 1] draws ``n`` rows with replacement,
        from class ``c`` with a probability proportional to ``n_c**q`` (Kang et al., ICLR 2020):
        1 draws as in the data, ``"sqrt"`` is 0.5 and ``"balanced"`` is 0. ``"progressive"`` moves
        from the distribution of the data in the first epoch to the balanced one in the last. An
        imbalanced-learn sampler runs once, on the numbers of the rows with a positive weight. A
        callable takes the labels and returns a ``torch.utils.data.Sampler`` of row numbers.
    codes : ndarray of shape (n,)
        Class codes of the training rows.
    labels : ndarray of shape (n,)
        Labels of the training rows, for a callable.
    n_classes, n_epochs : int
        Number of declared classes and of epochs.
    sample_weight : ndarray of shape (n,)
        Weights that the loss will use. The amount of a class is their sum.
    random_state : numpy.random.RandomState
        For the imbalanced-learn sampler.

    Returns
    -------
    Sampling

    Raises
    ------
    ValueError
        If the sampler is none of these or does not give row numbers.

    References
    ----------
    Kang et al.: Decoupling Representation and Classifier for Long-Tailed Recognition, ICLR 2020
    (arXiv:1910.09217).
    """

    def amount(rows_weight: NDArray[np.float64]) -> NDArray[np.float64]:
        totals = np.bincount(codes, weights=rows_weight, minlength=n_classes)
        return np.asarray(totals, dtype=np.float64)  # its type in numpy's stubs is int

    n = len(codes)
    if sampler is None:
        return each_once(n, amount(sample_weight))
    if isinstance(sampler, str | Real) and not isinstance(sampler, bool):
        powers = _powers(sampler, n_epochs)
        mix = [_row_probability(p, codes, amount(sample_weight)) for p in powers]
        return Sampling(
            lambda epoch, rng: rng.choice(n, size=n, p=mix[min(epoch, len(mix) - 1)]),
            n,
            amount(n * np.mean(mix, axis=0) * sample_weight),
            amount(n * mix[-1] * sample_weight),
        )
    if isinstance(sampler, type):
        raise ValueError(_sampler_message(sampler))
    if hasattr(sampler, "fit_resample"):
        some = np.flatnonzero(sample_weight > 0)  # the others are as if they were not there
        if len(np.unique(codes[some])) < 2:
            raise ValueError(
                f"sampler={sampler!r} needs documents with a positive sample_weight of at least "
                "two classes. Got one class."
            )
        rows = some[_imblearn_rows(sampler, codes[some], labels[some], random_state)]
        drawn = amount(np.bincount(rows, minlength=n) * sample_weight)
        return Sampling(lambda epoch, rng: rows, len(rows), drawn, drawn)
    if callable(sampler):
        return _from_torch(sampler(labels), n, lambda times: amount(times * sample_weight))
    raise ValueError(_sampler_message(sampler))


def _powers(sampler: Any, n_epochs: int) -> list[list[tuple[float, float]]]:
    """Return the mixture that each epoch draws from, a list of ``(share, power)``.

    Power 1 draws as in the data, 0 draws all classes alike.
    """
    if sampler == "progressive":
        times = np.linspace(0, 1, n_epochs) if n_epochs > 1 else [0.5]
        return [[(1 - t, 1.0), (t, 0.0)] for t in times]
    power = {"balanced": 0.0, "sqrt": 0.5}.get(sampler, sampler)
    if isinstance(power, str) or not 0 <= power <= 1:
        raise ValueError(_sampler_message(sampler))
    return [[(1.0, float(power))]]


def _row_probability(
    mixture: list[tuple[float, float]], codes: NDArray[np.int64], counts: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return the probability of each row: an equal part of the ``n_c**q`` of its class."""
    probability = np.zeros(len(codes))
    for share, power in mixture:
        # Dividing by the amount, not by the rows, keeps a weight of 2 equal to a repeated row.
        row = np.power(counts, power - 1, out=np.zeros(len(counts)), where=counts > 0)[codes]
        probability += share * row / row.sum()
    return probability


def _check_sampler(sampler: Any) -> None:
    """Raise ValueError if a sampler is a class, or one of imbalanced-learn that needs numbers."""
    if isinstance(sampler, type):
        raise ValueError(_sampler_message(sampler))
    if hasattr(sampler, "fit_resample") and getattr(sampler, "shrinkage", None):
        raise ValueError(
            f"sampler={sampler!r} must have shrinkage=None: texts cannot be moved a little."
        )
    if hasattr(sampler, "fit_resample") and not get_tags(sampler).input_tags.string:
        raise ValueError(
            f"sampler={sampler!r} measures distances or makes new points, which has no meaning "
            "for texts: it would run on row numbers. Use RandomOverSampler, "
            f"RandomUnderSampler or one of {SAMPLERS}."
        )


def _imblearn_rows(
    sampler: Any,
    codes: NDArray[np.int64],
    labels: NDArray[Any],
    random_state: np.random.RandomState,
) -> NDArray[np.int64]:
    """Return the rows that an imbalanced-learn sampler draws."""
    _check_sampler(sampler)
    sampler = clone(sampler)
    if getattr(sampler, "random_state", 0) is None:
        sampler.set_params(random_state=random_state.randint(np.iinfo(np.int32).max))
    sampler.fit_resample(np.arange(len(codes))[:, None], labels)
    if not hasattr(sampler, "sample_indices_"):
        raise ValueError(
            f"sampler={sampler!r} must have sample_indices_, the rows it drew, after "
            "fit_resample: texts cannot be interpolated as SMOTE does. Use RandomOverSampler, "
            f"RandomUnderSampler or one of {SAMPLERS}."
        )
    return np.asarray(sampler.sample_indices_)


def _from_torch(
    torch_sampler: Any, n: int, amount: Callable[[NDArray[np.float64]], NDArray[np.float64]]
) -> Sampling:
    """Return the :class:`Sampling` of a torch Sampler of row numbers."""

    def rows_of(sampler: Iterable[int]) -> NDArray[np.int64]:
        try:
            rows = np.fromiter(sampler, dtype=np.int64)
        except TypeError as error:
            raise ValueError(
                "sampler as a callable must return a torch.utils.data.Sampler of row numbers. "
                f"Got {sampler!r} from it."
            ) from error
        if len(rows) == 0 or rows.min() < 0 or rows.max() >= n:
            raise ValueError(
                "sampler as a callable must return a torch Sampler that draws at least one row, by "
                f"row numbers from 0 to {n - 1}. Got {rows[:5].tolist()}..."
            )
        return rows

    # One pass shows how much of each class an epoch draws. The weights of the sampler, if it has
    # any, show it without the noise of a single draw.
    rows = rows_of(torch_sampler)
    times = np.bincount(rows, minlength=n).astype(np.float64)
    weights = getattr(torch_sampler, "weights", None)
    if weights is not None and len(weights) == n and getattr(torch_sampler, "replacement", False):
        weights = np.asarray(weights, dtype=np.float64)
        times = len(rows) * weights / weights.sum()
    drawn = amount(times)
    return Sampling(lambda epoch, rng: rows_of(torch_sampler), len(rows), drawn, drawn)


def stratified_holdout(
    codes: NDArray[np.int64], fraction: float, random_state: np.random.RandomState
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Split the rows into some to train on and some to hold out, in proportion to the classes.

    Rows are shuffled and ordered by class, and every ``1 / fraction``-th is held out, so the
    number for each class is its share rounded up or down. At least one row of each class stays in
    training; a class with a single document has none held out.

    Parameters
    ----------
    codes : ndarray of shape (n,)
        Class codes.
    fraction : float
        The fraction of the rows to hold out, in (0, 1).
    random_state : numpy.random.RandomState

    Returns
    -------
    train, held_out : ndarrays of row numbers, sorted

    Examples
    --------
    >>> import numpy as np
    >>> codes = np.array([0] * 6 + [1] * 3 + [2])
    >>> train, held_out = stratified_holdout(codes, 1 / 3, np.random.RandomState(0))
    >>> np.bincount(codes[train]), np.bincount(codes[held_out])
    (array([4, 2, 1]), array([2, 1]))
    """
    shuffled = random_state.permutation(len(codes))
    order = shuffled[np.argsort(codes[shuffled], kind="stable")]
    first_of_class = np.diff(codes[order], prepend=-1) != 0
    candidates = order[~first_of_class]
    # The fraction refers to all rows, and the candidates are fewer.
    rate = min(fraction * len(order) / max(len(candidates), 1), 1)
    steps = np.floor(rate * np.arange(len(candidates) + 1) + random_state.uniform())
    held_out = candidates[np.diff(steps) > 0]
    return np.setdiff1d(order, held_out), np.sort(held_out)


def _sampler_message(sampler: Any) -> str:
    return (
        "sampler must be None, 'balanced', 'sqrt', 'progressive', a number in [0, 1], an "
        "imbalanced-learn sampler that has sample_indices_, or a callable from labels to a torch "
        f"Sampler. Got {excerpt(sampler)}."
    )
