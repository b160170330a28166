"""Several processes train one network as one process does, and end together."""

import numpy as np
import pytest
import tensorflow as tf
import workers as tool

from tfcq.errors import TrainingStopped, UserError
from tfcq.training import workers

ONE = tf.distribute.get_strategy()


def test_two_processes_take_the_step_of_one_and_hold_the_same(tmp_path):
    flags = (*tool.FLAGS, *tool.NETWORKS["simsiam, ssql"], "--duration=1steps")
    one = tool.start(tmp_path / "one", flags)
    ends = tool.two(tmp_path / "two", flags)
    output, _ = one.communicate(timeout=300)
    assert one.returncode == 0, output
    assert [end["code"] for end in ends] == [0, 0], ends
    alone, first, second = (
        tool.memory(tmp_path / folder, number)
        for folder, number in (("one", 0), ("two", 0), ("two", 1))
    )
    assert tool.same(first, second)
    moved = tool.apart(alone, tool.memory(tmp_path / "one", moment="begin"))
    assert moved > 0
    assert tool.apart(alone, first) < 1e-4 * moved


def test_one_process_is_its_own_chief():
    assert workers.is_chief(ONE) and not workers.are_several(ONE)
    np.testing.assert_array_equal(workers.of_every_worker(ONE, 3, True), [[3, 1]])
    assert workers.from_chief(ONE, 3, 4) == [3, 4]
    workers.check_alike(ONE, "unlike", "settings")
    figures = {"loss": tf.constant(1.0)}
    assert workers.reducible(figures) is figures
    assert workers.shared_out(ONE, 4, lambda: "batches") == "batches"


def test_workers_with_unlike_settings_are_refused(monkeypatch):
    told = []

    def of_every_worker(strategy, number):
        told.append(number)
        return np.array([[told[0]], [number]])

    monkeypatch.setattr(workers, "of_every_worker", of_every_worker)
    workers.check_alike(ONE, "unlike settings", "seed 0", 128)
    workers.check_alike(ONE, "unlike settings", "seed 0", 128)
    with pytest.raises(UserError, match="unlike settings"):
        workers.check_alike(ONE, "unlike settings", "seed 0", 129)


@pytest.mark.parametrize("several", [True, False])
def test_a_lost_worker_ends_training_in_one_line(monkeypatch, several):
    monkeypatch.setattr(workers, "are_several", lambda strategy: several)
    lost = tf.errors.UnavailableError(
        None, None, "node /job:worker/replica:0/task:0/device:CPU:0\n/job:worker/task:1 is\ngone"
    )
    kind, told = (TrainingStopped, "^Lost worker 1, .*goes on") if several else (type(lost), "node")
    with pytest.raises(kind, match=told), workers.ending_with_lost_workers(ONE):
        raise lost
