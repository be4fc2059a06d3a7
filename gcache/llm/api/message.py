"""What the message of a chat holds beside a text, or instead of one: thoughts, a refusal, calls of tools."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from gcache.agents.thinking import split_thinking

#: Where servers put what the model thought.
REASONING = ("reasoning_content", "reasoning", "thinking", "reasoning_details", "thinking_blocks")
#: Parts of a message that are no text: thoughts, and calls of tools (Mistral, Anthropic).
_THOUGHTS, _CALLS = ("thinking", "reasoning"), ("tool_use", "tool_call", "tool_calls", "function_call")


def text_of(choice: dict[str, Any], message: dict[str, Any]) -> str | None:
    """A chat's text, also where it comes in parts of which some are thoughts (Mistral); or a completion's."""
    content = message.get("content")
    if isinstance(content, list):
        texts = [part["text"] for part in _parts(message, ("text", "output_text")) if isinstance(part.get("text"), str)]
        return "".join(texts) if texts else None
    if content is None:
        content = choice.get("text")
    return content if isinstance(content, str) else None


def _parts(message: Mapping[str, Any], kinds: Collection[str]) -> list[dict[str, Any]]:
    content = message.get("content")
    parts = content if isinstance(content, list) else []
    return [part for part in parts if isinstance(part, dict) and part.get("type") in kinds]


def refusal(message: Mapping[str, Any]) -> Any:
    """What a model says for not answering, beside a text or as a part of it."""
    parts = (part.get("refusal") or part.get("text") for part in _parts(message, ("refusal",)))
    return message.get("refusal") or next(filter(None, parts), None)


def all_thinking(text: str) -> bool:
    """Whether a text is a thought and no answer.

    An empty thought that is closed says, like "", that there is no answer to give.
    """
    thought = split_thinking(text, None)
    still_thinks = split_thinking(text + "x", None).thinking  # also where nothing was thought yet
    return not thought.answer.strip() and bool(thought.thinking or still_thinks)


def calls_a_tool(message: Mapping[str, Any]) -> bool:
    """Whether the model calls a tool."""
    return bool(message.get("tool_calls") or message.get("function_call") or _parts(message, _CALLS))


def has_thoughts(message: Mapping[str, Any]) -> bool:
    """Whether there are thoughts beside the text."""
    found = [message.get(name) for name in REASONING] + _parts(message, _THOUGHTS)
    return any(value.strip() if isinstance(value, str) else value for value in found)
