"""Questions in the words of the tiny tokenizer."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from toy import QUESTIONS


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As a GSM8K file."""
    file = tmp_path_factory.mktemp("data") / "questions.jsonl"
    rows = [{"question": question, "answer": "#### 2"} for question in QUESTIONS]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return file
