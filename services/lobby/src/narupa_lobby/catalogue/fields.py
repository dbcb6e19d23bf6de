"""The kinds of text and number that specs are made of."""

from __future__ import annotations

import re
from typing import Annotated, Any, Final

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

_SIZE: Final = re.compile(r"(\d{1,15}(?:\.\d{1,6})?)\s*([KMGT]?)(i?)B?")
_POWER: Final = {"": 0, "K": 1, "M": 2, "G": 3, "T": 4}
_VARIABLE: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}")
OWN_VARIABLES: Final = "NARUPA_"


class Section(BaseModel):
    """A part of a spec. Unknown fields are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True)


def _bytes(value: Any) -> Any:
    if isinstance(value, str):
        found = _SIZE.fullmatch(value.strip())
        if not found:
            raise ValueError("needs a size such as 512MiB or 4Gi")
        return int(float(found[1]) * (1024 if found[3] else 1000) ** _POWER[found[2]])
    return value


def _printable(value: str) -> str:
    if not value.isprintable():
        raise ValueError("needs text without line breaks and control characters")
    return value


def _variables(value: dict[str, str]) -> dict[str, str]:
    for name in value:
        if not _VARIABLE.fullmatch(name):
            raise ValueError(f"{name!r} is no name of an environment variable")
        if name.upper().startswith(OWN_VARIABLES):
            raise ValueError(f"{name} is set by the lobby; use `defaults` and `inputs`")
    return value


Name = Annotated[str, Field(min_length=1, max_length=40, pattern=r"^[a-z](?:[a-z0-9-]*[a-z0-9])?$")]
"""Lower case letters, digits and hyphens, a letter first: part of host names, and of the names of containers and jobs."""

Line = Annotated[str, Field(max_length=200), AfterValidator(_printable)]
Word = Annotated[str, Field(min_length=1, max_length=128, pattern=r"^[A-Za-z0-9][A-Za-z0-9._:/@,=&|+-]*$")]
"""One word, as names of images, partitions and namespaces are: nothing that a shell or a scheduler reads as more."""

Seconds = Annotated[float, Field(ge=0, le=10 * 365 * 86400, allow_inf_nan=False)]
Bytes = Annotated[int, BeforeValidator(_bytes), Field(ge=16 * 1024**2, le=64 * 1024**4)]
"""A number of bytes, or text such as 512MiB, 4Gi or 2 GB."""

Environment = Annotated[
    dict[str, Annotated[str, Field(max_length=2000), AfterValidator(_printable)]],
    Field(max_length=64),
    AfterValidator(_variables),
]
