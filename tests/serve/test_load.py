"""The bounded load run, on a service of a tiny model and on answers of a test's own."""

from __future__ import annotations

import asyncio
import json
import os
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from benchmarks.serving import Load, Memory, main, questions, render, run_load


async def test_every_question_is_counted_once_and_no_more_go_at_once() -> None:
    numbers, here, most = count(), 0, 0
    outcomes = ["answered", "refused", "lost", "failed", "answered"] * 4

    async def ask(question: str) -> tuple[str, int]:
        nonlocal here, most
        here += 1
        most = max(most, here)
        await asyncio.sleep(0)
        here -= 1
        return outcomes[next(numbers)], 3

    load = await run_load(questions(20, 0), ask, 4)
    assert (load.answered, load.refused, load.lost, load.failed, load.tokens) == (8, 4, 4, 4, 60)
    assert most == 4 and len(load.latencies) == 8 and load.seconds > 0


def test_the_table_says_the_ratio_and_what_memory_did() -> None:
    alone = Load(1, answered=10, seconds=10.0, latencies=[1.0] * 10)
    together = Load(8, answered=40, refused=2, seconds=10.0, latencies=[float(i) for i in range(1, 41)])
    text = render(alone, together, Memory(100 * 2**20, 110 * 2**20))
    assert "8 at once, to one at a time: 4.00x" in text and "(+10.0%)" in text
    assert "| 8 | 40 | 2 | 0 | 0 | 4.00 |" in text and together.quantile(0.5) == pytest.approx(20.5, abs=0.5)


def test_a_service_is_asked_and_its_numbers_written(
    server: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["--requests", "6", "--concurrency", "3", "--alone", "2", "--max_tokens", "4", "--pid", str(os.getpid())]
    assert main(["--url", server.url, *flags, "--json", str(tmp_path / "load.json")]) == 0
    found = json.loads((tmp_path / "load.json").read_text())
    assert (found["alone"]["answered"], found["together"]["answered"]) == (2, 6)
    assert found["resident_bytes"]["warm"] > 0 and "| 3 | 6 | 0 | 0 | 0 |" in capsys.readouterr().out
