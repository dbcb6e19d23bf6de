"""Writing the shared state over one stream, from the Python client to a real imd service."""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import AsyncIterator
from typing import Any

import pytest

import narupa_client
from narupa_imd.app import ImdApp
from narupa_imd.config import ImdConfig
from narupa_shared.daemon import Bound, serving
from narupa_shared.errors import InvalidArgumentError, PermissionDeniedError, QuotaError, UnavailableError
from narupa_shared.testing.waiting import until

Session = narupa_client.Session
HELD = {"position": [0.0, 0.0, 0.0], "particles": [0], "interaction_type": "spring"}


class Imd:
    """A running service."""

    def __init__(self, app: ImdApp, bound: Bound) -> None:
        self.app = app
        self.bound = bound

    @property
    def values(self) -> dict[str, Any]:
        return self.app.session.state.values()


@contextlib.asynccontextmanager
async def running(**settings: Any) -> AsyncIterator[Imd]:
    config = ImdConfig(port=0, lobby="127.0.0.1:1", drain_grace_s=0.5, **{"store": "memory", **settings})
    app = ImdApp(config)
    async with serving("imd", config, app) as bound:
        yield Imd(app, bound)


@pytest.fixture
async def imd() -> AsyncIterator[Imd]:
    async with running() as imd:
        yield imd


@pytest.fixture
async def session(imd: Imd) -> AsyncIterator[Session]:
    async with narupa_client.open(imd=imd.bound.address) as session:
        yield session


async def test_what_a_writer_owns_ends_with_it_and_the_rest_stays(imd: Imd, session: Session) -> None:
    async with session.state.writer() as writer:
        assert await writer.write({"avatar.a": {"name": "Ada"}, "interaction.a": HELD, "note": "x"}) > 0
        revision = await writer.write({"scene": [0.0]}, remove=["note"])
        assert revision == imd.app.session.state.revision
        assert {"avatar.a", "interaction.a", "scene"} <= imd.values.keys() and "note" not in imd.values
        assert writer.problem is None
    await until(lambda: "avatar.a" not in imd.values)
    assert "interaction.a" not in imd.values and imd.values["scene"] == [0.0]
    with pytest.raises(UnavailableError, match="closed"):
        await writer.write({"more": 1})


async def test_many_writes_are_under_way_at_once_and_each_has_its_own_answer(imd: Imd, session: Session) -> None:
    async with session.state.writer() as writer:
        writes = [writer.write({"key": n} if n % 3 else {"imd.key": n}) for n in range(300)]
        answers = await asyncio.gather(*writes, return_exceptions=True)
        revisions = [answer for answer in answers if isinstance(answer, int)]
        assert revisions == sorted(revisions) and len(revisions) == 200
        assert all(isinstance(answer, PermissionDeniedError) for answer in answers[::3])
        assert imd.values["key"] == 299.0


@pytest.mark.parametrize(
    ("updates", "remove", "error"),
    [
        ({"": 1.0}, (), InvalidArgumentError),
        ({"x": math.nan}, (), InvalidArgumentError),
        ({"x": None}, (), InvalidArgumentError),
        ({"x": 1.0}, ("x",), InvalidArgumentError),
        ({"x": object()}, (), InvalidArgumentError),
        ({"interaction.x": {"particles": []}}, (), InvalidArgumentError),
        ({"imd.x": 1.0}, (), PermissionDeniedError),
        ({"simulation.name": "mine"}, (), PermissionDeniedError),
        ({}, ("simulation.index",), PermissionDeniedError),
        ({"x": "y" * 100_000}, (), QuotaError),
    ],
)
async def test_a_refused_write_changes_nothing_and_hurts_no_other(
    imd: Imd, session: Session, updates: dict[str, Any], remove: tuple[str, ...], error: type[Exception]
) -> None:
    async with session.state.writer() as writer:
        before = imd.values
        with pytest.raises(error):
            await writer.write({"good": 1.0, **updates}, remove=remove)
        assert imd.values == before
        await writer.write({"good": 2.0})


async def test_another_clients_avatar_is_its_own(imd: Imd, session: Session) -> None:
    async with (
        narupa_client.open(imd=imd.bound.address) as other,
        session.state.writer() as mine,
        other.state.writer() as theirs,
    ):
        await mine.write({"avatar.a": 1.0})
        with pytest.raises(PermissionDeniedError, match="belongs to"):
            await theirs.write({"avatar.a": 2.0})
        with pytest.raises(PermissionDeniedError, match="belongs to"):
            await theirs.write({}, remove=["avatar.a"])


async def test_a_key_lives_as_long_as_the_newest_stream_that_wrote_it(imd: Imd, session: Session) -> None:
    async with session.state.writer() as second:
        async with session.state.writer() as first:
            await first.write({"avatar.a": 1.0, "avatar.b": 1.0})
            await second.write({"avatar.a": 2.0})
        await until(lambda: "avatar.b" not in imd.values)
        assert imd.values["avatar.a"] == 2.0
    await until(lambda: "avatar.a" not in imd.values)


async def test_writing_too_fast_ends_the_stream_and_its_keys() -> None:
    async with (
        running(updates_per_s=1, update_burst=5) as imd,
        narupa_client.open(imd=imd.bound.address) as session,
        session.state.writer() as writer,
    ):
        await writer.write({"avatar.a": 1.0})
        answers = await asyncio.gather(*(writer.write({"x": n}) for n in range(20)), return_exceptions=True)
        assert any(isinstance(answer, QuotaError) for answer in answers)
        assert isinstance(await asyncio.wait_for(writer.wait_lost(), 10), QuotaError)
        with pytest.raises(QuotaError, match="updates per second"):
            await writer.write({"x": 1.0})
        await until(lambda: "avatar.a" not in imd.values)


async def test_a_lost_service_is_told_to_whoever_writes(session: Session) -> None:
    async with running() as imd, narupa_client.open(imd=imd.bound.address) as session:
        writer = session.state.writer()
        await writer.__aenter__()
        await writer.write({"x": 1.0})
    assert isinstance(await writer.wait_lost(), UnavailableError)
    with pytest.raises(UnavailableError):
        await writer.write({"x": 1.0})
    await writer.__aexit__()
    async with narupa_client.open(imd="127.0.0.1:1") as session:
        with pytest.raises(UnavailableError, match="cannot reach"):
            async with session.state.writer():
                pass


async def test_a_write_that_is_cancelled_leaves_the_stream_whole(imd: Imd, session: Session) -> None:
    async with session.state.writer() as writer:
        for size in (10, 40_000):
            write = asyncio.create_task(writer.write({"big": "x" * size}))
            await asyncio.sleep(0)
            write.cancel()
            await asyncio.gather(write, return_exceptions=True)
        await writer.write({"after": 1.0})
        assert imd.values["after"] == 1.0 and len(imd.values["big"]) == 40_000


async def test_what_was_ended_is_passed_over_and_the_rest_is_written(imd: Imd, session: Session) -> None:
    async with session.state.writer() as writer:
        await writer.write({"interaction.held": HELD, "avatar.me": 1.0})
        imd.app.session.end_interactions([("held", "it blew up")])
        await writer.write({"interaction.held": HELD, "avatar.me": 2.0})
        assert imd.values["avatar.me"] == 2.0 and "interaction.held" not in imd.values
        await writer.write({}, remove=["interaction.held"])
        await writer.write({"interaction.held": HELD})
        assert "interaction.held" in imd.values
