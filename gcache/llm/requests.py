"""What is asked of a language model, and what comes back: one record per question and answer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from torch import Tensor

from gcache.cache.fused_cache import FusedCache
from gcache.cache.kv_cache import KVCache, SlotKind
from gcache.errors import ConfigError
from gcache.llm.forward.alignment import Alignment
from gcache.runtime.numbers import require_whole


class _OnPrompt:
    """What begins with a prompt, of tokens or of embeddings."""

    tokens: tuple[int, ...]
    embeds: Tensor | None

    @property
    def prompt_slots(self) -> int:
        """Slots that the prompt takes in a cache."""
        return len(self.tokens) if self.embeds is None else int(self.embeds.shape[0])


@dataclass(frozen=True)
class ThinkRequest(_OnPrompt):
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
        text: tokens that were written behind all that, read once more. The last of them has no slot: nothing was
            written behind it.
        watch_text: called with the (n,) log-probabilities of `text`, with gradient where the thought has one.
        text_temperature: the one that `text` was drawn at; see `LogProbRequest`.
        past_tokens: the tokens that `past` was read from, at weight 1; None where it is not so simple.
        layers: of the model's first so many layers alone, on those of `past`; None for all. There are no states then.
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
    text: tuple[int, ...] = ()
    watch_text: Callable[[Tensor], None] | None = None
    text_temperature: float = 1.0
    past_tokens: tuple[int, ...] | None = None
    layers: int | None = None

    def __post_init__(self) -> None:
        _require_prompt(self.tokens, self.embeds)
        require_whole("latent_steps", self.latent_steps, 0)
        _require_temperature(self.text_temperature)
        if self.layers is not None:
            require_whole("layers", self.layers, 1)
            if self.latent_steps or self.text or self.watch or self.watch_prompt:
                raise ConfigError("the first layers alone have no states: nothing can be fed back, scored or watched")
        if self.text and self.embeds is not None:
            raise ConfigError("a text is read again behind a prompt of tokens, got embeddings")

    @property
    def text_slots(self) -> int:
        """Slots that `text` takes in a cache."""
        return max(len(self.text) - 1, 0)


@dataclass(frozen=True)
class GenerateRequest(_OnPrompt):
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
        latent_steps, alignment: before the text, as in `ThinkRequest`.
        watch_latents: called with the (S, E) hidden states that these fed back.
        owner: whoever writes the text hands on its slots, marked with this number; None where nobody does.
        past_tokens: the tokens that `past` was read from, at weight 1; None where it is not so simple.
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
    latent_steps: int = 0
    alignment: Alignment | None = None
    watch_latents: Callable[[Tensor], None] | None = None
    owner: int | None = None
    past_tokens: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        _require_prompt(self.tokens, self.embeds)
        require_whole("latent_steps", self.latent_steps, 0)
        if "" in self.stop:
            raise ConfigError("a stop word is empty; leave it out")
        require_whole("max_new_tokens", self.max_new_tokens, 1)
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
        slots: of the prompt, of latent steps and of all tokens but the last, which nothing was written behind; None
            unless the request has an `owner`.
    """

    text: str
    tokens: tuple[int, ...]
    log_probs: tuple[float, ...]
    finished: bool
    scores: tuple[TokenScore, ...] = ()
    slots: KVCache | None = field(default=None, repr=False, compare=False)

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
