"""What goes over an edge: slots of the sender's cache, its words, or both.

    cache      the sender's own slots: its prompt and its latent steps
    latents    those of its latent steps
    context    its own slots and all that it had received
    reasoning  its own slots, with those of the solution that it writes; nobody reads its words again
    text       what it says, for the receiver's prompt
    ...+text   slots and words
"""

from __future__ import annotations

from dataclasses import dataclass, replace

#: Which slots an agent hands on.
SLOTS = ("cache", "latents", "context", "reasoning")


@dataclass(frozen=True)
class Payload:
    """What goes over an edge.

    Attributes:
        slots: one of `SLOTS`; None where no slots go.
        words: whether the sender's words go.
    """

    slots: str | None = "cache"
    words: bool = False

    @property
    def name(self) -> str:
        """What it is called."""
        return "+".join(part for part in (self.slots, "text" if self.words else None) if part)

    @property
    def reasons(self) -> bool:
        """Whether slots of a solution that the sender writes go."""
        return self.slots == "reasoning"

    def with_words(self) -> Payload:
        """The same slots, and the sender's words."""
        return replace(self, words=True)


#: The sender's words alone.
TEXT = Payload(None, words=True)
#: All there are, by name. A solution's words are in its slots already.
PAYLOADS = {
    payload.name: payload
    for payload in (
        *(Payload(slots) for slots in SLOTS),
        TEXT,
        *(Payload(slots, words=True) for slots in SLOTS if slots != "reasoning"),
    )
}
