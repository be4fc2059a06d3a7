"""The room of tasks: data sets, and the scorers that say what counts as right.

A task deals out `Example`s, in a training split and a test split that share no question, and
grades the text that answers one. `make_task` builds one by name. The scorers never guess: where a
text states no answer, the outcome is `unparsed`. Nothing is read or imported before it is needed.
"""

from __future__ import annotations

from gcache.tasks.choices import extract_choice, grade_choice
from gcache.tasks.codes import grade_exact_code
from gcache.tasks.example import Example, Grade, Note, Outcome, Task
from gcache.tasks.grading import extract_number, grade_number
from gcache.tasks.gsm8k import Gsm8k
from gcache.tasks.gsm_symbolic import GsmSymbolic
from gcache.tasks.number_value import numbers_equal
from gcache.tasks.registry import TASKS, make_task

__all__ = [
    "TASKS",
    "Example",
    "Grade",
    "Gsm8k",
    "GsmSymbolic",
    "Note",
    "Outcome",
    "Task",
    "extract_choice",
    "extract_number",
    "grade_choice",
    "grade_exact_code",
    "grade_number",
    "make_task",
    "numbers_equal",
]
