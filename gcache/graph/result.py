"""What a run leaves behind."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from gcache.agents.thinking import split_thinking
from gcache.errors import GcacheError
from gcache.graph.ballot import Ballot

if TYPE_CHECKING:  # a configuration is made before torch is there
    from torch import Tensor

    from gcache.agents.roles import Agent
    from gcache.cache.kv_cache import KVCache
    from gcache.gnn.payload import Payload
    from gcache.gnn.topology import EdgeKey, Topology
    from gcache.llm.api.client import ApiText
    from gcache.llm.requests import Generation
    from gcache.tasks.example import Example

#: Questions in flight at once where nobody says otherwise.
MAX_CONCURRENT = 64

#: Whose slots a link brought, the number of the model that read them, and whether they are of latents alone.
Carried = tuple[tuple[int, int], int, bool]

#: Kinds of tokens that are counted.
TOKENS = ("prefilled", "latent", "generated", "api_read", "api_written")


@dataclass(frozen=True)
class Step:
    """One line of a trace.

    Attributes:
        agent: its number; N is the decision maker.
        role: its name.
        round: 0 for the first.
        what: "think", "shared" (another rollout's thought of the same inputs was used),
            "unheard" (no path leads to the decision maker, so nothing was computed), "answer",
            "memory" (something gave way to the limit of cache bytes while the run was going on),
            "say" (an agent of a graph without caches spoke), "failed" (its text failed for good).
        started, ended: seconds since the run began.
        prefilled, latent, generated: tokens this step computed here.
        stored: tokens whose cache a store keeps (`gcache.llm.cache_store`), whether this step found it there or was the
            first to make it; they are not among the prefilled.
        api_read, api_written: tokens that an API read and wrote for it, by its own count.
        received: slots that came over edges.
        note: of a "memory" step, what gave way; of a "failed" one, how.
    """

    agent: int
    role: str
    round: int
    what: str
    started: float
    ended: float
    prefilled: int = 0
    latent: int = 0
    generated: int = 0
    received: int = 0
    note: str = ""
    api_read: int = 0
    api_written: int = 0
    stored: int = 0


@dataclass(frozen=True)
class Arrival:
    """What came to a turn over one edge, or from the same agent's turn of the round before.

    Attributes:
        sender: (round, agent).
        key: the edge's; None for what the agent kept of its own.
        payload: what was to go over it.
        slots: how many came; None where words alone did.
        nbytes: of keys and values that went over it; of hidden states or embeddings where a link carried them.
        carried: what another model read, where a link carried it; see `KeptCaches.carried`.
    """

    sender: tuple[int, int]
    key: EdgeKey | None
    payload: Payload
    slots: int | None = None
    nbytes: int = 0
    carried: Carried | None = None


class Written:
    """What a text says, whether the local model or an API wrote it.

    Attributes:
        generation, api, thinks: see `Spoken`.
    """

    generation: Generation | None
    api: ApiText | None
    thinks: bool

    @property
    def text(self) -> str:
        """The answer: the API's where there is one, else the local model's; without what stands in think tags."""
        return split_thinking(self.whole, self.thinks if self.api is None else None).answer

    @property
    def reasoning(self) -> str:
        """What stands in think tags."""
        return split_thinking(self.whole, self.thinks if self.api is None else None).thinking

    @property
    def whole(self) -> str:
        """All that was written."""
        if self.api is not None:
            return self.api.text
        return "" if self.generation is None else self.generation.text

    @property
    def cut(self) -> bool:
        """Whether a length limit cut the text off."""
        if self.api is not None:
            return self.api.finish_reason == "length"
        return self.generation is not None and not self.generation.finished


@dataclass(frozen=True)
class Spoken(Written):
    """One text the decision maker wrote: on which agents' caches, after which prompt.

    Attributes:
        generation: what the local model wrote, None where it wrote nothing.
        api: what an API wrote, None where none was asked.
        hint: what the API was told of the caches.
        thinks: whether the local model's prompt ended inside a think tag.
    """

    heard: tuple[int, ...]
    tokens: tuple[int, ...]
    generation: Generation | None
    api: ApiText | None = None
    hint: str = ""
    thinks: bool = False


class KeptCaches:
    """The caches of a run that is over, for as long as nobody needs their room.

    Args:
        shared: the question's cache, of the decision maker's model.
        own: (round, agent) -> the agent's own slots.
        carried: what links brought to other models.
    """

    def __init__(
        self,
        shared: KVCache | None,
        own: Mapping[tuple[int, int], KVCache],
        carried: Mapping[Carried, KVCache] | None = None,
    ) -> None:
        # one tuple, read and dropped at once: a run in another thread may need the room at any moment
        self._kept = None if shared is None else (shared, dict(own), dict(carried or {}))

    @property
    def released(self) -> bool:
        """Whether they are gone."""
        return self._kept is None

    def get(self) -> tuple[KVCache, Mapping[tuple[int, int], KVCache]]:
        """The question's cache and the agents'.

        Raises:
            GcacheError: they were not kept, or released.
        """
        return self._all()[:2]

    def _all(self) -> tuple[KVCache, Mapping[tuple[int, int], KVCache], Mapping[Carried, KVCache]]:
        kept = self._kept
        if kept is None:
            raise GcacheError(
                "the caches of this run are gone: it was run with keep_caches=False, or they were released to stay "
                "under max_cache_gb; run the question again, or with a higher limit"
            )
        return kept

    def carried(self) -> Mapping[Carried, KVCache]:
        """What links brought to other models, before it was prepared for fusing.

        Raises:
            GcacheError: as `get`.
        """
        return self._all()[2]

    def release(self) -> int:
        """Let them go; returns the bytes of keys and values that nobody else need hold."""
        kept, self._kept = self._kept, None
        if kept is None:
            return 0
        shared, own, carried = kept
        caches = [shared, *own.values(), *carried.values()]
        return sum(cache.nbytes for cache in caches)


@dataclass(frozen=True, repr=False)
class RunResult:
    """All that belongs to one question.

    Attributes:
        answer: the text.
        topology: the one that was run.
        topology_log_prob: log p(G | q).
        spoken: the texts behind the answer, with their token ids and log-probabilities.
        trace: who did what when.
        arrivals: (round, agent) -> what came to its turn, in order; the decision maker's is the last round's.
        kept: the caches, see `shared` and `caches`.
        prompts: (round, agent) -> the tokens of its prompt, what others had said included.
        said: (round, agent) -> its text, where agents speak or write solutions.
        thinking: tokens of the agents' latent steps and texts, whether this run or another rollout
            computed them.
        states: (round, agent) -> (S, E) hidden states that its latent steps fed back, where they were kept.
        written: (round, agent) -> what the local model wrote for it: a solution, or what it said.
        reasoned: those whose solution's slots were handed on.
        ballot: how it was decided, where no text was written for it.
    """

    example: Example
    agents: tuple[Agent, ...]
    answer: str
    topology: Topology
    topology_log_prob: float
    spoken: tuple[Spoken, ...]
    trace: tuple[Step, ...]
    arrivals: Mapping[tuple[int, int], tuple[Arrival, ...]]
    kept: KeptCaches
    temperature: float
    prompts: Mapping[tuple[int, int], tuple[int, ...]] = field(default_factory=dict)
    said: Mapping[tuple[int, int], str] = field(default_factory=dict)
    thinking: int = 0
    states: Mapping[tuple[int, int], Tensor] = field(default_factory=dict, repr=False)
    written: Mapping[tuple[int, int], Generation] = field(default_factory=dict, repr=False)
    reasoned: frozenset[tuple[int, int]] = frozenset()
    ballot: Ballot | None = None

    @property
    def edge_bytes(self) -> dict[tuple[int, int], int]:
        """Bytes that were handed over, by (source, target), in all rounds."""
        found: dict[tuple[int, int], int] = {}
        for (_, target), arrived in self.arrivals.items():
            for arrival in arrived:
                if arrival.slots is not None:
                    ends = (arrival.sender[1], target)
                    found[ends] = found.get(ends, 0) + arrival.nbytes
        return found

    @property
    def cut(self) -> bool:
        """Whether a length limit cut the answer off."""
        if self.ballot is not None:
            return self.ballot.choice.cut
        return any(spoken.cut and spoken.text == self.answer for spoken in self.spoken)

    @property
    def chosen(self) -> Spoken:
        """The text behind the answer: the decision maker's, or an agent's that states what it chose."""
        if self.ballot is None:
            return next((spoken for spoken in self.spoken if spoken.text == self.answer), self.spoken[0])
        choice = self.ballot.choice
        return Spoken(self.ballot.heard, (), choice.generation, thinks=choice.thinks)

    def __repr__(self) -> str:
        """In one line: what else a run left behind has names of its own."""
        agents, edges = len(self.agents), len(self.topology.edges)
        return f"RunResult({self.example.id!r}, answer={self.answer!r}, {agents} agents, {edges} edges)"

    def _repr_html_(self) -> str:
        """What a notebook shows: question, answer, topology, and who did what."""
        from html import escape

        from gcache.gnn.svg import topology_svg

        names = self.topology.names([agent.role for agent in self.agents])
        columns = ("role", "round", "what", "prefilled", "latent", "generated", "received")
        head = "".join(f"<th>{name}</th>" for name in (*columns, "seconds"))
        rows = "".join(
            "<tr>"
            + "".join(f"<td>{escape(str(getattr(step, name)))}</td>" for name in columns)
            + f"<td>{step.ended - step.started:.2f}</td></tr>"
            for step in self.trace
        )
        picture = topology_svg(self.topology.n_agents, self.topology.edges, names)
        return (
            f"<p><b>{escape(self.example.question)}</b></p><p>{escape(self.answer)}</p>"
            f"{picture}<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>"
        )

    @property
    def stored(self) -> int:
        """Tokens whose caches a store keeps; see `Step.stored`."""
        return sum(step.stored for step in self.trace)

    @property
    def shared(self) -> KVCache:
        """The question's cache. Raises GcacheError where it was not kept."""
        return self.kept.get()[0]

    @property
    def caches(self) -> Mapping[tuple[int, int], KVCache]:
        """(round, agent) -> the agent's own slots. Raises GcacheError where they were not kept."""
        return self.kept.get()[1]

    @property
    def text_log_prob(self) -> float:
        """log pi(y | q, G), summed over all texts of the local model; or that of the answer that was chosen."""
        if self.ballot is not None:
            return self.ballot.log_prob
        return sum(s.generation.log_prob for s in self.spoken if s.generation is not None)

    @property
    def texts(self) -> tuple[bool, ...]:
        """Of every text that was written for it, whether a length limit cut it off: the agents', then answers."""
        return (*(not s.finished for s in self.written.values()), *(s.cut for s in self.spoken))

    @property
    def solutions(self) -> dict[tuple[int, int], Generation]:
        """(round, agent) -> the solution whose slots it handed on."""
        return {node: text for node, text in self.written.items() if node in self.reasoned}

    @property
    def tokens(self) -> dict[str, int]:
        """Tokens of this run, by `TOKENS`."""
        return {name: sum(getattr(s, name) for s in self.trace) for name in TOKENS}
