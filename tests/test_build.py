"""Models of agents by name: loaded once, linked, and kept with a checkpoint."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import CHAT_TEMPLATE
from two_models import MANY_WORDS, model_of, tokenizer_of

from gcache import build as build_module
from gcache.build import Built, build
from gcache.commands.controls import control_checkpoint
from gcache.commands.main import main
from gcache.config import GraphSpec, TaskSpec
from gcache.errors import CheckpointError, ConfigError, GcacheError
from gcache.graph.cache_graph import CacheGraph
from gcache.graph.run_config import GraphConfig
from gcache.llm.cache_budget import Limits
from gcache.training import checkpoint as checkpoints

pytestmark = pytest.mark.usefixtures("own_home")

OTHERS = (*MANY_WORDS[:20], *(f"none{n}" for n in range(140)))


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Folders of models: two of one tokenizer, one of the same words under other numbers, one of other words."""
    found: dict[str, str] = {}
    words = {"big": MANY_WORDS, "small": MANY_WORDS, "turned": tuple(reversed(MANY_WORDS)), "other": OTHERS}
    for number, (name, its) in enumerate(words.items()):
        folder = tmp_path_factory.mktemp(name)
        width = {"hidden_size": 48, "head_dim": 12} if name == "big" else {}
        model_of(160, seed=number, **width).save_pretrained(folder)
        tokenizer = tokenizer_of(its)
        tokenizer.chat_template = CHAT_TEMPLATE
        tokenizer.save_pretrained(folder)
        found[name] = str(folder)
    return found


def made(folders: dict[str, str], *agents: str, llm: str = "big", **settings: Any) -> Built:
    names = tuple(folders[name] for name in agents)
    options: dict[str, Any] = {"topology": "chain", "dtype": "float32", "encoder": "hash", **settings}
    config = GraphConfig(latent_steps=1, max_new_tokens=4)
    return build(GraphSpec(llm_name=folders[llm], agent_models=names, graph=options.pop("graph", config), **options))


def links(built: Built) -> dict[tuple[int, int], str]:
    assert isinstance(built.graph, CacheGraph)
    return {pair: "text" if link is None else link.name for pair, link in built.graph.agent_models.links.items()}


def test_each_model_is_loaded_once(folders: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    names: list[str] = []
    real = build_module.load_model
    monkeypatch.setattr(build_module, "load_model", lambda *a: names.append(a[0]) or real(*a))
    built = made(folders, "small", "big", "small", "turned")
    assert isinstance(built.graph, CacheGraph)
    assert [Path(name).name for name in names] == [Path(folders[n]).name for n in ("big", "small", "turned")]
    assert built.graph.agent_models.on == (1, 0, 1, 2)
    assert links(built) == {
        (0, 1): "vocab", (1, 0): "vocab", (0, 2): "overlap", (2, 0): "overlap", (1, 2): "overlap", (2, 1): "overlap",
    }  # fmt: skip
    assert built.fingerprint.count("+") == 2
    answer = built.graph.run("what is 2 + 3")
    assert set(answer.edge_bytes) == {(0, 1), (1, 2), (2, 3), (3, 4)}


def test_one_name_is_for_all_agents(folders: dict[str, str]) -> None:
    built = made(folders, "small")
    assert isinstance(built.graph, CacheGraph)
    assert built.graph.agent_models.numbers(4) == (1, 1, 1, 1, 0)


def test_the_same_weights_under_another_name_are_no_other_model(folders: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(folders["big"])
    built = made({**folders, "again": str(tmp_path / "link")}, "again")
    assert isinstance(built.graph, CacheGraph)
    assert not built.graph.is_mixed and "+" not in built.fingerprint


def test_the_same_weights_in_another_quantization_are_another_model(
    folders: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    real = build_module.load_model
    monkeypatch.setattr(build_module, "load_model", lambda name, *_: real(name, "float32"))
    built = made(folders, "big", "big", "big", "big", agent_quantization=("none", "8bit", "none", "8bit"))
    assert isinstance(built.graph, CacheGraph)
    assert built.graph.agent_models.on == (0, 1, 0, 1)
    assert links(built) == {(0, 1): "vocab", (1, 0): "vocab"}
    first, second = built.graph.agent_models.fingerprints
    assert second == f"{first}/8bit"
    assert set(built.graph.run("what is 2 + 3").edge_bytes) == {(0, 1), (1, 2), (2, 3), (3, 4)}


@pytest.mark.parametrize(
    ("other", "link", "error"),
    [
        ("turned", "vocab", "the link vocab needs one tokenizer"),
        ("other", "overlap", "needs 100 tokens that both tokenizers have.*20 in common"),
        ("small", "perceiver", "needs its fitted file"),
        ("small", "telepathy", "unknown link 'telepathy'"),
    ],
)
def test_a_forced_link_that_the_pair_does_not_allow(folders: dict[str, str], other: str, link: str, error: str) -> None:
    with pytest.raises(ConfigError, match=error) as caught:
        made(folders, other, link=link)
    assert "\n" not in str(caught.value)


def test_without_a_link_words_go(folders: dict[str, str]) -> None:
    assert set(links(made(folders, "other")).values()) == {"text"}
    assert set(links(made(folders, "small", link="text")).values()) == {"text"}


@pytest.mark.parametrize(
    ("settings", "error"),
    [
        ({"agents": ("small", "small")}, "there are 4 agents, but 2 models for them"),
        ({"link_file": ("x",)}, "--link_file names a fitted link, but --link is auto.*add --link perceiver"),
        ({"agent_quantization": ("none", "8bit")}, "there are 1 models of agents, but 2 quantizations"),
        ({"graph": GraphConfig(hands="text")}, "agents that hand on text alone share one model"),
        ({"graph": GraphConfig(transfer="context")}, "transfer='context' hands on"),
    ],
)
def test_what_makes_no_sense_is_refused(folders: dict[str, str], settings: dict[str, Any], error: str) -> None:
    agents = settings.pop("agents", ("small",))
    with pytest.raises(ConfigError, match=error):
        made(folders, *agents, **settings)


def test_settings_of_other_models_need_other_models() -> None:
    for name, value in (("agent_quantization", "8bit"), ("link_file", "x")):
        with pytest.raises(ConfigError, match=f"{name} is for agents on other models.*add --agent_models"):
            GraphSpec(**{name: (value,)})


def test_a_checkpoint_knows_its_models(folders: dict[str, str], tmp_path: Path) -> None:
    built = made(folders, "small", topology="learned")
    checkpoints.write(tmp_path, checkpoints.take(1, built, None, {"name": "gsm8k", "data": None, "options": {}}, {}))
    found = checkpoints.read(tmp_path)
    assert found.spec == built.spec
    checkpoints.restore(found, made(folders, "small", topology="learned"))
    with pytest.raises(CheckpointError, match=r"was trained on the model weights:.*load it with the model it was"):
        checkpoints.restore(found, made(folders, "turned", topology="learned"))


def test_a_checkpoint_whose_mark_is_of_an_earlier_kind_is_read_with_a_warning(
    folders: dict[str, str], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    built = replace(made(folders, "small", topology="learned"), fingerprint="folder:0+gguf:0")
    checkpoints.write(tmp_path, checkpoints.take(1, built, None, {"name": "gsm8k", "data": None, "options": {}}, {}))
    checkpoints.restore(checkpoints.read(tmp_path), made(folders, "small", topology="learned"))
    (warning,) = [record.message for record in caplog.records if record.levelname == "WARNING"]
    assert "does not say well enough which weights" in warning


def test_from_the_command_line(folders: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = ["--llm_name", folders["big"], "--agent_models", folders["small"], "--dtype", "float32"]
    out = str(tmp_path / "run")
    assert main(["run", "what is 2 + 3", *model, "--max_new_tokens", "4", "--trace"]) == 0
    assert "programmer -> inspector: 0.01 MiB" in capsys.readouterr().out
    train = [
        "train", "--task", "split_facts", "--encoder", "hash", "--iterations", "1", "--batch_size", "1", "--rollouts",
        "2", "--max_new_tokens", "2", "--latent_steps", "0", "--temperature", "1.0", "--limit", "4", "--out", out,
    ]  # fmt: skip
    assert main([*train, *model]) == 0
    assert main([*train, *model, "--link", "vocab", "--fuser_gradient", "full"]) == 2
    error = capsys.readouterr().err
    assert "'full' goes back through one model" in error
    assert main(["inspect", out, "--question", "split_facts-test-0-0"]) == 2
    assert "think with several models" in capsys.readouterr().err
    assert main(["eval", "--checkpoint", out, "--limit", "2"]) == 0
    assert main(["run", "what ?", *model, "--link", "overlap", "--agent_models", folders["other"]]) == 2
    assert "20 in common" in capsys.readouterr().err


def test_a_mixed_graph_is_not_served(folders: dict[str, str]) -> None:
    from gcache.serve.model import ServedModel

    with pytest.raises(ConfigError, match="several models, and a service counts the context of one"):
        ServedModel.of(made(folders, "small"), "mixed")


def test_controls_that_are_of_one_model_are_refused(folders: dict[str, str], tmp_path: Path) -> None:
    built = made(folders, "small", topology="learned")
    task = {"name": "split_facts", "data": None, "options": {}}
    checkpoints.write(tmp_path, checkpoints.take(1, built, None, task, {}))
    with pytest.raises(GcacheError, match="identity W_a: the agents have several models"):
        control_checkpoint(
            tmp_path, TaskSpec("gsm_symbolic"), ["identity W_a"], limit=2, progress=False
        )


def test_all_models_count_their_caches_together(folders: dict[str, str]) -> None:
    built = made(folders, "small")
    assert isinstance(built.graph, CacheGraph)
    ledgers = {id(agent_model.llm.ledger) for agent_model in built.graph.models}
    assert len(ledgers) == 1
    assert torch.is_tensor(built.graph.run("what is 2").shared.keys)


def test_kept_texts_are_of_a_model_in_every_byte_its_dtype_and_its_latent_map(
    folders: dict[str, str], tmp_path: Path
) -> None:
    """So is one weight amid a tensor, which no fingerprint reads, and where texts end."""

    def named(folder: str, **spec: Any) -> tuple[str, str]:
        options: dict[str, Any] = {"dtype": "float32", "encoder": "hash", "latent_space_realign": True, **spec}
        built = build(GraphSpec(llm_name=folder, **options), Limits(texts=str(tmp_path / "texts.jsonl")))
        assert built.llm is not None and built.llm.kept_texts is not None
        return built.llm.kept_texts.model, built.llm.kept_texts.latents

    one = named(folders["small"])
    assert named(folders["small"]) == one and named(folders["small"], dtype="bfloat16")[0] != one[0]
    assert named(folders["small"], latent_space_realign=False) == (one[0], "as they are") != one
    copy = tmp_path / "copy"
    shutil.copytree(folders["small"], copy)
    assert named(str(copy)) == one
    settings = json.loads((copy / "generation_config.json").read_text())
    (copy / "generation_config.json").write_text(json.dumps({**settings, "eos_token_id": [2, 5]}))
    assert named(str(copy))[0] != one[0]
    shutil.copy(Path(folders["small"], "generation_config.json"), copy)
    weights = bytearray((copy / "model.safetensors").read_bytes())
    weights[-3] ^= 1
    (copy / "model.safetensors").write_bytes(weights)
    assert named(str(copy))[0] != one[0]
