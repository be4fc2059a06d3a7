"""Chat templates of the kinds that are about: their pieces, what ends a turn, and what they take from outside."""

from __future__ import annotations

import copy
import json
import shutil
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from conftest import CHAT_TEMPLATE
from scripts import experiment
from toy import QUESTIONS, toy_built

from gcache import build as build_module
from gcache.agents.chat_template import ChatTemplate, EndOfTurn, TemplateSettings
from gcache.agents.prompts import ChatLayout, Layouts
from gcache.agents.thinking import split_thinking
from gcache.build import dated
from gcache.commands.train import train
from gcache.config import GraphSpec, TaskSpec
from gcache.errors import CheckpointError, ConfigError, ModelError
from gcache.graph.run_config import GraphConfig
from gcache.llm.local import LocalLLM
from gcache.llm.requests import GenerateRequest
from gcache.training import checkpoint as checkpoints
from gcache.training.checkpoint import load
from gcache.training.config import TrainConfig

if TYPE_CHECKING:
    from gcache.build import Built

KINDS = experiment("chat_templates")
USER = [{"role": "user", "content": "x"}]


@pytest.mark.parametrize("kind", KINDS.KINDS, ids=lambda kind: kind.name)
def test_a_template_that_is_about(kind: Any) -> None:
    row = KINDS.looked_at(kind)
    assert row.pieces == row.whole
    assert row.ends, f"a text ends at {row.end}, not at {kind.closes}"
    page = (Path(__file__).parents[1] / "docs" / "models.md").read_text(encoding="utf-8")
    assert f"\n| {kind.name} | {row.pieces} of {row.whole} | " in page


def with_template(tokenizer: Any, template: str) -> Any:
    made = copy.deepcopy(tokenizer)
    made.chat_template = template
    return made


# -- end of turn ------------------------------------------------------------------------------------


class Writes:
    """A head that writes some tokens, one after another, whatever it is asked."""

    def __init__(self, tokens: tuple[int, ...], vocabulary: int) -> None:
        self.tokens, self.vocabulary, self.at = tokens, vocabulary, 0

    def __call__(self, states: Any) -> Any:
        import torch

        logits = torch.zeros((*states.shape[:-1], self.vocabulary))
        logits[..., self.tokens[min(self.at, len(self.tokens) - 1)]] = 9.0
        self.at += 1
        return logits


def written(llm: LocalLLM, text: str) -> Any:
    """What comes of a model that writes a text and then goes on with it."""
    llm.limits = replace(llm.limits, prompt_lookup=False)
    ids = tuple(llm.tokenizer(text, add_special_tokens=False)["input_ids"])
    llm.head = Writes(ids, 64)
    return llm.generate([GenerateRequest((5,), None, len(ids))])[0]


@pytest.mark.parametrize("plain", [False, True])
def test_what_closes_a_turn_ends_a_text_though_the_folder_names_another_token(
    tiny_llama: Any, tiny_tokenizer: Any, plain: bool
) -> None:
    tokenizer = copy.deepcopy(tiny_tokenizer)
    tokenizer.eos_token = "<unk>"
    if plain:  # the marks are words like any other
        tokenizer.chat_template = CHAT_TEMPLATE.replace("<|im_end|>", " . is how / ").replace("<|im_start|>", "- ")
    llm = LocalLLM(tiny_llama, tokenizer)
    text = "7 . is how / - user : 8" if plain else "7 <|im_end|> <|im_start|> user 8"
    found = written(llm, text)
    assert found.text.strip() == "7" and found.finished


def test_every_id_of_the_generation_settings_ends_a_text(tiny_llama: Any, tiny_tokenizer: Any) -> None:
    model = copy.deepcopy(tiny_llama)
    model.generation_config.eos_token_id = [7, 30]
    llm = LocalLLM(model, tiny_tokenizer)
    assert {2, 7, 30} <= llm.stop_tokens


def test_without_a_template_nothing_is_known_of_turns(tiny_tokenizer: Any) -> None:
    assert EndOfTurn.of(with_template(tiny_tokenizer, "")) == EndOfTurn()


def test_a_line_break_that_is_a_token_of_its_own_closes_no_turn(tiny_tokenizer: Any) -> None:
    template = CHAT_TEMPLATE.replace("<|im_end|>", "\n\n").replace("<|im_start|>", "### ")
    tokenizer = with_template(tiny_tokenizer, template)
    tokenizer.add_tokens(["\n\n"])
    end = EndOfTurn.of(tokenizer)
    assert not end.tokens and end.words == ("\n### user",)


def test_a_template_that_refuses_a_talk_that_ends_with_an_answer(tiny_tokenizer: Any) -> None:
    refusing = "{% if messages[-1]['role'] != 'user' %}{{ raise_exception('no') }}{% endif %}" + CHAT_TEMPLATE
    assert EndOfTurn.of(with_template(tiny_tokenizer, refusing)).tokens == {2}


@pytest.mark.parametrize("line", ["END", "##", "\u56de\u7b54\u5b8c\u6bd5"])
def test_a_line_of_its_own_closes_a_turn_before_the_next_role_is_written(tiny_tokenizer: Any, line: str) -> None:
    template = "{% for m in messages %}{{ m['role'] }}:{{ m['content'] }}\n" + line + "\n{% endfor %}"
    assert EndOfTurn.of(with_template(tiny_tokenizer, template)).words == (f"\n{line}\n",)


def test_variables_have_a_part_in_how_a_turn_is_closed(tiny_llama: Any, tiny_tokenizer: Any) -> None:
    end = "{% set end = '<|im_end|>' if style is not defined else ' . is how / ' %}"
    tokenizer = with_template(tiny_tokenizer, end + CHAT_TEMPLATE.replace("<|im_end|>", "{{ end }}"))
    tokenizer.eos_token = "<unk>"
    settings = TemplateSettings('{"style": 1}')
    found = written(LocalLLM(tiny_llama, tokenizer, template=settings), "7 . is how / <|im_start|> user 8")
    assert found.text.strip() == "7" and found.finished
    assert Layouts(tokenizer, settings).of('{"other": 1}')
    with pytest.raises(ConfigError, match="change what closes a turn"):
        Layouts(tokenizer, TemplateSettings()).of('{"style": 1}')


@pytest.mark.parametrize("between", [" U ", ".\n", " x"])
def test_words_that_stand_in_any_sentence_end_no_text(tiny_tokenizer: Any, between: str) -> None:
    template = "{% for m in messages %}{{ m['content'] }}" + between + "{% endfor %}"
    assert EndOfTurn.of(with_template(tiny_tokenizer, template)) == EndOfTurn()


@pytest.mark.parametrize(("start", "end"), [("<think>", "</think>"), ("[THINK]", "[/THINK]")])
def test_tags_that_are_special_tokens_are_not_lost(tiny_llama: Any, tiny_tokenizer: Any, start: str, end: str) -> None:
    tokenizer = copy.deepcopy(tiny_tokenizer)
    tokenizer._tokenizer.add_special_tokens([])
    vocabulary = json.loads(tokenizer._tokenizer.to_str())
    words = vocabulary["model"]["vocab"]
    words[start], words[end] = words.pop("red"), words.pop("blue")
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

    fast = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(json.dumps(vocabulary)), unk_token="<unk>", eos_token="<|im_end|>",
        additional_special_tokens=["<|im_start|>", start, end],
    )  # fmt: skip
    fast.chat_template = CHAT_TEMPLATE
    llm = LocalLLM(tiny_llama, fast)
    found = written(llm, f"{start} is it 5 {end} the answer is 6 <|im_end|>")
    assert split_thinking(found.text) == ("is it 5", "the answer is 6")


# -- what comes from outside --------------------------------------------------------------------------

DATED = "{{ strftime_now('%d %B %Y, day %-j %%d %H:%M') }} " + CHAT_TEMPLATE


def test_a_date_is_the_one_that_is_fixed(tiny_tokenizer: Any) -> None:
    tokenizer = with_template(tiny_tokenizer, DATED)
    made = ChatTemplate(tokenizer, TemplateSettings(date="2026-01-31T08:05"))
    assert made.reads_date
    assert made.text(USER).startswith("31 January 2026, day 31 %d 08:05 <|im_start|>user\nx")
    assert not ChatTemplate(tiny_tokenizer).reads_date
    both = (ChatTemplate(tiny_tokenizer, TemplateSettings(date=day)).text(USER) for day in ("2026-01-31", "1999-05-05"))
    assert len(set(both)) == 1


@pytest.mark.parametrize("begins", ["", "\n", "    {% if true %}a{% endif %}\n", "{%- if true -%} b {%- endif %}"])
def test_fixing_the_date_changes_nothing_else(tiny_tokenizer: Any, begins: str) -> None:
    body = begins + CHAT_TEMPLATE
    plain = ChatTemplate(with_template(tiny_tokenizer, body)).text(USER)
    dated_ = ChatTemplate(with_template(tiny_tokenizer, body + "{# strftime_now #}")).text(USER)
    assert dated_ == plain


def test_a_run_keeps_the_date_of_its_first_day(tiny_llm: LocalLLM, tiny_tokenizer: Any) -> None:
    spec = toy_built(tiny_llm, tiny_tokenizer).spec
    assert dated(spec, tiny_tokenizer).graph.prompt_date == ""
    first = dated(spec, with_template(tiny_tokenizer, DATED))
    assert first.graph.prompt_date == date.today().isoformat()
    assert type(spec).from_json(json.loads(json.dumps(first.to_json()))) == first
    assert dated(first, with_template(tiny_tokenizer, DATED)) is first


SEASON = "{% if strftime_now('%m') | int in [6, 7, 11] %}It is that season.{% endif %}"
YESTERDAY = "{% for m in messages %}{{ m['content'] }}{% if m['role'] != 'user' %}{{ strftime_now('%F') }}{% endif %}"


@pytest.mark.parametrize("template", [SEASON + CHAT_TEMPLATE, YESTERDAY + "{% endfor %}"])
def test_a_date_that_shows_on_some_days_or_in_some_turns_alone_is_fixed(tiny_tokenizer: Any, template: str) -> None:
    assert ChatTemplate(with_template(tiny_tokenizer, template)).reads_date


@pytest.mark.parametrize("drawn", [
    "{{ range(1000) | random }}", "{{ lipsum(n=1) }}", "{{ ['a', 'a'] | random }}",
    "{% if messages | length > 1 %}{{ range(9) |random }}{% endif %}",
])
def test_a_template_that_draws_is_refused(tiny_tokenizer: Any, drawn: str) -> None:
    with pytest.raises(ModelError, match="something else each time"):
        ChatTemplate(with_template(tiny_tokenizer, drawn + CHAT_TEMPLATE))


@pytest.mark.parametrize(
    ("template", "why"),
    [
        ("{{ raise_exception('only a system turn\nmay come first') }}", "only a system turn"),
        ("{{ 1 / 0 }}", "ZeroDivisionError"),
        ("{{ messages.nothing.more }}", "UndefinedError"),
        ("{% for m in messages %}", "TemplateSyntaxError"),
        ("{{ messages[0]['content'] + 1 }}", "TypeError"),
        ("{{ ''.__class__.__mro__ }}", "SecurityError"),
        ("{% for i in range(10000000) %}{% endfor %}", "OverflowError"),
    ],
)
def test_a_template_that_fails_is_one_line(tiny_llama: Any, tiny_tokenizer: Any, template: str, why: str) -> None:
    tokenizer = with_template(tiny_tokenizer, template)
    for make in (lambda: ChatLayout.of(tokenizer), lambda: LocalLLM(tiny_llama, tokenizer)):
        with pytest.raises(ModelError) as caught:
            make()
        assert why in str(caught.value) and "chat template fails" in str(caught.value)
        assert len(str(caught.value).splitlines()) == 1


# -- variables ----------------------------------------------------------------------------------------

THINKING = CHAT_TEMPLATE.replace(
    "<|im_start|>assistant\n{% endif %}",
    "<|im_start|>assistant\n{% if enable_thinking is defined and not enable_thinking %}- / is{% endif %}{% endif %}",
)


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("[1]", "must be a JSON object"),
        ("{enable_thinking: false}", "must be a JSON object"),
        ("[" * 100_000, "must be a JSON object"),
        ('{"tokenize": true}', "'tokenize', which is no variable"),
        ('{"a b": 1}', "'a b', which is no variable"),
        ('{"messages": []}', "'messages', which is no variable"),
    ],
)
def test_what_cannot_be_variables_is_refused(text: str, what: str) -> None:
    with pytest.raises(ConfigError, match="chat_template_kwargs") as caught:
        GraphConfig(chat_template_kwargs=text)
    assert what in str(caught.value) and len(str(caught.value).splitlines()) == 1


def test_a_date_that_is_none_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"prompt_date must be a date such as 2026-01-31, got 'yesterday'"):
        GraphConfig(prompt_date="yesterday")


@pytest.fixture
def thinking(tiny_llm: LocalLLM, tiny_tokenizer: Any) -> Built:
    return toy_built(tiny_llm, with_template(tiny_tokenizer, THINKING), topology="full")


def test_a_question_may_have_variables_of_its_own(thinking: Built, tiny_llm: LocalLLM, tiny_tokenizer: Any) -> None:
    graph = thinking.graph
    usual, off = graph.run(QUESTIONS[0]), graph.run(QUESTIONS[0], chat_template_kwargs={"enable_thinking": False})
    more = tuple(tiny_tokenizer("- / is", add_special_tokens=False)["input_ids"])
    assert off.spoken[0].tokens == usual.spoken[0].tokens + more
    assert all(off.prompts[node] == usual.prompts[node] + more for node in usual.prompts)
    assert graph.run(QUESTIONS[0]).spoken == usual.spoken  # and the next has none
    config = GraphConfig(latent_steps=1, max_new_tokens=3, chat_template_kwargs='{"enable_thinking": false}')
    kept = toy_built(tiny_llm, with_template(tiny_tokenizer, THINKING), topology="full", graph=config)
    assert kept.graph.run(QUESTIONS[0]).spoken == off.spoken
    assert kept.spec.to_json()["graph"]["chat_template_kwargs"] == '{"enable_thinking": false}'


def test_a_variable_that_no_template_reads_is_said(tiny_tokenizer: Any, caplog: pytest.LogCaptureFixture) -> None:
    ChatLayout.of(tiny_tokenizer, TemplateSettings('{"enable_thinkng": false}'))
    assert "'enable_thinkng', which the chat template of this model never reads" in caplog.text


def test_a_run_that_is_taken_up_another_day_says_the_same_to_its_model(
    model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Tomorrow(date):
        @classmethod
        def today(cls) -> Tomorrow:
            return cls.fromordinal(date.today().toordinal() + 1)

    folder, out = tmp_path / "model", tmp_path / "out"
    shutil.copytree(model_folder, folder)
    (folder / "chat_template.jinja").write_text(DATED)
    spec = GraphSpec(
        llm_name=str(folder), dtype="float32", encoder="hash", domain="split_facts",
        graph=GraphConfig(latent_steps=0, max_new_tokens=2),
    )  # fmt: skip
    config = TrainConfig(iterations=1, batch_size=2, rollouts=2)
    task = TaskSpec("split_facts")
    train(task, spec, config, out, progress=False)
    first = checkpoints.read(out).spec.graph.prompt_date
    assert first == date.today().isoformat()
    monkeypatch.setattr(build_module, "date", Tomorrow)
    train(task, spec, config, out, progress=False)
    built, _ = load(out)
    assert built.spec.graph.prompt_date == first == checkpoints.read(out).spec.graph.prompt_date
    with pytest.raises(CheckpointError, match="pass the same settings"):
        other = replace(spec, graph=replace(spec.graph, prompt_date="2001-01-01"))
        train(task, other, config, out, progress=False)
