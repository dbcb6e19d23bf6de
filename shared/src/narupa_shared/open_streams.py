"""The streams that are open on somebody's token, and their end when the token is no longer good for them."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import grpc
import grpc.aio
import structlog

if TYPE_CHECKING:
    from narupa_shared.auth import Identity, TokenVerifier

log = structlog.get_logger(__name__)

# How often all open streams are looked at: one timer for all, and none while there are no streams.
LOOK_INTERVAL_S: Final = 0.25

Context = grpc.aio.ServicerContext[Any, Any]


@dataclass(frozen=True, slots=True)
class _Stream:
    method: str
    identity: Identity
    context: Context
    task: asyncio.Task[Any]


class OpenStreams:
    """Every stream that was opened with a token, until it ends; costs nothing per message."""

    def __init__(self, verifier: TokenVerifier) -> None:
        self._verifier = verifier
        self._streams: dict[int, _Stream] = {}
        self._numbers = itertools.count()
        self._timer: asyncio.TimerHandle | None = None
        self._telling: set[asyncio.Task[None]] = set()

    def __len__(self) -> int:
        return len(self._streams)

    def add(self, method: str, identity: Identity, context: Context) -> None:
        """The present call is a stream on `identity`'s token. To be called in the call's own task."""
        task = asyncio.current_task()
        assert task is not None
        number = next(self._numbers)
        self._streams[number] = _Stream(method, identity, context, task)
        context.add_done_callback(lambda _: self._streams.pop(number, None))  # type: ignore[arg-type]
        self._look_later()

    def look(self) -> None:
        """Streams whose token is no longer good for them end with UNAUTHENTICATED and the reason."""
        for number, stream in list(self._streams.items()):
            if reason := self._verifier.lapsed(stream.identity):
                del self._streams[number]
                self._end(stream, reason)

    def _look_later(self) -> None:
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(LOOK_INTERVAL_S, self._look_again)

    def _look_again(self) -> None:
        self._timer = None
        self.look()
        if self._streams:
            self._look_later()

    def _end(self, stream: _Stream, reason: str) -> None:
        log.info("stream_ended", method=stream.method, user=stream.identity.user_id, reason=reason)
        # The status is sent from here because the handler may hang in a send to a client that does not read. Cancelled
        # after that, it ends as it does when its client goes away.
        telling = asyncio.get_running_loop().create_task(_tell(stream.context, reason), name=f"end of {stream.method}")
        self._telling.add(telling)
        telling.add_done_callback(self._telling.discard)
        stream.task.cancel()


async def _tell(context: Context, reason: str) -> None:
    # gRPC raises when the status is on its way, and when the call is over already.
    with contextlib.suppress(grpc.aio.AbortError, grpc.aio.BaseError):
        await context.abort(grpc.StatusCode.UNAUTHENTICATED, reason)
