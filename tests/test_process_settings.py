"""A setting of the process holds while anybody uses it."""

import contextlib

import pytest

from skfocal._runtime.process_settings import counted


def test_a_setting_ends_with_the_last_user_not_with_the_first():
    calls = []

    @counted
    @contextlib.contextmanager
    def setting():
        calls.append("set")
        yield
        calls.append("put back")

    for _ in range(2):
        one = contextlib.ExitStack()
        one.enter_context(setting())
        with pytest.raises(KeyError), setting():
            one.close()
            assert calls == ["set"]
            raise KeyError
        assert calls == ["set", "put back"]
        calls.clear()


def test_a_setting_that_fails_has_no_user():
    works = []

    @counted
    @contextlib.contextmanager
    def setting():
        if not works:
            raise OSError("not now")
        yield
        works.append("put back")

    with pytest.raises(OSError, match="not now"), setting():
        pass
    works.append("yes")
    with setting():
        pass
    assert works == ["yes", "put back"]
