"""The features of documents: what the logits are computed from, also as a step of a pipeline."""

import pickle
import threading

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import imbalanced
from sklearn.base import clone
from sklearn.compose import make_column_transformer
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from tiny_encoders import FAMILIES

from skfocal import BertFocalClassifier, Windows
from skfocal._encoder.head import head_of
from skfocal._estimator.fitted_model import FittedModel

pytestmark = pytest.mark.filterwarnings("ignore:.*precision='bfloat16' is slower")

TEXTS = ["win money now", "lunch with the whole team at noon", "report"]


def logits_from(clf, features):
    """Return what the last linear layer makes of features."""
    head = getattr(*head_of(clf.net_.plain_module().model))
    with torch.no_grad():
        return head(torch.from_numpy(features)).numpy()


def logits(clf, X):
    return FittedModel.of(clf).logits(X)


@pytest.fixture(scope="module")
def fitted(make_of_few_words):
    """A classifier that no test changes."""
    return make_of_few_words().fit(*imbalanced())


@pytest.mark.parametrize(
    "params",
    [
        {},
        {"pooling": "mean"},
        {"pooling": "last", "freeze": 1},
        {"freeze": 1},
        {"loss": "ldam"},
        {"pooling": "mean", "precision": "bfloat16"},
    ],
    ids=str,
)
def test_the_last_layer_makes_the_logits_of_them(make_of_few_words, params):
    X, y = imbalanced()
    clf = make_of_few_words(**params).fit(X, y)
    features = clf.transform(X)
    assert features.dtype == np.float32 and features.shape == (40, 32)
    # Cosines are the same at any scale; only bfloat16 rounds in the layer.
    tolerance = 0.02 if "precision" in params else 1e-5
    np.testing.assert_allclose(logits_from(clf, features), logits(clf, X), atol=tolerance)


def test_several_labels_have_the_same_kind(make_of_few_words):
    X, y = imbalanced()
    clf = make_of_few_words().fit(X, [["a"] if label == "ham" else ["a", "b"] for label in y])
    np.testing.assert_allclose(logits_from(clf, clf.transform(X)), logits(clf, X), atol=1e-5)


@pytest.mark.parametrize("family", ["distilbert", "roberta", "deberta", "electra", "bart"])
def test_each_architecture_has_them(family, tmp_path):
    FAMILIES[family](tmp_path)
    X, y = imbalanced(6, 4)
    clf = BertFocalClassifier(tmp_path, max_epochs=1, random_state=0).fit(X, y)
    np.testing.assert_allclose(logits_from(clf, clf.transform(X)), logits(clf, X), atol=1e-5)


def test_a_head_on_every_token_is_refused(tmp_path):
    FAMILIES["gpt2"](tmp_path)
    X, y = imbalanced(6, 4)
    clf = BertFocalClassifier(tmp_path, max_epochs=1, random_state=0).fit(X, y)
    with pytest.raises(ValueError, match="from more than one vector: set pooling='mean' or"):
        clf.transform(X)
    assert clf.predict(X).shape == (10,)  # no hook is left behind
    pickle.dumps(clf)


def test_batch_mates_and_padding_do_not_count(fitted):
    together = fitted.transform(TEXTS)
    alone = np.concatenate([fitted.transform([text]) for text in TEXTS])
    np.testing.assert_allclose(together, alone, atol=1e-5)
    assert np.array_equal(fitted.transform(iter([TEXTS[:2], TEXTS[2:]])).shape, together.shape)
    np.testing.assert_allclose(fitted.transform(iter([TEXTS[:2], TEXTS[2:]])), together, atol=1e-5)


def test_windows_have_the_mean_of_theirs(make_of_few_words):
    long_documents = Windows(stride=0)
    clf = make_of_few_words(max_length=6, long_documents=long_documents).fit(*imbalanced())
    # Two special tokens leave room for four words.
    first, second = "win money prize cash", "lunch report team"
    whole = clf.transform([f"{first} {second}"])[0]
    np.testing.assert_allclose(whole, clf.transform([first, second]).mean(0), atol=1e-5)


@pytest.mark.parametrize("precision", ["bfloat16", "int8"])
def test_another_precision_is_near(fitted, precision):
    exact = fitted.transform(TEXTS)
    reduced = pickle.loads(pickle.dumps(fitted)).set_params(predict_precision=precision)
    rough = reduced.transform(TEXTS)
    assert not np.array_equal(rough, exact)
    np.testing.assert_allclose(rough, exact, atol=0.05 * abs(exact).max())


def test_files_and_pickles_have_the_same_bits(fitted, tmp_path):
    expected = fitted.transform(TEXTS)
    assert np.array_equal(pickle.loads(pickle.dumps(fitted)).transform(TEXTS), expected)
    fitted.save_pretrained(tmp_path / "model")
    again = BertFocalClassifier.from_pretrained(tmp_path / "model")
    assert np.array_equal(again.transform(TEXTS), expected)


def test_threads_do_not_see_each_other(fitted):
    X = [[f"{word} {n}" for n in range(20)] for word in ("win", "money", "lunch", "team")]
    expected = [fitted.transform(part) for part in X]
    found = [None] * len(X)

    def work(i):
        for _ in range(5):
            found[i] = fitted.transform(X[i])

    threads = [threading.Thread(target=work, args=(i,)) for i in range(len(X))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(map(np.array_equal, found, expected))


# -- as scikit-learn has it ----------------------------------------------------------------


def test_columns_have_names(fitted):
    names = fitted.get_feature_names_out()
    assert names[0] == "bertfocalclassifier0" and len(names) == 32
    with pytest.raises(NotFittedError):
        clone(fitted).get_feature_names_out()


def test_a_frame_keeps_the_index(make_of_few_words):
    X, y = imbalanced()
    clf = make_of_few_words().set_output(transform="pandas").fit(X, y)
    frame = clf.transform(pd.DataFrame({"text": TEXTS}, index=[5, 7, 9]))
    assert frame.index.tolist() == [5, 7, 9]
    assert frame.columns.tolist() == clf.get_feature_names_out().tolist()


def test_neighbours_follow_in_a_pipeline(make_of_few_words):
    X, y = imbalanced()
    pipeline = make_pipeline(make_of_few_words(), KNeighborsClassifier(3)).fit(X, y)
    features = clone(pipeline[0]).fit(X, y).transform(X)
    direct = KNeighborsClassifier(3).fit(features, y)
    assert np.array_equal(pipeline.predict(X), direct.predict(features))
    assert pipeline.score(X, y) > 0.9


def test_columns_of_numbers_stand_beside_text(make_of_few_words):
    X, y = imbalanced()
    frame = pd.DataFrame({"text": X, "size": np.arange(40.0)})
    encoder = make_of_few_words(pooling="mean")
    both = make_column_transformer((encoder, "text"), ("passthrough", ["size"]))
    model = make_pipeline(both, StandardScaler(), LogisticRegression()).fit(frame, y)
    assert model[:-1].transform(frame).shape == (40, 33)
    assert model[:-1].get_feature_names_out()[-1] == "passthrough__size"
    assert model.score(frame, y) > 0.9
