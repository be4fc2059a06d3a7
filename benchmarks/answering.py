"""How long it takes to answer many questions: one prompt each, `LocalLLM.generate`, greedy texts in full batches.

    python -m benchmarks --only answering --models MODEL.gguf --data test.jsonl --questions 50 --max_new_tokens 250

A long run of ours alone. Rows whose text has ended are taken by the next questions.
"""

from __future__ import annotations

from typing import Any

from benchmarks.setting import Bench
from benchmarks.timing import timed
from gcache.llm.requests import GenerateRequest, Generation

WARM_UP_TOKENS = 2


def measure(bench: Bench) -> dict[str, Any]:
    """Seconds, tokens and right answers, one figure per repeat."""
    _answer(bench, 1, WARM_UP_TOKENS)
    rounds = [
        timed(lambda: _answer(bench, len(bench.examples), bench.settings.max_new_tokens))
        for _ in range(bench.settings.repeats)
    ]
    seconds = [taken for taken, _ in rounds]
    generated = [sum(len(text.tokens) for text in texts) for _, texts in rounds]
    return {
        "reference": "none, ours alone",
        "batch": bench.settings.batch,
        "max_new_tokens": bench.settings.max_new_tokens,
        "prompt_tokens": [len(prompt) for prompt in bench.prompts()],
        "seconds": seconds,
        "generated": generated,
        "tokens_per_second": [count / taken for count, taken in zip(generated, seconds, strict=True)],
        "cut_off": [sum(not text.finished for text in texts) for _, texts in rounds],
        "right": [_right(bench, texts) for _, texts in rounds],
        "texts": [text.text for text in rounds[0][1]],
    }


def _answer(bench: Bench, count: int, longest: int) -> list[Generation]:
    prompts = bench.prompts()[:count]
    return bench.llm.generate([GenerateRequest(prompt, max_new_tokens=longest) for prompt in prompts])


def _right(bench: Bench, texts: list[Generation]) -> int:
    grades = [bench.questions.task.grade(text.text, e) for text, e in zip(texts, bench.examples, strict=True)]
    return sum(grade.outcome == "right" for grade in grades)
