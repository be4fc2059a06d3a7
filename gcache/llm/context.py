"""Whether what is asked of a model fits into the positions that it was made for."""

from __future__ import annotations

from typing import Any

from gcache.cache.fused_cache import FusedCache
from gcache.errors import ContextError
from gcache.llm.requests import GenerateRequest, LogProbRequest, ThinkRequest

#: What a caller in Python, or of the command line, can do about it.
WAY_OUT = "shorten it, lower max_new_tokens, or use a model with a longer context"


def context_of(model: Any) -> int | None:
    """Positions that a transformers model was made for; None where it does not say."""
    found = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    return found if isinstance(found, int) and found > 0 else None


def misfit(request: ThinkRequest | GenerateRequest | LogProbRequest, context: int | None) -> ContextError | None:
    """What is wrong with a request that goes beyond the context, where a model would go on without a word and write
    nonsense; None where it fits. It is not raised here: a traceback would keep the request, and its caches."""
    if context is None:
        return None
    if isinstance(request, ThinkRequest):
        prompt, more = request.prompt_slots, request.latent_steps + request.text_slots
        what = "the text" if request.text else "latent steps"
    elif isinstance(request, GenerateRequest):
        prompt, more, what = request.prompt_slots + request.latent_steps, request.max_new_tokens, "the text"
    else:
        prompt, more, what = len(request.tokens), len(request.completion), "the text"
    start = 0 if request.past is None else _end(request.past)
    # the last token of a text is never read
    needed = start + prompt + (more if isinstance(request, ThinkRequest) else more - 1)
    return too_long(needed, context, more, what) if needed > context else None


def _end(past: FusedCache) -> int:
    return int(past.next_positions.max()) if past.slots else 0


def too_long(
    needed: int, context: int, most: int, what: str = "the text", question: str = "", way_out: str = WAY_OUT
) -> ContextError:
    """The error of what does not fit.

    Args:
        most: of the positions that are needed, those for `what`.
        question: the one that takes them, where it has a name.
    """
    who = f"question {question!r}" if question else "this"
    own = f", {most} of them for {what}" if most else ""
    return ContextError(
        f"{who} takes {needed} positions or more{own}, but the model's context has {context}; {way_out}"
    )
