"""What TensorBoard reads of a run, by TensorBoard's own reader."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import needs
import pytest
from toy import ToyTask, toy_built

from gcache.commands.train import train
from gcache.config import GraphSpec, TaskSpec
from gcache.errors import ConfigError
from gcache.gnn.summary import LearnedEdge
from gcache.graph.run_config import GraphConfig
from gcache.llm.local import LocalLLM
from gcache.training.config import TrainConfig
from gcache.training.tensorboard import PICTURE_EVERY, Board
from gcache.training.trainer import Reinforce

needs.module("tensorboard")

EDGES = [
    LearnedEdge("planner", "decision maker", 0.75, 0.7, 0.8, 1.0, 4),
    LearnedEdge("critic", "planner", 0.25, 0.2, 0.3, 0.0, 4),
]


def read(folder: Path) -> Any:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found = EventAccumulator(str(folder), size_guidance={"scalars": 0, "images": 0})
    found.Reload()
    return found


def points(found: Any, name: str) -> list[tuple[int, float]]:
    return [(event.step, event.value) for event in found.Scalars(name)]


def show(board: Board, steps: Sequence[int], edges: Sequence[LearnedEdge] = EDGES, **metrics: Any) -> None:
    for step in steps:
        board.show({"step": step, "utility": step / 8, **metrics}, edges)
    board.close()


def test_a_run_that_is_refused_leaves_no_folder(tmp_path: Path) -> None:
    Board(tmp_path / "board").close()
    assert not (tmp_path / "board").exists()


def test_numbers_and_edges_are_read_back(tmp_path: Path) -> None:
    show(Board(tmp_path), range(3), rollouts=6, not_trained=["fuser"], learned=True, name="x")
    found = read(tmp_path)
    assert points(found, "utility") == [(0, 0.0), (1, 0.125), (2, 0.25)]
    assert points(found, "rollouts") == [(0, 6.0), (1, 6.0), (2, 6.0)]
    assert points(found, "edges/planner to decision maker") == [(step, 0.75) for step in range(3)]
    assert set(found.Tags()["scalars"]) == {
        "utility", "rollouts", "edges/planner to decision maker", "edges/critic to planner"
    }  # fmt: skip


def test_the_topology_is_a_picture_every_few_steps(tmp_path: Path) -> None:
    from PIL import Image

    show(Board(tmp_path), range(PICTURE_EVERY + 2))
    pictures = read(tmp_path).Images("topology")
    assert [picture.step for picture in pictures] == [0, PICTURE_EVERY]
    image = Image.open(BytesIO(pictures[0].encoded_image_string))
    assert image.width > 300 and len(image.convert("L").getcolors(256) or []) > 2, "the picture is blank"


def test_a_fixed_topology_has_no_picture(tmp_path: Path) -> None:
    show(Board(tmp_path), range(2), edges=())
    assert read(tmp_path).Tags()["images"] == []


@pytest.mark.parametrize("done", [0, 2])
def test_steps_that_are_done_again_are_not_shown_twice(tmp_path: Path, done: int) -> None:
    """Also those of a run that was stopped before its first checkpoint."""
    show(Board(tmp_path), range(4), note=1)
    show(Board(tmp_path, done), range(done, 5), note=2)
    assert points(read(tmp_path), "note") == [(step, 1.0 if step < done else 2.0) for step in range(5)]


def test_a_resumed_trainer_goes_on_where_it_was(tiny_llama: Any, tiny_tokenizer: Any, tmp_path: Path) -> None:
    llm = LocalLLM(tiny_llama, tiny_tokenizer)
    config = TrainConfig(iterations=4, batch_size=2, rollouts=2, checkpoint_every=2)

    def trained(stop: int | None, done: int) -> None:
        trainer = Reinforce(toy_built(llm, tiny_tokenizer), ToyTask(), config, tmp_path)
        trainer.board = Board(tmp_path / "board", done)
        real = trainer.step

        def step(number: int, questions: Any) -> dict[str, Any]:
            if number == stop:
                trainer.save = lambda: tmp_path  # type: ignore[method-assign]  # a kill keeps nothing more
                raise KeyboardInterrupt
            return real(number, questions)

        trainer.step = step  # type: ignore[method-assign]
        try:
            trainer.train(progress=False)
        except KeyboardInterrupt:
            assert stop is not None
        trainer.board.close()

    trained(3, 0)  # step 2 is shown, and lost: the last checkpoint is from before it
    trained(None, 2)
    found = read(tmp_path / "board")
    metrics = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    for name in ("utility", "edges", "seconds"):
        assert points(found, name) == [(m["step"], pytest.approx(m[name])) for m in metrics]
    row = metrics[3]["learned_edges"][0]
    assert points(found, f"edges/{row[0]} to {row[1]}")[3] == (3, pytest.approx(row[2]))


def spec_of(model: Path) -> GraphSpec:
    return GraphSpec(
        llm_name=str(model), dtype="float32", domain="split_facts", encoder="hash", hidden_dim=8,
        graph=GraphConfig(latent_steps=0, max_new_tokens=2),
    )  # fmt: skip


def test_a_session_writes_event_files_where_it_is_told_to(model_folder: Path, tmp_path: Path) -> None:
    task, spec = TaskSpec("split_facts"), spec_of(model_folder)
    config = TrainConfig(iterations=2, batch_size=1, rollouts=2, limit=4, checkpoint_every=1)
    train(task, spec, config, tmp_path / "plain", progress=False)
    assert not (tmp_path / "plain" / "tensorboard").exists()
    result = train(task, spec, config, tmp_path / "shown", progress=False, tensorboard=True)
    # a finished run is not trained again, and nothing that was shown is taken back
    assert train(task, spec, config, tmp_path / "shown", progress=False, tensorboard=True).history == []
    found = points(read(tmp_path / "shown" / "tensorboard"), "utility")
    assert found == [(m["step"], pytest.approx(m["utility"])) for m in result.history]
    assert len(found) == 2


def test_without_the_package_the_extra_is_named_and_nothing_is_written(
    model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(ConfigError, match=r"--tensorboard needs its extra; pip install 'gcache-mas\[tensorboard\]'"):
        Board(tmp_path / "board")
    with pytest.raises(ConfigError, match="gcache-mas"):
        train(
            TaskSpec("split_facts"), spec_of(model_folder), TrainConfig(iterations=1), tmp_path / "out",
            progress=False, tensorboard=True,
        )  # fmt: skip
    assert not list(tmp_path.iterdir())
