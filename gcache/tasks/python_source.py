"""Top-level statements of Python source: what each binds, what it needs, and which of them a name needs.

The parts of a text that define a function are to be run without those that only show how it is used:
input, tests of its own, a call that prints. What is a name's is found as Python finds it (`symtable`).
"""

from __future__ import annotations

import ast
import builtins
import symtable
import threading
import warnings
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass

BUILTINS = frozenset(dir(builtins))
#: Calls of a program that talks to a user or tests itself.
TALKS = {"input", "exit", "quit", "breakpoint", "help"}
TESTS = {("sys", "exit"), ("sys", "stdin"), ("unittest", "main"), ("pytest", "main"), ("doctest", "testmod")}
#: Settings of the whole process, which count without any name that is needed.
SETTINGS = {"setrecursionlimit", "set_int_max_str_digits", "stack_size"}
#: Names may be looked up by these without being written.
DYNAMIC = {"eval", "exec", "globals", "vars", "locals"}
DEFINITIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
IMPORTS = (ast.Import, ast.ImportFrom)
#: How many pieces that do not parse alone may have to be put together to one that does.
PIECES = 40

_warnings = threading.Lock()  # the list of filters is the whole process's


@dataclass(frozen=True, eq=False)
class Statement:
    """A top-level statement.

    Attributes:
        source: its text.
        binds: names of the module that it may set, inside functions too.
        needs: names of the module or builtins that it may look up, inside functions too.
        at_once: those of `needs` that it looks up when it runs, not only when a function is called.
        changes: names of objects whose attributes or items it sets.
    """

    source: str
    node: ast.stmt
    binds: frozenset[str]
    needs: frozenset[str]
    at_once: frozenset[str]
    changes: frozenset[str]

    @property
    def is_definition(self) -> bool:
        return isinstance(self.node, DEFINITIONS)

    @property
    def is_import(self) -> bool:
        return isinstance(self.node, IMPORTS)

    @property
    def is_future(self) -> bool:
        return isinstance(self.node, ast.ImportFrom) and self.node.module == "__future__"

    def defines(self, name: str) -> bool:
        """Whether it sets a name to something of its own: not to an import or to what it was before, changed."""
        return name in self.binds and not self.is_import and name not in self.at_once

    @property
    def defines_something(self) -> bool:
        """Whether it is a definition, or sets a name, with a body."""
        return bool(self.binds) and not self.is_import and not self.is_stub

    @property
    def is_stub(self) -> bool:
        """Whether it defines something without a body: `...`, `pass`, a docstring, `raise NotImplementedError`."""
        if isinstance(self.node, DEFINITIONS):
            return all(_is_empty(part) for part in self.node.body)
        if isinstance(self.node, (ast.Assign, ast.AnnAssign)):  # add = None, add = lambda a, b: ...
            value = self.node.value
            value = value.body if isinstance(value, ast.Lambda) else value
            return isinstance(value, ast.Constant) and value.value in (None, ...)
        return False


def parsed(source: str) -> ast.Module | None:
    """The tree of a source; None where it is no Python."""
    with _warnings, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # on what a model wrote, of its escapes for example
        try:
            return ast.parse(source)
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            return None


def statements(source: str) -> list[Statement] | None:
    """The top-level statements of a source; None where it is no Python."""
    tree = parsed(source)
    if tree is None:
        return None
    lines = source.encode("utf-8").split(b"\n")
    return [_statement(_text(node, lines), node) for node in tree.body]


def statements_of_pieces(source: str) -> list[Statement]:
    """The statements of a source of which only parts are Python: words, output or a broken end between them."""
    found: list[Statement] = []
    pieces = list(_pieces(source))
    at = 0
    while at < len(pieces):
        most = at + PIECES if _begins_code(pieces[at]) else at + 1
        for end in range(at + 1, min(most, len(pieces)) + 1):
            several = statements("\n".join(pieces[at:end]))
            if several is not None:
                found += several
                at = end - 1
                break
        at += 1
    return found


def needed(pool: Sequence[Statement], names: Iterable[str], entry_points: Iterable[str]) -> list[Statement]:
    """Those of the statements, in order, that the names need, without usage of the entry points."""
    entries = set(entry_points)
    wanted = set(names) | entries
    usage = _usage(pool, entries, _that_set(pool, wanted))
    bound = {name for each in pool for name in each.binds} | BUILTINS
    reach = {each: each.needs | {n for other in _that_set(pool, each.needs) for n in other.needs} for each in pool}
    kept: set[int] = set()
    grows = True
    while grows:
        grows = False
        everything = bool(wanted & DYNAMIC)
        set_by_kept = {name for at in kept for name in pool[at].binds}
        for at, each in enumerate(pool):
            if at in kept:
                continue
            counts = each.binds & wanted or each.changes & wanted or each.is_future or "*" in each.binds
            counts = counts or (everything and each.binds and each not in usage)
            counts = counts or (each not in usage and _matters(each, reach[each], set_by_kept) and each.needs <= bound)
            if counts:
                kept.add(at)
                wanted |= each.needs
                grows = True
    return [each for at, each in enumerate(pool) if at in kept]


def names_of(source: str) -> tuple[frozenset[str], frozenset[str]] | None:
    """The names that a source sets, and those that it looks up without setting them, builtins apart."""
    several = statements(source)
    if several is None:
        return None
    binds = frozenset(name for each in several for name in each.binds)
    return binds, frozenset(name for each in several for name in each.needs) - binds - BUILTINS


def _is_empty(node: ast.stmt) -> bool:
    """Whether a statement of a body does nothing, or only says that it is still to be written."""
    if isinstance(node, DEFINITIONS):  # the methods of a class
        return all(_is_empty(part) for part in node.body)
    if isinstance(node, ast.Raise):
        raised = node.exc.func if isinstance(node.exc, ast.Call) else node.exc
        return isinstance(raised, ast.Name) and raised.id == "NotImplementedError"
    if isinstance(node, ast.Return):
        return (isinstance(node.value, ast.Constant) and node.value.value is ...) or (
            isinstance(node.value, ast.Name) and node.value.id == "NotImplemented"
        )
    return isinstance(node, ast.Pass) or (
        isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Constant)
        and (node.value.value is ... or isinstance(node.value.value, str))
    )


def _matters(each: Statement, reach: Collection[str], set_by_kept: set[str]) -> bool:
    """Whether a statement that binds nothing needed may change something that is, by what it calls."""
    if each.is_definition or each.is_import or not any(isinstance(node, ast.Call) for node in ast.walk(each.node)):
        return False
    return not set_by_kept.isdisjoint(reach) or bool(_words(each.node) & SETTINGS)


def _that_set(pool: Sequence[Statement], names: Iterable[str]) -> set[Statement]:
    """The statements that set the names, or what those need."""
    found: set[Statement] = set()
    wanted, before = set(names), -1
    while len(found) > before:
        before = len(found)
        found |= {each for each in pool if each.binds & wanted}
        wanted |= {name for each in found for name in each.needs}
    return found


def _usage(pool: Sequence[Statement], entries: set[str], core: set[Statement]) -> set[Statement]:
    """Statements outside of the core that use the entry points, talk to a user or test something, directly or
    through a function."""
    shows = entries | TALKS
    found: set[Statement] = set()
    grows = True
    while grows:
        grows = False
        for each in pool:
            if each in found or each in core or each.is_import:
                continue
            if each.needs & shows or _tests(each.node):
                found.add(each)
                shows |= each.binds
                grows = True
    return found


def _tests(node: ast.stmt) -> bool:
    if isinstance(node, (ast.Assert, ast.Raise)):
        return True
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call) and _words(node.value.func) == {"print"}:
        return True
    if isinstance(node, ast.If) and not node.orelse and "__name__" in _words(node.test):
        return True
    return any(
        isinstance(part, ast.Attribute) and isinstance(part.value, ast.Name) and (part.value.id, part.attr) in TESTS
        for part in ast.walk(node)
    )


def _words(node: ast.AST) -> set[str]:
    """Names and names of attributes."""
    parts = list(ast.walk(node))
    return {part.id for part in parts if isinstance(part, ast.Name)} | {
        part.attr for part in parts if isinstance(part, ast.Attribute)
    }


def _statement(source: str, node: ast.stmt) -> Statement:
    stars = isinstance(node, ast.ImportFrom) and any(alias.name == "*" for alias in node.names)
    changes = frozenset(_changed(node))
    try:
        with _warnings, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            top = symtable.symtable(source, "program", "exec")
    except (SyntaxError, ValueError, RecursionError, MemoryError):  # a return outside of a function, for example
        names = frozenset(part.id for part in ast.walk(node) if isinstance(part, ast.Name))
        return Statement(source, node, frozenset(), names, names, changes)
    declared = isinstance(node, ast.AnnAssign) and node.value is None
    binds = {s.get_name() for s in top.get_symbols() if (s.is_assigned() and not declared) or s.is_imported()}
    at_once = {s.get_name() for s in top.get_symbols() if s.is_referenced()}
    needs = set(at_once)
    for table in _below(top):
        for symbol in table.get_symbols():
            if symbol.is_global():
                needs.add(symbol.get_name())
                if symbol.is_assigned() and symbol.is_declared_global():
                    binds.add(symbol.get_name())
    binds |= {"*"} if stars else set()
    return Statement(source, node, frozenset(binds), frozenset(needs), frozenset(at_once), changes)


def _below(table: symtable.SymbolTable) -> Iterator[symtable.SymbolTable]:
    below = list(table.get_children())
    while below:
        each = below.pop()
        yield each
        below += each.get_children()


def _changed(node: ast.stmt) -> Iterator[str]:
    """Objects that get an attribute or an item, or that register a function by a decorator."""
    parts: list[ast.AST] = []
    if isinstance(node, DEFINITIONS):
        parts += [part for decorator in node.decorator_list for part in ast.walk(decorator)]
    else:
        parts += [
            part
            for part in ast.walk(node)
            if isinstance(part, (ast.Attribute, ast.Subscript)) and not isinstance(part.ctx, ast.Load)
        ]
    for part in parts:
        while isinstance(part, (ast.Attribute, ast.Subscript)):
            part = part.value
            if isinstance(part, ast.Name):
                yield part.id


def _text(node: ast.stmt, lines: list[bytes]) -> str:
    first, column = node.lineno, node.col_offset
    for decorator in getattr(node, "decorator_list", ()):
        if decorator.lineno < first:
            first, column = decorator.lineno, 0
    end, end_column = node.end_lineno or first, node.end_col_offset or 0
    part = lines[first - 1 : end]
    part[-1] = part[-1][:end_column]
    part[0] = part[0][column:]
    return b"\n".join(part).decode("utf-8") + "\n"


_GOES_ON = (" ", "\t", ")", "]", "}", "else", "elif", "except", "finally")
_BEGINS = ("def ", "class ", "async ", "import ", "from ", "@", "if ", "for ", "while ", "with ", "try")


def _pieces(source: str) -> Iterator[str]:
    """The source cut before every line that may begin a statement."""
    piece: list[str] = []
    for line in source.split("\n"):
        decorated = bool(piece) and all(each.startswith("@") for each in piece)
        if piece and line.strip() and not line.startswith(_GOES_ON) and not decorated:
            yield "\n".join(piece)
            piece = []
        piece.append(line)
    if piece:
        yield "\n".join(piece)


def _begins_code(piece: str) -> bool:
    first = piece.split("\n", 1)[0]
    return first.startswith(_BEGINS) or first.rstrip().endswith(("=", "(", "[", "{", '"""', "'''", "\\"))
