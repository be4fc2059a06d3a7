"""What is asked of a language model, and what comes back: one record per question and answer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from gcache.cache.fused_cache import FusedCache
from gcache.cache.kv_cache import SlotKind
from gcache.errors import ConfigError
from gcache.llm.forward.alignment import Alignment


@dataclass(frozen=True)
class ThinkRequest:
    """Read a prompt on top of a fused cache, then think silently.

    Attributes:
        tokens: the prompt's token ids, at least one unless there are `embeds`.
        past: what the agent received, or None.
        latent_steps: how often the last hidden state is fed back.
        owner: the node of the graph that asks; its slots carry this number.
        kind: what the prompt's slots are.
        watch: called with the (S, E) hidden states that the latent steps fed back, after the pass, as every watcher is;
            it may wait for another thread that uses the same model.
        alignment: what latent steps feed back; None for the model's own.
        embeds: (P, E) the prompt as embeddings, instead of tokens.
        watch_prompt: called with the (P, E) hidden states of the prompt; the last of them is the first that a latent
            step feeds back.
    """

    tokens: tuple[int, ...]
    past: FusedCache | None = None
    latent_steps: int = 0
    owner: int = 0
    kind: SlotKind = SlotKind.PROMPT
    watch: Callable[[Tensor], None] | None = None
    alignment: Alignment | None = None
    embeds: Tensor | None = None
    watch_prompt: Callable[[Tensor], None] | None = None

    @property
    def prompt_slots(self) -> int:
        return len(self.tokens) if self.embeds is None else int(self.embeds.shape[0])

    def __post_init__(self) -> None:
        _require_prompt(self.tokens, self.embeds)
        if self.latent_steps < 0:
            raise ConfigError(f"latent_steps must be 0 or more, got {self.latent_steps}")


@dataclass(frozen=True)
class GenerateRequest:
    """Write text after a prompt on top of a fused cache.

    Attributes:
        tokens: the prompt's token ids, at least one unless there are `embeds`.
        past: what the agent received, or None.
        max_new_tokens: the most tokens written, the end-of-turn token included.
        temperature: 0 is greedy; otherwise tokens are drawn from softmax(logits / temperature).
        seed: fixes the draws of this request, whatever else is in its batch.
        context: tokens that the text may well repeat, such as those of the question in `past`.
            Next tokens are guessed from them (see `gcache.llm.decode.prompt_lookup`); they change no text.
        stop: words at which the text ends, with the first token that completes one. The text is cut before the first
            of them, its tokens are not.
        watch: called with all tokens written so far, after every step that wrote some; never with one behind the last.
        embeds: (S, E) the prompt as embeddings, instead of tokens.
        top_p: tokens are drawn from the smallest set of most likely ones that holds this share, after the temperature.
        top_log_probs: so many of the most likely tokens are told beside each token; None tells no `Generation.scores`.
        score_prompt: whether the prompt's own tokens are told first.
        watch_scores: called with all scores so far, right before `watch`.
    """

    tokens: tuple[int, ...]
    past: FusedCache | None = None
    max_new_tokens: int = 256
    temperature: float = 0.0
    seed: int = 0
    context: tuple[int, ...] = ()
    stop: tuple[str, ...] = ()
    watch: Callable[[tuple[int, ...]], None] | None = None
    embeds: Tensor | None = None
    top_p: float = 1.0
    top_log_probs: int | None = None
    score_prompt: bool = False
    watch_scores: Callable[[tuple[TokenScore, ...]], None] | None = None

    @property
    def prompt_slots(self) -> int:
        return len(self.tokens) if self.embeds is None else int(self.embeds.shape[0])

    def __post_init__(self) -> None:
        _require_prompt(self.tokens, self.embeds)
        if "" in self.stop:
            raise ConfigError("a stop word is empty; leave it out")
        if self.max_new_tokens < 1:
            raise ConfigError(f"max_new_tokens must be 1 or more, got {self.max_new_tokens}")
        _require_temperature(self.temperature)
        require_top_p(self.top_p)
        if self.top_log_probs is not None and self.top_log_probs < 0:
            raise ConfigError(f"top_log_probs must be 0 or more, got {self.top_log_probs}; None tells none")
        if self.score_prompt and (self.top_log_probs is None or self.embeds is not None):
            raise ConfigError("score_prompt needs a prompt of tokens, and top_log_probs of 0 or more")


@dataclass(frozen=True)
class TokenScore:
    """How likely a token was by the model itself, at temperature 1 and without top_p.

    Attributes:
        log_prob: None for a token with nothing before it.
        top: the most likely tokens in its place, (id, log-probability), the likeliest first.
    """

    token: int
    log_prob: float | None
    top: tuple[tuple[int, float], ...] = ()


@dataclass(frozen=True)
class Generation:
    """Text that was written.

    Attributes:
        text: decoded, special tokens left out.
        tokens: the ids drawn, the end-of-turn token included where one was drawn.
        log_probs: one per token, under the distribution they were drawn from; for greedy
            text, whose distribution is a point, under the model's own at temperature 1.
        finished: False where `max_new_tokens` cut the text off.
        scores: of the prompt's tokens, where they were asked for, then one per token; none unless asked for.
    """

    text: str
    tokens: tuple[int, ...]
    log_probs: tuple[float, ...]
    finished: bool
    scores: tuple[TokenScore, ...] = ()

    @property
    def log_prob(self) -> float:
        return float(sum(self.log_probs))


@dataclass(frozen=True)
class LogProbRequest:
    """How likely was this completion? WriterInput again with gradient to `past`.

    Attributes:
        tokens: the prompt's token ids, at least one.
        completion: the ids that were generated after it, at least one.
        past: the fused cache they were generated on; gradient reaches its keys, values and bias.
        temperature: the one they were drawn at; 0 counts as 1, as in `Generation.log_probs`.
    """

    tokens: tuple[int, ...]
    completion: tuple[int, ...]
    past: FusedCache | None = None
    temperature: float = 1.0

    def __post_init__(self) -> None:
        _require_tokens(self.tokens)
        if not self.completion:
            raise ConfigError("completion is empty; a generation has at least one token")
        _require_temperature(self.temperature)


#: (number of completion tokens,) float32.
LogProbs = Tensor


def _require_prompt(tokens: tuple[int, ...], embeds: Tensor | None) -> None:
    """Raise ConfigError unless there is one of the two."""
    if embeds is None:
        _require_tokens(tokens)
    elif tokens or embeds.dim() != 2 or not len(embeds):
        raise ConfigError(
            f"a prompt is tokens or (S, E) embeddings, got {len(tokens)} tokens and {tuple(embeds.shape)}"
        )


def _require_tokens(tokens: tuple[int, ...]) -> None:
    if not tokens:
        raise ConfigError("a request needs at least one prompt token, got none")


def _require_temperature(temperature: float) -> None:
    if not temperature >= 0:
        raise ConfigError(f"temperature must be 0 (greedy) or more, got {temperature}")


def require_top_p(top_p: float) -> None:
    """Raise ConfigError where it is no share above 0."""
    if not 0 < top_p <= 1:
        raise ConfigError(f"top_p must be above 0 and at most 1 (everything), got {top_p}")
