"""How many images a file is checked on."""

from tfcq.errors import UserError

GATE_IMAGES = 1000
GATE_HELP = "test images, and training images where those are fewer, of the check tensor by tensor"


def checked_images(count: int) -> int:
    """Returns a number of images unchanged.

    Args:
        count: the number.

    Raises:
        UserError: when it is none.
    """
    if count < 1:
        raise UserError(f"--images={count} cannot be used; allowed: 1 and above.")
    return count
