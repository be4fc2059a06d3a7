"""Code blocks of a text: fenced ones as Markdown and models write them, and indented ones.

Fences are those of CommonMark (spec.commonmark.org, fenced code blocks), in lists and quotes too. Beyond
it, a fence may begin behind words or end behind code, and one with a language ends the one before it.
Without a fence, `<pre>` elements and interactive sessions are blocks.
"""

from __future__ import annotations

import html
import re
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass, replace

_MARKERS = re.compile(r"(?:[ \t]|>|[-*+][ \t]|\d{1,9}[.)][ \t])*")
_FENCE = re.compile(r"(?P<fence>`{3,}|~{3,})[ \t]*(?P<info>[^`\n]*)$")
_BEHIND_WORDS = re.compile(
    r"[^`]*\S[ \t]*(?P<fence>`{3,})[ \t]*(?P<info>[\w+#.-]+)[ \t]*$|[^`]*:[ \t]*(?P<bare>`{3,})[ \t]*$"
)
_BEHIND_CODE = re.compile(r"(?P<code>.*[^`\s])[ \t]*(?P<fence>`{3,})[ \t]*$")
_ON_ONE_LINE = re.compile(
    r"[ \t]*(`{3,})(?:(?:python|py)\d?[ \t]+)?(?P<code>[^`]*[^`\s])[ \t]*\1[ \t]*$", re.IGNORECASE
)
_MOST_ELEMENTS = 50
_PYTHON = re.compile(r"\{?\.?(?:i?python|py|pycon)[\d.]*\b", re.IGNORECASE)


@dataclass(frozen=True)
class Block:
    """A piece of a text that may be code.

    Attributes:
        code: its lines, without the indentation of the fence; it ends with a line break.
        language: what stands behind the fence; None for a piece without a fence.
    """

    code: str
    language: str | None

    @property
    def is_python(self) -> bool:
        """Whether it says so of itself."""
        return self.language is not None and _PYTHON.match(self.language) is not None


@dataclass
class _Open:
    fence: str
    language: str
    indent: int
    quoted: bool
    lines: list[str]

    def block(self) -> Block:
        return Block("\n".join(self.lines).rstrip() + "\n", self.language)


def fenced(text: str) -> tuple[list[Block], str]:
    """The fenced blocks of a text, the last perhaps without an end, and the text without them."""
    blocks, outside, now = _walked(text)
    if now is not None:
        blocks.append(now.block())
    return [block for block in blocks if block.code.strip()], outside


class OpenBlock:
    """Whether a text that grows ends in a fenced block; only lines that have a fence are read."""

    def __init__(self) -> None:
        self._now: _Open | None = None
        self._line: list[str] = []  # the last line, in pieces
        self._end = ""  # its last two characters, with which a fence may begin
        self._has_fence = False  # the last line

    def add(self, text: str) -> None:
        """The text goes on."""
        line, *rest = text.split("\n")
        self._extend(line)
        for line in rest:
            self._now = self._behind(self._line)
            self._line, self._end, self._has_fence = [], "", False
            self._extend(line)

    def is_open(self, blanks: str = "") -> bool:
        """Whether what comes next, after some blanks, stands in a block."""
        return self._behind([*self._line, blanks.partition("\n")[0]]) is not None

    def _extend(self, line: str) -> None:
        self._line.append(line)
        end = self._end + line
        self._has_fence = self._has_fence or "```" in end or "~~~" in end
        self._end = end[-2:]

    def _behind(self, line: Sequence[str]) -> _Open | None:
        """The block that is open where the last line has ended."""
        if not self._has_fence:
            return self._now
        now = None if self._now is None else replace(self._now, lines=[])
        return _step(now, "".join(line))[0]


def _walked(text: str) -> tuple[list[Block], str, _Open | None]:
    """The blocks of a text that have ended, the text without any, and the block that has not."""
    blocks: list[Block] = []
    outside: list[str] = []
    now: _Open | None = None
    for line in text.split("\n"):
        now, ended, left = _step(now, line)
        blocks += [] if ended is None else [ended]
        outside += [] if left is None else [left]
    return blocks, "\n".join(outside), now


def _step(now: _Open | None, line: str) -> tuple[_Open | None, Block | None, str | None]:
    """Read a line: the block that is open behind it, the one that has ended with it, and what it leaves outside."""
    alone = _ON_ONE_LINE.match(line)
    if now is None and alone is not None:
        return None, Block(alone["code"] + "\n", ""), ""
    opening = _opening(line)
    if now is None:
        return opening, None, line if opening is None else ""
    if opening is not None and opening.language and _ends(now, opening.fence, opening.indent):
        return opening, now.block(), None  # no end, but another one begins
    return (None, now.block(), None) if _read(now, line) else (now, None, None)


def indented(text: str) -> list[Block]:
    """The runs of indented lines of a text."""
    runs = re.findall(r"(?m)(?:^(?: {4}|\t).*\n?(?:^[ \t]*\n)*)+", text)
    return [Block(textwrap.dedent(run).rstrip() + "\n", None) for run in runs]


def preformatted(text: str) -> list[Block]:
    """The `<pre>` elements of a text, without their tags and entities."""
    found = []
    for part in re.split(r"(?i)<pre\b[^>\n]{0,200}>", text)[1:]:
        inside, end, _ = re.sub(r"(?i)</pre>", "</pre>", part).partition("</pre>")
        inside = re.sub(r"(?i)^\s{0,9}<code\b[^>\n]{0,200}>|</code>\s{0,9}$", "", inside)
        if end:
            found.append(Block(html.unescape(inside).strip("\n") + "\n", None))
    return found[:_MOST_ELEMENTS]


def sessions(text: str) -> list[Block]:
    """What is typed in an interactive session that a text shows without a fence, where it defines something."""
    lines = re.findall(r"(?m)^[ \t]*(?:>>>|\.\.\.)(?: .*)?$", text)
    defines = any(re.match(r"[ \t]*>>> (?:async def|def|class|@|\w+ = lambda)\b", line) for line in lines)
    return [Block("\n".join(lines) + "\n", None)] if defines else []


def _opening(line: str) -> _Open | None:
    prefix = _MARKERS.match(line)
    assert prefix is not None  # it matches the empty string
    found = _FENCE.match(line, prefix.end())
    if found:
        width = len(prefix.group().replace(">", "").expandtabs(4))
        return _Open(found["fence"], found["info"].strip(), width, ">" in prefix.group(), [])
    behind = _BEHIND_WORDS.match(line)
    return _Open(behind["fence"] or behind["bare"], behind["info"] or "", 0, False, []) if behind else None


def _ends(now: _Open, fence: str, indent: int) -> bool:
    """Whether a fence ends a block: of the same kind, as long, and not indented as code would be."""
    return fence[0] == now.fence[0] and len(fence) >= len(now.fence) and indent <= now.indent + 3


def _read(now: _Open, line: str) -> bool:
    """Add a line to an open block; whether it was the last."""
    if now.quoted:
        line = re.sub(r"^[ \t]*(?:>[ ]?)+", "", line)
    bare = line.strip()
    indent = len(line.expandtabs(4)) - len(line.expandtabs(4).lstrip())
    if set(bare) in ({"`"}, {"~"}) and _ends(now, bare, indent):
        return True
    glued = _BEHIND_CODE.match(line)
    last = glued is not None and _ends(now, glued["fence"], 0)
    if glued is not None and last:
        line = glued["code"]
    now.lines.append(_without_indent(line, now.indent))
    return last


def _without_indent(line: str, columns: int) -> str:
    """The line without so many columns of white space at its beginning, or as many as it has."""
    at = column = 0
    while column < columns and line[at : at + 1] in (" ", "\t"):
        column += 1 if line[at] == " " else 4 - column % 4
        at += 1
    return line[at:]
