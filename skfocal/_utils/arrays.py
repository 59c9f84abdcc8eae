"""Check and convert arrays, and values by label, that users pass."""

import numpy as np

from skfocal._utils.messages import excerpts

_OF_CODES = (
    " VotingClassifier, cross_val_predict(method='predict_proba') and others replace labels by "
    "0, 1, ...: give an array in the order of the labels."
)


def columns_in_order(y, classes):
    """Return an indicator as an array, the named columns of a table in the order of `classes`.

    Parameters
    ----------
    y : array-like, sparse matrix or table
        Anything but a sparse matrix, or a table with these names, is returned as it is.
    classes : array-like or None

    Returns
    -------
    array-like
    """
    if hasattr(y, "toarray"):  # sparse
        return y.toarray()
    names = [] if classes is None else np.asarray(classes).tolist()
    columns = list(getattr(y, "column_names", getattr(y, "columns", ())))  # of pyarrow, or others
    if not names or len(columns) != len(names) or {*columns} != {*names}:
        return y
    return np.asarray(y)[:, [columns.index(name) for name in names]]


def is_reordered(names, others):
    """Say whether two lists of names, of columns for one, have the same names in two orders."""
    return names != others and sorted(names, key=str) == sorted(others, key=str)


def not_among(labels, classes):
    """Return the labels that are not among the classes, sorted, each once.

    Of numbers beside strings it is all of them. ``np.setdiff1d`` finds 1 in "1" where it compares
    many, because it turns numbers into strings.

    Parameters
    ----------
    labels, classes : array-like

    Returns
    -------
    ndarray
    """
    labels, classes = (
        np.array(found.tolist()) if found.dtype.kind == "O" else found
        for found in map(np.asarray, (labels, classes))
    )
    kinds = [found.dtype.kind in "UST" for found in (labels, classes)]
    if len(classes) and kinds[0] != kinds[1]:
        return np.unique(labels)
    return np.setdiff1d(labels, classes)


def values_by_label(values, labels, name):
    """Return the values of a dict or Series that is keyed by label, in the order of `labels`.

    Parameters
    ----------
    values : dict, pandas Series or anything else
    labels : list
    name : str
        Name of the parameter, for error messages.

    Returns
    -------
    list, or None if the values are not keyed by label

    Raises
    ------
    ValueError
        If a label is missing or unknown.
    """
    if hasattr(values, "to_dict"):  # a pandas Series goes by its index, not by position
        if not getattr(values.index, "is_unique", True):
            twice = values.index[values.index.duplicated()].unique().tolist()
            raise ValueError(
                f"{name} must give one number for each class. Got several for {excerpts(twice)}."
            )
        values = values.to_dict()
    if not isinstance(values, dict):
        return None
    known = set(labels)
    unknown = [label for label in values if label not in known]
    missing = [label for label in labels if label not in values]
    if unknown or missing:
        problems = [f"unknown: {excerpts(unknown)}"] * bool(unknown)
        problems += [f"missing: {excerpts(missing)}"] * bool(missing)
        raise ValueError(
            f"{name} as a dict must give one number for each class and nothing else. "
            f"Got labels that are {'; '.join(problems)}. The classes are {excerpts(labels)}."
            + (_OF_CODES if labels == [*range(len(labels))] and not known & {*values} else "")
        )
    return [values[label] for label in labels]


def check_range(proba):
    """Raise ValueError if probabilities are not in [0, 1], but for rounding."""
    least, most = proba.min(), proba.max()
    if least < 0 or most > 1 + 1e-6:
        raise ValueError(f"proba must be in [0, 1]. Got values from {least:g} to {most:g}.")
