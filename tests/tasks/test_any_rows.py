"""Whatever a data file holds, every task gives examples or one line; and every example can be asked and graded."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from gcache.errors import DataError
from gcache.tasks import TASKS, make_task
from gcache.tasks.data_set import DataSet
from gcache.tasks.example import Example, Task

READERS = sorted(name for name, make in TASKS.items() if isinstance(make(), type) and issubclass(make(), DataSet))
CODE = ("humaneval", "humanevalplus", "mbppplus")
ANY = settings(
    max_examples=60, deadline=None, database=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)

ODD = [
    "", " ", "\ufeff", "\ud83d", "\0", "\u00b2", "a\nb", "A", "b", "B.", "(C)", "2", "-1", "70.0", "#### 4", "#### x",
    r"\boxed{7}", "1e9", "9" * 5000, "\u2028", "NaN", "[1]", "{'A': 'x'}", "A. x", "x; y", "def f(): pass", "f",
]  # fmt: skip
rare = st.text(st.characters(categories=["Cs", "Cc", "Zs", "Nd"]), max_size=4)
texts = st.sampled_from(ODD) | st.text(max_size=12) | rare
numbers = st.integers(-3, 1200) | st.floats() | st.sampled_from([10**400, 0.0, 70.0, 2**63])
plain = st.none() | st.booleans() | numbers | texts
values = st.recursive(
    plain, lambda inner: st.lists(inner, max_size=5) | st.dictionaries(texts, inner, max_size=5), max_leaves=12
)

FIELDS = {
    "gsm8k": ["question", "problem", "answer", "final_answer", "solution"],
    "aime": ["problem", "Problem", "question", "answer", "Answer", "solution", "final_answer"],
    "choices": ["question", "choices", "options", "answer", "answer_idx", "answer_index", "answerKey", "label",
                "A", "B", "C", "D", "sent1", "ending0", "ending1", "Correct Answer", "Incorrect Answer 1",
                "Incorrect Answer 2", "Incorrect Answer 3", "Question", "data", "id", "error_type", "subject"],
    "labels": ["text", "sentence", "label", "label_text", "category", "coarse_label", "label-coarse", "Class Index",
               "Title", "Description"],
    "code": ["task_id", "prompt", "text", "entry_point", "declaration", "test", "test_list", "test_imports",
             "test_setup_code", "plus_input"],
    "hiddenbench": ["name", "description", "shared_information", "hidden_information", "possible_answers",
                    "correct_answer"],
    "hops": ["_id", "id", "question", "answer", "context", "supporting_facts", "answer_aliases", "type"],
    "musique": ["id", "question", "answer", "answer_aliases", "paragraphs", "answerable"],
    "squad": ["id", "title", "context", "question", "answers"],
    "told": ["id", "prompt_A", "prompt_B", "y", "country", "label", "options"],
}  # fmt: skip
KIND = {
    "split_gsm8k": "gsm8k", "aime24": "aime", "aime25": "aime", "gpqa": "choices", "medqa": "choices",
    "mmlu": "choices", "arc_easy": "choices", "arc_challenge": "choices", "banking77": "labels", "sst2": "labels", 
    "ag_news": "labels", "trec": "labels", "hotpotqa": "hops", "2wikimultihopqa": "hops", "countries": "told",
    "tipsheets": "told", **dict.fromkeys(CODE, "code"),
}  # fmt: skip
#: Rows near good ones, so that not everything is refused at once.
GOOD: dict[str, dict[str, Any]] = {
    "gsm8k": {"question": "One. Two. How many?", "answer": "#### 4"},
    "aime": {"problem": "How many?", "answer": 70},
    "choices": {"question": "Which?", "choices": ["x", "y", "z", "u"], "answer": 1},
    "labels": {"text": "q", "label": "1", "category": "card"},
    "code": {"prompt": "def f():\n", "entry_point": "f", "test": "def check(c):\n    assert c()\n",
             "test_list": ["assert f()"]},
    "hiddenbench": {"name": "n", "description": "d", "shared_information": ["s"], "hidden_information": ["h"],
                    "possible_answers": ["x", "y"], "correct_answer": "x"},
    "hops": {"question": "Who?", "answer": "x", "context": [["t", ["One.", " Two."]], ["u", ["Three."]]],
             "supporting_facts": [["t", 0]]},
    "musique": {"question": "Who?", "answer": "x", "answer_aliases": ["y"],
                "paragraphs": [{"title": "t", "paragraph_text": "One. Two.", "is_supporting": True}]},
    "squad": {"title": "t", "context": "One. Two.", "question": "Who?", "answers": [{"text": "x"}]},
    "told": {"prompt_A": "Ann is at the tower.", "prompt_B": "Where is Ann?", "y": "France", "options": ["B", "C"],
             "label": "C"},
}  # fmt: skip
NEAR: dict[str, dict[str, Any]] = {
    "gpqa": {"Question": "Which?", "Correct Answer": "w", **{f"Incorrect Answer {n}": f"w{n}" for n in (1, 2, 3)}},
    "medqa": {"question": "Which?", "options": {"A": "x", "B": "y"}, "answer": "y", "answer_idx": "B"},
    "arc_easy": {"question": "Which?", "choices": {"text": ["x", "y"], "label": ["A", "B"]}, "answerKey": "B"},
    "sst2": {"sentence": "q", "label": 1},
    "trec": {"text": "q", "coarse_label": 1},
    "ag_news": {"text": "q", "label": 1},
    "banking77": {"text": "q", "category": "card"},
}


def row_like(name: str) -> st.SearchStrategy[dict[str, Any]]:
    """Rows with the fields of a task, some of them good."""
    kind = KIND.get(name, name)
    fields = st.dictionaries(st.sampled_from(FIELDS[kind]) | texts, values, max_size=4)
    good = st.sampled_from([{}, GOOD[kind], NEAR.get(name, GOOD[kind])])
    return st.builds(lambda base, changed: {**base, **changed}, good, fields)


def plainly(task: Task, asked: Example) -> str:
    """The right answer, stated as plainly as can be."""
    return asked.answer if task.domain in ("classification", "reading") else f"The answer is {asked.answer}."


def strings(asked: Example) -> Iterator[str]:
    yield from (asked.id, asked.question, asked.answer, *asked.meta.values())
    for note in asked.notes:
        yield from (note.role, note.description, note.text)


def check(name: str, path: Path) -> None:
    """A file gives examples that can be asked and graded, or one line."""
    try:
        task = make_task(name, path, whole_file=True)
        examples = task.test()
    except DataError as error:
        message = str(error)
        assert message.isprintable() and path.name in message and len(message) < 2000, repr(message)
        return
    assert examples
    for asked in examples:
        assert asked.question.strip() and asked.answer.strip()
        for text in strings(asked):
            assert "\0" not in text
            text.encode("utf-8")
        if name not in CODE:
            assert task.grade(plainly(task, asked), asked).outcome == "right", asked


def test_the_readers_are_all_here() -> None:
    assert {KIND.get(name, name) for name in READERS} == set(FIELDS) and len(READERS) == 23


@pytest.mark.parametrize("name", READERS)
@ANY
@given(data=st.data())
def test_any_rows(tmp_path: Path, name: str, data: st.DataObject) -> None:
    rows = data.draw(st.lists(row_like(name), min_size=1, max_size=2))
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(json.dumps(row) for row in rows))
    check(name, path)


@pytest.mark.parametrize("name", READERS)
@ANY
@given(fields=st.lists(texts.filter(lambda text: len(text) < 99), min_size=1, max_size=8), lines=st.integers(1, 3))
def test_any_csv(tmp_path: Path, name: str, fields: list[str], lines: int) -> None:
    import csv

    path = tmp_path / "rows.csv"
    with path.open("w", newline="", encoding="utf-8", errors="surrogatepass") as file:
        writer = csv.writer(file)
        writer.writerow([*FIELDS[KIND.get(name, name)], *fields][: len(fields)])
        for _ in range(lines):
            writer.writerow(fields)
    check(name, path)


begins = st.sampled_from(
    [b"", b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff", b"\xff\xfe\0\0", b"\x1f\x8b\x08", b"PK\x03\x04", b"[", b'{"a":']
)
endings = st.sampled_from(["jsonl", "json", "csv", "tsv", "jsonl.gz", "txt"])


@pytest.mark.parametrize("name", READERS)
@settings(ANY, max_examples=30)
@given(begin=begins, raw=st.binary(max_size=60), ending=endings)
@example(begin=b"", raw=b'{"question": "q \\ud83d", "answer": "#### 4"}', ending="jsonl")
def test_any_bytes(tmp_path: Path, name: str, begin: bytes, raw: bytes, ending: str) -> None:
    path = tmp_path / f"rows.{ending}"
    path.write_bytes(begin + raw)
    check(name, path)
