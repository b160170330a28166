"""Classes and functions of the user's, given to a command by a Python file."""

import subprocess
import sys

import keras
import numpy as np
import pytest
from keras import layers

from tests.evaluation.evaluations import command_of
from tfcq import evaluate, export, features, train
from tfcq.errors import UserError
from tfcq.nn.loading import load
from tfcq.settings.custom_objects import add_defined, check_file

FILE = """import keras
from beside import FACTOR


class Doubled(keras.layers.Layer):
    def call(self, x):
        return x * FACTOR


@keras.saving.register_keras_serializable("mine")
class Shifted(keras.layers.Layer):
    def call(self, x):
        return x + 1.0


def squared(x):
    return x * x


if __name__ == "__main__":
    raise SystemExit("not run by itself")
"""


def know(file):
    add_defined(str(file), keras.saving.get_custom_objects())


@pytest.fixture(autouse=True)
def forgotten(monkeypatch):
    """Forgets what a test made known."""
    monkeypatch.setattr(sys, "path", [*sys.path])
    known = keras.saving.get_custom_objects()
    before = dict(known)
    yield
    known.clear()
    known.update(before)
    for name in ("beside", "own", "tfcq_custom_objects"):
        sys.modules.pop(name, None)


@pytest.fixture
def file(tmp_path):
    (tmp_path / "beside.py").write_text("FACTOR = 2.0\n")
    path = tmp_path / "own.py"
    path.write_text(FILE)
    return path


@pytest.fixture
def model(file, tmp_path):
    """A classifier of digits whose file names two classes and a function; what it answers."""
    know(file)
    known = keras.saving.get_custom_objects()
    inputs = keras.Input((8, 8, 1))
    x = known["mine>Shifted"]()(known["Doubled"]()(inputs))
    x = layers.Conv2D(4, 3, activation=known["squared"])(x)
    network = keras.Model(inputs, layers.Dense(10)(layers.GlobalAveragePooling2D()(x)))
    network.save(tmp_path / "own.keras")
    answer = network(np.ones((2, 8, 8, 1), np.float32))
    keras.saving.get_custom_objects().clear()
    return tmp_path / "own.keras", answer


def test_models_are_read_with_what_the_file_defines(file, model):
    path, answer = model
    with pytest.raises(UserError, match=r"the class '\w+', which .* --custom_objects=FILE.py"):
        load(path)
    know(file)
    found = load(path)(np.ones((2, 8, 8, 1), np.float32))
    np.testing.assert_array_equal(found, answer)


def test_a_command_reads_models_with_it(file, model, tmp_path, capsys):
    flags = {"model": str(model[0]), "protocol": "classifier", "dataset": "digits", "bits": "fp",
             "input_range": "0-1", "output_dir": str(tmp_path / "out")}  # fmt: skip
    with pytest.raises(UserError, match="--custom_objects="):
        evaluate.main(command_of(**flags))
    evaluate.main(command_of(**flags, custom_objects=str(file)))
    assert "top-1" in capsys.readouterr().out


def test_what_a_file_imports_by_name_counts(file, model):
    path, answer = model
    (file.parent / "other.py").write_text("from own import Doubled, Shifted, squared\n")
    know(file.parent / "other.py")
    np.testing.assert_array_equal(load(path)(np.ones((2, 8, 8, 1), np.float32)), answer)


@pytest.mark.parametrize("command", [train, evaluate, export, features])
def test_every_command_that_reads_models_has_the_flag(command, file):
    parsed = command.flag_set().parse([f"--custom_objects={file}"])
    assert parsed.custom_objects == str(file)
    with pytest.raises(UserError, match="--custom_objects: .*none.py"):
        command.flag_set().parse([f"--custom_objects={file.parent / 'none.py'}"])


def test_a_run_goes_on_with_it_and_keeps_no_file_that_would_be_run(file, tmp_path):
    from tfcq.settings.run_folder import RunFolder
    from tfcq.settings.training import config_from_flat

    run = RunFolder(tmp_path / "run")
    run.begin(config_from_flat({"backbone": "file:own.keras"}))
    arguments = [f"--run_dir={run.path}", f"--custom_objects={file}"]
    config, folder, _ = train.settings_of(train.flag_set().parse(arguments))
    assert (config.network.backbone, folder.path) == ("file:own.keras", run.path)
    assert "own.py" not in run.config.read_text()


@pytest.mark.parametrize(
    ("text", "message"),
    [("x = 1\nclass Layer(:\n", "own.py, line 2: invalid syntax."),
     ("\n\nraise RuntimeError('no GPU')\n", "own.py, line 3: RuntimeError: no GPU"),
     ("def f():\n    return missing\n\nf()\n", "own.py, line 2: NameError: name 'missing' is "),
     ("import nothing_of_that_name\n", "own.py, line 1: ModuleNotFoundError: No module named"),
     ("import sys\nsys.exit(3)\n", "own.py, line 2: SystemExit: 3"),
     ("import beside\n", "own.py, line 1: ZeroDivisionError: division by zero"),
     ("FACTOR = 2\n", "own.py has no class and no function; allowed: those of a model."),
     ("a\0b", "own.py: source code string cannot contain null bytes.")],
)  # fmt: skip
def test_file_that_fails_is_told_in_one_line_with_its_line(text, message, tmp_path):
    (tmp_path / "beside.py").write_text("a = 1\nb = a / 0\n")
    file = tmp_path / "own.py"
    file.write_text(text)
    with pytest.raises(UserError) as caught:
        check_file(str(file))
        know(file)
    assert message in str(caught.value) and str(caught.value).startswith("--custom_objects=")
    assert str(caught.value).count("\n") == 0


@pytest.mark.parametrize("content", [None, b"\xff\xfe\x00", b"PK\x03\x04\x00"])
def test_what_is_no_text_is_told(content, tmp_path):
    path = tmp_path
    if content is not None:
        path = tmp_path / "own.py"
        path.write_bytes(content)
    with pytest.raises(UserError, match="--custom_objects"):
        check_file(str(path))


def test_the_nearest_name_that_is_known_is_told(file, model):
    file.write_text(FILE.replace("Doubled", "Double"))
    know(file)
    with pytest.raises(UserError, match=r"class 'Doubled', which .*Did you mean 'Double'\?"):
        load(model[0])


def test_names_of_keras_mean_keras_still(file, tmp_path):
    network = keras.Sequential([keras.Input((4,)), layers.Dense(3, activation="relu")])
    network.save(tmp_path / "plain.keras")
    x = np.array([[1, -2, 3, -4.0]], np.float32)
    answer = network(x)
    file.write_text("import keras\n\ndef relu(x):\n    return x - 7\n\n"
                    "class Dense(keras.layers.Layer):\n    pass\n")  # fmt: skip
    know(file)
    np.testing.assert_array_equal(load(tmp_path / "plain.keras")(x), answer)


def test_a_mistake_is_told_before_tensorflow_starts(tmp_path):
    (tmp_path / "own.py").write_text("class Layer(:\n")
    code = (
        "import sys; from tfcq import command_line, evaluate\n"
        "try: command_line.run(evaluate.flag_set(), evaluate.main)\n"
        "finally: assert 'tensorflow' not in sys.modules and 'keras' not in sys.modules"
    )
    arguments = ["--model=own.keras", f"--custom_objects={tmp_path / 'own.py'}"]
    ended = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False
    )
    assert (ended.returncode, ended.stdout, ended.stderr.count("\n")) == (2, "", 1)
    assert ended.stderr.startswith("error: --custom_objects=")
