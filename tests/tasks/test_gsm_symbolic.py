"""GSM-symbolic: generated, deterministic, and with splits that share no question."""

from __future__ import annotations

import sys

import pytest

from gcache.errors import ConfigError, DataError
from gcache.tasks import GsmSymbolic, Task


def test_is_a_task() -> None:
    task = GsmSymbolic()
    assert isinstance(task, Task)
    assert (task.name, task.domain, task.max_new_tokens) == ("gsm_symbolic", "maths", 768)


def test_same_seed_same_questions() -> None:
    first, second = GsmSymbolic().train(20, seed=3), GsmSymbolic().train(20, seed=3)
    assert list(first) == list(second)
    assert list(GsmSymbolic().train(5, seed=3)) == list(first)[:5]
    assert {e.question for e in GsmSymbolic().train(20, seed=4)} != {e.question for e in first}


def test_splits_are_disjoint_across_sizes_and_seeds() -> None:
    task = GsmSymbolic()
    train = [e.question for seed in range(3) for e in task.train(1000, seed)]
    test = [e.question for seed in range(3) for e in task.test(300, seed)]
    assert not set(train) & set(test)


def test_a_split_repeats_no_question_and_no_id() -> None:
    examples = GsmSymbolic().train(1000)
    assert len({e.question for e in examples}) == len({e.id for e in examples}) == 1000


def test_sizes() -> None:
    task = GsmSymbolic(train_size=7, test_size=3)
    assert (len(task.train()), len(task.test()), len(task.test(5))) == (7, 3, 5)


def test_own_answers_are_right() -> None:
    task = GsmSymbolic()
    for example in task.test(200):
        assert task.grade(f"The answer is {example.answer}.", example).outcome == "right"
        assert task.grade("I cannot say.", example).outcome == "unparsed"


def test_refuses_bad_sizes_and_seeds() -> None:
    with pytest.raises(ConfigError, match="train_size must be from 1"):
        GsmSymbolic(train_size=0)
    with pytest.raises(ConfigError, match="limit must be 1 or more"):
        GsmSymbolic().test(0)
    with pytest.raises(ConfigError, match="limit must be from 1"):
        GsmSymbolic().test(10**9)
    with pytest.raises(ConfigError, match="seed must be 0 or more"):
        GsmSymbolic().test(1, seed=-1)


def test_without_reasoning_gym_the_way_out_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "reasoning_gym", None)
    with pytest.raises(DataError, match="pip install reasoning-gym"):
        GsmSymbolic().train(1)
