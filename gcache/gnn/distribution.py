"""A distribution over acyclic topologies whose log-probability is exactly that of its sampler.

Candidate edges are visited in a fixed order. An edge that would close a cycle with those already
drawn is left out with certainty; any other is drawn with its own probability. Each topology is
reached along exactly one path, so the probabilities of all topologies sum to 1, and

    log p(G) = sum over visited edges that were free to choose of log Bernoulli(drawn; p_e).

An edge that was forced out contributes nothing. The edges into the decision maker are visited
first; they close no cycle. Among agents i -> j comes before j -> i for i < j, so the sampler favours the
first where both are likely. Edges from the round before come last; they close no cycle either.

What goes over a drawn edge, and how long an agent thinks, may be drawn as well: each from a softmax,
whose log-probabilities are added.

Whether the decision maker consults anybody may be one choice, of probability c, made before its edges. The
sampler then reaches "hears nobody" along two paths, by not consulting and by consulting in vain, so with p_e the
probabilities of the edges into the decision maker once it consults

    p(no edge into it) = 1 - c + c prod (1 - p_e),      p(some edges) = c prod Bernoulli(drawn; p_e),

and each such edge has the probability c p_e. Where an answer is lost unless every edge goes, independent edges would
have to go all at once to learn that; here one choice learns it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from gcache.errors import ConfigError
from gcache.gnn.certain import (
    bernoulli_entropies,
    bernoulli_log_probs,
    log_sum_exp,
    or_zero,
    settled,
    softmax_entropies,
)
from gcache.gnn.mode import EXACT_AGENTS, likeliest_edges
from gcache.gnn.topology import Edge, EdgeKey, Topology, reaches
from gcache.runtime.streams import uniforms

if TYPE_CHECKING:
    from gcache.runtime.streams import Stream


def candidate_edges(n_agents: int, temporal: bool = False) -> list[EdgeKey]:
    """All edges that may be drawn, in the order they are visited; `temporal`: those from the round before too."""
    into_decision: list[EdgeKey] = [(i, n_agents) for i in range(n_agents)]
    among: list[EdgeKey] = [
        pair for i in range(n_agents) for j in range(i + 1, n_agents) for pair in ((i, j), (j, i))
    ]
    before: list[EdgeKey] = [(*pair, 1) for pair in among] if temporal else []
    return into_decision + among + before


@dataclass(frozen=True)
class EdgeDistribution:
    """Independent edge probabilities, cycles excluded.

    Attributes:
        n_agents: N.
        candidates: the keys of E edges, in the order the sampler visits them.
        logits: (E,) of their probabilities, once the decision maker consults; gradient flows through them.
        channels: C of `gcache.gnn.topology.CHANNELS`, one of which each drawn edge gets; () for no choice.
        channel_logits: (E, C).
        latent_choices: S numbers of latent steps, one of which each agent gets; () for no choice.
        latent_logits: (N, S).
        consult_logit: 0-dim, of c, the probability that the decision maker consults anybody; None where that is
            no choice of its own, as with c = 1.
        hard: whether every drawn edge weighs 1, instead of its probability.
    """

    n_agents: int
    candidates: tuple[EdgeKey, ...]
    logits: Tensor
    channels: tuple[str, ...] = ()
    channel_logits: Tensor | None = None
    latent_choices: tuple[int, ...] = ()
    latent_logits: Tensor | None = None
    consult_logit: Tensor | None = None
    hard: bool = False

    def __post_init__(self) -> None:
        edges, agents = len(self.candidates), self.n_agents
        if tuple(self.logits.shape) != (edges,):
            raise ConfigError(
                f"logits must be (E,) = ({edges},), one per candidate, got {tuple(self.logits.shape)}"
            )
        for name, logits, rows, options in (
            ("channel_logits", self.channel_logits, edges, self.channels),
            ("latent_logits", self.latent_logits, agents, self.latent_choices),
        ):
            shape = None if logits is None else tuple(logits.shape)
            if shape != ((rows, len(options)) if options else None):
                raise ConfigError(f"{name} must be ({rows}, {len(options)}) where there is a choice, got {shape}")
        if self.consult_logit is not None and self.consult_logit.dim():
            raise ConfigError(f"consult_logit must be 0-dim, got {tuple(self.consult_logit.shape)}")

    @property
    def probabilities(self) -> Tensor:
        """(E,), for an edge into the decision maker c p_e."""
        chances = torch.sigmoid(self.logits)
        if self.consult_logit is None:
            return chances
        return torch.where(self._into_decision, torch.sigmoid(self.consult_logit) * chances, chances)

    @property
    def consult_probability(self) -> float:
        """c; 1 where consulting is no choice of its own."""
        return 1.0 if self.consult_logit is None else float(torch.sigmoid(self.consult_logit.detach()))

    @property
    def _into_decision(self) -> Tensor:
        """(E,) bool"""
        into = [len(key) == 2 and key[1] == self.n_agents for key in self.candidates]
        return torch.tensor(into, dtype=torch.bool, device=self.logits.device)

    def sample(self, generator: Stream | None = None) -> tuple[Topology, Tensor]:
        """A topology and its log-probability (0-dim, with gradient)."""
        wanted = uniforms((len(self.candidates),), generator) < torch.sigmoid(self.logits.detach()).cpu()
        channels, steps = _picked(self.channel_logits, generator), _picked(self.latent_logits, generator)
        if self.consult_logit is not None and float(uniforms((), generator)) >= self.consult_probability:
            wanted &= ~self._into_decision.cpu()
        return self._draw(lambda e: bool(wanted[e]), channels, steps)

    @property
    def is_exact(self) -> bool:
        """Whether `most_likely` is the mode for certain, or greedy because there are too many agents."""
        return self.n_agents <= EXACT_AGENTS

    def most_likely(self) -> tuple[Topology, Tensor]:
        """The most likely topology, with its log-probability.

        It is the mode of what `sample` draws, cycles, channels, latent steps and consulting included, for up to
        `gcache.gnn.mode.EXACT_AGENTS` agents. Beyond, the edges among agents are greedy: each at its likelier value,
        the likelier edges first (`is_exact` is False, and `best_of_samples` says what may be missing).
        """
        drawn, left = self._gains()
        among = [e for e in range(len(drawn)) if self._is_among_agents(e)]
        pairs = [(self.candidates[e][0], self.candidates[e][1]) for e in among]
        picked = likeliest_edges(self.n_agents, pairs, [drawn[e] for e in among], [left[e] for e in among])
        chosen = {among[number] for number in picked} | self._likeliest_into_decision(drawn, left)
        chosen |= {e for e, key in enumerate(self.candidates) if len(key) > 2 and drawn[e] > left[e]}
        likeliest = [
            [] if logits is None else logits.detach().argmax(dim=1).tolist()
            for logits in (self.channel_logits, self.latent_logits)
        ]
        return self._draw(lambda e: e in chosen, *likeliest)

    def best_of_samples(self, source: Stream, count: int = 1000) -> float:
        """The largest log-probability among so many drawn topologies."""
        with torch.no_grad():
            return max(float(self.sample(source)[1]) for _ in range(count))

    def _gains(self) -> tuple[list[float], list[float]]:
        """What each candidate adds to the log-probability when it is drawn, over its likeliest channel, and when it
        is left out; for edges into the decision maker once it consults."""
        logits = self.logits.detach().double()
        drawn = logsigmoid(logits)
        if self.channel_logits is not None:
            drawn = drawn + torch.log_softmax(settled(self.channel_logits.detach().double()), dim=1).amax(dim=1)
        return drawn.tolist(), logsigmoid(-logits).tolist()

    def _is_among_agents(self, e: int) -> bool:
        key = self.candidates[e]
        return len(key) == 2 and key[1] != self.n_agents

    def _likeliest_into_decision(self, drawn: Sequence[float], left: Sequence[float]) -> set[int]:
        """They close no cycle; where consulting is a choice, the likeliest edges compete with none at all."""
        into = [e for e, key in enumerate(self.candidates) if len(key) == 2 and key[1] == self.n_agents]
        likelier = {e for e in into if drawn[e] > left[e]}
        if self.consult_logit is None or not into:
            return likelier
        some = likelier or {min(into, key=lambda e: left[e] - drawn[e])}
        consult = self.consult_logit.detach().double()
        consulted = float(logsigmoid(consult))
        silent = float(torch.logaddexp(logsigmoid(-consult), logsigmoid(consult) + sum(left[e] for e in into)))
        return some if consulted + sum(drawn[e] if e in some else left[e] for e in into) > silent else set()

    def log_prob(self, topology: Topology) -> Tensor:
        """0-dim log-probability of a topology, with gradient.

        Raises:
            ConfigError: a topology that this distribution cannot draw.
        """
        if topology.n_agents != self.n_agents or topology.pairs - set(self.candidates):
            raise ConfigError(
                f"topology has edges {sorted(topology.pairs)} over {topology.n_agents} agents, which a "
                f"distribution over {self.n_agents} agents with {len(self.candidates)} candidate edges cannot draw"
            )
        channels = [topology.payloads.get(key) for key in self.candidates]
        if {topology.payloads[key] for key in topology.pairs} - set(self.channels or (None,)):
            raise ConfigError(f"topology has channels {channels}, this distribution has {self.channels or 'no choice'}")
        steps = topology.latent_steps or ()
        if bool(steps) != bool(self.latent_choices) or set(steps) - set(self.latent_choices):
            raise ConfigError(
                f"topology has latent steps {steps}, this distribution has {self.latent_choices or 'no choice'}"
            )
        return self._draw(
            lambda e: self.candidates[e] in topology.pairs,
            [self.channels.index(name) if name else 0 for name in channels] if self.channels else [],
            [self.latent_choices.index(count) for count in steps],
        )[1]

    def without(self, keys: Collection[EdgeKey]) -> EdgeDistribution:
        """The same without some candidates, which are then never drawn."""
        kept = [e for e, key in enumerate(self.candidates) if key not in keys]
        if len(kept) == len(self.candidates):
            return self
        return replace(
            self,
            candidates=tuple(self.candidates[e] for e in kept),
            logits=self.logits[kept],
            channel_logits=None if self.channel_logits is None else self.channel_logits[kept],
        )

    def weights(self, topology: Topology) -> dict[EdgeKey, Tensor]:
        """The weight of each of the topology's edges as a 0-dim tensor, with gradient where it is its probability."""
        index = {key: e for e, key in enumerate(self.candidates)}
        chances = torch.ones_like(self.logits) if self.hard else self.probabilities
        return {key: chances[index[key]] for key in sorted(topology.pairs)}

    @property
    def expected_edges(self) -> Tensor:
        """0-dim, the mean number of edges before cycles are excluded."""
        return self.probabilities.sum()

    @property
    def entropy(self) -> Tensor:
        """0-dim, in nats, of the edges before cycles are excluded, and of the other choices."""
        total = self._edge_entropy()
        if self.channel_logits is not None:
            total = total + (self.probabilities * softmax_entropies(self.channel_logits)).sum()
        if self.latent_logits is not None:
            total = total + softmax_entropies(self.latent_logits).sum()
        return total

    def _edge_entropy(self) -> Tensor:
        """0-dim, of the edges before cycles are excluded."""
        each = bernoulli_entropies(self.logits)
        if self.consult_logit is None:
            return each.sum()
        into = self._into_decision
        yes, no = logsigmoid(self.consult_logit), logsigmoid(-self.consult_logit)
        vain = logsigmoid(-self.logits[into]).sum()  # log prod (1 - p_e)
        silent = or_zero(log_sum_exp(no, yes + vain))
        # over all sets of edges but the empty one: -sum c q (log c + log q), then the empty one
        empty = or_zero(vain)
        some = yes.exp() * (each[into].sum() + empty.exp() * empty - (1 - vain.exp()) * or_zero(yes))
        return each[~into].sum() + some - silent.exp() * silent

    @staticmethod
    def _closes_cycle(pairs: Collection[EdgeKey], key: EdgeKey) -> bool:
        """Whether an edge would close a cycle with others within a round."""
        if len(key) > 2:
            return False
        return reaches([(other[0], other[1]) for other in pairs if len(other) == 2], key[1], key[0])

    def _draw(
        self, wanted: Callable[[int], bool], channels: Sequence[int], steps: Sequence[int]
    ) -> tuple[Topology, Tensor]:
        """The topology of the wanted edges that are free, and its log-probability.

        Args:
            channels: of each candidate, its channel's number; empty for no choice.
            steps: of each agent, the number of its choice; likewise.
        """
        drawn: list[int] = []
        free: list[int] = []
        pairs: set[EdgeKey] = set()
        for e, key in enumerate(self.candidates):
            if self._closes_cycle(pairs, key):
                continue
            free.append(e)
            if wanted(e):
                drawn.append(e)
                pairs.add(key)
        log_prob = self._edge_log_prob(drawn, free)
        if self.channel_logits is not None:
            channel_log_probs = torch.log_softmax(settled(self.channel_logits), dim=1)
            log_prob = log_prob + channel_log_probs[drawn, [channels[e] for e in drawn]].sum()
        if self.latent_logits is not None:
            step_log_probs = torch.log_softmax(settled(self.latent_logits), dim=1)
            log_prob = log_prob + step_log_probs[range(self.n_agents), list(steps)].sum()
        chances = self.probabilities.detach().tolist()
        edges = tuple(self._edge(e, chances[e], channels) for e in drawn)
        table = tuple((*key, chance) for key, chance in zip(self.candidates, chances, strict=True))
        counts = tuple(self.latent_choices[choice] for choice in steps) if self.latent_choices else None
        return Topology(self.n_agents, edges, table, counts), log_prob

    def _edge_log_prob(self, drawn: list[int], free: list[int]) -> Tensor:
        """0-dim log-probability of drawing these of the edges that were free to choose."""
        outcome = torch.zeros(len(self.candidates), device=self.logits.device)
        outcome[drawn] = 1.0
        each = bernoulli_log_probs(self.logits[free], outcome[free])
        if self.consult_logit is None:
            return each.sum()
        into = self._into_decision[free]
        consulted = logsigmoid(self.consult_logit) + each[into].sum()
        if not outcome[free][into].any():
            consulted = log_sum_exp(logsigmoid(-self.consult_logit), consulted)
        return consulted + each[~into].sum()

    def _edge(self, e: int, chance: float, channels: Sequence[int]) -> Edge:
        key = self.candidates[e]
        channel = self.channels[channels[e]] if self.channels else None
        return Edge(key[0], key[1], 1.0 if self.hard else _weight(chance), chance, delay=len(key) - 2, payload=channel)


def _picked(logits: Tensor | None, generator: Stream | None) -> list[int]:
    """One column per row, drawn from the softmax of the row."""
    if logits is None:
        return []
    uniform = uniforms((logits.shape[0], 1), generator)
    below = torch.softmax(settled(logits.detach()), dim=1).cumsum(dim=1).cpu()
    # none behind the last one that is possible, although a sum may be a little less than 1
    picked: list[int] = ((uniform >= below) & (below < below[:, -1:])).sum(dim=1).tolist()
    return picked


def _weight(probability: float) -> float:
    """Keeps a drawn edge's weight in (0, 1] where its probability underflowed."""
    return min(max(probability, 1e-12), 1.0)
