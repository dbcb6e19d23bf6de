"""What a gRPC call can end with, as domain errors: callers of the client never meet a transport exception."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterator
from contextlib import contextmanager, suppress
from typing import Any, Final, TypeVar

from grpclib.client import Stream
from grpclib.const import Status
from grpclib.exceptions import GRPCError, ProtocolError, StreamTerminatedError

from narupa_shared.errors import NarupaError, UnavailableError
from narupa_shared.rpc_errors import error_of

Reply = TypeVar("Reply")

# How a stopping or overloaded server, or a cut connection, ends calls besides UNAVAILABLE.
_GONE: Final = {Status.UNAVAILABLE, Status.CANCELLED, Status.DEADLINE_EXCEEDED}


def domain_error(error: GRPCError, service: str) -> NarupaError:
    """The domain error that `error`, a status that `service` answered with, stands for."""
    if error.status in _GONE:
        return UnavailableError(error.message or f"the {service} service went away ({error.status.name})")
    if error.status is Status.UNIMPLEMENTED:
        return NarupaError(
            f"what answers as the {service} service does not know this call: another program, or another version"
        )
    return error_of(error.status.value, error.message or f"the {service} service answered {error.status.name}")


@contextmanager
def domain_errors(service: str, address: str) -> Iterator[None]:
    """Within, whatever a call raises about the transport or the peer leaves as a domain error.

    Raises:
        UnavailableError: `service` cannot be reached at `address`, went away, or did not answer in time.
        NarupaError: as its status says.
    """
    try:
        yield
    except GRPCError as error:
        raise domain_error(error, service) from error
    except TimeoutError as error:
        raise UnavailableError(f"the {service} service at {address} did not answer in time") from error
    except (StreamTerminatedError, ProtocolError, OSError) as error:
        raise UnavailableError(f"lost the {service} service at {address}: {error}") from error


async def replies(stream: Stream[Any, Reply]) -> AsyncGenerator[Reply, None]:
    """Each reply of a streaming call; then the call's status, which is raised unless it is OK."""
    while (reply := await stream.recv_message()) is not None:
        yield reply
    with suppress(ProtocolError, StreamTerminatedError):  # sending is over already, or the peer closed both directions
        await stream.end()
    await stream.recv_trailing_metadata()
