"""Interactions as messages: what is sent is what arrives, and what arrives wrong is named."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from narupa_shared.errors import InvalidArgumentError
from narupa_shared.gen.narupa.imd.v1 import imd_pb2 as pb
from narupa_shared.interaction_messages import interaction_message, interaction_of, state_value_of
from narupa_shared.interactions import Interaction
from narupa_shared.structs import to_struct

CASES: list[dict[str, Any]] = [
    {"kind": "gaussian", "particles": [0]},
    {"kind": "spring", "particles": [2, 0], "parameters": {"stiffness": 5.0}, "max_force": math.inf},
    {"kind": "constant", "particles": [1], "properties": {"label": "x", "owner.id": "me"}},
    {"kind": "steered", "particles": [4, 5], "parameters": {"velocity": [0.0, 0.0, 0.01]}, "mass_weighted": False},
    {"kind": "wall", "particles": [1, 2], "parameters": {"normal": [0.0, 1.0, 0.0]}, "scale": -2.0},
    {"kind": "rotation", "particles": [3, 1], "parameters": {"reference": [[0.0, 0.0, 0.0], [1.0, 2.0, 3.0]]}},
    {"kind": "distance", "groups": [[3, 1], [2]], "parameters": {"target": 0.3, "stiffness": 10.0}},
    {"kind": "angle", "groups": [[0], [1], [2]], "parameters": {"target": 1.5}},
    {"kind": "dihedral", "groups": [[0], [1], [2], [4, 3]], "parameters": {"target": -1.5}},
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: str(case["kind"]))
def test_every_kind_arrives_as_it_was_sent(case: dict[str, Any]) -> None:
    sent = Interaction.parse("a", position=[1.0, 2.0, 3.0], owner="me", **case)
    message = pb.Interaction.FromString(interaction_message(sent, owner="me").SerializeToString())
    assert interaction_of(message) == sent
    assert (message.potential == "") == (sent.kind in ("gaussian", "spring", "constant"))
    assert Interaction.from_state("a", state_value_of(message)) == interaction_of(
        interaction_message(sent)  # the state knows no owner
    )


def test_a_message_without_properties_has_none() -> None:
    sent = Interaction.parse("a", particles=[0], properties={"label": "x"})
    assert not interaction_message(sent, properties=False).HasField("properties")


def test_the_name_of_a_potential_outweighs_the_number() -> None:
    message = pb.Interaction(id="a", position=[0, 0, 0], particles=[0], kind=pb.POTENTIAL_KIND_SPRING)
    message.potential = "constant"
    assert interaction_of(message).kind == "constant"


def test_particles_of_groups_are_listed_in_the_state() -> None:
    groups = [pb.ParticleGroup(particles=[5, 1]), pb.ParticleGroup(particles=[2])]
    value = state_value_of(pb.Interaction(id="a", position=[0, 0, 0], potential="distance", groups=groups))
    assert (value["particles"], value["groups"]) == ([1, 2, 5], [[5, 1], [2]])


def test_properties_cannot_stand_for_fields() -> None:
    message = pb.Interaction(id="a", position=[0, 0, 0], particles=[0])
    message.properties.CopyFrom(
        to_struct({"parameters": {"stiffness": 3}, "groups": [[1]], "particles": [9], "scale": 1e300, "owner": "x"})
    )
    interaction = Interaction.from_state("a", state_value_of(message))
    assert interaction == Interaction.parse("a", particles=[0], properties={"owner": "x"})


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"kind": 9}, "interaction.a.interaction_type is 9"),
        ({"potential": "rope"}, "interaction.a.interaction_type is 'rope'"),
        ({"kind": 2, "parameters": to_struct({"stifness": 3})}, "interaction.a.parameters.stifness is 3"),
        ({"kind": 2, "parameters": to_struct({"stiffness": math.nan})}, "interaction.a.parameters.stiffness is nan"),
        ({"kind": 2, "parameters": to_struct({"stiffness": "hard"})}, "interaction.a.parameters.stiffness is 'hard'"),
        ({"potential": "steered"}, "interaction.a.parameters.velocity"),
        ({"potential": "distance"}, "interaction.a.groups"),
        ({"potential": "distance", "groups": [pb.ParticleGroup(particles=[0])] * 2}, r"interaction.a.groups\[1\] is 0"),
        ({"potential": "distance", "groups": [pb.ParticleGroup()] * 2}, r"interaction.a.groups\[0\]"),
    ],
)
def test_what_is_wrong_is_named(fields: dict[str, Any], says: str) -> None:
    particles = [] if "groups" in fields else [0]
    message = pb.Interaction(id="a", position=[0, 0, 0], particles=particles, **fields)
    with pytest.raises(InvalidArgumentError, match=says):
        interaction_of(message)
    with pytest.raises(InvalidArgumentError, match=says):
        Interaction.from_state("a", state_value_of(message))


def test_deep_maps_are_refused_by_their_name() -> None:
    nested: Any = 1.0
    for _ in range(14):
        nested = [nested]
    deep = to_struct({"x": nested})
    for _ in range(3):
        outer = to_struct({"x": None})
        outer.fields["x"].struct_value.CopyFrom(deep)
        deep = outer
    for field in ("parameters", "properties"):
        with pytest.raises(InvalidArgumentError, match=f"interaction.a.{field}"):
            state_value_of(pb.Interaction(id="a", **{field: deep}))  # type: ignore[arg-type]


@given(st.binary(max_size=200))
def test_any_bytes_are_an_interaction_or_refused(data: bytes) -> None:
    try:
        message = pb.Interaction.FromString(data)
    except Exception:  # no message at all
        return
    for read in (interaction_of, lambda message: Interaction.from_state(message.id, state_value_of(message))):
        try:
            interaction = read(message)
        except InvalidArgumentError:
            continue
        assert interaction.particles


values = st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
names = st.sampled_from(
    ["stiffness", "velocity", "target", "normal", "rotation", "reference", "start_ps", "width", "x"]
)
kinds = st.sampled_from([str(case["kind"]) for case in CASES] + ["x", ""])


@given(
    kind=kinds,
    parameters=st.dictionaries(names, values, max_size=3),
    groups=st.lists(st.lists(st.integers(0, 4), max_size=3), max_size=5),
    particles=st.lists(st.integers(0, 4), max_size=4),
)
def test_any_parameters_and_groups_are_refused_or_good(
    kind: str, parameters: dict[str, Any], groups: list[list[int]], particles: list[int]
) -> None:
    message = pb.Interaction(
        id="a",
        position=[0, 0, 0],
        particles=particles,
        potential=kind,
        parameters=to_struct(parameters),
        groups=[pb.ParticleGroup(particles=group) for group in groups],
    )
    try:
        interaction = Interaction.from_state("a", state_value_of(message), particle_count=5)
    except InvalidArgumentError as error:
        assert "a" in error.field
        return
    assert interaction_of(interaction_message(interaction)) == interaction
