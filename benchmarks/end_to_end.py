"""A whole question, from its text to its answer: our graphs beside the published algorithm.

Same model, same questions, same roles, same latent steps, greedy text. Time and memory are two
passes, because looking at memory takes time. For time, the reference has a batch in hand and a
graph twice that many questions, of which a batch is in a forward pass. Memory is looked at with as
many questions in hand, and once more with one batch in hand for both; twice as many are asked, so
that an answered question is followed by another.

Answers end where they end, and different prompts end them at different places. So the time is
taken once more with all texts equally long: nothing ends a turn before `EQUAL` tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any

from tqdm import tqdm

from benchmarks.live_bytes import LiveBytes, Peak
from benchmarks.published import PublishedMas
from benchmarks.setting import DOMAIN, Bench
from benchmarks.timing import interleaved, ratios
from gcache.agents.decision import decision_maker
from gcache.agents.roles import pick_agents
from gcache.build import assemble
from gcache.config import GraphSpec
from gcache.graph.result import RunResult
from gcache.graph.run_config import GraphConfig
from gcache.tasks.example import Example

AGENTS = 4
REFERENCE = "published algorithm"
#: Our configurations: topology, and what an agent hands on. The first is the reference's own working memory.
OURS: Mapping[str, tuple[str, str]] = {
    "chain, context": ("chain", "context"),
    "full graph, latents only": ("full", "latent"),
}
#: Of the passes that decode, the gauge of memory looks into each so many-th.
LOOK_EVERY = 8
#: Questions that are answered before anything is timed, and how long.
WARM_UP = 2
WARM_UP_TOKENS = 8
#: Tokens of every text where all are equally long, and how many batches of questions are asked then.
EQUAL = 128
EQUAL_BATCHES = 2


@dataclass(frozen=True)
class Answers:
    """What a system made of some questions; tokens are sums over them, padding not counted."""

    texts: tuple[str, ...]
    prefilled: int
    latent: int
    generated: int


#: Questions, and how many of them may be in hand at once.
System = Callable[[Sequence[Example], int], Answers]
#: Seconds of a timed run, and its answers.
Round = tuple[float, Answers]


@dataclass(frozen=True)
class Measured:
    """One system's numbers; ratios are to the reference of the same round.

    Attributes:
        seconds, speed, speed_ratio: one per repeat; speed is questions per second.
        prefilled, latent, generated: tokens per question, without padding.
        prefilled_ratio: to the reference's.
        peak_bytes: of cache per question in hand, as many as when the time was taken.
        batch_peak_bytes: the same with one batch of questions in hand.
        peak_ratio, batch_peak_ratio: to the reference's.
        peak_where: the forward pass and the place in it.
        in_flight: questions in hand when the time is taken.
        equal_seconds, equal_ratio: with all texts equally long; the ratio is of speeds.
        right: answers that state the right number, of all questions.
    """

    name: str
    seconds: list[float]
    speed: list[float]
    speed_ratio: list[float]
    prefilled: float
    prefilled_ratio: float
    latent: float
    generated: float
    peak_bytes: float
    peak_ratio: float
    batch_peak_bytes: float
    batch_peak_ratio: float
    peak_where: str
    in_flight: int
    right: int
    equal_seconds: list[float]
    equal_ratio: list[float]


def measure(bench: Bench) -> dict[str, Any]:
    """The numbers of all systems, the reference first."""
    batch = bench.settings.batch
    systems = _systems(bench)
    in_hand = {name: batch if name == REFERENCE else 2 * batch for name in systems}
    for system in _systems(replace(bench, settings=replace(bench.settings, max_new_tokens=WARM_UP_TOKENS))).values():
        system(bench.examples[:WARM_UP], WARM_UP)
    runs = {name: partial(system, bench.examples, in_hand[name]) for name, system in systems.items()}
    timings = interleaved(runs, bench.settings.repeats)
    peaks = {name: _peaks(bench, system, in_hand[name]) for name, system in systems.items()}
    equal = _equally_long(bench, in_hand)
    rows = [_measured(bench, name, in_hand, timings, peaks, equal) for name in systems]
    return {"reference": REFERENCE, "questions": len(bench.examples), "systems": [asdict(row) for row in rows]}


def _systems(bench: Bench) -> dict[str, System]:
    return {REFERENCE: published(bench), **{name: ours(bench, *how) for name, how in OURS.items()}}


def _measured(
    bench: Bench,
    name: str,
    in_hand: Mapping[str, int],
    timings: Mapping[str, Sequence[Round]],
    peaks: Mapping[str, tuple[Peak, Peak]],
    equal: Mapping[str, list[float]],
) -> Measured:
    """One system's numbers beside the reference's."""
    n = len(bench.examples)
    answers, reference = timings[name][0][1], timings[REFERENCE][0][1]
    speeds = {which: [n / seconds for seconds, _ in timings[which]] for which in (name, REFERENCE)}
    peak, batch_peak = _per_question(bench, peaks[name], in_hand[name])
    reference_peak, reference_batch_peak = _per_question(bench, peaks[REFERENCE], in_hand[REFERENCE])
    return Measured(
        name=name,
        seconds=[seconds for seconds, _ in timings[name]],
        speed=speeds[name],
        speed_ratio=ratios(speeds[name], speeds[REFERENCE]),
        prefilled=answers.prefilled / n,
        prefilled_ratio=answers.prefilled / reference.prefilled,
        latent=answers.latent / n,
        generated=answers.generated / n,
        peak_bytes=peak,
        peak_ratio=peak / reference_peak,
        batch_peak_bytes=batch_peak,
        batch_peak_ratio=batch_peak / reference_batch_peak,
        peak_where=peaks[name][0].where,
        in_flight=in_hand[name],
        right=_right(bench, answers.texts),
        equal_seconds=equal[name],
        equal_ratio=ratios(equal[REFERENCE], equal[name]),
    )


def _per_question(bench: Bench, peaks: tuple[Peak, Peak], in_hand: int) -> tuple[float, float]:
    """Bytes per question in hand, with as many as were timed and with one batch."""
    n, batch = len(bench.examples), bench.settings.batch
    return peaks[0].nbytes / min(in_hand, n), peaks[1].nbytes / min(batch, n)


def _equally_long(bench: Bench, in_hand: Mapping[str, int]) -> dict[str, list[float]]:
    """Seconds of each system where every text has as many tokens."""
    settings = replace(bench.settings, max_new_tokens=min(EQUAL, bench.settings.max_new_tokens))
    examples = bench.examples[: EQUAL_BATCHES * settings.batch]
    endless = replace(bench, settings=settings)
    stops, bench.llm.stop_tokens = bench.llm.stop_tokens, frozenset()
    try:
        runs = {name: partial(system, examples, in_hand[name]) for name, system in _systems(endless).items()}
        found = interleaved(runs, settings.repeats)
    finally:
        bench.llm.stop_tokens = stops
    for rounds in found.values():
        assert all(answers.generated == len(examples) * settings.max_new_tokens for _, answers in rounds)
    return {name: [seconds for seconds, _ in rounds] for name, rounds in found.items()}


def published(bench: Bench) -> System:
    """The reference, batch after batch."""
    settings = bench.settings
    mas = PublishedMas(
        bench.loaded.model,
        bench.loaded.tokenizer,
        pick_agents(DOMAIN, count=AGENTS),
        decision_maker(DOMAIN),
        settings.latent_steps,
        settings.max_new_tokens,
        bench.llm.stop_tokens,
    )

    def run(examples: Sequence[Example], in_flight: int) -> Answers:
        answers = []
        with _bar(REFERENCE, len(examples)) as bar:
            for first in range(0, len(examples), in_flight):
                answers += mas.answer([example.question for example in examples[first : first + in_flight]])
                bar.update(len(answers) - bar.n)
        return Answers(
            tuple(answer.text for answer in answers),
            sum(answer.prefilled for answer in answers),
            sum(answer.latent for answer in answers),
            sum(len(answer.tokens) for answer in answers),
        )

    return run


def ours(bench: Bench, topology: str, transfer: str) -> System:
    """A graph of the reference's agents."""
    config = GraphConfig(bench.settings.latent_steps, transfer, max_new_tokens=bench.settings.max_new_tokens)
    spec = GraphSpec(llm_name=bench.name, domain=DOMAIN, agent_nums=AGENTS, topology=topology, graph=config)
    graph = assemble(spec, bench.llm, bench.loaded.tokenizer).graph

    def run(examples: Sequence[Example], in_flight: int) -> Answers:
        with _bar(f"{topology}, {transfer}", len(examples)) as bar:

            def advance(number: int, result: RunResult) -> None:
                bar.update()

            results = graph.run_all(examples, max_concurrent=in_flight, keep_caches=False, on_result=advance)
        tokens = {kind: sum(result.tokens[kind] for result in results) for kind in ("prefilled", "latent", "generated")}
        return Answers(tuple(result.answer for result in results), **tokens)

    return run


def _peaks(bench: Bench, system: System, in_hand: int) -> tuple[Peak, Peak]:
    """Peak cache bytes with so many questions in hand, and with one batch in hand."""
    batch = bench.settings.batch
    one_batch = _peak(bench, system, batch)
    return (one_batch if in_hand == batch else _peak(bench, system, in_hand)), one_batch


def _peak(bench: Bench, system: System, in_hand: int) -> Peak:
    _, heads, dim = bench.llm.cache_shape
    with LiveBytes(bench.loaded.model, heads, dim, LOOK_EVERY) as gauge:
        system(bench.examples[: 2 * in_hand], in_hand)
    return gauge.peak


def _right(bench: Bench, texts: Sequence[str]) -> int:
    grades = [bench.questions.task.grade(t, e) for t, e in zip(texts, bench.examples, strict=True)]
    return sum(grade.outcome == "right" for grade in grades)


def _bar(name: str, total: int) -> Any:
    return tqdm(total=total, desc=name, unit="question", leave=False)
