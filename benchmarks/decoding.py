"""Plain text after plain prompts: `LocalLLM.generate` beside transformers' `generate`.

Speed: the same prompts, greedy, batches of the same size; only tokens up to the end of a text
count. Ours guesses tokens from the prompt and checks them, and is measured without that, too.
Agreement: in bf16 two right programs may part where two tokens are as good as equal, so the
texts that part are looked at with fp32 logits, and transformers is compared with itself at batch 1
as the yardstick. In fp32 the tokens must be the same.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from typing import Any

import torch
from tqdm import tqdm

from benchmarks.agreement import compare
from benchmarks.published import plain_attention
from benchmarks.setting import Bench, local_llm
from benchmarks.timing import interleaved, ratios
from gcache.llm.load.loading import load_model
from gcache.llm.local import LocalLLM
from gcache.llm.requests import GenerateRequest

Tokens = tuple[int, ...]
#: Seconds, and what was written.
Round = tuple[float, list[Tokens]]

#: How many prompts transformers answers at batch 1, and both answer in fp32 up to so many tokens.
YARDSTICK = 8
FP32_TOKENS = 64
WARM_UP_TOKENS = 8
#: Ours, one token a step.
PLAIN = "ours, without lookup"


def measure(bench: Bench) -> dict[str, Any]:
    """Tokens per second of both, then how far they agree."""
    prompts, batch, longest = bench.prompts(), bench.settings.batch, bench.settings.max_new_tokens
    for warm_up in (generate_transformers, generate_ours):
        warm_up(bench, prompts[:2], 2, WARM_UP_TOKENS)
    timings = interleaved(
        {
            "transformers": lambda: generate_transformers(bench, prompts, batch, longest),
            "ours": lambda: generate_ours(bench, prompts, batch, longest),
            PLAIN: lambda: generate_without_lookup(bench, prompts, batch, longest),
        },
        bench.settings.repeats,
    )
    firsts = interleaved(
        {
            "transformers": lambda: generate_transformers(bench, prompts, batch, 1),
            "ours": lambda: generate_ours(bench, prompts, batch, 1),
            PLAIN: lambda: generate_without_lookup(bench, prompts, batch, 1),
        },
        bench.settings.repeats,
    )
    texts = {name: rounds[0][1] for name, rounds in timings.items()}
    speeds = {name: [_count(written) / seconds for seconds, written in rounds] for name, rounds in timings.items()}
    alone = generate_transformers(bench, prompts[:YARDSTICK], 1, longest)
    precise = replace(bench, loaded=load_model(bench.name, dtype="float32"))
    precise = replace(precise, llm=local_llm(precise.loaded, bench.settings))
    model, few = precise.loaded.model, prompts[:YARDSTICK]
    with plain_attention(model):
        parted = compare(model, prompts, texts["transformers"], texts["ours"])
        parted_alone = compare(model, few, texts["transformers"][:YARDSTICK], alone)
    fp32 = [write(precise, few, batch, FP32_TOKENS) for write in (generate_transformers, generate_ours)]
    return {
        "reference": "transformers generate",
        "prompt_tokens": [len(prompt) for prompt in prompts],
        "seconds": {name: [seconds for seconds, _ in rounds] for name, rounds in timings.items()},
        "generated": {name: [_count(written) for _, written in rounds] for name, rounds in timings.items()},
        "tokens_per_second": speeds,
        "ratio": ratios(speeds["ours"], speeds["transformers"]),
        "ratio_without_lookup": ratios(speeds[PLAIN], speeds["transformers"]),
        "seconds_first_token": {name: [seconds for seconds, _ in rounds] for name, rounds in firsts.items()},
        "tokens_per_second_after_first": (later := after_first(timings, firsts)),
        "ratio_after_first": ratios(later["ours"], later["transformers"]),
        "ratio_after_first_without_lookup": ratios(later[PLAIN], later["transformers"]),
        "agreement": asdict(parted),
        "yardstick": asdict(parted_alone),
        "fp32_tokens": FP32_TOKENS,
        "fp32_agreement": asdict(compare(model, few, *fp32)),
    }


def after_first(
    timings: Mapping[str, Sequence[Round]], firsts: Mapping[str, Sequence[Round]]
) -> dict[str, list[float]]:
    """Tokens per second once every prompt is read: a text's first token and its time left out."""
    return {
        name: [
            (_count(written) - _count(one)) / (seconds - first)
            for (seconds, written), (first, one) in zip(rounds, firsts[name], strict=True)
        ]
        for name, rounds in timings.items()
    }


def generate_ours(bench: Bench, prompts: Sequence[Tokens], batch: int, longest: int) -> list[Tokens]:
    """Greedy tokens of each prompt; the batch size is the model's own."""
    requests = [GenerateRequest(prompt, max_new_tokens=longest) for prompt in prompts]
    return [generation.tokens for generation in bench.llm.generate(requests)]


@contextmanager
def without_lookup(llm: LocalLLM) -> Iterator[None]:
    """Within it a step of decoding writes one token of each text."""
    before, llm.limits = llm.limits, replace(llm.limits, prompt_lookup=False)
    try:
        yield
    finally:
        llm.limits = before


def generate_without_lookup(bench: Bench, prompts: Sequence[Tokens], batch: int, longest: int) -> list[Tokens]:
    """`generate_ours`, one token a step."""
    with without_lookup(bench.llm):
        return generate_ours(bench, prompts, batch, longest)


def generate_transformers(bench: Bench, prompts: Sequence[Tokens], batch: int, longest: int) -> list[Tokens]:
    """Greedy tokens of each prompt, padded on the left in batches, in the order asked."""
    from transformers import GenerationConfig

    model: Any = bench.loaded.model
    pad = bench.loaded.tokenizer.pad_token_id
    stops = sorted(bench.llm.stop_tokens)
    config = GenerationConfig(
        do_sample=False,
        num_beams=1,
        max_new_tokens=longest,
        eos_token_id=stops,
        pad_token_id=pad,
        repetition_penalty=1.0,
        no_repeat_ngram_size=0,
    )
    written: list[Tokens] = []
    starts = range(0, len(prompts), batch)
    with plain_attention(model), torch.no_grad():
        for first in tqdm(starts, desc=f"transformers, batch {batch}", unit="batch", leave=False):
            ids, mask = _left_padded(prompts[first : first + batch], pad)
            output = model.generate(
                ids.to(model.device), attention_mask=mask.to(model.device), generation_config=config
            )
            written += [_ended(row, stops) for row in output[:, ids.shape[1] :].tolist()]
    return written


def _left_padded(prompts: Sequence[Tokens], pad: int) -> tuple[torch.Tensor, torch.Tensor]:
    """(B, S) ids and mask."""
    width = max(len(prompt) for prompt in prompts)
    ids = torch.tensor([[pad] * (width - len(prompt)) + list(prompt) for prompt in prompts])
    mask = torch.tensor([[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts])
    return ids, mask


def _ended(row: Sequence[int], stops: Sequence[int]) -> Tokens:
    """Up to the end of the text, the end-of-turn token included."""
    ends = [place for place, token in enumerate(row) if token in stops]
    return tuple(row[: ends[0] + 1] if ends else row)


def _count(written: Sequence[Tokens]) -> int:
    return sum(map(len, written))
