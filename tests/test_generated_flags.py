"""Flags that are made from records: what a field says is what `--help` shows and what a command takes."""

from __future__ import annotations

import argparse
import dataclasses
from dataclasses import dataclass
from typing import Any

import pytest

from gcache.cache.fusers.registry import FUSERS
from gcache.commands import flags
from gcache.commands.api_flags import API_FLAGS, add_api_flags
from gcache.commands.console import OneLineParser
from gcache.commands.main import COMMANDS, main, parser
from gcache.config import GraphSpec, TaskSpec
from gcache.errors import ConfigError
from gcache.evaluation.methods import METHODS, MethodSettings
from gcache.gnn.fixed import TOPOLOGIES
from gcache.graph.run_config import GraphConfig
from gcache.graph.writers.hints import HINTS
from gcache.links.perceiver_config import PerceiverConfig
from gcache.llm.api.settings import ApiSettings
from gcache.llm.cache_budget import Limits
from gcache.runtime.settings import Settings, current_names, flag_of, former_names, kind_of, setting, settings_of
from gcache.serve.settings import ServeSettings
from gcache.tasks.registry import TASKS
from gcache.training.config import FitConfig, TrainConfig

#: Command -> the records that it makes whole, and fields of these that it has no flag for.
WHOLE: dict[str, dict[type, set[str]]] = {
    "train": {
        GraphSpec: {"domain"},  # the task says which
        GraphConfig: set(), TrainConfig: set(), Limits: set(), ApiSettings: set(), TaskSpec: set(),
    },
    "compare": {MethodSettings: set(), Limits: set(), TaskSpec: set()},
    "eval": {MethodSettings: set(), Limits: set(), ApiSettings: set(), TaskSpec: set()},
    "controls": {Limits: set(), ApiSettings: set(), TaskSpec: set()},
    "inspect": {Limits: set(), ApiSettings: set(), TaskSpec: set()},
    "run": {GraphConfig: {"num_rounds"}, Limits: set(), ApiSettings: set()},
    "serve": {GraphConfig: {"num_rounds"}, Limits: set(), ApiSettings: set(), ServeSettings: set()},
    "fit-perceiver": {FitConfig: set(), PerceiverConfig: set(), GraphConfig: {"num_rounds"}, Limits: set()},
}
RECORDS = sorted({record for records in WHOLE.values() for record in records}, key=lambda record: record.__name__)


def command(name: str) -> argparse.ArgumentParser:
    """The parser of a command."""
    (found,) = [a for a in parser([name])._actions if isinstance(a, argparse._SubParsersAction)]
    made: argparse.ArgumentParser = found.choices[name]
    return made


def shown(made: argparse.ArgumentParser) -> str:
    """A help text without its line breaks."""
    return " ".join(made.format_help().split())


@pytest.mark.parametrize("name", WHOLE)
def test_a_command_has_every_field_of_the_records_that_it_makes(name: str) -> None:
    made = command(name)
    names = {flag for action in made._actions for flag in action.option_strings}
    for record, without in WHOLE[name].items():
        for field, _ in settings_of(record):
            assert (f"--{flag_of(field)}" in names) == (field.name not in without), (record.__name__, field.name)


@pytest.mark.parametrize("name", WHOLE)
def test_help_shows_what_the_field_says_and_its_default(name: str) -> None:
    made = command(name)
    text, actions = shown(made), {action.dest: action for action in made._actions}
    assert isinstance(made, OneLineParser) and made.made_from
    for flag, (record, field) in made.made_from.items():
        ((_, about),) = [pair for pair in settings_of(record) if pair[0].name == field]
        assert about.help and " ".join(about.help.split()) in text, flag
        assert all(each in str(actions[flag].help) for each in about.names), flag
        assert actions[flag].required or "(default: " in str(actions[flag].help), flag


def test_a_field_that_is_added_to_a_record_is_a_flag() -> None:
    @dataclass(frozen=True)
    class More(Limits):
        most_sheep: int = setting(7, help="the most sheep that are counted", group="limits", at_least=1)
        shepherds: tuple[str, ...] = setting((), help="who counts them", group="limits", unset="nobody")

    made = OneLineParser()
    flags.add(made, More)
    assert "the most sheep that are counted (default: 7)" in shown(made)
    assert "who counts them (default: nobody)" in shown(made)
    args = made.parse_args(["--most_sheep", "3", "--shepherds", "Ann", "Bo", "--pack_weights", "false"])
    assert flags.make(More, args) == More(most_sheep=3, shepherds=("Ann", "Bo"), pack_weights=False)
    with pytest.raises(ConfigError, match=r"^most_sheep must be 1 or more, got 0$"):
        flags.make(More, made.parse_args(["--most_sheep", "0"]))


def test_a_new_entry_of_a_registry_is_shown_and_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    for registry in (FUSERS, TOPOLOGIES, TASKS):
        monkeypatch.setattr(registry, "built_in", {**registry.built_in, "brand_new": None})
    monkeypatch.setitem(HINTS, "brand_new", None)  # type: ignore[arg-type]
    monkeypatch.setattr(METHODS, "built_in", {**METHODS.built_in, "brand_new_method": None})
    text = shown(command("train"))
    for flag in ("--fuser", "--topology", "--task", "--hint", "--anchor"):
        start = text.index(f" {flag} ", text.index("show this help"))
        assert "brand_new" in text[start : text.index("(default" if flag != "--task" else "--data", start)], flag
    assert "brand_new_method" in shown(command("compare"))
    assert GraphSpec(fuser="brand_new").fuser == "brand_new"


def test_no_command_knows_names_by_heart(capsys: pytest.CaptureFixture[str]) -> None:
    """The record refuses what is unknown, by the registry as it is now; argparse would by what it was."""
    for name in COMMANDS:
        made = command(name)
        assert not [action.dest for action in made._actions if action.choices and action.dest != "format"], name


def test_a_command_may_have_another_default() -> None:
    made = OneLineParser()
    flags.add(made, GraphSpec, "topology", "api_model", topology="chain", api_model=flags.Default("x", "the letter x"))
    args = made.parse_args([])
    assert (args.topology, args.api_model) == ("chain", "x")
    assert "(default: chain)" in shown(made) and "(default: the letter x)" in shown(made)
    with pytest.raises(AssertionError, match="has no flags fuser"):
        flags.add(OneLineParser(), GraphSpec, "topology", fuser="first")


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: record.__name__)
def test_the_flags_of_a_record_give_its_defaults(record: type) -> None:
    made = OneLineParser()
    flags.add(made, record, *(field.name for field, _ in settings_of(record)))
    needed = {
        field.name: "x" for field in dataclasses.fields(record)
        if field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
    }  # fmt: skip
    needed |= {"max_new_tokens": 5} if record is MethodSettings else {}
    needed |= {"base_url": "http://x/v1"} if record is ApiSettings else {}
    assert flags.make(record, made.parse_args([]), **needed) == record(**needed)


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: record.__name__)
def test_every_field_of_a_record_is_documented(record: type) -> None:
    for field, about in settings_of(record):
        assert about.help and not about.help.endswith("."), field.name
        assert kind_of(record, field.name)[0] in (int, float, str, bool), field.name
        assert all(isinstance(name, str) for name in about.names)


# -- bounds ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Bounded(Settings):
    """One field of each kind."""

    count: int = setting(1, help="a count", at_least=1)
    share: float = setting(0.5, help="a share", above=0, below=1)
    part: float = setting(0.5, help="a part", at_least=0, below=1)
    door: int = setting(0, help="a door", at_least=0, at_most=9)
    price: float = setting(0.0, help="a price", at_least=0)
    wait: float | None = setting(None, help="a wait", above=0, unit="seconds", unset="ever")
    most: int = setting(0, help="a most", at_most=9)
    rest: float = setting(0.5, help="a rest", above=0, at_most=1)
    calm: float = setting(0.0, help="a calm", at_least=0, unit="seconds")
    names: tuple[str, ...] = setting((), help="some names", choices=("a", "b"), also=("c",), what="name", was="called")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"count": 0}, "count must be 1 or more, got 0"), ({"count": 1.5}, "count must be 1 or more, got 1.5"),
        ({"count": True}, "count must be 1 or more, got True"), ({"count": "2"}, "count must be 1 or more, got '2'"),
        ({"share": 0.0}, "share must be between 0 and 1, both excluded, got 0.0"),
        ({"share": 1}, "share must be between 0 and 1, both excluded, got 1"),
        ({"part": 1.0}, "part must be from 0 to below 1, got 1.0"), ({"door": 10}, "door must be from 0 to 9, got 10"),
        ({"price": -1.0}, "price must be a finite number of 0 or more, got -1.0"),
        ({"price": float("inf")}, "price must be a finite number of 0 or more, got inf"),
        ({"wait": 0.0}, "wait must be a finite number of seconds above 0, got 0.0; leave it out for ever"),
        ({"most": 10}, "most must be at most 9, got 10"),
        ({"rest": 2.0}, "rest must be a finite number above 0 and at most 1, got 2.0"),
        ({"calm": float("nan")}, "calm must be a finite number of seconds, 0 or more, got nan"),
        ({"names": ("a", "d")}, "unknown name 'd'; choose one of: a, b, c"),
        ({"called": ("a",)}, "called of a Bounded is called names now; pass that"),
    ],
)  # fmt: skip
def test_a_field_that_is_out_of_bounds_is_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Bounded(**values)
    assert str(caught.value) == message


def test_fields_within_their_bounds_are_taken() -> None:
    made = Bounded(9, 0.99, 0.0, 9, 0, 0.1, -5, 1, 0.0, ("c", "a"))
    assert dataclasses.replace(made, wait=None) == Bounded(9, 0.99, 0.0, 9, 0, None, -5, 1, 0.0, ("c", "a"))


def test_former_names_are_read_and_written() -> None:
    assert current_names(Bounded, {"called": ["a"], "count": 2}) == {"names": ["a"], "count": 2}
    assert former_names(Bounded, {"names": ["a"], "count": 2}) == {"called": ["a"], "count": 2}
    with pytest.raises(ConfigError, match="called is the former name of names, and both are given"):
        current_names(Bounded, {"called": ["a"], "names": ["a"]})


@pytest.mark.parametrize(
    ("record", "old", "value", "new"),
    [
        (GraphSpec, "temporal", True, "optimized_temporal"), (GraphSpec, "link_files", (), "link_file"),
        (GraphSpec, "agent_quantizations", (), "agent_quantization"), (GraphConfig, "rounds", 2, "num_rounds"),
        (TrainConfig, "gradient", "full", "fuser_gradient"), (TrainConfig, "train_limit", 4, "limit"),
    ],
)  # fmt: skip
def test_whoever_passes_a_former_name_is_told_the_new_one(record: Any, old: str, value: Any, new: str) -> None:
    with pytest.raises(ConfigError, match=f"^{old} of a {record.__name__} is called {new} now; pass that$"):
        record(**{old: value})


# -- flags that would change nothing -----------------------------------------------------------------


def said(capsys: pytest.CaptureFixture[str], *argv: str) -> str:
    """The one line of a refused command."""
    capsys.readouterr()
    try:
        code = main(argv)
    except SystemExit as exit_:
        code = int(exit_.code or 0)
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("gcache")]
    assert code == 2
    return line


@pytest.mark.parametrize(
    "more", [["--api_model", "m"], ["--api_option", "top_p=1"], ["--api_retries", "2"], ["--hint", "lens"]]
)
def test_flags_of_an_api_are_refused_where_the_local_model_writes(
    capsys: pytest.CaptureFixture[str], more: list[str]
) -> None:
    for asked in (["run", "What is 2 + 3?"], ["train", "--task", "split_facts"], ["serve"]):
        line = said(capsys, *asked, *more)
        assert f"{more[0]}: the local model writes" in line and "--generation_mode" in line, asked


@pytest.mark.parametrize(
    ("argv", "near"),
    [
        (["run", "What is 2 + 3?", "--latent_step", "3"], "--latent_steps"), (["train", "--tsk", "x"], ""),
        (["train", "--task", "split_facts", "--iteration=3"], "--iterations"),
        (["curves", "runs", "--titel", "x"], "--title"), (["run", "q", "--qqqqqqqq"], ""),
    ],
)  # fmt: skip
def test_a_flag_that_is_cut_short_or_misspelled_is_refused_and_the_nearest_named(
    capsys: pytest.CaptureFixture[str], argv: list[str], near: str
) -> None:
    line = said(capsys, *argv)
    assert (f"did you mean {near}?" in line) if near else ("did you mean" not in line)


def test_what_says_how_an_api_is_asked_is_what_its_flags_are() -> None:
    made = OneLineParser()
    add_api_flags(made, modes=False)
    assert {action.dest for action in made._actions} - {"help", "config", "on_error"} == set(API_FLAGS)
