"""What several processes that train one network tell each other; one process is its own chief.

Each holds the whole network and makes its own rows of each batch. One of them, the chief, writes
what is kept. What all must decide alike goes through `of_every_worker` or `from_chief`: a save in
which not all take part would wait for the others for ever.
"""

import contextlib
import functools
import os
import pathlib
import re
import tempfile
import zlib
from collections.abc import Callable, Iterator

import numpy as np
import tensorflow as tf

from tfcq.errors import TrainingStopped, UserError
from tfcq.files import whole_files

# How TensorFlow tells the others of a worker that ended or is silent.
_LOST = (
    tf.errors.AbortedError,
    tf.errors.CancelledError,
    tf.errors.DeadlineExceededError,
    tf.errors.FailedPreconditionError,
    tf.errors.InternalError,
    tf.errors.UnavailableError,
)
# The worker that is gone, but no device, of which a node's name tells.
_NAMED = re.compile(r"/job:(\w+)/(?:replica:\d+/)?task:(\d+)\b(?!/device)")


def are_several(strategy: tf.distribute.Strategy) -> bool:
    """Returns whether a strategy is that of several processes.

    Args:
        strategy: the strategy.
    """
    if not isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy):
        return False
    return bool(strategy.cluster_resolver.cluster_spec().jobs)


def is_chief(strategy: tf.distribute.Strategy) -> bool:
    """Returns whether this process writes what is kept.

    Args:
        strategy: the strategy.
    """
    if not are_several(strategy):
        return True
    resolver = strategy.cluster_resolver
    job = "chief" if "chief" in resolver.cluster_spec().jobs else "worker"
    return (resolver.task_type, resolver.task_id) == (job, 0)


def of_every_worker(strategy: tf.distribute.Strategy, *numbers: int) -> np.ndarray:
    """Returns the numbers of all workers; every worker must ask.

    Args:
        strategy: the strategy.
        *numbers: this worker's.

    Returns:
        int64 [replicas, numbers], the chief's first.
    """
    own = np.array([numbers], np.int64)
    return _gathering(strategy)(tf.constant(own)).numpy() if are_several(strategy) else own


def from_chief(strategy: tf.distribute.Strategy, *numbers: int) -> list[int]:
    """Returns the chief's numbers; every worker must ask.

    Args:
        strategy: the strategy.
        *numbers: this worker's.
    """
    return [int(number) for number in of_every_worker(strategy, *numbers)[0]]


@functools.cache
def _gathering(strategy: tf.distribute.Strategy) -> Callable[[tf.Tensor], tf.Tensor]:
    """Returns one graph for all calls: `Strategy.gather` would trace another each time."""

    def every(own: tf.Tensor) -> tf.Tensor:
        # Anew, since it is gathered from the device that computes it.
        return tf.distribute.get_replica_context().all_gather(tf.identity(own), axis=0)

    @tf.function
    def gather(own: tf.Tensor) -> tf.Tensor:
        return strategy.experimental_local_results(strategy.run(every, (own,)))[0]

    return gather


@contextlib.contextmanager
def written_by_chief(
    strategy: tf.distribute.Strategy, folder: str | os.PathLike
) -> Iterator[pathlib.Path]:
    """Gives a folder to write into, whose content moves to its place if this is the chief's.

    Values of which each replica has its own are read from all of them: every worker must write.

    Args:
        strategy: the strategy.
        folder: where the content goes, see `tfcq.files.whole_files`.

    Raises:
        UserError: as `whole_files` does.
    """
    place = whole_files(folder) if is_chief(strategy) else tempfile.TemporaryDirectory()
    with place as made:
        yield pathlib.Path(made)


def check_alike(strategy: tf.distribute.Strategy, message: str, *found: object) -> None:
    """Refuses workers that hold unlike things; every worker must ask.

    Args:
        strategy: the strategy.
        message: of the error.
        *found: what this worker holds, of which the text tells it apart.

    Raises:
        UserError: on every worker, when one differs.
    """
    if len(set(of_every_worker(strategy, zlib.crc32(repr(found).encode()))[:, 0])) > 1:
        raise UserError(message)


def shared_out(
    strategy: tf.distribute.Strategy,
    batch_size: int,
    batches_of: Callable[..., tf.data.Dataset],
) -> tf.data.Dataset | tf.distribute.DistributedDataset:
    """Returns batches of which each worker makes its own rows alone.

    Args:
        strategy: the strategy.
        batch_size: images per step, over all replicas.
        batches_of: gives, as `part=(number, workers)`, a worker's rows of each batch, a tuple of
            views.
    """
    if not are_several(strategy):
        return batches_of()

    def of_this_worker(context: tf.distribute.InputContext) -> tf.data.Dataset:
        views = batches_of(part=(context.input_pipeline_id, context.num_input_pipelines))
        # In one tensor: Keras reduces the first batch of several workers, which no tuple can be.
        stacked = views.map(lambda *views: tf.stack(views, axis=1))
        return stacked.rebatch(context.get_per_replica_batch_size(batch_size))

    return strategy.distribute_datasets_from_function(of_this_worker)


def reducible(figures: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
    """Returns the figures of a step as Keras can average them over replicas.

    Of several workers it does so along the first axis, which scalars do not have.

    Args:
        figures: scalars, by name.
    """
    if not are_several(tf.distribute.get_strategy()):
        return figures
    return {name: tf.reshape(figure, (1,)) for name, figure in figures.items()}


def is_loss(strategy: tf.distribute.Strategy, error: Exception) -> bool:
    """Returns whether an error tells that another worker ended or is silent.

    Args:
        strategy: the strategy.
        error: the error.
    """
    return are_several(strategy) and isinstance(error, _LOST)


@contextlib.contextmanager
def ending_with_lost_workers(strategy: tf.distribute.Strategy) -> Iterator[None]:
    """Within, the loss of a worker ends the training of the others.

    Args:
        strategy: the strategy.

    Raises:
        TrainingStopped: when a worker ended or is silent.
    """
    try:
        yield
    except tf.errors.OpError as error:
        if not is_loss(strategy, error):
            raise
        named = sorted({f"{job} {number}" for job, number in _NAMED.findall(str(error))})
        raise TrainingStopped(
            f"Lost {' and '.join(named) or 'a worker'}, whose own output says why. The same "
            "command on all workers goes on from the newest checkpoint."
        ) from None
