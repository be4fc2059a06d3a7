"""Where text comes from, and how hard it may be asked."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from gcache.environment import API_KEYS, api_variables
from gcache.errors import ConfigError
from gcache.llm.api.address import checked_address
from gcache.llm.api.fields import check_fields
from gcache.llm.api.secrets import HIDDEN, LONG, SECRET_NAME, holds, masked
from gcache.runtime.settings import Settings, setting

#: Addresses of the servers whose keys have names of their own.
OPENAI = "https://api.openai.com/v1"
DASHSCOPE = "https://dashscope.aliyuncs.com/compatible-mode/v1"
#: The key of a server that wants none.
NO_KEY = "none"


@dataclass(frozen=True)
class ApiSettings(Settings):
    """Where text comes from, and how hard it may be asked.

    Attributes:
        model: the name the server knows it by.
        base_url: of the API, up to and with "/v1".
        key: sent as a bearer token; never shown.
        extra: further fields of each request's body, such as {"enable_thinking": False}.
        left_out: fields of the body that are not sent.
        renamed: fields that are sent under another name.
        The rest: see the fields' help texts.

    Raises:
        ConfigError: a value that is not allowed.
    """

    model: str
    base_url: str
    key: str = field(default=NO_KEY, repr=False)
    requests_per_second: float | None = setting(
        None, help="the most requests a second, evenly spaced, repeated ones included", group="text", above=0,
        unset="no limit",
    )
    concurrency: int = setting(16, help="requests at once", group="text", flag="api_concurrency", at_least=1)
    timeout: float = setting(
        120.0, help="seconds of a request, from sending to the last byte", group="text", flag="api_timeout",
        unit="seconds", above=0,
    )
    retries: int = setting(
        5, help="after 429, 5xx, a time-out, a lost connection or a text that broke off", group="text",
        flag="api_retries", at_least=0,
    )
    extra: Mapping[str, Any] = field(default_factory=dict, repr=False)
    left_out: Sequence[str] = ()
    renamed: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "model", self.model.strip())
        object.__setattr__(self, "key", checked_key(self.key, "the API key") or NO_KEY)
        if not self.model and "model" not in self.left_out:
            raise ConfigError("no API model is named; pass --api_model NAME, or set API_MODEL")
        if self.key != NO_KEY and holds(self.model, self.key):  # models are named in messages and files
            raise ConfigError("the API model must not be named like the key; pass the key by API_KEY alone")
        if not self.model.isprintable():
            raise ConfigError(f"the API model {masked(self.model)[:60]!a} has characters that no name has")
        object.__setattr__(self, "base_url", checked_address(self.base_url, self.key if self.key != NO_KEY else ""))
        check_fields(self.extra, self.left_out, self.renamed)

    @classmethod
    def found(
        cls, model: str | None = None, base_url: str | None = None, key: str | None = None, **limits: Any
    ) -> ApiSettings:
        """What is passed here; what is not, from the environment, else from the file `.env`.

        Without an address, the key's own: DashScope's for DASHSCOPE_API_KEY, else OpenAI's.

        Raises:
            ConfigError: nothing names the model, or nothing gives a key for a public server.
        """
        said = api_variables()
        key = (key or "").strip()
        key_name = "--api_key" if key else next((name for name in API_KEYS if name in said), None)
        key = checked_key(key or said.get(key_name or "", ""), key_name or "the API key")
        base_url = base_url or said.get("BASE_URL")
        if base_url is None:
            base_url = DASHSCOPE if key_name == "DASHSCOPE_API_KEY" else OPENAI
            if not key:
                raise ConfigError(
                    f"no API key and no address of a server; set one of {', '.join(API_KEYS)} in the environment or "
                    "in .env, or name a server of your own by --base_url"
                )
        return cls(model or said.get("API_MODEL", ""), base_url, key or NO_KEY, **limits)

    @property
    def secrets(self) -> tuple[str, ...]:
        """What no message may show: the key, and options by the name of one."""
        options = [word for word in map(str, _secret_options(self.extra)) if len(word) >= LONG]
        return tuple(secret for secret in (self.key, *options) if secret != NO_KEY)

    def public(self) -> dict[str, Any]:
        """For records: everything but what is secret."""
        shown = {name: self._public(name, value) for name, value in self.extra.items()}
        changed = {"left_out": sorted(self.left_out), "renamed": dict(self.renamed)}
        return {
            "model": self.model, "base_url": self.base_url, "extra": shown,
            **{name: value for name, value in changed.items() if value},
        }  # fmt: skip

    def _public(self, name: str, value: Any) -> Any:
        """The value of an option without what is secret in it: by its name, or as it is the key."""
        if SECRET_NAME.search(name):
            return HIDDEN
        if isinstance(value, Mapping):
            return {inner: self._public(inner, part) for inner, part in value.items()}
        return HIDDEN if self.key != NO_KEY and holds(json.dumps(value), self.key) else value


def _secret_options(options: Mapping[str, Any]) -> Iterator[Any]:
    """Values, at any depth, of options by the name of a secret."""
    for name, value in options.items():
        if SECRET_NAME.search(name):
            yield value
        elif isinstance(value, Mapping):
            yield from _secret_options(value)


def checked_key(key: str, name: str) -> str:
    """A key as a header can carry it; white space around it, as copying and files leave it, is no part of it.

    Raises:
        ConfigError: a character inside of it that no header carries; the message does not show it.
    """
    key = key.strip().strip("\ufeff").strip()
    for place, character in enumerate(key, start=1):
        if not " " <= character <= "~":
            kind = "a character that is not ASCII" if character >= "\x80" else "a control character"
            raise ConfigError(
                f"{name} has {kind} at place {place} of {len(key)}, and cannot be sent; copy it again, on one line"
            )
    return key
