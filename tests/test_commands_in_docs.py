"""Every command that README and docs show is one that the command line takes."""

from __future__ import annotations

import argparse
import re
import shlex
from pathlib import Path

import pytest

from gcache.commands.main import COMMANDS, parser

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]


def in_blocks(page: Path) -> list[list[str]]:
    """Commands in blocks of code, over one line or several, and whole table cells, as words."""
    text = re.sub(r"\\\n\s*", "", page.read_text(encoding="utf-8"))
    found = re.findall(r"(?m)^(?:    )?(?:\.venv/bin/)?(gcache .*)$|\| `(gcache [^`]*)` \|$", text)
    lines = (re.sub(r"\s+# .*$|\s*[>&;].*$", "", block or cell) for block, cell in found)
    split = (shlex.split(line.replace("SEED", "0"))[1:] for line in lines if "..." not in line)
    return [words for words in split if words[0] in COMMANDS and "--help" not in words]


def in_sentences(page: Path) -> list[list[str]]:
    """Those in backticks, which may be a part of a command."""
    spans = re.findall(r"`(gcache [^`]+)`", page.read_text(encoding="utf-8"))
    return [words for span in spans if (words := span.split()[1:]) and words[0] in COMMANDS]


def flags_of(command: str) -> set[str]:
    (subparsers,) = [a for a in parser([command])._actions if isinstance(a, argparse._SubParsersAction)]
    return {flag for action in subparsers.choices[command]._actions for flag in action.option_strings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_command_can_be_read(page: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for words in in_blocks(page):
        try:
            parser([words[0]]).parse_args(words)
        except SystemExit:
            pytest.fail(f"{' '.join(words)}: {capsys.readouterr().err}")
    for words in in_sentences(page):
        unknown = {word for word in words[1:] if word.startswith("--")} - flags_of(words[0])
        assert not unknown, " ".join(words)


def test_there_are_some() -> None:
    found = [words[0] for page in PAGES for words in in_blocks(page)]
    assert set(COMMANDS) <= {*found, "fit-router"} and len(found) > 40
