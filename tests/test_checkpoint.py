"""A fit that is killed goes on where it was, and never from anything else."""

import functools
import hashlib
import json
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import ClassVar

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import imbalanced
from imblearn.over_sampling import RandomOverSampler
from sklearn.model_selection import StratifiedKFold
from skorch.callbacks import Callback, Freezer, LRScheduler

from skfocal import BertFocalClassifier, Checkpoint, FocalLoss
from skfocal._training import snapshot
from skfocal._training.checkpoints import describe
from skfocal._training.net import FocalNet

SCRIPT = Path(__file__).with_name("interrupted.py")
SETTINGS = {"max_epochs": 2, "lr": 3e-3, "batch_size": 8, "random_state": 0}


class Stop(Exception):
    """What a test ends a fit with."""


class StopsAt(Callback):
    """Ends a training, as a crash would, at its n-th update."""

    n = None

    def on_train_begin(self, net, **kwargs):
        self.left = StopsAt.n

    def on_grad_computed(self, net, named_parameters, **kwargs):
        if self.left is not None:
            self.left -= 1
            if self.left == 0:
                raise Stop


@pytest.fixture(scope="module")
def tiny(few_words):
    """Folder of an encoder that knows few words, so that it is stored and read soon."""
    return few_words


@pytest.fixture(scope="module")
def data():
    """Three batches of two classes, so a fit of two epochs has six updates."""
    return imbalanced(18, 6)


@pytest.fixture(scope="module")
def alone(tiny, data):
    """A fit that nothing stops."""
    return BertFocalClassifier(tiny, **SETTINGS).fit(*data)


@pytest.fixture(scope="module")
def half_done(tiny, data, tmp_path_factory):
    """Folder with the checkpoints of a fit that ended in the middle of its second epoch."""
    folder = tmp_path_factory.mktemp("half_done")
    with pytest.MonkeyPatch.context() as patch, pytest.raises(Stop):
        patch.setattr(StopsAt, "n", 6)
        settings = {"checkpoint": Checkpoint(folder, steps=1), "callbacks": [StopsAt()]}
        BertFocalClassifier(tiny, **SETTINGS, **settings).fit(*data)
    assert checkpoints(folder) == ["checkpoint-000004", "checkpoint-000005"]
    return folder


@pytest.fixture
def stopped(half_done, tmp_path):
    """A copy of it, where the fits of `stopping` look."""
    return Path(shutil.copytree(half_done, tmp_path / "run"))


@pytest.fixture
def stopping(make, tmp_path):
    """Return a function that makes a classifier whose fit ends at its n-th update."""

    def make_stopping(n, **params):
        StopsAt.n = n
        settings = {"checkpoint": Checkpoint(tmp_path / "run", steps=1)}
        return make(**{"callbacks": [StopsAt()], **settings, **params})

    yield make_stopping
    StopsAt.n = None


def weights(clf):
    return list(clf.net_.module_.state_dict().values())


def same(left, right):
    return all(torch.equal(a, b) for a, b in zip(weights(left), weights(right), strict=True))


def checkpoints(folder):
    return sorted(path.name for path in Path(folder).glob("checkpoint-*"))


@pytest.mark.timeout(600)
@pytest.mark.slow
@pytest.mark.parametrize("name", ["stops", "plain", "defers", "progressive", "samples"])
def test_a_fit_killed_ten_times_ends_with_the_same_bits(name, tiny, tmp_path):
    """At random updates, at random places within a write, and after random times."""
    run = [sys.executable, str(SCRIPT), name, tiny, str(tmp_path)]
    done = subprocess.run(run, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found.pop("killed") >= 8  # those after a random time may find the fit at its end
    assert found.pop("epochs") > 1
    assert found == {"differ": [], "differ at the end": []}


def test_the_same_call_goes_on_after_an_error(stopping, make, data):
    alone = make(dropout=0.1).fit(*data)
    with pytest.raises(Stop):
        stopping(5, dropout=0.1).fit(*data)
    begun = []
    clf = stopping(None, dropout=0.1)
    original = FocalNet.train_step
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(FocalNet, "train_step", lambda *a, **k: begun.append(1) or original(*a, **k))
        clf.fit(*data)
    assert len(begun) == 6 - 4
    assert same(clf, alone)
    np.testing.assert_array_equal(clf.class_loss_, alone.class_loss_)


def test_a_fit_at_its_end_returns_at_once_and_can_go_on(stopping, data):
    first = stopping(None).fit(*data)
    again = stopping(1).fit(*data)  # would stop at its first update
    assert same(first, again)
    np.testing.assert_array_equal(first.predict_proba(data[0]), again.predict_proba(data[0]))
    StopsAt.n = None
    again.set_params(checkpoint=None, warm_start=True).fit(*data)
    assert not same(first, again)


class Opens(Callback):
    """Holds something open from the beginning of a training to its end."""

    told: ClassVar[list] = []  # no attribute of the object, which a checkpoint would restore

    def on_train_begin(self, net, **kwargs):
        self.told.append("begin")

    def on_train_end(self, net, **kwargs):
        self.told.append(f"end after {len(net.history)}")


@pytest.mark.parametrize(
    "params",
    [
        {"verbose": 1},
        {"train_split": 0.4, "early_stopping": 1, "max_epochs": 3},
        {"defer": 0.5, "alpha": "balanced"},
    ],
)
def test_callbacks_that_begin_also_end_after_a_fit_at_its_end(stopping, data, params):
    first = stopping(None, callbacks=[Opens()], **params).fit(*data)
    Opens.told.clear()
    again = stopping(None, callbacks=[Opens()], **params).fit(*data)
    assert Opens.told == ["begin", f"end after {len(first.history_)}"]
    assert same(first, again)


class Averages(Callback):
    """Ends with the mean of the first and the last weights."""

    def on_train_begin(self, net, **kwargs):
        self.first = [p.detach().clone() for p in net.module_.parameters()]

    def on_train_end(self, net, **kwargs):
        with torch.no_grad():
            for p, first in zip(net.module_.parameters(), self.first, strict=True):
                p.copy_((p + first) / 2)


def test_weights_that_a_callback_changes_at_the_end_are_changed_once(stopping, data):
    first, again = (stopping(None, callbacks=[Averages()]).fit(*data) for _ in range(2))
    assert same(first, again)


def test_no_more_than_two_checkpoints_are_kept_and_none_by_time_alone(stopping, data, tmp_path):
    stopping(None).fit(*data)
    assert checkpoints(tmp_path / "run") == ["checkpoint-000006", "checkpoint-000007"]
    stopping(None, checkpoint=tmp_path / "slow").fit(*data)
    assert len(checkpoints(tmp_path / "slow")) == 1  # of the end
    often = stopping(None, checkpoint=tmp_path / "time")
    often.set_params(checkpoint__minutes=1e-9).fit(*data)
    assert checkpoints(tmp_path / "time") == ["checkpoint-000006", "checkpoint-000007"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"gamma": 1.0}, r"gamma was 2\.0 and is 1\.0"),
        ({"alpha": {"ham": 1.0, "spam": 2.0}}, "alpha was null and is"),
        ({"random_state": 1}, "random_state was 0 and is 1"),
        ({"loss": FocalLoss(gamma=2.0)}, 'loss was "focal" and is skfocal.losses._single.Focal'),
        ({"sampler": RandomOverSampler(random_state=0)}, "sampler was null and is imblearn"),
        ({"lr": 1e-3, "warmup": 0.2}, r"lr was 0\.003 and is 0\.001; warmup was 0\.1 and is 0\.2"),
    ],
)
def test_other_parameters_are_refused_by_name(stopping, stopped, data, change, message):
    with pytest.raises(ValueError, match=f"is of another fit: {message}.*Give another folder"):
        stopping(None, **change).fit(*data)


def test_other_data_are_refused_by_name(stopping, stopped, data, tiny_copy):
    X, y = data
    other = ["other words" if i == 7 else x for i, x in enumerate(X)]
    swapped = y.copy()
    swapped[:2] = np.where(y[:2] == "ham", "spam", "ham")
    weight = np.ones(len(y))
    weight[0] = 2
    for name, call in {
        "documents differ": (other, y),
        "labels differ": (X, swapped),
        "sample weights differ": (X, y, weight),
    }.items():
        with pytest.raises(ValueError, match=f"is of another fit: .*{name}"):
            stopping(None).fit(*call)
    from safetensors.torch import load_file, save_file

    file = tiny_copy / "model.safetensors"
    changed = {k: v + 1e-3 for k, v in load_file(file).items()}
    save_file(changed, file, metadata={"format": "pt"})
    with pytest.raises(ValueError, match="is of another fit: initial weights differ"):
        stopping(None, model=str(tiny_copy)).fit(X, y)


def test_a_setting_that_changes_no_result_may_change(stopping, stopped, data, capsys):
    rarely = stopping(None, verbose=1, predict_precision="float32")
    rarely.set_params(checkpoint__steps=3).fit(*data)
    assert "epoch 2/2" in capsys.readouterr().out


class StopsBeforeTheEnd(Callback):
    """Ends a training after the last update of its first epoch."""

    armed = False

    def on_epoch_end(self, net, **kwargs):
        if StopsBeforeTheEnd.armed:
            raise Stop


def test_an_epoch_without_batches_left_ends_with_its_line(
    stopping, data, alone, monkeypatch, capsys
):
    params = {"callbacks": [StopsBeforeTheEnd()], "verbose": 1}
    with monkeypatch.context() as patch, pytest.raises(Stop):
        patch.setattr(StopsBeforeTheEnd, "armed", True)
        stopping(None, **params).fit(*data)
    first = capsys.readouterr().out
    assert "documents/s" in first
    assert same(stopping(None, **params).fit(*data), alone)
    _, *lines = capsys.readouterr().out.splitlines()  # the first is about the head
    loss = re.search(r"epoch 1/2  loss [0-9.]+", first)[0]
    assert lines[0].startswith(loss) and "documents/s" not in lines[0]
    assert lines[1].startswith("epoch 2/2") and "documents/s" in lines[1]


def _truncate(path):
    os.truncate(path, path.stat().st_size - 1)


def _alter(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("file", ["state.json", "state.safetensors", "sha256.txt"])
@pytest.mark.parametrize("damage", [_truncate, _alter, Path.unlink])
def test_a_damaged_checkpoint_is_seen_and_the_one_before_it_used(
    stopping, stopped, alone, data, file, damage
):
    if (file, damage) == ("sha256.txt", _truncate):
        damage = lambda path: os.truncate(path, 10)  # noqa: E731 (its last byte is a line's end)
    newest = stopped / checkpoints(stopped)[-1]
    damage(newest / file)
    with pytest.warns(UserWarning, match=f"{newest.name}' is not whole and is not used"):
        clf = stopping(None).fit(*data)
    assert same(clf, alone)


def test_damage_under_the_same_number_twice_is_seen_twice(stopping, data, tmp_path):
    stopping(None).fit(*data)
    for _ in range(3):
        _truncate(tmp_path / "run" / checkpoints(tmp_path / "run")[-1] / "state.json")
        with pytest.warns(UserWarning, match="is not whole"):
            stopping(None).fit(*data)


def test_a_folder_with_something_else_is_left_alone(stopping, data, tmp_path):
    (tmp_path / "run" / "checkpoint-500").mkdir(parents=True)
    with pytest.raises(ValueError, match="checkpoint must be a new or an empty folder"):
        stopping(None).fit(*data)
    assert checkpoints(tmp_path / "run") == ["checkpoint-500"]


def test_a_setting_within_a_loss_or_a_closure_is_compared(stopping, data):
    def loss(tau):
        def scaled(logits, target):
            return torch.nn.functional.cross_entropy(logits / tau, target, reduction="none")

        return scaled

    with pytest.raises(Stop):
        stopping(3, loss=loss(1.0)).fit(*data)
    with pytest.raises(ValueError, match="is of another fit: loss was"):
        stopping(None, loss=loss(9.0)).fit(*data)
    stopping(None, loss=loss(1.0)).fit(*data)


def test_without_a_whole_checkpoint_training_begins_anew(stopping, stopped, alone, data):
    for name in checkpoints(stopped):
        _truncate(stopped / name / "state.json")
    with pytest.warns(UserWarning, match="is not whole") as caught:
        clf = stopping(None).fit(*data)
    assert [warning.filename for warning in caught] == [__file__] * 2
    assert same(clf, alone)


def test_a_full_disk_is_named_and_leaves_the_last_checkpoint(stopping, stopped, alone, data):
    """A limit on the size of files stands for the disk: the write ends in the middle."""
    before = checkpoints(stopped)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1]))
    try:
        with pytest.raises(OSError, match="cannot be written.*checkpoint-000005 is whole"):
            stopping(None).fit(*data)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, ignored)
    assert checkpoints(stopped) == before
    assert not list(stopped.glob(".unfinished*"))
    assert same(stopping(None).fit(*data), alone)


def test_a_relative_folder_is_that_of_the_beginning(make, data, tmp_path, monkeypatch):
    class Leaves(Callback):
        def on_epoch_begin(self, net, **kwargs):
            monkeypatch.chdir("/")

    monkeypatch.chdir(tmp_path)
    make(checkpoint=Checkpoint("run", steps=1), callbacks=[Leaves()]).fit(*data)
    assert len(checkpoints(tmp_path / "run")) == 2


def test_two_fits_at_a_time_need_two_folders(stopping, make, data, tmp_path):
    inside = []

    class FitsToo(Callback):
        def on_train_begin(self, net, **kwargs):
            with pytest.raises(RuntimeError, match="is in use by another fit: give each its own"):
                make(checkpoint=tmp_path / "run").fit(*data)
            inside.append(True)

    stopping(None, callbacks=[FitsToo()]).fit(*data)
    assert inside == [True]


class Terminates(Callback):
    """Sends SIGTERM to its process at the n-th batch of a kind."""

    n, training = None, True

    def on_train_begin(self, net, **kwargs):
        self.left = Terminates.n

    def on_batch_begin(self, net, training=False, **kwargs):
        if training == Terminates.training and self.left is not None:
            self.left -= 1
            if self.left == 0:
                signal.raise_signal(signal.SIGTERM)


@pytest.mark.parametrize("training", [True, False])
def test_sigterm_writes_a_checkpoint_first(make, data, tmp_path, training):
    class Ended(BaseException):
        pass

    def end(number, frame):
        raise Ended

    settings = {"checkpoint": tmp_path / "run", "callbacks": [Terminates()], "train_split": 0.3}
    settings |= {"max_epochs": 3, "batch_size": 4, "accumulate": 2}
    Terminates.n, Terminates.training = 3, training
    before = signal.signal(signal.SIGTERM, end)
    try:
        clf = make(**settings)
        with pytest.raises(Ended):
            clf.fit(*data)
        assert signal.getsignal(signal.SIGTERM) is end
    finally:
        signal.signal(signal.SIGTERM, before)
    assert checkpoints(tmp_path / "run") == ["checkpoint-000001"]
    assert not hasattr(clf, "net_")
    Terminates.n = None
    state = json.loads((tmp_path / "run" / "checkpoint-000001" / "state.json").read_text())
    assert state["state"]["n_batches"] == (4 if training else 5)
    resumed = make(**settings).fit(*data)
    alone = make(**settings | {"checkpoint": None}).fit(*data)
    assert same(resumed, alone)
    assert resumed.history_[:, "valid_score"] == alone.history_[:, "valid_score"]
    assert resumed.history_[:, "batches"] == alone.history_[:, "batches"]


def test_callbacks_see_a_validation_once_that_sigterm_ended(make, data, tmp_path, monkeypatch):
    class Ended(BaseException):
        pass

    class Counts(Callback):
        def on_train_begin(self, net, **kwargs):
            self.seen_ = 0

        def on_batch_end(self, net, batch=None, training=False, **kwargs):
            self.seen_ += 0 if training else len(batch[1])

    def end(number, frame):
        raise Ended

    settings = {"checkpoint": tmp_path / "run", "callbacks": [Terminates(), Counts()]}
    settings |= {"train_split": 0.5, "batch_size": 4, "max_epochs": 3}
    # Held-out documents come a few at a time.
    monkeypatch.setattr("skfocal._training.inference._TOKENS_AT_ONCE", 40)
    Terminates.n, Terminates.training = 2, False
    before = signal.signal(signal.SIGTERM, end)
    try:
        with pytest.raises(Ended):
            make(**settings).fit(*data)
    finally:
        signal.signal(signal.SIGTERM, before)
    Terminates.n = None
    clf = make(**settings).fit(*data)
    assert dict(clf.net_.callbacks_)["Counts"].seen_ == 3 * 12


def test_frozen_weights_and_attributes_of_a_loss_go_on(stopping, make, data):
    class Grows(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.factor = 1.0

        def forward(self, logits, target):
            self.factor *= 1.1
            return self.factor * torch.nn.functional.cross_entropy(logits, target, reduction="none")

    def settings():
        return {"callbacks": [StopsAt(), Freezer("model.bert.*")], "loss": Grows()}

    with pytest.raises(Stop):
        stopping(5, **settings()).fit(*data)
    clf = stopping(None, **settings()).fit(*data)
    assert same(clf, make(**settings()).fit(*data))


def test_a_generator_has_moved_on_as_far_after_a_fit_at_its_end(stopping, data):
    after = []
    for _ in range(2):
        rng = np.random.RandomState(3)
        stopping(None, random_state=rng).fit(*data)
        after.append(rng.rand())
    assert after[0] == after[1]


def test_a_sigterm_that_the_program_survives_lets_training_go_on(make, data, tmp_path):
    heard = []
    Terminates.n, Terminates.training = 3, True
    before = signal.signal(signal.SIGTERM, lambda number, frame: heard.append(number))
    try:
        clf = make(checkpoint=tmp_path / "run", callbacks=[Terminates()]).fit(*data)
    finally:
        signal.signal(signal.SIGTERM, before)
        Terminates.n = None
    assert heard == [signal.SIGTERM]
    assert len(clf.history_) == 2


def test_in_a_thread_checkpoints_are_written_all_the_same(stopping, stopped, alone, data):
    results = []
    clf = stopping(None)
    thread = threading.Thread(target=lambda: results.append(clf.fit(*data)))
    thread.start()
    thread.join()
    assert same(results[0], alone)
    assert checkpoints(stopped) == ["checkpoint-000006", "checkpoint-000007"]


def test_the_state_of_a_scheduler_in_a_callback_goes_on(stopping, make, data):
    from torch.optim.lr_scheduler import ExponentialLR

    def callbacks():
        return [StopsAt(), LRScheduler(ExponentialLR, gamma=0.5, event_name=None)]

    with pytest.raises(Stop):
        stopping(5, callbacks=callbacks(), max_epochs=3, schedule="constant").fit(*data)
    clf = stopping(None, callbacks=callbacks(), max_epochs=3, schedule="constant").fit(*data)
    alone = make(callbacks=callbacks(), max_epochs=3, schedule="constant").fit(*data)
    scheduler = dict(clf.net_.callbacks_)["LRScheduler"].lr_scheduler_
    assert scheduler.last_epoch == 3
    assert same(clf, alone)


def test_a_checkpoint_holds_no_text_and_no_pickle(stopping, data, tmp_path):
    X, y = imbalanced(12, 12)
    X = [x + " confidential" for x in X]
    with pytest.raises(Stop):
        stopping(5, early_stopping=True, train_split=0.2).fit(X, y)
    folder = tmp_path / "run" / checkpoints(tmp_path / "run")[-1]
    content = b"".join(path.read_bytes() for path in sorted(folder.iterdir()))
    assert sorted(path.name for path in folder.iterdir()) == [
        "sha256.txt",
        "state.json",
        "state.safetensors",
    ]
    assert b"confidential" not in content
    check = ["sha256sum", "--check", "--quiet", "sha256.txt"]
    assert subprocess.run(check, cwd=folder).returncode == 0


def test_partial_fit_has_no_checkpoints(stopping, data):
    with pytest.raises(ValueError, match="partial_fit needs checkpoint=None"):
        stopping(None).partial_fit(*data, classes=["ham", "spam"])


def test_a_checkpoint_of_a_newer_version_is_not_read(stopping, data, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr("skfocal._training.checkpoints._VERSION", 99)
        with pytest.raises(Stop):
            stopping(3).fit(*data)
    with pytest.warns(UserWarning, match="format_version 99.*install a newer skfocal"):
        stopping(None).fit(*data)


def test_a_checkpoint_of_the_first_version_is_read(stopping, stopped, alone, data):
    for name in checkpoints(stopped):
        state, sums = (stopped / name / file for file in ("state.json", "sha256.txt"))
        content = json.loads(state.read_text())
        first = {"format": 1, "fit": content["fit"], "state": content["state"]}
        before = hashlib.sha256(state.read_bytes()).hexdigest()
        state.write_text(json.dumps(first))
        after = hashlib.sha256(state.read_bytes()).hexdigest()
        sums.write_text(sums.read_text().replace(before, after))
    assert same(stopping(None).fit(*data), alone)


DESCRIBED = """
[skfocal.losses._single.FocalLoss FocalLoss(normalize='samples', gamma=1.0, epsilon=0.0, \
label_smoothing=0.0) {'training': true, 'normalize': "samples", 'gamma': 1.0, 'epsilon': 0.0, \
'label_smoothing': 0.0} e127c60663c1d1f1, {"$array": "value"} 045762723fc11512, builtins.print, \
partial([builtins.max, [], {'key': builtins.abs}]), sklearn.model_selection._split.StratifiedKFold \
StratifiedKFold(n_splits=3, random_state=None, shuffle=False), {'a': \
skfocal.losses._single.FocalLoss}]
"""


def test_settings_are_described_as_in_the_process_that_this_was_recorded_in():
    settings = [FocalLoss(gamma=1.0, weight=[1.0, 2.0]), np.arange(3), print]
    settings += [functools.partial(max, key=abs), StratifiedKFold(3), {"a": FocalLoss}]
    assert describe(settings) == DESCRIBED.strip()
    assert describe(set("dbaec")) == '{"a", "b", "c", "d", "e"}'
    assert describe(np.arange(3)) != describe(np.arange(3) + 1)
    assert describe(pd.Series({"ham": 1.0})) != describe(pd.Series({"ham": 2.0}))
    assert describe(StratifiedKFold(3)) != describe(StratifiedKFold(4))
    assert describe(FocalLoss(weight=[1.0, 2.0])) != describe(FocalLoss(weight=[1.0, 3.0]))


@pytest.mark.slow
def test_settings_are_described_alike_in_another_process():
    code = (
        "import numpy as np, functools; from sklearn.model_selection import StratifiedKFold; "
        "from skfocal import FocalLoss; from skfocal._training.checkpoints import describe; "
        "text = describe([FocalLoss(gamma=1.0, weight=[1., 2.]), np.arange(3), print, "
        "functools.partial(max, key=abs), StratifiedKFold(3), {'a': FocalLoss}])"
    )
    scope: dict = {}
    exec(code, scope)
    run = [sys.executable, "-c", code + "; print(text)"]
    other = subprocess.run(run, capture_output=True, text=True, check=True).stdout
    assert other == scope["text"] + "\n"
    assert "0x" not in other


@pytest.mark.parametrize("change", ["pop", "add"])
def test_a_checkpoint_with_other_callbacks_is_refused_by_their_name(
    make, data, tmp_path, monkeypatch, change
):
    """What began anew, or was lost, would go unseen."""
    of_callbacks = snapshot.of_callbacks

    def other(net):
        kept = of_callbacks(net)
        if change == "pop":
            kept.pop("schedule")
        else:
            kept["pruning"] = {}
        return kept

    with monkeypatch.context() as patch:
        patch.setattr(snapshot, "of_callbacks", other)
        make(checkpoint=tmp_path).fit(*data)
    match = r"lacks \['schedule'\]" if change == "pop" else r"has the unknown \['pruning'\]"
    with pytest.raises(ValueError, match=match):
        make(checkpoint=tmp_path).fit(*data)
