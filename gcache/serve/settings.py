"""How the service is run: where it listens, and how much it takes on."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, field

from gcache.errors import ConfigError

#: Seconds that a client is asked to wait while the model is being loaded.
LOADING_SECONDS = 2
#: Bytes of a request's body at most: of texts, and where prompts may come as embeddings, which fill megabytes.
BODY, EMBEDS_BODY = 4 * 2**20, 64 * 2**20


@dataclass(frozen=True)
class ServeSettings:
    """Where the service listens, and its limits.

    Attributes:
        port: 0 for any free one.
        key: what clients must send as a bearer token; None for no key. Never shown.
        cors: origins of web pages that may ask; none unless named.
        max_running: questions that are worked on at once.
        max_waiting: questions that may wait for their turn; past it clients are told to come back.
        deadline: seconds of a request, from its first byte to the last one of its answer.
        max_body: the most bytes of a request's body; None for `BODY`, or `EMBEDS_BODY` where embeddings are taken.
        max_tokens: the most tokens of an answer that a request may ask for.
        allow_prompt_embeds: whether prompts may come as embeddings.
        drain: seconds that requests have to end in once the service is told to.

    Raises:
        ConfigError: a value that is not allowed.
    """

    host: str = "127.0.0.1"
    port: int = 8000
    key: str | None = field(default=None, repr=False)
    cors: tuple[str, ...] = ()
    max_running: int = 32
    max_waiting: int = 64
    deadline: float = 300.0
    max_body: int | None = None
    max_tokens: int = 4096
    allow_prompt_embeds: bool = False
    drain: float = 30.0

    def __post_init__(self) -> None:
        for name, least in (("max_running", 1), ("max_waiting", 0), ("max_body", 1), ("max_tokens", 1)):
            given = getattr(self, name)
            if given is not None and given < least:
                raise ConfigError(f"--{name} must be {least} or more, got {given}")
        if not 0 <= self.port <= 65535:
            raise ConfigError(f"--port must be 0 (any free one) to 65535, got {self.port}")
        if not 0 < self.deadline < float("inf"):
            raise ConfigError(f"--deadline must be a number of seconds above 0, got {self.deadline}")
        if not 0 <= self.drain < float("inf"):
            raise ConfigError(f"--drain must be a number of seconds, 0 or more, got {self.drain}")
        if self.key is not None and not self.key.strip():
            raise ConfigError("the API key is empty; give one, or leave it out for none")
        if any(not origin.startswith(("http://", "https://")) and origin != "*" for origin in self.cors):
            raise ConfigError(f"--cors takes origins such as https://example.org, or *, got {' '.join(self.cors)}")

    @property
    def body_limit(self) -> int:
        """Bytes that the body of a request may have."""
        if self.max_body is not None:
            return self.max_body
        return EMBEDS_BODY if self.allow_prompt_embeds else BODY

    @property
    def is_local(self) -> bool:
        """Whether only this machine can reach it."""
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"
