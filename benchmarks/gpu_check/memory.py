"""The most memory that many questions take under a limit of cache bytes, beside what the limit promises.

A limit bounds what is kept of caches: those that somebody holds, and the rows of batches. The caches of questions that
are answered give way to it. A pass needs room beside them, for what it computes and for the copies of one layer that
attention reads. How much that is, is seen where there is no limit: the peak that was measured, less the most that was
counted. So

    bound = limit + (peak without a limit - counted without a limit)

and the limit is a little more than what is counted where nothing is kept of answered questions, so that there is room
for those that are being answered, and whoever does not keep to it goes over.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from benchmarks.end_to_end import AGENTS
from benchmarks.gpu_check.checks import Check
from benchmarks.gpu_check.device import watched
from benchmarks.gpu_check.questions import questions
from benchmarks.gpu_check.runner import Part
from benchmarks.gpu_check.setting import Ready, limited
from benchmarks.setting import DOMAIN, Bench
from gcache.build import assemble
from gcache.config import GraphSpec
from gcache.graph.run_config import GraphConfig
from gcache.llm.cache_budget import GB, Limits
from gcache.tasks.example import Example

STEPS, TOKENS = 2, 8
#: The limit, to what is counted where nothing is kept.
SPARE = 1.25


def bound(ready: Ready) -> Iterator[Part]:
    """Without keeping anything, without a limit, then under one."""
    bench, (count, at_once) = ready.bench, ready.scale.in_memory
    free = Limits(at_once, 2**20, prompt_lookup=False)
    ask = partial(_run, bench, questions(count, seed=7), at_once)
    least = ask(free, keep=False)
    limit = SPARE * least["counted"]
    open_ = ask(free)
    yield {"without": open_, "nothing_kept": least}
    kept = ask(replace(free, max_cache_gb=limit / GB))
    room = max(0, open_["peak"] - open_["counted"])
    yield {"with": kept, "limit": limit, "room": room, "questions": count}
    label = bench.loaded.label
    yield Check(0, "bytes counted under a limit, to the limit", label, kept["counted"] / limit, 1.0)
    yield Check(0, "the most memory under a limit, to its bound", label, kept["peak"] / (limit + room), 1.0)
    yield Check(0, "times that something gave way to the limit", label, float(kept["gave_way"]), 1, at_least=True)
    over = open_["peak"] / (limit + room)
    yield Check(0, "the most memory without a limit, to that bound", label, over, 1.01, at_least=True)


def _run(bench: Bench, asked: Sequence[Example], at_once: int, limits: Limits, keep: bool = True) -> dict[str, Any]:
    """Questions, so many at once, whose caches are kept as long as there is room for them."""
    config = GraphConfig(STEPS, max_new_tokens=TOKENS)
    spec = GraphSpec(llm_name=bench.name, domain=DOMAIN, agent_nums=AGENTS, topology="chain", graph=config)
    with limited(bench, limits) as ledger:
        graph = assemble(spec, bench.llm, bench.loaded.tokenizer).graph
        run = partial(graph.run_all, asked, max_concurrent=at_once, keep_caches=keep)
        seconds, results, peak = watched(bench, run, once=True)
        return {
            "peak": peak,
            "counted": ledger.peak,
            "seconds": seconds,
            "gave_way": ledger.noted,
            "kept": sum(not result.kept.released for result in results),
        }
