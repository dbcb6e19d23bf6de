"""The contract of engines, kept by a running LAMMPS that was joined over IMD."""

from __future__ import annotations

import itertools
import math
from pathlib import Path

import pytest

from narupa_shared.errors import UnavailableError
from narupa_shared.testing.ports import unused_port
from narupa_trajectory.sources.catalogue import SourceSpec, open_source
from narupa_trajectory.sources.source import Source, SourceDivergedError
from narupa_trajectory.testing.engine_case import EngineCase, pull
from narupa_trajectory.testing.engine_contract import EngineContract
from tests.integration.lammps_engine import Lammps, lacking
from tests.integration.test_imd_lammps import METAL, script

pytestmark = pytest.mark.skipif(bool(lacking()), reason=lacking() or "LAMMPS is there")


class TestLammps(EngineContract):
    @pytest.fixture
    def case(self, tmp_path: Path) -> EngineCase:
        numbers = itertools.count()

        def make() -> Source:
            folder = tmp_path / f"run{next(numbers)}"
            folder.mkdir()
            port = unused_port()
            lammps = Lammps(folder, script(METAL, port, 3, cutoff=45.0, extra="unwrap on"))
            lammps.await_listening(port)
            topology = folder / "system.data"
            source = open_source(SourceSpec.parse(f"imd://127.0.0.1:{port}?topology={topology}&units=metal"))
            close = source.close

            def close_both() -> None:
                close()
                lammps.close()

            source.close = close_both  # type: ignore[method-assign]
            return source

        return EngineCase(make, temperature_k=None)

    def test_the_culprit_is_named_first(self, source: Source, case: EngineCase) -> None:
        """LAMMPS may end itself first, which is then all that is seen of the blow-up."""
        source.advance(5)
        harmless = pull(source, [4], (0.1, 0, 0), id="harmless", scale=1.0)
        source.set_interactions([harmless, pull(source, [0, 2], id="monster", scale=1e9, max_force=math.inf)])
        with pytest.raises((SourceDivergedError, UnavailableError)) as told:
            for _ in range(100):
                source.advance(5)
                source.snapshot()
        assert "monster" in (str(told.value) if told.type is UnavailableError else source.suspects()[0])

    test_a_bad_state_is_neither_shown_nor_kept = None  # type: ignore[assignment]  # by then LAMMPS may be gone
