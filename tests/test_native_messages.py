"""Messages of native code that stay away until they are needed."""

import os

import pytest

from tfcq import native_messages


def test_native_messages_are_hidden(capfd):
    with native_messages.hidden():
        os.write(2, b"chatter\n")
    os.write(2, b"after\n")
    assert capfd.readouterr().err == "after\n"


def test_native_messages_are_shown_after_all_when_something_fails(capfd):
    with pytest.raises(RuntimeError), native_messages.hidden():
        os.write(2, b"the reason\n")
        raise RuntimeError
    os.write(2, b"after\n")
    assert capfd.readouterr().err == "the reason\nafter\n"
