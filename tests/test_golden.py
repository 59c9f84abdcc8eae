"""What earlier versions have stored is read as it was meant."""

import inspect
import json
import pickle
import shutil
import warnings
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
from compare_trees import translated
from torch.optim.optimizer import register_optimizer_step_post_hook

import skfocal
from skfocal import BertFocalClassifier, OnnxClassifier, persistence
from skfocal.serving import _format

GOLDEN = Path(__file__).parent / "golden"
FITS = sorted(set(GOLDEN.glob("version-*/fits/*")) - set(GOLDEN.glob("version-*/fits/*.json")))
CHECKPOINTS = sorted(GOLDEN.glob("version-*/checkpoints/*"))


def name_of(path):
    return f"{path.parents[1].name.removeprefix('version-')}-{path.name}"


# -- formats with a number of their own ------------------------------------------------------


@pytest.mark.parametrize("version", range(1, persistence.FORMAT_VERSION + 1))
def test_saved_folder_answers_as_recorded(version):
    recorded = json.loads((GOLDEN / f"answers-{version}.json").read_text())
    assert_answers(BertFocalClassifier.from_pretrained(GOLDEN / f"folder-{version}"), recorded)


@pytest.mark.parametrize("version", range(1, _format.FORMAT_VERSION + 1))
def test_exported_folder_answers_as_recorded(version):
    recorded = json.loads((GOLDEN / f"answers-{version}.json").read_text())
    assert_answers(OnnxClassifier(GOLDEN / f"onnx-{version}"), recorded)


def assert_answers(clf, recorded, name="answers", rtol=1e-4, atol=1e-5):
    texts, expected = recorded["texts"], recorded[name]
    assert clf.predict(texts).tolist() == expected["predict"]
    for method in ("predict_proba", "decision_function"):
        values = getattr(clf, method)(texts)
        np.testing.assert_allclose(values, expected[method], rtol=rtol, atol=atol)


# -- fitted classifiers of earlier versions ----------------------------------------------------


def load(path):
    """Return the classifier in a pickle, a skops file or a folder."""
    if path.suffix == ".pickle":
        return pickle.loads(path.read_bytes())
    if path.suffix == ".skops":
        sio = pytest.importorskip("skops.io")
        return sio.load(path, trusted=["skfocal.classifier.BertFocalClassifier"])
    return BertFocalClassifier.from_pretrained(path)


def parameters_now(recorded):
    """Return the parameters of then as they are written now, without one that is gone."""
    accepted = inspect.signature(BertFocalClassifier).parameters
    kept = {k: v for k, v in recorded["parameters"].items() if k != "prune" or k in accepted}
    return translated(kept, skfocal)


@pytest.mark.parametrize("path", FITS, ids=name_of)
def test_fitted_classifier_of_an_earlier_version_answers_as_recorded(path):
    recorded = json.loads(path.with_suffix(".json").read_text())
    clf = load(path)
    assert_answers(clf, recorded)
    given = {name: clf.get_params()[name] for name in parameters_now(recorded)}
    assert repr(given) == repr(parameters_now(recorded))
    assert_answers(pickle.loads(pickle.dumps(clf)), recorded)


@pytest.mark.parametrize("path", [path for path in FITS if path.stem == "chunks"], ids=name_of)
def test_chunks_go_on_from_an_earlier_version(path):
    recorded = json.loads(path.with_suffix(".json").read_text())
    clf = load(path).partial_fit(recorded["X"], recorded["y"])
    assert_answers(clf, recorded, "answers_after_another_chunk", rtol=1e-2, atol=1e-3)


# -- checkpoints of earlier versions -----------------------------------------------------------


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    """The recorded encoder, its head named: the fits began with it, which had no names then."""
    folder = tmp_path_factory.mktemp("encoder")
    shutil.copytree(CHECKPOINTS[0].parents[1] / "encoder", folder, dirs_exist_ok=True)
    config = json.loads((folder / "config.json").read_text())
    config |= {"id2label": {0: "ham", 1: "spam"}, "label2id": {"ham": 0, "spam": 1}}
    (folder / "config.json").write_text(json.dumps(config))
    return str(folder)


def fit(encoder, recorded, **checkpoint):
    """Return a classifier as the recorded one, and the number of updates that took."""
    count = 0

    def hook(optimizer, args, kwargs):
        nonlocal count
        count += 1

    params = translated({**recorded["parameters"], **checkpoint}, skfocal)
    handle = register_optimizer_step_post_hook(hook)
    try:
        clf = BertFocalClassifier(encoder, **params)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # of documents that are cut
            return clf.fit(recorded["X"], recorded["y"]), count
    finally:
        handle.remove()


def bits(weights):
    """Return the bytes of each tensor, whatever their names are today."""
    return sorted(weight.numpy().tobytes() for weight in weights.values())


@pytest.mark.parametrize("folder", CHECKPOINTS, ids=name_of)
def test_checkpoint_of_an_earlier_version_goes_on_to_the_end_of_the_uninterrupted_fit(
    folder, encoder, tmp_path
):
    recorded = json.loads((folder / "fit.json").read_text())
    end = bits(safetensors.torch.load_file(folder / "end.safetensors"))
    shutil.unpack_archive(folder / "run.zip", tmp_path)
    resumed, n_updates = fit(encoder, recorded, checkpoint=str(tmp_path), checkpoint_steps=16)
    assert n_updates == recorded["updates_left"]
    losses = resumed.history_[:, "train_loss"]
    np.testing.assert_allclose(losses, recorded["train_loss"], rtol=1e-2, atol=1e-4)
    if resumed.temperature == "auto":  # it was fitted in another way, which moves no decision
        own = resumed.decision_function(recorded["texts"])
        ratio = np.linalg.norm(own) / np.linalg.norm(recorded["answers"]["decision_function"])
        resumed.set_params(temperature=resumed.temperature_ * ratio)
    assert_answers(resumed, recorded, rtol=1e-2, atol=1e-3)
    if bits(resumed.net_.module_.state_dict()) != end:
        # Another processor or another torch: the same fit without an interruption differs, too.
        uninterrupted, _ = fit(encoder, recorded)
        assert bits(uninterrupted.net_.module_.state_dict()) != end
