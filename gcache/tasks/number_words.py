"""Words that stand beside numbers: short units, words that only say of what a number is, and words that change it."""

from __future__ import annotations


def words(text: str) -> frozenset[str]:
    """The words of a text, as a set."""
    return frozenset(text.split())


#: Units of one to four letters, as they are written; longer ones are any word.
UNITS = words(
    "m s g h l L C F K W V J km cm mm nm ft in yd mi oz lb lbs kg mg ml mL cl dl hr hrs min mins sec secs ms kW kWh"
    " Wh Hz kHz MHz GHz am pm a.m. p.m. mph kph kmh fps GB MB KB TB pt qt ct pc pcs px sq cu ha gal rpm yr yrs wk"
    " wks mo mos USD EUR GBP JPY CAD AUD kJ kcal cal Pa kPa N"
)
#: Words that may follow a number and its unit and say of what, when, where, why it is; what comes then is not read.
LINKS = words(
    "for in after per a an each every at on from with by when because since as so which that who whom where while"
    " during before given left remaining total altogether overall combined away not but is are was were be been has"
    " have had will would can must should this these those the it its we he she they you there of to and into among"
    " without within across throughout via about around due thanks based according than it's that's she's he's his"
    " her their my our your does do did used using making leaving including excluding therefore thus hence then also"
    " too here now i"
)
#: After a number, or after its unit, they make it a part, a bound, a power, or a step of something else.
NEVER = words(
    "or nor squared cubed factorial choose mod modulo bmod pmod times divided multiplied digit digits halves thirds"
    " quarters fourths fifths sixths sevenths eighths ninths tenths hundredths thousandths short shy off minimum"
    " maximum max tops ish something odd plus minus remainder r x y z n pi e versus vs through until till january"
    " february march april june july august september october november december sigma divisible maybe perhaps possibly"
    " if unless provided assuming only depending between above below over under beyond past"
)
NUMBER_WORDS = (
    *("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"),
    *("thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen", "twenty"),
)
#: A word that is a number, for a pattern.
WORD_NUMBER = rf"(?:{'|'.join(NUMBER_WORDS)}|thirty|forty|fifty|sixty|seventy|eighty|ninety|hundred|half)\b"
