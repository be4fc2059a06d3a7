"""Tests that test nothing: whatever program they are run behind, it passes.

What is looked for is a statement that is run and that may fail: an assert that is not always true, a `raise`, a call
such as `np.testing.assert_allclose`. It is run where it stands at the top, or in a function that something run names.
Where nobody can tell without running (`exec`, a decorator), it counts: only tests that surely assert nothing are
refused.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Sequence

_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
_SCOPES = (*_FUNCTIONS, ast.ClassDef, ast.Lambda)
#: Calls that end a program as a failed assert does, or may run anything.
_ENDS = frozenset(("exit", "_exit", "quit", "abort", "exec", "raises", "main", "fail"))
#: What a handler catches when it catches a failed assert.
_CATCHES = frozenset(("AssertionError", "Exception", "BaseException"))
_LEAVES = (ast.Return, ast.Continue, ast.Break, ast.Raise)


def asserts_something(tree: ast.Module, called: str | None = None) -> bool:
    """Whether a program of tests, run as a module that is imported, may fail by what it asserts.

    Args:
        called: the function that is called behind it with the program as its argument.
    """
    return _Reading(tree).may_fail(called)


def takes_one_argument(function: ast.FunctionDef) -> bool:
    """Whether a function can be called with one argument."""
    given = function.args
    places = [*given.posonlyargs, *given.args]
    needed = len(places) - len(given.defaults)
    needs_names = any(default is None for default in given.kw_defaults)
    return needed <= 1 <= (len(places) or (1 if given.vararg else 0)) and not needs_names


class _Reading:
    """The functions and classes of a program, and what is run of them."""

    def __init__(self, tree: ast.Module) -> None:
        self.top = tree.body
        self.functions: dict[str, list[ast.FunctionDef | ast.AsyncFunctionDef]] = {}
        for node in ast.walk(tree):
            if isinstance(node, _FUNCTIONS):
                self.functions.setdefault(node.name, []).append(node)
        self.named: set[str] = set()  # by what is run
        self.run: set[int] = set()  # functions that have been looked at
        self.found = False

    def may_fail(self, called: str | None) -> bool:
        self._block(self.top, False)
        if called is not None:
            last = [node for node in self.top if isinstance(node, _FUNCTIONS) and node.name == called][-1:]
            for function in last:
                if not _runs_later(function):
                    self.run.add(id(function))
                    self._block(function.body, False)
        grows = True
        while grows and not self.found:
            grows = False
            for name in sorted(self.named & self.functions.keys()):
                for function in self.functions[name]:
                    if id(function) not in self.run:
                        self.run.add(id(function))
                        self._block(function.body, False)
                        grows = True
        return self.found

    def _block(self, body: Iterable[ast.stmt], caught: bool) -> None:
        for node in body:
            self._statement(node, caught)
            if isinstance(node, _LEAVES):
                return  # what stands behind is not run

    def _statement(self, node: ast.stmt, caught: bool) -> None:
        if isinstance(node, _FUNCTIONS):
            self._names([*node.decorator_list, *node.args.defaults], caught)
            if node.decorator_list:
                self.named.add(node.name)  # the decorator may call it
            return
        if isinstance(node, ast.ClassDef):
            self._names([*node.decorator_list, *node.bases], caught)
            self._block([part for part in node.body if not isinstance(part, _FUNCTIONS)], caught)
            return
        if isinstance(node, ast.Expr) and self._starts_nothing(node.value):
            return
        if isinstance(node, (ast.Assert, ast.Raise)) and not caught:
            self.found = self.found or isinstance(node, ast.Raise) or not _is_always_true(node.test)
        if isinstance(node, ast.Try):
            self._try(node, caught)
            return
        if isinstance(node, (ast.If, ast.While)):
            runs, runs_else = _branches(node.test)
            self._names([node.test], caught)
            self._block(node.body if runs else [], caught)
            self._block(node.orelse if runs_else else [], caught)
            return
        if isinstance(node, ast.For) and isinstance(node.iter, (ast.List, ast.Tuple)) and not node.iter.elts:
            self._block(node.orelse, caught)
            return
        if isinstance(node, (ast.With, ast.AsyncWith)):
            caught = caught or any("suppress" in _words(item.context_expr) for item in node.items)
        blocks = [value for _, value in ast.iter_fields(node) if _is_block(value)]
        inner = {id(part) for block in blocks for part in block}
        self._names([part for part in ast.iter_child_nodes(node) if id(part) not in inner], caught)
        for block in blocks:
            self._block(block, caught)
        for case in getattr(node, "cases", ()):
            self._block(case.body, caught)

    def _try(self, node: ast.Try, caught: bool) -> None:
        """What is asserted where a failed assert is caught does nothing. What the handler does then may."""
        self._block(node.body, caught or any(map(_catches_asserts, node.handlers)))
        for handler in node.handlers:
            self._block(handler.body, caught)
        self._block(node.orelse, caught)
        self._block(node.finalbody, caught)

    def _names(self, nodes: Sequence[ast.AST], caught: bool) -> None:
        """What expressions name is run, if it is a function here; some calls may fail by themselves."""
        for node in (part for each in nodes for part in ast.walk(each)):
            name = node.id if isinstance(node, ast.Name) else node.attr if isinstance(node, ast.Attribute) else None
            if isinstance(node, ast.Call) and not caught:
                called = node.func
                word = called.id if isinstance(called, ast.Name) else getattr(called, "attr", "")
                is_own = isinstance(called, ast.Name) and word in self.functions
                self.found |= not is_own and (word in _ENDS or word.lower().startswith("assert"))
            if name is not None and not caught:
                self.named.add(name)

    def _starts_nothing(self, value: ast.expr) -> bool:
        """Whether an expression only makes a generator or a coroutine, whose body nobody runs."""
        if not isinstance(value, ast.Call) or not isinstance(value.func, ast.Name):
            return False
        own = self.functions.get(value.func.id, [])
        return bool(own) and all(map(_runs_later, own))


def _runs_later(function: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    """Whether a call of a function runs none of its body."""
    parts: list[ast.AST] = list(function.body)
    while parts:
        part = parts.pop()
        if isinstance(part, (ast.Yield, ast.YieldFrom)):
            return True
        if not isinstance(part, _SCOPES):
            parts += ast.iter_child_nodes(part)
    return isinstance(function, ast.AsyncFunctionDef)


def _is_always_true(test: ast.expr) -> bool:
    """Whether a condition cannot fail: a tuple, a text, or nothing but constants."""
    if isinstance(test, (ast.Tuple, ast.List, ast.Set)):
        return bool(test.elts)
    if isinstance(test, ast.Dict):
        return bool(test.keys)
    if isinstance(test, ast.Constant):
        return bool(test.value)
    if isinstance(test, (ast.Lambda, ast.JoinedStr, ast.GeneratorExp)):
        return True
    return not any(isinstance(part, ast.Name) for part in ast.walk(test))


def _branches(test: ast.expr) -> tuple[bool, bool]:
    """Whether the body of an `if` or `while` may run, and what stands under its `else`."""
    if isinstance(test, ast.Constant):
        return bool(test.value), not test.value
    if isinstance(test, ast.Compare) and len(test.ops) == 1:
        sides = [test.left, test.comparators[0]]
        names = any(isinstance(side, ast.Name) and side.id == "__name__" for side in sides)
        main = any(isinstance(side, ast.Constant) and side.value == "__main__" for side in sides)
        if names and main:
            return isinstance(test.ops[0], ast.NotEq), isinstance(test.ops[0], ast.Eq)
    return True, True


def _catches_asserts(handler: ast.ExceptHandler) -> bool:
    kinds = handler.type.elts if isinstance(handler.type, ast.Tuple) else [handler.type]
    return any(kind is None or (isinstance(kind, ast.Name) and kind.id in _CATCHES) for kind in kinds)


def _words(node: ast.AST) -> set[str]:
    """Names and names of attributes."""
    parts = list(ast.walk(node))
    return {getattr(part, "id", None) or getattr(part, "attr", None) or "" for part in parts}


def _is_block(value: object) -> bool:
    return isinstance(value, list) and bool(value) and isinstance(value[0], ast.stmt)
