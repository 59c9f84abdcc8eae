"""Import optional packages at the point of use."""

import importlib
from typing import Any


def import_optional(module: str, used_by: str, extra: str | None = None) -> Any:
    """Import a module of an optional package.

    Parameters
    ----------
    module : str
    used_by : str
        The call or setting that needs the module, as the user wrote it.
    extra : str, default=None
        The extra of skfocal that installs the package; None if there is none.

    Raises
    ------
    ImportError
        If the module cannot be imported; the message says what to install.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        package = module.partition(".")[0]
        install = f"'skfocal[{extra}]'" if extra else package
        raise ImportError(f"{used_by} needs {package}: pip install {install}") from error
