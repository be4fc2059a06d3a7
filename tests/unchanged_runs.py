"""The runs of tests/test_unchanged.py, and how their record is written. Both go when the move of the files is over.

    python tests/unchanged_runs.py --write              run everything, write tests/data/unchanged.json anew
    python tests/unchanged_runs.py --add --threads 1    check against the record, add the exact bytes of this machine

Every run is a command (`gcache run ...`), so it goes by flags and files alone. What a command computes is seen at one
place, `AgentGraph.arun`, through which every question goes.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import hashlib
import io
import json
import math
import os
import platform
import random
import re
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

import torch

# -- all that moves: each move of a file changes a line here, and nothing below -------------------
import gcache.llm.load.device as device  # the module of DTYPES
import gcache.serve.server as server  # the module of `serve`, Serving and listening
from gcache.cache.fusers.registry import FUSERS
from gcache.commands.main import main
from gcache.evaluation.controls import CONTROLS
from gcache.evaluation.methods import METHODS
from gcache.gnn.fixed import TOPOLOGIES
from gcache.graph.agent_graph import AgentGraph
from gcache.graph.writers.hints import HINTS
from gcache.serve.service import Service

# -------------------------------------------------------------------------------------------------

RECORD = Path(__file__).parent / "data" / "unchanged.json"
#: How far numbers may be apart, as a share of them, or at all where they are small: of models in float64; of what was
#: trained around them, since policy and fuser are in float32, and Adam divides by what it finds; of models in float32.
DOUBLE, TRAINED, SINGLE = 1e-6, 1e-4, 1e-3
LEAST = {DOUBLE: 1e-6, TRAINED: 1e-5, SINGLE: 1e-4}
#: Significant digits of a number in the record.
DIGITS = 9
#: In a text, a number with more digits than are shown to people.
LONG_NUMBER = re.compile(r"-?\d+\.\d{6,}")
#: What differs between two runs of one thing, or is about to be renamed.
LEFT_OUT = {
    "seconds", "seconds_rollouts", "seconds_gradient", "checkpoint", "graph", "settings", "id", "created", "plot",
}  # fmt: skip

SPECIAL = ("<unk>", "<|im_start|>", "<|im_end|>")
CHARACTERS = ("\n", *(chr(code) for code in range(32, 127)))
CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
QUESTION = "Ann has 3 boxes of 12 eggs and breaks 5 eggs. How many are whole?"
TALK = [{"role": "user", "content": "What is 17 * 6?"}]


# -- models and data of no randomness: the same numbers on every processor -----------------------


def tokenizer() -> Any:
    """One token per printable character."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    numbers = {word: number for number, word in enumerate((*SPECIAL, *CHARACTERS))}
    made = Tokenizer(models.WordLevel(numbers, unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
    made.decoder = decoders.Fuse()
    found = PreTrainedTokenizerFast(
        tokenizer_object=made, unk_token="<unk>", eos_token="<|im_end|>", pad_token="<|im_end|>",
        additional_special_tokens=["<|im_start|>"], clean_up_tokenization_spaces=False,
    )  # fmt: skip
    found.chat_template = CHAT_TEMPLATE
    return found


def save_model(folder: Path, seed: int, width: int = 32, qwen: bool = False, inner: int = 64) -> Path:
    """A decoder of two layers, as a folder. Its weights are drawn by Python: torch's draws depend on the processor."""
    from transformers import LlamaConfig, LlamaForCausalLM, Qwen2Config, Qwen2ForCausalLM

    settings: dict[str, Any] = {
        "vocab_size": len(SPECIAL) + len(CHARACTERS), "hidden_size": width, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8, "intermediate_size": inner,
        "max_position_embeddings": 8192, "bos_token_id": 1, "eos_token_id": 2, "tie_word_embeddings": not qwen,
    }  # fmt: skip
    made: Any = Qwen2ForCausalLM(Qwen2Config(**settings)) if qwen else LlamaForCausalLM(LlamaConfig(**settings))
    drawn = random.Random(seed)
    with torch.no_grad():
        for name, weight in made.named_parameters():
            low, high = (0.5, 1.5) if "norm" in name else (-0.5, 0.5)
            numbers = [drawn.uniform(low, high) for _ in range(weight.numel())]
            weight.copy_(torch.tensor(numbers, dtype=torch.float64).reshape(weight.shape))
    made.save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    return folder


def save_questions(file: Path) -> Path:
    rows = [
        {"question": f"Tom has {n} red and {n + 3} blue pens. How many?", "answer": f"#### {2 * n + 3}"}
        for n in range(60)
    ]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


# -- what a command computes ---------------------------------------------------------------------


@dataclass
class Seen:
    """What was seen of a command.

    Attributes:
        results: ((question, seed), result) of every question, in order of the questions and their seeds.
        weights: of every step of a training that a checkpoint was written after.
    """

    printed: str = ""
    results: list[tuple[tuple[str, int], Any]] = field(default_factory=list)
    weights: dict[str, dict[str, torch.Tensor]] = field(default_factory=dict)

    def runs(self) -> list[dict[str, Any]]:
        return [of_result(result) for _, result in sorted(self.results, key=lambda pair: pair[0])]


class Stopped(RuntimeError):
    """Ends a training from outside."""


@contextlib.contextmanager
def watching(out: Path | None = None, last: int | None = None) -> Iterator[Seen]:
    """Sees every question that is run.

    Args:
        out: of a training, whose weights are seen after every step.
        last: the training is stopped once so many of its steps are done.
    """
    seen, arun = Seen(), AgentGraph.arun

    def look() -> None:
        from safetensors.torch import load_file

        for folder in sorted(out.glob("checkpoints/step-*")) if out else ():
            if folder.name not in seen.weights:
                seen.weights[folder.name] = load_file(folder / "weights.safetensors")

    async def watched(self: Any, example: Any, **options: Any) -> Any:
        look()
        if last is not None and out is not None and (out / "checkpoints" / f"step-{last:06}").is_dir():
            raise Stopped
        result = await arun(self, example, **options)
        seen.results.append(((result.example.question, options.get("seed", 0)), result))
        return result

    with mock.patch.object(AgentGraph, "arun", watched):
        try:
            yield seen
        finally:
            look()


def command(*argv: str | Path, out: Path | None = None, last: int | None = None) -> Seen:
    """Run a command that goes well."""
    said = io.StringIO()
    with watching(out, last) as seen, contextlib.redirect_stdout(said), doubles():
        code = main([str(word) for word in argv])
    assert code == 0, (code, argv)
    seen.printed = said.getvalue()
    return seen


@contextlib.contextmanager
def doubles() -> Iterator[None]:
    """Lets --dtype be float64."""
    with mock.patch.object(device, "DTYPES", (*device.DTYPES, "float64")):
        yield


def of_result(result: Any) -> dict[str, Any]:
    """All of a run that is not its clock."""
    topology = result.topology
    steps = [
        (s.agent, s.role, s.round, s.what, s.prefilled, s.latent, s.generated, s.received, s.api_read, s.api_written)
        for s in result.trace
        if s.what != "memory"
    ]
    return {
        "question": result.example.question,
        "answer": result.answer,
        "edges": sorted((e.source, e.target, e.delay, e.payload or "", e.weight) for e in topology.edges),
        "latent_steps": topology.latent_steps,
        "topology_log_prob": result.topology_log_prob,
        "text_log_prob": result.text_log_prob,
        "spoken": [
            {
                "heard": s.heard, "prompt": short(s.tokens), "text": s.text, "hint": s.hint,
                **({} if s.generation is None else {
                    "tokens": s.generation.tokens, "log_probs": s.generation.log_probs,
                    "finished": s.generation.finished,
                }),
                **({} if s.api is None else {"api": [s.api.text, s.api.prompt_tokens, s.api.completion_tokens]}),
            }
            for s in result.spoken
        ],
        "trace": sorted(steps),
        "edge_bytes": sorted((*ends, size) for ends, size in result.edge_bytes.items()),
        "prompts": sorted((*node, short(tokens)) for node, tokens in result.prompts.items()),
        "said": sorted((*node, text) for node, text in result.said.items()),
        "thinking": result.thinking,
        "temperature": result.temperature,
    }  # fmt: skip


def short(tokens: Sequence[int]) -> str:
    """Stands for tokens."""
    return f"{len(tokens)} tokens {hashlib.sha256(repr(tuple(tokens)).encode()).hexdigest()[:16]}"


def metrics(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]


def training(seen: Seen, out: Path) -> dict[str, Any]:
    return {"runs": seen.runs(), "metrics": metrics(out), "weights": seen.weights}


# -- a server that answers by what it is asked -----------------------------------------------------


@contextlib.contextmanager
def api() -> Iterator[Any]:
    """A server whose words are a function of the words it is sent."""
    from chat_server import completion, send, serving

    def behave(handler: Any, body: dict[str, Any]) -> None:
        words = json.dumps([body.get("messages"), body["max_tokens"]], sort_keys=True)
        if "prompt_embeds" in words or "prompt_embeds" in body:  # numbers, which differ between processors
            answer = {**completion("I read them. #### 4", prompt=60), "object": "text_completion"}
            answer["choices"][0]["text"] = "I read them. #### 4"
        else:
            said = hashlib.sha256(words.encode()).hexdigest()
            answer = completion(f"I say {said[:8]}. #### {int(said[8:10], 16)}", prompt=len(words), written=9)
        send(handler, 200, json.dumps(answer).encode())

    with serving(behave) as running:
        yield running


def asked(running: Any) -> list[Any]:
    """The requests that a server got, in an order of their own; embeddings as tensors."""
    return sorted((opened(body) for body in running.seen), key=lambda body: json.dumps(plain(body), sort_keys=True))


def opened(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: decoded(each) if is_embeds(value, name) else opened(each) for name, each in value.items()}
    return [opened(each) for each in value] if isinstance(value, list) else value


def is_embeds(value: Mapping[str, Any], name: str) -> bool:
    return name == "prompt_embeds" or (name == "data" and value.get("type") == "prompt_embeds")


def decoded(data: str) -> torch.Tensor:
    import base64

    found: torch.Tensor = torch.load(io.BytesIO(base64.b64decode(data)), weights_only=True)
    return found


# -- the runs ------------------------------------------------------------------------------------


@dataclass
class Bench:
    """Models, data and trained graphs in a folder; each is made when it is first asked for."""

    folder: Path
    made: dict[str, Any] = field(default_factory=dict)

    def once(self, name: str, make: Callable[[], Any]) -> Any:
        if name not in self.made:
            self.made[name] = make()
        return self.made[name]

    @property
    def llama(self) -> Path:
        return Path(self.once("llama", lambda: save_model(self.folder / "llama", 1)))

    @property
    def wider(self) -> Path:
        return Path(self.once("wider", lambda: save_model(self.folder / "wider", 2, width=48)))

    @property
    def qwen(self) -> Path:
        return Path(self.once("qwen", lambda: save_model(self.folder / "qwen", 3, qwen=True)))

    @property
    def questions(self) -> Path:
        return Path(self.once("questions", lambda: save_questions(self.folder / "train.jsonl")))

    def run(self, *flags: str | Path, model: Path | None = None) -> Any:
        """What `gcache run` computes."""
        words = ("--llm_name", model or self.llama, "--dtype", "float64", "--max_new_tokens", "10")
        seen = command("run", *words, *flags, QUESTION)
        return {"printed": seen.printed, "runs": seen.runs()}

    def asking(self, mode: str, *flags: str) -> Any:
        """The same, where an API writes."""
        with api() as running:
            found = self.run(
                "--generation_mode", mode, "--base_url", running.base_url, "--api_model", "toy", *flags
            )  # fmt: skip
            return {**found, "asked": asked(running)}

    def train_flags(self, out: Path, *flags: str | Path) -> list[str | Path]:
        task = () if "--task" in flags else ("--task", "gsm8k", "--data", self.questions, "--accept_last_number")
        return [
            "train", *task, "--llm_name", self.llama,
            "--dtype", "float64", "--encoder", "hash", "--iterations", "3", "--batch_size", "2", "--rollouts", "3",
            "--latent_steps", "1", "--max_new_tokens", "6", "--token_price", "20", "--mib_price", "2",
            "--decision_probability", "0.6", "--agent_probability", "0.4", "--checkpoint_every", "1", "--seed", "1",
            "--out", out, *flags,
        ]  # fmt: skip

    def train(self, name: str, *flags: str | Path) -> Any:
        """What `gcache train` computes, step by step."""
        out = self.folder / name
        return self.once(name, lambda: training(command(*self.train_flags(out, *flags), out=out), out))

    def trained(self) -> Path:
        """A cache graph whose policy and fuser were trained."""
        self.train("decision", *DECISION)
        return self.folder / "decision"


DECISION = ("--fuser_gradient", "decision", "--latent_steps", "2")


def resumed(bench: Bench) -> Any:
    """Two steps, a stop, and one more, which must be the run that was not stopped, to the byte."""
    whole, out = bench.train("decision", *DECISION), bench.folder / "stopped"
    flags = bench.train_flags(out, *DECISION)
    with contextlib.suppress(Stopped):
        command(*flags, out=out, last=2)
    assert len(metrics(out)) == 2
    seen = command(*flags, out=out)
    last = max(whole["weights"])
    assert sorted(seen.weights[last]) == sorted(whole["weights"][last])
    for name, weight in whole["weights"][last].items():
        assert weight.numpy().tobytes() == seen.weights[last][name].numpy().tobytes(), name
    assert exact(cleaned(metrics(out), out)) == exact(cleaned(whole["metrics"], out))
    return training(seen, out)


def hybrid_training(bench: Bench) -> Any:
    with api() as running:
        found = bench.train(
            "hybrid", "--generation_mode", "hybrid", "--base_url", running.base_url, "--api_model", "toy",
            "--iterations", "2", "--fuser_gradient", "decision",
        )  # fmt: skip
        return {**found, "asked": asked(running)}


def split_facts(bench: Bench) -> Any:
    """Agents that come with the questions; most of the training's other settings."""
    return bench.train(
        "split_facts", "--task", "split_facts", "--latent_steps", "0", "--adversary", "1",
        "--decision_method", "vote", "--baseline", "ema", "--entropy_bonus_end", "0.02", "--temperature_end", "0.5",
        "--pruning_rate", "0.2", "--anchor", "star", "--anchor_strength", "0.1", "--positions", "sequential",
        "--iterations", "2", "--batch_size", "1", "--fuser_gradient", "decision", "--task_option", "n_agents=3",
    )  # fmt: skip


def written(file: Path) -> Any:
    return json.loads(file.read_text(encoding="utf-8"))


def evaluated(bench: Bench) -> Any:
    file = bench.folder / "eval.json"
    seen = command("eval", "--checkpoint", bench.trained(), "--limit", "4", "--json", file)
    return {"runs": seen.runs(), "found": written(file)}


def compared(bench: Bench) -> Any:
    file = bench.folder / "compare.json"
    seen = command(
        "compare", "--methods", ",".join(METHODS), "--task", "gsm8k", "--data", bench.questions, "--limit", "3",
        "--llm_name", bench.llama, "--dtype", "float64", "--latent_steps", "2", "--max_new_tokens", "8", "--json", file,
    )  # fmt: skip
    return {"runs": seen.runs(), "found": written(file)}


def controlled(bench: Bench) -> Any:
    file = bench.folder / "controls.json"
    seen = command("controls", bench.trained(), "--limit", "2", "--json", file)
    names = [row["found"]["name"] for row in written(file)["rows"]]
    assert names == list(CONTROLS), names
    return {"runs": seen.runs(), "found": written(file)}


def looked_at(bench: Bench) -> Any:
    out = bench.folder / "view"
    formats = ("table", "json", "graphml", "mermaid", "dot")
    seen = command("inspect", bench.trained(), "--limit", "4", "--cuts", "3", "--format", *formats, "--out", out)
    return {"printed": seen.printed, "found": files(out)}


def looked_closely(bench: Bench) -> Any:
    out = bench.folder / "close"
    seen = command(
        "inspect", bench.trained(), "--question", QUESTION, "--format", "json", "dot", "--out", out
    )  # fmt: skip
    return {"runs": seen.runs(), "found": files(out)}  # what is printed has seconds


def files(folder: Path) -> dict[str, Any]:
    return {
        path.name: written(path) if path.suffix == ".json" else path.read_text(encoding="utf-8")
        for path in sorted(folder.iterdir())
    }


def apart(bench: Bench) -> Any:
    bench.train("full", *FULL)
    file = bench.folder / "apart.json"
    seen = command(
        "compare-topologies", bench.trained(), bench.folder / "full", "--limit", "4", "--json", file
    )  # fmt: skip
    return {"printed": seen.printed, "found": written(file)}


FULL = ("--fuser_gradient", "full", "--fuser", "relevance", "--latent_steps", "2")


def perceived(bench: Bench) -> Any:
    """A perceiver, fitted and used."""
    from safetensors.torch import load_file

    file = bench.folder / "link.safetensors"
    command(
        "fit-perceiver", "--llm_name", bench.llama, "--agent_models", bench.wider, "--dtype", "float64", "--task",
        "gsm8k", "--data", bench.questions, "--limit", "6", "--held_out", "2", "--steps", "2", "--batch_size", "2",
        "--queries", "2", "--width", "16", "--heads", "2", "--blocks", "1", "--latent_steps", "1", "--out", file,
    )  # fmt: skip
    run = bench.run("--agent_models", bench.wider, "--link", "perceiver", "--link_file", file, "--topology", "star")
    lines = [json.loads(line) for line in file.with_suffix(".jsonl").read_text().splitlines()]
    # a bias of keys changes no attention, so its gradient is rounding
    weights = {name: weight for name, weight in load_file(file).items() if not name.endswith("in_proj_bias")}
    return {"weights": weights, "lines": lines, **run}


def served(bench: Bench) -> Any:
    """Answers over HTTP: chats and completions, whole and streamed, with and without log-probabilities."""
    import httpx2

    caught: list[tuple[Any, ...]] = []
    with mock.patch.object(server, "serve", lambda *given: caught.append(given)):
        command("serve", bench.trained(), "--port", "0", "--name", "toy")
    name, settings, load = caught[0][:3]
    ready, loop = threading.Event(), asyncio.new_event_loop()
    found: dict[str, Any] = {}
    with doubles(), watching() as seen, server.listening(settings) as listener:
        serving = server.Serving(Service(name, settings), listener)
        going = serving.go(load, lambda url: ready.set())
        thread = threading.Thread(target=lambda: loop.run_until_complete(going), daemon=True)
        thread.start()
        try:
            assert ready.wait(60)
            for what, path, body in (
                ("chat", "chat/completions", {"messages": TALK}),
                ("drawn chat", "chat/completions", {"messages": TALK, "temperature": 0.9, "seed": 7, "top_p": 0.8}),
                ("chat with chances", "chat/completions", {"messages": TALK, "logprobs": True, "top_logprobs": 2}),
                ("completion", "completions", {"prompt": "17 * 6 is", "max_tokens": 6}),
                ("completion with chances", "completions", {
                    "prompt": "17 * 6 is", "max_tokens": 6, "logprobs": 2, "echo": True,
                }),
            ):  # fmt: skip
                url = f"{serving.url}/v1/{path}"
                answer = httpx2.post(url, json={"model": "toy", **body}, timeout=60)
                assert answer.status_code == 200, answer.text
                found[what] = answer.json()
                if body.get("echo"):
                    body = {name: value for name, value in body.items() if name != "echo"}
                with httpx2.stream("POST", url, json={"model": "toy", "stream": True, **body}, timeout=60) as stream:
                    lines = [line.removeprefix("data: ") for line in stream.iter_lines() if line.startswith("data: ")]
                assert lines[-1] == "[DONE]"
                found[f"{what}, streamed"] = in_one([json.loads(line) for line in lines[:-1]])
        finally:
            loop.call_soon_threadsafe(serving.stop)
            thread.join(60)
            loop.close()
    return {"answers": found, "runs": seen.runs()}


def in_one(chunks: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What the chunks of a stream say together, however it was cut into them."""
    choices = [choice for chunk in chunks for choice in chunk["choices"]]
    chances: dict[str, list[Any]] = {}
    for choice in choices:
        for name, values in (choice.get("logprobs") or {}).items():
            chances.setdefault(name, []).extend(values or [])
    return {
        "text": "".join(c.get("text") or (c.get("delta") or {}).get("content") or "" for c in choices),
        "finish": [c["finish_reason"] for c in choices if c.get("finish_reason")],
        "logprobs": chances,
    }


def embedded(*flags: str) -> Callable[[Bench], Any]:
    """A short run on the installed model."""

    def run(bench: Bench) -> Any:
        seen = command(
            "run", "--llm_name", "smollm2", "--dtype", "float32", "--latent_steps", "1", "--max_new_tokens", "4",
            *flags, "What is 17 * 6?",
        )  # fmt: skip
        return {"printed": seen.printed, "runs": seen.runs()}

    return run


@dataclass(frozen=True)
class Run:
    """One line of the record."""

    go: Callable[[Bench], Any]
    tolerance: float = DOUBLE
    embedded: bool = False


def _runs() -> dict[str, Run]:
    """All of them, by name; in the order in which they are made."""
    found: dict[str, Run] = {}

    def add(name: str, go: Callable[[Bench], Any], tolerance: float = DOUBLE, embedded: bool = False) -> None:
        assert name not in found, name
        found[name] = Run(go, tolerance, embedded)

    def after_training(name: str, go: Callable[[Bench], Any]) -> None:
        add(name, go, TRAINED)

    for topology in TOPOLOGIES:
        add(f"topology {topology}", lambda b, t=topology: b.run("--topology", t))
    for fuser in FUSERS:
        for place in ("parallel", "sequential"):
            flags = ("--topology", "full", "--fuser", fuser, "--positions", place)
            add(f"fuser {fuser}, {place}", lambda b, f=flags: b.run(*f))
    speaks = ("--topology", "layered", "--speak_tokens", "6")
    for what, flags in {
        "transfer latent": ("--topology", "layered", "--transfer", "latent"),
        "transfer context": ("--topology", "full", "--transfer", "context"),
        "transfer context, sequential": ("--topology", "debate", "--transfer", "context", "--positions", "sequential"),
        "hands text": (*speaks, "--hands", "text"),
        "hands both": (*speaks, "--hands", "both"),
        "no latent steps, the same turn": ("--latent_steps", "0", "--decision_turn", "same"),
        "drawn at a temperature": ("--topology", "debate", "--temperature", "0.8", "--seed", "3"),
        "one at a time, without lookup": (
            "--topology", "full", "--max_batch_size", "1", "--prompt_lookup", "false",
        ),
    }.items():  # fmt: skip
        add(what, lambda b, f=flags: b.run(*f))
    add("a model with biases, untied", lambda b: b.run("--topology", "full", model=b.qwen))
    add("mode hybrid", lambda b: b.asking("hybrid", "--topology", "star"))
    for hint in HINTS:
        more = ("--hands", "both", "--speak_tokens", "6") if hint == "text" else ()
        flags = ("--hint", hint, "--topology", "layered", *more)
        add(f"mode api_hint, {hint}", lambda b, f=flags: b.asking("api_hint", *f))
    for endpoint in ("completions", "chat"):
        flags = ("--embeds_endpoint", endpoint, "--topology", "star")
        add(f"mode api_embeds, {endpoint}", lambda b, f=flags: b.asking("api_embeds", *f))
    add("mode api", lambda b: b.asking("api", "--topology", "layered"))
    for link in ("auto", "text"):
        add(f"two models, link {link}", lambda b, n=link: b.run(
            "--agent_models", b.wider, b.llama, b.wider, b.llama, "--link", n, "--topology", "full",
            "--speak_tokens", "6",
        ))  # fmt: skip
    add("two models, link perceiver", perceived, SINGLE)
    after_training("train, decision", lambda b: b.train("decision", *DECISION))
    after_training("train, full", lambda b: b.train("full", *FULL))
    after_training("train, text", lambda b: b.train("text", "--hands", "text", "--speak_tokens", "5"))
    after_training("train, two rounds with edges from the one before", lambda b: b.train(
        "temporal", "--num_rounds", "2", "--optimized_temporal", "--fuser_gradient", "full", "--iterations", "2",
    ))  # fmt: skip
    after_training("train, a fixed topology in two rounds", lambda b: b.train(
        "fixed", "--topology", "star", "--num_rounds", "2", "--fuser", "relevance", "--transfer", "context",
        "--iterations", "2", "--temperature_end", "0.7",
    ))  # fmt: skip
    after_training("train, channels and latent choices", lambda b: b.train(
        "channels", "--channels", "cache", "latents", "text", "--latent_choices", "0", "2", "--speak_tokens", "4",
        "--consult_probability", "0.8", "--fuser_gradient", "full",
    ))  # fmt: skip
    after_training("train, agents that come with the questions", split_facts)
    after_training("train, hybrid", hybrid_training)
    after_training("train, two models", lambda b: b.train(
        "mixed", "--agent_models", b.wider, b.llama, b.wider, b.llama, "--iterations", "2",
    ))  # fmt: skip
    after_training("train, stopped and resumed", resumed)
    after_training("run of a checkpoint", lambda b: {
        "runs": command("run", "--checkpoint", b.trained(), "--temperature", "0.5", QUESTION).runs()
    })  # fmt: skip
    after_training("eval", evaluated)
    add("compare", compared)
    after_training("controls", controlled)
    after_training("inspect", looked_at)
    after_training("inspect a question", looked_closely)
    after_training("compare-topologies", apart)
    after_training("serve", served)
    for what, words in {
        "chain": ("--topology", "chain"),
        "full, relevance, context": (
            "--topology", "full", "--fuser", "relevance", "--transfer", "context", "--positions", "sequential",
        ),
        "star, both": ("--topology", "star", "--hands", "both", "--speak_tokens", "3"),
    }.items():  # fmt: skip
        add(f"smollm2, {what}", embedded(*words), SINGLE, True)
    return found


RUNS = _runs()


# -- the record ----------------------------------------------------------------------------------


def cleaned(value: Any, folder: Path) -> Any:
    """Without what is in `LEFT_OUT`, and without the folder's name."""
    if isinstance(value, Mapping):
        return {str(k): cleaned(v, folder) for k, v in value.items() if k not in LEFT_OUT}
    if isinstance(value, list | tuple):
        return [cleaned(each, folder) for each in value if not is_timing(each)]
    return value.replace(str(folder), "FOLDER") if isinstance(value, str) else value


def is_timing(value: Any) -> bool:
    """Whether it is a curve of seconds, or a fact such as ("seconds", "0.03")."""
    name = value.get("name") if isinstance(value, Mapping) else value[0] if isinstance(value, list) and value else ""
    return name in ("seconds", "seconds per step")


def plain(value: Any) -> Any:
    """For the record: tensors as a few numbers, numbers with `DIGITS`."""
    if isinstance(value, Mapping):
        return {name: plain(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [plain(each) for each in value]
    if isinstance(value, torch.Tensor):
        flat = value.detach().double().reshape(-1)
        some = flat[:: max(1, len(flat) // 4)][:4].tolist()
        numbers = [float(flat.sum()), float(flat.square().sum()), *some]
        return {"shape": list(value.shape), "sum, sum of squares, some": plain(numbers)}
    if isinstance(value, str) and LONG_NUMBER.search(value):
        return {"text": LONG_NUMBER.sub("#", value), "numbers": plain([*map(float, LONG_NUMBER.findall(value))])}
    return float(f"{value:.{DIGITS}g}") if isinstance(value, float) else value


def exact(value: Any) -> str:
    """SHA-256 of all bytes of a value."""
    digest = hashlib.sha256()

    def take(each: Any) -> None:
        if isinstance(each, Mapping):
            for name in sorted(each):
                digest.update(f"{name}:".encode())
                take(each[name])
        elif isinstance(each, list | tuple):
            digest.update(f"[{len(each)}".encode())
            for one in each:
                take(one)
        elif isinstance(each, torch.Tensor):
            digest.update(f"{each.dtype}{tuple(each.shape)}".encode() + each.detach().contiguous().numpy().tobytes())
        else:
            digest.update(f"{type(each).__name__} {each!r};".encode())

    take(value)
    return digest.hexdigest()


def differences(before: Any, now: Any, tolerance: float, where: str = "") -> list[str]:
    """Where two values of the record differ, in words."""
    if isinstance(before, dict) and isinstance(now, dict):
        found = [f"{where}: {sorted(before)} became {sorted(now)}"] if before.keys() != now.keys() else []
        shared = [name for name in before if name in now]
        return found + [d for n in shared for d in differences(before[n], now[n], tolerance, f"{where}/{n}")]
    if isinstance(before, list) and isinstance(now, list) and len(before) == len(now):
        pairs = enumerate(zip(before, now, strict=True))
        return [d for n, (a, b) in pairs for d in differences(a, b, tolerance, f"{where}/{n}")]
    if isinstance(before, float) and isinstance(now, float):
        same = math.isclose(before, now, rel_tol=tolerance, abs_tol=LEAST[tolerance])
        return [] if same or (math.isnan(before) and math.isnan(now)) else [f"{where}: {before} became {now}"]
    same = type(before) is type(now) and before == now
    return [] if same else [f"{where}: {str(before)[:200]!r} became {str(now)[:200]!r}"]


def machine() -> str:
    """What exact bytes depend on."""
    name = platform.processor() or platform.machine()
    with contextlib.suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        name = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), name)
    kind = torch.backends.cpu.get_cpu_capability()
    return f"{kind}, {torch.get_num_threads()} threads, torch {torch.__version__}, {name}"


@contextlib.contextmanager
def surroundings() -> Iterator[None]:
    """No proxy, no key, no hub."""
    names = [
        name for name in os.environ
        if name.lower().endswith("_proxy") or name in ("API_KEY", "DASHSCOPE_API_KEY", "OPENAI_API_KEY", "BASE_URL",
                                                       "API_MODEL", "GCACHE_SERVE_KEY")
    ]  # fmt: skip
    with mock.patch.dict(os.environ, {"HF_HUB_OFFLINE": "1"}):
        for name in names:
            del os.environ[name]
        yield


def found_by(run: Run, bench: Bench) -> tuple[Any, str]:
    """What a run found, for the record, and the digest of its bytes."""
    with surroundings():
        value = cleaned(run.go(bench), bench.folder)
    return json.loads(json.dumps(plain(value))), exact(value)


def in_lines(record: Mapping[str, Any]) -> str:
    """The record as JSON, one run a line."""
    parts = []
    for part, rows in record.items():
        lines = [f"{json.dumps(name)}: {json.dumps(row, separators=(',', ':'))}" for name, row in rows.items()]
        parts.append(f"{json.dumps(part)}: {{\n" + ",\n".join(lines) + "\n}")
    return "{\n" + ",\n".join(parts) + "\n}\n"


def read_record() -> dict[str, Any]:
    record: dict[str, Any] = json.loads(RECORD.read_text(encoding="utf-8"))
    return record


def _write(argv: Sequence[str] | None = None) -> None:
    import time

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    group = parser.add_mutually_exclusive_group(required=True)
    group.add_argument("--write", action="store_true", help="write the record anew")
    group.add_argument("--add", action="store_true", help="check the record, and add this machine's bytes")
    group.add_argument("--check", action="store_true", help="check the record, and write nothing")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--only", default="")
    args = parser.parse_args(argv)
    if args.threads:
        torch.set_num_threads(args.threads)
    record: dict[str, Any] = {"runs": {}, "bytes": {}} if args.write else read_record()
    digests: dict[str, str] = {}
    wrong = 0
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(Path(folder))
        for name, run in RUNS.items():
            if args.only not in name:
                continue
            torch.manual_seed(0)
            started, used = time.perf_counter(), time.process_time()
            found, digests[name] = found_by(run, bench)
            if args.write:
                record["runs"][name] = found
            said = differences(record["runs"][name], found, run.tolerance)
            if not said and record["bytes"].get(machine(), {}).get(name, digests[name]) != digests[name]:
                said = ["other bytes"]
            wrong += bool(said)
            took = f"{time.perf_counter() - started:6.2f} s, {time.process_time() - used:6.2f} s of processors  {name}"
            print(took, *said[:5], sep="\n    " if said else "  ")
    if wrong:
        sys.exit(f"{wrong} runs differ")
    if not args.check:
        record["bytes"][machine()] = digests
        RECORD.write_text(in_lines(record), encoding="utf-8")


if __name__ == "__main__":
    _write()
