#!/usr/bin/env python3
"""Draws mistakes by grammar from some rooms and writes them as `tools/mutants.py` reads them.

    .venv/bin/python tools/generic_mutants.py --count=40 --seed=0 --output=build/generic
    .venv/bin/python tools/mutants.py --folder=build/generic --results=results/mutants_generic.json

A comparison, operator, number, condition or statement of the code is changed, each place as likely
as any other. The tests are all of the room, the first that fails ends it.
"""

import argparse
import ast
import json
import pathlib
import random

ROOT = pathlib.Path(__file__).resolve().parent.parent
TESTS = {
    "quantization": ["tests/quantization", "tests/nn"],
    "data": ["tests/data"],
    "post_training": ["tests/post_training"],
    "pretraining": ["tests/pretraining"],
}
OTHER = {
    ast.Lt: "<=", ast.LtE: "<", ast.Gt: ">=", ast.GtE: ">", ast.Eq: "!=", ast.NotEq: "==",
    ast.Is: "is not", ast.IsNot: "is", ast.In: "not in", ast.NotIn: "in",
    ast.Add: "-", ast.Sub: "+", ast.Mult: "/", ast.Div: "*", ast.FloorDiv: "/", ast.Mod: "//",
    ast.Pow: "*", ast.MatMult: "*", ast.And: "or", ast.Or: "and",
}  # fmt: skip


def main() -> None:
    """Draws and writes."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=40)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=pathlib.Path, default=ROOT / "build" / "generic")
    arguments = parser.parse_args()
    files = [file for room in TESTS for file in sorted((ROOT / "tfcq" / room).glob("*.py"))]
    found = [(file, *change) for file in files for change in changes(file.read_text())]
    drawn = random.Random(arguments.seed).sample(found, arguments.count)
    arguments.output.mkdir(parents=True, exist_ok=True)
    for room, tests in TESTS.items():
        mutants = [entry(*one, tests) for one in drawn if one[0].parent.name == room]
        text = "\n".join("[[mutant]]\n" + "".join(mutant) for mutant in mutants)
        (arguments.output / f"{room}.toml").write_text(text or "mutant = []\n")
    print(f"{len(found)} places, {len(drawn)} drawn, in {arguments.output}")


def changes(source: str) -> list[tuple[int, int, str]]:
    """Returns start, end and replacement of every change that a file allows."""
    lines = source.splitlines(keepends=True)
    starts = [sum(len(line.encode()) for line in lines[:i]) for i in range(len(lines))]
    data, found = source.encode(), []

    def span(node: ast.AST) -> tuple[int, int]:
        start = starts[node.lineno - 1] + node.col_offset
        return start, starts[node.end_lineno - 1] + node.end_col_offset

    def text(node: ast.AST) -> str:
        start, end = span(node)
        return data[start:end].decode()

    def between(left: ast.AST, operator: ast.AST, right: ast.AST) -> None:
        start, end = span(left)[1], span(right)[0]
        # Where a bracket lies between, the operator is not all there is.
        if type(operator) in OTHER and not set(data[start:end].decode()) & set("()[]\n#"):
            found.append((start, end, f" {OTHER[type(operator)]} "))

    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Compare) and len(node.ops) == 1:
            between(node.left, node.ops[0], node.comparators[0])
        elif isinstance(node, ast.BinOp):
            between(node.left, node.op, node.right)
        elif isinstance(node, ast.BoolOp):
            between(node.values[0], node.op, node.values[1])
        elif isinstance(node, ast.Constant) and type(node.value) in (bool, int, float):
            value = not node.value if type(node.value) is bool else node.value + 1
            found.append((*span(node), repr(value)))
        elif isinstance(node, ast.If | ast.IfExp | ast.While):
            found.append((*span(node.test), f"not ({text(node.test)})"))
        elif isinstance(node, ast.AugAssign) or (
            isinstance(node, ast.Expr) and isinstance(node.value, ast.Call)
        ):
            found.append((*span(node), "pass"))
    return found


def entry(file: pathlib.Path, start: int, end: int, new: str, tests: list[str]) -> list[str]:
    """Returns the lines of an entry: whole lines of the file, as many as make them stand once."""
    data = file.read_bytes()
    first, last = data.rfind(b"\n", 0, start) + 1, data.find(b"\n", end) + 1
    line = data[:start].count(b"\n") + 1
    while data.count(data[first:last]) > 1:
        first = data.rfind(b"\n", 0, first - 1) + 1
    column = start - data.rfind(b"\n", 0, start)
    name = (
        f"{file.parent.name}/{file.name}:{line}:{column}: {data[start:end].decode()!r} -> {new!r}"
    )
    fields = {
        "name": name,
        "file": str(file.relative_to(ROOT)),
        "text": data[first:last].decode(),
        "replacement": (data[first:start] + new.encode() + data[end:last]).decode(),
        "tests": tests,
    }
    # Strings of JSON are strings of TOML too.
    return [f"{key} = {json.dumps(value)}\n" for key, value in fields.items()]


if __name__ == "__main__":
    main()
