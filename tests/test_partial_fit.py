"""partial_fit over chunks, warm_start, groups for the inner split."""

import pickle

import numpy as np
import pytest
import torch
from conftest import imbalanced
from sklearn.base import clone
from sklearn.model_selection import GroupShuffleSplit
from skorch.callbacks import Callback


def weights_of(clf):
    return {k: v.clone() for k, v in clf.net_.module_.state_dict().items()}


def same(a, b):
    return all(torch.equal(a[k], b[k]) for k in a)


class Rates(Callback):
    """Collects the learning rate of each update."""

    def __init__(self):
        self.seen = []

    def __deepcopy__(self, memo):
        return self

    def on_grad_computed(self, net, **kwargs):
        self.seen.append(net.optimizer_.param_groups[0]["lr"])


@pytest.fixture(scope="module")
def tiny(few_words):
    """Folder of an encoder that knows few words, so that it is stored and read soon."""
    return few_words


@pytest.fixture
def chunks():
    """Five chunks of eight documents; the third misses a class."""
    X, y = imbalanced(32, 8)
    ham, spam = np.flatnonzero(y == "ham").tolist(), np.flatnonzero(y == "spam").tolist()
    rows = [
        [spam.pop() for _ in range(n)] + [ham.pop() for _ in range(8 - n)] for n in (2, 2, 0, 2, 2)
    ]
    return [([X[i] for i in some], y[some]) for some in rows]


# -- partial_fit -----------------------------------------------------------------------------


def test_classes_stay_over_chunks_that_miss_some(make, chunks):
    clf = make()
    for i, (X, y) in enumerate(chunks):
        clf.partial_fit(X, y, classes=["spam", "ham", "eggs"] if i == 0 else None)
        assert clf.classes_.tolist() == ["eggs", "ham", "spam"]
        assert clf.predict_proba(X).shape == (8, 3)
    assert [row["epoch"] for row in clf.history_] == [1, 2, 3, 4, 5]


def test_one_label_in_a_chunk_is_enough(make, chunks):
    clf = make(classes=["ham", "spam"]).partial_fit(*chunks[2])
    assert set(chunks[2][1]) == {"ham"} and clf.classes_.tolist() == ["ham", "spam"]


def test_it_learns(make):
    X, y = imbalanced(60, 20)
    clf = make()
    for _ in range(3):
        for start in range(0, 80, 20):
            clf.partial_fit(X[start : start + 20], y[start : start + 20], classes=["ham", "spam"])
    assert clf.score(X, y) > 0.95


def test_chunks_together_follow_the_schedule_that_was_told(make, chunks):
    rates = Rates()
    settings = {"batch_size": 4, "lr": 1.0, "warmup": 0.2, "n_updates": 10, "freeze": 2}
    clf = make(callbacks=[rates], **settings, gradient_clip=1e-9)
    for X, y in chunks:
        clf.partial_fit(X, y, classes=["ham", "spam"])
    # 2 of 10 updates up, 8 down to zero after the last
    np.testing.assert_allclose(
        rates.seen, [0.5, 1, 1, 7 / 8, 6 / 8, 5 / 8, 4 / 8, 3 / 8, 2 / 8, 1 / 8]
    )
    with pytest.warns(UserWarning, match="n_updates=10 has ended"):
        clf.partial_fit(*chunks[0])


def test_without_a_number_the_rate_stays_after_the_warm_up(make, chunks):
    rates = Rates()
    clf = make(callbacks=[rates], batch_size=2, lr=1e-3, warmup=0.5)
    for X, y in chunks[:2]:
        clf.partial_fit(X, y, classes=["ham", "spam"])
    np.testing.assert_allclose(rates.seen, [0.5e-3] + 7 * [1e-3])


def test_fit_may_be_told_a_schedule_too(make, data):
    rates = Rates()
    clf = make(callbacks=[rates], batch_size=20, max_epochs=2, lr=1e-3, warmup=0, n_updates=2)
    with pytest.warns(UserWarning, match="n_updates=2 ends before the 4 updates of this training"):
        clf.fit(*data)
    np.testing.assert_allclose(rates.seen, [1e-3, 0.5e-3, 0, 0])


def test_chunks_of_one_full_batch_are_epochs_of_a_fit(make, data):
    """Moments, schedule and weights go on: the same as one fit of three epochs."""
    X, y = data
    settings = {"batch_size": 40, "warmup": 0.0, "lr": 1e-3, "alpha": "balanced"}
    whole = make(max_epochs=3, **settings).fit(X, y)
    parts = make(n_updates=3, **settings)
    for _ in range(3):
        parts.partial_fit(X, y, classes=["ham", "spam"])
    np.testing.assert_allclose(parts.class_weight_, whole.class_weight_)
    np.testing.assert_allclose(parts.predict_proba(X), whole.predict_proba(X), atol=1e-5)
    restarted = make(n_updates=1, max_epochs=1, **settings)
    for _ in range(3):
        restarted.fit(X, y)
    assert abs(restarted.predict_proba(X) - whole.predict_proba(X)).max() > 1e-3


@pytest.mark.parametrize(
    "settings", [{"dropout": 0.1}, {"dropout": 0.0}, {"dropout": 0.3, "attention_dropout": 0.2}]
)
def test_a_pickle_between_chunks_changes_no_bit(make, chunks, settings):
    straight, broken = make(**settings), make(**settings)
    for X, y in chunks[1:4]:
        straight.partial_fit(X, y, classes=["ham", "spam"])
        broken = pickle.loads(pickle.dumps(broken)).partial_fit(X, y, classes=["ham", "spam"])
    assert same(weights_of(straight), weights_of(broken))


def test_class_weights_follow_all_chunks_so_far(make, chunks):
    clf = make(alpha="balanced")
    n_ham = n_spam = 0
    for X, y in chunks:
        clf.partial_fit(X, y, classes=["ham", "spam"])
        n_ham, n_spam = n_ham + (y == "ham").sum(), n_spam + (y == "spam").sum()
        n = n_ham + n_spam
        np.testing.assert_allclose(clf.class_weight_, [n / n_ham / 2, n / n_spam / 2])


def test_it_goes_on_after_fit_and_fit_starts_afresh(make, data, chunks):
    fitted = make().fit(*data)
    before = weights_of(fitted)
    fitted.partial_fit(*chunks[0])
    assert not same(before, weights_of(fitted)) and len(fitted.history_) == 3
    assert same(weights_of(fitted.fit(*data)), before)
    assert not fitted.net_.optimizer_.state


def test_new_parameters_count_from_the_next_chunk(make, chunks):
    clf = make().partial_fit(*chunks[0], classes=["ham", "spam"])
    clf.set_params(gamma=5.0).partial_fit(*chunks[1])
    assert clf.loss_.gamma == 5.0


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"early_stopping": True}, "early_stopping=False"),
        ({"train_split": 0.2}, "train_split=None"),
        ({"sampler": "progressive"}, "progressive"),
    ],
)
def test_settings_that_need_all_epochs_are_refused(make, chunks, params, message):
    with pytest.raises(ValueError, match=message):
        make(**params).partial_fit(*chunks[0], classes=["ham", "spam"])


def test_classes_are_needed_and_may_not_change(make, chunks):
    X, y = chunks[0]
    with pytest.raises(ValueError, match="classes must name all labels in the first call"):
        make().partial_fit(X, y)
    with pytest.raises(ValueError, match=r"without \['spam'\] of y"):
        make().partial_fit(X, y, classes=["ham", "eggs"])
    clf = make().partial_fit(X, y, classes=["ham", "spam"])
    with pytest.raises(ValueError, match="classes must be those of the earlier calls"):
        clf.partial_fit(X, y, classes=["ham", "spam", "eggs"])
    with pytest.raises(ValueError, match=r"without \['eggs'\] of y"):
        clf.partial_fit(["a", "b"], ["eggs", "ham"])


# -- warm_start ------------------------------------------------------------------------------


def test_warm_start_goes_on_from_the_fitted_weights(make, data):
    clf = make(warm_start=True, net_params={"max_epochs": 0}).fit(*data)
    start = weights_of(clf)
    assert same(weights_of(clf.fit(*data)), start)
    clf.set_params(net_params=None, lr=1e-12).fit(*data)
    for name, value in weights_of(clf).items():
        torch.testing.assert_close(value, start[name], rtol=0, atol=1e-9)
    assert not same(weights_of(clone(clf).set_params(random_state=1).fit(*data)), start)


# -- groups ----------------------------------------------------------------------------------


def test_groups_reach_the_inner_split(make, data):
    X, y = data
    groups = np.arange(40) // 4
    seen = []

    def score(estimator, texts, labels):
        seen.append(len(texts))
        return 0.0

    class Split(GroupShuffleSplit):
        def split(self, X, y=None, groups=None):
            for train, test in super().split(X, y, groups):
                assert not set(groups[train]) & set(groups[test])
                seen.extend(test)
                yield train, test

    split = Split(1, test_size=0.3, random_state=0)
    make(train_split=split, scoring=score, max_epochs=1).fit(X, y, groups=groups)
    assert seen[-1] == len(seen) - 1 == 12


def test_groups_without_a_splitter_or_of_another_length_are_refused(make, data):
    X, y = data
    with pytest.raises(ValueError, match="groups are for a splitter in train_split"):
        make(train_split=0.2).fit(X, y, groups=np.arange(40))
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        make(train_split=GroupShuffleSplit(1)).fit(X, y, groups=np.arange(39))


def test_another_optimizer_than_before_is_refused_and_leaves_the_estimator_as_it_was(make, data):
    X, y = data
    clf = make().partial_fit(X[:20], y[:20], classes=["ham", "spam"])
    before = clf.predict_proba(X)
    again = pickle.loads(pickle.dumps(clf))
    for each in (clf, again):
        each.set_params(net_params={"optimizer": torch.optim.SGD})
        with pytest.raises(ValueError, match=r"optimizer, AdamW\. Got SGD: keep the optimizer"):
            each.partial_fit(X[20:], y[20:])
        np.testing.assert_array_equal(each.predict_proba(X), before)
    clf.set_params(net_params={"optimizer__amsgrad": True})
    with pytest.raises(ValueError, match=r"had no optimizer__amsgrad\. Got True: leave it out"):
        clf.partial_fit(X[20:], y[20:])
    clf.set_params(net_params={"optimizer": torch.optim.SGD})
    with_sgd = make(net_params={"optimizer": torch.optim.SGD})
    with_sgd.partial_fit(X[:20], y[:20], classes=["ham", "spam"]).partial_fit(X[20:], y[20:])
    clf.fit(X, y)  # starts anew
    assert type(clf.net_.optimizer_) is torch.optim.SGD


def test_another_dropout_takes_effect_in_the_next_call(make, data):
    X, y = data
    one, other = (make(dropout=0.0).partial_fit(X, y, classes=["ham", "spam"]) for _ in range(2))
    one.partial_fit(X, y)
    other.set_params(dropout=0.5).partial_fit(X, y)
    dropouts = [m.p for m in other.net_.module_.modules() if isinstance(m, torch.nn.Dropout)]
    assert set(dropouts) == {0.5}
    assert not np.array_equal(one.predict_proba(X), other.predict_proba(X))
