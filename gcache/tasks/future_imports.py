"""Imports from `__future__`, which Python allows at the beginning of a source alone.

Where sources are put together, all but the first have theirs in the middle, so these are moved. That is for what we
put in front of them. A source whose author has put something in front of them does not compile, and must not be made
to: it is left as it is, and fails.
"""

from __future__ import annotations

import ast
from collections.abc import Sequence

from gcache.tasks.python_source import BUILTINS, Statement, statements, statements_of_pieces

_NAME = "__future__"


def out_of_place(several: Sequence[Statement], among_words: bool = False) -> bool:
    """Whether an import from `__future__` stands behind another statement than the docstring, or inside of one.

    Args:
        among_words: whether words may stand around the source, some of which are Python by chance ("Sure").
    """
    begun = False
    bound: set[str] = set()
    for at, each in enumerate(several):
        if each.is_future:
            if begun:
                return True
        elif _holds_one(each.node):
            return True
        elif not (at == 0 and _is_text(each.node)) and not (among_words and _is_words(each, bound)):
            begun = True
        bound |= each.binds
    return False


def has_one_out_of_place(source: str) -> bool:
    """The same of a source, of which only parts may be Python."""
    if _NAME not in source:
        return False  # most have none, and tests may be megabytes
    several = statements(source)
    return out_of_place(statements_of_pieces(source), True) if several is None else out_of_place(several)


def futures_first(several: Sequence[Statement]) -> str:
    """The statements as one source. Those of each source in it must be in place."""
    return "\n".join(each.source for each in sorted(several, key=lambda each: not each.is_future))


def put_together(*sources: str) -> str:
    """Sources, each with its imports from `__future__` in place, as one; those that are no Python just follow."""
    if not any(_NAME in source for source in sources[1:]):
        return "\n".join(sources)
    read = [statements(source) for source in sources]
    if None in read:
        return "\n".join(sources)
    return futures_first([each for several in read for each in several or ()])


def _holds_one(node: ast.stmt) -> bool:
    return any(isinstance(part, ast.ImportFrom) and part.module == _NAME for part in ast.walk(node))


def _is_text(node: ast.stmt) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


def _is_words(each: Statement, bound: set[str]) -> bool:
    """Whether a statement does nothing, with names that nothing has."""
    does_nothing = isinstance(each.node, (ast.Expr, ast.AnnAssign)) and not each.binds
    return does_nothing and not each.needs & (BUILTINS | bound)
