"""Keeps the messages of native code, which no Python setting reaches, off a user's terminal."""

import contextlib
import os
import sys
import tempfile
from collections.abc import Callable, Iterator


@contextlib.contextmanager
def hidden() -> Iterator[Callable[[], str]]:
    """Hides what native code writes to standard error; shows it after all if the block fails.

    Ctrl-C is no failure. The block is given what returns the text that was written so far.
    """
    sys.stderr.flush()
    try:
        saved = os.dup(2)
    except OSError:
        # Without a standard error there is nothing to hide.
        yield str
        return
    with tempfile.TemporaryFile() as held:
        os.dup2(held.fileno(), 2)

        def told() -> str:
            held.seek(0)
            return held.read().decode(errors="replace")

        try:
            yield told
        except Exception:
            os.dup2(saved, 2)
            held.seek(0)
            os.write(2, held.read())
            raise
        finally:
            sys.stderr.flush()
            os.dup2(saved, 2)
            os.close(saved)
