"""
Tracking a fit with MLflow and TensorBoard
==========================================

skorch's callbacks log each epoch to MLflow (here in a local SQLite file) and to TensorBoard. We log
the fitted estimator to MLflow as a model that is safe to open, load it again and check that its
probabilities are the same. You need ``pip install mlflow tensorboard``.

Run it with ``python examples/tracking.py``, then look at the result with::

    mlflow ui --backend-store-uri sqlite:///tracking/mlflow.sqlite
    tensorboard --logdir tracking/runs
"""

import argparse
import logging
import os
from pathlib import Path

os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "WARNING")  # otherwise it logs each table it creates

import mlflow
import numpy as np
from skorch.callbacks import MlflowLogger, TensorBoard
from torch.utils.tensorboard import SummaryWriter

from skfocal import BertFocalClassifier, fetch_minilm, fetch_reuters
from skfocal.balance import stratified_holdout


def parse():
    """Return the options of the command line."""
    parser = argparse.ArgumentParser(description="Track a fit with MLflow and TensorBoard.")
    parser.add_argument("--folder", type=Path, default=Path("tracking"), help="where logs go")
    parser.add_argument("--part", type=int, default=600, help="training documents")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--max-length", type=int, default=64, help="tokens of a document")
    return parser.parse_args()


def load(n_train, n_test=300):
    """Return a stratified part of R8's training documents, and some of its test documents."""
    X, y = fetch_reuters("r8", subset="train", return_X_y=True)
    codes = np.unique(y, return_inverse=True)[1]
    rows, _ = stratified_holdout(codes, 1 - n_train / len(X), np.random.RandomState(0))
    X_test, y_test = fetch_reuters("r8", subset="test", return_X_y=True)
    return [X[i] for i in rows], y[rows], X_test[:n_test], y_test[:n_test]


def choose_experiment(folder):
    """Keep MLflow's runs in an SQLite file in the folder, and its artifacts next to it."""
    mlflow.set_tracking_uri(f"sqlite:///{folder / 'mlflow.sqlite'}")
    if mlflow.get_experiment_by_name("r8") is None:
        mlflow.create_experiment("r8", artifact_location=(folder / "artifacts").as_uri())
    mlflow.set_experiment("r8")


def main():
    """Fit a classifier, log it, and load it again."""
    options = parse()
    folder = options.folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    logging.getLogger("alembic").setLevel(logging.WARNING)
    choose_experiment(folder)
    X, y, X_test, y_test = load(options.part)

    with mlflow.start_run() as run:
        clf = BertFocalClassifier(
            fetch_minilm(),
            alpha="balanced",
            freeze=3,
            lr=5e-4,
            max_length=options.max_length,
            max_epochs=options.epochs,
            train_split=0.1,
            random_state=0,
            verbose=1,
            callbacks=[
                MlflowLogger(create_artifact=False, terminate_after_train=False),
                TensorBoard(SummaryWriter(folder / "runs" / run.info.run_id)),
            ],
        )
        mlflow.log_params({name: getattr(clf, name) for name in ("loss", "gamma", "alpha", "lr")})
        clf.fit(X, y)
        mlflow.log_metric("test_accuracy", clf.score(X_test, y_test))
        logged = mlflow.sklearn.log_model(
            clf.set_params(callbacks=None),  # a model needs no tracker
            name="model",
            skops_trusted_types=["skfocal.classifier.BertFocalClassifier"],
            pip_requirements=["skfocal", "skops"],
        )

    again = mlflow.sklearn.load_model(logged.model_uri)
    same = (again.predict_proba(X_test) == clf.predict_proba(X_test)).all()
    print(f"the model from MLflow gives the same probabilities: {same}")
    for name, value in sorted(mlflow.get_run(run.info.run_id).data.metrics.items()):
        print(f"{name:15s}{value:.4f}")
    print(f"logged to {options.folder}")


if __name__ == "__main__":
    main()
