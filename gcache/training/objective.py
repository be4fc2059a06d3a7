"""The estimator: REINFORCE with a baseline, over topologies and texts together.

    L = - sum over rollouts (U - b) [ log p(G | q) + log pi(y | q, G) ] / (Q K)
        + lambda E[edges] - beta H(edges) + alpha sum over edges (p_e - a_e)^2    (means over questions)

Where an answer is chosen without a text (`gcache.graph.marginal`) there are few that could have been, and all of them
are graded: U is then their mean by P(a | q, G), whose gradient stands in place of U log P(a | q, G).

U is a rollout's utility less what it cost, b the mean utility of the other rollouts of its question
(Kool et al. 2019, "Buy 4 REINFORCE samples, get a baseline for free"), or see `gcache.training.config.BASELINES`. An
edge's weight is its probability, so log pi reaches the policy as well, through w in the fused
cache. a_e is 1 for the edges of a given topology, the anchor, and 0 for all others (after
G-Designer, Zhang et al. 2024: the topology one would have drawn by hand).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from gcache.gnn.distribution import EdgeDistribution
from gcache.gnn.fixed import FixedTopology
from gcache.graph.agent_graph import AgentGraph
from gcache.graph.cache_graph import CacheGraph
from gcache.graph.rebuild import at_decision
from gcache.graph.result import RunResult
from gcache.llm.local import LocalLLM
from gcache.training.config import AUTO
from gcache.training.replay import Replay, Replayed, receives, replayed, replayed_tokens, settled

#: What each answer is worth that a run could have chosen; None where it wrote a text.
Values = Sequence[float] | None


def advantages(utilities: Tensor, baseline: str, running: float = 0.0) -> Tensor:
    """(Q, K) utilities minus each one's baseline.

    Args:
        running: the baseline "ema": the running mean of utilities before this step, which none of
            them is part of, so the estimate stays unbiased.
    """
    if baseline == "none":
        return utilities
    if baseline == "ema":
        return utilities - running
    rollouts = utilities.shape[1]
    others = (utilities.sum(dim=1, keepdim=True) - utilities) / (rollouts - 1)
    return utilities - others


@dataclass(frozen=True)
class LossWeights:
    """lambda, beta and alpha: per expected edge, for the entropy of the edges and other choices, and per squared
    distance to the fixed topology named `anchor`, which has no edges from the round before."""

    edge: float = 0.0
    entropy: float = 0.0
    anchor_strength: float = 0.0
    anchor: str | None = None

    def distance(self, distribution: EdgeDistribution) -> Tensor:
        """0-dim, the sum over edges of (p_e - a_e)^2."""
        if self.anchor is None:
            return torch.zeros(())
        pairs = FixedTopology(self.anchor, distribution.n_agents).most_likely()[0].pairs
        wanted = torch.tensor([float(pair in pairs) for pair in distribution.candidates])
        return (distribution.probabilities - wanted.to(distribution.logits.device)).square().sum()


def _heard_together(result: RunResult) -> int:
    """The most caches that one text was written, or an answer chosen, on: one among agents alone reaches none."""
    groups = [set(spoken.heard) for spoken in result.spoken]
    if result.ballot is not None:
        groups.append(set(result.ballot.heard))
    return max((sum(a.slots is not None for a in at_decision(result, group)) for group in groups), default=0)


def _drew_on_caches(result: RunResult, gradient: str) -> bool:
    """Whether a solution was drawn on a cache, which is learned from in full, also where it was told on in words."""
    return gradient == "full" and any(receives(result, node) for node in result.solutions)


def reaches_anything(result: RunResult, gradient: str) -> bool:
    """Whether what was drawn in a run depends on the fuser or on an edge's weight.

    Args:
        gradient: one of `gcache.training.config.GRADIENTS`.
    """
    ballot = result.ballot  # of several agents' answers, their weights decide, whatever it was that came
    chose = ballot is not None and len(ballot.heard) > 1 and len(ballot.options) > 1
    return chose or _heard_together(result) > 0 or _drew_on_caches(result, gradient)


def reaches_fuser(result: RunResult, gradient: str, keeps_slots: bool) -> bool:
    """Whether it depends on the fuser.

    Args:
        keeps_slots: see `CacheFuser`: of one cache alone such a fuser makes nothing else.
    """
    return _heard_together(result) > (1 if keeps_slots else 0) or _drew_on_caches(result, gradient)


def _drawn(result: RunResult, graded_alone: bool) -> tuple[object, ...]:
    """All that was drawn on a topology and is learned from: the decision maker's texts, or its answer, and the agents'
    solutions.

    Args:
        graded_alone: whether only the answer that was chosen was graded; else it teaches what any other would.
    """
    texts = tuple(s.generation.tokens for s in result.spoken if s.generation)
    solutions = tuple((node, said.tokens) for node, said in sorted(result.solutions.items()))
    return texts, solutions, result.ballot.choice if graded_alone and result.ballot is not None else None


@dataclass(frozen=True)
class _Share:
    """Runs that drew the same: one replay for all of them.

    Attributes:
        values: what each answer is worth that could have been chosen; None where a text was written, or only what was
            chosen was graded.
        advantage: of all of them together; count: how many they are.
    """

    replay: Replay
    values: Values = None
    advantage: float = 0.0
    count: int = 0

    def with_another(self, advantage: float) -> _Share:
        return replace(self, advantage=self.advantage + advantage, count=self.count + 1)

    @property
    def matters(self) -> bool:
        """Whether any gradient can come of it."""
        return self.advantage != 0.0 or (self.values is not None and len(set(self.values)) > 1)

    def gain(self, found: Replayed) -> Tensor:
        """0-dim, what the loss has of them, but for its sign and the number of all runs."""
        if self.values is None or found.chances is None:
            return self.advantage * found.log_prob
        return self.advantage * found.texts + self.count * found.expected(self.values)


@dataclass(frozen=True)
class Objective:
    """Accumulates the gradient of L into the parameters.

    Args:
        prices: see `LossWeights`.
        gradient: see `gcache.training.replay`.

    At most `llm.limits.max_gradient_tokens` tokens are replayed in one pass, which bounds the memory.
    """

    graph: AgentGraph
    llm: LocalLLM | None
    prices: LossWeights
    gradient: str = AUTO

    def backward(
        self,
        groups: Sequence[Sequence[RunResult]],
        advantage: Tensor,
        prices: LossWeights | None = None,
        values: Sequence[Sequence[Values]] | None = None,
    ) -> dict[str, float]:
        """Backward through L for Q groups of K runs and their (Q, K) advantages.

        Args:
            prices: of this step, where they are not always the same.
            values: of each run that chose among answers, what each of them is worth; None where only what was chosen
                was graded.

        Returns the mean entropy, expected edges and probability of consulting anybody, how many texts were
        replayed, and the tokens that were computed with gradient for it (see `replayed_tokens`).
        """
        distributions = [self.graph.distribution(group[0].example) for group in groups]
        learned = [d if isinstance(d, EdgeDistribution) else None for d in distributions]
        weights = [None if d is None else d.probabilities.detach().requires_grad_() for d in learned]
        replayed, tokens = self._texts(groups, learned, weights, advantage, values)
        if any(d is not None for d in learned):
            self._topologies(groups, learned, weights, advantage, prices or self.prices)
        known = [d for d in learned if d is not None]
        count = max(len(known), 1)
        return {
            "entropy": sum(float(d.entropy.detach()) for d in known) / count,
            "expected_edges": sum(float(d.expected_edges.detach()) for d in known) / count,
            "consult_probability": sum(d.consult_probability for d in known) / count,
            "replayed": float(replayed),
            "tokens_replayed": tokens,
        }

    def _texts(
        self,
        groups: Sequence[Sequence[RunResult]],
        learned: Sequence[EdgeDistribution | None],
        weights: Sequence[Tensor | None],
        advantage: Tensor,
        values: Sequence[Sequence[Values]] | None,
    ) -> tuple[int, int]:
        """Backward through log pi, to the fuser and to the edge weights as leaves; how many texts, and tokens.

        Equal texts on equal topologies are replayed once; those whose advantages cancel, not at
        all. Both leave the sum as it is.
        """
        if not self.graph.learns:
            return 0, 0
        assert isinstance(self.graph, CacheGraph) and self.llm is not None
        if not any(p.requires_grad for p in self.graph.fuser.parameters()) and all(w is None for w in weights):
            return 0, 0
        shares: dict[tuple[object, ...], _Share] = {}
        for q, group in enumerate(groups):
            for k, result in enumerate(group):
                worth = None if values is None else values[q][k]
                key = (q, result.topology.choices, _drawn(result, graded_alone=worth is None))
                share = shares.get(key) or _Share(self._replay(result, learned[q], weights[q]), worth)
                shares[key] = share.with_another(float(advantage[q, k]))
        gradient = settled(self.gradient, self.graph.is_mixed)
        active = [s for s in shares.values() if s.matters and reaches_anything(s.replay.result, gradient)]
        for chunk in self._passes(active, self.llm.limits.max_gradient_tokens, gradient):
            found = replayed(self.graph, self.llm, [share.replay for share in chunk], gradient)
            total = sum((share.gain(one) for share, one in zip(chunk, found, strict=True)), torch.zeros(()))
            if total.requires_grad:
                (-total / advantage.numel()).backward()
        keeps = self.graph.fuser.keeps_slots
        reaching = sum(reaches_fuser(share.replay.result, gradient, keeps) for share in active)
        return reaching, sum(replayed_tokens(share.replay.result, gradient) for share in active)

    @staticmethod
    def _passes(active: Sequence[_Share], most: int, gradient: str) -> Iterator[list[_Share]]:
        """The replays in order, as many at a time as have `most` tokens together, and at least one."""
        chunk: list[_Share] = []
        tokens = 0
        for share in active:
            own = replayed_tokens(share.replay.result, gradient)
            if chunk and tokens + own > most:
                yield chunk
                chunk, tokens = [], 0
            chunk.append(share)
            tokens += own
        if chunk:
            yield chunk

    @staticmethod
    def _replay(result: RunResult, distribution: EdgeDistribution | None, weights: Tensor | None) -> Replay:
        if distribution is None or weights is None:
            return Replay(result, {pair: torch.ones(()) for pair in result.topology.pairs})
        index = {pair: e for e, pair in enumerate(distribution.candidates)}
        return Replay(result, {pair: weights[index[pair]] for pair in sorted(result.topology.pairs)})

    def _topologies(
        self,
        groups: Sequence[Sequence[RunResult]],
        learned: Sequence[EdgeDistribution | None],
        weights: Sequence[Tensor | None],
        advantage: Tensor,
        prices: LossWeights,
    ) -> None:
        """Backward through log p(G), the prices, and what reached the edge weights."""
        loss = torch.zeros(())
        for q, (group, distribution, leaf) in enumerate(zip(groups, learned, weights, strict=True)):
            if distribution is None or leaf is None:
                continue
            for k, result in enumerate(group):
                if float(advantage[q, k]) != 0.0:
                    loss = loss - advantage[q, k] * distribution.log_prob(result.topology) / advantage.numel()
            loss = loss + prices.edge * distribution.expected_edges / len(groups)
            loss = loss - prices.entropy * distribution.entropy / len(groups)
            loss = loss + prices.anchor_strength * prices.distance(distribution) / len(groups)
            if leaf.grad is not None:  # the chain rule through w = p
                loss = loss + (leaf.grad * distribution.probabilities).sum()
        loss.backward()
