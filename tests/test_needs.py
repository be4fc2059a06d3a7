"""A skipped test says how to make it run, and the end of a run says it again."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import needs
import pytest

TESTS = Path(__file__).parent


def test_a_run_ends_with_what_would_make_skipped_tests_run(tmp_path: Path) -> None:
    (tmp_path / "conftest.py").write_text("from needs import pytest_terminal_summary\n")
    (tmp_path / "test_some.py").write_text(
        "import needs, pytest\n"
        "without = needs.skips_if(True, 'no bridge', 'build one')\n"
        "@without\ndef test_first(): ...\n"
        "@without\n@pytest.mark.parametrize('n', [1, 2])\ndef test_second(n): ...\n"
        "def test_third(): needs.skip_without('no boat', 'row one')\n"
        "def test_fourth(): pytest.skip('no reason')\n"
        "def test_fifth(): ...\n"
    )
    (tmp_path / "test_other.py").write_text("import needs\nneeds.module('no_such_module', 'some-package')\n")
    path = f"import sys; sys.path[:0] = [{str(TESTS)!r}, {str(TESTS.parent)!r}]; import pytest; "
    run = subprocess.run(
        [sys.executable, "-c", f"{path}sys.exit(pytest.main(['-q', '-p', 'no:cacheprovider', {str(tmp_path)!r}]))"],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert run.returncode == 0, run.stdout + run.stderr
    told = run.stdout[run.stdout.index("6 skipped, and what would make them run") :].splitlines()[1:]
    assert told[: told.index("row one  (1: no boat)") + 2] == [
        f"{needs.NOTHING_SAID}  (1: no reason)",
        "    test_some.py::test_fourth",
        "build one  (3: no bridge)",
        "    test_some.py::test_first",
        "    test_some.py::test_second[1]",
        "    test_some.py::test_second[2]",
        "pip install some-package  (1: no_such_module is not installed)",
        "    test_other.py",
        "row one  (1: no boat)",
        "    test_some.py::test_third",
    ]


def test_a_data_file_is_found_in_the_folder_that_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(needs.DATA_VARIABLE, str(tmp_path))
    with pytest.raises(pytest.skip.Exception, match=f"set {needs.DATA_VARIABLE} to a folder that holds set/file.jsonl"):
        needs.data_file("set", "file.jsonl")
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "file.jsonl").write_text("{}")
    assert needs.data_file("set", "file.jsonl").read_text() == "{}"


def test_every_skip_goes_through_needs() -> None:
    """So that each says how to undo it: use `needs.skip_without`, `needs.skips_if` or `needs.module`."""
    direct = []
    for file in sorted(TESTS.rglob("*.py")):
        if file.name not in ("needs.py", Path(__file__).name):
            tree = ast.parse(file.read_text(encoding="utf-8"))
            direct += [
                f"{file.relative_to(TESTS)}:{node.lineno}"
                for node in ast.walk(tree)
                if isinstance(node, ast.Attribute) and node.attr in ("skip", "skipif", "importorskip", "xfail")
                and ast.unparse(node.value) in ("pytest", "pytest.mark")
            ]  # fmt: skip
    assert direct == []
