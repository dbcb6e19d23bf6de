"""An interaction that makes the simulation blow up is taken out of it, and the engine goes back to where all was well."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from engine_fakes import FakeSource
from engine_service import Service

from narupa_shared.errors import InvalidArgumentError
from narupa_shared.interactions import Interaction
from narupa_trajectory.engine.recovery import PROVEN_AFTER_STEPS, GoodCheckpoints

SANE = Interaction.parse("sane", particles=[0], owner="ann")
BOMB = Interaction.parse("bomb", particles=[1], owner="bob", kind="spring")
OTHER = Interaction.parse("other", particles=[2], owner="cid")

Serving = Callable[..., Service]


@pytest.fixture
def serving() -> Iterator[Serving]:
    services: list[Service] = []

    def start(source: FakeSource, **settings: Any) -> Service:
        services.append(Service(source, **settings))
        return services[-1]

    yield start
    for service in services:
        service.close()


def pull_long_enough(service: Service, *interactions: Interaction) -> int:
    """They act, and a checkpoint has been made meanwhile; returns a step that was shown after that."""
    service.pull(*interactions)
    service.next("interactions_applied")
    service.next("checkpoint")
    service.send(do="want", at=0.0)
    return service.frame().step


@pytest.mark.parametrize("kind", ["bombs", "nans"])
def test_the_culprit_is_taken_out_and_the_engine_waits_at_a_checkpoint(serving: Serving, kind: str) -> None:
    source = FakeSource(**{kind: {"bomb"}})
    service = serving(source, checkpoint_interval_s=0.01)
    shown = pull_long_enough(service, SANE)
    service.pull(SANE, BOMB)
    if kind == "nans":
        service.send(do="show", id=0)
    told = service.next("diverged")
    assert (told["culprit"], told["owner"], told["restored"], told["playing"]) == ("bomb", "bob", True, False)
    assert told["time_ps"] >= told["restored_to_ps"] > 0
    assert source.restored
    assert [item.id for item in source.interactions] == ["sane"]
    # The service may not have heard yet, and nothing moves or is shown until somebody plays.
    service.pull(SANE, BOMB)
    service.next("interactions_applied")
    assert [item.id for item in source.interactions] == ["sane"]
    service.send(do="want", at=0.0)
    stands = source.step
    time.sleep(0.03)
    assert source.step == stands == source.restored[-1]
    assert not any(message["event"] == "frame" for message in service.channel.receive(0))
    assert "error" not in service.command("play")
    first = service.frame()
    assert first.step == stands + 2
    assert first.interaction_ids == ("sane",)
    assert shown > 0
    service.send(do="want", at=0.0)
    assert service.frame().step > stands


def test_every_frame_is_finite_whatever_the_source_says(serving: Serving) -> None:
    source = FakeSource(nans={"bomb"})
    service = serving(source)
    service.send(do="every", on=True)
    service.frame()
    service.pull(BOMB)
    while True:
        message = service.next_of("frame", "diverged")
        if message["event"] == "diverged":
            break
        assert np.isfinite(service.memory.read(message).positions).all()
        service.send(do="ack", slot=message["slot"])


def test_resumes_by_itself_where_it_is_told_to(serving: Serving) -> None:
    source = FakeSource(bombs={"bomb"})
    service = serving(source, on_blow_up="resume")
    service.next("checkpoint")
    service.pull(SANE, BOMB)
    told = service.next("diverged")
    assert told["playing"]
    service.send(do="want", at=0.0)
    first = service.frame().step
    service.send(do="want", at=0.0)
    assert service.frame().step >= first
    assert [item.id for item in source.interactions] == ["sane"]


def test_the_restored_checkpoint_is_the_service_s_too(serving: Serving) -> None:
    source = FakeSource(bombs={"bomb"})
    service = serving(source)
    first = service.next("checkpoint")["block"]
    service.pull(SANE, BOMB)
    assert service.next("checkpoint")["block"] == first
    service.next("diverged")


def test_without_a_checkpoint_it_starts_over(serving: Serving) -> None:
    source = FakeSource(bombs={"bomb"})
    service = serving(source, playing=False)
    service.pull(BOMB)
    reply = service.command("step")
    assert reply["error"]["kind"] == "FailedPreconditionError"
    assert "interaction bomb made the simulation blow up" in reply["error"]["text"]
    assert source.step == 0
    assert not source.restored
    service.command("step")
    assert source.step == 2


def test_a_checkpoint_that_is_no_good_is_left_for_the_start(serving: Serving, monkeypatch: pytest.MonkeyPatch) -> None:
    source = FakeSource(bombs={"bomb"})

    def refuse(checkpoint: bytes) -> None:
        raise InvalidArgumentError("checkpoint", "2 bytes", "cannot be read")

    monkeypatch.setattr(source, "restore", refuse)
    service = serving(source)
    service.next("checkpoint")
    service.pull(BOMB)
    assert service.next("diverged")["restored_to_ps"] == 0
    assert source.step == 0


def test_a_second_culprit_is_found_the_same_way(serving: Serving) -> None:
    source = FakeSource(bombs={"bomb", "other"})
    service = serving(source)
    service.next("checkpoint")
    service.pull(SANE, BOMB, OTHER)
    assert service.next("diverged")["culprit"] == "bomb"
    service.command("play")
    assert service.next("diverged")["culprit"] == "other"
    service.command("play")
    service.send(do="want", at=0.0)
    service.frame()
    assert [item.id for item in source.interactions] == ["sane"]


def test_the_quarantine_ends_when_the_interaction_does(serving: Serving) -> None:
    source = FakeSource(bombs={"bomb"})
    service = serving(source)
    service.next("checkpoint")
    service.pull(BOMB)
    service.next("diverged")
    source.bombs = ()
    for interactions, acting in (((BOMB,), []), ((), []), ((BOMB,), ["bomb"])):
        service.pull(*interactions)
        service.next("interactions_applied")
        assert [item.id for item in source.interactions] == acting


def test_with_nobody_to_blame_the_engine_fails(serving: Serving) -> None:
    service = serving(FakeSource(diverges_at=50))
    service.thread.join(5)
    assert "diverged" in str(service.error)


def test_when_all_suspects_are_out_and_it_still_blows_up_the_engine_fails(serving: Serving) -> None:
    source = FakeSource(diverges_at=500)
    service = serving(source, playing=False)
    service.pull(SANE)
    service.next("interactions_applied")
    while not service.error:
        service.send(do="play", id=1)
        service.thread.join(0.05)
    assert "diverged" in str(service.error)


def test_an_engine_that_cannot_go_back_waits_where_it_is(serving: Serving) -> None:
    source = FakeSource(restorable=False, bombs={"bomb"})
    service = serving(source, checkpoint_interval_s=0.0001)
    service.pull(SANE, BOMB)
    (item,) = service.next("finished")["items"]
    assert item["id"] == "bomb"
    assert item["work"] == 0  # and not the NaN that it came to
    assert "blow up" in item["reason"]
    told = service.next("diverged")
    assert (told["culprit"], told["restored"], told["restored_to_ps"]) == ("bomb", False, None)
    assert [item.id for item in source.interactions] == ["sane"]
    stands = source.step
    assert "error" not in service.command("play")
    service.send(do="want", at=0.0)
    assert service.frame().step >= stands
    assert not source.checkpoints
    assert not source.restored


def test_of_an_engine_that_cannot_go_back_a_reset_is_refused_with_its_own_words(serving: Serving) -> None:
    source = FakeSource(restorable=False)
    service = serving(source)
    service.pull(SANE)
    service.next("interactions_applied")
    assert "run by somebody else" in service.command("reset")["error"]["text"]
    assert [item.id for item in source.interactions] == ["sane"]


def test_an_account_is_told_once_when_it_ends_when_reset_and_when_stopped(serving: Serving) -> None:
    source = FakeSource()
    service = serving(source, playing=False)
    service.pull(SANE, OTHER)
    service.command("step")
    service.pull(SANE)
    (item,) = service.next("finished")["items"]
    assert (item["id"], item["owner"], item["work"], item["reason"]) == ("other", "cid", 2.0, "")
    service.send(do="reset", id=7)
    (item,) = service.next("finished")["items"]
    assert (item["id"], item["work"], item["reason"]) == ("sane", 2.0, "the simulation was reset")
    service.next("reset")
    service.command("step")
    service.send(do="stop", reason="another simulation was loaded")
    (item,) = service.next("finished")["items"]
    assert (item["id"], item["work"], item["reason"]) == ("sane", 2.0, "another simulation was loaded")
    service.thread.join(5)
    assert service.error is None


def test_an_interaction_of_a_potential_that_only_the_service_knows_is_refused_and_others_act(serving: Serving) -> None:
    source = FakeSource()
    service = serving(source)
    service.send(do="interactions", set=[{**BOMB.to_json(), "kind": "magnet"}, SANE.to_json()])
    refused = service.next("refused")
    assert refused["interaction"] == "bomb"
    assert "magnet" in refused["reason"]
    service.next("interactions_applied")
    assert [item.id for item in source.interactions] == ["sane"]


def test_goes_back_to_the_newest_checkpoint_that_the_simulation_has_outlived() -> None:
    good = GoodCheckpoints()
    assert good.newest_proven(10**6) is None
    good.keep(b"first", 0)
    assert good.newest_proven(1) == b"first"  # there is no other
    good.keep(b"second", 1000)
    good.keep(b"third", 2000)
    assert good.newest_proven(2000 + PROVEN_AFTER_STEPS) == b"third"
    assert good.newest_proven(2000 + PROVEN_AFTER_STEPS - 1) == b"second"
    good.forget_newest()
    assert good.newest_proven(10**6) is None
    good.forget_newest()
