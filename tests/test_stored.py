"""The attributes that are stored are one explicit list."""

import pickle

import numpy as np
import pytest

from skfocal import BertFocalClassifier
from skfocal._storage.attribute_checks import BEFORE, OPTIONAL, STORED

ALWAYS = {"_plain", "_sklearn_version"}


def stored_names(clf):
    return set(clf.__getstate__()) - set(clf.get_params(deep=False)) - ALWAYS


@pytest.mark.parametrize(
    "settings",
    [
        {"alpha": "balanced"},
        {"temperature": "auto", "decision": "tuned", "train_split": 0.4},
        {"freeze": 1, "long_documents": "windows", "max_length": 8},
    ],
    ids=["plain", "held out", "windows"],
)
def test_a_fit_leaves_the_stored_attributes_and_no_others(make, data, settings):
    assert stored_names(make(**settings).fit(*data)) == set(STORED)


def test_columns_and_chunks_leave_the_optional_ones_beside(make, data):
    pd = pytest.importorskip("pandas")
    X, y = data
    clf = make().partial_fit(pd.DataFrame({"text": X}), y, classes=np.unique(y))
    assert stored_names(clf) == {*STORED, *OPTIONAL}


@pytest.mark.parametrize("name", sorted(STORED))
def test_a_pickle_that_lacks_one_is_refused_by_its_name(fitted_state, name):
    state = {key: value for key, value in fitted_state.items() if key != name}
    if name in BEFORE:  # versions before had neither, and load
        BertFocalClassifier.__new__(BertFocalClassifier).__setstate__(state)
        return
    with pytest.raises(ValueError, match=f"Got none named \\['{name}'\\]"):
        BertFocalClassifier.__new__(BertFocalClassifier).__setstate__(state)


@pytest.fixture(scope="module")
def fitted_state(tiny):
    X = ["win money", "lunch", "team lunch", "prize"] * 4
    y = ["spam", "ham", "ham", "spam"] * 4
    clf = BertFocalClassifier(tiny, max_epochs=1, random_state=0).fit(X, y)
    return pickle.loads(pickle.dumps(clf.__getstate__()))
