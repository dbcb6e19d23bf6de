"""For tests of engines, those of plug-ins among them: `narupa_trajectory.testing.engine_contract`."""

import pytest

# So that a failed assertion of the suite shows what it compared.
for _part in ("frames", "forces", "accounts", "restart", "blow_ups"):
    pytest.register_assert_rewrite(f"{__name__}.{_part}_contract")
