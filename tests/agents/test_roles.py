from __future__ import annotations

import pytest

from gcache.agents.decision import DECISION_MAKERS, DECISIONS, decision_maker
from gcache.agents.roles import DOMAINS, MATHS, Agent, agents_for, pick_agents
from gcache.errors import ConfigError
from gcache.tasks.example import Example, Note


def test_a_prompt_is_the_private_text_then_the_instructions() -> None:
    assert Agent("a", "d", "Do it.", "A secret.").prompt == "A secret.\nDo it."
    assert Agent("a", "d", "Do it.").prompt == "Do it."
    assert Agent("a", "d", private="A secret.").prompt == "A secret."


def test_a_label_is_the_kind_where_there_is_one() -> None:
    assert Agent("librarian", "d", kind="keeper").label == "keeper"
    assert Agent("librarian", "d").label == "librarian"


def test_roles_of_a_domain_are_told_apart_by_name_description_and_instructions() -> None:
    for name in ("role", "description", "instructions"):
        assert len({getattr(agent, name) for agent in MATHS}) == len(MATHS)
        assert all(getattr(agent, name) for agent in MATHS)
    assert not any(agent.private for agent in MATHS)


def test_named_roles_come_in_the_order_asked() -> None:
    assert [a.role for a in pick_agents("maths", ["inspector", "solver", "solver"])] == [
        "inspector", "solver", "solver"
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("count", "roles"),
    [
        (None, ["solver", "analyst", "programmer", "inspector"]),
        (1, ["solver"]),
        (2, ["solver", "analyst"]),
        (6, ["solver", "analyst", "programmer", "inspector", "solver", "analyst"]),
    ],
)
def test_a_count_takes_the_first_and_goes_round(count: int | None, roles: list[str]) -> None:
    assert [agent.role for agent in pick_agents("maths", count=count)] == roles


def test_a_domain_whose_task_brings_agents_has_none_to_pick() -> None:
    assert pick_agents("split_facts") == ()
    assert pick_agents("split_facts", count=5) == ()
    with pytest.raises(ConfigError, match="the task brings its own agents"):
        pick_agents("split_facts", ["baker"])


def test_unknown_domains_and_roles_are_refused_with_the_known_ones() -> None:
    with pytest.raises(ConfigError, match=r"unknown domain 'chess'; choose one of: classification, .*maths, .*split_f"):
        pick_agents("chess")
    with pytest.raises(ConfigError, match="unknown role of the domain 'maths' 'poet'; choose one of: analyst, ins"):
        pick_agents("maths", ["solver", "poet"])


@pytest.mark.parametrize("domain", sorted(DOMAINS))
@pytest.mark.parametrize("count", [0, -1])
def test_a_count_below_one_is_refused_in_every_domain(domain: str, count: int) -> None:
    with pytest.raises(ConfigError, match=f"the number of agents must be 1 or more, got {count}"):
        pick_agents(domain, count=count)


def test_an_examples_notes_are_its_agents() -> None:
    notes = (Note("baker", "The baker bakes.", "The code is 417.", "asked"), Note("gossip", "The gossip talks.", "x"))
    agents = agents_for(Example("1", "?", "417", notes), MATHS)
    assert agents == (
        Agent("baker", "The baker bakes.", private="The code is 417.", kind="asked"),
        Agent("gossip", "The gossip talks.", private="x", kind="agent"),
    )


def test_what_is_private_reaches_the_prompt_and_nothing_that_others_see() -> None:
    (agent,) = agents_for(Example("1", "?", "417", (Note("baker", "The baker bakes.", "The code is 417."),)), ())
    assert "417" in agent.prompt
    assert "417" not in agent.role + agent.description + agent.label + agent.instructions


def test_an_example_without_notes_gets_the_default_agents() -> None:
    assert agents_for(Example("1", "?", "2"), list(MATHS)) == MATHS
    with pytest.raises(ConfigError, match="question '1' brings no agents, and this graph has none of its own"):
        agents_for(Example("1", "?", "2"), ())


def test_every_domain_has_a_decision_maker_for_every_method() -> None:
    assert set(DECISION_MAKERS) == set(DOMAINS)
    for domain in DOMAINS:
        for method in DECISIONS:
            made = decision_maker(domain, method)
            assert made.method == method
            assert made.instructions == DECISION_MAKERS[domain].instructions
            assert made.answer_prefix == DECISION_MAKERS[domain].answer_prefix
            assert made.description == DECISION_MAKERS[domain].description


def test_unknown_decision_makers_are_refused() -> None:
    with pytest.raises(ConfigError, match="unknown domain 'chess'"):
        decision_maker("chess")
    with pytest.raises(ConfigError, match="unknown decision method 'shout'"):
        decision_maker("maths", "shout")
