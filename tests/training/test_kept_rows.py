"""Rows of a report that are kept as they are measured, and taken up again."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from toy import ToyTask

from gcache.build import Built
from gcache.errors import BudgetSpent, CheckpointError
from gcache.evaluation.evaluate import Evaluation, Row
from gcache.evaluation.read_questions import can_be_shared
from gcache.tasks.example import Example, Grade
from gcache.training import report as reports
from gcache.training.kept_rows import KeptRows, joined
from gcache.training.report import Report

TASK = ToyTask()
QUESTIONS = list(TASK.test())


@dataclass
class Measured:
    """Answers every question with a word, and counts what it is asked."""

    word: str = "red"
    stopped: str = ""
    asked: int = 0

    def __call__(self, examples: Sequence[Example]) -> Evaluation:
        self.asked += len(examples)
        grades = [TASK.grade(self.word, example) for example in examples]
        rows = tuple(
            Row(example.id, grade.outcome, grade.answer, self.word, ((0, 1), (1, 2)))
            for example, grade in zip(examples, grades, strict=True)
        )
        right = sum(grade.outcome == "right" for grade in grades) / len(grades)
        tokens = {"generated": 1 / 3, "latent": 0.0}
        return Evaluation(
            "a row", right, 0.0, 1.0, len(rows), 0, 2.0, 1 / 7, tokens, 0.5, rows, stopped=self.stopped
        )


def part(kept: KeptRows, measure: Measured, **changed: Any) -> Evaluation:
    values: dict[str, Any] = {
        "task": TASK, "label": "a row", "first": 0, "examples": QUESTIONS[:3], "state": "untrained", **changed
    }  # fmt: skip
    return kept.part(measure=measure, **values)


def test_a_part_is_measured_once(tmp_path: Path) -> None:
    path, measure = tmp_path / "rows.jsonl", Measured()
    first = part(KeptRows(path, {"n": 1}), measure)
    again = part(KeptRows(path, {"n": 1}), measure)
    assert measure.asked == 3 and again == first and repr(again) == repr(first)
    for changed in (
        {"label": "another"}, {"first": 3}, {"examples": QUESTIONS[1:4]}, {"state": "trained"},
        {"examples": [replace(QUESTIONS[0], answer="2"), *QUESTIONS[1:3]]},
    ):  # fmt: skip
        before = measure.asked
        part(KeptRows(path, {"n": 1}), measure, **changed)
        assert measure.asked == before + 3, changed
    part(KeptRows(path, {"n": 2}), measure)
    assert measure.asked == 7 * 3


def test_nothing_is_kept_without_a_file(tmp_path: Path) -> None:
    measure = Measured()
    for _ in range(2):
        part(KeptRows(None, {}), measure)
    assert measure.asked == 6


def test_what_another_grader_said_is_measured_again(tmp_path: Path) -> None:
    path, measure = tmp_path / "rows.jsonl", Measured()
    part(KeptRows(path, {}), measure)
    part(KeptRows(path, {}), measure, task=ToyTask(right=frozenset()))
    assert measure.asked == 6

    class Other(ToyTask):
        def grade(self, text: str, example: Example) -> Grade:
            return replace(super().grade(text, example), answer="RED")

    part(KeptRows(path, {}), measure, task=Other())
    assert measure.asked == 9


def test_a_text_that_was_cut_off_is_graded_as_one(tmp_path: Path) -> None:
    """By a task that knows no answer of a text that breaks off."""

    class Careful(ToyTask):
        def grade_cut(self, text: str, example: Example) -> Grade:
            return Grade("unparsed")

    def cut(examples: Sequence[Example]) -> Evaluation:
        found = measure(examples)
        return replace(found, rows=tuple(replace(row, outcome="unparsed", answer=None, cut=True) for row in found.rows))

    path, measure = tmp_path / "rows.jsonl", Measured()
    for _ in range(2):
        found = KeptRows(path, {}).part(Careful(), "a row", 0, QUESTIONS[:3], "", cut)
        assert {(row.outcome, row.cut) for row in found.rows} == {("unparsed", True)}
    assert measure.asked == 3, "it was measured twice"


def test_a_part_that_a_budget_ended_is_not_kept(tmp_path: Path) -> None:
    path, measure = tmp_path / "rows.jsonl", Measured(stopped="nothing is left")
    part(KeptRows(path, {}), measure)
    assert not path.exists()


def test_a_line_that_was_cut_short_is_measured_again(tmp_path: Path) -> None:
    path, measure = tmp_path / "rows.jsonl", Measured()
    part(KeptRows(path, {}), measure)
    whole = path.read_bytes()
    for cut in range(len(whole) - 1):
        path.write_bytes(whole[:cut])
        measure.asked = 0
        part(KeptRows(path, {}), measure)
        assert measure.asked == 3 and path.read_bytes() == whole


def test_a_damaged_line_is_refused(tmp_path: Path) -> None:
    path, measure = tmp_path / "rows.jsonl", Measured()
    first = part(KeptRows(path, {}), measure)
    whole = path.read_bytes()
    for place in range(len(whole) - 1):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        try:
            assert part(KeptRows(path, {}), measure) == first
        except CheckpointError as error:
            assert "rows.jsonl, line 1" in str(error) and "\n" not in str(error)
    for text in (b"\xff\n", b"3\n", b"{}\n", b"[" * 100_000 + b"\n", b'{"key": "a", "found": {"rows": [3]}}\n'):
        path.write_bytes(text)
        with pytest.raises(CheckpointError, match=r"rows.jsonl, line 1"):
            KeptRows(path, {})
    path.unlink()
    path.mkdir()
    with pytest.raises(CheckpointError, match="cannot be read"):
        KeptRows(path, {})


def test_parts_are_joined_by_hand() -> None:
    one, other = Measured()(QUESTIONS[:3]), Measured("nothing")(QUESTIONS[3:4])
    other = replace(other, edges=6.0, tokens={"generated": 3.0, "latent": 1.0}, unparsed=1, failed=2, stopped="why")
    found = joined("both", [one, other])
    assert (found.name, found.n, found.accuracy, found.unparsed, found.failed) == ("both", 4, 0.75, 1, 2)
    assert (found.edges, found.seconds, found.stopped) == (3.0, 1.0, "why")
    assert found.tokens == {"generated": 1.0, "latent": 0.25}
    assert [row.id for row in found.rows] == [example.id for example in QUESTIONS[:4]]
    assert 0.3 < found.low < 0.75 < found.high < 1.0


def test_a_report_in_parts_says_what_one_in_one_part_says(built: Built, monkeypatch: pytest.MonkeyPatch) -> None:
    found = {}
    for size in (3, 100):
        monkeypatch.setattr(reports, "PART", size)
        report = Report(built, TASK, QUESTIONS, progress=False)
        report.before()
        report.after()
        found[size] = report.rows
    for some, whole in zip(found[3], found[100], strict=True):
        assert [row.text for row in some.rows] == [row.text for row in whole.rows]
        assert some.rows == whole.rows and (some.accuracy, some.low, some.n) == (whole.accuracy, whole.low, whole.n)
        assert some.edges == pytest.approx(whole.edges) and some.tokens == pytest.approx(whole.tokens)


def test_rows_before_training_read_their_questions_once(built: Built, monkeypatch: pytest.MonkeyPatch) -> None:
    """And in passes of their own, so that a row says the same whichever rows were kept before."""
    monkeypatch.setattr(reports, "PART", 3)
    asked: list[int] = []
    real = reports.read_questions

    def read(graph: Any, examples: Sequence[Example]) -> Any:
        asked.append(len(examples))
        return real(graph, examples)

    monkeypatch.setattr(reports, "read_questions", read)
    report = Report(built, TASK, QUESTIONS, progress=False)
    report.before()
    assert asked == [3, 3, 2] and report._read is None, "held longer than it is needed"
    alone = Report(built, TASK, QUESTIONS, ("none",), progress=False)
    monkeypatch.setattr(reports, "can_be_shared", lambda graph: False)
    alone.before()
    assert alone.reading is None and report.reading is not None
    assert Report(built, TASK, QUESTIONS, progress=False).reading is None, "there are no rows"
    assert [row.text for row in alone.rows[0].rows] == [row.text for row in report.rows[0].rows]
    report.after()
    assert len(asked) == 3, "the trained row shares nothing"


def test_where_cache_bytes_are_limited_no_question_is_held(built: Built, monkeypatch: pytest.MonkeyPatch) -> None:
    assert can_be_shared(built.graph)
    monkeypatch.setattr(built.graph.llm.ledger, "limit", 1)
    assert not can_be_shared(built.graph)


def test_after_training_nothing_of_before_is_taken_up(built: Built, tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    Report(built, TASK, QUESTIONS, progress=False, kept=KeptRows(path, {})).before()
    before = len(path.read_text().splitlines())
    assert built.policy is not None
    with torch.no_grad():
        built.policy.agreement.add_(1.0)
    Report(built, TASK, QUESTIONS, progress=False, kept=KeptRows(path, {})).before()
    assert len(path.read_text().splitlines()) == 2 * before


def test_a_row_that_a_budget_ends_has_fewer_questions(built: Built, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reports, "PART", 3)
    measure = Measured()

    def spent(examples: Sequence[Example]) -> Evaluation:
        if measure.asked >= 6:
            raise BudgetSpent("nothing is left")
        return measure(examples)

    report = Report(built, TASK, QUESTIONS, progress=False)
    report._measure("rows", [("a row", spent)])
    assert report.rows[0].n == 6 and report.rows[0].stopped == "nothing is left"
    with pytest.raises(BudgetSpent):
        report._measure("rows", [("the next", spent)])


def test_lines_are_plain_json(tmp_path: Path) -> None:
    part(KeptRows(tmp_path / "rows.jsonl", {}), Measured("h\u00e9 \ud83d"))
    (line,) = (tmp_path / "rows.jsonl").read_text(encoding="ascii").splitlines()
    assert json.loads(line)["row"] == "a row" and json.loads(line)["found"]["rows"][0]["text"] == "h\u00e9 \ud83d"
