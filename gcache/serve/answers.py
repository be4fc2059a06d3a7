"""A question for the whole graph: how it is worked on in the engine's thread, where the model and the graph live."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from gcache.agents.chat_template import as_text
from gcache.agents.prompts import ChatLayout
from gcache.agents.roles import Agent
from gcache.agents.thinking import ThinkSplitter, split_thinking
from gcache.errors import ConfigError, GcacheError, ModelError
from gcache.gnn.greedy import topology_name
from gcache.gnn.topology import Topology
from gcache.graph.agent_graph import AgentGraph
from gcache.graph.agent_models import AgentModel
from gcache.graph.cache_graph import CacheGraph
from gcache.graph.events import Event
from gcache.graph.memo import RolloutMemo
from gcache.graph.result import RunResult, Spoken
from gcache.graph.text_backends import LocalTextBackend
from gcache.inspect.attended_words import attended
from gcache.llm.decode.stopping import first_stop
from gcache.llm.local import LocalLLM
from gcache.serve.choice_stream import ChoiceStream
from gcache.serve.completing import all_of
from gcache.serve.context_length import check_characters, check_room, check_told
from gcache.serve.deltas import Answer, Choice, Delta, SamplingParams, Tell
from gcache.serve.events import agents_json, edge_bytes_json, edges_json, event_json, probabilities_json
from gcache.serve.model import ServedModel
from gcache.serve.refusals import Refused
from gcache.tasks.example import Example

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class AskGraph:
    """A question for the graph's agents.

    Attributes:
        trace: whether what happens is told, and what latent steps can be read as; of one choice alone.
        most: tokens that an answer may have; the graph's own number is cut to it.
        stream: whether the text is told as it grows. Where nobody reads it yet, that would cost every step of the batch
            a decoding of each text and a call into another thread.
        template: variables of the chat template.
    """

    example: Example
    draw: SamplingParams
    most: int
    trace: bool = False
    stream: bool = True
    template: Mapping[str, Any] = field(default_factory=dict)

    async def __call__(self, served: ServedModel, tell: Tell) -> Answer:
        graph, example = served.graph, served.given(self.example)
        _check_example(served, example)
        agents = graph.agents_of(example)
        topology = graph.topology(example)
        check_draw(graph, topology, self.draw)
        most = self.draw.max_tokens or min(self.most, graph.config.max_new_tokens)
        check_told(self.draw.n * most, self.draw.top_log_probs)
        layout = layout_of(served, self.template)
        check_room(served, example.question, agents, topology, most, as_text(self.template))
        tell(Delta())  # it has begun
        # several answers to a question: the agents think once, and each answer is drawn by a seed of its own
        memo = RolloutMemo() if self.draw.n > 1 else None
        answering = _Answering(replace(self, example=example), served, agents, topology, most, tell, memo, layout)
        results = await all_of([answering.go(number, seed) for number, seed in enumerate(self.draw.seeds)])
        if not self.trace:
            return _answer(results, None)
        tell(Delta(event={"kind": "done", "edge_bytes": edge_bytes_json(results[0][0].edge_bytes)}))
        trace = _trace(results[0][0])
        if answering.looks_into:
            trace["heard"] = _heard(served, results[0][0])
            tell(Delta(event={"kind": "heard", "documents": trace["heard"]}))
        return _answer(results, trace)


@dataclass(frozen=True)
class _Answering:
    """What all choices of a question have in common."""

    ask: AskGraph
    served: ServedModel
    agents: tuple[Agent, ...]
    topology: Topology
    most: int
    tell: Tell
    memo: RolloutMemo | None
    layout: ChatLayout | None

    @property
    def looks_into(self) -> bool:
        """Whether it is told which documents, and which of their words, the answer attended to."""
        return self.ask.trace and self.served.library is not None and self.memo is None

    async def go(self, number: int, seed: int) -> tuple[RunResult, Choice]:
        """One choice."""
        ask, served, draw = self.ask, self.served, self.ask.draw
        parting = None if self.layout is None else ThinkSplitter(self.layout.thinks)
        telling = ChoiceStream(served, draw, self.tell, number, parting=parting)

        def watch(event: Event) -> None:
            if event.kind == "text":
                if ask.stream:
                    telling.scores(event.scores)
                    telling.written(event.tokens)
            elif ask.trace:
                self.tell(Delta(event=event_json(event, self.agents, served.llm)))

        result = await served.graph.arun(
            ask.example, topology=self.topology, temperature=draw.temperature, seed=seed, memo=self.memo,
            keep_caches=self.looks_into, max_new_tokens=self.most, stop=draw.stop,
            watch=watch if ask.stream or ask.trace else None, keep_states=ask.trace, top_p=draw.top_p,
            top_log_probs=draw.top_log_probs, chat_template_kwargs=ask.template, words_seed=draw.seeds[0],
        )  # fmt: skip
        if served.llm is not None and draw.max_tokens:
            result = _shortened(result, draw.max_tokens, served.llm)
        text, whole, spoken = _text(result, draw.stop)
        scores = () if spoken.generation is None else spoken.generation.scores
        told = telling.finish(text, scores, ask.stream, spoken.reasoning)
        return result, Choice(text, "stop" if whole else "length", told, spoken.reasoning)


def layout_of(served: ServedModel, template: Mapping[str, Any]) -> ChatLayout | None:
    """How the local model's prompts are laid out under variables of the template; None where an API says everything.

    Raises:
        Refused: they are none, or the template fails with them.
    """
    graph = served.graph
    speaker = graph.models[0] if isinstance(graph, CacheGraph) else getattr(graph, "backend", None)
    if not isinstance(speaker, (AgentModel, LocalTextBackend)):
        if template:
            why = "null or left out (an API writes here, and its templates are its own)"
            raise Refused(400, f"chat_template_kwargs must be: {why}", "chat_template_kwargs", "invalid_value")
        return None
    try:
        return speaker.layouts.of(as_text(template))
    except (ConfigError, ModelError) as error:
        raise Refused(400, str(error), "chat_template_kwargs", "invalid_value") from error


def check_draw(graph: AgentGraph, topology: Topology, draw: SamplingParams) -> None:
    """Refuse a way to draw, or to tell of it, that the writer of this graph's answers does not have.

    Raises:
        Refused: with why.
    """
    if graph.mode != "local":
        why = f"in the mode {graph.mode} an API writes the answer, and only the local model"
        if draw.top_p != 1:
            raise Refused(400, f"top_p must be: 1 here ({why} draws so)", "top_p", "invalid_value")
        if draw.top_log_probs is not None:
            raise Refused(400, f"logprobs must be: false here ({why} tells them)", "logprobs", "invalid_value")
    texts = len(graph.decision.groups([edge.weight for edge in topology.into(topology.decision_node)]))
    if graph.decision.method == "marginal":
        why = "the answer is chosen, and no text is written for it"
        if draw.top_p != 1:
            raise Refused(400, f"top_p must be: 1 here ({why})", "top_p", "invalid_value")
        if draw.top_log_probs is not None:
            raise Refused(400, f"logprobs must be: false here ({why})", "logprobs", "invalid_value")
    if draw.top_log_probs is not None and texts > 1:
        raise Refused(
            400, f"logprobs must be: false here ({texts} texts vote on the answer, and no one text has its chances)",
            "logprobs", "invalid_value",
        )  # fmt: skip


@dataclass(frozen=True)
class AskTopology:
    """Who would hand to whom on a question, without asking it."""

    example: Example

    async def __call__(self, served: ServedModel) -> dict[str, Any]:
        example = served.given(self.example)
        _check_example(served, example)
        topology = served.graph.topology(example)
        return {
            "question": example.question, "agents": agents_json(served.graph.agents_of(example)),
            "edges": edges_json(topology), "probabilities": probabilities_json(topology),
            "called": topology_name(served.graph, example),
        }  # fmt: skip


def _check_example(served: ServedModel, example: Example) -> None:
    """Refuse what need not be looked at closer.

    Raises:
        Refused: a question without agents where the graph has none, or texts beyond any context.
    """
    if not example.notes and not served.brings_agents:
        raise Refused(
            400,
            "this graph has no agents of its own: every question brings them, as "
            '"gcache": {"agents": [{"role": ..., "description": ..., "note": ...}, ...]}',
            "gcache.agents",
        )
    check_characters(served, "\n".join([example.question, *(note.text for note in example.notes)]))


def _heard(served: ServedModel, result: RunResult) -> list[dict[str, Any]]:
    """The documents that were heard, the one attended to most first; without shares where attention is not seen."""
    assert isinstance(served.graph, CacheGraph) and served.llm is not None
    try:
        with served.llm.ledger.turn:
            found = attended(served.graph, served.llm, result)
    except Exception as error:  # caches that were let go, attention that is not seen, no memory: the answer is there
        expected = isinstance(error, GcacheError)
        logger.warning("what the answer attended to cannot be told: %s", error, exc_info=not expected)
        return [
            {"agent": agent, "role": result.agents[agent].role, "share": None, "words": []}
            for _, agent in sorted(result.prompts)
        ]
    return [
        {
            "agent": each.agent, "role": result.agents[each.agent].role, "share": each.share,
            "words": [{"word": word, "share": share} for word, share in each.words],
        }
        for each in found
    ]  # fmt: skip


def _answer(results: Sequence[tuple[RunResult, Choice]], trace: dict[str, Any] | None) -> Answer:
    """Of one run for each choice, of which the agents' turns were run once."""
    steps = [step for result, _ in results for step in result.trace if step.what != "answer"]
    steps += [step for step in results[0][0].trace if step.what == "answer"]
    tokens = [result.tokens for result, _ in results]
    return Answer(
        tuple(choice for _, choice in results), sum(step.prefilled + step.stored + step.api_read for step in steps),
        sum(_written(result.chosen) for result, _ in results), sum(each["prefilled"] for each in tokens),
        sum(each["generated"] for each in tokens), trace,
    )  # fmt: skip


def _shortened(result: RunResult, most: int, llm: LocalLLM) -> RunResult:
    """A run whose answer is an agent's text, cut off where the request says that an answer ends at the latest."""
    text = None if result.ballot is None else result.chosen.generation
    if text is None or result.ballot is None or len(text.tokens) <= most:
        return result
    short = replace(text, tokens=text.tokens[:most], text=llm.text(list(text.tokens[:most])), finished=False)
    option = replace(result.ballot.choice, generation=short)
    option = replace(option, text=split_thinking(short.text, option.thinks).answer)
    options = tuple(option if n == result.ballot.chosen else each for n, each in enumerate(result.ballot.options))
    return replace(result, answer=option.text, ballot=replace(result.ballot, options=options))


def _text(result: RunResult, stop: tuple[str, ...]) -> tuple[str, bool, Spoken]:
    """An answer, whether it ended by itself, and what was spoken for it. Where others than the local model write, a
    stop word is looked for when all is there."""
    cut = first_stop(result.answer, stop) if stop else None
    chosen = result.chosen
    return result.answer if cut is None else result.answer[:cut], cut is not None or not chosen.cut, chosen


def _trace(result: RunResult) -> dict[str, Any]:
    return {
        "agents": agents_json(result.agents),
        "topology": {"edges": edges_json(result.topology), "probabilities": probabilities_json(result.topology)},
        "edge_bytes": edge_bytes_json(result.edge_bytes),
    }


def _written(spoken: Spoken) -> int:
    if spoken.api is not None:
        return spoken.api.completion_tokens or 0
    return 0 if spoken.generation is None else len(spoken.generation.tokens)
