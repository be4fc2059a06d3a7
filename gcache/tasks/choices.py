"""Reading which choice a text states.

As with numbers, the reader never guesses. A letter counts where the text says that it is the
answer, in one of these ways, and nowhere else:

    \\boxed{C}      #### C      the answer is (C)      C is correct      I choose C
    a text, or a last line, that is "C" alone        a text that opens with "C)" or "C."

The first way that the text has decides, in that order, the last place of it. "The answer is not
(C)" states nothing, and takes back an earlier (C); "A or B" states two, which is none.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from gcache.tasks.example import Example, Grade
from gcache.tasks.grading import last_box

LETTERS = "ABCDEFGHIJ"
_LAST_FEW = 20  # statements that are looked at, from the last one backwards

_OPEN = r"[\s*_`\"'$({\[]{0,6}"  # marks before a letter
_STATED = re.compile(
    r"(?i:\b(?:answer|(?:correct|right|best|final)[ ](?:option|choice|letter))\b)"
    r"(?P<between>[^.\n:=]{0,60}?)(?:(?i:\b(?:is|be|was)\b)|[:=])(?P<not>(?i:[ ]*(?:definitely[ ])?not\b)?)"
    rf"(?i:[ ]*(?:option|choice|letter)\b)?{_OPEN}(?P<letter>[A-Ja-j])(?![A-Za-z0-9'\u2019])"
)
_CHOSEN = re.compile(
    r"(?i:\bI(?:['\u2019]d|[ ]would)?[ ](?:choose|chose|pick|select|go[ ]with))(?P<not>)(?P<between>)"
    rf"(?i:[ ](?:option|choice|letter))?{_OPEN}(?P<letter>[A-Ja-j])(?![A-Za-z0-9'\u2019])"
)
_CORRECT = re.compile(
    rf"(?<![A-Za-z0-9]){_OPEN}(?P<letter>[A-J])[\s*_`\"'$)\]}}.]{{0,6}}[ ](?i:is)(?P<not>(?i:[ ]not)?)(?P<between>)"
    r"(?i:[ ](?:the[ ])?(?:correct|right|best|answer)\b)"
)
_HASHES = re.compile(rf"(?<!#)####(?!#)[ \t]*{_OPEN}(?P<letter>[A-Ja-j])(?![A-Za-z0-9])(?P<not>)(?P<between>)")
_ANOTHER = re.compile(
    r"[\s*_`\"'$)\]}]{0,6}(?:,|/|&|(?i:\band\b|\bor\b))[\s*_`\"'$(\[]{0,6}(?:(?i:option|choice)[ ])?"
    r"[A-Ja-j](?![A-Za-z0-9'\u2019])(?![\s*)\]]{0,3}(?i:[ ](?:is|was|has|would|does)\b))"
)
#: After a letter that is a word, too: what shows that it was meant as a letter.
_AS_A_LETTER = re.compile(
    r"[\s*_`\"'$]{0,4}(?:$|\n|[).:,;\]}*]|(?i:[ ](?:because|since|as|which|due|given|for|and|or|with)\b))"
)
_ALONE = re.compile(rf"{_OPEN}(?P<letter>[A-Ja-j])[\s*_`\"'$)}}\].:]{{0,6}}")
_LABEL = re.compile(r"(?m)^[ \t*_]{0,4}\(?(?P<letter>[A-J])[).:](?=[\s*]|$)")


def extract_choice(text: str, letters: Sequence[str] = LETTERS) -> str | None:
    """The choice that a text states, as a capital letter; None where it states none, or several.

    Args:
        letters: those of the choices there are; any other letter is no answer.
    """
    letter = _stated(text)
    return letter if letter is not None and letter in letters else None


def grade_choice(text: str, answer: str, letters: Sequence[str] = LETTERS) -> Grade:
    """Grade a text whose right answer is one of `letters`: `unparsed` where it states none."""
    stated = extract_choice(text, letters)
    if stated is None:
        return Grade("unparsed")
    return Grade("right" if stated == answer else "wrong", stated)


def grade_example(text: str, example: Example) -> Grade:
    """`grade_choice` with as many letters as the example has choices (`meta["choices"]`)."""
    return grade_choice(text, example.answer, LETTERS[: int(example.meta["choices"])])


def _stated(text: str) -> str | None:
    box = last_box(text)
    if box is not None:
        inside = re.sub(r"\\(?:text|mathrm|mathbf|textbf)\s?\{", "{", box).replace("{", " ").replace("}", " ").strip()
        alone = _ALONE.match(inside)
        bare = alone is not None and (alone.end() == len(inside) or inside[alone.end("letter")] in ").:")
        return alone["letter"].upper() if alone and bare and not _ANOTHER.match(inside, alone.end("letter")) else None
    found = [m for m in _HASHES.finditer(text) if _is_letter(text, m)]
    if not found:
        found = sorted(
            (m for way in (_STATED, _CHOSEN, _CORRECT) for m in way.finditer(text) if _is_letter(text, m)),
            key=lambda m: m.start("letter"),
        )
    if found:
        return _last(text, found[-_LAST_FEW:])
    return _standing_alone(text)


def _is_letter(text: str, match: re.Match[str]) -> bool:
    """Whether what was matched is a letter of a choice: not an article, a pronoun or a word's start,
    not a list of choices, not a question."""
    letter, rest = match["letter"], text[match.end("letter") : match.end("letter") + 40]
    if re.search(r"(?i)choices|options|letters", match["between"]) or re.match(r"[\s*)\]]{0,3}\?", rest):
        return False
    marked = text[match.start("letter") - 1 : match.start("letter")] in ("(", "[", "*", "{")
    if letter.islower() or letter in "AI":
        return bool(_AS_A_LETTER.match(rest)) or (marked and letter.isupper()) or match.re is _CORRECT
    return True


def _last(text: str, found: Sequence[re.Match[str]]) -> str | None:
    """The letter of the last statement that none after it takes back."""
    denied: set[str] = set()
    for match in reversed(found):
        letter = match["letter"].upper()
        if match["not"]:
            denied.add(letter)
            continue
        if letter in denied or _ANOTHER.match(text, match.end("letter")):
            return None
        return letter
    return None


def _standing_alone(text: str) -> str | None:
    """The letter that is all there is, or the last line, or what the text opens with."""
    lines = [line for line in text.strip().splitlines() if line.strip()] if len(text) < 100_000 else []
    for line in lines[-1:]:
        alone = _ALONE.fullmatch(line.strip())
        if alone and (alone["letter"].isupper() or len(lines) == 1 or line.strip()[0] in "(["):
            return alone["letter"].upper()
    labels = list(_LABEL.finditer(text[:5000]))
    opens = bool(lines) and bool(labels) and not text[: labels[0].start()].strip()
    if opens and len({label["letter"] for label in labels}) == 1:
        return labels[0]["letter"]
    return None
