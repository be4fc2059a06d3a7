"""The routes of the service, and what stands before them."""

from __future__ import annotations

import base64
import hashlib
import logging
import re
import time
from typing import Any, TypeVar

from fastapi import FastAPI, Request
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import HTMLResponse, PlainTextResponse, Response
from starlette.types import ASGIApp

from gcache.serve import documents as docs
from gcache.serve.answers import AskGraph, AskTopology
from gcache.serve.completing import AskModel
from gcache.serve.conversation import question
from gcache.serve.deltas import SamplingParams
from gcache.serve.fitting import check_chat, check_completion
from gcache.serve.guards import BodyLimit, Deadline, Headers, Key
from gcache.serve.metrics import Counted
from gcache.serve.page import page
from gcache.serve.prompts import prompts_of
from gcache.serve.refusals import Refused
from gcache.serve.requests import (
    AgentNote,
    ChatRequest,
    CompletionRequest,
    Drawn,
    EmbedsCompletionRequest,
    TopologyRequest,
)
from gcache.serve.responses import JSON, Answering, error_response, json_response
from gcache.serve.service import Service
from gcache.serve.validation import read
from gcache.serve.wire import Form
from gcache.tasks.citations import with_citations
from gcache.tasks.example import Example, Note

logger = logging.getLogger(__name__)

WriterInput = TypeVar("WriterInput", bound=BaseModel)
#: Tokens of a completion that says nothing of its length, as OpenAI has it.
COMPLETION_TOKENS = 16
_SCRIPT = re.compile(r"<script>(.*?)</script>", re.DOTALL)
#: Of every request with a body.
_ASKED = (400, 401, 413, 415, 429, 500, 502, 503, 504)


def create_app(service: Service) -> ASGIApp:
    """The service over HTTP, as an ASGI app."""
    settings = service.settings
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url="/openapi.json")
    app.add_exception_handler(Refused, _refuse)
    app.add_exception_handler(HTTPException, _refuse_path)
    app.add_exception_handler(Exception, _refuse_fault)
    _add_answers(app, service)
    _add_state(app, service)
    made: dict[str, Any] = {}

    def document() -> dict[str, Any]:
        if not made:
            made.update(docs.document(app, service.name, settings))
        return made

    app.openapi = document  # type: ignore[method-assign]
    guarded: ASGIApp = Deadline(Key(BodyLimit(app, settings.body_limit), settings.key), settings.deadline)
    if settings.cors:
        guarded = CORSMiddleware(
            guarded, allow_origins=settings.cors, allow_methods=["GET", "POST"], allow_headers=["*"]
        )
    return Counted(Headers(guarded), service.metrics)


def _add_answers(app: FastAPI, service: Service) -> None:
    """Routes that ask the graph or its model."""
    settings = service.settings

    @app.post(
        "/v1/chat/completions", response_model=docs.ChatCompletion, openapi_extra=docs.body(ChatRequest),
        responses={**docs.streams("The answer, whole or as a stream."), **docs.refusals(404, *_ASKED)},
    )  # fmt: skip
    async def chat(request: Request) -> Response:
        """Answer a conversation by the graph's agents together."""
        asked = await _asked(request, ChatRequest)
        service.check_model(asked.model)
        service.check_most(asked.max_tokens)
        service.check_most(asked.max_completion_tokens, "max_completion_tokens")
        extension = asked.gcache
        example = _example(
            question([(message.role, message.text) for message in asked.messages]),
            None if extension is None else extension.agents,
        )
        trace = extension is not None and bool(extension.trace)
        check_chat(asked, trace)
        work = AskGraph(
            example, _draw(asked, asked.most, asked.likeliest), settings.max_tokens, trace, bool(asked.stream),
            asked.chat_template_kwargs or {},
        )  # fmt: skip
        return Answering(service, work, _form(service, asked, chat=True), work.stream)

    taken = EmbedsCompletionRequest if settings.allow_prompt_embeds else CompletionRequest

    @app.post(
        "/v1/completions", response_model=docs.TextCompletion, openapi_extra=docs.body(taken),
        responses={**docs.streams("The text, whole or as a stream."), **docs.refusals(404, *_ASKED)},
    )  # fmt: skip
    async def completions(request: Request) -> Response:
        """Complete prompts by the local model alone: no agents, no template. One choice a prompt."""
        asked: CompletionRequest | EmbedsCompletionRequest = await _asked(request, taken)
        service.check_model(asked.model)
        service.check_most(asked.max_tokens)
        most = min(COMPLETION_TOKENS, settings.max_tokens) if asked.max_tokens is None else asked.max_tokens
        prompts = prompts_of(asked)
        check_completion(asked, prompts)
        work = AskModel(
            prompts, _draw(asked, most, asked.logprobs), bool(asked.stream), bool(asked.echo),
            asked.add_special_tokens is not False,
        )  # fmt: skip
        return Answering(service, work, _form(service, asked, chat=False), work.stream)

    @app.post(
        "/v1/topology", response_model=docs.WhoHandsToWhom, openapi_extra=docs.body(TopologyRequest),
        responses=docs.refusals(*_ASKED),
    )  # fmt: skip
    async def topology(request: Request) -> Response:
        """Say who would hand to whom on a question, without answering it."""
        asked = await _asked(request, TopologyRequest)
        work = AskTopology(_example(asked.question, None if asked.gcache is None else asked.gcache.agents))
        return json_response(await service.work(work))


def _add_state(app: FastAPI, service: Service) -> None:
    """Routes that say how the service is, and its page."""

    @app.get("/v1/models", response_model=docs.Models, responses=docs.refusals(401, 504))
    async def models() -> Response:
        """The one model that is served."""
        return json_response({"object": "list", "data": [_model(service)]})

    # a name may have slashes, as those of a hub do
    @app.get("/v1/models/{name:path}", response_model=docs.Model, responses=docs.refusals(401, 404, 504))
    async def model(name: str) -> Response:
        """The model that is served, by its name."""
        service.check_model(name)
        return json_response(_model(service))

    @app.get("/health", response_model=docs.Status)
    async def health() -> Response:
        """Whether the process is alive."""
        return json_response({"status": "alive"})

    @app.get("/ready", response_model=docs.Status, responses={503: {"model": docs.Status, "description": "Not now."}})
    async def ready() -> Response:
        """Whether questions are answered now."""
        if service.ready:
            return json_response({"status": "ready"})
        return json_response({"status": "draining" if service.draining else "loading"}, 503)

    @app.get("/metrics", response_class=PlainTextResponse, responses=docs.refusals(401))
    async def metrics() -> Response:
        """Counters in Prometheus' text format."""
        return Response(service.metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")

    @app.get("/", response_class=HTMLResponse, responses={404: {"model": docs.ErrorBody, "description": "No page."}})
    async def root() -> Response:
        """A page to ask questions on."""
        try:
            html = page()
        except (FileNotFoundError, StopIteration) as error:
            raise Refused(404, "this installation has no page; ask POST /v1/chat/completions") from error
        return HTMLResponse(html, headers={"Content-Security-Policy": _policy(html), "Cache-Control": "no-cache"})


def _model(service: Service) -> dict[str, Any]:
    created = int(time.time()) if service.served is None else service.served.created
    return {"id": service.name, "object": "model", "created": created, "owned_by": "gcache"}


async def _asked(request: Request, model: type[WriterInput]) -> WriterInput:
    """The request in a body.

    Only JSON is taken: a page elsewhere can make a browser send other types without asking this server first.
    """
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != JSON:
        raise Refused(415, f"send the body as JSON, with the header Content-Type: {JSON}")
    return read(model, await request.body())


def _example(text: str, agents: list[AgentNote] | None) -> Example:
    notes = with_citations([Note(a.role, a.description or f"The {a.role}.", a.note) for a in agents or ()])
    return Example("question", text, "", notes)


def _draw(asked: Drawn, most: int | None, likeliest: int | None) -> SamplingParams:
    top_p = 1.0 if asked.top_p is None else asked.top_p
    return SamplingParams(most, asked.temperature or 0.0, asked.seed or 0, asked.stops, top_p, asked.n or 1, likeliest)


def _form(service: Service, asked: Drawn, chat: bool) -> Form:
    """Raises Refused where options of a stream come with what is none."""
    options = asked.stream_options
    if options is not None and options.model_fields_set and not asked.stream:
        raise Refused(
            400, 'stream_options must be: left out, or beside "stream": true', "stream_options", "invalid_value"
        )
    usage = options is not None and bool(options.include_usage)
    return Form(service.name, int(time.time()), chat, usage, asked.n or 1)


def _policy(html: str) -> str:
    """What a browser may load for the page: itself, and no script but those that are in it."""
    digests = [hashlib.sha256(script.encode()).digest() for script in _SCRIPT.findall(html)]
    scripts = " ".join(f"'sha256-{base64.b64encode(digest).decode()}'" for digest in digests) or "'none'"
    return (
        f"default-src 'none'; script-src {scripts}; style-src 'unsafe-inline'; img-src 'self' data:; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )


async def _refuse(_: Request, error: Exception) -> Response:
    assert isinstance(error, Refused)
    return error_response(error)


async def _refuse_path(request: Request, error: Exception) -> Response:
    """An unknown path, or a known one asked in another way."""
    assert isinstance(error, HTTPException)
    what = f"{request.method} {request.url.path}"[:200]
    if error.status_code == 404:
        told = Refused(404, f"{what} is not served here; /openapi.json lists what is", code="unknown_path")
    elif error.status_code == 405:
        told = Refused(405, f"{what} is not allowed; /openapi.json says how it is asked")
    else:
        told = Refused(error.status_code, str(error.detail))
    told.headers.update(error.headers or {})
    return error_response(told)


async def _refuse_fault(_: Request, error: Exception) -> Response:
    return error_response(Refused(500, f"the service failed on this request ({type(error).__name__})"))
