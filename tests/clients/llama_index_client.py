"""LlamaIndex (OpenAILike) against `gcache serve`."""

from __future__ import annotations

from lines import KEY, MOST, PROMPT, QUESTION, arguments, chat, completed, equal, run
from llama_index.core.llms import ChatMessage
from llama_index.llms.openai_like import OpenAILike

URL, MODEL = arguments()


def client(is_chat: bool = True) -> OpenAILike:
    return OpenAILike(
        model=MODEL, api_base=URL, api_key=KEY, max_tokens=MOST, temperature=0, is_chat_model=is_chat, max_retries=0,
        timeout=300, context_window=2048,
    )  # fmt: skip


TALK = [ChatMessage(role="user", content=QUESTION)]


def whole() -> str:
    equal(client().chat(TALK).message.content, chat(URL))
    return "chat"


def stream() -> str:
    equal("".join(piece.delta or "" for piece in client().stream_chat(TALK)), chat(URL))
    return "stream_chat"


async def in_async() -> str:
    equal((await client().achat(TALK)).message.content, chat(URL))
    pieces = await client().astream_chat(TALK)
    equal("".join([piece.delta or "" async for piece in pieces]), chat(URL))
    return "achat, astream_chat"


def completions() -> str:
    equal(client(False).complete(PROMPT).text, completed(URL))
    equal("".join(piece.delta or "" for piece in client(False).stream_complete(PROMPT)), completed(URL))
    return "complete, stream_complete"


def as_chat() -> str:
    equal(client().complete(QUESTION).text, chat(URL))
    return "complete, asked as a chat"


if __name__ == "__main__":
    raise SystemExit(run({
        "chat": whole, "chat, stream": stream, "chat, async": in_async, "completions": completions,
        "completions over chat": as_chat,
    }))  # fmt: skip
