"""langchain-openai against `gcache serve`: chat, legacy completions, and what LangChain's own suite does not ask."""

from __future__ import annotations

from langchain_core.messages import HumanMessage
from langchain_openai import ChatOpenAI, OpenAI
from lines import KEY, MOST, OTHER, PROMPT, PROMPTS, QUESTION, arguments, chat, completed, equal, expect, run

URL, MODEL = arguments()
CHAT = ChatOpenAI(base_url=URL, api_key=KEY, model=MODEL, max_tokens=MOST, temperature=0, max_retries=0, timeout=300)
TEXT = OpenAI(base_url=URL, api_key=KEY, model=MODEL, max_tokens=MOST, temperature=0, max_retries=0, timeout=300)


def invoke() -> str:
    answer = CHAT.invoke(QUESTION)
    equal(answer.content, chat(URL))
    return str(answer.usage_metadata)


def stream() -> str:
    with_usage = ChatOpenAI(base_url=URL, api_key=KEY, model=MODEL, max_tokens=MOST, temperature=0, stream_usage=True)
    chunks = list(with_usage.stream(QUESTION))
    equal("".join(str(chunk.content) for chunk in chunks), chat(URL))
    return str(next(chunk.usage_metadata for chunk in chunks if chunk.usage_metadata))


async def in_async() -> str:
    equal([answer.content for answer in await CHAT.abatch([QUESTION, OTHER])], [chat(URL), chat(URL, OTHER)])
    equal("".join([str(chunk.content) async for chunk in CHAT.astream(QUESTION)]), chat(URL))
    return "abatch, astream"


def batch() -> str:
    equal([answer.content for answer in CHAT.batch([QUESTION, OTHER])], [chat(URL), chat(URL, OTHER)])
    return "two questions"


def drawn() -> str:
    model = ChatOpenAI(
        base_url=URL, api_key=KEY, model=MODEL, max_tokens=MOST, temperature=1.1, top_p=0.9, n=2, seed=3, logprobs=True,
        top_logprobs=2,
    )  # fmt: skip
    (found,) = model.generate([[HumanMessage(QUESTION)]]).generations
    expect(len(found) == 2, f"{len(found)} choices")
    answer = model.invoke(QUESTION)
    expect(len(answer.response_metadata["logprobs"]["content"][0]["top_logprobs"]) == 2, "no log-probabilities")
    return "n=2, top_p, seed, logprobs"


def completions() -> str:
    equal(TEXT.invoke(PROMPT), completed(URL))
    equal(TEXT.batch(PROMPTS), [completed(URL, prompt) for prompt in PROMPTS])
    equal("".join(TEXT.stream(PROMPT)), completed(URL))
    return "invoke, batch, stream"


def refused() -> str:
    try:
        CHAT.bind_tools([{"type": "function", "function": {"name": "f", "parameters": {}}}]).invoke(QUESTION)
    except Exception as error:
        expect("tools must be" in str(error), str(error))
        return str(error)
    raise AssertionError("tools are taken")


if __name__ == "__main__":
    raise SystemExit(run({
        "chat": invoke, "chat, stream": stream, "chat, async": in_async, "chat, batch": batch,
        "n, top_p, seed, logprobs": drawn, "completions": completions, "tools are refused by name": refused,
    }))  # fmt: skip
