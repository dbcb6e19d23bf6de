"""What can run an input: the built-in engines, and those that installed packages register as plug-ins.

A plug-in is an entry point of the group `narupa.engines`, whose name is the engine's and whose value is an object that satisfies
`EngineType`, or a class of such; `docs/engines.md` shows how to write one. An input is run by the engine that it names
(`?engine=NAME`), else by the first built-in that claims it, else by the plug-in that does, else it is taken for a recording. So
naming what is built in loads no plug-in, and no plug-in can take over what ran without it.
"""

from __future__ import annotations

import functools
import importlib.metadata
import inspect
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol

from narupa_shared.errors import InvalidArgumentError, shown
from narupa_trajectory.sources.source import Source

if TYPE_CHECKING:  # a catalogue of sources needs engines, and pydantic takes longer to load than naming one may
    from importlib.metadata import EntryPoint

    from narupa_trajectory.sources.catalogue import SourceSpec
    from narupa_trajectory.sources.options import Options

GROUP: Final = "narupa.engines"
# Of `demo:NAME`, `imd://HOST:PORT` and what plug-ins have of the kind. A file of such a name is written `./NAME`.
SCHEME: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:(?://)?")


class EngineType(Protocol):
    """One kind of engine: which inputs it runs, which options they take, and how one is opened.

    Only `open` runs in the engine process, and only there what is heavy should be imported: the service asks the rest
    before anything is opened, and waits for it.
    """

    @property
    def name(self) -> str:
        """As `?engine=NAME` names it; of a plug-in, the name of its entry point."""

    @property
    def options(self) -> type[Options]:
        """Its options with their types and defaults. What is given is checked against them before `check` and `open`."""

    def claims(self, target: str, given: Mapping[str, Any]) -> bool:
        """Whether an input that names no engine is this one's. Looks at the text, at most at the start of a file.

        Args:
            target: What stands before the question mark: a path, or anything else that the engine knows to read.
            given: The options as they were written, unchecked.
        """

    def check(self, spec: SourceSpec) -> None:
        """Passes when `spec` looks as if it could be opened: the cheap checks, for failing early.

        Raises:
            InvalidArgumentError: naming the field and the value, and what would help.
        """

    def open(self, spec: SourceSpec, name: str) -> Source:
        """The source at its first frame; people call it `name`. `spec.options` are checked, and plain as in JSON.

        Raises:
            InvalidArgumentError: it cannot be opened; the text says why, and what would help.
        """


class Engines:
    """The engines there are. Plug-ins are looked for when no built-in will do, and loaded when they are asked."""

    def __init__(self, built_in: Iterable[EngineType], installed: Callable[[], Iterable[EntryPoint]]) -> None:
        """
        Args:
            built_in: In the order in which they are asked; the last also takes what nobody claims.
            installed: The entry points of the plug-ins.
        """
        self._built_in = {engine.name: engine for engine in built_in}
        self._last_resort = next(reversed(self._built_in.values()))
        self._installed = installed
        self._loaded: dict[str, EngineType] = {}
        self._broken: dict[str, str] = {}

    def named(self, name: str) -> EngineType:
        """The engine of this name.

        Raises:
            InvalidArgumentError: there is none, or it is a plug-in that is broken.
        """
        if name in self._built_in:
            return self._built_in[name]
        self._load(name)
        if name in self._loaded:
            return self._loaded[name]
        if name in self._broken:
            raise InvalidArgumentError("engine", name, self._broken[name])
        raise InvalidArgumentError("engine", name, f"is unknown; there are {', '.join(self.names())}")

    def names(self) -> list[str]:
        """The built-in engines' names, then the plug-ins', in alphabetical order, the broken ones' included."""
        return [*self._built_in, *sorted(self._plug_ins())]

    def chosen(self, target: str, given: Mapping[str, Any]) -> EngineType:
        """The engine of an input that names none.

        Raises:
            InvalidArgumentError: several plug-ins claim it, or it has a scheme that is nobody's.
        """
        for engine in self._built_in.values():
            if engine.claims(target, given):
                return engine
        claiming = [name for name in sorted(self._plug_ins()) if self._claims(name, target, given)]
        if len(claiming) > 1:
            choices = " or ".join(f"engine={name}" for name in claiming)
            raise InvalidArgumentError("input", target, f"is claimed by several engines; add {choices}")
        if not claiming and SCHEME.match(target) and not Path(target).exists():
            there = f"there is no such file, and no engine takes it; there are {', '.join(self.names())}"
            raise InvalidArgumentError("input", target, "; ".join(filter(None, [there, self.complaints()])))
        return self._loaded[claiming[0]] if claiming else self._last_resort

    def complaints(self) -> str:
        """What is wrong with plug-ins that were asked so far; empty when nothing is."""
        return "; ".join(f"the engine {name} {reason}" for name, reason in sorted(self._broken.items()))

    def _claims(self, name: str, target: str, given: Mapping[str, Any]) -> bool:
        self._load(name)
        if name not in self._loaded:
            return False
        try:
            return bool(self._loaded[name].claims(target, given))
        except Exception as error:  # a plug-in raises whatever it trips over, and hurts nobody else by it
            self._note(name, f"cannot tell what it claims ({described(error)}); name another engine, or mend it")
            return False

    def _load(self, name: str) -> None:
        """The plug-in is loaded, or known to be broken, if there is one of this name."""
        if name in self._loaded or name in self._broken:
            return
        offered = self._plug_ins().get(name, [])
        if len(offered) > 1:
            packages = " and ".join(sorted(package_of(each) for each in offered))
            self._note(name, f"is offered by {packages}; remove one of them")
        for entry in offered[:1] if name not in self._broken else []:
            try:
                loaded = entry.load()
                engine: Any = loaded() if inspect.isclass(loaded) else loaded
                problem = misfit(engine, name)
            except (Exception, SystemExit) as error:
                problem = f"cannot be loaded ({described(error)})"
            if problem:
                self._note(name, f"is a plug-in of {package_of(entry)} and {problem}; mend or remove that package")
            else:
                self._loaded[name] = engine

    def _plug_ins(self) -> dict[str, list[EntryPoint]]:
        """Those that may be used, by name; more than one of a name is a fault that is told when it is asked for."""
        return self._found

    @functools.cached_property
    def _found(self) -> dict[str, list[EntryPoint]]:
        found: dict[str, dict[str, EntryPoint]] = {}
        for entry in self._installed():
            if entry.name in self._built_in:
                reason = f"of {package_of(entry)} has the name of a built-in engine, which stays; it needs another"
                self._note(entry.name, reason)
            else:
                found.setdefault(entry.name, {})[entry.value] = (
                    entry  # a folder that is on the path twice is one package
                )
        return {name: list(entries.values()) for name, entries in found.items()}

    def _note(self, name: str, reason: str) -> None:
        if name not in self._broken:
            import structlog

            structlog.get_logger(__name__).warning("engine_plugin_broken", engine=name, reason=reason)
            self._broken[name] = reason


@functools.cache
def engines() -> Engines:
    """The engines of this process."""
    from narupa_trajectory.sources.built_in import BUILT_IN

    return Engines(BUILT_IN, lambda: importlib.metadata.entry_points(group=GROUP))


def misfit(engine: Any, name: str) -> str:
    """What keeps an object from being the engine `name`; empty when nothing does."""
    from narupa_trajectory.sources.options import Options

    if getattr(engine, "name", None) != name:
        return f"calls itself {shown(getattr(engine, 'name', None))}; its name needs to be that of its entry point"
    options = getattr(engine, "options", None)
    if not (inspect.isclass(options) and issubclass(options, Options)):
        return "has no options that are a class derived from narupa_trajectory.sources.options.Options"
    lacking = [method for method in ("claims", "check", "open") if not callable(getattr(engine, method, None))]
    return f"lacks the method {lacking[0]}" if lacking else ""


def package_of(entry: EntryPoint) -> str:
    """The name and version of the package that offers a plug-in."""
    return f"{entry.dist.name} {entry.dist.version}" if entry.dist else entry.value


def described(error: BaseException) -> str:
    return shown(f"{type(error).__name__}: {error}", 300)[1:-1]


def existing(path: str, field: str) -> None:
    """Passes when there is a file or folder at `path`, with something in it.

    Raises:
        InvalidArgumentError: naming `field`.
    """
    if not Path(path).exists():
        raise InvalidArgumentError(field, path, f"there is no such file in {Path.cwd()}")
    if Path(path).is_file() and not Path(path).stat().st_size:
        raise InvalidArgumentError(field, path, "is empty")
