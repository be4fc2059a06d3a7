"""A bounded load on a running `gcache serve`: what it answers, how fast, and whether its memory stays where it was.

    python -m benchmarks.serving --url http://127.0.0.1:8000 --requests 200 --concurrency 16 --pid PID --json load.json

The same questions are first asked one after another (some of them), then so many at once (all of them). A client
that is told to come back later is counted as refused and does not come back, so that the load is what was asked for.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import sys
import time
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import quantiles
from typing import Any

from benchmarks.markdown import number, table
from gcache.commands.console import OneLineParser, guarded, log_to_stderr
from gcache.environment import serve_key
from gcache.errors import ConfigError
from gcache.files import write_json

#: Requests after which the server's memory is looked at: what it needs once is there by then.
WARM = 50
#: What becomes of a request.
OUTCOMES = ("answered", "refused", "failed", "lost")
#: Asks a question; returns its outcome and, where it was answered, the tokens written.
Ask = Callable[[str], Coroutine[Any, Any, tuple[str, int]]]


@dataclass
class Load:
    """What came of so many requests.

    Attributes:
        answered, refused, failed, lost: with an answer; with 429; with another error; with none.
        seconds: of the whole; latencies: of each answer.
        tokens: written.
    """

    concurrency: int
    answered: int = 0
    refused: int = 0
    failed: int = 0
    lost: int = 0
    tokens: int = 0
    seconds: float = 0.0
    latencies: list[float] = field(default_factory=list)

    @property
    def per_second(self) -> float:
        """Answers a second."""
        return self.answered / self.seconds if self.seconds else 0.0

    def quantile(self, share: float) -> float:
        """Of the answers' seconds; nan where there is none."""
        if len(self.latencies) < 2:
            return self.latencies[0] if self.latencies else float("nan")
        return quantiles(self.latencies, n=100, method="inclusive")[round(share * 100) - 1]


@dataclass(frozen=True)
class Memory:
    """The server's resident bytes, where its process is known."""

    warm: int | None
    end: int | None


def questions(count: int, seed: int) -> list[str]:
    """Generated sums, no two beginning alike."""
    draw = random.Random(seed)
    return [f"Box {i} has {draw.randint(2, 99)} rows of {draw.randint(2, 99)} eggs. How many?" for i in range(count)]


def resident(pid: int | None) -> int | None:
    """A process's resident bytes.

    Raises:
        ConfigError: there is no such process.
    """
    if pid is None:
        return None
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError as error:
        raise ConfigError(f"no process {pid} can be looked at ({error.strerror}); pass the server's --pid") from error
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmRSS:"))


async def run_load(
    asked: Sequence[str], ask: Ask, concurrency: int, finished: Callable[[], None] = lambda: None
) -> Load:
    """Ask all questions, so many at once.

    Args:
        finished: called after each of them.
    """
    load, coming = Load(concurrency), iter(asked)

    async def one_after_another() -> None:
        for question in coming:
            began = time.monotonic()
            outcome, tokens = await ask(question)
            setattr(load, outcome, getattr(load, outcome) + 1)
            load.tokens += tokens
            if outcome == "answered":
                load.latencies.append(time.monotonic() - began)
            finished()

    began = time.monotonic()
    await asyncio.gather(*(one_after_another() for _ in range(concurrency)))
    load.seconds = time.monotonic() - began
    return load


def asking(client: Any, model: str, max_tokens: int) -> Ask:
    """Asks a server through the official client."""
    import openai

    async def ask(question: str) -> tuple[str, int]:
        try:
            answer = await client.chat.completions.create(
                model=model, messages=[{"role": "user", "content": question}], max_tokens=max_tokens
            )
        except openai.RateLimitError:
            return "refused", 0
        except openai.APIStatusError:
            return "failed", 0
        except openai.OpenAIError:
            return "lost", 0
        return "answered", answer.usage.completion_tokens if answer.usage else 0

    return ask


async def measure(args: argparse.Namespace) -> tuple[Load, Load, Memory]:
    """One after another, then at once; and the server's memory meanwhile."""
    from openai import AsyncOpenAI

    asked = questions(args.requests, args.seed)
    done, warm = 0, None

    def finished() -> None:
        nonlocal done, warm
        done += 1
        if done == min(WARM, args.requests):
            warm = resident(args.pid)

    key = serve_key() or "none"
    async with AsyncOpenAI(base_url=f"{args.url}/v1", api_key=key, max_retries=0, timeout=args.timeout) as client:
        model = (await client.models.list()).data[0].id
        ask = asking(client, model, args.max_tokens)
        await ask(asked[0])  # whatever is made at the first question
        alone = await run_load(asked[: args.alone], ask, 1)
        together = await run_load(asked, ask, args.concurrency, finished)
    return alone, together, Memory(warm, resident(args.pid))


def render(alone: Load, together: Load, memory: Memory) -> str:
    """The numbers as tables."""
    head = ["at once", *OUTCOMES, "answers/s", "tokens/s", "median s", "90 % s", "99 % s"]
    rows = [
        [
            str(load.concurrency),
            *(str(getattr(load, name)) for name in OUTCOMES),
            number(load.per_second),
            number(load.tokens / load.seconds if load.seconds else 0.0),
            *(number(load.quantile(share)) for share in (0.5, 0.9, 0.99)),
        ]
        for load in (alone, together)
    ]
    ratio = together.per_second / alone.per_second if alone.per_second else float("nan")
    lines = [table(head, rows), f"answers/s at {together.concurrency} at once, to one at a time: {number(ratio)}x"]
    if memory.warm is not None and memory.end is not None:
        total = sum(getattr(together, name) for name in OUTCOMES)
        lines.append(
            f"resident memory: {memory.warm / 2**20:,.0f} MiB after {min(WARM, total)} requests, "
            f"{memory.end / 2**20:,.0f} MiB after {total} ({memory.end / memory.warm - 1:+.1%})"
        )
    return "\n\n".join(lines)


def parser() -> argparse.ArgumentParser:
    made = OneLineParser(prog="python -m benchmarks.serving", description="A bounded load on a service.")
    made.add_argument("--url", required=True, help="of the service, without /v1; its key is GCACHE_SERVE_KEY")
    made.add_argument("--requests", type=int, default=200, help="asked at once, in all (default: %(default)s)")
    made.add_argument("--concurrency", type=int, default=16, help="questions at once (default: %(default)s)")
    made.add_argument("--alone", type=int, default=20, help="asked one after another (default: %(default)s)")
    made.add_argument("--max_tokens", type=int, default=64, help="of an answer (default: %(default)s)")
    made.add_argument("--timeout", type=float, default=300.0, help="seconds of a request (default: %(default)s)")
    made.add_argument("--seed", type=int, default=0, help="of the questions (default: %(default)s)")
    made.add_argument("--pid", type=int, help="the server's process, to look at its memory")
    made.add_argument("--json", type=Path, metavar="FILE", help="write everything to this file")
    return made


def run(args: argparse.Namespace) -> int:
    for name in ("requests", "concurrency", "alone", "max_tokens"):
        if getattr(args, name) < 1:
            raise ConfigError(f"--{name} must be 1 or more, got {getattr(args, name)}")
    resident(args.pid)
    alone, together, memory = asyncio.run(measure(args))
    if args.json:
        settings = {name: value for name, value in vars(args).items() if name not in ("json", "pid", "url")}
        loads = {"alone": asdict(alone), "together": asdict(together)}
        write_json(args.json, {"settings": settings, **loads, "resident_bytes": asdict(memory)})
    print(render(alone, together, memory))
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit code."""
    args = parser().parse_args(argv)
    log_to_stderr()
    return guarded(lambda: run(args))


if __name__ == "__main__":
    sys.exit(main())
