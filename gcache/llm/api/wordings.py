r"""Which field an error message refuses, in the words of people.

    'seed' is not supported            a field beside words of refusal
    temperature must be 1              a field of which one value is taken
    use max_completion_tokens instead  another limit of tokens that is wanted

Names such as `seed` and `temperature` are words of every day, and servers repeat what they were asked. A name counts
where it stands as a parameter: by its form (`max_tokens`), by quotes, brackets or a value around it, or where nothing
but small words stands between it and its refusal, and nothing on its other side goes on. A message that speaks of a
prompt, of content or of a policy names no field.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator

_FLAGS = re.IGNORECASE | re.ASCII
#: Words of a message that is about what was asked; a key of JSON is none.
_OF_CONTENT = re.compile(
    r"(?<!\w)(?:prompts?|contents?|polic(?:y|ies)|guidelines?|moderat\w+|safety|filter(?:s|ed|ing)?|flagged|harmful|"
    r"inappropriate|sensitive|words?|phrases?|topics?|questions?)(?!\w|['\"]\s?:)",
    _FLAGS,
)
#: Ends of what is said at once; the point of 0.5 or of body.seed is none.
_END = re.compile(r"[.!?](?=\s|$)|[;\n\u3002\uff1b]")
#: Stands for the name that is looked at.
_NAME = "\0"
_KIND = r"(?:parameter|param|argument|field|property|option|setting|key|name|value)s?"
_TAKE = r"(?:support|accept|allow|permit|take|recogni[sz]e)"
_NUMBER = r"\d+(?:\.\d+)?(?![\w%])"
_NOT_TO = r"(?:cannot|can['\u2019]t|can not|may not|must not|mustn['\u2019]t|do not|don['\u2019]t)"
_REFUSED = (
    rf"(?:unsupported|unrecogni[sz]ed|unknown|unexpected|extraneous|deprecated|extra inputs|extra fields|"
    rf"extra_forbidden|invalid {_KIND}|(?:is|are) fixed|only the default|only {_NUMBER} (?:is|are) \w+ed|"
    r"(?:not|(?:is|are|do|does|can)n['\u2019]t|no longer) (?:\w+ )?"
    rf"(?:(?:support|accept|allow|permitt?|recogni[sz]|tak)(?:s|e|es|ed|en)?(?!\w)|available|a valid {_KIND})|"
    r"(?:is|are|was|were|been) (?:\w+ )?(?:obsolete|forbidden|prohibited|disallowed|removed|disabled|immutable|"
    r"read-?only)|"
    r"not (?:\w+ )?(?:configur|adjust|chang|modifi|customiz|customis|settable|tun|applic)\w*able|"
    rf"{_NOT_TO} (?:be )?(?:set|chang|modif|customi|specif|us(?:e|ed|ing)(?!\w)|adjust|configur|send|sent)|不支持)"
)
_SMALL = (
    rf"(?:(?:the|an?|any|this|these|its?|is|are|was|be|been|has|have|does|do|did|of|for|on|with|in|at|by|and|or|but|"
    rf"yet|now|also|currently|models?|s|request|supplied|provided|sampling|custom|set|exactly|equal|{_KIND}|{_NUMBER}|"
    r"[a-z]+(?:_[a-z0-9]+)+|temperature|seed|n|stop|user|tools|stream|store|metadata)\W+)"
)
#: One value, and no range of them.
_ONE = (
    r"(?:(?:be|set|fixed|equal|exactly|left|to|at|of|the|an?|value)[\s:`'\"]+){0,4}"
    rf"(?:{_NUMBER}(?!\s*[<>\u2264\u2265+~]|\W*(?:or\W+|and\W+|to\W+|at\W+)?(?:\d|less|lower|below|smaller|under|more|"
    r"greater|above|higher|larger|up|least|most))|default\b|unset\b|omitted\b)"
)
#: A name by itself, beside its refusal.
_BARE = re.compile(
    rf"{_REFUSED}\W{{0,3}}{_SMALL}{{0,8}}{_NAME}(?:\W*$|[^\w\s-]|\s+{_SMALL})|"
    rf"(?:^|[:,()\[\]{{}}>-])[\s\\'\"]*{_SMALL}{{0,6}}{_NAME}\W{{1,3}}{_SMALL}{{0,8}}{_REFUSED}",
    _FLAGS,
)
#: A name that stands as a parameter by its form, near a refusal.
_MARKED = re.compile(rf"{_REFUSED}.{{0,60}}?{_NAME}|{_NAME}.{{0,60}}?{_REFUSED}", _FLAGS | re.DOTALL)
_MARKS = re.compile(
    rf"[`'\"\u2018\u201c\[({{]{_NAME}[`'\"\u2019\u201d\])}}]|body\.{_NAME}|{_NAME}\s?=|{_KIND}[\s:=-]{{1,3}}{_NAME}",
    _FLAGS,
)
_ONE_VALUE = re.compile(
    rf"{_NAME}\W{{1,3}}{_SMALL}{{0,3}}(?:{_TAKE}s? )?(?:must|should|has to|have to|needs? to|can only|may only|only)\W+"
    rf"(?:{_TAKE}s? )?{_ONE}|(?:only|requires?|needs?|expects?|set|use)\W+(?:{_TAKE}s?\W+)?{_SMALL}{{0,4}}"
    rf"(?:default\W+{_NAME}|{_NAME}[\s:=`'\"]{{1,3}}{_ONE})",
    _FLAGS,
)
#: Said of a temperature of 0 where only what is above it is taken: by a range that it lies outside of, or in words.
_POSITIVE = r"(?<![\d.])(?:0?\.0*[1-9]\d*|[1-9](?:\.\d+)?)(?!\.?\d)"
_ABOVE_0 = re.compile(
    rf"{_NAME}[^;]{{0,60}}?(?:strictly positive|(?:greater than|above|>) ?0(?!\.\d*[1-9])|[(]0(?:\.0+)?,|"
    rf"(?:cannot|must not|can't) be (?:0|zero)|参数非法|"
    rf"(?:at least|above|greater than(?: or equal to)?|>=?|\u2265|not (?:be )?(?:less|lower|smaller) than|"
    rf"minimum(?: value)?(?: is| of)?)\W{{0,2}}{_POSITIVE}|{_POSITIVE} ?(?:,|\.{{2,3}}|[-~\u2013]|to|and) ?\d|"
    rf"{_POSITIVE}\W+or\W+(?:more|greater|above|higher|larger|up)(?!\w))",
    _FLAGS,
)
#: A limit of tokens, and how another one is recommended.
_LIMIT = r"max_\w{0,30}(?:tokens|length)(?!\w)"
_OTHER_LIMIT = re.compile(rf"(?<!\w){_LIMIT}", _FLAGS)
_ADVISED = re.compile(
    r"(?<!\w)(?:use[ds]?|using|try|prefer|requir(?:es?|ed)|needs?|expect(?:s|ed)?|send|did you mean|switch to|"
    r"migrate to|replaced (?:by|with)|renamed(?: to| as)?|superseded by|in favou?r of|supports? only|only supports?)\W+"
    rf"(?:(?:the|a|new|{_KIND})\W+){{0,3}}(?P<before>{_LIMIT})|"
    rf"(?<!\w)(?P<after>{_LIMIT})\W+(?:(?:should|must) be (?:used|set|given)|is (?:required|expected|needed)|instead|"
    r"rather than|in place of)",
    _FLAGS,
)


def refused_field(text: str, names: Collection[str], greedy: bool, limit: str, newer: str) -> str | None:
    """The field that a message first refuses, of those that were sent.

    Args:
        greedy: whether a temperature of 0 was sent.
        limit, newer: names of the limit of tokens.
    """
    text = text.replace(_NAME, " ")
    if _OF_CONTENT.search(text):
        return None
    if limit in names:
        advised = {(match["before"] or match["after"]).lower() for match in _ADVISED.finditer(text)} - {limit}
        if newer in advised or (advised and re.search(rf"(?<!\w){limit}(?!\w)", text, _FLAGS)):
            return limit
    found = [(at, name) for name in names for at in _refusals(text, name, greedy)]
    return min(found)[1] if found else None


def other_limit(text: str, sent: Collection[str], newer: str) -> str | None:
    """The limit of tokens that a message names beside those that were sent."""
    others = [other.lower() for other in _OTHER_LIMIT.findall(text) if other.lower() not in sent]
    return newer if newer in others else next(iter(others), None)


def _refusals(text: str, name: str, greedy: bool) -> Iterator[int]:
    """Where a field is named and refused."""
    ends = [(end.start(), end.end()) for end in _END.finditer(text)]
    for match in re.finditer(rf"(?:(?<![\w.])|(?<=body\.)){re.escape(name)}(?!\w)", text, _FLAGS):
        begin = max((after for _, after in ends if after <= match.start()), default=0)
        end = min((at for at, _ in ends if at >= match.end()), default=len(text))
        said = f"{text[begin : match.start()]}{_NAME}{text[match.end() : end]}"
        marked = "_" in name or _MARKS.search(said)
        refused = (_MARKED if marked else _BARE).search(said)
        one = not _OTHER_LIMIT.match(name) and _ONE_VALUE.search(said)
        if refused or one or (name == "temperature" and greedy and _ABOVE_0.search(said)):
            yield match.start()
