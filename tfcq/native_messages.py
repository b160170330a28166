"""Keeps the messages of native code, which no Python setting reaches, off a user's terminal."""

import contextlib
import os
import sys
import tempfile
from collections.abc import Iterator


@contextlib.contextmanager
def hidden() -> Iterator[None]:
    """Hides what native code writes to standard error; shows it after all if the block fails.

    Ctrl-C is no failure.
    """
    sys.stderr.flush()
    try:
        saved = os.dup(2)
    except OSError:
        # Without a standard error there is nothing to hide.
        yield
        return
    with tempfile.TemporaryFile() as held:
        os.dup2(held.fileno(), 2)
        try:
            yield
        except Exception:
            os.dup2(saved, 2)
            held.seek(0)
            os.write(2, held.read())
            raise
        finally:
            sys.stderr.flush()
            os.dup2(saved, 2)
            os.close(saved)
