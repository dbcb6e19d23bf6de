"""What the entry point names: which inputs this engine runs, and with which options.

The service imports this module to ask it, so what is heavy waits for `open`, which the engine process calls.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Final

from pydantic import Field

from narupa_shared.errors import InvalidArgumentError
from narupa_trajectory.sources.catalogue import SourceSpec
from narupa_trajectory.sources.engines import existing
from narupa_trajectory.sources.options import Options, Steps, Temperature
from narupa_trajectory.sources.source import Source

NAME: Final = "elastic-network"
PREFIX: Final = f"{NAME}:"
HELIX: Final = f"{PREFIX}helix"

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class ElasticNetworkOptions(Options):
    """Options of an elastic network."""

    selection: Annotated[str, Field(max_length=1000)] = "name CA"
    """Atoms that become beads, in MDAnalysis's selection language."""
    cutoff_nm: Positive = 1.3
    """Beads that are closer than this in the structure are joined by a spring."""
    stiffness_kj_mol_nm2: Positive = 418.4
    """Of each spring; the default is the usual 1 kcal/(mol A^2)."""
    temperature_k: Temperature = 300.0
    """Of the thermostat, and of the first velocities."""
    friction_per_ps: Annotated[float, Field(ge=0, le=1000, allow_inf_nan=False)] = 1.0
    """Coupling to the thermostat; 0 keeps the energy constant."""
    timestep_fs: Annotated[float, Field(gt=0, le=1000, allow_inf_nan=False)] = 10.0
    """Integration step."""
    steps_per_frame: Steps = 20
    """Integration steps between frames."""
    max_temperature_k: Positive = 100_000.0
    """What is hotter has blown up, and is stopped."""


class ElasticNetworkEngine:
    """Runs `elastic-network:helix`, and with `engine=elastic-network` any structure that MDAnalysis reads."""

    name = NAME
    options = ElasticNetworkOptions

    def claims(self, target: str, given: Mapping[str, Any]) -> bool:
        return target.startswith(PREFIX)

    def check(self, spec: SourceSpec) -> None:
        if not spec.target.startswith(PREFIX):
            existing(spec.target, "input")
        elif spec.target != HELIX:
            reason = f"there is {HELIX}; of a file of your own, make an input with ?engine={NAME}"
            raise InvalidArgumentError("input", spec.target, reason)

    def open(self, spec: SourceSpec, name: str) -> Source:
        from narupa_elastic_network.beads import helix, read
        from narupa_elastic_network.source import ElasticNetworkSource

        options = ElasticNetworkOptions.model_validate(spec.options)
        beads = helix() if spec.target == HELIX else read(spec.target, options.selection)
        return ElasticNetworkSource(name, beads, options)


ENGINE: Final = ElasticNetworkEngine()
