"""Domain errors: they carry data and know no gRPC (`rpc_errors` translates them)."""

from __future__ import annotations


class NarupaError(Exception):
    """Base of every error that a caller of Narupa can meet. Its text names the field, the value and what to do."""


class InvalidArgumentError(NarupaError):
    """An input is malformed, of the wrong shape, not finite, or out of its range.

    Attributes:
        field: The input's name, as the caller wrote it.
        value: The offending value.
        reason: What is wrong, and what would be right.
    """

    def __init__(self, field: str, value: object, reason: str) -> None:
        self.field = field
        self.value = value
        self.reason = reason
        super().__init__(f"{field} is {shown(value)}: {reason}")


class UnauthenticatedError(NarupaError):
    """The token is missing, malformed, forged, expired, or for another session."""


class PermissionDeniedError(NarupaError):
    """The caller is known and may not do this, or does not own what it would change."""


class NotFoundError(NarupaError):
    """Nothing has this id."""

    def __init__(self, kind: str, id: str, hint: str = "") -> None:
        self.kind = kind
        self.id = id
        super().__init__(f"no {kind} has the id {shown(id)}" + (f"; {hint}" if hint else ""))


class AlreadyExistsError(NarupaError):
    """Something has this id already."""


class FailedPreconditionError(NarupaError):
    """The request is right, and the present phase or source does not allow it."""


class ConflictError(NarupaError):
    """Another writer came first; read again and retry."""


class CommandFailedError(NarupaError):
    """The client that provides a command reported a failure."""


class NoAnswerError(NarupaError):
    """Somebody else's answer was needed, and did not come in time."""


class NoLongerKeptError(NarupaError):
    """The revision or frame asked for has passed out of what is kept, or has not come yet."""


class QuotaError(NarupaError):
    """A limit on size, count or rate is reached."""


class UnavailableError(NarupaError):
    """The service is starting, draining, or waits for its engine; the same call may succeed later."""


def shown(value: object, limit: int = 80) -> str:
    """`value` as text of at most `limit` characters, safe to put into a message or a log line."""
    try:
        text = repr(value)
    except RecursionError:
        text = f"a {type(value).__name__} nested too deep to show"
    return text if len(text) <= limit else f"{text[: limit - 3]}..."
