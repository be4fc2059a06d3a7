"""Models that think aloud: their thinking is told apart from the answer, whole and streamed, and can be turned off."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import httpx2
import pytest
import torch
from conftest import CHAT_TEMPLATE, WORDS
from toy import QUESTIONS, toy_built

from gcache.graph.run_config import GraphConfig
from gcache.llm.local import LocalLLM
from gcache.serve.choice_stream import ChoiceStream
from gcache.serve.deltas import SamplingParams
from gcache.serve.model import ServedModel

#: Words of the toy vocabulary that are other ones here.
TAGS = {"red": "<think>", "blue": "</think>"}
THINKING = CHAT_TEMPLATE.replace(
    "assistant\n{% endif %}",
    "assistant\n{% if enable_thinking is defined and not enable_thinking %}<think>\n</think>\n{% endif %}{% endif %}",
)
OPEN = CHAT_TEMPLATE.replace("assistant\n{% endif %}", "assistant\n<think>\n{% endif %}")


def thinking_tokenizer(template: str) -> Any:
    """The toy tokenizer with think tags among its words."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = [TAGS.get(word, word) for word in WORDS]
    made = Tokenizer(models.WordLevel({word: n for n, word in enumerate(words)}, unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    fast = PreTrainedTokenizerFast(
        tokenizer_object=made, unk_token="<unk>", eos_token="<|im_end|>", pad_token="<|im_end|>",
        additional_special_tokens=["<|im_start|>"],
    )  # fmt: skip
    fast.chat_template = template
    return fast


class Writes:
    """A head that writes the same text, again and again."""

    def __init__(self, tokens: list[int]) -> None:
        self.tokens, self.at = tokens, 0

    def __call__(self, states: Any) -> Any:
        logits = torch.zeros((*states.shape[:-1], len(WORDS)))
        logits[..., self.tokens[self.at % len(self.tokens)]] = 9.0
        self.at += 1
        return logits


@pytest.fixture
def served(start: Any, tiny_llama: Any) -> Callable[[str, str], Any]:
    """A service around a model that writes a text."""

    def make(template: str, text: str) -> Any:
        tokenizer = thinking_tokenizer(template)
        llm = LocalLLM(tiny_llama, tokenizer)
        llm.limits = replace(llm.limits, prompt_lookup=False)
        llm.head = Writes(tokenizer(f"{text} <|im_end|>", add_special_tokens=False)["input_ids"])
        graph = GraphConfig(latent_steps=1, max_new_tokens=12)
        return start(lambda: ServedModel.of(toy_built(llm, tokenizer, topology="chain", graph=graph), "toy"))

    return make


def deltas(url: str, **more: Any) -> list[dict[str, Any]]:
    body = {"messages": [{"role": "user", "content": "how many"}], "stream": True, **more}
    with httpx2.stream("POST", f"{url}/v1/chat/completions", json=body, timeout=30) as answer:
        lines = [line.removeprefix("data: ") for line in answer.iter_lines() if line]
    return [choice["delta"] for line in lines[:-1] for choice in json.loads(line)["choices"]]


@pytest.mark.parametrize(
    ("template", "text", "reasoning", "answer"),
    [
        (THINKING, "<think> is it 5 </think> 6", "is it 5", "6"),
        (OPEN, "is it 5 </think> 6", "is it 5", "6"),
        (OPEN, "is it 5", "is it 5", ""),
        (THINKING, "is it 5", "", "is it 5"),
    ],
)
def test_thinking_is_told_apart(
    served: Callable[[str, str], Any], template: str, text: str, reasoning: str, answer: str
) -> None:
    running = served(template, text)
    message = running.ask("how many")["choices"][0]["message"]
    assert (message["content"], message.get("reasoning_content", "")) == (answer, reasoning)
    told = deltas(running.url)
    assert "".join(delta.get("content") or "" for delta in told) == answer
    assert "".join(delta.get("reasoning_content", "") for delta in told) == reasoning
    assert sum("reasoning_content" in delta for delta in told) == len(reasoning.split())  # word by word


def test_a_request_turns_thinking_off(served: Callable[[str, str], Any]) -> None:
    running = served(THINKING, "6")
    counts = {}
    for name, more in (("on", {}), ("off", {"chat_template_kwargs": {"enable_thinking": False}}), ("again", {})):
        counts[name] = running.ask("how many", **more)["usage"]["prompt_tokens"]
    assert counts["on"] == counts["again"] < counts["off"]  # each turn that is opened has two tokens more


@pytest.mark.parametrize(
    ("value", "why"),
    [
        ([1], "chat_template_kwargs must be"),
        ({"messages": []}, "'messages', which is no variable"),
        ({"a b": 1}, "'a b', which is no variable"),
        ({f"v{n}": n for n in range(65)}, "chat_template_kwargs must be"),
        ({"enable_thinking": {"deep": [1, None, "x"]}}, None),
        ({}, None),
        (None, None),
    ],
)
def test_other_variables(start: Any, value: Any, why: str | None) -> None:
    running = start()
    body = {"messages": [{"role": "user", "content": QUESTIONS[0]}], "chat_template_kwargs": value}
    answer = running.post(**body)
    assert answer.status_code == (200 if why is None else 400)
    if why is not None:
        error = answer.json()["error"]
        assert why in error["message"] and error["param"] == "chat_template_kwargs"


def test_variables_that_break_the_template_are_refused(served: Callable[[str, str], Any]) -> None:
    running = served(THINKING.replace("not enable_thinking", "not enable_thinking + 1"), "6")
    body = {"messages": [{"role": "user", "content": "how"}], "chat_template_kwargs": {"enable_thinking": "no"}}
    answer = running.post(**body)
    assert answer.status_code == 400 and "chat template fails" in answer.json()["error"]["message"]
    assert running.ask("how")["choices"][0]["message"]["content"] == "6"


def test_an_api_has_templates_of_its_own(start: Any, held: Any) -> None:
    held.let_go()
    running = start(held.served)
    body = {"messages": [{"role": "user", "content": "how"}], "chat_template_kwargs": {"enable_thinking": False}}
    answer = running.post(**body)
    assert answer.status_code == 400 and "an API writes here" in answer.json()["error"]["message"]


def test_what_a_client_sends_back_of_thinking_is_taken(server: Any) -> None:
    talk = [
        {"role": "user", "content": "how"}, {"role": "assistant", "content": "6", "reasoning_content": "is it 5"},
        {"role": "user", "content": "many"},
    ]  # fmt: skip
    assert server.post(messages=talk).status_code == 200


# -- tokens that are bytes -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def of_bytes() -> Any:
    """A tokenizer of words that falls back on bytes."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = ["<unk>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), "\u2581the", "\u2581end", "\u2581a"]
    made = Tokenizer(models.BPE({word: n for n, word in enumerate(words)}, [], byte_fallback=True, unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.Metaspace()
    made.decoder = decoders.Sequence([decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse()])
    return PreTrainedTokenizerFast(tokenizer_object=made, eos_token="</s>", unk_token="<unk>")


@pytest.mark.parametrize(
    "tokens",
    [
        ["\u2581the", *"\U0001f642\U0001f642".encode()[:6]],  # cut in the second character
        ["\u2581the", *"\u00e9".encode(), 0xF0, "\u2581end", "\u2581a"],  # a byte that is none of any character
        ["\u2581the", *"\u00e9\U0001f642".encode(), "\u2581end"],
        [0xF0, 0x9F],
        ["\u2581the", *"\u00e9".encode(), "<unk>", 0xF0, "\u2581end"],  # what is left out parts no run
    ],
)
def test_a_stream_of_bytes_is_the_whole_text(of_bytes: Any, tiny_llama: Any, tokens: list[Any]) -> None:
    class Model:
        stop_tokens, stop_words, think_tokens, tokenizer = frozenset({1}), (), {}, of_bytes
        text, _decoded = LocalLLM.text, LocalLLM._decoded

    model: Any = Model()
    vocabulary = of_bytes.get_vocab()
    ids = tuple(vocabulary[token if isinstance(token, str) else f"<0x{token:02X}>"] for token in tokens)
    told: list[str] = []
    served: Any = ServedModel("bytes", None, model)  # type: ignore[arg-type]
    telling = ChoiceStream(served, SamplingParams(), lambda more: told.append(more.text))
    for count in range(1, len(ids) + 1):
        telling.written(ids[:count])
    telling.finish(model.text(ids), (), True)
    assert "".join(told) == model.text(ids)
