"""Fields of a request that are well formed each, but do not go together."""

from __future__ import annotations

from collections.abc import Sequence

from gcache.serve.prompts import Embeds, Prompt
from gcache.serve.refusals import Refused
from gcache.serve.requests import MOST_PROMPTS, ChatRequest, CompletionRequest, EmbedsCompletionRequest


def check_chat(asked: ChatRequest, trace: bool) -> None:
    """Raises Refused where fields of a chat do not go together."""
    if asked.top_logprobs and not asked.logprobs:
        raise _refused("top_logprobs", '0 or left out, or beside "logprobs": true')
    if trace and (asked.n or 1) > 1:
        raise _refused("n", "1 beside a trace, which is of one run")


def check_completion(asked: CompletionRequest | EmbedsCompletionRequest, prompts: Sequence[Prompt]) -> None:
    """Raises Refused where fields of a completion do not go together.

    Args:
        prompts: all that it has.
    """
    choices = asked.n or 1
    if asked.max_tokens == 0 and not asked.echo:
        raise _refused("max_tokens", 'a whole number of 1 or more, or 0 beside "echo": true')
    if asked.best_of is not None and asked.best_of != choices:
        raise _refused("best_of", f"as n, which is {choices} here (no text is thrown away)")
    if asked.echo and any(isinstance(prompt, Embeds) for prompt in prompts):
        raise _refused("echo", "false beside prompt_embeds, which are no text")
    if choices * len(prompts) > MOST_PROMPTS:
        raise _refused("n", f"so small that there are at most {MOST_PROMPTS} choices of all prompts")


def _refused(field: str, allowed: str) -> Refused:
    return Refused(400, f"{field} must be: {allowed}", field, "invalid_value")
