"""What a connection owns ends with it, however its end is noticed."""

from __future__ import annotations

from collections.abc import Callable

import psutil
import pytest

from narupa_imd.session import ImdSession
from narupa_imd.state import Writer
from narupa_shared.connections import Connections, address_of, established_connections
from narupa_shared.testing.clock import FakeClock

PEER = "ipv4:127.0.0.1:54321"
ADDRESS = ("127.0.0.1", 54321)
WRITER = Writer(f"peer:{PEER}", PEER)


@pytest.fixture
def timers() -> list[Callable[[], None]]:
    return []


@pytest.fixture
def session(clock: FakeClock) -> ImdSession:
    session = ImdSession(clock, "epoch")
    session.update(WRITER, {"avatar.a": {}})
    return session


@pytest.fixture
def connections(session: ImdSession, clock: FakeClock, timers: list[Callable[[], None]]) -> Connections:
    return Connections(session, clock, lambda: set(), lambda _, act: timers.append(act))


def there(session: ImdSession) -> bool:
    return session.state.get("avatar.a") is not None


def test_the_last_stream_ends_what_the_connection_owned_after_a_grace(
    session: ImdSession, connections: Connections, timers: list[Callable[[], None]]
) -> None:
    with connections.stream(PEER):
        with connections.stream(PEER):
            assert connections.streams == 2
        assert not timers
    assert there(session) and not connections.unheld()
    timers.pop()()
    assert not there(session)


def test_a_client_that_subscribes_again_at_once_keeps_its_avatar(
    session: ImdSession, connections: Connections, timers: list[Callable[[], None]]
) -> None:
    with connections.stream(PEER):
        pass
    with connections.stream(PEER):
        timers.pop(0)()
        assert there(session)
    with connections.stream(PEER):
        pass
    timers.pop(0)()
    assert there(session)
    timers.pop(0)()
    assert not there(session)


def test_a_lease_ends_with_its_stream(session: ImdSession, connections: Connections) -> None:
    with connections.lease(PEER) as first, connections.lease(PEER) as second:
        assert first.connection != second.connection
        session.update(Writer(WRITER.owner, first.connection), {"playarea.a": {}})
        assert not connections.unheld()
    assert session.state.get("playarea.a") is None and there(session)


def test_a_hold_ends_once(connections: Connections, timers: list[Callable[[], None]]) -> None:
    with connections.stream(PEER) as hold:
        hold.end("the call is over")
        assert connections.streams == 0
    assert connections.streams == 0 and len(timers) == 1


def test_a_connection_without_a_stream_is_looked_up(session: ImdSession, connections: Connections) -> None:
    suspects = connections.unheld()
    assert suspects == {PEER}
    connections.end_all_but(suspects, {ADDRESS})
    assert there(session)
    with connections.stream(PEER):
        connections.end_all_but(suspects, set())
        assert there(session)


def test_a_closed_connection_ends(session: ImdSession, connections: Connections) -> None:
    connections.end_all_but(connections.unheld(), {("127.0.0.1", 1)})
    assert not there(session)


def test_locks_end_with_a_closed_connection(session: ImdSession, connections: Connections) -> None:
    session.update(WRITER, {}, ["avatar.a"])
    session.state.update_locks(WRITER, {"scene": 60.0})
    connections.end_all_but(connections.unheld(), set())
    assert len(session.state.locks) == 0


def test_where_connections_cannot_be_looked_up_a_silent_writer_ends(
    session: ImdSession, connections: Connections, clock: FakeClock
) -> None:
    connections.wrote(PEER)
    clock.advance(9.9)
    connections.end_all_but(connections.unheld(), None)
    assert there(session)
    clock.advance(0.1)
    connections.end_all_but(connections.unheld(), None)
    assert not there(session)
    assert not connections._last_write


@pytest.mark.parametrize(
    ("peer", "address"),
    [
        (PEER, ADDRESS),
        ("ipv6:[::1]:80", ("::1", 80)),
        ("ipv6:%5B::1%5D:80", ("::1", 80)),
        ("ipv6:%5B::ffff:10.0.0.1%5D:80", ("10.0.0.1", 80)),
        ("ipv6:[fe80::1%25eth0]:80", ("fe80::1", 80)),
        ("unix:/tmp/socket", None),
        ("ipv4:nonsense:80", None),
        ("", None),
    ],
)
def test_peers_are_understood(peer: str, address: tuple[str, int] | None) -> None:
    assert address_of(peer) == address


def test_a_process_that_may_not_look_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: psutil.Process, kind: str) -> None:
        raise psutil.AccessDenied

    monkeypatch.setattr(psutil.Process, "net_connections", refuse)
    assert established_connections() is None
