"""Draws of one prompt, and which of them is the answer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import needs
import pytest
from conftest import ScriptedLLM
from toy import DECISION, QUESTIONS, ToyTask

from gcache.agents.decision import DecisionMaker
from gcache.commands.main import main
from gcache.evaluation.compare import Compared, compare, markdown
from gcache.evaluation.frontier import DRAWS, GRAPHS, SINGLE, points
from gcache.evaluation.frontier import markdown as frontier_markdown
from gcache.evaluation.methods import MethodSettings, make_method
from gcache.evaluation.sampled import Sampled, likeliest, most_stated
from gcache.evaluation.tables import warn_of_cut
from gcache.graph.text_backends import LocalTextBackend, TextOutput
from gcache.inspect.frontier_picture import draw_frontier
from gcache.llm.kept_texts import KeptTexts
from gcache.llm.load.locate import EMBEDDED_PACKAGE
from gcache.llm.local import LocalLLM
from gcache.llm.requests import Generation
from gcache.tasks.example import Example

EXAMPLES = [Example(f"q{n}", question, "") for n, question in enumerate(QUESTIONS)]


def text(words: str, log_prob: float = -1.0, finished: bool = True) -> TextOutput:
    return TextOutput((1,), Generation(words, (1, 2), (log_prob, log_prob), finished))


@pytest.mark.parametrize(
    ("texts", "chosen"),
    [
        ([text("#### 3"), text("#### 4"), text("#### 4")], 1),
        ([text("#### 3"), text("#### 4")], 0),  # a tie goes to what was stated first
        ([text("well"), text("who knows"), text("#### 4")], 2),  # who states nothing has no vote
        ([text("#### 3"), text("#### 4.0"), text("#### 4")], 1),
        ([text("well"), text("hm"), text("hm")], 1),  # where none states anything, what stands there is compared
        ([text("the answer is 1", finished=False), text("#### 4"), text("#### 4")], 1),
        ([text("the answer is 1", finished=False), text("#### 4")], 1),  # breaks off in the number: no vote
    ],
)
def test_most_stated_is_worked_out_by_hand(texts: list[TextOutput], chosen: int) -> None:
    assert most_stated(DecisionMaker("d", "i"), texts, "q") == chosen


@pytest.mark.parametrize(
    ("texts", "chosen"),
    [
        ([text("#### 3", -2), text("#### 4", -1), text("#### 5", -3)], 1),
        ([text("#### 3", -2), text("well", -1)], 0),
        ([text("well", -2), text("hm", -1)], 1),
    ],
)
def test_likeliest_is_worked_out_by_hand(texts: list[TextOutput], chosen: int) -> None:
    assert likeliest(DecisionMaker("d", "i"), texts, "q") == chosen


def test_draws_are_those_of_single_and_shared_between_both(tiny_llm: LocalLLM, tiny_tokenizer: Any) -> None:
    """The same prompts; and where texts are kept, best_of_n and a smaller k write nothing."""
    tiny_llm.kept_texts = KeptTexts("m")
    settings = MethodSettings(domain="maths", max_new_tokens=5, samples=3)
    single, several, best = (
        make_method(name, tiny_llm, tiny_tokenizer, settings)
        for name in ("single", "self_consistency", "best_of_n")
    )
    (one,), answers = single.answer(EXAMPLES[:1]), several.answer(EXAMPLES)
    assert answers[0].tokens["prefilled"] == 3 * one.tokens["prefilled"]
    assert all(len(answer.cuts) == 3 for answer in answers)
    written = len(tiny_llm.kept_texts)
    again = best.answer(EXAMPLES)
    assert len(tiny_llm.kept_texts) == written and tiny_llm.kept_texts.reused == 3 * len(EXAMPLES)
    for one_, other in zip(answers, again, strict=True):
        assert one_.tokens == other.tokens


def test_draws_of_a_question_differ_and_are_the_same_again(scripted_llm: ScriptedLLM, tiny_tokenizer: Any) -> None:
    method = Sampled(
        "s", LocalTextBackend(scripted_llm, tiny_tokenizer), DECISION, most_stated, 4, 0.7, 5
    )
    method.answer(EXAMPLES[:2])
    (batch,) = scripted_llm.texts
    assert len({request.seed for request in batch}) == 8 and {request.temperature for request in batch} == {0.7}
    method.answer(EXAMPLES[:2])
    assert [r.seed for r in scripted_llm.texts[1]] == [r.seed for r in batch]


def test_the_row_counts_every_text_that_was_cut(tiny_llm: LocalLLM, tiny_tokenizer: Any) -> None:
    tiny_llm.stop_tokens = frozenset()
    settings = MethodSettings(domain="maths", max_new_tokens=3, samples=3)
    methods = [make_method(name, tiny_llm, tiny_tokenizer, settings) for name in ("single", "self_consistency")]
    single, several = compare(methods, ToyTask(), EXAMPLES, progress=False)
    assert (single.cut, single.texts, several.cut, several.texts) == (8, 8, 24, 24)
    assert "| 1.000 |" in markdown([single])


def test_seconds_of_kept_texts_count(tiny_llm: LocalLLM, tiny_tokenizer: Any) -> None:
    tiny_llm.kept_texts = texts = KeptTexts("m")
    settings = MethodSettings(domain="maths", max_new_tokens=5, samples=2)
    methods = [make_method(name, tiny_llm, tiny_tokenizer, settings) for name in ("self_consistency", "best_of_n")]
    _, best = compare(methods, ToyTask(), EXAMPLES, False, kept_seconds=lambda: texts.reused_seconds)
    assert best.seconds >= texts.reused_seconds > 0


def test_too_many_cut_texts_are_said(caplog: pytest.LogCaptureFixture) -> None:
    warn_of_cut("single", 3, 100)
    assert not caplog.records
    warn_of_cut("single", 4, 100)
    assert "single: 4 of 100 texts (4.0 %) were cut off" in caplog.text and "raise --max_new_tokens" in caplog.text


# -- the frontier ------------------------------------------------------------------------------


def row(name: str, right: str, tokens: float) -> Compared:
    answers = tuple((f"q{i}", "right" if mark == "1" else "wrong", mark, "") for i, mark in enumerate(right))
    share = right.count("1") / len(right)
    return Compared(name, len(right), share, 0.0, 1.0, 0, 0, 0, 0, tokens, 0, 0, 1.0, 0, answers, texts=len(right))


ROWS = [
    (SINGLE, 0.0, row("single", "1100", 10)),
    (DRAWS, 1.0, row("self-consistency, 1", "1000", 11)),
    (DRAWS, 2.0, row("self-consistency, 2", "1100", 22)),
    (GRAPHS, 0.5, row("graph", "1110", 15)),
    (GRAPHS, 0.0, row("graph", "1111", 99)),
]  # fmt: skip


def test_points_stand_beside_draws_of_as_many_tokens() -> None:
    found = points(ROWS)
    assert [p.draws for p in found] == [1, 1, 2, 2, 2]
    assert [p.difference for p in found] == [0.25, 0.0, 0.0, 0.25, 0.5]
    lines = frontier_markdown(found).splitlines()
    assert lines[2].startswith("| single | 0.500 |") and "| 1 | +0.250 |" in lines[2]
    assert lines[3].count("|  |") >= 1


def test_the_frontiers_picture_is_a_png(tmp_path: Path) -> None:
    draw_frontier(points(ROWS), tmp_path / "frontier.png", "a title")
    assert (tmp_path / "frontier.png").read_bytes().startswith(b"\x89PNG")


def test_a_frontier_of_two_trained_graphs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """From the command line, on the embedded model: two prices, draws, one greedy text, in one table and one file."""
    needs.weights(EMBEDDED_PACKAGE, ".gguf")
    data = tmp_path / "gsm8k.jsonl"
    data.write_text("".join(
        json.dumps({"question": f"Tom has {n} pens and buys 3. How many has he?", "answer": f"#### {n + 3}"}) + "\n"
        for n in range(2, 6)
    ))  # fmt: skip
    common = ["--data", str(data), "--task_option", "whole_file=true"]
    for price in ("0", "0.5"):
        assert main([
            "train", "--task", "gsm8k", *common, "--llm_name", "smollm2", "--hands", "reasoning", "--latent_steps", "0",
            "--decision_method", "marginal", "--fuser", "trust", "--agent_nums", "2", "--reason_tokens", "12",
            "--max_new_tokens", "12", "--iterations", "1", "--batch_size", "2", "--rollouts", "2", "--report", "0",
            "--token_price", price, "--encoder", "hash", "--out", str(tmp_path / f"price{price}"),
            "--texts", str(tmp_path / "texts.jsonl"),
        ]) == 0  # fmt: skip
    out = tmp_path / "frontier.json"
    assert main([
        "frontier", str(tmp_path / "price0"), str(tmp_path / "price0.5"), "--task", "gsm8k", *common, "--limit", "2",
        "--draws", "2", "--json", str(out), "--texts", str(tmp_path / "texts.jsonl"),
    ]) == 0  # fmt: skip
    found = json.loads(out.read_text())["points"]
    assert [(p["curve"], p["setting"]) for p in found] == [
        ("single", 0), ("self_consistency", 1), ("self_consistency", 2), ("graph", 0), ("graph", 0.5)
    ]  # fmt: skip
    assert out.with_suffix(".png").exists() and "graph, price 0.5 (price0.5)" in capsys.readouterr().out


def test_methods_beside_a_checkpoint_put_the_question_where_it_has_it(
    model_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from gcache.evaluation import methods

    data = tmp_path / "gsm8k.jsonl"
    rows = [{"question": f"what is {n} + 2 ?", "answer": f"#### {n + 2}"} for n in range(6)]
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    task = ["--task", "gsm8k", "--data", str(data), "--task_option", "whole_file=true"]
    for order in ("first", "last"):
        assert main([
            "train", *task, "--llm_name", str(model_folder), "--latent_steps", "0", "--question", order,
            "--max_new_tokens", "3", "--iterations", "1", "--batch_size", "2", "--rollouts", "2", "--report", "0",
            "--encoder", "hash", "--out", str(tmp_path / order),
        ]) == 0  # fmt: skip
    seen = []
    real = methods.make_method

    def make_method(name: str, llm: Any, tokenizer: Any, settings: methods.MethodSettings) -> Any:
        seen.append((name, settings.question_order))
        return real(name, llm, tokenizer, settings)

    monkeypatch.setattr(methods, "make_method", make_method)
    last, out = str(tmp_path / "last"), tmp_path / "out.json"
    assert main(["frontier", last, *task, "--limit", "2", "--draws", "1"]) == 0
    assert seen == [("single", "last"), ("self_consistency", "last"), ("gcache", "last")]
    compared = ["compare", "--methods", "single", "--checkpoint", last, *task, "--limit", "2", "--json", str(out)]
    assert main(compared) == 0
    assert seen[3:] == [("single", "last")] and json.loads(out.read_text())["settings"]["question_order"] == "last"
    capsys.readouterr()
    assert main(["frontier", last, str(tmp_path / "first"), *task, "--limit", "2"]) == 2
    assert "has --question first, and" in capsys.readouterr().err
