"""Whose statement it is: the text's own, or somebody else's that the text only tells of.

    own         I think the answer is C.   The note says that it is 0417.   The miller says it is 0417.
    reported    Tom thinks the answer is C.   My friend's answer is C.   They say it is 0417.   I thought it was C.

Notes, passages and those who are named by what they are ("the miller") are where a text has its facts from; persons
by name, pronoun or number, and what has opinions of its own (a book, a student), are not.
"""

from __future__ import annotations

import re

_SAYS = (
    r"(?:says?|said|saying|thinks?|thought|believes?|believed|claims?|claimed|insists?|insisted|argues?|argued"
    r"|guess(?:es|ed)"
    r"|states?|stated|swears?|swore|bets?|assumes?|assumed|suspects?|suspected|reckons?|reckoned|writes?|wrote|feels?"
    r"|felt"
    r"|hears?|heard|(?:tells?|told|assures?|assured)(?: (?:me|us|him|her|them|you|everyone))?|answered)"
)
_EVIDENCE = frozenset(
    (
        "note", "notes", "message", "messages", "text", "texts", "passage", "question", "problem", "stem", "table",
        "figure", "chart", "data", "evidence", "study", "sign", "record", "records", "document", "context", "rule",
        "definition", "letter", "keeper", "it", "this", "that", "which", "these", "those", "what", "locksmith",
    )
)  # fmt: skip
#: Those whose opinion is not the text's, though "the" names them.
_OTHERS = (
    r"(?:books?|textbooks?|internet|web|websites?|forum|students?|pupils?|professors?|friends?|neighbou?rs?|class"
    r"|majority"
    r"|crowd|press|others?|gossips?|liars?|rumou?rs?|people|models?|assistants?|opponents?|critics?|colleagues?|man"
    r"|woman"
    r"|boy|girl|guy|person|adversary|thief|stranger)"
)
_PERSON = (
    rf"(?:(?i:\b(?:he|she|they|you|some|many|most|others?|(?:some|any|every)(?:one|body)|no(?: one|body)|one|people"
    rf"|students|experts|the {_OTHERS}|(?:(?:my|his|her|their|your|our|an?|some|many|most|several|few|other|another"
    rf"|one) (?:of (?:my|his|her|their|your|our|the|them|us) ?)?)+(?:\w+ )?\w+))|\b[A-Z][a-z]+)"
)
_WHO_SAYS = re.compile(rf"(?<![\w'])(?P<who>{_PERSON})(?: \w+ly| also| once| still| just| may| might| would| will)?"
                       rf" (?i:{_SAYS})\b(?P<what>.*)", re.DOTALL)  # fmt: skip
_WHAT = re.compile(
    r"(?i)\W*(?:$|(?:that|the|it|its|this|option|choice|letter|code|number|answer)\b|[a-z]\W)|\s*[:,\"]"
)
_I_ONCE = re.compile(
    r"(?i)\bI (?:\w+ly |had |first |once )?(?:thought|believed|assumed|guessed|supposed|suspected|was (?:told|sure"
    r"|going to|tempted)|heard|(?:have )?read(?= that)|have heard|used to|almost|nearly|am told|wanted|refuse"
    r"|hesitate)\b"
)
_ACCORDING = (
    rf"(?:according to|in the (?:opinion|view|words) of|as per) (?:(?:a|an|some|my|his|her|their|your) (?!notes?\b"
    rf"|messages?\b)\w+|the {_OTHERS}\b|(?-i:[A-Z])[a-z]+|him\b|her\b|them\b|some\b|others\b|many\b|most\b)"
)
_ANOTHERS = re.compile(
    r"(?i)\b(?:(?!(?:it|that|this|here|there|what|let|question|problem|exercise|today)'s)\w+(?:'s|s')"
    r"|his|her|their|your|(?:some|any|every)(?:one|body)(?: else)?'s)\s+(?:\w+ ){0,2}?"
    r"(?:answer|guess|choice|pick|opinion|suggestion|view|vote|bet|solution|idea|claim|theory)\b"
)
_NOT_SO = re.compile(
    r"(?i)\b(?:it|this|that)(?:'s|\s+is|\s+was|\s+would be|\s+may be|\s+might be)\s+(?:\w+\s+)?(?:a|an)?\s*"
    r"(?:myth|misconception|lie|fallacy|trap|rumou?r|joke|mistake|error|legend|tempting|easy|wishful|absurd|silly|naive"
    r"|commonly|widely|often|falsely|wrongly|incorrectly|conceivable|debatable|questionable|doubtful|rumou?red"
    r"|alleged)\b"
)
_BEFORE = re.compile(
    rf"(?i){_ACCORDING}|^\W*(?:allegedly|supposedly|reportedly)\b"
    r"|^\W*(?:the )?(?:student|pupil|classmate|friend|teacher|candidate|user|opponent)\s?\w{0,2}:\s"
)
_AFTER = re.compile(
    rf"(?i)[\s\"'*_`)\]}}$\\,.]{{0,6}}(?:{_ACCORDING}|(?:(?:says?|said|claims?|claimed|thinks?|thought|believes?"
    rf"|argues?"
    rf"|insists?|guesse[sd])\s+(?-i:{_PERSON})|(?<=[,\"] )(?-i:{_PERSON}) (?:says?|said|claims?|thinks?|believes?"
    r"|insists?))\b)"
)


def is_reported(before: str, clause: str, after: str) -> bool:
    """Whether the words around a value give it as somebody else's, or as what the writer once thought.

    Args:
        before, after: the words of the sentence on each side.
        clause: those of `before` that are of the value's own clause.
    """
    if _I_ONCE.search(clause) or _ANOTHERS.search(clause) or _NOT_SO.search(clause):
        return True
    if _BEFORE.search(before) or _AFTER.match(after):
        return True
    return says_another(clause)


def says_another(clause: str, bare: bool = False) -> bool:
    """Whether a clause goes on as what another person says.

    Args:
        bare: whether that may be a value alone, as in "Tom says 0417".
    """
    said = _WHO_SAYS.search(clause)
    if said is None or not (bare or _WHAT.match(said["what"])):
        return False
    words = said["who"].lower().split()
    before = clause[: said.start()].lower().split()
    if words[-1] in _EVIDENCE or (words[0] not in _PRONOUNS and _EVIDENCE.intersection(words)):
        return False
    return not (said["who"][0].isupper() and len(words) == 1 and before and before[-1] in ("the", "keeper", "of"))


_PRONOUNS = frozenset(("he", "she", "they", "you", "some", "many", "most"))
