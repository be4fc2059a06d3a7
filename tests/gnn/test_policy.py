from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from gcache.agents.decision import DecisionMaker
from gcache.agents.roles import Agent
from gcache.errors import ConfigError
from gcache.gnn.cue_names import CUES
from gcache.gnn.distribution import EdgeDistribution
from gcache.gnn.features import HashEncoder
from gcache.gnn.policy import QuestionFeatures, TopologyPolicy
from gcache.gnn.providers import PolicyProvider
from gcache.gnn.topology import Edge, Topology

WIDTH = 16


def features(n_agents: int = 4, seed: int = 0) -> QuestionFeatures:
    """Random unit vectors."""
    generator = torch.Generator().manual_seed(seed)
    rows = torch.nn.functional.normalize(torch.randn(n_agents + 2, WIDTH, generator=generator), dim=1)
    return QuestionFeatures(rows[:-1], rows[-1])


def policy(seed: int = 0, **settings: Any) -> TopologyPolicy:
    torch.manual_seed(seed)
    return TopologyPolicy(WIDTH, hidden_dim=12, **settings)


def trained(seed: int = 0) -> TopologyPolicy:
    """Far from where it starts, so that it tells questions and agents apart."""
    made = policy(seed)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(0.5 * torch.randn(parameter.shape))
    return made


def table(distribution: EdgeDistribution) -> dict[tuple[int, int], float]:
    return dict(zip(distribution.candidates, distribution.probabilities.tolist(), strict=True))


def test_every_possible_edge_has_a_probability() -> None:
    found = table(policy()(features(3)))
    assert set(found) == {(0, 3), (1, 3), (2, 3), (0, 1), (1, 0), (0, 2), (2, 0), (1, 2), (2, 1)}
    assert all(0 < chance < 1 for chance in found.values())


def test_the_same_seed_gives_the_same_policy_and_the_same_draws() -> None:
    first, second, other = policy(3)(features()), policy(3)(features()), policy(4)(features())
    assert torch.equal(first.logits, second.logits)
    assert not torch.equal(first.logits, other.logits)
    draws = [first.sample(torch.Generator().manual_seed(s)) for s in range(20)]
    again = [second.sample(torch.Generator().manual_seed(s)) for s in range(20)]
    assert [t for t, _ in draws] == [t for t, _ in again]
    assert len({t for t, _ in draws}) > 1


@pytest.mark.parametrize("order", [(1, 0, 2, 3), (3, 2, 1, 0), (2, 0, 3, 1)])
def test_permuting_the_agents_permutes_the_edges(order: tuple[int, ...]) -> None:
    made, asked = trained(), features(4)
    permuted = QuestionFeatures(asked.roles[[*order, 4]], asked.query)
    before, after = table(made(asked)), table(made(permuted))
    old = {new: agent for new, agent in enumerate(order)} | {4: 4}
    assert max(before.values()) - min(before.values()) > 0.2, "edges must differ, or this shows nothing"
    for (source, target), chance in after.items():
        assert chance == pytest.approx(before[old[source], old[target]], abs=1e-5)


def test_edges_are_directed_and_depend_on_the_question() -> None:
    made, asked = trained(), features(3)
    found = made(asked)
    logits = dict(zip(found.candidates, found.logits.tolist(), strict=True))
    assert abs(logits[0, 1] - logits[1, 0]) > 1e-2
    other = made(QuestionFeatures(asked.roles, -asked.query))
    assert float((found.logits - other.logits).detach().abs().max()) > 1e-2


def test_agents_with_the_same_role_get_the_same_edges() -> None:
    asked = features(3)
    twins = QuestionFeatures(asked.roles[[0, 0, 2, 3]], asked.query)
    found = table(trained()(twins))
    assert found[0, 3] == pytest.approx(found[1, 3], abs=1e-6)
    assert found[0, 2] == pytest.approx(found[1, 2], abs=1e-6)
    assert found[0, 1] == pytest.approx(found[1, 0], abs=1e-6)


@pytest.mark.parametrize(("decision", "agent"), [(0.5, 0.1), (0.3, 0.1), (0.05, 0.9)])
def test_before_training_edges_are_about_as_likely_as_configured(decision: float, agent: float) -> None:
    for seed in range(5):
        made = policy(seed, decision_probability=decision, agent_probability=agent)
        for question in range(3):
            for (_, target), chance in table(made(features(4, question))).items():
                assert chance == pytest.approx(decision if target == 4 else agent, abs=0.05)


@pytest.mark.parametrize("value", [0.0, 1.0, -0.1, 1.5, float("nan")])
@pytest.mark.parametrize("name", ["decision_probability", "agent_probability", "consult_probability"])
def test_a_certain_or_impossible_edge_is_refused(name: str, value: float) -> None:
    if (name, value) == ("agent_probability", 0.0):
        name, value = "agent_probability", -1e-9  # at 0 there are no such edges
    settings: dict[str, Any] = {name: value}
    with pytest.raises(ConfigError, match=f"{name} must be between 0 and 1"):
        policy(**settings)


def test_features_of_another_width_are_refused() -> None:
    wide = QuestionFeatures(torch.zeros(3, WIDTH + 1), torch.zeros(WIDTH + 1))
    with pytest.raises(ConfigError, match=r"features have width 17, the policy was built for 16; use the encoder"):
        policy()(wide)


@pytest.mark.parametrize(("roles", "query"), [((3, 4), (5,)), ((3, 4), (1, 4)), ((4,), (4,))])
def test_features_that_do_not_fit_together_are_refused(roles: tuple[int, ...], query: tuple[int, ...]) -> None:
    with pytest.raises(ConfigError, match=r"roles must be \(N \+ 1, F\) and query \(F,\)"):
        QuestionFeatures(torch.zeros(roles), torch.zeros(query))


def test_agents_that_hear_nobody_have_edges_into_the_decision_maker_alone() -> None:
    made = policy(agent_probability=0.0, decision_probability=0.3)
    found = table(made(features(4, 1)))
    assert found == {(i, 4): pytest.approx(0.3, abs=0.05) for i in range(4)}
    with pytest.raises(ConfigError, match="agent_probability 0"):
        policy(agent_probability=0.0, temporal=True)


@pytest.mark.parametrize("settings", [{}, {"consult_probability": 0.4}, {"agent_probability": 0.0}])
@pytest.mark.parametrize("n_agents", [2, 5])
def test_one_draws_log_probability_and_the_entropy_reach_every_parameter(
    n_agents: int, settings: dict[str, Any]
) -> None:
    made = policy(**settings)
    distribution = made(features(n_agents))
    log_prob: Tensor = distribution.sample(torch.Generator().manual_seed(0))[1]
    (log_prob + 0.01 * distribution.entropy).backward()
    for name, parameter in made.named_parameters():
        assert parameter.grad is not None, name
        assert bool(torch.isfinite(parameter.grad).all()), name
        assert float(parameter.grad.abs().max()) > 0, name


def test_a_single_agent_has_one_edge() -> None:
    assert table(policy()(features(1))).keys() == {(0, 1)}


def test_the_source_shows_the_policy_roles_and_question_and_nothing_private() -> None:
    torch.manual_seed(0)
    encoder = HashEncoder(WIDTH)
    source = PolicyProvider(trained(), encoder)
    decision = DecisionMaker("decides", "answer")

    def logits(private: str, description: str = "bakes bread", kind: str = "", question: str = "who ?") -> Tensor:
        agents = [Agent("baker", description, "speak", private, kind), Agent("miller", "grinds")]
        return source.distribution(agents, decision, question).logits

    plain = logits("")
    assert torch.equal(plain, logits("the code is 417", kind="asked"))
    assert not torch.equal(plain, logits("", description="sells bread"))
    assert not torch.equal(plain, logits("", question="where ?"))
    seen = source.features([Agent("baker", "bakes bread")], decision, "who ?")
    assert torch.equal(seen.roles, encoder.encode(["bakes bread", "decides"]))
    assert torch.equal(seen.query, encoder.encode(["who ?"])[0])


@pytest.mark.parametrize(("chances", "stays"), [((0.45, 0.9), (1, 0)), ((0.7, 0.9), (0, 1)), ((0.8, 0.8), (0, 1))])
def test_of_two_likely_edges_that_close_a_cycle_the_one_drawn_more_often_stands(
    chances: tuple[float, float], stays: tuple[int, int]
) -> None:
    probabilities = torch.tensor([0.6, 0.2, *chances])
    distribution = EdgeDistribution(2, ((0, 2), (1, 2), (0, 1), (1, 0)), torch.logit(probabilities))
    topology, log_prob = distribution.most_likely()
    assert topology.pairs == {(0, 2), stays}
    # the sampler comes to 0 -> 1 first, and where that is drawn it is never free to draw 1 -> 0
    first, second = chances
    expected = 0.6 * 0.8 * (first if stays == (0, 1) else (1 - first) * second)
    assert float(log_prob.exp()) == pytest.approx(expected, rel=1e-5)


def test_what_a_question_is_about_reaches_edges_from_both_their_ends() -> None:
    """Untrained, but for one weight, an edge is as likely as its end has to do with the question."""
    roles = torch.eye(4, WIDTH)  # agents 0 to 2 and the decision maker
    asked = QuestionFeatures(roles, roles[1])  # agent 1's business
    for weight, likely in ((0, {(1, 0), (1, 2)}), (1, {(1, 3)}), (2, {(0, 1), (2, 1)})):
        made = policy()
        with torch.no_grad():
            made.agreement[weight] = 3.0
        found = table(made(asked))
        among, into = 0.5, 0.8  # above what the kind starts with
        assert {pair for pair, chance in found.items() if chance > (into if pair[1] == 3 else among)} == likely


def consulting(c: float, *chances: float) -> EdgeDistribution:
    """Two agents, with edges into the decision maker and from the first to the second alone."""
    edges = ((0, 2), (1, 2), (0, 1))
    return EdgeDistribution(2, edges, torch.logit(torch.tensor(chances)), consult_logit=torch.logit(torch.tensor(c)))


def test_hearing_nobody_is_one_choice_before_the_edges() -> None:
    distribution = consulting(0.25, 0.8, 0.5, 0.3)
    assert distribution.probabilities.tolist() == pytest.approx([0.25 * 0.8, 0.25 * 0.5, 0.3])
    assert float(distribution.expected_edges) == pytest.approx(0.2 + 0.125 + 0.3)
    for pairs, wanted in (
        ([], (0.75 + 0.25 * 0.2 * 0.5) * 0.7),
        ([(0, 1)], (0.75 + 0.25 * 0.2 * 0.5) * 0.3),
        ([(0, 2)], 0.25 * 0.8 * 0.5 * 0.7),
        ([(0, 2), (1, 2), (0, 1)], 0.25 * 0.8 * 0.5 * 0.3),
    ):
        topology = Topology(2, tuple(Edge(*pair) for pair in pairs))
        assert float(distribution.log_prob(topology).exp()) == pytest.approx(wanted)


def test_the_weight_of_a_drawn_edge_is_its_probability_consulting_included() -> None:
    distribution = consulting(0.9, 0.8, 0.5, 0.3)
    topology = distribution.sample(torch.Generator().manual_seed(1))[0]
    assert (0, 2) in topology.pairs
    assert {e.key: e.weight for e in topology.edges}[0, 2] == pytest.approx(0.72)
    assert float(distribution.weights(topology)[0, 2]) == pytest.approx(0.72)


@pytest.mark.parametrize(("c", "likeliest"), [(0.9, {(0, 2)}), (0.6, set()), (0.1, set())])
def test_the_likeliest_topology_has_the_edges_that_are_likely_all_told(c: float, likeliest: set[Any]) -> None:
    assert consulting(c, 0.8, 0.5, 0.3).most_likely()[0].pairs == likeliest


def test_nobody_to_consult_makes_consulting_certain_to_be_in_vain() -> None:
    distribution = consulting(0.25, 0.8, 0.5, 0.3).without({(0, 2), (1, 2)})
    assert float(distribution.log_prob(Topology(2)).exp()) == pytest.approx(0.7)
    assert float(distribution.entropy) == pytest.approx(-(0.3 * math.log(0.3) + 0.7 * math.log(0.7)), rel=1e-5)


def test_consulting_depends_on_the_question_and_starts_where_it_was_told_to() -> None:
    found = [policy(seed, consult_probability=0.3)(features(4, seed)).consult_probability for seed in range(20)]
    assert all(abs(chance - 0.3) < 0.05 for chance in found)
    torch.manual_seed(0)
    made = policy(consult_probability=0.3)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(0.5 * torch.randn(parameter.shape))
    first, second = features(4, 0), features(4, 1)
    other = QuestionFeatures(first.roles, second.query)
    assert made(first).consult_probability != made(other).consult_probability


def test_a_policy_that_may_consult_nobody_starts_with_the_weights_of_one_that_may_not() -> None:
    """What was trained before there was the choice is read as it was."""
    with_choice, without = policy(consult_probability=0.3), policy()
    ours = with_choice.state_dict()
    assert all(torch.equal(value, ours[name]) for name, value in without.state_dict().items())
    assert {name.split(".")[0] for name in set(ours) - set(without.state_dict())} == {"consult_head"}


# -- cues, and how many are heard ---------------------------------------------------------------


def asked_with_cues(seed: int = 0) -> QuestionFeatures:
    """Four agents: the first is named by the question, and names the second."""
    plain = features(4, seed)
    cites = torch.zeros(4, 4)
    cites[0, 1] = 1
    known = torch.tensor([[1.0, 0, 1], [0, 0, 0], [-1, 0.5, 0], [0, 0, 0]])
    return QuestionFeatures(plain.roles, plain.query, known, cites)


@pytest.mark.parametrize("settings", [{}, {"agent_probability": 0.0}, {"temporal": True}])
def test_cues_and_a_number_heard_change_nothing_before_training_but_that_number(settings: dict[str, Any]) -> None:
    asked = asked_with_cues()
    plain, cued = policy(2, **settings)(asked), policy(2, cues=CUES, **settings)(asked)
    assert torch.equal(plain.logits, cued.logits)
    heard = policy(2, cues=CUES, heard=1.5, **settings)(asked)
    into = [e for e, key in enumerate(heard.candidates) if key[1] == 4]
    assert float(heard.probabilities[into].sum().detach()) == pytest.approx(1.5, abs=1e-4)
    rest = [e for e in range(len(heard.candidates)) if e not in into]
    assert torch.equal(heard.logits[rest], plain.logits[rest]), "edges among agents are as likely as before"


@pytest.mark.parametrize("name", CUES)
def test_each_cue_reaches_the_edges_of_its_agents_alone(name: str) -> None:
    asked = asked_with_cues()
    made = policy(1, cues=(name,), agent_probability=0.0)
    before = made(asked).logits
    with torch.no_grad():
        assert made.cue_weights is not None
        made.cue_weights.fill_(0.1)
    moved = (made(asked).logits - before).detach().abs() > 1e-6
    wanted = {"overlap": [0, 2], "content": [2], "named": [0], "cited": [1], "citing": [0]}[name]
    assert moved.nonzero().flatten().tolist() == wanted


def test_whoever_is_named_by_one_that_is_heard_becomes_likely_itself() -> None:
    asked = asked_with_cues()
    made = policy(1, cues=("named", "cited"), heard=1.0, agent_probability=0.0)
    with torch.no_grad():
        assert made.cue_weights is not None
        made.cue_weights.copy_(torch.tensor([[0.3, 0.0]]))
    first = table(made(asked))
    with torch.no_grad():
        made.cue_weights.copy_(torch.tensor([[0.3, 0.2]]))
    second = table(made(asked))
    assert first[0, 4] > 0.9 and first[1, 4] < 0.05
    assert second[1, 4] > 0.15 and second[2, 4] < first[2, 4], "what it gains the others lose"


def test_the_gradient_through_cues_messages_and_the_number_heard_is_exact() -> None:
    asked = asked_with_cues()
    made = policy(1, cues=CUES, heard=1.7, agent_probability=0.0).double()
    plain = QuestionFeatures(*(t.double() for t in (asked.roles, asked.query, asked.cues, asked.cites)))  # type: ignore[union-attr]
    weights = made.cue_weights
    assert weights is not None
    with torch.no_grad():
        weights.copy_(torch.tensor([[0.02, 0.03, 0.05, 0.04, -0.03]]))
    drawn = Topology(4, (Edge(0, 4), Edge(1, 4)))
    (exact,) = torch.autograd.grad(made(plain).log_prob(drawn), weights)
    for c in range(len(CUES)):
        values = []
        for step in (1e-3, -1e-3):  # log_prob is float32
            with torch.no_grad():
                weights[0, c] += step
                values.append(float(made(plain).log_prob(drawn)))
                weights[0, c] -= step
        assert float(exact[0, c]) == pytest.approx((values[0] - values[1]) / 2e-3, rel=1e-3)
    assert exact.abs().min() > 1e-3, "every cue learns"


def test_a_policy_with_cues_reads_questions_that_have_none() -> None:
    made = policy(1, cues=CUES)
    with torch.no_grad():
        assert made.cue_weights is not None
        made.cue_weights.fill_(0.1)
    assert torch.equal(made(features(3)).logits, policy(1)(features(3)).logits)


def test_permuting_the_agents_permutes_their_cues() -> None:
    asked, order = asked_with_cues(), [2, 0, 3, 1]
    made = policy(3, cues=CUES, heard=2.0, agent_probability=0.0)
    with torch.no_grad():
        assert made.cue_weights is not None
        made.cue_weights.copy_(torch.tensor([[0.05, 0.02, 0.1, 0.1, -0.1]]))
    assert asked.cues is not None and asked.cites is not None
    moved = QuestionFeatures(asked.roles[[*order, 4]], asked.query, asked.cues[order], asked.cites[order][:, order])
    before, after = made(asked).logits, made(moved).logits
    assert torch.allclose(before[order], after, atol=1e-5)


def test_cues_that_do_not_fit_are_refused() -> None:
    asked = features(3)
    with pytest.raises(ConfigError, match=r"cues must be \(3, 3\), got \(3, 2\)"):
        QuestionFeatures(asked.roles, asked.query, torch.zeros(3, 2))
    with pytest.raises(ConfigError, match=r"cites must be \(3, 3\), got \(2, 2\)"):
        QuestionFeatures(asked.roles, asked.query, None, torch.zeros(2, 2))
    with pytest.raises(ConfigError, match="unknown cue 'cite'"):
        policy(cues=("cite",))
    with pytest.raises(ConfigError, match="each be named once"):
        policy(cues=("named", "named"))
    for value in (0.0, -1.0, math.inf, math.nan):
        with pytest.raises(ConfigError, match="heard must be above 0"):
            policy(heard=value)
