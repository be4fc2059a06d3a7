from __future__ import annotations

from pathlib import Path

import pytest
from asking import alone


@pytest.fixture(autouse=True)
def no_surroundings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Neither variables nor a file of settings of whoever runs the tests."""
    alone(monkeypatch)
    monkeypatch.chdir(tmp_path)
