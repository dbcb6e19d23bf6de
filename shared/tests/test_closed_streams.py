"""Connections remember a bounded number of calls that are over."""

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.errors import ErrorCodes

import narupa_shared.registration  # noqa: F401 - has connections bounded
from narupa_shared.closed_streams import MAX_CLOSED_STREAMS

HEADERS = [(":method", "POST"), (":path", "/a/b"), (":scheme", "http"), (":authority", "c")]


def test_the_newest_calls_are_remembered() -> None:
    connection = H2Connection(H2Configuration())
    connection.initiate_connection()
    for _ in range(MAX_CLOSED_STREAMS + 10):
        stream = connection.get_next_available_stream_id()
        connection.send_headers(stream, HEADERS)
        connection.reset_stream(stream, ErrorCodes.CANCEL)
        connection.data_to_send()
    assert not connection.open_outbound_streams
    remembered = connection._closed_streams
    assert len(remembered) == MAX_CLOSED_STREAMS and max(remembered) == stream
