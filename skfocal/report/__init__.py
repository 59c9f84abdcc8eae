"""Scores, figures and the hardest documents of a fitted classifier on one page."""

from skfocal.report._report import Report

__all__ = ["Report"]
