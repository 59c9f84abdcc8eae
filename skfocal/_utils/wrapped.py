"""What is in searches, pipelines and frozen estimators."""

from typing import Any

from sklearn.frozen import FrozenEstimator
from sklearn.pipeline import Pipeline
from sklearn.utils.validation import check_is_fitted


def check_fitted(estimator: Any) -> None:
    """Raise NotFittedError if it can be fitted and is not: an exported graph has no `fit`."""
    if hasattr(estimator, "fit"):
        check_is_fitted(estimator)
    elif not hasattr(estimator, "predict"):
        raise TypeError(
            f"estimator must be a fitted classifier. Got {type(estimator).__name__}, which has no "
            "predict."
        )


def innermost(estimator: Any, X: Any) -> tuple[list[str], Any, Any]:
    """Unwrap searches and pipelines: return their names, the classifier, and its documents."""
    *outer, final = layers(estimator)
    for layer in outer:
        if isinstance(layer, Pipeline):
            for _, step in layer.steps[:-1]:
                if hasattr(step, "transform"):  # neither "passthrough" nor a sampler
                    X = step.transform(X)
    return [type(layer).__name__ for layer in (*outer, final)], final, X


def layers(estimator: Any) -> list[Any]:
    """Return an estimator, and what is in searches and at the end of pipelines, outermost first."""
    found = [estimator]
    while True:
        if hasattr(estimator, "best_estimator_"):
            estimator = estimator.best_estimator_
        elif isinstance(estimator, FrozenEstimator):
            estimator = estimator.estimator
        elif isinstance(estimator, Pipeline):
            estimator = estimator.steps[-1][1]
        else:
            return found
        found.append(estimator)
