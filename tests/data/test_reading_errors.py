"""What TensorFlow hands on as an error of its own."""

import pytest
import tensorflow as tf

from tfcq.data.reading_errors import user_errors_of_pipelines
from tfcq.errors import UserError


def test_full_disk_is_told_and_full_memory_stays_what_it_is():
    told = "{{node}} runs/tensorboard/events.v2; No space left on device [Op:FlushSummaryWriter]"
    expected = (
        r"^Nothing more can be written: runs/tensorboard/events\.v2: No space left on device\.$"
    )
    with pytest.raises(UserError, match=expected), user_errors_of_pipelines():
        raise tf.errors.ResourceExhaustedError(None, None, told)
    with pytest.raises(tf.errors.ResourceExhaustedError), user_errors_of_pipelines():
        raise tf.errors.ResourceExhaustedError(None, None, "OOM when allocating; no space")
