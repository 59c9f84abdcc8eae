"""Fine-tune BERT-like encoders on imbalanced text, the scikit-learn way."""

from importlib import import_module
from typing import TYPE_CHECKING

import skfocal._runtime.openmp  # noqa: F401  before anything imports torch
from skfocal._version import __version__

if TYPE_CHECKING:  # for editors and type checkers
    from skfocal._data.soft_labels import expand_soft_labels
    from skfocal._data.texts import as_column
    from skfocal._runtime.process_group import alone
    from skfocal.balance import EffectiveNumber
    from skfocal.caches import cache_info, clear_cache
    from skfocal.classifier import BertFocalClassifier
    from skfocal.comparison import LossComparison, compare_losses
    from skfocal.data_audit import Audit, audit
    from skfocal.datasets import (
        fetch_20newsgroups_cachopo,
        fetch_minilm,
        fetch_mpnet,
        fetch_reuters,
    )
    from skfocal.displays import (
        ClassLossDisplay,
        ClassPrecisionRecallDisplay,
        ConfusedPairsDisplay,
        FeatureMapDisplay,
        FrequencyConfusionMatrixDisplay,
        GridSearchDisplay,
        ReliabilityDisplay,
        TrainingHistoryDisplay,
    )
    from skfocal.explanation import DocumentExplanation, Explanation
    from skfocal.losses import (
        AsymmetricLoss,
        CrossEntropyLoss,
        CustomLoss,
        DiceLoss,
        DistributionBalancedLoss,
        FocalLoss,
        LDAMLoss,
        LogitAdjustedLoss,
        Poly1FocalLoss,
        Poly1Loss,
        SigmoidCrossEntropyLoss,
        SigmoidFocalLoss,
        asymmetric_loss,
        cross_entropy,
        dice_loss,
        distribution_balanced_loss,
        focal_loss,
        ldam_loss,
        logit_adjusted_loss,
        poly1_focal_loss,
        sigmoid_focal_loss,
    )
    from skfocal.metrics import expected_calibration_error
    from skfocal.options import Checkpoint, Windows
    from skfocal.report import ClassifierComparison, Report, compare_classifiers
    from skfocal.serving import OnnxBatcher, OnnxClassifier
    from skfocal.sharing import share

# Imported on first use: torch and transformers take seconds to import, and users of the losses
# alone need no transformers.
_HOME = {
    "ClassLossDisplay": "displays",
    "ClassPrecisionRecallDisplay": "displays",
    "ConfusedPairsDisplay": "displays",
    "FeatureMapDisplay": "displays",
    "FrequencyConfusionMatrixDisplay": "displays",
    "GridSearchDisplay": "displays",
    "ReliabilityDisplay": "displays",
    "TrainingHistoryDisplay": "displays",
    "Audit": "data_audit",
    "audit": "data_audit",
    "LossComparison": "comparison",
    "compare_losses": "comparison",
    "expand_soft_labels": "_data.soft_labels",
    "expected_calibration_error": "metrics",
    "alone": "_runtime.process_group",
    "as_column": "_data.texts",
    "cache_info": "caches",
    "clear_cache": "caches",
    "BertFocalClassifier": "classifier",
    "Checkpoint": "options",
    "EffectiveNumber": "balance",
    "Windows": "options",
    "DocumentExplanation": "explanation",
    "Explanation": "explanation",
    "CrossEntropyLoss": "losses",
    "AsymmetricLoss": "losses",
    "CustomLoss": "losses",
    "DiceLoss": "losses",
    "DistributionBalancedLoss": "losses",
    "LDAMLoss": "losses",
    "LogitAdjustedLoss": "losses",
    "Poly1FocalLoss": "losses",
    "Poly1Loss": "losses",
    "SigmoidCrossEntropyLoss": "losses",
    "SigmoidFocalLoss": "losses",
    "asymmetric_loss": "losses",
    "dice_loss": "losses",
    "distribution_balanced_loss": "losses",
    "ldam_loss": "losses",
    "logit_adjusted_loss": "losses",
    "poly1_focal_loss": "losses",
    "FocalLoss": "losses",
    "cross_entropy": "losses",
    "OnnxBatcher": "serving",
    "OnnxClassifier": "serving",
    "ClassifierComparison": "report",
    "Report": "report",
    "compare_classifiers": "report",
    "share": "sharing",
    "focal_loss": "losses",
    "sigmoid_focal_loss": "losses",
    "fetch_20newsgroups_cachopo": "datasets",
    "fetch_minilm": "datasets",
    "fetch_mpnet": "datasets",
    "fetch_reuters": "datasets",
}

__all__ = [
    "AsymmetricLoss",
    "Audit",
    "BertFocalClassifier",
    "Checkpoint",
    "ClassLossDisplay",
    "ClassPrecisionRecallDisplay",
    "ClassifierComparison",
    "ConfusedPairsDisplay",
    "CrossEntropyLoss",
    "CustomLoss",
    "DiceLoss",
    "DistributionBalancedLoss",
    "DocumentExplanation",
    "EffectiveNumber",
    "Explanation",
    "FeatureMapDisplay",
    "FocalLoss",
    "FrequencyConfusionMatrixDisplay",
    "GridSearchDisplay",
    "LDAMLoss",
    "LogitAdjustedLoss",
    "LossComparison",
    "OnnxBatcher",
    "OnnxClassifier",
    "Poly1FocalLoss",
    "Poly1Loss",
    "ReliabilityDisplay",
    "Report",
    "SigmoidCrossEntropyLoss",
    "SigmoidFocalLoss",
    "TrainingHistoryDisplay",
    "Windows",
    "alone",
    "as_column",
    "asymmetric_loss",
    "audit",
    "cache_info",
    "clear_cache",
    "compare_classifiers",
    "compare_losses",
    "cross_entropy",
    "dice_loss",
    "distribution_balanced_loss",
    "expand_soft_labels",
    "expected_calibration_error",
    "fetch_20newsgroups_cachopo",
    "fetch_minilm",
    "fetch_mpnet",
    "fetch_reuters",
    "focal_loss",
    "ldam_loss",
    "logit_adjusted_loss",
    "poly1_focal_loss",
    "share",
    "sigmoid_focal_loss",
    "__version__",
]

if not TYPE_CHECKING:  # a type checker would accept every name

    def __getattr__(name):
        if name not in _HOME:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
