"""The bodies that the service takes, field by field.

A field's description says what is allowed; it stands in the OpenAPI document and in what a client is told.
Fields of OpenAI's API that change nothing here are taken at the values that ask for nothing.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

#: The largest whole number that JSON keeps everywhere.
LARGEST = 2**53
#: Agents of one question, messages of one conversation.
MOST_AGENTS, MOST_MESSAGES = 64, 1024
#: Prompts of one request for completions, of each kind; as vLLM has it.
MOST_PROMPTS = 1024
#: Choices of a prompt, and likeliest tokens that are told beside each token.
MOST_CHOICES, MOST_LIKELIEST = 8, 20


def _whole(value: Any) -> Any:
    """1.0 is a whole number, too, in JSON."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


StopWord = Annotated[str, Field(min_length=1, max_length=1000)]


def _boolean(value: Any) -> Any:
    """Python takes 0 for False; JSON does not.

    Raises:
        ValueError: it is no boolean.
    """
    if not isinstance(value, bool):
        raise ValueError("not a boolean")
    return value


Count = Annotated[int, Field(strict=True, ge=1), BeforeValidator(_whole)]
Seed = Annotated[int, Field(strict=True, ge=-LARGEST, le=LARGEST), BeforeValidator(_whole)]
Upwards = Annotated[int, Field(strict=True, ge=0), BeforeValidator(_whole)]
Choices = Annotated[int, Field(strict=True, ge=1, le=MOST_CHOICES), BeforeValidator(_whole)]
Likeliest = Annotated[int, Field(strict=True, ge=0, le=MOST_LIKELIEST), BeforeValidator(_whole)]
Number = Annotated[float, Field(strict=True, allow_inf_nan=False)]
No = Annotated[Literal[False], BeforeValidator(_boolean)]
Zero = Annotated[Number, Field(ge=0, le=0)]
Unused = Annotated[str, Field(max_length=4096)]
Label = Annotated[str, Field(min_length=1, max_length=200, pattern=r"\S")]
Empty = Annotated[list[Any], Field(max_length=0)]
Token = Annotated[int, Field(strict=True, ge=0, le=LARGEST), BeforeValidator(_whole)]
Texts = Annotated[list[str], Field(max_length=MOST_PROMPTS)]
Tokens = Annotated[list[list[Token]], Field(max_length=MOST_PROMPTS)]
PROMPT = f"a text, token ids, or a list of up to {MOST_PROMPTS} of either, none of them empty"
NO_TOOLS = "null or left out (no tools are called here)"
ANYTHING = "any text; not used"
AGENTS = f'1 to {MOST_AGENTS} agents {{"role": ..., "description": ..., "note": ...}} instead of the graph\'s own'


class Body(BaseModel):
    """Unknown fields are refused, and no value is taken for one of another type."""

    model_config = ConfigDict(extra="forbid", strict=True)


def _with_example(**fields: Any) -> ConfigDict:
    """How a body is taken, with one for the document."""
    return ConfigDict(json_schema_extra={"examples": [fields]})


class AgentNote(Body):
    """An agent that comes with the question."""

    role: Label = Field(description="a short name, of 1 to 200 characters")
    description: str | None = Field(None, max_length=2000, description="one sentence about the role")
    note: str = Field(description="text: what this agent alone knows")


class GraphExtension(Body):
    """What a question may bring, and what may be told of how it was answered."""

    trace: bool | None = Field(None, description="true or false: whether the run's events are told")
    agents: list[AgentNote] | None = Field(None, min_length=1, max_length=MOST_AGENTS, description=AGENTS)


class AgentsExtension(Body):
    """What a question may bring."""

    agents: list[AgentNote] | None = Field(None, min_length=1, max_length=MOST_AGENTS, description=AGENTS)


class TextPart(Body):
    type: Literal["text"] = Field(description='"text" (no other parts are read here)')
    text: str = Field(description="text")


class ResponseFormat(Body):
    type: Literal["text"] = Field(description='"text" (an answer has no other form)')


class StreamOptions(Body):
    include_usage: bool | None = Field(None, description="true or false: whether a stream ends with its usage")
    include_obfuscation: bool | None = Field(None, description="true or false; not used")


class Message(Body):
    """One message of a conversation."""

    role: Literal["system", "developer", "user", "assistant"] = Field(
        description="system, developer, user or assistant; the last message is the user's"
    )
    content: str | list[TextPart] | None = Field(
        description='text, or a list of parts {"type": "text", "text": ...}; null only where an assistant said nothing'
    )
    name: Unused | None = Field(None, description=ANYTHING)
    refusal: None = Field(None, description="null or left out")
    reasoning_content: str | None = Field(None, description="any text; not used")
    audio: None = Field(None, description="null or left out")
    annotations: Empty | None = Field(None, description="an empty list, null or left out")
    function_call: None = Field(None, description=NO_TOOLS)
    tool_calls: Empty | None = Field(None, description=NO_TOOLS)

    @property
    def text(self) -> str:
        if isinstance(self.content, list):
            return "".join(part.text for part in self.content)
        return self.content or ""


class Drawn(Body):
    """Fields of every request for a text."""

    model: str | None = Field(None, description="the served model's name, or left out")
    temperature: Annotated[Number, Field(ge=0, le=2)] | None = Field(
        None, description="a number from 0 (greedy, the default) to 2"
    )
    max_tokens: Count | None = Field(None, description="a whole number of 1 or more, up to the server's limit")
    seed: Seed | None = Field(None, description="a whole number of at most 2**53 either way (default: 0)")
    stop: StopWord | Annotated[list[StopWord], Field(max_length=4)] | None = Field(
        None, description="a text, or up to 4, none of them empty"
    )
    stream: bool | None = Field(None, description="true or false")
    stream_options: StreamOptions | None = Field(None, description='{"include_usage": true or false}, only of a stream')
    n: Choices | None = Field(None, description=f"a whole number from 1 (the default) to {MOST_CHOICES}")
    top_p: Annotated[Number, Field(gt=0, le=1)] | None = Field(
        None, description="a number above 0 and at most 1 (the default)"
    )
    frequency_penalty: Zero | None = Field(None, description="0 (temperature and top_p alone shape a draw)")
    presence_penalty: Zero | None = Field(None, description="0 (temperature and top_p alone shape a draw)")
    logit_bias: Annotated[dict[str, Any], Field(max_length=0)] | None = Field(None, description="{} or null")
    user: Unused | None = Field(None, description=ANYTHING)

    @property
    def stops(self) -> tuple[str, ...]:
        return (self.stop,) if isinstance(self.stop, str) else tuple(self.stop or ())


class ChatRequest(Drawn):
    """A conversation, answered by the graph's agents together."""

    model_config = _with_example(messages=[{"role": "user", "content": "What is 17 * 6?"}], max_tokens=32)

    messages: list[Message] = Field(
        min_length=1, max_length=MOST_MESSAGES, description=f"1 to {MOST_MESSAGES} messages, the last one the user's"
    )
    max_completion_tokens: Count | None = Field(None, description="as max_tokens; the smaller one counts")
    gcache: GraphExtension | None = Field(None, description='{"trace": true or false, "agents": [...]}')
    audio: None = Field(None, description="null or left out (only text is written)")
    function_call: Literal["none", "auto"] | None = Field(None, description=NO_TOOLS)
    functions: Empty | None = Field(None, description=NO_TOOLS)
    add_special_tokens: No | None = Field(None, description="false (the chat template brings its own)")
    logprobs: bool | None = Field(None, description="true or false: whether the answer's log-probabilities are told")
    top_logprobs: Likeliest | None = Field(
        None, description=f'a whole number from 0 to {MOST_LIKELIEST}, above 0 only beside "logprobs": true'
    )
    chat_template_kwargs: Annotated[dict[str, Any], Field(max_length=64)] | None = Field(
        None, description='an object of variables of the model\'s chat template, such as {"enable_thinking": false}'
    )
    metadata: dict[str, str] | None = Field(None, description="an object of texts; not used")
    modalities: Annotated[list[Literal["text"]], Field(max_length=1)] | None = Field(None, description='["text"]')
    parallel_tool_calls: bool | None = Field(None, description="true or false; no tools are called here")
    prediction: None = Field(None, description="null or left out")
    prompt_cache_key: Unused | None = Field(None, description=ANYTHING)
    reasoning_effort: Literal["none"] | None = Field(None, description='"none" or null')
    response_format: ResponseFormat | None = Field(None, description='{"type": "text"} (an answer has no other form)')
    safety_identifier: Unused | None = Field(None, description=ANYTHING)
    service_tier: Literal["auto", "default"] | None = Field(None, description='"auto" or "default"')
    store: No | None = Field(None, description="false (nothing is stored)")
    tool_choice: Literal["none", "auto"] | None = Field(None, description='"none" or "auto" (no tools are called here)')
    tools: Empty | None = Field(None, description="an empty list or null (no tools are called here)")
    verbosity: Literal["medium"] | None = Field(None, description='"medium" or null')
    web_search_options: None = Field(None, description="null or left out")

    @property
    def most(self) -> int | None:
        """Tokens of the answer; None where nothing is said."""
        return min((n for n in (self.max_tokens, self.max_completion_tokens) if n is not None), default=None)

    @property
    def likeliest(self) -> int | None:
        """Tokens that are told beside each token; None where no log-probabilities are."""
        return (self.top_logprobs or 0) if self.logprobs else None


class Completion(Drawn):
    """Fields of every request for a completion."""

    max_tokens: Upwards | None = Field(
        None, description='a whole number of 1 or more, up to the server\'s limit; 0 beside "echo": true'
    )
    add_special_tokens: bool | None = Field(
        None, description="true (the default) or false: whether texts are read with the tokenizer's special tokens"
    )
    best_of: Choices | None = Field(None, description="as n (no text is thrown away here)")
    echo: bool | None = Field(None, description="true or false: whether each choice begins with its prompt")
    logprobs: Likeliest | None = Field(
        None, description=f"a whole number from 0 to {MOST_LIKELIEST}: likeliest tokens told beside each token; or null"
    )
    suffix: Annotated[str, Field(max_length=0)] | None = Field(None, description='"" or null (no gap is filled here)')


class CompletionRequest(Completion):
    """Prompts, completed by the local model alone."""

    model_config = _with_example(prompt="Once upon a time", max_tokens=16)

    prompt: str | Texts | list[Token] | Tokens | None = Field(
        None, description=f"{PROMPT}; each is a choice, and none is laid in a template"
    )
    prompt_embeds: None = Field(
        None, description="null or left out (this server takes no embeddings; it does with --allow_prompt_embeds)"
    )


class EmbedsCompletionRequest(Completion):
    """Prompts, as text or as embeddings, completed by the local model alone."""

    model_config = _with_example(prompt="Once upon a time", max_tokens=16)

    prompt: str | Texts | list[Token] | Tokens | None = Field(
        None, description=f"{PROMPT}; null, [] or left out beside prompt_embeds, else it is one more choice"
    )
    prompt_embeds: str | Annotated[list[str], Field(max_length=MOST_PROMPTS)] | None = Field(
        None,
        description=f"base64 of a tensor (S, E) as torch.save writes it, a list of at most {MOST_PROMPTS}, or null",
    )


class TopologyRequest(Body):
    """A question, of which only who would hand to whom is asked."""

    model_config = _with_example(question="What is 17 * 6?")

    question: str = Field(min_length=1, pattern=r"\S", description="text, not blank")
    gcache: AgentsExtension | None = Field(None, description='{"agents": [...]}')
