"""Prompts whose greedy texts are long, so that every row of a batch stays busy for all that is timed."""

from __future__ import annotations

from benchmarks.setting import Bench
from gcache.errors import ConfigError
from gcache.llm.requests import GenerateRequest

Tokens = tuple[int, ...]


def long_texts(bench: Bench, count: int, tokens: int) -> list[Tokens]:
    """`count` prompts behind which the model writes `tokens` tokens or more; repeated where there are fewer.

    Raises:
        ConfigError: there is none.
    """
    prompts, batch, found = bench.prompts(), bench.settings.batch, list[Tokens]()
    for first in range(0, len(prompts), batch):
        some = prompts[first : first + batch]
        written = bench.llm.generate([GenerateRequest(prompt, max_new_tokens=tokens) for prompt in some])
        found += [prompt for prompt, text in zip(some, written, strict=True) if len(text.tokens) == tokens]
        if len(found) >= count:
            break
    if not found:
        raise ConfigError(f"no text of the model runs for {tokens} tokens, so no decode step can be timed")
    return [found[i % len(found)] for i in range(count)]


def of_length(prompts: list[Tokens], count: int, length: int) -> list[Tokens]:
    """`count` prompts of `length` tokens each: cut off, or repeated, to that length."""
    return [(prompts[i % len(prompts)] * length)[:length] for i in range(count)]
