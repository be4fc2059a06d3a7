"""Which words of its agents' prompts an answer attended to most."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

from gcache.graph.cache_graph import CacheGraph
from gcache.graph.result import RunResult
from gcache.inspect.attention_shares import shares_of_answer
from gcache.llm.local import LocalLLM

#: What stands for a part of a letter.
HALF = "\ufffd"
#: What parts words without a blank: brackets, quotation marks, dashes, slashes.
PARTING = "()[]{}\"/\\\u2013\u2014\u201c\u201d"


@dataclass(frozen=True)
class Attended:
    """What an answer read of one agent.

    Attributes:
        agent: its number.
        share: of the attention of the answer's tokens to the slots of all agents, the mean over layers and heads.
        words: those attended to most, in the order of the prompt, with their part of `share`.
    """

    agent: int
    share: float
    words: tuple[tuple[str, float], ...]


def attended(graph: CacheGraph, llm: LocalLLM, result: RunResult, most: int = 8) -> list[Attended]:
    """Of each agent that was heard, what the answer attended to; the agent with the largest share first.

    The first slot of an agent is left out of the words: whatever stands there, models attend to it for want of anything
    else to attend to.

    Args:
        most: words of each agent.

    Raises:
        GcacheError, ModelError: see `gcache.inspect.attention_shares.shares_of_answer`.
    """
    by_slot: dict[tuple[int, int], float] = {}
    texts = shares_of_answer(graph, llm, result)
    for shares, fused in texts:
        mean = shares.mean(dim=0)[: fused.slots] / len(texts)  # (T,)
        names = zip(fused.owners[0].tolist(), fused.ordinals[0].tolist(), mean.tolist(), strict=True)
        for owner, ordinal, share in names:
            by_slot[owner, ordinal] = by_slot.get((owner, ordinal), 0.0) + share
    n_agents = len(result.agents)
    found = []
    for node, tokens in result.prompts.items():
        owner = graph.node_id(node, n_agents)
        own = [by_slot.get((owner, ordinal), 0.0) for ordinal in range(len(tokens))]
        if any(own):
            found.append((node[1], sum(own), _words(llm, tokens, own, most)))
    whole = sum(share for _, share, _ in found) or 1.0
    made = [
        Attended(agent, share / whole, tuple((word, part / whole) for word, part in words))
        for agent, share, words in found
    ]
    return sorted(made, key=lambda each: -each.share)


def _words(llm: LocalLLM, tokens: Sequence[int], shares: Sequence[float], most: int) -> list[tuple[str, float]]:
    """The words of a prompt with the largest shares, each once, in the order of the prompt."""
    found: dict[str, tuple[int, str, float]] = {}
    for place, (word, share) in enumerate(_whole_words(llm, tokens, shares)):
        bare = word.strip(f"'`.,;:!?*#-\u2018\u2019{PARTING}")
        if share > 0 and any(letter.isalnum() for letter in bare):
            at, shown, before = found.get(bare.casefold(), (place, bare, 0.0))
            found[bare.casefold()] = at, shown, before + share
    first = sorted(found.values(), key=lambda each: -each[2])[:most]
    return [(word, share) for _, word, share in sorted(first)]


def _whole_words(llm: LocalLLM, tokens: Sequence[int], shares: Sequence[float]) -> list[tuple[str, float]]:
    """Tokens put together to words, where blanks, `PARTING` or letters that are words by themselves (Chinese, Japanese)
    part them. Tokens that are parts of one letter are one piece."""
    found: list[tuple[str, float]] = []
    ended, part, begin, end = True, 0.0, 0, 0  # what is decoded goes from `begin`, and was used up to `end`
    for number, share in enumerate(shares):
        part += share if number else 0.0
        before, text = llm.text(list(tokens[begin:end])), llm.text(list(tokens[begin : number + 1]))
        if text.endswith(HALF) or not text.startswith(before):  # a letter that is not whole yet
            continue
        piece, begin, end = text[len(before) :], end, number + 1
        if ended or piece[:1].isspace() or piece[:1] in tuple(PARTING) or _is_wide(piece[:1]):
            found.append((piece.strip(), part))
        else:
            word, so_far = found[-1]
            found[-1] = word + piece.strip(), so_far + part
        ended = piece[-1:].isspace() or piece[-1:] in tuple(PARTING) or _is_wide(piece[-1:])
        part = 0.0
    return found


def _is_wide(letter: str) -> bool:
    return bool(letter) and unicodedata.east_asian_width(letter) in "WF"
