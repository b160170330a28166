"""Flags, their help and their errors."""

import dataclasses
import io
import json
import logging
import os
import pathlib
import random
import shutil
import subprocess
import sys

import pytest

import tfcq
from tfcq import command_line, detect, evaluate, export, features, report, train
from tfcq.command_line import cluster, start_up
from tfcq.errors import TrainingStopped, UserError
from tfcq.settings.fields import flat
from tfcq.settings.run_folder import RunFolder
from tfcq.settings.training import Config, config_from_flat
from tfcq.settings.unused import check_used
from tfcq.settings.used import used
from tfcq.train import flag_set

ROOT = pathlib.Path(__file__).parent.parent
DETECTION = sorted((ROOT / "flags" / "detection").glob("*.cfg"))
FLAG_FILES = sorted(set((ROOT / "flags").rglob("*.cfg")) - set(DETECTION))


def error_of(*arguments) -> str:
    with pytest.raises(UserError) as caught:
        flag_set().parse(list(arguments))
    message = str(caught.value)
    assert "\n" not in message
    return message


def config_of(command):
    return config_from_flat({k: v for k, v in command.values.items() if k in flat(Config())})


def test_no_flag_gives_the_defaults():
    command = flag_set().parse([])
    assert config_of(command) == Config()
    assert command.given == set()


def test_flags_of_every_kind_are_read_and_known_as_given():
    command = flag_set().parse(
        ["--epochs=3", "--learning_rate", "0.5", "--dataset=x", "--download", "--nodeterministic"]
    )
    assert {n: command.values[n] for n in command.given} == {
        "epochs": 3, "learning_rate": 0.5, "dataset": "x", "download": True, "deterministic": False,
    }  # fmt: skip


def test_help_names_every_flag_once_under_its_group():
    text = flag_set().help_text()
    lines = text.splitlines()
    own = ["run_dir", "preview", "dry_run", "devices", "profile", "list_recipes", "help",
           "version", "flagfile", "verbosity", "custom_objects"]  # fmt: skip
    names = [*flat(Config()), *own]
    for name in names:
        assert sum(line.startswith(f"  --{name} ") for line in lines) == 1, name
    assert sum(line.startswith("  --") for line in lines) == len(names)
    groups = [line.rstrip(":") for line in lines[1:] if line and not line.startswith(" ")]
    documented = [group.default.__doc__.rstrip(".") for group in dataclasses.fields(Config)]
    assert groups == ["General", *documented]


def test_help_shows_defaults_and_choices():
    text = flag_set().help_text()
    lines = {line.split()[0]: line for line in text.splitlines() if line.startswith("  --")}
    assert lines["--epochs"].endswith("[100]")
    assert lines["--seed"].endswith("[0]")
    assert lines["--warmup"].endswith("[0epochs]")
    assert "resnet18, resnet34, resnet50" in lines["--backbone"]
    assert lines["--stem"].endswith("from 64 pixels up, else cifar: cifar, imagenet")


@pytest.mark.parametrize(
    ("flag", "hint"),
    [("--epohs=3", "epochs"), ("--dowload", "download"), ("--nodowload", "download"),
     ("--batch-size=3", "batch_size"), ("--nosie=3", None), ("--h", None)],
)  # fmt: skip
def test_unknown_flag_names_the_nearest(flag, hint):
    expected = f"Did you mean --{hint}?" if hint else "--help lists them all."
    assert error_of(flag) == f"Unknown flag {flag.split('=')[0]}. {expected}"


@pytest.mark.parametrize(
    ("flag", "allowed"),
    [("--epochs=ten", "a whole number, such as 10."), ("--epochs=1.5", "The nearest is 2."),
     ("--epochs=1e3", "The nearest is 1000."), ("--epochs=1,000", "The nearest is 1000."),
     ("--learning_rate=fast", "a number, such as 0.5."), ("--flip=10%", "The nearest is 0.1."),
     ("--flip=0,5", "The nearest is 0.5."), ("--download=perhaps", "true or false."),
     ("--zero_init_residual=ture", "true or false. Did you mean true?")],
)  # fmt: skip
def test_value_of_the_wrong_kind_names_what_is_allowed_and_the_nearest(flag, allowed):
    message = error_of(flag)
    assert message.startswith(f"{flag} cannot be used; allowed: ") and message.endswith(allowed)


@pytest.mark.parametrize("rest", [[], ["--seed=3"]])
def test_flag_without_its_value_does_not_take_the_next_flag_for_it(rest):
    assert error_of("--run_dir", *rest) == "--run_dir has no value; allowed: --run_dir=VALUE."
    assert "no value" in error_of("--epochs", *rest)
    assert flag_set().parse(["--flip", "-1"]).values["flip"] == -1


def test_arguments_are_taken_by_commands_that_name_them():
    flags = command_line.FlagSet("Does it.", arguments="folders of runs")
    command = flags.parse(["a", "--verbosity=1", "b", "--", "--c"])
    assert command.arguments == ("a", "b", "--c")
    assert command.values["verbosity"] == 1 and command.given == {"verbosity"}
    assert "Arguments: folders of runs" in flags.help_text()
    with pytest.raises(UserError, match="Unknown flag --x"):
        flags.parse(["a", "--x"])


def test_argument_that_is_no_flag_is_refused():
    assert error_of("digits") == "Unexpected argument 'digits'; allowed: flags, --name=value."


@pytest.mark.parametrize("seed", range(20))
def test_what_stands_beside_a_flag_file_wins_wherever_the_file_is_named(seed, tmp_path):
    draw, line, expected = random.Random(seed), [], {}
    # From the innermost of the nested files to the line itself.
    for depth in range(4):
        values = {name: draw.randrange(99) for name in ("epochs", "seed", "width", "epochs")}
        own = {name: value for name, value in values.items() if draw.random() < 0.6}
        expected |= own
        if line:
            file = tmp_path / f"{depth}.cfg"
            file.write_text("# a comment\n\n" + "\n".join(line))
        named = [f"--flagfile={file}"] if line else []
        line = draw.sample(flags := [f"--{n}={v}" for n, v in own.items()] + named, len(flags))
    command = flag_set().parse(line)
    assert {name: command.values[name] for name in command.given - {"flagfile"}} == expected


def test_of_two_flag_files_on_one_line_the_later_wins(tmp_path):
    for name, epochs in (("a", 3), ("b", 4)):
        (tmp_path / f"{name}.cfg").write_text(f"--epochs={epochs}\n")
    files = [f"--flagfile={tmp_path / name}.cfg" for name in ("a", "b")]
    assert flag_set().parse(files).values["epochs"] == 4
    assert flag_set().parse(["--epochs=5", *files]).values["epochs"] == 5
    (tmp_path / "a.cfg").write_text("--download\n")
    assert not flag_set().parse(["--nodownload", files[0]]).values["download"]


def test_faults_of_flag_files_are_told_with_the_file(tmp_path):
    file, other = tmp_path / "bad.cfg", tmp_path / "other.cfg"
    assert f"{tmp_path / 'no.cfg'} does not exist" in error_of(f"--flagfile={tmp_path / 'no.cfg'}")
    file.write_text("--epohs=3\n")
    assert error_of(f"--flagfile={tmp_path / 'bda.cfg'}").endswith(f"Did you mean '{file}'?")
    assert f"--epohs in {file}. Did you mean --epochs?" in error_of(f"--flagfile={file}")
    file.write_text("\nepochs=3\n")
    assert f"Line 2 of flag file {file} is 'epochs=3'" in error_of(f"--flagfile={file}")
    for line in ("--epochs 3", "epochs: 3", "epochs = 3"):
        file.write_text(f"{line}\n")
        assert error_of(f"--flagfile={file}").endswith("Did you mean '--epochs=3'?")
    file.write_bytes(b"\xef\xbb\xbf--epochs=3\r\n")
    assert flag_set().parse([f"--flagfile={file}"]).values["epochs"] == 3
    file.write_text(f"--flagfile={other}\n")
    other.write_text(f"--flagfile={file}\n")
    assert "it reads itself" in error_of(f"--flagfile={file}")
    file.write_bytes(b"--dataset=\xff\n")
    assert f"{file} is no text in UTF-8" in error_of(f"--flagfile={file}")
    file.write_bytes(b"--run_dir=a\0b\n")
    assert "cannot be used" in error_of(f"--flagfile={file}")
    assert "is no file" in error_of(f"--flagfile={tmp_path}")


def test_there_are_flag_files():
    assert {"simsiam.cfg", "ssql.cfg"} <= {path.name for path in FLAG_FILES}


@pytest.mark.parametrize("path", FLAG_FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_flag_file_makes_a_configuration_in_which_everything_counts(path):
    command = flag_set().parse([f"--flagfile={path}"])
    config = config_of(command)
    check_used(config, command.given)
    # Each line counts: a flag named twice would hide one of them.
    lines = [line for line in path.read_text().splitlines() if line.startswith("--")]
    assert len(lines) == len({line.split("=")[0] for line in lines})
    assert {line.split("=")[0].removeprefix("--") for line in lines} <= command.given


@pytest.mark.parametrize("path", DETECTION, ids=lambda path: path.stem)
def test_flag_file_of_detection_makes_a_configuration(path):
    command = detect.flag_set().parse([f"--flagfile={path}", "--run_dir=RUN"])
    assert detect.config_of(command).bit_widths
    lines = [line for line in path.read_text().splitlines() if line.startswith("--")]
    assert {line.split("=")[0].removeprefix("--") for line in lines} | {"run_dir"} == command.given


@pytest.mark.parametrize(
    ("raised", "code", "printed"),
    [(UserError("two\nlines"), 2, "error: two lines\n"),
     (TrainingStopped("it  ended"), 1, "stopped: it ended\n")],
)  # fmt: skip
def test_errors_end_in_one_line_and_an_exit_code(raised, code, printed, capsys, monkeypatch):
    def main(command):
        raise raised

    monkeypatch.setattr(sys, "argv", ["train", "--seed=1"])
    with pytest.raises(SystemExit) as ended:
        command_line.run(flag_set(), main)
    assert ended.value.code == code
    assert capsys.readouterr().err == printed


@pytest.mark.parametrize(("returned", "code"), [(None, 0), (0, 0), (1, 1)])
def test_exit_code_is_what_the_command_returns(returned, code, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["train", "--seed=1"])
    with pytest.raises(SystemExit) as ended:
        command_line.run(flag_set(), lambda command: returned)
    assert ended.value.code == code


def test_help_is_printed_without_running(capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["train", "--help"])
    with pytest.raises(SystemExit) as ended:
        command_line.run(flag_set(), lambda command: pytest.fail("ran"))
    assert ended.value.code == 0
    assert capsys.readouterr().out == flag_set().help_text() + "\n"


@pytest.mark.parametrize(
    "flag", ["--epohs=3", "--dataset=folder:/no/such/folder", "--weight_bits=0-9", "--recipe=sqsl"]
)
def test_mistake_is_told_without_starting_tensorflow(flag, tmp_path):
    probe = (
        "import sys\n"
        "from tfcq import command_line, train\n"
        "try:\n"
        "    command_line.run(train.flag_set(), train.main)\n"
        "finally:\n"
        "    print('tensorflow' in sys.modules)\n"
    )
    ended = subprocess.run(
        [sys.executable, "-c", probe, flag], cwd=tmp_path, capture_output=True, text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)}, check=False,
    )  # fmt: skip
    assert ended.returncode == 2
    assert ended.stdout == "False\n"
    assert ended.stderr.startswith("error: ") and ended.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_help_and_version_in_their_usual_spellings(capsys, monkeypatch):
    for argument, printed in (
        ("-h", flag_set().help_text()),
        ("--version", f"tfcq {tfcq.__version__}"),
    ):
        monkeypatch.setattr(sys, "argv", ["train", argument])
        with pytest.raises(SystemExit) as ended:
            command_line.run(flag_set(), lambda command: pytest.fail("ran"))
        assert ended.value.code == 0
        assert capsys.readouterr().out == printed + "\n"


@pytest.mark.parametrize("command", [train, evaluate, export, features, report])
def test_command_without_arguments_shows_how_to_begin(command, capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["tfcq"])
    with pytest.raises(SystemExit) as ended:
        command_line.run(command.flag_set(), lambda command: pytest.fail("ran"))
    printed = capsys.readouterr().out
    assert ended.value.code == 2 and printed.endswith("--help lists all flags.\n")
    examples = [line.strip() for line in printed.splitlines() if line.startswith("    ")]
    assert examples
    # As typed, they are read.
    for example in examples:
        words = example.partition("   ")[0].split()[3:]
        command.flag_set().parse([word for word in words if not word.startswith("--flagfile")])


def test_next_command_is_told_as_it_can_be_typed(capsys, monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: "/usr/bin/python")
    monkeypatch.setattr(pathlib.Path, "cwd", lambda: pathlib.Path("/home/me"))
    for place, word in (
        ("/usr/bin/python", "python"),
        ("/home/me/.venv/bin/python", ".venv/bin/python"),
        ("/opt/my tools/python3", "'/opt/my tools/python3'"),
        ("/home/me/python", "./python"),
    ):
        monkeypatch.setattr(sys, "executable", place)
        command_line.tell_next("report", "my runs/a", output="page")
        line = f"Next: {word} -m tfcq.report 'my runs/a' --output=page\n"
        assert capsys.readouterr().out == line


def package(*arguments):
    """Returns how `python -m tfcq` ends with arguments."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [sys.executable, "-m", "tfcq", *arguments], capture_output=True, text=True, env=environment
    )


def test_the_package_itself_lists_and_runs_its_commands():
    listed = package("--help")
    assert listed.returncode == 0 and package().stdout == listed.stdout
    for name in ("train", "evaluate", "export", "features", "report"):
        assert f"python -m tfcq.{name} " in listed.stdout
    assert package("--version").stdout == f"tfcq {tfcq.__version__}\n"
    assert package("help").stdout == listed.stdout
    assert "float" in package("train", "--list_recipes").stdout
    wrong = package("trian")
    assert (wrong.returncode, wrong.stdout) == (2, "")
    assert "Unknown command 'trian'" in wrong.stderr and "Did you mean 'train'?" in wrong.stderr
    wrong = package("train", "--epohs=3")
    assert (wrong.returncode, wrong.stderr.count("\n")) == (2, 1)


def test_run_folder_alone_goes_on_with_its_run(tmp_path):
    run = tmp_path / "run"
    config = config_from_flat({"epochs": 3, "recipe": "float"})
    RunFolder(run).begin(config)
    of = lambda *arguments: train.settings_of(flag_set().parse([*arguments]))  # noqa: E731
    found, folder, _ = of(f"--run_dir={run}")
    assert (found, folder.path) == (used(config), run)
    assert of(f"--run_dir={run}", "--seed=3")[0] == config_from_flat({"seed": 3, "width": 64})
    # What may change from start to start may stand beside it.
    found, _, _ = of(f"--run_dir={run}", "--save_every=10min", "--keep=5")
    assert found == config_from_flat({**flat(used(config)), "save_every": "10min", "keep": 5})
    with pytest.raises(UserError, match="--tpu has no effect here: --strategy=single"):
        of(f"--run_dir={run}", "--tpu=here")


@pytest.mark.parametrize("flags", [(), ("--keep=3", "--dry_run")])
def test_folder_alone_that_holds_no_run_is_refused_with_the_nearest_that_does(flags, tmp_path):
    RunFolder(tmp_path / "digits_1").begin(Config())
    missing = f"--run_dir={tmp_path / 'digit_1'}"
    hint = f"Folder .* a run's folder, or flags of a new run.* mean {tmp_path / 'digits_1'}\\?$"
    with pytest.raises(UserError, match=hint):
        train.settings_of(flag_set().parse([missing, *flags]))
    with pytest.raises(UserError, match="holds no config.json"):
        train.settings_of(flag_set().parse([f"--run_dir={tmp_path}", *flags]))
    # Beside what is to be trained it is the folder of a new run.
    assert train.settings_of(flag_set().parse([missing, "--dataset=digits"]))[0] == Config()


def test_start_brings_the_network_unless_another_is_asked_for(tmp_path):
    folder = RunFolder(tmp_path / "run")
    folder.begin(config_from_flat({"backbone": "cifar_resnet8", "width": 4, "seed": 3}))
    start = f"--start={folder.path}"
    of = lambda *arguments: train.settings_of(flag_set().parse([*arguments]))[0]  # noqa: E731
    with pytest.raises(UserError, match=f"{start} cannot be used: .* has not ended yet"):
        of(start)
    folder.backbone.write_text("")
    network = of(start).network
    assert (network.backbone, network.width, network.start) == (
        "cifar_resnet8",
        4,
        str(folder.path),
    )
    assert of(start).execution.seed == 0
    assert of(start, "--width=8").network.width == 8
    assert of(start, "--backbone=resnet18").network.width is None
    assert of(f"--start={folder.backbone}").network.backbone == f"file:{folder.backbone}"
    for missing in ("no.keras", "no"):
        with pytest.raises(UserError, match="does not exist"):
            of(f"--start={tmp_path / missing}")


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize(
    ("words", "code"),
    [("tfcq.train --list_recipes", 141), ("tfcq.train --help", 141), ("tfcq.train --version", 141),
     ("tfcq.train", 2), ("tfcq", 141), ("tfcq --version", 141)],
)  # fmt: skip
def test_output_that_nobody_reads_ends_a_command_without_a_word(words, code, unbuffered):
    reader, writer = os.pipe()
    os.close(reader)
    ended = subprocess.run(
        [sys.executable, "-m", *words.split()],
        env={**os.environ, "PYTHONUNBUFFERED": unbuffered},
        stdout=writer,
        stderr=subprocess.PIPE,
    )
    os.close(writer)
    assert (ended.returncode, ended.stderr) == (code, b"")


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_output_that_a_full_disk_does_not_take_is_an_error_in_one_line(unbuffered):
    with open("/dev/full", "w") as full:
        ended = subprocess.run(
            [sys.executable, "-m", "tfcq.train", "--help"],
            env={**os.environ, "PYTHONUNBUFFERED": unbuffered},
            stdout=full,
            stderr=subprocess.PIPE,
        )
    assert (ended.returncode, ended.stderr) == (2, b"error: No space left on device.\n")


def test_pipe_of_something_else_that_broke_is_an_error(monkeypatch, capsys):
    def main(command):
        raise BrokenPipeError(32, "Broken pipe")

    monkeypatch.setattr(sys, "argv", ["tfcq.train", "--dataset=digits"])
    with pytest.raises(SystemExit, match="^2$"):
        command_line.run(flag_set(), main)
    assert capsys.readouterr().err == "error: Broken pipe.\n"


def test_another_backend_of_keras_is_left_aside_by_commands_and_told(monkeypatch, capsys):
    for given, told in (("jax", "KERAS_BACKEND=jax is left aside"), (None, ""), ("tensorflow", "")):
        monkeypatch.delenv("KERAS_BACKEND", raising=False)
        if given:
            monkeypatch.setenv("KERAS_BACKEND", given)
        start_up.quiet_start_up(1)
        assert os.environ["KERAS_BACKEND"] == "tensorflow"
        out = capsys.readouterr().out
        assert out.startswith(told) and bool(out) == bool(told)


def test_networks_of_commands_do_not_follow_a_users_settings_of_keras(monkeypatch):
    import keras

    import tfcq

    monkeypatch.setattr(keras.config, "image_data_format", keras.config.image_data_format)
    keras.config.set_image_data_format("channels_first")
    keras.config.set_floatx("float64")
    with pytest.raises(ImportError, match="'channels_first'; allowed for tfcq"):
        _ = tfcq.resnet
    start_up.quiet_start_up(1)
    found = keras.config.image_data_format(), keras.config.floatx()
    assert (*found, keras.config.dtype_policy().name) == ("channels_last", "float32", "float32")


@pytest.mark.parametrize(
    ("given", "read"),
    [("~/a", "HOME/a"), ("folder:~/a b", "folder:HOME/a b"), ("~", "HOME"), ("a~/b", "a~/b")],
)
def test_a_tilde_is_the_home_that_shells_leave_behind_a_flag(given, read):
    command = flag_set().parse([f"--run_dir={given}"])
    assert command.values["run_dir"] == read.replace("HOME", str(pathlib.Path.home()))


def test_another_backend_of_keras_is_refused_in_python_in_one_line(monkeypatch):
    import keras

    import tfcq

    monkeypatch.setattr(keras.backend, "backend", lambda: "torch")
    with pytest.raises(ImportError, match="backend 'torch'; allowed for tfcq: KERAS_BACKEND=tens"):
        _ = tfcq.BitWidth
    monkeypatch.delitem(sys.modules, "keras")
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    with pytest.raises(ImportError, match="backend 'jax'"):
        _ = tfcq.BitWidth
    monkeypatch.delenv("KERAS_BACKEND")
    assert tfcq.BitWidth(4, 8).weights == 4


def test_warnings_of_libraries_do_not_stand_above_an_error():
    def record(path):
        return logging.LogRecord("absl", logging.WARNING, path, 1, "text", None, None)

    assert start_up._is_own(record(str(ROOT / "tfcq" / "data" / "folder.py")))
    assert not start_up._is_own(record("/lib/tensorflow_datasets/core/read_only_builder.py"))


@pytest.mark.parametrize(
    ("found", "told"),
    [
        ('{"cluster": {"worker": ["a:1", "b:1"]}}', "2 processes.*--strategy=multi_worker"),
        ('{"cluster": {"chief": ["a:1"], "ps": ["b:1"], "worker": ["c:1"]}}', "3 processes"),
        ("{", "TF_CONFIG is not JSON"),
        ("[1]", "TF_CONFIG is '\\[1\\]'"),
        ('{"cluster": {"worker": 2}}', "allowed: TensorFlow's form"),
    ],
)
def test_processes_that_would_each_do_the_whole_work_are_refused(monkeypatch, found, told):
    monkeypatch.setenv("TF_CONFIG", found)
    with pytest.raises(UserError, match=told):
        start_up.quiet_start_up(1)


def test_a_dry_run_of_several_workers_takes_one_of_them(monkeypatch, capsys):
    monkeypatch.setenv("TF_CONFIG", json.dumps(WORKERS))
    flags = ["--strategy=multi_worker", "--dry_run", "--devices=2xA100", "--verbosity=1"]
    small = ["--backbone=cifar_resnet8", "--width=2", "--epochs=1"]
    train.main(flag_set().parse([*flags, *small]))
    assert "hours" in capsys.readouterr().out


@pytest.mark.parametrize("found", ["", "{}", '{"cluster": {"chief": ["a:1"]}}'])
def test_a_cluster_of_one_process_is_no_cluster(monkeypatch, found):
    monkeypatch.setenv("TF_CONFIG", found)
    start_up.quiet_start_up(1)


FIRST = {"type": "worker", "index": 0}
WORKERS = {"cluster": {"worker": ["a:1", "b:1"]}, "task": {"type": "worker", "index": 1}}


@pytest.mark.parametrize(
    ("found", "told"),
    [
        (None, "needs the addresses of two processes"),
        ({"cluster": {"worker": ["a:1"]}}, "--strategy=mirrored"),
        ({**WORKERS, "cluster": {"worker": ["a:1"], "ps": ["b:1"]}}, "jobs ps; allowed: chief and"),
        ({**WORKERS, "task": {"type": "worker", "index": 2}}, "of 2 processes"),
        ({**WORKERS, "task": {"type": "chief", "index": 0}}, "of 2 processes"),
        ({"cluster": WORKERS["cluster"]}, "the task None"),
    ],
)
def test_a_cluster_that_cannot_share_the_work_is_refused(monkeypatch, found, told):
    monkeypatch.setenv("TF_CONFIG", json.dumps(found) if found else "")
    with pytest.raises(UserError, match=told):
        cluster.join_cluster("multi_worker")


@pytest.mark.parametrize(
    ("change", "number"),
    [
        ({}, 1),
        ({"task": FIRST}, 0),
        ({"cluster": {"worker": ["a:1", "b:1"], "chief": ["c:1"]}}, 2),
        ({"cluster": {"worker": ["a:1"], "chief": ["c:1"]}, "task": FIRST}, 1),
    ],
)
def test_of_several_workers_the_chief_alone_tells(monkeypatch, change, number):
    monkeypatch.setenv("TF_CONFIG", json.dumps(WORKERS | change))
    told = io.StringIO()
    monkeypatch.setattr(sys, "stdout", told)
    cluster.join_cluster("multi_worker")
    print("progress")
    assert ("progress" in told.getvalue()) == (number == 0)
    assert (f"Worker {number} of" in told.getvalue()) == (number > 0)
