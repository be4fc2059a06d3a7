"""Completions of the local model alone, of text and of embeddings."""

from __future__ import annotations

import base64
from collections.abc import Callable
from typing import Any

import openai
import pytest
import torch
from toy import QUESTIONS

from gcache.build import Built
from gcache.errors import ApiError
from gcache.graph.embeds import encoded
from gcache.graph.records import GraphConfig
from gcache.llm.api import ApiLLM, ApiSettings
from gcache.llm.local import LocalLLM
from gcache.llm.requests import GenerateRequest

PROMPT = "how many red apples are"


@pytest.fixture(scope="module")
def llm(toy: Callable[..., Built]) -> LocalLLM:
    made = toy().llm
    assert made is not None
    return made


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
    for prompt in ("", None):
        body = server.post("/v1/completions", prompt=prompt, prompt_embeds=embeds, max_tokens=9).json()
        assert body["choices"][0]["text"] == expected.text
        assert body["usage"]["prompt_tokens"] == len(asked)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"prompt": ""}, "prompt is missing"),
        ({}, "prompt is missing"),
        ({"prompt": "a", "prompt_embeds": "b"}, "not both"),
        ({"prompt": ["a"]}, "prompt must be"),
        ({"prompt_embeds": "not base64!"}, "base64"),
        ({"prompt_embeds": base64.b64encode(b"nonsense").decode()}, "torch.save"),
        ({"prompt_embeds": encoded(torch.ones(2, 31))}, "shape"),
        ({"prompt_embeds": encoded(torch.ones(511, 32)), "max_tokens": 10}, "context"),
        ({"prompt": "a " * 510}, "context"),
        ({"prompt": "\x00" * 100000}, "context"),
        ({"prompt": "a", "max_tokens": 201}, "max_tokens must be"),
        ({"prompt": "a", "echo": True}, "echo must be"),
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
