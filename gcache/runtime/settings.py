"""Records of settings: a field says its default, its help text, what is allowed and how its flag is called, once.

    @dataclass(frozen=True)
    class Limits(Settings):
        max_batch_size: int = setting(64, help="the most sequences in one pass", at_least=1, group="limits")

A record checks each field by itself where it is made. What two fields must agree on is checked by the record's own
`__post_init__`. Flags and files of settings are made from the same fields (`gcache.commands.flags`).
"""

from __future__ import annotations

import dataclasses
import math
import sys
import types
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import MISSING, Field, dataclass
from typing import Any, Union, get_args, get_origin, get_type_hints

from gcache.errors import ConfigError, shown, unknown


@dataclass(frozen=True)
class About:
    """What is known of a setting beside its default.

    Attributes:
        help: one line for `--help`.
        group: the group of flags that it stands under; "" for one that no command offers by itself.
        flag: how its flag is called, where not like the field.
        was: its name in records that were written before.
        unset: what it means that it is None, or empty.
        what: what a name of it is called in errors.
        at_least, above, at_most, below: the bounds of a number.
        unit: of a number, for errors.
        choices: a registry of allowed names, or what gives them, asked anew each time; None for anything.
        also: names that are allowed beside those of `choices`.
        metavar: what stands for its value in `--help`.
        switch: whether its flag takes no word behind it, since a command has arguments without a flag.
    """

    help: str
    group: str = ""
    flag: str = ""
    was: str = ""
    unset: str = "none"
    what: str = ""
    at_least: float | None = None
    above: float | None = None
    at_most: float | None = None
    below: float | None = None
    unit: str = ""
    choices: Collection[str] | Callable[[], Collection[str]] | None = None
    also: tuple[str, ...] = ()
    metavar: str | None = None
    switch: bool = False

    @property
    def names(self) -> list[str]:
        """Allowed names, as their registry has them now; none where anything is allowed."""
        known = self._registry  # of one that has plug-ins, those of this package: others are listed by their command
        return [] if self.choices is None else list(dict.fromkeys((*self.also, *getattr(known, "built_in", known))))

    def allows(self, name: object) -> bool:
        """Whether this is an allowed name."""
        return self.choices is None or name in self.also or name in self._registry

    @property
    def _registry(self) -> Collection[str]:
        found = self.choices() if callable(self.choices) else self.choices
        return () if found is None else found

    @property
    def is_bounded(self) -> bool:
        """Whether it is a number that may not be any number."""
        return any(bound is not None for bound in (self.at_least, self.above, self.at_most, self.below))

    def bounds(self, whole: bool) -> str:
        """The allowed numbers in words.

        Args:
            whole: whether these are whole numbers.
        """
        if self.above is not None and self.below is not None:
            return f"between {self.above:g} and {self.below:g}, both excluded"
        number = "" if whole else f"a finite number of {self.unit} " if self.unit else "a finite number "
        if self.at_most is not None or self.below is not None:
            most, word = (self.below, "below ") if self.at_most is None else (self.at_most, "")
            if self.at_least is not None:
                return f"from {self.at_least:g} to {word}{most:g}"
            low = "" if self.above is None else f"above {self.above:g} and "
            return f"{number}{low}{word or 'at most '}{most:g}"
        if self.above is not None:
            return f"{number}above {self.above:g}"
        return f"{number.rstrip()}{', ' if self.unit else ' of ' if number else ''}{self.at_least:g} or more"

    def holds(self, number: float) -> bool:
        """Whether a number is within the bounds."""
        return (
            (self.at_least is None or number >= self.at_least)
            and (self.above is None or number > self.above)
            and (self.at_most is None or number <= self.at_most)
            and (self.below is None or number < self.below)
        )


def setting(default: Any = MISSING, *, default_factory: Any = MISSING, repr: bool = True, **about: Any) -> Any:
    """A field of a record of settings; `about` are the fields of `About`."""
    given = {"default_factory": default_factory} if default_factory is not MISSING else {"default": default}
    return dataclasses.field(**given, repr=repr, metadata={"about": About(**about)})


def settings_of(record: Any) -> Iterator[tuple[Field[Any], About]]:
    """The fields of a record, or of its class, that are settings."""
    for field in dataclasses.fields(record):
        about = field.metadata.get("about")
        if about is not None:
            yield field, about


def flag_of(field: Field[Any]) -> str:
    """How a setting is called on the command line, without the dashes."""
    about = field.metadata.get("about")
    return field.name if about is None else about.flag or field.name


def kind_of(record: type, name: str) -> tuple[type, bool]:
    """What one value of a field is, and whether the field holds several."""
    for owner in record.__mro__:
        annotation = vars(owner).get("__annotations__", {}).get(name)
        if annotation is not None:
            # one by one: other fields may name what is imported for type checkers alone
            alone = types.SimpleNamespace(__annotations__={name: annotation})
            hint = get_type_hints(alone, globalns=vars(sys.modules[owner.__module__]))[name]
            break
    if get_origin(hint) in (Union, types.UnionType):
        (hint,) = (each for each in get_args(hint) if each is not type(None))
    many = get_origin(hint) is tuple
    return (get_args(hint)[0] if many else hint), many


class Settings:
    """Base of records of settings: checks each field by itself, and knows the names that fields had before.

    Raises:
        ConfigError: a value that is not allowed, or the former name of a field.
    """

    def __new__(cls, *args: Any, **named: Any) -> Any:
        for field, about in settings_of(cls):
            if about.was and about.was in named:
                raise ConfigError(f"{about.was} of a {cls.__name__} is called {field.name} now; pass that")
        return super().__new__(cls)

    def __post_init__(self) -> None:
        for field, about in settings_of(self):
            value = getattr(self, field.name)
            several = isinstance(value, tuple | list)
            if several and not isinstance(field.default, tuple):
                raise ConfigError(f"{flag_of(field)} must be one value, got {shown(value)}")
            for each in value if several else (value,):
                if each is not None:
                    _check(type(self), field, about, each)


def _check(record: type, field: Field[Any], about: About, value: Any) -> None:
    """Refuse one value of one field."""
    if about.choices is not None and not isinstance(value, str):  # before it is looked up: that may run a plug-in
        raise ConfigError(f"{flag_of(field)} must be a name, got {shown(value)}")
    if not about.allows(value):
        raise unknown(about.what or field.name.replace("_", " "), value, about.names)
    if not about.is_bounded:
        return
    whole = kind_of(record, field.name)[0] is int
    fits = isinstance(value, int) and abs(value) < 2**63 if whole else _is_finite(value)
    if isinstance(value, bool) or not fits or not about.holds(value):
        out = f"; leave it out for {about.unset}" if field.default is None else ""
        raise ConfigError(f"{flag_of(field)} must be {about.bounds(whole)}, got {shown(value)}{out}")


def _is_finite(value: Any) -> bool:
    try:
        return isinstance(value, int | float) and math.isfinite(value)
    except OverflowError:  # a whole number beyond all floats
        return False


def current_names(record: type, values: Mapping[str, Any]) -> dict[str, Any]:
    """Values by the names of a record's fields, where some may stand under their former names.

    Raises:
        ConfigError: one stands under both.
    """
    found = dict(values)
    for field, about in settings_of(record):
        if about.was and about.was in found:
            if field.name in found:
                raise ConfigError(f"{about.was} is the former name of {field.name}, and both are given; leave out one")
            found[field.name] = found.pop(about.was)
    return found


def former_names(record: type, values: Mapping[str, Any]) -> dict[str, Any]:
    """The inverse of `current_names`: as older versions would have written the same values."""
    was = {field.name: about.was for field, about in settings_of(record) if about.was}
    return {was.get(name, name): value for name, value in values.items()}
