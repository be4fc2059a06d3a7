"""What is wrong with a plug-in is said in one line, before a model is loaded; and the lists of what there is."""

from __future__ import annotations

import json
import logging
import re
from pathlib import Path

import pytest
from plugins import PARITY, REGISTRIES, fresh, install
from two_models import WORDS, ends, model_of, tokenizer_of
from without_torch import asked

from gcache.commands.main import main
from gcache.config import GraphSpec
from gcache.errors import ConfigError, PluginError
from gcache.gnn.fixed import FixedTopology
from gcache.links.negotiate import make_link
from gcache.tasks.registry import TASKS, make_task

__all__ = ["fresh"]
pytestmark = pytest.mark.usefixtures("fresh")

FUSER = "from gcache.cache.fusers.base import CacheFuser\nclass Mine(CacheFuser):\n"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def refused(capsys: pytest.CaptureFixture[str], *flags: str) -> str:
    """The line that training is refused by; there is no such model, so it is refused before one is loaded."""
    assert main(["train", "--llm_name", "nowhere", "--task", "split_facts", *flags]) == 2
    (said,) = capsys.readouterr().err.splitlines()
    return said


@pytest.mark.parametrize(
    ("flag", "text", "error"),
    [
        ("--task", None, r"no plug-in file '.*/mine\.py' \(No such file or directory\); name one that is there"),
        ("--task", "def f(:\n", r"mine\.py does not parse: line 1: invalid syntax"),
        ("--task", "x = 1\n\n1 / 0\n", r"mine\.py cannot be imported: line 3: ZeroDivisionError: division by zero"),
        ("--task", "raise SystemExit\n", r"mine\.py cannot be imported: line 1: SystemExit"),
        ("--task", "import no_such_thing\n", r"cannot be imported: line 1: ModuleNotFoundError: No module named"),
        ("--task", "class Other: pass\n", r"mine\.py has no 'Mine'; it has: Other"),
        ("--task", "x = 1\n", r"mine\.py has no 'Mine'; it has: no class or function"),
        ("--task", "Mine = 3\n", r"the task 'mine\.py:Mine' must be a class, or a function that makes a task, got int"),
        ("--task", "class Mine:\n    def train(self): ...\n", r"the task 'mine\.py:Mine' lacks test, grade"),
        ("--task", PARITY.replace("Parity:", "Mine:").replace("name, domain,", "name, of,"), "Mine' lacks domain; see"),
        ("--task", PARITY.replace("Parity:", "Mine:\n    def __init__(self, n): ..."), "needs the option 'n'; pass --"),
        ("--fuser", "class Mine: pass\n", r"is not a subclass of gcache\.cache\.fusers\.base\.CacheFuser"),
        ("--fuser", f"{FUSER}    pass\n", r"the fuser 'mine\.py:Mine' lacks merge"),
        ("--fuser", f"{FUSER}    merge = print\n    def __init__(self, depth): ...\n", "asks for depth, but a fuser i"),
        ("--topology", "Mine = 3\n", r"the topology 'mine\.py:Mine' must be a function of \(n, rng\)"),
        ("--topology", "def Mine(n): ...\n", r"cannot be called with \(n, rng\): too many positional arguments"),
        ("--topology", "class Mine: ...\n", r"the topology 'mine\.py:Mine' lacks __call__"),
        ("--anchor", "class Mine: ...\n", r"the topology 'mine\.py:Mine' lacks __call__"),
        ("--link", "class Mine: ...\n", r"the link 'mine\.py:Mine' lacks carry"),
        ("--link", "class Mine:\n    def carry(self, s): ...\n", r"cannot be called with \(sender, receiver\)"),
        ("--link", "class Mine:\n    carry = load = print\n", r"is learned, and needs its fitted file; pass it by --l"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_file_is_one_line(
    flag: str, text: str | None, error: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if text is not None:
        (folder / "mine.py").write_text(text)
    more = ["--agent_models", "smollm2"] if flag == "--link" else []
    said = refused(capsys, flag, "mine.py:Mine", *more)
    assert re.search(error, said), said


def test_a_method_is_checked_too(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "mine.py").write_text("class Mine: ...\n")
    words = ["compare", "--task", "gsm_symbolic", "--llm_name", "nowhere", "--methods", "mine.py:Mine"]
    assert main(words) == 2
    assert "the method 'mine.py:Mine' lacks answer" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["mine.py", "mine.py:"])
def test_a_file_alone_is_not_enough(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert "names a file, but nothing in it; write mine.py:NAME" in refused(capsys, "--fuser", name)


def test_an_abstract_task_says_what_it_lacks(folder: Path) -> None:
    (folder / "mine.py").write_text("from gcache.tasks.data_set import DataSet\nclass Mine(DataSet): ...\n")
    with pytest.raises(PluginError, match="lacks grade, example"):
        make_task("mine.py:Mine")


def test_edges_that_are_none_are_refused(folder: Path) -> None:
    (folder / "mine.py").write_text("def odd(n, rng): return [n]\ndef late(n, rng): return {(n, 0)}\n")
    with pytest.raises(PluginError, match=r"the topology odd must give a set of \(sender, receiver\), got \[3\]"):
        FixedTopology("mine.py:odd", 3).most_likely()
    with pytest.raises(ConfigError, match="edge"):
        FixedTopology("mine.py:late", 3).most_likely()


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("    def carry(self, states): return states\n", "the link Mine lacks name"),
        ("    name = 'me'\n    def carry(self, states): return states[:, :5]\n", r"must give \(S', 32\) .* \(2, 5\)"),
    ],
)
def test_a_link_is_tried_before_it_is_used(text: str, error: str, folder: Path) -> None:
    (folder / "mine.py").write_text(f"class Mine:\n    def __init__(self, sender, receiver): ...\n{text}")
    one = ends(model_of(len(WORDS)), tokenizer_of(WORDS), "one")
    with pytest.raises(PluginError, match=error):
        make_link("mine.py:Mine", one, one)


def test_a_file_is_run_once(folder: Path) -> None:
    (folder / "mine.py").write_text(f"open('times', 'a').write('x')\n{PARITY}")
    for _ in range(2):
        make_task("mine.py:Parity")
        make_task(str(folder / "mine.py") + ":Parity")
    assert (folder / "times").read_text() == "x"


@pytest.fixture
def packages(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Installed: one that works, one that is broken, one that shadows, and two of one name."""
    parity = {"gcache.tasks": {"parity": "parity:Parity"}}
    install(folder, "good", parity, {"parity.py": PARITY})
    install(folder, "broken", {"gcache.tasks": {"broken": "no_such_module:X"}, "gcache.fusers": {"gone": "parity:Y"}})
    install(folder, "shadow", {"gcache.tasks": {"gsm8k": "parity:Parity"}, "gcache.fusers": {"odd": "parity:Parity"}})
    install(folder, "first", {"gcache.tasks": {"twice": "parity:Parity"}})
    install(folder, "second", {"gcache.tasks": {"twice": "parity:Parity"}})
    monkeypatch.syspath_prepend(str(folder))
    return folder


def test_an_entry_point_is_a_name_like_any_other(packages: Path) -> None:
    assert make_task("parity").name == "parity" and "parity" in TASKS
    assert [name for name in TASKS if name not in TASKS.built_in] == ["broken", "parity", "twice"]
    with pytest.raises(ConfigError, match=r"unknown task 'parities'; choose one of: .*parity, "):
        make_task("parities")


@pytest.mark.parametrize(
    ("what", "name", "error"),
    [
        ("task", "broken", r"the task 'broken' of the package broken 1\.0 cannot be imported \(ModuleNotFoundError: "),
        ("fuser", "gone", r"the fuser 'gone' of the package broken 1\.0 cannot be imported \(AttributeError: module"),
        ("fuser", "odd", r"the fuser 'odd' is not a subclass of"),
        ("task", "twice", "several packages have a task 'twice': first 1.0 and second 1.0; uninstall all but one"),
    ],
)
def test_a_broken_entry_point_is_an_error_only_where_it_is_named(
    packages: Path, what: str, name: str, error: str
) -> None:
    make_task("parity"), GraphSpec(fuser="concat")
    with pytest.raises(PluginError, match=error) as caught:
        make_task(name) if what == "task" else GraphSpec(fuser=name)
    assert "\n" not in str(caught.value)


def test_a_built_in_name_cannot_be_taken(packages: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            assert type(make_task("gsm8k")).__name__ == "Gsm8k"
    (said,) = [record.getMessage() for record in caplog.records]
    assert said == "the task 'gsm8k' of the package shadow 1.0 is left out: that name is built in"


@pytest.mark.parametrize("command", REGISTRIES)
def test_everything_is_listed_with_a_sentence(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([command]) == 0
    rows = capsys.readouterr().out.splitlines()
    names = [row.split()[0] for row in rows]
    assert names[: len(REGISTRIES[command].built_in)] == list(REGISTRIES[command].built_in)
    for row in rows:
        sentence = row.partition("  built in  ")[2]
        assert sentence.strip().endswith(".") and len(sentence.split()) > 2, row


def test_what_packages_bring_is_listed_be_it_broken(packages: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["tasks", "--json"]) == 0
    rows = {row["name"]: row for row in json.loads(capsys.readouterr().out)}
    assert rows["parity"] == {
        "name": "parity", "text": "Questions that take an answer of even length.", "origin": "good 1.0", "usable": True
    }  # fmt: skip
    assert not rows["broken"]["usable"] and "ModuleNotFoundError" in rows["broken"]["text"]
    assert rows["twice"]["origin"] == "first 1.0 and second 1.0" and not rows["twice"]["usable"]
    assert rows["gsm8k"]["origin"] == "built in"


@pytest.mark.parametrize("command", ["tasks", "topologies"])
def test_tasks_and_topologies_are_listed_without_torch(command: str) -> None:
    done = asked(command)
    assert (done.returncode, done.stderr) == (0, "")


def test_help_does_not_look_for_packages(packages: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(**_: object) -> None:
        raise AssertionError("packages were looked for")

    monkeypatch.setattr("importlib.metadata.entry_points", never)
    for words in (["--help"], ["train", "--help"], ["tasks", "--help"]):
        with pytest.raises(SystemExit) as ended:
            main(words)
        assert ended.value.code == 0
    with pytest.raises(AssertionError, match="looked for"):  # the test can fail
        make_task("parity")
