"""What a valid interaction is: every field from a stranger is checked, and every form reads back."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from narupa_shared.errors import InvalidArgumentError
from narupa_shared.interactions import Interaction
from narupa_shared.testing.bias_cases import interactions

STEERED: dict[str, Any] = {"kind": "steered", "particles": [1], "parameters": {"velocity": [1, 0, 0]}}
TURNED: dict[str, Any] = {"kind": "rotation", "particles": [3, 1]}


@settings(max_examples=60, deadline=None)
@given(interaction=interactions(), owner=st.text(max_size=5))
def test_every_form_reads_back(interaction: Interaction, owner: str) -> None:
    told = Interaction.from_json(json.loads(json.dumps(interaction.to_json() | {"owner": owner})))
    assert told.owner == owner
    assert Interaction.from_json(told.to_json()) == told
    state = told.to_state()
    assert "owner" not in state
    shared = json.loads(json.dumps(state))
    assert Interaction.from_state("case", shared).to_json() == told.to_json() | {"owner": ""}


def test_an_existing_client_s_interaction_has_the_defaults_and_is_written_as_before() -> None:
    state = {"position": [1.0, 2.0, 3.0], "particles": [2, 1], "interaction_type": "spring", "owner.id": "me"}
    interaction = Interaction.from_state("a", state)
    assert interaction.particles == (1, 2) and interaction.parameters == {"stiffness": 2.0}
    assert interaction.properties == {"owner.id": "me"}
    written = interaction.to_state()
    assert "parameters" not in written and "groups" not in written
    assert set(written) == {*state, "scale", "mass_weighted", "reset_velocities", "max_force"}


def test_parameters_are_complete_and_only_those_given_are_written() -> None:
    interaction = Interaction.parse("a", **STEERED)
    assert interaction.parameters == {"stiffness": 1000.0, "velocity": (1.0, 0.0, 0.0), "start_ps": None}
    assert interaction.to_state()["parameters"] == {"velocity": [1.0, 0.0, 0.0]}


def test_groups_are_sorted_and_their_union_is_the_particles() -> None:
    interaction = Interaction.parse("a", kind="distance", groups=[[5, 2], [4]], parameters={"target": 1})
    assert interaction.groups == ((2, 5), (4,)) and interaction.particles == (2, 4, 5)
    assert Interaction.parse("a", kind="spring", groups=[[3, 1]]).particles == (1, 3)
    same = Interaction.parse("a", kind="distance", particles=[2, 5, 4], groups=[[5, 2], [4]], parameters={"target": 1})
    assert same == interaction


def test_reference_positions_go_with_their_particles() -> None:
    parameters = {"reference": [[1, 1, 1], [2, 2, 2]]}
    interaction = Interaction.parse("a", **TURNED, parameters=parameters)
    assert interaction.particles == (1, 3)
    assert interaction.parameters["reference"] == ((2.0, 2.0, 2.0), (1.0, 1.0, 1.0))
    assert Interaction.from_json(interaction.to_json()) == interaction


@pytest.mark.parametrize(
    ("fields", "named", "value"),
    [
        ({"kind": "magic"}, "interaction.a.interaction_type", "magic"),
        ({"kind": 3}, "interaction.a.interaction_type", "3"),
        ({"kind": "spring", "parameters": {"width": 1}}, "interaction.a.parameters.width", "stiffness"),
        ({"kind": "constant", "parameters": {"width": 1}}, "interaction.a.parameters.width", "it has none"),
        ({"kind": "spring", "parameters": [1]}, "interaction.a.parameters", "map"),
        ({"kind": "spring", "parameters": {"stiffness": -1}}, "interaction.a.parameters.stiffness", "-1"),
        ({"kind": "spring", "parameters": {"stiffness": 1e12}}, "interaction.a.parameters.stiffness", "1e"),
        ({"kind": "spring", "parameters": {"stiffness": math.nan}}, "interaction.a.parameters.stiffness", "nan"),
        ({"kind": "spring", "parameters": {"stiffness": True}}, "interaction.a.parameters.stiffness", "number"),
        ({"kind": "spring", "parameters": {"stiffness": None}}, "interaction.a.parameters.stiffness", "number"),
        ({"kind": "gaussian", "parameters": {"width": 0}}, "interaction.a.parameters.width", "0"),
        ({"kind": "steered"}, "interaction.a.parameters.velocity", "steered needs it"),
        ({"kind": "steered", "parameters": {"velocity": [0, 0, 0]}}, "interaction.a.parameters.velocity", "long"),
        ({"kind": "steered", "parameters": {"velocity": [1, 2]}}, "interaction.a.parameters.velocity", "3 numbers"),
        ({"kind": "steered", "parameters": {"velocity": "fast"}}, "interaction.a.parameters.velocity", "3 numbers"),
        ({"kind": "steered", "parameters": {"velocity": [1, 2, 1e9]}}, "interaction.a.parameters.velocity[2]", "1e"),
        (STEERED | {"parameters": {"velocity": [1, 0, 0], "start_ps": "now"}}, "parameters.start_ps", "now"),
        ({"kind": "force", "parameters": {"force": [1, 2]}}, "interaction.a.parameters.force", "3 numbers"),
        ({"kind": "force", "parameters": {"forces": [[1, 2, 3]] * 2}}, "interaction.a.parameters.forces", "1 rows"),
        (
            {"kind": "force", "parameters": {"forces": [[1, 2, math.nan]]}},
            "interaction.a.parameters.forces[0][2]",
            "finite",
        ),
        ({"kind": "wall", "parameters": {"normal": [0, 0, 0]}}, "interaction.a.parameters.normal", "long"),
        ({"kind": "rotation", "parameters": {"rotation": [0, 0, 1]}}, "interaction.a.parameters.rotation", "4 numbers"),
        (TURNED | {"parameters": {"reference": [[1, 2, 3]]}}, "interaction.a.parameters.reference", "2 rows"),
        (TURNED | {"parameters": {"reference": [[1, 2, 3], [1, [2], 3]]}}, "parameters.reference[1][1]", "number"),
        (
            TURNED | {"parameters": {"reference": [[1, 2, 3]] * 10**6}},
            "interaction.a.parameters.reference",
            "1000000 items",
        ),
        ({"kind": "distance", "parameters": {"target": 1}}, "interaction.a.groups", "0 groups"),
        ({"kind": "distance", "groups": [[1]], "parameters": {"target": 1}}, "interaction.a.groups", "2 groups"),
        ({"kind": "spring", "groups": [[1], [2]]}, "interaction.a.groups", "spring acts on 1 group"),
        ({"kind": "distance", "groups": "12", "parameters": {"target": 1}}, "interaction.a.groups", "list"),
        ({"kind": "distance", "groups": [1, 2], "parameters": {"target": 1}}, "interaction.a.groups[0]", "list"),
        ({"kind": "distance", "groups": [[1], []], "parameters": {"target": 1}}, "interaction.a.groups[1]", "empty"),
        ({"kind": "distance", "groups": [[1], [2, 1]], "parameters": {"target": 1}}, "interaction.a.groups[1]", "1"),
        ({"kind": "distance", "groups": [[1], [9]], "parameters": {"target": 1}}, "interaction.a.groups[1]", "9"),
        (
            {"kind": "distance", "groups": [[1], [2]], "particles": [1, 3], "parameters": {"target": 1}},
            "interaction.a.particles",
            "name all of the groups",
        ),
        ({"kind": "distance", "groups": [[1], [2]]}, "interaction.a.parameters.target", "needs it"),
        ({"kind": "angle", "groups": [[1], [2], [3]], "parameters": {"target": 60}}, "parameters.target", "rad"),
    ],
)
def test_what_is_wrong_is_refused_by_name_and_value(fields: dict[str, Any], named: str, value: str) -> None:
    given = {"particles": [] if fields.get("groups") else [1]} | fields
    with pytest.raises(InvalidArgumentError) as refusal:
        Interaction.parse("a", **given, particle_count=5)
    assert refusal.value.field.startswith("interaction.a.") and named in refusal.value.field
    assert value in str(refusal.value)
    assert len(str(refusal.value)) < 1000


@pytest.mark.parametrize(
    "value", [None, [], {"id": 3}, {"id": "a", "particles": [1], "more": 1}, {"id": "a", "particles": [1], "owner": 5}]
)
def test_json_that_nobody_wrote_is_refused(value: Any) -> None:
    with pytest.raises(InvalidArgumentError):
        Interaction.from_json(value)


@pytest.mark.parametrize("index", [True, 0.5, math.nan, math.inf, "1", None, [1], -1, 10**400])
def test_indices_are_whole_numbers_of_particles_that_there_are(index: Any) -> None:
    with pytest.raises(InvalidArgumentError, match=r"interaction\.a\.particles"):
        Interaction.parse("a", particles=[2.0, index], particle_count=5)
    assert Interaction.parse("a", particles=[2.0, 1]).particles == (1, 2)


def test_a_free_property_cannot_pass_for_a_field() -> None:
    properties = {"label": "mine", "parameters": {"stiffness": 1e99}, "groups": [[0]], "particles": [7]}
    interaction = Interaction.parse("a", kind="spring", particles=[1], properties=properties)
    assert interaction.properties == {"label": "mine"}
    assert Interaction.from_state("a", interaction.to_state()) == interaction


def test_importing_interactions_stays_light() -> None:
    import subprocess
    import sys

    code = "import sys, narupa_shared.interactions; print([m for m in ('scipy', 'openmm', 'ase', 'grpc') if m in sys.modules])"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "[]"
