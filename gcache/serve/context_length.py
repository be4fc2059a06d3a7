"""Whether what is asked fits the model's positions, before anything is computed."""

from __future__ import annotations

from collections.abc import Sequence

from gcache.agents.roles import Agent
from gcache.errors import ContextError
from gcache.gnn.topology import Topology
from gcache.graph.context_length import PlannedRun
from gcache.serve.model import ServedModel
from gcache.serve.refusals import Refused

#: Log-probabilities that one request may ask for: 128 prompts of 4096 tokens, with the likeliest of each.
MOST_TOLD = 2**20


def check_room(
    served: ServedModel, question: str, agents: Sequence[Agent], topology: Topology, most: int, variables: str = ""
) -> None:
    """Refuse a question that would go beyond the model's context.

    Args:
        most: tokens of the answer.
        variables: of the chat template.

    Raises:
        Refused: it does not fit.
    """
    try:
        served.graph.require_context(PlannedRun(question, agents, topology, most, variables, at_longest=True))
    except ContextError as error:
        raise Refused(400, str(error), code="context_length_exceeded") from error


def check_characters(served: ServedModel, text: str) -> None:
    """Refuse a text that cannot fit, however its tokens fall: to make tokens of megabytes takes seconds.

    Raises:
        Refused: no token is long enough.
    """
    context = served.context
    if context is not None and len(text) > context * served.longest_token:
        raise too_long(-(-len(text) // served.longest_token), context, 0)


def check_completion(served: ServedModel, count: int, most: int) -> int:
    """Tokens that may be written after a prompt: what is asked for, or what the context leaves, as vLLM has it.

    Args:
        count: tokens of the prompt.
        most: tokens that are asked for; 0 where only the prompt is asked about.

    Raises:
        Refused: more is asked for than the context has, or the prompt leaves no room for a token.
    """
    context = served.context
    if context is None:
        return most
    if most > context:
        raise Refused(
            400, f"max_tokens must be: a whole number of at most {context}, the model's context; got {most}",
            "max_tokens", "invalid_value",
        )  # fmt: skip
    if count + min(most, 1) > context:
        raise too_long(count + min(most, 1), context, min(most, 1))
    return min(most, context - count)


def check_told(tokens: int, likeliest: int | None) -> None:
    """Refuse a request whose log-probabilities alone would fill tens of megabytes.

    Args:
        tokens: of all choices at their longest, and of the prompts that they repeat.
        likeliest: told beside each; None where nothing is told.

    Raises:
        Refused: they are too many.
    """
    if likeliest is not None and tokens * (likeliest + 1) > MOST_TOLD:
        raise Refused(
            400,
            f"this asks for {tokens * (likeliest + 1)} log-probabilities, and one request may ask for {MOST_TOLD}; "
            "send fewer prompts at once, or lower max_tokens, n, or how many are told beside each token",
            "logprobs", "invalid_value",
        )  # fmt: skip


def too_long(needed: int, context: int, most: int) -> Refused:
    answer = f", {most} of them for the answer" if most else ""
    return Refused(
        400,
        f"this takes {needed} positions or more{answer}, but the model's context has {context}; shorten the prompt "
        "or lower max_tokens",
        code="context_length_exceeded",
    )
