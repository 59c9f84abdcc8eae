"""What a notebook shows as a page, and a file keeps."""

import os
from pathlib import Path

from skfocal._pages.elements import page


class Page:
    """A result with an HTML page, which is made when somebody first asks for it."""

    _html: str

    def _title(self) -> str:
        """Return the title of the page."""
        raise NotImplementedError

    def _content(self) -> str:
        """Return the content of the page as one element."""
        raise NotImplementedError

    def _repr_html_(self) -> str:
        if not hasattr(self, "_html"):
            self._html = self._content()
        return self._html

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the page into one HTML file, which needs no network and no script.

        Parameters
        ----------
        path : str or path
            An existing file is replaced.

        Raises
        ------
        ImportError
            If the page has figures and matplotlib is not installed.
        """
        Path(path).write_text(page(self._repr_html_(), self._title()), encoding="utf-8")
