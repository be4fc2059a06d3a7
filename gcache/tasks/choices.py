"""Reading which choice a text states.

As with numbers, the reader never guesses. A letter counts where the text says that it is the answer, in one of these
ways, and nowhere else; the words of a choice, where they are known, count as its letter does:

    \\boxed{C}      #### C      the answer is (C)      C is correct      I choose C      So C.
    a text, or a last line, that is "C" alone        a text that opens with "C)" or "C."

The strongest way that the text has decides, in that order: box, ####, a sentence, the rest. What a sentence may say is
in `gcache.tasks.choice_statements`. "The answer is not (C)" states nothing, and takes back an earlier (C); "A or B",
two different statements, or a letter beside the words of another choice state two, which is none; see
`gcache.tasks.statements`. A letter of another alphabet that looks like C is none.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise

from gcache.tasks.choice_statements import OPEN, ends_well, hash_lines, letters_in, words_in
from gcache.tasks.example import Example, Grade
from gcache.tasks.number_statements import boxes
from gcache.tasks.stance import plain, sentence_at, stance
from gcache.tasks.statements import MOST, Mention, stated_value

LETTERS = "ABCDEFGHIJ"
_BOX, _HASHES, _SAID, _ALONE = range(4)  # how strongly a way speaks

_MACRO = re.compile(r"\\(?:text(?:bf|it|rm|sf|tt)?|math(?:rm|bf|it|sf|tt)|bf|rm)\s?\{([^{}]{0,300})\}")
_MATH = re.compile(r"\\[()\[\]]")
_ANOTHER = re.compile(
    r"[\s*_`\"'$)\]}]{0,6}(?:,|/|&|\+|[-\u2013]|(?i:,?[ ]?\b(?:and|or|and/or|through|to|versus"
    r"|vs)\b))[\s*_`\"'$(\[{]{0,6}"
    r"(?i:(?:maybe|perhaps|possibly|even|the)[ ])?(?i:(?:option|choice)[ ])?(?P<other>[A-Za-j])(?![\w'])"
    r"(?![\s*)\]]{0,3}(?i:[ ](?:is|was|has|would|does|are)\b))"
)
_BARE = re.compile(rf"(?i:(?:option|choice|letter)[ ])?{OPEN}(?P<letter>[A-Ja-j])[\s*_`\"'$)}}\].:!>]{{0,6}}")
#: "B, because ...", "B - the aorta"; an article is none.
_OPENING = re.compile(
    rf"{OPEN}(?P<letter>[A-J])[\s*_`\"'$)\]}}.]{{0,6}}(?:[ ]*,?[ ](?i:not|rather[ ]than"
    r"|instead[ ]of)\b|[ ]*,[ ](?i:because|since|as|due|given|for|it|this|that|the"
    rf"|and|or)\b"
    r"|[ ]*,[ ]?[A-J]\b|[ ]+[-\u2013\u2014][ ](?!(?i:wrong|false|incorrect|no)\b)|[ ]*\u2014|[ ]+(?i:because|since"
    r"|due[ ]to)[ ]+\w)"
)
_LABEL = re.compile(r"(?m)^[ \t*_]{0,4}\(?(?P<letter>[A-J])(?P<mark>[).:])(?=[\s*]|$)")
#: What may stand behind a label that is no choice's words: a reason.
_REASON = re.compile(
    r"(?i)\W*(?:$|(?:because|since|as|it|this|that|the|these|they|he|she|his|her|by|due|based|in|we|i|a|an|explanation"
    r"|reason"
    r"(?:ing)?|is|was|isn't|cannot|can't|not)\b)"
)
_ANSWER_TO_COME = re.compile(r"(?i)\W*(?:the|my)\s+(?:\w+\s+)?answer\b")
_CONCLUSION = re.compile(r"(?i)\b(?:conclusion|therefore|so|thus|hence|verdict|decision|summary)\W*$")
_ASKED = re.compile(r"(?i)\b(?:answer|correct|right|which|choice|option|choose|pick|best)\b[^?]*\?\s*([^?\n]{1,20})$")
_NAMES_ITSELF = re.compile(r"(?i)[\s*_`\"']{0,4}[(\[](?:option |choice )?([A-J])[)\]]")
_JOINED = re.compile(r"(?i)[\s$]*(?:\b(?:or|and)\b|[,/])[\s$]*")
_LISTED = re.compile(r"(?m)^([A-J])\) (.+)$")


def extract_choice(text: str, letters: Sequence[str] = LETTERS, choices: Sequence[str] = ()) -> str | None:
    """The choice that a text states, as a capital letter; None where it states none, or several.

    Args:
        letters: those of the choices there are; any other letter is no answer.
        choices: their words, in the order of the letters, where these are to count as well.
    """
    text = _MATH.sub("$", _MACRO.sub(r"\1", plain(text)))
    words = {letter: " ".join(choice.split()) for letter, choice in zip(letters, choices, strict=False)}
    letter = stated_value(text, _apart(_mentions(text, words)))
    return letter if letter is not None and letter in letters else None


def grade_choice(
    text: str, answer: str, letters: Sequence[str] = LETTERS, choices: Sequence[str] = ()
) -> Grade:
    """Grade a text whose right answer is one of `letters`: `unparsed` where it states none. See `extract_choice`."""
    stated = extract_choice(text, letters, choices)
    if stated is None:
        return Grade("unparsed")
    return Grade("right" if stated == answer else "wrong", stated)


def grade_example(text: str, example: Example) -> Grade:
    """`grade_choice` with as many letters as the example has choices (`meta["choices"]`), and the words that its
    question lists behind them."""
    letters = LETTERS[: int(example.meta["choices"])]
    listed = listed_choices(example.question)
    known = list(listed.values()) if list(listed) == list(letters) else []
    return grade_choice(text, example.answer, letters, known)


def listed_choices(question: str) -> dict[str, str]:
    """The choices that a question lists last, by letter: lines "A) words", "B) words" and so on."""
    found: dict[str, str] = {}
    for letter, words in _LISTED.findall(question):
        if letter == LETTERS[0]:
            found = {}
        if letter == LETTERS[len(found) : len(found) + 1]:
            found[letter] = words
        else:
            found = {}
    return found


def _mentions(text: str, words: dict[str, str]) -> Iterator[Mention]:
    yield from _boxed(text, words)
    for start, end, letter, heading in hash_lines(text):
        line = text[end:].split("\n", 1)[0]
        others = _words_behind(text, end, words)
        meant = not re.search(r"\w|[+#]", line) or bool(others) or _another(text, start, end)
        if meant and not (heading and text[end + len(line) :].strip()):
            yield _mention(text, start, end, letter, _HASHES, words)
    for start, end, letter, claimed in letters_in(text):
        own = words.get(letter.upper(), "") in _words_behind(text, end, words)
        if claimed and stance(sentence_at(text, start, end)) != "denied" and _says_wrong(text, end):
            continue
        if claimed or own or ends_well(text, start, end) or _words_behind(text, end, words):
            yield _mention(text, start, end, letter, _SAID, words)
    for start, end, letter, hashes in words_in(text, words):
        itself = _NAMES_ITSELF.match(text, end)
        several = bool(re.match(r"(?i)\W{0,4}(?:or|and)\b(?! not\b)", text[end : end + 12]))
        several = several or bool(itself and itself[1].upper() != letter)
        yield Mention(start, end, letter, _HASHES if hashes else _SAID, several)
    alone = _standing_alone(text, words)
    if alone is not None:
        yield alone


def _apart(found: Iterator[Mention]) -> list[Mention]:
    """In order, one for each place."""
    apart: list[Mention] = []
    for mention in sorted(found, key=lambda m: (m.start, m.rank)):
        if not apart or mention.start >= apart[-1].end:
            apart.append(mention)
    return apart[-MOST:]


def _mention(text: str, start: int, end: int, letter: str, rank: int, words: Mapping[str, str]) -> Mention:
    behind = _words_behind(text, end, words)
    several = _another(text, start, end) or bool(behind and words.get(letter.upper()) not in behind)
    return Mention(start, end, letter.upper(), rank, several)


def _another(text: str, start: int, end: int) -> bool:
    """Whether a letter is one of several: "C, D", not "C, a drug" or "C, I think"."""
    found = _ANOTHER.match(text, end)
    if found is None:
        return False
    other = found["other"]
    if other.islower() and text[start:end].isupper():
        return False
    return other not in "AaI" or ends_well(text, found.start("other"), found.end("other"))


def _says_wrong(text: str, end: int) -> bool:
    return bool(re.match(r"[^.!?;\n]{0,60}\b(?:wrong|incorrect|false|not)\b", text[end : end + 80]))


def _words_behind(text: str, end: int, words: Mapping[str, str]) -> list[str]:
    """The words of a choice that stand right behind a letter: "(B) Aspirin", "B, which is Aspirin"."""
    gap = re.compile(
        r"[\s*_`\"')\].:,(=\u2013\u2014-]{1,6}(?:(?:which|that) is |namely,? |i\.e\.,? |for )?(?:the )?", re.IGNORECASE
    ).match(text, end)
    if gap is None:
        return []
    said = " ".join(text[gap.end() : gap.end() + 200].split()).lower()
    article = "the " if gap.group().lower().endswith("the ") else ""
    begun = [
        choice
        for choice in words.values()
        if choice and any(re.match(rf"{re.escape(choice.lower())}(?!\w)", each) for each in (said, article + said))
    ]
    longest = max(map(len, begun), default=0)
    return [choice for choice in begun if len(choice) == longest]


def _boxed(text: str, words: Mapping[str, str]) -> Iterator[Mention]:
    """All boxes with a letter or the words of a choice, and the last one."""
    found = boxes(text)
    for place, (start, _, box) in enumerate(found):
        start = text.index(box, start)
        near = pairwise(found[max(0, place - 1) : place + 2])
        joined = any(_JOINED.fullmatch(text, one[1], two[0]) for one, two in near)
        inside = re.sub(r"\\[ ,;]|[{}$]", " ", box).strip()
        bare = _BARE.match(inside)
        value = ""
        if bare and (bare.end() == len(inside) or inside[bare.end("letter")] in ").:"):
            behind = _words_behind(inside, bare.end("letter"), words)
            letter = bare["letter"].upper()
            if not _another(inside, bare.start("letter"), bare.end("letter")):
                value = letter if not behind or words.get(letter) in behind else ""
        else:
            named = [letter for letter, choice in words.items() if choice.lower() == " ".join(inside.lower().split())]
            value = named[0] if len(named) == 1 else ""
        if value or place == len(found) - 1:
            yield Mention(start, start + len(box), value, _BOX, several=joined or not value, marked=True)


def _standing_alone(text: str, words: Mapping[str, str]) -> Mention | None:
    """The letter that is all there is, or the last line, or what the text opens with."""
    if len(text) >= 100_000 or not text.strip():
        return None
    return _last_line(text, words) or _opening(text, words)


def _last_line(text: str, words: Mapping[str, str]) -> Mention | None:
    lines = [line.strip() for line in text.strip().splitlines() if line.strip()]
    line = lines[-1] if lines else ""
    first = _BARE.fullmatch(lines[0]) if len(lines) > 1 and not any(map(_BARE.fullmatch, lines[1:12])) else None
    if first and first["letter"].isupper() and lines[0] != "A:":
        at = text.index(lines[0])
        return Mention(at + first.start("letter"), at + first.end("letter"), first["letter"], _ALONE)
    line = re.sub(r"^(?:[-*>\u2022\u2705]\s+)+", "", line)
    at = text.rindex(line)
    asked = _ASKED.search(line)
    if asked:
        at, line = at + asked.start(1), asked[1]
    bare = _BARE.fullmatch(line)
    several = {other["letter"].upper() for other in map(_BARE.fullmatch, lines[-12:]) if other}
    if bare and len(several | {bare["letter"].upper()}) == 1 and line != "A:" and line.count("'") != 1:
        heading = lines[-2] if len(lines) > 1 and not asked else ""
        free = not heading.rstrip("* _").endswith(":") or _CONCLUSION.search(heading)
        if free and (bare["letter"].isupper() or len(lines) == 1 or line[0] in "(["):
            return Mention(at + bare.start("letter"), at + bare.end("letter"), bare["letter"].upper(), _ALONE)
    if len(lines) > 1:  # a list may end in the words of a choice
        return None
    said = " ".join(_trimmed(line).lower().split())
    named = [letter for letter, choice in words.items() if said == _trimmed(choice).lower()]
    if len(named) == 1 and not line.endswith("?"):
        return Mention(at, at + len(line), named[0], _ALONE)
    return None


def _trimmed(words: str) -> str:
    return re.sub(r"^[\W_]+|[\W_]+$", "", words)


def _opening(text: str, words: Mapping[str, str]) -> Mention | None:
    begins = _OPENING.match(text.lstrip()[:100])
    if begins:
        start = len(text) - len(text.lstrip()) + begins.start("letter")
        return _mention(text, start, start + 1, begins["letter"], _ALONE, words)
    labels = list(_LABEL.finditer(text[:5000]))
    if not labels or text[: labels[0].start()].strip() or len({label["letter"] for label in labels}) > 1:
        return None
    first = labels[0]
    rest = text[first.end() :].split("\n", 1)[0]
    if re.match(r"(?i)\W*(?:wrong|false|incorrect|untrue|excluded|eliminated|ruled out|distractor|no\b)", rest):
        return None
    if re.fullmatch(r"\W*(?:[A-J]\W+)+", rest + " "):
        return None  # a list of letters
    if not _words_behind(text, first.end("letter"), words):
        if _ANSWER_TO_COME.match(rest) or (first["letter"] + first["mark"] == "A:"):
            return None
        if first["mark"] == "." and re.match(r"\s[a-z]", rest) and not _REASON.match(rest):
            return None  # "C. difficile"
        own = set(re.findall(r"\w{4,}", words.get(first["letter"], "").lower()))
        if words and not _REASON.match(rest) and not own.intersection(re.findall(r"\w{4,}", rest.lower())):
            return None  # "D. Smith wrote it", where D is something else
    return _mention(text, first.start("letter"), first.end("letter"), first["letter"], _ALONE, words)
