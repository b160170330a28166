"""JSON that holds all of a file."""

import json

import numpy as np

from tfcq.integer.description import described
from tfcq.integer.form import deployable
from tfcq.integer.lite_file import LiteFile, Operation, Tensor
from tfcq.integer.writing import written
from tfcq.nn.calibration import calibrate
from tfcq.settings.bitwidths import BitWidth


def test_a_file_can_be_made_again_from_its_description(network, images):
    form = deployable(network)
    calibrate(form, images)
    file = written(form, BitWidth(4, 8)).file
    found = json.loads(json.dumps(described(file)))
    tensors = [
        Tensor(
            one["name"], tuple(one["shape"]), one["dtype"],
            np.array(one.get("scales", []), np.float32),
            np.array(one.get("zero_points", []), np.int64), one.get("axis", 0),
            np.array(one["values"]) if "values" in one else None,
        )
        for one in found["tensors"]
    ]  # fmt: skip
    operations = [Operation(**one) for one in found["operations"]]
    again = LiteFile(tensors, operations, found["inputs"], found["outputs"])
    assert again.to_bytes() == file.to_bytes()
