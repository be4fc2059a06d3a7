"""Text from a server that speaks OpenAI's chat completions.

    turn     every attempt waits for its turn: so many requests a second, so many at once
    attempt  one request, one time limit (`gcache.llm.api.http`), and what its reply is (`gcache.llm.api.reading`)
    again    after 429, 5xx, a time-out, a lost connection or a text that broke off, later and later, or when the
             server says (Retry-After); once more after a field that it does not take (`gcache.llm.api.refusals`);
             after anything else, not at all

Token counts are the server's. What an attempt costs is charged to a budget, and a budget that is
spent refuses the next request, so a run stops with what it has. Connections belong to an event loop; limits and budget
hold for all loops and threads together.
"""

from __future__ import annotations

import asyncio
import logging
import random
import threading
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from itertools import count
from typing import Any

from gcache.errors import ApiError, BudgetSpent, ConfigError
from gcache.llm.api.address import Way, way_to
from gcache.llm.api.budget import Budget
from gcache.llm.api.fields import OWN, changed, encoded
from gcache.llm.api.http import ApiHttp
from gcache.llm.api.limits import ApiLimits
from gcache.llm.api.outcome import ApiText, Failure
from gcache.llm.api.reading import read
from gcache.llm.api.refusals import Mends, refusal
from gcache.llm.api.secrets import LONG, hidden, one_line
from gcache.llm.api.settings import DASHSCOPE, NO_KEY, OPENAI, ApiSettings

__all__ = [
    "DASHSCOPE", "NO_KEY", "OPENAI", "ApiError", "ApiLLM", "ApiSettings", "ApiText", "Budget", "BudgetSpent",
    "ConfigError", "Content",
]  # fmt: skip

logger = logging.getLogger(__name__)

#: What a message says: words, or parts such as {"type": "text", "text": ...}.
Content = str | Sequence[Mapping[str, Any]]
#: Seconds before the second attempt; doubled before each further one, up to the most.
FIRST_WAIT, LONGEST_WAIT = 0.5, 30.0
#: Servers take seeds of 64 bits with a sign (vLLM) or whole numbers that JSON keeps everywhere (`gcache serve`).
LARGEST_SEED = 2**53
#: Where a talk is sent, and a prompt.
PATHS = {"chat": "/chat/completions", "completion": "/completions"}


async def _until_the_loop_ends(client: Any, forget: Callable[[], object]) -> AsyncGenerator[None, None]:
    """Closes the client when its event loop shuts down its generators, as `asyncio.run` does last."""
    try:
        yield
    finally:
        forget()
        await client.close()


class _Line:
    """The client and its queue, of one event loop: neither outlives the loop it was made in."""

    def __init__(self, settings: ApiSettings, way: Way, forget: Callable[[], object]) -> None:
        self.client = ApiHttp(settings, way)
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
        self._mends = Mends(asked=settings.extra)

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
        """The server's continuation of a prompt of embeddings (`gcache.graph.writers.prompt_embeds`).

        Args:
            prompt_embeds: base64 of a saved tensor (S, E).

        Raises:
            ApiError, BudgetSpent: as for `chat`.
        """
        # null asks for nothing more; a text, even an empty one, is another prompt to vLLM, and an empty one is refused
        own = {"prompt": None, "prompt_embeds": prompt_embeds}
        return await self._ask("completion", own, max_new_tokens, temperature, seed)

    def check(self) -> None:
        """Whether the surroundings allow a connection, before anything heavy is loaded for it.

        Raises:
            ConfigError: a variable that names a proxy or certificates that cannot be used.
        """
        way_to(self.settings.base_url)

    def _body(self, own: dict[str, Any], max_new_tokens: int, temperature: float, seed: int) -> dict[str, Any]:
        body: dict[str, Any] = {
            "model": self.settings.model, "max_tokens": max_new_tokens, "temperature": temperature,
        }  # fmt: skip
        if temperature > 0:
            body["seed"] = seed if abs(seed) <= LARGEST_SEED else seed % LARGEST_SEED
        return changed({**body, **self.settings.extra, **own}, self.settings.left_out, self.settings.renamed)

    async def _ask(
        self, kind: str, own: dict[str, Any], max_new_tokens: int, temperature: float, seed: int
    ) -> ApiText:
        """A request of one kind, tried until it is answered or failed for good."""
        body = self._body(own, max_new_tokens, temperature, seed)
        encoded(body)  # what cannot be sent waits for nobody, and costs nothing
        line = await self._own_line()
        failed = 0
        async with line.places, self._limits.place():
            for attempt in count(1):
                sent = self._mends.applied(body)
                async with line.turn:
                    await self._limits.attempt()
                self.budget.attempt()
                outcome = await self._attempt(line, PATHS[kind], sent, attempt)
                if isinstance(outcome, ApiText):
                    self.budget.charge(outcome.prompt_tokens, outcome.completion_tokens)
                    return outcome
                self.budget.add(outcome.prompt_tokens, outcome.completion_tokens)
                if self._mends.mend(outcome, sent, body):
                    continue
                failed += 1
                if not outcome.passing or failed > self.settings.retries:
                    raise self._error(outcome, attempt, sent)
                wait = self._wait(outcome, failed)
                logger.info("the API said %s; attempt %d in %.1f s", self._shown(outcome.text), attempt + 1, wait)
                await asyncio.sleep(wait)
        raise AssertionError("unreachable: an attempt is followed by another, returns or raises")

    async def aclose(self) -> None:
        """Close the connections of this event loop."""
        line = self._lines.get(asyncio.get_running_loop())
        if line is not None:
            await line.closing.aclose()

    async def _own_line(self) -> _Line:
        loop = asyncio.get_running_loop()
        line = self._lines.get(loop)
        if line is None:
            way = way_to(self.settings.base_url)
            with self._lock:
                for ended in [other for other in self._lines if other.is_closed()]:  # without a word
                    self._lines.pop(ended, None)
                line = self._lines[loop] = _Line(self.settings, way, lambda: self._lines.pop(loop, None))
            await anext(line.closing)
        return line

    # -- one attempt --------------------------------------------------------------------------

    async def _attempt(self, line: _Line, path: str, body: dict[str, Any], attempt: int) -> ApiText | Failure:
        """The server's text, or what went wrong."""
        try:
            reply = await asyncio.wait_for(line.client.post(path, encoded(body)), self.settings.timeout)
        except asyncio.TimeoutError:
            return Failure(f"nothing for {self.settings.timeout:g} s", passing=True)
        return reply if isinstance(reply, Failure) else read(reply, attempt)

    def _wait(self, failure: Failure, attempt: int) -> float:
        """Seconds before the next attempt."""
        if failure.retry_after is not None:
            return failure.retry_after
        longest: float = min(LONGEST_WAIT, FIRST_WAIT * 2 ** min(attempt - 1, 16))
        return longest * self._random.uniform(0.5, 1.0)

    def _error(self, failure: Failure, attempts: int, sent: Mapping[str, Any]) -> ApiError:
        times = "1 attempt" if attempts == 1 else f"{attempts} attempts"
        hint = " (check API_KEY)" if failure.status in (401, 403) else ""
        refused = refusal(failure, sent)
        if refused and refused.name in (*OWN, *self.settings.extra):
            hint = f" (--api_option {refused.name}= leaves it out)"
        said = f"{self._shown(failure.text)}{hint}"
        where = f"the API at {self.settings.base_url} failed after {times} for the model {self.settings.model!r}"
        return ApiError(hidden(f"{where}: {said}", [s for s in self.settings.secrets if len(s) >= LONG]))

    def _shown(self, text: str) -> str:
        """On one line, and without the key, which servers like to repeat."""
        return one_line(text, self.settings.secrets)
