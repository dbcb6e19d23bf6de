"""The stream of one guest's writes."""

from __future__ import annotations

import asyncio

import pytest
from gateway_fakes import FakeSession, guest_of

from narupa_gateway.writes import GuestWrites
from narupa_shared.errors import InvalidArgumentError, PermissionDeniedError, UnavailableError


async def test_one_stream_is_opened_by_the_first_write_and_ends_when_closed() -> None:
    session = FakeSession()
    writes = GuestWrites(guest_of(session))
    assert session.writers == 0
    await asyncio.gather(*(writes.write({"a": number}, ["b"]) for number in range(5)))
    assert (session.writers, session.open_writers, len(session.written)) == (1, 1, 5)
    await writes.close()
    await writes.close()
    assert session.open_writers == 0


async def test_whoever_only_watches_opens_none() -> None:
    session = FakeSession("viewer")
    writes = GuestWrites(guest_of(session))
    with pytest.raises(PermissionDeniedError, match="viewer"):
        await writes.write({"a": 1})
    assert session.writers == 0
    await writes.close()


async def test_a_refused_write_keeps_the_stream_and_what_is_owned_through_it() -> None:
    session = FakeSession()
    writes = GuestWrites(guest_of(session))
    await writes.write({"avatar.me": 1})
    session.write_problem = InvalidArgumentError("updates", "x", "is wrong")
    with pytest.raises(InvalidArgumentError):
        await writes.write({"a": 1})
    session.write_problem = None
    await writes.write({"a": 1})
    assert session.writers == 1
    await writes.close()


async def test_a_lost_stream_is_given_up_once_by_all_and_opened_anew() -> None:
    session = FakeSession()
    writes = GuestWrites(guest_of(session))
    await writes.write({"avatar.me": 1})
    session.write_problem = UnavailableError("lost")
    lost = await asyncio.gather(*(writes.write({"a": 1}) for _ in range(5)), return_exceptions=True)
    assert all(isinstance(error, UnavailableError) for error in lost)
    session.write_problem = None
    await writes.write({"b": 1})
    assert session.open_writers == 1 and session.written[-1] == ({"b": 1}, [])
    await writes.close()


async def test_a_service_that_is_away_is_looked_for_with_the_next_write() -> None:
    session = FakeSession()
    session.open_problem = UnavailableError("the imd service cannot be reached")
    writes = GuestWrites(guest_of(session))
    for _ in range(2):
        with pytest.raises(UnavailableError):
            await writes.write({"a": 1})
    session.open_problem = None
    await writes.write({"a": 1})
    await writes.close()
    assert session.open_writers == 0
