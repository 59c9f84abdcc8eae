"""Two processes train what one trains with a batch of twice the size."""

import contextlib
import os
import pickle
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import parallel_job
import pytest
import torch
from conftest import imbalanced
from parallel_job import FITS, classifier, documents, interrupted, weights

from skfocal import BertFocalClassifier, Checkpoint
from skfocal._data.batches import BucketBatchSampler, Shards
from skfocal._runtime import process_group
from skfocal._runtime.process_group import Processes
from skfocal._runtime.workers import is_launched
from skfocal._training.loop import TrainingLoop

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")
JOB = str(Path(__file__).with_name("parallel_job.py"))


def free_port():
    with socket.socket() as s:
        s.bind(("localhost", 0))
        return str(s.getsockname()[1])


TORCHRUN = "torch.distributed.run", "--nproc-per-node=2"


def start(folder, *functions, launcher=TORCHRUN, devices=""):
    """Start two processes, which call functions of parallel_job.py, on a CPU."""
    module, *arguments = launcher
    port = "--main_process_port" if "accelerate" in module else "--master-port"
    command = [sys.executable, "-m", module, *arguments, port, free_port(), JOB, str(folder)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "TMPDIR": str(folder)}
    environment["CUDA_VISIBLE_DEVICES"] = devices
    return subprocess.Popen(
        [*command, *functions],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def end(process, timeout):
    """Return what a job has written when it is over, or end it."""
    try:
        return process.communicate(timeout=timeout)[0]
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


def run(folder, *functions, **kwargs):
    process = start(folder, *functions, **kwargs)
    output = end(process, 280)
    assert process.returncode == 0, output
    return output


def result(folder, name, rank):
    return pickle.loads((folder / f"{name}-{rank}.pickle").read_bytes())


def assert_close(ours, theirs, atol=1e-5):
    assert ours.keys() == theirs.keys()
    for name, value in ours.items():
        np.testing.assert_allclose(theirs[name], value, rtol=0, atol=atol, err_msg=name)


@pytest.fixture(scope="module")
def job(tiny, tmp_path_factory):
    """Folder in which two processes have left their results."""
    folder = tmp_path_factory.mktemp("job")
    shutil.copytree(tiny, folder / "tiny")
    interrupted(folder, "of-one", 16, train_split=0.2)
    run(folder, "fits", "checkpoints", "partly", "many", "labels", "others", "searches", "unlike")
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("name", FITS)
def test_two_processes_train_what_one_does_with_twice_the_batch(job, name):
    X, y = documents()
    clf = classifier(job, 16, **FITS[name]).fit(X, y)
    n_updates = sum(len(row["batches"]) for row in clf.history_)
    assert n_updates >= 20
    ours, theirs = result(job, name, 0), result(job, name, 1)
    assert_close(weights(clf), ours["weights"])
    for key, value in ours["weights"].items():  # to the bit among the processes
        np.testing.assert_array_equal(theirs["weights"][key], value)
    assert ours["sizes"] == [r.get("train_batch_size") for r in clf.history_[0, "batches"]]
    for row, other in zip(clf.history_, ours["history"], strict=True):
        assert other.keys() == row.keys() - {"batches"}
        assert other["train_loss"] == pytest.approx(row["train_loss"], rel=1e-5)
        if "valid_loss" in row:
            assert other["valid_loss"] == pytest.approx(row["valid_loss"], rel=1e-5)
            assert other["valid_score"] == row["valid_score"]
    np.testing.assert_allclose(ours["class_loss"], clf.class_loss_, atol=1e-5)
    for rank in (ours, theirs):
        np.testing.assert_allclose(rank["features"], clf.transform(X[:11]), atol=1e-5)
        np.testing.assert_allclose(rank["proba"], clf.predict_proba(X[:11]), atol=1e-5)
        np.testing.assert_allclose(rank["one"], clf.predict_proba(X[:1]), atol=1e-5)


@pytest.mark.slow
def test_what_was_fitted_is_pickled_and_cloned_as_ever(job):
    ours = result(job, "plain", 1)
    clf = pickle.loads(ours["clf"])
    X, _ = documents()
    np.testing.assert_array_equal(clf.predict_proba(X[:1]), ours["one"])
    np.testing.assert_allclose(clf.predict_proba(X[:11]), ours["proba"], atol=1e-6)
    assert ours["cloned"] == repr(classifier(job, **FITS["plain"]))


@pytest.mark.slow
def test_a_checkpoint_goes_on_with_the_same_bits(job):
    for rank in (0, 1):
        ours = result(job, "checkpoints", rank)
        for name, value in ours["whole"].items():
            np.testing.assert_array_equal(ours["again"][name], value, err_msg=name)
        np.testing.assert_array_equal(*ours["class_loss"])


@pytest.mark.slow
def test_a_checkpoint_goes_on_with_another_number_of_processes(job):
    plain = weights(classifier(job, 16, train_split=0.2).fit(*documents()))
    assert_close(plain, result(job, "checkpoints", 0)["of_one"])  # begun by one, ended by two
    found = sorted(folder.name for folder in (job / "of-two").glob("checkpoint-*"))
    assert found == ["checkpoint-000001", "checkpoint-000002"]  # each by one process
    clf = classifier(job, 16, train_split=0.2, checkpoint=Checkpoint(str(job / "of-two"), steps=5))
    assert_close(plain, weights(clf.fit(*documents())))


@pytest.mark.slow
def test_a_checkpoint_of_another_whole_batch_is_refused_by_all(job):
    for rank in (0, 1):
        refused = result(job, "checkpoints", rank)["refused"]
        assert re.match("ValueError: checkpoint=.* batch_size was 16 and is 32", refused)


@pytest.mark.slow
def test_partial_fit_too(job):
    X, y = documents()
    clf = classifier(job, 16)
    for part in (slice(0, 50), slice(50, None)):
        clf.partial_fit(X[part], y[part], classes=["ham", "spam"])
    assert_close(weights(clf), result(job, "partly", 0)["weights"])


@pytest.mark.slow
def test_each_tokenises_its_part_of_many_documents(job):
    X, _ = documents()
    ours, theirs = (result(job, "many", rank) for rank in (0, 1))
    assert ours["encoded"] == X[::2]
    assert theirs["encoded"] == X[1::2]
    assert_close(result(job, "plain", 0)["weights"], theirs["weights"], atol=0)


@pytest.mark.slow
def test_several_labels_a_document_too(job):
    X, y = documents()
    Y = np.stack([y == "spam", np.arange(len(y)) % 3 == 0], axis=1).astype(int)
    clf = classifier(job, 16, alpha="balanced", normalize="weights").fit(X, Y)
    assert_close(weights(clf), result(job, "labels", 0)["weights"])


@pytest.mark.slow
def test_a_grid_is_searched_together(job):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parallel_job, "classifier", lambda folder: classifier(folder, 16))
        parallel_job.searches(job, 2)
    one = result(job, "searches", 2)
    for rank in (0, 1):
        ours = result(job, "searches", rank)
        np.testing.assert_allclose(ours["scores"], one["scores"], atol=1e-5)
        assert_close(one["weights"], ours["weights"])


@pytest.mark.slow
def test_processes_without_a_seed_begin_alike_and_fits_differ(job):
    ours, theirs = (result(job, "others", rank)["unseeded"] for rank in (0, 1))
    for first, second in zip(ours, theirs, strict=True):
        for name, value in first.items():
            np.testing.assert_array_equal(second[name], value)
    head = "model.classifier.weight"
    assert not np.array_equal(ours[0][head], ours[1][head])


@pytest.mark.slow
def test_a_process_may_fit_and_predict_alone(job):
    first, second = result(job, "others", 0), result(job, "others", 1)
    np.testing.assert_allclose(*first["proba"], atol=1e-6)
    assert_close(first["one"], second["by_itself"])


@pytest.mark.slow
def test_a_weight_that_gets_no_gradient_does_no_harm(job):
    ours = result(job, "others", 0)
    np.testing.assert_array_equal(ours["idle"].pop("model.idle"), np.ones(3, np.float32))
    assert_close(ours["one"], ours["idle"], atol=0)


@pytest.mark.slow
def test_one_process_saves(job):
    clf = BertFocalClassifier.from_pretrained(job / "saved")
    assert_close(weights(clf), result(job, "others", 0)["one"], atol=0)


@pytest.mark.slow
@pytest.mark.parametrize("rank", [0, 1])
def test_what_differs_between_processes_is_named_in_all(job, rank):
    ours = result(job, "others", rank)
    message = "ValueError: {} must be the same in all 2 processes"
    assert ours["differs"].startswith(message.format("X"))
    assert ours["settings"].startswith(message.format("lr"))
    assert ours["asked"].startswith(message.format("X"))
    assert ours["alike"] == "ValueError: made to fail"


@pytest.mark.slow
def test_what_draws_by_itself_draws_for_all(job):
    ours, theirs = (result(job, "unlike", rank) for rank in (0, 1))
    for name in ("split", "scored", "drawn"):
        assert_close(ours[name], theirs[name], atol=0)
    assert ours["temperature"] == theirs["temperature"]
    np.testing.assert_array_equal(ours["class_weight"], theirs["class_weight"])
    assert ours["draws"] != theirs["draws"]  # dropout is each one's own


@pytest.mark.slow
@pytest.mark.parametrize("rank", [0, 1])
def test_errors_of_what_differs_reach_all(job, rank):
    ours = result(job, "unlike", rank)
    assert "Refused: made to fail" in ours["refused"]
    assert ours["fewer"].startswith("ValueError: X and y must be the same")
    assert ours["named"].startswith("ValueError: y must be the same")
    assert ours["weighted"].startswith("ValueError: sample_weight must be the same")
    assert ours["decided"].startswith("RuntimeError: The 2 processes ended with different weights")
    assert "disconnected by destroy_process_group" in result(job, "ended", rank)["error"]


@pytest.mark.slow
def test_what_a_process_forks_is_alone(job):
    by_itself = weights(classifier(job, 16).fit(*documents()))
    assert_close(by_itself, result(job, "unlike", 1)["forked"])


@pytest.mark.slow
@pytest.mark.parametrize(
    "how, message",
    [("raises", "ValueError: made to fail"), ("mistaken", "The 'lr' parameter"), ("dies", "-9")],
)
def test_one_that_fails_brings_the_job_down(tiny, tmp_path, how, message):
    shutil.copytree(tiny, tmp_path / "tiny")
    process = start(tmp_path, how)
    output = end(process, 200)
    assert time.time() - float((tmp_path / "failed").read_text()) < 60
    assert process.returncode != 0
    assert message in output
    assert "caught" not in output


@pytest.mark.slow
def test_a_process_holds_its_part_of_the_weights(tiny, tmp_path):
    X, y = documents()
    shutil.copytree(tiny, tmp_path / "tiny")
    interrupted(tmp_path, "of-one", 16, train_split=0.2)
    settings = tmp_path / "fsdp.yaml"
    settings.write_text(
        "distributed_type: FSDP\n"
        "fsdp_config: {fsdp_version: 2, fsdp_cpu_ram_efficient_loading: true}\n"
        "num_processes: 2\n"
        "use_cpu: true\n"
    )
    launcher = "accelerate.commands.launch", "--config_file", str(settings)
    run(tmp_path, "sharded", launcher=launcher)
    kwargs = {"accumulate": 2, "train_split": 0.3, "early_stopping": True, "freeze": 1}
    clf = classifier(tmp_path, 16, **kwargs).fit(X, y)
    n_learn = sum(p.numel() for p in clf.net_.module_.parameters() if p.requires_grad)
    for rank in (0, 1):
        ours = result(tmp_path, "sharded", rank)
        own, of_all = ours["numbers"]
        assert 0.45 * of_all < own < 0.55 * of_all
        assert 0.45 * 2 * n_learn < ours["moments"] < 0.55 * 2 * n_learn + 100
        assert_close(weights(clf), ours["weights"])
        assert ours["score"] == clf.history_[-1, "valid_score"]
        loaded = pickle.loads(ours["clf"])
        np.testing.assert_allclose(loaded.predict_proba(X[:11]), ours["proba"], atol=1e-6)
    long = classifier(tmp_path, 16, long_documents="windows", max_length=8).fit(X, y)
    assert_close(weights(long), result(tmp_path, "sharded-windows", 0)["weights"])
    test_a_checkpoint_goes_on_with_the_same_bits(tmp_path)
    test_a_checkpoint_goes_on_with_another_number_of_processes(tmp_path)
    test_partial_fit_too(tmp_path)


@pytest.mark.gpu
@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two CUDA devices")
def test_two_devices_train_what_one_does_with_twice_the_batch(tiny, tmp_path):
    shutil.copytree(tiny, tmp_path / "tiny")
    run(tmp_path, "on_devices", devices="0,1")
    clf = classifier(tmp_path, 16, precision="float32", device="cuda:0").fit(*documents())
    for rank in (0, 1):
        ours = result(tmp_path, "on_devices", rank)
        assert ours["device"] == f"cuda:{rank}"
        assert_close(weights(clf), ours["weights"])


# -- without processes ---------------------------------------------------------------------------


def test_a_batch_without_weight_is_divided_by_one(make, monkeypatch):
    """Anything tiny becomes infinite when it is multiplied by the number of processes."""
    net = make(normalize="weights", alpha="balanced").fit(*imbalanced()).net_
    batch = {"sample_weight": torch.zeros(3)}, torch.tensor([0, 1, 1])
    monkeypatch.setattr(Processes, "all_reduce_sum", lambda self, value: value)
    loop = TrainingLoop(net, None, None, Processes(0, 8), None)
    assert loop._whole_divisor(batch, 24) == loop._divisor(batch) == 1


def test_a_launcher_is_told_from_what_its_processes_start(monkeypatch):
    variables = {"RANK": "1", "LOCAL_RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "localhost"}
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("MASTER_PORT", "1234")
    monkeypatch.setenv("SKFOCAL_LAUNCHED", "localhost:1234 1")  # by the process 1
    assert not is_launched()
    assert process_group.speaks()
    monkeypatch.setenv("MASTER_PORT", "1235")  # a launcher that was started by it
    assert is_launched() and is_launched()
    assert not process_group.speaks()  # before the processes are connected, too
    monkeypatch.setenv("RANK", "0")
    assert process_group.speaks()


@pytest.mark.parametrize("size", [2, 3, 5])
def test_shards_are_all_rows_once_and_near_equal_in_length(size):
    rng = np.random.RandomState(0)
    lengths = rng.randint(2, 60, 203)
    batches = BucketBatchSampler(
        lengths, 4 * size, lambda epoch, rng: np.arange(203), 203, np.random.RandomState(1)
    )
    list(batches)
    whole = [rows.tolist() for rows in batches.batches]
    shards = [list(Shards(whole, Processes(rank, size))) for rank in range(size)]
    assert {len(shard) for shard in shards} == {len(whole)}
    for i, batch in enumerate(whole):
        parts = [shard[i] for shard in shards]
        if len(batch) >= size:
            assert sorted(sum(parts, [])) == sorted(batch)
            longest = [lengths[part].max() for part in parts]
            assert max(longest) - min(longest) <= np.ptp(lengths[batch])
        else:
            assert all(parts)
    tokens = np.array([[lengths[part].sum() for part in shard] for shard in shards])
    totals = tokens.sum(axis=1)
    assert totals.max() < 1.1 * totals.min()
