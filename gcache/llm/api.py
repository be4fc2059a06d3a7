"""Text from a server that speaks OpenAI's chat completions.

    turn     every attempt waits for its turn: so many requests a second, so many at once
    attempt  one request, one time limit
    again    after 429, 5xx, a time-out or a lost connection, later and later, or when the server
             says (Retry-After); after anything else, not at all

Token counts are the server's. What an attempt costs is charged to a budget, and a budget that is
spent refuses the next request, so a run stops with what it has. Connections belong to an event loop; limits and budget
hold for all loops and threads together.
"""

from __future__ import annotations

import asyncio
import email.utils
import logging
import random
import threading
import time
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from gcache.errors import ApiError, BudgetSpent, ConfigError
from gcache.llm.api_limits import ApiLimits
from gcache.settings import API_KEYS, api_variables

logger = logging.getLogger(__name__)

#: What a message says: words, or parts such as {"type": "text", "text": ...}.
Content = str | Sequence[Mapping[str, Any]]
#: Seconds before the second attempt; doubled before each further one, up to the most.
FIRST_WAIT, LONGEST_WAIT = 0.5, 30.0
#: A server that asks for a longer wait than this is not waited for.
LONGEST_RETRY_AFTER = 120.0
#: Servers take seeds of 64 bits with a sign (vLLM) or whole numbers that JSON keeps everywhere (`gcache serve`).
LARGEST_SEED = 2**53
#: HTTP statuses that may be otherwise a little later.
PASSING = frozenset({408, 409, 429})
#: Addresses of the servers whose keys have names of their own.
OPENAI = "https://api.openai.com/v1"
DASHSCOPE = "https://dashscope.aliyuncs.com/compatible-mode/v1"
#: What a server that wants no key is sent; the client library insists on one.
NO_KEY = "none"


@dataclass(frozen=True)
class ApiSettings:
    """Where text comes from, and how hard it may be asked.

    Attributes:
        model: the name the server knows it by.
        base_url: of the API, up to and with "/v1".
        key: sent as a bearer token; never shown.
        requests_per_second: attempts, evenly spaced; None for no limit.
        concurrency: requests at once.
        timeout: seconds of an attempt, from sending to the last byte.
        retries: attempts after the first.
        extra: further fields of each request's body, such as {"enable_thinking": False}.

    Raises:
        ConfigError: a value that is not allowed.
    """

    model: str
    base_url: str
    key: str = field(default=NO_KEY, repr=False)
    requests_per_second: float | None = None
    concurrency: int = 16
    timeout: float = 120.0
    retries: int = 5
    extra: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.model:
            raise ConfigError("no API model is named; pass --api_model NAME, or set API_MODEL")
        if not self.base_url.startswith(("http://", "https://")):
            raise ConfigError(f"base_url must begin with http:// or https://, got {self.base_url!r}")
        if urlsplit(self.base_url).username is not None:
            raise ConfigError("base_url must not hold a user name or a password; pass a key by API_KEY")
        if self.requests_per_second is not None and not 0 < self.requests_per_second < float("inf"):
            raise ConfigError(f"requests_per_second must be above 0, got {self.requests_per_second}")
        if not 0 < self.timeout < float("inf"):
            raise ConfigError(f"api_timeout must be a number of seconds above 0, got {self.timeout}")
        if self.concurrency < 1:
            raise ConfigError(f"api_concurrency must be 1 or more, got {self.concurrency}")
        if self.retries < 0:
            raise ConfigError(f"api_retries must be 0 or more, got {self.retries}")

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
        key_name = "--api_key" if key else next((name for name in API_KEYS if name in said), None)
        key = key or said.get(key_name or "")
        base_url = base_url or said.get("BASE_URL")
        if base_url is None:
            base_url = DASHSCOPE if key_name == "DASHSCOPE_API_KEY" else OPENAI
            if key is None:
                raise ConfigError(
                    f"no API key and no address of a server; set one of {', '.join(API_KEYS)} in the environment or "
                    "in .env, or name a server of your own by --base_url"
                )
        return cls(model or said.get("API_MODEL", ""), base_url, key or NO_KEY, **limits)

    def public(self) -> dict[str, Any]:
        """For records: everything but the key."""
        return {"model": self.model, "base_url": self.base_url, "extra": dict(self.extra)}


@dataclass(frozen=True)
class ApiText:
    """What the server wrote.

    Attributes:
        prompt_tokens, completion_tokens: by the server's count; None where it gives none.
        finish_reason: the server's word for why the text ended ("stop", "length", ...).
        attempts: requests that were sent for it.
    """

    text: str
    prompt_tokens: int | None
    completion_tokens: int | None
    finish_reason: str
    attempts: int


class Budget:
    """So many tokens or requests, shared by whoever draws on it.

    Args:
        most: the limit; None for none.
        unit: "tokens" (read and written, by the server's count) or "requests" (attempts).

    A budget of tokens is known to be spent only after the fact: requests that are under way when
    it runs out are finished and counted.
    """

    UNITS = ("tokens", "requests")

    def __init__(self, most: int | None = None, unit: str = "requests") -> None:
        if most is not None and most < 1:
            raise ConfigError(f"api_budget must be 1 or more, got {most}")
        self.most, self.unit = most, unit
        self.requests = 0
        self.read = 0
        self.written = 0
        self._lock = threading.Lock()

    @property
    def tokens(self) -> int:
        return self.read + self.written

    @classmethod
    def parse(cls, text: str) -> Budget:
        """From "500requests", "2e6tokens" or "2000000 tokens".

        Raises:
            ConfigError: anything else.
        """
        for unit in cls.UNITS:
            number = text.strip().removesuffix(unit).strip()
            if number != text.strip():
                try:
                    most = float(number)
                    if most == int(most):
                        return cls(int(most), unit)
                except (ValueError, OverflowError):
                    break
        raise ConfigError(f"api_budget is a whole number and a unit, such as 500requests or 2e6tokens, got {text!r}")

    def check(self) -> None:
        """Raises BudgetSpent where nothing is left."""
        spent = self.tokens if self.unit == "tokens" else self.requests
        if self.most is not None and spent >= self.most:
            raise BudgetSpent(f"the API budget of {self.most} {self.unit} is spent; raise --api_budget to go on")

    def attempt(self) -> None:
        """Count an attempt that is about to be made.

        Raises:
            BudgetSpent: nothing is left for it.
        """
        with self._lock:
            self.check()
            self.requests += 1

    def charge(self, read: int | None, written: int | None) -> None:
        """Count the tokens of an answer.

        Raises:
            ApiError: the budget is in tokens and the server does not count them.
        """
        if (read is None or written is None) and self.most is not None and self.unit == "tokens":
            raise ApiError("the server counts no tokens, so a budget in tokens cannot be kept; give --api_budget "
                           "in requests")  # fmt: skip
        with self._lock:
            self.read += read or 0
            self.written += written or 0


async def _until_the_loop_ends(client: Any, forget: Callable[[], object]) -> AsyncGenerator[None, None]:
    """Closes the client when its event loop shuts down its generators, as `asyncio.run` does last."""
    try:
        yield
    finally:
        forget()
        await client.close()


class _Line:
    """The client and its queue, of one event loop: neither outlives the loop it was made in."""

    def __init__(self, settings: ApiSettings, forget: Callable[[], object]) -> None:
        from openai import AsyncOpenAI

        self.client = AsyncOpenAI(
            api_key=settings.key or NO_KEY, base_url=settings.base_url, timeout=settings.timeout, max_retries=0
        )
        self.closing = _until_the_loop_ends(self.client, forget)
        self.places = asyncio.Semaphore(settings.concurrency)
        self.turn = asyncio.Lock()  # one waits for the clock, the others for the one


class ApiLLM:
    """A chat model behind HTTP.

    Args:
        settings: see `ApiSettings`.
        budget: charged for every attempt; may be shared.
    """

    def __init__(self, settings: ApiSettings, budget: Budget | None = None) -> None:
        self.settings = settings
        self.budget = budget or Budget()
        self._limits = ApiLimits(settings.concurrency, settings.requests_per_second)
        self._lines: dict[asyncio.AbstractEventLoop, _Line] = {}
        self._lock = threading.Lock()  # of the lines
        self._random = random.Random()

    async def chat(
        self,
        messages: Sequence[tuple[str, Content]],
        max_new_tokens: int = 256,
        temperature: float = 0.0,
        seed: int = 0,
    ) -> ApiText:
        """The server's answer to a talk.

        Args:
            messages: (role, words or content parts), in order.
            max_new_tokens: the most tokens it may write.
            seed: passed on where the text is drawn; servers may heed it or not.

        Raises:
            ApiError: it failed for good; the message says how, and never shows the key.
            BudgetSpent: nothing is left to ask with.
        """
        talk = [{"role": role, "content": content} for role, content in messages]
        return await self._ask("chat", {"messages": talk}, max_new_tokens, temperature, seed)

    async def complete(
        self, prompt_embeds: str, max_new_tokens: int = 256, temperature: float = 0.0, seed: int = 0
    ) -> ApiText:
        """The server's continuation of a prompt of embeddings (`gcache.graph.embeds`).

        Args:
            prompt_embeds: base64 of a saved tensor (S, E).

        Raises:
            ApiError, BudgetSpent: as for `chat`.
        """
        # null asks for nothing more; a text, even an empty one, is another prompt to vLLM, and an empty one is refused
        own = {"prompt": None, "extra_body": {"prompt_embeds": prompt_embeds}}
        return await self._ask("completion", own, max_new_tokens, temperature, seed)

    async def _ask(
        self, kind: str, own: dict[str, Any], max_new_tokens: int, temperature: float, seed: int
    ) -> ApiText:
        """A request of one kind, tried until it is answered or failed for good."""
        body: dict[str, Any] = {
            "model": self.settings.model, "max_tokens": max_new_tokens, "temperature": temperature, **own,
        }  # fmt: skip
        body["extra_body"] = {**self.settings.extra, **own.get("extra_body", {})} or None
        if temperature > 0:
            body["seed"] = seed if abs(seed) <= LARGEST_SEED else seed % LARGEST_SEED
        line = await self._own_line()
        async with line.places, self._limits.place():
            for attempt in range(1, self.settings.retries + 2):
                async with line.turn:
                    await self._limits.attempt()
                self.budget.attempt()
                outcome = await self._attempt(line, kind, body)
                if isinstance(outcome, _Failure):
                    if not outcome.passing or attempt > self.settings.retries:
                        raise self._error(outcome, attempt)
                    wait = self._wait(outcome, attempt)
                    logger.info("the API said %s; attempt %d in %.1f s", self._shown(outcome.text), attempt + 1, wait)
                    await asyncio.sleep(wait)
                    continue
                return self._text(outcome, attempt)
        raise AssertionError("unreachable: the last attempt returns or raises")

    async def aclose(self) -> None:
        """Close the connections of this event loop."""
        line = self._lines.get(asyncio.get_running_loop())
        if line is not None:
            await line.closing.aclose()

    async def _own_line(self) -> _Line:
        loop = asyncio.get_running_loop()
        line = self._lines.get(loop)
        if line is None:
            with self._lock:
                for ended in [other for other in self._lines if other.is_closed()]:  # without a word
                    self._lines.pop(ended, None)
                line = self._lines[loop] = _Line(self.settings, lambda: self._lines.pop(loop, None))
            await anext(line.closing)
        return line

    # -- one attempt --------------------------------------------------------------------------

    async def _attempt(self, line: _Line, kind: str, body: dict[str, Any]) -> Any:
        """The server's parsed answer, or a `_Failure`."""
        import openai

        create: Any = line.client.chat.completions.create if kind == "chat" else line.client.completions.create
        asked = create(**body)
        try:
            return await asyncio.wait_for(asked, self.settings.timeout)
        except (asyncio.TimeoutError, openai.APITimeoutError):
            return _Failure(f"nothing for {self.settings.timeout:g} s", passing=True)
        except openai.APIStatusError as error:
            status = error.status_code
            return _Failure(
                f"HTTP {status}: {_first_line(error.message)}",
                passing=status in PASSING or status >= 500,
                retry_after=_seconds(error.response.headers.get("retry-after")),
            )
        except openai.APIConnectionError as error:
            return _Failure(f"no connection ({_first_line(str(error.__cause__ or error))})", passing=True)
        except (openai.OpenAIError, ValueError) as error:  # what came is not JSON, or of another form
            return _Failure(f"an answer that cannot be read ({_first_line(str(error))})", passing=False)

    def _text(self, answer: Any, attempts: int) -> ApiText:
        """Raises ApiError where the answer is none."""
        usage = getattr(answer, "usage", None)
        prompt = _count(getattr(usage, "prompt_tokens", None))
        completion = _count(getattr(usage, "completion_tokens", None))
        self.budget.charge(prompt, completion)
        choices = getattr(answer, "choices", None)
        if not isinstance(choices, list) or not choices:
            raise self._error(_Failure("an answer without choices", passing=False), attempts)
        content = getattr(choices[0], "text", None)  # of a completion; a chat's stands in its message
        if content is None:
            content = getattr(getattr(choices[0], "message", None), "content", None)
        if not isinstance(content, str):
            raise self._error(_Failure("a choice without text", passing=False), attempts)
        return ApiText(content, prompt, completion, str(choices[0].finish_reason), attempts)

    def _wait(self, failure: _Failure, attempt: int) -> float:
        """Seconds before the next attempt."""
        if failure.retry_after is not None:
            return failure.retry_after
        longest: float = min(LONGEST_WAIT, FIRST_WAIT * 2 ** (attempt - 1))
        return longest * self._random.uniform(0.5, 1.0)

    def _error(self, failure: _Failure, attempts: int) -> ApiError:
        times = "1 attempt" if attempts == 1 else f"{attempts} attempts"
        hint = " (check API_KEY)" if failure.text.startswith(("HTTP 401", "HTTP 403")) else ""
        return ApiError(
            f"the API at {self.settings.base_url} failed after {times} for the model {self.settings.model!r}: "
            f"{self._shown(failure.text)}{hint}"
        )

    def _shown(self, text: str) -> str:
        """Without the key, which servers like to repeat."""
        key = self.settings.key
        return text.replace(key, "***") if key and key != NO_KEY else text


@dataclass(frozen=True)
class _Failure:
    """What went wrong with an attempt.

    Attributes:
        passing: whether another attempt may fare better.
        retry_after: seconds that the server asked for.
    """

    text: str
    passing: bool
    retry_after: float | None = None

    def __post_init__(self) -> None:
        if self.retry_after is not None and self.retry_after > LONGEST_RETRY_AFTER:
            object.__setattr__(self, "text", f"{self.text}; it asks to wait {self.retry_after:.0f} s")
            object.__setattr__(self, "passing", False)


def _seconds(header: str | None) -> float | None:
    """A Retry-After header, in seconds or as a date; None where there is none that can be read."""
    if header is None:
        return None
    try:
        seconds = float(header)
    except ValueError:
        try:
            seconds = email.utils.parsedate_to_datetime(header).timestamp() - time.time()
        except (TypeError, ValueError):
            return None
    return max(0.0, seconds) if seconds == seconds else None


def _first_line(text: str, most: int = 200) -> str:
    return (text.strip().splitlines() or ["no message"])[0][:most]


def _count(value: Any) -> int | None:
    return value if isinstance(value, int) and value >= 0 else None
