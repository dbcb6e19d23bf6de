"""What a potential's parameters may be. Values come from strangers: each is checked for type, range and length."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from narupa_shared.errors import InvalidArgumentError

# Lengths further out than this (nm) are unit errors, and their forces would overflow single precision.
MAX_COORDINATE: Final = 1.0e6
MAX_STIFFNESS: Final = 1.0e9
# Divided by this, masses, handles and their squares stay well within double precision.
MIN_LENGTH: Final = 1.0e-4
MAX_TIME_PS: Final = 1.0e15


class Required:
    """Stands for the default of a parameter that has none."""

    def __repr__(self) -> str:
        return "required"


REQUIRED: Final = Required()


@dataclass(frozen=True, slots=True)
class Parameter:
    """One parameter of a potential.

    Attributes:
        name: As clients write it.
        unit: For people; "" without one.
        about: What it does, for people.
        check: Of the field's name, the given value and the number of particles: the value in its one form (floats,
            tuples, None), or raises InvalidArgumentError.
        default: In that form; `REQUIRED` without one.
        per_particle: The value has one item for each particle, in the order in which the particles are given.
    """

    name: str
    unit: str
    about: str
    check: Callable[[str, object, int], Any]
    default: Any = REQUIRED
    per_particle: bool = False


def number(
    name: str, unit: str, about: str, *, low: float, high: float, default: Any = REQUIRED, optional: bool = False
) -> Parameter:
    """A finite number from `low` to `high`; null as well where `optional`."""

    def check(field: str, value: object, count: int) -> float | None:
        if value is None and optional:
            return None
        given = checked_number(field, value)
        if not low <= given <= high:
            raise InvalidArgumentError(field, value, f"must be from {low:g} to {high:g}" + (f" {unit}" if unit else ""))
        return given

    return Parameter(name, unit, about, check, default)


def stiffness(unit: str, default: float) -> Parameter:
    """How hard a restraint holds: the second derivative of its energy."""
    return number("stiffness", unit, "second derivative of the energy", low=0.0, high=MAX_STIFFNESS, default=default)


def vector(
    name: str, unit: str, about: str, *, size: int = 3, limit: float, shortest: float, default: Any = REQUIRED
) -> Parameter:
    """`size` finite numbers within +-`limit`, together at least `shortest` long."""

    def check(field: str, value: object, count: int) -> tuple[float, ...]:
        items = checked_numbers(field, value, size, limit)
        if not math.hypot(*items) >= shortest:
            raise InvalidArgumentError(field, value, f"must be at least {shortest:g} long")
        return items

    return Parameter(name, unit, about, check, default)


def positions(name: str, about: str) -> Parameter:
    """(n, 3) nm, one row for each particle; or null."""
    return rows(name, "nm", about, limit=MAX_COORDINATE)


def rows(name: str, unit: str, about: str, *, limit: float) -> Parameter:
    """(n, 3), one row of finite numbers within +-`limit` for each particle; or null."""

    def check(field: str, value: object, count: int) -> tuple[tuple[float, ...], ...] | None:
        if value is None:
            return None
        if isinstance(value, str | bytes) or not isinstance(value, Sequence) or len(value) != count:
            raise InvalidArgumentError(field, shape(value), f"must be {count} rows, one for each particle, or null")
        return tuple(checked_numbers(f"{field}[{row}]", item, 3, limit) for row, item in enumerate(value))

    return Parameter(name, unit, about, check, default=None, per_particle=True)


def checked_parameters(
    where: str, parameters: Sequence[Parameter], given: object, kind: str, count: int, order: Sequence[int] | None
) -> dict[str, Any]:
    """`given` in one form and complete.

    Args:
        where: Stands before each parameter's name in errors.
        parameters: Those that the potential has.
        kind: The potential's name, for errors.
        count: How many particles are acted on.
        order: How values that have one item for each particle are put in the particles' order; None when they are.

    Raises:
        InvalidArgumentError: naming the parameter and its value.
    """
    values = {} if given is None else given
    if not isinstance(values, Mapping):
        raise InvalidArgumentError(where.rstrip("."), values, "must be a map of parameters to their values")
    names = [parameter.name for parameter in parameters]
    for name in values:
        if name not in names:
            listed = f"it has {', '.join(names)}" if names else "it has none"
            raise InvalidArgumentError(
                f"{where}{str(name)[:64]}", values[name], f"{kind} has no such parameter; {listed}"
            )
    checked = {}
    for parameter in parameters:
        if parameter.name in values:
            value = parameter.check(f"{where}{parameter.name}", values[parameter.name], count)
            if parameter.per_particle and order is not None and value is not None:
                value = tuple(value[place] for place in order)
        elif parameter.default is REQUIRED:
            raise InvalidArgumentError(f"{where}{parameter.name}", None, f"{kind} needs it: {parameter.about}")
        else:
            value = parameter.default
        checked[parameter.name] = value
    return checked


def checked_number(name: str, value: object, finite: bool = True) -> float:
    """`value` as a float. Existing clients write an infinite cap as a number or as the text "Infinity"."""
    if isinstance(value, str) and value.lower() in ("infinity", "inf", "+infinity"):
        value = math.inf
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InvalidArgumentError(name, value, "must be a number")
    try:
        number = float(value)
    except OverflowError:
        raise InvalidArgumentError(name, value, "is too large") from None
    if math.isnan(number) or (finite and math.isinf(number)):
        raise InvalidArgumentError(name, value, "must be finite" if finite else "must be a number")
    return number


def checked_numbers(name: str, value: object, size: int, limit: float) -> tuple[float, ...]:
    """`size` finite numbers within +-`limit`."""
    if isinstance(value, str | bytes) or not isinstance(value, Sequence) or len(value) != size:
        raise InvalidArgumentError(name, shape(value), f"must be {size} numbers")
    items = tuple(checked_number(f"{name}[{axis}]", item) for axis, item in enumerate(value))
    for axis, item in enumerate(items):
        if abs(item) > limit:
            raise InvalidArgumentError(f"{name}[{axis}]", item, f"must be from {-limit:g} to {limit:g}")
    return items


def shape(value: object) -> object:
    """`value`, or how long it is where it is too long to show."""
    return f"{len(value)} items" if isinstance(value, Sequence) and len(value) > 8 else value
