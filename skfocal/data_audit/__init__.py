"""A look at labelled text before any training, as tables and on one page."""

from skfocal.data_audit._audit import Audit, audit

__all__ = ["Audit", "audit"]
