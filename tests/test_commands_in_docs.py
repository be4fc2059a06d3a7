"""Every command that README and docs show is one that the command line takes, and runs.

They run as they are written, with smaller numbers behind them (what a flag says last holds), on tiny models and on
files of the forms that a reader has to bring.
"""

from __future__ import annotations

import argparse
import json
import re
import shlex
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from chat_server import says, serving
from conftest import CHAT_TEMPLATE
from two_models import MANY_WORDS, model_of, tokenizer_of

from gcache.commands.main import COMMANDS, main, parser

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]


def in_blocks(page: Path) -> list[list[str]]:
    """Commands in blocks of code, over one line or several, and whole table cells, as words."""
    text = re.sub(r"\\\n\s*", "", page.read_text(encoding="utf-8"))
    found = re.findall(r"(?m)^(?:    )?(?:\.venv/bin/)?(gcache .*)$|\| `(gcache [^`]*)` \|$", text)
    lines = (re.sub(r"\s+# .*$|\s*[>&;].*$", "", block or cell) for block, cell in found)
    split = (shlex.split(line.replace("SEED", "0").replace("PRICE", "0"))[1:] for line in lines if "..." not in line)
    return [words for words in split if words[0] in COMMANDS and "--help" not in words]


def in_sentences(page: Path) -> list[list[str]]:
    """Those in backticks, which may be a part of a command."""
    spans = re.findall(r"`(gcache [^`]+)`", page.read_text(encoding="utf-8"))
    return [words for span in spans if (words := span.split()[1:]) and words[0] in COMMANDS]


def flags_of(command: str) -> set[str]:
    (subparsers,) = [a for a in parser([command])._actions if isinstance(a, argparse._SubParsersAction)]
    return {flag for action in subparsers.choices[command]._actions for flag in action.option_strings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_command_can_be_read(page: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for words in in_blocks(page):
        try:
            parser([words[0]]).parse_args(words)
        except SystemExit:
            pytest.fail(f"{' '.join(words)}: {capsys.readouterr().err}")
    for words in in_sentences(page):
        unknown = {word for word in words[1:] if word.startswith("--")} - flags_of(words[0])
        assert not unknown, " ".join(words)


def test_there_are_some() -> None:
    found = [words[0] for page in PAGES for words in in_blocks(page)]
    assert set(COMMANDS) <= {*found, "fit-router"} and len(found) > 40


# -- they run --------------------------------------------------------------------------------------

#: Commands that cannot be run to their end here, and where they are run.
ELSEWHERE = {
    "serve": "it runs until it is stopped: tests/commands/test_serve.py",
    "fit-router": "it reads nine files of data: tests/links/test_router.py",
}
#: Pages whose commands are about files that the page itself shows, and where they are run.
OF_THEIR_OWN = {"extending.md": "tests/test_plugins.py"}
#: What holds instead of what a page says; the first of these where a command has them, the others where it is written.
SMALL = {
    "--limit": "4", "--iterations": "1", "--batch_size": "2", "--rollouts": "2", "--encoder": "hash", "--steps": "1",
}  # fmt: skip
SMALL_TEXTS = {"--max_new_tokens": "3", "--speak_tokens": "3", "--reason_tokens": "3", "--latent_steps": "1"}
SMALL_WHERE_WRITTEN = {**SMALL, **SMALL_TEXTS, "--report": "2", "--cuts": "2"}
#: Commands about a graph that was trained, which has its own model.
OF_A_RUN = ("controls", "inspect", "curves", "compare-topologies")


def shortened(words: Sequence[str], model: Path, other: Path, url: str) -> list[str]:
    """A command as a page has it, with small numbers, tiny models and our own server behind it."""
    takes, done = flags_of(words[0]), list(words)
    for number, word in enumerate(done):
        named = {"NAME": "toy", "URL": url, "smollm2": str(model), "MODEL.gguf": str(other)}
        done[number] = str(other) if word.endswith("-q4_k_m.gguf") else named.get(word, word)
    has_own = words[0] in OF_A_RUN or "--checkpoint" in words
    more = {flag: value for flag, value in SMALL_WHERE_WRITTEN.items() if flag in words and words[0] != "inspect"}
    more |= {flag: value for flag, value in SMALL.items() if flag in takes and not has_own}
    if not has_own and words[0] in ("train", "run", "compare", "fit-perceiver"):
        more |= {flag: value for flag, value in SMALL_TEXTS.items() if flag in takes} | {"--llm_name": str(model)}
    if "--limit" in takes:
        more["--limit"] = "4"
    if "reasoning" not in words:  # `compare` refuses what none of its methods heeds
        more.pop("--reason_tokens", None)
    if words[0] == "fit-perceiver":
        more |= {"--held_out": "1"}
    if words[0] == "read" and "--task" not in words:  # documents have no limit
        more.pop("--limit")
    options = [part for flag, value in more.items() for part in (flag, value)]
    # before the words of a question, which stand last and without a flag
    return [*done[:-1], *options, done[-1]] if words[0] == "run" else [*done, *options]


def write_data(folder: Path) -> None:
    """Files that a reader brings, in the forms of their tasks."""
    sums = [{"question": f"Tom has {n} red pens. He buys 3. How many?", "answer": f"#### {n + 3}"} for n in range(40)]
    for name in ("train.jsonl", "test.jsonl"):
        (folder / name).write_text("".join(json.dumps(row) + "\n" for row in sums))
    choices = [{"question": f"q {n}", "options": {"A": "x", "B": "y"}, "answer_idx": "A"} for n in range(9)]
    (folder / "medqa.json").write_text("".join(json.dumps(row) + "\n" for row in choices))
    documents = [{"title": f"Box {n}", "text": f"The box {n} has {n} red pens."} for n in range(4)]
    (folder / "documents.jsonl").write_text("".join(json.dumps(row) + "\n" for row in documents))
    context = [[each["title"], [each["text"]]] for each in documents]
    asked = [
        {"question": f"Pens of box {n}?", "answer": str(n), "context": context, "supporting_facts": [[f"Box {n}", 0]]}
        for n in range(4)
    ]
    for name in ("hotpotqa.jsonl", "hotpotqa-train.jsonl"):
        (folder / name).write_text("".join(json.dumps(row) + "\n" for row in asked))
    rows = [f"my card {n} {kind},kind {kind}" for kind in range(24) for n in range(4)]
    (folder / "train.csv").write_text("\n".join(["text,category", *rows]) + "\n")


def another_model(folder: Path) -> Path:
    """A second model, of other weights and another tokenizer."""
    tokenizer = tokenizer_of(MANY_WORDS)
    tokenizer.chat_template = CHAT_TEMPLATE
    tokenizer.save_pretrained(folder)
    model_of(160, seed=2).save_pretrained(folder)
    return folder


def train_before(model: Path) -> None:
    """The runs that pages speak of and do not train themselves."""
    tiny = ["--llm_name", str(model), "--latent_steps", "0", "--encoder", "hash", "--iterations", "1"]
    small = ["--batch_size", "2", "--rollouts", "2", "--max_new_tokens", "3"]
    for name in ("split_facts", "seed0", "seed1"):
        assert main(["train", "--task", "split_facts", *tiny, *small, "--out", f"runs/{name}"]) == 0
    assert main(["train", "--task", "gsm8k", "--data", "train.jsonl", *tiny, *small, "--out", "runs/gsm8k"]) == 0


@pytest.fixture
def folder(tmp_path: Path, model_folder: Path, monkeypatch: pytest.MonkeyPatch, own_home: None) -> Iterator[Path]:
    """What a reader stands in."""
    monkeypatch.setenv("API_KEY", "sk-of-nobody")
    monkeypatch.chdir(tmp_path)
    write_data(tmp_path)
    train_before(model_folder)
    yield tmp_path


@pytest.mark.parametrize(
    "page", [page for page in PAGES if page.name not in OF_THEIR_OWN and in_blocks(page)], ids=lambda page: page.name
)
def test_every_command_runs(
    page: Path, folder: Path, model_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = another_model(folder / "other")
    commands = [words for words in in_blocks(page) if words[0] not in ELSEWHERE]
    with serving(says("#### 5")) as server:
        for words in sorted(commands, key=lambda words: "--start" in words):  # of what others of the page write
            if words[0] == "train" and "--out" in words:  # another section's run may be there
                shutil.rmtree(words[words.index("--out") + 1], ignore_errors=True)
            asked = shortened(words, model_folder, other, server.base_url)
            capsys.readouterr()
            code = main(asked)
            assert code == 0, f"{' '.join(words)}\nas {' '.join(asked)}\n{capsys.readouterr().err}"
