"""Base class of parameter values with settings of their own, such as ``Windows(stride=64)``."""

from sklearn.base import BaseEstimator

from skfocal._utils.messages import short_errors


class Settings(BaseEstimator):
    """A parameter value with settings; two of the same class and settings are equal."""

    _parameter_constraints: dict = {}

    def check(self):
        """Raise ValueError, naming the setting, if a setting is invalid."""
        with short_errors():
            self._validate_params()

    def __eq__(self, other):
        return type(self) is type(other) and vars(self) == vars(other)

    def __hash__(self):
        return hash((type(self), *sorted(vars(self).items())))
