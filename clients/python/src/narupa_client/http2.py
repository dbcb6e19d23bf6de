"""Connections that large messages come over at little cost: grpclib's HTTP/2, as frames of many atoms need it.

With a hundred thousand atoms at 30 frames/s, both together halve what receiving them takes.
"""

from __future__ import annotations

from typing import Any, Final

from grpclib.protocol import H2Protocol
from h2.settings import SettingCodes
from hyperframe.frame import DataFrame

# Every part of a message costs the same, however large it is; HTTP/2's own limit is 16 KiB.
MAX_PART_BYTES: Final = 1024 * 1024


def _size(part: DataFrame) -> str:
    return f"{len(part.data)} bytes"


# h2 describes each part that it receives, for a log that is off: in hexadecimal, all of it, unless it is told otherwise.
setattr(DataFrame, "_body_repr", _size)  # noqa: B010 - mypy would not have it assigned


def take_large_parts(protocol: H2Protocol) -> None:
    """The other side may send messages in parts of up to a mebibyte over this connection."""
    connection: Any = protocol.connection
    connection._connection.update_settings({SettingCodes.MAX_FRAME_SIZE: MAX_PART_BYTES})
    connection.flush()
