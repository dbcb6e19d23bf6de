"""Join a Narupa session from Python: frames as numpy arrays, interactions, shared state, commands.

`join` (through a lobby) and `open` (by addresses) are for asyncio; `connect` has the same verbs, blocking, for
notebooks.
"""

from narupa_client.blocking import BlockingSession, connect
from narupa_client.connection import Endpoint
from narupa_client.directory import Service, User
from narupa_client.frames import CurrentFrame, UserForces
from narupa_client.pulls import Pull
from narupa_client.session import DEFAULT_LOBBY, Session, join, open
from narupa_client.state import SharedState, StateChange
from narupa_client.subscription import Subscription

__all__ = [
    "DEFAULT_LOBBY",
    "BlockingSession",
    "CurrentFrame",
    "Endpoint",
    "Pull",
    "Service",
    "Session",
    "SharedState",
    "StateChange",
    "Subscription",
    "User",
    "UserForces",
    "connect",
    "join",
    "open",
]
