"""The topology policy: a GCN over the roles, and a directed edge head.

    x_i = [ r_i ; q ; r_i * q ]                          role, query, and where they agree
    h   = relu(W x),   z = h + GCNConv(h, role graph)    (Kipf & Welling 2017, eq. 2)
    c_i = 4 sqrt(F) (cos(r_i, q) - mean over agents)       whose business the question is
    logit(i -> j) = v_kind . relu(U_kind [ z_i ; z_j ; z_i * z_j ]) + s_kind c_i + t c_j + u_kind . k_i + b_kind

kind is "among agents", "into the decision maker", which has no c_j, or "from the round before"; k_i are the cues of
`gcache.gnn.cues`, where any are chosen; s_kind, t and u_kind start at 0, so that before training every edge of a kind
is about as likely, whatever the question.
Where they are chosen, the channel of an edge is a softmax of another such head, an agent's number of
latent steps one of a head on z_i (both begin all but uniform), and whether the decision maker consults anybody
the sigmoid of a head on its z. Three things depart from the
published design (G-Designer, Zhang et al. 2024, eq. 5-9), all because a topology has to depend on
the question: the elementwise product r_i * q, without which the head learns which roles are good
on average and stops there; the agreement c_i, which carries over to roles never trained on; and the
residual around the GCN, without which the nodes of a densely connected role graph all become
their mean.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from gcache.errors import ConfigError
from gcache.gnn.cue_names import KNOWN, MESSAGES, check_cues
from gcache.gnn.cues import messages
from gcache.gnn.distribution import EdgeDistribution, candidate_edges
from gcache.gnn.heard_share import shifted
from gcache.gnn.topology import Topology, check_choices

if TYPE_CHECKING:
    from gcache.runtime.streams import Stream


@dataclass(frozen=True)
class QuestionFeatures:
    """What the policy sees of a question.

    Attributes:
        roles: (N + 1, F) embeddings of the agents' role descriptions, the decision maker's last.
        query: (F,) embedding of the question.
        cues: (N, 3) what is known beforehand of `gcache.gnn.cues`; None for nothing.
        cites: (N, N) 1 where an agent names another; None where nobody does.
    """

    roles: Tensor
    query: Tensor
    cues: Tensor | None = None
    cites: Tensor | None = None

    def __post_init__(self) -> None:
        if self.roles.dim() != 2 or tuple(self.query.shape) != (self.roles.shape[1],):
            raise ConfigError(
                f"roles must be (N + 1, F) and query (F,), got {tuple(self.roles.shape)} "
                f"and {tuple(self.query.shape)}"
            )
        for name, table, width in (("cues", self.cues, len(KNOWN)), ("cites", self.cites, self.n_agents)):
            if table is not None and tuple(table.shape) != (self.n_agents, width):
                raise ConfigError(f"{name} must be ({self.n_agents}, {width}), got {tuple(table.shape)}")

    @property
    def n_agents(self) -> int:
        return int(self.roles.shape[0]) - 1


#: Scale of the features' entries (a unit vector's are about 1 / sqrt(F)), of c_i and of the cues. Small features
#: and a large c_i make the policy learn first what carries over to new roles.
FEATURE_SCALE = 0.3
CONCERN_SCALE = 4.0
CUE_SCALE = 24.0


class TopologyPolicy(nn.Module):
    """Maps a question to a distribution over topologies.

    Args:
        feature_dim: F of the role and query features.
        hidden_dim: width of the GCN and of the edge head.
        decision_probability: mean probability, before training, of an edge into the decision maker.
        agent_probability: the same for an edge among agents, within a round or from the one before; 0 where agents
            hear nobody: there are no such edges.
        temporal: whether there are edges from the round before.
        channels: what may go over an edge, of `gcache.gnn.topology.CHANNELS`; () where that is no choice.
        latent_choices: numbers of latent steps that an agent may take; () where that is no choice.
        consult_probability: mean probability, before training, that the decision maker consults anybody, as a choice
            before its edges (see `gcache.gnn.distribution`); None where it is none. `decision_probability` is
            that of an edge once it consults.
        cues: what else it sees, of `gcache.gnn.cue_names.CUES`.
        heard: so many agents the decision maker hears in the mean, once it consults; `decision_probability` is then
            not used. See `gcache.gnn.heard_share`. None for as many as it learns.
        hard_edges: whether a drawn edge weighs 1, instead of its probability. A text then depends on the policy
            through the topology alone, and log p(G) times its utility is the whole gradient.

    Raises:
        ConfigError: a probability, a channel, a number or a cue that is not allowed.
    """

    def __init__(
        self,
        feature_dim: int,
        hidden_dim: int = 64,
        decision_probability: float = 0.5,
        agent_probability: float = 0.1,
        temporal: bool = False,
        channels: Sequence[str] = (),
        latent_choices: Sequence[int] = (),
        consult_probability: float | None = None,
        cues: Sequence[str] = (),
        heard: float | None = None,
        hard_edges: bool = False,
    ) -> None:
        super().__init__()
        from torch_geometric.nn import GCNConv

        check_probabilities(
            decision=decision_probability, agent=agent_probability, consult=consult_probability
        )
        check_choices(channels, latent_choices)
        check_cues(cues)
        if heard is not None and not 0 < heard < float("inf"):
            raise ConfigError(f"heard must be above 0, got {heard}")
        self.feature_dim, self.cues, self.heard, self.hard_edges = feature_dim, tuple(cues), heard, hard_edges
        self.temporal, self.channels, self.latent_choices = temporal, tuple(channels), tuple(latent_choices)
        self.among = agent_probability > 0
        if temporal and not self.among:
            raise ConfigError("with agent_probability 0 no agent hears another, in the round before neither; raise it")
        self.read = nn.Linear(3 * feature_dim, hidden_dim)
        self.gcn = GCNConv(hidden_dim, hidden_dim)
        kinds = [*([agent_probability] * self.among), decision_probability, *([agent_probability] * temporal)]
        # s_kind of the first two kinds, t, and for edges from the round before s_kind and t of their own
        self.agreement = nn.Parameter(torch.zeros(5 if temporal else 3 if self.among else 1))
        self.cue_weights = nn.Parameter(torch.zeros(len(kinds), len(cues))) if cues else None  # u_kind
        self.heads = nn.ModuleList(_edge_head(hidden_dim, probability) for probability in kinds)
        self.channel_head = _head(3 * hidden_dim, hidden_dim, len(channels)) if channels else None
        self.latent_head = _head(hidden_dim, hidden_dim, len(latent_choices)) if latent_choices else None
        self.consult_head = (
            None if consult_probability is None else _head(hidden_dim, hidden_dim, 1, _logit(consult_probability))
        )

    def sample(
        self, features: QuestionFeatures, generator: Stream | None = None
    ) -> tuple[Topology, Tensor]:
        """A topology drawn for a question, and its log-probability (0-dim, with gradient)."""
        distribution: EdgeDistribution = self(features)
        return distribution.sample(generator)

    def most_likely(self, features: QuestionFeatures) -> tuple[Topology, Tensor]:
        """A question's likeliest topology (`EdgeDistribution.most_likely`), and its log-probability."""
        distribution: EdgeDistribution = self(features)
        return distribution.most_likely()

    def forward(self, features: QuestionFeatures) -> EdgeDistribution:
        """The distribution over topologies of N agents.

        Raises:
            ConfigError: features of another width than the policy was built for.
        """
        if features.roles.shape[1] != self.feature_dim:
            raise ConfigError(
                f"features have width {features.roles.shape[1]}, the policy was built for {self.feature_dim}; "
                "use the encoder it was trained with"
            )
        n = features.n_agents
        scale = self.feature_dim**0.5  # unit vectors to entries of about 1
        roles, query = features.roles * scale, features.query * scale
        agree = roles * query  # (N + 1, F)
        hidden = torch.relu(self.read(FEATURE_SCALE * torch.cat((roles, query.expand_as(roles), agree), dim=1)))
        nodes = hidden + self.gcn(hidden, _role_graph(n, hidden.device))
        candidates = [key for key in candidate_edges(n, self.temporal) if self.among or key[1] == n]
        sources = torch.tensor([key[0] for key in candidates], device=hidden.device)
        targets = torch.tensor([key[1] for key in candidates], device=hidden.device)
        # 0 among agents, 1 into the decision maker, 2 from the round before; where there is one kind, that is 0
        kinds = torch.tensor(
            [2 if len(key) > 2 else int(key[1] == n and self.among) for key in candidates], device=hidden.device
        )
        pairs = torch.cat((nodes[sources], nodes[targets], nodes[sources] * nodes[targets]), dim=1)
        cosine = agree.sum(dim=1) / self.feature_dim  # (N + 1,)
        concern = CONCERN_SCALE * scale * (cosine - cosine[:n].mean())
        scores = torch.cat([head(pairs) for head in self.heads], dim=1).gather(1, kinds[:, None]).squeeze(1)
        sources_of = [0, 1, 3] if self.temporal else [0, 1] if self.among else [0]
        of_source = self.agreement[sources_of][kinds]
        nothing = self.agreement.new_zeros(1)
        of_target = torch.cat((self.agreement[2:3], nothing, self.agreement[4:]))[kinds]
        scores = scores + concern[sources] * of_source + concern[targets] * of_target
        if self.cue_weights is not None:
            scores = self._with_cues(scores, features, sources, kinds)
        scores = torch.cat((self._limited(scores[:n]), scores[n:]))  # candidates begin with those into the decision
        return EdgeDistribution(
            n, tuple(candidates), scores,
            self.channels, None if self.channel_head is None else self.channel_head(pairs),
            self.latent_choices, None if self.latent_head is None else self.latent_head(nodes[:n]),
            None if self.consult_head is None else self.consult_head(nodes[n]).squeeze(0), self.hard_edges,
        )  # fmt: skip

    def _with_cues(self, scores: Tensor, features: QuestionFeatures, sources: Tensor, kinds: Tensor) -> Tensor:
        """(E,) logits with what each edge's source has of the cues. Messages tell of the edges into the decision maker,
        with which the candidates begin, one for each agent in turn."""
        assert self.cue_weights is not None
        n = features.n_agents
        weights = CUE_SCALE * self.cue_weights[kinds]  # (E, C)
        known = scores.new_zeros(n, len(KNOWN)) if features.cues is None else features.cues
        for c, name in enumerate(self.cues):
            if name in KNOWN:
                scores = scores + weights[:, c] * known[sources, KNOWN.index(name)]
        if features.cites is None or not set(self.cues) & set(MESSAGES):
            return scores
        told = messages(torch.sigmoid(self._limited(scores[:n])), features.cites)  # (N, 2)
        for c, name in enumerate(self.cues):
            if name in MESSAGES:
                scores = scores + weights[:, c] * told[sources, MESSAGES.index(name)]
        return scores

    def _limited(self, into_decision: Tensor) -> Tensor:
        """(N,) logits of which so many come true in the mean, where that is given."""
        return into_decision if self.heard is None else shifted(into_decision, self.heard)


def check_probabilities(**probabilities: float | None) -> None:
    """Raise ConfigError, naming `NAME_probability`, for one that is not between 0 and 1. None is no choice; 0 among
    agents says that there are no such edges."""
    for name, value in probabilities.items():
        if value is not None and not 0.0 < value < 1.0 and (name, value) != ("agent", 0):
            besides = ", or 0 for none among agents" if name == "agent" else ""
            raise ConfigError(f"{name}_probability must be between 0 and 1, both excluded{besides}, got {value}")


def _edge_head(width: int, probability: float) -> nn.Sequential:
    """Scores a pair of nodes; before training it says `probability`, almost whatever the pair."""
    return _head(3 * width, width, 1, _logit(probability))


def _logit(probability: float) -> float:
    return float(torch.logit(torch.tensor(probability)))


def _head(inputs: int, width: int, outputs: int, bias: float = 0.0) -> nn.Sequential:
    """An MLP that says `bias` for each output before training, almost whatever it is shown."""
    last = nn.Linear(width, outputs)
    nn.init.normal_(last.weight, std=0.01)
    nn.init.constant_(last.bias, bias)
    return nn.Sequential(nn.Linear(inputs, width), nn.ReLU(), last)


def _role_graph(n_agents: int, device: torch.device) -> Tensor:
    """(2, .) edges of the role graph: every agent with every other, and with the decision maker."""
    pairs = [(i, j) for i in range(n_agents) for j in range(n_agents + 1) if i != j]
    return torch.tensor(pairs, dtype=torch.long, device=device).T.contiguous()
