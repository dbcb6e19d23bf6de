"""The engine's loop: runs one source, one frame after another, and does what the service asks between frames."""

from __future__ import annotations

import contextlib
import math
import time
from collections import deque
from collections.abc import Callable
from dataclasses import asdict, replace
from typing import Any, Final

from narupa_shared import freed_memory
from narupa_shared.errors import FailedPreconditionError, InvalidArgumentError, NarupaError, UnavailableError
from narupa_shared.interactions import Interaction
from narupa_shared.nanover_messages import state_message
from narupa_shared.potentials.accounts import FinishedInteraction
from narupa_shared.recordings.recording import StateChange
from narupa_trajectory.engine.channel import (
    SLOTS,
    BlockingChannel,
    FrameMemory,
    Message,
    jsoned,
    recorded_message,
    snapshot_block,
)
from narupa_trajectory.engine.energies import EnergyTurns
from narupa_trajectory.engine.recovery import GoodCheckpoints
from narupa_trajectory.sources.divergence import DIVERGED, Limits, check_snapshot
from narupa_trajectory.sources.recorded import Recorded
from narupa_trajectory.sources.source import Glimpsed, Snapshot, Source, SourceDivergedError

# A checkpoint may take this share of the engine's time.
CHECKPOINT_SHARE: Final = 0.01
STATISTICS_INTERVAL_S: Final = 0.5
# A recording in which nothing happens for long gives a sign of life this often, s.
ALIVE_INTERVAL_S: Final = 5.0
# The longest that an engine nobody pulls in, flat out, goes on without looking for messages, s.
UNDISTURBED_BLOCK_S: Final = 0.03
# Whatever a source takes for an explosion, what is not finite is never shown.
FINITE: Final = Limits(max_temperature_k=math.inf)


class EngineLoop:
    """Owns the source: plays, pauses and paces it, answers the service, and goes back to a checkpoint after a blow-up."""

    def __init__(self, channel: BlockingChannel, memory: FrameMemory, source: Source, settings: Message) -> None:
        self._channel = channel
        self._memory = memory
        self._source = source
        self._recorded = source if isinstance(source, Recorded) else None
        self._glimpsed = source if isinstance(source, Glimpsed) else None
        self._energies = EnergyTurns(settings["energy_share"])
        self._own_pace: bool = settings.get("own_pace", True)
        self._playing: bool = settings["playing"]
        self._interval_s: float = settings["frame_interval_s"]
        self._steps: int = settings["steps_per_frame"] or source.info.steps_per_frame
        self._velocities: bool = settings["velocities"]
        self._checkpoint_interval_s: float = settings["checkpoint_interval_s"]
        self._resumes: bool = settings["on_blow_up"] == "resume"
        self._inbox: deque[Message] = deque()
        self._free: deque[int] = deque(range(SLOTS))
        self._every = False
        self._waits = False  # for somebody who is slow to read every frame
        self._want_at: float = math.inf
        self._changed = True  # something to show that no snapshot has shown
        self._show_now = True  # a snapshot is due whatever the subscribers' clocks say
        self._held = False  # stopped by a blow-up: everyone keeps the last good frame until somebody plays
        self._next_frame_at = 0.0
        self._next_checkpoint_at = 0.0
        self._give_back_at = 0.0
        self._steps_done = 0
        self._statistics_from = (time.monotonic(), 0)
        self._wanted: list[Interaction] = []
        self._read: dict[str, tuple[Message, Interaction]] = {}  # what came last, and what it meant
        self._quarantined: set[str] = set()
        self._good = GoodCheckpoints()
        self._seen: tuple[float, int, float] | None = (
            None  # time in ps, steps done and ps per step at the last snapshot
        )
        self._frame_cost_s = 0.0  # what the steps of one frame take, a moving average
        self._at_end = False  # of a recording that does not loop
        self._stopped = False

    def run(self) -> None:
        """Returns when the service asks to stop.

        Raises:
            EOFError: the service is gone.
            SourceDivergedError: the simulation has blown up, and no interaction is to blame.
        """
        self._next_frame_at = time.monotonic() + self._wait_s()
        self._tell_recorded_state()
        self._or_recover(lambda: self._publish_if_due(time.monotonic()))
        while not self._stopped:
            self._or_recover(self._turn)

    def _or_recover(self, act: Callable[[], None]) -> None:
        try:
            act()
        except SourceDivergedError as error:
            self._recover(error)

    def _turn(self) -> None:
        self._inbox.extend(self._channel.receive(0.0 if self._inbox else self._idle_s()))
        while self._inbox and not self._stopped:
            self._handle(self._inbox.popleft())
        if self._stopped:
            return
        now = time.monotonic()
        if self._playing and now >= self._next_frame_at and not self._owing and not self._waits:
            self._advance()
            self._next_frame_at = max(self._next_frame_at + self._pace_s(), now)
            now = time.monotonic()
        self._publish_if_due(now)
        self._tell_finished()
        self._report(now)

    def _idle_s(self) -> float | None:
        """How long the loop may wait for messages before it has work again, s; None: until one comes."""
        if not self._free and (self._every or self._owing):
            return None  # the service acknowledges soon
        if not self._playing:
            if not self._changed:
                return None
            if self._show_now:
                return 0.0
            return None if self._want_at == math.inf else max(0.0, self._want_at - time.monotonic())
        if self._waits and not self._owing:
            return STATISTICS_INTERVAL_S
        wait_s = max(0.0, self._next_frame_at - time.monotonic())
        return wait_s if self._recorded is None else min(wait_s, ALIVE_INTERVAL_S)

    @property
    def _owing(self) -> bool:
        """Whether the present instant must be shown before it passes."""
        return self._show_now or (self._every and self._changed)

    @property
    def _acting(self) -> list[Interaction]:
        """The interactions that are to act."""
        return [item for item in self._wanted if item.id not in self._quarantined]

    def _pace_s(self) -> float:
        """Wall-clock time until it is to go on from here, s."""
        paced = self._recorded is not None and self._own_pace
        return self._recorded.pace_s(self._interval_s) if paced and self._recorded else self._interval_s

    def _wait_s(self) -> float:
        """How long it is to stand where it begins to play, s: a recording as long as it did, a simulation not at all."""
        return self._pace_s() if self._recorded is not None and self._own_pace else 0.0

    def _advance(self) -> None:
        if self._recorded is not None:
            self._play_on(self._recorded, by_frame=not self._own_pace)
            return
        frames = self._frames_at_once()
        before = time.monotonic()
        more = self._source.advance(self._steps * frames)
        cost = (time.monotonic() - before) / frames
        self._frame_cost_s += 0.2 * (cost - self._frame_cost_s) if self._frame_cost_s else cost
        self._steps_done += self._steps * frames if self._source.info.live else 1
        self._changed = True
        if not more:
            if not self._source.info.restorable:
                raise UnavailableError(f"{self._source.info.name} has come to its end")
            self._source.reset()

    def _play_on(self, recorded: Recorded, by_frame: bool) -> None:
        """The recording stands at what comes next, or at its next frame."""
        if by_frame:
            moved = "frame" if self._source.advance(1) else "end"
        else:
            moved = recorded.move()
        if moved == "end" and recorded.loops:
            self._source.reset()
        elif moved == "end":
            self._playing, self._at_end = False, True
            self._channel.send({"event": "ended"})
        self._changed = self._changed or moved == "frame" or (moved == "end" and recorded.loops)
        self._tell_recorded_state()

    def _tell_recorded_state(self) -> None:
        """The service has what the recording says of the shared state."""
        change = self._recorded.take_state() if self._recorded is not None else None
        if change is not None:
            self._channel.send({"event": "state", "whole": change.whole}, state_block(change))

    def _frames_at_once(self) -> int:
        """How many frames to go before anybody could want to see or change anything.

        Every block of steps costs an engine something of its own (OpenMM: about a fifth of a millisecond). Flat out, with
        nobody pulling, the engine therefore goes on until the next snapshot is due, but not for so long that a command waits.
        """
        if self._interval_s or self._every or self._wanted or not self._playing or not self._frame_cost_s:
            return 1
        # Half of what is left: a block that takes longer than foreseen is not late yet.
        horizon_s = min(UNDISTURBED_BLOCK_S, 0.5 * (self._want_at - time.monotonic()))
        return max(1, int(horizon_s / max(self._frame_cost_s, 1e-4))) if self._source.info.live else 1

    def _publish_if_due(self, now: float) -> None:
        due = self._show_now or (self._changed and (self._every or now >= self._want_at))
        if not due or not self._free:
            return
        taken_at = time.monotonic()
        snapshot, block = self._shown(taken_at), b""
        topology = self._recorded.take_topology() if self._recorded is not None else None
        if topology is not None:
            self._channel.send({"event": "topology"}, jsoned(topology).encode())
        if snapshot.recorded is None:
            header = self._memory.write(self._free[0], snapshot)
        else:
            header, block = recorded_message(self._free[0], snapshot)
        self._free.popleft()
        header |= {"urgent": self._show_now or not self._playing, "taken_at": taken_at}
        self._channel.send({"event": "frame", **header}, block)
        self._want_at = math.inf
        self._changed = self._show_now = False

    def _shown(self, now: float) -> Snapshot:
        """The present instant as everyone is to see it. Raises: SourceDivergedError when it is not fit to be.

        Energies are of another instant only for those who skip frames of what runs undisturbed.
        """
        if self._glimpsed is None:
            return self._snapshot(self._velocities)
        if self._owing or self._wanted or not self._playing or self._energies.due(now):
            return self._energies.read(self._snapshot(self._velocities), now, time.monotonic())
        return self._energies.filled(self._checked(self._glimpsed.glimpse(velocities=self._velocities)))

    def _snapshot(self, velocities: bool = False) -> Snapshot:
        """The present instant with its energies, fit to be shown. Raises: SourceDivergedError when it is not."""
        return self._checked(self._source.snapshot(velocities=velocities))

    def _checked(self, snapshot: Snapshot) -> Snapshot:
        """`snapshot`, from which the simulated time is reckoned now. Raises: SourceDivergedError when it is not finite."""
        if self._source.info.live:
            check_snapshot(snapshot, FINITE)
            if snapshot.time_ps is not None:
                pace = snapshot.time_ps / snapshot.step if snapshot.step else 0.0
                self._seen = snapshot.time_ps, self._steps_done, pace
        return snapshot

    def _report(self, now: float) -> None:
        if now >= self._give_back_at:
            freed_memory.give_back()
            self._give_back_at = now + freed_memory.INTERVAL_S
        since, steps = self._statistics_from
        if not self._source.info.live:
            if now - since >= ALIVE_INTERVAL_S:
                self._statistics_from = (now, steps)
                self._channel.send({"event": "alive"})
            return
        if now - since >= STATISTICS_INTERVAL_S:
            rate = (self._steps_done - steps) / (now - since)
            self._statistics_from = (now, self._steps_done)
            self._channel.send({"event": "statistics", "steps_per_second": rate})
        if self._playing and now >= self._next_checkpoint_at and self._source.info.restorable:
            block = self._source.checkpoint()
            self._good.keep(block, self._steps_done)
            cost = time.monotonic() - now
            self._next_checkpoint_at = now + max(self._checkpoint_interval_s, cost / CHECKPOINT_SHARE)
            self._channel.send({"event": "checkpoint", "time_ps": self._time_ps}, block)

    @property
    def _time_ps(self) -> float | None:
        """The simulated time, reckoned from the last snapshot: reading it may cost the source more."""
        return self._reckoned(self._seen)

    def _reckoned(self, seen: tuple[float, int, float] | None) -> float | None:
        """The simulated time, reckoned from one snapshot; the pace of the last one serves where it had none."""
        if seen is None or self._seen is None:
            return None
        time_ps, steps, pace = seen
        return time_ps + (pace or self._seen[2]) * (self._steps_done - steps)

    # Interactions

    def _tell_finished(self, reason: str = "") -> None:
        """The service has the accounts of the interactions that have ended; `reason` is for those that say none."""
        self._send_finished([replace(item, reason=item.reason or reason) for item in self._source.take_finished()])

    def _send_finished(self, items: list[FinishedInteraction]) -> None:
        if items:
            self._channel.send({"event": "finished", "items": [plain(item) for item in items]})

    def _end_accounts(self, reason: str) -> None:
        """Nothing acts, and the service has the account of everything that did."""
        self._tell_finished()
        with contextlib.suppress(NarupaError):
            self._source.set_interactions(())
        self._tell_finished(reason)

    def _set_interactions(self, items: list[Message]) -> None:
        self._wanted, before, self._read = [], self._read, {}
        for item in items:
            try:
                interaction = interaction_of(item, before.get(item["id"]))
                self._wanted.append(interaction)
                self._read[interaction.id] = item, interaction
            except NarupaError as error:  # a potential that only the service has
                self._channel.send({"event": "refused", "interaction": item["id"], "reason": str(error)})
        self._quarantined &= {item.id for item in self._wanted}
        try:
            self._source.set_interactions(self._acting)
        finally:
            self._changed = self._changed or not self._held
            self._channel.send({"event": "interactions_applied"})

    # Blow-ups

    def _recover(self, error: SourceDivergedError) -> str:
        """The source stands at a good checkpoint, without the interaction to blame, which the service is told; returns why.

        Raises:
            SourceDivergedError: `error`, when no interaction is to blame.
        """
        acting = {item.id: item for item in self._acting}
        culprit = next((acting[id] for id in self._source.suspects() if id in acting), None)
        if culprit is None:
            raise error
        self._tell_finished()
        self._quarantined.add(culprit.id)
        seen = self._seen
        restored = self._source.info.restorable
        if restored:
            self._go_back()
        at_ps = self._reckoned(seen)
        self._source.set_interactions(self._acting)
        # Of those that ended after the checkpoint was made, the service has been told.
        ended = [item for item in self._source.take_finished() if item.id == culprit.id or not restored]
        why = str(error).removeprefix(DIVERGED)
        reason = f"made the simulation blow up: {why}"
        self._send_finished([replace(item, reason=reason) if item.id == culprit.id else item for item in ended])
        self._playing = self._playing and self._resumes
        self._held, self._changed = not self._playing, self._playing
        self._show_now = False
        self._next_frame_at = time.monotonic()
        blow_up = {
            "culprit": culprit.id,
            "owner": culprit.owner,
            "reason": why,
            "time_ps": at_ps,
            "playing": self._playing,
            "restored_to_ps": self._time_ps if restored else None,
        }
        self._channel.send({"event": "diverged", "restored": restored, **blow_up})
        return f"interaction {culprit.id} {reason}"

    def _go_back(self) -> None:
        """The source stands at the newest checkpoint that is no part of the blow-up, or at its start."""
        self._energies.forget()
        while (block := self._good.newest_proven(self._steps_done)) is not None:
            try:
                self._source.restore(block)
                self._snapshot()
            except NarupaError:  # it was doomed already, or cannot be read
                self._good.forget_newest()
            else:
                self._channel.send({"event": "checkpoint", "time_ps": self._time_ps}, block)
                return
        self._source.reset()
        self._snapshot()

    def _release(self) -> None:
        """Goes on from where a blow-up has put the source, if one has."""
        if self._held:
            self._held, self._changed = False, True

    # Commands

    def _handle(self, message: Message) -> None:
        action = message["do"]
        if action == "ack":
            self._free.append(message["slot"])
        elif action == "want":
            self._want_at = message["at"]
        elif action == "every":
            self._every = message["on"]
        elif action == "wait":
            self._waits = message["on"]
        elif action == "interactions":
            self._set_interactions(message["set"])
        elif action == "stop":
            self._stopped = True
            self._end_accounts(message["reason"])
        else:
            self._answer(message)

    def _answer(self, message: Message) -> None:
        """Does a command and replies, with the error where there is one."""
        reply: dict[str, Any] = {"event": "reply", "id": message["id"]}
        block = b""
        try:
            block = self._command(message["do"], message)
        except SourceDivergedError as error:
            reply["error"] = {"kind": FailedPreconditionError.__name__, "text": self._recover(error)}
        except (NarupaError, ValueError, OSError) as error:
            reply["error"] = {"kind": type(error).__name__, "text": str(error)}
        self._channel.send(reply, block)

    def _command(self, action: str, message: Message) -> bytes:
        match action:
            case "play":
                self._release()
                self._playing, self._next_frame_at = True, time.monotonic() + self._wait_s()
                self._start_over_if_ended()
            case "pause":
                self._playing, self._show_now = False, not self._held
            case "step":
                self._release()
                self._playing = False
                if self._recorded is not None:
                    self._play_on(self._recorded, by_frame=True)
                else:
                    self._advance()
                self._show_now = True
            case "reset":
                self._reset()
            case "seek":
                if message.get("time_s") is None:
                    self._source.seek(message["index"])
                elif self._recorded is not None:
                    self._recorded.seek_time(message["time_s"])
                else:
                    raise FailedPreconditionError("this source has no times to seek by")
                self._stand()
            case "stand":  # paused at a frame, which is on its way before the answer is
                self._source.seek(message["index"])
                self._playing = False
                self._stand()
                self._publish_if_due(time.monotonic())
            case "interval":
                self._interval_s, self._next_frame_at = message["value"], time.monotonic()
                self._own_pace = False
            case "steps":
                self._steps = message["value"]
            case "show":
                self._show_now = True
            case "checkpoint":
                return self._source.checkpoint()
            case "frame_at":
                return self._frame_at(message["index"])
            case _:
                raise InvalidArgumentError("engine command", action, "is unknown")
        return b""

    def _stand(self) -> None:
        """The recording has been put somewhere else, which is shown at once."""
        self._at_end = False
        self._next_frame_at = time.monotonic() + self._wait_s()
        self._show_now = True
        self._tell_recorded_state()

    def _start_over_if_ended(self) -> None:
        """A recording that does not loop, and has come to its end, begins again when it is played."""
        if self._at_end:
            self._source.reset()
            self._stand()

    def _reset(self) -> None:
        if self._source.info.restorable:
            self._end_accounts("the simulation was reset")
        self._source.reset()
        self._source.take_finished()
        self._good.clear()
        self._steps_done, self._statistics_from = 0, (time.monotonic(), 0)
        self._next_checkpoint_at = 0.0
        self._seen, self._held = None, False
        self._energies.forget()
        self._channel.send({"event": "reset"})
        self._stand()
        self._source.set_interactions(self._acting)

    def _frame_at(self, index: int) -> bytes:
        """A recording's frame `index` as message bytes, without moving the playback on."""
        if self._source.info.live:
            raise FailedPreconditionError("a live source has no frames to look up")
        if self._recorded is not None:
            return snapshot_block(self._recorded.peek(index, self._velocities))
        here = self._source.snapshot().step
        self._source.seek(index)
        snapshot = self._source.snapshot(velocities=self._velocities)
        self._source.seek(here)
        return snapshot_block(snapshot)


def state_block(change: StateChange) -> bytes:
    """The change as the block of a message. What has no form there, such as a value of a foreign type, is left out."""
    try:
        return state_message(change.updates, change.removals)
    except (TypeError, ValueError, OverflowError):
        return state_message({}, change.removals)


def interaction_of(item: Message, before: tuple[Message, Interaction] | None) -> Interaction:
    """What `item` means; `before` is what came of it last. Most only move, which is not worth checking all of them anew.

    Raises:
        InvalidArgumentError: naming the field and the value.
    """
    if before and before[0] == item:
        return before[1]
    if before and {**before[0], "position": item["position"]} == item:
        return before[1].moved(item["position"])
    return Interaction.from_json(item)


def plain(item: FinishedInteraction) -> dict[str, Any]:
    """The account as a message holds it. The work of what has blown up the simulation may be no number; it is then 0."""
    return asdict(replace(item, work=float(item.work) if math.isfinite(item.work) else 0.0))
