"""A fitted classifier on one page, and two of them compared."""

from skfocal.report._comparison import ClassifierComparison, compare_classifiers
from skfocal.report._report import Report

__all__ = ["ClassifierComparison", "Report", "compare_classifiers"]
