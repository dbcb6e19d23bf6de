"""A subscription's promises to its reader, without any network."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from narupa_client.retry import RetryPolicy
from narupa_client.subscription import Deliver, Mode, Subscription
from narupa_client.tasks import TaskScope
from narupa_shared.errors import InvalidArgumentError, QuotaError, UnavailableError

FAST = RetryPolicy(first_delay_s=0.001, max_delay_s=0.001)


@pytest.fixture
async def scope() -> AsyncIterator[TaskScope]:
    scope = TaskScope()
    yield scope
    await scope.aclose()


async def no_renewal() -> None:
    raise AssertionError("no token was refused")


def subscribe(scope: TaskScope, follow: object, mode: Mode = "all", policy: RetryPolicy = FAST) -> Subscription[int]:
    return Subscription(scope, "test", follow, mode=mode, policy=policy, renew=no_renewal)  # type: ignore[arg-type]


async def test_a_slow_reader_of_latest_skips(scope: TaskScope) -> None:
    done = asyncio.Event()

    async def follow(deliver: Deliver[int]) -> None:
        for number in range(100):
            await deliver(number)
        done.set()
        await asyncio.Event().wait()

    items = subscribe(scope, follow, "latest")
    await done.wait()
    assert await anext(items) == 99


async def test_all_mode_brings_every_item_and_holds_the_sender_back(scope: TaskScope) -> None:
    sent = 0

    async def follow(deliver: Deliver[int]) -> None:
        nonlocal sent
        for number in range(50):
            await deliver(number)
            sent += 1
        raise QuotaError("over")

    items = subscribe(scope, follow)
    for _ in range(20):
        await asyncio.sleep(0)
    assert sent < 50
    seen = []
    with pytest.raises(QuotaError):
        async for item in items:
            seen.append(item)
    assert seen == list(range(50))


async def test_it_goes_on_after_the_service_was_away(scope: TaskScope) -> None:
    attempts = 0

    async def follow(deliver: Deliver[int]) -> None:
        nonlocal attempts
        attempts += 1
        if attempts % 2:
            raise UnavailableError("away")
        await deliver(attempts)

    items = subscribe(scope, follow)
    assert [await anext(items), await anext(items)] == [2, 4]


async def test_it_gives_up_in_time_and_says_why(scope: TaskScope) -> None:
    async def follow(deliver: Deliver[int]) -> None:
        raise UnavailableError("nobody answers at 127.0.0.1:1")

    items = subscribe(scope, follow, policy=RetryPolicy(give_up_after_s=0.01, first_delay_s=0.002))
    with pytest.raises(UnavailableError, match=r"gave up after 0\.01 s: nobody answers"):
        await anext(items)


async def test_without_reconnection_the_first_loss_is_raised(scope: TaskScope) -> None:
    async def follow(deliver: Deliver[int]) -> None:
        await deliver(1)
        raise UnavailableError("away")

    items = subscribe(scope, follow, policy=RetryPolicy(reconnect=False))
    assert await anext(items) == 1
    with pytest.raises(UnavailableError, match="away"):
        await anext(items)


async def test_a_refusal_is_not_repeated(scope: TaskScope) -> None:
    attempts = 0

    async def follow(deliver: Deliver[int]) -> None:
        nonlocal attempts
        attempts += 1
        raise InvalidArgumentError("frame_interval_s", -1, "must be 0 or more")

    with pytest.raises(InvalidArgumentError, match="frame_interval_s"):
        await anext(subscribe(scope, follow))
    assert attempts == 1


async def test_a_closed_one_ends(scope: TaskScope) -> None:
    async def follow(deliver: Deliver[int]) -> None:
        await asyncio.Event().wait()

    items = subscribe(scope, follow)
    await items.aclose()
    assert [item async for item in items] == []
