"""How the service is run: where it listens, and how much it takes on."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, field

from gcache.errors import ConfigError
from gcache.runtime.settings import Settings, setting

#: Seconds that a client is asked to wait while the model is being loaded.
LOADING_SECONDS = 2
#: Bytes of a request's body at most: of texts, and where prompts may come as embeddings, which fill megabytes.
BODY, EMBEDS_BODY = 4 * 2**20, 64 * 2**20


@dataclass(frozen=True)
class ServeSettings(Settings):
    """Where the service listens, and its limits.

    Attributes:
        key: what clients must send as a bearer token; None for no key. Never shown.
        The rest: see the fields' help texts.

    Raises:
        ConfigError: a value that is not allowed.
    """

    host: str = setting("127.0.0.1", help="where to listen; 127.0.0.1 is this machine alone", group="service")
    port: int = setting(8000, help="0 for any free one", group="service", at_least=0, at_most=65535)
    key: str | None = field(default=None, repr=False)
    cors: tuple[str, ...] = setting(
        (), help="origins of web pages elsewhere that may ask", group="service", metavar="ORIGIN"
    )
    max_running: int = setting(
        32, help="questions that are worked on at once", group="service", metavar="N", at_least=1
    )
    max_waiting: int = setting(
        64, help="questions that may wait; past it clients get 429", group="service", metavar="N", at_least=0
    )
    deadline: float = setting(
        300.0, help="seconds of a request, waiting and reading included", group="service", metavar="N", unit="seconds",
        above=0,
    )
    max_body: int | None = setting(
        None, help="bytes of a request", group="service", metavar="N", at_least=1,
        unset=f"{BODY}, with --allow_prompt_embeds {EMBEDS_BODY}",
    )
    max_tokens: int = setting(
        4096, help="tokens of an answer that a request may ask for", group="service", metavar="N", at_least=1
    )
    allow_prompt_embeds: bool = setting(
        False, help="take prompts of /v1/completions as embeddings", group="service", switch=True
    )
    drain: float = setting(
        30.0, help="seconds that requests have to end in on SIGTERM", group="service", metavar="N", unit="seconds",
        at_least=0,
    )

    def __post_init__(self) -> None:
        super().__post_init__()
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
