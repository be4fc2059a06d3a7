"""The reference must be right itself: a question alone or among longer ones gets the same answer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch
from toy import AGENTS, DECISION, QUESTIONS

from benchmarks.published import PublishedMas, plain_attention
from gcache.agents.prompts import ChatLayout

if TYPE_CHECKING:
    from gcache.llm.local import LocalLLM

LATENT_STEPS = 3


@pytest.fixture
def mas(tiny_llm: LocalLLM, tiny_tokenizer: Any) -> PublishedMas:
    return PublishedMas(tiny_llm.model, tiny_tokenizer, AGENTS, DECISION, LATENT_STEPS, 12, tiny_llm.stop_tokens)


def test_a_question_alone_and_among_others_gets_the_same_tokens(mas: PublishedMas) -> None:
    together = mas.answer(QUESTIONS)
    alone = [mas.answer([question])[0] for question in QUESTIONS]
    assert [answer.tokens for answer in together] == [answer.tokens for answer in alone]
    assert len({answer.tokens for answer in alone}) > 1


def test_it_is_one_long_sequence_without_padding(mas: PublishedMas, tiny_tokenizer: Any) -> None:
    """The same by hand: every prompt and latent in turn, each pass over everything so far, no cache."""
    question, model = QUESTIONS[2], mas.model
    layout, embed = ChatLayout.of(tiny_tokenizer), model.get_input_embeddings()

    def prompt(words: str) -> torch.Tensor:
        ids = layout.question(question) + layout.agent(words, thinks=True, question=question)
        rows: torch.Tensor = embed(torch.tensor([ids]))
        return rows

    so_far = torch.zeros(1, 0, model.config.hidden_size)
    for agent in AGENTS:
        so_far = torch.cat((so_far, prompt(agent.prompt)), dim=1)
        for _ in range(LATENT_STEPS):
            state = model.model(inputs_embeds=so_far).last_hidden_state[:, -1]
            so_far = torch.cat((so_far, mas.alignment(state)[:, None]), dim=1)
    so_far = torch.cat((so_far, prompt(DECISION.instructions)), dim=1)
    (answer,) = mas.answer([question])
    for token in answer.tokens:
        assert int(model(inputs_embeds=so_far).logits[0, -1].argmax()) == token
        so_far = torch.cat((so_far, embed(torch.tensor([[token]]))), dim=1)


def test_it_counts_real_tokens_and_padded_slots(mas: PublishedMas, tiny_tokenizer: Any) -> None:
    layout = ChatLayout.of(tiny_tokenizer)
    words = [*(agent.prompt for agent in AGENTS), DECISION.instructions]
    read = [sum(len(layout.question(q) + layout.agent(w, thinks=True, question=q)) for w in words) for q in QUESTIONS]
    answers = mas.answer(QUESTIONS)
    assert [answer.prefilled for answer in answers] == read
    assert {answer.padded for answer in answers} == {max(read)}
    assert {answer.latent for answer in answers} == {LATENT_STEPS * len(AGENTS)}


def test_a_text_ends_with_its_turn(tiny_llm: LocalLLM, tiny_tokenizer: Any) -> None:
    free = PublishedMas(tiny_llm.model, tiny_tokenizer, AGENTS, DECISION, 1, 6, ())
    (unending,) = free.answer(QUESTIONS[:1])
    stop = unending.tokens[2]
    stopped = PublishedMas(tiny_llm.model, tiny_tokenizer, AGENTS, DECISION, 1, 6, {stop})
    (answer,) = stopped.answer(QUESTIONS[:1])
    assert answer.tokens == unending.tokens[: unending.tokens.index(stop) + 1]


def test_attention_is_given_back(tiny_llm: LocalLLM) -> None:
    before = tiny_llm.model.config._attn_implementation
    with plain_attention(tiny_llm.model):
        assert tiny_llm.model.config._attn_implementation == "sdpa"
    assert tiny_llm.model.config._attn_implementation == before
