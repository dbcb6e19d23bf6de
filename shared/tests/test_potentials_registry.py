"""Potentials from installed packages: found by entry point, loaded when asked for, and a broken one hurts nobody else."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from importlib.metadata import EntryPoint
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from narupa_shared.errors import InvalidArgumentError
from narupa_shared.interactions import Interaction
from narupa_shared.potentials import Bias, known_kinds, potential_named, registry
from narupa_shared.potentials.potential import Evaluate, Evaluation, Geometry, Terms
from narupa_shared.potentials.radial import Spring


class Double(Spring):
    name = "double"


class Misnamed(Spring):
    name = "other"


class Failing(Spring):
    name = "failing"

    def prepare(self, terms: Terms) -> Evaluate:
        def evaluate(at: Geometry) -> Evaluation:
            raise ZeroDivisionError("in the plug-in")

        return evaluate


class Misshapen(Spring):
    name = "misshapen"

    def prepare(self, terms: Terms) -> Evaluate:
        return lambda at: Evaluation(np.zeros(7), np.zeros((3, 7)))


@pytest.fixture
def plug_ins(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Installed: one that works, and several broken in different ways."""
    module: Any = ModuleType("somebodys_plug_in")
    module.Double, module.Misnamed, module.nothing = Double, Misnamed, object()
    module.Failing, module.Misshapen = Failing, Misshapen
    monkeypatch.setitem(sys.modules, "somebodys_plug_in", module)
    entries = [
        EntryPoint(name, f"{target}", registry.ENTRY_POINT_GROUP)
        for name, target in (
            ("double", "somebodys_plug_in:Double"),
            ("misnamed", "somebodys_plug_in:Misnamed"),
            ("absent", "not_installed_at_all:Potential"),
            ("nothing", "somebodys_plug_in:nothing"),
            ("spring", "somebodys_plug_in:Double"),
            ("failing", "somebodys_plug_in:Failing"),
            ("misshapen", "somebodys_plug_in:Misshapen"),
        )
    ]
    monkeypatch.setattr(registry, "entry_points", lambda group: entries)
    registry.plug_ins.cache_clear()
    registry.load.cache_clear()
    yield
    registry.plug_ins.cache_clear()
    registry.load.cache_clear()


@pytest.mark.usefixtures("plug_ins")
class TestPlugIns:
    def test_are_listed_after_the_built_in_ones(self) -> None:
        kinds = known_kinds()
        assert kinds[:3] == ("gaussian", "spring", "constant")
        assert set(kinds[10:]) == {"absent", "double", "failing", "misnamed", "misshapen", "nothing"}

    def test_act_like_any_other(self) -> None:
        pull = Interaction.parse("a", kind="double", particles=[0], parameters={"stiffness": 4.0}, mass_weighted=False)
        bias = Bias([1.0])
        bias.set([pull], np.array([[1.0, 0.0, 0.0]]), None, 0.0)
        assert bias.energies.tolist() == [2.0]
        assert Interaction.from_json(pull.to_json()) == pull

    def test_cannot_replace_a_built_in_one(self) -> None:
        assert type(potential_named("spring")) is Spring

    @pytest.mark.parametrize(
        ("name", "reason"),
        [
            ("absent", "not_installed_at_all:Potential cannot be loaded: ModuleNotFoundError"),
            ("nothing", "somebodys_plug_in:nothing is no potential"),
            ("misnamed", "calls itself 'other'"),
        ],
    )
    def test_broken_ones_are_refused_with_name_and_reason(self, name: str, reason: str) -> None:
        with pytest.raises(InvalidArgumentError, match=reason):
            potential_named(name)
        with pytest.raises(InvalidArgumentError, match=f"interaction.a.interaction_type is '{name}'.*{reason}"):
            Interaction.parse("a", kind=name, particles=[0])
        assert potential_named("double").name == "double"

    @pytest.mark.parametrize("kind", ["failing", "misshapen"])
    def test_one_that_fails_while_it_acts_stops_acting_and_the_others_go_on(self, kind: str) -> None:
        pulls = [Interaction.parse(name, kind=name, particles=[0], mass_weighted=False) for name in (kind, "double")]
        bias = Bias([1.0])
        for _ in range(2):
            bias.set(pulls, np.array([[1.0, 0.0, 0.0]]), None, 0.0)
            assert bias.energies.tolist() == [0.0, 1.0]
        assert bias.failures()[kind].startswith(("ZeroDivisionError: in the plug-in", "ValueError"))


def test_an_unknown_one_is_refused_with_those_there_are() -> None:
    with pytest.raises(InvalidArgumentError, match=r"gaussian.*dihedral"):
        potential_named("no-such")
