"""The base of values that consist of several settings, such as ``Windows(stride=64)``."""

from sklearn.base import BaseEstimator

from skfocal._utils.messages import short_errors


class Settings(BaseEstimator):
    """A value of a parameter: checked by :meth:`check`, equal to another of the same settings."""

    _parameter_constraints: dict = {}

    def check(self):
        """Raise ValueError if a setting is wrong; it is named."""
        with short_errors():
            self._validate_params()

    def __eq__(self, other):
        return type(self) is type(other) and vars(self) == vars(other)

    def __hash__(self):
        return hash((type(self), *sorted(vars(self).items())))
