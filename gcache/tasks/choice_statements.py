"""The sentences that state a choice: what is said to be a letter, how, and what may follow the letter.

    subject     (the | my | our) (correct | best | most likely | ...) (answer | option | statement | one | ...)
    complement  to the question, for question 3, that best fits, among these options
    verb        is, must be, seems to be, ":", "-"
    letter      C, (C), **C**, option C
    tail        the end, punctuation, or because, as, and, but, rather, ...; never another word

"The second best answer", "a common answer" and "Tom's answer" are no such subjects, and in "B cells", "C++" or
"C major" the letter is a part of a name. The words of a choice stand where its letter may. Denials are read too, for
what they take back; see `gcache.tasks.stance`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

OPEN = r"[\s*_`\"'$({\[\\<]{0,6}"  # marks before a letter
CLOSE = r"[\s*_`\"'$)\]}>.!]{0,6}"
_OPTION = r"(?i:(?:the[ ])?(?:option|choice|letter|answer|statement)\b:?[ ]?)?"
_VALUE = r"(?P<value>[A-Ja-j])(?![^\W_]|'\w|[\u0300-\u036f])"
_SURE = (
    r"most[ ](?:likely|probably)|very[ ]likely|(?:almost[ ])?(?:certainly|surely)|probably|likely|definitely|clearly"
    r"|therefore|thus|simply|just|only|actually|indeed|obviously|then|rather|now|undoubtedly|ultimately|also|i[ ]think"
    r"|i[ ]believe|in[ ]fact|of[ ]course|without[ ](?:a[ ])?doubt"
)
_ADVERBS = rf"(?i:(?:[ ]*,?[ ]*\b(?:not|never|either|neither|{_SURE})\b,?){{0,3}})"
_ADJECTIVE = (
    r"(?:(?:(?:most|overall|very)[ -]|(?:best|only)[ ](?=possible))?(?:correct|right|best|final|true|only|single"
    r"|actual|real|likely|probable"
    r"|appropriate|accurate|suitable|fitting|plausible|reasonable|(?<=best )possible|(?<=only )possible|proper"
    r"|remaining|chosen"
    r"|selected)(?:\b,?[ ](?:and[ ])?|_))"
)
_THING = (
    r"(?:option|choice|letter|pick|guess|statement|one|response|selection|alternative|solution|diagnosis|explanation)"
)
_ANSWER = r"ans(?:wer)?\b\.?"
_WHICH = r"(?:the|this|that|these|those|all|your|its)[ ]"
_WORD = r"(?!(?:is|was|by|other|another|next|last|previous|wrong|incorrect|false|not|least|example|if)\b)[\w'-]+"
_WORDS = rf"{_WORD}(?:[ ]{_WORD}){{0,7}}"
_COMPLEMENT = (
    r"(?:(?:[ ]?\([^()\n]{1,40}\)"
    rf"|,?[ ](?:to|for|in|of|on|from|among|amongst|out[ ]of|based[ ]on|given)[ ](?:{_WHICH}{_WORDS}"
    r"|(?:question|problem|q)\b[ ]?[#\w.]{0,6})"
    r"|,?[ ](?:in|according[ ]to)[ ](?:my[ ]\w+|the[ ](?:note|text|passage|table|figure|question)s?),?"
    rf"|[ ](?:that|which)[ ](?:best|most|would|should|is|fits?|match(?:es)?|answers?|completes?|describes?|explains?"
    rf"|makes?"
    rf"|appl(?:y|ies)|satisf(?:y|ies)|works?)\b[ ]?(?:{_WORDS})?"
    rf"|[ ](?:that[ ])?(?:i|we)(?:[ ](?:would|will|am|are)|'d|'ll|'m)?[ ](?:choose|chose|pick|picked|select|selected"
    rf"|give"
    r"|going[ ]with|go[ ]with)\b)?"
    r"(?:,?[ ](?:here|overall|i[ ]think|i[ ]believe|therefore|then|thus|of[ ]course|clearly|however|now)\b,?)?)"
)
_TO_BE = (
    r"(?:(?:(?:must|should|would|will|could|might|may|can|cannot|ca|has[ ]to|have[ ]to|ought[ ]to|seems?(?:[ ]to)?"
    r"|appears?[ ]to"
    r"|turns[ ]out[ ]to|is[ ]likely[ ]to|might[ ]seem[ ]to|is[ ]going[ ]to)(?:n't)?(?:[ ](?:\w+ly|well|not|only|never"
    r"|then))?"
    r"[ ]be|(?:ca|could|would|should|wo)n't[ ]be|is|be|was|equals|isn't|wasn't)\b|'s\b)"
)
_SIGN = r"[\s*_`\"']{0,4}(?:[:=]>?|->|[\u2192\u21d2>]|[ ][-\u2013\u2014](?=[ ]))"
_SUBJECT = (
    rf"(?P<subject>(?i:(?:(?P<whose>the|my|our|this)[ ](?:(?:question|problem)'s[ ])?)?"
    rf"(?:{_ADJECTIVE}{{0,3}}{_ANSWER}|{_ADJECTIVE}{{1,3}}{_THING}\b|(?<=[Mm]y[ ]){_THING}\b"
    r"|(?<=[Tt]he[ ])(?:option|choice|statement|one)(?=[ ]that[ ]))))"
)
_CHOOSES = (
    r"(?i:\b(?:I|we)(?:'d|'ll|'m|'ve|[ ]would|[ ]will|[ ]must|[ ]do|[ ]did|[ ]am|[ ]have|[ ]have[ ]to)?"
    r"(?:[ ]not|n't|[ ]never)?(?:[ ](?:definitely|therefore|thus|finally|confidently|certainly|clearly|now|still|also"
    r"|then"
    r"|ultimately))?[ ](?:choose|chose|chosen|pick|picked|select|selected|go[ ]with|going[ ]with|went[ ]with|opt[ ]for"
    r"|opted[ ]for|vote[ ]for|settle[ ]on|settled[ ]on|say|answer|conclude)\b)"
)
_BEGINS = r"(?:^|(?<=[.!?\n,;:\u2014(]))[\s*_]{0,6}"
_ENDS = rf"(?={CLOSE}(?:$|\n|(?<=[.!])\s|</))"
_CORRECTS = (
    r"(?i:(?:\b(?:oh|wait|no|nope|not|actually|sorry|oops|correction|rather|instead|hmm{1,9}|(?:scratch|strike)[ ]that"
    r"|i[ ]mean"
    r"|i[ ]meant|make[ ]that|on[ ]second[ ]thoughts?)\b[\s,.:!;\u2014-]{0,9}){1,4}"
    r"(?:(?:it|that)(?:'s|[ ]is|[ ]should[ ]be|[ ]must[ ]be)[ ])?)"
)
#: Ways to say it that need a sentence, where the value is a letter or the words of a choice.
_SENTENCES = (
    rf"{_SUBJECT}(?i:{_COMPLEMENT}(?:,?[ ]{_TO_BE}|{_TO_BE}|{_SIGN})):?{_ADVERBS}[ ]*{_OPTION}{OPEN}",
    rf"{_BEGINS}(?P<subject>{_CORRECTS}){_OPTION}{OPEN}",
    rf"(?i:(?:\bnot|n't)\b)[ ]*{_OPTION}{OPEN}(?:[A-J]|[\w \ue000]{{1,80}}){CLOSE},?[ ](?i:but(?:[ ]rather)?)"
    rf"[ ]*{_OPTION}{OPEN}",
)
_WAYS = (
    _SENTENCES[0] + _VALUE,
    _SENTENCES[1] + _VALUE + _ENDS,
    _SENTENCES[2] + _VALUE,
    rf"(?i:\b(?:final|correct|right)[ ]answer\b)[ *_:]{{0,9}}\n[\s*_]{{0,9}}{_OPTION}{OPEN}{_VALUE}(?=[).:*\s]|$)",
    rf"{_CHOOSES}[ ]*{_OPTION}{OPEN}{_VALUE}",
    rf"{_BEGINS}(?i:(?:so|therefore|thus|hence|in[ ]conclusion|finally|definitely"
    r"|probably|most[ ]likely|clearly|certainly|surely|by[ ]elimination|(?:i|we)[ ](?:think|believe)|we[ ]are|(?:that"
    r"|this|which)[ ]leaves|leaving"
    rf"|leaves)\b[,:]?)(?i:[ ]*(?:us[ ]with|left[ ]with|it(?:'s|[ ]is|[ ]must[ ]be)|(?:we|i)[ ]choose|choose|pick"
    rf"|only)){{0,2}}"
    rf"{_ADVERBS}[ ]*{_OPTION}{OPEN}{_VALUE}{_ENDS}",
    r"(?i:\b(?:it|that)(?:'s|[ ]is|[ ](?:must|should|has[ ]to)[ ]be|[ ]isn't|[ ]cannot[ ]be|[ ]can't[ ]be)\b)"
    rf"{_ADVERBS}[ ]*{_OPTION}{OPEN}"
    rf"{_VALUE}(?={CLOSE}(?:$|\n|(?<=[.!])\s|[,;]))",
    rf"(?im:^[\s*_]{{0,9}}(?:final[ ])?(?:answer|ans\.?|option|choice))[ ]+{_OPTION}{OPEN}{_VALUE}(?={CLOSE}(?m:$))",
    rf"(?i:\banswer)[ ]+\({_VALUE}(?=\))",
    rf"(?i:(?:^|[\n{{<,])[\s*_#\"'-]{{0,9}}(?:choice|option|letter|correct|right|chosen|selected|response|prediction)"
    rf"(?=[\s*_\"'`]{{0,9}}[:=>])){_SIGN}[ ]*{_OPTION}{OPEN}{_VALUE}",
    rf"(?i:\bonly[ ]){_OPTION}{OPEN}{_VALUE}"
    rf"(?={CLOSE}[ ]?(?i:(?:remains|fits|works|matches|is[ ]left|makes[ ]sense)\b))",
)
_RIGHT = (
    rf"(?:(?:the|my|our)[ ])?(?:{_ADJECTIVE}{{0,3}}(?:answer|solution)\b|{_ADJECTIVE}{{1,3}}(?:{_THING}|fit|match"
    rf"|description"
    r"|treatment|definition|conclusion)\b|(?:the[ ])?(?:(?:most|only|one)[ ])?(?:correct|right|best|true|likely"
    r"|appropriate"
    r"|accurate|suitable|fitting)\b)"
)
#: "C is correct", where C begins a clause: "Vitamin C is the best" names a vitamin.
_CLAIM = re.compile(
    r"(?:^|[.!?,;:\n(]|(?i:\b(?:so|therefore|thus|hence|that|think|believe|and|but|option|choice|letter|answer|then"
    r"|statement|clearly|obviously|only|conclude|say|because|since|while|whereas|is|if|suppose|assume|not|say)\b))"
    rf"[\s*_`\"'$({{\[]{{0,6}}(?P<value>[A-HJ]|I(?=[ ]is\b))(?!['\w]){CLOSE}[ ]*"
    rf"(?i:(?:{_TO_BE}|seems|looks|is[ ]not)(?:[ ](?:{_SURE}|not))*[ ](?:{_RIGHT}(?=\W*$|[*_)\"'\]]*[.!?,;:)\n\u2014]"
    r"|[ ](?:because|since|as|for|here|given|due|and|but|in[ ]this|among|based|so|while|whereas|not"
    r"|rather|[-\u2013\u2014]"
    r"|of[ ](?:these|those|the[ ](?:four|five|given|options|choices)))\b)|wrong\b|incorrect\b|false\b))"
)
_HASH_LINE = re.compile(rf"(?<!#)####(?!#)[ \t]*(?P<option>{_OPTION}){OPEN}{_VALUE}")
#: Stands in place of every character of the words of a choice.
_MARK = "\ue000"
_ITS_WORDS = rf"(?i:the[ ])?(?P<value>{_MARK}+)"
_STOP = (
    r"(?=[\s*_`\"'$)\]}]{0,4}(?:$|\n|</|[.;:!?(]|,(?![ ][A-Z]\w)"
    r"|(?i:\b(?:because|since|as|which|due|given|but|not|rather|is|and|or)\b)))"
)
_WAYS_OF_WORDS = tuple(
    re.compile(way)
    for way in (
        *(sentence + _ITS_WORDS + _STOP for sentence in _SENTENCES),
        rf"(?:^|[.!?,;:\n]|(?i:\b(?:so|therefore|thus|hence|that)\b))\s{{0,9}}{OPEN}{_ITS_WORDS}{CLOSE}[ ]*"
        rf"(?i:(?:{_TO_BE}|is[ ]not)(?:[ ](?:{_SURE}|not))*[ ](?:{_RIGHT}(?=\W*$|[.!?,;:)]"
        r"|[ ](?:because|since|as|for|here))|wrong\b|incorrect\b))",
        rf"(?<!#)####(?!#)[ \t]*{OPEN}{_ITS_WORDS}{_STOP}",
    )
)
_WAYS_OF_LETTERS = tuple(re.compile(way) for way in _WAYS)

#: What may follow a letter that is meant as one.
_TAIL = re.compile(
    r"[\s*_`\"$)\]}>'\u201d\u00bb]{0,6}(?:$|\n|</|[.,;:!?)\]}\u2014\u2026]|[ ]?\(|[ ][-\u2013][ ]|(?<=[ ])[-\u2013][ ]"
    r"|(?:(?<=[ ])|[ ])(?i:because|since|as|which|due|given|for|and|or|with|but|not|rather|instead|based|so|while"
    r"|whereas"
    r"|(?:only|alone|again|indeed|definitely|probably|now|then|too|here)\b(?=\W*(?:$|[.!,;]))"
    r"|in[ ](?:this|my|the|fact)|is[ ](?:the|correct|right|left)|remains|fits|works)\b)"
)
_CLOSED = re.compile(r"[)\]*}](?!\w)")
#: After a letter: what makes it a name, as in "C. difficile".
_GENUS = re.compile(r"\.[ ](?!(?:because|since|as|so|it|the|that|this)\b)[a-z]+(?:[ .,)]|$)")
_NAME_GOES_ON = re.compile(r"(?!</|>[\s.,]|>$)[+#=><\u0300-\u036f']|\*[\w]|[-\u2013](?=\w)|\+")
_NOT_A_SUBJECT = re.compile(
    r"(?i)(?:\b(?:of|to|for|before|after|than|with|from|near|beside|like|unlike|about|opposite|reverse|wrong"
    r"|incorrect)\s+)$"
)
_FREE = re.compile(
    r"(?i)(?:^|[.!?,;:\n(){}\u201c<>|#\u2014\\\-]|(?<!\w)[\"']|\b(?:so|thus|then|therefore|hence|and|but|or|is|that|as"
    r"|now|finally|well|yes"
    r"|no|ok|okay|hmm|my|our|wait)\b)[\s*_`$]*$"
)


def letters_in(text: str) -> Iterator[tuple[int, int, str, bool]]:
    """(start, end, capital letter, whether the text is nothing but a claim about it) of all letters that a sentence
    says to be the choice, or denies to be it."""
    for way in (*_WAYS_OF_LETTERS, _CLAIM):
        for match in _last(way.finditer(text)):
            if way is _CLAIM or _is_subject(text, match):
                yield match.start("value"), match.end("value"), match["value"], way is _CLAIM


def hash_lines(text: str) -> Iterator[tuple[int, int, str, bool]]:
    """The same of `####` lines, with whether the line names an option, as headings do."""
    for match in _last(_HASH_LINE.finditer(text)):
        yield match.start("value"), match.end("value"), match["value"], bool(match["option"])


def words_in(text: str, words: Mapping[str, str]) -> Iterator[tuple[int, int, str, bool]]:
    """(start, end, letter, whether on a `####` line) where a sentence says that the words of a choice are it."""
    letters = {" ".join(choice.lower().split()): letter for letter, choice in words.items()}
    either = "|".join(r"\s+".join(map(re.escape, c.split())) for c in sorted(letters, key=len, reverse=True) if c)
    marked = re.sub(rf"(?i)(?<!\w)(?:{either})(?!\w)", lambda m: _MARK * len(m.group()), text) if either else text
    if marked == text:
        return
    for way in _WAYS_OF_WORDS:
        for match in _last(way.finditer(marked)):
            start, end = match.span("value")
            letter = letters.get(" ".join(text[start:end].lower().split()))
            if letter is not None and _is_subject(marked, match):
                yield start, end, letter, way is _WAYS_OF_WORDS[-1]


def ends_well(text: str, start: int, end: int) -> bool:
    """Whether what follows a letter leaves it one: "C, because", "(C) aspirin", not "C major" or "a virus"."""
    rest, letter = text[end : end + 40], text[start:end]
    if re.match(r"[\s*_`\"')\]}]*\?(?!\s|$|[\"')*!?])", rest):
        return False  # "C?</answer>"
    if re.match(r"\*(?!\*)[ ][a-z]", rest) and "*" not in text[max(0, start - 40) : start]:
        return False  # "A* search"
    quoted = text[start - 1 : start] == "'"
    if _GENUS.match(rest) or _NAME_GOES_ON.match(rest.removeprefix("'") if quoted else rest):
        return False
    if letter == "a" and not rest.strip() and text[start - 1 : start] not in ("(", "*", "{", "[", "'", '"', "`"):
        return False  # an article, and the text is cut off
    closed = _CLOSED.match(rest) and (letter.isupper() or rest[0] == ")")
    return bool(closed or _TAIL.match(rest))


def _is_subject(text: str, match: re.Match[str]) -> bool:
    """Whether a sentence's subject stands alone: no word before it makes another thing of it."""
    if "subject" not in match.re.groupindex or match["subject"] is None:
        return True
    before = text[max(0, match.start("subject") - 40) : match.start("subject")]
    if "whose" in match.re.groupindex and match["whose"]:
        return not _NOT_A_SUBJECT.search(before) and not before[-1:].isalnum()
    return bool(_FREE.search(before)) and not re.search(r"\w_$", before)


def _last(found: Iterator[re.Match[str]]) -> list[re.Match[str]]:
    return list(found)[-200:]
