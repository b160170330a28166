"""The original files of FGVC-Aircraft as a folder data set, since TFDS does not have them.

Maji et al., "Fine-Grained Visual Classification of Aircraft", 2013: `images_LEVEL_SPLIT.txt` holds
a line `NUMBER CLASS` for each image of a split; the image is `images/NUMBER.jpg`.

    python -m tfcq.data.importers.aircraft --source=fgvc-aircraft-2013b/data --output=DIR
"""

import contextlib
import os
import shutil
import tempfile

from tfcq import command_line
from tfcq.errors import UserError, unknown_choice

LEVELS = ("variant", "family", "manufacturer")
# Trained on the training and the validation part, as the field does.
_SPLITS = {"train": "trainval", "test": "test"}


def read_lists(source: str, level: str) -> dict[str, dict[str, str]]:
    """Reads the class of every image.

    Args:
        source: the folder `data` of the archive.
        level: what a class is, one of `LEVELS`.

    Returns:
        `"train"` and `"test"`: the class by the image's path.

    Raises:
        UserError: the level is unknown, a list or an image is missing, or a line cannot be read.
    """
    if level not in LEVELS:
        raise unknown_choice("level", level, LEVELS)
    return {split: _read_list(source, level, name) for split, name in _SPLITS.items()}


def write_folder(lists: dict[str, dict[str, str]], output: str) -> None:
    """Writes `output/{train,test}/CLASS/NUMBER.jpg`, whole or not at all.

    Images are linked where the file system can (they then take no space), else copied. A slash in
    a class's name (`F/A-18`) becomes a dash.

    Args:
        lists: for each split the class by the image's path.
        output: the folder to make.

    Raises:
        UserError: the folder exists.
    """
    output = os.path.abspath(output)
    if os.path.exists(output):
        raise UserError(f"{output!r} exists; allowed: a folder that does not, or remove it first.")
    os.makedirs(os.path.dirname(output), exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".import_", dir=os.path.dirname(output)) as temporary:
        new = os.path.join(temporary, "new")
        for split, classes in lists.items():
            for path, name in classes.items():
                folder = os.path.join(new, split, name.replace("/", "-"))
                os.makedirs(folder, exist_ok=True)
                _link_or_copy(path, os.path.join(folder, os.path.basename(path)))
        os.rename(new, output)


def _read_list(source: str, level: str, split: str) -> dict[str, str]:
    path = os.path.join(source, f"images_{level}_{split}.txt")
    if not os.path.isfile(path):
        raise UserError(
            f"{source!r} holds no {os.path.basename(path)}; allowed: the folder 'data' of"
            " fgvc-aircraft-2013b."
        )
    with open(path, encoding="utf-8") as file:
        lines = file.read().splitlines()
    classes = {}
    for number, line in enumerate(lines, start=1):
        image, _, name = line.strip().partition(" ")
        if not name:
            raise UserError(f"{path!r}, line {number}: {line!r}; allowed: an image and its class.")
        image = os.path.join(source, "images", f"{image}.jpg")
        if not os.path.isfile(image):
            raise UserError(f"{path!r}, line {number}: {image!r} does not exist.")
        classes[image] = name
    return classes


def _link_or_copy(source: str, target: str) -> None:
    with contextlib.suppress(OSError):
        os.link(source, target)
        return
    shutil.copy2(source, target)


def flag_set() -> command_line.FlagSet:
    """Returns the importer's flags."""
    flags = command_line.FlagSet(
        "Arranges the original files of FGVC-Aircraft as a folder data set, without any download."
    )
    flags.add("Data", "source", str, None, "folder 'data' of the archive; required")
    flags.add("Data", "output", str, None, "folder to make; required")
    flags.add("Data", "level", str, "variant", f"what a class is: {', '.join(LEVELS)}")
    return flags


def main(command: command_line.Command) -> None:
    """Reads, checks and writes.

    Args:
        command: the parsed command line.

    Raises:
        UserError: when what it reads or writes is not as it should be.
    """
    values = command.values
    for name in ("source", "output"):
        if values[name] is None:
            raise UserError(f"--{name} is missing; give a folder.")
    lists = read_lists(values["source"], values["level"])
    write_folder(lists, values["output"])
    for split, classes in lists.items():
        print(f"{split}: {len(classes)} images, {len(set(classes.values()))} classes")
    print(f"written to {values['output']}")
    print("use it with:")
    print(f"python -m tfcq.evaluate --run_dir=RUN --dataset=folder:{values['output']}")


if __name__ == "__main__":
    command_line.run(flag_set(), main)
