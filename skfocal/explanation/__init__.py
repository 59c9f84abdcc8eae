"""Which words of a document speak for a class, and which against it."""

from skfocal.explanation._explanation import DocumentExplanation, Explanation

__all__ = ["DocumentExplanation", "Explanation"]
