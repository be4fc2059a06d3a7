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
from benchmarks.operators import operator_seconds, top_shares
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
        return _measure(bench, sizes or Sizes())


def _measure(bench: Bench, sizes: Sizes) -> dict[str, Any]:
    batch = bench.settings.batch
    cost = ModelCost.of(bench.loaded.model, bench.llm.cache_shape)
    read = [ThinkRequest(prompt) for prompt in of_length(bench.prompts(), batch, PROMPT)]
    spoken = long_texts(bench, batch, 1 + STEPS)
    tokens = batch * PROMPT
    # the cache that an average one of the timed steps reads
    slots = sum(map(len, spoken)) + batch * (1 + STEPS) / 2
    speeds: list[MachineSpeed] = []
    prefill: list[float] = []
    step: list[float] = []
    bench.llm.think(read)
    for _ in tqdm(range(max(LEAST_ROUNDS, bench.settings.repeats)), desc="floor", unit="round", leave=False):
        speeds.append(machine_speed(tokens, cost.largest_linear, bench.llm.dtype, sizes))
        prefill.append(timed(lambda: bench.llm.think(read))[0])
        one, _ = timed(lambda: _write(bench, spoken, 1))
        many, _ = timed(lambda: _write(bench, spoken, 1 + STEPS))
        step.append((many - one) / STEPS)
    flops, needed = cost.prefill_flops([PROMPT] * batch), cost.step_bytes(slots)
    prefill_floor = Floor("tokens read", tokens, prefill, [flops / speed.best_flops for speed in speeds])
    decode_floor = Floor("decode step", 1, step, [needed / speed.read for speed in speeds])
    before = operator_seconds(lambda: _write(bench, spoken, 1))
    return {
        "reference": "the machine's best operations and bytes per second, measured in turns",
        "batch": batch,
        "model": asdict(cost),
        "machine": [asdict(speed) for speed in speeds],
        "prefill": prefill_floor.to_json(),
        "decode": {**decode_floor.to_json(), "slots": slots, "bytes": needed},
        "prefill_operators": [asdict(s) for s in top_shares(operator_seconds(lambda: bench.llm.think(read)))],
        "decode_operators": [
            asdict(s) for s in top_shares(operator_seconds(lambda: _write(bench, spoken, 1 + STEPS)), before)
        ],
    }


def _write(bench: Bench, prompts: Sequence[tuple[int, ...]], longest: int) -> None:
    bench.llm.generate([GenerateRequest(prompt, max_new_tokens=longest) for prompt in prompts])
