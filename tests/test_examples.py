"""Examples run in small form, and notebooks are what `tools/notebooks.py` makes of the scripts."""

import ast
import json
import pathlib
import runpy
import sys

import keras
import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

import tfcq

ROOT = pathlib.Path(__file__).parent.parent
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
notebook = runpy.run_path(str(ROOT / "tools" / "notebooks.py"))["notebook"]


@pytest.fixture
def ran(monkeypatch):
    """Returns a function that runs an example and returns its names."""

    def run(name, **settings):
        arguments = [f"--{key}={value}" for key, value in settings.items()]
        monkeypatch.setattr(sys, "argv", [name, *arguments])
        return runpy.run_path(str(ROOT / "examples" / name), run_name="__main__")

    return run


def test_folder_of_photographs_becomes_scores_and_an_int8_file(ran, tmp_path):
    digits = load_digits()
    for number, (image, label) in enumerate(zip(digits.images[:100], digits.target, strict=False)):
        folder = tmp_path / "photographs" / f"digit {label % 2}"
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray((image * 15).astype(np.uint8)).save(folder / f"{number}.png")
    names = ran(
        "own_photographs.py", photographs=tmp_path / "photographs", size=8, depth=8, width=2,
        epochs=1, batch_size=40, color_mode="grayscale", output=tmp_path / "results",
    )  # fmt: skip
    assert len(names["train_labels"]) == 80 and set(names["test_labels"]) == {0, 1}
    assert list(names["accuracies"]) == ["fp", "8w8a", "4w4a", "2w4a"]
    assert all(0 <= share <= 1 for share in names["accuracies"].values())
    check_files(tmp_path / "results", "encoder", names["test_images"])


def test_own_model_is_pretrained_and_converted(ran, tmp_path, capsys):
    names = ran("own_model.py", epochs=1, output=tmp_path)
    said = capsys.readouterr().out
    assert "Equal to the last bit: True" in said and "first_relu" in said
    assert names["cosines"]["8w8a"] > 0.999
    check_files(tmp_path, "encoder", names["images"][:4])


def test_backbone_is_fine_tuned_quantized_and_checked_as_an_int8_file(ran, tmp_path):
    backbone = tfcq.quantizable(tfcq.cifar_resnet(8, width=4, input_shape=(8, 8, 1)))
    backbone.save(tmp_path / "backbone.keras")
    names = ran(
        "fine_tune_and_export.py", backbone=tmp_path / "backbone.keras", epochs=3,
        quantized_epochs=1, output=tmp_path,
    )  # fmt: skip
    found = names["accuracies"]
    assert found["fp"] > 0.5 and abs(found["int8 file"] - found["8w8a"]) < 0.03
    assert "3w3a, trained so" in found
    check_files(tmp_path, "classifier", names["test_images"][:4])


@pytest.fixture
def untrained(monkeypatch):
    """Fails where anything is trained."""
    monkeypatch.setattr(keras.Model, "fit", lambda *_, **__: pytest.fail("was trained"))


@pytest.mark.parametrize(
    ("files", "said"),
    [(None, "holds 0 images in class folders"), ([], "holds 0 images in class folders"),
     (["1.png"], "holds 0 images in class folders"), (["a/1.txt"], "holds 0 images in class"),
     (["a/1.png"], "holds 1 images in class folders; allowed: a folder with at least 5 (.bmp"),
     (["a/1.png", "a/2.png", "b/1.png", "b/2.png"], "holds 4 images in class folders"),
     ([f"a/{number}.png" for number in range(6)], "has images of one class; allowed: two")],
)  # fmt: skip
def test_photographs_that_do_not_suffice_are_told_before_training(
    files, said, ran, untrained, tmp_path
):
    folder = tmp_path / "photographs"
    for name in files or ():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (16, 16)).save(folder / name, format="PNG")
    with pytest.raises(SystemExit) as left:
        ran("own_photographs.py", photographs=folder, size=16, depth=8, width=2, output=tmp_path)
    assert str(left.value).startswith(f"--photographs={folder} {said}")
    assert "\n" not in str(left.value)


@pytest.mark.parametrize("script", EXAMPLES, ids=lambda path: path.stem)
def test_output_that_cannot_be_written_is_told_before_training(script, ran, untrained, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(SystemExit, match="--output=.*file cannot be written to: File exists"):
        ran(script.name, output=tmp_path / "file")


def test_backbone_that_is_not_there_is_told(ran, untrained, tmp_path):
    missing = tmp_path / "none.keras"
    with pytest.raises(SystemExit, match=f"--backbone={missing} does not exist; allowed: a run's"):
        ran("fine_tune_and_export.py", backbone=missing, output=tmp_path)


def check_files(folder, stem, images):
    """Checks what an example wrote: a model that runs at low bits, and an int8 file."""
    loaded = tfcq.load(folder / f"{stem}.keras")
    assert np.all(np.isfinite(loaded(images, precision=tfcq.Precision(4, 4))))
    assert (folder / f"{stem}_int8.tflite").read_bytes()[4:8] == b"TFL3"


@pytest.mark.parametrize("script", EXAMPLES, ids=lambda path: path.stem)
def test_notebook_is_the_script_cell_by_cell(script):
    text = script.with_suffix(".ipynb").read_text()
    assert text == notebook(script.read_text()), "run tools/notebooks.py"
    cells = json.loads(text)["cells"]
    assert cells[0]["cell_type"] == "markdown" and cells[0]["source"][0].startswith("# ")
    code = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    for one in code:
        ast.parse(one)
    # All but the docstring of the script is in its cells.
    whole = ast.parse(script.read_text())
    assert ast.dump(ast.parse("\n".join(code))) == ast.dump(ast.Module(whole.body[1:], []))


def test_notebook_of_text_and_code():
    source = "'Doc.'\n\n# %% [markdown]\n# # A\n#\n# b\n\n# %% One\nx = 1\n"
    found = json.loads(notebook(source))
    assert [(c["cell_type"], "".join(c["source"])) for c in found["cells"]] == [
        ("markdown", "# A\n\nb"), ("code", "# One\nx = 1"),
    ]  # fmt: skip
