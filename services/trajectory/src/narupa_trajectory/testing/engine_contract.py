"""What every engine promises, as tests that its author inherits.

    from narupa_trajectory.testing.engine_contract import EngineCase, EngineContract

    class TestMyEngine(EngineContract):
        @pytest.fixture
        def case(self, tmp_path):
            return EngineCase(make=lambda: MySource(...), temperature_k=300.0)

`make` gives a fresh live source of the same input each time, of at least five particles that are not all in a plane. The
other fields of `EngineCase` say what is true of this engine and input; leave those that you need not change. What the
source's own `info` denies (`restorable`, `velocity_reset_available`) is not asked of it. Each test runs for each parameter of
the fixture, so that one class can cover many inputs.
"""

from __future__ import annotations

from narupa_trajectory.testing.accounts_contract import AccountsContract
from narupa_trajectory.testing.blow_ups_contract import BlowUpsContract
from narupa_trajectory.testing.engine_case import EngineCase
from narupa_trajectory.testing.forces_contract import ForcesContract
from narupa_trajectory.testing.frames_contract import FramesContract
from narupa_trajectory.testing.restart_contract import RestartContract

__all__ = ["EngineCase", "EngineContract"]


class EngineContract(FramesContract, ForcesContract, AccountsContract, RestartContract, BlowUpsContract):
    """All that a live source promises. Subclasses define the fixture `case`."""
