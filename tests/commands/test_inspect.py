"""Who hands to whom, read from checkpoints with and without their language model."""

from __future__ import annotations

import json
import logging
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from inspect_views import PLAIN
from safetensors.torch import load_file, save_file

from gcache.build import team_of
from gcache.commands import train as training
from gcache.commands.compare_topologies import compare_topologies
from gcache.commands.inspect import load_team, look_at, look_closely, run_folder, write_view
from gcache.config import GraphSpec, TaskSpec
from gcache.errors import CheckpointError, ConfigError, ModelError
from gcache.gnn.providers import PolicyProvider
from gcache.gnn.team import Team
from gcache.gnn.topology import DECISION
from gcache.graph.run_config import GraphConfig
from gcache.tasks.split_facts import SplitFacts
from gcache.training import checkpoint as checkpoints
from gcache.training.checkpoint import load, load_graph
from gcache.training.config import TrainConfig

TASK = SplitFacts()
CONFIG = TrainConfig(iterations=2, batch_size=2, rollouts=2, lr=0.05, limit=8, checkpoint_every=1)


def spec_of(model: Path, **more: Any) -> GraphSpec:
    settings: dict[str, Any] = {
        "llm_name": str(model), "dtype": "float32", "domain": "split_facts", "encoder": "hash", "hidden_dim": 8,
        "decision_probability": 0.9, "agent_probability": 0.3, "graph": GraphConfig(latent_steps=1, max_new_tokens=3),
    }  # fmt: skip
    return GraphSpec(**{**settings, **more})


def train(model: Path, out: Path, config: TrainConfig = CONFIG, **more: Any) -> Path:
    training.train(TaskSpec("split_facts"), spec_of(model, **more), config, out, progress=False)
    return out


@pytest.fixture(scope="module")
def trained(model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(model_folder, tmp_path_factory.mktemp("one") / "out")


@pytest.fixture(scope="module")
def other(model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Another seed, in a folder of the same name."""
    return train(model_folder, tmp_path_factory.mktemp("two") / "out", replace(CONFIG, seed=5), seed=5)


def chances(team: Team) -> torch.Tensor:
    with torch.no_grad():
        return torch.cat([team.distribution(example).probabilities for example in TASK.test(5)])  # type: ignore[union-attr]


def rewritten(trained: Path, to: Path, **values: Any) -> Path:
    """A copy whose checkpoint says something else."""
    shutil.copytree(trained, to)
    record = checkpoints.read(to).folder / "checkpoint.json"
    found = json.loads(record.read_text())
    found["graph"].update(values.pop("graph", {}))
    record.write_text(json.dumps({**found, **values}))
    return to


# -- a team without its model ---------------------------------------------------------------


def test_a_cast_says_what_the_graph_says_that_was_loaded_with_its_model(trained: Path) -> None:
    team, found = load_team(trained)
    graph = load_graph(trained)
    assert found.step == 2
    assert torch.equal(chances(team), chances(graph))
    for example in TASK.test(5):
        assert team.topology(example) == graph.topology(example)
        assert team.names_of(example) == graph.names_of(example)
    assert not torch.allclose(chances(team), chances(Team(*team_of(found.spec))), atol=1e-3), "nothing was learned"


def test_no_model_is_needed_for_it(trained: Path, tmp_path: Path) -> None:
    gone = rewritten(trained, tmp_path / "gone", graph={"llm_name": str(tmp_path / "no-model")})
    assert torch.equal(chances(load_team(gone)[0]), chances(load_team(trained)[0]))
    assert look_at(gone, limit=3).edges == look_at(trained, limit=3).edges
    with pytest.raises(ModelError):
        load(gone)
    with pytest.raises(ModelError):
        look_at(gone, limit=3, cuts=2, progress=False)


def test_what_was_pruned_stays_away(trained: Path, tmp_path: Path) -> None:
    example = TASK.test(1)[0]
    cut = [[example.notes[1].role, "decision maker", 0]]
    team = load_team(rewritten(trained, tmp_path / "pruned", pruned=cut))[0]
    source = team.topology_provider
    assert isinstance(source, PolicyProvider) and source.pruned == {tuple(cut[0])}
    whole, pruned = (c.distribution(example) for c in (load_team(trained)[0], team))
    assert set(whole.candidates) - set(pruned.candidates) == {(1, 5)}  # type: ignore[union-attr]


def test_a_fixed_topology_needs_no_policy(model_folder: Path, tmp_path: Path) -> None:
    out = train(model_folder, tmp_path / "out", replace(CONFIG, iterations=1), topology="chain")
    team, _ = load_team(out)
    example = TASK.test(1)[0]
    assert team.topology(example) == load_graph(out).topology(example)
    view = look_at(out, limit=2)
    assert view.subtitle == "a fixed topology" and {edge.probability for edge in view.edges} >= {1.0}
    assert [len(frame.edges) > 0 for frame in view.frames] == [True]


def test_weights_of_another_shape_are_refused_and_none_loaded(trained: Path, tmp_path: Path) -> None:
    shutil.copytree(trained, tmp_path / "other")
    file = checkpoints.read(tmp_path / "other").folder / "weights.safetensors"
    tensors = load_file(file)
    tensors["policy.read.weight"] = tensors["policy.read.weight"][:3].contiguous()
    save_file(tensors, file)
    with pytest.raises(CheckpointError, match=r"of another shape: read.weight is \(3, "):
        load_team(tmp_path / "other")
    found = checkpoints.read(tmp_path / "other")
    team = Team(*team_of(found.spec))
    before = chances(team)
    with pytest.raises(CheckpointError):
        checkpoints.restore_policy(found, team)
    assert torch.equal(chances(team), before)


def test_a_fuser_of_another_shape_is_no_hindrance(trained: Path, tmp_path: Path) -> None:
    shutil.copytree(trained, tmp_path / "other")
    file = checkpoints.read(tmp_path / "other").folder / "weights.safetensors"
    save_file({k: v for k, v in load_file(file).items() if k.startswith("policy.")}, file)
    assert torch.equal(chances(load_team(tmp_path / "other")[0]), chances(load_team(trained)[0]))


# -- where a run is -------------------------------------------------------------------------


def test_the_run_of_a_checkpoint_is_found_however_it_is_named(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    step = checkpoints.read(trained).folder
    assert run_folder(trained) == run_folder(step) == trained.resolve()
    monkeypatch.chdir(step.parent)
    assert run_folder(step.name) == trained.resolve()
    monkeypatch.chdir(trained)
    assert run_folder(".") == trained.resolve()
    assert look_at(".", limit=1).title == "split_facts: out"
    copied = tmp_path / "kept" / "best"
    shutil.copytree(step, copied)
    assert run_folder(copied) == copied.parent.resolve()  # and not some folder above
    with pytest.raises(CheckpointError, match="no checkpoint in"):
        run_folder(tmp_path)


# -- a checkpoint as a view -----------------------------------------------------------------


def test_a_checkpoints_view_has_the_training_before_it(trained: Path) -> None:
    view = look_at(trained, limit=4)
    metrics = [json.loads(line) for line in (trained / "metrics.jsonl").read_text().splitlines()]
    assert [(frame.step, frame.label) for frame in view.frames] == [
        (0, "before step 1"), (1, "before step 2"), (2, "after 2 steps")
    ]  # fmt: skip
    assert [[e.probability for e in frame.edges] for frame in view.frames[:2]] == [
        [row[2] for row in line["learned_edges"]] for line in metrics
    ]
    assert view.curves[0].points == tuple((m["step"] + 1, m["utility"]) for m in metrics)
    assert (view.task, view.step, view.subtitle) == ("split_facts", 2, "edges by role, mean over 4 questions")


def test_an_earlier_checkpoints_view_knows_nothing_of_later_steps(trained: Path) -> None:
    view = look_at(trained / "checkpoints" / "step-000001", limit=2)
    assert [frame.label for frame in view.frames] == ["before step 1", "after 1 steps"]
    assert [len(curve.points) for curve in view.curves] == [1] * len(view.curves)


def test_a_checkpoint_without_its_run_has_neither_frames_nor_curves(trained: Path, tmp_path: Path) -> None:
    shutil.copytree(checkpoints.read(trained).folder, tmp_path / "kept" / "best")
    view = look_at(tmp_path / "kept" / "best", limit=2)
    assert len(view.frames) == 1 and view.curves == ()
    assert view.edges == look_at(trained, limit=2).edges


def test_cuts_stand_at_the_edges_that_are_used(trained: Path) -> None:
    view = look_at(trained, limit=4, cuts=3, progress=False)
    costs = {(e.source, e.target): e.cost for e in view.edges if e.cost is not None}
    drawn = {ends for e in TASK.test(3) for ends in _ends(load_team(trained)[0], e)}
    assert set(costs) == drawn != set()
    assert {cost.n for cost in costs.values()} == {3}


def _ends(team: Team, example: Any) -> set[tuple[str, str]]:
    names = [agent.label for agent in team.agents_of(example)] + ["decision maker"]
    return {(names[edge.source], names[edge.target]) for edge in team.topology(example).edges}


def test_cuts_without_an_edge_to_cut_say_so(
    trained: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    agents = [agent for example in TASK.test(4) for agent in load_team(trained)[0].agents_of(example)]
    ends = [*(agent.role for agent in agents), DECISION]
    bare = rewritten(trained, tmp_path / "bare", pruned=[[a, b, 0] for a in set(ends) for b in set(ends)])
    view = look_at(bare, limit=4, cuts=3, progress=False)
    assert not any(edge.cost for edge in view.edges)
    assert "--cuts cut nothing: no edge is in the likeliest topology of any of 3 questions" in caplog.text
    caplog.clear()
    look_at(trained, limit=4, cuts=3, progress=False)
    assert "cut nothing" not in caplog.text


@pytest.mark.parametrize(("limit", "cuts"), [(0, 0), (-1, 0), (4, -1)])
def test_impossible_numbers_are_refused(trained: Path, limit: int, cuts: int) -> None:
    with pytest.raises(ConfigError, match=rf"got {limit} and {cuts}"):
        look_at(trained, limit=limit, cuts=cuts)


def test_one_question_is_looked_at_by_its_id_or_its_words(trained: Path) -> None:
    example = TASK.test(3)[2]
    view = look_closely(trained, example.id)
    assert view.question == example.question and view.step == 2
    assert [node.id for node in view.nodes[:-1]] == [note.role for note in example.notes]
    assert view.answer == load_graph(trained).run(example).answer
    first = TASK.test(1)[0]
    assert look_closely(trained, first.question, write=False).answer == look_closely(trained, first.id).answer


def test_text_alone_has_no_cache_to_look_into(model_folder: Path, tmp_path: Path) -> None:
    graph = GraphConfig(latent_steps=0, max_new_tokens=3, hands="text", speak_tokens=2)
    out = train(model_folder, tmp_path / "out", replace(CONFIG, iterations=1), graph=graph)
    with pytest.raises(CheckpointError, match="hand on text alone: no cache to look into"):
        look_closely(out, TASK.test(1)[0].id)
    assert look_at(out, limit=2).edges  # but who hands to whom can be seen


# -- files ----------------------------------------------------------------------------------


def test_a_view_is_written_in_the_order_that_was_asked_for(tmp_path: Path) -> None:
    names = ["json", "table", "dot", "json", "curves", "history", "gif"]
    found = write_view(PLAIN, names, tmp_path / "new")
    assert [path.name for path in found] == [
        "topology.json", "topology.dot", "curves.png", "history.png", "history.gif"
    ]  # fmt: skip
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == sorted(path.name for path in found)


def test_what_a_view_has_nothing_for_is_left_out_and_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    still = replace(PLAIN, frames=PLAIN.frames[-1:], curves=())
    with caplog.at_level(logging.WARNING, logger="gcache"):
        assert write_view(still, ["history", "gif", "curves", "dot"], tmp_path) == [tmp_path / "topology.dot"]
    assert "no step before is known" in caplog.text and "there are no curves" in caplog.text


def test_an_unknown_format_is_refused_before_any_is_written(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="unknown format 'pdf'; choose one of: curves, dot"):
        write_view(PLAIN, ["dot", "pdf"], tmp_path)
    assert not list(tmp_path.iterdir())


# -- two checkpoints ------------------------------------------------------------------------


def test_two_seeds_are_compared_without_a_model(trained: Path, other: Path, tmp_path: Path) -> None:
    one = rewritten(trained, tmp_path / "one", graph={"llm_name": "no/such/model"})
    two = rewritten(other, tmp_path / "two", graph={"llm_name": "no/such/model"})
    file = tmp_path / "apart.json"
    found, table = compare_topologies(one, two, limit=6, json_file=file)
    assert found.n == 6
    assert any(edge.difference for edge in found.edges)
    assert "| from | to | one | two |" in table
    written = json.loads(file.read_text())
    assert (written["first"], written["second"], written["n"]) == (str(one), str(two), 6)
    assert written["edges"][0]["difference"] == found.edges[0].difference
    here, there = look_at(one, limit=6), look_at(two, limit=6)
    for edge in found.edges:
        if edge.source != edge.target and "keeper" not in edge.source + edge.target:
            (first,) = [e.probability for e in here.edges if (e.source, e.target) == (edge.source, edge.target)]
            (second,) = [e.probability for e in there.edges if (e.source, e.target) == (edge.source, edge.target)]
            assert (edge.first, edge.second) == pytest.approx((first, second), abs=1e-6)


def test_runs_of_one_name_are_called_by_their_folders(trained: Path, other: Path) -> None:
    _, table = compare_topologies(trained, other, limit=2)
    assert f"| {trained} | {other} |" in table
    assert compare_topologies(trained, trained, limit=2)[0].same == 1.0


def test_a_limit_of_nothing_is_refused(trained: Path, other: Path) -> None:
    for limit in (0, -3):
        with pytest.raises(ConfigError, match=f"the limit must be 1 or more, got {limit}"):
            compare_topologies(trained, other, limit=limit)


def test_a_task_of_other_agents_is_refused(trained: Path, other: Path) -> None:
    with pytest.raises(CheckpointError, match="has agents for split_facts"):
        compare_topologies(trained, other, TaskSpec("gsm_symbolic"))
