"""A package that is not installed is named, with what installs it."""

import pytest

from skfocal._utils.optional import import_optional


def test_a_module_of_an_installed_package_is_returned():
    import numpy.random

    assert import_optional("numpy.random", "This test", "test") is numpy.random


@pytest.mark.parametrize(
    "extra, install", [("cli", r"'skfocal\[cli\]'"), (None, "no_such_package")]
)
def test_the_message_names_user_package_and_what_installs_it(extra, install):
    message = rf"^to_frame needs no_such_package: pip install {install}$"
    with pytest.raises(ImportError, match=message):
        import_optional("no_such_package.module", "to_frame", extra)
