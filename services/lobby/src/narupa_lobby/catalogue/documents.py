"""Reads YAML and TOML that nobody vouches for, and remembers on which line each value stands."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Final

import yaml

from narupa_lobby.catalogue.problems import Path, SpecError, field_name
from narupa_shared.errors import shown

MAX_DEPTH: Final = 16
MAX_VALUES: Final = 5000

_PREFIX: Final = "tag:yaml.org,2002:"
_PLAIN_TAGS: Final = frozenset(_PREFIX + name for name in ("str", "int", "float", "bool", "null", "map", "seq"))


@dataclass(frozen=True, slots=True)
class Document:
    """What a file says, and the line (from 1) of each of its values."""

    data: dict[str, Any]
    lines: Mapping[Path, int]

    def line(self, path: Path) -> int:
        """The line of this value, or of the nearest thing around it; 1 when nothing is."""
        while path and path not in self.lines:
            path = path[:-1]
        return self.lines.get(path, 1)


class _Loader(yaml.CSafeLoader if yaml.__with_libyaml__ else yaml.SafeLoader):  # type: ignore[misc]
    """Plain values as in YAML 1.2: `no` and `on` are words, 1:30:00 is not 5400, 2026-01-01 is not a date."""

    yaml_implicit_resolvers: ClassVar[dict[str, list[Any]]] = {}  # else they would be added to the library's own


_Loader.add_implicit_resolver(_PREFIX + "bool", re.compile(r"(?:true|True|TRUE|false|False|FALSE)$"), list("tTfF"))
_Loader.add_implicit_resolver(_PREFIX + "null", re.compile(r"(?:~|null|Null|NULL|)$"), ["~", "n", "N", ""])
_Loader.add_implicit_resolver(_PREFIX + "int", re.compile(r"[-+]?(?:0|[1-9][0-9]*)$"), list("-+0123456789"))
_Loader.add_implicit_resolver(
    _PREFIX + "float",
    re.compile(
        r"(?:[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$"
    ),
    list("-+.0123456789"),
)


def read_yaml(text: str) -> Document:
    """The one mapping that `text` is.

    Raises:
        SpecError: with its line; also for duplicate keys, anchors, tags, several documents, and too many or too deep values.
    """
    try:
        _check_shape(text)
        loader = _Loader(text)
        try:
            root = loader.get_single_node()
            lines: dict[Path, int] = {}
            data = _built(loader, root, (), lines) if root is not None else None
        finally:
            loader.dispose()
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        what = getattr(error, "problem", None) or getattr(error, "reason", None) or str(error)
        place = f"column {mark.column + 1}: " if mark else ""
        raise SpecError(mark.line + 1 if mark else 0, "", f"{place}no YAML: {shown(str(what), 200)}") from error
    if not isinstance(data, dict):
        raise SpecError(1, "", "needs to be a mapping of fields to values, beginning with `kind: simulation`")
    return Document(data, lines)


def _check_shape(text: str) -> None:
    """Without building anything: `text` is one document, not too large and not too deep, with nothing that could multiply."""
    depth = values = documents = 0
    for event in yaml.parse(text, Loader=_Loader):
        line = event.start_mark.line + 1 if event.start_mark else 0
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
            raise SpecError(line, "", "anchors (&name) and aliases (*name) are not taken; write the value out")
        if isinstance(event, yaml.DocumentStartEvent):
            documents += 1
            if documents > 1:
                raise SpecError(line, "", "a second document begins; write one spec to a file")
        elif isinstance(event, yaml.CollectionStartEvent):
            depth += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        elif isinstance(event, yaml.ScalarEvent):
            values += 1
        if depth > MAX_DEPTH or values > MAX_VALUES:
            raise SpecError(line, "", f"takes at most {MAX_VALUES} values, {MAX_DEPTH} deep")


def _built(loader: Any, node: yaml.Node, path: Path, lines: dict[Path, int]) -> Any:
    lines.setdefault(path, node.start_mark.line + 1)
    if node.tag not in _PLAIN_TAGS:
        raise SpecError(lines[path], field_name(path), f"has the tag {shown(node.tag)}; tags are not taken")
    if isinstance(node, yaml.MappingNode):
        mapping: dict[str, Any] = {}
        for key_node, value_node in node.value:
            line = key_node.start_mark.line + 1
            if not isinstance(key_node, yaml.ScalarNode):
                raise SpecError(line, field_name(path), "has a key that is no plain text")
            key = str(key_node.value)
            if key in mapping:
                raise SpecError(line, field_name((*path, key)), f"is there twice; first on line {lines[*path, key]}")
            lines[*path, key] = line
            mapping[key] = _built(loader, value_node, (*path, key), lines)
        return mapping
    if isinstance(node, yaml.SequenceNode):
        return [_built(loader, item, (*path, index), lines) for index, item in enumerate(node.value)]
    try:
        return loader.construct_object(node)
    except ValueError as error:
        raise SpecError(lines[path], field_name(path), f"is {shown(node.value)}: {error}") from error


_TOML_PLACE: Final = re.compile(r"^(.*) \(at (?:line (\d+), column (\d+)|end of document)\)$", re.DOTALL)
_TOML_TABLE: Final = re.compile(r"^\s*(\[\[?)\s*([A-Za-z0-9_.\"' -]+?)\s*\]\]?\s*(?:#.*)?$")
_TOML_KEY: Final = re.compile(r"^\s*([A-Za-z0-9_.\"'-]+(?:\s*\.\s*[A-Za-z0-9_\"'-]+)*)\s*=")


def read_toml(text: str) -> Document:
    """What `text` says.

    Raises:
        SpecError: with its line.
    """
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        found = _TOML_PLACE.match(str(error))
        reason, line, column = found.groups() if found else (str(error), None, None)
        at = int(line) if line else max(1, len(text.splitlines()))
        raise SpecError(at, "", f"{f'column {column}: ' if column else ''}no TOML: {shown(reason, 200)}") from error
    except RecursionError as error:
        raise SpecError(1, "", f"takes values at most {MAX_DEPTH} deep") from error
    _check_size(data)
    return Document(data, _toml_lines(text))


def _check_size(data: dict[str, Any]) -> None:
    left: list[tuple[Any, int]] = [(data, 1)]
    values = 0
    while left:
        value, depth = left.pop()
        inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
        values += len(inner)
        if depth > MAX_DEPTH or values > MAX_VALUES:
            raise SpecError(1, "", f"takes at most {MAX_VALUES} values, {MAX_DEPTH} deep")
        left += [(item, depth + 1) for item in inner]


def _toml_lines(text: str) -> dict[Path, int]:
    """Where keys and tables begin; values within an inline table or array count to their key."""
    lines: dict[Path, int] = {}
    table: Path = ()
    counts: dict[Path, int] = {}
    for number, line in enumerate(text.splitlines(), 1):
        if found := _TOML_TABLE.match(line):
            table = _key_parts(found[2])
            if found[1] == "[[":
                counts[table] = counts.get(table, -1) + 1
                table = (*table, counts[table])
            lines.setdefault(table, number)
        elif found := _TOML_KEY.match(line):
            lines.setdefault((*table, *_key_parts(found[1])), number)
    return lines


def _key_parts(text: str) -> Path:
    return tuple(part.strip().strip("\"'") for part in text.split("."))
