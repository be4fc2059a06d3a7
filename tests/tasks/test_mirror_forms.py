"""The forms in which mirrors hold each data set: other names, other shapes, the same content."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from data_rows import examples_of, refusal, right_words

from gcache.tasks import make_task

Row = dict[str, Any]


# -- numbers --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "row",
    [
        {"problem": "P?", "answer": "70.0"},
        {"problem": "P?", "answer": "070"},
        {"problem": "P?", "answer": 70},
        {"problem": "P?", "answer": 70.0},
        {"problem": "P?", "answer": " 70 "},
        {"problem": "P?", "answer": "70."},
        {"problem": "P?", "answer": r"\boxed{70}"},
        {"problem": "P?", "answer": "$70$"},
        {"problem": "P?", "answer": r"$\boxed{070}$."},
        {"problem": "P?", "answer": r"\(70\)"},
        {"problem": "P?", "answer": r"\textbf{(070)}"},
        {"problem": "P?", "answer": r"**70**"},
        {"problem": "P?", "answer": "#### 70"},
        {"problem": "P?", "answer": ["70"]},
        {"problem": "P?", "answer": "Work.\n#### 70"},
        {"problem": "P?", "answer": "Work: 7 * 10 = 70. #### $070$."},
        {"problem": "P?", "answer": "So \\boxed{70}.\n#### 70"},
        {"problem": "P?", "answer": "#### Step 1\nAdd.\nSo \\boxed{70}."},
        {"problem": "P?", "answer": r"\\(70\\)"},  # escaped twice
        {"problem": "P?", "answer": r"\\boxed{70}"},
        {"problem": "P?", "solution": "Work.\n#### 70"},
        {"problem": "P?", "solution": "$70$"},
        {"problem": "P?", "solution": 70},
        {"question": "P?", "answer": "70"},
        {"Question": "P?", "Answer": "70"},
        {"prompt": "P?", "final_answer": 70},
        {"ID": "2024-I-4", "Problem": "P?", "Solution": r"Then \boxed{12} or so, so \boxed{70}.", "Answer": 70},
        {"ID": "2024-I-4", "Year": 2024, "Problem Number": 4, "Part": None, "Question": "P?", "Answer": "70"},
        {"id": 60, "problem": "P?", "solution": r"So $\boxed{070}$.", "answer": "70", "url": "u", "year": "2024"},
        {"problem_idx": 3, "problem": "P?", "answer": 70, "problem_type": ["Algebra"]},
        {"question": "P?", "solution": r"Add them: \boxed{70}.", "metadata": {"ID": "2024-I-4", "Part": "I"}},
        {"problem": "P?", "answer": "", "solution": r"\boxed{70}"},
        {"problem": "P?", "question": "P? Put it in a box.", "answer": "70", "expected_answer": "070"},
    ],
)
def test_aime(tmp_path: Path, row: Row) -> None:
    for name in ("aime24", "aime25"):
        (example,) = examples_of(tmp_path, name, row)
        assert (example.question, example.answer) == ("P?", "70")


@pytest.mark.parametrize(
    "answer",
    ["70.5", 70.5, 1000, "1000", -3, "-3", True, None, "", "seventy", "70 or 71", "70, 71", "7 0 0 0", "7 0", "7$0",
     ["70", "71"], [], {"n": 70}, "70%", "1e2", 1e300, "9" * 5000, "\u0667\u0660", "7/10", r"\boxed{}", "070.10",
     "Work.\n#### 70.5", "#### 70 or 71", "#### 1000", "So \\boxed{71}.\n#### 70",
     "#### 70\n\\boxed{71}", "#### 70 \\boxed{71}", "#### 71\nNo.\n#### 70", r"\boxed{70} or \boxed{71}", "#### 5!",
     "So \\boxed{70}.\n#### x", "Work.\n#### 70\nor 71", "$70$ or $71$"],
)  # fmt: skip
def test_aime_refuses_what_is_no_whole_number(tmp_path: Path, answer: Any) -> None:
    message = refusal(tmp_path, "aime24", {"problem": "P?", "answer": answer})
    assert "line 1: the field 'answer' must be a whole number from 0 to 999, got " in message


def test_aime_refuses_two_different_answers(tmp_path: Path) -> None:
    two = {"problem": "P?", "answer": 70, "final_answer": "71"}
    assert "have different numbers" in refusal(tmp_path, "aime24", two)
    assert "say different things" in refusal(tmp_path, "aime24", {"problem": "P?", "answer": 70, "Answer": 71})


@pytest.mark.parametrize(
    ("row", "answer"),
    [
        ({"question": "Q?", "answer": "Add.\n#### 1,234"}, "1234"),
        ({"question": "Q?", "answer": 72}, "72"),
        ({"question": "Q?", "answer": 72.0}, "72"),
        ({"question": "Q?", "answer": 0.5}, "0.5"),
        ({"question": "Q?", "answer": "72"}, "72"),
        ({"question": "Q?", "answer": "$1,234"}, "1234"),
        ({"question": "Q?", "answer": "-$12.50"}, "-12.50"),
        ({"question": "Q?", "answer": "$1,234$"}, "1234"),
        ({"question": "Q?", "answer": r"\(72\)"}, "72"),
        ({"question": "Q?", "answer": "**$72**."}, "72"),
        ({"problem": "Q?", "solution": "Add.\n#### 72"}, "72"),
        ({"problem": "Q?", "solution": r"Add: \boxed{72}."}, "72"),
        ({"problem": "Q?", "solution": "Add, and add.", "final_answer": "72"}, "72"),
        ({"question": "Q?", "answer": "Add.\n#### 72", "final_answer": 72}, "72"),
        ({"question": "Q?", "thoughts": "Add.", "answer": 72}, "72"),
        ({"input": "Q?", "code": "def f(): pass", "target": 1500000.0}, "1500000"),
        ({"question": "Q?", "answer": "Add.\n#### 72", "cleaning_status": "consensus"}, "72"),
        ({"question": "Q?", "answer": "Add.\n#### $1,234.50"}, "1234.50"),
        ({"question": "Q?", "answer": "Add.\n#### -3."}, "-3"),
        ({"question": "Q?", "answer": "Add.\n#### **72**"}, "72"),
        ({"question": "Q?", "answer": "Add.\n#### 50%"}, "50"),
        ({"question": "Q?", "answer": "Add.\n#### 3 1/2"}, "7/2"),
        ({"question": "Q?", "answer": "#### Step 1\nAdd.\n#### 72"}, "72"),
        ({"question": "Q?", "answer": "So \\boxed{72}.\n#### 72.0"}, "72.0"),
        ({"question": "Q?", "answer": "#### 72\n\\boxed{72}"}, "72"),
    ],
)
def test_gsm8k(tmp_path: Path, row: Row, answer: str) -> None:
    (example,) = examples_of(tmp_path, "gsm8k", row)
    assert (example.question, example.answer) == ("Q?", answer)


@pytest.mark.parametrize(
    "row",
    [
        {"answer": "it is 72"}, {"answer": "72 or 73"}, {"answer": "#### "}, {"answer": "#### None"}, {"answer": True},
        {"answer": [72]}, {"answer": {"n": 72}}, {"answer": "#### 72", "final_answer": 73}, {"answer": "1/0"},
        {"answer": "#### " + "9" * 5000 + "e9"}, {"answer": "."}, {"answer": "1,2,3"}, {"answer": "7 0"}, {},
        {"answer": "$72$ or $73$"}, {"answer": "$72 to 73$"},
        # behind the mark there is one number, and nothing else
        {"answer": "#### 5!"}, {"answer": r"\boxed{5!}"}, {"answer": "#### 5,5"}, {"answer": "#### 0,5"},
        {"answer": "#### 7 = 5"}, {"answer": "#### 5\n\nBut actually 6"}, {"answer": "#### 10 - 5 = 5"},
        {"answer": "#### 5k"}, {"answer": "#### 5 million"}, {"answer": "#### 5 apples"}, {"answer": "#### 5^2"},
        {"answer": "#### 5;6"}, {"answer": "#### x < 5"}, {"answer": "#### ~5"}, {"answer": "#### 101_2"},
        {"answer": "#### 1,0000"}, {"answer": "#### 1,23"}, {"answer": "#### not 5"}, {"answer": "#### 5 or more"},
        # two that differ
        {"answer": "#### 5\n#### 6"}, {"answer": "#### 5 #### 6"}, {"answer": "\\boxed{6}\n#### 5"},
        {"answer": "#### 5\n\\boxed{6}"}, {"answer": r"\boxed{5} or \boxed{6}"},
    ],
)  # fmt: skip
def test_gsm8k_refuses_what_is_no_number(tmp_path: Path, row: Row) -> None:
    assert "line 1: the field" in refusal(tmp_path, "gsm8k", {"question": "Q?", **row})


# -- choices --------------------------------------------------------------------------------------

GPQA = {
    "Correct Answer": "neon", "Incorrect Answer 1": "zinc", "Incorrect Answer 2": "iron", "Incorrect Answer 3": "lead",
}  # fmt: skip


@pytest.mark.parametrize(
    "row",
    [
        {"Question": "Q?", **GPQA, "Record ID": "r", "Subdomain": "S", "Extra Revised Question": float("nan")},
        {"Question": "Q?", **GPQA, "Pre-Revision Question": "?", "Pre-Revision Correct Answer": "gold"},
        {f"Pre-Revision {name}": value for name, value in {"Question": "Q?", **GPQA}.items()},
        {"question": "Q?", **{name.lower().replace(" ", "_"): value for name, value in GPQA.items()}},
        {"Question": "Q?", **GPQA, "options": ["iron", "neon", "zinc", "lead"], "answer": 1},
        {"question": "Q?", "options": ["iron", "neon", "zinc", "lead"], "answer": "B"},
        {"question": "Q?", "choices": {"A": "iron", "B": "neon", "C": "zinc", "D": "lead"}, "answer": "B"},
        {"question": "Q?", "choices": ["A. iron", "B. neon", "C. zinc", "D. lead"], "answer": "B. neon"},
        {"row_idx": 0, "row": {"Question": "Q?", **GPQA}, "truncated_cells": []},
    ],
)
def test_gpqa(tmp_path: Path, row: Row) -> None:
    (example,) = examples_of(tmp_path, "gpqa", row)
    assert example.question.startswith("Q?\nA) ") and right_words(example) == "neon"
    assert example.meta["choices"] == "4"


NAMED = {"Question": "Q?", **GPQA, "options": ["iron", "neon", "zinc", "lead"]}


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({**NAMED, "answerKey": "A"}, "contradict each other"),
        ({**NAMED, "label": 0}, "contradict each other"),
        ({**NAMED, "correct_option": "A"}, "contradict each other"),
        ({**NAMED, "target": "iron"}, "contradict each other"),
        ({"Question": "Q?", **GPQA, "answer": "zinc"}, "contradict each other"),
        ({**NAMED, "options": ["iron", "gold", "zinc", "lead"]}, "the listed choices are not 'Correct Answer' and"),
        ({**NAMED, "options": ["iron", "neon", "zinc", "gold"], "answer": "B"}, "the listed choices are not"),
        ({"Question": "Q?", **GPQA, "Correct Answer": "zinc"}, "and 'Incorrect Answer 1' are the same"),
        ({"Question": "Q?", **GPQA, "Incorrect Answer 4": "neon"}, "'Incorrect Answer 4' are the same"),
    ],
)  # fmt: skip
def test_gpqa_refuses_what_names_another_answer(tmp_path: Path, row: Row, said: str) -> None:
    assert said in refusal(tmp_path, "gpqa", row)


@pytest.mark.parametrize("field", ["answerKey", "correct_option", "answer", "answer_idx"])
def test_gpqa_takes_what_names_the_same(tmp_path: Path, field: str) -> None:
    assert right_words(examples_of(tmp_path, "gpqa", {**NAMED, field: "B"})[0]) == "neon"


def test_gpqa_keeps_a_fourth_wrong_answer(tmp_path: Path) -> None:
    (example,) = examples_of(tmp_path, "gpqa", {"Question": "Q?", **GPQA, "Incorrect Answer 4": "gold"})
    assert example.meta["choices"] == "5" and ") gold" in example.question and right_words(example) == "neon"


def test_gpqa_refuses_what_contradicts_itself(tmp_path: Path) -> None:
    row = {"Question": "Q?", **GPQA, "options": ["iron", "neon", "zinc", "lead"], "answer": 0}
    assert "contradict each other" in refusal(tmp_path, "gpqa", row)
    half = {"Question": "Q?", "Pre-Revision Correct Answer": "gold", **GPQA, "Incorrect Answer 3": ""}
    assert "'Incorrect Answer 3' must be a non-empty string" in refusal(tmp_path, "gpqa", half)


OPTIONS = {"A": "iron", "B": "neon", "C": "zinc", "D": "lead"}
LIST = list(OPTIONS.values())


@pytest.mark.parametrize(
    ("task", "row"),
    [
        ("medqa", {"question": "Q?", "answer": "neon", "options": OPTIONS, "meta_info": "step1", "answer_idx": "B"}),
        ("medqa", {"question": "Q?", "answer": "neon", "options": OPTIONS, "metamap_phrases": ["a", "b"]}),
        ("medqa", {"question": "Q?", "answer_text": "neon", "options": OPTIONS, "answer_idx": "B"}),
        ("medqa", {"question": "Q?", "options": [{"key": k, "value": OPTIONS[k]} for k in "ABCD"], "answer_idx": "B"}),
        ("medqa", {"question": "Q?", "options": OPTIONS, "answer": "B"}),
        ("medqa", {"question": "Q?", "options": repr(OPTIONS), "answer_idx": "B"}),
        ("medqa", {"id": "u", "data": {"Question": "Q?", "Options": OPTIONS, "Correct Answer": "neon",
                                       "Correct Option": "B"}, "subject_name": "s"}),
        ("medqa", {"id": "u", "sent1": "Q?", "sent2": "", **{f"ending{n}": v for n, v in enumerate(LIST)}, "label": 1}),
        ("mmlu", {"question": "Q?", "subject": "s", "choices": LIST, "answer": 1}),
        ("mmlu", {"question": "Q?", "choices": LIST, "answer": "B"}),
        ("mmlu", {"input": "Q?", **OPTIONS, "target": "B"}),
        ("mmlu", {"question": "Q?", **OPTIONS, "answer": "B"}),
        ("mmlu", {"question": "Q?", "option_a": "iron", "option_b": "neon", "option_c": "zinc", "answer": "b"}),
        ("mmlu", {"question": "Q?", "choices": LIST, "answer": 1, "error_type": "ok", "correct_answer": None}),
        ("mmlu", {"question": "Q?", "choices": LIST, "correct_answer": "neon", "task_type": "mc"}),
        ("mmlu", {"question_id": 7, "question": "Q?", "options": [*LIST, "tin", "gold"], "answer": "B",
                  "answer_index": 1, "cot_content": "", "category": "s", "src": "x"}),
        ("mmlu", {"train": {"question": "Q?", "subject": "", "choices": LIST, "answer": 1}}),
        ("mmlu", {"question": "Q?", "choices": [f"({k}) {v}" for k, v in OPTIONS.items()], "answer": "(B) neon"}),
        ("arc_easy", {"id": "x", "question": "Q?", "choices": {"text": LIST, "label": list("1234")}, "answerKey": "2"}),
        ("arc_easy", {"id": "x", "question": {"stem": "Q?", "choices": [
            {"text": v, "label": k} for k, v in OPTIONS.items()]}, "answerKey": "B"}),
        ("arc_challenge", {"question": "Q?", "choices": LIST, "answer": 1}),
        ("arc_challenge", {"question": "Q?", "options": OPTIONS, "answer": "B"}),
    ],
)  # fmt: skip
def test_choices(tmp_path: Path, task: str, row: Row) -> None:
    (example,) = examples_of(tmp_path, task, row)
    assert example.question.startswith("Q?\nA) iron\nB) neon") and example.answer == "B"


@pytest.mark.parametrize(
    ("task", "row", "said"),
    [
        ("arc_easy", {"question": {"stem": "Q?", "choices": LIST}, "choices": LIST[::-1], "answerKey": "B"},
         "'choices' and 'question.choices' say different things"),
        ("arc_easy", {"question": {"stem": "Q?", "choices": LIST}, "options": LIST[::-1], "answerKey": "B"},
         "'options' and 'question.choices' say different things"),
        ("arc_easy", {"question": {"stem": "Q?", "choices": LIST, "answerKey": "A"}, "answerKey": "B"},
         "'answerKey' and 'question.answerKey' say different things"),
        ("mmlu", {"train": {"question": "Q?", "choices": LIST, "answer": 1}, "question": "R?", "answer": 1},
         "'question' and 'train.question' say different things"),
        ("mmlu", {"train": {"question": "Q?", "choices": LIST, "answer": 1}, "answer": 2},
         "'answer' and 'train.answer' say different things"),
    ],
)  # fmt: skip
def test_what_is_nested_must_not_contradict_what_is_beside_it(tmp_path: Path, task: str, row: Row, said: str) -> None:
    assert said in refusal(tmp_path, task, row)


def test_rows_in_which_redux_found_an_error_are_left_out(tmp_path: Path) -> None:
    good = {"question": "Q?", "choices": LIST, "answer": 1, "error_type": "ok"}
    bad = {"question": "R?", "choices": LIST, "answer": 0, "error_type": "wrong_groundtruth", "correct_answer": "B"}
    assert [e.answer for e in examples_of(tmp_path, "mmlu", good, bad, {"train": bad})] == ["B"]
    assert "has no question to ask" in refusal(tmp_path, "mmlu", bad)
    for word in ("OK", "Ok ", "none", None):  # says that there is none
        assert [e.answer for e in examples_of(tmp_path, "mmlu", {**good, "error_type": word}, bad)] == ["B"]
    assert "'error_type' must be ok or one of" in refusal(tmp_path, "mmlu", {**good, "error_type": "fine"}, good)


# -- programs -------------------------------------------------------------------------------------

PROMPT = 'def twice(x):\n    """Two times x."""\n'
CHECK = "def check(candidate):\n    assert candidate(2) == 4\n    assert candidate(3) == 6\n"
RIGHT, WRONG = "```python\ndef twice(x):\n    return 2 * x\n```", "```python\ndef twice(x):\n    return x * x\n```"
LATE = "import math\nfrom __future__ import annotations\n"
LISTED = ["assert twice(2) == 4", "assert twice(3) == 6"]


@pytest.mark.parametrize(
    ("task", "row"),
    [
        ("humaneval", {"task_id": "T/0", "prompt": PROMPT, "canonical_solution": "    return 2 * x\n", "test": CHECK,
                       "entry_point": "twice"}),
        ("humaneval", {"task_id": "Python/0", "prompt": PROMPT, "declaration": "def twice(x):\n",
                       "test": CHECK + "check(twice)\n", "example_test": "check(twice)"}),
        ("humanevalplus", {"task_id": "T/0", "prompt": PROMPT, "test": CHECK, "entry_point": "twice",
                           "contract": "\n", "base_input": [[2]], "plus_input": [[3]], "atol": 0}),
        ("mbppplus", {"task_id": 1, "text": "Double it.", "code": "def twice(x): pass", "test_list": LISTED,
                      "test_setup_code": "", "challenge_test_list": ["assert twice(0) == 1"]}),
        ("mbppplus", {"task_id": 1, "prompt": "Double it.", "test_imports": ["import math"], "test_list": LISTED,
                      "source_file": "x.ipynb"}),
        ("mbppplus", {"task_id": "Mbpp/1", "description": "Double it.", "test_list": LISTED,
                      "test": "for n in range(9):\n    assert twice(n) == n + n\n"}),
        ("mbppplus", {"text": "Double it.", "test_list": [each.replace("4", "FOUR") for each in LISTED],
                      "test_setup_code": "FOUR = 4"}),
        ("mbppplus", {"text": "Double it.", "test_list": repr(LISTED)}),
        ("mbppplus", {"text": "Double it.", "test_imports": "import math", "test": "\n".join(LISTED)}),
    ],
)  # fmt: skip
def test_programs(tmp_path: Path, task: str, row: Row) -> None:
    (example,) = examples_of(tmp_path, task, row)
    graded = make_task(task)
    assert [graded.grade(text, example).outcome for text in (RIGHT, WRONG)] == ["right", "wrong"]


@pytest.mark.parametrize(
    ("task", "row", "said"),
    [
        ("humaneval", {"entry_point": "twice) or (1"}, "must be the name of a function"),
        ("humaneval", {"entry_point": "def"}, "must be the name of a function"),
        ("humaneval", {"entry_point": "twice", "test": "def check(c: pass"}, "must be Python that defines check"),
        ("humaneval", {"entry_point": "twice", "test": "assert twice(2) == 4"}, "must be Python that defines check"),
        ("humanevalplus", {"test": None, "base_input": [[2]], "plus_input": [[3]]}, "has inputs (base_input"),
        ("mbppplus", {"test_list": [None]}, "'test_list' must be a list of texts"),
        ("mbppplus", {"test_list": LISTED, "test_imports": 7}, "'test_imports' must be a list of texts, got 7"),
        ("mbppplus", {"test_list": ["assert twice(2 == 4"]}, "the tests must be Python"),
        ("mbppplus", {"test_list": {"a": 1}}, "'test_list' must be a list of texts"),
        ("humaneval", {"prompt": LATE + PROMPT}, "the field 'prompt' has an import from __future__ that is not at"),
        ("humaneval", {"test": LATE + CHECK}, "the field 'test' has an import from __future__ that is not at"),
        ("mbppplus", {"test": LATE + LISTED[0]}, "the field 'test' has an import from __future__ that is not at"),
        ("mbppplus", {"test_list": LISTED, "test_imports": [LATE]}, "the field 'test_imports' has an import from"),
    ],
)
def test_programs_that_could_not_be_graded_are_refused(tmp_path: Path, task: str, row: Row, said: str) -> None:
    whole = {"prompt": PROMPT, "entry_point": "twice", **({"test": CHECK} if "humaneval" in task else {}), **row}
    assert said in refusal(tmp_path, task, whole)


IDLE = "assert nothing"
UNITTEST = "import unittest\nclass T(unittest.TestCase):\n    def test(self):\n        self.assertEqual(twice(2), 4)"


@pytest.mark.parametrize(
    "tests",
    [
        "twice(2) == 4",
        "assert (twice(2) == 4, 'message')",
        "# assert twice(2) == 4",
        '"""assert twice(2) == 4"""',
        "pass",
        "print(twice(2) == 4)",
        "assert True, twice(2)",
        "def test():\n    assert twice(2) == 4",
        "def test():\n    yield\n    assert twice(2) == 4\ntest()",
        "async def test():\n    assert twice(2) == 4\ntest()",
        'if __name__ == "__main__":\n    assert twice(2) == 4',
        "if False:\n    assert twice(2) == 4",
        "try:\n    assert twice(2) == 4\nexcept Exception:\n    pass",
        "try:\n    assert twice(2) == 4\nexcept:\n    print('no')",
        "from contextlib import suppress\nwith suppress(AssertionError):\n    assert twice(2) == 4",
        "for n in []:\n    assert twice(n) == 4",
        "def test():\n    return\n    assert twice(2) == 4\ntest()",
        UNITTEST,
        "def check(candidate):\n    assert candidate(2) == 4",
    ],
)
def test_tests_that_test_nothing_are_refused(tmp_path: Path, tests: str) -> None:
    row = {"prompt": "Double it.", "test_list": [tests]}
    assert f"the tests in 'test_list' {IDLE}" in refusal(tmp_path, "mbppplus", row)
    more = {"prompt": "Double it.", "test_list": LISTED, "test": tests}
    assert f"the tests in 'test' {IDLE}" in refusal(tmp_path, "mbppplus", more)
    inner = "def check(twice):\n    " + tests.replace("\n", "\n    ") + "\n    x = 1\n"
    if "__main__" not in tests and tests != UNITTEST:
        row = {"prompt": PROMPT, "entry_point": "twice", "test": inner}
        assert f"the tests in 'test' {IDLE}" in refusal(tmp_path, "humaneval", row)


@pytest.mark.parametrize(
    ("test", "said"),
    [
        ("def check(c):\n    return c(2) == 4", IDLE),
        ("def check(c):\n    yield\n    assert c(2) == 4", IDLE),
        ("def check(c):\n    assert c(2) == 4\n\ndef check(c):\n    pass", IDLE),
        ("async def check(c):\n    assert c(2) == 4", "must be Python that defines check"),
        ("def check():\n    assert twice(2) == 4", "must take one argument"),
        ("def check(a, b):\n    assert a(2) == 4", "must take one argument"),
        ("def check(c):\n    x = 4\n    assert x == 4", "never use the program"),
    ],
)
def test_a_check_that_checks_nothing_is_refused(tmp_path: Path, test: str, said: str) -> None:
    assert said in refusal(tmp_path, "humaneval", {"prompt": PROMPT, "entry_point": "twice", "test": test})


PLUS_FORM = """import numpy as np

def is_floats(x) -> bool:
    return isinstance(x, float)

def assertion(out, exp, atol):
    if atol == 0 and is_floats(exp):
        atol = 1e-6
    if out != exp and atol != 0:
        assert np.allclose(out, exp, rtol=1e-07, atol=atol)
    else:
        assert out == exp, f"out: {out}, exp: {exp}"
"""
LOOP = "inputs = [[2], [3]]\nresults = [4, 6]\nfor i, (inp, exp) in enumerate(zip(inputs, results)):\n"


@pytest.mark.parametrize(
    "tests",
    [
        PLUS_FORM + LOOP + "    assertion(twice(*inp), exp, 0)\n",
        "def ref(x):\n    return x + x\n" + PLUS_FORM + LOOP + "    assertion(twice(*inp), ref(*inp), 0)\n",
        "import math\n" + LOOP + "    assert math.isclose(twice(*inp), exp, rel_tol=0.001)",
        "assert (twice(2) == 4), 'message'",
        "assert set(twice(n) for n in (2, 3)) == {4, 6}",
        "if twice(3) != 6:\n    raise ValueError(twice(3))",
        "import sys\nif twice(3) != 6:\n    sys.exit(1)",
        "try:\n    assert twice(3) == 6\nexcept AssertionError:\n    raise",
        "try:\n    assert twice(3) == 6\nexcept ValueError:\n    pass",
        "failed = False\ntry:\n    twice(3) == 6 or 1 / 0\nexcept Exception:\n    failed = True\nassert not failed",
        "try:\n    twice(None)\nexcept TypeError:\n    pass\nelse:\n    assert False",
        "def test():\n    assert twice(3) == 6\ntest()",
        "def one():\n    assert twice(3) == 6\ndef two():\n    one()\nfor each in (two,):\n    each()",
        "import numpy as np\nnp.testing.assert_allclose(twice(3), 6)",
        UNITTEST + "\nT().test()",
        'if __name__ != "__main__":\n    assert twice(3) == 6',
        "exec('assert twice(3) == 6')",
    ],
)
def test_tests_that_test_something_are_not(tmp_path: Path, tests: str) -> None:
    assert examples_of(tmp_path, "mbppplus", {"prompt": "Double it.", "test_list": LISTED, "test": tests})
    inner = "def check(candidate):\n    twice = candidate\n    " + tests.replace("\n", "\n    ")
    assert examples_of(tmp_path, "humanevalplus", {"prompt": PROMPT, "entry_point": "twice", "test": inner})


# -- the hub --------------------------------------------------------------------------------------


class OfTheHub(list[Row]):
    """Rows with the names of their labels, as `datasets` has them."""

    def __init__(self, rows: list[Row], **names: list[str]) -> None:
        super().__init__(rows)
        self.features = {field: SimpleNamespace(names=given) for field, given in names.items()} | {"text": object()}


@pytest.mark.parametrize(
    ("task", "rows", "answer"),
    [
        ("banking77", OfTheHub([{"text": "q", "label": 1}], label=["late", "card_arrival"]), "card arrival"),
        ("trec", OfTheHub([{"text": "q", "coarse_label": 1}], coarse_label=["HUM", "LOC"]), "location"),
        ("ag_news", OfTheHub([{"text": "q", "label": 3}], label=["World", "Sports", "Money", "Sci/Tech"]), "science"),
        ("sst2", OfTheHub([{"sentence": "q", "label": 0}], label=["negative", "positive"]), "negative"),
        ("aime24", [{"Problem": "q", "Answer": 70.0}], "70"),
        ("mmlu", [{"question": "q", "choices": ["x", "y"], "answer": 1}], "B"),
    ],
)
def test_the_hub_gives_the_same_forms(monkeypatch: pytest.MonkeyPatch, task: str, rows: Any, answer: str) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "datasets", SimpleNamespace(load_dataset=lambda *_, **__: rows))
    found = make_task(task)
    assert [e.answer for e in found._from_hub("train")] == [answer]  # type: ignore[attr-defined]
