"""Prefill and decoding of one shape, beside transformers' `generate` and the device's floor.

Both sides write one token a step, as many for every prompt. In bfloat16 two right programs may part where two tokens
are as good as equal; in float32 the same weights must write the same tokens.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from functools import partial

from benchmarks import floor
from benchmarks.agreement import Agreement, compare
from benchmarks.decoding import Round, after_first, generate_ours, generate_transformers
from benchmarks.gpu_check.checks import Check
from benchmarks.gpu_check.runner import Part
from benchmarks.gpu_check.setting import Models, Ready
from benchmarks.gpu_check.small import full_precision
from benchmarks.published import plain_attention
from benchmarks.timing import interleaved, ratios

WARM_UP_TOKENS = 4
#: Nats between two tokens that float32 may take for equal.
AS_GOOD = 1e-3


def beside(models: Models, shape: str) -> Iterator[Part]:
    """How exact it is, how fast, how near to the floor; then whether it writes what transformers writes."""
    ready = models.get(shape)
    yield {"model": ready.about}
    yield from ready.exactness
    yield from _decoding(ready)
    yield from _floor(ready)
    yield from _agreement(models, shape)


def _decoding(ready: Ready) -> Iterator[Part]:
    bench, settings = ready.bench, ready.scale.settings
    prompts, batch, longest = bench.prompts(), settings.batch, settings.max_new_tokens
    systems = {"transformers": generate_transformers, "ours": generate_ours}
    for write in systems.values():
        write(bench, prompts[:batch], batch, WARM_UP_TOKENS)

    def timings(tokens: int) -> dict[str, list[Round]]:
        runs = {name: partial(write, bench, prompts, batch, tokens) for name, write in systems.items()}
        return interleaved(runs, settings.repeats)

    firsts, wholes = timings(1), timings(longest)
    first, all_ = (
        {name: [seconds for seconds, _ in rounds] for name, rounds in found.items()} for found in (firsts, wholes)
    )
    later = after_first(wholes, firsts)
    read = {name: [sum(map(len, prompts)) / seconds for seconds in rounds] for name, rounds in first.items()}
    yield {
        "decoding": {
            "reference": "transformers generate",
            "batch": batch,
            "prompts": len(prompts),
            "tokens": longest,
            "seconds_first_token": first,
            "seconds": all_,
            "read_per_second": read,
            "read_ratio": ratios(read["ours"], read["transformers"]),
            "written_per_second": later,
            "written_ratio": ratios(later["ours"], later["transformers"]),
        }
    }


def _floor(ready: Ready) -> Iterator[Part]:
    read, spoken = floor.prompts(ready.bench)
    found = floor.floors(ready.bench, read, spoken, ready.scale.machine, ready.scale.rounds)
    yield {"floor": found}
    operators = floor.operators(ready.bench, read, spoken)
    yield {"floor": {**found, **operators}}


def _agreement(models: Models, shape: str) -> Iterator[Part]:
    """Bfloat16 texts and float32 ones, beside transformers'."""
    ready = models.get(shape)
    few, longest = ready.scale.precise
    batch, prompts = ready.scale.settings.batch, ready.bench.prompts()[:few]
    rough = [write(ready.bench, prompts, batch, longest) for write in (generate_transformers, generate_ours)]
    with full_precision():
        precise = models.in_fp32(shape)
        texts = [write(precise, prompts, batch, longest) for write in (generate_transformers, generate_ours)]
        model = precise.loaded.model
        with plain_attention(model):
            found: dict[str, Agreement] = {
                "bfloat16": compare(model, prompts, rough[0], rough[1]),
                "float32": compare(model, prompts, texts[0], texts[1]),
            }
    yield {"agreement": {name: asdict(agreement) for name, agreement in found.items()}}
    parted = [parting for parting in found["float32"].partings if parting.top_gap > AS_GOOD]
    label = f"{precise.loaded.label}, float32"
    yield Check(0, f"texts of {few} that differ from transformers' at no tie", label, float(len(parted)), 0)
