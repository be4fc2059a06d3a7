"""What is compared: text graphs, latent pipelines, and their rows."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import ScriptedLLM
from toy import AGENTS, DECISION, QUESTIONS, ToyTask, toy_built

from gcache.agents.roles import EXPERTS, PIPELINE
from gcache.cache.kv_cache import SlotKind
from gcache.config import GraphSpec
from gcache.errors import ConfigError
from gcache.evaluation.compare import compare, markdown
from gcache.evaluation.graph_method import GraphMethod
from gcache.evaluation.intervals import paired_difference
from gcache.evaluation.method import Answer
from gcache.evaluation.methods import METHODS, MethodSettings, make_method
from gcache.evaluation.one_prompt import in_one_prompt
from gcache.gnn.topology import Edge, Topology
from gcache.graph.cache_graph import CacheGraph
from gcache.graph.memo import RolloutMemo
from gcache.graph.run_config import GraphConfig
from gcache.graph.text_backends import LocalTextBackend
from gcache.graph.text_graph import TextGraph
from gcache.llm.cache_budget import Limits
from gcache.llm.local import LocalLLM
from gcache.llm.requests import GenerateRequest
from gcache.tasks.answer_overlap import overlap
from gcache.tasks.example import Example, Grade, Note
from gcache.tasks.grading import NumberTask
from gcache.training.checkpoint import require_beside

EXAMPLES = [Example(f"q{n}", question, "") for n, question in enumerate(QUESTIONS)]


class Drawn:
    """Always the same topology."""

    def __init__(self, *pairs: tuple[int, int]) -> None:
        self.topology = Topology(3, tuple(Edge(*pair) for pair in pairs))

    def distribution(self, *_: Any) -> Drawn:
        return self

    def most_likely(self) -> tuple[Topology, torch.Tensor]:
        return self.topology, torch.zeros(())


def shown(tokenizer: Any, request: GenerateRequest) -> str:
    return " ".join(tokenizer.decode(request.tokens).split())


# -- text -----------------------------------------------------------------------------------------


def text_graph(llm: Any, tokenizer: Any, *pairs: tuple[int, int], **config: Any) -> GraphMethod:
    made = GraphConfig(**{"max_new_tokens": 9, "speak_tokens": 9, "hands": "text", **config})
    return GraphMethod("text", TextGraph(LocalTextBackend(llm, tokenizer), AGENTS, DECISION, Drawn(*pairs), made))


def test_text_goes_along_the_edges(scripted_llm: ScriptedLLM, tiny_tokenizer: Any) -> None:
    said = {"plan each step": "one two", "find the final sum": "three"}
    scripted_llm.write = lambda request: next(
        (text for words, text in said.items() if words in shown(tiny_tokenizer, request)), "final"
    )
    (answer,) = text_graph(scripted_llm, tiny_tokenizer, (0, 1), (1, 3)).answer([Example("q", "is it blue ?", "")])
    waves = [[shown(tiny_tokenizer, request) for request in batch] for batch in scripted_llm.texts]
    assert [len(wave) for wave in waves] == [1, 1, 1]  # planner, critic, decision maker; the solver is not heard
    assert "the box has 3 red apples" in waves[0][0] and "one two" not in waves[0][0]
    assert "planner : one two" in waves[1][0] and "3 red apples" not in waves[1][0]
    assert "critic : three" in waves[2][0] and "planner :" not in waves[2][0]
    assert answer.text == "final" and answer.said == (("planner", "one two"), ("critic", "three"))
    assert answer.tokens["prefilled"] == sum(len(batch[0].tokens) for batch in scripted_llm.texts)
    assert answer.tokens["generated"] == 2 + 1 + 1 and answer.cache_bytes == 0


def test_everyone_whose_predecessors_have_spoken_speaks_in_one_batch(
    scripted_llm: ScriptedLLM, tiny_tokenizer: Any
) -> None:
    done: list[int] = []
    method = text_graph(scripted_llm, tiny_tokenizer, (0, 2), (1, 2), (2, 3))
    answers = method.answer(EXAMPLES, lambda: done.append(1))
    assert [len(batch) for batch in scripted_llm.texts] == [16, 8, 8] and len(done) == 8
    assert [answer.example.id for answer in answers] == [example.id for example in EXAMPLES]


def test_in_the_next_round_an_agent_hears_itself(scripted_llm: ScriptedLLM, tiny_tokenizer: Any) -> None:
    scripted_llm.write = lambda request: "one"
    text_graph(scripted_llm, tiny_tokenizer, (0, 3), num_rounds=2).answer(EXAMPLES[:1])
    prompts = [shown(tiny_tokenizer, batch[0]) for batch in scripted_llm.texts]
    assert ["planner : one" in prompt for prompt in prompts] == [False, True, True]


def test_rollouts_share_what_agents_say_and_draw_their_own_answers(tiny_llm: LocalLLM, tiny_tokenizer: Any) -> None:
    tiny_llm.stop_tokens = frozenset()
    graph = text_graph(tiny_llm, tiny_tokenizer, (0, 1), (1, 3)).graph

    async def rollouts() -> list[Any]:
        thoughts = RolloutMemo()
        runs = (graph.arun(QUESTIONS[0], temperature=2.0, seed=seed, memo=thoughts) for seed in range(4))
        return list(await asyncio.gather(*runs))

    first, *others = asyncio.run(rollouts())
    assert all(other.said == first.said for other in others) and len({r.answer for r in (first, *others)}) > 1
    assert [step.what for step in others[0].trace if step.agent in (0, 1)] == ["shared", "shared"]
    assert first.tokens["generated"] == 9 * 3 and others[0].tokens["generated"] == 9


def test_one_prompt_alone_is_the_graph_without_agents(tiny_llm: LocalLLM, tiny_tokenizer: Any) -> None:
    tiny_llm.stop_tokens = frozenset()
    answers = make_method("single", tiny_llm, tiny_tokenizer, settings()).answer(EXAMPLES)
    for example, answer in zip(EXAMPLES, answers, strict=True):
        talk = [{"role": "user", "content": f"{example.question}\n\n{settings().decision.instructions}"}]
        prompt = tiny_tokenizer.apply_chat_template(talk, add_generation_prompt=True, return_dict=False)
        assert answer.text == tiny_llm.generate([GenerateRequest(tuple(prompt), None, 4)])[0].text
        assert (answer.tokens["prefilled"], answer.tokens["generated"], answer.said) == (len(prompt), 4, ())


# -- by name --------------------------------------------------------------------------------------


def settings(**values: Any) -> MethodSettings:
    return MethodSettings(**{"domain": "maths", "max_new_tokens": 4, "latent_steps": 2, **values})


@pytest.mark.parametrize("prompt", ["sequential", "hierarchical"])
def test_the_two_forms_of_pipelines(
    scripted_llm: ScriptedLLM, tiny_llm: LocalLLM, tiny_tokenizer: Any, prompt: str
) -> None:
    text = make_method("text_mas", tiny_llm, tiny_tokenizer, settings(prompt=prompt))
    latent = make_method("latent_mas", tiny_llm, tiny_tokenizer, settings(prompt=prompt))
    assert isinstance(text, GraphMethod) and isinstance(latent, GraphMethod)
    agents = PIPELINE if prompt == "sequential" else EXPERTS
    assert text.graph.agents == latent.graph.agents == agents and len(agents) == 3
    assert latent.graph.config.transfer == "context" and latent.graph.config.latent_steps == 2
    heard = latent.graph.run(QUESTIONS[0]).topology.pairs
    spoken = text.graph.topology(QUESTIONS[0]).pairs
    if prompt == "sequential":
        assert heard == {(0, 1), (1, 2), (2, 3)} and spoken == {(0, 1), (0, 2), (1, 2), (0, 3), (1, 3), (2, 3)}
    else:
        assert heard == spoken == {(0, 3), (1, 3), (2, 3)}


def test_no_latent_step_means_none_and_the_cache_goes_on(tiny_llm: LocalLLM, tiny_tokenizer: Any) -> None:
    method = make_method("latent_mas", tiny_llm, tiny_tokenizer, settings(latent_steps=0))
    assert isinstance(method, GraphMethod)
    result = method.graph.run(QUESTIONS[0])
    assert result.tokens["latent"] == 0 and result.tokens["prefilled"] > 0
    assert all(int((cache.kinds == int(SlotKind.LATENT)).sum()) == 0 for cache in result.caches.values())
    sizes = [result.edge_bytes[pair] for pair in ((0, 1), (1, 2), (2, 3))]
    assert 0 < sizes[0] < sizes[1] < sizes[2]  # each hands on all it had
    (answer,) = method.answer([Example("q", QUESTIONS[0], "")])
    assert answer.cache_bytes == sum(sizes) and answer.text == result.answer


def test_latents_alone(tiny_llm: LocalLLM, tiny_tokenizer: Any) -> None:
    method = make_method("latent_mas", tiny_llm, tiny_tokenizer, settings(latent_only=True))
    (answer,) = method.answer([Example("q", QUESTIONS[0], "")])
    # two latents over each of three edges
    assert answer.cache_bytes == 3 * 2 * tiny_llm.slot_bytes and answer.tokens["latent"] == 6


@pytest.mark.parametrize("prompt", ["sequential", "hierarchical"])
@pytest.mark.parametrize("latent_steps", [0, 3])
def test_latent_pipelines_answer_the_same_in_any_batch(
    tiny_llm: LocalLLM, tiny_tokenizer: Any, prompt: str, latent_steps: int
) -> None:
    tiny_llm.stop_tokens = frozenset(range(4))
    chosen = settings(prompt=prompt, latent_steps=latent_steps, max_new_tokens=6)
    together = make_method("latent_mas", tiny_llm, tiny_tokenizer, chosen).answer(EXAMPLES * 2)
    tiny_llm.limits = Limits(max_batch_size=1)
    alone = make_method("latent_mas", tiny_llm, tiny_tokenizer, chosen).answer(EXAMPLES)
    assert [answer.text for answer in together] == [answer.text for answer in alone] * 2


def test_the_learned_graph_serves_text_as_well(tiny_llm: LocalLLM, tiny_tokenizer: Any) -> None:
    graph = toy_built(tiny_llm, tiny_tokenizer, decision_probability=0.9, agent_probability=0.8).graph
    chosen = settings(graph=graph)
    text = make_method("gdesigner", tiny_llm, tiny_tokenizer, chosen)
    cache = make_method("gcache", tiny_llm, tiny_tokenizer, chosen)
    assert isinstance(text, GraphMethod) and isinstance(cache, GraphMethod)
    assert cache.graph is graph
    (answer,) = text.answer(EXAMPLES[:1])
    assert [role for role, _ in answer.said] == [
        graph.agents[n].role for n in sorted(graph.topology(EXAMPLES[0]).heard(rounds=1))
    ]


def test_reasoning_models_begin_with_think(tiny_llm: LocalLLM, tiny_tokenizer: Any) -> None:
    for name in ("single", "text_mas", "latent_mas"):
        method = make_method(name, tiny_llm, tiny_tokenizer, settings(think=True))
        assert method.graph.decision.answer_prefix == "<think>\n"


@pytest.mark.parametrize(
    ("name", "values", "said"),
    [
        ("debate", {}, "unknown method 'debate'; choose one of: best_of_n, gcache, gdesigner, latent_mas, self_consis"),
        ("gcache", {}, "the method 'gcache' needs a graph"),
        ("gdesigner", {}, "the method 'gdesigner' needs a graph"),
        ("single", {"prompt": "circular"}, "unknown prompt 'circular'; choose one of: hierarchical, sequential"),
        ("latent_mas", {"latent_only": True, "latent_steps": 0}, "latent_only hands on latents, but latent_steps is 0"),
        ("latent_mas", {"latent_steps": -1}, "latent_steps must be 0 or more, got -1"),
        ("single", {"max_new_tokens": 0}, "max_new_tokens must be 1 or more, got 0"),
    ],
)
def test_what_is_no_method(
    tiny_llm: LocalLLM, tiny_tokenizer: Any, name: str, values: dict[str, Any], said: str
) -> None:
    with pytest.raises(ConfigError, match=said):
        make_method(name, tiny_llm, tiny_tokenizer, settings(**values))
    drawn = {"self_consistency", "best_of_n"}
    assert set(METHODS) == {"single", "text_mas", "latent_mas", "gdesigner", "gcache"} | drawn


# -- rows -----------------------------------------------------------------------------------------


class Numbers(NumberTask, ToyTask):
    """Graded as tasks with numbers are."""


class LastNumbers(Numbers):
    accept_last_number = True


class Says:
    """A method that says what it is told, at a price."""

    def __init__(self, name: str, *texts: str) -> None:
        self.name, self.texts = name, texts

    def answer(self, examples: Any, on_answer: Any = lambda: None) -> list[Answer]:
        tokens = {"prefilled": 10, "latent": 2, "generated": 3}
        return [Answer(e, text, tokens, cache_bytes=2**20) for e, text in zip(examples, self.texts, strict=True)]


def test_rows_are_paired_with_the_first() -> None:
    # right is a text that begins with a digit or one of a few words; "" states nothing
    methods = [Says("one", "1", "1", "box", ""), Says("two", "1", "2", "3", "you")]
    first, second = compare(methods, ToyTask(), EXAMPLES[:4], progress=False)
    assert (first.accuracy, first.difference, first.unparsed) == (0.5, 0.0, 1)
    assert (second.accuracy, second.difference, second.unparsed) == (0.75, 0.25, 0)
    assert (second.difference_low, second.difference_high) == paired_difference(
        [True, True, False, False], [True, True, True, False]
    )[1:]
    assert (second.generated, second.prefilled, second.latent, second.cache_bytes) == (3, 10, 2, 2**20)
    assert second.answers[3] == ("q3", "wrong", "you", "you") and json.dumps(second.to_json())
    table = markdown([first, second]).splitlines()
    assert len(table) == 4 and "| two | 0.750 |" in table[3] and "+0.250" in table[3] and "+0" not in table[2]


def test_answers_graded_by_overlap_have_their_f1_beside_the_accuracy() -> None:
    class Words(ToyTask):
        def grade(self, text: str, example: Example) -> Grade:
            found = overlap(text, [example.answer])
            return Grade("right" if found.exact else "wrong", text, f1=found.f1)

    examples = [Example(f"q{i}", "Where?", "Lund") for i in range(4)]
    methods = [Says("one", *["Rome"] * 4), Says("two", "Lund", "in Lund", "in Lund", "Rome")]
    rows = compare(methods, Words(), examples, progress=False)
    assert [row.f1s for row in rows] == [(0.0,) * 4, pytest.approx((1.0, 2 / 3, 2 / 3, 0.0))]
    head, _, first, second = (line.split(" | ") for line in markdown(rows).splitlines())
    assert head[1:7] == ["accuracy", "95 % interval", "F1", "95 % interval", "difference in F1", "bootstrap interval"]
    assert first[3:7] == ["0.000", "0.000 to 0.000", "", ""]
    assert (second[1], second[3], second[5]) == ("0.250", "0.583", "+0.583")
    assert all(len(cells) == len(head) for cells in (first, second))
    assert "F1" not in markdown(compare([Says("one", *"5555")], ToyTask(), examples, progress=False))


def test_texts_that_state_nothing_and_texts_that_are_cut_are_counted_apart() -> None:
    class IsCut(Says):
        def answer(self, examples: Any, on_answer: Any = lambda: None) -> list[Answer]:
            return [replace(a, cut=i > 0) for i, a in enumerate(super().answer(examples, on_answer))]

    examples = [Example(f"q{i}", "How many?", "5") for i in range(5)]
    texts = ("The answer is 5.", "She had 3 and has 5 eggs", "The answer isn't 5.", "The answer is 5", "#### 5\nSo")
    (row,) = compare([IsCut("one", *texts)], Numbers(), examples, progress=False)
    assert [answer[1] for answer in row.answers] == ["right", "unstated", "unparsed", "unparsed", "right"]
    assert (row.accuracy, row.unparsed, row.unstated, row.cut) == (0.4, 2, 1, 4)
    (row,) = compare([IsCut("one", *texts)], LastNumbers(), examples, progress=False)
    assert [answer[1] for answer in row.answers] == ["right", "right", "unparsed", "unparsed", "right"]
    assert (row.accuracy, row.unparsed, row.unstated, row.cut) == (0.6, 2, 1, 4)
    head, _, line = markdown([row]).splitlines()
    assert "| unparsed | unstated | cut |" in head and "| 2 | 1 | 0.800 |" in line


def test_rows_are_told_after_each_method_so_that_a_stopped_comparison_has_them() -> None:
    class Breaks(Says):
        def answer(self, examples: Any, on_answer: Any = lambda: None) -> list[Answer]:
            raise KeyboardInterrupt

    told: list[list[str]] = []

    def keep(rows: Sequence[Any]) -> None:
        told.append([row.name for row in rows])

    methods = [Says("one", "1"), Says("two", "you"), Breaks("three")]
    with pytest.raises(KeyboardInterrupt):
        compare(methods, ToyTask(), EXAMPLES[:1], progress=False, on_rows=keep)
    assert told == [["one"], ["one", "two"]]


@pytest.mark.parametrize("methods", [[], [Says("one", "1"), Says("one", "1")]])
def test_comparisons_that_are_none(methods: list[Any]) -> None:
    with pytest.raises(ConfigError, match="must be one or more, each once"):
        compare(methods, ToyTask(), EXAMPLES[:1], progress=False)


def test_no_question_is_no_comparison() -> None:
    with pytest.raises(ConfigError, match="no question to compare on"):
        compare([Says("one")], ToyTask(), [], progress=False)


def test_the_command_compares_and_writes_every_answer(
    model_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from gcache.commands.main import main

    data, out = tmp_path / "test.jsonl", tmp_path / "out.json"
    rows = [{"question": f"what is {n} + 2 ?", "answer": f"#### {n + 2}"} for n in range(6)]
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    command = [
        "compare", "--task", "gsm8k", "--data", str(data), "--limit", "5", "--llm_name", str(model_folder),
        "--latent_steps", "1", "--max_new_tokens", "3", "--dtype", "bfloat16", "--json", str(out),
    ]  # fmt: skip
    assert main([*command, "--methods", "single,text_mas,latent_mas,gdesigner,gcache"]) == 0
    printed = capsys.readouterr().out
    assert [line.split(" | ")[0] for line in printed.strip().splitlines()[2:]] == [
        "| single", "| text_mas", "| latent_mas", "| gdesigner", "| gcache",
    ]  # fmt: skip
    found = json.loads(out.read_text())
    assert [row["n"] for row in found["rows"]] == [5] * 5 and len(found["rows"][0]["answers"]) == 5
    assert found["rows"][0]["answers"][4][0] == "gsm8k-5"  # the file is used whole, from its start
    assert found["settings"]["latent_steps"] == 1 and found["dtype"] == "bfloat16"
    assert main([*command, "--methods", "single,guess"]) == 2
    assert "unknown method 'guess'" in capsys.readouterr().err
    assert main([*command, "--methods", "single", "--checkpoint", "x"]) == 2
    assert "--llm_name: a checkpoint has its own model" in capsys.readouterr().err


def test_a_graph_that_hears_nobody_writes_what_single_writes_in_the_dtype_asked_for(
    model_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from gcache.commands.main import main

    data, run, out = tmp_path / "data.jsonl", tmp_path / "run", tmp_path / "out.json"
    rows = [{"question": f"what is {n} + 2 ?", "answer": f"#### {n + 2}"} for n in range(6)]
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    trained = [
        "train", "--task", "gsm8k", "--data", str(data), "--task_option", "whole_file=true", "--llm_name",
        str(model_folder), "--dtype", "bfloat16", "--encoder", "hash", "--iterations", "1", "--batch_size", "2",
        "--rollouts", "2", "--latent_steps", "1", "--decision_turn", "same", "--max_new_tokens", "6", "--lr", "1e-6",
        "--decision_probability", "0.1", "--out", str(run),
    ]  # fmt: skip
    assert main(trained) == 0
    command = [
        "compare", "--methods", "single,gcache", "--checkpoint", str(run), "--task", "gsm8k", "--data", str(data),
        "--task_option", "whole_file=true", "--max_new_tokens", "6", "--json", str(out),
    ]  # fmt: skip
    assert main(command) == 0
    assert json.loads(out.read_text())["dtype"] == "bfloat16"
    assert main([*command, "--dtype", "float32"]) == 0
    found = json.loads(out.read_text())
    assert found["dtype"] == found["graph"]["dtype"] == "float32"
    single, ours = found["rows"]
    assert ours["cache_bytes"] == 0 and len(single["answers"]) == 6
    assert [answer[3] for answer in ours["answers"]] == [answer[3] for answer in single["answers"]]
    assert any(answer[3] for answer in single["answers"])
    capsys.readouterr()
    assert main([*command, "--dtype", "float99"]) == 2
    assert "float99" in capsys.readouterr().err
    # all methods have the checkpoint's limit
    at = command.index("--max_new_tokens")
    assert main([*command[:at], *command[at + 2 :]]) == 0
    assert max(row["generated"] for row in json.loads(out.read_text())["rows"]) <= 6
    assert main([*command[: at + 1], "7", *command[at + 2 :]]) == 2
    assert "has --max_new_tokens 6, got 7; methods are compared at one limit" in capsys.readouterr().err
    assert main([*trained[:-1], str(tmp_path / "longer"), "--max_new_tokens", "7"]) == 0
    assert main([*trained[:-1], str(tmp_path / "wider"), "--dtype", "float32"]) == 0
    beside = ["--task", "gsm8k", "--data", str(data), "--task_option", "whole_file=true", "--limit", "2"]
    for name, said in (
        ("longer", "longer has --max_new_tokens 7, and"), ("wider", "wider has --dtype float32, and the one it is put")
    ):  # fmt: skip
        capsys.readouterr()
        assert main(["frontier", str(run), str(tmp_path / name), *beside]) == 2
        assert said in capsys.readouterr().err


@pytest.mark.parametrize("changed", [
    {"quantization": "8bit"}, {"latent_space_realign": False}, {"graph": GraphConfig(chat_template_kwargs='{"a": 1}')},
    {"generation_mode": "hybrid"}, {"agent_models": ("smollm2",) * 4},
])  # fmt: skip
def test_graphs_of_one_model_in_two_ways_are_not_put_beside_each_other(changed: dict[str, Any]) -> None:
    first = GraphSpec(latent_space_realign=True)
    require_beside("runs/a", GraphSpec(latent_space_realign=True, topology="star"), first)
    with pytest.raises(ConfigError, match="runs/a"):
        require_beside("runs/a", replace(first, **changed), first)


def test_eval_runs_one_method(model_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from gcache.commands.main import main

    data = tmp_path / "test.jsonl"
    data.write_text('{"question": "what is 1 + 2 ?", "answer": "#### 3"}\n')
    one = ["eval", "--method", "latent_mas", "--llm_name", str(model_folder), "--max_new_tokens", "2"]
    asked = [*one, "--task", "gsm8k", "--data", str(data)]
    assert main(asked) == 0
    assert capsys.readouterr().out.strip().splitlines()[-1].startswith("| latent_mas | ")
    for wrong, said in (
        (one, "--method needs --task"),
        (["eval"], "nothing to evaluate; name a --checkpoint, or a --task"),
        (["eval", "--checkpoint", "x", "--latent_steps", "3"], "--latent_steps: a checkpoint has its own"),
        ([*asked, "--base_url", "http://h/v1", "--api_model", "toy"], "--api_model, --base_url: a method answers with"),
        ([*asked, "--api_key", "sk-0"], "--api_key: "), ([*asked, "--price_in", "1"], "--price_in: a method answers"),
        ([*asked, "--api_option", "top_p=1"], "--api_option: a"), ([*asked, "--batch_size", "3"], "--batch_size: a"),
        ([*asked, "--on_error", "skip"], "--on_error must be stop with --method"),
    ):
        assert main(wrong) == 2 and said in capsys.readouterr().err


@pytest.mark.parametrize("flag, methods, said", [
    (["--hands", "reasoning"], "single,gdesigner", "--hands: only gcache would heed this"),
    (["--decision_method", "vote", "--fuser", "relevance"], "single", "--decision_method, --fuser: only gcache"),
    (["--question", "last"], "text_mas,gdesigner", "--question: only gcache and single and self_consistency and"),
    (["--topology", "star"], "text_mas,latent_mas", "--topology: only gcache and gdesigner would heed this"),
    (["--samples", "3"], "single,gcache", "--samples: only self_consistency and best_of_n"),
    (["--prompt", "hierarchical"], "best_of_n", "--prompt: only text_mas and latent_mas"),
])  # fmt: skip
def test_a_flag_that_no_method_heeds_is_refused(
    flag: list[str], methods: str, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """By one that is named, or that comes from outside, it may be heeded."""
    from gcache.commands.main import main

    data = tmp_path / "test.jsonl"
    data.write_text('{"question": "what is 1 + 2 ?", "answer": "#### 3"}\n')
    command = ["compare", "--task", "gsm8k", "--data", str(data), "--llm_name", str(tmp_path / "none")]
    assert main([*command, "--methods", methods, *flag]) == 2
    assert said in capsys.readouterr().err
    for heeding in ("single,self_consistency,text_mas,gcache", "single,no.py:Method"):
        assert main([*command, "--methods", heeding, *flag]) == 2
        assert "would heed this" not in capsys.readouterr().err


DEALT = Example("dealt", "how many red apples ?", "3", (
    Note("planner", "the planner", "the box has 3 red apples"), Note("critic", "the critic", "there are 2 blue apples"),
))  # fmt: skip


@pytest.mark.parametrize("name", ["single", "self_consistency", "best_of_n"])
def test_one_prompt_has_all_that_is_dealt_out(tiny_llm: LocalLLM, tiny_tokenizer: Any, name: str) -> None:
    """The tokens are those of the question with the notes behind it, and as many are counted as read."""
    method = make_method(name, tiny_llm, tiny_tokenizer, settings(samples=2))
    words = "how many red apples ?\n\nthe box has 3 red apples\nthere are 2 blue apples"
    whole = replace(DEALT, question=words, notes=())
    assert in_one_prompt(DEALT) == whole and in_one_prompt(whole) is whole
    (dealt,), (asked,) = method.answer([DEALT]), method.answer([whole])
    assert dealt.example is DEALT and (dealt.text, dealt.tokens) == (asked.text, asked.tokens)
    (alone,) = method.answer([replace(DEALT, notes=())])
    assert dealt.tokens["prefilled"] > alone.tokens["prefilled"]


@pytest.mark.parametrize("name", ["single", "self_consistency", "best_of_n"])
def test_one_prompt_may_have_the_question_last(tiny_llm: LocalLLM, tiny_tokenizer: Any, name: str) -> None:
    """As graphs may: the words of the notes, then the question."""
    method = make_method(name, tiny_llm, tiny_tokenizer, settings(samples=2, question_order="last"))
    words = "the box has 3 red apples\nthere are 2 blue apples\n\nhow many red apples ?"
    whole = replace(DEALT, question=words, notes=())
    assert in_one_prompt(DEALT, "last") == whole and in_one_prompt(whole, "last") is whole
    (dealt,), (asked,) = method.answer([DEALT]), method.answer([whole])
    assert (dealt.text, dealt.tokens) == (asked.text, asked.tokens)


@pytest.mark.parametrize("name", ["text_mas", "latent_mas", "gcache", "gdesigner"])
def test_what_is_dealt_out_is_the_agents(tiny_llm: LocalLLM, tiny_tokenizer: Any, name: str) -> None:
    """Each agent has its own note in its prompt, and no other's."""
    graph = toy_built(tiny_llm, tiny_tokenizer, topology="star").graph
    method = make_method(name, tiny_llm, tiny_tokenizer, settings(graph=graph))
    result = method.graph.run(DEALT)
    assert [agent.prompt for agent in result.agents] == [note.text for note in DEALT.notes]
    first, second = (tiny_tokenizer.decode(result.prompts[0, agent]) for agent in range(2))
    assert "box" in first and "blue" not in first and "2 blue apples" in second


def test_the_command_compares_on_a_task_that_deals_out_what_agents_know(
    model_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from gcache.commands.main import main

    command = ["--task", "split_facts", "--limit", "2", "--llm_name", str(model_folder), "--max_new_tokens", "2"]
    assert main(["compare", *command, "--methods", "single,text_mas,latent_mas,gdesigner,gcache"]) == 0
    assert len(capsys.readouterr().out.strip().splitlines()) == 7
    out = tmp_path / "eval.json"
    assert main(["eval", *command, "--topology", "star", "--latent_steps", "0", "--json", str(out)]) == 0
    (row,) = json.loads(out.read_text())["rows"]
    assert row["name"] == "gcache" and row["n"] == 2 and row["cache_bytes"] > 0


def test_realigning_can_be_left_out(tiny_llm: LocalLLM, tiny_tokenizer: Any) -> None:
    plain = LocalLLM(tiny_llm.model, tiny_tokenizer, "plain", realign=False)
    hidden = torch.randn(3, 32)
    fed = plain.alignment(hidden)
    torch.testing.assert_close(fed, hidden * (plain.alignment.norm / hidden.norm(dim=-1, keepdim=True)))
    assert not torch.allclose(fed, tiny_llm.alignment(hidden), atol=1e-3) or tiny_llm.alignment.tied


def test_a_graph_of_its_own_config_is_left_alone(tiny_llm: LocalLLM, tiny_tokenizer: Any) -> None:
    graph = toy_built(
        tiny_llm, tiny_tokenizer, graph=GraphConfig(latent_steps=1, max_new_tokens=2), topology="star"
    ).graph
    method = make_method("gcache", tiny_llm, tiny_tokenizer, settings(graph=graph, max_new_tokens=9))
    assert isinstance(method, GraphMethod) and isinstance(method.graph, CacheGraph)
    assert method.answer(EXAMPLES[:1])[0].text == graph.run(QUESTIONS[0]).answer
