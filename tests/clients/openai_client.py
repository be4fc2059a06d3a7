"""The official Python client against `gcache serve`."""

from __future__ import annotations

import math
from typing import Any

import openai
from lines import KEY, MOST, OTHER, PROMPT, PROMPTS, QUESTION, arguments, chat, completed, equal, expect, run

URL, MODEL = arguments()
CLIENT = openai.OpenAI(base_url=URL, api_key=KEY, max_retries=0, timeout=300)


def talk(question: str = QUESTION) -> Any:
    return [{"role": "user", "content": question}]


def whole() -> str:
    answer = CLIENT.chat.completions.create(model=MODEL, messages=talk(), max_tokens=MOST)
    equal(answer.choices[0].message.content, chat(URL))
    assert answer.usage is not None
    equal(answer.usage.total_tokens, answer.usage.prompt_tokens + answer.usage.completion_tokens)
    return str(answer.usage.completion_tokens) + " tokens"


def stream() -> str:
    text, usage = "", None
    for chunk in CLIENT.chat.completions.create(
        model=MODEL, messages=talk(), max_tokens=MOST, stream=True, stream_options={"include_usage": True}
    ):
        text += "".join(choice.delta.content or "" for choice in chunk.choices)
        usage = chunk.usage or usage
    equal(text, chat(URL))
    assert usage is not None
    return f"usage at the end: {usage.prompt_tokens} + {usage.completion_tokens}"


async def in_async() -> str:
    import asyncio

    async with openai.AsyncOpenAI(base_url=URL, api_key=KEY, max_retries=0, timeout=300) as client:
        answers = await asyncio.gather(
            *(client.chat.completions.create(model=MODEL, messages=talk(q), max_tokens=MOST) for q in (QUESTION, OTHER))
        )
        equal([a.choices[0].message.content for a in answers], [chat(URL), chat(URL, OTHER)])
        stream = await client.chat.completions.create(model=MODEL, messages=talk(), max_tokens=MOST, stream=True)
        text = "".join([c.choices[0].delta.content or "" async for c in stream if c.choices])
    equal(text, chat(URL))
    return "two at once, and a stream"


def stream_helper() -> str:
    text = chat(URL)
    word = text.split()[-1]  # the helper raises where a limit of tokens ends the text
    with CLIENT.chat.completions.stream(model=MODEL, messages=talk(), max_tokens=MOST, stop=word) as stream:
        kinds = {event.type for event in stream}
        final = stream.get_final_completion()
    equal(final.choices[0].message.content, text[: text.index(word)])
    return ", ".join(sorted(kinds))


def completions() -> str:
    answer = CLIENT.completions.create(model=MODEL, prompt=PROMPT, max_tokens=MOST)
    equal(answer.choices[0].text, completed(URL))
    several = CLIENT.completions.create(model=MODEL, prompt=PROMPTS, max_tokens=MOST)
    equal([choice.text for choice in several.choices], [completed(URL, prompt) for prompt in PROMPTS])
    pieces = CLIENT.completions.create(model=MODEL, prompt=PROMPT, max_tokens=MOST, stream=True)
    equal("".join(chunk.choices[0].text for chunk in pieces if chunk.choices), answer.choices[0].text)
    return "plain, list, stream"


def models() -> str:
    equal([model.id for model in CLIENT.models.list()], [MODEL])
    equal(CLIENT.models.retrieve(MODEL).id, MODEL)
    try:
        CLIENT.models.retrieve("some/other")
    except openai.NotFoundError as error:
        return f"{MODEL!r} by name; another is {error.code}"
    raise AssertionError("another model is found")


def errors() -> str:
    found = []
    asked: list[tuple[Any, dict[str, Any]]] = [
        (openai.BadRequestError, {"temperature": 3}), (openai.NotFoundError, {"model": "other"}),
        (openai.BadRequestError, {"tools": [{"type": "function", "function": {"name": "f"}}]}),
        (openai.BadRequestError, {"response_format": {"type": "json_object"}}),
    ]  # fmt: skip
    for kind, fields in asked:
        try:
            CLIENT.chat.completions.create(**{"model": MODEL, "messages": talk(), **fields})
        except kind as error:
            found.append(f"{error.status_code} of {error.param}")
        else:
            raise AssertionError(f"{fields} is answered")
    return ", ".join(found)


def drawing() -> str:
    def drawn(**more: Any) -> list[str | None]:
        answer = CLIENT.chat.completions.create(
            model=MODEL, messages=talk(), max_tokens=MOST, temperature=1.2, top_p=0.9, **more
        )
        return [choice.message.content for choice in answer.choices]

    equal(drawn(seed=5), drawn(seed=5))
    expect(drawn(seed=5) != drawn(seed=6), "two seeds draw one text")
    three = drawn(seed=5, n=3)
    equal(three[:1], drawn(seed=5))
    expect(len(set(three)) == 3, f"three choices are {three}")
    return "a seed draws the same again; n=3 gives three texts, the first that of n=1"


def stop() -> str:
    text = chat(URL, max_tokens=30)
    word = text.split()[4]
    answer = CLIENT.chat.completions.create(model=MODEL, messages=talk(), max_tokens=30, stop=[word])
    equal(answer.choices[0].message.content, text[: text.index(word)])
    equal(answer.choices[0].finish_reason, "stop")
    short = CLIENT.chat.completions.create(model=MODEL, messages=talk(), max_completion_tokens=3)
    equal(short.choices[0].finish_reason, "length")
    return f"before {word!r}; a limit is 'length'"


def chances() -> str:
    answer = CLIENT.chat.completions.create(
        model=MODEL, messages=talk(), max_tokens=MOST, logprobs=True, top_logprobs=3
    )
    scores = answer.choices[0].logprobs
    assert scores is not None and scores.content is not None
    expect(all(len(one.top_logprobs) == 3 and one.logprob <= 0 for one in scores.content), "not three likeliest")
    read = b"".join(bytes(one.bytes or ()) for one in scores.content).decode()
    expect(read.strip() == str(answer.choices[0].message.content).strip(), "the tokens are not the text")
    column = CLIENT.completions.create(model=MODEL, prompt=PROMPT, max_tokens=0, echo=True, logprobs=1).choices[0]
    assert column.logprobs is not None and column.logprobs.token_logprobs is not None
    equal(column.text, PROMPT)
    values = column.logprobs.token_logprobs
    expect(values[0] is None and all(math.isfinite(value) for value in values[1:]), f"{values}")
    return f"{len(scores.content)} tokens of a chat, {len(values)} of a prompt"


if __name__ == "__main__":
    raise SystemExit(run({
        "chat": whole, "chat, stream": stream, "chat, async": in_async, "chat, stream helper": stream_helper,
        "completions": completions, "models": models, "errors": errors, "seed, top_p, n": drawing,
        "stop and max tokens": stop, "logprobs": chances,
    }))  # fmt: skip
