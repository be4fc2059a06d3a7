from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from gcache.agents.prompts import DECISION_TURNS, ChatLayout, QuestionLast
from gcache.errors import ConfigError, ModelError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


@pytest.fixture(scope="module")
def letters() -> PreTrainedTokenizerFast:
    """A tokenizer of letters that knows "?" with two line ends as one token, as byte-pair ones do."""
    from tokenizers import Tokenizer, decoders, models
    from transformers import PreTrainedTokenizerFast

    alphabet = {letter: i for i, letter in enumerate("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ?.: \n")}
    merged = {**alphabet, "\n\n": len(alphabet), "?\n\n": len(alphabet) + 1}
    pairs = Tokenizer(models.BPE(merged, [("\n", "\n"), ("?", "\n\n")]))
    pairs.decoder = decoders.Fuse()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=pairs, additional_special_tokens=["<|im_start|>", "<|im_end|>"]
    )
    tokenizer.chat_template = CHATML
    return tokenizer


def decoded(tokenizer: PreTrainedTokenizerFast, tokens: tuple[int, ...]) -> str:
    text = tokenizer.decode(list(tokens))
    assert isinstance(text, str)
    return text


class Stub:
    """A tokenizer whose template is a function of the turns; characters are its tokens."""

    chat_template = "x"

    def __init__(self, rendered: Any) -> None:
        self.rendered = rendered

    def apply_chat_template(self, talk: list[dict[str, str]], **_: Any) -> Any:
        return self.rendered(talk)

    def __call__(self, text: str, add_special_tokens: bool) -> dict[str, list[int]]:
        return {"input_ids": [ord(character) for character in text]}


def test_the_pieces_of_the_chatml_template(tiny_tokenizer: Any) -> None:
    layout = ChatLayout.of(tiny_tokenizer)
    assert layout.opening == "<|im_start|>user\n"
    assert layout.closing == "<|im_end|>\n<|im_start|>assistant\n"
    assert layout.next_turn == "<|im_end|>\n<|im_start|>user\n"


def test_a_system_turn_of_the_template_stands_in_the_opening() -> None:
    def with_system(talk: list[dict[str, str]]) -> str:
        return "<s>be kind</s>" + "".join(f"<{m['role']}>{m['content']}</>" for m in talk) + "<assistant>"

    layout = ChatLayout.of(Stub(with_system))
    assert (layout.opening, layout.closing) == ("<s>be kind</s><user>", "</><assistant>")
    assert layout.next_turn == "</><user>"


def test_a_prompt_of_joined_pieces_is_what_the_template_would_write(letters: PreTrainedTokenizerFast) -> None:
    layout = ChatLayout.of(letters)

    def template(*turns: str) -> str:
        talk = [{"role": ("user", "assistant")[i % 2], "content": turn} for i, turn in enumerate(turns)]
        return str(letters.apply_chat_template(talk, tokenize=False, add_generation_prompt=True))

    q = "how many?"
    question, thought = layout.question(q), layout.agent("plan it", True, q)
    assert layout.gap == "\n\n"  # joined to the question mark, so it belongs to the question
    assert decoded(letters, question + thought) == template("how many?\n\nplan it")
    # a new turn closes the assistant's, in which the agent thought
    assert decoded(letters, question + thought + layout.decision("decide", question=q)) == template(
        "how many?\n\nplan it", "", "decide"
    )
    assert decoded(letters, question + layout.decision("decide", "So:", "same", question=q)) == (
        template("how many?\n\ndecide") + "So:"
    )
    assert layout.in_one(q, "plan it", "decide", "So:", "same") == tuple(
        letters(template("how many?\n\nplan it\n\ndecide") + "So:", add_special_tokens=False)["input_ids"]
    )


def test_the_questions_tokens_are_a_prefix_whatever_follows(letters: PreTrainedTokenizerFast) -> None:
    layout = ChatLayout.of(letters)

    def at_once(text: str) -> tuple[int, ...]:
        return tuple(letters(text, add_special_tokens=False)["input_ids"])

    for q in ("how many?", "how many", "how many? ", "how\n", "how\n\n", "?", ""):
        question = layout.question(q)
        start = layout.opening + q + "\n\n"
        assert question + layout.agent("plan it", True, q) == at_once(f"{start}plan it{layout.closing}")
        assert question + layout.agent("plan it", False, q) == at_once(f"{start}plan it")
        assert question + layout.decision("x", turn="same", question=q) == at_once(f"{start}x{layout.closing}")
        assert question + layout.decision("x", question=q) == at_once(f"{start}{layout.next_turn}x{layout.closing}")


def test_nothing_is_put_in_front_of_a_piece(letters: PreTrainedTokenizerFast) -> None:
    class Beginning:
        """A tokenizer that opens every text with a token of its own unless told not to."""

        chat_template = CHATML
        apply_chat_template = staticmethod(letters.apply_chat_template)

        def __call__(self, text: str, add_special_tokens: bool = True) -> dict[str, list[int]]:
            ids = letters(text, add_special_tokens=False)["input_ids"]
            return {"input_ids": [9999, *ids] if add_special_tokens else ids}

    layout = ChatLayout.of(Beginning())
    decision = layout.decision("decide", question="how?")
    for tokens in (layout.question("how?"), layout.agent("plan", True, "how?"), decision):
        assert 9999 not in tokens


def test_an_agent_that_does_not_think_leaves_the_turn_open(tiny_tokenizer: Any) -> None:
    layout = ChatLayout.of(tiny_tokenizer)
    thinks, reads = layout.agent("find it", True, "how ?"), layout.agent("find it", False, "how ?")
    assert tiny_tokenizer.decode(reads).split() == ["find", "it"]
    assert tiny_tokenizer.decode(thinks).split() == ["find", "it", "<|im_end|>", "<|im_start|>", "assistant"]


def test_words_put_into_the_decision_makers_mouth_come_last(tiny_tokenizer: Any) -> None:
    tokens = ChatLayout.of(tiny_tokenizer).decision("find it", "answer :", question="how ?")
    words = ["<|im_end|>", "<|im_start|>", "user", "find", "it", "<|im_end|>", "<|im_start|>", "assistant"]
    assert tiny_tokenizer.decode(tokens).split() == [*words, "answer", ":"]


@pytest.mark.parametrize(
    "rendered",
    [
        lambda talk: "<user></><assistant>",  # drops all
        lambda talk: "".join(m["content"] for m in talk if m["role"] == "user"),  # drops the assistant's
        lambda talk: talk[-1]["content"],  # keeps the last turn only
        lambda talk: "".join(2 * m["content"] for m in talk),  # says all twice
        lambda talk: "".join(m["content"].replace("\u27e8", "<") for m in talk),  # changes them
    ],
)
def test_a_template_that_does_not_keep_its_words_is_refused(rendered: Any) -> None:
    with pytest.raises(ModelError, match="chat template changes or drops the words of its turns"):
        ChatLayout.of(Stub(rendered))


@pytest.mark.parametrize("template", [None, ""])
def test_a_tokenizer_without_a_template_is_refused(template: str | None) -> None:
    with pytest.raises(ModelError, match="no chat template; use an instruction-tuned model"):
        ChatLayout.of(SimpleNamespace(chat_template=template))


def test_words_that_make_no_token_are_refused(tiny_tokenizer: Any) -> None:
    with pytest.raises(ConfigError, match="makes no token of"):
        ChatLayout.of(tiny_tokenizer).agent(" ", thinks=False, question="how ?")


def test_an_unknown_turn_is_refused(tiny_tokenizer: Any) -> None:
    with pytest.raises(ConfigError, match="unknown decision turn 'old'; choose one of: new, same"):
        ChatLayout.of(tiny_tokenizer).decision("x", turn="old", question="how ?")


def test_with_the_question_last_agents_words_are_the_same_for_every_question(tiny_tokenizer: Any) -> None:
    layout = QuestionLast.of(tiny_tokenizer)
    one, other = "how many ?", "is it blue ?"
    assert layout.question(one) == layout.question(other) == layout.question("")
    assert layout.agent("the box", False, one) == layout.agent("the box", False, other)
    for turn in DECISION_TURNS:
        asked = layout.decision("find it", "answer :", turn, question=one)
        whole = layout.question(one) + layout.agent("the box", False, one) + asked
        text = tiny_tokenizer.decode(whole)
        assert [text.count(words) for words in ("the box", one, "find it", "answer :")] == [1, 1, 1, 1]
        assert text.index("the box") < text.index(one) < text.index("find it") < text.index("answer :")
        assert whole == layout.in_one(one, "the box", "find it", "answer :", turn)
        assert layout.in_one(one, "", "find it", "", turn) == layout.in_one(one, "", "find it", "", "same")


def test_with_the_question_last_a_thinking_agent_closes_its_turn(tiny_tokenizer: Any) -> None:
    layout = QuestionLast.of(tiny_tokenizer)
    assert layout.agent("the box", True, "how ?")[: len(layout.agent("the box", False, ""))] == layout.agent(
        "the box", False, ""
    )
    assert tiny_tokenizer.decode(layout.agent("the box", True, "")).endswith("assistant")


def test_with_the_question_last_something_must_stand_before_the_words() -> None:
    def bare(talk: list[dict[str, str]]) -> str:
        return "".join(f"{turn['content']};" for turn in talk)

    with pytest.raises(ModelError, match=r"no token before .*use question='first'"):
        QuestionLast.of(Stub(bare)).question("how ?")


def test_an_unknown_turn_is_refused_with_the_question_last(tiny_tokenizer: Any) -> None:
    with pytest.raises(ConfigError, match="unknown decision turn 'old'"):
        QuestionLast.of(tiny_tokenizer).decision("x", turn="old", question="how ?")
