"""Chat templates of the kinds that are about, written anew in small, and what becomes of each here.

    python experiments/chat_templates.py --json docs/results/models/templates.json --table docs/models.md

Every template stands on a tokenizer of the kind that its family has: of bytes, with line breaks that are joined to a
mark in front of them (Llama 3, Qwen) or not (SmolLM2); or of words with a blank in front (Llama 2, Mistral, Gemma).
What is looked at:

- whether the tokens of the pieces are those of the whole text, for agents and for the decision maker;
- what ends a text, where the folder names the end of documents as its end of text;
- whether a system turn is taken (none is sent: instructions stand in the user's turn);
- what `enable_thinking` does, and whether the date is asked for.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from gcache.agents.chat_template import ChatTemplate, EndOfTurn, TemplateSettings
from gcache.agents.prompts import GAP, ChatLayout
from gcache.commands.console import guarded
from gcache.errors import ConfigError, ModelError
from gcache.evaluation.tables import markdown
from gcache.files import write_json, write_text

BEGIN, END = "<!-- templates: begin -->", "<!-- templates: end -->"

QUESTIONS = (
    "How many apples are in the box?", "What is it", "List them (a)", "f(x) = {1, 2}", "Sum: 5\n", "Two lines?\n\n",
    "  blanks  ", "Wieviel kostet das?\u3000", "\u4ec0\u4e48\uff1f", "x",
)  # fmt: skip
WORDS = ("Plan it.", "You are the critic; the box is blue.", "- one\n- two", " a blank in front", "7")
#: What tokenizers learn from.
TEXT = (
    "How many apples are in the box? There are 7 apples, and 5 are red.\n\nPlan it. "
    "You are the critic.\n\n- one\n- two",
    "What is it?\n\nIt is a box (blue).\n\nSum: 5\n\nf(x) = {1, 2}\n\nWait.\n\nWell: yes!\n\nA, b.\n",
)
#: How bytes are split before they are joined, with line breaks behind marks, and without.
JOINED = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


@dataclass(frozen=True)
class Kind:
    """A template of a family.

    Attributes:
        template: in Jinja.
        specials: tokens of its own, the first of which begins texts where it has one.
        tokens: "joined", "bytes", "words" or "words everywhere", see `tokenizer`.
        end: of documents; what the folder names as its end of text.
        closes: what is expected to close the assistant's turn.
        plain: whether that is no token of its own.
    """

    name: str
    template: str
    specials: tuple[str, ...]
    tokens: str
    end: str
    closes: str
    plain: bool = False


def each(opening: str, turns: dict[str, str], answer: str) -> str:
    """A template that writes every role's turn in its own way; other roles raise."""
    cases = "".join(
        f"{'{% if' if not n else '{% elif'} m['role'] == '{role}' %}}{text}"
        for n, (role, text) in enumerate(turns.items())
    )
    unknown = "{% else %}{{ raise_exception('no such role here: ' + m['role']) }}{% endif %}"
    return (
        f"{opening}{{% for m in messages %}}{cases}{unknown}{{% endfor %}}"
        f"{{% if add_generation_prompt %}}{answer}{{% endif %}}"
    )


C, T = "{{ m['content'] }}", "{{ m['content'] | trim }}"
CHATML = each(
    "", {role: f"<|im_start|>{role}\n{C}<|im_end|>\n" for role in ("system", "user", "assistant")},
    "<|im_start|>assistant\n",
)  # fmt: skip
CHATML_TOKENS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
HEADED = {r: f"<|start_header_id|>{r}<|end_header_id|>\n\n{T}<|eot_id|>" for r in ("system", "user", "assistant")}
HEADED_TOKENS = ("<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>")
ASKED = "<|start_header_id|>assistant<|end_header_id|>\n\n"
TODAY = (
    "<|start_header_id|>system<|end_header_id|>\n\nToday: "
    "{% if strftime_now is defined %}{{ strftime_now('%d %b %Y') }}{% else %}a day{% endif %}<|eot_id|>"
)
NO_THINKING = "{% if enable_thinking is defined and not enable_thinking %}<think>\n\n</think>\n\n{% endif %}"
PAST = "{{ m['content'].split('</think>')[-1].lstrip('\\n') }}"
KINDS = (
    Kind(
        "Llama 2",
        each("", {"user": f"{{{{ bos_token }}}}[INST] {T} [/INST]", "assistant": f" {T} {{{{ eos_token }}}}"}, ""),
        ("<s>", "</s>"),
        "words everywhere",
        "</s>",
        "</s>",
    ),
    Kind("Llama 3", each("{{ bos_token }}", HEADED, ASKED), HEADED_TOKENS, "joined", "<|end_of_text|>", "<|eot_id|>"),
    Kind(
        "Llama 3.1, with a date",
        each("{{ bos_token }}" + TODAY, HEADED, ASKED),
        HEADED_TOKENS,
        "joined",
        "<|end_of_text|>",
        "<|eot_id|>",
    ),
    Kind(
        "Qwen 2.5",
        "{% if messages[0]['role'] != 'system' %}<|im_start|>system\nYou help.<|im_end|>\n{% endif %}" + CHATML,
        CHATML_TOKENS,
        "joined",
        "<|endoftext|>",
        "<|im_end|>",
    ),
    Kind(
        "Qwen 3",
        each(
            "",
            {
                "system": f"<|im_start|>system\n{C}<|im_end|>\n",
                "user": f"<|im_start|>user\n{C}<|im_end|>\n",
                "assistant": f"<|im_start|>assistant\n{PAST}<|im_end|>\n",
            },
            "<|im_start|>assistant\n" + NO_THINKING,
        ),
        CHATML_TOKENS,
        "joined",
        "<|endoftext|>",
        "<|im_end|>",
    ),
    Kind(
        "Gemma",
        each(
            "{{ bos_token }}",
            {
                "user": f"<start_of_turn>user\n{T}<end_of_turn>\n",
                "assistant": f"<start_of_turn>model\n{T}<end_of_turn>\n",
            },
            "<start_of_turn>model\n",
        ),
        ("<bos>", "<eos>", "<start_of_turn>", "<end_of_turn>"),
        "words",
        "<eos>",
        "<end_of_turn>",
    ),
    Kind(
        "Mistral",
        each("{{ bos_token }}", {"user": f"[INST] {C} [/INST]", "assistant": f" {C}{{{{ eos_token }}}}"}, ""),
        ("<s>", "</s>", "[INST]", "[/INST]"),
        "words",
        "</s>",
        "</s>",
    ),
    Kind(
        "Phi 3",
        each("", {r: f"<|{r}|>\n{C}<|end|>\n" for r in ("system", "user", "assistant")}, "<|assistant|>\n"),
        ("<s>", "<|endoftext|>", "<|system|>", "<|user|>", "<|assistant|>", "<|end|>"),
        "words",
        "<|endoftext|>",
        "<|end|>",
    ),
    Kind("SmolLM 2", CHATML, CHATML_TOKENS, "bytes", "<|endoftext|>", "<|im_end|>"),
    Kind(
        "SmolLM 3",
        "<|im_start|>system\nDate: {{ strftime_now('%d %B %Y') }}\n"
        "{% if enable_thinking is defined and not enable_thinking %}/no_think{% else %}/think{% endif %}<|im_end|>\n"
        + CHATML
        + "{% if add_generation_prompt %}"
        + NO_THINKING
        + "{% endif %}",
        CHATML_TOKENS,
        "joined",
        "<|endoftext|>",
        "<|im_end|>",
    ),
    Kind(
        "DeepSeek R1",
        each(
            "{{ bos_token }}",
            {"user": f"<|User|>{C}", "assistant": f"<|Assistant|>{PAST}<|end_of_sentence|>"},
            "<|Assistant|><think>\n",
        ),
        ("<|begin_of_sentence|>", "<|end_of_sentence|>", "<|User|>", "<|Assistant|>"),
        "joined",
        "<|end_of_sentence|>",
        "<|end_of_sentence|>",
    ),
    Kind(
        "gpt-oss",
        "{% for m in messages %}<|start|>{{ m['role'] }}{% if m['role'] == 'assistant' %}<|channel|>final{% endif %}"
        "<|message|>{{ m['content'] }}{% if m['role'] == 'assistant' and loop.last and not add_generation_prompt %}"
        "<|return|>{% else %}<|end|>{% endif %}{% endfor %}{% if add_generation_prompt %}<|start|>assistant{% endif %}",
        ("<|startoftext|>", "<|endoftext|>", "<|start|>", "<|channel|>", "<|message|>", "<|end|>", "<|return|>"),
        "joined",
        "<|endoftext|>",
        "<|return|>",
    ),
    Kind(
        "Zephyr",
        each("", {r: f"<|{r}|>\n{C}{{{{ eos_token }}}}\n" for r in ("system", "user", "assistant")}, "<|assistant|>\n"),
        ("<s>", "</s>"),
        "words everywhere",
        "</s>",
        "</s>",
    ),
    Kind(
        "Vicuna",
        each("Talk. ", {"user": f"USER: {C} ", "assistant": f"ASSISTANT: {C}{{{{ eos_token }}}}"}, "ASSISTANT:"),
        ("<s>", "</s>"),
        "words everywhere",
        "</s>",
        "</s>",
    ),
    Kind(
        "GLM, turns end where the next begins",
        each("[gMASK]", {r: f"<|{r}|>\n{C}" for r in ("system", "user", "assistant")}, "<|assistant|>\n"),
        ("[gMASK]", "<|endoftext|>", "<|system|>", "<|user|>", "<|assistant|>"),
        "joined",
        "<|endoftext|>",
        "<|user|>",
    ),
    Kind("ChatML tune, its marks are plain text", CHATML, ("<s>", "</s>"), "words", "</s>", "<|im_end|>", plain=True),
    Kind(
        "Alpaca",
        each("", {"user": f"### Instruction:\n{C}\n\n", "assistant": f"### Response:\n{C}\n\n"}, "### Response:\n"),
        ("<s>", "</s>"),
        "words",
        "</s>",
        "\n### Instruction:",
        plain=True,
    ),
)


def tokenizer(kind: Kind) -> Any:
    """A tokenizer of a kind, learned from a few lines: "joined" and "bytes" of bytes, "words" with a blank in front of
    the text, "words everywhere" with one behind every special token as well."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    of_words, lines = "words" in kind.tokens, [*TEXT, *QUESTIONS, *WORDS]
    made = Tokenizer(models.BPE(byte_fallback=of_words))
    if of_words:
        scheme = "always" if kind.tokens == "words everywhere" else "first"
        made.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=scheme, split=True)
        made.decoder = decoders.Sequence([decoders.Metaspace(prepend_scheme=scheme), decoders.ByteFallback()])
        lines = [line.replace("\n", " ") for line in lines]  # line breaks are bytes there
    elif kind.tokens == "joined":
        split = pre_tokenizers.Split(Regex(JOINED), behavior="isolated")
        made.pre_tokenizer = pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(False, use_regex=False)])
        made.decoder = decoders.ByteLevel()
    else:
        made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        made.decoder = decoders.ByteLevel()
    alphabet = [] if of_words else pre_tokenizers.ByteLevel.alphabet()
    made.train_from_iterator(
        lines * 20, trainers.BpeTrainer(vocab_size=600, initial_alphabet=alphabet, show_progress=False)
    )
    if of_words:
        state = json.loads(made.to_str())
        for byte in range(256):
            state["model"]["vocab"].setdefault(f"<0x{byte:02X}>", len(state["model"]["vocab"]))
        made = Tokenizer.from_str(json.dumps(state))
    begins = {"bos_token": kind.specials[0]} if kind.specials[0] != kind.end else {}
    fast = PreTrainedTokenizerFast(
        tokenizer_object=made, eos_token=kind.end, additional_special_tokens=list(kind.specials), **begins
    )
    fast.chat_template = kind.template
    return fast


@dataclass(frozen=True)
class Row:
    """What became of a template; see the module."""

    name: str
    pieces: int
    whole: int
    end: str
    ends: bool
    system: bool
    date: bool
    thinking: str
    gap: bool


def looked_at(kind: Kind) -> Row:
    """One template's row."""
    made = tokenizer(kind)
    whole = list(pieces(made))
    end = EndOfTurn.of(made)
    shown = ", ".join([*(made.convert_ids_to_tokens(token) for token in sorted(end.tokens)), *map(repr, end.words)])
    template = ChatTemplate(made)
    try:
        template.text([{"role": "system", "content": "Be brief."}, {"role": "user", "content": "x"}])
        system = True
    except ModelError:
        system = False
    closing = [ChatLayout.of(made, TemplateSettings(kwargs)) for kwargs in ("", '{"enable_thinking": false}')]
    switched = _said(closing[0]) != _said(closing[1])
    thinking = "always" if closing[0].thinks else "switched" if switched else "none"
    expected = kind.closes in end.words if kind.plain else shown == kind.closes
    return Row(
        kind.name, sum(whole), len(whole), shown, expected, system, template.reads_date, thinking, bool(closing[0].gap)
    )


def _said(layout: ChatLayout) -> tuple[str, str]:
    return layout.opening, layout.closing


def pieces(made: Any) -> Iterator[bool]:
    """Whether each two pieces are the tokens of the whole text."""
    layout = ChatLayout.of(made)
    for question in QUESTIONS:
        start, prefix = layout.opening + question, layout.question(question)
        for words in WORDS:
            behind = [
                (GAP + words, layout.agent(words, False, question)),
                (GAP + words + layout.closing, layout.agent(words, True, question)),
                (layout.gap + layout.next_turn + words + layout.closing, layout.decision(words, question=question)),
                (GAP + words + layout.closing + "So", layout.decision(words, "So", "same", question=question)),
            ]
            for text, tokens in behind:
                yield prefix + tokens == tuple(made(start + text, add_special_tokens=False)["input_ids"])


def table(rows: Sequence[Row]) -> str:
    """The table."""
    head = ["template", "pieces equal the whole", "ends a text", "system turn", "date", "thinking off and on"]
    thinking = {"none": "does not think", "always": "always on: the turn opens inside the tag", "switched": "both"}
    cells = [
        [
            row.name, f"{row.pieces} of {row.whole}", f"`{row.end}`{'' if row.ends else ' (wrong)'}",
            "taken" if row.system else "refused", "asked for" if row.date else "no", thinking[row.thinking],
        ]
        for row in rows
    ]  # fmt: skip
    return markdown(head, cells)


def main(argv: Sequence[str] | None = None) -> int:
    argv = sys.argv[1:] if argv is None else argv
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every row to this file")
    parser.add_argument("--table", type=Path, metavar="FILE", help="put the table into this Markdown file")
    return guarded(lambda: _run(parser.parse_args(argv)))


def _run(args: argparse.Namespace) -> int:
    import transformers

    rows = [looked_at(kind) for kind in KINDS]
    made = table(rows)
    print(made)
    if args.json:
        write_json(args.json, {"transformers": transformers.__version__, "rows": [asdict(row) for row in rows]})
    if args.table:
        text = args.table.read_text(encoding="utf-8")
        if BEGIN not in text or END not in text:
            raise ConfigError(f"{args.table} has no line {BEGIN}; put it and {END} where the table is to stand")
        before, _, rest = text.partition(BEGIN)
        write_text(args.table, f"{before}{BEGIN}\n\n{made}\n{END}{rest.partition(END)[2]}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
