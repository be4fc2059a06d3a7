"""A bare text is read with the special tokens that its tokenizer puts round it, once; a chat brings its own."""

from __future__ import annotations

from typing import Any

import pytest
from tokenizers import processors
from toy import QUESTIONS, toy_built
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from gcache.graph.run_config import GraphConfig
from gcache.llm.local import LocalLLM
from gcache.llm.requests import GenerateRequest
from gcache.serve.model import ServedModel
from gcache.serve.raw_text import raw_tokens

START, END = "<|im_start|>", "<|im_end|>"


def with_template(tokenizer: PreTrainedTokenizerFast, template: str) -> PreTrainedTokenizerFast:
    """A copy that puts special tokens round a text."""
    import copy

    made = copy.deepcopy(tokenizer)
    made.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single=template, special_tokens=[(word, made.convert_tokens_to_ids(word)) for word in (START, END)]
    )
    return made


@pytest.fixture(scope="module")
def starting(tiny_tokenizer: PreTrainedTokenizerFast) -> PreTrainedTokenizerFast:
    return with_template(tiny_tokenizer, f"{START} $A")


def served(tiny_llama: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast) -> ServedModel:
    llm = LocalLLM(tiny_llama, tokenizer, "tiny")
    return ServedModel.of(toy_built(llm, tokenizer, topology="chain", graph=GraphConfig(max_new_tokens=6)), "toy")


def test_a_prompt_counts_the_tokens_that_transformers_counts(
    start: Any, tiny_llama: LlamaForCausalLM, starting: PreTrainedTokenizerFast
) -> None:
    made = start(lambda: served(tiny_llama, starting))
    llm = LocalLLM(tiny_llama, starting, "tiny")

    def asked(**body: Any) -> tuple[int, str]:
        answer = made.post("/v1/completions", max_tokens=6, **body)
        assert answer.status_code == 200, answer.text
        return answer.json()["usage"]["prompt_tokens"], answer.json()["choices"][0]["text"]

    whole = tuple(starting("one apples")["input_ids"])
    bare = tuple(starting("one apples", add_special_tokens=False)["input_ids"])
    assert len(whole) == 3 and len(bare) == 2
    both = llm.generate([GenerateRequest(tokens, max_new_tokens=6) for tokens in (whole, bare)])
    with_start, without = both[0].text, both[1].text
    assert with_start != without
    for body in (
        {"prompt": "one apples"}, {"prompt": ["one apples"]}, {"prompt": "one apples", "add_special_tokens": True},
        {"prompt": "one apples", "add_special_tokens": None}, {"prompt": f"{START} one apples"},
        {"prompt": list(whole)}, {"prompt": f"{START} one apples", "add_special_tokens": False},
    ):  # fmt: skip
        assert asked(**body) == (3, with_start), body
    for body in ({"prompt": list(bare)}, {"prompt": "one apples", "add_special_tokens": False}):
        assert asked(**body) == (2, without), body
    talk = {"messages": [{"role": "user", "content": QUESTIONS[0]}]}
    plain = start(lambda: served(tiny_llama, starting)).post(**talk).json()
    assert made.post(**talk, add_special_tokens=False).json()["choices"] == plain["choices"]


def test_an_echo_has_the_start_of_its_text_among_its_tokens(
    start: Any, tiny_llama: LlamaForCausalLM, starting: PreTrainedTokenizerFast
) -> None:
    made = start(lambda: served(tiny_llama, starting))
    body = {"prompt": "one apples", "max_tokens": 0, "echo": True, "logprobs": 0}
    (choice,) = made.post("/v1/completions", **body).json()["choices"]
    assert choice["text"] == "one apples"
    assert choice["logprobs"]["tokens"] == [START, "one", "apples"]
    assert choice["logprobs"]["text_offset"] == [0, 0, 4]
    assert choice["logprobs"]["token_logprobs"][0] is None and choice["logprobs"]["token_logprobs"][1] < 0


@pytest.mark.parametrize("template", [f"{START} $A", f"{START} $A {END}", f"$A {END}", f"{START} {START} $A", "$A"])
def test_what_a_text_has_itself_is_not_added_again(
    tiny_tokenizer: PreTrainedTokenizerFast, template: str
) -> None:
    tokenizer = with_template(tiny_tokenizer, template)
    whole = tuple(tokenizer("one apples")["input_ids"])
    assert raw_tokens(tokenizer, "one apples") == whole
    assert raw_tokens(tokenizer, tokenizer.decode(whole)) == whole
    assert raw_tokens(tokenizer, "one apples", specials=False) == tuple(tiny_tokenizer("one apples")["input_ids"])
    assert raw_tokens(tokenizer, "one a") == tuple(tokenizer("one a")["input_ids"])


def test_a_tokenizer_without_special_tokens_adds_none(tiny_tokenizer: PreTrainedTokenizerFast) -> None:
    for text in ("one apples", START, f"{START} one", "a"):
        assert raw_tokens(tiny_tokenizer, text) == tuple(tiny_tokenizer(text)["input_ids"])
