"""The folder of specs, read anew when its files change."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import structlog
from pydantic import ValidationError

from narupa_lobby.catalogue.documents import Document, read_toml, read_yaml
from narupa_lobby.catalogue.problems import Problem, SpecError, explained, field_name
from narupa_lobby.catalogue.simulation import SimulationSpec
from narupa_lobby.catalogue.template import SessionTemplate
from narupa_shared.errors import shown

log = structlog.get_logger(__name__)

MAX_FILES: Final = 500
MAX_FILE_BYTES: Final = 64 * 1024
CHECK_INTERVAL_S: Final = 1.0

_READERS: Final = {".yaml": read_yaml, ".yml": read_yaml, ".toml": read_toml}
_KINDS: Final[dict[str, type[SimulationSpec] | type[SessionTemplate]]] = {
    "simulation": SimulationSpec,
    "session": SessionTemplate,
}

Spec = SimulationSpec | SessionTemplate
_Stamp = tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class _File:
    stamp: _Stamp
    spec: Spec | None = None
    lines: Callable[[tuple[str | int, ...]], int] = lambda path: 1
    problems: tuple[Problem, ...] = ()


@dataclass(frozen=True, slots=True)
class Contents:
    """What the folder offers, by name, and what is wrong with the rest."""

    simulations: Mapping[str, SimulationSpec] = field(default_factory=dict)
    templates: Mapping[str, SessionTemplate] = field(default_factory=dict)
    problems: tuple[str, ...] = ()


class Catalogue:
    """Looks at the folder when it is asked, at most once a second; a bad file hides no other and stops nothing."""

    def __init__(self, folder: Path | None, clock: Callable[[], float]) -> None:
        """The catalogue in `folder`; None, or a folder that is not there, offers nothing.

        Args:
            folder: Holds *.yaml, *.yml and *.toml; its subfolders may hold inputs and are not read.
            clock: Monotonic, s.
        """
        self.folder = folder.absolute() if folder is not None else None
        self._clock = clock
        self._checked_at = float("-inf")
        self._files: dict[str, _File] = {}
        self._contents = Contents()
        self._complaint = ""

    @property
    def contents(self) -> Contents:
        """What there is by now."""
        if self.folder is not None and self._clock() - self._checked_at >= CHECK_INTERVAL_S:
            self._check(self.folder)
            self._checked_at = self._clock()
        return self._contents

    def simulation(self, name: str) -> SimulationSpec | None:
        """The simulation of this name."""
        return self.contents.simulations.get(name)

    def _check(self, folder: Path) -> None:
        try:
            stamps = _stamps(folder)
        except OSError as error:
            self._files = {}
            self._note(Contents(problems=(f"{folder}: cannot be read ({error.strerror or error})",)))
            return
        excess = sorted(stamps)[MAX_FILES:]
        files = {
            name: self._files[name]
            if name in self._files and self._files[name].stamp == stamps[name]
            else _read(folder / name, stamps[name])
            for name in sorted(stamps)[:MAX_FILES]
        }
        if files != self._files or self._checked_at == float("-inf"):
            self._files = files
            problem = Problem(excess[0], 0, "", f"is one file too many; takes {MAX_FILES}") if excess else None
            self._note(_merged(files, [problem] if problem else []))

    def _note(self, contents: Contents) -> None:
        if contents == self._contents:
            return
        self._contents = contents
        facts = {"simulations": len(contents.simulations), "templates": len(contents.templates)}
        log.info("catalogue_read", folder=str(self.folder), **facts)
        for problem in contents.problems:
            log.warning("catalogue_problem", problem=problem)


def _stamps(folder: Path) -> dict[str, _Stamp]:
    found = {}
    with os.scandir(folder) as entries:
        for entry in entries:
            if Path(entry.name).suffix.lower() in _READERS and not entry.name.startswith("."):
                try:
                    facts = entry.stat()
                except OSError:  # a broken link, or just gone
                    facts = None
                found[entry.name] = (facts.st_mtime_ns, facts.st_size, facts.st_mode) if facts else (0, 0, 0)
    return found


def _read(path: Path, stamp: _Stamp) -> _File:
    name = shown(path.name)[1:-1]
    document: Document | None = None
    try:
        document = _document(path, stamp)
        kind = document.data.get("kind")
        if not isinstance(kind, str) or kind not in _KINDS:
            given = f"is {shown(kind)}: " if "kind" in document.data else "is missing: "
            raise SpecError(document.line(("kind",)), "kind", f"{given}needs to be 'simulation' or 'session'")
    except SpecError as error:
        return _File(stamp, problems=(Problem(name, error.line, error.field, error.reason),))
    model = _KINDS[kind]
    try:
        return _File(stamp, model.model_validate(document.data), document.line)
    except ValidationError as error:
        found = [
            Problem(name, document.line(place), field_name(place), reason) for place, reason in explained(error, model)
        ]
        return _File(stamp, problems=tuple(sorted(found, key=lambda problem: problem.line)))


def _document(path: Path, stamp: _Stamp) -> Document:
    _, size, mode = stamp
    if not stat.S_ISREG(mode):  # reading a pipe would never end
        raise SpecError(0, "", "is no file")
    if size > MAX_FILE_BYTES:
        raise SpecError(0, "", f"has {size} bytes; takes at most {MAX_FILE_BYTES}")
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_FILE_BYTES + 1)
        return _READERS[path.suffix.lower()](raw[:MAX_FILE_BYTES].decode("utf-8-sig"))
    except OSError as error:
        raise SpecError(0, "", f"cannot be read ({error.strerror or error})") from error
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        raise SpecError(line, "", f"is no UTF-8 text (byte {raw[error.start]:#04x})") from error


def _merged(files: Mapping[str, _File], more: list[Problem]) -> Contents:
    """The specs by name; of several with one name, the file that is first in the alphabet has it."""
    simulations: dict[str, SimulationSpec] = {}
    templates: dict[str, SessionTemplate] = {}
    problems = [problem for file in files.values() for problem in file.problems]
    owners: dict[tuple[str, str], str] = {}
    for name, file in files.items():
        spec = file.spec
        if spec is None:
            continue
        owner = owners.setdefault((spec.kind, spec.name), name)
        if owner != name:
            reason = f"is {spec.name!r}, which {owner} has already; choose another"
            problems.append(Problem(name, file.lines(("name",)), "name", reason))
        elif isinstance(spec, SimulationSpec):
            simulations[spec.name] = spec
        else:
            templates[spec.name] = spec
    for template in list(templates.values()):
        name = owners["session", template.name]
        for index, wanted in enumerate(template.simulations):
            if wanted not in simulations:
                path = ("simulations", index)
                there = ", ".join(sorted(simulations)[:20]) or "none"
                reason = f"is {wanted!r}: no simulation of the catalogue; there are: {there}"
                problems.append(Problem(name, files[name].lines(path), field_name(path), reason))
                templates.pop(template.name, None)
    return Contents(simulations, templates, tuple(str(problem) for problem in [*problems, *more]))
