"""How close prefill and decoding come to what the machine can do at the least.

    prefill floor   operations of the prompts / the best operations per second
    decode floor    bytes of weights and cache that one step must read / the best bytes per second

Machine and model are measured in turns, so that both met the same machine. Decoding is measured
without guesses, one token of each text a step. The operators that take the most time of their own
say where the rest goes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

from tqdm import tqdm

from benchmarks.decoding import without_lookup
from benchmarks.long_texts import long_texts, of_length
from benchmarks.machine_speed import MachineSpeed, Sizes, machine_speed
from benchmarks.model_cost import ModelCost
from benchmarks.operators import busy_seconds, operator_seconds, top_shares
from benchmarks.setting import Bench
from benchmarks.timing import timed
from gcache.llm.requests import GenerateRequest, ThinkRequest

#: Tokens of each prompt that is read.
PROMPT = 100
#: Decode steps between the two calls whose difference is timed.
STEPS = 64
LEAST_ROUNDS = 5


@dataclass(frozen=True)
class Floor:
    """Seconds of one kind of work, measured and at the least; one per round.

    Attributes:
        unit: what one figure is for ("tokens read", "decode step").
        amount: how many units the seconds are for.
        best_share, median_share: of the floor in the measured seconds, 1 at the floor; of the best
            (median) round of each.
    """

    unit: str
    amount: int
    seconds: list[float]
    floor_seconds: list[float]

    @property
    def best_share(self) -> float:
        return min(self.floor_seconds) / min(self.seconds)

    @property
    def median_share(self) -> float:
        return median(self.floor_seconds) / median(self.seconds)

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "best_share": self.best_share, "median_share": self.median_share}


def measure(bench: Bench, sizes: Sizes | None = None) -> dict[str, Any]:
    """Floors and measured times of prefill and decoding, and their operators."""
    with without_lookup(bench.llm):
        sizes, rounds = sizes or Sizes.of(bench.llm.device), max(LEAST_ROUNDS, bench.settings.repeats)
        read, spoken = prompts(bench)
        return {**floors(bench, read, spoken, sizes, rounds), **operators(bench, read, spoken)}


def prompts(bench: Bench) -> tuple[list[ThinkRequest], list[tuple[int, ...]]]:
    """A batch of prompts to read, and one of prompts that texts are written after."""
    batch = bench.settings.batch
    read = [ThinkRequest(prompt) for prompt in of_length(bench.prompts(), batch, PROMPT)]
    return read, long_texts(bench, batch, 1 + STEPS)


def floors(
    bench: Bench, read: Sequence[ThinkRequest], spoken: Sequence[tuple[int, ...]], sizes: Sizes, rounds: int
) -> dict[str, Any]:
    """Floors and measured times of prefill and decoding, without guesses."""
    batch = bench.settings.batch
    cost = ModelCost.of(bench.loaded.model, bench.llm.cache_shape)
    tokens = batch * PROMPT
    # the cache that an average one of the timed steps reads
    slots = sum(map(len, spoken)) + batch * (1 + STEPS) / 2
    speeds: list[MachineSpeed] = []
    prefill: list[float] = []
    step: list[float] = []
    bench.llm.think(read)
    for _ in tqdm(range(rounds), desc="floor", unit="round", leave=False):
        speeds.append(machine_speed(tokens, cost.largest_linear, bench.llm.dtype, sizes, bench.llm.device))
        prefill.append(timed(lambda: bench.llm.think(read))[0])
        one, _ = timed(lambda: _write(bench, spoken, 1))
        many, _ = timed(lambda: _write(bench, spoken, 1 + STEPS))
        step.append((many - one) / STEPS)
    flops, needed = cost.prefill_flops([PROMPT] * batch), cost.step_bytes(slots)
    prefill_floor = Floor("tokens read", tokens, prefill, [flops / speed.best_flops for speed in speeds])
    decode_floor = Floor("decode step", 1, step, [needed / speed.read for speed in speeds])
    return {
        "reference": "the machine's best operations and bytes per second, measured in turns",
        "batch": batch,
        "model": asdict(cost),
        "machine": [asdict(speed) for speed in speeds],
        "prefill": prefill_floor.to_json(),
        "decode": {**decode_floor.to_json(), "slots": slots, "bytes": needed},
    }


def operators(bench: Bench, read: Sequence[ThinkRequest], spoken: Sequence[tuple[int, ...]]) -> dict[str, Any]:
    """Where the time of both goes, and for how long of a batch's reading, and of a step, operators are at work."""
    device = bench.llm.device
    reading = operator_seconds(lambda: bench.llm.think(read), device)
    before = operator_seconds(lambda: _write(bench, spoken, 1), device)
    writing = operator_seconds(lambda: _write(bench, spoken, 1 + STEPS), device)
    return {
        "prefill_operators": [asdict(share) for share in top_shares(reading)],
        "decode_operators": [asdict(share) for share in top_shares(writing, before)],
        "prefill_busy": busy_seconds(reading),
        "decode_busy": (busy_seconds(writing) - busy_seconds(before)) / STEPS,
    }


def _write(bench: Bench, prompts: Sequence[tuple[int, ...]], longest: int) -> None:
    bench.llm.generate([GenerateRequest(prompt, max_new_tokens=longest) for prompt in prompts])
