"""The pytest plugin of the repository: leak checks for every test, and fixtures for clocks and faults."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterator, Callable, Iterator

import pytest

from narupa_shared.testing.clock import FakeClock, FakeIds
from narupa_shared.testing.faults import GARBAGE, SlowSubscriber
from narupa_shared.testing.leaks import Leaks, leftover_tasks
from narupa_shared.testing.ports import unused_port


@pytest.fixture(autouse=True)
def no_leaks(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fails a test that leaves a task, thread, child process or TCP socket behind.

    Being autouse it is set up before a test's own fixtures, and so looks after all of them are gone. What fixtures of a
    wider scope hold is there before it, and is not counted.
    """
    leaks = Leaks()
    if inspect.iscoroutinefunction(getattr(request.node, "obj", None)):
        request.getfixturevalue("no_leftover_tasks")
    yield
    if found := leaks.wait():
        pytest.fail("the test left behind: " + "; ".join(found), pytrace=False)


@pytest.fixture
async def no_leftover_tasks() -> AsyncIterator[None]:
    """Fails an async test whose loop still has tasks when the test and its fixtures are done."""
    before = asyncio.all_tasks()
    yield
    if found := await leftover_tasks(before):
        pytest.fail("the test left behind: " + "; ".join(found), pytrace=False)


@pytest.fixture
def clock() -> FakeClock:
    """A clock that only the test moves."""
    return FakeClock()


@pytest.fixture
def ids() -> FakeIds:
    """Predictable ids: id-1, id-2, ..."""
    return FakeIds()


@pytest.fixture
def slow_subscriber() -> type[SlowSubscriber[object]]:
    """Wraps a stream so that it is read only when the test says so."""
    return SlowSubscriber


@pytest.fixture
def garbage() -> tuple[bytes, ...]:
    """What strangers send to an open port."""
    return GARBAGE


@pytest.fixture
def free_port() -> Callable[[], int]:
    """Gives ports that nothing listens on, for processes that must be told theirs beforehand."""
    return unused_port
