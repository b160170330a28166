"""A first run of a file in a process of its own, because LiteRT's kernels may end theirs.

They check a few numbers of a file, such as the scale of a softmax's inputs, by ending the process.
"""

import contextlib
import dataclasses
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping

from tfcq.errors import UserError
from tfcq.integer.lite_file import LiteFile, Operation
from tfcq.integer.runtime import RESOLVERS, runtime_version

# Tells what it comes to before it does. What LiteRT refuses in words is no matter here.
_CHILD = """
import pathlib, sys
from ai_edge_litert.interpreter import Interpreter, OpResolverType
folder, *several = sys.argv[1:]
for resolver, name in (one.split(":") for one in several):
    print(f"{resolver}:{name}", flush=True)
    try:
        content = (pathlib.Path(folder) / name).read_bytes()
        kind = getattr(OpResolverType, resolver)
        model = Interpreter(model_content=content, experimental_op_resolver_type=kind)
        model.allocate_tensors()
        model.invoke()
    except (RuntimeError, ValueError):
        pass
"""
_WHOLE = "whole"
# Of a process that ended itself; others come from outside, such as for want of memory.
_FAULTS = (signal.SIGABRT, signal.SIGSEGV, signal.SIGFPE, signal.SIGILL, signal.SIGBUS)


def check_runs(content: bytes, title: str, kernels: Iterable[str]) -> None:
    """Refuses a file that ends the process in which LiteRT runs it.

    Args:
        content: the bytes of the file.
        title: what it is called.
        kernels: names in `KERNELS`.

    Raises:
        UserError: naming the kernels and the operation.
    """
    runtime_version()
    several = {RESOLVERS[name]: name for name in kernels}
    ended = _ended_at({_WHOLE: content}, several) if several else None
    if ended is None:
        return
    resolver, _ = ended
    file, parts = LiteFile.read(content, title), {}
    for number, one in enumerate(file.operations):
        # What cannot be written alone is not what is named.
        with contextlib.suppress(UserError):
            parts[str(number)] = alone(file, one).to_bytes()
    found = _ended_at(parts, [resolver])
    where = "" if found is None else _described(file, file.operations[int(found[1])])
    raise UserError(
        f"LiteRT's {several[resolver]} kernels end the process that runs {title}{where}; allowed: "
        "scales that they take, such as those of a trained network."
    )


def _described(file: LiteFile, operation: Operation) -> str:
    made, taken = file.tensors[operation.outputs[0]], file.tensors[operation.inputs[0]]
    scale = f", whose inputs have the scale {float(taken.scale):.3g}" if len(taken.scales) else ""
    return f", at {made.name!r} ({operation.kind}{scale})"


def _ended_at(contents: Mapping[str, bytes], resolvers: Iterable[str]) -> tuple[str, str] | None:
    """Returns resolver and name of the first file that ends a process; None where none does."""
    with tempfile.TemporaryDirectory() as folder:
        for name, content in contents.items():
            (pathlib.Path(folder) / name).write_bytes(content)
        order = [f"{resolver}:{name}" for resolver in resolvers for name in contents]
        done = subprocess.run(
            [sys.executable, "-c", _CHILD, folder, *order], capture_output=True, text=True,
            check=False, env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        )  # fmt: skip
    if done.returncode == 0:
        return None
    if -done.returncode not in _FAULTS or not done.stdout:
        last = (done.stderr.strip() or "no word").splitlines()[-1]
        raise UserError(f"LiteRT's own process ended with code {done.returncode}: {last}")
    resolver, _, name = done.stdout.split()[-1].partition(":")
    return resolver, name


def alone(file: LiteFile, operation: Operation) -> LiteFile:
    """Returns a file of one operation, whose inputs are the tensors that a file computes.

    Args:
        file: the file.
        operation: one of its operations.
    """
    indices = list(dict.fromkeys(i for i in (*operation.inputs, *operation.outputs) if i >= 0))
    places = {index: place for place, index in enumerate(indices)} | {-1: -1}
    moved = dataclasses.replace(
        operation,
        inputs=[places[index] for index in operation.inputs],
        outputs=[places[index] for index in operation.outputs],
    )
    tensors = [file.tensors[index] for index in indices]
    inputs = [place for place, one in enumerate(tensors) if one.data is None]
    taken = [place for place in inputs if place not in moved.outputs]
    return LiteFile(tensors, [moved], taken, moved.outputs)
