"""The OpenAPI document: bodies that are taken, bodies that come back, and every status."""

from __future__ import annotations

from typing import Any, Literal

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

import gcache
from gcache.serve.requests import ChatRequest, CompletionRequest, EmbedsCompletionRequest, TopologyRequest
from gcache.serve.settings import ServeSettings

REF = "#/components/schemas/{model}"
#: Status -> when it comes.
REFUSALS = {
    400: "The request is not one that can be answered; the message names the field and what is allowed.",
    401: "The key is missing or wrong.",
    404: "No such model.",
    413: "The body is too large.",
    415: "The body is not sent as JSON.",
    429: "Too many questions wait; Retry-After says when to come back.",
    500: "The model failed.",
    502: "The API that writes for this graph failed.",
    503: "The model is being loaded.",
    504: "No answer within the deadline.",
}


class Error(BaseModel):
    message: str
    type: str
    param: str | None
    code: str | int | None


class ErrorBody(BaseModel):
    error: Error


class Status(BaseModel):
    status: str


class Model(BaseModel):
    id: str
    object: Literal["model"]
    created: int
    owned_by: str


class Models(BaseModel):
    object: Literal["list"]
    data: list[Model]


class Usage(BaseModel):
    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class AgentNumber(BaseModel):
    number: int
    role: str


class EdgeBody(BaseModel):
    source: int
    target: int
    weight: float
    probability: float
    delay: int
    channel: str | None


class Probability(BaseModel):
    source: int
    target: int
    delay: int
    probability: float


class EdgeBytes(BaseModel):
    source: int
    target: int
    bytes: int


class Edges(BaseModel):
    edges: list[EdgeBody]
    probabilities: list[Probability]


class StepBody(BaseModel):
    agent: int
    role: str
    round: int
    what: str
    started: float
    ended: float
    prefilled: int
    latent: int
    generated: int
    received: int
    note: str
    stored: int
    reading: list[list[str]]


class Word(BaseModel):
    word: str
    share: float


class HeardDocument(BaseModel):
    agent: int
    role: str
    share: float | None
    words: list[Word]


class Trace(BaseModel):
    agents: list[AgentNumber]
    topology: Edges
    trace: list[StepBody]
    edge_bytes: list[EdgeBytes]
    heard: list[HeardDocument] | None = None


class AnswerMessage(BaseModel):
    role: Literal["assistant"]
    content: str
    refusal: None


class Likely(BaseModel):
    token: str
    logprob: float
    bytes: list[int] | None


class LikelyToken(Likely):
    top_logprobs: list[Likely]


class ChatLogprobs(BaseModel):
    content: list[LikelyToken]
    refusal: None


class TextLogprobs(BaseModel):
    tokens: list[str]
    token_logprobs: list[float | None]
    top_logprobs: list[dict[str, float] | None]
    text_offset: list[int]


class ChatChoice(BaseModel):
    index: int
    message: AnswerMessage
    logprobs: ChatLogprobs | None
    finish_reason: Literal["stop", "length"]


class ChatCompletion(BaseModel):
    id: str
    object: Literal["chat.completion"]
    created: int
    model: str
    choices: list[ChatChoice]
    usage: Usage
    gcache: Trace | None = None


class TextChoice(BaseModel):
    index: int
    text: str
    logprobs: TextLogprobs | None
    finish_reason: Literal["stop", "length"]


class TextCompletion(BaseModel):
    id: str
    object: Literal["text_completion"]
    created: int
    model: str
    choices: list[TextChoice]
    usage: Usage


class WhoHandsToWhom(BaseModel):
    question: str
    agents: list[AgentNumber]
    edges: list[EdgeBody]
    probabilities: list[Probability]
    called: Literal["most likely", "greedy"]


def refusals(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The documented responses of a route that may refuse so."""
    return {status: {"model": ErrorBody, "description": REFUSALS[status]} for status in statuses}


def streams(described: str) -> dict[int | str, dict[str, Any]]:
    """A 200 that is a stream where the request asks for one."""
    event = {"type": "object", "properties": {"data": {"type": "string"}}, "required": ["data"]}
    # readers of documents before OpenAPI 3.2 take the schema of an event stream to be that of each event
    return {200: {"description": described, "content": {"text/event-stream": {"schema": event}}}}


def body(model: type[BaseModel]) -> dict[str, Any]:
    """The documented body of a route."""
    schema = {"$ref": REF.format(model=model.__name__)}
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}


def document(app: FastAPI, name: str, settings: ServeSettings) -> dict[str, Any]:
    """The whole document of one service: its own model's name, its own limits.

    Args:
        name: of the model.
    """
    made = get_openapi(title="gcache", version=gcache.__version__, summary="Agents that hand each other KV caches",
                       routes=app.routes)  # fmt: skip
    completion: type[BaseModel] = EmbedsCompletionRequest if settings.allow_prompt_embeds else CompletionRequest
    taken: list[tuple[type[BaseModel], Literal["validation"]]] = [
        (ChatRequest, "validation"), (completion, "validation"), (TopologyRequest, "validation")
    ]  # fmt: skip
    _, schemas = models_json_schema(taken, ref_template=REF)
    for schema in schemas["$defs"].values():
        _narrow(schema.get("properties", {}), name, settings.max_tokens)
    components = made.setdefault("components", {})
    components.setdefault("schemas", {}).update(schemas["$defs"])
    if settings.key is not None:
        components["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
        for path, methods in made["paths"].items():
            if path.startswith("/v1/") or path == "/metrics":
                for operation in methods.values():
                    operation["security"] = [{"key": []}]
    return made


def _narrow(properties: dict[str, Any], name: str, most: int) -> None:
    """What no model class knows: the name of what is served, and the longest answer."""
    for field, properties_of in properties.items():
        for branch in properties_of.get("anyOf", []):
            if field == "model" and branch.get("type") == "string":
                branch["enum"] = [name]
            if field in ("max_tokens", "max_completion_tokens") and branch.get("type") == "integer":
                branch["maximum"] = most
