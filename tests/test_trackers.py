"""Trackers get each epoch through `callbacks=`; MLflow stores fitted estimators."""

import copy
import pickle
import re
import subprocess
import sys
import threading
import warnings
from pathlib import Path

import numpy as np
import pytest
from sklearn import config_context
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV
from skorch.callbacks import Callback, MlflowLogger, TensorBoard, WandbLogger

import skfocal
from skfocal.callbacks import copies

ROOT = Path(__file__).parents[1]
TRUSTED = ["skfocal.classifier.BertFocalClassifier"]

# MLflow's own code makes SQLAlchemy and MLflow warn.
pytestmark = [
    pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy"),
    pytest.mark.filterwarnings("ignore:.*Any type hint is inferred"),
]


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory):
    """File of an MLflow store with its tables, which take seconds to make."""
    mlflow = pytest.importorskip("mlflow")
    path = tmp_path_factory.mktemp("store") / "mlflow.sqlite"
    with warnings.catch_warnings(action="ignore"):
        mlflow.MlflowClient(f"sqlite:///{path}").search_experiments()
    return path


@pytest.fixture
def mlflow(empty_store, tmp_path, monkeypatch):
    """MLflow with an empty store in `tmp_path`, the working directory."""
    import mlflow

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "")  # put back what setting it below leaves
    Path("mlflow.sqlite").write_bytes(empty_store.read_bytes())
    mlflow.set_tracking_uri(f"sqlite:///{tmp_path / 'mlflow.sqlite'}")
    mlflow.set_experiment(
        experiment_id=mlflow.create_experiment("test", (tmp_path / "artifacts").as_uri())
    )
    yield mlflow
    while mlflow.active_run():
        mlflow.end_run()
    mlflow.set_tracking_uri(None)


@pytest.fixture
def open_writer():
    """Return a function that opens TensorBoard's writer on a folder."""
    pytest.importorskip("tensorboard")
    from torch.utils.tensorboard import SummaryWriter

    return SummaryWriter


def curves(folder):
    """Return the values of each tag in a folder of TensorBoard, by step."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder)).Reload()
    return {
        tag: [(event.step, event.value) for event in events.Scalars(tag)]
        for tag in events.Tags()["scalars"]
    }


def column(clf, name):
    return [(row["epoch"], row[name]) for row in clf.history_]


# -- MLflow --------------------------------------------------------------------------------


def metric(mlflow, run, name):
    history = mlflow.MlflowClient().get_metric_history(run.info.run_id, name)
    return sorted((m.step, m.value) for m in history)


def test_mlflow_has_the_history_of_the_fit(mlflow, make, data):
    clf = make(callbacks=[MlflowLogger()], train_split=0.3)
    with mlflow.start_run() as run:
        clf.fit(*data)
    for name in ("train_loss", "valid_loss", "valid_score"):
        assert metric(mlflow, run, name) == column(clf, name)
    assert mlflow.get_run(run.info.run_id).info.status == "FINISHED"
    files = {file.path for file in mlflow.MlflowClient().list_artifacts(run.info.run_id)}
    assert files == {"params.pth", "optimizer.pth", "criterion.pth", "history.json"}


def test_a_named_run_goes_through_clone_and_pickle(mlflow, make, data):
    client = mlflow.MlflowClient()
    run = client.create_run(client.get_experiment_by_name("test").experiment_id)
    clf = make(callbacks=[MlflowLogger(run, client, create_artifact=False)])
    for other in (clone(clf), pickle.loads(pickle.dumps(clf))):
        other.fit(*data)
    assert metric(mlflow, run, "train_loss") == sorted(2 * column(other, "train_loss"))


def test_a_search_logs_all_its_fits_to_the_active_run(mlflow, make, data):
    tracker = MlflowLogger(create_artifact=False, terminate_after_train=False)
    search = GridSearchCV(make(callbacks=[tracker], max_epochs=1), {"gamma": [0, 2]}, cv=2)
    with mlflow.start_run() as run:
        search.fit(*data)
    values = [value for _, value in metric(mlflow, run, "train_loss")]
    assert len(set(values)) == 5
    assert search.best_estimator_.history_[-1]["train_loss"] in values


LOAD = """
import sys, mlflow, numpy as np
X = np.load("X.npy").tolist()
for i, uri in enumerate(sys.argv[1:]):
    np.save(f"proba-{i}.npy", mlflow.sklearn.load_model(uri).predict_proba(X))
np.save("labels.npy", mlflow.pyfunc.load_model(sys.argv[1]).predict(X))
"""


@pytest.mark.slow
def test_a_logged_model_predicts_the_same_in_a_new_process(mlflow, make, data):
    X, y = data
    clf = make(alpha="balanced", train_split=0.3, decision="tuned").fit(X, y)
    kinds = {"skops": {"skops_trusted_types": TRUSTED}, "pickle": {}, "cloudpickle": {}}
    models = [
        mlflow.sklearn.log_model(
            clf,
            name="model",
            serialization_format=kind,
            pip_requirements=["scikit-learn"],  # which are found in a process else, for seconds
            **settings,
        )
        for kind, settings in kinds.items()
    ]
    np.save("X.npy", X)
    subprocess.run([sys.executable, "-c", LOAD, *(m.model_uri for m in models)], check=True)
    for i in range(len(kinds)):
        assert (np.load(f"proba-{i}.npy") == clf.predict_proba(X)).all()
    assert (np.load("labels.npy") == clf.predict(X)).all()


def test_mlflow_refuses_skops_without_trust(mlflow, make, data):
    clf = make(max_epochs=1).fit(*data)
    with pytest.raises(mlflow.MlflowException, match=re.escape(f"{TRUSTED}")):
        mlflow.sklearn.log_model(clf, name="model", pip_requirements=["scikit-learn"])


# -- TensorBoard ---------------------------------------------------------------------------


def test_tensorboard_has_the_history_of_the_fit(open_writer, make, data, tmp_path):
    clf = make(callbacks=[TensorBoard(open_writer(tmp_path))], train_split=0.3).fit(*data)
    logged = curves(tmp_path)
    assert set(logged) == {"Loss/train_loss", "Loss/valid_loss", "Loss/valid_score", "dur"}
    for tag, values in logged.items():
        expected = column(clf, tag.removeprefix("Loss/"))
        assert [step for step, _ in values] == [1, 2]
        np.testing.assert_allclose(values, expected, rtol=1e-6)  # events hold float32


def test_an_open_writer_is_shared_by_clones_and_fits(open_writer, make, data, tmp_path):
    writer = open_writer(tmp_path)
    with pytest.raises(TypeError, match="lock"):  # else sharing is not needed any more
        copy.deepcopy(writer)
    clf = make(callbacks=[("board", TensorBoard(writer, close_after_train=False))], max_epochs=1)
    search = GridSearchCV(clf, {"gamma": [0, 2]}, cv=2).fit(*data)
    writer.close()
    best = search.best_estimator_
    assert best.callbacks[0][1] is not clf.callbacks[0][1]
    assert dict(best.net_.callbacks_)["board"].writer is writer
    assert len(curves(tmp_path)["Loss/train_loss"]) == 5


def test_clones_with_an_open_writer_keep_their_settings(open_writer, make, data, tmp_path):
    tracker = TensorBoard(open_writer(tmp_path), close_after_train=False)
    clf = make(callbacks=[tracker], gamma=1.5, alpha={"ham": 2.0, "spam": 1.0})
    with config_context(enable_metadata_routing=True):
        clf.set_fit_request(sample_weight=True)
        cloned = clone(clf.fit(*data))
        assert f"{cloned.get_metadata_routing()}" == f"{clf.get_metadata_routing()}"
    mine, theirs = clf.get_params(), cloned.get_params()
    assert not hasattr(cloned, "net_") and theirs["alpha"] is not mine["alpha"]
    assert mine.pop("callbacks")[0].writer is theirs.pop("callbacks")[0].writer
    assert mine == theirs
    tracker.writer.close()


def test_clone_still_refuses_what_is_no_matter_of_callbacks(make):
    with pytest.raises(TypeError, match="lock"):
        clone(make(loss_params={"lock": threading.Lock()}, callbacks=[Callback()]))


class Keeps(Callback):
    def __init__(self, file, seen):
        self.file = file
        self.seen = seen


def test_copies_share_only_what_cannot_be_copied(tmp_path):
    with (tmp_path / "file").open("w") as file:
        callback = Keeps(file, [1])
        for copied in (copies([callback])[0], copies([("name", callback)])[0][1]):
            assert copied is not callback and copied.file is file
            assert copied.seen == [1] and copied.seen is not callback.seen


def test_an_open_writer_cannot_go_to_another_process(open_writer, make, tmp_path):
    clf = make(callbacks=[TensorBoard(open_writer(tmp_path))])
    with pytest.raises(TypeError, match="lock"):  # as docs/trackers.md says
        pickle.dumps(clf)
    pickle.dumps(clf.set_params(callbacks=None))


# -- the page and the example --------------------------------------------------------------


def test_blocks_on_trackers_run(mlflow, open_writer, tiny, monkeypatch, tmp_path):
    import cloudpickle
    from test_docs import DOCS, blocks_of, run

    monkeypatch.setattr(skfocal, "fetch_minilm", lambda: tiny, raising=False)
    words = {"earn": "profit dividend", "ship": "port vessel"}
    X = [f"{words[c]} of {i}" for c in words for i in range(10)]
    page = DOCS / "trackers.md"
    assert len(blocks_of(page)) == 5
    y = np.repeat(list(words), 10)
    scope = run(page, {"X": X, "y": y, "__name__": "page"})
    mlflow.set_tracking_uri("sqlite:///mlflow.sqlite")

    metrics = mlflow.get_run(scope["run"].info.run_id).data.metrics
    assert {"accuracy_training", "train_loss", "valid_loss", "valid_score"} < set(metrics)
    assert len(curves("runs/focal")["Loss/train_loss"]) == 4

    fits = [curves(folder) for folder in Path("runs").glob("fit-*")]
    assert len(fits) == 5 and all(len(fit["Loss/train_loss"]) == 1 for fit in fits)
    # Classes of a script go to other processes by cloudpickle.
    cloudpickle.loads(cloudpickle.dumps(scope["search"].best_estimator_)).fit(X, y)
    assert len(list(Path("runs").glob("fit-*"))) == 6

    runs = mlflow.search_runs(output_format="list")
    children = [r for r in runs if "mlflow.parentRunId" in r.data.tags]
    assert {r.data.params["gamma"]: r.data.metrics["mean_test_score"] for r in children} == dict(
        zip("02", scope["search"].cv_results_["mean_test_score"], strict=True)
    )


@pytest.mark.slow
def test_the_example_tracks_a_fit_on_real_text(tmp_path):
    options = ["--part", "80", "--epochs", "2", "--max-length", "24"]
    done = subprocess.run(
        [sys.executable, ROOT / "examples" / "tracking.py", "--folder", tmp_path, *options],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "gives the same probabilities: True" in done.stdout
    logged = dict(re.findall(r"^(\w+) +([\d.]+)$", done.stdout, re.M))
    (folder,) = (tmp_path / "runs").iterdir()
    shown = curves(folder)
    assert len(shown["Loss/train_loss"]) == 2
    for name in ("train_loss", "valid_loss", "valid_score"):
        assert shown[f"Loss/{name}"][-1][1] == pytest.approx(float(logged[name]), abs=1e-4)


# -- Weights & Biases ----------------------------------------------------------------------


def test_wandb_has_the_last_row_of_the_history(make, data, tmp_path):
    wandb = pytest.importorskip("wandb")
    run = wandb.init(mode="offline", dir=tmp_path, settings=wandb.Settings(silent=True))
    try:
        clf = make(callbacks=[WandbLogger(run, save_model=False)], train_split=0.3).fit(*data)
        for name in ("train_loss", "valid_loss", "valid_score"):
            assert run.summary[name] == pytest.approx(clf.history_[-1][name])
    finally:
        run.finish()


def test_wandb_saves_weights_of_held_out_documents_only(make, data):
    with pytest.raises(ValueError, match="Set save_model=False to log alone"):
        make(callbacks=[WandbLogger(None)]).fit(*data)
