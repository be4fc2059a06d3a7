"""Whatever a chat template or its settings are, they give a value or one line."""

from __future__ import annotations

import copy
import json
from typing import Any

from conftest import CHAT_TEMPLATE
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from gcache.agents.chat_template import THINK_TAGS, ChatTemplate, EndOfTurn, TemplateSettings, check_variables
from gcache.agents.prompts import ChatLayout
from gcache.agents.thinking import ThinkSplitter, split_thinking
from gcache.errors import ConfigError, ModelError

ANY = settings(
    max_examples=150, deadline=None, database=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
names = st.sampled_from(["enable_thinking", "messages", "tools", "", "a b", "x", "documents", "gcache_date", "\ud83d"])
plain = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=6)
values = st.recursive(
    plain,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names | st.text(max_size=6), inner, max_size=3),
    max_leaves=8,
)
kwargs = st.text(max_size=20) | values.map(json.dumps) | st.just("[" * 5000)
dates = st.text(max_size=12) | st.sampled_from(
    ["2026-01-31", "2026-02-30", "20260131", "0001-01-01", "9999-12-31", "2026-01-31T10:00:00+14:00", "2026-W05-6", " "]
)
#: Pieces of templates: of working ones, of those that fail, and of none at all.
PIECES = [
    "{% for m in messages %}", "{% endfor %}", "<{{ m.role }}>{{ m.content }}", "{{ m['content'] | trim }}", "</s>",
    "{% if add_generation_prompt %}", "{% endif %}", "{% else %}", "<think>", "</think>", "{{ bos_token }}",
    "{{ raise_exception('no\nsystem') }}", "{{ strftime_now('%d %b %Y') }}", "{{ strftime_now(7) }}",
    "{{ enable_thinking }}", "{% if enable_thinking %}", "{{ 1 / 0 }}", "{{ messages[9].content }}", "{{ x.y.z }}",
    "{{ messages | tojson }}", "{{ range(3) | random }}", "{% macro strftime_now(x) %}{% endmacro %}", "{{", "%}", "{#",
    "{% set messages = [] %}", "{{ namespace(a=1).a }}", "{% include 'x' %}", "{{ lipsum() }}", "\n", "user", "\ud83d",
    "{{ ''.__class__ }}", "{% for i in range(9) %}", "{% break %}", "{{ messages[0].content[:3] }}",
]  # fmt: skip
templates = st.lists(st.sampled_from(PIECES), max_size=9).map("".join) | st.text(max_size=20) | st.sampled_from(
    [CHAT_TEMPLATE, CHAT_TEMPLATE + "{{ enable_thinking }}", CHAT_TEMPLATE.replace("user", "{{ strftime_now('%Y') }}")]
)  # fmt: skip
tags = [tag for pair in THINK_TAGS for tag in pair]
pieces = st.sampled_from([*tags, "<thi", "a", " ", "\n", "`", "```\n", "'", "<THINK>", "6"])


def one_line(error: Exception) -> None:
    assert str(error).strip() and len(str(error).splitlines()) == 1 and len(str(error)) < 600


@ANY
@given(kwargs=kwargs, date=dates, more=kwargs)
@example(kwargs='{"a": NaN}', date="", more="")
@example(kwargs='{"a": 1, "a": 2}', date="", more="")
@example(kwargs="1" * 5000, date="", more="")
def test_any_settings(kwargs: str, date: str, more: str) -> None:
    try:
        made = TemplateSettings(kwargs, date).changed(more)
    except ConfigError as error:
        one_line(error)
        return
    assert made.now() and TemplateSettings(made.kwargs, made.date) == made
    assert all(isinstance(name, str) and name.isidentifier() for name in made.variables())


@ANY
@given(found=values)
def test_any_variables_of_a_request(found: Any) -> None:
    try:
        check_variables(found)
    except ConfigError as error:
        one_line(error)
    else:
        assert isinstance(found, dict)


@ANY
@given(template=templates, kwargs=kwargs)
@example(template=CHAT_TEMPLATE, kwargs="")
@example(template="{{ messages }}", kwargs='{"messages": 1}')
def test_any_template(tiny_tokenizer: Any, template: str, kwargs: str) -> None:
    tokenizer = copy.copy(tiny_tokenizer)
    tokenizer.chat_template = template
    try:
        settings = TemplateSettings(kwargs, "2026-01-31")
        made = ChatTemplate(tokenizer, settings)
        layout = ChatLayout.of(tokenizer, settings)
        end = EndOfTurn.of(tokenizer)
    except (ConfigError, ModelError) as error:
        one_line(error)
        return
    user = [{"role": "user", "content": "one"}]
    assert made.text(user) == made.text(user) and isinstance(made.unread(), list)
    assert all(isinstance(token, int) for token in layout.question("one two"))
    assert all(word.strip() for word in end.words)


@ANY
@given(parts=st.lists(pieces, max_size=8), opened=st.booleans(), size=st.integers(1, 9))
def test_any_thinking(parts: list[str], opened: bool, size: int) -> None:
    """However a text comes, it is told apart as the whole is, and nothing that was told is taken back."""
    text, parting = "".join(parts), ThinkSplitter(opened)
    told = [parting.grow(text[start : start + size]) for start in range(0, len(text), size)]
    whole = split_thinking(text, opened)
    assert whole.thinking.startswith("".join(t.thinking for t in told))
    assert whole.answer.startswith("".join(t.answer for t in told))
    assert parting.end() == whole
    assert whole.thinking == whole.thinking.strip()
