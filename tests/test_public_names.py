"""What `tfcq` offers: visible to checkers, and each name with an example that runs."""

import ast
import doctest
import importlib
import pathlib

import keras
import numpy as np
import pytest
import tensorflow as tf

import tfcq

STUB = pathlib.Path(tfcq.__file__).with_suffix(".pyi")


def test_checkers_see_the_names_that_python_gives():
    body = ast.parse(STUB.read_text()).body
    seen = {
        alias.asname: f"{node.module}.{alias.name}"
        for node in body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert set(seen) == set(tfcq.__all__)
    for name, path in seen.items():
        module, _, attribute = path.rpartition(".")
        assert getattr(importlib.import_module(module), attribute) is getattr(tfcq, name)


@pytest.mark.parametrize("name", tfcq.__all__)
def test_example_of_every_public_name_runs(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    known = {"tfcq": tfcq, "keras": keras, "np": np, "tf": tf}
    found = doctest.DocTestFinder(recurse=False).find(getattr(tfcq, name), name, globs=known)
    (example,) = found
    assert example.examples
    keras.backend.clear_session()
    result = doctest.DocTestRunner().run(example)
    assert result.failed == 0
