"""What tests/real_vllm.sh runs: a vLLM server of SmolLM2, our API modes against it, and `gcache serve` beside it."""

from __future__ import annotations

import asyncio
import json
import shutil
import signal
import sys
import tempfile
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2
import openai
import torch
from server_processes import PATIENCE, Server, free_port, running
from vllm_bodies import CONTEXT, WIDTH, bodies, embeds_of

from gcache.build import assemble, build
from gcache.config import GraphSpec
from gcache.errors import ApiError, GcacheError
from gcache.graph.result import RunResult
from gcache.graph.run_config import GraphConfig
from gcache.llm.api.client import ApiLLM, ApiSettings, Budget
from gcache.llm.load.gguf import converted
from gcache.llm.load.loading import load_model
from gcache.llm.load.locate import resolve
from gcache.llm.local import LocalLLM

#: Names of the served models, and the key of both servers.
NAME, OURS, KEY = "smol", "ours", "key-of-the-test"
QUESTION = "Ann has 3 boxes of 12 eggs and breaks 5 eggs. How many are whole?"
PROMPT = "Once upon a time"
SERVER = {
    "VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_CPU_OMP_THREADS_BIND": "nobind", "OMP_NUM_THREADS": "1",
    "HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1", "VLLM_API_KEY": KEY,
}  # fmt: skip


# -- checks ---------------------------------------------------------------------------------------


@dataclass
class Checks:
    """Runs checks and prints a line for each."""

    ok: int = 0
    failed: int = 0

    def run(self, name: str, check: Callable[[], str]) -> None:
        """A check is wrong where it raises; what it returns is printed."""
        try:
            outcome, said = "ok", check()
        except Exception as error:  # whatever it is, it is a line, and the next check is run
            outcome, said = "failed", f"{type(error).__name__}: {error}"
        self.ok += outcome == "ok"
        self.failed += outcome == "failed"
        print(f"{outcome:6}  {name}: {' '.join(said.split())[:230]}", flush=True)


def shown(text: str) -> str:
    return json.dumps(text if len(text) <= 60 else f"{text[:60]}...", ensure_ascii=False)


def expect(true: bool, otherwise: str) -> None:
    if not true:
        raise AssertionError(otherwise)


@dataclass
class Ours:
    """Our side: one local model, and graphs around it that ask the server."""

    url: str
    llm: LocalLLM
    tokenizer: Any
    budget: Budget = field(default_factory=Budget)

    @classmethod
    def loaded(cls, url: str, folder: Path) -> Ours:
        loaded = load_model(str(folder), "float32")
        return cls(url, LocalLLM(loaded.model, loaded.tokenizer, loaded.label), loaded.tokenizer)

    def api(self, **changed: Any) -> ApiLLM:
        settings = {"model": NAME, "base_url": f"{self.url}/v1", "key": KEY, "retries": 1, "timeout": PATIENCE}
        return ApiLLM(ApiSettings(**{**settings, **changed}), self.budget)

    def run(
        self, topology: str, hands: str = "cache", most: int = 24, temperature: float = 0.0, seed: int = 0,
        api: ApiLLM | None = None, **spec: Any,
    ) -> RunResult:  # fmt: skip
        # the turn that api_embeds asks in, so that the mode local reads the very same prompt
        config = GraphConfig(latent_steps=2, max_new_tokens=most, hands=hands, speak_tokens=16, decision_turn="same")
        described = GraphSpec(topology=topology, graph=config, agent_nums=2, dtype="float32", **spec)
        if described.generation_mode == "api":
            graph = build(described, api=api or self.api()).graph
        else:
            graph = assemble(described, self.llm, self.tokenizer, api=api or self.api()).graph
        return graph.run(QUESTION, temperature=temperature, seed=seed)

    def mode(self, **spec: Any) -> str:
        """One question in a mode: there is a text, and the server counted what it read and wrote."""
        result = self.run("chain", **spec)
        spoken = result.spoken[0]
        expect(spoken.api is not None, "the API was not asked")
        assert spoken.api is not None
        expect(bool(spoken.api.text.strip()), "an empty text")
        expect(result.answer == spoken.api.text, "the answer is another text than the API's")
        read, written = spoken.api.prompt_tokens or 0, spoken.api.completion_tokens or 0
        expect(read > 30 and 0 < written <= 24, f"the server counts {read} tokens read and {written} written")
        expect(spoken.api.attempts == 1, f"it took {spoken.api.attempts} attempts")
        return f"{read} tokens read, {written} written: {shown(result.answer)}"


def modes(checks: Checks, ours: Ours) -> None:
    checks.run("mode api", lambda: ours.mode(generation_mode="api", hands="text"))
    for hint in ("meta", "lens", "draft", "text"):
        hands = "both" if hint == "text" else "cache"
        checks.run(
            f"mode api_hint, hint {hint}",
            lambda hint=hint, hands=hands: ours.mode(generation_mode="api_hint", hint=hint, hands=hands),
        )  # fmt: skip
    for endpoint in ("completions", "chat"):
        checks.run(
            f"mode api_embeds, {endpoint}",
            lambda endpoint=endpoint: ours.mode(generation_mode="api_embeds", embeds_endpoint=endpoint),
        )  # fmt: skip
    checks.run("mode hybrid", lambda: ours.mode(generation_mode="hybrid"))
    checks.run("mode api_embeds without thoughts is the mode local, greedily", lambda: same_as_local(ours))
    checks.run("a drawn text follows its seed", lambda: draws(ours))
    checks.run("a seed of 64 bits is answered", lambda: drawn(ours, 2**64 - 1))
    checks.run("further fields are passed on", lambda: passed_on(ours))


def same_as_local(ours: Ours) -> str:
    theirs = ours.run("none", generation_mode="api_embeds").answer
    own = ours.run("none", generation_mode="local").answer
    expect(theirs == own, f"{shown(theirs)} is not {shown(own)}")
    return shown(own)


def drawn(ours: Ours, seed: int, mode: str = "api_embeds") -> str:
    return ours.run("chain", generation_mode=mode, temperature=1.0, seed=seed, most=12).answer


def draws(ours: Ours) -> str:
    first, again, other = (drawn(ours, seed) for seed in (7, 7, 8))
    expect(first == again, f"{shown(first)} is not {shown(again)}")
    expect(first != other, "another seed, the same text")
    return f"{shown(first)}, then {shown(other)}"


def passed_on(ours: Ours) -> str:
    api = ours.api(extra={"stop": ["e"], "top_p": 0.9})
    text = asyncio.run(once(api, lambda: api.chat([("user", QUESTION)], 16)))
    expect("e" not in text.text and text.finish_reason == "stop", f"{text}")
    return f"stop and top_p: {shown(text.text)}"


async def once(api: ApiLLM, ask: Callable[[], Any]) -> Any:
    try:
        return await ask()
    finally:
        await api.aclose()


# -- errors ---------------------------------------------------------------------------------------


def errors(checks: Checks, ours: Ours, vllm: Server) -> None:
    """What the server refuses: one request, one line, and the key in none of them."""
    words: list[tuple[str, str]] = [("user", QUESTION)]
    asks: list[tuple[str, ApiLLM, Callable[[ApiLLM], Any], str]] = [
        ("a wrong model name", ours.api(model="other"), lambda api: api.chat(words, 4), "HTTP 404"),
        ("a wrong key", ours.api(key="wrong-key-0123"), lambda api: api.chat(words, 4), "HTTP 401"),
        ("a path that is none", ours.api(base_url=f"{ours.url}/v2"), lambda api: api.chat(words, 4), "HTTP 404"),
        ("a prompt that is too long", ours.api(), lambda api: api.chat([("user", "egg " * 3000)], 4), "HTTP 400"),
        ("max_tokens too large", ours.api(), lambda api: api.chat(words, CONTEXT + 1), "HTTP 400"),
        ("embeddings that are too long", ours.api(), lambda api: api.complete(embeds_of(CONTEXT + 1), 4), "HTTP 400"),
        ("embeddings of another width", ours.api(), lambda api: api.complete(embeds_of(5, WIDTH + 1), 4), "HTTP 400"),
        ("embeddings that are none", ours.api(), lambda api: api.complete("AAAA", 4), "HTTP 400"),
    ]
    for name, api, ask, said in asks:
        checks.run(f"error, {name}", lambda api=api, ask=ask, said=said: refused(api, ask, said, attempts=1))
    checks.run("error, a wrong model name in the mode api_embeds", lambda: refused_run(ours))
    checks.run("error, the server killed in mid-answer", lambda: killed(ours, vllm))
    checks.run("error, nobody there", lambda: refused(ours.api(), lambda api: api.chat(words, 4), "no connection", 2))


def refused(api: ApiLLM, ask: Callable[[ApiLLM], Any], said: str, attempts: int) -> str:
    try:
        text = asyncio.run(once(api, lambda: ask(api)))
    except ApiError as error:
        line = str(error)
        expect(said in line and "\n" not in line, line)
        expect(f"after {attempts} attempt" in line, line)
        expect(api.settings.key not in line, "the key is shown")
        return line.partition("failed ")[2]
    raise AssertionError(f"it was answered: {text}")


def refused_run(ours: Ours) -> str:
    try:
        ours.run("chain", generation_mode="api_embeds", api=ours.api(model="other"))
    except ApiError as error:
        expect("takes no prompt embeddings" in str(error) and "HTTP 404" in str(error), str(error))
        return str(error)
    raise AssertionError("it was answered")


def killed(ours: Ours, vllm: Server) -> str:
    """The answer takes seconds, and the server has one of them."""
    ending = threading.Timer(1.0, lambda: vllm.end(signal.SIGKILL))
    ending.start()
    try:
        api = ours.api()
        return refused(api, lambda api: api.complete(embeds_of(40), 1500), "no connection", attempts=2)
    finally:
        ending.join()


# -- streams --------------------------------------------------------------------------------------


def streams(checks: Checks, vllm: Server, ours_served: Server) -> None:
    for name, server, model in (("vLLM", vllm, NAME), ("gcache serve", ours_served, OURS)):
        checks.run(
            f"a stream of {name} is its whole answer, embeddings and text at once",
            lambda server=server, model=model: streamed(server, model),
        )  # fmt: skip
    checks.run("gcache serve streams what the mode api_embeds gets of vLLM", lambda: through(ours_served))


def streamed(server: Server, model: str) -> str:
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key=KEY, max_retries=0) as client:
        asked: dict[str, Any] = {"model": model, "prompt": [PROMPT], "max_tokens": 12, "temperature": 0}
        extra = {"prompt_embeds": embeds_of(6)}
        whole = [choice.text for choice in client.completions.create(**asked, extra_body=extra).choices]
        pieces, chunks = [""] * len(whole), 0
        for chunk in client.completions.create(**asked, extra_body=extra, stream=True):
            chunks += 1
            for choice in chunk.choices:
                pieces[choice.index] += choice.text
    expect(len(whole) == 2 and pieces == whole, f"{pieces} is not {whole}")
    expect(chunks > 6, f"only {chunks} chunks")
    return f"{chunks} chunks: {' '.join(map(shown, whole))}"


def through(served: Server) -> str:
    with openai.OpenAI(base_url=f"{served.url}/v1", api_key=KEY, max_retries=0) as client:
        asked: Any = {"model": OURS, "messages": [{"role": "user", "content": QUESTION}], "max_tokens": 12}
        whole = client.chat.completions.create(**asked).choices[0].message.content or ""
        stream = client.chat.completions.create(**asked, stream=True)
        pieces = "".join(chunk.choices[0].delta.content or "" for chunk in stream if chunk.choices)
    expect(pieces == whole and bool(whole.strip()), f"{shown(pieces)} is not {shown(whole)}")
    return shown(whole)


# -- the same bodies to both ----------------------------------------------------------------------


def alike(checks: Checks, vllm: Server, served: Server) -> None:
    """Whether `gcache serve` takes what vLLM takes, with the same texts in the same order, and refuses what it does."""
    for name, fields in bodies():
        checks.run(f"alike, {name}", lambda fields=fields: both(vllm, served, fields))


def both(vllm: Server, served: Server, fields: dict[str, Any]) -> str:
    asked = {"max_tokens": 3, "temperature": 0, **fields}
    theirs, own = (server.post("/v1/completions", asked, KEY) for server in (vllm, served))
    expect(theirs.status_code == own.status_code, f"vLLM {theirs.status_code} {theirs.text[:90]}, we {own.status_code} "
           f"{own.text[:90]}")  # fmt: skip
    if theirs.status_code != 200:
        expect(set(theirs.json()["error"]) == set(own.json()["error"]), "errors of other forms")
        said, ours = (answer.json()["error"]["message"].split("\n")[0][:100] for answer in (theirs, own))
        return f"both {own.status_code}; vLLM: {said}; ours: {ours}"
    texts = [[(choice["index"], choice["text"], choice["finish_reason"]) for choice in answer.json()["choices"]]
             for answer in (theirs, own)]  # fmt: skip
    expect(texts[0] == texts[1], f"vLLM {texts[0]}, we {texts[1]}")
    counts = [answer.json()["usage"]["prompt_tokens"] for answer in (theirs, own)]
    expect(counts[0] == counts[1], f"vLLM counts {counts[0]} tokens read, we {counts[1]}")
    return f"both 200, choices {len(texts[0])}, tokens read {counts[0]}"


# -- all of it ------------------------------------------------------------------------------------


def short_model(folder: Path) -> Path:
    """SmolLM2 with fewer positions: both servers are to refuse what is longer."""
    shutil.copytree(converted(Path(resolve("smollm2").location)), folder)
    config = folder / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "max_position_embeddings": CONTEXT}))
    return folder


def main(program: str) -> int:
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as place:
        return check_all(program, short_model(Path(place) / "smollm2"))


def check_all(program: str, folder: Path) -> int:
    checks, port, own_port = Checks(), free_port(), free_port()
    command = [
        program, "serve", str(folder), "--served-model-name", NAME, "--host", "127.0.0.1", "--port", str(port),
        "--max-model-len", str(CONTEXT), "--dtype", "float32", "--enable-prompt-embeds", "--enforce-eager",
    ]  # fmt: skip
    own = [
        sys.executable, "-m", "gcache.commands.main", "serve", "--topology", "chain", "--llm_name", str(folder),
        "--dtype", "float32", "--name", OURS, "--generation_mode", "api_embeds", "--latent_steps", "2",
        "--api_model", NAME, "--base_url", f"http://127.0.0.1:{port}/v1", "--port", str(own_port),
        "--allow_prompt_embeds", "--max_tokens", str(CONTEXT),
    ]  # fmt: skip
    environment = {"API_KEY": KEY, "GCACHE_SERVE_KEY": KEY, "OMP_NUM_THREADS": "1"}
    try:
        with running(command, port, "/health", SERVER) as vllm:
            version = httpx2.get(f"{vllm.url}/version", timeout=PATIENCE).json()["version"]
            print(f"vLLM {version}, SmolLM2-135M-Instruct in float32, torch of ours {torch.__version__}", flush=True)
            ours = Ours.loaded(vllm.url, folder)
            modes(checks, ours)
            with running(own, own_port, "/ready", environment) as served:
                streams(checks, vllm, served)
                alike(checks, vllm, served)
            errors(checks, ours, vllm)
    except (RuntimeError, GcacheError) as error:
        print(f"real_vllm: {error}", file=sys.stderr)
        return 2
    print(f"{checks.ok} ok, {checks.failed} failed, with vLLM {version}")
    return 1 if checks.failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
