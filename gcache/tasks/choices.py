"""Reading which choice a text states.

As with numbers, the reader never guesses. A letter counts where the text says that it is the answer, in one of these
ways, and nowhere else; the words of a choice, where they are known, count as its letter does:

    \\boxed{C}      #### C      the answer is (C)      C is correct      I choose C      So C.
    a text, or a last line, that is "C" alone        a text that opens with "C)" or "C."

The strongest way that the text has decides, in that order: box, ####, a sentence, the rest. A letter after a name
("Vitamin C", "Hepatitis B") is a part of the name. "The answer is not (C)" states nothing, and takes back an earlier
(C); "A or B" and two different statements state two, which is none; see `gcache.tasks.statements`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from gcache.tasks.example import Example, Grade
from gcache.tasks.grading import last_box
from gcache.tasks.stance import plain
from gcache.tasks.statements import MOST, Mention, stated_value

LETTERS = "ABCDEFGHIJ"
_BOX, _HASHES, _SAID, _ALONE = range(4)  # how strongly a way speaks

_OPEN = r"[\s*_`\"'$({\[\\]{0,6}"  # marks before a letter
_CLOSE = r"[\s*_`\"'$)\]}.]{0,6}"
_OPTION = r"(?i:(?:the[ ])?(?:option|choice|letter|answer)\b[ ]?)?"
_HEDGE = (
    r"(?i:(?:[ ]*\b(?:not|never|probably|most[ ]likely|likely|definitely|clearly|certainly|therefore|thus"
    r"|simply|just|only"
    r"|actually|indeed|surely|obviously|then|rather|either|neither|i[ ]think|i[ ]believe|in[ ]fact"
    r"|of[ ]course)\b,?){0,3})"
)
_IS = r"(?i:\b(?:is|be|was|equals)\b|\b(?:is|was|ca|could|would|should)n't\b(?:[ ]be\b)?|\bcannot[ ]be\b|'s\b)"
_NAMES = r"(?i:\b(?:answer|(?:correct|right|best|final|my)[ ](?:option|choice|letter|pick|guess))\b)"
_LETTER = r"(?P<letter>[A-Ja-j])(?![A-Za-z0-9'])"
_WAYS = (
    re.compile(  # a heading
        rf"(?i:\b(?:final|correct)[ ]answer\b)(?P<between>)[ *_:]*\n[\s*_]*{_OPTION}{_OPEN}{_LETTER}(?=[).:*\s]|$)"
    ),
    re.compile(rf"{_NAMES}(?P<between>[^.\n:=?!]{{0,60}}?)(?:{_IS}|[:=>]){_HEDGE}[ ]*{_OPTION}{_OPEN}{_LETTER}"),
    re.compile(
        r"(?i:\b(?:I|we)(?:'d|'ll|[ ]would|[ ]will|[ ]must|[ ]do|[ ]did|[ ]can)?(?:[ ]not|n't|[ ]never|[ ]\w+ly)?[ ]"
        r"(?:choose|chose|pick|picked|select|selected|go[ ]with|going[ ]with|went[ ]with|opt[ ]for|vote[ ]for)\b)"
        rf"(?P<between>)[ ]*{_OPTION}{_OPEN}{_LETTER}"
    ),
    re.compile(
        r"(?i:(?:^|(?<=[.!?\n,;])\s*)[\s*_]*(?:so|therefore|thus|hence|in[ ]conclusion|finally|that[ ]leaves"
        r"|this[ ]leaves)\b[,:]?)"
        rf"(?P<between>)(?i:[ ]*(?:it(?:'s|[ ]is|[ ]must[ ]be)|we[ ]choose|choose|pick"
        rf"|only))?{_HEDGE}[ ]*{_OPTION}{_OPEN}{_LETTER}"
        rf"(?={_CLOSE}(?:$|\n|(?<=[.!])\s))"
    ),
    re.compile(
        rf"(?i:\b(?:it|that)(?:'s|[ ]is|[ ]must[ ]be)\b)(?P<between>){_HEDGE}[ ]*{_OPTION}{_OPEN}{_LETTER}"
        rf"(?={_CLOSE}(?:$|\n|(?<=[.!])\s|[,;]))"
    ),
    re.compile(
        rf"(?i:(?:\bnot|n't)\b)[ ]*{_OPTION}{_OPEN}[A-J]{_CLOSE},?[ ](?i:but(?:[ ]rather)?)(?P<between>)"
        rf"[ ]*{_OPTION}{_OPEN}{_LETTER}"
    ),
    re.compile(
        rf"(?im:^[\s*_]*(?:final[ ])?(?:answer|option|choice))(?P<between>)[ ]+{_OPEN}{_LETTER}(?={_CLOSE}(?m:$))"
    ),
    re.compile(rf"(?i:\banswer)(?P<between>)[ ]+\({_LETTER}(?=\))"),
)
#: "C is correct", where C begins a clause: "Vitamin C is the best" names a vitamin.
_CLAIM = re.compile(
    rf"(?P<before>(?:^|[.!?,;:\n(]|(?i:\b(?:so|therefore|thus|hence|that|think|believe|and|but|option|choice"
    rf"|letter|answer|then"
    rf"|clearly|obviously|only|conclude|say|because|since|while|whereas|is|if|suppose|assume"
    rf"|not)\b)))[\s*_`\"'$({{\[]{{0,6}}"
    rf"(?P<letter>[A-J])(?![A-Za-z0-9']){_CLOSE}[ ]*(?P<between>)"
    r"(?i:(?:is|was|seems|looks|must[ ]be|should[ ]be)(?:n't)?(?:[ ](?:not|clearly|definitely|therefore"
    r"|probably|also|indeed))*"
    r"[ ](?:the[ ])?(?:\w+[ ])?(?:correct|right|best|answer|true|wrong|incorrect|false)\b"
    r"|(?:cannot|can't)[ ]be[ ](?:the[ ])?(?:correct|right|best|answer))"
)
_HASH_LINE = re.compile(rf"(?<!#)####(?!#)[ \t]*{_OPTION}{_OPEN}{_LETTER}(?P<between>)")
_ANOTHER = re.compile(
    r"[\s*_`\"'$)\]}]{0,6}(?:,|/|&|\+|(?i:,?[ ]?\b(?:and|or|and/or)\b))[\s*_`\"'$(\[{]{0,6}(?i:(?:maybe|perhaps"
    r"|even|the)[ ])?"
    r"(?i:(?:option|choice)[ ])?[A-Ja-j](?![A-Za-z0-9'])(?![\s*)\]]{0,3}(?i:[ ](?:is|was|has|would|does|are)\b))"
)
#: After a letter that is a word, too: what shows that it was meant as a letter.
_AS_A_LETTER = re.compile(
    r"[\s*_`\"'$]{0,4}(?:$|\n|[).:,;\]}*?!]|(?i:[ ](?:because|since|as|which|due|given|for|and|or|with|but|not"
    r"|rather)\b))"
)
#: After a letter: what makes it a name, as in "C. difficile".
_GENUS = re.compile(r"\.[ ](?!(?:because|since|as|so|it|the|that|this)\b)[a-z]+(?:[ .,)]|$)")
_BARE = re.compile(rf"(?i:(?:option|choice|letter)[ ])?{_OPEN}(?P<letter>[A-Ja-j])[\s*_`\"'$)}}\].:]{{0,6}}")
#: "B, because ...", "B - the aorta"; an article is none.
_OPENING = re.compile(
    rf"{_OPEN}(?P<letter>[A-J]){_CLOSE}"
    r"(?:[ ]*,|[ ]+[-\u2013\u2014][ ]|[ ]*\u2014|[ ]+(?i:because|since|due[ ]to)[ ]+\w)"
)
_LABEL = re.compile(r"(?m)^[ \t*_]{0,4}\(?(?P<letter>[A-J])[).:](?=[\s*]|$)")
_LISTED = re.compile(r"(?m)^([A-J])\) (.+)$")


def extract_choice(text: str, letters: Sequence[str] = LETTERS, choices: Sequence[str] = ()) -> str | None:
    """The choice that a text states, as a capital letter; None where it states none, or several.

    Args:
        letters: those of the choices there are; any other letter is no answer.
        choices: their words, in the order of the letters, where these are to count as well.
    """
    text = plain(text)
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
    listed = _LISTED.findall(example.question)[-len(letters) :]
    known = [words for _, words in listed] if [letter for letter, _ in listed] == list(letters) else []
    return grade_choice(text, example.answer, letters, known)


def _mentions(text: str, words: dict[str, str]) -> Iterator[Mention]:
    box = last_box(text)
    if box is not None:
        start = text.rindex(box)
        yield _boxed(box, start, words)
    for match in list(_HASH_LINE.finditer(text))[-MOST:]:
        if _is_letter(text, match):
            yield _mention(text, match, _HASHES, words)
    for way in (*_WAYS, _CLAIM):
        for match in list(way.finditer(text))[-MOST:]:
            if _is_letter(text, match):
                yield _mention(text, match, _SAID, words)
    if words:
        yield from _in_words(text, words)
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


def _mention(text: str, match: re.Match[str], rank: int, words: dict[str, str]) -> Mention:
    letter, end = match["letter"].upper(), match.end("letter")
    others = [other for name, other in words.items() if name != letter]
    another = _words_at(text, re.compile(r"[\s*_`\"')\].:,-]{1,6}").match(text, end), others, words.get(letter, ""))
    several = another or bool(_ANOTHER.match(text, end))
    return Mention(match.start("letter"), end, letter, rank, several)


def _words_at(text: str, gap: re.Match[str] | None, others: Sequence[str], own: str) -> bool:
    """Whether the words after a letter are those of another choice: "(B) Aspirin", where Aspirin is (C)."""
    if gap is None:
        return False
    said = " ".join(text[gap.end() : gap.end() + 200].split()).lower()
    begun = [choice for choice in (*others, own) if choice and re.match(rf"{re.escape(choice.lower())}(?!\w)", said)]
    return bool(begun) and max(begun, key=len) != own


def _boxed(box: str, start: int, words: dict[str, str]) -> Mention:
    inside = re.sub(r"\\(?:text|mathrm|mathbf|textbf)\s?\{", "{", box).replace("{", " ").replace("}", " ").strip()
    bare = _BARE.match(inside)
    alone = bare is not None and (bare.end() == len(inside) or inside[bare.end("letter")] in ").:")
    if bare and alone and not _ANOTHER.match(inside, bare.end("letter")):
        return Mention(start, start + len(box), bare["letter"].upper(), _BOX, marked=True)
    named = [letter for letter, choice in words.items() if choice.lower() == " ".join(inside.lower().split())]
    value = named[0] if len(named) == 1 else ""
    return Mention(start, start + len(box), value, _BOX, several=not value, marked=True)


def _in_words(text: str, words: dict[str, str]) -> Iterator[Mention]:
    """ "The answer is Aspirin", "Aspirin is correct", where that is a choice."""
    letters = {choice.lower(): letter for letter, choice in words.items()}
    either = "|".join(r"\s+".join(map(re.escape, c.split())) for c in sorted(words.values(), key=len, reverse=True))
    stop = (
        r"(?!\w)(?=[\s*_`\"'$)\]}]{0,4}(?:$|\n|[.,;:!?]"
        r"|(?i:\b(?:because|since|as|which|due|given|but|not|rather|is|and|or)\b)))"
    )
    ways = (
        rf"{_NAMES}[^.\n:=?!]{{0,60}}?(?:{_IS}|[:=]){_HEDGE}[ ]*{_OPEN}(?i:the[ ])?(?P<words>(?i:{either})){stop}",
        rf"(?:^|[.!?,;:\n]|(?i:\b(?:so|therefore|thus|hence"
        rf"|that)\b))\s*{_OPEN}(?i:the[ ])?(?P<words>(?i:{either})){_CLOSE}"
        r"[ ]*(?i:(?:is|was)(?:n't|[ ]not)?[ ](?:the[ ])?(?:correct|right|best|answer|wrong|incorrect)\b)",
        rf"(?<!#)####(?!#)[ \t]*{_OPEN}(?P<words>(?i:{either})){stop}",
    )
    for rank, way in zip((_SAID, _SAID, _HASHES), ways, strict=True):
        for match in list(re.finditer(way, text))[-MOST:]:
            letter = letters[" ".join(match["words"].lower().split())]
            end = match.end("words")
            several = bool(re.match(r"(?i)\W{0,4}(?:or|and)\b(?! not\b)", text[end : end + 12]))
            yield Mention(match.start("words"), match.end("words"), letter, rank, several)


def _is_letter(text: str, match: re.Match[str]) -> bool:
    """Whether what was matched is a letter of a choice: not an article, a pronoun or a word's start,
    not a list of choices."""
    letter, rest = match["letter"], text[match.end("letter") : match.end("letter") + 40]
    if re.search(r"(?i)choices|options|letters", match["between"]):
        return False
    marked = text[match.start("letter") - 1 : match.start("letter")] in ("(", "[", "*", "{")
    if _GENUS.match(rest):
        return match.re is _HASH_LINE or marked
    if letter.islower() or letter in "AI":
        return bool(_AS_A_LETTER.match(rest)) or (marked and letter.isupper()) or match.re is _CLAIM
    return True


def _standing_alone(text: str, words: dict[str, str]) -> Mention | None:
    """The letter that is all there is, or the last line, or what the text opens with."""
    lines = [line for line in text.strip().splitlines() if line.strip()] if len(text) < 100_000 else []
    for line in lines[-1:]:
        at = text.rindex(line.strip())
        bare = _BARE.fullmatch(line.strip())
        if bare and (bare["letter"].isupper() or len(lines) == 1 or line.strip()[0] in "(["):
            return Mention(at + bare.start("letter"), at + bare.end("letter"), bare["letter"].upper(), _ALONE)
        if len(lines) > 1:  # a list may end in the words of a choice
            continue
        said = " ".join(re.sub(r"^[\W_]+|[\W_]+$", "", line).lower().split())
        named = [letter for letter, choice in words.items() if said == re.sub(r"^[\W_]+|[\W_]+$", "", choice).lower()]
        if len(named) == 1 and not line.rstrip().endswith("?"):
            return Mention(at, at + len(line.strip()), named[0], _ALONE)
    begins = _OPENING.match(text.lstrip()[:100])
    if begins:
        start = len(text) - len(text.lstrip())
        end = start + begins.end("letter")
        several = bool(_ANOTHER.match(text, end))
        return Mention(start + begins.start("letter"), end, begins["letter"], _ALONE, several)
    labels = list(_LABEL.finditer(text[:5000]))
    opens = bool(lines) and bool(labels) and not text[: labels[0].start()].strip()
    if opens and len({label["letter"] for label in labels}) == 1:
        return _mention(text, labels[0], _ALONE, words)
    return None
