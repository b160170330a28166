"""The calls of `fit` that a run is made of."""

from typing import NamedTuple


class Stretch(NamedTuple):
    """Epochs of one length.

    Args:
        first: number of the first epoch, from 0.
        last: number of the one after the last.
        first_step: steps of the first epoch that are done already.
        steps: steps of each of these epochs that are left.
    """

    first: int
    last: int
    first_step: int
    steps: int


def stretches(done: int, steps: int, total: int) -> list[Stretch]:
    """Returns what is left of a run: of an epoch, of whole epochs, and of the last, short one.

    Args:
        done: steps that are done.
        steps: steps of an epoch.
        total: steps of the run.
    """
    found = []
    while done < total:
        epoch, step = divmod(done, steps)
        # Whole ones together; one that is begun, or cut short, alone.
        last = max(total // steps, epoch + 1) if step == 0 else epoch + 1
        left = min(steps, total - epoch * steps) - step
        found.append(Stretch(epoch, last, step, left))
        done = min(last * steps, total)
    return found
