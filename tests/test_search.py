"""Searches: cheap, the same whoever runs them, and flat in memory."""

import gc
import weakref
from collections import defaultdict

import joblib
import numpy as np
import pytest
import torch
from conftest import imbalanced
from sklearn.model_selection import GridSearchCV, cross_val_predict

from skfocal._runtime.array_store import _RECORD
from skfocal._runtime.workers import shared_folder

GRID = [{"gamma": [0.0]}, {"gamma": [2.0], "alpha": ["balanced"]}]


@pytest.fixture
def quick(make):
    """Return a function that makes a classifier of few steps."""
    return lambda **settings: make(max_epochs=1, batch_size=20, **settings)


def search(clf, data, **kwargs):
    return GridSearchCV(clf, GRID, cv=2, scoring="neg_log_loss", **kwargs).fit(*data)


def assert_same_search(one, other, X):
    assert one.best_params_ == other.best_params_
    for name in ("split0_test_score", "split1_test_score"):
        assert one.cv_results_[name].tolist() == other.cv_results_[name].tolist()
    assert one.predict_proba(X).tobytes() == other.predict_proba(X).tobytes()


def n_shared(kind):
    """Return how many entries and how many different ones worker processes have kept, by store."""
    stores = defaultdict(list)
    for path in shared_folder().glob(f"{kind}-*/files-*/*.index"):
        stores[path.parent] += np.fromfile(path, _RECORD)["key"].tolist()
    return sum(map(len, stores.values())), sum(len(set(keys)) for keys in stores.values())


def count_threads(estimator, X, y):
    return torch.get_num_threads()


# -- workers ---------------------------------------------------------------------------------

# Those of loky take seconds to start. Tests that stand together find them running.


@pytest.mark.parametrize("backend", ["loky", "threading"])
def test_parallel_jobs_find_and_refit_the_bits_of_a_sequence(quick, data, backend):
    clf = quick(dropout=0.1)
    with joblib.parallel_config(backend):
        assert_same_search(search(clf, data, n_jobs=2), search(clf, data), data[0])


@pytest.mark.parametrize("settings", [{"dropout": 0.1}, {"freeze": 1}, {"sampler": "balanced"}])
def test_folds_in_any_number_of_jobs_give_the_same_bits(quick, data, settings):
    X, y = data
    clf = quick(**settings)
    out_of_fold = [
        cross_val_predict(clf, X, y, cv=3, method="predict_proba", n_jobs=n) for n in (1, 2)
    ]
    assert out_of_fold[0].tobytes() == out_of_fold[1].tobytes()


def test_loky_workers_tokenise_each_text_once_together_and_keep_it_out_of_pickles(quick):
    X, y = imbalanced(30, 10, seed=7)
    X = [f"{text} number {i}" for i, text in enumerate(X)]
    before = n_shared("tokens")
    search(quick(), (X, y), n_jobs=2, refit=False)
    total, different = n_shared("tokens")
    assert total == different == before[0] + 40


def test_loky_workers_share_the_outputs_of_frozen_layers(quick):
    X, y = imbalanced(30, 10, seed=8)
    X = [f"{text} number {i}" for i, text in enumerate(X)]
    before = n_shared("frozen")
    parallel = search(quick(freeze=1), (X, y), n_jobs=2)
    total, different = n_shared("frozen")
    assert total == different >= before[0] + 40
    assert_same_search(parallel, search(quick(freeze=1), (X, y)), X)


@pytest.mark.parametrize(
    "settings", [pytest.param({}, marks=pytest.mark.slow), {"freeze": 1}], ids=str
)
def test_loky_workers_predict_the_bits_of_a_classifier_they_are_sent(quick, data, settings):
    clf, texts = quick(**settings).fit(*data), [f"{x} {i}" for i, x in enumerate(data[0])]
    parts = joblib.Parallel(n_jobs=2)(
        joblib.delayed(clf.predict_proba)(some) for some in (texts, texts[::-1], texts)
    )
    assert [np.array_equal(part, clf.predict_proba(texts)) for part in parts[::2]] == [True, True]
    assert np.array_equal(parts[1], clf.predict_proba(texts[::-1]))


def test_loky_divides_the_threads(quick, data, monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)  # with which a worker keeps to it
    grid = GridSearchCV(quick(), {"gamma": [0, 1]}, cv=2, scoring=count_threads)
    scores = grid.set_params(n_jobs=2, refit=False).fit(*data).cv_results_["mean_test_score"]
    assert scores.tolist() == 2 * [max(joblib.cpu_count() // 2, 1)]


# -- memory ----------------------------------------------------------------------------------


def test_no_reference_cycle_keeps_a_net_alive(make, data):
    gc.collect()
    gc.disable()
    try:
        clf = make(max_epochs=1, freeze=1, train_split=0.2, early_stopping=True).fit(*data)
        clf.predict(data[0])
        net = clf.net_
        assert not net.optimizer_.state
        assert all(p.grad is None for p in net.module_.parameters())
        dying = [weakref.ref(x) for x in (net, net.module_, net.optimizer_)]
        del clf, net
        assert [ref() for ref in dying] == [None, None, None]
    finally:
        gc.enable()


@pytest.mark.slow
def test_memory_stays_flat_over_thirty_fits(minilm):
    psutil = pytest.importorskip("psutil")
    from skfocal import BertFocalClassifier

    X, y = imbalanced(24, 8)
    clf = BertFocalClassifier(minilm, max_epochs=1, random_state=0, max_length=16)
    process, used = psutil.Process(), []

    def score(estimator, X, y):
        gc.collect()
        used.append(process.memory_info().rss)
        return estimator.score(X, y)

    grid = GridSearchCV(clf, {"gamma": np.linspace(0, 5, 15)}, cv=2, refit=False, scoring=score)
    grid.fit(X, y)
    assert len(used) == 30
    assert used[-1] < 1.05 * used[2]


@pytest.mark.gpu
def test_device_memory_stays_flat(make, data):
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    make(device="cuda").fit(*data)
    allocated = torch.cuda.memory_allocated()
    for gamma in range(5):
        make(device="cuda", gamma=gamma).fit(*data)
    assert torch.cuda.memory_allocated() <= 1.05 * allocated + 1_000_000
