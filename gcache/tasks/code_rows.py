"""The sources in a row of a programming task, and what they must be for a program to be graded by them."""

from __future__ import annotations

import ast
import keyword
import re

from gcache.errors import DataError
from gcache.tasks.data_fields import Row, find, is_missing, words
from gcache.tasks.future_imports import has_one_out_of_place
from gcache.tasks.idle_tests import asserts_something, takes_one_argument
from gcache.tasks.python_source import parsed
from gcache.tasks.text_lists import listed

#: Characters of tests that are not taken apart when they are read: the plus sets have megabytes of them.
LONG = 50_000
_ASSERTS = re.compile(r"(?m)^[^#\n]*?\b(?:assert|raise)")


def tests_of(row: Row) -> str:
    """The tests of a row of HumanEval.

    Raises:
        DataError: there are none, or they cannot be run, in which case every answer would be wrong.
    """
    if find(row, "test") is None and find(row, "plus_input", "base_input") is not None:
        raise DataError(
            "a row has inputs (base_input, plus_input) but no tests; take the form with the field 'test', such as the "
            "hub's evalplus/humanevalplus"
        )
    test = source_of(row, "test")
    if len(test) > LONG:
        has_check = re.search(r"(?m)^def check\s*\(", test) is not None
    else:
        body = getattr(parsed(test), "body", ())
        has_check = any(isinstance(node, ast.FunctionDef) and node.name == "check" for node in body)
    if not has_check:
        raise DataError(f"the field 'test' must be Python that defines check(candidate), got {test!r:.60}")
    return test


def check_uses(test: str, entry_point: str) -> None:
    """Refuse tests of HumanEval that pass or fail whatever the program is."""
    if not may_fail(test, "check"):
        raise DataError(f"the tests in 'test' assert nothing when check(candidate) is called: {test!r:.60}")
    tree = parsed(test) if len(test) <= LONG else None
    if tree is None:
        return
    check = [node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == "check"][-1]
    if not takes_one_argument(check):
        raise DataError(f"the function check in 'test' must take one argument, got {ast.unparse(check.args)!r:.60}")
    parts = list(ast.walk(check.args))
    given = {entry_point, *(part.arg for part in parts if isinstance(part, ast.arg))}
    if not any(isinstance(part, ast.Name) and part.id in given for part in ast.walk(tree)):
        raise DataError(f"the tests in 'test' never use the program that check is given: {test!r:.60}")


def may_fail(tests: str, called: str | None = None) -> bool:
    """Whether tests assert anything; of long ones, whether they have a word for it."""
    tree = parsed(tests) if len(tests) <= LONG else None
    return asserts_something(tree, called) if tree else _ASSERTS.search(tests) is not None


def entry_point_of(row: Row) -> str:
    """The function that is asked for: by name, or the last that is declared."""
    if find(row, "entry_point") is None and (declared := find(row, "declaration")) is not None:
        names = [line[4:].split("(")[0].strip() for line in str(declared[1]).split("\n") if line.startswith("def ")]
        name = names[-1] if names else ""
    else:
        name = words(row, "entry_point")
    if not name.isidentifier() or keyword.iskeyword(name):
        raise DataError(f"the field 'entry_point' must be the name of a function, got {name!r:.40}")
    return name


def source_of(row: Row, field: str) -> str:
    """A field that holds source: as text, with the indentation that it has."""
    words(row, field)
    found = find(row, field)
    source = str(found[1]).strip("\r\n\ufeff").rstrip() if found else ""
    _check_compiles(field, source)
    return source


def sources_in(row: Row, field: str) -> list[str]:
    """A field that holds pieces of source: a list of them, one alone, or nothing."""
    found = find(row, field)
    value = [] if found is None else listed(found[1], field)
    pieces = [value] if isinstance(value, str) else value
    if not isinstance(pieces, list) or not all(isinstance(piece, str) and not is_missing(piece) for piece in pieces):
        raise DataError(f"the field {field!r} must be a list of texts, got {value!r:.60}")
    for piece in pieces:
        _check_compiles(field, piece)
    return [piece.strip() for piece in pieces]


def _check_compiles(field: str, source: str) -> None:
    if has_one_out_of_place(source):
        raise DataError(f"the field {field!r} has an import from __future__ that is not at its beginning; move it")
