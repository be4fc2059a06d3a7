"""The reference: latent multi-agent reasoning as published, in plain transformers.

LatentMAS (Zou et al. 2025) lets agents take turns on one growing KV cache. Each reads its full
prompt on top of all that came before, then thinks: its last hidden state is fed back as an input
embedding. A judge reads the question once more and writes the answer.

    cache = nothing
    for every agent:   read(template, question, its words)    prefill, on top of the cache
                       latent steps                           the cache grows by one slot each
    judge:             read(template, question, its words), then greedy text

It is written from that description and kept right for batches of unequal prompts: prompts are
padded on the left, the attention mask carries the padding of all earlier agents, and positions
count real tokens only, so that a question is answered alike alone and among others. Only the
latent map is shared with what it is compared with, so both think the same thoughts. It is spared
work that changes no token: the output head is not computed where nothing is written.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from gcache.agents.decision import DecisionMaker
from gcache.agents.prompts import ChatLayout
from gcache.agents.roles import Agent
from gcache.llm.forward.alignment import Alignment
from gcache.llm.forward.packing import use_packed


@contextmanager
def plain_attention(model: Any) -> Iterator[None]:
    """Within it the model computes as transformers does by itself, whatever it was switched to."""
    before = model.config._attn_implementation
    model.set_attn_implementation("sdpa")
    use_packed(model, False)
    try:
        yield
    finally:
        model.set_attn_implementation(before)
        use_packed(model, True)


@dataclass(frozen=True)
class PublishedAnswer:
    """One question's text and what it took.

    Attributes:
        tokens: written by the judge, the end-of-turn token included where one was written.
        prefilled: prompt tokens read, without padding.
        padded: prompt slots computed in this row, with padding.
        latent: latent steps of all agents.
    """

    text: str
    tokens: tuple[int, ...]
    prefilled: int
    padded: int
    latent: int


class PublishedMas:
    """The agents, one after another, then the judge.

    Args:
        model, tokenizer: of transformers.
        agents: in the order they speak.
        judge: who writes the answer.
        latent_steps: of each agent.
        max_new_tokens: the most tokens of an answer.
        stop_tokens: the ids that end a turn.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        agents: Sequence[Agent],
        judge: DecisionMaker,
        latent_steps: int,
        max_new_tokens: int,
        stop_tokens: Collection[int],
    ) -> None:
        self.model, self.tokenizer = model, tokenizer
        self.words = [agent.prompt for agent in agents]
        self.judge_words = judge.instructions
        self.latent_steps, self.max_new_tokens = latent_steps, max_new_tokens
        self.stop_tokens = torch.tensor(sorted(stop_tokens), device=model.device)
        self.layout = ChatLayout.of(tokenizer)
        self.alignment = Alignment.of_model(model)

    @torch.no_grad()
    def answer(self, questions: Sequence[str]) -> list[PublishedAnswer]:
        """Answer a batch of questions together."""
        batch = _GrowingBatch(self.model, len(questions), self.tokenizer.pad_token_id)
        with plain_attention(self.model):
            for words in self.words:
                state = batch.hidden(**batch.prompts(self._prompts(questions, words)))
                for _ in range(self.latent_steps):
                    state = batch.hidden(**batch.one(inputs_embeds=self.alignment(state)[:, None]))
            logits = batch.logits(**batch.prompts(self._prompts(questions, self.judge_words)))
            written = self._write(batch, logits)
        latent = len(self.words) * self.latent_steps
        return [
            PublishedAnswer(self._text(tokens), tokens, prefilled, batch.padded, latent)
            for tokens, prefilled in zip(written, batch.prefilled, strict=True)
        ]

    def _prompts(self, questions: Sequence[str], words: str) -> list[tuple[int, ...]]:
        return [self.layout.question(q) + self.layout.agent(words, thinks=True, question=q) for q in questions]

    def _write(self, batch: _GrowingBatch, logits: Tensor) -> list[tuple[int, ...]]:
        """Greedy text of all rows; those that have ended are fed pads until the slowest has."""
        written: list[list[int]] = [[] for _ in range(batch.rows)]
        running = torch.ones(batch.rows, dtype=torch.bool, device=self.model.device)
        for step in range(self.max_new_tokens):
            tokens = torch.where(running, logits.argmax(dim=-1), batch.pad)
            for row in running.nonzero().squeeze(1).tolist():
                written[row].append(int(tokens[row]))
            running = running & ~torch.isin(tokens, self.stop_tokens)
            if step + 1 == self.max_new_tokens or not bool(running.any()):
                break
            logits = batch.logits(**batch.one(input_ids=tokens[:, None]))
        return [tuple(tokens) for tokens in written]

    def _text(self, tokens: tuple[int, ...]) -> str:
        text: str = self.tokenizer.decode(list(tokens), skip_special_tokens=True)
        return text


class _GrowingBatch:
    """B rows on one transformers cache: which of its slots are real, and what was counted."""

    def __init__(self, model: Any, rows: int, pad: int) -> None:
        from transformers import DynamicCache

        self.model, self.rows, self.pad = model, rows, pad
        self.cache = DynamicCache(config=model.config)
        self.mask = torch.zeros((rows, 0), dtype=torch.long, device=model.device)  # (B, T)
        self.prefilled = [0] * rows
        self.padded = 0

    def prompts(self, prompts: Sequence[tuple[int, ...]]) -> dict[str, Tensor]:
        """Inputs of a prompt per row, padded on the left to the longest."""
        width = max(len(prompt) for prompt in prompts)
        ids = torch.full((self.rows, width), self.pad, device=self.model.device)
        real = torch.zeros_like(ids)
        for row, prompt in enumerate(prompts):
            ids[row, width - len(prompt) :] = torch.tensor(prompt, device=ids.device)
            real[row, width - len(prompt) :] = 1
            self.prefilled[row] += len(prompt)
        self.padded += width
        return self._inputs(real, input_ids=ids)

    def one(self, **what: Tensor) -> dict[str, Tensor]:
        """Inputs of one token or embedding per row."""
        return self._inputs(self.mask.new_ones((self.rows, 1)), **what)

    def _inputs(self, real: Tensor, **what: Tensor) -> dict[str, Tensor]:
        """Adds the mask of all slots so far, and positions that only real tokens advance."""
        positions = self.mask.sum(dim=1, keepdim=True) + real.cumsum(dim=1) - 1  # (B, S)
        self.mask = torch.cat((self.mask, real), dim=1)
        return {**what, "attention_mask": self.mask, "position_ids": positions.clamp_min(0)}

    def hidden(self, **inputs: Tensor) -> Tensor:
        """(B, E): the state after the final norm at the last slot, which is never a pad."""
        output = self.model.model(**inputs, past_key_values=self.cache, use_cache=True)
        state: Tensor = output.last_hidden_state[:, -1]
        return state

    def logits(self, **inputs: Tensor) -> Tensor:
        """(B, V): of the token after the last slot.

        The states are made contiguous first: on a CPU in bf16, the output head takes a hundred times
        as long over a strided slice of them, which is no fault of the algorithm.
        """
        logits: Tensor = self.model.get_output_embeddings()(self.hidden(**inputs).contiguous())
        return logits
