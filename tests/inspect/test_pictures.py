from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy
import pytest

from gcache.gnn.summary import LATER, LearnedEdge
from gcache.gnn.topology import DECISION
from gcache.inspect.curves import draw_points
from gcache.inspect.pictures import (
    FRAME_MS,
    MOST_PANELS,
    draw_animation,
    draw_topology,
    evenly,
    history_figure,
    save,
    titled,
    topology_figure,
)
from gcache.inspect.view import ViewEdge

#: What a title or a name may be: a formula to matplotlib, no text to XML, half a character.
HOSTILE = 'a $5 {$ \\frac^_ %d <b>&"quoted"\r\n\x00\x1b[31m \ud800 end'


def row(source: str, target: str, probability: float) -> LearnedEdge:
    return LearnedEdge(source, target, probability, probability, probability, 1.0, 1)


EDGES = [row("planner", DECISION, 0.9), row("critic", DECISION, 0.2), row("planner", "critic", 0.5)]


def pixels(path: Path) -> Any:
    import matplotlib.image

    return matplotlib.image.imread(path)


def ink(path: Path) -> float:
    return float((1 - pixels(path)[..., :3]).sum())


def words(figure: Any) -> list[str]:
    """All that is written in a figure."""
    from matplotlib.text import Text

    return [text.get_text() for text in figure.findobj(Text) if text.get_text()]


# -- one topology ---------------------------------------------------------------------------


def test_a_picture_is_written_into_a_folder_that_is_made(tmp_path: Path) -> None:
    import matplotlib.pyplot as plt

    path = tmp_path / "pictures" / "edges.png"
    draw_topology(EDGES, path, "what was learned")
    picture = pixels(path)
    assert picture.shape[0] > 200 and picture.shape[1] > 400
    assert picture[..., :3].std() > 0.01, "the picture is blank"
    assert plt.get_fignums() == []  # nothing is left open


def test_likelier_edges_are_drawn_stronger(tmp_path: Path) -> None:
    def drawn(probability: float) -> float:
        path = tmp_path / f"{probability}.png"
        draw_topology([row("planner", "critic", probability), row("planner", DECISION, 0.5)], path, "t")
        return ink(path)

    assert drawn(0.9) > drawn(0.4) > drawn(0.05)


def test_a_kinds_edges_to_itself_do_not_stop_a_picture(tmp_path: Path) -> None:
    draw_topology([row("keeper", DECISION, 0.9), row("keeper", "keeper", 0.5)], tmp_path / "a.png", "t")
    assert (tmp_path / "a.png").stat().st_size > 0


def test_a_picture_names_its_nodes_and_the_chances_into_the_decision_maker() -> None:
    found = words(topology_figure(EDGES, "what was learned", ["solver"]))
    assert {"planner", "critic", "solver", DECISION, "0.90", "0.20", "what was learned"} <= set(found)
    assert "0.50" not in found  # among agents the width says it


def test_an_edge_from_the_round_before_is_dashed_and_ends_at_its_agent() -> None:
    from matplotlib.patches import FancyArrowPatch

    for edge in (row("planner", "critic" + LATER, 0.5), ViewEdge("planner", "critic", 0.5, later=True)):
        figure = topology_figure([edge, row("critic", "planner", 0.5)], "t")
        assert not any("round" in text for text in words(figure))
        styles = [arrow.get_linestyle() for arrow in figure.findobj(FancyArrowPatch)]
        assert sorted(styles) == ["dashed", "solid"] or sorted(map(str, styles)) == ["--", "-"]


def test_a_file_is_of_the_kind_that_its_ending_says(tmp_path: Path) -> None:
    draw_topology(EDGES, tmp_path / "a.svg", "t")
    assert ElementTree.parse(tmp_path / "a.svg").getroot().tag == "{http://www.w3.org/2000/svg}svg"
    draw_topology(EDGES, tmp_path / "a", "t")
    assert (tmp_path / "a").read_bytes().startswith(b"\x89PNG")


@pytest.mark.filterwarnings("ignore:Glyph")
def test_names_and_titles_are_words_and_no_formulas_or_markup(tmp_path: Path) -> None:
    edges = [row(HOSTILE, DECISION, 0.9), row(HOSTILE, "critic", 0.5)]
    draw_topology(edges, tmp_path / "a.svg", HOSTILE)
    ElementTree.parse(tmp_path / "a.svg")  # well-formed
    draw_topology(edges, tmp_path / "a.png", HOSTILE)
    assert pixels(tmp_path / "a.png").shape[1] > 400
    save(history_figure([(HOSTILE, edges)] * 2, HOSTILE), tmp_path / "b.svg")
    ElementTree.parse(tmp_path / "b.svg")
    draw_points([("utility", [(1, 0.5), (2, 0.25)])], tmp_path / "c.png", HOSTILE)


def test_a_long_question_is_a_title_of_a_few_lines() -> None:
    title = titled("how many red apples are there ? " * 30)
    assert title.count("\n") == 3 and title.endswith(" ...")
    assert max(map(len, title.splitlines())) <= 80
    assert titled("it costs $5 and $6") == "it costs $5 and $6"
    assert titled("") == ""


# -- over steps -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("count", "most", "places"),
    [(10, 4, [0, 3, 6, 9]), (3, 4, [0, 1, 2]), (4, 4, [0, 1, 2, 3]), (5, 2, [0, 4]), (0, 3, []), (1, 3, [0])],
)
def test_places_are_chosen_evenly(count: int, most: int, places: list[int]) -> None:
    assert evenly(count, most) == places


@pytest.mark.parametrize("count", [13, 40, 41, 500])
def test_the_first_and_the_last_are_always_chosen(count: int) -> None:
    found = evenly(count, MOST_PANELS)
    assert (found[0], found[-1], len(set(found))) == (0, count - 1, MOST_PANELS)
    gaps = numpy.diff(found)
    assert gaps.min() >= 1 and gaps.max() - gaps.min() <= 1


def frames(count: int) -> list[tuple[str, list[LearnedEdge]]]:
    return [
        (f"before step {i + 1}", [row("planner", DECISION, (i + 1) / count), row("critic", "planner", 0.5)])
        for i in range(count)
    ]


@pytest.mark.parametrize(("count", "panels"), [(1, 1), (3, 3), (5, 5), (30, MOST_PANELS)])
def test_small_multiples_have_a_panel_per_step(count: int, panels: int) -> None:
    figure = history_figure(frames(count), "edges over training")
    shown = [axes.get_title() for axes in figure.axes if axes.get_title()]
    assert len(shown) == panels
    assert (shown[0], shown[-1]) == ("before step 1", f"before step {count}")
    assert "edges over training" in words(figure)
    # every panel has every agent, also where it has no edge of that name
    assert words(figure).count("critic") == panels


def test_an_agent_that_comes_later_is_in_every_panel() -> None:
    figure = history_figure([("a", [row("planner", DECISION, 0.5)]), ("b", [row("critic", DECISION, 0.5)])], "t")
    assert words(figure).count("critic") == words(figure).count("planner") == 2


def test_an_animation_has_a_picture_per_step_and_stops_at_the_last(tmp_path: Path) -> None:
    from PIL import Image

    path = tmp_path / "new" / "history.gif"
    draw_animation(frames(4), path, "edges")
    with Image.open(path) as gif:
        assert gif.format == "GIF" and gif.n_frames == 4
        assert "loop" not in gif.info  # no loop: it stops
        durations, pictures = [], []
        for number in range(4):
            gif.seek(number)
            durations.append(gif.info["duration"])
            pictures.append(numpy.asarray(gif.convert("L"), dtype=float))
    assert durations == [FRAME_MS] * 3 + [4 * FRAME_MS]
    assert len({picture.shape for picture in pictures}) == 1
    assert all(abs(a - b).max() > 50 for a, b in pairwise(pictures)), "nothing moves"


def test_a_picture_that_cannot_be_drawn_leaves_no_file(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="gpeg"):
        draw_topology(EDGES, tmp_path / "a.gpeg", "t")
    assert not list(tmp_path.iterdir())


# -- curves of one run ----------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 2, 3])
def test_a_panel_per_curve_with_its_points_and_their_mean(
    tmp_path: Path, count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    import gcache.inspect.curves as curves

    kept: list[Any] = []
    real = curves.save
    monkeypatch.setattr(curves, "save", lambda figure, path: (kept.append(figure), real(figure, path))[1])
    points = [(1, 1.0), (2, 2.0), (3, 6.0), (4, 7.0), (5, 9.0), (6, 11.0)]
    draw_points([(f"curve {n}", points) for n in range(count)], tmp_path / "curves.png", "one run")
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")
    (figure,) = kept
    shown = [axes for axes in figure.axes if axes.get_title()]
    assert [axes.get_title() for axes in shown] == [f"curve {n}" for n in range(count)]
    pale, strong = shown[0].lines
    assert pale.get_ydata().tolist() == [value for _, value in points]
    assert strong.get_ydata().tolist() == [1.0, 1.5, 3.0, 4.0, 5.0, 7.0]
    assert pale.get_xdata().tolist() == strong.get_xdata().tolist() == [1, 2, 3, 4, 5, 6]
    assert "one run" in words(figure)
