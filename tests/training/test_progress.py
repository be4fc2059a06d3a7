"""What a terminal shows while a graph learns, and of what it learned."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
from toy import ToyTask

from gcache.build import Built
from gcache.gnn.summary import LearnedEdge, learned_edges
from gcache.training.config import TrainConfig
from gcache.training.early_stop import ASKED, RIGHT
from gcache.training.progress import IN_A_PICTURE, edges_picture, step_line
from gcache.training.trainer import Reinforce


def edge(source: str, target: str, probability: float) -> LearnedEdge:
    return LearnedEdge(source, target, probability, 0.0, 1.0, 0.0, 1)


EDGES = [
    edge("asked keeper", "decision maker", 0.957), edge("other keeper", "decision maker", 0.2),
    edge("gossip", "decision maker", 0.004), edge("gossip", "other keeper", 0.3),
]  # fmt: skip
METRICS = {"step": 11, "utility": 0.53125, "edges": 3.4375}


def test_a_steps_line_has_its_utility_and_the_edges_that_matter() -> None:
    assert step_line(METRICS, EDGES, 40) == (
        "step 12 of 40, utility 0.53, 3.4 edges a question, asked keeper -> decision maker 0.96, "
        "other keeper -> decision maker 0.20, gossip -> decision maker 0.00"
    )


def test_it_says_how_the_most_likely_topology_did_where_that_was_asked() -> None:
    line = step_line({**METRICS, ASKED: 16, RIGHT: 15}, EDGES, 40)
    assert "utility 0.53, likeliest topology right 15 of 16, 3.4 edges" in line


def test_a_fixed_topology_has_no_edges_to_name() -> None:
    assert step_line(METRICS, [], 40) == "step 12 of 40, utility 0.53, 3.4 edges a question"
    assert edges_picture([]) == ""


def test_names_stay_in_one_line() -> None:
    assert "\n" not in step_line(METRICS, [edge("a\nb", "c", 0.5)], 40)
    assert edges_picture([edge("a\nb", "c", 0.5)]) == "  a b -> c  0.50  ##########"


def test_the_picture_has_a_bar_an_edge() -> None:
    assert edges_picture(EDGES).splitlines() == [
        "  asked keeper -> decision maker  0.96  ###################",
        "  other keeper -> decision maker  0.20  ####",
        "  gossip -> decision maker        0.00",
        "  gossip -> other keeper          0.30  ######",
    ]


def test_the_picture_stays_small() -> None:
    several = [edge("a", f"b{number}", 0.5) for number in range(IN_A_PICTURE + 3)]
    assert edges_picture(several).splitlines()[IN_A_PICTURE:] == ["  and 3 more"]


def test_every_step_is_told_with_the_edges_of_before_it(
    built: Built, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "gcache.training.trainer")
    before: Any = learned_edges(built.graph, ToyTask().train())
    config = TrainConfig(iterations=2, batch_size=2, rollouts=2, lr=0.2)
    history = Reinforce(built, ToyTask(), config, tmp_path).train(progress=False)
    told = [message for message in caplog.messages if message.startswith("step ")]
    assert told[0] == step_line(history[0], before, 2) and len(told) == 2 and told[1].startswith("step 2 of 2, ")
