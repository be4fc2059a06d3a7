"""What tests/real_clients.sh runs: a served small graph, other people's clients, and lm-evaluation-harness."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import harness_checks
from real_vllm import Checks, expect
from server_processes import free_port, running

#: A name with a slash, as those of a hub are.
NAME, KEY = "gcache/small", "key-of-the-test"
SCRIPTS = Path(__file__).parent / "clients"
#: Tokens of an answer; questions of GSM8K that both `gcache eval` and the harness ask, and as many sums.
MOST, QUESTIONS = 96, 16
SECONDS = 1500
#: The tests of openai-python's own suite that ask a model for a text, or for a model.
OPENAI_TESTS = ("test_models.py", "test_completions.py", "chat/test_completions.py")
OPENAI_ASKED = "create or ((retrieve or list) and (TestModels or TestAsyncModels))"


@dataclass(frozen=True)
class AdmissionQueue:
    """Where everything is.

    Attributes:
        home: of the clients' environments.
        work: of what this run makes.
    """

    home: Path
    gsm8k: Path
    work: Path

    def python(self, name: str) -> str:
        return str(self.home / name / "bin" / "python")


def command(*args: str, cwd: Path | None = None, **extra: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "DO_NOT_TRACK": "1", **extra}
    return subprocess.run(args, cwd=cwd, env=environment, capture_output=True, text=True, timeout=SECONDS)


def gcache(*args: str) -> str:
    """A command of ours; what it printed."""
    done = command(sys.executable, "-m", "gcache.commands.main", *args)
    expect(done.returncode == 0, done.stderr[-500:])
    return done.stdout


def versions(places: AdmissionQueue) -> None:
    """A line for each client, by what is installed."""
    for name, packages in (
        ("openai", ("openai",)), ("langchain", ("langchain-openai", "langchain-tests")), ("litellm", ("litellm",)),
        ("llama_index", ("llama-index-llms-openai-like",)), ("harness", ("lm-eval", "datasets", "transformers")),
    ):  # fmt: skip
        words = f"from importlib.metadata import version; print(*(f'{{p}} {{version(p)}}' for p in {packages}))"
        print(f"{name}: {command(places.python(name), '-c', words).stdout.strip()}", flush=True)
    listed = command("npm", "ls", "--depth=0", cwd=places.home / "node").stdout
    print("ai sdk:", *re.findall(r"(\S+@[\d.]+)$", listed, re.MULTILINE), flush=True)


def script(checks: Checks, title: str, *args: str, cwd: Path | None = None) -> None:
    """A script of one client; each of its lines is a check."""
    done = command(*args, cwd=cwd, LITELLM_LOCAL_MODEL_COST_MAP="True")
    lines = [line for line in done.stdout.splitlines() if line.startswith(("ok ", "failed "))]
    for line in lines:
        outcome, _, said = line.partition(" ")
        checks.ok += outcome == "ok"
        checks.failed += outcome == "failed"
        print(f"{outcome:6}  {title}: {said.strip()}", flush=True)
    checks.run(f"{title}: the script ends well", lambda: _ended(done, bool(lines)))


def _ended(done: subprocess.CompletedProcess[str], said: bool) -> str:
    expect(done.returncode == 0 and said, f"exit code {done.returncode}: {done.stderr[-300:]}")
    return "exit code 0"


def suite(done: subprocess.CompletedProcess[str], refused: str = "") -> str:
    """What pytest says of a suite; `refused`: a pattern of tests that send what is refused by name."""
    last = done.stdout.strip().splitlines()[-1]
    failed = re.findall(r"^FAILED (\S+)", done.stdout, re.MULTILINE)
    others = [test for test in failed if not (refused and re.search(refused, test))]
    expect(" passed" in last and not others, f"{last}; {others[:5]} {done.stderr[-200:]}")
    return f"{last}; failed are {len(failed)} that send what is refused" if failed else last


def langchain_suite(places: AdmissionQueue, url: str) -> str:
    copy = places.work / "langchain" / "test_served.py"
    copy.parent.mkdir()
    shutil.copy(SCRIPTS / "langchain_suite.py", copy)
    loop = [f"asyncio_default_{what}_loop_scope=session" for what in ("test", "fixture")]  # clients keep connections
    options = [word for option in ["asyncio_mode=auto", *loop] for word in ("-o", option)]
    return suite(
        command(
            places.python("langchain"), "-m", "pytest", "-q", "-p", "no:cacheprovider", *options, copy.name,
            cwd=copy.parent, SERVED_URL=url, SERVED_NAME=NAME,
        )
    )  # fmt: skip


def openai_suite(places: AdmissionQueue, url: str) -> str:
    """openai-python's own tests, with our model's name and key in the place of theirs."""
    source = places.work / "openai"
    shutil.copytree(places.home / "openai-source", source)
    folder = source / "tests" / "api_resources"
    common = source / "tests" / "conftest.py"
    common.write_text(common.read_text().replace('"My API Key"', f'"{KEY}"'))
    for name in OPENAI_TESTS:
        path = folder / name
        path.write_text(re.sub(r'"gpt-[^"]+"', f'"{NAME}"', path.read_text()))
    done = command(
        places.python("openai"), "-m", "pytest", "-q", "-o", "addopts=", "-p", "no:cacheprovider", "--tb=no",
        *(str(folder / name) for name in OPENAI_TESTS), "-k", OPENAI_ASKED, cwd=source, TEST_API_BASE_URL=url,
    )  # fmt: skip
    return suite(done, "with_all_params")


def clients(checks: Checks, places: AdmissionQueue, url: str) -> None:
    for title, environment, name in (
        ("openai-python", "openai", "openai_client"), ("langchain-openai", "langchain", "langchain_client"),
        ("litellm", "litellm", "litellm_client"), ("llama-index", "llama_index", "llama_index_client"),
    ):  # fmt: skip
        script(checks, title, places.python(environment), str(SCRIPTS / f"{name}.py"), url, NAME)
    shutil.copy(SCRIPTS / "ai_sdk.mjs", places.home / "node")
    script(checks, "ai sdk", "node", "ai_sdk.mjs", url, NAME, cwd=places.home / "node")
    checks.run("langchain-tests, ChatModelIntegrationTests", lambda: langchain_suite(places, url))
    checks.run("openai-python, its own tests of texts and models", lambda: openai_suite(places, url))


def main() -> int:
    home, gsm8k = Path(sys.argv[1]), Path(sys.argv[2])
    checks = Checks()
    with tempfile.TemporaryDirectory() as folder:
        places = AdmissionQueue(home, gsm8k, Path(folder))
        versions(places)
        graph = places.work / "graph"
        gcache(
            "train", "--task", "gsm8k", "--data", str(gsm8k / "train.jsonl"), "--out", str(graph),
            "--topology", "chain", "--fuser", "relevance", "--iterations", "1", "--batch_size", "1",
            "--rollouts", "2", "--limit", "2", "--dtype", "float32", "--max_new_tokens", str(MOST),
        )  # fmt: skip
        port = free_port()
        serve = [sys.executable, "-m", "gcache.commands.main", "serve", str(graph), "--name", NAME, "--port", str(port)]
        with running(serve, port, "/ready", {"GCACHE_SERVE_KEY": KEY}) as server:
            harness = harness_checks.Harness(
                home / "harness" / "bin" / "lm_eval", places.work, f"{server.url}/v1", NAME, KEY
            )
            clients(checks, places, f"{server.url}/v1")
            questions = harness.questions(gsm8k / "test.jsonl", QUESTIONS)
            harness_checks.loglikelihoods(checks, harness)
            texts = harness_checks.texts(checks, harness, MOST)
        report = places.work / "eval.json"
        gcache(
            "eval", "--checkpoint", str(graph), "--task", "gsm8k", "--data", str(questions), "--task_option",
            "whole_file=true", "--limit", str(2 * QUESTIONS), "--accept_last_number", "--json", str(report),
        )  # fmt: skip
        harness_checks.compared(checks, texts, report, questions)
    print(f"{checks.ok} ok, {checks.failed} failed")
    return 1 if checks.failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
