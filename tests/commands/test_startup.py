"""What the command line answers at once: its version, its help and its complaints come without torch."""

from __future__ import annotations

import argparse
import ast
from pathlib import Path

import pytest
from without_torch import asked, python

import gcache
from gcache.commands.main import parser


def commands() -> list[str]:
    """The names of all commands."""
    (found,) = [action for action in parser()._actions if isinstance(action, argparse._SubParsersAction)]
    return sorted(found.choices)


def test_the_version_comes_without_torch() -> None:
    done = asked("--version")
    assert (done.returncode, done.stdout, done.stderr) == (0, f"gcache {gcache.__version__}\n", "")


def test_which_commands_there_are_is_known_before_any_settings_are() -> None:
    code = (
        "import contextlib, sys\n"
        "from gcache.commands.main import main\n"
        "with contextlib.suppress(SystemExit): main(['--help'])\n"
        "print(sorted({'gcache.config', 'gcache.commands.flags', 'yaml'} & set(sys.modules)))\n"
    )
    assert python(code).stdout.endswith("\n[]\n")


@pytest.mark.parametrize("command", ["", *commands()])
def test_help_comes_without_torch(command: str) -> None:
    done = asked(*command.split(), "--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"usage: gcache {command}".rstrip())


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "COMMAND"),
        (["guess"], "invalid choice: 'guess'"),
        (["train", "--task", "split_facts", "--no_such_flag"], "unrecognized arguments: --no_such_flag"),
        (["train"], "the following arguments are required: --task"),
        (["eval", "--limit", "many"], "argument --limit: invalid int value: 'many'"),
        (["inspect", "run", "--format", "odt"], "argument --format: invalid choice: 'odt'"),
    ],
)
def test_what_a_command_cannot_be_is_said_without_torch(words: list[str], message: str) -> None:
    done = asked(*words)
    assert done.returncode == 2
    assert message in done.stderr and len(done.stderr.splitlines()) == 1


def test_the_package_names_what_it_has_before_it_imports_it() -> None:
    code = (
        "import gcache, sys\n"
        "assert set(gcache.__all__) <= set(dir(gcache)), dir(gcache)\n"
        "assert 'torch' not in sys.modules\n"
        "from gcache import *\n"
        "assert make_graph is gcache.make_graph and CacheGraph.__name__ == 'CacheGraph' and 'torch' in sys.modules\n"
        "try: gcache.no_such_name\n"
        "except AttributeError as error: assert 'no_such_name' in str(error)\n"
        "else: raise SystemExit('no error')\n"
    )
    done = python(code)
    assert done.returncode == 0, done.stderr


def test_a_type_checker_sees_every_name_of_the_package() -> None:
    tree = ast.parse(Path(gcache.__file__).read_text(encoding="utf-8"))
    (seen,) = [node for node in tree.body if isinstance(node, ast.If)]
    names = {alias.name for node in seen.body if isinstance(node, ast.ImportFrom) for alias in node.names}
    assert ast.unparse(seen.test) == "TYPE_CHECKING" and names == set(gcache.__all__) - {"__version__"}
