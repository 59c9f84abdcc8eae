"""Clusters of several machines: nothing but references travels, and the results are the same."""

import os
import pickle
import re
import shutil
import warnings
from pathlib import Path

import joblib
import numpy as np
import pytest
import torch
from clusters import TWO_NODES, score_and_tell, told, weighed_tasks
from conftest import imbalanced
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV
from sklearn.utils import _safe_indexing

import skfocal
from skfocal import cache_info, clear_cache, share
from skfocal._data import tokens
from skfocal._runtime import shared_payload

# -- in one process --------------------------------------------------------------------------

TEXTS = ["one text", "", "ein Wörtchen", "half a pair \ud83d of surrogates", "one text"]
PAIRS = [(text, text[::-1]) for text in TEXTS]


def arrived(shared):
    """Return what a worker gets, in this process, whose caches are emptied."""
    sent = pickle.dumps(shared)
    clear_cache()
    return pickle.loads(sent)


@pytest.mark.parametrize("X", [TEXTS, PAIRS], ids=["texts", "pairs"])
def test_shared_texts_are_a_sequence_of_the_texts(make, X):
    for texts in (shared := share(make(), np.array(X, dtype=object), "dask"), arrived(shared)):
        assert list(texts) == texts.to_pylist() == X and len(texts) == 5
        assert [texts[np.int64(-1)], texts[1:3]] == [X[-1], X[1:3]]
        with pytest.raises(IndexError, match="5 documents. Got index 5"):
            texts[5]
        assert _safe_indexing(texts, np.array([3, 0])) == [X[3], X[0]]


@pytest.mark.parametrize("pooling", ["auto", "mean"])
@pytest.mark.parametrize("kept", [50_000, 10], ids=["few", "very many"])
def test_who_gets_shared_texts_neither_reads_nor_tokenises(
    make, data, tiny_copy, monkeypatch, kept, pooling
):
    monkeypatch.setattr(tokens, "CACHED_DOCUMENTS", kept)
    X, y = data
    clf = make(model=str(tiny_copy), max_epochs=1, pooling=pooling)
    wanted = clone(clf).fit(X, y).predict_proba(X)
    shared = arrived(share(clf, X, "dask"))
    shutil.rmtree(tiny_copy)
    before = cache_info()
    fitted = clone(clf).fit(shared, y)
    assert np.array_equal(fitted.predict_proba(X), wanted)
    assert cache_info() == before
    fitted.predict(["not shared", *X])
    assert cache_info()["texts_tokenized"] == before["texts_tokenized"] + (kept > 10)
    clear_cache()
    with pytest.raises(OSError, match="no folder of that name"):
        clone(clf).fit(X, y)
    assert shared[0] == X[0]  # opened again
    clone(clf).fit(X, y)


def test_another_length_is_tokenised_by_who_needs_it(make, data):
    X, y = data
    shared = arrived(share(make(max_length=16), X, "dask"))
    before = cache_info()["texts_tokenized"]
    make(max_length=32, max_epochs=1).fit(shared, y)
    assert cache_info()["texts_tokenized"] - before == len(set(X))


def test_a_folder_with_other_files_is_read(make, data, tiny_copy):
    X, y = data
    clf = make(model=str(tiny_copy), max_epochs=1)
    shared = arrived(share(clf, X, "dask"))
    shared[0]
    os.utime(tiny_copy / "model.safetensors", (0, 0))
    before = cache_info()["weights_read"]
    clf.fit(X, y)
    assert cache_info()["weights_read"] == before + 1


def test_a_worker_keeps_two_payloads(make):
    payloads = [arrived(share(make(), [str(i)], "dask")) for i in range(3)]
    for i in (0, 1, 0, 2):
        assert payloads[i][0] == str(i)
    assert list(shared_payload._ARRIVED) == [payloads[0]._name, payloads[2]._name]


def test_dask_is_told_the_size_of_what_it_moves(make, data):
    shared = share(make(), data[0], "dask")
    assert 0.7 < shared.__sizeof__() / len(pickle.dumps(shared)) <= 1


def test_what_cannot_be_shared_is_refused(make, data):
    with pytest.raises(ValueError, match="cluster must be 'dask' or 'ray'.* Got 'LokyBackend'"):
        share(make(), data[0])
    with pytest.raises(ValueError, match="Got 'spark'"):
        share(make(), data[0], "spark")
    with pytest.raises(TypeError, match="estimator must be the BertFocal.* Got GridSearchCV"):
        share(GridSearchCV(make(), {}), data[0], "ray")
    with pytest.raises(ValueError, match="trust_remote_code must be False.* Got True"):
        share(make(trust_remote_code=True), data[0], "ray")
    with pytest.raises(TypeError, match="Got int in row 1"):
        share(make(), ["a", 1], "dask")


def test_sharing_draws_no_random_number_and_leaves_the_estimator(make, data):
    clf = make()
    before = torch.get_rng_state(), set(vars(clf))
    share(clf, data[0], "dask")
    assert torch.equal(torch.get_rng_state(), before[0]) and set(vars(clf)) == before[1]


# -- on two nodes ----------------------------------------------------------------------------

GRID = {"gamma": [0.0, 2.0], "alpha": [None, "balanced"]}
# Ray's and Dask's own, and that documents are cut.
on_clusters = pytest.mark.filterwarnings("ignore")


@pytest.fixture(scope="module", params=["dask", "ray"])
def cluster(request, tmp_path_factory):
    """Name, joblib's settings and the folder of the nodes' own folders."""
    pytest.importorskip({"ray": "ray", "dask": "distributed"}[request.param])
    nodes = tmp_path_factory.mktemp("nodes")
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        patch.setenv("RAY_AUTH_MODE", "disabled")
        with TWO_NODES[request.param](nodes) as settings:
            yield request.param, settings, nodes


def search(clf, X, y):
    return GridSearchCV(clf, GRID, cv=2, scoring=score_and_tell, refit=False).fit(X, y)


@pytest.mark.slow
@on_clusters
def test_two_nodes_find_what_a_sequence_finds(cluster, make, tiny_copy, tmp_path, monkeypatch):
    kind, settings, nodes = cluster
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))  # the sequence tells something, too
    X, y = imbalanced(30, 10)
    X = [40 * f"{text} number {i} " for i, text in enumerate(X)]
    n_characters = sum(map(len, X))
    clf = make(model=str(tiny_copy), max_epochs=1, max_length=32, device="cpu")
    sequence = search(clf, X, y)
    before = cache_info()
    with joblib.parallel_config(**settings, n_jobs=2):
        shared = share(clf, X)
        assert cache_info() == before  # the sequence has read and tokenised all
        # Nothing but the object store has the model now, and nobody else's files are in reach.
        os.rename(tiny_copy, tmp_path / "gone")
        with weighed_tasks() as sizes:
            on_nodes = search(clf, shared, y)
        by_node = told(nodes)
        os.rename(tmp_path / "gone", tiny_copy)
        with weighed_tasks() as sizes_of_plain:
            plain = search(clf, X, y)
    for other in (on_nodes, plain):
        assert other.best_params_ == sequence.best_params_
        for name in ("split0_test_score", "split1_test_score", "mean_test_score"):
            assert other.cv_results_[name].tolist() == sequence.cv_results_[name].tolist()
    assert sorted(by_node) == ["a", "b"]
    for worker in [*by_node["a"], *by_node["b"]]:
        assert (
            worker.pop("device") == "0"
        )  # one for each of one node's workers, of which it has one
        assert set(worker.values()) == {0}
    assert max(sizes) < 20_000 < n_characters < min(sizes_of_plain)


@pytest.mark.slow
@on_clusters
def test_blocks_of_the_page_on_clusters_run(cluster, make, data, tiny, monkeypatch, tmp_path):
    kind, _, _ = cluster
    text = Path(__file__).parents[1].joinpath("docs", "devices.md").read_text()
    blocks = re.findall(r"^```python\n(.*?)^```", text.partition("## Clusters")[2], re.M | re.S)
    first, dask, ray, tune = blocks
    scope = {"X_text": data[0], "y": data[1]}
    monkeypatch.setattr(skfocal, "fetch_minilm", lambda: tiny, raising=False)
    exec(first, scope)
    if kind == "dask":
        monkeypatch.setattr("distributed.Client", lambda address: None)  # there is one
        exec(dask, scope)
    else:
        monkeypatch.setattr("ray.init", lambda address: None)
        exec(ray, scope)
        scope["folder"] = str(tmp_path)
        exec(tune.replace("num_samples=4", "num_samples=2"), scope)
        assert set(scope["best"].config) == {"gamma", "alpha", "lr"}
    assert scope["search"].best_params_["gamma"] in (0, 1)
