"""The list of mistakes fits the code: `tools/mutants.py` can put in each of them."""

import pathlib
import runpy

ROOT = pathlib.Path(__file__).parent.parent
TOOL = runpy.run_path(str(ROOT / "tools" / "mutants.py"))


def test_every_mistake_stands_once_and_has_its_tests():
    mutants = TOOL["read_mutants"](ROOT / "tests" / "mutants")
    assert [(m["name"], fault) for m in mutants if (fault := TOOL["fault"](m, ROOT))] == []
    names = [mutant["name"] for mutant in mutants]
    assert sorted(set(names)) == sorted(names)


def test_entries_that_do_not_fit_are_refused(tmp_path):
    (tmp_path / "code.py").write_text("a = 1\nb = 1\n")
    (tmp_path / "test_code.py").write_text("def test_a():\n    pass\n")
    entry = {"name": "n", "file": "code.py", "text": "a = 1", "replacement": "a = 2"}
    entry["tests"] = ["test_code.py::test_a[3]"]
    assert TOOL["fault"](entry, tmp_path) is None
    for change, told in [
        ({"text": "= 1"}, "its text stands 2 times in code.py"),
        ({"text": "c = 1"}, "its text stands 0 times in code.py"),
        ({"replacement": "a = 1"}, "changes nothing"),
        ({"replacement": "a ="}, "is no Python any more: invalid syntax (code.py, line 1)"),
        ({"file": "other.py"}, "there is no other.py"),
        ({"tests": ["test_code.py::test_b"]}, "there is no test_code.py::test_b"),
        ({"tests": ["other.py"]}, "there is no other.py"),
        ({"tests": []}, "needs tests, or the reason why it is equivalent"),
        ({"reason": "r"}, "unknown: reason"),
    ]:
        assert TOOL["fault"]({**entry, **change}, tmp_path) == told
    assert TOOL["fault"]({"name": "n"}, tmp_path) == "file, replacement, text is missing"
