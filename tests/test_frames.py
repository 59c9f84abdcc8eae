"""A frame as X: what a habit of other libraries leaves in it is named, not learned."""

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

from skfocal import BertFocalClassifier

N = 12
TEXTS = [f"text number {i}" for i in range(N)]
LABELS = ["spam" if i % 4 == 0 else "ham" for i in range(N)]
FRAME = pd.DataFrame({"text": TEXTS, "label": LABELS})


def fit(tiny, X, y):
    return BertFocalClassifier(tiny, max_epochs=1, random_state=0).fit(X, y)


@pytest.mark.parametrize(
    ("X", "y", "column"),
    [
        (FRAME[["text", "label"]], FRAME["label"], "'label'"),
        (FRAME[["label", "text"]], LABELS, "'label'"),
        (FRAME[["text", "label"]].to_numpy(), np.array(LABELS), "1"),
        (pl.DataFrame(FRAME.to_dict("list")), pl.Series(LABELS), "'label'"),
        (pa.table(FRAME.to_dict("list")), pa.array(LABELS), "'label'"),
        (list(zip(TEXTS, LABELS, strict=True)), LABELS, "1"),
        (FRAME.assign(label=[str(i % 2) for i in range(N)]), [i % 2 for i in range(N)], "'label'"),
    ],
)
def test_the_labels_among_the_columns_are_an_error(tiny, X, y, column):
    with pytest.raises(ValueError, match=f"Its column {column} is y itself.*X\\['text'\\]"):
        fit(tiny, X, y)
    with pytest.raises(ValueError, match=f"Its column {column} is y itself"):
        BertFocalClassifier(tiny).partial_fit(X, y, classes=np.unique(y))


def test_names_of_the_labels_beside_their_codes_are_told(tiny):
    codes = [int(label == "spam") for label in LABELS]
    with pytest.warns(UserWarning, match="Column 'label' of X has one text for each class of y"):
        fit(tiny, FRAME, codes)


def test_pairs_that_are_no_labels_pass(tiny):
    topics = FRAME.assign(label=["price" if i % 3 else "taste" for i in range(N)])
    assert fit(tiny, topics, FRAME["label"])._pairs


@pytest.mark.parametrize("X", [FRAME["text"], FRAME[["text"]]])
def test_an_index_in_another_order_is_an_error_with_both_ways_on(tiny, X):
    shuffled = FRAME["label"].sample(frac=1, random_state=0)
    with pytest.raises(ValueError, match=r"give y\.loc\[X\.index\], or y\.to_numpy\(\) if"):
        fit(tiny, X, shuffled)
    plain = fit(tiny, X, FRAME["label"]).predict_proba(X)
    np.testing.assert_array_equal(fit(tiny, X, shuffled.loc[X.index]).predict_proba(X), plain)
    fit(tiny, X, shuffled.to_numpy())


def test_an_index_of_other_rows_is_no_error(tiny):
    """As after a split whose one half was given a new index."""
    fit(tiny, FRAME["text"], FRAME["label"].set_axis(range(100, 100 + N)))


def test_three_columns_are_named(tiny):
    frame = FRAME.assign(id=range(N))
    for X in (frame, pl.DataFrame(frame.to_dict("list")), pa.table(frame.to_dict("list"))):
        with pytest.raises(ValueError, match=r"Got the columns \['text', 'label', 'id'\]"):
            fit(tiny, X, LABELS)


def test_a_column_of_numbers_beside_the_text_says_what_to_give(tiny):
    with pytest.raises(TypeError, match=r"int in row 0, column 1: 0\. .*give X\['text'\] alone"):
        fit(tiny, FRAME.assign(label=range(N)), LABELS)


def test_a_column_of_another_name_is_an_error_as_in_scikit_learn(tiny):
    clf = fit(tiny, FRAME[["text"]], LABELS)
    with pytest.raises(ValueError, match=r"feature names should match(.|\n)*unseen.*(.|\n)*body"):
        clf.predict(FRAME[["text"]].rename(columns={"text": "body"}))
