"""LiteLLM against `gcache serve`."""

from __future__ import annotations

from typing import Any

import litellm
from lines import KEY, MOST, OTHER, PROMPT, QUESTION, arguments, chat, completed, equal, expect, run

URL, MODEL = arguments()
litellm.suppress_debug_info = True
ASK: dict[str, Any] = {
    "model": f"openai/{MODEL}", "api_base": URL, "api_key": KEY, "max_tokens": MOST, "temperature": 0, "timeout": 300,
    "num_retries": 0,
}  # fmt: skip


def talk(question: str = QUESTION) -> list[dict[str, str]]:
    return [{"role": "user", "content": question}]


def whole() -> str:
    answer: Any = litellm.completion(messages=talk(), **ASK)
    equal(answer.choices[0].message.content, chat(URL))
    return str(answer.usage.total_tokens) + " tokens"


def stream() -> str:
    chunks: Any = litellm.completion(messages=talk(), stream=True, stream_options={"include_usage": True}, **ASK)
    text, usage = "", None
    for chunk in chunks:
        text += "".join(choice.delta.content or "" for choice in chunk.choices)
        usage = getattr(chunk, "usage", None) or usage
    equal(text, chat(URL))
    return str(usage.total_tokens if usage else usage)


async def in_async() -> str:
    answer: Any = await litellm.acompletion(messages=talk(), **ASK)
    equal(answer.choices[0].message.content, chat(URL))
    return "acompletion"


def batch() -> str:
    answers: Any = litellm.batch_completion(messages=[talk(), talk(OTHER)], **ASK)
    equal([answer.choices[0].message.content for answer in answers], [chat(URL), chat(URL, OTHER)])
    return "two questions"


def drawn() -> str:
    asked = {**ASK, "temperature": 1.1, "top_p": 0.9, "n": 2, "seed": 3, "logprobs": True, "top_logprobs": 2}
    answer: Any = litellm.completion(messages=talk(), **asked)
    equal(len(answer.choices), 2)
    expect(len(answer.choices[1].logprobs.content[0].top_logprobs) == 2, "no log-probabilities")
    return "n=2, top_p, seed, logprobs"


def text() -> str:
    ask = {**ASK, "model": f"text-completion-openai/{MODEL}"}
    answer: Any = litellm.text_completion(prompt=PROMPT, **ask)
    equal(answer.choices[0].text, completed(URL))
    pieces: Any = litellm.text_completion(prompt=PROMPT, stream=True, **ask)
    equal("".join(chunk.choices[0].text or "" for chunk in pieces), completed(URL))
    return "plain, stream"


def errors() -> str:
    try:
        litellm.completion(messages=talk(), **{**ASK, "temperature": 3})
    except litellm.BadRequestError as error:
        return str(error)
    raise AssertionError("it is answered")


if __name__ == "__main__":
    raise SystemExit(run({
        "chat": whole, "chat, stream": stream, "chat, async": in_async, "chat, batch": batch,
        "n, top_p, seed, logprobs": drawn, "completions": text, "errors": errors,
    }))  # fmt: skip
