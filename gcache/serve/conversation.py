"""A conversation becomes one question.

    one user message                 its text, unchanged
    system and developer messages    stand before it, wherever they came
    earlier turns                    stand before it as lines, "user: ..." and "assistant: ..."
    instructions, and no user        the last of the instructions is the question

The parts are joined by an empty line.
"""

from __future__ import annotations

from collections.abc import Sequence

from gcache.serve.refusals import Refused

#: Roles whose text is instructions.
INSTRUCTIONS = ("system", "developer")


def question(turns: Sequence[tuple[str, str]]) -> str:
    """The question of (role, text) turns.

    Raises:
        Refused: the last turn is not the user's, though there are others than instructions, or is blank.

    >>> question([("system", "Be brief."), ("user", "Hi"), ("assistant", "Hello"), ("user", "2 + 2?")])
    'Be brief.\\n\\nuser: Hi\\nassistant: Hello\\n\\n2 + 2?'
    """
    role, asked = turns[-1]
    if role != "user" and any(who not in INSTRUCTIONS for who, _ in turns):
        raise Refused(400, f"the last of the messages must be the user's, got one of the {role}", "messages")
    if not asked.strip():
        raise Refused(400, "the last message is blank; ask something", "messages")
    before = [text for who, text in turns[:-1] if who in INSTRUCTIONS and text.strip()]
    lines = [f"{who}: {text}" for who, text in turns[:-1] if who not in INSTRUCTIONS and text.strip()]
    return "\n\n".join([*before, *(["\n".join(lines)] if lines else []), asked])
