"""One update from a batch that is made in parts, one after another.

A step stays an update: schedules, drawn bits, momentum networks, queues and checkpoints know
nothing of the parts. Under `gradient_accumulation_steps` of Keras's optimizers a step is a part,
and each of these would count parts.
"""

from collections.abc import Callable, Sequence

import keras
import tensorflow as tf

from tfcq.errors import UserError

Gradients = list[tf.Tensor | None]
Differentiated = Callable[[dict[int, tf.Tensor]], tuple[Gradients, list[tf.Tensor]]]


def accumulated(
    differentiated: Differentiated,
    views: dict[int, tf.Tensor],
    parts: int,
    variables: Sequence[keras.Variable],
    targets: Sequence[str],
) -> tuple[Gradients, list[tf.Tensor]]:
    """Returns the mean of the gradients over the parts of a batch, and the targets of all of it.

    Args:
        differentiated: from the views of a part to the gradient of each variable, None where there
            is none, and the targets, float [images of the part, width].
        views: float tensor [batch, height, width, channels] of each view.
        parts: how many.
        variables: what the gradients are of.
        targets: the dtype of each target.
    """
    in_parts = {
        view: tf.reshape(images, [parts, -1, *images.shape[1:]]) for view, images in views.items()
    }
    given: list[bool] = []

    def part(number: tf.Tensor, sums: list[tf.Tensor], kept: list[tf.TensorArray]) -> tuple:
        images = {view: tf.gather(one, number) for view, one in in_parts.items()}
        gradients, found = differentiated(images)
        given[:] = [gradient is not None for gradient in gradients]
        sums = [
            one if gradient is None else one + gradient / parts
            for one, gradient in zip(sums, gradients, strict=True)
        ]
        return number + 1, sums, [k.write(number, one) for k, one in zip(kept, found, strict=True)]

    zeros = [tf.zeros(variable.shape, variable.dtype) for variable in variables]
    arrays = [tf.TensorArray(dtype, parts) for dtype in targets]
    _, sums, kept = tf.while_loop(
        lambda number, *_: number < parts, part, (0, zeros, arrays), parallel_iterations=1
    )
    gradients = [one if there else None for one, there in zip(sums, given, strict=True)]
    return gradients, [array.concat() for array in kept]


def check_accumulation(parts: int, replicas: int = 1) -> None:
    """Refuses a number of parts that cannot be made.

    Args:
        parts: how many.
        replicas: over how many replicas a batch is spread.

    Raises:
        UserError: when it is none, or there are several replicas.
    """
    if parts < 1:
        raise UserError(f"accumulate={parts}; allowed: 1 and above.")
    if parts > 1 and replicas > 1:
        raise UserError(
            f"accumulate={parts} over {replicas} replicas; allowed: on one device, or accumulate=1."
        )


def check_parts(images: int, parts: int) -> None:
    """Refuses a batch that does not fall into parts of at least two images.

    Args:
        images: in a batch.
        parts: how many.

    Raises:
        UserError: naming the nearest batch that does.
    """
    if parts > 1 and (images % parts or images < 2 * parts):
        nearest = max(2, round(images / parts)) * parts
        raise UserError(
            f"A batch of {images} images in {parts} parts (accumulate); allowed: multiples of "
            f"{parts}, at least 2 images each. The nearest is {nearest}."
        )
