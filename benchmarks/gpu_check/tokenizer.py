"""A byte-level tokenizer with a chat template, learned on the spot from the words that are asked here.

Any text can be written in it; the words of roles and questions are mostly one token each, so that prompts are about as
long as with the tokenizer of a real model.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import TYPE_CHECKING

from benchmarks.costless import CHAT_TEMPLATE
from benchmarks.gpu_check.questions import questions
from benchmarks.setting import DOMAIN
from gcache.agents.decision import decision_maker
from gcache.agents.roles import pick_agents

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

#: Special tokens, and their ids.
SPECIAL = {"<|endoftext|>": 0, "<|im_start|>": 1, "<|im_end|>": 2}
#: Tokens at most; the smallest shape has room for them.
MOST = 1000


@cache
def bpe_tokenizer() -> PreTrainedTokenizerFast:
    """ChatML turns, end of turn as end of text."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    words = Tokenizer(models.BPE())
    words.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    words.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=MOST, special_tokens=list(SPECIAL), show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )  # fmt: skip
    words.train_from_iterator(_words(), trainer)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=words, eos_token="<|im_end|>", pad_token="<|endoftext|>",
        additional_special_tokens=["<|im_start|>"],
    )  # fmt: skip
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer


def _words() -> Iterator[str]:
    """What is asked, and in which roles."""
    yield from ("user\n", "assistant\n", "system\n", decision_maker(DOMAIN).instructions)
    for agent in pick_agents(DOMAIN):
        yield agent.prompt
    for example in questions(200, seed=1):
        yield example.question
