"""A leader's frames as a relay gives them on: the bytes as they came, and the topology for whoever comes late. No I/O."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from narupa_shared import frame_keys as keys
from narupa_shared.errors import UnavailableError
from narupa_shared.frames import Frame, decode_frame_response_v1
from narupa_shared.published import PublishedFrame, Topology
from narupa_trajectory.published_frames import RUNNING

# What the service says anew with each frame; all else is topology, which comes once.
_MOVING: Final = RUNNING | {keys.TIMESTAMP, keys.EXCEPTION, keys.EPOCH}


@dataclass(frozen=True, slots=True)
class Relayed:
    """One frame to be given on.

    Attributes:
        frame: What changes with time in it.
        topology: The rest.
        response: The leader's response, where it holds just that.
        urgent: Whether everyone is to have it, due or not: it shows what was shown before, with something to say.
    """

    frame: Frame
    topology: Topology
    response: bytes | None
    urgent: bool


class RelayedFrames:
    """Puts the responses of one stream after another, of one leader after another, into one order.

    Attributes:
        epoch: The highest seen. Frames of lower ones are dropped.
        dropped: How many were.
        counter: How many simulations the last frame's leader counts; -1 before the first.
        index: Of the last frame; -1 before the first.
        run_id: Of the last frame; empty before the first.
        topology: Of the last frame; None before the first.
    """

    def __init__(self) -> None:
        self.epoch = 0
        self.dropped = 0
        self.counter = -1
        self.index = -1
        self.run_id = ""
        self.topology: Topology | None = None
        self._last: Frame | None = None
        self._begins = True
        self._behind: int | None = None  # epoch of the whole frame that was left out, as is what builds on it

    def begin(self) -> None:
        """What comes next is the first response of a stream, and so a whole frame."""
        self._begins, self._behind = True, None

    def go_on_after(self, shown: PublishedFrame) -> None:
        """What this service itself has shown last, while it led, is what relayed frames follow on."""
        facts = shown.topology.frame.values
        self.epoch = max(self.epoch, epoch_of(shown.frame))
        self.topology, self.index, self._last = shown.topology, shown.frame.index, shown.frame
        self.run_id, self.counter = str(facts.get(keys.RUN, "")), counter_of(facts)

    def take(self, response: bytes) -> Relayed | None:
        """What is to be given on of a response of SubscribeFrames; None when it is old.

        What was given on goes on: of one epoch to a higher index, unless everybody starts over, and never to an earlier
        simulation.

        Raises:
            InvalidArgumentError: it holds no frame, or the first of a stream no whole one.
            UnavailableError: only the beginning of another stream says what it is of.
        """
        given = decode_frame_response_v1(response)
        epoch = epoch_of(given)
        whole, self._begins = self._begins or given.index == 0, False
        moving, still = split(given)
        older, newer = epoch < self.epoch, epoch > self.epoch
        self.dropped += older
        if whole:
            earlier = older or (not newer and counter_of(still) < self.counter)
            self._behind = epoch if earlier else None
        if self._behind not in (None, epoch):
            raise UnavailableError("the stream was behind, and goes on in another epoch")
        if older or self._behind is not None:
            return None
        self.epoch = epoch
        if (not whole and self.topology is not None) or self._goes_on(given.index, still, newer):
            assert self.topology is not None
            if given.index <= self.index and not newer:
                return None  # another stream has brought it already
            topology = self._told_that_it_is_over(moving, continued(self.topology, still))
        else:
            topology = Topology(still)
        relayed = Relayed(
            Frame.of(given.index, moving), topology, None if whole or still else response, self._repeats(moving)
        )
        self.topology, self.index, self._last = topology, given.index, relayed.frame
        if whole:
            self.run_id, self.counter = str(still.get(keys.RUN, self.run_id)), counter_of(still)
        return relayed

    def _told_that_it_is_over(self, moving: Mapping[str, Any], topology: Topology) -> Topology:
        """`topology`, from which its readers learn that what was told of a failure by one who led before holds no more."""
        told = self._last is not None and keys.EXCEPTION in self._last.values
        return topology.with_added({keys.EXCEPTION: ""}) if told and keys.EXCEPTION not in moving else topology

    def _goes_on(self, index: int, still: Mapping[str, Any], newer: bool) -> bool:
        """Whether a whole frame is of the run that was relayed last, and those who have that need not start over."""
        known = self.topology is not None and bool(self.run_id) and still.get(keys.RUN) == self.run_id
        same = not newer and counter_of(still) == self.counter
        return known and (same or index > max(self.index, 0))

    def _repeats(self, moving: Mapping[str, Any]) -> bool:
        """Whether the frame is of the same instant as the last, or another failure is told of."""
        if self._last is None:
            return True
        last = self._last.values
        return any(last.get(key) != moving.get(key) for key in (keys.EXCEPTION, keys.EPOCH)) or (
            last.get(keys.STEP) == moving.get(keys.STEP)
        )


def epoch_of(frame: Frame) -> int:
    """In which the leader made it; 0 where it does not say."""
    value = frame.values.get(keys.EPOCH)
    return int(value) if isinstance(value, float) and value >= 0 and value == value // 1 else 0


def counter_of(facts: Mapping[str, Any]) -> int:
    """Of the simulation that a frame is of, as its topology says; -1 where it does not."""
    value = facts.get(keys.COUNTER)
    return int(value) if isinstance(value, float) and math.isfinite(value) else -1


def split(frame: Frame) -> tuple[dict[str, Any], dict[str, Any]]:
    """What changes with time in a frame, and what does not."""
    items: dict[str, Any] = {**frame.values, **frame.arrays}
    moving = {key: item for key, item in items.items() if key in _MOVING}
    return moving, {key: item for key, item in items.items() if key not in _MOVING}


def continued(topology: Topology, items: Mapping[str, Any]) -> Topology:
    """`topology` with those of `items` that it has not: its readers go on."""
    known: dict[str, Any] = {**topology.frame.values, **topology.frame.arrays}
    news = {key: item for key, item in items.items() if not _same(known.get(key), item)}
    return topology.with_added(news) if news else topology


def _same(old: Any, new: Any) -> bool:
    if isinstance(old, np.ndarray) or isinstance(new, np.ndarray):
        return (
            isinstance(old, np.ndarray)
            and isinstance(new, np.ndarray)
            and old.dtype == new.dtype
            and np.array_equal(old, new)
        )
    return type(old) is type(new) and bool(old == new)
