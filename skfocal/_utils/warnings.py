"""Warnings that point at the user's line."""

import warnings


def warn(message, category=UserWarning):
    """Warn."""
    warnings.warn(message, category, stacklevel=3)
