"""Four agents that each write a solution, and a decision maker: slots handed on beside the same words as text.

    python -m benchmarks --only reasoning --models MODEL.gguf --data test.jsonl --questions 16 --repeats 3

Both write equally much: every text has `--max_new_tokens` tokens, nothing ends a turn before, and the agents that hand
on text are heard with the words that were written where slots were handed on. So what differs is what is read: slots
are there already, text is read again by everyone who hears it. Two forms: everyone hears all before (full), as agents
of a sequence of texts do, and the decision maker alone hears all (star).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from benchmarks.setting import DOMAIN, Bench
from benchmarks.timing import interleaved, ratios
from gcache.agents.decision import decision_maker
from gcache.agents.roles import Agent, pick_agents
from gcache.build import assemble
from gcache.config import GraphSpec
from gcache.gnn.providers import FixedProvider
from gcache.graph.agent_graph import AgentGraph
from gcache.graph.result import RunResult
from gcache.graph.run_config import GraphConfig
from gcache.graph.text_backends import LocalTextBackend, Prompt, TextOutput
from gcache.graph.text_graph import TextGraph
from gcache.llm.local import LocalLLM

AGENTS = 4
FORMS = ("full", "star")
SLOTS, WORDS = "slots", "the same words as text"
WARM_UP_TOKENS = 4


def measure(bench: Bench) -> dict[str, Any]:
    """Seconds and tokens of both, per form."""
    stops, bench.llm.stop_tokens = bench.llm.stop_tokens, frozenset()
    try:
        forms = {form: _measured(bench, form) for form in FORMS}
    finally:
        bench.llm.stop_tokens = stops
    return {
        "reference": WORDS, "agents": AGENTS, "batch": bench.settings.batch, "tokens": bench.settings.max_new_tokens,
        "forms": forms,
    }  # fmt: skip


def _measured(bench: Bench, form: str) -> dict[str, Any]:
    _asked(bench, _with_slots(bench, form, WARM_UP_TOKENS))  # whatever is compiled or allocated once
    graph = _with_slots(bench, form, bench.settings.max_new_tokens)
    told = {
        (result.example.question, result.agents[agent].solving_prompt(graph.decision.statement)): text
        for result in _asked(bench, graph) for (_, agent), text in result.said.items()
    }  # fmt: skip
    systems = {SLOTS: graph, WORDS: _with_words(bench, form, told)}
    rounds = interleaved({name: lambda g=g: _asked(bench, g) for name, g in systems.items()}, bench.settings.repeats)  # type: ignore[misc]
    n = len(bench.examples)
    seconds = {name: [taken for taken, _ in found] for name, found in rounds.items()}
    tokens = {
        name: {kind: sum(r.tokens[kind] for r in found[0][1]) / n for kind in ("prefilled", "generated")}
        for name, found in rounds.items()
    }  # fmt: skip
    assert tokens[SLOTS]["generated"] == tokens[WORDS]["generated"] == (AGENTS + 1) * bench.settings.max_new_tokens
    return {
        "seconds": seconds, "tokens": tokens, "time_ratio": ratios(seconds[SLOTS], seconds[WORDS]),
        "prefilled_ratio": tokens[SLOTS]["prefilled"] / tokens[WORDS]["prefilled"],
    }  # fmt: skip


def _asked(bench: Bench, graph: AgentGraph) -> list[RunResult]:
    return graph.run_all(bench.examples, max_concurrent=bench.settings.batch, keep_caches=False)


def _with_slots(bench: Bench, form: str, tokens: int) -> AgentGraph:
    config = GraphConfig(latent_steps=0, hands="reasoning", reason_tokens=tokens, max_new_tokens=tokens)
    spec = GraphSpec(domain=DOMAIN, topology=form, agent_nums=AGENTS, graph=config)
    graph = assemble(spec, bench.llm, bench.loaded.tokenizer).graph
    graph.decision = _one_who_solves()
    return graph


def _one_who_solves() -> Any:
    """A decision maker with one prompt, whatever it is handed, so that both read the same."""
    made = decision_maker(DOMAIN)
    return replace(made, judging=made.instructions, judging_prefix=made.answer_prefix)


def _with_words(bench: Bench, form: str, told: Mapping[tuple[str, str], str]) -> AgentGraph:
    tokens = bench.settings.max_new_tokens
    agents: Sequence[Agent] = pick_agents(DOMAIN, count=AGENTS)
    decision = _one_who_solves()
    asked = [replace(agent, instructions=agent.solving_prompt(decision.statement), private="") for agent in agents]
    config = GraphConfig(hands="text", latent_steps=0, speak_tokens=tokens, max_new_tokens=tokens)
    backend = _Told(bench.llm, bench.loaded.tokenizer, told)
    return TextGraph(backend, asked, decision, FixedProvider(form), config)


class _Told(LocalTextBackend):
    """Writes as many tokens as anybody, and is heard with given words."""

    def __init__(self, llm: LocalLLM, tokenizer: Any, told: Mapping[tuple[str, str], str]) -> None:
        super().__init__(llm, tokenizer)
        self.told = told

    async def say(self, prompt: Prompt) -> TextOutput:
        output = await super().say(prompt)
        words = self.told.get((prompt.question, prompt.words))
        if words is None or output.generation is None:  # the decision maker's
            return output
        return replace(output, generation=replace(output.generation, text=words))
