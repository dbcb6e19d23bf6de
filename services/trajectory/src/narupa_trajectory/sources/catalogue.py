"""What can be run, named by one line of text: `TARGET[?option=value&...]`. The target is a file, or what else an engine takes.

17-ala.xml?steps_per_frame=10
cu.xyz?calculator=emt&temperature_k=500
argon.cif?calculator=lj&calculator.sigma=3.4&calculator.epsilon=0.0104
run.xtc?topology=top.pdb
session.nanover.zip?speed=2&loop=false
demo:nanotube
imd://127.0.0.1:8888?topology=top.pdb
1ubq.pdb?engine=elastic-network
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self, TypeVar
from urllib.parse import unquote

from narupa_shared.errors import InvalidArgumentError, NarupaError
from narupa_trajectory.sources.built_in import demo_texts
from narupa_trajectory.sources.engines import SCHEME, described, engines
from narupa_trajectory.sources.source import Source

CALCULATOR_PREFIX: Final = "calculator."
ENGINE_OPTION: Final = "engine"
MAX_TEXT_LENGTH: Final = 4096

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class SourceSpec:
    """One source, as it was named.

    Attributes:
        text: Its name in full.
        target: The file, `demo:NAME`, `imd://HOST:PORT`, or what else its engine takes.
        kind: Name of the engine that opens it.
        options: Those of the engine, checked, and plain as in JSON; what is unset is not among them.
    """

    text: str
    target: str
    kind: str
    options: Mapping[str, Any]

    @classmethod
    def parse(cls, text: str) -> Self:
        """The source that `text` names. Looks at the file's name, and at the start of an `.xml`; opens nothing.

        Raises:
            InvalidArgumentError: naming the option and the value.
        """
        from narupa_trajectory.sources.options import checked

        if not isinstance(text, str) or not text.strip() or len(text) > MAX_TEXT_LENGTH or "\0" in text:
            raise InvalidArgumentError("input", text, "name a file, or one of " + ", ".join(demo_texts()))
        target, separator, query = text.strip().partition("?")
        if separator and Path(text.strip()).exists():  # a file whose name has a question mark in it
            target, query = text.strip(), ""
        given = parsed_query(query)
        wanted = given.pop(ENGINE_OPTION, None)
        engine = engines().chosen(target, given) if wanted is None else engines().named(wanted)
        options = asked(engine.name, text, lambda: checked(engine, given, text))
        return cls(text, target, engine.name, options)


def check_spec(text: str) -> None:
    """Passes for a source that looks as if it could be opened: the cheap checks, for failing early.

    Raises:
        InvalidArgumentError: an unknown file, demo, engine, option, calculator or type of file.
    """
    check_there(SourceSpec.parse(text))


def check_there(spec: SourceSpec) -> None:
    """Passes when what `spec` names seems to be there; errors as for `check_spec`."""
    asked(spec.kind, spec.text, lambda: engines().named(spec.kind).check(spec))


def open_source(spec: SourceSpec) -> Source:
    """The source, loaded and at its first frame.

    Raises:
        InvalidArgumentError: it cannot be opened; the text says why, and what would help.
    """
    check_there(spec)
    return engines().named(spec.kind).open(spec, source_name(spec))


def source_name(spec: SourceSpec) -> str:
    """What people call it: the file's name without its ending, or what follows the scheme of `demo:NAME` and its like."""
    scheme = SCHEME.match(spec.target)
    if scheme and not Path(spec.target).exists():
        return spec.target[scheme.end() :] or spec.target
    return Path(spec.target).stem.removesuffix(".nanover") or spec.target


def asked(name: str, text: str, question: Callable[[], T]) -> T:
    """The engine's answer. What a plug-in trips over is told as its own fault, and as nobody else's.

    Raises:
        InvalidArgumentError: naming the engine.
    """
    try:
        return question()
    except NarupaError:
        raise
    except Exception as error:
        raise InvalidArgumentError("input", text, f"the engine {name} failed on it ({described(error)})") from error


def parsed_query(query: str) -> dict[str, Any]:
    given: dict[str, Any] = {}
    calculator_options: dict[str, Any] = {}
    for item in query.split("&") if query else []:
        key, separator, value = item.partition("=")
        key, value = unquote(key), unquote(value)
        if not separator or not key:
            raise InvalidArgumentError("input option", item, "options are written name=value, with & between them")
        if key in given or key.removeprefix(CALCULATOR_PREFIX) in calculator_options:
            raise InvalidArgumentError("input option", key, "is given twice")
        if key.startswith(CALCULATOR_PREFIX):
            calculator_options[key.removeprefix(CALCULATOR_PREFIX)] = literal(value)
        else:
            given[key] = value
    if calculator_options:
        given["calculator_options"] = calculator_options
    return given


def literal(value: str) -> Any:
    """A number, true, false, null, list or map where the text is one in JSON, else the text."""
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        return value
