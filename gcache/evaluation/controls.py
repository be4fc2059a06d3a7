"""Controls: does the channel matter, or would the answer have been right without it?

Every control asks the same questions of the same agents and changes one thing of a trained graph:

    no transfer        no edge at all
    masked             the caches are handed over, but nobody attends to them
    zeroed             slots that are attended to and hold nothing (keys and values 0)
    noise              keys and values at random, each at its own norm
    other question     what the same edges carried for another question, of as many agents; a question that is the
                       only one with its number of agents is left out
    random latents     as noise, the slots of latent steps alone
    identity W_a       latent steps feed back the hidden state itself
    random W_a         latent steps feed back a random projection of it
    all edges          the full graph, every edge at weight 1
    star, chain,       those fixed topologies, likewise
    layered, debate
    random edges       as many edges as the trained graph has on that question, drawn at random
    same words as text the words of those that are heard, in the decision maker's own prompt: what they were told, or,
                       where they write solutions, these
    roles shuffled     each agent's cache is taken for another's: weights and edges stay where they are
    copies of the first  every agent is the first one, with a draw of its own each: is it the roles, or the draws?

If cutting the channel costs nothing, the channel carried nothing. Differences are paired over
questions, with bootstrap intervals.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch

from gcache.errors import ConfigError, unknown
from gcache.evaluation import interventions, tables
from gcache.evaluation.evaluate import Evaluation, Row, evaluate, evaluate_text
from gcache.evaluation.intervals import bootstrap_difference
from gcache.gnn.fixed import FixedTopology
from gcache.gnn.greedy import warn_where_greedy
from gcache.gnn.topology import Edge, Topology
from gcache.graph.agent_graph import Ask
from gcache.graph.cache_graph import CacheGraph
from gcache.graph.result import MAX_CONCURRENT, RunResult
from gcache.graph.routes import Routes
from gcache.llm.local import LocalLLM
from gcache.runtime.streams import generator as generator_of
from gcache.runtime.streams import shuffler
from gcache.tasks.example import Example, Task, f1s_of

logger = logging.getLogger(__name__)

#: The graph itself; every control is compared with it.
AS_IT_IS = "as it is"


@dataclass(frozen=True)
class Controlled:
    """One control's outcome.

    Attributes:
        found: its evaluation.
        difference: of its accuracy to that of the graph as it is, over its questions; low, high: the bootstrap
            interval.
    """

    found: Evaluation
    difference: float
    low: float
    high: float

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Trial:
    """What a control works with.

    Attributes:
        graph, llm: the trained graph and its model.
        topology: the trained graph's most likely one, or with many agents its greedy one, of each question by id.
        donor: of a question by id, the one whose caches it is given by "other question"; of some there is none.
        seed: of random edges and of a random W_a.
    """

    graph: CacheGraph
    llm: LocalLLM
    task: Task
    examples: Sequence[Example]
    topology: Mapping[str, Topology]
    donor: Mapping[str, Example]
    seed: int
    progress: bool

    def evaluate(
        self,
        name: str,
        ask: Ask | None = None,
        topology: Callable[[Example], Topology] | None = None,
        examples: Sequence[Example] | None = None,
    ) -> Evaluation:
        """On the trained graph's topologies and all questions, unless told otherwise."""
        chosen = topology or (lambda example: self.topology[example.id])
        asked = self.examples if examples is None else examples
        return evaluate(self.graph, self.task, asked, name, chosen, MAX_CONCURRENT, self.progress, ask=ask)

    def changed(self, name: str, **options: Any) -> Evaluation:
        """With runs that differ by these options of `arun`: an intervention, or an alignment."""

        async def ask(example: Example, topology: Topology | None) -> RunResult:
            return await self.graph.arun(example, topology=topology, keep_caches=False, **options)

        return self.evaluate(name, ask)


def _no_transfer(trial: Trial) -> Evaluation:
    return trial.evaluate("no transfer", topology=lambda e: Topology(trial.topology[e.id].n_agents))


def _other_question(trial: Trial) -> Evaluation:
    async def ask(example: Example, topology: Topology | None) -> RunResult:
        recorder = interventions.Recorder()
        await trial.graph.arun(trial.donor[example.id], topology=topology, keep_caches=False, intervention=recorder)
        return await trial.graph.arun(example, topology=topology, keep_caches=False, intervention=recorder.replay)

    return trial.evaluate("other question", ask, examples=[e for e in trial.examples if e.id in trial.donor])


def _identity(trial: Trial) -> Evaluation:
    own = trial.llm.alignment
    matrix = torch.eye(len(own.matrix), device=own.matrix.device)
    return trial.changed("identity W_a", alignment=replace(own, matrix=matrix))


def _random(trial: Trial) -> Evaluation:
    own = trial.llm.alignment
    generator = generator_of("random W_a", trial.seed)
    matrix = torch.randn(own.matrix.shape, generator=generator).to(own.matrix.device) / len(own.matrix) ** 0.5
    return trial.changed("random W_a", alignment=replace(own, matrix=matrix))


def _fixed(topology: str, name: str = "") -> Callable[[Trial], Evaluation]:
    """The control with a fixed topology instead of the learned one."""

    def evaluated(trial: Trial) -> Evaluation:
        def chosen(example: Example) -> Topology:
            return FixedTopology(topology, trial.topology[example.id].n_agents).most_likely()[0]

        return trial.evaluate(name or topology, topology=chosen)

    return evaluated


def _random_edges(trial: Trial) -> Evaluation:
    def drawn(example: Example) -> Topology:
        own = trial.topology[example.id]
        within = sum(not edge.delay for edge in own.edges)
        return random_topology(own.n_agents, within, shuffler("random edges", trial.seed, example.id))

    return trial.evaluate("random edges", topology=drawn)


def _shuffled(trial: Trial) -> Evaluation:
    def moved(example: Example) -> Topology:
        own = trial.topology[example.id]
        if own.n_agents < 2:
            return own
        by = shuffler("roles shuffled", trial.seed, example.id).randrange(1, own.n_agents)
        place = [*((agent + by) % own.n_agents for agent in range(own.n_agents)), own.n_agents]
        edges = tuple(replace(e, source=place[e.source], target=place[e.target]) for e in own.edges)
        steps = own.latent_steps and tuple(own.latent_steps[(a - by) % own.n_agents] for a in range(own.n_agents))
        return Topology(own.n_agents, edges, latent_steps=steps)

    return trial.evaluate("roles shuffled", topology=moved)


def _copies(trial: Trial) -> Evaluation:
    async def ask(example: Example, topology: Topology | None) -> RunResult:
        agents = trial.graph.agents_of(example)
        return await trial.graph.arun(example, topology=topology, keep_caches=False, agents=(agents[0],) * len(agents))

    return trial.evaluate("copies of the first", ask)


def _text(trial: Trial) -> Evaluation:
    chosen = any(edge.payload == "reasoning" for topology in trial.topology.values() for edge in topology.edges)
    if trial.graph.config.payload.reasons or chosen:  # the words are there: the same run, with these on its edges
        return trial.changed("same words as text", words_alone=True)
    return evaluate_text(
        trial.graph, trial.task, trial.examples, "same words as text", progress=trial.progress,
        topology=lambda example: trial.topology[example.id],
    )  # fmt: skip


CONTROLS: Mapping[str, Callable[[Trial], Evaluation]] = {
    AS_IT_IS: lambda trial: trial.evaluate(AS_IT_IS),
    "no transfer": _no_transfer,
    "masked": lambda trial: trial.changed("masked", intervention=interventions.masked),
    "zeroed": lambda trial: trial.changed("zeroed", intervention=interventions.zeroed),
    "noise": lambda trial: trial.changed("noise", intervention=interventions.noise),
    "other question": _other_question,
    "random latents": lambda trial: trial.changed("random latents", intervention=interventions.random_latents),
    "identity W_a": _identity,
    "random W_a": _random,
    "all edges": _fixed("full", "all edges"),
    **{name: _fixed(name) for name in ("star", "chain", "layered", "debate")},
    "random edges": _random_edges,
    "same words as text": _text,
    "roles shuffled": _shuffled,
    "copies of the first": _copies,
}
#: Controls that change nothing where no agent takes a latent step.
OF_LATENT_STEPS = ("random latents", "identity W_a", "random W_a")
#: Those of them that change the map of the one model there is.
OF_MAPS = ("identity W_a", "random W_a")
#: Controls that move caches.
OF_PLACES = ("other question",)
#: Controls that change caches on their way, or let agents hear each other.
OF_CACHES = (
    "masked", "zeroed", "noise", "other question", "random latents", "all edges", "chain", "layered", "debate",
    "random edges",
)  # fmt: skip
#: Controls after which nothing of what the agents thought reaches the decision maker.
CUTS = ("no transfer", "masked", "zeroed", "noise", "other question")


def run_controls(
    graph: CacheGraph,
    llm: LocalLLM,
    task: Task,
    examples: Sequence[Example],
    names: Sequence[str] = (),
    seed: int = 0,
    progress: bool = True,
) -> list[Controlled]:
    """A graph as it is, then under each control, on the same questions.

    Args:
        names: of `CONTROLS`; all that can change something where none is named.

    Raises:
        ConfigError: an unknown control, one of latent steps where there are none, one of a model's W_a where there
            are several models, one that moves caches of a model whose caches must stay where they are, one that
            changes caches which are read again, or no two questions with equally many agents for a control that needs
            them.
    """
    for name in names:
        if name not in CONTROLS:
            raise unknown("control", name, CONTROLS)
    warn_where_greedy(graph, examples)
    with torch.no_grad():
        topology = {example.id: graph.topology(example) for example in examples}
    still = not any(graph.latent_steps(t, agent) for t in topology.values() for agent in range(t.n_agents))
    if still and set(names) & set(OF_LATENT_STEPS):
        raise ConfigError(
            f"{', '.join(n for n in names if n in OF_LATENT_STEPS)}: no agent of this graph takes a latent step, so "
            "there is nothing to change; leave it out"
        )
    if graph.is_mixed and set(names) & set(OF_MAPS):
        raise ConfigError(
            f"{', '.join(n for n in names if n in OF_MAPS)}: the agents have several models, each with a W_a of its "
            "own; leave it out"
        )
    placed, again = _stay_where_they_are(graph, names), _read_again(graph, names)
    left_out = {*again, *(OF_LATENT_STEPS if still else ()), *(OF_MAPS if graph.is_mixed else ()), *placed, AS_IT_IS}
    chosen = [n for n in names or CONTROLS if n not in left_out]
    spoken = sum(_words_of(graph, example, topology[example.id]) for example in examples)
    if spoken and set(chosen) & set(CUTS):
        logger.warning("%d edges carry words, which controls that change caches leave as they are", spoken)
    if graph.decision.method == "marginal" and graph.may_reason and set(chosen) & set(CUTS):
        logger.warning(
            "marginal chooses among the answers that agents state, which controls that change caches leave as they are"
        )
    donor = _donors(examples, topology) if "other question" in chosen else {}
    if not donor and "other question" in chosen:
        if names:
            raise ConfigError(
                f"question {examples[0].id} is the only one with {topology[examples[0].id].n_agents} agents, and so is "
                "every other, so no question's caches fit another; raise the limit, or leave out the control "
                "'other question'"
            )
        chosen.remove("other question")
    trial = Trial(graph, llm, task, examples, topology, donor, seed, progress)
    found = [CONTROLS[name](trial) for name in (AS_IT_IS, *chosen)]
    return [Controlled(each, *bootstrap_difference(_right(found[0], each), _right(each), seed=seed)) for each in found]


def _words_of(graph: CacheGraph, example: Example, topology: Topology) -> int:
    """How many edges of a topology carry words, for whatever reason."""
    routes = Routes(graph.config.payload, topology, graph.agent_models.for_question(example.question))
    return sum(routes.payload((0, e.source), (0, e.target), e.key).words for e in topology.edges)


def _stay_where_they_are(graph: CacheGraph, names: Sequence[str]) -> tuple[str, ...]:
    """Controls that cannot be had of this graph, since a model's caches cannot be moved.

    Raises:
        ConfigError: one of them is asked for.
    """
    ropes = [t.fuser.rope for t in graph.models if t.fuser.rope is not None and t.fuser.rope.fixed]
    if not ropes:
        return ()
    if set(names) & set(OF_PLACES):
        ropes[0].require_movable()
    logger.warning("left out: %s; caches of this model cannot be moved: %s", ", ".join(OF_PLACES), ropes[0].fixed)
    return OF_PLACES


def _read_again(graph: CacheGraph, names: Sequence[str]) -> tuple[str, ...]:
    """Controls that cannot be had of this graph, since the first slots of its caches are computed anew, without what
    their agents heard.

    Raises:
        ConfigError: one of them is asked for.
    """
    if not graph.config.rereads:
        return ()
    why = f"this graph computes slots of its caches again ({graph.config.rereads})"
    if asked := [name for name in names if name in OF_CACHES]:
        raise ConfigError(
            f"{', '.join(asked)}: {why}, which would undo some of this control; leave it out, or train without reread"
        )
    logger.warning("left out: %s; %s, which would undo some of them", ", ".join(OF_CACHES), why)
    return OF_CACHES


def random_topology(n_agents: int, edges: int, rng: random.Random) -> Topology:
    """So many edges at weight 1 that close no cycle: an order of the agents is drawn, then edges that
    go along it or into the decision maker.

    Raises:
        ConfigError: more edges than an acyclic topology has room for.
    """
    most = n_agents * (n_agents + 1) // 2
    if not 0 <= edges <= most:
        raise ConfigError(f"an acyclic topology of {n_agents} agents has 0 to {most} edges, got {edges}")
    order = rng.sample(range(n_agents), n_agents)
    along = [(order[i], order[j]) for i in range(n_agents) for j in range(i + 1, n_agents)]
    pairs = rng.sample(along + [(i, n_agents) for i in range(n_agents)], edges)
    return Topology(n_agents, tuple(Edge(source, target) for source, target in pairs))


def _donors(examples: Sequence[Example], topology: Mapping[str, Topology]) -> dict[str, Example]:
    """For each question the next one, in a circle, with as many agents; none where it is the only one with so many."""
    found: dict[str, Example] = {}
    alone = 0
    for number, example in enumerate(examples):
        others = [*examples[number + 1 :], *examples[:number]]
        alike = (o for o in others if topology[o.id].n_agents == topology[example.id].n_agents)
        donor = next(alike, None)
        if donor is None:
            alone += 1
        else:
            found[example.id] = donor
    if alone:
        logger.warning(
            "other question: %d of %d questions are left out, each the only one with its number of agents",
            alone, len(examples),
        )  # fmt: skip
    return found


def _right(found: Evaluation, asked: Evaluation | None = None) -> list[float]:
    """Of each question, or of those that another evaluation asked too, whether it was right."""
    return [float(row.outcome == "right") for row in _rows(found, asked)]


def _rows(found: Evaluation, asked: Evaluation | None = None) -> list[Row]:
    ids = {row.id for row in (asked or found).rows}
    return [row for row in found.rows if row.id in ids]


def controls_markdown(rows: Sequence[Controlled]) -> str:
    """The outcomes as a Markdown table."""
    head = [
        "control", "accuracy", "95 % interval", "difference", "bootstrap interval", "unparsed", "unstated", "cut",
        "edges", "n",
    ]  # fmt: skip
    cells = [_cells(row, first=number == 0) for number, row in enumerate(rows)]
    firsts = [f1s_of(_rows(rows[0].found, row.found)) for row in rows]
    return tables.with_f1(head, cells, [row.found.f1s for row in rows], firsts)


def _cells(row: Controlled, first: bool) -> list[str]:
    """A line of the table; the graph as it is differs from nothing."""
    found = row.found
    difference = ["", ""] if first else tables.difference(row.difference, row.low, row.high)
    return [
        found.name, f"{found.accuracy:.3f}", f"{found.low:.3f} to {found.high:.3f}", *difference, str(found.unparsed),
        str(found.unstated), f"{found.cut_share:.3f}", f"{found.edges:.2f}", str(found.n),
    ]  # fmt: skip
