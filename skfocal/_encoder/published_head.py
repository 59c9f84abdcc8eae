"""Match the head of a published classifier to the labels of y, by name."""

import re
from numbers import Real

from skfocal._encoder.head import head_of


def head_names(encoder):
    """Return the names of the parameters of the encoder's last linear layer."""
    parent, name = head_of(encoder)
    head = getattr(parent, name)
    path = next(path for path, module in encoder.named_modules() if module is head)
    return [f"{path}.{parameter}" for parameter, _ in head.named_parameters()]


def matching_rows(id2label, classes):
    """Return the row of a head for each class, or None if its labels are not those of y.

    Labels are equal if they read the same, but for upper and lower case: ``1`` is ``1.0``, ``"1"``
    and ``"LABEL_1"``.

    Parameters
    ----------
    id2label : dict of int or str -> str
        Of the published configuration.
    classes : sequence
        Labels of y.

    Returns
    -------
    list of int or None

    Examples
    --------
    >>> matching_rows({0: "positive", 1: "negative"}, ["Negative", "Positive"])
    [1, 0]
    >>> matching_rows({0: "LABEL_0", 1: "LABEL_1"}, [0, 1])
    [0, 1]
    >>> matching_rows({0: "positive", 1: "negative"}, [0, 1])
    """
    if sorted(map(int, id2label)) != list(range(len(id2label))):
        return None
    rows = {_reading(name): int(i) for i, name in id2label.items()}
    wanted = [_reading(label) for label in classes]
    if len(rows) != len(id2label) or sorted(rows) != sorted(wanted):
        return None
    return [rows[label] for label in wanted]


def _reading(label):
    if isinstance(label, Real) and not isinstance(label, bool) and float(label).is_integer():
        return str(int(float(label)))
    text = str(label).strip().casefold()
    return re.sub(r"^label_(?=\d+$)", "", text)
