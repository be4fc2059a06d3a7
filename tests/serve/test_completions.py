"""Completions of the local model alone, of text and of embeddings."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from typing import Any

import openai
import pytest
import torch
from toy import QUESTIONS

from gcache.build import Built
from gcache.errors import ApiError
from gcache.graph.run_config import GraphConfig
from gcache.graph.writers.prompt_embeds import encoded
from gcache.llm.api.client import ApiLLM, ApiSettings
from gcache.llm.local import LocalLLM
from gcache.llm.requests import GenerateRequest
from gcache.serve.requests import ChatRequest, EmbedsCompletionRequest

PROMPT = "how many red apples are"


def tokens(llm: LocalLLM, text: str) -> tuple[int, ...]:
    return tuple(llm.tokenizer(text, add_special_tokens=False)["input_ids"])


def test_a_prompt_is_completed_as_it_is(server: Any, llm: LocalLLM) -> None:
    asked = tokens(llm, PROMPT)
    (expected,) = llm.generate([GenerateRequest(asked, max_new_tokens=9, temperature=1.2, seed=4)])
    body = server.post("/v1/completions", prompt=PROMPT, max_tokens=9, temperature=1.2, seed=4).json()
    assert body["choices"] == [
        {
            "index": 0,
            "text": expected.text,
            "logprobs": None,
            "finish_reason": "stop" if expected.finished else "length",
        }
    ]
    assert body["usage"]["prompt_tokens"] == len(asked)
    assert body["usage"]["completion_tokens"] == len(expected.tokens)
    assert body["object"] == "text_completion"


def test_the_official_client_streams_it(server: Any, llm: LocalLLM) -> None:
    (expected,) = llm.generate([GenerateRequest(tokens(llm, PROMPT), max_new_tokens=16)])
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="any", max_retries=0) as client:
        stream = client.completions.create(model="toy", prompt=PROMPT, stream=True)
        assert "".join(chunk.choices[0].text for chunk in stream if chunk.choices) == expected.text


def test_embeddings_of_a_prompt_are_the_prompt(server: Any, llm: LocalLLM) -> None:
    asked = tokens(llm, PROMPT)
    (expected,) = llm.generate([GenerateRequest(asked, max_new_tokens=9)])
    embeds = encoded(llm.embedding(torch.tensor(asked)))
    for prompt in ({}, {"prompt": None}, {"prompt": []}):
        for sent in (embeds, [embeds]):
            body = server.post("/v1/completions", **prompt, prompt_embeds=sent, max_tokens=9).json()
            assert [choice["text"] for choice in body["choices"]] == [expected.text]
            assert body["usage"]["prompt_tokens"] == len(asked)


#: Forms of a prompt -> choices that vLLM 0.32 gives for it alone, as tests/real_vllm.sh found; 0 where it answers 400.
PROMPTS: list[tuple[Any, int]] = [
    (..., 0), (None, 0), ([], 0), ("", 0), ([""], 0), ([[]], 0), ("x", 1), (["x"], 1), (["x", "y"], 2), ([5, 6], 1),
    ([[5, 6], [7]], 2), (["x", ""], 0), ([5, -1], 0), ([10**8], 0), ([5.5], 0), (5, 0), ({}, 0), (True, 0), ([None], 0),
    (["x", 5], 0), ([[5], "x"], 0),
]  # fmt: skip
#: Likewise of embeddings; None stands for the base64 of a tensor.
EMBEDS: list[tuple[Any, int]] = [
    (..., 0), (None, 0), ([], 0), ("E", 1), (["E"], 1), (["E", "E"], 2), ("", -1), ([""], -1), ([None], -1), (5, -1),
    (["E", "!!"], -1), ([["E"]], -1), ({}, -1),
]  # fmt: skip
#: Prompts that ask for nothing, where embeddings ask for something.
NOTHING = (..., None, [])


@pytest.mark.parametrize(("prompt", "texts"), PROMPTS, ids=repr)
@pytest.mark.parametrize(("embeds", "tensors"), EMBEDS, ids=repr)
def test_prompts_and_embeddings_are_taken_as_vllm_takes_them(
    server: Any, llm: LocalLLM, prompt: Any, texts: int, embeds: Any, tensors: int
) -> None:
    tensor = encoded(llm.embedding(torch.tensor(tokens(llm, PROMPT))))
    sent = json.loads(json.dumps(None if embeds is ... else embeds).replace('"E"', json.dumps(tensor)))
    fields = {**({} if prompt is ... else {"prompt": prompt}), **({} if embeds is ... else {"prompt_embeds": sent})}
    answer = server.post("/v1/completions", **fields, max_tokens=2)
    asks_nothing = any(prompt is nothing or prompt == nothing for nothing in NOTHING)
    refused = tensors < 0 or (not texts and not (tensors and asks_nothing))
    assert answer.status_code == (400 if refused else 200), answer.text
    if refused:
        assert answer.json()["error"]["type"] == "invalid_request_error"
    else:
        choices = answer.json()["choices"]
        assert [choice["index"] for choice in choices] == list(range(tensors + texts))
        assert len({choice["text"] for choice in choices[:tensors]}) <= 1  # embeddings come first


def test_each_of_several_prompts_is_answered_as_it_is_alone(server: Any, llm: LocalLLM) -> None:
    asked = [tokens(llm, text) for text in (PROMPT, "the sum of", "how many")]
    alone = llm.generate([GenerateRequest(prompt, max_new_tokens=7, temperature=1.1, seed=3) for prompt in asked])
    embeds = encoded(llm.embedding(torch.tensor(asked[0])))
    fields = {"max_tokens": 7, "temperature": 1.1, "seed": 3, "prompt_embeds": embeds, "prompt": asked[1:]}
    body = server.post("/v1/completions", **fields).json()
    assert [choice["text"] for choice in body["choices"]] == [text.text for text in alone]
    assert [choice["finish_reason"] for choice in body["choices"]] == [
        "stop" if text.finished else "length" for text in alone
    ]
    assert body["usage"]["prompt_tokens"] == sum(map(len, asked))
    assert body["usage"]["completion_tokens"] == sum(len(text.tokens) for text in alone)
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="any", max_retries=0) as client:
        texts, ends = {0: "", 1: "", 2: ""}, []
        extra = {"prompt_embeds": embeds}
        for chunk in client.completions.create(
            model="toy", prompt=[list(prompt) for prompt in asked[1:]], max_tokens=7, temperature=1.1, seed=3,
            stream=True, stream_options={"include_usage": True}, extra_body=extra,
        ):  # fmt: skip
            for choice in chunk.choices:
                texts[choice.index] += choice.text
                ends += [choice.index] if choice.finish_reason else []
    assert list(texts.values()) == [text.text for text in alone] and ends == [0, 1, 2]
    assert chunk.usage is not None and chunk.usage.prompt_tokens == sum(map(len, asked))


def test_an_answer_is_cut_to_what_the_context_leaves(server: Any) -> None:
    def asked(rows: int, most: int) -> Any:
        return server.post("/v1/completions", prompt_embeds=encoded(torch.ones(rows, 32)), max_tokens=most)

    body = asked(509, 10).json()
    assert body["usage"]["prompt_tokens"] == 509 and body["usage"]["completion_tokens"] <= 3
    assert body["usage"]["completion_tokens"] == 3 or body["choices"][0]["finish_reason"] == "stop"
    assert asked(511, 200).status_code == 200
    for rows, most in ((512, 1), (513, 1), (1000, 1)):
        answer = asked(rows, most)
        assert answer.status_code == 400, (rows, most)


def test_null_is_nothing_in_every_field(server: Any) -> None:
    nulls: dict[str, Any] = dict.fromkeys(EmbedsCompletionRequest.model_fields)
    for fields in ({"prompt_embeds": encoded(torch.ones(3, 32))}, {"prompt": "x"}):
        plain = server.post("/v1/completions", **fields).json()
        explicit = server.post("/v1/completions", **{**nulls, **fields}).json()
        assert explicit["choices"] == plain["choices"] and explicit["usage"] == plain["usage"]
    nulls = dict.fromkeys(ChatRequest.model_fields)
    talk = [{"role": "user", "content": QUESTIONS[0], "name": None}]
    plain = server.post(messages=talk).json()
    for more in ({}, {"gcache": {"trace": None, "agents": None}}):
        assert server.post(**{**nulls, "messages": talk, **more}).json()["choices"] == plain["choices"]


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"prompt": ""}, "prompt is missing"),
        ({}, "prompt is missing"),
        ({"prompt": "", "prompt_embeds": "b"}, "a prompt is empty"),
        ({"prompt": ["a", ""]}, "a prompt is empty"),
        ({"prompt": ["a", 5]}, "prompt"),
        ({"prompt": ["a"] * 1025}, "prompt must be"),
        ({"prompt": [10**6]}, "no token 1000000"),
        ({"prompt": "a", "prompt_embeds": "b"}, "base64"),
        ({"prompt_embeds": "not base64!"}, "base64"),
        ({"prompt_embeds": base64.b64encode(b"nonsense").decode()}, "torch.save"),
        ({"prompt_embeds": encoded(torch.ones(2, 31))}, "shape"),
        ({"prompt_embeds": encoded(torch.ones(512, 32)), "max_tokens": 1}, "context"),
        ({"prompt": "a " * 512}, "context"),
        ({"prompt": "\x00" * 100000}, "context"),
        ({"prompt": "a", "max_tokens": 201}, "max_tokens must be"),
        ({"prompt": "a", "echo": "yes"}, "echo must be"),
        ({"prompt": "a", "suffix": "b"}, "suffix must be"),
        ({"prompt": "a", "messages": []}, "unknown field messages"),
    ],
)
def test_what_cannot_be_completed_is_refused(server: Any, fields: dict[str, Any], said: str) -> None:
    answer = server.post("/v1/completions", **fields)
    assert answer.status_code == 400 and said in answer.json()["error"]["message"]


def test_embeddings_are_off_unless_allowed(start: Any) -> None:
    served = start()
    answer = served.post("/v1/completions", prompt="", prompt_embeds=encoded(torch.ones(2, 32)))
    assert answer.status_code == 400
    answer = served.post("/v1/completions", prompt="a", prompt_embeds=encoded(torch.ones(2, 32)))
    assert answer.status_code == 400 and "--allow_prompt_embeds" in answer.json()["error"]["message"]


def test_our_own_mode_of_embeddings_asks_it(server: Any, start: Any, toy: Callable[..., Built]) -> None:
    def graph(url: str) -> Any:
        api = ApiLLM(ApiSettings("toy", f"{url}/v1", retries=0))
        config = GraphConfig(latent_steps=2, max_new_tokens=8)
        return toy(graph=config, api=api, generation_mode="api_embeds").graph

    result = graph(server.url).run(QUESTIONS[0])
    (spoken,) = result.spoken
    assert spoken.api is not None and spoken.api.prompt_tokens is not None
    thoughts = 2 * sum(1 for edge in result.topology.edges if edge.target == result.topology.decision_node)
    assert spoken.api.prompt_tokens > thoughts
    assert spoken.api.completion_tokens is not None and 1 <= spoken.api.completion_tokens <= 8
    with pytest.raises(ApiError, match="takes no prompt embeddings"):
        graph(start().url).run(QUESTIONS[0])
