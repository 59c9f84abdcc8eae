"""Folders, pickles and skops files: what comes back, and what transformers makes of it."""

import copy
import json
import os
import pickle
import resource
import shutil
import signal
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import sklearn
import skops.io
import torch
import transformers
from conftest import copy_tokenizer, imbalanced
from scipy.special import expit, softmax
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import ShuffleSplit
from skorch.callbacks import Callback
from test_module import CONFIGS
from tiny_encoders import wordpiece

from skfocal import BertFocalClassifier, FocalLoss, LogitAdjustedLoss, fetch_minilm, fetch_reuters
from skfocal._runtime import process_group


@pytest.fixture(scope="module")
def make(make_of_few_words):
    """Return a function that makes classifiers of few words, which are stored and read fast.

    MiniLM's 30,000 words are in what transformers and a full disk make of a folder.
    """
    return make_of_few_words


@pytest.fixture(scope="module")
def fitted(make):
    """Return a function that fits a classifier of these parameters, or has done so before."""
    X, y = imbalanced()
    kept = {}

    def fit(name, y=y, **params):
        if name not in kept:
            kept[name] = make(**params).fit(X, y)
        return its_own(kept[name])

    return fit


def its_own(clf):
    """Return the classifier with parameters of its own, sharing what was fitted."""
    other = object.__new__(type(clf))
    vars(other).update(vars(clf))
    return other


def saved(clf, folder):
    """Save without the warning that the cosines of LDAM bring."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "loss='ldam' has a cosine head")
        clf.save_pretrained(folder)
    return folder


def reloaded(clf, tmp_path):
    return BertFocalClassifier.from_pretrained(saved(clf, tmp_path / "model"))


def through_skops(clf, tmp_path):
    data = skops.io.dumps(clf)
    assert skops.io.get_untrusted_types(data=data) == ["skfocal.classifier.BertFocalClassifier"]
    return skops.io.loads(data, trusted=["skfocal.classifier.BertFocalClassifier"])


def through_pickle(clf, tmp_path):
    return pickle.loads(pickle.dumps(clf))


WAYS = {"folder": reloaded, "skops": through_skops, "pickle": through_pickle}


def assert_same_answers(again, clf, X):
    assert np.array_equal(again.predict_proba(X), clf.predict_proba(X))
    assert np.array_equal(again.decision_function(X), clf.decision_function(X))
    predicted, expected = again.predict(X), clf.predict(X)
    assert np.array_equal(predicted, expected) and predicted.dtype == expected.dtype


def indicator(y):
    return np.stack([y == "spam", y == "ham", np.arange(len(y)) % 3 == 0], axis=1).astype(int)


SETTINGS = {
    "focal": {"sampler": "sqrt", "temperature": "auto", "decision": "tuned", "proba": "natural"},
    "prior": {"decision": "prior", "prior": {"ham": 0.3, "spam": 0.7}},
    "ldam": {"loss": "ldam", "alpha": "effective"},
    "logit_adjusted": {"loss": "logit_adjusted", "sampler": "sqrt", "label_smoothing": 0.1},
    "dice": {"loss": "dice", "loss_params": {"power": 0.2}},
    "poly1_focal": {"loss": "poly1_focal", "freeze": 1, "train_split": 0.2},
    "instance": {"loss": FocalLoss(gamma=1.0, weight=[1.0, 2.0])},
    "counts": {"loss": LogitAdjustedLoss([3, 1], tau=0.5)},
    "class": {"loss": FocalLoss, "classes": np.array(["ham", "spam"]), "gamma": np.float64(1)},
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", SETTINGS)
def test_everything_comes_back(fitted, data, tmp_path, name, way):
    X = data[0][:10]
    clf = fitted(name, **SETTINGS[name])
    again = WAYS[way](clf, tmp_path)
    assert_same_answers(again, clf, X)
    assert again.history_ == clf.history_ and again.lr_ == clf.lr_
    for attribute in ("class_loss_", "class_weight_", "effective_class_weight_", "class_prior_"):
        assert np.array_equal(getattr(again, attribute), getattr(clf, attribute)), attribute
    assert repr(again.loss_) == repr(clf.loss_) and repr(again) == repr(clf)
    assert repr(clone(again)) == repr(clf)
    for proba in ("softmax", "natural"):
        if clf.loss_.has_posterior:
            again.set_params(proba=proba), clf.set_params(proba=proba)
            assert_same_answers(again, clf, X)
    assert_same_answers(through_pickle(again, tmp_path), clf, X)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("loss", ["focal", "asymmetric", "distribution_balanced"])
def test_several_labels_come_back(fitted, data, tmp_path, loss, way):
    X, y = data
    clf = fitted(f"labels, {loss}", indicator(y), loss=loss, alpha="balanced")
    assert_same_answers(WAYS[way](clf, tmp_path), clf, X)


@pytest.mark.parametrize(
    "labels", [np.array([0, 1]), np.array([-1.0, 2.0]), np.array([False, True])]
)
def test_labels_come_back_with_their_type(make, data, tmp_path, labels):
    X, y = data
    clf = make().fit(X, labels[(y == "spam").astype(int)])
    assert_same_answers(reloaded(clf, tmp_path), clf, X)


def test_names_of_columns_come_back(make, data, tmp_path):
    pd = pytest.importorskip("pandas")
    X, y = data
    table = pd.DataFrame({"text": X})
    clf = make().fit(table, y)
    again = reloaded(clf, tmp_path)
    assert again.feature_names_in_.tolist() == ["text"] and again.n_features_in_ == 1
    assert_same_answers(again, clf, table)


@pytest.mark.parametrize("way", WAYS)
def test_chunks_go_on_to_the_same_bits(make, data, tmp_path, way):
    X, y = data
    whole = make(alpha="balanced", dropout=0.1, n_updates=9).partial_fit(X, y, ["ham", "spam"])
    again = WAYS[way](whole, tmp_path)
    assert_same_answers(again.partial_fit(X[:20], y[:20]), whole.partial_fit(X[:20], y[:20]), X)


def test_moments_are_stored_after_chunks_only(make, fitted, data, tmp_path):
    X, y = data
    saved(fitted("plain"), tmp_path / "fit")
    saved(make().partial_fit(X, y, ["ham", "spam"]), tmp_path / "chunks")
    assert (tmp_path / "chunks" / "moments.safetensors").exists()
    assert not (tmp_path / "fit" / "moments.safetensors").exists()


def test_warm_start_goes_on_to_the_same_bits_and_to_longer_documents(make, data, tmp_path):
    X, y = data
    clf = make(warm_start=True, max_length=16).fit(X, y)
    again = reloaded(clf, tmp_path)
    for each in (again, clf):
        each.set_params(max_length=64).fit(X, y)
    assert again.max_length_ == 64
    assert_same_answers(again, clf, X)


# -- what transformers make of a folder -----------------------------------------------------


@pytest.fixture(params=CONFIGS)
def architecture(request, tmp_path):
    config, folder = copy.deepcopy(CONFIGS[request.param]), tmp_path / "encoder"
    if request.param == "bert":
        copy_tokenizer(folder)
    else:  # few words, after the special tokens
        config.vocab_size = wordpiece(folder)
        config.update({"bos_token_id": 2, "cls_token_id": 2, "eos_token_id": 3, "sep_token_id": 3})
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = transformers.AutoModelForSequenceClassification.from_config(config)
    model.save_pretrained(folder)
    return folder


def piped(folder, X):
    """Return the labels and the scores of a text-classification pipeline."""
    pipeline = transformers.pipeline("text-classification", str(folder), top_k=None)
    rows = pipeline(X, truncation=True)
    scores = [{entry["label"]: entry["score"] for entry in row} for row in rows]
    return [row[0]["label"] for row in rows], scores


@pytest.mark.filterwarnings("ignore:The head of model")
def test_pipeline_of_each_architecture_gives_labels_and_softmax(
    architecture, make, data, tmp_path, capfd
):
    X, y = data
    X = [text + " long" * (i % 3 * 30) for i, text in enumerate(X)]
    clf = make(model=architecture, proba="softmax", max_length=16)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "You seem to be using the pipelines sequentially")
        warnings.filterwarnings("ignore", ".*documents have more than max_length")
        clf.fit(X, y)
        texts = X[:12]
        labels, scores = piped(saved(clf, tmp_path / "model"), texts)
    assert labels == clf.predict(texts).tolist()
    columns = np.array([[row[label] for label in ("ham", "spam")] for row in scores])
    np.testing.assert_allclose(columns, clf.predict_proba(texts), atol=1e-5)
    again = BertFocalClassifier.from_pretrained(tmp_path / "model")
    assert_same_answers(again, clf, X)
    # Saved again from what was loaded, it is still the same to transformers.
    assert piped(saved(again, tmp_path / "again"), texts)[0] == labels


def test_pipeline_gives_sigmoids_of_several_labels(make, data, tmp_path):
    X, y = data
    clf = make(proba="softmax").fit(X, indicator(y))
    _, scores = piped(saved(clf, tmp_path / "model"), X)
    columns = np.array([[row[str(label)] for label in clf.classes_] for row in scores])
    np.testing.assert_allclose(columns, clf.predict_proba(X), atol=1e-5)
    np.testing.assert_allclose(columns, expit(clf.decision_function(X)), atol=1e-5)


def test_head_of_cosines_is_warned_of_and_named_in_the_card(fitted, tmp_path):
    clf = fitted("ldam", **SETTINGS["ldam"])
    with pytest.warns(UserWarning, match="cosine head, which transformers does not know"):
        clf.save_pretrained(tmp_path / "model")
    assert "skfocal alone reads" in " ".join((tmp_path / "model" / "README.md").read_text().split())


def test_card_has_metrics_and_classes_and_no_markup_from_labels(make, data, tmp_path):
    X, y = data
    y = np.where(y == "ham", "ham", "`</a>\n# spam")
    clf = make(max_epochs=1).fit(X, y)
    clf.save_pretrained(tmp_path / "model", metrics={"macro-F1": np.float64(0.9123)})
    card = (tmp_path / "model" / "README.md").read_text()
    assert "| `macro-F1` | 0.9123 |" in card and "`ham`" in card and "\n# spam" not in card
    assert card.startswith("---\nlibrary_name: skfocal\npipeline_tag: text-classification\n")
    with pytest.raises(ValueError, match="metrics must be a dict of names and numbers"):
        clf.save_pretrained(tmp_path / "other", metrics={"f1": "good"})
    assert not (tmp_path / "other").exists()


def test_upload_makes_a_repository_and_sends_the_folder(fitted, data, tmp_path, monkeypatch):
    calls = []

    class Url(str):
        repo_id = "me/model"

    class Hub:
        def __init__(self, token=None):
            calls.append(token)

        def create_repo(self, repo_id, **settings):
            calls.append((repo_id, settings))
            return Url("address of the repository")

        def upload_folder(self, *, repo_id, folder_path, **settings):
            calls.append((repo_id, settings["commit_message"]))
            shutil.copytree(folder_path, tmp_path / "hub")

    monkeypatch.setattr("huggingface_hub.HfApi", Hub)
    clf = fitted("plain")
    url = clf.push_to_hub("model", metrics={"f1": 1.0}, private=True, token="t", commit_message="c")
    assert url == "address of the repository" and type(url) is str
    assert calls == ["t", ("model", {"private": True, "exist_ok": True}), ("me/model", "c")]
    assert "`f1`" in (tmp_path / "hub" / "README.md").read_text()
    assert_same_answers(BertFocalClassifier.from_pretrained(tmp_path / "hub"), clf, data[0])


def test_one_of_several_processes_uploads(fitted, monkeypatch):
    monkeypatch.setattr("skfocal.classifier.process_group.speaks", lambda: False)
    monkeypatch.setattr("huggingface_hub.HfApi", None)
    assert fitted("plain").push_to_hub("model") is None


def test_a_folder_holds_what_fit_sets_and_no_notes_of_a_session(fitted, data, tmp_path):
    clf = fitted("plain")
    with sklearn.config_context(enable_metadata_routing=True):
        clf.set_fit_request(sample_weight=True)
    clf.set_output(transform="pandas").note = "mine"
    clf.save_pretrained(tmp_path / "model")
    again = BertFocalClassifier.from_pretrained(tmp_path / "model")
    assert_same_answers(again, clf, data[0])
    assert set(vars(clf)) - set(vars(again)) == {
        "_metadata_request", "_sklearn_output_config", "note"
    }  # fmt: skip


def test_moments_of_another_optimizer_than_adamw_are_not_stored(make, data, tmp_path):
    X, y = data
    params = {"optimizer": torch.optim.SGD, "optimizer__momentum": 0.9}
    clf = make(net_params=params).partial_fit(X[:20], y[:20], classes=["ham", "spam"])
    clf.save_pretrained(tmp_path / "model")
    for net_params, kind in ((params, torch.optim.SGD), (None, torch.optim.AdamW)):
        with pytest.warns(UserWarning, match=r"\['net_params'\].* were not stored"):
            again = BertFocalClassifier.from_pretrained(tmp_path / "model")
        before = again.predict_proba(X)
        again.set_params(net_params=net_params).partial_fit(X[20:], y[20:])
        assert type(again.net_.optimizer_) is kind
        assert not np.array_equal(again.predict_proba(X), before)


def test_unfitted_classifier_is_not_written(make, tmp_path):
    for method in ("save_pretrained", "to_onnx"):
        with pytest.raises(NotFittedError):
            getattr(make(), method)(tmp_path / "model")
    assert os.listdir(tmp_path) == []


# -- what is no plain data --------------------------------------------------------------------


class Quiet(Callback):
    pass


def hinge(logits, target):
    return torch.nn.functional.multi_margin_loss(logits, target, reduction="none")


def test_what_is_left_out_is_named_once_and_has_its_default(make, data, tmp_path):
    X, y = data
    given = {
        "callbacks": [Quiet()],
        "scoring": lambda clf, X, y: 0.0,
        "train_split": ShuffleSplit(1, random_state=0),
        "random_state": np.random.RandomState(0),
        "net_params": {"max_epochs": 1},
        "loss": hinge,
    }
    clf = make(**given).fit(X, y)
    clf.save_pretrained(tmp_path / "model")
    with pytest.warns(UserWarning, match="were not stored and have their defaults") as caught:
        again = BertFocalClassifier.from_pretrained(tmp_path / "model")
    assert len(caught) == 1 and all(name in str(caught[0].message) for name in given)
    assert all(
        again.get_params()[name] == BertFocalClassifier().get_params()[name] for name in given
    )
    assert_same_answers(again, clf, X)
    assert "callbacks" in (tmp_path / "model" / "README.md").read_text()
    with pytest.raises(NotImplementedError, match="pass it as loss= again"):
        again.loss_(torch.zeros(1, 2), torch.tensor([0]))
    again.set_params(loss=hinge, warm_start=True).fit(X, y)


class Mine(FocalLoss):
    """A focal loss of the user's."""


def test_own_loss_that_predictions_need_is_refused(make, data, tmp_path):
    X, y = data
    clf = make(loss=Mine()).fit(X, y)
    with pytest.raises(TypeError, match="loss_=Mine is code of your own.*proba='softmax'"):
        clf.save_pretrained(tmp_path / "model")
    saved(clf.set_params(proba="softmax"), tmp_path / "model")
    with pytest.warns(UserWarning, match="'loss'"):
        again = BertFocalClassifier.from_pretrained(tmp_path / "model")
    # Nothing is left of what the loss knew, so "auto" is the softmax from here on.
    assert_same_answers(again.set_params(proba="auto"), clf, X)


def test_own_loss_stays_in_a_pickle_and_is_named_by_skops(make, data):
    X, y = data
    clf = make(loss=Mine(gamma=1.0)).fit(X, y)
    assert type(pickle.loads(pickle.dumps(clf)).loss_) is Mine
    assert f"{__name__}.Mine" in skops.io.get_untrusted_types(data=skops.io.dumps(clf))


def test_values_by_label_and_paths_become_plain(make, data, tmp_path, tiny):
    pd = pytest.importorskip("pandas")
    X, y = data
    prior = pd.Series({"ham": 0.5, "spam": 0.5})
    clf = make(model=Path(tiny), prior=prior, decision="prior", device=torch.device("cpu"))
    again = reloaded(clf.fit(X, y), tmp_path)
    assert again.prior == {"ham": 0.5, "spam": 0.5}
    assert (again.model, again.device) == (tiny, "cpu")
    assert_same_answers(again, clf, X)


# -- older states ------------------------------------------------------------------------------


def test_classes_as_a_series_come_back_as_labels(make, data, tmp_path):
    pd = pytest.importorskip("pandas")
    clf = make(max_epochs=1, classes=pd.Series(["ham", "spam"])).fit(*data)
    clf.save_pretrained(tmp_path / "folder")
    again = BertFocalClassifier.from_pretrained(tmp_path / "folder")
    assert again.classes.tolist() == ["ham", "spam"]
    again.fit(*data)


def test_what_a_callback_recorded_is_left_out_if_it_is_no_plain_data(make, data, tmp_path):
    class Records(Callback):
        def on_epoch_end(self, net, **kwargs):
            net.history.record("when", object())
            net.history.record("count", 3)

    clf = make(callbacks=[Records()], checkpoint=tmp_path / "run").fit(*data)
    clf.set_params(callbacks=None, checkpoint=None).save_pretrained(tmp_path / "folder")
    row = BertFocalClassifier.from_pretrained(tmp_path / "folder").history_[0]
    assert row["count"] == 3
    assert "when" not in row


# -- writing: whole or not at all ----------------------------------------------------------------


def test_folder_of_the_same_kind_is_replaced_as_a_whole(make, fitted, data, tmp_path):
    X, y = data
    saved(make(gamma=0).partial_fit(X, y, ["ham", "spam"]), tmp_path / "model")
    clf = fitted("plain")
    saved(clf, tmp_path / "model")
    assert not (tmp_path / "model" / "moments.safetensors").exists()
    assert_same_answers(BertFocalClassifier.from_pretrained(tmp_path / "model"), clf, X)
    (tmp_path / "empty").mkdir()
    saved(clf, tmp_path / "empty")
    (tmp_path / "link").symlink_to(tmp_path / "model")
    saved(clf.set_params(verbose=1), tmp_path / "link")
    assert BertFocalClassifier.from_pretrained(tmp_path / "model").verbose == 1
    assert sorted(os.listdir(tmp_path)) == ["empty", "link", "model"]


@pytest.mark.parametrize("other", ["notes.txt", ".git/", "config.json"])
def test_folder_with_anything_else_is_left_alone(fitted, tmp_path, other):
    clf = fitted("plain")
    if other != "config.json":  # that one is an encoder's, without ours beside it
        saved(clf, tmp_path / "model")
    if other.endswith("/"):
        (tmp_path / "model" / other).mkdir()
    else:
        (tmp_path / "model").mkdir(exist_ok=True)
        (tmp_path / "model" / other).write_text("kept")
    before = sorted(os.listdir(tmp_path / "model"))
    with pytest.raises(FileExistsError, match="folder must be new, empty or written by"):
        clf.save_pretrained(tmp_path / "model")
    assert sorted(os.listdir(tmp_path / "model")) == before
    assert os.listdir(tmp_path) == ["model"]


def test_files_may_be_read_by_those_who_may_read_the_folder(make, data, tmp_path):
    before = os.umask(0o027)
    try:
        make().partial_fit(*data, ["ham", "spam"]).save_pretrained(tmp_path / "model")
    finally:
        os.umask(before)
    assert (tmp_path / "model").stat().st_mode & 0o777 == 0o750
    assert {p.stat().st_mode & 0o777 for p in (tmp_path / "model").iterdir()} == {0o640}


def test_file_in_the_folders_place_is_left_alone(fitted, tmp_path):
    (tmp_path / "model").write_text("kept")
    with pytest.raises(FileExistsError, match="with a file"):
        fitted("plain").save_pretrained(tmp_path / "model")
    assert (tmp_path / "model").read_text() == "kept"


@pytest.fixture(scope="module")
def two_of_many_words(make, tiny):
    """Two classifiers whose tokenizer and weights are large files."""
    return [make(model=tiny, gamma=gamma, max_epochs=1).fit(*imbalanced()) for gamma in (2.0, 0.0)]


@pytest.mark.parametrize("limit", [100, 2_000, 100_000, 1_000_000])
def test_full_disk_leaves_the_folder_as_it_was(two_of_many_words, data, tmp_path, limit):
    X = data[0]
    first, second = two_of_many_words
    saved(first, tmp_path / "model")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limits[1]))
    try:
        for folder in ("model", "new"):
            with pytest.raises(OSError):
                second.save_pretrained(tmp_path / folder)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, ignored)
    assert os.listdir(tmp_path) == ["model"]
    assert_same_answers(BertFocalClassifier.from_pretrained(tmp_path / "model"), first, X)


def die_at(moment, folder):
    """Count what touches files in a folder, and end the process at the given count."""
    count = 0

    def hook(event, args):
        nonlocal count
        if event in ("os.rename", "os.mkdir", "os.rmdir", "os.remove", "open"):
            if str(args[0]).startswith(str(folder)):
                count += 1
            if count == moment:
                os._exit(9)

    return hook


@pytest.mark.slow
def test_killed_at_any_moment_the_folder_is_the_old_or_the_new_or_not_there(make, data, tmp_path):
    X, y = data
    first, second = make().fit(X, y), make(gamma=0.0).fit(X, y)
    saved(first, tmp_path / "first")
    old, new = first.predict_proba(X[:2]), second.predict_proba(X[:2])
    states, moment = set(), 0
    while "done" not in states:
        moment += 1
        home = tmp_path / str(moment)
        shutil.copytree(tmp_path / "first", home / "model")
        child = os.fork()
        if not child:
            sys.addaudithook(die_at(moment, home))
            second.save_pretrained(home / "model")
            os._exit(0)
        if os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0:
            states.add("done")
        if not (home / "model").exists():
            states.add("none")
        else:
            proba = BertFocalClassifier.from_pretrained(home / "model").predict_proba(X[:2])
            assert np.array_equal(proba, old) or np.array_equal(proba, new)
            states.add("old" if np.array_equal(proba, old) else "new")
        shutil.rmtree(home)
    assert states == {"done", "old", "none", "new"} and moment > 20


# -- real ------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_minilm_on_reuters_comes_back_and_serves_in_a_pipeline(tmp_path):
    X, y = fetch_reuters("r8", subset="train", return_X_y=True)
    clf = BertFocalClassifier(
        fetch_minilm(), alpha="balanced", max_length=48, freeze=5, max_epochs=1, random_state=0
    )
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*documents have more than max_length")
        clf.fit(X[:600], y[:600])
    texts = X[600:700]
    clf.save_pretrained(tmp_path / "model", metrics={"accuracy": clf.score(texts, y[600:700])})
    again = BertFocalClassifier.from_pretrained(tmp_path / "model")
    assert_same_answers(again, clf, texts)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "You seem to be using the pipelines sequentially")
        labels, scores = piped(tmp_path / "model", texts)
    proba = clf.set_params(proba="softmax").predict_proba(texts)
    assert labels == clf.predict(texts).tolist() and len(set(labels)) > 3
    columns = np.array([[row[label] for label in clf.classes_] for row in scores])
    np.testing.assert_allclose(columns, proba, atol=1e-5)
    np.testing.assert_allclose(softmax(np.log(columns), axis=1), columns, atol=1e-6)
    assert json.loads((tmp_path / "model" / "config.json").read_text())["id2label"]["0"] == "acq"


def test_reading_a_folder_asks_no_other_process(make, data, tmp_path, monkeypatch):
    make(max_epochs=1).fit(*data).save_pretrained(tmp_path / "saved")

    def refuse():
        pytest.fail("waits for the other processes")

    monkeypatch.setattr(process_group, "is_launched", lambda: True)
    monkeypatch.setattr(process_group, "_connect", refuse)
    clf = BertFocalClassifier.from_pretrained(tmp_path / "saved")
    assert clf.classes_.tolist() == ["ham", "spam"]
