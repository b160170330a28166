"""A Pretrainer is saved like any Keras model, and goes on as if it had not been."""

import keras
import numpy as np
import pytest
from keras import layers

import tfcq
from tfcq.errors import UserError
from tfcq.nn.loading import load as network_from
from tfcq.pretraining import monitoring
from tfcq.pretraining.framework import Framework
from tfcq.pretraining.pretrainer import Pretrainer
from tfcq.settings.recipes import parse_recipe
from tfcq.training.lars import LARS
from tfcq.training.optimizers import SGD
from tfcq.training.schedules import learning_rate_schedule

IMAGES = np.random.default_rng(0).integers(0, 256, (24, 6, 6, 1), np.uint8)
HEADS = {"projection_width": 4, "projection_hidden": 4}


def small(optimizer=None, framework="simsiam", **options) -> Pretrainer:
    keras.utils.set_random_seed(1)
    backbone = keras.Sequential(
        [keras.Input((6, 6, 1)), layers.Conv2D(4, 3, name="stem"), layers.BatchNormalization(),
         layers.ReLU(), layers.Conv2D(4, 3, name="second"), layers.GlobalAveragePooling2D()]
    )  # fmt: skip
    heads = {"projection_width": 4} if framework == "simsiam" else HEADS
    model = Pretrainer(backbone, framework, **heads, **options)
    model.compile(optimizer, run_eagerly=True)
    return model


def weights_of(model) -> dict[str, np.ndarray]:
    return {
        f"{place} {weight.path}": weight.numpy()
        for place, weight in enumerate([*model.variables, *model.optimizer.variables])
    }


CASES = [
    {"framework": "byol", "recipe": "cq_c", "precision_set": "3-5", "bit_schedule": "cyclic",
     "target_momentum_schedule": "cosine", "loss_reduction": "sum", "seed": 4},
    {"framework": "mocov2", "recipe": "v1@q->v2@fp, 2*v2@q->v1@fp", "queue_size": 64,
     "weight_bits": "4", "activation_bits": "4-5", "shuffle_keys": True, "policy": "uniform"},
]  # fmt: skip


@pytest.mark.parametrize("options", CASES, ids=lambda options: options["framework"])
def test_saved_training_goes_on_as_the_uninterrupted_one(options, tmp_path, monkeypatch):
    # The spread of so small a network's features is none of this test's business.
    monkeypatch.setattr(monitoring, "EMPTY_BELOW", -1.0)
    monkeypatch.setattr(monitoring, "COLLAPSED_BELOW", -1.0)
    rate = learning_rate_schedule("cosine", 0.002, 3, 1)
    kind = LARS if options["framework"] == "byol" else SGD
    whole, begun = (small(kind(rate, momentum=0.9), **options) for _ in range(2))
    # Half of the images an epoch: the second goes on with the others.
    steps = {"batch_size": 12, "steps_per_epoch": 1, "verbose": 0}
    whole.fit(IMAGES, epochs=2, **steps)
    path = tmp_path / "{epoch}.keras"
    begun.fit(IMAGES, epochs=2, callbacks=[keras.callbacks.ModelCheckpoint(path)], **steps)
    found = tfcq.load(tmp_path / "1.keras")
    assert type(found) is Pretrainer and int(found.step.value) == 1
    for name, value in begun.get_config().items():
        assert name == "backbone" or found.get_config()[name] == value
    found.run_eagerly = True
    found.fit(IMAGES, epochs=2, initial_epoch=1, **steps)
    expected, ours = list(weights_of(whole).values()), list(weights_of(found).values())
    for one, other in zip(ours, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-6, atol=1e-7)


def test_an_epoch_that_a_callback_chooses_is_refused_unless_its_views_are_asked_for(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(monitoring, "COLLAPSED_BELOW", -1.0)
    whole, begun, found = (small() for _ in range(3))
    steps = {"batch_size": 12, "verbose": 0}
    whole.fit(IMAGES, epochs=2, **steps)
    backup = keras.callbacks.BackupAndRestore(tmp_path, delete_checkpoint=False)
    begun.fit(IMAGES, epochs=1, callbacks=[backup], **steps)
    with pytest.raises(UserError, match="go on at epoch 1, counted from 0, .*initial_epoch=1"):
        found.fit(IMAGES, epochs=2, callbacks=[backup], **steps)
    found.fit(IMAGES, epochs=2, initial_epoch=1, callbacks=[backup], **steps)
    # What the callback chose is that of its call alone.
    assert found.fit(IMAGES, epochs=1, **steps).epoch == [0]
    whole.fit(IMAGES, epochs=1, **steps)
    expected, ours = list(weights_of(whole).values()), list(weights_of(found).values())
    for one, other in zip(ours, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-6, atol=1e-7)


def test_folder_of_a_checkpoint_is_made_or_refused_at_the_start(tmp_path):
    (tmp_path / "file").write_text("")
    saving = keras.callbacks.ModelCheckpoint(tmp_path / "file" / "p.keras")
    with pytest.raises(
        UserError, match="cannot save: folder '.*file': Not a directory|File exists"
    ):
        small().fit(IMAGES, batch_size=12, callbacks=[saving], verbose=0)


def test_other_formats_are_refused_in_one_line(tmp_path):
    for name in ("p.h5", "p.hdf5", "p"):
        with pytest.raises(UserError, match=f"{name}'; allowed: PATH.keras"):
            small().save(tmp_path / name)


class Closest(Framework):
    def compare(self, predictions, targets, mutual=False):
        return keras.ops.mean(keras.ops.abs(predictions - targets))


def projector():
    return keras.Sequential([keras.Input((4,)), layers.Dense(4)])


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"framework": Closest(projector())}, "whose framework is no name cannot be made anew"),
        ({"recipe": parse_recipe("v1@q->v2@fp", "mine", weight_bits="3")}, "recipe 'mine' has set"),
    ],
    ids=["framework", "recipe"],
)
def test_what_cannot_be_saved_is_told_at_the_start_of_the_training(options, text, tmp_path):
    keras.utils.set_random_seed(1)
    backbone = keras.Sequential(
        [keras.Input((6, 6, 1)), layers.Conv2D(4, 3), layers.GlobalAveragePooling2D()]
    )
    model = Pretrainer(backbone, **options)
    model.compile(run_eagerly=True)
    with pytest.raises(UserError, match=f"{text}.*save pretrainer.backbone"):
        model.save(tmp_path / "p.keras")
    for saves_weights in (False, True):
        saving = keras.callbacks.ModelCheckpoint(
            tmp_path / ("p.weights.h5" if saves_weights else "p.keras"),
            save_weights_only=saves_weights,
        )
        arguments = {"batch_size": 12, "verbose": 0, "callbacks": [saving]}
        if saves_weights:
            model.fit(IMAGES, **arguments)
            assert (tmp_path / "p.weights.h5").exists()
            continue
        with pytest.raises(UserError, match=f"^ModelCheckpoint cannot save: .*{text}"):
            model.fit(IMAGES, **arguments)
        assert int(model.step.value) == 0


@pytest.mark.parametrize(
    "callback",
    [
        keras.callbacks.ModelCheckpoint("p.keras", save_best_only=True),
        keras.callbacks.ModelCheckpoint("{epoch}_{val_loss:.2f}.keras"),
        keras.callbacks.EarlyStopping(),
    ],
    ids=["best", "name", "stopping"],
)
def test_figures_of_a_validation_are_refused_at_the_start(callback):
    model = small()
    with pytest.raises(UserError, match="asks for 'val_loss', which pre-training does not have"):
        model.fit(IMAGES, batch_size=12, callbacks=[callback], verbose=0)
    assert int(model.step.value) == 0


def test_best_checkpoint_and_early_stopping_by_figures_that_there_are(tmp_path):
    path = tmp_path / "{epoch}_{loss:.2f}.keras"
    saving = keras.callbacks.ModelCheckpoint(path, monitor="loss", save_best_only=True)
    stopping = keras.callbacks.EarlyStopping("feature_std_ratio", mode="max")
    small().fit(IMAGES, batch_size=12, callbacks=[saving, stopping], verbose=0)
    assert len(list(tmp_path.glob("1_*.keras"))) == 1
    with pytest.raises(UserError, match="shuffle=False; the order of images .* follows from the"):
        # One alone, as Keras takes it.
        small().fit(IMAGES, batch_size=12, callbacks=stopping, shuffle=False, verbose=0)


class Mine(keras.optimizers.SGD):
    def get_config(self):
        raise NotImplementedError("not yet\nwritten")


def test_optimizer_that_cannot_be_saved_is_told_at_the_start(tmp_path):
    model = small(Mine(0.1))
    saving = keras.callbacks.ModelCheckpoint(tmp_path / "p.keras")
    with pytest.raises(
        UserError, match="cannot save: NotImplementedError: not yet written; save p"
    ):
        model.fit(IMAGES, batch_size=12, callbacks=[saving], verbose=0)
    assert int(model.step.value) == 0


def test_a_whole_training_is_no_network_where_one_is_asked_for(tmp_path):
    model = small()
    model.save(tmp_path / "p.keras")
    with pytest.raises(UserError, match="holds a whole training; .*load.*backbone.save"):
        network_from(tmp_path / "p.keras")
    assert type(tfcq.load(tmp_path / "p.keras")) is Pretrainer
