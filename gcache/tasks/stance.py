"""What a clause does with a value that it names: states it, or denies, supposes, asks, reports or only offers it.

    stated      The code is 0417.         I think it is 0417.        It is not 0416 but 0417.
    denied      The code is not 0417.     I doubt that it is 0417.   0417 is wrong.
    supposed    If it is 0417, ...        Suppose it is 0417.        It might be 0417.
    asked       Is it 0417?
    reported    The gossip says 0417.
    offered     0417 or ...               either 0417 ...            between 0417 and ...

The rules are of English and look at one sentence. Where they are in doubt, a value counts as not stated.
"""

from __future__ import annotations

import re
import unicodedata
from typing import Literal, NamedTuple

from gcache.tasks.reported import is_reported

Stance = Literal["stated", "denied", "supposed", "asked", "reported", "offered"]

_REACH = 300  # characters of context on each side of a value

_SENTENCE_END = re.compile(r"[.!?](?=[\s\"')*_\]]|$)|\n")
_ABBREVIATION = re.compile(r"(?i)(?:\b(?:i\.e|e\.g|approx|resp|no|vs|mr|mrs|dr|st)|^\s*[0-9]{1,2})$")
#: A line that ends so goes on in the next one.
_GOES_ON = re.compile(r"(?i)(?:\b(?:is|be|are|was|not|equals)|n't|:)[\s*_]*$")
_CLAUSE_END = re.compile(
    r"(?i);|:(?!\W*$)|\s[-\u2013]\s|\u2014"
    r"|(?<!anything )(?<!everything )(?<!nothing )\bbut\b"
    r"|\b(?:so|therefore|thus|hence|because|since|then|while|whereas|however|although|though)\b"
    r"|\binstead\b(?!\s+of\b)|\bthat is,|\bi\.e\.,?"
    r"|,\s*(?:and\s+|rather\s+)?(?=(?:it|this|that|he|she|they|we|i|there|the|its|my|our|a|an)\b(?!\W*$))"
    r"|\band\s+(?=(?:it|this|he|she|they|we|i|there|so)\b)"
)
_MARKS = r"[\s\"'*_`()\[\]{}$\\,]{0,8}"  # what may stand between a value and the words about it
_NOT = r"(?:\b(?:not|never|nor|neither|cannot|no longer|hardly|barely|none of)\b|n't\b)"
_NO_VERB = r"(?!.*(?:\b(?:is|are|was|were|equals|comes to|makes)\b|=))"  # a verb of its own ends what "not" reaches
#: Negations that deny nothing of what follows.
_HARMLESS = re.compile(
    r"(?i)(?:\bnot|n't)\s+(?:only|just|sure|certain|mistaken|wrong|know|hard|difficult|surprising\w*|to mention)\b"
    r"|\b(?:no|without(?: a| any)?|not|n't|never|cannot) (?:reason to )?doubt\b|\bwhy not\b|\bor not\b"
    r"|(?:\b(?:cannot|can not|not|nothing|none)|n't)\s+(?:be\s+)?(?:anything\s+)?"
    r"(?:other than|but|else but|else than)\b"
    r"|\b(?:who|that|which|whose)\s+(?:\w+\s+)?\w+(?:n't|\s+not|\s+never)\b"
)
_DENIED = re.compile(
    rf"(?i)(?:{_NOT}|\b(?:rather than|instead of|other than|anything but|everything but|except(?: for)?|excluding"
    r"|far from|as opposed to|unlike|ruled? out|rules out|reject(?:s|ed)?|exclude[sd]?|versus"
    r"|avoid|ignore|forget|used to be|formerly|previously)\b)" + _NO_VERB
)
_DENIED_THAT = re.compile(
    rf"(?i){_NOT}\s+(?:\w+\s+){{0,2}}?(?:think|thought|believe|say|said|claim|mean|true|correct|right|the case"
    r"|suppose|expect|accept|agree|conclude|likely|possible|plausible|convinced|follow|evident|clear|be that)\b"
    r"|\bno (?:way|chance|possibility|case|circumstances?|reason to (?:think|believe|say))\b"
    r"|\b(?:doubt|deny|denies|denied|disagree|refuse|untrue|unlikely|impossible"
    r"|(?:false|wrong|incorrect|a lie|a mistake|mistaken|an error)\s+(?:that|to|for))\b"
)
_SUPPOSED = re.compile(
    r"(?i)(?:\b(?:if|supposing|assuming|imagine|pretend|in case|unless|whether|hypothetically|wonder|say that"
    r"|let(?:'s| us)\s+(?:say|suppose|assume|imagine|pretend|try|test|check|consider)|let(?!'s| us| me))\b"
    r"|(?<!\bi )\b(?:suppose|assume)\b|^\W*(?:consider|say|try)\b)(?!.*,\s)"
)
_SUPPOSED_ITSELF = re.compile(
    r"(?i)\b(?:if|suppose|supposing|assume|assuming|imagine|pretend|whether|let(?!'s| us| me))\b(?:\s+that)?\s+"
    r"(?:(?:the|our|my|this)\s+)?(?:\w+\s+)?(?:answer|result|solution|it|this|that|[a-z])\b[^,;]*$"
)
_POSSIBLE = re.compile(
    r"(?i)\b(?:could|might|may|can)\s+(?:(?!not\b)\w+\s+)?(?:be|equal)\b(?:[\s\"'*_`($\\\[{:]"
    r"|\b(?:the|a|option|choice|letter|number|code|label|answer)\b)*$|\b(?:could|might|may)\s+(?:well\s+)?be\s+that\b"
    r"|\b(?:could|might|may|would)\s+(?:\w+\s+)?(?:look|seem|appear|think|say|guess|expect|believe)\b"
)
_PERHAPS = re.compile(r"(?i)\b(?:perhaps|maybe|possibly|conceivably)\b")
_UNSURE = re.compile(
    r"(?i)\bnot\s+(?:\w+ly\s+)?(?:sure|certain|convinced)\s+(?:(?:that\s+)?(?:it|this|the|option|choice|[a-jx])\b"
    r"|that\s*$)"
)
_SHOWN = re.compile(
    r"(?i)\b(?:(?:should|must|to) look like|end(?: it)? with|(?:example|sample|template)(?: answer)?:"
    r"|for (?:example|instance)|such as|e\.g\.|(?:in|of) the form|format|template|placeholder)"
)
_POSSIBLE_AFTER = re.compile(rf"(?i){_MARKS}(?:might|may|could)\s+(?:\w+\s+)?be\b")
_WOULD_BE = re.compile(r"(?i)\bwould\s+(?:\w+\s+)?(?:be|equal)\b\W*$")
_IF = re.compile(r"(?i)\bif\b|^\W*(?:were|had)\b|\bin (?:that|this|such a) case\b")
_REPORTED = re.compile(
    r"(?i)\b(?:gossips?|rumou?rs?|liars?|allege(?:s|d|dly)?|supposedly|claims(?!\s*:)|(?:is|was|been)\s+(?:claimed"
    r"|said)"
    r"|(?:some|others|people|many|they)\s+(?:say|said|think|believe|claim))\b"
)
_SEVERAL_BEFORE = re.compile(
    r"(?i)\b(?:either|between|one of|among|anything from|ranges? from"
    rf"|(?:more|less|greater|higher|lower|larger|smaller|fewer) than|at least|at most)\b{_NO_VERB}"
)
_SEVERAL_AFTER = re.compile(rf"(?i){_MARKS}or\b(?!\s+(?:in other words|equivalently|rather|simply|just)\b)")
_OR_BEFORE = re.compile(r"(?i)^\W*(?:or|alternatively|otherwise)\b")
WRONG = (
    r"(?:(?:wrong|incorrect|false|untrue|impossible|mistaken|invalid|nonsense|excluded|rejected|ruled out|out)\b"
    r"|(?:a|an|the)\s+(?:lie|mistake|error|trap|decoy|rumou?r|(?:wrong|incorrect|false)\s+\w+)\b)"
)
_NOT_RIGHT = (
    r"not\s+(?:quite\s+|the\s+)?(?:right|correct|true|it|(?:\w+\s+)?"
    r"(?:answer|code|number|choice|option|label|name|colour|one|solution))\b"
)
_DENIED_AFTER = re.compile(
    rf"(?i){_MARKS}(?:(?:but\s+|and\s+)?(?:which|that|this|it)\s+)?(?:is|was|are|were|seems|must be|would be|can be"
    rf"|should be|'s)\s+(?:\w+ly\s+|also\s+|just\s+)?(?:{WRONG}|{_NOT_RIGHT})"
    rf"|{_MARKS}(?:is|was|are|were)(?:n't|\s+(?:\w+ly\s+)?(?:not|never))\b(?!\s+(?:only|just|sure|wrong|false"
    rf"|incorrect))"
    rf"|{_MARKS}(?:cannot|(?:ca|could|does|did|wo|would)n't|(?:can|could|does|did|will|would)\s+not)\s+"
    r"(?:be|work|fit|open|match|make sense|hold|apply)\b"
    rf"|{_MARKS}(?:(?:has|have|had)\s+(?:\w+\s+)?been|(?:can|could|may|should|must)\s+be|was|were|is"
    rf"|got)\s+(?:\w+ly\s+|now\s+)?"
    r"(?:ruled out|excluded|eliminated|rejected|discarded|dismissed|disproved|changed|replaced|revoked|removed|out)\b"
    rf"|{_MARKS}(?:no longer|never)\b|{_MARKS}(?:has\s+)?(?:fail(?:s|ed)?|expired?)\b"
    rf"|{_MARKS}(?:(?:was|had been)\s[^.;!?,]{{0,60}}?)?\b(?:until|up to)\s+(?:last|this|yesterday|recently|now|the|he"
    rf"|she|it"
    rf"|they|[0-9x])\b|{_MARKS}(?:reversed|backwards?|upside down|in reverse|before (?:it|this|that|they) (?:was|were"
    rf"|had))\b"
)
#: Right before a value: it is said of another thing than the answer.
_OF_A_WRONG_ONE = re.compile(
    r"(?i)\b(?:(?:wrong|incorrect|false|fake|mistaken|old|previous|former|expired|outdated|earlier|initial|original"
    r"|decoy"
    r"|least\s+\w+|second(?:[\s-]best)?|next(?:[\s-]best)?|worst)\s+(?:\w+\s+)?"
    r"(?:answer|code|number|choice|option|letter|label|name|solution|one|guess|owner|colour|statement)"
    r"|first\s+(?:guess|thought"
    r"|instinct|impression|idea|answer|pick|choice)|decoy|trap|rumou?r)\b\s*(?:is|was|would be|:)*[\s\"'*_`($\\\[{]*$"
)
_AFFIRMED = re.compile(r"(?i)[\s*_\"')]*(?:yes|yep|yeah|indeed|correct|right|exactly|it is)\b")
#: Right after a statement these take it back, whether or not another one follows.
WITHDRAWN = re.compile(
    r"(?i)[\s\"'*_`()\[\]{}$\\.!,;:\u2014-]{0,12}(?:(?:oh|oops|wait|hmm+|sorry|but|well|ah|actually"
    r"|on second thou?ghts?)\b[\s,.!:\u2014-]*){0,3}"
    r"(?:(?:no|nope)\b(?=\s*(?:[,.!:;\u2014-]|wait\b|that\b|it\b|$))|not\s*[.!]|wrong\s*[.!,]"
    r"|(?:scratch|strike|forget|ignore) that\b|i (?:was|am) (?:wrong|mistaken)\b|just kidding\b"
    r"|i (?:have )?made (?:a mistake|an error)|i take (?:that|it) back\b|or (?:maybe |perhaps )?not\b|or is it\b"
    r"|disregard that\b|i (?:have )?changed my mind\b"
    r"|i don't think so\b|(?:false|incorrect)\s*[.!]|no way\b|that was (?:a joke|a lie|last \w+|before|then"
    r"|yesterday)\b"
    r"|(?:it|that|this) (?:is not|isn't)\s*(?:[.!]|$)|(?:that|this|it) contradicts\b"
    r"|(?:that|this|it)(?:\s+(?!is\b)\w+)?(?:'s|\s+is|\s+was|\s+seems|\s+must be)\s+(?:\w+ly\s+)?"
    rf"(?:{WRONG}|{_NOT_RIGHT})|(?:that|this|it)\s+(?:cannot|can't|can not|couldn't|could not)\s+be\b"
    r"|(?:that|this|it)\s+(?:does|did|do|would|wo|will)(?:n't|\s+not)\s+(?:\w+ly\s+)?"
    r"(?:look|seem|sound|feel|fit|work|make sense|add up|hold|match)\b"
    r"|(?:that|this|it)\s+(?:isn't|wasn't)\s+(?:right|correct|true|it)\b)"
)
#: Anywhere between two different statements these say that the second replaces the first.
REPLACED = re.compile(
    r"(?i)\b(?:wait|actually|sorry|correction|corrected|i mean|i meant|make (?:that|it)|oops"
    r"|on second thou?ghts?|(?:scratch|strike) that"
    r"|let me (?:correct|re-?(?:check|do|think|consider|calculate|compute|evaluate|examine|try)|try again|start over)"
    r"|i (?:was|am) (?:wrong|mistaken)|mistake|mistaken|nope|no longer|my bad|apologi[sz]e|apologies|rather(?! than)"
    r"|instead(?! of)|(?:but|and|since then|today|nowadays) (?:it is |it's )?now|(?:it|this|that)(?: is|'s) now"
    r"|now (?:it|the \w+) is"
    r"|is now|changed my mind|but the (?:correct |right |real |actual )?(?:answer|code) is|that contradicts"
    r"|contradiction)\b|\bno\b(?=\s*(?:[,.!:;\u2014-]|it\b|the\b))|\bhmm+\b"
    rf"|\b(?:that|this|it)(?:'s|\s+is|\s+was)\s+(?:\w+ly\s+)?(?:{WRONG}|{_NOT_RIGHT})"
)
_CONCLUDED = re.compile(
    r"(?i)^[\s\"'*_`(]*(?:and\s+)?(?:so|therefore|thus|hence|consequently|in conclusion|to conclude|in summary"
    r"|finally"
    r"|overall|that means|this means|which means)\b|\bfinal\s+(?:answer|choice|code|number|result|label)\b"
)


_PLAIN = {"\u2018": "'", "\u2019": "'", "\u02bc": "'", "\u201c": '"', "\u201d": '"', "\u00a0": " ", "\u202f": " "}


class Sentence(NamedTuple):
    """Where a value stands: the words of its sentence before it, those after it, and what ends the sentence."""

    before: str
    after: str
    end: str
    rest: str

    @property
    def clause(self) -> str:
        """The words before the value that belong to it alone."""
        return _CLAUSE_END.split(self.before)[-1]

    @property
    def concludes(self) -> bool:
        return bool(_CONCLUDED.search(self.before))


def plain(text: str) -> str:
    """The text with plain apostrophes, quotes, blanks, digits and full-width letters, character for character."""
    if text.isascii():
        return text
    return "".join(_PLAIN.get(c) or (str(unicodedata.decimal(c)) if c.isdecimal() else _narrow(c)) for c in text)


def _narrow(character: str) -> str:
    """A full-width letter or mark as the usual one."""
    return chr(ord(character) - 0xFEE0) if "\uff01" <= character <= "\uff5e" else character


def sentence_at(text: str, start: int, end: int) -> Sentence:
    """The sentence around `text[start:end]`, of at most 300 characters on each side."""
    before, cut = text[max(0, start - _REACH) : start], 0
    for found in _SENTENCE_END.finditer(before):
        so_far = before[cut : found.start()]
        if not (_GOES_ON if found.group() == "\n" else _ABBREVIATION).search(so_far) or not so_far.strip():
            cut = found.end()
    after = text[end : end + _REACH]
    stop = _SENTENCE_END.search(after)
    if stop is None:
        return Sentence(before[cut:], after, "", "")
    return Sentence(before[cut:], after[: stop.start()], stop.group(), after[stop.end() : stop.end() + 80])


def stance(at: Sentence, marked: bool = False) -> Stance:
    """What a sentence does with the value that it is around.

    Args:
        marked: whether a mark sets the value apart: "if each costs 2, they cost [5] in all" supposes no 5, then.
    """
    if at.end == "?" or at.after.endswith("?"):
        return "stated" if at.end == "?" and _AFFIRMED.match(at.rest) else "asked"
    clause, bare = at.clause, _HARMLESS.sub(" ", at.clause)
    if _OF_A_WRONG_ONE.search(at.before) or _DENIED.search(bare) or _DENIED_THAT.search(bare):
        return "denied"
    if _DENIED_AFTER.match(at.after):
        return "denied"
    supposed = _SUPPOSED_ITSELF if marked else _SUPPOSED
    if supposed.search(re.split(r"(?i)[;:](?=.*\w)|\b(?:then|so|therefore|thus|hence)\b", at.before)[-1]):
        return "supposed"
    if _POSSIBLE.search(clause) or _PERHAPS.search(clause) or _POSSIBLE_AFTER.match(at.after):
        return "supposed"
    if _UNSURE.search(clause) or _SHOWN.search(at.before):
        return "supposed"
    if _WOULD_BE.search(clause) and _IF.search(at.before + at.after):
        return "supposed"
    if _REPORTED.search(clause) or is_reported(at.before, clause, at.after):
        return "reported"
    if _SEVERAL_BEFORE.search(clause) or _SEVERAL_AFTER.match(at.after) or _OR_BEFORE.search(at.before):
        return "offered"
    return "stated"
