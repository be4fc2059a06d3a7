"""Whole questions on one shape: beside the published algorithm, and with more and more of them in hand."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import Any

from benchmarks.end_to_end import OURS, REFERENCE, Answers, System, ours, published
from benchmarks.gpu_check.checks import Check
from benchmarks.gpu_check.device import free_bytes, watched
from benchmarks.gpu_check.questions import questions
from benchmarks.gpu_check.runner import Part
from benchmarks.gpu_check.setting import Ready, limited
from benchmarks.setting import DOMAIN, Bench
from benchmarks.timing import timed
from gcache.build import assemble
from gcache.config import GraphSpec
from gcache.graph.run_config import GraphConfig
from gcache.llm.cache_budget import GB, Limits

WARM_UP_TOKENS = 4
#: The graph that is asked more and more questions at once.
TOPOLOGY, STEPS = "chain", 2
#: Slots of a pass, padding included: more than one is ever given here.
SLOTS = 2**20
#: Of the free memory, what caches may take.
CACHES = 0.5


def beside_published(ready: Ready) -> Iterator[Part]:
    """Our graphs and the published algorithm, each with the questions in hand that keep it busy; all texts are equally
    long."""
    bench, settings = ready.bench, ready.scale.settings
    short = replace(bench, settings=replace(settings, max_new_tokens=WARM_UP_TOKENS))
    found: dict[str, Any] = {}
    for name in (REFERENCE, *OURS):
        in_hand = settings.batch if name == REFERENCE else 2 * settings.batch
        _system(short, name)(bench.examples[: settings.batch], settings.batch)
        system = _system(bench, name)
        seconds, answers, peak = watched(bench, partial(system, bench.examples, in_hand))
        found[name] = _figures(answers, seconds, peak, len(bench.examples), min(in_hand, len(bench.examples)))
        yield {"systems": found}
        missing = abs(answers.generated - len(bench.examples) * settings.max_new_tokens)
        yield Check(0, "tokens that are missing from texts", f"{bench.loaded.label}, {name}", float(missing), 0)
    reference = found[REFERENCE]
    yield {
        "reference": REFERENCE,
        "ratios": {
            name: {key: own[key] / reference[key] for key in ("questions_per_second", "prefilled", "peak_bytes")}
            for name, own in found.items()
        },
    }


def _system(bench: Bench, name: str) -> System:
    return published(bench) if name == REFERENCE else ours(bench, *OURS[name])


def _figures(answers: Answers, seconds: float, peak: int, asked: int, in_hand: int) -> dict[str, Any]:
    """Tokens are per question, and so are bytes, of those in hand."""
    return {
        "seconds": seconds,
        "questions_per_second": asked / seconds,
        "prefilled": answers.prefilled / asked,
        "latent": answers.latent / asked,
        "generated": answers.generated / asked,
        "in_hand": in_hand,
        "peak_bytes": peak / in_hand,
    }


def in_hand(ready: Ready) -> Iterator[Part]:
    """Questions per second through a graph of a fixed topology, with so many in hand."""
    bench, levels, longest = ready.bench, ready.scale.levels, ready.scale.answer
    rows: list[dict[str, Any]] = []
    room = free_bytes(bench.llm.device)
    most = None if room is None else CACHES * room / GB
    limits = Limits(max(levels), SLOTS, max_cache_gb=most, prompt_lookup=False)
    for level in levels:
        asked = questions(max(level, 2), seed=level)
        with limited(bench, limits) as ledger:
            config = GraphConfig(STEPS, max_new_tokens=longest)
            spec = GraphSpec(
                llm_name=bench.name, domain=DOMAIN, agent_nums=ready.scale.agents, topology=TOPOLOGY, graph=config
            )
            graph = assemble(spec, bench.llm, bench.loaded.tokenizer).graph
            if level == levels[0]:
                graph.run_all(questions(2, seed=99), max_concurrent=2, keep_caches=False)
            seconds, results = timed(partial(graph.run_all, asked, max_concurrent=level, keep_caches=False))
            written = sum(result.tokens["generated"] for result in results)
            del graph, results
            rows.append(
                {
                    "in_hand": level,
                    "questions": len(asked),
                    "seconds": seconds,
                    "questions_per_second": len(asked) / seconds,
                    "tokens_per_second": written / seconds,
                    "peak_cache_bytes": ledger.peak,
                    "gave_way": ledger.noted,
                }
            )
        yield {"topology": TOPOLOGY, "agents": ready.scale.agents, "tokens": longest, "levels": rows}
        label = f"{bench.loaded.label}, {level} in hand"
        yield Check(0, "tokens that are missing from texts", label, float(abs(written - len(asked) * longest)), 0)
