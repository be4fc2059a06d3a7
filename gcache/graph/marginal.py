"""Deciding without a text: how likely each answer is under what each agent handed on.

    P(a | q, G) = sum over agents i of w_i P(a | q, cache_i) / sum over agents i of w_i

over the answers that are candidates: the letters that the question lists, or those that the agents' solutions state.
P(a | q, cache_i) is the probability that the decision maker, hearing agent i alone, states a right behind its prompt
(the answer's tokens and the one that ends the turn), divided by that of all candidates. w_i is the edge's weight, and
what the fuser makes of it beside the other caches (`CacheFuser.log_weights`). Where nobody is heard, the question is
the only cache.

The sum is over all that could have been said, so the gradient of log P(a) to w and to the fuser is exact, and nothing
has to be drawn but a.
"""

from __future__ import annotations

import asyncio
from collections.abc import Hashable, Sequence
from functools import partial

import torch
from torch import Tensor

from gcache.agents.decision import Candidate, DecisionMaker
from gcache.agents.prompts import ChatLayout
from gcache.cache.fused_cache import FusedCache
from gcache.cache.kv_cache import KVCache
from gcache.gnn.topology import DECISION, Edge, EdgeKey
from gcache.graph.ballot import Ballot, Option
from gcache.graph.decision_turn import DecisionTurn
from gcache.graph.hand_over import log_weights
from gcache.graph.loops import cancel_all
from gcache.graph.memo import RolloutMemo
from gcache.graph.result import Step
from gcache.llm.kept_scores import content_of
from gcache.llm.requests import ThinkRequest
from gcache.llm.scheduler import BatchingLLM
from gcache.runtime.streams import stream, uniforms
from gcache.tasks.choices import listed_choices


def candidates_of(
    decision: DecisionMaker, question: str, solved: Sequence[tuple[str, bool]]
) -> list[Candidate]:
    """The answers to choose from; none where nothing says which there are.

    Args:
        solved: what each agent that is heard said, and whether that was cut off.
    """
    found = decision.candidates([text for text, _ in solved], question, [cut for _, cut in solved])
    if decision.states != "choice":
        return found
    by_letter = {candidate.answer: candidate for candidate in found}
    letters = list(listed_choices(question)) or list(by_letter)
    return [by_letter.get(letter, Candidate(letter, ())) for letter in letters]


def mixture(scores: Tensor, weights: Tensor) -> Tensor:
    """(A,) log P of each answer.

    Args:
        scores: (I, A) log-probabilities of each answer's tokens under each cache.
        weights: (I,) log-weights of the caches.
    """
    under_each = torch.log_softmax(scores, dim=1)
    return torch.logsumexp(under_each + torch.log_softmax(weights, dim=0)[:, None], dim=0)


def tempered(log_probs: Tensor, temperature: float) -> Tensor:
    """(A,) log-probabilities of drawing each answer; at 0, which is greedy, those themselves."""
    return torch.log_softmax(log_probs / (temperature or 1.0), dim=0)


async def cast(
    turn: DecisionTurn, edges: Sequence[Edge], candidates: Sequence[Candidate], started: float
) -> tuple[Ballot, Step]:
    """Score every candidate under every cache, and choose one: the likeliest, or at a temperature one that is drawn."""
    parts, transport, start = turn.parts, turn.transport, turn.start
    question, layout = start.example.question, turn.parts.models[0].layouts.of(start.variables)
    shared = transport.shared[0]
    arrived: list[tuple[KVCache, EdgeKey | None] | None] = []
    prompts: list[tuple[int, ...]] = []
    for edge in edges:
        one = turn.coming([edge])
        caches = await transport.arriving(turn.receiver, one)
        arrived.append(caches[0] if caches else None)
        prompts.append(parts.decision_tokens(question, transport.words(turn.receiver, one), start.variables, True))
    if not edges:
        arrived, prompts = [None], [parts.decision_tokens(question, (), start.variables, True)]
    options = [_option(turn, edges, candidate, layout) for candidate in candidates]
    with torch.no_grad():
        own = [transport.weights[edge.key] for edge in edges] or [torch.ones(())]
        weights = log_weights(parts.fuser, shared, arrived, own)
    fused = [parts.models[0].fuse(shared, [] if each is None else [(each[0], None)], {}) for each in arrived]
    received = sum(transport.slots(turn.receiver, each) for each in fused)
    scores = torch.zeros(len(fused), len(options))
    read = 0
    if len(options) > 1:  # of one answer there is nothing to ask
        over: list[Hashable] = [
            (transport.name((turn.last, e.source)), transport.payload_over(e, turn.receiver)) for e in edges
        ]  # fmt: skip
        scores, read = await _scores(turn, over or [None], fused, prompts, [option.tokens for option in options])
    log_probs = tempered(mixture(scores, weights.cpu()), start.temperature)
    chosen = int(log_probs.argmax())
    if start.temperature:
        drawn = float(uniforms((1,), stream("answer", start.seed, question)))
        chosen = min(int((log_probs.exp().cumsum(0) <= drawn).sum()), len(options) - 1)
    step = Step(
        turn.receiver[1], DECISION, turn.last, "answer", started, turn.trace.now(), prefilled=read, received=received
    )
    return Ballot(
        tuple(edge.source for edge in edges), tuple(prompts), tuple(options), tuple(map(tuple, scores.tolist())),
        tuple(log_probs.exp().tolist()), chosen, tuple(weights.cpu().softmax(dim=0).tolist()), start.temperature,
    ), step  # fmt: skip


def _option(turn: DecisionTurn, edges: Sequence[Edge], candidate: Candidate, layout: ChatLayout) -> Option:
    """A candidate with the text of the heaviest edge that states it, or, where none does, in its own words."""
    decision = turn.parts.decision
    written = decision.written(candidate.answer)
    tokens = layout.ended_answer(written, decision.judging_prefix)
    if not candidate.texts:
        return Option(candidate.answer, tokens, decision.judging_prefix + written)
    edge = edges[max(candidate.texts, key=lambda i: edges[i].weight)]
    node, thinks = (turn.last, edge.source), turn.transport.agent_model((turn.last, edge.source)).layouts
    return Option(
        candidate.answer, tokens, turn.transport.said[node], edge.source, turn.written.get(node),
        thinks.of(turn.start.variables).thinks,
    )  # fmt: skip


async def _scores(
    turn: DecisionTurn,
    over: Sequence[Hashable],
    fused: Sequence[FusedCache],
    prompts: Sequence[tuple[int, ...]],
    answers: Sequence[tuple[int, ...]],
) -> tuple[Tensor, int]:
    """(I, A) log-probabilities of each answer behind each prompt, on each cache; and how many tokens were read for
    them. A prompt is read once for all answers. Rollouts that heard the same thought over the same payload share what
    it says of an answer, for it is heard at weight 1.

    Args:
        over: names what each cache is of.
    """

    once = turn.start.once

    async def under(name: Hashable, prompt: tuple[int, ...], past: FusedCache) -> tuple[list[float], int]:
        async def hears() -> _Hearing:
            return _Hearing(turn.parts.llm, prompt, past)

        hearing, is_new = await once(("hearing", name, prompt), hears)
        asked = [
            asyncio.ensure_future(once(("answer", name, prompt, answer), partial(hearing.score, answer)))
            for answer in answers
        ]
        try:
            found = await asyncio.gather(*asked)
        finally:
            cancel_all(asked)
        read = sum(len(answer) for answer, (_, fresh) in zip(answers, found, strict=True) if fresh)
        return [score for score, _ in found], read + is_new * (len(prompt) - 1)

    asked = [asyncio.ensure_future(under(*each)) for each in zip(over, prompts, fused, strict=True)]
    try:
        found = await asyncio.gather(*asked)
    finally:
        cancel_all(asked)
    return torch.tensor([scores for scores, _ in found]), sum(read for _, read in found)


class _Hearing:
    """The decision maker, hearing one cache: its prompt is read when the first answer needs it."""

    def __init__(self, llm: BatchingLLM, prompt: tuple[int, ...], past: FusedCache) -> None:
        self.llm, self.prompt, self.past = llm, prompt, past
        self.content = content_of(past) if llm.kept_texts is not None and llm.kept_texts.scores is not None else ""
        self._memo = RolloutMemo()

    async def score(self, answer: tuple[int, ...]) -> float:
        """log P of an answer behind the prompt."""
        return await self.llm.score(self.prompt, answer, self.content, self._behind_the_prompt)

    async def _behind_the_prompt(self) -> FusedCache:
        past: FusedCache = (await self._memo.once("prompt", self._read))[0]
        return past

    async def _read(self) -> FusedCache:
        if len(self.prompt) == 1:
            return self.past
        own = await self.llm.think(ThinkRequest(self.prompt[:-1], self.past))
        return FusedCache.join([self.past, FusedCache.plain(own)])
