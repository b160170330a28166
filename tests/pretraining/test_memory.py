"""The memory of a step, before the first one."""

import math
import re
import subprocess
from types import SimpleNamespace

import keras
import numpy as np
import pytest
from keras import layers

from tfcq.errors import UserError
from tfcq.pretraining import memory
from tfcq.pretraining.building import pretrainer_from
from tfcq.pretraining.memory import (
    accelerator_bytes,
    available_bytes,
    batch_that_fits,
    check_memory,
    has_accelerator,
    step_bytes,
)
from tfcq.settings.fields import flat
from tfcq.settings.training import config_from_flat, for_images

SMALL = {"backbone": "cifar_resnet8", "projection_width": 4, "predictor_width": 2,
         "batch_size": 64}  # fmt: skip


def asked(size=32, **values):
    config = for_images(config_from_flat({"width": 16, **SMALL, **values}), size)
    return pretrainer_from(config, (size, size, 3), 2), config, size


def activations(size=32, **values):
    """Bytes that an image adds."""
    model, _, _ = asked(size, **values)
    return step_bytes(model, 3) - step_bytes(model, 2)


def test_activations_are_those_of_every_layer_in_every_pass():
    model, _, _ = asked(recipe="float")
    values = sum(math.prod(layer.output.shape[1:]) for layer in model.backbone.layers)
    assert activations(recipe="float") == 2 * 4 * values
    # SSQL makes two passes more.
    assert activations(recipe="ssql") == 2 * activations(recipe="float")


def test_activations_follow_area_and_width_and_stem():
    assert activations(64) == pytest.approx(4 * activations(32), rel=0.02)
    assert activations(width=32) == pytest.approx(2 * activations(width=16), rel=0.05)
    resnet = {"backbone": "resnet18", "width": 8}
    assert activations(64, **resnet, stem="cifar") > 8 * activations(64, **resnet)


def test_weights_of_heads_and_of_the_momentum_network_count():
    plain, momentum = (asked(framework=name, predictor_width=None)[0]
                       for name in ("simclr", "mocov2"))  # fmt: skip
    assert step_bytes(asked(projection_width=512)[0], 2) > step_bytes(asked()[0], 2)
    assert len(momentum.networks) > len(plain.networks)


def test_network_inside_a_network_counts_and_any_size_is_not_estimated():
    inner = keras.Sequential([keras.Input((8, 8, 3)), layers.Conv2D(5, 3, padding="same")])
    images = keras.Input((8, 8, 3))
    outer = keras.Model(images, layers.Flatten()(inner(images)))
    assert sum(memory._sizes(outer)) >= 8 * 8 * 5 + 8 * 8 * 3
    any_size = SimpleNamespace(backbone=SimpleNamespace(input_shape=(None, None, None, 3)))
    assert step_bytes(any_size, 2) is None


@pytest.mark.parametrize("values", [{}, {"backbone": "resnet18"}])
@pytest.mark.parametrize("share", [0.3, 0.6, 0.95])
def test_each_flag_that_a_refusal_names_makes_the_run_fit(values, share, monkeypatch):
    model, config, size = asked(96, **values)
    needed = step_bytes(model, 64)
    free = int(memory._fixed_bytes(model) + share * (needed - memory._fixed_bytes(model)))
    monkeypatch.setattr(memory, "available_bytes", lambda: free)
    with pytest.raises(UserError) as caught:
        check_memory(model, config, size)
    message = str(caught.value)
    flags = re.findall(r"--(\w+)=(\d+)", message)
    assert "\n" not in message and "batch 64, views of 96x96" in message
    assert "batch_size" in {name for name, _ in flags}
    for name, value in flags:
        other = size if name != "image_size" else int(value)
        changed = {} if name == "image_size" else {name: int(value)}
        check_memory(*asked(other, **values, **changed))


def test_run_that_fits_and_one_that_nothing_makes_fit(monkeypatch):
    model, config, size = asked()
    monkeypatch.setattr(memory, "available_bytes", lambda: step_bytes(model, 64))
    check_memory(model, config, size)
    monkeypatch.setattr(memory, "available_bytes", lambda: 10**6)
    with pytest.raises(UserError, match="a machine with more memory"):
        check_memory(model, config, size)
    # An accelerator has memory of its own.
    monkeypatch.setattr(
        memory.tf.config, "list_physical_devices", lambda kind=None: [1] if kind else [1, 2]
    )
    check_memory(model, config, size)


@pytest.mark.parametrize(("share", "batch"), [(1, 64), (0.9, 32), (0.5, 32), (0.3, 16), (0, 8)])
@pytest.mark.parametrize("accelerator", [False, True])
def test_a_batch_is_halved_until_a_step_fits(share, batch, accelerator, monkeypatch):
    model, _, _ = asked()
    fixed = memory._fixed_bytes(model)
    free = int(fixed + share * (step_bytes(model, 64) - fixed))
    here, elsewhere = "available_bytes", "accelerator_bytes"
    if accelerator:
        here, elsewhere = elsewhere, here
    monkeypatch.setattr(memory, "has_accelerator", lambda: accelerator)
    monkeypatch.setattr(memory, here, lambda: free)
    monkeypatch.setattr(memory, elsewhere, lambda: 10**15)
    assert batch_that_fits(model, 64, 1) == batch
    if accelerator:
        # Each of two has that memory, and half of the images.
        assert batch_that_fits(model, 128, 2) == 2 * batch
        monkeypatch.setattr(memory, here, lambda: None)
        assert batch_that_fits(model, 64, 1) == 64
    else:
        assert batch_that_fits(model, 64, 2) == batch


@pytest.mark.parametrize(
    ("told", "found"),
    [("81559\n", 81559 * 2**20), ("200\n100\n", 100 * 2**20), ("[N/A]\n", None), ("", None)],
)
def test_memory_of_gpus_is_that_of_the_smallest(told, found, monkeypatch):
    answer = subprocess.CompletedProcess((), 0, stdout=told)
    monkeypatch.setattr(memory.subprocess, "run", lambda *_, **__: answer)
    assert accelerator_bytes() == found


def test_machine_without_the_tool_of_its_gpus_tells_nothing(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert accelerator_bytes() is None
    assert not has_accelerator()


def test_a_container_may_take_less_than_the_machine_has(tmp_path):
    machine = available_bytes(tmp_path)
    (tmp_path / "memory.max").write_text("max\n")
    (tmp_path / "memory.current").write_text("5000\n")
    assert available_bytes(tmp_path) == pytest.approx(machine, rel=0.2)
    (tmp_path / "memory.max").write_text("7000\n")
    assert available_bytes(tmp_path) == 2000
    older = tmp_path / "older" / "memory"
    older.mkdir(parents=True)
    (older / "memory.limit_in_bytes").write_text("100")
    (older / "memory.usage_in_bytes").write_text("130")
    assert available_bytes(older.parent) == 0


def test_run_that_cannot_fit_leaves_no_folder(tmp_path, monkeypatch):
    from tfcq.pretraining.run import train
    from tfcq.settings.run_folder import RunFolder

    monkeypatch.setattr(memory, "available_bytes", lambda: 10**6)
    config = config_from_flat({**SMALL, "width": 16, "train_images": 100})
    with pytest.raises(UserError, match="A step takes about"):
        train(config, RunFolder(tmp_path / "run"))
    assert not (tmp_path / "run").exists()
    assert flat(config)["stem"] is None


def test_batch_that_was_left_open_fits_and_is_recorded(tmp_path, monkeypatch, capsys):
    from tfcq.pretraining.run import train
    from tfcq.settings.run_folder import RunFolder

    model, _, _ = asked(8)
    halved = step_bytes(model, 128) + 10**6
    monkeypatch.setattr(memory, "available_bytes", lambda: halved)
    given = {**SMALL, "width": 16, "train_images": 300, "epochs": 1, "seed": 5}
    del given["batch_size"]
    for name, values, left_open in (
        ("open", given, frozenset({"batch_size"})),
        ("named", {**given, "batch_size": 128}, frozenset()),
    ):
        train(config_from_flat(values), RunFolder(tmp_path / name), left_open)
    told = capsys.readouterr().out.splitlines()
    start = "A step of 256 images exceeds the memory: --batch_size=128; give this flag to choose"
    assert [line for line in told if "to choose" in line] == [told[0]]
    assert told[0].startswith(start)
    runs = [RunFolder(tmp_path / name) for name in ("open", "named")]
    kept = [run.load() for run in runs]
    assert kept[0] == kept[1] and kept[0].optimization.batch_size == 128
    assert "batch_size" not in runs[0].asked(kept[0])
    first, second = (keras.models.load_model(run.backbone).get_weights() for run in runs)
    for one, other in zip(first, second, strict=True):
        np.testing.assert_array_equal(one, other)
