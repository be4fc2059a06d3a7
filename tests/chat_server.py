"""A server of OpenAI's API, small enough to misbehave on purpose. What vLLM refuses, it refuses."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

#: Gets the handler and the parsed body of a request, and answers.
Behaviour = Callable[[BaseHTTPRequestHandler, dict[str, Any]], None]


def send(
    handler: BaseHTTPRequestHandler, status: int, body: bytes, headers: dict[str, str] | None = None,
    claimed: int | None = None,
) -> None:  # fmt: skip
    """Answer with a body; `claimed`: the length it pretends to have."""
    handler.send_response(status)
    for name, value in {"Content-Type": "application/json", **(headers or {})}.items():
        handler.send_header(name, value)
    handler.send_header("Content-Length", str(len(body) if claimed is None else claimed))
    handler.end_headers()
    handler.wfile.write(body)
    handler.wfile.flush()


def refused_by_vllm(path: str, body: dict[str, Any]) -> str | None:
    """What vLLM 0.32 says to a body that it answers with 400, as tests/real_vllm.sh found; None where it takes it."""
    seed, most, temperature = body.get("seed"), body.get("max_tokens"), body.get("temperature")
    if seed is not None and not -(2**63) <= seed < 2**63:
        return f"1 validation error: seed should be less than or equal to {2**63 - 1}, got {seed}"
    if most is not None and most < 1:
        return f"max_tokens must be at least 1, got {most}. (parameter=max_tokens, value={most})"
    if temperature is not None and not 0 <= temperature <= 2:
        return f"temperature must be in [0, 2], got {temperature}."
    if "/chat/completions" in path:
        if any(message["role"] != "assistant" and message.get("content", "") is None for message in body["messages"]):
            return "validation errors: messages content should be a valid string"
        return None
    prompt, embeds = body.get("prompt"), body.get("prompt_embeds")
    if prompt in (None, "") and embeds in (None, []):
        return "Either prompt or prompt_embeds must be provided and non-empty. (parameter=prompt)"
    if prompt in ("", [""], [[]]):
        return "The decoder prompt cannot be empty"
    return None


def completion(text: str, prompt: int = 3, written: int = 2, reason: str = "stop") -> dict[str, Any]:
    """A chat completion."""
    return {
        "id": "chatcmpl-1", "object": "chat.completion", "created": 0, "model": "toy",
        "choices": [{"index": 0, "finish_reason": reason, "message": {"role": "assistant", "content": text}}],
        "usage": {"prompt_tokens": prompt, "completion_tokens": written, "total_tokens": prompt + written},
    }  # fmt: skip


def says(text: str, **counts: Any) -> Behaviour:
    return lambda handler, _: send(handler, 200, json.dumps(completion(text, **counts)).encode())


def answers(body: Any) -> Behaviour:
    """200 with any JSON."""
    return lambda handler, _: send(handler, 200, json.dumps(body).encode())


def fails(status: int, message: str = "no", **headers: str) -> Behaviour:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    body = json.dumps({"error": {"message": message}}).encode()
    return lambda handler, _: send(handler, status, body, named)


def sends(body: bytes, content_type: str = "application/json") -> Behaviour:
    """200 with any bytes."""
    return lambda handler, _: send(handler, 200, body, {"Content-Type": content_type})


def replies(body: bytes | Any, status: int = 200, **headers: str) -> Behaviour:
    """Any status, with any bytes or JSON."""
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return lambda handler, _: send(handler, status, raw, named)


def chooses(reason: Any = "stop", content: Any = "four", **message: Any) -> Behaviour:
    """A chat completion whose only choice has any reason to end, and any message."""
    body = completion("", written=5)
    body["choices"][0] = {
        "index": 0, "finish_reason": reason, "message": {"role": "assistant", "content": content, **message},
    }  # fmt: skip
    return answers(body)


def without(names: dict[str, Any], otherwise: str = "four", status: int = 400) -> Behaviour:
    """Refuses requests that have a field of these, each with its own body; answers the others."""

    def behave(handler: BaseHTTPRequestHandler, body: dict[str, Any]) -> None:
        refusal = next((said for name, said in names.items() if name in body), None)
        (says(otherwise) if refusal is None else replies(refusal, status))(handler, body)

    return behave


def cuts(handler: BaseHTTPRequestHandler, _: dict[str, Any]) -> None:
    """Half of a body, and the end of the connection."""
    body = json.dumps(completion("never arrives whole")).encode()
    send(handler, 200, body[: len(body) // 2], claimed=len(body))
    handler.close_connection = True


def hangs(seconds: float) -> Behaviour:
    return lambda handler, _: time.sleep(seconds)


def runs(llm: Any) -> Behaviour:
    """Answers with a `LocalLLM`, one request after another."""
    from gcache.llm.requests import GenerateRequest

    busy = threading.Lock()

    def behave(handler: BaseHTTPRequestHandler, body: dict[str, Any]) -> None:
        with busy:
            prompt = llm.tokenizer.apply_chat_template(body["messages"], add_generation_prompt=True, return_dict=False)
            request = GenerateRequest(
                tuple(prompt),
                None,
                body["max_tokens"],
                body["temperature"],
                body.get("seed", 0),
            )
            text = llm.generate([request])[0]
        says(text.text, prompt=len(prompt), written=len(text.tokens), reason="stop" if text.finished else "length")(
            handler, body
        )

    return behave


@dataclass
class ChatServer:
    """What was asked of a running server, and where it is.

    Attributes:
        script: what to do with the next requests, in order; the last one is done over and over.
        seen: the bodies that came; `times`: when; `headers`: theirs.
    """

    script: list[Behaviour]
    base_url: str = ""
    seen: list[dict[str, Any]] = field(default_factory=list)
    times: list[float] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    at_once: int = 0
    most_at_once: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def handle(self, handler: BaseHTTPRequestHandler) -> None:
        body = json.loads(handler.rfile.read(int(handler.headers["Content-Length"])))
        with self.lock:
            behave = self.script[min(len(self.seen), len(self.script) - 1)]
            self.seen.append(body)
            self.times.append(time.monotonic())
            self.headers.append({name.lower(): value for name, value in handler.headers.items()})
            self.at_once += 1
            self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            refusal = refused_by_vllm(handler.path, body)
            (behave if refusal is None else fails(400, refusal))(handler, body)
        finally:
            with self.lock:
                self.at_once -= 1


@contextmanager
def serving(*script: Behaviour) -> Iterator[ChatServer]:
    """A server on a free port of this machine, for as long as the block runs."""
    state = ChatServer(list(script))

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            state.handle(self)

        def log_message(self, *_: Any) -> None:
            """Quiet."""

    class Server(ThreadingHTTPServer):
        request_queue_size = 256  # callers that may wait to be let in
        daemon_threads = True

    server = Server(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    state.base_url = f"http://127.0.0.1:{server.server_port}/v1"
    try:
        yield state
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
