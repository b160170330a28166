#!/usr/bin/env python3
"""Puts mistakes into a copy of the code, one at a time, and names those that no test notices.

    .venv/bin/python tools/mutants.py --room=quantization --processes=2

`tests/mutants/ROOM.toml` lists the mistakes: a text that stands once in a file, its replacement,
and the tests that should fail. A mistake is killed if these tests pass without it and fail with
it, or run into the time limit. Results are kept; a mistake is tried again only when it, the file
it changes or one of its test files has changed. Exits with 1 if a mistake survived.

Why neither mutmut 3.8 nor cosmic-ray 8.7: both make mistakes by grammar, not from a list (mutmut's
operators are fixed, cosmic-ray's are installed plug-ins with one test command for all), and
cosmic-ray starts a process for each, 8 s for a test that takes 1 s here, in a child forked
from a process that has imported TensorFlow and not used it yet.
"""

import argparse
import ast
import contextlib
import hashlib
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import tomllib

ROOT = pathlib.Path(__file__).resolve().parent.parent
KEYS = {"name", "file", "text", "replacement"}


def main() -> None:
    """Tries what has to be tried, and says what survived."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", default=ROOT / "tests" / "mutants", type=pathlib.Path)
    parser.add_argument("--room", help="only the mistakes of this file in the folder")
    parser.add_argument("--name", default="", help="only mistakes with this in their name")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--limit", type=float, default=300, help="seconds a mistake may take")
    parser.add_argument("--results", default=ROOT / "build" / "mutants.json", type=pathlib.Path)
    arguments = parser.parse_args()
    mutants = read_mutants(arguments.folder)
    names = [mutant["name"] for mutant in mutants]
    faults = [f"{m['room']}: {m['name']}: {f}" for m in mutants if (f := fault(m, ROOT))]
    faults += [f"the name {n!r} stands more than once" for n in names if names.count(n) > 1]
    if faults:
        sys.exit("error: " + "\n".join(faults))
    mutants = [
        mutant
        for mutant in mutants
        if mutant["room"] == (arguments.room or mutant["room"]) and arguments.name in mutant["name"]
    ]
    if not mutants:
        sys.exit("error: no mistake has this room and name")
    results = json.loads(arguments.results.read_text()) if arguments.results.exists() else {}
    pending = [
        mutant
        for mutant in mutants
        if "equivalent" not in mutant
        and results.get(mutant["name"], {}).get("key") != key_of(mutant, ROOT)
    ]
    if pending:
        try:
            try_all(pending, results, arguments)
        except KeyboardInterrupt:
            sys.exit("stopped; what was tried is kept")
    sys.exit(1 if report(mutants, results) else 0)


def read_mutants(folder: pathlib.Path) -> list[dict]:
    """Returns the mistakes of all rooms, each with its room."""
    return [
        {"room": file.stem, **mutant}
        for file in sorted(folder.glob("*.toml"))
        for mutant in tomllib.loads(file.read_text())["mutant"]
    ]


def fault(mutant: dict, root: pathlib.Path) -> str | None:
    """Returns what is wrong with an entry, None if nothing is."""
    if missing := KEYS - mutant.keys():
        return f"{', '.join(sorted(missing))} is missing"
    if unknown := mutant.keys() - KEYS - {"room", "tests", "equivalent"}:
        return f"unknown: {', '.join(sorted(unknown))}"
    if not mutant.get("tests") and not mutant.get("equivalent"):
        return "needs tests, or the reason why it is equivalent"
    path = root / mutant["file"]
    if not path.is_file():
        return f"there is no {mutant['file']}"
    if (count := path.read_text().count(mutant["text"])) != 1:
        return f"its text stands {count} times in {mutant['file']}"
    if mutant["text"] == mutant["replacement"]:
        return "changes nothing"
    try:
        if path.suffix != ".cfg":
            compile(mutated(mutant, root), mutant["file"], "exec")
    except SyntaxError as error:
        return f"is no Python any more: {error}"
    return next((f for test in mutant.get("tests", ()) if (f := test_fault(test, root))), None)


def test_fault(test: str, root: pathlib.Path) -> str | None:
    """Returns what is wrong with the name of a test, None if nothing is."""
    file, *names = test.partition("[")[0].split("::")
    if not (root / file).exists():
        return f"there is no {file}"
    if not names:
        return None
    body = ast.parse((root / file).read_text()).body
    for name in names:
        found = [node for node in body if getattr(node, "name", None) == name]
        if not found:
            return f"there is no {test}"
        body = found[0].body
    return None


def mutated(mutant: dict, root: pathlib.Path) -> str:
    """Returns the text of the file with the mistake in it."""
    return (root / mutant["file"]).read_text().replace(mutant["text"], mutant["replacement"])


def key_of(mutant: dict, root: pathlib.Path) -> str:
    """Returns what changes with the mistake, the file that it changes, or its tests' files."""
    places = sorted({root / test.partition("::")[0] for test in mutant["tests"]})
    files = [f for place in places for f in (sorted(place.glob("*.py")) or [place])]
    parts = [mutated(mutant, root), *mutant["tests"], *(file.read_text() for file in files)]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def try_all(pending: list[dict], results: dict, arguments: argparse.Namespace) -> None:
    """Tries mistakes, several at a time, and keeps each result as soon as it is known."""
    start_up()
    with tempfile.TemporaryDirectory() as folder:
        free = [copy_tree(pathlib.Path(folder) / str(i)) for i in range(arguments.processes)]
        bad = baseline(pending, free[0], arguments.limit)
        waiting, running = list(pending), {}
        with ended_at_exit(running):
            while waiting or running:
                while waiting and free:
                    mutant, copy = waiting.pop(0), free.pop()
                    if failing := [test for test in mutant["tests"] if test in bad]:
                        free.append(copy)
                        outcome = f"broken: {failing[0]} fails without the mistake"
                        keep(mutant, None, outcome, 0, results, arguments.results)
                        continue
                    # Of the copy: what it was made of may be edited meanwhile.
                    key, original = key_of(mutant, copy), (copy / mutant["file"]).read_text()
                    (copy / mutant["file"]).write_text(mutated(mutant, copy))
                    child = run_tests(copy, mutant["tests"], "-x")
                    running[child] = mutant, copy, key, original, time.monotonic()
                for child, (mutant, copy, key, original, since) in list(running.items()):
                    seconds = time.monotonic() - since
                    code = code_of(child, seconds > arguments.limit)
                    if code is None and seconds <= arguments.limit:
                        continue
                    del running[child]
                    (copy / mutant["file"]).write_text(original)
                    free.append(copy)
                    keep(mutant, key, outcome_of(code, copy), seconds, results, arguments.results)
                time.sleep(0.05)


def start_up() -> None:
    """Imports what nearly all tests import; nothing of tfcq, which each child reads anew."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    sys.dont_write_bytecode = True  # Files change within a second and keep their length.
    os.environ["PYTHONDONTWRITEBYTECODE"] = "1"
    with open(os.devnull, "w") as nowhere, contextlib.ExitStack() as restored:
        # TensorFlow's native code writes past sys.stderr.
        kept = os.dup(2)
        restored.callback(os.dup2, kept, 2)
        os.dup2(nowhere.fileno(), 2)
        import keras  # noqa: F401
        import pytest  # noqa: F401
        import tensorflow  # noqa: F401


def copy_tree(target: pathlib.Path) -> pathlib.Path:
    """Copies what git knows or does not ignore."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).is_file():  # Neither removed nor a link to a folder.
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, target / name)
    return target


def baseline(pending: list[dict], copy: pathlib.Path, limit: float) -> set:
    """Runs the tests of all mistakes without any of them; returns those that fail."""
    tests = sorted({test for mutant in pending for test in mutant["tests"]})
    print(f"{len(pending)} to try; {len(tests)} tests without a mistake first", flush=True)
    child, since = run_tests(copy, tests), time.monotonic()
    with ended_at_exit({child: None}):
        late = False
        while (code := code_of(child, late)) is None and not late:
            time.sleep(0.05)
            late = time.monotonic() - since > limit * len(tests)
    if code not in (0, 1):
        sys.exit(f"error: the tests do not run without a mistake either:\n{tail(copy)}")
    failed = failed_in(copy)
    if failed:
        print(f"fail without a mistake: {', '.join(failed)}\n{tail(copy)}", flush=True)
    return {
        test
        for test in tests
        if any(f == test or f.startswith((test + "[", test + "::")) for f in failed)
    }


def run_tests(copy: pathlib.Path, tests: list[str], *options: str) -> int:
    """Forks a child that runs tests in a copy; beside it, what was printed and what failed."""
    sys.stdout.flush()
    if child := os.fork():
        return child
    try:
        os.setsid()
        output = os.open(copy.with_suffix(".txt"), os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(output, 1)
        os.dup2(output, 2)
        os.chdir(copy)
        sys.path[0] = os.environ["PYTHONPATH"] = str(copy)
        import pytest

        failures = Failures()
        code = int(pytest.main(["-p", "no:cacheprovider", *options, *tests], [failures]))
        copy.with_suffix(".json").write_text(json.dumps(failures.names))
    except BaseException as error:
        print(f"{type(error).__name__}: {error}", flush=True)
        code = 3
    sys.stdout.flush()
    os._exit(code)


class Failures:
    """Collects the names of the tests that failed."""

    def __init__(self):
        self.names = []

    def pytest_runtest_logreport(self, report):
        """Keeps a failure of a test, its setup or its end."""
        if report.failed:
            self.names.append(report.nodeid)


def failed_in(copy: pathlib.Path) -> list[str]:
    """Returns the names of the tests that failed in a copy."""
    return json.loads(copy.with_suffix(".json").read_text())


def code_of(child: int, late: bool) -> int | None:
    """Returns a child's exit code, None if it has none (yet); ends one that is late."""
    if late:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child, signal.SIGKILL)
        os.waitpid(child, 0)
        return None
    ended, status = os.waitpid(child, os.WNOHANG)
    return os.waitstatus_to_exitcode(status) if ended else None


@contextlib.contextmanager
def ended_at_exit(children: dict):
    """Ends the children that still run, with all that they started, however the block ends."""
    try:
        yield
    finally:
        for child in children:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child, signal.SIGKILL)


def outcome_of(code: int | None, copy: pathlib.Path) -> str:
    """Says what an exit code of pytest means for a mistake; negative ones are crashes."""
    if code is None:
        return "killed by the time limit"
    if code == 0:
        return "survived"
    if code < 0:
        return f"killed by a crash, signal {-code}"
    return f"killed by {failed_in(copy)[0]}" if code == 1 else f"broken: {code}: {tail(copy)}"


def tail(copy: pathlib.Path) -> str:
    """Returns the end of what a run in a copy printed."""
    return "\n".join(copy.with_suffix(".txt").read_text(errors="replace").splitlines()[-8:])


def keep(mutant: dict, key: str | None, outcome: str, seconds: float, results: dict, file) -> None:
    """Writes a result into the file of results; one without a key is tried again next time."""
    if outcome.startswith("broken"):
        key = None
    if file.exists():
        results.update(json.loads(file.read_text()))
    seconds = round(seconds, 1)
    results[mutant["name"]] = {
        "room": mutant["room"], "key": key, "outcome": outcome, "seconds": seconds
    }  # fmt: skip
    file.parent.mkdir(parents=True, exist_ok=True)
    temporary = file.with_suffix(".part")
    temporary.write_text(json.dumps(results, indent=1) + "\n")
    os.replace(temporary, file)
    print(f"{seconds:6.1f} s  {mutant['room']}: {mutant['name']}: {outcome}", flush=True)


def report(mutants: list[dict], results: dict) -> list[dict]:
    """Prints how many were killed and which were not; returns the latter."""
    equivalent = [mutant for mutant in mutants if "equivalent" in mutant]
    tried = [mutant for mutant in mutants if "equivalent" not in mutant]
    alive = [m for m in tried if not results[m["name"]]["outcome"].startswith("killed")]
    print(
        f"{len(mutants)} mistakes: {len(tried) - len(alive)} killed, "
        f"{len(equivalent)} equivalent, {len(alive)} not killed"
    )
    for mutant in alive:
        outcome = results[mutant["name"]]["outcome"]
        print(f"NOT KILLED  {mutant['room']}: {mutant['name']}: {outcome.splitlines()[0]}")
    return alive


if __name__ == "__main__":
    main()
