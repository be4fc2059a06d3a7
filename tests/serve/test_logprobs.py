"""Log-probabilities over HTTP: those of transformers itself, whole or streamed, batched or alone."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from typing import Any

import httpx2
import openai
import pytest
import torch
from toy import AGENTS, DECISION, QUESTIONS

from gcache.build import Built
from gcache.gnn.providers import FixedProvider
from gcache.graph.cache_graph import CacheGraph
from gcache.graph.hand_over import edge_weights
from gcache.graph.result import RunResult
from gcache.graph.run_config import GraphConfig
from gcache.graph.text_backends import LocalTextBackend
from gcache.graph.text_graph import TextGraph
from gcache.graph.writers.prompt_embeds import encoded
from gcache.llm.api.client import ApiLLM, ApiSettings
from gcache.llm.local import LocalLLM
from gcache.serve.model import ServedModel
from gcache.serve.pieces import Piece, Pieces, places
from gcache.serve.scores import LEAST
from gcache.training.replay import Replay, log_probs

PROMPT = "how many red apples are"
IDS = [[20, 21, 22, 40], [30, 31, 3, 4, 5, 40, 17, 18, 19], [50]]


@pytest.fixture(scope="module")
def llm(toy: Callable[..., Built]) -> LocalLLM:
    made = toy().llm
    assert made is not None
    return made


def own_log_probs(llm: LocalLLM, ids: list[int]) -> torch.Tensor:
    with torch.no_grad():
        return torch.log_softmax(llm.model(torch.tensor([ids])).logits[0].float(), dim=-1)


def ids_of(llm: LocalLLM, text: str) -> list[int]:
    found: list[int] = llm.tokenizer(text, add_special_tokens=False)["input_ids"]
    return found


def columns(server: Any, **body: Any) -> list[dict[str, Any]]:
    answer = server.post("/v1/completions", **body)
    assert answer.status_code == 200, answer.text
    choices: list[dict[str, Any]] = answer.json()["choices"]
    return choices


@pytest.mark.parametrize("most", [0, 1])
def test_a_prompt_is_scored_as_the_harness_asks_for_it(server: Any, llm: LocalLLM, most: int) -> None:
    """The body of lm-evaluation-harness: lists of token ids, echo, one token or none."""
    choices = columns(server, prompt=IDS, temperature=0, max_tokens=most, logprobs=1, seed=1234, echo=True)
    assert [choice["index"] for choice in choices] == [0, 1, 2]
    for ids, choice in zip(IDS, choices, strict=True):
        (alone,) = columns(server, prompt=ids, temperature=0, max_tokens=most, logprobs=1, echo=True)
        told = choice["logprobs"]
        assert len(told["tokens"]) == len(ids) + most == len(told["text_offset"]) == len(told["top_logprobs"])
        assert told["token_logprobs"][0] is None and told["top_logprobs"][0] is None
        assert choice["text"].startswith(llm.tokenizer.decode(ids))
        wanted = own_log_probs(llm, ids)
        for place, token in enumerate(ids[1:], start=1):
            value = told["token_logprobs"][place]
            assert value == pytest.approx(float(wanted[place - 1, token]), abs=1e-4)
            assert value == pytest.approx(alone["logprobs"]["token_logprobs"][place], abs=1e-4)
            best = max(told["top_logprobs"][place].values())
            assert best == pytest.approx(float(wanted[place - 1].max()), abs=1e-4)
            assert (value == best) == (int(wanted[place - 1].argmax()) == token)  # as the harness finds greedy words
    usage = server.post("/v1/completions", prompt=IDS, max_tokens=most, echo=True).json()["usage"]
    assert usage["prompt_tokens"] == sum(map(len, IDS)) and usage["completion_tokens"] == most * len(IDS)


@pytest.mark.parametrize("how", [{}, {"temperature": 1.3, "seed": 5}, {"temperature": 0.8, "top_p": 0.5, "seed": 2}])
def test_a_completion_tells_the_untempered_chances(server: Any, llm: LocalLLM, how: dict[str, Any]) -> None:
    (choice,) = columns(server, prompt=PROMPT, max_tokens=8, logprobs=3, **how)
    (plain,) = columns(server, prompt=PROMPT, max_tokens=8, **how)
    assert choice["text"] == plain["text"] and plain["logprobs"] is None
    told, before = choice["logprobs"], ids_of(llm, PROMPT)
    written = [llm.tokenizer.convert_tokens_to_ids(token) for token in told["tokens"]]
    wanted = own_log_probs(llm, before + written)[len(before) - 1 :]
    for place, token in enumerate(written):
        assert told["token_logprobs"][place] == pytest.approx(float(wanted[place, token]), abs=1e-4)
        top = told["top_logprobs"][place]
        assert list(top.values())[:3] == pytest.approx(wanted[place].topk(3).values.tolist(), abs=1e-4)
        assert told["tokens"][place] in top and len(top) in (3, 4)
    for token, offset in zip(told["tokens"], told["text_offset"], strict=True):
        if token != "<|im_end|>":
            assert choice["text"][offset:].lstrip().startswith(token)


def test_the_first_token_of_no_likeliest_ones_is_told_alone(server: Any) -> None:
    (choice,) = columns(server, prompt=PROMPT, max_tokens=3, logprobs=0)
    told = choice["logprobs"]
    assert all(list(top) == [token] for token, top in zip(told["tokens"], told["top_logprobs"], strict=True))


def test_an_echoed_text_is_the_one_that_was_sent(server: Any, llm: LocalLLM) -> None:
    sent = "  how   many\nred apples"
    (choice,) = columns(server, prompt=sent, max_tokens=4, logprobs=1, echo=True)
    (alone,) = columns(server, prompt=sent, max_tokens=4)
    assert choice["text"] == sent + alone["text"]
    told = choice["logprobs"]
    for token, offset in list(zip(told["tokens"], told["text_offset"], strict=True))[:4]:
        assert sent[offset:].lstrip().startswith(token)
    assert told["text_offset"][4] == len(sent)
    assert columns(server, prompt=sent, max_tokens=4, echo=True)[0]["text"] == choice["text"]


def chat(server: Any, question: str, **more: Any) -> dict[str, Any]:
    choice: dict[str, Any] = server.ask(question, logprobs=True, **more)["choices"][0]
    return choice


@pytest.mark.parametrize("how", [{}, {"temperature": 1.2, "seed": 4, "top_p": 0.6}])
def test_a_chat_tells_the_chances_of_the_decision_makers_text(
    server: Any, toy: Callable[..., Built], llm: LocalLLM, how: dict[str, Any]
) -> None:
    """Beside the model's own forward pass on the fused cache that the text was written on."""
    graph = toy().graph
    assert isinstance(graph, CacheGraph)
    for question in QUESTIONS[:3]:
        choice = chat(server, question, top_logprobs=3, **how)
        seed = {"temperature": how.get("temperature", 0.0), "seed": how.get("seed", 0), "top_p": how.get("top_p", 1.0)}
        result = graph.run(question, **seed)
        (spoken,) = result.spoken
        assert spoken.generation is not None
        assert choice["message"]["content"] == spoken.generation.text
        content = choice["logprobs"]["content"]
        assert [llm.tokenizer.convert_tokens_to_ids(one["token"]) for one in content] == list(spoken.generation.tokens)
        assert sum(one["logprob"] for one in content) == pytest.approx(replayed(graph, llm, result), abs=1e-3)
        if not how:
            assert [one["logprob"] for one in content] == pytest.approx(spoken.generation.log_probs, abs=1e-4)
        for one in content:
            assert len(one["top_logprobs"]) == 3
            assert one["logprob"] <= one["top_logprobs"][0]["logprob"] + 1e-6
            special = one["token"].startswith("<|")
            assert one["bytes"] is None if special else bytes(one["bytes"]).decode() == one["token"]


def replayed(graph: CacheGraph, llm: LocalLLM, result: RunResult) -> float:
    """Of the whole text at temperature 1, by the pass that training takes on the caches of the run."""
    untempered = dataclasses.replace(result, temperature=0.0)
    with torch.no_grad():
        (found,) = log_probs(graph, llm, [Replay(untempered, edge_weights(result.topology))])
    return float(found)


def test_without_likeliest_ones_a_chat_tells_each_token_alone(server: Any) -> None:
    for more in ({}, {"top_logprobs": 0}, {"top_logprobs": None}):
        content = chat(server, QUESTIONS[0], **more)["logprobs"]["content"]
        assert content and all(one["top_logprobs"] == [] for one in content)
    assert server.ask(QUESTIONS[0], logprobs=False, top_logprobs=0)["choices"][0]["logprobs"] is None


def chunks_of(server: Any, path: str, **body: Any) -> list[dict[str, Any]]:
    with httpx2.stream("POST", server.url + path, json={**body, "stream": True}, timeout=30) as answer:
        assert answer.status_code == 200
        lines = [line for line in answer.iter_lines() if line]
    assert lines[-1] == "data: [DONE]"
    return [json.loads(line.removeprefix("data: ")) for line in lines[:-1]]


def alike(found: Any, wanted: Any) -> bool:
    """Whether all is the same, but for the last bits of numbers: what is guessed ahead changes the passes."""
    if isinstance(wanted, float):
        return isinstance(found, float) and abs(found - wanted) < 1e-5
    if isinstance(wanted, dict):
        return list(found) == list(wanted) and all(alike(found[key], wanted[key]) for key in wanted)
    if isinstance(wanted, list):
        return len(found) == len(wanted) and all(map(alike, found, wanted))
    return bool(found == wanted)


@pytest.mark.parametrize("more", [{}, {"stop": ["red"]}, {"temperature": 1.3, "seed": 2, "top_p": 0.9}, {"n": 3}])
@pytest.mark.parametrize("echo", [False, True])
def test_a_stream_tells_the_same_of_every_token(server: Any, more: dict[str, Any], echo: bool) -> None:
    """Put together, the pieces are the whole answer."""
    body = {"prompt": [PROMPT, "the sum of"], "max_tokens": 9, "logprobs": 2, "echo": echo, **more}
    whole = server.post("/v1/completions", **body).json()
    found: dict[int, dict[str, Any]] = {}
    options = {"include_usage": True}
    for chunk in chunks_of(server, "/v1/completions", stream_options=options, **body):
        for choice in chunk["choices"]:
            own = found.setdefault(choice["index"], {"text": "", "finish_reason": None})
            own["text"] += choice["text"]
            own["finish_reason"] = choice["finish_reason"] or own["finish_reason"]
            for column, values in (choice["logprobs"] or {}).items():
                own[column] = own.get(column, []) + values
    assert chunk["choices"] == [] and chunk["usage"] == whole["usage"]
    assert sorted(found) == [choice["index"] for choice in whole["choices"]]
    for choice in whole["choices"]:
        own = {"text": choice["text"], "finish_reason": choice["finish_reason"], **choice["logprobs"]}
        assert alike(found[choice["index"]], own)


@pytest.mark.parametrize("more", [{}, {"stop": ["red", "."]}, {"temperature": 1.3, "seed": 2}, {"n": 3}])
def test_a_streamed_chat_tells_the_same_of_every_token(server: Any, more: dict[str, Any]) -> None:
    body = {"messages": [{"role": "user", "content": QUESTIONS[1]}], "logprobs": True, "top_logprobs": 2, **more}
    whole = server.post(**body).json()
    texts, told, many = {}, {}, 0
    for chunk in chunks_of(server, "/v1/chat/completions", **body):
        for choice in chunk["choices"]:
            index = choice["index"]
            texts[index] = texts.get(index, "") + choice["delta"].get("content", "")
            if choice["logprobs"] is not None:
                many += 1
                told[index] = told.get(index, []) + choice["logprobs"]["content"]
    for choice in whole["choices"]:
        assert texts[choice["index"]] == choice["message"]["content"]
        assert alike(told[choice["index"]], choice["logprobs"]["content"])
    assert many > len(whole["choices"])


def test_the_official_client_reads_them(server: Any) -> None:
    with openai.OpenAI(
        base_url=f"{server.url}/v1", api_key="any", max_retries=0, _strict_response_validation=True
    ) as client:
        answer = client.chat.completions.create(
            model="toy", messages=[{"role": "user", "content": QUESTIONS[0]}], logprobs=True, top_logprobs=2
        )
        scores = answer.choices[0].logprobs
        assert scores is not None and scores.content is not None and answer.usage is not None
        assert len(scores.content) == answer.usage.completion_tokens
        column = client.completions.create(model="toy", prompt=PROMPT, logprobs=2, max_tokens=3).choices[0]
        assert column.logprobs is not None and column.logprobs.token_logprobs is not None
        assert len(column.logprobs.token_logprobs) <= 3


def test_embeddings_tell_what_is_written_after_them(server: Any, llm: LocalLLM) -> None:
    ids = ids_of(llm, PROMPT)
    sent = encoded(llm.embedding(torch.tensor(ids)))
    (choice,) = columns(server, prompt_embeds=sent, max_tokens=5, logprobs=1)
    (same,) = columns(server, prompt=ids, max_tokens=5, logprobs=1)
    assert choice["text"] == same["text"]
    assert choice["logprobs"]["token_logprobs"] == pytest.approx(same["logprobs"]["token_logprobs"], abs=1e-4)
    answer = server.post("/v1/completions", prompt_embeds=sent, echo=True, logprobs=1)
    assert answer.status_code == 400 and "echo must be" in answer.json()["error"]["message"]


def test_what_is_no_number_is_told_as_no_chance(server: Any) -> None:
    """Embeddings beyond all bounds make a model give no numbers; JSON has no word for them."""
    for value in (3e38, -3e38, 1e-45):
        answer = server.post("/v1/completions", prompt_embeds=encoded(torch.full((2, 32), value)), logprobs=3)
        assert answer.status_code == 200, answer.text
        assert all(value >= LEAST for value in answer.json()["choices"][0]["logprobs"]["token_logprobs"])


def refusal(answer: httpx2.Response) -> str:
    assert answer.status_code == 400, answer.text
    message: str = answer.json()["error"]["message"]
    return message


def test_where_no_one_text_has_chances_they_are_refused_with_why(
    server: Any, start: Any, toy: Callable[..., Built]
) -> None:
    talk = {"messages": [{"role": "user", "content": QUESTIONS[0]}]}
    api = ApiLLM(ApiSettings("toy", f"{server.url}/v1", retries=0))
    for mode in ("hybrid", "api_hint"):
        served = start(lambda mode=mode: ServedModel.of(toy(api=api, generation_mode=mode), "toy"))
        assert f"in the mode {mode} an API writes" in refusal(served.post(**talk, logprobs=True))
        assert f"in the mode {mode} an API writes" in refusal(served.post(**talk, temperature=1, top_p=0.5))
        assert served.post(**talk, n=2).status_code == 200

    def voting() -> ServedModel:
        built = toy(topology="full", graph=GraphConfig(latent_steps=1, max_new_tokens=4))
        built.graph.decision = dataclasses.replace(built.graph.decision, method="vote")
        return ServedModel.of(built, "toy")

    served = start(voting)
    assert "3 texts vote" in refusal(served.post(**talk, logprobs=True))
    assert served.post(**talk, top_p=0.5, temperature=1, n=2).status_code == 200


def test_where_the_agents_hand_on_text_the_answer_has_chances(start: Any, llm: LocalLLM) -> None:
    speaker, config = LocalTextBackend(llm, llm.tokenizer), GraphConfig(hands="text", max_new_tokens=6, speak_tokens=4)
    graph = TextGraph(speaker, AGENTS, DECISION, FixedProvider("chain"), config)
    served = start(lambda: ServedModel("toy", graph, llm))
    choice = chat(served, QUESTIONS[0], top_logprobs=1)
    assert choice["logprobs"]["content"]


def test_too_much_is_refused(server: Any) -> None:
    for body in (
        {"prompt": [[5] * 500] * 120, "echo": True, "max_tokens": 0},
        {"prompt": [[5] * 500] * 20, "echo": True, "n": 8}, {"prompt": [[5]] * 100, "n": 3, "max_tokens": 200},
    ):  # fmt: skip
        assert "log-probabilities, and one request may" in refusal(server.post("/v1/completions", **body, logprobs=20))


def test_places_of_pieces_in_a_text() -> None:
    def of(*words: str | bytes) -> list[Piece]:
        return [Piece(str(word), word if isinstance(word, bytes) else word.encode()) for word in words]

    assert places("a bc", of("a", " b", "c")) == [0, 1, 3]
    assert places("\u00e9\U0001f980x", of(b"\xc3", b"\xa9", b"\xf0\x9f", b"\xa6\x80", "x")) == [0, 0, 1, 1, 2]
    assert places("a b", [Piece("<s>", None), *of(" a", " b")]) == [0, 0, 1]  # a space that the tokenizer added
    assert places("<s>a", [Piece("<s>", None), *of("a")]) == [0, 3]
    assert places("", of("a")) == [0]


def test_tokens_of_bytes_are_told_by_their_bytes(embedded_llm: LocalLLM) -> None:
    """On the embedded model's vocabulary, which is of bytes."""
    pieces = Pieces(embedded_llm.tokenizer)
    for text in ("Once upon  a time\n", "na\u00efve \U0001f980 \u4f60\u597d", "\t\x00 a"):
        ids = embedded_llm.tokenizer(text, add_special_tokens=False)["input_ids"]
        found = [pieces.of(token) for token in ids]
        assert b"".join(piece.raw or b"" for piece in found).decode() == text
        assert all(piece.text.startswith("bytes:") or piece.text.encode() == piece.raw for piece in found)
    end = embedded_llm.tokenizer.eos_token_id
    assert pieces.of(end).raw is None and pieces.of(10**7).text == "token_id:10000000"
