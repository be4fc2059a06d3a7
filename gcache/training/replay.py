"""The log-probability of what a run wrote, computed once more with gradient.

A run itself carries no gradient. To learn from it, the decision maker's fused caches are built
again from the agents' caches with the fuser and the edge weights in the graph of autograd, and the
frozen model is asked how likely the written tokens were on them.

    gradient="decision"   the agents' caches and solutions are constants: gradient reaches the last hop. Exact
                          where no agent that is heard has received a cache, of another agent or, from the
                          second round on, its own of the round before (see `fuser_gradient`); else an
                          approximation.
    gradient="full"       agents that have received a cache think again, with gradient, so that it reaches
                          every hop and every latent step; and the solutions that they drew are scored
                          with the answer. Exact. Not through a link to another model.
    gradient="auto"       full; decision where agents think with several models. A training run settles it
                          once, by memory as well: `gcache.training.fuser_gradient`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import zip_longest

import torch
from torch import Tensor

from gcache.cache.kv_cache import SHARED, KVCache, SlotKind
from gcache.errors import ConfigError, TrainingError, unknown
from gcache.gnn.topology import Node
from gcache.graph.ballot import Ballot
from gcache.graph.cache_graph import CacheGraph
from gcache.graph.hand_over import Weights, edge_weights, fused_for, handed_on, log_weights
from gcache.graph.marginal import mixture, tempered
from gcache.graph.rebuild import arriving, at_decision, fused_again, handed_again, waves
from gcache.graph.result import RunResult
from gcache.llm.local import LocalLLM
from gcache.llm.requests import LogProbRequest, ThinkRequest
from gcache.training.config import AUTO, GRADIENTS


@dataclass(frozen=True)
class Replay:
    """A run and the edge weights to replay it with."""

    result: RunResult
    weights: Weights


def log_probs(graph: CacheGraph, llm: LocalLLM, replays: Sequence[Replay], gradient: str = AUTO) -> list[Tensor]:
    """log pi(y | q, G) of each run, 0-dim, with gradient to the fuser and the edge weights.

    y are all texts that were drawn and depend on what learns: the decision maker's or the answer that it chose, and in
    full the solutions of agents that have received a cache.

    Raises:
        ConfigError: `gradient` is not "auto" or one of `GRADIENTS`, or "full" where agents think with several models.
        TrainingError: caches of several models had to be let go.
    """
    return [one.log_prob for one in replayed(graph, llm, replays, gradient)]


@dataclass(frozen=True)
class Replayed:
    """What came of a replay, with gradient to the fuser and the edge weights.

    Attributes:
        texts: 0-dim, the log-probability of all texts that were drawn and depend on what learns.
        chances: (A,) log-probabilities of the answers that were to be had, where one was chosen without a text; None
            where there was no choice.
        chosen: the number of the one that was.
    """

    texts: Tensor
    chances: Tensor | None = None
    chosen: int = 0

    @property
    def log_prob(self) -> Tensor:
        """0-dim, of all that was drawn."""
        return self.texts if self.chances is None else self.texts + self.chances[self.chosen]

    def expected(self, values: Sequence[float]) -> Tensor:
        """0-dim, what the answer is worth in the mean, of what each is worth."""
        assert self.chances is not None
        return (self.chances.exp() * torch.tensor(values, device=self.chances.device)).sum()


def replayed(graph: CacheGraph, llm: LocalLLM, replays: Sequence[Replay], gradient: str = AUTO) -> list[Replayed]:
    """What was drawn in each run, and what could have been. Raises what `log_probs` raises."""
    gradient = settled(gradient, graph.is_mixed)
    # held until the end: `again` knows caches by their identity
    kept = _kept(graph, llm, [replay.result for replay in replays])
    totals: list[Tensor] = [torch.zeros((), device=llm.device) for _ in replays]
    if gradient == "full":
        shared_of, own_of = zip(*kept, strict=True) if kept else ((), ())
        handed = [on for _, on in _think(graph, llm, replays, shared_of, own_of, totals)]
    else:
        again: dict[int, KVCache] = {}
        handed = [
            handed_again(graph, replay.result, replay.weights, *caches, again)
            for replay, caches in zip(replays, kept, strict=True)
        ]
    requests: list[LogProbRequest] = []
    owners: list[int] = []
    weights: dict[int, Tensor] = {}  # of the caches, in each run that chose among answers
    found: dict[int, list[Tensor]] = {}
    for number, (replay, (shared, _), caches) in enumerate(zip(replays, kept, handed, strict=True)):
        result, ballot = replay.result, replay.result.ballot
        if ballot is not None and len(ballot.options) > 1:
            asked, weights[number] = _under_each(graph, replay, shared, caches, ballot, gradient)
            requests += asked
            owners += [number] * len(asked)
            if not asked:  # nothing that learns changes what an answer is under a cache
                found[number] = list(torch.tensor(ballot.scores).flatten())
        for spoken in result.spoken:
            assert spoken.generation is not None, "only texts of the local model are replayed"
            past = fused_again(graph, result, replay.weights, shared, caches, spoken.heard)
            requests.append(LogProbRequest(spoken.tokens, spoken.generation.tokens, past, result.temperature))
            owners.append(number)
    for owner, scores in zip(owners, llm.log_prob(requests), strict=True):
        found.setdefault(owner, []).append(scores.sum())
    return [_outcome(replay, totals[n], found.get(n, []), weights.get(n)) for n, replay in enumerate(replays)]


def _outcome(replay: Replay, solutions: Tensor, scores: Sequence[Tensor], weights: Tensor | None) -> Replayed:
    """Of the scores of a run's texts, or of each answer under each cache."""
    ballot = replay.result.ballot
    if ballot is None:
        return Replayed(solutions + torch.stack(list(scores)).sum() if scores else solutions)
    if weights is None:  # of one answer there is nothing to choose
        return Replayed(solutions)
    under_each = torch.stack(list(scores)).view(len(ballot.prompts), len(ballot.options))
    chances = tempered(mixture(under_each, weights.to(under_each.device)), ballot.temperature)
    return Replayed(solutions, chances, ballot.chosen)


def _under_each(
    graph: CacheGraph, replay: Replay, shared: KVCache, handed: Mapping[Node, KVCache], ballot: Ballot, gradient: str
) -> tuple[list[LogProbRequest], Tensor]:
    """How likely is each answer under each cache, where that depends on what learns; and the caches' log-weights."""
    arrivals = {arrival.sender[1]: arrival for arrival in at_decision(replay.result)}
    arrived = [arriving(handed, [arrivals[agent]], graph.config.payload) if agent in arrivals else []
               for agent in ballot.heard] or [[]]  # fmt: skip
    node = replay.result.topology.decision_node
    of_edges = [replay.weights[agent, node] for agent in ballot.heard] or [torch.ones(())]
    weights = log_weights(graph.fuser, shared, [each[0] if each else None for each in arrived], of_edges)
    depends = gradient == "full" and any(
        receives(replay.result, arrivals[agent].sender) for agent in ballot.heard if agent in arrivals
    )
    if graph.fuser.keeps_slots and not depends:
        return [], weights
    requests = []
    for prompt, caches in zip(ballot.prompts, arrived, strict=True):
        fused = fused_for(graph.fuser, shared, [(cache, None) for cache, _ in caches], {})
        requests += [LogProbRequest(prompt, option.tokens, fused) for option in ballot.options]
    return requests, weights


def check_gradient(gradient: str, is_mixed: bool = False) -> None:
    """Raise ConfigError unless a graph can be trained so.

    Args:
        is_mixed: whether its agents think with several models.
    """
    if gradient not in (AUTO, *GRADIENTS):
        raise unknown("fuser gradient", gradient, (AUTO, *GRADIENTS))
    if is_mixed and gradient == "full":
        raise ConfigError(
            "the fuser gradient 'full' goes back through one model, but the agents have several; use decision or auto"
        )


def settled(gradient: str, is_mixed: bool) -> str:
    """One of `GRADIENTS`: "auto" is the exact one where there is one for every topology.

    Raises:
        ConfigError: see `check_gradient`.
    """
    check_gradient(gradient, is_mixed)
    if gradient != AUTO:
        return gradient
    return "decision" if is_mixed else "full"


def replayed_tokens(result: RunResult, gradient: str) -> int:
    """How many tokens `log_probs` computes with gradient for a run, at most."""
    written = sum(len(s.tokens) + len(s.generation.tokens) for s in result.spoken if s.generation)
    if result.ballot is not None and len(result.ballot.options) > 1:
        written += sum(len(p) + len(option.tokens) for p in result.ballot.prompts for option in result.ballot.options)
    again = [tokens for node, tokens in result.prompts.items() if receives(result, node)]
    if gradient == "decision" or not again:
        return written
    return written + sum(len(tokens) for tokens in again) + result.thinking


def receives(result: RunResult, node: Node) -> bool:
    """Whether a cache arrived at an agent: over an edge, or its own of the round before."""
    return any(arrival.slots is not None for arrival in result.arrivals[node])


def _kept(
    graph: CacheGraph, llm: LocalLLM, results: Sequence[RunResult]
) -> list[tuple[KVCache, Mapping[Node, KVCache]]]:
    """Question's and agents' caches of each run: those it left behind, or, where they were
    released, computed once more."""
    held = [None if result.kept.released else result.kept.get() for result in results]  # thinking again takes room
    gone = [result for result, caches in zip(results, held, strict=True) if caches is None]
    if gone and graph.is_mixed:
        raise TrainingError(
            "the caches of a run were let go before it was learned from, and agents of several models cannot think "
            "them again; raise --max_cache_gb, or lower --batch_size or --rollouts"
        )
    questions = [
        ThinkRequest(graph.layout.question(r.example.question), owner=SHARED, kind=SlotKind.PREFIX) for r in gone
    ]
    shared = llm.think(questions)
    replays = [Replay(result, edge_weights(result.topology)) for result in gone]
    thought = iter(zip(shared, _think(graph, llm, replays, shared), strict=True))
    kept: list[tuple[KVCache, Mapping[Node, KVCache]]] = []
    for caches in held:
        if caches is None:
            prefix, (own, _) = next(thought)
            kept.append((prefix, own))
        else:
            kept.append(caches)
    return kept


def _think(
    graph: CacheGraph,
    llm: LocalLLM,
    replays: Sequence[Replay],
    shared: Sequence[KVCache],
    known: Sequence[Mapping[Node, KVCache]] = (),
    totals: list[Tensor] | None = None,
) -> list[tuple[dict[Node, KVCache], dict[Node, KVCache]]]:
    """Every agent's own slots and what it hands on, thought again, per replay.

    In waves over all replays: everyone thinks whose predecessors have thought.

    Args:
        known: the agents' own slots in each run, where they are to be thought again with gradient. Those of agents
            that received no cache have none, and stay what they were.
        totals: of each replay, to which the log-probabilities of solutions that were thought again are added.
    """
    gradient = bool(known)
    done: list[tuple[dict[Node, KVCache], dict[Node, KVCache]]] = [({}, {}) for _ in replays]
    for together in zip_longest(*(waves(replay.result) for replay in replays), fillvalue=()):
        wave = [(number, node) for number, nodes in enumerate(together) for node in nodes]
        asked = {(n, node): _request(graph, replays[n], node, shared[n], done[n][1]) for n, node in wave}
        if totals is not None and graph.config.agent_temperature:
            asked = {place: _scored_into(totals, place[0], request) for place, request in asked.items()}
        again = [place for place in wave if not gradient or receives(replays[place[0]].result, place[1])]
        thought = dict(zip(again, llm.think([asked[place] for place in again], gradient), strict=True))
        for number, node in wave:
            past = asked[number, node].past
            assert past is not None
            own = thought[number, node] if (number, node) in thought else known[number][node]
            done[number][0][node] = own
            with torch.set_grad_enabled(gradient):
                done[number][1][node] = handed_on(graph.fuser, own, past, graph.config.payload)
    return done


def _request(
    graph: CacheGraph, replay: Replay, node: Node, shared: KVCache, handed: Mapping[Node, KVCache]
) -> ThinkRequest:
    """What an agent was asked in the run."""
    result = replay.result
    arrived = arriving(handed, result.arrivals[node], graph.config.payload)
    received = fused_for(graph.fuser, shared, arrived, replay.weights)
    tokens = result.prompts[node]  # what others said included
    steps = graph.latent_steps(result.topology, node[1])
    solution = result.solutions.get(node)
    return ThinkRequest(
        tokens, received, steps, graph.node_id(node, len(result.agents)),
        text=() if solution is None else solution.tokens, text_temperature=graph.config.agent_temperature,
    )  # fmt: skip


def _scored_into(totals: list[Tensor], number: int, request: ThinkRequest) -> ThinkRequest:
    """The same; the log-probability of its solution, where it has one, is added to the replay's."""

    def add(log_probs: Tensor) -> None:
        totals[number] = totals[number] + log_probs.sum()

    return replace(request, watch_text=add) if request.text else request
