"""Half a surrogate pair, in a question, a note or an answer: one line, or written as an escape, never a traceback."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from toy import ToyTask, toy_built

from gcache.errors import DataError
from gcache.files import write_json, write_text
from gcache.tasks.example import Example, Note

if TYPE_CHECKING:
    from gcache.llm.local import LocalLLM


NOTED = Example("q", "how", "3", (Note("a", "b", "\ud800"),))


@pytest.mark.parametrize("example", ["how \ud83d many ?", Example("q", "how many ? \udc00", "3"), NOTED])
def test_a_question_is_refused(tiny_llm: LocalLLM, tiny_tokenizer: Any, example: Any) -> None:
    graph = toy_built(tiny_llm, tiny_tokenizer, topology="full").graph
    for call in (graph.run, graph.topology):
        with pytest.raises(DataError, match="holds half a character") as caught:
            call(example)
        str(caught.value).encode("utf-8")
        assert len(str(caught.value).splitlines()) == 1


def test_the_command_says_so(model_folder: Path) -> None:
    question = os.fsencode("how many ?") + b"\xff"  # bytes of another encoding, as a shell hands them over
    done = subprocess.run(
        [sys.executable, "-m", "gcache.commands.main", "run", question, "--llm_name", str(model_folder)],
        capture_output=True, text=True, check=False, encoding="utf-8",
    )  # fmt: skip
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert "holds half a character" in done.stderr.splitlines()[-1]


def test_what_a_model_or_a_server_wrote_is_graded_and_kept(tmp_path: Path) -> None:
    assert ToyTask().grade("3 \ud83d", Example("q", "how many ?", "3")).outcome == "right"
    write_text(tmp_path / "text", "3 \ud83d")
    write_json(tmp_path / "json", {"text": "3 \ud83d"})
    assert (tmp_path / "text").read_text(encoding="utf-8") == "3 \\ud83d"
    assert "\\ud83d" in (tmp_path / "json").read_text(encoding="utf-8")
