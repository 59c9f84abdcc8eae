"""Figures in the style of scikit-learn's Displays; drawing one imports matplotlib."""

from skfocal.displays._class_loss import ClassLossDisplay
from skfocal.displays._confusion import FrequencyConfusionMatrixDisplay
from skfocal.displays._history import TrainingHistoryDisplay
from skfocal.displays._map import FeatureMapDisplay
from skfocal.displays._pairs import ConfusedPairsDisplay
from skfocal.displays._precision_recall import ClassPrecisionRecallDisplay
from skfocal.displays._reliability import ReliabilityDisplay
from skfocal.displays._search import GridSearchDisplay

__all__ = [
    "ClassLossDisplay",
    "ClassPrecisionRecallDisplay",
    "ConfusedPairsDisplay",
    "FeatureMapDisplay",
    "FrequencyConfusionMatrixDisplay",
    "GridSearchDisplay",
    "ReliabilityDisplay",
    "TrainingHistoryDisplay",
]
