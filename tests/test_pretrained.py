"""Pretrained weights are read once a process and never changed."""

import os

import numpy as np
import torch
from sklearn.experimental import enable_halving_search_cv  # noqa: F401
from sklearn.model_selection import GridSearchCV, HalvingGridSearchCV

from skfocal import cache_info, clear_cache


def counts():
    info = cache_info()
    return np.array([info["weights_read"], info["tokenizers_read"], info["texts_tokenized"]])


def test_a_search_reads_the_weights_once_and_tokenises_each_text_once(make, data):
    X, y = data
    clear_cache()
    before = counts()
    GridSearchCV(make(max_epochs=1), {"gamma": [0, 1, 2]}, cv=2).fit(X, y)
    assert (counts() - before).tolist() == [1, 1, len(set(X))]


def test_halving_by_epochs_of_loss_weights_and_sampler_shares_all_that_is_below_them(make, data):
    X, y = data
    clear_cache()
    before, frozen = counts(), cache_info()["documents_frozen"]
    grid = {"gamma": [0, 2], "alpha": [None, "balanced"], "sampler": [None, "sqrt"]}
    search = HalvingGridSearchCV(
        make(freeze=1), grid, resource="max_epochs", max_resources=2, factor=2, cv=2
    ).fit(X, y)
    assert search.n_candidates_ == [8, 4]  # of 24 fits and the last
    assert (counts() - before).tolist() == [1, 1, len(set(X))]
    assert cache_info()["documents_frozen"] - frozen == len(set(X))


def test_kept_weights_are_those_of_the_file_after_many_fits(make, data):
    clear_cache()
    first = make().fit(*data).predict_proba(data[0])
    again = make().fit(*data).predict_proba(data[0])
    clear_cache()
    afresh = make().fit(*data).predict_proba(data[0])
    assert np.array_equal(first, again) and np.array_equal(first, afresh)


def test_a_changed_folder_is_read_again(make, data, tiny_copy):
    from safetensors.torch import load_file, save_file

    clf = make(model=str(tiny_copy), net_params={"max_epochs": 0})
    clf.fit(*data)
    path = tiny_copy / "model.safetensors"
    weights = {name: value + 1 for name, value in load_file(path).items()}
    save_file(weights, tiny_copy / "new", metadata={"format": "pt"})
    os.replace(tiny_copy / "new", path)
    before = counts()
    clf.fit(*data)
    assert (counts() - before)[0] == 1
    name = "bert.encoder.layer.0.output.dense.bias"
    fitted = clf.net_.module_.model.state_dict()[name]
    assert torch.equal(fitted, weights[name.removeprefix("bert.")])


def test_clearing_makes_it_read_again(make, data):
    make(max_epochs=1).fit(*data)
    clear_cache()
    before = counts()
    make(max_epochs=1).fit(*data)
    assert (counts() - before).tolist() == [1, 1, len(set(data[0]))]


def test_counts_do_not_go_down_where_processes_share_files(make, data, monkeypatch):
    monkeypatch.setattr("skfocal._data.tokens.has_siblings", lambda: True)
    clear_cache()
    make(max_epochs=1).fit(*data)
    before = cache_info()
    clear_cache()
    assert cache_info() == before
    make(max_epochs=1).fit(*data)
    assert cache_info()["texts_tokenized"] == before["texts_tokenized"] + len(set(data[0]))
