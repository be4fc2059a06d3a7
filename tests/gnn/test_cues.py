"""What a policy sees besides embeddings."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from gcache.agents.roles import Agent
from gcache.gnn.cues import citations, known_cues, messages, word_overlap


def agent(title: str, first: str = "", cites: tuple[str, ...] = ()) -> Agent:
    return Agent(title, f"{title}: {first}", private="never to be seen", cites=cites)


FILMS = [
    agent("Harbour Lights (film)", "A film by Ida Moe.", ("Ida Moe",)),
    agent("Ida Moe", "A director who was born in Bergen."),
    agent("Lake Tinn", "A lake in the county of Telemark."),
]


def test_overlap_is_standardised_and_highest_where_most_words_are_shared() -> None:
    overlap = known_cues("In which county is the lake?", FILMS)[:, 0]
    assert int(overlap.argmax()) == 2
    assert float(overlap.mean()) == pytest.approx(0, abs=1e-6)
    assert float(overlap.std(correction=0)) == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("question", ["", "Xyzzy?", "the of and"])
def test_without_a_word_in_common_there_is_no_overlap(question: str) -> None:
    assert known_cues(question, FILMS)[:, 0].tolist() == [0, 0, 0]
    assert word_overlap(question, ["a lake", "a hill"]) == [0, 0]


@pytest.mark.parametrize("agents", range(1, 16))
def test_equal_agents_have_no_overlap_whatever_their_number(agents: int) -> None:
    same = [agent("Lake Tinn", "A lake in the county of Telemark.")] * agents
    assert known_cues("In which county is the lake?", same)[:, 0].tolist() == [0.0] * agents


def test_nobody_has_no_cues() -> None:
    assert known_cues("Who?", []).shape == (0, 3) and citations([]).shape == (0, 0)


def test_one_agent_alone_has_no_overlap_to_compare_with() -> None:
    assert known_cues("Which lake?", FILMS[2:]).tolist() == [[0, 0, 0]]


def test_an_agent_is_named_by_its_title_without_what_stands_in_brackets() -> None:
    assert known_cues("Where was the director of 'Harbour Lights' born?", FILMS)[:, 2].tolist() == [1, 0, 0]
    assert known_cues("Is IDA MOE, of Bergen, older than Lake Tinnsjo?", FILMS)[:, 2].tolist() == [0, 1, 0]


def test_cues_but_content_are_made_of_what_is_public() -> None:
    secret = [replace(a, private="lake county born" * n) for n, a in enumerate(FILMS)]
    asked = "In which county is the lake?"
    public, all_there_is = ("overlap", "named"), ("overlap", "content", "named")
    assert torch.equal(known_cues(asked, FILMS, public), known_cues(asked, secret, public))
    assert not torch.equal(known_cues(asked, FILMS, all_there_is), known_cues(asked, secret, all_there_is))


def test_content_is_overlap_with_all_that_an_agent_knows() -> None:
    texts = ["Ida Moe was born in Bergen.", "", "It lies in a county of the north."]
    agents = [replace(a, private=text) for a, text in zip(FILMS, texts, strict=True)]
    asked = "In which county is the lake?"
    content = known_cues(asked, agents, ("content",))
    told = [replace(a, description=text) for a, text in zip(FILMS, texts, strict=True)]
    assert torch.equal(content[:, 1], known_cues(asked, told, ("overlap",))[:, 0])
    assert int(content[:, 1].argmax()) == 2 and not content[:, [0, 2]].any(), "what is not asked for is 0"


def test_who_names_whom() -> None:
    assert citations(FILMS).tolist() == [[0, 1, 0], [0, 0, 0], [0, 0, 0]]


def test_a_message_is_the_chance_that_a_neighbour_is_heard() -> None:
    cites = torch.tensor([[0.0, 0.0, 1.0], [0.0, 0.0, 1.0], [0.0, 0.0, 0.0]])  # two name the third
    told = messages(torch.tensor([0.5, 0.2, 0.9]), cites)
    assert told[:, 0].tolist() == pytest.approx([0, 0, 1 - 0.5 * 0.8])
    assert told[:, 1].tolist() == pytest.approx([0.9, 0.9, 0])
