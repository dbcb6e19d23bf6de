"""Join a Narupa session from Python: frames as numpy arrays, interactions, shared state, commands.

`join` (through a lobby) and `open` (by addresses) are for asyncio; `connect` has the same verbs, blocking, for
notebooks. `open_lobby` and `connect_lobby` are for who runs the lobby or hosts a session.
"""

from narupa_client.address import SessionAddress
from narupa_client.blocking import BlockingSession, connect
from narupa_client.blocking_lobby import BlockingLobby, connect_lobby
from narupa_client.collecting import CollectingStoppedError, read_recording
from narupa_client.connection import Endpoint
from narupa_client.directory import SessionEndedError
from narupa_client.discovery import FoundSession, discover
from narupa_client.finished import FinishedInteraction
from narupa_client.frames import CurrentFrame, InteractionAccount, UserForces
from narupa_client.lobby import Lobby, LobbyEvent, open_lobby
from narupa_client.provided_commands import CommandCall, CommandProvider, ProvidedCommand
from narupa_client.pulls import Pull
from narupa_client.records import (
    Catalogue,
    CreatedSession,
    Invite,
    Service,
    SessionDetails,
    SessionFacts,
    Simulation,
    User,
)
from narupa_client.series import FrameSeries
from narupa_client.session import DEFAULT_LOBBY, Session, join, open
from narupa_client.state import SharedState, StateChange
from narupa_client.state_writer import StateWriter
from narupa_client.subscription import Subscription
from narupa_shared.tls import TlsConfig

__all__ = [
    "DEFAULT_LOBBY",
    "BlockingLobby",
    "BlockingSession",
    "Catalogue",
    "CollectingStoppedError",
    "CommandCall",
    "CommandProvider",
    "CreatedSession",
    "CurrentFrame",
    "Endpoint",
    "FinishedInteraction",
    "FoundSession",
    "FrameSeries",
    "InteractionAccount",
    "Invite",
    "Lobby",
    "LobbyEvent",
    "ProvidedCommand",
    "Pull",
    "Service",
    "Session",
    "SessionAddress",
    "SessionDetails",
    "SessionEndedError",
    "SessionFacts",
    "SharedState",
    "Simulation",
    "StateChange",
    "StateWriter",
    "Subscription",
    "TlsConfig",
    "User",
    "UserForces",
    "connect",
    "connect_lobby",
    "discover",
    "join",
    "open",
    "open_lobby",
    "read_recording",
]
