"""The number that a sentence states: "Therefore Kylar needs to pay $64 for the 16 glasses." states 64.

A sentence has a place for what it states: right after a verb of being, having, making, paying and the like ("she has
18", "they cost $18"), after the last sign of an equation ("48 + 24 = 72 clips"), or before such a verb ("18 eggs are
left"). Other numbers may stand in what comes before the verb, or behind words such as "for", "in", "after". A sentence
with two numbers in such places states neither; one whose verb is a step ("next we add 5") states none.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import pairwise

from gcache.tasks.number_reading import EQUALS, LEAD, Named, in_signs, named_number, number_at
from gcache.tasks.number_units import Tail
from gcache.tasks.number_value import worth
from gcache.tasks.speakers import thought_by_another

_VERB = (
    r"(?:is|are|was|were|be|been|equals?|has|have|had|gets?|got|gain(?:s|ed)?|earn(?:s|ed)?|makes?|made|costs?|pays?"
    r"|paid|spends?|spent|saves?|saved|sells?|sold|buys?|bought|needs?|needed|takes?|took|taken|uses?|used|eats?|ate"
    r"|eaten|drinks?|drank|bakes?|baked|reads?|writes?|wrote|written|walk(?:s|ed)?|runs?|ran|drives?|drove|driven"
    r"|travel(?:s|l?ed)?|swims?|swam|flies|fly|flew|jog(?:s|ged)?|bikes?|biked|rides?|rode|weigh(?:s|ed)?"
    r"|contain(?:s|ed)?|holds?|held|carry|carries|carried|receives?|received|collect(?:s|ed)?|gives?|gave|given"
    r"|donates?|donated|loses?|lost|wins?|won|scores?|scored|produces?|produced|grows?|grew|plant(?:s|ed)?"
    r"|pick(?:s|ed)?|catch(?:es)?|caught|finds?|found|saw|owes?|owed|charges?|charged|requires?|required|lasts?|lasted"
    r"|work(?:s|ed)?|sleeps?|slept|watch(?:es|ed)?|play(?:s|ed)?|practices?|practiced|stud(?:y|ies|ied)|wait(?:s|ed)?"
    r"|remain(?:s|ed)?|leaves?|left|total(?:s|l?ed)?|reach(?:es|ed)?|becomes?|became|fill(?:s|ed)?|serves?|served"
    r"|feeds?|fed|fits?|completes?|completed|finish(?:es|ed)?|solves?|solved|answer(?:s|ed)?|attend(?:s|ed)?|sends?"
    r"|sent|raises?|raised|deliver(?:s|ed)?|burn(?:s|ed|t)?|lift(?:s|ed)?|consumes?|consumed|creates?|created|builds?"
    r"|built|paint(?:s|ed)?|cooks?|cooked|cuts?|wash(?:es|ed)?|clean(?:s|ed)?|pack(?:s|ed)?|invites?|invited|hires?"
    r"|hired|teach(?:es)?|taught|visit(?:s|ed)?|climb(?:s|ed)?|measures?|measured|yields?|yielded|brings?|brought"
    r"|keeps?|kept|stores?|stored|obtain(?:s|ed)?|sees?|go|goes|went|starts? with|started with|begins? with|began with"
    r"|rains?|rained|memorized?|stays?|stayed|handles?|fills?|drops?|dropped|sits?|stands?|stood|moves?|moved|wears?"
    r"|wore|throws?|threw|hits?|hit"
    r"|(?:drives?|drove|runs?|ran|walks?|walked|travels?|travell?ed|moves?|moved|flies|flew) at|drew|draws?|shares?"
    r"|shared|orders?|ordered|call(?:s|ed)?|counts?|counted|covers?|covered|handed|hands?"
    r"|(?:comes?|came|amounts?|amounted|adds? up|added up|sums? up|works? out)(?: out)? to|ends? up with|ended up with)"
)
_WHOM = r"(?:\s+(?:me|you|him|her|it|us|them|himself|herself|themselves|(?-i:[A-Z][a-z]+)))?(?:\s+with)?"
_A_SUM_OF = (
    r"(?:\s+(?:(?!nearly\b|hardly\b|barely\b|possibly\b|only\b)\w+ly|up|out|back|off|equal|exactly|precisely|only|just|about|around|approximately|roughly|now|still|then"
    r"|also|altogether|another|an additional|an extra|an|in total|together|to|by\s+itself|actually|therefore|thus"
    r"|(?:an?|the)\s+(?!half|third|quarter|minimum|maximum|multiple|factor|fraction|speed|rate|pack|box|bag|set|group|row"
    r"|dozen)(?:\w+\s+){1,2}of|(?:at|for|with)\s+an?\s+(?:\w+\s+){0,2}(?:total|speed|rate|price|cost|average)\s+of))*"
)
#: After these any word is a verb, but for those of steps.
_MODAL = (
    r"(?:can|could|will|would|shall|should|must|needs? to|needed to|ha(?:s|ve|d) to|able to|going to|'ll)"
    r"(?:\s+\w+ly)?\s+"
    r"(?!add\b|subtract\b|multiply\b|divide\b|calculate\b|compute\b|find\b|round\b|consider\b|substitute\b|plug\b|solve\b"
    r"|note\b|see\b|use\b|not\b|be\b)[a-z]+"
)
#: Any other verb in the past.
_DID = (
    r"(?!(?:add|subtract|multipli|divid|number|round|bas|nam|call|label|index|suppos|assum|hundr|indeed|speed|need)\w*\b)"
    r"[a-z]{3,}ed"
)
#: A verb and what may stand between it and its number.
_SAYING = re.compile(
    rf"(?i)(?<![\w'-])(?:{_VERB}|{_DID}|{_MODAL})(?:{_WHOM}{_A_SUM_OF})(?=[\s*_\"'($\\\u20ac\u00a3:]{{1,8}}-?[$\\]?\.?[0-9\\])"
)
_MUST = re.compile(
    r"(?i)\b(?:needs?|needed|has|have|had|going|able|wants?|like|likes|used|ought|plans?|hopes?|gets?)\s+to\s+$"
)
_OF_ANOTHER = re.compile(r"(?i)\b(?:that|which|who|whose|where|to|each|every|of which)\s+$")
_NOT_THE_TEXTS = re.compile(
    r"(?i)^\W*(?:let's|let us|let|if|suppose|imagine|maybe|perhaps|possibly|step|first|next|now we|then we)\b"
    r"|\b(?:we|i|you|us)\s+(?:then\s+|now\s+|also\s+|just\s+)?(?:takes?|uses?|had|were|are|was|is|found|wrote|read|counts?"
    r"|give|given|left|leave|draw|call|write|cut|know|pick|keep|carry|work)\b"
    r"|\b(?:maybe|perhaps|possibly|next|first step|so far)\b|(?:'s|my) (?:guess|estimate|claim|bet|opinion)\b"
)
_THUS = re.compile(
    r"(?i)\b(?:so(?! far\b)|therefore|thus|hence|(?:this|that|which)\s+means(?:\s+that)?|meaning)\b,?(?=.*[0-9])"
)
_AT_FIRST = re.compile(
    r"(?i)\W*(?:since|because|when|after|before|given|as|for|in|at|with|by|while|of|on|over|during|out of|to|from"
    r"|including|adding|if)\b[^,]*(?:,(?=[0-9]{3})[^,]*)*,(?![0-9]{3})\s*"
)
_ASIDE = re.compile(r"(?i),?\s*\b(?:since|because|when|after|before|as|where|given)\b")
_BOUND = re.compile(
    r"(?i)\b(?:at least|at most|(?:more|less|fewer|greater) than|up to|between|either|nearly|almost"
    r"|over|or)\b"
)
_STANDS = re.compile(
    r"(?i)\s*(?:(?:\w+\s+){1,5}?(?:is|are|was|were|will be|would be|can be|have been|has been|had been)"
    r"(?!\s+(?:too|not|never|enough|wrong|more|less|a|an)\b)(?:\s+\w+){1,6}"
    r"|(?:is|are|was|were|will be)(?:\s+\w+ly|\s+still)?\s+"
    r"(?:left|remaining|needed|the (?:total|number|amount|result)\b.*)"
    r"|(?:\w+\s+){0,5}?(?:remain(?:s|ed)?|left))[\s*_.!\"')]*"
)
_ANY_VERB = re.compile(rf"(?i)\b{_VERB}\b")


def sentence_number(sentence: str, *, units: Sequence[str] = ()) -> Named | None:
    """The one number that a sentence states, of all that it may name; None where it states none, or several.

    Args:
        sentence: made `tidy`, of at most a few hundred characters.
        units: see `named_number`.
    """
    if not re.search(r"[0-9]", sentence):
        return None
    text = in_signs(sentence)
    start = max((found.end() for found in _THUS.finditer(text)), default=0)
    first = _AT_FIRST.match(text, start)
    if first and re.search(r"[0-9]", text[first.end() :]):
        start = first.end()
    alone = named_number(text[start:], units=units)
    if alone and alone.whole(text[start:]) and not _ANY_VERB.search(text, start + alone.end):
        return _moved(alone, start)
    if _NOT_THE_TEXTS.search(text, start) or thought_by_another(text):
        return None
    return _equation(text, start, units) or _after_a_verb(text, start, units) or _before_a_verb(text, start, units)


def _equation(text: str, start: int, units: Sequence[str]) -> Named | None:
    signs = list(EQUALS.finditer(text, start))
    if not signs:
        return None
    apart = re.compile(r"(?i)[;<>\u2264\u2265]|,(?![0-9]{3})|\b(?:and|or|not|if)\b")
    for one, two in pairwise(signs):
        if apart.search(text, one.end(), two.start()):
            return Named(None, start, len(text))
    if re.search(r"(?i)[<>\u2264\u2265]|\b(?:or|not|if)\b", text[start : signs[0].start()]):
        return Named(None, start, len(text))
    found = number_at(text, _skip(text, signs[-1].end()), units)
    if found is None or found.value is None or found.rest.kind == "equation" or _places(text, found.end, units):
        return Named(None, start, len(text))
    return found


def _after_a_verb(text: str, start: int, units: Sequence[str]) -> Named | None:
    found = _places(text, start, units)
    if not found:
        return None
    first = found[0]
    if first.value is None or any(
        other.value is None or worth(other.value) != worth(first.value) for other in found[1:]
    ):
        return Named(None, start, len(text))
    after = text[first.rest.end :]
    if re.match(r",.*[0-9]", after) and not re.match(
        r",\s*(?:since|because|so|which|as|when|for|not|after|with)\b", after
    ):
        return Named(None, start, len(text))  # "the first costs $5, the second $6"
    return first


def _places(text: str, start: int, units: Sequence[str]) -> list[Named]:
    """The numbers right after verbs of the main clause of `text[start:]`."""
    found: list[Named] = []
    for verb in _SAYING.finditer(text, start):
        before = text[start : verb.start()]
        subject = before.strip(" *_,:\"'$\\(") or re.search(r"\w", text[:start])
        if not subject or _BOUND.search(verb.group()):
            continue
        if found and _ASIDE.search(text, found[-1].end, verb.start()):
            break
        each = re.fullmatch(r"(?i)\W*(?:each|every)\s+", before)
        if _OF_ANOTHER.search(before) and not _MUST.search(before) and not each:
            continue
        number = number_at(text, _skip(text, verb.end()), units)
        if number is None or number.rest.kind == "equation":
            number = Named(None, verb.end(), verb.end() + 1)
        found.append(number)
    return found


def _skip(text: str, at: int) -> int:
    lead = LEAD.match(text, at)
    return lead.end() if lead else at


def _before_a_verb(text: str, start: int, units: Sequence[str]) -> Named | None:
    """ "5 apples are left"."""
    number = number_at(text, _skip(text, start), units)
    if number is None or number.value is None or re.search(r"[0-9]", text[number.end :]):
        return None
    return number if _STANDS.fullmatch(text, number.end) else None


def _moved(named: Named, by: int) -> Named:
    return Named(named.value, named.start + by, named.end + by, Tail(named.rest.kind, named.rest.end + by))
