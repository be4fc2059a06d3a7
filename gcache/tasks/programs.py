"""Finding the program in a text.

It is the last block that defines an entry point with a body, as `ast` sees it, with what that needs from the other
blocks, and without what only shows how it is used or tests it. Without any fence, the parts of the text
that are Python are read in the same way. A block may also be the body alone, which continues the prompt.
"""

from __future__ import annotations

import ast
import re
import textwrap
from collections.abc import Callable, Collection, Iterator, Sequence

from gcache.tasks.fences import Block, fenced, indented, preformatted, sessions
from gcache.tasks.future_imports import futures_first, out_of_place
from gcache.tasks.python_source import Statement, needed, parsed, statements, statements_of_pieces

UNREADABLE = "\N{REPLACEMENT CHARACTER}"


def extract_code(
    text: str, entry_points: Sequence[str] = (), prompt: str = "", names: Collection[str] = ()
) -> str | None:
    """The program of a text, or None where there is none.

    Args:
        entry_points: what it must define. Without any, the program is the last fenced block that is
            Python, or the whole text where it is Python that defines a function.
        prompt: the beginning of a program, whose imports and helpers the text's may use, and which the
            text may continue.
        names: what else the tests use of it, if it is there.

    Returns:
        Source; it is no Python where the text holds a program that is none.
    """
    text = readable(text)
    blocks, outside = fenced(text)
    if not entry_points:
        return _last_python(blocks, text)
    given = statements(prompt) or statements_of_pieces(prompt)
    helpers = [each for each in given if not each.binds & set(entry_points)]
    bare = [*sessions(outside), *preformatted(outside), Block(outside, None), *indented(outside)]
    for unfenced, candidates in ((False, blocks), (True, bare)):
        late = [_is_late(block) for block in candidates]
        if unfenced and any(late):
            break  # all of them are the same text, in several readings
        compiling = [block for block, is_late in zip(candidates, late, strict=True) if not is_late]
        read = _without_stubs([_read(block.code) for block in compiling])
        base, written = _last_that_defines(read, entry_points)
        if not written:
            for block in reversed(compiling):
                for body in _continued(prompt, block.code, entry_points, strict=unfenced):
                    return _source(helpers, needed(body, names, entry_points))
        if base is not None and (written or unfenced or not _written_outside(outside, entry_points)):
            return _source(helpers, needed(_pool(read, base, entry_points), names, entry_points))
    return _broken(blocks, bare, outside, entry_points)


def readable(text: str) -> str:
    """The text with one kind of line break; what no Python source may hold (NUL, half a surrogate pair) is marked."""
    text = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    text = re.sub(r"(?m)^\ufeff", "", text)
    return text.replace("\r\n", "\n").replace("\r", "\n").replace("\0", UNREADABLE)


def _read(code: str) -> list[Statement]:
    """The statements of a block: it may be indented, or an interactive session, or Python in parts."""
    if _is_session(code):
        code = _typed(code)
    return statements(code) or statements(textwrap.dedent(code)) or statements_of_pieces(code)


def _is_late(block: Block) -> bool:
    """Whether a block has an import from `__future__` where Python refuses it. A session is compiled line by line."""
    if "__future__" not in block.code or _is_session(block.code):
        return False
    among_words = block.language is None or parsed(textwrap.dedent(block.code)) is None
    return out_of_place(_read(block.code), among_words)


def _is_session(code: str) -> bool:
    return code.lstrip().startswith(">>>")


def _typed(code: str) -> str:
    """What is typed in an interactive session."""
    typed = re.findall(r"(?m)^[ \t]*(?:>>>|\.\.\.)(?: (.*)|[ \t]*)$", code)
    return "\n".join(typed) + "\n"


def _last_that_defines(read: Sequence[Sequence[Statement]], names: Sequence[str]) -> tuple[int | None, bool]:
    """The last block that defines one of the names, else the last that imports one, else the last with the beginning
    of one that has no body; and whether it is more than that."""
    tests: tuple[Callable[[Statement, str], bool], ...] = (
        lambda each, name: each.defines(name) and not each.is_stub,
        lambda each, name: name in each.binds and not each.is_stub,
        lambda each, name: name in each.binds,
    )
    for defines in tests:
        for at in reversed(range(len(read))):
            if any(defines(each, name) for each in read[at] for name in names):
                return at, defines is not tests[-1]
    return None, False


def _without_stubs(read: Sequence[Sequence[Statement]]) -> list[list[Statement]]:
    """The statements without the definitions that have no body in one block and one in another."""
    written = [{n for each in block if each.defines_something for n in each.binds} for block in read]
    kept = []
    for at, block in enumerate(read):
        others: set[str] = set().union(*written[:at], *written[at + 1 :])
        kept.append([each for each in block if not (each.is_definition and each.is_stub and each.binds <= others)])
    return kept


def _written_outside(outside: str, names: Sequence[str]) -> bool:
    """Whether the text defines one of the names, with a body, outside of its blocks."""
    return any(each.defines(name) and not each.is_stub for each in _read(outside) for name in names)


def _pool(read: Sequence[Sequence[Statement]], base: int, names: Sequence[str]) -> list[Statement]:
    """The statements to choose from: a block's own, and before them the others' that set other names."""
    own = list(read[base])
    defined = {name for name in names if any(each.defines(name) for each in own)}
    own = [each for each in own if not (each.is_import and each.binds & defined)]  # of a file that is not there
    bound = {name for each in own for name in each.binds} | defined
    before: list[Statement] = []
    for block in read[:base]:
        for each in block:
            if not each.binds & defined and (each.binds - bound or not each.binds or each.is_future):
                before.append(each)
    bound |= {name for each in before for name in each.binds}
    for block in read[base + 1 :]:
        before += [each for each in block if (each.is_definition or each.is_import) and each.binds - bound]
    return before + own


def _continued(prompt: str, code: str, names: Sequence[str], strict: bool) -> Iterator[list[Statement]]:
    """The statements of the prompt with the code as the rest of its last function, where that is what it is."""
    if not prompt.strip() or not code.strip():
        return
    dedented = textwrap.dedent(code)
    first_moved = "    " + code.lstrip()  # behind a prompt that ends in the indentation
    if strict and not code.lstrip("\n").startswith((" ", "\t")) and parsed(dedented) is None:
        return  # words
    for body in (code, textwrap.indent(dedented, "    "), first_moved):
        whole = prompt.rstrip(" \t") + ("" if prompt.rstrip(" \t").endswith("\n") else "\n") + body
        several = statements(whole) or statements_of_pieces(whole)
        if out_of_place(several, among_words=True):
            continue  # Python refuses it so far down
        if any(_returns(each.node) for each in several if not each.is_definition):
            continue  # the rest of the function stands outside of it
        written = [each for each in several if each.is_definition and not each.is_stub and each.binds & set(names)]
        if any(_returns(each.node) for each in written):
            yield several


def _returns(statement: ast.stmt) -> bool:
    """Whether a statement has a return or a yield, apart from those of functions in it."""
    parts: list[ast.AST] = list(ast.iter_child_nodes(statement))
    if isinstance(statement, ast.Return):
        return True
    while parts:
        part = parts.pop()
        if isinstance(part, (ast.Return, ast.Yield, ast.YieldFrom)):
            return True
        if not isinstance(part, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda)):
            parts += ast.iter_child_nodes(part)
    return False


def _source(helpers: Sequence[Statement], rest: Sequence[Statement]) -> str:
    return futures_first([*helpers, *rest])


def _broken(blocks: Sequence[Block], bare: Sequence[Block], outside: str, names: Sequence[str]) -> str | None:
    """A program that cannot be right: it defines something else, or it is no Python."""
    for block in reversed(blocks):
        several = statements(block.code) or statements(textwrap.dedent(block.code))
        if several is None and (block.is_python or re.search(r"(?m)^[ \t]*(?:async +)?(?:def|class) ", block.code)):
            return block.code
        if _is_late(block) or (several is not None and any(each.is_definition for each in several)):
            return block.code
    for block in bare:
        if _is_late(block):
            return block.code  # from its beginning: what stands behind the import may compile alone
    for name in names:
        begun = re.search(rf"(?m)^(?:async +)?(?:def|class) +{re.escape(name)}\b", outside)
        if begun:
            return outside[begun.start() :]
    return None


def _last_python(blocks: Sequence[Block], text: str) -> str | None:
    for block in reversed(blocks):
        if parsed(block.code) is not None:
            return block.code
    if blocks:
        return blocks[-1].code
    several = statements(text)
    return text if several and any(each.is_definition for each in several) else None
