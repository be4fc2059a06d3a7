"""The prompts of one request for completions: texts, token ids and embeddings, in the forms that vLLM takes.

    prompt          a text, a list of texts, token ids, or a list of lists of token ids
    prompt_embeds   base64 of a saved tensor, or a list of them

Nothing, null and an empty list ask for nothing. What is asked for is answered as choices in order, embeddings first. A
prompt that is there and empty ("" beside embeddings, too) is refused: it would have to be answered.
"""

from __future__ import annotations

import base64
from dataclasses import dataclass
from typing import TypeAlias

from torch import Tensor

from gcache.llm.local import LocalLLM
from gcache.serve.context_length import check_characters
from gcache.serve.model import ServedModel
from gcache.serve.prompt_embeds import decoded
from gcache.serve.raw_text import raw_tokens
from gcache.serve.refusals import Refused
from gcache.serve.requests import CompletionRequest, EmbedsCompletionRequest

#: Rows of embeddings at most, where the model does not say how many positions it has.
MOST_ROWS = 1 << 16


@dataclass(frozen=True)
class Embeds:
    """Embeddings as they came.

    Attributes:
        encoded: base64 of a saved tensor.
    """

    encoded: str


#: A text, token ids, or embeddings.
Prompt: TypeAlias = str | tuple[int, ...] | Embeds


@dataclass(frozen=True)
class ReadPrompt:
    """A prompt as the model reads it: tokens, or embeddings (S, E).

    Attributes:
        sent: its text, where it came as one.
    """

    tokens: tuple[int, ...]
    embeds: Tensor | None = None
    sent: str | None = None

    @property
    def slots(self) -> int:
        return len(self.tokens) if self.embeds is None else len(self.embeds)

    def text(self, llm: LocalLLM) -> str:
        """As it was sent; of token ids, what they are decoded to, special tokens as well."""
        return str(llm.tokenizer.decode(list(self.tokens))) if self.sent is None else self.sent


def prompts_of(asked: CompletionRequest | EmbedsCompletionRequest) -> tuple[Prompt, ...]:
    """What is to be completed, one prompt a choice.

    Raises:
        Refused: there is none, or one of them is empty.
    """
    embeds = [asked.prompt_embeds] if isinstance(asked.prompt_embeds, str) else asked.prompt_embeds or []
    texts = _texts(asked.prompt)
    if not embeds and texts in ([], [""]):
        raise Refused(
            400, "prompt is missing; it must be: a text that is not empty, token ids, or a list of either", "prompt",
            "missing_field",
        )  # fmt: skip
    if not all(texts):
        raise Refused(400, "a prompt is empty; leave it out, or send null", "prompt", "invalid_value")
    return (*map(Embeds, embeds), *texts)


def _texts(prompt: str | list[str] | list[int] | list[list[int]] | None) -> list[str | tuple[int, ...]]:
    """The prompts in the field of that name, one by one."""
    if prompt is None:
        return []
    if isinstance(prompt, str):
        return [prompt]
    numbers = tuple(item for item in prompt if isinstance(item, int))
    return [numbers] if numbers else [_one(item) for item in prompt]


def _one(item: str | int | list[int]) -> str | tuple[int, ...]:
    if isinstance(item, int):
        return (item,)
    return item if isinstance(item, str) else tuple(item)


def read_prompt(prompt: Prompt, served: ServedModel, llm: LocalLLM, specials: bool = True) -> ReadPrompt:
    """A prompt as the model reads it; see `gcache.serve.raw_text` for `specials`, which are a text's alone.

    Raises:
        Refused: it is none, or longer than any that the model can read.
    """
    if isinstance(prompt, Embeds):
        try:
            raw = base64.b64decode(prompt.encoded, validate=True)
        except ValueError as error:
            raise Refused(400, f"prompt_embeds is not base64 ({error})", "prompt_embeds") from error
        width = int(llm.model.get_input_embeddings().weight.shape[1])
        return ReadPrompt((), decoded(raw, width, served.context or MOST_ROWS, llm.dtype).to(llm.device))
    if isinstance(prompt, str):
        check_characters(served, prompt)
        tokens = raw_tokens(llm.tokenizer, prompt, specials)
        if not tokens:
            raise Refused(400, "the tokenizer makes no token of the prompt; pass words", "prompt")
        return ReadPrompt(tokens, sent=prompt)
    rows = int(llm.model.get_input_embeddings().weight.shape[0])
    if max(prompt) >= rows:
        raise Refused(400, f"the model has no token {max(prompt)}; its token ids are 0 to {rows - 1}", "prompt")
    return ReadPrompt(prompt)
