"""How many calls that are over a connection of grpclib remembers: h2 would 65 536, which are all calls of many hours."""

from typing import Final

from h2.connection import H2Connection

# Enough for what may still come of calls that were given up.
MAX_CLOSED_STREAMS: Final = 1000

H2Connection.MAX_CLOSED_STREAMS = MAX_CLOSED_STREAMS
