"""Which frames have energies of their own, where those cost the engine a force evaluation."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from engine_fakes import FakeSource
from engine_service import Service

from narupa_shared.interactions import Interaction
from narupa_trajectory.engine.energies import LONGEST_S, EnergyTurns
from narupa_trajectory.sources.catalogue import SourceSpec, open_source
from narupa_trajectory.sources.source import Glimpsed, Snapshot


class GlimpsedSource(FakeSource):
    """Its energies are its step."""

    def snapshot(self, velocities: bool = False) -> Snapshot:
        snapshot = super().snapshot(velocities)
        snapshot.potential_energy = float(self.step)
        return snapshot

    def glimpse(self, velocities: bool = False) -> Snapshot:
        return super().snapshot(velocities)


@pytest.fixture
def service() -> Iterator[Service]:
    # A share so small that energies are due only after the longest time.
    service = Service(GlimpsedSource(), energy_share=1e-9)
    yield service
    service.close()


def wanted(service: Service) -> Snapshot:
    service.send(do="want", at=0.0)
    return service.frame()


def has_its_own(snapshot: Snapshot) -> bool:
    return snapshot.potential_energy == snapshot.step and snapshot.energies_at_ps == snapshot.time_ps


def read(turns: EnergyTurns, began: float, ended: float) -> None:
    turns.read(GlimpsedSource().snapshot(), began, ended)


def test_energies_are_due_again_once_they_take_no_more_than_their_share() -> None:
    turns = EnergyTurns(0.01)
    assert turns.due(5.0)
    read(turns, 5.0, 5.002)
    assert not turns.due(5.19) and turns.due(5.21)


def test_however_long_they_take_they_are_due_after_a_while_and_at_once_on_another_course() -> None:
    turns = EnergyTurns(0.01)
    read(turns, 5.0, 5.5)
    assert not turns.due(5.0 + LONGEST_S - 0.01) and turns.due(5.0 + LONGEST_S)
    turns.forget()
    assert turns.due(5.5)


def test_who_skips_frames_has_the_last_energies_and_is_told_of_when(service: Service) -> None:
    frames = [wanted(service) for _ in range(3)]
    assert all(frame.step > 0 and not has_its_own(frame) for frame in frames)
    assert {(frame.potential_energy, frame.energies_at_ps) for frame in frames} == {(0.0, 0.0)}


def test_each_frame_has_its_own_while_somebody_follows_all(service: Service) -> None:
    service.send(do="every", on=True)
    assert all(has_its_own(service.frame()) for _ in range(5))


def test_each_frame_has_its_own_while_somebody_pulls(service: Service) -> None:
    service.pull(Interaction.parse("a", particles=[0]))
    service.next("interactions_applied")
    assert all(has_its_own(wanted(service)) for _ in range(3))


def test_where_it_pauses_it_shows_the_energies_of_there(service: Service) -> None:
    service.command("pause")
    assert has_its_own(service.frame())


def test_openmm_sees_the_same_instant_in_a_glimpse_without_energies() -> None:
    source = open_source(SourceSpec.parse("demo:nanotube"))
    try:
        assert isinstance(source, Glimpsed)
        source.advance(10)
        seen, whole = source.glimpse(velocities=True), source.snapshot(velocities=True)
    finally:
        source.close()
    assert (seen.positions == whole.positions).all() and (seen.velocities == whole.velocities).all()
    assert (seen.step, seen.time_ps) == (whole.step, whole.time_ps)
    assert seen.potential_energy is seen.kinetic_energy is seen.temperature is None
