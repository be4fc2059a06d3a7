"""Whether a sentence says a value of what is asked: "the code is 0417", not "the decoy is 0417".

    said        0417    The code is 0417.    The mill's is 0417.    0417 is the code.    Use 0417.    so 0417
    not said    The year is 0417.   The code starts with 0417.   0417 people   0417 reversed   0417 is too long

What is asked is a noun ("code"); with `the` or an owner before it, or nothing, and only with adjectives that leave it
what it is. A word that is in none of these places makes another statement of it, and a value that is not said is
neither right nor wrong. What is said may still be denied, asked or reported; see `gcache.tasks.stance`.
"""

from __future__ import annotations

import re
from functools import lru_cache

from gcache.tasks.reported import says_another
from gcache.tasks.stance import Sentence

_MARKS = r"[\s\"'*_`()\[\]{}$\\,#<>|/\u2014-]{0,12}(?:\\?(?:boxed|fbox|text)\s?\{\s?)?"
_ADJECTIVE = (
    r"(?:correct|right|real|true|actual|final|best|only|exact|full|complete|whole|new|current|secret|asked|needed"
    r"|required"
    r"|valid|working|door|alarm|locker|room|lock|access|entry|gate|safe|security|code|most likely|red|blue|green|yellow"
    r"|white|black|brown|grey|pink|purple|orange)[\s_]+"
)
_SURELY = (
    r"(?:probably|most likely|very likely|likely|definitely|certainly|surely|clearly|simply|just|only|indeed|actually"
    r"|therefore|thus|exactly|still|now|really|also|not|never|neither|either|no longer|none other than|anything but"
    r"|i think"
    r"|i believe|of course|again|then|rather|instead|simply|finally|precisely|equal to|set to|as follows|called|named)"
)
_OPENER = (
    r"(?:and|but|so|then|thus|therefore|hence|no(?=\s*[,.:;!\u2014-]|\s+wait)|yes|nope|wait|actually|sorry|oops|oh"
    r"|well|hmm+|i mean|i meant"
    r"|correction"
    r"|scratch that|strike that|make that|ok|okay|sure|finally|that|because|or|nor|maybe|perhaps|(?:i|we) (?:think"
    r"|believe"
    rf"|say|know|choose|guess|conclude|answer)|only|on second thoughts?|my answer|let(?:'s| us) see|{_SURELY})"
)
_FREE = re.compile(
    rf"(?i)(?:^|[,(?.!/&|\u2014\u2013-]|\b(?:and|or|but|that|so)\b)[\s\"'*_`#>]{{0,6}}(?:{_OPENER}\b[\s,.:!\u2014-]{{0,4}}"
    rf"){{0,5}}{_MARKS}$"
)
_IS = (
    rf"(?:(?:\b(?:is|was|be|are|were|reads|equals|isn't|wasn't)\b|\w'(?:s|re)\b|n't\b)(?:\s+(?:{_SURELY})\b,?){{0,3}}"
    rf"|\s*[:=>\u2192]|\s*->|\s+[-\u2013]\s)"
)
_SAYING = re.compile(
    r"(?i)\b(?:says?|said|tells? (?:me|us|you)|told (?:me|us|you)|reads|shows|states|stated|knows|remembers|use|enter"
    rf"|type|dial|press|answer|needs?)(?: that)?(?::|\s)\s*(?:{_OPENER}\s){{0,2}}{_MARKS}$"
)
_MODALS = r"(?:must|should|would|will|might|may|could|can|cannot|has to|have to|seems to|appears to|turns out to)"
_MODAL = rf"(?:\s+{_MODALS})?(?:n't)?"
_COMPLEMENT = (
    r"(?:\s+(?:of|for|to|on|at|in|from)\s+(?:the|this|that|my|our|its|his|her|their|your|it|(?-i:[A-Z])\w+)\b"
    r"[\w' ]{0,60}?(?:,\sthe\s[\w ]{1,30},)?|\s+(?:that|which|you|i|we|given|needed|required|used|written|shown"
    r"|asked)\b"
    r"[\w' ]{0,40}?"
    r"|,\s[^,]{1,40},|\s*\([^()]{1,40}\))?"
)
_BEFORE_SUBJECT = re.compile(
    r"(?i)(?:^|[,;:.!?({\"'\u201c<>*#\u2014-]|\b(?:so|thus|then|therefore|hence|and|but|that|because|as|now|finally"
    r"|well|yes|say"
    r"|says|said|think|believe|know|me|us|if|whether|not|is)\b)[\s\"'*_`]{0,4}$"
)
_NOT_A_SUBJECT = re.compile(
    r"(?i)\b(?:of|to|for|before|after|than|with|from|near|beside|like|unlike|about|opposite|by|in|into|on)\s+$"
)
_PRONOUN = re.compile(r"(?i)(?:^|[\W_])(?:it|that|this|which|mine|ours|he|she|they|(?:the|that)\s[\w ]{1,40}'s)$")
_GAPPED = re.compile(r"(?i)\b(?:that|the one) (?:of|for) the [\w ]{1,30}$")
_AFTER = (
    r"[\s\"'*_`()\[\]{}$\\]{0,8}(?:$|[.!?,;:)<>(/|&\u2014\u2026\n]"
    r"|(?<=\s)(?=[0-9])|\s?[-\u2013]\s|[-\u2013](?=[0-9])|\b(?:and|but|or|not"
    r"|because|since|as|for|of|at|on|rather|instead|versus|to|according|which|so|yes|no|now|today|then|wait|sorry"
    r"|actually"
    r"|i mean|again|indeed|only|in (?:the|my|this|other)|opens?|unlocks|works|should work|it is|fits|belongs"
    r"|does(?:n't)?)\b"
    rf"|\b(?:is|was|must be|should be|seems to be)(?:\s+{_SURELY}){{0,2}}\s+(?:(?:(?:the|its|your|my)\s+|\w+'s\s+)?"
)


@lru_cache(maxsize=64)
def _forms(nouns: str, also: str) -> tuple[re.Pattern[str], ...]:
    subject = re.compile(
        rf"(?i)(?P<whose>\b(?:the|my|our|its|her|his|their|this"
        rf"|your)\s+(?:(?!the\b)\w+'s\s+)?|\bthe\s[\w ]{{1,40}}?'s\s+)?"
        rf"(?:{_ADJECTIVE}|(?:{nouns})\s+){{0,3}}(?:{nouns})\b{_COMPLEMENT}{_MODAL}[\s\"'*_`]{{0,4}}$"
    )
    verb = re.compile(rf"(?i){_IS}[\s:]{{0,3}}(?:(?:the\s+)?(?:{nouns})\s|{also}){{0,2}}{_MARKS}$")
    after = re.compile(rf"(?i){_AFTER}(?:{_ADJECTIVE}){{0,3}}(?:{nouns})\b|(?:correct|right|it|true|the one)\b))")
    named = re.compile(
        r"(?i)(?:^\W*|[,(]\s*|\b(?:and|so|that)\s+|(?<!before )(?<!after )(?<!like )(?<!than )(?<!without )(?<!not )"
        rf"\b(?:the|an?|its)\s+)(?:{_ADJECTIVE}){{0,3}}(?:{nouns})(?:\s+of)?\s+{_MARKS}$"
    )
    return subject, verb, after, named


def is_said(at: Sentence, nouns: str, also: str = "@") -> bool:
    """Whether the sentence around a value says it of what is asked.

    Args:
        nouns: a pattern of what is asked, such as "code|number".
        also: a pattern of words that may stand before the value.
    """
    subject, verb, after, named = _forms(nouns, also)
    clause = at.clause
    if re.search(r"(?i)\b(?:is|has)(?: in)? the\s+$", clause) and re.match(rf"(?i)\s+(?:{nouns})\b", at.after):
        return True  # "the falconer has the 691 locker"
    if not after.match(at.after):
        return False
    if _FREE.search(clause) or _GAPPED.search(clause.rstrip()):
        return not says_another(clause, bare=True)
    if _SAYING.search(clause) or named.search(clause):
        return not says_another(clause, bare=True)
    asked = re.match(r"(?i)\W*(?:is|was|isn't|wasn't)\s+(.*)$", clause, re.DOTALL) if at.end == "?" else None
    if asked:
        return _is_subject(asked[1], subject)
    found = verb.search(clause)
    if found is None:
        return False
    words = clause[: found.start()] + _contracted(found.group())
    whole = at.before[: len(at.before) - len(clause)] + words  # "the code of Boris, the conductor, is"
    if _is_subject(words, subject):
        return True
    return whole != words and bool(re.search(r",\s*$", words)) and _is_subject(whole, subject)


def _contracted(verb: str) -> str:
    """The letter of the subject that "it's" takes along."""
    return verb[0] if re.match(r"\w'", verb) else ""


def _is_subject(words: str, subject: re.Pattern[str]) -> bool:
    words = re.sub(rf"(?i)\s+{_MODALS}\s*$", "", words)
    words = words.rstrip(" *_`\"'")
    if not re.search(r"\w", words) or _PRONOUN.search(words) or re.match(r"(?i)\W*(?:i|we|i'm|we're)\b", words):
        return True
    found = subject.search(words)
    if found is None:
        return False
    before = words[: found.start()]
    if found["whose"]:
        return not _NOT_A_SUBJECT.search(before)
    return bool(_BEFORE_SUBJECT.search(before))
