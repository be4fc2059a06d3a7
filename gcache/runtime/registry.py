"""Registries: what there is by name, of this package, of others, and in a user's own files.

A name is looked up among the built-in ones first, then among the entry points of installed packages (the group
``gcache.tasks``, say), and one like ``path/to/file.py:ClassName`` in that file. Entry points are read from the disk at
the first look-up and imported when they are named, so that a broken package disturbs nobody who does not ask for it.
"""

from __future__ import annotations

import importlib.metadata
import inspect
import logging
import re
import sys
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import redirect_stdout
from dataclasses import dataclass
from functools import cache
from importlib.metadata import EntryPoint
from typing import Any, TypeVar

from gcache.errors import PluginError
from gcache.runtime import plugin_files

Entry = TypeVar("Entry")
logger = logging.getLogger(__name__)

BUILT_IN = "built in"


@dataclass(frozen=True)
class Listed:
    """A row of a list of what there is.

    Attributes:
        text: one sentence; where an entry point cannot be used, why.
        origin: `BUILT_IN`, or the package and its version.
    """

    name: str
    text: str
    origin: str
    usable: bool = True


class Deferred(Mapping[str, Entry]):
    """Entries that are imported when they are asked for: their names are known before that.

    Args:
        imports: name -> what imports and gives its entry.
    """

    def __init__(self, imports: Mapping[str, Callable[[], Entry]]) -> None:
        self._imports = imports

    def __getitem__(self, name: str) -> Entry:
        return self._imports[name]()

    def __contains__(self, name: object) -> bool:
        return name in self._imports

    def __iter__(self) -> Iterator[str]:
        return iter(self._imports)

    def __len__(self) -> int:
        return len(self._imports)


class Registry(Mapping[str, Entry]):
    """Name -> entry. It iterates over the built-in names and those of entry points, in this order.

    Args:
        what: what an entry is, for errors ("task").
        group: of entry points.
        built_in: the entries of this package.
        wrong: what is wrong with an object that a plug-in brings, as words that go on after "the task 'x' "; "" where
            nothing is.
        adapt: makes an entry of such an object, where the two are not the same.
        about: of an entry, what has its docstring.
    """

    def __init__(
        self,
        what: str,
        group: str,
        built_in: Mapping[str, Entry],
        wrong: Callable[[Any], str],
        adapt: Callable[[Any], Entry] = lambda found: found,
        about: Callable[[Entry], Any] = lambda entry: entry,
    ) -> None:
        self.what, self.group, self.built_in = what, group, built_in
        self._wrong, self._adapt, self._about = wrong, adapt, about
        self._made: dict[str, Entry] = {}

    def __getitem__(self, name: str) -> Entry:
        """The entry of a name.

        Raises:
            PluginError: it is an entry point or a file that cannot be used.
            KeyError: there is none.
        """
        if plugin_files.is_reference(name):
            return self._entry(name, plugin_files.find(name))
        points = self._points()
        if name in self.built_in:
            return self.built_in[name]
        if name not in self._made:
            self._made[name] = self._entry(name, self._imported(name, points[name]))
        return self._made[name]

    def __contains__(self, name: object) -> bool:
        """Whether there is an entry of this name; one of a file or a package is imported to find out.

        Raises:
            PluginError: it is an entry point or a file that cannot be used.
        """
        if not isinstance(name, str):
            return False
        if name in self.built_in and not plugin_files.is_reference(name):
            self._points()  # which warns of a package that has the same name
            return True
        try:
            self[name]
        except KeyError:
            return False
        return True

    def __iter__(self) -> Iterator[str]:
        yield from self.built_in
        yield from (name for name in self._points() if name not in self.built_in)

    def __len__(self) -> int:
        return len(list(iter(self)))

    def listed(self) -> list[Listed]:
        """What there is; entry points are imported for their docstrings."""
        rows = []
        for name in self:
            if name in self.built_in:
                rows.append(Listed(name, sentence(self._about(self.built_in[name])), BUILT_IN))
                continue
            origin = " and ".join(map(_package, self._points()[name]))
            try:
                rows.append(Listed(name, sentence(self._about(self[name])), origin))
            except PluginError as error:
                rows.append(Listed(name, str(error), origin, usable=False))
        return rows

    def _entry(self, name: str, found: Any) -> Entry:
        wrong = self._wrong(found)
        if wrong:
            raise PluginError(f"the {self.what} {name!r} {wrong}")
        return self._adapt(found)

    def _points(self) -> Mapping[str, tuple[EntryPoint, ...]]:
        points = _entry_points(self.group)
        for name in points.keys() & self.built_in.keys():
            _warn_of_shadow(self.what, name, " and ".join(map(_package, points[name])))
        return points

    def _imported(self, name: str, points: tuple[EntryPoint, ...]) -> Any:
        packages = [_package(point) for point in points]
        if len(points) > 1:
            raise PluginError(
                f"several packages have a {self.what} {name!r}: {' and '.join(packages)}; uninstall all but one"
            )
        try:
            with redirect_stdout(sys.stderr):  # what a command prints is the command's
                return points[0].load()
        except (Exception, SystemExit) as error:
            raise PluginError(
                f"the {self.what} {name!r} of the package {packages[0]} cannot be imported "
                f"({plugin_files.words(error)}); repair that package, or uninstall it"
            ) from error


@cache
def _entry_points(group: str) -> Mapping[str, tuple[EntryPoint, ...]]:
    """Name -> the entry points that have it; a package that is found twice counts once."""
    found: dict[str, dict[tuple[str, str], EntryPoint]] = {}
    for point in importlib.metadata.entry_points(group=group):
        found.setdefault(point.name, {}).setdefault((_package(point), point.value), point)
    return {name: tuple(sorted(found[name].values(), key=_package)) for name in sorted(found)}


@cache
def _warn_of_shadow(what: str, name: str, package: str) -> None:
    logger.warning("the %s %r of the package %s is left out: that name is built in", what, name, package)


def _package(point: EntryPoint) -> str:
    return f"{point.dist.name} {point.dist.version}" if point.dist else "an unknown package"


def sentence(thing: Any) -> str:
    """The first sentence of its docstring in one line; "" where it has none."""
    text = " ".join((inspect.getdoc(thing) or "").partition("\n\n")[0].split())
    found = re.match(r".+?[.!?](?= [A-Z`\"]|$)", text)
    return found[0] if found else text


def lacks_methods(found: Any, names: tuple[str, ...]) -> str:
    """In words, which of these methods a class does not have; "" where it has all, or is no class."""
    if not isinstance(found, type):
        return ""
    abstract = sorted(getattr(found, "__abstractmethods__", ()))
    missing = [name for name in names if not callable(getattr(found, name, None))]
    lacking = [*missing, *(name for name in abstract if name not in missing)]
    return f"lacks {', '.join(lacking)}" if lacking else ""


def takes(factory: Callable[..., Any], offered: Mapping[str, Any]) -> dict[str, Any]:
    """Of what is offered by name, what a factory has parameters for."""
    parameters = inspect.signature(factory).parameters
    if any(each.kind is each.VAR_KEYWORD for each in parameters.values()):
        return dict(offered)
    return {name: value for name, value in offered.items() if name in parameters}


def needs_more(factory: Callable[..., Any], offered: Collection[str]) -> list[str]:
    """The parameters of a factory that have no default and are not offered."""
    return [
        each.name for each in inspect.signature(factory).parameters.values()
        if each.default is each.empty and each.kind in (each.POSITIONAL_OR_KEYWORD, each.KEYWORD_ONLY)
        and each.name not in offered
    ]  # fmt: skip


def refuses(factory: Callable[..., Any], *arguments: str) -> str:
    """In words, that a function does not take these arguments by position; "" where it does."""
    try:
        inspect.signature(factory).bind(*arguments)
    except TypeError as error:
        return f"cannot be called with ({', '.join(arguments)}): {error}"
    except ValueError:  # of built-in functions nothing is known
        return ""
    return ""
