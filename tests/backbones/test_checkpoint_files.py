"""Public files of weights: what is in them is read, and nothing that they name is run."""

import json
import pathlib
import pickle
import shutil
import struct
import zipfile

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import save_file

from tests.backbones.torch_files import pickled, save, write_older, write_zip
from tfcq.backbones.checkpoint_files import read_checkpoint
from tfcq.errors import UserError

VECTORS = pathlib.Path(__file__).parents[1] / "vectors" / "public"
RAMP = np.arange(24, dtype=np.float32)
GRID = RAMP.reshape(2, 3, 4)


@pytest.mark.parametrize("name", ["zip.pth", "older.pth"])
def test_files_that_pytorch_wrote_hold_what_was_put_into_them(name):
    file = read_checkpoint(str(VECTORS / name))
    state = {
        "whole": GRID, "turned": GRID.transpose(2, 0, 1), "part": RAMP[5:11:2], "scalar": RAMP[7],
        "empty": RAMP[:0], "parameter": GRID[1],
    }  # fmt: skip
    kinds = ["float32", "float64", "float16", "int64", "int32", "int16", "int8", "uint8", "bool"]
    expected = {f"state_dict.{n}": v for n, v in state.items()}
    expected |= {f"kinds.{n}": np.arange(2).astype(n) for n in kinds}
    expected["kinds.bfloat16"] = np.arange(2).astype(ml_dtypes.bfloat16)
    norm = {"weight": 1, "bias": 0, "running_mean": 0, "running_var": 1}
    expected |= {f"norm.{n}": np.full(2, v, np.float32) for n, v in norm.items()}
    expected |= {"norm.num_batches_tracked": np.int64(0), "optimizer.state.0.step": np.int64(4)}
    assert file.tensors.keys() == expected.keys()
    for key, tensor in file.tensors.items():
        found = tensor.read()
        assert (found.dtype, found.shape) == (expected[key].dtype, expected[key].shape)
        assert tensor.shape == found.shape
        np.testing.assert_array_equal(found, expected[key])


def everything(path):
    """Reads all that a file holds."""
    return {name: tensor.read() for name, tensor in read_checkpoint(str(path)).tensors.items()}


@pytest.mark.parametrize("name", ["zip.pth", "older.pth", "net.safetensors"])
def test_a_file_that_is_not_whole_or_was_changed_is_read_or_refused_in_one_line(name, tmp_path):
    if name == "net.safetensors":
        save_file({"a": GRID, "b": RAMP}, tmp_path / name)
    else:
        shutil.copy(VECTORS / name, tmp_path / name)
    path = tmp_path / name
    content = path.read_bytes()
    draw, refused = np.random.default_rng(0), 0
    for number in range(120):
        cut = bytearray(content[: int(draw.integers(len(content)))] if number % 2 else content)
        for place in draw.integers(len(cut), size=3 * (1 - number % 2)) if cut else ():
            cut[place] = draw.integers(256)
        path.write_bytes(cut)
        try:
            everything(path)
        except UserError as error:
            refused += 1
            assert "\n" not in str(error) and str(error).startswith(str(path))
        # What is cut is never taken for a whole file.
        else:
            assert number % 2 == 0
    assert refused >= 60


class Call:
    """What a pickle makes by calling a function."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def _hidden(module: str, name: str, argument: str) -> bytes:
    """Returns a pickle that calls a function of a module that is not there."""
    return f"c{module}\n{name}\n(S'{argument}'\ntR.".encode()


def _hostile(marker) -> dict[str, tuple[bytes, str]]:
    import os
    import subprocess

    command = f"touch {marker}"
    inside, _ = pickled({"state_dict": {"a": GRID, "b": Call(eval, f"open({str(marker)!r}, 'w')")}})
    within = inside.replace(b"ctorch._utils\n_rebuild_tensor_v2\n", b"cbuiltins\neval\n", 1)
    return {
        "a shell": (pickle.dumps(Call(os.system, command), 2), f"{os.name}.system"),
        "a shell, by a newer protocol": (pickle.dumps([Call(os.system, command)], 4), "posix.syst"),
        "eval beside tensors": (inside, "__builtin__.eval"),
        "eval in place of what makes a tensor": (within, "builtins.eval"),
        "eval in the arguments of a tensor": (
            b"ctorch._utils\n_rebuild_parameter\n(c__builtin__\neval\n(S'1'\ntRtR.",
            "__builtin__.eval",
        ),
        "another process": (
            pickle.dumps(Call(subprocess.Popen, ["touch", str(marker)]), 4), "subprocess.Popen",
        ),
        "a model of PyTorch's hub": (_hidden("torch.hub", "load", "x/y"), "torch.hub.load"),
        "PyTorch's own reader": (_hidden("torch", "load", "x"), "torch.load"),
        "a whole network": (
            b"\x80\x02ctorchvision.models.resnet\nResNet\n)\x81.",
            "torchvision.models.resnet.ResNet",
        ),
        "an attribute through a name with dots": (
            b"\x80\x04\x8c\x0bcollections\x8c\x14OrderedDict.__init__\x93.",
            "collections.OrderedDict.__init__",
        ),
        "an instance by its old operation": (b"(S'x'\nios\nsystem\n.", "os.system"),
        "an object by its old operation": (b"(cos\nsystem\nS'x'\no.", "os.system"),
        "what is registered elsewhere": (b"\x80\x02\x82\x01.", "EXT1"),
    }  # fmt: skip


@pytest.mark.parametrize("what", _hostile(""))
@pytest.mark.parametrize("older", [False, True])
def test_a_hostile_pickle_is_refused_by_the_name_that_it_would_run(what, older, tmp_path):
    marker = tmp_path / "run"
    content, name = _hostile(marker)[what]
    path = tmp_path / "net.pth"
    write_older(path, content) if older else write_zip(path, content, [GRID.tobytes()])
    with pytest.raises(UserError) as refused:
        read_checkpoint(str(path))
    assert name in str(refused.value) and "\n" not in str(refused.value)
    assert "allowed: tensors in lists and dictionaries" in str(refused.value)
    assert not marker.exists()


def _tensor(count=24, offset=0, shape=(2,), strides=(1,)) -> bytes:
    """Returns the pickle of a tensor that says of itself what is given."""
    numbers = (b"(" + b"".join(b"I%d\n" % n for n in values) + b"t" for values in (shape, strides))
    size, steps = numbers
    return (
        b"\x80\x02}U\x01actorch._utils\n_rebuild_tensor_v2\n((U\x07storagectorch\nFloatStorage\n"
        b"U\x010U\x03cpuI%d\ntQI%d\n%s%s\x89NtRs." % (count, offset, size, steps)
    )


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (_tensor(count=10**15), "wants 4000000000000000 bytes, and 96 are there"),
        (_tensor(count=25), "wants 100 bytes, and 96 are there"),
        (_tensor(count=-1), "no storage of numbers"),
        (_tensor(shape=(25,)), "larger than its storage"),
        (_tensor(shape=(2,), offset=23), "larger than its storage"),
        (_tensor(shape=(2, 2), strides=(23, 1)), "larger than its storage"),
        (_tensor(shape=(10**9, 10**9), strides=(0, 0)), "larger than its storage"),
        (_tensor(shape=(2,), strides=(-1,)), "no view of a storage"),
        (_tensor(shape=(2, 2)), "no view of a storage"),
        (_tensor().replace(b"U\x010U", b"U\x017U"), "wants 96 bytes, and 0 are there"),
        (b"\x80\x02]r\xff\xff\xff\x7f.", "a memo beyond all that was made"),
        (b"\x80\x05\x96\xff\xff\xff\xff\xff\xff\x00\x00.", "cannot be read as a PyTorch file"),
        (b"\x80\x04\x8e\xff\xff\xff\xff\xff\xff\x00\x00.", "cannot be read as a PyTorch file"),
        (b"(" + b"]" * 30 + b"a" * 29 + b".", "nested deeper than 20 levels"),
        (b"}(U\x01aU\x01bu.", "holds no tensor"),
        (b"I1\n.", "holds no tensor"),
        (b"", "cannot be read as a PyTorch file"),
    ],
)  # fmt: skip
def test_numbers_that_the_file_does_not_have_are_refused(content, told, tmp_path):
    path = write_zip(tmp_path / "net.pth", content, [GRID.tobytes()])
    with pytest.raises(UserError, match=told):
        everything(path)


def test_a_tensor_that_says_the_truth_is_read(tmp_path):
    path = write_zip(tmp_path / "net.pth", _tensor(24, 3, (2, 2), (6, 2)), [GRID.tobytes()])
    np.testing.assert_array_equal(everything(path)["a"], [[3, 5], [9, 11]])


def test_a_list_that_is_in_itself_many_times_is_gone_through_once(tmp_path):
    tree = {"a": GRID}
    for _ in range(15):
        tree = {"b": tree, "c": tree}
    found = everything(save(tree, tmp_path / "net.pth"))
    assert [value.shape for value in found.values()] == [GRID.shape]


@pytest.mark.parametrize(
    ("parts", "told"),
    [
        ({"compression": zipfile.ZIP_DEFLATED}, "compressed part 'archive/data.pkl'"),
        ({"byteorder": "big"}, "another byte order"),
        ({"constants.pkl": b""}, "a TorchScript program, which is not run"),
    ],
)
def test_archives_that_are_no_weights_are_told(parts, told, tmp_path):
    content, arrays = pickled({"a": GRID})
    path = write_zip(tmp_path / "net.pth", content, [one.tobytes() for one in arrays], **parts)
    with pytest.raises(UserError, match=told):
        everything(path)


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("net.pth", b"", "is empty"),
        ("net.pth", b"PK\x03\x04", "is not whole .*; fetch it again"),
        ("net.pth", b"<!DOCTYPE html>", "is no PyTorch file"),
        ("net.pth", b"version https://git-lfs.github.com/spec/v1\n", "`git lfs pull`"),
        ("net.pth", pickle.dumps({"a": 1}), "is no PyTorch file"),
        ("net.safetensors", b"", "cannot be read as safetensors: .*too small"),
        ("net.safetensors", b"\xff" * 8 + b"{}", "cannot be read as safetensors: .*too large"),
        ("net.safetensors", struct.pack("<Q", 2) + b"{]", "cannot be read as safetensors"),
        ("net.safetensors", struct.pack("<Q", 2) + b"{}", "holds no tensor"),
    ],
)
def test_other_files_are_told_in_one_line(name, content, told, tmp_path):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(UserError, match=told):
        read_checkpoint(str(path))


def test_folders_and_files_that_are_not_there_are_told(tmp_path):
    for path, fault in ((tmp_path, "is a folder"), (tmp_path / "no.pth", "does not exist")):
        with pytest.raises(UserError, match=f"{path} {fault}; allowed: a file of weights"):
            read_checkpoint(str(path))


def test_safetensors_of_every_type_are_read_with_their_metadata(tmp_path):
    kinds = {"F32": np.float32, "F16": np.float16, "BF16": ml_dtypes.bfloat16, "I64": np.int64}
    header, data = {"__metadata__": {"input_mean": "0.5"}}, b""
    for kind, dtype in kinds.items():
        value = np.arange(3).astype(dtype).tobytes()
        places = [len(data), len(data) + len(value)]
        header[kind] = {"dtype": kind, "shape": [3], "data_offsets": places}
        data += value
    text = json.dumps(header).encode()
    path = tmp_path / "net.safetensors"
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)
    file = read_checkpoint(str(path))
    assert file.metadata == {"input_mean": "0.5"}
    for kind, dtype in kinds.items():
        found = file.tensors[kind].read()
        assert found.dtype == dtype and found.tolist() == [0, 1, 2]
