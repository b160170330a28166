"""The README's example runs as written."""

import pathlib
import re

import numpy as np

README = pathlib.Path(__file__).parent.parent / "README.md"


def test_example_pretrains_a_users_model_without_flags():
    blocks = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
    assert len(blocks) == 1
    assert len([line for line in blocks[0].splitlines() if line.strip()]) < 20
    names = {}
    exec(compile(blocks[0], str(README), "exec"), names)
    assert names["features"].shape == (1000, 32)
    assert np.all(np.isfinite(names["features"]))
    history = names["pretrainer"].history.history
    assert history["loss"][1] < history["loss"][0]
