"""What a pass costs by its tokens: timed at some sizes, read off in between."""

from __future__ import annotations

from typing import Any

import needs
import pytest

from gcache.llm.cache_budget import Limits
from gcache.llm.forward.native import pass_cost
from gcache.llm.forward.native.library import native_library
from gcache.llm.forward.native.pass_cost import SIZES, PassCost
from gcache.llm.local import LocalLLM


def test_it_lies_on_straight_lines_between_what_was_measured_and_grows_in_proportion_beyond() -> None:
    cost = PassCost((1, 4, 8), (1.0, 4.0, 5.0))
    assert [cost(n) for n in (1, 2, 4, 6, 8, 16)] == [1.0, 2.0, 4.0, 4.5, 5.0, 10.0]
    assert PassCost((1, 4), (1.0, 4.0), per_pair=0.5)(2, slots=100) == 2.0 + 100.0


def test_the_fastest_of_several_tries_counts_and_no_larger_pass_is_cheaper(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    taken = {1: [9, 3, 2, 4], 2: [9, 1, 1, 1], 4: [9, 6, 5, 7]}  # the first of each warms up

    def run(tokens: int) -> None:
        clock[0] += taken[tokens].pop(0)

    monkeypatch.setattr(pass_cost.time, "perf_counter", lambda: clock[0])
    assert PassCost.measured(run, (1, 2, 4)).seconds == (2, 2, 5)


@needs.skips_if(native_library() is None, "there is no C compiler, or it knows no OpenMP", "install gcc or clang")
def test_it_is_measured_when_a_model_is_loaded(tiny_qwen2: Any, tiny_tokenizer: Any) -> None:
    cost = LocalLLM(tiny_qwen2, tiny_tokenizer).pass_seconds
    assert isinstance(cost, PassCost) and cost.sizes == SIZES
    assert cost.per_pair >= 0
    assert all(0 < seconds < 60 for seconds in cost.seconds) and list(cost.seconds) == sorted(cost.seconds)
    assert LocalLLM(tiny_qwen2, tiny_tokenizer, limits=Limits(native=False)).pass_seconds is None
