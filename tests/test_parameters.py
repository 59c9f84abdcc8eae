"""Parameters of several settings: nested, compared, stored; old names and how they are written."""

import inspect
import json
import pickle
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from imblearn.over_sampling import RandomOverSampler
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV, ShuffleSplit
from skorch.callbacks import Callback

from skfocal import BertFocalClassifier, Checkpoint, EffectiveNumber, Windows
from skfocal._estimator.parameters import _Probe, parameters_of, validate
from skfocal._training.checkpoints import _FORMAT, describe
from skfocal._utils.files import sha256_of_file
from skfocal.comparison import _candidates

GOLDEN = Path(__file__).parent / "golden"
VALUES = [
    ("long_documents", Windows(stride=4, pooling="max"), "pooling", "mean"),
    ("alpha", EffectiveNumber(beta=0.9), "beta", 0.99),
    ("checkpoint", Checkpoint("run", steps=3), "minutes", None),
]


@pytest.fixture(scope="module")
def make(make_of_few_words):
    """Return a function that makes classifiers of few words, whose checkpoints are small."""
    return make_of_few_words


# -- values ----------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "value", "setting", "other"), VALUES)
def test_values_are_equal_by_their_settings(name, value, setting, other):
    again = pickle.loads(pickle.dumps(value))
    assert again == value == clone(value) and clone(value) is not value
    assert hash(again) == hash(value)
    again.set_params(**{setting: other})
    assert again != value and again != value.get_params()
    assert eval(repr(value)) == value


@pytest.mark.parametrize(("name", "value", "setting", "other"), VALUES)
def test_settings_are_parameters_of_the_estimator(name, value, setting, other):
    clf = BertFocalClassifier(**{name: value})
    assert clf.get_params()[f"{name}__{setting}"] == getattr(value, setting)
    copied = clone(clf)
    assert getattr(copied, name) == value and getattr(copied, name) is not value
    copied.set_params(**{f"{name}__{setting}": other})
    assert getattr(getattr(copied, name), setting) == other
    assert getattr(clf, name) == value
    assert repr(value).partition("(")[0] in clf._repr_html_()
    assert pickle.loads(pickle.dumps(copied)).get_params() == copied.get_params()


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"long_documents": "windows", "long_documents__pooling": "max"}, Windows(pooling="max")),
        ({"alpha__beta": 0.9, "alpha": "effective"}, EffectiveNumber(0.9)),
        ({"checkpoint": "run", "checkpoint__minutes": 1}, Checkpoint("run", minutes=1)),
        ({"checkpoint": Path("run"), "checkpoint__steps": 1}, Checkpoint(Path("run"), 1)),
    ],
    ids=str,
)
def test_a_setting_spells_the_short_form_out(given, expected):
    clf = BertFocalClassifier().set_params(**given)
    assert getattr(clf, next(iter(given)).partition("__")[0]) == expected


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"long_documents__stride": 4}, r"Windows\(\.\.\.\)\. Got long_documents='truncate'"),
        (
            {"alpha": "balanced", "alpha__beta": 0.9},
            r"EffectiveNumber\(\.\.\.\)\. Got alpha='balanced'",
        ),
        ({"checkpoint__steps": 4}, r"a folder or Checkpoint\(\.\.\.\)\. Got checkpoint=None"),
        ({"long_documents": "windows", "long_documents__size": 4}, "Invalid parameter 'size'"),
    ],
    ids=str,
)
def test_a_setting_of_nothing_is_refused(given, message):
    with pytest.raises(ValueError, match=message):
        BertFocalClassifier().set_params(**given)


def test_settings_in_a_grid_are_those_of_each_candidate(make, data):
    clf = make(max_length=8, long_documents="windows", alpha="effective", max_epochs=1)
    grid = {"long_documents__pooling": ["mean", "max"], "alpha__beta": [0.9, 0.99]}
    once = ShuffleSplit(1, test_size=0.5, random_state=0)
    search = GridSearchCV(clf, grid, cv=once, refit=False).fit(*data)
    assert clf.long_documents == "windows" and clf.alpha == "effective"
    # Each candidate scores what it scores when it is spelled out.
    values = {
        "long_documents": [Windows(pooling="mean"), Windows(pooling="max")],
        "alpha": [EffectiveNumber(0.9), EffectiveNumber(0.99)],
    }
    again = GridSearchCV(clf, values, cv=once, refit=False).fit(*data)
    found = {
        (p["long_documents"].pooling, p["alpha"].beta): score
        for p, score in zip(
            again.cv_results_["params"], again.cv_results_["mean_test_score"], strict=True
        )
    }
    for p, score in zip(
        search.cv_results_["params"], search.cv_results_["mean_test_score"], strict=True
    ):
        assert found[p["long_documents__pooling"], p["alpha__beta"]] == score


@pytest.mark.parametrize(
    ("short", "long"),
    [
        ({"long_documents": "windows", "max_length": 8}, {"long_documents": Windows()}),
        ({"alpha": "effective"}, {"alpha": EffectiveNumber()}),
        ({"early_stopping": True, "max_epochs": 6}, {"early_stopping": 3}),
    ],
    ids=str,
)
def test_short_forms_train_what_they_stand_for(make, data, short, long):
    X, y = data
    one, other = (make(**{**short, **more}).fit(X, y) for more in ({}, long))
    assert np.array_equal(one.predict_proba(X), other.predict_proba(X))
    assert len(one.history_) == len(other.history_)


def test_folders_keep_the_settings(make, data, tmp_path):
    clf = make(max_length=8, long_documents=Windows(2, "max", 5), alpha=EffectiveNumber(0.9))
    clf.set_params(checkpoint=Checkpoint(tmp_path / "run", steps=5)).fit(*data)
    with pytest.warns(UserWarning, match=r"\['checkpoint'\] of the estimator"):
        clf.save_pretrained(tmp_path / "folder")
        again = BertFocalClassifier.from_pretrained(tmp_path / "folder")
    assert again.long_documents == clf.long_documents and again.alpha == clf.alpha
    assert again.checkpoint is None
    assert np.array_equal(again.predict_proba(data[0]), clf.predict_proba(data[0]))


def test_settings_of_another_parameter_are_not_built_from_a_folder(tmp_path):
    folder = shutil.copytree(GOLDEN / "folder-3", tmp_path / "folder")
    state = json.loads((folder / "skfocal.json").read_text())
    state["params"]["long_documents"] = {"Checkpoint": {"folder": "/"}}
    (folder / "skfocal.json").write_text(json.dumps(state))
    with pytest.raises(ValueError, match="The 'long_documents' parameter"):
        BertFocalClassifier.from_pretrained(folder)


# -- old names -------------------------------------------------------------------------------

OLD = {
    "stride": (64, "stride is now written long_documents=Windows(stride=64)."),
    "pooling": ("max", "pooling is now written long_documents=Windows(pooling='max')."),
    "max_chunks": (8, "max_chunks is now written long_documents=Windows(max_windows=8)."),
    "patience": (5, "patience is now written early_stopping=5."),
    "checkpoint_steps": (9, "now written checkpoint=Checkpoint(folder, steps=9)."),
    "checkpoint_minutes": (1.0, "now written checkpoint=Checkpoint(folder, minutes=1.0)."),
    "beta": (0.99, "beta is now written alpha=EffectiveNumber(beta=0.99)."),
    "compile": (True, "compile is now written net_params={'compile': True}."),
    "prune": (0.3, "prune has been removed"),
}


@pytest.mark.parametrize("name", OLD)
def test_an_old_name_says_how_it_is_written_now(make, data, name):
    value, message = OLD[name]
    with pytest.raises(TypeError, match=re.escape(message)):
        BertFocalClassifier(**{name: value})
    with pytest.raises(ValueError, match=re.escape(message)):
        BertFocalClassifier().set_params(**{name: value})
    search = GridSearchCV(make(), {name: [value]}, cv=2, error_score="raise")
    with pytest.raises(ValueError, match=re.escape(message)):
        search.fit(*data)


def test_pooling_is_the_windows_beside_another_old_name_or_by_its_value():
    with pytest.raises(TypeError, match="Windows\\(stride=2, pooling='mean'\\)"):
        BertFocalClassifier(pooling="mean", stride=2)
    assert BertFocalClassifier(pooling="mean").pooling == "mean"


def test_old_names_of_one_parameter_are_told_together():
    message = re.escape(
        "stride and pooling are now written long_documents=Windows(stride=4, pooling='max')."
    )
    with pytest.raises(TypeError, match=message):
        BertFocalClassifier(long_documents="windows", pooling="max", stride=4)


def test_the_old_value_says_how_it_is_written_now():
    with pytest.raises(ValueError, match="is now written long_documents='windows'"):
        BertFocalClassifier(long_documents="chunk")
    with pytest.raises(ValueError, match="is now written long_documents='windows'"):
        BertFocalClassifier().set_params(long_documents="chunk")


def test_the_signature_has_the_parameters_and_nothing_else():
    parameters = inspect.signature(BertFocalClassifier).parameters
    assert sorted(parameters) == BertFocalClassifier._get_param_names()
    assert {p.kind.name for p in parameters.values()} == {"POSITIONAL_OR_KEYWORD", "KEYWORD_ONLY"}
    with pytest.raises(TypeError, match="unexpected keyword argument 'no_such'"):
        BertFocalClassifier(no_such=1)


# -- what earlier versions have stored ---------------------------------------------------------


def test_a_folder_with_old_names_has_the_new_ones():
    clf = BertFocalClassifier.from_pretrained(GOLDEN / "folder-2")
    assert clf.long_documents == Windows(stride=2)
    assert clf._cutting == {"long_documents": "windows", "stride": 2, "max_windows": 16}
    assert not set(OLD) & set(vars(clf)) - {"pooling"}
    assert clf.pooling == "auto" and clf.pooling_ == "head"


OLD_STATES = [
    ({"long_documents": "chunk"}, {"long_documents": "windows"}),
    (
        {"long_documents": "chunk", "stride": 4, "pooling": "max", "max_chunks": None},
        {"long_documents": Windows(4, "max", None)},
    ),
    ({"long_documents": "truncate", "stride": 4}, {"long_documents": "truncate"}),
    ({"alpha": "effective", "beta": 0.99}, {"alpha": EffectiveNumber(0.99)}),
    ({"alpha": "balanced", "beta": 0.99}, {"alpha": "balanced"}),
    ({"early_stopping": True, "patience": 3}, {"early_stopping": True}),
    ({"early_stopping": True, "patience": 5}, {"early_stopping": 5}),
    ({"early_stopping": False, "patience": 5}, {"early_stopping": False}),
    ({"checkpoint": "run", "checkpoint_steps": None}, {"checkpoint": "run"}),
    (
        {"checkpoint": "run", "checkpoint_steps": 5, "checkpoint_minutes": None},
        {"checkpoint": Checkpoint("run", 5, None)},
    ),
    ({"checkpoint": None, "checkpoint_steps": 5}, {"checkpoint": None}),
    ({"compile": True, "net_params": {"lr": 1}}, {"net_params": {"lr": 1, "compile": True}}),
    ({"compile": False, "prune": 0.3}, {"net_params": None}),
]  # fmt: skip


@pytest.mark.parametrize(("old", "new"), OLD_STATES, ids=str)
def test_states_with_old_names_are_restored_with_new_ones(old, new):
    clf = BertFocalClassifier.__new__(BertFocalClassifier)
    clf.__setstate__({**vars(BertFocalClassifier()), **old})
    assert vars(clf) == {**vars(BertFocalClassifier()), **new}


class StopsAt(Callback):
    """Ends a fit in its second epoch, once."""

    on = True

    def on_batch_begin(self, net, training=False, **kwargs):
        if training and StopsAt.on and len(net.history) == 2:
            raise ArithmeticError("stopped")


def make_old(folder, parameters):
    """Let a checkpoint have been written by an older version, with these parameters."""
    file = folder / "state.json"
    content = json.loads(file.read_text())
    content["format"] = 1
    described = {**content["fit"]["parameters"], "compile": "false", "stride": "0"}
    described |= {"pooling": '"logsumexp"', "max_chunks": "16", "patience": "3", "beta": "0.999"}
    described["prune"] = "0.0"
    described |= {name: describe(value) for name, value in parameters.items()}
    content["fit"]["parameters"] = described
    file.write_text(json.dumps(content))
    lines = [f"{sha256_of_file(folder / f)}  {f}\n" for f in ("state.json", "state.safetensors")]
    (folder / "sha256.txt").write_text("".join(lines))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ({"long_documents": "chunk", "stride": 2}, {"long_documents": Windows(2), "max_length": 8}),
        ({"early_stopping": True, "patience": 1}, {"early_stopping": 1}),
        ({"alpha": "effective", "beta": 0.9}, {"alpha": EffectiveNumber(0.9)}),
        ({"alpha": {"ham": 1.0, "spam": 2.0}}, {"alpha": {"ham": 1.0, "spam": 2.0}}),
    ],
    ids=str,
)
def test_the_same_fit_goes_on_from_an_older_versions_checkpoint(make, data, tmp_path, old, new):
    settings = {"max_length": 16, "callbacks": [StopsAt()], **new}
    clf = make(checkpoint=Checkpoint(tmp_path / "run", steps=1), **settings)
    StopsAt.on = True
    with pytest.raises(ArithmeticError):
        clf.fit(*data)
    StopsAt.on = False
    [*_, last] = sorted((tmp_path / "run").glob("checkpoint-*"))
    assert json.loads((last / "state.json").read_text())["format"] == _FORMAT
    make_old(last, {**old, "prune": 0.3})
    with pytest.raises(ValueError, match="is of another fit: prune was 0.3"):
        clf.fit(*data)
    make_old(last, old)
    clf.fit(*data)
    alone = make(**settings).fit(*data)
    assert np.array_equal(clf.predict_proba(data[0]), alone.predict_proba(data[0]))


# -- where parameters go through -------------------------------------------------------------


def test_comparisons_take_single_settings_and_tell_old_names():
    candidates = _candidates(
        BertFocalClassifier(), {"few": {"alpha": "effective", "alpha__beta": 0.9}}
    )
    assert candidates["few"].alpha == EffectiveNumber(0.9)
    with pytest.raises(ValueError, match="beta is now written alpha=EffectiveNumber"):
        _candidates(BertFocalClassifier(), {"few": {"beta": 0.9}})


# -- classes made from ours ------------------------------------------------------------------


class WithOldNames(BertFocalClassifier):
    """Has parameters of its own, some with names that ours had once."""

    def __init__(self, model="some/folder", *, beta=0.5, strength=1, second=None):
        super().__init__(model)
        self.beta, self.strength, self.second = beta, strength, second


def test_a_subclass_keeps_parameters_with_old_names():
    clf = WithOldNames(beta=0.7, second=EffectiveNumber(0.9))
    again = pickle.loads(pickle.dumps(clf.set_params(beta=0.8)))
    assert (again.beta, again.second) == (0.8, EffectiveNumber(0.9))
    given = vars(parameters_of(clf))
    assert (given["beta"], given["strength"], given["gamma"]) == (0.8, 1, 2.0)


@pytest.mark.parametrize(
    "optimizer",
    [
        lambda groups: torch.optim.SGD(groups),
        lambda groups, **kwargs: torch.optim.SGD([{**g, "lr": g["lr"] / 2} for g in groups]),
    ],
)
def test_an_optimizer_may_take_its_rate_from_the_groups(make, data, optimizer):
    clf = make(net_params={"optimizer": optimizer, "criterion__gamma": 1.0}, max_epochs=1)
    assert type(clf.fit(*data).net_.optimizer_) is torch.optim.SGD


def test_a_sampler_runs_once_and_a_loss_function_is_not_tried(make, data):
    calls = []

    class Once(RandomOverSampler):
        def fit_resample(self, X, y):
            calls.append("sampler")
            return super().fit_resample(X, y)

    def loss(logits, target):
        calls.append(len(target))
        return torch.nn.functional.cross_entropy(logits, target, reduction="none")

    make(sampler=Once(), loss=loss, max_epochs=1, batch_size=1000).fit(*data)
    assert calls[0] == "sampler" and calls.count("sampler") == 1 and calls[1] > 2


def test_the_probe_of_net_params_leaves_torchs_generator_to_others(monkeypatch):
    """Another thread may be training, and draws from it."""
    states, initialize = [], _Probe.initialize

    def noting(net):
        states.append(torch.get_rng_state())
        return initialize(net)

    monkeypatch.setattr(_Probe, "initialize", noting)
    state = torch.get_rng_state()
    validate(BertFocalClassifier("some/model", net_params={"optimizer": torch.optim.SGD}))
    assert states and all(torch.equal(state, found) for found in states)
