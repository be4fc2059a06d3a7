"""Tasks by name."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from gcache.errors import ConfigError, DataError
from gcache.tasks import TASKS, Gsm8k, GsmSymbolic, make_task
from gcache.tasks.example import Example

LINE = '{"question": "What is 1 + 1?", "answer": "#### 2"}\n'


def test_names() -> None:
    assert set(TASKS) == {
        "gsm8k", "gsm_symbolic", "split_facts", "gpqa", "medqa", "arc_easy", "arc_challenge", "mmlu", "aime24",
        "aime25", "banking77", "sst2", "ag_news", "trec",
        "humaneval", "humanevalplus", "mbppplus", "split_gsm8k", "hidden_profile", "hiddenbench", "entities",
        "hotpotqa", "2wikimultihopqa", "musique", "squad", "countries", "tipsheets",
    }  # fmt: skip


def test_makes_tasks_with_data_and_options(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(LINE)
    task = make_task("gsm8k", data=path, whole_file=True)
    assert isinstance(task, Gsm8k)
    assert [example.answer for example in task.test()] == ["2"]
    generated = make_task("gsm_symbolic", test_size=3)
    assert isinstance(generated, GsmSymbolic)
    assert generated.test_size == 3


@pytest.mark.parametrize("name", ["gsm8k", "gsm_symbolic"])
def test_a_task_has_the_name_it_is_made_by(name: str) -> None:
    assert make_task(name).name == name


def test_unknown_name() -> None:
    with pytest.raises(
        ConfigError,
        match=r"unknown task 'gsm9k'; choose one of: 2wikimultihopqa, ag_news, .* gsm8k, gsm_symbolic, .* split_facts",
    ):
        make_task("gsm9k")


@pytest.mark.parametrize("name", ["gsm8k", "split_gsm8k", "gsm_symbolic", "aime24", "aime25"])
def test_every_task_with_numbers_may_accept_the_last_one(name: str) -> None:
    example = Example("q", "How many are left?", "5")
    for accepts, outcome in ((False, "unstated"), (True, "right")):
        grade = make_task(name, accept_last_number=accepts).grade("She had 8 and has 5", example)
        assert (grade.outcome, grade.unstated) == (outcome, True)
    with pytest.raises(ConfigError, match="accept_last_number must be true or false, got 'yes'"):
        make_task(name, accept_last_number="yes")


def test_unknown_option() -> None:
    said = "unknown option 'n_agents' of the task 'gsm8k'; choose one of: accept_last_number, whole_file"
    with pytest.raises(ConfigError, match=said):
        make_task("gsm8k", n_agents=3)
    with pytest.raises(ConfigError, match="choose one of: accept_last_number, test_size, train_size"):
        make_task("gsm_symbolic", sizes=3)


def test_data_for_a_task_that_takes_none() -> None:
    with pytest.raises(ConfigError, match="'gsm_symbolic' makes its own questions and takes no data file"):
        make_task("gsm_symbolic", data="a.jsonl")


def test_errors_of_the_task_come_through(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file"):
        make_task("gsm8k", data=tmp_path / "none.jsonl")
    with pytest.raises(ConfigError, match="train_size"):
        make_task("gsm_symbolic", train_size=0)


def test_importing_the_room_imports_nothing_heavy() -> None:
    heavy = "{'math_verify', 'sympy', 'reasoning_gym', 'datasets', 'torch'}"
    code = f"import sys, gcache.tasks; sys.exit(bool({heavy} & set(sys.modules)))"
    root = Path(__file__).parents[2]
    assert subprocess.run([sys.executable, "-c", code], cwd=root, check=False).returncode == 0
