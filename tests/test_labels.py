"""What y may be: the same answer for the same content, and an error that names the row."""

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from sklearn.model_selection import cross_val_predict

from skfocal import BertFocalClassifier
from skfocal._data.labels import amounts, encode

TEXTS = [f"text {i}" for i in range(4)]
NAMES, CODES = ["ham", "spam", "ham", "ham"], [0, 1, 0, 0]
ONE_EACH = "exactly one label in each row"

polars = pytest.importorskip("polars")


@pytest.mark.parametrize(
    "y",
    [
        NAMES,
        tuple(NAMES),
        np.array(NAMES),
        np.array(NAMES, dtype=object),
        np.ma.array(NAMES),
        pd.Series(NAMES),
        pd.Series(NAMES, index=[7, 7, 3, 1]),
        pd.Series(NAMES, dtype="string"),
        pd.Series(NAMES, dtype="category"),
        pd.Series(pd.Categorical(NAMES, categories=["spam", "never", "ham"])),
        pd.Categorical(NAMES, categories=["spam", "ham"], ordered=True),
        pd.Index(NAMES),
        polars.Series(NAMES),
        pa.array(NAMES),
    ],
    ids=lambda y: f"{type(y).__name__} {getattr(y, 'dtype', '')}",
)
def test_names_are_sorted_classes_in_whatever_they_come(y):
    classes, codes = encode(y, TEXTS)
    assert classes.tolist() == ["ham", "spam"] and codes.tolist() == CODES


@pytest.mark.parametrize(
    ("y", "classes"),
    [
        ([3, 5, 3, 3], [3, 5]),
        (np.array([3, 5, 3, 3], dtype=np.uint8), [3, 5]),
        (np.array([3.0, 5.0, 3.0, 3.0], dtype=np.float32), [3.0, 5.0]),
        (np.ma.array([3, 5, 3, 3]), [3, 5]),
        (pd.Series([3, 5, 3, 3], dtype="Int64"), [3, 5]),
        (pd.Series([3, 5, 3, 3], dtype="Float64"), [3.0, 5.0]),
        (pd.Series([False, True, False, False], dtype="boolean"), [False, True]),
        ([-1, 1, -1, -1], [-1, 1]),
        ([-1, 0, -1, -1], [-1, 0]),
        ([-2, -1, -2, -2], [-2, -1]),
    ],
)
def test_numbers_keep_their_type(y, classes):
    found, codes = encode(y, TEXTS)
    assert found.tolist() == classes and codes.tolist() == CODES
    assert type(found.tolist()[0]) is type(classes[0])


@pytest.mark.parametrize(
    "y",
    [
        [[name] for name in NAMES],
        [(name,) for name in NAMES],
        [{name} for name in NAMES],
        [np.array([name]) for name in NAMES],
        pd.Series([[name] for name in NAMES]),
        polars.Series([[name] for name in NAMES]),
        pa.array([[name] for name in NAMES]),
        pd.DataFrame({"ham": [1, 0, 1, 1], "spam": [0, 1, 0, 0]}),
    ],
    ids=lambda y: type(y).__name__,
)
def test_one_label_in_a_collection_each_is_several_labels_with_a_warning(y):
    with pytest.warns(UserWarning, match=ONE_EACH):
        classes, codes = encode(y, TEXTS)
    assert classes.tolist() == ["ham", "spam"]
    assert codes.tolist() == [[1, 0], [0, 1], [1, 0], [1, 0]]
    # A later chunk, or the documents to score, may happen to have one label each.
    np.testing.assert_array_equal(encode(y, TEXTS, multilabel=True)[1], codes)


def test_the_warning_of_one_hot_rows_gives_what_leads_to_one_label():
    y = np.eye(3, dtype=int)[[0, 1, 2, 0]]
    with pytest.warns(UserWarning, match=r"for example y\.argmax\(axis=1\)\."):
        encode(y, TEXTS)
    assert encode(y.argmax(axis=1), TEXTS)[1].tolist() == [0, 1, 2, 0]
    rows = [["a"], ["b"], ["b"], ["a"]]
    with pytest.warns(UserWarning, match=r"for example \[label for \(label,\) in y\]\."):
        encode(rows, TEXTS)
    assert encode([label for (label,) in rows], TEXTS)[1].tolist() == [0, 1, 1, 0]


def test_rows_with_none_or_two_labels_are_no_reason_to_warn():
    assert encode([["a"], [], ["b"], ["a"]], TEXTS)[1].sum() == 3
    assert encode([["a"], ["a", "b"], ["b"], ["a"]], TEXTS)[1].sum() == 5


@pytest.mark.parametrize(
    ("y", "value", "row"),
    [
        (["a", None, "b", "a"], "None", 1),
        (np.array(["a", np.nan, "b", "a"], dtype=object), "nan", 1),
        ([0.0, 1.0, np.nan, 0.0], "nan", 2),
        (np.array([0, 1, np.nan, 0], dtype=np.float32), "nan", 2),
        (pd.Series([0, 1, 0, None], dtype="Int64"), "<NA>", 3),
        (pd.Series([None, True, False, True], dtype="boolean"), "<NA>", 0),
        (pd.Series(["a", None, "b", "a"], dtype="string"), "<NA>", 1),
        (pd.Series(["a", None, "b", "a"], dtype="category"), "nan", 1),
    ],
    ids=lambda y: getattr(y, "dtype", None) and str(y.dtype),
)
def test_a_missing_label_is_an_error_that_names_the_row(y, value, row):
    with pytest.raises(
        ValueError, match=f"label for each document. Got {value} in row {row}. Leave"
    ):
        encode(y, TEXTS)


def test_a_masked_label_is_an_error_that_names_the_row():
    y = np.ma.array([0, 1, 5, 0], mask=[False, False, True, False])
    with pytest.raises(ValueError, match=r"Row 2 is masked\."):
        encode(y, TEXTS)
    with pytest.raises(ValueError, match=r"Row 1 is masked\."):
        encode(np.ma.array(np.eye(4), mask=np.eye(4)[[3, 1, 0, 0]] * np.eye(4)), TEXTS)


def test_torchs_mark_of_no_label_is_refused_unless_it_is_declared():
    y = [0, 1, -100, -100]
    with pytest.raises(ValueError, match="Got -100 in 2 rows, the first of them row 2: in torch"):
        encode(y, TEXTS)
    assert encode(y, TEXTS, [-100, 0, 1])[1].tolist() == [1, 2, 0, 0]


def test_minus_one_beside_other_labels_is_a_class_with_a_warning_unless_it_is_declared():
    y = [0, 1, -1, 2]
    with pytest.warns(UserWarning, match="Got -1 in 1 rows, the first of them row 2"):
        assert encode(y, TEXTS)[1].tolist() == [1, 2, 0, 3]
    assert encode(y, TEXTS, [-1, 0, 1, 2])[1].tolist() == [1, 2, 0, 3]


@pytest.mark.parametrize("mark", [-1, -100, np.nan])
def test_an_open_cell_of_an_indicator_is_named(mark):
    y = np.array([[0, 1, 0], [1, 1, 0], [0, 0, mark], [0, 0, 1]])
    with pytest.raises(ValueError, match=f"Got {mark:g} in row 2, column 2. Leave such"):
        encode(y, TEXTS)


@pytest.mark.parametrize("form", [np.array, list, pd.DataFrame])
def test_probabilities_are_no_labels(form):
    y = form([[0.2, 0.8], [0.5, 0.5], [1.0, 0.0], [0.3, 0.7]])
    with pytest.raises(ValueError, match="Probabilities cannot be labels"):
        encode(y, TEXTS)


def test_rows_of_numbers_that_repeat_one_are_no_collections():
    with pytest.raises(
        ValueError, match=r"without repeated labels, or rows of 0 and 1 .* in row 1"
    ):
        encode(pd.Series([[0, 1, 2], [0, 0, 2], [1, 0, 2], [0, 2, 1]]), TEXTS)


def test_dates_are_refused_before_the_training(tiny):
    y = np.array(["2020-01-01", "2020-01-02"] * 2, dtype="datetime64[D]")
    with pytest.raises(ValueError, match=r"Got datetime64\[D\]: use y\.astype\(str\)"):
        BertFocalClassifier(tiny).fit(TEXTS, y)
    assert encode(y.astype(str), TEXTS)[0].tolist() == ["2020-01-01", "2020-01-02"]


def test_one_hot_rows_are_told_at_the_line_of_the_user(tiny):
    clf = BertFocalClassifier(tiny, max_epochs=1, random_state=0)
    with pytest.warns(UserWarning, match=ONE_EACH) as caught:
        clf.fit(TEXTS, np.eye(2, dtype=int)[[0, 1, 1, 0]])
    assert clf.multilabel_
    assert [warning.filename for warning in caught] == [__file__]


def test_labels_that_scikit_learn_has_replaced_by_codes_are_explained(tiny):
    clf = BertFocalClassifier(tiny, max_epochs=1, classes=["ham", "spam"], random_state=0)
    X, y = TEXTS * 3, np.array(["ham", "spam"] * 6)
    with pytest.raises(ValueError, match="cross_val_predict and Calib.* replace labels by 0, 1"):
        cross_val_predict(clf, X, y, method="predict_proba", cv=2)
    codes = np.unique(y, return_inverse=True)[1]
    clf.set_params(classes=[0, 1])
    assert cross_val_predict(clf, X, codes, method="predict_proba", cv=2).shape == (12, 2)


@pytest.mark.parametrize("n", [12, 20, 200])  # numpy compares few and many in two ways
def test_numbers_are_not_taken_for_declared_strings(n):
    names, codes = [str(i) for i in range(n)] * 3, [*range(n)] * 3
    sets = [{c, (c + 1) % n} for c in codes]
    for y, declared in ((codes, names), (names, codes), (sets, names)):
        with pytest.raises(ValueError, match="classes must name at least two labels"):
            encode(y, ["text"] * 3 * n, declared)
    expected = np.searchsorted(sorted(set(names)), names)
    assert encode(names, ["text"] * 3 * n, names)[1].tolist() == expected.tolist()


@pytest.mark.parametrize("seed", range(5))
def test_a_label_that_all_documents_have_is_absent_from_none(seed):
    rng = np.random.RandomState(seed)
    weight = rng.choice([1.0, 2.0, 3.0], 734)
    weight /= weight.mean()
    codes = np.ones((734, 2), np.float32)
    codes[:, 1] = rng.uniform(size=734) < 0.3
    found = amounts(codes, weight, 2)
    assert found[0, 0] == 0
    np.testing.assert_allclose(found.sum(axis=1), weight.sum())
    np.testing.assert_allclose(found[:, 1], [weight.sum(), weight[codes[:, 1] > 0].sum()])


def test_collections_of_one_label_are_one_class():
    with pytest.raises(ValueError, match="at least two labels. Got one label only: 'a'"):
        encode([["a"], [], ["a"]], ["text"] * 3)
    assert encode([["a"], [], ["a"]], ["text"] * 3, ["a", "b"])[1].tolist() == [
        [1, 0],
        [0, 0],
        [1, 0],
    ]
